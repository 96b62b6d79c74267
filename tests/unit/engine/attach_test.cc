// SPDX-License-Identifier: GPL-2.0-or-later
//
// ATTACH and DETACH.
#include "machine.h"

namespace viommu::test
{

namespace
{

TEST(Attach, OPS_1_SuccessIsOk)
{
    Machine machine;
    machine.add(0x30);
    const Reply reply = machine.send(Request::attach(1, 0x30));
    EXPECT_EQ(reply.used, 4u);
    EXPECT_EQ(reply.out, (std::vector<uint8_t>{OK, 0, 0, 0}));
    EXPECT_EQ(machine.stats().domains, 1u);
}

TEST(Attach, ATT_1_ReservedNotZeroIsInval)
{
    for (size_t offset = 16; offset < 20; offset++) {
        Machine machine;
        machine.add(0x30);
        EXPECT_EQ(machine.send(Request::attach(1, 0x30).byte(offset, 0x80)).status(), INVAL);
        EXPECT_EQ(machine.stats().domains, 0u);
    }
}

TEST(Attach, ATT_2_UnknownFlagIsInval)
{
    for (int bit = 1; bit < 32; bit++) {
        Machine machine;
        machine.add(0x30);
        EXPECT_EQ(machine.attach(1, 0x30, 1u << bit), INVAL) << bit;
        EXPECT_EQ(machine.stats().domains, 0u);
    }
}

TEST(Attach, ATT_3_NoSuchEndpointIsNoent)
{
    Machine machine;
    machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x31), NOENT);
    EXPECT_EQ(machine.stats().domains, 0u);
}

TEST(Attach, W9_ATT_3_TheIommuIsNoEndpoint)
{
    Machine machine;
    machine.add(kIommuId);
    EXPECT_EQ(machine.attach(1, kIommuId), NOENT);
}

TEST(Attach, ATT_3_IdOutsideTheTopologyIsNotResolved)
{
    Machine machine;
    machine.add(0x30);
    viommu_engine_set_topology(machine.engine(), nullptr, 0);
    EXPECT_EQ(machine.attach(1, 0x30), NOENT);
}

TEST(Attach, ATT_3_EndpointOfAnotherIommuIsNoent)
{
    Machine other;
    Function &foreign = other.add(0x38);
    Machine machine;
    Function &nic = machine.add(0x30);
    machine.add_behind(foreign, 0x38);
    EXPECT_EQ(machine.attach(1, 0x38), NOENT);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
    EXPECT_EQ(other.stats().domains, 0u);
}

TEST(Attach, W10_ATT_3_IdIsNotCutTo16Bits)
{
    Machine machine;
    machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x10030), NOENT);
    EXPECT_EQ(machine.attach(1, 0xabcd0030), NOENT);
    EXPECT_EQ(machine.stats().domains, 0u);
}

TEST(Attach, W10_AllBitsOfTheIdCount)
{
    Machine machine;
    Function &pci = machine.add(kMmioId & 0xffff);
    Function &mmio = machine.add(kMmioId);
    EXPECT_EQ(machine.attach(1, kMmioId), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.read(mmio, 0x1000), 0x5000u);
    EXPECT_EQ(machine.read(pci, 0x1000), FAULT);
    EXPECT_EQ(machine.detach(1, kMmioId & 0xffff), INVAL);
    EXPECT_EQ(machine.read(mmio, 0x2000), FAULT);
    machine.pop();
    EXPECT_EQ(machine.pop()->endpoint, kMmioId);
}

TEST(Attach, ATT_4_EndpointsShareADomain)
{
    Machine machine;
    Function &a = machine.add(0x30);
    Function &b = machine.add(0x38);
    EXPECT_EQ(machine.attach(7, 0x30), OK);
    EXPECT_EQ(machine.attach(7, 0x38), OK);
    EXPECT_EQ(machine.map(7, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.read(a, 0x1000), 0x5000u);
    EXPECT_EQ(machine.read(b, 0x1000), 0x5000u);
    EXPECT_EQ(machine.stats().domains, 1u);
}

TEST(Attach, ATT_5_FlagThatDisagreesIsInval)
{
    Machine machine;
    machine.add(0x30);
    Function &b = machine.add(0x38);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(1, 0x38, BYPASS), INVAL);
    EXPECT_EQ(machine.read(b, 0x1000), FAULT);

    EXPECT_EQ(machine.attach(2, 0x38, BYPASS), OK);
    EXPECT_EQ(machine.attach(2, 0x30), INVAL);
}

