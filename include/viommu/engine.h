/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device itself: requests, endpoints and their translations, faults, resets,
 * migration.  viommu.h says which thread may call what.
 */
#ifndef VIOMMU_ENGINE_H
#define VIOMMU_ENGINE_H

#include "types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What all endpoints of an IOMMU have: the first `user` of the `n` regions are
 * the user's, the others the machine's for MSIs, which count only if the user
 * has none for MSIs.  Sorts them by start and merges those of equal subtype that
 * touch or overlap; where two subtypes overlap, the later entry of the input
 * yields.  Writes at most `cap` regions to `out` and returns how many there are,
 * which may exceed `cap` (then call again with more room).  W15, RSV-2, RSV-3.
 * Any thread. */
size_t viommu_regions_collect(const ViommuRegion *in, size_t user, size_t n,
                              ViommuRegion *out, size_t cap) VIOMMU_NOEXCEPT;

/* Who an endpoint ID is at this moment.  Several functions share one endpoint
 * when their DMA carries the same requester ID (behind a conventional
 * bridge); `member` tells them apart and is never dereferenced. */
typedef struct ViommuIdentity {
    ViommuEndpoint *endpoint;
    uintptr_t member;
} ViommuIdentity;

/* All but defer() are called under the big lock, from a function that was called
 * under it.  None may call the engine; but set_translating(), commit_switch() and
 * the last three lead to listeners, which may look addresses up
 * (viommu_endpoint_translate); and with set_translating() and commit_switch()
 * listeners come and go (viommu_endpoint_set_listeners, viommu_endpoint_replay). */
typedef struct ViommuCallbacks {
    /* Calls deferred->reclaim(deferred) when every viommu_endpoint_translate()
     * that is under way now has returned, and again until it returns false; in
     * any thread, with no lock of the engine held, possibly after the engine is
     * gone.  Between two calls others get their turn at whatever lock they are
     * made with. */
    void (*defer)(void *opaque, ViommuDeferred *deferred);

    /* Finds who has endpoint ID `id` now; false if nobody.  ATT-3, DET-2,
     * PRB-2.  The topology has already been asked whether the ID can exist. */
    bool (*resolve)(void *opaque, uint32_t id, ViommuIdentity *out);

    /* The reverse: the ID that a fault record shall carry for this endpoint
     * now; false if the endpoint has none any more.  FLT-3. */
    bool (*endpoint_id)(void *opaque, void *endpoint_opaque, uint32_t *id);

    /* Brackets a group of set_translating calls into one change of QEMU's
     * memory topology; called only if there is something to change. */
    void (*begin_switch)(void *opaque);
    void (*commit_switch)(void *opaque);

    /* The endpoint enters (true) or leaves (false) translation.  Never called
     * with the value that is already in force. */
    void (*set_translating)(void *opaque, void *endpoint_opaque,
                            bool translating);

    /* For endpoints with listeners (viommu_endpoint_set_listeners).  All three
     * tell of one block: a power of two of at most 2^62 bytes, `mask` is its
     * size - 1, aligned at `iova`; iova + size is 2^64 for a single page only.
     *
     * Listeners that want MAPs keep a copy of the mappings: they hear of each
     * mapping with rights that comes (notify_map) and of each that goes
     * (notify_unmap), once, in the same blocks, none of which is larger than
     * the mapping.  Before an endpoint enters or leaves translation, those that
     * are there have heard all; those that come later replay for themselves.
     * notify_map() is false if one of them could not follow, a host's IOMMU that
     * is full: then the request is undone, the block told as gone, and the answer
     * NOMEM.  W25 */
    bool (*notify_map)(void *opaque, void *endpoint_opaque, uint64_t iova,
                       uint64_t mask, uint64_t phys, uint32_t rights);
    void (*notify_unmap)(void *opaque, void *endpoint_opaque, uint64_t iova,
                         uint64_t mask, uint64_t phys);

    /* Listeners that want UNMAPs only cache what translate() told: all of that
     * inside the block must go.  Not all of the block was mapped, and where an
     * endpoint has changed its domain, some of it may be mapped again. */
    void (*drop_cached)(void *opaque, void *endpoint_opaque, uint64_t iova,
                        uint64_t mask);
} ViommuCallbacks;

