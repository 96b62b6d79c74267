/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Address spaces of the endpoints: how DMA of a PCI function reaches the
 * engine, and how the engine's decisions reach QEMU's memory core.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_bridge.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "system/dma.h"

#include "hw/platform/viommu-platform.h"
#include "hw/virtio/viommu-device.h"
#include "trace-viommu.h"

#define TYPE_VIOMMU_MEMORY_REGION "virtio-iommu-memory-region"

/*
 * The core computes the length of a block as mask + 1, so that a block of the
 * whole 64-bit space would have length 0.
 */
#define BLOCK_MASK_MAX ((UINT64_C(1) << 63) - 1)

QEMU_BUILD_BUG_ON((int)IOMMU_RO != VIOMMU_READ);
QEMU_BUILD_BUG_ON((int)IOMMU_WO != VIOMMU_WRITE);

static guint key_hash(gconstpointer v)
{
    const ViommuRequesterKey *key = v;

    return g_direct_hash(key->bus) * 31 + key->devfn;
}

static gboolean key_equal(gconstpointer va, gconstpointer vb)
{
    const ViommuRequesterKey *a = va, *b = vb;

    return a->bus == b->bus && a->devfn == b->devfn;
}

ViommuRequester *viommu_requester_find(VirtIOIOMMU *s, PCIBus *bus,
                                       uint8_t devfn)
{
    const ViommuRequesterKey key = { .bus = bus, .devfn = devfn };

    return s->requesters ? g_hash_table_lookup(s->requesters, &key) : NULL;
}

/*
 * vhost looks up only the start of a block in guest memory and trusts that the
 * rest of it follows: shrink the block until it lies within one RAM section.
 * Called within an RCU critical section.
 */
static hwaddr clip_to_ram(hwaddr phys, hwaddr mask)
{
    while (mask) {
        hwaddr xlat, len = mask + 1;

        address_space_translate(&address_space_memory, phys & ~mask, &xlat,
                                &len, false, MEMTXATTRS_UNSPECIFIED);
        if (len == mask + 1) {
            break;
        }
        mask >>= 1;
    }
    return mask;
}

/* Any thread that does DMA, within an RCU critical section. */
static IOMMUTLBEntry viommu_translate(IOMMUMemoryRegion *mr, hwaddr addr,
                                      IOMMUAccessFlags flag, int iommu_idx)
{
    ViommuRequester *r = container_of(mr, ViommuRequester, iommu);
    ViommuTranslation t;
    hwaddr mask;

    viommu_endpoint_translate(r->endpoint, addr, flag & IOMMU_RW, &t);
    if (t.fault_queued) {
        viommu_queue_kick(r->s);
    }

    mask = MIN(t.mask, BLOCK_MASK_MAX);
    if (t.rights && qatomic_read(&r->listeners) != IOMMU_NOTIFIER_NONE) {
        mask = clip_to_ram(t.phys, mask);
    }
    return (IOMMUTLBEntry) {
        .target_as = &address_space_memory,
        .iova = addr & ~mask,
        .translated_addr = t.phys & ~mask,
        .addr_mask = mask,
        .perm = t.rights,
    };
}

static int viommu_notify_flag_changed(IOMMUMemoryRegion *mr,
                                      IOMMUNotifierFlag old,
                                      IOMMUNotifierFlag new, Error **errp)
{
    ViommuRequester *r = container_of(mr, ViommuRequester, iommu);

    qatomic_set(&r->listeners, new);
    viommu_endpoint_set_listeners(r->endpoint, new & IOMMU_NOTIFIER_MAP,
                                  new & (IOMMU_NOTIFIER_UNMAP |
                                         IOMMU_NOTIFIER_DEVIOTLB_UNMAP));
    return 0;
}

/*
 * Notifications carry power-of-two blocks that are aligned at the IOVA.  @n is
 * the one listener to tell, or NULL for all.
 */
static void notify_range(ViommuRequester *r, IOMMUNotifier *n,
                         IOMMUNotifierFlag type, hwaddr iova, hwaddr last,
                         hwaddr phys, IOMMUAccessFlags perm)
{
    IOMMUTLBEvent event = {
        .type = type,
        .entry = { .target_as = &address_space_memory, .perm = perm },
    };

    for (;;) {
        hwaddr mask = MIN(dma_aligned_pow2_mask(iova, last, 64),
                          BLOCK_MASK_MAX);

        event.entry.iova = iova;
        event.entry.addr_mask = mask;
        event.entry.translated_addr = phys;
        if (n) {
            memory_region_notify_iommu_one(n, &event);
        } else {
            memory_region_notify_iommu(&r->iommu, 0, event);
        }
        if (last - iova <= mask) {
            break;
        }
        iova += mask + 1;
        if (perm != IOMMU_NONE) {
            phys += mask + 1;
        }
    }
}

