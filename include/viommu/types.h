/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What more than one of the interfaces beside it speaks of: handles, bits of the
 * wire, regions.  See viommu.h.
 */
#ifndef VIOMMU_TYPES_H
#define VIOMMU_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define VIOMMU_NOEXCEPT noexcept
#else
#define VIOMMU_NOEXCEPT
#endif

typedef struct ViommuEngine ViommuEngine;
typedef struct ViommuEndpoint ViommuEndpoint;
typedef struct ViommuTopology ViommuTopology;

/* Device feature bits (virtio specification, IOMMU device, feature bits). */
#define VIOMMU_F_INPUT_RANGE (UINT64_C(1) << 0)
#define VIOMMU_F_DOMAIN_RANGE (UINT64_C(1) << 1)
#define VIOMMU_F_MAP_UNMAP (UINT64_C(1) << 2)
#define VIOMMU_F_BYPASS (UINT64_C(1) << 3)
#define VIOMMU_F_PROBE (UINT64_C(1) << 4)
#define VIOMMU_F_MMIO (UINT64_C(1) << 5)
/* Bit 6 is BYPASS_CONFIG in the specification, TOPOLOGY in the 2020 proposal. */
#define VIOMMU_F_BYPASS_CONFIG (UINT64_C(1) << 6)
#define VIOMMU_F_TOPOLOGY (UINT64_C(1) << 6)

#define VIOMMU_CONFIG_SIZE 40u      /* the specification's config space */
#define VIOMMU_CONFIG_BYPASS 36u    /* offset of the one writable byte */
#define VIOMMU_REQUEST_MAX 72u      /* longest readable part of a request */
#define VIOMMU_FAULT_RECORD_SIZE 24u
#define VIOMMU_PROBE_SIZE_MIN 512u  /* what stock QEMU offers */

/* Types of requests. */
#define VIOMMU_T_ATTACH 1u
#define VIOMMU_T_DETACH 2u
#define VIOMMU_T_MAP 3u
#define VIOMMU_T_UNMAP 4u
#define VIOMMU_T_PROBE 5u

/* Access rights, also the kind of an access. */
#define VIOMMU_READ 1u
#define VIOMMU_WRITE 2u

/* Reserved region subtypes as in the RESV_MEM property. */
#define VIOMMU_RESV_RESERVED 0u
#define VIOMMU_RESV_MSI 1u

typedef struct ViommuRegion {
    uint64_t start;
    uint64_t last;
    uint8_t subtype; /* VIOMMU_RESV_* */
} ViommuRegion;

/* IOVAs that something can use. */
typedef struct ViommuRange {
    uint64_t start;
    uint64_t last;
} ViommuRange;

/* One entry of `leave-out`: a function by the device's id, one or all eight of a slot
 * by address, or a root bus with all that is on it and behind its bridges. */
typedef struct ViommuLeaveOut {
    const char *name;  /* of a root bus, if there is an address; else of either */
    bool has_address;
    uint8_t first_devfn; /* of the address */
    uint8_t last_devfn;
} ViommuLeaveOut;

/* A PCI function. */
typedef struct ViommuFunctionDesc {
    const char *id;       /* of the device, NULL if it has none */
    const char *root_bus; /* the one that it is on or behind */
    bool on_root_bus;     /* else behind a bridge */
    uint8_t devfn;
    bool bridge;          /* to a bus that the guest numbers */
    bool expander;        /* makes a root bus */
} ViommuFunctionDesc;

/* Something that readers may still look at; see ViommuCallbacks.defer. */
typedef struct ViommuDeferred {
    void *link[2]; /* the caller's, from defer() until it calls reclaim() */
    /* Does a bounded piece of work, far less than a millisecond.  True if there
     * is more: then it is to be called again, later, and `deferred` stays. */
    bool (*reclaim)(struct ViommuDeferred *deferred);
} ViommuDeferred;

/* Layouts of the array of endpoints in config space (`topology`). */
typedef enum ViommuArrayLayout {
    VIOMMU_ARRAY_OFF = 0,
    VIOMMU_ARRAY_V2 = 2,
    VIOMMU_ARRAY_V3 = 3,
} ViommuArrayLayout;

#endif /* VIOMMU_TYPES_H */
