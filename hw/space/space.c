/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Address spaces of the endpoints: how DMA of a PCI function reaches the
 * engine, and how the engine's decisions reach QEMU's memory core.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/rcu.h"
#include "hw/pci/pci_bus.h"
#include "system/dma.h"

#include "hw/compat.h"
#include "hw/space/space.h"
#include "trace-viommu.h"

#define TYPE_VIOMMU_MEMORY_REGION "viommu-memory-region"

/*
 * The core computes the length of a block as mask + 1, so that a block of the
 * whole 64-bit space would have length 0.
 */
#define BLOCK_MASK_MAX ((UINT64_C(1) << 63) - 1)

QEMU_BUILD_BUG_ON((int)IOMMU_RO != VIOMMU_READ);
QEMU_BUILD_BUG_ON((int)IOMMU_WO != VIOMMU_WRITE);

/* The region at the start of the block around @phys; whether it has all of it. */
static MemoryRegion *region_of_block(hwaddr phys, hwaddr mask, bool *all)
{
    hwaddr xlat, len = mask + 1;
    MemoryRegion *mr = address_space_translate(&address_space_memory,
                                               phys & ~mask, &xlat, &len, false,
                                               MEMTXATTRS_UNSPECIFIED);

    *all = len == mask + 1;
    return mr;
}

/*
 * vhost looks up only the start of a block in guest memory and trusts that the
 * rest of it follows: shrink the block until it lies within one RAM section, if
 * RAM is what is looked for.  Called within an RCU critical section.
 */
static hwaddr clip_to_ram(hwaddr phys, hwaddr mask)
{
    bool all, ram = memory_region_is_ram(region_of_block(phys, 0, &all));

    for (; mask; mask >>= 1) {
        MemoryRegion *mr = region_of_block(phys, mask, &all);

        if (all && (memory_region_is_ram(mr) || !ram)) {
            break;
        }
    }
    return mask;
}

/* Any thread that does DMA, within an RCU critical section. */
static IOMMUTLBEntry viommu_translate(IOMMUMemoryRegion *mr, hwaddr addr,
                                      IOMMUAccessFlags flag, int iommu_idx)
{
    ViommuSpace *space = container_of(mr, ViommuSpace, iommu);
    ViommuTranslation t;
    hwaddr mask;

    viommu_endpoint_translate(space->endpoint, addr, flag & IOMMU_RW, &t);
    if (unlikely(!t.rights) && (flag & IOMMU_RW)) {
        trace_viommu_fault(space->name, addr, flag & IOMMU_RW, t.fault_queued);
        if (t.fault_queued) {
            space->unit->kick(space->unit);
        }
    }

    mask = MIN(t.mask, BLOCK_MASK_MAX);
    if (t.rights && qatomic_read(&space->listeners) != IOMMU_NOTIFIER_NONE) {
        mask = clip_to_ram(t.phys, mask);
    }
    trace_viommu_translate(space->name, addr & ~mask, mask, t.phys & ~mask, t.rights);
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
    ViommuSpace *space = container_of(mr, ViommuSpace, iommu);

    viommu_assert_big_lock();
    trace_viommu_listeners(space->name, new);
    qatomic_set(&space->listeners, new);
    viommu_endpoint_set_listeners(space->endpoint, new & IOMMU_NOTIFIER_MAP,
                                  new & (IOMMU_NOTIFIER_UNMAP |
                                         IOMMU_NOTIFIER_DEVIOTLB_UNMAP));
    return 0;
}

static IOMMUTLBEvent event_of(IOMMUNotifierFlag type, hwaddr iova, hwaddr mask,
                              hwaddr phys, IOMMUAccessFlags perm)
{
    return (IOMMUTLBEvent) {
        .type = type,
        .entry = {
            .target_as = &address_space_memory,
            .iova = iova,
            .addr_mask = mask,
            .translated_addr = phys,
            .perm = perm,
        },
    };
}

/*
 * What VFIO and vhost-vdpa can map is memory of the guest.  Of the rest they would
 * complain, once for each MAP, and take nothing of a block that has some of both.
 * Registers of another assigned device are left out, too: its host would go on
 * letting DMA reach them when that device is taken away.
 */
static bool can_be_mapped(MemoryRegion *mr)
{
    return memory_region_is_ram(mr) && !memory_region_is_ram_device(mr);
}

typedef void (*TellBlock)(void *ctx, hwaddr iova, hwaddr mask, hwaddr phys,
                          IOMMUAccessFlags perm);

