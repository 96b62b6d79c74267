/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The model of the machine that all descriptions come from.  Under the big QEMU
 * lock.
 */
#ifndef VIOMMU_MODEL_H
#define VIOMMU_MODEL_H

#include "viommu/viommu.h"

/* Every root bus of the machine (PCIBus), by number. */
GPtrArray *viommu_model_root_buses(void);

/*
 * The model of what the registry holds, and each unit's index in it.  NULL with
 * @errp if the machine makes no sense.  Once, when the machine is complete.
 */
ViommuTopology *viommu_model_new(Error **errp);

#endif
