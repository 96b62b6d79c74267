/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine as the IOMMUs see it.  This file collects facts (root buses,
 * functions, addresses) and hands them to the model; what follows from them is
 * decided behind viommu/viommu.h.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/acpi/aml-build.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"
#include "hw/pci/pci_host.h"
#include "hw/qdev-core.h"
#include "hw/sysbus.h"
#include "system/runstate.h"
#include "system/system.h"

#include "hw/platform/viommu-fdt.h"
#include "hw/platform/viommu-mmio-bus.h"
#include "hw/platform/viommu-pci-bus.h"
#include "hw/platform/viommu-platform.h"

/* Room for the sentence in which the model says what is wrong. */
#define SENTENCE 512

typedef struct Platform {
    GPtrArray *iommus;          /* VirtIOIOMMU, in the order of their index */
    GHashTable *spaces;         /* ViommuPlace -> ViommuSpace */
    GPtrArray *root_buses;      /* PCIBus, by number; fixed at machine-done */
    GArray *functions;          /* Function; NULL: to be collected anew */
    GPtrArray *transports;      /* DeviceState, by address; likewise */
    ViommuTopology *topology;   /* NULL before machine-done */
    uint8_t *viot;              /* behind the header; made at machine-done */
    size_t viot_size;
    DeviceListener device_listener;
    MemoryListener memory_listener;
    GHashTable *switched_off;   /* PCIDevice; see note_switched_off() */
    QEMUBH *switched_off_bh;
    Notifier machine_done;
} Platform;

static Platform platform;

typedef struct Function {
    PCIDevice *dev;
    bool enabled;               /* when it was looked at last */
} Function;

char *viommu_platform_device_name(DeviceState *dev)
{
    const char *type = object_get_typename(OBJECT(dev));
    PCIDevice *pci = (PCIDevice *)object_dynamic_cast(OBJECT(dev),
                                                      TYPE_PCI_DEVICE);

    if (dev->id) {
        return g_strdup(dev->id);
    }
    if (pci) {
        return g_strdup_printf("%s at %02x:%02x.%x", type, pci_dev_bus_num(pci),
                               PCI_SLOT(pci->devfn), PCI_FUNC(pci->devfn));
    }
    if (dev->parent_bus && dev->parent_bus != sysbus_get_default()) {
        return g_strdup_printf("%s on %s", type, dev->parent_bus->name);
    }
    return g_strdup(type);
}

/* The user named the PCI function, or the device that sits on a transport. */
static char *iommu_name(VirtIOIOMMU *s)
{
    return viommu_platform_device_name(s->on_mmio ? DEVICE(s) : s->transport);
}

/* -- spaces -- */

static guint place_hash(gconstpointer v)
{
    const ViommuPlace *place = v;

    return g_direct_hash(place->bus ?: (void *)place->transport) * 31 +
           place->devfn;
}

static gboolean place_equal(gconstpointer va, gconstpointer vb)
{
    const ViommuPlace *a = va, *b = vb;

    return a->bus == b->bus && a->devfn == b->devfn &&
           a->transport == b->transport;
}

static void drop_space(gpointer space)
{
    viommu_space_drop(space);
}

static VirtIOIOMMU *manager_of_id(uint32_t id)
{
    for (guint i = 0; i < platform.iommus->len; i++) {
        VirtIOIOMMU *s = g_ptr_array_index(platform.iommus, i);

        if (viommu_topology_manages(platform.topology, s->index, id)) {
            return s;
        }
    }
    return NULL;
}

static VirtIOIOMMU *manager_of_bus(PCIBus *root)
{
    g_autofree char *name = NULL;

    while (!pci_bus_is_root(root)) {
        root = pci_get_bus(root->parent_dev);
    }
    name = viommu_pci_root_bus_name(root);
    for (guint i = 0; i < platform.iommus->len; i++) {
        VirtIOIOMMU *s = g_ptr_array_index(platform.iommus, i);

        if (viommu_topology_root_bus_iommu(platform.topology, name) ==
            s->index) {
            return s;
        }
    }
    return NULL;
}

