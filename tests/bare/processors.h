// SPDX-License-Identifier: GPL-2.0-or-later
//
// Several processors that map, unmap and let devices do DMA at once.
#ifndef BARE_PROCESSORS_H
#define BARE_PROCESSORS_H

#include "endpoint.h"

namespace bare
{

// Each of `count` processors works with a disk of its own, all at the same addresses.
// Prints one line for each and checks what it found.
void runOnProcessors(Iommu &iommu, Endpoint *const *disks, unsigned count, unsigned rounds);

} // namespace bare

#endif
