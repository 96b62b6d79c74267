/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Features, configuration space, initialisation and reset. */
#include "viommu_test.h"

#define IOVA 0x40000000ull

/* What the generic chapters describe for any device; 24 and 27 are legacy. */
#define GENERIC_FEATURES                                                                           \
    (F_INDIRECT | F_EVENT_IDX | F_VERSION_1 | BIT64(34) | BIT64(35) | BIT64(38) | F_RING_RESET)

static void read_config(Vt *vt, uint8_t out[CONFIG_SIZE])
{
    for (unsigned i = 0; i < CONFIG_SIZE; i++) {
        out[i] = vt_config8(vt, i);
    }
}

/* ---- features ---- */

static void offers_map_unmap(void)
{
    Vt *vt = vt_boot("", "");

    g_assert_cmphex(virtio_offered(&vt->iommu) & F_MAP_UNMAP, !=, 0);
    vt_free(vt);
}

static void does_not_offer_old_bypass(void)
{
    Vt *vt = vt_boot("", "");

    g_assert_cmphex(virtio_offered(&vt->iommu) & F_BYPASS, ==, 0);
    vt_free(vt);
}

static void never_both_bypass_bits(void)
{
    Vt *vt = vt_boot("", "");
    uint64_t both = F_BYPASS | F_BYPASS_CONFIG;

    g_assert_cmphex(virtio_offered(&vt->iommu) & both, !=, both);
    vt_free(vt);
}

static void offers_nothing_undescribed(void)
{
    Vt *vt = vt_boot("", "");

    g_assert_cmphex(virtio_offered(&vt->iommu) & ~(F_USUAL | GENERIC_FEATURES), ==, 0);
    vt_free(vt);
}

static void offers_version_1_not_access_platform(void)
{
    Vt *vt = vt_boot("", "");
    uint64_t offered = virtio_offered(&vt->iommu);

    g_assert_cmphex(offered & F_VERSION_1, !=, 0);
    g_assert_cmphex(offered & F_ACCESS_PLATFORM, ==, 0);
    vt_free(vt);
}

static void accepts_every_subset_or_says_no(void)
{
    Vt *vt = vt_boot("", "");
    uint64_t offered = virtio_offered(&vt->iommu);

    /* VERSION_1 with any one other bit, with all but one, and alone. */
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t others = offered & ~(F_VERSION_1 | BIT64(34) | F_EVENT_IDX);

        if (!(others & BIT64(bit))) {
            continue;
        }
        for (unsigned inverse = 0; inverse < 2; inverse++) {
            uint64_t subset = inverse ? others & ~BIT64(bit) : BIT64(bit);

            if (!virtio_negotiate(&vt->iommu, subset | F_VERSION_1)) {
                continue;
            }
            vt_bring_up(vt, subset | F_VERSION_1, true);
            assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
            assert_status(vt_detach(vt, 1, EDU0), VS_OK);
        }
    }
    vt_free(vt);
}

/* ---- configuration space ---- */

static void page_size_mask_for_every_granule(void)
{
    static const struct {
        const char *props;
        uint64_t granule;
    } rows[] = {
        {"", 0},
        {"granule=4k", 4 * KIB},
        {"granule=8k", 8 * KIB},
        {"granule=16k", 16 * KIB},
        {"granule=64k", 64 * KIB},
        {"granule=host", 0},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        Vt *vt = vt_boot(rows[i].props, "");
        uint64_t granule = vt_granule(vt);

        if (rows[i].granule) {
            g_assert_cmphex(granule, ==, rows[i].granule);
        } else {
            g_assert_cmphex(granule, ==, (uint64_t)sysconf(_SC_PAGESIZE));
        }
        vt_free(vt);
    }
}

