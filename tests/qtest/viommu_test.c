/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "viommu_test.h"

#include "qobject/qdict.h"

#include <sys/prctl.h>

/* ------------------------------------------------------------------ */
/* PCI                                                                 */

uint64_t vt_ram;

/* Every bus has a fixed memory window, so nested and sibling bridges never
 * overlap and stay open when buses are renumbered. */
#define BUS_WINDOW 0x1000000u
#define BUS_WINDOW_MAX 0x2eu

static uint32_t bus_window(const Vt *vt, unsigned bus)
{
    g_assert_cmpuint(bus, <, BUS_WINDOW_MAX);
    return vt->bus_memory + bus * BUS_WINDOW;
}

static uint64_t ecam_addr(const Vt *vt, uint16_t bdf, unsigned off)
{
    g_assert_cmphex(vt->ecam, !=, 0);
    return vt->ecam + ((uint64_t)bdf << 12) + off;
}

static void pci_select(Vt *vt, uint16_t bdf, unsigned off)
{
    qtest_outl(vt->qts, 0xcf8, 0x80000000u | (uint32_t)bdf << 8 | (off & 0xfc));
}

uint8_t pci_read8(Vt *vt, uint16_t bdf, unsigned off)
{
    if (vt->ecam_only) {
        return qtest_readb(vt->qts, ecam_addr(vt, bdf, off));
    }
    pci_select(vt, bdf, off);
    return qtest_inb(vt->qts, (uint16_t)(0xcfc + (off & 3)));
}

uint16_t pci_read16(Vt *vt, uint16_t bdf, unsigned off)
{
    if (vt->ecam_only) {
        return pci_read16_ext(vt, bdf, off);
    }
    pci_select(vt, bdf, off);
    return qtest_inw(vt->qts, (uint16_t)(0xcfc + (off & 2)));
}

uint32_t pci_read32(Vt *vt, uint16_t bdf, unsigned off)
{
    if (vt->ecam_only) {
        return qtest_readl(vt->qts, ecam_addr(vt, bdf, off));
    }
    pci_select(vt, bdf, off);
    return qtest_inl(vt->qts, 0xcfc);
}

void pci_write16(Vt *vt, uint16_t bdf, unsigned off, uint16_t value)
{
    if (vt->ecam_only) {
        pci_write16_ext(vt, bdf, off, value);
        return;
    }
    pci_select(vt, bdf, off);
    qtest_outw(vt->qts, (uint16_t)(0xcfc + (off & 2)), value);
}

void pci_write32(Vt *vt, uint16_t bdf, unsigned off, uint32_t value)
{
    if (vt->ecam_only) {
        qtest_writel(vt->qts, ecam_addr(vt, bdf, off), value);
        return;
    }
    pci_select(vt, bdf, off);
    qtest_outl(vt->qts, 0xcfc, value);
}

uint16_t pci_read16_ext(Vt *vt, uint16_t bdf, unsigned off)
{
    return qtest_readw(vt->qts, ecam_addr(vt, bdf, off));
}

void pci_write16_ext(Vt *vt, uint16_t bdf, unsigned off, uint16_t value)
{
    qtest_writew(vt->qts, ecam_addr(vt, bdf, off), value);
}

unsigned pci_find_cap(Vt *vt, uint16_t bdf, uint8_t id, unsigned from)
{
    unsigned off = pci_read8(vt, bdf, from ? from + 1 : 0x34);

    for (unsigned guard = 0; off && guard < 64; guard++) {
        if (pci_read8(vt, bdf, off) == id) {
            return off;
        }
        off = pci_read8(vt, bdf, off + 1);
    }
    return 0;
}

uint64_t pci_place_bar(Vt *vt, uint16_t bdf, unsigned n)
{
    unsigned off = 0x10 + 4 * n;
    unsigned bus = bdf >> 8;
    uint32_t value, size, addr;

    pci_write32(vt, bdf, off, 0xffffffffu);
    value = pci_read32(vt, bdf, off);
    if (!value) {
        return 0;
    }
    g_assert_false(value & 1);
    size = ~(value & ~15u) + 1;
    vt->next_bar[bus] = ROUND_UP(vt->next_bar[bus], size);
    g_assert_cmpuint(vt->next_bar[bus] + size, <=, BUS_WINDOW);
    addr = bus_window(vt, bus) + vt->next_bar[bus];
    vt->next_bar[bus] += size;
    pci_write32(vt, bdf, off, addr);
    if ((value & 6) == 4) {
        pci_write32(vt, bdf, off + 4, 0);
    }
    return addr;
}

void pci_enable(Vt *vt, uint16_t bdf)
{
    pci_write16(vt, bdf, 4, 6); /* memory space, bus master */
}

void bridge_set_buses(Vt *vt, uint16_t bdf, uint8_t primary, uint8_t secondary, uint8_t subordinate)
{
    pci_write32(vt, bdf, 0x18, (uint32_t)subordinate << 16 | (uint32_t)secondary << 8 | primary);
}

void bridge_open(Vt *vt, uint16_t bdf, uint8_t secondary, uint8_t subordinate)
{
    uint32_t base = bus_window(vt, secondary);
    uint32_t limit = bus_window(vt, subordinate) + BUS_WINDOW - 1;

    bridge_set_buses(vt, bdf, (uint8_t)(bdf >> 8), secondary, subordinate);
    pci_write32(vt, bdf, 0x20, (limit & 0xfff00000u) | base >> 16);
    pci_enable(vt, bdf);
}

/* ------------------------------------------------------------------ */
/* Virtio                                                              */

