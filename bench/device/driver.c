/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "hw/pci/pci.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ids.h"
#include "standard-headers/linux/virtio_iommu.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"

#include "hw/compat.h"
#include "driver.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA 0xcfc

/* Where the driver, in place of a firmware, puts the first memory BAR. */
#define BAR_BASE 0xc0000000u
#define BAR_SPACING 0x01000000u

#define QUEUE_SIZE 256
#define REQUEST_QUEUE 0
#define EVENT_QUEUE 1

/* Layout of a queue's memory. */
#define DESC_OFFSET 0
#define AVAIL_OFFSET 0x1000
#define USED_OFFSET 0x2000
#define BUFFER_OFFSET 0x4000
#define INDIRECT_OFFSET 0x8000
#define QUEUE_MEMORY 0x10000

/* One cache line a request; the device writes the tail behind the request. */
#define SLOT_SIZE 64
#define TAIL_OFFSET 48

/* Long enough for a teardown of ten million mappings. */
#define TIMEOUT_NS (120 * NANOSECONDS_PER_SECOND)

typedef struct Queue {
    hwaddr gpa;
    uint8_t *mem;
    struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;
    hwaddr notify;
    uint16_t next;
} Queue;

struct BenchDriver {
    int devfn;
    hwaddr common;
    hwaddr notify;
    uint32_t notify_multiplier;
    void *ram;
    hwaddr ram_size;
    Queue request;
    Queue event;
    bool indirect;
    unsigned waiting;
    int64_t kick_ns;
};

/* -- PCI configuration space through the ports -- */

static void config_select(int devfn, uint8_t reg)
{
    address_space_stl_le(&address_space_io, CONFIG_ADDRESS,
                         0x80000000u | devfn << 8 | (reg & ~3u),
                         MEMTXATTRS_UNSPECIFIED, NULL);
}

static uint32_t config_readl(int devfn, uint8_t reg)
{
    config_select(devfn, reg);
    return address_space_ldl_le(&address_space_io, CONFIG_DATA,
                                MEMTXATTRS_UNSPECIFIED, NULL);
}

static uint8_t config_readb(int devfn, uint8_t reg)
{
    return config_readl(devfn, reg) >> 8 * (reg & 3);
}

static void config_writel(int devfn, uint8_t reg, uint32_t value)
{
    config_select(devfn, reg);
    address_space_stl_le(&address_space_io, CONFIG_DATA, value,
                         MEMTXATTRS_UNSPECIFIED, NULL);
}

