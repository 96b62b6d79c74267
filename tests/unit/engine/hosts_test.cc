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
    devices.reserve(hosts.size());
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
    const std::vector<ViommuRange> ranges{
        {0x5000, 0x5fff}, {0x2000, 0x4fff}, {0x3000, 0x3fff}, {0x8000, 0x7fff}, {0x9000, MAX}};
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

// The width is the user's to choose, so the sentence says which would do.
TEST(Hosts, W27_OneThatIsTooNarrowNamesTheWidth)
{
    Machine machine;
    Function &function = machine.add(0x30);
    machine.attach(1, 0x30);
    const auto refused = [&](uint64_t at, const std::vector<ViommuRange> &usable) {
        EXPECT_EQ(machine.map(1, at, at + 0xfff, 0), OK);
        std::string sentence = assign(function, {{"nic", usable}});
        EXPECT_EQ(machine.unmap(1, at, at + 0xfff), OK);
        return sentence;
    };
    const std::string already = ", where the guest has mapped memory for it already";
    const std::string cannot = "nic: its IOMMU on the host cannot map ";
    EXPECT_EQ(refused(0x9000000000, {{0, 0x7fffffffff}}),
              cannot + "0x8000000000-0xffffffffffffffff" + already +
                  "; a virtio-iommu with aw-bits=39 keeps the guest below");
    EXPECT_EQ(refused(0x9000000000, {{0, 0x7ffffffffe}}),
              cannot + "0x7fffffffff-0xffffffffffffffff" + already +
                  "; a virtio-iommu with aw-bits=38 keeps the guest below");
    EXPECT_EQ(refused(0x100000000, {{0, 0xffffffff}}),
              cannot + "0x100000000-0xffffffffffffffff" + already +
                  "; a virtio-iommu with aw-bits=32 keeps the guest below");
    // No width would do.
    EXPECT_EQ(refused(0x100000000, {{0, 0xfffffffe}}),
              cannot + "0xffffffff-0xffffffffffffffff" + already);
    EXPECT_EQ(refused(0x100000000, {{0, 0xffffffff}, {0x200000000, MAX}}),
              cannot + "0x100000000-0x1ffffffff" + already);
    EXPECT_EQ(refused(0x1000, {{0x2000, MAX}}), cannot + "0x0-0x1fff" + already);
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

// Two functions of one domain, both with listeners that keep a copy.
class Full : public ::testing::Test
{
protected:
    Full() : nic(machine.add(0x30)), disk(machine.add(0x38))
    {
        machine.listen(nic, true, true);
        machine.listen(disk, true, true);
        EXPECT_EQ(machine.attach(1, 0x30), OK);
        EXPECT_EQ(machine.attach(1, 0x38), OK);
        EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x8000), OK);
        machine.told();
    }

    // From now on; not what it has already.
    void fill(const Function &function)
    {
        machine.follows = [&function](const Function &which, uint64_t) {
            return &which != &function;
        };
    }

    Machine machine{Config().bypass(true)};
    Function &nic;
    Function &disk;
};

TEST_F(Full, W25_MapThatAListenerCannotFollowIsNomemAndUndone)
{
    const ViommuStats before = machine.stats();
    fill(disk);
    EXPECT_EQ(machine.map(1, 0x3000, 0x4fff, 0x9000, R), NOMEM);
    // The one that could gives it back; so does the other, which may have a part.
    EXPECT_EQ(machine.told(),
              (Told{"map 30 3000-3fff 9000 r", "map 30 4000-4fff a000 r", "map 38 3000-3fff 9000 r",
                    "map 38 4000-4fff a000 r", "unmap 30 3000-3fff 9000", "unmap 30 4000-4fff a000",
                    "unmap 38 3000-3fff 9000", "unmap 38 4000-4fff a000", "drop 30 3000-3fff",
                    "drop 30 4000-4fff", "drop 38 3000-3fff", "drop 38 4000-4fff"}));
    EXPECT_EQ(machine.read(nic, 0x3000), FAULT);
    EXPECT_EQ(machine.read(disk, 0x3000), FAULT);
    EXPECT_EQ(machine.read(disk, 0x1000), 0x8000);
    EXPECT_EQ(machine.stats().mappings, before.mappings);
    EXPECT_EQ(machine.stats().memory, before.memory);

    machine.follows = nullptr;
    EXPECT_EQ(machine.map(1, 0x3000, 0x4fff, 0x9000, R), OK);
    EXPECT_EQ(machine.read(disk, 0x3000), 0x9000);
}

