// SPDX-License-Identifier: GPL-2.0-or-later
//
// The locks of the engine, as capabilities that the compiler checks, and what
// readers have in place of one.
//
//   big lock    the caller's (inside QEMU: the BQL).  Serialises everything but
//               translate().  All callbacks are made with it and nothing else.
//   fault lock  one per engine; the queue of pending faults.  A leaf: no other
//               lock is taken under it.
//   pool lock   one per process; free nodes (node_pool.h).  A leaf.
//
// translate() takes none of them before it refuses an access.  Who routes through
// what, meaning the domain of every endpoint and the bypass bit, carries one
// version per engine: it is odd during a change, and a reader that finds another
// one after its look-up than before looks again.  An endpoint and its domain
// belong to one engine for life, so one capability stands for the locks of all.
#pragma once

#include "annotations.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace viommu
{

class VIOMMU_CAPABILITY("big lock") BigLock
{
public:
    // The lock is the caller's: its promise can only be noted, not checked.
    void assert_held() const VIOMMU_ASSERT_CAPABILITY(this) {}
};

class VIOMMU_CAPABILITY("routes") RouteCapability
{
};

class VIOMMU_CAPABILITY("fault lock") FaultCapability
{
};

inline constexpr BigLock big_lock{};
inline constexpr RouteCapability routes{};
inline constexpr FaultCapability fault_lock{};

// The version, once no change is under way.  Changes take microseconds, but the thread
// that makes one may wait for the processor that this one is on: so spinning ends.
[[gnu::noinline]] inline uint64_t wait_until_even(const std::atomic<uint64_t> &version)
{
    constexpr unsigned kSpins = 1000;
    for (unsigned spins = 0;; spins++) {
        if (const uint64_t seen = version.load(std::memory_order_acquire); (seen & 1) == 0) {
            return seen;
        }
        if (spins >= kSpins) {
            std::this_thread::sleep_for(std::chrono::microseconds(20));
            continue;
        }
#if defined(__x86_64__)
        _mm_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }
}

class RouteVersion
{
public:
    uint64_t note() const
    {
        const uint64_t seen = peek();
        return (seen & 1) == 0 ? seen : wait_until_even(version_);
    }

    // What is read after it was so at this version, or later.
    uint64_t peek() const { return version_.load(std::memory_order_acquire); }

    // What was read in between was read with acquire, so it came before this.
    bool unchanged(uint64_t noted) const
    {
        return version_.load(std::memory_order_relaxed) == noted;
    }

private:
    friend class RouteChange;

    alignas(64) std::atomic<uint64_t> version_{2}; // 0 is no version
};

// While one exists, readers wait.  Keep it short: no callback, no allocation.
class VIOMMU_SCOPED_CAPABILITY RouteChange
{
public:
    explicit RouteChange(RouteVersion &version)
        VIOMMU_ACQUIRE(routes) VIOMMU_NO_THREAD_SAFETY_ANALYSIS : version_(version.version_)
    {
        // What follows is stored with release, so it stays behind.
        version_.store(version_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    ~RouteChange() VIOMMU_RELEASE() VIOMMU_NO_THREAD_SAFETY_ANALYSIS
    {
        version_.store(version_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }
    RouteChange(const RouteChange &) = delete;
    RouteChange &operator=(const RouteChange &) = delete;

private:
    std::atomic<uint64_t> &version_;
};

class VIOMMU_SCOPED_CAPABILITY FaultGuard
{
public:
    explicit FaultGuard(std::mutex &lock)
        VIOMMU_ACQUIRE(fault_lock) VIOMMU_NO_THREAD_SAFETY_ANALYSIS : lock_(lock)
    {
        lock_.lock();
    }
    ~FaultGuard() VIOMMU_RELEASE() VIOMMU_NO_THREAD_SAFETY_ANALYSIS { lock_.unlock(); }
    FaultGuard(const FaultGuard &) = delete;
    FaultGuard &operator=(const FaultGuard &) = delete;

private:
    std::mutex &lock_;
};

} // namespace viommu
