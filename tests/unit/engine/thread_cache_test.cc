// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a thread remembers of its translations: answers, as long as they are
// right, and how many there were.
#include "base/pages.h"
#include "engine/thread_cache.h"
#include "machine.h"

#include <condition_variable>
#include <thread>
#include <utility>

namespace viommu::test
{

namespace
{

constexpr uint64_t kPage = 0x1000;

// Everything is asked twice: the second answer may be a remembered one.
class ThreadCaches : public ::testing::Test
{
protected:
    ThreadCaches()
    {
        machine.add(0x38);
        EXPECT_EQ(machine.attach(1, 0x30), OK);
        EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
        EXPECT_EQ(twice(0x1234), 0x5234u);
    }

    std::optional<uint64_t> twice(uint64_t iova)
    {
        const std::optional<uint64_t> first = machine.read(nic, iova);
        EXPECT_EQ(machine.read(nic, iova), first);
        return first;
    }

    Machine machine{Config().bypass(false).quota(100000, 10)};
    Function &nic = machine.add(0x30);
};

TEST_F(ThreadCaches, UNM_5_NotBeyondTheMapping)
{
    EXPECT_EQ(machine.unmap(1, 0x1000, 0x1fff), OK);
    EXPECT_EQ(twice(0x1234), FAULT);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x9000), OK);
    EXPECT_EQ(twice(0x1234), 0x9234u);
}

TEST_F(ThreadCaches, UNM_5_NotBeyondAMappingAmongMany)
{
    for (uint64_t page = 2; page < 20000; page++) {
        ASSERT_EQ(machine.map(1, page * kPage, page * kPage + 0xfff, page * kPage), OK);
    }
    // In one leaf, in a node that goes, and in the one in which the cut ends.
    EXPECT_EQ(twice(0x1234), 0x5234u);
    EXPECT_EQ(twice(10000 * kPage), 10000 * kPage);
    EXPECT_EQ(twice(15003 * kPage), 15003 * kPage);
    EXPECT_EQ(machine.unmap(1, 0x2000, 15003 * kPage + 0xfff), OK);
    EXPECT_EQ(twice(0x1234), 0x5234u);
    EXPECT_EQ(twice(10000 * kPage), FAULT);
    EXPECT_EQ(twice(15003 * kPage), FAULT);
    EXPECT_EQ(twice(15004 * kPage), 15004 * kPage);
    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    EXPECT_EQ(twice(0x1234), FAULT);
    EXPECT_EQ(twice(15004 * kPage), FAULT);
}

// What is added in the place of a fault is found at once.
TEST_F(ThreadCaches, MAP_6_FaultsAreNotRemembered)
{
    EXPECT_EQ(twice(0x2000), FAULT);
    EXPECT_EQ(machine.map(1, 0x2000, 0x2fff, 0x7000, R), OK);
    EXPECT_EQ(twice(0x2000), 0x7000u);
    EXPECT_EQ(machine.write(nic, 0x2000), FAULT);
    EXPECT_EQ(twice(0x2000), 0x7000u);
}

TEST_F(ThreadCaches, DET_4_NotBeyondTheAttachment)
{
    EXPECT_EQ(machine.attach(2, 0x38), OK);
    EXPECT_EQ(machine.map(2, 0x1000, 0x1fff, 0x8000), OK);
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    EXPECT_EQ(twice(0x1234), 0x8234u);
    EXPECT_EQ(machine.detach(2, 0x30), OK);
    EXPECT_EQ(twice(0x1234), FAULT);
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    EXPECT_EQ(twice(0x1234), 0x8234u);
    EXPECT_EQ(machine.attach(3, 0x30, BYPASS), OK);
    EXPECT_EQ(twice(0x1234), 0x1234u);
}

TEST_F(ThreadCaches, W5_NotBeyondAReset)
{
    viommu_engine_device_reset(machine.engine());
    EXPECT_EQ(twice(0x1234), FAULT);
    machine.drive();
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(twice(0x1234), FAULT);
}

// The block is remembered, no more of the mapping than holds together.
TEST_F(ThreadCaches, W8_BlocksOfALargeMapping)
{
    EXPECT_EQ(machine.map(1, 0x200000, 0x5fffff, 0x80201000), OK);
    for (uint64_t iova = 0x200000; iova < 0x600000; iova += 0x777) {
        ASSERT_EQ(twice(iova), iova - 0x200000 + 0x80201000);
    }
    EXPECT_EQ(machine.map(1, 0x40000000, 0x403fffff, 0x80000000), OK);
    for (uint64_t iova = 0x40000000; iova < 0x40400000; iova += 0x777) {
        ASSERT_EQ(twice(iova), iova + 0x40000000);
    }
    EXPECT_EQ(machine.look(nic, 0x40123456).mask, 0x3fffffu);
    EXPECT_EQ(machine.look(nic, 0x40123456).mask, 0x3fffffu);
    EXPECT_EQ(twice(0x40400000), FAULT);
}

