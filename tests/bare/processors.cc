// SPDX-License-Identifier: GPL-2.0-or-later
#include "processors.h"

namespace bare
{

namespace
{

constexpr unsigned stackPages = 4;
constexpr uint64_t firstSector = 16;
constexpr uint64_t writeSector = 64;
constexpr unsigned sectors = pageSize / sectorSize;
constexpr unsigned blockEvery = 4; // rounds; each ends with a reset of the disk

// What a processor has to do and what came of it; only the first one prints.
struct Work {
    Endpoint *disk;
    uint32_t domain;
    unsigned rounds;
    volatile bool started;
    volatile bool done;
    unsigned blocked;
    uint32_t firstRead; // checksum of what the disk held
    uint32_t written;
    unsigned round;
    const char *volatile failure;
};

Work works[Iommu::maxProcessors];
Iommu *sharedIommu;
volatile unsigned startedCount;
unsigned wantedCount;

uint8_t patternAt(const Work &work, unsigned i)
{
    return static_cast<uint8_t>(i * 13 + i / 256 + work.round * 31 + work.domain * 7);
}

void fillPattern(const Work &work, Addr page)
{
    for (unsigned i = 0; i < pageSize; i++) {
        store<uint8_t>(page + i, patternAt(work, i));
    }
}

bool hasPattern(const Work &work, Addr page)
{
    for (unsigned i = 0; i < pageSize; i++) {
        if (load<uint8_t>(page + i) != patternAt(work, i)) {
            return false;
        }
    }
    return true;
}

bool map(const Work &work, uint64_t iova, Addr page, uint32_t rights)
{
    return sharedIommu->map(work.domain, iova, pageSize, page, rights) == Status::ok;
}

bool unmap(const Work &work, uint64_t iova)
{
    return sharedIommu->unmap(work.domain, iova, pageSize) == Status::ok;
}

// The disk's write to `iova` must fault for this reason and reach none of its pages.
const char *blocked(Work &work, uint64_t iova, uint8_t reason)
{
    Endpoint &disk = *work.disk;
    Fault fault = {};

    for (unsigned i = 0; i < Endpoint::dataPages; i++) {
        clear(disk.data(i));
    }
    // Without an attachment the first thing that the device cannot read is its ring.
    const bool attached = reason == faultMapping;
    const uint64_t page = attached ? iova : disk.ringPage();
    // What it says of its request is its affair: QEMU's devices do not learn of a fault.
    disk.read(firstSector, iova, pageSize, 20);
    if (!sharedIommu->takeFaultOf(disk.id, page, fault)) {
        return "no fault record";
    }
    if (fault.reason != reason) {
        return "a fault for another reason";
    }
    if (attached && fault.flags != (faultWrite | faultAddress)) {
        return "a fault with other flags";
    }
    disk.stop();
    for (unsigned i = 0; i < Endpoint::dataPages; i++) {
        if (!untouched(disk.data(i))) {
            return "a page was written that is not mapped";
        }
    }
    work.blocked++;
    return nullptr;
}

const char *round(Work &work)
{
    Endpoint &disk = *work.disk;
    const uint64_t iova = dataIova + 16 * pageSize * (work.round % 4);
    const uint64_t other = iova + pageSize;
    const uint64_t sector = writeSector + sectors * (work.round % 8);

    fillPattern(work, disk.data(0));
    if (!map(work, iova, disk.data(0), mapRead | mapWrite)) {
        return "MAP";
    }
    if (!disk.write(sector, iova, pageSize)) {
        return "a write";
    }
    work.written = crc32(work.written, disk.data(0), pageSize);

    clear(disk.data(1));
    if (!map(work, other, disk.data(1), mapWrite)) {
        return "MAP for writing";
    }
    if (!disk.read(sector, other, pageSize)) {
        return "a read";
    }
    if (!hasPattern(work, disk.data(1))) {
        return "data read back";
    }

    // The same address, another page: what was translated before, with all that the
    // transfer needs, counts no more.
    clear(disk.data(0));
    clear(disk.data(2));
    if (!unmap(work, iova) || !map(work, iova, disk.data(2), mapWrite)) {
        return "UNMAP and MAP";
    }
    if (!disk.read(sector, iova, pageSize)) {
        return "a read to another page";
    }
    if (!hasPattern(work, disk.data(2))) {
        return "data read to another page";
    }
    if (!untouched(disk.data(0))) {
        return "a page was written that is no longer mapped";
    }
    if (!unmap(work, iova) || !unmap(work, other)) {
        return "UNMAP";
    }
    if ((work.round + 1) % blockEvery) {
        return nullptr;
    }

    if (const char *failure = blocked(work, iova, faultMapping)) {
        return failure;
    }
    if (work.round / blockEvery % 2) {
        if (sharedIommu->detach(work.domain, disk.id) != Status::ok ||
            !disk.start(featureAccessPlatform, ringShift)) {
            return "DETACH";
        }
        if (const char *failure = blocked(work, iova, faultDomain)) {
            return failure;
        }
        if (sharedIommu->attach(work.domain, disk.id) != Status::ok ||
            !disk.mapRings(*sharedIommu, work.domain)) {
            return "ATTACH again";
        }
    }
    return disk.start(featureAccessPlatform, ringShift) ? nullptr : "a start";
}

const char *allRounds(Work &work)
{
    Endpoint &disk = *work.disk;

    if (sharedIommu->attach(work.domain, disk.id) != Status::ok ||
        !disk.mapRings(*sharedIommu, work.domain) ||
        !disk.start(featureAccessPlatform, ringShift)) {
        return "ATTACH and a start";
    }
    clear(disk.data(0));
    if (!map(work, dataIova, disk.data(0), mapWrite) ||
        !disk.read(firstSector, dataIova, pageSize) || !unmap(work, dataIova)) {
        return "the first read";
    }
    work.firstRead = crc32(0, disk.data(0), pageSize);
    for (work.round = 0; work.round < work.rounds; work.round++) {
        if (const char *failure = round(work)) {
            return failure;
        }
    }
    disk.stop();
    return sharedIommu->detach(work.domain, disk.id) == Status::ok ? nullptr : "the last DETACH";
}

void doWork()
{
    Work &work = works[processor()];

    work.started = true;
    // None goes ahead: they are to meet.
    if (!waitFor(10000, [] { return startedCount == wantedCount; })) {
        work.failure = "the others do not come";
    } else {
        work.failure = allRounds(work);
    }
    barrier();
    work.done = true;
}

void runOther()
{
    doWork();
    for (;;) {
        idle();
    }
}

} // namespace

void runOnProcessors(Iommu &iommu, Endpoint *const *disks, unsigned count, unsigned rounds)
{
    sharedIommu = &iommu;
    wantedCount = count;
    for (unsigned i = 0; i < count; i++) {
        works[i] = {};
        works[i].disk = disks[i];
        works[i].domain = 20 + i;
        works[i].rounds = rounds;
    }
    works[0].started = true;
    for (unsigned i = 1; i < count; i++) {
        const Addr stack = allocPages(stackPages);
        if (!startProcessor(i, stack + stackPages * pageSize, runOther) ||
            !waitFor(5000, [i] { return works[i].started; })) {
            fail("a processor does not start");
        }
    }
    startedCount = count;
    doWork();
    for (unsigned i = 0; i < count; i++) {
        const Work &work = works[i];
        check(waitFor(10000, [&] { return work.done; }), "processor", "ends");
        if (work.failure) {
            printAll("processor ", static_cast<uint64_t>(i), " round ",
                     static_cast<uint64_t>(work.round), ": ", work.failure, "\n");
        }
        check(!work.failure && work.done, "processor", "sees its data, and its faults");
        printAll("processor ", static_cast<uint64_t>(i),
                 " endpoint=", static_cast<uint64_t>(work.disk->id),
                 " rounds=", static_cast<uint64_t>(work.round),
                 " blocked=", static_cast<uint64_t>(work.blocked),
                 " read=", static_cast<uint64_t>(work.firstRead),
                 " written=", static_cast<uint64_t>(work.written), "\n");
    }
}

} // namespace bare
