/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The QOM side of the device: types shared by the virtio device, its
 * transports, the address spaces of its endpoints and the platform layer.
 * Everything here runs under the big QEMU lock unless a function says
 * otherwise.
 */
#ifndef VIOMMU_DEVICE_H
#define VIOMMU_DEVICE_H

#include "hw/pci/pci.h"
#include "hw/virtio/virtio.h"
#include "qapi/qapi-types-virtio.h"

#include "viommu/viommu.h"

#define TYPE_VIRTIO_IOMMU "virtio-iommu-device"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIOIOMMU, VIRTIO_IOMMU)

#define TYPE_VIRTIO_IOMMU_PCI "virtio-iommu-pci"
#define TYPE_VIRTIO_IOMMU_MMIO "virtio-iommu-mmio"

#define TYPE_VIOMMU_SPACE "virtio-iommu-space"
OBJECT_DECLARE_SIMPLE_TYPE(ViommuSpace, VIOMMU_SPACE)

#define VIOMMU_QUEUE_SIZE 256

struct VirtIOIOMMU {
    VirtIODevice parent_obj;

    /* properties */
    PCIBus *primary_bus;        /* the PCI function's own, for users to read */
    bool boot_bypass;
    GranuleMode granule_mode;
    uint8_t aw_bits;
    uint64_t max_mappings;
    uint32_t max_domains;
    uint64_t max_memory;        /* bytes */
    bool sparse_page_sizes;
    bool linger;
    ViommuRegion *resv_regions;
    uint32_t nr_resv_regions;
    char *root_bus;
    char *root_bus_text;        /* the same, taken apart: */
    const char **root_bus_names;
    size_t root_bus_count;
    ViommuArrayLayout topology;
    size_t config_limit;        /* most that the transport's window shows */

    VirtQueue *req_vq;          /* NULL: not realized */
    VirtQueue *event_vq;
    QEMUBH *request_bh;
    QEMUBH *event_bh;
    uint8_t *reply;             /* to the request in hand */

    ViommuEngine *engine;
    uint32_t index;             /* in the model */
    uint64_t features;
    uint8_t *array;             /* config space from byte 36 on; NULL: stock */
    size_t array_size;
    DeviceState *transport;     /* the PCI function or MMIO transport */
    bool on_mmio;
    bool in_bus_reset;          /* between reset phases enter and exit */
    bool system_reset;          /* this reset is one of the whole system */
};

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
    VirtIOIOMMU *s;              /* NULL: not bound */
    ViommuEndpoint *endpoint;
    IOMMUNotifierFlag listeners; /* read by any thread */

    AddressSpace as;
    MemoryRegion root;
    MemoryRegion bypass;
    IOMMUMemoryRegion iommu;
};

/* viommu-device.c */

/*
 * Puts the topology array that @topology has for IOMMU @index into the config
 * space, if the user wants one.  Once, when the machine is complete.
 */
bool viommu_device_set_topology(VirtIOIOMMU *s, const ViommuTopology *topology,
                                uint32_t index, Error **errp);

/* After every change of the config space that the guest did not write. */
void viommu_refresh_config_copy(VirtIOIOMMU *s);

/* viommu-space.c */

/* The callbacks that the engine makes; their opaque is the VirtIOIOMMU. */
extern const ViommuCallbacks viommu_callbacks;

#define VIOMMU_NO_HOST_DEVICES \
    "virtio-iommu does not support assigned host devices; put the device on " \
    "a root bus that bypasses the IOMMU"

/* Nothing can be reached there, and who wants to be told mappings is refused. */
AddressSpace *viommu_space_that_refuses(void);

/* Not bound, so it bypasses. */
ViommuSpace *viommu_space_new(ViommuPlace place);

/* From now on @s decides what DMA in @space reaches. */
void viommu_space_bind(ViommuSpace *space, VirtIOIOMMU *s);

/* The IOMMU goes away: the space bypasses for good. */
void viommu_space_unbind(ViommuSpace *space);

/*
 * What does DMA in @space is gone, so nothing new can start there.  What other
 * threads may still have in hand keeps the object alive until they let go of
 * their view of memory.
 */
void viommu_space_drop(ViommuSpace *space);

void viommu_space_register_types(void);

/* viommu-pci.c */

void viommu_pci_register_types(void);

/* viommu-queue.c */

void viommu_queue_init(VirtIOIOMMU *s);
void viommu_queue_cleanup(VirtIOIOMMU *s);
void viommu_queue_finalize(VirtIOIOMMU *s);

/* Stop what is scheduled; after a reset nothing must be left of it. */
void viommu_queue_cancel(VirtIOIOMMU *s);

/* A fault waits: see to the event queue from the main loop.  Any thread. */
void viommu_queue_kick(VirtIOIOMMU *s);

/* Look at both queues again, for the driver will not kick a second time. */
void viommu_queue_resume(VirtIOIOMMU *s);

/* viommu-vmstate.c */

extern const VMStateDescription vmstate_viommu;
extern const VMStateDescription vmstate_viommu_device;

#endif
