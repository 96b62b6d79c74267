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
    std::size_t offset;
    std::uint8_t type;
    std::uint16_t length;
};

// IOMMU a type 3 or 4 node stands for; an output node must be the start of one.
std::optional<std::uint32_t> viotIommu(const ViommuMachineDesc &machine,
                                       const std::vector<std::uint8_t> &table,
                                       const std::vector<ViotNode> &nodes, std::size_t offset)
{
    for (const ViotNode &node : nodes) {
        if (node.offset != offset) {
            continue;
        }
        std::uint32_t iommu = VIOMMU_NO_IOMMU;
        if (node.type == 3) {
            iommu = iommuAtFunction(machine, le16(table, offset + 4), le16(table, offset + 6));
        } else if (node.type == 4) {
            iommu = iommuAtBase(machine, le64(table, offset + 8));
        }
        if (iommu != VIOMMU_NO_IOMMU) {
            return iommu;
        }
    }
    return std::nullopt;
}

// The requester IDs from `first` to `last`, whose endpoint IDs begin with that of `owner`.
void claimFunctions(Owners &owners, std::uint16_t segment, std::uint32_t first, std::uint32_t last,
                    Owner owner)
{
    std::vector<Owner> &functions = owners.segment(segment);
    for (std::uint32_t requester = first; requester <= last; requester++) {
        Owner &present = functions[requester];
        if (present.iommu != VIOMMU_NO_IOMMU) {
            owners.complaints.push_back("requester " + std::to_string(requester) + " of segment " +
                                        std::to_string(segment) + " is described twice");
        }
        present = {owner.iommu, requester - first + owner.id};
    }
}

void claimBase(Owners &owners, std::uint64_t base, Owner owner)
{
    if (!owners.mmio.emplace(base, owner).second) {
        owners.complaints.push_back("MMIO base " + std::to_string(base) + " is described twice");
    }
}

} // namespace