static void sparse_page_sizes(void)
{
    static const struct {
        const char *props;
        uint64_t mask;
    } rows[] = {
        {"granule=4k,sparse-page-sizes=off", -(4 * KIB)},
        {"granule=4k", 4 * KIB | 2 * KIB * KIB | KIB * KIB * KIB},
        {"granule=16k,sparse-page-sizes=on", 16 * KIB | 32 * KIB * KIB | 64 * KIB * KIB * KIB},
        {"granule=64k,sparse-page-sizes=on",
         64 * KIB | 512 * KIB * KIB | 4 * KIB * KIB * KIB * KIB},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        Vt *vt = vt_boot(rows[i].props, "");

        vt_bring_up(vt, F_USUAL, true);
        g_assert_cmphex(vt_config64(vt, CONFIG_PAGE_SIZE_MASK), ==, rows[i].mask);
        /* CFG-1: any multiple of the granule can be mapped, whatever else the mask says. */
        assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
        assert_status(vt_map(vt, 1, 0, 3 * vt_granule(vt) - 1, 0, MAP_RW), VS_OK);
        assert_status(vt_unmap(vt, 1, 0, 3 * vt_granule(vt) - 1), VS_OK);
        vt_free(vt);
    }
}

static void every_advertised_size_can_be_mapped(void)
{
    Vt *vt = vt_new();
    uint64_t mask = vt_config64(vt, CONFIG_PAGE_SIZE_MASK);
    uint64_t end = vt_config64(vt, CONFIG_INPUT_END);

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    for (unsigned bit = 0; bit < 62; bit++) {
        uint64_t size = BIT64(bit);

        /* Sizes from 1 GiB up would cover the MSI window from address 0. */
        if (!(mask & size) || 2 * size - 1 > end) {
            continue;
        }
        if (size < 4096 * MIB && 2 * size > MSI_START) {
            continue;
        }
        assert_status(vt_map(vt, 1, size, 2 * size - 1, size, MAP_RW), VS_OK);
    }
    vt_free(vt);
}

static void boot_bypass_is_the_initial_value(void)
{
    Vt *vt = vt_boot("", "");

    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 1);
    vt_free(vt);
    vt = vt_boot("boot-bypass=on", "");
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 1);
    vt_free(vt);
    vt = vt_boot("boot-bypass=off", "");
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 0);
    vt_free(vt);
}

static void device_reset_keeps_bypass(void)
{
    Vt *vt = vt_new();

    vt_set_bypass(vt, 0);
    virtio_reset(&vt->iommu);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 0);
    g_assert_false(edu_write_lands(&vt->edu[0], page(1), page(1), 64));
    vt_free(vt);

    vt = vt_new_with("boot-bypass=off", "");
    vt_set_bypass(vt, 1);
    virtio_reset(&vt->iommu);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 1);
    edu_prime(&vt->edu[0]);
    g_assert_true(edu_write_lands(&vt->edu[0], page(1), page(1), 64));
    vt_free(vt);
}

static void system_reset_restores_bypass(void)
{
    Vt *vt = vt_new();

    vt_set_bypass(vt, 0);
    vt_system_reset(vt);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 1);
    g_assert_true(edu_write_lands(&vt->edu[0], page(1), page(1), 64));
    vt_free(vt);

    vt = vt_new_with("boot-bypass=off", "");
    vt_set_bypass(vt, 1);
    vt_system_reset(vt);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 0);
    vt_free(vt);
}

static void bad_bypass_values_are_ignored(void)
{
    Vt *vt = vt_new();

    for (unsigned was = 0; was < 2; was++) {
        static const uint8_t bad[] = {2, 3, 0x80, 0xff};

        vt_set_bypass(vt, (uint8_t)was);
        for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
            qtest_writeb(vt->qts, vt->iommu.device + CONFIG_BYPASS, bad[i]);
            g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, was);
        }
    }
    vt_assert_alive(vt);
    vt_free(vt);
}

