// SPDX-License-Identifier: GPL-2.0-or-later
//
// What one IOMMU manages, as the array in config space that was proposed in 2020
// for guests with neither ACPI nor device tree.  The two layouts differ from the
// first byte on and cannot be told apart, so the user names one.
//
// An IOMMU that manages nothing shows the layout's header with a count of 0.
#include <cstdint>
#include <limits>

#include "base/bytes.h"
#include "base/error.h"
#include "topology/model.h"
#include "topology/text.h"

namespace viommu::topology
{

namespace
{

constexpr std::size_t headerOffset = 36; // where the fields of all versions end
constexpr std::size_t itemSize = 16;
constexpr std::size_t v2FirstItem = 48;
constexpr std::size_t v3FirstItem = 40;
constexpr std::size_t v3MaxItems = std::numeric_limits<std::uint16_t>::max();

enum class ItemType : std::uint8_t {
    pciRange = 1,
    endpoint = 2,
};

void putV2(LittleEndianBytes &config, const Iommu &iommu, std::size_t count)
{
    config.put(static_cast<std::uint32_t>(v2FirstItem));
    config.put(static_cast<std::uint32_t>(count));
    // Guests copy this much of each item, so the shorter PCI item is padded.
    config.put(static_cast<std::uint32_t>(itemSize));
    for (const PciRange &range : iommu.ranges) {
        config.put(static_cast<std::uint16_t>(ItemType::pciRange));
        config.put(range.segment);
        config.put(range.first);
        config.put(range.last);
        config.put(range.firstId());
        config.zeros(4);
    }
    for (const MmioEndpoint &endpoint : iommu.endpoints) {
        config.put(static_cast<std::uint16_t>(ItemType::endpoint));
        config.zeros(2);
        config.put(endpoint.id);
        config.put(endpoint.base);
    }
}

void putV3(LittleEndianBytes &config, const Iommu &iommu, std::size_t count)
{
    config.put(static_cast<std::uint16_t>(count));
    config.put(static_cast<std::uint16_t>(v3FirstItem));
    for (const PciRange &range : iommu.ranges) {
        config.put(static_cast<std::uint8_t>(ItemType::pciRange));
        config.zeros(1);
        config.put(static_cast<std::uint16_t>(itemSize));
        config.put(range.firstId());
        config.put(range.segment);
        config.put(range.first);
        config.put(range.last);
        config.zeros(2);
    }
    for (const MmioEndpoint &endpoint : iommu.endpoints) {
        config.put(static_cast<std::uint8_t>(ItemType::endpoint));
        config.zeros(1);
        config.put(static_cast<std::uint16_t>(itemSize));
        config.put(endpoint.id);
        config.put(endpoint.base);
    }
}

LittleEndianBytes encodeArray(const Iommu &iommu, ViommuArrayLayout layout, std::size_t limit)
{
    if (layout != VIOMMU_ARRAY_V2 && layout != VIOMMU_ARRAY_V3) {
        throw Refusal("the topology array has no layout number " +
                      std::to_string(static_cast<unsigned>(layout)));
    }
    const std::size_t count = iommu.ranges.size() + iommu.endpoints.size();
    const std::size_t firstItem = layout == VIOMMU_ARRAY_V2 ? v2FirstItem : v3FirstItem;
    const std::size_t total = firstItem + count * itemSize;
    if (total > limit) {
        throw Refusal("the topology array of IOMMU " + iommu.name + " has " +
                      std::to_string(count) + " items and needs " + std::to_string(total) +
                      " bytes of config space, but there are " + std::to_string(limit));
    }
    if (layout == VIOMMU_ARRAY_V3 && count > v3MaxItems) {
        throw Refusal("the topology array of IOMMU " + iommu.name + " has " +
                      std::to_string(count) + " items, but layout 3 can count at most " +
                      std::to_string(v3MaxItems));
    }
    LittleEndianBytes config;
    if (layout == VIOMMU_ARRAY_V2) {
        putV2(config, iommu, count);
    } else {
        putV3(config, iommu, count);
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
            encodeArray(topology->model.iommus()[iommu], layout, config_limit);
        config.copy_to(out, cap);
        return headerOffset + config.size();
    });
}
