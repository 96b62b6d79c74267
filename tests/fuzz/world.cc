// SPDX-License-Identifier: GPL-2.0-or-later
#include "world.h"

#include "check.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace viommu::fuzz
{

namespace
{

constexpr uint32_t kIommuId = 0x10;
constexpr uint16_t kMmioIndex = 5;
constexpr uint32_t kMmioId = 0xffff0000u + kMmioIndex;
constexpr uint8_t kHalfLastBus = 0x7f;
constexpr size_t kCachedMax = 16;
constexpr size_t kErrorSize = 200;

template <typename T> T little_endian(std::span<const uint8_t> from, size_t at)
{
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(T); i++) {
        value |= uint64_t{from[at + i]} << (8 * i);
    }
    return static_cast<T>(value);
}

bool all_zero(std::span<const uint8_t> bytes)
{
    return std::ranges::all_of(bytes, [](uint8_t byte) { return byte == 0; });
}

// A failure comes with one sentence, success with none.
void check_sentence(const std::array<char, kErrorSize> &error, bool expected)
{
    const std::string_view text(error.data(), strnlen(error.data(), error.size()));
    FUZZ_CHECK(text.size() < error.size());
    FUZZ_CHECK_EQ(text.empty(), !expected);
    FUZZ_CHECK(text.find('\n') == std::string_view::npos);
}

ViommuTopology *describe_machine(uint8_t last_bus, bool with_transport)
{
    const ViommuIommuDesc iommu{"viommu0", VIOMMU_IOMMU_PCI, 0, kIommuId, 0, nullptr,
                                0,         nullptr,          0};
    const ViommuRootBusDesc bus{"pcie.0", 0, 0, last_bus, false};
    const ViommuMmioEndpointDesc transport{"vm", kMmioIndex, 0x10000000, VIOMMU_NO_IOMMU};
    const ViommuMachineDesc machine{&iommu, 1,       &bus, 1, &transport, with_transport ? 1u : 0u,
                                    false,  nullptr, 0};
    return viommu_topology_new(&machine, nullptr, 0);
}

} // namespace

/* Settings */

std::vector<ViommuRegion> choose_regions(Input &input, uint64_t granule, size_t most)
{
    const std::array<ViommuRegion, 12> pool{{
        {0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI},
        {3 * granule, 4 * granule - 1, VIOMMU_RESV_RESERVED},
        {0, granule - 1, VIOMMU_RESV_RESERVED},
        {UINT64_MAX - granule + 1, UINT64_MAX, VIOMMU_RESV_RESERVED},
        {5 * granule, 9 * granule - 1, VIOMMU_RESV_RESERVED},
        {6 * granule, 7 * granule - 1, VIOMMU_RESV_MSI},
        {8 * granule + granule / 2, 9 * granule, VIOMMU_RESV_RESERVED},
        {0xfee80000, 0xff000000, VIOMMU_RESV_RESERVED},
        {0x8000000, 0x80fffff, VIOMMU_RESV_MSI},
        {0, UINT64_MAX, VIOMMU_RESV_RESERVED},
        {granule, 0, VIOMMU_RESV_RESERVED},
        {granule, granule, 2},
    }};
    std::vector<ViommuRegion> regions;
    for (size_t count = input.below(most + 1); count > 0; count--) {
        regions.push_back(input.one_of(pool));
    }
    return regions;
}

ViommuEngineConfig Settings::whole() const
{
    ViommuEngineConfig filled = config;
    filled.regions = regions.data();
    filled.region_count = regions.size();
    return filled;
}

