/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A function whose data is moved by another process.  A vhost-user back end
 * asks for a translation when it misses one and keeps the answer until it is
 * told to forget it: an answer that outlives its mapping is a hole.  The back
 * end here is a thread of the test that keeps all it is told.
 */
#define _GNU_SOURCE /* accept4 */
#include "viommu_test.h"

#include <sys/socket.h>
#include <sys/un.h>

#define PORT 0x0038u /* 00:07.0 */
#define SLTCTL 0x18u
#define SLTCTL_POWER_OFF 0x0700u
#define FUNCTION 0x0100u /* 01:00.0 */
#define MACHINE_ARGS                                                                               \
    "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off "                                   \
    "-object memory-backend-memfd,id=mem,size=128M,share=on -machine memory-backend=mem "          \
    "-device pcie-root-port,id=rp,chassis=1,addr=7.0 -chardev socket,id=vu,path=%s,abstract=on "   \
    "%s%s "
#define FS "-device vhost-user-fs-pci,bus=rp,addr=0.0,chardev=vu,tag=x,iommu_platform=on"
#define NET                                                                                        \
    "-netdev vhost-user,id=net,chardev=vu "                                                        \
    "-device virtio-net-pci,bus=rp,addr=0.0,netdev=net,romfile=,iommu_platform=on,"                \
    "disable-legacy=on"

#define IOVA 0x40000000ull

/* ------------------------------------------------------------------ */
/* The back end                                                        */

enum {
    VU_GET_FEATURES = 1,
    VU_SET_FEATURES = 2,
    VU_SET_MEM_TABLE = 5,
    VU_SET_VRING_ADDR = 9,
    VU_GET_VRING_BASE = 11,
    VU_SET_VRING_KICK = 12,
    VU_GET_PROTOCOL_FEATURES = 15,
    VU_GET_QUEUE_NUM = 17,
    VU_SET_BACKEND_REQ_FD = 21,
    VU_IOTLB = 22,
    VU_GET_CONFIG = 24,
};

#define VU_BACKEND_IOTLB 1u
#define VU_VERSION 1u
#define VU_REPLY 4u
#define VU_NEED_REPLY 8u
#define VU_F_PROTOCOL_FEATURES BIT64(30)
#define VU_PROTOCOL_F_MQ BIT64(0)
#define VU_PROTOCOL_F_REPLY_ACK BIT64(3)
#define VU_PROTOCOL_F_BACKEND_REQ BIT64(5)
#define VU_PROTOCOL_F_CONFIG BIT64(9)
#define VU_PROTOCOL_F_USUAL (VU_PROTOCOL_F_MQ | VU_PROTOCOL_F_REPLY_ACK | VU_PROTOCOL_F_BACKEND_REQ)

enum {
    IOTLB_MISS = 1,
    IOTLB_UPDATE,
    IOTLB_INVALIDATE,
};

#define IOTLB_READ 1u
#define IOTLB_WRITE 2u

typedef struct Header {
    uint32_t request;
    uint32_t flags;
    uint32_t size;
} Header;

typedef struct Iotlb {
    uint64_t iova;
    uint64_t size;
    uint64_t uaddr;
    uint8_t perm;
    uint8_t type;
    uint8_t padding[6];
} Iotlb;

typedef struct Region {
    uint64_t phys;
    uint64_t size;
    uint64_t uaddr;
    uint64_t offset;
} Region;

typedef struct Backend {
    uint64_t features;
    uint64_t protocol_features;
    int sock;
    int request_fd;
    GThread *thread;
    GMutex lock; /* of all that follows */
    Region regions[8];
    unsigned region_count;
    GArray *kept;    /* of Iotlb: the updates that are still in force */
    GArray *dropped; /* of Iotlb: invalidations since the last look */
    unsigned updates;
    uint64_t accepted;     /* features, as QEMU has them */
    uint64_t ring_uaddr;   /* the last ring's descriptors */
    unsigned starts;       /* of queues */
    unsigned plain_starts; /* of those, with guest-physical addresses in the rings */
} Backend;

static uint64_t iotlb_last(const Iotlb *e)
{
    return e->iova + e->size - 1;
}

static bool read_all(int fd, void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, (char *)data + done, size - done);

        if (n <= 0) {
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

static void write_all(int fd, const void *data, size_t size)
{
    g_assert_cmpint(write(fd, data, size), ==, (gssize)size);
}

/* A header and the descriptors that come with it; false at the end. */
static bool receive_header(int sock, Header *header, int fds[8], unsigned *fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } control;
    struct iovec iov = {header, sizeof(*header)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_WAITALL);
    struct cmsghdr *c;

    *fd_count = 0;
    if (n <= 0) {
        return false;
    }
    g_assert_cmpint(n, ==, sizeof(*header));
    c = CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_type == SCM_RIGHTS) {
        *fd_count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(c), *fd_count * sizeof(int));
    }
    return true;
}

static void reply(int fd, uint32_t request, const void *payload, uint32_t size)
{
    Header header = {request, VU_VERSION | VU_REPLY, size};

    write_all(fd, &header, sizeof(header));
    write_all(fd, payload, size);
}

static void take_iotlb(Backend *b, const Iotlb *message)
{
    g_mutex_lock(&b->lock);
    if (message->type == IOTLB_UPDATE) {
        b->updates++;
        g_array_append_val(b->kept, *message);
    } else {
        g_assert_cmpuint(message->type, ==, IOTLB_INVALIDATE);
        /* Back ends compute so. */
        g_assert_cmphex(message->iova + message->size, >, message->iova);
        g_array_append_val(b->dropped, *message);
        for (unsigned i = b->kept->len; i-- > 0;) {
            const Iotlb *e = &g_array_index(b->kept, Iotlb, i);

            if (e->iova <= iotlb_last(message) && message->iova <= iotlb_last(e)) {
                g_array_remove_index(b->kept, i);
            }
        }
    }
    g_mutex_unlock(&b->lock);
}

static void take_regions(Backend *b, const uint8_t *payload)
{
    g_mutex_lock(&b->lock);
    memcpy(&b->region_count, payload, sizeof(uint32_t));
    g_assert_cmpuint(b->region_count, <=, G_N_ELEMENTS(b->regions));
    memcpy(b->regions, payload + 8, b->region_count * sizeof(Region));
    g_mutex_unlock(&b->lock);
}

static void take_start(Backend *b, const Header *header, const uint8_t *payload)
{
    g_mutex_lock(&b->lock);
    switch (header->request) {
    case VU_SET_FEATURES:
        memcpy(&b->accepted, payload, sizeof(b->accepted));
        break;
    case VU_SET_VRING_ADDR:
        memcpy(&b->ring_uaddr, payload + 8, sizeof(b->ring_uaddr));
        break;
    case VU_SET_VRING_KICK:
        b->starts++;
        b->plain_starts += !(b->accepted & F_ACCESS_PLATFORM);
        break;
    default:
        break;
    }
    g_mutex_unlock(&b->lock);
}

