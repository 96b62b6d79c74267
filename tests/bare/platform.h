// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the bare guest needs of the machine it runs on.  There is one thread, no
// interrupt and no address translation by the CPU.
#ifndef BARE_PLATFORM_H
#define BARE_PLATFORM_H

#include <stddef.h>
#include <stdint.h>

namespace bare
{

// Physical addresses; the first 4 GiB at least are visible one to one.
using Addr = uint64_t;

template <typename T> T load(Addr addr)
{
    return *reinterpret_cast<volatile T *>(static_cast<uintptr_t>(addr));
}

template <typename T> void store(Addr addr, T value)
{
    *reinterpret_cast<volatile T *>(static_cast<uintptr_t>(addr)) = value;
}

// Orders what was written to memory before what a device is told next.
inline void barrier()
{
    __sync_synchronize();
}

// Virtio-mmio transports: where they are is part of the machine's definition.
struct Transports {
    Addr base;
    Addr stride;
    unsigned count; // at most
};
extern const Transports transports;

// Where BARs of PCI functions can be placed: 16 MiB from here on are free.
extern const Addr pciWindow;

void consolePut(char c);
void idle();
uint64_t ticks();
uint64_t ticksPerMillisecond();

// All ones if the machine has no PCI.
uint32_t pciRead32(uint16_t bdf, unsigned offset);
void pciWrite32(uint16_t bdf, unsigned offset, uint32_t value);

// QEMU's firmware configuration device, only for the guest's own options.
void fwCfgSelect(uint16_t key);
uint8_t fwCfgByte();

[[noreturn]] void powerOff(bool passed);

} // namespace bare

// Entered with a stack and zeroed memory.
extern "C" [[noreturn]] void bareMain();

#endif
