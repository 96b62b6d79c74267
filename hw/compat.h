/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What differs between the QEMU versions that the device is built for, and the
 * only file that asks which one it is; and between the module, for a QEMU with
 * our patches, and the plugin, for one without.
 */
#ifndef VIOMMU_COMPAT_H
#define VIOMMU_COMPAT_H

#include "hw/virtio/virtio.h"

/*
 * How its types are called: an unmodified QEMU has a virtio-iommu of its own.  And
 * whether it works on virtio-mmio, where only machines that take no VIOT from it would
 * gain anything.
 */
#ifdef VIOMMU_PLUGIN
#define VIOMMU_TYPE(rest) "viommu-" rest
#define VIOMMU_ON_MMIO false
#else
#define VIOMMU_TYPE(rest) "virtio-iommu-" rest
#define VIOMMU_ON_MMIO true
#endif

/* The series that this is compiled for; its releases keep their structures. */
#define VIOMMU_QEMU_MAJOR QEMU_VERSION_MAJOR
#define VIOMMU_QEMU_MINOR QEMU_VERSION_MINOR

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
