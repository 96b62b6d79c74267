// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef VIOMMU_TESTS_TOPOLOGY_OWNERS_H
#define VIOMMU_TESTS_TOPOLOGY_OWNERS_H

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "viommu/viommu.h"

namespace viommu::test
{

// Behind which IOMMU a device is, and the endpoint ID that a guest would use.
struct Owner {
    std::uint32_t iommu = VIOMMU_NO_IOMMU;
    std::uint32_t id = 0;

    bool operator==(const Owner &) const = default;
};

// What a guest learns from one description, spelt out function by function.
struct Owners {
    std::map<std::uint16_t, std::vector<Owner>> segments; // by requester ID
    std::map<std::uint64_t, Owner> mmio;                  // by MMIO base
    std::vector<std::string> complaints;                  // what a guest would reject or misread

    Owners() = default;
    Owners(const Owners &) = default;
    Owners &operator=(const Owners &) = default;
    ~Owners()
    {
        for (auto &[number, owners] : segments) {
            if (spare().size() < kSpare) {
                spare().push_back(std::move(owners));
            }
        }
    }

    std::vector<Owner> &segment(std::uint16_t number)
    {
        std::vector<Owner> &owners = segments[number];
        if (owners.empty()) {
            if (!spare().empty()) {
                owners = std::move(spare().back());
                spare().pop_back();
            }
            owners.assign(0x10000, {});
        }
        return owners;
    }

private:
    // Fuzzers decode thousands of descriptions a second; fresh pages for each of
    // these tables would take most of their time.  All are there from the start, or
    // what an input leaves here would look like a leak.
    static constexpr std::size_t kSpare = 16;
    static std::vector<std::vector<Owner>> &spare()
    {
        static std::vector<std::vector<Owner>> tables(kSpare, std::vector<Owner>(0x10000));
        return tables;
    }
};

inline std::uint16_t le16(const std::vector<std::uint8_t> &bytes, std::size_t at)
{
    return static_cast<std::uint16_t>(bytes.at(at) | bytes.at(at + 1) << 8);
}

inline std::uint32_t le32(const std::vector<std::uint8_t> &bytes, std::size_t at)
{
    return le16(bytes, at) | std::uint32_t{le16(bytes, at + 2)} << 16;
}

inline std::uint64_t le64(const std::vector<std::uint8_t> &bytes, std::size_t at)
{
    return le32(bytes, at) | std::uint64_t{le32(bytes, at + 4)} << 32;
}

// The IOMMU of the machine that is at this place, VIOMMU_NO_IOMMU if none is.
inline std::uint32_t iommuAtFunction(const ViommuMachineDesc &machine, std::uint16_t segment,
                                     std::uint16_t requesterId)
{
    for (std::uint32_t i = 0; i < machine.iommu_count; i++) {
        const ViommuIommuDesc &iommu = machine.iommus[i];
        if (iommu.kind == VIOMMU_IOMMU_PCI && iommu.segment == segment &&
            iommu.requester_id == requesterId) {
            return i;
        }
    }
    return VIOMMU_NO_IOMMU;
}

inline std::uint32_t iommuAtBase(const ViommuMachineDesc &machine, std::uint64_t base)
{
    for (std::uint32_t i = 0; i < machine.iommu_count; i++) {
        if (machine.iommus[i].kind == VIOMMU_IOMMU_MMIO && machine.iommus[i].base == base) {
            return i;
        }
    }
    return VIOMMU_NO_IOMMU;
}

// The table as Linux reads it; stricter where Linux would go on in silence.
// `table` begins with the 36 bytes of the ACPI header.
Owners decodeViot(const ViommuMachineDesc &machine, const std::vector<std::uint8_t> &table);

// Config space as the guests of the two layouts read it.  What they learn is
// added to `owners`, because each IOMMU has an array of its own.
void decodeArrayV2(std::uint32_t iommu, const std::vector<std::uint8_t> &config, Owners &owners);
void decodeArrayV3(std::uint32_t iommu, const std::vector<std::uint8_t> &config, Owners &owners);

// The tree as the bindings say; `pciHost` is the node of segment 0, or NULL.
Owners decodeFdt(const ViommuMachineDesc &machine, const void *fdt, const char *pciHost);

} // namespace viommu::test

#endif