static void only_bypass_is_writable(void)
{
    Vt *vt = vt_new();
    uint64_t base = vt->iommu.device;
    uint8_t before[CONFIG_SIZE], after[CONFIG_SIZE];

    for (unsigned bypass = 0; bypass < 2; bypass++) {
        vt_set_bypass(vt, (uint8_t)bypass);
        read_config(vt, before);
        for (unsigned i = 0; i < CONFIG_SIZE; i++) {
            if (i == CONFIG_BYPASS) {
                continue;
            }
            qtest_writeb(vt->qts, base + i, (uint8_t)~before[i]);
            qtest_writeb(vt->qts, base + i, 1);
            qtest_writeb(vt->qts, base + i, 0);
        }
        for (unsigned i = 0; i + 2 <= CONFIG_BYPASS; i += 2) {
            qtest_writew(vt->qts, base + i, 0x0101);
        }
        for (unsigned i = 0; i + 4 <= CONFIG_BYPASS; i += 4) {
            qtest_writel(vt->qts, base + i, 0);
        }
        read_config(vt, after);
        g_assert_cmpmem(before, CONFIG_SIZE, after, CONFIG_SIZE);
    }
    vt_assert_alive(vt);
    vt_free(vt);
}

/* The configuration space has not been read when the first write comes. */
static void first_write_elsewhere_leaves_bypass(void)
{
    Vt *vt = vt_machine("-device virtio-iommu-pci,addr=2.0 "
                        "-device " EDU_ARGS ",addr=3.0");

    virtio_probe(vt, &vt->iommu, IOMMU_BDF);
    g_assert_true(virtio_negotiate(&vt->iommu, F_USUAL));
    qtest_writeb(vt->qts, vt->iommu.device + CONFIG_PAGE_SIZE_MASK, 0);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 1);
    edu_init(vt, &vt->edu[0], EDU0, true);
    g_assert_true(edu_write_lands(&vt->edu[0], page(1), page(1), 64));
    vt_free(vt);
}

/* The driver's last value for bypass is 0, a system reset has made it 1 since:
 * a write to another byte must not bring the 0 back. */
static void write_elsewhere_does_not_bring_bypass_back(void)
{
    Vt *vt = vt_new();

    vt_set_bypass(vt, 0);
    vt_system_reset(vt);
    g_assert_true(virtio_negotiate(&vt->iommu, F_USUAL));
    qtest_writel(vt->qts, vt->iommu.device + CONFIG_PROBE_SIZE, 0xffffffffu);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 1);
    g_assert_true(edu_write_lands(&vt->edu[0], page(1), page(1), 64));
    vt_free(vt);
}

static void readable_before_features_ok(void)
{
    Vt *vt = vt_boot("", "");
    uint8_t before[CONFIG_SIZE], after[CONFIG_SIZE];

    virtio_reset(&vt->iommu);
    read_config(vt, before);
    g_assert_cmphex(vt_config64(vt, CONFIG_INPUT_END), >, 0);
    g_assert_cmphex(vt_config32(vt, CONFIG_PROBE_SIZE), >, 0);
    vt_bring_up(vt, F_USUAL, true);
    read_config(vt, after);
    g_assert_cmpmem(before, CONFIG_SIZE, after, CONFIG_SIZE);
    vt_free(vt);
}

static void any_width_reads_the_same_bytes(void)
{
    Vt *vt = vt_boot("", "");
    uint64_t base = vt->iommu.device;
    uint8_t bytes[CONFIG_SIZE];

    read_config(vt, bytes);
    for (unsigned i = 0; i + 2 <= CONFIG_SIZE; i += 2) {
        g_assert_cmphex(qtest_readw(vt->qts, base + i), ==, lduw_le_p(bytes + i));
    }
    for (unsigned i = 0; i + 4 <= CONFIG_SIZE; i += 4) {
        g_assert_cmphex(qtest_readl(vt->qts, base + i), ==, (uint32_t)ldl_le_p(bytes + i));
    }
    /* The upper half of a 64-bit field by itself, first. */
    g_assert_cmphex(vt_config32(vt, CONFIG_INPUT_END + 4), ==,
                    (uint32_t)(ldq_le_p(bytes + CONFIG_INPUT_END) >> 32));
    vt_free(vt);
}

static void generation_follows_bypass(void)
{
    Vt *vt = vt_new();
    uint64_t generation = vt->iommu.common + 21;
    uint8_t before;

    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 1);
    before = qtest_readb(vt->qts, generation);
    vt_set_bypass(vt, 0);
    g_assert_cmpuint(qtest_readb(vt->qts, generation), !=, before);
    vt_free(vt);
}