Settings choose_settings(Input &input)
{
    static constexpr std::array<uint64_t, 6> kMasks{~uint64_t{0xfff},  ~uint64_t{0xffff},
                                                    0x200000 | 0x1000, UINT64_MAX,
                                                    uint64_t{1} << 63, ~uint64_t{0xfff}};
    static constexpr std::array<std::pair<uint64_t, uint64_t>, 5> kInputs{
        {{0, UINT64_MAX},
         {0, (uint64_t{1} << 39) - 1},
         {0x2000, UINT64_MAX - 0x1000},
         {0x1800, 0x17fff},
         {UINT64_MAX, UINT64_MAX}}};
    static constexpr std::array<std::pair<uint32_t, uint32_t>, 4> kDomains{
        {{0, UINT32_MAX}, {2, 4}, {1, 1}, {3, UINT32_MAX}}};
    static constexpr std::array<uint64_t, 5> kMappings{1000, 4, 1, 0, 70};
    static constexpr std::array<uint32_t, 4> kDomainCounts{100, 2, 1, 0};

    constexpr uint64_t kAll = VIOMMU_F_INPUT_RANGE | VIOMMU_F_DOMAIN_RANGE | VIOMMU_F_MAP_UNMAP |
                              VIOMMU_F_PROBE | VIOMMU_F_MMIO | VIOMMU_F_BYPASS_CONFIG;

    Settings settings;
    ViommuEngineConfig &config = settings.config;
    config.offered_features = kAll & ~uint64_t{input.byte()};
    config.page_size_mask = input.one_of(kMasks);
    std::tie(config.input_start, config.input_last) = input.one_of(kInputs);
    std::tie(config.domain_first, config.domain_last) = input.one_of(kDomains);
    const uint8_t flags = input.byte();
    config.boot_bypass = (flags & 1) != 0;
    config.topology_array = (flags & 2) != 0;
    config.probe_size = (flags & 4) != 0 ? 520 : 512;
    config.linger = (flags & 8) != 0;
    config.max_mappings = input.one_of(kMappings);
    config.max_domains = input.one_of(kDomainCounts);
    config.max_memory = UINT64_MAX;
    if ((flags & 0xf0) == 0xf0) {
        switch (input.below(6)) {
        case 0:
            config.offered_features |= uint64_t{1} << input.below(64);
            break;
        case 1:
            config.page_size_mask = input.byte();
            break;
        case 2:
            config.input_start = input.number<uint64_t>();
            break;
        case 3:
            config.domain_first = input.number<uint32_t>();
            break;
        case 4:
            config.probe_size = input.number<uint16_t>();
            break;
        default:
            break;
        }
    }
    const uint64_t granule = config.page_size_mask & (~config.page_size_mask + 1);
    settings.regions = choose_regions(input, granule == 0 ? 0x1000 : granule, 2);
    return settings;
}

/* The world */

namespace
{

// One thread: nobody can be looking.
void defer(void *, ViommuDeferred *deferred)
{
    while (deferred->reclaim(deferred)) {
    }
}

} // namespace

World::World(const Settings &settings) : model_(settings.whole())
{
    model_.manages = [](uint32_t) { return false; };
    const ViommuCallbacks callbacks{defer,        resolve,       endpoint_id,
                                    begin_switch, commit_switch, set_translating,
                                    notify_map,   notify_unmap,  drop_cached};
    std::array<char, kErrorSize> error{};
    {
        // A copy that is gone afterwards: the engine keeps one of its own.
        // NOLINTNEXTLINE(performance-unnecessary-copy-initialization)
        const Settings copy = settings;
        const ViommuEngineConfig config = copy.whole();
        engine_ = viommu_engine_new(&config, &callbacks, this, error.data(), error.size());
        FUZZ_CHECK_EQ(engine_ != nullptr, Model::config_valid(config));
    }
    check_sentence(error, engine_ == nullptr);
    if (!engine_) {
        return;
    }

    full_ = describe_machine(0xff, true);
    half_ = describe_machine(kHalfLastBus, false);
    FUZZ_CHECK(full_ && half_);
    describe(Description::Full);

    ViommuCallbacks silence = callbacks;
    silence.begin_switch = silence.commit_switch = [](void *) {};
    silence.set_translating = [](void *, void *, bool) {};
    const ViommuEngineConfig config = settings.whole();
    other_engine_ = viommu_engine_new(&config, &silence, nullptr, nullptr, 0);
    FUZZ_CHECK(other_engine_);
    foreigner_ = viommu_endpoint_new(other_engine_, nullptr, nullptr, 0);
    FUZZ_CHECK(foreigner_);
    check();
}

World::~World()
{
    if (!engine_) {
        return;
    }
    for (const auto &function : functions_) {
        retire(function->index);
        discard(function->index);
    }
    viommu_engine_free(engine_);
    viommu_endpoint_retire(foreigner_);
    viommu_endpoint_free(foreigner_);
    viommu_engine_free(other_engine_);
    viommu_topology_free(full_);
    viommu_topology_free(half_);
}

template <typename Act> auto World::call(Act act)
{
    in_call_ = true;
    told_ = false;
    brackets_ = 0;
    if constexpr (std::is_void_v<decltype(act())>) {
        act();
        in_call_ = false;
        FUZZ_CHECK(!switching_);
        check();
    } else {
        const auto result = act();
        in_call_ = false;
        FUZZ_CHECK(!switching_);
        check();
        return result;
    }
}

void World::drive()
{
    driver_returns();
    set_features(model_.config.offered_features);
    set_live(true);
}

void World::set_features(uint64_t features)
{
    model_.set_features(features);
    call([&] { viommu_engine_set_features(engine_, features); });
}

void World::set_live(bool live)
{
    model_.set_live(live);
    call([&] { viommu_engine_set_live(engine_, live); });
}

void World::reset(bool system)
{
    model_.reset(system);
    call([&] {
        if (system) {
            viommu_engine_system_reset(engine_);
        } else {
            viommu_engine_device_reset(engine_);
        }
    });
}

