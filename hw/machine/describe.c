/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The model's way to the guest's firmware tables and device tree.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"

#include "hw/machine/acpi.h"
#include "hw/machine/describe.h"
#include "hw/machine/fdt.h"
#include "hw/machine/mmio-bus.h"
#include "hw/machine/registry.h"
#include "trace-viommu.h"

void viommu_describe_in_fdt(Error **errp)
{
    GPtrArray *units = viommu_registry_units();
    GPtrArray *transports = viommu_registry_transports();
    g_autofree hwaddr *iommus = g_new0(hwaddr, units->len);
    g_autofree hwaddr *endpoints = g_new0(hwaddr, transports->len);
    size_t n = 0;

    for (guint i = 0; i < units->len; i++) {
        ViommuUnit *unit = g_ptr_array_index(units, i);

        iommus[i] = unit->on_mmio ? viommu_mmio_base(unit->transport) : 0;
    }
    for (guint i = 0; i < transports->len; i++) {
        DeviceState *transport = g_ptr_array_index(transports, i);

        if (viommu_mmio_endpoint(transport)) {
            endpoints[n++] = viommu_mmio_base(transport);
        }
    }
    viommu_fdt_describe(viommu_registry_topology(), iommus, units->len,
                        endpoints, n, errp);
}

void viommu_describe_in_viot(Error **errp)
{
    char sentence[VIOMMU_SENTENCE];
    const ViommuTopology *topology = viommu_registry_topology();
    size_t size = viommu_topology_viot(topology, NULL, 0, sentence,
                                       sizeof(sentence));
    g_autofree uint8_t *body = g_malloc(size);

    if (!size || !viommu_topology_viot(topology, body, size, sentence,
                                       sizeof(sentence))) {
        error_setg(errp, "%s", sentence);
        return;
    }
    trace_viommu_describe_viot(size);
    viommu_acpi_set_viot(body, size, errp);
}
