/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The IOMMU on a virtio-mmio transport, and endpoints on such transports.  Built
 * once for microvm and once, with MMIO_ON_ARM, for Arm's virt machine. */
#define _GNU_SOURCE /* memfd_create() */
#include "viommu_test.h"

#include <sys/mman.h>

#include "qobject/qdict.h"
#include "qobject/qlist.h"

#ifdef MMIO_ON_ARM
#define ARCH "aarch64"
#define MACHINE_ARGS "-machine virt -cpu cortex-a57"
#define MACHINE_WITH_PCI ""
#define NAMED(id, what) id "/arm-mmio-" what
#define TRANSPORT_BASE 0x0a000000ull
#define TRANSPORT_COUNT 32u
#else
#define ARCH "x86_64"
#define MACHINE_ARGS "-machine microvm,acpi=off"
#define MACHINE_WITH_PCI "-machine acpi=on,pcie=on "
#define NAMED(id, what) id "/mmio-" what
#define TRANSPORT_BASE 0xfeb00000ull
#define TRANSPORT_COUNT 8u
#endif

#define MODERN "-global virtio-mmio.force-legacy=off "
#define ON(n) "bus=virtio-mmio-bus." #n
/* Endpoints sit on transports 2 and 3, the IOMMU on 1. */
#define IOMMU "-device virtio-iommu-mmio,id=iommu0," ON(1)
#define DISK_ON(n) "-device virtio-blk-device,id=disk,drive=d0," ON(n)
#define DISK DISK_ON(2) ",iommu_platform=on"

#define EP(n) (0xffff0000u + (n))
#define DISK_EP EP(2)
#define RNG_EP EP(3)

#define IOVA 0x500000000ull
/* Rings and headers are seen this much higher, so no block is congruent. */
#define SHIFT 0x200003000ull

static uint64_t transport(unsigned n)
{
    return TRANSPORT_BASE + 0x200ull * n;
}

static Vt *machine(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
static Vt *machine(const char *fmt, ...)
{
    g_autofree char *args = NULL;
    va_list ap;

    va_start(ap, fmt);
    args = g_strdup_vprintf(fmt, ap);
    va_end(ap);
#ifdef MMIO_ON_ARM
    return vt_machine_virt(MODERN "%s", args);
#else
    return vt_machine_microvm("%s", args);
#endif
}

static void find_iommu(Vt *vt)
{
    virtio_mmio_probe(vt, &vt->iommu, transport(1), ID_IOMMU);
}

static Vt *start(const char *args)
{
    Vt *vt = machine("%s", args);

    find_iommu(vt);
    vt_bring_up(vt, F_USUAL, true);
    return vt;
}

/* ---- disks and entropy sources, driven by hand ---- */

#define SECTOR 512u
#define DISK_SIZE (1 * MIB)
#define BLK_IN 0u
#define BLK_OUT 1u
#define BLK_OK 0u

static uint8_t disk_byte(unsigned offset)
{
    return (uint8_t)(0x17 + offset * 5 + offset / 256 * 3);
}

/* A file with known bytes that goes away with this process. */
static int pattern_file(void)
{
    g_autofree uint8_t *bytes = g_malloc(DISK_SIZE);
    int fd = memfd_create("pattern", 0);

    for (unsigned i = 0; i < DISK_SIZE; i++) {
        bytes[i] = disk_byte(i);
    }
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pwrite(fd, bytes, DISK_SIZE, 0), ==, DISK_SIZE);
    return fd;
}

static char *disk_back_end(int fd)
{
    return g_strdup_printf("-blockdev driver=file,node-name=d0,locking=off,filename=/proc/%d/fd/%d "
                           "-object iothread,id=io0",
                           getpid(), fd);
}

typedef struct Disk {
    Vt *vt;
    Virtio dev;
    Queue queue;
    uint64_t header, status;
    int file;
} Disk;

/* The machine with a disk back end, and the IOMMU's driver up. */
static Vt *start_with_disk(Disk *disk, const char *args)
{
    g_autofree char *back_end = NULL;
    g_autofree char *all = NULL;

    memset(disk, 0, sizeof(*disk));
    disk->file = pattern_file();
    back_end = disk_back_end(disk->file);
    all = g_strdup_printf("%s %s", back_end, args);
    disk->vt = start(all);
    return disk->vt;
}

/* `shift` is what I/O addresses of rings and headers are above their memory. */
static void disk_open(Disk *disk, unsigned n, uint64_t features, uint64_t shift)
{
    Vt *vt = disk->vt;

    virtio_mmio_probe(vt, &disk->dev, transport(n), ID_BLK);
    disk->dev.dma_base = shift;
    g_assert_true(virtio_negotiate(&disk->dev, features | F_VERSION_1));
    queue_init(&disk->dev, &disk->queue, 0);
    virtio_driver_ok(&disk->dev);
    disk->header = vt_alloc(vt, 16);
    disk->status = vt_alloc(vt, 16);
}

static void disk_send(Disk *disk, uint32_t type, uint64_t sector, uint64_t buffer, uint32_t len)
{
    QTestState *qts = disk->vt->qts;
    uint64_t shift = disk->dev.dma_base;
    Seg segs[] = {
        {disk->header + shift, 16, false},
        {buffer, len, type == BLK_IN},
        {disk->status + shift, 1, true},
    };

    qtest_writel(qts, disk->header, type);
    qtest_writel(qts, disk->header + 4, 0);
    qtest_writeq(qts, disk->header + 8, sector);
    qtest_writeb(qts, disk->status, UNWRITTEN);
    queue_add(&disk->queue, segs, 3);
    queue_kick(&disk->queue);
}

static uint8_t disk_done(Disk *disk)
{
    uint32_t len;

    queue_wait(&disk->queue, &len);
    return qtest_readb(disk->vt->qts, disk->status);
}

/*
 * What a refused access reads or writes goes through a buffer of QEMU's, so the
 * request goes on, and there are more faults when it is done.  A reset waits for it.
 */
static void disk_quiesce(Disk *disk)
{
    virtio_reset(&disk->dev);
}