/* No guest has memory above it: whoever cached what a bypassing endpoint was told
 * has nothing beyond. */
#define VIOMMU_MEMORY_LAST ((UINT64_C(1) << 62) - 1)

typedef struct ViommuEngineConfig {
    uint64_t offered_features; /* VIOMMU_F_* that the device offers */
    uint64_t page_size_mask;   /* CFG-1: not 0; lowest bit is the granule */
    bool sparse_page_sizes;    /* of the mask only the granule counts: advertised are
                                  the sizes that page tables of it have, so that a
                                  driver splits what it maps into fewer pieces */
    uint64_t input_start;
    uint64_t input_last;
    uint32_t domain_first;
    uint32_t domain_last;
    uint32_t probe_size;       /* at least VIOMMU_PROBE_SIZE_MIN; a multiple of 8 */
    bool boot_bypass;          /* value of `bypass` after a system reset */
    bool topology_array;       /* bit 6 means TOPOLOGY: no `bypass` field, but
                                  ATTACH's BYPASS flag is honoured */
    bool fault_injection;      /* viommu_engine_inject() may be used: for tests of drivers */
    bool linger;               /* see viommu_engine_driver_reset() */
    uint64_t max_mappings;     /* per engine; beyond it MAP answers NOMEM */
    uint32_t max_domains;      /* per engine; beyond it ATTACH answers NOMEM */
    uint64_t max_memory;       /* bytes of domains and mappings, per engine; before
                                  it is exceeded MAP and ATTACH answer NOMEM */
    const ViommuRegion *regions; /* of every endpoint; copied */
    size_t region_count;
} ViommuEngineConfig;

/* Creates an engine without endpoints, not live, nothing negotiated.  On
 * failure returns NULL and one sentence in `error`.  Under the big lock. */
ViommuEngine *viommu_engine_new(const ViommuEngineConfig *config,
                                const ViommuCallbacks *callbacks, void *opaque,
                                char *error, size_t error_size) VIOMMU_NOEXCEPT;

/* Frees the engine; all endpoints must have been freed.  Makes no callback.
 * Under the big lock, no translation under way. */
void viommu_engine_free(ViommuEngine *engine) VIOMMU_NOEXCEPT;

/* Which description of the machine decides whether an ID can exist.  `iommu`
 * is this engine's index in it.  NULL: no ID exists.  The topology must stay
 * alive until it is replaced.  Under the big lock. */
void viommu_engine_set_topology(ViommuEngine *engine,
                                const ViommuTopology *topology,
                                uint32_t iommu) VIOMMU_NOEXCEPT;

/* The smallest of `page_sizes` (a bit mask; 0: any) becomes the granule, if it is
 * larger: an assigned device's IOMMU on the host has no smaller pages.  CFG-1, GEN-8.
 * Under the big lock, before the guest runs. */
void viommu_engine_raise_granule(ViommuEngine *engine,
                                 uint64_t page_sizes) VIOMMU_NOEXCEPT;

/* The features the driver accepted (FEATURES_OK), 0 before and after reset. */
void viommu_engine_set_features(ViommuEngine *engine,
                                uint64_t negotiated) VIOMMU_NOEXCEPT;

/* Whether DRIVER_OK is set.  Faults of an engine that is not live are counted
 * as dropped and never reported (GEN-1). */
void viommu_engine_set_live(ViommuEngine *engine, bool live) VIOMMU_NOEXCEPT;

/* The driver wrote 0 to the status: not live, nothing negotiated, pending faults
 * dropped; `bypass` keeps its value.  Without ViommuEngineConfig.linger that is
 * viommu_engine_device_reset().  With it, the endpoints that were attached stay as
 * they are ("linger"): Linux resets this device at shutdown before the functions
 * behind it are quiet.  No mapping and no attachment is added meanwhile, and what is
 * left ends as in viommu_engine_device_reset() with the next driver
 * (viommu_engine_driver_returns), with a second write of 0, or with any other reset;
 * for single functions, with viommu_engine_forget().  W31, INI-D1, GEN-14. */
