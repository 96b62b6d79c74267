// SPDX-License-Identifier: GPL-2.0-or-later
//
// The container: one writer takes a few steps, and one reader looks an address up, keeps the
// answer, and asks later whether it holds.  Readers write nothing that others read, so what
// is true of one is true of any number.
//
// Each answer has to be right at one moment between the last step that the reader knew to be
// done and the answer; a plain list says what is right after each step.
#include "explore.h"

#include "mapping/mapping_set.h"
#include "mapping/nodes.h"
#include "tests/interleave/extent.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace viommu::model
{

namespace
{

constexpr uint64_t kPage = 4096;
constexpr size_t kSlots = MappingSet::Leaf::kSlots;
constexpr size_t kChildren = MappingSet::Inner::kChildren;
static_assert(kSlots == 8 && kChildren == 9);

using Answer = std::optional<Mapping>;
bool same(const Answer &a, const Answer &b)
{
    return a.has_value() == b.has_value() && (!a || (a->iova == b->iova && a->last == b->last &&
                                                     a->phys == b->phys && a->flags == b->flags));
}

// The pages [page, last], and a mark by which it is told from others there.
Mapping pages(uint64_t page, uint64_t last, uint64_t mark = 1)
{
    return {page * kPage, last * kPage + kPage - 1, (mark << 40) + page * kPage,
            VIOMMU_READ | VIOMMU_WRITE};
}

// What the writer does once.
struct Step {
    enum class What : uint8_t { Insert, Remove, Clear };

    void take(MappingSet &set) const
    {
        switch (what) {
        case What::Insert:
            require(set.insert(pages(page, last, mark)), "no insertion");
            break;
        case What::Remove: {
            const auto removed = set.remove(page * kPage, last * kPage + kPage - 1);
            require(removed && removed->count > 0, "nothing is removed");
            break;
        }
        case What::Clear:
            set.clear();
            break;
        }
    }

    What what;
    uint64_t page;
    uint64_t last;
    uint64_t mark;
};

Step insert(uint64_t page, uint64_t last, uint64_t mark = 1)
{
    return {Step::What::Insert, page, last, mark};
}

Step insert(uint64_t page)
{
    return insert(page, page);
}

Step remove(uint64_t page, uint64_t last)
{
    return {Step::What::Remove, page, last, 0};
}

constexpr Step kClear{Step::What::Clear, 0, 0, 0};

// The same by the simplest way.
class Model
{
public:
    void take(const Step &step)
    {
        const Mapping range = pages(step.page, step.last, step.mark);
        if (step.what == Step::What::Insert) {
            mappings_.push_back(range);
        } else {
            std::erase_if(mappings_, [&](const Mapping &mapping) {
                return step.what == Step::What::Clear ||
                       (mapping.iova >= range.iova && mapping.last <= range.last);
            });
        }
    }
    Answer find(uint64_t iova) const
    {
        const auto found = std::ranges::find_if(mappings_, [iova](const Mapping &mapping) {
            return mapping.iova <= iova && iova <= mapping.last;
        });
        return found == mappings_.end() ? std::nullopt : Answer(*found);
    }

private:
    std::vector<Mapping> mappings_;
};

// Every tenth page, from `first` on.
std::vector<Step> row(uint64_t first, size_t count)
{
    std::vector<Step> steps;
    for (size_t i = 0; i < count; i++) {
        steps.push_back(insert(first + 10 * i));
    }
    return steps;
}

std::vector<Step> operator+(std::vector<Step> steps, const std::vector<Step> &more)
{
    steps.insert(steps.end(), more.begin(), more.end());
    return steps;
}

// How often something was seen, so that no test is content with nothing.
struct Seen {
    std::set<size_t> answers; // after how many steps an answer is the right one first
    bool kept = false;        // one held
    bool ended = false;       // one did not
};

class Container : public testing::Test
{
protected:
    // Explores `steps` on what `before` makes, with a look at either end of each of these
    // pages, or at the first byte alone.
    void explore_all(const std::vector<Step> &before, const std::vector<Step> &steps,
                     const std::vector<uint64_t> &looks, bool both_ends = true)
    {
        for (const uint64_t page : looks) {
            explore_one(before, steps, page * kPage);
            if (both_ends) {
                explore_one(before, steps, page * kPage + kPage - 1);
            }
        }
        std::printf("%llu executions\n", static_cast<unsigned long long>(executions_));
        RecordProperty("executions", std::to_string(executions_));
    }

private:
    void explore_one(const std::vector<Step> &before, const std::vector<Step> &steps, uint64_t iova)
    {
        Model model;
        for (const Step &step : before) {
            model.take(step);
        }
        std::vector<Answer> answers{model.find(iova)}; // after so many steps
        for (const Step &step : steps) {
            model.take(step);
            answers.push_back(model.find(iova));
        }
        Seen seen;
        const Outcome outcome = explore([&](Execution &run) {
            Rcu rcu(extent_of_trees);
            MappingSet set(&rcu);
            for (const Step &step : before) {
                step.take(set);
            }
            Atomic<size_t> done{0};
            // The first moment from `from` on at which the answer is right.
            const auto moment = [&answers](const Answer &found, size_t from) {
                while (from < answers.size() && !same(found, answers[from])) {
                    from++;
                }
                return from;
            };
            run.one_way({[&] {
                             for (size_t i = 0; i < steps.size(); i++) {
                                 steps[i].take(set);
                                 done.store(i + 1, std::memory_order_release);
                             }
                         },
                         [&] {
                             MappingSet::Stamp stamp{};
                             Answer found;
                             {
                                 const size_t known = done.load(std::memory_order_acquire);
                                 const Rcu::Section section(rcu);
                                 found = set.find(iova, stamp);
                                 const size_t when = moment(found, known);
                                 require(when <= steps.size(), "the answer was never right");
                                 seen.answers.insert(when);
                             }
                             if (!found) {
                                 return;
                             }
                             const size_t known = done.load(std::memory_order_acquire);
                             const Rcu::Section section(rcu);
                             const bool holds = set.holds(stamp);
                             require(!holds || moment(found, known) <= steps.size(),
                                     "an answer is kept that is right no more");
                             (holds ? seen.kept : seen.ended) = true;
                         }});
        });
        executions_ += outcome.executions;
        ASSERT_TRUE(outcome.fault.empty()) << "page " << iova / kPage << ": " << outcome.fault;
        // Each answer that there is was given.
        for (size_t i = 0; i < answers.size(); i++) {
            const bool is_new = i == 0 || !same(answers[i], answers[i - 1]);
            EXPECT_TRUE(!is_new || seen.answers.contains(i))
                << "page " << iova / kPage << ", " << i;
        }
        if (answers[0]) {
            EXPECT_TRUE(seen.kept && (seen.ended || same(answers[0], answers.back())));
        }
    }

    uint64_t executions_ = 0;
};

/* In a leaf */

TEST_F(Container, W20_InsertionBetweenOthers)
{
    explore_all(row(0, 4), {insert(15)}, {10, 15, 20, 30});
}

TEST_F(Container, W20_InsertionOfTwoSlots)
{
    explore_all(row(0, 3) + std::vector{insert(200000)}, {insert(25, 25 + (1 << 17), 2)},
                {20, 25, 25 + (1 << 16), 200000});
}

TEST_F(Container, W7_RemovalBetweenOthers)
{
    explore_all(row(0, 6), {remove(20, 20)}, {10, 20, 30, 50});
}

TEST_F(Container, W7_RemovalOfTwoSlots)
{
    explore_all(row(0, 3) + std::vector{insert(25, 25 + (1 << 17), 2)},
                {remove(25, 25 + (1 << 17))}, {20, 25, 25 + (1 << 16)});
}

TEST_F(Container, W20_AnotherInTheSamePlace)
{
    explore_all(row(0, 4), {remove(10, 10), insert(10, 12, 2)}, {10, 12, 20});
}

TEST_F(Container, W20_TheFirstOne)
{
    explore_all({}, {insert(1, 2)}, {0, 1, 2, 3});
}

/* Splits */

TEST_F(Container, W20_SplitOfTheRoot)
{
    for (const uint64_t page : {35, 75, 5}) {
        explore_all(row(1, kSlots), {insert(page)}, {1, 31, 51, page});
    }
}

TEST_F(Container, W20_SplitBelowTheRoot)
{
    explore_all(row(0, 2 * kSlots), {insert(35)}, {30, 35, 70, 80});
}

TEST_F(Container, W20_SplitOfAnInnerNode)
{
    explore_all(row(0, kSlots * kChildren), {insert(355)}, {0, 355, 390, 400, 700});
}

/* Merges */

// The left one has its slots at its end, so they move as well.
TEST_F(Container, W7_LeavesMerge)
{
    explore_all(row(0, kSlots + 2) + std::vector{remove(0, 50)}, {remove(90, 90)}, {90, 80, 70},
                false);
}

TEST_F(Container, W7_AnEmptyLeafGoes)
{
    explore_all(row(0, 3 * kSlots) + std::vector{remove(90, 150)}, {remove(80, 80)}, {70, 80, 160});
}

// A reader that came to the old root finds below it what is no longer all.
TEST_F(Container, W20_TheRootGoesAndItsChildSplits)
{
    explore_all(row(0, 2 * kSlots) + std::vector{remove(10, 70)}, {remove(0, 0), insert(85)}, {150},
                false);
}

TEST_F(Container, W7_TheLastOneGoes)
{
    explore_all(row(0, 1), {remove(0, 0), insert(0, 1, 2)}, {0, 1});
}

TEST_F(Container, W7_AllGo)
{
    explore_all(row(0, 2 * kSlots), {kClear, insert(10, 10, 2)}, {10, 20});
}

TEST_F(Container, W7_LeavesGoTogether)
{
    explore_all(row(0, 4 * kSlots), {remove(60, 250)}, {50, 60, 120, 200, 250, 260});
}

TEST_F(Container, W20_ThoseBehindMoveUp)
{
    explore_all(row(0, 6 * kSlots), {remove(80, 239)}, {240}, false);
}

TEST_F(Container, W7_InnerNodesMerge)
{
    explore_all(row(0, kSlots * kChildren + 1), {remove(100, 690)}, {720, 90}, false);
}

/* What starts in an earlier leaf */

TEST_F(Container, W7_LongMappingReachesBeyondItsLeaf)
{
    explore_all(row(0, kSlots + 4) + std::vector{remove(70, 80), insert(71, 85, 2)},
                {remove(71, 85), insert(80, 84, 3)}, {72, 82, 85});
}

} // namespace

} // namespace viommu::model