/* ---- reset ---- */

static void assert_clean_slate(Vt *vt)
{
    vt_bring_up(vt, F_USUAL, true);
    assert_status(vt_map(vt, 1, IOVA + PAGE, IOVA + 2 * PAGE - 1, page(2), MAP_RW), VS_NOENT);
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_NOENT);
    g_assert_cmpint(vt_detach(vt, 1, EDU0), !=, VS_OK);
    /* Unattached with bypass=1: what the function says is what it gets. */
    g_assert_true(edu_write_lands(&vt->edu[0], page(3), page(3), 64));
    g_assert_false(edu_write_lands(&vt->edu[0], IOVA, page(1), 64));
    /* The domain is new and empty. */
    vt_attach_with_mailbox(vt, 1, EDU0);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(4), MAP_RW), VS_OK);
    g_assert_true(edu_write_lands(&vt->edu[0], IOVA, page(4), 64));
}

static void reset_with_a_mapping(Vt *vt)
{
    vt_attach_with_mailbox(vt, 1, EDU0);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
    g_assert_true(edu_write_lands(&vt->edu[0], IOVA, page(1), 64));
    virtio_reset(&vt->iommu);
}

static void device_reset_detaches_everything(void)
{
    Vt *vt = vt_new();

    reset_with_a_mapping(vt);
    assert_clean_slate(vt);
    vt_free(vt);
}

static void device_reset_detaches_at_once(void)
{
    Vt *vt = vt_new_with("linger=off", "");

    reset_with_a_mapping(vt);
    g_assert_true(edu_write_lands(&vt->edu[0], page(3), page(3), 64));
    g_assert_false(edu_write_lands(&vt->edu[0], IOVA, page(1), 64));
    g_assert_cmpint(vt_counter(vt, "domains"), ==, 0);
    assert_clean_slate(vt);
    vt_free(vt);
}

static Vt *reset_with_a_bypass_domain(const char *properties)
{
    Vt *vt = vt_new_with(properties, "");

    assert_status(vt_attach(vt, 7, EDU0, ATTACH_BYPASS), VS_OK);
    edu_prime(&vt->edu[0]);
    g_assert_true(edu_write_lands(&vt->edu[0], page(1), page(1), 64));
    virtio_reset(&vt->iommu);
    return vt;
}

static void device_reset_detaches_bypass_domains(void)
{
    Vt *vt = reset_with_a_bypass_domain("boot-bypass=off");

    vt_bring_up(vt, F_USUAL, true);
    g_assert_false(edu_write_lands(&vt->edu[0], page(1), page(1), 64));
    assert_status(vt_attach(vt, 7, EDU0, 0), VS_OK);
    vt_free(vt);
}

static void device_reset_detaches_bypass_domains_at_once(void)
{
    Vt *vt = reset_with_a_bypass_domain("boot-bypass=off,linger=off");

    g_assert_false(edu_write_lands(&vt->edu[0], page(1), page(1), 64));
    vt_free(vt);
}

static void system_reset_detaches_everything(void)
{
    Vt *vt = vt_new();

    vt_attach_with_mailbox(vt, 1, EDU0);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
    vt_system_reset(vt);
    assert_clean_slate(vt);
    vt_free(vt);
}

static void status_is_zero_after_reset(void)
{
    Vt *vt = vt_new();
    Request req = req_detach(1, NOBODY);
    uint64_t in = vt_alloc(vt, 64), out = vt_alloc(vt, 16);
    Seg segs[] = {{in, req.len, false}, {out, 4, true}};
    uint16_t used;

    vt_assert_alive(vt);
    qtest_writeb(vt->qts, vt->iommu.common + 20, 0);
    g_assert_cmphex(virtio_status(&vt->iommu), ==, 0);
    used = queue_device_used_idx(&vt->req);
    qtest_memwrite(vt->qts, in, req.bytes, req.len);
    queue_add(&vt->req, segs, 2);
    queue_kick(&vt->req);
    vt_settle(vt);
    g_assert_cmpuint(queue_device_used_idx(&vt->req), ==, used);
    vt_bring_up(vt, F_USUAL, true);
    vt_assert_alive(vt);
    vt_free(vt);
}