TEST(Attach, ATT_5_EvenForTheOnlyMember)
{
    Machine machine;
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.attach(1, 0x30, BYPASS), INVAL);
    EXPECT_EQ(machine.read(nic, 0x1000), 0x5000u);
    EXPECT_EQ(machine.read(nic, 0x2000), FAULT);
}

TEST(Attach, ATT_6_MovesFromAnotherDomain)
{
    Machine machine;
    Function &nic = machine.add(0x30);
    machine.add(0x38);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(2, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.map(2, 0x2000, 0x2fff, 0x6000), OK);
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
    EXPECT_EQ(machine.read(nic, 0x2000), 0x6000u);
    // It was alone there.
    EXPECT_EQ(machine.map(1, 0x3000, 0x3fff, 0x7000), NOENT);
    EXPECT_EQ(machine.stats().domains, 1u);
    EXPECT_EQ(machine.stats().mappings, 1u);
}

TEST(Attach, ATT_7_LooksLikeDetachThenAttach)
{
    // The quota leaves no room for two domains, as after a DETACH.
    Machine machine(Config().quota(10, 1));
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
    EXPECT_EQ(machine.map(1, 0x2000, 0x2fff, 0x5000), NOENT);
    EXPECT_EQ(machine.map(2, 0x2000, 0x2fff, 0x5000), OK);
    EXPECT_EQ(machine.detach(1, 0x30), INVAL);
    EXPECT_EQ(machine.detach(2, 0x30), OK);
}

TEST(Attach, W6_ATT_7_RefusedAttachChangesNothing)
{
    const std::vector<ViommuRegion> low{{0x1000, 0x1fff, VIOMMU_RESV_RESERVED}};
    Machine machine(Config().bypass(true).domains(1, 9).quota(10, 3));
    Function &nic = machine.add(0x30, low);
    machine.add(0x38);
    machine.add(0x40);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x4000, 0x4fff, 0x5000), OK);
    EXPECT_EQ(machine.attach(2, 0x38, BYPASS), OK);
    EXPECT_EQ(machine.attach(3, 0x40), OK);
    EXPECT_EQ(machine.map(3, 0x1000, 0x1fff, 0x5000), OK);
    machine.add(0x48);
    machine.told();

    const auto unchanged = [&] {
        EXPECT_EQ(machine.told(), Told{});
        EXPECT_TRUE(viommu_endpoint_translating(nic.endpoint));
        EXPECT_EQ(machine.read(nic, 0x4000), 0x5000u);
        EXPECT_EQ(machine.read(nic, 0x6000), FAULT);
        EXPECT_EQ(machine.stats().domains, 3u);
        EXPECT_EQ(machine.stats().mappings, 2u);
    };
    EXPECT_EQ(machine.send(Request::attach(4, 0x30).byte(17, 1)).status(), INVAL);
    unchanged();
    EXPECT_EQ(machine.attach(4, 0x30, 2), INVAL);
    unchanged();
    EXPECT_EQ(machine.attach(10, 0x30), RANGE);
    unchanged();
    EXPECT_EQ(machine.attach(2, 0x30), INVAL); // a bypass domain
    unchanged();
    EXPECT_EQ(machine.attach(1, 0x30, BYPASS), INVAL);
    unchanged();
    EXPECT_EQ(machine.attach(3, 0x30), UNSUPP); // maps its reserved region
    unchanged();
    EXPECT_EQ(machine.send(Request::attach(4, 0x30).cut(19)).status(), INVAL);
    unchanged();
    EXPECT_EQ(machine.send(Request::attach(4, 0x30).room(3)).status(), UNWRITTEN);
    unchanged();
}

TEST(Attach, ATT_9_IncompatibleReservedRegionIsUnsupp)
{
    Machine machine;
    machine.add(0x30);
    Function &picky = machine.add(0x38, {{0x8000, 0x8fff, VIOMMU_RESV_RESERVED}});
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x0, 0x8fff, 0x100000), OK);
    EXPECT_EQ(machine.attach(1, 0x38), UNSUPP);
    EXPECT_EQ(machine.read(picky, 0x0), FAULT);

    // Compatible again, it attaches.
    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    EXPECT_EQ(machine.map(1, 0x0, 0x7fff, 0x100000), OK);
    EXPECT_EQ(machine.map(1, 0x9000, 0x9fff, 0x100000), OK);
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    EXPECT_EQ(machine.read(picky, 0x7fff), 0x107fffu);
}

