/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What guests were seen to do to a virtio-iommu: sequences of Linux' driver, and those by which
 * reports to QEMU made its own device fail. */
#include "viommu_test.h"

#include "qobject/qdict.h"
#include <sys/mman.h>

#define IOVA 0x123456000ull
#define MAPPINGS 8u

#define lands(edu, iova, n) edu_write_lands(edu, iova, page(n), 64)

/* ---- Linux resets an ATS-capable function (from 7.0 on): it attaches the function to an empty
 * domain, and after the reset to its own again, which it then fills anew, if it was alone there.
 * ---- */

/* As the driver does it after an ATTACH. */
static void replay(Vt *vt, uint32_t domain, int expected)
{
    for (unsigned i = 0; i < MAPPINGS; i++) {
        uint64_t first = IOVA + 2 * i * PAGE;

        assert_status(vt_map(vt, domain, first, first + PAGE - 1, page(1 + i), MAP_RW), expected);
    }
    assert_status(vt_map(vt, domain, MAILBOX, MAILBOX + PAGE - 1, MAILBOX, MAP_RW), expected);
}

static void assert_reaches_its_pages(Edu *edu)
{
    for (unsigned i = 0; i < MAPPINGS; i++) {
        g_assert_true(lands(edu, IOVA + 2 * i * PAGE, 1 + i));
        g_assert_false(lands(edu, IOVA + (2 * i + 1) * PAGE, 1 + i));
    }
}

static void assert_reaches_nothing(Edu *edu)
{
    for (unsigned i = 0; i < MAPPINGS; i++) {
        g_assert_false(lands(edu, IOVA + 2 * i * PAGE, 1 + i));
        g_assert_false(lands(edu, page(1 + i), 1 + i));
    }
}

/* What a reset through the function's configuration space does to it. */
static void reset_function(Vt *vt, uint16_t bdf)
{
    uint16_t command = pci_read16(vt, bdf, 0x04);
    uint32_t bar = pci_read32(vt, bdf, 0x10);

    pci_write16(vt, bdf, 0x04, 0);
    pci_write32(vt, bdf, 0x10, 0);
    pci_write32(vt, bdf, 0x10, bar);
    pci_write16(vt, bdf, 0x04, command);
}

static Vt *with_two_in_domain_1(const char *properties)
{
    Vt *vt = vt_new_with(properties, "");

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    replay(vt, 1, VS_OK);
    edu_prime(&vt->edu[0]);
    edu_prime(&vt->edu[1]);
    return vt;
}

static void function_alone_is_reset(void)
{
    static const char *const props[] = {"", "boot-bypass=off"};

    for (unsigned p = 0; p < G_N_ELEMENTS(props); p++) {
        Vt *vt = with_two_in_domain_1(props[p]);
        Edu *edu = &vt->edu[0];
        int64_t memory = 0;

        assert_status(vt_detach(vt, 1, EDU1), VS_OK);
        for (unsigned round = 0; round < 5; round++) {
            g_test_message("round %u with \"%s\"", round, props[p]);
            assert_reaches_its_pages(edu);
            assert_status(vt_attach(vt, 2 + round, EDU0, 0), VS_OK);
            assert_reaches_nothing(edu);
            reset_function(vt, EDU0);
            assert_reaches_nothing(edu);
            g_assert_cmpint(vt_counter(vt, "mappings"), ==, 0);
            assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
            assert_reaches_nothing(edu);
            replay(vt, 1, VS_OK);
            g_assert_cmpint(vt_counter(vt, "domains"), ==, 1);
            g_assert_cmpint(vt_counter(vt, "mappings"), ==, MAPPINGS + 1);
            memory = memory ? memory : vt_counter(vt, "memory");
            g_assert_cmpint(vt_counter(vt, "memory"), ==, memory);
        }
        assert_reaches_its_pages(edu);
        vt_free(vt);
    }
}

static void function_that_shares_its_domain_is_reset(void)
{
    static const char *const props[] = {"", "boot-bypass=off"};
    static const uint16_t bdfs[] = {EDU0, EDU1};

    for (unsigned p = 0; p < G_N_ELEMENTS(props); p++) {
        Vt *vt = with_two_in_domain_1(props[p]);

        for (unsigned round = 0; round < 4; round++) {
            Edu *edu = &vt->edu[round % 2], *other = &vt->edu[1 - round % 2];

            g_test_message("round %u with \"%s\"", round, props[p]);
            assert_status(vt_attach(vt, 2, bdfs[round % 2], 0), VS_OK);
            assert_reaches_nothing(edu);
            assert_reaches_its_pages(other);
            reset_function(vt, bdfs[round % 2]);
            assert_reaches_nothing(edu);
            assert_status(vt_attach(vt, 1, bdfs[round % 2], 0), VS_OK);
            assert_reaches_its_pages(edu);
            assert_reaches_its_pages(other);
            /* A driver that does not know of the other changes nothing. */
            replay(vt, 1, VS_INVAL);
            g_assert_cmpint(vt_counter(vt, "domains"), ==, 1);
            g_assert_cmpint(vt_counter(vt, "mappings"), ==, MAPPINGS + 1);
        }
        assert_reaches_its_pages(&vt->edu[0]);
        assert_reaches_its_pages(&vt->edu[1]);
        vt_free(vt);
    }
}

