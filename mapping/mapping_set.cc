// SPDX-License-Identifier: GPL-2.0-or-later
#include "mapping_set.h"

#include "node_pool.h"
#include "nodes.h"

#include <memory>
#include <new>
#include <utility>

namespace viommu
{

namespace
{

constexpr size_t kSlots = MappingSet::Leaf::kSlots;
constexpr size_t kChildren = MappingSet::Inner::kChildren;

static_assert(sizeof(MappingSet::Leaf) <= kNodeSize && sizeof(MappingSet::Inner) <= kNodeSize);

// README.md, Height: no tree comes near.
constexpr size_t kMaxDepth = 20;

// Below a quarter a node looks for a neighbour to merge with, unless the two
// would nearly fill one.
constexpr size_t kFewSlots = kSlots / 4;
constexpr size_t kMergedSlots = kSlots * 3 / 4;
constexpr size_t kFewChildren = kChildren / 4;
constexpr size_t kMergedChildren = kChildren * 3 / 4;

struct Release {
    void operator()(MappingSet::Node *node) const { NodePool::instance().release(node); }
};
template <typename N> using Fresh = std::unique_ptr<N, Release>;

template <typename N, typename... Args> Fresh<N> make_node(Args... args)
{
    return Fresh<N>(new (NodePool::instance().allocate()) N(args...));
}

bool reclaim_trees(ViommuDeferred *object)
{
    return NodePool::instance().step(static_cast<MappingSet::Node *>(object));
}

// The lines in which a search begins are wanted together.
void fetch_ahead(const void *node)
{
    const auto *const bytes = static_cast<const std::byte *>(node);
#pragma GCC unroll 16
    for (size_t line = 0; line < kNodeSize; line += 64) {
        __builtin_prefetch(bytes + line);
    }
}

struct Content {
    size_t mappings;
    size_t nodes;
};

// What is in the tree.
Content content_of(const MappingSet::Node *node)
{
    if (node->level == 0) {
        return {static_cast<const MappingSet::Leaf *>(node)->mappings(), 1};
    }
    const auto &inner = *static_cast<const MappingSet::Inner *>(node);
    const size_t count = own(inner.count);
    if (node->level == 1) {
        for (size_t i = 0; i < count; i++) {
            __builtin_prefetch(own(inner.children[i]));
        }
    }
    Content sum{0, 1};
    for (size_t i = 0; i < count; i++) {
        const Content child = content_of(own(inner.children[i]));
        sum.mappings += child.mappings;
        sum.nodes += child.nodes;
    }
    return sum;
}

} // namespace

// The way of the writer from the root to a leaf.
struct MappingSet::Path {
    struct Step {
        Inner *inner;
        size_t child;
        uint64_t high; // where the node after `inner` begins
    };
    // A bound of 0 says that there is none: no key is 0.
    std::array<Step, kMaxDepth> steps;
    size_t depth = 0;
    Leaf *leaf = nullptr;
    uint64_t low = 0;  // where the leaf begins
    uint64_t high = 0; // where the next one does

    Node *node(size_t level)
    {
        return level == depth ? leaf : static_cast<Node *>(steps[level].inner);
    }
};

// While one exists, readers wait for the node, or read again what they saw of it.
class MappingSet::Change
{
public:
    explicit Change(Node &node) : node_(node) { node_.version.begin_change(); }
    ~Change() { node_.version.end_change(); }
    Change(const Change &) = delete;
    Change &operator=(const Change &) = delete;

private:
    Node &node_;
};

// Collects what leaves the tree, to hand it to the reclaimer together.
class MappingSet::Unlinked
{
public:
    explicit Unlinked(MappingSet &set) : set_(set) {}
    ~Unlinked()
    {
        if (!trees_) {
            return;
        }
        // README.md, Stamps: after all of it is unlinked, before any is reclaimed.
        poke(set_.generation_, own(set_.generation_) + 1);
        if (set_.reclaimer_) {
            trees_->reclaim = reclaim_trees;
            set_.reclaimer_->defer(*trees_);
        } else {
            NodePool::instance().free(trees_);
        }
    }
    Unlinked(const Unlinked &) = delete;
    Unlinked &operator=(const Unlinked &) = delete;

