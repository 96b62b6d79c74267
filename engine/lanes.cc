// SPDX-License-Identifier: GPL-2.0-or-later
#include "lanes.h"

#include <bit>
#include <new>

namespace viommu
{

namespace
{

// Numbers that living threads have.
constinit std::atomic<uint64_t> taken{0};
static_assert(Lanes::kThreads == 64);

constexpr uint8_t kNone = Lanes::kThreads;
constexpr uint8_t kUnknown = kNone + 1;

constinit thread_local uint8_t my_number = kUnknown;

// Gives the number back when the thread ends.  Whoever takes it next finds all
// that this thread wrote to its lanes.
struct Ticket {
    ~Ticket()
    {
        if (my_number < kNone) {
            taken.fetch_and(~(uint64_t{1} << my_number), std::memory_order_release);
        }
        my_number = kNone;
    }
    void take()
    {
        uint64_t seen = taken.load(std::memory_order_relaxed);
        while (~seen != 0) {
            const uint64_t lowest = ~seen & (seen + 1);
            if (taken.compare_exchange_weak(seen, seen | lowest, std::memory_order_acquire,
                                            std::memory_order_relaxed)) {
                my_number = static_cast<uint8_t>(std::countr_zero(lowest));
                return;
            }
        }
        my_number = kNone;
    }
};

// Never again called by a thread after its first time.
[[gnu::noinline]] uint8_t take_number()
{
    static thread_local Ticket ticket;
    ticket.take();
    return my_number;
}

} // namespace

Lanes::~Lanes()
{
    for (const std::atomic<Lane *> &lane : lanes_) {
        delete lane.load(std::memory_order_relaxed);
    }
}

Lane *Lanes::mine()
{
    uint8_t number = my_number;
    if (number == kUnknown) {
        number = take_number();
    }
    if (number == kNone) {
        return nullptr;
    }
    Lane *const lane = lanes_[number].load(std::memory_order_relaxed);
    return lane ? lane : make(number);
}

Lane *Lanes::make(size_t thread)
{
    Lane *const lane = new (std::nothrow) Lane;
    lanes_[thread].store(lane, std::memory_order_release);
    return lane;
}

Counts Lanes::counts() const
{
    Counts sum{translations_.load(std::memory_order_relaxed),
               faults_.load(std::memory_order_relaxed)};
    for (const std::atomic<Lane *> &slot : lanes_) {
        if (const Lane *lane = slot.load(std::memory_order_acquire)) {
            sum += lane->counts();
        }
    }
    return sum;
}

} // namespace viommu