static void *serve(void *opaque)
{
    Backend *b = opaque;
    uint8_t payload[4096];
    unsigned fd_count;
    Header header;
    int fds[8], listener = b->sock;

    b->sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    g_assert_cmpint(b->sock, >=, 0);
    close(listener);
    while (receive_header(b->sock, &header, fds, &fd_count)) {
        uint64_t number = 0;
        bool answers = true;

        g_assert_cmpuint(header.size, <=, sizeof(payload));
        if (!read_all(b->sock, payload, header.size)) {
            break;
        }
        switch (header.request) {
        case VU_GET_FEATURES:
            number = b->features;
            break;
        case VU_GET_PROTOCOL_FEATURES:
            number = b->protocol_features;
            break;
        case VU_GET_QUEUE_NUM:
            number = 16;
            break;
        case VU_GET_VRING_BASE:
            memcpy(&number, payload, sizeof(uint32_t));
            break;
        default:
            answers = header.flags & VU_NEED_REPLY;
            break;
        }
        take_start(b, &header, payload);
        if (header.request == VU_SET_MEM_TABLE) {
            take_regions(b, payload);
        } else if (header.request == VU_IOTLB) {
            Iotlb message;

            memcpy(&message, payload, sizeof(message));
            take_iotlb(b, &message);
        } else if (header.request == VU_SET_BACKEND_REQ_FD) {
            g_assert_cmpuint(fd_count, ==, 1);
            b->request_fd = fds[0];
            fd_count = 0;
        }
        if (header.request == VU_GET_CONFIG) {
            reply(b->sock, header.request, payload, header.size);
        } else if (answers) {
            reply(b->sock, header.request, &number, sizeof(number));
        }
        while (fd_count) {
            close(fds[--fd_count]);
        }
    }
    return NULL;
}

/* Waits for one QEMU at the abstract address `name`. */
static Backend *backend_with(const char *name, uint64_t features)
{
    Backend *b = g_new0(Backend, 1);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    b->features = features | F_VERSION_1 | VU_F_PROTOCOL_FEATURES;
    b->protocol_features = VU_PROTOCOL_F_USUAL;
    g_assert_cmpuint(strlen(name) + 1, <, sizeof(addr.sun_path));
    memcpy(addr.sun_path + 1, name, strlen(name));
    b->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(b->sock, (struct sockaddr *)&addr,
                         (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))),
                    ==, 0);
    g_assert_cmpint(listen(b->sock, 1), ==, 0);
    b->request_fd = -1;
    b->kept = g_array_new(false, false, sizeof(Iotlb));
    b->dropped = g_array_new(false, false, sizeof(Iotlb));
    g_mutex_init(&b->lock);
    b->thread = g_thread_new("backend", serve, b);
    return b;
}

static Backend *backend_new(const char *name)
{
    return backend_with(name, F_ACCESS_PLATFORM);
}

static void backend_free(Backend *b)
{
    g_thread_join(b->thread);
    close(b->sock);
    close(b->request_fd);
    g_array_unref(b->kept);
    g_array_unref(b->dropped);
    g_mutex_clear(&b->lock);
    g_free(b);
}

/* The back end's own address of guest memory; 0 if there is none. */
static uint64_t uaddr_of(Backend *b, uint64_t phys, uint64_t size)
{
    for (unsigned i = 0; i < b->region_count; i++) {
        const Region *r = &b->regions[i];

        if (phys >= r->phys && size <= r->size && phys - r->phys <= r->size - size) {
            return r->uaddr + (phys - r->phys);
        }
    }
    return 0;
}

/* ------------------------------------------------------------------ */
/* The machine                                                         */

typedef struct Bench {
    Vt *vt;
    Backend *backend;
    Virtio dev;
    Queue queues[2];
} Bench;

/* The IOMMU's driver is there, the other device's not yet. */
static Bench *bench_new(const char *device, const char *props)
{
    Bench *t = g_new0(Bench, 1);
    g_autofree char *name = g_strdup_printf("viommu-test-%d", getpid());
    g_autofree char *args = g_strdup_printf(MACHINE_ARGS, name, device, props);

    t->backend = backend_new(name);
    t->vt = vt_new_with("", args);
    bridge_open(t->vt, PORT, 1, 1);
    virtio_probe(t->vt, &t->dev, FUNCTION);
    return t;
}

static void bench_start(Bench *t)
{
    g_assert_true(virtio_negotiate(&t->dev, F_VERSION_1 | F_ACCESS_PLATFORM));
    queue_init(&t->dev, &t->queues[0], 0);
    queue_init(&t->dev, &t->queues[1], 1);
    virtio_driver_ok(&t->dev);
    vt_settle(t->vt);
}

static void bench_free(Bench *t)
{
    vt_free(t->vt);
    backend_free(t->backend);
    g_free(t);
}

/* The function's queues work in this domain, too. */
static void attach_with_queues(Bench *t, uint32_t domain)
{
    assert_status(vt_attach(t->vt, domain, FUNCTION, 0), VS_OK);
    assert_status(vt_map(t->vt, domain, QUEUE_BASE, ARENA_BASE - 1, QUEUE_BASE, MAP_RW), VS_OK);
}

static unsigned kept(Bench *t)
{
    unsigned n;

    g_mutex_lock(&t->backend->lock);
    n = t->backend->kept->len;
    g_mutex_unlock(&t->backend->lock);
    return n;
}

/* The back end asks; true if it was given something, which has to have `iova` in it. */
static bool miss(Bench *t, uint64_t iova, uint8_t perm, Iotlb *out)
{
    Header header = {VU_BACKEND_IOTLB, VU_VERSION | VU_NEED_REPLY, sizeof(Iotlb)};
    Iotlb message = {.iova = iova, .perm = perm, .type = IOTLB_MISS};
    Backend *b = t->backend;
    uint64_t failed;
    unsigned updates;

    g_mutex_lock(&b->lock);
    updates = b->updates;
    g_mutex_unlock(&b->lock);
    write_all(b->request_fd, &header, sizeof(header));
    write_all(b->request_fd, &message, sizeof(message));
    g_assert_true(read_all(b->request_fd, &header, sizeof(header)));
    g_assert_cmpuint(header.request, ==, VU_BACKEND_IOTLB);
    g_assert_cmpuint(header.size, ==, sizeof(failed));
    g_assert_true(read_all(b->request_fd, &failed, sizeof(failed)));

    g_mutex_lock(&b->lock);
    g_assert_cmpuint(b->updates, ==, updates + !failed);
    if (!failed) {
        *out = g_array_index(b->kept, Iotlb, b->kept->len - 1);
    }
    g_mutex_unlock(&b->lock);
    if (!failed) {
        g_assert_cmphex(out->iova, <=, iova);
        g_assert_cmphex(iotlb_last(out), >=, iova);
    }
    return !failed;
}

/*
 * A miss at `iova` is answered with a block of [first, last], which is mapped
 * to `phys`.  Nothing is said of the block's rights: QEMU's core tells vhost
 * "read and write" for what can be read, whatever the mapping says (W29).
 */
