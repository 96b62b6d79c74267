// SPDX-License-Identifier: GPL-2.0-or-later
//
// The container of mappings beside a list that is searched from end to end; the
// size of blocks beside trying them all; merged regions beside asking for every
// address where one begins or ends.
//
//   { step (1), addresses } ...
#include "check.h"
#include "input.h"
#include "model.h"

#include "mapping/blocks.h"
#include "mapping/mapping_set.h"
#include "mapping/node_pool.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace
{

using namespace viommu::fuzz;
using viommu::Mapping;
using viommu::MappingSet;

constexpr size_t kStepsMax = 150;

bool same(const Mapping &left, const Mapping &right)
{
    return left.iova == right.iova && left.last == right.last && left.phys == right.phys &&
           left.flags == right.flags;
}

bool same(const std::optional<Mapping> &left, const std::optional<Mapping> &right)
{
    return left.has_value() == right.has_value() && (!left || same(*left, *right));
}

// By the last address: the first entry at or above an address is the only one
// that can contain it.
class NaiveSet
{
public:
    using Map = std::map<uint64_t, Mapping>;

    std::optional<Mapping> find(uint64_t iova) const
    {
        const auto at = map.lower_bound(iova);
        return at != map.end() && at->second.iova <= iova ? std::optional(at->second)
                                                          : std::nullopt;
    }

    std::optional<Mapping> next(uint64_t iova) const
    {
        auto at = map.lower_bound(iova);
        if (at != map.end() && at->second.iova < iova) {
            ++at;
        }
        return at == map.end() ? std::nullopt : std::optional(at->second);
    }

    bool overlaps(uint64_t first, uint64_t last) const
    {
        const auto at = map.lower_bound(first);
        return at != map.end() && at->second.iova <= last;
    }

    bool splits(uint64_t first, uint64_t last) const
    {
        for (auto at = map.lower_bound(first); at != map.end() && at->second.iova <= last; ++at) {
            if (at->second.iova < first || at->second.last > last) {
                return true;
            }
        }
        return false;
    }

    void insert(const Mapping &mapping) { map.emplace(mapping.last, mapping); }

    std::vector<Mapping> take(uint64_t first, uint64_t last)
    {
        std::vector<Mapping> taken;
        auto at = map.lower_bound(first);
        while (at != map.end() && at->second.last <= last) {
            taken.push_back(at->second);
            at = map.erase(at);
        }
        return taken;
    }

    Map map;
};

// Frees late, as if readers of old were still looking.
class LateReclaimer final : public viommu::Reclaimer
{
public:
    ~LateReclaimer()
    {
        for (ViommuDeferred *object : deferred_) {
            while (object->reclaim(object)) {
            }
        }
    }

    void defer(ViommuDeferred &object) noexcept override { deferred_.push_back(&object); }

private:
    std::vector<ViommuDeferred *> deferred_;
};

// Many addresses close together, some anywhere, some at the ends.
uint64_t address(Input &input)
{
    const uint8_t byte = input.byte();
    if (byte < 200) {
        return byte;
    }
    if (byte < 220) {
        return UINT64_MAX - (byte - 200u);
    }
    if (byte < 245) {
        return input.number<uint16_t>();
    }
    return input.number<uint64_t>();
}

std::pair<uint64_t, uint64_t> range(Input &input)
{
    const uint64_t one = address(input);
    const uint64_t other = address(input);
    return {std::min(one, other), std::max(one, other)};
}

class Both
{
public:
    explicit Both(LateReclaimer *reclaimer) : set_(reclaimer), defers_(reclaimer != nullptr) {}

    void insert(const Mapping &mapping)
    {
        const bool overlaps = naive_.overlaps(mapping.iova, mapping.last);
        FUZZ_CHECK_EQ(set_.overlaps(mapping.iova, mapping.last), overlaps);
        if (overlaps || !full()) {
            FUZZ_CHECK_EQ(set_.insert(mapping), !overlaps);
        }
        if (!overlaps && !full()) {
            naive_.insert(mapping);
        }
    }

    void look(uint64_t at) const
    {
        FUZZ_CHECK(same(set_.find(at), naive_.find(at)));
        FUZZ_CHECK(same(set_.next(at), naive_.next(at)));
    }

    void splits(uint64_t first, uint64_t last) const
    {
        FUZZ_CHECK_EQ(set_.splits(first, last), naive_.splits(first, last));
    }

    void remove(uint64_t first, uint64_t last)
    {
        const bool splits = naive_.splits(first, last);
        const std::optional<MappingSet::Removed> removed = set_.remove(first, last);
        FUZZ_CHECK_EQ(removed.has_value(), !splits);
        if (removed) {
            const std::vector<Mapping> expected = naive_.take(first, last);
            FUZZ_CHECK_EQ(removed->count, expected.size());
            if (!expected.empty()) {
                FUZZ_CHECK_EQ(removed->first, expected.front().iova);
                FUZZ_CHECK_EQ(removed->last, expected.back().last);
            }
        }
    }

    void walk() const
    {
        FUZZ_CHECK_EQ(set_.size(), naive_.map.size());
        FUZZ_CHECK_EQ(set_.empty(), naive_.map.empty());
        auto found = set_.next(0);
        for (const auto &[last, mapping] : naive_.map) {
            FUZZ_CHECK(same(found, mapping));
            look(mapping.iova);
            if (last != mapping.iova) {
                look(last);
            }
            found = set_.after(mapping);
        }
        FUZZ_CHECK(!found);
        if (!defers_) {
            FUZZ_CHECK_EQ(set_.memory(), viommu::NodePool::instance().use().nodes * 1024);
        }
    }

    bool full() const { return naive_.map.size() >= kMappingsMax; }

    void move()
    {
        const MappingSet moved = std::move(set_);
        FUZZ_CHECK_EQ(moved.size(), naive_.map.size());
        for (const auto &[last, mapping] : naive_.map) {
            FUZZ_CHECK(same(moved.find(last), mapping));
        }
    }

private:
    static constexpr size_t kMappingsMax = 2500; // three levels of nodes

    MappingSet set_;
    NaiveSet naive_;
    const bool defers_;
};

// Hundreds of neighbours, upwards, downwards, or every other one first.
void insert_run(Input &input, Both &both)
{
    const uint8_t how = input.byte();
    const uint64_t count = 1 + 2u * input.byte();
    const uint64_t stride = 1 + how / 8u % 16u;
    const uint64_t start = address(input);
    for (uint64_t i = 0; i < count && !both.full(); i++) {
        uint64_t step = i;
        if ((how & 3) == 1) {
            step = count - 1 - i;
        } else if ((how & 3) == 2) {
            step = i < count / 2 ? 2 * i : 2 * (i - count / 2) + 1;
        }
        const uint64_t first = start + step * stride;
        const uint64_t last = first + ((how & 4) != 0 ? stride - 1 : 0);
        if (first >= start && last >= first) {
            both.insert({first, last, step << 12, how % 8u});
        }
    }
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
    const size_t n = list.size();
    const size_t count = viommu_regions_collect(list.data(), n, n, out.data(), out.size());
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
    LateReclaimer reclaimer;
    Both both(input.flag() ? &reclaimer : nullptr);
    for (size_t i = 0; i < kStepsMax && !input.empty(); i++) {
        switch (const uint8_t step = input.byte(); step % 16) {
        default: {
            const auto [first, last] = range(input);
            both.insert({first, last, uint64_t{step} << 12, step % 8u});
            break;
        }
        case 6:
        case 7:
            both.look(address(input));
            break;
        case 8: {
            const auto [first, last] = range(input);
            both.splits(first, last);
            break;
        }
        case 9:
        case 14: {
            const auto [first, last] = range(input);
            both.remove(first, last);
            break;
        }
        case 10:
            check_block(input);
            break;
        case 11:
            check_regions(input);
            break;
        case 12:
        case 13:
            insert_run(input, both);
            break;
        case 15:
            for (uint64_t at = address(input), end = at + 64; at != end; at++) {
                both.look(at);
            }
            break;
        }
    }
    both.walk();
    both.move();
    return 0;
}
