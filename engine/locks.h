// SPDX-License-Identifier: GPL-2.0-or-later
//
// The locks of the engine, as capabilities that the compiler checks, and what
// readers have in place of one.
//
//   big lock    the caller's (inside QEMU: the BQL).  Serialises everything but
//               translate().  All callbacks are made with it and nothing else.
//   fault lock  one per engine; the queue of pending faults (faults.h).
//   pool lock   one per process; free nodes (mapping/node_pool.h).
//   cache lock  one per engine; what threads remember, while it is freed (thread_cache.h).
//
// The last three are leaves: no other lock is taken under them.
//
// translate() takes none of them before it refuses an access.  Who is attached to what,
// meaning the domain of every endpoint and the bypass bit, has one sequence counter per
// engine.  An endpoint and its domain belong to one engine for life, so one capability
// stands for the locks of all.
#pragma once

#include "base/annotations.h"
#include "base/sequence_counter.h"

namespace viommu
{

class VIOMMU_CAPABILITY("big lock") BigLock
{
public:
    // The lock is the caller's: its promise can only be noted, not checked.
    void assert_held() const VIOMMU_ASSERT_CAPABILITY(this) {}
};

// The right to change attachments, which an AttachmentChange gives.
class VIOMMU_CAPABILITY("attachments") AttachmentCapability
{
};

inline constexpr BigLock big_lock{};
inline constexpr AttachmentCapability attachments{};

// While one exists, readers wait.  Keep it short: no callback, no allocation.
class VIOMMU_SCOPED_CAPABILITY AttachmentChange
{
public:
    explicit AttachmentChange(SequenceCounter &counter)
        VIOMMU_ACQUIRE(attachments) VIOMMU_NO_THREAD_SAFETY_ANALYSIS : counter_(counter)
    {
        counter_.begin_change();
    }
    ~AttachmentChange() VIOMMU_RELEASE() VIOMMU_NO_THREAD_SAFETY_ANALYSIS { counter_.end_change(); }
    AttachmentChange(const AttachmentChange &) = delete;
    AttachmentChange &operator=(const AttachmentChange &) = delete;

private:
    SequenceCounter &counter_;
};

} // namespace viommu