static void assert_given(Bench *t, uint64_t iova, uint64_t first, uint64_t last, uint64_t phys)
{
    Iotlb e;

    g_assert_true(miss(t, iova, IOTLB_READ, &e));
    g_assert_cmphex(e.iova, >=, first);
    g_assert_cmphex(iotlb_last(&e), <=, last);
    /* All of it lies in one piece of the back end's memory, at the right place. */
    g_assert_cmphex(e.uaddr, ==, uaddr_of(t->backend, phys + (e.iova - first), e.size));
    g_assert_cmphex(e.perm & IOTLB_READ, !=, 0);
}

static void assert_refused_to_backend(Bench *t, uint64_t iova, uint8_t perm)
{
    Iotlb e;

    g_assert_false(miss(t, iova, perm, &e));
}

static void start_looking(Bench *t)
{
    g_mutex_lock(&t->backend->lock);
    g_array_set_size(t->backend->dropped, 0);
    g_mutex_unlock(&t->backend->lock);
}

/* Since the last look the back end was told to forget all of [first, last]. */
static void assert_dropped(Bench *t, uint64_t first, uint64_t last)
{
    GArray *dropped = t->backend->dropped;
    uint64_t next = first;
    bool all = false, progress = true;

    g_mutex_lock(&t->backend->lock);
    while (!all && progress) {
        progress = false;
        for (unsigned i = 0; i < dropped->len && !all; i++) {
            const Iotlb *e = &g_array_index(dropped, Iotlb, i);

            if (e->iova <= next && iotlb_last(e) >= next) {
                all = iotlb_last(e) >= last;
                next = iotlb_last(e) + 1;
                progress = true;
            }
        }
    }
    g_array_set_size(dropped, 0);
    g_mutex_unlock(&t->backend->lock);
    if (!all) {
        g_error("the back end was not told to forget 0x%" PRIx64, next);
    }
}

/* ------------------------------------------------------------------ */
/* Answers                                                             */

static void misses_are_answered(void)
{
    Bench *t = bench_new(FS, "");
    uint64_t last = IOVA + 64 * PAGE - 1;

    attach_with_queues(t, 1);
    assert_status(vt_map(t->vt, 1, IOVA, last, page(0), MAP_RW), VS_OK);
    bench_start(t);
    assert_given(t, IOVA, IOVA, last, page(0));
    assert_given(t, IOVA + 33 * PAGE + 7, IOVA, last, page(0));
    assert_given(t, last, IOVA, last, page(0));
    assert_refused_to_backend(t, IOVA - 1, IOTLB_READ);
    assert_refused_to_backend(t, last + 1, IOTLB_READ);
    assert_refused_to_backend(t, page(0), IOTLB_READ);
    assert_refused_to_backend(t, UINT64_MAX, IOTLB_WRITE);
    bench_free(t);
}

static void answers_are_not_too_small(void)
{
    Bench *t = bench_new(FS, "");
    Iotlb e;

    attach_with_queues(t, 1);
    assert_status(vt_map(t->vt, 1, IOVA, IOVA + 8 * MIB - 1, 0x2000000, MAP_RW), VS_OK);
    bench_start(t);
    g_assert_true(miss(t, IOVA + 5 * MIB, IOTLB_WRITE, &e));
    g_assert_cmphex(e.iova, ==, IOVA);
    g_assert_cmphex(e.size, ==, 8 * MIB);
    bench_free(t);
}

/* Virtual and physical address differ in their lower bits. */
static void incongruent_mappings(void)
{
    Bench *t = bench_new(FS, "");
    uint64_t last = IOVA + 2 * MIB - 1;

    attach_with_queues(t, 1);
    assert_status(vt_map(t->vt, 1, IOVA, last, page(1), MAP_RW), VS_OK);
    bench_start(t);
    for (uint64_t off = 0; off < 2 * MIB; off += 37 * PAGE) {
        assert_given(t, IOVA + off, IOVA, last, page(1));
    }
    bench_free(t);
}

/* One mapping, but the memory behind it has a hole below 1 MiB. */
static void answers_end_with_the_memory(void)
{
    Bench *t = bench_new(FS, "");
    uint64_t last = IOVA + 16 * MIB - 1;
    unsigned given = 0, holes = 0;

    attach_with_queues(t, 1);
    assert_status(vt_map(t->vt, 1, IOVA, last, 0, MAP_RW), VS_OK);
    bench_start(t);
    for (uint64_t off = 0; off < 2 * MIB; off += 4 * PAGE) {
        if (uaddr_of(t->backend, off, PAGE)) {
            assert_given(t, IOVA + off, IOVA, last, 0);
            given++;
        } else {
            assert_refused_to_backend(t, IOVA + off, IOTLB_READ);
            holes++;
        }
    }
    g_assert_cmpuint(given, >, 0);
    g_assert_cmpuint(holes, >, 0);
    bench_free(t);
}

/*
 * One mapping, and memory that begins in its middle: a block that is larger than
 * the memory would begin where there is none.
 */
static void answers_begin_with_the_memory(void)
{
    const uint64_t dimm = 0x108000000ull, size = 128 * MIB, phys = dimm - size;
    Bench *t = bench_new(FS, " -m 128,slots=1,maxmem=1G "
                             "-object memory-backend-memfd,id=more,size=128M,share=on "
                             "-device pc-dimm,memdev=more,addr=0x108000000");
    uint64_t last = IOVA + 2 * size - 1;

    attach_with_queues(t, 1);
    assert_status(vt_map(t->vt, 1, IOVA, last, phys, MAP_RW), VS_OK);
    bench_start(t);
    g_assert_cmphex(uaddr_of(t->backend, dimm, size), !=, 0);
    g_assert_cmphex(uaddr_of(t->backend, phys, PAGE), ==, 0);
    for (uint64_t off = 0; off < size; off += 8 * MIB) {
        assert_refused_to_backend(t, IOVA + off, IOTLB_READ);
        assert_given(t, IOVA + size + off, IOVA, last, phys);
    }
    bench_free(t);
}

static void writes_to_read_only_memory(void)
{
    Bench *t = bench_new(FS, "");

    attach_with_queues(t, 1);
    assert_status(vt_map(t->vt, 1, IOVA, IOVA + PAGE - 1, page(0), MAP_READ), VS_OK);
    assert_status(vt_map(t->vt, 1, IOVA + PAGE, IOVA + 2 * PAGE - 1, page(9), MAP_WRITE), VS_OK);
    bench_start(t);
    assert_refused_to_backend(t, IOVA, IOTLB_WRITE);
    assert_given(t, IOVA, IOVA, IOVA + PAGE - 1, page(0));
    assert_refused_to_backend(t, IOVA + PAGE, IOTLB_READ);
    bench_free(t);
}

