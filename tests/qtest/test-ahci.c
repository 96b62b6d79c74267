/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A SATA controller reads its command list and writes what a disk says for as
 * long as its port runs, not for one transfer.  What the IOMMU's driver takes
 * away in the meantime has to be out of its reach.
 */
#include "viommu_test.h"

#define AHCI 0x0038u /* 00:07.0 */
#define AHCI_ARGS                                                                                  \
    "-device ich9-ahci,id=sata,addr=7.0 -blockdev null-co,node-name=d0,read-zeroes=on,size=65536 " \
    "-device ide-hd,bus=sata.0,drive=d0"

/* Registers of the controller, and of its first port. */
#define GHC 0x04u
#define GHC_ENABLE 0x80000000u
#define PORT_LIST 0x100u
#define PORT_FIS 0x108u
#define PORT_IRQ_STATUS 0x110u
#define PORT_CMD 0x118u
#define PORT_CONTROL 0x12cu
#define PORT_ISSUE 0x138u

#define CMD_START 0x0001u
#define CMD_FIS_RX 0x0010u
#define CMD_FIS_ON 0x4000u
#define CMD_LIST_ON 0x8000u
#define IRQ_HOST_BUS_FATAL BIT64(29)

#define ATA_IDENTIFY 0xecu
#define FIS_H2D 0x27u
#define FIS_D2H 0x34u
#define FIS_D2H_AT 0x40u
#define HEADER_STATUS 4u

/* Where the function finds things; what is behind them changes. */
#define LIST 0x40000000ull
#define FIS 0x40001000ull
#define TABLE 0x40002000ull
#define DATA 0x40003000ull

typedef struct Sata {
    Vt *vt;
    uint64_t regs;
} Sata;

static void map_page(Sata *s, uint64_t iova, unsigned to)
{
    assert_status(vt_map(s->vt, 1, iova, iova + PAGE - 1, page(to), MAP_RW), VS_OK);
}

static void unmap_page(Sata *s, uint64_t iova)
{
    assert_status(vt_unmap(s->vt, 1, iova, iova + PAGE - 1), VS_OK);
}

/* Slot 0 is IDENTIFY, whose answer goes to `data`. */
static void write_command(Sata *s, unsigned list, unsigned table, uint64_t data)
{
    static const uint8_t fis[20] = {FIS_H2D, 0x80, ATA_IDENTIFY};
    QTestState *qts = s->vt->qts;

    qtest_memset(qts, page(list), 0, PAGE);
    qtest_writel(qts, page(list), 1u << 16 | sizeof(fis) / 4);
    qtest_writeq(qts, page(list) + 8, TABLE);
    qtest_memset(qts, page(table), 0, PAGE);
    qtest_memwrite(qts, page(table), fis, sizeof(fis));
    qtest_writeq(qts, page(table) + 0x80, data);
    qtest_writel(qts, page(table) + 0x8c, 512 - 1);
}

static void issue(Sata *s)
{
    qtest_writel(s->vt->qts, s->regs + PORT_ISSUE, 1);
    for (unsigned i = 0; i < 20; i++) {
        vt_settle(s->vt);
        g_usleep(1000);
    }
}

static bool untouched(Sata *s, unsigned n)
{
    g_autofree uint8_t *bytes = g_malloc(PAGE);

    qtest_memread(s->vt->qts, page(n), bytes, PAGE);
    for (unsigned i = 0; i < PAGE; i++) {
        if (bytes[i] != 0xc3) {
            return false;
        }
    }
    return true;
}

static void wipe(Sata *s, unsigned n)
{
    qtest_memset(s->vt->qts, page(n), 0xc3, PAGE);
}

/* In domain 1, its port runs; list, FIS area, table and data are pages 0 to 3. */
static Sata *sata_new(void)
{
    Sata *s = g_new0(Sata, 1);

    s->vt = vt_new_with("", AHCI_ARGS);
    s->regs = pci_place_bar(s->vt, AHCI, 5);
    pci_enable(s->vt, AHCI);
    assert_status(vt_attach(s->vt, 1, AHCI, 0), VS_OK);
    for (unsigned i = 0; i < 4; i++) {
        map_page(s, LIST + i * PAGE, i);
        wipe(s, i);
    }
    write_command(s, 0, 2, DATA);
    qtest_writel(s->vt->qts, s->regs + GHC, GHC_ENABLE);
    qtest_writeq(s->vt->qts, s->regs + PORT_LIST, LIST);
    qtest_writeq(s->vt->qts, s->regs + PORT_FIS, FIS);
    qtest_writel(s->vt->qts, s->regs + PORT_CMD, CMD_FIS_RX | CMD_START);
    g_assert_cmphex(qtest_readl(s->vt->qts, s->regs + PORT_CMD) & (CMD_FIS_ON | CMD_LIST_ON), ==,
                    CMD_FIS_ON | CMD_LIST_ON);
    issue(s);
    g_assert_cmphex(qtest_readb(s->vt->qts, page(1) + FIS_D2H_AT), ==, FIS_D2H);
    g_assert_false(untouched(s, 3));
    g_assert_cmpuint(qtest_readl(s->vt->qts, page(0) + HEADER_STATUS), ==, 512);
    return s;
}