TEST(Attach, ATT_10_OkMeansAttached)
{
    Machine machine(Config().bypass(true));
    Function &nic = machine.add(0x30);
    EXPECT_FALSE(nic.translating);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_TRUE(nic.translating);
    ViommuEndpointStats stats;
    viommu_endpoint_stats(nic.endpoint, &stats);
    EXPECT_TRUE(stats.attached);
    EXPECT_FALSE(stats.bypass);
    EXPECT_EQ(stats.domain, 1u);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
}

TEST(Attach, ATT_D1_SameDomainAgainKeepsMappings)
{
    Machine machine;
    Function &nic = machine.add(0x30);
    machine.listen(nic, true, true);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    machine.told();
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.told(), Told{});
    EXPECT_EQ(machine.read(nic, 0x1000), 0x5000u);
    // Once is still enough to leave.
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    EXPECT_EQ(machine.stats().domains, 0u);
}

TEST(Attach, OPS_D3_DomainOutsideItsRangeIsRange)
{
    Machine machine(Config().domains(5, 7));
    machine.add(0x30);
    EXPECT_EQ(machine.attach(4, 0x30), RANGE);
    EXPECT_EQ(machine.attach(8, 0x30), RANGE);
    EXPECT_EQ(machine.attach(5, 0x30), OK);
    EXPECT_EQ(machine.attach(7, 0x30), OK);
}

TEST(Attach, BYP_3_BypassFlagNeedsTheFeature)
{
    Machine machine;
    machine.drive(kAllFeatures & ~VIOMMU_F_BYPASS_CONFIG);
    machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30, BYPASS), INVAL);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
}

TEST(Attach, BYP_3_WithTheArrayTheFlagAlwaysExists)
{
    Machine machine(Config().array());
    machine.drive(VIOMMU_F_MAP_UNMAP);
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30, BYPASS), OK);
    EXPECT_EQ(machine.read(nic, 0x123), 0x123u);
}

TEST(Attach, W11_DomainQuotaIsNomem)
{
    Machine machine(Config().quota(10, 2));
    machine.add(0x30);
    machine.add(0x38);
    machine.add(0x40);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(2, 0x38), OK);
    EXPECT_EQ(machine.attach(3, 0x40), NOMEM);
    EXPECT_EQ(machine.attach(1, 0x40), OK);
    EXPECT_EQ(machine.attach(3, 0x40), NOMEM); // domain 1 would live on
    EXPECT_EQ(machine.attach(3, 0x38), OK);    // domain 2 does not
}

TEST(Attach, W16_W2_StaysWithItsFunctionAfterRenumbering)
{
    Machine machine;
    Function &first = machine.add(0x130);
    EXPECT_EQ(machine.attach(1, 0x130), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    machine.renumber(first, 0x230);
    Function &second = machine.add(0x130);

    EXPECT_EQ(machine.read(first, 0x1000), 0x5000u);
    EXPECT_EQ(machine.read(second, 0x1000), FAULT);
    EXPECT_EQ(machine.detach(1, 0x130), INVAL);
    EXPECT_EQ(machine.attach(2, 0x130), OK);
    EXPECT_EQ(machine.read(first, 0x1000), 0x5000u);

    machine.renumber(first, std::nullopt);
    EXPECT_EQ(machine.read(first, 0x1000), 0x5000u);
    EXPECT_EQ(machine.read(first, 0x2000), FAULT);
}

TEST(Detach, DET_1_ReservedIsIgnored)
{
    Machine machine;
    machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.send(Request::detach(1, 0x30).byte(12, 0xff).byte(19, 0xff)).status(), OK);
    EXPECT_EQ(machine.stats().domains, 0u);
}

TEST(Detach, DET_2_NoSuchEndpointIsNoent)
{
    Machine machine;
    machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.detach(1, 0x31), NOENT);
    EXPECT_EQ(machine.detach(1, 0x10030), NOENT);
    EXPECT_EQ(machine.stats().domains, 1u);
}