/* QEMU's core asks with the right that is wanted and answers with both. */
static void core_hands_out_both_rights(void)
{
    Bench *t = bench_new(FS, "");
    Iotlb e;

    attach_with_queues(t, 1);
    assert_status(vt_map(t->vt, 1, IOVA, IOVA + PAGE - 1, page(0), MAP_READ), VS_OK);
    bench_start(t);
    assert_refused_to_backend(t, IOVA, IOTLB_WRITE);
    g_assert_true(miss(t, IOVA, IOTLB_READ, &e));
    g_assert_cmphex(e.perm, ==, IOTLB_READ | IOTLB_WRITE);
    bench_free(t);
}

static void bypass_is_identity(void)
{
    Bench *t = bench_new(FS, "");

    bench_start(t);
    assert_given(t, page(3) + 5, 0, UINT64_MAX, 0);
    assert_status(vt_attach(t->vt, 1, FUNCTION, ATTACH_BYPASS), VS_OK);
    assert_given(t, page(4), 0, UINT64_MAX, 0);
    vt_set_bypass(t->vt, 0);
    assert_given(t, page(5), 0, UINT64_MAX, 0);
    bench_free(t);
}

#define ON_ROOT 0x0040u /* 00:08.0 */

/* Left out, it is a back end without an IOMMU: it is not even told to ask. */
static void left_out_it_is_not_translated(void)
{
    static const char *const props[] = {"boot-bypass=off,leave-out=fs",
                                        "boot-bypass=off,leave-out=edu1"};

    for (unsigned i = 0; i < G_N_ELEMENTS(props); i++) {
        Bench *t = g_new0(Bench, 1);
        g_autofree char *name = g_strdup_printf("viommu-test-%d-%u", getpid(), i);
        g_autofree char *args = g_strdup_printf(
            MACHINE_ARGS, name,
            "-device vhost-user-fs-pci,id=fs,addr=8.0,chardev=vu,tag=x,iommu_platform=on", "");

        t->backend = backend_new(name);
        t->vt = vt_new_with(props[i], args);
        virtio_probe(t->vt, &t->dev, ON_ROOT);
        if (i > 0) {
            assert_status(vt_attach(t->vt, 1, ON_ROOT, ATTACH_BYPASS), VS_OK);
        }
        bench_start(t);
        g_mutex_lock(&t->backend->lock);
        g_assert_cmpuint(t->backend->starts, >, 0);
        g_assert_cmpuint(t->backend->plain_starts, ==, i == 0 ? t->backend->starts : 0);
        g_mutex_unlock(&t->backend->lock);
        bench_free(t);
    }
}

/* ------------------------------------------------------------------ */
/* What has to be forgotten                                            */

#define WHERE_ANSWERS_ARE IOVA, 16 * IOVA + PAGE - 1
/* All that can be memory. */
#define WHERE_IDENTITY_IS 0, BIT64(62) - 1

/* In domain 1, with answers for two mappings in the back end's hands. */
static Bench *with_answers(const char *device, const char *props)
{
    Bench *t = bench_new(device, props);

    attach_with_queues(t, 1);
    /* So that the domain stays. */
    assert_status(vt_attach(t->vt, 1, EDU1, 0), VS_OK);
    assert_status(vt_map(t->vt, 1, IOVA, IOVA + 3 * PAGE - 1, page(0), MAP_RW), VS_OK);
    assert_status(vt_map(t->vt, 1, 16 * IOVA, 16 * IOVA + PAGE - 1, page(8), MAP_RW), VS_OK);
    bench_start(t);
    for (unsigned i = 0; i < 3; i++) {
        assert_given(t, IOVA + i * PAGE, IOVA, IOVA + 3 * PAGE - 1, page(0));
    }
    assert_given(t, 16 * IOVA, 16 * IOVA, 16 * IOVA + PAGE - 1, page(8));
    start_looking(t);
    return t;
}

static void unmap_is_told(void)
{
    Bench *t = with_answers(FS, "");

    assert_status(vt_unmap(t->vt, 1, IOVA, IOVA + 3 * PAGE - 1), VS_OK);
    assert_dropped(t, IOVA, IOVA + 3 * PAGE - 1);
    assert_refused_to_backend(t, IOVA, IOTLB_READ);
    assert_given(t, 16 * IOVA, 16 * IOVA, 16 * IOVA + PAGE - 1, page(8));
    assert_status(vt_map(t->vt, 1, IOVA, IOVA + PAGE - 1, page(20), MAP_RW), VS_OK);
    assert_given(t, IOVA, IOVA, IOVA + PAGE - 1, page(20));
    assert_status(vt_unmap(t->vt, 1, 0, UINT64_MAX), VS_OK);
    g_assert_cmpuint(kept(t), ==, 0);
    bench_free(t);
}

static void detach_is_told(void)
{
    for (uint8_t bypass = 0; bypass < 2; bypass++) {
        Bench *t = with_answers(FS, "");

        vt_set_bypass(t->vt, bypass);
        assert_status(vt_detach(t->vt, 1, FUNCTION), VS_OK);
        assert_dropped(t, WHERE_ANSWERS_ARE);
        g_assert_cmpuint(kept(t), ==, 0);
        if (bypass) {
            assert_given(t, page(0), 0, UINT64_MAX, 0);
        } else {
            assert_refused_to_backend(t, page(0), IOTLB_READ);
            assert_refused_to_backend(t, IOVA, IOTLB_READ);
        }
        bench_free(t);
    }
}

static void move_is_told(void)
{
    Bench *t = with_answers(FS, "");

    assert_status(vt_attach(t->vt, 2, EDU0, 0), VS_OK);
    assert_status(vt_map(t->vt, 2, IOVA, IOVA + PAGE - 1, page(30), MAP_RW), VS_OK);
    assert_status(vt_attach(t->vt, 2, FUNCTION, 0), VS_OK);
    assert_dropped(t, WHERE_ANSWERS_ARE);
    g_assert_cmpuint(kept(t), ==, 0);
    assert_given(t, IOVA, IOVA, IOVA + PAGE - 1, page(30));
    assert_refused_to_backend(t, IOVA + PAGE, IOTLB_READ);

    assert_status(vt_attach(t->vt, 3, FUNCTION, ATTACH_BYPASS), VS_OK);
    assert_dropped(t, IOVA, IOVA + PAGE - 1);
    g_assert_cmpuint(kept(t), ==, 0);
    assert_given(t, page(0), 0, UINT64_MAX, 0);

    /* Identity must not outlive the bypass domain. */
    assert_status(vt_attach(t->vt, 2, FUNCTION, 0), VS_OK);
    assert_dropped(t, WHERE_IDENTITY_IS);
    g_assert_cmpuint(kept(t), ==, 0);
    assert_refused_to_backend(t, page(0), IOTLB_READ);
    bench_free(t);
}

static void reset_is_told(void)
{
    Bench *t = with_answers(FS, "");
    unsigned before = kept(t);

    /* W31: nothing has changed yet. */
    virtio_reset(&t->vt->iommu);
    g_assert_cmpuint(before, >, 0);
    g_assert_cmpuint(kept(t), ==, before);
    g_assert_true(virtio_accept(&t->vt->iommu, F_USUAL));
    assert_dropped(t, WHERE_ANSWERS_ARE);
    g_assert_cmpuint(kept(t), ==, 0);
    assert_given(t, page(0), 0, UINT64_MAX, 0);
    bench_free(t);
}

