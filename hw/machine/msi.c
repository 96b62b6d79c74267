/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/osdep.h"
#include "hw/qdev-core.h"
#include "hw/sysbus.h"

#include "hw/machine/msi.h"

bool viommu_msi_region(ViommuRegion *region)
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