void viommu_engine_driver_reset(ViommuEngine *engine) VIOMMU_NOEXCEPT;

/* A driver set FEATURES_OK or DRIVER_OK: nothing of the one before it is left.
 * W5, W31. */
void viommu_engine_driver_returns(ViommuEngine *engine) VIOMMU_NOEXCEPT;

/* Whether endpoints are attached that no driver answers for.  W31. */
bool viommu_engine_lingering(const ViommuEngine *engine) VIOMMU_NOEXCEPT;

/* Reset of the device by its bus: every endpoint unattached, every domain gone,
 * pending faults dropped, not live, nothing negotiated; `bypass` keeps its value.
 * INI-D1, CFG-4, GEN-5, GEN-14. */
void viommu_engine_device_reset(ViommuEngine *engine) VIOMMU_NOEXCEPT;

/* System reset: as above, and `bypass` is boot_bypass again.  CFG-5. */
void viommu_engine_system_reset(ViommuEngine *engine) VIOMMU_NOEXCEPT;

/* Fills the specification's config space.  GEN-6, GEN-8. */
void viommu_engine_read_config(const ViommuEngine *engine,
                               uint8_t config[VIOMMU_CONFIG_SIZE]) VIOMMU_NOEXCEPT;

/* The driver wrote `value` to the `bypass` byte.  Returns true if it took
 * effect and changed the value; a value other than 0 and 1, or a write without
 * BYPASS_CONFIG negotiated, changes nothing.  CFG-6, CFG-D1, BYP-4. */
bool viommu_engine_write_bypass(ViommuEngine *engine, uint8_t value) VIOMMU_NOEXCEPT;

bool viommu_engine_bypass(const ViommuEngine *engine) VIOMMU_NOEXCEPT;

/* One request: the readable part as copied out of guest memory, once; the
 * length of the whole writable part; and, on return, what to write at the
 * start of the writable part. */
typedef struct ViommuRequest {
    const uint8_t *in; /* at most VIOMMU_REQUEST_MAX bytes are looked at */
    size_t in_size;
    uint8_t *out;      /* room for viommu_engine_reply_max() bytes */
    size_t writable;   /* length of the guest's writable part */
    size_t used;       /* returned: bytes of `out` to write and to report */
} ViommuRequest;

/* The most that a reply takes: probe_size + 4. */
size_t viommu_engine_reply_max(const ViommuEngine *engine) VIOMMU_NOEXCEPT;

/* Applies a request: it is parsed, validated, then committed; a refused one
 * changes nothing.  Used length 0 means the chain goes back unwritten (OPS-2,
 * OPS-D1, PRB-3).  Returns true if listeners were told or the memory topology
 * was switched, which takes as long as they take (W24).  Under the big lock. */
bool viommu_engine_handle(ViommuEngine *engine,
                          ViommuRequest *request) VIOMMU_NOEXCEPT;

/* What a request that was handled asked for, and what came of it: for those who
 * look on.  Fields that a request of its type does not have are 0. */
typedef struct ViommuRequestView {
    uint8_t type;        /* VIOMMU_T_*; 0: of no type that there is, or too short */
    uint32_t domain;
    uint32_t endpoint;
    uint32_t flags;
    uint64_t first;      /* IOVAs, both inclusive */
    uint64_t last;
    uint64_t phys;
    const char *status;  /* as the specification names it, without VIRTIO_IOMMU_S_;
                            "unanswered" where the chain goes back unwritten */
    bool drivers_fault;  /* the driver broke a rule, or asked for what there is not */
} ViommuRequestView;

/* Any thread. */
void viommu_request_view(const ViommuRequest *request,
                         ViommuRequestView *out) VIOMMU_NOEXCEPT;

/* Takes the oldest pending fault as a wire record; false if there is none.
 * Under the big lock.  FLT-1..FLT-6. */
bool viommu_engine_pop_fault(ViommuEngine *engine,
                             uint8_t record[VIOMMU_FAULT_RECORD_SIZE]) VIOMMU_NOEXCEPT;

