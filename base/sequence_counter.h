// SPDX-License-Identifier: GPL-2.0-or-later
//
// A sequence counter, as in Linux' seqcount: how readers without a lock find out whether
// what they read was changed meanwhile.
//
// The one writer makes the counter odd before it changes the data, and even again
// afterwards: each change leaves another value.  A reader notes the value, reads the data,
// and compares.  If the value is the same, all that it read was there together; if not, it
// reads again.  The data are atomic, so what is read during a change is a wrong value at
// worst, never undefined.
//
// Memory order: readers load the data with acquire, so the comparison cannot come before
// them.  The writer stores the data with release, so they cannot come before the odd value.
#pragma once

#include "atomic.h"

#include <chrono>
#include <cstdint>
#include <thread>

namespace viommu
{

class SequenceCounter
{
public:
    explicit constexpr SequenceCounter(uint64_t first = 0) : value_(first) {}

    // For readers.

    // The value to compare later; waits while a change is under way.
    uint64_t note() const
    {
        const uint64_t seen = peek();
        return (seen & 1) == 0 ? seen : wait_until_even();
    }

    // The value of now, perhaps odd.  What is read after it is of this value or later.
    uint64_t peek() const { return value_.load(std::memory_order_acquire); }

    // Whether all that was read since `noted` was there together.
    bool unchanged(uint64_t noted) const { return value_.load(std::memory_order_relaxed) == noted; }

    // For the writer.  Readers wait in between: no callback, no allocation.

    void begin_change()
    {
        value_.store(value_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    void end_change()
    {
        value_.store(value_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }

private:
    // Changes take microseconds, but the thread that makes one may wait for the processor
    // that this one is on: so spinning ends.
    [[gnu::noinline]] uint64_t wait_until_even() const
    {
        constexpr unsigned kSpins = 1000;
        for (unsigned spins = 0;; spins++) {
            if (const uint64_t seen = peek(); (seen & 1) == 0) {
                return seen;
            }
            if (spins >= kSpins) {
                std::this_thread::sleep_for(std::chrono::microseconds(20));
                continue;
            }
            spin_pause();
        }
    }

    Atomic<uint64_t> value_;
};

} // namespace viommu
