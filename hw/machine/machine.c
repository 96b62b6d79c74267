/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine's moments: a device comes or goes, memory changes, all is there.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/pci/pci_device.h"
#include "system/system.h"

#include "hw/compat.h"
#include "hw/machine/describe.h"
#include "hw/machine/functions.h"
#include "hw/machine/host-devices.h"
#include "hw/machine/machine.h"
#include "hw/machine/mmio-bus.h"
#include "hw/machine/model.h"
#include "hw/machine/pci-hook.h"
#include "hw/machine/registry.h"

static void device_realized(DeviceListener *listener, DeviceState *dev)
{
    PCIDevice *pci_dev =
        (PCIDevice *)object_dynamic_cast(OBJECT(dev), TYPE_PCI_DEVICE);

    if (pci_dev) {
        viommu_functions_changed();
        viommu_pci_hook_expander(pci_dev);
    }
}

static void device_unrealized(DeviceListener *listener, DeviceState *dev)
{
    PCIDevice *pci_dev =
        (PCIDevice *)object_dynamic_cast(OBJECT(dev), TYPE_PCI_DEVICE);

    if (pci_dev) {
        viommu_functions_gone(pci_dev);
    }
}

static void memory_committed(MemoryListener *listener)
{
    viommu_functions_look();
}

static void machine_done(Notifier *notifier, void *data)
{
    GPtrArray *units = viommu_registry_units();
    ViommuTopology *topology;

    /* Another kind of IOMMU may have come after ours. */
    if (units->len) {
        viommu_pci_hook_root_buses(g_ptr_array_index(units, 0), &error_fatal);
    }
    viommu_registry_set_buses(viommu_model_root_buses(),
                              viommu_mmio_transports());
    topology = viommu_model_new(&error_fatal);
    viommu_registry_set_topology(topology);
    viommu_registry_check_back_ends(&error_fatal);
    viommu_host_devices_check(&error_fatal);
    for (guint i = 0; i < units->len; i++) {
        ViommuUnit *unit = g_ptr_array_index(units, i);

        unit->set_topology(unit, topology, &error_fatal);
    }
    viommu_describe_in_viot(&error_fatal);
    viommu_describe_in_fdt(&error_fatal);
    viommu_registry_bind_spaces();
    viommu_host_devices_reserve(&error_fatal);
}

static void start_listening(void)
{
    static DeviceListener device_listener = {
        .realize = device_realized,
        .unrealize = device_unrealized,
    };
    static MemoryListener memory_listener = {
        .name = "virtio-iommu",
        .commit = memory_committed,
    };
    static Notifier done = { .notify = machine_done };

    viommu_functions_init();
    device_listener_register(&device_listener);
    memory_listener_register(&memory_listener, &address_space_memory);
    qemu_add_machine_init_done_notifier(&done);
}

bool viommu_machine_add(ViommuUnit *unit, Error **errp)
{
    bool first = !viommu_registry_units();

    if (!viommu_pci_hook_root_buses(unit, errp)) {
        return false;
    }
    if (viommu_registry_topology()) {
        error_setg(errp, "a virtio-iommu cannot be added to a machine that "
                   "runs");
        return false;
    }
    viommu_registry_add(unit);
    if (first) {
        start_listening();
    }
    return true;
}

void viommu_machine_remove(ViommuUnit *unit)
{
    viommu_registry_remove(unit);
}
