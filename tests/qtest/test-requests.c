/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ATTACH, DETACH, MAP, UNMAP: what is refused, what is done, and how refusing
 * leaves everything as it was. */
#include "viommu_test.h"

#define IOVA 0x40000000ull
#define IOVA2 0x50000000ull

static void map_page(Vt *vt, uint32_t domain, uint64_t iova, uint64_t phys)
{
    assert_status(vt_map(vt, domain, iova, iova + PAGE - 1, phys, MAP_RW), VS_OK);
}

static void assert_reaches(Edu *edu, uint64_t iova, uint64_t phys)
{
    g_assert_true(edu_write_lands(edu, iova, phys, 64));
}

static void assert_blocked(Edu *edu, uint64_t iova, uint64_t phys)
{
    g_assert_false(edu_write_lands(edu, iova, phys, 64));
}

/* ---- operations in general ---- */

static void success_is_status_ok(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_OK);
    assert_status(vt_probe(vt, EDU0), VS_OK);
    assert_status(vt_detach(vt, 1, EDU0), VS_OK);
    vt_free(vt);
}

static void unknown_type_comes_back_unwritten(void)
{
    static const uint8_t types[] = {0, 6, 7, 0x7f, 0x80, 0xff};
    Vt *vt = vt_new();

    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        Request req = {.len = 36};
        Reply reply;

        req.bytes[0] = types[i];
        reply = vt_send(vt, &req, 4);
        g_assert_true(reply_unwritten(&reply));
        reply_free(&reply);
        reply = vt_send(vt, &req, 600);
        g_assert_true(reply_unwritten(&reply));
        reply_free(&reply);
    }
    vt_assert_alive(vt);
    vt_free(vt);
}

static void head_reserved_is_ignored(void)
{
    Vt *vt = vt_new();
    Request reqs[] = {
        req_attach(1, EDU0, 0),
        req_map(1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW),
        req_unmap(1, IOVA, IOVA + PAGE - 1),
        req_probe(EDU0),
        req_detach(1, EDU0),
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(reqs); i++) {
        reqs[i].bytes[1] = 0xff;
        reqs[i].bytes[2] = 0x01;
        reqs[i].bytes[3] = 0x80;
        assert_status(vt_status(vt, &reqs[i]), VS_OK);
    }
    vt_free(vt);
}

/* vt_status() checks the tail of every answer in every test; here each kind of
 * answer is provoked once. */
static void tail_reserved_is_zero(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(vt, 1, NOBODY, 0), VS_NOENT);
    assert_status(vt_attach(vt, 1, EDU1, 0x80), VS_INVAL);
    assert_status(vt_map(vt, 1, IOVA, IOVA + 2 * PAGE - 1, page(1), MAP_RW), VS_OK);
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_RANGE);
    vt_free(vt);
}

static void no_room_for_tail_comes_back_unwritten(void)
{
    Vt *vt = vt_new();
    Request req = req_attach(1, EDU0, 0);

    for (uint32_t writable = 0; writable < 4; writable++) {
        Reply reply = vt_send(vt, &req, writable);

        g_assert_true(reply_unwritten(&reply));
        reply_free(&reply);
        vt_assert_alive(vt);
    }
    /* It was not carried out either. */
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    vt_free(vt);
}

static void no_room_for_head_comes_back_unwritten(void)
{
    Vt *vt = vt_new();
    Request req = req_attach(1, EDU0, 0);

    for (req.len = 0; req.len < 4; req.len++) {
        Reply reply = vt_send(vt, &req, 4);

        g_assert_true(reply_unwritten(&reply));
        reply_free(&reply);
    }
    vt_assert_alive(vt);
    vt_free(vt);
}

static void short_request_is_inval(void)
{
    Vt *vt = vt_new();
    Request reqs[] = {
        req_attach(1, EDU0, 0),
        req_detach(1, EDU0),
        req_map(1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW),
        req_unmap(1, IOVA, IOVA + PAGE - 1),
        req_probe(EDU0),
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(reqs); i++) {
        unsigned full = reqs[i].len;

        for (reqs[i].len = 4; reqs[i].len < full; reqs[i].len += 4) {
            assert_status(vt_status(vt, &reqs[i]), VS_INVAL);
        }
        reqs[i].len = full - 1;
        assert_status(vt_status(vt, &reqs[i]), VS_INVAL);
    }
    vt_assert_alive(vt);
    vt_free(vt);
}

/* A driver may offer more room than the structures need. */
static void longer_request_is_served(void)
{
    Vt *vt = vt_new();
    Request req = req_attach(1, EDU0, 0);

    memset(req.bytes + req.len, 0xff, 24);
    req.len += 24;
    assert_status(vt_status(vt, &req), VS_OK);
    vt_free(vt);
}

static void outside_input_range_is_range(void)
{
    Vt *vt = vt_new();
    uint64_t end = vt_config64(vt, CONFIG_INPUT_END);
    Edu *edu = &vt->edu[0];

    g_assert_cmphex(end, ==, BIT64(39) - 1);
    vt_attach_with_mailbox(vt, 1, EDU0);
    assert_status(vt_map(vt, 1, end + 1, end + PAGE, page(1), MAP_RW), VS_RANGE);
    assert_status(vt_map(vt, 1, end - PAGE + 1, end + PAGE, page(1), MAP_RW), VS_RANGE);
    assert_status(vt_map(vt, 1, BIT64(45), BIT64(45) + PAGE - 1, page(1), MAP_RW), VS_RANGE);
    assert_status(vt_map(vt, 1, 0xfffffffffffff000ull, UINT64_MAX, page(1), MAP_RW), VS_RANGE);
    assert_status(vt_map(vt, 1, IOVA, UINT64_MAX, page(1), MAP_RW), VS_RANGE);
    assert_blocked(edu, BIT64(45), page(1));
    /* The last page inside is fine. */
    map_page(vt, 1, end - PAGE + 1, page(2));
    assert_reaches(edu, end - PAGE + 1, page(2));
    vt_free(vt);
}

