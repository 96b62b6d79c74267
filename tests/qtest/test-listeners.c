/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What listeners in QEMU are told that keep a copy of an endpoint's mappings, as VFIO
 * and vhost-vdpa do.  listener.c is one; it is asked after every step what it holds. */
#include "viommu_test.h"

#define IOVA 0x40000000ull
#define NIC "nic"
#define LISTENER(args) "-device viommu-listener,id=" NIC ",addr=5.0" args
#define LISTENER_BDF 0x0028u /* 00:05.0 */
/* Of a host's IOMMU with 39 bits. */
#define LIMIT_LAST 0x7fffffffffull
#define LIMIT ",limit=0x7fffffffff"

#define NATIVE_HOTPLUG "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off "
#define ROOT_PORT "-device pcie-root-port,id=rp1,chassis=1,addr=5.0 "
#define ROOT_PORT_BDF 0x0028u
#define SLTCTL 0x18
#define SLTCTL_POWER_ON 0x0100u
#define SLTCTL_POWER_OFF 0x0700u

static char *ask(Vt *vt, const char *id, const char *property)
{
    g_autofree char *path = g_strdup_printf("/machine/peripheral/%s", id);
    QDict *reply = qtest_qmp(vt->qts,
                             "{'execute': 'qom-get', 'arguments': {"
                             "'path': %s, 'property': %s}}",
                             path, property);
    char *text = g_strdup(qdict_get_try_str(reply, "return"));

    g_assert_nonnull(text);
    qobject_unref(reply);
    return text;
}

static void listen_to(Vt *vt, const char *id, bool listening)
{
    g_autofree char *path = g_strdup_printf("/machine/peripheral/%s", id);

    qtest_qmp_assert_success(vt->qts,
                             "{'execute': 'qom-set', 'arguments': {"
                             "'path': %s, 'property': 'listening', 'value': %i}}",
                             path, listening);
}

/* Each line is a block of a mapping: IOVAs, physical address, rights. */
static void assert_holds(Vt *vt, const char *id, const char *mirror)
{
    g_autofree char *errors = ask(vt, id, "errors");
    g_autofree char *found = ask(vt, id, "mirror");

    g_assert_cmpstr(errors, ==, "");
    g_assert_cmpstr(found, ==, mirror);
}

static void map(Vt *vt, uint32_t domain, uint64_t iova, uint64_t size, uint64_t phys,
                uint32_t flags)
{
    assert_status(vt_map(vt, domain, iova, iova + size - 1, phys, flags), VS_OK);
}

static void attach(Vt *vt, uint32_t domain, uint32_t endpoint)
{
    assert_status(vt_attach(vt, domain, endpoint, 0), VS_OK);
}

/* A domain with an edu in it, whose mappings are older than its other members. */
static Vt *with_domain(const char *props, const char *more_args)
{
    Vt *vt = vt_new_with(props, more_args);

    attach(vt, 1, EDU0);
    map(vt, 1, IOVA, PAGE, page(1), MAP_RW);
    map(vt, 1, IOVA + PAGE, 2 * PAGE, page(8), MAP_READ);
    return vt;
}

#define OF_DOMAIN                                                                                  \
    "40000000-40000fff 1001000 rw\n"                                                               \
    "40001000-40001fff 1008000 r\n"                                                                \
    "40002000-40002fff 1009000 r\n"

static void each_mapping_is_told(void)
{
    Vt *vt = vt_new_with("", LISTENER(""));

    assert_holds(vt, NIC, "");
    attach(vt, 1, LISTENER_BDF);
    map(vt, 1, IOVA, 4 * PAGE, page(0), MAP_RW);
    assert_holds(vt, NIC, "40000000-40003fff 1000000 rw\n");
    map(vt, 1, IOVA + 4 * PAGE, PAGE, page(9), MAP_READ);
    map(vt, 1, IOVA + 5 * PAGE, PAGE, page(7), MAP_WRITE);
    map(vt, 1, IOVA + 6 * PAGE, PAGE, page(7), 0);
    map(vt, 1, IOVA + 7 * PAGE, PAGE, 0xfed00000, MAP_RW | MAP_MMIO);
    assert_holds(vt, NIC,
                 "40000000-40003fff 1000000 rw\n"
                 "40004000-40004fff 1009000 r\n"
                 "40005000-40005fff 1007000 w\n");
    /* Refused, and nobody hears of it. */
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_RANGE);
    assert_status(vt_unmap(vt, 1, IOVA + 4 * PAGE, IOVA + 7 * PAGE - 1), VS_OK);
    assert_holds(vt, NIC, "40000000-40003fff 1000000 rw\n");
    assert_status(vt_unmap(vt, 1, 0, UINT64_MAX), VS_OK);
    assert_holds(vt, NIC, "");
    vt_free(vt);
}

