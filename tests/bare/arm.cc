// SPDX-License-Identifier: GPL-2.0-or-later
// Arm's virt machine, at EL1 with the MMU off.
#include "platform.h"

namespace bare
{

namespace
{

constexpr Addr uart = 0x09000000;
constexpr Addr uartFlags = uart + 0x18;
constexpr uint32_t uartFull = 1u << 5;
constexpr uint32_t uartEmpty = 1u << 4;
constexpr Addr fwCfgData = 0x09020000;
constexpr Addr fwCfgSelector = 0x09020008;
constexpr Addr ecam = 0x4010000000;
constexpr uint32_t psciSystemOff = 0x84000008;

Addr configAddr(uint16_t bdf, unsigned offset)
{
    return ecam + (static_cast<Addr>(bdf) << 12) + (offset & ~3u);
}

} // namespace

const Transports transports = {0x0a000000, 0x200, 32};
const Addr pciWindow = 0x10000000;

void consolePut(char c)
{
    while (load<uint32_t>(uartFlags) & uartFull) {
    }
    store<uint32_t>(uart, static_cast<uint8_t>(c));
}

bool consoleGet(char &c)
{
    if (load<uint32_t>(uartFlags) & uartEmpty) {
        return false;
    }
    c = static_cast<char>(load<uint32_t>(uart));
    return true;
}

void idle()
{
    asm volatile("yield");
}

uint64_t ticks()
{
    uint64_t value;
    asm volatile("isb; mrs %0, cntvct_el0" : "=r"(value));
    return value;
}

uint64_t ticksPerMillisecond()
{
    uint64_t value;
    asm volatile("mrs %0, cntfrq_el0" : "=r"(value));
    return value / 1000;
}

uint32_t pciRead32(uint16_t bdf, unsigned offset)
{
    return load<uint32_t>(configAddr(bdf, offset));
}

void pciWrite32(uint16_t bdf, unsigned offset, uint32_t value)
{
    store<uint32_t>(configAddr(bdf, offset), value);
}

void eject(unsigned) {}

void fwCfgSelect(uint16_t key)
{
    store<uint16_t>(fwCfgSelector, __builtin_bswap16(key));
}

uint8_t fwCfgByte()
{
    return load<uint8_t>(fwCfgData);
}

unsigned processor()
{
    return 0;
}

bool startProcessor(unsigned, Addr, void (*)())
{
    return false;
}

bool takeInterrupts(Addr)
{
    return false;
}

Message messageFor(uint8_t)
{
    return {};
}

uint32_t interruptsOf(uint8_t)
{
    return 0;
}

uint32_t interruptsOfPins()
{
    return 0;
}

// The status of QEMU is 0 either way: the table tells.
void powerOff(bool)
{
    register uint64_t x0 asm("x0") = psciSystemOff;
    asm volatile("hvc #0" : "+r"(x0) : : "memory");
    for (;;) {
    }
}

} // namespace bare
