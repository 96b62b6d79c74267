/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzes the device inside QEMU: rings, registers, DMA, resets and hotplug as
 * a seed's random numbers have them.  One process and one QEMU per seed.
 *
 * Nothing that is done may end QEMU, keep it from answering, or make it print
 * an assertion or a sanitizer's report, or more than a line for each reset of
 * a device.  After each round a driver resets the
 * device, which then has to work: no domain is left, what is mapped is reached,
 * and what is not mapped is not.
 */
#include "../qtest/viommu_test.h"

#include <sys/mman.h>
#include <sys/prctl.h>

#include "qemu/atomic.h"
#include "qobject/qdict.h"

#define ROUNDS 4
#define STEPS 250
/* Seconds that one step may take; it usually is far less than a millisecond. */
#define LIMIT 60
/* Bytes that QEMU may take to say what broke a device. */
#define LINE 128

#define DISK 0x0038u /* 00:07.0 */
#define PORT 0x0028u /* 00:05.0 */
#define MMIO_BASE 0xfeb00000ull
#define DISK_QUEUE (QUEUE_BASE + 8 * 0x3000)
#define SECTOR 512u

/* Offsets in the common configuration structure that the bench has no name for. */
#define COMMON_QUEUE_SELECT 22u
#define COMMON_QUEUE_RESET 58u
#define COMMON_SIZE 60u

typedef struct Fuzz {
    GRand *rand;
    Vt *vt;
    bool on_mmio;
    bool disk_present;
    bool moved; /* the PCI configuration is not what the bench made it */
    Virtio disk;
    Queue disk_queue;
    uint64_t disk_header;
    bool log;
    unsigned resets;    /* of either device, by its driver */
    unsigned *progress; /* steps so far, seen by whoever watches for a hang */
} Fuzz;

/* ---- random things ---- */

static uint32_t below(Fuzz *f, uint32_t n)
{
    return (uint32_t)(((uint64_t)g_rand_int(f->rand) * n) >> 32);
}

static bool one_in(Fuzz *f, uint32_t n)
{
    return below(f, n) == 0;
}

static uint64_t any64(Fuzz *f)
{
    return (uint64_t)g_rand_int(f->rand) << 32 | g_rand_int(f->rand);
}

/* Guest memory that nothing else depends on. */
static uint64_t ram(Fuzz *f)
{
    return page(below(f, 64)) + (one_in(f, 2) ? 0 : below(f, PAGE));
}

/* Registers of the IOMMU, and of other functions. */
static uint64_t registers(Fuzz *f)
{
    Virtio *iommu = &f->vt->iommu;

    switch (below(f, f->on_mmio ? 1 : 5)) {
    case 0:
        return f->on_mmio ? iommu->mmio + below(f, 0x200) : iommu->common + below(f, COMMON_SIZE);
    case 1:
        return iommu->device + below(f, CONFIG_SIZE);
    case 2:
        return iommu->notify + below(f, 8);
    case 3:
        return iommu->isr;
    default:
        return f->vt->edu[0].regs + below(f, 0x80);
    }
}

/* I/O threads that touch registers wait for the big lock, which whoever stops
 * them holds; so with a disk there is memory or nothing behind an address. */
static uint64_t physical(Fuzz *f)
{
    switch (below(f, 8)) {
    case 0:
        return 0;
    case 1:
        return vt_ram + RAM_SIZE - PAGE * below(f, 3);
    case 2:
        return UINT64_MAX - PAGE * below(f, 3) + 1;
    case 3:
        return f->disk_present ? ram(f) : registers(f) & ~(PAGE - 1);
    case 4:
        return any64(f) & ~(PAGE - 1);
    default:
        return ram(f) & ~(PAGE - 1);
    }
}

/* Where rings and descriptors may lead. */
static uint64_t anywhere(Fuzz *f)
{
    switch (below(f, 14)) {
    case 0:
        return below(f, 64);
    case 1:
        return vt_ram + RAM_SIZE - below(f, 64);
    case 2:
        return UINT64_MAX - below(f, 64);
    case 3:
        return registers(f);
    case 4:
        return QUEUE_BASE + below(f, 0x6000);
    case 5:
        return any64(f);
    case 6:
        return MSI_START + below(f, PAGE);
    default:
        return ram(f);
    }
}

