// SPDX-License-Identifier: GPL-2.0-or-later
#include "model.h"

#include "leave_out.h"
#include "text.h"

#include "base/error.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <unordered_map>
#include <utility>

namespace viommu::topology
{

namespace
{

using PciId = std::pair<uint16_t, uint16_t>; // segment, requester ID

// A C caller may have stored any number, which a C++ enumeration must not hold.
unsigned kind_number(const ViommuIommuDesc &iommu)
{
    static_assert(sizeof(iommu.kind) == sizeof(unsigned));
    unsigned number;
    std::memcpy(&number, &iommu.kind, sizeof(number));
    return number;
}

std::string bus_window(const ViommuRootBusDesc &bus)
{
    char text[64];
    std::snprintf(text, sizeof(text), " (segment 0x%x, buses 0x%02x-0x%02x)",
                  static_cast<unsigned>(bus.segment), static_cast<unsigned>(bus.first_bus),
                  static_cast<unsigned>(bus.last_bus));
    return bus.name + std::string(text);
}

// One pass of checks over a description, which leaves look-up tables behind.
class Checker
{
public:
    explicit Checker(const ViommuMachineDesc &machine) : machine_(machine)
    {
        check_arrays();
        check_iommus();
        check_root_buses();
        check_mmio_endpoints();
        resolve_claims();
    }

    const std::set<PciId> &iommu_functions() const { return iommu_functions_; }

    // Root buses by (segment, first bus).
    const std::vector<size_t> &root_bus_order() const { return root_bus_order_; }

    const std::vector<uint32_t> &owners() const { return owners_; }

    uint32_t owner_of(const ViommuMmioEndpointDesc &endpoint) const
    {
        if (endpoint.iommu != VIOMMU_NO_IOMMU) {
            return endpoint.iommu;
        }
        return platform_owner_ != VIOMMU_NO_IOMMU ? platform_owner_ : taker_;
    }

private:
    static void check_array(const void *array, size_t count, const char *what)
    {
        if (array == nullptr && count != 0) {
            throw Refusal("the machine description counts " + std::to_string(count) + " " + what +
                          " but lists none");
        }
    }

    static void check_name(const char *name, const char *what, size_t position)
    {
        if (name == nullptr) {
            throw Refusal(std::string(what) + " number " + std::to_string(position) +
                          " of the machine description has no name");
        }
    }

    static void check_segment(const char *what, const char *name, uint16_t segment)
    {
        if (segment == VIOMMU_SEGMENT_MMIO) {
            throw Refusal(std::string(what) + " " + name + " is in PCI segment " + hex(segment) +
                          ", whose endpoint IDs belong to MMIO endpoints");
        }
    }

    void check_arrays() const
    {
        check_array(machine_.iommus, machine_.iommu_count, "IOMMUs");
        check_array(machine_.root_buses, machine_.root_bus_count, "root buses");
        check_array(machine_.mmio_endpoints, machine_.mmio_endpoint_count, "MMIO endpoints");
        check_array(machine_.functions, machine_.function_count, "functions");
    }

    void check_iommus()
    {
        std::map<PciId, const char *> by_function;
        for (size_t i = 0; i < machine_.iommu_count; i++) {
            const ViommuIommuDesc &iommu = machine_.iommus[i];
            check_name(iommu.name, "IOMMU", i);
            const unsigned kind = kind_number(iommu);
            if (kind == VIOMMU_IOMMU_PCI) {
                check_segment("IOMMU", iommu.name, iommu.segment);
                const PciId function{iommu.segment, iommu.requester_id};
                const auto [other, is_new] = by_function.emplace(function, iommu.name);
                if (!is_new) {
                    throw Refusal(std::string("IOMMUs ") + other->second + " and " + iommu.name +
                                  " are both at PCI address " +
                                  pci_address(iommu.segment, iommu.requester_id));
                }
                iommu_functions_.insert(function);
            } else if (kind == VIOMMU_IOMMU_MMIO) {
                const auto [other, is_new] = iommu_by_base_.emplace(iommu.base, iommu.name);
                if (!is_new) {
                    throw Refusal(std::string("IOMMUs ") + other->second + " and " + iommu.name +
                                  " are both at MMIO base " + hex(iommu.base));
                }
            } else {
                throw Refusal(std::string("IOMMU ") + iommu.name + " is of unknown kind " +
                              std::to_string(kind));
            }
        }
    }

