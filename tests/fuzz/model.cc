// SPDX-License-Identifier: GPL-2.0-or-later
#include "model.h"

#include <algorithm>

namespace viommu::fuzz
{

namespace
{

constexpr uint64_t kFeatures = VIOMMU_F_INPUT_RANGE | VIOMMU_F_DOMAIN_RANGE | VIOMMU_F_MAP_UNMAP |
                               VIOMMU_F_PROBE | VIOMMU_F_MMIO | VIOMMU_F_BYPASS_CONFIG;

constexpr uint8_t kReasonDomain = 1;
constexpr uint8_t kReasonMapping = 2;

bool well_formed(std::span<const ViommuRegion> list)
{
    return std::ranges::all_of(list, [](const ViommuRegion &region) {
        return region.start <= region.last && region.subtype <= VIOMMU_RESV_MSI;
    });
}

// PRB-D1, RSV-2
bool can_be_told(const std::vector<RegionRun> &runs, uint32_t probe_size)
{
    const auto msi = std::ranges::count(runs, uint8_t{VIOMMU_RESV_MSI}, &RegionRun::subtype);
    return runs.size() * 24 <= probe_size && msi <= 1;
}

} // namespace

std::vector<ModelMapping> ModelDomain::sorted() const
{
    std::vector<ModelMapping> list = mappings;
    std::ranges::sort(list, {}, &ModelMapping::first);
    return list;
}

std::vector<RegionRun> region_runs(std::span<const ViommuRegion> list)
{
    // Between two of these addresses nothing changes.
    std::set<uint64_t> edges{0};
    for (const ViommuRegion &region : list) {
        edges.insert(region.start);
        if (region.last != UINT64_MAX) {
            edges.insert(region.last + 1);
        }
    }
    std::vector<RegionRun> runs;
    for (auto edge = edges.begin(); edge != edges.end(); ++edge) {
        const uint64_t last = std::next(edge) == edges.end() ? UINT64_MAX : *std::next(edge) - 1;
        const auto covers = [&](const ViommuRegion &region) {
            return region.start <= *edge && *edge <= region.last;
        };
        const auto region = std::ranges::find_if(list, covers);
        if (region == list.end()) {
            continue;
        }
        if (!runs.empty() && runs.back().last + 1 == *edge &&
            runs.back().subtype == region->subtype) {
            runs.back().last = last;
        } else {
            runs.push_back({*edge, last, region->subtype});
        }
    }
    return runs;
}

/* Blocks */

namespace
{

// The part of the block of 2^order bytes at `base` that lies in [first, last].
void cut(uint64_t base, unsigned order, uint64_t first, uint64_t last, uint64_t granule,
         std::vector<std::pair<uint64_t, uint64_t>> &blocks)
{
    const uint64_t end = order == 64 ? UINT64_MAX : base + ((uint64_t{1} << order) - 1);
    if (end < first || base > last) {
        return;
    }
    const bool allowed = order <= 62 && (end != UINT64_MAX || (uint64_t{1} << order) <= granule);
    if (allowed && first <= base && end <= last) {
        blocks.emplace_back(base, end);
        return;
    }
    cut(base, order - 1, first, last, granule, blocks);
    cut(base + (uint64_t{1} << (order - 1)), order - 1, first, last, granule, blocks);
}

} // namespace

std::vector<std::pair<uint64_t, uint64_t>> cut_into_blocks(uint64_t first, uint64_t last,
                                                           uint64_t granule)
{
    std::vector<std::pair<uint64_t, uint64_t>> blocks;
    cut(0, 64, first, last, granule, blocks);
    return blocks;
}

/* The device */

bool Model::config_valid(const ViommuEngineConfig &config)
{
    const std::span<const ViommuRegion> list{config.regions, config.region_count};
    const bool can_bypass =
        config.topology_array || (config.offered_features & VIOMMU_F_BYPASS_CONFIG) != 0;
    return (config.offered_features & ~kFeatures) == 0 && config.page_size_mask != 0 &&
           config.input_start <= config.input_last && config.domain_first <= config.domain_last &&
           config.probe_size >= 512 && config.probe_size % 8 == 0 &&
           (can_bypass || !config.boot_bypass) && well_formed(list) &&
           can_be_told(region_runs(list), config.probe_size);
}

Model::Model(const ViommuEngineConfig &settings)
    : config(settings), regions(settings.regions, settings.regions + settings.region_count),
      bypass(settings.boot_bypass)
{
}

std::optional<size_t> Model::add_endpoint(const std::vector<ViommuRegion> &own)
{
    ModelEndpoint endpoint;
    endpoint.regions = regions;
    endpoint.regions.insert(endpoint.regions.end(), own.begin(), own.end());
    endpoint.runs = region_runs(endpoint.regions);
    if (!well_formed(own) || !can_be_told(endpoint.runs, config.probe_size)) {
        return std::nullopt;
    }
    endpoints.push_back(std::move(endpoint));
    return endpoints.size() - 1;
}

void Model::retire(size_t endpoint)
{
    leave(endpoint);
    endpoints[endpoint].retired = true;
    dropped += std::erase_if(
        pending, [endpoint](const ModelFault &fault) { return fault.endpoint == endpoint; });
}

void Model::free_endpoint(size_t endpoint)
{
    past_translations += std::exchange(endpoints[endpoint].translations, 0);
    past_faults += std::exchange(endpoints[endpoint].faults, 0);
}

void Model::forget_member(size_t endpoint, uintptr_t member)
{
    std::set<uintptr_t> &members = endpoints[endpoint].members;
    if (members.erase(member) != 0 && members.empty()) {
        leave(endpoint);
    }
}

// INI-D1, CFG-4, CFG-5
void Model::reset(bool system)
{
    for (ModelEndpoint &endpoint : endpoints) {
        endpoint.domain.reset();
        endpoint.members.clear();
    }
    domains.clear();
    lingering = false;
    negotiated = 0;
    set_live(false);
    if (system) {
        bypass = config.boot_bypass;
    }
}

// W31
void Model::driver_reset()
{
    if (!config.linger || lingering || domains.empty()) {
        reset(false);
        return;
    }
    lingering = true;
    negotiated = 0;
    set_live(false);
}

void Model::driver_returns()
{
    if (!std::exchange(lingering, false)) {
        return;
    }
    for (ModelEndpoint &endpoint : endpoints) {
        endpoint.domain.reset();
        endpoint.members.clear();
    }
    domains.clear();
    clear_faults();
}

void Model::set_live(bool value)
{
    live = value;
    if (!live) {
        clear_faults();
    }
}

void Model::clear_faults()
{
    dropped += pending.size();
    pending.clear();
}

bool Model::has_bypass_field() const
{
    return !config.topology_array && (config.offered_features & VIOMMU_F_BYPASS_CONFIG) != 0;
}

// BYP-4, CFG-6
bool Model::write_bypass(uint8_t value)
{
    if (!has_bypass_field() || (negotiated & VIOMMU_F_BYPASS_CONFIG) == 0 || value > 1 ||
        value == (bypass ? 1 : 0)) {
        return false;
    }
    bypass = value == 1;
    return true;
}

/* Requests */

std::optional<ModelIdentity> Model::who(uint32_t id) const
{
    const auto entry = ids.find(id);
    if (entry == ids.end() || !manages(id) || entry->second.endpoint >= endpoints.size() ||
        endpoints[entry->second.endpoint].retired) {
        return std::nullopt;
    }
    return entry->second;
}

std::optional<uint32_t> Model::id_of(size_t endpoint) const
{
    for (const auto &[id, identity] : ids) {
        if (identity.endpoint == endpoint) {
            return id;
        }
    }
    return std::nullopt;
}

uint64_t Model::mapping_count() const
{
    uint64_t count = 0;
    for (const auto &[id, domain] : domains) {
        count += domain.mappings.size();
    }
    return count;
}

// DET-D1
void Model::leave(size_t endpoint)
{
    const std::optional<uint32_t> left = std::exchange(endpoints[endpoint].domain, std::nullopt);
    endpoints[endpoint].members.clear();
    if (left && std::ranges::none_of(
                    endpoints, [&](const ModelEndpoint &other) { return other.domain == left; })) {
        domains.erase(*left);
    }
}

bool Model::overlaps(const ModelDomain &domain, const ModelEndpoint &endpoint) const
{
    return std::ranges::any_of(domain.mappings, [&](const ModelMapping &mapping) {
        return std::ranges::any_of(endpoint.regions, [&](const ViommuRegion &region) {
            return mapping.touches(region.start, region.last);
        });
    });
}

Model::Reasons Model::attach(uint32_t domain, uint32_t endpoint, uint32_t flags, uint32_t reserved)
{
    Reasons reasons;
    const bool flag_exists =
        config.topology_array || (negotiated & VIOMMU_F_BYPASS_CONFIG) != 0; // BYP-3
    const bool with_bypass = (flags & kBypassFlag) != 0;
    if ((flags & ~kBypassFlag) != 0 || (with_bypass && !flag_exists)) {
        reasons.insert(kInval); // ATT-2
    }
    if (reserved != 0) {
        reasons.insert(kInval); // ATT-1
    }
    if (domain < config.domain_first || domain > config.domain_last) {
        reasons.insert(kRange); // OPS-D3
    }
    const std::optional<ModelIdentity> identity = who(endpoint);
    if (!identity) {
        reasons.insert(kNoEnt); // ATT-3
        return reasons;
    }
    ModelEndpoint &subject = endpoints[identity->endpoint];
    const auto target = domains.find(domain);
    const bool stays = subject.domain == domain;
    if (target != domains.end()) {
        if (target->second.bypass != with_bypass) {
            reasons.insert(kInval); // ATT-5
        }
        if (!stays && overlaps(target->second, subject)) {
            reasons.insert(kUnsupp); // ATT-9
        }
    } else {
        const auto sharers = std::ranges::count(endpoints, subject.domain, &ModelEndpoint::domain);
        const bool makes_room = subject.domain && sharers == 1;
        if (domains.size() + 1 - (makes_room ? 1 : 0) > config.max_domains) {
            reasons.insert(kNoMem); // W11
        }
    }
    if (reasons.empty()) {
        // ATT-6, ATT-D1, W17: who shares the requester ID moves along.
        std::set<uintptr_t> members = subject.members;
        members.insert(identity->member);
        if (!stays) {
            leave(identity->endpoint);
            domains[domain].bypass = with_bypass;
            subject.domain = domain;
        }
        subject.members = members;
    }
    return reasons;
}

Model::Reasons Model::detach(uint32_t domain, uint32_t endpoint)
{
    const std::optional<ModelIdentity> identity = who(endpoint);
    if (!identity) {
        return {kNoEnt}; // DET-2
    }
    const ModelEndpoint &subject = endpoints[identity->endpoint];
    if (subject.domain != domain || !subject.members.contains(identity->member)) {
        return {kInval}; // DET-3
    }
    forget_member(identity->endpoint, identity->member);
    return {};
}

bool Model::mapping_possible(const ModelMapping &mapping, Reasons &reasons) const
{
    const size_t before = reasons.size();
    if (mapping.last < mapping.first) {
        reasons.insert(kInval); // MAP-D1
    }
    const uint64_t size = granule();
    if (mapping.first % size != 0 || mapping.phys % size != 0 || (mapping.last + 1) % size != 0) {
        reasons.insert(kRange); // MAP-1
    }
    if (mapping.first < config.input_start || mapping.last > config.input_last) {
        reasons.insert(kRange); // OPS-D2
    }
    if (mapping.last >= mapping.first &&
        mapping.phys + (mapping.last - mapping.first) < mapping.phys) {
        reasons.insert(kRange); // MAP-D3
    }
    return reasons.size() == before;
}

Model::Reasons Model::map(uint32_t domain, const ModelMapping &mapping)
{
    Reasons reasons;
    if ((negotiated & VIOMMU_F_MAP_UNMAP) == 0) {
        reasons.insert(kUnsupp); // MAP-D2
    }
    uint32_t known = kRw;
    if ((negotiated & VIOMMU_F_MMIO) != 0) {
        known |= kMmioFlag;
    }
    if ((mapping.flags & ~known) != 0) {
        reasons.insert(kInval); // MAP-3
    }
    mapping_possible(mapping, reasons);
    if (mapping_count() >= config.max_mappings) {
        reasons.insert(kNoMem); // W11
    }
    const auto touched_by = [&mapping](const ViommuRegion &region) {
        return mapping.touches(region.start, region.last);
    };
    if (std::ranges::any_of(regions, touched_by)) {
        reasons.insert(kInval); // RSV-4
    }
    const auto entry = domains.find(domain);
    if (entry == domains.end()) {
        reasons.insert(kNoEnt); // MAP-4
        return reasons;
    }
    if (entry->second.bypass) {
        reasons.insert(kInval); // MAP-5
    }
    for (const ModelMapping &other : entry->second.mappings) {
        if (mapping.touches(other.first, other.last)) {
            reasons.insert(kInval); // MAP-2
        }
    }
    for (const ModelEndpoint &endpoint : endpoints) {
        if (endpoint.domain == domain && std::ranges::any_of(endpoint.regions, touched_by)) {
            reasons.insert(kInval); // RSV-4
        }
    }
    if (reasons.empty()) {
        entry->second.mappings.push_back(mapping);
    }
    return reasons;
}

Model::Reasons Model::unmap(uint32_t domain, uint64_t first, uint64_t last)
{
    Reasons reasons;
    if ((negotiated & VIOMMU_F_MAP_UNMAP) == 0) {
        reasons.insert(kUnsupp); // MAP-D2
    }
    if (last < first) {
        reasons.insert(kInval); // UNM-D1
    }
    const auto entry = domains.find(domain);
    if (entry == domains.end()) {
        reasons.insert(kNoEnt); // UNM-2
        return reasons;
    }
    if (entry->second.bypass) {
        reasons.insert(kInval); // UNM-3
    }
    for (const ModelMapping &mapping : entry->second.mappings) {
        if (mapping.touches(first, last) && (mapping.first < first || mapping.last > last)) {
            reasons.insert(kRange); // UNM-4
        }
    }
    if (reasons.empty()) {
        std::erase_if(entry->second.mappings, [&](const ModelMapping &mapping) {
            return mapping.touches(first, last);
        }); // UNM-5
    }
    return reasons;
}

Model::Reasons Model::probe(uint32_t endpoint, size_t area) const
{
    Reasons reasons;
    if ((negotiated & VIOMMU_F_PROBE) == 0) {
        reasons.insert(kUnsupp); // PRB-3
    }
    if (!who(endpoint)) {
        reasons.insert(kNoEnt); // PRB-2
    }
    if (area < config.probe_size) {
        reasons.insert(kInval); // PRB-7
    }
    return reasons;
}

/* Translation */

bool Model::must_translate(const ModelEndpoint &endpoint) const
{
    if (endpoint.retired) {
        return true;
    }
    return endpoint.domain ? !domains.at(*endpoint.domain).bypass : !bypass;
}

Model::Place Model::look_up(const ModelEndpoint &endpoint, uint64_t iova) const
{
    Place place;
    if (endpoint.retired || (!endpoint.domain && !bypass)) {
        place.reason = kReasonDomain; // OPS-5
        return place;
    }
    if (!must_translate(endpoint)) {
        return {iova, kRw, 0, 0, UINT64_MAX, true}; // BYP-1, BYP-2
    }
    place.reason = kReasonMapping;
    for (const RegionRun &run : endpoint.runs) {
        if (run.first <= iova && iova <= run.last) {
            if (run.subtype == VIOMMU_RESV_MSI) {
                return {iova, VIOMMU_WRITE, kReasonMapping, run.first, run.last, true}; // RSV-5
            }
            return place;
        }
    }
    for (const ModelMapping &mapping : domains.at(*endpoint.domain).mappings) {
        if (mapping.first <= iova && iova <= mapping.last) {
            return {mapping.phys + (iova - mapping.first),
                    mapping.rights(),
                    kReasonMapping,
                    mapping.first,
                    mapping.last,
                    true};
        }
    }
    return place;
}

bool Model::access(size_t endpoint, uint64_t iova, uint32_t access, const Place &place)
{
    ModelEndpoint &subject = endpoints[endpoint];
    uint32_t missing = access & ~place.rights;
    if (missing == 0) {
        subject.translations += access != 0 ? 1 : 0;
        return false;
    }
    subject.faults++;
    if (!live || subject.retired) {
        dropped++;
        return false;
    }
    // FLT-D3
    size_t waiting = 0;
    for (const ModelFault &fault : pending) {
        if (fault.endpoint == endpoint) {
            waiting++;
            if (fault.address / granule() == iova / granule()) {
                missing &= ~fault.directions;
            }
        }
    }
    if (missing == 0) {
        coalesced++;
        return false;
    }
    if (waiting == kFaultsOfOne || pending.size() == kFaultsOfAll) {
        dropped++;
        return false;
    }
    pending.push_back({endpoint, iova, place.reason, missing});
    return true;
}

/* Migration */

namespace
{

class BigEndian
{
public:
    explicit BigEndian(std::span<const uint8_t> bytes) : bytes_(bytes) {}