/* Few, so that requests and DMA meet. */
static uint64_t iova(Fuzz *f)
{
    uint64_t offset = PAGE * below(f, 24);

    switch (below(f, 8)) {
    case 0:
        return offset;
    case 1:
        return BIT64(39) - PAGE - offset;
    case 2:
        return 0 - PAGE - offset;
    case 3:
        return MSI_START - 12 * PAGE + offset;
    case 4:
        return page(0) + offset;
    default:
        return 0x40000000 + offset;
    }
}

static uint32_t length(Fuzz *f)
{
    static const uint32_t usual[] = {0, 1, 3, 4, 8, 20, 24, 28, 36, 72, 516, 4096, UINT32_MAX};

    return one_in(f, 4) ? below(f, 1u << below(f, 32)) : usual[below(f, G_N_ELEMENTS(usual))];
}

static uint32_t value(Fuzz *f)
{
    switch (below(f, 5)) {
    case 0:
        return below(f, 4);
    case 1:
        return 1u << below(f, 32);
    case 2:
        return 0u - below(f, 3);
    case 3:
        return (uint32_t)anywhere(f);
    default:
        return g_rand_int(f->rand);
    }
}

static uint32_t endpoint(Fuzz *f)
{
    static const uint32_t known[] = {EDU0,       EDU0,      EDU1,   DISK,
                                     DISK,       PORT,      0x0100, 0xffff0002,
                                     0xffff0003, IOMMU_BDF, NOBODY, 0x20000 + EDU0};

    return one_in(f, 16) ? value(f) : known[below(f, G_N_ELEMENTS(known))];
}

static uint32_t domain(Fuzz *f)
{
    return one_in(f, 16) ? value(f) : 1 + below(f, 3);
}

/* Mostly one that a driver would send. */
static Request request(Fuzz *f)
{
    uint64_t first = iova(f);
    uint64_t size = PAGE << (one_in(f, 4) ? below(f, 52) : below(f, 4));
    Request req;

    switch (below(f, 10)) {
    case 0:
    case 1:
        req = req_attach(domain(f), endpoint(f), one_in(f, 6) ? ATTACH_BYPASS : 0);
        break;
    case 2:
        req = req_detach(domain(f), endpoint(f));
        break;
    case 3:
    case 4:
    case 5:
    case 6:
        req = req_map(domain(f), first, first + size - 1, physical(f), below(f, 8));
        break;
    case 7:
    case 8:
        req = req_unmap(domain(f), one_in(f, 8) ? 0 : first,
                        one_in(f, 8) ? UINT64_MAX : first + size - 1);
        break;
    default:
        req = req_probe(endpoint(f));
        break;
    }
    if (one_in(f, 5)) {
        req.bytes[below(f, req.len)] = (uint8_t)value(f);
    }
    if (one_in(f, 10)) {
        req.len = below(f, sizeof(req.bytes));
    }
    return req;
}

/* ---- rings ---- */

static Queue *any_queue(Fuzz *f)
{
    return one_in(f, 3) ? &f->vt->evt : &f->vt->req;
}

typedef struct Descriptor {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
} Descriptor;

/* A request in pieces and room for its answer, then spoilt here and there. */
static unsigned chain(Fuzz *f, Descriptor *out, unsigned max, uint16_t first, uint16_t size)
{
    Vt *vt = f->vt;
    Request req = request(f);
    uint64_t at = vt_alloc(vt, sizeof(req.bytes)), answer = vt_alloc(vt, KIB);
    uint32_t room = req.bytes[0] == REQ_PROBE ? vt->probe_size + 4 : 4;
    unsigned n = 0;

    if (one_in(f, 8)) {
        room = length(f);
    }
    qtest_memwrite(vt->qts, at, req.bytes, sizeof(req.bytes));
    for (uint32_t done = 0; done < req.len && n < max - 1;) {
        uint32_t piece = one_in(f, 4) ? 1 + below(f, req.len - done) : req.len - done;

        out[n++] = (Descriptor){at + done, piece, DESC_NEXT, 0};
        done += piece;
    }
    out[n++] = (Descriptor){answer, room, DESC_WRITE, 0};
    for (unsigned i = 0; i < n; i++) {
        out[i].next = (uint16_t)((first + i + 1) % size);
        if (one_in(f, 12)) {
            out[i].addr = anywhere(f);
        }
        if (one_in(f, 16)) {
            out[i].len = length(f);
        }
        if (one_in(f, 24)) {
            out[i].flags ^= (uint16_t)(1u << below(f, 3));
        }
        if (one_in(f, 24)) {
            out[i].next = (uint16_t)below(f, one_in(f, 2) ? size : 65536);
        }
    }
    return n;
}

