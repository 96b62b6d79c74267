/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI buses that ask us for their functions' address spaces.  Under the big QEMU
 * lock.
 */
#ifndef VIOMMU_PCI_HOOK_H
#define VIOMMU_PCI_HOOK_H

#include "hw/pci/pci.h"

#include "hw/space/unit.h"

/*
 * All root buses that there are now.  False with @errp if one has an IOMMU of
 * another kind; @unit is the one that wants them.
 */
bool viommu_pci_hook_root_buses(const ViommuUnit *unit, Error **errp);

/*
 * The root bus that @dev makes, if it is an expander: a device behind it may ask
 * before the machine is complete.
 */
void viommu_pci_hook_expander(PCIDevice *dev);

#endif
