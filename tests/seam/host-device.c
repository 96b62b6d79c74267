/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A mediated host device without a host: a vfio-pci that does of VFIO's doings
 * what an IOMMU sees of them.  It announces itself to none, and listens to its
 * address space from when it is plugged on.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/pci/pci_device.h"
#include "hw/pci/pci_ids.h"
#include "qemu/module.h"

#include "hw/compat.h"

typedef struct HostDevice {
    bool plain; /* its address space is the machine's own, as VFIO wants it for migration */
    MemoryListener listener;
    MemoryRegion *iommu;
    IOMMUNotifier notifier;
} HostDevice;

static GHashTable *all; /* PCIDevice -> HostDevice */

static void ignore(IOMMUNotifier *n, IOMMUTLBEntry *entry)
{
}

static void region_add(MemoryListener *listener, MemoryRegionSection *section)
{
    HostDevice *host = container_of(listener, HostDevice, listener);

    if (!memory_region_is_iommu(section->mr)) {
        return;
    }
    host->iommu = section->mr;
    iommu_notifier_init(&host->notifier, ignore, IOMMU_NOTIFIER_IOTLB_EVENTS, 0,
                        UINT64_MAX, 0);
    memory_region_register_iommu_notifier(section->mr, &host->notifier,
                                          &error_abort);
}

static void region_del(MemoryListener *listener, MemoryRegionSection *section)
{
    HostDevice *host = container_of(listener, HostDevice, listener);

    if (section->mr == host->iommu) {
        memory_region_unregister_iommu_notifier(section->mr, &host->notifier);
        host->iommu = NULL;
    }
}

static void realize(PCIDevice *dev, Error **errp)
{
    HostDevice *host = g_new0(HostDevice, 1);

    host->listener = (MemoryListener) {
        .name = "host-device",
        .region_add = region_add,
        .region_del = region_del,
    };
    if (!all) {
        all = g_hash_table_new(NULL, NULL);
    }
    g_hash_table_insert(all, dev, host);
    host->plain = pci_device_iommu_address_space(dev) == &address_space_memory;
    memory_listener_register(&host->listener, pci_device_iommu_address_space(dev));
}

static void host_exit(PCIDevice *dev)
{
    HostDevice *host = g_hash_table_lookup(all, dev);

    memory_listener_unregister(&host->listener);
    g_hash_table_remove(all, dev);
    g_free(host);
}

static bool get_iommu(Object *obj, Error **errp)
{
    HostDevice *host = g_hash_table_lookup(all, obj);

    return host && host->iommu;
}

static bool get_plain(Object *obj, Error **errp)
{
    HostDevice *host = g_hash_table_lookup(all, obj);

    return host && host->plain;
}

static void no_reset(DeviceState *dev)
{
}

static void class_init(ObjectClass *klass, ViommuClassData *data)
{
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    device_class_set_legacy_reset(DEVICE_CLASS(klass), no_reset);
    pc->realize = realize;
    pc->exit = host_exit;
    pc->config_read = pci_default_read_config;
    pc->config_write = pci_default_write_config;
    pc->vendor_id = PCI_VENDOR_ID_QEMU;
    pc->device_id = 0x11e9;
    pc->class_id = PCI_CLASS_OTHERS;
    object_class_property_add_bool(klass, "iommu", get_iommu, NULL);
    object_class_property_add_bool(klass, "plain", get_plain, NULL);
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