/* True if the disk's sectors from `sector` on are at `phys`. */
static bool disk_bytes_at(Vt *vt, uint64_t phys, uint64_t sector, uint32_t len)
{
    g_autofree uint8_t *got = g_malloc(len);
    unsigned same = 0;

    qtest_memread(vt->qts, phys, got, len);
    for (unsigned i = 0; i < len; i++) {
        same += got[i] == disk_byte((unsigned)sector * SECTOR + i);
    }
    g_assert_true(same == len || same < len / 16);
    return same == len;
}

static void disk_check_read(Disk *disk, uint64_t sector, uint64_t iova, uint64_t phys, uint32_t len)
{
    Vt *vt = disk->vt;

    qtest_memset(vt->qts, phys, 0xc3, len);
    disk_send(disk, BLK_IN, sector, iova, len);
    g_assert_cmpuint(disk_done(disk), ==, BLK_OK);
    g_assert_true(disk_bytes_at(vt, phys, sector, len));
}

static void disk_check_write(Disk *disk, uint64_t sector, uint64_t iova, uint64_t phys,
                             uint32_t len)
{
    g_autofree uint8_t *sent = g_malloc(len);
    g_autofree uint8_t *got = g_malloc(len);

    for (unsigned i = 0; i < len; i++) {
        sent[i] = (uint8_t)(0xe1 - i * 3);
    }
    qtest_memwrite(disk->vt->qts, phys, sent, len);
    disk_send(disk, BLK_OUT, sector, iova, len);
    g_assert_cmpuint(disk_done(disk), ==, BLK_OK);
    g_assert_cmpint(pread(disk->file, got, len, (off_t)(sector * SECTOR)), ==, len);
    g_assert_cmpmem(got, len, sent, len);
}

static void map_page(Vt *vt, uint32_t domain, uint64_t iova, uint64_t phys, uint32_t rights)
{
    assert_status(vt_map(vt, domain, iova, iova + PAGE - 1, phys, rights), VS_OK);
}

/* Rings at SHIFT, headers read-only, status bytes beside them writable. */
static void map_rings(Vt *vt, uint32_t domain)
{
    uint64_t size = ARENA_END - QUEUE_BASE;

    assert_status(
        vt_map(vt, domain, QUEUE_BASE + SHIFT, QUEUE_BASE + SHIFT + size - 1, QUEUE_BASE, MAP_RW),
        VS_OK);
}

/* The counters that the device shows for an endpoint. */
static int64_t endpoint_counter(Vt *vt, uint32_t id, const char *name)
{
    QDict *reply = qtest_qmp(vt->qts, "{'execute': 'qom-get', 'arguments': {"
                                      "'path': '/machine/peripheral/iommu0', "
                                      "'property': 'endpoints'}}");
    QListEntry *entry;
    int64_t value = -1;

    g_assert_true(qdict_haskey(reply, "return"));
    QLIST_FOREACH_ENTRY(qdict_get_qlist(reply, "return"), entry)
    {
        QDict *row = qobject_to(QDict, qlist_entry_obj(entry));

        if ((uint32_t)qdict_get_int(row, "id") == id) {
            value = qdict_get_int(row, name);
        }
    }
    qobject_unref(reply);
    return value;
}

/* ---- the transport's registers ---- */

static void identifies_itself(void)
{
    Vt *vt = machine(IOMMU);

    find_iommu(vt);
    mmio_write(&vt->iommu, MMIO_MAGIC, 0);
    mmio_write(&vt->iommu, MMIO_DEVICE_ID, 1);
    find_iommu(vt);
    vt_free(vt);
}

static void offers_what_the_transport_can(void)
{
    Vt *vt = machine(IOMMU);
    uint64_t offered, later = F_INDIRECT | F_EVENT_IDX;

    find_iommu(vt);
    offered = virtio_offered(&vt->iommu);
    g_assert_cmphex(offered & F_USUAL, ==, F_USUAL);
    /* A virtio-mmio transport has no register to reset one queue. */
    g_assert_cmphex(offered & ~later, ==, F_USUAL);
    vt_free(vt);
}

static void config_reads_of_every_width(void)
{
    Vt *vt = machine(IOMMU);
    uint8_t bytes[CONFIG_SIZE];
    QTestState *qts = vt->qts;
    uint64_t config;

    find_iommu(vt);
    config = vt->iommu.device;
    for (unsigned i = 0; i < CONFIG_SIZE; i++) {
        bytes[i] = qtest_readb(qts, config + i);
    }
    for (unsigned i = 0; i < CONFIG_SIZE; i += 2) {
        g_assert_cmphex(qtest_readw(qts, config + i), ==, lduw_le_p(bytes + i));
    }
    for (unsigned i = 0; i < CONFIG_SIZE; i += 4) {
        g_assert_cmphex(qtest_readl(qts, config + i), ==, (uint32_t)ldl_le_p(bytes + i));
    }
    g_assert_cmphex(ldq_le_p(bytes + CONFIG_INPUT_END), ==, UINT64_MAX);
    g_assert_cmphex(vt_granule(vt), ==, (uint64_t)sysconf(_SC_PAGESIZE));
    g_assert_cmpuint((uint32_t)ldl_le_p(bytes + CONFIG_PROBE_SIZE), >=, 512);
    g_assert_cmpuint(bytes[CONFIG_BYPASS], ==, 1);
    vt_free(vt);
}

static void only_bypass_is_writable(void)
{
    Vt *vt = start(IOMMU);
    uint64_t config = vt->iommu.device;
    uint8_t before[CONFIG_SIZE], after[CONFIG_SIZE];

    qtest_memread(vt->qts, config, before, CONFIG_SIZE);
    for (unsigned width = 1; width <= 4; width *= 2) {
        for (unsigned i = 0; i < CONFIG_SIZE; i += width) {
            if (i <= CONFIG_BYPASS && CONFIG_BYPASS < i + width) {
                continue;
            }
            switch (width) {
            case 1:
                qtest_writeb(vt->qts, config + i, (uint8_t)~before[i]);
                break;
            case 2:
                qtest_writew(vt->qts, config + i, 0);
                break;
            case 4:
                qtest_writel(vt->qts, config + i, 0);
                break;
            }
            for (unsigned j = 0; j < CONFIG_SIZE; j++) {
                after[j] = qtest_readb(vt->qts, config + j);
            }
            g_assert_cmpmem(after, CONFIG_SIZE, before, CONFIG_SIZE);
        }
    }
    /* The window goes on behind the fields. */
    qtest_writel(vt->qts, config + 0xfc, 0);
    vt_assert_alive(vt);
    vt_free(vt);
}

