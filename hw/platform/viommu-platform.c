/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine as the IOMMUs see it.  This file collects facts (root buses,
 * functions, addresses) and hands them to the model; what follows from them is
 * decided behind viommu/viommu.h.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/acpi/aml-build.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_host.h"
#include "hw/pci/pcie.h"
#include "hw/qdev-core.h"
#include "hw/sysbus.h"
#include "qemu/main-loop.h"
#include "system/system.h"

#include "hw/platform/viommu-platform.h"

/* Room for the sentence in which the model says what is wrong. */
#define SENTENCE 512

typedef struct Platform {
    GPtrArray *iommus;          /* VirtIOIOMMU, in the order of their index */
    GPtrArray *root_buses;      /* PCIBus, by number; fixed at machine-done */
    ViommuTopology *topology;
    DeviceListener device_listener;
    MemoryListener memory_listener;
    GHashTable *switched_off;   /* PCIDevice: lost its attachment, see below */
    QEMUBH *switched_off_bh;
    Notifier machine_done;
} Platform;

static Platform platform;

static uint16_t iommu_requester_id(VirtIOIOMMU *s)
{
    return pci_get_bdf(PCI_DEVICE(s->transport));
}

static const char *iommu_name(VirtIOIOMMU *s)
{
    return s->transport->id ?: s->transport->canonical_path;
}

/* -- the model -- */

static int collect_root_bus(Object *obj, void *opaque)
{
    GPtrArray *buses = opaque;
    PCIHostState *host =
        (PCIHostState *)object_dynamic_cast(obj, TYPE_PCI_HOST_BRIDGE);

    if (host && host->bus) {
        g_ptr_array_add(buses, host->bus);
    }
    return 0;
}

static gint root_bus_cmp(gconstpointer va, gconstpointer vb)
{
    PCIBus *a = *(PCIBus **)va, *b = *(PCIBus **)vb;

    return pci_bus_num(a) - pci_bus_num(b);
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
    g_autofree ViommuIommuDesc *iommus =
        g_new0(ViommuIommuDesc, platform.iommus->len);
    ViommuMachineDesc machine = {
        .iommus = iommus,
        .iommu_count = platform.iommus->len,
        .root_buses = roots,
        .root_bus_count = buses->len,
    };
    char sentence[SENTENCE];

    for (guint i = 0; i < platform.iommus->len; i++) {
        VirtIOIOMMU *s = g_ptr_array_index(platform.iommus, i);

        iommus[i] = (ViommuIommuDesc) {
            .name = iommu_name(s),
            .kind = VIOMMU_IOMMU_PCI,
            .requester_id = iommu_requester_id(s),
        };
    }
    for (guint i = 0; i < buses->len; i++) {
        PCIBus *bus = g_ptr_array_index(buses, i);
        PCIBus *next = i + 1 < buses->len ? g_ptr_array_index(buses, i + 1)
                                          : NULL;

        roots[i] = (ViommuRootBusDesc) {
            .name = BUS(bus)->name,
            .first_bus = pci_bus_num(bus),
            .last_bus = next ? pci_bus_num(next) - 1 : PCI_BUS_MAX - 1,
            .bypass = pci_bus_bypass_iommu(bus),
        };
    }

    platform.topology = viommu_topology_new(&machine, sentence,
                                            sizeof(sentence));
    if (!platform.topology) {
        error_setg(errp, "virtio-iommu: %s", sentence);
        return false;
    }
    for (guint i = 0; i < platform.iommus->len; i++) {
        VirtIOIOMMU *s = g_ptr_array_index(platform.iommus, i);

        viommu_engine_set_topology(s->engine, platform.topology, i);
    }
    return true;
}

/* Another IOMMU may have taken the bus after ours did. */
static bool still_ours(VirtIOIOMMU *s, Error **errp)
{
    PCIBus *bus = s->primary_bus;

    if (bus->iommu_ops == &viommu_pci_ops && bus->iommu_opaque == s) {
        return true;
    }
    error_setg(errp, "virtio-iommu: root bus '%s' has another IOMMU besides "
               "%s", BUS(bus)->name, iommu_name(s));
    return false;
}

static void machine_done(Notifier *notifier, void *data)
{
    for (guint i = 0; i < platform.iommus->len; i++) {
        if (!still_ours(g_ptr_array_index(platform.iommus, i), &error_fatal)) {
            return;
        }
    }
    platform.root_buses = g_ptr_array_new();
    object_child_foreach_recursive(OBJECT(qdev_get_machine()),
                                   collect_root_bus, platform.root_buses);
    g_ptr_array_sort(platform.root_buses, root_bus_cmp);
    build_topology(&error_fatal);
}

/* -- who is who -- */

/*
 * The requester ID that DMA of @dev carries when it reaches the root bus, as a
 * place on a bus.  A PCIe-to-PCI bridge takes ownership of the requests from
 * behind it with devfn 0 on its secondary bus; any other bridge to conventional
 * PCI with its own ID.
 */
