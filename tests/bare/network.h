// SPDX-License-Identifier: GPL-2.0-or-later
//
// A virtio-net whose other end answers each frame with its payload inverted.
#ifndef BARE_NETWORK_H
#define BARE_NETWORK_H

#include "iommu.h"

namespace bare
{

void useNetwork(Iommu &iommu);

} // namespace bare

#endif
