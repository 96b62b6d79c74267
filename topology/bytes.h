// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef VIOMMU_TOPOLOGY_BYTES_H
#define VIOMMU_TOPOLOGY_BYTES_H

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace viommu::topology
{

// Appends little-endian fields; VIOT and the topology array are both made of them.
class LittleEndianBytes
{
public:
    template <std::unsigned_integral Field> void put(Field value)
    {
        for (std::size_t i = 0; i < sizeof(Field); i++) {
            bytes_.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
        }
    }

    void zeros(std::size_t count) { bytes_.resize(bytes_.size() + count); }

    std::size_t size() const { return bytes_.size(); }

    // Nothing is written if the room does not suffice for all of it.
    void copyTo(std::uint8_t *out, std::size_t room) const
    {
        if (out != nullptr && room >= bytes_.size()) {
            std::memcpy(out, bytes_.data(), bytes_.size());
        }
    }

private:
    std::vector<std::uint8_t> bytes_;
};

} // namespace viommu::topology

#endif
