// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the bare guest needs of the machine it runs on.  There is no address
// translation by the CPU; processors and interrupts are there for who starts them.
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
// False if none has come.
bool consoleGet(char &c);
void idle();
uint64_t ticks();
uint64_t ticksPerMillisecond();

// All ones if the machine has no PCI.
uint32_t pciRead32(uint16_t bdf, unsigned offset);
void pciWrite32(uint16_t bdf, unsigned offset, uint32_t value);

// Lets QEMU take a function away that it wants to unplug, behind the first bridge.
void eject(unsigned slot);

// QEMU's firmware configuration device, only for the guest's own options.
void fwCfgSelect(uint16_t key);
uint8_t fwCfgByte();

[[noreturn]] void powerOff(bool passed);

// The number of the processor that runs this; the first one is 0.
unsigned processor();
// Lets processor `n` run `entry`, which must not return, on a stack of 16 KiB that
// ends at `stackEnd`; false if it does not come up.
bool startProcessor(unsigned n, Addr stackEnd, void (*entry)());

class SpinLock
{
public:
    void lock()
    {
        while (__sync_lock_test_and_set(&taken_, 1)) {
            idle();
        }
    }
    void unlock() { __sync_lock_release(&taken_); }

private:
    volatile uint32_t taken_ = 0;
};

class Locked
{
public:
    explicit Locked(SpinLock &lock) : lock_(lock) { lock_.lock(); }
    ~Locked() { lock_.unlock(); }
    Locked(const Locked &) = delete;
    Locked &operator=(const Locked &) = delete;

private:
    SpinLock &lock_;
};

// What a function writes, and where, to interrupt a processor.
struct Message {
    uint64_t address;
    uint32_t data;
};

// Vectors for messages: this many, from the first one on.
constexpr uint8_t firstVector = 0x40;
constexpr unsigned vectorCount = 16;

// From now on the first processor takes interrupts: messages, and those of the pins of
// PCI functions, whose handler reads `pinStatus` so that the function lets go of its
// pin.  False where this program does not drive the interrupt controller.
bool takeInterrupts(Addr pinStatus);
Message messageFor(uint8_t vector);
uint32_t interruptsOf(uint8_t vector);
uint32_t interruptsOfPins();

} // namespace bare

// Entered with a stack and zeroed memory.
extern "C" [[noreturn]] void bareMain();

#endif
