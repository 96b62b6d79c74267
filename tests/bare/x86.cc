// SPDX-License-Identifier: GPL-2.0-or-later
// microvm and q35, in 32-bit protected mode.
#include "platform.h"

namespace bare
{

namespace
{

constexpr uint16_t serial = 0x3f8;
constexpr uint16_t debugExit = 0x501; // QEMU's status is twice the value, plus 1
constexpr uint16_t pciAddress = 0xcf8;
constexpr uint16_t pciData = 0xcfc;
constexpr uint16_t fwCfg = 0x510;

void out8(uint16_t port, uint8_t value)
{
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

void out16(uint16_t port, uint16_t value)
{
    asm volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

void out32(uint16_t port, uint32_t value)
{
    asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

uint8_t in8(uint16_t port)
{
    uint8_t value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

uint32_t in32(uint16_t port)
{
    uint32_t value;
    asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

void pciSelect(uint16_t bdf, unsigned offset)
{
    out32(pciAddress, 0x80000000u | static_cast<uint32_t>(bdf) << 8 | (offset & 0xfcu));
}

} // namespace

const Transports transports = {0xfeb00000, 0x200, 24};
const Addr pciWindow = 0xc0000000;

void consolePut(char c)
{
    while (!(in8(serial + 5) & 0x20)) {
    }
    out8(serial, static_cast<uint8_t>(c));
}

void idle()
{
    asm volatile("pause");
}

uint64_t ticks()
{
    return __builtin_ia32_rdtsc();
}

// A guess at the host's clock is good enough for time limits.
uint64_t ticksPerMillisecond()
{
    return 2500000;
}

uint32_t pciRead32(uint16_t bdf, unsigned offset)
{
    pciSelect(bdf, offset);
    return in32(pciData);
}

void pciWrite32(uint16_t bdf, unsigned offset, uint32_t value)
{
    pciSelect(bdf, offset);
    out32(pciData, value);
}

void fwCfgSelect(uint16_t key)
{
    out16(fwCfg, key);
}

uint8_t fwCfgByte()
{
    return in8(fwCfg + 1);
}

void powerOff(bool passed)
{
    out8(debugExit, passed ? 0x10 : 0x11);
    // Without that device: a fault that nobody handles resets the machine.
    const struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) none = {0, 0};
    asm volatile("lidt %0; int3" : : "m"(none));
    for (;;) {
    }
}

} // namespace bare