static void aw_bits_sets_the_input_range(void)
{
    Vt *vt = vt_new_with("aw-bits=48", "");

    g_assert_cmphex(vt_config64(vt, CONFIG_INPUT_START), ==, 0);
    g_assert_cmphex(vt_config64(vt, CONFIG_INPUT_END), ==, BIT64(48) - 1);
    vt_attach_with_mailbox(vt, 1, EDU0);
    map_page(vt, 1, BIT64(45), page(1));
    assert_reaches(&vt->edu[0], BIT64(45), page(1));
    assert_status(vt_map(vt, 1, BIT64(48), BIT64(48) + PAGE - 1, page(1), MAP_RW), VS_RANGE);
    vt_free(vt);
}

/* With INPUT_RANGE left out by the driver the device still has its limits. */
static void domain_range_is_kept(void)
{
    Vt *vt = vt_new();
    uint32_t first = vt_config32(vt, CONFIG_DOMAIN_START);
    uint32_t last = vt_config32(vt, CONFIG_DOMAIN_END);

    g_assert_cmphex(first, <=, last);
    assert_status(vt_attach(vt, first, EDU0, 0), VS_OK);
    assert_status(vt_detach(vt, first, EDU0), VS_OK);
    assert_status(vt_attach(vt, last, EDU0, 0), VS_OK);
    assert_status(vt_detach(vt, last, EDU0), VS_OK);
    if (first > 0) {
        assert_status(vt_attach(vt, first - 1, EDU0, 0), VS_RANGE);
    }
    if (last < UINT32_MAX) {
        assert_status(vt_attach(vt, last + 1, EDU0, 0), VS_RANGE);
    }
    vt_free(vt);
}

/* ---- bypass ---- */

static void unattached_with_bypass_is_identity(void)
{
    Vt *vt = vt_boot("", "");

    /* Before any driver, with a driver that does not know the field, and with
     * one that does. */
    assert_reaches(&vt->edu[0], page(1), page(1));
    vt_bring_up(vt, F_USUAL & ~F_BYPASS_CONFIG, true);
    assert_reaches(&vt->edu[0], page(1), page(1));
    g_assert_true(edu_read_sees(&vt->edu[0], page(2), page(2), 64));
    vt_bring_up(vt, F_USUAL, true);
    assert_reaches(&vt->edu[0], page(1), page(1));
    vt_free(vt);
}

static void unattached_without_bypass_reaches_nothing(void)
{
    Vt *vt = vt_new();

    vt_set_bypass(vt, 0);
    assert_blocked(&vt->edu[0], page(1), page(1));
    /* And cannot read: what it writes out later is not what was there. */
    qtest_memset(vt->qts, page(2), 0x5b, 64);
    edu_from_ram(&vt->edu[0], page(2), 2048, 64);
    vt_set_bypass(vt, 1);
    edu_to_ram(&vt->edu[0], MAILBOX, 2048, 64);
    for (unsigned i = 0; i < 64; i++) {
        g_assert_cmphex(qtest_readb(vt->qts, MAILBOX + i), !=, 0x5b);
    }
    assert_reaches(&vt->edu[0], page(1), page(1));
    vt_free(vt);
}

/* A refused ATTACH must not make the interrupt window reachable. */
static void refused_attach_opens_no_msi_window(void)
{
    Vt *vt = vt_new_with("boot-bypass=off", "");
    Fault fault;

    vt_post_events(vt, 8, FAULT_RECORD_SIZE);
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    assert_status(vt_attach(vt, 1, EDU0, ATTACH_BYPASS), VS_INVAL);
    edu_to_ram(&vt->edu[0], MSI_START, 0, 4);
    fault = vt_wait_fault(vt);
    g_assert_cmphex(fault.endpoint, ==, EDU0);
    g_assert_cmphex(fault.address & ~(PAGE - 1), ==, MSI_START);
    vt_free(vt);
}

static void bypass_domain_is_identity(void)
{
    Vt *vt = vt_new_with("boot-bypass=off", "");
    Edu *edu = &vt->edu[0];

    assert_status(vt_attach(vt, 1, EDU0, ATTACH_BYPASS), VS_OK);
    edu_prime(edu);
    assert_reaches(edu, page(1), page(1));
    g_assert_true(edu_read_sees(edu, page(2), page(2), 64));
    assert_status(vt_detach(vt, 1, EDU0), VS_OK);
    assert_blocked(edu, page(1), page(1));
    vt_free(vt);
}

static void bypass_flag_needs_its_feature(void)
{
    Vt *vt = vt_boot("", "");

    vt_bring_up(vt, F_USUAL & ~F_BYPASS_CONFIG, true);
    assert_status(vt_attach(vt, 1, EDU0, ATTACH_BYPASS), VS_INVAL);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    vt_free(vt);
}

static void bypass_write_needs_its_feature(void)
{
    Vt *vt = vt_boot("", "");

    vt_bring_up(vt, F_USUAL & ~F_BYPASS_CONFIG, true);
    qtest_writeb(vt->qts, vt->iommu.device + CONFIG_BYPASS, 0);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 1);
    assert_reaches(&vt->edu[0], page(1), page(1));
    vt_assert_alive(vt);
    vt_free(vt);
}