typedef struct MapBlock {
    hwaddr iova;
    hwaddr mask;
    hwaddr phys;
    IOMMUAccessFlags perm;
    TellBlock tell;
    void *ctx;
} MapBlock;

/* Pages of the block that lie in this range of memory, in blocks. */
static bool tell_range(Int128 start, Int128 len, const MemoryRegion *mr,
                       hwaddr offset_in_region, void *opaque)
{
    const MapBlock *block = opaque;
    hwaddr first = int128_get64(start);
    hwaddr last = first + int128_get64(int128_sub(len, int128_one()));
    hwaddr page = qemu_real_host_page_size();

    if (last < block->phys || first > block->phys + block->mask ||
        !can_be_mapped((MemoryRegion *)mr)) {
        return false;
    }
    first = ROUND_UP(MAX(first, block->phys), page);
    last = MIN(last, block->phys + block->mask);
    while (first <= last && last - first >= page - 1) {
        hwaddr iova = block->iova + (first - block->phys);
        hwaddr size = MIN(iova & -iova ?: block->mask + 1,
                          pow2floor(last - first + 1));

        block->tell(block->ctx, iova, size - 1, first, block->perm);
        first += size;
    }
    return false;
}

static void tell_memory(hwaddr iova, hwaddr mask, hwaddr phys,
                        IOMMUAccessFlags perm, TellBlock tell, void *ctx)
{
    MapBlock block = { iova, mask, phys, perm, tell, ctx };
    hwaddr xlat, len = mask + 1;
    MemoryRegion *mr;

    RCU_READ_LOCK_GUARD();
    mr = address_space_translate(&address_space_memory, phys, &xlat, &len, false,
                                 MEMTXATTRS_UNSPECIFIED);
    if (len == mask + 1 && can_be_mapped(mr)) {
        tell(ctx, iova, mask, phys, perm);
        return;
    }
    flatview_for_each_range(address_space_to_flatview(&address_space_memory),
                            tell_range, &block);
}

static void tell_one(void *ctx, hwaddr iova, hwaddr mask, hwaddr phys,
                     IOMMUAccessFlags perm)
{
    IOMMUTLBEvent event = event_of(IOMMU_NOTIFIER_MAP, iova, mask, phys, perm);

    memory_region_notify_iommu_one(ctx, &event);
}

static void tell_all(void *ctx, hwaddr iova, hwaddr mask, hwaddr phys,
                     IOMMUAccessFlags perm)
{
    ViommuSpace *space = ctx;

    memory_region_notify_iommu(&space->iommu, 0,
                               event_of(IOMMU_NOTIFIER_MAP, iova, mask, phys,
                                        perm));
}

static bool replay_block(void *ctx, uint64_t iova, uint64_t mask, uint64_t phys,
                         uint32_t rights)
{
    IOMMUNotifier *n = ctx;

    n->error = 0;
    tell_memory(iova, mask, phys, rights, tell_one, n);
    return !n->error;
}

static void viommu_replay(IOMMUMemoryRegion *mr, IOMMUNotifier *n)
{
    ViommuSpace *space = container_of(mr, ViommuSpace, iommu);

    viommu_assert_big_lock();
    trace_viommu_replay(space->name);
    viommu_endpoint_replay(space->endpoint, replay_block, n);
}

/* -- what the engine asks for -- */

QEMU_BUILD_BUG_ON(sizeof(struct rcu_head) >
                  sizeof(((ViommuDeferred *)0)->link));
QEMU_BUILD_BUG_ON(offsetof(ViommuDeferred, link) != 0);

static void reclaim_deferred(struct rcu_head *head)
{
    ViommuDeferred *deferred = (ViommuDeferred *)head;

    /* The next piece comes with the next round of callbacks: this one is run
     * with the big lock held. */
    if (deferred->reclaim(deferred)) {
        call_rcu1(head, reclaim_deferred);
    }
}

/* translate() is only called within RCU critical sections. */
void viommu_space_defer(void *opaque, ViommuDeferred *deferred)
{
    call_rcu1((struct rcu_head *)deferred->link, reclaim_deferred);
}

static void set_translating(ViommuSpace *space, bool translating)
{
    memory_region_set_enabled(&space->bypass, !translating);
    memory_region_set_enabled(MEMORY_REGION(&space->iommu), translating);
}

void viommu_space_begin_switch(void *opaque)
{
    ViommuUnit *unit = opaque;

    viommu_assert_big_lock();
    unit->switches++;
    memory_region_transaction_begin();
}

