// SPDX-License-Identifier: GPL-2.0-or-later
#include "machine_builder.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace viommu::test
{

TEST(Model, ManagesTheWholeWindowWithIdentityIdsAndWithoutTheIommu)
{
    const auto topology =
        build(MachineBuilder().pci_iommu("iommu0", 0, 0x0010).root_bus("pcie.0", 0, 0x00, 0xff));
    EXPECT_EQ(managed_ids(topology, 0, 0), (Ranges{{0x0000, 0x000f}, {0x0011, 0xffff}}));
    EXPECT_EQ(managed_ids(topology, 0, 1), Ranges{});
    EXPECT_EQ(managed_ids(topology, 0, 0xffff), Ranges{});
}

TEST(Model, SegmentIsTheUpperHalfOfTheId)
{
    const auto topology = build(MachineBuilder()
                                    .pci_iommu("iommu0", 2, 0x4008)
                                    .root_bus("a", 2, 0x40, 0x41)
                                    .root_bus("b", 0xfffe, 0xff, 0xff));
    EXPECT_EQ(managed_ids(topology, 0, 0), Ranges{});
    EXPECT_EQ(managed_ids(topology, 0, 2), (Ranges{{0x24000, 0x24007}, {0x24009, 0x241ff}}));
    EXPECT_EQ(managed_ids(topology, 0, 0xfffe), (Ranges{{0xfffeff00, 0xfffeffff}}));
}

TEST(Model, WindowsThatTouchInNumberButNotInSegmentStayApart)
{
    const auto topology = build(MachineBuilder()
                                    .mmio_iommu("iommu0", 0x1000)
                                    .root_bus("a", 0, 0x00, 0x0f)
                                    .root_bus("b", 1, 0x10, 0x1f));
    EXPECT_EQ(managed_ids(topology, 0, 0), (Ranges{{0x00000, 0x00fff}}));
    EXPECT_EQ(managed_ids(topology, 0, 1), (Ranges{{0x11000, 0x11fff}}));
}

TEST(Model, WindowsOfOneIommuThatTouchAreOneItem)
{
    const auto topology = build(MachineBuilder()
                                    .mmio_iommu("iommu0", 0x1000)
                                    .root_bus("b", 0, 0x10, 0x1f)
                                    .root_bus("a", 0, 0x00, 0x0f));
    EXPECT_EQ(managed_ids(topology, 0, 0), (Ranges{{0x0000, 0x1fff}}));
    EXPECT_EQ(array_config(topology.get(), 0, VIOMMU_ARRAY_V2).size(), 48u + 16u);
}

TEST(Model, EveryIommuIsLeftOutOfEveryRange)
{
    const auto topology = build(MachineBuilder()
                                    .pci_iommu("iommu0", 0, 0x0008)
                                    .pci_iommu("iommu1", 0, 0x0009, {"pxb1"})
                                    .pci_iommu("iommu2", 0, 0x8100, {"pxb2"})
                                    .root_bus("pcie.0", 0, 0x00, 0x0f)
                                    .root_bus("pxb1", 0, 0x80, 0x81)
                                    .root_bus("pxb2", 1, 0x81, 0x81));
    EXPECT_EQ(managed_ids(topology, 0, 0), (Ranges{{0x0000, 0x0007}, {0x000a, 0x0fff}}));
    EXPECT_EQ(managed_ids(topology, 1, 0), (Ranges{{0x8000, 0x80ff}, {0x8101, 0x81ff}}));
    // Segment 1 has no IOMMU function, although one has this number in segment 0.
    EXPECT_EQ(managed_ids(topology, 2, 1), (Ranges{{0x18100, 0x181ff}}));
}

TEST(Model, IommusAtTheEndsOfAWindowLeaveNoEmptyRange)
{
    const auto topology = build(MachineBuilder()
                                    .pci_iommu("first", 0, 0x0000)
                                    .pci_iommu("second", 0, 0x0001, {"other"})
                                    .pci_iommu("last", 0, 0xffff, {"more"})
                                    .root_bus("pcie.0", 0, 0x00, 0xff)
                                    .root_bus("other", 1, 0, 0)
                                    .root_bus("more", 2, 0, 0));
    EXPECT_EQ(managed_ids(topology, 0, 0), (Ranges{{0x0002, 0xfffe}}));
}

TEST(Model, BypassedRootBusIsManagedByNobody)
{
    const auto topology = build(golden_machine());
    for (const uint32_t iommu : {0u, 1u}) {
        EXPECT_FALSE(viommu_topology_manages(topology.get(), iommu, 0x2000));
        EXPECT_FALSE(viommu_topology_manages(topology.get(), iommu, 0x2fff));
    }
    EXPECT_EQ(viommu_topology_root_bus_iommu(topology.get(), "pxb1"), VIOMMU_NO_IOMMU);
}

TEST(Model, RootBusIommuFollowsClaimsThenTheTakerOfTheRest)
{
    const auto topology = build(golden_machine());
    EXPECT_EQ(viommu_topology_root_bus_iommu(topology.get(), "pcie.0"), 0u);
    EXPECT_EQ(viommu_topology_root_bus_iommu(topology.get(), "pxb2"), 1u);
    EXPECT_EQ(viommu_topology_root_bus_iommu(topology.get(), "pcie"), VIOMMU_NO_IOMMU);
    EXPECT_EQ(viommu_topology_root_bus_iommu(topology.get(), nullptr), VIOMMU_NO_IOMMU);
    EXPECT_EQ(viommu_topology_root_bus_iommu(nullptr, "pcie.0"), VIOMMU_NO_IOMMU);
}

TEST(Model, TakerOfTheRestMayComeAfterAnIommuWithClaims)
{
    const auto topology = build(MachineBuilder()
                                    .pci_iommu("iommu0", 0, 0x0008, {"pxb1"})
                                    .pci_iommu("iommu1", 0, 0x0010)
                                    .root_bus("pcie.0", 0, 0x00, 0x0f)
                                    .root_bus("pxb1", 0, 0x10, 0x1f));
    EXPECT_EQ(viommu_topology_root_bus_iommu(topology.get(), "pcie.0"), 1u);
    EXPECT_EQ(viommu_topology_root_bus_iommu(topology.get(), "pxb1"), 0u);
}

TEST(Model, UnclaimedRootBusWithoutATakerIsManagedByNobody)
{
    const auto topology = build(MachineBuilder()
                                    .pci_iommu("iommu0", 0, 0x0008, {"pxb1"})
                                    .root_bus("pcie.0", 0, 0x00, 0x0f)
                                    .root_bus("pxb1", 0, 0x10, 0x1f));
    EXPECT_EQ(viommu_topology_root_bus_iommu(topology.get(), "pcie.0"), VIOMMU_NO_IOMMU);
    EXPECT_EQ(managed_ids(topology, 0, 0), (Ranges{{0x1000, 0x1fff}}));
}

TEST(Model, MmioEndpointIsManagedByItsIommuOrTheTaker)
{
    const auto topology = build(MachineBuilder()
                                    .pci_iommu("iommu0", 0, 0x0008)
                                    .mmio_iommu("iommu1", 0x1000, {"pxb1"})
                                    .root_bus("pxb1", 0, 0x10, 0x1f)
                                    .mmio_endpoint("c", 0xffff, 0x4000)
                                    .mmio_endpoint("a", 7, 0x2000, 1)
                                    .mmio_endpoint("b", 3, 0x3000));
    EXPECT_EQ(managed_ids(topology, 0, 0xffff),
              (Ranges{{0xffff0003, 0xffff0003}, {0xffffffff, 0xffffffff}}));
    EXPECT_EQ(managed_ids(topology, 1, 0xffff), (Ranges{{0xffff0007, 0xffff0007}}));
}

TEST(Model, MmioEndpointWithoutATakerIsNotManaged)
{
    const auto topology = build(MachineBuilder()
                                    .pci_iommu("iommu0", 0, 0x0008, {"pcie.0"})
                                    .root_bus("pcie.0", 0, 0x00, 0xff)
                                    .mmio_endpoint("vm0", 0, 0x2000));
    EXPECT_EQ(managed_ids(topology, 0, 0xffff), Ranges{});
}

TEST(Model, MachineWithoutIommusManagesNothing)
{
    const auto topology =
        build(MachineBuilder().root_bus("pcie.0", 0, 0x00, 0xff).mmio_endpoint("vm0", 0, 0x2000));
    EXPECT_EQ(managed_ids(topology, 0, 0), Ranges{});
    EXPECT_FALSE(viommu_topology_manages(topology.get(), VIOMMU_NO_IOMMU, 0));
    EXPECT_FALSE(viommu_topology_manages(nullptr, 0, 0));
    EXPECT_EQ(viommu_topology_root_bus_iommu(topology.get(), "pcie.0"), VIOMMU_NO_IOMMU);
}

TEST(Model, DescriptionIsCopied)
{
    TopologyPtr topology;
    {
        const MachineBuilder machine = golden_machine();
        topology = build(machine);
        for (const ViommuRootBusDesc &bus : machine.root_buses) {
            std::memset(const_cast<char *>(bus.name), '?', std::strlen(bus.name));
        }
    }
    EXPECT_EQ(viommu_topology_root_bus_iommu(topology.get(), "pxb2"), 1u);
    EXPECT_TRUE(viommu_topology_manages(topology.get(), 1, 0x3000));
}

TEST(Model, MmioEndpointsGoToTheClaimantOfThePlatformBus)
{
    const MachineBuilder machine = MachineBuilder()
                                       .pci_iommu("pci", 0, 0x10)
                                       .mmio_iommu("mmio", 0xa000000, {VIOMMU_PLATFORM_BUS})
                                       .root_bus("pcie.0", 0, 0, 255)
                                       .mmio_endpoint("disk", 3, 0xa000600);
    const TopologyPtr topology = build(machine);
    ASSERT_TRUE(topology);
    EXPECT_TRUE(viommu_topology_manages(topology.get(), 1, 0xffff0003));
    EXPECT_FALSE(viommu_topology_manages(topology.get(), 0, 0xffff0003));
    EXPECT_TRUE(viommu_topology_manages(topology.get(), 0, 0x18));
    EXPECT_FALSE(viommu_topology_manages(topology.get(), 1, 0x18));
}

TEST(ModelRefusal, PlatformBusClaimedTwice)
{
    expect_refused(MachineBuilder()
                       .mmio_iommu("first", 0xa000000, {VIOMMU_PLATFORM_BUS})
                       .mmio_iommu("second", 0xa000200, {VIOMMU_PLATFORM_BUS}),
                   {"root bus main-system-bus is claimed by two IOMMUs: first and second"});
}

TEST(ModelRefusal, PlatformBusOfAMachineWithoutTransports)
{
    MachineBuilder machine = MachineBuilder().pci_iommu("iommu0", 0, 0x0008, {VIOMMU_PLATFORM_BUS});
    EXPECT_TRUE(build(machine));
    machine.no_mmio_transports = true;
    expect_refused(machine, {"IOMMU iommu0 claims main-system-bus", "no virtio-mmio transports"});
}

TEST(ModelRefusal, TwoTakersOfTheRest)
{
    expect_refused(MachineBuilder()
                       .pci_iommu("iommu0", 0, 0x0008)
                       .pci_iommu("iommu1", 0, 0x0010, {"pcie.0"})
                       .mmio_iommu("iommu2", 0x1000)
                       .root_bus("pcie.0", 0, 0x00, 0xff),
                   {"two IOMMUs want all unclaimed root buses: iommu0 and iommu2"});
}

TEST(ModelRefusal, ClaimOfABypassedRootBus)
{
    expect_refused(MachineBuilder()
                       .pci_iommu("iommu0", 0, 0x0008, {"pxb1"})
                       .root_bus("pxb1", 0, 0x10, 0x1f, true),
                   {"iommu0", "pxb1", "bypass"});
}

TEST(ModelRefusal, ClaimOfAnUnknownRootBus)
{
    expect_refused(
        MachineBuilder().pci_iommu("iommu0", 0, 0x0008, {"pxb9"}).root_bus("pcie.0", 0, 0x00, 0xff),
        {"iommu0", "pxb9", "does not exist"});
}

TEST(ModelRefusal, RootBusClaimedByTwoIommus)
{
    expect_refused(MachineBuilder()
                       .pci_iommu("iommu0", 0, 0x0008, {"pxb1"})
                       .pci_iommu("iommu1", 0, 0x0010, {"pxb1"})
                       .root_bus("pxb1", 0, 0x10, 0x1f),
                   {"pxb1", "two IOMMUs", "iommu0 and iommu1"});
}

TEST(ModelRefusal, RootBusClaimedTwiceByOneIommu)
{
    expect_refused(MachineBuilder()
                       .pci_iommu("iommu0", 0, 0x0008, {"pxb1", "pxb1"})
                       .root_bus("pxb1", 0, 0x10, 0x1f),
                   {"iommu0", "pxb1", "twice"});
}

TEST(ModelRefusal, OverlappingWindows)
{
    expect_refused(
        MachineBuilder()
            .root_bus("pxb2", 0, 0x1f, 0x2f)
            .root_bus("pcie.1", 1, 0x00, 0xff)
            .root_bus("pxb1", 0, 0x10, 0x1f),
        {"pxb1 (segment 0x0, buses 0x10-0x1f)", "pxb2 (segment 0x0, buses 0x1f-0x2f)", "overlap"});
    expect_refused(
        MachineBuilder().root_bus("inner", 3, 0x20, 0x21).root_bus("outer", 3, 0x10, 0x30),
        {"outer (segment 0x3, buses 0x10-0x30)", "inner (segment 0x3, buses 0x20-0x21)"});
}

TEST(ModelRefusal, WindowThatEndsBeforeItBegins)
{
    expect_refused(MachineBuilder().root_bus("pxb1", 0, 0x20, 0x1f), {"pxb1", "0x20-0x1f"});
}

TEST(ModelRefusal, TwoRootBusesOfOneName)
{
    expect_refused(MachineBuilder().root_bus("pxb1", 0, 0x20, 0x2f).root_bus("pxb1", 1, 0x30, 0x3f),
                   {"pxb1 (segment 0x0, buses 0x20-0x2f)", "pxb1 (segment 0x1, buses 0x30-0x3f)"});
}

TEST(ModelRefusal, TwoIommusAtOnePciAddress)
{
    expect_refused(MachineBuilder()
                       .pci_iommu("iommu0", 1, 0x0211, {"pcie.0"})
                       .pci_iommu("iommu1", 1, 0x0211)
                       .root_bus("pcie.0", 0, 0x00, 0xff),
                   {"iommu0 and iommu1", "0001:02:02.1"});
}

TEST(ModelRefusal, TwoIommusAtOneMmioBase)
{
    expect_refused(MachineBuilder()
                       .mmio_iommu("iommu0", 0xfeb00000, {"pcie.0"})
                       .mmio_iommu("iommu1", 0xfeb00000)
                       .root_bus("pcie.0", 0, 0x00, 0xff),
                   {"iommu0 and iommu1", "0xfeb00000"});
}

TEST(ModelRefusal, MmioIommuThatIsItsOwnEndpoint)
{
    expect_refused(
        MachineBuilder().mmio_iommu("iommu0", 0xfeb00200).mmio_endpoint("slot1", 1, 0xfeb00200, 0),
        {"slot1", "iommu0", "0xfeb00200"});
}

TEST(ModelRefusal, MmioIommuThatIsAnEndpointOfAnother)
{
    expect_refused(MachineBuilder()
                       .pci_iommu("iommu0", 0, 0x0008)
                       .mmio_iommu("iommu1", 0xfeb00200, {"pcie.0"})
                       .root_bus("pcie.0", 0, 0x00, 0xff)
                       .mmio_endpoint("slot1", 1, 0xfeb00200),
                   {"slot1", "iommu1", "0xfeb00200"});
}

TEST(ModelRefusal, TwoMmioEndpointsOfOneIndex)
{
    expect_refused(MachineBuilder()
                       .mmio_endpoint("slot1", 5, 0x1000)
                       .mmio_endpoint("slot2", 6, 0x2000)
                       .mmio_endpoint("slot3", 5, 0x3000),
                   {"slot1 and slot3", "index 5"});
}

TEST(ModelRefusal, TwoMmioEndpointsAtOneBase)
{
    expect_refused(
        MachineBuilder().mmio_endpoint("slot1", 1, 0xa000000).mmio_endpoint("slot2", 2, 0xa000000),
        {"slot1 and slot2", "0xa000000"});
}

TEST(ModelRefusal, MmioEndpointOfAnIommuThatDoesNotExist)
{
    expect_refused(
        MachineBuilder().mmio_iommu("iommu0", 0x1000).mmio_endpoint("slot1", 1, 0x2000, 1),
        {"slot1", "IOMMU number 1"});
}

TEST(ModelRefusal, PciSegmentOfTheMmioEndpoints)
{
    expect_refused(MachineBuilder().pci_iommu("iommu0", 0xffff, 0x0008), {"iommu0", "0xffff"});
    expect_refused(MachineBuilder().root_bus("pcie.9", 0xffff, 0, 1), {"pcie.9", "0xffff"});
}

TEST(ModelRefusal, IommuOfUnknownKind)
{
    MachineBuilder machine;
    machine.pci_iommu("iommu0", 0, 0x0008);
    const unsigned kind = 7;
    std::memcpy(&machine.iommus[0].kind, &kind, sizeof(kind));
    expect_refused(machine, {"iommu0", "kind 7"});
}

TEST(ModelRefusal, MissingNames)
{
    MachineBuilder iommu = golden_machine();
    iommu.iommus[1].name = nullptr;
    expect_refused(iommu, {"IOMMU number 1", "no name"});

    MachineBuilder root_bus = golden_machine();
    root_bus.root_buses[2].name = nullptr;
    expect_refused(root_bus, {"root bus number 2", "no name"});

    MachineBuilder endpoint = golden_machine();
    endpoint.mmio_endpoints[0].name = nullptr;
    expect_refused(endpoint, {"MMIO endpoint number 0", "no name"});

    MachineBuilder claim = golden_machine();
    const char *const names[] = {nullptr};
    claim.iommus[1].root_buses = names;
    expect_refused(claim, {"iommu1", "without a name"});
}

TEST(ModelRefusal, MissingArrays)
{
    const MachineBuilder machine = golden_machine();
    ViommuMachineDesc desc = machine.desc();
    desc.iommus = nullptr;
    expect_refused(desc, {"2 IOMMUs"});
    desc = machine.desc();
    desc.root_buses = nullptr;
    expect_refused(desc, {"3 root buses"});
    desc = machine.desc();
    desc.mmio_endpoints = nullptr;
    expect_refused(desc, {"1 MMIO endpoints"});
    desc = machine.desc();
    desc.functions = nullptr;
    desc.function_count = 4;
    expect_refused(desc, {"4 functions"});

    MachineBuilder claims = golden_machine();
    claims.iommus[1].root_buses = nullptr;
    expect_refused(claims, {"iommu1", "1 root buses"});

    char error[64] = "";
    EXPECT_EQ(viommu_topology_new(nullptr, error, sizeof(error)), nullptr);
    EXPECT_STREQ(error, "there is no machine description");
}

TEST(ModelRefusal, SentenceIsCutWhereTheBufferEnds)
{
    const MachineBuilder machine = MachineBuilder().root_bus("pxb1", 0, 0x20, 0x1f);
    const ViommuMachineDesc desc = machine.desc();
    char error[16];
    std::memset(error, '#', sizeof(error));
    EXPECT_EQ(viommu_topology_new(&desc, error, 14), nullptr);
    EXPECT_STREQ(error, "root bus pxb1");
    EXPECT_EQ(error[14], '#');
    EXPECT_EQ(viommu_topology_new(&desc, nullptr, 0), nullptr);
    EXPECT_EQ(viommu_topology_new(&desc, error, 0), nullptr);
    EXPECT_STREQ(error, "root bus pxb1");
}

// Descriptions from a small set of values, so that every conflict is frequent.
TEST(ModelRefusal, RandomDescriptionsEitherBuildOrGiveASentence)
{
    std::mt19937 random(20200228);
    const auto below = [&random](unsigned limit) {
        return static_cast<unsigned>(random() % limit);
    };
    const std::vector<const char *> names{"a", "b", "c", "d", "", "pcie.0", "%s%n"};
    const auto name = [&]() -> const char * {
        return below(60) == 0 ? nullptr : names[below(static_cast<unsigned>(names.size()))];
    };
    const auto segment = [&] { return static_cast<uint16_t>(below(12) == 0 ? 0xffff : below(2)); };

    unsigned built = 0;
    unsigned refused = 0;
    for (unsigned round = 0; round < 20000; round++) {
        std::vector<std::vector<const char *>> claims(below(4));
        std::vector<ViommuIommuDesc> iommus(claims.size());
        for (size_t i = 0; i < iommus.size(); i++) {
            for (unsigned n = below(3); n > 0; n--) {
                claims[i].push_back(name());
            }
            const unsigned kind = below(40) == 0 ? below(0x80000000) : below(2);
            std::memcpy(&iommus[i].kind, &kind, sizeof(kind));
            iommus[i].name = name();
            iommus[i].segment = segment();
            iommus[i].requester_id = static_cast<uint16_t>(below(4) * 0x5555);
            iommus[i].base = below(8);
            iommus[i].root_buses = below(60) == 0 ? nullptr : claims[i].data();
            iommus[i].root_bus_count = claims[i].size();
        }
        std::vector<ViommuRootBusDesc> buses(below(4));
        for (ViommuRootBusDesc &bus : buses) {
            const unsigned first = below(256);
            bus = {name(), segment(), static_cast<uint8_t>(first),
                   static_cast<uint8_t>(below(8) == 0 ? below(256) : first + below(16)),
                   below(4) == 0};
        }
        std::vector<ViommuMmioEndpointDesc> endpoints(below(3));
        for (ViommuMmioEndpointDesc &endpoint : endpoints) {
            endpoint = {name(), static_cast<uint16_t>(below(6)), below(16),
                        below(2) == 0 ? VIOMMU_NO_IOMMU : below(4)};
        }
        const ViommuMachineDesc desc{iommus.data(), iommus.size(),    buses.data(),
                                     buses.size(),  endpoints.data(), endpoints.size(),
                                     false,         nullptr,          0};
        char error[256] = "";
        const TopologyPtr topology(viommu_topology_new(&desc, error, sizeof(error)));
        ASSERT_EQ(topology == nullptr, error[0] != '\0') << error;
        ++(topology != nullptr ? built : refused);
        if (topology != nullptr) {
            char unused[256];
            EXPECT_GE(viommu_topology_viot(topology.get(), nullptr, 0, unused, sizeof(unused)),
                      12u);
        }
    }
    EXPECT_GT(built, 1000u);
    EXPECT_GT(refused, 1000u);
}

} // namespace viommu::test
