/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtio device: what its files share.  Everything here runs under the big
 * QEMU lock unless a function says otherwise.
 */
#ifndef VIOMMU_VIRTIO_DEVICE_H
#define VIOMMU_VIRTIO_DEVICE_H

#include "qemu/rcu.h"
#include "hw/pci/pci.h"
#include "hw/virtio/virtio.h"
#include "qapi/qapi-types-virtio.h"

#include "hw/space/unit.h"

OBJECT_DECLARE_SIMPLE_TYPE(VirtIOIOMMU, VIRTIO_IOMMU)

#define TYPE_VIRTIO_IOMMU_PCI VIOMMU_TYPE("pci")
#define TYPE_VIRTIO_IOMMU_MMIO VIOMMU_TYPE("mmio")

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
    bool fault_injection;
    ViommuRegion *resv_regions;
    uint32_t nr_resv_regions;
    char *root_bus;
    char *root_bus_text;        /* the same, taken apart; see unit */
    char *leave_out;
    char *leave_out_text;       /* likewise */
    ViommuArrayLayout topology;
    size_t config_limit;        /* most that the transport's window shows */

    VirtQueue *req_vq;          /* NULL: not realized */
    VirtQueue *event_vq;
    QEMUBH *request_bh;
    QEMUBH *event_bh;
    uint8_t *reply;             /* to the request in hand */

    ViommuUnit unit;
    uint64_t features;
    uint8_t *array;             /* config space from byte 36 on; NULL: stock */
    size_t array_size;
    bool in_bus_reset;          /* between reset phases enter and exit */
    bool system_reset;          /* this reset is one of the whole system */

    ViommuQuery query;          /* what inspect.c answers */
    char query_text[VIOMMU_QUERY_SIZE];

    struct rcu_head grace;      /* see queue.c */
    bool in_grace;              /* no request is served until it is over */
};

/* device.c */

/* All types of the device and what it hooks; once, when no type has their names. */
void viommu_register_types(void);

/* After every change of the config space that the guest did not write. */
void viommu_refresh_config_copy(VirtIOIOMMU *s);

/* endpoints.c */

/* What 'inspected' says to the question 'endpoints'. */
bool viommu_answer_endpoints(VirtIOIOMMU *s, Visitor *v, Error **errp);

/* inject.c */

void viommu_inject_register(ObjectClass *klass);

/* inspect.c */

void viommu_inspect_register(ObjectClass *klass);

/* observe.c */

/* It has been handled. */
void viommu_observe_request(const ViommuRequest *request);

/* The driver has it now. */
void viommu_observe_fault(const uint8_t record[VIOMMU_FAULT_RECORD_SIZE]);

/* properties.c */

void viommu_properties_register(ObjectClass *klass);

/* What they mean for the engine, all but the regions; false with @errp if one is wrong. */
bool viommu_properties_config(const VirtIOIOMMU *s, ViommuEngineConfig *config,
                              Error **errp);

/* The regions of the user, then the machine's; the caller frees them. */
ViommuRegion *viommu_properties_regions(VirtIOIOMMU *s, size_t *count);

/* Splits "root-bus".  Whether buses of these names exist is known when the machine is
 * complete. */
bool viommu_properties_root_bus(VirtIOIOMMU *s, Error **errp);

/* Splits "leave-out", likewise. */
bool viommu_properties_leave_out(VirtIOIOMMU *s, Error **errp);

/* stats.c */

void viommu_stats_register(ObjectClass *klass);

/* pci.c */

void viommu_pci_register_types(void);

/* queue.c */

void viommu_queue_init(VirtIOIOMMU *s);
void viommu_queue_cleanup(VirtIOIOMMU *s);
void viommu_queue_finalize(VirtIOIOMMU *s);

/* Stop what is scheduled; after a reset nothing must be left of it. */
void viommu_queue_cancel(VirtIOIOMMU *s);

/* A fault waits: see to the event queue from the main loop.  Any thread. */
void viommu_queue_kick(VirtIOIOMMU *s);

/* Look at both queues again, for the driver will not kick a second time. */
void viommu_queue_resume(VirtIOIOMMU *s);

/* vmstate.c */

extern const VMStateDescription vmstate_viommu;
extern const VMStateDescription vmstate_viommu_device;

#endif
