// SPDX-License-Identifier: GPL-2.0-or-later
//
// Pending fault records between the threads that do DMA and the one that
// writes them to the event queue.
//
// Bounded in every direction (W19, FLT-D3): a fixed number of records, a
// smaller number per endpoint, and one record per endpoint, page and direction.
// What does not fit is counted.  Reporting allocates nothing, takes the fault
// lock only, and calls nobody.
#pragma once

#include "wire.h"

#include "base/atomic.h"
#include "base/mutex.h"

#include <array>
#include <cstdint>
#include <optional>

namespace viommu
{

inline constexpr size_t kFaultQueueSize = 256;
inline constexpr size_t kFaultsPerEndpoint = 16;

// What was reported, whether or not a record came of it.
struct FaultTally {
    std::array<uint64_t, wire::kReasons> by_reason{};
    // The last one.
    wire::Reason reason{};
    uint32_t directions = 0; // 0: there was none yet
    uint64_t address = 0;

    uint64_t count(wire::Reason which) const { return by_reason[static_cast<size_t>(which)]; }
};

// The endpoint as the queue knows it.
class FaultSource
{
public:
    explicit FaultSource(void *opaque) : opaque_(opaque) {}

private:
    friend class FaultQueue;
    void *const opaque_;
    // Under the lock of the queue.
    bool closed_ = false;
    FaultTally tally_;
};

struct Fault {
    void *endpoint_opaque;
    uint64_t address;
    wire::Reason reason;
    uint32_t directions; // VIOMMU_READ, VIOMMU_WRITE
};

class FaultQueue
{
public:
    explicit FaultQueue(uint64_t granule) : page_mask_(~(granule - 1)) {}

    // While not live, what is reported is dropped, and so is what is pending
    // when it ceases to be.
    void set_live(bool live);

    // A record without an access.
    bool queue(FaultSource &source, uint64_t address, wire::Reason reason, uint32_t directions);

    // An access was refused.  Both: true if a record was queued.
    bool report(FaultSource &source, uint64_t address, wire::Reason reason, uint32_t directions);

    // Takes the oldest record.
    std::optional<Fault> pop();

    // Whose it is: the endpoint's opaque.  pop() gives that record, which may have
    // grown meanwhile, unless its source is closed first or all is cleared.
    std::optional<void *> oldest();

    // Drops the source's records, and whatever it reports from now on.
    void close(FaultSource &source);

    void clear();

    // Of one source, and of all that there ever were.
    FaultTally tally(const FaultSource &source);
    FaultTally tally();

    void count_dropped() { dropped_.fetch_add(1, std::memory_order_relaxed); }

    uint64_t coalesced() const { return coalesced_.load(std::memory_order_relaxed); }
    uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

private:
    struct Record {
        FaultSource *source;
        uint64_t address;
        wire::Reason reason;
        uint32_t directions;
    };

    bool queue_locked(FaultSource &source, uint64_t address, wire::Reason reason,
                      uint32_t directions) VIOMMU_REQUIRES(lock_);
    void clear_locked() VIOMMU_REQUIRES(lock_);
    Record &at(size_t i) VIOMMU_REQUIRES(lock_) { return ring_[(head_ + i) % ring_.size()]; }

    const uint64_t page_mask_;
    Mutex lock_;
    bool live_ VIOMMU_GUARDED_BY(lock_) = false;
    std::array<Record, kFaultQueueSize> ring_ VIOMMU_GUARDED_BY(lock_){};
    size_t head_ VIOMMU_GUARDED_BY(lock_) = 0;
    size_t count_ VIOMMU_GUARDED_BY(lock_) = 0;
    FaultTally tally_ VIOMMU_GUARDED_BY(lock_);
    Atomic<uint64_t> coalesced_{0};
    Atomic<uint64_t> dropped_{0};
};

} // namespace viommu
