/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * viommu-bench: runs one scenario against the machine's virtio-iommu, writes
 * what it measured as JSON and ends QEMU.
 *
 * The scenario runs in a thread of its own that holds the big lock as a vCPU
 * does that accesses a device.  Work of one thread is timed by that thread's CPU
 * clock, which does not run while the thread is preempted; what waits for others
 * is timed by the wall clock.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/notify.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "hw/qdev-core.h"
#include "hw/qdev-properties.h"
#include "standard-headers/linux/virtio_iommu.h"
#include "system/runstate.h"
#include "system/system.h"

#include "hw/compat.h"
#include "driver.h"
#include "endpoint.h"
#include "log.h"

#define TYPE_BENCH "viommu-bench"
OBJECT_DECLARE_SIMPLE_TYPE(Bench, BENCH)

#define PAGE (4 * KiB)
#define DOMAIN 1

/* Where dense mappings start: above the machine's reserved regions. */
#define DENSE_BASE (64 * GiB)

/* Scattered mappings lie anywhere in so many pages from there on. */
#define SCATTER_BASE (1 * TiB)
#define SCATTER_BITS 34

/* A mapping of 2 MiB beside the small ones. */
#define LARGE_IOVA (32 * GiB)
#define LARGE_SIZE (2 * MiB)

/* Few enough pages that the cost is the translation's, not the memory's. */
#define WINDOW_BASE (32 * MiB)
#define WINDOW_PAGES 256
#define LARGE_PHYS (64 * MiB)

/* Mappings added to, and taken from, a set that is populated. */
#define EXTRA_MAX 32768

#define SINGLE_REPEATS 9

/* Of what several threads do at once. */
#define ATTEMPTS 4
#define ATTEMPTS_MAX 12
#define CLEAN_ENOUGH 0.5
#define VERIFY_PAGES 1000
#define SAMPLE_ACCESSES 256
#define SETTLE_ROUNDS 1000

struct Bench {
    DeviceState parent_obj;

    PCIDevice *endpoint;
    PCIDevice *second;
    PCIDevice *bypass;
    uint32_t mappings;
    uint32_t accesses;
    uint32_t span_ms;
    bool scattered;
    char *output;

    BenchDriver *driver;
    uint32_t *order;
    GString *json;
    int64_t busy_ns, wall_ns;
    double clean;
    Notifier machine_done;
    QemuThread thread;
};

typedef enum Pattern {
    SAME,
    SEQUENTIAL,
    RANDOM,
} Pattern;

static void report(Bench *b, const char *name, double value)
{
    char number[G_ASCII_DTOSTR_BUF_SIZE];

    g_ascii_formatd(number, sizeof(number), "%.3f", value);
    g_string_append_printf(b->json, "%s\n    \"%s\": %s",
                           b->json->len ? "," : "", name, number);
}

static int64_t cpu_clock(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * NANOSECONDS_PER_SECOND + ts.tv_nsec;
}

typedef struct Stopwatch {
    int64_t cpu, wall;
} Stopwatch;

static Stopwatch stopwatch_start(void)
{
    return (Stopwatch) { .wall = get_clock(), .cpu = cpu_clock() };
}

static double stopwatch_stop(Bench *b, const Stopwatch *w, uint64_t operations)
{
    int64_t cpu = cpu_clock() - w->cpu;

    b->busy_ns += cpu;
    b->wall_ns += get_clock() - w->wall;
    return (double)cpu / operations;
}

