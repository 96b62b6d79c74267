/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Looking on while a device runs: what its domains, endpoints and counters are now.
 *
 * None of these changes anything: nothing is counted or reported as an access, nothing is
 * remembered, no callback is made but where it says so.  Each takes a time that does not
 * depend on how many mappings there are: it is long in `cap` alone.  Under the big lock.
 */
#ifndef VIOMMU_INSPECT_H
#define VIOMMU_INSPECT_H

#include "types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Most domains and mappings of one answer, and what is asked for without a number. */
#define VIOMMU_PAGE_MAX 128u
/* Likewise of endpoints: to say who has an ID takes a look at every bus. */
#define VIOMMU_ENDPOINT_PAGE_MAX 32u

/* ------------------------------------------------------------------ */
/* Questions                                                           */

typedef enum ViommuViewKind {
    VIOMMU_VIEW_NONE = 0,   /* an empty text */
    VIOMMU_VIEW_ENDPOINTS,
    VIOMMU_VIEW_DOMAINS,
    VIOMMU_VIEW_MAPPINGS,
    VIOMMU_VIEW_TRANSLATE,
} ViommuViewKind;

typedef struct ViommuQuery {
    ViommuViewKind view;
    uint32_t domain;   /* MAPPINGS */
    uint32_t endpoint; /* TRANSLATE: an endpoint ID */
    uint64_t address;  /* TRANSLATE: an IOVA */
    uint64_t from;     /* the first endpoint ID, domain or IOVA of the answer */
    uint32_t count;    /* most entries; 1 to the MAX of the view */
} ViommuQuery;

/* Room for a question with its NUL; none that makes sense is longer. */
#define VIOMMU_QUERY_SIZE 128u

/* A view and its arguments, "mappings domain=1 from=0x1000 count=64": as for the texts in
 * properties.h, with numbers in decimal or, with 0x, hexadecimal.  A text that is refused
 * changes nothing but `error`.  Any thread. */
bool viommu_query_parse(const char *text, ViommuQuery *query, char *error,
                        size_t error_size) VIOMMU_NOEXCEPT;

/* ------------------------------------------------------------------ */
/* Answers                                                             */

/* "none", "r", "w" or "rw".  Any thread. */
const char *viommu_rights_name(uint32_t rights) VIOMMU_NOEXCEPT;

/* What the device was made with, and what the driver made of it. */
typedef struct ViommuSettingsView {
    uint64_t offered_features;
    uint64_t negotiated_features; /* 0: no driver */
    uint64_t page_size_mask;
    uint64_t granule;             /* bytes */
    uint64_t input_start;         /* IOVAs, both inclusive */
    uint64_t input_last;
    uint32_t domain_first;
    uint32_t domain_last;
    uint64_t max_mappings;
    uint32_t max_domains;
    uint64_t max_memory;          /* bytes */
    bool boot_bypass;
    bool bypass;
} ViommuSettingsView;

void viommu_engine_settings(const ViommuEngine *engine,
                            ViommuSettingsView *out) VIOMMU_NOEXCEPT;

/* How many requests of a type were answered with a status. */
typedef struct ViommuRequestCount {
    const char *type;   /* attach, ...; "unknown": of no type that there is, or too short */
    const char *status; /* as the specification names it; "unanswered" */
    uint64_t count;
} ViommuRequestCount;

#define VIOMMU_REQUEST_COUNTS 60u /* types times statuses */

/* Those that are not 0; returns how many. */
size_t viommu_engine_request_counts(const ViommuEngine *engine,
                                    ViommuRequestCount out[VIOMMU_REQUEST_COUNTS])
    VIOMMU_NOEXCEPT;

/* Accesses that were refused, by the reason that their records carry. */
typedef struct ViommuFaultCounts {
    uint64_t domain;  /* the endpoint is in no domain, and does not bypass */
    uint64_t mapping; /* nothing is mapped there, or without that right */
} ViommuFaultCounts;

/* Also of endpoints that are gone. */
void viommu_engine_fault_counts(ViommuEngine *engine, ViommuFaultCounts *out) VIOMMU_NOEXCEPT;

typedef struct ViommuDomainView {
    uint32_t id;
    bool bypass;        /* else it has mappings */
    uint64_t mappings;
    uint64_t memory;    /* bytes, see max_memory */
    uint64_t endpoints;
} ViommuDomainView;

/* The domains from number `from` on, at most `cap`; returns how many were written.  `more`:
 * there are others behind them. */
size_t viommu_engine_domains(const ViommuEngine *engine, uint32_t from, ViommuDomainView *out,
                             size_t cap, bool *more) VIOMMU_NOEXCEPT;

/* The `opaque` of the endpoints that are in a domain, at most `cap`. */
size_t viommu_engine_domain_endpoints(const ViommuEngine *engine, uint32_t domain, void **out,
                                      size_t cap) VIOMMU_NOEXCEPT;