/* True if pop_fault has something; drops the records before it, whose endpoints
 * have no ID now.  Calls endpoint_id() back.  Under the big lock.  FLT-3. */
bool viommu_engine_fault_ready(ViommuEngine *engine) VIOMMU_NOEXCEPT;

typedef struct ViommuStats {
    uint64_t translations; /* accesses that were given an address */
    uint64_t faults;       /* accesses that were refused */
    uint64_t faults_coalesced;
    uint64_t faults_dropped;
    uint64_t requests;
    uint64_t requests_refused; /* status other than OK, or not answered */
    uint64_t mappings;     /* live now */
    uint64_t domains;      /* live now */
    uint64_t memory;       /* bytes that they take, see max_memory */
    uint64_t remembered;   /* bytes that threads have to remember translations in,
                              at most; limited for each engine */
    bool lingering;        /* see viommu_engine_lingering() */
} ViommuStats;

void viommu_engine_stats(const ViommuEngine *engine, ViommuStats *out) VIOMMU_NOEXCEPT;

/* ------------------------------------------------------------------ */
/* Endpoints                                                           */

/* A DMA requester with an address space of its own.  `opaque` is handed to
 * callbacks.  `regions` are reserved for this endpoint beyond the engine's
 * (copied, merged).  NULL if out of memory, or if the regions cannot be told to
 * the guest: ill-formed, more than PROBE has room for, or more than one for MSIs
 * (PRB-D1, RSV-2).  Starts unattached.  Under the big lock; makes no callback:
 * ask viommu_endpoint_translating() for the initial state. */
ViommuEndpoint *viommu_endpoint_new(ViommuEngine *engine, void *opaque,
                                    const ViommuRegion *regions,
                                    size_t region_count) VIOMMU_NOEXCEPT;

/* An assigned device, and what its IOMMU on the host can do. */
typedef struct ViommuHostDevice {
    const char *name;          /* for messages */
    const ViommuRange *usable; /* IOVAs that can be mapped; in any order */
    size_t usable_count;       /* 0: all */
    uint64_t page_sizes;       /* bit mask; 0: any */
} ViommuHostDevice;

/* These are all the assigned devices that do DMA as `endpoint`: what any of them
 * cannot use is reserved for it from now on, in place of what was so before, and
 * yields to the engine's regions.  False, with one sentence that names the device,
 * and nothing changes, if the granule is too small for one of them, if the guest
 * has mapped already what it cannot use, or if the regions cannot be told to the
 * guest.  PRB-D1, RSV-2, RSV-4, ATT-9, W27.  Under the big lock; no callback but
 * defer(). */
bool viommu_endpoint_set_hosts(ViommuEndpoint *endpoint,
                               const ViommuHostDevice *hosts, size_t count,
                               char *error, size_t error_size) VIOMMU_NOEXCEPT;

/* The function is going away: detaches the endpoint and makes every further
 * translation fail.  Calls set_translating if it changes, then no callback for
 * this endpoint any more.  Under the big lock. */
void viommu_endpoint_retire(ViommuEndpoint *endpoint) VIOMMU_NOEXCEPT;

/* Frees a retired endpoint.  Under the big lock, when no thread can be inside
 * viommu_endpoint_translate() for it. */
void viommu_endpoint_free(ViommuEndpoint *endpoint) VIOMMU_NOEXCEPT;

/* These functions are gone or disabled, all at once.  An endpoint of the engine
 * is detached when none of the members that were attached remains; one switch
 * does for all.  Endpoints of other engines are left alone.  Under the big lock. */
void viommu_engine_forget(ViommuEngine *engine, const ViommuIdentity *gone,
                          size_t count) VIOMMU_NOEXCEPT;

/* True if accesses must go through viommu_endpoint_translate(); false if the
 * endpoint bypasses.  BYP-1, BYP-2.  Under the big lock. */
bool viommu_endpoint_translating(const ViommuEndpoint *endpoint) VIOMMU_NOEXCEPT;

/* Which notifications somebody listens for; one listener may want both.  Under
 * the big lock; may be called from inside begin_switch..commit_switch. */
