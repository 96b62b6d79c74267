// SPDX-License-Identifier: GPL-2.0-or-later
//
// Checks that scenarios are made of; each prints lines of the table.
#ifndef BARE_STEPS_H
#define BARE_STEPS_H

#include "endpoint.h"

namespace bare
{

constexpr uint32_t ioSize = 4096;
constexpr uint64_t readSector = 16;
constexpr uint64_t writeSector = 64;

bool expect(Status actual, Status expected, const char *subject, const char *request);
inline bool expect(Status actual, Status expected, const Endpoint &endpoint, const char *request)
{
    return expect(actual, expected, endpoint.kind(), request);
}

bool attachAndStart(Iommu &iommu, Endpoint &endpoint, uint32_t domain);
void mapData(Iommu &iommu, const Endpoint &endpoint, uint32_t domain, uint64_t iova, Addr page);
// Data of the device, at `iova` which leads to `page`.  The host compares what was reported.
void verifiedIo(Endpoint &endpoint, uint64_t iova, Addr page);
// The host looks whether its own IOMMU refused an access to this address, if there is
// one, or at what else it likes, and says when to go on.
void pause(const char *where, uint64_t address = 0);

} // namespace bare

#endif