void World::driver_reset()
{
    model_.driver_reset();
    call([&] { viommu_engine_driver_reset(engine_); });
}

void World::driver_returns()
{
    model_.driver_returns();
    call([&] { viommu_engine_driver_returns(engine_); });
}

void World::write_bypass(uint8_t value)
{
    const bool expected = model_.write_bypass(value);
    FUZZ_CHECK_EQ(call([&] { return viommu_engine_write_bypass(engine_, value); }), expected);
}

void World::describe(Description description)
{
    switch (description) {
    case Description::None:
        model_.manages = [](uint32_t) { return false; };
        call([&] { viommu_engine_set_topology(engine_, nullptr, 0); });
        break;
    case Description::Full:
        model_.manages = [](uint32_t id) {
            return id == kMmioId || (id <= 0xffff && id != kIommuId);
        };
        call([&] { viommu_engine_set_topology(engine_, full_, 0); });
        break;
    case Description::Half:
        model_.manages = [](uint32_t id) {
            return id <= kHalfLastBus * 0x100u + 0xff && id != kIommuId;
        };
        call([&] { viommu_engine_set_topology(engine_, half_, 0); });
        break;
    }
}

/* Requests */

// The model takes the step.
World::Expected World::expect(std::span<const uint8_t> in, size_t writable)
{
    static constexpr std::array<size_t, 6> kShortest{0, 20, 20, 36, 28, 72};
    const uint8_t type = in.empty() ? 0 : in[0];
    const bool known = type >= 1 && type <= 5 && in.size() >= 4;
    const bool offered = type != 5 || (model_.config.offered_features & VIOMMU_F_PROBE) != 0;
    if (!known || !offered || writable < 4) {
        return {false, 0, {}}; // OPS-D1, OPS-2, PRB-3
    }
    const size_t area = type == 5 ? std::min<size_t>(writable - 4, model_.config.probe_size) : 0;
    if (in.size() < kShortest[type]) {
        return {true, area, {kInval}}; // OPS-D1
    }
    const auto u32 = [in](size_t at) { return little_endian<uint32_t>(in, at); };
    const auto u64 = [in](size_t at) { return little_endian<uint64_t>(in, at); };
    switch (type) {
    case 1:
        return {true, area, model_.attach(u32(4), u32(8), u32(12), u32(16))};
    case 2:
        return {true, area, model_.detach(u32(4), u32(8))};
    case 3:
        return {true, area, model_.map(u32(4), {u64(8), u64(16), u64(24), u32(32)})};
    case 4:
        return {true, area, model_.unmap(u32(4), u64(8), u64(16))};
    default:
        return {true, area, model_.probe(u32(4), area)};
    }
}

void World::request(std::span<const uint8_t> in, size_t writable)
{
    // Room for exactly what is promised, so that a sanitizer sees the ends.
    const size_t looked_at = std::min<size_t>(in.size(), VIOMMU_REQUEST_MAX);
    const std::vector<uint8_t> readable(in.begin(), in.begin() + static_cast<ptrdiff_t>(looked_at));
    FUZZ_CHECK_EQ(viommu_engine_reply_max(engine_), model_.config.probe_size + 4);
    std::vector<uint8_t> out(model_.config.probe_size + 4, 0xa5);

    driver_returns(); // as there is no queue before DRIVER_OK
    const Expected expected = expect(readable, writable);
    requests_++;
    if (!expected.written || !expected.reasons.empty()) {
        refused_++;
    }
    ViommuRequest wire{readable.data(), in.size(), out.data(), writable, SIZE_MAX};
    const bool kept_others_busy = call([&] { return viommu_engine_handle(engine_, &wire); });
    FUZZ_CHECK_EQ(kept_others_busy, told_); // W24

    if (!expected.written) {
        FUZZ_CHECK_EQ(wire.used, 0);
        return;
    }
    FUZZ_CHECK_EQ(wire.used, expected.area + 4);
    const std::span<const uint8_t> area{out.data(), expected.area};
    const std::span<const uint8_t> tail{out.data() + expected.area, 4};
    if (expected.reasons.empty()) {
        FUZZ_CHECK_EQ(tail[0], kOk); // OPS-1
    } else {
        FUZZ_CHECK(expected.reasons.contains(tail[0]));
    }
    FUZZ_CHECK(all_zero(tail.subspan(1))); // OPS-4
    if (!area.empty() && expected.reasons.empty()) {
        check_properties(little_endian<uint32_t>(readable, 4), area);
    } else {
        FUZZ_CHECK(all_zero(area)); // PRB-7, PRB-8
    }
}

