// SPDX-License-Identifier: GPL-2.0-or-later
#include "leave_out.h"

#include "text.h"

#include "base/error.h"

#include <cstring>
#include <string>
#include <string_view>
#include <utility>

namespace viommu::topology
{

namespace
{

constexpr uint8_t kLastDevfn = 0xff;

// As users write it.
std::string written(const ViommuLeaveOut &entry)
{
    std::string text = entry.name;
    if (entry.has_address) {
        char address[sizeof("/1f.7")];
        std::snprintf(address, sizeof(address), "/%x", entry.first_devfn >> 3u);
        text += address;
        if (entry.first_devfn == entry.last_devfn) {
            text += "." + std::to_string(entry.first_devfn & 7u);
        }
    }
    return text;
}

class Finder
{
public:
    Finder(const ViommuMachineDesc &machine, const std::vector<uint32_t> &owners)
        : machine_(machine), owners_(owners), found_(machine.root_bus_count),
          by_(machine.root_bus_count)
    {
        check_functions();
        for (uint32_t i = 0; i < machine.iommu_count; i++) {
            const ViommuIommuDesc &iommu = machine.iommus[i];
            if (iommu.left_out == nullptr && iommu.left_out_count != 0) {
                throw Refusal(std::string("IOMMU ") + iommu.name + " leaves out " +
                              std::to_string(iommu.left_out_count) + " entries but lists none");
            }
            for (size_t k = 0; k < iommu.left_out_count; k++) {
                leave_out(i, iommu.left_out[k]);
            }
        }
    }

    std::vector<LeftOut> take() { return std::move(found_); }

private:
    static constexpr size_t kNone = SIZE_MAX;

    size_t root_bus(std::string_view name) const
    {
        for (size_t i = 0; i < machine_.root_bus_count; i++) {
            if (name == machine_.root_buses[i].name) {
                return i;
            }
        }
        return kNone;
    }

    void check_functions() const
    {
        for (size_t i = 0; i < machine_.function_count; i++) {
            const char *const bus = machine_.functions[i].root_bus;
            if (bus == nullptr || root_bus(bus) == kNone) {
                throw Refusal("function number " + std::to_string(i) +
                              " of the machine description is on no root bus");
            }
        }
    }

    std::string subject(uint32_t iommu, const ViommuLeaveOut &entry) const
    {
        return std::string("IOMMU ") + machine_.iommus[iommu].name + " leaves out " +
               written(entry);
    }

    void leave_out(uint32_t iommu, const ViommuLeaveOut &entry)
    {
        if (entry.name == nullptr || entry.first_devfn > entry.last_devfn) {
            throw Refusal(std::string("IOMMU ") + machine_.iommus[iommu].name +
                          " leaves out something without a name or an address");
        }
        const size_t bus = root_bus(entry.name);
        if (entry.has_address) {
            if (bus == kNone) {
                throw Refusal(subject(iommu, entry) + ", but there is no root bus " + entry.name);
            }
            leave_out_address(iommu, entry, bus);
        } else if (bus != kNone) {
            leave_out_root_bus(iommu, entry, bus);
        } else {
            leave_out_device(iommu, entry);
        }
    }

    void leave_out_address(uint32_t iommu, const ViommuLeaveOut &entry, size_t bus)
    {
        check_owner(iommu, entry, bus);
        for (size_t i = 0; i < machine_.function_count; i++) {
            const ViommuFunctionDesc &function = machine_.functions[i];
            if (function.bridge && function.on_root_bus && root_bus(function.root_bus) == bus &&
                function.devfn >= entry.first_devfn && function.devfn <= entry.last_devfn) {
                refuse_bridge(iommu, entry, function);
            }
        }
        if (entry.first_devfn == entry.last_devfn) {
            check_no_iommu(iommu, entry, bus, entry.first_devfn);
        }
        add(iommu, entry, bus, entry.first_devfn, entry.last_devfn);
    }

    void leave_out_root_bus(uint32_t iommu, const ViommuLeaveOut &entry, size_t bus)
    {
        const std::string_view name = entry.name;
        for (size_t i = 0; i < machine_.function_count; i++) {
            const ViommuFunctionDesc &function = machine_.functions[i];
            // A conventional expander shares its id with the bridge that it brings.
            const bool of_the_bus =
                function.expander || (function.bridge && name == function.root_bus);
            if (function.id != nullptr && name == function.id && !of_the_bus) {
                throw Refusal(subject(iommu, entry) +
                              ", which is the name of a root bus and the id of a device");
            }
        }
        check_owner(iommu, entry, bus);
        const ViommuIommuDesc &desc = machine_.iommus[iommu];
        for (size_t k = 0; k < desc.root_bus_count; k++) {
            if (name == desc.root_buses[k]) {
                throw Refusal(subject(iommu, entry) + ", a root bus that it claims");
            }
        }
        add(iommu, entry, bus, 0, kLastDevfn);
        found_[bus].all = true;
    }

