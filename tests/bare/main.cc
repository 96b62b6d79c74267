// SPDX-License-Identifier: GPL-2.0-or-later
//
// The bare guest: finds the IOMMU without any table of the firmware, learns
// from the array in its config space what it manages, and runs one scenario.
#include "assigned.h"
#include "looping.h"
#include "network.h"
#include "processors.h"
#include "steps.h"
#include "timing.h"

namespace bare
{

namespace
{

constexpr unsigned maxEndpoints = 16;

struct Machine {
    Iommu &iommu;
    Endpoint *endpoints; // in the array
    unsigned count;
    Endpoint *others; // not in the array
    unsigned otherCount;
};

// ---- finding things ----

bool findIommu(Device &device)
{
    for (unsigned i = 0; i < transports.count; i++) {
        if (device.openMmio(transports.base + i * transports.stride) && device.id() == idIommu) {
            return true;
        }
    }
    for (uint16_t bdf = 0; bdf < 0x100; bdf++) {
        if (pciRead32(bdf, 0) == 0x10571af4 && device.openPci(bdf)) {
            return true;
        }
    }
    return false;
}

void addEndpoint(Endpoint *list, unsigned &count, const Device &device, uint32_t id)
{
    if (device.id() != idBlock && device.id() != idEntropy) {
        return;
    }
    if (count == maxEndpoints) {
        fail("too many endpoints");
    }
    Endpoint &endpoint = list[count++];
    endpoint.device = device;
    endpoint.id = id;
    endpoint.allocate();
    printAll("endpoint id=", static_cast<uint64_t>(id),
             device.onPci() ? " pci=" : " mmio=", device.onPci() ? device.bdf() : device.base(),
             " kind=", endpoint.kind(), "\n");
}

void findEndpoints(Iommu &iommu, Endpoint *list, unsigned &count)
{
    Device device;

    for (unsigned i = 0; i < iommu.managedCount(); i++) {
        const Managed &item = iommu.managed(i);

        if (!item.pciRange) {
            if (!device.openMmio(item.base)) {
                fail("the array names a transport without a device");
            }
            addEndpoint(list, count, device, item.endpoint);
            continue;
        }
        // All functions of ours sit on bus 0.
        for (uint32_t bdf = item.requesterFirst; bdf <= item.requesterLast && bdf < 0x100; bdf++) {
            const bool self = iommu.device().onPci() && iommu.device().bdf() == bdf;
            if (!self && device.openPci(static_cast<uint16_t>(bdf))) {
                addEndpoint(list, count, device, bdf - item.requesterFirst + item.endpoint);
            }
        }
    }
}

// Transports that the array does not name.
void findOthers(const Iommu &iommu, Endpoint *list, unsigned &count)
{
    Device device;

    for (unsigned i = 0; i < transports.count; i++) {
        const Addr base = transports.base + i * transports.stride;
        bool named = false;
        for (unsigned j = 0; j < iommu.managedCount(); j++) {
            named |= !iommu.managed(j).pciRange && iommu.managed(j).base == base;
        }
        if (!named && device.openMmio(base)) {
            addEndpoint(list, count, device, 0);
        }
    }
}

// ---- checks that scenarios are made of ----

// The device tries to write to `iova` and must not reach `page`.  What it then says
// of its own request is its affair: QEMU's devices do not learn of a fault.
void blockedIo(Iommu &iommu, Endpoint &endpoint, uint64_t iova, Addr page, uint8_t reason)
{
    Fault fault = {};

    clear(page);
    endpoint.deviceWrites(iova, sectorSize, 20);
    check(iommu.takeFault(fault), endpoint.kind(), "faults");
    printAll("fault reason=", static_cast<uint64_t>(fault.reason),
             " endpoint=", static_cast<uint64_t>(fault.endpoint), " address=", fault.address,
             " flags=", static_cast<uint64_t>(fault.flags), "\n");
    check(fault.reason == reason, endpoint.kind(), "faults for the right reason");
    check(fault.endpoint == endpoint.id, endpoint.kind(), "is named by the record");
    if (reason == faultMapping) {
        check((fault.address & ~(pageSize - 1)) == iova, endpoint.kind(), "address in the record");
        check(fault.flags == (faultWrite | faultAddress), endpoint.kind(), "flags in the record");
    }
    check(untouched(page), endpoint.kind(), "left the page alone");
    endpoint.stop();
    iommu.dropFaults();
}

// ---- scenarios ----

// The life of an attachment: map, use, unmap, detach.
void io(Machine &machine)
{
    for (unsigned i = 0; i < machine.count; i++) {
        Endpoint &endpoint = machine.endpoints[i];
        const uint32_t domain = 10 + i;

        expect(machine.iommu.probe(endpoint.id), Status::ok, endpoint, "PROBE");
        if (!attachAndStart(machine.iommu, endpoint, domain)) {
            continue;
        }
        mapData(machine.iommu, endpoint, domain, dataIova, endpoint.data(0));
        mapData(machine.iommu, endpoint, domain, dataIova + pageSize, endpoint.data(1));
        verifiedIo(endpoint, dataIova, endpoint.data(0));
        verifiedIo(endpoint, dataIova + pageSize, endpoint.data(1));

        expect(machine.iommu.unmap(domain, dataIova, pageSize), Status::ok, endpoint, "UNMAP");
        blockedIo(machine.iommu, endpoint, dataIova, endpoint.data(0), faultMapping);
        expect(machine.iommu.detach(domain, endpoint.id), Status::ok, endpoint, "DETACH");
        check(endpoint.start(featureAccessPlatform, ringShift), endpoint.kind(), "starts again");
        blockedIo(machine.iommu, endpoint, dataIova + pageSize, endpoint.data(1), faultDomain);
    }
}

// All endpoints in one domain, and one of them taken out.
void shared(Machine &machine)
{
    for (unsigned i = 0; i < machine.count; i++) {
        Endpoint &endpoint = machine.endpoints[i];
        attachAndStart(machine.iommu, endpoint, 1);
        mapData(machine.iommu, endpoint, 1, dataIova + 16 * pageSize * i, endpoint.data(0));
    }
    for (unsigned i = 0; i < machine.count; i++) {
        verifiedIo(machine.endpoints[i], dataIova + 16 * pageSize * i,
                   machine.endpoints[i].data(0));
    }
    for (unsigned i = 0; i + 1 < machine.count; i++) {
        Endpoint &endpoint = machine.endpoints[i];
        expect(machine.iommu.detach(1, endpoint.id), Status::ok, endpoint, "DETACH");
        blockedIo(machine.iommu, endpoint, dataIova + 16 * pageSize * i, endpoint.data(0),
                  faultDomain);
    }
    verifiedIo(machine.endpoints[machine.count - 1], dataIova + 16 * pageSize * (machine.count - 1),
               machine.endpoints[machine.count - 1].data(0));
}

// An endpoint moves between two domains, where one address means two pages.
void move(Machine &machine)
{
    for (unsigned i = 0; i < machine.count; i++) {
        Endpoint &endpoint = machine.endpoints[i];

        for (uint32_t domain = 1; domain <= 2; domain++) {
            attachAndStart(machine.iommu, endpoint, domain);
            mapData(machine.iommu, endpoint, domain, dataIova, endpoint.data(domain - 1));
            clear(endpoint.data(2 - domain));
            verifiedIo(endpoint, dataIova, endpoint.data(domain - 1));
            check(untouched(endpoint.data(2 - domain)), endpoint.kind(), "left the other page");
            endpoint.stop();
        }
        expect(machine.iommu.unmap(1, dataIova, pageSize), Status::noEntry, endpoint,
               "the domain it left is gone");
        expect(machine.iommu.detach(2, endpoint.id), Status::ok, endpoint, "DETACH");
    }
}

// A domain of the BYPASS kind: memory at its own addresses.
void bypass(Machine &machine)
{
    for (unsigned i = 0; i < machine.count; i++) {
        Endpoint &endpoint = machine.endpoints[i];

        expect(machine.iommu.attach(5, endpoint.id, attachBypass), Status::ok, endpoint,
               "ATTACH to a bypass domain");
        expect(machine.iommu.map(5, dataIova, pageSize, endpoint.data(0), mapRead), Status::invalid,
               endpoint, "MAP in a bypass domain");
        check(endpoint.start(featureAccessPlatform, 0), endpoint.kind(), "starts");
        verifiedIo(endpoint, endpoint.data(0), endpoint.data(0));
        endpoint.stop();
    }
}

// Resetting the IOMMU takes everything from the endpoints.
void reset(Machine &machine)
{
    for (unsigned i = 0; i < machine.count; i++) {
        Endpoint &endpoint = machine.endpoints[i];

        attachAndStart(machine.iommu, endpoint, 1);
        mapData(machine.iommu, endpoint, 1, dataIova, endpoint.data(0));
        verifiedIo(endpoint, dataIova, endpoint.data(0));
        machine.iommu.reset();
        check(machine.iommu.bringUp(), "iommu", "comes up again");
        blockedIo(machine.iommu, endpoint, dataIova, endpoint.data(0), faultDomain);
        expect(machine.iommu.unmap(1, dataIova, pageSize), Status::noEntry, endpoint,
               "the domain is gone");
        attachAndStart(machine.iommu, endpoint, 1);
        mapData(machine.iommu, endpoint, 1, dataIova, endpoint.data(0));
        verifiedIo(endpoint, dataIova, endpoint.data(0));
        endpoint.stop();
        expect(machine.iommu.detach(1, endpoint.id), Status::ok, endpoint, "DETACH");
    }
}

// Devices that the array does not name reach memory at its own addresses.
void outside(Machine &machine)
{
    check(machine.otherCount, "machine", "has devices outside the array");
    for (unsigned i = 0; i < machine.otherCount; i++) {
        Endpoint &endpoint = machine.others[i];

        check(!(endpoint.device.offered() & featureAccessPlatform), endpoint.kind(),
              "does not offer ACCESS_PLATFORM");
        check(endpoint.start(0, 0), endpoint.kind(), "starts");
        verifiedIo(endpoint, endpoint.data(0), endpoint.data(0));
        endpoint.stop();
    }
}

// Nothing but what the array says.
void array(Machine &machine)
{
    for (unsigned i = 0; i < machine.count; i++) {
        expect(machine.iommu.probe(machine.endpoints[i].id), Status::ok, machine.endpoints[i],
               "PROBE");
    }
}

// Messages that the IOMMU sees go where a mapping leads, or nowhere.
void astray(Iommu &iommu, Endpoint &endpoint, uint32_t domain, uint8_t vector)
{
    const uint64_t iova = dataIova + 64 * pageSize;
    const uint32_t before = interruptsOf(vector);
    Fault fault = {};

    endpoint.awaitInterrupt(0);
    endpoint.device.interruptBy(0, {iova, vector});
    check(endpoint.fill(dataIova, 256), endpoint.kind(), "delivers without a message");
    check(iommu.takeFaultOf(endpoint.id, iova, fault) && fault.address == iova &&
              fault.reason == faultMapping && fault.flags == (faultWrite | faultAddress),
          endpoint.kind(), "faults with its message");
    check(iommu.map(domain, iova, pageSize, endpoint.data(1), mapWrite) == Status::ok,
          endpoint.kind(), "MAP for its message");
    clear(endpoint.data(1));
    check(endpoint.fill(dataIova, 256), endpoint.kind(), "delivers with a mapped message");
    check(waitFor(2000, [&] { return load<uint32_t>(endpoint.data(1)) == vector; }),
          endpoint.kind(), "writes its message to memory");
    check(interruptsOf(vector) == before, endpoint.kind(), "interrupts nobody");
    endpoint.device.interruptBy(0, messageFor(vector));
    endpoint.awaitInterrupt(vector);
    verifiedIo(endpoint, dataIova, endpoint.data(0));
}

// Interrupts of the devices by messages; those of the IOMMU, which has none, by its pin.
void interrupts(Machine &machine)
{
    Iommu &iommu = machine.iommu;
    Device &device = iommu.device();

    if (!device.pinStatus() || !takeInterrupts(device.pinStatus())) {
        fail("no interrupts on this machine");
    }
    check(!device.interruptBy(0, messageFor(firstVector)), "iommu", "W30 has no MSI-X table");
    for (unsigned i = 0; i < machine.count; i++) {
        Endpoint &endpoint = machine.endpoints[i];
        const uint32_t domain = 10 + i;
        const uint8_t vector = static_cast<uint8_t>(firstVector + i);

        uint32_t before = interruptsOfPins();
        expect(iommu.probe(endpoint.id), Status::ok, endpoint, "PROBE");
        check(waitFor(2000, [&] { return interruptsOfPins() != before; }), "iommu",
              "interrupts for an answer");

        check(endpoint.device.interruptBy(0, messageFor(vector)), endpoint.kind(), "has MSI-X");
        endpoint.awaitInterrupt(vector);
        attachAndStart(iommu, endpoint, domain);
        mapData(iommu, endpoint, domain, dataIova, endpoint.data(0));
        verifiedIo(endpoint, dataIova, endpoint.data(0));
        // The disk's messages may go through KVM alone, which knows no IOMMU.
        if (!endpoint.isBlock()) {
            astray(iommu, endpoint, domain, vector);
        }

        expect(iommu.unmap(domain, dataIova, pageSize), Status::ok, endpoint, "UNMAP");
        check(waitFor(2000, [&] { return !load<uint8_t>(device.pinStatus()); }), "iommu",
              "lets go of its pin");
        before = interruptsOfPins();
        endpoint.awaitInterrupt(0);
        blockedIo(iommu, endpoint, dataIova, endpoint.data(0), faultMapping);
        check(waitFor(2000, [&] { return interruptsOfPins() != before; }), "iommu",
              "interrupts for a fault record");
        expect(iommu.detach(domain, endpoint.id), Status::ok, endpoint, "DETACH");
    }
}

// Each processor has a disk.
void processors(Machine &machine)
{
    Endpoint *disks[Iommu::maxProcessors];
    unsigned count = 0;

    for (unsigned i = 0; i < machine.count; i++) {
        if (machine.endpoints[i].isBlock() && count < Iommu::maxProcessors) {
            disks[count++] = &machine.endpoints[i];
        }
    }
    runOnProcessors(machine.iommu, disks, count, numberOption("rounds", 16));
}

const struct {
    const char *name;
    void (*run)(Machine &machine);
} scenarios[] = {
    {"io", io},         {"shared", shared},         {"move", move},
    {"bypass", bypass}, {"reset", reset},           {"outside", outside},
    {"array", array},   {"interrupts", interrupts}, {"processors", processors},
};

void printArray(const Iommu &iommu)
{
    for (unsigned i = 0; i < iommu.managedCount(); i++) {
        const Managed &item = iommu.managed(i);
        if (item.pciRange) {
            printAll("range id=", static_cast<uint64_t>(item.endpoint),
                     " segment=", static_cast<uint64_t>(item.segment),
                     " first=", static_cast<uint64_t>(item.requesterFirst),
                     " last=", static_cast<uint64_t>(item.requesterLast), "\n");
        } else {
            printAll("item id=", static_cast<uint64_t>(item.endpoint), " base=", item.base, "\n");
        }
    }
}

Endpoint endpoints[maxEndpoints];
Endpoint others[maxEndpoints];

[[noreturn]] void finish()
{
    printAll("result ", allPassed() ? "pass" : "fail", " checks=");
    printDecimal(checksMade());
    print("\n");
    powerOff(allPassed());
}

// What a host does for functions of this machine; the IOMMU has no array.
[[noreturn]] void runAssigned(const char *scenario)
{
    const uint32_t holder = numberOption("holder", 0);
    Device device;

    printAll("viommu bare guest: ", scenario, "\n");
    if (!findIommu(device)) {
        fail("no IOMMU");
    }
    Iommu iommu(device);
    check(iommu.bringUp(), "iommu", "comes up");
    if (same(scenario, "assigned-time")) {
        timeAssigned(iommu, holder);
    } else if (same(scenario, "assigned-full")) {
        fillHost(iommu, holder);
    } else if (same(scenario, "assigned-narrow")) {
        meetNarrowHost(iommu, holder);
    } else if (same(scenario, "network")) {
        useNetwork(iommu);
    } else {
        useAssigned(iommu);
    }
    finish();
}

// The IOMMU need have no array; for the bench, there need be none.
[[noreturn]] void runOnPci(bool loops)
{
    Device device;
    const bool translated = findIommu(device);
    Iommu iommu(device);
    unsigned count = 0;

    printAll("viommu bare guest: ", loops ? "loop, " : "timed, ", translated ? "with" : "without",
             " an IOMMU\n");
    for (uint16_t bdf = 0; bdf < 0x100; bdf++) {
        const bool self = translated && iommu.device().bdf() == bdf;
        if (!self && device.openPci(bdf) && device.id() == idBlock) {
            addEndpoint(endpoints, count, device, bdf);
        }
    }
    if (!count) {
        fail("no block device on PCI");
    }
    if (translated) {
        check(iommu.bringUp(), "iommu", "comes up");
    }
    if (loops) {
        if (!translated) {
            fail("no IOMMU");
        }
        loopReads(iommu, endpoints[0], numberOption("rounds", 1000));
    }
    timeReads(translated ? &iommu : nullptr, endpoints[0], numberOption("spans", 1),
              numberOption("reads", 1));
    finish();
}

void run()
{
    const char *wanted = option("scenario", "io");
    const char *layout = option("layout", "v2");
    Device device;

    static const char *const ofHosts[] = {"assigned", "assigned-time", "assigned-full",
                                          "assigned-narrow", "network"};
    for (const char *scenario : ofHosts) {
        if (same(wanted, scenario)) {
            runAssigned(wanted);
        }
    }
    if (same(wanted, "time") || same(wanted, "loop")) {
        runOnPci(same(wanted, "loop"));
    }
    printAll("viommu bare guest: scenario ", wanted, ", array ", layout, "\n");
    if (!findIommu(device)) {
        fail("no IOMMU");
    }
    printAll("iommu ",
             device.onPci() ? "pci=" : "mmio=", device.onPci() ? device.bdf() : device.base(),
             "\n");
    Iommu iommu(device);
    if (!iommu.readArray(same(layout, "v3") ? Layout::v3 : Layout::v2)) {
        fail("the IOMMU shows no array of this layout");
    }
    printArray(iommu);
    Machine machine = {iommu, endpoints, 0, others, 0};
    findEndpoints(iommu, endpoints, machine.count);
    findOthers(iommu, others, machine.otherCount);
    check(machine.count, "array", "names endpoints");
    check(iommu.bringUp(), "iommu", "comes up");
    for (const auto &scenario : scenarios) {
        if (same(scenario.name, wanted)) {
            scenario.run(machine);
            finish();
        }
    }
    fail("there is no such scenario");
}

} // namespace

} // namespace bare

extern "C" void bareMain()
{
    bare::run();
    bare::powerOff(false);
}
