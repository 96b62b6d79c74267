/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A disk whose I/O runs in a thread of its own, while the guest changes what
 * the disk may reach. */
#include "viommu_test.h"

#define DISK 0x0038u /* 00:07.0 */
#define DISK_ARGS                                                                                  \
    "-object iothread,id=io0 "                                                                     \
    "-blockdev driver=null-co,node-name=n0,size=16777216,read-zeroes=on "                          \
    "-device virtio-blk-pci,drive=n0,iothread=io0,addr=7.0,iommu_platform=on,"                     \
    "disable-legacy=on,vectors=0 "

#define SECTOR 512u
#define BLK_IN 0u
#define BLK_OK 0u

typedef struct Disk {
    Vt *vt;
    Virtio dev;
    Queue queue;
    uint64_t header;
    uint64_t status; /* one byte per request */
    unsigned sent;
} Disk;

static void disk_open(Vt *vt, Disk *disk)
{
    uint8_t header[16] = {0};

    disk->vt = vt;
    g_assert_true(virtio_negotiate(&disk->dev, F_VERSION_1 | F_ACCESS_PLATFORM));
    queue_init(&disk->dev, &disk->queue, 0);
    virtio_driver_ok(&disk->dev);
    disk->header = vt_alloc(vt, 16);
    disk->status = vt_alloc(vt, 4096);
    disk->sent = 0;
    stl_le_p(header, BLK_IN);
    qtest_memwrite(vt->qts, disk->header, header, 16);
    qtest_memset(vt->qts, disk->status, UNWRITTEN, 4096);
}

/* Queues `n` reads into `buffer`. */
static void disk_read(Disk *disk, unsigned n, uint64_t buffer, uint32_t len)
{
    for (unsigned i = 0; i < n; i++) {
        Seg segs[] = {
            {disk->header, 16, false},
            {buffer, len, true},
            {disk->status + disk->sent % 4096, 1, true},
        };

        queue_add(&disk->queue, segs, 3);
        disk->sent++;
    }
    queue_kick(&disk->queue);
}

/* Waits until `n` reads are done; every one must have succeeded. */
static void disk_wait(Disk *disk, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint32_t len;

        queue_wait(&disk->queue, &len);
    }
    for (unsigned i = disk->sent - n; i < disk->sent; i++) {
        g_assert_cmpuint(qtest_readb(disk->vt->qts, disk->status + i % 4096), ==, BLK_OK);
    }
}

/* An access that misses all memory needs QEMU's big lock, and resetting the disk
 * waits for the thread with that lock held: such accesses have to be over. */
static void disk_quiet(Disk *disk)
{
    for (unsigned i = 0; i < 5; i++) {
        vt_settle(disk->vt);
        g_usleep(1000);
    }
}

static Vt *machine_with_disk(Disk *disk, const char *props)
{
    Vt *vt = vt_new_with(props, DISK_ARGS);

    virtio_probe(vt, &disk->dev, DISK);
    return vt;
}

/* All of guest memory at its own address, but for the I/O APIC and up. */
static void map_identity(Vt *vt, uint32_t domain)
{
    assert_status(vt_map(vt, domain, 0, RAM_SIZE - 1, 0, MAP_RW), VS_OK);
}

static void disk_works_translated(void)
{
    Disk disk;
    Vt *vt = machine_with_disk(&disk, "boot-bypass=off");
    uint64_t iova = 0x40000000;

    assert_status(vt_attach(vt, 1, DISK, 0), VS_OK);
    map_identity(vt, 1);
    assert_status(vt_map(vt, 1, iova, iova + PAGE - 1, page(3), MAP_RW), VS_OK);
    disk_open(vt, &disk);
    qtest_memset(vt->qts, page(3), 0x77, 2 * SECTOR);
    disk_read(&disk, 1, iova, SECTOR);
    disk_wait(&disk, 1);
    for (unsigned i = 0; i < SECTOR; i += 32) {
        g_assert_cmphex(qtest_readb(vt->qts, page(3) + i), ==, 0);
    }
    g_assert_cmphex(qtest_readb(vt->qts, page(3) + SECTOR), ==, 0x77);
    vt_free(vt);
}

