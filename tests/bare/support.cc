// SPDX-License-Identifier: GPL-2.0-or-later
#include "support.h"

// Compilers call these even in freestanding programs.
extern "C" void *memset(void *to, int value, size_t size)
{
    unsigned char *bytes = static_cast<unsigned char *>(to);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = static_cast<unsigned char>(value);
    }
    return to;
}

extern "C" void *memcpy(void *to, const void *from, size_t size)
{
    unsigned char *out = static_cast<unsigned char *>(to);
    const unsigned char *in = static_cast<const unsigned char *>(from);
    for (size_t i = 0; i < size; i++) {
        out[i] = in[i];
    }
    return to;
}

namespace bare
{

namespace
{

constexpr unsigned poolPages = 1024;
alignas(pageSize) unsigned char pool[poolPages * pageSize];
unsigned pagesUsed;

unsigned checks;
unsigned failures;

constexpr uint16_t fwCfgDirectory = 0x19;
constexpr const char *optionFile = "opt/viommu/bare";
char options[256];
bool optionsRead;

uint32_t fwCfgBigEndian(unsigned bytes)
{
    uint32_t value = 0;
    while (bytes--) {
        value = value << 8 | fwCfgByte();
    }
    return value;
}

void readOptions()
{
    optionsRead = true;
    fwCfgSelect(fwCfgDirectory);
    for (uint32_t files = fwCfgBigEndian(4); files; files--) {
        const uint32_t size = fwCfgBigEndian(4);
        const uint16_t key = static_cast<uint16_t>(fwCfgBigEndian(2));
        fwCfgBigEndian(2);
        char name[56];
        for (char &c : name) {
            c = static_cast<char>(fwCfgByte());
        }
        if (!same(name, optionFile)) {
            continue;
        }
        fwCfgSelect(key);
        for (uint32_t i = 0; i < size && i < sizeof(options) - 1; i++) {
            options[i] = static_cast<char>(fwCfgByte());
        }
        // Each option becomes a string of its own.
        for (char &c : options) {
            c = c == ':' ? '\0' : c;
        }
        return;
    }
}

} // namespace

Addr allocPages(unsigned count)
{
    if (pagesUsed + count > poolPages) {
        fail("out of memory");
    }
    const Addr addr = reinterpret_cast<uintptr_t>(pool) + pagesUsed * pageSize;
    pagesUsed += count;
    return addr;
}

void print(const char *text)
{
    for (; *text; text++) {
        if (*text == '\n') {
            consolePut('\r');
        }
        consolePut(*text);
    }
}

void print(uint64_t value)
{
    print("0x");
    int shift = 60;
    while (shift > 0 && !(value >> shift)) {
        shift -= 4;
    }
    for (; shift >= 0; shift -= 4) {
        consolePut("0123456789abcdef"[value >> shift & 15]);
    }
}

void printDecimal(uint64_t value)
{
    // No 64-bit division without a run-time library on 32-bit machines.
    uint32_t rest = static_cast<uint32_t>(value);
    char digits[11] = {};
    unsigned n = sizeof(digits) - 1;
    do {
        digits[--n] = static_cast<char>('0' + rest % 10);
        rest /= 10;
    } while (rest);
    print(digits + n);
}

bool same(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

void clear(Addr page)
{
    for (unsigned i = 0; i < pageSize; i += 4) {
        store<uint32_t>(page + i, 0xc3c3c3c3);
    }
}

bool untouched(Addr page)
{
    for (unsigned i = 0; i < pageSize; i += 4) {
        if (load<uint32_t>(page + i) != 0xc3c3c3c3) {
            return false;
        }
    }
    return true;
}

uint32_t crc32(uint32_t crc, Addr data, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= load<uint8_t>(data + i);
        for (unsigned bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
    }
    return ~crc;
}

bool check(bool passed, const char *subject, const char *what)
{
    checks++;
    failures += !passed;
    printAll("check ", passed ? "ok   " : "FAIL ", subject, " ", what, "\n");
    return passed;
}

bool allPassed()
{
    return checks && !failures;
}

unsigned checksMade()
{
    return checks;
}

void fail(const char *why)
{
    printAll("failed: ", why, "\n");
    powerOff(false);
}

const char *option(const char *key, const char *fallback)
{
    if (!optionsRead) {
        readOptions();
    }
    for (const char *p = options; *p;) {
        const char *k = key;
        while (*k && *p == *k) {
            p++;
            k++;
        }
        if (!*k && *p == '=') {
            return p + 1;
        }
        while (*p) {
            p++;
        }
        p++;
    }
    return fallback;
}

uint32_t numberOption(const char *key, uint32_t fallback)
{
    const char *text = option(key, "");
    uint32_t value = 0;

    if (!*text) {
        return fallback;
    }
    for (; *text >= '0' && *text <= '9'; text++) {
        value = value * 10 + static_cast<uint32_t>(*text - '0');
    }
    if (*text) {
        fail("an option is no number");
    }
    return value;
}

} // namespace bare
