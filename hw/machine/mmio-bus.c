/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/osdep.h"
#include "hw/boards.h"
#include "hw/sysbus.h"
#include "hw/virtio/virtio-bus.h"
#include "hw/virtio/virtio-mmio.h"

#include "hw/machine/mmio-bus.h"
#include "hw/space/unit.h"

VirtIODevice *viommu_mmio_device(DeviceState *transport)
{
    return virtio_bus_get_device(&VIRTIO_MMIO(transport)->bus);
}

bool viommu_mmio_is_iommu(VirtIODevice *vdev)
{
    return object_dynamic_cast(OBJECT(vdev), TYPE_VIRTIO_IOMMU);
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
    VirtIODevice *vdev = viommu_mmio_device(transport);

    return vdev && !viommu_mmio_is_iommu(vdev) &&
           virtio_host_has_feature(vdev, VIRTIO_F_IOMMU_PLATFORM) ? vdev
                                                                  : NULL;
}
