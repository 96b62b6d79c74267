/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/osdep.h"
#include "exec/address-spaces.h"
#include "hw/boards.h"
#include "hw/sysbus.h"
#include "hw/virtio/virtio-bus.h"
#include "hw/virtio/virtio-mmio.h"

#include "hw/platform/viommu-mmio-bus.h"
#include "hw/platform/viommu-platform.h"

static VirtIODevice *device_on(DeviceState *transport)
{
    return virtio_bus_get_device(&VIRTIO_MMIO(transport)->bus);
}

static bool is_iommu(VirtIODevice *vdev)
{
    return object_dynamic_cast(OBJECT(vdev), TYPE_VIRTIO_IOMMU);
}

/* A back end outside QEMU may be one that does no translation. */
static bool can_be_translated(VirtIODevice *vdev)
{
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_GET_CLASS(vdev);

    return virtio_has_feature(vdc->get_features(vdev, vdev->host_features,
                                                NULL),
                              VIRTIO_F_IOMMU_PLATFORM);
}

/* Asked while a device with iommu_platform=on is plugged. */
static AddressSpace *get_dma_as(DeviceState *transport)
{
    VirtIODevice *vdev = device_on(transport);

    /* W9: an IOMMU's own rings are never translated. */
    if (is_iommu(vdev)) {
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
    return viommu_platform_address_space((ViommuPlace) {
        .transport = transport,
    });
}

/* Asked by vhost when the device starts. */
static bool iommu_enabled(DeviceState *transport)
{
    return viommu_platform_managed((ViommuPlace) { .transport = transport });
}

void viommu_mmio_hook_transports(void)
{
    ObjectClass *klass = object_class_by_name(TYPE_VIRTIO_MMIO_BUS);

    if (klass) {
        VIRTIO_BUS_CLASS(klass)->get_dma_as = get_dma_as;
        VIRTIO_BUS_CLASS(klass)->iommu_enabled = iommu_enabled;
    }
}

static int collect_transport(Object *obj, void *opaque)
{
    if (object_dynamic_cast(obj, TYPE_VIRTIO_MMIO)) {
        g_ptr_array_add(opaque, obj);
    }
    return 0;
}

hwaddr viommu_mmio_base(DeviceState *transport)
{
    return SYS_BUS_DEVICE(transport)->mmio[0].addr;
}

static gint transport_cmp(gconstpointer va, gconstpointer vb)
{
    hwaddr a = viommu_mmio_base(*(DeviceState **)va);
    hwaddr b = viommu_mmio_base(*(DeviceState **)vb);

    return (a > b) - (a < b);
}

GPtrArray *viommu_mmio_transports(void)
{
    GPtrArray *transports = g_ptr_array_new();

    object_child_foreach_recursive(OBJECT(qdev_get_machine()),
                                   collect_transport, transports);
    g_ptr_array_sort(transports, transport_cmp);
    return transports;
}

VirtIODevice *viommu_mmio_endpoint(DeviceState *transport)
{
    VirtIODevice *vdev = device_on(transport);

    return vdev && !is_iommu(vdev) &&
           virtio_host_has_feature(vdev, VIRTIO_F_IOMMU_PLATFORM) ? vdev
                                                                  : NULL;
}
