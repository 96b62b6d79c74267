// SPDX-License-Identifier: GPL-2.0-or-later
#include "engine.h"

#include "base/bytes.h"
#include "base/error.h"

#include <viommu/topology.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cinttypes>
#include <cstdio>
#include <unordered_map>
#include <utility>

namespace viommu
{

Engine::Engine(const ViommuEngineConfig &config, const ViommuCallbacks &callbacks, void *opaque)
    : settings_(config), callbacks_(callbacks), opaque_(opaque),
      shared_(settings_.boot_bypass, settings_.granule())
{
}

Engine::~Engine()
{
    assert(endpoints_.empty());
}

/* Device state */

void Engine::set_topology(const ViommuTopology *topology, uint32_t iommu)
{
    topology_ = topology;
    iommu_ = iommu;
}

void Engine::set_features(uint64_t negotiated)
{
    negotiated_ = negotiated & settings_.offered;
}

void Engine::set_live(bool live)
{
    shared_.faults.set_live(live);
}

// INI-D1 is for whoever drives the device next, and holds from then on.  Until then
// the functions behind it may be in the middle of something.  A driver begins with a
// reset of its own: that is the second one.
void Engine::driver_reset()
{
    if (!settings_.linger || lingering_ || domains_.empty()) {
        device_reset();
        return;
    }
    lingering_ = true; // W31
    negotiated_ = 0;
    shared_.faults.set_live(false);
}

void Engine::driver_returns()
{
    if (lingering_) {
        replace_all({}, {}, bypass());
    }
}

void Engine::device_reset()
{
    reset(bypass());
} // CFG-4

void Engine::system_reset()
{
    reset(settings_.boot_bypass);
} // CFG-5

// INI-D1, W5
void Engine::reset(bool bypass)
{
    negotiated_ = 0;
    shared_.faults.set_live(false);
    replace_all({}, {}, bypass);
}

void Engine::read_config(std::span<uint8_t, VIOMMU_CONFIG_SIZE> config) const
{
    std::fill(config.begin(), config.end(), uint8_t{0});
    store_little(&config[0], settings_.page_size_mask);
    store_little(&config[8], settings_.input_start);
    store_little(&config[16], settings_.input_last);
    store_little(&config[24], settings_.domain_first);
    store_little(&config[28], settings_.domain_last);
    store_little(&config[32], settings_.probe_size);
    if (settings_.has_bypass_field()) {
        config[VIOMMU_CONFIG_BYPASS] = bypass() ? 1 : 0; // CFG-6
    }
}

bool Engine::write_bypass(uint8_t value)
{
    // BYP-4, CFG-6, W13: a wrong write is the driver's mistake, not a reason to
    // stop.
    if (!settings_.has_bypass_field() || !negotiated(VIOMMU_F_BYPASS_CONFIG) || value > 1) {
        return false;
    }
    const bool wanted = value == 1;
    if (wanted == bypass()) {
        return false;
    }
    {
        AttachmentChange change(shared_.attachments);
        shared_.bypass.store(wanted, std::memory_order_release);
    }
    tell_and_switch(endpoints_);
    return true;
}

std::optional<uint32_t> Engine::oldest_fault()
{
    while (const std::optional<void *> whose = shared_.faults.oldest()) {
        // FLT-3: the ID is the one of now; without one there is nothing to say.
        uint32_t id = 0;
        if (callbacks_.endpoint_id(opaque_, *whose, &id)) {
            return id;
        }
        shared_.faults.pop();
        shared_.faults.count_dropped();
    }
    return std::nullopt;
}

bool Engine::pop_fault(std::span<uint8_t, VIOMMU_FAULT_RECORD_SIZE> record)
{
    const std::optional<uint32_t> id = oldest_fault();
    const std::optional<Fault> fault = id ? shared_.faults.pop() : std::nullopt;
    if (!fault) {
        return false;
    }
    std::fill(record.begin(), record.end(), uint8_t{0}); // FLT-1
    record[0] = static_cast<uint8_t>(fault->reason);
    store_little(&record[4], fault->directions | wire::kFaultAddress);
    store_little(&record[8], *id);
    store_little(&record[16], fault->address);
    return true;
}

ViommuStats Engine::stats() const
{
    ViommuStats stats{};
    Counts counts = past_;
    for (const Endpoint *endpoint : endpoints_) {
        counts += endpoint->counts();
    }
    stats.translations = counts.translations;
    stats.faults = counts.faults;
    stats.faults_coalesced = shared_.faults.coalesced();
    stats.faults_dropped = shared_.faults.dropped();
    stats.requests = requests_;
    stats.requests_refused = refused_;
    stats.mappings = mapping_count_;
    stats.domains = domains_.size();
    stats.memory = memory_;
    stats.remembered = shared_.cache_store->memory();
    stats.lingering = lingering();
    return stats;
}

/* Endpoints */

ViommuEndpoint *Engine::add_endpoint(void *endpoint_opaque, std::span<const ViommuRegion> regions)
{
    check_regions(regions);
    Regions merged = merged_regions(settings_.regions, regions);
    check_merged_regions(merged, settings_.probe_size);
    auto endpoint = std::make_unique<ViommuEndpoint>(
        *this, shared_, endpoint_opaque,
        std::make_unique<RegionList>(std::move(merged), !regions.empty()));
    endpoint->translating = must_translate(*endpoint);
    dying_.reserve(endpoints_.size() + 1);
    endpoints_.push_back(endpoint.get());
    with_own_regions_ += endpoint->own_regions() ? 1 : 0;
    return endpoint.release();
}

namespace
{

constexpr int kNarrowest = 32; // of aw-bits

std::string range_text(const ViommuRegion &region)
{
    char text[48];
    std::snprintf(text, sizeof(text), "0x%" PRIx64 "-0x%" PRIx64, region.start, region.last);
    return text;
}

// What to say of a region that reaches to the end of all I/O addresses.
std::string narrower(const ViommuRegion &region, uint64_t input_last)
{
    const auto bits = static_cast<int>(std::bit_width(region.start)) - 1;
    if (region.last != input_last || bits < kNarrowest) {
        return "";
    }
    return "; a virtio-iommu with aw-bits=" + std::to_string(bits) + " keeps the guest below";
}

// Throws a Refusal if it cannot be assigned.
void check_host(const ViommuHostDevice &host, const Regions &reserved, const Domain *domain,
                const Settings &settings)
{
    const std::string name = host.name;
    const uint64_t smallest = host.page_sizes & -host.page_sizes;
    const uint64_t granule = settings.granule();
    if (smallest > granule) {
        throw Refusal(name + ": its IOMMU on the host has no pages of less than " +
                      std::to_string(smallest) + " bytes, but the granule of the virtio-iommu is " +
                      std::to_string(granule));
    }
    if (!domain) {
        return;
    }
    for (const ViommuRegion &region : reserved) {
        if (domain->mappings.overlaps(region.start, region.last)) {
            throw Refusal(name + ": its IOMMU on the host cannot map " + range_text(region) +
                          ", where the guest has mapped memory for it already" +
                          narrower(region, settings.input_last));
        }
    }
}

} // namespace

void Engine::set_hosts(Endpoint &endpoint, std::span<const ViommuHostDevice> hosts)
{
    Regions own;
    for (const ViommuHostDevice &host : hosts) {
        Regions reserved;
        if (host.usable_count != 0) {
            reserved = regions_outside({host.usable, host.usable_count}, settings_.input_start,
                                       settings_.input_last);
        }
        check_host(host, reserved, endpoint.stable_domain(), settings_);
        own.insert(own.end(), reserved.begin(), reserved.end());
        try {
            check_merged_regions(merged_regions(settings_.regions, own), settings_.probe_size);
        } catch (const Refusal &refusal) {
            throw Refusal(host.name + (std::string(": ") + refusal.what()));
        }
    }
    auto fresh = std::make_unique<RegionList>(merged_regions(settings_.regions, own), !own.empty());

    with_own_regions_ -= endpoint.own_regions() ? 1 : 0;
    with_own_regions_ += fresh->own ? 1 : 0;
    // Nothing is mapped in what becomes reserved: what translate() answers stays the same.
    defer(*endpoint.region_list.exchange(fresh.release(), std::memory_order_acq_rel));
}

void Engine::retire(Endpoint &endpoint)
{
    const DomainTable::node_type dying = unlink(endpoint);
    {
        AttachmentChange change(shared_.attachments);
        point_to(endpoint, nullptr);
        endpoint.retired.store(true, std::memory_order_release);
    }
    Endpoint *const changed = &endpoint;
    tell_and_switch({&changed, 1});
    drop_caches({&changed, 1});
    set_listeners(endpoint, false, false);
    shared_.faults.close(endpoint.fault_source);
}

void Engine::remove_endpoint(Endpoint &endpoint)
{
    assert(endpoint.stable_retired());
    past_ += endpoint.counts();
    std::erase(endpoints_, &endpoint);
    with_own_regions_ -= endpoint.own_regions() ? 1 : 0;
}

void Engine::set_listeners(Endpoint &endpoint, bool map, bool unmap)
{
    listening_ -= endpoint.map_listener || endpoint.unmap_listener ? 1 : 0;
    endpoint.map_listener = map;
    endpoint.unmap_listener = unmap;
    listening_ += map || unmap ? 1 : 0;
}

// One change of the memory topology, however many they are.
void Engine::forget(std::span<const ViommuIdentity> gone)
{
    const auto leaves = [](const Endpoint &endpoint) {
        big_lock.assert_held();
        return endpoint.members.empty() && endpoint.stable_domain();
    };

    for (const ViommuIdentity &who : gone) {
        if (&who.endpoint->engine == this && std::erase(who.endpoint->members, who.member) != 0 &&
            leaves(*who.endpoint)) {
            dying_.push_back(unlink(*who.endpoint));
        }
    }
    if (dying_.empty()) {
        return;
    }
    {
        AttachmentChange change(shared_.attachments);
        for (const ViommuIdentity &who : gone) {
            if (leaves(*who.endpoint)) {
                point_to(*who.endpoint, nullptr);
            }
        }
    }
    Endpoint *const only = gone.front().endpoint;
    const std::span<Endpoint *const> changed =
        gone.size() == 1 ? std::span(&only, 1) : std::span<Endpoint *const>(endpoints_);
    tell_and_switch(changed);
    drop_caches(changed);
    dying_.clear();
}

void Engine::drop_caches(std::span<Endpoint *const> changed)
{
    ThreadCache *dropped = nullptr;
    for (Endpoint *endpoint : changed) {
        if (!endpoint->stable_domain()) {
            endpoint->drop_caches(dropped);
        }
    }
    if (dropped) {
        CacheStore::defer(dropped, *this);
    }
}

bool Engine::must_translate(const Endpoint &endpoint) const
{
    if (endpoint.stable_retired()) {
        return true;
    }
    const Domain *domain = endpoint.stable_domain();
    return domain ? !domain->bypass : !bypass();
}

/* Attachments */

std::optional<ViommuIdentity> Engine::resolve(uint32_t id) const
{
    if (!topology_ || !viommu_topology_manages(topology_, iommu_, id)) {
        return std::nullopt;
    }
    ViommuIdentity who{};
    if (!callbacks_.resolve(opaque_, id, &who) || !who.endpoint || &who.endpoint->engine != this ||
        who.endpoint->stable_retired()) {
        return std::nullopt;
    }
    return who;
}

Domain *Engine::find_domain(uint32_t id) const
{
    const auto entry = domains_.find(id);
    return entry == domains_.end() ? nullptr : entry->second.get();
}

Engine::DomainTable::node_type Engine::unlink(Endpoint &endpoint)
{
    endpoint.members.clear();
    Domain *const domain = endpoint.stable_domain();
    if (!domain) {
        return {};
    }
    std::erase(domain->endpoints, &endpoint);
    if (!domain->endpoints.empty()) {
        return {};
    }
    // DET-D1
    mapping_count_ -= domain->mappings.size();
    memory_ -= domain->memory();
    return domains_.extract(domain->id);
}

Engine::DomainTable::node_type Engine::reattach(Endpoint &endpoint, Domain *target,
                                                std::vector<uintptr_t> members)
{
    DomainTable::node_type dying = unlink(endpoint);
    endpoint.members = std::move(members);
    if (target) {
        target->endpoints.push_back(&endpoint);
    }
    {
        AttachmentChange change(shared_.attachments);
        point_to(endpoint, target);
    }
    endpoint.behind = false;
    Endpoint *const changed = &endpoint;
    tell_and_switch({&changed, 1});
    drop_caches({&changed, 1});
    return dying;
}

void Engine::point_to(Endpoint &endpoint, Domain *domain)
{
    const Domain *const before = endpoint.stable_domain();
    if (before && !before->bypass) {
        endpoint.left = before;
    }
    endpoint.domain.store(domain, std::memory_order_release);
    endpoint.entered_mappings = domain && !domain->bypass;
}

void Engine::replace_all(DomainTable domains, std::span<Attachment> wanted, bool bypass)
{
    {
        AttachmentChange change(shared_.attachments);
        for (Endpoint *endpoint : endpoints_) {
            point_to(*endpoint, nullptr);
            endpoint->members.clear();
        }
        for (Attachment &attachment : wanted) {
            point_to(*attachment.endpoint, attachment.domain);
            attachment.endpoint->members = std::move(attachment.members);
        }
        shared_.bypass.store(bypass, std::memory_order_release);
    }
    // The old domains live until this returns; nobody can look into them.
    domains_.swap(domains);
    lingering_ = false;
    mapping_count_ = 0;
    memory_ = 0;
    for (const auto &[id, domain] : domains_) {
        mapping_count_ += domain->mappings.size();
        memory_ += domain->memory();
    }
    shared_.faults.clear();
    tell_and_switch(endpoints_);
    drop_caches(endpoints_);
}

// DET-4, W23
void Engine::tell_and_switch(std::span<Endpoint *const> changed)
{
    // Some listeners go with the switch, and those that come with it replay for
    // themselves what is mapped: before it is when each hears of everything once.
    for (Endpoint *endpoint : changed) {
        if (const Domain *const left = std::exchange(endpoint->left, nullptr)) {
            tell_left(*endpoint, *left);
        }
    }
    for (Endpoint *endpoint : changed) {
        if (std::exchange(endpoint->entered_mappings, false) && endpoint->map_listener) {
            const MappingSet &mappings = endpoint->stable_domain()->mappings;
            for (auto mapping = mappings.next(0); mapping; mapping = mappings.after(*mapping)) {
                if (!notify_map(*endpoint, *mapping)) {
                    endpoint->behind = true;
                }
            }
        }
    }

    const bool switches =
        std::any_of(changed.begin(), changed.end(), [this](const Endpoint *endpoint) {
            big_lock.assert_held();
            return endpoint->translating != must_translate(*endpoint);
        });
    if (!switches) {
        return;
    }
    told_others_ = true;
    callbacks_.begin_switch(opaque_);
    for (Endpoint *endpoint : changed) {
        const bool translating = must_translate(*endpoint);
        if (endpoint->translating != translating) {
            endpoint->translating = translating;
            endpoint->entered_translation = translating;
            callbacks_.set_translating(opaque_, endpoint->opaque, translating);
        }
    }
    callbacks_.commit_switch(opaque_);

    // What was cached during bypass must not outlive it, although whoever listens now
    // may have come with the commit.
    for (Endpoint *endpoint : changed) {
        if (std::exchange(endpoint->entered_translation, false)) {
            drop_cached(*endpoint, 0, VIOMMU_MEMORY_LAST);
        }
    }
}

void Engine::tell_left(const Endpoint &endpoint, const Domain &left)
{
    const MappingSet &mappings = left.mappings;
    if (mirrors(endpoint)) {
        for (auto mapping = mappings.next(0); mapping; mapping = mappings.after(*mapping)) {
            notify_unmap(endpoint, *mapping);
        }
    }
    if (!endpoint.unmap_listener) {
        return;
    }
    // From the first to the last address for which translate() had an answer.
    uint64_t first = UINT64_MAX;
    uint64_t last = 0;
    if (const auto lowest = mappings.next(0)) {
        first = lowest->iova;
        last = mappings.previous(UINT64_MAX)->last;
    }
    for (const ViommuRegion &region : endpoint.stable_regions()) {
        if (region.subtype == VIOMMU_RESV_MSI) {
            first = std::min(first, region.start);
            last = std::max(last, region.last);
        }
    }
    if (first > last) {
        return;
    }
    // To drop more than that does no harm, and one block around it says it in one go.
    const uint64_t around = first == last ? 0 : UINT64_MAX >> std::countl_zero(first ^ last);
    if (around <= kBlockMaskMax) {
        first &= ~around;
        last |= around;
    }
    drop_cached(endpoint, first, last);
}

bool Engine::notify_map(const Endpoint &endpoint, const Mapping &mapping)
{
    bool followed = true;
    if (endpoint.map_listener) {
        for_each_block_of(mapping, [&](uint64_t iova, uint64_t mask, uint64_t phys,
                                       uint32_t rights) {
            big_lock.assert_held();
            told_others_ = true;
            followed &= callbacks_.notify_map(opaque_, endpoint.opaque, iova, mask, phys, rights);
        });
    }
    return followed;
}

bool Engine::tell_mapped(Domain &domain, const Mapping &mapping)
{
    const auto told_last =
        std::find_if(domain.endpoints.begin(), domain.endpoints.end(), [&](const Endpoint *member) {
            big_lock.assert_held();
            return !notify_map(*member, mapping);
        });
    if (told_last == domain.endpoints.end()) {
        return true;
    }
    // Out of translate()'s reach before anybody hears of it.
    domain.mappings.remove(mapping.iova, mapping.last);
    std::for_each(domain.endpoints.begin(), std::next(told_last), [&](const Endpoint *member) {
        big_lock.assert_held();
        notify_unmap(*member, mapping);
    });
    for (const Endpoint *member : domain.endpoints) {
        drop_cached(*member, mapping.iova, mapping.last);
    }
    return false;
}

void Engine::notify_unmap(const Endpoint &endpoint, const Mapping &mapping)
{
    if (mirrors(endpoint)) {
        for_each_block_of(mapping, [&](uint64_t iova, uint64_t mask, uint64_t phys, uint32_t) {
            big_lock.assert_held();
            told_others_ = true;
            callbacks_.notify_unmap(opaque_, endpoint.opaque, iova, mask, phys);
        });
    }
}

void Engine::drop_cached(const Endpoint &endpoint, uint64_t first, uint64_t last)
{
    if (endpoint.unmap_listener) {
        for_each_block(first, last, settings_.granule(), [&](uint64_t iova, uint64_t mask) {
            big_lock.assert_held();
            told_others_ = true;
            callbacks_.drop_cached(opaque_, endpoint.opaque, iova, mask);
        });
    }
}

/* Migration */

// Left out, a member would arrive unattached and perhaps bypass: better not to
// migrate until it has an ID again.
bool Engine::save_members(stream::Writer &writer, const Domain &domain) const
{
    for (const Endpoint *endpoint : domain.endpoints) {
        uint32_t id = 0;
        if (!callbacks_.endpoint_id(opaque_, endpoint->opaque, &id)) {
            return false;
        }
        writer.more(true);
        writer.id(id);
    }
    return true;
}

// QEMU's own device has no such state: what it is told holds there until the driver
// says otherwise, so it is told of nothing that could be reached.  The ID is the last
// that a driver would choose.
bool Engine::save_lingering(stream::Writer &writer) const
{
    writer.count(1);
    writer.more(true);
    writer.key(settings_.domain_last);
    writer.id(settings_.domain_last);
    writer.count(0);
    writer.more(false);
    for (const auto &[id, domain] : domains_) {
        if (!save_members(writer, *domain)) {
            return false;
        }
    }
    writer.more(false);
    writer.flag(false);
    writer.more(false);
    writer.flag(bypass());
    return writer.ok();
}

bool Engine::save(ViommuPut put, void *ctx) const
{
    stream::Writer writer(put, ctx);

    if (lingering()) {
        return save_lingering(writer);
    }
    writer.count(domains_.size());
    for (const auto &[id, domain] : domains_) {
        writer.more(true);
        writer.key(id);
        writer.id(id);

        const MappingSet &mappings = domain->mappings;
        writer.count(mappings.size());
        for (auto mapping = mappings.next(0); mapping; mapping = mappings.after(*mapping)) {
            if (!writer.ok()) {
                return false;
            }
            writer.more(true);
            writer.mapping(*mapping);
        }
        writer.more(false);

        if (!save_members(writer, *domain)) {
            return false;
        }
        writer.more(false);
        writer.flag(domain->bypass);
    }
    writer.more(false);
    writer.flag(bypass());
    return writer.ok();
}

void Engine::load(ViommuGet get, void *ctx)
{
    staged_.reset();
    staged_ = std::make_unique<stream::Staged>(stream::read(get, ctx, settings_));
}

void Engine::load_commit(bool driven)
{
    const std::unique_ptr<stream::Staged> staged = std::move(staged_);
    try {
        put_in_force(staged.get(), driven);
    } catch (...) {
        device_reset();
        throw;
    }
}

void Engine::put_in_force(stream::Staged *staged, bool driven)
{
    if (!staged) {
        throw Refusal("there is no loaded state");
    }
    DomainTable domains;
    std::vector<Attachment> members;
    std::unordered_map<const Endpoint *, size_t> known; // index in members

    for (stream::StagedDomain &from : staged->domains) {
        const std::string in_domain = " in domain " + std::to_string(from.id);
        DomainPtr &domain = domains.try_emplace(from.id, nullptr, DeferDomain{this}).first->second;
        domain = make_domain(from.id, from.bypass, std::move(from.mappings));

        for (const uint32_t id : from.endpoint_ids) {
            const std::string subject = "endpoint " + std::to_string(id) + in_domain;
            const std::optional<ViommuIdentity> who = resolve(id); // W4
            if (!who) {
                throw Refusal(subject + " does not exist here");
            }
            Endpoint *const endpoint = who->endpoint;
            const auto [entry, added] = known.emplace(endpoint, members.size());
            if (added) {
                for (const ViommuRegion &region : endpoint->stable_regions()) {
                    if (domain->mappings.overlaps(region.start, region.last)) {
                        throw Refusal(subject + " has a reserved region that is mapped");
                    }
                }
                members.push_back({endpoint, domain.get(), {who->member}});
                domain->endpoints.push_back(endpoint);
                continue;
            }
            Attachment &attachment = members[entry->second];
            if (attachment.domain != domain.get()) {
                throw Refusal(subject + " is also in another domain");
            }
            if (std::find(attachment.members.begin(), attachment.members.end(), who->member) ==
                attachment.members.end()) {
                attachment.members.push_back(who->member);
            }
        }
    }
    if (!driven && !settings_.linger) {
        replace_all({}, {}, staged->bypass);
        return;
    }
    replace_all(std::move(domains), members, staged->bypass);
    lingering_ = !driven; // W31
}

} // namespace viommu
