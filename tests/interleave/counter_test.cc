// SPDX-License-Identifier: GPL-2.0-or-later
//
// The sequence counter, with data as mapping/nodes.h reads and writes them.
#include "explore.h"

#include "base/sequence_counter.h"
#include "mapping/nodes.h"

#include <gtest/gtest.h>

#include <set>

namespace viommu::model
{

namespace
{

// Both words change together, twice.
TEST(Counter, NoTornPairIsAccepted)
{
    std::set<int> accepted;
    const Outcome outcome = explore([&](Execution &run) {
        SequenceCounter counter;
        Atomic<int> first{0}, second{0};
        run.one_way({[&] {
                         for (int i = 1; i <= 2; i++) {
                             counter.begin_change();
                             poke(first, i);
                             poke(second, i);
                             counter.end_change();
                         }
                     },
                     [&] {
                         const uint64_t noted = counter.note();
                         const int one = peek(first), two = peek(second);
                         if (counter.unchanged(noted)) {
                             require(one == two, "a pair is accepted of which one half is new");
                             require(noted == 2 * static_cast<uint64_t>(one),
                                     "a pair is accepted that is not of the version noted");
                             accepted.insert(one);
                         }
                     }});
    });
    EXPECT_EQ(outcome.fault, "");
    EXPECT_EQ(accepted, (std::set<int>{0, 1, 2}));
    RecordProperty("executions", std::to_string(outcome.executions));
}

// A reader that knows of a change does not accept what was before it.
TEST(Counter, WhatWasChangedBeforeIsNotAccepted)
{
    const Outcome outcome = explore([&](Execution &run) {
        SequenceCounter counter;
        Atomic<int> data{0}, done{0};
        run.one_way({[&] {
                         counter.begin_change();
                         poke(data, 1);
                         counter.end_change();
                         poke(done, 1);
                     },
                     [&] {
                         const bool known = peek(done) == 1;
                         const uint64_t noted = counter.note();
                         const int seen = peek(data);
                         require(!known || !counter.unchanged(noted) || seen == 1,
                                 "what was changed before is accepted");
                     }});
    });
    EXPECT_EQ(outcome.fault, "");
}

// An answer that is kept ends with the change: peek() alone says so.
TEST(Counter, AVersionIsNotSeenAfterItEnded)
{
    const Outcome outcome = explore([&](Execution &run) {
        SequenceCounter counter;
        Atomic<int> done{0};
        run.one_way({[&] {
                         counter.begin_change();
                         counter.end_change();
                         poke(done, 1);
                     },
                     [&] {
                         const uint64_t noted = counter.note();
                         const bool known = peek(done) == 1;
                         require(!known || noted == 2 || counter.peek() != noted,
                                 "the version of before is seen");
                     }});
    });
    EXPECT_EQ(outcome.fault, "");
}

} // namespace

} // namespace viommu::model