static VirtIOIOMMU *manager_of(const ViommuSpace *space)
{
    return space->place.bus
           ? manager_of_bus(space->place.bus)
           : manager_of_id(viommu_platform_endpoint_id(space));
}

/* Before machine-done nobody knows yet which IOMMU gets what. */
static void bind_space(ViommuSpace *space)
{
    VirtIOIOMMU *s = manager_of(space);

    if (s) {
        viommu_space_bind(space, s);
    }
}

static bool is_iommu(const ViommuPlace *place)
{
    for (guint i = 0; i < platform.iommus->len; i++) {
        VirtIOIOMMU *s = g_ptr_array_index(platform.iommus, i);
        PCIDevice *dev = s->on_mmio ? NULL : PCI_DEVICE(s->transport);

        if (dev && pci_get_bus(dev) == place->bus &&
            dev->devfn == place->devfn) {
            return true;
        }
    }
    return false;
}

/* A device may need one before there is an IOMMU, so the table comes first. */
static GHashTable *spaces(void)
{
    if (!platform.spaces) {
        platform.spaces = g_hash_table_new_full(place_hash, place_equal, NULL,
                                                drop_space);
    }
    return platform.spaces;
}

AddressSpace *viommu_platform_address_space(ViommuPlace place)
{
    ViommuSpace *space = g_hash_table_lookup(spaces(), &place);

    if (!space) {
        space = viommu_space_new(place);
        g_hash_table_insert(spaces(), &space->place, space);
        if (platform.topology) {
            bind_space(space);
        }
    }
    return &space->as;
}

bool viommu_platform_managed(ViommuPlace place)
{
    ViommuSpace *space = g_hash_table_lookup(spaces(), &place);

    return space && space->s;
}

/*
 * A device of the host does DMA through an IOMMU of the host, which is to follow
 * ours.  QEMU asks before it gives us one, but not for a mediated device, nor
 * for one that comes before the IOMMU on the command line.
 */
static bool is_host_device(PCIDevice *dev)
{
    return object_dynamic_cast(OBJECT(dev), "vfio-pci");
}

static bool host_device_comes(const ViommuPlace *place)
{
    bool settled;
    g_autoptr(GPtrArray) functions = viommu_pci_functions(platform.root_buses,
                                                          &settled);

    for (guint i = 0; i < functions->len; i++) {
        PCIDevice *dev = g_ptr_array_index(functions, i);
        ViommuPlace own = viommu_pci_dma_place(dev);

        if (!DEVICE(dev)->realized && is_host_device(dev) &&
            place_equal(&own, place)) {
            return true;
        }
    }
    return false;
}

static AddressSpace *get_address_space(PCIBus *bus, void *opaque, int devfn)
{
    ViommuPlace place = { .bus = bus, .devfn = devfn };
    AddressSpace *as;

    /* W9: an IOMMU's own rings are never translated, by itself or another. */
    if (is_iommu(&place)) {
        return &address_space_memory;
    }
    as = viommu_platform_address_space(place);
    if (viommu_platform_managed(place) && host_device_comes(&place)) {
        return viommu_space_that_refuses();
    }
    /* vhost takes any other answer to mean that there is an IOMMU to ask. */
    return platform.topology && !viommu_platform_managed(place)
           ? &address_space_memory : as;
}

static bool set_iommu_device(PCIBus *bus, void *opaque, int devfn,
                             HostIOMMUDevice *hiod, Error **errp)
{
    error_setg(errp, VIOMMU_NO_HOST_DEVICES);
    return false;
}

static const PCIIOMMUOps pci_ops = {
    .get_address_space = get_address_space,
    .set_iommu_device = set_iommu_device,
};

uint32_t viommu_platform_endpoint_id(const ViommuSpace *space)
{
    guint index;

    if (!space->place.bus) {
        if (platform.transports &&
            g_ptr_array_find(platform.transports, space->place.transport,
                             &index)) {
            return (VIOMMU_SEGMENT_MMIO << 16) + index;
        }
        return UINT32_MAX;
    }
    return PCI_BUILD_BDF(pci_bus_num(space->place.bus), space->place.devfn);
}

static gint space_cmp(gconstpointer a, gconstpointer b)
{
    uint32_t ida = viommu_platform_endpoint_id(a);
    uint32_t idb = viommu_platform_endpoint_id(b);

    return (ida > idb) - (ida < idb);
}

