// SPDX-License-Identifier: GPL-2.0-or-later
//
// The container of mappings beside a list that is searched from end to end; the
// size of blocks beside trying them all; merged regions beside asking for every
// address where one begins or ends.
//
//   { step (1), addresses } ...
#include "mapping_set.h"
#include "check.h"
#include "input.h"
#include "model.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

namespace
{

using namespace viommu::fuzz;
using viommu::Mapping;
using viommu::MappingSet;

constexpr size_t kStepsMax = 1000;

bool same(const Mapping &left, const Mapping &right)
{
    return left.iova == right.iova && left.last == right.last && left.phys == right.phys &&
           left.flags == right.flags;
}

bool same(const std::optional<Mapping> &left, const std::optional<Mapping> &right)
{
    return left.has_value() == right.has_value() && (!left || same(*left, *right));
}

class NaiveSet
{
public:
    std::optional<Mapping> find(uint64_t iova) const
    {
        return first_of([&](const Mapping &m) { return m.iova <= iova && iova <= m.last; });
    }

    std::optional<Mapping> next(uint64_t iova) const
    {
        std::optional<Mapping> best;
        for (const Mapping &mapping : list) {
            if (mapping.iova >= iova && (!best || mapping.iova < best->iova)) {
                best = mapping;
            }
        }
        return best;
    }

    bool overlaps(uint64_t first, uint64_t last) const
    {
        return first_of([&](const Mapping &m) { return m.iova <= last && m.last >= first; })
            .has_value();
    }

    bool splits(uint64_t first, uint64_t last) const
    {
        return first_of([&](const Mapping &m) {
                   const bool touches = m.iova <= last && m.last >= first;
                   return touches && (m.iova < first || m.last > last);
               })
            .has_value();
    }

    std::vector<Mapping> take(uint64_t first, uint64_t last, size_t most)
    {
        std::vector<Mapping> taken;
        for (auto at = next(0); at && taken.size() < most;
             at = at->last == UINT64_MAX ? std::nullopt : next(at->last + 1)) {
            if (at->iova >= first && at->last <= last) {
                taken.push_back(*at);
            }
        }
        std::erase_if(list, [&](const Mapping &mapping) {
            return std::ranges::any_of(taken, [&](const Mapping &t) { return same(t, mapping); });
        });
        return taken;
    }

    std::vector<Mapping> list;

private:
    template <typename Test> std::optional<Mapping> first_of(Test test) const
    {
        const auto found = std::ranges::find_if(list, test);
        return found == list.end() ? std::nullopt : std::optional(*found);
    }
};

// Many addresses close together, some anywhere, some at the ends.
uint64_t address(Input &input)
{
    const uint8_t byte = input.byte();
    if (byte < 200) {
        return byte;
    }
    if (byte < 240) {
        return UINT64_MAX - (byte - 200u);
    }
    return input.number<uint64_t>();
}

std::pair<uint64_t, uint64_t> range(Input &input)
{
    const uint64_t one = address(input);
    const uint64_t other = address(input);
    return {std::min(one, other), std::max(one, other)};
}

void walk(const MappingSet &set, const NaiveSet &naive)
{
    FUZZ_CHECK_EQ(set.size(), naive.list.size());
    FUZZ_CHECK_EQ(set.empty(), naive.list.empty());
    auto expected = naive.next(0);
    auto found = set.next(0);
    for (size_t i = 0; i <= naive.list.size(); i++) {
        FUZZ_CHECK(same(found, expected));
        if (!found) {
            return;
        }
        expected = found->last == UINT64_MAX ? std::nullopt : naive.next(found->last + 1);
        found = set.after(*found);
    }
    FUZZ_CHECK(!found);
}

void check_block(Input &input)
{
    const auto [first, last] = range(input);
    const uint64_t at =
        first + (last - first == UINT64_MAX ? address(input) : address(input) % (last - first + 1));
    const uint64_t offset = address(input);
    const uint64_t found = viommu::block_mask(at, first, last, offset);
    uint64_t best = 0;
    for (unsigned order = 1; order <= 64; order++) {
        const uint64_t mask = order == 64 ? UINT64_MAX : (uint64_t{1} << order) - 1;
        if ((at & ~mask) >= first && (at | mask) <= last && (offset & mask) == 0) {
            best = mask;
        }
    }
    FUZZ_CHECK_EQ(found, best);
}

void check_regions(Input &input)
{
    std::vector<ViommuRegion> list;
    for (size_t count = input.below(9); count > 0; count--) {
        const auto [first, last] = range(input);
        list.push_back({first, last, static_cast<uint8_t>(input.byte() % 2)});
    }
    const std::vector<RegionRun> expected = region_runs(list);
    std::vector<ViommuRegion> out(input.below(20), ViommuRegion{7, 7, 7});
    const size_t count = viommu_regions_merge(list.data(), list.size(), out.data(), out.size());
    FUZZ_CHECK_EQ(count, expected.size());
    for (size_t i = 0; i < out.size(); i++) {
        const RegionRun run = i < count ? expected[i] : RegionRun{7, 7, 7};
        FUZZ_CHECK((RegionRun{out[i].start, out[i].last, out[i].subtype}) == run);
    }
}

} // namespace

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input input(data, size);
    MappingSet set;
    NaiveSet naive;
    for (size_t i = 0; i < kStepsMax && !input.empty(); i++) {
        switch (const uint8_t step = input.byte(); step % 12) {
        default: {
            const auto [first, last] = range(input);
            const bool overlaps = naive.overlaps(first, last);
            FUZZ_CHECK_EQ(set.overlaps(first, last), overlaps);
            if (!overlaps) {
                const Mapping mapping{first, last, uint64_t{step} << 12, step};
                set.insert(mapping);
                naive.list.push_back(mapping);
            }
            break;
        }
        case 6:
        case 7: {
            const uint64_t at = address(input);
            FUZZ_CHECK(same(set.find(at), naive.find(at)));
            FUZZ_CHECK(same(set.next(at), naive.next(at)));
            break;
        }
        case 8: {
            const auto [first, last] = range(input);
            FUZZ_CHECK_EQ(set.splits(first, last), naive.splits(first, last));
            break;
        }
        case 9: {
            const auto [first, last] = range(input);
            if (naive.splits(first, last)) {
                break; // nobody takes a part
            }
            std::array<Mapping, 4> removed;
            const std::span<Mapping> room = std::span(removed).first(1 + step / 12 % 4);
            const size_t count = set.take(first, last, room);
            const std::vector<Mapping> expected = naive.take(first, last, room.size());
            FUZZ_CHECK_EQ(count, expected.size());
            for (size_t k = 0; k < count; k++) {
                FUZZ_CHECK(same(removed[k], expected[k]));
            }
            break;
        }
        case 10:
            check_block(input);
            break;
        case 11:
            check_regions(input);
            break;
        }
    }
    walk(set, naive);
    MappingSet moved = std::move(set);
    walk(moved, naive);
    return 0;
}
