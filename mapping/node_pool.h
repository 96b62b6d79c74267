// SPDX-License-Identifier: GPL-2.0-or-later
//
// The memory of all nodes in the process.  It comes from the system in arenas of 4 MiB,
// is used in chunks of 64 KiB, and goes back, chunk by chunk, when nothing of a chunk
// is used; one free chunk is kept.  The addresses of an arena go when no chunk of it is
// used: so the process has a mapping for every 4 MiB at most, however nodes lie.  What
// the system does not take back is used again.
//
// A tree that has left its set is garbage: first readers may still be in it, then
// it is taken apart in steps of at most kStep nodes and kStepChunks chunks, so that
// whoever reclaims is never busy for long, however large the tree was and however
// it lay in memory.  New nodes are taken from garbage first: it cannot pile up while
// steps are waited for.
#pragma once

#include "mapping_set.h"

#include "base/mutex.h"

#include <cstddef>
#include <cstdint>

namespace viommu
{

// All may be called by any thread.
class NodePool
{
public:
    static constexpr size_t kStep = 1024;
    static constexpr size_t kStepChunks = 16;

    constexpr NodePool() = default;
    NodePool(const NodePool &) = delete;
    NodePool &operator=(const NodePool &) = delete;

    static NodePool &instance();

    // Room for one node.  Throws std::bad_alloc.
    void *allocate();

    // A node that no reader has seen.
    void release(MappingSet::Node *node) noexcept;

    // The trees of a list that no reader is in: at once, or by steps.  A step
    // returns true if it is to be called again with the same list; until then the
    // first node stays.  The first call only makes garbage of the list, and the
    // steps are made on behalf of one list at a time: so any number of lists that
    // are called for in turn get no more than one step done.
    void free(MappingSet::Node *trees) noexcept;
    bool step(MappingSet::Node *trees) noexcept;

    struct Use {
        size_t nodes;  // not free, garbage included
        size_t chunks; // that have memory
    };
    Use use() noexcept;

private:
    struct Arena;
    struct Chunk;

    static Arena *new_arena() noexcept;
    Chunk *new_chunk() VIOMMU_REQUIRES(lock_);
    void give_back(Chunk *chunks) noexcept VIOMMU_EXCLUDES(lock_);

    void add(MappingSet::Node *trees) VIOMMU_REQUIRES(lock_);
    MappingSet::Node *take_garbage() VIOMMU_REQUIRES(lock_);
    void put(void *block) VIOMMU_REQUIRES(lock_);
    Chunk *trim(size_t most) VIOMMU_REQUIRES(lock_);
    // In and out of the list with that first entry.
    template <typename T> static void insert(T *&first, T *entry);
    template <typename T> static void remove(T *&first, T *entry);

    Mutex lock_;                                        // a leaf: no other lock is taken under it
    Chunk *partial_ VIOMMU_GUARDED_BY(lock_) = nullptr; // some blocks free, some not
    Chunk *idle_ VIOMMU_GUARDED_BY(lock_) = nullptr;    // all blocks free
    Arena *roomy_ VIOMMU_GUARDED_BY(lock_) = nullptr;   // some chunks unused
    MappingSet::Node *garbage_ VIOMMU_GUARDED_BY(lock_) = nullptr;
    // First node of the list on whose behalf the steps are made.
    MappingSet::Node *sweeping_ VIOMMU_GUARDED_BY(lock_) = nullptr;
    Use use_ VIOMMU_GUARDED_BY(lock_){0, 0};
};

} // namespace viommu
