// SPDX-License-Identifier: GPL-2.0-or-later
//
// What translations of all endpoints of one engine have in common.
#pragma once

#include "faults.h"
#include "locks.h"
#include "thread_cache.h"

#include "base/atomic.h"

#include <cstdint>
#include <memory>

namespace viommu
{

struct Shared {
    Shared(bool boot_bypass, uint64_t granule) : bypass(boot_bypass), faults(granule) {}

    // Of the domain of every endpoint and of `bypass`, which change in an AttachmentChange
    // only.  It is never 0, Hit::kNone.
    alignas(64) SequenceCounter attachments{2};
    Atomic<bool> bypass;
    FaultQueue faults;
    const std::shared_ptr<CacheStore> cache_store = std::make_shared<CacheStore>();
};

} // namespace viommu