static PCIBus *dma_alias(PCIDevice *dev, int *devfn)
{
    PCIBus *alias_bus = pci_get_bus(dev);
    int alias_devfn = dev->devfn;

    for (PCIBus *bus = alias_bus; !bus->iommu_ops && bus->parent_dev;) {
        PCIDevice *bridge = bus->parent_dev;
        PCIBus *parent = pci_get_bus(bridge);

        if (!pci_bus_is_express(bus)) {
            bool takes_ownership =
                pci_is_express(bridge) &&
                pcie_cap_get_type(bridge) == PCI_EXP_TYPE_PCI_BRIDGE;

            alias_bus = takes_ownership ? bus : parent;
            alias_devfn = takes_ownership ? 0 : bridge->devfn;
        }
        bus = parent;
    }
    *devfn = alias_devfn;
    return alias_bus;
}

bool viommu_platform_aliases(PCIDevice *dev, PCIBus *bus, int devfn)
{
    int alias_devfn;

    return dma_alias(dev, &alias_devfn) == bus && alias_devfn == devfn;
}

typedef struct Search {
    uint8_t bus_num;
    uint8_t devfn;
    PCIDevice *function;        /* has the ID as its own */
    PCIDevice *aliased;         /* does DMA under the ID */
} Search;

/*
 * Bus numbers are asked of the buses themselves, so the answer is right however
 * often the guest renumbered them.  A function that is switched off (an unused
 * VF, an empty hot-plug slot's) does not exist.
 */
static void search_bus(PCIBus *bus, Search *search)
{
    PCIBus *sec;

    for (int i = 0; i < ARRAY_SIZE(bus->devices); i++) {
        PCIDevice *dev = bus->devices[i];
        PCIBus *alias_bus;
        int alias_devfn;

        if (!dev || !dev->enabled) {
            continue;
        }
        if (pci_bus_num(bus) == search->bus_num && i == search->devfn) {
            search->function = search->function ?: dev;
        }
        alias_bus = dma_alias(dev, &alias_devfn);
        if (pci_bus_num(alias_bus) == search->bus_num &&
            alias_devfn == search->devfn) {
            search->aliased = search->aliased ?: dev;
        }
    }
    QLIST_FOREACH(sec, &bus->child, sibling) {
        /* Root buses of expander bridges hang here too, but are not below. */
        if (!pci_bus_is_root(sec) && sec->parent_dev->enabled) {
            search_bus(sec, search);
        }
    }
}

bool viommu_platform_resolve(VirtIOIOMMU *s, uint32_t id, ViommuIdentity *out)
{
    Search search = { .bus_num = PCI_BUS_NUM(id), .devfn = id & 0xff };
    ViommuRequester *r;
    PCIDevice *dev;
    PCIBus *bus;
    int devfn;

    for (guint i = 0; i < platform.root_buses->len; i++) {
        search_bus(g_ptr_array_index(platform.root_buses, i), &search);
    }
    dev = search.function ?: search.aliased;
    if (!dev) {
        return false;
    }
    bus = dma_alias(dev, &devfn);
    r = viommu_requester_find(s, bus, devfn);
    if (!r) {
        return false;
    }
    *out = (ViommuIdentity) {
        .endpoint = r->endpoint,
        .member = search.function ? (uintptr_t)dev : (uintptr_t)r,
    };
    return true;
}

/* -- registration -- */

static void device_unrealized(DeviceListener *listener, DeviceState *dev)
{
    PCIDevice *pci_dev =
        (PCIDevice *)object_dynamic_cast(OBJECT(dev), TYPE_PCI_DEVICE);

    if (!pci_dev) {
        return;
    }
    g_hash_table_remove(platform.switched_off, pci_dev);
    for (guint i = 0; i < platform.iommus->len; i++) {
        viommu_requesters_forget(g_ptr_array_index(platform.iommus, i),
                                 pci_dev);
    }
}

static bool attached(PCIDevice *dev)
{
    ViommuEndpointStats stats;
    int devfn;
    PCIBus *bus = dma_alias(dev, &devfn);

    for (guint i = 0; i < platform.iommus->len; i++) {
        ViommuRequester *r =
            viommu_requester_find(g_ptr_array_index(platform.iommus, i), bus,
                                  devfn);

        if (r) {
            viommu_endpoint_stats(r->endpoint, &stats);
            return stats.attached;
        }
    }
    return false;
}

/*
 * A function that is switched off (VFs disabled, slot powered off) loses its
 * attachment, but QEMU tells nobody.  It does change the memory topology, by
 * taking the function's bus mastering away, and that is the moment to look.
 * The attachment itself ends in a bottom half, or before the next request is
 * looked at, because it changes the memory topology in turn.
 */
