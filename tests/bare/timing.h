// SPDX-License-Identifier: GPL-2.0-or-later
//
// Reads of a block device, timed for the bench.
#ifndef BARE_TIMING_H
#define BARE_TIMING_H

#include "endpoint.h"

namespace bare
{

// Reads with small and large blocks and prints a line with the ticks of each of `spans` spans
// of `reads` reads.  With an IOMMU, once with mappings that stay, once with one for each read;
// without (null), at the addresses of memory.  The disk has to hold zeros.
void timeReads(Iommu *iommu, Endpoint &endpoint, unsigned spans, unsigned reads);

} // namespace bare

#endif
