// SPDX-License-Identifier: GPL-2.0-or-later
//
// Atomics: those of the standard library.  tests/interleave puts its own in their place,
// which try all that the memory model allows.
#pragma once

#ifdef VIOMMU_MODEL
#include VIOMMU_MODEL
#else

#include <atomic>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace viommu
{

template <typename T> using Atomic = std::atomic<T>;

// In a loop that waits for another thread.
inline void spin_pause()
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

} // namespace viommu

#endif