static void bypass_write_takes_effect_at_once(void)
{
    Vt *vt = vt_new();

    for (unsigned i = 0; i < 3; i++) {
        vt_set_bypass(vt, 0);
        assert_blocked(&vt->edu[0], page(1), page(1));
        assert_blocked(&vt->edu[1], page(1), page(1));
        vt_set_bypass(vt, 1);
        assert_reaches(&vt->edu[0], page(1), page(1));
        assert_reaches(&vt->edu[1], page(1), page(1));
    }
    vt_free(vt);
}

/* ---- ATTACH ---- */

static void attach_reserved_must_be_zero(void)
{
    Vt *vt = vt_new();

    for (unsigned i = 16; i < 20; i++) {
        Request req = req_attach(1, EDU0, 0);

        req.bytes[i] = i == 16 ? 1 : 0x80;
        assert_status(vt_status(vt, &req), VS_INVAL);
        assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    }
    assert_reaches(&vt->edu[0], page(1), page(1));
    vt_free(vt);
}

static void attach_unknown_flag_is_inval(void)
{
    Vt *vt = vt_new();

    for (unsigned bit = 1; bit < 32; bit++) {
        assert_status(vt_attach(vt, 1, EDU0, 1u << bit), VS_INVAL);
    }
    assert_status(vt_attach(vt, 1, EDU0, 2 | ATTACH_BYPASS), VS_INVAL);
    assert_reaches(&vt->edu[0], page(1), page(1));
    vt_free(vt);
}

static void attach_nobody_is_noent(void)
{
    Vt *vt = vt_new();
    const uint32_t nobody[] = {NOBODY, rid(0, 3, 1), rid(1, 0, 0), rid(0xff, 0x1f, 7)};

    for (unsigned i = 0; i < G_N_ELEMENTS(nobody); i++) {
        assert_status(vt_attach(vt, 1, nobody[i], 0), VS_NOENT);
    }
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    vt_free(vt);
}

static void attach_the_iommu_itself_is_noent(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, IOMMU_BDF, 0), VS_NOENT);
    assert_status(vt_probe(vt, IOMMU_BDF), VS_NOENT);
    vt_free(vt);
}

static void attach_the_host_bridge(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, 0, 0), VS_OK);
    assert_status(vt_detach(vt, 1, 0), VS_OK);
    vt_free(vt);
}

/* Only one function has a given 32-bit ID: no bit of it may be dropped. */
static void wide_ids_are_nobody(void)
{
    Vt *vt = vt_new();
    const uint32_t wide[] = {0x10000 | EDU0, 0xabcd0000 | EDU0, 0x80000000 | EDU0,
                             0xffff0000 | EDU0, UINT32_MAX};

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    for (unsigned i = 0; i < G_N_ELEMENTS(wide); i++) {
        assert_status(vt_attach(vt, 2, wide[i], 0), VS_NOENT);
        assert_status(vt_probe(vt, wide[i]), VS_NOENT);
        assert_status(vt_detach(vt, 1, wide[i]), VS_NOENT);
    }
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&vt->edu[0], IOVA, page(1));
    vt_free(vt);
}

static void two_endpoints_share_a_domain(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    map_page(vt, 1, IOVA2, page(2));
    for (unsigned i = 0; i < 2; i++) {
        assert_reaches(&vt->edu[i], IOVA, page(1));
        assert_reaches(&vt->edu[i], IOVA2, page(2));
    }
    assert_status(vt_detach(vt, 1, EDU0), VS_OK);
    assert_reaches(&vt->edu[1], IOVA, page(1));
    assert_blocked(&vt->edu[0], IOVA, page(1));
    vt_free(vt);
}

static void flag_mismatch_is_inval(void)
{
    Vt *vt = vt_new();

    /* Another endpoint's domain. */
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(vt, 1, EDU1, ATTACH_BYPASS), VS_INVAL);
    assert_status(vt_attach(vt, 2, EDU1, ATTACH_BYPASS), VS_OK);
    assert_status(vt_attach(vt, 2, EDU0, 0), VS_INVAL);
    /* The endpoint's own. */
    assert_status(vt_attach(vt, 1, EDU0, ATTACH_BYPASS), VS_INVAL);
    assert_status(vt_attach(vt, 2, EDU1, 0), VS_INVAL);
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&vt->edu[0], IOVA, page(1));
    assert_status(vt_map(vt, 2, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_INVAL);
    vt_free(vt);
}

static void sole_member_flag_mismatch_keeps_the_mappings(void)
{
    Vt *vt = vt_new();

    vt_attach_with_mailbox(vt, 1, EDU0);
    map_page(vt, 1, IOVA, page(1));
    assert_status(vt_attach(vt, 1, EDU0, ATTACH_BYPASS), VS_INVAL);
    assert_reaches(&vt->edu[0], IOVA, page(1));
    assert_blocked(&vt->edu[0], page(2), page(2));
    vt_free(vt);
}

static void attach_moves_the_endpoint(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_status(vt_attach(vt, 2, EDU0, 0), VS_OK);
    map_page(vt, 2, IOVA2, page(2));
    assert_reaches(&vt->edu[0], IOVA2, page(2));
    assert_blocked(&vt->edu[0], IOVA, page(1));
    assert_reaches(&vt->edu[1], IOVA, page(1));
    assert_status(vt_detach(vt, 1, EDU0), VS_INVAL);
    assert_status(vt_detach(vt, 2, EDU0), VS_OK);
    vt_free(vt);
}

