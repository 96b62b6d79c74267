/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI as the IOMMUs see it: under which requester ID a function does DMA, who
 * has an ID at this moment, and which functions are gone or switched off.
 * Under the big QEMU lock.
 */
#ifndef VIOMMU_PCI_BUS_H
#define VIOMMU_PCI_BUS_H

#include "hw/space/space.h"

/*
 * The place under which DMA of @dev reaches the root bus.  A PCIe-to-PCI bridge
 * takes ownership of the requests from behind it with devfn 0 on its secondary
 * bus; any other bridge to conventional PCI with its own ID.
 */
ViommuPlace viommu_pci_dma_place(PCIDevice *dev);

/*
 * The name under which users know a root bus, to be freed: that of the expander
 * that makes it, if it has one.
 */
char *viommu_pci_root_bus_name(PCIBus *root);

/* The root bus that @bus is, or is behind. */
PCIBus *viommu_pci_root_bus(PCIBus *bus);

/*
 * True if what does DMA from @place is a function of a root bus, not what a bridge
 * there forwards.
 */
bool viommu_pci_is_root_function(const ViommuPlace *place);

/*
 * Who has requester ID @bdf now, on any of @root_buses: the place under which
 * it does DMA, and the function; @dev is NULL if the ID belongs to no function
 * but is one under which functions do DMA.  False if it is nobody's.
 */
bool viommu_pci_find(GPtrArray *root_buses, uint16_t bdf, ViommuPlace *place,
                     PCIDevice **dev);

/*
 * Every function on @root_buses, switched on or off.  It may be kept until a
 * PCI function is realized or unrealized, but only if @settled: else one of
 * them is about to come or go, and may vanish without another word.
 */
GPtrArray *viommu_pci_functions(GPtrArray *root_buses, bool *settled);

/* True if @dev, or a bridge on its way to the root bus, is switched off. */
bool viommu_pci_switched_off(PCIDevice *dev);

/* True if a function that is switched on does DMA from @place. */
bool viommu_pci_place_in_use(GPtrArray *root_buses, const ViommuPlace *place);

/*
 * True if nothing can do DMA from @place any more now that @dev is gone: it was
 * its own place, or @dev is the bridge to the bus of that place.
 */
bool viommu_pci_place_gone(const ViommuPlace *place, PCIDevice *dev);

#endif
