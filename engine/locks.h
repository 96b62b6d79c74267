// SPDX-License-Identifier: GPL-2.0-or-later
//
// The three locks of the engine, as capabilities that the compiler checks.
//
//   big lock    the caller's (inside QEMU: the BQL).  Serialises everything but
//               translate().  All callbacks are made with it and nothing else.
//   data lock   one per engine; what translate() reads.  Writers hold the big
//               lock as well, so under the big lock this data may be read
//               without the data lock ("stable" accessors).
//   fault lock  one per engine; the queue of pending faults.  A leaf: no other
//               lock is taken under it.
//
// Order: big, data, fault.  An endpoint and its domain belong to one engine for
// life, so one capability stands for the locks of all engines.
#pragma once

#include "annotations.h"

#include <mutex>
#include <pthread.h>
#include <system_error>

namespace viommu
{

class VIOMMU_CAPABILITY("big lock") BigLock
{
public:
    // The lock is the caller's: its promise can only be noted, not checked.
    void assert_held() const VIOMMU_ASSERT_CAPABILITY(this) {}
};

class VIOMMU_CAPABILITY("data lock") DataCapability
{
};

class VIOMMU_CAPABILITY("fault lock") FaultCapability
{
};

inline constexpr BigLock big_lock{};
inline constexpr DataCapability data_lock{};
inline constexpr FaultCapability fault_lock{};

// A reader-writer lock that lets a waiting writer pass: with the usual
// preference for readers a few threads of DMA could keep a MAP, and the big
// lock with it, waiting for ever.
class DataLock
{
public:
    DataLock()
    {
        pthread_rwlockattr_t attr;
        check(pthread_rwlockattr_init(&attr));
#ifdef __GLIBC__
        pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
        const int result = pthread_rwlock_init(&lock_, &attr);
        pthread_rwlockattr_destroy(&attr);
        check(result);
    }
    ~DataLock()
    {
        pthread_rwlock_destroy(&lock_);
    }
    DataLock(const DataLock &) = delete;
    DataLock &operator=(const DataLock &) = delete;

private:
    friend class DataReader;
    friend class DataWriter;

    static void check(int result)
    {
        if (result != 0) {
            throw std::system_error(result, std::generic_category());
        }
    }

    pthread_rwlock_t lock_;
};

class VIOMMU_SCOPED_CAPABILITY DataReader
{
public:
    explicit DataReader(DataLock &lock)
        VIOMMU_ACQUIRE_SHARED(data_lock) VIOMMU_NO_THREAD_SAFETY_ANALYSIS : lock_(lock.lock_)
    {
        pthread_rwlock_rdlock(&lock_);
    }
    ~DataReader() VIOMMU_RELEASE() VIOMMU_NO_THREAD_SAFETY_ANALYSIS
    {
        pthread_rwlock_unlock(&lock_);
    }
    DataReader(const DataReader &) = delete;
    DataReader &operator=(const DataReader &) = delete;

private:
    pthread_rwlock_t &lock_;
};

class VIOMMU_SCOPED_CAPABILITY DataWriter
{
public:
    explicit DataWriter(DataLock &lock) VIOMMU_ACQUIRE(data_lock) VIOMMU_NO_THREAD_SAFETY_ANALYSIS
        : lock_(lock.lock_)
    {
        pthread_rwlock_wrlock(&lock_);
    }
    ~DataWriter() VIOMMU_RELEASE() VIOMMU_NO_THREAD_SAFETY_ANALYSIS
    {
        pthread_rwlock_unlock(&lock_);
    }
    DataWriter(const DataWriter &) = delete;
    DataWriter &operator=(const DataWriter &) = delete;

private:
    pthread_rwlock_t &lock_;
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