static uint32_t xorshift(uint32_t *state)
{
    uint32_t x = *state;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

static uint64_t resident_bytes(void)
{
    g_autofree char *text = NULL;
    unsigned long size, resident;

    if (!g_file_get_contents("/proc/self/statm", &text, NULL, NULL) ||
        sscanf(text, "%lu %lu", &size, &resident) != 2) {
        error_report("viommu-bench: cannot read /proc/self/statm");
        exit(1);
    }
    return (uint64_t)resident * qemu_real_host_page_size();
}

/*
 * Lets the device do what it puts off until the big lock is free: QEMU's RCU
 * thread may take a tenth of a second from one round to the next.
 */
static void settle(void)
{
    uint64_t was = 0;
    int same = 0;

    for (int i = 0; i < SETTLE_ROUNDS && same < 50; i++) {
        uint64_t now;

        bql_unlock();
        g_usleep(10000);
        bql_lock();
        now = resident_bytes();
        same = now == was ? same + 1 : 0;
        was = now;
    }
}

/* -- the address of a mapping -- */

static uint64_t iova_of(const Bench *b, uint32_t i)
{
    uint64_t x = i, mask = (UINT64_C(1) << SCATTER_BITS) - 1;

    if (!b->scattered) {
        return DENSE_BASE + i * PAGE;
    }
    /* Steps that can be undone modulo 2^SCATTER_BITS: no two i meet. */
    x = x * UINT64_C(0x9e3779b97f4a7c15) & mask;
    x ^= x >> SCATTER_BITS / 2;
    x = x * UINT64_C(0xbf58476d1ce4e5b9) & mask;
    return SCATTER_BASE + x * PAGE;
}

/* Neighbours are not congruent: a translation covers one page. */
static uint64_t phys_of(uint32_t i)
{
    return WINDOW_BASE + (uint64_t)(i * 97) % WINDOW_PAGES * PAGE;
}

static uint64_t tag_of(uint64_t phys)
{
    return phys * UINT64_C(0x2545f4914f6cdd1d) + 1;
}

static void fill_window(void)
{
    for (uint64_t at = 0; at < WINDOW_PAGES * PAGE; at += 8) {
        address_space_stq_le(&address_space_memory, WINDOW_BASE + at,
                             tag_of(WINDOW_BASE + at), MEMTXATTRS_UNSPECIFIED,
                             NULL);
    }
    for (uint64_t at = 0; at < LARGE_SIZE; at += PAGE) {
        address_space_stq_le(&address_space_memory, LARGE_PHYS + at,
                             tag_of(LARGE_PHYS + at), MEMTXATTRS_UNSPECIFIED,
                             NULL);
    }
}

/* -- DMA -- */

static void dma(PCIDevice *device, uint64_t iova, void *buffer, size_t size)
{
    if (pci_dma_read(device, iova, buffer, size) != MEMTX_OK) {
        error_report("viommu-bench: DMA at 0x%" PRIx64 " fails", iova);
        exit(1);
    }
}

static void check_page(PCIDevice *device, uint64_t iova, uint64_t phys)
{
    uint64_t got;

    dma(device, iova, &got, sizeof(got));
    if (le64_to_cpu(got) != tag_of(phys)) {
        error_report("viommu-bench: DMA at 0x%" PRIx64 " reads another page than "
                     "0x%" PRIx64, iova, phys);
        exit(1);
    }
}

/* Figures of a device that translates wrongly are worth nothing. */
static void verify(Bench *b)
{
    uint32_t random = 88172645;

    for (int i = 0; i < VERIFY_PAGES; i++) {
        uint32_t n = xorshift(&random) % b->mappings;
        uint64_t offset = xorshift(&random) % PAGE & ~7u;

        check_page(b->endpoint, iova_of(b, n) + offset, phys_of(n) + offset);
    }
}

/* Not to depend on the cost of a mapping's data, bypassing DMA goes to the window. */
static uint64_t target(const Bench *b, bool bypassing, uint32_t i)
{
    return (bypassing ? phys_of(i) : iova_of(b, i)) + i * 64 % PAGE;
}

static void access_pages(const Bench *b, PCIDevice *device, Pattern pattern,
                         uint32_t count, uint32_t *state)
{
    bool bypassing = device == b->bypass;
    uint64_t value;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t n = 0;

        if (pattern == SEQUENTIAL) {
            n = *state;
            *state = n + 1 == b->mappings ? 0 : n + 1;
        } else if (pattern == RANDOM) {
            n = (uint64_t)xorshift(state) * b->mappings >> 32;
        }
        dma(device, target(b, bypassing, n), &value, sizeof(value));
    }
}

