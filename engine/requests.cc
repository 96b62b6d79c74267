// SPDX-License-Identifier: GPL-2.0-or-later
//
// The request queue: parse, validate, commit.
#include "engine.h"

#include "base/bytes.h"

#include <algorithm>
#include <array>
#include <new>

namespace viommu
{

using wire::Status;

namespace
{

// Makes room for one more element, so that adding it cannot fail.
template <typename T> void make_room(std::vector<T> &vector)
{
    if (vector.size() == vector.capacity()) {
        vector.reserve(std::max<size_t>(4, 2 * vector.size()));
    }
}

template <typename T> bool contains(const std::vector<T> &vector, const T &value)
{
    return std::find(vector.begin(), vector.end(), value) != vector.end();
}

} // namespace

bool Engine::handle(ViommuRequest &request)
{
    told_others_ = false;
    driver_returns(); // whoever asks is a driver
    const size_t size = std::min<size_t>(request.in_size, VIOMMU_REQUEST_MAX);
    const wire::GuestBytes in({request.in, size});
    const std::optional<Answered> injected =
        request_injection_.armed() ? answer_injected(in, request.writable, request.out)
                                   : std::nullopt;
    const Answered answered = injected ? *injected : answer(in, request.writable, request.out);
    request.used = answered.used;
    requests_++;
    if (answered.used == 0 || answered.status != Status::Ok) {
        refused_++;
    }
    count_answer(size < wire::kHeadSize ? uint8_t{0} : request.in[0], answered);
    return told_others_;
}

Engine::Answered Engine::answer(const wire::GuestBytes &in, size_t writable, uint8_t *out)
{
    const Answered unwritten{0, Status::DevErr};

    if (in.size() < wire::kHeadSize || writable < wire::kTailSize) {
        return unwritten; // OPS-D1, W13
    }
    // OPS-3: the rest of the head is not looked at.
    const auto type = wire::Type{in.get<uint8_t>(0)};

    size_t area = 0; // of properties, before the tail
    Status status = Status::Inval;
    try {
        switch (type) {
        case wire::Type::Attach:
            if (const auto request = wire::AttachRequest::parse(in)) {
                status = attach(*request);
            }
            break;
        case wire::Type::Detach:
            if (const auto request = wire::DetachRequest::parse(in)) {
                status = detach(*request);
            }
            break;
        case wire::Type::Map:
            if (const auto request = wire::MapRequest::parse(in)) {
                status = map(*request);
            }
            break;
        case wire::Type::Unmap:
            if (const auto request = wire::UnmapRequest::parse(in)) {
                status = unmap(*request);
            }
            break;
        case wire::Type::Probe:
            if ((settings_.offered & VIOMMU_F_PROBE) == 0) {
                return unwritten; // PRB-3
            }
            area = std::min<size_t>(settings_.probe_size, writable - wire::kTailSize);
            std::fill_n(out, area, uint8_t{0}); // PRB-8
            if (const auto request = wire::ProbeRequest::parse(in)) {
                status = probe(*request, {out, area});
            }
            break;
        default:
            return unwritten; // OPS-2
        }
    } catch (const std::bad_alloc &) {
        status = Status::NoMem; // W11: all steps that allocate precede the commit
    }

    uint8_t *const tail = out + area;
    std::fill_n(tail, wire::kTailSize, uint8_t{0}); // OPS-4
    tail[0] = static_cast<uint8_t>(status);
    return Answered{area + wire::kTailSize, status};
}

Status Engine::attach(const wire::AttachRequest &request)
{
    // ATT-2, BYP-3
    const bool bypass_known = settings_.topology_array || negotiated(VIOMMU_F_BYPASS_CONFIG);
    if ((request.flags & ~(bypass_known ? wire::kAttachBypass : 0u)) != 0) {
        return Status::Inval;
    }
    if (request.reserved != 0) {
        return Status::Inval; // ATT-1
    }
    if (!settings_.domain_in_range(request.domain)) {
        return Status::Range; // OPS-D3
    }
    const std::optional<ViommuIdentity> who = resolve(request.endpoint);
    if (!who) {
        return Status::NoEnt; // ATT-3, W10
    }
    const bool bypass = (request.flags & wire::kAttachBypass) != 0;
    Domain *target = find_domain(request.domain);
    if (target && target->bypass != bypass) {
        return Status::Inval; // ATT-5
    }

    Endpoint &endpoint = *who->endpoint;
    Domain *const current = endpoint.stable_domain();
    const bool new_member = !contains(endpoint.members, who->member);
    if (current && current == target) {
        // ATT-D1: it is there already; its mappings stay.
        if (new_member) {
            endpoint.members.push_back(who->member);
        }
        return Status::Ok;
    }

    std::vector<uintptr_t> members_before = endpoint.members;
    std::vector<uintptr_t> members = endpoint.members;
    if (new_member) {
        members.push_back(who->member);
    }
    if (target) {
        for (const ViommuRegion &region : endpoint.stable_regions()) {
            if (target->mappings.overlaps(region.start, region.last)) {
                return Status::Unsupp; // ATT-9
            }
        }
        make_room(target->endpoints);
    } else {
        const bool current_dies = current && current->endpoints.size() == 1;
        const uint64_t stays = memory_ - (current_dies ? current->memory() : 0);
        if (domains_.size() - (current_dies ? 1 : 0) >= settings_.max_domains ||
            stays + Domain::kMemory > settings_.max_memory) {
            return Status::NoMem; // W11
        }
        DomainPtr fresh = make_domain(request.domain, bypass);
        make_room(fresh->endpoints);
        target = domains_.emplace(request.domain, std::move(fresh)).first->second.get();
        memory_ += target->memory();
    }

    // ATT-6, ATT-7, ATT-10, W6: from here on only listeners can fail.  The other
    // functions behind this requester ID move along.
    DomainTable::node_type left = reattach(endpoint, target, std::move(members));
    if (endpoint.behind) {
        // W25: back to where it was, which its listeners had room for.
        if (left) {
            mapping_count_ += current->mappings.size();
            memory_ += current->memory();
            domains_.insert(std::move(left));
        }
        reattach(endpoint, current, std::move(members_before));
        return Status::NoMem;
    }
    return Status::Ok;
}

Status Engine::detach(const wire::DetachRequest &request)
{
    const std::optional<ViommuIdentity> who = resolve(request.endpoint);
    if (!who) {
        return Status::NoEnt; // DET-2
    }
    Endpoint &endpoint = *who->endpoint;
    const Domain *const domain = endpoint.stable_domain();
    if (!domain || domain->id != request.domain || !contains(endpoint.members, who->member)) {
        return Status::Inval; // DET-3
    }
    forget({&*who, 1});
    return Status::Ok;
}

Status Engine::map(const wire::MapRequest &request)
{
    if (!negotiated(VIOMMU_F_MAP_UNMAP)) {
        return Status::Unsupp; // MAP-D2
    }
    // MAP-3, MAP-D2
    const uint32_t known =
        wire::kMapRead | wire::kMapWrite | (negotiated(VIOMMU_F_MMIO) ? wire::kMapMmio : 0u);
    if ((request.flags & ~known) != 0) {
        return Status::Inval;
    }
    Domain *const domain = find_domain(request.domain);
    if (!domain) {
        return Status::NoEnt; // MAP-4
    }
    if (domain->bypass) {
        return Status::Inval; // MAP-5
    }
    const Mapping mapping{request.virt_start, request.virt_end, request.phys_start, request.flags};
    if (const Status status = settings_.check_mapping(mapping); status != Status::Ok) {
        return status;
    }
    // RSV-4
    if (regions_overlap(settings_.regions, mapping.iova, mapping.last)) {
        return Status::Inval;
    }
    if (with_own_regions_ > 0) {
        for (const Endpoint *endpoint : domain->endpoints) {
            if (endpoint->own_regions() &&
                regions_overlap(endpoint->stable_regions(), mapping.iova, mapping.last)) {
                return Status::Inval;
            }
        }
    }
    if (mapping_count_ >= settings_.max_mappings ||
        memory_ + MappingSet::kInsertMemory > settings_.max_memory) {
        return domain->mappings.overlaps(mapping.iova, mapping.last) ? Status::Inval
                                                                     : Status::NoMem; // W11
    }

    const size_t before = domain->mappings.memory();
    if (!domain->mappings.insert(mapping)) {
        return Status::Inval; // MAP-2
    }
    const bool followed = listening_ == 0 || tell_mapped(*domain, mapping);
    memory_ += domain->mappings.memory() - before;
    if (!followed) {
        return Status::NoMem; // W25
    }
    mapping_count_++;
    return Status::Ok;
}

Status Engine::unmap(const wire::UnmapRequest &request)
{
    // UNM-1: the reserved field is not looked at.
    if (!negotiated(VIOMMU_F_MAP_UNMAP)) {
        return Status::Unsupp; // MAP-D2
    }
    Domain *const domain = find_domain(request.domain);
    if (!domain) {
        return Status::NoEnt; // UNM-2
    }
    if (domain->bypass) {
        return Status::Inval; // UNM-3
    }
    if (request.virt_end < request.virt_start) {
        return Status::Inval; // W1
    }
    const size_t before = domain->mappings.memory();
    const bool mirrored =
        listening_ > 0 &&
        std::any_of(domain->endpoints.begin(), domain->endpoints.end(), [](const Endpoint *member) {
            big_lock.assert_held();
            return mirrors(*member);
        });
    const std::optional<MappingSet::Removed> removed =
        mirrored ? remove_telling_each(*domain, request.virt_start, request.virt_end)
                 : domain->mappings.remove(request.virt_start, request.virt_end);
    if (!removed) {
        return Status::Range; // UNM-4
    }
    mapping_count_ -= removed->count; // UNM-5
    memory_ -= before - domain->mappings.memory();
    if (removed->count > 0 && listening_ > 0) {
        // From the first to the last that went nothing is mapped any more, so that
        // who only caches can be told of all together, however many they were (W24).
        for (const Endpoint *endpoint : domain->endpoints) {
            drop_cached(*endpoint, removed->first, removed->last);
        }
    }
    return Status::Ok;
}

std::optional<MappingSet::Removed> Engine::remove_telling_each(Domain &domain, uint64_t first,
                                                               uint64_t last)
{
    MappingSet &mappings = domain.mappings;
    if (mappings.splits(first, last)) {
        return std::nullopt;
    }
    MappingSet::Removed all{};
    std::array<Mapping, 64> gone;
    for (auto next = mappings.next(first); next && next->last <= last;) {
        size_t count = 0;
        for (; count < gone.size() && next && next->last <= last; next = mappings.after(*next)) {
            gone[count++] = *next;
        }
        if (all.count == 0) {
            all.first = gone.front().iova;
        }
        all.last = gone[count - 1].last;
        all.count += count;
        // Out of translate()'s reach before anybody hears of it.
        mappings.remove(gone.front().iova, all.last);
        for (const Endpoint *endpoint : domain.endpoints) {
            std::for_each_n(gone.begin(), count, [&](const Mapping &mapping) {
                big_lock.assert_held();
                notify_unmap(*endpoint, mapping);
            });
        }
    }
    return all;
}

Status Engine::probe(const wire::ProbeRequest &request, std::span<uint8_t> area)
{
    if (!negotiated(VIOMMU_F_PROBE)) {
        return Status::Unsupp;
    }
    const std::optional<ViommuIdentity> who = resolve(request.endpoint);
    if (!who) {
        return Status::NoEnt; // PRB-2
    }
    if (area.size() < settings_.probe_size) {
        return Status::Inval; // PRB-7
    }
    // PRB-D1: that they fit is seen to before an endpoint gets them.
    uint8_t *at = area.data();
    for (const ViommuRegion &region : who->endpoint->stable_regions()) {
        store_little(at, wire::kPropertyResvMem);
        store_little(at + 2,
                     static_cast<uint16_t>(wire::kResvMemSize - wire::kPropertyHeadSize)); // PRB-5
        at[4] = region.subtype;
        store_little(at + 8, region.start);
        store_little(at + 16, region.last);
        at += wire::kResvMemSize; // PRB-6
    }
    return Status::Ok;
}

} // namespace viommu
