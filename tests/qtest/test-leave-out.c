/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What `leave-out` names: it reaches memory as if there were no IOMMU, is nobody to
 * requests, and all else is as before. Command lines that it refuses are in
 * agreement/refusals.py. */
#include "viommu_test.h"

#include "qobject/qdict.h"
#include "qobject/qlist.h"

#define IOVA 0x40000000ull
#define ROOT_PORT "-device pcie-root-port,id=rp1,chassis=1,addr=5.0 "
#define RP1 0x0028u /* 00:05.0 */

static void assert_left_out(Vt *vt, Edu *edu)
{
    assert_status(vt_probe(vt, edu->bdf), VS_NOENT);
    assert_status(vt_attach(vt, 9, edu->bdf, 0), VS_NOENT);
    assert_status(vt_attach(vt, 9, edu->bdf, ATTACH_BYPASS), VS_NOENT);
    assert_status(vt_detach(vt, 9, edu->bdf), VS_NOENT);
    edu_prime(edu);
    g_assert_true(edu_write_lands(edu, page(9), page(9), 64));
    g_assert_true(edu_read_sees(edu, page(8), page(8), 64));
    /* Not the least of mappings. */
    g_assert_false(edu_write_lands(edu, IOVA, page(1), 64));
}

/* With boot-bypass=off, and in no domain before and afterwards. */
static void assert_managed(Vt *vt, Edu *edu)
{
    assert_status(vt_probe(vt, edu->bdf), VS_OK);
    vt_attach_with_mailbox(vt, 1, edu->bdf);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
    edu_prime(edu);
    g_assert_true(edu_write_lands(edu, IOVA, page(1), 64));
    g_assert_false(edu_write_lands(edu, page(2), page(2), 64));
    assert_status(vt_detach(vt, 1, edu->bdf), VS_OK);
    g_assert_false(edu_write_lands(edu, page(2), page(2), 64));
}

static void assert_lists(Vt *vt, uint32_t id, bool listed)
{
    QDict *reply = qtest_qmp(
        vt->qts, "{'execute': 'qom-get', 'arguments': {"
                 "'path': '/machine/peripheral/iommu0/virtio-backend', 'property': 'endpoints'}}");
    bool found = false;
    QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(reply, "return"), entry)
    {
        found |= qdict_get_int(qobject_to(QDict, qlist_entry_obj(entry)), "id") == id;
    }
    qobject_unref(reply);
    g_assert_cmpint(found, ==, listed);
}

static void by_id(void)
{
    Vt *vt = vt_new_with("boot-bypass=off,leave-out=edu0", "");

    assert_left_out(vt, &vt->edu[0]);
    assert_managed(vt, &vt->edu[1]);
    assert_lists(vt, EDU0, false);
    assert_lists(vt, EDU1, true);
    g_assert_cmpint(vt_counter(vt, "faults"), >, 0);
    vt_free(vt);
}

static void through_resets(void)
{
    Vt *vt = vt_new_with("boot-bypass=off,leave-out=edu0", "");

    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    virtio_reset(&vt->iommu);
    edu_prime(&vt->edu[0]);
    g_assert_true(edu_write_lands(&vt->edu[0], page(1), page(1), 64));
    vt_bring_up(vt, F_USUAL, true);
    assert_left_out(vt, &vt->edu[0]);
    assert_managed(vt, &vt->edu[1]);
    vt_set_bypass(vt, 1);
    vt_set_bypass(vt, 0);
    assert_left_out(vt, &vt->edu[0]);
    vt_system_reset(vt);
    edu_prime(&vt->edu[0]);
    g_assert_true(edu_write_lands(&vt->edu[0], page(1), page(1), 64));
    vt_bring_up(vt, F_USUAL, true);
    assert_left_out(vt, &vt->edu[0]);
    assert_managed(vt, &vt->edu[1]);
    vt_free(vt);
}

/* Named before it is there, and by devices that come before the IOMMU. */
static void in_any_order(void)
{
    Vt *vt = vt_machine("-device " EDU_ARGS ",id=edu0,addr=3.0 "
                        "-device virtio-iommu-pci,id=iommu0,addr=2.0,boot-bypass=off,"
                        "leave-out=edu1:pcie.0/3.0 -device " EDU_ARGS ",id=edu1,addr=4.0 "
                        "-device " EDU_ARGS ",addr=6.0");
    Edu edu2;

    vt_rediscover(vt);
    edu_init(vt, &edu2, rid(0, 6, 0), false);
    vt_bring_up(vt, F_USUAL, true);
    assert_left_out(vt, &vt->edu[0]);
    assert_left_out(vt, &vt->edu[1]);
    assert_managed(vt, &edu2);
    vt_free(vt);
}

