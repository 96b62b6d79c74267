// SPDX-License-Identifier: GPL-2.0-or-later
//
// The mappings of one domain: disjoint ranges of IOVAs, each an entity of its
// own (neighbours are never merged: UNMAP must tell them apart).
//
// A B+-tree of 1 KiB nodes, keys apart from values.  Random insertion fills a
// leaf by two thirds, insertion in either order fills it up: 22 to 33 bytes a
// mapping.
//
// One writer at a time, any number of readers beside it.  find() is for readers:
// it takes no lock and writes nothing that is shared.
//   - A node carries a version that is odd while the writer changes the node, and
//     differs afterwards.  A reader notes the version, reads, and compares: what
//     it read of an unchanged version was there together.  Going down it compares
//     the parent's version once more after noting the child's, so that the child
//     was the right one when its version was noted.  What does not compare is
//     read again from the root.
//   - Every field that readers look at is atomic, so a torn read is a wrong value,
//     never undefined; indices are bounded before they are used, and a pointer is
//     followed only after its node compared.
//   - What leaves the tree is a node or a whole subtree.  It is unlinked in one
//     place, whose version or pointer readers compare; what is below stays as it
//     was, so a reader that is in there finds what held when it was unlinked.  A
//     node whose content lives on elsewhere is changed once more, and empty.
//   - It is handed to the Graveyard, which gives it to the NodePool when no reader
//     of that time is left.  So the memory behind a pointer that was valid when it
//     was read stays valid.
// An answer is therefore one that held at a moment during the call.
//
// A Sighting is how a reader that keeps an answer asks later whether it holds
// still.  When the writer has unlinked what leaves the tree, and before it hands that
// to the Graveyard and returns, it counts.  A reader notes the count before it looks:
//   - if it notes the new count it finds the tree without what was unlinked;
//   - if it notes the old one, the Sighting ends with the count, whatever was found,
//     and also if the look was in the middle of the unlinking.
// So a Sighting whose count is that of now is of a leaf that nothing has unlinked but
// a removal that has not returned yet; and its memory is valid, since who reads the
// old count came before the Graveyard was asked to wait for readers.  While the leaf's
// version is the same, too, so is the mapping.  Both only grow, so at the moment of
// the earlier comparison both held.
#pragma once

#include "wire.h"

#include <viommu/viommu.h>

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <optional>

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

// Takes what readers may still look at, to free it when they no longer can.
class Graveyard
{
public:
    virtual void bury(ViommuDeferred &remains) noexcept = 0;

protected:
    ~Graveyard() = default;
};

class MappingSet
{
public:
    struct Node;
    struct Leaf;
    struct Inner;

    struct Sighting {
        const Leaf *leaf;
        uint64_t version;
        uint64_t discards;
    };

    // Without a graveyard there must be no readers: nodes are freed at once.
    explicit MappingSet(Graveyard *graveyard = nullptr) : graveyard_(graveyard) {}
    MappingSet(MappingSet &&other) noexcept;
    MappingSet &operator=(MappingSet &&) = delete;
    ~MappingSet(); // no readers any more

    // To be called before the first reader comes.
    void set_graveyard(Graveyard *graveyard) { graveyard_ = graveyard; }

    // Any thread, see above: the mapping that contains `iova`.  W7: this very
    // byte, no other.
    std::optional<Mapping> find(uint64_t iova) const
    {
        Sighting sighting;
        return find(iova, sighting);
    }
    // As well, with the means to ask again, if there is one.
    std::optional<Mapping> find(uint64_t iova, Sighting &sighting) const;
    // Any thread: whether what was found is mapped still.
    bool holds(const Sighting &sighting) const;

    // The rest is for the writer.

    size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }

    // Bytes of its nodes.
    size_t memory() const;
    // The most by which one insert() makes them more.
    static const size_t kInsertMemory;

    // The lowest mapping that starts at or above `iova`.
    std::optional<Mapping> next(uint64_t iova) const;

    // The highest mapping that starts at or below `iova`.
    std::optional<Mapping> previous(uint64_t iova) const;

    // The next one after `mapping`, for walking in IOVA order.
    std::optional<Mapping> after(const Mapping &mapping) const
    {
        return mapping.last == UINT64_MAX ? std::nullopt : next(mapping.last + 1);
    }

    bool overlaps(uint64_t first, uint64_t last) const;

    // True if some mapping lies partly inside and partly outside.
    bool splits(uint64_t first, uint64_t last) const;

    // False, and nothing done, if the mapping overlaps another.  If memory runs
    // out it throws std::bad_alloc and the set is unchanged.
    bool insert(const Mapping &mapping);

    struct Removed {
        size_t count;
        // From the first address of the first of them to the last of the last; not
        // for a count of 0.
        uint64_t first;
        uint64_t last;
    };

    // Removes all mappings inside [first, last]; nothing if the range splits one.
    // Unlinks whole subtrees: a look at every leaf that goes is all that depends
    // on the number of mappings, and if all go, not even that.
    std::optional<Removed> remove(uint64_t first, uint64_t last);

    void clear();

private:
    struct Path;
    class Change;
    class Discarded;

    Path descend(uint64_t iova) const;
    void split(Path &path, const Mapping &mapping);
    Removed cut(uint64_t first, uint64_t last);
    void tidy(uint64_t iova, Discarded &discarded);
    bool mend(Path &path, Discarded &discarded);

    std::atomic<Node *> root_{nullptr};
    std::atomic<uint64_t> discards_{0};
    size_t size_ = 0;
    size_t nodes_ = 0;
    Graveyard *graveyard_;
};

} // namespace viommu
