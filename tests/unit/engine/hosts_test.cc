// SPDX-License-Identifier: GPL-2.0-or-later
//
// Assigned devices: what their IOMMU on the host cannot do is reserved, or they
// are refused and nothing changes.
#include "machine.h"

namespace viommu::test
{

namespace
{

constexpr uint64_t kHostPages = ~uint64_t{0xfff};
constexpr uint64_t kHostLast = (uint64_t{1} << 39) - 1;
constexpr uint16_t kResvMem = 1;

struct Host {
    std::string name;
    std::vector<ViommuRange> usable;
    uint64_t page_sizes = kHostPages;
};

// What VFIO says on a PC: all but the interrupts, as far as the tables reach.
const Host kPc{"nic", {{0, 0xfedfffff}, {0xfef00000, kHostLast}}};

std::string assign(Function &function, const std::vector<Host> &hosts)
{
    std::vector<ViommuHostDevice> devices;
    for (const Host &host : hosts) {
        devices.push_back(
            {host.name.c_str(), host.usable.data(), host.usable.size(), host.page_sizes});
    }
    char error[256] = "";
    const bool done = viommu_endpoint_set_hosts(function.endpoint, devices.data(), devices.size(),
                                                error, sizeof(error));
    EXPECT_EQ(done, error[0] == '\0');
    return error;
}

Config pc()
{
    return Config().reserve(0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI);
}

const Property kMsi{kResvMem, 20, VIOMMU_RESV_MSI, 0xfee00000, 0xfeefffff};

Property reserved(uint64_t first, uint64_t last)
{
    return {kResvMem, 20, VIOMMU_RESV_RESERVED, first, last};
}

TEST(Hosts, W27_PRB_5_WhatTheHostCannotMapIsReserved)
{
    Machine machine(pc());
    Function &function = machine.add(0x30);
    machine.add(0x38);
    ASSERT_EQ(assign(function, {kPc}), "");
    // The machine's region for MSIs lies in the host's hole and stays what it is.
    EXPECT_EQ(machine.probe(0x30), (std::vector<Property>{kMsi, reserved(kHostLast + 1, MAX)}));
    EXPECT_EQ(machine.probe(0x38), (std::vector<Property>{kMsi}));
}

TEST(Hosts, W27_NothingBeyondTheInputRangeIsTold)
{
    Machine machine(pc().input(0, kHostLast));
    Function &function = machine.add(0x30);
    ASSERT_EQ(assign(function, {kPc}), "");
    EXPECT_EQ(machine.probe(0x30), (std::vector<Property>{kMsi}));
}

TEST(Hosts, W27_RangesInAnyOrder)
{
    const std::vector<ViommuRange> ranges{{0x5000, 0x5fff}, {0x2000, 0x3fff}, {0x3000, 0x4fff},
                                          {0x8000, 0x7fff}, {0x9000, MAX}};
    Machine machine;
    Function &function = machine.add(0x30);
    ASSERT_EQ(assign(function, {{"nic", ranges}}), "");
    EXPECT_EQ(machine.probe(0x30),
              (std::vector<Property>{reserved(0, 0x1fff), reserved(0x6000, 0x8fff)}));
}

TEST(Hosts, W27_OneThatTakesAllReservesNothing)
{
    Machine machine;
    Function &function = machine.add(0x30);
    ASSERT_EQ(assign(function, {{"whole", {{0, MAX}}}, {"silent", {}}}), "");
    EXPECT_EQ(machine.probe(0x30), (std::vector<Property>{}));
    machine.attach(1, 0x30);
    EXPECT_EQ(machine.map(1, 0, MAX, 0), OK);
}

TEST(Hosts, W27_ThoseThatShareAnEndpointGetWhatAllCanUse)
{
    Machine machine;
    Function &function = machine.add(0x30);
    ASSERT_EQ(assign(function, {{"a", {{0x1000, MAX}}}, {"b", {{0, 0xfffff}, {0x200000, MAX}}}}),
              "");
    EXPECT_EQ(machine.probe(0x30),
              (std::vector<Property>{reserved(0, 0xfff), reserved(0x100000, 0x1fffff)}));
    ASSERT_EQ(assign(function, {{"a", {{0x1000, MAX}}}}), "");
    EXPECT_EQ(machine.probe(0x30), (std::vector<Property>{reserved(0, 0xfff)}));
    ASSERT_EQ(assign(function, {}), "");
    EXPECT_EQ(machine.probe(0x30), (std::vector<Property>{}));
}

TEST(Hosts, RSV_4_NoMappingThere)
{
    Machine machine;
    Function &function = machine.add(0x30);
    machine.attach(1, 0x30);
    ASSERT_EQ(assign(function, {{"nic", {{0x10000, MAX}}}}), "");
    EXPECT_EQ(machine.map(1, 0xf000, 0xffff, 0), INVAL);
    EXPECT_EQ(machine.map(1, 0xf000, 0x10fff, 0), INVAL);
    EXPECT_EQ(machine.map(1, 0x10000, 0x10fff, 0), OK);
    ASSERT_EQ(assign(function, {}), "");
    EXPECT_EQ(machine.map(1, 0xf000, 0xffff, 0), OK);
}

TEST(Hosts, ATT_9_NotIntoADomainThatMapsIt)
{
    Machine machine;
    Function &function = machine.add(0x30);
    machine.add(0x38);
    machine.attach(1, 0x38);
    machine.map(1, 0xf000, 0xffff, 0);
    ASSERT_EQ(assign(function, {{"nic", {{0x10000, MAX}}}}), "");
    EXPECT_EQ(machine.attach(1, 0x30), UNSUPP);
    machine.unmap(1, 0xf000, 0xffff);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
}

TEST(Hosts, W27_OneThatCannotFollowIsRefusedAndNothingChanges)
{
    Machine machine;
    Function &function = machine.add(0x30);
    machine.attach(1, 0x30);
    ASSERT_EQ(assign(function, {{"first", {{0x1000, MAX}}}}), "");
    machine.map(1, 0xf000, 0xffff, 0x7000);
    machine.told();
    EXPECT_EQ(assign(function, {{"first", {{0x1000, MAX}}}, {"second", {{0x10000, MAX}}}}),
              "second: its IOMMU on the host cannot map 0x0-0xffff, where the guest has mapped "
              "memory for it already");
    EXPECT_EQ(machine.probe(0x30), (std::vector<Property>{reserved(0, 0xfff)}));
    EXPECT_EQ(machine.read(function, 0xf000), 0x7000);
    EXPECT_EQ(machine.map(1, 0x2000, 0x2fff, 0), OK);
    EXPECT_EQ(machine.told(), Told{});
}

TEST(Hosts, W27_MappingsOfOthersDoNotHinder)
{
    Machine machine;
    Function &function = machine.add(0x30);
    machine.add(0x38);
    machine.attach(1, 0x38);
    machine.map(1, 0, 0xffff, 0);
    EXPECT_EQ(assign(function, {{"nic", {{0x10000, MAX}}}}), "");
    machine.attach(2, 0x30, BYPASS);
    EXPECT_EQ(assign(function, {{"nic", {{0x20000, MAX}}}}), "");
}

TEST(Hosts, PRB_D1_MoreThanCanBeToldIsRefused)
{
    Machine machine;
    Function &function = machine.add(0x30);
    std::vector<ViommuRange> ranges;
    for (uint64_t i = 0; i < kProbeSize / 24; i++) {
        ranges.push_back({0x10000 * i + 0x1000, 0x10000 * i + 0xffff});
    }
    // As many holes as there are ranges, and then one more behind the last.
    EXPECT_EQ(assign(function, {{"nic", ranges}}),
              "nic: the reserved regions do not fit in the PROBE properties area");
    EXPECT_EQ(machine.probe(0x30), (std::vector<Property>{}));
    ranges.back().last = MAX;
    EXPECT_EQ(assign(function, {{"nic", ranges}}), "");
    EXPECT_EQ(machine.probe(0x30).size(), kProbeSize / 24);
}

TEST(Hosts, W27_RSV_2_TheUsersRegionIsInForce)
{
    Machine machine(Config().reserve(0x8000000, 0x80fffff, VIOMMU_RESV_MSI));
    Function &function = machine.add(0x30);
    ASSERT_EQ(assign(function, {{"nic", {{0, 0x7ffffff}, {0x8200000, MAX}}}}), "");
    EXPECT_EQ(machine.probe(0x30),
              (std::vector<Property>{{kResvMem, 20, VIOMMU_RESV_MSI, 0x8000000, 0x80fffff},
                                     reserved(0x8100000, 0x81fffff)}));
}

uint64_t advertised(Machine &machine)
{
    uint64_t mask = 0;
    for (int i = 7; i >= 0; i--) {
        mask = mask << 8 | machine.config()[static_cast<size_t>(i)];
    }
    return mask;
}

TEST(Hosts, CFG_1_TheGranuleFollowsTheHostUntilTheGuestRuns)
{
    Machine machine(Config().granule(0x1000));
    viommu_engine_raise_granule(machine.engine(), 0);
    viommu_engine_raise_granule(machine.engine(), kHostPages);
    EXPECT_EQ(advertised(machine) & -advertised(machine), 0x1000u);
    viommu_engine_raise_granule(machine.engine(), 0x20010000);
    EXPECT_EQ(advertised(machine) & -advertised(machine), 0x10000u);
    viommu_engine_raise_granule(machine.engine(), kHostPages);
    EXPECT_EQ(advertised(machine) & -advertised(machine), 0x10000u);
    machine.add(0x30);
    machine.attach(1, 0x30);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0), RANGE);
    EXPECT_EQ(machine.map(1, 0x10000, 0x1ffff, 0), OK);
}

TEST(Hosts, CFG_2_SparseSizesAreThoseOfPageTables)
{
    Config config;
    config.sparse_page_sizes = true;
    config.granule(0x1000);
    Machine machine(config);
    EXPECT_EQ(advertised(machine), uint64_t{0x40201000});
    viommu_engine_raise_granule(machine.engine(), 0x10000);
    // 64 KiB, 512 MiB, 4 TiB: what Arm's tables of this granule have.
    EXPECT_EQ(advertised(machine), uint64_t{0x40020010000});
}

TEST(Hosts, W27_AfterThatALargerPageIsRefused)
{
    Machine machine(Config().granule(0x1000));
    Function &function = machine.add(0x30);
    EXPECT_EQ(assign(function, {{"nic", {}, ~uint64_t{0xffff}}}),
              "nic: its IOMMU on the host has no pages of less than 65536 bytes, but the granule "
              "of the virtio-iommu is 4096");
    EXPECT_EQ(assign(function, {{"nic", {}, 0x40200800}}), "");
    EXPECT_EQ(assign(function, {{"nic", {}, 0}}), "");
}

} // namespace

} // namespace viommu::test