static void bypass_switches_are_told(void)
{
    Bench *t = bench_new(FS, "");

    bench_start(t);
    assert_given(t, page(0), 0, UINT64_MAX, 0);
    start_looking(t);
    vt_set_bypass(t->vt, 0);
    assert_dropped(t, WHERE_IDENTITY_IS);
    g_assert_cmpuint(kept(t), ==, 0);
    assert_refused_to_backend(t, page(0), IOTLB_READ);
    vt_set_bypass(t->vt, 1);
    assert_given(t, page(0), 0, UINT64_MAX, 0);
    g_assert_cmpuint(kept(t), ==, 1);

    /* The first ATTACH is such a switch, too. */
    start_looking(t);
    assert_status(vt_attach(t->vt, 1, FUNCTION, 0), VS_OK);
    assert_dropped(t, WHERE_IDENTITY_IS);
    g_assert_cmpuint(kept(t), ==, 0);
    assert_refused_to_backend(t, page(0), IOTLB_READ);
    bench_free(t);
}

static void system_reset_while_serving(void)
{
    Bench *t = with_answers(FS, "");

    vt_system_reset(t->vt);
    t->vt->next_queue = QUEUE_BASE;
    bridge_open(t->vt, PORT, 1, 1);
    virtio_probe(t->vt, &t->dev, FUNCTION);
    bench_start(t);
    assert_given(t, page(0), 0, UINT64_MAX, 0);
    vt_bring_up(t->vt, F_USUAL, true);
    start_looking(t);
    attach_with_queues(t, 1);
    assert_dropped(t, WHERE_IDENTITY_IS);
    assert_refused_to_backend(t, page(0), IOTLB_READ);
    bench_free(t);
}

static void unplugged_while_serving(void)
{
    Bench *t = with_answers(FS, ",id=function");
    unsigned cap = pci_find_cap(t->vt, PORT, 0x10, 0);

    qtest_qmp_device_del_send(t->vt->qts, "function");
    pci_write16(t->vt, PORT, cap + SLTCTL, SLTCTL_POWER_OFF);
    qtest_qmp_eventwait(t->vt->qts, "DEVICE_DELETED");
    assert_status(vt_detach(t->vt, 1, FUNCTION), VS_NOENT);
    assert_status(vt_unmap(t->vt, 1, 0, UINT64_MAX), VS_OK);
    vt_assert_alive(t->vt);
    bench_free(t);
}

/* ------------------------------------------------------------------ */
/* A function with a translation cache of its own                      */

#define PCI_EXT_CAP_ATS 0x000fu
#define ATS_CTRL 6u
#define ATS_ENABLE 0x8000u

static unsigned find_ats(Vt *vt, uint16_t bdf)
{
    for (unsigned off = 0x100, guard = 0; off && guard < 64; guard++) {
        if (pci_read16_ext(vt, bdf, off) == PCI_EXT_CAP_ATS) {
            return off;
        }
        off = pci_read16_ext(vt, bdf, off + 2) >> 4;
    }
    g_error("no ATS capability");
}

static void enable_ecam(Vt *vt)
{
    vt->ecam = 0xb0000000;
    pci_write32(vt, 0, 0x64, 0);
    pci_write32(vt, 0, 0x60, (uint32_t)vt->ecam | 1);
}

/*
 * With ATS enabled the core asks for another kind of notification: some devices
 * at once, all when the function enters translation the next time.
 */
static void cached_by_the_function(void)
{
    static const char *const devices[] = {FS, NET};

    for (unsigned i = 0; i < G_N_ELEMENTS(devices); i++) {
        Bench *t = with_answers(devices[i], ",ats=on");
        unsigned ats;

        enable_ecam(t->vt);
        ats = find_ats(t->vt, FUNCTION);
        for (unsigned round = 0; round < 8; round++) {
            bool on = round % 2, again = round / 2 % 2;

            pci_write16_ext(t->vt, FUNCTION, ats + ATS_CTRL, on ? ATS_ENABLE : 0);
            if (again) {
                assert_given(t, IOVA, IOVA, IOVA + 3 * PAGE - 1, page(0));
                start_looking(t);
                assert_status(vt_attach(t->vt, 2, FUNCTION, ATTACH_BYPASS), VS_OK);
                assert_dropped(t, WHERE_ANSWERS_ARE);
                g_assert_cmpuint(kept(t), ==, 0);
                assert_status(vt_attach(t->vt, 1, FUNCTION, 0), VS_OK);
            }
            assert_given(t, IOVA, IOVA, IOVA + 3 * PAGE - 1, page(0));
            start_looking(t);
            assert_status(vt_unmap(t->vt, 1, IOVA, IOVA + 3 * PAGE - 1), VS_OK);
            assert_dropped(t, IOVA, IOVA + 3 * PAGE - 1);
            assert_refused_to_backend(t, IOVA, IOTLB_READ);
            assert_status(vt_map(t->vt, 1, IOVA, IOVA + 3 * PAGE - 1, page(0), MAP_RW), VS_OK);
        }
        bench_free(t);
    }
}

/* ------------------------------------------------------------------ */
/* On a virtio-mmio transport                                          */

#define TRANSPORT(n) (0xfeb00000ull + 0x200 * (n))
#define ON_TRANSPORT 0xffff0002u
#define ID_FS 26u
#define MMIO_ARGS                                                                                  \
    "-object memory-backend-memfd,id=mem,size=128M,share=on -machine memory-backend=mem "          \
    "-chardev socket,id=vu,path=%s,abstract=on "
#define MMIO_FS                                                                                    \
    "-device vhost-user-fs-device,bus=virtio-mmio-bus.2,chardev=vu,tag=x,iommu_platform=on "
#define MMIO_IOMMU "-device virtio-iommu-mmio,id=iommu0,bus=virtio-mmio-bus.1 "
#define MMIO_IOMMU_OF_PCI "-device virtio-iommu-mmio,bus=virtio-mmio-bus.1,root-bus=pcie.0 "

static void mmio_endpoint_is_served(void)
{
    static const char *const orders[] = {MMIO_IOMMU MMIO_FS, MMIO_FS MMIO_IOMMU};

    for (unsigned i = 0; i < G_N_ELEMENTS(orders); i++) {
        g_autofree char *name = g_strdup_printf("viommu-test-%d-%u", getpid(), i);
        Bench *t = g_new0(Bench, 1);

        t->backend = backend_new(name);
        t->vt = vt_machine_microvm(MMIO_ARGS "%s", name, orders[i]);
        virtio_mmio_probe(t->vt, &t->vt->iommu, TRANSPORT(1), ID_IOMMU);
        vt_bring_up(t->vt, F_USUAL, true);
        virtio_mmio_probe(t->vt, &t->dev, TRANSPORT(2), ID_FS);
        assert_status(vt_attach(t->vt, 1, ON_TRANSPORT, 0), VS_OK);
        assert_status(vt_map(t->vt, 1, QUEUE_BASE, ARENA_BASE - 1, QUEUE_BASE, MAP_RW), VS_OK);
        assert_status(vt_map(t->vt, 1, IOVA, IOVA + 3 * PAGE - 1, page(1), MAP_RW), VS_OK);
        bench_start(t);
        assert_given(t, IOVA + PAGE, IOVA, IOVA + 3 * PAGE - 1, page(1));
        assert_refused_to_backend(t, page(1), IOTLB_READ);
        start_looking(t);
        assert_status(vt_unmap(t->vt, 1, IOVA, IOVA + 3 * PAGE - 1), VS_OK);
        assert_dropped(t, IOVA, IOVA + 3 * PAGE - 1);
        assert_refused_to_backend(t, IOVA + PAGE, IOTLB_READ);
        bench_free(t);
    }
}

