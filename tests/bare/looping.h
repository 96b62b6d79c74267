// SPDX-License-Identifier: GPL-2.0-or-later
//
// Mappings, reads and writes without end, for a guest that is moved meanwhile.
#ifndef BARE_LOOPING_H
#define BARE_LOOPING_H

#include "endpoint.h"

namespace bare
{

// For each read it maps a page at another address, and unmaps it afterwards.  Word `w` of block
// `b` of the disk, 4 KiB each, has to hold b * 1024 + w.  Prints a line for each `rounds` reads;
// ends only when something is wrong.
[[noreturn]] void loopReads(Iommu &iommu, Endpoint &endpoint, unsigned rounds);

} // namespace bare

#endif
