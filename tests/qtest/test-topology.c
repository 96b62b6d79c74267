/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Endpoints behind bridges: who has an ID, and what becomes of attachments
 * when buses are renumbered and functions come and go. */
#define _GNU_SOURCE /* memmem */
#include "viommu_test.h"

#include "libqos/fw_cfg.h"

#define IOVA 0x40000000ull
#define IOVA2 0x50000000ull

/* Slots of root ports take part in native hotplug. */
#define NATIVE_HOTPLUG "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off "
#define ROOT_PORT(n, slot) "-device pcie-root-port,id=rp" #n ",chassis=" #n ",addr=" #slot ".0 "
#define RP1 0x0028u /* 00:05.0 */
#define RP2 0x0030u /* 00:06.0 */

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

/* One edu behind each of two root ports, on buses 1 and 2. */
static Vt *two_root_ports(Edu *a, Edu *b)
{
    Vt *vt = vt_boot("", NATIVE_HOTPLUG ROOT_PORT(1, 5)
                             ROOT_PORT(2, 6) "-device " EDU_ARGS ",id=a,bus=rp1,addr=0.0 "
                                             "-device " EDU_ARGS ",id=b,bus=rp2,addr=0.0");

    bridge_open(vt, RP1, 1, 1);
    bridge_open(vt, RP2, 2, 2);
    edu_init(vt, a, rid(1, 0, 0), true);
    edu_init(vt, b, rid(2, 0, 0), true);
    vt_bring_up(vt, F_USUAL, true);
    return vt;
}

static void behind_root_ports(void)
{
    Edu a, b;
    Vt *vt = two_root_ports(&a, &b);

    assert_status(vt_probe(vt, rid(1, 0, 0)), VS_OK);
    assert_status(vt_probe(vt, RP1), VS_OK);
    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
    assert_status(vt_attach(vt, 2, rid(2, 0, 0), 0), VS_OK);
    assert_status(vt_attach(vt, 3, RP1, 0), VS_OK);
    assert_status(vt_attach(vt, 3, rid(1, 0, 1), 0), VS_NOENT);
    assert_status(vt_attach(vt, 3, rid(1, 1, 0), 0), VS_NOENT);
    assert_status(vt_attach(vt, 3, rid(3, 0, 0), 0), VS_NOENT);
    map_page(vt, 1, IOVA, page(1));
    map_page(vt, 2, IOVA, page(2));
    assert_reaches(&a, IOVA, page(1));
    assert_reaches(&b, IOVA, page(2));
    vt_free(vt);
}

static void functions_of_one_device(void)
{
    Vt *vt = vt_machine("-device virtio-iommu-pci,addr=2.0 "
                        "-device " EDU_ARGS ",addr=3.0,multifunction=on "
                        "-device " EDU_ARGS ",addr=4.0 "
                        "-device " EDU_ARGS ",addr=3.5");
    Edu f5;

    vt_rediscover(vt);
    edu_prime(&vt->edu[0]);
    edu_init(vt, &f5, rid(0, 3, 5), true);
    vt_bring_up(vt, F_USUAL, true);
    assert_status(vt_attach(vt, 5, rid(0, 3, 5), 0), VS_OK);
    map_page(vt, 5, IOVA, page(5));
    assert_reaches(&f5, IOVA, page(5));
    assert_reaches(&vt->edu[0], page(1), page(1));
    assert_status(vt_attach(vt, 1, rid(0, 3, 4), 0), VS_NOENT);
    vt_free(vt);
}

static void behind_a_switch(void)
{
    Vt *vt =
        vt_boot("", ROOT_PORT(1, 5) "-device x3130-upstream,id=up,bus=rp1 "
                                    "-device xio3130-downstream,id=d1,bus=up,chassis=11,addr=0.0 "
                                    "-device xio3130-downstream,id=d2,bus=up,chassis=12,addr=1.0 "
                                    "-device " EDU_ARGS ",bus=d1 -device " EDU_ARGS ",bus=d2");
    Edu a, b;

    bridge_open(vt, RP1, 1, 4);
    bridge_open(vt, rid(1, 0, 0), 2, 4);
    bridge_open(vt, rid(2, 0, 0), 3, 3);
    bridge_open(vt, rid(2, 1, 0), 4, 4);
    edu_init(vt, &a, rid(3, 0, 0), true);
    edu_init(vt, &b, rid(4, 0, 0), true);
    vt_bring_up(vt, F_USUAL, true);
    assert_status(vt_attach(vt, 1, rid(3, 0, 0), 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&a, IOVA, page(1));
    assert_reaches(&b, page(2), page(2));
    assert_status(vt_attach(vt, 1, rid(4, 0, 0), 0), VS_OK);
    assert_reaches(&b, IOVA, page(1));
    vt_free(vt);
}

static void behind_an_expander(void)
{
    Vt *vt = vt_boot("", "-device pxb-pcie,id=pxb,bus_nr=0x20,addr=5.0 "
                         "-device pcie-root-port,id=rp1,bus=pxb,chassis=1,addr=0.0 "
                         "-device " EDU_ARGS ",bus=rp1");
    Edu a;

    bridge_open(vt, rid(0x20, 0, 0), 0x21, 0x21);
    edu_init(vt, &a, rid(0x21, 0, 0), true);
    vt_bring_up(vt, F_USUAL, true);
    assert_status(vt_attach(vt, 1, rid(0x21, 0, 0), 0), VS_OK);
    assert_status(vt_attach(vt, 2, rid(0x20, 0, 0), 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&a, IOVA, page(1));
    assert_blocked(&a, page(2), page(2));
    vt_free(vt);
}

/* Buses that the machine lets bypass have no endpoints. */
static void bypassed_expander_has_no_endpoints(void)
{
    Vt *vt =
        vt_boot("boot-bypass=off", "-device pxb-pcie,id=pxb,bus_nr=0x20,addr=5.0,bypass_iommu=on "
                                   "-device pcie-root-port,id=rp1,bus=pxb,chassis=1,addr=0.0 "
                                   "-device " EDU_ARGS ",bus=rp1");
    Edu a;

    bridge_open(vt, rid(0x20, 0, 0), 0x21, 0x21);
    edu_init(vt, &a, rid(0x21, 0, 0), true);
    vt_bring_up(vt, F_USUAL, true);
    assert_reaches(&a, page(1), page(1));
    assert_status(vt_probe(vt, rid(0x21, 0, 0)), VS_NOENT);
    assert_status(vt_attach(vt, 1, rid(0x21, 0, 0), 0), VS_NOENT);
    vt_free(vt);
}

/* ---- renumbering ---- */

static void dma_after_renumbering(void)
{
    Edu a, b;
    Vt *vt = two_root_ports(&a, &b);

    vt_attach_with_mailbox(vt, 1, rid(1, 0, 0));
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&a, IOVA, page(1));
    bridge_set_buses(vt, RP1, 0, 9, 9);
    /* The attachment goes with the function. */
    assert_reaches(&a, IOVA, page(1));
    assert_blocked(&a, page(2), page(2));
    vt_assert_alive(vt);
    assert_status(vt_probe(vt, rid(1, 0, 0)), VS_NOENT);
    assert_status(vt_detach(vt, 1, rid(1, 0, 0)), VS_NOENT);
    assert_status(vt_detach(vt, 1, rid(9, 0, 0)), VS_OK);
    assert_reaches(&a, page(2), page(2));
    vt_free(vt);
}

static void fault_after_renumbering_names_the_new_id(void)
{
    Edu a, b;
    Vt *vt = two_root_ports(&a, &b);
    Fault fault;

    vt_post_events(vt, 8, FAULT_RECORD_SIZE);
    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
    bridge_set_buses(vt, RP1, 0, 9, 9);
    edu_to_ram(&a, IOVA, 0, 8);
    fault = vt_wait_fault(vt);
    g_assert_cmphex(fault.endpoint, ==, rid(9, 0, 0));
    vt_free(vt);
}

static void bus_without_a_number(void)
{
    Edu a, b;
    Vt *vt = two_root_ports(&a, &b);

    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    bridge_set_buses(vt, RP1, 0, 0, 0);
    edu_to_ram(&a, IOVA, 0, 8);
    edu_to_ram(&a, IOVA + PAGE, 0, 8);
    vt_assert_alive(vt);
    /* Function 00:00.0 is still the host bridge. */
    assert_status(vt_probe(vt, 0), VS_OK);
    bridge_set_buses(vt, RP1, 0, 1, 1);
    assert_reaches(&a, IOVA, page(1));
    vt_free(vt);
}

static void swapped_buses_swap_the_ids(void)
{
    Edu a, b;
    Vt *vt = two_root_ports(&a, &b);

    /* Makes the device look both buses up once. */
    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
    assert_status(vt_attach(vt, 2, rid(2, 0, 0), 0), VS_OK);
    assert_status(vt_detach(vt, 1, rid(1, 0, 0)), VS_OK);
    assert_status(vt_detach(vt, 2, rid(2, 0, 0)), VS_OK);
    bridge_set_buses(vt, RP1, 0, 3, 3);
    bridge_set_buses(vt, RP2, 0, 1, 1);
    bridge_set_buses(vt, RP1, 0, 2, 2);
    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&b, IOVA, page(1));
    assert_blocked(&b, page(2), page(2));
    assert_reaches(&a, page(2), page(2));
    assert_blocked(&a, IOVA, page(1));
    vt_free(vt);
}