    void leave_out_device(uint32_t iommu, const ViommuLeaveOut &entry)
    {
        for (size_t i = 0; i < machine_.function_count; i++) {
            const ViommuFunctionDesc &function = machine_.functions[i];
            if (function.id == nullptr || std::strcmp(function.id, entry.name) != 0) {
                continue;
            }
            const size_t bus = root_bus(function.root_bus);
            check_owner(iommu, entry, bus);
            if (function.bridge) {
                refuse_bridge(iommu, entry, function);
            }
            if (!function.on_root_bus) {
                throw Refusal(subject(iommu, entry) +
                              ", which is behind a bridge, where the guest chooses the bus "
                              "number: " +
                              remedy("it", function));
            }
            check_no_iommu(iommu, entry, bus, function.devfn);
            add(iommu, entry, bus, function.devfn, function.devfn);
            return;
        }
        throw Refusal(subject(iommu, entry) + ", but no PCI function has that id");
    }

    // Expanders take no functions but bridges, so functions belong on the first root bus.
    std::string remedy(const std::string &what, const ViommuFunctionDesc &function) const
    {
        const size_t here = root_bus(function.root_bus);
        size_t first = here;
        for (size_t i = 0; i < machine_.root_bus_count; i++) {
            const ViommuRootBusDesc &bus = machine_.root_buses[i];
            if (bus.segment == machine_.root_buses[first].segment &&
                bus.first_bus < machine_.root_buses[first].first_bus) {
                first = i;
            }
        }
        return "put " + what + " on root bus " + machine_.root_buses[first].name + " itself, or " +
               (first == here
                    ? std::string("behind an expander bridge with bypass_iommu=on")
                    : std::string("leave out ") + function.root_bus + " with all behind it");
    }

    [[noreturn]] void refuse_bridge(uint32_t iommu, const ViommuLeaveOut &entry,
                                    const ViommuFunctionDesc &function) const
    {
        std::string bridge = ", a bridge";
        if (entry.has_address) {
            bridge = ", where bridge ";
            bridge += function.id
                          ? function.id
                          : written({function.root_bus, true, function.devfn, function.devfn});
            bridge += " is";
        }
        throw Refusal(subject(iommu, entry) + bridge +
                      ", but the guest chooses the bus numbers behind it: " +
                      remedy("what is to bypass", function));
    }

    void check_owner(uint32_t iommu, const ViommuLeaveOut &entry, size_t bus) const
    {
        const uint32_t owner = owners_[bus];
        if (owner != iommu) {
            throw Refusal(subject(iommu, entry) + ", but root bus " +
                          machine_.root_buses[bus].name + " is managed by " +
                          (owner == VIOMMU_NO_IOMMU
                               ? std::string("no IOMMU")
                               : std::string("IOMMU ") + machine_.iommus[owner].name));
        }
    }

    void check_no_iommu(uint32_t iommu, const ViommuLeaveOut &entry, size_t bus,
                        uint8_t devfn) const
    {
        const ViommuRootBusDesc &root = machine_.root_buses[bus];
        for (size_t i = 0; i < machine_.iommu_count; i++) {
            const ViommuIommuDesc &other = machine_.iommus[i];
            if (other.kind == VIOMMU_IOMMU_PCI && other.segment == root.segment &&
                other.requester_id == (root.first_bus << 8 | devfn)) {
                throw Refusal(subject(iommu, entry) + ", but that is an IOMMU, which no IOMMU "
                                                      "manages");
            }
        }
    }

    void add(uint32_t iommu, const ViommuLeaveOut &entry, size_t bus, uint8_t first, uint8_t last)
    {
        for (unsigned devfn = first; devfn <= last; devfn++) {
            if (found_[bus].functions[devfn]) {
                throw Refusal(subject(iommu, entry) + " twice: with " + written(*by_[bus][devfn]) +
                              " before");
            }
        }
        by_[bus].resize(kLastDevfn + 1u);
        for (unsigned devfn = first; devfn <= last; devfn++) {
            found_[bus].functions.set(devfn);
            by_[bus][devfn] = &entry;
        }
    }

    const ViommuMachineDesc &machine_;
    const std::vector<uint32_t> &owners_;
    std::vector<LeftOut> found_;
    std::vector<std::vector<const ViommuLeaveOut *>> by_; // the entry of each function
};

} // namespace

std::vector<LeftOut> find_left_out(const ViommuMachineDesc &machine,
                                   const std::vector<uint32_t> &owners)
{
    return Finder(machine, owners).take();
}

} // namespace viommu::topology