/* Detaching, and taking bypass away, while the thread is at work. */
static void losing_access_in_mid_io(void)
{
    Disk disk;
    Vt *vt = machine_with_disk(&disk, "");

    vt_post_events(vt, 64, FAULT_RECORD_SIZE);
    for (unsigned round = 0; round < 60; round++) {
        bool detach = round % 2;

        vt_set_bypass(vt, 1);
        if (detach) {
            assert_status(vt_attach(vt, 1, DISK, 0), VS_OK);
            map_identity(vt, 1);
        }
        vt->next_queue = QUEUE_BASE + 8 * 0x3000;
        disk_open(vt, &disk);
        disk_read(&disk, 32, page(64), 64 * KIB);
        if (detach) {
            /* Bypass to nothing, or the domain to bypass. */
            if (round % 4 == 1) {
                vt_set_bypass(vt, 0);
            }
            assert_status(vt_detach(vt, 1, DISK), VS_OK);
        } else {
            vt_set_bypass(vt, 0);
        }
        disk_quiet(&disk);
        vt_assert_alive(vt);
    }
    vt_free(vt);
}

/* The thread has translations under way nearly all the time, and what it reaches
 * stays the same: no read may fail, and nobody may be caught between two states. */
static void detached_while_translating(void)
{
    const uint64_t buffer = page(1024), size = 4 * MIB;
    Disk disk;
    Vt *vt = machine_with_disk(&disk, "");

    /* It keeps the domain, in which each page of a transfer is looked up by itself. */
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    assert_status(vt_map(vt, 1, 0, buffer - 1, 0, MAP_RW), VS_OK);
    for (uint64_t at = buffer; at < buffer + size; at += PAGE) {
        assert_status(vt_map(vt, 1, at, at + PAGE - 1, at, MAP_RW), VS_OK);
    }
    for (unsigned round = 0; round < 32; round++) {
        assert_status(vt_attach(vt, 1, DISK, 0), VS_OK);
        vt->next_queue = QUEUE_BASE + 8 * 0x3000;
        disk_open(vt, &disk);
        disk_read(&disk, 64, buffer, (uint32_t)size);
        assert_status(vt_detach(vt, 1, DISK), VS_OK);
        disk_wait(&disk, 64);
        g_assert_cmphex(virtio_status(&disk.dev) & STATUS_NEEDS_RESET, ==, 0);
    }
    vt_assert_alive(vt);
    vt_free(vt);
}

/* The IOMMU anew, with buffers for faults; the disk in a domain with all that it needs. */
static void begin_round(Vt *vt, Disk *disk)
{
    vt_bring_up(vt, F_USUAL, true);
    vt->next_queue = QUEUE_BASE + 8 * 0x3000;
    vt_post_events(vt, 64, FAULT_RECORD_SIZE);
    assert_status(vt_attach(vt, 1, DISK, 0), VS_OK);
    map_identity(vt, 1);
    disk_open(vt, disk);
}

/* Faults of the thread come out of the event queue one by one, whole. */
static void faults_from_a_thread(void)
{
    Disk disk;
    Vt *vt = machine_with_disk(&disk, "");
    uint64_t iova = 0x50000000;

    for (unsigned round = 0; round < 20; round++) {
        Fault fault;

        begin_round(vt, &disk);
        disk_read(&disk, 4, iova + round * PAGE, SECTOR);
        fault = vt_wait_fault(vt);
        g_assert_cmphex(fault.endpoint, ==, DISK);
        g_assert_cmpuint(fault.reason, ==, FAULT_MAPPING);
        g_assert_cmphex(fault.address & ~(PAGE - 1), ==, iova + round * PAGE);
        /* A reset of the IOMMU meets faults on their way. */
        disk_quiet(&disk);
        disk_open(vt, &disk);
        disk_read(&disk, 4, iova, SECTOR);
        virtio_reset(&vt->iommu);
        disk_quiet(&disk);
        vt->next_queue = QUEUE_BASE;
    }
    vt_free(vt);
}