/* ---- suspend to memory, which ends with a reset of the machine ---- */

#define LPC 0x00f8u /* 00:1f.0 */
#define PM_BASE 0x600u

static void suspend_and_wake(Vt *vt)
{
    pci_write32(vt, LPC, 0x40, PM_BASE | 1);
    pci_write32(vt, LPC, 0x44, 0x80);
    /* PM1_CNT: SLP_EN, with the type of S3. */
    qtest_outw(vt->qts, PM_BASE + 4, 1u << 13 | 1u << 10);
    qtest_qmp_eventwait(vt->qts, "SUSPEND");
    /* Up to here nothing has ended. */
    g_assert_cmpint(vt_counter(vt, "mappings"), ==, MAPPINGS + 1);
    qtest_qmp_assert_success(vt->qts, "{'execute': 'system_wakeup'}");
    qtest_qmp_eventwait(vt->qts, "WAKEUP");
    vt_rediscover(vt);
}

static void nothing_is_attached_after_suspend(void)
{
    for (unsigned bypass = 0; bypass < 2; bypass++) {
        g_autofree char *props = g_strdup_printf("boot-bypass=%s", bypass ? "on" : "off");
        Vt *vt = with_two_in_domain_1(props);

        /* The other way round, to see that it gets its first value again. */
        vt_set_bypass(vt, !bypass);
        suspend_and_wake(vt);
        g_assert_cmpint(vt_counter(vt, "domains"), ==, 0);
        g_assert_cmpint(vt_counter(vt, "mappings"), ==, 0);
        g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, bypass);
        for (unsigned i = 0; i < 2; i++) {
            g_assert_false(lands(&vt->edu[i], IOVA, 1));
            g_assert_cmpuint(lands(&vt->edu[i], page(1), 1), ==, bypass);
        }
        /* A driver that begins anew finds a device like any other. */
        vt_bring_up(vt, F_USUAL, true);
        assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
        replay(vt, 1, VS_OK);
        assert_reaches_its_pages(&vt->edu[0]);
        vt_free(vt);
    }
}

/* ---- report 2359 to QEMU: a PROBE whose answer does not fit ended QEMU with an assertion ---- */

static void probe_without_room_for_its_answer(void)
{
    Vt *vt = vt_boot("", "");
    Queue *q = &vt->req;
    uint64_t in = vt_alloc(vt, 1024), out = vt_alloc(vt, 16);
    uint32_t len;

    qtest_memset(vt->qts, in, 0, 1024);
    qtest_writeb(vt->qts, in, REQ_PROBE);
    vt_bring_up(vt, F_USUAL, false);
    /* The same chain in every place of the ring. */
    queue_write_desc(q, 0, in, 1024, DESC_NEXT, 1);
    queue_write_desc(q, 1, out, 4, DESC_WRITE, 0);
    qtest_memset(vt->qts, out, UNWRITTEN, 4);
    for (unsigned i = 0; i < q->size; i++) {
        queue_publish(q, 0);
    }
    queue_kick(q);
    vt_settle(vt);
    g_assert_cmpuint(queue_device_used_idx(q), ==, 0);
    virtio_driver_ok(&vt->iommu);
    queue_kick(q);
    for (unsigned i = 0; i < q->size; i++) {
        g_assert_cmpuint(queue_wait(q, &len), ==, 0);
        g_assert_cmpuint(len, ==, 4);
    }
    g_assert_cmphex(qtest_readl(vt->qts, out), ==, VS_INVAL);
    vt_assert_alive(vt);
    vt_free(vt);
}

/* ---- report 3930 to QEMU: a driver that never lets the queue run empty kept others from their
 * turn, QEMU's freeing of what the requests left behind among them, until no memory was left ----
 */

#define BATCH 128u

typedef struct Endless {
    Vt *vt;
    char *path;
    uint8_t *ram;
    uint64_t tails;
    uint64_t served;
    bool stop;
    int64_t peak; /* of RssAnon while it was serving, KiB */
} Endless;

/* The C library gives back at once what is freed, so that what is left is in use. */
static void do_not_hoard_memory(void)
{
    g_setenv("MALLOC_MMAP_THRESHOLD_", "4096", true);
    g_setenv("MALLOC_TRIM_THRESHOLD_", "0", true);
}

