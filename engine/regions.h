// SPDX-License-Identifier: GPL-2.0-or-later
//
// Reserved regions: sorted, disjoint lists and the questions asked of them.
#pragma once

#include <viommu/engine.h>

#include <cstdint>
#include <span>
#include <vector>

namespace viommu
{

using Regions = std::vector<ViommuRegion>;

// What viommu_regions_collect() says of merging, without its C form.  Allocates nothing.
size_t merge_regions(std::span<const ViommuRegion> in, std::span<ViommuRegion> out) noexcept;

// What viommu_regions_collect() says; `all` begins with the user's.
size_t collect_regions(std::span<const ViommuRegion> users, std::span<const ViommuRegion> all,
                       std::span<ViommuRegion> out) noexcept;

// The merged list of `first` and `then`; where they conflict `first` wins.
Regions merged_regions(std::span<const ViommuRegion> first,
                       std::span<const ViommuRegion> then = {});

// The reserved regions that `usable` leaves of the addresses from `first` to `last`;
// its ranges may touch, overlap and lie in any order.
Regions regions_outside(std::span<const ViommuRange> usable, uint64_t first, uint64_t last);

// Throws a Refusal unless all are well formed: not inverted, of a known subtype.
void check_regions(std::span<const ViommuRegion> regions);

// Throws a Refusal if merged regions cannot be presented to the guest.
void check_merged_regions(std::span<const ViommuRegion> merged, uint32_t probe_size);

// These two want a merged list.
const ViommuRegion *find_region(const Regions &regions, uint64_t address);
bool regions_overlap(const Regions &regions, uint64_t first, uint64_t last);

} // namespace viommu
