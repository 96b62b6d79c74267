/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-iommu-device: properties, configuration space, features and resets.
 * What a request means is decided behind viommu/viommu.h.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "hw/acpi/acpi_table_interface.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "hw/resettable.h"
#include "hw/virtio/virtio-mmio.h"
#include "standard-headers/linux/virtio_ids.h"
#include "system/reset.h"

#include "hw/compat.h"
#include "hw/machine/describe.h"
#include "hw/machine/functions.h"
#include "hw/machine/machine.h"
#include "hw/machine/mmio-hook.h"
#include "hw/machine/msi.h"
#include "hw/machine/registry.h"
#include "hw/virtio/device.h"
#include "trace-viommu.h"

/* What a virtio-mmio transport shows of the config space. */
#define MMIO_CONFIG_WINDOW 256

/* Where the topology array's layouts and the specification part ways. */
#define COMMON_CONFIG 36

QEMU_BUILD_BUG_ON(VIOMMU_CONFIG_BYPASS >= VIOMMU_CONFIG_SIZE);
QEMU_BUILD_BUG_ON(COMMON_CONFIG > VIOMMU_CONFIG_SIZE);

static void viommu_get_config(VirtIODevice *vdev, uint8_t *config)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(vdev);

    viommu_engine_read_config(s->unit.engine, config);
    if (s->array) {
        memcpy(config + COMMON_CONFIG, s->array, s->array_size);
    }
}

/*
 * The core writes into its copy of the config space before it asks us, and
 * does not say where.  As long as the copy is never stale, a byte that differs
 * is a byte that was written (W12).
 */
void viommu_refresh_config_copy(VirtIOIOMMU *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    viommu_get_config(vdev, vdev->config);
}

static void viommu_set_config(VirtIODevice *vdev, const uint8_t *config)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(vdev);

    if (s->topology == VIOMMU_ARRAY_OFF &&
        viommu_engine_write_bypass(s->unit.engine, config[VIOMMU_CONFIG_BYPASS])) {
        vdev->generation++; /* GEN-7 */
        trace_viommu_bypass(config[VIOMMU_CONFIG_BYPASS]);
    }
    viommu_refresh_config_copy(s);
}

static uint64_t viommu_get_features(VirtIODevice *vdev, uint64_t features,
                                    Error **errp)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(vdev);

    if (s->unit.on_mmio) {
        /* GEN-3: this transport has no register to reset a single queue. */
        virtio_clear_feature(&features, VIRTIO_F_RING_RESET);
    }
    return features | s->features;
}

static void viommu_set_features(VirtIODevice *vdev, uint64_t features)
{
    viommu_engine_set_features(VIRTIO_IOMMU(vdev)->unit.engine, features);
}

static ViommuStatusDone viommu_set_status(VirtIODevice *vdev, uint8_t status)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(vdev);
    bool live = status & VIRTIO_CONFIG_S_DRIVER_OK;

    /* A driver may skip FEATURES_OK, against the rules. */
    if (live || status & VIRTIO_CONFIG_S_FEATURES_OK) {
        viommu_engine_driver_returns(s->unit.engine);
    }
    viommu_engine_set_live(s->unit.engine, live);
    if (live && vdev->vm_running) {
        viommu_queue_resume(s);
    }
    return VIOMMU_STATUS_DONE;
}

