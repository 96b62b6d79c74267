// SPDX-License-Identifier: GPL-2.0-or-later
//
// What translate() writes: for each thread and endpoint a cache of translations, with
// counters.  No thread writes to a cache line that another one uses.
//
// A cache belongs to its endpoint until it is dropped: when the endpoint leaves its domain,
// nothing in it is of use.  Its thread may be in the middle of a translation, so it is freed
// through the Reclaimer.  What the thread counts until then is added to the endpoint's totals
// at the end.
//
// All caches of an engine come from one store of a limited size.  A thread that gets none
// translates without one.
#pragma once

#include "base/atomic.h"
#include "base/mutex.h"
#include "mapping/mapping_set.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace viommu
{

// An answer that a mapping gave, and what it rests on.  It is right for the whole block while
// the counter of the attachments has that value and the stamp holds.
struct Hit {
    static constexpr uint64_t kNone = 0; // nothing here

    uint64_t attachments;
    uint64_t base;
    uint64_t mask;
    uint64_t phys; // of `base`
    MappingSet::Stamp stamp;
    uint32_t rights;
};

struct Counts {
    uint64_t translations = 0;
    uint64_t faults = 0;

    Counts &operator+=(const Counts &other)
    {
        translations += other.translations;
        faults += other.faults;
        return *this;
    }
    Counts operator-(const Counts &other) const
    {
        return {translations - other.translations, faults - other.faults};
    }
};

class CacheStore;

// Of one endpoint: where its caches come from, and what was counted outside of those that it
// has now.  It lives as long as any of them.
struct alignas(64) EndpointTotals {
    explicit EndpointTotals(std::shared_ptr<CacheStore> origin) : store(std::move(origin)) {}

    void add(const Counts &counts)
    {
        translations.fetch_add(counts.translations, std::memory_order_relaxed);
        faults.fetch_add(counts.faults, std::memory_order_relaxed);
    }

    Atomic<uint64_t> translations{0};
    Atomic<uint64_t> faults{0};
    const std::shared_ptr<CacheStore> store;
};

class alignas(64) ThreadCache : public ViommuDeferred
{
public:
    // For the thread whose cache it is.

    void count_translation() { add_one(translations_); }
    void count_fault() { add_one(faults_); }

    // Where an answer for `iova` is, or belongs.
    Hit &hit(uint64_t iova) { return hits_[iova / kPage % kHits]; }
    const Hit &hit(uint64_t iova) const { return hits_[iova / kPage % kHits]; }

    // Any thread.
    Counts counts() const
    {
        return {translations_.load(std::memory_order_relaxed),
                faults_.load(std::memory_order_relaxed)};
    }

private:
    friend class ThreadCaches;
    friend class CacheStore;

    // The hits stay as the system gave the memory, all zero, and nobody has touched it.
    // cppcheck-suppress uninitDerivedMemberVarPrivate
    ThreadCache(std::shared_ptr<EndpointTotals> endpoint, size_t place) noexcept
        : ViommuDeferred{}, totals_(std::move(endpoint)), place_(place)
    {
    }

    // Of 4 KiB each they reach as far as what a busy device has under way.
    static constexpr size_t kHits = 1024;
    static constexpr uint64_t kPage = 4096;

    static void add_one(Atomic<uint64_t> &count)
    {
        count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }

    Atomic<uint64_t> translations_{0};
    Atomic<uint64_t> faults_{0};
    ThreadCache *next_ = nullptr; // of those that were dropped together
    const std::shared_ptr<EndpointTotals> totals_;
    Counts folded_; // what the totals have of it since it was dropped
    const size_t place_;
    alignas(64) std::array<Hit, kHits> hits_;
};

// The caches of one engine.
class CacheStore
{
public:
    static constexpr size_t kCaches = 1024;
    // Freed by one step.
    static constexpr size_t kStep = 16;

    CacheStore();
    CacheStore(const CacheStore &) = delete;
    CacheStore &operator=(const CacheStore &) = delete;
    ~CacheStore(); // no cache is left

    // Any thread, without a lock: nullptr if there are too many, or no memory.  Only
    // what is used of a cache takes memory.
    ThreadCache *make(const std::shared_ptr<EndpointTotals> &totals) noexcept;
    // Nobody has it in hand.
    void destroy(ThreadCache *cache) noexcept;

    // To defer a list that is not empty.
    static void defer(ThreadCache *list, Reclaimer &reclaimer);

    // Any thread: what caches take at most, those that wait to be freed included.
    size_t memory() const { return count_.load(std::memory_order_relaxed) * size_; }

private:
    static constexpr size_t kPieces = 64;
    static constexpr size_t kInPiece = kCaches / kPieces;
    static constexpr uint32_t kAllTaken = (uint32_t{1} << kInPiece) - 1;

    std::byte *piece(size_t i) noexcept;
    void give_back(size_t place) noexcept;
    bool step(ThreadCache *list) noexcept;

    const size_t size_; // of a cache
    Atomic<size_t> count_{0};
    std::array<Atomic<uint32_t>, kPieces> taken_{}; // bit i: cache i of the piece
    std::array<Atomic<std::byte *>, kPieces> pieces_{};

    // For those who free.  As in NodePool, one list at a time gets its steps, which free
    // all garbage: a round of calls for many lists does the work of one step.
    Mutex lock_;
    ThreadCache *garbage_ VIOMMU_GUARDED_BY(lock_) = nullptr;
    ThreadCache *sweeping_ VIOMMU_GUARDED_BY(lock_) = nullptr;
};

// The caches of one endpoint.
class ThreadCaches
{
public:
    explicit ThreadCaches(std::shared_ptr<CacheStore> store);
    ThreadCaches(const ThreadCaches &) = delete;
    ThreadCaches &operator=(const ThreadCaches &) = delete;
    ~ThreadCaches(); // no thread has a cache in hand

    // Any thread: its own cache; nullptr if there are too many threads or caches, or no
    // memory for one.
    ThreadCache *mine()
    {
        const uint8_t number = my_number_;
        ThreadCache *const cache =
            number < kThreads ? caches_[number].load(std::memory_order_relaxed) : nullptr;
        return cache ? cache : mine_at_first();
    }

    // For threads without one.
    void count_translation() { totals_->add({1, 0}); }
    void count_fault() { totals_->add({0, 1}); }

    // Of all threads, those that have ended included.
    Counts counts() const;

    // Adds all caches to the list.  One thread at a time, which also asks for counts.
    void drop(ThreadCache *&list);

    static constexpr size_t kThreads = 64;

private:
    ThreadCache *mine_at_first();

    // Of the thread, once it has asked for one.
    static constexpr uint8_t kNone = kThreads;
    static constexpr uint8_t kUnknown = kNone + 1;
    static constinit thread_local uint8_t my_number_;
    struct Ticket;
    static uint8_t take_number();

    std::array<Atomic<ThreadCache *>, kThreads> caches_{};
    const std::shared_ptr<EndpointTotals> totals_;
};

} // namespace viommu
