// SPDX-License-Identifier: GPL-2.0-or-later
//
// An engine beside its model.  Every step is first taken by the model, so that
// what the engine says while it takes it, in callbacks and to threads that do
// DMA at that moment, can be held against the new state.
#pragma once

#include "input.h"
#include "model.h"

#include <viommu/viommu.h>

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace viommu::fuzz
{

// A description of the machine that rules out some IDs.
enum class Description { None, Full, Half };

struct Settings {
    ViommuEngineConfig config{}; // but for the regions
    std::vector<ViommuRegion> regions;

    ViommuEngineConfig whole() const;
};

// Mostly a sensible device; now and then one that must be refused.
Settings choose_settings(Input &input);
std::vector<ViommuRegion> choose_regions(Input &input, uint64_t granule, size_t most);

class World
{
public:
    explicit World(const Settings &settings);
    ~World();
    World(const World &) = delete;
    World &operator=(const World &) = delete;

    // False if the device must not exist, and does not.
    bool exists() const { return engine_ != nullptr; }

    // Up and driven: what is offered is negotiated, DRIVER_OK is set.
    void drive();
    void set_features(uint64_t features);
    void set_live(bool live);
    void reset(bool system);
    void driver_reset();
    void driver_returns();
    void write_bypass(uint8_t value);
    void describe(Description description);

    void request(std::span<const uint8_t> in, size_t writable);

    void add_endpoint(const std::vector<ViommuRegion> &own);
    void retire(size_t endpoint);
    void discard(size_t endpoint);
    void forget(const std::vector<std::pair<size_t, uintptr_t>> &members); // of endpoints
    // Nothing: nobody has the ID any more.
    void set_id(uint32_t id, std::optional<ModelIdentity> identity);

    void translate(size_t endpoint, uint64_t iova, uint32_t access);
    void pop_fault();

    // How an endpoint's mappings are watched.
    enum class Listening {
        No,
        Unmaps,   // as vhost: caches what it was told by translate()
        Mirrors,  // as VFIO: has a copy of the mappings, and caches as well
        Switches, // as Mirrors, but only while the endpoint translates
        Narrow,   // as Switches, with a copy of the lowest addresses only
    };
    void listen(size_t endpoint, Listening listening);

    // What was written; nothing if the state cannot be saved.  The stream takes
    // no more than `room` bytes.
    std::optional<std::vector<uint8_t>> save(size_t room = SIZE_MAX);
    void load(std::span<const uint8_t> stream);
    void commit(bool driven);

    // Every translation that could be interesting.
    void sweep();

    const Model &model() const { return model_; }
    size_t endpoint_count() const { return functions_.size(); }

private:
    struct Block {
        uint64_t first;
        uint64_t last;
        uint64_t phys;
        uint32_t rights;

        bool operator==(const Block &) const = default;
    };
    struct Function {
        World *world = nullptr;
        size_t index = 0;
        ViommuEndpoint *endpoint = nullptr; // nullptr: freed
        bool translating = false;           // as told
        bool silent = false;                // no callback may name it any more
        bool map_listener = false;
        bool unmap_listener = false;
        bool follows = false;      // listens while it translates
        uint64_t limit = 0;        // the last address that the mirror knows
        std::vector<Block> mirror; // told by notify_map
        std::vector<Block> cached; // told by translate
    };

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
    // All three begin so; the last address of the block.
    uint64_t take_block(const Function &function, uint64_t iova, uint64_t mask);

    // Calls into the engine that may call back; `act` does one.
    template <typename Act> auto call(Act act);

    void set_listeners(Function &function, bool map, bool unmap);
    void check_look(const Function &function, uint64_t iova) const;
    static void check_answer(uint64_t iova, uint32_t access, const Model::Place &place,
                             const ViommuTranslation &answer);
    struct Expected {
        bool written;
        size_t area; // of properties, before the tail
        Model::Reasons reasons;
    };
    Expected expect(std::span<const uint8_t> in, size_t writable);
    void check_properties(uint32_t id, std::span<const uint8_t> area) const;
    void check_watcher(const Function &function);
    static void add_block(Function &function, const Block &block);
    void replay(Function &function);
    // What a mirror of the endpoint has to hold.
    std::vector<Block> blocks_in_force(const ModelEndpoint &endpoint, uint64_t limit);
    void check_saved_lingering(const StreamState &state) const;
    void check();
    void check_stats();

    Model model_;
    ViommuEngine *engine_ = nullptr;
    ViommuTopology *full_ = nullptr;
    ViommuTopology *half_ = nullptr;
    ViommuEngine *other_engine_ = nullptr;
    ViommuEndpoint *foreigner_ = nullptr;
    std::vector<std::unique_ptr<Function>> functions_;
    std::optional<StreamState> staged_;
    std::map<std::pair<uint64_t, uint64_t>, std::vector<std::pair<uint64_t, uint64_t>>>
        cuts_; // of ranges, as far as they were needed
    uint64_t requests_ = 0;
    uint64_t checks_ = 0;
    uint64_t refused_ = 0;
    bool in_call_ = false;
    bool switching_ = false;
    bool told_ = false;     // in this call: that something changed
    unsigned brackets_ = 0; // in this call
    unsigned switches_ = 0; // in this bracket
};

} // namespace viommu::fuzz
