// SPDX-License-Identifier: GPL-2.0-or-later
//
// The one model of which IOMMU manages what.  VIOT, device tree, topology array
// and the engine's "can this ID exist" are all read from it.
//
// Endpoint IDs
//   PCI:  segment << 16 | requester ID, so the offset in a range is always 0.
//   MMIO: 0xffff0000 + index of the transport; hence no PCI segment 0xffff.
//
// Ranges
//   A managed root bus contributes the whole window of bus numbers that it owns,
//   because buses are numbered, renumbered and plugged after the descriptions
//   are written.  Windows of one IOMMU that touch become one range: with identity
//   IDs that says the same in fewer items.  The requester ID of every PCI IOMMU,
//   the owner or not, is left out of every range, so that no IOMMU is ever an
//   endpoint of another.
#ifndef VIOMMU_TOPOLOGY_MODEL_H
#define VIOMMU_TOPOLOGY_MODEL_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "viommu/viommu.h"

namespace viommu::topology
{

struct PciRange {
    std::uint16_t segment;
    std::uint16_t first; // requester IDs, inclusive
    std::uint16_t last;

    std::uint32_t firstId() const { return std::uint32_t{segment} << 16 | first; }
    std::uint32_t lastId() const { return std::uint32_t{segment} << 16 | last; }
};

struct MmioEndpoint {
    std::string name;
    std::uint32_t id;
    std::uint64_t base;
    std::size_t position; // in ViommuMachineDesc::mmio_endpoints
};

struct Iommu {
    std::string name;
    ViommuIommuKind kind;
    std::uint16_t segment;     // PCI
    std::uint16_t requesterId; // PCI
    std::uint64_t base;        // MMIO

    // What it manages: disjoint, in ascending order of IDs.
    std::vector<PciRange> ranges;
    std::vector<MmioEndpoint> endpoints;

    bool managesNothing() const { return ranges.empty() && endpoints.empty(); }
    bool manages(std::uint32_t id) const; // O(log n)
};

class Model
{
public:
    // Copies what it needs; throws Refusal if the description contradicts itself.
    explicit Model(const ViommuMachineDesc &machine);

    // In the order of ViommuMachineDesc::iommus.
    const std::vector<Iommu> &iommus() const { return iommus_; }

    // Index of the manager of that root bus, or VIOMMU_NO_IOMMU.  Allocates nothing:
    // what fails to find the manager of a function lets it bypass.
    std::uint32_t rootBusIommu(std::string_view name) const noexcept;

private:
    std::vector<Iommu> iommus_;
    std::map<std::string, std::uint32_t, std::less<>> rootBusIommus_;
};

} // namespace viommu::topology

// The boundary's opaque handle.
struct ViommuTopology {
    viommu::topology::Model model;
};

#endif