TEST(Detach, DET_3_NotInThatDomainIsInval)
{
    Machine machine;
    Function &nic = machine.add(0x30);
    machine.add(0x38);
    EXPECT_EQ(machine.detach(1, 0x30), INVAL); // neither exists nor attached
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(2, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.detach(2, 0x30), INVAL);
    EXPECT_EQ(machine.detach(3, 0x30), INVAL);
    EXPECT_EQ(machine.read(nic, 0x1000), 0x5000u);
}

TEST(Detach, DET_4_MappingsAreOutOfReach)
{
    for (const bool bypass : {false, true}) {
        Machine machine(Config().bypass(bypass));
        Function &nic = machine.add(0x30);
        Function &other = machine.add(0x38);
        EXPECT_EQ(machine.attach(1, 0x30), OK);
        EXPECT_EQ(machine.attach(1, 0x38), OK);
        EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
        EXPECT_EQ(machine.detach(1, 0x30), OK);
        // The unattached rule applies again.
        EXPECT_EQ(machine.read(nic, 0x1000), bypass ? std::optional<uint64_t>(0x1000) : FAULT);
        EXPECT_EQ(nic.translating, !bypass);
        EXPECT_EQ(machine.read(other, 0x1000), 0x5000u);
    }
}

TEST(Detach, DET_D1_EmptyDomainCeasesAndItsIdIsFree)
{
    Machine machine;
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    EXPECT_EQ(machine.stats().domains, 0u);
    EXPECT_EQ(machine.stats().mappings, 0u);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), NOENT);
    // Reused with the other type.
    EXPECT_EQ(machine.attach(1, 0x30, BYPASS), OK);
    EXPECT_EQ(machine.read(nic, 0x1000), 0x1000u);
}

/* Several functions behind one requester ID */

TEST(Members, W17_EveryIdOfTheRequesterAttaches)
{
    Machine machine;
    Function &bridge = machine.add(0x200);
    machine.add_behind(bridge, 0x208);
    machine.add_behind(bridge, 0x210);
    EXPECT_EQ(machine.attach(1, 0x208), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.attach(1, 0x210), OK);
    EXPECT_EQ(machine.read(bridge, 0x1000), 0x5000u);
    EXPECT_EQ(machine.stats().domains, 1u);
}

TEST(Members, W17_DetachOfOneKeepsTheOthersAttached)
{
    Machine machine;
    Function &bridge = machine.add(0x200);
    machine.add_behind(bridge, 0x208);
    machine.add_behind(bridge, 0x210);
    EXPECT_EQ(machine.attach(1, 0x208), OK);
    EXPECT_EQ(machine.attach(1, 0x210), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.detach(1, 0x200), INVAL); // never attached under this one
    EXPECT_EQ(machine.detach(1, 0x208), OK);
    EXPECT_EQ(machine.detach(1, 0x208), INVAL);
    EXPECT_EQ(machine.read(bridge, 0x1000), 0x5000u);
    EXPECT_EQ(machine.detach(1, 0x210), OK);
    EXPECT_EQ(machine.read(bridge, 0x1000), FAULT);
    EXPECT_EQ(machine.stats().domains, 0u);
}

