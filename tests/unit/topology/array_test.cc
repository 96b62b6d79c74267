// SPDX-License-Identifier: GPL-2.0-or-later
//
// The expected bytes are written by hand from the layouts of 2020; they begin at
// byte 36 of the config space, while offsets in them count from its start.
#include "machine_builder.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace viommu::test
{

namespace
{

using Bytes = std::vector<uint8_t>;

Bytes array_bytes(const MachineBuilder &machine, uint32_t iommu, ViommuArrayLayout layout)
{
    const Bytes config = array_config(build(machine).get(), iommu, layout);
    return {config.begin() + 36, config.end()};
}

std::string array_refusal(const MachineBuilder &machine, uint32_t iommu, ViommuArrayLayout layout,
                          size_t limit)
{
    Bytes room(64, 0x55);
    char error[256] = "";
    EXPECT_EQ(viommu_topology_array(build(machine).get(), iommu, layout, limit, room.data(),
                                    room.size(), error, sizeof(error)),
              0u);
    EXPECT_EQ(room, Bytes(64, 0x55));
    return error;
}

} // namespace

TEST(ArrayV2, PciItemsArePaddedToTheStrideOf16)
{
    // clang-format off
    const Bytes expected{
        48, 0, 0, 0,    4, 0, 0, 0,     16, 0, 0, 0,
        1, 0,  0, 0,  0x00, 0, 0x07, 0,     0x00, 0, 0, 0,  0, 0, 0, 0,
        1, 0,  0, 0,  0x09, 0, 0x10, 0,     0x09, 0, 0, 0,  0, 0, 0, 0,
        1, 0,  0, 0,  0x12, 0, 0xff, 0x1f,  0x12, 0, 0, 0,  0, 0, 0, 0,
        2, 0,  0, 0,  3, 0, 0xff, 0xff,     0x00, 0x06, 0x00, 0x0a, 0, 0, 0, 0,
    };
    // clang-format on
    EXPECT_EQ(array_bytes(golden_machine(), 0, VIOMMU_ARRAY_V2), expected);
}

TEST(ArrayV2, ShowsOnlyTheRangesOfItsOwnIommu)
{
    // clang-format off
    const Bytes expected{
        48, 0, 0, 0,    1, 0, 0, 0,     16, 0, 0, 0,
        1, 0,  0, 0,  0x00, 0x30, 0xff, 0x3f,  0x00, 0x30, 0, 0,  0, 0, 0, 0,
    };
    // clang-format on
    EXPECT_EQ(array_bytes(golden_machine(), 1, VIOMMU_ARRAY_V2), expected);
}

TEST(ArrayV2, HierarchyIsTheSegment)
{
    // clang-format off
    const Bytes expected{
        48, 0, 0, 0,    1, 0, 0, 0,     16, 0, 0, 0,
        1, 0,  1, 0,  0x00, 0x80, 0xff, 0xff,  0x00, 0x80, 1, 0,  0, 0, 0, 0,
    };
    // clang-format on
    EXPECT_EQ(array_bytes(golden_mmio_machine(), 0, VIOMMU_ARRAY_V2), expected);
}

TEST(ArrayV3, EveryItemHasItsLength)
{
    // clang-format off
    const Bytes expected{
        4, 0,  40, 0,
        1, 0,  16, 0,  0x00, 0, 0, 0,  0, 0,  0x00, 0,  0x07, 0,     0, 0,
        1, 0,  16, 0,  0x09, 0, 0, 0,  0, 0,  0x09, 0,  0x10, 0,     0, 0,
        1, 0,  16, 0,  0x12, 0, 0, 0,  0, 0,  0x12, 0,  0xff, 0x1f,  0, 0,
        2, 0,  16, 0,  3, 0, 0xff, 0xff,  0x00, 0x06, 0x00, 0x0a, 0, 0, 0, 0,
    };
    // clang-format on
    EXPECT_EQ(array_bytes(golden_machine(), 0, VIOMMU_ARRAY_V3), expected);
}

TEST(ArrayV3, SegmentIsPartOfTheItemAndOfTheId)
{
    // clang-format off
    const Bytes expected{
        1, 0,  40, 0,
        1, 0,  16, 0,  0x00, 0x80, 1, 0,  1, 0,  0x00, 0x80,  0xff, 0xff,  0, 0,
    };
    // clang-format on
    EXPECT_EQ(array_bytes(golden_mmio_machine(), 0, VIOMMU_ARRAY_V3), expected);
}

TEST(Array, IommuThatManagesNothingShowsACountOfZero)
{
    const MachineBuilder machine = MachineBuilder().pci_iommu("iommu0", 0, 0x0008);
    EXPECT_EQ(array_bytes(machine, 0, VIOMMU_ARRAY_V2),
              (Bytes{48, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0}));
    EXPECT_EQ(array_bytes(machine, 0, VIOMMU_ARRAY_V3), (Bytes{0, 0, 40, 0}));
}

TEST(Array, FitsExactlyOrIsRefused)
{
    // Four items of 16 bytes: up to byte 112 in layout 2, 104 in layout 3.
    const auto topology = build(golden_machine());
    EXPECT_EQ(array_config(topology.get(), 0, VIOMMU_ARRAY_V2, 112).size(), 112u);
    EXPECT_EQ(array_config(topology.get(), 0, VIOMMU_ARRAY_V3, 104).size(), 104u);
    expect_sentence(array_refusal(golden_machine(), 0, VIOMMU_ARRAY_V2, 111),
                    {"iommu0", "4 items", "112 bytes", "111"});
    expect_sentence(array_refusal(golden_machine(), 0, VIOMMU_ARRAY_V3, 103),
                    {"iommu0", "4 items", "104 bytes", "103"});
    expect_sentence(array_refusal(golden_machine(), 1, VIOMMU_ARRAY_V2, 0), {"iommu1", "64 bytes"});
}

TEST(Array, VirtioMmioWindowHolds13ItemsInBothLayouts)
{
    MachineBuilder machine;
    machine.mmio_iommu("iommu0", 0x1000);
    for (uint16_t i = 0; i < 13; i++) {
        machine.mmio_endpoint("vm" + std::to_string(i), i, 0x2000u + i * 0x200u);
    }
    const auto topology = build(machine);
    EXPECT_EQ(array_config(topology.get(), 0, VIOMMU_ARRAY_V2, 256).size(), 256u);
    EXPECT_EQ(array_config(topology.get(), 0, VIOMMU_ARRAY_V3, 256).size(), 248u);
    machine.mmio_endpoint("vm13", 13, 0x9000);
    expect_sentence(array_refusal(machine, 0, VIOMMU_ARRAY_V2, 256), {"iommu0", "14 items", "272"});
    expect_sentence(array_refusal(machine, 0, VIOMMU_ARRAY_V3, 256), {"iommu0", "14 items", "264"});
}

TEST(Array, Layout3CannotCountBeyond16Bits)
{
    MachineBuilder machine;
    machine.mmio_iommu("iommu0", 0x1000);
    for (unsigned i = 0; i < 65536; i++) {
        machine.mmio_endpoint("vm", static_cast<uint16_t>(i), 0x100000 + i * 0x200);
    }
    expect_sentence(array_refusal(machine, 0, VIOMMU_ARRAY_V3, SIZE_MAX),
                    {"iommu0", "65536 items", "65535"});
    const auto topology = build(machine);
    EXPECT_EQ(array_config(topology.get(), 0, VIOMMU_ARRAY_V2).size(), 48u + 65536u * 16u);
}

TEST(Array, WritesNothingIntoTooLittleRoom)
{
    const auto topology = build(golden_machine());
    Bytes room(112 - 36 - 1, 0x55);
    EXPECT_EQ(viommu_topology_array(topology.get(), 0, VIOMMU_ARRAY_V2, 4096, room.data(),
                                    room.size(), nullptr, 0),
              112u);
    EXPECT_EQ(room, Bytes(112 - 36 - 1, 0x55));
}

TEST(Array, RefusesUnknownLayoutsAndIommus)
{
    expect_sentence(array_refusal(golden_machine(), 0, VIOMMU_ARRAY_OFF, 4096),
                    {"layout number 0"});
    expect_sentence(array_refusal(golden_machine(), 0, static_cast<ViommuArrayLayout>(1), 4096),
                    {"layout number 1"});
    expect_sentence(array_refusal(golden_machine(), 2, VIOMMU_ARRAY_V2, 4096), {"IOMMU number 2"});
    char error[256] = "";
    EXPECT_EQ(
        viommu_topology_array(nullptr, 0, VIOMMU_ARRAY_V2, 4096, nullptr, 0, error, sizeof(error)),
        0u);
    expect_sentence(error, {"IOMMU number 0"});
}

} // namespace viommu::test
