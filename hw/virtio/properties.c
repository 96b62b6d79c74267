/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The properties of users and what they mean for the engine.  A new one goes here.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/units.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"

#include "hw/machine/msi.h"
#include "hw/virtio/device.h"

static void get_region(Object *obj, Visitor *v, const char *name, void *opaque,
                       Error **errp)
{
    const ViommuRegion *region = object_field_prop_ptr(obj, opaque);
    g_autofree char *str = g_strdup_printf("0x%" PRIx64 ":0x%" PRIx64 ":%u",
                                           region->start, region->last,
                                           region->subtype);

    visit_type_str(v, name, &str, errp);
}

static void set_region(Object *obj, Visitor *v, const char *name, void *opaque,
                       Error **errp)
{
    ViommuRegion *region = object_field_prop_ptr(obj, opaque);
    g_autofree char *str = NULL;
    char sentence[256];

    if (visit_type_str(v, name, &str, errp) &&
        !viommu_region_parse(str, region, sentence, sizeof(sentence))) {
        error_setg(errp, "%s", sentence);
    }
}

/* One element of "reserved-regions", in the form that stock QEMU has. */
static const PropertyInfo prop_region = {
    .type = "str",
    .description = "reserved region, for example 0xFEE00000:0xFEEFFFFF:1",
    .get = get_region,
    .set = set_region,
};

ViommuRegion *viommu_properties_regions(VirtIOIOMMU *s, size_t *count)
{
    size_t user = s->nr_resv_regions, n = user, cap = 2 * user + 1;
    g_autofree ViommuRegion *in = g_new0(ViommuRegion, user + 1);
    ViommuRegion *out = g_new(ViommuRegion, cap);

    for (size_t i = 0; i < user; i++) {
        in[i] = s->resv_regions[i];
    }
    n += viommu_msi_region(&in[n]);
    *count = viommu_regions_collect(in, user, n, out, cap);
    if (*count > cap) {
        out = g_renew(ViommuRegion, out, *count);
        viommu_regions_collect(in, user, n, out, *count);
    }
    return out;
}

static void get_layout(Object *obj, Visitor *v, const char *name, void *opaque,
                       Error **errp)
{
    ViommuArrayLayout *layout = object_field_prop_ptr(obj, opaque);
    g_autofree char *str = g_strdup(viommu_array_layout_name(*layout));

    visit_type_str(v, name, &str, errp);
}

static void set_layout(Object *obj, Visitor *v, const char *name, void *opaque,
                       Error **errp)
{
    ViommuArrayLayout *layout = object_field_prop_ptr(obj, opaque);
    g_autofree char *str = NULL;
    char sentence[256];

    if (visit_type_str(v, name, &str, errp) &&
        !viommu_array_layout_parse(str, layout, sentence, sizeof(sentence))) {
        error_setg(errp, "%s", sentence);
    }
}

static const PropertyInfo prop_layout = {
    .type = "str",
    .description = "topology array in the config space (off/v2/v3)",
    .get = get_layout,
    .set = set_layout,
};

static bool granule_mask(const VirtIOIOMMU *s, uint64_t *mask, Error **errp)
{
    switch (s->granule_mode) {
    case GRANULE_MODE_4K:
        *mask = -(4 * KiB);
        return true;
    case GRANULE_MODE_8K:
        *mask = -(8 * KiB);
        return true;
    case GRANULE_MODE_16K:
        *mask = -(16 * KiB);
        return true;
    case GRANULE_MODE_64K:
        *mask = -(64 * KiB);
        return true;
    case GRANULE_MODE_HOST:
        *mask = qemu_real_host_page_mask();
        return true;
    default:
        error_setg(errp, "granule: unknown value %d", s->granule_mode);
        return false;
    }
}

bool viommu_properties_config(const VirtIOIOMMU *s, ViommuEngineConfig *config,
                              Error **errp)
{
    *config = (ViommuEngineConfig) {
        .offered_features = VIOMMU_F_INPUT_RANGE | VIOMMU_F_DOMAIN_RANGE |
                            VIOMMU_F_MAP_UNMAP | VIOMMU_F_PROBE |
                            VIOMMU_F_MMIO | VIOMMU_F_BYPASS_CONFIG,
        .domain_last = UINT32_MAX,
        .boot_bypass = s->boot_bypass,
        .topology_array = s->topology != VIOMMU_ARRAY_OFF,
        .max_mappings = s->max_mappings,
        .max_domains = s->max_domains,
        .max_memory = s->max_memory,
        .linger = s->linger,
        .fault_injection = s->fault_injection,
        .sparse_page_sizes = s->sparse_page_sizes,
    };
    if (s->aw_bits < 32 || s->aw_bits > 64) {
        error_setg(errp, "aw-bits=%u is not within [32,64]", s->aw_bits);
        return false;
    }
    config->input_last = UINT64_MAX >> (64 - s->aw_bits);
    return granule_mask(s, &config->page_size_mask, errp);
}