static void send_chain(Fuzz *f)
{
    Vt *vt = f->vt;
    Queue *q = any_queue(f);
    bool indirect = one_in(f, 4);
    uint16_t head = (uint16_t)below(f, q->size);
    Descriptor descs[16];
    unsigned n = chain(f, descs, G_N_ELEMENTS(descs), indirect ? 0 : head,
                       indirect ? G_N_ELEMENTS(descs) : q->size);

    if (indirect) {
        uint64_t table = vt_alloc(vt, sizeof(descs));
        uint8_t bytes[16 * G_N_ELEMENTS(descs)];

        for (unsigned i = 0; i < n; i++) {
            stq_le_p(bytes + 16 * i, descs[i].addr);
            stl_le_p(bytes + 16 * i + 8, descs[i].len);
            stw_le_p(bytes + 16 * i + 12, descs[i].flags);
            stw_le_p(bytes + 16 * i + 14, descs[i].next);
        }
        qtest_memwrite(vt->qts, table, bytes, 16 * n);
        queue_write_desc(q, head, one_in(f, 12) ? anywhere(f) : table,
                         one_in(f, 8) ? length(f) : 16 * n,
                         (uint16_t)(DESC_INDIRECT | (one_in(f, 12) ? below(f, 8) : 0)),
                         (uint16_t)below(f, q->size));
    } else {
        for (unsigned i = 0; i < n; i++) {
            queue_write_desc(q, (uint16_t)((head + i) % q->size), descs[i].addr, descs[i].len,
                             descs[i].flags, descs[i].next);
        }
    }
    queue_publish(q, one_in(f, 32) ? (uint16_t)value(f) : head);
    if (!one_in(f, 4)) {
        queue_kick(q);
    }
}

/* Ones that are well-formed, so that there is something to lose. */
static void send_requests(Fuzz *f)
{
    Vt *vt = f->vt;

    for (unsigned n = 1 + below(f, 12); n; n--) {
        Request req = request(f);
        uint32_t room = req.bytes[0] == REQ_PROBE ? vt->probe_size + 4 : 4;
        uint64_t at = vt_alloc(vt, sizeof(req.bytes));
        Seg segs[] = {{at, MAX(req.len, 1), false}, {vt_alloc(vt, KIB), room, true}};

        qtest_memwrite(vt->qts, at, req.bytes, sizeof(req.bytes));
        queue_add(&vt->req, segs, 2);
    }
    queue_kick(&vt->req);
}

static void post_events(Fuzz *f)
{
    for (unsigned n = 1 + below(f, 16); n; n--) {
        Seg seg = {vt_alloc(f->vt, 64), one_in(f, 4) ? below(f, 64) : FAULT_RECORD_SIZE, true};

        queue_add(&f->vt->evt, &seg, 1);
    }
    queue_kick(&f->vt->evt);
}

static void scribble_on_rings(Fuzz *f)
{
    Queue *q = any_queue(f);
    uint8_t bytes[64];
    uint64_t at = QUEUE_BASE + below(f, 0x6000 - sizeof(bytes));

    switch (below(f, 3)) {
    case 0:
        qtest_writew(f->vt->qts, q->avail + 2, (uint16_t)value(f));
        break;
    case 1:
        qtest_writew(f->vt->qts, q->avail, (uint16_t)value(f));
        break;
    default:
        for (unsigned i = 0; i < sizeof(bytes); i++) {
            bytes[i] = (uint8_t)value(f);
        }
        qtest_memwrite(f->vt->qts, at, bytes, 1 + below(f, sizeof(bytes)));
        break;
    }
    queue_kick(q);
}

/* ---- registers ---- */

static void poke(Fuzz *f, uint64_t at)
{
    QTestState *qts = f->vt->qts;
    uint64_t v = one_in(f, 4) ? anywhere(f) : value(f);

    switch (below(f, 8)) {
    case 0:
        qtest_writeb(qts, at, (uint8_t)v);
        break;
    case 1:
        qtest_writew(qts, at, (uint16_t)v);
        break;
    case 2:
    case 3:
        qtest_writel(qts, at, (uint32_t)v);
        break;
    case 4:
        qtest_writeq(qts, at, v);
        break;
    case 5:
        qtest_readb(qts, at);
        break;
    case 6:
        qtest_readl(qts, at);
        break;
    default:
        qtest_readq(qts, at);
        break;
    }
}

