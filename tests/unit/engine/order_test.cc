// SPDX-License-Identifier: GPL-2.0-or-later
//
// What QEMU is told, in which order: isolation rests on it.
#include "machine.h"

#include <array>

namespace viommu::test
{

namespace
{

class Order : public ::testing::Test
{
protected:
    Order() : Order(Config().bypass(true)) {}
    explicit Order(const Config &config)
        : machine(config), nic(machine.add(0x30)), disk(machine.add(0x38))
    {
    }

    Machine machine;
    Function &nic;
    Function &disk;
};

class Blocked : public Order
{
protected:
    Blocked() : Order(Config()) {}
};

TEST_F(Order, W23_AttachSwitchesOnce)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.told(), (Told{"begin", "on 30", "commit"}));
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    EXPECT_EQ(machine.told(), (Told{"begin", "off 30", "commit"}));
}

TEST_F(Order, W23_NoSwitchWithoutAChange)
{
    EXPECT_EQ(machine.attach(1, 0x30, BYPASS), OK); // bypassed before, too
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    EXPECT_EQ(machine.told(), Told{});

    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.told().size(), 3u);
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    EXPECT_EQ(machine.attach(2, 0x30, BYPASS), INVAL);
    EXPECT_EQ(machine.map(2, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_FALSE(viommu_engine_write_bypass(machine.engine(), 1));
    EXPECT_EQ(machine.told(), Told{});
}

TEST_F(Blocked, W23_UnattachedWithoutBypassTranslatesAlready)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    viommu_engine_device_reset(machine.engine());
    EXPECT_EQ(machine.told(), Told{});
}

TEST_F(Order, W23_BypassWriteIsOneSwitchForAll)
{
    machine.add(0x40);
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    machine.told();
    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 0));
    EXPECT_EQ(machine.told(), (Told{"begin", "on 30", "on 40", "commit"}));
    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 1));
    EXPECT_EQ(machine.told(), (Told{"begin", "off 30", "off 40", "commit"}));
}

TEST_F(Order, W23_W5_ResetIsOneSwitchForAll)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(2, 0x38), OK);
    machine.told();
    viommu_engine_device_reset(machine.engine());
    EXPECT_EQ(machine.told(), (Told{"begin", "off 30", "off 38", "commit"}));
    viommu_engine_device_reset(machine.engine());
    EXPECT_EQ(machine.told(), Told{});
}

TEST_F(Blocked, OPS_1_MapIsVisibleBeforeItIsAnnounced)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    machine.listen(nic, true, false);
    int seen = 0;
    machine.on_map = [&](Function &function, auto...) {
        EXPECT_EQ(machine.look(function, 0x1000).phys, 0x5000u);
        seen++;
    };
    EXPECT_EQ(machine.map(1, 0x1000, 0x2fff, 0x5000, R), OK);
    EXPECT_EQ(machine.told(), (Told{"map 30 1000-1fff 5000 r", "map 30 2000-2fff 6000 r"}));
    EXPECT_EQ(seen, 2);
}

TEST_F(Blocked, MAP_6_MappingWithoutRightsIsNotAnnounced)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    machine.listen(nic, true, true);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, 0), OK);
    EXPECT_EQ(machine.told(), Told{});
}

TEST_F(Blocked, DET_4_UnmapIsOutOfReachBeforeItIsAnnounced)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.map(1, 0x2000, 0x4fff, 0x6000), OK);
    EXPECT_EQ(machine.map(1, 0x8000, 0x8fff, 0x6000), OK);
    machine.listen(nic, false, true);
    machine.listen(disk, true, true);
    int seen = 0;
    const auto look = [&](Function &function, auto...) {
        EXPECT_EQ(machine.look(function, 0x1000).rights, 0u);
        EXPECT_EQ(machine.look(function, 0x4fff).rights, 0u);
        EXPECT_EQ(machine.look(function, 0x8000).rights, RW);
        seen++;
    };
    machine.on_unmap = look;
    machine.on_drop = look;
    EXPECT_EQ(machine.unmap(1, 0, 0x5fff), OK);
    EXPECT_EQ(machine.told(),
              (Told{"unmap 38 1000-1fff 5000", "unmap 38 2000-3fff 6000", "unmap 38 4000-4fff 8000",
                    "drop 30 1000-1fff", "drop 30 2000-3fff", "drop 30 4000-4fff",
                    "drop 38 1000-1fff", "drop 38 2000-3fff", "drop 38 4000-4fff"}));
    EXPECT_EQ(seen, 9);
}

