/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-iommu-device: its life, configuration space, features and resets.
 * What a request means is decided behind viommu/viommu.h.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/log.h"
#include "hw/resettable.h"
#include "hw/virtio/virtio-mmio.h"
#include "standard-headers/linux/virtio_ids.h"
#include "system/reset.h"

#include "hw/compat.h"
#include "hw/machine/acpi.h"
#include "hw/machine/functions.h"
#include "hw/machine/machine.h"
#include "hw/machine/mmio-hook.h"
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

    viommu_assert_big_lock();
    if (s->topology == VIOMMU_ARRAY_OFF) {
        uint8_t value = config[VIOMMU_CONFIG_BYPASS];
        uint8_t before = viommu_engine_bypass(s->unit.engine);

        if (viommu_engine_write_bypass(s->unit.engine, value)) {
            vdev->generation++; /* GEN-7 */
            trace_viommu_bypass(value);
        } else if (value != before) {
            qemu_log_mask(LOG_GUEST_ERROR, "virtio-iommu: %u written to 'bypass' has no "
                          "effect\n", value);
        }
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
    trace_viommu_features(features);
    viommu_engine_set_features(VIRTIO_IOMMU(vdev)->unit.engine, features);
}

static ViommuStatusDone viommu_set_status(VirtIODevice *vdev, uint8_t status)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(vdev);
    bool live = status & VIRTIO_CONFIG_S_DRIVER_OK;

    trace_viommu_status(status);
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
    trace_viommu_array(size);
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

    viommu_assert_big_lock();
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
    ViommuEngineConfig config;
    ViommuEngine *engine;
    char error[256];

    if (!viommu_properties_config(s, &config, errp)) {
        return NULL;
    }
    config.regions = regions = viommu_properties_regions(s, &config.region_count);
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
    if (!proxy || !VIOMMU_ON_MMIO) {
        error_setg(errp, "%s: '%s' is not a transport that it works on: use "
                   TYPE_VIRTIO_IOMMU_PCI "%s",
                   object_get_typename(OBJECT(s)),
                   object_get_typename(OBJECT(parent)),
                   VIOMMU_ON_MMIO ? " or a virtio-mmio bus" : "");
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
    if (!viommu_properties_root_bus(s, errp) ||
        !viommu_properties_leave_out(s, errp)) {
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
    g_free(s->unit.left_out);
    g_free(s->leave_out_text);
    g_free(s->array);
}

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

static void viommu_class_init(ObjectClass *klass, ViommuClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    viommu_properties_register(klass);
    viommu_stats_register(klass);
    viommu_inspect_register(klass);
    viommu_inject_register(klass);
    dc->vmsd = &vmstate_viommu;
    dc->desc = "Paravirtual IOMMU";
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);

    rc->phases.enter = viommu_reset_enter;
    rc->phases.exit = viommu_reset_exit;

    viommu_acpi_class_init(klass);

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
}

static const TypeInfo viommu_device_type = {
    .name = TYPE_VIRTIO_IOMMU,
    .parent = TYPE_VIRTIO_DEVICE,
    .instance_size = sizeof(VirtIOIOMMU),
    .instance_finalize = viommu_instance_finalize,
    .class_init = viommu_class_init,
    .interfaces = viommu_acpi_interfaces,
};

/* The same under the name that says on what transport. */
static const TypeInfo viommu_mmio_type = {
    .name = TYPE_VIRTIO_IOMMU_MMIO,
    .parent = TYPE_VIRTIO_IOMMU,
};

void viommu_register_types(void)
{
    viommu_space_register_types();
    type_register_static(&viommu_device_type);
    viommu_pci_register_types();
    if (VIOMMU_ON_MMIO) {
        type_register_static(&viommu_mmio_type);
        viommu_mmio_hook_transports();
    }
}