void World::check_properties(uint32_t id, std::span<const uint8_t> area) const
{
    size_t at = 0;
    for (const RegionRun &run : model_.endpoints[model_.who(id)->endpoint].runs) {
        FUZZ_CHECK_EQ(little_endian<uint16_t>(area, at), 1);      // PRB-4
        FUZZ_CHECK_EQ(little_endian<uint16_t>(area, at + 2), 20); // PRB-5
        FUZZ_CHECK_EQ(area[at + 4], run.subtype);
        FUZZ_CHECK(all_zero(area.subspan(at + 5, 3))); // RSV-1
        FUZZ_CHECK_EQ(little_endian<uint64_t>(area, at + 8), run.first);
        FUZZ_CHECK_EQ(little_endian<uint64_t>(area, at + 16), run.last);
        at += 24; // PRB-6
    }
    FUZZ_CHECK(all_zero(area.subspan(at))); // PRB-8
}

/* Endpoints */

void World::add_endpoint(const std::vector<ViommuRegion> &own)
{
    const std::optional<size_t> index = model_.add_endpoint(own);
    auto function = std::make_unique<Function>();
    function->world = this;
    {
        std::vector<ViommuRegion> list = own;
        function->endpoint = viommu_endpoint_new(engine_, function.get(), list.data(), list.size());
        std::ranges::fill(list, ViommuRegion{1, 0, 0xff});
    }
    FUZZ_CHECK_EQ(function->endpoint != nullptr, index.has_value());
    if (index) {
        function->index = *index;
        function->translating = viommu_endpoint_translating(function->endpoint);
        functions_.push_back(std::move(function));
    }
    check();
}

void World::retire(size_t endpoint)
{
    Function &function = *functions_[endpoint];
    if (function.silent) {
        return;
    }
    model_.retire(endpoint);
    call([&] {
        viommu_endpoint_retire(function.endpoint);
        function.silent = true;
    });
}

void World::discard(size_t endpoint)
{
    Function &function = *functions_[endpoint];
    if (!function.silent || !function.endpoint) {
        return;
    }
    std::erase_if(model_.ids,
                  [endpoint](const auto &entry) { return entry.second.endpoint == endpoint; });
    model_.free_endpoint(endpoint);
    viommu_endpoint_free(std::exchange(function.endpoint, nullptr));
    check();
}

void World::forget(const std::vector<std::pair<size_t, uintptr_t>> &members)
{
    std::vector<ViommuIdentity> gone;
    for (const auto &[endpoint, member] : members) {
        if (ViommuEndpoint *const handle = functions_[endpoint]->endpoint) {
            gone.push_back({handle, member});
            model_.forget_member(endpoint, member);
        }
    }
    call([&] { viommu_engine_forget(engine_, gone.data(), gone.size()); });
}

void World::set_id(uint32_t id, std::optional<ModelIdentity> identity)
{
    const bool freed = identity && identity->endpoint < functions_.size() &&
                       !functions_[identity->endpoint]->endpoint;
    if (identity && !freed) {
        model_.ids[id] = *identity;
    } else {
        model_.ids.erase(id);
    }
}

/* Translation */

void World::check_answer(uint64_t iova, uint32_t access, const Model::Place &place,
                         const ViommuTranslation &answer)
{
    if ((access & ~place.rights) != 0 || !place.found) {
        FUZZ_CHECK_EQ(answer.rights, 0); // MAP-6, OPS-5
        FUZZ_CHECK_EQ(answer.mask, 0);
        return;
    }
    FUZZ_CHECK_EQ(answer.rights, place.rights);
    FUZZ_CHECK_EQ(answer.phys, place.phys);

    // W8: the largest block of all that are aligned, inside and congruent.
    FUZZ_CHECK(std::has_single_bit(answer.mask + 1) || answer.mask == UINT64_MAX);
    const auto fits = [&](uint64_t mask) {
        return (iova & ~mask) >= place.first && (iova | mask) <= place.last &&
               (iova & mask) == (place.phys & mask);
    };
    FUZZ_CHECK(fits(answer.mask));
    FUZZ_CHECK(answer.mask == UINT64_MAX || !fits(2 * answer.mask + 1));
}

// As any thread could at this moment.
void World::check_look(const Function &function, uint64_t iova) const
{
    ViommuTranslation answer;
    std::memset(&answer, 0xa5, sizeof(answer));
    viommu_endpoint_translate(function.endpoint, iova, 0, &answer);
    FUZZ_CHECK(!answer.fault_queued);
    check_answer(iova, 0, model_.look_up(model_.endpoints[function.index], iova), answer);
}

