// SPDX-License-Identifier: GPL-2.0-or-later
//
// What translations of all endpoints of one engine have in common.
#pragma once

#include "faults.h"
#include "lanes.h"
#include "locks.h"

#include <atomic>
#include <cstdint>
#include <memory>

namespace viommu
{

struct Shared {
    Shared(bool boot_bypass, uint64_t granule) : bypass(boot_bypass), faults(granule) {}

    RouteVersion version;
    std::atomic<bool> bypass; // changed in a RouteChange only
    FaultQueue faults;
    const std::shared_ptr<LaneStore> lane_store = std::make_shared<LaneStore>();
};

} // namespace viommu