static void measure_access(Bench *b, PCIDevice *device, Pattern pattern,
                           const char *name)
{
    uint32_t state = pattern == RANDOM ? 2463534242u : 0;
    Stopwatch w;

    access_pages(b, device, pattern, b->accesses / 8, &state);
    w = stopwatch_start();
    access_pages(b, device, pattern, b->accesses, &state);
    report(b, name, stopwatch_stop(b, &w, b->accesses));
}

static void measure_large(Bench *b, PCIDevice *device, uint64_t iova,
                          size_t size, const char *name)
{
    static uint8_t buffer[1 * MiB];
    uint32_t count = MAX(8, (uint64_t)b->accesses * 16 * KiB / size / 8);
    Stopwatch w;

    assert(size <= sizeof(buffer));
    dma(device, iova, buffer, size);
    w = stopwatch_start();
    for (uint32_t i = 0; i < count; i++) {
        dma(device, iova, buffer, size);
    }
    report(b, name, stopwatch_stop(b, &w, count));
}

typedef struct Requester {
    const Bench *bench;
    PCIDevice *device;
    Pattern pattern;
    uint32_t seed;
    BenchLog *log;
    int64_t end;
    bool stop;
    QemuThread thread;
} Requester;

static void *requester(void *opaque)
{
    Requester *r = opaque;
    uint32_t state = r->seed;
    uint64_t count = 0;

    rcu_register_thread();
    while (bench_log_add(r->log, count, false) && !qatomic_read(&r->stop) &&
           get_clock() < r->end) {
        access_pages(r->bench, r->device, r->pattern, SAMPLE_ACCESSES, &state);
        count += SAMPLE_ACCESSES;
    }
    rcu_unregister_thread();
    return NULL;
}

static void requester_start(const Bench *b, Requester *r, PCIDevice *device,
                            Pattern pattern, uint32_t seed, BenchLog *log,
                            int64_t end)
{
    *r = (Requester) {
        .bench = b, .device = device, .pattern = pattern, .seed = seed,
        .log = log, .end = end,
    };
    bench_log_init(log, 1 << 18);
    qemu_thread_create(&r->thread, "bench-dma", requester, r,
                       QEMU_THREAD_JOINABLE);
}

static void requester_stop(Requester *r)
{
    qatomic_set(&r->stop, true);
    qemu_thread_join(&r->thread);
}

/* On a very busy machine threads may miss each other several times. */
static bool try_again(int attempt, double clean)
{
    return clean < CLEAN_ENOUGH && attempt < (clean < 0 ? ATTEMPTS_MAX : ATTEMPTS);
}

static uint32_t span_of(const Bench *b, int attempt)
{
    return b->span_ms << MAX(0, attempt - ATTEMPTS + 1);
}

static void note_clean(Bench *b, double clean)
{
    if (clean < 0) {
        error_report("viommu-bench: the threads never ran at the same time");
        exit(1);
    }
    b->clean = MIN(b->clean, clean);
}

/* Returns the share of spans in which no thread was preempted. */
static double access_from_threads(Bench *b, PCIDevice *device, Pattern pattern,
                                  int threads, uint32_t span_ms,
                                  double *together)
{
    static const uint32_t seeds[] = { 2463534242u, 1597463007u };
    Requester r[2];
    BenchLog logs[2];
    double ns[2], clean;
    int64_t end;

    assert(threads <= (int)ARRAY_SIZE(r));
    /* They stop by themselves: this thread need not get a CPU for that. */
    end = get_clock() + (int64_t)span_ms * SCALE_MS;
    for (int i = 0; i < threads; i++) {
        requester_start(b, &r[i], device, pattern, seeds[i], &logs[i], end);
    }
    for (int i = 0; i < threads; i++) {
        qemu_thread_join(&r[i].thread);
    }
    clean = bench_log_medians(logs, threads, ns, together);
    for (int i = 0; i < threads; i++) {
        bench_log_destroy(&logs[i]);
    }
    return clean;
}

/* The best of a few attempts: the one that the rest of the machine disturbed least. */
static double access_undisturbed(Bench *b, PCIDevice *device, Pattern pattern,
                                 int threads)
{
    double best = 0, clean = -1;

    for (int i = 0; try_again(i, clean); i++) {
        double ns, share = access_from_threads(b, device, pattern, threads,
                                               span_of(b, i), &ns);

        if (share > clean) {
            clean = share;
            best = ns;
        }
    }
    note_clean(b, clean);
    return best;
}

