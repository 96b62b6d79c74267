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

struct Bed {
    Iommu &iommu;
    Endpoint disk{};
    bool hasDisk = false;
    Edu edu{};
    bool hasEdu = false;
    Addr pages = 0; // of the edu device
};

// The host looks whether its own IOMMU refused an access to this address, if there is
// one, and says when to go on.
void pause(const char *where, uint64_t address = 0)
{
    printAll("pause ", where);
    if (address) {
        printAll(" ", address);
    }
    print("\n");
    char c = 0;
    while (c != '\n') {
        if (!waitFor(120000, [&] { return consoleGet(c); })) {
            fail("the host does not answer");
        }
    }
}

void find(Bed &bed)
{
    for (uint16_t bdf = 0; bdf < 0x100; bdf++) {
        if (bdf == bed.iommu.device().bdf()) {
            continue;
        }
        if (!bed.hasDisk && bed.disk.device.openPci(bdf) && bed.disk.device.id() == idBlock) {
            bed.disk.id = bdf;
            bed.hasDisk = true;
        } else if (!bed.hasEdu && bed.edu.open(bdf)) {
            bed.hasEdu = true;
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

// From `from` to `to` through the device, which sees them at these addresses.
bool carries(Bed &bed, uint32_t fromIova, Addr from, uint32_t toIova, Addr to, uint32_t seed)
{
    fill(from, seed);
    clear(to);
    return bed.edu.fetch(fromIova, pageSize) && bed.edu.put(toIova, pageSize) && equal(from, to);
}

void eduLife(Bed &bed, uint32_t domain)
{
    Iommu &iommu = bed.iommu;
    const Addr first = bed.pages;
    const Addr second = bed.pages + 2 * pageSize;
    const uint32_t secondIova = eduIova + 16 * pageSize;

    expect(iommu.attach(domain, bed.edu.bdf()), Status::ok, "edu", "ATTACH");
    expect(iommu.map(domain, eduIova, pageSize, first, mapRead), Status::ok, "edu",
           "MAP of what it reads");
    expect(iommu.map(domain, secondIova, pageSize, second, mapRead | mapWrite), Status::ok, "edu",
           "MAP of what it writes");
    check(carries(bed, eduIova, first, secondIova, second, 0x1234), "edu", "carries a page");
    pause("edu mapped");

    expect(iommu.unmap(domain, secondIova, pageSize), Status::ok, "edu", "UNMAP");
    clear(second);
    check(bed.edu.put(secondIova, 8) && untouched(second), "edu",
          "does not reach what is unmapped");
    pause("edu unmapped", secondIova);
    clear(first);
    check(bed.edu.put(eduIova, 8) && untouched(first), "edu",
          "does not write what it may only read");
    pause("edu read-only", eduIova);
    expect(iommu.detach(domain, bed.edu.bdf()), Status::ok, "edu", "DETACH");
}

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

} // namespace

void useAssigned(Iommu &iommu)
{
    Bed bed{iommu};

    find(bed);
    check(bed.hasDisk || bed.hasEdu, "machine", "has a function that was handed on");
    bed.pages = allocPages(8);
    if (bed.hasEdu) {
        eduLife(bed, 2);
    }
    if (bed.hasDisk) {
        bed.disk.allocate();
        diskLife(bed, 1);
    }
}

} // namespace bare
