// SPDX-License-Identifier: GPL-2.0-or-later
//
// Clang's thread-safety attributes; nothing for other compilers.
#pragma once

#if defined(__clang__)
#define VIOMMU_TSA(attribute) __attribute__((attribute))
#else
#define VIOMMU_TSA(attribute)
#endif

#define VIOMMU_CAPABILITY(name) VIOMMU_TSA(capability(name))
#define VIOMMU_SCOPED_CAPABILITY VIOMMU_TSA(scoped_lockable)
#define VIOMMU_GUARDED_BY(lock) VIOMMU_TSA(guarded_by(lock))
#define VIOMMU_REQUIRES(...) VIOMMU_TSA(requires_capability(__VA_ARGS__))
#define VIOMMU_REQUIRES_SHARED(...) VIOMMU_TSA(requires_shared_capability(__VA_ARGS__))
#define VIOMMU_EXCLUDES(...) VIOMMU_TSA(locks_excluded(__VA_ARGS__))
#define VIOMMU_ACQUIRE(...) VIOMMU_TSA(acquire_capability(__VA_ARGS__))
#define VIOMMU_ACQUIRE_SHARED(...) VIOMMU_TSA(acquire_shared_capability(__VA_ARGS__))
#define VIOMMU_RELEASE(...) VIOMMU_TSA(release_capability(__VA_ARGS__))
#define VIOMMU_ASSERT_CAPABILITY(lock) VIOMMU_TSA(assert_capability(lock))
#define VIOMMU_NO_THREAD_SAFETY_ANALYSIS VIOMMU_TSA(no_thread_safety_analysis)
