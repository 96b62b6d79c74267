// SPDX-License-Identifier: GPL-2.0-or-later
//
// The model as an ACPI VIOT table.
//
// IOMMU nodes come first, because whatever points to one does so with a 16-bit
// offset.  An MMIO IOMMU that manages nothing has no node: nothing would refer to
// it, and guests ignore such nodes.  A PCI one has a node all the same, and a range
// that refers to it and names a function that no machine has: Linux gives such an
// IOMMU a firmware node only for the sake of a range, takes one without for the
// IOMMU of every device that has none, and crashes.
#include <cstdint>
#include <limits>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "topology/model.h"
#include "topology/text.h"
#include "viommu/viommu.h"

namespace
{

using viommu::LittleEndianBytes;
using viommu::Refusal;
using viommu::topology::Iommu;
using viommu::topology::MmioEndpoint;
using viommu::topology::Model;
using viommu::topology::PciRange;

constexpr std::size_t acpiHeaderSize = 36;
constexpr std::size_t firstNode = 48; // offsets count from the table's start
constexpr std::uint16_t rangeNodeSize = 24;
constexpr std::uint16_t iommuNodeSize = 16;
constexpr std::size_t max16 = std::numeric_limits<std::uint16_t>::max();
// No function is in it: its endpoint IDs are those of transports, from 0 upwards.
constexpr std::uint16_t emptySegment = VIOMMU_SEGMENT_MMIO;

enum class NodeType : std::uint8_t {
    pciRange = 1,
    mmioEndpoint = 2,
    pciIommu = 3,
    mmioIommu = 4,
};

void putNodeHeader(LittleEndianBytes &table, NodeType type, std::uint16_t length)
{
    table.put(static_cast<std::uint8_t>(type));
    table.put(std::uint8_t{0});
    table.put(length);
}

void putIommu(LittleEndianBytes &table, const Iommu &iommu)
{
    if (iommu.kind == VIOMMU_IOMMU_PCI) {
        putNodeHeader(table, NodeType::pciIommu, iommuNodeSize);
        table.put(iommu.segment);
        table.put(iommu.requesterId);
        table.zeros(8);
    } else {
        putNodeHeader(table, NodeType::mmioIommu, iommuNodeSize);
        table.zeros(4);
        table.put(iommu.base);
    }
}

void putRange(LittleEndianBytes &table, const PciRange &range, std::uint16_t outputNode)
{
    putNodeHeader(table, NodeType::pciRange, rangeNodeSize);
    table.put(range.firstId());
    table.put(range.segment);
    table.put(range.segment);
    table.put(range.first);
    table.put(range.last);
    table.put(outputNode);
    table.zeros(6);
}

void putEndpoint(LittleEndianBytes &table, const MmioEndpoint &endpoint, std::uint16_t outputNode)
{
    putNodeHeader(table, NodeType::mmioEndpoint, rangeNodeSize);
    table.put(endpoint.id);
    table.put(endpoint.base);
    table.put(outputNode);
    table.zeros(6);
}

// What the table says to be behind an IOMMU.
struct Listed {
    const Iommu *iommu;
    std::vector<PciRange> ranges;
};

// From the last function downwards, so that two IOMMUs never share one.
PciRange functionThatNobodyHas(std::size_t position)
{
    const auto requesterId = static_cast<std::uint16_t>(max16 - position);
    return {emptySegment, requesterId, requesterId};
}

std::vector<Listed> listIommus(const Model &model)
{
    std::vector<Listed> list;
    for (const Iommu &iommu : model.iommus()) {
        if (!iommu.managesNothing()) {
            list.push_back({&iommu, iommu.ranges});
        } else if (iommu.kind == VIOMMU_IOMMU_PCI) {
            list.push_back({&iommu, {functionThatNobodyHas(list.size())}});
        }
    }
    return list;
}

LittleEndianBytes encodeViot(const Model &model)
{
    const std::vector<Listed> iommus = listIommus(model);
    std::size_t nodeCount = 0;
    for (const Listed &listed : iommus) {
        nodeCount += 1 + listed.ranges.size() + listed.iommu->endpoints.size();
    }
    if (nodeCount > max16) {
        throw Refusal("the VIOT table would need " + std::to_string(nodeCount) +
                      " nodes, but it can count at most " + std::to_string(max16));
    }
    if (!iommus.empty()) {
        const std::size_t lastOffset = firstNode + (iommus.size() - 1) * iommuNodeSize;
        if (lastOffset > max16) {
            throw Refusal("the VIOT table cannot refer to the node of IOMMU " +
                          iommus.back().iommu->name + " at offset " + std::to_string(lastOffset) +
                          ", beyond " + std::to_string(max16));
        }
    }

    LittleEndianBytes table;
    table.put(static_cast<std::uint16_t>(nodeCount));
    table.put(static_cast<std::uint16_t>(firstNode));
    table.zeros(firstNode - acpiHeaderSize - table.size());
    for (const Listed &listed : iommus) {
        putIommu(table, *listed.iommu);
    }
    std::size_t offset = firstNode;
    for (const Listed &listed : iommus) {
        const auto outputNode = static_cast<std::uint16_t>(offset);
        for (const PciRange &range : listed.ranges) {
            putRange(table, range, outputNode);
        }
        for (const MmioEndpoint &endpoint : listed.iommu->endpoints) {
            putEndpoint(table, endpoint, outputNode);
        }
        offset += iommuNodeSize;
    }
    return table;
}

} // namespace

size_t viommu_topology_viot(const ViommuTopology *topology, uint8_t *out, size_t cap, char *error,
                            size_t error_size) noexcept
{
    return viommu::at_boundary<size_t>(error, error_size, 0, [&] {
        if (topology == nullptr) {
            throw Refusal("there is no topology to write a VIOT table from");
        }
        const LittleEndianBytes table = encodeViot(topology->model);
        table.copy_to(out, cap);
        return table.size();
    });
}
