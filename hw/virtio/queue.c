/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The request and the event queue: bytes between guest memory and the engine.
 * Both are served under the big lock, by the thread that kicks or by the main
 * loop; threads that do DMA leave fault records to the latter (W21).
 */
#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/log.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "hw/virtio/virtio.h"

#include "hw/machine/functions.h"
#include "hw/virtio/device.h"
#include "trace-viommu.h"

/* Requests that are published together. */
#define BATCH 64

/*
 * W24: after so many, or after so long, the main loop gets its turn before the
 * rest is served.  The time is looked at after each request that others than the
 * engine have to do with, as the memory topology is the machine's and back ends
 * may be slow to listen, and now and then: a machine may have many buses to
 * look for an endpoint on.
 */
#define BATCHES_PER_RUN 4
#define EVENTS_PER_RUN 256
#define NS_PER_RUN (2 * SCALE_MS)
#define BETWEEN_LOOKS 16

/*
 * Each leaves views of memory behind, which QEMU frees after an RCU grace period; a
 * guest that never lets the queue run empty would have them pile up for as long as
 * that takes.  So after so many it is waited for.
 */
#define SWITCHES_PER_GRACE_PERIOD 100

typedef struct Run {
    VirtIOIOMMU *s;
    int64_t deadline;
    bool over;
} Run;

static int64_t new_deadline(void)
{
    return get_clock() + NS_PER_RUN;
}

static bool time_is_up(int64_t deadline)
{
    return get_clock() >= deadline;
}

/*
 * GEN-1: nothing is taken from a queue before DRIVER_OK.  Nor while the machine
 * is stopped, as its memory may be under way to another host.
 */
static bool queues_usable(VirtIOIOMMU *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    return s->req_vq && (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK) &&
           !vdev->broken && vdev->vm_running;
}

static void grace_is_over(struct rcu_head *head)
{
    VirtIOIOMMU *s = container_of(head, VirtIOIOMMU, grace);

    s->in_grace = false;
    s->unit.switches = 0;
    if (s->request_bh) {
        qemu_bh_schedule(s->request_bh);
    }
    object_unref(OBJECT(s));
}

/* True if requests have to wait; then they are seen to later. */
static bool wait_for_grace(VirtIOIOMMU *s)
{
    if (!s->in_grace && s->unit.switches >= SWITCHES_PER_GRACE_PERIOD) {
        s->in_grace = true;
        trace_viommu_grace(s->unit.switches);
        object_ref(OBJECT(s));
        call_rcu1(&s->grace, grace_is_over);
    }
    return s->in_grace;
}

static void serve_one(Run *run, VirtQueueElement *elem, unsigned index)
{
    VirtIOIOMMU *s = run->s;
    uint8_t in[VIOMMU_REQUEST_MAX];
    ViommuRequest request = {
        .in = in,
        .in_size = iov_to_buf(elem->out_sg, elem->out_num, 0, in, sizeof(in)),
        .out = s->reply,
        .writable = iov_size(elem->in_sg, elem->in_num),
    };
    size_t used;

    if (viommu_engine_handle(s->unit.engine, &request) ||
        index % BETWEEN_LOOKS == BETWEEN_LOOKS - 1) {
        run->over = time_is_up(run->deadline) || wait_for_grace(s);
    }
    viommu_observe_request(&request);
    used = iov_from_buf(elem->in_sg, elem->in_num, 0, request.out, request.used);
    WITH_RCU_READ_LOCK_GUARD() {
        virtqueue_fill(s->req_vq, elem, used, index);
    }
}

static unsigned serve_batch(Run *run)
{
    VirtQueue *vq = run->s->req_vq;
    unsigned n;

    /* Asking first is cheap; to pop nothing costs as much as a request. */
    for (n = 0; n < BATCH && !run->over && !virtio_queue_empty(vq); n++) {
        g_autofree VirtQueueElement *elem = virtqueue_pop(vq, sizeof(*elem));

        if (!elem) {
            break;
        }
        if (n == 0) {
            viommu_functions_settle();
        }
        serve_one(run, elem, n);
    }
    if (n) {
        WITH_RCU_READ_LOCK_GUARD() {
            virtqueue_flush(vq, n);
        }
        virtio_notify(VIRTIO_DEVICE(run->s), vq);
        trace_viommu_requests(n);
    }
    return n;
}

static void serve_requests(VirtIOIOMMU *s)
{
    Run run = { .s = s, .deadline = new_deadline() };

    viommu_assert_big_lock();
    for (int i = 0; i < BATCHES_PER_RUN && !run.over; i++) {
        if (!queues_usable(s) || wait_for_grace(s)) {
            return;
        }
        if (serve_batch(&run) < BATCH && !run.over) {
            return;
        }
    }
    if (!s->in_grace) {
        qemu_bh_schedule(s->request_bh);
    }
}

static void serve_events(VirtIOIOMMU *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    int64_t deadline = new_deadline();
    unsigned n = 0;

    viommu_assert_big_lock();
    /* A buffer that is taken is used: what is put back would have to be counted
     * in descriptors where the ring is packed. */
    while (queues_usable(s) && viommu_engine_fault_ready(s->unit.engine)) {
        uint8_t record[VIOMMU_FAULT_RECORD_SIZE];
        VirtQueueElement *elem = virtqueue_pop(s->event_vq, sizeof(*elem));

        if (!elem) {
            /* FLT-D2: the record waits for the driver's next buffer. */
            break;
        }
        if (iov_size(elem->in_sg, elem->in_num) < sizeof(record)) {
            /* FLT-5: a record is never spread over buffers. */
            qemu_log_mask(LOG_GUEST_ERROR, "virtio-iommu: an event buffer of %zu bytes "
                          "has no room for a fault record\n",
                          iov_size(elem->in_sg, elem->in_num));
            virtqueue_push(s->event_vq, elem, 0);
        } else {
            viommu_engine_pop_fault(s->unit.engine, record);
            iov_from_buf(elem->in_sg, elem->in_num, 0, record, sizeof(record));
            virtqueue_push(s->event_vq, elem, sizeof(record));
            viommu_observe_fault(record);
        }
        g_free(elem);
        /* The driver may give buffers back meanwhile. */
        if (++n == EVENTS_PER_RUN ||
            (n % BETWEEN_LOOKS == 0 && time_is_up(deadline))) {
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
    s->reply = g_malloc(viommu_engine_reply_max(s->unit.engine));
}

void viommu_queue_cleanup(VirtIOIOMMU *s)
{
    virtio_delete_queue(s->req_vq);
    virtio_delete_queue(s->event_vq);
    s->req_vq = s->event_vq = NULL;
}

/*
 * Until now threads that do DMA may have had a fault to tell of, and buses reset
 * what was unrealized and is still on them.
 */
void viommu_queue_finalize(VirtIOIOMMU *s)
{
    g_clear_pointer(&s->request_bh, qemu_bh_delete);
    g_clear_pointer(&s->event_bh, qemu_bh_delete);
    g_clear_pointer(&s->reply, g_free);
}

void viommu_queue_cancel(VirtIOIOMMU *s)
{
    qemu_bh_cancel(s->request_bh);
    qemu_bh_cancel(s->event_bh);
}
