/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A mediated host device without a host: a vfio-pci that does of VFIO's doings
 * what an IOMMU sees of them.  It announces itself to none, and registers for
 * mappings wherever there is an IOMMU region in its address space.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "exec/memory.h"
#include "hw/pci/pci_device.h"
#include "hw/pci/pci_ids.h"
#include "qemu/module.h"

static Error *refusal;

static void ignore(IOMMUNotifier *n, IOMMUTLBEntry *entry)
{
}

static void region_add(MemoryListener *listener, MemoryRegionSection *section)
{
    IOMMUNotifier n;

    if (refusal || !memory_region_is_iommu(section->mr)) {
        return;
    }
    iommu_notifier_init(&n, ignore, IOMMU_NOTIFIER_IOTLB_EVENTS, 0, UINT64_MAX,
                        0);
    if (memory_region_register_iommu_notifier(section->mr, &n, &refusal) == 0) {
        memory_region_unregister_iommu_notifier(section->mr, &n);
    }
}

static void realize(PCIDevice *dev, Error **errp)
{
    MemoryListener listener = { .name = "host-device", .region_add = region_add };

    memory_listener_register(&listener, pci_device_iommu_address_space(dev));
    memory_listener_unregister(&listener);
    error_propagate(errp, g_steal_pointer(&refusal));
}

static void no_reset(DeviceState *dev)
{
}

static void class_init(ObjectClass *klass, void *data)
{
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    device_class_set_legacy_reset(DEVICE_CLASS(klass), no_reset);
    pc->realize = realize;
    pc->exit = NULL;
    pc->config_read = pci_default_read_config;
    pc->config_write = pci_default_write_config;
    pc->vendor_id = PCI_VENDOR_ID_QEMU;
    pc->device_id = 0x11e9;
    pc->class_id = PCI_CLASS_OTHERS;
}

static void register_type(void)
{
    static const TypeInfo type = {
        .name = "test-host-device",
        .parent = "vfio-pci",
        .class_init = class_init,
    };

    type_register_static(&type);
}

type_init(register_type)