/* Whatever an endpoint and its domains hold, it can be moved. */
static void every_move_succeeds(void)
{
    static const uint32_t domains[] = {1, 2, 3, 1, 3, 2, 1};
    Vt *vt = vt_new();

    /* Domain 1 has mappings, 2 has others, 3 is a bypass domain. */
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_status(vt_attach(vt, 2, 0, 0), VS_OK); /* the host bridge keeps it alive */
    map_page(vt, 2, IOVA, page(2));
    for (unsigned i = 0; i < G_N_ELEMENTS(domains); i++) {
        bool bypass = domains[i] == 3;

        assert_status(vt_attach(vt, domains[i], EDU0, bypass ? ATTACH_BYPASS : 0), VS_OK);
        if (bypass) {
            assert_reaches(&vt->edu[0], page(3), page(3));
        } else {
            assert_reaches(&vt->edu[0], IOVA, page(domains[i]));
            assert_blocked(&vt->edu[0], page(3), page(3));
        }
    }
    vt_free(vt);
}

static void moving_the_last_member_ends_the_domain(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_status(vt_attach(vt, 2, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA2, IOVA2 + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    assert_blocked(&vt->edu[0], IOVA, page(1));
    vt_free(vt);
}

/* With bypass=1 an endpoint that a refused ATTACH left unattached would reach
 * all of memory. */
static void refused_attach_leaves_the_old_attachment(void)
{
    Vt *vt = vt_new();
    Edu *edu = &vt->edu[0];
    Request bad = req_attach(3, EDU0, 0);

    vt_attach_with_mailbox(vt, 1, EDU0);
    map_page(vt, 1, IOVA, page(1));
    assert_status(vt_attach(vt, 2, EDU1, ATTACH_BYPASS), VS_OK);

    assert_status(vt_attach(vt, 2, EDU0, 0), VS_INVAL);
    assert_blocked(edu, page(2), page(2));
    assert_reaches(edu, IOVA, page(1));

    assert_status(vt_attach(vt, 1, EDU0, ATTACH_BYPASS), VS_INVAL);
    assert_blocked(edu, page(2), page(2));
    assert_reaches(edu, IOVA, page(1));

    assert_status(vt_attach(vt, 3, EDU0, 0x10), VS_INVAL);
    bad.bytes[19] = 1;
    assert_status(vt_status(vt, &bad), VS_INVAL);
    assert_blocked(edu, page(2), page(2));
    assert_reaches(edu, IOVA, page(1));
    vt_free(vt);
}

static void attach_attaches(void)
{
    Vt *vt = vt_new();

    assert_reaches(&vt->edu[0], page(1), page(1));
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_blocked(&vt->edu[0], page(1), page(1));
    assert_reaches(&vt->edu[1], page(1), page(1));
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&vt->edu[0], IOVA, page(1));
    vt_free(vt);
}

static void attach_again_is_no_change(void)
{
    Vt *vt = vt_new();

    vt_attach_with_mailbox(vt, 1, EDU0);
    map_page(vt, 1, IOVA, page(1));
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_reaches(&vt->edu[0], IOVA, page(1));
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_detach(vt, 1, EDU0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    vt_free(vt);
}

/* ---- DETACH ---- */

static void detach_reserved_is_ignored(void)
{
    Vt *vt = vt_new();
    Request req = req_detach(1, EDU0);

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    memset(req.bytes + 12, 0xff, 8);
    assert_status(vt_status(vt, &req), VS_OK);
    assert_reaches(&vt->edu[0], page(1), page(1));
    vt_free(vt);
}

static void detach_nobody_is_noent(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_detach(vt, 1, NOBODY), VS_NOENT);
    assert_status(vt_detach(vt, 1, rid(1, 0, 0)), VS_NOENT);
    assert_status(vt_detach(vt, 1, IOMMU_BDF), VS_NOENT);
    vt_free(vt);
}

static void detach_from_elsewhere_is_inval(void)
{
    Vt *vt = vt_new();

    assert_status(vt_detach(vt, 1, EDU0), VS_INVAL);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_detach(vt, 1, EDU1), VS_INVAL);
    assert_status(vt_detach(vt, 2, EDU0), VS_INVAL);
    assert_status(vt_attach(vt, 2, EDU1, 0), VS_OK);
    assert_status(vt_detach(vt, 2, EDU0), VS_INVAL);
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&vt->edu[0], IOVA, page(1));
    vt_free(vt);
}

static void detached_endpoint_loses_the_mappings(void)
{
    Vt *vt = vt_new();
    Edu *edu = &vt->edu[0];

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(edu, IOVA, page(1));
    assert_status(vt_detach(vt, 1, EDU0), VS_OK);
    assert_blocked(edu, IOVA, page(1));
    assert_reaches(edu, page(1), page(1));

    vt_set_bypass(vt, 0);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(edu, IOVA, page(1));
    assert_status(vt_detach(vt, 1, EDU0), VS_OK);
    assert_blocked(edu, IOVA, page(1));
    assert_blocked(edu, page(1), page(1));
    vt_free(vt);
}

