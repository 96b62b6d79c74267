// SPDX-License-Identifier: GPL-2.0-or-later
#include "edu.h"

namespace bare
{

namespace
{

constexpr uint32_t ids = 0x11e81234;
constexpr uint32_t buffer = 0x40000;

enum Register : unsigned {
    source = 0x80,
    target = 0x88,
    count = 0x90,
    command = 0x98,
};
constexpr uint32_t run = 1;

} // namespace

bool Edu::open(uint16_t bdf)
{
    if (pciRead32(bdf, 0) != ids) {
        return false;
    }
    Addr bars[pciBars] = {};
    placeBars(bdf, bars);
    bdf_ = bdf;
    registers_ = bars[0];
    return true;
}

bool Edu::copy(uint32_t iova, uint32_t size, uint32_t direction)
{
    store<uint32_t>(registers_ + source, direction ? buffer : iova);
    store<uint32_t>(registers_ + target, direction ? iova : buffer);
    store<uint32_t>(registers_ + count, size);
    store<uint32_t>(registers_ + command, run | direction);
    return waitFor(5000, [this] { return !(load<uint32_t>(registers_ + command) & run); });
}

} // namespace bare