    void add(Node *tree) { tree->next = std::exchange(trees_, tree); }

private:
    MappingSet &set_;
    Node *trees_ = nullptr;
};

MappingSet::MappingSet(MappingSet &&other) noexcept
    : root_(own(other.root_)), size_(std::exchange(other.size_, 0)),
      nodes_(std::exchange(other.nodes_, 0)), reclaimer_(other.reclaimer_)
{
    other.root_.store(nullptr, std::memory_order_relaxed);
}

MappingSet::~MappingSet()
{
    if (Node *const root = own(root_)) {
        NodePool::instance().free(root);
    }
}

// A leaf, and what is split above it, and a new root.
const size_t MappingSet::kInsertMemory = (kMaxDepth + 1) * kNodeSize;

size_t MappingSet::memory() const
{
    return nodes_ * kNodeSize;
}

std::optional<Mapping> MappingSet::find(uint64_t iova, Stamp &stamp) const
{
    stamp.generation = peek(generation_);
    uint64_t target = iova;
    for (;;) {
        const Node *node = peek(root_);
        if (!node) {
            return std::nullopt;
        }
        uint64_t noted = node->version.note();
        if (peek(root_) != node) {
            continue;
        }

        uint64_t low = 0; // nothing in the leaf starts below
        bool again = false;
        while (node->level > 0) {
            const auto *const inner = static_cast<const Inner *>(node);
            const size_t i = inner->child_for(target);
            if (i > 0) {
                low = peek(inner->keys[i - 1]);
            }
            const Node *const child = peek(inner->children[i]);
            if (!inner->version.unchanged(noted)) {
                again = true;
                break;
            }
            fetch_ahead(child);
            const uint64_t child_noted = child->version.note();
            if (!inner->version.unchanged(noted)) {
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
        const auto [behind, found] = leaf->search(target);
        const Mapping mapping = found ? leaf->ending(behind - 1) : Mapping{};
        if (!leaf->version.unchanged(noted)) {
            continue;
        }
        if (found) {
            if (iova > mapping.last) {
                return std::nullopt;
            }
            stamp.leaf = leaf;
            stamp.version = noted;
            return mapping;
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
    while (node && node->level > 0) {
        auto *const inner = static_cast<Inner *>(node);
        const size_t i = inner->child_for(iova);
        path.steps[path.depth++] = {inner, i, path.high};
        if (i > 0) {
            path.low = own(inner->keys[i - 1]);
        }
        if (i + 1 < own(inner->count)) {
            path.high = own(inner->keys[i]);
        }
        node = own(inner->children[i]);
        fetch_ahead(node);
    }
    path.leaf = static_cast<Leaf *>(node);
    return path;
}

std::optional<Mapping> MappingSet::next(uint64_t iova) const
{
    for (Path path = descend(iova); path.leaf; path = descend(path.high)) {
        const size_t slot = path.leaf->lower(iova);
        if (slot < path.leaf->end()) {
            return path.leaf->ending(path.leaf->after(slot) - 1);
        }
        if (path.high == 0) {
            break;
        }
    }
    return std::nullopt;
}

std::optional<Mapping> MappingSet::previous(uint64_t iova) const
{
    for (Path path = descend(iova); path.leaf; path = descend(path.low - 1)) {
        const auto [behind, found] = path.leaf->search(iova);
        if (found) {
            return path.leaf->ending(behind - 1);
        }
        if (path.low == 0) {
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

bool MappingSet::insert(const Mapping &mapping)
{
    Path path = descend(mapping.iova);
    Leaf *const leaf = path.leaf;
    if (!leaf) {
        auto fresh = make_node<Leaf>();
        fresh->insert(0, mapping);
        poke(root_, static_cast<Node *>(fresh.release()));
        size_++;
        nodes_++;
        return true;
    }
    const size_t at = leaf->lower(mapping.iova);
    if (at > leaf->begin() ? leaf->ending(at - 1).last >= mapping.iova
                           : path.low > 0 && find(mapping.iova).has_value()) {
        return false;
    }
    if (at < leaf->end()) {
        if (own(leaf->start[at]) <= mapping.last) {
            return false;
        }
    } else if (path.high != 0 && path.high <= mapping.last) {
        const std::optional<Mapping> following = next(path.high);
        if (following && following->iova <= mapping.last) {
            return false;
        }
    }
    if (own(leaf->count) + Leaf::width(mapping) <= kSlots) {
        Change change(*leaf);
        leaf->insert(at, mapping);
    } else {
        split(path, mapping);
    }
    size_++;
    return true;
}

// The leaf is full, and perhaps the nodes above it.
void MappingSet::split(Path &path, const Mapping &mapping)
{
    // All memory first: nothing may fail half way.
    size_t top = path.depth; // steps[top, depth) are full
    while (top > 0 && own(path.steps[top - 1].inner->count) == kChildren) {
        top--;
    }
    if (top == 0 && path.depth == kMaxDepth) {
        throw std::bad_alloc(); // README.md, Height
    }
    auto right = make_node<Leaf>();
    std::array<Fresh<Inner>, kMaxDepth> halves;
    for (size_t step = top; step < path.depth; step++) {
        halves[step] = make_node<Inner>(path.steps[step].inner->level);
    }
    Fresh<Inner> new_root;
    if (top == 0) {
        new_root = make_node<Inner>(static_cast<uint8_t>(path.depth + 1));
    }

    // Mappings that come in order, up or down, leave full leaves behind.
    Leaf &left = *path.leaf;
    const size_t at = left.lower(mapping.iova);
    const bool upwards = at == left.end(), downwards = at == left.begin();
    size_t from = upwards ? left.end() : downwards ? left.begin() : left.begin() + kSlots / 2;
    if (!upwards && left.is_tail(from)) {
        from--;
    }

    std::array<std::optional<Change>, kMaxDepth + 1> changes;
    if (top > 0) {
        changes[0].emplace(*path.steps[top - 1].inner);
    }
    for (size_t step = top; step < path.depth; step++) {
        changes[step + 1].emplace(*path.steps[step].inner);
    }
    Change change(left);

    left.move_tail(from, *right);
    if (upwards) {
        right->start_at(0);
        right->insert(0, mapping);
    } else if (downwards) {
        left.start_at(kSlots);
        left.insert(kSlots, mapping);
    } else if (at < from) {
        left.insert(at, mapping);
    } else {
        right->insert(right->begin() + (at - from), mapping);
    }

    uint64_t key = own(right->start[right->begin()]);
    Node *added = right.release();
    for (size_t step = path.depth; step-- > top;) {
        Inner &inner = *path.steps[step].inner;
        Inner &half = *halves[step];
        const size_t child = path.steps[step].child;
        // In order upwards: leave this one as it is.
        const size_t middle = child == kChildren - 1 ? kChildren - 1 : kChildren / 2;
        const uint64_t half_key = inner.move_tail(middle, half);
        if (child < middle) {
            inner.insert(child + 1, key, added);
        } else {
            half.insert(child - middle + 1, key, added);
        }
        key = half_key;
        added = halves[step].release();
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
        nodes_++;
    }
    nodes_ += 1 + (path.depth - top);
}

std::optional<MappingSet::Removed> MappingSet::remove(uint64_t first, uint64_t last)
{
    const Path path = descend(first);
    if (!path.leaf) {
        return Removed{};
    }
    Leaf &leaf = *path.leaf;
    const size_t begin = leaf.lower(first);
    const bool starts_here = begin < leaf.end() && own(leaf.start[begin]) == first;
    if (!starts_here) {
        const std::optional<Mapping> low = begin > leaf.begin() ? leaf.ending(begin - 1)
                                           : path.low > 0       ? find(first)
                                                                : std::nullopt;
        if (low && low->last >= first && low->iova < first) {
            return std::nullopt;
        }
    }
    const size_t end = leaf.upper(last);
    if (end < leaf.end() || path.high == 0 || path.high > last) {
        // All of it is in this leaf.
        if (end <= begin) {
            return Removed{};
        }
        Removed removed{leaf.mappings(), own(leaf.start[begin]), leaf.ending(end - 1).last};
        if (removed.last > last) {
            return std::nullopt;
        }
        {
            Change change(leaf);
            leaf.erase(begin, end);
        }
        removed.count -= leaf.mappings();
        size_ -= removed.count;
        if (own(leaf.count) < kFewSlots) {
            Unlinked unlinked(*this);
            rebalance(first, unlinked);
        }
        return removed;
    }
    const std::optional<Mapping> high = find(last);
    if (high && high->last > last) {
        return std::nullopt;
    }
    return remove_across(first, last);
}

void MappingSet::clear()
{
    Node *const root = own(root_);
    if (!root) {
        return;
    }
    Unlinked unlinked(*this);
    poke(root_, static_cast<Node *>(nullptr));
    unlinked.add(root);
    size_ = 0;
    nodes_ = 0;
}

// The range reaches from one leaf into another and splits no mapping.
MappingSet::Removed MappingSet::remove_across(uint64_t first, uint64_t last)
{
    const std::optional<Mapping> lowest = next(first), highest = previous(last);
    if (!lowest || !highest || lowest->iova > highest->iova) {
        return Removed{};
    }
    Removed removed{0, lowest->iova, highest->last};
    if (!(removed.first > 0 && previous(removed.first - 1)) && !after(*highest)) {
        removed.count = size_;
        clear();
        return removed;
    }

    Unlinked unlinked(*this);
    const auto erase_slots = [&](Leaf &leaf, size_t begin, size_t end) {
        if (begin < end) {
            const size_t before = leaf.mappings();
            Change change(leaf);
            leaf.erase(begin, end);
            removed.count += before - leaf.mappings();
        }
    };
    const auto erase_children = [&](Inner &inner, size_t begin, size_t end) {
        if (begin < end) {
            for (size_t i = begin; i < end; i++) {
                Node *const child = own(inner.children[i]);
                const Content gone = content_of(child);
                removed.count += gone.mappings;
                nodes_ -= gone.nodes;
                unlinked.add(child);
            }
            Change change(inner);
            inner.erase(begin, end);
        }
    };
    // Whether what starts below `high` is all inside.
    const auto covers = [last](uint64_t high) {
        return high != 0 ? high - 1 <= last : last == UINT64_MAX;
    };

    // Right of the way to the lower end, from the leaf upwards, until a child
    // reaches beyond the upper end.
    const Path path = descend(first);
    erase_slots(*path.leaf, path.leaf->lower(first), path.leaf->end());
    Node *node = nullptr;
    for (size_t level = path.depth; level-- > 0 && !node;) {
        const Path::Step &step = path.steps[level];
        Inner &inner = *step.inner;
        const size_t count = own(inner.count), begin = step.child + 1;
        size_t end = begin;
        while (end < count && covers(end + 1 < count ? own(inner.keys[end]) : step.high)) {
            end++;
        }
        if (end < count) {
            node = own(inner.children[end]);
        }
        erase_children(inner, begin, end);
    }
    // Left of the way to the upper end, downwards.
    while (node && node->level > 0) {
        Inner &inner = *static_cast<Inner *>(node);
        size_t end = 0;
        while (end + 1 < own(inner.count) && covers(own(inner.keys[end]))) {
            end++;
        }
        erase_children(inner, 0, end);
        node = own(inner.children[0]);
    }
    if (node) {
        Leaf &leaf = *static_cast<Leaf *>(node);
        erase_slots(leaf, leaf.begin(), leaf.upper(last));
    }

    size_ -= removed.count;
    rebalance(first, unlinked);
    rebalance(last, unlinked);
    return removed;
}

// Something was taken from nodes on the way to `iova`: those that are empty go,
// those with little in them merge, so that memory follows the number of mappings.
void MappingSet::rebalance(uint64_t iova, Unlinked &unlinked)
{
    Path path;
    do {
        path = descend(iova);
    } while (path.leaf && rebalance_one(path, unlinked));
}

// The first that is necessary, from below.  Returns whether there was any.
bool MappingSet::rebalance_one(Path &path, Unlinked &unlinked)
{
    for (size_t level = path.depth; level > 0; level--) {
        Node &node = *path.node(level);
        const size_t count = own(node.count);
        if (count == 0) {
            // With those above that have no other child.
            size_t top = level;
            while (top > 0 && own(path.steps[top - 1].inner->count) == 1) {
                top--;
            }
            if (top == 0) {
                poke(root_, static_cast<Node *>(nullptr));
            } else {
                const Path::Step &above = path.steps[top - 1];
                Change change(*above.inner);
                above.inner->erase(above.child, above.child + 1);
            }
            unlinked.add(path.node(top));
            nodes_ -= level - top + 1;
            return true;
        }

        const bool is_leaf = node.level == 0;
        const Path::Step &above = path.steps[level - 1];
        if (count >= (is_leaf ? kFewSlots : kFewChildren) || own(above.inner->count) < 2) {
            continue;
        }
        // With the one before it, or the one behind it.
        const auto fits = [&](size_t left_at) {
            const Node &left = *own(above.inner->children[left_at]);
            const Node &right = *own(above.inner->children[left_at + 1]);
            return size_t{own(left.count)} + own(right.count) <=
                   (is_leaf ? kMergedSlots : kMergedChildren);
        };
        size_t left_at = above.child;
        if (left_at > 0 && fits(left_at - 1)) {
            left_at--;
        } else if (left_at + 1 == own(above.inner->count) || !fits(left_at)) {
            continue;
        }
        Node &left = *own(above.inner->children[left_at]);
        Node &right = *own(above.inner->children[left_at + 1]);
        {
            Change parent(*above.inner);
            Change to(left);
            Change from(right);
            if (is_leaf) {
                static_cast<Leaf &>(right).move_tail(static_cast<Leaf &>(right).begin(),
                                                     static_cast<Leaf &>(left));
            } else {
                static_cast<Inner &>(left).append(static_cast<Inner &>(right),
                                                  own(above.inner->keys[left_at]));
            }
            above.inner->erase(left_at + 1, left_at + 2);
        }
        unlinked.add(&right);
        nodes_--;
        return true;
    }

    Node &root = *path.node(0);
    if (path.depth == 0) {
        if (own(root.count) > 0) {
            return false;
        }
        poke(root_, static_cast<Node *>(nullptr));
    } else {
        auto &inner = static_cast<Inner &>(root);
        if (own(inner.count) > 1) {
            return false;
        }
        poke(root_, own(inner.children[0]));
        Change change(inner);
        poke(inner.count, uint16_t{0}); // its child stays
    }
    unlinked.add(&root);
    nodes_--;
    return true;
}

} // namespace viommu
