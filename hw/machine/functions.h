/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI functions that go or are switched off, and with them their attachments.
 * Under the big QEMU lock.
 */
#ifndef VIOMMU_FUNCTIONS_H
#define VIOMMU_FUNCTIONS_H

#include "hw/pci/pci.h"

/* Before all others, once. */
void viommu_functions_init(void);

/* A function has come. */
void viommu_functions_changed(void);

/* @dev is being unrealized: spaces that nothing uses without it go as well. */
void viommu_functions_gone(PCIDevice *dev);

/*
 * Ends the attachments of functions that were switched off since the last
 * call; before the engine looks at requests.
 */
void viommu_functions_settle(void);

/*
 * The same in a bottom half, for callers that must not change the memory topology;
 * while an IOMMU lingers (viommu_engine_lingering), also those of functions that are
 * not bus masters: whoever makes them so again is another owner.
 */
void viommu_functions_look(void);

#endif
