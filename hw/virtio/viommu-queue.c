/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The request and the event queue: bytes between guest memory and the engine.
 * Both are served under the big lock, by the thread that kicks or by the main
 * loop; threads that do DMA leave fault records to the latter (W21).
 */
#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "hw/virtio/virtio.h"

#include "hw/platform/viommu-platform.h"
#include "hw/virtio/viommu-device.h"
#include "trace-viommu.h"

/* Requests that are popped, applied and published together. */
#define BATCH 64

/* After so many the main loop gets its turn before the rest is served. */
#define BATCHES_PER_RUN 4

/*
 * GEN-1: nothing is taken from a queue before DRIVER_OK.  Nor while the machine
 * is stopped, as its memory may be under way to another host.
 */
static bool queues_usable(VirtIODevice *vdev)
{
    return (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK) && !vdev->broken &&
           vdev->vm_running;
}

static unsigned serve_batch(VirtIOIOMMU *s, VirtQueue *vq)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    VirtQueueElement *elems[BATCH];
    ViommuRequest requests[BATCH];
    uint8_t in[BATCH][VIOMMU_REQUEST_MAX];
    unsigned n;

    /* Asking first is cheap; to pop nothing costs as much as a request. */
    for (n = 0; n < BATCH && !virtio_queue_empty(vq); n++) {
        VirtQueueElement *elem = virtqueue_pop(vq, sizeof(*elem));

        if (!elem) {
            break;
        }
        elems[n] = elem;
        requests[n] = (ViommuRequest) {
            .in = in[n],
            .in_size = iov_to_buf(elem->out_sg, elem->out_num, 0, in[n],
                                  VIOMMU_REQUEST_MAX),
            .out = s->replies + n * s->reply_max,
            .writable = iov_size(elem->in_sg, elem->in_num),
        };
    }
    if (!n) {
        return 0;
    }

    viommu_platform_settle();
    viommu_engine_handle(s->engine, requests, n);

    for (unsigned i = 0; i < n; i++) {
        size_t used = iov_from_buf(elems[i]->in_sg, elems[i]->in_num, 0,
                                   requests[i].out, requests[i].used);

        virtqueue_fill(vq, elems[i], used, i);
        g_free(elems[i]);
    }
    virtqueue_flush(vq, n);
    virtio_notify(vdev, vq);
    trace_viommu_requests(n);
    return n;
}

static void serve_requests(VirtIOIOMMU *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    for (int i = 0; i < BATCHES_PER_RUN; i++) {
        if (!queues_usable(vdev) || serve_batch(s, s->req_vq) < BATCH) {
            return;
        }
    }
    qemu_bh_schedule(s->request_bh);
}

static void serve_events(VirtIOIOMMU *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    unsigned n = 0;

    /* A buffer that is taken is used: what is put back would have to be counted
     * in descriptors where the ring is packed. */
    while (queues_usable(vdev) && viommu_engine_fault_ready(s->engine)) {
        uint8_t record[VIOMMU_FAULT_RECORD_SIZE];
        VirtQueueElement *elem = virtqueue_pop(s->event_vq, sizeof(*elem));

        if (!elem) {
            /* FLT-D2: the record waits for the driver's next buffer. */
            break;
        }
        if (iov_size(elem->in_sg, elem->in_num) < sizeof(record)) {
            /* FLT-5: a record is never spread over buffers. */
            virtqueue_push(s->event_vq, elem, 0);
        } else {
            viommu_engine_pop_fault(s->engine, record);
            iov_from_buf(elem->in_sg, elem->in_num, 0, record, sizeof(record));
            virtqueue_push(s->event_vq, elem, sizeof(record));
        }
        g_free(elem);
        /* Bounded by the ring, but the driver may refill it meanwhile. */
        if (++n == VIOMMU_QUEUE_SIZE) {
            qemu_bh_schedule(s->event_bh);
            break;
        }
    }
    if (n) {
        virtio_notify(vdev, s->event_vq);
        trace_viommu_events(n);
    }
}

static void handle_requests(VirtIODevice *vdev, VirtQueue *vq)
{
    serve_requests(VIRTIO_IOMMU(vdev));
}

static void handle_events(VirtIODevice *vdev, VirtQueue *vq)
{
    serve_events(VIRTIO_IOMMU(vdev));
}

static void request_bh(void *opaque)
{
    serve_requests(opaque);
}

static void event_bh(void *opaque)
{
    serve_events(opaque);
}

void viommu_queue_kick(VirtIOIOMMU *s)
{
    qemu_bh_schedule(s->event_bh);
}

void viommu_queue_resume(VirtIOIOMMU *s)
{
    qemu_bh_schedule(s->request_bh);
    qemu_bh_schedule(s->event_bh);
}

void viommu_queue_init(VirtIOIOMMU *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    s->req_vq = virtio_add_queue(vdev, VIOMMU_QUEUE_SIZE, handle_requests);
    s->event_vq = virtio_add_queue(vdev, VIOMMU_QUEUE_SIZE, handle_events);
    s->request_bh = virtio_bh_new_guarded(DEVICE(s), request_bh, s);
    s->event_bh = virtio_bh_new_guarded(DEVICE(s), event_bh, s);
    s->reply_max = viommu_engine_reply_max(s->engine);
    s->replies = g_malloc(s->reply_max * BATCH);
}

void viommu_queue_cleanup(VirtIOIOMMU *s)
{
    virtio_delete_queue(s->req_vq);
    virtio_delete_queue(s->event_vq);
    g_clear_pointer(&s->request_bh, qemu_bh_delete);
    g_clear_pointer(&s->event_bh, qemu_bh_delete);
    g_clear_pointer(&s->replies, g_free);
}

void viommu_queue_cancel(VirtIOIOMMU *s)
{
    qemu_bh_cancel(s->request_bh);
    qemu_bh_cancel(s->event_bh);
}
