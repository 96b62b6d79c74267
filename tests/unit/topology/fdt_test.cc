// SPDX-License-Identifier: GPL-2.0-or-later
//
// The expected cells are written by hand from the bindings (big-endian).
#include "machine_builder.h"
#include "tree.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace viommu::test
{

namespace
{

using Bytes = std::vector<uint8_t>;

Bytes strings(const char *text, size_t size)
{
    return {text, text + size};
}

} // namespace

TEST(Fdt, PciIommuIsAChildOfThePciHost)
{
    const MachineBuilder machine = golden_machine();
    const auto topology = build(machine);
    Tree tree(machine.desc());
    ASSERT_EQ(tree.write(topology.get()), "");

    const std::string node0 = std::string(Tree::kPciHost) + "/iommu@1";
    const std::string node1 = std::string(Tree::kPciHost) + "/iommu@2,1";
    const char compatible[] = "virtio,pci-iommu\0pci1af4,1057";
    for (const std::string &node : {node0, node1}) {
        ASSERT_TRUE(tree.has(node)) << node;
        EXPECT_EQ(tree.property(node, "compatible"), strings(compatible, 30));
        EXPECT_EQ(tree.property(node, "#iommu-cells"), (Bytes{0, 0, 0, 1}));
    }
    // 00:01.0 and 00:02.1 in bits 8 to 23.
    EXPECT_EQ(tree.property(node0, "reg"),
              (Bytes{0, 0, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
    EXPECT_EQ(tree.property(node1, "reg"),
              (Bytes{0, 0, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
    EXPECT_EQ(tree.property(node0, "phandle"), (Bytes{0, 0, 0x80, 0}));
    EXPECT_EQ(tree.property(node1, "phandle"), (Bytes{0, 0, 0x80, 1}));
    EXPECT_FALSE(tree.has_property(node0, "iommus"));
}

TEST(Fdt, IommuMapHasATuplePerRangeInOrderOfRequesterIds)
{
    // The second IOMMU's root bus lies between two of the first.
    const MachineBuilder machine = MachineBuilder()
                                       .pci_iommu("iommu0", 0, 0x0008)
                                       .pci_iommu("iommu1", 0, 0x0011, {"pxb1"})
                                       .root_bus("pcie.0", 0, 0x00, 0x0f)
                                       .root_bus("pxb1", 0, 0x10, 0x1f)
                                       .root_bus("pxb2", 0, 0x20, 0xff)
                                       .root_bus("elsewhere", 1, 0x00, 0xff);
    const auto topology = build(machine);
    Tree tree(machine.desc());
    ASSERT_EQ(tree.write(topology.get()), "");
    // clang-format off
    const Bytes expected{
        0, 0, 0, 0,         0, 0, 0x80, 0,  0, 0, 0, 0,         0, 0, 0, 8,
        0, 0, 0, 9,         0, 0, 0x80, 0,  0, 0, 0, 9,         0, 0, 0, 8,
        0, 0, 0, 0x12,      0, 0, 0x80, 0,  0, 0, 0, 0x12,      0, 0, 0x0f, 0xee,
        0, 0, 0x10, 0,      0, 0, 0x80, 1,  0, 0, 0x10, 0,      0, 0, 0x10, 0,
        0, 0, 0x20, 0,      0, 0, 0x80, 0,  0, 0, 0x20, 0,      0, 0, 0xe0, 0,
    };
    // clang-format on
    EXPECT_EQ(tree.property(Tree::kPciHost, "iommu-map"), expected);
    EXPECT_EQ(tree.property(Tree::kPciHost, "#address-cells"), (Bytes{0, 0, 0, 3}));
    EXPECT_EQ(tree.property(Tree::kPciHost, "#size-cells"), (Bytes{0, 0, 0, 2}));
}

TEST(Fdt, MmioIommuOfTheWholeSegmentAndItsEndpoints)
{
    const MachineBuilder machine = MachineBuilder()
                                       .mmio_iommu("iommu0", 0x0a003e00)
                                       .root_bus("pcie.0", 0, 0x00, 0xff)
                                       .mmio_endpoint("vm3", 3, 0x0a000600);
    const auto topology = build(machine);
    Tree tree(machine.desc());
    ASSERT_EQ(tree.write(topology.get()), "");
    EXPECT_EQ(tree.property("/virtio_mmio@a003e00", "#iommu-cells"), (Bytes{0, 0, 0, 1}));
    EXPECT_EQ(tree.property("/virtio_mmio@a003e00", "phandle"), (Bytes{0, 0, 0x80, 0}));
    EXPECT_FALSE(tree.has_property("/virtio_mmio@a003e00", "iommus"));
    EXPECT_EQ(tree.property("/virtio_mmio@a000600", "iommus"),
              (Bytes{0, 0, 0x80, 0, 0xff, 0xff, 0, 3}));
    EXPECT_FALSE(tree.has_property("/virtio_mmio@a000600", "#iommu-cells"));
    EXPECT_EQ(tree.property(Tree::kPciHost, "iommu-map"),
              (Bytes{0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0}));
}

TEST(Fdt, PciIommuManagesMmioEndpoints)
{
    const MachineBuilder machine = golden_machine();
    const auto topology = build(machine);
    Tree tree(machine.desc());
    ASSERT_EQ(tree.write(topology.get()), "");
    EXPECT_EQ(tree.property("/virtio_mmio@a000600", "iommus"),
              (Bytes{0, 0, 0x80, 0, 0xff, 0xff, 0, 3}));
}

TEST(Fdt, PhandleThatTheNodeAlreadyHasIsKept)
{
    const MachineBuilder machine =
        MachineBuilder().mmio_iommu("iommu0", 0x0a003e00).root_bus("pcie.0", 0, 0x00, 0xff);
    const auto topology = build(machine);
    Tree tree(machine.desc());
    tree.set_cells("/virtio_mmio@a003e00", "phandle", {0x8000});
    EXPECT_EQ(tree.write(topology.get()), "");
    EXPECT_EQ(tree.property("/virtio_mmio@a003e00", "phandle"), (Bytes{0, 0, 0x80, 0}));
}

// Linux takes an IOMMU that has no node for the one of every device that has none.
TEST(Fdt, NothingManagedStillGivesThePciIommuItsNode)
{
    const MachineBuilder machine =
        MachineBuilder().pci_iommu("iommu0", 0, 0x0008).root_bus("pcie.0", 0, 0x00, 0xff, true);
    const auto topology = build(machine);
    Tree tree(machine.desc());
    ASSERT_EQ(tree.write(topology.get()), "");
    const std::string node = std::string(Tree::kPciHost) + "/iommu@1";
    EXPECT_EQ(tree.property(node, "#iommu-cells"), (Bytes{0, 0, 0, 1}));
    EXPECT_FALSE(tree.has_property(Tree::kPciHost, "iommu-map"));
}

TEST(Fdt, NothingManagedLeavesTheTreeAsItWasOtherwise)
{
    const MachineBuilder machine = MachineBuilder()
                                       .pci_iommu("iommu0", 1, 0x0008)
                                       .mmio_iommu("iommu1", 0x1000, {"elsewhere"})
                                       .root_bus("pcie.0", 0, 0x00, 0xff, true)
                                       .root_bus("elsewhere", 1, 0x00, 0xff);
    const auto topology = build(machine);
    Tree tree(machine.desc());
    Tree untouched(machine.desc());
    ASSERT_EQ(tree.write(topology.get()), "");
    EXPECT_EQ(std::memcmp(tree.fdt(), untouched.fdt(), fdt_totalsize(untouched.fdt())), 0);
}

TEST(FdtRefusal, NoPciHost)
{
    const MachineBuilder machine = golden_machine();
    const auto topology = build(machine);
    {
        Tree tree(machine.desc());
        ViommuFdtNodes nodes = tree.nodes();
        nodes.pci_host = nullptr;
        expect_sentence(tree.write(topology.get(), nodes), {"iommu0", "PCI host"});
        nodes.pci_host = "/pcie@0";
        expect_sentence(tree.write(topology.get(), nodes), {"/pcie@0", "FDT_ERR_NOTFOUND"});
    }
    const MachineBuilder mmio =
        MachineBuilder().mmio_iommu("iommu-m", 0x1000).root_bus("pcie.0", 0, 0, 0xff);
    const auto mmio_topology = build(mmio);
    Tree tree(mmio.desc());
    ViommuFdtNodes nodes = tree.nodes();
    nodes.pci_host = nullptr;
    expect_sentence(tree.write(mmio_topology.get(), nodes), {"iommu-m", "PCI host"});
}

TEST(FdtRefusal, PciHostWithOtherCells)
{
    const MachineBuilder machine = golden_machine();
    const auto topology = build(machine);
    for (const char *property : {"#address-cells", "#size-cells"}) {
        Tree tree(machine.desc());
        tree.set_cells(Tree::kPciHost, property, {1});
        expect_sentence(tree.write(topology.get()), {"iommu0", Tree::kPciHost, "3 address"});
    }
}

TEST(FdtRefusal, IommuOfAnotherSegment)
{
    const MachineBuilder machine =
        MachineBuilder().pci_iommu("iommu0", 1, 0x0008).root_bus("pcie.0", 0, 0x00, 0xff);
    const auto topology = build(machine);
    Tree tree(machine.desc());
    expect_sentence(tree.write(topology.get()), {"iommu0", "0001:00:01.0", "segment 0"});
}

TEST(FdtRefusal, MissingMmioNodes)
{
    const MachineBuilder machine =
        MachineBuilder().mmio_iommu("iommu-m", 0x0a003e00).mmio_endpoint("vm3", 3, 0x0a000600);
    const auto topology = build(machine);
    Tree tree(machine.desc());
    ViommuFdtNodes nodes = tree.nodes();

    nodes.mmio_iommu_nodes = nullptr;
    expect_sentence(tree.write(topology.get(), nodes), {"iommu-m", "0xa003e00", "no node"});
    const char *const none[] = {nullptr};
    nodes.mmio_iommu_nodes = none;
    expect_sentence(tree.write(topology.get(), nodes), {"iommu-m", "0xa003e00", "no node"});
    const char *const wrong[] = {"/virtio_mmio@1"};
    nodes.mmio_iommu_nodes = wrong;
    expect_sentence(tree.write(topology.get(), nodes), {"/virtio_mmio@1", "FDT_ERR_NOTFOUND"});
}

TEST(FdtRefusal, MissingEndpointNodes)
{
    const MachineBuilder machine =
        MachineBuilder().mmio_iommu("iommu-m", 0x0a003e00).mmio_endpoint("vm3", 3, 0x0a000600);
    const auto topology = build(machine);
    const char *const none[] = {nullptr};
    for (const char *const *paths : {static_cast<const char *const *>(nullptr), none}) {
        Tree tree(machine.desc());
        ViommuFdtNodes nodes = tree.nodes();
        nodes.mmio_endpoint_nodes = paths;
        expect_sentence(tree.write(topology.get(), nodes), {"vm3", "0xa000600", "no node"});
    }
}

TEST(FdtRefusal, UnusablePhandles)
{
    const MachineBuilder machine = golden_machine();
    const auto topology = build(machine);
    for (const uint32_t phandle : {0u, 0xffffffffu}) {
        Tree tree(machine.desc());
        tree.phandles[1] = phandle;
        expect_sentence(tree.write(topology.get()), {"iommu1", "phandle"});
    }
    {
        Tree tree(machine.desc());
        tree.phandles[1] = tree.phandles[0];
        expect_sentence(tree.write(topology.get()), {"iommu0 and iommu1", "0x8000"});
    }
    {
        Tree tree(machine.desc());
        tree.set_cells("/virtio_mmio@a000600", "phandle", {0x8001});
        expect_sentence(tree.write(topology.get()), {"iommu1", "0x8001", "another node"});
    }
    {
        Tree tree(machine.desc());
        ViommuFdtNodes nodes = tree.nodes();
        nodes.phandles = nullptr;
        expect_sentence(tree.write(topology.get(), nodes), {"iommu0", "no phandle"});
    }
    const MachineBuilder mmio =
        MachineBuilder().mmio_iommu("iommu-m", 0x1000).root_bus("pcie.0", 0, 0, 0xff);
    const auto mmio_topology = build(mmio);
    Tree tree(mmio.desc());
    tree.set_cells("/virtio_mmio@1000", "phandle", {0x77});
    expect_sentence(tree.write(mmio_topology.get()),
                    {"iommu-m", "0x8000", "/virtio_mmio@1000", "0x77"});
}

TEST(FdtRefusal, TreeThatAlreadyDescribesIommus)
{
    const MachineBuilder machine = golden_machine();
    const auto topology = build(machine);
    for (const char *property : {"iommu-map", "iommu-map-mask"}) {
        Tree tree(machine.desc());
        tree.set_cells(Tree::kPciHost, property, {0xffff});
        expect_sentence(tree.write(topology.get()), {Tree::kPciHost, "already has", property});
    }
    {
        Tree tree(machine.desc());
        tree.set_cells("/virtio_mmio@a000600", "iommus", {1, 2});
        expect_sentence(tree.write(topology.get()), {"/virtio_mmio@a000600", "vm3", "iommus"});
    }
    Tree tree(machine.desc());
    tree.add(Tree::kPciHost, "iommu@1");
    expect_sentence(tree.write(topology.get()), {"iommu@1", Tree::kPciHost, "FDT_ERR_EXISTS"});
}

TEST(FdtRefusal, TreeWithoutRoom)
{
    // Whatever the write at which the room ends, it is said and nothing overruns.
    const MachineBuilder machine = golden_machine();
    const auto topology = build(machine);
    Tree roomy(machine.desc());
    ASSERT_EQ(fdt_pack(roomy.fdt()), 0);
    const int before = static_cast<int>(fdt_totalsize(roomy.fdt()));
    unsigned refused = 0;
    for (int extra = 0;; extra += 8) {
        ASSERT_LT(extra, 4096);
        const int size = before + extra;
        std::vector<uint8_t> exact(static_cast<size_t>(size));
        ASSERT_EQ(fdt_open_into(roomy.fdt(), exact.data(), size), 0);
        const ViommuFdtNodes nodes = roomy.nodes();
        char error[256] = "";
        if (viommu_topology_fdt(topology.get(), exact.data(), &nodes, error, sizeof(error))) {
            break;
        }
        expect_sentence(error, {"no room for", "FDT_ERR_NOSPACE"});
        refused++;
    }
    EXPECT_GT(refused, 10u);
}

TEST(FdtRefusal, NoTreeOrNoNodes)
{
    const MachineBuilder machine = golden_machine();
    const auto topology = build(machine);
    Tree tree(machine.desc());
    const ViommuFdtNodes nodes = tree.nodes();
    char error[256] = "";
    EXPECT_FALSE(viommu_topology_fdt(topology.get(), nullptr, &nodes, error, sizeof(error)));
    expect_sentence(error, {"no device tree"});
    EXPECT_FALSE(viommu_topology_fdt(topology.get(), tree.fdt(), nullptr, error, sizeof(error)));
    expect_sentence(error, {"list of nodes"});
    EXPECT_FALSE(viommu_topology_fdt(nullptr, tree.fdt(), &nodes, error, sizeof(error)));
    expect_sentence(error, {"no topology"});

    alignas(8) uint8_t noise[64] = {1, 2, 3, 4};
    EXPECT_FALSE(viommu_topology_fdt(topology.get(), noise, &nodes, error, sizeof(error)));
    expect_sentence(error, {"not valid", "FDT_ERR_BADMAGIC"});
}

} // namespace viommu::test
