// SPDX-License-Identifier: GPL-2.0-or-later
//
// What an IOMMU leaves out of the root buses that it would manage.
//
// Only what has a requester ID that no guest can change is left out: functions of a
// root bus itself, or a root bus with all of its window.  Behind a bridge the guest
// chooses the number of the bus, so no description that is written before could make a
// hole there that stays around the right function.
#pragma once

#include <viommu/topology.h>

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace viommu::topology
{

struct LeftOut {
    bool all = false;           // what is on the root bus and behind its bridges
    std::bitset<256> functions; // of the root bus itself
};

// For each root bus of a description without other faults what its IOMMU (`owners`, by
// position) leaves out.  Throws Refusal.
std::vector<LeftOut> find_left_out(const ViommuMachineDesc &machine,
                                   const std::vector<uint32_t> &owners);

} // namespace viommu::topology
