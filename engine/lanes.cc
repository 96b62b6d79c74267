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

} // namespace

constinit thread_local uint8_t Lanes::my_number_ = Lanes::kUnknown;

// Gives the number back when the thread ends.  Whoever takes it next finds all
// that this thread wrote to its lanes.
struct Lanes::Ticket {
    ~Ticket()
    {
        if (my_number_ < kNone) {
            taken.fetch_and(~(uint64_t{1} << my_number_), std::memory_order_release);
        }
        my_number_ = kNone;
    }
    void take()
    {
        uint64_t seen = taken.load(std::memory_order_relaxed);
        while (~seen != 0) {
            const uint64_t lowest = ~seen & (seen + 1);
            if (taken.compare_exchange_weak(seen, seen | lowest, std::memory_order_acquire,
                                            std::memory_order_relaxed)) {
                my_number_ = static_cast<uint8_t>(std::countr_zero(lowest));
                return;
            }
        }
        my_number_ = kNone;
    }
};

// Never again called by a thread after its first time.
uint8_t Lanes::take_number()
{
    static thread_local Ticket ticket;
    ticket.take();
    return my_number_;
}

Lanes::~Lanes()
{
    for (const std::atomic<Lane *> &lane : lanes_) {
        delete lane.load(std::memory_order_relaxed);
    }
}

Lane *Lanes::mine_at_first()
{
    const uint8_t number = my_number_ == kUnknown ? take_number() : my_number_;
    if (number == kNone) {
        return nullptr;
    }
    std::atomic<Lane *> &slot = lanes_[number];
    if (!slot.load(std::memory_order_relaxed)) {
        slot.store(new (std::nothrow) Lane, std::memory_order_release);
    }
    return slot.load(std::memory_order_relaxed);
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
