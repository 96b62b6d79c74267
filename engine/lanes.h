// SPDX-License-Identifier: GPL-2.0-or-later
//
// What translate() writes: a lane for each thread and endpoint, so that threads
// share no cache line that any of them writes.
//
// A lane is of the endpoint until it is dropped, when there is nothing to remember.
// Its thread may still have it in hand: so it goes through the reclaimer, and counts
// until no reader can have it.  All of an engine come from one store, which has a
// limited number; a thread that gets none translates without.
#pragma once

#include "base/mutex.h"
#include "mapping/mapping_set.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace viommu
{

// An answer that a mapping gave, and what it rests on: while the counter of the
// attachments has that value and the domain's set holds the stamp, it is right for the whole
// block.
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

class LaneStore;

// Of one endpoint: where its lanes come from, and what was counted outside of those it
// has.  Lives as long as any of them.
struct alignas(64) LaneAccount {
    explicit LaneAccount(std::shared_ptr<LaneStore> origin) : store(std::move(origin)) {}

    void add(const Counts &counts)
    {
        translations.fetch_add(counts.translations, std::memory_order_relaxed);
        faults.fetch_add(counts.faults, std::memory_order_relaxed);
    }

    std::atomic<uint64_t> translations{0};
    std::atomic<uint64_t> faults{0};
    const std::shared_ptr<LaneStore> store;
};

class alignas(64) Lane : public ViommuDeferred
{
public:
    // For the thread whose lane it is.

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
    friend class Lanes;
    friend class LaneStore;

    // The hits stay as the system gave the memory, all zero, and nobody has touched it.
    // cppcheck-suppress uninitDerivedMemberVarPrivate
    Lane(std::shared_ptr<LaneAccount> endpoint, size_t place) noexcept
        : ViommuDeferred{}, account_(std::move(endpoint)), place_(place)
    {
    }

    // Of 4 KiB each they reach as far as what a busy device has under way.
    static constexpr size_t kHits = 1024;
    static constexpr uint64_t kPage = 4096;

    static void add_one(std::atomic<uint64_t> &count)
    {
        count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }

    std::atomic<uint64_t> translations_{0};
    std::atomic<uint64_t> faults_{0};
    Lane *next_ = nullptr; // of those that were dropped together
    const std::shared_ptr<LaneAccount> account_;
    Counts settled_; // when it was dropped
    const size_t place_;
    alignas(64) std::array<Hit, kHits> hits_;
};

// The lanes of one engine.
class LaneStore
{
public:
    static constexpr size_t kLanes = 1024;
    // Freed by one step.
    static constexpr size_t kStep = 16;

    LaneStore();
    LaneStore(const LaneStore &) = delete;
    LaneStore &operator=(const LaneStore &) = delete;
    ~LaneStore(); // no lane is left

    // Any thread, without a lock: nullptr if there are too many, or no memory.  Only
    // what is used of a lane takes memory.
    Lane *make(const std::shared_ptr<LaneAccount> &account) noexcept;
    // Nobody has it in hand.
    void destroy(Lane *lane) noexcept;

    // To defer a list that is not empty.
    static void defer(Lane *list, Reclaimer &reclaimer);

    // Any thread: what lanes take at most, those that wait to be freed included.
    size_t memory() const { return count_.load(std::memory_order_relaxed) * size_; }

private:
    static constexpr size_t kPieces = 64;
    static constexpr size_t kInPiece = kLanes / kPieces;
    static constexpr uint32_t kAllTaken = (uint32_t{1} << kInPiece) - 1;

    std::byte *piece(size_t i) noexcept;
    void give_back(size_t place) noexcept;
    bool step(Lane *list) noexcept;

    const size_t size_; // of a lane
    std::atomic<size_t> count_{0};
    std::array<std::atomic<uint32_t>, kPieces> taken_{}; // bit i: lane i of the piece
    std::array<std::atomic<std::byte *>, kPieces> pieces_{};

    // Of those who free.  As in NodePool: steps are made on behalf of one list at a
    // time, so that many lists get no more than one step done.
    Mutex lock_;
    Lane *garbage_ VIOMMU_GUARDED_BY(lock_) = nullptr;
    Lane *sweeping_ VIOMMU_GUARDED_BY(lock_) = nullptr;
};

// The lanes of one endpoint.
class Lanes
{
public:
    explicit Lanes(std::shared_ptr<LaneStore> store);
    Lanes(const Lanes &) = delete;
    Lanes &operator=(const Lanes &) = delete;
    ~Lanes(); // no thread has a lane in hand

    // Any thread: its own lane; nullptr if there are too many threads or lanes, or no
    // memory for one.
    Lane *mine()
    {
        const uint8_t number = my_number_;
        Lane *const lane =
            number < kThreads ? lanes_[number].load(std::memory_order_relaxed) : nullptr;
        return lane ? lane : mine_at_first();
    }

    // For threads without one.
    void count_translation() { account_->add({1, 0}); }
    void count_fault() { account_->add({0, 1}); }

    // Of all threads, those that have ended included.
    Counts counts() const;

    // Adds all lanes to the list.  One thread at a time, which also asks for counts.
    void drop(Lane *&list);

    static constexpr size_t kThreads = 64;

private:
    Lane *mine_at_first();

    // Of the thread, once it has asked for one.
    static constexpr uint8_t kNone = kThreads;
    static constexpr uint8_t kUnknown = kNone + 1;
    static constinit thread_local uint8_t my_number_;
    struct Ticket;
    static uint8_t take_number();

    std::array<std::atomic<Lane *>, kThreads> lanes_{};
    const std::shared_ptr<LaneAccount> account_;
};

} // namespace viommu
