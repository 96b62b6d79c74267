/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How devices on virtio-mmio get our address spaces: the two functions of the
 * transports' bus that virtio-pci has and virtio-mmio lacks.
 */
#include "qemu/osdep.h"
#include "hw/virtio/virtio-bus.h"
#include "hw/virtio/virtio-mmio.h"

#include "hw/compat.h"
#include "hw/machine/mmio-bus.h"
#include "hw/machine/mmio-hook.h"
#include "hw/machine/registry.h"

/* A back end outside QEMU may be one that does no translation. */
static bool can_be_translated(VirtIODevice *vdev)
{
    return virtio_has_feature(viommu_offered_features(vdev),
                              VIRTIO_F_IOMMU_PLATFORM);
}

/* Asked while a device with iommu_platform=on is plugged. */
static AddressSpace *get_dma_as(DeviceState *transport)
{
    VirtIODevice *vdev = viommu_mmio_device(transport);

    /* W9: an IOMMU's own rings are never translated. */
    if (viommu_mmio_is_iommu(vdev)) {
        return &address_space_memory;
    }
    /*
     * QEMU refuses any other answer for such a device, which only an IOMMU that
     * manages the transport justifies; that is known when the machine is
     * complete, and the device is refused then.
     */
    if (!can_be_translated(vdev)) {
        return &address_space_memory;
    }
    return viommu_registry_address_space((ViommuPlace) {
        .transport = transport,
    });
}

/* Asked by vhost when the device starts. */
static bool iommu_enabled(DeviceState *transport)
{
    return viommu_registry_managed((ViommuPlace) { .transport = transport });
}

void viommu_mmio_hook_transports(void)
{
    ObjectClass *klass = object_class_by_name(TYPE_VIRTIO_MMIO_BUS);

    if (klass) {
        VIRTIO_BUS_CLASS(klass)->get_dma_as = get_dma_as;
        VIRTIO_BUS_CLASS(klass)->iommu_enabled = iommu_enabled;
    }
}
