// SPDX-License-Identifier: GPL-2.0-or-later
#include "settings.h"

#include "base/error.h"

#include <bit>

namespace viommu
{

namespace
{

constexpr uint64_t kKnownFeatures = VIOMMU_F_INPUT_RANGE | VIOMMU_F_DOMAIN_RANGE |
                                    VIOMMU_F_MAP_UNMAP | VIOMMU_F_PROBE | VIOMMU_F_MMIO |
                                    VIOMMU_F_BYPASS_CONFIG;

std::span<const ViommuRegion> regions_of(const ViommuEngineConfig &config)
{
    return {config.regions, config.region_count};
}

// Those of a page, and of what two levels of tables above it span: a table is of
// the size of a page, and its entries have 8 bytes.
uint64_t page_table_sizes(uint64_t granule)
{
    const int shift = std::countr_zero(granule);
    uint64_t sizes = 0;
    for (int level = 0; level < 3; level++) {
        const int size = shift + level * (shift - 3);
        sizes |= shift < 3 || size > 63 ? granule : uint64_t{1} << size;
    }
    return sizes;
}

void check(const ViommuEngineConfig &config)
{
    // FEA-2, FEA-3: the old BYPASS bit is among the unknown.
    if ((config.offered_features & ~kKnownFeatures) != 0) {
        throw Refusal("a feature is offered that this device does not implement");
    }
    if (config.page_size_mask == 0) {
        throw Refusal("the page size mask is empty"); // CFG-1
    }
    if (config.input_start > config.input_last) {
        throw Refusal("the input range is empty");
    }
    if (config.domain_first > config.domain_last) {
        throw Refusal("the domain range is empty");
    }
    if (config.probe_size < VIOMMU_PROBE_SIZE_MIN || config.probe_size % 8 != 0) {
        throw Refusal("the PROBE size is less than 512 or not a multiple of 8");
    }
    // OPS-5: without a field for it nothing would tell the driver of the bypass.
    if (config.boot_bypass && !config.topology_array &&
        (config.offered_features & VIOMMU_F_BYPASS_CONFIG) == 0) {
        throw Refusal("boot bypass needs the BYPASS_CONFIG feature");
    }
    check_regions(regions_of(config));
}

} // namespace

Settings::Settings(const ViommuEngineConfig &config)
    : offered(config.offered_features), page_size_mask(config.page_size_mask),
      sparse_page_sizes(config.sparse_page_sizes), input_start(config.input_start),
      input_last(config.input_last), domain_first(config.domain_first),
      domain_last(config.domain_last), probe_size(config.probe_size),
      boot_bypass(config.boot_bypass), topology_array(config.topology_array), linger(config.linger),
      fault_injection(config.fault_injection), max_mappings(config.max_mappings),
      max_domains(config.max_domains), max_memory(config.max_memory),
      regions(merged_regions(regions_of(config)))
{
    check(config);
    check_merged_regions(regions, probe_size);
    if (sparse_page_sizes) {
        page_size_mask = page_table_sizes(granule());
    }
}

void Settings::raise_granule(uint64_t page_sizes)
{
    const uint64_t smallest = page_sizes & -page_sizes;
    if (smallest > granule()) {
        page_size_mask = sparse_page_sizes ? page_table_sizes(smallest)
                                           : (page_size_mask & -smallest) | smallest;
    }
}

wire::Status Settings::check_mapping(const Mapping &mapping) const
{
    // MAP-D1, W1
    if (mapping.last < mapping.iova) {
        return wire::Status::Inval;
    }
    // MAP-1, W8.  The sum wraps to 0, which is aligned, at the very top.
    const uint64_t offset_mask = granule() - 1;
    if (((mapping.iova | mapping.phys | (mapping.last + 1)) & offset_mask) != 0) {
        return wire::Status::Range;
    }
    // OPS-D2
    if (mapping.iova < input_start || mapping.last > input_last) {
        return wire::Status::Range;
    }
    // MAP-D3: the physical range must not wrap.
    if (mapping.last - mapping.iova > UINT64_MAX - mapping.phys) {
        return wire::Status::Range;
    }
    return wire::Status::Ok;
}

} // namespace viommu