/* Puts the array of the model into the config space, if the user wants one. */
static bool set_topology(ViommuUnit *unit, const ViommuTopology *topology,
                         Error **errp)
{
    VirtIOIOMMU *s = container_of(unit, VirtIOIOMMU, unit);
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    uint32_t index = unit->index;
    char sentence[256];
    size_t size;

    viommu_engine_set_topology(unit->engine, topology, index);
    /* The granule may be another than when the device was realized. */
    viommu_refresh_config_copy(s);
    if (s->topology == VIOMMU_ARRAY_OFF) {
        return true;
    }
    size = viommu_topology_array(topology, index, s->topology, s->config_limit,
                                 NULL, 0, sentence, sizeof(sentence));
    if (!size) {
        error_setg(errp, "%s", sentence);
        return false;
    }
    s->array_size = size - COMMON_CONFIG;
    s->array = g_malloc(s->array_size);
    viommu_topology_array(topology, index, s->topology, s->config_limit,
                          s->array, s->array_size, sentence, sizeof(sentence));

    vdev->config = g_realloc(vdev->config, MAX(size, VIOMMU_CONFIG_SIZE));
    vdev->config_len = size;
    viommu_refresh_config_copy(s);
    return true;
}

static void reset_engine(VirtIOIOMMU *s,
                         void (*reset)(ViommuEngine *engine))
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    bool bypass = viommu_engine_bypass(s->unit.engine);

    viommu_queue_cancel(s);
    reset(s->unit.engine);
    trace_viommu_reset(reset == viommu_engine_system_reset,
                       viommu_engine_lingering(s->unit.engine));
    if (bypass != viommu_engine_bypass(s->unit.engine)) {
        vdev->generation++; /* GEN-7 */
    }
    viommu_refresh_config_copy(s);
}

/*
 * W31, GEN-14: the driver wrote 0 to the status.  During a reset of the bus
 * or the system the same hook is called, but other devices may still be doing
 * DMA then: the translations stay until all of them are quiet, in the exit
 * phase.
 */
static void viommu_device_reset(VirtIODevice *vdev)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(vdev);

    if (!s->in_bus_reset) {
        reset_engine(s, viommu_engine_driver_reset);
        viommu_functions_look();
    }
}

static void viommu_reset_enter(Object *obj, ResetType type)
{
    VIRTIO_IOMMU(obj)->in_bus_reset = true;
}

static void viommu_reset_exit(Object *obj, ResetType type)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(obj);

    s->in_bus_reset = false;
    reset_engine(s, s->system_reset ? viommu_engine_system_reset
                                    : viommu_engine_device_reset);
    s->system_reset = false;
}

/* CFG-5: only a reset of the whole system gives `bypass` its first value. */
static void viommu_system_reset(void *opaque)
{
    VirtIOIOMMU *s = opaque;

    s->system_reset = true;
}

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

/* The regions of the user, then the machine's. */
static ViommuRegion *collect_regions(VirtIOIOMMU *s, size_t *count)
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

static bool granule_mask(VirtIOIOMMU *s, uint64_t *mask, Error **errp)
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

static bool callback_resolve(void *opaque, uint32_t id, ViommuIdentity *out)
{
    return viommu_registry_resolve(opaque, id, out);
}

static bool callback_endpoint_id(void *opaque, void *endpoint, uint32_t *id)
{
    return viommu_registry_own_id(endpoint, id);
}

/* Their opaque is the unit, an endpoint's its space. */
static const ViommuCallbacks callbacks = {
    .defer = viommu_space_defer,
    .resolve = callback_resolve,
    .endpoint_id = callback_endpoint_id,
    .begin_switch = viommu_space_begin_switch,
    .commit_switch = viommu_space_commit_switch,
    .set_translating = viommu_space_set_translating,
    .notify_map = viommu_space_notify_map,
    .notify_unmap = viommu_space_notify_unmap,
    .drop_cached = viommu_space_drop_cached,
};

