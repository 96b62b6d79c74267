// SPDX-License-Identifier: GPL-2.0-or-later
//
// A machine's description from the fuzzer's bytes, right or wrong, and a naive
// reading of the rules: whether it is refused, and who manages what.
#pragma once

#include "input.h"
#include "owners.h"

#include <viommu/viommu.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace viommu::fuzz
{

using test::Owner;
using test::Owners;

constexpr std::array<uint16_t, 4> kSegments{0, 1, 2, VIOMMU_SEGMENT_MMIO};
constexpr std::array<uint64_t, 4> kBases{0x0a000000, 0x0a000200, 0x10000000000, 0};
constexpr std::array<const char *, 8> kBusNames{
    "pcie.0", "pxb1", "pxb2", "pxb3", "pxb4", VIOMMU_PLATFORM_BUS, "", nullptr};
constexpr std::array<const char *, 4> kNames{"iommu0", "iommu1", "", nullptr};
constexpr std::array<const char *, 8> kIds{"disk0",  "nic0", "port0", "disk1",
                                           "pcie.0", "pxb1", "",      nullptr};

using Function = std::pair<size_t, unsigned>; // of a root bus, by its position

struct MachineBytes {
    explicit MachineBytes(Input &input)
    {
        const size_t iommu_count = input.below(6);
        const size_t bus_count = input.below(8);
        const size_t endpoint_count = input.below(6);
        no_transports = endpoint_count == 0 && bus_count % 2 != 0;
        claims.reserve(iommu_count);
        for (size_t i = 0; i < iommu_count; i++) {
            iommus.push_back(iommu(input));
        }
        for (size_t i = 0; i < bus_count; i++) {
            const uint8_t flags = input.byte();
            const uint8_t first = input.byte();
            const auto size = static_cast<uint8_t>((flags & 8) != 0 ? input.byte() : 15);
            // Now and then the window is inverted by the carry.
            buses.push_back({kBusNames[flags >> 5], kSegments[flags % 4], first,
                             static_cast<uint8_t>(first + size), (flags & 16) != 0});
        }
        for (size_t i = 0; i < endpoint_count; i++) {
            const uint8_t flags = input.byte();
            endpoints.push_back({kNames[flags % 4],
                                 static_cast<uint16_t>((flags & 4) != 0 ? 0xffff : i),
                                 (flags & 8) != 0 ? kBases[flags >> 6] : 0x0b000000 + 0x200 * i,
                                 (flags & 16) != 0 ? VIOMMU_NO_IOMMU : input.byte() % 7u});
        }
    }

    // Numbers of functions and entries, then { their fields }.
    void add_left_out(Input &input)
    {
        const size_t function_count = input.below(8);
        const size_t entry_count = iommus.empty() ? 0 : input.below(6);
        for (size_t i = 0; i < function_count; i++) {
            const uint8_t flags = input.byte();
            // Mostly of a bus that there is.
            const size_t bus = input.below(buses.size() + 1);
            functions.push_back(
                {kIds[flags % 8], bus < buses.size() ? buses[bus].name : kBusNames[flags >> 5],
                 (flags & 8) == 0, input.byte(), (flags & 16) != 0, (flags & 32) != 0});
        }
        left_out.resize(iommus.size());
        for (size_t i = 0; i < entry_count; i++) {
            const uint8_t flags = input.byte();
            const uint8_t first = input.byte();
            const auto last = static_cast<uint8_t>((flags & 8) != 0 ? first | 7 : first);
            left_out[input.below(iommus.size())].push_back(
                {(flags & 16) != 0 ? kBusNames[flags % 8] : kIds[flags % 8], (flags & 32) != 0,
                 first, (flags & 0xc0) == 0xc0 ? input.byte() : last});
        }
        for (size_t i = 0; i < iommus.size(); i++) {
            iommus[i].left_out = left_out[i].data();
            iommus[i].left_out_count = left_out[i].size();
        }
    }

    ViommuMachineDesc desc() const
    {
        return {iommus.data(), iommus.size(),    buses.data(),
                buses.size(),  endpoints.data(), endpoints.size(),
                no_transports, functions.data(), functions.size()};
    }

    std::vector<ViommuIommuDesc> iommus;
    std::vector<ViommuRootBusDesc> buses;
    std::vector<ViommuMmioEndpointDesc> endpoints;
    bool no_transports;
    std::vector<std::vector<const char *>> claims;
    std::vector<ViommuFunctionDesc> functions;
    std::vector<std::vector<ViommuLeaveOut>> left_out; // of each IOMMU

private:
    ViommuIommuDesc iommu(Input &input)
    {
        const uint8_t flags = input.byte();
        std::vector<const char *> names;
        for (size_t count = flags % 4; count > 0; count--) {
            names.push_back(input.one_of(kBusNames));
        }
        claims.push_back(std::move(names));
        const bool mmio = (flags & 4) != 0;
        return {kNames[(flags >> 3) % 4],
                mmio ? VIOMMU_IOMMU_MMIO : VIOMMU_IOMMU_PCI,
                kSegments[flags >> 6],
                input.number<uint16_t>(),
                mmio ? input.one_of(kBases) : 0,
                claims.back().data(),
                claims.back().size(),
                nullptr,
                0};
    }
};

// The rules, once more.
class Rules
{
public:
    explicit Rules(const MachineBytes &machine) : machine_(machine) {}

    bool allowed() const
    {
        return iommus_allowed() && buses_allowed() && endpoints_allowed() && left_out_allowed();
    }

    // Of an allowed machine.
    uint32_t taker() const
    {
        for (uint32_t i = 0; i < machine_.iommus.size(); i++) {
            if (machine_.iommus[i].root_bus_count == 0) {
                return i;
            }
        }
        return VIOMMU_NO_IOMMU;
    }

    uint32_t owner(const ViommuRootBusDesc &bus) const
    {
        for (uint32_t i = 0; i < machine_.iommus.size(); i++) {
            if (claims(i, bus.name) && bus.name != kPlatform) {
                return i;
            }
        }
        return bus.bypass ? VIOMMU_NO_IOMMU : taker();
    }

    uint32_t owner(const ViommuMmioEndpointDesc &endpoint) const
    {
        if (endpoint.iommu != VIOMMU_NO_IOMMU) {
            return endpoint.iommu;
        }
        for (uint32_t i = 0; i < machine_.iommus.size(); i++) {
            if (claims(i, kPlatform)) {
                return i;
            }
        }
        return taker();
    }

    Owners owners() const
    {
        Owners owners;
        for (const ViommuRootBusDesc &bus : machine_.buses) {
            const uint32_t manager = owner(bus);
            if (manager == VIOMMU_NO_IOMMU) {
                continue;
            }
            std::vector<Owner> &functions = owners.segment(bus.segment);
            for (uint32_t rid = bus.first_bus * 256u; rid < (bus.last_bus + 1) * 256u; rid++) {
                functions[rid] = {manager, bus.segment * 0x10000u + rid};
            }
        }
        for (const auto &[bus, devfn] : left_out()) {
            const ViommuRootBusDesc &root = machine_.buses[bus];
            owners.segment(root.segment)[root.first_bus * 256u + devfn] = {};
        }
        for (size_t i = 0; i < machine_.buses.size(); i++) {
            const ViommuRootBusDesc &root = machine_.buses[i];
            if (leaves_all_out(i)) {
                std::vector<Owner> &functions = owners.segment(root.segment);
                for (unsigned rid = root.first_bus * 256u; rid < (root.last_bus + 1) * 256u;
                     rid++) {
                    functions[rid] = {};
                }
            }
        }
        for (const ViommuIommuDesc &iommu : machine_.iommus) {
            const auto functions = owners.segments.find(iommu.segment);
            if (iommu.kind == VIOMMU_IOMMU_PCI && functions != owners.segments.end()) {
                functions->second[iommu.requester_id] = {};
            }
        }
        for (const ViommuMmioEndpointDesc &endpoint : machine_.endpoints) {
            if (owner(endpoint) != VIOMMU_NO_IOMMU) {
                owners.mmio[endpoint.base] = {owner(endpoint), 0xffff0000u + endpoint.index};
            }
        }
        return owners;
    }

    // Functions of root buses, by position.
    std::set<Function> left_out() const
    {
        std::set<Function> all;
        for (size_t i = 0; i < machine_.left_out.size(); i++) {
            for (const ViommuLeaveOut &entry : machine_.left_out[i]) {
                for (const Function &function : named(entry)) {
                    all.insert(function);
                }
            }
        }
        return all;
    }

    bool leaves_all_out(size_t bus) const
    {
        return std::ranges::any_of(machine_.left_out, [&](const auto &entries) {
            return std::ranges::any_of(entries, [&](const ViommuLeaveOut &entry) {
                return !entry.has_address && bus_of(entry.name) == bus;
            });
        });
    }

private:
    static constexpr size_t kNoBus = SIZE_MAX;

    size_t bus_of(std::string_view name) const
    {
        const auto found = std::ranges::find_if(
            machine_.buses, [&](const ViommuRootBusDesc &bus) { return bus.name == name; });
        return found == machine_.buses.end() ? kNoBus
                                             : static_cast<size_t>(found - machine_.buses.begin());
    }

    const ViommuFunctionDesc *device(std::string_view id) const
    {
        const auto found =
            std::ranges::find_if(machine_.functions, [&](const ViommuFunctionDesc &function) {
                return function.id && function.id == id;
            });
        return found == machine_.functions.end() ? nullptr : &*found;
    }

    // What an entry that makes sense leaves out.
    std::vector<Function> named(const ViommuLeaveOut &entry) const
    {
        std::vector<Function> functions;
        const size_t bus = bus_of(entry.name);
        if (bus != kNoBus) {
            const unsigned first = entry.has_address ? entry.first_devfn : 0;
            const unsigned last = entry.has_address ? entry.last_devfn : 255;
            for (unsigned devfn = first; devfn <= last; devfn++) {
                functions.push_back({bus, devfn});
            }
        } else if (const ViommuFunctionDesc *function = device(entry.name)) {
            functions.push_back({bus_of(function->root_bus), function->devfn});
        }
        return functions;
    }

    bool is_iommu(const Function &function) const
    {
        const ViommuRootBusDesc &bus = machine_.buses[function.first];
        return std::ranges::any_of(machine_.iommus, [&](const ViommuIommuDesc &iommu) {
            return iommu.kind == VIOMMU_IOMMU_PCI && iommu.segment == bus.segment &&
                   iommu.requester_id == bus.first_bus * 256u + function.second;
        });
    }

    bool makes_sense(uint32_t iommu, const ViommuLeaveOut &entry) const
    {
        if (!entry.name || entry.first_devfn > entry.last_devfn) {
            return false;
        }
        const std::string_view name = entry.name;
        const size_t bus = bus_of(name);
        const ViommuFunctionDesc *function = bus == kNoBus ? device(name) : nullptr;
        if (bus == kNoBus && (entry.has_address || !function)) {
            return false;
        }
        if (owner(machine_.buses[function ? bus_of(function->root_bus) : bus]) != iommu) {
            return false;
        }
        if (function) {
            return function->on_root_bus && !function->bridge && !is_iommu(named(entry).front());
        }
        if (entry.has_address) {
            const bool one = entry.first_devfn == entry.last_devfn;
            return !(one && is_iommu({bus, entry.first_devfn})) &&
                   std::ranges::none_of(machine_.functions, [&](const ViommuFunctionDesc &other) {
                       return other.bridge && other.on_root_bus && other.root_bus == name &&
                              entry.first_devfn <= other.devfn && other.devfn <= entry.last_devfn;
                   });
        }
        return !claims(iommu, name) &&
               std::ranges::none_of(machine_.functions, [&](const ViommuFunctionDesc &other) {
                   return other.id && other.id == name && !other.expander &&
                          !(other.bridge && other.root_bus == name);
               });
    }

    bool left_out_allowed() const
    {
        if (std::ranges::any_of(machine_.functions, [&](const ViommuFunctionDesc &function) {
                return !function.root_bus || bus_of(function.root_bus) == kNoBus;
            })) {
            return false;
        }
        std::set<Function> all;
        for (uint32_t i = 0; i < machine_.left_out.size(); i++) {
            for (const ViommuLeaveOut &entry : machine_.left_out[i]) {
                if (!makes_sense(i, entry)) {
                    return false;
                }
                for (const Function &function : named(entry)) {
                    if (!all.insert(function).second) {
                        return false;
                    }
                }
            }
        }
        return true;
    }

    static constexpr std::string_view kPlatform = VIOMMU_PLATFORM_BUS;

    bool claims(uint32_t iommu, std::string_view bus) const
    {
        return std::ranges::any_of(machine_.claims[iommu],
                                   [bus](const char *claim) { return claim == bus; });
    }

    bool iommus_allowed() const
    {
        std::set<std::pair<unsigned, uint64_t>> places;
        std::set<std::string> claimed;
        size_t takers = 0;
        for (size_t i = 0; i < machine_.iommus.size(); i++) {
            const ViommuIommuDesc &iommu = machine_.iommus[i];
            const bool pci = iommu.kind == VIOMMU_IOMMU_PCI;
            const auto place =
                pci ? std::pair(unsigned{iommu.segment}, uint64_t{iommu.requester_id})
                    : std::pair(0x10000u, iommu.base);
            takers += machine_.claims[i].empty() ? 1 : 0;
            if (!iommu.name || (pci && iommu.segment == VIOMMU_SEGMENT_MMIO) ||
                !places.insert(place).second || takers > 1) {
                return false;
            }
            for (const char *claim : machine_.claims[i]) {
                if (!claim || !claimed.insert(claim).second) {
                    return false;
                }
                if (claim == kPlatform && machine_.no_transports) {
                    return false;
                }
                if (claim != kPlatform &&
                    std::ranges::none_of(machine_.buses, [claim](const ViommuRootBusDesc &bus) {
                        return bus.name && !bus.bypass && std::string_view(bus.name) == claim;
                    })) {
                    return false;
                }
            }
        }
        return true;
    }

    bool buses_allowed() const
    {
        std::set<std::string> names;
        std::set<unsigned> numbers;
        for (const ViommuRootBusDesc &bus : machine_.buses) {
            if (!bus.name || bus.segment == VIOMMU_SEGMENT_MMIO || bus.first_bus > bus.last_bus ||
                !names.insert(bus.name).second) {
                return false;
            }
            for (unsigned number = bus.first_bus; number <= bus.last_bus; number++) {
                if (!numbers.insert(bus.segment * 256u + number).second) {
                    return false;
                }
            }
        }
        return true;
    }

    bool endpoints_allowed() const
    {
        std::set<uint16_t> indices;
        std::set<uint64_t> bases;
        for (const ViommuMmioEndpointDesc &endpoint : machine_.endpoints) {
            const bool is_iommu =
                std::ranges::any_of(machine_.iommus, [&](const ViommuIommuDesc &iommu) {
                    return iommu.kind == VIOMMU_IOMMU_MMIO && iommu.base == endpoint.base;
                });
            const bool exists =
                endpoint.iommu == VIOMMU_NO_IOMMU || endpoint.iommu < machine_.iommus.size();
            if (!endpoint.name || is_iommu || !exists || !indices.insert(endpoint.index).second ||
                !bases.insert(endpoint.base).second) {
                return false;
            }
        }
        return true;
    }

    const MachineBytes &machine_;
};

} // namespace viommu::fuzz
