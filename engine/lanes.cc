// SPDX-License-Identifier: GPL-2.0-or-later
#include "lanes.h"

#include <sys/mman.h>

#include <bit>
#include <new>
#include <type_traits>

namespace viommu
{

namespace
{

// Numbers that living threads have.
constinit std::atomic<uint64_t> taken{0};
static_assert(Lanes::kThreads == 64);
static_assert(std::is_trivially_default_constructible_v<Hit>);

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

Lane *Lane::make() noexcept
{
    void *const memory =
        mmap(nullptr, sizeof(Lane), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? nullptr : new (memory) Lane;
}

void Lane::destroy(Lane *lane) noexcept
{
    if (lane) {
        munmap(lane, sizeof(Lane));
    }
}

Lanes::~Lanes()
{
    for (const std::atomic<Lane *> &lane : lanes_) {
        Lane::destroy(lane.load(std::memory_order_relaxed));
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
        slot.store(Lane::make(), std::memory_order_release);
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
