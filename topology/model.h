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
//   endpoint of another.  So is what `leave-out` names (leave_out.h).
#pragma once

#include <viommu/topology.h>

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace viommu::topology
{

struct PciRange {
    uint16_t segment;
    uint16_t first; // requester IDs, inclusive
    uint16_t last;

    uint32_t first_id() const { return uint32_t{segment} << 16 | first; }
    uint32_t last_id() const { return uint32_t{segment} << 16 | last; }
};

struct MmioEndpoint {
    std::string name;
    uint32_t id;
    uint64_t base;
    size_t position; // in ViommuMachineDesc::mmio_endpoints
};

struct Iommu {
    std::string name;
    ViommuIommuKind kind;
    uint16_t segment;      // PCI
    uint16_t requester_id; // PCI
    uint64_t base;         // MMIO

    // What it manages: disjoint, in ascending order of IDs.
    std::vector<PciRange> ranges;
    std::vector<MmioEndpoint> endpoints;

    bool manages_nothing() const { return ranges.empty() && endpoints.empty(); }
    bool manages(uint32_t id) const; // O(log n)
};

struct RootBus {
    std::string name;
    uint16_t segment;
    uint8_t first_bus;
    uint8_t last_bus;
    bool bypass;
    uint32_t iommu; // VIOMMU_NO_IOMMU: nobody's
};

class Model
{
public:
    // Copies what it needs; throws Refusal if the description contradicts itself.
    explicit Model(const ViommuMachineDesc &machine);

    // In the order of ViommuMachineDesc::iommus.
    const std::vector<Iommu> &iommus() const { return iommus_; }

    // By segment and number.
    const std::vector<RootBus> &root_buses() const { return root_buses_; }

    // Index of the manager of that root bus, or VIOMMU_NO_IOMMU.  Allocates nothing:
    // what fails to find the manager of a function lets it bypass.
    uint32_t root_bus_iommu(std::string_view name) const noexcept;

    // Whether that function of the root bus itself is left out.  Allocates nothing.
    bool left_out(std::string_view root_bus, uint8_t devfn) const noexcept;

private:
    struct Owned {
        uint32_t iommu;            // VIOMMU_NO_IOMMU if it leaves out all of the bus
        std::bitset<256> left_out; // by device and function
    };

    std::vector<Iommu> iommus_;
    std::vector<RootBus> root_buses_;
    std::map<std::string, Owned, std::less<>> owned_; // by the name of the root bus
};

} // namespace viommu::topology

// The boundary's opaque handle.
struct ViommuTopology {
    viommu::topology::Model model;
};