bool viommu_properties_root_bus(VirtIOIOMMU *s, Error **errp)
{
    char sentence[256];

    if (!s->root_bus) {
        return true;
    }
    s->root_bus_text = g_strdup(s->root_bus);
    s->unit.root_bus_count = viommu_root_bus_split(s->root_bus_text, NULL, 0,
                                                   sentence, sizeof(sentence));
    if (!s->unit.root_bus_count) {
        error_setg(errp, "%s", sentence);
        return false;
    }
    s->unit.root_bus_names = g_new(const char *, s->unit.root_bus_count);
    viommu_root_bus_split(s->root_bus_text, s->unit.root_bus_names,
                          s->unit.root_bus_count, sentence, sizeof(sentence));
    return true;
}

bool viommu_properties_leave_out(VirtIOIOMMU *s, Error **errp)
{
    char sentence[256];

    if (!s->leave_out) {
        return true;
    }
    s->leave_out_text = g_strdup(s->leave_out);
    s->unit.left_out_count = viommu_leave_out_split(s->leave_out_text, NULL, 0,
                                                    sentence, sizeof(sentence));
    if (!s->unit.left_out_count) {
        error_setg(errp, "%s", sentence);
        return false;
    }
    s->unit.left_out = g_new(ViommuLeaveOut, s->unit.left_out_count);
    viommu_leave_out_split(s->leave_out_text, s->unit.left_out,
                           s->unit.left_out_count, sentence, sizeof(sentence));
    return true;
}

static const Property viommu_properties[] = {
    DEFINE_PROP_LINK("primary-bus", VirtIOIOMMU, primary_bus,
                     TYPE_PCI_BUS, PCIBus *),
    DEFINE_PROP_BOOL("boot-bypass", VirtIOIOMMU, boot_bypass, true),
    DEFINE_PROP_GRANULE_MODE("granule", VirtIOIOMMU, granule_mode,
                             GRANULE_MODE_HOST),
    DEFINE_PROP_UINT8("aw-bits", VirtIOIOMMU, aw_bits, 64),
    DEFINE_PROP_ARRAY("reserved-regions", VirtIOIOMMU, nr_resv_regions,
                      resv_regions, prop_region, ViommuRegion),
    DEFINE_PROP_STRING("root-bus", VirtIOIOMMU, root_bus),
    DEFINE_PROP_STRING("leave-out", VirtIOIOMMU, leave_out),
    DEFINE_PROP("topology", VirtIOIOMMU, topology, prop_layout,
                ViommuArrayLayout),
    DEFINE_PROP_UINT64("max-mappings", VirtIOIOMMU, max_mappings,
                       4 * 1024 * 1024),
    DEFINE_PROP_BOOL("sparse-page-sizes", VirtIOIOMMU, sparse_page_sizes,
                     true),
    DEFINE_PROP_BOOL("linger", VirtIOIOMMU, linger, true),
    DEFINE_PROP_BOOL("fault-injection", VirtIOIOMMU, fault_injection, false),
    DEFINE_PROP_UINT32("max-domains", VirtIOIOMMU, max_domains, 65536),
    DEFINE_PROP_SIZE("max-memory", VirtIOIOMMU, max_memory, 512 * MiB),
};

/* Those that no PropertyInfo describes. */
static const struct {
    const char *name, *text;
} descriptions[] = {
    { "boot-bypass", "endpoints in no domain reach memory until the guest says "
                     "otherwise" },
    { "aw-bits", "width of I/O virtual addresses (32 to 64)" },
    { "root-bus", "root buses that are managed, joined by ':' (default: all "
                  "that no other IOMMU names)" },
    { "leave-out", "what bypasses all the same, joined by ':': ids of devices, "
                   "ROOT-BUS/SLOT[.FUNCTION], root buses" },
    { "max-mappings", "most mappings in all domains together" },
    { "max-domains", "most domains" },
    { "max-memory", "most host memory for domains and mappings" },
    { "linger", "what is attached when the driver resets the device stays so "
                "until the next driver" },
    { "fault-injection", "'inject' may make requests and accesses fail, for "
                         "tests of drivers" },
    { "sparse-page-sizes", "advertise only the page sizes that page tables of "
                           "the granule have" },
};

void viommu_properties_register(ObjectClass *klass)
{
    device_class_set_props(DEVICE_CLASS(klass), viommu_properties);
    for (int i = 0; i < ARRAY_SIZE(descriptions); i++) {
        object_class_property_set_description(klass, descriptions[i].name,
                                              descriptions[i].text);
    }
}
