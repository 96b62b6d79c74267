// SPDX-License-Identifier: GPL-2.0-or-later
#include "topology/model.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "topology/text.h"

namespace viommu::topology
{

namespace
{

using PciId = std::pair<std::uint16_t, std::uint16_t>; // segment, requester ID

// A C caller may have stored any number, which a C++ enumeration must not hold.
unsigned kindNumber(const ViommuIommuDesc &iommu)
{
    static_assert(sizeof(iommu.kind) == sizeof(unsigned));
    unsigned number;
    std::memcpy(&number, &iommu.kind, sizeof(number));
    return number;
}

std::string busWindow(const ViommuRootBusDesc &bus)
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
        checkArrays();
        checkIommus();
        checkRootBuses();
        checkMmioEndpoints();
        resolveClaims();
    }

    const std::set<PciId> &iommuFunctions() const { return iommuFunctions_; }

    // Root buses by (segment, first bus).
    const std::vector<std::size_t> &rootBusOrder() const { return rootBusOrder_; }

    std::uint32_t ownerOf(std::size_t rootBus) const { return owners_[rootBus]; }

    std::uint32_t ownerOf(const ViommuMmioEndpointDesc &endpoint) const
    {
        if (endpoint.iommu != VIOMMU_NO_IOMMU) {
            return endpoint.iommu;
        }
        return platformOwner_ != VIOMMU_NO_IOMMU ? platformOwner_ : taker_;
    }

private:
    static void checkArray(const void *array, std::size_t count, const char *what)
    {
        if (array == nullptr && count != 0) {
            throw Refusal("the machine description counts " + std::to_string(count) + " " + what +
                          " but lists none");
        }
    }

    static void checkName(const char *name, const char *what, std::size_t position)
    {
        if (name == nullptr) {
            throw Refusal(std::string(what) + " number " + std::to_string(position) +
                          " of the machine description has no name");
        }
    }

    static void checkSegment(const char *what, const char *name, std::uint16_t segment)
    {
        if (segment == VIOMMU_SEGMENT_MMIO) {
            throw Refusal(std::string(what) + " " + name + " is in PCI segment " + hex(segment) +
                          ", whose endpoint IDs belong to MMIO endpoints");
        }
    }

    void checkArrays() const
    {
        checkArray(machine_.iommus, machine_.iommu_count, "IOMMUs");
        checkArray(machine_.root_buses, machine_.root_bus_count, "root buses");
        checkArray(machine_.mmio_endpoints, machine_.mmio_endpoint_count, "MMIO endpoints");
    }

    void checkIommus()
    {
        std::map<PciId, const char *> byFunction;
        for (std::size_t i = 0; i < machine_.iommu_count; i++) {
            const ViommuIommuDesc &iommu = machine_.iommus[i];
            checkName(iommu.name, "IOMMU", i);
            const unsigned kind = kindNumber(iommu);
            if (kind == VIOMMU_IOMMU_PCI) {
                checkSegment("IOMMU", iommu.name, iommu.segment);
                const PciId function{iommu.segment, iommu.requester_id};
                const auto [other, isNew] = byFunction.emplace(function, iommu.name);
                if (!isNew) {
                    throw Refusal(std::string("IOMMUs ") + other->second + " and " + iommu.name +
                                  " are both at PCI address " +
                                  pciAddress(iommu.segment, iommu.requester_id));
                }
                iommuFunctions_.insert(function);
            } else if (kind == VIOMMU_IOMMU_MMIO) {
                const auto [other, isNew] = iommuByBase_.emplace(iommu.base, iommu.name);
                if (!isNew) {
                    throw Refusal(std::string("IOMMUs ") + other->second + " and " + iommu.name +
                                  " are both at MMIO base " + hex(iommu.base));
                }
            } else {
                throw Refusal(std::string("IOMMU ") + iommu.name + " is of unknown kind " +
                              std::to_string(kind));
            }
        }
    }

