// SPDX-License-Identifier: GPL-2.0-or-later
//
// The model as an ACPI VIOT table.
//
// IOMMU nodes come first, because whatever points to one does so with a 16-bit
// offset.  An IOMMU that manages nothing has no node: nothing would refer to it,
// and guests ignore such nodes.
#include <cstdint>
#include <limits>
#include <vector>

#include "topology/bytes.h"
#include "topology/model.h"
#include "topology/sentence.h"
#include "viommu/viommu.h"

namespace
{

using viommu::topology::Iommu;
using viommu::topology::LittleEndianBytes;
using viommu::topology::MmioEndpoint;
using viommu::topology::Model;
using viommu::topology::PciRange;
using viommu::topology::Refusal;

constexpr std::size_t acpiHeaderSize = 36;
constexpr std::size_t firstNode = 48; // offsets count from the table's start
constexpr std::uint16_t rangeNodeSize = 24;
constexpr std::uint16_t iommuNodeSize = 16;
constexpr std::size_t max16 = std::numeric_limits<std::uint16_t>::max();

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

LittleEndianBytes encodeViot(const Model &model)
{
    std::vector<const Iommu *> iommus;
    std::size_t nodeCount = 0;
    for (const Iommu &iommu : model.iommus()) {
        if (!iommu.managesNothing()) {
            iommus.push_back(&iommu);
            nodeCount += 1 + iommu.ranges.size() + iommu.endpoints.size();
        }
    }
    if (nodeCount > max16) {
        throw Refusal("the VIOT table would need " + std::to_string(nodeCount) +
                      " nodes, but it can count at most " + std::to_string(max16));
    }
    if (!iommus.empty()) {
        const std::size_t lastOffset = firstNode + (iommus.size() - 1) * iommuNodeSize;
        if (lastOffset > max16) {
            throw Refusal("the VIOT table cannot refer to the node of IOMMU " +
                          iommus.back()->name + " at offset " + std::to_string(lastOffset) +
                          ", beyond " + std::to_string(max16));
        }
    }

    LittleEndianBytes table;
    table.put(static_cast<std::uint16_t>(nodeCount));
    table.put(static_cast<std::uint16_t>(firstNode));
    table.zeros(firstNode - acpiHeaderSize - table.size());
    for (const Iommu *iommu : iommus) {
        putIommu(table, *iommu);
    }
    std::size_t offset = firstNode;
    for (const Iommu *iommu : iommus) {
        const auto outputNode = static_cast<std::uint16_t>(offset);
        for (const PciRange &range : iommu->ranges) {
            putRange(table, range, outputNode);
        }
        for (const MmioEndpoint &endpoint : iommu->endpoints) {
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
    return viommu::topology::atBoundary<size_t>(error, error_size, 0, [&] {
        if (topology == nullptr) {
            throw Refusal("there is no topology to write a VIOT table from");
        }
        const LittleEndianBytes table = encodeViot(topology->model);
        table.copyTo(out, cap);
        return table.size();
    });
}
