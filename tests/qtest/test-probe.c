/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PROBE, its properties, and reserved memory. */
#include "viommu_test.h"

#define IOVA 0x40000000ull
#define MAX_REGIONS 64

/* Starts with user-supplied regions, each "start:end:type" in quotes. */
static Vt *boot_with_regions(const char *json_list)
{
    Vt *vt = vt_machine("-device '{\"driver\":\"virtio-iommu-pci\",\"addr\":\"2.0\","
                        "\"reserved-regions\":[%s]}' "
                        "-device " EDU_ARGS ",addr=3.0 -device " EDU_ARGS ",addr=4.0",
                        json_list);

    vt_rediscover(vt);
    edu_prime(&vt->edu[0]);
    vt_bring_up(vt, F_USUAL, true);
    return vt;
}

/* All endpoints of a device have the same regions, which MAP keeps free: what a
 * domain maps, up to their very edges, fits every endpoint that joins. */
static void mappings_beside_regions_fit_everyone(void)
{
    Vt *vt = boot_with_regions("\"0x40001000:0x40001fff:0\"");

    edu_prime(&vt->edu[1]);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
    assert_status(vt_map(vt, 1, IOVA + 2 * PAGE, IOVA + 3 * PAGE - 1, page(2), MAP_RW), VS_OK);
    assert_status(vt_map(vt, 1, IOVA + PAGE, IOVA + 2 * PAGE - 1, page(3), MAP_RW), VS_INVAL);
    assert_status(vt_map(vt, 1, MSI_START, MSI_END, page(3), MAP_RW), VS_INVAL);
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    for (unsigned i = 0; i < 2; i++) {
        g_assert_true(edu_write_lands(&vt->edu[i], IOVA, page(1), 64));
        g_assert_true(edu_write_lands(&vt->edu[i], IOVA + 2 * PAGE, page(2), 64));
        g_assert_false(edu_write_lands(&vt->edu[i], IOVA + PAGE, page(3), 64));
    }
    vt_free(vt);
}

static int by_start(const void *a, const void *b)
{
    const ResvMem *x = a, *y = b;

    return x->start < y->start ? -1 : x->start > y->start;
}

/* Sorted by start, disjoint, at most one MSI region. */
static unsigned checked_regions(Vt *vt, uint32_t endpoint, ResvMem *out)
{
    unsigned n = vt_probe_regions(vt, endpoint, out, MAX_REGIONS);
    unsigned msi = 0;

    qsort(out, n, sizeof(*out), by_start);
    for (unsigned i = 0; i < n; i++) {
        g_assert_cmphex(out[i].start, <=, out[i].end);
        g_assert_cmpuint(out[i].subtype, <=, RESV_MSI);
        msi += out[i].subtype == RESV_MSI;
        if (i) {
            g_assert_cmphex(out[i].start, >, out[i - 1].end);
        }
    }
    g_assert_cmpuint(msi, <=, 1);
    return n;
}

static bool covered(const ResvMem *regions, unsigned n, uint64_t start, uint64_t end, int subtype)
{
    /* Sorted and disjoint: walk while they touch. */
    for (unsigned i = 0; i < n && start <= end; i++) {
        if (regions[i].start <= start && start <= regions[i].end &&
            (subtype < 0 || regions[i].subtype == subtype)) {
            if (regions[i].end >= end) {
                return true;
            }
            start = regions[i].end + 1;
        }
    }
    return false;
}

static void q35_reports_its_msi_window(void)
{
    Vt *vt = vt_new();
    ResvMem regions[MAX_REGIONS];
    const uint32_t endpoints[] = {EDU0, EDU1, 0};

    for (unsigned i = 0; i < G_N_ELEMENTS(endpoints); i++) {
        g_assert_cmpuint(checked_regions(vt, endpoints[i], regions), ==, 1);
        g_assert_cmpuint(regions[0].subtype, ==, RESV_MSI);
        g_assert_cmphex(regions[0].start, ==, MSI_START);
        g_assert_cmphex(regions[0].end, ==, MSI_END);
    }
    vt_free(vt);
}

