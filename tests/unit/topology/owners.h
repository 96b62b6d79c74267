// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <viommu/viommu.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace viommu::test
{

// Behind which IOMMU a device is, and the endpoint ID that a guest would use.
struct Owner {
    uint32_t iommu = VIOMMU_NO_IOMMU;
    uint32_t id = 0;

    bool operator==(const Owner &) const = default;
};

// What a guest learns from one description, spelt out function by function.
struct Owners {
    std::map<uint16_t, std::vector<Owner>> segments; // by requester ID
    std::map<uint64_t, Owner> mmio;                  // by MMIO base
    std::vector<std::string> complaints;             // what a guest would reject or misread

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

    std::vector<Owner> &segment(uint16_t number)
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
    static constexpr size_t kSpare = 16;
    static std::vector<std::vector<Owner>> &spare()
    {
        static std::vector<std::vector<Owner>> tables(kSpare, std::vector<Owner>(0x10000));
        return tables;
    }
};

inline uint16_t le16(const std::vector<uint8_t> &bytes, size_t at)
{
    return static_cast<uint16_t>(bytes.at(at) | bytes.at(at + 1) << 8);
}

inline uint32_t le32(const std::vector<uint8_t> &bytes, size_t at)
{
    return le16(bytes, at) | uint32_t{le16(bytes, at + 2)} << 16;
}

inline uint64_t le64(const std::vector<uint8_t> &bytes, size_t at)
{
    return le32(bytes, at) | uint64_t{le32(bytes, at + 4)} << 32;
}

// The IOMMU of the machine that is at this place, VIOMMU_NO_IOMMU if none is.
inline uint32_t iommu_at_function(const ViommuMachineDesc &machine, uint16_t segment,
                                  uint16_t requester_id)
{
    for (uint32_t i = 0; i < machine.iommu_count; i++) {
        const ViommuIommuDesc &iommu = machine.iommus[i];
        if (iommu.kind == VIOMMU_IOMMU_PCI && iommu.segment == segment &&
            iommu.requester_id == requester_id) {
            return i;
        }
    }
    return VIOMMU_NO_IOMMU;
}

inline uint32_t iommu_at_base(const ViommuMachineDesc &machine, uint64_t base)
{
    for (uint32_t i = 0; i < machine.iommu_count; i++) {
        if (machine.iommus[i].kind == VIOMMU_IOMMU_MMIO && machine.iommus[i].base == base) {
            return i;
        }
    }
    return VIOMMU_NO_IOMMU;
}

// The table as Linux reads it; stricter where Linux would go on in silence.
// `table` begins with the 36 bytes of the ACPI header.
Owners decode_viot(const ViommuMachineDesc &machine, const std::vector<uint8_t> &table);

// Config space as the guests of the two layouts read it.  What they learn is
// added to `owners`, because each IOMMU has an array of its own.
void decode_array_v2(uint32_t iommu, const std::vector<uint8_t> &config, Owners &owners);
void decode_array_v3(uint32_t iommu, const std::vector<uint8_t> &config, Owners &owners);

// The tree as the bindings say; `pci_host` is the node of segment 0, or NULL.
Owners decode_fdt(const ViommuMachineDesc &machine, const void *fdt, const char *pci_host);

} // namespace viommu::test