void viommu_space_commit_switch(void *opaque)
{
    memory_region_transaction_commit();
}

void viommu_space_set_translating(void *opaque, void *endpoint,
                                     bool translating)
{
    ViommuSpace *space = endpoint;

    /* Not by its ID: the bridge that numbers its bus may be going. */
    trace_viommu_switch(space->name, translating);
    set_translating(space, translating);
}

bool viommu_space_notify_map(void *opaque, void *endpoint, uint64_t iova,
                             uint64_t mask, uint64_t phys, uint32_t rights)
{
    ViommuSpace *space = endpoint;
    IOMMUNotifier *n;
    bool followed = true;

    IOMMU_NOTIFIER_FOREACH(n, &space->iommu) {
        n->error = 0;
    }
    tell_memory(iova, mask, phys, rights, tell_all, space);
    IOMMU_NOTIFIER_FOREACH(n, &space->iommu) {
        followed &= !n->error;
    }
    trace_viommu_notify_map(space->name, iova, mask, phys, rights, followed);
    return followed;
}

/* To the listeners that want MAPs as well, or to the others. */
static void notify_unmap(ViommuSpace *space, bool want_maps, hwaddr iova,
                         hwaddr mask, hwaddr phys)
{
    IOMMUNotifier *n;

    IOMMU_NOTIFIER_FOREACH(n, &space->iommu) {
        IOMMUNotifierFlag flags = n->notifier_flags;

        if (!(flags & IOMMU_NOTIFIER_MAP) == !want_maps) {
            IOMMUTLBEvent event =
                event_of(flags & IOMMU_NOTIFIER_DEVIOTLB_UNMAP ?
                         IOMMU_NOTIFIER_DEVIOTLB_UNMAP : IOMMU_NOTIFIER_UNMAP,
                         iova, mask, phys, IOMMU_NONE);

            memory_region_notify_iommu_one(n, &event);
        }
    }
}

void viommu_space_notify_unmap(void *opaque, void *endpoint, uint64_t iova,
                               uint64_t mask, uint64_t phys)
{
    ViommuSpace *space = endpoint;

    trace_viommu_notify_unmap(space->name, iova, mask);
    notify_unmap(space, true, iova, mask, phys);
}

void viommu_space_drop_cached(void *opaque, void *endpoint, uint64_t iova,
                              uint64_t mask)
{
    ViommuSpace *space = endpoint;

    trace_viommu_drop_cached(space->name, iova, mask);
    notify_unmap(space, false, iova, mask, 0);
}

/* -- birth and death of an address space -- */

bool viommu_place_equal(const ViommuPlace *a, const ViommuPlace *b)
{
    return a->bus == b->bus && a->devfn == b->devfn &&
           a->transport == b->transport;
}

static char *place_name(ViommuPlace place)
{
    if (!place.bus) {
        return g_strdup(QLIST_FIRST(&place.transport->child_bus)->name);
    }
    return g_strdup_printf("%s:%02x.%x", BUS(place.bus)->name,
                           PCI_SLOT(place.devfn), PCI_FUNC(place.devfn));
}

/*
 * What a space points to stays as long as it does.  A bus and an IOMMU on PCI
 * may lie inside of a device, whose memory their own references do not keep.
 */
static void hold_place(ViommuSpace *space, ViommuPlace place)
{
    space->place = place;
    space->place_owner = OBJECT(place.bus ? BUS(place.bus)->parent
                                          : place.transport);
    object_ref(space->place_owner);
    if (place.bus) {
        object_ref(OBJECT(place.bus));
    }
}

static void release_place(ViommuSpace *space)
{
    if (space->place.bus) {
        object_unref(OBJECT(space->place.bus));
    }
    object_unref(space->place_owner);
}

static void hold_iommu(ViommuSpace *space, ViommuUnit *unit)
{
    space->unit = unit;
    object_ref(OBJECT(unit->transport));
    object_ref(unit->device);
}

static void release_iommu(ViommuSpace *space)
{
    DeviceState *transport = space->unit->transport;

    object_unref(space->unit->device);
    object_unref(OBJECT(transport));
}

/*
 * An assigned device listens until its memory is freed, which is later than it is
 * unplugged; QEMU tells nobody when.  Such a space is empty, and goes when the next
 * one comes or goes.
 */
static GPtrArray *still_listened_to; /* ViommuSpace */

static bool destroy_if_unused(ViommuSpace *space)
{
    if (!QTAILQ_EMPTY(&space->as.listeners)) {
        return false;
    }
    address_space_destroy(&space->as);
    object_unref(OBJECT(space));
    return true;
}

