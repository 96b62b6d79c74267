/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What differs between the QEMU versions that the plugin is built for, and the
 * only file that asks which one it is.
 */
#ifndef VIOMMU_COMPAT_H
#define VIOMMU_COMPAT_H

#if QEMU_VERSION_MAJOR == 10 && QEMU_VERSION_MINOR == 0

#include "exec/address-spaces.h"
#include "exec/memory.h"

/* What class_init() gets. */
typedef void ViommuClassData;

/* What a virtio device's set_status() returns. */
typedef void ViommuStatusDone;
#define VIOMMU_STATUS_DONE

#else

#include "system/address-spaces.h"
#include "system/memory.h"

typedef const void ViommuClassData;

typedef int ViommuStatusDone;
#define VIOMMU_STATUS_DONE 0

#endif

#endif