enum {
    CFG_TYPE_COMMON = 1,
    CFG_TYPE_NOTIFY,
    CFG_TYPE_ISR,
    CFG_TYPE_DEVICE,
};

/* Offsets in the common configuration structure. */
enum {
    COMMON_DFSELECT = 0,
    COMMON_DF = 4,
    COMMON_GFSELECT = 8,
    COMMON_GF = 12,
    COMMON_STATUS = 20,
    COMMON_Q_SELECT = 22,
    COMMON_Q_SIZE = 24,
    COMMON_Q_ENABLE = 28,
    COMMON_Q_NOFF = 30,
    COMMON_Q_DESC = 32,
    COMMON_Q_AVAIL = 40,
    COMMON_Q_USED = 48,
};

void virtio_probe(Vt *vt, Virtio *dev, uint16_t bdf)
{
    uint64_t bars[6] = {0};
    unsigned cap = 0;

    memset(dev, 0, sizeof(*dev));
    dev->vt = vt;
    dev->bdf = bdf;
    g_assert_cmphex(pci_read16(vt, bdf, 0), ==, 0x1af4);
    for (unsigned n = 0; n < 6; n++) {
        uint32_t kind = pci_read32(vt, bdf, 0x10 + 4 * n);
        if (kind & 1) {
            continue;
        }
        bars[n] = pci_place_bar(vt, bdf, n);
        if (bars[n] && (kind & 6) == 4) {
            n++;
        }
    }
    pci_enable(vt, bdf);
    while ((cap = pci_find_cap(vt, bdf, 9, cap)) != 0) {
        uint8_t type = pci_read8(vt, bdf, cap + 3);
        uint8_t bar = pci_read8(vt, bdf, cap + 4);
        uint64_t addr;

        if (bar > 5 || !bars[bar]) {
            continue;
        }
        addr = bars[bar] + pci_read32(vt, bdf, cap + 8);
        switch (type) {
        case CFG_TYPE_COMMON:
            dev->common = addr;
            break;
        case CFG_TYPE_NOTIFY:
            dev->notify = addr;
            dev->notify_multiplier = pci_read32(vt, bdf, cap + 16);
            break;
        case CFG_TYPE_ISR:
            dev->isr = addr;
            break;
        case CFG_TYPE_DEVICE:
            dev->device = addr;
            break;
        }
    }
    g_assert(dev->common && dev->notify && dev->isr && dev->device);
}

uint32_t mmio_read(Virtio *dev, unsigned reg)
{
    return qtest_readl(dev->vt->qts, dev->mmio + reg);
}

void mmio_write(Virtio *dev, unsigned reg, uint32_t value)
{
    qtest_writel(dev->vt->qts, dev->mmio + reg, value);
}

void virtio_mmio_probe(Vt *vt, Virtio *dev, uint64_t base, uint32_t device_id)
{
    memset(dev, 0, sizeof(*dev));
    dev->vt = vt;
    dev->mmio = base;
    dev->isr = base + MMIO_ISR;
    dev->device = base + MMIO_CONFIG;
    dev->notify = base + MMIO_Q_NOTIFY;
    g_assert_cmphex(mmio_read(dev, MMIO_MAGIC), ==, MMIO_MAGIC_VALUE);
    g_assert_cmpuint(mmio_read(dev, MMIO_VERSION), ==, 2);
    g_assert_cmpuint(mmio_read(dev, MMIO_DEVICE_ID), ==, device_id);
}

uint8_t virtio_status(Virtio *dev)
{
    if (dev->mmio) {
        return (uint8_t)mmio_read(dev, MMIO_STATUS);
    }
    return qtest_readb(dev->vt->qts, dev->common + COMMON_STATUS);
}

void virtio_set_status(Virtio *dev, uint8_t status)
{
    if (dev->mmio) {
        mmio_write(dev, MMIO_STATUS, status);
        return;
    }
    qtest_writeb(dev->vt->qts, dev->common + COMMON_STATUS, status);
}

void virtio_reset(Virtio *dev)
{
    virtio_set_status(dev, 0);
    for (unsigned i = 0; virtio_status(dev) != 0; i++) {
        g_assert_cmpuint(i, <, 1000);
        g_usleep(1000);
    }
}

uint64_t virtio_offered(Virtio *dev)
{
    QTestState *qts = dev->vt->qts;
    uint64_t select = dev->mmio ? dev->mmio + MMIO_DFSELECT : dev->common + COMMON_DFSELECT;
    uint64_t window = dev->mmio ? dev->mmio + MMIO_DF : dev->common + COMMON_DF;
    uint64_t low;

    qtest_writel(qts, select, 0);
    low = qtest_readl(qts, window);
    qtest_writel(qts, select, 1);
    return low | (uint64_t)qtest_readl(qts, window) << 32;
}

