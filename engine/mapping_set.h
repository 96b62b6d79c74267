// SPDX-License-Identifier: GPL-2.0-or-later
//
// The mappings of one domain: disjoint ranges of IOVAs, each an entity of its
// own (neighbours are never merged: UNMAP must tell them apart).
//
// Everything is answered by value and nothing calls out, so that the container
// inside can change without its users noticing.  Callers do the locking: find()
// and overlaps() under the data lock, the rest as their users say.
#pragma once

#include "wire.h"

#include <bit>
#include <cstdint>
#include <map>
#include <optional>
#include <span>

namespace viommu
{

struct Mapping {
    uint64_t iova;
    uint64_t last;
    uint64_t phys;
    uint32_t flags; // MAP flags as requested

    uint32_t rights() const { return flags & (wire::kMapRead | wire::kMapWrite); }
    bool mmio() const { return (flags & wire::kMapMmio) != 0; }
};

// size - 1 of the largest power-of-two block around `at` that lies inside
// [first, last], is aligned at the IOVA and whose size divides `offset`, the
// distance between IOVA and physical address.
inline uint64_t block_mask(uint64_t at, uint64_t first, uint64_t last, uint64_t offset)
{
    // A block of 2^n around `at` leaves out the address next to the range as
    // long as the two differ in bit n or above.
    int order = 64;
    if (first != 0) {
        order = std::min(order, 63 - std::countl_zero(at ^ (first - 1)));
    }
    if (last != UINT64_MAX) {
        order = std::min(order, 63 - std::countl_zero(at ^ (last + 1)));
    }
    order = std::min(order, std::countr_zero(offset));
    return order == 64 ? UINT64_MAX : (uint64_t{1} << order) - 1;
}

class MappingSet
{
public:
    size_t size() const { return map_.size(); }
    bool empty() const { return map_.empty(); }

    // The mapping that contains `iova`.  W7: this very byte, no other.
    std::optional<Mapping> find(uint64_t iova) const;

    // The lowest mapping that starts at or above `iova`.
    std::optional<Mapping> next(uint64_t iova) const;

    // The next one after `mapping`, for walking in IOVA order.
    std::optional<Mapping> after(const Mapping &mapping) const
    {
        return mapping.last == UINT64_MAX ? std::nullopt : next(mapping.last + 1);
    }

    bool overlaps(uint64_t first, uint64_t last) const;

    // True if some mapping lies partly inside and partly outside.
    bool splits(uint64_t first, uint64_t last) const;

    // Wants a mapping that overlaps no other.  If memory runs out it throws and
    // the set is unchanged.
    void insert(const Mapping &mapping);

    // Removes mappings inside [first, last], lowest first, as many as `removed`
    // has room for; returns how many.
    size_t take(uint64_t first, uint64_t last, std::span<Mapping> removed);

private:
    struct Target {
        uint64_t last;
        uint64_t phys;
        uint32_t flags;
    };
    using Map = std::map<uint64_t, Target>;

    static Mapping value(const Map::value_type &entry)
    {
        return Mapping{entry.first, entry.second.last, entry.second.phys, entry.second.flags};
    }
    Map::const_iterator containing(uint64_t iova) const;

    Map map_;
};

} // namespace viommu