#define LPC 0x00f8u /* 00:1f.0: routes interrupts */

/* A processor of TCG's that sleeps: QEMU checks that whoever interrupts it holds
 * the big lock.  Without an APIC, all of the way there is without a lock. */
static Vt *machine_that_is_interrupted(Disk *disk)
{
    static const uint8_t halt = 0xf4;
    g_autofree char *firmware = NULL;
    g_autofree uint8_t *code = g_malloc(64 * KIB);
    int file = g_file_open_tmp("viommu-XXXXXX", &firmware, NULL);
    Vt *vt;

    memset(code, halt, 64 * KIB);
    g_assert_cmpint(file, >, 0);
    g_assert_cmpint(write(file, code, 64 * KIB), ==, 64 * (ssize_t)KIB);
    close(file);
    vt = vt_machine(
        "-accel tcg -cpu qemu64,-apic -bios %s -device virtio-iommu-pci,addr=2.0 " DISK_ARGS,
        firmware);
    unlink(firmware);
    /* Every PIRQ is line 5. */
    pci_write32(vt, LPC, 0x60, 0x05050505);
    pci_write32(vt, LPC, 0x68, 0x05050505);
    virtio_probe(vt, &vt->iommu, IOMMU_BDF);
    virtio_probe(vt, &disk->dev, DISK);
    return vt;
}

static void interrupt_for_a_fault_of_a_thread(void)
{
    Disk disk;
    Vt *vt = machine_that_is_interrupted(&disk);

    for (unsigned round = 0; round < 10; round++) {
        Fault fault;

        begin_round(vt, &disk);
        qtest_readb(vt->qts, vt->iommu.isr);
        disk_read(&disk, 1, 0x50000000, SECTOR);
        fault = vt_wait_fault(vt);
        g_assert_cmphex(fault.endpoint, ==, DISK);
        g_assert_cmphex(qtest_readb(vt->qts, vt->iommu.isr) & 1, ==, 1);
        disk_quiet(&disk);
        vt->next_queue = QUEUE_BASE;
    }
    vt_free(vt);
}

/* From identity by bypass to identity by mapping and back: at no moment is
 * there an address that does not work. */
static void switching_equals_never_fails_io(void)
{
    Disk disk;
    Vt *vt = machine_with_disk(&disk, "");

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_identity(vt, 1);
    assert_status(vt_attach(vt, 2, EDU1, ATTACH_BYPASS), VS_OK);
    disk_open(vt, &disk);
    for (unsigned round = 0; round < 150; round++) {
        disk_read(&disk, 24, page(64), 64 * KIB);
        assert_status(vt_attach(vt, 1, DISK, 0), VS_OK);
        assert_status(vt_attach(vt, 2, DISK, 0 | ATTACH_BYPASS), VS_OK);
        assert_status(vt_attach(vt, 1, DISK, 0), VS_OK);
        assert_status(vt_detach(vt, 1, DISK), VS_OK);
        disk_wait(&disk, 24);
        g_assert_cmphex(virtio_status(&disk.dev) & STATUS_NEEDS_RESET, ==, 0);
    }
    vt_free(vt);
}