typedef struct ReplayArgs {
    ViommuRequester *r;
    IOMMUNotifier *n;
} ReplayArgs;

static void replay_mapping(void *ctx, uint64_t iova, uint64_t last,
                           uint64_t phys, uint32_t rights, bool mmio)
{
    ReplayArgs *args = ctx;

    if (rights) {
        notify_range(args->r, args->n, IOMMU_NOTIFIER_MAP, iova, last, phys,
                     rights);
    }
}

static void viommu_replay(IOMMUMemoryRegion *mr, IOMMUNotifier *n)
{
    ViommuRequester *r = container_of(mr, ViommuRequester, iommu);
    ReplayArgs args = { .r = r, .n = n };

    viommu_endpoint_for_each_mapping(r->endpoint, replay_mapping, &args);
}

/* -- what the engine asks for -- */

static bool callback_resolve(void *opaque, uint32_t id, ViommuIdentity *out)
{
    return viommu_platform_resolve(opaque, id, out);
}

static bool callback_endpoint_id(void *opaque, void *endpoint, uint32_t *id)
{
    ViommuRequester *r = endpoint;

    *id = PCI_BUILD_BDF(pci_bus_num(r->key.bus), r->key.devfn);
    return true;
}

static void callback_begin_switch(void *opaque)
{
    memory_region_transaction_begin();
}

static void callback_commit_switch(void *opaque)
{
    memory_region_transaction_commit();
}

static void callback_set_translating(void *opaque, void *endpoint,
                                     bool translating)
{
    ViommuRequester *r = endpoint;

    trace_viommu_switch(pci_bus_num(r->key.bus), PCI_SLOT(r->key.devfn),
                        PCI_FUNC(r->key.devfn), translating);
    memory_region_set_enabled(&r->bypass, !translating);
    memory_region_set_enabled(MEMORY_REGION(&r->iommu), translating);
}

static void callback_notify_map(void *opaque, void *endpoint, uint64_t iova,
                                uint64_t last, uint64_t phys, uint32_t rights)
{
    if (rights) {
        notify_range(endpoint, NULL, IOMMU_NOTIFIER_MAP, iova, last, phys,
                     rights);
    }
}

static void callback_notify_unmap(void *opaque, void *endpoint, uint64_t iova,
                                  uint64_t last)
{
    static const IOMMUNotifierFlag types[] = {
        IOMMU_NOTIFIER_UNMAP, IOMMU_NOTIFIER_DEVIOTLB_UNMAP,
    };
    ViommuRequester *r = endpoint;

    for (int i = 0; i < ARRAY_SIZE(types); i++) {
        if (r->listeners & types[i]) {
            notify_range(r, NULL, types[i], iova, last, 0, IOMMU_NONE);
        }
    }
}

const ViommuCallbacks viommu_callbacks = {
    .abi_version = VIOMMU_ABI_VERSION,
    .resolve = callback_resolve,
    .endpoint_id = callback_endpoint_id,
    .begin_switch = callback_begin_switch,
    .commit_switch = callback_commit_switch,
    .set_translating = callback_set_translating,
    .notify_map = callback_notify_map,
    .notify_unmap = callback_notify_unmap,
};

/* -- birth and death of an address space -- */

static ViommuRequester *requester_new(VirtIOIOMMU *s, PCIBus *bus, int devfn)
{
    ViommuRequester *r = VIOMMU_REQUESTER(object_new(TYPE_VIOMMU_REQUESTER));
    bool translating;

    r->s = s;
    object_ref(OBJECT(s));
    r->key.bus = bus;
    r->key.devfn = devfn;
    r->endpoint = viommu_endpoint_new(s->engine, r, NULL, 0);
    if (!r->endpoint) {
        /* A machine is being set up or a function plugged; out of memory. */
        g_error("virtio-iommu: out of memory for an endpoint");
    }
    translating = viommu_endpoint_translating(r->endpoint);

    memory_region_init(&r->root, OBJECT(r), "virtio-iommu-root", UINT64_MAX);
    address_space_init(&r->as, &r->root, "virtio-iommu");
    /*
     * While a function bypasses, its view is nothing but an alias of system
     * memory: the memory core then lets all such functions share one view.
     */
    memory_region_init_alias(&r->bypass, OBJECT(r), "virtio-iommu-bypass",
                             get_system_memory(), 0,
                             memory_region_size(get_system_memory()));
    memory_region_init_iommu(&r->iommu, sizeof(r->iommu),
                             TYPE_VIOMMU_MEMORY_REGION, OBJECT(r),
                             "virtio-iommu-translate", UINT64_MAX);
    memory_region_set_enabled(&r->bypass, !translating);
    memory_region_set_enabled(MEMORY_REGION(&r->iommu), translating);
    memory_region_transaction_begin();
    memory_region_add_subregion_overlap(&r->root, 0, MEMORY_REGION(&r->iommu),
                                        0);
    memory_region_add_subregion_overlap(&r->root, 0, &r->bypass, 0);
    memory_region_transaction_commit();

    g_hash_table_insert(s->requesters, &r->key, r);
    return r;
}

