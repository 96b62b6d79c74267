// SPDX-License-Identifier: GPL-2.0-or-later
//
// The container of mappings: against a naive model, and with readers beside the
// writer.
#include "mapping/mapping_set.h"
#include "mapping/node_pool.h"
#include "mapping/nodes.h"
#include "readers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <iterator>
#include <map>
#include <numeric>
#include <random>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace viommu::test
{

namespace
{

constexpr uint64_t kPage = 4096;

Mapping mapping_at(uint64_t page, uint64_t pages, uint64_t salt = 0)
{
    return Mapping{page * kPage, (page + pages) * kPage - 1, (page ^ 0x5555) * kPage + salt,
                   static_cast<uint32_t>(page % 8)};
}

bool same(const Mapping &a, const Mapping &b)
{
    return a.iova == b.iova && a.last == b.last && a.phys == b.phys && a.flags == b.flags;
}

// What the set says, by the naive way.
class Model
{
public:
    const Mapping *find(uint64_t iova) const
    {
        const auto after = entries.upper_bound(iova);
        if (after == entries.begin()) {
            return nullptr;
        }
        const Mapping &below = std::prev(after)->second;
        return iova <= below.last ? &below : nullptr;
    }
    const Mapping *next(uint64_t iova) const
    {
        const auto entry = entries.lower_bound(iova);
        return entry == entries.end() ? nullptr : &entry->second;
    }

    std::map<uint64_t, Mapping> entries;
};

void expect_same(const std::optional<Mapping> &got, const Mapping *wanted)
{
    ASSERT_EQ(got.has_value(), wanted != nullptr);
    if (wanted) {
        ASSERT_TRUE(same(*got, *wanted)) << std::hex << got->iova << " for " << wanted->iova;
    }
}

void expect_equal(const MappingSet &set, const Model &model)
{
    ASSERT_EQ(set.size(), model.entries.size());
    auto got = set.next(0);
    for (const auto &[iova, wanted] : model.entries) {
        expect_same(got, &wanted);
        expect_same(set.find(wanted.iova), &wanted);
        expect_same(set.find(wanted.last), &wanted);
        got = set.after(*got);
    }
    ASSERT_FALSE(got.has_value());
}

size_t count_removed(MappingSet &set, uint64_t first, uint64_t last)
{
    const auto removed = set.remove(first, last);
    return removed ? removed->count : SIZE_MAX;
}

// Inserts and removes at random, in an address space of `pages`.
void random_rounds(uint32_t seed, uint64_t pages, int rounds, uint64_t longest,
                   uint64_t page_size = kPage)
{
    std::mt19937 random(seed);
    const auto below = [&](uint64_t n) { return random() % n; };
    MappingSet set;
    Model model;
    for (int round = 0; round < rounds; round++) {
        // Phases of growth and of decay, so that trees rise and fall.
        const bool grow = below(8) < (round / (rounds / 8) % 2 == 0 ? 7u : 2u);
        const uint64_t page = below(pages);
        const uint64_t length = 1 + below(longest);
        const Mapping mapping{page * page_size, (page + length) * page_size - 1,
                              (page ^ 0x5555) * page_size + 1, static_cast<uint32_t>(page % 8)};
        if (grow) {
            const Mapping *const following = model.next(mapping.iova);
            const bool taken =
                model.find(mapping.iova) || (following && following->iova <= mapping.last);
            ASSERT_EQ(set.overlaps(mapping.iova, mapping.last), taken);
            ASSERT_EQ(set.insert(mapping), !taken);
            if (!taken) {
                model.entries.emplace(mapping.iova, mapping);
            }
        } else {
            // Some reach over many leaves.
            const uint64_t last = mapping.last + below(below(50) == 0 ? pages / 2 : 40) * page_size;
            const Mapping *const low = model.find(mapping.iova);
            const Mapping *const high = model.find(last);
            const bool splits = (low && low->iova < mapping.iova) || (high && high->last > last);
            ASSERT_EQ(set.splits(mapping.iova, last), splits);
            const std::optional<MappingSet::Removed> gone = set.remove(mapping.iova, last);
            ASSERT_EQ(gone.has_value(), !splits) << std::hex << mapping.iova << ' ' << last;
            if (gone) {
                const auto from = model.entries.lower_bound(mapping.iova);
                const auto to = model.entries.upper_bound(last);
                ASSERT_EQ(gone->count, static_cast<size_t>(std::distance(from, to)));
                if (gone->count > 0) {
                    ASSERT_EQ(gone->first, from->first);
                    ASSERT_EQ(gone->last, std::prev(to)->second.last);
                }
                model.entries.erase(from, to);
            }
        }
        const uint64_t probe = below(pages * page_size);
        expect_same(set.find(probe), model.find(probe));
        expect_same(set.next(probe), model.next(probe));
        if (::testing::Test::HasFatalFailure()) {
            return;
        }
    }
    expect_equal(set, model);
}

TEST(MappingSet, AgreesWithANaiveModel)
{
    for (uint32_t seed = 1; seed <= 4 && !HasFatalFailure(); seed++) {
        random_rounds(seed, 1000, 20000, 8);
        random_rounds(seed + 100, 200000, 60000, 3);
        random_rounds(seed + 200, 60, 5000, 4);
        // Longer and shorter than one slot of a leaf can say.
        random_rounds(seed + 300, 3000, 20000, 9, uint64_t{1} << 27);
    }
}

TEST(MappingSet, FillsInOrderAndAgainstItAndEmpties)
{
    constexpr uint64_t kCount = 50000;
    for (const bool upwards : {true, false}) {
        MappingSet set;
        Model model;
        for (uint64_t i = 0; i < kCount; i++) {
            const Mapping mapping = mapping_at(upwards ? i : kCount - 1 - i, 1);
            set.insert(mapping);
            model.entries.emplace(mapping.iova, mapping);
        }
        expect_equal(set, model);
        EXPECT_EQ(count_removed(set, 0, UINT64_MAX), kCount);
        EXPECT_TRUE(set.empty());
        EXPECT_FALSE(set.find(0));
        EXPECT_FALSE(set.next(0));
        EXPECT_EQ(count_removed(set, 0, UINT64_MAX), 0u);
    }
}

// A mapping that starts in one leaf may cover addresses that, by its start, the
// next leaf would be asked about.
TEST(MappingSet, W7_LongMappingReachesOverThePlaceOfRemovedOnes)
{
    MappingSet set;
    for (uint64_t i = 0; i < 2000; i++) {
        set.insert(mapping_at(10 * i, 1));
    }
    ASSERT_EQ(count_removed(set, 10 * kPage, kPage * 10 * 1999 - 1), 1998u);
    const Mapping bridge{5 * kPage, kPage * 10 * 1998 - 1, 0x1234000, 3};
    ASSERT_FALSE(set.overlaps(bridge.iova, bridge.last));
    set.insert(bridge);
    for (uint64_t i = 1; i < 1998; i++) {
        const auto found = set.find(10 * i * kPage + 17);
        ASSERT_TRUE(found && same(*found, bridge)) << i;
    }
    EXPECT_FALSE(set.find(bridge.last + 1));
    EXPECT_FALSE(set.find(bridge.iova - 1));
}

TEST(MappingSet, TheLastAddress)
{
    MappingSet set;
    const Mapping whole{0, UINT64_MAX, 0, 3};
    set.insert(whole);
    for (const uint64_t at : {uint64_t{0}, uint64_t{1} << 63, UINT64_MAX}) {
        ASSERT_TRUE(set.find(at));
    }
    EXPECT_FALSE(set.after(whole));
    EXPECT_EQ(count_removed(set, 0, UINT64_MAX), 1u);
    const Mapping top{UINT64_MAX - 0xfff, UINT64_MAX, 0x1000, 3};
    set.insert(top);
    EXPECT_TRUE(set.find(UINT64_MAX));
    EXPECT_FALSE(set.find(top.iova - 1));
}

// Collects what is to be reclaimed.
class Waiting final : public Reclaimer
{
public:
    ~Waiting() { finish(); }
    void defer(ViommuDeferred &object) noexcept override
    {
        deferrals++;
        object.link[0] = first_;
        first_ = &object;
    }
    // Calls each once; false if nothing is left.
    bool step()
    {
        ViommuDeferred *list = std::exchange(first_, nullptr);
        while (list) {
            ViommuDeferred *const deferred = list;
            list = static_cast<ViommuDeferred *>(list->link[0]);
            if (deferred->reclaim(deferred)) {
                deferred->link[0] = std::exchange(first_, deferred);
            }
        }
        return first_ != nullptr;
    }
    void finish()
    {
        while (step()) {
        }
    }
    size_t deferrals = 0;

private:
    ViommuDeferred *first_ = nullptr;
};

NodePool::Use use()
{
    return NodePool::instance().use();
}

constexpr uint64_t kMany = 100000;
constexpr size_t kChunk = 65536;

void fill(MappingSet &set, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        set.insert(mapping_at(i, 1));
    }
}

// Removes these pages and says what the others take, in bytes each.
double bytes_each_without(const std::vector<uint64_t> &pages)
{
    MappingSet set;
    fill(set, kMany);
    for (const uint64_t page : pages) {
        EXPECT_EQ(count_removed(set, page * kPage, (page + 1) * kPage - 1), 1u);
    }
    EXPECT_EQ(set.size(), kMany - pages.size());
    return static_cast<double>(set.memory()) / static_cast<double>(set.size());
}

// Memory follows the number of mappings also if a driver thins them out.
TEST(MappingSet, W11_ThinnedOutNodesMergeInWhateverOrder)
{
    std::vector<uint64_t> pages;
    for (uint64_t page = 0; page < kMany; page++) {
        if (page % 29 != 0) {
            pages.push_back(page);
        }
    }
    // Not even a quarter of its slots in use, a leaf merges: with 12 of 48 it is 85.
    EXPECT_LT(bytes_each_without(pages), 90) << "upwards";
    std::reverse(pages.begin(), pages.end());
    EXPECT_LT(bytes_each_without(pages), 90) << "downwards";
    for (const uint32_t seed : {1u, 2u, 3u}) {
        std::shuffle(pages.begin(), pages.end(), std::mt19937_64(seed));
        EXPECT_LT(bytes_each_without(pages), 90) << "shuffled " << seed;
    }
    // From the ends to the middle, and back.
    std::sort(pages.begin(), pages.end(), [](uint64_t a, uint64_t b) {
        const auto distance = [](uint64_t page) { return page < kMany / 2 ? page : kMany - page; };
        return distance(a) < distance(b);
    });
    EXPECT_LT(bytes_each_without(pages), 90) << "to the middle";
    std::reverse(pages.begin(), pages.end());
    EXPECT_LT(bytes_each_without(pages), 90) << "from the middle";
}

// The worst that a driver can do: each other leaf keeps one, those between keep just
// what lets them stay.
TEST(MappingSet, W11_ThinnedOutNodesTakeABoundedTimesMore)
{
    constexpr uint64_t kSlots = MappingSet::Leaf::kSlots;
    std::vector<uint64_t> pages;
    for (const uint64_t parity : {1u, 0u}) {
        for (uint64_t page = 0; page < kMany; page++) {
            if (page / kSlots % 2 == parity && page % kSlots >= (parity == 1 ? 1 : kSlots / 4)) {
                pages.push_back(page);
            }
        }
    }
    EXPECT_LT(bytes_each_without(pages), 165);
}

// ThreadSanitizer keeps a shadow of what is given back: memory and mappings of its own, as
// many as it likes.  What the pool says of itself is checked there as well.
#if defined(__SANITIZE_THREAD__)
constexpr bool kProcessIsOurs = false;
#else
constexpr bool kProcessIsOurs = true;
#endif
constexpr size_t kFewMappings = 4;

size_t kernel_mappings()
{
    std::ifstream maps("/proc/self/maps");
    return static_cast<size_t>(std::count(std::istreambuf_iterator<char>(maps), {}, '\n'));
}

size_t resident()
{
    std::ifstream statm("/proc/self/statm");
    size_t size = 0, pages = 0;
    statm >> size >> pages;
    return pages * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

// A process has 65530 mappings; a hole in one makes one more.
TEST(MappingSet, W11_MemoryGoesBackInPiecesAndKernelMappingsStayFew)
{
    constexpr size_t kChunks = 512, kNodes = kChunks * (kChunk / 1024 - 1);
    std::vector<MappingSet::Node *> nodes(kNodes);
    const size_t mappings = kernel_mappings();
    const size_t chunks = use().chunks;
    for (MappingSet::Node *&node : nodes) {
        node = new (NodePool::instance().allocate()) MappingSet::Leaf;
    }
    const size_t full = use().chunks, resident_full = resident();
    ASSERT_GE(full - chunks, kChunks - 2);

    // All nodes of every other chunk, then of the others.
    const auto free_those = [&nodes](uintptr_t parity) {
        MappingSet::Node *list = nullptr;
        for (MappingSet::Node *&node : nodes) {
            if (node && reinterpret_cast<uintptr_t>(node) / kChunk % 2 == parity) {
                node->next = list;
                list = std::exchange(node, nullptr);
            }
        }
        NodePool::instance().free(list);
    };
    free_those(0);
    const size_t gone = full - use().chunks;
    EXPECT_GE(gone, kChunks / 2 - 2);
    if (kProcessIsOurs) {
        EXPECT_GE(resident_full - resident(), gone * kChunk * 3 / 4);
        EXPECT_LE(kernel_mappings(), mappings + kChunks / 64 + kFewMappings);
    }

    free_those(1);
    EXPECT_LE(use().chunks, chunks + 2);
    if (kProcessIsOurs) {
        EXPECT_GE(resident_full - resident(), (full - use().chunks) * kChunk * 3 / 4);
        EXPECT_LE(kernel_mappings(), mappings + kFewMappings);
    }
}

// What a set says of its memory, against what the pool gave.
TEST(MappingSet, W11_MemoryIsThatOfTheNodes)
{
    const size_t before = use().nodes;
    const auto expect_same = [before](const MappingSet &set) {
        ASSERT_EQ(set.memory(), (use().nodes - before) * 1024);
    };
    std::mt19937_64 random(1);
    MappingSet set;
    expect_same(set);
    for (const uint64_t space : {uint64_t{500}, uint64_t{40000}, uint64_t{1} << 40}) {
        for (int i = 0; i < 30000; i++) {
            const size_t held = set.memory();
            set.insert(mapping_at(random() % space, 1));
            ASSERT_LE(set.memory(), held + MappingSet::kInsertMemory);
            if (i % 8 == 0) {
                const uint64_t first = random() % space * kPage;
                set.remove(first, first + (random() % 64 + 1) * kPage - 1);
            }
            if (i % 1000 == 0) {
                const uint64_t first = random() % space * kPage;
                set.remove(first, first + space / 16 * kPage - 1);
            }
            expect_same(set);
        }
        MappingSet moved(std::move(set));
        expect_same(moved);
        EXPECT_EQ(set.memory(), 0u);
        moved.remove(0, UINT64_MAX);
        expect_same(moved);
    }
}

// Several steps to free.
constexpr uint64_t kManySteps = 110000;

// Inserted in order and at random: the order in which memory was given out decides
// when chunks become free.
TEST(MappingSet, W22_ManyMappingsGoInOneStrokeAndAreFreedInBoundedSteps)
{
    std::vector<uint64_t> pages(kManySteps);
    std::iota(pages.begin(), pages.end(), 0);
    for (const bool shuffled : {false, true}) {
        if (shuffled) {
            std::shuffle(pages.begin(), pages.end(), std::mt19937_64(1));
        }
        const NodePool::Use before = use();
        Waiting reclaimer;
        MappingSet set(&reclaimer);
        for (const uint64_t page : pages) {
            set.insert(mapping_at(page, 1));
        }
        const NodePool::Use full = use();
        const size_t nodes = full.nodes - before.nodes;
        const size_t chunks = full.chunks - before.chunks;
        ASSERT_GT(nodes, 2 * NodePool::kStep);
        ASSERT_GT(chunks, 2 * NodePool::kStepChunks);

        EXPECT_EQ(count_removed(set, 0, UINT64_MAX), kManySteps);
        EXPECT_TRUE(set.empty());
        EXPECT_FALSE(set.find(kPage));
        EXPECT_EQ(reclaimer.deferrals, 1u);
        EXPECT_EQ(use().nodes, full.nodes); // nothing was freed at once

        size_t steps = 0;
        for (bool more = true; more; steps++) {
            const NodePool::Use left = use();
            more = reclaimer.step();
            // One beyond: the node that was waited with.
            EXPECT_LE(left.nodes - use().nodes, NodePool::kStep + 1);
            EXPECT_LE(left.chunks - use().chunks, NodePool::kStepChunks);
            ASSERT_LE(steps, nodes / NodePool::kStep + chunks / NodePool::kStepChunks + 4);
        }
        EXPECT_EQ(use().nodes, before.nodes);
        EXPECT_LE(use().chunks, before.chunks + 2);
    }
}

TEST(MappingSet, W22_AllButTheEndsGoInOneStroke)
{
    const size_t before = use().nodes;
    Waiting reclaimer;
    MappingSet set(&reclaimer);
    fill(set, kMany);
    const size_t nodes = use().nodes - before;
    EXPECT_EQ(count_removed(set, kPage, (kMany - 1) * kPage - 1), kMany - 2);
    EXPECT_EQ(reclaimer.deferrals, 1u);
    EXPECT_EQ(use().nodes - before, nodes);
    EXPECT_EQ(set.size(), 2u);
    expect_same(set.next(0), &static_cast<const Mapping &>(mapping_at(0, 1)));
    expect_same(set.next(1), &static_cast<const Mapping &>(mapping_at(kMany - 1, 1)));
    reclaimer.finish();
    EXPECT_LE(use().nodes - before, 2u);
}

TEST(MappingSet, W11_GarbageIsUsedBeforeMoreMemoryIs)
{
    Waiting reclaimer;
    MappingSet set(&reclaimer);
    fill(set, kManySteps);
    const size_t chunks = use().chunks;
    set.clear();
    reclaimer.step();
    // As fast as a driver may be: one step for each round.
    for (int round = 0; round < 5; round++) {
        fill(set, kManySteps / 2);
        EXPECT_LE(use().chunks, chunks);
        EXPECT_EQ(count_removed(set, 0, UINT64_MAX), kManySteps / 2);
        reclaimer.step();
    }
    expect_equal(set, Model());
    reclaimer.finish();
}

TEST(MappingSet, W22_ManyListsGetOneStepAtATime)
{
    const size_t before = use().nodes;
    Waiting reclaimer;
    for (int i = 0; i < 20; i++) {
        MappingSet set(&reclaimer);
        fill(set, kMany / 2);
        set.clear();
    }
    EXPECT_EQ(reclaimer.deferrals, 20u);
    for (bool more = true; more;) {
        const size_t left = use().nodes;
        more = reclaimer.step();
        EXPECT_LE(left - use().nodes, NodePool::kStep + 1);
    }
    EXPECT_EQ(use().nodes, before);
}

// The figures of the header.
TEST(MappingSet, W11_BytesPerMapping)
{
    const auto bytes = [](size_t before) {
        return static_cast<double>((use().chunks - before) * kChunk) / kMany;
    };
    std::mt19937_64 random(1);
    std::vector<uint64_t> pages(kMany);
    for (uint64_t i = 0; i < kMany; i++) {
        pages[i] = i;
    }
    const size_t before = use().chunks;
    for (const bool upwards : {true, false}) {
        MappingSet set;
        for (uint64_t i = 0; i < kMany; i++) {
            set.insert(mapping_at(upwards ? i : kMany - 1 - i, 1));
        }
        EXPECT_LE(bytes(before), 24);
    }
    EXPECT_LE(use().chunks, before + 2);
    std::shuffle(pages.begin(), pages.end(), random);
    {
        MappingSet set;
        for (const uint64_t page : pages) {
            set.insert(mapping_at(page, 1));
        }
        EXPECT_LE(bytes(before), 34);
    }
    {
        MappingSet set;
        for (uint64_t i = 0; i < kMany; i++) {
            set.insert(mapping_at(random() >> 20, 1));
        }
        EXPECT_GT(set.size(), kMany - 100);
        EXPECT_LE(bytes(before), 34);
    }
    EXPECT_LE(use().chunks, before + 2);
}

// Waits for the readers of the moment, as RCU does.
class GracePeriods final : public Reclaimer
{
public:
    void defer(ViommuDeferred &object) noexcept override
    {
        object.link[0] = first_;
        first_ = &object;
    }
    void reclaim()
    {
        Readers::wait();
        while (first_) {
            ViommuDeferred *const deferred = first_;
            first_ = static_cast<ViommuDeferred *>(deferred->link[0]);
            while (deferred->reclaim(deferred)) {
            }
        }
    }
    ~GracePeriods() { reclaim(); }

private:
    ViommuDeferred *first_ = nullptr;
};

// From the middle of a leaf to the middle of the first leaf of another branch: many
// leaves go with their branches, none is changed that stays beside them.
TEST(MappingSet, W7_W20_WhatIsSeenDuringARemovalHoldsNotAfterIt)
{
    constexpr uint64_t kLeaf = MappingSet::Leaf::kSlots;
    constexpr uint64_t kBranch = kLeaf * (MappingSet::Inner::kChildren - 1); // in order
    constexpr uint64_t kFirst = kBranch + kLeaf * 30 + kLeaf / 2;
    constexpr uint64_t kEnd = 19 * kBranch + kLeaf / 2;
    constexpr uint64_t kTarget = 10 * kBranch * kPage;
    constexpr unsigned kRounds = 30; // with a look during the removal

    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    unsigned rounds = 0;
    while (rounds < kRounds && std::chrono::steady_clock::now() < limit) {
        Waiting reclaimer;
        MappingSet set(&reclaimer);
        fill(set, 20 * kBranch);

        std::atomic<uint64_t> looks{0};
        std::atomic<bool> over{false};
        bool held = false;
        std::thread reader([&] {
            MappingSet::Stamp kept{};
            while (!over) {
                MappingSet::Stamp stamp{};
                if (set.find(kTarget, stamp)) {
                    kept = stamp;
                    looks.fetch_add(1);
                }
            }
            held = set.holds(kept);
        });
        while (looks == 0) {
            std::this_thread::yield();
        }
        const uint64_t before = looks;
        ASSERT_EQ(count_removed(set, kFirst * kPage, kEnd * kPage - 1), kEnd - kFirst);
        rounds += looks != before ? 1 : 0;
        over = true;
        reader.join();
        EXPECT_FALSE(held);
        EXPECT_FALSE(set.find(kTarget));
    }
    EXPECT_GT(rounds, 0u) << "no look was made during a removal";
}

TEST(MappingSet, ReadersAlwaysSeeWhatStaysAndNeverWhatIsNot)
{
    constexpr uint64_t kStable = 3000; // at every 64th page, never touched
    GracePeriods reclaimer;
    MappingSet set(&reclaimer);
    for (uint64_t i = 0; i < kStable; i++) {
        set.insert(mapping_at(64 * i, 1));
    }

    std::atomic<bool> stop{false};
    std::atomic<uint64_t> lost{0}, wrong{0}, looks{0};
    const auto reader = [&](uint32_t seed) {
        std::mt19937 random(seed);
        while (!stop.load(std::memory_order_relaxed)) {
            const Readers::Section inside;
            for (int i = 0; i < 200; i++) {
                const uint64_t page = random() % (64 * kStable);
                const auto found = set.find(page * kPage + random() % kPage);
                if (page % 64 == 0 && !found) {
                    lost++;
                }
                if (found && !same(*found, mapping_at(found->iova / kPage, 1))) {
                    wrong++;
                }
                // Pages 63 are never mapped.
                if (found && page % 64 == 63) {
                    wrong++;
                }
                looks++;
            }
        }
    };
    std::thread first(reader, 1), second(reader, 2);

    std::mt19937 random(3);
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(1200);
    while (std::chrono::steady_clock::now() < until) {
        // Fill some gaps, then empty them again: leaves split, merge and go.
        const uint64_t base = random() % (kStable - 40);
        for (uint64_t gap = base; gap < base + 40; gap++) {
            for (uint64_t page = 1; page < 63; page++) {
                set.insert(mapping_at(64 * gap + page, 1));
            }
        }
        // One by one, in one stroke, or all between two that stay.
        for (uint64_t gap = base; gap < base + 40; gap++) {
            const uint64_t from = (64 * gap + 1) * kPage, last = (64 * gap + 63) * kPage - 1;
            if (gap % 2 == 0) {
                for (uint64_t at = from; at < last; at += kPage) {
                    ASSERT_EQ(count_removed(set, at, at + kPage - 1), 1u);
                }
            } else {
                ASSERT_EQ(count_removed(set, from, last), 62u);
            }
        }
        const uint64_t gap = random() % kStable;
        for (uint64_t page = 1; page < 63; page++) {
            set.insert(mapping_at(64 * gap + page, 1));
        }
        ASSERT_EQ(count_removed(set, (64 * gap + 1) * kPage, (64 * gap + 63) * kPage - 1), 62u);
        reclaimer.reclaim();
    }
    stop = true;
    first.join();
    second.join();
    EXPECT_EQ(lost, 0u);
    EXPECT_EQ(wrong, 0u);
    EXPECT_GT(looks, 1000u);
    EXPECT_EQ(set.size(), kStable);
}

} // namespace

} // namespace viommu::test