static void reserved_is_ignored(void)
{
    Vt *vt = vt_new();
    Request req = req_probe(EDU0);

    memset(req.bytes + 8, 0xff, 64);
    assert_status(vt_status(vt, &req), VS_OK);
    vt_free(vt);
}

/* An error reports the whole length too: a driver that finds less takes its
 * own zeroed buffer for success. */
static void nobody_is_noent(void)
{
    Vt *vt = vt_new();
    Request req = req_probe(NOBODY);
    Reply reply = vt_send(vt, &req, vt->probe_size + 4);

    g_assert_cmpuint(reply.used, ==, vt->probe_size + 4);
    assert_status(reply.out[vt->probe_size], VS_NOENT);
    for (uint32_t i = 0; i < vt->probe_size; i++) {
        g_assert_cmphex(reply.out[i], ==, 0);
    }
    reply_free(&reply);
    assert_status(vt_probe(vt, IOMMU_BDF), VS_NOENT);
    assert_status(vt_probe(vt, rid(1, 0, 0)), VS_NOENT);
    vt_free(vt);
}

static void needs_its_feature(void)
{
    Vt *vt = vt_boot("", "");
    Request req = req_probe(EDU0);
    Reply reply;

    vt_bring_up(vt, F_USUAL & ~F_PROBE, true);
    reply = vt_send(vt, &req, vt->probe_size + 4);
    g_assert_cmpuint(reply.used, ==, vt->probe_size + 4);
    assert_status(reply.out[vt->probe_size], VS_UNSUPP);
    reply_free(&reply);
    vt_assert_alive(vt);
    vt_free(vt);
}

/* probe_regions() checks the reserved bits, the length without header, the step
 * to the next property and the zeroes after the last one. */
static void properties_are_well_formed(void)
{
    Vt *vt = boot_with_regions("\"0x10000000:0x10000fff:0\",\"0x20000000:0x2fffffff:0\"");
    ResvMem regions[MAX_REGIONS];

    g_assert_cmpuint(checked_regions(vt, EDU0, regions), ==, 3);
    vt_free(vt);
}

static void small_area_is_inval(void)
{
    Vt *vt = vt_new();
    Request req = req_probe(EDU0);
    const uint32_t areas[] = {0, 4, 23, 24, 28, vt->probe_size - 1};

    for (unsigned i = 0; i < G_N_ELEMENTS(areas); i++) {
        Reply reply = vt_send(vt, &req, areas[i] + 4);

        g_assert_cmpuint(reply.used, ==, areas[i] + 4);
        assert_status(reply.out[areas[i]], VS_INVAL);
        for (unsigned n = 0; n < areas[i]; n++) {
            g_assert_cmphex(reply.out[n], ==, 0);
        }
        for (unsigned n = 1; n < 4; n++) {
            g_assert_cmphex(reply.out[areas[i] + n], ==, 0);
        }
        reply_free(&reply);
    }
    vt_assert_alive(vt);
    assert_status(vt_probe(vt, EDU0), VS_OK);
    vt_free(vt);
}

static void rest_of_the_area_is_zero(void)
{
    Vt *vt = vt_new();
    Request req = req_probe(EDU0);
    Reply reply = vt_send(vt, &req, vt->probe_size + 4);

    g_assert_cmpuint(reply.used, ==, vt->probe_size + 4);
    for (uint32_t i = 24; i < vt->probe_size; i++) {
        g_assert_cmphex(reply.out[i], ==, 0);
    }
    reply_free(&reply);
    vt_free(vt);
}

static void many_regions_fit(void)
{
    g_autoptr(GString) list = g_string_new("");
    ResvMem regions[MAX_REGIONS];
    unsigned n;
    Vt *vt;

    for (unsigned i = 0; i < 40; i++) {
        g_string_append_printf(list, "%s\"0x%x:0x%x:0\"", i ? "," : "", 0x40000000 + i * 0x10000,
                               0x40000fff + i * 0x10000);
    }
    vt = boot_with_regions(list->str);
    n = checked_regions(vt, EDU0, regions);
    g_assert_cmpuint(n, ==, 41);
    for (unsigned i = 0; i < 40; i++) {
        uint64_t start = 0x40000000 + i * 0x10000;

        g_assert_true(covered(regions, n, start, start + PAGE - 1, RESV_RESERVED));
        assert_status(vt_probe(vt, EDU0), VS_OK);
    }
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    vt_free(vt);
}