static void bypass_takes_0_and_1_of_any_width(void)
{
    Vt *vt = start(IOMMU);
    uint64_t bypass = vt->iommu.device + CONFIG_BYPASS;

    qtest_writeb(vt->qts, bypass, 0);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 0);
    qtest_writew(vt->qts, bypass, 1);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 1);
    qtest_writel(vt->qts, bypass, 0);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 0);
    qtest_writeb(vt->qts, bypass, 2);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 0);
    qtest_writel(vt->qts, bypass, 0xffff0001u);
    g_assert_cmphex(vt_config32(vt, CONFIG_BYPASS), ==, 1);
    vt_assert_alive(vt);
    vt_free(vt);
}

static void bypass_write_without_the_feature(void)
{
    Vt *vt = machine(IOMMU);

    find_iommu(vt);
    qtest_writeb(vt->qts, vt->iommu.device + CONFIG_BYPASS, 0);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 1);
    vt_bring_up(vt, F_USUAL & ~F_BYPASS_CONFIG, true);
    qtest_writeb(vt->qts, vt->iommu.device + CONFIG_BYPASS, 0);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 1);
    vt_assert_alive(vt);
    vt_free(vt);
}

static void generation_counts_changes(void)
{
    Vt *vt = start(IOMMU);
    uint32_t before = mmio_read(&vt->iommu, MMIO_GENERATION), after;

    g_assert_cmpuint(mmio_read(&vt->iommu, MMIO_GENERATION), ==, before);
    vt_set_bypass(vt, 0);
    after = mmio_read(&vt->iommu, MMIO_GENERATION);
    g_assert_cmpuint(after, !=, before);
    vt_set_bypass(vt, 0);
    g_assert_cmpuint(mmio_read(&vt->iommu, MMIO_GENERATION), ==, after);
    vt_free(vt);
}

static void queue_registers(void)
{
    Vt *vt = machine(IOMMU);
    Virtio *dev = &vt->iommu;

    find_iommu(vt);
    g_assert_true(virtio_negotiate(dev, F_USUAL));
    for (unsigned i = 0; i < 2; i++) {
        mmio_write(dev, MMIO_Q_SELECT, i);
        g_assert_cmpuint(mmio_read(dev, MMIO_Q_SIZE_MAX), >=, 256);
        g_assert_cmpuint(mmio_read(dev, MMIO_Q_READY), ==, 0);
    }
    mmio_write(dev, MMIO_Q_SELECT, 2);
    g_assert_cmpuint(mmio_read(dev, MMIO_Q_SIZE_MAX), ==, 0);
    /* A queue that does not exist can be neither selected nor notified. */
    mmio_write(dev, MMIO_Q_SELECT, 0xffffffff);
    mmio_write(dev, MMIO_Q_NOTIFY, 2);
    mmio_write(dev, MMIO_Q_NOTIFY, 0xffffffff);
    vt_bring_up(vt, F_USUAL, true);
    mmio_write(dev, MMIO_Q_SELECT, 0);
    g_assert_cmpuint(mmio_read(dev, MMIO_Q_READY), ==, 1);
    vt_assert_alive(vt);
    virtio_reset(dev);
    for (unsigned i = 0; i < 2; i++) {
        mmio_write(dev, MMIO_Q_SELECT, i);
        g_assert_cmpuint(mmio_read(dev, MMIO_Q_READY), ==, 0);
    }
    vt_bring_up(vt, F_USUAL, true);
    vt_assert_alive(vt);
    vt_free(vt);
}

static void interrupt_status_is_set_and_acknowledged(void)
{
    Vt *vt = start(IOMMU);

    g_assert_cmphex(mmio_read(&vt->iommu, MMIO_ISR), ==, 0);
    vt_assert_alive(vt);
    g_assert_cmphex(mmio_read(&vt->iommu, MMIO_ISR), ==, 1);
    /* Reading is not acknowledging. */
    g_assert_cmphex(mmio_read(&vt->iommu, MMIO_ISR), ==, 1);
    mmio_write(&vt->iommu, MMIO_ISR_ACK, 1);
    g_assert_cmphex(mmio_read(&vt->iommu, MMIO_ISR), ==, 0);
    vt_free(vt);
}

static void nothing_before_driver_ok(void)
{
    Vt *vt = machine(IOMMU);
    Request req = req_detach(1, NOBODY);
    uint64_t in, out;
    uint32_t len;

    find_iommu(vt);
    vt_bring_up(vt, F_USUAL, false);
    in = vt_alloc(vt, req.len);
    out = vt_alloc(vt, 4);
    qtest_memwrite(vt->qts, in, req.bytes, req.len);
    qtest_memset(vt->qts, out, UNWRITTEN, 4);
    queue_add(&vt->req, (Seg[]){{in, req.len, false}, {out, 4, true}}, 2);
    queue_kick(&vt->req);
    vt_settle(vt);
    g_assert_cmpuint(queue_device_used_idx(&vt->req), ==, 0);
    g_assert_cmphex(mmio_read(&vt->iommu, MMIO_ISR), ==, 0);
    virtio_driver_ok(&vt->iommu);
    queue_wait(&vt->req, &len);
    g_assert_cmpuint(qtest_readb(vt->qts, out), ==, VS_NOENT);
    vt_free(vt);
}

/* ---- requests and endpoints ---- */

#define RNG_ON(n, props)                                                                           \
    "-object rng-builtin,id=r" #n " -device virtio-rng-device,id=rng" #n ",rng=r" #n "," ON(n) props
#define RNG RNG_ON(3, ",iommu_platform=on")

static void requests_are_answered(void)
{
    Vt *vt = start(IOMMU " " RNG);
    Request unknown = req_attach(1, RNG_EP, 0);

    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    assert_status(vt_attach(vt, 1, RNG_EP, 0), VS_OK);
    map_page(vt, 1, IOVA, page(1), MAP_RW);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_map(vt, 1, IOVA + 1, IOVA + PAGE, page(1), MAP_RW), VS_RANGE);
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_OK);
    assert_status(vt_detach(vt, 2, RNG_EP), VS_INVAL);
    assert_status(vt_detach(vt, 1, RNG_EP), VS_OK);
    assert_status(vt_attach(vt, 2, RNG_EP, ATTACH_BYPASS), VS_OK);
    unknown.bytes[0] = 9;
    assert_status(vt_status(vt, &unknown), VS_UNANSWERED);
    vt_assert_alive(vt);
    vt_free(vt);
}