/* The disk is pulled out while its thread works through the IOMMU. */
static void unplugged_in_mid_io(void)
{
    Vt *vt = vt_new_with("", "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off "
                             "-object iothread,id=io0 "
                             "-blockdev driver=null-co,node-name=n0,size=16777216,"
                             "read-zeroes=on "
                             "-device pcie-root-port,id=rp1,chassis=1,addr=5.0");
    uint16_t port = rid(0, 5, 0), bdf = rid(1, 0, 0);
    unsigned cap = pci_find_cap(vt, port, 0x10, 0);

    bridge_open(vt, port, 1, 1);
    for (unsigned round = 0; round < 8; round++) {
        Disk disk;

        qtest_qmp_device_add(vt->qts, "virtio-blk-pci", "disk",
                             "{'bus': 'rp1', 'addr': '0.0', 'drive': 'n0', 'iothread': 'io0', "
                             "'iommu_platform': true, 'vectors': 0}");
        pci_write16(vt, port, cap + 0x18, 0x0100); /* slot power on */
        vt_settle(vt);
        vt->next_bar[1] = 0;
        vt->next_queue = QUEUE_BASE + 8 * 0x3000;
        virtio_probe(vt, &disk.dev, bdf);
        assert_status(vt_attach(vt, 1, bdf, 0), VS_OK);
        map_identity(vt, 1);
        disk_open(vt, &disk);
        disk_read(&disk, 64, page(64), 64 * KIB);
        if (round % 2) {
            disk_wait(&disk, 64);
        }
        qtest_qmp_device_del_send(vt->qts, "disk");
        pci_write16(vt, port, cap + 0x18, 0x0700); /* slot power off */
        vt_wait_deleted(vt, "disk");
        assert_status(vt_probe(vt, bdf), VS_NOENT);
        assert_status(vt_unmap(vt, 1, 0, RAM_SIZE - 1), VS_NOENT);
    }
    vt_assert_alive(vt);
    vt_free(vt);
}

/* ---- two threads at once, for as long as one likes ---- */

#define SECOND_DISK 0x0040u /* 00:08.0 */
#define TWO_DISKS                                                                                  \
    DISK_ARGS "-object iothread,id=io1 "                                                           \
              "-blockdev driver=null-co,node-name=n1,size=16777216,read-zeroes=on "                \
              "-device virtio-blk-pci,drive=n1,iothread=io1,addr=8.0,iommu_platform=on,"           \
              "disable-legacy=on,vectors=0 "

#define BATCH 24u
#define SLOTS 32u
#define STEADY_IOVA 0x40000000ull /* mapped all the time */
#define SLOT_IOVA 0x50000000ull   /* pages that come and go */
#define STEADY_SIZE (64 * KIB)

/* A disk that is given a batch of reads whenever it is done with the last one. */
typedef struct Worker {
    Disk disk;
    uint64_t queue;
    unsigned pending;
    uint64_t done;
} Worker;

static uint64_t slot_iova(unsigned slot)
{
    return SLOT_IOVA + slot * 2 * PAGE;
}

static void worker_open(Worker *worker)
{
    Disk *disk = &worker->disk;
    uint8_t header[16] = {0};

    disk_quiet(disk);
    disk->vt->next_queue = worker->queue;
    g_assert_true(virtio_negotiate(&disk->dev, F_VERSION_1 | F_ACCESS_PLATFORM));
    queue_init(&disk->dev, &disk->queue, 0);
    virtio_driver_ok(&disk->dev);
    qtest_memwrite(disk->vt->qts, disk->header, header, sizeof(header));
    worker->pending = 0;
}

static void worker_start(Vt *vt, Worker *worker, unsigned n)
{
    worker->disk.vt = vt;
    virtio_probe(vt, &worker->disk.dev, n ? SECOND_DISK : DISK);
    worker->queue = QUEUE_BASE + (8 + 4 * n) * 0x3000;
    worker->disk.header = page(500 + 2 * n);
    worker->disk.status = page(501 + 2 * n);
    worker_open(worker);
}

static void worker_add(Worker *worker, uint64_t iova, uint32_t len)
{
    Disk *disk = &worker->disk;
    Seg segs[] = {
        {disk->header, 16, false},
        {iova, len, true},
        {disk->status + worker->pending, 1, true},
    };

    qtest_writeb(disk->vt->qts, disk->status + worker->pending, UNWRITTEN);
    queue_add(&disk->queue, segs, 3);
    worker->pending++;
}