static void measure_threads(Bench *b, PCIDevice *device, Pattern pattern,
                            const char *name)
{
    g_autofree char *one = g_strdup_printf("%s.1thread", name);
    g_autofree char *two = g_strdup_printf("%s.2threads", name);

    report(b, one, access_undisturbed(b, device, pattern, 1));
    report(b, two, access_undisturbed(b, device, pattern, 2));
}

/* -- requests -- */

typedef enum Request {
    MAP,
    UNMAP,
    UNKNOWN,
} Request;

static void put_request(Bench *b, Request request, uint32_t i)
{
    uint64_t iova;

    switch (request) {
    case MAP:
        iova = iova_of(b, i);
        bench_driver_map(b->driver, DOMAIN, iova, iova + PAGE - 1, phys_of(i));
        break;
    case UNMAP:
        iova = iova_of(b, i);
        bench_driver_unmap(b->driver, DOMAIN, iova, iova + PAGE - 1);
        break;
    case UNKNOWN:
        bench_driver_unknown(b->driver);
        break;
    }
}

/*
 * One request for each of @count mappings from @first on, or for all in the
 * order of @order.  @log, if any, takes a sample after every kick; @done says
 * how many requests it knows of, and is brought up to date.
 */
static bool send_requests(Bench *b, Request request, uint32_t first,
                          uint32_t count, const uint32_t *order, uint32_t batch,
                          BenchLog *log, uint64_t *done)
{
    /* Devices may leave a request of unknown type unanswered. */
    int status = request == UNKNOWN ? BENCH_ANY_STATUS : VIRTIO_IOMMU_S_OK;
    bool room = !log || bench_log_add(log, *done, true);

    for (uint32_t sent = 0; sent < count;) {
        uint32_t n = MIN(batch, count - sent);

        for (uint32_t i = 0; i < n; i++) {
            put_request(b, request, order ? order[sent + i] : first + sent + i);
        }
        bench_driver_kick(b->driver, status);
        sent += n;
        if (log && room) {
            *done += n;
            room = bench_log_add(log, *done, false);
        }
    }
    return room;
}

static void measure_requests(Bench *b, Request request, uint32_t first,
                             uint32_t count, const uint32_t *order,
                             uint32_t batch, const char *name)
{
    Stopwatch w = stopwatch_start();

    send_requests(b, request, first, count, order, batch, NULL, NULL);
    report(b, name, stopwatch_stop(b, &w, count));
}

static void populate(Bench *b, const uint32_t *order)
{
    send_requests(b, MAP, 0, b->mappings, order, BENCH_BATCH_MAX, NULL, NULL);
}

static uint32_t extra(const Bench *b)
{
    return MIN(MAX(b->mappings, 1024), EXTRA_MAX);
}

static void measure_batches(Bench *b, const char *layout)
{
    static const uint32_t batches[] = { 1, 32, BENCH_BATCH_MAX };
    uint32_t n = extra(b);

    for (int i = 0; i < ARRAY_SIZE(batches); i++) {
        static const struct {
            const char *name;
            Request request;
        } kinds[] = {
            { "unknown", UNKNOWN }, { "map", MAP }, { "unmap", UNMAP },
        };

        for (int k = 0; k < ARRAY_SIZE(kinds); k++) {
            g_autofree char *name = g_strdup_printf("%s.batch%u.%s",
                                                    kinds[k].name, batches[i],
                                                    layout);

            measure_requests(b, kinds[k].request, b->mappings, n, NULL,
                             batches[i], name);
        }
    }
}

static void measure_empty_kick(Bench *b)
{
    uint32_t count = 2000;
    Stopwatch w = stopwatch_start();

    for (uint32_t i = 0; i < count; i++) {
        bench_driver_kick(b->driver, VIRTIO_IOMMU_S_OK);
    }
    report(b, "kick.empty", stopwatch_stop(b, &w, count));
}

