/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-mmio transports that ask us for their devices' address spaces.  Under the
 * big QEMU lock.
 */
#ifndef VIOMMU_MMIO_HOOK_H
#define VIOMMU_MMIO_HOOK_H

/*
 * Lets devices with iommu_platform=on do their DMA in an address space that an
 * IOMMU can manage, whether it comes before or after them on the command line.
 * When the module is loaded; does nothing if this QEMU has no virtio-mmio.
 */
void viommu_mmio_hook_transports(void);

#endif
