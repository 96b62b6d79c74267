// SPDX-License-Identifier: GPL-2.0-or-later
#include "node_pool.h"

#include "nodes.h"

#include "base/pages.h"

#include <bit>
#include <new>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#define VIOMMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define VIOMMU_ASAN 1
#endif
#endif
#ifdef VIOMMU_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(at, size) ASAN_POISON_MEMORY_REGION(at, size)
#define UNPOISON(at, size) ASAN_UNPOISON_MEMORY_REGION(at, size)
#elif defined(VIOMMU_MODEL)
#define POISON(at, size) model::poison(at, size)
#define UNPOISON(at, size) model::unpoison(at, size)
#else
#define POISON(at, size) static_cast<void>(at)
#define UNPOISON(at, size) static_cast<void>(at)
#endif

namespace viommu
{

namespace
{

constexpr size_t kChunkSize = 64 * kNodeSize;

constinit NodePool pool;

} // namespace

// The head of an arena, before the first chunk.
struct NodePool::Arena {
    static constexpr size_t kChunks = 64;
    static constexpr uint64_t kAll = ~uint64_t{0};
    // The chunks are aligned, which takes as much as one more.
    static constexpr size_t kSize = (kChunks + 1) * kChunkSize;

    Arena *next;
    Arena *previous;
    uint64_t unused; // bit i: chunk i
    uint64_t kept;   // of those, what the system did not take back

    static std::byte *align(std::byte *at)
    {
        return at + kChunkSize - reinterpret_cast<uintptr_t>(at) % kChunkSize;
    }
    std::byte *chunk(size_t i)
    {
        return align(reinterpret_cast<std::byte *>(this)) + i * kChunkSize;
    }
    uint64_t bit(const Chunk *chunk) const
    {
        const auto *const base = reinterpret_cast<const std::byte *>(this);
        // Less than one chunk of it is before the first.
        const auto *const at = reinterpret_cast<const std::byte *>(chunk);
        return uint64_t{1} << (static_cast<size_t>(at - base) - 1) / kChunkSize;
    }
};

// The head of a chunk, in place of its first block; aligned to its size, so that
// a block knows its chunk.
struct NodePool::Chunk {
    static constexpr uint64_t kAll = ~uint64_t{1};

    Chunk *next;
    Chunk *previous;
    uint64_t free; // bit i: block i
    Arena *arena;