TEST(Members, W17_AttachOfOneMovesAll)
{
    Machine machine;
    Function &bridge = machine.add(0x200);
    machine.add_behind(bridge, 0x208);
    machine.add_behind(bridge, 0x210);
    EXPECT_EQ(machine.attach(1, 0x208), OK);
    EXPECT_EQ(machine.attach(2, 0x210), OK);
    EXPECT_EQ(machine.map(2, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.detach(1, 0x208), INVAL);
    EXPECT_EQ(machine.detach(2, 0x210), OK);
    EXPECT_EQ(machine.read(bridge, 0x1000), 0x5000u); // the first one moved along
    EXPECT_EQ(machine.detach(2, 0x208), OK);
    EXPECT_EQ(machine.read(bridge, 0x1000), FAULT);
}

void forget(Machine &machine, const std::vector<ViommuIdentity> &gone)
{
    viommu_engine_forget(machine.engine(), gone.data(), gone.size());
}

TEST(Members, W18_ForgottenMembersDetachWhenNoneIsLeft)
{
    Machine machine(Config().bypass(true));
    Function &bridge = machine.add(0x200);
    machine.add_behind(bridge, 0x208);
    machine.add_behind(bridge, 0x210);
    EXPECT_EQ(machine.attach(1, 0x208), OK);
    EXPECT_EQ(machine.attach(1, 0x210), OK);
    forget(machine, {{bridge.endpoint, 0x200}}); // was not attached
    forget(machine, {{bridge.endpoint, 0x208}});
    EXPECT_TRUE(bridge.translating);
    forget(machine, {{bridge.endpoint, 0x208}});
    EXPECT_TRUE(bridge.translating);
    forget(machine, {{bridge.endpoint, 0x210}});
    EXPECT_FALSE(bridge.translating);
    EXPECT_EQ(machine.stats().domains, 0u);
    forget(machine, {{bridge.endpoint, 0x210}});
}

// A guest disables all VFs at once.
TEST(Members, W18_W23_ThoseThatGoTogetherSwitchOnce)
{
    Machine machine(Config().bypass(true));
    Function &bridge = machine.add(0x200);
    machine.add_behind(bridge, 0x208);
    Function &nic = machine.add(0x30);
    Function &disk = machine.add(0x38);
    Function &stays = machine.add(0x40);
    for (const uint32_t id : {0x200u, 0x208u, 0x30u, 0x38u, 0x40u}) {
        ASSERT_EQ(machine.attach(id == 0x38 ? 2 : 1, id), OK);
    }
    ASSERT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    ASSERT_EQ(machine.map(2, 0x1000, 0x1fff, 0x6000), OK);
    machine.told();
    forget(machine, {{nic.endpoint, 0x30},
                     {bridge.endpoint, 0x208},
                     {disk.endpoint, 0x38},
                     {bridge.endpoint, 0x200},
                     {nic.endpoint, 0x30}});
    EXPECT_EQ(machine.told(), (Told{"begin", "off 200", "off 30", "off 38", "commit"}));
    EXPECT_EQ(machine.stats().domains, 1u); // of the one that stays
    EXPECT_EQ(machine.stats().mappings, 1u);
    EXPECT_EQ(machine.read(stays, 0x1000), 0x5000u);
    EXPECT_EQ(machine.read(nic, 0x9000), 0x9000u);
    EXPECT_EQ(machine.detach(2, 0x38), INVAL);

    forget(machine, {{nic.endpoint, 0x30}, {disk.endpoint, 0x38}});
    forget(machine, {});
    EXPECT_EQ(machine.told(), Told{});

    // What is another engine's is no business of this one.
    Machine other(Config().bypass(true));
    Function &foreign = other.add(0x30);
    ASSERT_EQ(other.attach(1, 0x30), OK);
    other.told();
    forget(machine, {{foreign.endpoint, 0x30}});
    EXPECT_EQ(other.told(), Told{});
    EXPECT_EQ(machine.told(), Told{});
    EXPECT_EQ(other.detach(1, 0x30), OK);
}

TEST(Members, W18_RetiredEndpointIsGone)
{
    Machine machine(Config().bypass(true));
    Function &nic = machine.add(0x30);
    machine.listen(nic, true, true);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    machine.told();
    machine.retire(nic);
    EXPECT_EQ(machine.told(), (Told{"unmap 30 1000-1fff 5000", "drop 30 1000-1fff"}));
    EXPECT_EQ(machine.stats().domains, 0u);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
    EXPECT_EQ(machine.read(nic, 0x9000), FAULT); // not even by bypass
    EXPECT_EQ(machine.attach(1, 0x30), NOENT);
    EXPECT_EQ(machine.detach(1, 0x30), NOENT);

    // The next function at that ID starts afresh, and what affects all says
    // nothing about the old one.
    Function &next = machine.add(0x30);
    EXPECT_EQ(machine.read(next, 0x1000), 0x1000u);
    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 0));
    EXPECT_EQ(machine.told(), (Told{"begin", "on 30", "commit"}));
    EXPECT_EQ(machine.read(next, 0x1000), FAULT);
}

TEST(Members, W18_RetiredOutOfBypassIsBlocked)
{
    Machine machine(Config().bypass(true));
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.read(nic, 0x1000), 0x1000u);
    machine.retire(nic);
    EXPECT_EQ(machine.told(), (Told{"begin", "on 30", "commit"}));
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
}

} // namespace

} // namespace viommu::test
