// SPDX-License-Identifier: GPL-2.0-or-later
//
// The caches of threads: what is counted in them, while an endpoint drops them and while
// threads come and go.  Here both sides write.
#include "explore.h"

#include "engine/thread_cache.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <set>
#include <string>

namespace viommu::model
{

namespace
{

void extent(const ViommuDeferred &object, const Rcu::Tell &tell)
{
    tell(&object, sizeof(ThreadCache)); // the only one
}

// A translation as far as counting goes.
void count(ThreadCaches &caches, const Rcu &rcu)
{
    const Rcu::Section section(rcu);
    ThreadCache *const cache = caches.mine();
    cache ? cache->count_translation() : caches.count_translation();
}

void report(const Outcome &outcome)
{
    std::printf("%llu executions, and %llu abandoned\n",
                static_cast<unsigned long long>(outcome.executions),
                static_cast<unsigned long long>(outcome.abandoned));
    testing::Test::RecordProperty("executions", std::to_string(outcome.executions));
}

TEST(Caches, WhatIsCountedInADroppedOneIsNotLost)
{
    std::set<uint64_t> dropped;
    const Outcome outcome = explore([&](Execution &run) {
        const auto store = std::make_shared<CacheStore>();
        Rcu rcu(extent);
        ThreadCaches caches(store);
        uint64_t known = 0;
        const bool all = run.both_ways({[&] {
                                            count(caches, rcu);
                                            count(caches, rcu);
                                        },
                                        [&] {
                                            ThreadCache *list = nullptr;
                                            caches.drop(list);
                                            if (list) {
                                                known = caches.counts().translations;
                                                CacheStore::defer(list, rcu);
                                            }
                                        }});
        rcu.reclaim();
        if (all) {
            require(caches.counts().translations == 2, "a count is lost, or there twice");
            dropped.insert(known);
        }
    });
    EXPECT_EQ(outcome.fault, "");
    EXPECT_EQ(dropped, (std::set<uint64_t>{0, 1, 2}));
    report(outcome);
}

// The second thread may have the number of the first one, once that has ended, and its
// cache; or they make theirs at the same time.
TEST(Caches, ANumberIsPassedOnWithWhatWasCounted)
{
    const Outcome outcome = explore([&](Execution &run) {
        const auto store = std::make_shared<CacheStore>();
        Rcu rcu(extent);
        ThreadCaches caches(store);
        if (run.both_ways({[&] { count(caches, rcu); }, [&] { count(caches, rcu); }})) {
            require(caches.counts().translations == 2, "a count is lost");
        }
    });
    EXPECT_EQ(outcome.fault, "");
    report(outcome);
}

} // namespace

} // namespace viommu::model
