// SPDX-License-Identifier: GPL-2.0-or-later
#include "lanes.h"

#include "base/pages.h"

#include <bit>
#include <cstring>
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

/* LaneStore */

LaneStore::LaneStore() : size_(whole_pages(sizeof(Lane))) {}

LaneStore::~LaneStore()
{
    for (const std::atomic<std::byte *> &piece : pieces_) {
        if (std::byte *const memory = piece.load(std::memory_order_relaxed)) {
            // If it fails, addresses are lost, no memory: nothing of it is used.
            static_cast<void>(unmap_pages(memory, kInPiece * size_));
        }
    }
}

std::byte *LaneStore::piece(size_t i) noexcept
{
    std::atomic<std::byte *> &slot = pieces_[i];
    std::byte *memory = slot.load(std::memory_order_acquire);
    if (memory) {
        return memory;
    }
    auto *const fresh = static_cast<std::byte *>(map_pages(kInPiece * size_));
    if (fresh && !slot.compare_exchange_strong(memory, fresh, std::memory_order_acq_rel)) {
        static_cast<void>(unmap_pages(fresh, kInPiece * size_)); // untouched
        return memory;
    }
    return fresh;
}

Lane *LaneStore::make(const std::shared_ptr<LaneAccount> &account) noexcept
{
    // Threads that go without come here each time: no more than a look.
    if (count_.load(std::memory_order_relaxed) >= kLanes) {
        return nullptr;
    }
    if (count_.fetch_add(1, std::memory_order_relaxed) < kLanes) {
        for (size_t i = 0; i < kPieces; i++) {
            uint32_t seen = taken_[i].load(std::memory_order_relaxed);
            while (seen != kAllTaken) {
                const auto free = static_cast<size_t>(std::countr_one(seen));
                // Whoever had it before has left it as the system gives memory.
                if (!taken_[i].compare_exchange_weak(seen, seen | uint32_t{1} << free,
                                                     std::memory_order_acquire,
                                                     std::memory_order_relaxed)) {
                    continue;
                }
                const size_t place = i * kInPiece + free;
                if (std::byte *const memory = piece(i)) {
                    return new (memory + free * size_) Lane(account, place);
                }
                give_back(place);
                return nullptr;
            }
        }
    }
    count_.fetch_sub(1, std::memory_order_relaxed);
    return nullptr;
}

void LaneStore::give_back(size_t place) noexcept
{
    taken_[place / kInPiece].fetch_and(~(uint32_t{1} << place % kInPiece),
                                       std::memory_order_release);
    count_.fetch_sub(1, std::memory_order_relaxed);
}

void LaneStore::destroy(Lane *lane) noexcept
{
    const size_t place = lane->place_;
    lane->~Lane();
    if (!empty_pages(lane, size_)) {
        std::memset(static_cast<void *>(lane), 0, size_);
    }
    give_back(place);
}

void LaneStore::defer(Lane *list, Reclaimer &reclaimer)
{
    list->reclaim = [](ViommuDeferred *object) {
        auto *const first = static_cast<Lane *>(object);
        // The engine may be gone, and this its last lane.
        const std::shared_ptr<LaneStore> store = first->account_->store;
        return store->step(first);
    };
    reclaimer.defer(*list);
}

bool LaneStore::step(Lane *list) noexcept
{
    Lane *freed = nullptr;
    bool more = false;
    {
        const MutexLock guard(lock_);
        if (sweeping_ != list) {
            Lane *end = list;
            while (end->next_) {
                end = end->next_;
            }
            end->next_ = std::exchange(garbage_, list);
            if (sweeping_) {
                return false; // all of it is garbage, which is being swept
            }
            sweeping_ = list;
            return true;
        }
        for (size_t left = kStep; left > 0 && garbage_; left--) {
            Lane *const lane = std::exchange(garbage_, garbage_->next_);
            if (lane != sweeping_) {
                lane->next_ = std::exchange(freed, lane);
            }
        }
        more = garbage_ != nullptr;
        if (!more) {
            sweeping_->next_ = std::exchange(freed, sweeping_);
            sweeping_ = nullptr;
        }
    }
    while (freed) {
        Lane *const lane = std::exchange(freed, freed->next_);
        // What its thread had in hand when it was dropped is counted by now.
        lane->account_->add(lane->counts() - lane->settled_);
        destroy(lane);
    }
    return more;
}

/* Lanes */

Lanes::Lanes(std::shared_ptr<LaneStore> store)
    : account_(std::make_shared<LaneAccount>(std::move(store)))
{
}

Lanes::~Lanes()
{
    for (const std::atomic<Lane *> &slot : lanes_) {
        if (Lane *const lane = slot.load(std::memory_order_relaxed)) {
            account_->store->destroy(lane);
        }
    }
}

void Lanes::drop(Lane *&list)
{
    for (std::atomic<Lane *> &slot : lanes_) {
        if (!slot.load(std::memory_order_relaxed)) {
            continue;
        }
        Lane *const lane = slot.exchange(nullptr, std::memory_order_acq_rel);
        lane->settled_ = lane->counts();
        account_->add(lane->settled_);
        lane->next_ = std::exchange(list, lane);
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
        slot.store(account_->store->make(account_), std::memory_order_release);
    }
    return slot.load(std::memory_order_relaxed);
}

Counts Lanes::counts() const
{
    Counts sum{account_->translations.load(std::memory_order_relaxed),
               account_->faults.load(std::memory_order_relaxed)};
    for (const std::atomic<Lane *> &slot : lanes_) {
        if (const Lane *lane = slot.load(std::memory_order_acquire)) {
            sum += lane->counts();
        }
    }
    return sum;
}

} // namespace viommu
