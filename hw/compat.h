/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What differs between the QEMU versions that the plugin is built for, and the
 * only file that asks which one it is.
 */
#ifndef VIOMMU_COMPAT_H
#define VIOMMU_COMPAT_H

#include "hw/virtio/virtio.h"

#if QEMU_VERSION_MAJOR == 10 && QEMU_VERSION_MINOR == 0

#include "exec/address-spaces.h"
#include "exec/memory.h"

/* What class_init() gets. */
typedef void ViommuClassData;

/* What a virtio device's set_status() returns. */
typedef void ViommuStatusDone;
#define VIOMMU_STATUS_DONE

/* What the device and its back end offer, of the first 64 features. */
static inline uint64_t viommu_offered_features(VirtIODevice *vdev)
{
    return VIRTIO_DEVICE_GET_CLASS(vdev)->get_features(vdev, vdev->host_features,
                                                       NULL);
}

#else

#include "system/address-spaces.h"
#include "system/memory.h"

typedef const void ViommuClassData;

typedef int ViommuStatusDone;
#define VIOMMU_STATUS_DONE 0

static inline uint64_t viommu_offered_features(VirtIODevice *vdev)
{
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_GET_CLASS(vdev);
    uint64_t features[VIRTIO_FEATURES_NU64S];

    if (!vdc->get_features_ex) {
        return vdc->get_features(vdev, vdev->host_features, NULL);
    }
    virtio_features_copy(features, vdev->host_features_ex);
    vdc->get_features_ex(vdev, features, NULL);
    return features[0];
}

#endif

#endif