static void sata_free(Sata *s)
{
    vt_assert_alive(s->vt);
    vt_free(s->vt);
    g_free(s);
}

static void fis_area_is_not_written_after_unmap(void)
{
    Sata *s = sata_new();

    unmap_page(s, FIS);
    wipe(s, 1);
    wipe(s, 3);
    issue(s);
    g_assert_true(untouched(s, 1));
    g_assert_false(untouched(s, 3));

    map_page(s, FIS, 9);
    wipe(s, 9);
    issue(s);
    g_assert_true(untouched(s, 1));
    g_assert_cmphex(qtest_readb(s->vt->qts, page(9) + FIS_D2H_AT), ==, FIS_D2H);
    sata_free(s);
}

static void command_list_is_not_read_after_unmap(void)
{
    Sata *s = sata_new();

    unmap_page(s, LIST);
    wipe(s, 3);
    issue(s);
    g_assert_true(untouched(s, 3));
    g_assert_cmphex(qtest_readl(s->vt->qts, s->regs + PORT_IRQ_STATUS) & IRQ_HOST_BUS_FATAL, !=, 0);
    qtest_writel(s->vt->qts, s->regs + PORT_IRQ_STATUS, IRQ_HOST_BUS_FATAL);

    /* The old page says nothing any more, and nothing is written there. */
    map_page(s, LIST, 8);
    map_page(s, 2 * DATA, 10);
    wipe(s, 0);
    wipe(s, 10);
    write_command(s, 8, 2, 2 * DATA);
    issue(s);
    g_assert_true(untouched(s, 0));
    g_assert_true(untouched(s, 3));
    g_assert_false(untouched(s, 10));
    g_assert_cmpuint(qtest_readl(s->vt->qts, page(8) + HEADER_STATUS), ==, 512);
    sata_free(s);
}

/* The first half of a command's list of buffers ends a page, the other is somewhere else. */
static void table_in_pages_that_are_apart(void)
{
    const uint64_t table = 2 * TABLE + PAGE - 0x100;
    const unsigned pieces = 16, size = 512 / pieces;
    g_autofree uint8_t *whole = g_malloc(512);
    Sata *s = sata_new();
    QTestState *qts = s->vt->qts;

    qtest_memread(qts, page(3), whole, 512);
    map_page(s, 2 * TABLE, 20);
    map_page(s, 2 * TABLE + PAGE, 30);
    write_command(s, 0, 20, 0);
    qtest_writel(qts, page(0), pieces << 16 | 5);
    qtest_writeq(qts, page(0) + 8, table);
    for (unsigned i = 0; i < 20; i++) {
        qtest_writeb(qts, page(20) + PAGE - 0x100 + i, qtest_readb(qts, page(20) + i));
    }
    for (unsigned i = 0; i < pieces; i++) {
        uint64_t entry = i < 8 ? page(20) + PAGE - 0x80 + i * 16 : page(30) + (i - 8) * 16;

        qtest_writeq(qts, entry, DATA + i * size);
        qtest_writel(qts, entry + 8, 0);
        qtest_writel(qts, entry + 12, size - 1);
    }
    wipe(s, 3);
    issue(s);
    g_assert_cmpuint(qtest_readl(qts, page(0) + HEADER_STATUS), ==, 512);
    for (unsigned i = 0; i < 512; i++) {
        g_assert_cmphex(qtest_readb(qts, page(3) + i), ==, whole[i]);
    }
    sata_free(s);
}

static void nothing_is_left_after_detach(void)
{
    Sata *s = sata_new();

    vt_set_bypass(s->vt, 0);
    assert_status(vt_detach(s->vt, 1, AHCI), VS_OK);
    for (unsigned i = 0; i < 4; i++) {
        wipe(s, i);
    }
    write_command(s, 0, 2, DATA);
    issue(s);
    /* A disk that was reset says who it is. */
    qtest_writel(s->vt->qts, s->regs + PORT_CONTROL, 1);
    qtest_writel(s->vt->qts, s->regs + PORT_CONTROL, 0);
    vt_settle(s->vt);
    g_assert_true(untouched(s, 1));
    g_assert_true(untouched(s, 3));
    sata_free(s);
}

static const Case cases[] = {
    {"DET-4/fis-area-is-not-written-after-unmap", fis_area_is_not_written_after_unmap},
    {"DET-4/command-list-is-not-read-after-unmap", command_list_is_not_read_after_unmap},
    {"W8/sata-table-in-pages-that-are-apart", table_in_pages_that_are_apart},
    {"DET-4/nothing-is-left-of-a-sata-port-after-detach", nothing_is_left_after_detach},
};

VT_MAIN(cases)