static void empty_domain_disappears(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_status(vt_detach(vt, 1, EDU0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA2, IOVA2 + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_NOENT);
    /* The ID is free for a domain of the other kind, and back. */
    assert_status(vt_attach(vt, 1, EDU0, ATTACH_BYPASS), VS_OK);
    assert_reaches(&vt->edu[0], page(2), page(2));
    assert_status(vt_detach(vt, 1, EDU0), VS_OK);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_blocked(&vt->edu[0], IOVA, page(1));
    vt_free(vt);
}

/* ---- MAP ---- */

static void misaligned_map_is_range(void)
{
    static const char *const props[] = {"granule=4k", "granule=64k"};

    for (unsigned i = 0; i < G_N_ELEMENTS(props); i++) {
        Vt *vt = vt_new_with(props[i], "");
        uint64_t g = vt_granule(vt);

        assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
        assert_status(vt_map(vt, 1, IOVA + g / 2, IOVA + 2 * g - 1, page(0), MAP_RW), VS_RANGE);
        assert_status(vt_map(vt, 1, IOVA, IOVA + g, page(0), MAP_RW), VS_RANGE);
        assert_status(vt_map(vt, 1, IOVA, IOVA + g - 2, page(0), MAP_RW), VS_RANGE);
        assert_status(vt_map(vt, 1, IOVA, IOVA + g - 1, page(0) + g / 2, MAP_RW), VS_RANGE);
        assert_status(vt_map(vt, 1, IOVA, IOVA + g / 2 - 1, page(0), MAP_RW), VS_RANGE);
        assert_status(vt_map(vt, 1, IOVA + 5, IOVA + 9, 0x1234, MAP_RW), VS_RANGE);
        assert_status(vt_map(vt, 1, IOVA, IOVA, page(0), MAP_RW), VS_RANGE);
        /* None of these left anything behind. */
        assert_blocked(&vt->edu[0], IOVA, page(0));
        assert_status(vt_map(vt, 1, IOVA, IOVA + 2 * g - 1, page(0), MAP_RW), VS_OK);
        assert_reaches(&vt->edu[0], IOVA, page(0));
        vt_free(vt);
    }
}

static void overlapping_map_is_inval(void)
{
    Vt *vt = vt_new();
    uint64_t a = IOVA + 4 * PAGE;

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, a, a + 4 * PAGE - 1, page(8), MAP_RW), VS_OK);
    for (unsigned first = 0; first < 12; first++) {
        for (unsigned last = first; last < 12; last++) {
            bool overlaps = first < 8 && last >= 4;
            uint64_t start = IOVA + first * PAGE, end = IOVA + (last + 1) * PAGE - 1;

            if (overlaps) {
                assert_status(vt_map(vt, 1, start, end, page(64), MAP_RW), VS_INVAL);
            }
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_reaches(&vt->edu[0], a + i * PAGE, page(8 + i));
    }
    /* Neighbours on both sides are no overlap; nor is another domain. */
    map_page(vt, 1, a - PAGE, page(1));
    map_page(vt, 1, a + 4 * PAGE, page(2));
    assert_status(vt_attach(vt, 2, EDU1, 0), VS_OK);
    map_page(vt, 2, a, page(3));
    assert_reaches(&vt->edu[0], a, page(8));
    assert_reaches(&vt->edu[1], a, page(3));
    vt_free(vt);
}

static void map_unknown_flag_is_inval(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    for (unsigned bit = 3; bit < 32; bit++) {
        assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW | 1u << bit), VS_INVAL);
    }
    map_page(vt, 1, IOVA, page(1));
    vt_free(vt);
}

static void map_without_domain_is_noent(void)
{
    Vt *vt = vt_new();

    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 2, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    assert_status(vt_map(vt, 0x10001, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    vt_free(vt);
}

static void map_in_bypass_domain_is_inval(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, ATTACH_BYPASS), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_INVAL);
    assert_blocked(&vt->edu[0], IOVA, page(1));
    vt_free(vt);
}

static void read_only_map_refuses_writes(void)
{
    Vt *vt = vt_new();
    Edu *edu = &vt->edu[0];

    vt_attach_with_mailbox(vt, 1, EDU0);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_READ), VS_OK);
    assert_blocked(edu, IOVA, page(1));
    g_assert_true(edu_read_sees(edu, IOVA, page(1), 64));
    vt_free(vt);
}

/* The byte lies between a mapping that forbids the write and one that does not;
 * neither order of making them may let the neighbour answer. */
static void write_at_the_last_read_only_byte(void)
{
    for (unsigned order = 0; order < 2; order++) {
        Vt *vt = vt_new();
        Edu *edu = &vt->edu[0];

        assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
        if (order) {
            map_page(vt, 1, IOVA + PAGE, page(8));
        }
        assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_READ), VS_OK);
        if (!order) {
            map_page(vt, 1, IOVA + PAGE, page(8));
        }
        qtest_memset(vt->qts, page(7), 0x6d, 2 * PAGE);
        g_assert_false(edu_write_lands(edu, IOVA + PAGE - 1, page(1) + PAGE - 1, 1));
        g_assert_cmphex(qtest_readb(vt->qts, page(8) - 1), ==, 0x6d);
        g_assert_cmphex(qtest_readb(vt->qts, page(8)), ==, 0x6d);
        g_assert_true(edu_write_lands(edu, IOVA + PAGE, page(8), 1));
        vt_free(vt);
    }
}

static void write_only_map_takes_writes(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_WRITE), VS_OK);
    assert_reaches(&vt->edu[0], IOVA, page(1));
    vt_free(vt);
}