/* It comes with the switch out of bypass, and QEMU's memory core replays. */
static void replay_is_not_repeated(void)
{
    Vt *vt = with_domain("", LISTENER(""));

    attach(vt, 1, LISTENER_BDF);
    assert_holds(vt, NIC, OF_DOMAIN);
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_OK);
    map(vt, 1, IOVA, PAGE, page(2), MAP_RW);
    assert_status(vt_detach(vt, 1, LISTENER_BDF), VS_OK);
    assert_holds(vt, NIC, "");
    attach(vt, 1, LISTENER_BDF);
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + 3 * PAGE - 1), VS_OK);
    assert_holds(vt, NIC, "");
    vt_free(vt);
}

static void late_listener(void)
{
    Vt *vt = with_domain("", LISTENER(",listening=off"));

    attach(vt, 1, LISTENER_BDF);
    assert_holds(vt, NIC, "");
    for (unsigned i = 0; i < 3; i++) {
        listen_to(vt, NIC, true);
        assert_holds(vt, NIC, OF_DOMAIN);
        map(vt, 1, IOVA + 9 * PAGE, PAGE, page(2), MAP_RW);
        assert_holds(vt, NIC, OF_DOMAIN "40009000-40009fff 1002000 rw\n");
        listen_to(vt, NIC, false);
        assert_status(vt_unmap(vt, 1, IOVA + 9 * PAGE, IOVA + 10 * PAGE - 1), VS_OK);
        assert_holds(vt, NIC, "");
    }
    vt_free(vt);
}

/* Nothing switches: what was mapped has to go by what is said of it. */
static void detach_without_bypass(void)
{
    Vt *vt = with_domain("boot-bypass=off,aw-bits=48", LISTENER(LIMIT));

    for (unsigned i = 0; i < 2; i++) {
        attach(vt, 1, LISTENER_BDF);
        assert_holds(vt, NIC, OF_DOMAIN);
        assert_status(vt_detach(vt, 1, LISTENER_BDF), VS_OK);
        assert_holds(vt, NIC, "");
    }
    vt_free(vt);
}

static void move_between_domains(void)
{
    Vt *vt = with_domain("", LISTENER(LIMIT));

    attach(vt, 2, EDU1);
    map(vt, 2, IOVA, PAGE, page(5), MAP_RW);
    map(vt, 2, IOVA + 8 * PAGE, PAGE, page(6), MAP_RW);
    attach(vt, 1, LISTENER_BDF);
    assert_holds(vt, NIC, OF_DOMAIN);
    attach(vt, 2, LISTENER_BDF);
    assert_holds(vt, NIC,
                 "40000000-40000fff 1005000 rw\n"
                 "40008000-40008fff 1006000 rw\n");
    attach(vt, 3, LISTENER_BDF);
    assert_holds(vt, NIC, "");
    attach(vt, 1, LISTENER_BDF);
    assert_holds(vt, NIC, OF_DOMAIN);
    assert_status(vt_attach(vt, 4, LISTENER_BDF, ATTACH_BYPASS), VS_OK);
    assert_holds(vt, NIC, "");
    attach(vt, 1, LISTENER_BDF);
    assert_holds(vt, NIC, OF_DOMAIN);
    vt_free(vt);
}

