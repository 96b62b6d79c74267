/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The way in for a QEMU without our patches: its option -plugin loads any shared
 * object, and is served after all types of QEMU's own are there and before the
 * first device is made.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-control.h"
#include "qapi/util.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/qemu-plugin.h"
#include "hw/pci/pci_host.h"
#include "hw/qdev-properties.h"
#include "hw/virtio/virtio-mmio.h"
#include "hw/virtio/virtio-pci.h"
#include "trace/control.h"

#include "hw/virtio/device.h"

/* Made of hw/trace-events. */
extern TraceEvent *viommu_trace_events[];

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/*
 * QEMU's own structures are compiled in.  Where they have their properties tells
 * that they are what they were, which a release of one series need not keep.
 */
static const struct {
    const char *type;
    const char *property;
    ptrdiff_t offset;
} layouts[] = {
    { TYPE_PCI_DEVICE, "addr", offsetof(PCIDevice, devfn) },
    { TYPE_PCI_DEVICE, "x-max-bounce-buffer-size",
      offsetof(PCIDevice, max_bounce_buffer_size) },
    { TYPE_PCI_HOST_BRIDGE, "bypass-iommu", offsetof(PCIHostState, bypass_iommu) },
    { TYPE_VIRTIO_DEVICE, "iommu_platform", offsetof(VirtIODevice, host_features) },
    { TYPE_VIRTIO_DEVICE, "x-disable-legacy-check",
      offsetof(VirtIODevice, disable_legacy_check) },
    { TYPE_VIRTIO_PCI, "ats", offsetof(VirtIOPCIProxy, flags) },
    { TYPE_VIRTIO_MMIO, "force-legacy", offsetof(VirtIOMMIOProxy, legacy) },
};

static bool version_fits(void)
{
    g_autoptr(VersionInfo) version = qmp_query_version(NULL);
    const VersionTriple *qemu = version->qemu;

    if (qemu->major != VIOMMU_QEMU_MAJOR || qemu->minor != VIOMMU_QEMU_MINOR) {
        error_report("viommu: built for QEMU %d.%d, this is %" PRId64 ".%" PRId64
                     ".%" PRId64 " %s", VIOMMU_QEMU_MAJOR, VIOMMU_QEMU_MINOR,
                     qemu->major, qemu->minor, qemu->micro, version->package);
        return false;
    }
    return true;
}

static const Property *property_of(const char *type, const char *name)
{
    ObjectClass *klass = object_class_by_name(type);
    DeviceClass *dc = klass ? DEVICE_CLASS(klass) : NULL;

    for (int i = 0; dc && i < dc->props_count_; i++) {
        if (!strcmp(dc->props_[i].name, name)) {
            return &dc->props_[i];
        }
    }
    return NULL;
}

static bool layouts_fit(void)
{
    for (int i = 0; i < ARRAY_SIZE(layouts); i++) {
        const Property *property =
            property_of(layouts[i].type, layouts[i].property);

        if (!property || property->offset != layouts[i].offset) {
            error_report("viommu: built for another QEMU %d.%d: property '%s' of "
                         "'%s' is not where it was there", VIOMMU_QEMU_MAJOR,
                         VIOMMU_QEMU_MINOR, layouts[i].property,
                         layouts[i].type);
            return false;
        }
    }
    return true;
}

static bool names_are_free(void)
{
    /* Brought by patch 4. */
    if (object_class_by_name("acpi-table-interface")) {
        error_report("viommu: this QEMU has viommu's patches: it loads the device "
                     "by itself, without -plugin");
        return false;
    }
    if (object_class_by_name(TYPE_VIRTIO_IOMMU)) {
        error_report("viommu: loaded twice");
        return false;
    }
    return true;
}

/*
 * Without patch 7 QEMU writes an entry of a split used ring that straddles two pages
 * to the memory behind the first, mapped or not; rings of all devices are that long
 * since 10.0.13.  Those of packed rings never straddle.  What a command line says of
 * a device goes before this; the IOMMU's own rings are not translated.
 */
static void prefer_packed_rings(void)
{
    static GlobalProperty defaults[] = {
        { TYPE_VIRTIO_DEVICE, "packed", "on" },
        { TYPE_VIRTIO_IOMMU, "packed", "off" },
    };

    for (int i = 0; i < ARRAY_SIZE(defaults); i++) {
        qdev_prop_register_global(&defaults[i]);
    }
}

typedef struct Arguments {
    bool packed_rings;
} Arguments;

static bool take_argument(const char *argument, Arguments *arguments)
{
    const char *value;

    if (strstart(argument, "trace=", &value)) {
        /* -trace was looked at before these events were there. */
        trace_enable_events(value);
        return true;
    }
    if (strstart(argument, "packed-rings=", &value) &&
        qapi_bool_parse("packed-rings", value, &arguments->packed_rings, NULL)) {
        return true;
    }
    error_report("viommu: '%s' is not an argument of this plugin: they are "
                 "trace=PATTERN and packed-rings=on|off", argument);
    return false;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id,
                                           const qemu_info_t *info, int argc,
                                           char **argv)
{
    Arguments arguments = { .packed_rings = true };
    bool fits = version_fits() && layouts_fit() && names_are_free();

    if (fits) {
        trace_event_register_group(viommu_trace_events);
    }
    for (int i = 0; fits && i < argc; i++) {
        fits = take_argument(argv[i], &arguments);
    }
    /* Any other answer than 0 has QEMU add a sentence that says less. */
    if (!fits) {
        exit(EXIT_FAILURE);
    }
    viommu_register_types();
    if (arguments.packed_rings) {
        prefer_packed_rings();
    }
    return 0;
}
