// SPDX-License-Identifier: GPL-2.0-or-later
//
// A machine around the engine: functions with endpoint IDs, requests as a
// driver would write them, and a journal of what the engine told QEMU.  It also
// holds the engine to the rules of the callback table.
#pragma once

#include "readers.h"

#include <viommu/viommu.h>

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace viommu::test
{

// Statuses of the specification.
inline constexpr int OK = 0;
inline constexpr int UNSUPP = 2;
inline constexpr int INVAL = 4;
inline constexpr int RANGE = 5;
inline constexpr int NOENT = 6;
inline constexpr int NOMEM = 8;
// The chain came back unwritten.
inline constexpr int UNWRITTEN = -1;

inline constexpr uint32_t R = VIOMMU_READ;
inline constexpr uint32_t W = VIOMMU_WRITE;
inline constexpr uint32_t RW = R | W;
inline constexpr uint32_t MMIO = 4;
inline constexpr uint32_t BYPASS = 1;

inline constexpr uint64_t MAX = UINT64_MAX;
inline constexpr auto FAULT = std::nullopt;

inline constexpr uint64_t kAllFeatures = VIOMMU_F_INPUT_RANGE | VIOMMU_F_DOMAIN_RANGE |
                                         VIOMMU_F_MAP_UNMAP | VIOMMU_F_PROBE | VIOMMU_F_MMIO |
                                         VIOMMU_F_BYPASS_CONFIG;
inline constexpr uint32_t kProbeSize = 512;
// Where the IOMMU itself sits: carved out of what it manages.
inline constexpr uint32_t kIommuId = 0x10;
// The one ID beyond 16 bits that the machine has.
inline constexpr uint32_t kMmioId = 0xffff0005;

// A request, well formed until told otherwise.
class Request
{
public:
    static Request attach(uint32_t domain, uint32_t endpoint, uint32_t flags = 0);
    static Request detach(uint32_t domain, uint32_t endpoint);
    static Request map(uint32_t domain, uint64_t first, uint64_t last, uint64_t phys,
                       uint32_t flags);
    static Request unmap(uint32_t domain, uint64_t first, uint64_t last);
    static Request probe(uint32_t endpoint, uint32_t probe_size = kProbeSize);
    static Request of_type(uint8_t type, size_t in_size, size_t writable);

    Request &byte(size_t offset, uint8_t value);
    Request &cut(size_t in_size);
    Request &room(size_t writable_size);

    std::vector<uint8_t> in;
    size_t writable = 4;

private:
    template <typename T> Request &put(size_t offset, T value);
};

struct Reply {
    size_t used = 0;
    std::vector<uint8_t> out; // `used` bytes

    // Of a reply whose tail is its end.
    int status() const { return used == 0 ? UNWRITTEN : out[used - 4]; }
};

struct Property {
    uint16_t type;
    uint16_t length;
    uint8_t subtype;
    uint64_t start;
    uint64_t last;

    bool operator==(const Property &) const = default;
};

struct FaultRecord {
    uint8_t reason;
    uint32_t flags;
    uint32_t endpoint;
    uint64_t address;

    bool operator==(const FaultRecord &) const = default;
};

inline constexpr uint8_t kReasonDomain = 1;
inline constexpr uint8_t kReasonMapping = 2;
inline constexpr uint32_t kAddressValid = 1u << 8;

// A `defer` for engines without readers.
inline void reclaim_now(void *, ViommuDeferred *deferred)
{
    while (deferred->reclaim(deferred)) {
    }
}

// All of them, for an engine that nobody drives.
inline ViommuCallbacks some_callbacks()
{
    return {reclaim_now,
            [](void *, uint32_t, ViommuIdentity *) { return false; },
            [](void *, void *, uint32_t *) { return false; },
            [](void *) {},
            [](void *) {},
            [](void *, void *, bool) {},
            [](void *, void *, uint64_t, uint64_t, uint64_t, uint32_t) { return true; },
            [](void *, void *, uint64_t, uint64_t, uint64_t) {},
            [](void *, void *, uint64_t, uint64_t) {}};
}

class Machine;

// A requester ID as QEMU's side knows it.
struct Function {
    Machine *machine;
    uint32_t id;
    bool has_id;
    bool translating; // as told
    bool retired;
    ViommuEndpoint *endpoint;
};

struct Config : ViommuEngineConfig {
    Config();
    Config &bypass(bool value);
    Config &features(uint64_t offered);
    Config &granule(uint64_t size);
    Config &input(uint64_t first, uint64_t last);
    Config &domains(uint32_t first, uint32_t last);
    Config &quota(uint64_t mappings, uint32_t max_domain_count);
    Config &memory(uint64_t bytes);
    Config &reserve(uint64_t first, uint64_t last, uint8_t subtype);
    Config &array();
    Config &lingering();

    std::vector<ViommuRegion> reserved;
};

class Machine
{
public:
    // Live, with everything negotiated that is offered.
    explicit Machine(const Config &setup = Config());
    ~Machine();
    Machine(const Machine &) = delete;
    Machine &operator=(const Machine &) = delete;

    // A function with a requester ID of its own.
    Function &add(uint32_t id, const std::vector<ViommuRegion> &regions = {});
    // One more function whose DMA carries the requester ID of `front`.
    void add_behind(Function &front, uint32_t id);
    void renumber(Function &function, std::optional<uint32_t> id);
    void retire(Function &function);
    void listen(Function &function, bool map, bool unmap);
    // Comes up as after FEATURES_OK and DRIVER_OK.
    void drive(uint64_t features = kAllFeatures);

    Reply send(const Request &request);
    int attach(uint32_t domain, uint32_t endpoint, uint32_t flags = 0);
    int detach(uint32_t domain, uint32_t endpoint);
    int map(uint32_t domain, uint64_t first, uint64_t last, uint64_t phys, uint32_t flags = RW);
    int unmap(uint32_t domain, uint64_t first, uint64_t last);
    std::vector<Property> probe(uint32_t endpoint);

    // An access: where it goes, or FAULT.
    std::optional<uint64_t> read(Function &function, uint64_t iova);
    std::optional<uint64_t> write(Function &function, uint64_t iova);
    ViommuTranslation translate(Function &function, uint64_t iova, uint32_t access);
    // A look-up that is no access.
    ViommuTranslation look(Function &function, uint64_t iova);

    std::optional<FaultRecord> pop();
    ViommuStats stats() const;
    std::vector<uint8_t> config() const;

    std::vector<uint8_t> save();
    // The error, empty on success.
    std::string load(const std::vector<uint8_t> &bytes);
    // `driven`: the status that came along had FEATURES_OK.
    std::string commit(bool driven = true);

    // What the engine told since the last call.
    std::vector<std::string> told();

    ViommuEngine *engine() { return engine_; }

    // How often the engine deferred something so far.
    size_t deferrals() const { return deferrals_; }
    // Frees what was deferred, if no reader is inside who may have seen it.
    void reclaim();
    // Only reclaim() does so from now on, not each request.
    void hold() { held_ = true; }

    // Any thread: a translation as QEMU would ask for it, in a read-side critical
    // section.
    static void translate(Function &function, uint64_t iova, uint32_t access,
                          ViommuTranslation &out);

    // Run inside the callbacks.
    std::function<void()> on_commit;
    std::function<void(Function &, uint64_t iova, uint64_t mask, uint64_t phys, uint32_t rights)>
        on_map;
    std::function<void(Function &, uint64_t iova, uint64_t mask, uint64_t phys)> on_unmap;
    // Whether listeners can follow a MAP of this block; all if there is none.
    std::function<bool(Function &, uint64_t iova)> follows;
    std::function<void(Function &, uint64_t iova, uint64_t mask)> on_drop;

private:
    static bool resolve(void *opaque, uint32_t id, ViommuIdentity *out);
    static bool endpoint_id(void *opaque, void *endpoint, uint32_t *id);
    static void begin_switch(void *opaque);
    static void commit_switch(void *opaque);
    static void set_translating(void *opaque, void *endpoint, bool translating);
    static bool notify_map(void *opaque, void *endpoint, uint64_t iova, uint64_t mask,
                           uint64_t phys, uint32_t rights);
    static void notify_unmap(void *opaque, void *endpoint, uint64_t iova, uint64_t mask,
                             uint64_t phys);
    static void drop_cached(void *opaque, void *endpoint, uint64_t iova, uint64_t mask);
    Function &told_of(void *endpoint, const char *what, uint64_t iova, uint64_t mask,
                      const std::string &more = "");

    static void defer(void *opaque, ViommuDeferred *deferred);

    std::mutex deferred_lock_;
    ViommuDeferred *deferred_ = nullptr;
    // What waits for the grace period that began with that epoch.
    ViommuDeferred *waiting_ = nullptr;
    uint64_t epoch_ = 0;
    size_t deferrals_ = 0;
    bool held_ = false;

    ViommuTopology *topology_ = nullptr;
    ViommuEngine *engine_ = nullptr;
    size_t probe_size_;
    uint64_t page_size_;
    std::vector<std::unique_ptr<Function>> functions_;
    std::map<uint32_t, ViommuIdentity> ids_;
    std::vector<std::string> told_;
    bool switching_ = false;
    size_t switched_ = 0;
};

using Told = std::vector<std::string>;

} // namespace viommu::test
