/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-iommu-pci: the device on a virtio-pci transport.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/pci/pci_bus.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "hw/virtio/virtio-pci.h"

#include "hw/compat.h"
#include "hw/machine/acpi.h"
#include "hw/virtio/device.h"

OBJECT_DECLARE_SIMPLE_TYPE(VirtIOIOMMUPCI, VIRTIO_IOMMU_PCI)

/* Size of the region that virtio-pci shows the device's configuration in. */
#define DEVICE_CONFIG_WINDOW 4096

struct VirtIOIOMMUPCI {
    VirtIOPCIProxy parent_obj;
    VirtIOIOMMU vdev;
};

static const Property viommu_pci_properties[] = {
    DEFINE_PROP_UINT32("class", VirtIOPCIProxy, class_code, 0),
};

static void viommu_pci_realize(VirtIOPCIProxy *proxy, Error **errp)
{
    VirtIOIOMMUPCI *dev = VIRTIO_IOMMU_PCI(proxy);
    PCIBus *bus = pci_get_bus(&proxy->pci_dev);

    if (!pci_bus_is_root(bus)) {
        /* Not by its address: the bus has no number yet. */
        error_setg(errp, "IOMMU %s must be plugged on a root bus, not on %s",
                   DEVICE(proxy)->id ?: object_get_typename(OBJECT(proxy)),
                   BUS(bus)->name);
        return;
    }
    dev->vdev.unit.transport = DEVICE(proxy);
    dev->vdev.config_limit = DEVICE_CONFIG_WINDOW;
    object_property_set_link(OBJECT(dev), "primary-bus", OBJECT(bus),
                             &error_abort);
    virtio_pci_force_virtio_1(proxy);
    qdev_realize(DEVICE(&dev->vdev), BUS(&proxy->bus), errp);
}

static void viommu_pci_class_init(ObjectClass *klass, ViommuClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioPCIClass *vpc = VIRTIO_PCI_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    vpc->realize = viommu_pci_realize;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, viommu_pci_properties);
    dc->desc = "Paravirtual IOMMU";
    pc->revision = VIRTIO_PCI_ABI_VERSION;
    pc->class_id = PCI_CLASS_OTHERS;
    dc->hotpluggable = false;
    viommu_acpi_class_init(klass);
}

static void viommu_pci_instance_init(Object *obj)
{
    VirtIOIOMMUPCI *dev = VIRTIO_IOMMU_PCI(obj);

    virtio_instance_init_common(obj, &dev->vdev, sizeof(dev->vdev),
                                TYPE_VIRTIO_IOMMU);
}

void viommu_pci_register_types(void)
{
    static const VirtioPCIDeviceTypeInfo info = {
        .generic_name = TYPE_VIRTIO_IOMMU_PCI,
        .instance_size = sizeof(VirtIOIOMMUPCI),
        .instance_init = viommu_pci_instance_init,
        .class_init = viommu_pci_class_init,
        .interfaces = viommu_acpi_interfaces,
    };

    virtio_pci_types_register(&info);
}