/* True if nothing is under way any more. */
static bool worker_idle(Worker *worker)
{
    Queue *q = &worker->disk.queue;

    if (virtio_status(&worker->disk.dev) & STATUS_NEEDS_RESET) {
        worker_open(worker);
        return true;
    }
    if (worker->pending && queue_device_used_idx(q) == q->avail_idx) {
        worker->done += worker->pending;
        worker->pending = 0;
    }
    return worker->pending == 0;
}

static void worker_wait(Worker *worker)
{
    for (unsigned i = 0; !worker_idle(worker); i++) {
        g_assert_cmpuint(i, <, 10000);
        g_usleep(1000);
    }
}

/* Whether a read to this page arrives; the worker is idle before and after. */
static bool worker_reaches(Worker *worker, uint64_t iova, uint64_t phys)
{
    QTestState *qts = worker->disk.vt->qts;
    uint8_t got[SECTOR];
    unsigned zeros = 0;

    worker_wait(worker);
    qtest_memset(qts, phys, 0xc3, sizeof(got));
    worker_add(worker, iova, sizeof(got));
    queue_kick(&worker->disk.queue);
    worker_wait(worker);
    qtest_memread(qts, phys, got, sizeof(got));
    for (unsigned i = 0; i < sizeof(got); i++) {
        zeros += got[i] == 0;
        g_assert_true(got[i] == 0 || got[i] == 0xc3);
    }
    g_assert_true(zeros == 0 || zeros == sizeof(got));
    return zeros != 0;
}

static unsigned stress_seconds(void)
{
    const char *text = g_getenv("VIOMMU_STRESS_SECONDS");

    return text ? (unsigned)g_ascii_strtoull(text, NULL, 10) : 4;
}

/* One disk reads to what stays mapped and must never fail; the other one to
 * pages that come and go, and moves between domains. */
