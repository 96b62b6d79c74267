// SPDX-License-Identifier: GPL-2.0-or-later
//
// Domains and endpoints: who translates through what.
//
// An endpoint is one requester ID, a DMA address space.  It points to the
// domain it is attached to; a domain exists as long as an endpoint does so.
#pragma once

#include "faults.h"
#include "locks.h"
#include "mapping_set.h"
#include "regions.h"

#include <viommu/viommu.h>

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

namespace viommu
{

class Engine;
class Endpoint;

class Domain
{
public:
    Domain(uint32_t domain_id, bool is_bypass, MappingSet initial = {})
        : id(domain_id), bypass(is_bypass), mappings(std::move(initial))
    {
    }

    // For readers; whoever changes a mapping also holds the data lock.
    const MappingSet &stable_mappings() const
        VIOMMU_REQUIRES(big_lock) VIOMMU_NO_THREAD_SAFETY_ANALYSIS
    {
        return mappings;
    }

    const uint32_t id;
    const bool bypass;
    MappingSet mappings VIOMMU_GUARDED_BY(data_lock);
    std::vector<Endpoint *> endpoints VIOMMU_GUARDED_BY(big_lock);
};

class Endpoint
{
public:
    Endpoint(Engine &owner, void *endpoint_opaque, Regions merged, bool has_own_regions);

    // Any thread.
    ViommuTranslation translate(uint64_t iova, uint32_t access) VIOMMU_EXCLUDES(data_lock);

    // For readers; whoever changes these also holds the data lock.
    Domain *stable_domain() const VIOMMU_REQUIRES(big_lock) VIOMMU_NO_THREAD_SAFETY_ANALYSIS
    {
        return domain;
    }
    bool stable_retired() const VIOMMU_REQUIRES(big_lock) VIOMMU_NO_THREAD_SAFETY_ANALYSIS
    {
        return retired;
    }

    Engine &engine;
    void *const opaque;
    const Regions regions;  // the engine's and its own, merged
    const bool own_regions; // there are regions beyond the engine's
    FaultSource fault_source;

    Domain *domain VIOMMU_GUARDED_BY(data_lock) = nullptr;
    bool retired VIOMMU_GUARDED_BY(data_lock) = false;

    // The functions behind this requester ID whose ATTACH put it where it is;
    // empty exactly if it is unattached.
    std::vector<uintptr_t> members VIOMMU_GUARDED_BY(big_lock);

    bool map_listener VIOMMU_GUARDED_BY(big_lock) = false;
    bool unmap_listener VIOMMU_GUARDED_BY(big_lock) = false;

    // What QEMU was last told, and what Engine::settle() still has to tell.
    bool translating VIOMMU_GUARDED_BY(big_lock) = false;
    bool left_mappings VIOMMU_GUARDED_BY(big_lock) = false;
    bool entered_translation VIOMMU_GUARDED_BY(big_lock) = false;
    bool entered_mappings VIOMMU_GUARDED_BY(big_lock) = false;

    std::atomic<uint64_t> translations{0};
    std::atomic<uint64_t> faults{0};

private:
    struct Answer {
        uint64_t phys;
        uint64_t mask;
        uint32_t rights;
        wire::Reason reason; // of a refusal
    };

    Answer look_up(uint64_t iova) const VIOMMU_REQUIRES_SHARED(data_lock);
};

} // namespace viommu

// The handles of the C boundary.
struct ViommuEndpoint final : viommu::Endpoint {
    using Endpoint::Endpoint;
};
