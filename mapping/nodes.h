// SPDX-License-Identifier: GPL-2.0-or-later
//
// The nodes of a MappingSet's tree, which says how they are read and changed.
//
// All are blocks of one size.  A mapping takes one slot of a leaf, 20 bytes; one
// that is longer than a slot can say takes two: the tail repeats the start, so
// that a search by address always ends behind both, and has the extent where
// others have the physical address.
#pragma once

#include "mapping_set.h"

#include "base/atomic.h"
#include "base/sequence_counter.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace viommu
{

#ifdef VIOMMU_MODEL
inline constexpr size_t kNodeSize = 256; // few mappings make a tree
#else
inline constexpr size_t kNodeSize = 1024;
#endif
inline constexpr size_t kHeadSize = 64;
inline constexpr size_t kLine = 8; // keys in a cache line

// Readers compare versions after reading: on the data the acquire keeps the
// comparison behind it.
template <typename T> T peek(const Atomic<T> &field)
{
    return field.load(std::memory_order_acquire);
}

// The release keeps the data behind the odd version that announces it.
template <typename T> void poke(Atomic<T> &field, T value)
{
    field.store(value, std::memory_order_release);
}

// For the writer, who alone changes anything.
template <typename T> T own(const Atomic<T> &field)
{
    return field.load(std::memory_order_relaxed);
}

// Of ascending keys: the index behind those that are at most `key`, but no more than
// `most`.  First the last key of every cache line, then one line; all comparisons of
// a pass at once, and no branch that would be guessed wrong every other time.
template <size_t N>
size_t search(const std::array<Atomic<uint64_t>, N> &keys, size_t most, uint64_t key)
{
    static_assert(N % kLine == 0);
    size_t line = 0;
#pragma GCC unroll 8
    for (size_t i = kLine - 1; i < N - kLine; i += kLine) {
        line += size_t{peek(keys[i]) <= key};
    }
    size_t index = line * kLine;
#pragma GCC unroll 8
    for (size_t i = 0; i < kLine; i++) {
        index += size_t{peek(keys[line * kLine + i]) <= key};
    }
    return std::min(index, most);
}

// What search() takes unused keys for: those before the ones in use, and those behind.
inline constexpr uint64_t kUnusedBefore = 0;
inline constexpr uint64_t kUnusedBehind = UINT64_MAX;

template <size_t N>
void fill(std::array<Atomic<uint64_t>, N> &keys, size_t from, size_t to, uint64_t key)
{
    for (size_t i = from; i < to; i++) {
        poke(keys[i], key);
    }
}

struct MappingSet::Node : ViommuDeferred {
    explicit Node(uint8_t height) : ViommuDeferred{}, level(height) {}

    // Below it in a list of trees that have left theirs.  Not for readers.
    Node *next = nullptr;

    SequenceCounter version;
    Atomic<uint16_t> count{0}; // slots, or children
    Atomic<uint16_t> head{0};  // of a leaf: the first slot in use
    uint16_t tails = 0;        // of those slots; not for readers
    const uint8_t level;       // 0: a leaf
};

struct alignas(64) MappingSet::Leaf final : Node {
    static constexpr size_t kSlots = (kNodeSize - kHeadSize) / 20 / kLine * kLine;

    Leaf() : Node(0) { start_at(0); }

    static size_t width(const Mapping &mapping)
    {
        return mapping.last - mapping.iova < kTail ? 1 : 2;
    }
    size_t mappings() const { return own(count) - tails; }

    // Slots [begin(), end()) are in use.  For the writer.
    size_t begin() const { return own(head); }
    size_t end() const { return begin() + own(count); }
    bool is_tail(size_t slot) const { return own(extent[slot]) >> kFlagBits == kTail; }

    // The mapping of which `slot` is the last one.
    Mapping ending(size_t slot) const
    {
        const uint64_t from = peek(start[slot]);
        const uint32_t word = peek(extent[slot]);
        const uint32_t flags = word & kFlags;
        if (word >> kFlagBits == kTail && slot > 0) {
            return Mapping{from, from + peek(phys[slot]), peek(phys[slot - 1]), flags};
        }
        return Mapping{from, from + (word >> kFlagBits), peek(phys[slot]), flags};
    }
    // The slot after the mapping that begins with `slot`.
    size_t after(size_t slot) const
    {
        return slot + 1 < end() && is_tail(slot + 1) ? slot + 2 : slot + 1;
    }

    struct Search {
        size_t end; // the slot after those that start at or below the address
        bool found; // whether there are any
    };
    Search search(uint64_t iova) const
    {
        // A reader may see any numbers.
        const size_t from = std::min<size_t>(peek(head), kSlots);
        const size_t to = std::min<size_t>(from + peek(count), kSlots);
        const size_t end = viommu::search(start, to, iova);
        return {end, end > from};
    }
    // The first slot that starts at or above `iova`, or above.
    size_t lower(uint64_t iova) const { return iova == 0 ? begin() : upper(iova - 1); }
    size_t upper(uint64_t iova) const { return search(iova).end; }

    // The rest changes the leaf.

    // There is room.  Where neighbours move, it is the shorter side.
    void insert(size_t at, const Mapping &mapping);
    void erase(size_t from, size_t to);
    // Slots from `from` on go to the end of `target`.
    void move_tail(size_t from, Leaf &target);
    // Where the next insertion is to find room, while the leaf is empty.
    void start_at(size_t slot)
    {
        fill(start, 0, slot, kUnusedBefore);
        fill(start, slot, kSlots, kUnusedBehind);
        poke(head, static_cast<uint16_t>(slot));
    }

    alignas(64) std::array<Atomic<uint64_t>, kSlots> start;
    std::array<Atomic<uint64_t>, kSlots> phys{};
    std::array<Atomic<uint32_t>, kSlots> extent{}; // last - start and MAP flags

private:
    static constexpr uint32_t kFlagBits = 3;
    static constexpr uint32_t kFlags = (1u << kFlagBits) - 1;
    static constexpr uint32_t kTail = UINT32_MAX >> kFlagBits;

    void copy_slots(size_t from, size_t n, Leaf &target, size_t to) const;
};

// Child i holds the mappings that start in [key[i - 1], key[i]).
struct alignas(64) MappingSet::Inner final : Node {
    static constexpr size_t kChildren = (kNodeSize - kHeadSize - 8) / 16 / kLine * kLine + 1;

    explicit Inner(uint8_t height) : Node(height) { fill(keys, 0, keys.size(), kUnusedBehind); }

    size_t child_for(uint64_t iova) const
    {
        // A reader may see any count.
        return search(keys, std::clamp<size_t>(peek(count), 1, kChildren) - 1, iova);
    }

    // The rest changes the node.

    // A child that is not the first, and the key before it.
    void insert(size_t at, uint64_t before, Node *child);
    // Children [begin, end), each with the key before it; the first child, which
    // has none, with the one behind it.
    void erase(size_t begin, size_t end);
    // Children [from, count) become the content of the empty `target`; returns
    // the key that was before them.
    uint64_t move_tail(size_t from, Inner &target);
    // All of `other`, and the key between the two.
    void append(Inner &other, uint64_t before);

    alignas(64) std::array<Atomic<uint64_t>, kChildren - 1> keys;
    std::array<Atomic<Node *>, kChildren> children{};
};

inline bool MappingSet::holds(const Stamp &stamp) const
{
    return peek(generation_) == stamp.generation && stamp.leaf->version.peek() == stamp.version;
}

} // namespace viommu
