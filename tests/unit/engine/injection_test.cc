// SPDX-License-Identifier: GPL-2.0-or-later
//
// Faults that are made: what they take away, for how long, and that nothing else changes.
#include "machine.h"

#include <array>
#include <string>

namespace viommu::test
{

namespace
{

constexpr uint64_t kPage = 4096;

Config testing()
{
    Config config;
    config.fault_injection = true;
    return config;
}

std::string inject(Machine &machine, const std::string &text)
{
    ViommuInjection wanted{};
    std::array<char, 256> error{};
    if (viommu_injection_parse(text.c_str(), &wanted, error.data(), error.size())) {
        const bool done =
            viommu_engine_inject(machine.engine(), &wanted, error.data(), error.size());
        EXPECT_EQ(done, error[0] == '\0');
    }
    return error.data();
}

std::string armed(Machine &machine)
{
    std::array<ViommuArmedRequests, VIOMMU_T_PROBE> list{};
    const size_t count = viommu_engine_armed_requests(machine.engine(), list.data());
    std::string text;
    for (size_t i = 0; i < count; i++) {
        text += std::string(list[i].type) + " " + list[i].status + " " +
                std::to_string(list[i].left) + ";";
    }
    return text;
}

TEST(Injection, MOD_24_RefusedUnlessTheDeviceWasMadeForIt)
{
    Machine machine;
    Function &disk = machine.add(0x18);
    for (const char *text : {"requests type=map status=NOMEM", "accesses endpoint=0x18",
                             "record endpoint=0x18 address=0", "nothing"}) {
        EXPECT_EQ(inject(machine, text),
                  "inject: the device was not made for it: fault-injection=off");
    }
    EXPECT_EQ(armed(machine), "");
    EXPECT_EQ(viommu_endpoint_armed_accesses(disk.endpoint), 0u);
    EXPECT_FALSE(machine.pop().has_value());
}

TEST(Injection, MOD_24_WhatMakesNoSenseIsRefusedWithASentence)
{
    Machine machine(testing());
    EXPECT_EQ(inject(machine, "accesses endpoint=0x99"),
              "inject: nobody here has endpoint ID 0x99");
    EXPECT_EQ(inject(machine, "record endpoint=0x99 address=0"),
              "inject: nobody here has endpoint ID 0x99");
    EXPECT_EQ(inject(machine, ""), "inject: '' is neither requests, accesses, record nor nothing");
    EXPECT_EQ(inject(machine, "requests type=map"), "inject: requests needs status=");
    EXPECT_EQ(inject(machine, "requests type=grow status=NOMEM"),
              "inject: 'type=grow' is none of attach, detach, map, unmap, probe");
    EXPECT_EQ(inject(machine, "requests type=map status=OK"),
              "inject: 'status=OK' is none of IOERR, UNSUPP, DEVERR, INVAL, RANGE, NOENT, FAULT, "
              "NOMEM");
    EXPECT_EQ(inject(machine, "requests type=map status=NOMEM count=0"),
              "inject: 'count=0' is no number from 1 to 4294967295");
    EXPECT_EQ(inject(machine, "accesses endpoint=0x18 address=0"),
              "inject: 'address=0' is no argument of accesses");
    EXPECT_EQ(inject(machine, "nothing count=1"), "inject: 'count=1' is no argument of nothing");
    EXPECT_EQ(armed(machine), "");
}

TEST(Injection, MOD_25_TheNextRequestsOfATypeFailAndChangeNothing)
{
    Machine machine(testing());
    Function &disk = machine.add(0x18);
    EXPECT_EQ(inject(machine, "requests type=attach status=NOMEM"), "");
    EXPECT_EQ(inject(machine, "requests type=map status=DEVERR count=2"), "");
    EXPECT_EQ(armed(machine), "attach NOMEM 1;map DEVERR 2;");
    EXPECT_EQ(machine.attach(1, 0x18), NOMEM);
    EXPECT_EQ(machine.stats().domains, 0u);
    EXPECT_EQ(machine.attach(1, 0x18), OK);
    EXPECT_EQ(machine.map(1, 0, kPage - 1, 0), 3);
    EXPECT_EQ(machine.read(disk, 0), FAULT);
    EXPECT_EQ(armed(machine), "map DEVERR 1;");
    EXPECT_EQ(machine.map(1, 0, kPage - 1, 0), 3);
    EXPECT_EQ(machine.stats().mappings, 0u);
    EXPECT_EQ(machine.map(1, 0, kPage - 1, 0), OK);

    EXPECT_EQ(inject(machine, "requests type=unmap status=IOERR"), "");
    EXPECT_EQ(machine.unmap(1, 0, MAX), 1);
    EXPECT_EQ(machine.read(disk, 0), 0u);
    EXPECT_EQ(inject(machine, "requests type=detach status=INVAL"), "");
    EXPECT_EQ(machine.detach(1, 0x18), INVAL);
    EXPECT_EQ(machine.read(disk, 0), 0u);
    EXPECT_EQ(machine.detach(1, 0x18), OK);
    EXPECT_EQ(machine.stats().requests_refused, 5u);
}

TEST(Injection, MOD_25_AProbeThatFailsHasNoProperties)
{
    Machine machine(testing().reserve(0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI));
    machine.add(0x18);
    EXPECT_EQ(inject(machine, "requests type=probe status=NOENT"), "");
    const Reply reply = machine.send(Request::probe(0x18));
    EXPECT_EQ(reply.status(), NOENT);
    EXPECT_EQ(reply.used, kProbeSize + 4);
    for (size_t i = 0; i < kProbeSize; i++) {
        ASSERT_EQ(reply.out[i], 0);
    }
    EXPECT_EQ(machine.probe(0x18).size(), 1u);
}

TEST(Injection, MOD_25_WhatIsNotAnsweredUsesNothingUp)
{
    Machine machine(testing());
    EXPECT_EQ(inject(machine, "requests type=map status=NOMEM"), "");
    EXPECT_EQ(machine.send(Request::of_type(0, 8, 4)).status(), UNWRITTEN);
    EXPECT_EQ(machine.send(Request::of_type(3, 3, 4)).status(), UNWRITTEN);
    EXPECT_EQ(machine.send(Request::of_type(3, 36, 3)).status(), UNWRITTEN);
    EXPECT_EQ(armed(machine), "map NOMEM 1;");
    EXPECT_EQ(inject(machine, "requests type=map status=RANGE count=7"), "");
    EXPECT_EQ(armed(machine), "map RANGE 7;");
    EXPECT_EQ(inject(machine, "nothing"), "");
    EXPECT_EQ(armed(machine), "");
    EXPECT_EQ(machine.map(1, 0, kPage - 1, 0), NOENT);
}

TEST(Injection, MOD_26_TheNextAccessesOfAnEndpointFault)
{
    Machine machine(testing());
    Function &disk = machine.add(0x18);
    Function &other = machine.add(0x20);
    EXPECT_EQ(machine.attach(1, 0x18), OK);
    EXPECT_EQ(machine.attach(1, 0x20), OK);
    EXPECT_EQ(machine.map(1, 0, kPage - 1, 0x5000), OK);
    // Remembered now, by both.
    EXPECT_EQ(machine.read(disk, 0x10), 0x5010u);
    EXPECT_EQ(machine.read(other, 0x10), 0x5010u);

    EXPECT_EQ(inject(machine, "accesses endpoint=0x18 count=2"), "");
    EXPECT_EQ(machine.look(disk, 0x10).phys, 0x5010u); // no access
    EXPECT_EQ(viommu_endpoint_armed_accesses(disk.endpoint), 2u);
    EXPECT_EQ(machine.read(other, 0x10), 0x5010u);
    EXPECT_EQ(machine.read(disk, 0x10), FAULT);
    EXPECT_EQ(machine.pop(), (FaultRecord{kReasonMapping, R | kAddressValid, 0x18, 0x10}));
    EXPECT_EQ(machine.write(disk, 0x20), FAULT);
    EXPECT_EQ(machine.pop(), (FaultRecord{kReasonMapping, W | kAddressValid, 0x18, 0x20}));
    EXPECT_EQ(viommu_endpoint_armed_accesses(disk.endpoint), 0u);
    EXPECT_EQ(machine.read(disk, 0x10), 0x5010u);
    EXPECT_EQ(machine.read(disk, 0x10), 0x5010u);
    EXPECT_FALSE(machine.pop().has_value());
    EXPECT_EQ(machine.stats().faults, 2u);
}

TEST(Injection, MOD_26_WhatIsAnsweredWhileArmedIsNotRemembered)
{
    Machine machine(testing());
    Function &disk = machine.add(0x18);
    EXPECT_EQ(machine.attach(1, 0x18), OK);
    EXPECT_EQ(machine.map(1, 0, kPage - 1, 0), OK);
    EXPECT_EQ(inject(machine, "accesses endpoint=0x18 reason=unknown"), "");
    // Look-ups fill what threads remember, if they may.
    EXPECT_EQ(machine.look(disk, 0).rights, RW);
    EXPECT_EQ(machine.read(disk, 0), FAULT);
    EXPECT_EQ(machine.pop(), (FaultRecord{0, R | kAddressValid, 0x18, 0}));
}

TEST(Injection, MOD_26_NothingDisarmsAndAnUnpluggedFunctionTakesItAlong)
{
    Machine machine(testing());
    Function &disk = machine.add(0x18);
    EXPECT_EQ(machine.attach(1, 0x18), OK);
    EXPECT_EQ(machine.map(1, 0, kPage - 1, 0), OK);
    EXPECT_EQ(inject(machine, "accesses endpoint=0x18 count=100"), "");
    EXPECT_EQ(machine.read(disk, 0), FAULT);
    EXPECT_EQ(inject(machine, "nothing"), "");
    EXPECT_EQ(machine.read(disk, 0), 0u);
    EXPECT_EQ(inject(machine, "accesses endpoint=0x18 count=100"), "");
    machine.retire(disk);
    Function &next = machine.add(0x18);
    EXPECT_EQ(viommu_endpoint_armed_accesses(next.endpoint), 0u);
}

TEST(Injection, MOD_26_WhoCachesIsToldToAskAgain)
{
    Machine machine(testing());
    Function &disk = machine.add(0x18);
    EXPECT_EQ(machine.attach(1, 0x18), OK);
    machine.listen(disk, false, true);
    uint64_t first = MAX;
    uint64_t last = 0;
    machine.on_drop = [&](Function &, uint64_t iova, uint64_t mask) {
        first = std::min(first, iova);
        last = std::max(last, iova + mask);
    };
    EXPECT_EQ(inject(machine, "accesses endpoint=0x18"), "");
    EXPECT_EQ(first, 0u);
    EXPECT_EQ(last, MAX);
}

TEST(Injection, MOD_27_ARecordIsReportedWithoutAnAccess)
{
    Machine machine(testing());
    machine.add(0x18);
    EXPECT_EQ(inject(machine, "record endpoint=0x18 address=0x123456789 reason=domain access=rw"),
              "");
    EXPECT_EQ(machine.pop(), (FaultRecord{kReasonDomain, RW | kAddressValid, 0x18, 0x123456789}));
    EXPECT_EQ(inject(machine, "record endpoint=0x18 address=0"), "");
    EXPECT_EQ(machine.pop(), (FaultRecord{kReasonMapping, W | kAddressValid, 0x18, 0}));
    EXPECT_EQ(machine.stats().faults, 0u);
    ViommuFaultCounts counts{};
    viommu_engine_fault_counts(machine.engine(), &counts);
    EXPECT_EQ(counts.domain + counts.mapping, 0u);
}

TEST(Injection, MOD_27_ARecordThatWouldBeDroppedIsRefused)
{
    const std::string dropped = "inject: the record is dropped: no driver is there, one of this "
                                "page waits already, or too many do";
    Machine machine(testing());
    machine.add(0x18);
    EXPECT_EQ(inject(machine, "record endpoint=0x18 address=0"), "");
    EXPECT_EQ(inject(machine, "record endpoint=0x18 address=8"), dropped);
    viommu_engine_driver_reset(machine.engine());
    EXPECT_EQ(inject(machine, "record endpoint=0x18 address=0x9000"), dropped);
}

} // namespace

} // namespace viommu::test
