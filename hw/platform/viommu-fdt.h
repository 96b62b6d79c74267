/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Device tree: where the pieces of the model live in the machine's tree.
 * Under the big QEMU lock.
 */
#ifndef VIOMMU_FDT_H
#define VIOMMU_FDT_H

#include "viommu/viommu.h"

/*
 * Writes the model into the tree of a machine that hands one to its guest; does
 * nothing on others.  After all devices exist and before the machine loads the
 * tree.  @iommus is the number of IOMMUs in the model.
 */
void viommu_fdt_describe(const ViommuTopology *topology, size_t iommus,
                         Error **errp);

#endif
