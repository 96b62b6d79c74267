// SPDX-License-Identifier: GPL-2.0-or-later
#include "looping.h"

namespace bare
{

namespace
{

constexpr uint32_t domain = 1;
constexpr unsigned diskBlocks = 256;
constexpr unsigned bufferPages = 32;
constexpr unsigned ledgerPages = 256;
constexpr uint32_t wordsPerPage = pageSize / sizeof(uint32_t);
constexpr uint32_t addresses = 1024;
// Of a busy host, with the time that a move takes.
constexpr unsigned patience = 120000;

// What the CPU wrote is kept twice, far apart: a page that is lost on the way shows.
class Ledger
{
public:
    Ledger() : pages_(allocPages(2 * ledgerPages)) {}

    void visit(uint32_t number)
    {
        const Addr one = pages_ + number % ledgerPages * pageSize;
        const Addr other = one + ledgerPages * pageSize;
        const uint32_t count = load<uint32_t>(one);

        if (load<uint32_t>(other) != ~count && (count || load<uint32_t>(other))) {
            printAll("wrong memory at=", one, " holds=", static_cast<uint64_t>(count),
                     " other=", static_cast<uint64_t>(load<uint32_t>(other)), "\n");
            fail("memory is not what the CPU wrote");
        }
        store<uint32_t>(one, count + 1);
        store<uint32_t>(other, ~(count + 1));
    }

private:
    Addr pages_;
};

void verifyPage(Addr page, uint32_t block)
{
    for (uint32_t word = 0; word < wordsPerPage; word++) {
        const uint32_t found = load<uint32_t>(page + word * sizeof(uint32_t));

        if (found != block * wordsPerPage + word) {
            printAll("wrong data block=", static_cast<uint64_t>(block), " page=", page,
                     " word=", static_cast<uint64_t>(word), " found=", static_cast<uint64_t>(found),
                     "\n");
            fail("a read brought other data");
        }
    }
}

} // namespace

void loopReads(Iommu &iommu, Endpoint &endpoint, unsigned rounds)
{
    const Addr buffer = allocPages(bufferPages);
    Ledger ledger;
    uint32_t random = 0x12345678;

    if (iommu.attach(domain, endpoint.id) != Status::ok || !endpoint.mapRings(iommu, domain) ||
        !endpoint.start(featureAccessPlatform, ringShift)) {
        fail("the disk does not start");
    }
    for (uint32_t i = 0;; i++) {
        // Xorshift.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        const uint32_t block = (random >> 8) % diskBlocks;
        const Addr page = buffer + (random >> 16) % bufferPages * pageSize;
        const uint64_t iova = dataIova + i % addresses * pageSize;

        for (uint32_t word = 0; word < wordsPerPage; word++) {
            store<uint32_t>(page + word * sizeof(uint32_t), ~0u);
        }
        if (iommu.map(domain, iova, pageSize, page, mapWrite) != Status::ok) {
            fail("a MAP was refused");
        }
        if (!endpoint.read(static_cast<uint64_t>(block) * (pageSize / sectorSize), iova, pageSize,
                           patience)) {
            fail("a read did not succeed");
        }
        if (iommu.unmap(domain, iova, pageSize) != Status::ok) {
            fail("an UNMAP was refused");
        }
        verifyPage(page, block);
        ledger.visit(random);
        if (i % rounds == 0) {
            printAll("round ", static_cast<uint64_t>(i), "\n");
        }
    }
}

} // namespace bare
