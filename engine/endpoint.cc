// SPDX-License-Identifier: GPL-2.0-or-later
#include "endpoint.h"

#include "mapping/blocks.h"
#include "mapping/nodes.h"

#include <utility>

namespace viommu
{

namespace
{

constexpr uint32_t kAllRights = VIOMMU_READ | VIOMMU_WRITE;

} // namespace

static_assert(wire::kMapRead == VIOMMU_READ && wire::kMapWrite == VIOMMU_WRITE &&
                  wire::kFaultRead == VIOMMU_READ && wire::kFaultWrite == VIOMMU_WRITE,
              "rights, MAP flags and fault flags share their bits");

// The entry in the table of domains and the list of endpoints are on top of it.
const size_t Domain::kMemory = sizeof(Domain) + 128;

Endpoint::Endpoint(Engine &owner, Shared &shared_state, void *endpoint_opaque,
                   std::unique_ptr<RegionList> reserved)
    : engine(owner), shared(shared_state), opaque(endpoint_opaque), fault_source(endpoint_opaque),
      caches_(shared.cache_store)
{
    // Now that nothing can be thrown any more.
    region_list.store(reserved.release(), std::memory_order_relaxed);
}

Endpoint::~Endpoint()
{
    delete region_list.load(std::memory_order_relaxed);
}

// W20: every decision about one access is made here.
wire::Reason Endpoint::look_up(uint64_t iova, MappingSet::Stamp &stamp,
                               ViommuTranslation &out) const
{
    const auto answer = [&out](uint64_t phys, uint64_t mask, uint32_t rights, wire::Reason reason) {
        out.phys = phys;
        out.mask = mask;
        out.rights = rights;
        return reason;
    };
    const auto bypass = [&] { return answer(iova, UINT64_MAX, kAllRights, wire::Reason::Unknown); };
    const auto nothing = [&](wire::Reason reason) { return answer(0, 0, 0, reason); };

    if (retired.load(std::memory_order_acquire)) {
        return nothing(wire::Reason::Domain); // W18
    }
    const Domain *const here = domain.load(std::memory_order_acquire);
    if (!here) {
        return shared.bypass.load(std::memory_order_acquire)
                   ? bypass()
                   : nothing(wire::Reason::Domain); // BYP-1, OPS-5
    }
    if (here->bypass) {
        return bypass(); // BYP-2
    }
    const Regions &regions = region_list.load(std::memory_order_acquire)->regions;
    if (const ViommuRegion *region = find_region(regions, iova)) {
        // RSV-5: an interrupt is a write; a read would show an interrupt controller's registers.
        return region->subtype == VIOMMU_RESV_MSI
                   ? answer(iova, block_mask(iova, region->start, region->last, 0), VIOMMU_WRITE,
                            wire::Reason::Mapping)
                   : nothing(wire::Reason::Mapping);
    }
    const std::optional<Mapping> mapping = here->mappings.find(iova, stamp);
    if (!mapping) {
        return nothing(wire::Reason::Mapping);
    }
    return answer(mapping->phys + (iova - mapping->iova),
                  block_mask(iova, mapping->iova, mapping->last, mapping->iova - mapping->phys),
                  mapping->rights(), wire::Reason::Mapping);
}

wire::Reason Endpoint::look_up(uint64_t iova, ThreadCache *cache, ViommuTranslation &out) const
{
    MappingSet::Stamp nowhere{};
    Hit *const hit = cache ? &cache->hit(iova) : nullptr;
    MappingSet::Stamp &stamp = hit ? hit->stamp : nowhere;
    if (hit) {
        hit->attachments = Hit::kNone;
    }

    // Without the version an answer could mix the attachment of one moment with
    // the bypass bit or the mappings of another.
    const SequenceCounter &attachments_now = shared.attachments;
    wire::Reason reason;
    uint64_t noted;
    do {
        noted = attachments_now.note();
        stamp.leaf = nullptr;
        reason = look_up(iova, stamp, out);
    } while (!attachments_now.unchanged(noted));

    if (hit && stamp.leaf && injection.left() == 0) {
        hit->base = iova & ~out.mask;
        hit->mask = out.mask;
        hit->phys = out.phys & ~out.mask;
        hit->rights = out.rights;
        hit->attachments = noted;
    }
    return reason;
}

// Whether the cache knows the answer, and it holds still.
inline bool Endpoint::recall(const ThreadCache &cache, uint64_t iova, ViommuTranslation &out) const
{
    const Hit &hit = cache.hit(iova);
    if ((iova & ~hit.mask) != hit.base) {
        return false;
    }
    // In this order: if the attachments have the version of then, the domain is the one
    // of then, too.  Versions only grow, so all that compares was so at the moment
    // when the first was read.
    const Domain *const here = domain.load(std::memory_order_acquire);
    if (shared.attachments.peek() != hit.attachments || !here->mappings.holds(hit.stamp)) {
        return false;
    }
    out.phys = hit.phys + (iova & hit.mask);
    out.mask = hit.mask;
    out.rights = hit.rights;
    return true;
}

void Endpoint::translate_anew(uint64_t iova, uint32_t access, ThreadCache *cache,
                              ViommuTranslation &out)
{
    wire::Reason reason = look_up(iova, cache, out);
    if (const auto injected = access != 0 ? injection.take() : std::nullopt) {
        reason = *injected;
        out.rights = 0;
    }
    const uint32_t refused = access & ~out.rights; // MAP-6
    out.fault_queued = false;
    if (refused == 0) {
        if (access != 0) {
            cache ? cache->count_translation() : caches_.count_translation();
        }
        return;
    }
    cache ? cache->count_fault() : caches_.count_fault();
    out.phys = out.mask = 0;
    out.rights = 0;
    out.fault_queued = shared.faults.report(fault_source, iova, reason, refused);
}

// Every value is written once, where it stays: to copy what was just written in
// parts makes the processor wait, longer than the rest of it takes.
inline void Endpoint::translate(uint64_t iova, uint32_t access, ViommuTranslation &out)
{
    access &= kAllRights;
    ThreadCache *const cache = caches_.mine();
    if (!cache || !recall(*cache, iova, out) || (access & ~out.rights) != 0) {
        translate_anew(iova, access, cache, out);
        return;
    }
    if (access != 0) {
        cache->count_translation();
    }
    out.fault_queued = false;
}

} // namespace viommu

// Here, so that an answer which is remembered costs no further call.
void viommu_endpoint_translate(ViommuEndpoint *endpoint, uint64_t iova, uint32_t access,
                               ViommuTranslation *out) noexcept
{
    endpoint->translate(iova, access, *out);
}