void World::translate(size_t endpoint, uint64_t iova, uint32_t access)
{
    Function &function = *functions_[endpoint];
    if (!function.endpoint) {
        return;
    }
    const Model::Place place = model_.look_up(model_.endpoints[endpoint], iova);
    const bool queued = model_.access(endpoint, iova, access, place);
    ViommuTranslation answer;
    std::memset(&answer, 0xa5, sizeof(answer));
    viommu_endpoint_translate(function.endpoint, iova, access, &answer);
    check_answer(iova, access, place, answer);
    FUZZ_CHECK_EQ(answer.fault_queued, queued);
    // As far as it can be memory.
    const uint64_t phys = answer.phys & ~answer.mask;
    if (function.unmap_listener && answer.rights != 0 && phys <= VIOMMU_MEMORY_LAST) {
        if (function.cached.size() == kCachedMax) {
            function.cached.erase(function.cached.begin());
        }
        const uint64_t first = iova & ~answer.mask;
        const uint64_t mask = std::min(answer.mask, VIOMMU_MEMORY_LAST - phys);
        function.cached.push_back({first, first + mask, phys, answer.rights});
    }
    check();
}

void World::pop_fault()
{
    std::optional<ModelFault> fault;
    std::optional<uint32_t> id;
    while (!id && !model_.pending.empty()) {
        fault = model_.pending.front();
        model_.pending.erase(model_.pending.begin());
        id = model_.id_of(fault->endpoint);
        if (!id) {
            model_.dropped++; // FLT-3
        }
    }
    const bool ready = call([&] { return viommu_engine_fault_ready(engine_); });
    FUZZ_CHECK_EQ(ready, id.has_value());
    std::array<uint8_t, VIOMMU_FAULT_RECORD_SIZE> record;
    record.fill(0xa5);
    const bool popped = call([&] { return viommu_engine_pop_fault(engine_, record.data()); });
    FUZZ_CHECK_EQ(popped, id.has_value());
    if (!popped) {
        return;
    }
    FUZZ_CHECK_EQ(record[0], fault->reason);                                       // FLT-D1
    FUZZ_CHECK(record[1] == 0 && record[2] == 0 && record[3] == 0);                // FLT-1
    FUZZ_CHECK_EQ(little_endian<uint32_t>(record, 4), fault->directions | 0x100u); // FLT-2, FLT-4
    FUZZ_CHECK_EQ(little_endian<uint32_t>(record, 8), *id);
    FUZZ_CHECK_EQ(little_endian<uint32_t>(record, 12), 0);
    FUZZ_CHECK_EQ(little_endian<uint64_t>(record, 16), fault->address);
}

/* Listeners */

void World::set_listeners(Function &function, bool map, bool unmap)
{
    function.map_listener = map;
    function.unmap_listener = unmap;
    function.mirror.clear();
    function.cached.clear();
    viommu_endpoint_set_listeners(function.endpoint, map, unmap);
}

void World::add_block(Function &function, const Block &block)
{
    if (block.last > function.limit) {
        return;
    }
    FUZZ_CHECK(std::ranges::none_of(function.mirror, [&](const Block &other) {
        return other.first <= block.last && other.last >= block.first;
    }));
    function.mirror.push_back(block);
}

// As every listener that wants MAPs does when it comes.
void World::replay(Function &function)
{
    viommu_endpoint_replay(
        function.endpoint,
        [](void *ctx, uint64_t iova, uint64_t mask, uint64_t phys, uint32_t rights) {
            add_block(*static_cast<Function *>(ctx), {iova, iova + mask, phys, rights});
            return true;
        },
        &function);
}

void World::listen(size_t endpoint, Listening listening)
{
    Function &function = *functions_[endpoint];
    if (function.silent) {
        return;
    }
    function.follows = listening == Listening::Switches || listening == Listening::Narrow;
    function.limit = listening == Listening::Narrow ? 7 * model_.granule() - 1 : UINT64_MAX;
    const bool mirrors =
        listening == Listening::Mirrors || (function.follows && function.translating);
    set_listeners(function, mirrors, mirrors || listening == Listening::Unmaps);
    replay(function);
    FUZZ_CHECK(function.mirror == blocks_in_force(model_.endpoints[endpoint], function.limit));
    if (!mirrors) {
        function.mirror.clear();
    }
    check();
}

std::vector<World::Block> World::blocks_in_force(const ModelEndpoint &endpoint, uint64_t limit)
{
    std::vector<Block> blocks;
    if (!endpoint.domain) {
        return blocks;
    }
    for (const ModelMapping &mapping : model_.domains.at(*endpoint.domain).sorted()) {
        if (mapping.rights() == 0) {
            continue;
        }
        auto &cuts = cuts_[{mapping.first, mapping.last}];
        if (cuts.empty()) {
            cuts = cut_into_blocks(mapping.first, mapping.last, model_.granule());
        }
        for (const auto &[first, last] : cuts) {
            if (last <= limit) {
                blocks.push_back(
                    {first, last, mapping.phys + (first - mapping.first), mapping.rights()});
            }
        }
    }
    return blocks;
}

