// SPDX-License-Identifier: GPL-2.0-or-later
//
// QEMU's edu device: copies between memory and a buffer of its own.
#ifndef BARE_EDU_H
#define BARE_EDU_H

#include "virtio.h"

namespace bare
{

class Edu
{
public:
    // Most that one copy moves.
    static constexpr uint32_t bufferSize = 4096;

    // False if there is none.
    bool open(uint16_t bdf);
    uint16_t bdf() const { return bdf_; }

    // The addresses are those that the device sees, below 4 GiB.  False if it does not
    // end in time; whether the bytes moved is another question.
    bool fetch(uint32_t iova, uint32_t size) { return copy(iova, size, 0); }
    bool put(uint32_t iova, uint32_t size) { return copy(iova, size, 2); }

private:
    bool copy(uint32_t iova, uint32_t size, uint32_t direction);

    uint16_t bdf_ = 0;
    Addr registers_ = 0;
};

} // namespace bare

#endif
