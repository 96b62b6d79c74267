/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The way in for a QEMU with our patches: a device module.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/module.h"

#include "hw/virtio/device.h"

static void register_module(void)
{
    /* A second type of one name would end QEMU. */
    if (object_class_by_name(TYPE_VIRTIO_IOMMU)) {
        warn_report("device module virtio-iommu ignored: there is a "
                    "virtio-iommu already, built in or of another module file");
        return;
    }
    viommu_register_types();
}

type_init(register_module)