#define SLOT_6                                                                                     \
    "-device " EDU_ARGS ",addr=6.0,multifunction=on -device " EDU_ARGS ",addr=6.5 "                \
    "-device " EDU_ARGS ",addr=7.0,multifunction=on -device " EDU_ARGS ",addr=7.7"

static void slots_and_functions_by_address(void)
{
    static const struct {
        const char *props;
        bool out[4];
    } machines[] = {
        {"boot-bypass=off,leave-out=pcie.0/6", {true, true, false, false}},
        {"boot-bypass=off,leave-out=pcie.0/6.5:pcie.0/0x7.0", {false, true, true, false}},
        {"boot-bypass=off,leave-out=pcie.0/7.7:pcie.0/5", {false, false, false, true}},
    };
    const uint16_t ids[] = {rid(0, 6, 0), rid(0, 6, 5), rid(0, 7, 0), rid(0, 7, 7)};

    for (unsigned i = 0; i < G_N_ELEMENTS(machines); i++) {
        Vt *vt = vt_new_with(machines[i].props, SLOT_6);

        for (unsigned n = 0; n < G_N_ELEMENTS(ids); n++) {
            Edu edu;

            edu_init(vt, &edu, ids[n], false);
            if (machines[i].out[n]) {
                assert_left_out(vt, &edu);
            } else {
                assert_managed(vt, &edu);
            }
        }
        assert_managed(vt, &vt->edu[0]);
        vt_free(vt);
    }
}

/* A bus without a number has IDs of bus 0; those that are left out there are not its own. */
static void behind_a_bridge_nothing_is(void)
{
    Vt *vt = vt_new_with("boot-bypass=off,leave-out=pcie.0/0.0:pcie.0/6",
                         ROOT_PORT "-device " EDU_ARGS ",id=a,bus=rp1,addr=0.0");
    Edu a;

    bridge_open(vt, RP1, 1, 1);
    edu_init(vt, &a, rid(1, 0, 0), false);
    assert_managed(vt, &a);
    edu_to_ram(&a, page(3), 0, 64);
    bridge_set_buses(vt, RP1, 0, 0, 0);
    assert_status(vt_attach(vt, 1, 0, 0), VS_NOENT);
    bridge_set_buses(vt, RP1, 0, 1, 1);
    assert_managed(vt, &a);
    bridge_set_buses(vt, RP1, 0, 6, 6);
    a.bdf = rid(6, 0, 0);
    assert_managed(vt, &a);
    vt_free(vt);
}

static void a_root_bus_with_its_bridges(void)
{
    Vt *vt = vt_new_with("boot-bypass=off,leave-out=pxb1",
                         "-device pxb-pcie,id=pxb1,bus_nr=0x20,addr=6.0 "
                         "-device pcie-root-port,id=rp1,bus=pxb1,chassis=1,addr=0.0 "
                         "-device pcie-pci-bridge,id=pci1,bus=rp1,addr=0.0 "
                         "-device " EDU_ARGS ",bus=pci1,addr=2.0");
    Edu a;

    bridge_open(vt, rid(0x20, 0, 0), 0x21, 0x22);
    bridge_open(vt, rid(0x21, 0, 0), 0x22, 0x22);
    edu_init(vt, &a, rid(0x22, 2, 0), false);
    assert_left_out(vt, &a);
    assert_status(vt_probe(vt, rid(0x20, 0, 0)), VS_NOENT);
    assert_status(vt_probe(vt, rid(0x22, 0, 0)), VS_NOENT);
    /* Also under a number of pcie.0's window, which is described. */
    bridge_set_buses(vt, rid(0x20, 0, 0), 0x20, 0x10, 0x11);
    bridge_set_buses(vt, rid(0x10, 0, 0), 0x10, 0x11, 0x11);
    assert_status(vt_attach(vt, 1, rid(0x11, 2, 0), 0), VS_NOENT);
    assert_managed(vt, &vt->edu[0]);
    vt_free(vt);
}