static void id_of_a_bus_that_moved_away(void)
{
    Edu a, b;
    Vt *vt = two_root_ports(&a, &b);

    assert_status(vt_probe(vt, rid(1, 0, 0)), VS_OK);
    bridge_set_buses(vt, RP1, 0, 9, 9);
    assert_status(vt_probe(vt, rid(1, 0, 0)), VS_NOENT);
    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_NOENT);
    assert_status(vt_attach(vt, 1, rid(9, 0, 0), 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&a, IOVA, page(1));
    vt_free(vt);
}

/* A guest may number two buses alike; the ID then means one of the two, always
 * the same one, and nobody gets more than that. */
static void two_buses_with_one_number(void)
{
    Edu a, b;
    Vt *vt = two_root_ports(&a, &b);

    bridge_set_buses(vt, RP2, 0, 1, 1);
    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    g_assert_true(edu_write_lands(&a, IOVA, page(1), 64) != edu_write_lands(&b, IOVA, page(1), 64));
    assert_status(vt_detach(vt, 1, rid(1, 0, 0)), VS_OK);
    assert_reaches(&a, page(2), page(2));
    assert_reaches(&b, page(2), page(2));
    /* A bridge that claims to lead to its own bus. */
    bridge_set_buses(vt, RP2, 0, 0, 0xff);
    assert_status(vt_probe(vt, EDU0), VS_OK);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&vt->edu[0], IOVA, page(1));
    vt_free(vt);
}

/* ---- conventional bridges ---- */

#define BRIDGE 0x0100u /* 01:00.0 */

/* Two edus on bus 2 behind a PCIe-to-PCI bridge: their DMA carries 02:00.0. */
static Vt *behind_conventional_bridge(Edu *a, Edu *b)
{
    Vt *vt = vt_boot(
        "", NATIVE_HOTPLUG ROOT_PORT(1, 5) "-device pcie-pci-bridge,id=pci1,bus=rp1,addr=0.0 "
                                           "-device " EDU_ARGS ",bus=pci1,addr=1.0 "
                                           "-device " EDU_ARGS ",bus=pci1,addr=2.0");

    bridge_open(vt, RP1, 1, 2);
    bridge_open(vt, BRIDGE, 2, 2);
    edu_init(vt, a, rid(2, 1, 0), true);
    edu_init(vt, b, rid(2, 2, 0), true);
    vt_bring_up(vt, F_USUAL, true);
    return vt;
}