/* ---- nothing happens before DRIVER_OK ---- */

static void request_waits_for_driver_ok(void)
{
    Vt *vt = vt_boot("", "");
    Request req = req_attach(1, EDU0, 0);
    uint64_t in = vt_alloc(vt, 64), out = vt_alloc(vt, 16);
    Seg segs[] = {{in, req.len, false}, {out, 4, true}};
    uint32_t len;

    vt_bring_up(vt, F_USUAL, false);
    qtest_memwrite(vt->qts, in, req.bytes, req.len);
    qtest_memset(vt->qts, out, UNWRITTEN, 4);
    queue_add(&vt->req, segs, 2);
    queue_kick(&vt->req);
    vt_settle(vt);
    g_assert_cmpuint(queue_device_used_idx(&vt->req), ==, 0);
    g_assert_cmphex(qtest_readb(vt->qts, out), ==, UNWRITTEN);
    /* Not attached: identity. */
    g_assert_true(edu_write_lands(&vt->edu[0], page(1), page(1), 64));

    virtio_driver_ok(&vt->iommu);
    queue_kick(&vt->req);
    queue_wait(&vt->req, &len);
    g_assert_cmpuint(len, ==, 4);
    assert_status(qtest_readb(vt->qts, out), VS_OK);
    g_assert_false(edu_write_lands(&vt->edu[0], page(1), page(1), 64));
    vt_free(vt);
}

static void fault_before_driver_ok_is_not_delivered(void)
{
    Vt *vt = vt_boot("boot-bypass=off", "");
    Fault fault;

    vt_bring_up(vt, F_USUAL, false);
    vt_post_events(vt, 8, FAULT_RECORD_SIZE);
    edu_to_ram(&vt->edu[0], page(1), 0, 8);
    g_assert_false(vt_pop_fault(vt, &fault));

    virtio_driver_ok(&vt->iommu);
    queue_kick(&vt->evt);
    g_assert_false(vt_pop_fault(vt, &fault));
    edu_to_ram(&vt->edu[0], page(2), 0, 8);
    fault = vt_wait_fault(vt);
    g_assert_cmphex(fault.address & ~(PAGE - 1), ==, page(2));
    vt_free(vt);
}

/* ---- MSI-X ---- */

static void no_msix_by_default(void)
{
    Vt *vt = vt_boot("", "");

    g_assert_cmphex(pci_find_cap(vt, IOMMU_BDF, 0x11, 0), ==, 0);
    vt_free(vt);
}

/* A device that takes `vectors` signals events by a memory write of its own,
 * which must not be subject to its own translation; one that does not says so. */
static void vectors_work_or_are_refused(void)
{
    Run help = qemu_run("-machine none -device virtio-iommu-pci,help");
    bool takes_vectors = strstr(help.out, "  vectors=") != NULL;
    unsigned cap;
    uint64_t table;
    uint32_t where;
    Vt *vt;

    run_free(&help);
    if (!takes_vectors) {
        assert_one_sentence("-device virtio-iommu-pci,vectors=2");
        return;
    }
    vt = vt_boot("boot-bypass=off,vectors=2", "");
    cap = pci_find_cap(vt, IOMMU_BDF, 0x11, 0);
    g_assert_cmphex(cap, !=, 0);
    g_assert_cmpuint((pci_read16(vt, IOMMU_BDF, cap + 2) & 0x7ff) + 1u, ==, 2);
    where = pci_read32(vt, IOMMU_BDF, cap + 4);
    table = (pci_read32(vt, IOMMU_BDF, 0x10 + 4 * (where & 7)) & ~15ull) + (where & ~7u);
    /* RAM stands in for the interrupt controller: the write can be read back. */
    qtest_writel(vt->qts, table + 16, (uint32_t)page(9));
    qtest_writel(vt->qts, table + 20, 0);
    qtest_writel(vt->qts, table + 24, 0x4d534958);
    qtest_writel(vt->qts, table + 28, 0);
    pci_write16(vt, IOMMU_BDF, cap + 2, 0x8000);
    qtest_writel(vt->qts, page(9), 0);

    g_assert_true(virtio_negotiate(&vt->iommu, F_USUAL));
    vt_bring_up(vt, F_USUAL, false);
    qtest_writew(vt->qts, vt->iommu.common + 22, 1);
    qtest_writew(vt->qts, vt->iommu.common + 26, 1);
    g_assert_cmphex(qtest_readw(vt->qts, vt->iommu.common + 26), ==, 1);
    virtio_driver_ok(&vt->iommu);
    vt_post_events(vt, 4, FAULT_RECORD_SIZE);
    edu_to_ram(&vt->edu[0], page(1), 0, 8);
    g_assert_cmphex(vt_wait_fault(vt).endpoint, ==, EDU0);
    g_assert_cmphex(qtest_readl(vt->qts, page(9)), ==, 0x4d534958);
    vt_free(vt);
}

