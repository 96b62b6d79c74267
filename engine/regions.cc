// SPDX-License-Identifier: GPL-2.0-or-later
#include "regions.h"

#include "wire.h"

#include "base/error.h"

#include <algorithm>

namespace viommu
{

namespace
{

// The run of addresses from `at` on for which one entry of the input is in
// force, or none; the lowest index wins.
struct Run {
    const ViommuRegion *region;
    uint64_t last;
};

Run run_at(std::span<const ViommuRegion> in, uint64_t at)
{
    Run run{nullptr, UINT64_MAX};
    for (const ViommuRegion &region : in) {
        if (region.start <= at && at <= region.last) {
            run.region = &region;
            run.last = std::min(run.last, region.last);
            break;
        }
        // An earlier entry that starts later ends this run there.
        if (region.start > at) {
            run.last = std::min(run.last, region.start - 1);
        }
    }
    return run;
}

bool is_msi(const ViommuRegion &region)
{
    return region.subtype == VIOMMU_RESV_MSI;
}

} // namespace

size_t merge_regions(std::span<const ViommuRegion> in, std::span<ViommuRegion> out) noexcept
{
    size_t count = 0;
    ViommuRegion open{};
    bool is_open = false;

    const auto close = [&] {
        if (is_open) {
            if (count < out.size()) {
                out[count] = open;
            }
            count++;
            is_open = false;
        }
    };

    // Quadratic in the number of regions, of which there are a handful.
    uint64_t at = 0;
    for (;;) {
        const Run run = run_at(in, at);
        if (!run.region) {
            close();
        } else if (is_open && open.subtype == run.region->subtype) {
            open.last = run.last;
        } else {
            close();
            open = ViommuRegion{at, run.last, run.region->subtype};
            is_open = true;
        }
        if (run.last == UINT64_MAX) {
            break;
        }
        at = run.last + 1;
    }
    close();
    return count;
}

size_t collect_regions(std::span<const ViommuRegion> users, std::span<const ViommuRegion> all,
                       std::span<ViommuRegion> out) noexcept
{
    return merge_regions(std::any_of(users.begin(), users.end(), is_msi) ? users : all, out);
}

Regions merged_regions(std::span<const ViommuRegion> first, std::span<const ViommuRegion> then)
{
    Regions all(first.begin(), first.end());
    all.insert(all.end(), then.begin(), then.end());
    Regions merged(merge_regions(all, {}));
    merge_regions(all, merged);
    return merged;
}

Regions regions_outside(std::span<const ViommuRange> usable, uint64_t first, uint64_t last)
{
    std::vector<ViommuRange> ranges(usable.begin(), usable.end());
    std::sort(ranges.begin(), ranges.end(),
              [](const ViommuRange &a, const ViommuRange &b) { return a.start < b.start; });
    Regions outside;
    uint64_t at = first; // all below is dealt with
    for (const ViommuRange &range : ranges) {
        if (range.start > last) {
            break;
        }
        if (range.last < at) {
            continue;
        }
        if (range.start > at) {
            outside.push_back({at, range.start - 1, VIOMMU_RESV_RESERVED});
        }
        if (range.last >= last) {
            return outside;
        }
        at = range.last + 1;
    }
    outside.push_back({at, last, VIOMMU_RESV_RESERVED});
    return outside;
}

void check_regions(std::span<const ViommuRegion> regions)
{
    for (const ViommuRegion &region : regions) {
        if (region.start > region.last ||
            (region.subtype != VIOMMU_RESV_RESERVED && region.subtype != VIOMMU_RESV_MSI)) {
            throw Refusal("a reserved region is inverted or of an unknown subtype");
        }
    }
}

void check_merged_regions(std::span<const ViommuRegion> merged, uint32_t probe_size)
{
    // PRB-D1: a list that is cut short would hide a region from the driver.
    if (merged.size() > probe_size / wire::kResvMemSize) {
        throw Refusal("the reserved regions do not fit in the PROBE properties area");
    }
    // RSV-2
    if (std::count_if(merged.begin(), merged.end(), is_msi) > 1) {
        throw Refusal("an endpoint cannot have more than one reserved region for MSIs");
    }
}

const ViommuRegion *find_region(const Regions &regions, uint64_t address)
{
    // DMA is seldom near them.
    if (regions.empty() || address < regions.front().start || address > regions.back().last) {
        return nullptr;
    }
    const auto after = std::upper_bound(
        regions.begin(), regions.end(), address,
        [](uint64_t value, const ViommuRegion &region) { return value < region.start; });
    const ViommuRegion &candidate = *std::prev(after);
    return address <= candidate.last ? &candidate : nullptr;
}

bool regions_overlap(const Regions &regions, uint64_t first, uint64_t last)
{
    const auto after = std::upper_bound(
        regions.begin(), regions.end(), last,
        [](uint64_t value, const ViommuRegion &region) { return value < region.start; });
    return after != regions.begin() && std::prev(after)->last >= first;
}

} // namespace viommu
