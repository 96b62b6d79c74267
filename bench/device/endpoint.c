/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/osdep.h"
#include "hw/pci/pci_device.h"

#include "hw/compat.h"
#include "endpoint.h"

static void endpoint_class_init(ObjectClass *klass, ViommuClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    pc->vendor_id = PCI_VENDOR_ID_QEMU;
    pc->device_id = 0x0b0c;
    pc->class_id = PCI_CLASS_OTHERS;
    dc->desc = "DMA requester of the virtio-iommu bench";
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo endpoint_type = {
    .name = TYPE_BENCH_ENDPOINT,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(PCIDevice),
    .class_init = endpoint_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_CONVENTIONAL_PCI_DEVICE },
        { }
    },
};

void bench_endpoint_register_types(void)
{
    type_register_static(&endpoint_type);
}
