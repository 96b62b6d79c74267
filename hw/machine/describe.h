/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What guests are told of the model through ACPI and device tree.  Under the big
 * QEMU lock.
 */
#ifndef VIOMMU_DESCRIBE_H
#define VIOMMU_DESCRIBE_H

#include "qapi/error.h"

/*
 * Makes the VIOT, when the machine is complete.  Guests ask for it while they run,
 * and one that got none would leave its devices bypassing: what can fail is done
 * before they start.
 */
void viommu_describe_in_viot(Error **errp);

/* Once, before the machine loads its device tree. */
void viommu_describe_in_fdt(Error **errp);

#endif