Owners decodeViot(const ViommuMachineDesc &machine, const std::vector<std::uint8_t> &table)
{
    Owners owners;
    const auto complain = [&owners](const std::string &text) { owners.complaints.push_back(text); };
    if (table.size() < 48) {
        complain("the table ends inside its header");
        return owners;
    }
    const std::size_t count = le16(table, 36);
    const std::size_t start = le16(table, 38);
    if (le64(table, 40) != 0) {
        complain("reserved bytes of the header are not 0");
    }

    std::vector<ViotNode> nodes;
    std::size_t offset = start;
    for (std::size_t i = 0; i < count; i++) {
        if (offset < std::max<std::size_t>(48, start) || offset + 4 > table.size()) {
            complain("node " + std::to_string(i) + " lies outside the table");
            return owners;
        }
        const ViotNode node{offset, table[offset], le16(table, offset + 2)};
        const std::size_t least = node.type == 1 || node.type == 2   ? 24
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

    std::set<std::uint32_t> idle, busy; // IOMMUs
    std::set<std::uint32_t> nobody;     // functions of the segment that has none
    for (const ViotNode &node : nodes) {
        if (node.type != 1 && node.type != 2) {
            continue;
        }
        const std::size_t at = node.offset;
        const auto iommu = viotIommu(machine, table, nodes, le16(table, at + 16));
        if (!iommu) {
            complain("the output node of the node at " + std::to_string(at) + " is no IOMMU");
            continue;
        }
        const std::uint32_t endpoint = le32(table, at + 4);
        if (node.type == 2) {
            busy.insert(*iommu);
            claimBase(owners, le64(table, at + 8), {*iommu, endpoint});
            continue;
        }
        const std::uint32_t segmentStart = le16(table, at + 8);
        const std::uint32_t segmentEnd = le16(table, at + 10);
        const std::uint32_t bdfStart = le16(table, at + 12);
        const std::uint32_t bdfEnd = le16(table, at + 14);
        if (segmentEnd == VIOMMU_SEGMENT_MMIO) {
            // It is there for its output node: the segment has no functions.
            if (segmentStart != segmentEnd || bdfStart != bdfEnd ||
                endpoint != (segmentStart << 16 | bdfStart) || !idle.insert(*iommu).second ||
                !nobody.insert(bdfStart).second) {
                complain("the node at " + std::to_string(at) +
                         " names functions of segment 0xffff");
            }
            continue;
        }
        busy.insert(*iommu);
        for (std::uint32_t segment = segmentStart; segment <= segmentEnd; segment++) {
            claimFunctions(owners, static_cast<std::uint16_t>(segment), bdfStart, bdfEnd,
                           {*iommu, ((segment - segmentStart) << 16) + endpoint});
        }
    }
    for (const ViotNode &node : nodes) {
        if (node.type != 3 && node.type != 4) {
            continue;
        }
        const auto iommu = viotIommu(machine, table, nodes, node.offset);
        if (!iommu || idle.contains(*iommu) == busy.contains(*iommu)) {
            complain("the IOMMU at " + std::to_string(node.offset) +
                     " is unknown, or not referred to in one way");
        }
    }
    return owners;
}

void decodeArrayV2(std::uint32_t iommu, const std::vector<std::uint8_t> &config, Owners &owners)
{
    const std::uint32_t offset = le32(config, 36);
    const std::uint32_t count = le32(config, 40);
    const std::uint32_t itemLength = le32(config, 44);
    if (offset == 0 || count == 0 || itemLength == 0) {
        return;
    }
    if (itemLength % 4 != 0) {
        owners.complaints.push_back("item_length is not a multiple of 4");
        return;
    }
    for (std::uint32_t i = 0; i < count; i++) {
        const std::size_t at = offset + std::size_t{i} * itemLength;
        // The guest copies no more than 16 bytes of an item into a zeroed buffer.
        std::vector<std::uint8_t> item(16, 0);
        const std::size_t copied = std::min<std::size_t>(itemLength, item.size());
        if (at + copied > config.size()) {
            owners.complaints.push_back("item " + std::to_string(i) + " leaves the config space");
            return;
        }
        std::copy_n(config.begin() + static_cast<std::ptrdiff_t>(at), copied, item.begin());
        const std::uint16_t type = le16(item, 0);
        if (type == 1) {
            claimFunctions(owners, le16(item, 2), le16(item, 4), le16(item, 6),
                           {iommu, le32(item, 8)});
        } else if (type == 2) {
            claimBase(owners, le64(item, 8), {iommu, le32(item, 4)});
        } else {
            owners.complaints.push_back("item " + std::to_string(i) + " is of unknown type");
        }
    }
}

void decodeArrayV3(std::uint32_t iommu, const std::vector<std::uint8_t> &config, Owners &owners)
{
    const std::uint16_t count = le16(config, 36);
    std::size_t at = le16(config, 38);
    if (at % 8 != 0) {
        owners.complaints.push_back("the first item is not 8-byte aligned");
    }
    for (std::uint16_t i = 0; i < count; i++) {
        if (at + 4 > config.size() || at + le16(config, at + 2) > config.size()) {
            owners.complaints.push_back("item " + std::to_string(i) + " leaves the config space");
            return;
        }
        const std::uint8_t type = config[at];
        const std::uint16_t length = le16(config, at + 2);
        if (length < 16) {
            owners.complaints.push_back("item " + std::to_string(i) + " is too short");
            return;
        }
        if (type == 1) {
            claimFunctions(owners, le16(config, at + 8), le16(config, at + 10),
                           le16(config, at + 12), {iommu, le32(config, at + 4)});
        } else if (type == 2) {
            claimBase(owners, le64(config, at + 8), {iommu, le32(config, at + 4)});
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

std::optional<std::vector<std::uint32_t>> fdtCells(const void *fdt, int node, const char *property)
{
    int size = 0;
    const auto *bytes = static_cast<const std::uint8_t *>(fdt_getprop(fdt, node, property, &size));
    if (bytes == nullptr) {
        return std::nullopt;
    }
    std::vector<std::uint32_t> cells;
    for (int i = 0; i + 4 <= size; i += 4) {
        cells.push_back(std::uint32_t{bytes[i]} << 24 | std::uint32_t{bytes[i + 1]} << 16 |
                        std::uint32_t{bytes[i + 2]} << 8 | bytes[i + 3]);
    }
    return cells;
}

// First address of a node under the root, which has two address cells.
std::optional<std::uint64_t> fdtBase(const void *fdt, int node)
{
    const auto reg = fdtCells(fdt, node, "reg");
    if (!reg || reg->size() < 2) {
        return std::nullopt;
    }
    return std::uint64_t{(*reg)[0]} << 32 | (*reg)[1];
}

std::uint32_t fdtIommu(const ViommuMachineDesc &machine, const void *fdt, std::uint32_t phandle,
                       Owners &owners)
{
    const int node = fdt_node_offset_by_phandle(fdt, phandle);
    if (node < 0) {
        owners.complaints.push_back("phandle " + std::to_string(phandle) + " leads nowhere");
        return VIOMMU_NO_IOMMU;
    }
    if (fdtCells(fdt, node, "#iommu-cells") != std::vector<std::uint32_t>{1}) {
        owners.complaints.push_back("phandle " + std::to_string(phandle) + " is no IOMMU");
    }
    if (fdt_node_check_compatible(fdt, node, "pci1af4,1057") == 0) {
        const auto reg = fdtCells(fdt, node, "reg");
        if (reg && reg->size() == 5) {
            return iommuAtFunction(machine, 0, static_cast<std::uint16_t>((*reg)[0] >> 8));
        }
    } else if (fdt_node_check_compatible(fdt, node, "virtio,mmio") == 0) {
        if (const auto base = fdtBase(fdt, node)) {
            return iommuAtBase(machine, *base);
        }
    }
    owners.complaints.push_back("the node of phandle " + std::to_string(phandle) +
                                " is no virtio-iommu");
    return VIOMMU_NO_IOMMU;
}

void decodeIommuMap(const ViommuMachineDesc &machine, const void *fdt, int host, Owners &owners)
{
    const auto map = fdtCells(fdt, host, "iommu-map");
    if (!map) {
        return;
    }
    if (map->empty() || map->size() % 4 != 0) {
        owners.complaints.push_back("iommu-map is not made of tuples");
        return;
    }
    std::uint32_t mask = 0xffff;
    if (const auto present = fdtCells(fdt, host, "iommu-map-mask"); present && !present->empty()) {
        mask = present->front();
    }
    for (std::size_t tuple = 0; tuple < map->size(); tuple += 4) {
        const std::uint32_t ridBase = (*map)[tuple];
        const std::uint32_t idBase = (*map)[tuple + 2];
        const std::uint32_t length = (*map)[tuple + 3];
        const std::uint32_t iommu = fdtIommu(machine, fdt, (*map)[tuple + 1], owners);
        if (length == 0 || ridBase > 0xffff || length > 0x10000 - ridBase) {
            owners.complaints.push_back("an iommu-map tuple is empty or leaves the segment");
            continue;
        }
        if (tuple != 0 && ridBase < (*map)[tuple - 4]) {
            owners.complaints.push_back("iommu-map is not sorted");
        }
        for (std::uint32_t rid = 0; rid <= 0xffff; rid++) {
            const std::uint32_t masked = rid & mask;
            if (masked >= ridBase && masked - ridBase < length) {
                claimFunctions(owners, 0, rid, rid, {iommu, masked - ridBase + idBase});
            }
        }
    }
}

} // namespace

Owners decodeFdt(const ViommuMachineDesc &machine, const void *fdt, const char *pciHost)
{
    Owners owners;
    for (int node = fdt_next_node(fdt, -1, nullptr); node >= 0;
         node = fdt_next_node(fdt, node, nullptr)) {
        const auto iommus = fdtCells(fdt, node, "iommus");
        if (!iommus) {
            continue;
        }
        const auto base = fdtBase(fdt, node);
        if (iommus->size() != 2 || !base) {
            owners.complaints.push_back("a node has bad iommus");
            continue;
        }
        const std::uint32_t iommu = fdtIommu(machine, fdt, iommus->front(), owners);
        claimBase(owners, *base, {iommu, iommus->back()});
    }
    if (pciHost != nullptr) {
        decodeIommuMap(machine, fdt, fdt_path_offset(fdt, pciHost), owners);
    }
    return owners;
}

} // namespace viommu::test