TEST_F(Blocked, UNM_4_RefusedUnmapAnnouncesNothing)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    machine.listen(nic, false, true);
    EXPECT_EQ(machine.map(1, 0x1000, 0x2fff, 0x5000), OK);
    EXPECT_EQ(machine.unmap(1, 0x0, 0x1fff), RANGE);
    EXPECT_EQ(machine.unmap(1, 0x3000, MAX), OK);
    EXPECT_EQ(machine.told(), Told{});
}

TEST_F(Blocked, UNM_4_RefusedUnmapTellsNothingOfTheOthers)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x0, 0xfff, 0x5000), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x2fff, 0x5000), OK);
    machine.listen(nic, true, true);
    EXPECT_EQ(machine.unmap(1, 0x0, 0x1fff), RANGE);
    EXPECT_EQ(machine.unmap(1, 0x2000, MAX), RANGE);
    EXPECT_EQ(machine.unmap(1, 0x3000, MAX), OK);
    EXPECT_EQ(machine.told(), Told{});
    EXPECT_EQ(machine.stats().mappings, 2u);
}

// A host's IOMMU of 39 bits would drop the whole of a block that goes on behind them.
TEST_F(Blocked, UNM_5_DET_4_BlocksLieInsideOneMapping)
{
    constexpr uint64_t kEnd = uint64_t{1} << 39;
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(2, 0x38), OK);
    machine.listen(nic, true, true);
    EXPECT_EQ(machine.map(1, kEnd - 0x2000, kEnd - 0x1001, 0x5000, R), OK);
    EXPECT_EQ(machine.map(1, kEnd - 0x1000, kEnd - 1, 0x8000), OK);
    EXPECT_EQ(machine.map(1, kEnd, kEnd + 0x1fff, 0x9000, W), OK);
    EXPECT_EQ(machine.map(1, kEnd + 0x2000, kEnd + 0x2fff, 0x1000, 0), OK); // without rights
    const auto told_by_name = [this](const std::string &name) {
        Told told = machine.told();
        std::erase_if(told, [&](const std::string &line) { return !line.starts_with(name + " "); });
        return told;
    };
    EXPECT_EQ(told_by_name("map"),
              (Told{"map 30 7fffffe000-7fffffefff 5000 r", "map 30 7ffffff000-7fffffffff 8000 rw",
                    "map 30 8000000000-8000001fff 9000 w"}));
    const Told each{"unmap 30 7fffffe000-7fffffefff 5000", "unmap 30 7ffffff000-7fffffffff 8000",
                    "unmap 30 8000000000-8000001fff 9000"};
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    EXPECT_EQ(told_by_name("unmap"), each);

    EXPECT_EQ(machine.map(2, kEnd - 0x2000, kEnd - 0x1001, 0x5000, R), OK);
    EXPECT_EQ(machine.map(2, kEnd - 0x1000, kEnd - 1, 0x8000), OK);
    EXPECT_EQ(machine.map(2, kEnd, kEnd + 0x1fff, 0x9000, W), OK);
    EXPECT_EQ(machine.unmap(2, 0, MAX), OK);
    EXPECT_EQ(told_by_name("unmap"), each);
}

