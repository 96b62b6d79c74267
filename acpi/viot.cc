// SPDX-License-Identifier: GPL-2.0-or-later
//
// The model as an ACPI VIOT table.
//
// IOMMU nodes come first, because whatever points to one does so with a 16-bit
// offset.  An MMIO IOMMU that manages nothing has no node: nothing would refer to
// it, and guests ignore such nodes.
//
// A PCI IOMMU that manages nothing has a node all the same, and a range that refers to it.
// The range names a function that no machine has.  Without it Linux gives the IOMMU no
// firmware node, takes it for the IOMMU of every device that has none, and crashes.
#include "base/bytes.h"
#include "base/error.h"
#include "topology/model.h"
#include "topology/text.h"

#include <viommu/topology.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace
{

using viommu::LittleEndianBytes;
using viommu::Refusal;
using viommu::topology::Iommu;
using viommu::topology::MmioEndpoint;
using viommu::topology::Model;
using viommu::topology::PciRange;

constexpr size_t kAcpiHeaderSize = 36;
constexpr size_t kFirstNode = 48; // offsets count from the table's start
constexpr uint16_t kRangeNodeSize = 24;
constexpr uint16_t kIommuNodeSize = 16;
constexpr size_t kMax16 = std::numeric_limits<uint16_t>::max();
// No function is in it: its endpoint IDs are those of transports, from 0 upwards.
constexpr uint16_t kEmptySegment = VIOMMU_SEGMENT_MMIO;

enum class NodeType : uint8_t {
    PciRangeNode = 1,
    MmioEndpointNode = 2,
    PciIommuNode = 3,
    MmioIommuNode = 4,
};

void put_node_header(LittleEndianBytes &table, NodeType type, uint16_t length)
{
    table.put(static_cast<uint8_t>(type));
    table.put(uint8_t{0});
    table.put(length);
}

void put_iommu(LittleEndianBytes &table, const Iommu &iommu)
{
    if (iommu.kind == VIOMMU_IOMMU_PCI) {
        put_node_header(table, NodeType::PciIommuNode, kIommuNodeSize);
        table.put(iommu.segment);
        table.put(iommu.requester_id);
        table.zeros(8);
    } else {
        put_node_header(table, NodeType::MmioIommuNode, kIommuNodeSize);
        table.zeros(4);
        table.put(iommu.base);
    }
}

void put_range(LittleEndianBytes &table, const PciRange &range, uint16_t output_node)
{
    put_node_header(table, NodeType::PciRangeNode, kRangeNodeSize);
    table.put(range.first_id());
    table.put(range.segment);
    table.put(range.segment);
    table.put(range.first);
    table.put(range.last);
    table.put(output_node);
    table.zeros(6);
}

void put_endpoint(LittleEndianBytes &table, const MmioEndpoint &endpoint, uint16_t output_node)
{
    put_node_header(table, NodeType::MmioEndpointNode, kRangeNodeSize);
    table.put(endpoint.id);
    table.put(endpoint.base);
    table.put(output_node);
    table.zeros(6);
}

// What the table says to be behind an IOMMU.
struct Listed {
    const Iommu *iommu;
    std::vector<PciRange> ranges;
};

// From the last function downwards, so that two IOMMUs never share one.
PciRange function_that_nobody_has(size_t position)
{
    const auto requester_id = static_cast<uint16_t>(kMax16 - position);
    return {kEmptySegment, requester_id, requester_id};
}

std::vector<Listed> list_iommus(const Model &model)
{
    std::vector<Listed> list;
    for (const Iommu &iommu : model.iommus()) {
        if (!iommu.manages_nothing()) {
            list.push_back({&iommu, iommu.ranges});
        } else if (iommu.kind == VIOMMU_IOMMU_PCI) {
            list.push_back({&iommu, {function_that_nobody_has(list.size())}});
        }
    }
    return list;
}

LittleEndianBytes encode_viot(const Model &model)
{
    const std::vector<Listed> iommus = list_iommus(model);
    size_t node_count = 0;
    for (const Listed &listed : iommus) {
        node_count += 1 + listed.ranges.size() + listed.iommu->endpoints.size();
    }
    if (node_count > kMax16) {
        throw Refusal("the VIOT table would need " + std::to_string(node_count) +
                      " nodes, but it can count at most " + std::to_string(kMax16));
    }
    if (!iommus.empty()) {
        const size_t last_offset = kFirstNode + (iommus.size() - 1) * kIommuNodeSize;
        if (last_offset > kMax16) {
            throw Refusal("the VIOT table cannot refer to the node of IOMMU " +
                          iommus.back().iommu->name + " at offset " + std::to_string(last_offset) +
                          ", beyond " + std::to_string(kMax16));
        }
    }

    LittleEndianBytes table;
    table.put(static_cast<uint16_t>(node_count));
    table.put(static_cast<uint16_t>(kFirstNode));
    table.zeros(kFirstNode - kAcpiHeaderSize - table.size());
    for (const Listed &listed : iommus) {
        put_iommu(table, *listed.iommu);
    }
    size_t offset = kFirstNode;
    for (const Listed &listed : iommus) {
        const auto output_node = static_cast<uint16_t>(offset);
        for (const PciRange &range : listed.ranges) {
            put_range(table, range, output_node);
        }
        for (const MmioEndpoint &endpoint : listed.iommu->endpoints) {
            put_endpoint(table, endpoint, output_node);
        }
        offset += kIommuNodeSize;
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
        const LittleEndianBytes table = encode_viot(topology->model);
        table.copy_to(out, cap);
        return table.size();
    });
}
