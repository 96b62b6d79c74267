// SPDX-License-Identifier: GPL-2.0-or-later
#include "assigned.h"

#include "edu.h"
#include "steps.h"

namespace bare
{

namespace
{

// Where the edu device sees memory; nothing of the machine is there.
constexpr uint32_t eduIova = 0x50000000;
constexpr unsigned eduPages = 6;

constexpr unsigned diskBus = 1;

struct Bed {
    Iommu &iommu;
    Endpoint disk{};
    bool hasDisk = false;
    Edu edu{};
    bool hasEdu = false;
    Addr memory = 0; // of the edu device

    // Pages that lie apart, and the addresses that they are mapped at, side by side.
    Addr page(unsigned i) const { return memory + 2 * i * pageSize; }
    static uint32_t iova(unsigned i) { return eduIova + i * static_cast<uint32_t>(pageSize); }
};

bool openDisk(Bed &bed, uint16_t bdf)
{
    if (!bed.disk.device.openPci(bdf) || bed.disk.device.id() != idBlock) {
        return false;
    }
    bed.disk.id = bdf;
    return true;
}

// The disk is behind the only bridge.
void find(Bed &bed)
{
    for (uint16_t bdf = 0; bdf < 0x100; bdf++) {
        bed.hasEdu |= !bed.hasEdu && bed.edu.open(bdf);
        if (!bed.hasDisk && openBridge(bdf, diskBus)) {
            bed.hasDisk = openDisk(bed, diskBus << 8);
        }
    }
    printAll("assigned disk=", static_cast<uint64_t>(bed.hasDisk ? bed.disk.id : 0),
             " edu=", static_cast<uint64_t>(bed.hasEdu ? bed.edu.bdf() : 0), "\n");
}

void fill(Addr page, uint32_t seed)
{
    for (unsigned i = 0; i < pageSize; i += 4) {
        store<uint32_t>(page + i, seed ^ i * 0x9e3779b9u);
    }
}

bool equal(Addr a, Addr b)
{
    for (unsigned i = 0; i < pageSize; i += 4) {
        if (load<uint32_t>(a + i) != load<uint32_t>(b + i)) {
            return false;
        }
    }
    return true;
}

// ---- the edu device ----

void mapPages(Bed &bed, uint32_t domain, unsigned first, unsigned count, Addr memory)
{
    expect(bed.iommu.map(domain, Bed::iova(first), count * pageSize, memory, mapRead | mapWrite),
           Status::ok, "edu", "MAP");
}

void mapPage(Bed &bed, uint32_t domain, unsigned i)
{
    mapPages(bed, domain, i, 1, bed.page(i));
}

void attachEdu(Bed &bed, uint32_t domain, uint32_t flags = 0)
{
    expect(bed.iommu.attach(domain, bed.edu.bdf(), flags), Status::ok, "edu", "ATTACH");
}

void detachEdu(Bed &bed, uint32_t domain)
{
    expect(bed.iommu.detach(domain, bed.edu.bdf()), Status::ok, "edu", "DETACH");
}

// A page goes through the device from `from` to `to`, which it sees at these addresses.
bool carries(Bed &bed, uint32_t fromIova, Addr from, uint32_t toIova, Addr to)
{
    static uint32_t seed = 1;

    fill(from, seed++);
    clear(to);
    return bed.edu.fetch(fromIova, pageSize) && bed.edu.put(toIova, pageSize) && equal(from, to);
}

void carried(Bed &bed, unsigned from, unsigned to, const char *what)
{
    check(carries(bed, Bed::iova(from), bed.page(from), Bed::iova(to), bed.page(to)), "edu", what);
}

// The device writes to `iova`, and must not reach `page`.
void refused(Bed &bed, uint32_t iova, Addr page, const char *step, const char *what)
{
    clear(page);
    check(bed.edu.put(iova, 8) && untouched(page), "edu", what);
    pause(step, iova);
}

void eduLife(Bed &bed, uint32_t domain)
{
    Iommu &iommu = bed.iommu;

    refused(bed, Bed::iova(1), bed.page(1), "edu unattached", "reaches nothing without a domain");
    attachEdu(bed, domain);
    expect(iommu.map(domain, Bed::iova(0), pageSize, bed.page(0), mapRead), Status::ok, "edu",
           "MAP of what it reads");
    mapPage(bed, domain, 1);
    carried(bed, 0, 1, "carries a page");
    pause("edu mapped");

    expect(iommu.unmap(domain, Bed::iova(1), pageSize), Status::ok, "edu", "UNMAP");
    refused(bed, Bed::iova(1), bed.page(1), "edu unmapped", "does not reach what is unmapped");
    refused(bed, Bed::iova(0), bed.page(0), "edu read-only",
            "does not write what it may only read");
    // Where a mapping was, another one leads elsewhere.
    mapPages(bed, domain, 1, 1, bed.page(2));
    clear(bed.page(1));
    check(carries(bed, Bed::iova(0), bed.page(0), Bed::iova(1), bed.page(2)) &&
              untouched(bed.page(1)),
          "edu", "follows a new mapping");
    expect(iommu.unmap(domain, 0, 1ull << 32), Status::ok, "edu", "UNMAP of everything");
    refused(bed, Bed::iova(1), bed.page(2), "edu all-unmapped", "reaches nothing any more");
    detachEdu(bed, domain);
}

// Mappings are removed whole; several may go at once, and others stay.
void parts(Bed &bed, uint32_t domain)
{
    Iommu &iommu = bed.iommu;
    const Addr two = bed.page(1); // and the page after it

    attachEdu(bed, domain);
    mapPage(bed, domain, 0);
    mapPages(bed, domain, 1, 2, two);
    mapPage(bed, domain, 3);
    expect(iommu.unmap(domain, Bed::iova(2), 2 * pageSize), Status::range, "edu",
           "UNMAP that would cut a mapping");
    carried(bed, 0, 3, "carries as before");
    check(carries(bed, Bed::iova(3), bed.page(3), Bed::iova(2), two + pageSize), "edu",
          "carries into the second page of a mapping");
    expect(iommu.unmap(domain, Bed::iova(0), 3 * pageSize), Status::ok, "edu",
           "UNMAP of two mappings of three");
    refused(bed, Bed::iova(0), bed.page(0), "edu first-of-two", "does not reach the first");
    refused(bed, Bed::iova(2), two + pageSize, "edu second-of-two", "does not reach the second");
    check(carries(bed, Bed::iova(3), bed.page(3), Bed::iova(3), bed.page(3)), "edu",
          "reaches the third");
    detachEdu(bed, domain);
}

// Mappings are in force for who joins, and for no one who leaves.
void company(Bed &bed, uint32_t domain)
{
    Endpoint &disk = bed.disk;

    attachAndStart(bed.iommu, disk, domain);
    mapData(bed.iommu, disk, domain, dataIova, disk.data(0));
    verifiedIo(disk, dataIova, disk.data(0));
    mapPage(bed, domain, 0);
    mapPage(bed, domain, 1);
    attachEdu(bed, domain);
    carried(bed, 0, 1, "carries a page in a domain that was there");
    detachEdu(bed, domain);
    refused(bed, Bed::iova(1), bed.page(1), "edu detached", "reaches nothing after it left");
    verifiedIo(disk, dataIova, disk.data(0));
    attachEdu(bed, domain);
    carried(bed, 1, 0, "carries a page when it is back");

    // Without a DETACH, to a domain where one address means another page.
    const uint32_t other = domain + 1;
    attachEdu(bed, other);
    mapPages(bed, other, 1, 1, bed.page(2));
    check(carries(bed, Bed::iova(1), bed.page(2), Bed::iova(1), bed.page(2)), "edu",
          "carries a page in another domain");
    refused(bed, Bed::iova(0), bed.page(0), "edu moved", "does not reach what the first one maps");
    verifiedIo(disk, dataIova, disk.data(0));
    disk.stop();
    expect(bed.iommu.detach(domain, disk.id), Status::ok, disk, "DETACH");
    detachEdu(bed, other);
}

// In a bypass domain the device sees memory at its own addresses.
void bypassed(Bed &bed, uint32_t domain)
{
    const uint32_t from = static_cast<uint32_t>(bed.page(0));
    const uint32_t to = static_cast<uint32_t>(bed.page(1));

    attachEdu(bed, domain, attachBypass);
    check(carries(bed, from, from, to, to), "edu", "carries a page in a bypass domain");
    attachEdu(bed, domain + 1);
    refused(bed, to, to, "edu no-bypass", "does not reach memory past its domain");
    mapPage(bed, domain + 1, 0);
    mapPage(bed, domain + 1, 1);
    carried(bed, 0, 1, "carries a page after a bypass domain");
    detachEdu(bed, domain + 1);
}

// What a driver leaves behind is gone when the next one comes.
void renewed(Bed &bed, uint32_t domain)
{
    attachEdu(bed, domain);
    mapPage(bed, domain, 0);
    mapPage(bed, domain, 1);
    carried(bed, 0, 1, "carries a page before a reset");
    bed.iommu.reset();
    check(bed.iommu.bringUp(), "iommu", "comes up again");
    refused(bed, Bed::iova(1), bed.page(1), "edu reset", "reaches nothing after a reset");
    attachEdu(bed, domain);
    mapPage(bed, domain, 1);
    mapPage(bed, domain, 2);
    carried(bed, 1, 2, "carries a page after a reset");
    refused(bed, Bed::iova(0), bed.page(0), "edu renewed",
            "does not reach what was mapped before a reset");
    detachEdu(bed, domain);
}

// ---- the disk ----

void diskLife(Bed &bed, uint32_t domain)
{
    Iommu &iommu = bed.iommu;
    Endpoint &disk = bed.disk;

    if (!attachAndStart(iommu, disk, domain)) {
        return;
    }
    mapData(iommu, disk, domain, dataIova, disk.data(0));
    mapData(iommu, disk, domain, dataIova + pageSize, disk.data(1));
    verifiedIo(disk, dataIova, disk.data(0));
    verifiedIo(disk, dataIova + pageSize, disk.data(1));
    pause("disk mapped");

    expect(iommu.unmap(domain, dataIova, pageSize), Status::ok, disk, "UNMAP");
    clear(disk.data(0));
    // What it then says of its own request is its affair: QEMU's devices do not learn of it.
    disk.read(readSector, dataIova, sectorSize, 200);
    check(untouched(disk.data(0)), disk.kind(), "does not reach what is unmapped");
    pause("disk unmapped", dataIova);
    disk.stop();
    check(disk.start(featureAccessPlatform, ringShift), disk.kind(), "starts again");
    verifiedIo(disk, dataIova + pageSize, disk.data(1));
    disk.stop();
    expect(iommu.detach(domain, disk.id), Status::ok, disk, "DETACH");
}

// It is unplugged with mappings in force, and another one takes its place.
void replugged(Bed &bed, uint32_t domain)
{
    Endpoint &disk = bed.disk;

    attachAndStart(bed.iommu, disk, domain);
    mapData(bed.iommu, disk, domain, dataIova, disk.data(0));
    verifiedIo(disk, dataIova, disk.data(0));
    // Keeps the domain.
    attachEdu(bed, domain);
    pause("disk unplug");
    eject(0);
    pause("disk plug");
    check(openDisk(bed, diskBus << 8), disk.kind(), "is there again");
    expect(bed.iommu.attach(domain, disk.id), Status::ok, disk, "ATTACH after it was plugged");
    check(disk.start(featureAccessPlatform, ringShift), disk.kind(), "starts");
    verifiedIo(disk, dataIova, disk.data(0));
    expect(bed.iommu.unmap(domain, dataIova, pageSize), Status::ok, disk, "UNMAP");
    clear(disk.data(0));
    disk.read(readSector, dataIova, sectorSize, 200);
    check(untouched(disk.data(0)), disk.kind(), "does not reach what is unmapped");
    pause("disk unmapped-again", dataIova);
    disk.stop();
    detachEdu(bed, domain);
    expect(bed.iommu.detach(domain, disk.id), Status::ok, disk, "DETACH");
}

} // namespace

void useAssigned(Iommu &iommu)
{
    Bed bed{iommu};

    find(bed);
    if (!check(bed.hasDisk && bed.hasEdu, "machine", "has the functions that were handed on")) {
        return;
    }
    bed.memory = allocPages(2 * eduPages);
    bed.disk.allocate();
    eduLife(bed, 1);
    diskLife(bed, 2);
    parts(bed, 3);
    company(bed, 4);
    bypassed(bed, 6);
    if (!same(option("reset", "on"), "off")) {
        renewed(bed, 8);
    }
    replugged(bed, 9);
    // The host may reset the machine now; nothing of this may be left then.
    attachEdu(bed, 10);
    mapPage(bed, 10, 0);
    mapPage(bed, 10, 1);
    carried(bed, 0, 1, "carries a page at the end");
    pause("edu end");
}

void fillHost(Iommu &iommu, uint32_t holder)
{
    Bed bed{iommu};
    const unsigned most = numberOption("most", 64);
    constexpr uint32_t domain = 1;
    constexpr uint32_t crowded = 2;
    const auto map = [&](uint32_t to, unsigned i) {
        return iommu.map(to, Bed::iova(2 * i), pageSize, bed.page(i % eduPages),
                         mapRead | mapWrite);
    };
    const auto reaches = [&](unsigned i, const char *what, unsigned other = 0) {
        check(carries(bed, Bed::iova(2 * other), bed.page(other % eduPages), Bed::iova(2 * i),
                      bed.page(i % eduPages)),
              "edu", what);
    };

    find(bed);
    if (!check(bed.hasEdu, "machine", "has the function that was handed on")) {
        return;
    }
    bed.memory = allocPages(2 * eduPages);
    attachEdu(bed, domain);
    // QEMU tells no IOMMU of it when a host does not follow, so that OK may be the answer.
    for (unsigned i = 0; i < 2 * most; i++) {
        const Status status = map(domain, i);
        if (status != Status::ok && status != Status::noMemory) {
            expect(status, Status::noMemory, "edu", "MAP of more than the host takes");
        }
    }
    reaches(most / 2, "reaches what there was room for");
    const unsigned last = 2 * most - 1;
    refused(bed, Bed::iova(2 * last), bed.page(last % eduPages), "edu full",
            "does not reach what the host did not take");
    expect(iommu.unmap(domain, 0, 1ull << 32), Status::ok, "edu", "UNMAP of all");
    refused(bed, Bed::iova(0), bed.page(0), "edu emptied", "reaches nothing any more");
    for (unsigned i = 0; i < most - 2; i++) {
        expect(map(domain, last - i), Status::ok, "edu", "MAP when there is room");
    }
    reaches(last, "reaches what there was no room for", last - 1);
    detachEdu(bed, domain);

    // A domain with more than the host takes.
    expect(iommu.attach(crowded, holder), Status::ok, "holder", "ATTACH");
    for (unsigned i = 0; i < 2 * most; i++) {
        expect(map(crowded, i), Status::ok, "holder", "MAP");
    }
    const Status status = iommu.attach(crowded, bed.edu.bdf());
    printAll("attach ", name(status), "\n");
    refused(bed, Bed::iova(2 * last), bed.page(last % eduPages), "edu crowded",
            "does not reach what the host did not take");
    expect(iommu.unmap(crowded, Bed::iova(most), 4ull * most * pageSize), Status::ok, "holder",
           "UNMAP of most of it");
    attachEdu(bed, crowded);
    expect(map(crowded, last), Status::ok, "holder", "MAP when there is room");
    reaches(last, "reaches what there was no room for");
    detachEdu(bed, crowded);
}

void meetNarrowHost(Iommu &iommu, uint32_t holder)
{
    Bed bed{iommu};
    const uint64_t end = 1ull << numberOption("width", 39);
    constexpr uint32_t domain = 1;
    constexpr uint32_t wide = 2;
    const auto map = [&](uint32_t to, uint64_t iova) {
        return iommu.map(to, iova, pageSize, bed.page(5), mapRead | mapWrite);
    };

    find(bed);
    if (!check(bed.hasEdu, "machine", "has the function that was handed on")) {
        return;
    }
    bed.memory = allocPages(2 * eduPages);
    attachEdu(bed, domain);
    expect(map(domain, end - pageSize), Status::ok, "edu", "MAP of the host's last page");
    expect(map(domain, end), Status::invalid, "edu", "RSV-4 MAP past the host's last page");
    expect(map(domain, 2 * end), Status::invalid, "edu", "RSV-4 MAP far beyond it");
    mapPage(bed, domain, 0);
    mapPage(bed, domain, 1);
    carried(bed, 0, 1, "carries a page");

    expect(iommu.attach(wide, holder), Status::ok, "holder", "ATTACH");
    expect(map(wide, end), Status::ok, "holder", "MAP of what the host does not know");
    expect(iommu.attach(wide, bed.edu.bdf()), Status::unsupported, "edu",
           "ATT-9 ATTACH to a domain with such a mapping");
    carried(bed, 1, 0, "carries a page as before");
    expect(iommu.unmap(wide, end, pageSize), Status::ok, "holder", "UNMAP");
    mapPages(bed, wide, 2, 1, bed.page(3));
    attachEdu(bed, wide);
    check(carries(bed, Bed::iova(2), bed.page(3), Bed::iova(2), bed.page(3)), "edu",
          "carries a page without such a mapping");
    expect(map(wide, end), Status::invalid, "edu", "RSV-4 MAP when it is in the domain");
    refused(bed, Bed::iova(0), bed.page(0), "edu moved", "does not reach what it left");
    detachEdu(bed, wide);
    expect(map(wide, end), Status::ok, "holder", "MAP when it has left");
}

void timeAssigned(Iommu &iommu, uint32_t holder)
{
    Bed bed{iommu};
    const unsigned spans = numberOption("spans", 10);
    const unsigned maps = numberOption("maps", 100);
    const unsigned many = numberOption("many", 1000);
    constexpr uint32_t domain = 1;
    constexpr uint32_t crowded = 2;

    find(bed);
    if (!check(bed.hasEdu, "machine", "has the function that was handed on")) {
        return;
    }
    bed.memory = allocPages(2 * eduPages);
    attachEdu(bed, domain);
    for (unsigned span = 0; span < spans; span++) {
        uint64_t begin = ticks();
        for (unsigned i = 0; i < maps; i++) {
            // Every other page, so that no two become one.
            if (iommu.map(domain, Bed::iova(2 * i), pageSize, bed.page(i % eduPages),
                          mapRead | mapWrite) != Status::ok) {
                fail("a timed MAP did not succeed");
            }
        }
        printAll("time what=map ticks=", ticks() - begin, "\n");
        check(carries(bed, Bed::iova(0), bed.page(0), Bed::iova(2), bed.page(1)), "edu",
              "carries a page");
        begin = ticks();
        for (unsigned i = 0; i < maps; i++) {
            if (iommu.unmap(domain, Bed::iova(2 * i), pageSize) != Status::ok) {
                fail("a timed UNMAP did not succeed");
            }
        }
        printAll("time what=unmap ticks=", ticks() - begin, "\n");
    }
    detachEdu(bed, domain);

    expect(iommu.attach(crowded, holder), Status::ok, "holder", "ATTACH");
    for (unsigned i = 0; i < many; i++) {
        if (iommu.map(crowded, Bed::iova(2 * i), pageSize, bed.page(i % eduPages),
                      mapRead | mapWrite) != Status::ok) {
            fail("a MAP did not succeed");
        }
    }
    const unsigned last = many - 1;
    for (unsigned span = 0; span < spans; span++) {
        uint64_t begin = ticks();
        attachEdu(bed, crowded);
        printAll("time what=attach ticks=", ticks() - begin, "\n");
        check(
            carries(bed, Bed::iova(0), bed.page(0), Bed::iova(2 * last), bed.page(last % eduPages)),
            "edu", "carries a page to the last one");
        begin = ticks();
        detachEdu(bed, crowded);
        printAll("time what=detach ticks=", ticks() - begin, "\n");
    }
}

} // namespace bare
