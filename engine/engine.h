// SPDX-License-Identifier: GPL-2.0-or-later
//
// One virtio-iommu device: its domains, its endpoints, its requests.
//
// A change runs in this order, which is what isolation rests on:
//   1. everything is checked and all memory is allocated;
//   2. in a AttachmentChange, or in the container, translate() gets to see the new state;
//   3. tell_and_switch(): listeners drop what they have of the old state and learn the new
//      mappings, then QEMU's memory topology is switched.
// So nothing can be cached from the old state after it was told to be dropped.
#pragma once

#include "endpoint.h"
#include "injection.h"
#include "settings.h"
#include "shared.h"
#include "stream.h"
#include "wire.h"

#include "mapping/blocks.h"

#include <viommu/engine.h>
#include <viommu/injection.h>
#include <viommu/inspect.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace viommu
{

class Engine : private Reclaimer
{
public:
    Engine(const ViommuEngineConfig &config, const ViommuCallbacks &callbacks, void *opaque);
    ~Engine();
    Engine(const Engine &) = delete;
    Engine &operator=(const Engine &) = delete;

    // Any thread.
    size_t reply_max() const { return settings_.probe_size + wire::kTailSize; }

    // Device state
    void raise_granule(uint64_t page_sizes) VIOMMU_REQUIRES(big_lock)
    {
        settings_.raise_granule(page_sizes);
    }
    void set_topology(const ViommuTopology *topology, uint32_t iommu) VIOMMU_REQUIRES(big_lock);
    void set_features(uint64_t negotiated) VIOMMU_REQUIRES(big_lock);
    void set_live(bool live) VIOMMU_REQUIRES(big_lock);
    void driver_reset() VIOMMU_REQUIRES(big_lock);
    void driver_returns() VIOMMU_REQUIRES(big_lock);
    bool lingering() const VIOMMU_REQUIRES(big_lock) { return lingering_ && !domains_.empty(); }
    void device_reset() VIOMMU_REQUIRES(big_lock);
    void system_reset() VIOMMU_REQUIRES(big_lock);
    void read_config(std::span<uint8_t, VIOMMU_CONFIG_SIZE> config) const VIOMMU_REQUIRES(big_lock);
    bool write_bypass(uint8_t value) VIOMMU_REQUIRES(big_lock);
    bool bypass() const VIOMMU_REQUIRES(big_lock)
    {
        return shared_.bypass.load(std::memory_order_relaxed);
    }

    // Queues
    bool handle(ViommuRequest &request) VIOMMU_REQUIRES(big_lock);
    // The ID that the oldest record would have now; drops those before it that have none.
    std::optional<uint32_t> oldest_fault() VIOMMU_REQUIRES(big_lock);
    bool pop_fault(std::span<uint8_t, VIOMMU_FAULT_RECORD_SIZE> record) VIOMMU_REQUIRES(big_lock);
    ViommuStats stats() const VIOMMU_REQUIRES(big_lock);

    // Views: inspect.cc.  See viommu/inspect.h.
    ViommuSettingsView settings() const VIOMMU_REQUIRES(big_lock);
    size_t request_counts(std::span<ViommuRequestCount, VIOMMU_REQUEST_COUNTS> out) const
        VIOMMU_REQUIRES(big_lock);
    ViommuFaultCounts fault_counts() VIOMMU_REQUIRES(big_lock);
    // Writes until `out` is full; true if there are more.
    bool domains_from(uint32_t first, std::span<ViommuDomainView> out, size_t &count) const
        VIOMMU_REQUIRES(big_lock);
    std::span<Endpoint *const> endpoints_in(uint32_t domain) const VIOMMU_REQUIRES(big_lock);
    // Throws a Refusal if there is no such domain.
    ViommuMappingPage mappings_from(uint32_t domain, uint64_t iova,
                                    std::span<ViommuMappingView> out) const
        VIOMMU_REQUIRES(big_lock);
    ViommuEndpoint *endpoint_of(uint32_t id) const VIOMMU_REQUIRES(big_lock);

    // injection.cc.  See viommu/injection.h; throws a Refusal.
    void inject(const ViommuInjection &wanted) VIOMMU_REQUIRES(big_lock)
        VIOMMU_EXCLUDES(attachments);
    size_t armed_requests(std::span<ViommuArmedRequests, wire::kTypes> out) const
        VIOMMU_REQUIRES(big_lock);

    // Endpoints
    // Throws a Refusal if the regions cannot be.
    ViommuEndpoint *add_endpoint(void *endpoint_opaque, std::span<const ViommuRegion> regions)
        VIOMMU_REQUIRES(big_lock);
    // Throws a Refusal if these cannot share the endpoint.
    void set_hosts(Endpoint &endpoint, std::span<const ViommuHostDevice> hosts)
        VIOMMU_REQUIRES(big_lock);
    void retire(Endpoint &endpoint) VIOMMU_REQUIRES(big_lock);
    void remove_endpoint(Endpoint &endpoint) VIOMMU_REQUIRES(big_lock);
    void set_listeners(Endpoint &endpoint, bool map, bool unmap) VIOMMU_REQUIRES(big_lock);
    template <typename Visit>
    void replay(const Endpoint &endpoint, Visit visit) const VIOMMU_REQUIRES(big_lock);
    void forget(std::span<const ViommuIdentity> gone) VIOMMU_REQUIRES(big_lock);
    bool must_translate(const Endpoint &endpoint) const VIOMMU_REQUIRES(big_lock);

    // Migration.  Loading throws a Refusal.
    bool save(ViommuPut put, void *ctx) const VIOMMU_REQUIRES(big_lock);
    void load(ViommuGet get, void *ctx) VIOMMU_REQUIRES(big_lock);
    void load_commit(bool driven) VIOMMU_REQUIRES(big_lock);

private:
    using DomainTable = std::map<uint32_t, DomainPtr>;

    // requests.cc
    struct Answered {
        size_t used;
        wire::Status status; // meaningless if used is 0
    };
    // The answer of a request that has to fail, if it has to.
    std::optional<Answered> answer_injected(const wire::GuestBytes &in, size_t writable,
                                            uint8_t *out) VIOMMU_REQUIRES(big_lock);
    void count_answer(uint8_t type, const Answered &answered) VIOMMU_REQUIRES(big_lock);
    Answered answer(const wire::GuestBytes &in, size_t writable, uint8_t *out)
        VIOMMU_REQUIRES(big_lock);
    wire::Status attach(const wire::AttachRequest &request) VIOMMU_REQUIRES(big_lock);
    wire::Status detach(const wire::DetachRequest &request) VIOMMU_REQUIRES(big_lock);
    wire::Status map(const wire::MapRequest &request) VIOMMU_REQUIRES(big_lock);
    wire::Status unmap(const wire::UnmapRequest &request) VIOMMU_REQUIRES(big_lock);
    wire::Status probe(const wire::ProbeRequest &request, std::span<uint8_t> area)
        VIOMMU_REQUIRES(big_lock);
    bool negotiated(uint64_t feature) const VIOMMU_REQUIRES(big_lock)
    {
        return (negotiated_ & feature) != 0;
    }

    void defer(ViommuDeferred &object) noexcept override { callbacks_.defer(opaque_, &object); }
    DomainPtr make_domain(uint32_t id, bool bypass, MappingSet mappings = MappingSet())
    {
        return DomainPtr(new Domain(id, bypass, *this, std::move(mappings)), DeferDomain{this});
    }

    // tell(IOVA, size - 1, physical address, rights) for each block of the mapping.
    template <typename Tell> void for_each_block_of(const Mapping &mapping, Tell tell) const
    {
        // A mapping without rights lets nothing through: nothing to announce.
        if (mapping.rights() != 0) {
            for_each_block(
                mapping.iova, mapping.last, settings_.granule(), [&](uint64_t iova, uint64_t mask) {
                    tell(iova, mask, mapping.phys + (iova - mapping.iova), mapping.rights());
                });
        }
    }

    // Who endpoint ID `id` is now, if anybody.
    std::optional<ViommuIdentity> resolve(uint32_t id) const VIOMMU_REQUIRES(big_lock);
    Domain *find_domain(uint32_t id) const VIOMMU_REQUIRES(big_lock);

    // Takes the endpoint out of its domain's list; the domain comes back if that
    // was the last one, and must live until translate() cannot see it any more.
    DomainTable::node_type unlink(Endpoint &endpoint) VIOMMU_REQUIRES(big_lock);
    // Steps 2 and 3 for one endpoint, whose new domain has room for it.  What
    // unlink() says comes back.
    DomainTable::node_type reattach(Endpoint &endpoint, Domain *target,
                                    std::vector<uintptr_t> members) VIOMMU_REQUIRES(big_lock)
        VIOMMU_EXCLUDES(attachments);
    // Step 2 for one endpoint.
    void point_to(Endpoint &endpoint, Domain *domain) VIOMMU_REQUIRES(big_lock, attachments);
    // Steps 2 and 3: replaces all domains and attachments.
    struct Attachment {
        Endpoint *endpoint;
        Domain *domain;
        std::vector<uintptr_t> members;
    };
    void replace_all(DomainTable domains, std::span<Attachment> wanted, bool bypass)
        VIOMMU_REQUIRES(big_lock);
    void put_in_force(stream::Staged *staged, bool driven) VIOMMU_REQUIRES(big_lock);
    void reset(bool bypass) VIOMMU_REQUIRES(big_lock);
    // Of those that are in no domain: what threads remember of them.
    void drop_caches(std::span<Endpoint *const> changed) VIOMMU_REQUIRES(big_lock);
    // False if a member has no ID, which is then not written.
    bool save_members(stream::Writer &writer, const Domain &domain) const VIOMMU_REQUIRES(big_lock);
    bool save_lingering(stream::Writer &writer) const VIOMMU_REQUIRES(big_lock);

    // Step 3
    void tell_and_switch(std::span<Endpoint *const> changed) VIOMMU_REQUIRES(big_lock)
        VIOMMU_EXCLUDES(attachments);
    static bool mirrors(const Endpoint &endpoint) VIOMMU_REQUIRES(big_lock)
    {
        return endpoint.map_listener && endpoint.unmap_listener;
    }
    // What the endpoint's listeners have of a domain is void.
    void tell_left(const Endpoint &endpoint, const Domain &left) VIOMMU_REQUIRES(big_lock)
        VIOMMU_EXCLUDES(attachments);
    // As MappingSet::remove(), and tells listeners that mirror the mappings.
    std::optional<MappingSet::Removed> remove_telling_each(Domain &domain, uint64_t first,
                                                           uint64_t last) VIOMMU_REQUIRES(big_lock)
        VIOMMU_EXCLUDES(attachments);
    // False if a listener could not follow.
    bool notify_map(const Endpoint &endpoint, const Mapping &mapping) VIOMMU_REQUIRES(big_lock)
        VIOMMU_EXCLUDES(attachments);
    // The same for all endpoints of the domain; if it is false, nobody has it.
    bool tell_mapped(Domain &domain, const Mapping &mapping) VIOMMU_REQUIRES(big_lock)
        VIOMMU_EXCLUDES(attachments);
    void notify_unmap(const Endpoint &endpoint, const Mapping &mapping) VIOMMU_REQUIRES(big_lock)
        VIOMMU_EXCLUDES(attachments);
    void drop_cached(const Endpoint &endpoint, uint64_t first, uint64_t last)
        VIOMMU_REQUIRES(big_lock) VIOMMU_EXCLUDES(attachments);

    Settings settings_; // changes before the first request only
    const ViommuCallbacks callbacks_;
    void *const opaque_;

    Shared shared_;

    const ViommuTopology *topology_ VIOMMU_GUARDED_BY(big_lock) = nullptr;
    uint32_t iommu_ VIOMMU_GUARDED_BY(big_lock) = 0;
    uint64_t negotiated_ VIOMMU_GUARDED_BY(big_lock) = 0;
    DomainTable domains_ VIOMMU_GUARDED_BY(big_lock);
    // Domains and attachments are those of a driver that has reset the device.
    bool lingering_ VIOMMU_GUARDED_BY(big_lock) = false;
    std::vector<Endpoint *> endpoints_ VIOMMU_GUARDED_BY(big_lock);
    std::vector<DomainTable::node_type>
        dying_ VIOMMU_GUARDED_BY(big_lock); // in forget(); has room for all
    std::unique_ptr<stream::Staged> staged_ VIOMMU_GUARDED_BY(big_lock);
    uint64_t mapping_count_ VIOMMU_GUARDED_BY(big_lock) = 0;
    uint64_t memory_ VIOMMU_GUARDED_BY(big_lock) = 0; // bytes, of domains and their mappings
    // Endpoints with listeners, and with regions beyond the engine's.
    size_t listening_ VIOMMU_GUARDED_BY(big_lock) = 0;
    size_t with_own_regions_ VIOMMU_GUARDED_BY(big_lock) = 0;
    // The request in hand kept others busy: listeners, or QEMU's memory topology.
    bool told_others_ VIOMMU_GUARDED_BY(big_lock) = false;
    RequestInjection request_injection_ VIOMMU_GUARDED_BY(big_lock);
    uint64_t requests_ VIOMMU_GUARDED_BY(big_lock) = 0;
    uint64_t refused_ VIOMMU_GUARDED_BY(big_lock) = 0;
    // By type, 0 for those that there are not, and by status, the last one for none.
    std::array<std::array<uint64_t, wire::kStatuses + 1>, wire::kTypes + 1>
        answers_ VIOMMU_GUARDED_BY(big_lock){};
    // Of endpoints that were freed.
    Counts past_ VIOMMU_GUARDED_BY(big_lock);
};

template <typename Visit> void Engine::replay(const Endpoint &endpoint, Visit visit) const
{
    const Domain *const domain = endpoint.stable_domain();
    if (!domain) {
        return;
    }
    const MappingSet &mappings = domain->mappings;
    for (auto mapping = mappings.next(0); mapping; mapping = mappings.after(*mapping)) {
        for_each_block_of(*mapping, visit);
    }
}

} // namespace viommu

struct ViommuEngine final : viommu::Engine {
    using Engine::Engine;
};
