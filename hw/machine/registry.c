/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who is bound to whom: the IOMMUs of the machine, the address spaces of their
 * endpoints, and who has an endpoint ID at this moment.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"

#include "hw/compat.h"
#include "hw/machine/mmio-bus.h"
#include "hw/machine/names.h"
#include "hw/machine/pci-bus.h"
#include "hw/machine/registry.h"

static struct {
    GPtrArray *units;           /* ViommuUnit, in the order of their index */
    GHashTable *spaces;         /* ViommuPlace -> ViommuSpace */
    GPtrArray *root_buses;      /* PCIBus, by number; fixed at machine-done */
    GPtrArray *transports;      /* DeviceState, by address; likewise */
    ViommuTopology *topology;   /* NULL before machine-done */
} registry;

static guint place_hash(gconstpointer v)
{
    const ViommuPlace *place = v;

    return g_direct_hash(place->bus ?: (void *)place->transport) * 31 +
           place->devfn;
}

static gboolean place_equal(gconstpointer a, gconstpointer b)
{
    return viommu_place_equal(a, b);
}

static void drop_space(gpointer space)
{
    viommu_space_drop(space);
}

static ViommuUnit *manager_of_id(uint32_t id)
{
    for (guint i = 0; i < registry.units->len; i++) {
        ViommuUnit *unit = g_ptr_array_index(registry.units, i);

        if (viommu_topology_manages(registry.topology, unit->index, id)) {
            return unit;
        }
    }
    return NULL;
}

ViommuUnit *viommu_registry_manager_of_place(const ViommuPlace *place)
{
    g_autofree char *name =
        viommu_pci_root_bus_name(viommu_pci_root_bus(place->bus));

    if (viommu_pci_is_root_function(place) &&
        viommu_topology_left_out(registry.topology, name, place->devfn)) {
        return NULL;
    }
    for (guint i = 0; i < registry.units->len; i++) {
        ViommuUnit *unit = g_ptr_array_index(registry.units, i);

        if (viommu_topology_root_bus_iommu(registry.topology, name) ==
            unit->index) {
            return unit;
        }
    }
    return NULL;
}

bool viommu_registry_to_be_left_out(const ViommuPlace *place)
{
    PCIDevice *dev = place->bus->devices[place->devfn];
    g_autofree char *name =
        viommu_pci_root_bus_name(viommu_pci_root_bus(place->bus));
    ViommuFunctionDesc function = {
        .id = dev ? DEVICE(dev)->id : NULL,
        .root_bus = name,
        .on_root_bus = viommu_pci_is_root_function(place),
        .devfn = place->devfn,
    };

    for (guint i = 0; registry.units && i < registry.units->len; i++) {
        ViommuUnit *unit = g_ptr_array_index(registry.units, i);

        if (viommu_leave_out_names(unit->left_out, unit->left_out_count,
                                   &function)) {
            return true;
        }
    }
    return false;
}

static ViommuUnit *manager_of(const ViommuSpace *space)
{
    return space->place.bus
           ? viommu_registry_manager_of_place(&space->place)
           : manager_of_id(viommu_registry_endpoint_id(space));
}

/* Before machine-done nobody knows yet which IOMMU gets what. */
static void bind_space(ViommuSpace *space)
{
    ViommuUnit *unit = manager_of(space);

    if (unit) {
        viommu_space_bind(space, unit);
    }
}

bool viommu_registry_is_unit(const ViommuPlace *place)
{
    for (guint i = 0; i < registry.units->len; i++) {
        ViommuUnit *unit = g_ptr_array_index(registry.units, i);
        PCIDevice *dev = unit->on_mmio ? NULL : PCI_DEVICE(unit->transport);

        if (dev && pci_get_bus(dev) == place->bus &&
            dev->devfn == place->devfn) {
            return true;
        }
    }
    return false;
}

/* A device may need one before there is an IOMMU, so the table comes first. */
GHashTable *viommu_registry_spaces(void)
{
    if (!registry.spaces) {
        registry.spaces = g_hash_table_new_full(place_hash, place_equal, NULL,
                                                drop_space);
    }
    return registry.spaces;
}

AddressSpace *viommu_registry_address_space(ViommuPlace place)
{
    ViommuSpace *space = viommu_registry_space_at(&place);

    viommu_assert_big_lock();
    if (!space) {
        space = viommu_space_new(place);
        g_hash_table_insert(viommu_registry_spaces(), &space->place, space);
        if (registry.topology) {
            bind_space(space);
        }
    }
    return &space->as;
}

bool viommu_registry_managed(ViommuPlace place)
{
    ViommuSpace *space = viommu_registry_space_at(&place);

    return space && space->unit;
}

uint32_t viommu_registry_endpoint_id(const ViommuSpace *space)
{
    guint index;

    if (!space->place.bus) {
        if (registry.transports &&
            g_ptr_array_find(registry.transports, space->place.transport,
                             &index)) {
            return (VIOMMU_SEGMENT_MMIO << 16) + index;
        }
        return UINT32_MAX;
    }
    return PCI_BUILD_BDF(pci_bus_num(space->place.bus), space->place.devfn);
}

typedef struct Numbered {
    uint32_t id;
    ViommuSpace *space;
} Numbered;

static gint numbered_cmp(gconstpointer va, gconstpointer vb)
{
    const Numbered *a = va, *b = vb;

    return (a->id > b->id) - (a->id < b->id);
}