static void who_is_an_endpoint(void)
{
    Vt *vt = start(IOMMU " " RNG " " RNG_ON(4, ""));
    static const uint32_t nobody[] = {
        EP(0),                   /* empty transport */
        EP(1),                   /* the IOMMU */
        EP(4),                   /* no iommu_platform */
        EP(TRANSPORT_COUNT - 1), /* empty, the last */
        EP(TRANSPORT_COUNT),     /* no transport */
        EP(0xffff),
        RNG_EP & 0xffff, /* a requester ID */
        RNG_EP ^ 0x10000,
        RNG_EP ^ 0x80000000,
    };

    assert_status(vt_probe(vt, RNG_EP), VS_OK);
    assert_status(vt_attach(vt, 1, RNG_EP, 0), VS_OK);
    for (unsigned i = 0; i < G_N_ELEMENTS(nobody); i++) {
        assert_status(vt_probe(vt, nobody[i]), VS_NOENT);
        assert_status(vt_attach(vt, 1, nobody[i], 0), VS_NOENT);
        assert_status(vt_detach(vt, 1, nobody[i]), VS_NOENT);
    }
    assert_status(vt_detach(vt, 1, RNG_EP), VS_OK);
    vt_free(vt);
}

static void reset_by_status(void)
{
    Disk disk;
    Vt *vt = start_with_disk(&disk, IOMMU " " DISK);

    assert_status(vt_attach(vt, 1, DISK_EP, 0), VS_OK);
    map_rings(vt, 1);
    map_page(vt, 1, IOVA, page(1), MAP_RW);
    disk_open(&disk, 2, F_ACCESS_PLATFORM, SHIFT);
    disk_check_read(&disk, 0, IOVA, page(1), SECTOR);
    vt_set_bypass(vt, 0);
    mmio_write(&vt->iommu, MMIO_STATUS, 0);
    g_assert_cmpuint(virtio_status(&vt->iommu), ==, 0);
    g_assert_cmphex(mmio_read(&vt->iommu, MMIO_ISR), ==, 0);
    /* CFG-4 */
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 0);
    vt_bring_up(vt, F_USUAL, true);
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_NOENT);
    assert_status(vt_detach(vt, 1, DISK_EP), VS_INVAL);
    vt_free(vt);
}

static void system_reset(void)
{
    Disk disk;
    Vt *vt = start_with_disk(&disk, IOMMU " " DISK);

    assert_status(vt_attach(vt, 1, DISK_EP, 0), VS_OK);
    vt_set_bypass(vt, 0);
    qtest_system_reset(vt->qts);
    find_iommu(vt);
    g_assert_cmpuint(virtio_status(&vt->iommu), ==, 0);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 1);
    vt_bring_up(vt, F_USUAL, true);
    assert_status(vt_detach(vt, 1, DISK_EP), VS_INVAL);
    disk_open(&disk, 2, F_ACCESS_PLATFORM, 0);
    disk_check_read(&disk, 9, page(1), page(1), SECTOR);
    vt_free(vt);
}

/* ---- DMA ---- */

static void disk_through(const char *args)
{
    Disk disk;
    g_autofree char *blocked =
        g_strdup_printf("%s -global virtio-iommu-device.boot-bypass=off", args);
    Vt *vt = start_with_disk(&disk, blocked);

    assert_status(vt_attach(vt, 1, DISK_EP, 0), VS_OK);
    map_rings(vt, 1);
    map_page(vt, 1, IOVA, page(5), MAP_RW);
    map_page(vt, 1, IOVA + PAGE, page(2), MAP_RW);
    disk_open(&disk, 2, F_ACCESS_PLATFORM, SHIFT);
    disk_check_read(&disk, 0, IOVA, page(5), PAGE);
    disk_check_read(&disk, 33, IOVA + PAGE, page(2), SECTOR);
    /* One transfer over two pages that lie apart. */
    qtest_memset(vt->qts, page(5), 0xc3, PAGE);
    qtest_memset(vt->qts, page(2), 0xc3, PAGE);
    disk_send(&disk, BLK_IN, 100, IOVA + PAGE - SECTOR, 2 * SECTOR);
    g_assert_cmpuint(disk_done(&disk), ==, BLK_OK);
    g_assert_true(disk_bytes_at(vt, page(6) - SECTOR, 100, SECTOR));
    g_assert_true(disk_bytes_at(vt, page(2), 101, SECTOR));
    g_assert_cmphex(qtest_readb(vt->qts, page(6)), ==, 0);
    disk_check_write(&disk, 7, IOVA + SECTOR, page(5) + SECTOR, 4 * SECTOR);
    g_assert_cmpint(endpoint_counter(vt, DISK_EP, "translations"), >, 0);
    g_assert_cmpint(endpoint_counter(vt, DISK_EP, "faults"), ==, 0);
    vt_free(vt);
}

static void disk_after_the_iommu(void)
{
    disk_through(IOMMU " " DISK);
}

static void disk_before_the_iommu(void)
{
    disk_through(DISK " " IOMMU);
}

static void disk_with_a_thread(void)
{
    disk_through(DISK ",iothread=io0 " IOMMU);
    disk_through(IOMMU " " DISK ",iothread=io0");
}

static void generic_name_with_a_bus(void)
{
    disk_through(DISK " -device virtio-iommu-device,id=iommu0," ON(1));
}