void viommu_platform_for_each_space(VirtIOIOMMU *s,
                                    void (*visit)(ViommuSpace *space,
                                                  void *opaque),
                                    void *opaque)
{
    g_autoptr(GList) list = g_hash_table_get_values(spaces());

    list = g_list_sort(list, space_cmp);
    for (GList *l = list; l; l = l->next) {
        ViommuSpace *space = l->data;
        uint32_t id;

        /* A device that failed to be realized leaves a space without anyone. */
        if (space->s == s && viommu_platform_own_id(space, &id)) {
            visit(space, opaque);
        }
    }
}

bool viommu_platform_resolve(VirtIOIOMMU *s, uint32_t id, ViommuIdentity *out)
{
    ViommuPlace place = { 0 };
    ViommuSpace *space;
    PCIDevice *dev = NULL;

    if (id >> 16 == VIOMMU_SEGMENT_MMIO) {
        uint16_t index = id;

        if (index >= platform.transports->len) {
            return false;
        }
        place.transport = g_ptr_array_index(platform.transports, index);
        if (!viommu_mmio_endpoint(place.transport)) {
            return false;
        }
    } else if (!viommu_pci_find(platform.root_buses, id, &place, &dev)) {
        return false;
    }
    space = g_hash_table_lookup(spaces(), &place);
    if (!space || space->s != s) {
        return false;
    }
    *out = (ViommuIdentity) {
        .endpoint = space->endpoint,
        .member = dev ? (uintptr_t)dev : (uintptr_t)space,
    };
    return true;
}

bool viommu_platform_own_id(const ViommuSpace *space, uint32_t *id)
{
    ViommuIdentity who;

    *id = viommu_platform_endpoint_id(space);
    return viommu_platform_resolve(space->s, *id, &who) &&
           who.endpoint == space->endpoint;
}

/* -- functions that go -- */

static ViommuSpace *managed_space_of(PCIDevice *dev)
{
    ViommuPlace place = viommu_pci_dma_place(dev);
    ViommuSpace *space = g_hash_table_lookup(spaces(), &place);

    return space && space->s ? space : NULL;
}

/*
 * PCIe expander buses are asked about through the bus that carries them.  What
 * is behind a conventional one would then do DMA under the expander's own ID on
 * that bus, and not under an ID of the root bus where guests see it.
 */
static bool is_hooked(PCIBus *root)
{
    return !root->parent_dev || !pci_bus_is_express(root);
}

/* A device behind an expander may ask before the machine is complete. */
static void hook_expander(PCIDevice *dev)
{
    PCIBus *sec;

    QLIST_FOREACH(sec, &pci_get_bus(dev)->child, sibling) {
        if (sec->parent_dev == dev && pci_bus_is_root(sec) && is_hooked(sec) &&
            !sec->iommu_ops) {
            pci_setup_iommu(sec, &pci_ops, NULL);
        }
    }
}

static void device_realized(DeviceListener *listener, DeviceState *dev)
{
    PCIDevice *pci_dev =
        (PCIDevice *)object_dynamic_cast(OBJECT(dev), TYPE_PCI_DEVICE);

    if (pci_dev) {
        g_clear_pointer(&platform.functions, g_array_unref);
        hook_expander(pci_dev);
    }
}

static void add_member(GArray *gone, ViommuSpace *space, void *member)
{
    ViommuIdentity who = {
        .endpoint = space->endpoint, .member = (uintptr_t)member,
    };

    g_array_append_val(gone, who);
}

/*
 * @dev no longer does DMA.  Whoever attached its alias by the alias's own ID
 * attached what is behind it: without any, the attachment ends as well, or the
 * next one to come would inherit it.
 */
static void add_function(GArray *gone, ViommuSpace *space, PCIDevice *dev)
{
    ViommuPlace place = viommu_pci_dma_place(dev);

    add_member(gone, space, dev);
    if (place_equal(&place, &space->place) &&
        !viommu_pci_place_in_use(platform.root_buses, &place)) {
        add_member(gone, space, space);
    }
}