void World::check_watcher(const Function &function)
{
    const ModelEndpoint &endpoint = model_.endpoints[function.index];
    if (function.map_listener && function.unmap_listener) {
        // DET-4, W29: the copy is what is in force.
        std::vector<Block> found = function.mirror;
        std::ranges::sort(found, {}, &Block::first);
        FUZZ_CHECK(found == blocks_in_force(endpoint, function.limit));
    }
    for (const Block &block : function.cached) {
        for (const uint64_t iova : {block.first, block.last}) {
            const Model::Place place = model_.look_up(endpoint, iova);
            FUZZ_CHECK(place.found);
            FUZZ_CHECK_EQ(place.rights, block.rights);
            FUZZ_CHECK_EQ(place.phys, block.phys + (iova - block.first));
        }
    }
}

/* Migration */

// W31: all that is attached arrives where nothing can be reached.
void World::check_saved_lingering(const StreamState &state) const
{
    FUZZ_CHECK_EQ(state.domains.size(), 1u);
    const auto &[id, from] = *state.domains.begin();
    FUZZ_CHECK_EQ(id, model_.config.domain_last);
    FUZZ_CHECK(!from.domain.bypass && from.domain.mappings.empty());
    std::set<uint32_t> expected;
    for (size_t i = 0; i < model_.endpoints.size(); i++) {
        if (model_.endpoints[i].domain) {
            expected.insert(*model_.id_of(i));
        }
    }
    FUZZ_CHECK(expected == std::set<uint32_t>(from.endpoint_ids.begin(), from.endpoint_ids.end()));
}

std::optional<std::vector<uint8_t>> World::save(size_t room)
{
    struct Sink {
        std::vector<uint8_t> bytes;
        size_t room;
    } sink{{}, room};
    const bool saved = call([&] {
        return viommu_engine_save(
            engine_,
            [](void *ctx, const uint8_t *bytes, size_t size) {
                auto *const to = static_cast<Sink *>(ctx);
                if (size > to->room - to->bytes.size()) {
                    to->room = to->bytes.size(); // full for good
                    return false;
                }
                to->bytes.insert(to->bytes.end(), bytes, bytes + size);
                return true;
            },
            &sink);
    });
    bool all_have_ids = true;
    for (size_t i = 0; i < model_.endpoints.size(); i++) {
        all_have_ids = all_have_ids && (!model_.endpoints[i].domain || model_.id_of(i));
    }
    if (!saved) {
        FUZZ_CHECK(!all_have_ids || room != SIZE_MAX);
        return std::nullopt;
    }
    FUZZ_CHECK(all_have_ids);

    // What was written says what there is.
    size_t used = 0;
    const std::optional<StreamState> state = model_.parse(sink.bytes, used);
    FUZZ_CHECK(state);
    FUZZ_CHECK_EQ(used, sink.bytes.size());
    FUZZ_CHECK_EQ(state->bypass, model_.bypass);
    if (model_.lingering && !model_.domains.empty()) {
        check_saved_lingering(*state);
        return std::move(sink.bytes);
    }
    FUZZ_CHECK_EQ(state->domains.size(), model_.domains.size());
    for (const auto &[id, domain] : model_.domains) {
        const auto entry = state->domains.find(id);
        FUZZ_CHECK(entry != state->domains.end());
        FUZZ_CHECK_EQ(entry->second.domain.bypass, domain.bypass);
        FUZZ_CHECK(entry->second.domain.mappings == domain.sorted());
        std::set<uint32_t> expected;
        for (size_t i = 0; i < model_.endpoints.size(); i++) {
            if (model_.endpoints[i].domain == id) {
                expected.insert(*model_.id_of(i));
            }
        }
        const std::vector<uint32_t> &found = entry->second.endpoint_ids;
        FUZZ_CHECK(expected == std::set<uint32_t>(found.begin(), found.end()));
    }
    return std::move(sink.bytes);
}

void World::load(std::span<const uint8_t> stream)
{
    size_t expected_used = 0;
    staged_ = model_.parse(stream, expected_used);

    struct Source {
        std::span<const uint8_t> bytes;
        size_t used;
    } source{stream, 0};
    std::array<char, kErrorSize> error{};
    const bool loaded = call([&] {
        return viommu_engine_load(
            engine_,
            [](void *ctx, uint8_t *bytes, size_t size) {
                auto *const from = static_cast<Source *>(ctx);
                if (size > from->bytes.size() - from->used) {
                    return false;
                }
                std::memcpy(bytes, from->bytes.data() + from->used, size);
                from->used += size;
                return true;
            },
            &source, error.data(), error.size());
    });
    FUZZ_CHECK_EQ(loaded, staged_.has_value());
    check_sentence(error, !loaded);
    if (loaded) {
        FUZZ_CHECK_EQ(source.used, expected_used);
    }
}