static void inverted_map_is_inval(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, 0x2000, 0x1000, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_map(vt, 1, 0x2000, 0x1fff, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_map(vt, 1, 0x2000, 0xfff, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_map(vt, 1, 0x2000, 0, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_map(vt, 1, 0, 0x3fff, page(1), MAP_RW), VS_OK);
    vt_free(vt);
}

static void inverted_map_then_unmap_ends(void)
{
    Vt *vt = vt_new();

    vt_attach_with_mailbox(vt, 1, EDU0);
    /* What matters here is not the answer (MAP-D1) but that there is one. */
    vt_map(vt, 1, 0x2000, 0x1000, page(1), MAP_RW);
    assert_status(vt_unmap(vt, 1, 0, 0xffff), VS_OK);
    vt_assert_alive(vt);
    vt_free(vt);
}

static void map_needs_its_features(void)
{
    Vt *vt = vt_boot("", "");

    vt_bring_up(vt, F_USUAL & ~F_MAP_UNMAP, true);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_UNSUPP);
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_UNSUPP);
    assert_blocked(&vt->edu[0], IOVA, page(1));
    vt_assert_alive(vt);
    vt_free(vt);
}

static void mmio_flag_needs_its_feature(void)
{
    Vt *vt = vt_boot("", "");

    vt_bring_up(vt, F_USUAL & ~F_MMIO, true);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW | MAP_MMIO), VS_INVAL);
    vt_bring_up(vt, F_USUAL, true);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW | MAP_MMIO), VS_OK);
    assert_reaches(&vt->edu[0], IOVA, page(1));
    vt_free(vt);
}

/* MMIO is a memory type, not a right. */
static void mmio_flag_gives_no_right(void)
{
    Vt *vt = vt_new();

    vt_attach_with_mailbox(vt, 1, EDU0);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_READ | MAP_MMIO), VS_OK);
    assert_blocked(&vt->edu[0], IOVA, page(1));
    g_assert_true(edu_read_sees(&vt->edu[0], IOVA, page(1), 64));
    vt_free(vt);
}

/* One function's DMA into another's registers: edu keeps the inverse of what is
 * written at offset 4. */
static void mapping_can_lead_to_a_device(void)
{
    Vt *vt = vt_new();
    uint64_t regs = vt->edu[1].regs;
    uint32_t value = 0;

    for (unsigned i = 0; i < 4; i++) {
        value |= (uint32_t)edu_pattern(i) << 8 * i;
    }
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, regs, MAP_RW | MAP_MMIO), VS_OK);
    edu_to_ram(&vt->edu[0], IOVA + 4, 0, 4);
    g_assert_cmphex(qtest_readl(vt->qts, regs + 4), ==, ~value);
    vt_free(vt);
}

static void physical_wrap_is_range(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + 2 * PAGE - 1, 0xfffffffffffff000ull, MAP_RW),
                  VS_RANGE);
    assert_status(vt_map(vt, 1, IOVA, IOVA + 2 * PAGE - 1, page(1), MAP_RW), VS_OK);
    vt_free(vt);
}

/* ---- UNMAP ---- */

static void unmap_reserved_may_be_refused(void)
{
    Vt *vt = vt_new();
    Request req = req_unmap(1, IOVA, IOVA + PAGE - 1);
    int status;

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    req.bytes[27] = 1;
    status = vt_status(vt, &req);
    g_assert_true(status == VS_OK || status == VS_INVAL);
    if (status == VS_OK) {
        assert_blocked(&vt->edu[0], IOVA, page(1));
    }
    vt_free(vt);
}

static void unmap_without_domain_is_noent(void)
{
    Vt *vt = vt_new();

    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_NOENT);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_unmap(vt, 2, IOVA, IOVA + PAGE - 1), VS_NOENT);
    vt_free(vt);
}

static void unmap_in_bypass_domain_is_inval(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, ATTACH_BYPASS), VS_OK);
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_INVAL);
    assert_reaches(&vt->edu[0], page(1), page(1));
    vt_free(vt);
}

static void unmap_that_would_split_removes_nothing(void)
{
    Vt *vt = vt_new();
    Edu *edu = &vt->edu[0];
    /* One-page mappings at 0 and 1, a two-page one at 2, then one more. */
    static const struct {
        unsigned first, last;
    } splits[] = {{0, 2}, {1, 2}, {2, 2}, {3, 3}, {3, 4}, {3, 9}, {2, 2}};

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_page(vt, 1, IOVA, page(0));
    map_page(vt, 1, IOVA + PAGE, page(1));
    assert_status(vt_map(vt, 1, IOVA + 2 * PAGE, IOVA + 4 * PAGE - 1, page(2), MAP_RW), VS_OK);
    map_page(vt, 1, IOVA + 4 * PAGE, page(4));
    for (unsigned i = 0; i < G_N_ELEMENTS(splits); i++) {
        assert_status(
            vt_unmap(vt, 1, IOVA + splits[i].first * PAGE, IOVA + (splits[i].last + 1) * PAGE - 1),
            VS_RANGE);
        for (unsigned n = 0; n < 5; n++) {
            assert_reaches(edu, IOVA + n * PAGE, page(n));
        }
    }
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + 4 * PAGE - 1), VS_OK);
    for (unsigned n = 0; n < 4; n++) {
        assert_blocked(edu, IOVA + n * PAGE, page(n));
    }
    assert_reaches(edu, IOVA + 4 * PAGE, page(4));
    vt_free(vt);
}

