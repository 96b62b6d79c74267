// SPDX-License-Identifier: GPL-2.0-or-later
//
// The expected bytes are written by hand from the layout of the table; they
// begin after the 36-byte ACPI header, while offsets in them count from its start.
#include "machine_builder.h"
#include "owners.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace viommu::test
{

using Bytes = std::vector<uint8_t>;

TEST(Viot, PciIommusRangesAndMmioEndpoint)
{
    const auto topology = build(golden_machine());
    // clang-format off
    const Bytes expected{
        7, 0,           48, 0,          0, 0, 0, 0, 0, 0, 0, 0,
        // offset 48: iommu0 at 0000:00:01.0
        3, 0, 16, 0,    0, 0, 0x08, 0,  0, 0, 0, 0, 0, 0, 0, 0,
        // offset 64: iommu1 at 0000:00:02.1
        3, 0, 16, 0,    0, 0, 0x11, 0,  0, 0, 0, 0, 0, 0, 0, 0,
        // behind iommu0: 0x0000-0x0007, 0x0009-0x0010, 0x0012-0x1fff
        1, 0, 24, 0,    0x00, 0, 0, 0,  0, 0, 0, 0,
                        0x00, 0, 0x07, 0,       48, 0,  0, 0, 0, 0, 0, 0,
        1, 0, 24, 0,    0x09, 0, 0, 0,  0, 0, 0, 0,
                        0x09, 0, 0x10, 0,       48, 0,  0, 0, 0, 0, 0, 0,
        1, 0, 24, 0,    0x12, 0, 0, 0,  0, 0, 0, 0,
                        0x12, 0, 0xff, 0x1f,    48, 0,  0, 0, 0, 0, 0, 0,
        // behind iommu0: transport 3 at 0x0a000600
        2, 0, 24, 0,    3, 0, 0xff, 0xff,
                        0x00, 0x06, 0x00, 0x0a, 0, 0, 0, 0,
                        48, 0,  0, 0, 0, 0, 0, 0,
        // behind iommu1: 0x3000-0x3fff
        1, 0, 24, 0,    0x00, 0x30, 0, 0,  0, 0, 0, 0,
                        0x00, 0x30, 0xff, 0x3f, 64, 0,  0, 0, 0, 0, 0, 0,
    };
    // clang-format on
    EXPECT_EQ(viot_body(topology.get()), expected);
}

TEST(Viot, MmioIommuAndSegment)
{
    const auto topology = build(golden_mmio_machine());
    // clang-format off
    const Bytes expected{
        2, 0,           48, 0,          0, 0, 0, 0, 0, 0, 0, 0,
        // offset 48: iommu-m at 0x0a003e00
        4, 0, 16, 0,    0, 0, 0, 0,     0x00, 0x3e, 0x00, 0x0a, 0, 0, 0, 0,
        // segment 1, 0x8000-0xffff
        1, 0, 24, 0,    0x00, 0x80, 1, 0,  1, 0, 1, 0,
                        0x00, 0x80, 0xff, 0xff, 48, 0,  0, 0, 0, 0, 0, 0,
    };
    // clang-format on
    EXPECT_EQ(viot_body(topology.get()), expected);
}

// Linux takes a PCI IOMMU that no range refers to for the one of every device that
// has none; the range names the last function of segment 0xffff, where none can be.
TEST(Viot, PciIommuThatManagesNothingIsReferredToByARangeWithoutFunctions)
{
    const auto topology = build(MachineBuilder()
                                    .pci_iommu("idle", 0, 0x0008)
                                    .pci_iommu("busy", 0, 0x0010, {"pxb1"})
                                    .root_bus("pcie.0", 0, 0x00, 0x0f, true)
                                    .root_bus("pxb1", 0, 0x10, 0x10));
    // clang-format off
    const Bytes expected{
        4, 0,           48, 0,          0, 0, 0, 0, 0, 0, 0, 0,
        // offset 48: idle
        3, 0, 16, 0,    0, 0, 0x08, 0,  0, 0, 0, 0, 0, 0, 0, 0,
        // offset 64: busy
        3, 0, 16, 0,    0, 0, 0x10, 0,  0, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 24, 0,    0xff, 0xff, 0xff, 0xff,     0xff, 0xff, 0xff, 0xff,
                        0xff, 0xff, 0xff, 0xff,     48, 0,  0, 0, 0, 0, 0, 0,
        1, 0, 24, 0,    0x00, 0x10, 0, 0,  0, 0, 0, 0,
                        0x00, 0x10, 0xff, 0x10, 64, 0,  0, 0, 0, 0, 0, 0,
    };
    // clang-format on
    EXPECT_EQ(viot_body(topology.get()), expected);
    EXPECT_FALSE(viommu_topology_manages(topology.get(), 0, 0xffffffff));
}

TEST(Viot, TwoPciIommusThatManageNothingShareNoFunction)
{
    const auto topology = build(MachineBuilder()
                                    .pci_iommu("one", 0, 0x0008)
                                    .pci_iommu("two", 0, 0x0010, {VIOMMU_PLATFORM_BUS})
                                    .root_bus("pcie.0", 0, 0x00, 0xff, true));
    const Bytes body = viot_body(topology.get());
    ASSERT_EQ(body.size(), 12u + 2 * 16u + 2 * 24u);
    EXPECT_EQ(le32(body, 44 + 4), 0xffffffffu);
    EXPECT_EQ(le16(body, 44 + 12), 0xffffu);
    EXPECT_EQ(le32(body, 68 + 4), 0xfffffffeu);
    EXPECT_EQ(le16(body, 68 + 12), 0xfffeu);
}

TEST(Viot, MmioIommuThatManagesNothingHasNoNode)
{
    const auto topology = build(MachineBuilder().mmio_iommu("iommu0", 0x1000));
    EXPECT_EQ(viot_body(topology.get()), (Bytes{0, 0, 48, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(Viot, WritesNothingIntoTooLittleRoom)
{
    const auto topology = build(golden_mmio_machine());
    Bytes room(51, 0x55);
    EXPECT_EQ(viommu_topology_viot(topology.get(), room.data(), room.size(), nullptr, 0), 52u);
    EXPECT_EQ(room, Bytes(51, 0x55));
}

TEST(Viot, RefusesMoreNodesThanTheTableCanCount)
{
    // The IOMMU and 65535 endpoints make 65536 nodes.
    MachineBuilder machine;
    machine.mmio_iommu("iommu0", 0x1000);
    for (unsigned i = 0; i < 65534; i++) {
        machine.mmio_endpoint("vm", static_cast<uint16_t>(i), 0x100000 + i * 0x200);
    }
    EXPECT_EQ(viot_body(build(machine).get()).size(), 12u + 16u + 65534u * 24u);

    machine.mmio_endpoint("vm", 65534, 0x10);
    char error[256] = "";
    EXPECT_EQ(viommu_topology_viot(build(machine).get(), nullptr, 0, error, sizeof(error)), 0u);
    expect_sentence(error, {"VIOT", "65536 nodes", "65535"});
}

TEST(Viot, RefusesAnIommuNodeBeyondTheReachOfAnOutputNode)
{
    // Node n is at 48 + 16 * n: 4092 of them start below 64 KiB, and one at 65520.
    MachineBuilder machine;
    const auto add_iommus = [&machine](unsigned first, unsigned end) {
        for (unsigned i = first; i < end; i++) {
            const std::string bus = "bus" + std::to_string(i);
            machine.root_bus(bus, static_cast<uint16_t>(i / 256), static_cast<uint8_t>(i % 256),
                             static_cast<uint8_t>(i % 256));
            machine.mmio_iommu("iommu" + std::to_string(i), 0x1000 + i * 0x200, {bus});
        }
    };
    add_iommus(0, 4093);
    const Bytes body = viot_body(build(machine).get());
    ASSERT_EQ(body.size(), 12u + 4093u * (16u + 24u));
    EXPECT_EQ(le16(body, body.size() - 8), 65520u);

    add_iommus(4093, 4094);
    char error[256] = "";
    EXPECT_EQ(viommu_topology_viot(build(machine).get(), nullptr, 0, error, sizeof(error)), 0u);
    expect_sentence(error, {"VIOT", "iommu4093", "65536", "65535"});
}

TEST(Viot, RefusesNoTopology)
{
    char error[256] = "";
    EXPECT_EQ(viommu_topology_viot(nullptr, nullptr, 0, error, sizeof(error)), 0u);
    expect_sentence(error, {"no topology"});
}

} // namespace viommu::test