    static Chunk *of(void *block)
    {
        auto *const bytes = static_cast<std::byte *>(block);
        return reinterpret_cast<Chunk *>(bytes - index(block) * kNodeSize);
    }
    static size_t index(const void *block)
    {
        return reinterpret_cast<uintptr_t>(block) % kChunkSize / kNodeSize;
    }
    std::byte *block(size_t i) { return reinterpret_cast<std::byte *>(this) + i * kNodeSize; }
};

NodePool &NodePool::instance()
{
    return pool;
}

template <typename T> void NodePool::insert(T *&first, T *entry)
{
    entry->previous = nullptr;
    entry->next = first;
    if (first) {
        first->previous = entry;
    }
    first = entry;
}

template <typename T> void NodePool::remove(T *&first, T *entry)
{
    (entry->previous ? entry->previous->next : first) = entry->next;
    if (entry->next) {
        entry->next->previous = entry->previous;
    }
}

NodePool::Arena *NodePool::new_arena() noexcept
{
    void *const memory = map_pages(Arena::kSize);
    if (!memory) {
        return nullptr;
    }
    auto *const arena = new (memory) Arena{nullptr, nullptr, Arena::kAll, 0};
    POISON(arena->chunk(0), Arena::kChunks * kChunkSize);
    return arena;
}

NodePool::Chunk *NodePool::new_chunk()
{
    if (!roomy_) {
        Arena *const fresh = new_arena();
        if (!fresh) {
            throw std::bad_alloc();
        }
        insert(roomy_, fresh);
    }
    Arena &arena = *roomy_;
    const auto i = static_cast<size_t>(std::countr_zero(arena.unused));
    const uint64_t bit = uint64_t{1} << i;
    arena.unused &= ~bit;
    if (arena.unused == 0) {
        remove(roomy_, &arena);
    }
    if ((arena.kept & bit) == 0) {
        use_.chunks++;
    }
    arena.kept &= ~bit;
    void *const memory = arena.chunk(i);
    UNPOISON(memory, kNodeSize);
    return new (memory) Chunk{nullptr, nullptr, Chunk::kAll, &arena};
}

void *NodePool::allocate()
{
    const MutexLock guard(lock_);
    if (MappingSet::Node *const old = take_garbage()) {
        return old;
    }
    if (!partial_) {
        Chunk *chunk = idle_;
        if (chunk) {
            idle_ = chunk->next;
        } else {
            chunk = new_chunk();
        }
        insert(partial_, chunk);
    }
    Chunk *const chunk = partial_;
    const auto i = static_cast<size_t>(std::countr_zero(chunk->free));
    chunk->free &= chunk->free - 1;
    if (chunk->free == 0) {
        remove(partial_, chunk);
    }
    use_.nodes++;
    void *const block = chunk->block(i);
    UNPOISON(block, kNodeSize);
    return block;
}

void NodePool::put(void *block)
{
    POISON(block, kNodeSize);
    use_.nodes--;
    Chunk *const chunk = Chunk::of(block);
    if (chunk->free == 0) {
        insert(partial_, chunk);
    }
    chunk->free |= uint64_t{1} << Chunk::index(block);
    if (chunk->free == Chunk::kAll) {
        remove(partial_, chunk);
        chunk->next = std::exchange(idle_, chunk);
    }
}

// Takes idle chunks out, all but one, at most `most`.
NodePool::Chunk *NodePool::trim(size_t most)
{
    Chunk *out = nullptr;
    for (; most > 0 && idle_ && idle_->next; most--) {
        Chunk *const chunk = idle_;
        idle_ = chunk->next;
        chunk->next = std::exchange(out, chunk);
    }
    return out;
}

// The list that trim() returned.  Without the lock where the system is asked.
void NodePool::give_back(Chunk *chunks) noexcept
{
    while (chunks) {
        Chunk *const chunk = std::exchange(chunks, chunks->next);
        Arena &arena = *chunk->arena;
        const uint64_t bit = arena.bit(chunk);
        const bool gone = empty_pages(chunk, kChunkSize);
        POISON(chunk, kChunkSize);
        {
            const MutexLock guard(lock_);
            if (gone) {
                use_.chunks--;
            } else {
                arena.kept |= bit;
            }
            if (arena.unused == 0) {
                insert(roomy_, &arena);
            }
            arena.unused |= bit;
            if (arena.unused != Arena::kAll) {
                continue;
            }
            remove(roomy_, &arena);
        }
        const auto kept = static_cast<size_t>(std::popcount(arena.kept));
        // The next owner of these addresses knows nothing of the poison.
        UNPOISON(&arena, Arena::kSize);
        const bool unmapped = unmap_pages(&arena, Arena::kSize);
        if (!unmapped) {
            POISON(arena.chunk(0), Arena::kChunks * kChunkSize);
        }
        const MutexLock guard(lock_);
        if (unmapped) {
            use_.chunks -= kept;
        } else {
            insert(roomy_, &arena);
        }
    }
}

void NodePool::release(MappingSet::Node *node) noexcept
{
    const MutexLock guard(lock_);
    put(node);
}

void NodePool::add(MappingSet::Node *trees)
{
    MappingSet::Node *end = trees;
    while (end->next) {
        end = end->next;
    }
    end->next = std::exchange(garbage_, trees);
}

// Takes one node off the garbage, children before parents.  Leaves are not
// looked at.
MappingSet::Node *NodePool::take_garbage()
{
    while (MappingSet::Node *const top = garbage_) {
        const size_t children = top->level == 0 ? 0 : own(top->count);
        if (children == 0) {
            garbage_ = top->next;
            if (top != sweeping_) {
                return top;
            }
            continue;
        }
        const auto &inner = *static_cast<MappingSet::Inner *>(top);
        MappingSet::Node *const child = own(inner.children[children - 1]);
        top->count.store(static_cast<uint16_t>(children - 1), std::memory_order_relaxed);
        if (top->level == 1) {
            return child;
        }
        child->next = top;
        garbage_ = child;
    }
    return nullptr;
}

bool NodePool::step(MappingSet::Node *trees) noexcept
{
    Chunk *unused = nullptr;
    bool more = false;
    {
        const MutexLock guard(lock_);
        if (sweeping_ != trees) {
            add(trees);
            if (sweeping_) {
                return false; // all of it is garbage, which is being swept
            }
            sweeping_ = trees;
            return true;
        }
        for (size_t left = kStep; left > 0; left--) {
            MappingSet::Node *const node = take_garbage();
            if (!node) {
                break;
            }
            put(node);
        }
        unused = trim(kStepChunks);
        more = garbage_ || (idle_ && idle_->next);
        if (!more) {
            put(std::exchange(sweeping_, nullptr));
        }
    }
    give_back(unused);
    return more;
}

void NodePool::free(MappingSet::Node *trees) noexcept
{
    Chunk *unused = nullptr;
    {
        const MutexLock guard(lock_);
        MappingSet::Node *const others = std::exchange(garbage_, nullptr);
        add(trees);
        while (MappingSet::Node *const node = take_garbage()) {
            put(node);
        }
        garbage_ = others;
        unused = trim(SIZE_MAX);
    }
    give_back(unused);
}

NodePool::Use NodePool::use() noexcept
{
    const MutexLock guard(lock_);
    return use_;
}

} // namespace viommu
