// SPDX-License-Identifier: GPL-2.0-or-later
#include "node_pool.h"

#include "nodes.h"

#include <sys/mman.h>

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

// The head of a chunk, in place of its first block; aligned to its size, so that
// a block knows its chunk.
struct NodePool::Chunk {
    static constexpr uint64_t kAll = ~uint64_t{1};

    Chunk *next;
    Chunk *previous;
    uint64_t free; // bit i: block i

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

class VIOMMU_SCOPED_CAPABILITY NodePool::Guard
{
public:
    explicit Guard(std::mutex &lock) VIOMMU_ACQUIRE(pool_lock) VIOMMU_NO_THREAD_SAFETY_ANALYSIS
        : lock_(lock)
    {
        lock_.lock();
    }
    ~Guard() VIOMMU_RELEASE() VIOMMU_NO_THREAD_SAFETY_ANALYSIS { lock_.unlock(); }
    Guard(const Guard &) = delete;
    Guard &operator=(const Guard &) = delete;

private:
    std::mutex &lock_;
};

namespace
{

// `chunks` are linked by `next`.
template <typename Chunk> void give_back(Chunk *chunks)
{
    while (chunks) {
        munmap(std::exchange(chunks, chunks->next), kChunkSize);
    }
}

} // namespace

NodePool &NodePool::instance()
{
    return pool;
}

NodePool::Chunk *NodePool::new_chunk() noexcept
{
    const auto map = [](size_t size) {
        return mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    };
    // The system likes to put one below the other, so most are aligned.
    void *memory = map(kChunkSize);
    if (memory == MAP_FAILED) {
        return nullptr;
    }
    if (reinterpret_cast<uintptr_t>(memory) % kChunkSize != 0) {
        munmap(memory, kChunkSize);
        memory = map(2 * kChunkSize);
        if (memory == MAP_FAILED) {
            return nullptr;
        }
        auto *const bytes = static_cast<std::byte *>(memory);
        const size_t before = -reinterpret_cast<uintptr_t>(memory) % kChunkSize;
        if (before != 0) {
            munmap(bytes, before);
        }
        munmap(bytes + before + kChunkSize, kChunkSize - before);
        memory = bytes + before;
    }
    auto *const chunk = new (memory) Chunk{nullptr, nullptr, Chunk::kAll};
    POISON(chunk->block(1), kChunkSize - kNodeSize);
    return chunk;
}

void NodePool::insert(Chunk *chunk)
{
    chunk->previous = nullptr;
    chunk->next = partial_;
    if (partial_) {
        partial_->previous = chunk;
    }
    partial_ = chunk;
}

void NodePool::remove(Chunk *chunk)
{
    (chunk->previous ? chunk->previous->next : partial_) = chunk->next;
    if (chunk->next) {
        chunk->next->previous = chunk->previous;
    }
}

void *NodePool::allocate()
{
    const Guard guard(lock_);
    if (MappingSet::Node *const old = pluck()) {
        return old;
    }
    if (!partial_) {
        Chunk *chunk = idle_;
        if (chunk) {
            idle_ = chunk->next;
        } else {
            chunk = new_chunk();
            if (!chunk) {
                throw std::bad_alloc();
            }
            use_.chunks++;
        }
        insert(chunk);
    }
    Chunk *const chunk = partial_;
    const auto i = static_cast<size_t>(std::countr_zero(chunk->free));
    chunk->free &= chunk->free - 1;
    if (chunk->free == 0) {
        remove(chunk);
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
        insert(chunk);
    }
    chunk->free |= uint64_t{1} << Chunk::index(block);
    if (chunk->free == Chunk::kAll) {
        remove(chunk);
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
        use_.chunks--;
        // The next owner of these addresses knows nothing of the poison.
        UNPOISON(chunk, kChunkSize);
        chunk->next = std::exchange(out, chunk);
    }
    return out;
}

void NodePool::release(MappingSet::Node *node) noexcept
{
    const Guard guard(lock_);
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
MappingSet::Node *NodePool::pluck()
{
    while (MappingSet::Node *const top = garbage_) {
        const size_t children = top->level == 0 ? 0 : own(top->count);
        if (children == 0) {
            garbage_ = top->next;
            if (top != sweeper_) {
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
        const Guard guard(lock_);
        if (sweeper_ != trees) {
            add(trees);
            if (sweeper_) {
                return false; // all of it is garbage, which is being swept
            }
            sweeper_ = trees;
            return true;
        }
        for (size_t left = kStep; left > 0; left--) {
            MappingSet::Node *const node = pluck();
            if (!node) {
                break;
            }
            put(node);
        }
        unused = trim(kStepChunks);
        more = garbage_ || (idle_ && idle_->next);
        if (!more) {
            put(std::exchange(sweeper_, nullptr));
        }
    }
    give_back(unused);
    return more;
}

void NodePool::free(MappingSet::Node *trees) noexcept
{
    Chunk *unused = nullptr;
    {
        const Guard guard(lock_);
        MappingSet::Node *const others = std::exchange(garbage_, nullptr);
        add(trees);
        while (MappingSet::Node *const node = pluck()) {
            put(node);
        }
        garbage_ = others;
        unused = trim(SIZE_MAX);
    }
    give_back(unused);
}

NodePool::Use NodePool::use() noexcept
{
    const Guard guard(lock_);
    return use_;
}

} // namespace viommu