/*
 * The function is gone, so nothing new can start in its address space.  What
 * other threads may still have in hand keeps the object alive until they let
 * go of their view of memory.
 */
static void requester_drop(gpointer data)
{
    ViommuRequester *r = data;

    viommu_endpoint_retire(r->endpoint);
    address_space_destroy(&r->as);
    memory_region_del_subregion(&r->root, &r->bypass);
    memory_region_del_subregion(&r->root, MEMORY_REGION(&r->iommu));
    object_unref(OBJECT(r));
}

static void requester_finalize(Object *obj)
{
    ViommuRequester *r = VIOMMU_REQUESTER(obj);

    if (r->endpoint) {
        viommu_endpoint_free(r->endpoint);
    }
    if (r->s) {
        object_unref(OBJECT(r->s));
    }
}

static AddressSpace *viommu_get_address_space(PCIBus *bus, void *opaque,
                                              int devfn)
{
    VirtIOIOMMU *s = opaque;
    ViommuRequester *r;

    /* W9: an IOMMU's own rings are never translated, by itself or another. */
    if (viommu_platform_is_iommu(bus, devfn)) {
        return &address_space_memory;
    }
    r = viommu_requester_find(s, bus, devfn);
    if (!r) {
        r = requester_new(s, bus, devfn);
    }
    return &r->as;
}

static bool viommu_set_iommu_device(PCIBus *bus, void *opaque, int devfn,
                                    HostIOMMUDevice *hiod, Error **errp)
{
    error_setg(errp, "virtio-iommu does not support assigned host devices; "
               "put the device on a root bus that bypasses the IOMMU");
    return false;
}

const PCIIOMMUOps viommu_pci_ops = {
    .get_address_space = viommu_get_address_space,
    .set_iommu_device = viommu_set_iommu_device,
};

void viommu_requesters_forget(VirtIOIOMMU *s, PCIDevice *dev)
{
    PCIBus *own_bus = pci_get_bus(dev);
    PCIBus *behind = IS_PCI_BRIDGE(dev) ? pci_bridge_get_sec_bus(PCI_BRIDGE(dev))
                                        : NULL;
    GHashTableIter iter;
    gpointer value;

    if (!s->requesters) {
        return;
    }
    g_hash_table_iter_init(&iter, s->requesters);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        ViommuRequester *r = value;

        /*
         * An ID that stands for all functions on a bus lives as long as the
         * bus; any other one as long as its function.
         */
        bool own = r->key.bus == own_bus && r->key.devfn == dev->devfn &&
                   viommu_platform_aliases(dev, own_bus, dev->devfn) &&
                   (pci_bus_is_express(own_bus) || pci_bus_is_root(own_bus));

        if (own || (behind && r->key.bus == behind)) {
            g_hash_table_iter_remove(&iter);
        } else {
            viommu_endpoint_forget_member(r->endpoint, (uintptr_t)dev);
        }
    }
}

void viommu_requesters_drop_all(VirtIOIOMMU *s)
{
    g_clear_pointer(&s->requesters, g_hash_table_destroy);
}

static void viommu_memory_region_class_init(ObjectClass *klass, void *data)
{
    IOMMUMemoryRegionClass *imrc = IOMMU_MEMORY_REGION_CLASS(klass);

    imrc->translate = viommu_translate;
    imrc->replay = viommu_replay;
    imrc->notify_flag_changed = viommu_notify_flag_changed;
}

GHashTable *viommu_requesters_new(void)
{
    return g_hash_table_new_full(key_hash, key_equal, NULL, requester_drop);
}

static const TypeInfo viommu_space_types[] = {
    {
        .name = TYPE_VIOMMU_REQUESTER,
        .parent = TYPE_OBJECT,
        .instance_size = sizeof(ViommuRequester),
        .instance_finalize = requester_finalize,
    }, {
        .name = TYPE_VIOMMU_MEMORY_REGION,
        .parent = TYPE_IOMMU_MEMORY_REGION,
        .class_init = viommu_memory_region_class_init,
    },
};

void viommu_space_register_types(void)
{
    type_register_static_array(viommu_space_types,
                               ARRAY_SIZE(viommu_space_types));
}