/* Guest memory that this process writes to as a processor of the guest would, while QEMU's main
 * loop is busy with the queue. */
static void endless_start(Endless *e)
{
    g_autofree char *args = NULL;
    int file = g_file_open_tmp("viommu-ram-XXXXXX", &e->path, NULL);

    g_assert_cmpint(file, >=, 0);
    do_not_hoard_memory();
    args = g_strdup_printf("-object memory-backend-file,id=ram,size=%lluM,share=on,mem-path=%s "
                           "-machine memory-backend=ram",
                           RAM_SIZE / MIB, e->path);
    e->vt = vt_new_with("", args);
    e->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    g_assert_true(e->ram != MAP_FAILED);
    close(file);
    unlink(e->path);
}

static void endless_end(Endless *e)
{
    vt_free(e->vt);
    munmap(e->ram, RAM_SIZE);
    g_free(e->path);
}

/* These requests in turn are in every place of the ring. */
static void endless_fill(Endless *e, const Request *reqs, unsigned n)
{
    Queue *q = &e->vt->req;
    uint64_t in = vt_alloc(e->vt, sizeof(reqs->bytes) * n);

    g_assert_cmpuint(q->size, ==, 2 * BATCH);
    e->tails = vt_alloc(e->vt, 16 * BATCH);
    qtest_memset(e->vt->qts, e->tails, 0, 16 * BATCH);
    for (unsigned i = 0; i < n; i++) {
        qtest_memwrite(e->vt->qts, in + sizeof(reqs->bytes) * i, reqs[i].bytes, reqs[i].len);
    }
    while (q->avail_idx % q->size) {
        vt_assert_alive(e->vt);
    }
    for (uint16_t i = 0; i < BATCH; i++) {
        queue_write_desc(q, 2 * i, in + sizeof(reqs->bytes) * (i % n), reqs[i % n].len, DESC_NEXT,
                         2 * i + 1);
        queue_write_desc(q, 2 * i + 1, e->tails + 16 * i, 4, DESC_WRITE, 0);
        qtest_writew(e->vt->qts, q->avail + 4 + 2 * i, 2 * i);
        qtest_writew(e->vt->qts, q->avail + 4 + 2 * (i + BATCH), 2 * i);
    }
}

static uint16_t *endless_index(Endless *e, uint64_t ring)
{
    return (uint16_t *)(void *)(e->ram + ring + 2);
}

/* A processor of the guest that keeps the ring full. */
static void *endless_refill(void *opaque)
{
    Endless *e = opaque;
    Queue *q = &e->vt->req;
    uint16_t *avail = endless_index(e, q->avail), *used = endless_index(e, q->used);

    while (!__atomic_load_n(&e->stop, __ATOMIC_RELAXED)) {
        uint16_t now = le16_to_cpu(__atomic_load_n(used, __ATOMIC_ACQUIRE));

        __atomic_fetch_add(&e->served, (uint16_t)(now - q->used_idx), __ATOMIC_RELAXED);
        q->used_idx = now;
        q->avail_idx = now + BATCH;
        __atomic_store_n(avail, cpu_to_le16(q->avail_idx), __ATOMIC_RELEASE);
        g_thread_yield();
    }
    return NULL;
}

/* Under AddressSanitizer what is freed stays for long, to tell who uses it then. */
static bool freed_memory_is_kept(void)
{
    if (!g_getenv("VIOMMU_TEST_KEEPS_FREED")) {
        return false;
    }
    g_test_skip("this QEMU keeps what it frees: its size tells nothing");
    return true;
}

/* KiB of QEMU's own. */
static int64_t resident(Vt *vt)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status", qtest_pid(vt->qts));
    g_autofree char *text = NULL;
    const char *line;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    line = strstr(text, "RssAnon:");
    g_assert_nonnull(line);
    return g_ascii_strtoll(line + strlen("RssAnon:"), NULL, 10);
}

/* Until so many are served.  Meanwhile kicks come back and the monitor answers. */
static void endless_serve(Endless *e, uint64_t requests)
{
    Queue *q = &e->vt->req;
    int64_t refused = vt_counter(e->vt, "requests-refused");
    GThread *thread;

    e->served = 0;
    e->stop = false;
    thread = g_thread_new("refill", endless_refill, e);
    while (__atomic_load_n(&e->served, __ATOMIC_RELAXED) < requests) {
        queue_kick(q);
        g_assert_cmpint(vt_counter(e->vt, "requests-refused"), ==, refused);
        e->peak = MAX(e->peak, resident(e->vt));
    }
    __atomic_store_n(&e->stop, true, __ATOMIC_RELAXED);
    g_thread_join(thread);
    queue_kick(q);
    while (queue_device_used_idx(q) != q->avail_idx) {
        ;
    }
    q->used_idx = q->avail_idx;
    for (unsigned i = 0; i < BATCH; i++) {
        g_assert_cmphex(e->ram[e->tails + 16 * i], ==, VS_OK);
    }
}

