// SPDX-License-Identifier: GPL-2.0-or-later
//
// Requests as a driver writes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace viommu::fuzz
{

class RequestBytes
{
public:
    explicit RequestBytes(uint8_t type) { u32(type); }

    RequestBytes &u32(uint32_t value) { return put(value, 4); }
    RequestBytes &u64(uint64_t value) { return put(value, 8); }
    RequestBytes &zeros(size_t count)
    {
        bytes_.resize(bytes_.size() + count);
        return *this;
    }

    const std::vector<uint8_t> &bytes() const { return bytes_; }

private:
    RequestBytes &put(uint64_t value, unsigned size)
    {
        for (unsigned i = 0; i < size; i++) {
            bytes_.push_back(static_cast<uint8_t>(value >> (8 * i)));
        }
        return *this;
    }

    std::vector<uint8_t> bytes_;
};

inline std::vector<uint8_t> attach_bytes(uint32_t domain, uint32_t endpoint, uint32_t flags)
{
    return RequestBytes(1).u32(domain).u32(endpoint).u32(flags).zeros(4).bytes();
}

inline std::vector<uint8_t> detach_bytes(uint32_t domain, uint32_t endpoint)
{
    return RequestBytes(2).u32(domain).u32(endpoint).zeros(8).bytes();
}

inline std::vector<uint8_t> map_bytes(uint32_t domain, uint64_t first, uint64_t last, uint64_t phys,
                                      uint32_t flags)
{
    return RequestBytes(3).u32(domain).u64(first).u64(last).u64(phys).u32(flags).bytes();
}

inline std::vector<uint8_t> unmap_bytes(uint32_t domain, uint64_t first, uint64_t last)
{
    return RequestBytes(4).u32(domain).u64(first).u64(last).zeros(4).bytes();
}

inline std::vector<uint8_t> probe_bytes(uint32_t endpoint)
{
    return RequestBytes(5).u32(endpoint).zeros(64).bytes();
}

} // namespace viommu::fuzz
