/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Migration.  Section names, versions and bytes are those of QEMU's own
 * virtio-iommu; the engine writes and checks what is between them.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "hw/virtio/virtio.h"
#include "migration/qemu-file-types.h"
#include "migration/vmstate.h"

#include "hw/machine/functions.h"
#include "hw/virtio/device.h"
#include "trace-viommu.h"

static bool put_bytes(void *ctx, const uint8_t *bytes, size_t size)
{
    qemu_put_buffer(ctx, bytes, size);
    return !qemu_file_get_error(ctx);
}

static bool get_bytes(void *ctx, uint8_t *bytes, size_t size)
{
    return qemu_get_buffer(ctx, bytes, size) == size &&
           !qemu_file_get_error(ctx);
}

static int put_state(QEMUFile *f, void *pv, size_t size,
                     const VMStateField *field, JSONWriter *vmdesc)
{
    VirtIOIOMMU *s = pv;
    bool done;

    /* What was switched off unnoticed has no ID to save any more. */
    viommu_functions_settle();
    done = viommu_engine_save(s->unit.engine, put_bytes, f);
    trace_viommu_save(done);
    if (!done) {
        error_report("virtio-iommu: the state cannot be saved: the stream "
                     "takes no more, or an attached endpoint has no ID now");
        return -EIO;
    }
    return 0;
}

static int get_state(QEMUFile *f, void *pv, size_t size,
                     const VMStateField *field)
{
    VirtIOIOMMU *s = pv;
    char sentence[256];

    if (!viommu_engine_load(s->unit.engine, get_bytes, f, sentence,
                            sizeof(sentence))) {
        trace_viommu_load(sentence);
        error_report("virtio-iommu: the incoming state is not valid: %s",
                     sentence);
        return -EINVAL;
    }
    return 0;
}

static int viommu_post_load(void *opaque, int version_id)
{
    VirtIOIOMMU *s = opaque;
    bool driven = VIRTIO_DEVICE(s)->status &
                  (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
    char sentence[256];

    /* From now on a function that is switched off is noticed. */
    viommu_functions_settle();
    if (!viommu_engine_load_commit(s->unit.engine, driven, sentence,
                                   sizeof(sentence))) {
        trace_viommu_load(sentence);
        error_report("virtio-iommu: the incoming state does not fit this "
                     "machine: %s", sentence);
        return -EINVAL;
    }
    trace_viommu_load("done");
    viommu_refresh_config_copy(s);
    return 0;
}

static const VMStateInfo vmstate_info_state = {
    .name = "virtio-iommu-state",
    .get = get_state,
    .put = put_state,
};

const VMStateDescription vmstate_viommu_device = {
    .name = "virtio-iommu-device",
    .version_id = 2,
    .minimum_version_id = 2,
    .post_load = viommu_post_load,
    .fields = (const VMStateField[]) {
        {
            .name = "state",
            .version_id = 2,
            .info = &vmstate_info_state,
            .flags = VMS_SINGLE,
        },
        VMSTATE_END_OF_LIST()
    },
};

const VMStateDescription vmstate_viommu = {
    .name = "virtio-iommu",
    .version_id = 2,
    .minimum_version_id = 2,
    .priority = MIG_PRI_IOMMU,
    .fields = (const VMStateField[]) {
        VMSTATE_VIRTIO_DEVICE,
        VMSTATE_END_OF_LIST()
    },
};