TEST_F(Blocked, UNM_5_EachOfManyIsTold)
{
    constexpr uint64_t kCount = 300;
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    for (uint64_t page = 0; page < kCount; page++) {
        EXPECT_EQ(machine.map(1, page << 12, (page << 12) + 0xfff, 0x5000), OK);
    }
    machine.listen(nic, true, true);
    uint64_t next = 2 << 12;
    machine.on_unmap = [&](Function &, uint64_t iova, uint64_t mask, uint64_t) {
        EXPECT_EQ(iova, next);
        EXPECT_EQ(mask, 0xfffu);
        EXPECT_EQ(machine.look(nic, iova).rights, 0u);
        next += 0x1000;
    };
    EXPECT_EQ(machine.unmap(1, 2 << 12, ((kCount - 1) << 12) - 1), OK);
    EXPECT_EQ(next, (kCount - 1) << 12);
    EXPECT_EQ(machine.stats().mappings, 3u);
    EXPECT_EQ(machine.look(nic, 0x1000).rights, RW);
    EXPECT_EQ(machine.look(nic, (kCount - 1) << 12).rights, RW);
    EXPECT_EQ(machine.unmap(1, 0x2000, 0x2fff), OK); // nothing
    EXPECT_EQ(machine.stats().mappings, 3u);
}

TEST(Windows, DET_4_RSV_5_WhatWasCachedOfTheMsiWindowGoes)
{
    Machine machine(Config().reserve(0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI));
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    machine.listen(nic, true, true);
    EXPECT_EQ(machine.look(nic, 0xfee00000).rights, W);
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    EXPECT_EQ(machine.look(nic, 0xfee00000).rights, 0u);
    EXPECT_EQ(machine.told(), Told{"drop 30 fee00000-feefffff"});
}

TEST_F(Blocked, DET_4_WholeSpaceIsAnnouncedExactly)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    machine.listen(nic, true, true);
    std::array<uint64_t, 3> next{}; // of MAPs, UNMAPs, and what caches drop
    const auto follow = [](uint64_t &at, uint64_t iova, uint64_t mask) {
        EXPECT_EQ(iova, at);
        at = iova + mask + 1;
    };
    machine.on_map = [&](Function &, uint64_t iova, uint64_t mask, uint64_t phys, uint32_t) {
        EXPECT_EQ(phys, iova);
        follow(next[0], iova, mask);
    };
    machine.on_unmap = [&](Function &, uint64_t iova, uint64_t mask, uint64_t phys) {
        EXPECT_EQ(phys, iova);
        follow(next[1], iova, mask);
    };
    machine.on_drop = [&](Function &, uint64_t iova, uint64_t mask) {
        follow(next[2], iova, mask);
    };
    EXPECT_EQ(machine.map(1, 0, MAX, 0, RW), OK);
    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    EXPECT_EQ(next, (std::array<uint64_t, 3>{})); // came around
    const Told told = machine.told();
    ASSERT_EQ(told.size(), 3 * 54u);
    EXPECT_EQ(told[0], "map 30 0-3fffffffffffffff 0 rw");
    EXPECT_EQ(told[53], "map 30 fffffffffffff000-ffffffffffffffff fffffffffffff000 rw");
}

TEST_F(Blocked, W24_ManyAreAnnouncedTogether)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    for (uint64_t page = 1; page < 600; page += 2) {
        EXPECT_EQ(machine.map(1, page << 12, (page << 12) + 0xfff, 0x5000), OK);
    }
    machine.listen(nic, false, true);
    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    EXPECT_EQ(machine.told(),
              (Told{"drop 30 1000-1fff", "drop 30 2000-3fff", "drop 30 4000-7fff",
                    "drop 30 8000-ffff", "drop 30 10000-1ffff", "drop 30 20000-3ffff",
                    "drop 30 40000-7ffff", "drop 30 80000-fffff", "drop 30 100000-1fffff",
                    "drop 30 200000-23ffff", "drop 30 240000-24ffff", "drop 30 250000-257fff"}));
}

TEST_F(Order, DET_4_DetachDropsCachesWhileTheListenersAreThere)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    machine.listen(nic, true, true);
    machine.told();
    int seen = 0;
    const auto look = [&](Function &function, auto...) {
        EXPECT_TRUE(function.translating);
        EXPECT_EQ(machine.look(function, 0x1000).phys, 0x1000u); // bypass by now
        seen++;
    };
    machine.on_unmap = look;
    machine.on_drop = look;
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    EXPECT_EQ(machine.told(),
              (Told{"unmap 30 1000-1fff 5000", "drop 30 1000-1fff", "begin", "off 30", "commit"}));
    EXPECT_EQ(seen, 2);
}