// Runs `work` in so many threads; none ends before all have done it and `meanwhile` has run.
void together(int count, const std::function<void()> &work, const std::function<void()> &meanwhile)
{
    std::mutex lock;
    std::condition_variable changed;
    int waiting = 0;
    bool over = false;
    std::vector<std::thread> threads;
    for (int i = 0; i < count; i++) {
        threads.emplace_back([&] {
            work();
            std::unique_lock guard(lock);
            waiting++;
            changed.notify_all();
            changed.wait(guard, [&] { return over; });
        });
    }
    {
        std::unique_lock guard(lock);
        changed.wait(guard, [&] { return waiting == count; });
        meanwhile();
        over = true;
    }
    changed.notify_all();
    for (std::thread &thread : threads) {
        thread.join();
    }
}

TEST_F(ThreadCaches, W11_WhatThreadsRememberIsLimitedForEachIommu)
{
    constexpr size_t kEndpoints = 20, kThreads = 60;
    std::vector<Function *> functions;
    for (uint32_t i = 0; i < kEndpoints; i++) {
        functions.push_back(&machine.add(0x100 + 8 * i));
        ASSERT_EQ(machine.attach(1, 0x100 + 8 * i), OK);
    }
    const ViommuStats before = machine.stats();
    std::atomic<uint64_t> wrong{0};
    together(
        kThreads,
        [&] {
            for (Function *function : functions) {
                for (int i = 0; i < 3; i++) {
                    ViommuTranslation translation;
                    Machine::translate(*function, 0x1234, RW, translation);
                    wrong += translation.phys != 0x5234 || translation.rights != RW;
                }
            }
        },
        [&] {
            const uint64_t remembered = machine.stats().remembered;
            EXPECT_EQ(remembered, 1024 * whole_pages((64 << 10) + 1)); // 68 MiB
        });
    EXPECT_EQ(wrong, 0u);
    const ViommuStats after = machine.stats();
    EXPECT_EQ(after.translations - before.translations, kEndpoints * kThreads * 3);
}

// Those that go are freed when no thread can have them, and what they counted stays.
TEST_F(ThreadCaches, W11_WhatThreadsRememberGoesWithTheAttachment)
{
    const auto expect_gone = [this](const char *why, const std::function<void()> &end) {
        machine.drive();
        ASSERT_EQ(machine.attach(1, 0x30), OK) << why;
        machine.map(1, 0x1000, 0x1fff, 0x5000);
        EXPECT_EQ(twice(0x1234), 0x5234u) << why;
        const ViommuStats before = machine.stats();
        EXPECT_EQ(before.remembered, whole_pages(sizeof(ThreadCache))) << why;
        machine.hold();
        end();
        EXPECT_EQ(machine.stats().remembered, before.remembered) << why;
        EXPECT_EQ(machine.stats().translations, before.translations) << why;
        machine.reclaim();
        EXPECT_EQ(machine.stats().remembered, 0u) << why;
        EXPECT_EQ(machine.stats().translations, before.translations) << why;
    };
    expect_gone("detach", [this] { EXPECT_EQ(machine.detach(1, 0x30), OK); });
    expect_gone("device reset", [this] { viommu_engine_device_reset(machine.engine()); });
    expect_gone("system reset", [this] { viommu_engine_system_reset(machine.engine()); });
    expect_gone("unplug", [this] { machine.retire(nic); });
}

