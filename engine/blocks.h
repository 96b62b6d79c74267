// SPDX-License-Identifier: GPL-2.0-or-later
//
// The blocks in which listeners are told of a range: QEMU's form, powers of two
// that are aligned at the IOVA.
#pragma once

#include <bit>
#include <cstdint>

namespace viommu
{

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
