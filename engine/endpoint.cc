// SPDX-License-Identifier: GPL-2.0-or-later
#include "endpoint.h"

#include "engine.h"

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

Endpoint::Endpoint(Engine &owner, void *endpoint_opaque, Regions merged, bool has_own_regions)
    : engine(owner), opaque(endpoint_opaque), regions(std::move(merged)),
      own_regions(has_own_regions), fault_source(endpoint_opaque)
{
}

// W20: every decision about one access is made here.
Endpoint::Answer Endpoint::look_up(uint64_t iova, MappingSet::Sighting &sighting) const
{
    const Answer identity{iova, UINT64_MAX, kAllRights, wire::Reason::Unknown};
    const Answer no_domain{0, 0, 0, wire::Reason::Domain};
    const Answer no_mapping{0, 0, 0, wire::Reason::Mapping};

    if (retired.load(std::memory_order_acquire)) {
        return no_domain; // W18
    }
    const Domain *const here = domain.load(std::memory_order_acquire);
    if (!here) {
        return engine.bypass_for_lookup() ? identity : no_domain; // BYP-1, OPS-5
    }
    if (here->bypass) {
        return identity; // BYP-2
    }
    if (const ViommuRegion *region = find_region(regions, iova)) {
        if (region->subtype != VIOMMU_RESV_MSI) {
            return no_mapping; // RSV-5
        }
        return Answer{iova, block_mask(iova, region->start, region->last, 0), kAllRights,
                      wire::Reason::Unknown};
    }
    const std::optional<Mapping> mapping = here->mappings.find(iova, sighting);
    if (!mapping) {
        return no_mapping;
    }
    return Answer{mapping->phys + (iova - mapping->iova),
                  block_mask(iova, mapping->iova, mapping->last, mapping->iova - mapping->phys),
                  mapping->rights(), wire::Reason::Mapping};
}

Endpoint::Answer Endpoint::look_up(uint64_t iova, Lane *lane) const
{
    // Without the version an answer could mix the attachment of one moment with
    // the bypass bit or the mappings of another.
    const RouteVersion &version = engine.route_version();
    MappingSet::Sighting sighting;
    Answer answer;
    uint64_t noted;
    do {
        noted = version.note();
        sighting.leaf = nullptr;
        answer = look_up(iova, sighting);
    } while (!version.unchanged(noted));

    if (lane && sighting.leaf) {
        const uint64_t base = iova & ~answer.mask;
        lane->hit(iova) =
            Hit{noted, base, answer.mask, answer.phys & ~answer.mask, sighting, answer.rights};
    }
    return answer;
}

// Whether the lane knows the answer, and it holds still.
bool Endpoint::recall(Lane &lane, uint64_t iova, Answer &answer) const
{
    const Hit &hit = lane.hit(iova);
    if ((iova & ~hit.mask) != hit.base) {
        return false;
    }
    // In this order: if the routes have the version of then, the domain is the one
    // of then, too.  Versions only grow, so all that compares was so at the moment
    // when the first was read.
    const Domain *const here = domain.load(std::memory_order_acquire);
    if (engine.route_version().peek() != hit.route || !here->mappings.holds(hit.sighting)) {
        return false;
    }
    answer = Answer{hit.phys + (iova & hit.mask), hit.mask, hit.rights, wire::Reason::Mapping};
    return true;
}

ViommuTranslation Endpoint::translate(uint64_t iova, uint32_t access)
{
    Lane *const lane = lanes_.mine();
    Answer answer;
    if (!lane || !recall(*lane, iova, answer)) {
        answer = look_up(iova, lane);
    }

    access &= kAllRights;
    const uint32_t refused = access & ~answer.rights; // MAP-6
    if (refused == 0) {
        if (access != 0) {
            lane ? lane->count_translation() : lanes_.count_translation();
        }
        return ViommuTranslation{answer.phys, answer.mask, answer.rights, false};
    }
    lane ? lane->count_fault() : lanes_.count_fault();
    const bool queued = engine.fault_queue().report(fault_source, iova, answer.reason, refused);
    return ViommuTranslation{0, 0, 0, queued};
}

} // namespace viommu
