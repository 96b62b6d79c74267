// SPDX-License-Identifier: GPL-2.0-or-later
//
// What users see of a running device: pages of bounded size, look-ups that are no accesses.
#include "engine.h"
#include "request_view.h"

#include "base/error.h"

#include <algorithm>
#include <string>

namespace viommu
{

namespace
{

static_assert(VIOMMU_REQUEST_COUNTS == (wire::kTypes + 1) * (wire::kStatuses + 1));

const char *reason_name(wire::Reason reason)
{
    switch (reason) {
    case wire::Reason::Domain:
        return "domain";
    case wire::Reason::Mapping:
        return "mapping";
    case wire::Reason::Unknown:
        break;
    }
    return "unknown";
}

ViommuFaultCounts counts_of(const FaultTally &tally)
{
    return {tally.count(wire::Reason::Domain), tally.count(wire::Reason::Mapping)};
}

} // namespace

ViommuSettingsView Engine::settings() const
{
    ViommuSettingsView view{};
    view.offered_features = settings_.offered;
    view.negotiated_features = negotiated_;
    view.page_size_mask = settings_.page_size_mask;
    view.granule = settings_.granule();
    view.input_start = settings_.input_start;
    view.input_last = settings_.input_last;
    view.domain_first = settings_.domain_first;
    view.domain_last = settings_.domain_last;
    view.max_mappings = settings_.max_mappings;
    view.max_domains = settings_.max_domains;
    view.max_memory = settings_.max_memory;
    view.boot_bypass = settings_.boot_bypass;
    view.bypass = bypass();
    return view;
}

void Engine::count_answer(uint8_t type, const Answered &answered)
{
    const size_t row = type <= wire::kTypes ? type : 0;
    const size_t column =
        answered.used == 0 ? wire::kStatuses : static_cast<size_t>(answered.status);
    answers_[row][column]++;
}

size_t Engine::request_counts(std::span<ViommuRequestCount, VIOMMU_REQUEST_COUNTS> out) const
{
    size_t count = 0;
    for (size_t type = 0; type < answers_.size(); type++) {
        for (size_t status = 0; status < answers_[type].size(); status++) {
            if (const uint64_t times = answers_[type][status]; times != 0) {
                const char *const name = status == wire::kStatuses
                                             ? kUnanswered
                                             : name_of(static_cast<wire::Status>(status));
                out[count++] = {type_name(static_cast<uint8_t>(type)), name, times};
            }
        }
    }
    return count;
}

ViommuFaultCounts Engine::fault_counts()
{
    return counts_of(shared_.faults.tally());
}

bool Engine::domains_from(uint32_t first, std::span<ViommuDomainView> out, size_t &count) const
{
    count = 0;
    auto entry = domains_.lower_bound(first);
    for (; entry != domains_.end() && count < out.size(); ++entry) {
        const Domain &domain = *entry->second;
        out[count++] = {domain.id, domain.bypass, domain.mappings.size(), domain.memory(),
                        domain.endpoints.size()};
    }
    return entry != domains_.end();
}

std::span<Endpoint *const> Engine::endpoints_in(uint32_t id) const
{
    const Domain *const domain = find_domain(id);
    return domain ? std::span<Endpoint *const>(domain->endpoints) : std::span<Endpoint *const>();
}

ViommuMappingPage Engine::mappings_from(uint32_t id, uint64_t iova,
                                        std::span<ViommuMappingView> out) const
{
    const Domain *const domain = find_domain(id);
    if (!domain) {
        throw Refusal("there is no domain " + std::to_string(id));
    }
    const MappingSet &mappings = domain->mappings;
    ViommuMappingPage page{};
    auto mapping = mappings.find(iova);
    if (!mapping) {
        mapping = mappings.next(iova);
    }
    for (; mapping && page.count < out.size(); mapping = mappings.after(*mapping)) {
        out[page.count++] = {mapping->iova, mapping->last, mapping->phys, mapping->flags};
    }
    page.more = mapping.has_value();
    page.next = mapping ? mapping->iova : 0;
    return page;
}

ViommuEndpoint *Engine::endpoint_of(uint32_t id) const
{
    const std::optional<ViommuIdentity> who = resolve(id);
    return who ? who->endpoint : nullptr;
}

ViommuEndpointView Endpoint::view()
{
    ViommuEndpointView view{};
    const Domain *const here = stable_domain();
    const Counts counted = counts();
    const FaultTally tally = shared.faults.tally(fault_source);
    view.mode = !here ? "unattached" : here->bypass ? "bypass" : "translating";
    view.attached = here != nullptr;
    view.bypasses = !engine.must_translate(*this);
    view.domain = here ? here->id : 0;
    view.translations = counted.translations;
    view.faults = counted.faults;
    view.faults_by_reason = counts_of(tally);
    if (tally.directions != 0) {
        view.last_fault = reason_name(tally.reason);
        view.last_fault_address = tally.address;
        view.last_fault_access = tally.directions;
    }
    return view;
}

// What an access gets is decided where accesses are; here is only what to call it.
ViommuLook Endpoint::look(uint64_t iova) const
{
    ViommuTranslation answer{};
    const wire::Reason reason = look_up(iova, nullptr, answer);
    const ViommuRegion *const region = find_region(stable_regions(), iova);
    ViommuLook out{};
    if (!engine.must_translate(*this)) {
        out.found = "bypass";
    } else if (reason == wire::Reason::Domain) {
        out.found = "unattached";
    } else if (region) {
        out.found = region->subtype == VIOMMU_RESV_MSI ? "msi" : "reserved";
    } else {
        // A mapping without rights is one, too: it has a block.
        out.found =
            answer.rights != 0 || stable_domain()->mappings.find(iova) ? "mapping" : "unmapped";
    }
    out.rights = answer.rights;
    if (answer.rights != 0) {
        out.phys = answer.phys;
        out.first = iova & ~answer.mask;
        out.last = iova | answer.mask;
    }
    return out;
}

} // namespace viommu

