// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <viommu/viommu.h>

#include <gtest/gtest.h>
#include <libfdt.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

namespace viommu::test
{

// A device tree as a machine would hand it over: a PCI host of segment 0 and a
// node for every virtio-mmio transport, IOMMU or endpoint, of a description.
class Tree
{
public:
    explicit Tree(const ViommuMachineDesc &machine, size_t size = 1u << 16) : bytes_(size)
    {
        check(fdt_create_empty_tree(fdt(), static_cast<int>(size)));
        set_string("/", "compatible", "viommu,test-machine");
        set_string("/", "model", "viommu test machine");
        set_cells("/", "#address-cells", {2});
        set_cells("/", "#size-cells", {2});

        add("/", "pcie@4010000000");
        set_string(kPciHost, "device_type", "pci");
        set_string(kPciHost, "compatible", "pci-host-ecam-generic");
        set_cells(kPciHost, "#address-cells", {3});
        set_cells(kPciHost, "#size-cells", {2});
        set_cells(kPciHost, "reg", {0x40, 0x10000000, 0, 0x10000000});
        set_cells(kPciHost, "bus-range", {0, 0xff});
        set_cells(kPciHost, "ranges", {0x02000000, 0, 0x10000000, 0, 0x10000000, 0, 0x2eff0000});

        for (uint32_t i = 0; i < machine.iommu_count; i++) {
            const ViommuIommuDesc &iommu = machine.iommus[i];
            phandles.push_back(0x8000 + i);
            iommu_paths_.push_back(iommu.kind == VIOMMU_IOMMU_MMIO ? transport(iommu.base) : "");
        }
        for (size_t i = 0; i < machine.mmio_endpoint_count; i++) {
            endpoint_paths_.push_back(transport(machine.mmio_endpoints[i].base));
        }
        for (const std::string &path : iommu_paths_) {
            iommu_nodes.push_back(path.empty() ? nullptr : path.c_str());
        }
        for (const std::string &path : endpoint_paths_) {
            endpoint_nodes.push_back(path.c_str());
        }
    }

    void *fdt() { return bytes_.data(); }

    ViommuFdtNodes nodes() const
    {
        return {kPciHost, phandles.data(), iommu_nodes.data(), endpoint_nodes.data()};
    }

    // Empty if it was written, else the sentence.
    std::string write(const ViommuTopology *topology) { return write(topology, nodes()); }

    std::string write(const ViommuTopology *topology, const ViommuFdtNodes &nodes)
    {
        char error[512] = "";
        const bool written = viommu_topology_fdt(topology, fdt(), &nodes, error, sizeof(error));
        EXPECT_EQ(written, error[0] == '\0') << error;
        return error;
    }

    void add(const char *parent, const char *name)
    {
        check(fdt_add_subnode(fdt(), fdt_path_offset(fdt(), parent), name));
    }

    void set_string(const std::string &path, const char *property, const char *text)
    {
        check(fdt_setprop(fdt(), fdt_path_offset(fdt(), path.c_str()), property, text,
                          static_cast<int>(std::strlen(text) + 1)));
    }

    void set_cells(const std::string &path, const char *property,
                   std::initializer_list<uint32_t> cells)
    {
        const int node = fdt_path_offset(fdt(), path.c_str());
        check(fdt_setprop(fdt(), node, property, nullptr, 0));
        for (const uint32_t cell : cells) {
            check(fdt_appendprop_u32(fdt(), node, property, cell));
        }
    }

    bool has(const std::string &path) { return fdt_path_offset(fdt(), path.c_str()) >= 0; }

    // The raw bytes of a property; a property that is not there has none either,
    // so `has_property` tells the two apart.
    std::vector<uint8_t> property(const std::string &path, const char *name)
    {
        int size = 0;
        const auto *bytes = static_cast<const uint8_t *>(
            fdt_getprop(fdt(), fdt_path_offset(fdt(), path.c_str()), name, &size));
        return bytes == nullptr ? std::vector<uint8_t>{}
                                : std::vector<uint8_t>(bytes, bytes + size);
    }

    bool has_property(const std::string &path, const char *name)
    {
        const int node = fdt_path_offset(fdt(), path.c_str());
        return fdt_getprop(fdt(), node, name, nullptr) != nullptr;
    }

    static constexpr const char *kPciHost = "/pcie@4010000000";

    std::vector<uint32_t> phandles;
    std::vector<const char *> iommu_nodes;
    std::vector<const char *> endpoint_nodes;

private:
    static void check(int result) { ASSERT_GE(result, 0) << fdt_strerror(result); }

    std::string transport(uint64_t base)
    {
        char name[40];
        std::snprintf(name, sizeof(name), "virtio_mmio@%" PRIx64, base);
        add("/", name);
        std::string path = std::string("/") + name;
        set_string(path, "compatible", "virtio,mmio");
        set_cells(path, "reg",
                  {static_cast<uint32_t>(base >> 32), static_cast<uint32_t>(base), 0, 0x200});
        return path;
    }

    std::vector<uint8_t> bytes_;
    std::vector<std::string> iommu_paths_;
    std::vector<std::string> endpoint_paths_;
};

} // namespace viommu::test