/* Such a back end is nobody's business as long as no IOMMU manages its transport. */
static void backend_that_knows_no_iommu(void)
{
    static const char *const machines[] = {
        MMIO_FS,
        "-machine acpi=on,pcie=on " MMIO_IOMMU_OF_PCI MMIO_FS,
        "-machine acpi=on,pcie=on " MMIO_FS MMIO_IOMMU_OF_PCI,
        ("-machine acpi=on,pcie=on -device virtio-iommu-pci,root-bus=pcie.0 " MMIO_FS),
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(machines); i++) {
        g_autofree char *name = g_strdup_printf("viommu-test-%d-%u", getpid(), i);
        Bench *t = g_new0(Bench, 1);

        t->backend = backend_with(name, 0);
        t->vt = vt_machine_microvm(MMIO_ARGS "%s", name, machines[i]);
        virtio_mmio_probe(t->vt, &t->dev, TRANSPORT(2), ID_FS);
        bench_start(t);
        g_assert_cmphex(virtio_status(&t->dev) & STATUS_DRIVER_OK, !=, 0);
        bench_free(t);
    }
}

static void backend_that_knows_no_iommu_behind_one(void)
{
    static const char *const orders[] = {MMIO_IOMMU MMIO_FS, MMIO_FS MMIO_IOMMU};

    for (unsigned i = 0; i < G_N_ELEMENTS(orders); i++) {
        g_autofree char *name = g_strdup_printf("viommu-test-%d-%u", getpid(), i);
        Backend *b = backend_with(name, 0);

        assert_refused("vhost-user-fs-device on virtio-mmio-bus.2 is behind IOMMU iommu0",
                       "-machine microvm,acpi=off -global virtio-mmio.force-legacy=off " MMIO_ARGS
                       "%s",
                       name, orders[i]);
        backend_free(b);
    }
}

/* ------------------------------------------------------------------ */
/* Drivers that do not take ACCESS_PLATFORM                            */

#define BLK "-device vhost-user-blk-pci,bus=rp,addr=0.0,chardev=vu,num-queues=2," ON_PCI
#define SCSI "-device vhost-user-scsi-pci,bus=rp,addr=0.0,chardev=vu," ON_PCI
#define VSOCK "-device vhost-user-vsock-pci,bus=rp,addr=0.0,chardev=vu," ON_PCI
#define ON_PCI "iommu_platform=on,disable-legacy=on"

/* QEMU's addresses lie above what q35 translates by default. */
static Bench *bench_of_64_bits(const char *device, uint64_t features)
{
    Bench *t = g_new0(Bench, 1);
    g_autofree char *name = g_strdup_printf("viommu-test-%d", getpid());
    g_autofree char *args = g_strdup_printf(MACHINE_ARGS, name, device, "");

    t->backend = backend_with(name, features);
    t->backend->protocol_features |=
        strcmp(device, BLK) && strcmp(device, VSOCK) ? 0 : VU_PROTOCOL_F_CONFIG;
    t->vt = vt_new_with("aw-bits=64", args);
    bridge_open(t->vt, PORT, 1, 1);
    virtio_probe(t->vt, &t->dev, FUNCTION);
    return t;
}

/* Waits for the last word to the back end; how often it was started in the meantime. */
static unsigned starts(Bench *t)
{
    unsigned n;

    virtio_reset(&t->dev);
    vt_settle(t->vt);
    g_mutex_lock(&t->backend->lock);
    n = t->backend->starts;
    t->backend->starts = 0;
    g_mutex_unlock(&t->backend->lock);
    return n;
}

static uint64_t backend_uaddr(Bench *t, uint64_t phys)
{
    uint64_t uaddr;

    g_mutex_lock(&t->backend->lock);
    uaddr = uaddr_of(t->backend, phys, PAGE);
    g_mutex_unlock(&t->backend->lock);
    g_assert_cmphex(uaddr, !=, 0);
    return uaddr;
}

/* A driver's ways past the negotiation. */
static const struct {
    uint64_t features;
    uint8_t status;
} decliners[] = {
    {0, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK},
    {0, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK | STATUS_FEATURES_OK},
    {F_VERSION_1, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK},
    /* Starts with its first kick. */
    {0, STATUS_ACKNOWLEDGE | STATUS_DRIVER},
};

static void decline(Bench *t, unsigned way)
{
    virtio_choose(&t->dev, decliners[way].features);
    t->vt->next_queue = QUEUE_BASE + 0x10000;
    queue_init(&t->dev, &t->queues[0], 0);
    queue_init(&t->dev, &t->queues[1], 1);
    virtio_set_status(&t->dev, decliners[way].status);
    queue_kick(&t->queues[0]);
    vt_settle(t->vt);
}

/*
 * The rings' I/O addresses are QEMU's own addresses of them, which a back end that was
 * not told to translate takes them for; then it follows the descriptors to any page.
 */
static void driver_that_declines_stays_behind_the_iommu(void)
{
    static const char *const devices[] = {FS, NET, BLK};

    for (unsigned i = 0; i < G_N_ELEMENTS(devices); i++) {
        Bench *t = bench_of_64_bits(devices[i], F_ACCESS_PLATFORM);

        attach_with_queues(t, 1);
        assert_status(vt_map(t->vt, 1, IOVA, IOVA + PAGE - 1, page(0), MAP_RW), VS_OK);
        bench_start(t);
        t->dev.dma_base = backend_uaddr(t, QUEUE_BASE) - QUEUE_BASE;
        assert_status(vt_map(t->vt, 1, QUEUE_BASE + t->dev.dma_base,
                             ARENA_BASE + t->dev.dma_base - 1, QUEUE_BASE, MAP_RW),
                      VS_OK);
        g_assert_cmpuint(starts(t), >, 0);
        for (unsigned way = 0; way < G_N_ELEMENTS(decliners); way++) {
            bool kicks = !(decliners[way].status & STATUS_DRIVER_OK);

            decline(t, way);
            if (!kicks || i == 2) {
                assert_given(t, IOVA, IOVA, IOVA + PAGE - 1, page(0));
                assert_refused_to_backend(t, page(0), IOTLB_READ);
                g_assert_cmpuint(starts(t), >, 0);
                g_assert_cmphex(t->backend->ring_uaddr, ==, t->queues[1].desc + t->dev.dma_base);
            } else {
                g_assert_cmpuint(starts(t), ==, 0);
            }
            g_assert_cmpuint(t->backend->plain_starts, ==, 0);
        }
        vt_assert_alive(t->vt);
        bench_free(t);
    }
}