static void note_switched_off(PCIBus *bus, bool off)
{
    PCIBus *sec;

    for (int i = 0; i < ARRAY_SIZE(bus->devices); i++) {
        PCIDevice *dev = bus->devices[i];

        if (dev && (off || !dev->enabled) && attached(dev)) {
            g_hash_table_add(platform.switched_off, dev);
        }
    }
    QLIST_FOREACH(sec, &bus->child, sibling) {
        if (!pci_bus_is_root(sec)) {
            note_switched_off(sec, off || !sec->parent_dev->enabled);
        }
    }
}

static void memory_committed(MemoryListener *listener)
{
    if (!platform.root_buses) {
        return;
    }
    for (guint i = 0; i < platform.root_buses->len; i++) {
        note_switched_off(g_ptr_array_index(platform.root_buses, i), false);
    }
    if (g_hash_table_size(platform.switched_off)) {
        qemu_bh_schedule(platform.switched_off_bh);
    }
}

static void forget_switched_off(void *opaque)
{
    g_autoptr(GHashTable) devices = platform.switched_off;
    GHashTableIter iter;
    gpointer key;

    platform.switched_off = g_hash_table_new(NULL, NULL);
    g_hash_table_iter_init(&iter, devices);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        PCIDevice *dev = key;
        int devfn;
        PCIBus *bus = dma_alias(dev, &devfn);

        for (guint i = 0; i < platform.iommus->len; i++) {
            ViommuRequester *r =
                viommu_requester_find(g_ptr_array_index(platform.iommus, i),
                                      bus, devfn);

            if (r) {
                viommu_endpoint_forget_member(r->endpoint, (uintptr_t)dev);
            }
        }
    }
}

void viommu_platform_settle(void)
{
    if (g_hash_table_size(platform.switched_off)) {
        forget_switched_off(NULL);
    }
}

bool viommu_platform_is_iommu(PCIBus *bus, int devfn)
{
    for (guint i = 0; i < platform.iommus->len; i++) {
        VirtIOIOMMU *s = g_ptr_array_index(platform.iommus, i);
        PCIDevice *dev = PCI_DEVICE(s->transport);

        if (pci_get_bus(dev) == bus && dev->devfn == devfn) {
            return true;
        }
    }
    return false;
}

bool viommu_platform_add(VirtIOIOMMU *s, PCIBus *bus, Error **errp)
{
    if (bus->iommu_ops) {
        error_setg(errp, "virtio-iommu: root bus '%s' has an IOMMU already",
                   BUS(bus)->name);
        return false;
    }
    if (!platform.iommus) {
        platform.iommus = g_ptr_array_new();
    }
    if (!platform.iommus->len) {
        platform.device_listener = (DeviceListener) {
            .unrealize = device_unrealized,
        };
        device_listener_register(&platform.device_listener);
        platform.switched_off = g_hash_table_new(NULL, NULL);
        platform.switched_off_bh = qemu_bh_new(forget_switched_off, NULL);
        platform.memory_listener = (MemoryListener) {
            .name = "virtio-iommu",
            .commit = memory_committed,
        };
        memory_listener_register(&platform.memory_listener,
                                 &address_space_memory);
        platform.machine_done.notify = machine_done;
        qemu_add_machine_init_done_notifier(&platform.machine_done);
    }
    g_ptr_array_add(platform.iommus, s);
    pci_setup_iommu(bus, &viommu_pci_ops, s);
    return true;
}

void viommu_platform_remove(VirtIOIOMMU *s)
{
    PCIBus *bus = s->primary_bus;

    if (bus->iommu_opaque == s) {
        bus->iommu_ops = NULL;
        bus->iommu_opaque = NULL;
    }
    viommu_engine_set_topology(s->engine, NULL, 0);
    g_ptr_array_remove(platform.iommus, s);
    if (!platform.iommus->len) {
        memory_listener_unregister(&platform.memory_listener);
        g_clear_pointer(&platform.switched_off_bh, qemu_bh_delete);
        g_clear_pointer(&platform.switched_off, g_hash_table_unref);
        device_listener_unregister(&platform.device_listener);
        qemu_remove_machine_init_done_notifier(&platform.machine_done);
        g_clear_pointer(&platform.topology, viommu_topology_free);
        g_clear_pointer(&platform.root_buses, g_ptr_array_unref);
    }
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
    g_autofree uint8_t *body = NULL;
    char sentence[SENTENCE];
    size_t size;

    /* One table describes all IOMMUs; the first of them brings it. */
    if (!platform.topology || g_ptr_array_index(platform.iommus, 0) != s) {
        return;
    }
    size = viommu_topology_viot(platform.topology, NULL, 0, sentence,
                                sizeof(sentence));
    if (!size) {
        error_report("virtio-iommu: no VIOT table: %s", sentence);
        return;
    }
    body = g_malloc(size);
    viommu_topology_viot(platform.topology, body, size, sentence,
                         sizeof(sentence));

    acpi_add_table(table_offsets, table_data);
    acpi_table_begin(&table, table_data);
    g_array_append_vals(table_data, body, size);
    acpi_table_end(linker, &table);
}