    void check_root_buses()
    {
        for (size_t i = 0; i < machine_.root_bus_count; i++) {
            const ViommuRootBusDesc &bus = machine_.root_buses[i];
            check_name(bus.name, "root bus", i);
            check_segment("root bus", bus.name, bus.segment);
            if (bus.first_bus > bus.last_bus) {
                throw Refusal("root bus " + bus_window(bus) +
                              " ends its window of bus numbers before it begins");
            }
            const auto [other, is_new] = root_bus_by_name_.emplace(bus.name, i);
            if (!is_new) {
                throw Refusal("two root buses have one name: " +
                              bus_window(machine_.root_buses[other->second]) + " and " +
                              bus_window(bus));
            }
        }

        root_bus_order_.resize(machine_.root_bus_count);
        std::iota(root_bus_order_.begin(), root_bus_order_.end(), size_t{0});
        std::sort(root_bus_order_.begin(), root_bus_order_.end(), [this](size_t a, size_t b) {
            const ViommuRootBusDesc &left = machine_.root_buses[a];
            const ViommuRootBusDesc &right = machine_.root_buses[b];
            return std::pair(left.segment, left.first_bus) <
                   std::pair(right.segment, right.first_bus);
        });
        // In this order, if any two windows overlap then so do two neighbours.
        for (size_t i = 1; i < root_bus_order_.size(); i++) {
            const ViommuRootBusDesc &left = machine_.root_buses[root_bus_order_[i - 1]];
            const ViommuRootBusDesc &right = machine_.root_buses[root_bus_order_[i]];
            if (left.segment == right.segment && left.last_bus >= right.first_bus) {
                throw Refusal("the bus numbers of root buses " + bus_window(left) + " and " +
                              bus_window(right) + " overlap");
            }
        }
    }

    void check_mmio_endpoints()
    {
        std::map<uint16_t, const char *> by_index;
        std::map<uint64_t, const char *> by_base;
        for (size_t i = 0; i < machine_.mmio_endpoint_count; i++) {
            const ViommuMmioEndpointDesc &endpoint = machine_.mmio_endpoints[i];
            check_name(endpoint.name, "MMIO endpoint", i);
            const std::string name = endpoint.name;
            if (endpoint.iommu != VIOMMU_NO_IOMMU && endpoint.iommu >= machine_.iommu_count) {
                throw Refusal("MMIO endpoint " + name + " names IOMMU number " +
                              std::to_string(endpoint.iommu) + ", but the machine has " +
                              std::to_string(machine_.iommu_count));
            }
            const auto iommu = iommu_by_base_.find(endpoint.base);
            if (iommu != iommu_by_base_.end()) {
                throw Refusal("MMIO endpoint " + name + " is at MMIO base " + hex(endpoint.base) +
                              ", which is IOMMU " + iommu->second);
            }
            const auto [same_index, new_index] = by_index.emplace(endpoint.index, endpoint.name);
            if (!new_index) {
                throw Refusal(std::string("MMIO endpoints ") + same_index->second + " and " + name +
                              " both have index " + std::to_string(endpoint.index));
            }
            const auto [same_base, new_base] = by_base.emplace(endpoint.base, endpoint.name);
            if (!new_base) {
                throw Refusal(std::string("MMIO endpoints ") + same_base->second + " and " + name +
                              " are both at MMIO base " + hex(endpoint.base));
            }
        }
    }

    void resolve_claims()
    {
        owners_.assign(machine_.root_bus_count, VIOMMU_NO_IOMMU);
        for (uint32_t i = 0; i < machine_.iommu_count; i++) {
            const ViommuIommuDesc &iommu = machine_.iommus[i];
            if (iommu.root_buses == nullptr && iommu.root_bus_count != 0) {
                throw Refusal(std::string("IOMMU ") + iommu.name + " claims " +
                              std::to_string(iommu.root_bus_count) + " root buses but lists none");
            }
            for (size_t k = 0; k < iommu.root_bus_count; k++) {
                claim(i, iommu.root_buses[k]);
            }
            if (iommu.root_bus_count == 0) {
                if (taker_ != VIOMMU_NO_IOMMU) {
                    throw Refusal(std::string("two IOMMUs want all unclaimed root buses: ") +
                                  machine_.iommus[taker_].name + " and " + iommu.name);
                }
                taker_ = i;
            }
        }
        for (size_t i = 0; i < machine_.root_bus_count; i++) {
            if (owners_[i] == VIOMMU_NO_IOMMU && !machine_.root_buses[i].bypass) {
                owners_[i] = taker_;
            }
        }
    }

