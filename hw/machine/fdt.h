/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Device tree: where the pieces of the model live in the machine's tree.
 * Under the big QEMU lock.
 */
#ifndef VIOMMU_FDT_H
#define VIOMMU_FDT_H

#include "exec/hwaddr.h"

#include "viommu/viommu.h"

/*
 * Writes the model into the tree of a machine that hands one to its guest; does
 * nothing on others.  After all devices exist and before the machine loads the
 * tree.  @iommus and @endpoints are in the order of the model: the base of each
 * IOMMU's registers, 0 for one on PCI, and of each MMIO endpoint's.
 */
void viommu_fdt_describe(const ViommuTopology *topology, const hwaddr *iommus,
                         size_t iommu_count, const hwaddr *endpoints,
                         size_t endpoint_count, Error **errp);

#endif