static void unmap_over_holes_removes_what_is_there(void)
{
    Vt *vt = vt_new();
    Edu *edu = &vt->edu[0];

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + 16 * PAGE - 1), VS_OK);
    map_page(vt, 1, IOVA + PAGE, page(1));
    map_page(vt, 1, IOVA + 5 * PAGE, page(5));
    map_page(vt, 1, IOVA + 20 * PAGE, page(20));
    assert_reaches(edu, IOVA + PAGE, page(1));
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + 16 * PAGE - 1), VS_OK);
    assert_blocked(edu, IOVA + PAGE, page(1));
    assert_blocked(edu, IOVA + 5 * PAGE, page(5));
    assert_reaches(edu, IOVA + 20 * PAGE, page(20));
    /* Gone for good: the addresses are free again. */
    assert_status(vt_map(vt, 1, IOVA, IOVA + 16 * PAGE - 1, page(40), MAP_RW), VS_OK);
    assert_reaches(edu, IOVA + 5 * PAGE, page(45));
    vt_free(vt);
}

static void unmap_whole_range(void)
{
    Vt *vt = vt_new();
    uint64_t end = vt_config64(vt, CONFIG_INPUT_END);

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_page(vt, 1, 0, page(1));
    map_page(vt, 1, end - PAGE + 1, page(2));
    assert_reaches(&vt->edu[0], 0, page(1));
    assert_reaches(&vt->edu[0], end - PAGE + 1, page(2));
    assert_status(vt_unmap(vt, 1, 0, end), VS_OK);
    assert_blocked(&vt->edu[0], 0, page(1));
    assert_blocked(&vt->edu[0], end - PAGE + 1, page(2));
    vt_free(vt);
}

static void inverted_unmap_is_inval(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_status(vt_unmap(vt, 1, IOVA + PAGE, IOVA), VS_INVAL);
    assert_status(vt_unmap(vt, 1, UINT64_MAX, 0), VS_INVAL);
    assert_reaches(&vt->edu[0], IOVA, page(1));
    vt_free(vt);
}

/* ---- what DMA sees ---- */

static void byte_before_a_mapping_is_not_mapped(void)
{
    Vt *vt = vt_new();
    Edu *edu = &vt->edu[0];

    vt_attach_with_mailbox(vt, 1, EDU0);
    map_page(vt, 1, IOVA + PAGE, page(8));
    g_assert_false(edu_read_sees(edu, IOVA + PAGE - 1, page(8) - 1, 1));
    g_assert_false(edu_write_lands(edu, IOVA + PAGE - 1, page(8) - 1, 1));
    g_assert_false(edu_write_lands(edu, IOVA + 2 * PAGE, page(9), 1));
    g_assert_true(edu_write_lands(edu, IOVA + PAGE, page(8), 1));
    g_assert_true(edu_write_lands(edu, IOVA + 2 * PAGE - 1, page(9) - 1, 1));
    vt_free(vt);
}

/* A mapping whose I/O and physical addresses do not share their low bits: each
 * page must be found where the arithmetic says, not at the next big boundary. */
static void incongruent_mapping_hits_the_right_pages(void)
{
    static const struct {
        uint64_t iova, size, phys;
    } rows[] = {
        {0x200000, 2 * MIB, 0x3001000},  {0x600000, 4 * MIB, 0x2fff000},
        {0x1001000, 2 * MIB, 0x4000000}, {0x4000f000, 64 * KIB, 0x2004000},
        {BIT64(32), 8 * MIB, 0x3010000},
    };
    Vt *vt = vt_new();
    Edu *edu = &vt->edu[0];

    vt_attach_with_mailbox(vt, 1, EDU0);
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        const uint64_t offsets[] = {0,
                                    0x800,
                                    PAGE,
                                    0x3004,
                                    rows[i].size / 2 - 8,
                                    rows[i].size / 2,
                                    rows[i].size - PAGE,
                                    rows[i].size - 64};

        assert_status(
            vt_map(vt, 1, rows[i].iova, rows[i].iova + rows[i].size - 1, rows[i].phys, MAP_RW),
            VS_OK);
        for (unsigned n = 0; n < G_N_ELEMENTS(offsets); n++) {
            g_assert_true(
                edu_write_lands(edu, rows[i].iova + offsets[n], rows[i].phys + offsets[n], 64));
            g_assert_true(
                edu_read_sees(edu, rows[i].iova + offsets[n], rows[i].phys + offsets[n], 64));
        }
        /* Nothing beyond either end. */
        assert_blocked(edu, rows[i].iova + rows[i].size, rows[i].phys + rows[i].size);
        assert_blocked(edu, rows[i].iova - 64, rows[i].phys - 64);
    }
    vt_free(vt);
}

/* One transfer over several mappings, in no order, with a hole at the end. */
static void transfer_crosses_mappings(void)
{
    Vt *vt = vt_new();
    Edu *edu = &vt->edu[0];
    uint8_t got[1024];

    vt_attach_with_mailbox(vt, 1, EDU0);
    map_page(vt, 1, IOVA, page(7));
    map_page(vt, 1, IOVA + PAGE, page(3));
    edu_to_ram(edu, IOVA + PAGE - 512, 0, 1024);
    qtest_memread(vt->qts, page(7) + PAGE - 512, got, 512);
    qtest_memread(vt->qts, page(3), got + 512, 512);
    for (unsigned i = 0; i < 1024; i++) {
        g_assert_cmphex(got[i], ==, edu_pattern(i));
    }
    vt_free(vt);
}