static void destroy_unused(void)
{
    guint i = 0;

    while (still_listened_to && i < still_listened_to->len) {
        if (destroy_if_unused(g_ptr_array_index(still_listened_to, i))) {
            g_ptr_array_remove_index_fast(still_listened_to, i);
        } else {
            i++;
        }
    }
}

ViommuSpace *viommu_space_new(ViommuPlace place)
{
    g_autofree char *as_name = NULL;
    ViommuSpace *space;

    viommu_assert_big_lock();
    destroy_unused();
    space = VIOMMU_SPACE(object_new(TYPE_VIOMMU_SPACE));
    hold_place(space, place);
    space->name = place_name(place);
    memory_region_init(&space->root, OBJECT(space), "virtio-iommu-root",
                       UINT64_MAX);
    as_name = g_strdup_printf("virtio-iommu %s", space->name);
    address_space_init(&space->as, &space->root, as_name);
    /*
     * While a function bypasses, its view is nothing but an alias of system
     * memory: the memory core then lets all such functions share one view.
     */
    memory_region_init_alias(&space->bypass, OBJECT(space),
                             "virtio-iommu-bypass", get_system_memory(), 0,
                             memory_region_size(get_system_memory()));
    memory_region_init_iommu(&space->iommu, sizeof(space->iommu),
                             TYPE_VIOMMU_MEMORY_REGION, OBJECT(space),
                             "virtio-iommu-translate", UINT64_MAX);
    memory_region_set_enabled(MEMORY_REGION(&space->iommu), false);
    memory_region_transaction_begin();
    memory_region_add_subregion_overlap(&space->root, 0,
                                        MEMORY_REGION(&space->iommu), 0);
    memory_region_add_subregion_overlap(&space->root, 0, &space->bypass, 0);
    memory_region_transaction_commit();
    return space;
}

void viommu_space_bind(ViommuSpace *space, ViommuUnit *unit)
{
    viommu_assert_big_lock();
    space->endpoint = viommu_endpoint_new(unit->engine, space, NULL, 0);
    if (!space->endpoint) {
        /* The engine's settings are checked: GLib ends QEMU for no less. */
        g_error("virtio-iommu: no memory for an endpoint");
    }
    hold_iommu(space, unit);
    trace_viommu_bind(space->name, unit->transport->canonical_path ?:
                      object_get_typename(OBJECT(unit->transport)));

    memory_region_transaction_begin();
    set_translating(space, viommu_endpoint_translating(space->endpoint));
    memory_region_transaction_commit();
}

/* One change of the memory topology: nothing, where it bypassed. */
void viommu_space_unbind(ViommuSpace *space)
{
    viommu_assert_big_lock();
    trace_viommu_unbind(space->name);
    memory_region_transaction_begin();
    viommu_endpoint_retire(space->endpoint);
    set_translating(space, false);
    memory_region_transaction_commit();
}

void viommu_space_drop(ViommuSpace *space)
{
    viommu_assert_big_lock();
    destroy_unused();
    trace_viommu_drop(space->name);
    memory_region_transaction_begin();
    if (space->endpoint) {
        viommu_endpoint_retire(space->endpoint);
    }
    memory_region_del_subregion(&space->root, &space->bypass);
    memory_region_del_subregion(&space->root, MEMORY_REGION(&space->iommu));
    memory_region_transaction_commit();
    if (!destroy_if_unused(space)) {
        if (!still_listened_to) {
            still_listened_to = g_ptr_array_new();
        }
        g_ptr_array_add(still_listened_to, space);
    }
}

static void space_finalize(Object *obj)
{
    ViommuSpace *space = VIOMMU_SPACE(obj);

    if (space->endpoint) {
        viommu_endpoint_free(space->endpoint);
        release_iommu(space);
    }
    release_place(space);
    g_free(space->name);
}

static void viommu_memory_region_class_init(ObjectClass *klass,
                                            ViommuClassData *data)
{
    IOMMUMemoryRegionClass *imrc = IOMMU_MEMORY_REGION_CLASS(klass);

    imrc->translate = viommu_translate;
    imrc->replay = viommu_replay;
    imrc->notify_flag_changed = viommu_notify_flag_changed;
}

static const TypeInfo viommu_space_types[] = {
    {
        .name = TYPE_VIOMMU_SPACE,
        .parent = TYPE_OBJECT,
        .instance_size = sizeof(ViommuSpace),
        .instance_finalize = space_finalize,
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
