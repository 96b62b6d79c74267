// SPDX-License-Identifier: GPL-2.0-or-later
// microvm and q35, in 32-bit protected mode.
#include "support.h"

// In x86-start.S.
extern "C" const uint8_t processorStart[], processorStack[], processorEntry[], processorEnd[];

namespace bare
{

namespace
{

constexpr uint16_t serial = 0x3f8;
constexpr uint16_t debugExit = 0x501; // QEMU's status is twice the value, plus 1
constexpr uint16_t pciAddress = 0xcf8;
constexpr uint16_t pciData = 0xcfc;
constexpr uint16_t fwCfg = 0x510;
constexpr uint16_t pciHotplug = 0xcc0;

void out8(uint16_t port, uint8_t value)
{
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

constexpr uint16_t firstPicMask = 0x21;
constexpr uint16_t secondPicMask = 0xa1;

constexpr Addr startPage = 0x8000; // as x86-start.S says

constexpr Addr ioApic = 0xfec00000;
constexpr Addr ioApicData = ioApic + 0x10;
constexpr uint32_t ioApicRedirection = 0x10;
constexpr uint32_t ioApicLevel = 1u << 15;
constexpr unsigned firstPciPin = 16;
constexpr unsigned pciPins = 8;
constexpr uint8_t pinVector = 0x60;

constexpr Addr localApic = 0xfee00000;
constexpr Addr localApicEnd = localApic + 0xb0;
constexpr Addr localApicSpurious = localApic + 0xf0;
constexpr Addr localApicCommand = localApic + 0x300;
constexpr Addr localApicCommandTo = localApic + 0x310;
constexpr uint32_t commandInit = 0x4500;
constexpr uint32_t commandStart = 0x4600;
constexpr uint32_t localApicOn = 0x100;
constexpr uint8_t spuriousVector = 0xff;

volatile uint32_t messageCounts[vectorCount];
volatile uint32_t pinCount;
Addr pinStatusAddr;

struct Gate {
    uint16_t low;
    uint16_t segment;
    uint16_t kind;
    uint16_t high;
};
alignas(8) Gate gates[256];

struct Frame;

template <uint8_t n> __attribute__((interrupt)) void onMessage(Frame *)
{
    messageCounts[n] = messageCounts[n] + 1;
    store<uint32_t>(localApicEnd, 0);
}

__attribute__((interrupt)) void onPin(Frame *)
{
    pinCount = pinCount + 1;
    (void)load<uint8_t>(pinStatusAddr);
    store<uint32_t>(localApicEnd, 0);
}

__attribute__((interrupt)) void onOther(Frame *)
{
    fail("an interrupt or exception that nobody asked for");
}

__attribute__((interrupt)) void onSpurious(Frame *) {}

void setGate(unsigned vector, void (*handler)(Frame *))
{
    const uintptr_t addr = reinterpret_cast<uintptr_t>(handler);
    gates[vector] = {static_cast<uint16_t>(addr), 8, 0x8e00, static_cast<uint16_t>(addr >> 16)};
}

template <uint8_t n> void setMessageGates()
{
    if constexpr (n < vectorCount) {
        setGate(firstVector + n, onMessage<n>);
        setMessageGates<n + 1>();
    }
}

void ioApicWrite(uint32_t reg, uint32_t value)
{
    store<uint32_t>(ioApic, reg);
    store<uint32_t>(ioApicData, value);
}

void wait(unsigned milliseconds)
{
    const uint64_t begin = ticks();
    while (ticks() - begin < ticksPerMillisecond() * milliseconds) {
        idle();
    }
}

void sendToProcessor(unsigned n, uint32_t command)
{
    store<uint32_t>(localApicCommandTo, n << 24);
    store<uint32_t>(localApicCommand, command);
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

bool consoleGet(char &c)
{
    if (!(in8(serial + 5) & 1)) {
        return false;
    }
    c = static_cast<char>(in8(serial));
    return true;
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

// As q35's ACPI code does it.
void eject(unsigned slot)
{
    out32(pciHotplug + 0x10, 0);
    out32(pciHotplug + 8, 1u << slot);
}

void fwCfgSelect(uint16_t key)
{
    out16(fwCfg, key);
}

uint8_t fwCfgByte()
{
    return in8(fwCfg + 1);
}

unsigned processor()
{
    uint32_t leaf = 1;
    uint32_t ebx;
    asm volatile("cpuid" : "+a"(leaf), "=b"(ebx) : : "ecx", "edx");
    return ebx >> 24; // the number of its local APIC
}

bool startProcessor(unsigned n, Addr stackEnd, void (*entry)())
{
    const auto place = [](const uint8_t *label) {
        return startPage + static_cast<Addr>(label - processorStart);
    };
    for (const uint8_t *p = processorStart; p < processorEnd; p++) {
        store<uint8_t>(place(p), *p);
    }
    store<uint32_t>(place(processorStack), static_cast<uint32_t>(stackEnd));
    store<uint32_t>(place(processorEntry), reinterpret_cast<uintptr_t>(entry));
    store<uint32_t>(localApicSpurious, localApicOn | spuriousVector);
    sendToProcessor(n, commandInit);
    wait(10);
    sendToProcessor(n, commandStart | startPage >> 12);
    return true;
}

bool takeInterrupts(Addr pinStatus)
{
    pinStatusAddr = pinStatus;
    for (unsigned i = 0; i < 256; i++) {
        setGate(i, onOther);
    }
    setMessageGates<0>();
    setGate(spuriousVector, onSpurious);
    for (unsigned i = 0; i < pciPins; i++) {
        setGate(pinVector + i, onPin);
    }
    const struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) table = {sizeof(gates) - 1, reinterpret_cast<uintptr_t>(gates)};
    asm volatile("lidt %0" : : "m"(table));

    out8(firstPicMask, 0xff);
    out8(secondPicMask, 0xff);
    store<uint32_t>(localApicSpurious, localApicOn | spuriousVector);
    for (unsigned i = 0; i < pciPins; i++) {
        const uint32_t reg = ioApicRedirection + 2 * (firstPciPin + i);
        ioApicWrite(reg + 1, 0);
        ioApicWrite(reg, ioApicLevel | (pinVector + i));
    }
    asm volatile("sti" : : : "memory");
    return true;
}

Message messageFor(uint8_t vector)
{
    return {localApic, vector};
}

uint32_t interruptsOf(uint8_t vector)
{
    return messageCounts[vector - firstVector];
}

uint32_t interruptsOfPins()
{
    return pinCount;
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