static void mmio_driver_that_declines_stays_behind_the_iommu(void)
{
    g_autofree char *name = g_strdup_printf("viommu-test-%d", getpid());
    Bench *t = g_new0(Bench, 1);

    t->backend = backend_new(name);
    t->vt = vt_machine_microvm(MMIO_ARGS "%s", name, MMIO_IOMMU MMIO_FS);
    virtio_mmio_probe(t->vt, &t->vt->iommu, TRANSPORT(1), ID_IOMMU);
    vt_bring_up(t->vt, F_USUAL, true);
    virtio_mmio_probe(t->vt, &t->dev, TRANSPORT(2), ID_FS);
    assert_status(vt_attach(t->vt, 1, ON_TRANSPORT, 0), VS_OK);
    assert_status(vt_map(t->vt, 1, QUEUE_BASE, ARENA_BASE - 1, QUEUE_BASE, MAP_RW), VS_OK);
    for (unsigned way = 0; way < 3; way++) {
        decline(t, way);
        assert_refused_to_backend(t, page(0), IOTLB_READ);
        g_assert_cmpuint(starts(t), >, 0);
        g_assert_cmpuint(t->backend->plain_starts, ==, 0);
    }
    bench_free(t);
}

/* Registers of a legacy transport, whose driver sees no feature above bit 31. */
#define LEGACY_PAGE_SIZE 0x028
#define LEGACY_Q_ALIGN 0x03c
#define LEGACY_Q_PFN 0x040

