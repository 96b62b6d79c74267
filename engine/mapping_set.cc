// SPDX-License-Identifier: GPL-2.0-or-later
#include "mapping_set.h"

#include <algorithm>
#include <cassert>
#include <memory>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace viommu
{

namespace
{

// 12 and 16 cache lines.
constexpr size_t kLeafSlots = 29;
constexpr size_t kChildren = 62;

// Every level but the top has at least two children a node on average; 2^64
// mappings do not exist.
constexpr size_t kMaxDepth = 20;

// Below a quarter a node looks for a neighbour to merge with, unless the two
// would nearly fill one.
constexpr size_t kLeafFew = kLeafSlots / 4;
constexpr size_t kLeafMerged = kLeafSlots * 3 / 4;
constexpr size_t kFewChildren = kChildren / 4;
constexpr size_t kMergedChildren = kChildren * 3 / 4;

// Readers compare versions after reading: on the data the acquire keeps the
// comparison behind it.
template <typename T> T peek(const std::atomic<T> &field)
{
    return field.load(std::memory_order_acquire);
}

// The release keeps the data behind the odd version that announces it.
template <typename T> void poke(std::atomic<T> &field, T value)
{
    field.store(value, std::memory_order_release);
}

// For the writer, who alone changes anything.
template <typename T> T own(const std::atomic<T> &field)
{
    return field.load(std::memory_order_relaxed);
}

void relax()
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// How many of keys[0, count) are at most `key`; the keys ascend.
template <size_t N>
size_t count_up_to(const std::array<std::atomic<uint64_t>, N> &keys, size_t count, uint64_t key)
{
    size_t low = 0;
    while (count > 0) {
        const size_t half = count / 2;
        if (peek(keys[low + half]) <= key) {
            low += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return low;
}

} // namespace

struct MappingSet::Node : ViommuDeferred {
    static constexpr uint32_t kChanging = 1;
    static constexpr uint32_t kGone = 2;
    static constexpr uint32_t kStep = 4;

    explicit Node(bool leaf) : ViommuDeferred{}, is_leaf(leaf) {}

    // The version to compare later, or nothing if the node has left the tree.
    std::optional<uint32_t> note() const
    {
        uint32_t seen = peek(version);
        while ((seen & kChanging) != 0) {
            relax();
            seen = peek(version);
        }
        return (seen & kGone) != 0 ? std::nullopt : std::optional(seen);
    }

    bool unchanged(uint32_t noted) const
    {
        return version.load(std::memory_order_relaxed) == noted;
    }

    std::atomic<uint32_t> version{0};
    const bool is_leaf;
    std::atomic<uint16_t> count{0}; // entries, or children
};

struct alignas(64) MappingSet::Leaf final : Node {
    Leaf() : Node(true) {}

    Mapping get(size_t i) const
    {
        return Mapping{peek(start[i]), peek(last[i]), peek(phys[i]), peek(flags[i])};
    }
    void set(size_t i, const Mapping &mapping)
    {
        poke(start[i], mapping.iova);
        poke(last[i], mapping.last);
        poke(phys[i], mapping.phys);
        poke(flags[i], static_cast<uint8_t>(mapping.flags));
    }
    // Entries [from, count) to `to` on, here or in another leaf.
    void move(size_t from, Leaf &target, size_t to)
    {
        const size_t n = own(count) - from;
        if (&target == this && to > from) {
            for (size_t i = n; i-- > 0;) {
                target.set(to + i, get(from + i));
            }
        } else {
            for (size_t i = 0; i < n; i++) {
                target.set(to + i, get(from + i));
            }
        }
    }
    // Position of the first entry that starts at or above `iova`.
    size_t lower(uint64_t iova) const
    {
        return iova == 0 ? 0 : count_up_to(start, own(count), iova - 1);
    }

    std::array<std::atomic<uint64_t>, kLeafSlots> start{};
    std::array<std::atomic<uint64_t>, kLeafSlots> last{};
    std::array<std::atomic<uint64_t>, kLeafSlots> phys{};
    std::array<std::atomic<uint8_t>, kLeafSlots> flags{};
};

// Child i holds the mappings that start in [key[i - 1], key[i]).
struct alignas(64) MappingSet::Inner final : Node {
    Inner() : Node(false) {}

    // A child that is not the first, and the key before it.
    void insert(size_t at, uint64_t before, Node *child)
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
    void erase(size_t at)
    {
        const size_t n = own(count);
        for (size_t i = at; i + 1 < n; i++) {
            poke(children[i], own(children[i + 1]));
        }
        for (size_t i = at == 0 ? 0 : at - 1; i + 2 < n; i++) {
            poke(keys[i], own(keys[i + 1]));
        }
        poke(count, static_cast<uint16_t>(n - 1));
    }
    // Children [from, count) become the content of the empty `target`; returns
    // the key that was before them.
    uint64_t move_tail(size_t from, Inner &target)
    {
        const size_t n = own(count);
        for (size_t i = from; i < n; i++) {
            poke(target.children[i - from], own(children[i]));
            if (i > from) {
                poke(target.keys[i - from - 1], own(keys[i - 1]));
            }
        }
        poke(target.count, static_cast<uint16_t>(n - from));
        poke(count, static_cast<uint16_t>(from));
        return own(keys[from - 1]);
    }
    void append(const Inner &other, uint64_t before)
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
    }

    std::array<std::atomic<uint64_t>, kChildren - 1> keys{};
    std::array<std::atomic<Node *>, kChildren> children{};
};

// The way of the writer from the root to a leaf.
struct MappingSet::Path {
    struct Step {
        Inner *inner;
        size_t child;
    };
    std::array<Step, kMaxDepth> steps;
    size_t depth = 0;
    Leaf *leaf = nullptr;
    std::optional<uint64_t> high; // where the next leaf begins
};

// While one exists readers wait for, or discard, what they see of the node.
class MappingSet::Change
{
public:
    explicit Change(Node &node) : node_(node)
    {
        node_.version.store(own(node_.version) | Node::kChanging, std::memory_order_relaxed);
        // The data that follows is stored with release, so it stays behind.
    }
    ~Change() { poke(node_.version, (own(node_.version) & ~Node::kChanging) + Node::kStep); }
    Change(const Change &) = delete;
    Change &operator=(const Change &) = delete;

private:
    Node &node_;
};

MappingSet::MappingSet(MappingSet &&other) noexcept
    : root_(own(other.root_)), size_(std::exchange(other.size_, 0)), graveyard_(other.graveyard_)
{
    other.root_.store(nullptr, std::memory_order_relaxed);
}

MappingSet::~MappingSet()
{
    free_tree(own(root_));
}

void MappingSet::free_node(Node *node)
{
    if (node->is_leaf) {
        delete static_cast<Leaf *>(node);
    } else {
        delete static_cast<Inner *>(node);
    }
}

// As deep as the tree is high.
void MappingSet::free_tree(Node *node)
{
    if (!node) {
        return;
    }
    if (!node->is_leaf) {
        const auto *const inner = static_cast<const Inner *>(node);
        for (size_t i = 0; i < own(inner->count); i++) {
            free_tree(own(inner->children[i]));
        }
    }
    free_node(node);
}

void MappingSet::free_deferred(ViommuDeferred *remains)
{
    free_node(static_cast<Node *>(remains));
}

// The node has left the tree.
void MappingSet::discard(Node *node)
{
    if (!graveyard_) {
        free_node(node);
        return;
    }
    poke(node->version, own(node->version) | Node::kGone);
    node->reclaim = free_deferred;
    graveyard_->bury(*node);
}

std::optional<Mapping> MappingSet::find(uint64_t iova) const
{
    uint64_t target = iova;
    for (;;) {
        const Node *node = peek(root_);
        if (!node) {
            return std::nullopt;
        }
        std::optional<uint32_t> noted = node->note();
        if (!noted || peek(root_) != node) {
            continue;
        }

        uint64_t low = 0; // nothing in the leaf starts below
        bool again = false;
        while (!node->is_leaf) {
            const auto *const inner = static_cast<const Inner *>(node);
            const size_t count = std::clamp<size_t>(peek(inner->count), 1, kChildren);
            const size_t i = count_up_to(inner->keys, count - 1, target);
            if (i > 0) {
                low = peek(inner->keys[i - 1]);
            }
            const Node *const child = peek(inner->children[i]);
            if (!inner->unchanged(*noted)) {
                again = true;
                break;
            }
            const std::optional<uint32_t> child_noted = child->note();
            if (!child_noted || !inner->unchanged(*noted)) {
                again = true;
                break;
            }
            node = child;
            noted = child_noted;
        }
        if (again) {
            continue;
        }

        const auto *const leaf = static_cast<const Leaf *>(node);
        const size_t count = std::min<size_t>(peek(leaf->count), kLeafSlots);
        const size_t below = count_up_to(leaf->start, count, target);
        const Mapping mapping = below > 0 ? leaf->get(below - 1) : Mapping{};
        if (!leaf->unchanged(*noted)) {
            continue;
        }
        if (below > 0) {
            return iova <= mapping.last ? std::optional(mapping) : std::nullopt;
        }
        if (low == 0) {
            return std::nullopt;
        }
        // A mapping that starts in an earlier leaf may reach up to here.
        target = low - 1;
    }
}

// The leaf in which a mapping that starts at `iova` would be.
MappingSet::Path MappingSet::descend(uint64_t iova) const
{
    Path path;
    Node *node = own(root_);
    while (node && !node->is_leaf) {
        auto *const inner = static_cast<Inner *>(node);
        const size_t count = own(inner->count);
        const size_t i = count_up_to(inner->keys, count - 1, iova);
        if (i < count - 1) {
            path.high = own(inner->keys[i]);
        }
        path.steps[path.depth++] = {inner, i};
        node = own(inner->children[i]);
    }
    path.leaf = static_cast<Leaf *>(node);
    return path;
}

std::optional<Mapping> MappingSet::next(uint64_t iova) const
{
    for (Path path = descend(iova); path.leaf; path = descend(*path.high)) {
        const size_t i = path.leaf->lower(iova);
        if (i < own(path.leaf->count)) {
            return path.leaf->get(i);
        }
        if (!path.high) {
            break;
        }
    }
    return std::nullopt;
}

bool MappingSet::overlaps(uint64_t first, uint64_t last) const
{
    if (find(first)) {
        return true;
    }
    const std::optional<Mapping> following = next(first);
    return following && following->iova <= last;
}

bool MappingSet::splits(uint64_t first, uint64_t last) const
{
    const std::optional<Mapping> low = find(first);
    const std::optional<Mapping> high = find(last);
    return (low && low->iova < first) || (high && high->last > last);
}

void MappingSet::insert(const Mapping &mapping)
{
    Path path = descend(mapping.iova);
    Leaf *const leaf = path.leaf;
    if (!leaf) {
        auto fresh = std::make_unique<Leaf>();
        fresh->set(0, mapping);
        poke(fresh->count, uint16_t{1});
        poke(root_, static_cast<Node *>(fresh.release()));
    } else if (const size_t count = own(leaf->count); count < kLeafSlots) {
        const size_t at = leaf->lower(mapping.iova);
        Change change(*leaf);
        leaf->move(at, *leaf, at + 1);
        leaf->set(at, mapping);
        poke(leaf->count, static_cast<uint16_t>(count + 1));
    } else {
        split(path, mapping);
    }
    size_++;
}

// The leaf is full, and perhaps the nodes above it.
void MappingSet::split(Path &path, const Mapping &mapping)
{
    // All memory first: nothing may fail half way.
    size_t top = path.depth; // steps[top, depth) are full
    while (top > 0 && own(path.steps[top - 1].inner->count) == kChildren) {
        top--;
    }
    auto right = std::make_unique<Leaf>();
    std::array<std::unique_ptr<Inner>, kMaxDepth> halves;
    for (size_t level = top; level < path.depth; level++) {
        halves[level] = std::make_unique<Inner>();
    }
    std::unique_ptr<Inner> new_root;
    if (top == 0) {
        new_root = std::make_unique<Inner>();
    }

    // Mappings that come in order, up or down, leave full leaves behind.
    Leaf &left = *path.leaf;
    const size_t at = left.lower(mapping.iova);
    const size_t keep = at == kLeafSlots ? kLeafSlots : at == 0 ? 0 : kLeafSlots / 2;

    std::array<std::optional<Change>, kMaxDepth + 1> changes;
    if (top > 0) {
        changes[0].emplace(*path.steps[top - 1].inner);
    }
    for (size_t level = top; level < path.depth; level++) {
        changes[level + 1].emplace(*path.steps[level].inner);
    }
    Change change(left);

    left.move(keep, *right, 0);
    poke(right->count, static_cast<uint16_t>(kLeafSlots - keep));
    poke(left.count, static_cast<uint16_t>(keep));
    Leaf &home = at < keep || (at == keep && keep == 0) ? left : *right;
    const size_t slot = &home == &left ? at : at - keep;
    home.move(slot, home, slot + 1);
    home.set(slot, mapping);
    poke(home.count, static_cast<uint16_t>(own(home.count) + 1));

    uint64_t key = own(right->start[0]);
    Node *added = right.release();
    for (size_t level = path.depth; level-- > top;) {
        Inner &inner = *path.steps[level].inner;
        Inner &half = *halves[level];
        const size_t child = path.steps[level].child;
        // In order upwards: leave this one as it is.
        const size_t middle = child == kChildren - 1 ? kChildren - 1 : kChildren / 2;
        const uint64_t half_key = inner.move_tail(middle, half);
        if (child < middle) {
            inner.insert(child + 1, key, added);
        } else {
            half.insert(child - middle + 1, key, added);
        }
        key = half_key;
        added = halves[level].release();
    }
    if (top > 0) {
        Path::Step &step = path.steps[top - 1];
        step.inner->insert(step.child + 1, key, added);
    } else {
        poke(new_root->children[0], own(root_));
        poke(new_root->children[1], added);
        poke(new_root->keys[0], key);
        poke(new_root->count, uint16_t{2});
        poke(root_, static_cast<Node *>(new_root.release()));
    }
}

size_t MappingSet::take(uint64_t first, uint64_t last, std::span<Mapping> removed)
{
    size_t taken = 0;
    for (Path path = descend(first); path.leaf && taken < removed.size();) {
        Leaf &leaf = *path.leaf;
        const size_t count = own(leaf.count);
        const size_t begin = leaf.lower(first);
        size_t end = begin;
        while (end < count && taken < removed.size() && own(leaf.last[end]) <= last) {
            removed[taken++] = leaf.get(end++);
        }
        const bool exhausted = end == count;
        const std::optional<uint64_t> high = path.high;
        if (end > begin) {
            {
                Change change(leaf);
                leaf.move(end, leaf, begin);
                poke(leaf.count, static_cast<uint16_t>(count - (end - begin)));
            }
            size_ -= end - begin;
            settle(path);
        }
        if (!exhausted || !high || *high > last) {
            break;
        }
        path = descend(*high);
    }
    return taken;
}

// Something was taken from the leaf: nodes that are empty go, nodes with few
// entries merge, so that memory follows the number of mappings.
void MappingSet::settle(Path &path)
{
    Leaf *const leaf = path.leaf;
    const size_t count = own(leaf->count);
    if (path.depth == 0) {
        if (count == 0) {
            poke(root_, static_cast<Node *>(nullptr));
            discard(leaf);
        }
        return;
    }
    if (count == 0) {
        drop_child(path, path.depth - 1);
        return;
    }
    if (count >= kLeafFew) {
        return;
    }
    Path::Step &step = path.steps[path.depth - 1];
    if (own(step.inner->count) < 2) {
        return;
    }
    const size_t left_at = step.child > 0 ? step.child - 1 : 0;
    auto *const left = static_cast<Leaf *>(own(step.inner->children[left_at]));
    auto *const right = static_cast<Leaf *>(own(step.inner->children[left_at + 1]));
    const size_t kept = own(left->count), moved = own(right->count);
    if (kept + moved > kLeafMerged) {
        return;
    }
    {
        Change parent(*step.inner);
        Change to(*left);
        Change from(*right);
        right->move(0, *left, kept);
        poke(left->count, static_cast<uint16_t>(kept + moved));
    }
    step.child = left_at + 1;
    drop_child(path, path.depth - 1);
}

// Takes the child of that step out of its node, and looks after the node.
void MappingSet::drop_child(Path &path, size_t level)
{
    Path::Step &step = path.steps[level];
    Inner &inner = *step.inner;
    Node *const child = own(inner.children[step.child]);
    {
        Change change(inner);
        inner.erase(step.child);
    }
    discard(child);

    const size_t count = own(inner.count);
    if (level == 0) {
        if (count == 1) {
            poke(root_, own(inner.children[0]));
            discard(&inner);
        }
        return;
    }
    if (count == 0) {
        drop_child(path, level - 1);
        return;
    }
    Path::Step &above = path.steps[level - 1];
    if (count >= kFewChildren || own(above.inner->count) < 2) {
        return;
    }
    const size_t left_at = above.child > 0 ? above.child - 1 : 0;
    auto *const left = static_cast<Inner *>(own(above.inner->children[left_at]));
    auto *const right = static_cast<Inner *>(own(above.inner->children[left_at + 1]));
    if (own(left->count) + own(right->count) > static_cast<int>(kMergedChildren)) {
        return;
    }
    {
        Change parent(*above.inner);
        Change to(*left);
        Change from(*right);
        left->append(*right, own(above.inner->keys[left_at]));
    }
    above.child = left_at + 1;
    drop_child(path, level - 1);
}

} // namespace viommu