static void aliased_function_by_its_own_id(void)
{
    Edu a, b;
    Vt *vt = behind_conventional_bridge(&a, &b);

    assert_status(vt_probe(vt, rid(2, 1, 0)), VS_OK);
    assert_status(vt_attach(vt, 1, rid(2, 1, 0), 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&a, IOVA, page(1));
    /* Nobody can tell its neighbour's accesses apart. */
    assert_reaches(&b, IOVA, page(1));
    assert_status(vt_attach(vt, 1, rid(2, 3, 0), 0), VS_NOENT);
    vt_free(vt);
}

static void aliased_function_by_its_alias(void)
{
    Edu a, b;
    Vt *vt = behind_conventional_bridge(&a, &b);

    assert_status(vt_probe(vt, rid(2, 0, 0)), VS_OK);
    assert_status(vt_attach(vt, 1, rid(2, 0, 0), 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&a, IOVA, page(1));
    assert_reaches(&b, IOVA, page(1));
    vt_free(vt);
}

/* What a driver does that puts an alias group into one domain: each function,
 * each of its IDs, in turn. */
static void alias_group_moves_together(void)
{
    Edu a, b;
    Vt *vt = behind_conventional_bridge(&a, &b);
    const uint32_t ids[] = {rid(2, 1, 0), rid(2, 0, 0), rid(2, 2, 0), rid(2, 0, 0)};

    for (unsigned i = 0; i < G_N_ELEMENTS(ids); i++) {
        assert_status(vt_attach(vt, 1, ids[i], 0), VS_OK);
        if (i == 0) {
            map_page(vt, 1, IOVA, page(1));
        }
        assert_reaches(&a, IOVA, page(1));
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(ids); i++) {
        assert_status(vt_attach(vt, 2, ids[i], 0), VS_OK);
        if (i == 0) {
            map_page(vt, 2, IOVA2, page(2));
        }
        assert_reaches(&b, IOVA2, page(2));
    }
    assert_blocked(&a, IOVA, page(1));
    /* When the last of them is detached they are all out. */
    assert_status(vt_detach(vt, 2, rid(2, 1, 0)), VS_OK);
    assert_status(vt_detach(vt, 2, rid(2, 2, 0)), VS_OK);
    if (vt_detach(vt, 2, rid(2, 0, 0)) != VS_OK) {
        vt_assert_alive(vt);
    }
    assert_blocked(&a, IOVA2, page(2));
    assert_blocked(&b, IOVA2, page(2));
    assert_reaches(&a, page(3), page(3));
    vt_free(vt);
}

static void fault_of_an_aliased_function(void)
{
    Edu a, b;
    Vt *vt = behind_conventional_bridge(&a, &b);
    uint32_t id;

    vt_post_events(vt, 8, FAULT_RECORD_SIZE);
    assert_status(vt_attach(vt, 1, rid(2, 1, 0), 0), VS_OK);
    edu_to_ram(&b, IOVA, 0, 8);
    id = vt_wait_fault(vt).endpoint;
    /* An ID that the driver can look up: the request carries the alias. */
    g_assert_true(id == rid(2, 0, 0) || id == rid(2, 1, 0));
    assert_status(vt_probe(vt, id), VS_OK);
    vt_free(vt);
}

/* ---- hotplug ---- */

#define SLTCTL 0x18
#define SLTCTL_POWER_ON 0x0100u  /* power indicator on */
#define SLTCTL_POWER_OFF 0x0700u /* power indicator and controller off */
#define SLTCTL_KEEP_OFF 0x0500u  /* controller off, which unplugs nothing */

static void slot_control(Vt *vt, uint16_t port, uint16_t value)
{
    unsigned cap = pci_find_cap(vt, port, 0x10, 0);

    g_assert_cmphex(cap, !=, 0);
    pci_write16(vt, port, cap + SLTCTL, value);
}

static void slot_power(Vt *vt, uint16_t port, bool on)
{
    slot_control(vt, port, on ? SLTCTL_POWER_ON : SLTCTL_POWER_OFF);
    vt_settle(vt);
}

static void unplug(Vt *vt, uint16_t port, const char *id)
{
    qtest_qmp_device_del_send(vt->qts, id);
    slot_power(vt, port, false);
    qtest_qmp_eventwait(vt->qts, "DEVICE_DELETED");
}

static void replugged_function_is_unattached(void)
{
    Edu a, b;
    Vt *vt = two_root_ports(&a, &b);

    vt_attach_with_mailbox(vt, 1, rid(1, 0, 0));
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&a, IOVA, page(1));
    unplug(vt, RP1, "a");
    assert_status(vt_probe(vt, rid(1, 0, 0)), VS_NOENT);
    assert_status(vt_detach(vt, 1, rid(1, 0, 0)), VS_NOENT);
    /* It was the only member. */
    assert_status(vt_map(vt, 1, IOVA2, IOVA2 + PAGE - 1, page(2), MAP_RW), VS_NOENT);

    qtest_qmp_device_add(vt->qts, "edu", "a2",
                         "{'bus': 'rp1', 'addr': '0.0', 'dma_mask': 281474976710655}");
    slot_power(vt, RP1, true);
    vt->next_bar[1] = 0;
    edu_init(vt, &a, rid(1, 0, 0), true);
    assert_reaches(&a, page(3), page(3));
    assert_blocked(&a, IOVA, page(1));
    assert_status(vt_detach(vt, 1, rid(1, 0, 0)), VS_INVAL);
    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
    assert_blocked(&a, page(3), page(3));
    map_page(vt, 1, IOVA, page(4));
    assert_reaches(&a, IOVA, page(4));
    vt_free(vt);
}

static void new_function_starts_without_bypass(void)
{
    Vt *vt = vt_new_with("", NATIVE_HOTPLUG ROOT_PORT(1, 5));
    Edu a;
    Fault fault;

    bridge_open(vt, RP1, 1, 1);
    vt_set_bypass(vt, 0);
    vt_post_events(vt, 8, FAULT_RECORD_SIZE);
    assert_status(vt_probe(vt, rid(1, 0, 0)), VS_NOENT);
    qtest_qmp_device_add(vt->qts, "edu", "a",
                         "{'bus': 'rp1', 'addr': '0.0', 'dma_mask': 281474976710655}");
    slot_power(vt, RP1, true);
    edu_init(vt, &a, rid(1, 0, 0), false);
    assert_blocked(&a, page(3), page(3));
    fault = vt_wait_fault(vt);
    g_assert_cmphex(fault.endpoint, ==, rid(1, 0, 0));
    assert_status(vt_probe(vt, rid(1, 0, 0)), VS_OK);
    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
    vt_free(vt);
}

/* The other members of the domain keep it when one is unplugged. */
static void unplug_leaves_the_domain_to_the_others(void)
{
    Edu a, b;
    Vt *vt = two_root_ports(&a, &b);

    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
    assert_status(vt_attach(vt, 1, rid(2, 0, 0), 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    unplug(vt, RP1, "a");
    assert_reaches(&b, IOVA, page(1));
    map_page(vt, 1, IOVA2, page(2));
    assert_reaches(&b, IOVA2, page(2));
    unplug(vt, RP2, "b");
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    vt_assert_alive(vt);
    vt_free(vt);
}

/* Its record may still wait for a buffer when a function goes. */
static void pending_fault_of_an_unplugged_function(void)
{
    Edu a, b;
    Vt *vt = two_root_ports(&a, &b);
    Fault fault;

    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
    assert_status(vt_attach(vt, 1, rid(2, 0, 0), 0), VS_OK);
    for (unsigned i = 0; i < 8; i++) {
        edu_to_ram(&a, IOVA + i * PAGE, 0, 8);
    }
    unplug(vt, RP1, "a");
    qtest_clock_step(vt->qts, 1000000000);
    vt_post_events(vt, 32, FAULT_RECORD_SIZE);
    while (vt_pop_fault(vt, &fault)) {
        g_assert_cmphex(fault.endpoint, ==, rid(1, 0, 0));
    }
    edu_to_ram(&b, IOVA, 0, 8);
    g_assert_cmphex(vt_wait_fault(vt).endpoint, ==, rid(2, 0, 0));
    vt_assert_alive(vt);
    vt_free(vt);
}

/* The guest alone can make a bridge and all behind it go away. */
static void bridge_powered_off_by_the_guest(void)
{
    Edu a, b;
    Vt *vt = behind_conventional_bridge(&a, &b);

    assert_status(vt_attach(vt, 1, rid(2, 0, 0), 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&a, IOVA, page(1));
    slot_power(vt, RP1, false);
    /* Its event comes when it is freed: nothing may hold it for ever. */
    vt_wait_deleted(vt, "pci1");
    /* The memory of what went is reused by and by. */
    qtest_clock_step(vt->qts, 1000000000);
    for (unsigned i = 0; i < 20; i++) {
        assert_status(vt_probe(vt, rid(2, 1, 0)), VS_NOENT);
        assert_status(vt_probe(vt, rid(7, 1, 0)), VS_NOENT);
        assert_status(vt_attach(vt, 1, rid(2, 0, 0), 0), VS_NOENT);
        vt_set_bypass(vt, i % 2);
    }
    assert_status(vt_map(vt, 1, IOVA2, IOVA2 + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    vt_system_reset(vt);
    vt_bring_up(vt, F_USUAL, true);
    vt_assert_alive(vt);
    assert_status(vt_probe(vt, rid(2, 1, 0)), VS_NOENT);
    vt_free(vt);
}

static void bridge_comes_back(void)
{
    Edu a, b;
    Vt *vt = behind_conventional_bridge(&a, &b);

    assert_status(vt_attach(vt, 1, rid(2, 0, 0), 0), VS_OK);
    unplug(vt, RP1, "pci1");
    qtest_qmp_device_add(vt->qts, "pcie-pci-bridge", "pci2", "{'bus': 'rp1', 'addr': '0.0'}");
    slot_power(vt, RP1, true);
    bridge_open(vt, BRIDGE, 2, 2);
    assert_status(vt_probe(vt, rid(2, 1, 0)), VS_NOENT);
    assert_status(vt_probe(vt, BRIDGE), VS_OK);
    vt_assert_alive(vt);
    vt_free(vt);
}

/* A function whose slot has no power is not there yet. */
static void powered_off_function_is_nobody(void)
{
    Vt *vt = vt_new_with("", NATIVE_HOTPLUG ROOT_PORT(1, 5));
    Edu a;

    bridge_open(vt, RP1, 1, 1);
    slot_power(vt, RP1, false);
    qtest_qmp_device_add(vt->qts, "edu", "a",
                         "{'bus': 'rp1', 'addr': '0.0', 'dma_mask': 281474976710655}");
    assert_status(vt_probe(vt, rid(1, 0, 0)), VS_NOENT);
    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_NOENT);
    slot_power(vt, RP1, true);
    assert_status(vt_probe(vt, rid(1, 0, 0)), VS_OK);
    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
    edu_init(vt, &a, rid(1, 0, 0), false);
    assert_blocked(&a, page(1), page(1));
    vt_free(vt);
}

/* Without power a function has no attachment, and with it again none either. */
static void powered_off_function_is_unattached(void)
{
    Edu a, b;
    Vt *vt = two_root_ports(&a, &b);
    Fault fault;

    vt_post_events(vt, 16, FAULT_RECORD_SIZE);
    vt_attach_with_mailbox(vt, 1, rid(1, 0, 0));
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&a, IOVA, page(1));
    slot_control(vt, RP1, SLTCTL_KEEP_OFF);
    assert_status(vt_probe(vt, rid(1, 0, 0)), VS_NOENT);
    assert_status(vt_detach(vt, 1, rid(1, 0, 0)), VS_NOENT);
    /* It was the only member. */
    assert_status(vt_map(vt, 1, IOVA2, IOVA2 + PAGE - 1, page(2), MAP_RW), VS_NOENT);

    slot_control(vt, RP1, SLTCTL_POWER_ON);
    vt->next_bar[1] = 0;
    edu_init(vt, &a, rid(1, 0, 0), false);
    g_assert_cmpuint(vt_drain_faults(vt), ==, 0);
    assert_reaches(&a, page(3), page(3));
    assert_blocked(&a, IOVA, page(1));
    assert_status(vt_detach(vt, 1, rid(1, 0, 0)), VS_INVAL);
    vt_set_bypass(vt, 0);
    assert_blocked(&a, page(3), page(3));
    fault = vt_wait_fault(vt);
    g_assert_cmphex(fault.endpoint, ==, rid(1, 0, 0));
    g_assert_cmpuint(fault.reason, ==, FAULT_DOMAIN);
    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
    assert_blocked(&a, IOVA, page(1));
    vt_free(vt);
}

/* Off and on again with no request in between: QEMU says nothing of either.  Only
 * that a function answered, or was a bus master, shows. */
static void power_cycle_ends_the_attachment(void)
{
    static const uint16_t commands[] = {2, 4, 6};

    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        Edu a, b;
        Vt *vt = two_root_ports(&a, &b);

        assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
        map_page(vt, 1, IOVA, page(1));
        pci_write16(vt, rid(1, 0, 0), 4, commands[i]);
        slot_control(vt, RP1, SLTCTL_KEEP_OFF);
        slot_control(vt, RP1, SLTCTL_POWER_ON);
        vt->next_bar[1] = 0;
        edu_init(vt, &a, rid(1, 0, 0), false);
        assert_reaches(&a, page(3), page(3));
        assert_blocked(&a, IOVA, page(1));
        assert_status(vt_detach(vt, 1, rid(1, 0, 0)), VS_INVAL);
        vt_free(vt);
    }
}

/* ---- virtual functions ---- */

#define SRIOV 0x160u /* igb's SR-IOV capability */
#define SRIOV_CTRL (SRIOV + 0x08)
#define SRIOV_NUM_VF (SRIOV + 0x10)
#define SRIOV_VF_OFFSET (SRIOV + 0x14)
#define SRIOV_VF_STRIDE (SRIOV + 0x16)
#define SRIOV_VF_ENABLE 1u

#define PF 0x0100u /* 01:00.0 */

static uint16_t vf_id(Vt *vt, unsigned n)
{
    return (uint16_t)(PF + pci_read16_ext(vt, PF, SRIOV_VF_OFFSET) +
                      n * pci_read16_ext(vt, PF, SRIOV_VF_STRIDE));
}

/* An igb that is to have so many VFs, but has none yet. */
static Vt *machine_with_igb(unsigned vfs, const char *more_args)
{
    g_autofree char *args =
        g_strconcat(ROOT_PORT(1, 5) "-device igb,bus=rp1,addr=0.0,romfile= ", more_args, NULL);
    Vt *vt = vt_new_with("", args);

    /* Opens the host bridge's window on extended configuration space. */
    vt->ecam = 0xb0000000;
    pci_write32(vt, 0, 0x64, 0);
    pci_write32(vt, 0, 0x60, (uint32_t)vt->ecam | 1);
    bridge_open(vt, RP1, 1, 2);
    pci_enable(vt, PF);
    g_assert_cmphex(pci_read16_ext(vt, PF, SRIOV), ==, 0x10);
    pci_write16_ext(vt, PF, SRIOV_NUM_VF, (uint16_t)vfs);
    return vt;
}

static void virtual_functions_come_and_go(void)
{
    Vt *vt = machine_with_igb(2, "");
    uint16_t vf[] = {vf_id(vt, 0), vf_id(vt, 1)};

    assert_status(vt_probe(vt, PF), VS_OK);
    assert_status(vt_probe(vt, vf[0]), VS_NOENT);

    for (unsigned master = 0; master < 2; master++) {
        pci_write16_ext(vt, PF, SRIOV_CTRL, SRIOV_VF_ENABLE);
        for (unsigned i = 0; i < 2; i++) {
            assert_status(vt_probe(vt, vf[i]), VS_OK);
            assert_status(vt_detach(vt, 1 + i, vf[i]), VS_INVAL);
            assert_status(vt_attach(vt, 1 + i, vf[i], 0), VS_OK);
            if (master) {
                pci_write16_ext(vt, vf[i], 4, 4);
            }
        }
        map_page(vt, 2, IOVA, page(1));
        pci_write16_ext(vt, PF, SRIOV_CTRL, 0);
        assert_status(vt_probe(vt, vf[1]), VS_NOENT);
        assert_status(vt_detach(vt, 2, vf[1]), VS_NOENT);
        assert_status(vt_map(vt, 2, IOVA2, IOVA2 + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    }
    vt_free(vt);
}

/* Transmit queue 7 is the PF's while there are fewer than eight VFs. */
#define IGB_PF_QUEUE 7u
#define IGB_TCTL 0x400u
#define IGB_TDBAL(queue) (0xe000u + 0x40u * (queue))
#define IGB_TDBAH(queue) (IGB_TDBAL(queue) + 0x04u)
#define IGB_TDLEN(queue) (IGB_TDBAL(queue) + 0x08u)
#define IGB_TDH(queue) (IGB_TDBAL(queue) + 0x10u)
#define IGB_TDT(queue) (IGB_TDBAL(queue) + 0x18u)
#define IGB_TXDCTL(queue) (IGB_TDBAL(queue) + 0x28u)

/* True if a function of the igb, whose registers are the PF's, finds a descriptor
 * at `iova` and says there, which is `phys`, that it is done with it. */
static bool igb_reaches(Vt *vt, uint64_t regs, unsigned queue, uint64_t iova, uint64_t phys)
{
    uint8_t descriptor[16] = {0};

    stl_le_p(descriptor + 8, 0x29100000); /* of no known kind; end of packet, report the status */
    qtest_memwrite(vt->qts, phys, descriptor, sizeof(descriptor));
    qtest_writel(vt->qts, regs + IGB_TCTL, 2);
    qtest_writel(vt->qts, regs + IGB_TDBAL(queue), (uint32_t)iova);
    qtest_writel(vt->qts, regs + IGB_TDBAH(queue), (uint32_t)(iova >> 32));
    qtest_writel(vt->qts, regs + IGB_TDLEN(queue), 128);
    qtest_writel(vt->qts, regs + IGB_TDH(queue), 0);
    qtest_writel(vt->qts, regs + IGB_TXDCTL(queue), 1u << 25);
    qtest_writel(vt->qts, regs + IGB_TDT(queue), 1);
    /* It has been there; what it saw is another matter. */
    g_assert_cmpuint(qtest_readl(vt->qts, regs + IGB_TDH(queue)), ==, 1);
    return qtest_readl(vt->qts, phys + 12) & 1;
}

static void reset_function(Vt *vt, uint16_t bdf)
{
    unsigned cap = pci_find_cap(vt, bdf, 0x10, 0);

    g_assert_cmphex(cap, !=, 0);
    g_assert_cmphex(pci_read32(vt, bdf, cap + 4) & 1u << 28, !=, 0);
    g_assert_cmphex(pci_read16(vt, bdf, 4) & 4, ==, 4);
    pci_write16(vt, bdf, cap + 8, 0x8000);
    g_assert_cmphex(pci_read16(vt, bdf, 4) & 4, ==, 0);
}

/* Which of them is attached with IOVA leading to page(n); the others bypass. */
static void assert_vf_attached(Vt *vt, uint64_t regs, unsigned n, bool attached)
{
    g_assert_cmpint(igb_reaches(vt, regs, n, IOVA, page(1 + n)), ==, attached);
    g_assert_cmpint(igb_reaches(vt, regs, n, page(9), page(9)), ==, !attached);
}

/* The function stays what it is, but a PF that is reset has no VFs any more. */
static void function_level_reset(void)
{
    Vt *vt = machine_with_igb(2, "");
    uint16_t vf[] = {vf_id(vt, 0), vf_id(vt, 1)};
    uint64_t regs = pci_place_bar(vt, PF, 0);
    Fault fault;

    pci_write16_ext(vt, PF, SRIOV_CTRL, SRIOV_VF_ENABLE);
    assert_status(vt_attach(vt, 7, PF, 0), VS_OK);
    map_page(vt, 7, IOVA2, page(7));
    for (unsigned i = 0; i < 2; i++) {
        assert_status(vt_attach(vt, 1 + i, vf[i], 0), VS_OK);
        map_page(vt, 1 + i, IOVA, page(1 + i));
        pci_write16_ext(vt, vf[i], 4, 4);
        assert_vf_attached(vt, regs, i, true);
    }
    g_assert_true(igb_reaches(vt, regs, IGB_PF_QUEUE, IOVA2, page(7)));

    reset_function(vt, vf[0]);
    pci_write16_ext(vt, vf[0], 4, 4);
    assert_vf_attached(vt, regs, 0, true);
    assert_vf_attached(vt, regs, 1, true);
    assert_status(vt_detach(vt, 1, vf[0]), VS_OK);
    assert_vf_attached(vt, regs, 0, false);
    assert_status(vt_attach(vt, 1, vf[0], 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));

    reset_function(vt, PF);
    for (unsigned i = 0; i < 2; i++) {
        assert_status(vt_probe(vt, vf[i]), VS_NOENT);
        assert_status(vt_detach(vt, 1 + i, vf[i]), VS_NOENT);
        assert_status(vt_map(vt, 1 + i, IOVA2, IOVA2 + PAGE - 1, page(1), MAP_RW), VS_NOENT);
    }
    vt->next_bar[1] = 0;
    regs = pci_place_bar(vt, PF, 0);
    pci_enable(vt, PF);
    g_assert_true(igb_reaches(vt, regs, IGB_PF_QUEUE, IOVA2, page(7)));
    g_assert_false(igb_reaches(vt, regs, IGB_PF_QUEUE, page(9), page(9)));

    pci_write16_ext(vt, PF, SRIOV_NUM_VF, 2);
    pci_write16_ext(vt, PF, SRIOV_CTRL, SRIOV_VF_ENABLE);
    vt_post_events(vt, 16, FAULT_RECORD_SIZE);
    vt_drain_faults(vt);
    for (unsigned i = 0; i < 2; i++) {
        pci_write16_ext(vt, vf[i], 4, 4);
        vt_set_bypass(vt, 1);
        assert_vf_attached(vt, regs, i, false);
        assert_status(vt_detach(vt, 1 + i, vf[i]), VS_INVAL);
        g_assert_cmpuint(vt_drain_faults(vt), ==, 0);
        vt_set_bypass(vt, 0);
        g_assert_false(igb_reaches(vt, regs, i, page(9), page(9)));
        fault = vt_wait_fault(vt);
        g_assert_cmphex(fault.endpoint, ==, vf[i]);
        g_assert_cmpuint(fault.reason, ==, FAULT_DOMAIN);
        vt_drain_faults(vt);
    }
    assert_status(vt_detach(vt, 7, PF), VS_OK);
    vt_free(vt);
}

/* Off and on again with no request in between: QEMU says nothing of either. */
static void disabled_functions_lose_their_attachment(void)
{
    Vt *vt = machine_with_igb(2, "");
    uint16_t vf[] = {vf_id(vt, 0), vf_id(vt, 1)};
    uint64_t regs = pci_place_bar(vt, PF, 0);

    pci_write16_ext(vt, PF, SRIOV_CTRL, SRIOV_VF_ENABLE);
    for (unsigned i = 0; i < 2; i++) {
        assert_status(vt_attach(vt, 1 + i, vf[i], 0), VS_OK);
        map_page(vt, 1 + i, IOVA, page(1 + i));
        pci_write16_ext(vt, vf[i], 4, 4);
        assert_vf_attached(vt, regs, i, true);
    }
    pci_write16_ext(vt, PF, SRIOV_CTRL, 0);
    pci_write16_ext(vt, PF, SRIOV_CTRL, SRIOV_VF_ENABLE);
    for (unsigned i = 0; i < 2; i++) {
        pci_write16_ext(vt, vf[i], 4, 4);
        assert_vf_attached(vt, regs, i, false);
        assert_status(vt_detach(vt, 1 + i, vf[i]), VS_INVAL);
    }
    vt_free(vt);
}

/* ---- several IOMMUs ---- */

#define IOMMU2 0x0038u /* 00:07.0 */

/* The second one takes the expander's buses, the first all the rest.  `vt` works
 * with the first; `other` shares its machine and works with the second. */
static Vt *two_iommus(const char *args, Vt *other, Edu *behind_expander)
{
    g_autofree char *all =
        g_strconcat("-device pxb-pcie,id=pxb,bus_nr=0x20,addr=5.0 "
                    "-device pcie-root-port,id=rp1,bus=pxb,chassis=1,addr=0.0 "
                    "-device " EDU_ARGS ",bus=rp1 "
                    "-device virtio-iommu-pci,id=iommu1,bus=pcie.0,addr=7.0,root-bus=pxb ",
                    args, NULL);
    Vt *vt = vt_boot("", all);

    bridge_open(vt, rid(0x20, 0, 0), 0x21, 0x21);
    edu_init(vt, behind_expander, rid(0x21, 0, 0), true);
    vt_bring_up(vt, F_USUAL, true);
    *other = *vt;
    other->next_queue += 8 * 0x3000;
    other->arena += 4 * MIB;
    virtio_probe(other, &other->iommu, IOMMU2);
    other->iommu.vt = other;
    vt_bring_up(other, F_USUAL, true);
    return vt;
}

static void each_iommu_has_its_own_endpoints(void)
{
    Vt other;
    Edu a;
    Vt *vt = two_iommus("", &other, &a);

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(&other, 1, EDU0, 0), VS_NOENT);
    assert_status(vt_attach(vt, 1, rid(0x21, 0, 0), 0), VS_NOENT);
    assert_status(vt_attach(&other, 1, rid(0x21, 0, 0), 0), VS_OK);
    assert_status(vt_probe(vt, rid(0x20, 0, 0)), VS_NOENT);
    assert_status(vt_probe(&other, rid(0x20, 0, 0)), VS_OK);
    /* Neither is an endpoint of the other. */
    assert_status(vt_probe(vt, IOMMU2), VS_NOENT);
    assert_status(vt_probe(&other, IOMMU_BDF), VS_NOENT);
    assert_status(vt_probe(&other, IOMMU2), VS_NOENT);
    map_page(vt, 1, IOVA, page(1));
    map_page(&other, 1, IOVA, page(2));
    assert_reaches(&vt->edu[0], IOVA, page(1));
    assert_reaches(&a, IOVA, page(2));
    vt_free(vt);
}

/* Told to use a platform translation, neither uses the other's, nor its own. */
static void rings_of_two_iommus_are_not_translated(void)
{
    const uint64_t features = F_USUAL | F_ACCESS_PLATFORM;
    Vt *vt = vt_boot("iommu_platform=on,boot-bypass=off",
                     "-device pxb-pcie,id=pxb,bus_nr=0x20,addr=5.0 "
                     "-device virtio-iommu-pci,id=iommu1,bus=pcie.0,addr=7.0,root-bus=pxb,"
                     "iommu_platform=on,boot-bypass=off");
    Vt other = *vt;

    vt_bring_up(vt, features, true);
    other.next_queue += 8 * 0x3000;
    other.arena += 4 * MIB;
    virtio_probe(&other, &other.iommu, IOMMU2);
    other.iommu.vt = &other;
    vt_bring_up(&other, features, true);
    vt_set_bypass(vt, 0);
    vt_set_bypass(&other, 0);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(vt, 1, IOMMU2, 0), VS_NOENT);
    assert_status(vt_attach(&other, 1, IOMMU_BDF, 0), VS_NOENT);
    vt_assert_alive(vt);
    vt_assert_alive(&other);
    vt_free(vt);
}

static void one_iommus_reset_and_bypass_are_its_own(void)
{
    Vt other;
    Edu a;
    Vt *vt = two_iommus("", &other, &a);

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(&other, 1, rid(0x21, 0, 0), 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    map_page(&other, 1, IOVA, page(2));
    virtio_reset(&vt->iommu);
    assert_blocked(&vt->edu[0], page(3), page(3)); /* W31 */
    virtio_reset(&vt->iommu);
    assert_reaches(&vt->edu[0], page(3), page(3));
    assert_reaches(&a, IOVA, page(2));
    vt_set_bypass(&other, 0);
    assert_reaches(&vt->edu[1], page(3), page(3));
    assert_status(vt_detach(&other, 1, rid(0x21, 0, 0)), VS_OK);
    assert_blocked(&a, page(3), page(3));
    vt_free(vt);
}

static void impossible_sets_of_iommus(void)
{
    assert_one_sentence("-device virtio-iommu-pci,root-bus=nowhere");
    assert_one_sentence("-device pxb-pcie,id=pxb,bus_nr=0x20 "
                        "-device virtio-iommu-pci,bus=pcie.0,root-bus=pxb "
                        "-device virtio-iommu-pci,bus=pcie.0,root-bus=pxb");
    assert_one_sentence("-device virtio-iommu-pci,root-bus=pcie.0::pcie.0");
}

static void system_reset_with_bridges(void)
{
    Edu a, b;
    Vt *vt = two_root_ports(&a, &b);

    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
    assert_status(vt_attach(vt, 2, rid(2, 0, 0), 0), VS_OK);
    vt_system_reset(vt);
    bridge_open(vt, RP1, 5, 5);
    bridge_open(vt, RP2, 6, 6);
    edu_init(vt, &a, rid(5, 0, 0), true);
    edu_init(vt, &b, rid(6, 0, 0), true);
    vt_bring_up(vt, F_USUAL, true);
    assert_reaches(&a, page(1), page(1));
    assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_NOENT);
    assert_status(vt_attach(vt, 1, rid(5, 0, 0), 0), VS_OK);
    map_page(vt, 1, IOVA, page(1));
    assert_reaches(&a, IOVA, page(1));
    assert_reaches(&b, page(2), page(2));
    vt_free(vt);
}

/* On machine "pc" the functions behind a conventional expander have IDs of its root bus. */
static Vt *conventional_expanders(const char *options, Edu *a, Edu *b)
{
    Vt *vt = g_new0(Vt, 1);

    vt->qts = qtest_initf("-nodefaults -m 128 -machine pc "
                          "-device virtio-iommu-pci,id=iommu0,addr=2.0,boot-bypass=off,%s "
                          "-device pxb,id=p,bus=pci.0,bus_nr=4,addr=6.0 "
                          "-device pxb,id=q,bus=pci.0,bus_nr=6,addr=7.0 "
                          "-device " EDU_ARGS ",id=a,bus=p,addr=1 "
                          "-device " EDU_ARGS ",id=b,bus=q,addr=1 ",
                          options);
    vt->bus_memory = 0xc0000000u;
    vt->next_queue = QUEUE_BASE;
    vt->arena = ARENA_BASE;
    virtio_probe(vt, &vt->iommu, IOMMU_BDF);
    vt_bring_up(vt, F_USUAL, true);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 0);
    bridge_open(vt, rid(4, 0, 0), 5, 5);
    edu_init(vt, a, rid(5, 1, 0), false);
    bridge_open(vt, rid(6, 0, 0), 7, 7);
    edu_init(vt, b, rid(7, 1, 0), false);
    return vt;
}

static void behind_a_conventional_expander(void)
{
    Edu a, b;
    Vt *vt = conventional_expanders("root-bus=p", &a, &b);
    Fault fault;

    vt_post_events(vt, 8, FAULT_RECORD_SIZE);
    /* It is the bridge that does the DMA. */
    assert_status(vt_probe(vt, rid(4, 0, 0)), VS_OK);
    assert_status(vt_probe(vt, rid(5, 1, 0)), VS_OK);
    assert_status(vt_probe(vt, rid(6, 0, 0)), VS_NOENT);
    assert_status(vt_probe(vt, rid(0, 6, 0)), VS_NOENT);
    assert_blocked(&a, page(1), page(1));
    fault = vt_wait_fault(vt);
    g_assert_cmphex(fault.endpoint, ==, rid(4, 0, 0));
    edu_prime(&b);
    assert_reaches(&b, page(1), page(1));
    vt_attach_with_mailbox(vt, 1, rid(4, 0, 0));
    edu_prime(&a);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(2), MAP_RW), VS_OK);
    assert_reaches(&a, IOVA, page(2));
    vt_free(vt);
}