static GArray *members_new(void)
{
    return g_array_new(false, false, sizeof(ViommuIdentity));
}

static void forget_members(const GArray *gone)
{
    for (guint i = 0; i < platform.iommus->len; i++) {
        VirtIOIOMMU *s = g_ptr_array_index(platform.iommus, i);

        viommu_engine_forget(s->engine, (const ViommuIdentity *)gone->data,
                             gone->len);
    }
}

static void device_unrealized(DeviceListener *listener, DeviceState *dev)
{
    PCIDevice *pci_dev =
        (PCIDevice *)object_dynamic_cast(OBJECT(dev), TYPE_PCI_DEVICE);
    g_autoptr(GArray) gone = members_new();
    GHashTableIter iter;
    gpointer value;

    if (!pci_dev) {
        return;
    }
    g_clear_pointer(&platform.functions, g_array_unref);
    g_hash_table_remove(platform.switched_off, pci_dev);
    g_hash_table_iter_init(&iter, spaces());
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        ViommuSpace *space = value;

        if (viommu_pci_place_gone(&space->place, pci_dev)) {
            g_hash_table_iter_remove(&iter);
        } else if (space->s) {
            add_function(gone, space, pci_dev);
        }
    }
    forget_members(gone);
}

/*
 * A function that is switched off (VFs disabled, slot powered off) loses its
 * attachment, but QEMU tells nobody.  If the function was a bus master, the
 * memory topology changes, and that is the moment to look; if it was not, it
 * is early enough before the next request.  The attachment itself ends in a
 * bottom half, because that changes the memory topology in turn.
 */
static void note_switched_off(PCIDevice *dev)
{
    ViommuSpace *space = managed_space_of(dev);
    ViommuEndpointStats stats;

    if (!space) {
        return;
    }
    viommu_endpoint_stats(space->endpoint, &stats);
    if (stats.attached && g_hash_table_add(platform.switched_off, dev)) {
        qemu_bh_schedule(platform.switched_off_bh);
    }
}

static bool collect_functions(void)
{
    bool settled;
    g_autoptr(GPtrArray) devices = viommu_pci_functions(platform.root_buses,
                                                        &settled);

    platform.functions = g_array_sized_new(false, false, sizeof(Function),
                                           devices->len);
    for (guint i = 0; i < devices->len; i++) {
        Function function = { .dev = g_ptr_array_index(devices, i) };

        g_array_append_val(platform.functions, function);
    }
    return settled;
}

/* W31 */
static bool any_lingers(void)
{
    for (guint i = 0; i < platform.iommus->len; i++) {
        VirtIOIOMMU *s = g_ptr_array_index(platform.iommus, i);

        if (viommu_engine_lingering(s->engine)) {
            return true;
        }
    }
    return false;
}

static bool lingers_without_dma(PCIDevice *dev)
{
    ViommuSpace *space = managed_space_of(dev);

    return space && viommu_engine_lingering(space->s->engine) &&
           !(pci_get_word(dev->config + PCI_COMMAND) & PCI_COMMAND_MASTER);
}

/* Before every batch of requests, so it had better be quick. */
static bool functions_as_before(void)
{
    const Function *functions = (const Function *)platform.functions->data;

    for (guint i = 0; i < platform.functions->len; i++) {
        if (functions[i].dev->enabled != functions[i].enabled) {
            return false;
        }
    }
    return true;
}

void viommu_platform_look(void)
{
    bool settled = true, lingers;

    if (!platform.root_buses) {
        return;
    }
    /* A state that is being loaded has no bus masters yet. */
    lingers = runstate_is_running() && any_lingers();
    if (!platform.functions) {
        settled = collect_functions();
    } else if (!lingers && functions_as_before()) {
        return;
    }
    for (guint i = 0; i < platform.functions->len; i++) {
        Function *function = &g_array_index(platform.functions, Function, i);
        PCIDevice *dev = function->dev;

        function->enabled = dev->enabled;
        /* One that fails to be realized vanishes without a word. */
        if (DEVICE(dev)->realized &&
            (viommu_pci_switched_off(dev) ||
             (lingers && lingers_without_dma(dev)))) {
            note_switched_off(dev);
        }
    }
    if (!settled) {
        g_clear_pointer(&platform.functions, g_array_unref);
    }
}

