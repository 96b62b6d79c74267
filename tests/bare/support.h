// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a freestanding program has to bring itself: text, checksums, memory.
#ifndef BARE_SUPPORT_H
#define BARE_SUPPORT_H

#include "platform.h"

namespace bare
{

constexpr uint64_t pageSize = 4096;

// Zeroed pages that are never given back; the address is physical.
Addr allocPages(unsigned count);

void print(const char *text);
void print(uint64_t value); // hexadecimal, with 0x
void printDecimal(uint64_t value);

inline void printAll() {}
template <typename First, typename... Rest> void printAll(First first, Rest... rest)
{
    print(first);
    printAll(rest...);
}

bool same(const char *a, const char *b);

// Marks a page, and says whether it is still as marked.
void clear(Addr page);
bool untouched(Addr page);

uint32_t crc32(uint32_t crc, Addr data, size_t size);

// One check of a scenario: prints a line of the table and counts.
bool check(bool passed, const char *subject, const char *what);
bool allPassed();
unsigned checksMade();
// What goes wrong in the guest's own machinery ends the run.
[[noreturn]] void fail(const char *why);

// Polls until `condition()` holds; false after `milliseconds`.
template <typename Condition> bool waitFor(unsigned milliseconds, Condition condition)
{
    const uint64_t limit = ticksPerMillisecond() * milliseconds;
    const uint64_t begin = ticks();

    while (!condition()) {
        if (ticks() - begin > limit) {
            return false;
        }
        idle();
    }
    return true;
}

// Options from "-fw_cfg name=opt/viommu/bare,string=scenario=io:layout=v2".
// Returns the value of `key`, or `fallback`.
const char *option(const char *key, const char *fallback);
// The same for a decimal number.
uint32_t numberOption(const char *key, uint32_t fallback);

} // namespace bare

#endif
