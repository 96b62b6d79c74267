// SPDX-License-Identifier: GPL-2.0-or-later
//
// Numbers as bytes: little-endian for the device and ACPI, big-endian for device trees and
// the migration stream.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace viommu
{

template <std::unsigned_integral T> void store_little(uint8_t *to, T value)
{
    for (size_t i = 0; i < sizeof(T); i++) {
        to[i] = static_cast<uint8_t>(value >> (8 * i));
    }
}

template <std::unsigned_integral T> void store_big(uint8_t *to, T value)
{
    for (size_t i = 0; i < sizeof(T); i++) {
        to[i] = static_cast<uint8_t>(value >> (8 * (sizeof(T) - 1 - i)));
    }
}

// What the bytes lack at their end is 0.
template <std::unsigned_integral T> T load_little(std::span<const uint8_t> bytes)
{
    T value = 0;
    for (size_t i = 0; i < sizeof(T) && i < bytes.size(); i++) {
        value = static_cast<T>(value | static_cast<T>(T{bytes[i]} << (8 * i)));
    }
    return value;
}

template <std::unsigned_integral T> T load_big(std::span<const uint8_t, sizeof(T)> bytes)
{
    T value = 0;
    for (size_t i = 0; i < sizeof(T); i++) {
        value = static_cast<T>(value | static_cast<T>(T{bytes[i]} << (8 * (sizeof(T) - 1 - i))));
    }
    return value;
}

// Appends little-endian fields.
class LittleEndianBytes
{
public:
    template <std::unsigned_integral T> void put(T value)
    {
        bytes_.resize(bytes_.size() + sizeof(T));
        store_little(&bytes_[bytes_.size() - sizeof(T)], value);
    }

    void zeros(size_t count) { bytes_.resize(bytes_.size() + count); }

    size_t size() const { return bytes_.size(); }

    // Nothing is written if the room does not suffice for all of it.
    void copy_to(uint8_t *out, size_t room) const
    {
        if (out && room >= bytes_.size()) {
            std::memcpy(out, bytes_.data(), bytes_.size());
        }
    }

private:
    std::vector<uint8_t> bytes_;
};

} // namespace viommu