    void checkRootBuses()
    {
        for (std::size_t i = 0; i < machine_.root_bus_count; i++) {
            const ViommuRootBusDesc &bus = machine_.root_buses[i];
            checkName(bus.name, "root bus", i);
            checkSegment("root bus", bus.name, bus.segment);
            if (bus.first_bus > bus.last_bus) {
                throw Refusal("root bus " + busWindow(bus) +
                              " ends its window of bus numbers before it begins");
            }
            const auto [other, isNew] = rootBusByName_.emplace(bus.name, i);
            if (!isNew) {
                throw Refusal("two root buses have one name: " +
                              busWindow(machine_.root_buses[other->second]) + " and " +
                              busWindow(bus));
            }
        }

        rootBusOrder_.resize(machine_.root_bus_count);
        std::iota(rootBusOrder_.begin(), rootBusOrder_.end(), std::size_t{0});
        std::sort(rootBusOrder_.begin(), rootBusOrder_.end(), [this](std::size_t a, std::size_t b) {
            const ViommuRootBusDesc &left = machine_.root_buses[a];
            const ViommuRootBusDesc &right = machine_.root_buses[b];
            return std::pair(left.segment, left.first_bus) <
                   std::pair(right.segment, right.first_bus);
        });
        // In this order, if any two windows overlap then so do two neighbours.
        for (std::size_t i = 1; i < rootBusOrder_.size(); i++) {
            const ViommuRootBusDesc &left = machine_.root_buses[rootBusOrder_[i - 1]];
            const ViommuRootBusDesc &right = machine_.root_buses[rootBusOrder_[i]];
            if (left.segment == right.segment && left.last_bus >= right.first_bus) {
                throw Refusal("the bus numbers of root buses " + busWindow(left) + " and " +
                              busWindow(right) + " overlap");
            }
        }
    }

    void checkMmioEndpoints()
    {
        std::map<std::uint16_t, const char *> byIndex;
        std::map<std::uint64_t, const char *> byBase;
        for (std::size_t i = 0; i < machine_.mmio_endpoint_count; i++) {
            const ViommuMmioEndpointDesc &endpoint = machine_.mmio_endpoints[i];
            checkName(endpoint.name, "MMIO endpoint", i);
            const std::string name = endpoint.name;
            if (endpoint.iommu != VIOMMU_NO_IOMMU && endpoint.iommu >= machine_.iommu_count) {
                throw Refusal("MMIO endpoint " + name + " names IOMMU number " +
                              std::to_string(endpoint.iommu) + ", but the machine has " +
                              std::to_string(machine_.iommu_count));
            }
            const auto iommu = iommuByBase_.find(endpoint.base);
            if (iommu != iommuByBase_.end()) {
                throw Refusal("MMIO endpoint " + name + " is at MMIO base " + hex(endpoint.base) +
                              ", which is IOMMU " + iommu->second);
            }
            const auto [sameIndex, newIndex] = byIndex.emplace(endpoint.index, endpoint.name);
            if (!newIndex) {
                throw Refusal(std::string("MMIO endpoints ") + sameIndex->second + " and " + name +
                              " both have index " + std::to_string(endpoint.index));
            }
            const auto [sameBase, newBase] = byBase.emplace(endpoint.base, endpoint.name);
            if (!newBase) {
                throw Refusal(std::string("MMIO endpoints ") + sameBase->second + " and " + name +
                              " are both at MMIO base " + hex(endpoint.base));
            }
        }
    }