    void claim(uint32_t iommu, const char *bus_name)
    {
        const std::string claimant = machine_.iommus[iommu].name;
        if (bus_name == nullptr) {
            throw Refusal("IOMMU " + claimant + " claims a root bus without a name");
        }
        if (std::strcmp(bus_name, VIOMMU_PLATFORM_BUS) == 0) {
            if (machine_.no_mmio_transports) {
                throw Refusal("IOMMU " + claimant + " claims " + bus_name +
                              ", but this machine has no virtio-mmio transports");
            }
            claim(platform_owner_, iommu, bus_name);
            return;
        }
        const auto found = root_bus_by_name_.find(bus_name);
        if (found == root_bus_by_name_.end()) {
            throw Refusal("IOMMU " + claimant + " claims root bus " + bus_name +
                          ", which does not exist");
        }
        if (machine_.root_buses[found->second].bypass) {
            throw Refusal("IOMMU " + claimant + " claims root bus " + bus_name +
                          ", which is set to bypass IOMMUs");
        }
        claim(owners_[found->second], iommu, bus_name);
    }

    void claim(uint32_t &owner, uint32_t iommu, const char *bus_name)
    {
        const std::string claimant = machine_.iommus[iommu].name;
        if (owner == iommu) {
            throw Refusal("IOMMU " + claimant + " claims root bus " + bus_name + " twice");
        }
        if (owner != VIOMMU_NO_IOMMU) {
            throw Refusal(std::string("root bus ") + bus_name + " is claimed by two IOMMUs: " +
                          machine_.iommus[owner].name + " and " + claimant);
        }
        owner = iommu;
    }