static const Case cases[] = {
    {"OPS-1/success-is-status-ok", success_is_status_ok},
    {"OPS-2/unknown-type-comes-back-unwritten", unknown_type_comes_back_unwritten},
    {"OPS-3/head-reserved-is-ignored", head_reserved_is_ignored},
    {"OPS-4/tail-reserved-is-zero", tail_reserved_is_zero},
    {"OPS-5/unattached-without-bypass-reaches-nothing", unattached_without_bypass_reaches_nothing},
    {"OPS-5/refused-attach-opens-no-msi-window", refused_attach_opens_no_msi_window},
    {"OPS-D1/no-room-for-tail-comes-back-unwritten", no_room_for_tail_comes_back_unwritten},
    {"OPS-D1/no-room-for-head-comes-back-unwritten", no_room_for_head_comes_back_unwritten},
    {"OPS-D1/short-request-is-inval", short_request_is_inval},
    {"OPS-D1/longer-request-is-served", longer_request_is_served},
    {"OPS-D2/outside-input-range-is-range", outside_input_range_is_range},
    {"OPS-D2/aw-bits-sets-the-input-range", aw_bits_sets_the_input_range},
    {"OPS-D3/domain-range-is-kept", domain_range_is_kept},
    {"BYP-1/unattached-with-bypass-is-identity", unattached_with_bypass_is_identity},
    {"BYP-1/bypass-write-takes-effect-at-once", bypass_write_takes_effect_at_once},
    {"BYP-2/bypass-domain-is-identity", bypass_domain_is_identity},
    {"BYP-3/bypass-flag-needs-its-feature", bypass_flag_needs_its_feature},
    {"BYP-4/bypass-write-needs-its-feature", bypass_write_needs_its_feature},
    {"ATT-1/nonzero-reserved-is-inval", attach_reserved_must_be_zero},
    {"ATT-2/unknown-flag-is-inval", attach_unknown_flag_is_inval},
    {"ATT-3/nobody-is-noent", attach_nobody_is_noent},
    {"ATT-3/the-iommu-itself-is-noent", attach_the_iommu_itself_is_noent},
    {"ATT-3/the-host-bridge-is-an-endpoint", attach_the_host_bridge},
    {"ATT-3/wide-ids-are-nobody", wide_ids_are_nobody},
    {"ATT-4/two-endpoints-share-a-domain", two_endpoints_share_a_domain},
    {"ATT-5/flag-mismatch-is-inval", flag_mismatch_is_inval},
    {"ATT-5/sole-member-keeps-its-mappings", sole_member_flag_mismatch_keeps_the_mappings},
    {"ATT-6/attach-moves-the-endpoint", attach_moves_the_endpoint},
    {"ATT-7/moving-the-last-member-ends-the-domain", moving_the_last_member_ends_the_domain},
    {"ATT-7/refused-attach-leaves-the-old-attachment", refused_attach_leaves_the_old_attachment},
    {"ATT-8/every-move-succeeds", every_move_succeeds},
    {"ATT-10/attach-attaches", attach_attaches},
    {"ATT-D1/attach-again-is-no-change", attach_again_is_no_change},
    {"DET-1/reserved-is-ignored", detach_reserved_is_ignored},
    {"DET-2/nobody-is-noent", detach_nobody_is_noent},
    {"DET-3/from-elsewhere-is-inval", detach_from_elsewhere_is_inval},
    {"DET-4/detached-endpoint-loses-the-mappings", detached_endpoint_loses_the_mappings},
    {"DET-D1/empty-domain-disappears", empty_domain_disappears},
    {"MAP-1/misaligned-is-range", misaligned_map_is_range},
    {"MAP-2/overlap-is-inval", overlapping_map_is_inval},
    {"MAP-3/unknown-flag-is-inval", map_unknown_flag_is_inval},
    {"MAP-4/no-domain-is-noent", map_without_domain_is_noent},
    {"MAP-5/bypass-domain-is-inval", map_in_bypass_domain_is_inval},
    {"MAP-6/read-only-refuses-writes", read_only_map_refuses_writes},
    {"MAP-6/write-at-the-last-read-only-byte", write_at_the_last_read_only_byte},
    {"MAP-7/write-only-takes-writes", write_only_map_takes_writes},
    {"MAP-D1/inverted-is-inval", inverted_map_is_inval},
    {"MAP-D2/map-needs-its-feature", map_needs_its_features},
    {"MAP-D2/mmio-flag-needs-its-feature", mmio_flag_needs_its_feature},
    {"MAP-D2/mmio-flag-gives-no-right", mmio_flag_gives_no_right},
    {"MAP-D2/mapping-can-lead-to-a-device", mapping_can_lead_to_a_device},
    {"MAP-D3/physical-wrap-is-range", physical_wrap_is_range},
    {"UNM-1/reserved-may-be-refused", unmap_reserved_may_be_refused},
    {"UNM-2/no-domain-is-noent", unmap_without_domain_is_noent},
    {"UNM-3/bypass-domain-is-inval", unmap_in_bypass_domain_is_inval},
    {"UNM-4/split-removes-nothing", unmap_that_would_split_removes_nothing},
    {"UNM-5/holes-are-fine", unmap_over_holes_removes_what_is_there},
    {"UNM-5/whole-range", unmap_whole_range},
    {"UNM-D1/inverted-is-inval", inverted_unmap_is_inval},
    {"W1/inverted-map-then-unmap-ends", inverted_map_then_unmap_ends},
    {"W6/refused-attach-leaves-the-old-attachment", refused_attach_leaves_the_old_attachment},
    {"W7/byte-before-a-mapping-is-not-mapped", byte_before_a_mapping_is_not_mapped},
    {"W7/write-at-the-last-read-only-byte", write_at_the_last_read_only_byte},
    {"W8/incongruent-mapping-hits-the-right-pages", incongruent_mapping_hits_the_right_pages},
    {"W8/transfer-crosses-mappings", transfer_crosses_mappings},
    {"W10/wide-ids-are-nobody", wide_ids_are_nobody},
};

VT_MAIN(cases)