using viommu::at_boundary;
using viommu::big_lock;

const char *viommu_rights_name(uint32_t rights) noexcept
{
    static constexpr std::array<const char *, 4> kNames{"none", "r", "w", "rw"};
    static_assert(VIOMMU_READ == 1 && VIOMMU_WRITE == 2);
    const char *const name = kNames[rights & (VIOMMU_READ | VIOMMU_WRITE)];
    return name;
}

void viommu_engine_settings(const ViommuEngine *engine, ViommuSettingsView *out) noexcept
{
    big_lock.assert_held();
    *out = engine->settings();
}

size_t viommu_engine_request_counts(const ViommuEngine *engine,
                                    ViommuRequestCount out[VIOMMU_REQUEST_COUNTS]) noexcept
{
    big_lock.assert_held();
    return engine->request_counts(
        std::span<ViommuRequestCount, VIOMMU_REQUEST_COUNTS>(out, VIOMMU_REQUEST_COUNTS));
}

void viommu_engine_fault_counts(ViommuEngine *engine, ViommuFaultCounts *out) noexcept
{
    big_lock.assert_held();
    *out = engine->fault_counts();
}

size_t viommu_engine_domains(const ViommuEngine *engine, uint32_t from, ViommuDomainView *out,
                             size_t cap, bool *more) noexcept
{
    big_lock.assert_held();
    size_t count = 0;
    *more = engine->domains_from(from, {out, cap}, count);
    return count;
}

size_t viommu_engine_domain_endpoints(const ViommuEngine *engine, uint32_t domain, void **out,
                                      size_t cap) noexcept
{
    big_lock.assert_held();
    const std::span<viommu::Endpoint *const> endpoints = engine->endpoints_in(domain);
    const size_t count = std::min(cap, endpoints.size());
    std::transform(endpoints.begin(), endpoints.begin() + static_cast<ptrdiff_t>(count), out,
                   [](const viommu::Endpoint *endpoint) { return endpoint->opaque; });
    return count;
}

bool viommu_engine_mappings(const ViommuEngine *engine, uint32_t domain, uint64_t from,
                            ViommuMappingView *out, size_t cap, ViommuMappingPage *page,
                            char *error, size_t error_size) noexcept
{
    return at_boundary(error, error_size, false, [&] {
        big_lock.assert_held();
        *page = engine->mappings_from(domain, from, {out, cap});
        return true;
    });
}

void viommu_endpoint_view(ViommuEndpoint *endpoint, ViommuEndpointView *out) noexcept
{
    big_lock.assert_held();
    *out = endpoint->view();
}

bool viommu_endpoint_has_member(const ViommuEndpoint *endpoint, uintptr_t member) noexcept
{
    big_lock.assert_held();
    return std::find(endpoint->members.begin(), endpoint->members.end(), member) !=
           endpoint->members.end();
}

void viommu_endpoint_look(const ViommuEndpoint *endpoint, uint64_t iova, ViommuLook *out) noexcept
{
    big_lock.assert_held();
    *out = endpoint->look(iova);
}

ViommuEndpoint *viommu_engine_endpoint(ViommuEngine *engine, uint32_t id) noexcept
{
    big_lock.assert_held();
    return engine->endpoint_of(id);
}