static const struct {
    Request request;
    const char *name, *access;
} beside_dma[] = {
    { MAP, "map.beside-dma", "dma.beside-map" },
    { UNMAP, "unmap.beside-dma", "dma.beside-unmap" },
};

/* While another thread does DMA: maps and unmaps again, and so on. */
static double requests_beside_dma(Bench *b, uint32_t span_ms, double ns[2][2])
{
    BenchLog logs[2][2];
    uint64_t done[2] = { 0 };
    Requester r;
    double clean = 1, together;
    int64_t end;
    bool room = true;

    requester_start(b, &r, b->endpoint, RANDOM, 2463534242u, &logs[0][1],
                    INT64_MAX);
    for (int i = 0; i < ARRAY_SIZE(beside_dma); i++) {
        bench_log_init(&logs[i][0], 1 << 16);
    }
    end = get_clock() + (int64_t)span_ms * SCALE_MS;
    do {
        for (int i = 0; i < ARRAY_SIZE(beside_dma); i++) {
            room &= send_requests(b, beside_dma[i].request, b->mappings,
                                  extra(b), NULL, BENCH_BATCH_MAX, &logs[i][0],
                                  &done[i]);
        }
    } while (room && get_clock() < end);
    requester_stop(&r);

    logs[1][1] = logs[0][1];
    for (int i = 0; i < ARRAY_SIZE(beside_dma); i++) {
        clean = MIN(clean, bench_log_medians(logs[i], 2, ns[i], &together));
        bench_log_destroy(&logs[i][0]);
    }
    bench_log_destroy(&logs[0][1]);
    return clean;
}

static void measure_beside_dma(Bench *b)
{
    double best[2][2] = { 0 }, clean = -1;

    for (int i = 0; try_again(i, clean); i++) {
        double ns[2][2], share = requests_beside_dma(b, span_of(b, i), ns);

        if (share > clean) {
            clean = share;
            memcpy(best, ns, sizeof(best));
        }
    }
    note_clean(b, clean);
    for (int i = 0; i < ARRAY_SIZE(beside_dma); i++) {
        report(b, beside_dma[i].name, best[i][0]);
        report(b, beside_dma[i].access, best[i][1]);
    }
}

static uint32_t id_of(PCIDevice *device)
{
    return device->devfn;
}

static void attach(Bench *b, PCIDevice *device)
{
    bench_driver_attach(b->driver, DOMAIN, id_of(device));
    bench_driver_kick(b->driver, VIRTIO_IOMMU_S_OK);
}

static void detach(Bench *b, PCIDevice *device)
{
    bench_driver_detach(b->driver, DOMAIN, id_of(device));
    bench_driver_kick(b->driver, VIRTIO_IOMMU_S_OK);
}

static void measure_second_endpoint(Bench *b)
{
    double attached[SINGLE_REPEATS], detached[SINGLE_REPEATS];

    for (int i = 0; i < SINGLE_REPEATS; i++) {
        attach(b, b->second);
        attached[i] = bench_driver_kick_ns(b->driver);
        check_page(b->second, iova_of(b, 0), phys_of(0));
        detach(b, b->second);
        detached[i] = bench_driver_kick_ns(b->driver);
    }
    report(b, "attach.second", bench_median(attached, SINGLE_REPEATS));
    report(b, "detach.second", bench_median(detached, SINGLE_REPEATS));
}

static void measure_teardown(Bench *b, const uint32_t *order, const char *name)
{
    populate(b, order);
    detach(b, b->endpoint);
    report(b, name, bench_driver_kick_ns(b->driver));
    settle();
    attach(b, b->endpoint);
}

static void measure_unmap_all(Bench *b, const uint32_t *order, const char *name)
{
    populate(b, order);
    bench_driver_unmap(b->driver, DOMAIN, 0, UINT64_MAX);
    bench_driver_kick(b->driver, VIRTIO_IOMMU_S_OK);
    report(b, name, (double)bench_driver_kick_ns(b->driver) / b->mappings);
    settle();
}

static void measure_memory(Bench *b, uint64_t before, uint64_t now,
                           const char *name)
{
    report(b, name, ((double)now - before) / b->mappings);
}

/* -- scenarios -- */