TEST_F(Order, DET_4_ResetDropsCachesToo)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.map(1, 0x3000, 0x3fff, 0x5000), OK);
    machine.listen(nic, false, true);
    machine.listen(disk, false, true);
    machine.told();
    viommu_engine_system_reset(machine.engine());
    EXPECT_EQ(machine.told(),
              (Told{"drop 30 0-3fff", "drop 38 0-3fff", "begin", "off 30", "off 38", "commit"}));
}

TEST_F(Order, BYP_2_MoveToABypassDomain)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    machine.listen(nic, true, true);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    machine.told();
    EXPECT_EQ(machine.attach(2, 0x30, BYPASS), OK);
    EXPECT_EQ(machine.told(),
              (Told{"unmap 30 1000-1fff 5000", "drop 30 1000-1fff", "begin", "off 30", "commit"}));
}

TEST_F(Order, DET_4_EnteringTranslationDropsWhatBypassLeft)
{
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, R), OK);
    EXPECT_EQ(machine.map(1, 0x3000, 0x3fff, 0x6000, RW), OK);
    machine.told();
    // Listeners register as the switch is committed, and replay.
    machine.on_commit = [&] { machine.listen(nic, true, true); };
    int seen = 0;
    machine.on_drop = [&](Function &function, auto...) {
        EXPECT_EQ(machine.look(function, 0x2000).rights, 0u); // no identity any more
        seen++;
    };
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.told(), (Told{"begin", "on 30", "commit", "drop 30 0-3fffffffffffffff"}));
    EXPECT_EQ(seen, 1);
}

TEST_F(Order, DET_4_ListenersThatGoWithTheCommitHearNothing)
{
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    machine.listen(nic, false, true);
    machine.told();
    machine.on_commit = [&] { machine.listen(nic, false, false); };
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.told(), (Told{"begin", "on 30", "commit"}));
}

TEST_F(Order, BYP_1_BypassWriteDropsWhatBypassLeft)
{
    machine.listen(nic, false, true);
    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 0));
    EXPECT_EQ(machine.told(),
              (Told{"begin", "on 30", "on 38", "commit", "drop 30 0-3fffffffffffffff"}));
}

TEST_F(Blocked, ATT_6_ATT_7_MoveDropsTheOldAndReplaysTheNew)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(2, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.map(2, 0x2000, 0x2fff, 0x6000), OK);
    machine.listen(nic, true, true);
    int seen = 0;
    const auto look = [&](Function &function, auto...) {
        EXPECT_EQ(machine.look(function, 0x1000).rights, 0u);
        EXPECT_EQ(machine.look(function, 0x2000).phys, 0x6000u);
        seen++;
    };
    machine.on_unmap = look;
    machine.on_drop = look;
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    EXPECT_EQ(machine.told(),
              (Told{"unmap 30 1000-1fff 5000", "drop 30 1000-1fff", "map 30 2000-2fff 6000 rw"}));
    EXPECT_EQ(seen, 2);
}

TEST_F(Blocked, ATT_4_JoiningADomainReplaysIt)
{
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.map(1, MAX - 0xfff, MAX, 0x6000), OK);
    machine.listen(nic, true, false);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.told(), (Told{"map 30 1000-1fff 5000 rw",
                                    "map 30 fffffffffffff000-ffffffffffffffff 6000 rw"}));
}

TEST_F(Blocked, W18_RetireDropsCaches)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    machine.listen(nic, true, true);
    machine.retire(nic);
    EXPECT_EQ(machine.told(), (Told{"unmap 30 1000-1fff 5000", "drop 30 1000-1fff"}));
    viommu_engine_device_reset(machine.engine());
    EXPECT_EQ(machine.told(), Told{});
}

TEST_F(Order, W20_StaleViewsGetAPlainAnswer)
{
    // QEMU's old view may still call translate for a bypassing endpoint.
    EXPECT_EQ(machine.read(nic, 0x1000), 0x1000u);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    EXPECT_EQ(machine.read(nic, 0x1000), 0x1000u);
    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 0));
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
    EXPECT_EQ(machine.attach(1, 0x30, BYPASS), OK);
    EXPECT_EQ(machine.read(nic, 0x1000), 0x1000u);
}

} // namespace

} // namespace viommu::test