/* A conventional expander is two functions of one id: itself, and a bridge on its bus. */
static void a_conventional_expander_with_its_bridge(void)
{
    Vt *vt = g_new0(Vt, 1);
    Edu a;

    vt->qts = qtest_initf("-nodefaults -m 128 -machine pc "
                          "-device virtio-iommu-pci,id=iommu0,addr=2.0,boot-bypass=off,"
                          "leave-out=p "
                          "-device " EDU_ARGS ",id=edu0,addr=3.0 "
                          "-device " EDU_ARGS ",id=edu1,addr=4.0 "
                          "-device pxb,id=p,bus=pci.0,bus_nr=4,addr=6.0 "
                          "-device " EDU_ARGS ",id=a,bus=p,addr=1 ");
    vt->bus_memory = 0xc0000000u;
    vt->next_queue = QUEUE_BASE;
    vt->arena = ARENA_BASE;
    vt_rediscover(vt);
    vt_bring_up(vt, F_USUAL, true);
    bridge_open(vt, rid(4, 0, 0), 5, 5);
    edu_init(vt, &a, rid(5, 1, 0), false);
    assert_left_out(vt, &a);
    assert_status(vt_probe(vt, rid(4, 0, 0)), VS_NOENT);
    assert_managed(vt, &vt->edu[0]);
    vt_free(vt);
    assert_refused("IOMMU iommu0 leaves out a, which is behind a bridge, where the guest chooses "
                   "the bus number: put it on root bus pci.0 itself, or leave out p with all "
                   "behind it",
                   "-machine pc -device virtio-iommu-pci,id=iommu0,leave-out=a "
                   "-device pxb,id=p,bus=pci.0,bus_nr=4 -device edu,id=a,bus=p,addr=1");
}

static void of_several_iommus(void)
{
    Vt *vt = vt_machine("-device pxb-pcie,id=pxb1,bus_nr=0x20,addr=6.0 "
                        "-device pcie-root-port,id=rp1,bus=pxb1,chassis=1,addr=0.0 "
                        "-device " EDU_ARGS ",id=behind,bus=rp1,addr=0.0 "
                        "-device virtio-iommu-pci,id=iommu0,bus=pcie.0,addr=2.0,boot-bypass=off,"
                        "leave-out=edu0 "
                        "-device virtio-iommu-pci,id=iommu1,bus=pcie.0,addr=7.0,boot-bypass=off,"
                        "root-bus=pxb1 "
                        "-device " EDU_ARGS ",id=edu0,bus=pcie.0,addr=3.0 "
                        "-device " EDU_ARGS ",id=edu1,bus=pcie.0,addr=4.0 ");
    Edu behind;

    vt_rediscover(vt);
    bridge_open(vt, rid(0x20, 0, 0), 0x21, 0x21);
    edu_init(vt, &behind, rid(0x21, 0, 0), false);
    vt_bring_up(vt, F_USUAL, true);
    assert_left_out(vt, &vt->edu[0]);
    assert_managed(vt, &vt->edu[1]);
    g_assert_false(edu_write_lands(&behind, page(2), page(2), 64));
    virtio_probe(vt, &vt->iommu, rid(0, 7, 0));
    vt_bring_up(vt, F_USUAL, true);
    assert_managed(vt, &behind);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_NOENT);
    vt_free(vt);
}

/* ---- functions that come and go ---- */

#define ACPI_EJECT 0xae08u
#define ACPI_BUS 0xae10u

/* Only machine "pc" has a root bus that functions are plugged into. */
static Vt *pc(const char *leave_out)
{
    Vt *vt = g_new0(Vt, 1);

    vt->qts = qtest_initf("-nodefaults -m 128 -machine pc "
                          "-device virtio-iommu-pci,id=iommu0,addr=2.0,boot-bypass=off,"
                          "leave-out=%s "
                          "-device " EDU_ARGS ",id=edu0,addr=3.0 "
                          "-device " EDU_ARGS ",id=edu1,addr=4.0 ",
                          leave_out);
    vt->bus_memory = 0xc0000000u;
    vt->next_queue = QUEUE_BASE;
    vt->arena = ARENA_BASE;
    vt_rediscover(vt);
    vt_bring_up(vt, F_USUAL, true);
    return vt;
}

static void plug(Vt *vt, Edu *edu, const char *id, const char *addr, uint16_t bdf)
{
    qtest_qmp_device_add(vt->qts, "edu", id,
                         "{'bus': 'pci.0', 'addr': %s, 'dma_mask': 281474976710655}", addr);
    edu_init(vt, edu, bdf, false);
}

static void unplug(Vt *vt, const char *id, unsigned slot)
{
    qtest_qmp_device_del_send(vt->qts, id);
    qtest_outl(vt->qts, ACPI_BUS, 0);
    qtest_outl(vt->qts, ACPI_EJECT, 1u << slot);
    vt_wait_deleted(vt, id);
}

static void plugged_into_a_slot(void)
{
    Vt *vt = pc("pci.0/5");
    Edu out, in;

    for (unsigned i = 0; i < 2; i++) {
        plug(vt, &out, "out", "5.0", rid(0, 5, 0));
        plug(vt, &in, "in", "6.0", rid(0, 6, 0));
        assert_left_out(vt, &out);
        assert_managed(vt, &in);
        assert_lists(vt, rid(0, 5, 0), false);
        assert_lists(vt, rid(0, 6, 0), true);
        unplug(vt, "out", 5);
        unplug(vt, "in", 6);
    }
    vt_free(vt);
}

