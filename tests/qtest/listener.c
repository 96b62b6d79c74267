/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A PCI function that listens to the IOMMU in front of it through QEMU's memory
 * API, as VFIO and vhost-vdpa do, and never does any DMA.  It holds what it is told
 * in a table with the habits of a host's IOMMU: what is mapped cannot be mapped, what
 * is not cannot be unmapped, and what goes beyond `limit` is dropped with no word.
 *
 * With maps=off it listens as vhost does, for what it must not keep.  With
 * usable=FIRST-LAST[+FIRST-LAST...] or page-sizes=MASK it is a device of the host whose
 * IOMMU there can do no more than that, and says so as VFIO does.
 */
#include "qemu/osdep.h"

#include "qapi/error.h"
#include "qemu/module.h"
#include "qemu/range.h"

#include "hw/pci/pci_device.h"
#include "hw/qdev-properties.h"
#include "system/host_iommu_device.h"

#include "hw/compat.h"

typedef struct Block {
    hwaddr iova;
    hwaddr mask;
    hwaddr phys;
    IOMMUAccessFlags perm;
} Block;

#define TYPE_LISTENER "viommu-listener"
#define TYPE_LISTENER_HOST "viommu-listener-host"
OBJECT_DECLARE_SIMPLE_TYPE(ViommuListener, LISTENER)

struct ViommuListener {
    PCIDevice parent_obj;
    bool maps;
    bool listening;
    bool refused; /* a block, so that it may hear of more that go than came */
    uint64_t limit;
    char *usable;
    uint64_t page_sizes;
    uint32_t room;         /* for blocks: with more it cannot follow */
    HostIOMMUDevice *host; /* NULL: it is emulated */

    MemoryListener listener;
    MemoryRegion *region; /* with the notifier; NULL while there is none */
    IOMMUNotifier notifier;
    GArray *blocks;   /* mapped, in order of their IOVA */
    GString *dropped; /* with maps=off: the blocks that it was told of */
    GString *errors;  /* one line each */
};

static void complain(ViommuListener *s, const char *what, const IOMMUTLBEntry *entry)
{
    g_string_append_printf(s->errors, "%s %" PRIx64 "-%" PRIx64 "\n", what, entry->iova,
                           entry->iova + entry->addr_mask);
}

/* The first block that ends at `iova` or behind it. */
static guint find_block(ViommuListener *s, hwaddr iova)
{
    guint i = 0;

    while (i < s->blocks->len) {
        const Block *block = &g_array_index(s->blocks, Block, i);

        if (block->iova + block->mask >= iova) {
            break;
        }
        i++;
    }
    return i;
}

/* What VFIO can map. */
static bool all_memory(const IOMMUTLBEntry *entry)
{
    hwaddr xlat, len = entry->addr_mask + 1;
    MemoryRegion *mr = address_space_translate(&address_space_memory, entry->translated_addr, &xlat,
                                               &len, false, MEMTXATTRS_UNSPECIFIED);

    return memory_region_is_ram(mr) && len == entry->addr_mask + 1;
}

static void told(IOMMUNotifier *n, IOMMUTLBEntry *entry)
{
    ViommuListener *s = container_of(n, ViommuListener, notifier);
    const hwaddr last = entry->iova + entry->addr_mask;
    const bool map = entry->perm != IOMMU_NONE;
    guint i = find_block(s, entry->iova);
    const Block *found = i < s->blocks->len ? &g_array_index(s->blocks, Block, i) : NULL;

    if ((entry->addr_mask & (entry->addr_mask + 1)) || (entry->iova & entry->addr_mask)) {
        complain(s, "no block:", entry);
    }
    if (entry->addr_mask >> 62 || (last == UINT64_MAX && entry->addr_mask >= 0x1000)) {
        complain(s, "wraps:", entry);
    }
    if (!s->maps) {
        if (map) {
            complain(s, "not asked for:", entry);
        }
        g_string_append_printf(s->dropped, "%" PRIx64 "-%" PRIx64 "\n", entry->iova, last);
        return;
    }
    if (last > s->limit) {
        return;
    }
    if (map) {
        const Block block = {entry->iova, entry->addr_mask, entry->translated_addr, entry->perm};

        if (found && found->iova <= last) {
            complain(s, "mapped twice:", entry);
        } else if (s->blocks->len >= s->room) {
            s->refused = true;
            n->error = -ENOSPC;
        } else {
            g_array_insert_val(s->blocks, i, block);
        }
        if (!all_memory(entry)) {
            complain(s, "no memory:", entry);
        }
    } else if (!found || found->iova != entry->iova || found->mask != entry->addr_mask) {
        /* Of what is no memory nothing was told, and of some blocks a part. */
        if (all_memory(entry) && !s->refused) {
            complain(s, "not mapped:", entry);
        }
        /* As VFIO, which unmaps what there is inside the range, in whole. */
        while (i < s->blocks->len && g_array_index(s->blocks, Block, i).iova <= last) {
            g_array_remove_index(s->blocks, i);
        }
    } else {
        g_array_remove_index(s->blocks, i);
    }
}

