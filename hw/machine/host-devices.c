/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/range.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"

#include "hw/machine/host-devices.h"
#include "hw/machine/names.h"
#include "hw/machine/pci-bus.h"
#include "hw/machine/registry.h"
#include "trace-viommu.h"

typedef struct HostDevice {
    PCIDevice *dev;
    ViommuPlace place;
    char *name;
    GArray *usable;             /* ViommuRange */
    uint64_t page_sizes;
} HostDevice;

static GPtrArray *host_devices; /* HostDevice, in the order in which they came */
static GHashTable *with_space;  /* PCIDevice, before the machine is complete */

static void free_host_device(gpointer data)
{
    HostDevice *host = data;

    g_array_unref(host->usable);
    g_free(host->name);
    g_free(host);
}

/* Mediated ones have no IOMMU of their own, but follow ours as well. */
static bool is_host_device(PCIDevice *dev)
{
    return object_dynamic_cast(OBJECT(dev), "vfio-pci");
}

/*
 * Emulated devices take their address space when the machine is complete, so that
 * the order of the command line does not matter to them.
 */
void viommu_host_devices_take_space(PCIBus *bus, const ViommuPlace *place)
{
    g_autoptr(GPtrArray) buses = g_ptr_array_new();
    g_autoptr(GPtrArray) functions = NULL;
    bool settled;

    if (viommu_registry_topology()) {
        return;
    }
    if (!with_space) {
        with_space = g_hash_table_new(NULL, NULL);
    }
    g_ptr_array_add(buses, bus);
    functions = viommu_pci_functions(buses, &settled);
    for (guint i = 0; i < functions->len; i++) {
        PCIDevice *dev = g_ptr_array_index(functions, i);
        ViommuPlace own = viommu_pci_dma_place(dev);

        if (!DEVICE(dev)->realized && is_host_device(dev) &&
            viommu_place_equal(&own, place)) {
            g_hash_table_add(with_space, dev);
        }
    }
}

static GArray *usable_ranges(HostIOMMUDevice *hiod)
{
    HostIOMMUDeviceClass *hioc = HOST_IOMMU_DEVICE_GET_CLASS(hiod);
    GArray *usable = g_array_new(false, false, sizeof(ViommuRange));
    GList *ranges = hioc->get_iova_ranges ? hioc->get_iova_ranges(hiod) : NULL;

    for (GList *l = ranges; l; l = l->next) {
        ViommuRange range = { range_lob(l->data), range_upb(l->data) };

        g_array_append_val(usable, range);
    }
    g_list_free_full(ranges, g_free);
    return usable;
}

/* All that share the place of @space, or false with @errp and no change. */
static bool reserve(ViommuSpace *space, Error **errp)
{
    g_autoptr(GArray) sharing = g_array_new(false, false, sizeof(ViommuHostDevice));
    char sentence[VIOMMU_SENTENCE];

    for (guint i = 0; i < host_devices->len; i++) {
        HostDevice *host = g_ptr_array_index(host_devices, i);
        ViommuHostDevice entry = {
            .name = host->name,
            .usable = (const ViommuRange *)host->usable->data,
            .usable_count = host->usable->len,
            .page_sizes = host->page_sizes,
        };

        if (viommu_place_equal(&host->place, &space->place)) {
            g_array_append_val(sharing, entry);
        }
    }
    if (!viommu_endpoint_set_hosts(space->endpoint,
                                   (const ViommuHostDevice *)sharing->data,
                                   sharing->len, sentence, sizeof(sentence))) {
        error_setg(errp, "%s", sentence);
        return false;
    }
    return true;
}

/* NULL if nobody manages it, or it is going. */
static ViommuSpace *space_of(const HostDevice *host)
{
    ViommuSpace *space = viommu_registry_space_at(&host->place);

    return space && space->unit ? space : NULL;
}

bool viommu_host_devices_add(PCIBus *bus, int devfn, HostIOMMUDevice *hiod,
                             Error **errp)
{
    HostIOMMUDeviceClass *hioc = HOST_IOMMU_DEVICE_GET_CLASS(hiod);
    PCIDevice *dev = bus->devices[devfn];
    HostDevice *host = g_new(HostDevice, 1);
    ViommuSpace *space;

    *host = (HostDevice) {
        .dev = dev,
        .place = viommu_pci_dma_place(dev),
        .name = viommu_device_name(DEVICE(dev)),
        .usable = usable_ranges(hiod),
        .page_sizes = hioc->get_page_size_mask ? hioc->get_page_size_mask(hiod)
                                               : 0,
    };
    if (!host_devices) {
        host_devices = g_ptr_array_new_with_free_func(free_host_device);
    }
    g_ptr_array_add(host_devices, host);
    trace_viommu_host_device(host->name, host->page_sizes, host->usable->len);
    space = viommu_registry_topology() ? space_of(host) : NULL;
    if (space && !reserve(space, errp)) {
        g_ptr_array_remove(host_devices, host);
        return false;
    }
    return true;
}

void viommu_host_devices_remove(PCIBus *bus, int devfn)
{
    PCIDevice *dev = bus->devices[devfn];

    for (guint i = 0; host_devices && i < host_devices->len; i++) {
        HostDevice *host = g_ptr_array_index(host_devices, i);

        if (host->dev == dev) {
            ViommuSpace *space =
                viommu_registry_topology() ? space_of(host) : NULL;

            g_ptr_array_remove_index(host_devices, i);
            if (space) {
                /* If it fails, more than necessary stays reserved. */
                reserve(space, NULL);
            }
            return;
        }
    }
}

bool viommu_host_devices_check(Error **errp)
{
    bool settled;
    g_autoptr(GPtrArray) functions = viommu_pci_functions(viommu_registry_root_buses(),
                                                          &settled);

    for (guint i = 0; i < functions->len; i++) {
        PCIDevice *dev = g_ptr_array_index(functions, i);
        ViommuPlace place = viommu_pci_dma_place(dev);

        if (is_host_device(dev) && viommu_registry_manager_of_place(&place) &&
            !(with_space && g_hash_table_contains(with_space, dev))) {
            g_autofree char *name = viommu_device_name(DEVICE(dev));

            error_setg(errp, "%s is an assigned device: it has to come after the "
                       "virtio-iommu on the command line", name);
            return false;
        }
    }
    g_clear_pointer(&with_space, g_hash_table_destroy);
    for (guint i = 0; host_devices && i < host_devices->len; i++) {
        HostDevice *host = g_ptr_array_index(host_devices, i);
        ViommuUnit *unit = viommu_registry_manager_of_place(&host->place);

        if (unit) {
            viommu_engine_raise_granule(unit->engine, host->page_sizes);
        }
    }
    return true;
}

bool viommu_host_devices_reserve(Error **errp)
{
    for (guint i = 0; host_devices && i < host_devices->len; i++) {
        HostDevice *host = g_ptr_array_index(host_devices, i);
        ViommuSpace *space = space_of(host);

        if (space && !reserve(space, errp)) {
            return false;
        }
    }
    return true;
}