/* The place was left out, and the descriptions go on to say so. */
static void a_name_is_looked_up_once(void)
{
    Vt *vt = pc("edu0");
    Edu elsewhere, other;

    assert_left_out(vt, &vt->edu[0]);
    unplug(vt, "edu0", 3);
    plug(vt, &elsewhere, "edu0", "6.0", rid(0, 6, 0));
    plug(vt, &other, "other", "3.0", EDU0);
    assert_managed(vt, &elsewhere);
    assert_left_out(vt, &other);
    vt_free(vt);
}

/* What a conventional bridge forwards has the bridge's ID, and is not what was left out. */
static void behind_a_bridge_that_is_plugged(void)
{
    Vt *vt = pc("pci.0/5");
    Edu a;

    qtest_qmp_device_add(vt->qts, "pci-bridge", "bridge",
                         "{'bus': 'pci.0', 'addr': '5.0', 'chassis_nr': 9}");
    qtest_qmp_device_add(vt->qts, "edu", "a",
                         "{'bus': 'bridge', 'addr': '1.0', 'dma_mask': 281474976710655}");
    bridge_open(vt, rid(0, 5, 0), 1, 1);
    edu_init(vt, &a, rid(1, 1, 0), false);
    g_assert_false(edu_write_lands(&a, page(2), page(2), 64));
    assert_status(vt_attach(vt, 1, rid(0, 5, 0), 0), VS_NOENT);
    assert_managed(vt, &a);
    vt_free(vt);
}

/* ---- virtual functions ---- */

#define IGB 0x0028u  /* 00:05.0 */
#define SRIOV 0x160u /* igb's SR-IOV capability */
#define SRIOV_CTRL (SRIOV + 0x08)
#define SRIOV_NUM_VF (SRIOV + 0x10)
#define SRIOV_VF_ENABLE 1u

/* They are functions of their own, with IDs that do not change on a root bus. */
static void virtual_functions_by_their_own_address(void)
{
    static const struct {
        const char *props;
        int pf, vf0, vf1;
    } machines[] = {
        {"boot-bypass=off,leave-out=igb", VS_NOENT, VS_OK, VS_OK},
        {"boot-bypass=off,leave-out=pcie.0/15.2", VS_OK, VS_OK, VS_NOENT},
        {"boot-bypass=off,leave-out=pcie.0/15", VS_OK, VS_NOENT, VS_NOENT},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(machines); i++) {
        Vt *vt = vt_new_with(machines[i].props, "-device igb,id=igb,addr=5.0,romfile=");

        /* Opens the host bridge's window on extended configuration space. */
        vt->ecam = 0xb0000000;
        pci_write32(vt, 0, 0x64, 0);
        pci_write32(vt, 0, 0x60, (uint32_t)vt->ecam | 1);
        g_assert_cmphex(pci_read16_ext(vt, IGB, SRIOV), ==, 0x10);
        pci_write16_ext(vt, IGB, SRIOV_NUM_VF, 2);
        pci_write16_ext(vt, IGB, SRIOV_CTRL, SRIOV_VF_ENABLE);
        g_assert_cmphex(pci_read16_ext(vt, IGB, SRIOV + 0x14), ==, 0x80);
        assert_status(vt_attach(vt, 1, IGB, 0), machines[i].pf);
        assert_status(vt_attach(vt, 1, IGB + 0x80, 0), machines[i].vf0);
        assert_status(vt_attach(vt, 1, IGB + 0x82, 0), machines[i].vf1);
        vt_free(vt);
    }
}

static const Case cases[] = {
    {"MOD-15/by-id", by_id},
    {"MOD-15/through-resets", through_resets},
    {"MOD-15/in-any-order", in_any_order},
    {"MOD-15/slots-and-functions-by-address", slots_and_functions_by_address},
    {"MOD-15/behind-a-bridge-nothing-is", behind_a_bridge_nothing_is},
    {"MOD-15/a-root-bus-with-its-bridges", a_root_bus_with_its_bridges},
    {"MOD-15/a-conventional-expander-with-its-bridge", a_conventional_expander_with_its_bridge},
    {"MOD-15/of-several-iommus", of_several_iommus},
    {"MOD-15/plugged-into-a-slot", plugged_into_a_slot},
    {"MOD-15/a-name-is-looked-up-once", a_name_is_looked_up_once},
    {"MOD-15/behind-a-bridge-that-is-plugged", behind_a_bridge_that_is_plugged},
    {"MOD-15/virtual-functions-by-their-own-address", virtual_functions_by_their_own_address},
};

VT_MAIN(cases)