/* The same when what QEMU frees after a grace period has been freed. */
static int64_t resident_at_rest(Vt *vt)
{
    int64_t before = -1, now = resident(vt);

    for (unsigned i = 0; i < 50 && now != before; i++) {
        before = now;
        g_usleep(300000);
        vt_settle(vt);
        now = resident(vt);
    }
    return now;
}

/* After a first round all that a round needs is there.  Three more may not take `slack` KiB. */
static void assert_no_growth(Vt *vt, void (*round)(void *), void *opaque, int64_t slack)
{
    int64_t first, last;

    round(opaque);
    first = resident_at_rest(vt);
    for (unsigned i = 0; i < 3; i++) {
        round(opaque);
        last = resident_at_rest(vt);
        g_test_message("%" PRId64 " KiB after the first round, now %" PRId64, first, last);
    }
    g_assert_cmpint(last - first, <, slack);
}

/* Each switches the memory topology of the machine, and the old one waits to be freed: 25 KiB.
 * How many wait, QEMU's RCU thread decides. */
/* QEMU #3930: each leaves views of memory behind, 200 KiB that are freed after a grace period. */
static void endless_switches_let_others_have_a_turn(void)
{
    Endless e = {0};
    Request reqs[] = {req_attach(1, EDU0, 0), req_detach(1, EDU0)};
    int64_t before;

    if (freed_memory_is_kept()) {
        return;
    }
    endless_start(&e);
    endless_fill(&e, reqs, 2);
    endless_serve(&e, 500);
    before = resident_at_rest(e.vt);
    e.peak = 0;
    endless_serve(&e, 20000);
    g_test_message("RssAnon %" PRIi64 " KiB, at most %" PRIi64, before, e.peak);
    g_assert_cmpint(e.peak - before, <, 32 * 1024);
    vt_assert_alive(e.vt);
    endless_end(&e);
}

#define MOVES 40000u

static void serve_moves(void *opaque)
{
    endless_serve(opaque, MOVES);
}

/* Each ends a domain with its mapping and begins another. */
static void endless_moves_take_no_memory(void)
{
    Endless e = {0};
    Request reqs[] = {
        req_attach(1, EDU0, 0),
        req_map(1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW),
        req_attach(2, EDU0, 0),
        req_map(2, IOVA, IOVA + PAGE - 1, page(1), MAP_RW),
    };

    if (freed_memory_is_kept()) {
        return;
    }
    endless_start(&e);
    endless_fill(&e, reqs, 4);
    assert_no_growth(e.vt, serve_moves, &e, 1024);
    endless_end(&e);
}

static void serve_maps(void *opaque)
{
    endless_serve(opaque, 2 * MOVES);
}

static void endless_maps_take_no_memory(void)
{
    Endless e = {0};
    Request reqs[] = {
        req_map(1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW),
        req_unmap(1, IOVA, IOVA + PAGE - 1),
    };

    if (freed_memory_is_kept()) {
        return;
    }
    endless_start(&e);
    assert_status(vt_attach(e.vt, 1, EDU0, 0), VS_OK);
    endless_fill(&e, reqs, 2);
    assert_no_growth(e.vt, serve_maps, &e, 1024);
    endless_end(&e);
}

/* The driver comes and goes, with what it attached and mapped. */
static void reset_many_times(void *opaque)
{
    Vt *vt = opaque;

    for (unsigned i = 0; i < 250; i++) {
        vt->next_queue = QUEUE_BASE;
        vt_bring_up(vt, F_USUAL, true);
        assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
        assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
        if (i % 2) {
            virtio_reset(&vt->iommu);
        }
    }
}

static void resets_take_no_memory(void)
{
    Vt *vt;

    if (freed_memory_is_kept()) {
        return;
    }
    do_not_hoard_memory();
    vt = vt_boot("", "");
    assert_no_growth(vt, reset_many_times, vt, 512);
    vt_free(vt);
}

static const Case cases[] = {
    {"DET-D1/function-alone-is-reset", function_alone_is_reset},
    {"ATT-4/function-that-shares-its-domain-is-reset", function_that_shares_its_domain_is_reset},
    {"INI-D1/nothing-is-attached-after-suspend", nothing_is_attached_after_suspend},
    {"PRB-7/probe-without-room-for-its-answer", probe_without_room_for_its_answer},
    {"W24/endless-switches-let-others-have-a-turn", endless_switches_let_others_have_a_turn},
    {"W11/endless-moves-take-no-memory", endless_moves_take_no_memory},
    {"W11/endless-maps-take-no-memory", endless_maps_take_no_memory},
    {"W11/resets-take-no-memory", resets_take_no_memory},
};

VT_MAIN(cases)