static void memory_committed(MemoryListener *listener)
{
    viommu_platform_look();
}

static void forget_switched_off(void *opaque)
{
    g_autoptr(GHashTable) devices = NULL;
    g_autoptr(GArray) gone = members_new();
    GHashTableIter iter;
    gpointer key;

    if (!g_hash_table_size(platform.switched_off)) {
        return;
    }
    devices = platform.switched_off;
    platform.switched_off = g_hash_table_new(NULL, NULL);
    g_hash_table_iter_init(&iter, devices);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        ViommuSpace *space = managed_space_of(key);

        if (space) {
            add_function(gone, space, key);
        }
    }
    forget_members(gone);
}

void viommu_platform_settle(void)
{
    viommu_platform_look();
    forget_switched_off(NULL);
}

/* -- the model -- */

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

static GPtrArray *root_buses(void)
{
    GPtrArray *buses = g_ptr_array_new();

    object_child_foreach_recursive(OBJECT(qdev_get_machine()),
                                   collect_root_bus, buses);
    g_ptr_array_sort(buses, root_bus_cmp);
    return buses;
}

static int find_object(Object *obj, void *opaque)
{
    void **wanted = opaque;

    return obj == *wanted;
}

/* What IOMMUs of other kinds hand to the PCI core is themselves, mostly. */
static char *other_iommu_name(PCIBus *bus)
{
    void *opaque = bus->iommu_opaque;

    if (opaque && object_child_foreach_recursive(OBJECT(qdev_get_machine()),
                                                 find_object, &opaque)) {
        DeviceState *dev = (DeviceState *)object_dynamic_cast(opaque,
                                                              TYPE_DEVICE);

        if (dev) {
            return viommu_platform_device_name(dev);
        }
    }
    return g_strdup("an IOMMU of another kind");
}

/* @s is the one that wants them now. */
static bool hook_root_buses(VirtIOIOMMU *s, Error **errp)
{
    g_autoptr(GPtrArray) buses = root_buses();

    for (guint i = 0; i < buses->len; i++) {
        PCIBus *bus = g_ptr_array_index(buses, i);

        if (bus->iommu_ops && bus->iommu_ops != &pci_ops) {
            g_autofree char *name = iommu_name(s);
            g_autofree char *other = other_iommu_name(bus);

            error_setg(errp, "root bus %s has two IOMMUs: %s and %s",
                       BUS(bus)->name, name, other);
            return false;
        }
        if (is_hooked(bus)) {
            pci_setup_iommu(bus, &pci_ops, NULL);
        }
    }
    return true;
}

/*
 * Where no IOMMU is, such a back end is nobody's business; see get_dma_as() of
 * the transports' bus.
 */
static bool check_back_ends(Error **errp)
{
    for (guint i = 0; i < platform.transports->len; i++) {
        DeviceState *transport = g_ptr_array_index(platform.transports, i);
        VirtIODevice *vdev = viommu_mmio_endpoint(transport);
        VirtIOIOMMU *s = vdev && vdev->dma_as == &address_space_memory
                         ? manager_of_id((VIOMMU_SEGMENT_MMIO << 16) + i)
                         : NULL;

        if (s) {
            g_autofree char *name = iommu_name(s);
            g_autofree char *device = viommu_platform_device_name(DEVICE(vdev));

            error_setg(errp, "%s is behind IOMMU %s, but its back end does not "
                       "support iommu_platform=on", device, name);
            return false;
        }
    }
    return true;
}

static bool check_host_devices(Error **errp)
{
    bool settled;
    g_autoptr(GPtrArray) functions = viommu_pci_functions(platform.root_buses,
                                                          &settled);

    for (guint i = 0; i < functions->len; i++) {
        PCIDevice *dev = g_ptr_array_index(functions, i);

        if (is_host_device(dev) && manager_of_bus(pci_get_bus(dev))) {
            g_autofree char *name = viommu_platform_device_name(DEVICE(dev));

            error_setg(errp, "%s: " VIOMMU_NO_HOST_DEVICES, name);
            return false;
        }
    }
    return true;
}