static ViommuEngine *new_engine(VirtIOIOMMU *s, Error **errp)
{
    g_autofree ViommuRegion *regions = NULL;
    ViommuEngineConfig config = {
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
        .sparse_page_sizes = s->sparse_page_sizes,
    };
    ViommuEngine *engine;
    char error[256];

    if (s->aw_bits < 32 || s->aw_bits > 64) {
        error_setg(errp, "aw-bits=%u is not within [32,64]", s->aw_bits);
        return NULL;
    }
    config.input_last = UINT64_MAX >> (64 - s->aw_bits);
    if (!granule_mask(s, &config.page_size_mask, errp)) {
        return NULL;
    }
    config.regions = regions = collect_regions(s, &config.region_count);
    /* PRB-D1: the whole list fits; 24 bytes a region. */
    config.probe_size = MAX(VIOMMU_PROBE_SIZE_MIN, 24 * config.region_count);

    engine = viommu_engine_new(&config, &callbacks, &s->unit, error,
                               sizeof(error));
    if (!engine) {
        error_setg(errp, "virtio-iommu: %s", error);
    }
    s->features = config.offered_features |
                  BIT_ULL(VIRTIO_RING_F_EVENT_IDX) |
                  BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC) |
                  BIT_ULL(VIRTIO_F_VERSION_1);
    return engine;
}

/* Whether buses of these names exist is known when the machine is complete. */
static bool split_root_bus(VirtIOIOMMU *s, Error **errp)
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

/*
 * A PCI transport has introduced itself already.  A legacy MMIO one hides the
 * feature bits from 32 on, so that no driver would ever bind, and the endpoints
 * would wait for it for ever.
 */
static bool find_transport(VirtIOIOMMU *s, Error **errp)
{
    DeviceState *parent = qdev_get_parent_bus(DEVICE(s))->parent;
    VirtIOMMIOProxy *proxy =
        (VirtIOMMIOProxy *)object_dynamic_cast(OBJECT(parent),
                                               TYPE_VIRTIO_MMIO);

    if (s->unit.transport) {
        return true;
    }
    if (!proxy) {
        error_setg(errp, "%s: '%s' is not a transport that it works on: use "
                   "virtio-iommu-pci or a virtio-mmio bus",
                   object_get_typename(OBJECT(s)),
                   object_get_typename(OBJECT(parent)));
        return false;
    }
    if (proxy->legacy) {
        error_setg(errp, "%s: virtio-mmio transport '%s' is a legacy one: add "
                   "-global virtio-mmio.force-legacy=off",
                   object_get_typename(OBJECT(s)),
                   qdev_get_parent_bus(DEVICE(s))->name);
        return false;
    }
    s->unit.transport = parent;
    s->unit.on_mmio = true;
    s->config_limit = MMIO_CONFIG_WINDOW;
    return true;
}

static void kick(ViommuUnit *unit)
{
    viommu_queue_kick(container_of(unit, VirtIOIOMMU, unit));
}

static void viommu_device_realize(DeviceState *dev, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VirtIOIOMMU *s = VIRTIO_IOMMU(dev);

    /* Address spaces have the engine of the first time in hand. */
    if (s->unit.engine) {
        error_setg(errp, "a virtio-iommu cannot be realized a second time");
        return;
    }
    if (!find_transport(s, errp)) {
        return;
    }
    if (!split_root_bus(s, errp)) {
        return;
    }
    s->unit.device = OBJECT(s);
    s->unit.kick = kick;
    s->unit.set_topology = set_topology;
    s->unit.engine = new_engine(s, errp);
    if (!s->unit.engine) {
        return;
    }
    virtio_init(vdev, VIRTIO_ID_IOMMU, VIOMMU_CONFIG_SIZE);
    viommu_queue_init(s);
    viommu_refresh_config_copy(s);

    if (!viommu_machine_add(&s->unit, errp)) {
        viommu_queue_cleanup(s);
        virtio_cleanup(vdev);
        return;
    }
    qemu_register_reset(viommu_system_reset, s);
}

/* W28: nothing may point here any more. */
static void viommu_device_unrealize(DeviceState *dev)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VirtIOIOMMU *s = VIRTIO_IOMMU(dev);

    qemu_unregister_reset(viommu_system_reset, s);
    viommu_machine_remove(&s->unit);
    viommu_queue_cleanup(s);
    virtio_cleanup(vdev);
}

