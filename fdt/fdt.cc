// SPDX-License-Identifier: GPL-2.0-or-later
//
// The model as device-tree nodes and properties.
//
// The tree has one PCI host, of segment 0; ranges of other segments are left out
// of it.  An IOMMU on that host has its node even if it manages nothing: Linux
// takes one without a node for the IOMMU of every device that has none, and
// crashes.  Any other that manages nothing the tree can say is left out.  What
// another generator has already written about IOMMUs is refused, not replaced:
// two descriptions of one machine cannot both be right.
#include "base/bytes.h"
#include "base/error.h"
#include "topology/model.h"
#include "topology/text.h"

#include <viommu/topology.h>

#include <libfdt.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace
{

using viommu::Refusal;
using viommu::store_big;
using viommu::topology::hex;
using viommu::topology::Iommu;
using viommu::topology::MmioEndpoint;
using viommu::topology::Model;
using viommu::topology::pci_address;
using viommu::topology::PciRange;

constexpr uint16_t kDescribedSegment = 0;
constexpr char kPciIommuCompatible[] = "virtio,pci-iommu\0pci1af4,1057";
constexpr uint32_t kNoPhandle = 0xffffffff;

// libfdt moves nodes whenever it writes, so nodes are looked up by path each time.
class Tree
{
public:
    explicit Tree(void *fdt) : fdt_(fdt)
    {
        if (fdt == nullptr) {
            throw Refusal("there is no device tree to describe the IOMMUs in");
        }
        const int result = fdt_check_header(fdt);
        if (result < 0) {
            throw Refusal(std::string("the device tree is not valid: ") + fdt_strerror(result));
        }
    }

    int find(const std::string &path) const
    {
        const int node = fdt_path_offset(fdt_, path.c_str());
        if (node < 0) {
            throw Refusal("the device tree has no node " + path + ": " + fdt_strerror(node));
        }
        return node;
    }

    bool has(const std::string &path, const char *property) const
    {
        return fdt_getprop(fdt_, find(path), property, nullptr) != nullptr;
    }

    uint32_t phandle_of(const std::string &path) const { return fdt_get_phandle(fdt_, find(path)); }

    bool has_phandle(uint32_t phandle) const
    {
        return fdt_node_offset_by_phandle(fdt_, phandle) >= 0;
    }

    bool counts_cells_like_pci(const std::string &path) const
    {
        const int node = find(path);
        return fdt_address_cells(fdt_, node) == 3 && fdt_size_cells(fdt_, node) == 2;
    }

    void add_node(const std::string &parent, const std::string &name)
    {
        check(fdt_add_subnode(fdt_, find(parent), name.c_str()), "node " + name + " of " + parent);
    }

    void set_bytes(const std::string &path, const char *property, std::string_view bytes)
    {
        check(fdt_setprop(fdt_, find(path), property, bytes.data(), static_cast<int>(bytes.size())),
              std::string("property ") + property + " of " + path);
    }

    void set_cells(const std::string &path, const char *property,
                   const std::vector<uint32_t> &cells)
    {
        std::string bytes;
        for (const uint32_t cell : cells) {
            std::array<uint8_t, sizeof(cell)> big;
            store_big(big.data(), cell);
            bytes.append(big.begin(), big.end());
        }
        set_bytes(path, property, bytes);
    }

private:
    static void check(int result, const std::string &what)
    {
        if (result == -FDT_ERR_NOSPACE) {
            throw Refusal("the device tree has no room for " + what + " (FDT_ERR_NOSPACE)");
        }
        if (result < 0) {
            throw Refusal("the device tree cannot take " + what + ": " + fdt_strerror(result));
        }
    }

    void *fdt_;
};

bool is_described(const PciRange &range)
{
    return range.segment == kDescribedSegment;
}

bool is_described(const Iommu &iommu)
{
    return !iommu.endpoints.empty() ||
           std::ranges::any_of(iommu.ranges, [](const PciRange &r) { return is_described(r); });
}

// device,function in hexadecimal as the PCI bus binding has it; function 0 is
// not written.
std::string pci_node_name(uint16_t requester_id)
{
    char text[sizeof("iommu@1f,7")];
    const auto device = static_cast<unsigned>((requester_id >> 3) & 0x1f);
    const auto function = static_cast<unsigned>(requester_id & 7);
    if (function == 0) {
        std::snprintf(text, sizeof(text), "iommu@%x", device);
    } else {
        std::snprintf(text, sizeof(text), "iommu@%x,%x", device, function);
    }
    return text;
}

class Description
{
public:
    Description(const Model &model, void *fdt, const ViommuFdtNodes &nodes)
        : model_(model), nodes_(nodes), tree_(fdt)
    {
    }

    void write()
    {
        for (size_t i = 0; i < model_.iommus().size(); i++) {
            const Iommu &iommu = model_.iommus()[i];
            if (!is_described(iommu) && !is_on_described_host(iommu)) {
                continue;
            }
            if (iommu.kind == VIOMMU_IOMMU_PCI) {
                add_pci_iommu(iommu, phandle(i));
            } else {
                mark_mmio_iommu(iommu, i, phandle(i));
            }
            for (const MmioEndpoint &endpoint : iommu.endpoints) {
                set_iommu(endpoint, phandle(i));
            }
        }
        set_iommu_map();
    }

private:
    bool is_on_described_host(const Iommu &iommu) const
    {
        return iommu.kind == VIOMMU_IOMMU_PCI && iommu.segment == kDescribedSegment &&
               nodes_.pci_host != nullptr;
    }

    uint32_t phandle(size_t iommu)
    {
        const std::string &name = model_.iommus()[iommu].name;
        if (nodes_.phandles == nullptr) {
            throw Refusal("IOMMU " + name + " was given no phandle for the device tree");
        }
        const uint32_t value = nodes_.phandles[iommu];
        if (value == 0 || value == kNoPhandle) {
            throw Refusal("IOMMU " + name + " was given phandle " + hex(value) +
                          ", which no device-tree node can have");
        }
        const auto [other, is_new] = phandle_owners_.emplace(value, iommu);
        if (other->second != iommu) {
            throw Refusal("IOMMUs " + model_.iommus()[other->second].name + " and " + name +
                          " were both given phandle " + hex(value));
        }
        return value;
    }

    std::string pci_host(const std::string &for_what) const
    {
        if (nodes_.pci_host == nullptr) {
            throw Refusal(for_what + " needs a PCI host node, but the device tree has none");
        }
        return nodes_.pci_host;
    }

    void check_phandle_is_free(const Iommu &iommu, uint32_t value) const
    {
        if (tree_.has_phandle(value)) {
            throw Refusal("IOMMU " + iommu.name + " was given phandle " + hex(value) +
                          ", which another node of the device tree has");
        }
    }

    void add_pci_iommu(const Iommu &iommu, uint32_t phandle)
    {
        if (iommu.segment != kDescribedSegment) {
            throw Refusal("IOMMU " + iommu.name + " at PCI address " +
                          pci_address(iommu.segment, iommu.requester_id) +
                          " cannot be described in a device tree, which has only PCI segment 0");
        }
        const std::string host = pci_host("IOMMU " + iommu.name);
        if (!tree_.counts_cells_like_pci(host)) {
            throw Refusal("IOMMU " + iommu.name + " cannot be put under " + host +
                          ", which is no PCI host: it has not 3 address and 2 size cells");
        }
        check_phandle_is_free(iommu, phandle);

        const std::string name = pci_node_name(iommu.requester_id);
        const std::string path = host + "/" + name;
        tree_.add_node(host, name);
        tree_.set_bytes(path, "compatible", {kPciIommuCompatible, sizeof(kPciIommuCompatible)});
        tree_.set_cells(path, "reg", {uint32_t{iommu.requester_id} << 8, 0, 0, 0, 0});
        tree_.set_cells(path, "#iommu-cells", {1});
        tree_.set_cells(path, "phandle", {phandle});
    }

    void mark_mmio_iommu(const Iommu &iommu, size_t position, uint32_t phandle)
    {
        if (nodes_.mmio_iommu_nodes == nullptr || nodes_.mmio_iommu_nodes[position] == nullptr) {
            throw Refusal("IOMMU " + iommu.name + " at MMIO base " + hex(iommu.base) +
                          " has no node in the device tree");
        }
        const std::string path = nodes_.mmio_iommu_nodes[position];
        const uint32_t present = tree_.phandle_of(path);
        if (present != 0 && present != phandle) {
            throw Refusal("IOMMU " + iommu.name + " was given phandle " + hex(phandle) +
                          ", but its device-tree node " + path + " already has " + hex(present));
        }
        if (present == 0) {
            check_phandle_is_free(iommu, phandle);
            tree_.set_cells(path, "phandle", {phandle});
        }
        tree_.set_cells(path, "#iommu-cells", {1});
    }

    void set_iommu(const MmioEndpoint &endpoint, uint32_t phandle)
    {
        if (nodes_.mmio_endpoint_nodes == nullptr ||
            nodes_.mmio_endpoint_nodes[endpoint.position] == nullptr) {
            throw Refusal("MMIO endpoint " + endpoint.name + " at MMIO base " + hex(endpoint.base) +
                          " has no node in the device tree");
        }
        const std::string path = nodes_.mmio_endpoint_nodes[endpoint.position];
        if (tree_.has(path, "iommus")) {
            throw Refusal("the device-tree node " + path + " of MMIO endpoint " + endpoint.name +
                          " already has iommus");
        }
        tree_.set_cells(path, "iommus", {phandle, endpoint.id});
    }

    void set_iommu_map()
    {
        struct Entry {
            PciRange range;
            size_t iommu;
        };
        std::vector<Entry> entries;
        for (size_t i = 0; i < model_.iommus().size(); i++) {
            for (const PciRange &range : model_.iommus()[i].ranges) {
                if (is_described(range)) {
                    entries.push_back({range, i});
                }
            }
        }
        if (entries.empty()) {
            return;
        }
        std::ranges::sort(entries, {}, [](const Entry &entry) { return entry.range.first; });

        const std::string host = pci_host("IOMMU " + model_.iommus()[entries[0].iommu].name);
        for (const char *property : {"iommu-map", "iommu-map-mask"}) {
            if (tree_.has(host, property)) {
                throw Refusal("the PCI host node " + host + " already has " + property);
            }
        }
        std::vector<uint32_t> cells;
        for (const auto &[range, iommu] : entries) {
            const uint32_t length = range.last - range.first + 1u;
            cells.insert(cells.end(), {range.first, phandle(iommu), range.first_id(), length});
        }
        tree_.set_cells(host, "iommu-map", cells);
    }

    const Model &model_;
    const ViommuFdtNodes &nodes_;
    Tree tree_;
    std::map<uint32_t, size_t> phandle_owners_;
};

} // namespace

bool viommu_topology_fdt(const ViommuTopology *topology, void *fdt, const ViommuFdtNodes *nodes,
                         char *error, size_t error_size) noexcept
{
    return viommu::at_boundary<bool>(error, error_size, false, [&] {
        if (topology == nullptr || nodes == nullptr) {
            throw Refusal("there is no topology, or no list of nodes, to write a device tree from");
        }
        Description(topology->model, fdt, *nodes).write();
        return true;
    });
}