typedef struct ViommuMappingView {
    uint64_t first; /* IOVAs, both inclusive */
    uint64_t last;
    uint64_t phys;
    uint32_t flags; /* of MAP: VIOMMU_READ, VIOMMU_WRITE, 4: MMIO */
} ViommuMappingView;

typedef struct ViommuMappingPage {
    size_t count;
    bool more;
    uint64_t next; /* if there are more: where the first of them starts */
} ViommuMappingPage;

/* The mappings of a domain in the order of IOVAs, at most `cap`, from the first on that ends
 * at or behind `from`.  False, with one sentence, if there is no such domain. */
bool viommu_engine_mappings(const ViommuEngine *engine, uint32_t domain, uint64_t from,
                            ViommuMappingView *out, size_t cap, ViommuMappingPage *page,
                            char *error, size_t error_size) VIOMMU_NOEXCEPT;

typedef struct ViommuEndpointView {
    const char *mode; /* translating: in a domain with mappings; bypass: in a bypass domain;
                         unattached: in none */
    bool attached;
    bool bypasses;    /* its accesses reach memory as they are */
    uint32_t domain;  /* valid if attached */
    uint64_t translations;
    uint64_t faults;
    ViommuFaultCounts faults_by_reason;
    const char *last_fault; /* the reason of the last one: domain or mapping; NULL: none yet */
    uint64_t last_fault_address;
    uint32_t last_fault_access; /* VIOMMU_READ, VIOMMU_WRITE: the rights that it lacked */
} ViommuEndpointView;

void viommu_endpoint_view(ViommuEndpoint *endpoint, ViommuEndpointView *out) VIOMMU_NOEXCEPT;

/* Whether the ATTACH of this function is one of those that hold the endpoint in its domain;
 * see ViommuIdentity. */
bool viommu_endpoint_has_member(const ViommuEndpoint *endpoint,
                                uintptr_t member) VIOMMU_NOEXCEPT;

typedef struct ViommuLook {
    const char *found; /* mapping, msi (the window of interrupts), bypass; or what keeps an access
                          from memory: unattached, reserved, unmapped */
    uint32_t rights;   /* VIOMMU_READ, VIOMMU_WRITE; 0: no access gets through */
    uint64_t phys;     /* valid with rights: where `iova` leads to */
    uint64_t first;    /* valid with rights: the IOVAs around it of which the same is true, as
                          viommu_endpoint_translate() says it */
    uint64_t last;
} ViommuLook;

/* What an access at `iova` would get now. */
void viommu_endpoint_look(const ViommuEndpoint *endpoint, uint64_t iova,
                          ViommuLook *out) VIOMMU_NOEXCEPT;

/* Who has endpoint ID `id` now, NULL if nobody.  Calls resolve() back. */
ViommuEndpoint *viommu_engine_endpoint(ViommuEngine *engine, uint32_t id) VIOMMU_NOEXCEPT;

/* ------------------------------------------------------------------ */
/* The model                                                           */

/* These give entry number `i`, false behind the last one; names live as long as the model.
 * Any thread.  There are at most 256 root buses, and ranges do not overlap. */

typedef struct ViommuRootBusView {
    const char *name;
    uint16_t segment;
    uint8_t first_bus; /* its window of bus numbers, inclusive */
    uint8_t last_bus;
    bool bypass;       /* it is set to bypass IOMMUs */
    uint32_t iommu;    /* that manages it; VIOMMU_NO_IOMMU */
} ViommuRootBusView;

bool viommu_topology_root_bus(const ViommuTopology *topology, size_t i,
                              ViommuRootBusView *out) VIOMMU_NOEXCEPT;

typedef struct ViommuIommuView {
    const char *name;
    bool on_mmio;
    uint32_t requester_id; /* PCI: with the segment */
    uint64_t base;         /* MMIO */
} ViommuIommuView;

bool viommu_topology_iommu(const ViommuTopology *topology, size_t i,
                           ViommuIommuView *out) VIOMMU_NOEXCEPT;

typedef struct ViommuIdRange {
    uint32_t first; /* endpoint IDs, inclusive */
    uint32_t last;
} ViommuIdRange;

/* PCI: what IOMMU `iommu` manages. */
bool viommu_topology_range(const ViommuTopology *topology, uint32_t iommu, size_t i,
                           ViommuIdRange *out) VIOMMU_NOEXCEPT;

typedef struct ViommuMmioEndpointView {
    const char *name;
    uint32_t id;
    uint64_t base; /* guest-physical, of its transport */
} ViommuMmioEndpointView;

/* The endpoints on virtio-mmio transports that IOMMU `iommu` manages. */
bool viommu_topology_mmio_endpoint(const ViommuTopology *topology, uint32_t iommu, size_t i,
                                   ViommuMmioEndpointView *out) VIOMMU_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif /* VIOMMU_INSPECT_H */
