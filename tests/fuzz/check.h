// SPDX-License-Identifier: GPL-2.0-or-later
//
// A broken promise ends the program, in every build: that is what a fuzzer and
// the replay of its corpus look for.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);           \
            std::abort();                                                                          \
        }                                                                                          \
    } while (false)

// Both sides are shown; for numbers.
#define FUZZ_CHECK_EQ(left, right)                                                                 \
    do {                                                                                           \
        const auto left_value = static_cast<uint64_t>(left);                                       \
        const auto right_value = static_cast<uint64_t>(right);                                     \
        if (left_value != right_value) {                                                           \
            std::fprintf(stderr, "%s:%d: not so: %s == %s (%#llx, %#llx)\n", __FILE__, __LINE__,   \
                         #left, #right, static_cast<unsigned long long>(left_value),               \
                         static_cast<unsigned long long>(right_value));                            \
            std::abort();                                                                          \
        }                                                                                          \
    } while (false)
