/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Places and spaces: where DMA comes from, and the address space that it goes
 * through.  Knows the engine and QEMU's memory core, no bus and no virtio device.
 * Under the big QEMU lock unless a function says otherwise.
 */
#ifndef VIOMMU_SPACE_H
#define VIOMMU_SPACE_H

#include "hw/pci/pci.h"

#include "hw/compat.h"
#include "hw/space/unit.h"

#define TYPE_VIOMMU_SPACE "viommu-space"
OBJECT_DECLARE_SIMPLE_TYPE(ViommuSpace, VIOMMU_SPACE)

/*
 * Where DMA comes from: a slot on a PCI bus, after conventional bridges took
 * their toll, or a virtio-mmio transport.  It stays the same when buses are
 * renumbered.
 */
typedef struct ViommuPlace {
    PCIBus *bus;                /* NULL: a transport */
    int devfn;
    DeviceState *transport;
} ViommuPlace;

bool viommu_place_equal(const ViommuPlace *a, const ViommuPlace *b);

/*
 * An address space of its own for every place.  It may exist before the IOMMU
 * that manages it is known, and bypasses until it is bound to one.
 *
 * An object of its own because flat views hold references to the owner of a
 * region until an RCU grace period has passed.
 */
struct ViommuSpace {
    Object parent_obj;

    ViommuPlace place;
    Object *place_owner;         /* the device that has the bus, or is the place */
    char *name;                  /* of the place, for traces */
    ViommuUnit *unit;            /* NULL: not bound */
    ViommuEndpoint *endpoint;
    IOMMUNotifierFlag listeners; /* read by any thread */

    AddressSpace as;
    MemoryRegion root;
    MemoryRegion bypass;
    IOMMUMemoryRegion iommu;
};

/* Not bound, so it bypasses. */
ViommuSpace *viommu_space_new(ViommuPlace place);

/* From now on @unit decides what DMA in @space reaches. */
void viommu_space_bind(ViommuSpace *space, ViommuUnit *unit);

/* The IOMMU goes away: the space bypasses for good. */
void viommu_space_unbind(ViommuSpace *space);

/*
 * What does DMA in @space is gone, so nothing new can start there.  What other
 * threads may still have in hand keeps the object alive until they let go of
 * their view of memory.
 */
void viommu_space_drop(ViommuSpace *space);

/* Those of the engine's callbacks that are about spaces and memory; see
 * ViommuCallbacks. */
void viommu_space_defer(void *opaque, ViommuDeferred *deferred);
void viommu_space_begin_switch(void *opaque);
void viommu_space_commit_switch(void *opaque);
void viommu_space_set_translating(void *opaque, void *endpoint,
                                  bool translating);
bool viommu_space_notify_map(void *opaque, void *endpoint, uint64_t iova,
                             uint64_t mask, uint64_t phys, uint32_t rights);
void viommu_space_notify_unmap(void *opaque, void *endpoint, uint64_t iova,
                               uint64_t mask, uint64_t phys);
void viommu_space_drop_cached(void *opaque, void *endpoint, uint64_t iova,
                              uint64_t mask);

void viommu_space_register_types(void);

#endif