TEST_F(Full, W25_OthersHearNothingAfterTheFirstThatCannot)
{
    fill(nic);
    EXPECT_EQ(machine.map(1, 0x3000, 0x3fff, 0x9000), NOMEM);
    EXPECT_EQ(machine.told(), (Told{"map 30 3000-3fff 9000 rw", "unmap 30 3000-3fff 9000",
                                    "drop 30 3000-3fff", "drop 38 3000-3fff"}));
}

TEST_F(Full, W25_ATT_10_AttachThatAListenerCannotFollowLeavesItOutside)
{
    EXPECT_EQ(machine.detach(1, 0x38), OK);
    const ViommuStats before = machine.stats();
    machine.told();
    fill(disk);
    EXPECT_EQ(machine.attach(1, 0x38), NOMEM);
    EXPECT_EQ(machine.told(), (Told{"map 38 1000-1fff 8000 rw", "begin", "on 38", "commit",
                                    "drop 38 0-3fffffffffffffff", "unmap 38 1000-1fff 8000",
                                    "drop 38 1000-1fff", "begin", "off 38", "commit"}));
    EXPECT_EQ(machine.read(disk, 0x1000), 0x1000); // bypass
    EXPECT_EQ(machine.read(nic, 0x1000), 0x8000);
    EXPECT_EQ(machine.detach(1, 0x38), INVAL);
    EXPECT_EQ(machine.stats().mappings, before.mappings);
    EXPECT_EQ(machine.stats().memory, before.memory);
    machine.follows = nullptr;
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    EXPECT_EQ(machine.read(disk, 0x1000), 0x8000);
}

TEST_F(Full, W25_ATT_10_AttachThatFailsLeavesItInADomainOfItsOwn)
{
    EXPECT_EQ(machine.attach(2, 0x38), OK);
    EXPECT_EQ(machine.map(2, 0x5000, 0x5fff, 0xb000), OK);
    const ViommuStats before = machine.stats();
    machine.told();
    // It has room for what it had.
    machine.follows = [](const Function &, uint64_t iova) { return iova == 0x5000; };
    EXPECT_EQ(machine.attach(1, 0x38), NOMEM);
    EXPECT_EQ(machine.told(),
              (Told{"unmap 38 5000-5fff b000", "drop 38 5000-5fff", "map 38 1000-1fff 8000 rw",
                    "unmap 38 1000-1fff 8000", "drop 38 1000-1fff", "map 38 5000-5fff b000 rw"}));
    EXPECT_EQ(machine.read(disk, 0x5000), 0xb000);
    EXPECT_EQ(machine.read(disk, 0x1000), FAULT);
    EXPECT_EQ(machine.stats().mappings, before.mappings);
    EXPECT_EQ(machine.stats().domains, before.domains);
    EXPECT_EQ(machine.stats().memory, before.memory);
    EXPECT_EQ(machine.map(2, 0x5000, 0x5fff, 0), INVAL);
    EXPECT_EQ(machine.detach(2, 0x38), OK);
    EXPECT_EQ(machine.stats().domains, 1u);
}

TEST_F(Full, W25_AListenerThatComesWithTheSwitchCounts)
{
    EXPECT_EQ(machine.detach(1, 0x38), OK);
    machine.listen(disk, false, false);
    const auto come = [&](bool fits) {
        machine.on_commit = [this, fits] {
            machine.listen(disk, true, true);
            viommu_endpoint_replay(
                disk.endpoint,
                [](void *answer, uint64_t, uint64_t, uint64_t, uint32_t) {
                    return *static_cast<const bool *>(answer);
                },
                const_cast<bool *>(&fits));
            machine.on_commit = [this] { machine.listen(disk, false, false); };
        };
    };
    come(false);
    EXPECT_EQ(machine.attach(1, 0x38), NOMEM);
    EXPECT_EQ(machine.read(disk, 0x1000), 0x1000);
    come(true);
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    EXPECT_EQ(machine.read(disk, 0x1000), 0x8000);
}

TEST_F(Full, W25_OneThatLacksSomethingSinceThenDoesNotHinder)
{
    fill(disk);
    viommu_endpoint_replay(
        disk.endpoint, [](void *, uint64_t, uint64_t, uint64_t, uint32_t) { return false; },
        nullptr);
    machine.follows = nullptr;
    EXPECT_EQ(machine.attach(2, 0x38), OK);
    EXPECT_EQ(machine.attach(1, 0x38), OK);
}

} // namespace

} // namespace viommu::test
