// SPDX-License-Identifier: GPL-2.0-or-later
//
// What `leave-out` makes of the model; its text is in properties_test.cc.
#include "machine_builder.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace viommu::test
{

namespace
{

// Two IOMMUs, three root buses; pxb2 bypasses.
//   pcie.0: two 00:01.0, one 00:02.0, disk0 00:03.0, nic0 00:03.1, port0 00:04.0 with disk1
//   behind it, expanders 00:05.0 and 00:06.0, one without an id 00:07.0
MachineBuilder machine(const std::string &leave_out, const std::vector<std::string> &claims = {})
{
    return MachineBuilder()
        .pci_iommu("two", 0, 0x0008, {"pxb1"})
        .pci_iommu("one", 0, 0x0010, claims)
        .leave_out(leave_out)
        .root_bus("pcie.0", 0, 0x00, 0x1f)
        .root_bus("pxb1", 0, 0x20, 0x2f)
        .root_bus("pxb2", 0, 0x30, 0x3f, true)
        .root_bus("pxb3", 0, 0x40, 0xff)
        .function("two", "pcie.0", 0x08)
        .function("one", "pcie.0", 0x10)
        .function("disk0", "pcie.0", 0x18)
        .function("nic0", "pcie.0", 0x19)
        .bridge("port0", "pcie.0", 0x20)
        .function_behind("disk1", "pcie.0", 0)
        .expander("pxb1", "pcie.0", 0x28)
        .expander("pxb2", "pcie.0", 0x30)
        .expander("pxb3", "pcie.0", 0x48)
        .function("", "pcie.0", 0x38)
        .function("disk2", "pxb1", 0x08)
        .function("disk3", "pxb2", 0x08)
        .function("disk4", "pxb3", 0x08);
}

Ranges left(const std::string &leave_out)
{
    return managed_ids(build(machine(leave_out)), 1, 0);
}

void expect_sentence_of(const MachineBuilder &machine, const std::string &sentence)
{
    const ViommuMachineDesc desc = machine.desc();
    char error[512] = "";
    const TopologyPtr topology(viommu_topology_new(&desc, error, sizeof(error)));
    EXPECT_EQ(topology, nullptr);
    EXPECT_EQ(error, sentence);
}

const std::string kRemedy = "put %s on root bus pcie.0 itself, or behind an expander bridge with "
                            "bypass_iommu=on";

std::string remedy(const std::string &what)
{
    std::string text = kRemedy;
    return text.replace(text.find("%s"), 2, what);
}

} // namespace

TEST(LeaveOut, AFunctionByItsId)
{
    EXPECT_EQ(left("disk0"),
              (Ranges{{0, 7}, {9, 0xf}, {0x11, 0x17}, {0x19, 0x1fff}, {0x4000, 0xffff}}));
    EXPECT_EQ(left("disk4"),
              (Ranges{{0, 7}, {9, 0xf}, {0x11, 0x1fff}, {0x4000, 0x4007}, {0x4009, 0xffff}}));
    // An expander's own function is one like others, but its id is its root bus.
    EXPECT_EQ(left("pcie.0/5.0"),
              (Ranges{{0, 7}, {9, 0xf}, {0x11, 0x27}, {0x29, 0x1fff}, {0x4000, 0xffff}}));
}

TEST(LeaveOut, AFunctionOrSlotByAddressWhetherPluggedOrNot)
{
    const Ranges slot{{0, 7}, {9, 0xf}, {0x11, 0x17}, {0x20, 0x1fff}, {0x4000, 0xffff}};
    EXPECT_EQ(left("pcie.0/3"), slot);
    EXPECT_EQ(left("pcie.0/1f.7"),
              (Ranges{{0, 7}, {9, 0xf}, {0x11, 0xfe}, {0x100, 0x1fff}, {0x4000, 0xffff}}));
    EXPECT_EQ(left("pcie.0/0:pxb3/1f"),
              (Ranges{{8 + 1, 0xf}, {0x11, 0x1fff}, {0x4000, 0x40f7}, {0x4100, 0xffff}}));
    EXPECT_EQ(left("nic0:disk0:pcie.0/3.2:pcie.0/3.3:pcie.0/3.4:pcie.0/3.5:pcie.0/3.6:pcie.0/3.7"),
              slot);
}

TEST(LeaveOut, ARootBusWithAllOfItsWindow)
{
    EXPECT_EQ(left("pxb3"), (Ranges{{0, 7}, {9, 0xf}, {0x11, 0x1fff}}));
    EXPECT_EQ(left("pcie.0"), (Ranges{{0x4000, 0xffff}}));
    EXPECT_EQ(left("pcie.0:pxb3"), Ranges{});

    const auto topology = build(machine("pxb3"));
    EXPECT_EQ(viommu_topology_root_bus_iommu(topology.get(), "pxb3"), VIOMMU_NO_IOMMU);
    EXPECT_EQ(viommu_topology_root_bus_iommu(topology.get(), "pcie.0"), 1u);
    EXPECT_TRUE(viommu_topology_left_out(topology.get(), "pxb3", 0));
    EXPECT_TRUE(viommu_topology_left_out(topology.get(), "pxb3", 0xff));
}

TEST(LeaveOut, TheOtherIommuIsNotConcerned)
{
    const auto topology = build(machine("disk0:pxb3"));
    EXPECT_EQ(managed_ids(topology, 0, 0), (Ranges{{0x2000, 0x2fff}}));
}

TEST(LeaveOut, WhoIsLeftOutIsAskedByRootBusAndFunction)
{
    const auto topology = build(machine("disk0:pxb3/2"));
    EXPECT_TRUE(viommu_topology_left_out(topology.get(), "pcie.0", 0x18));
    EXPECT_FALSE(viommu_topology_left_out(topology.get(), "pcie.0", 0x19));
    EXPECT_FALSE(viommu_topology_left_out(topology.get(), "pcie.0", 0x17));
    EXPECT_FALSE(viommu_topology_left_out(topology.get(), "pxb3", 0x0f));
    EXPECT_TRUE(viommu_topology_left_out(topology.get(), "pxb3", 0x10));
    EXPECT_TRUE(viommu_topology_left_out(topology.get(), "pxb3", 0x17));
    EXPECT_FALSE(viommu_topology_left_out(topology.get(), "pxb3", 0x18));
    EXPECT_FALSE(viommu_topology_left_out(topology.get(), "pxb1", 0x18));
    EXPECT_FALSE(viommu_topology_left_out(topology.get(), "pxb", 0x18));
    EXPECT_FALSE(viommu_topology_left_out(topology.get(), nullptr, 0x18));
    EXPECT_FALSE(viommu_topology_left_out(nullptr, "pcie.0", 0x18));
    // Behind its bridges the root bus is managed as ever.
    EXPECT_EQ(viommu_topology_root_bus_iommu(topology.get(), "pcie.0"), 1u);
    EXPECT_TRUE(viommu_topology_manages(topology.get(), 1, 0x0118));
}

TEST(LeaveOut, SegmentsAreKeptApart)
{
    const auto topology = build(MachineBuilder()
                                    .pci_iommu("one", 0, 0x0008)
                                    .leave_out("b/3.0")
                                    .root_bus("a", 0, 0, 0)
                                    .root_bus("b", 1, 0, 0));
    EXPECT_EQ(managed_ids(topology, 0, 0), (Ranges{{0, 7}, {9, 0xff}}));
    EXPECT_EQ(managed_ids(topology, 0, 1), (Ranges{{0x10000, 0x10017}, {0x10019, 0x100ff}}));
}

TEST(LeaveOut, ASlotMayHoldAnIommuAmongOthers)
{
    EXPECT_EQ(left("pcie.0/2"), (Ranges{{0, 7}, {9, 0xf}, {0x18, 0x1fff}, {0x4000, 0xffff}}));
}

TEST(LeaveOut, AConventionalExpanderSharesItsIdWithABridge)
{
    MachineBuilder conventional = machine("pxb3");
    conventional.bridge("pxb3", "pxb3", 0);
    EXPECT_TRUE(build(conventional));
}

TEST(LeaveOutRefusal, WhatIsNotThere)
{
    expect_sentence_of(machine("disk9"),
                       "IOMMU one leaves out disk9, but no PCI function has that id");
    expect_sentence_of(machine("pcie.9/3.0"),
                       "IOMMU one leaves out pcie.9/3.0, but there is no root bus pcie.9");
    // The bus behind a port is no root bus.
    expect_sentence_of(machine("port0/0"),
                       "IOMMU one leaves out port0/0, but there is no root bus port0");
}

TEST(LeaveOutRefusal, WhatTheGuestNumbers)
{
    expect_sentence_of(machine("disk1"), "IOMMU one leaves out disk1, which is behind a bridge, "
                                         "where the guest chooses the bus number: " +
                                             remedy("it"));
    const std::string chosen =
        ", but the guest chooses the bus numbers behind it: " + remedy("what is to bypass");
    expect_sentence_of(machine("port0"), "IOMMU one leaves out port0, a bridge" + chosen);
    expect_sentence_of(machine("pcie.0/4"),
                       "IOMMU one leaves out pcie.0/4, where bridge port0 is" + chosen);
    expect_sentence_of(machine("pcie.0/4.0"),
                       "IOMMU one leaves out pcie.0/4.0, where bridge port0 is" + chosen);
    EXPECT_TRUE(build(machine("pcie.0/4.1")));

    MachineBuilder expander = machine("disk5");
    expander.function_behind("disk5", "pxb3", 0);
    expect_sentence_of(expander, "IOMMU one leaves out disk5, which is behind a bridge, where the "
                                 "guest chooses the bus number: put it on root bus pcie.0 itself, "
                                 "or leave out pxb3 with all behind it");
    // The first one of its own segment.
    expander.root_bus("other", 1, 0, 0);
    expander.root_buses[3].segment = 1;
    expander.root_buses[3].first_bus = 1;
    expander.root_buses[3].last_bus = 1;
    expect_refused(expander, {"put it on root bus other itself, or leave out pxb3"});

    MachineBuilder nameless = machine("pcie.0/8");
    nameless.bridge("", "pcie.0", 0x42);
    expect_sentence_of(nameless,
                       "IOMMU one leaves out pcie.0/8, where bridge pcie.0/8.2 is" + chosen);
    // Another root bus has one there.
    MachineBuilder elsewhere = machine("pcie.0/8");
    elsewhere.bridge("", "pxb3", 0x42);
    EXPECT_TRUE(build(elsewhere));
    // As has a bus behind a bridge.
    MachineBuilder deeper = machine("pcie.0/8");
    deeper.function_behind("", "pcie.0", 0x42);
    deeper.functions.back().bridge = true;
    EXPECT_TRUE(build(deeper));
}

TEST(LeaveOutRefusal, WhatItDoesNotManage)
{
    for (const std::string entry : {"disk2", "pxb1/1.0", "pxb1"}) {
        expect_sentence_of(machine(entry), "IOMMU one leaves out " + entry +
                                               ", but root bus pxb1 is managed by IOMMU two");
    }
    for (const std::string entry : {"disk3", "pxb2/1.0", "pxb2"}) {
        expect_sentence_of(machine(entry), "IOMMU one leaves out " + entry +
                                               ", but root bus pxb2 is managed by no IOMMU");
    }
}

TEST(LeaveOutRefusal, AnIommu)
{
    for (const std::string entry : {"one", "two", "pcie.0/1.0", "pcie.0/2.0"}) {
        expect_sentence_of(machine(entry), "IOMMU one leaves out " + entry +
                                               ", but that is an IOMMU, which no IOMMU manages");
    }
    // The same number in another segment is not one.
    EXPECT_TRUE(build(MachineBuilder()
                          .pci_iommu("one", 1, 0x0008)
                          .leave_out("pcie.0/1.0")
                          .root_bus("pcie.0", 0, 0, 0)));
}

TEST(LeaveOutRefusal, TheSameTwice)
{
    const auto twice = [](const std::string &first, const std::string &second) {
        expect_sentence_of(machine(first + ":" + second),
                           "IOMMU one leaves out " + second + " twice: with " + first + " before");
    };
    twice("disk0", "disk0");
    twice("disk0", "pcie.0/3");
    twice("pcie.0/3", "disk0");
    twice("pcie.0/3.1", "nic0");
    twice("pcie.0/3.7", "pcie.0");
    twice("pxb3", "disk4");
    twice("pxb3", "pxb3");
}

TEST(LeaveOutRefusal, ANameThatMeansTwoThings)
{
    MachineBuilder ambiguous = machine("pxb3");
    ambiguous.function("pxb3", "pcie.0", 0x50);
    expect_sentence_of(ambiguous, "IOMMU one leaves out pxb3, which is the name of a root bus and "
                                  "the id of a device");
    // Even if it is on that bus, or a bridge on another.
    ambiguous = machine("pxb3");
    ambiguous.function("pxb3", "pxb3", 0);
    expect_refused(ambiguous, {"the id of a device"});
    ambiguous = machine("pxb3");
    ambiguous.bridge("pxb3", "pcie.0", 0x50);
    expect_refused(ambiguous, {"the id of a device"});
}

TEST(LeaveOutRefusal, ARootBusThatItClaims)
{
    expect_sentence_of(machine("pxb3", {"pcie.0", "pxb3"}),
                       "IOMMU one leaves out pxb3, a root bus that it claims");
    EXPECT_TRUE(build(machine("pxb3/1.0", {"pcie.0", "pxb3"})));
}

TEST(LeaveOutRefusal, DescriptionsThatContradictThemselves)
{
    MachineBuilder lost = machine("disk0");
    lost.functions[1].root_bus = "nowhere";
    expect_refused(lost, {"function number 1", "on no root bus"});
    lost.functions[1].root_bus = nullptr;
    expect_refused(lost, {"function number 1", "on no root bus"});

    MachineBuilder unlisted = machine("disk0");
    unlisted.iommus[1].left_out = nullptr;
    expect_refused(unlisted, {"IOMMU one", "1 entries but lists none"});

    const auto with = [](const ViommuLeaveOut &entry) {
        MachineBuilder odd = machine("disk0");
        odd.iommus[1].left_out = &entry;
        expect_refused(odd, {"IOMMU one leaves out something without a name or an address"});
    };
    with({nullptr, false, 0, 0});
    with({"pcie.0", true, 1, 0});
}

// Before the model there is: what will be left out if it is accepted.
TEST(LeaveOutNames, AsTheModelWill)
{
    const MachineBuilder said = machine("disk0:pcie.0/8:pxb3/1.0:pxb9");
    const auto named = [&said](const ViommuFunctionDesc &function) {
        const ViommuIommuDesc &iommu = said.iommus[1];
        return viommu_leave_out_names(iommu.left_out, iommu.left_out_count, &function);
    };
    EXPECT_TRUE(named({"disk0", "pcie.0", true, 0x18, false, false}));
    EXPECT_FALSE(named({"disk00", "pcie.0", true, 0x18, false, false}));
    EXPECT_FALSE(named({"disk0", "pcie.0", false, 0x18, false, false}));
    EXPECT_FALSE(named({nullptr, "pcie.0", true, 0x18, false, false}));
    EXPECT_FALSE(named({"x", "pcie.0", true, 0x3f, false, false}));
    EXPECT_TRUE(named({"x", "pcie.0", true, 0x40, false, false}));
    EXPECT_TRUE(named({nullptr, "pcie.0", true, 0x47, false, false}));
    EXPECT_FALSE(named({"x", "pcie.0", true, 0x48, false, false}));
    EXPECT_FALSE(named({"x", "pcie.0", false, 0x40, false, false}));
    EXPECT_FALSE(named({"x", "pxb1", true, 0x40, false, false}));
    EXPECT_TRUE(named({"x", "pxb3", true, 0x08, false, false}));
    EXPECT_TRUE(named({"x", "pxb9", true, 0x08, false, false}));
    EXPECT_TRUE(named({nullptr, "pxb9", false, 0x08, false, false}));
    const ViommuFunctionDesc function{"disk0", "pcie.0", true, 0x18, false, false};
    EXPECT_FALSE(viommu_leave_out_names(nullptr, 0, &function));
}

} // namespace viommu::test