static void run_floors(Bench *b)
{
    measure_access(b, b->bypass, SAME, "floor.dma.same");
    measure_access(b, b->bypass, SEQUENTIAL, "floor.dma.sequential");
    measure_access(b, b->bypass, RANDOM, "floor.dma.random");
    measure_threads(b, b->bypass, RANDOM, "floor.dma.random");
    measure_large(b, b->bypass, LARGE_PHYS, 64 * KiB, "floor.dma.64k");
    measure_large(b, b->bypass, LARGE_PHYS, 1 * MiB, "floor.dma.1m");
    measure_empty_kick(b);
}

static void run_large(Bench *b)
{
    bench_driver_map(b->driver, DOMAIN, LARGE_IOVA, LARGE_IOVA + LARGE_SIZE - 1,
                     LARGE_PHYS);
    bench_driver_kick(b->driver, VIRTIO_IOMMU_S_OK);
    check_page(b->endpoint, LARGE_IOVA + LARGE_SIZE - PAGE,
               LARGE_PHYS + LARGE_SIZE - PAGE);
    measure_large(b, b->endpoint, LARGE_IOVA, 64 * KiB, "dma.64k");
    measure_large(b, b->endpoint, LARGE_IOVA, 1 * MiB, "dma.1m");
    bench_driver_unmap(b->driver, DOMAIN, LARGE_IOVA,
                       LARGE_IOVA + LARGE_SIZE - 1);
    bench_driver_kick(b->driver, VIRTIO_IOMMU_S_OK);
}

static void run_dense(Bench *b)
{
    uint32_t n = b->mappings;
    uint64_t before = resident_bytes();

    measure_requests(b, MAP, 0, n, NULL, BENCH_BATCH_MAX, "map.sequential");
    measure_memory(b, before, resident_bytes(), "memory.dense");
    verify(b);
    measure_requests(b, UNMAP, 0, n, NULL, BENCH_BATCH_MAX, "unmap.sequential");
    settle();
    measure_memory(b, before, resident_bytes(), "memory.kept");

    populate(b, NULL);
    measure_access(b, b->endpoint, SAME, "dma.same");
    measure_access(b, b->endpoint, SEQUENTIAL, "dma.sequential");
    measure_access(b, b->endpoint, RANDOM, "dma.random");
    measure_threads(b, b->endpoint, SAME, "dma.same");
    measure_threads(b, b->endpoint, RANDOM, "dma.random");
    run_large(b);
    measure_second_endpoint(b);
    measure_batches(b, "direct");
    bench_driver_set_indirect(b->driver, true);
    measure_batches(b, "indirect");
    bench_driver_set_indirect(b->driver, false);
    measure_beside_dma(b);
    send_requests(b, UNMAP, 0, n, NULL, BENCH_BATCH_MAX, NULL, NULL);

    measure_requests(b, MAP, 0, n, b->order, BENCH_BATCH_MAX, "map.random");
    verify(b);
    measure_access(b, b->endpoint, RANDOM, "dma.random.shuffled");
    measure_requests(b, UNMAP, 0, n, b->order, BENCH_BATCH_MAX, "unmap.random");

    measure_unmap_all(b, NULL, "unmap.all");
    measure_unmap_all(b, b->order, "unmap.all.shuffled");
    measure_teardown(b, NULL, "teardown");
    measure_teardown(b, b->order, "teardown.shuffled");
}

static void run_scattered(Bench *b)
{
    uint64_t before = resident_bytes();

    measure_requests(b, MAP, 0, b->mappings, NULL, BENCH_BATCH_MAX,
                     "map.scattered");
    measure_memory(b, before, resident_bytes(), "memory.scattered");
    verify(b);
    measure_access(b, b->endpoint, RANDOM, "dma.random.scattered");
    measure_requests(b, UNMAP, 0, b->mappings, NULL, BENCH_BATCH_MAX,
                     "unmap.scattered");
    settle();
    measure_memory(b, before, resident_bytes(), "memory.kept.scattered");
}

