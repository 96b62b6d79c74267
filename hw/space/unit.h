/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An IOMMU without its virtio side: what address spaces and the machine know of
 * it.  The virtio device has one and fills it in.  Under the big QEMU lock.
 */
#ifndef VIOMMU_UNIT_H
#define VIOMMU_UNIT_H

#include "qemu/main-loop.h"
#include "hw/qdev-core.h"

#include "hw/compat.h"
#include "viommu/viommu.h"

#define TYPE_VIRTIO_IOMMU VIOMMU_TYPE("device")

typedef struct ViommuUnit ViommuUnit;

/* At the entries from QEMU's side that change something: without the lock, nothing that
 * they rely on holds. */
static inline void viommu_assert_big_lock(void)
{
    g_assert(bql_locked());
}

struct ViommuUnit {
    Object *device;             /* spaces hold references to it and its transport */
    ViommuEngine *engine;       /* lives as long as the device */

    /* A fault waits to be delivered.  Any thread. */
    void (*kick)(ViommuUnit *unit);
    /* The model of the machine is there; false, with @errp, if it does not fit. */
    bool (*set_topology)(ViommuUnit *unit, const ViommuTopology *topology,
                         Error **errp);

    DeviceState *transport;     /* the PCI function or MMIO transport */
    bool on_mmio;
    const char **root_bus_names;
    size_t root_bus_count;      /* 0: what no other unit names */
    ViommuLeaveOut *left_out;
    size_t left_out_count;
    uint32_t index;             /* in the model */
    unsigned switches;          /* of the memory topology; whoever counts sets it to 0 */
};

#endif
