/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults that are made, for people who test a guest's driver.  An engine that was not
 * made for it (ViommuEngineConfig.fault_injection) refuses.  All of it only takes away:
 * no access and no request gets more than it would get without.  It is no part of a
 * migration, and resets leave it as it is.  Under the big lock.
 */
#ifndef VIOMMU_INJECTION_H
#define VIOMMU_INJECTION_H

#include "types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ViommuInjectionKind {
    VIOMMU_INJECT_NOTHING = 0, /* what was armed is no more */
    VIOMMU_INJECT_REQUESTS,    /* the next `count` of a type are answered with `status` */
    VIOMMU_INJECT_ACCESSES,    /* the next `count` of an endpoint fault for `reason` */
    VIOMMU_INJECT_RECORD,      /* a fault record without an access */
} ViommuInjectionKind;

typedef struct ViommuInjection {
    ViommuInjectionKind kind;
    uint8_t type;      /* REQUESTS: VIOMMU_T_* */
    uint8_t status;    /* REQUESTS: as on the wire, not 0 (OK) */
    uint8_t reason;    /* ACCESSES, RECORD: as in a fault record */
    uint32_t access;   /* RECORD: VIOMMU_READ, VIOMMU_WRITE */
    uint32_t endpoint; /* ACCESSES, RECORD: an endpoint ID */
    uint64_t address;  /* RECORD */
    uint32_t count;    /* REQUESTS, ACCESSES: at least 1 */
} ViommuInjection;

/* "requests type=map status=NOMEM count=3", "accesses endpoint=0x18 count=2 reason=mapping",
 * "record endpoint=0x18 address=0x1000 reason=mapping access=w" or "nothing", with numbers as in
 * viommu_query_parse().  A text that is refused changes nothing but `error`.  Any thread. */
bool viommu_injection_parse(const char *text, ViommuInjection *wanted, char *error,
                            size_t error_size) VIOMMU_NOEXCEPT;

/* Arms it, in place of what was armed for that type or endpoint; a record is queued at once,
 * and then the caller arranges delivery as after an access.  What other threads have under way
 * may still succeed.  False, with one sentence, if the engine was not made for it, if nobody
 * has the ID, or if the record would be dropped.  Calls resolve() back, and drop_cached(). */
bool viommu_engine_inject(ViommuEngine *engine, const ViommuInjection *wanted, char *error,
                          size_t error_size) VIOMMU_NOEXCEPT;

typedef struct ViommuArmedRequests {
    const char *type;
    const char *status;
    uint32_t left;
} ViommuArmedRequests;

/* One for each type that is armed; returns how many. */
size_t viommu_engine_armed_requests(const ViommuEngine *engine,
                                    ViommuArmedRequests out[VIOMMU_T_PROBE]) VIOMMU_NOEXCEPT;

/* How many accesses of the endpoint are to fail yet. */
uint32_t viommu_endpoint_armed_accesses(const ViommuEndpoint *endpoint) VIOMMU_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif /* VIOMMU_INJECTION_H */