static void poke_registers(Fuzz *f)
{
    static const uint16_t mmio[] = {MMIO_DFSELECT, MMIO_GF,
                                    MMIO_GFSELECT, MMIO_Q_SELECT,
                                    MMIO_Q_SIZE,   MMIO_Q_READY,
                                    MMIO_Q_NOTIFY, MMIO_STATUS,
                                    MMIO_Q_DESC,   MMIO_Q_DESC + 4,
                                    MMIO_Q_AVAIL,  MMIO_Q_USED,
                                    MMIO_ISR_ACK,  MMIO_CONFIG + CONFIG_BYPASS};
    Virtio *iommu = &f->vt->iommu;

    if (f->on_mmio && !one_in(f, 4)) {
        mmio_write(iommu, mmio[below(f, G_N_ELEMENTS(mmio))], value(f));
        return;
    }
    poke(f, registers(f));
}

static void select_and_poke(Fuzz *f)
{
    Virtio *iommu = &f->vt->iommu;
    QTestState *qts = f->vt->qts;
    uint16_t queue = (uint16_t)below(f, 3);

    if (f->on_mmio) {
        mmio_write(iommu, MMIO_Q_SELECT, queue);
        mmio_write(iommu, one_in(f, 2) ? MMIO_Q_READY : MMIO_Q_SIZE, below(f, 3));
        return;
    }
    qtest_writew(qts, iommu->common + COMMON_QUEUE_SELECT, queue);
    if (one_in(f, 2)) {
        qtest_writew(qts, iommu->common + COMMON_QUEUE_RESET, 1);
    } else {
        poke(f, iommu->common + 24 + 2 * below(f, 18));
    }
}

static void toggle_bypass(Fuzz *f)
{
    qtest_writeb(f->vt->qts, f->vt->iommu.device + CONFIG_BYPASS,
                 one_in(f, 8) ? (uint8_t)value(f) : (uint8_t)below(f, 2));
}

static void write_pci_config(Fuzz *f)
{
    static const uint16_t functions[] = {IOMMU_BDF, IOMMU_BDF, EDU0, EDU1, PORT, PORT};
    uint16_t bdf = functions[below(f, G_N_ELEMENTS(functions))];
    unsigned at = one_in(f, 2) ? 4 * below(f, 64) : 4;

    f->moved = true;
    switch (below(f, 4)) {
    case 0:
        pci_write16(f->vt, bdf, 4, (uint16_t)below(f, 8));
        break;
    case 1:
        bridge_set_buses(f->vt, PORT, (uint8_t)below(f, 3), (uint8_t)below(f, 4),
                         (uint8_t)below(f, 4));
        break;
    case 2:
        pci_write16(f->vt, bdf, at, (uint16_t)value(f));
        break;
    default:
        pci_write32(f->vt, bdf, at, value(f));
        break;
    }
}

/* ---- DMA ---- */

static void dma_by_edu(Fuzz *f)
{
    Edu *edu = &f->vt->edu[below(f, 2)];
    uint64_t to = (one_in(f, 4) ? anywhere(f) : iova(f)) + (one_in(f, 3) ? below(f, PAGE) : 0);
    unsigned len = 1 + below(f, one_in(f, 4) ? 2048 : 64);

    /* The lower half of its buffer holds the pattern that edu_write_lands() wants. */
    if (one_in(f, 2)) {
        edu_to_ram(edu, to, 0, len);
    } else {
        edu_from_ram(edu, to, 2048, len);
    }
}

/* What its thread still does needs the big lock now and then. */
static void disk_quiet(Fuzz *f)
{
    for (unsigned i = 0; i < 3; i++) {
        vt_settle(f->vt);
        g_usleep(1000);
    }
}

static void disk_open(Fuzz *f)
{
    uint64_t next = f->vt->next_queue;

    disk_quiet(f);
    f->resets++;
    g_assert_true(virtio_negotiate(&f->disk, F_VERSION_1 | F_ACCESS_PLATFORM));
    f->vt->next_queue = DISK_QUEUE;
    queue_init(&f->disk, &f->disk_queue, 0);
    f->vt->next_queue = next;
    virtio_driver_ok(&f->disk);
}

static void disk_send(Fuzz *f, uint64_t buffer, uint32_t len)
{
    Seg segs[] = {{f->disk_header, 16, false}, {buffer, len, true}, {f->disk_header + 32, 1, true}};

    queue_add(&f->disk_queue, segs, 3);
}

static void dma_by_disk(Fuzz *f)
{
    if (one_in(f, 6)) {
        disk_open(f);
    }
    for (unsigned n = 1 + below(f, 8); n; n--) {
        uint64_t to = one_in(f, 2) ? page(below(f, 64)) : 0x40000000 + PAGE * below(f, 24);

        disk_send(f, to, SECTOR << below(f, 7));
    }
    queue_kick(&f->disk_queue);
}