static void legacy_driver_stays_behind_the_iommu(void)
{
    g_autofree char *name = g_strdup_printf("viommu-test-%d", getpid());
    Bench *t = g_new0(Bench, 1);

    t->backend = backend_new(name);
    t->vt = vt_machine_microvm(MMIO_ARGS "%s", name,
                               "-machine acpi=on,pcie=on -global virtio-mmio.force-legacy=on "
                               "-device virtio-iommu-pci,root-bus=main-system-bus " MMIO_FS);
    t->dev = (Virtio){.vt = t->vt, .mmio = TRANSPORT(2)};
    g_assert_cmpuint(mmio_read(&t->dev, MMIO_VERSION), ==, 1);
    g_assert_cmpuint(mmio_read(&t->dev, MMIO_DEVICE_ID), ==, ID_FS);
    mmio_write(&t->dev, MMIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    mmio_write(&t->dev, MMIO_GFSELECT, 0);
    mmio_write(&t->dev, MMIO_GF, 0);
    mmio_write(&t->dev, LEGACY_PAGE_SIZE, PAGE);
    for (unsigned i = 0; i < 2; i++) {
        mmio_write(&t->dev, MMIO_Q_SELECT, i);
        mmio_write(&t->dev, MMIO_Q_SIZE, 64);
        mmio_write(&t->dev, LEGACY_Q_ALIGN, PAGE);
        mmio_write(&t->dev, LEGACY_Q_PFN, (uint32_t)((QUEUE_BASE + i * 0x3000) / PAGE));
    }
    mmio_write(&t->dev, MMIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK);
    assert_given(t, page(0), 0, UINT64_MAX, 0);
    g_assert_cmpuint(starts(t), >, 0);
    g_assert_cmpuint(t->backend->plain_starts, ==, 0);
    bench_free(t);
}

/* Some devices do not look whether their back end offers the bit. */
static void backend_that_cannot_translate_is_not_started(void)
{
    static const char *const devices[] = {SCSI, VSOCK};

    for (unsigned i = 0; i < G_N_ELEMENTS(devices); i++) {
        Bench *t = bench_of_64_bits(devices[i], 0);

        attach_with_queues(t, 1);
        bench_start(t);
        g_assert_cmpuint(starts(t), ==, 0);
        for (unsigned way = 0; way < G_N_ELEMENTS(decliners); way++) {
            decline(t, way);
            g_assert_cmpuint(starts(t), ==, 0);
        }
        vt_assert_alive(t->vt);
        bench_free(t);
    }
}

/* ------------------------------------------------------------------ */
/* What QEMU prints                                                    */

static Vt *start_for_logging(void)
{
    g_autofree char *name = g_strdup_printf("viommu-test-%d", getpid());
    g_autofree char *args = g_strdup_printf(MACHINE_ARGS, name, FS, "");

    return vt_new_with("", args);
}

/* Mapped to registers: the back end is given nothing, however often it asks. */
static void misses_at_registers_are_one_line(void)
{
    Bench *t = g_new0(Bench, 1);
    g_autofree char *name = g_strdup_printf("viommu-test-%d", getpid());
    g_autofree char *printed = NULL;
    unsigned lines = 0;

    t->backend = backend_new(name);
    t->vt = vt_logged(start_for_logging);
    bridge_open(t->vt, PORT, 1, 1);
    virtio_probe(t->vt, &t->dev, FUNCTION);
    attach_with_queues(t, 1);
    assert_status(vt_map(t->vt, 1, IOVA, IOVA + PAGE - 1, t->vt->edu[0].regs, MAP_RW), VS_OK);
    bench_start(t);
    g_free(vt_printed(t->vt));
    for (unsigned i = 0; i < 100; i++) {
        assert_refused_to_backend(t, IOVA, IOTLB_READ);
    }
    printed = vt_printed(t->vt);
    for (const char *p = printed; (p = strchr(p, '\n')); p++) {
        lines++;
    }
    g_assert_cmpuint(lines, <=, 1);
    bench_free(t);
}

/* ------------------------------------------------------------------ */
/* Everything at once                                                  */

#define SLOTS 12u

/* Three domains with slots of one to four pages; domain 2 bypasses. */
typedef struct Model {
    bool attached;
    unsigned domain;
    bool bypass;
    unsigned pages[2][SLOTS];
    unsigned phys[2][SLOTS];
} Model;

static uint64_t slot_iova(unsigned slot)
{
    return IOVA + slot * 4 * PAGE;
}

static bool model_bypasses(const Model *m)
{
    return m->attached ? m->domain == 2 : m->bypass;
}

/* Where the model says that a page leads; false if nowhere. */
static bool model_page(const Model *m, uint64_t iova, uint64_t *phys)
{
    uint64_t slot = (iova - IOVA) / (4 * PAGE), index = (iova - IOVA) / PAGE % 4;

    if (model_bypasses(m)) {
        *phys = iova;
        return true;
    }
    if (!m->attached || iova < IOVA || slot >= SLOTS || index >= m->pages[m->domain][slot]) {
        return false;
    }
    *phys = page(m->phys[m->domain][slot]) + index * PAGE;
    return true;
}

static void check_kept(Bench *t, const Model *m)
{
    Backend *b = t->backend;

    g_mutex_lock(&b->lock);
    for (unsigned i = 0; i < b->kept->len; i++) {
        const Iotlb *e = &g_array_index(b->kept, Iotlb, i);

        for (uint64_t off = 0; off < e->size; off += PAGE) {
            uint64_t phys;

            if (!model_page(m, e->iova + off, &phys)) {
                g_error("the back end still has 0x%" PRIx64, e->iova + off);
            }
            g_assert_cmphex(e->uaddr + off, ==, uaddr_of(b, phys, PAGE));
        }
    }
    g_mutex_unlock(&b->lock);
}

static void nothing_outlives_its_mapping(void)
{
    Bench *t = bench_new(FS, "");
    GRand *rand = g_rand_new_with_seed(0xcafe);
    Model m = {.bypass = true};
    unsigned given = 0;

    /* edus keep the domains alive. */
    assert_status(vt_attach(t->vt, 0, EDU0, 0), VS_OK);
    assert_status(vt_attach(t->vt, 1, EDU1, 0), VS_OK);
    bench_start(t);
    for (unsigned step = 0; step < 1500; step++) {
        unsigned slot = (unsigned)g_rand_int_range(rand, 0, SLOTS);
        unsigned domain = (unsigned)g_rand_int_range(rand, 0, 2);
        unsigned what = (unsigned)g_rand_int_range(rand, 0, 40);

        if (what < 10) {
            unsigned pages = (unsigned)g_rand_int_range(rand, 1, 5);
            unsigned phys = (unsigned)g_rand_int_range(rand, 0, 4000);
            uint64_t first = slot_iova(slot);
            bool free_slot = !m.pages[domain][slot];

            assert_status(
                vt_map(t->vt, domain, first, first + pages * PAGE - 1, page(phys), MAP_RW),
                free_slot ? VS_OK : VS_INVAL);
            if (free_slot) {
                m.pages[domain][slot] = pages;
                m.phys[domain][slot] = phys;
            }
        } else if (what < 16) {
            unsigned n = (unsigned)g_rand_int_range(rand, 1, 4);
            uint64_t first = slot_iova(slot);

            assert_status(vt_unmap(t->vt, domain, first, first + n * 4 * PAGE - 1), VS_OK);
            for (unsigned i = slot; i < MIN(slot + n, SLOTS); i++) {
                m.pages[domain][i] = 0;
            }
        } else if (what == 16) {
            domain = (unsigned)g_rand_int_range(rand, 0, 3);
            assert_status(vt_attach(t->vt, domain, FUNCTION, domain == 2 ? ATTACH_BYPASS : 0),
                          VS_OK);
            m.attached = true;
            m.domain = domain;
        } else if (what == 17 && m.attached) {
            assert_status(vt_detach(t->vt, m.domain, FUNCTION), VS_OK);
            m.attached = false;
        } else if (what == 18) {
            m.bypass = !m.bypass;
            vt_set_bypass(t->vt, m.bypass);
        } else {
            uint64_t iova = slot_iova(slot) + (uint64_t)g_rand_int_range(rand, 0, 4) * PAGE;
            uint64_t phys;
            Iotlb e;

            if (model_bypasses(&m)) {
                iova = page(slot);
            }
            g_assert_cmpint(miss(t, iova, IOTLB_WRITE, &e), ==, model_page(&m, iova, &phys));
            given++;
        }
        check_kept(t, &m);
    }
    g_assert_cmpuint(given, >, 0);
    g_rand_free(rand);
    bench_free(t);
}

/* A back end acknowledges each message, under the big lock. */
static void many_mappings_go_in_few_messages(void)
{
    Bench *t = bench_new(FS, "");
    const unsigned n = 512;
    unsigned messages;

    attach_with_queues(t, 1);
    bench_start(t);
    for (unsigned i = 0; i < n; i++) {
        uint64_t iova = IOVA + 2 * i * PAGE;

        assert_status(vt_map(t->vt, 1, iova, iova + PAGE - 1, page(1 + i % 64), MAP_RW), VS_OK);
    }
    start_looking(t);
    assert_status(vt_unmap(t->vt, 1, IOVA, IOVA + 2 * n * PAGE - 1), VS_OK);
    g_mutex_lock(&t->backend->lock);
    messages = t->backend->dropped->len;
    g_mutex_unlock(&t->backend->lock);
    g_assert_cmpuint(messages, >, 0);
    /* Blocks of a power of two cover any range of 64 bits. */
    g_assert_cmpuint(messages, <=, 2 * 63);
    assert_dropped(t, IOVA, IOVA + (2 * n - 1) * PAGE - 1);
    bench_free(t);
}

static const Case cases[] = {
    {"W24/many-mappings-go-in-few-messages", many_mappings_go_in_few_messages},
    {"MOD-9/mmio-endpoint-is-served", mmio_endpoint_is_served},
    {"MOD-9/back-end-that-knows-no-iommu", backend_that_knows_no_iommu},
    {"MOD-9/back-end-that-knows-no-iommu-behind-one", backend_that_knows_no_iommu_behind_one},
    {"MOD-9/mmio-driver-that-declines-stays-behind-the-iommu",
     mmio_driver_that_declines_stays_behind_the_iommu},
    {"MOD-9/legacy-driver-stays-behind-the-iommu", legacy_driver_stays_behind_the_iommu},
    {"OPS-5/driver-that-declines-stays-behind-the-iommu",
     driver_that_declines_stays_behind_the_iommu},
    {"OPS-5/back-end-that-cannot-translate-is-not-started",
     backend_that_cannot_translate_is_not_started},
    {"MAP-6/misses-are-answered", misses_are_answered},
    {"GEN-13/misses-at-registers-are-one-line", misses_at_registers_are_one_line},
    {"MAP-6/answers-are-not-too-small", answers_are_not_too_small},
    {"MAP-6/writes-to-read-only-memory", writes_to_read_only_memory},
    {"W8/incongruent-mappings", incongruent_mappings},
    {"W8/answers-end-with-the-memory", answers_end_with_the_memory},
    {"W8/answers-begin-with-the-memory", answers_begin_with_the_memory},
    {"BYP-1/bypass-is-identity", bypass_is_identity},
    {"MOD-15/left-out-it-is-not-translated", left_out_it_is_not_translated},
    {"DET-4/unmap-is-told", unmap_is_told},
    {"DET-4/detach-is-told", detach_is_told},
    {"DET-4/move-is-told", move_is_told},
    {"DET-4/bypass-switches-are-told", bypass_switches_are_told},
    {"DET-4/cached-by-the-function", cached_by_the_function},
    {"DET-4/nothing-outlives-its-mapping", nothing_outlives_its_mapping},
    {"INI-D1/reset-is-told", reset_is_told},
    {"W5/system-reset-while-serving", system_reset_while_serving},
    {"W18/unplugged-while-serving", unplugged_while_serving},
    {"W29/core-hands-out-both-rights", core_hands_out_both_rights},
};

VT_MAIN(cases)
