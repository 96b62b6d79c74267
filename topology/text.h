// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef VIOMMU_TOPOLOGY_TEXT_H
#define VIOMMU_TOPOLOGY_TEXT_H

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <string>

namespace viommu::topology
{

inline std::string hex(std::uint64_t value)
{
    char text[2 + 16 + 1];
    std::snprintf(text, sizeof(text), "0x%" PRIx64, value);
    return text;
}

// segment:bus:device.function as lspci writes it.
inline std::string pciAddress(std::uint16_t segment, std::uint16_t requesterId)
{
    char text[sizeof("ffff:ff:1f.7")];
    std::snprintf(text, sizeof(text), "%04x:%02x:%02x.%x", static_cast<unsigned>(segment),
                  static_cast<unsigned>(requesterId >> 8),
                  static_cast<unsigned>((requesterId >> 3) & 0x1f),
                  static_cast<unsigned>(requesterId & 7));
    return text;
}

} // namespace viommu::topology

#endif