/*
 * A root bus owns the bus numbers from its own up to the next root bus's.
 * Both are properties, so what the model says never depends on how the guest
 * numbers the buses behind bridges.
 */
static bool build_topology(Error **errp)
{
    GPtrArray *buses = platform.root_buses;
    g_autofree ViommuRootBusDesc *roots = g_new0(ViommuRootBusDesc, buses->len);
    GPtrArray *transports = platform.transports;
    g_autofree ViommuIommuDesc *iommus =
        g_new0(ViommuIommuDesc, platform.iommus->len);
    g_autofree ViommuMmioEndpointDesc *endpoints =
        g_new0(ViommuMmioEndpointDesc, transports->len);
    ViommuMachineDesc machine = {
        .iommus = iommus,
        .iommu_count = platform.iommus->len,
        .root_buses = roots,
        .root_bus_count = buses->len,
        .mmio_endpoints = endpoints,
        .no_mmio_transports = !transports->len,
    };
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    char sentence[SENTENCE];

    for (guint i = 0; i < platform.iommus->len; i++) {
        VirtIOIOMMU *s = g_ptr_array_index(platform.iommus, i);

        s->index = i;
        g_ptr_array_add(names, iommu_name(s));
        iommus[i] = (ViommuIommuDesc) {
            .name = g_ptr_array_index(names, names->len - 1),
            .kind = s->on_mmio ? VIOMMU_IOMMU_MMIO : VIOMMU_IOMMU_PCI,
            .requester_id = s->on_mmio
                            ? 0 : pci_get_bdf(PCI_DEVICE(s->transport)),
            .base = s->on_mmio ? viommu_mmio_base(s->transport) : 0,
            .root_buses = s->root_bus_names,
            .root_bus_count = s->root_bus_count,
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
            g_ptr_array_add(names, viommu_platform_device_name(DEVICE(vdev)));
            endpoints[machine.mmio_endpoint_count++] = (ViommuMmioEndpointDesc) {
                .name = g_ptr_array_index(names, names->len - 1),
                .index = i,
                .base = viommu_mmio_base(transport),
                .iommu = VIOMMU_NO_IOMMU,
            };
        }
    }

    platform.topology = viommu_topology_new(&machine, sentence,
                                            sizeof(sentence));
    if (!platform.topology) {
        error_setg(errp, "%s", sentence);
        return false;
    }
    return check_back_ends(errp) && check_host_devices(errp);
}

static void describe_in_fdt(Error **errp)
{
    g_autofree hwaddr *iommus = g_new0(hwaddr, platform.iommus->len);
    g_autofree hwaddr *endpoints = g_new0(hwaddr, platform.transports->len);
    size_t n = 0;

    for (guint i = 0; i < platform.iommus->len; i++) {
        VirtIOIOMMU *s = g_ptr_array_index(platform.iommus, i);

        iommus[i] = s->on_mmio ? viommu_mmio_base(s->transport) : 0;
    }
    for (guint i = 0; i < platform.transports->len; i++) {
        DeviceState *transport = g_ptr_array_index(platform.transports, i);

        if (viommu_mmio_endpoint(transport)) {
            endpoints[n++] = viommu_mmio_base(transport);
        }
    }
    viommu_fdt_describe(platform.topology, iommus, platform.iommus->len,
                        endpoints, n, errp);
}

/*
 * Guests ask for the table while they run, and one that got none would leave
 * its devices bypassing: what can fail is done before they start.
 */
static void describe_in_viot(Error **errp)
{
    char sentence[SENTENCE];
    size_t size = viommu_topology_viot(platform.topology, NULL, 0, sentence,
                                       sizeof(sentence));

    platform.viot = g_malloc(size);
    if (!size || !viommu_topology_viot(platform.topology, platform.viot, size,
                                       sentence, sizeof(sentence))) {
        error_setg(errp, "%s", sentence);
        return;
    }
    platform.viot_size = size;
}

