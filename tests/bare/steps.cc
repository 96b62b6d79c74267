// SPDX-License-Identifier: GPL-2.0-or-later
#include "steps.h"

namespace bare
{

namespace
{

// What was read is for the host to compare.
void report(const Endpoint &endpoint, const char *what, Addr data, uint32_t size)
{
    printAll("data kind=", endpoint.kind(), " ", what, "=", static_cast<uint64_t>(size),
             " crc=", static_cast<uint64_t>(crc32(0, data, size)), "\n");
}

} // namespace

bool expect(Status actual, Status expected, const char *subject, const char *request)
{
    if (actual != expected) {
        printAll("status ", name(actual), " instead of ", name(expected), "\n");
    }
    return check(actual == expected, subject, request);
}

bool attachAndStart(Iommu &iommu, Endpoint &endpoint, uint32_t domain)
{
    return expect(iommu.attach(domain, endpoint.id), Status::ok, endpoint, "ATTACH") &&
           check(endpoint.mapRings(iommu, domain), endpoint.kind(), "MAP of its rings") &&
           check(endpoint.start(featureAccessPlatform, ringShift), endpoint.kind(), "starts");
}

void mapData(Iommu &iommu, const Endpoint &endpoint, uint32_t domain, uint64_t iova, Addr page)
{
    expect(iommu.map(domain, iova, pageSize, page, mapRead | mapWrite), Status::ok, endpoint,
           "MAP of a data page");
}

void verifiedIo(Endpoint &endpoint, uint64_t iova, Addr page)
{
    clear(page);
    if (!endpoint.isBlock()) {
        const uint32_t size = endpoint.fill(iova, 256);
        check(size, endpoint.kind(), "delivers");
        report(endpoint, "filled", page, size);
        return;
    }
    check(endpoint.read(readSector, iova, ioSize), endpoint.kind(), "reads");
    report(endpoint, "read", page, ioSize);
    for (unsigned i = 0; i < ioSize; i++) {
        store<uint8_t>(page + i, static_cast<uint8_t>(i * 11 + i / 256 + endpoint.id));
    }
    report(endpoint, "written", page, ioSize);
    const uint32_t crc = crc32(0, page, ioSize);
    check(endpoint.write(writeSector, iova, ioSize), endpoint.kind(), "writes");
    clear(page);
    check(endpoint.read(writeSector, iova, ioSize) && crc32(0, page, ioSize) == crc,
          endpoint.kind(), "reads back what it wrote");
}

void pause(const char *where, uint64_t address)
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

} // namespace bare