static void beside_a_conventional_expander(void)
{
    Edu a, b;
    Vt *vt = conventional_expanders("root-bus=pci.0:q", &a, &b);

    assert_status(vt_probe(vt, rid(4, 0, 0)), VS_NOENT);
    assert_status(vt_probe(vt, rid(6, 0, 0)), VS_OK);
    edu_prime(&a);
    assert_reaches(&a, page(1), page(1));
    assert_blocked(&b, page(1), page(1));
    vt_free(vt);
}

/* A PCIe-to-PCI bridge makes the IDs of all functions behind it one. */
static Vt *behind_one_alias(const char *extra, Edu *a)
{
    g_autofree char *args =
        g_strdup_printf("%s" ROOT_PORT(1, 5) "-device pcie-pci-bridge,id=pci1,bus=rp1,addr=0.0 "
                                             "-device " EDU_ARGS ",id=a,bus=pci1,addr=1.0 ",
                        extra);
    Vt *vt = vt_boot("", args);

    bridge_open(vt, RP1, 1, 2);
    bridge_open(vt, rid(1, 0, 0), 2, 2);
    edu_init(vt, a, rid(2, 1, 0), true);
    vt_bring_up(vt, F_USUAL, true);
    return vt;
}

static void alias_attachment_ends_with_the_last_function(void)
{
    Edu a;
    Vt *vt = behind_one_alias("", &a);

    assert_status(vt_attach(vt, 1, rid(2, 0, 0), 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
    assert_reaches(&a, IOVA, page(1));
    /* The guest ejects slot 1 of every bus that ACPI knows; only one has such a function. */
    for (uint32_t bus = 0; bus < 8; bus++) {
        qtest_outl(vt->qts, 0xcc0 + 0x10, bus);
        if (qtest_inl(vt->qts, 0xcc0 + 0x10) == bus) {
            qtest_outl(vt->qts, 0xcc0 + 8, 1u << 1);
        }
    }
    vt_settle(vt);
    assert_status(vt_probe(vt, rid(2, 1, 0)), VS_NOENT);
    assert_status(vt_probe(vt, rid(2, 0, 0)), VS_NOENT);
    assert_status(vt_map(vt, 1, IOVA2, IOVA2 + PAGE - 1, page(2), MAP_RW), VS_NOENT);

    qtest_qmp_device_add(vt->qts, "edu", "b",
                         "{'bus': 'pci1', 'addr': '1.0', 'dma_mask': 281474976710655}");
    vt_settle(vt);
    vt->next_bar[2] = 0;
    edu_init(vt, &a, rid(2, 1, 0), false);
    assert_blocked(&a, IOVA, page(1));
    assert_status(vt_detach(vt, 1, rid(2, 0, 0)), VS_INVAL);
    vt_free(vt);
}

/* While it is realized it is switched off; then it vanishes. */
static void device_that_fails_behind_an_attached_alias(void)
{
    Edu a;
    Vt *vt = behind_one_alias(NATIVE_HOTPLUG, &a);

    assert_status(vt_attach(vt, 1, rid(2, 0, 0), 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
    for (unsigned i = 0; i < 8; i++) {
        QDict *reply = qtest_qmp(vt->qts, "{'execute': 'device_add', 'arguments': {"
                                          "'driver': 'pci-bridge', 'id': 'x', 'bus': 'pci1', "
                                          "'addr': '3.0'}}");

        g_assert_true(qdict_haskey(reply, "error"));
        qobject_unref(reply);
        vt_settle(vt);
    }
    assert_reaches(&a, IOVA, page(1));
    vt_free(vt);
}

static bool is_listed_by(Vt *vt, const char *iommu, uint16_t id)
{
    g_autofree char *path = g_strdup_printf("/machine/peripheral/%s/virtio-backend", iommu);
    QDict *reply = qtest_qmp(vt->qts,
                             "{'execute': 'qom-get', 'arguments': {"
                             "'path': %s, 'property': 'endpoints'}}",
                             path);
    const QListEntry *entry;
    bool found = false;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(reply, "return"), entry)
    {
        found |= qdict_get_int(qobject_to(QDict, qlist_entry_obj(entry)), "id") == id;
    }
    qobject_unref(reply);
    return found;
}

static bool is_listed(Vt *vt, uint16_t id)
{
    return is_listed_by(vt, "iommu0", id);
}

static bool set_realized(Vt *vt, const char *path, bool value)
{
    QDict *reply = qtest_qmp(vt->qts,
                             "{'execute': 'qom-set', 'arguments': {'path': %s, "
                             "'property': 'realized', 'value': %i}}",
                             path, value);
    bool good = qdict_haskey(reply, "return");

    qobject_unref(reply);
    return good;
}

/* Among the ACPI tables, as firmware reads them. */
static bool has_viot(Vt *vt)
{
    g_autofree char *tables = g_malloc0(256 * 1024);
    QFWCFG *fw_cfg = pc_fw_cfg_init(vt->qts);
    size_t size = qfw_cfg_get_file(fw_cfg, "etc/acpi/tables", tables, 256 * 1024);

    g_assert_cmpuint(size, >, 0);
    pc_fw_cfg_uninit(fw_cfg);
    return memmem(tables, MIN(size, 256 * 1024), "VIOT", 4);
}

/* Nothing leads to it any more, neither for what was behind it nor for what comes. */
static void only_iommu_that_is_unrealized(void)
{
    Vt *vt = vt_new_with("", NATIVE_HOTPLUG ROOT_PORT(1, 5));
    Edu a;

    bridge_open(vt, RP1, 1, 1);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_blocked(&vt->edu[0], page(3), page(3));
    g_assert_true(has_viot(vt));
    g_assert_true(set_realized(vt, "/machine/peripheral/iommu0/virtio-backend", false));
    assert_reaches(&vt->edu[0], page(3), page(3));
    qtest_qmp_device_add(vt->qts, "edu", "a",
                         "{'bus': 'rp1', 'addr': '0.0', 'dma_mask': 281474976710655}");
    slot_power(vt, RP1, true);
    edu_init(vt, &a, rid(1, 0, 0), true);
    assert_reaches(&a, page(3), page(3));
    /* The next firmware is told of no IOMMU. */
    vt_system_reset(vt);
    g_assert_false(has_viot(vt));
    vt_free(vt);
}

/* A monitor command may do that; what is behind it bypasses from then on. */
static void iommu_that_is_unrealized(void)
{
    static const char backend[] = "/machine/peripheral/iommu0/virtio-backend";
    Vt other;
    Edu a;
    Vt *vt = two_iommus(NATIVE_HOTPLUG ROOT_PORT(2, 6), &other, &a);

    bridge_open(vt, rid(0, 6, 0), 1, 1);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(&other, 1, rid(0x21, 0, 0), 0), VS_OK);
    map_page(&other, 1, IOVA, page(2));
    assert_blocked(&vt->edu[0], IOVA, page(1));
    g_assert_true(set_realized(vt, backend, false));
    assert_reaches(&vt->edu[0], page(3), page(3));
    /* The other one does not take over what it managed. */
    qtest_qmp_device_add(vt->qts, "nec-usb-xhci", "late", "{'bus': 'rp2'}");
    g_assert_true(is_listed_by(vt, "iommu1", rid(0x21, 0, 0)));
    g_assert_false(is_listed_by(vt, "iommu1", rid(1, 0, 0)));
    assert_reaches(&a, IOVA, page(2));
    /* Its transport is still there: the driver may go on, and resets reach it. */
    qtest_writeb(vt->qts, vt->iommu.common + 20, 0);
    qtest_writeb(vt->qts, vt->iommu.common + 20, 15);
    g_assert_false(set_realized(vt, backend, true));
    g_assert_false(set_realized(vt, backend, true));
    qtest_system_reset(vt->qts);
    qtest_qmp_assert_success(vt->qts, "{'execute': 'query-status'}");
    vt_free(vt);
}

static void device_that_fails_is_no_endpoint(void)
{
    Vt *vt = vt_new_with("", NATIVE_HOTPLUG ROOT_PORT(1, 5));
    QDict *reply;

    bridge_open(vt, RP1, 1, 1);
    g_assert_true(is_listed(vt, RP1));
    reply = qtest_qmp(vt->qts, "{'execute': 'device_add', 'arguments': {"
                               "'driver': 'pci-bridge', 'id': 'x', 'bus': 'rp1'}}");
    g_assert_true(qdict_haskey(reply, "error"));
    qobject_unref(reply);
    g_assert_false(is_listed(vt, rid(1, 0, 0)));
    assert_status(vt_probe(vt, rid(1, 0, 0)), VS_NOENT);
    vt_free(vt);
}

/* What behind it bypasses has to be let go before the bus has lost its number. */
static void bridge_with_bypassing_functions_goes(void)
{
    Edu a;
    Vt *vt = behind_one_alias(NATIVE_HOTPLUG "-trace viommu_switch ", &a);

    slot_power(vt, RP1, false);
    qtest_qmp_eventwait(vt->qts, "DEVICE_DELETED");
    vt_assert_alive(vt);
    vt_free(vt);
}

/* ---- changes of the memory topology ---- */

static Vt *start_with_commits_traced(void)
{
    return vt_new_with("linger=off", TRACE_COMMITS);
}

#define assert_commits(vt, n) g_assert_cmpuint(vt_commits(vt), ==, n)

/* However many functions it concerns; and what leaves each of them translating,
 * or each of them bypassing, is none. */
static void one_commit_for_a_change(void)
{
    Vt *vt = vt_logged(start_with_commits_traced);

    g_assert_cmpuint(vt_commits(vt), >, 0);
    assert_commits(vt, 0);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_commits(vt, 1);
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    assert_commits(vt, 1);
    vt_set_bypass(vt, 0);
    assert_commits(vt, 1);
    vt_set_bypass(vt, 1);
    assert_commits(vt, 1);
    assert_status(vt_detach(vt, 1, EDU1), VS_OK);
    assert_commits(vt, 1);
    assert_status(vt_attach(vt, 2, EDU1, ATTACH_BYPASS), VS_OK);
    assert_commits(vt, 0);
    assert_status(vt_attach(vt, 2, EDU0, ATTACH_BYPASS), VS_OK);
    assert_commits(vt, 1);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_commits(vt, 1);
    assert_status(vt_attach(vt, 3, EDU1, 0), VS_OK);
    assert_commits(vt, 1);

    assert_status(vt_attach(vt, 3, EDU1, 0), VS_OK);
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    assert_status(vt_attach(vt, 1, EDU1, ATTACH_BYPASS), VS_INVAL);
    assert_status(vt_attach(vt, 1, NOBODY, 0), VS_NOENT);
    assert_status(vt_detach(vt, 3, EDU1), VS_INVAL);
    map_page(vt, 1, IOVA, page(1));
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_OK);
    assert_status(vt_probe(vt, EDU0), VS_OK);
    vt_set_bypass(vt, 1);
    assert_commits(vt, 0);

    virtio_reset(&vt->iommu);
    assert_commits(vt, 1);
    vt_bring_up(vt, F_USUAL, true);
    virtio_reset(&vt->iommu);
    assert_commits(vt, 0);
    vt_free(vt);
}

#define VFS 7u

static Vt *start_with_igb(void)
{
    return machine_with_igb(VFS, TRACE_COMMITS);
}

/* Enables them as bus masters, attached or not, and switches them off again. */
static unsigned commits_of_disabling_vfs(Vt *vt, bool attached)
{
    pci_write16_ext(vt, PF, SRIOV_CTRL, SRIOV_VF_ENABLE);
    for (unsigned i = 0; i < VFS; i++) {
        uint16_t vf = vf_id(vt, i);

        pci_write16_ext(vt, vf, 4, 4);
        if (attached) {
            assert_status(vt_attach(vt, 1 + i, vf, 0), VS_OK);
        }
    }
    vt_commits(vt);
    pci_write16_ext(vt, PF, SRIOV_CTRL, 0);
    vt_settle(vt);
    assert_status(vt_probe(vt, vf_id(vt, 0)), VS_NOENT);
    return vt_commits(vt);
}

static void one_commit_for_vfs_that_go(void)
{
    Vt *vt = vt_logged(start_with_igb);
    unsigned own = commits_of_disabling_vfs(vt, false);

    g_assert_cmpuint(own, >, 0);
    g_assert_cmpuint(commits_of_disabling_vfs(vt, true), ==, own + 1);
    vt_free(vt);
}

#define ONE_ROOT_PORT                                                                              \
    NATIVE_HOTPLUG TRACE_COMMITS ROOT_PORT(1, 5) "-device " EDU_ARGS ",id=a,bus=rp1"

static Vt *start_with_iommu(void)
{
    return vt_machine("-device virtio-iommu-pci,id=iommu0,addr=2.0 " ONE_ROOT_PORT);
}

static Vt *start_without_iommu(void)
{
    return vt_machine(ONE_ROOT_PORT);
}

static unsigned commits_of_unplugging(Vt *(*start)(void))
{
    Vt *vt = vt_logged(start);
    unsigned commits;

    bridge_open(vt, RP1, 1, 1);
    pci_enable(vt, rid(1, 0, 0));
    vt_commits(vt);
    unplug(vt, RP1, "a");
    vt_settle(vt);
    commits = vt_commits(vt);
    vt_free(vt);
    return commits;
}

static void one_commit_for_a_function_that_goes(void)
{
    unsigned own = commits_of_unplugging(start_without_iommu);

    g_assert_cmpuint(own, >, 0);
    g_assert_cmpuint(commits_of_unplugging(start_with_iommu), <=, own + 1);
}

static const Case cases[] = {
    {"ATT-3/behind-root-ports", behind_root_ports},
    {"ATT-3/functions-of-one-device", functions_of_one_device},
    {"ATT-3/behind-a-switch", behind_a_switch},
    {"ATT-3/behind-an-expander", behind_an_expander},
    {"ATT-3/bypassed-expander-has-no-endpoints", bypassed_expander_has_no_endpoints},
    {"ATT-3/behind-a-conventional-expander", behind_a_conventional_expander},
    {"ATT-3/beside-a-conventional-expander", beside_a_conventional_expander},
    {"W18/alias-attachment-ends-with-the-last-function",
     alias_attachment_ends_with_the_last_function},
    {"W28/device-that-fails-behind-an-attached-alias", device_that_fails_behind_an_attached_alias},
    {"MOD-6/device-that-fails-is-no-endpoint", device_that_fails_is_no_endpoint},
    {"W28/bridge-with-bypassing-functions-goes", bridge_with_bypassing_functions_goes},
    {"W28/iommu-that-is-unrealized", iommu_that_is_unrealized},
    {"W28/only-iommu-that-is-unrealized", only_iommu_that_is_unrealized},
    {"FLT-3/names-the-new-id-after-renumbering", fault_after_renumbering_names_the_new_id},
    {"INI-D1/system-reset-with-bridges", system_reset_with_bridges},
    {"W2/dma-after-renumbering", dma_after_renumbering},
    {"W2/bus-without-a-number", bus_without_a_number},
    {"W3/bridge-powered-off-by-the-guest", bridge_powered_off_by_the_guest},
    {"W3/bridge-comes-back", bridge_comes_back},
    {"W16/swapped-buses-swap-the-ids", swapped_buses_swap_the_ids},
    {"W16/id-of-a-bus-that-moved-away", id_of_a_bus_that_moved_away},
    {"W16/two-buses-with-one-number", two_buses_with_one_number},
    {"W17/aliased-function-by-its-own-id", aliased_function_by_its_own_id},
    {"W17/aliased-function-by-its-alias", aliased_function_by_its_alias},
    {"W17/alias-group-moves-together", alias_group_moves_together},
    {"W17/fault-of-an-aliased-function", fault_of_an_aliased_function},
    {"W18/replugged-function-is-unattached", replugged_function_is_unattached},
    {"W18/new-function-starts-without-bypass", new_function_starts_without_bypass},
    {"W18/pending-fault-of-an-unplugged-function", pending_fault_of_an_unplugged_function},
    {"W18/powered-off-function-is-nobody", powered_off_function_is_nobody},
    {"W18/powered-off-function-is-unattached", powered_off_function_is_unattached},
    {"W18/power-cycle-ends-the-attachment", power_cycle_ends_the_attachment},
    {"W18/virtual-functions-come-and-go", virtual_functions_come_and_go},
    {"W18/function-level-reset", function_level_reset},
    {"W18/disabled-functions-lose-their-attachment", disabled_functions_lose_their_attachment},
    {"W18/unplug-leaves-the-domain-to-the-others", unplug_leaves_the_domain_to_the_others},
    {"W23/one-commit-for-a-change", one_commit_for_a_change},
    {"W23/one-commit-for-vfs-that-go", one_commit_for_vfs_that_go},
    {"W23/one-commit-for-a-function-that-goes", one_commit_for_a_function_that_goes},
    {"W9/rings-of-two-iommus-are-not-translated", rings_of_two_iommus_are_not_translated},
    {"MOD-7/each-iommu-has-its-own-endpoints", each_iommu_has_its_own_endpoints},
    {"MOD-7/reset-and-bypass-are-its-own", one_iommus_reset_and_bypass_are_its_own},
    {"MOD-7/impossible-sets-of-iommus", impossible_sets_of_iommus},
};

VT_MAIN(cases)