/* Each ring with the rights it needs and no more. */
static void rings_with_their_own_rights(void)
{
    Disk disk;
    Vt *vt = start_with_disk(&disk, IOMMU ",boot-bypass=off " DISK);
    uint64_t desc = vt->next_queue;

    assert_status(vt_attach(vt, 1, DISK_EP, 0), VS_OK);
    map_page(vt, 1, desc + SHIFT, desc, MAP_READ);
    map_page(vt, 1, desc + PAGE + SHIFT, desc + PAGE, MAP_READ);
    map_page(vt, 1, desc + 2 * PAGE + SHIFT, desc + 2 * PAGE, MAP_RW);
    map_page(vt, 1, IOVA, page(1), MAP_WRITE);
    disk_open(&disk, 2, F_ACCESS_PLATFORM, SHIFT);
    disk.header = page(20);
    disk.status = page(21);
    map_page(vt, 1, page(20) + SHIFT, page(20), MAP_READ);
    map_page(vt, 1, page(21) + SHIFT, page(21), MAP_WRITE);
    disk_check_read(&disk, 3, IOVA, page(1), SECTOR);
    g_assert_cmpint(endpoint_counter(vt, DISK_EP, "faults"), ==, 0);
    vt_free(vt);
}

static void entropy_through(void)
{
    Vt *vt = machine("-object rng-random,id=r0,filename=/proc/%d/fd/%d "
                     "-device virtio-rng-device,rng=r0," ON(3) ",iommu_platform=on " IOMMU
                                                               ",boot-bypass=off",
                     getpid(), pattern_file());
    Virtio dev;
    Queue queue;
    uint8_t got[64];
    uint32_t len;

    find_iommu(vt);
    vt_bring_up(vt, F_USUAL, true);
    assert_status(vt_attach(vt, 7, RNG_EP, 0), VS_OK);
    map_rings(vt, 7);
    map_page(vt, 7, IOVA, page(9), MAP_WRITE);
    virtio_mmio_probe(vt, &dev, transport(3), ID_RNG);
    dev.dma_base = SHIFT;
    g_assert_true(virtio_negotiate(&dev, F_VERSION_1 | F_ACCESS_PLATFORM));
    queue_init(&dev, &queue, 0);
    virtio_driver_ok(&dev);
    queue_add(&queue, &(Seg){IOVA + 128, sizeof(got), true}, 1);
    queue_kick(&queue);
    queue_wait(&queue, &len);
    g_assert_cmpuint(len, ==, sizeof(got));
    qtest_memread(vt->qts, page(9) + 128, got, sizeof(got));
    for (unsigned i = 0; i < sizeof(got); i++) {
        g_assert_cmphex(got[i], ==, disk_byte(i));
    }
    vt_free(vt);
}

/* Its features come to QEMU in another way than a disk's. */
static void network_card_unattached(void)
{
    Vt *vt = machine("-device virtio-net-device," ON(3) ",iommu_platform=on " IOMMU
                                                        ",boot-bypass=off");
    Virtio dev;
    Queue queue;
    Fault fault;

    find_iommu(vt);
    vt_bring_up(vt, F_USUAL, true);
    vt_post_events(vt, 16, FAULT_RECORD_SIZE);
    virtio_mmio_probe(vt, &dev, transport(3), ID_NET);
    g_assert_true(virtio_negotiate(&dev, F_VERSION_1 | F_ACCESS_PLATFORM));
    queue_init(&dev, &queue, 1);
    virtio_driver_ok(&dev);
    queue_add(&queue, &(Seg){page(1), 64, false}, 1);
    queue_kick(&queue);
    fault = vt_wait_fault(vt);
    g_assert_cmpuint(fault.reason, ==, FAULT_DOMAIN);
    g_assert_cmphex(fault.endpoint, ==, EP(3));
    vt_free(vt);
}

/* The device is told by a broken ring, not by the IOMMU, that nothing works. */
static void unattached_reaches_nothing(void)
{
    Disk disk;
    Vt *vt = start_with_disk(&disk, IOMMU ",boot-bypass=off " DISK);
    Fault fault;

    vt_post_events(vt, 16, FAULT_RECORD_SIZE);
    qtest_memset(vt->qts, page(1), 0xc3, SECTOR);
    disk_open(&disk, 2, F_ACCESS_PLATFORM, 0);
    disk_send(&disk, BLK_IN, 0, page(1), SECTOR);
    fault = vt_wait_fault(vt);
    g_assert_cmpuint(fault.reason, ==, FAULT_DOMAIN);
    g_assert_cmphex(fault.endpoint, ==, DISK_EP);
    g_assert_cmphex(fault.flags & FAULT_F_ADDRESS, !=, 0);
    g_assert_cmphex(fault.address, >=, disk.queue.desc);
    g_assert_cmphex(fault.address, <, disk.queue.desc + 3 * PAGE);
    g_assert_cmphex(qtest_readb(vt->qts, page(1)), ==, 0xc3);
    g_assert_cmpuint(queue_device_used_idx(&disk.queue), ==, 0);
    vt_assert_alive(vt);
    vt_free(vt);
}

static void fault_names_endpoint_address_and_access(void)
{
    static const struct {
        uint32_t type, rights, flag;
    } rows[] = {
        {BLK_IN, 0, FAULT_F_WRITE},
        {BLK_OUT, 0, FAULT_F_READ},
        {BLK_IN, MAP_READ, FAULT_F_WRITE},
        {BLK_OUT, MAP_WRITE, FAULT_F_READ},
    };
    Disk disk;
    Vt *vt = start_with_disk(&disk, IOMMU ",boot-bypass=off " DISK);

    vt_post_events(vt, 64, FAULT_RECORD_SIZE);
    assert_status(vt_attach(vt, 1, DISK_EP, 0), VS_OK);
    map_rings(vt, 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        uint64_t iova = IOVA + 16 * PAGE * i;
        Fault fault;

        if (rows[i].rights) {
            map_page(vt, 1, iova, page(1), rows[i].rights);
        }
        vt->next_queue = QUEUE_BASE + 8 * 0x3000;
        disk_open(&disk, 2, F_ACCESS_PLATFORM, SHIFT);
        qtest_memset(vt->qts, page(1), 0xc3, SECTOR);
        disk_send(&disk, rows[i].type, 40, iova, SECTOR);
        fault = vt_wait_fault(vt);
        g_assert_cmpuint(fault.reason, ==, FAULT_MAPPING);
        g_assert_cmphex(fault.endpoint, ==, DISK_EP);
        g_assert_cmphex(fault.address & ~(PAGE - 1), ==, iova);
        g_assert_cmphex(fault.flags, ==, rows[i].flag | FAULT_F_ADDRESS);
        disk_quiesce(&disk);
        g_assert_cmphex(qtest_readb(vt->qts, page(1)), ==, 0xc3);
        vt_drain_faults(vt);
    }
    vt_free(vt);
}