    template <typename T> T number()
    {
        uint64_t value = 0;
        for (size_t i = 0; i < sizeof(T); i++) {
            if (used_ == bytes_.size()) {
                bad_ = true;
                return 0;
            }
            value = value * 256 + bytes_[used_++];
        }
        return static_cast<T>(value);
    }

    bool flag()
    {
        const auto value = number<uint8_t>();
        bad_ = bad_ || value > 1;
        return value == 1 && !bad_;
    }

    bool bad() const { return bad_; }
    size_t used() const { return used_; }

private:
    std::span<const uint8_t> bytes_;
    size_t used_ = 0;
    bool bad_ = false;
};

} // namespace

std::optional<StreamState> Model::parse(std::span<const uint8_t> stream, size_t &used) const
{
    BigEndian from(stream);
    StreamState state;
    bool good = true;
    uint64_t mappings = 0;
    std::set<uint32_t> seen_endpoints;
    std::optional<uint32_t> previous_domain;
    const bool can_bypass =
        config.topology_array || (config.offered_features & VIOMMU_F_BYPASS_CONFIG) != 0;
    const uint32_t known_flags =
        kRw | ((config.offered_features & VIOMMU_F_MMIO) != 0 ? kMmioFlag : 0);

    const auto domain_count = from.number<uint32_t>();
    good = good && domain_count <= config.max_domains;
    while (good && from.flag()) {
        const auto key = from.number<uint64_t>();
        const auto id = from.number<uint32_t>();
        good = good && key == id && id >= config.domain_first && id <= config.domain_last;
        good = good && (!previous_domain || id > *previous_domain);
        previous_domain = id;

        StreamDomain &domain = state.domains[id];
        const auto mapping_count = from.number<uint32_t>();
        good = good && mappings + mapping_count <= config.max_mappings;
        while (good && from.flag()) {
            ModelMapping mapping{};
            mapping.first = from.number<uint64_t>();
            mapping.last = from.number<uint64_t>();
            mapping.phys = from.number<uint64_t>();
            mapping.flags = from.number<uint32_t>();
            Reasons reasons;
            good =
                good && mapping_possible(mapping, reasons) && (mapping.flags & ~known_flags) == 0;
            for (const ModelMapping &other : domain.domain.mappings) {
                good = good && other.last < mapping.first;
            }
            for (const ViommuRegion &region : regions) {
                good = good && !mapping.touches(region.start, region.last);
            }
            domain.domain.mappings.push_back(mapping);
            mappings++;
            good = good && domain.domain.mappings.size() <= mapping_count;
        }
        good = good && domain.domain.mappings.size() == mapping_count;
        while (good && from.flag()) {
            const auto endpoint = from.number<uint32_t>();
            good = good && seen_endpoints.insert(endpoint).second;
            domain.endpoint_ids.push_back(endpoint);
        }
        domain.domain.bypass = from.flag();
        good = good && !domain.endpoint_ids.empty() && !from.bad();
        if (domain.domain.bypass) {
            good = good && can_bypass && domain.domain.mappings.empty();
        }
        good = good && state.domains.size() <= domain_count;
    }
    good = good && !from.bad() && state.domains.size() == domain_count;
    state.bypass = good && from.flag();
    good = good && !from.bad() && (can_bypass || !state.bypass);
    used = from.used();
    return good ? std::optional(state) : std::nullopt;
}

bool Model::commit(const StreamState &state, bool driven)
{
    std::map<size_t, ModelEndpoint> moved;
    for (const auto &[id, from] : state.domains) {
        for (const uint32_t endpoint_id : from.endpoint_ids) {
            const std::optional<ModelIdentity> identity = who(endpoint_id);
            if (!identity) {
                reset(false); // W4
                return false;
            }
            const auto [entry, first] =
                moved.emplace(identity->endpoint, endpoints[identity->endpoint]);
            ModelEndpoint &endpoint = entry->second;
            if (first) {
                endpoint.domain.reset();
                endpoint.members.clear();
            }
            if ((endpoint.domain && endpoint.domain != id) || overlaps(from.domain, endpoint)) {
                reset(false);
                return false;
            }
            endpoint.domain = id;
            endpoint.members.insert(identity->member);
        }
    }
    for (ModelEndpoint &endpoint : endpoints) {
        endpoint.domain.reset();
        endpoint.members.clear();
    }
    domains.clear();
    for (const auto &[id, from] : state.domains) {
        domains[id] = from.domain;
    }
    for (auto &[index, endpoint] : moved) {
        endpoints[index] = std::move(endpoint);
    }
    bypass = state.bypass;
    clear_faults();
    lingering = !driven;
    if (!config.linger) {
        driver_returns();
    }
    return true;
}

} // namespace viommu::fuzz