static void probe_works_while_attached(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_probe(vt, EDU0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
    g_assert_true(edu_write_lands(&vt->edu[0], IOVA, page(1), 64));
    vt_free(vt);
}

/* ---- reserved memory ---- */

static void user_regions_join_the_machines(void)
{
    Vt *vt = boot_with_regions("\"0x10000000:0x1000ffff:0\"");
    ResvMem regions[MAX_REGIONS];
    unsigned n = checked_regions(vt, EDU0, regions);

    g_assert_true(covered(regions, n, 0x10000000, 0x1000ffff, RESV_RESERVED));
    g_assert_true(covered(regions, n, MSI_START, MSI_END, RESV_MSI));
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, 0x10000000, 0x10000fff, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_map(vt, 1, 0x1000f000, 0x10010fff, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_map(vt, 1, 0x10010000, 0x10010fff, page(1), MAP_RW), VS_OK);
    vt_free(vt);
}

static void overlapping_user_regions_come_out_disjoint(void)
{
    Vt *vt = boot_with_regions("\"0x10000000:0x1fffffff:0\",\"0x18000000:0x27ffffff:0\","
                               "\"0x18000000:0x18000fff:0\"");
    ResvMem regions[MAX_REGIONS];
    unsigned n = checked_regions(vt, EDU0, regions);

    g_assert_true(covered(regions, n, 0x10000000, 0x27ffffff, RESV_RESERVED));
    vt_free(vt);
}

/* What the user says goes first; the machine's region yields there. */
static void user_region_over_the_machines(void)
{
    Vt *vt = boot_with_regions("\"0xfec00000:0xfee00fff:0\"");
    ResvMem regions[MAX_REGIONS];
    unsigned n = checked_regions(vt, EDU0, regions);

    g_assert_true(covered(regions, n, 0xfec00000, 0xfee00fff, RESV_RESERVED));
    g_assert_true(covered(regions, n, 0xfee01000, MSI_END, RESV_MSI));
    vt_free(vt);
}

static void never_two_msi_regions(void)
{
    const char *args = "-device '{\"driver\":\"virtio-iommu-pci\",\"addr\":\"2.0\","
                       "\"reserved-regions\":[\"0x8000000:0x80fffff:1\"]}'";
    ResvMem regions[MAX_REGIONS];
    Run run;
    Vt *vt;

    /* Either it says so at the start, or PROBE shows one. */
    run = qemu_run("-accel qtest -nodefaults -m 128 -machine q35 %s -S -monitor stdio "
                   "<<EOF\nquit\nEOF\n",
                   args);
    g_assert_true(WIFEXITED(run.status));
    if (WEXITSTATUS(run.status) == 1) {
        assert_one_sentence("%s", args);
    } else {
        vt = boot_with_regions("\"0x8000000:0x80fffff:1\"");
        checked_regions(vt, EDU0, regions);
        vt_free(vt);
    }
    run_free(&run);
}

static void map_over_reserved_is_inval(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, MSI_START, MSI_START + PAGE - 1, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_map(vt, 1, MSI_START, MSI_END, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_map(vt, 1, MSI_START - PAGE, MSI_START + PAGE - 1, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_map(vt, 1, MSI_END + 1 - PAGE, MSI_END + PAGE, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_map(vt, 1, 0, BIT64(32) - 1, 0, MAP_RW), VS_INVAL);
    /* Right up to both edges is fine. */
    assert_status(vt_map(vt, 1, MSI_START - PAGE, MSI_START - 1, page(1), MAP_RW), VS_OK);
    assert_status(vt_map(vt, 1, MSI_END + 1, MSI_END + PAGE, page(2), MAP_RW), VS_OK);
    g_assert_true(edu_write_lands(&vt->edu[0], MSI_START - 64, page(2) - 64, 64));
    g_assert_true(edu_write_lands(&vt->edu[0], MSI_END + 1, page(2), 64));
    vt_free(vt);
}

/* Interrupt vectors that wait in the boot CPU's local APIC. */
static bool lapic_has_irr(Vt *vt, unsigned vector)
{
    g_autofree char *text = qtest_hmp(vt->qts, "info lapic");
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (unsigned i = 0; lines[i]; i++) {
        if (g_str_has_prefix(lines[i], "IRR")) {
            g_auto(GStrv) words = g_strsplit_set(lines[i] + 3, " \t\r", -1);

            for (unsigned n = 0; words[n]; n++) {
                if (g_ascii_strtoull(words[n], NULL, 10) == vector) {
                    return true;
                }
            }
        }
    }
    return false;
}

/* A doorbell write of the function's first four pattern bytes: vector 0x31,
 * fixed, edge, to the boot CPU. */
static void doorbell_passes_while_attached(void)
{
    Vt *vt = vt_new_with("", "");
    unsigned vector = edu_pattern(0);

    vt_post_events(vt, 8, FAULT_RECORD_SIZE);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    g_assert_false(lapic_has_irr(vt, vector));
    edu_to_ram(&vt->edu[0], MSI_START, 0, 4);
    g_assert_true(lapic_has_irr(vt, vector));
    g_assert_cmpuint(vt_drain_faults(vt), ==, 0);
    vt_free(vt);
}

/* A local APIC in QEMU has its registers there: here, its version. */
static void doorbell_cannot_be_read(void)
{
    Vt *vt = vt_new_with("", "");
    Fault fault;

    vt_post_events(vt, 8, FAULT_RECORD_SIZE);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    edu_from_ram(&vt->edu[0], MSI_START + 0x30, 0, 4);
    fault = vt_wait_fault(vt);
    g_assert_cmpuint(fault.reason, ==, FAULT_MAPPING);
    g_assert_cmphex(fault.flags, ==, FAULT_F_READ | FAULT_F_ADDRESS);
    g_assert_cmphex(fault.address, ==, MSI_START + 0x30);
    g_assert_cmpuint(vt_drain_faults(vt), ==, 0);
    vt_free(vt);
}

static void reserved_region_faults_while_attached(void)
{
    Vt *vt = boot_with_regions("\"0x1001000:0x1001fff:0\"");
    Fault fault;

    vt_post_events(vt, 8, FAULT_RECORD_SIZE);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    g_assert_false(edu_write_lands(&vt->edu[0], page(1), page(1), 64));
    fault = vt_wait_fault(vt);
    g_assert_cmpuint(fault.reason, ==, FAULT_MAPPING);
    vt_free(vt);
}

static const Case cases[] = {
    {"PRB-1/reserved-is-ignored", reserved_is_ignored},
    {"PRB-2/nobody-is-noent", nobody_is_noent},
    {"PRB-3/needs-its-feature", needs_its_feature},
    {"PRB-4/property-reserved-bits-are-zero", q35_reports_its_msi_window},
    {"PRB-5/length-leaves-the-header-out", q35_reports_its_msi_window},
    {"PRB-6/next-property-follows-the-value", properties_are_well_formed},
    {"PRB-7/small-area-is-inval", small_area_is_inval},
    {"PRB-8/rest-of-the-area-is-zero", rest_of_the_area_is_zero},
    {"PRB-D1/many-regions-fit", many_regions_fit},
    {"PRB-D1/works-while-attached", probe_works_while_attached},
    {"RSV-1/reserved-bytes-are-zero", q35_reports_its_msi_window},
    {"RSV-2/never-two-msi-regions", never_two_msi_regions},
    {"RSV-3/overlapping-user-regions-come-out-disjoint",
     overlapping_user_regions_come_out_disjoint},
    {"RSV-3/user-region-over-the-machines", user_region_over_the_machines},
    {"RSV-4/map-over-reserved-is-inval", map_over_reserved_is_inval},
    {"RSV-4/mappings-beside-regions-fit-everyone", mappings_beside_regions_fit_everyone},
    {"RSV-5/doorbell-passes-while-attached", doorbell_passes_while_attached},
    {"RSV-5/doorbell-cannot-be-read", doorbell_cannot_be_read},
    {"RSV-5/reserved-region-faults-while-attached", reserved_region_faults_while_attached},
    {"W15/user-regions-join-the-machines", user_regions_join_the_machines},
    {"W15/user-region-over-the-machines", user_region_over_the_machines},
};

VT_MAIN(cases)
