/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/osdep.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"
#include "hw/pci/pcie.h"

#include "hw/machine/pci-bus.h"

ViommuPlace viommu_pci_dma_place(PCIDevice *dev)
{
    ViommuPlace place = { pci_get_bus(dev), dev->devfn };

    for (PCIBus *bus = place.bus; !bus->iommu_ops && bus->parent_dev;) {
        PCIDevice *bridge = bus->parent_dev;
        PCIBus *parent = pci_get_bus(bridge);

        if (!pci_bus_is_express(bus)) {
            bool takes_ownership =
                pci_is_express(bridge) &&
                pcie_cap_get_type(bridge) == PCI_EXP_TYPE_PCI_BRIDGE;

            place.bus = takes_ownership ? bus : parent;
            place.devfn = takes_ownership ? 0 : bridge->devfn;
        }
        bus = parent;
    }
    return place;
}

char *viommu_pci_root_bus_name(PCIBus *root)
{
    PCIDevice *expander = root->parent_dev;

    if (expander && DEVICE(expander)->id) {
        return g_strdup(DEVICE(expander)->id);
    }
    /* All conventional expanders give theirs the same name. */
    if (expander && !pci_bus_is_express(root)) {
        return g_strdup_printf("%s.%d", BUS(root)->name, pci_bus_num(root));
    }
    return g_strdup(BUS(root)->name);
}

PCIBus *viommu_pci_root_bus(PCIBus *bus)
{
    while (!pci_bus_is_root(bus)) {
        bus = pci_get_bus(bus->parent_dev);
    }
    return bus;
}

bool viommu_pci_is_root_function(const ViommuPlace *place)
{
    PCIDevice *dev = place->bus->devices[place->devfn];

    return pci_bus_is_root(place->bus) && !(dev && IS_PCI_BRIDGE(dev));
}

typedef struct Search {
    uint16_t bdf;
    PCIDevice *function;        /* has the ID as its own */
    PCIDevice *aliased;         /* does DMA under the ID */
} Search;

/*
 * Bus numbers are asked of the buses themselves, so the answer is right however
 * often the guest renumbered them.  A function that is switched off (an unused
 * VF, in a slot without power) does not exist.
 */
static void search_bus(PCIBus *bus, Search *search)
{
    PCIBus *sec;

    for (int i = 0; i < ARRAY_SIZE(bus->devices); i++) {
        PCIDevice *dev = bus->devices[i];
        ViommuPlace place;

        if (!dev || !dev->enabled) {
            continue;
        }
        if (PCI_BUILD_BDF(pci_bus_num(bus), i) == search->bdf) {
            search->function = search->function ?: dev;
        }
        place = viommu_pci_dma_place(dev);
        if (PCI_BUILD_BDF(pci_bus_num(place.bus), place.devfn) == search->bdf) {
            search->aliased = search->aliased ?: dev;
        }
    }
    QLIST_FOREACH(sec, &bus->child, sibling) {
        /* Root buses of expander bridges hang here too, but are not below. */
        if (!pci_bus_is_root(sec) && sec->parent_dev->enabled) {
            search_bus(sec, search);
        }
    }
}

bool viommu_pci_find(GPtrArray *root_buses, uint16_t bdf, ViommuPlace *place,
                     PCIDevice **dev)
{
    Search search = { .bdf = bdf };

    for (guint i = 0; i < root_buses->len; i++) {
        search_bus(g_ptr_array_index(root_buses, i), &search);
    }
    if (!search.function && !search.aliased) {
        return false;
    }
    *place = viommu_pci_dma_place(search.function ?: search.aliased);
    *dev = search.function;
    return true;
}

static void collect_functions(PCIBus *bus, GPtrArray *functions, bool *settled)
{
    PCIBus *sec;

    for (int i = 0; i < ARRAY_SIZE(bus->devices); i++) {
        PCIDevice *dev = bus->devices[i];

        if (dev) {
            g_ptr_array_add(functions, dev);
            *settled &= DEVICE(dev)->realized;
        }
    }
    QLIST_FOREACH(sec, &bus->child, sibling) {
        if (!pci_bus_is_root(sec)) {
            collect_functions(sec, functions, settled);
        }
    }
}

GPtrArray *viommu_pci_functions(GPtrArray *root_buses, bool *settled)
{
    GPtrArray *functions = g_ptr_array_new();

    *settled = true;
    for (guint i = 0; i < root_buses->len; i++) {
        collect_functions(g_ptr_array_index(root_buses, i), functions, settled);
    }
    return functions;
}

bool viommu_pci_switched_off(PCIDevice *dev)
{
    for (;;) {
        PCIBus *bus = pci_get_bus(dev);

        if (!dev->enabled) {
            return true;
        }
        if (pci_bus_is_root(bus)) {
            return false;
        }
        dev = bus->parent_dev;
    }
}

bool viommu_pci_place_in_use(GPtrArray *root_buses, const ViommuPlace *place)
{
    bool settled;
    g_autoptr(GPtrArray) functions = viommu_pci_functions(root_buses, &settled);

    for (guint i = 0; i < functions->len; i++) {
        PCIDevice *dev = g_ptr_array_index(functions, i);
        ViommuPlace other = viommu_pci_dma_place(dev);

        if (other.bus == place->bus && other.devfn == place->devfn &&
            !viommu_pci_switched_off(dev)) {
            return true;
        }
    }
    return false;
}

bool viommu_pci_place_gone(const ViommuPlace *place, PCIDevice *dev)
{
    PCIBus *bus = pci_get_bus(dev);

    if (IS_PCI_BRIDGE(dev) &&
        place->bus == pci_bridge_get_sec_bus(PCI_BRIDGE(dev))) {
        return true;
    }
    /* Behind a conventional bridge the place may stand for others as well. */
    return place->bus == bus && place->devfn == dev->devfn &&
           (pci_bus_is_express(bus) || pci_bus_is_root(bus));
}