    const ViommuMachineDesc &machine_;
    std::set<PciId> iommu_functions_;
    std::map<uint64_t, const char *> iommu_by_base_;
    std::unordered_map<std::string, size_t> root_bus_by_name_;
    std::vector<size_t> root_bus_order_;
    std::vector<uint32_t> owners_;
    uint32_t platform_owner_ = VIOMMU_NO_IOMMU; // of the MMIO endpoints, by claim
    uint32_t taker_ = VIOMMU_NO_IOMMU;          // of all that nobody claims
};

// `whole` without the functions in `holes`, in order.
std::vector<PciRange> subtract(const PciRange &whole, const std::set<PciId> &holes)
{
    std::vector<PciRange> rest;
    uint32_t first = whole.first; // wider than an ID: may step past 0xffff
    for (auto hole = holes.lower_bound({whole.segment, whole.first});
         hole != holes.end() && hole->first == whole.segment && hole->second <= whole.last;
         ++hole) {
        if (hole->second > first) {
            rest.push_back({whole.segment, static_cast<uint16_t>(first),
                            static_cast<uint16_t>(hole->second - 1)});
        }
        first = hole->second + 1u;
    }
    if (first <= whole.last) {
        rest.push_back({whole.segment, static_cast<uint16_t>(first), whole.last});
    }
    return rest;
}

void add_holes(std::set<PciId> &holes, const ViommuRootBusDesc &bus, const LeftOut &left_out)
{
    for (unsigned devfn = 0; devfn < left_out.functions.size(); devfn++) {
        if (left_out.functions[devfn]) {
            holes.emplace(bus.segment, static_cast<uint16_t>(bus.first_bus << 8 | devfn));
        }
    }
}

void add_window(std::vector<PciRange> &windows, const ViommuRootBusDesc &bus)
{
    const auto first = static_cast<uint16_t>(bus.first_bus << 8);
    const auto last = static_cast<uint16_t>(bus.last_bus << 8 | 0xff);
    if (!windows.empty() && windows.back().segment == bus.segment &&
        windows.back().last + 1 == first) {
        windows.back().last = last;
    } else {
        windows.push_back({bus.segment, first, last});
    }
}

} // namespace

bool Iommu::manages(uint32_t id) const
{
    if (id >> 16 == VIOMMU_SEGMENT_MMIO) {
        const auto found = std::lower_bound(
            endpoints.begin(), endpoints.end(), id,
            [](const MmioEndpoint &endpoint, uint32_t wanted) { return endpoint.id < wanted; });
        return found != endpoints.end() && found->id == id;
    }
    const auto found = std::lower_bound(
        ranges.begin(), ranges.end(), id,
        [](const PciRange &range, uint32_t wanted) { return range.last_id() < wanted; });
    return found != ranges.end() && found->first_id() <= id;
}

Model::Model(const ViommuMachineDesc &machine)
{
    const Checker checked(machine);

    iommus_.reserve(machine.iommu_count);
    for (size_t i = 0; i < machine.iommu_count; i++) {
        const ViommuIommuDesc &iommu = machine.iommus[i];
        iommus_.push_back(
            {iommu.name, iommu.kind, iommu.segment, iommu.requester_id, iommu.base, {}, {}});
    }

    std::vector<LeftOut> left_out = find_left_out(machine, checked.owners());
    std::set<PciId> holes = checked.iommu_functions();
    std::vector<std::vector<PciRange>> windows(machine.iommu_count);
    for (const size_t position : checked.root_bus_order()) {
        const ViommuRootBusDesc &bus = machine.root_buses[position];
        const uint32_t owner =
            left_out[position].all ? VIOMMU_NO_IOMMU : checked.owners()[position];
        owned_.emplace(bus.name, Owned{owner, left_out[position].functions});
        root_buses_.push_back(
            {bus.name, bus.segment, bus.first_bus, bus.last_bus, bus.bypass, owner});
        if (owner != VIOMMU_NO_IOMMU) {
            add_window(windows[owner], bus);
            add_holes(holes, bus, left_out[position]);
        }
    }
    for (size_t i = 0; i < machine.iommu_count; i++) {
        for (const PciRange &window : windows[i]) {
            std::ranges::copy(subtract(window, holes), std::back_inserter(iommus_[i].ranges));
        }
    }

    for (size_t i = 0; i < machine.mmio_endpoint_count; i++) {
        const ViommuMmioEndpointDesc &endpoint = machine.mmio_endpoints[i];
        const uint32_t owner = checked.owner_of(endpoint);
        if (owner != VIOMMU_NO_IOMMU) {
            iommus_[owner].endpoints.push_back(
                {endpoint.name, VIOMMU_SEGMENT_MMIO << 16 | endpoint.index, endpoint.base, i});
        }
    }
    for (Iommu &iommu : iommus_) {
        std::ranges::sort(iommu.endpoints, {}, &MmioEndpoint::id);
    }
}

uint32_t Model::root_bus_iommu(std::string_view name) const noexcept
{
    const auto found = owned_.find(name);
    return found == owned_.end() ? VIOMMU_NO_IOMMU : found->second.iommu;
}

bool Model::left_out(std::string_view root_bus, uint8_t devfn) const noexcept
{
    const auto found = owned_.find(root_bus);
    return found != owned_.end() && found->second.left_out[devfn];
}

} // namespace viommu::topology

using viommu::at_boundary;
using viommu::Refusal;
using viommu::topology::Model;

ViommuTopology *viommu_topology_new(const ViommuMachineDesc *machine, char *error,
                                    size_t error_size) noexcept
{
    return at_boundary<ViommuTopology *>(error, error_size, nullptr, [&] {
        if (machine == nullptr) {
            throw Refusal("there is no machine description");
        }
        return std::make_unique<ViommuTopology>(ViommuTopology{Model(*machine)}).release();
    });
}

void viommu_topology_free(ViommuTopology *topology) noexcept
{
    delete topology;
}

bool viommu_topology_manages(const ViommuTopology *topology, uint32_t iommu, uint32_t id) noexcept
{
    if (topology == nullptr || iommu >= topology->model.iommus().size()) {
        return false;
    }
    return topology->model.iommus()[iommu].manages(id);
}

uint32_t viommu_topology_root_bus_iommu(const ViommuTopology *topology, const char *name) noexcept
{
    if (topology == nullptr || name == nullptr) {
        return VIOMMU_NO_IOMMU;
    }
    return topology->model.root_bus_iommu(name);
}

bool viommu_topology_left_out(const ViommuTopology *topology, const char *root_bus,
                              uint8_t devfn) noexcept
{
    return topology != nullptr && root_bus != nullptr && topology->model.left_out(root_bus, devfn);
}
