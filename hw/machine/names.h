/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What sentences to the user call things.  Under the big QEMU lock; what is
 * returned is to be freed by the caller.
 */
#ifndef VIOMMU_NAMES_H
#define VIOMMU_NAMES_H

#include "hw/space/unit.h"

/* The device's id, or else its type and where it is. */
char *viommu_device_name(DeviceState *dev);

/* The user named the PCI function, or the device that sits on a transport. */
char *viommu_unit_name(const ViommuUnit *unit);

#endif