/* Blocks that begin below and end above what the host's IOMMU can do would be lost. */
static void around_the_limit(void)
{
    Vt *vt = vt_new_with("boot-bypass=off,aw-bits=64", LISTENER(LIMIT));
    const uint64_t end = LIMIT_LAST + 1;

    attach(vt, 1, LISTENER_BDF);
    for (unsigned i = 0; i < 2; i++) {
        map(vt, 1, end - 2 * PAGE, PAGE, page(1), MAP_RW);
        map(vt, 1, end - PAGE, PAGE, page(2), MAP_RW);
        map(vt, 1, end, 2 * PAGE, page(3), MAP_RW);
        map(vt, 1, UINT64_MAX - PAGE + 1, PAGE, page(4), MAP_RW);
        assert_holds(vt, NIC,
                     "7fffffe000-7fffffefff 1001000 rw\n"
                     "7ffffff000-7fffffffff 1002000 rw\n");
        if (i == 0) {
            assert_status(vt_unmap(vt, 1, 0, UINT64_MAX), VS_OK);
        } else {
            assert_status(vt_detach(vt, 1, LISTENER_BDF), VS_OK);
        }
        assert_holds(vt, NIC, "");
    }
    vt_free(vt);
}

/* A single mapping of nearly everything, by a listener that knows all of it. */
static void widest_mapping(void)
{
    Vt *vt = vt_new_with("boot-bypass=off,aw-bits=64", LISTENER(""));
    g_autofree char *error = NULL;

    attach(vt, 1, LISTENER_BDF);
    /* All memory that the machine has there: the last block is its firmware. */
    assert_status(vt_map(vt, 1, 0x100000000ull, UINT64_MAX, 0x1000000, MAP_RW), VS_OK);
    assert_holds(vt, NIC,
                 "100000000-103ffffff 1000000 rw\n"
                 "104000000-105ffffff 5000000 rw\n"
                 "106000000-106ffffff 7000000 rw\n"
                 "1fefc0000-1feffffff fffc0000 rw\n");
    assert_status(vt_unmap(vt, 1, 0x100000000ull, UINT64_MAX), VS_OK);
    assert_holds(vt, NIC, "");
    error = ask(vt, NIC, "errors");
    g_assert_cmpstr(error, ==, "");
    vt_free(vt);
}

static void device_reset(void)
{
    Vt *vt = with_domain("boot-bypass=off", LISTENER(LIMIT));

    attach(vt, 1, LISTENER_BDF);
    assert_holds(vt, NIC, OF_DOMAIN);
    vt_bring_up(vt, F_USUAL, true);
    assert_holds(vt, NIC, "");
    attach(vt, 1, LISTENER_BDF);
    map(vt, 1, IOVA, PAGE, page(3), MAP_RW);
    assert_holds(vt, NIC, "40000000-40000fff 1003000 rw\n");
    vt_free(vt);
}

static void system_reset(void)
{
    Vt *vt = with_domain("boot-bypass=off", LISTENER(LIMIT));

    attach(vt, 1, LISTENER_BDF);
    assert_holds(vt, NIC, OF_DOMAIN);
    vt_system_reset(vt);
    assert_holds(vt, NIC, "");
    vt_rediscover(vt);
    vt_bring_up(vt, F_USUAL, true);
    attach(vt, 1, LISTENER_BDF);
    map(vt, 1, IOVA, PAGE, page(3), MAP_RW);
    assert_holds(vt, NIC, "40000000-40000fff 1003000 rw\n");
    vt_free(vt);
}

static void bypass_byte(void)
{
    Vt *vt = with_domain("", LISTENER(LIMIT));

    for (unsigned i = 0; i < 2; i++) {
        vt_set_bypass(vt, 0); /* translated, and in no domain */
        assert_holds(vt, NIC, "");
        attach(vt, 1, LISTENER_BDF);
        assert_holds(vt, NIC, OF_DOMAIN);
        vt_set_bypass(vt, 1); /* not its business now */
        assert_holds(vt, NIC, OF_DOMAIN);
        assert_status(vt_detach(vt, 1, LISTENER_BDF), VS_OK);
        assert_holds(vt, NIC, "");
    }
    vt_free(vt);
}

static void slot_power(Vt *vt, uint16_t value)
{
    pci_write16(vt, ROOT_PORT_BDF, pci_find_cap(vt, ROOT_PORT_BDF, 0x10, 0) + SLTCTL, value);
    vt_settle(vt);
}

