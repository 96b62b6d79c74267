/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where interrupts go.  Under the big QEMU lock.
 */
#ifndef VIOMMU_MSI_H
#define VIOMMU_MSI_H

#include "viommu/viommu.h"

/*
 * The MSI doorbell that DMA reaches untranslated on this machine; false if the
 * machine has none.
 */
bool viommu_msi_region(ViommuRegion *region);

#endif
