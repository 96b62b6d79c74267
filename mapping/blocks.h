// SPDX-License-Identifier: GPL-2.0-or-later
//
// Ranges as blocks, QEMU's form of them: powers of two that are aligned at the IOVA.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace viommu
{

// size - 1 of the largest power-of-two block around `at` that lies inside
// [first, last], is aligned at the IOVA and whose size divides `offset`, the
// distance between IOVA and physical address.
inline uint64_t block_mask(uint64_t at, uint64_t first, uint64_t last, uint64_t offset)
{
    // A block of 2^n around `at` leaves out the address next to the range as
    // long as the two differ in bit n or above.
    int order = 64;
    if (first != 0) {
        order = std::min(order, 63 - std::countl_zero(at ^ (first - 1)));
    }
    if (last != UINT64_MAX) {
        order = std::min(order, 63 - std::countl_zero(at ^ (last + 1)));
    }
    order = std::min(order, std::countr_zero(offset));
    return order == 64 ? UINT64_MAX : (uint64_t{1} << order) - 1;
}

// Back ends compute with signed addresses, with size instead of size - 1, and with
// IOVA + size: of a block of 2^63 one of them is out of range or 0.
inline constexpr uint64_t kBlockMaskMax = (uint64_t{1} << 62) - 1;

// Calls tell(first address, size - 1) for each block of [first, last] in order.  The
// same range is always cut in the same way, so that what was mapped in blocks can be
// unmapped in them.  IOVA + size wraps at the end of the address space, where the
// last block is therefore no more than a page: else an UNMAP of it could be lost
// with all that is before that page.
template <typename Tell>
void for_each_block(uint64_t first, uint64_t last, uint64_t page, Tell tell)
{
    for (;;) {
        uint64_t mask = kBlockMaskMax;
        if (first != 0) {
            mask &= (uint64_t{1} << std::countr_zero(first)) - 1;
        }
        while (mask > last - first || (first + mask == UINT64_MAX && mask >= page)) {
            mask >>= 1;
        }
        tell(first, mask);
        if (mask == last - first) {
            return;
        }
        first += mask + 1;
    }
}

} // namespace viommu
