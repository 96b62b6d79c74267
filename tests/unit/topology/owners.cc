// SPDX-License-Identifier: GPL-2.0-or-later
#include "owners.h"

#include <libfdt.h>

#include <algorithm>
#include <set>

namespace viommu::test
{

namespace
{

struct ViotNode {
    size_t offset;
    uint8_t type;
    uint16_t length;
};

// IOMMU a type 3 or 4 node stands for; an output node must be the start of one.
std::optional<uint32_t> viot_iommu(const ViommuMachineDesc &machine,
                                   const std::vector<uint8_t> &table,
                                   const std::vector<ViotNode> &nodes, size_t offset)
{
    for (const ViotNode &node : nodes) {
        if (node.offset != offset) {
            continue;
        }
        uint32_t iommu = VIOMMU_NO_IOMMU;
        if (node.type == 3) {
            iommu = iommu_at_function(machine, le16(table, offset + 4), le16(table, offset + 6));
        } else if (node.type == 4) {
            iommu = iommu_at_base(machine, le64(table, offset + 8));
        }
        if (iommu != VIOMMU_NO_IOMMU) {
            return iommu;
        }
    }
    return std::nullopt;
}

// The requester IDs from `first` to `last`, whose endpoint IDs begin with that of `owner`.
void claim_functions(Owners &owners, uint16_t segment, uint32_t first, uint32_t last, Owner owner)
{
    std::vector<Owner> &functions = owners.segment(segment);
    for (uint32_t requester = first; requester <= last; requester++) {
        Owner &present = functions[requester];
        if (present.iommu != VIOMMU_NO_IOMMU) {
            owners.complaints.push_back("requester " + std::to_string(requester) + " of segment " +
                                        std::to_string(segment) + " is described twice");
        }
        present = {owner.iommu, requester - first + owner.id};
    }
}

void claim_base(Owners &owners, uint64_t base, Owner owner)
{
    if (!owners.mmio.emplace(base, owner).second) {
        owners.complaints.push_back("MMIO base " + std::to_string(base) + " is described twice");
    }
}

} // namespace

Owners decode_viot(const ViommuMachineDesc &machine, const std::vector<uint8_t> &table)
{
    Owners owners;
    const auto complain = [&owners](const std::string &text) { owners.complaints.push_back(text); };
    if (table.size() < 48) {
        complain("the table ends inside its header");
        return owners;
    }
    const size_t count = le16(table, 36);
    const size_t start = le16(table, 38);
    if (le64(table, 40) != 0) {
        complain("reserved bytes of the header are not 0");
    }

    std::vector<ViotNode> nodes;
    size_t offset = start;
    for (size_t i = 0; i < count; i++) {
        if (offset < std::max<size_t>(48, start) || offset + 4 > table.size()) {
            complain("node " + std::to_string(i) + " lies outside the table");
            return owners;
        }
        const ViotNode node{offset, table[offset], le16(table, offset + 2)};
        const size_t least = node.type == 1 || node.type == 2   ? 24
                             : node.type == 3 || node.type == 4 ? 16
                                                                : 4;
        if (node.length < least || offset + node.length > table.size()) {
            complain("node " + std::to_string(i) + " has a bad length");
            return owners;
        }
        if (offset % 8 != 0 || least == 4) {
            complain("node " + std::to_string(i) + " is unaligned or of unknown type");
        }
        nodes.push_back(node);
        offset += node.length;
    }
    if (offset != table.size()) {
        complain("bytes follow the last node");
    }

    std::set<uint32_t> idle, busy; // IOMMUs
    std::set<uint32_t> nobody;     // functions of the segment that has none
    for (const ViotNode &node : nodes) {
        if (node.type != 1 && node.type != 2) {
            continue;
        }
        const size_t at = node.offset;
        const auto iommu = viot_iommu(machine, table, nodes, le16(table, at + 16));
        if (!iommu) {
            complain("the output node of the node at " + std::to_string(at) + " is no IOMMU");
            continue;
        }
        const uint32_t endpoint = le32(table, at + 4);
        if (node.type == 2) {
            busy.insert(*iommu);
            claim_base(owners, le64(table, at + 8), {*iommu, endpoint});
            continue;
        }
        const uint32_t segment_start = le16(table, at + 8);
        const uint32_t segment_end = le16(table, at + 10);
        const uint32_t bdf_start = le16(table, at + 12);
        const uint32_t bdf_end = le16(table, at + 14);
        if (segment_end == VIOMMU_SEGMENT_MMIO) {
            // It is there for its output node: the segment has no functions.
            if (segment_start != segment_end || bdf_start != bdf_end ||
                endpoint != (segment_start << 16 | bdf_start) || !idle.insert(*iommu).second ||
                !nobody.insert(bdf_start).second) {
                complain("the node at " + std::to_string(at) +
                         " names functions of segment 0xffff");
            }
            continue;
        }
        busy.insert(*iommu);
        for (uint32_t segment = segment_start; segment <= segment_end; segment++) {
            claim_functions(owners, static_cast<uint16_t>(segment), bdf_start, bdf_end,
                            {*iommu, ((segment - segment_start) << 16) + endpoint});
        }
    }
    for (const ViotNode &node : nodes) {
        if (node.type != 3 && node.type != 4) {
            continue;
        }
        const auto iommu = viot_iommu(machine, table, nodes, node.offset);
        if (!iommu || idle.contains(*iommu) == busy.contains(*iommu)) {
            complain("the IOMMU at " + std::to_string(node.offset) +
                     " is unknown, or not referred to in one way");
        }
    }
    return owners;
}

void decode_array_v2(uint32_t iommu, const std::vector<uint8_t> &config, Owners &owners)
{
    const uint32_t offset = le32(config, 36);
    const uint32_t count = le32(config, 40);
    const uint32_t item_length = le32(config, 44);
    if (offset == 0 || count == 0 || item_length == 0) {
        return;
    }
    if (item_length % 4 != 0) {
        owners.complaints.push_back("item_length is not a multiple of 4");
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        const size_t at = offset + size_t{i} * item_length;
        // The guest copies no more than 16 bytes of an item into a zeroed buffer.
        std::vector<uint8_t> item(16, 0);
        const size_t copied = std::min<size_t>(item_length, item.size());
        if (at + copied > config.size()) {
            owners.complaints.push_back("item " + std::to_string(i) + " leaves the config space");
            return;
        }
        std::copy_n(config.begin() + static_cast<std::ptrdiff_t>(at), copied, item.begin());
        const uint16_t type = le16(item, 0);
        if (type == 1) {
            claim_functions(owners, le16(item, 2), le16(item, 4), le16(item, 6),
                            {iommu, le32(item, 8)});
        } else if (type == 2) {
            claim_base(owners, le64(item, 8), {iommu, le32(item, 4)});
        } else {
            owners.complaints.push_back("item " + std::to_string(i) + " is of unknown type");
        }
    }
}

void decode_array_v3(uint32_t iommu, const std::vector<uint8_t> &config, Owners &owners)
{
    const uint16_t count = le16(config, 36);
    size_t at = le16(config, 38);
    if (at % 8 != 0) {
        owners.complaints.push_back("the first item is not 8-byte aligned");
    }
    for (uint16_t i = 0; i < count; i++) {
        if (at + 4 > config.size() || at + le16(config, at + 2) > config.size()) {
            owners.complaints.push_back("item " + std::to_string(i) + " leaves the config space");
            return;
        }
        const uint8_t type = config[at];
        const uint16_t length = le16(config, at + 2);
        if (length < 16) {
            owners.complaints.push_back("item " + std::to_string(i) + " is too short");
            return;
        }
        if (type == 1) {
            claim_functions(owners, le16(config, at + 8), le16(config, at + 10),
                            le16(config, at + 12), {iommu, le32(config, at + 4)});
        } else if (type == 2) {
            claim_base(owners, le64(config, at + 8), {iommu, le32(config, at + 4)});
        } else {
            owners.complaints.push_back("item " + std::to_string(i) + " is of unknown type");
        }
        at += length;
    }
    if (at != config.size()) {
        owners.complaints.push_back("bytes follow the last item");
    }
}

namespace
{

std::optional<std::vector<uint32_t>> fdt_cells(const void *fdt, int node, const char *property)
{
    int size = 0;
    const auto *bytes = static_cast<const uint8_t *>(fdt_getprop(fdt, node, property, &size));
    if (bytes == nullptr) {
        return std::nullopt;
    }
    std::vector<uint32_t> cells;
    for (int i = 0; i + 4 <= size; i += 4) {
        cells.push_back(uint32_t{bytes[i]} << 24 | uint32_t{bytes[i + 1]} << 16 |
                        uint32_t{bytes[i + 2]} << 8 | bytes[i + 3]);
    }
    return cells;
}

// First address of a node under the root, which has two address cells.
std::optional<uint64_t> fdt_base(const void *fdt, int node)
{
    const auto reg = fdt_cells(fdt, node, "reg");
    if (!reg || reg->size() < 2) {
        return std::nullopt;
    }
    return uint64_t{(*reg)[0]} << 32 | (*reg)[1];
}

uint32_t fdt_iommu(const ViommuMachineDesc &machine, const void *fdt, uint32_t phandle,
                   Owners &owners)
{
    const int node = fdt_node_offset_by_phandle(fdt, phandle);
    if (node < 0) {
        owners.complaints.push_back("phandle " + std::to_string(phandle) + " leads nowhere");
        return VIOMMU_NO_IOMMU;
    }
    if (fdt_cells(fdt, node, "#iommu-cells") != std::vector<uint32_t>{1}) {
        owners.complaints.push_back("phandle " + std::to_string(phandle) + " is no IOMMU");
    }
    if (fdt_node_check_compatible(fdt, node, "pci1af4,1057") == 0) {
        const auto reg = fdt_cells(fdt, node, "reg");
        if (reg && reg->size() == 5) {
            return iommu_at_function(machine, 0, static_cast<uint16_t>((*reg)[0] >> 8));
        }
    } else if (fdt_node_check_compatible(fdt, node, "virtio,mmio") == 0) {
        if (const auto base = fdt_base(fdt, node)) {
            return iommu_at_base(machine, *base);
        }
    }
    owners.complaints.push_back("the node of phandle " + std::to_string(phandle) +
                                " is no virtio-iommu");
    return VIOMMU_NO_IOMMU;
}

void decode_iommu_map(const ViommuMachineDesc &machine, const void *fdt, int host, Owners &owners)
{
    const auto map = fdt_cells(fdt, host, "iommu-map");
    if (!map) {
        return;
    }
    if (map->empty() || map->size() % 4 != 0) {
        owners.complaints.push_back("iommu-map is not made of tuples");
        return;
    }
    uint32_t mask = 0xffff;
    if (const auto present = fdt_cells(fdt, host, "iommu-map-mask"); present && !present->empty()) {
        mask = present->front();
    }
    for (size_t tuple = 0; tuple < map->size(); tuple += 4) {
        const uint32_t rid_base = (*map)[tuple];
        const uint32_t id_base = (*map)[tuple + 2];
        const uint32_t length = (*map)[tuple + 3];
        const uint32_t iommu = fdt_iommu(machine, fdt, (*map)[tuple + 1], owners);
        if (length == 0 || rid_base > 0xffff || length > 0x10000 - rid_base) {
            owners.complaints.push_back("an iommu-map tuple is empty or leaves the segment");
            continue;
        }
        if (tuple != 0 && rid_base < (*map)[tuple - 4]) {
            owners.complaints.push_back("iommu-map is not sorted");
        }
        for (uint32_t rid = 0; rid <= 0xffff; rid++) {
            const uint32_t masked = rid & mask;
            if (masked >= rid_base && masked - rid_base < length) {
                claim_functions(owners, 0, rid, rid, {iommu, masked - rid_base + id_base});
            }
        }
    }
}

} // namespace

Owners decode_fdt(const ViommuMachineDesc &machine, const void *fdt, const char *pci_host)
{
    Owners owners;
    for (int node = fdt_next_node(fdt, -1, nullptr); node >= 0;
         node = fdt_next_node(fdt, node, nullptr)) {
        const auto iommus = fdt_cells(fdt, node, "iommus");
        if (!iommus) {
            continue;
        }
        const auto base = fdt_base(fdt, node);
        if (iommus->size() != 2 || !base) {
            owners.complaints.push_back("a node has bad iommus");
            continue;
        }
        const uint32_t iommu = fdt_iommu(machine, fdt, iommus->front(), owners);
        claim_base(owners, *base, {iommu, iommus->back()});
    }
    if (pci_host != nullptr) {
        decode_iommu_map(machine, fdt, fdt_path_offset(fdt, pci_host), owners);
    }
    return owners;
}

} // namespace viommu::test