/* ---- life ---- */

static void quiet_qmp(Fuzz *f, const char *command)
{
    qobject_unref(qtest_qmp(f->vt->qts, "{'execute': %s}", command));
}

/* How much this process' QEMU has printed. */
static size_t printed(void)
{
    off_t size = lseek(STDERR_FILENO, 0, SEEK_END);
    g_autofree char *text = g_malloc0((size_t)size + 1);
    size_t bytes = 0;

    g_assert_cmpint(pread(STDERR_FILENO, text, (size_t)size, 0), ==, size);
    for (const char *line = text; *line;) {
        size_t length = strcspn(line, "\n");

        if (g_str_has_prefix(line, "qemu-system-")) {
            bytes += length;
        }
        line += length + (line[length] == '\n');
    }
    return bytes;
}

/* QEMU looks each device's rings up again at every change of the memory topology. */
static void change_topology_often(Fuzz *f)
{
    size_t before = printed();

    for (unsigned i = 0; i < 64; i++) {
        qtest_writeb(f->vt->qts, f->vt->iommu.device + CONFIG_BYPASS, i % 2);
    }
    g_assert_cmpuint(printed() - before, <=, 4 * LINE);
}

/* Whatever the driver's last words were: queues and features, some of them odd. */
static void bring_up(Fuzz *f)
{
    Vt *vt = f->vt;
    uint64_t offered;

    if (f->moved) {
        return;
    }
    if (f->disk_present) {
        virtio_reset(&f->disk);
    }
    f->resets++;
    vt->next_queue = QUEUE_BASE;
    offered = virtio_offered(&vt->iommu);
    if (!virtio_negotiate(&vt->iommu, one_in(f, 3) ? offered & any64(f) : F_USUAL)) {
        g_assert_true(virtio_negotiate(&vt->iommu, F_USUAL));
    }
    queue_init(&vt->iommu, &vt->req, 0);
    if (one_in(f, 8)) {
        vt->iommu.dma_base = vt_ram + RAM_SIZE - 16 - vt->next_queue;
    }
    queue_init(&vt->iommu, &vt->evt, 1);
    vt->iommu.dma_base = 0;
    if (!one_in(f, 6)) {
        virtio_driver_ok(&vt->iommu);
    }
    if (f->disk_present) {
        disk_open(f);
    }
}

static void plug(Fuzz *f)
{
    qobject_unref(qtest_qmp(f->vt->qts, "{'execute': 'device_add', 'arguments': {"
                                        "'driver': 'edu', 'id': 'hot', 'bus': 'rp1', "
                                        "'addr': '0.0', 'dma_mask': 281474976710655}}"));
}

static void unplug(Fuzz *f)
{
    unsigned cap = pci_find_cap(f->vt, PORT, 0x10, 0);

    qobject_unref(qtest_qmp(f->vt->qts, "{'execute': 'device_del', 'arguments': {'id': 'hot'}}"));
    if (cap && one_in(f, 2)) {
        pci_write16(f->vt, PORT, cap + 0x18, 0x0700); /* slot power off */
    }
}

static void slot_power(Fuzz *f)
{
    unsigned cap = pci_find_cap(f->vt, PORT, 0x10, 0);

    if (cap) {
        pci_write16(f->vt, PORT, cap + 0x18, one_in(f, 2) ? 0x0100 : 0x0700);
    }
}

static QDict *read_stats(Fuzz *f)
{
    QDict *reply = qtest_qmp(
        f->vt->qts, "{'execute': 'qom-get', 'arguments': {'path': %s, 'property': 'stats'}}",
        f->on_mmio ? "/machine/peripheral/iommu0" : "/machine/peripheral/iommu0/virtio-backend");
    QDict *stats = qdict_get_qdict(reply, "return");

    g_assert_nonnull(stats);
    qobject_ref(stats);
    qobject_unref(reply);
    return stats;
}

static void look(Fuzz *f)
{
    qobject_unref(read_stats(f));
    qobject_unref(qtest_qmp(
        f->vt->qts, "{'execute': 'qom-get', 'arguments': {'path': %s, 'property': 'endpoints'}}",
        f->on_mmio ? "/machine/peripheral/iommu0" : "/machine/peripheral/iommu0/virtio-backend"));
}