static void write_features(Virtio *dev, uint64_t features)
{
    QTestState *qts = dev->vt->qts;
    uint64_t select = dev->mmio ? dev->mmio + MMIO_GFSELECT : dev->common + COMMON_GFSELECT;
    uint64_t window = dev->mmio ? dev->mmio + MMIO_GF : dev->common + COMMON_GF;

    virtio_set_status(dev, STATUS_ACKNOWLEDGE);
    virtio_set_status(dev, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    qtest_writel(qts, select, 0);
    qtest_writel(qts, window, (uint32_t)features);
    qtest_writel(qts, select, 1);
    qtest_writel(qts, window, (uint32_t)(features >> 32));
}

void virtio_choose(Virtio *dev, uint64_t features)
{
    virtio_reset(dev);
    write_features(dev, features);
}

bool virtio_negotiate(Virtio *dev, uint64_t features)
{
    virtio_reset(dev);
    return virtio_accept(dev, features);
}

bool virtio_accept(Virtio *dev, uint64_t features)
{
    write_features(dev, features);
    virtio_set_status(dev, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    if (!(virtio_status(dev) & STATUS_FEATURES_OK)) {
        return false;
    }
    dev->features = features;
    return true;
}

void virtio_driver_ok(Virtio *dev)
{
    virtio_set_status(dev, virtio_status(dev) | STATUS_DRIVER_OK);
}

static void write_halves(Virtio *dev, uint64_t reg, uint64_t value)
{
    qtest_writel(dev->vt->qts, reg, (uint32_t)value);
    qtest_writel(dev->vt->qts, reg + 4, (uint32_t)(value >> 32));
}

static void queue_init_mmio(Virtio *dev, Queue *q)
{
    mmio_write(dev, MMIO_Q_SELECT, q->index);
    g_assert_cmpuint(mmio_read(dev, MMIO_Q_READY), ==, 0);
    q->size = (uint16_t)MIN(mmio_read(dev, MMIO_Q_SIZE_MAX), 256);
    g_assert_cmpuint(q->size, >, 0);
    mmio_write(dev, MMIO_Q_SIZE, q->size);
    write_halves(dev, dev->mmio + MMIO_Q_DESC, q->desc + dev->dma_base);
    write_halves(dev, dev->mmio + MMIO_Q_AVAIL, q->avail + dev->dma_base);
    write_halves(dev, dev->mmio + MMIO_Q_USED, q->used + dev->dma_base);
    q->doorbell = dev->notify;
    mmio_write(dev, MMIO_Q_READY, 1);
    g_assert_cmpuint(mmio_read(dev, MMIO_Q_READY), ==, 1);
}

static void queue_init_pci(Virtio *dev, Queue *q)
{
    QTestState *qts = dev->vt->qts;
    uint16_t noff;

    qtest_writew(qts, dev->common + COMMON_Q_SELECT, q->index);
    q->size = MIN(qtest_readw(qts, dev->common + COMMON_Q_SIZE), 256);
    g_assert_cmpuint(q->size, >, 0);
    qtest_writew(qts, dev->common + COMMON_Q_SIZE, q->size);
    write_halves(dev, dev->common + COMMON_Q_DESC, q->desc + dev->dma_base);
    write_halves(dev, dev->common + COMMON_Q_AVAIL, q->avail + dev->dma_base);
    write_halves(dev, dev->common + COMMON_Q_USED, q->used + dev->dma_base);
    noff = qtest_readw(qts, dev->common + COMMON_Q_NOFF);
    q->doorbell = dev->notify + (uint64_t)noff * dev->notify_multiplier;
    qtest_writew(qts, dev->common + COMMON_Q_ENABLE, 1);
}

void queue_init(Virtio *dev, Queue *q, uint16_t index)
{
    memset(q, 0, sizeof(*q));
    q->dev = dev;
    q->index = index;
    q->desc = dev->vt->next_queue;
    q->avail = q->desc + 0x1000;
    q->used = q->desc + 0x2000;
    dev->vt->next_queue += 0x3000;
    g_assert_cmphex(dev->vt->next_queue, <=, ARENA_BASE);
    qtest_memset(dev->vt->qts, q->desc, 0, 0x3000);
    if (dev->mmio) {
        queue_init_mmio(dev, q);
    } else {
        queue_init_pci(dev, q);
    }
}

static void encode_desc(uint8_t out[16], uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    stq_le_p(out, addr);
    stl_le_p(out + 8, len);
    stw_le_p(out + 12, flags);
    stw_le_p(out + 14, next);
}

void queue_write_desc(Queue *q, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags,
                      uint16_t next)
{
    uint8_t bytes[16];

    encode_desc(bytes, addr, len, flags, next);
    qtest_memwrite(q->dev->vt->qts, q->desc + 16ull * i, bytes, sizeof(bytes));
}

void queue_publish(Queue *q, uint16_t head)
{
    QTestState *qts = q->dev->vt->qts;

    qtest_writew(qts, q->avail + 4 + 2ull * (q->avail_idx % q->size), head);
    q->avail_idx++;
    qtest_writew(qts, q->avail + 2, q->avail_idx);
    /* Ask for a notification of every used buffer in either scheme. */
    if (q->dev->features & F_EVENT_IDX) {
        qtest_writew(qts, q->avail + 4 + 2ull * q->size, q->used_idx);
    }
}

uint16_t queue_add(Queue *q, const Seg *segs, unsigned n)
{
    uint16_t head;

    g_assert_cmpuint(n, <=, q->size);
    if (q->next_desc + n > q->size) {
        q->next_desc = 0;
    }
    head = q->next_desc;
    for (unsigned i = 0; i < n; i++) {
        bool last = i == n - 1;

        queue_write_desc(q, (uint16_t)(head + i), segs[i].addr, segs[i].len,
                         (uint16_t)((last ? 0 : DESC_NEXT) | (segs[i].write ? DESC_WRITE : 0)),
                         (uint16_t)(last ? 0 : head + i + 1));
    }
    q->next_desc = (uint16_t)(head + n);
    q->buffer[head] = segs[0].addr;
    queue_publish(q, head);
    return head;
}

uint16_t queue_add_indirect(Queue *q, const Seg *segs, unsigned n)
{
    Vt *vt = q->dev->vt;
    uint64_t table = vt_alloc(vt, 16ull * n);
    uint16_t head;

    for (unsigned i = 0; i < n; i++) {
        uint8_t bytes[16];

        encode_desc(bytes, segs[i].addr, segs[i].len,
                    (uint16_t)((i + 1 < n ? DESC_NEXT : 0) | (segs[i].write ? DESC_WRITE : 0)),
                    (uint16_t)(i + 1));
        qtest_memwrite(vt->qts, table + 16ull * i, bytes, sizeof(bytes));
    }
    if (q->next_desc == q->size) {
        q->next_desc = 0;
    }
    head = q->next_desc++;
    queue_write_desc(q, head, table + q->dev->dma_base, 16 * n, DESC_INDIRECT, 0);
    q->buffer[head] = segs[0].addr;
    queue_publish(q, head);
    return head;
}

void queue_kick(Queue *q)
{
    if (q->dev->mmio) {
        qtest_writel(q->dev->vt->qts, q->doorbell, q->index);
    } else {
        qtest_writew(q->dev->vt->qts, q->doorbell, q->index);
    }
}

uint16_t queue_device_used_idx(Queue *q)
{
    return qtest_readw(q->dev->vt->qts, q->used + 2);
}

bool queue_pop(Queue *q, uint32_t *head, uint32_t *len)
{
    QTestState *qts = q->dev->vt->qts;
    uint64_t elem = q->used + 4 + 8ull * (q->used_idx % q->size);

    if (queue_device_used_idx(q) == q->used_idx) {
        return false;
    }
    *head = qtest_readl(qts, elem);
    *len = qtest_readl(qts, elem + 4);
    q->used_idx++;
    return true;
}

uint32_t queue_wait(Queue *q, uint32_t *len)
{
    uint32_t head;

    for (unsigned i = 0; !queue_pop(q, &head, len); i++) {
        if (i == 5000) {
            g_error("no used buffer on queue %u (device status 0x%x)", q->index,
                    virtio_status(q->dev));
        }
        g_usleep(i < 50 ? 100 : 1000);
    }
    return head;
}

/* ------------------------------------------------------------------ */
/* edu                                                                 */

enum {
    EDU_SRC = 0x80,
    EDU_DST = 0x88,
    EDU_CNT = 0x90,
    EDU_CMD = 0x98,
};

#define EDU_RUN 1u
#define EDU_TO_RAM 2u

static void edu_transfer(Edu *edu, uint64_t src, uint64_t dst, unsigned len, uint64_t cmd)
{
    QTestState *qts = edu->vt->qts;

    qtest_writeq(qts, edu->regs + EDU_SRC, src);
    qtest_writeq(qts, edu->regs + EDU_DST, dst);
    qtest_writeq(qts, edu->regs + EDU_CNT, len);
    qtest_writeq(qts, edu->regs + EDU_CMD, cmd | EDU_RUN);
    qtest_clock_step(qts, EDU_DMA_NS);
    g_assert_cmphex(qtest_readq(qts, edu->regs + EDU_CMD) & EDU_RUN, ==, 0);
}

void edu_to_ram(Edu *edu, uint64_t iova, unsigned buf_off, unsigned len)
{
    edu_transfer(edu, EDU_BUFFER + buf_off, iova, len, EDU_TO_RAM);
}

void edu_from_ram(Edu *edu, uint64_t iova, unsigned buf_off, unsigned len)
{
    edu_transfer(edu, iova, EDU_BUFFER + buf_off, len, 0);
}

uint8_t edu_pattern(unsigned i)
{
    return (uint8_t)(0x31 + i * 7 + i / 256);
}

void edu_prime(Edu *edu)
{
    uint8_t pattern[2048];

    for (unsigned i = 0; i < sizeof(pattern); i++) {
        pattern[i] = edu_pattern(i);
    }
    qtest_memwrite(edu->vt->qts, MAILBOX, pattern, sizeof(pattern));
    edu_from_ram(edu, MAILBOX, 0, sizeof(pattern));
}

void edu_init(Vt *vt, Edu *edu, uint16_t bdf, bool prime)
{
    edu->vt = vt;
    edu->bdf = bdf;
    g_assert_cmphex(pci_read32(vt, bdf, 0), ==, 0x11e81234);
    edu->regs = pci_place_bar(vt, bdf, 0);
    pci_enable(vt, bdf);
    g_assert_cmphex(qtest_readl(vt->qts, edu->regs), ==, 0x010000ed);
    if (prime) {
        edu_prime(edu);
    }
}

bool edu_write_lands(Edu *edu, uint64_t iova, uint64_t phys, unsigned len)
{
    QTestState *qts = edu->vt->qts;
    g_autofree uint8_t *got = g_malloc(len);
    unsigned same = 0, untouched = 0;

    g_assert_cmpuint(len, <=, 2048);
    /* 0x00 is what an address without memory reads as, so it proves nothing. */
    qtest_memset(qts, phys, 0xc3, len);
    edu_to_ram(edu, iova, 0, len);
    qtest_memread(qts, phys, got, len);
    for (unsigned i = 0; i < len; i++) {
        same += got[i] == edu_pattern(i);
        untouched += got[i] == 0xc3;
    }
    if (same == len) {
        return true;
    }
    if (untouched != len) {
        g_error("%u of %u bytes written to I/O address 0x%" PRIx64 " are at 0x%" PRIx64, same, len,
                iova, phys);
    }
    return false;
}

bool edu_read_sees(Edu *edu, uint64_t iova, uint64_t phys, unsigned len)
{
    QTestState *qts = edu->vt->qts;
    g_autofree uint8_t *want = g_malloc(len);
    g_autofree uint8_t *got = g_malloc(len);
    unsigned same = 0;

    g_assert_cmpuint(len, <=, 2048);
    /* Empty the upper half of the edu's buffer first. */
    qtest_memset(qts, MAILBOX, 0xee, len);
    edu_from_ram(edu, MAILBOX, 2048, len);
    for (unsigned i = 0; i < len; i++) {
        want[i] = (uint8_t)(0x80 + (i * 11 + phys / PAGE) % 96);
    }
    qtest_memwrite(qts, phys, want, len);
    edu_from_ram(edu, iova, 2048, len);
    edu_to_ram(edu, MAILBOX, 2048, len);
    qtest_memread(qts, MAILBOX, got, len);
    for (unsigned i = 0; i < len; i++) {
        same += got[i] == want[i];
    }
    if (same == len) {
        return true;
    }
    if (same) {
        g_error("%u of %u bytes read at I/O address 0x%" PRIx64 " come from 0x%" PRIx64, same, len,
                iova, phys);
    }
    return false;
}

/* ------------------------------------------------------------------ */
/* The bench                                                           */

Vt *vt_machine(const char *fmt, ...)
{
    g_autofree char *args = NULL;
    Vt *vt = g_new0(Vt, 1);
    va_list ap;

    va_start(ap, fmt);
    args = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    vt->qts = qtest_initf("-nodefaults -m 128 -machine q35 %s", args);
    vt->bus_memory = 0xc0000000u;
    vt->next_queue = QUEUE_BASE;
    vt->arena = ARENA_BASE;
    return vt;
}

Vt *vt_machine_virt(const char *fmt, ...)
{
    g_autofree char *args = NULL;
    Vt *vt = g_new0(Vt, 1);
    va_list ap;

    va_start(ap, fmt);
    args = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    vt->qts = qtest_initf("-nodefaults -m 128 -machine virt,highmem-ecam=off "
                          "-cpu cortex-a57 %s",
                          args);
    vt->ecam = 0x3f000000;
    vt->ecam_only = true;
    vt->bus_memory = 0x10000000;
    vt_ram = 0x40000000;
    vt->next_queue = QUEUE_BASE;
    vt->arena = ARENA_BASE;
    return vt;
}

Vt *vt_machine_microvm(const char *fmt, ...)
{
    g_autofree char *args = NULL;
    Vt *vt = g_new0(Vt, 1);
    va_list ap;

    va_start(ap, fmt);
    args = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    vt->qts = qtest_initf("-nodefaults -m 128 -machine microvm,acpi=off "
                          "-global virtio-mmio.force-legacy=off %s",
                          args);
    vt->next_queue = QUEUE_BASE;
    vt->arena = ARENA_BASE;
    return vt;
}

void vt_rediscover(Vt *vt)
{
    memset(vt->next_bar, 0, sizeof(vt->next_bar));
    virtio_probe(vt, &vt->iommu, IOMMU_BDF);
    edu_init(vt, &vt->edu[0], EDU0, false);
    edu_init(vt, &vt->edu[1], EDU1, false);
}

Vt *vt_boot(const char *iommu_props, const char *more_args)
{
    Vt *vt = vt_machine("-device virtio-iommu-pci,id=iommu0,addr=2.0%s%s "
                        "-device " EDU_ARGS ",id=edu0,addr=3.0 "
                        "-device " EDU_ARGS ",id=edu1,addr=4.0 %s",
                        iommu_props[0] ? "," : "", iommu_props, more_args);

    vt_rediscover(vt);
    if (vt_config8(vt, CONFIG_BYPASS)) {
        edu_prime(&vt->edu[0]);
        edu_prime(&vt->edu[1]);
    }
    return vt;
}

Vt *vt_new_with(const char *iommu_props, const char *more_args)
{
    Vt *vt = vt_boot(iommu_props, more_args);

    vt_bring_up(vt, F_USUAL, true);
    return vt;
}

Vt *vt_new(void)
{
    return vt_new_with("", "");
}

void vt_free(Vt *vt)
{
    qtest_quit(vt->qts);
    if (vt->printed > 0) {
        close(vt->printed);
    }
    g_free(vt);
}

Vt *vt_logged(Vt *(*start)(void))
{
    g_autofree char *path = NULL;
    int file = g_file_open_tmp("viommu-XXXXXX", &path, NULL);
    int mine = dup(STDERR_FILENO);
    Vt *vt;

    g_assert_cmpint(file, >, 0);
    g_assert_cmpint(mine, >, 0);
    unlink(path);
    dup2(file, STDERR_FILENO);
    vt = start();
    dup2(mine, STDERR_FILENO);
    close(mine);
    vt->printed = file;
    return vt;
}

char *vt_printed(Vt *vt)
{
    off_t end = lseek(vt->printed, 0, SEEK_END);
    size_t size = (size_t)(end - vt->printed_taken);
    char *text = g_malloc0(size + 1);

    g_assert_cmpint(pread(vt->printed, text, size, vt->printed_taken), ==, (ssize_t)size);
    vt->printed_taken = end;
    return text;
}

unsigned vt_commits(Vt *vt)
{
    g_autofree char *text = vt_printed(vt);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autoptr(GHashTable) views = g_hash_table_new(g_str_hash, g_str_equal);
    unsigned most = 0;

    /* Each commit builds the view of every root once, system memory's for certain. */
    for (unsigned i = 0; lines[i]; i++) {
        char *root = strstr(lines[i], "(root ");

        if (root && strstr(lines[i], "flatview_new")) {
            unsigned n = GPOINTER_TO_UINT(g_hash_table_lookup(views, root)) + 1;

            g_hash_table_insert(views, root, GUINT_TO_POINTER(n));
            most = MAX(most, n);
        }
    }
    return most;
}

int64_t vt_counter(Vt *vt, const char *name)
{
    QDict *reply = qtest_qmp_assert_success_ref(
        vt->qts, "{'execute': 'qom-get', 'arguments': {"
                 "'path': '/machine/peripheral/iommu0/virtio-backend', 'property': 'stats'}}");
    int64_t value = qdict_get_int(reply, name);

    qobject_unref(reply);
    return value;
}

void vt_bring_up(Vt *vt, uint64_t features, bool driver_ok)
{
    g_assert_true(virtio_negotiate(&vt->iommu, features));
    vt->probe_size = vt_config32(vt, CONFIG_PROBE_SIZE);
    queue_init(&vt->iommu, &vt->req, 0);
    queue_init(&vt->iommu, &vt->evt, 1);
    if (driver_ok) {
        virtio_driver_ok(&vt->iommu);
    }
}

void vt_system_reset(Vt *vt)
{
    qtest_system_reset(vt->qts);
    vt_rediscover(vt);
}

void vt_wait_deleted(Vt *vt, const char *id)
{
    for (bool gone = false; !gone;) {
        QDict *event = qtest_qmp_eventwait_ref(vt->qts, "DEVICE_DELETED");
        const char *device = qdict_get_try_str(qdict_get_qdict(event, "data"), "device");

        gone = device && g_str_equal(device, id);
        qobject_unref(event);
    }
}

void vt_settle(Vt *vt)
{
    for (unsigned i = 0; i < 16; i++) {
        qtest_readb(vt->qts, MAILBOX);
    }
}

uint64_t vt_alloc(Vt *vt, uint64_t size)
{
    uint64_t addr;

    size = ROUND_UP(size, 16);
    if (vt->arena + size > ARENA_END) {
        vt->arena = ARENA_BASE;
    }
    addr = vt->arena;
    vt->arena += size;
    return addr;
}

uint8_t vt_config8(Vt *vt, unsigned off)
{
    return qtest_readb(vt->qts, vt->iommu.device + off);
}

uint32_t vt_config32(Vt *vt, unsigned off)
{
    return qtest_readl(vt->qts, vt->iommu.device + off);
}

uint64_t vt_config64(Vt *vt, unsigned off)
{
    return vt_config32(vt, off) | (uint64_t)vt_config32(vt, off + 4) << 32;
}

void vt_set_bypass(Vt *vt, uint8_t value)
{
    qtest_writeb(vt->qts, vt->iommu.device + CONFIG_BYPASS, value);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, value);
}

uint64_t vt_granule(Vt *vt)
{
    uint64_t mask = vt_config64(vt, CONFIG_PAGE_SIZE_MASK);

    g_assert_cmphex(mask, !=, 0);
    return mask & -mask;
}

/* ------------------------------------------------------------------ */
/* Requests                                                            */

static Request req_new(uint8_t type, unsigned len)
{
    Request req = {.len = len};

    req.bytes[0] = type;
    return req;
}

Request req_attach(uint32_t domain, uint32_t endpoint, uint32_t flags)
{
    Request req = req_new(REQ_ATTACH, 20);

    stl_le_p(req.bytes + 4, domain);
    stl_le_p(req.bytes + 8, endpoint);
    stl_le_p(req.bytes + 12, flags);
    return req;
}

Request req_detach(uint32_t domain, uint32_t endpoint)
{
    Request req = req_new(REQ_DETACH, 20);

    stl_le_p(req.bytes + 4, domain);
    stl_le_p(req.bytes + 8, endpoint);
    return req;
}

Request req_map(uint32_t domain, uint64_t iova, uint64_t last, uint64_t phys, uint32_t flags)
{
    Request req = req_new(REQ_MAP, 36);

    stl_le_p(req.bytes + 4, domain);
    stq_le_p(req.bytes + 8, iova);
    stq_le_p(req.bytes + 16, last);
    stq_le_p(req.bytes + 24, phys);
    stl_le_p(req.bytes + 32, flags);
    return req;
}

Request req_unmap(uint32_t domain, uint64_t iova, uint64_t last)
{
    Request req = req_new(REQ_UNMAP, 28);

    stl_le_p(req.bytes + 4, domain);
    stq_le_p(req.bytes + 8, iova);
    stq_le_p(req.bytes + 16, last);
    return req;
}

Request req_probe(uint32_t endpoint)
{
    Request req = req_new(REQ_PROBE, 72);

    stl_le_p(req.bytes + 4, endpoint);
    return req;
}

Reply vt_send(Vt *vt, const Request *req, uint32_t writable)
{
    Reply reply = {.writable = writable, .out = g_malloc0(writable + 1)};
    uint64_t in = vt_alloc(vt, req->len ? req->len : 1);
    uint64_t out = vt_alloc(vt, writable ? writable : 1);
    Seg segs[2];
    unsigned n = 0;
    uint16_t head;

    if (req->len) {
        qtest_memwrite(vt->qts, in, req->bytes, req->len);
        segs[n++] = (Seg){in, req->len, false};
    }
    if (writable) {
        qtest_memset(vt->qts, out, UNWRITTEN, writable);
        segs[n++] = (Seg){out, writable, true};
    }
    head = queue_add(&vt->req, segs, n);
    queue_kick(&vt->req);
    g_assert_cmpuint(queue_wait(&vt->req, &reply.used), ==, head);
    g_assert_cmpuint(reply.used, <=, writable);
    if (writable) {
        qtest_memread(vt->qts, out, reply.out, writable);
    }
    return reply;
}

void reply_free(Reply *reply)
{
    g_free(reply->out);
    reply->out = NULL;
}

bool reply_unwritten(const Reply *reply)
{
    for (uint32_t i = 0; i < reply->writable; i++) {
        if (reply->out[i] != UNWRITTEN) {
            return false;
        }
    }
    return reply->used == 0;
}

int vt_status(Vt *vt, const Request *req)
{
    uint32_t writable = req->bytes[0] == REQ_PROBE ? vt->probe_size + 4 : 4;
    Reply reply = vt_send(vt, req, writable);
    const uint8_t *tail = reply.out + writable - 4;
    int status = VS_UNANSWERED;

    if (reply.used) {
        g_assert_cmpuint(reply.used, ==, writable);
        status = tail[0];
        g_assert_cmphex(tail[1] | tail[2] | tail[3], ==, 0);
    } else {
        g_assert_true(reply_unwritten(&reply));
    }
    reply_free(&reply);
    return status;
}

int vt_attach(Vt *vt, uint32_t domain, uint32_t endpoint, uint32_t flags)
{
    Request req = req_attach(domain, endpoint, flags);

    return vt_status(vt, &req);
}

int vt_detach(Vt *vt, uint32_t domain, uint32_t endpoint)
{
    Request req = req_detach(domain, endpoint);

    return vt_status(vt, &req);
}

int vt_map(Vt *vt, uint32_t domain, uint64_t iova, uint64_t last, uint64_t phys, uint32_t flags)
{
    Request req = req_map(domain, iova, last, phys, flags);

    return vt_status(vt, &req);
}

int vt_unmap(Vt *vt, uint32_t domain, uint64_t iova, uint64_t last)
{
    Request req = req_unmap(domain, iova, last);

    return vt_status(vt, &req);
}

int vt_probe(Vt *vt, uint32_t endpoint)
{
    Request req = req_probe(endpoint);

    return vt_status(vt, &req);
}

void vt_attach_with_mailbox(Vt *vt, uint32_t domain, uint32_t endpoint)
{
    assert_status(vt_attach(vt, domain, endpoint, 0), VS_OK);
    assert_status(vt_map(vt, domain, MAILBOX, MAILBOX + PAGE - 1, MAILBOX, MAP_RW), VS_OK);
}

const char *status_name(int status)
{
    static const char *const names[] = {"OK",    "IOERR", "UNSUPP", "DEVERR", "INVAL",
                                        "RANGE", "NOENT", "FAULT",  "NOMEM"};

    if (status == VS_UNANSWERED) {
        return "no answer";
    }
    return status < (int)G_N_ELEMENTS(names) ? names[status] : "unknown status";
}

void vt_assert_alive(Vt *vt)
{
    g_assert_cmphex(virtio_status(&vt->iommu) & STATUS_NEEDS_RESET, ==, 0);
    assert_status(vt_detach(vt, 1, NOBODY), VS_NOENT);
}

/* ------------------------------------------------------------------ */
/* PROBE properties                                                    */

unsigned probe_regions(const uint8_t *area, uint32_t size, ResvMem *out, unsigned cap)
{
    uint32_t off = 0;
    unsigned n = 0;

    while (off + 4 <= size && lduw_le_p(area + off) != 0) {
        uint16_t type = (uint16_t)lduw_le_p(area + off);
        uint16_t length = (uint16_t)lduw_le_p(area + off + 2);
        const uint8_t *value = area + off;

        g_assert_cmphex(type & 0xf000, ==, 0);        /* PRB-4 */
        g_assert_cmpuint(off + 4 + length, <=, size); /* PRB-5, PRB-6 */
        if (type == 1) {
            g_assert_cmpuint(length, ==, 20);                       /* PRB-5 */
            g_assert_cmphex(value[5] | value[6] | value[7], ==, 0); /* RSV-1 */
            g_assert_cmpuint(n, <, cap);
            out[n].subtype = value[4];
            out[n].start = ldq_le_p(value + 8);
            out[n].end = ldq_le_p(value + 16);
            n++;
        }
        off += 4u + length;
    }
    for (; off < size; off++) {
        g_assert_cmphex(area[off], ==, 0); /* PRB-8 */
    }
    return n;
}

unsigned vt_probe_regions(Vt *vt, uint32_t endpoint, ResvMem *out, unsigned cap)
{
    Request req = req_probe(endpoint);
    Reply reply = vt_send(vt, &req, vt->probe_size + 4);
    unsigned n;

    g_assert_cmpuint(reply.used, ==, vt->probe_size + 4);
    assert_status(reply.out[vt->probe_size], VS_OK);
    n = probe_regions(reply.out, vt->probe_size, out, cap);
    reply_free(&reply);
    return n;
}

/* ------------------------------------------------------------------ */
/* Events                                                              */

void vt_post_events(Vt *vt, unsigned n, uint32_t size)
{
    for (unsigned i = 0; i < n; i++) {
        Seg seg = {vt_alloc(vt, size), size, true};

        qtest_memset(vt->qts, seg.addr, UNWRITTEN, size);
        queue_add(&vt->evt, &seg, 1);
    }
    queue_kick(&vt->evt);
    vt_settle(vt);
}

bool vt_pop_fault(Vt *vt, Fault *out)
{
    uint32_t head, len;

    vt_settle(vt);
    do {
        if (!queue_pop(&vt->evt, &head, &len)) {
            return false;
        }
    } while (len == 0); /* a buffer that came back unused */
    g_assert_cmpuint(len, ==, FAULT_RECORD_SIZE);
    qtest_memread(vt->qts, vt->evt.buffer[head], out->raw, FAULT_RECORD_SIZE);
    out->reason = out->raw[0];
    out->flags = (uint32_t)ldl_le_p(out->raw + 4);
    out->endpoint = (uint32_t)ldl_le_p(out->raw + 8);
    out->address = ldq_le_p(out->raw + 16);
    return true;
}

Fault vt_wait_fault(Vt *vt)
{
    Fault fault;

    for (unsigned i = 0; !vt_pop_fault(vt, &fault); i++) {
        g_assert_cmpuint(i, <, 1000);
        g_usleep(1000);
    }
    return fault;
}

unsigned vt_drain_faults(Vt *vt)
{
    unsigned n = 0;
    Fault fault;

    while (vt_pop_fault(vt, &fault)) {
        n++;
    }
    return n;
}

/* ------------------------------------------------------------------ */
/* Command lines                                                       */

static Run run_shell(const char *tail)
{
    g_autofree char *line = g_strdup_printf("exec timeout -k 1 20 %s -display none %s",
                                            g_getenv("QTEST_QEMU_BINARY"), tail);
    char *argv[] = {(char *)"/bin/sh", (char *)"-c", line, NULL};
    g_autoptr(GError) error = NULL;
    Run run = {0};

    g_test_message("running: %s", line);
    g_assert_true(g_spawn_sync(NULL, argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &run.out, &run.err,
                               &run.status, &error));
    return run;
}

Run qemu_run(const char *fmt, ...)
{
    g_autofree char *tail = NULL;
    va_list ap;

    va_start(ap, fmt);
    tail = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    return run_shell(tail);
}

void run_free(Run *run)
{
    g_free(run->out);
    g_free(run->err);
}

static void assert_ends_with_one_sentence(const char *text, const char *tail)
{
    Run run = run_shell(tail);
    unsigned lines = 0;

    g_test_message("stderr: %s", run.err);
    g_assert_true(WIFEXITED(run.status));
    g_assert_cmpint(WEXITSTATUS(run.status), ==, 1);
    for (const char *p = run.err; *p; p++) {
        lines += *p == '\n';
    }
    g_assert_cmpuint(lines, ==, 1);
    if (!strstr(run.err, text)) {
        g_error("\"%s\" is not in: %s", text, run.err);
    }
    run_free(&run);
}

void assert_one_sentence(const char *fmt, ...)
{
    g_autofree char *args = NULL;
    g_autofree char *tail = NULL;
    va_list ap;

    va_start(ap, fmt);
    args = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    tail = g_strdup_printf("-accel qtest -nodefaults -m 128 -machine q35 %s", args);
    assert_ends_with_one_sentence("", tail);
}

void assert_refused(const char *text, const char *fmt, ...)
{
    g_autofree char *args = NULL;
    g_autofree char *tail = NULL;
    va_list ap;

    va_start(ap, fmt);
    args = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    tail = g_strdup_printf("-accel qtest -nodefaults -m 128 %s", args);
    assert_ends_with_one_sentence(text, tail);
}

/* ------------------------------------------------------------------ */
/* The runner                                                          */

static unsigned case_seconds(void)
{
    const char *text = g_getenv("VIOMMU_TEST_TIMEOUT");

    return text ? (unsigned)g_ascii_strtoull(text, NULL, 10) : 30;
}

static void run_case(gconstpointer data)
{
    const Case *c = data;
    gint64 end = g_get_monotonic_time() + case_seconds() * G_USEC_PER_SEC;
    pid_t pid;
    int status;

    fflush(NULL);
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        /* Only the parent speaks TAP. */
        dup2(STDERR_FILENO, STDOUT_FILENO);
        c->run();
        fflush(NULL);
        _exit(0);
    }
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (g_get_monotonic_time() > end) {
            /* The case's QEMU dies with it (libqtest sees to that). */
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            g_test_message("verdict: TIMEOUT");
            g_test_fail();
            return;
        }
        g_usleep(2000);
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        g_test_message("verdict: FAIL");
        g_test_fail();
    }
}

/* The QEMU to test: VIOMMU_TEST_QEMU names the one for x86, others lie beside. */
static void choose_qemu(const char *arch)
{
    const char *qemu = g_getenv("VIOMMU_TEST_QEMU");
    g_autofree char *path = NULL;

    if (!qemu) {
        return;
    }
    path = g_str_has_suffix(qemu, "x86_64")
               ? g_strdup_printf("%.*s%s", (int)(strlen(qemu) - strlen("x86_64")), qemu, arch)
               : g_strdup(qemu);
    g_setenv("QTEST_QEMU_BINARY", path, true);
}

int vt_main(int argc, char **argv, const char *arch, const Case *cases, size_t count)
{
    g_test_init(&argc, &argv, NULL);
    choose_qemu(arch);
    /* Memory that QEMU has freed reads as garbage at once. */
    g_setenv("MALLOC_PERTURB_", "165", false);
    for (size_t i = 0; i < count; i++) {
        g_autofree char *path = g_strconcat("/viommu/", cases[i].name, NULL);

        g_test_add_data_func(path, &cases[i], run_case);
    }
    return g_test_run();
}
