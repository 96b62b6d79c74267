/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "system/device_tree.h"
#include <libfdt.h>

#include "hw/platform/viommu-fdt.h"

/* The one PCI host of Arm's virt machine. */
#define PCI_HOST_COMPATIBLE "pci-host-ecam-generic"

/*
 * Other machines either have no tree, or one for their firmware only (microvm),
 * or write the binding for this type of device themselves (RISC-V virt).
 */
static bool tree_is_ours(MachineState *machine)
{
    const char *target = target_name();

    return machine->fdt &&
           (!strcmp(target, "aarch64") || !strcmp(target, "arm"));
}

void viommu_fdt_describe(const ViommuTopology *topology, size_t iommus,
                         Error **errp)
{
    MachineState *machine = MACHINE(qdev_get_machine());
    void *fdt = machine->fdt;
    g_autofree uint32_t *phandles = g_new0(uint32_t, iommus);
    g_autofree const char **nodes = g_new0(const char *, iommus);
    ViommuFdtNodes where = { .phandles = phandles, .mmio_iommu_nodes = nodes };
    char pci_host[64];
    char sentence[256];
    int offset;

    if (!tree_is_ours(machine)) {
        return;
    }
    offset = fdt_node_offset_by_compatible(fdt, -1, PCI_HOST_COMPATIBLE);
    if (offset >= 0 &&
        !fdt_get_path(fdt, offset, pci_host, sizeof(pci_host))) {
        where.pci_host = pci_host;
    }
    for (size_t i = 0; i < iommus; i++) {
        phandles[i] = qemu_fdt_alloc_phandle(fdt);
    }
    if (!viommu_topology_fdt(topology, fdt, &where, sentence,
                             sizeof(sentence))) {
        error_setg(errp, "virtio-iommu: device tree: %s", sentence);
    }
}