void viommu_endpoint_set_listeners(ViommuEndpoint *endpoint, bool map,
                                   bool unmap) VIOMMU_NOEXCEPT;

/* Calls `visit` with all that notify_map() would have told a listener that had
 * always been there, in IOVA order, for one that is new.  Under the big lock; may
 * be called from inside begin_switch..commit_switch; `visit` must not call the
 * engine.  It is false if the listener could not follow, as notify_map(). */
typedef bool (*ViommuMappingVisitor)(void *ctx, uint64_t iova, uint64_t mask,
                                     uint64_t phys, uint32_t rights);
void viommu_endpoint_replay(ViommuEndpoint *endpoint, ViommuMappingVisitor visit,
                            void *ctx) VIOMMU_NOEXCEPT;

typedef struct ViommuTranslation {
    uint64_t phys;     /* guest-physical address that `iova` leads to */
    uint64_t mask;     /* size - 1 of the aligned block around `iova` for which
                          the same offset and rights hold: the largest power of
                          two inside the mapping, aligned at the IOVA and
                          congruent with the physical address; 0 on a fault */
    uint32_t rights;   /* VIOMMU_READ | VIOMMU_WRITE of the whole block */
    bool fault_queued; /* a record was queued: the caller arranges delivery */
} ViommuTranslation;

/* Looks `iova` up.  `access` is VIOMMU_READ, VIOMMU_WRITE, both, or 0 for a
 * look-up that is no access (never faults, never counts).  If the mapping does
 * not give all of `access`, `rights` is 0.  An endpoint that bypasses gets the
 * identity with all rights, an MSI region the identity with VIOMMU_WRITE alone.
 * Any thread; no callback.  MAP-6, OPS-5, BYP-1,
 * BYP-2, DET-4, RSV-5, FLT-D1, FLT-D3. */
void viommu_endpoint_translate(ViommuEndpoint *endpoint, uint64_t iova,
                               uint32_t access, ViommuTranslation *out) VIOMMU_NOEXCEPT;

typedef struct ViommuEndpointStats {
    bool attached;
    bool bypass;         /* attached to a BYPASS domain */
    uint32_t domain;     /* valid if attached */
    uint64_t translations;
    uint64_t faults;
} ViommuEndpointStats;

void viommu_endpoint_stats(const ViommuEndpoint *endpoint,
                           ViommuEndpointStats *out) VIOMMU_NOEXCEPT;

/* ------------------------------------------------------------------ */
/* Migration: the byte form that QEMU's own device uses                */

/* Returns false when the stream cannot take or give the bytes. */
typedef bool (*ViommuPut)(void *ctx, const uint8_t *bytes, size_t size);
typedef bool (*ViommuGet)(void *ctx, uint8_t *bytes, size_t size);

/* Writes domains, mappings, attachments (by the IDs that are right now) and
 * the bypass byte.  Endpoints that linger are written as members of one domain
 * without mappings: wherever they arrive, they reach no more than here.  Under the
 * big lock.  False if `put` failed, or if an attached endpoint has no ID right now:
 * left out, it could arrive bypassing.  W31. */
bool viommu_engine_save(ViommuEngine *engine, ViommuPut put, void *ctx) VIOMMU_NOEXCEPT;

/* Reads what viommu_engine_save() wrote into a staging area, checking every
 * value; the engine's state does not change yet.  On failure returns false and
 * one sentence in `error`.  Under the big lock. */
bool viommu_engine_load(ViommuEngine *engine, ViommuGet get, void *ctx,
                        char *error, size_t error_size) VIOMMU_NOEXCEPT;

/* Puts the staged state in force, replacing all there was; IDs are resolved
 * now.  `driven`: the device's status came with FEATURES_OK or DRIVER_OK; if it did
 * not, what is attached lingers, or is dropped without ViommuEngineConfig.linger.
 * On failure (an endpoint that does not exist here, ...) the engine is as after a
 * device reset.  Under the big lock.  W4, W31. */
bool viommu_engine_load_commit(ViommuEngine *engine, bool driven, char *error,
                               size_t error_size) VIOMMU_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif /* VIOMMU_ENGINE_H */