static void find_devices(Fuzz *f)
{
    Vt *vt = f->vt;

    if (f->on_mmio) {
        virtio_mmio_probe(vt, &vt->iommu, MMIO_BASE + 0x200, ID_IOMMU);
        virtio_mmio_probe(vt, &f->disk, MMIO_BASE + 0x400, ID_BLK);
    } else {
        vt_rediscover(vt);
        if (f->disk_present) {
            virtio_probe(vt, &f->disk, DISK);
        }
        bridge_open(vt, PORT, 1, 1);
    }
    f->moved = false;
}

static void system_reset(Fuzz *f)
{
    if (f->disk_present) {
        disk_quiet(f);
    }
    qtest_system_reset(f->vt->qts);
    find_devices(f);
    bring_up(f);
}

static void stop_and_continue(Fuzz *f)
{
    if (f->disk_present) {
        disk_quiet(f);
    }
    quiet_qmp(f, "stop");
    send_chain(f);
    toggle_bypass(f);
    quiet_qmp(f, "cont");
}

/* ---- a round ---- */

typedef struct Step {
    const char *name;
    void (*run)(Fuzz *f);
    unsigned weight;
    bool pci, mmio, disk; /* what it needs: either transport; a disk */
} Step;

static const Step steps[] = {
    {"chain", send_chain, 30, true, true, false},
    {"requests", send_requests, 20, true, true, false},
    {"events", post_events, 6, true, true, false},
    {"scribble", scribble_on_rings, 6, true, true, false},
    {"poke", poke_registers, 12, true, true, false},
    {"queue", select_and_poke, 4, true, true, false},
    {"bypass", toggle_bypass, 4, true, true, false},
    {"topology", change_topology_often, 1, true, true, false},
    {"config", write_pci_config, 1, true, false, false},
    {"edu", dma_by_edu, 20, true, false, false},
    {"disk", dma_by_disk, 10, true, true, true},
    {"bring-up", bring_up, 8, true, true, false},
    {"plug", plug, 2, true, false, false},
    {"unplug", unplug, 2, true, false, false},
    {"power", slot_power, 2, true, false, false},
    {"look", look, 1, true, true, false},
    {"system-reset", system_reset, 1, true, true, false},
    {"stop", stop_and_continue, 1, true, true, false},
};

static bool usable(const Fuzz *f, const Step *step)
{
    return (f->on_mmio ? step->mmio : step->pci) && (f->disk_present || !step->disk);
}

static const Step *choose(Fuzz *f)
{
    unsigned sum = 0, left;

    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        sum += usable(f, &steps[i]) ? steps[i].weight : 0;
    }
    left = below(f, sum);
    for (unsigned i = 0;; i++) {
        if (!usable(f, &steps[i])) {
            continue;
        }
        if (left < steps[i].weight) {
            return &steps[i];
        }
        left -= steps[i].weight;
    }
}

/* Reads a sector of zeros to `at`; true if it is at `phys`, which nothing else touched. */
static bool disk_lands(Fuzz *f, uint64_t at, uint64_t phys)
{
    Vt *vt = f->vt;
    uint8_t got[SECTOR];
    unsigned zeros = 0, untouched = 0;

    disk_open(f);
    qtest_memset(vt->qts, phys, 0xc3, sizeof(got));
    disk_send(f, at, sizeof(got));
    queue_kick(&f->disk_queue);
    for (unsigned i = 0; queue_device_used_idx(&f->disk_queue) == 0; i++) {
        if (virtio_status(&f->disk) & STATUS_NEEDS_RESET) {
            break;
        }
        g_assert_cmpuint(i, <, 5000);
        g_usleep(1000);
    }
    qtest_memread(vt->qts, phys, got, sizeof(got));
    for (unsigned i = 0; i < sizeof(got); i++) {
        zeros += got[i] == 0;
        untouched += got[i] == 0xc3;
    }
    g_assert_true(zeros == sizeof(got) || untouched == sizeof(got));
    return zeros != 0;
}

static bool lands(Fuzz *f, uint64_t at, uint64_t phys)
{
    return f->on_mmio ? disk_lands(f, at, phys) : edu_write_lands(&f->vt->edu[0], at, phys, SECTOR);
}

