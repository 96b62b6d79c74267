// SPDX-License-Identifier: GPL-2.0-or-later
#include "nodes.h"

namespace viommu
{

/* Leaf */

void MappingSet::Leaf::copy_slots(size_t from, size_t n, Leaf &target, size_t to) const
{
    const auto copy = [&](size_t i) {
        poke(target.start[to + i], own(start[from + i]));
        poke(target.phys[to + i], own(phys[from + i]));
        poke(target.extent[to + i], own(extent[from + i]));
    };
    if (to > from) {
        for (size_t i = n; i-- > 0;) {
            copy(i);
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            copy(i);
        }
    }
}

void MappingSet::Leaf::insert(size_t at, const Mapping &mapping)
{
    const size_t n = own(count), wide = width(mapping);
    const size_t before = at - begin(), behind = end() - at;
    const size_t room_before = begin(), room_behind = kSlots - end();
    const size_t up =
        before < behind ? wide - std::min(wide, room_before) : std::min(wide, room_behind);
    const size_t down = wide - up;
    if (up > 0) {
        copy_slots(at, behind, *this, at + up);
    }
    if (down > 0) {
        copy_slots(begin(), before, *this, begin() - down);
        poke(head, static_cast<uint16_t>(begin() - down));
        at -= down;
    }
    poke(count, static_cast<uint16_t>(n + wide));

    const uint64_t length = mapping.last - mapping.iova;
    poke(start[at], mapping.iova);
    poke(phys[at], mapping.phys);
    if (wide == 1) {
        poke(extent[at], static_cast<uint32_t>(length) << kFlagBits | mapping.flags);
    } else {
        poke(extent[at], mapping.flags);
        poke(start[at + 1], mapping.iova);
        poke(phys[at + 1], length);
        poke(extent[at + 1], kTail << kFlagBits | mapping.flags);
        tails++;
    }
}

void MappingSet::Leaf::erase(size_t from, size_t to)
{
    for (size_t i = from; tails > 0 && i < to; i++) {
        tails = static_cast<uint16_t>(tails - is_tail(i));
    }
    const size_t n = own(count), gone = to - from;
    const size_t before = from - begin(), behind = end() - to;
    if (before < behind) {
        copy_slots(begin(), before, *this, begin() + gone);
        fill(start, begin(), begin() + gone, kUnusedBefore);
        poke(head, static_cast<uint16_t>(begin() + gone));
    } else {
        copy_slots(to, behind, *this, from);
        fill(start, end() - gone, end(), kUnusedBehind);
    }
    poke(count, static_cast<uint16_t>(n - gone));
}

void MappingSet::Leaf::move_tail(size_t from, Leaf &target)
{
    const size_t n = end() - from, had = own(target.count);
    if (had == 0) {
        target.start_at((kSlots - n) / 2);
    } else if (target.end() + n > kSlots) {
        target.copy_slots(target.begin(), had, target, 0);
        fill(target.start, had, kSlots, kUnusedBehind);
        poke(target.head, uint16_t{0});
    }
    copy_slots(from, n, target, target.end());
    for (size_t i = from; i < end(); i++) {
        target.tails = static_cast<uint16_t>(target.tails + is_tail(i));
    }
    poke(target.count, static_cast<uint16_t>(had + n));
    erase(from, end());
}

/* Inner */

void MappingSet::Inner::insert(size_t at, uint64_t before, Node *child)
{
    const size_t n = own(count);
    for (size_t i = n; i > at; i--) {
        poke(children[i], own(children[i - 1]));
        poke(keys[i - 1], own(keys[i - 2]));
    }
    poke(children[at], child);
    poke(keys[at - 1], before);
    poke(count, static_cast<uint16_t>(n + 1));
}

void MappingSet::Inner::erase(size_t begin, size_t end)
{
    const size_t n = own(count), gone = end - begin;
    for (size_t i = end; i < n; i++) {
        poke(children[i - gone], own(children[i]));
    }
    for (size_t i = begin == 0 ? end : end - 1; i + 1 < n; i++) {
        poke(keys[i - gone], own(keys[i]));
    }
    fill(keys, std::max(n - gone, size_t{1}) - 1, n - 1, kUnusedBehind);
    poke(count, static_cast<uint16_t>(n - gone));
}

uint64_t MappingSet::Inner::move_tail(size_t from, Inner &target)
{
    const size_t n = own(count);
    for (size_t i = from; i < n; i++) {
        poke(target.children[i - from], own(children[i]));
        if (i > from) {
            poke(target.keys[i - from - 1], own(keys[i - 1]));
        }
    }
    const uint64_t before = own(keys[from - 1]);
    fill(keys, from - 1, n - 1, kUnusedBehind);
    poke(target.count, static_cast<uint16_t>(n - from));
    poke(count, static_cast<uint16_t>(from));
    return before;
}

void MappingSet::Inner::append(Inner &other, uint64_t before)
{
    const size_t n = own(count), m = own(other.count);
    poke(keys[n - 1], before);
    for (size_t i = 0; i < m; i++) {
        poke(children[n + i], own(other.children[i]));
        if (i > 0) {
            poke(keys[n + i - 1], own(other.keys[i - 1]));
        }
    }
    poke(count, static_cast<uint16_t>(n + m));
    poke(other.count, uint16_t{0});
}

} // namespace viommu