/* Spaces hold a reference to the device, so all are gone by now. */
static void viommu_instance_finalize(Object *obj)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(obj);

    if (s->unit.engine) {
        viommu_queue_finalize(s);
        viommu_engine_free(s->unit.engine);
    }
    g_free(s->resv_regions);
    g_free(s->unit.root_bus_names);
    g_free(s->root_bus_text);
    g_free(s->array);
}

static void visit_u64(Visitor *v, const char *name, uint64_t value,
                      Error **errp)
{
    visit_type_uint64(v, name, &value, errp);
}

static void visit_flag(Visitor *v, const char *name, bool value, Error **errp)
{
    visit_type_bool(v, name, &value, errp);
}

static void visit_space(ViommuSpace *space, void *opaque)
{
    Visitor *v = opaque;
    ViommuEndpointStats stats;

    viommu_endpoint_stats(space->endpoint, &stats);
    if (!visit_start_struct(v, NULL, NULL, 0, NULL)) {
        return;
    }
    visit_u64(v, "id", viommu_registry_endpoint_id(space), NULL);
    visit_flag(v, "attached", stats.attached, NULL);
    visit_flag(v, "bypass", stats.bypass, NULL);
    visit_u64(v, "domain", stats.attached ? stats.domain : 0, NULL);
    visit_u64(v, "translations", stats.translations, NULL);
    visit_u64(v, "faults", stats.faults, NULL);
    visit_end_struct(v, NULL);
}

static void viommu_get_endpoints(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    if (!visit_start_list(v, name, NULL, 0, errp)) {
        return;
    }
    viommu_registry_for_each_space(&VIRTIO_IOMMU(obj)->unit, visit_space, v);
    visit_end_list(v, NULL);
}

static void viommu_get_stats(Object *obj, Visitor *v, const char *name,
                             void *opaque, Error **errp)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(obj);
    ViommuStats stats = { 0 };

    if (s->unit.engine) {
        viommu_engine_stats(s->unit.engine, &stats);
    }
    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    visit_u64(v, "translations", stats.translations, NULL);
    visit_u64(v, "faults", stats.faults, NULL);
    visit_u64(v, "faults-coalesced", stats.faults_coalesced, NULL);
    visit_u64(v, "faults-dropped", stats.faults_dropped, NULL);
    visit_u64(v, "requests", stats.requests, NULL);
    visit_u64(v, "requests-refused", stats.requests_refused, NULL);
    visit_u64(v, "mappings", stats.mappings, NULL);
    visit_u64(v, "domains", stats.domains, NULL);
    visit_u64(v, "memory", stats.memory, NULL);
    visit_u64(v, "remembered", stats.remembered, NULL);
    visit_flag(v, "lingering", stats.lingering, NULL);
    visit_end_struct(v, NULL);
}

/* The PCI function brings the tables itself. */
static void viommu_build_tables(AcpiTableIf *obj, GArray *table_offsets,
                                GArray *table_data, BIOSLinker *linker,
                                const char *oem_id, const char *oem_table_id)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(obj);

    if (s->unit.on_mmio) {
        viommu_describe_in_acpi(&s->unit, table_offsets, table_data, linker,
                                oem_id, oem_table_id);
    }
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
    DEFINE_PROP("topology", VirtIOIOMMU, topology, prop_layout,
                ViommuArrayLayout),
    DEFINE_PROP_UINT64("max-mappings", VirtIOIOMMU, max_mappings,
                       4 * 1024 * 1024),
    DEFINE_PROP_BOOL("sparse-page-sizes", VirtIOIOMMU, sparse_page_sizes,
                     true),
    DEFINE_PROP_BOOL("linger", VirtIOIOMMU, linger, true),
    DEFINE_PROP_UINT32("max-domains", VirtIOIOMMU, max_domains, 65536),
    DEFINE_PROP_SIZE("max-memory", VirtIOIOMMU, max_memory, 512 * MiB),
};