static void machine_done(Notifier *notifier, void *data)
{
    GHashTableIter iter;
    gpointer value;

    /* Another kind of IOMMU may have come after ours. */
    if (platform.iommus->len) {
        hook_root_buses(g_ptr_array_index(platform.iommus, 0), &error_fatal);
    }

    platform.root_buses = root_buses();
    platform.transports = viommu_mmio_transports();
    build_topology(&error_fatal);

    for (guint i = 0; i < platform.iommus->len; i++) {
        VirtIOIOMMU *s = g_ptr_array_index(platform.iommus, i);

        viommu_device_set_topology(s, platform.topology, i, &error_fatal);
    }
    describe_in_viot(&error_fatal);
    describe_in_fdt(&error_fatal);
    g_hash_table_iter_init(&iter, spaces());
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        bind_space(value);
    }
}

/* -- registration -- */

static void platform_init(void)
{
    platform.iommus = g_ptr_array_new();
    platform.switched_off = g_hash_table_new(NULL, NULL);
    platform.switched_off_bh = qemu_bh_new(forget_switched_off, NULL);
    platform.device_listener.realize = device_realized;
    platform.device_listener.unrealize = device_unrealized;
    device_listener_register(&platform.device_listener);
    platform.memory_listener = (MemoryListener) {
        .name = "virtio-iommu",
        .commit = memory_committed,
    };
    memory_listener_register(&platform.memory_listener, &address_space_memory);
    platform.machine_done.notify = machine_done;
    qemu_add_machine_init_done_notifier(&platform.machine_done);
}

bool viommu_platform_add(VirtIOIOMMU *s, Error **errp)
{
    if (!hook_root_buses(s, errp)) {
        return false;
    }
    if (platform.topology) {
        error_setg(errp, "a virtio-iommu cannot be added to a machine that "
                   "runs");
        return false;
    }
    if (!platform.iommus) {
        platform_init();
    }
    g_ptr_array_add(platform.iommus, s);
    return true;
}

void viommu_platform_remove(VirtIOIOMMU *s)
{
    GHashTableIter iter;
    gpointer value;

    viommu_engine_set_topology(s->engine, NULL, 0);
    g_hash_table_iter_init(&iter, spaces());
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        ViommuSpace *space = value;

        if (space->s == s) {
            viommu_space_unbind(space);
        }
    }
    g_ptr_array_remove(platform.iommus, s);
}

bool viommu_platform_msi_region(ViommuRegion *region)
{
    static const struct {
        const char *type;
        hwaddr first;           /* of the doorbell, from the first region on */
        hwaddr size;
    } controllers[] = {
        /* GITS_TRANSLATER is in the second 64 KiB page */
        { "arm-gicv3-its-common", 0x10000, 0x10000 },
        { "arm-gicv2m", 0, 0x1000 },
    };

    if (object_dynamic_cast(qdev_get_machine(), "x86-machine")) {
        /* Local APICs take interrupts as writes to this window. */
        *region = (ViommuRegion) { 0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI };
        return true;
    }
    for (int i = 0; i < ARRAY_SIZE(controllers); i++) {
        Object *obj = object_resolve_path_type("", controllers[i].type, NULL);
        SysBusDevice *dev =
            (SysBusDevice *)object_dynamic_cast(obj, TYPE_SYS_BUS_DEVICE);

        if (dev && dev->num_mmio && dev->mmio[0].addr != (hwaddr)-1) {
            hwaddr start = dev->mmio[0].addr + controllers[i].first;

            *region = (ViommuRegion) {
                start, start + controllers[i].size - 1, VIOMMU_RESV_MSI,
            };
            return true;
        }
    }
    return false;
}

/* -- descriptions -- */

void viommu_platform_build_acpi(VirtIOIOMMU *s, GArray *table_offsets,
                                GArray *table_data, BIOSLinker *linker,
                                const char *oem_id, const char *oem_table_id)
{
    AcpiTable table = {
        .sig = "VIOT", .rev = 0, .oem_id = oem_id, .oem_table_id = oem_table_id,
    };

    /* One table describes all IOMMUs; the first of them brings it. */
    if (!platform.viot || !platform.iommus->len ||
        g_ptr_array_index(platform.iommus, 0) != s) {
        return;
    }
    acpi_add_table(table_offsets, table_data);
    acpi_table_begin(&table, table_data);
    g_array_append_vals(table_data, platform.viot, platform.viot_size);
    acpi_table_end(linker, &table);
}
