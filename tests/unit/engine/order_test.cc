// SPDX-License-Identifier: GPL-2.0-or-later
//
// What QEMU is told, in which order: isolation rests on it.
#include "machine.h"

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
    EXPECT_EQ(machine.told(), (Told{"map 30 1000-2fff 5000 r"}));
    EXPECT_EQ(seen, 1);
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
    machine.on_unmap = [&](Function &function, auto...) {
        EXPECT_EQ(machine.look(function, 0x1000).rights, 0u);
        EXPECT_EQ(machine.look(function, 0x4fff).rights, 0u);
        EXPECT_EQ(machine.look(function, 0x8000).rights, RW);
        seen++;
    };
    EXPECT_EQ(machine.unmap(1, 0, 0x5fff), OK);
    EXPECT_EQ(machine.told(), (Told{"unmap 30 1000-4fff", "unmap 38 1000-4fff"}));
    EXPECT_EQ(seen, 2);
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

TEST_F(Blocked, WholeSpaceIsAnnouncedExactly)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    machine.listen(nic, true, true);
    EXPECT_EQ(machine.map(1, 0, MAX, 0, RW), OK);
    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    EXPECT_EQ(machine.told(), (Told{"map 30 0-ffffffffffffffff 0 rw", "unmap 30 all"}));
}

TEST_F(Blocked, W24_ManyAreAnnouncedTogether)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    for (uint64_t page = 1; page < 600; page += 2) {
        EXPECT_EQ(machine.map(1, page << 12, (page << 12) + 0xfff, 0x5000), OK);
    }
    machine.listen(nic, false, true);
    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    EXPECT_EQ(machine.told(), Told{"unmap 30 1000-257fff"});
}

TEST_F(Order, DET_4_DetachDropsCachesWhileTheListenersAreThere)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    machine.listen(nic, true, true);
    machine.told();
    int seen = 0;
    machine.on_unmap = [&](Function &function, auto...) {
        EXPECT_TRUE(function.translating);
        EXPECT_EQ(machine.look(function, 0x1000).phys, 0x1000u); // bypass by now
        seen++;
    };
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    EXPECT_EQ(machine.told(), (Told{"unmap 30 all", "begin", "off 30", "commit"}));
    EXPECT_EQ(seen, 1);
}

TEST_F(Order, DET_4_ResetDropsCachesToo)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    machine.listen(nic, false, true);
    machine.listen(disk, false, true);
    machine.told();
    viommu_engine_system_reset(machine.engine());
    EXPECT_EQ(machine.told(),
              (Told{"unmap 30 all", "unmap 38 all", "begin", "off 30", "off 38", "commit"}));
}

TEST_F(Order, BYP_2_MoveToABypassDomain)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    machine.listen(nic, true, true);
    machine.told();
    EXPECT_EQ(machine.attach(2, 0x30, BYPASS), OK);
    EXPECT_EQ(machine.told(), (Told{"unmap 30 all", "begin", "off 30", "commit"}));
}

TEST_F(Order, DET_4_EnteringTranslationDropsWhatBypassLeft)
{
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, R), OK);
    EXPECT_EQ(machine.map(1, 0x3000, 0x3fff, 0x6000, RW), OK);
    machine.told();
    // Listeners register as the switch is committed.
    machine.on_commit = [&] { machine.listen(nic, true, true); };
    int seen = 0;
    machine.on_unmap = [&](Function &function, auto...) {
        EXPECT_EQ(machine.look(function, 0x2000).rights, 0u); // no identity any more
        seen++;
    };
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.told(), (Told{"begin", "on 30", "commit", "unmap 30 all",
                                    "map 30 1000-1fff 5000 r", "map 30 3000-3fff 6000 rw"}));
    EXPECT_EQ(seen, 1);
}

TEST_F(Order, DET_4_ListenersThatGoWithTheCommitHearNothing)
{
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    machine.listen(nic, true, true);
    machine.told();
    machine.on_commit = [&] { machine.listen(nic, false, false); };
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.told(), (Told{"begin", "on 30", "commit"}));
}

TEST_F(Order, BYP_1_BypassWriteDropsWhatBypassLeft)
{
    machine.listen(nic, false, true);
    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 0));
    EXPECT_EQ(machine.told(), (Told{"begin", "on 30", "on 38", "commit", "unmap 30 all"}));
}

TEST_F(Blocked, ATT_6_ATT_7_MoveDropsTheOldAndReplaysTheNew)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(2, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.map(2, 0x2000, 0x2fff, 0x6000), OK);
    machine.listen(nic, true, true);
    int seen = 0;
    machine.on_unmap = [&](Function &function, auto...) {
        EXPECT_EQ(machine.look(function, 0x1000).rights, 0u);
        EXPECT_EQ(machine.look(function, 0x2000).phys, 0x6000u);
        seen++;
    };
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    EXPECT_EQ(machine.told(), (Told{"unmap 30 all", "map 30 2000-2fff 6000 rw"}));
    EXPECT_EQ(seen, 1);
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
    machine.listen(nic, true, true);
    machine.retire(nic);
    EXPECT_EQ(machine.told(), (Told{"unmap 30 all"}));
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
