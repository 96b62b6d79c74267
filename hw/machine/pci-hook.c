/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How PCI functions get our address spaces: the operations that QEMU's PCI core
 * asks of a bus.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"

#include "hw/compat.h"
#include "hw/machine/host-devices.h"
#include "hw/machine/model.h"
#include "hw/machine/names.h"
#include "hw/machine/pci-hook.h"
#include "hw/machine/registry.h"

static AddressSpace *get_address_space(PCIBus *bus, void *opaque, int devfn)
{
    ViommuPlace place = { .bus = bus, .devfn = devfn };

    viommu_host_devices_take_space(bus, &place);
    /* W9: an IOMMU's own rings are never translated, by itself or another. */
    if (viommu_registry_is_unit(&place)) {
        return &address_space_memory;
    }
    /*
     * vhost and VFIO take any other answer to mean that there is an IOMMU; VFIO asks
     * only once.
     */
    if (viommu_registry_topology() ? !viommu_registry_manager_of_place(&place)
                                   : viommu_registry_to_be_left_out(&place)) {
        return &address_space_memory;
    }
    return viommu_registry_address_space(place);
}

static bool set_iommu_device(PCIBus *bus, void *opaque, int devfn,
                             HostIOMMUDevice *hiod, Error **errp)
{
    return viommu_host_devices_add(bus, devfn, hiod, errp);
}

static void unset_iommu_device(PCIBus *bus, void *opaque, int devfn)
{
    viommu_host_devices_remove(bus, devfn);
}

static const PCIIOMMUOps pci_ops = {
    .get_address_space = get_address_space,
    .set_iommu_device = set_iommu_device,
    .unset_iommu_device = unset_iommu_device,
};

/*
 * PCIe expander buses are asked about through the bus that carries them.  What
 * is behind a conventional one would then do DMA under the expander's own ID on
 * that bus, and not under an ID of the root bus where guests see it.
 */
static bool is_hooked(PCIBus *root)
{
    return !root->parent_dev || !pci_bus_is_express(root);
}

void viommu_pci_hook_expander(PCIDevice *dev)
{
    PCIBus *sec;

    QLIST_FOREACH(sec, &pci_get_bus(dev)->child, sibling) {
        if (sec->parent_dev == dev && pci_bus_is_root(sec) && is_hooked(sec) &&
            !sec->iommu_ops) {
            pci_setup_iommu(sec, &pci_ops, NULL);
        }
    }
}

static int find_object(Object *obj, void *opaque)
{
    void **wanted = opaque;

    return obj == *wanted;
}

/* What IOMMUs of other kinds hand to the PCI core is themselves, mostly. */
static char *other_iommu_name(PCIBus *bus)
{
    void *opaque = bus->iommu_opaque;

    if (opaque && object_child_foreach_recursive(OBJECT(qdev_get_machine()),
                                                 find_object, &opaque)) {
        DeviceState *dev = (DeviceState *)object_dynamic_cast(opaque,
                                                              TYPE_DEVICE);

        if (dev) {
            return viommu_device_name(dev);
        }
    }
    return g_strdup("an IOMMU of another kind");
}

bool viommu_pci_hook_root_buses(const ViommuUnit *unit, Error **errp)
{
    g_autoptr(GPtrArray) buses = viommu_model_root_buses();

    for (guint i = 0; i < buses->len; i++) {
        PCIBus *bus = g_ptr_array_index(buses, i);

        if (bus->iommu_ops && bus->iommu_ops != &pci_ops) {
            g_autofree char *name = viommu_unit_name(unit);
            g_autofree char *other = other_iommu_name(bus);

            error_setg(errp, "root bus %s has two IOMMUs: %s and %s",
                       BUS(bus)->name, name, other);
            return false;
        }
        if (is_hooked(bus)) {
            pci_setup_iommu(bus, &pci_ops, NULL);
        }
    }
    return true;
}
