/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What differs on Arm's virt machine: the address width and the doorbell. */
#include "viommu_test.h"

#define IOVA 0x80000000ull
#define DEVICES                                                                                    \
    "-device virtio-iommu-pci,id=iommu0,addr=2.0 "                                                 \
    "-device " EDU_ARGS ",addr=3.0 -device " EDU_ARGS ",addr=4.0"

static Vt *arm_new(const char *machine)
{
    Vt *vt = vt_machine_virt("-machine %s " DEVICES, machine);

    vt_rediscover(vt);
    edu_prime(&vt->edu[0]);
    edu_prime(&vt->edu[1]);
    vt_bring_up(vt, F_USUAL, true);
    return vt;
}

static void attach_translates(void)
{
    Vt *vt = arm_new("gic-version=3");
    Edu *edu = &vt->edu[0];

    g_assert_true(edu_write_lands(edu, page(1), page(1), 64));
    vt_attach_with_mailbox(vt, 1, EDU0);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
    g_assert_true(edu_write_lands(edu, IOVA, page(1), 64));
    g_assert_true(edu_read_sees(edu, IOVA, page(1), 64));
    g_assert_false(edu_write_lands(edu, page(1), page(1), 64));
    g_assert_true(edu_write_lands(&vt->edu[1], page(1), page(1), 64));
    assert_status(vt_attach(vt, 2, IOMMU_BDF, 0), VS_NOENT);
    vt_free(vt);
}

static void input_range_is_48_bits(void)
{
    Vt *vt = arm_new("gic-version=3");
    uint64_t end = vt_config64(vt, CONFIG_INPUT_END);

    g_assert_cmphex(end, ==, BIT64(48) - 1);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, end - PAGE + 1, end, page(1), MAP_RW), VS_OK);
    g_assert_true(edu_write_lands(&vt->edu[0], end - PAGE + 1, page(1), 64));
    assert_status(vt_map(vt, 1, end + 1, end + PAGE, page(1), MAP_RW), VS_RANGE);
    vt_free(vt);
}

/* The page of the ITS that takes messages; the frame of a GICv2m. */
static void doorbell_of_the_interrupt_controller(void)
{
    static const struct {
        const char *machine;
        uint64_t start, end;
    } rows[] = {
        {"gic-version=3,its=on", 0x08090000, 0x0809ffff},
        {"gic-version=2", 0x08020000, 0x08020fff},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        Vt *vt = arm_new(rows[i].machine);
        ResvMem regions[4];

        g_assert_cmpuint(vt_probe_regions(vt, EDU0, regions, 4), ==, 1);
        g_assert_cmpuint(regions[0].subtype, ==, RESV_MSI);
        g_assert_cmphex(regions[0].start, ==, rows[i].start);
        g_assert_cmphex(regions[0].end, ==, rows[i].end);
        assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
        assert_status(vt_map(vt, 1, rows[i].start, rows[i].start + PAGE - 1, page(1), MAP_RW),
                      VS_INVAL);
        vt_free(vt);
    }
}

static void no_doorbell_no_region(void)
{
    /* edu insists on MSI; the host bridge is an endpoint too. */
    Vt *vt = vt_machine_virt("-machine gic-version=3,its=off "
                             "-device virtio-iommu-pci,addr=2.0");
    ResvMem regions[4];

    virtio_probe(vt, &vt->iommu, IOMMU_BDF);
    vt_bring_up(vt, F_USUAL, true);
    g_assert_cmpuint(vt_probe_regions(vt, 0, regions, 4), ==, 0);
    assert_status(vt_attach(vt, 1, 0, 0), VS_OK);
    assert_status(vt_map(vt, 1, 0x08090000, 0x08090fff, page(1), MAP_RW), VS_OK);
    vt_free(vt);
}

static const Case cases[] = {
    {"ATT-10/arm-attach-translates", attach_translates},
    {"OPS-D2/arm-input-range-is-48-bits", input_range_is_48_bits},
    {"RSV-5/arm-doorbell-of-the-interrupt-controller", doorbell_of_the_interrupt_controller},
    {"RSV-5/arm-no-doorbell-no-region", no_doorbell_no_region},
};

VT_MAIN_ARCH("aarch64", cases)
