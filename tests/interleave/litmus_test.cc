// SPDX-License-Identifier: GPL-2.0-or-later
//
// Whether the model allows what the memory model allows, and nothing else: small programs of
// which it is known what they can read.
#include "explore.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <set>
#include <string>

namespace viommu::model
{

namespace
{

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;

using Pair = std::array<int, 2>;
using Pairs = std::set<Pair>;

const Pairs kAll{{0, 0}, {0, 1}, {1, 0}, {1, 1}};

// What two loads see of a message and the flag behind it.
Pairs message(std::memory_order store, std::memory_order load, bool one_way)
{
    Pairs seen;
    const Outcome outcome = explore([&](Execution &run) {
        Atomic<int> data{0}, flag{0};
        Pair pair{};
        const Execution::Threads threads{[&] {
                                             data.store(1, kRelaxed);
                                             flag.store(1, store);
                                         },
                                         [&] {
                                             pair[0] = flag.load(load);
                                             pair[1] = data.load(kRelaxed);
                                         }};
        if (one_way) {
            run.one_way(threads);
        } else if (!run.both_ways(threads)) {
            return;
        }
        seen.insert(pair);
    });
    EXPECT_EQ(outcome.fault, "");
    return seen;
}

TEST(Litmus, MessageNeedsReleaseAndAcquire)
{
    const Pairs ordered{{0, 0}, {0, 1}, {1, 1}};
    for (const bool one_way : {true, false}) {
        EXPECT_EQ(message(kRelaxed, kRelaxed, one_way), kAll);
        EXPECT_EQ(message(kRelaxed, kAcquire, one_way), kAll);
        EXPECT_EQ(message(kRelease, kRelaxed, one_way), kAll);
        EXPECT_EQ(message(kRelease, kAcquire, one_way), ordered);
    }
}

// Of two threads that each run after the other's: all but that is possible.
template <typename First, typename Second> Pairs two(First first, Second second)
{
    Pairs seen;
    const Outcome outcome = explore([&](Execution &run) {
        Atomic<int> x{0}, y{0};
        Pair pair{};
        if (run.both_ways({[&] { pair[0] = first(x, y); }, [&] { pair[1] = second(x, y); }})) {
            seen.insert(pair);
        }
    });
    EXPECT_EQ(outcome.fault, "");
    return seen;
}

TEST(Litmus, StoresAreBuffered)
{
    const auto swap = [](Atomic<int> &own, Atomic<int> &others) {
        own.store(1, kRelease);
        return others.load(kAcquire);
    };
    EXPECT_EQ(two(swap, [&](Atomic<int> &x, Atomic<int> &y) { return swap(y, x); }), kAll);
}

// Not modelled: on Arm, with relaxed order, both could read 1.
TEST(Litmus, LoadsAreNotBuffered)
{
    const auto swap = [](Atomic<int> &own, Atomic<int> &others) {
        const int seen = others.load(kRelaxed);
        own.store(1, kRelaxed);
        return seen;
    };
    EXPECT_EQ(two(swap, [&](Atomic<int> &x, Atomic<int> &y) { return swap(y, x); }),
              (Pairs{{0, 0}, {0, 1}, {1, 0}}));
}

TEST(Litmus, OneLocationIsCoherent)
{
    Pairs seen;
    const Outcome outcome = explore([&](Execution &run) {
        Atomic<int> x{0};
        Pair pair{};
        run.one_way({[&] {
                         x.store(1, kRelaxed);
                         x.store(2, kRelaxed);
                     },
                     [&] {
                         pair[0] = x.load(kRelaxed);
                         pair[1] = x.load(kRelaxed);
                     }});
        seen.insert(pair);
    });
    EXPECT_EQ(outcome.fault, "");
    EXPECT_EQ(seen, (Pairs{{0, 0}, {0, 1}, {0, 2}, {1, 1}, {1, 2}, {2, 2}}));
    EXPECT_EQ(outcome.executions, 6u);
}

// What was released to a thread is released by it to the next one, although that one
// acquires nothing from the first.
TEST(Litmus, WhatIsKnownIsPassedOn)
{
    std::set<int> seen;
    const Outcome outcome = explore([&](Execution &run) {
        Atomic<int> data{0}, first{0}, second{0};
        run.one_way({[&] {
                         data.store(1, kRelaxed);
                         first.store(1, kRelease);
                     },
                     [&] {
                         if (first.load(kAcquire) == 1) {
                             second.store(1, kRelease);
                         }
                     },
                     [&] {
                         if (second.load(kAcquire) == 1) {
                             seen.insert(data.load(kRelaxed));
                         }
                     }});
    });
    EXPECT_EQ(outcome.fault, "");
    EXPECT_EQ(seen, (std::set<int>{1}));
}

TEST(Litmus, ReadersOfTwoWritersNeedNotAgree)
{
    std::set<std::array<int, 4>> seen;
    const Outcome outcome = explore([&](Execution &run) {
        Atomic<int> x{0}, y{0};
        std::array<int, 4> all{};
        run.one_way({[&] { x.store(1, kRelease); }, [&] { y.store(1, kRelease); },
                     [&] {
                         all[0] = x.load(kAcquire);
                         all[1] = y.load(kAcquire);
                     },
                     [&] {
                         all[2] = y.load(kAcquire);
                         all[3] = x.load(kAcquire);
                     }});
        seen.insert(all);
    });
    EXPECT_EQ(outcome.fault, "");
    EXPECT_EQ(seen.size(), 16u);
}

TEST(Litmus, UpdatesLoseNothing)
{
    std::set<std::array<int, 3>> seen;
    const Outcome outcome = explore([&](Execution &run) {
        Atomic<int> x{0};
        std::array<int, 3> old{};
        Execution::Threads threads;
        for (int &mine : old) {
            threads.emplace_back([&] { mine = x.fetch_add(1, kRelaxed); });
        }
        if (run.both_ways(threads)) {
            require(x.load(kRelaxed) == 3, "an update is lost");
            seen.insert(old);
        }
    });
    EXPECT_EQ(outcome.fault, "");
    EXPECT_EQ(seen.size(), 6u); // each order
    EXPECT_EQ(outcome.executions, 6u);
}

TEST(Litmus, OneThreadWinsACompareAndExchange)
{
    std::set<int> seen;
    const Outcome outcome = explore([&](Execution &run) {
        Atomic<int> x{0};
        std::array<bool, 2> won{};
        const auto attempt = [&](size_t i) {
            int expected = 0;
            won[i] = x.compare_exchange_strong(expected, 1, kRelaxed, kRelaxed);
        };
        if (run.both_ways({[&] { attempt(0); }, [&] { attempt(1); }})) {
            require(won[0] != won[1], "both or none");
            seen.insert(won[0] ? 0 : 1);
        }
    });
    EXPECT_EQ(outcome.fault, "");
    EXPECT_EQ(seen.size(), 2u);
}

// An update in the middle does not end what a release has begun.
TEST(Litmus, ReleaseGoesThroughUpdates)
{
    std::set<int> seen;
    const Outcome outcome = explore([&](Execution &run) {
        Atomic<int> data{0}, flag{0};
        run.both_ways({[&] {
                           data.store(1, kRelaxed);
                           flag.store(1, kRelease);
                       },
                       [&] {
                           int expected = 1;
                           flag.compare_exchange_strong(expected, 2, kRelaxed, kRelaxed);
                       },
                       [&] {
                           if (flag.load(kAcquire) == 2) {
                               seen.insert(data.load(kRelaxed));
                           }
                       }});
    });
    EXPECT_EQ(outcome.fault, "");
    EXPECT_EQ(seen, (std::set<int>{1}));
}

/* Faults are found */

std::string fault_of(const std::function<void(Execution &)> &scenario)
{
    const std::string fault = explore(scenario).fault;
    return fault.substr(0, fault.find('\n'));
}

TEST(Faults, AnObjectThatIsPublishedTooWeakly)
{
    for (const std::memory_order order : {kRelaxed, kRelease}) {
        const std::string fault = fault_of([&](Execution &run) {
            std::unique_ptr<Atomic<int>> object;
            Atomic<Atomic<int> *> root{nullptr};
            run.one_way({[&] {
                             object = std::make_unique<Atomic<int>>(1);
                             root.store(object.get(), order);
                         },
                         [&] {
                             if (const Atomic<int> *const found = root.load(kAcquire)) {
                                 require(found->load(kRelaxed) == 1, "not what was made");
                             }
                         }});
        });
        EXPECT_EQ(fault, order == kRelease
                             ? ""
                             : "an atomic is used by a thread that does not know it was made");
    }
}

TEST(Faults, AThreadThatWaitsForEver)
{
    const auto scenario = [](bool one_way) {
        return [one_way](Execution &run) {
            Atomic<int> flag{0};
            const Execution::Threads threads{[&] { flag.store(1, kRelease); },
                                             [&] {
                                                 while (flag.load(kAcquire) != 2) {
                                                     spin_pause();
                                                 }
                                             }};
            if (one_way) {
                run.one_way(threads);
            } else {
                run.both_ways(threads);
            }
        };
    };
    EXPECT_EQ(fault_of(scenario(true)), "a thread waits for what never comes");
    EXPECT_EQ(fault_of(scenario(false)), "all threads wait for what never comes");
}

// A reader may use what it found until its section ends, and in no later one.
TEST(Faults, MemoryThatMayBeFree)
{
    struct Thing : ViommuDeferred {
        Atomic<int> value{1};
    };
    const auto extent = [](const ViommuDeferred &object, const Rcu::Tell &tell) {
        tell(&object, sizeof(Thing));
    };
    for (const bool in_one : {true, false}) {
        const std::string fault = fault_of([&](Execution &run) {
            Thing thing{};
            thing.reclaim = [](ViommuDeferred *) { return false; };
            Atomic<Thing *> root{&thing};
            Rcu rcu(extent);
            run.one_way({[&] {
                             root.store(nullptr, kRelease);
                             rcu.defer(thing);
                         },
                         [&] {
                             const Thing *found = nullptr;
                             {
                                 const Rcu::Section section(rcu);
                                 found = root.load(kAcquire);
                                 if (found && in_one) {
                                     found->value.load(kRelaxed);
                                 }
                             }
                             const Rcu::Section section(rcu);
                             if (found && !in_one) {
                                 found->value.load(kRelaxed);
                             }
                         }});
        });
        EXPECT_EQ(fault, in_one ? "" : "memory is touched that may be free");
    }
}

TEST(Faults, StoresThatKnowNothingOfEachOther)
{
    EXPECT_EQ(fault_of([](Execution &run) {
                  Atomic<int> x{0};
                  run.one_way({[&] { x.store(1, kRelease); }, [&] { x.store(2, kRelease); }});
              }),
              "two threads store to one location, and neither knows of the other");
}

TEST(Faults, AScenarioThatIsNotOneWay)
{
    EXPECT_EQ(fault_of([](Execution &run) {
                  Atomic<int> x{0};
                  run.one_way({[&] { x.load(kAcquire); }, [&] { x.store(2, kRelease); }});
              }),
              "a thread reads what a later one stores: that is not one way");
}

} // namespace

} // namespace viommu::model
