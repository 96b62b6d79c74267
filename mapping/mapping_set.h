// SPDX-License-Identifier: GPL-2.0-or-later
//
// The mappings of one domain: disjoint ranges of IOVAs, each an entity of its
// own (neighbours are never merged: UNMAP must tell them apart).
//
// A B+-tree with one writer at a time and any number of readers beside it, who take no
// lock and write nothing that is shared.  README.md says what readers rely on, why that is
// safe, and how high and how large a tree can be.  Read it before changing anything here.
#pragma once

#include "mapping.h"

#include "base/atomic.h"
#include "base/reclaimer.h"

#include <viommu/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace viommu
{

class MappingSet
{
public:
    struct Node;
    struct Leaf;
    struct Inner;

    // What an answer rests on: with it a reader that keeps the answer asks later whether
    // it holds still.
    struct Stamp {
        const Leaf *leaf;
        uint64_t version;
        uint64_t generation;
    };

    // Without a reclaimer there must be no readers: nodes are freed at once.
    explicit MappingSet(Reclaimer *reclaimer = nullptr) : reclaimer_(reclaimer) {}
    MappingSet(MappingSet &&other) noexcept;
    MappingSet &operator=(MappingSet &&) = delete;
    ~MappingSet(); // no readers any more

    // To be called before the first reader comes.
    void set_reclaimer(Reclaimer *reclaimer) { reclaimer_ = reclaimer; }

    // Any thread, see above: the mapping that contains `iova`.  W7: this very
    // byte, no other.
    std::optional<Mapping> find(uint64_t iova) const
    {
        Stamp stamp;
        return find(iova, stamp);
    }
    // As well, with the means to ask again, if there is one.
    std::optional<Mapping> find(uint64_t iova, Stamp &stamp) const;
    // Any thread: whether what was found is mapped still.
    bool holds(const Stamp &stamp) const;

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
    class Unlinked;

    Path descend(uint64_t iova) const;
    void split(Path &path, const Mapping &mapping);
    Removed remove_across(uint64_t first, uint64_t last);
    void rebalance(uint64_t iova, Unlinked &unlinked);
    bool rebalance_one(Path &path, Unlinked &unlinked);

    Atomic<Node *> root_{nullptr};
    Atomic<uint64_t> generation_{0};
    size_t size_ = 0;
    size_t nodes_ = 0;
    Reclaimer *reclaimer_;
};

} // namespace viommu
