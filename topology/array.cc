// SPDX-License-Identifier: GPL-2.0-or-later
//
// What one IOMMU manages, as the array in config space that was proposed in 2020
// for guests with neither ACPI nor device tree.  The two layouts differ from the
// first byte on and cannot be told apart, so the user names one.
//
// An IOMMU that manages nothing shows the layout's header with a count of 0.
#include "model.h"
#include "text.h"

#include "base/bytes.h"
#include "base/error.h"

#include <cstdint>
#include <limits>

namespace viommu::topology
{

namespace
{

constexpr size_t kHeaderOffset = 36; // where the fields of all versions end
constexpr size_t kItemSize = 16;
constexpr size_t kV2FirstItem = 48;
constexpr size_t kV3FirstItem = 40;
constexpr size_t kV3MaxItems = std::numeric_limits<uint16_t>::max();

enum class ItemType : uint8_t {
    PciRange = 1,
    Endpoint = 2,
};

void put_v2(LittleEndianBytes &config, const Iommu &iommu, size_t count)
{
    config.put(static_cast<uint32_t>(kV2FirstItem));
    config.put(static_cast<uint32_t>(count));
    // Guests copy this much of each item, so the shorter PCI item is padded.
    config.put(static_cast<uint32_t>(kItemSize));
    for (const PciRange &range : iommu.ranges) {
        config.put(static_cast<uint16_t>(ItemType::PciRange));
        config.put(range.segment);
        config.put(range.first);
        config.put(range.last);
        config.put(range.first_id());
        config.zeros(4);
    }
    for (const MmioEndpoint &endpoint : iommu.endpoints) {
        config.put(static_cast<uint16_t>(ItemType::Endpoint));
        config.zeros(2);
        config.put(endpoint.id);
        config.put(endpoint.base);
    }
}

void put_v3(LittleEndianBytes &config, const Iommu &iommu, size_t count)
{
    config.put(static_cast<uint16_t>(count));
    config.put(static_cast<uint16_t>(kV3FirstItem));
    for (const PciRange &range : iommu.ranges) {
        config.put(static_cast<uint8_t>(ItemType::PciRange));
        config.zeros(1);
        config.put(static_cast<uint16_t>(kItemSize));
        config.put(range.first_id());
        config.put(range.segment);
        config.put(range.first);
        config.put(range.last);
        config.zeros(2);
    }
    for (const MmioEndpoint &endpoint : iommu.endpoints) {
        config.put(static_cast<uint8_t>(ItemType::Endpoint));
        config.zeros(1);
        config.put(static_cast<uint16_t>(kItemSize));
        config.put(endpoint.id);
        config.put(endpoint.base);
    }
}

LittleEndianBytes encode_array(const Iommu &iommu, ViommuArrayLayout layout, size_t limit)
{
    if (layout != VIOMMU_ARRAY_V2 && layout != VIOMMU_ARRAY_V3) {
        throw Refusal("the topology array has no layout number " +
                      std::to_string(static_cast<unsigned>(layout)));
    }
    const size_t count = iommu.ranges.size() + iommu.endpoints.size();
    const size_t first_item = layout == VIOMMU_ARRAY_V2 ? kV2FirstItem : kV3FirstItem;
    const size_t total = first_item + count * kItemSize;
    if (total > limit) {
        throw Refusal("the topology array of IOMMU " + iommu.name + " has " +
                      std::to_string(count) + " items and needs " + std::to_string(total) +
                      " bytes of config space, but there are " + std::to_string(limit));
    }
    if (layout == VIOMMU_ARRAY_V3 && count > kV3MaxItems) {
        throw Refusal("the topology array of IOMMU " + iommu.name + " has " +
                      std::to_string(count) + " items, but layout 3 can count at most " +
                      std::to_string(kV3MaxItems));
    }
    LittleEndianBytes config;
    if (layout == VIOMMU_ARRAY_V2) {
        put_v2(config, iommu, count);
    } else {
        put_v3(config, iommu, count);
    }
    return config;
}

} // namespace

} // namespace viommu::topology

size_t viommu_topology_array(const ViommuTopology *topology, uint32_t iommu,
                             ViommuArrayLayout layout, size_t config_limit, uint8_t *out,
                             size_t cap, char *error, size_t error_size) noexcept
{
    using namespace viommu;
    using namespace viommu::topology;
    return at_boundary<size_t>(error, error_size, 0, [&] {
        if (topology == nullptr || iommu >= topology->model.iommus().size()) {
            throw Refusal("the topology has no IOMMU number " + std::to_string(iommu));
        }
        const LittleEndianBytes config =
            encode_array(topology->model.iommus()[iommu], layout, config_limit);
        config.copy_to(out, cap);
        return kHeaderOffset + config.size();
    });
}
