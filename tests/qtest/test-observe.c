/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What developers can see of the device: trace events, guest errors, names. */
#include "viommu_test.h"

#include "qobject/qdict.h"

#define IOVA 0x123456000ull

static Vt *start_traced(void)
{
    return vt_new_with("", "-trace viommu_*");
}

static Vt *start_with_guest_errors(void)
{
    return vt_new_with("", "-d guest_errors");
}

static unsigned count(const char *printed, const char *text)
{
    unsigned n = 0;

    for (const char *at = printed; (at = strstr(at, text)); at += strlen(text)) {
        n++;
    }
    return n;
}

/* Each once; the text without what QEMU puts in front. */
static void assert_printed(Vt *vt, const char *const *lines, size_t n)
{
    g_autofree char *printed = vt_printed(vt);

    for (size_t i = 0; i < n; i++) {
        if (count(printed, lines[i]) != 1) {
            g_error("not printed once: '%s' in\n%s", lines[i], printed);
        }
    }
}

static void requests_are_traced(void)
{
    static const char *const lines[] = {
        "viommu_attach domain=1 endpoint=0x18 flags=0x0: OK\n",
        "viommu_attach domain=1 endpoint=0x18 flags=0x80: INVAL\n",
        "viommu_map domain=1 iova=0x123456000-0x123456fff phys=0x1000 flags=0x3: OK\n",
        "viommu_map domain=1 iova=0x123456000-0x123456fff phys=0x1000 flags=0x3: INVAL\n",
        "viommu_unmap domain=1 iova=0x0-0xffffffffffffffff: OK\n",
        "viommu_unmap domain=9 iova=0x0-0xfff: NOENT\n",
        "viommu_probe endpoint=0x18: OK\n",
        "viommu_detach domain=1 endpoint=0x18: OK\n",
        "viommu_unknown type=0, 8 bytes: unanswered\n",
    };
    Vt *vt = vt_logged(start_traced);
    Request unknown = {.bytes = {0}, .len = 8};
    Reply reply;

    g_free(vt_printed(vt));
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(vt, 1, EDU0, 0x80), VS_INVAL);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, 0x1000, MAP_RW), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, 0x1000, MAP_RW), VS_INVAL);
    assert_status(vt_unmap(vt, 1, 0, UINT64_MAX), VS_OK);
    assert_status(vt_unmap(vt, 9, 0, PAGE - 1), VS_NOENT);
    assert_status(vt_probe(vt, EDU0), VS_OK);
    assert_status(vt_detach(vt, 1, EDU0), VS_OK);
    reply = vt_send(vt, &unknown, 4);
    g_assert_true(reply_unwritten(&reply));
    reply_free(&reply);
    assert_printed(vt, lines, ARRAY_SIZE(lines));
    vt_free(vt);
}

static void accesses_are_traced(void)
{
    static const char *const lines[] = {
        "viommu_switch pcie.0:03.0 translating=1\n",
        "viommu_translate pcie.0:03.0 iova=0x123456000 mask=0xfff phys=0x5000 rights=3\n",
        "viommu_fault pcie.0:03.0 iova=0x123457000 access=2 queued=1\n",
        "viommu_fault_delivered endpoint=0x18 iova=0x123457000 reason=2 flags=0x102\n",
        "viommu_events delivered 1\n",
    };
    Vt *vt = vt_logged(start_traced);

    vt_post_events(vt, 4, FAULT_RECORD_SIZE);
    g_free(vt_printed(vt));
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, 0x5000, MAP_RW), VS_OK);
    edu_to_ram(&vt->edu[0], IOVA, 0, 8);
    edu_to_ram(&vt->edu[0], IOVA + PAGE, 0, 8);
    g_assert_cmphex(vt_wait_fault(vt).endpoint, ==, EDU0);
    assert_printed(vt, lines, ARRAY_SIZE(lines));
    vt_free(vt);
}

static void life_is_traced(void)
{
    static const char *const lines[] = {
        "viommu_bind pcie.0:03.0 behind /machine/peripheral/iommu0\n",
        "viommu_describe_viot ",
        "viommu_features 0x100000077\n",
        "viommu_status 0x0f\n",
        "viommu_reset system=1 lingers=0\n",
    };
    Vt *vt = vt_logged(start_traced);

    assert_printed(vt, lines, ARRAY_SIZE(lines));
    vt_free(vt);
}

static void drivers_faults_are_guest_errors(void)
{
    static const char *const lines[] = {
        "virtio-iommu: ATTACH of endpoint 0x18, domain 1, flags 0x80: INVAL\n",
        "virtio-iommu: DETACH of endpoint 0x18, domain 7, flags 0x0: INVAL\n",
        "virtio-iommu: MAP of 0x1-0x2 to 0x0, domain 1, flags 0x3: RANGE\n",
        "virtio-iommu: UNMAP of 0x0-0xfff, domain 9: NOENT\n",
        "virtio-iommu: PROBE of endpoint 0xffff: NOENT\n",
        "virtio-iommu: request of type 0 with 8 bytes: unanswered\n",
        "virtio-iommu: an event buffer of 16 bytes has no room for a fault record\n",
        "virtio-iommu: 7 written to 'bypass' has no effect\n",
    };
    Vt *vt = vt_logged(start_with_guest_errors);
    Request unknown = {.bytes = {0}, .len = 8};
    Reply reply;
    g_autofree char *rest = NULL;

    g_free(vt_printed(vt));
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, 0x1000, MAP_RW), VS_OK);
    assert_status(vt_probe(vt, EDU0), VS_OK);
    rest = vt_printed(vt);
    g_assert_cmpuint(count(rest, "virtio-iommu: "), ==, 0);

    assert_status(vt_attach(vt, 1, EDU0, 0x80), VS_INVAL);
    assert_status(vt_detach(vt, 7, EDU0), VS_INVAL);
    assert_status(vt_map(vt, 1, 1, 2, 0, MAP_RW), VS_RANGE);
    assert_status(vt_unmap(vt, 9, 0, PAGE - 1), VS_NOENT);
    assert_status(vt_probe(vt, 0xffff), VS_NOENT);
    reply = vt_send(vt, &unknown, 4);
    g_assert_true(reply_unwritten(&reply));
    reply_free(&reply);
    qtest_writeb(vt->qts, vt->iommu.device + CONFIG_BYPASS, 7);
    vt_post_events(vt, 1, 16);
    edu_to_ram(&vt->edu[0], IOVA + PAGE, 0, 8);
    vt_settle(vt);
    assert_printed(vt, lines, ARRAY_SIZE(lines));
    vt_free(vt);
}

/* "info mtree" tells them apart. */
static void address_spaces_have_their_functions_names(void)
{
    Vt *vt = vt_new();
    g_autofree char *tree = qtest_hmp(vt->qts, "info mtree");

    g_assert_cmpuint(count(tree, "virtio-iommu pcie.0:03.0\n") +
                         count(tree, "virtio-iommu pcie.0:03.0\r\n"), >, 0);
    g_assert_cmpuint(count(tree, "virtio-iommu pcie.0:04.0"), >, 0);
    vt_free(vt);
}

static const Case cases[] = {
    {"MOD-12/requests", requests_are_traced},
    {"MOD-12/accesses", accesses_are_traced},
    {"MOD-12/life", life_is_traced},
    {"MOD-13/what-the-driver-did-wrong", drivers_faults_are_guest_errors},
    {"MOD-14/names-of-address-spaces", address_spaces_have_their_functions_names},
};

VT_MAIN(cases)