static void two_threads_while_mappings_change(void)
{
    gint64 end = g_get_monotonic_time() + stress_seconds() * G_USEC_PER_SEC;
    Worker steady = {0}, moving = {0};
    Vt *vt = vt_new_with("", TWO_DISKS);
    bool mapped[SLOTS] = {false};
    unsigned round = 0;

    for (uint32_t domain = 1; domain <= 2; domain++) {
        assert_status(vt_attach(vt, domain, domain == 1 ? DISK : SECOND_DISK, 0), VS_OK);
        assert_status(vt_map(vt, domain, QUEUE_BASE, ARENA_BASE - 1, QUEUE_BASE, MAP_RW), VS_OK);
        assert_status(vt_map(vt, domain, page(500), page(504) - 1, page(500), MAP_RW), VS_OK);
    }
    /* So that domain 2 stays. */
    assert_status(vt_attach(vt, 2, EDU1, 0), VS_OK);
    assert_status(vt_attach(vt, 1, SECOND_DISK, 0), VS_OK);
    assert_status(vt_map(vt, 1, STEADY_IOVA, STEADY_IOVA + STEADY_SIZE - 1, page(64), MAP_RW),
                  VS_OK);
    vt_set_bypass(vt, 0);
    qtest_memset(vt->qts, page(300), 0xc3, 4 * PAGE); /* nobody's */
    worker_start(vt, &steady, 0);
    worker_start(vt, &moving, 1);

    for (; g_get_monotonic_time() < end; round++) {
        unsigned slot = (unsigned)g_random_int_range(0, SLOTS);
        uint64_t iova = slot_iova(slot), phys = page(128 + slot);

        if (worker_idle(&steady)) {
            for (unsigned i = 0; i < BATCH && steady.done; i++) {
                g_assert_cmpuint(qtest_readb(vt->qts, steady.disk.status + i), ==, BLK_OK);
            }
            for (unsigned i = 0; i < BATCH; i++) {
                worker_add(&steady, STEADY_IOVA, STEADY_SIZE);
            }
            queue_kick(&steady.disk.queue);
        }
        if (worker_idle(&moving)) {
            /* More than one that is refused at once, and the disk wants a reset. */
            for (unsigned i = 0; i < BATCH; i++) {
                if (mapped[(slot + i) % SLOTS]) {
                    worker_add(&moving, slot_iova((slot + i) % SLOTS), SECTOR << i % 4);
                }
            }
            if (moving.pending) {
                queue_kick(&moving.disk.queue);
            }
        }
        if (mapped[slot]) {
            assert_status(vt_unmap(vt, 1, iova, iova + PAGE - 1), VS_OK);
        } else {
            assert_status(vt_map(vt, 1, iova, iova + PAGE - 1, phys, MAP_RW), VS_OK);
        }
        mapped[slot] = !mapped[slot];
        if (round % 16 == 0) {
            assert_status(vt_attach(vt, 2, SECOND_DISK, 0), VS_OK);
            vt_set_bypass(vt, 1);
            vt_set_bypass(vt, 0);
            assert_status(vt_attach(vt, 1, SECOND_DISK, 0), VS_OK);
        }
        if (round % 32 == 0) {
            g_assert_cmpint(worker_reaches(&moving, iova, phys), ==, mapped[slot]);
            g_assert_false(worker_reaches(&moving, iova + PAGE, phys));
            vt_drain_faults(vt);
            vt->evt.next_desc = 0;
            vt_post_events(vt, 32, FAULT_RECORD_SIZE);
        }
    }
    worker_wait(&steady);
    worker_wait(&moving);
    for (unsigned i = 0; i < 4 * PAGE; i += 64) {
        g_assert_cmphex(qtest_readb(vt->qts, page(300) + i), ==, 0xc3);
    }
    g_test_message("%u rounds, %" PRIu64 " and %" PRIu64 " reads", round, steady.done, moving.done);
    g_assert_cmphex(steady.done, !=, 0);
    g_assert_cmphex(moving.done, !=, 0);
    vt_assert_alive(vt);
    vt_free(vt);
}

/* A disk that is at work in its own thread ends what it has in hand. */
static void disk_goes_on_after_the_drivers_reset(void)
{
    Disk disk;
    Vt *vt = machine_with_disk(&disk, "boot-bypass=off");
    uint32_t head = 0, len = 0;

    assert_status(vt_attach(vt, 1, DISK, 0), VS_OK);
    map_identity(vt, 1);
    disk_open(vt, &disk);
    for (unsigned round = 0; round < 4; round++) {
        disk_read(&disk, 32, page(64), 64 * KIB);
        if (round == 0) {
            virtio_reset(&vt->iommu);
        }
        disk_wait(&disk, 32);
    }
    g_assert_true(virtio_accept(&vt->iommu, F_USUAL));
    disk_read(&disk, 1, page(64), 64 * KIB);
    disk_quiet(&disk);
    g_assert_false(queue_pop(&disk.queue, &head, &len));
    vt_free(vt);
}

static const Case cases[] = {
    {"ATT-10/disk-works-translated", disk_works_translated},
    {"W18/unplugged-in-mid-io", unplugged_in_mid_io},
    {"W20/losing-access-in-mid-io", losing_access_in_mid_io},
    {"W20/detached-while-translating", detached_while_translating},
    {"W20/two-threads-while-mappings-change", two_threads_while_mappings_change},
    {"W21/faults-from-a-thread", faults_from_a_thread},
    {"W21/interrupt-for-a-fault-of-a-thread", interrupt_for_a_fault_of_a_thread},
    {"W31/disk-goes-on-after-the-drivers-reset", disk_goes_on_after_the_drivers_reset},
    {"W23/switching-equals-never-fails-io", switching_equals_never_fails_io},
};

VT_MAIN(cases)