    void resolveClaims()
    {
        owners_.assign(machine_.root_bus_count, VIOMMU_NO_IOMMU);
        for (std::uint32_t i = 0; i < machine_.iommu_count; i++) {
            const ViommuIommuDesc &iommu = machine_.iommus[i];
            if (iommu.root_buses == nullptr && iommu.root_bus_count != 0) {
                throw Refusal(std::string("IOMMU ") + iommu.name + " claims " +
                              std::to_string(iommu.root_bus_count) + " root buses but lists none");
            }
            for (std::size_t k = 0; k < iommu.root_bus_count; k++) {
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
        for (std::size_t i = 0; i < machine_.root_bus_count; i++) {
            if (owners_[i] == VIOMMU_NO_IOMMU && !machine_.root_buses[i].bypass) {
                owners_[i] = taker_;
            }
        }
    }

    void claim(std::uint32_t iommu, const char *busName)
    {
        const std::string claimant = machine_.iommus[iommu].name;
        if (busName == nullptr) {
            throw Refusal("IOMMU " + claimant + " claims a root bus without a name");
        }
        if (std::strcmp(busName, VIOMMU_PLATFORM_BUS) == 0) {
            if (machine_.no_mmio_transports) {
                throw Refusal("IOMMU " + claimant + " claims " + busName +
                              ", but this machine has no virtio-mmio transports");
            }
            claim(platformOwner_, iommu, busName);
            return;
        }
        const auto found = rootBusByName_.find(busName);
        if (found == rootBusByName_.end()) {
            throw Refusal("IOMMU " + claimant + " claims root bus " + busName +
                          ", which does not exist");
        }
        if (machine_.root_buses[found->second].bypass) {
            throw Refusal("IOMMU " + claimant + " claims root bus " + busName +
                          ", which is set to bypass IOMMUs");
        }
        claim(owners_[found->second], iommu, busName);
    }

    void claim(std::uint32_t &owner, std::uint32_t iommu, const char *busName)
    {
        const std::string claimant = machine_.iommus[iommu].name;
        if (owner == iommu) {
            throw Refusal("IOMMU " + claimant + " claims root bus " + busName + " twice");
        }
        if (owner != VIOMMU_NO_IOMMU) {
            throw Refusal(std::string("root bus ") + busName + " is claimed by two IOMMUs: " +
                          machine_.iommus[owner].name + " and " + claimant);
        }
        owner = iommu;
    }

    const ViommuMachineDesc &machine_;
    std::set<PciId> iommuFunctions_;
    std::map<std::uint64_t, const char *> iommuByBase_;
    std::unordered_map<std::string, std::size_t> rootBusByName_;
    std::vector<std::size_t> rootBusOrder_;
    std::vector<std::uint32_t> owners_;
    std::uint32_t platformOwner_ = VIOMMU_NO_IOMMU; // of the MMIO endpoints, by claim
    std::uint32_t taker_ = VIOMMU_NO_IOMMU;         // of all that nobody claims
};

// `whole` without the functions in `holes`, in order.
std::vector<PciRange> subtract(const PciRange &whole, const std::set<PciId> &holes)
{
    std::vector<PciRange> rest;
    std::uint32_t first = whole.first; // wider than an ID: may step past 0xffff
    for (auto hole = holes.lower_bound({whole.segment, whole.first});
         hole != holes.end() && hole->first == whole.segment && hole->second <= whole.last;
         ++hole) {
        if (hole->second > first) {
            rest.push_back({whole.segment, static_cast<std::uint16_t>(first),
                            static_cast<std::uint16_t>(hole->second - 1)});
        }
        first = hole->second + 1u;
    }
    if (first <= whole.last) {
        rest.push_back({whole.segment, static_cast<std::uint16_t>(first), whole.last});
    }
    return rest;
}

void addWindow(std::vector<PciRange> &windows, const ViommuRootBusDesc &bus)
{
    const auto first = static_cast<std::uint16_t>(bus.first_bus << 8);
    const auto last = static_cast<std::uint16_t>(bus.last_bus << 8 | 0xff);
    if (!windows.empty() && windows.back().segment == bus.segment &&
        windows.back().last + 1 == first) {
        windows.back().last = last;
    } else {
        windows.push_back({bus.segment, first, last});
    }
}

} // namespace

bool Iommu::manages(std::uint32_t id) const
{
    if (id >> 16 == VIOMMU_SEGMENT_MMIO) {
        const auto found = std::lower_bound(endpoints.begin(), endpoints.end(), id,
                                            [](const MmioEndpoint &endpoint, std::uint32_t wanted) {
                                                return endpoint.id < wanted;
                                            });
        return found != endpoints.end() && found->id == id;
    }
    const auto found = std::lower_bound(
        ranges.begin(), ranges.end(), id,
        [](const PciRange &range, std::uint32_t wanted) { return range.lastId() < wanted; });
    return found != ranges.end() && found->firstId() <= id;
}

Model::Model(const ViommuMachineDesc &machine)
{
    const Checker checked(machine);

    iommus_.reserve(machine.iommu_count);
    for (std::size_t i = 0; i < machine.iommu_count; i++) {
        const ViommuIommuDesc &iommu = machine.iommus[i];
        iommus_.push_back(
            {iommu.name, iommu.kind, iommu.segment, iommu.requester_id, iommu.base, {}, {}});
    }

    std::vector<std::vector<PciRange>> windows(machine.iommu_count);
    for (const std::size_t position : checked.rootBusOrder()) {
        const ViommuRootBusDesc &bus = machine.root_buses[position];
        const std::uint32_t owner = checked.ownerOf(position);
        rootBusIommus_.emplace(bus.name, owner);
        if (owner != VIOMMU_NO_IOMMU) {
            addWindow(windows[owner], bus);
        }
    }
    for (std::size_t i = 0; i < machine.iommu_count; i++) {
        for (const PciRange &window : windows[i]) {
            std::ranges::copy(subtract(window, checked.iommuFunctions()),
                              std::back_inserter(iommus_[i].ranges));
        }
    }

    for (std::size_t i = 0; i < machine.mmio_endpoint_count; i++) {
        const ViommuMmioEndpointDesc &endpoint = machine.mmio_endpoints[i];
        const std::uint32_t owner = checked.ownerOf(endpoint);
        if (owner != VIOMMU_NO_IOMMU) {
            iommus_[owner].endpoints.push_back(
                {endpoint.name, VIOMMU_SEGMENT_MMIO << 16 | endpoint.index, endpoint.base, i});
        }
    }
    for (Iommu &iommu : iommus_) {
        std::ranges::sort(iommu.endpoints, {}, &MmioEndpoint::id);
    }
}

std::uint32_t Model::rootBusIommu(std::string_view name) const noexcept
{
    const auto found = rootBusIommus_.find(name);
    return found == rootBusIommus_.end() ? VIOMMU_NO_IOMMU : found->second;
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
    return topology->model.rootBusIommu(name);
}
