/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Facts for the model of the machine: which IOMMUs, root buses and endpoints on
 * transports there are.  What follows from them is decided behind
 * viommu/viommu.h.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"
#include "hw/pci/pci_host.h"

#include "hw/machine/mmio-bus.h"
#include "hw/machine/model.h"
#include "hw/machine/names.h"
#include "hw/machine/pci-bus.h"
#include "hw/machine/registry.h"

static int collect_root_bus(Object *obj, void *opaque)
{
    PCIHostState *host =
        (PCIHostState *)object_dynamic_cast(obj, TYPE_PCI_HOST_BRIDGE);

    if (host && host->bus) {
        g_ptr_array_add(opaque, host->bus);
    }
    return 0;
}

static gint root_bus_cmp(gconstpointer va, gconstpointer vb)
{
    PCIBus *a = *(PCIBus **)va, *b = *(PCIBus **)vb;

    return pci_bus_num(a) - pci_bus_num(b);
}

GPtrArray *viommu_model_root_buses(void)
{
    GPtrArray *buses = g_ptr_array_new();

    object_child_foreach_recursive(OBJECT(qdev_get_machine()),
                                   collect_root_bus, buses);
    g_ptr_array_sort(buses, root_bus_cmp);
    return buses;
}

static bool is_expander(PCIDevice *dev)
{
    PCIBus *sec;

    QLIST_FOREACH(sec, &pci_get_bus(dev)->child, sibling) {
        if (sec->parent_dev == dev && pci_bus_is_root(sec)) {
            return true;
        }
    }
    return false;
}

/* What users may name, but for the names of the root buses: @roots, in the same order. */
static GArray *collect_functions(GPtrArray *buses, const ViommuRootBusDesc *roots)
{
    bool settled;
    g_autoptr(GPtrArray) devices = viommu_pci_functions(buses, &settled);
    GArray *functions = g_array_sized_new(false, false, sizeof(ViommuFunctionDesc),
                                          devices->len);

    for (guint i = 0; i < devices->len; i++) {
        PCIDevice *dev = g_ptr_array_index(devices, i);
        PCIBus *bus = pci_get_bus(dev);
        ViommuFunctionDesc function = {
            .id = DEVICE(dev)->id,
            .on_root_bus = pci_bus_is_root(bus),
            .devfn = dev->devfn,
            .bridge = IS_PCI_BRIDGE(dev),
            .expander = is_expander(dev),
        };
        guint root;

        if (g_ptr_array_find(buses, viommu_pci_root_bus(bus), &root)) {
            function.root_bus = roots[root].name;
        }
        g_array_append_val(functions, function);
    }
    return functions;
}

/*
 * A root bus owns the bus numbers from its own up to the next root bus's.
 * Both are properties, so what the model says never depends on how the guest
 * numbers the buses behind bridges.
 */
ViommuTopology *viommu_model_new(Error **errp)
{
    GPtrArray *units = viommu_registry_units();
    GPtrArray *buses = viommu_registry_root_buses();
    g_autofree ViommuRootBusDesc *roots = g_new0(ViommuRootBusDesc, buses->len);
    GPtrArray *transports = viommu_registry_transports();
    g_autofree ViommuIommuDesc *iommus =
        g_new0(ViommuIommuDesc, units->len);
    g_autofree ViommuMmioEndpointDesc *endpoints =
        g_new0(ViommuMmioEndpointDesc, transports->len);
    ViommuMachineDesc machine = {
        .iommus = iommus,
        .iommu_count = units->len,
        .root_buses = roots,
        .root_bus_count = buses->len,
        .mmio_endpoints = endpoints,
        .no_mmio_transports = !transports->len,
    };
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GArray) functions = NULL;
    ViommuTopology *topology;
    char sentence[VIOMMU_SENTENCE];

    for (guint i = 0; i < units->len; i++) {
        ViommuUnit *unit = g_ptr_array_index(units, i);

        unit->index = i;
        g_ptr_array_add(names, viommu_unit_name(unit));
        iommus[i] = (ViommuIommuDesc) {
            .name = g_ptr_array_index(names, names->len - 1),
            .kind = unit->on_mmio ? VIOMMU_IOMMU_MMIO : VIOMMU_IOMMU_PCI,
            .requester_id = unit->on_mmio
                            ? 0 : pci_get_bdf(PCI_DEVICE(unit->transport)),
            .base = unit->on_mmio ? viommu_mmio_base(unit->transport) : 0,
            .root_buses = unit->root_bus_names,
            .root_bus_count = unit->root_bus_count,
            .left_out = unit->left_out,
            .left_out_count = unit->left_out_count,
        };
    }
    for (guint i = 0; i < buses->len; i++) {
        PCIBus *bus = g_ptr_array_index(buses, i);
        PCIBus *next = i + 1 < buses->len ? g_ptr_array_index(buses, i + 1)
                                          : NULL;

        g_ptr_array_add(names, viommu_pci_root_bus_name(bus));
        roots[i] = (ViommuRootBusDesc) {
            .name = g_ptr_array_index(names, names->len - 1),
            .first_bus = pci_bus_num(bus),
            .last_bus = next ? pci_bus_num(next) - 1 : PCI_BUS_MAX - 1,
            .bypass = pci_bus_bypass_iommu(bus),
        };
    }
    for (guint i = 0; i < transports->len; i++) {
        DeviceState *transport = g_ptr_array_index(transports, i);
        VirtIODevice *vdev = viommu_mmio_endpoint(transport);

        if (vdev) {
            g_ptr_array_add(names, viommu_device_name(DEVICE(vdev)));
            endpoints[machine.mmio_endpoint_count++] = (ViommuMmioEndpointDesc) {
                .name = g_ptr_array_index(names, names->len - 1),
                .index = i,
                .base = viommu_mmio_base(transport),
                .iommu = VIOMMU_NO_IOMMU,
            };
        }
    }

    functions = collect_functions(buses, roots);
    machine.functions = (const ViommuFunctionDesc *)functions->data;
    machine.function_count = functions->len;

    topology = viommu_topology_new(&machine, sentence, sizeof(sentence));
    if (!topology) {
        error_setg(errp, "%s", sentence);
    }
    return topology;
}
