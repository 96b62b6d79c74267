/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "system/device_tree.h"
#include <libfdt.h>

#include "hw/machine/fdt.h"
#include "trace-viommu.h"

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

/* The virtio-mmio nodes of Arm's virt machine, by the address of their registers. */
static char *transport_path(void *fdt, hwaddr base)
{
    int offset = -1;

    if (!base) {
        return NULL;
    }
    while ((offset = fdt_node_offset_by_compatible(fdt, offset,
                                                   "virtio,mmio")) >= 0) {
        const fdt64_t *reg;
        char path[64];
        int size;

        reg = fdt_getprop(fdt, offset, "reg", &size);
        if (reg && size >= (int)sizeof(*reg) && fdt64_ld(reg) == base &&
            !fdt_get_path(fdt, offset, path, sizeof(path))) {
            return g_strdup(path);
        }
    }
    return NULL;
}

static void free_paths(char **paths, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        g_free(paths[i]);
    }
    g_free(paths);
}

void viommu_fdt_describe(const ViommuTopology *topology, const hwaddr *iommus,
                         size_t iommu_count, const hwaddr *endpoints,
                         size_t endpoint_count, Error **errp)
{
    MachineState *machine = MACHINE(qdev_get_machine());
    void *fdt = machine->fdt;
    g_autofree uint32_t *phandles = NULL;
    char **iommu_nodes, **endpoint_nodes;
    ViommuFdtNodes where = { 0 };
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
    phandles = g_new(uint32_t, iommu_count);
    iommu_nodes = g_new0(char *, iommu_count);
    endpoint_nodes = g_new0(char *, endpoint_count);
    for (size_t i = 0; i < iommu_count; i++) {
        phandles[i] = qemu_fdt_alloc_phandle(fdt);
        iommu_nodes[i] = transport_path(fdt, iommus[i]);
    }
    for (size_t i = 0; i < endpoint_count; i++) {
        endpoint_nodes[i] = transport_path(fdt, endpoints[i]);
    }
    trace_viommu_describe_fdt(iommu_count, endpoint_count);
    where.phandles = phandles;
    where.mmio_iommu_nodes = (const char *const *)iommu_nodes;
    where.mmio_endpoint_nodes = (const char *const *)endpoint_nodes;
    if (!viommu_topology_fdt(topology, fdt, &where, sentence,
                             sizeof(sentence))) {
        error_setg(errp, "device tree: %s", sentence);
    }
    free_paths(iommu_nodes, iommu_count);
    free_paths(endpoint_nodes, endpoint_count);
}
