// SPDX-License-Identifier: GPL-2.0-or-later
#include "mapping_set.h"

#include <iterator>

namespace viommu
{

MappingSet::Map::const_iterator MappingSet::containing(uint64_t iova) const
{
    const auto after = map_.upper_bound(iova);
    if (after == map_.begin()) {
        return map_.end();
    }
    const auto candidate = std::prev(after);
    return iova <= candidate->second.last ? candidate : map_.end();
}

std::optional<Mapping> MappingSet::find(uint64_t iova) const
{
    const auto entry = containing(iova);
    return entry == map_.end() ? std::nullopt : std::optional(value(*entry));
}

std::optional<Mapping> MappingSet::next(uint64_t iova) const
{
    const auto entry = map_.lower_bound(iova);
    return entry == map_.end() ? std::nullopt : std::optional(value(*entry));
}

bool MappingSet::overlaps(uint64_t first, uint64_t last) const
{
    const auto after = map_.upper_bound(last);
    return after != map_.begin() && std::prev(after)->second.last >= first;
}

bool MappingSet::splits(uint64_t first, uint64_t last) const
{
    const auto low = containing(first);
    const auto high = containing(last);
    return (low != map_.end() && low->first < first) ||
           (high != map_.end() && high->second.last > last);
}

void MappingSet::insert(const Mapping &mapping)
{
    map_.emplace(mapping.iova, Target{mapping.last, mapping.phys, mapping.flags});
}

size_t MappingSet::take(uint64_t first, uint64_t last, std::span<Mapping> removed)
{
    size_t count = 0;
    auto entry = map_.lower_bound(first);
    while (count < removed.size() && entry != map_.end() && entry->second.last <= last) {
        removed[count++] = value(*entry);
        entry = map_.erase(entry);
    }
    return count;
}

} // namespace viommu
