// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <string>

namespace viommu::topology
{

inline std::string hex(uint64_t value)
{
    char text[2 + 16 + 1];
    std::snprintf(text, sizeof(text), "0x%" PRIx64, value);
    return text;
}

// segment:bus:device.function as lspci writes it.
inline std::string pci_address(uint16_t segment, uint16_t requester_id)
{
    char text[sizeof("ffff:ff:1f.7")];
    std::snprintf(text, sizeof(text), "%04x:%02x:%02x.%x", static_cast<unsigned>(segment),
                  static_cast<unsigned>(requester_id >> 8),
                  static_cast<unsigned>((requester_id >> 3) & 0x1f),
                  static_cast<unsigned>(requester_id & 7));
    return text;
}

} // namespace viommu::topology