static void shuffle(Bench *b)
{
    uint32_t random = 521288629;

    b->order = g_new(uint32_t, b->mappings);
    for (uint32_t i = 0; i < b->mappings; i++) {
        uint32_t j = (uint64_t)xorshift(&random) * (i + 1) >> 32;

        b->order[i] = b->order[j];
        b->order[j] = i;
    }
}

static void write_result(Bench *b)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;

    report(b, "noise.cpu-share", (double)b->busy_ns / b->wall_ns);
    report(b, "noise.clean-spans", b->clean);
    text = g_strdup_printf("{\n  \"mappings\": %u,\n  \"layout\": \"%s\",\n"
                           "  \"metrics\": {%s\n  }\n}\n", b->mappings,
                           b->scattered ? "scattered" : "dense", b->json->str);
    if (!g_file_set_contents(b->output, text, -1, &error)) {
        error_report("viommu-bench: %s", error->message);
        exit(1);
    }
}

static void *run(void *opaque)
{
    Bench *b = opaque;

    rcu_register_thread();
    bql_lock();
    /* Until then a device may leave its queues alone. */
    while (!runstate_is_running()) {
        bql_unlock();
        g_usleep(1000);
        bql_lock();
    }

    b->json = g_string_new(NULL);
    b->clean = 1;
    shuffle(b);
    fill_window();
    b->driver = bench_driver_new(&error_fatal);
    bench_driver_enable_dma(b->endpoint->devfn);
    bench_driver_enable_dma(b->second->devfn);
    bench_driver_enable_dma(b->bypass->devfn);

    attach(b, b->endpoint);
    run_floors(b);
    if (b->scattered) {
        run_scattered(b);
    } else {
        run_dense(b);
    }
    detach(b, b->endpoint);
    bench_driver_free(b->driver);
    write_result(b);

    g_string_free(b->json, true);
    g_free(b->order);
    qemu_system_shutdown_request(SHUTDOWN_CAUSE_HOST_QMP_QUIT);
    bql_unlock();
    rcu_unregister_thread();
    return NULL;
}

static void bench_machine_done(Notifier *notifier, void *data)
{
    Bench *b = container_of(notifier, Bench, machine_done);

    qemu_thread_create(&b->thread, "bench", run, b, QEMU_THREAD_DETACHED);
}

static void bench_realize(DeviceState *dev, Error **errp)
{
    Bench *b = BENCH(dev);

    if (!b->endpoint || !b->second || !b->bypass || !b->output) {
        error_setg(errp, "endpoint, second, bypass and output must be set");
        return;
    }
    if (!b->mappings || !b->accesses || !b->span_ms) {
        error_setg(errp, "mappings, accesses and span-ms must not be 0");
        return;
    }
    b->machine_done.notify = bench_machine_done;
    qemu_add_machine_init_done_notifier(&b->machine_done);
}

static const Property bench_properties[] = {
    DEFINE_PROP_LINK("endpoint", Bench, endpoint, TYPE_BENCH_ENDPOINT,
                     PCIDevice *),
    DEFINE_PROP_LINK("second", Bench, second, TYPE_BENCH_ENDPOINT, PCIDevice *),
    DEFINE_PROP_LINK("bypass", Bench, bypass, TYPE_BENCH_ENDPOINT, PCIDevice *),
    DEFINE_PROP_UINT32("mappings", Bench, mappings, 1000),
    DEFINE_PROP_UINT32("accesses", Bench, accesses, 500000),
    DEFINE_PROP_UINT32("span-ms", Bench, span_ms, 200),
    DEFINE_PROP_BOOL("scattered", Bench, scattered, false),
    DEFINE_PROP_STRING("output", Bench, output),
};

static void bench_class_init(ObjectClass *klass, ViommuClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    device_class_set_props(dc, bench_properties);
    dc->realize = bench_realize;
    dc->user_creatable = true;
    dc->hotpluggable = false;
    dc->desc = "virtio-iommu bench";
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo bench_type = {
    .name = TYPE_BENCH,
    .parent = TYPE_DEVICE,
    .instance_size = sizeof(Bench),
    .class_init = bench_class_init,
};

static void bench_register_types(void)
{
    bench_endpoint_register_types();
    type_register_static(&bench_type);
}

type_init(bench_register_types)