void World::commit(bool driven)
{
    bool expected = false;
    if (const std::optional<StreamState> state = std::exchange(staged_, std::nullopt)) {
        expected = model_.commit(*state, driven);
    } else {
        model_.reset(false);
    }
    std::array<char, kErrorSize> error{};
    const bool done = call(
        [&] { return viommu_engine_load_commit(engine_, driven, error.data(), error.size()); });
    FUZZ_CHECK_EQ(done, expected);
    check_sentence(error, !done);
}

/* What must hold after every step */

void World::check()
{
    for (const auto &function : functions_) {
        const ModelEndpoint &endpoint = model_.endpoints[function->index];
        if (!function->endpoint) {
            continue;
        }
        const bool translating = model_.must_translate(endpoint);
        FUZZ_CHECK_EQ(viommu_endpoint_translating(function->endpoint), translating);
        FUZZ_CHECK_EQ(function->translating, translating);
        ViommuEndpointStats stats;
        viommu_endpoint_stats(function->endpoint, &stats);
        FUZZ_CHECK_EQ(stats.attached, endpoint.domain.has_value());
        if (stats.attached) {
            FUZZ_CHECK_EQ(stats.domain, *endpoint.domain);
            FUZZ_CHECK_EQ(stats.bypass, model_.domains.at(*endpoint.domain).bypass);
        }
        FUZZ_CHECK_EQ(stats.translations, endpoint.translations);
        FUZZ_CHECK_EQ(stats.faults, endpoint.faults);
        check_watcher(*function);
    }
    // A wrong sum stays wrong, and to ask for all is slow.
    if (++checks_ % 4 == 0) {
        check_stats();
    }

    FUZZ_CHECK_EQ(viommu_engine_bypass(engine_), model_.bypass);

    std::array<uint8_t, VIOMMU_CONFIG_SIZE> bytes;
    bytes.fill(0xa5);
    viommu_engine_read_config(engine_, bytes.data());
    FUZZ_CHECK_EQ(little_endian<uint64_t>(bytes, 0), model_.config.page_size_mask);
    FUZZ_CHECK_EQ(little_endian<uint64_t>(bytes, 8), model_.config.input_start);
    FUZZ_CHECK_EQ(little_endian<uint64_t>(bytes, 16), model_.config.input_last);
    FUZZ_CHECK_EQ(little_endian<uint32_t>(bytes, 24), model_.config.domain_first);
    FUZZ_CHECK_EQ(little_endian<uint32_t>(bytes, 28), model_.config.domain_last);
    FUZZ_CHECK_EQ(little_endian<uint32_t>(bytes, 32), model_.config.probe_size);
    // CFG-6
    FUZZ_CHECK_EQ(little_endian<uint32_t>(bytes, 36),
                  model_.has_bypass_field() && model_.bypass ? 1 : 0);
}

void World::check_stats()
{
    uint64_t translations = model_.past_translations;
    uint64_t faults = model_.past_faults;
    for (const auto &function : functions_) {
        const ModelEndpoint &endpoint = model_.endpoints[function->index];
        translations += endpoint.translations;
        faults += endpoint.faults;
    }
    ViommuStats stats;
    viommu_engine_stats(engine_, &stats);
    FUZZ_CHECK_EQ(stats.translations, translations);
    FUZZ_CHECK_EQ(stats.faults, faults);
    FUZZ_CHECK_EQ(stats.faults_coalesced, model_.coalesced);
    FUZZ_CHECK_EQ(stats.faults_dropped, model_.dropped);
    FUZZ_CHECK_EQ(stats.requests, requests_);
    FUZZ_CHECK_EQ(stats.requests_refused, refused_);
    FUZZ_CHECK_EQ(stats.mappings, model_.mapping_count());
    FUZZ_CHECK_EQ(stats.domains, model_.domains.size());
    FUZZ_CHECK_EQ(stats.lingering, model_.lingering && !model_.domains.empty());
}

void World::sweep()
{
    check_stats();
    for (const auto &function : functions_) {
        if (!function->endpoint) {
            continue;
        }
        std::set<uint64_t> points{0, UINT64_MAX};
        const auto add_edges = [&points](uint64_t first, uint64_t last) {
            points.insert({first - 1, first, first + 1, last - 1, last, last + 1});
        };
        for (const auto &[id, domain] : model_.domains) {
            for (const ModelMapping &mapping : domain.mappings) {
                add_edges(mapping.first, mapping.last);
            }
        }
        for (const ViommuRegion &region : model_.endpoints[function->index].regions) {
            add_edges(region.start, region.last);
        }
        for (const uint64_t point : points) {
            check_look(*function, point);
        }
    }
}

/* Callbacks */