static void hotplug(void)
{
    Vt *vt = with_domain("boot-bypass=off", NATIVE_HOTPLUG ROOT_PORT);

    bridge_open(vt, ROOT_PORT_BDF, 1, 1);
    for (unsigned i = 0; i < 2; i++) {
        qtest_qmp_device_add(vt->qts, "viommu-listener", NIC, "{'bus': 'rp1', 'addr': '0.0'}");
        slot_power(vt, SLTCTL_POWER_ON);
        assert_holds(vt, NIC, "");
        attach(vt, 1, rid(1, 0, 0));
        assert_holds(vt, NIC, OF_DOMAIN);
        qtest_qmp_device_del_send(vt->qts, NIC);
        slot_power(vt, SLTCTL_POWER_OFF);
        qtest_qmp_eventwait(vt->qts, "DEVICE_DELETED");
    }
    vt_assert_alive(vt);
    vt_free(vt);
}

/* Slot power takes the attachment, and the listener stays. */
static void switched_off(void)
{
    Vt *vt = with_domain("boot-bypass=off", NATIVE_HOTPLUG ROOT_PORT
                         "-device viommu-listener,id=" NIC ",bus=rp1,addr=0.0" LIMIT);

    bridge_open(vt, ROOT_PORT_BDF, 1, 1);
    attach(vt, 1, rid(1, 0, 0));
    assert_holds(vt, NIC, OF_DOMAIN);
    slot_power(vt, 0x0500u); /* controller off, which unplugs nothing */
    assert_status(vt_probe(vt, rid(1, 0, 0)), VS_NOENT);
    assert_holds(vt, NIC, "");
    vt_free(vt);
}

/* Two functions behind a conventional bridge share an address space: one of them has
 * a copy, the other only caches, and each hears what it needs. */
static void both_kinds_in_one_space(void)
{
    Vt *vt = with_domain("aw-bits=48", NATIVE_HOTPLUG ROOT_PORT
                         "-device pcie-pci-bridge,id=pci1,bus=rp1,addr=0.0 "
                         "-device viommu-listener,id=" NIC ",bus=pci1,addr=1.0" LIMIT " "
                         "-device viommu-listener,id=cache,bus=pci1,addr=2.0,maps=off");
    const uint16_t bridge = rid(1, 0, 0), id = rid(2, 1, 0);
    char *dropped;

    bridge_set_buses(vt, ROOT_PORT_BDF, 0, 1, 2);
    bridge_set_buses(vt, bridge, 1, 2, 2);
    attach(vt, 1, id);
    assert_holds(vt, NIC, OF_DOMAIN);
    assert_holds(vt, "cache", "");
    /* Bypass may have left anything that is memory. */
    dropped = ask(vt, "cache", "dropped");
    g_assert_cmpstr(dropped, ==, "0-3fffffffffffffff\n");
    g_free(dropped);

    map(vt, 1, IOVA + 4 * PAGE, 4 * PAGE, page(4), MAP_RW);
    assert_status(vt_unmap(vt, 1, IOVA + PAGE, IOVA + 8 * PAGE - 1), VS_OK);
    assert_holds(vt, NIC, "40000000-40000fff 1001000 rw\n");
    assert_holds(vt, "cache", "");
    dropped = ask(vt, "cache", "dropped");
    g_assert_cmpstr(dropped, ==,
                    "40001000-40001fff\n"
                    "40002000-40003fff\n"
                    "40004000-40007fff\n");
    g_free(dropped);

    /* One block around what is mapped and the window for MSIs. */
    assert_status(vt_detach(vt, 1, id), VS_OK);
    assert_holds(vt, NIC, "");
    assert_holds(vt, "cache", "");
    dropped = ask(vt, "cache", "dropped");
    g_assert_cmpstr(dropped, ==, "0-ffffffff\n");
    g_free(dropped);
    vt_free(vt);
}

static const Case cases[] = {
    {"W29/each-mapping-is-told", each_mapping_is_told},
    {"DET-4/replay-is-not-repeated", replay_is_not_repeated},
    {"DET-4/late-listener", late_listener},
    {"DET-4/detach-without-bypass", detach_without_bypass},
    {"ATT-6/move-between-domains", move_between_domains},
    {"UNM-5/around-the-limit", around_the_limit},
    {"DET-4/widest-mapping", widest_mapping},
    {"INI-D1/listener-after-device-reset", device_reset},
    {"W5/listener-after-system-reset", system_reset},
    {"BYP-4/listener-and-the-bypass-byte", bypass_byte},
    {"W18/listener-is-hotplugged", hotplug},
    {"W18/listener-is-switched-off", switched_off},
    {"W17/both-kinds-in-one-space", both_kinds_in_one_space},
};

VT_MAIN(cases)
