// SPDX-License-Identifier: GPL-2.0-or-later
//
// Running out of memory at every allocation there is.
#include "machine.h"
#include "mapping/node_pool.h"
#include "mapping/nodes.h"

#include <array>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace
{

// Allocations that still succeed; negative: all do.
thread_local long allocations_left = -1;

void *allocate(size_t size, size_t alignment)
{
    if (allocations_left == 0) {
        throw std::bad_alloc();
    }
    if (allocations_left > 0) {
        allocations_left--;
    }
    size = (size + alignment - 1) / alignment * alignment;
    if (void *memory = std::aligned_alloc(alignment, size ? size : alignment)) {
        return memory;
    }
    throw std::bad_alloc();
}

} // namespace

void *operator new(size_t size)
{
    return allocate(size, alignof(std::max_align_t));
}
void *operator new[](size_t size)
{
    return allocate(size, alignof(std::max_align_t));
}
// The library's own would be the sanitizer's, whose memory free() refuses.
void *operator new(size_t size, const std::nothrow_t &) noexcept
{
    try {
        return allocate(size, alignof(std::max_align_t));
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}
void operator delete(void *memory, const std::nothrow_t &) noexcept
{
    std::free(memory);
}
void *operator new(size_t size, std::align_val_t alignment)
{
    return allocate(size, static_cast<size_t>(alignment));
}
void *operator new(size_t size, std::align_val_t alignment, const std::nothrow_t &) noexcept
{
    try {
        return allocate(size, static_cast<size_t>(alignment));
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}
void operator delete(void *memory, std::align_val_t) noexcept
{
    std::free(memory);
}
void operator delete(void *memory, size_t, std::align_val_t) noexcept
{
    std::free(memory);
}
void operator delete(void *memory) noexcept
{
    std::free(memory);
}
void operator delete[](void *memory) noexcept
{
    std::free(memory);
}
void operator delete(void *memory, size_t) noexcept
{
    std::free(memory);
}
void operator delete[](void *memory, size_t) noexcept
{
    std::free(memory);
}

namespace
{

size_t mapped = 0; // bytes that the system gave
bool system_takes_back = true;

} // namespace

// What nodes are made of.
void *mmap(void *at, size_t size, int protection, int flags, int file, off_t offset) noexcept
{
    if (allocations_left == 0) {
        return MAP_FAILED;
    }
    if (allocations_left > 0) {
        allocations_left--;
    }
    mapped += size;
    // A system call returns numbers.
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    return reinterpret_cast<void *>(syscall(SYS_mmap, at, size, protection, flags, file, offset));
}
int munmap(void *at, size_t size) noexcept
{
    if (!system_takes_back) {
        return -1;
    }
    mapped -= size;
    return static_cast<int>(syscall(SYS_munmap, at, size));
}
int madvise(void *at, size_t size, int advice) noexcept
{
    return system_takes_back ? static_cast<int>(syscall(SYS_madvise, at, size, advice)) : -1;
}

namespace viommu::test
{

namespace
{

// Runs `step` with no, one, two, ... allocations until it yields true; checks
// after each failure.  Returns how often it failed.
template <typename Step, typename Check> long starve(Step step, Check check)
{
    for (long enough = 0;; enough++) {
        allocations_left = enough;
        const bool done = step();
        allocations_left = -1;
        if (done) {
            return enough;
        }
        check();
        if (::testing::Test::HasFailure() || enough > 10000) {
            ADD_FAILURE() << "with " << enough << " allocations";
            return enough;
        }
    }
}

// Sends without allocating anything itself.
int send_starved(Machine &machine, const Request &request)
{
    static uint8_t out[kProbeSize + 4];
    ViommuRequest wire{request.in.data(), request.in.size(), out, request.writable, 0};
    viommu_engine_handle(machine.engine(), &wire);
    return wire.used == 0 ? UNWRITTEN : out[wire.used - 4];
}

// Has nodes of the pool, and all that the pool had left.
class Hoard
{
public:
    explicit Hoard(size_t wanted)
    {
        for (size_t i = 0; i < wanted; i++) {
            take();
        }
        allocations_left = 0;
        try {
            for (;;) {
                take();
            }
        } catch (const std::bad_alloc &) {
            allocations_left = -1;
        }
    }
    ~Hoard()
    {
        while (nodes_) {
            give();
        }
    }
    Hoard(const Hoard &) = delete;
    Hoard &operator=(const Hoard &) = delete;

    void give()
    {
        ASSERT_NE(nodes_, nullptr);
        NodePool::instance().release(std::exchange(nodes_, nodes_->next));
    }

private:
    void take()
    {
        auto *const node = new (NodePool::instance().allocate()) MappingSet::Leaf;
        node->next = std::exchange(nodes_, node);
    }

    MappingSet::Node *nodes_ = nullptr;
};

// Without any node, with one, two, ..., so that memory is short also in the middle of
// a split.
TEST(Memory, W11_MapAnswersNomemAndChangesNothing)
{
    constexpr uint64_t kPages = 20000;
    Machine machine(Config().quota(kPages, 1));
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    Hoard hoard(2000);
    std::array<unsigned, 5> by_nodes{};
    for (uint64_t i = 0; i < kPages && !HasFailure(); i++) {
        const uint64_t iova = i * 7919 % kPages << 12;
        const Request request = Request::map(1, iova, iova + 0xfff, iova + 0x5000, RW);
        for (size_t nodes = 0;; nodes++) {
            ASSERT_LT(nodes, by_nodes.size());
            allocations_left = 0;
            const int status = send_starved(machine, request);
            allocations_left = -1;
            if (status == OK) {
                by_nodes[nodes]++;
                break;
            }
            EXPECT_EQ(status, NOMEM);
            EXPECT_EQ(machine.stats().mappings, i);
            EXPECT_EQ(machine.look(nic, iova).rights, 0u);
            hoard.give();
        }
        EXPECT_EQ(machine.look(nic, iova).phys, iova + 0x5000);
    }
    // Leaves, those above them as well, and a new root on top.
    EXPECT_GT(by_nodes[1], kPages / 48);
    EXPECT_GT(by_nodes[2], 3u);
    EXPECT_GE(by_nodes[3], 1u);
    EXPECT_EQ(machine.stats().mappings, kPages);
    for (uint64_t page = 0; page < kPages; page++) {
        ASSERT_EQ(machine.look(nic, page << 12).phys, (page << 12) + 0x5000);
    }
}

// It does not if memory is locked, or if too many mappings of it would be left.
TEST(Memory, W11_WhatTheSystemDoesNotTakeBackIsUsedAgain)
{
    constexpr size_t kNodes = 12000, kNodesOfAChunk = 63;
    NodePool &pool = NodePool::instance();
    const auto round = [&pool] {
        MappingSet::Node *list = nullptr;
        for (size_t i = 0; i < kNodes; i++) {
            auto *const node = new (pool.allocate()) MappingSet::Leaf;
            node->next = std::exchange(list, node);
        }
        pool.free(list);
    };
    const size_t chunks = pool.use().chunks;
    const size_t at_first = mapped;
    system_takes_back = false;
    round();
    EXPECT_GE(pool.use().chunks, kNodes / kNodesOfAChunk);
    const size_t after_one = mapped;
    for (int i = 0; i < 5; i++) {
        round();
        EXPECT_EQ(mapped, after_one);
    }
    system_takes_back = true;
    round();
    EXPECT_LE(pool.use().chunks, chunks + 2);
    // What one chunk that stays is part of.
    EXPECT_LE(mapped, at_first + (size_t{5} << 20));
}

TEST(Memory, W11_W6_AttachAnswersNomemAndChangesNothing)
{
    Machine machine(Config().bypass(true));
    Function &nic = machine.add(0x30);
    machine.add(0x38);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    machine.told();
    const Request request = Request::attach(2, 0x30);
    int status = 0;
    const long failures = starve(
        [&] {
            // From one translated domain to another: no callback, and with it no
            // journal that would allocate.
            status = send_starved(machine, request);
            return status == OK;
        },
        [&] {
            EXPECT_EQ(status, NOMEM);
            EXPECT_EQ(machine.stats().domains, 1u);
            EXPECT_EQ(machine.look(nic, 0x1000).phys, 0x5000u);
            EXPECT_EQ(machine.look(nic, 0x2000).rights, 0u);
            EXPECT_EQ(machine.told(), Told{});
        });
    EXPECT_GT(failures, 0);
    EXPECT_EQ(machine.look(nic, 0x1000).rights, 0u);
    EXPECT_EQ(machine.detach(2, 0x30), OK);
}

TEST(Memory, W11_JoiningADomainAnswersNomemToo)
{
    Machine machine;
    std::vector<Request> requests;
    machine.add(0x100);
    EXPECT_EQ(machine.attach(1, 0x100), OK);
    for (uint32_t id = 0x108; id < 0x200; id += 8) {
        machine.add(id);
        requests.push_back(Request::attach(1, id));
    }
    long failures = 0;
    for (const Request &request : requests) {
        int status = 0;
        failures += starve(
            [&] {
                status = send_starved(machine, request);
                return status == OK;
            },
            [&] { EXPECT_EQ(status, NOMEM); });
    }
    EXPECT_GT(failures, 0);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
}

TEST(Memory, W11_MembersToo)
{
    Machine machine;
    Function &bridge = machine.add(0x200);
    EXPECT_EQ(machine.attach(1, 0x200), OK);
    std::vector<Request> requests;
    for (uint32_t id = 0x201; id < 0x240; id++) {
        machine.add_behind(bridge, id);
        requests.push_back(Request::attach(1, id));
    }
    long failures = 0;
    for (const Request &request : requests) {
        int status = 0;
        failures += starve(
            [&] {
                status = send_starved(machine, request);
                return status == OK;
            },
            [&] { EXPECT_EQ(status, NOMEM); });
    }
    EXPECT_GT(failures, 0);
    for (uint32_t id = 0x200; id < 0x240; id++) {
        EXPECT_EQ(machine.detach(1, id), OK);
    }
    EXPECT_EQ(machine.stats().domains, 0u);
}

TEST(Memory, W11_WhatTakesAwayNeedsNone)
{
    Machine machine;
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    for (uint64_t page = 0; page < 200; page++) {
        EXPECT_EQ(machine.map(1, page << 12, (page << 12) + 0xfff, 0x5000), OK);
    }
    const Request unmap = Request::unmap(1, 0, 0xfffff);
    const Request detach = Request::detach(1, 0x30);
    const Request probe = Request::probe(0x30);
    allocations_left = 0;
    ViommuTranslation translation;
    viommu_endpoint_translate(nic.endpoint, MAX, RW, &translation);
    const int unmapped = send_starved(machine, unmap);
    const int probed = send_starved(machine, probe);
    const int detached = send_starved(machine, detach);
    viommu_engine_device_reset(machine.engine());
    viommu_endpoint_retire(nic.endpoint);
    allocations_left = -1;
    nic.retired = true;
    EXPECT_EQ(unmapped, OK);
    EXPECT_EQ(probed, OK);
    EXPECT_EQ(detached, OK);
    EXPECT_TRUE(translation.fault_queued);
}

TEST(Memory, W11_EndpointAndEngineAreNull)
{
    Machine machine;
    const ViommuRegion region{0x1000, 0x1fff, VIOMMU_RESV_RESERVED};
    ViommuEndpoint *endpoint = nullptr;
    EXPECT_GT(starve(
                  [&] {
                      endpoint = viommu_endpoint_new(machine.engine(), nullptr, &region, 1);
                      return endpoint != nullptr;
                  },
                  [] {}),
              0);
    viommu_endpoint_retire(endpoint);
    viommu_endpoint_free(endpoint);

    Config config;
    config.regions = &region;
    config.region_count = 1;
    const ViommuCallbacks callbacks = some_callbacks();
    ViommuEngine *engine = nullptr;
    char error[64] = "";
    EXPECT_GT(starve(
                  [&] {
                      engine =
                          viommu_engine_new(&config, &callbacks, nullptr, error, sizeof(error));
                      return engine != nullptr;
                  },
                  [&] { EXPECT_STRNE(error, ""); }),
              0);
    viommu_engine_free(engine);
}

TEST(Memory, W11_LoadAndCommitFailCleanly)
{
    Machine source;
    for (uint32_t id = 0x100; id < 0x140; id += 8) {
        source.add(id);
        EXPECT_EQ(source.attach(id / 16, id), OK);
        const uint64_t first = uint64_t{id} * 0x1000;
        EXPECT_EQ(source.map(id / 16, first, first + 0xfff, 0x5000), OK);
    }
    const std::vector<uint8_t> bytes = source.save();

    Machine machine;
    for (uint32_t id = 0x100; id < 0x140; id += 8) {
        machine.add(id);
    }
    struct Source {
        const std::vector<uint8_t> &bytes;
        size_t at;
    };
    const auto get = [](void *ctx, uint8_t *data, size_t size) {
        auto *const from = static_cast<Source *>(ctx);
        if (from->bytes.size() - from->at < size) {
            return false;
        }
        for (size_t i = 0; i < size; i++) {
            data[i] = from->bytes[from->at++];
        }
        return true;
    };
    char error[64] = "";
    const auto load = [&] {
        Source from{bytes, 0};
        return viommu_engine_load(machine.engine(), get, &from, error, sizeof(error));
    };
    EXPECT_GT(starve(load, [&] { EXPECT_STREQ(error, "out of memory"); }), 0);

    EXPECT_GT(
        starve(
            [&] { return viommu_engine_load_commit(machine.engine(), true, error, sizeof(error)); },
            [&] {
                EXPECT_STREQ(error, "out of memory");
                EXPECT_EQ(machine.stats().domains, 0u);
                EXPECT_TRUE(load());
            }),
        0);
    EXPECT_EQ(machine.save(), bytes);
}

} // namespace

} // namespace viommu::test