bool World::resolve(void *opaque, uint32_t id, ViommuIdentity *out)
{
    const auto *const world = static_cast<World *>(opaque);
    FUZZ_CHECK(world->in_call_);
    const auto entry = world->model_.ids.find(id);
    if (entry == world->model_.ids.end()) {
        return false;
    }
    const auto [index, member] = entry->second;
    out->member = member;
    if (index == kForeigner) {
        out->endpoint = world->foreigner_;
    } else if (index >= world->functions_.size()) {
        out->endpoint = nullptr;
    } else {
        out->endpoint = world->functions_[index]->endpoint;
    }
    return true;
}

bool World::endpoint_id(void *opaque, void *endpoint, uint32_t *id)
{
    const auto *const function = static_cast<Function *>(endpoint);
    FUZZ_CHECK(function->world == opaque);
    FUZZ_CHECK(function->world->in_call_);
    FUZZ_CHECK(!function->silent);
    const std::optional<uint32_t> found = function->world->model_.id_of(function->index);
    *id = found.value_or(0xdeadbeef);
    return found.has_value();
}

void World::begin_switch(void *opaque)
{
    auto *const world = static_cast<World *>(opaque);
    FUZZ_CHECK(world->in_call_ && !world->switching_);
    FUZZ_CHECK_EQ(world->brackets_, 0); // W23
    world->brackets_++;
    world->told_ = true;
    world->switching_ = true;
    world->switches_ = 0;
}

void World::commit_switch(void *opaque)
{
    auto *const world = static_cast<World *>(opaque);
    FUZZ_CHECK(world->switching_);
    FUZZ_CHECK(world->switches_ != 0); // W23
    for (const auto &function : world->functions_) {
        if (function->endpoint && function->follows &&
            function->translating != function->unmap_listener) {
            world->set_listeners(*function, function->translating, function->translating);
            if (function->translating) {
                world->replay(*function);
            }
        }
    }
    world->switching_ = false;
}

void World::set_translating(void *opaque, void *endpoint, bool translating)
{
    auto *const world = static_cast<World *>(opaque);
    auto *const function = static_cast<Function *>(endpoint);
    FUZZ_CHECK(world->switching_ && !function->silent);
    FUZZ_CHECK(function->translating != translating); // W23
    FUZZ_CHECK_EQ(translating,
                  world->model_.must_translate(world->model_.endpoints[function->index]));
    if (!translating) {
        // Listeners of what is left behind have dropped it by now.
        FUZZ_CHECK(function->mirror.empty() && function->cached.empty());
    }
    function->translating = translating;
    world->switches_++;
}

uint64_t World::take_block(const Function &function, uint64_t iova, uint64_t mask)
{
    FUZZ_CHECK(in_call_ && !switching_ && !function.silent);
    told_ = true;
    FUZZ_CHECK(mask <= (uint64_t{1} << 62) - 1 && std::has_single_bit(mask + 1));
    FUZZ_CHECK((iova & mask) == 0);
    FUZZ_CHECK(iova + mask != UINT64_MAX || mask < model_.granule());
    return iova + mask;
}

bool World::notify_map(void *opaque, void *endpoint, uint64_t iova, uint64_t mask, uint64_t phys,
                       uint32_t rights)
{
    auto *const world = static_cast<World *>(opaque);
    auto *const function = static_cast<Function *>(endpoint);
    const uint64_t last = world->take_block(*function, iova, mask);
    FUZZ_CHECK(function->map_listener);
    FUZZ_CHECK(rights != 0 && (rights & ~kRw) == 0);
    add_block(*function, {iova, last, phys, rights});
    world->check_look(*function, iova);
    world->check_look(*function, last);
    return true;
}

void World::notify_unmap(void *opaque, void *endpoint, uint64_t iova, uint64_t mask, uint64_t phys)
{
    auto *const world = static_cast<World *>(opaque);
    auto *const function = static_cast<Function *>(endpoint);
    const uint64_t last = world->take_block(*function, iova, mask);
    FUZZ_CHECK(function->map_listener && function->unmap_listener);
    if (last <= function->limit) {
        FUZZ_CHECK_EQ(std::erase_if(function->mirror,
                                    [&](const Block &block) {
                                        return block.first == iova && block.last == last &&
                                               block.phys == phys;
                                    }),
                      1);
    }
    // Nobody can get the old answer any more, not even now.
    world->check_look(*function, iova);
    world->check_look(*function, last);
}

void World::drop_cached(void *opaque, void *endpoint, uint64_t iova, uint64_t mask)
{
    auto *const world = static_cast<World *>(opaque);
    auto *const function = static_cast<Function *>(endpoint);
    const uint64_t last = world->take_block(*function, iova, mask);
    FUZZ_CHECK(function->unmap_listener);
    std::set<uint64_t> points{iova, last};
    std::erase_if(function->cached, [&](const Block &block) {
        if (block.first > last || block.last < iova) {
            return false;
        }
        points.insert({block.first, block.last});
        return true;
    });
    for (const uint64_t point : points) {
        world->check_look(*function, point);
    }
}

} // namespace viommu::fuzz
