// SPDX-License-Identifier: GPL-2.0-or-later
//
// A mutex that Clang's thread-safety analysis knows: what is VIOMMU_GUARDED_BY(lock_) is
// touched only where a MutexLock of lock_ exists, or where a function says that it
// VIOMMU_REQUIRES(lock_).  The test lint-threads looks.
#pragma once

#include "annotations.h"

#include <mutex>

namespace viommu
{

class VIOMMU_CAPABILITY("mutex") Mutex
{
public:
    constexpr Mutex() = default;
    Mutex(const Mutex &) = delete;
    Mutex &operator=(const Mutex &) = delete;

    void lock() VIOMMU_ACQUIRE() { mutex_.lock(); }
    void unlock() VIOMMU_RELEASE() { mutex_.unlock(); }

private:
    std::mutex mutex_;
};

// Holds a mutex as long as it exists.
class VIOMMU_SCOPED_CAPABILITY MutexLock
{
public:
    explicit MutexLock(Mutex &mutex) VIOMMU_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
    ~MutexLock() VIOMMU_RELEASE() { mutex_.unlock(); }
    MutexLock(const MutexLock &) = delete;
    MutexLock &operator=(const MutexLock &) = delete;

private:
    Mutex &mutex_;
};

} // namespace viommu