/* Whether an ID stands for its space takes a look at every bus: only for as many as
 * are wanted. */
GPtrArray *viommu_registry_spaces_from(ViommuUnit *unit, uint32_t from,
                                       guint cap, int64_t *next)
{
    g_autoptr(GArray) all = g_array_new(false, false, sizeof(Numbered));
    GPtrArray *found = g_ptr_array_new();
    GHashTableIter iter;
    gpointer value;

    *next = -1;
    g_hash_table_iter_init(&iter, viommu_registry_spaces());
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        Numbered one = { .space = value };

        if (one.space->unit == unit) {
            one.id = viommu_registry_endpoint_id(one.space);
            if (one.id >= from) {
                g_array_append_val(all, one);
            }
        }
    }
    g_array_sort(all, numbered_cmp);
    for (guint i = 0; i < all->len && *next < 0; i++) {
        Numbered *one = &g_array_index(all, Numbered, i);
        uint32_t id;

        /* A device that failed to be realized leaves a space without anyone. */
        if (!viommu_registry_own_id(one->space, &id)) {
            continue;
        }
        if (found->len < cap) {
            g_ptr_array_add(found, one->space);
        } else {
            *next = id;
        }
    }
    return found;
}

void viommu_registry_for_each_space(ViommuUnit *unit,
                                    void (*visit)(ViommuSpace *space,
                                                  void *opaque),
                                    void *opaque)
{
    int64_t next;
    g_autoptr(GPtrArray) spaces =
        viommu_registry_spaces_from(unit, 0, G_MAXUINT, &next);

    for (guint i = 0; i < spaces->len; i++) {
        visit(g_ptr_array_index(spaces, i), opaque);
    }
}

bool viommu_registry_resolve(ViommuUnit *unit, uint32_t id, ViommuIdentity *out)
{
    ViommuPlace place = { 0 };
    ViommuSpace *space;
    PCIDevice *dev = NULL;

    if (id >> 16 == VIOMMU_SEGMENT_MMIO) {
        uint16_t index = id;

        if (index >= registry.transports->len) {
            return false;
        }
        place.transport = g_ptr_array_index(registry.transports, index);
        if (!viommu_mmio_endpoint(place.transport)) {
            return false;
        }
    } else if (!viommu_pci_find(registry.root_buses, id, &place, &dev)) {
        return false;
    }
    space = viommu_registry_space_at(&place);
    if (!space || space->unit != unit) {
        return false;
    }
    *out = (ViommuIdentity) {
        .endpoint = space->endpoint,
        .member = dev ? (uintptr_t)dev : (uintptr_t)space,
    };
    return true;
}

bool viommu_registry_own_id(const ViommuSpace *space, uint32_t *id)
{
    ViommuIdentity who;

    *id = viommu_registry_endpoint_id(space);
    return viommu_registry_resolve(space->unit, *id, &who) &&
           who.endpoint == space->endpoint;
}

/*
 * Where no IOMMU is, such a back end is nobody's business; see get_dma_as() of
 * the transports' bus.
 */
bool viommu_registry_check_back_ends(Error **errp)
{
    for (guint i = 0; i < registry.transports->len; i++) {
        DeviceState *transport = g_ptr_array_index(registry.transports, i);
        VirtIODevice *vdev = viommu_mmio_endpoint(transport);
        ViommuUnit *unit = vdev && vdev->dma_as == &address_space_memory
                         ? manager_of_id((VIOMMU_SEGMENT_MMIO << 16) + i)
                         : NULL;

        if (unit) {
            g_autofree char *name = viommu_unit_name(unit);
            g_autofree char *device = viommu_device_name(DEVICE(vdev));

            error_setg(errp, "%s is behind IOMMU %s, but its back end does not "
                       "support iommu_platform=on", device, name);
            return false;
        }
    }
    return true;
}

GPtrArray *viommu_registry_units(void)
{
    return registry.units;
}

GPtrArray *viommu_registry_root_buses(void)
{
    return registry.root_buses;
}

GPtrArray *viommu_registry_transports(void)
{
    return registry.transports;
}

const ViommuTopology *viommu_registry_topology(void)
{
    return registry.topology;
}

ViommuSpace *viommu_registry_space_at(const ViommuPlace *place)
{
    return g_hash_table_lookup(viommu_registry_spaces(), place);
}

void viommu_registry_add(ViommuUnit *unit)
{
    if (!registry.units) {
        registry.units = g_ptr_array_new();
    }
    g_ptr_array_add(registry.units, unit);
}

void viommu_registry_remove(ViommuUnit *unit)
{
    GHashTableIter iter;
    gpointer value;

    viommu_engine_set_topology(unit->engine, NULL, 0);
    g_hash_table_iter_init(&iter, viommu_registry_spaces());
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        ViommuSpace *space = value;

        if (space->unit == unit) {
            viommu_space_unbind(space);
        }
    }
    g_ptr_array_remove(registry.units, unit);
}

void viommu_registry_set_buses(GPtrArray *root_buses, GPtrArray *transports)
{
    registry.root_buses = root_buses;
    registry.transports = transports;
}

void viommu_registry_set_topology(ViommuTopology *topology)
{
    registry.topology = topology;
}

void viommu_registry_bind_spaces(void)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, viommu_registry_spaces());
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        bind_space(value);
    }
}