static void region_add(MemoryListener *listener, MemoryRegionSection *section)
{
    ViommuListener *s = container_of(listener, ViommuListener, listener);
    Int128 end = int128_add(int128_make64(section->offset_within_region), section->size);

    if (!memory_region_is_iommu(section->mr)) {
        return;
    }
    if (s->region) {
        g_string_append(s->errors, "two IOMMUs\n");
        return;
    }
    iommu_notifier_init(
        &s->notifier, told, s->maps ? IOMMU_NOTIFIER_IOTLB_EVENTS : IOMMU_NOTIFIER_UNMAP,
        section->offset_within_region, int128_get64(int128_sub(end, int128_one())), 0);
    memory_region_ref(section->mr);
    s->region = section->mr;
    memory_region_register_iommu_notifier(s->region, &s->notifier, &error_abort);
    if (s->maps) {
        memory_region_iommu_replay(IOMMU_MEMORY_REGION(s->region), &s->notifier);
    }
}

static void region_del(MemoryListener *listener, MemoryRegionSection *section)
{
    ViommuListener *s = container_of(listener, ViommuListener, listener);

    if (section->mr != s->region) {
        return;
    }
    if (s->listening && s->blocks->len) {
        g_string_append(s->errors, "left behind\n");
    }
    memory_region_unregister_iommu_notifier(s->region, &s->notifier);
    memory_region_unref(s->region);
    s->region = NULL;
    g_array_set_size(s->blocks, 0);
}

static void set_active(ViommuListener *s, bool active)
{
    if (active) {
        s->listener = (MemoryListener){
            .name = TYPE_LISTENER,
            .region_add = region_add,
            .region_del = region_del,
        };
        memory_listener_register(&s->listener, pci_device_iommu_address_space(PCI_DEVICE(s)));
    } else {
        memory_listener_unregister(&s->listener);
    }
}

static bool get_listening(Object *obj, Error **errp)
{
    return LISTENER(obj)->listening;
}

static void set_listening(Object *obj, bool value, Error **errp)
{
    ViommuListener *s = LISTENER(obj);

    if (s->listening != value) {
        s->listening = value;
        if (DEVICE(obj)->realized) {
            set_active(s, value);
        }
    }
}

static char *get_mirror(Object *obj, Error **errp)
{
    ViommuListener *s = LISTENER(obj);
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < s->blocks->len; i++) {
        const Block *block = &g_array_index(s->blocks, Block, i);

        g_string_append_printf(text, "%" PRIx64 "-%" PRIx64 " %" PRIx64 " %s%s\n", block->iova,
                               block->iova + block->mask, block->phys,
                               block->perm & IOMMU_RO ? "r" : "",
                               block->perm & IOMMU_WO ? "w" : "");
    }
    return g_string_free(text, false);
}

/* What came since the last look. */
static char *get_dropped(Object *obj, Error **errp)
{
    GString *dropped = LISTENER(obj)->dropped;
    char *text = g_strdup(dropped->str);

    g_string_set_size(dropped, 0);
    return text;
}

static char *get_errors(Object *obj, Error **errp)
{
    return g_strdup(LISTENER(obj)->errors->str);
}

