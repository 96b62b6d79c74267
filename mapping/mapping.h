// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <viommu/types.h>

#include <cstdint>

namespace viommu
{

struct Mapping {
    uint64_t iova;
    uint64_t last;
    uint64_t phys;
    uint32_t flags; // MAP flags as requested: rights, and one bit that we only keep

    uint32_t rights() const { return flags & (VIOMMU_READ | VIOMMU_WRITE); }
};

} // namespace viommu