static const Case cases[] = {
    {"FEA-1/offers-map-unmap", offers_map_unmap},
    {"FEA-2/does-not-offer-old-bypass", does_not_offer_old_bypass},
    {"FEA-3/never-both-bypass-bits", never_both_bypass_bits},
    {"CFG-1/page-size-mask-for-every-granule", page_size_mask_for_every_granule},
    {"CFG-1/sparse-page-sizes", sparse_page_sizes},
    {"CFG-2/every-advertised-size-can-be-mapped", every_advertised_size_can_be_mapped},
    {"CFG-3/boot-bypass-is-the-initial-value", boot_bypass_is_the_initial_value},
    {"CFG-4/device-reset-keeps-bypass", device_reset_keeps_bypass},
    {"CFG-5/system-reset-restores-bypass", system_reset_restores_bypass},
    {"CFG-6/bad-bypass-values-are-ignored", bad_bypass_values_are_ignored},
    {"CFG-D1/only-bypass-is-writable", only_bypass_is_writable},
    {"W12/first-write-elsewhere-leaves-bypass", first_write_elsewhere_leaves_bypass},
    {"CFG-D1/write-elsewhere-does-not-bring-bypass-back",
     write_elsewhere_does_not_bring_bypass_back},
    {"INI-D1/device-reset-detaches-everything", device_reset_detaches_everything},
    {"INI-D1/device-reset-detaches-bypass-domains", device_reset_detaches_bypass_domains},
    {"INI-D1/without-linger-at-once", device_reset_detaches_at_once},
    {"INI-D1/without-linger-bypass-domains-at-once", device_reset_detaches_bypass_domains_at_once},
    {"INI-D1/system-reset-detaches-everything", system_reset_detaches_everything},
    {"W5/device-reset-detaches-everything", device_reset_detaches_everything},
    {"GEN-1/request-waits-for-driver-ok", request_waits_for_driver_ok},
    {"GEN-1/fault-before-driver-ok-is-not-delivered", fault_before_driver_ok_is_not_delivered},
    {"GEN-3/offers-nothing-undescribed", offers_nothing_undescribed},
    {"GEN-4/accepts-every-subset-or-says-no", accepts_every_subset_or_says_no},
    {"GEN-5/no-queue-access-after-reset", status_is_zero_after_reset},
    {"GEN-6/readable-before-features-ok", readable_before_features_ok},
    {"GEN-7/generation-follows-bypass", generation_follows_bypass},
    {"GEN-8/any-width-reads-the-same-bytes", any_width_reads_the_same_bytes},
    {"GEN-12/version-1-without-access-platform", offers_version_1_not_access_platform},
    {"GEN-14/status-zero-resets-the-device", device_reset_detaches_everything},
    {"W14/request-waits-for-driver-ok", request_waits_for_driver_ok},
    {"W14/fault-before-driver-ok-is-not-delivered", fault_before_driver_ok_is_not_delivered},
    {"W30/no-msix-by-default", no_msix_by_default},
    {"W30/vectors-work-or-are-refused", vectors_work_or_are_refused},
};

VT_MAIN(cases)
