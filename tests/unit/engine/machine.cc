// SPDX-License-Identifier: GPL-2.0-or-later
#include "machine.h"

#include <array>
#include <cstdio>
#include <cstring>
#include <utility>

namespace viommu::test
{

namespace
{

template <typename... Args> std::string format(const char *pattern, Args... args)
{
    std::array<char, 128> text;
    std::snprintf(text.data(), text.size(), pattern, args...);
    return text.data();
}

template <typename T> T load_le(const uint8_t *from)
{
    T value = 0;
    for (size_t i = sizeof(T); i-- > 0;) {
        value = static_cast<T>(static_cast<T>(value << (sizeof(T) > 1 ? 8 : 0)) | from[i]);
    }
    return value;
}

unsigned long long wide(uint64_t value)
{
    return value;
}

} // namespace

/* Requests */

template <typename T> Request &Request::put(size_t offset, T value)
{
    for (size_t i = 0; i < sizeof(T); i++) {
        in.at(offset + i) = static_cast<uint8_t>(value >> (8 * i));
    }
    return *this;
}

Request Request::of_type(uint8_t type, size_t in_size, size_t writable)
{
    Request request;
    request.in.resize(in_size);
    if (in_size != 0) {
        request.in[0] = type;
    }
    request.writable = writable;
    return request;
}

Request Request::attach(uint32_t domain, uint32_t endpoint, uint32_t flags)
{
    return of_type(1, 20, 4).put(4, domain).put(8, endpoint).put(12, flags);
}

Request Request::detach(uint32_t domain, uint32_t endpoint)
{
    return of_type(2, 20, 4).put(4, domain).put(8, endpoint);
}

Request Request::map(uint32_t domain, uint64_t first, uint64_t last, uint64_t phys, uint32_t flags)
{
    return of_type(3, 36, 4).put(4, domain).put(8, first).put(16, last).put(24, phys).put(32,
                                                                                          flags);
}

Request Request::unmap(uint32_t domain, uint64_t first, uint64_t last)
{
    return of_type(4, 28, 4).put(4, domain).put(8, first).put(16, last);
}

Request Request::probe(uint32_t endpoint, uint32_t probe_size)
{
    return of_type(5, 72, probe_size + 4).put(4, endpoint);
}

Request &Request::byte(size_t offset, uint8_t value)
{
    return put(offset, value);
}

Request &Request::cut(size_t in_size)
{
    in.resize(in_size);
    return *this;
}

Request &Request::room(size_t writable_size)
{
    writable = writable_size;
    return *this;
}

/* Config */

Config::Config() : ViommuEngineConfig{}
{
    offered_features = kAllFeatures;
    page_size_mask = ~uint64_t{0xfff};
    input_last = MAX;
    domain_last = UINT32_MAX;
    probe_size = kProbeSize;
    max_mappings = 1000;
    max_domains = 100;
    max_memory = MAX;
}

Config &Config::bypass(bool value)
{
    boot_bypass = value;
    return *this;
}

Config &Config::features(uint64_t offered)
{
    offered_features = offered;
    return *this;
}

Config &Config::granule(uint64_t size)
{
    page_size_mask = ~(size - 1);
    return *this;
}

Config &Config::input(uint64_t first, uint64_t last)
{
    input_start = first;
    input_last = last;
    return *this;
}

Config &Config::domains(uint32_t first, uint32_t last)
{
    domain_first = first;
    domain_last = last;
    return *this;
}

Config &Config::quota(uint64_t mappings, uint32_t max_domain_count)
{
    max_mappings = mappings;
    max_domains = max_domain_count;
    return *this;
}

Config &Config::memory(uint64_t bytes)
{
    max_memory = bytes;
    return *this;
}

Config &Config::reserve(uint64_t first, uint64_t last, uint8_t subtype)
{
    reserved.push_back({first, last, subtype});
    return *this;
}

Config &Config::array()
{
    topology_array = true;
    return *this;
}

Config &Config::lingering()
{
    linger = true;
    return *this;
}

/* Machine */

Machine::Machine(const Config &setup)
    : probe_size_(setup.probe_size), page_size_(setup.page_size_mask & -setup.page_size_mask)
{
    const ViommuIommuDesc iommu{"viommu0", VIOMMU_IOMMU_PCI, 0, kIommuId, 0, nullptr,
                                0,         nullptr,          0};
    const ViommuRootBusDesc root_bus{"pcie.0", 0, 0, 255, false};
    const ViommuMmioEndpointDesc mmio_endpoint{"mmio0", kMmioId & 0xffff, 0xfeb00000,
                                               VIOMMU_NO_IOMMU};
    const ViommuMachineDesc description{&iommu, 1,     &root_bus, 1, &mmio_endpoint,
                                        1,      false, nullptr,   0};
    std::array<char, 200> error{};
    topology_ = viommu_topology_new(&description, error.data(), error.size());
    EXPECT_NE(topology_, nullptr) << error.data();

    const ViommuCallbacks callbacks{defer,        resolve,       endpoint_id,
                                    begin_switch, commit_switch, set_translating,
                                    notify_map,   notify_unmap,  drop_cached};
    ViommuEngineConfig engine_config = setup;
    engine_config.regions = setup.reserved.data();
    engine_config.region_count = setup.reserved.size();
    engine_ = viommu_engine_new(&engine_config, &callbacks, this, error.data(), error.size());
    if (!engine_) {
        ADD_FAILURE() << error.data();
        std::abort();
    }
    viommu_engine_set_topology(engine_, topology_, 0);
    drive();
}

Machine::~Machine()
{
    on_commit = nullptr;
    on_unmap = nullptr;
    on_map = nullptr;
    on_drop = nullptr;
    for (const auto &function : functions_) {
        if (!function->retired) {
            retire(*function);
        }
        viommu_endpoint_free(function->endpoint);
    }
    viommu_engine_free(engine_);
    reclaim();
    reclaim();
    EXPECT_EQ(deferred_, nullptr);
    EXPECT_EQ(waiting_, nullptr);
    viommu_topology_free(topology_);
}

void Machine::defer(void *opaque, ViommuDeferred *deferred)
{
    auto *const machine = static_cast<Machine *>(opaque);
    const std::lock_guard guard(machine->deferred_lock_);
    deferred->link[0] = std::exchange(machine->deferred_, deferred);
    machine->deferrals_++;
}

void Machine::reclaim()
{
    const auto free_waiting = [this] {
        while (waiting_) {
            ViommuDeferred *const first = waiting_;
            waiting_ = static_cast<ViommuDeferred *>(first->link[0]);
            while (first->reclaim(first)) {
            }
        }
    };
    if (waiting_ && Readers::over(epoch_)) {
        free_waiting();
    }
    if (!waiting_) {
        const std::lock_guard guard(deferred_lock_);
        waiting_ = std::exchange(deferred_, nullptr);
        if (!waiting_) {
            return;
        }
        epoch_ = Readers::begin();
    }
    if (Readers::over(epoch_)) {
        free_waiting();
    }
}

void Machine::translate(Function &function, uint64_t iova, uint32_t access, ViommuTranslation &out)
{
    const Readers::Section inside;
    viommu_endpoint_translate(function.endpoint, iova, access, &out);
}

void Machine::drive(uint64_t features)
{
    viommu_engine_driver_returns(engine_);
    viommu_engine_set_features(engine_, features);
    viommu_engine_set_live(engine_, true);
}

Function &Machine::add(uint32_t id, const std::vector<ViommuRegion> &regions)
{
    functions_.push_back(
        std::make_unique<Function>(Function{this, id, true, false, false, nullptr}));
    Function &function = *functions_.back();
    function.endpoint = viommu_endpoint_new(engine_, &function, regions.data(), regions.size());
    if (!function.endpoint) {
        ADD_FAILURE() << "no endpoint";
        std::abort();
    }
    function.translating = viommu_endpoint_translating(function.endpoint);
    ids_[id] = ViommuIdentity{function.endpoint, id};
    return function;
}

void Machine::add_behind(Function &front, uint32_t id)
{
    ids_[id] = ViommuIdentity{front.endpoint, id};
}

void Machine::renumber(Function &function, std::optional<uint32_t> id)
{
    if (function.has_id) {
        ids_.erase(function.id);
    }
    function.has_id = id.has_value();
    if (id) {
        function.id = *id;
        ids_[*id] = ViommuIdentity{function.endpoint, *id};
    }
}

void Machine::retire(Function &function)
{
    viommu_endpoint_retire(function.endpoint);
    function.retired = true;
}

void Machine::listen(Function &function, bool map, bool unmap)
{
    viommu_endpoint_set_listeners(function.endpoint, map, unmap);
}

Reply Machine::send(const Request &request)
{
    // Red zones around what may be written.
    std::vector<uint8_t> out(viommu_engine_reply_max(engine_) + 8, 0xa5);
    ViommuRequest wire{request.in.data(), request.in.size(), out.data() + 4, request.writable, 99};
    viommu_engine_handle(engine_, &wire);
    if (!held_) {
        reclaim();
    }

    Reply reply;
    reply.used = wire.used;
    EXPECT_LE(wire.used, request.writable);
    EXPECT_LE(wire.used, viommu_engine_reply_max(engine_));
    for (size_t i = 0; i < 4; i++) {
        EXPECT_EQ(out[i], 0xa5);
        EXPECT_EQ(out[out.size() - 1 - i], 0xa5);
    }
    reply.out.assign(out.begin() + 4, out.begin() + 4 + static_cast<ptrdiff_t>(wire.used));
    return reply;
}

int Machine::attach(uint32_t domain, uint32_t endpoint, uint32_t flags)
{
    return send(Request::attach(domain, endpoint, flags)).status();
}

int Machine::detach(uint32_t domain, uint32_t endpoint)
{
    return send(Request::detach(domain, endpoint)).status();
}

int Machine::map(uint32_t domain, uint64_t first, uint64_t last, uint64_t phys, uint32_t flags)
{
    return send(Request::map(domain, first, last, phys, flags)).status();
}

int Machine::unmap(uint32_t domain, uint64_t first, uint64_t last)
{
    return send(Request::unmap(domain, first, last)).status();
}

std::vector<Property> Machine::probe(uint32_t endpoint)
{
    const Reply reply = send(Request::probe(endpoint, static_cast<uint32_t>(probe_size_)));
    EXPECT_EQ(reply.used, probe_size_ + 4);
    EXPECT_EQ(reply.status(), OK);

    std::vector<Property> properties;
    size_t at = 0;
    while (at + 4 <= probe_size_) {
        Property property{};
        property.type = load_le<uint16_t>(&reply.out[at]);
        property.length = load_le<uint16_t>(&reply.out[at + 2]);
        if (property.type == 0) {
            break;
        }
        if (property.length < 20 || at + 4 + property.length > probe_size_) {
            ADD_FAILURE() << "property at " << at << " has length " << property.length;
            break;
        }
        property.subtype = reply.out[at + 4];
        property.start = load_le<uint64_t>(&reply.out[at + 8]);
        property.last = load_le<uint64_t>(&reply.out[at + 16]);
        properties.push_back(property);
        at += 4u + property.length;
    }
    return properties;
}

ViommuTranslation Machine::translate(Function &function, uint64_t iova, uint32_t access)
{
    ViommuTranslation translation;
    std::memset(&translation, 0xa5, sizeof(translation));
    translate(function, iova, access, translation);
    if (translation.rights == 0 && access != 0) {
        EXPECT_EQ(translation.mask, 0u);
    }
    return translation;
}

ViommuTranslation Machine::look(Function &function, uint64_t iova)
{
    return translate(function, iova, 0);
}

std::optional<uint64_t> Machine::read(Function &function, uint64_t iova)
{
    const ViommuTranslation translation = translate(function, iova, R);
    return translation.rights == 0 ? std::nullopt : std::optional(translation.phys);
}

std::optional<uint64_t> Machine::write(Function &function, uint64_t iova)
{
    const ViommuTranslation translation = translate(function, iova, W);
    return translation.rights == 0 ? std::nullopt : std::optional(translation.phys);
}

std::optional<FaultRecord> Machine::pop()
{
    std::array<uint8_t, VIOMMU_FAULT_RECORD_SIZE> bytes;
    bytes.fill(0xa5);
    if (!viommu_engine_pop_fault(engine_, bytes.data())) {
        return std::nullopt;
    }
    // FLT-1: reserved fields
    for (const size_t offset : {1u, 2u, 3u, 12u, 13u, 14u, 15u}) {
        EXPECT_EQ(bytes[offset], 0);
    }
    return FaultRecord{bytes[0], load_le<uint32_t>(&bytes[4]), load_le<uint32_t>(&bytes[8]),
                       load_le<uint64_t>(&bytes[16])};
}

ViommuStats Machine::stats() const
{
    ViommuStats stats;
    viommu_engine_stats(engine_, &stats);
    return stats;
}

std::vector<uint8_t> Machine::config() const
{
    std::vector<uint8_t> bytes(VIOMMU_CONFIG_SIZE, 0xa5);
    viommu_engine_read_config(engine_, bytes.data());
    return bytes;
}

std::vector<uint8_t> Machine::save()
{
    std::vector<uint8_t> bytes;
    const bool saved = viommu_engine_save(
        engine_,
        [](void *ctx, const uint8_t *data, size_t size) {
            auto *const to = static_cast<std::vector<uint8_t> *>(ctx);
            to->insert(to->end(), data, data + size);
            return true;
        },
        &bytes);
    EXPECT_TRUE(saved);
    return bytes;
}

std::string Machine::load(const std::vector<uint8_t> &bytes)
{
    struct Source {
        const std::vector<uint8_t> &bytes;
        size_t at;
    } source{bytes, 0};
    std::array<char, 200> error{};
    const bool loaded = viommu_engine_load(
        engine_,
        [](void *ctx, uint8_t *data, size_t size) {
            auto *const from = static_cast<Source *>(ctx);
            if (from->bytes.size() - from->at < size) {
                return false;
            }
            std::memcpy(data, from->bytes.data() + from->at, size);
            from->at += size;
            return true;
        },
        &source, error.data(), error.size());
    if (loaded) {
        EXPECT_EQ(source.at, bytes.size()) << "bytes left over";
        return {};
    }
    EXPECT_NE(error[0], '\0');
    return error.data();
}

std::string Machine::commit(bool driven)
{
    std::array<char, 200> error{};
    if (viommu_engine_load_commit(engine_, driven, error.data(), error.size())) {
        return {};
    }
    EXPECT_NE(error[0], '\0');
    return error.data();
}

std::vector<std::string> Machine::told()
{
    return std::exchange(told_, {});
}

/* Callbacks */

bool Machine::resolve(void *opaque, uint32_t id, ViommuIdentity *out)
{
    const auto *const machine = static_cast<Machine *>(opaque);
    const auto entry = machine->ids_.find(id);
    if (entry == machine->ids_.end()) {
        return false;
    }
    *out = entry->second;
    return true;
}

bool Machine::endpoint_id(void *opaque, void *endpoint, uint32_t *id)
{
    const auto *const function = static_cast<Function *>(endpoint);
    EXPECT_EQ(function->machine, opaque);
    EXPECT_FALSE(function->retired);
    *id = function->id;
    return function->has_id;
}

void Machine::begin_switch(void *opaque)
{
    auto *const machine = static_cast<Machine *>(opaque);
    EXPECT_FALSE(machine->switching_);
    machine->switching_ = true;
    machine->switched_ = 0;
    machine->told_.emplace_back("begin");
}

void Machine::commit_switch(void *opaque)
{
    auto *const machine = static_cast<Machine *>(opaque);
    EXPECT_TRUE(machine->switching_);
    EXPECT_NE(machine->switched_, 0u) << "W23: a bracket around nothing";
    machine->switching_ = false;
    machine->told_.emplace_back("commit");
    if (machine->on_commit) {
        machine->on_commit();
    }
}

void Machine::set_translating(void *opaque, void *endpoint, bool translating)
{
    auto *const machine = static_cast<Machine *>(opaque);
    auto *const function = static_cast<Function *>(endpoint);
    EXPECT_TRUE(machine->switching_) << "W23: a switch outside the bracket";
    EXPECT_NE(function->translating, translating) << "W23: a switch to what it is";
    EXPECT_FALSE(function->retired);
    EXPECT_EQ(viommu_endpoint_translating(function->endpoint), translating);
    function->translating = translating;
    machine->switched_++;
    machine->told_.push_back(format(translating ? "on %x" : "off %x", function->id));
}

// The journal says "what ID first-last".
Function &Machine::told_of(void *endpoint, const char *what, uint64_t iova, uint64_t mask,
                           const std::string &more)
{
    auto *const function = static_cast<Function *>(endpoint);
    EXPECT_FALSE(switching_);
    EXPECT_FALSE(function->retired);
    const std::string line =
        format("%s %x %llx-%llx", what, function->id, wide(iova), wide(iova + mask)) + more;
    EXPECT_EQ(mask & (mask + 1), 0u) << line;
    EXPECT_EQ(iova & mask, 0u) << line;
    EXPECT_LT(mask, uint64_t{1} << 62) << line;
    EXPECT_TRUE(iova + mask < MAX || mask < page_size_) << line << " wraps";
    told_.push_back(line);
    return *function;
}

bool Machine::notify_map(void *opaque, void *endpoint, uint64_t iova, uint64_t mask, uint64_t phys,
                         uint32_t rights)
{
    auto *const machine = static_cast<Machine *>(opaque);
    Function &function = machine->told_of(
        endpoint, "map", iova, mask,
        format(" %llx %s%s", wide(phys), (rights & R) ? "r" : "", (rights & W) ? "w" : ""));
    if (machine->on_map) {
        machine->on_map(function, iova, mask, phys, rights);
    }
    return !machine->follows || machine->follows(function, iova);
}

void Machine::notify_unmap(void *opaque, void *endpoint, uint64_t iova, uint64_t mask,
                           uint64_t phys)
{
    auto *const machine = static_cast<Machine *>(opaque);
    Function &function =
        machine->told_of(endpoint, "unmap", iova, mask, format(" %llx", wide(phys)));
    if (machine->on_unmap) {
        machine->on_unmap(function, iova, mask, phys);
    }
}

void Machine::drop_cached(void *opaque, void *endpoint, uint64_t iova, uint64_t mask)
{
    auto *const machine = static_cast<Machine *>(opaque);
    Function &function = machine->told_of(endpoint, "drop", iova, mask);
    if (machine->on_drop) {
        machine->on_drop(function, iova, mask);
    }
}

} // namespace viommu::test