static GList *host_ranges(HostIOMMUDevice *host)
{
    ViommuListener *s = host->agent;
    g_auto(GStrv) texts = g_strsplit(s->usable ? s->usable : "", "+", -1);
    GList *ranges = NULL;

    for (char **text = texts; *text; text++) {
        Range *range = g_new(Range, 1);
        uint64_t first, last;

        g_assert_cmpint(sscanf(*text, "%" SCNx64 "-%" SCNx64, &first, &last), ==, 2);
        range_set_bounds(range, first, last);
        ranges = g_list_append(ranges, range);
    }
    return ranges;
}

static uint64_t host_page_sizes(HostIOMMUDevice *host)
{
    return ((ViommuListener *)host->agent)->page_sizes;
}

/* In VFIO's order. */
static void listener_realize(PCIDevice *dev, Error **errp)
{
    ViommuListener *s = LISTENER(dev);

    if (s->listening) {
        set_active(s, true);
    }
    if (s->usable || s->page_sizes) {
        s->host = HOST_IOMMU_DEVICE(object_new(TYPE_LISTENER_HOST));
        s->host->agent = s;
        if (!pci_device_set_iommu_device(dev, s->host, errp)) {
            object_unref(OBJECT(s->host));
            s->host = NULL;
            if (s->listening) {
                set_active(s, false);
            }
        }
    }
}

static void listener_exit(PCIDevice *dev)
{
    ViommuListener *s = LISTENER(dev);

    if (s->host) {
        pci_device_unset_iommu_device(dev);
        object_unref(OBJECT(s->host));
    } else if (s->listening) {
        s->listening = false;
        set_active(s, false);
    }
}

static void listener_init(Object *obj)
{
    ViommuListener *s = LISTENER(obj);

    s->listening = true;
    s->blocks = g_array_new(false, false, sizeof(Block));
    s->dropped = g_string_new(NULL);
    s->errors = g_string_new(NULL);
}

static void listener_finalize(Object *obj)
{
    ViommuListener *s = LISTENER(obj);

    /* VFIO lets go of its container as late as this. */
    if (s->listener.address_space) {
        set_active(s, false);
    }
    g_array_free(s->blocks, true);
    g_string_free(s->dropped, true);
    g_string_free(s->errors, true);
}

static void listener_host_class_init(ObjectClass *klass, ViommuClassData *data)
{
    HostIOMMUDeviceClass *hioc = HOST_IOMMU_DEVICE_CLASS(klass);

    hioc->get_iova_ranges = host_ranges;
    hioc->get_page_size_mask = host_page_sizes;
}

static const Property listener_properties[] = {
    DEFINE_PROP_BOOL("maps", ViommuListener, maps, true),
    DEFINE_PROP_UINT64("limit", ViommuListener, limit, UINT64_MAX),
    DEFINE_PROP_UINT32("room", ViommuListener, room, UINT32_MAX),
    DEFINE_PROP_STRING("usable", ViommuListener, usable),
    DEFINE_PROP_UINT64("page-sizes", ViommuListener, page_sizes, 0),
};

static void listener_class_init(ObjectClass *klass, ViommuClassData *data)
{
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    pc->realize = listener_realize;
    pc->exit = listener_exit;
    pc->vendor_id = PCI_VENDOR_ID_QEMU;
    pc->device_id = 0xfade;
    pc->class_id = PCI_CLASS_OTHERS;
    device_class_set_props(DEVICE_CLASS(klass), listener_properties);
    object_class_property_add_bool(klass, "listening", get_listening, set_listening);
    object_class_property_add_str(klass, "mirror", get_mirror, NULL);
    object_class_property_add_str(klass, "dropped", get_dropped, NULL);
    object_class_property_add_str(klass, "errors", get_errors, NULL);
}

static const TypeInfo listener_host_type = {
    .name = TYPE_LISTENER_HOST,
    .parent = TYPE_HOST_IOMMU_DEVICE,
    .class_init = listener_host_class_init,
};

static const TypeInfo listener_type = {
    .name = TYPE_LISTENER,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(ViommuListener),
    .instance_init = listener_init,
    .instance_finalize = listener_finalize,
    .class_init = listener_class_init,
    .interfaces =
        (InterfaceInfo[]){
            {INTERFACE_CONVENTIONAL_PCI_DEVICE},
            {},
        },
};

static void listener_register(void)
{
    type_register_static(&listener_host_type);
    type_register_static(&listener_type);
}

type_init(listener_register)
