// SPDX-License-Identifier: GPL-2.0-or-later
#include "thread_cache.h"

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
constinit Atomic<uint64_t> taken{0};
static_assert(ThreadCaches::kThreads == 64);
static_assert(std::is_trivially_default_constructible_v<Hit>);

} // namespace

constinit thread_local uint8_t ThreadCaches::my_number_ = ThreadCaches::kUnknown;

// Gives the number back when the thread ends.  Whoever takes it next finds all
// that this thread wrote to its caches.
struct ThreadCaches::Ticket {
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
uint8_t ThreadCaches::take_number()
{
    static thread_local Ticket ticket;
    ticket.take();
    return my_number_;
}

/* CacheStore */

CacheStore::CacheStore() : size_(whole_pages(sizeof(ThreadCache))) {}

CacheStore::~CacheStore()
{
    for (const Atomic<std::byte *> &piece : pieces_) {
        if (std::byte *const memory = piece.load(std::memory_order_relaxed)) {
            // If it fails, addresses are lost, no memory: nothing of it is used.
            static_cast<void>(unmap_pages(memory, kInPiece * size_));
        }
    }
}

std::byte *CacheStore::piece(size_t i) noexcept
{
    Atomic<std::byte *> &slot = pieces_[i];
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

ThreadCache *CacheStore::make(const std::shared_ptr<EndpointTotals> &totals) noexcept
{
    // Threads that go without come here each time: no more than a look.
    if (count_.load(std::memory_order_relaxed) >= kCaches) {
        return nullptr;
    }
    if (count_.fetch_add(1, std::memory_order_relaxed) < kCaches) {
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
                    return new (memory + free * size_) ThreadCache(totals, place);
                }
                give_back(place);
                return nullptr;
            }
        }
    }
    count_.fetch_sub(1, std::memory_order_relaxed);
    return nullptr;
}

void CacheStore::give_back(size_t place) noexcept
{
    taken_[place / kInPiece].fetch_and(~(uint32_t{1} << place % kInPiece),
                                       std::memory_order_release);
    count_.fetch_sub(1, std::memory_order_relaxed);
}

void CacheStore::destroy(ThreadCache *cache) noexcept
{
    const size_t place = cache->place_;
    cache->~ThreadCache();
    if (!empty_pages(cache, size_)) {
        std::memset(static_cast<void *>(cache), 0, size_);
    }
    give_back(place);
}

void CacheStore::defer(ThreadCache *list, Reclaimer &reclaimer)
{
    list->reclaim = [](ViommuDeferred *object) {
        auto *const first = static_cast<ThreadCache *>(object);
        // The engine may be gone, and this its last cache.
        const std::shared_ptr<CacheStore> store = first->totals_->store;
        return store->step(first);
    };
    reclaimer.defer(*list);
}

bool CacheStore::step(ThreadCache *list) noexcept
{
    ThreadCache *freed = nullptr;
    bool more = false;
    {
        const MutexLock guard(lock_);
        if (sweeping_ != list) {
            ThreadCache *end = list;
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
            ThreadCache *const cache = std::exchange(garbage_, garbage_->next_);
            if (cache != sweeping_) {
                cache->next_ = std::exchange(freed, cache);
            }
        }
        more = garbage_ != nullptr;
        if (!more) {
            sweeping_->next_ = std::exchange(freed, sweeping_);
            sweeping_ = nullptr;
        }
    }
    while (freed) {
        ThreadCache *const cache = std::exchange(freed, freed->next_);
        // What its thread had in hand when it was dropped is counted by now.
        cache->totals_->add(cache->counts() - cache->folded_);
        destroy(cache);
    }
    return more;
}

/* ThreadCaches */

ThreadCaches::ThreadCaches(std::shared_ptr<CacheStore> store)
    : totals_(std::make_shared<EndpointTotals>(std::move(store)))
{
}

ThreadCaches::~ThreadCaches()
{
    for (const Atomic<ThreadCache *> &slot : caches_) {
        if (ThreadCache *const cache = slot.load(std::memory_order_relaxed)) {
            totals_->store->destroy(cache);
        }
    }
}

void ThreadCaches::drop(ThreadCache *&list)
{
    for (Atomic<ThreadCache *> &slot : caches_) {
        if (!slot.load(std::memory_order_relaxed)) {
            continue;
        }
        ThreadCache *const cache = slot.exchange(nullptr, std::memory_order_acq_rel);
        cache->folded_ = cache->counts();
        totals_->add(cache->folded_);
        cache->next_ = std::exchange(list, cache);
    }
}

ThreadCache *ThreadCaches::mine_at_first()
{
    const uint8_t number = my_number_ == kUnknown ? take_number() : my_number_;
    if (number == kNone) {
        return nullptr;
    }
    Atomic<ThreadCache *> &slot = caches_[number];
    if (!slot.load(std::memory_order_relaxed)) {
        slot.store(totals_->store->make(totals_), std::memory_order_release);
    }
    return slot.load(std::memory_order_relaxed);
}

Counts ThreadCaches::counts() const
{
    Counts sum{totals_->translations.load(std::memory_order_relaxed),
               totals_->faults.load(std::memory_order_relaxed)};
    for (const Atomic<ThreadCache *> &slot : caches_) {
        if (const ThreadCache *cache = slot.load(std::memory_order_acquire)) {
            sum += cache->counts();
        }
    }
    return sum;
}

} // namespace viommu
