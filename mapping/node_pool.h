// SPDX-License-Identifier: GPL-2.0-or-later
//
// The memory of all nodes in the process.  It comes from the system in arenas of 4 MiB, which
// are cut into chunks of 64 KiB.  A chunk of which nothing is used gives its memory back; one
// is kept.  An arena of which nothing is used gives its addresses back.  So the process has
// one mapping of memory for every 4 MiB, however nodes lie in it.
//
// A tree that no reader can be in any more is garbage.  It is taken apart in steps of at most
// kStep nodes and kStepChunks chunks, so no step takes long.  New nodes are made of garbage
// first: it cannot pile up, however late the steps come.
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

    // Frees the trees of a list that no reader is in: at once, or in steps.
    //
    // step() is called again with the same list while it returns true, and the first node
    // of the list stays until it does not.  The first call only adds the list to the
    // garbage.  If others are being freed, it returns false: their steps free this list,
    // too.  So one round of calls for many lists does the work of one step.
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
