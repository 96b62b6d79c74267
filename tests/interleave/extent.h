// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "explore.h"

#include "mapping/nodes.h"

namespace viommu::model
{

inline void tell_nodes(const MappingSet::Node *node, const Rcu::Tell &tell)
{
    tell(node, kNodeSize);
    if (node->level > 0) {
        const auto &inner = *static_cast<const MappingSet::Inner *>(node);
        for (size_t i = 0; i < own(inner.count); i++) {
            tell_nodes(own(inner.children[i]), tell);
        }
    }
}

// The nodes of a list of trees that a MappingSet defers.
inline void extent_of_trees(const ViommuDeferred &object, const Rcu::Tell &tell)
{
    for (const auto *tree = static_cast<const MappingSet::Node *>(&object); tree;
         tree = tree->next) {
        tell_nodes(tree, tell);
    }
}

} // namespace viommu::model