/*
 * Drivers wait for each answer, Linux with interrupts off: the thread that
 * kicks serves the queue, or they would wait for the main loop to be scheduled,
 * too.  virtio-pci does that on its own, virtio-mmio has event notifiers.
 */
static int viommu_start_ioeventfd(VirtIODevice *vdev)
{
    return 0;
}

static void viommu_stop_ioeventfd(VirtIODevice *vdev)
{
}

/* Those that no PropertyInfo describes. */
static const struct {
    const char *name, *text;
} descriptions[] = {
    { "boot-bypass", "endpoints in no domain reach memory until the guest says "
                     "otherwise" },
    { "aw-bits", "width of I/O virtual addresses (32 to 64)" },
    { "root-bus", "root buses that are managed, joined by ':' (default: all "
                  "that no other IOMMU names)" },
    { "max-mappings", "most mappings in all domains together" },
    { "max-domains", "most domains" },
    { "max-memory", "most host memory for domains and mappings" },
    { "linger", "what is attached when the driver resets the device stays so "
                "until the next driver" },
    { "sparse-page-sizes", "advertise only the page sizes that page tables of "
                           "the granule have" },
};

static void viommu_class_init(ObjectClass *klass, ViommuClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    device_class_set_props(dc, viommu_properties);
    dc->vmsd = &vmstate_viommu;
    dc->desc = "Paravirtual IOMMU";
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);

    rc->phases.enter = viommu_reset_enter;
    rc->phases.exit = viommu_reset_exit;

    ACPI_TABLE_IF_CLASS(klass)->build_tables = viommu_build_tables;

    vdc->realize = viommu_device_realize;
    vdc->unrealize = viommu_device_unrealize;
    vdc->get_config = viommu_get_config;
    vdc->set_config = viommu_set_config;
    vdc->get_features = viommu_get_features;
    vdc->set_features = viommu_set_features;
    vdc->set_status = viommu_set_status;
    vdc->reset = viommu_device_reset;
    vdc->start_ioeventfd = viommu_start_ioeventfd;
    vdc->stop_ioeventfd = viommu_stop_ioeventfd;
    vdc->vmsd = &vmstate_viommu_device;

    for (int i = 0; i < ARRAY_SIZE(descriptions); i++) {
        object_class_property_set_description(klass, descriptions[i].name,
                                              descriptions[i].text);
    }
    object_class_property_add(klass, "endpoints", "list", viommu_get_endpoints,
                              NULL, NULL, NULL);
    object_class_property_set_description(klass, "endpoints",
        "every endpoint's ID, attachment and counters (read only)");
    object_class_property_add(klass, "stats", "struct", viommu_get_stats,
                              NULL, NULL, NULL);
    object_class_property_set_description(klass, "stats",
        "counters of the whole device (read only)");
}

static const TypeInfo viommu_device_types[] = {
    {
        .name = TYPE_VIRTIO_IOMMU,
        .parent = TYPE_VIRTIO_DEVICE,
        .instance_size = sizeof(VirtIOIOMMU),
        .instance_finalize = viommu_instance_finalize,
        .class_init = viommu_class_init,
        .interfaces = (InterfaceInfo[]) {
            { TYPE_ACPI_TABLE_IF },
            { }
        },
    }, {
        /* The same under the name that says on what transport. */
        .name = TYPE_VIRTIO_IOMMU_MMIO,
        .parent = TYPE_VIRTIO_IOMMU,
    },
};

static void viommu_register_types(void)
{
    /* A second type of one name would end QEMU. */
    if (object_class_by_name(TYPE_VIRTIO_IOMMU)) {
        warn_report("device module virtio-iommu ignored: there is a "
                    "virtio-iommu already, built in or of another module file");
        return;
    }
    viommu_space_register_types();
    type_register_static_array(viommu_device_types,
                               ARRAY_SIZE(viommu_device_types));
    viommu_pci_register_types();
    viommu_mmio_hook_transports();
}

type_init(viommu_register_types)
