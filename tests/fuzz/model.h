// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the device has to do, written down once more and as plainly as can be,
// from docs/requirements.md and the boundary's header: lists that are searched
// from end to end, and no line shared with the engine.
//
// Where several reasons to refuse a request apply, the specification does not
// say which comes first.  So the model knows the set of them: a request is
// carried out exactly if the set is empty, else the answer is one of the set.
#pragma once

#include <viommu/viommu.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace viommu::fuzz
{

inline constexpr int kOk = 0;
inline constexpr int kUnsupp = 2;
inline constexpr int kInval = 4;
inline constexpr int kRange = 5;
inline constexpr int kNoEnt = 6;
inline constexpr int kNoMem = 8;

inline constexpr uint32_t kRw = VIOMMU_READ | VIOMMU_WRITE;
inline constexpr uint32_t kMmioFlag = 4;
inline constexpr uint32_t kBypassFlag = 1;

// How many faults may wait: of one endpoint, and of all.
inline constexpr size_t kFaultsOfOne = 16;
inline constexpr size_t kFaultsOfAll = 256;

struct ModelMapping {
    uint64_t first;
    uint64_t last;
    uint64_t phys;
    uint32_t flags;

    uint32_t rights() const { return flags & kRw; }
    bool touches(uint64_t from, uint64_t to) const { return first <= to && last >= from; }

    bool operator==(const ModelMapping &) const = default;
};

struct ModelDomain {
    bool bypass = false;
    std::vector<ModelMapping> mappings; // in no order

    std::vector<ModelMapping> sorted() const;
};

// A run of addresses that one kind of reserved region covers.
struct RegionRun {
    uint64_t first;
    uint64_t last;
    uint8_t subtype;

    bool operator==(const RegionRun &) const = default;
};

// RSV-2, RSV-3: of all that cover an address the first in the list counts.
std::vector<RegionRun> region_runs(std::span<const ViommuRegion> list);

// The largest blocks, powers of two that are aligned, which make up a range: of 2^62
// bytes at most, and of a granule where the address space ends.  First and last
// address of each.
std::vector<std::pair<uint64_t, uint64_t>> cut_into_blocks(uint64_t first, uint64_t last,
                                                           uint64_t granule);

struct ModelEndpoint {
    std::vector<ViommuRegion> regions; // the engine's, then its own
    std::vector<RegionRun> runs;
    std::optional<uint32_t> domain;
    std::set<uintptr_t> members;
    bool retired = false;
    uint64_t translations = 0;
    uint64_t faults = 0;
};

struct ModelFault {
    size_t endpoint;
    uint64_t address;
    uint8_t reason;
    uint32_t directions;
};

// An ID may also lead to an endpoint of another engine, or to none: nobody's.
inline constexpr size_t kNobody = SIZE_MAX;
inline constexpr size_t kForeigner = SIZE_MAX - 1;

struct ModelIdentity {
    size_t endpoint;
    uintptr_t member;
};

// The migrated state.
struct StreamDomain {
    ModelDomain domain;
    std::vector<uint32_t> endpoint_ids;
};

struct StreamState {
    std::map<uint32_t, StreamDomain> domains;
    bool bypass = false;
};

class Model
{
public:
    // The strings of refusals are none of the model's business: true if it can be.
    static bool config_valid(const ViommuEngineConfig &config);

    explicit Model(const ViommuEngineConfig &config);

    // The index of the new endpoint, nothing if it must be refused.
    std::optional<size_t> add_endpoint(const std::vector<ViommuRegion> &own);
    void retire(size_t endpoint);
    void forget_member(size_t endpoint, uintptr_t member);
    // Counters of an endpoint stay with the engine when it is freed.
    void free_endpoint(size_t endpoint);

    void reset(bool system);
    void driver_reset();
    void driver_returns();
    void set_features(uint64_t features) { negotiated = features & config.offered_features; }
    void set_live(bool value);
    bool write_bypass(uint8_t value);
    bool has_bypass_field() const;

    // Requests whose readable part was long enough.
    using Reasons = std::set<int>;
    Reasons attach(uint32_t domain, uint32_t endpoint, uint32_t flags, uint32_t reserved);
    Reasons detach(uint32_t domain, uint32_t endpoint);
    Reasons map(uint32_t domain, const ModelMapping &mapping);
    Reasons unmap(uint32_t domain, uint64_t first, uint64_t last);
    Reasons probe(uint32_t endpoint, size_t area) const;

    bool must_translate(const ModelEndpoint &endpoint) const;

    // Where `iova` leads, for all rights that it has there.
    struct Place {
        uint64_t phys = 0;
        uint32_t rights = 0;
        uint8_t reason = 0; // of a refusal
        // The run of addresses around it with the same offset and rights.
        uint64_t first = 0;
        uint64_t last = 0;
        bool found = false; // there is a place, perhaps without rights
    };
    Place look_up(const ModelEndpoint &endpoint, uint64_t iova) const;

    // An access of that kind: counts, and queues a fault.  True if one was queued.
    bool access(size_t endpoint, uint64_t iova, uint32_t access, const Place &place);
    void clear_faults();

    // Migration
    std::optional<StreamState> parse(std::span<const uint8_t> stream, size_t &used) const;
    // False: as after a device reset.
    bool commit(const StreamState &state, bool driven);

    std::optional<ModelIdentity> who(uint32_t id) const;
    std::optional<uint32_t> id_of(size_t endpoint) const;

    uint64_t mapping_count() const;
    uint64_t granule() const { return config.page_size_mask & (~config.page_size_mask + 1); }

    ViommuEngineConfig config;
    std::vector<ViommuRegion> regions; // of every endpoint
    std::vector<ModelEndpoint> endpoints;
    std::map<uint32_t, ModelDomain> domains;
    std::map<uint32_t, ModelIdentity> ids;
    std::function<bool(uint32_t)> manages; // what the topology says of an ID
    bool bypass;
    uint64_t negotiated = 0;
    bool live = false;
    bool lingering = false;
    std::vector<ModelFault> pending;
    uint64_t coalesced = 0;
    uint64_t dropped = 0;
    uint64_t past_translations = 0;
    uint64_t past_faults = 0;

private:
    bool mapping_possible(const ModelMapping &mapping, Reasons &reasons) const;
    void leave(size_t endpoint);
    bool overlaps(const ModelDomain &domain, const ModelEndpoint &endpoint) const;
};

} // namespace viommu::fuzz
