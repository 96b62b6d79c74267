// SPDX-License-Identifier: GPL-2.0-or-later
#include "faults.h"

namespace viommu
{

void FaultQueue::set_live(bool live)
{
    const MutexLock guard(lock_);
    live_ = live;
    if (!live) {
        clear_locked();
    }
}

bool FaultQueue::report(FaultSource &source, uint64_t address, wire::Reason reason,
                        uint32_t directions)
{
    const MutexLock guard(lock_);
    for (FaultTally *const tally : {&tally_, &source.tally_}) {
        tally->by_reason[static_cast<size_t>(reason)]++;
        tally->reason = reason;
        tally->directions = directions;
        tally->address = address;
    }
    return queue_locked(source, address, reason, directions);
}

bool FaultQueue::queue(FaultSource &source, uint64_t address, wire::Reason reason,
                       uint32_t directions)
{
    const MutexLock guard(lock_);
    return queue_locked(source, address, reason, directions);
}

bool FaultQueue::queue_locked(FaultSource &source, uint64_t address, wire::Reason reason,
                              uint32_t directions)
{
    if (!live_ || source.closed_) {
        count_dropped();
        return false;
    }

    size_t of_source = 0;
    for (size_t i = 0; i < count_; i++) {
        const Record &record = at(i);
        if (record.source == &source) {
            of_source++;
            if (((record.address ^ address) & page_mask_) == 0) {
                directions &= ~record.directions;
            }
        }
    }
    if (directions == 0) {
        coalesced_.fetch_add(1, std::memory_order_relaxed);
        return false;
    }
    if (of_source >= kFaultsPerEndpoint || count_ >= ring_.size()) {
        count_dropped();
        return false;
    }
    at(count_) = Record{&source, address, reason, directions};
    count_++;
    return true;
}

std::optional<Fault> FaultQueue::pop()
{
    const MutexLock guard(lock_);
    if (count_ == 0) {
        return std::nullopt;
    }
    const Record record = at(0);
    head_ = (head_ + 1) % ring_.size();
    count_--;
    return Fault{record.source->opaque_, record.address, record.reason, record.directions};
}

std::optional<void *> FaultQueue::oldest()
{
    const MutexLock guard(lock_);
    return count_ == 0 ? std::nullopt : std::optional(at(0).source->opaque_);
}

FaultTally FaultQueue::tally(const FaultSource &source)
{
    const MutexLock guard(lock_);
    return source.tally_;
}

FaultTally FaultQueue::tally()
{
    const MutexLock guard(lock_);
    return tally_;
}

void FaultQueue::close(FaultSource &source)
{
    const MutexLock guard(lock_);
    source.closed_ = true;
    size_t kept = 0;
    for (size_t i = 0; i < count_; i++) {
        if (at(i).source == &source) {
            count_dropped();
        } else {
            at(kept++) = at(i);
        }
    }
    count_ = kept;
}

void FaultQueue::clear()
{
    const MutexLock guard(lock_);
    clear_locked();
}

void FaultQueue::clear_locked()
{
    dropped_.fetch_add(count_, std::memory_order_relaxed);
    head_ = 0;
    count_ = 0;
}

} // namespace viommu
