// SPDX-License-Identifier: GPL-2.0-or-later
//
// Domains and endpoints: which mappings an endpoint's DMA goes through.
//
// An endpoint is one requester ID, a DMA address space.  It points to the
// domain it is attached to; a domain exists as long as an endpoint does so.
#pragma once

#include "faults.h"
#include "injection.h"
#include "locks.h"
#include "regions.h"
#include "shared.h"
#include "thread_cache.h"

#include "base/atomic.h"
#include "mapping/mapping_set.h"

#include <viommu/engine.h>
#include <viommu/inspect.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace viommu
{

class Engine;
class Endpoint;

class Domain : public ViommuDeferred
{
public:
    Domain(uint32_t domain_id, bool is_bypass, Reclaimer &reclaimer,
           MappingSet &&initial = MappingSet())
        : ViommuDeferred{{}, free_deferred}, id(domain_id), bypass(is_bypass),
          mappings(std::move(initial))
    {
        mappings.set_reclaimer(&reclaimer);
    }

    const uint32_t id;
    const bool bypass;
    // find() is for any thread that is in translate(), the rest for the big lock.
    MappingSet mappings;
    std::vector<Endpoint *> endpoints VIOMMU_GUARDED_BY(big_lock);

    // Bytes that it costs, about, without its mappings.
    static const size_t kMemory;
    size_t memory() const { return kMemory + mappings.memory(); }

private:
    static bool free_deferred(ViommuDeferred *object)
    {
        delete static_cast<Domain *>(object);
        return false;
    }
};

// Readers may be looking at a domain, so it is freed through the Reclaimer.  Its mappings
// are deferred on their own: they may be many.
struct DeferDomain {
    Reclaimer *reclaimer;

    void operator()(Domain *domain) const
    {
        domain->mappings.clear();
        reclaimer->defer(*domain);
    }
};
using DomainPtr = std::unique_ptr<Domain, DeferDomain>;

// The reserved regions of an endpoint; readers may have an old list in hand.
struct RegionList : ViommuDeferred {
    RegionList(Regions &&merged, bool beyond_engines)
        : ViommuDeferred{{}, free_deferred}, regions(std::move(merged)), own(beyond_engines)
    {
    }

    const Regions regions; // the engine's and its own, merged
    const bool own;        // there are regions beyond the engine's

private:
    static bool free_deferred(ViommuDeferred *remains)
    {
        delete static_cast<RegionList *>(remains);
        return false;
    }
};

class Endpoint
{
public:
    Endpoint(Engine &owner, Shared &shared_state, void *endpoint_opaque,
             std::unique_ptr<RegionList> reserved);
    ~Endpoint();
    Endpoint(const Endpoint &) = delete;
    Endpoint &operator=(const Endpoint &) = delete;

    // Any thread, in a read-side critical section.
    inline void translate(uint64_t iova, uint32_t access, ViommuTranslation &out);

    // For the writer, who alone changes them.
    Domain *stable_domain() const VIOMMU_REQUIRES(big_lock)
    {
        return domain.load(std::memory_order_relaxed);
    }
    const Regions &stable_regions() const VIOMMU_REQUIRES(big_lock)
    {
        return region_list.load(std::memory_order_relaxed)->regions;
    }
    bool own_regions() const VIOMMU_REQUIRES(big_lock)
    {
        return region_list.load(std::memory_order_relaxed)->own;
    }
    bool stable_retired() const VIOMMU_REQUIRES(big_lock)
    {
        return retired.load(std::memory_order_relaxed);
    }

    Engine &engine;
    Shared &shared; // the engine's
    void *const opaque;
    FaultSource fault_source;

    // Not null.
    Atomic<RegionList *> region_list{nullptr};

    // Changed between the two halves of an AttachmentChange only.
    Atomic<Domain *> domain{nullptr};
    Atomic<bool> retired{false};

    // Of its accesses; armed between the two halves of an AttachmentChange.
    AccessInjection injection;

    // The functions behind this requester ID whose ATTACH put it where it is;
    // empty exactly if it is unattached.
    std::vector<uintptr_t> members VIOMMU_GUARDED_BY(big_lock);

    bool map_listener VIOMMU_GUARDED_BY(big_lock) = false;
    bool unmap_listener VIOMMU_GUARDED_BY(big_lock) = false;

    // What QEMU was told last, and what Engine::tell_and_switch() has yet to tell.
    bool translating VIOMMU_GUARDED_BY(big_lock) = false;
    const Domain *left VIOMMU_GUARDED_BY(big_lock) = nullptr; // had mappings
    bool entered_translation VIOMMU_GUARDED_BY(big_lock) = false;
    bool entered_mappings VIOMMU_GUARDED_BY(big_lock) = false;

    // A listener lacks something of its domain: it could not follow.
    bool behind VIOMMU_GUARDED_BY(big_lock) = false;

    // Views: inspect.cc.  See viommu/inspect.h.
    ViommuEndpointView view() VIOMMU_REQUIRES(big_lock);
    ViommuLook look(uint64_t iova) const VIOMMU_REQUIRES(big_lock);

    Counts counts() const VIOMMU_REQUIRES(big_lock) { return caches_.counts(); }
    // The endpoint has left its domain: nothing in the caches of its threads is of use.
    void drop_caches(ThreadCache *&list) VIOMMU_REQUIRES(big_lock) { caches_.drop(list); }

private:
    // What is at `iova`, in `out` but for its last member, and the reason to refuse
    // what exceeds the rights.
    wire::Reason look_up(uint64_t iova, MappingSet::Stamp &stamp, ViommuTranslation &out) const;
    wire::Reason look_up(uint64_t iova, ThreadCache *cache, ViommuTranslation &out) const;
    inline bool recall(const ThreadCache &cache, uint64_t iova, ViommuTranslation &out) const;
    void translate_anew(uint64_t iova, uint32_t access, ThreadCache *cache, ViommuTranslation &out);

    ThreadCaches caches_;
};

} // namespace viommu

// The handles of the C boundary.
struct ViommuEndpoint final : viommu::Endpoint {
    using Endpoint::Endpoint;
};