/* After all that, a driver finds a device as on the first day. */
static void check(Fuzz *f)
{
    const uint32_t id = f->on_mmio ? 0xffff0002u : EDU0;
    const uint64_t at = 0x40000000, other = 0x40010000;
    Vt *vt = f->vt;
    QDict *stats;

    if (f->disk_present) {
        disk_quiet(f);
        virtio_reset(&f->disk);
    }
    if (f->moved || one_in(f, 4)) {
        qtest_system_reset(vt->qts);
        find_devices(f);
    }
    f->resets++;
    vt->next_queue = QUEUE_BASE;
    vt_bring_up(vt, F_USUAL, true);
    stats = read_stats(f);
    g_assert_cmpint(qdict_get_int(stats, "domains"), ==, 0);
    g_assert_cmpint(qdict_get_int(stats, "mappings"), ==, 0);
    qobject_unref(stats);
    for (uint32_t n = 0; n < 4; n++) {
        assert_status(vt_unmap(vt, n, 0, UINT64_MAX), VS_NOENT);
    }

    vt_set_bypass(vt, 1);
    g_assert_true(lands(f, page(3), page(3)));
    if (f->on_mmio) {
        /* Its rings go through the IOMMU, too. */
        assert_status(vt_attach(vt, 1, id, 0), VS_OK);
        assert_status(vt_map(vt, 1, QUEUE_BASE, ARENA_END - 1, QUEUE_BASE, MAP_RW), VS_OK);
    } else {
        vt_set_bypass(vt, 0);
        g_assert_false(lands(f, page(3), page(3)));
        assert_status(vt_attach(vt, 1, id, 0), VS_OK);
    }
    vt_set_bypass(vt, 0);
    g_assert_false(lands(f, at, page(3)));
    assert_status(vt_map(vt, 1, at, at + PAGE - 1, page(3), MAP_RW), VS_OK);
    assert_status(vt_map(vt, 1, other, other + PAGE - 1, page(4), MAP_READ), VS_OK);
    g_assert_true(lands(f, at, page(3)));
    g_assert_false(lands(f, at + PAGE, page(4)));
    g_assert_false(lands(f, other, page(4)));
    assert_status(vt_unmap(vt, 1, at, at + PAGE - 1), VS_OK);
    g_assert_false(lands(f, at, page(3)));
    assert_status(vt_detach(vt, 1, id), VS_OK);
    assert_status(vt_unmap(vt, 1, 0, UINT64_MAX), VS_NOENT);
    vt_assert_alive(vt);
    vt_set_bypass(vt, (uint8_t)below(f, 2));
}

static Vt *start(Fuzz *f)
{
    static const char *const granules[] = {"4k", "host"};
    g_autofree char *props =
        g_strdup_printf("id=iommu0,boot-bypass=%s,granule=%s,max-mappings=%d,max-domains=%d",
                        one_in(f, 2) ? "on" : "off", granules[below(f, 2)],
                        one_in(f, 3) ? 8 : 100000, one_in(f, 3) ? 2 : 1000);
    const char *disk = "-object iothread,id=io0 -blockdev driver=null-co,node-name=d0,"
                       "size=16777216,read-zeroes=on";

    if (f->on_mmio) {
        f->disk_present = true;
        return vt_machine_microvm("%s -device virtio-iommu-mmio,bus=virtio-mmio-bus.1,%s "
                                  "-device virtio-blk-device,bus=virtio-mmio-bus.2,drive=d0,"
                                  "iothread=io0,iommu_platform=on",
                                  disk, props);
    }
    f->disk_present = one_in(f, 2);
    return vt_machine("%s -global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off "
                      "-device virtio-iommu-pci,addr=2.0,packed=%s,%s "
                      "-device " EDU_ARGS ",addr=3.0 -device " EDU_ARGS ",addr=4.0 "
                      "-device pcie-root-port,id=rp1,chassis=1,addr=5.0 %s",
                      disk, one_in(f, 4) ? "on" : "off", props,
                      f->disk_present ? "-device virtio-blk-pci,drive=d0,iothread=io0,addr=7.0,"
                                        "iommu_platform=on,disable-legacy=on,vectors=0"
                                      : "");
}

static void run_seed(Fuzz *f)
{
    Vt *vt = start(f);

    f->vt = vt;
    find_devices(f);
    f->disk_header = vt_alloc(vt, 64);
    qtest_memset(vt->qts, f->disk_header, 0, 64); /* read from sector 0 on */
    vt->arena = ROUND_UP(vt->arena, PAGE);
    vt_bring_up(vt, F_USUAL, true);
    vt_set_bypass(vt, 1);
    if (!f->on_mmio) {
        edu_prime(&vt->edu[0]);
        edu_prime(&vt->edu[1]);
    }
    check(f);
    for (unsigned round = 0; round < ROUNDS; round++) {
        bring_up(f);
        for (unsigned i = 0; i < STEPS; i++) {
            const Step *step = choose(f);

            if (f->log) {
                fprintf(stderr, "%u %s\n", i, step->name);
            }
            step->run(f);
            qatomic_inc(f->progress);
        }
        check(f);
        qatomic_inc(f->progress);
    }
    vt_free(vt);
    g_assert_cmpuint(printed(), <=, (f->resets + 4) * LINE);
}