/* Writing 0 to the status bits next to the command register clears none. */
static void enable_function(int devfn)
{
    config_writel(devfn, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

void bench_driver_enable_dma(int devfn)
{
    enable_function(devfn);
}

static void place_bars(int devfn)
{
    uint32_t next = BAR_BASE;

    for (uint8_t reg = PCI_BASE_ADDRESS_0; reg <= PCI_BASE_ADDRESS_5; reg += 4) {
        uint32_t bar = config_readl(devfn, reg);

        config_writel(devfn, reg, UINT32_MAX);
        if (!config_readl(devfn, reg) || (bar & PCI_BASE_ADDRESS_SPACE_IO)) {
            config_writel(devfn, reg, 0);
            continue;
        }
        config_writel(devfn, reg, next);
        next += BAR_SPACING;
        if (bar & PCI_BASE_ADDRESS_MEM_TYPE_64) {
            reg += 4;
            config_writel(devfn, reg, 0);
        }
    }
}

static hwaddr bar_address(int devfn, uint8_t bar)
{
    return config_readl(devfn, PCI_BASE_ADDRESS_0 + 4 * bar) &
           PCI_BASE_ADDRESS_MEM_MASK;
}

static int find_function(uint32_t id)
{
    for (int devfn = 0; devfn < 256; devfn++) {
        if (config_readl(devfn, PCI_VENDOR_ID) == id) {
            return devfn;
        }
    }
    return -1;
}

static bool find_structures(BenchDriver *d)
{
    for (uint8_t pos = config_readb(d->devfn, PCI_CAPABILITY_LIST); pos;
         pos = config_readb(d->devfn, pos + PCI_CAP_LIST_NEXT)) {
        uint8_t type = config_readb(d->devfn, pos + VIRTIO_PCI_CAP_CFG_TYPE);
        hwaddr at;

        if (config_readb(d->devfn, pos) != PCI_CAP_ID_VNDR) {
            continue;
        }
        at = bar_address(d->devfn,
                         config_readb(d->devfn, pos + VIRTIO_PCI_CAP_BAR)) +
             config_readl(d->devfn, pos + VIRTIO_PCI_CAP_OFFSET);
        if (type == VIRTIO_PCI_CAP_COMMON_CFG) {
            d->common = at;
        } else if (type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
            d->notify = at;
            d->notify_multiplier = config_readl(d->devfn,
                                                pos + VIRTIO_PCI_NOTIFY_CAP_MULT);
        }
    }
    return d->common && d->notify;
}

/* -- registers -- */

static void writeb(hwaddr at, uint8_t value)
{
    address_space_stb(&address_space_memory, at, value, MEMTXATTRS_UNSPECIFIED,
                      NULL);
}

static void writew(hwaddr at, uint16_t value)
{
    address_space_stw_le(&address_space_memory, at, value,
                         MEMTXATTRS_UNSPECIFIED, NULL);
}

static void writel(hwaddr at, uint32_t value)
{
    address_space_stl_le(&address_space_memory, at, value,
                         MEMTXATTRS_UNSPECIFIED, NULL);
}

static uint8_t readb(hwaddr at)
{
    return address_space_ldub(&address_space_memory, at, MEMTXATTRS_UNSPECIFIED,
                              NULL);
}

static uint16_t readw(hwaddr at)
{
    return address_space_lduw_le(&address_space_memory, at,
                                 MEMTXATTRS_UNSPECIFIED, NULL);
}

static uint32_t readl(hwaddr at)
{
    return address_space_ldl_le(&address_space_memory, at,
                                MEMTXATTRS_UNSPECIFIED, NULL);
}

static bool negotiate(BenchDriver *d, Error **errp)
{
    uint64_t wanted = 1ull << VIRTIO_F_VERSION_1 |
                      1ull << VIRTIO_RING_F_EVENT_IDX |
                      1ull << VIRTIO_RING_F_INDIRECT_DESC |
                      1ull << VIRTIO_IOMMU_F_INPUT_RANGE |
                      1ull << VIRTIO_IOMMU_F_DOMAIN_RANGE |
                      1ull << VIRTIO_IOMMU_F_MAP_UNMAP |
                      1ull << VIRTIO_IOMMU_F_BYPASS_CONFIG;
    uint64_t offered = 0;
    uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

    writeb(d->common + VIRTIO_PCI_COMMON_STATUS, 0);
    writeb(d->common + VIRTIO_PCI_COMMON_STATUS, status);
    for (int i = 0; i < 2; i++) {
        writel(d->common + VIRTIO_PCI_COMMON_DFSELECT, i);
        offered |= (uint64_t)readl(d->common + VIRTIO_PCI_COMMON_DF) << 32 * i;
    }
    if (wanted & ~offered) {
        error_setg(errp, "the IOMMU does not offer features 0x%" PRIx64,
                   wanted & ~offered);
        return false;
    }
    for (int i = 0; i < 2; i++) {
        writel(d->common + VIRTIO_PCI_COMMON_GFSELECT, i);
        writel(d->common + VIRTIO_PCI_COMMON_GF, wanted >> 32 * i);
    }
    status |= VIRTIO_CONFIG_S_FEATURES_OK;
    writeb(d->common + VIRTIO_PCI_COMMON_STATUS, status);
    if (readb(d->common + VIRTIO_PCI_COMMON_STATUS) != status) {
        error_setg(errp, "the IOMMU refuses the features");
        return false;
    }
    return true;
}

/* -- queues -- */

static void write_address(hwaddr at, uint64_t value)
{
    writel(at, value);
    writel(at + 4, value >> 32);
}

static bool init_queue(BenchDriver *d, Queue *q, int index, Error **errp)
{
    hwaddr c = d->common;

    q->gpa = BENCH_DRIVER_BASE + index * QUEUE_MEMORY;
    q->mem = (uint8_t *)d->ram + index * QUEUE_MEMORY;
    q->desc = (void *)(q->mem + DESC_OFFSET);
    q->avail = (void *)(q->mem + AVAIL_OFFSET);
    q->used = (void *)(q->mem + USED_OFFSET);
    memset(q->mem, 0, QUEUE_MEMORY);

    writew(c + VIRTIO_PCI_COMMON_Q_SELECT, index);
    if (readw(c + VIRTIO_PCI_COMMON_Q_SIZE) < QUEUE_SIZE) {
        error_setg(errp, "queue %d is too small", index);
        return false;
    }
    writew(c + VIRTIO_PCI_COMMON_Q_SIZE, QUEUE_SIZE);
    writew(c + VIRTIO_PCI_COMMON_Q_MSIX, VIRTIO_MSI_NO_VECTOR);
    write_address(c + VIRTIO_PCI_COMMON_Q_DESCLO, q->gpa + DESC_OFFSET);
    write_address(c + VIRTIO_PCI_COMMON_Q_AVAILLO, q->gpa + AVAIL_OFFSET);
    write_address(c + VIRTIO_PCI_COMMON_Q_USEDLO, q->gpa + USED_OFFSET);
    q->notify = d->notify + (hwaddr)d->notify_multiplier *
                            readw(c + VIRTIO_PCI_COMMON_Q_NOFF);
    writew(c + VIRTIO_PCI_COMMON_Q_ENABLE, 1);
    return true;
}

/* Slot i owns descriptors 2i and 2i + 1 and one indirect table. */
static void lay_out_slot(BenchDriver *d, unsigned i)
{
    Queue *q = &d->request;
    hwaddr buffer = q->gpa + BUFFER_OFFSET + i * SLOT_SIZE;
    hwaddr table = q->gpa + INDIRECT_OFFSET + i * 2 * sizeof(struct vring_desc);
    struct vring_desc out = {
        .addr = cpu_to_le64(buffer),
        .flags = cpu_to_le16(VRING_DESC_F_NEXT),
    };
    struct vring_desc in = {
        .addr = cpu_to_le64(buffer + TAIL_OFFSET),
        .len = cpu_to_le32(sizeof(struct virtio_iommu_req_tail)),
        .flags = cpu_to_le16(VRING_DESC_F_WRITE),
    };

    q->desc[2 * i + 1] = in;
    if (d->indirect) {
        struct vring_desc *t = (void *)(q->mem + (table - q->gpa));

        out.next = cpu_to_le16(1);
        t[0] = out;
        t[1] = in;
        q->desc[2 * i] = (struct vring_desc) {
            .addr = cpu_to_le64(table),
            .len = cpu_to_le32(2 * sizeof(struct vring_desc)),
            .flags = cpu_to_le16(VRING_DESC_F_INDIRECT),
        };
    } else {
        out.next = cpu_to_le16(2 * i + 1);
        q->desc[2 * i] = out;
    }
}

void bench_driver_set_indirect(BenchDriver *d, bool indirect)
{
    assert(!d->waiting);
    d->indirect = indirect;
    for (unsigned i = 0; i < BENCH_BATCH_MAX; i++) {
        lay_out_slot(d, i);
    }
}

static void *next_request(BenchDriver *d, size_t size)
{
    Queue *q = &d->request;
    unsigned i = d->waiting++;
    uint8_t *request = q->mem + BUFFER_OFFSET + i * SLOT_SIZE;

    assert(i < BENCH_BATCH_MAX);
    if (d->indirect) {
        struct vring_desc *t = (void *)(q->mem + INDIRECT_OFFSET);

        t[2 * i].len = cpu_to_le32(size);
    } else {
        q->desc[2 * i].len = cpu_to_le32(size);
    }
    q->avail->ring[(uint16_t)(q->next + i) % QUEUE_SIZE] = cpu_to_le16(2 * i);
    request[TAIL_OFFSET] = UINT8_MAX;
    return request;
}

void bench_driver_attach(BenchDriver *d, uint32_t domain, uint32_t endpoint)
{
    struct virtio_iommu_req_attach *r =
        next_request(d, offsetof(struct virtio_iommu_req_attach, tail));

    *r = (struct virtio_iommu_req_attach) {
        .head.type = VIRTIO_IOMMU_T_ATTACH,
        .domain = cpu_to_le32(domain),
        .endpoint = cpu_to_le32(endpoint),
    };
}

void bench_driver_detach(BenchDriver *d, uint32_t domain, uint32_t endpoint)
{
    struct virtio_iommu_req_detach *r =
        next_request(d, offsetof(struct virtio_iommu_req_detach, tail));

    *r = (struct virtio_iommu_req_detach) {
        .head.type = VIRTIO_IOMMU_T_DETACH,
        .domain = cpu_to_le32(domain),
        .endpoint = cpu_to_le32(endpoint),
    };
}

void bench_driver_map(BenchDriver *d, uint32_t domain, uint64_t iova,
                      uint64_t last, uint64_t phys)
{
    struct virtio_iommu_req_map *r =
        next_request(d, offsetof(struct virtio_iommu_req_map, tail));

    *r = (struct virtio_iommu_req_map) {
        .head.type = VIRTIO_IOMMU_T_MAP,
        .domain = cpu_to_le32(domain),
        .virt_start = cpu_to_le64(iova),
        .virt_end = cpu_to_le64(last),
        .phys_start = cpu_to_le64(phys),
        .flags = cpu_to_le32(VIRTIO_IOMMU_MAP_F_READ | VIRTIO_IOMMU_MAP_F_WRITE),
    };
}

void bench_driver_unmap(BenchDriver *d, uint32_t domain, uint64_t iova,
                        uint64_t last)
{
    struct virtio_iommu_req_unmap *r =
        next_request(d, offsetof(struct virtio_iommu_req_unmap, tail));

    *r = (struct virtio_iommu_req_unmap) {
        .head.type = VIRTIO_IOMMU_T_UNMAP,
        .domain = cpu_to_le32(domain),
        .virt_start = cpu_to_le64(iova),
        .virt_end = cpu_to_le64(last),
    };
}

void bench_driver_unknown(BenchDriver *d)
{
    struct virtio_iommu_req_head *r =
        next_request(d, offsetof(struct virtio_iommu_req_map, tail));

    *r = (struct virtio_iommu_req_head) { .type = 0x7f };
}

/* A device may serve a part of the queue later, in the main loop. */
static void wait_for_answers(Queue *q)
{
    int64_t deadline = get_clock() + TIMEOUT_NS;

    while (le16_to_cpu(qatomic_load_acquire(&q->used->idx)) != q->next) {
        bql_unlock();
        g_usleep(10);
        bql_lock();
        if (get_clock() > deadline) {
            error_report("viommu-bench: the IOMMU does not answer");
            exit(1);
        }
    }
}

void bench_driver_kick(BenchDriver *d, int status)
{
    Queue *q = &d->request;
    unsigned n = d->waiting;
    int64_t start;

    d->waiting = 0;
    q->next += n;
    /* The event index of used buffers: far ahead, so no interrupt is due. */
    qatomic_set(&q->avail->ring[QUEUE_SIZE], cpu_to_le16(q->next + 0x4000));
    qatomic_store_release(&q->avail->idx, cpu_to_le16(q->next));
    start = get_clock();
    writew(q->notify, REQUEST_QUEUE);
    wait_for_answers(q);
    d->kick_ns = get_clock() - start;

    for (unsigned i = 0; i < n && status != BENCH_ANY_STATUS; i++) {
        uint8_t got = q->mem[BUFFER_OFFSET + i * SLOT_SIZE + TAIL_OFFSET];

        if (got != status) {
            error_report("viommu-bench: request type %u is answered with %u, "
                         "not %d", q->mem[BUFFER_OFFSET + i * SLOT_SIZE], got,
                         status);
            exit(1);
        }
    }
}

int64_t bench_driver_kick_ns(const BenchDriver *d)
{
    return d->kick_ns;
}

/* Linux, too, keeps the event queue full of buffers. */
static void fill_event_queue(BenchDriver *d)
{
    Queue *q = &d->event;

    for (unsigned i = 0; i < QUEUE_SIZE; i++) {
        q->desc[i] = (struct vring_desc) {
            .addr = cpu_to_le64(q->gpa + BUFFER_OFFSET +
                                i * sizeof(struct virtio_iommu_fault)),
            .len = cpu_to_le32(sizeof(struct virtio_iommu_fault)),
            .flags = cpu_to_le16(VRING_DESC_F_WRITE),
        };
        q->avail->ring[i] = cpu_to_le16(i);
    }
    q->next = QUEUE_SIZE;
    qatomic_store_release(&q->avail->idx, cpu_to_le16(q->next));
    writew(q->notify, EVENT_QUEUE);
}

BenchDriver *bench_driver_new(Error **errp)
{
    g_autofree BenchDriver *d = g_new0(BenchDriver, 1);

    d->devfn = find_function(PCI_VENDOR_ID_REDHAT_QUMRANET |
                             (uint32_t)(PCI_DEVICE_ID_VIRTIO_10_BASE +
                                        VIRTIO_ID_IOMMU) << 16);
    if (d->devfn < 0) {
        error_setg(errp, "there is no virtio-iommu on bus 0");
        return NULL;
    }
    place_bars(d->devfn);
    enable_function(d->devfn);
    if (!find_structures(d)) {
        error_setg(errp, "the IOMMU lacks virtio's structures");
        return NULL;
    }
    d->ram_size = BENCH_DRIVER_SIZE;
    d->ram = address_space_map(&address_space_memory, BENCH_DRIVER_BASE,
                               &d->ram_size, true, MEMTXATTRS_UNSPECIFIED);
    if (!d->ram || d->ram_size != BENCH_DRIVER_SIZE) {
        error_setg(errp, "there is no RAM for the queues");
        return NULL;
    }
    if (!negotiate(d, errp) ||
        !init_queue(d, &d->request, REQUEST_QUEUE, errp) ||
        !init_queue(d, &d->event, EVENT_QUEUE, errp)) {
        address_space_unmap(&address_space_memory, d->ram, d->ram_size, true, 0);
        return NULL;
    }
    bench_driver_set_indirect(d, false);
    writeb(d->common + VIRTIO_PCI_COMMON_STATUS,
           VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
           VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
    fill_event_queue(d);
    return g_steal_pointer(&d);
}

void bench_driver_free(BenchDriver *d)
{
    writeb(d->common + VIRTIO_PCI_COMMON_STATUS, 0);
    address_space_unmap(&address_space_memory, d->ram, d->ram_size, true, 0);
    g_free(d);
}
