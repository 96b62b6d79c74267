/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/osdep.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"
#include "hw/pci/pcie.h"

#include "hw/platform/viommu-pci-bus.h"

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

static void visit_switched_off(PCIBus *bus, bool off,
                               void (*visit)(PCIDevice *dev))
{
    PCIBus *sec;

    for (int i = 0; i < ARRAY_SIZE(bus->devices); i++) {
        PCIDevice *dev = bus->devices[i];

        if (dev && (off || !dev->enabled)) {
            visit(dev);
        }
    }
    QLIST_FOREACH(sec, &bus->child, sibling) {
        if (!pci_bus_is_root(sec)) {
            visit_switched_off(sec, off || !sec->parent_dev->enabled, visit);
        }
    }
}

void viommu_pci_for_each_switched_off(GPtrArray *root_buses,
                                      void (*visit)(PCIDevice *dev))
{
    for (guint i = 0; i < root_buses->len; i++) {
        visit_switched_off(g_ptr_array_index(root_buses, i), false, visit);
    }
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