/* ---- the runner ---- */

/* What QEMU may not print, whoever ended it. */
static bool clean(const char *text)
{
    static const char *const bad[] = {"ssertion",      "ERROR:",      "Sanitizer",
                                      "runtime error", "dumped core", "death from signal",
                                      "hardware error"};

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        if (strstr(text, bad[i])) {
            return false;
        }
    }
    return true;
}

static bool run_in_child(uint32_t seed, bool on_mmio, bool log, unsigned *progress)
{
    gint64 since = g_get_monotonic_time();
    unsigned seen = qatomic_read(progress);
    g_autofree char *name = NULL;
    g_autofree char *text = NULL;
    int fd = g_file_open_tmp("viommu-fuzz-XXXXXX", &name, NULL);
    bool hang = false, good;
    pid_t pid;
    int status;

    g_assert_cmpint(fd, >=, 0);
    fflush(NULL);
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        Fuzz f = {.rand = g_rand_new_with_seed(seed),
                  .on_mmio = on_mmio,
                  .log = log,
                  .progress = progress};

        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        dup2(fd, STDERR_FILENO);
        dup2(fd, STDOUT_FILENO);
        run_seed(&f);
        fflush(NULL);
        _exit(0);
    }
    close(fd);
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (qatomic_read(progress) != seen) {
            seen = qatomic_read(progress);
            since = g_get_monotonic_time();
        } else if (!hang && g_get_monotonic_time() > since + LIMIT * G_USEC_PER_SEC) {
            hang = true;
            kill(pid, SIGKILL); /* libqtest sees to it that its QEMU dies, too */
        }
        g_usleep(1000);
    }
    g_file_get_contents(name, &text, NULL, NULL);
    unlink(name);
    good = !hang && WIFEXITED(status) && WEXITSTATUS(status) == 0 && clean(text);
    if (!good) {
        printf("%s\n%s: seed %u on %s: fuzz-device --transport %s --seed %u --count 1 --log\n",
               text, hang ? "HANG" : "FAILED", seed, on_mmio ? "virtio-mmio" : "PCI",
               on_mmio ? "mmio" : "pci", seed);
    }
    return good;
}

int main(int argc, char **argv)
{
    g_autofree char *transport = NULL;
    gint seed = 1, count = 0, seconds = 0, done = 0, failed = 0;
    gboolean log = false;
    const GOptionEntry entries[] = {
        {"transport", 0, 0, G_OPTION_ARG_STRING, &transport, "pci, mmio, or by turns", "NAME"},
        {"seed", 0, 0, G_OPTION_ARG_INT, &seed, "the first seed", "N"},
        {"count", 0, 0, G_OPTION_ARG_INT, &count, "how many seeds", "N"},
        {"seconds", 0, 0, G_OPTION_ARG_INT, &seconds, "begin no seed after this time", "N"},
        {"log", 0, 0, G_OPTION_ARG_NONE, &log, "say each step", NULL},
        {0},
    };
    g_autoptr(GOptionContext) options = g_option_context_new("- fuzz the device inside QEMU");
    g_autoptr(GError) error = NULL;
    gint64 begin = g_get_monotonic_time();
    unsigned *progress =
        mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    g_assert_true(progress != MAP_FAILED);
    g_option_context_add_main_entries(options, entries, NULL);
    if (!g_option_context_parse(options, &argc, &argv, &error)) {
        fprintf(stderr, "fuzz-device: %s\n", error->message);
        return 2;
    }
    g_setenv("MALLOC_PERTURB_", "165", false);
    const gint64 end = begin + (gint64)seconds * G_USEC_PER_SEC;
    for (; count ? done < count : g_get_monotonic_time() < end; done++) {
        bool on_mmio = transport ? g_str_equal(transport, "mmio") : done % 2 != 0;

        failed += !run_in_child((uint32_t)(seed + done), on_mmio, log, progress);
    }
    printf("%d seeds of %d steps in %.0f s, from seed %d on: %d failed\n", done, ROUNDS * STEPS,
           (double)(g_get_monotonic_time() - begin) / G_USEC_PER_SEC, seed, failed);
    if (done == 0) {
        fprintf(stderr, "fuzz-device: nothing was done; --count or --seconds says how much\n");
    }
    return failed != 0 || done == 0;
}