static void unmapped_is_out_of_reach(void)
{
    Disk disk;
    Vt *vt = start_with_disk(&disk, IOMMU ",boot-bypass=off " DISK);
    Fault fault;

    vt_post_events(vt, 16, FAULT_RECORD_SIZE);
    assert_status(vt_attach(vt, 1, DISK_EP, 0), VS_OK);
    map_rings(vt, 1);
    map_page(vt, 1, IOVA, page(1), MAP_RW);
    disk_open(&disk, 2, F_ACCESS_PLATFORM, SHIFT);
    disk_check_read(&disk, 0, IOVA, page(1), SECTOR);
    g_assert_cmpuint(vt_drain_faults(vt), ==, 0);
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_OK);
    qtest_memset(vt->qts, page(1), 0xc3, SECTOR);
    disk_send(&disk, BLK_IN, 0, IOVA, SECTOR);
    fault = vt_wait_fault(vt);
    g_assert_cmphex(fault.endpoint, ==, DISK_EP);
    g_assert_cmphex(fault.address & ~(PAGE - 1), ==, IOVA);
    disk_quiesce(&disk);
    g_assert_cmphex(qtest_readb(vt->qts, page(1)), ==, 0xc3);
    vt_free(vt);
}

static void bypass_switches_at_run_time(void)
{
    Disk disk;
    Vt *vt = start_with_disk(&disk, IOMMU " " DISK);

    vt_post_events(vt, 16, FAULT_RECORD_SIZE);
    for (unsigned round = 0; round < 3; round++) {
        vt_set_bypass(vt, 1);
        vt->next_queue = QUEUE_BASE + 8 * 0x3000;
        disk_open(&disk, 2, F_ACCESS_PLATFORM, 0);
        disk_check_read(&disk, round, page(1), page(1), SECTOR);
        g_assert_cmpuint(vt_drain_faults(vt), ==, 0);
        vt_set_bypass(vt, 0);
        disk_send(&disk, BLK_IN, 0, page(1), SECTOR);
        g_assert_cmphex(vt_wait_fault(vt).endpoint, ==, DISK_EP);
        disk_quiesce(&disk);
        vt_drain_faults(vt);
        vt_post_events(vt, 16, FAULT_RECORD_SIZE);
    }
    assert_status(vt_attach(vt, 5, DISK_EP, ATTACH_BYPASS), VS_OK);
    vt->next_queue = QUEUE_BASE + 8 * 0x3000;
    disk_open(&disk, 2, F_ACCESS_PLATFORM, 0);
    disk_check_read(&disk, 77, page(1), page(1), SECTOR);
    vt_free(vt);
}

static void without_iommu_platform(void)
{
    Disk disk;
    Vt *vt = start_with_disk(&disk, IOMMU ",boot-bypass=off " DISK_ON(2));

    assert_status(vt_probe(vt, DISK_EP), VS_NOENT);
    disk_open(&disk, 2, 0, 0);
    disk_check_read(&disk, 12, page(1), page(1), SECTOR);
    g_assert_cmpint(endpoint_counter(vt, DISK_EP, "translations"), ==, -1);
    vt_free(vt);
}

static void without_an_iommu(void)
{
    Disk disk = {.file = pattern_file()};
    g_autofree char *back_end = disk_back_end(disk.file);
    Vt *vt = machine("%s " DISK ",iothread=io0", back_end);

    disk.vt = vt;
    disk_open(&disk, 2, F_ACCESS_PLATFORM, 0);
    disk_check_read(&disk, 12, page(1), page(1), SECTOR);
    disk_check_write(&disk, 40, page(3), page(3), PAGE);
    vt_free(vt);
}

static void two_endpoints_of_one_domain(void)
{
    Disk disk;
    Vt *vt = start_with_disk(&disk, IOMMU ",boot-bypass=off " DISK " " RNG);

    assert_status(vt_attach(vt, 1, DISK_EP, 0), VS_OK);
    assert_status(vt_attach(vt, 1, RNG_EP, 0), VS_OK);
    map_rings(vt, 1);
    map_page(vt, 1, IOVA, page(1), MAP_RW);
    disk_open(&disk, 2, F_ACCESS_PLATFORM, SHIFT);
    assert_status(vt_detach(vt, 1, RNG_EP), VS_OK);
    disk_check_read(&disk, 5, IOVA, page(1), SECTOR);
    assert_status(vt_detach(vt, 1, DISK_EP), VS_OK);
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_NOENT);
    vt_free(vt);
}

/* ---- reserved regions ---- */

static void message_window_is_reserved(void)
{
#ifdef MMIO_ON_ARM
    static const struct {
        const char *args;
        uint64_t start, end;
    } rows[] = {
        {"-machine gic-version=3,its=on", 0x08090000, 0x0809ffff},
        {"-machine gic-version=2", 0x08020000, 0x08020fff},
    };
#else
    static const struct {
        const char *args;
        uint64_t start, end;
    } rows[] = {
        {"", MSI_START, MSI_END},
        {MACHINE_WITH_PCI, MSI_START, MSI_END},
    };
#endif

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *args = g_strconcat(rows[i].args, " " IOMMU " " RNG, NULL);
        Vt *vt = start(args);
        ResvMem regions[4];

        g_assert_cmpuint(vt_probe_regions(vt, RNG_EP, regions, 4), ==, 1);
        g_assert_cmpuint(regions[0].subtype, ==, RESV_MSI);
        g_assert_cmphex(regions[0].start, ==, rows[i].start);
        g_assert_cmphex(regions[0].end, ==, rows[i].end);
        assert_status(vt_attach(vt, 1, RNG_EP, 0), VS_OK);
        assert_status(vt_map(vt, 1, rows[i].start, rows[i].start + PAGE - 1, page(1), MAP_RW),
                      VS_INVAL);
        vt_free(vt);
    }
}

/* ---- PCI endpoints, and IOMMUs of both kinds ---- */

#define PCI_DEVICES "-device " EDU_ARGS ",addr=3.0,bus=pcie.0 "
#ifdef MMIO_ON_ARM
#define ECAM 0x3f000000ull
#define BUS_MEMORY 0x10000000u
#else
#define ECAM 0xe0000000ull
#define BUS_MEMORY 0xc0000000u
#endif

