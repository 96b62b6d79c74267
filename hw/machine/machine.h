/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The moments at which the machine changes, and what is to be done then.  Under
 * the big QEMU lock.
 */
#ifndef VIOMMU_MACHINE_H
#define VIOMMU_MACHINE_H

#include "hw/space/unit.h"

/*
 * Registers an IOMMU.  Which root buses and transports it manages is decided
 * when the machine is complete.  Fails with one sentence if the machine has an
 * IOMMU of another kind, or runs.
 */
bool viommu_machine_add(ViommuUnit *unit, Error **errp);
void viommu_machine_remove(ViommuUnit *unit);

#endif
