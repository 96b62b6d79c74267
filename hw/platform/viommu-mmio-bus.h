/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-mmio transports as the IOMMUs see them.  Under the big QEMU lock.
 */
#ifndef VIOMMU_MMIO_BUS_H
#define VIOMMU_MMIO_BUS_H

#include "hw/virtio/viommu-device.h"

/*
 * Lets devices with iommu_platform=on do their DMA in an address space that an
 * IOMMU can manage, whether it comes before or after them on the command line.
 * When the module is loaded; does nothing if this QEMU has no virtio-mmio.
 */
void viommu_mmio_hook_transports(void);

/* All transports of the machine, by address: the index counts in endpoint IDs. */
GPtrArray *viommu_mmio_transports(void);

/* Guest-physical base of the transport's registers. */
hwaddr viommu_mmio_base(DeviceState *transport);

/*
 * The device on the transport if it is an endpoint: present, no IOMMU itself,
 * and with iommu_platform=on.
 */
VirtIODevice *viommu_mmio_endpoint(DeviceState *transport);

#endif