static void use_pci(Vt *vt)
{
    vt->ecam = ECAM;
    vt->ecam_only = true;
    vt->bus_memory = BUS_MEMORY;
}

static void manages_pci_too(void)
{
    Vt *vt = start(MACHINE_WITH_PCI IOMMU " " RNG " " PCI_DEVICES);
    Edu *edu = &vt->edu[0];

    use_pci(vt);
    edu_init(vt, edu, EDU0, true);
    vt_attach_with_mailbox(vt, 1, EDU0);
    map_page(vt, 1, IOVA, page(1), MAP_RW);
    g_assert_true(edu_write_lands(edu, IOVA, page(1), 64));
    g_assert_true(edu_read_sees(edu, IOVA, page(1), 64));
    g_assert_false(edu_write_lands(edu, page(2), page(2), 64));
    assert_status(vt_attach(vt, 1, RNG_EP, 0), VS_OK);
    assert_status(vt_probe(vt, 0), VS_OK); /* the host bridge */
    assert_status(vt_probe(vt, NOBODY), VS_NOENT);
    vt_free(vt);
}

static void own_rings_are_not_translated(void)
{
    Vt *vt = machine("%s", IOMMU ",iommu_platform=on,boot-bypass=off");

    find_iommu(vt);
    vt_bring_up(vt, F_USUAL | F_ACCESS_PLATFORM, true);
    vt_set_bypass(vt, 0);
    vt_assert_alive(vt);
    assert_status(vt_attach(vt, 1, EP(1), 0), VS_NOENT);
    vt_assert_alive(vt);
    vt_free(vt);
}

/* The one on PCI takes what is left: the transports; or the other way round. */
static void both_kinds_share_the_machine(void)
{
    static const struct {
        const char *args;
        bool mmio_has_disk;
    } rows[] = {
        {IOMMU ",root-bus=main-system-bus -device virtio-iommu-pci,bus=pcie.0,addr=2.0", true},
        {IOMMU " -device virtio-iommu-pci,bus=pcie.0,addr=2.0,root-bus=pcie.0", true},
        {IOMMU ",root-bus=pcie.0 -device virtio-iommu-pci,bus=pcie.0,addr=2.0", false},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        Disk disk;
        g_autofree char *args =
            g_strconcat(MACHINE_WITH_PCI DISK " " PCI_DEVICES, rows[i].args, NULL);
        Vt *vt = start_with_disk(&disk, args);
        Vt other = *vt;
        Vt *with_disk = rows[i].mmio_has_disk ? vt : &other;
        Vt *with_edu = rows[i].mmio_has_disk ? &other : vt;

        use_pci(vt);
        use_pci(&other);
        other.next_queue += 8 * 0x3000;
        other.arena += 4 * MIB;
        virtio_probe(&other, &other.iommu, IOMMU_BDF);
        vt_bring_up(&other, F_USUAL, true);
        edu_init(&other, &other.edu[0], EDU0, true);

        assert_status(vt_probe(with_disk, EDU0), VS_NOENT);
        assert_status(vt_probe(with_edu, DISK_EP), VS_NOENT);
        assert_status(vt_attach(with_edu, 1, EDU0, 0), VS_OK);
        assert_status(vt_attach(with_disk, 1, DISK_EP, 0), VS_OK);
        assert_status(vt_probe(vt, IOMMU_BDF), VS_NOENT);
        assert_status(vt_probe(&other, EP(1)), VS_NOENT);
        map_page(with_edu, 1, IOVA, page(2), MAP_RW);
        map_rings(with_disk, 1);
        map_page(with_disk, 1, IOVA, page(1), MAP_RW);
        vt->next_queue = QUEUE_BASE + 16 * 0x3000;
        disk_open(&disk, 2, F_ACCESS_PLATFORM, SHIFT);
        disk_check_read(&disk, 5, IOVA, page(1), SECTOR);
        g_assert_true(edu_write_lands(&other.edu[0], IOVA, page(2), 64));
        vt_free(vt);
    }
}

/* ---- the topology array ---- */

static void array_of_either_layout(void)
{
    for (unsigned version = 2; version <= 3; version++) {
        g_autofree char *args = g_strdup_printf(
            IOMMU ",topology=v%u " RNG " " RNG_ON(5, "") " " RNG_ON(6, ",iommu_platform=on"),
            version);
        Vt *vt = machine("%s", args);
        uint32_t offset, count, found = 0;

        find_iommu(vt);
        g_assert_cmphex(virtio_offered(&vt->iommu) & F_BYPASS_CONFIG, !=, 0);
        if (version == 2) {
            offset = vt_config32(vt, 36);
            count = vt_config32(vt, 40);
            g_assert_cmpuint(offset, ==, 48);
            g_assert_cmpuint(vt_config32(vt, 44), ==, 16);
        } else {
            count = vt_config32(vt, 36) & 0xffff;
            offset = vt_config32(vt, 36) >> 16;
            g_assert_cmpuint(offset, ==, 40);
        }
        for (unsigned i = 0; i < count; i++) {
            uint32_t head = vt_config32(vt, offset + 16 * i);
            uint32_t id = vt_config32(vt, offset + 16 * i + 4);
            uint64_t base = vt_config64(vt, offset + 16 * i + 8);

            if ((version == 2 ? head & 0xffff : head & 0xff) != 2) {
                continue; /* PCI ranges of Arm's virt machine */
            }
            if (version == 3) {
                g_assert_cmpuint(head >> 16, ==, 16);
            }
            g_assert_cmphex(base, ==, transport(id - EP(0)));
            g_assert_true(id == RNG_EP || id == EP(6));
            found++;
        }
        g_assert_cmpuint(found, ==, 2);
        /* Behind the end nothing is made up. */
        g_assert_cmphex(vt_config32(vt, offset + 16 * count), ==, 0xffffffff);
        vt_bring_up(vt, F_USUAL, true);
        qtest_writel(vt->qts, vt->iommu.device + 36, 0);
        g_assert_cmphex(vt_config32(vt, 36), !=, 0);
        assert_status(vt_attach(vt, 1, RNG_EP, ATTACH_BYPASS), VS_OK);
        vt_free(vt);
    }
}

