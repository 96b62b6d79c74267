/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-mmio transports as the IOMMUs see them.  Under the big QEMU lock.
 */
#ifndef VIOMMU_MMIO_BUS_H
#define VIOMMU_MMIO_BUS_H

#include "hw/virtio/virtio.h"

/* The device that sits on the transport, NULL if none does. */
VirtIODevice *viommu_mmio_device(DeviceState *transport);

bool viommu_mmio_is_iommu(VirtIODevice *vdev);

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