// However many go at once.
TEST(CacheStore, W11_CachesAreFreedInBoundedSteps)
{
    struct Waiting final : Reclaimer {
        void defer(ViommuDeferred &object) noexcept override { deferred.push_back(&object); }
        std::vector<ViommuDeferred *> deferred;
    } reclaimer;
    const auto store = std::make_shared<viommu::CacheStore>();
    constexpr size_t kLists = 10, kCaches = 50;
    const size_t size = whole_pages(sizeof(ThreadCache));
    std::vector<std::unique_ptr<viommu::ThreadCaches>> caches;
    for (size_t i = 0; i < kLists; i++) {
        ThreadCache *list = nullptr;
        for (size_t n = 0; n < kCaches; n++) {
            caches.push_back(std::make_unique<viommu::ThreadCaches>(store));
            caches.back()->mine()->count_translation();
            caches.back()->mine()->hit(0x1000).attachments = 2;
            caches.back()->drop(list);
        }
        viommu::CacheStore::defer(list, reclaimer);
    }
    EXPECT_EQ(store->memory(), kLists * kCaches * size);
    size_t rounds = 0;
    for (; !reclaimer.deferred.empty(); rounds++) {
        const size_t left = store->memory();
        for (ViommuDeferred *object : std::exchange(reclaimer.deferred, {})) {
            if (object->reclaim(object)) {
                reclaimer.deferred.push_back(object);
            }
        }
        EXPECT_LE(left - store->memory(), (viommu::CacheStore::kStep + 1) * size);
        ASSERT_LT(rounds, kLists * kCaches);
    }
    EXPECT_EQ(store->memory(), 0u);
    EXPECT_GE(rounds, kLists * kCaches / (viommu::CacheStore::kStep + 1));
    for (const auto &each : caches) {
        EXPECT_EQ(each->counts().translations, 1u);
    }
    // What comes back is as new: it remembers nothing.
    ThreadCache *const again = caches.front()->mine();
    ASSERT_NE(again, nullptr);
    EXPECT_EQ(again->counts().translations, 0u);
    EXPECT_EQ(again->hit(0x1000).attachments, Hit::kNone);
}

// A thread may have a cache in hand that is dropped meanwhile.
TEST(CacheStore, W22_WhatIsCountedAfterADropCounts)
{
    struct Waiting final : Reclaimer {
        void defer(ViommuDeferred &object) noexcept override { deferred = &object; }
        ViommuDeferred *deferred = nullptr;
    } reclaimer;
    viommu::ThreadCaches caches(std::make_shared<viommu::CacheStore>());
    ThreadCache *const in_hand = caches.mine();
    ASSERT_NE(in_hand, nullptr);
    in_hand->count_translation();
    ThreadCache *list = nullptr;
    caches.drop(list);
    viommu::CacheStore::defer(list, reclaimer);
    in_hand->count_translation();
    in_hand->count_fault();
    EXPECT_EQ(caches.counts().translations, 1u);
    while (reclaimer.deferred->reclaim(reclaimer.deferred)) {
    }
    EXPECT_EQ(caches.counts().translations, 2u);
    EXPECT_EQ(caches.counts().faults, 1u);
}

TEST(CacheStore, W11_AnEngineMayGoBeforeItsCaches)
{
    std::vector<ViommuDeferred *> deferred;
    ViommuCallbacks callbacks = some_callbacks();
    callbacks.defer = [](void *opaque, ViommuDeferred *object) {
        static_cast<std::vector<ViommuDeferred *> *>(opaque)->push_back(object);
    };
    const Config config;
    char error[100];
    ViommuEngine *const engine =
        viommu_engine_new(&config, &callbacks, &deferred, error, sizeof(error));
    ViommuEndpoint *const endpoint = viommu_endpoint_new(engine, nullptr, nullptr, 0);
    ViommuTranslation translation;
    viommu_endpoint_translate(endpoint, 0x1000, R, &translation);
    viommu_endpoint_retire(endpoint);
    viommu_endpoint_free(endpoint);
    viommu_engine_free(engine);
    EXPECT_EQ(deferred.size(), 1u);
    for (ViommuDeferred *object : deferred) {
        while (object->reclaim(object)) {
        }
    }
}

// More threads than have caches, at the same time, and others in their place.
TEST_F(ThreadCaches, W22_CountsOfAllThreadsAreExact)
{
    const ViommuStats before = machine.stats();
    constexpr int kThreads = 100, kRounds = 3;
    constexpr uint64_t kEach = 200;
    for (int round = 0; round < kRounds; round++) {
        together(
            kThreads,
            [&] {
                ViommuTranslation translation;
                for (uint64_t n = 0; n < kEach; n++) {
                    Machine::translate(nic, 0x1000, R, translation);
                    Machine::translate(nic, 0x2000, R, translation);
                    Machine::translate(nic, 0x1000, 0, translation);
                }
            },
            [] {});
    }
    const ViommuStats after = machine.stats();
    EXPECT_EQ(after.translations - before.translations, kRounds * kThreads * kEach);
    EXPECT_EQ(after.faults - before.faults, kRounds * kThreads * kEach);
    ViommuEndpointStats of_nic;
    viommu_endpoint_stats(nic.endpoint, &of_nic);
    EXPECT_EQ(of_nic.translations, after.translations);
    EXPECT_EQ(of_nic.faults, after.faults);
}

} // namespace

} // namespace viommu::test