/* ---- command lines that make no sense ---- */

static void legacy_transport(void)
{
    assert_refused("force-legacy=off", MACHINE_ARGS " " IOMMU);
}

static void no_free_transport(void)
{
    g_autofree char *many = g_strdup("");

    for (unsigned i = 0; i < TRANSPORT_COUNT; i++) {
        g_autofree char *more = g_strdup_printf("%s -device virtio-rng-device", many);

        g_free(many);
        many = g_steal_pointer(&more);
    }
    assert_refused("virtio-bus", MACHINE_ARGS " " MODERN "%s -device virtio-iommu-mmio", many);
    assert_refused("full", MACHINE_ARGS " " MODERN "-device virtio-rng-device," ON(1) " " IOMMU);
}

static void wrong_bus(void)
{
    assert_refused("bus", MACHINE_ARGS " " MODERN "-device virtio-iommu-mmio,bus=nowhere");
#ifdef MMIO_ON_ARM
    assert_refused("pcie.0", MACHINE_ARGS " -device virtio-iommu-mmio,bus=pcie.0");
#endif
}

static void claimed_twice(void)
{
    /* Neither says what it takes. */
    assert_refused("iommu",
                   MACHINE_ARGS " " MODERN IOMMU " -device virtio-iommu-mmio,id=iommu1," ON(4));
    assert_refused("main-system-bus", MACHINE_ARGS
                   " " MODERN IOMMU ",root-bus=main-system-bus"
                   " -device virtio-iommu-mmio,id=iommu1,root-bus=main-system-bus," ON(4));
    assert_refused("main-system-bus",
                   MACHINE_ARGS " " MODERN IOMMU ",root-bus=main-system-bus:main-system-bus");
    assert_refused("nowhere", MACHINE_ARGS " " MODERN IOMMU ",root-bus=nowhere");
}

static void array_larger_than_the_window(void)
{
    g_autofree char *many = g_strdup("");
    unsigned count = 14; /* 13 fit behind the header */

#ifdef MMIO_ON_ARM
    const char *machine = MACHINE_ARGS;
#else
    const char *machine = "-machine microvm,acpi=on"; /* has 24 transports */
#endif
    for (unsigned i = 0; i < count; i++) {
        g_autofree char *more = g_strdup_printf("%s -device virtio-rng-device,iommu_platform=on,"
                                                "bus=virtio-mmio-bus.%u",
                                                many, 2 + i);

        g_free(many);
        many = g_steal_pointer(&more);
    }
    assert_refused("256", "%s " MODERN IOMMU ",topology=v2%s", machine, many);
    assert_refused("256", "%s " MODERN IOMMU ",topology=v3%s", machine, many);
}

static const Case cases[] = {
    {NAMED("ATT-3", "who-is-an-endpoint"), who_is_an_endpoint},
    {NAMED("ATT-4", "two-endpoints-of-one-domain"), two_endpoints_of_one_domain},
    {NAMED("BYP-1", "bypass-switches-at-run-time"), bypass_switches_at_run_time},
    {NAMED("BYP-4", "bypass-write-without-the-feature"), bypass_write_without_the_feature},
    {NAMED("CFG-6", "bypass-takes-0-and-1-of-any-width"), bypass_takes_0_and_1_of_any_width},
    {NAMED("CFG-5", "system-reset"), system_reset},
    {NAMED("CFG-D1", "only-bypass-is-writable"), only_bypass_is_writable},
    {NAMED("FLT-D1", "fault-names-endpoint-address-and-access"),
     fault_names_endpoint_address_and_access},
    {NAMED("GEN-1", "nothing-before-driver-ok"), nothing_before_driver_ok},
    {NAMED("GEN-3", "offers-what-the-transport-can"), offers_what_the_transport_can},
    {NAMED("GEN-5", "queue-registers"), queue_registers},
    {NAMED("GEN-7", "generation-counts-changes"), generation_counts_changes},
    {NAMED("GEN-8", "config-reads-of-every-width"), config_reads_of_every_width},
    {NAMED("INI-D1", "reset-by-status"), reset_by_status},
    {NAMED("MOD-8", "identifies-itself"), identifies_itself},
    {NAMED("MOD-8", "interrupt-status-is-set-and-acknowledged"),
     interrupt_status_is_set_and_acknowledged},
    {NAMED("MOD-8", "legacy-transport"), legacy_transport},
    {NAMED("MOD-8", "no-free-transport"), no_free_transport},
    {NAMED("MOD-8", "wrong-bus"), wrong_bus},
    {NAMED("MOD-8", "manages-pci-too"), manages_pci_too},
    {NAMED("MOD-8", "generic-name-with-a-bus"), generic_name_with_a_bus},
    {NAMED("MOD-7", "both-kinds-share-the-machine"), both_kinds_share_the_machine},
    {NAMED("MOD-7", "claimed-twice"), claimed_twice},
    {NAMED("MOD-9", "disk-after-the-iommu"), disk_after_the_iommu},
    {NAMED("MOD-9", "disk-before-the-iommu"), disk_before_the_iommu},
    {NAMED("MOD-9", "disk-with-a-thread"), disk_with_a_thread},
    {NAMED("MOD-9", "entropy-through"), entropy_through},
    {NAMED("MOD-9", "rings-with-their-own-rights"), rings_with_their_own_rights},
    {NAMED("MOD-9", "without-iommu-platform"), without_iommu_platform},
    {NAMED("MOD-9", "without-an-iommu"), without_an_iommu},
    {NAMED("MOD-10", "array-of-either-layout"), array_of_either_layout},
    {NAMED("MOD-10", "array-larger-than-the-window"), array_larger_than_the_window},
    {NAMED("OPS-1", "requests-are-answered"), requests_are_answered},
    {NAMED("OPS-5", "network-card-unattached"), network_card_unattached},
    {NAMED("OPS-5", "unattached-reaches-nothing"), unattached_reaches_nothing},
    {NAMED("RSV-5", "message-window-is-reserved"), message_window_is_reserved},
    {NAMED("UNM-5", "unmapped-is-out-of-reach"), unmapped_is_out_of_reach},
    {NAMED("W9", "own-rings-are-not-translated"), own_rings_are_not_translated},
};

VT_MAIN_ARCH(ARCH, cases)
