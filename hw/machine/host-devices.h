/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices of the host that are assigned to the guest (VFIO): what their IOMMU on the
 * host can do, and that each of them is behind ours.  Under the big QEMU lock.
 */
#ifndef VIOMMU_HOST_DEVICES_H
#define VIOMMU_HOST_DEVICES_H

#include "hw/pci/pci.h"
#include "system/host_iommu_device.h"

#include "hw/space/space.h"

/*
 * A function on @bus or below it is given the address space of @place.  Devices of
 * the host take it when they are plugged, and are noted.
 */
void viommu_host_devices_take_space(PCIBus *bus, const ViommuPlace *place);

/*
 * The function at @devfn on @bus is a device of the host behind @hiod.  While the
 * machine is being built that is only noted; later it is in force at once, or false
 * with @errp and forgotten.  W27.
 */
bool viommu_host_devices_add(PCIBus *bus, int devfn, HostIOMMUDevice *hiod,
                             Error **errp);
void viommu_host_devices_remove(PCIBus *bus, int devfn);

/*
 * The machine is complete.  First, with the model in place: false with @errp if a
 * device of the host came before its IOMMU, so that it is not behind it; else the
 * granule of each IOMMU is one that its devices have.
 */
bool viommu_host_devices_check(Error **errp);

/* Then, with all spaces bound: what those devices cannot use is reserved. */
bool viommu_host_devices_reserve(Error **errp);

#endif
