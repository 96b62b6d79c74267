/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Assigned devices, as far as an IOMMU sees of them: what their IOMMU on the host can do,
 * and which mappings they are told.  listener.c is one, without a host. */
#include "viommu_test.h"

#define IOVA 0x40000000ull
#define HOST "nic"
#define HOST_BDF 0x0028u /* 00:05.0 */
/* All but the interrupts, with 39 bits: what VFIO says on a PC. */
#define PC_RANGES "0-fedfffff+fef00000-7fffffffff"
#define PC_END 0x8000000000ull
#define AT_START(ranges) "-device viommu-listener,id=" HOST ",addr=5.0,usable=" ranges

#define NATIVE_HOTPLUG "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off "
#define ROOT_PORT "-device pcie-root-port,id=rp1,chassis=1,addr=5.0 "
#define ROOT_PORT_BDF 0x0028u
#define SLTCTL 0x18
#define SLTCTL_POWER_ON 0x0100u
#define SLTCTL_POWER_OFF 0x0700u

static char *ask(Vt *vt, const char *property)
{
    QDict *reply = qtest_qmp(vt->qts,
                             "{'execute': 'qom-get', 'arguments': {"
                             "'path': '/machine/peripheral/" HOST "', 'property': %s}}",
                             property);
    char *text = g_strdup(qdict_get_try_str(reply, "return"));

    g_assert_nonnull(text);
    qobject_unref(reply);
    return text;
}

static void assert_holds(Vt *vt, const char *mirror)
{
    g_autofree char *errors = ask(vt, "errors");
    g_autofree char *found = ask(vt, "mirror");

    g_assert_cmpstr(errors, ==, "");
    g_assert_cmpstr(found, ==, mirror);
}

/* The regions of `endpoint` are the one for MSIs and, if `reserved`, one from there on. */
static void assert_reserved_from(Vt *vt, uint32_t endpoint, uint64_t reserved)
{
    ResvMem regions[32];
    unsigned n = vt_probe_regions(vt, endpoint, regions, G_N_ELEMENTS(regions));

    g_assert_cmpuint(n, ==, reserved ? 2 : 1);
    g_assert_cmpuint(regions[0].subtype, ==, RESV_MSI);
    g_assert_cmphex(regions[0].start, ==, MSI_START);
    if (reserved) {
        g_assert_cmpuint(regions[1].subtype, ==, RESV_RESERVED);
        g_assert_cmphex(regions[1].start, ==, reserved);
        g_assert_cmphex(regions[1].end, ==, UINT64_MAX);
    }
}

static char *plug(Vt *vt, const char *bus, const char *addr, const char *usable,
                  uint64_t page_sizes)
{
    QDict *reply = qtest_qmp(
        vt->qts,
        "{'execute': 'device_add', 'arguments': {'driver': 'viommu-listener', 'id': '" HOST
        "', 'bus': %s, 'addr': %s, 'usable': %s, 'page-sizes': %" PRIu64 "}}",
        bus, addr, usable, page_sizes);
    QDict *error = qdict_get_qdict(reply, "error");
    char *text = g_strdup(error ? qdict_get_str(error, "desc") : "");

    qobject_unref(reply);
    return text;
}

static void assert_plugs(Vt *vt, const char *bus, const char *addr, const char *usable)
{
    g_autofree char *error = plug(vt, bus, addr, usable, 0xfffffffffffff000ull);

    g_assert_cmpstr(error, ==, "");
}

static void slot_power(Vt *vt, uint16_t value)
{
    pci_write16(vt, ROOT_PORT_BDF, pci_find_cap(vt, ROOT_PORT_BDF, 0x10, 0) + SLTCTL, value);
    vt_settle(vt);
}

static void what_the_host_cannot_map_is_reserved(void)
{
    Vt *vt = vt_new_with("aw-bits=64", AT_START(PC_RANGES));

    assert_reserved_from(vt, HOST_BDF, PC_END);
    assert_reserved_from(vt, EDU0, 0);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, PC_END, PC_END + PAGE - 1, page(1), MAP_RW), VS_OK);
    assert_status(vt_attach(vt, 1, HOST_BDF, 0), VS_UNSUPP);
    assert_status(vt_attach(vt, 2, HOST_BDF, 0), VS_OK);
    assert_status(vt_map(vt, 2, PC_END, PC_END + PAGE - 1, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_map(vt, 2, PC_END - PAGE, PC_END - 1, page(1), MAP_RW), VS_OK);
    assert_holds(vt, "7ffffff000-7fffffffff 1001000 rw\n");
    vt_free(vt);
}

static void a_narrow_iommu_reserves_nothing_more(void)
{
    Vt *vt = vt_new_with("aw-bits=39", AT_START(PC_RANGES));

    assert_reserved_from(vt, HOST_BDF, 0);
    vt_free(vt);
}

static void plugged_into_a_running_machine(void)
{
    Vt *vt = vt_new_with("boot-bypass=off,aw-bits=64", NATIVE_HOTPLUG ROOT_PORT);

    bridge_open(vt, ROOT_PORT_BDF, 1, 1);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, PC_END, PC_END + PAGE - 1, page(1), MAP_RW), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(2), MAP_RW), VS_OK);
    for (unsigned i = 0; i < 2; i++) {
        assert_plugs(vt, "rp1", "0.0", PC_RANGES);
        slot_power(vt, SLTCTL_POWER_ON);
        assert_reserved_from(vt, rid(1, 0, 0), PC_END);
        assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), i == 0 ? VS_UNSUPP : VS_OK);
        if (i == 0) {
            assert_status(vt_unmap(vt, 1, PC_END, PC_END + PAGE - 1), VS_OK);
            assert_status(vt_attach(vt, 1, rid(1, 0, 0), 0), VS_OK);
        }
        assert_holds(vt, "40000000-40000fff 1002000 rw\n");
        qtest_qmp_device_del_send(vt->qts, HOST);
        slot_power(vt, SLTCTL_POWER_OFF);
        qtest_qmp_eventwait(vt->qts, "DEVICE_DELETED");
    }
    /* The next one in the slot starts from nothing. */
    assert_plugs(vt, "rp1", "0.0", "0-ffffffffffffffff");
    slot_power(vt, SLTCTL_POWER_ON);
    assert_reserved_from(vt, rid(1, 0, 0), 0);
    vt_assert_alive(vt);
    vt_free(vt);
}

/* A function that shares its requester ID, and so the mappings in force. */
static void plugged_beside_one_with_mappings(void)
{
    Vt *vt = vt_new_with("aw-bits=64", NATIVE_HOTPLUG ROOT_PORT
                         "-device pcie-pci-bridge,id=pci1,bus=rp1,addr=0.0 "
                         "-device " EDU_ARGS ",bus=pci1,addr=1.0");
    const uint16_t bridge = rid(1, 0, 0), id = rid(2, 1, 0);
    g_autofree char *error = NULL, *too_narrow = NULL;

    bridge_set_buses(vt, ROOT_PORT_BDF, 0, 1, 2);
    bridge_set_buses(vt, bridge, 1, 2, 2);
    assert_status(vt_attach(vt, 1, id, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(2), MAP_RW), VS_OK);
    error = plug(vt, "pci1", "2.0", "0-3fffffff+40001000-ffffffffffffffff", 0);
    g_assert_cmpstr(error, ==,
                    HOST ": its IOMMU on the host cannot map 0x40000000-0x40000fff, where the "
                         "guest has mapped memory for it already");
    assert_reserved_from(vt, id, 0);

    assert_status(vt_map(vt, 1, PC_END, PC_END + PAGE - 1, page(2), MAP_RW), VS_OK);
    too_narrow = plug(vt, "pci1", "2.0", PC_RANGES, 0);
    g_assert_cmpstr(too_narrow, ==,
                    HOST
                    ": its IOMMU on the host cannot map 0x8000000000-0xffffffffffffffff, where "
                    "the guest has mapped memory for it already; a virtio-iommu with "
                    "aw-bits=39 keeps the guest below");
    assert_status(vt_unmap(vt, 1, PC_END, PC_END + PAGE - 1), VS_OK);

    assert_plugs(vt, "pci1", "2.0", "0-7fffffffff");
    assert_reserved_from(vt, id, PC_END);
    assert_holds(vt, "40000000-40000fff 1002000 rw\n");
    assert_status(vt_map(vt, 1, PC_END, PC_END + PAGE - 1, page(2), MAP_RW), VS_INVAL);
    vt_free(vt);
}

static void granule_follows_the_host(void)
{
    Vt *vt = vt_new_with("granule=4k", "-device viommu-listener,id=" HOST
                                       ",addr=5.0,page-sizes=0xffffffffffff0000");

    g_assert_cmphex(vt_granule(vt), ==, 0x10000);
    assert_status(vt_attach(vt, 1, HOST_BDF, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(0), MAP_RW), VS_RANGE);
    assert_status(vt_map(vt, 1, IOVA, IOVA + 0xffff, page(0), MAP_RW), VS_OK);
    assert_holds(vt, "40000000-4000ffff 1000000 rw\n");
    vt_free(vt);

    vt = vt_new_with("granule=64k",
                     "-device viommu-listener,id=" HOST ",addr=5.0,page-sizes=0xfffffffffffff000");
    g_assert_cmphex(vt_granule(vt), ==, 0x10000);
    vt_free(vt);
}

static void granule_is_frozen_when_the_guest_runs(void)
{
    Vt *vt = vt_new_with("granule=4k", NATIVE_HOTPLUG ROOT_PORT);
    g_autofree char *error = NULL;

    bridge_open(vt, ROOT_PORT_BDF, 1, 1);
    error = plug(vt, "rp1", "0.0", PC_RANGES, 0xffffffffffff0000ull);
    g_assert_cmpstr(error, ==,
                    HOST ": its IOMMU on the host has no pages of less than 65536 bytes, but the "
                         "granule of the virtio-iommu is 4096");
    g_assert_cmphex(vt_granule(vt), ==, PAGE);
    /* Nothing of it stays. */
    assert_plugs(vt, "rp1", "0.0", "0-ffffffffffffffff");
    slot_power(vt, SLTCTL_POWER_ON);
    assert_reserved_from(vt, rid(1, 0, 0), 0);
    vt_free(vt);
}

static void more_than_can_be_told(void)
{
    g_autoptr(GString) ranges = g_string_new("0-fff");

    for (unsigned i = 1; i < 23; i++) {
        g_string_append_printf(ranges, "+%x0000-%x0fff", i, i);
    }
    assert_refused(HOST ": the reserved regions do not fit in the PROBE properties area",
                   "-machine q35 -device virtio-iommu-pci "
                   "-device viommu-listener,id=" HOST ",usable=%s",
                   ranges->str);
}

/* VFIO would complain of all else, and not map what there is of it. */
static void only_memory_is_told(void)
{
    Vt *vt = vt_new_with("boot-bypass=off", AT_START(PC_RANGES));
    const uint64_t end = vt_ram + RAM_SIZE;

    assert_status(vt_attach(vt, 1, HOST_BDF, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, 0xfed00000, MAP_RW), VS_OK);
    assert_status(vt_map(vt, 1, IOVA + PAGE, IOVA + 2 * PAGE - 1, end, MAP_RW), VS_OK);
    assert_holds(vt, "");
    /* The last page of memory, in a block with one that is none. */
    assert_status(vt_map(vt, 1, IOVA + 2 * PAGE, IOVA + 4 * PAGE - 1, end - PAGE, MAP_RW), VS_OK);
    /* Three pages, and then none. */
    assert_status(vt_map(vt, 1, IOVA + 0x100000, IOVA + 0x1fffff, end - 0x3000, MAP_READ), VS_OK);
    assert_holds(vt, "40002000-40002fff 7fff000 rw\n"
                     "40100000-40101fff 7ffd000 r\n"
                     "40102000-40102fff 7fff000 r\n");
    assert_status(vt_unmap(vt, 1, 0, UINT64_MAX), VS_OK);
    assert_holds(vt, "");
    vt_free(vt);
}

static void left_out_it_is_no_concern_of_the_iommu(void)
{
    Vt *vt = vt_new_with("granule=4k,aw-bits=64,boot-bypass=off,leave-out=" HOST,
                         AT_START("0-fff,page-sizes=0xffffffffffff0000"));

    g_assert_cmphex(vt_granule(vt), ==, PAGE);
    assert_status(vt_attach(vt, 1, HOST_BDF, 0), VS_NOENT);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_reserved_from(vt, EDU0, 0);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
    assert_holds(vt, "");
    vt_free(vt);
}

/* The host may lock no more memory, or its table is full. */
static void full_host(void)
{
    Vt *vt = vt_new_with("", "-device viommu-listener,id=" HOST ",addr=5.0,room=2");

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(vt, 1, HOST_BDF, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
    assert_status(vt_map(vt, 1, IOVA + PAGE, IOVA + 4 * PAGE - 1, page(2), MAP_RW), VS_NOMEM);
    assert_holds(vt, "40000000-40000fff 1001000 rw\n");
    g_assert_false(edu_write_lands(&vt->edu[0], IOVA + PAGE, page(2), 64));
    assert_status(vt_map(vt, 1, IOVA + 2 * PAGE, IOVA + 4 * PAGE - 1, page(2), MAP_RW), VS_OK);
    assert_holds(vt, "40000000-40000fff 1001000 rw\n40002000-40003fff 1002000 rw\n");

    /* It comes with the switch, into a domain that has grown. */
    assert_status(vt_detach(vt, 1, HOST_BDF), VS_OK);
    assert_status(vt_map(vt, 1, IOVA + PAGE, IOVA + 2 * PAGE - 1, page(7), MAP_RW), VS_OK);
    assert_status(vt_attach(vt, 1, HOST_BDF, 0), VS_NOMEM);
    assert_holds(vt, "");
    assert_status(vt_detach(vt, 1, HOST_BDF), VS_INVAL);
    /* One that it has stays in force. */
    assert_status(vt_attach(vt, 2, HOST_BDF, 0), VS_OK);
    assert_status(vt_map(vt, 2, IOVA, IOVA + PAGE - 1, page(4), MAP_RW), VS_OK);
    assert_status(vt_attach(vt, 1, HOST_BDF, 0), VS_NOMEM);
    assert_holds(vt, "40000000-40000fff 1004000 rw\n");
    assert_status(vt_unmap(vt, 1, IOVA + PAGE, IOVA + 4 * PAGE - 1), VS_OK);
    assert_status(vt_attach(vt, 1, HOST_BDF, 0), VS_OK);
    assert_holds(vt, "40000000-40000fff 1001000 rw\n");
    vt_free(vt);
}

static const Case cases[] = {
    {"W27/what-the-host-cannot-map-is-reserved", what_the_host_cannot_map_is_reserved},
    {"W27/a-narrow-iommu-reserves-nothing-more", a_narrow_iommu_reserves_nothing_more},
    {"W27/plugged-into-a-running-machine", plugged_into_a_running_machine},
    {"W27/plugged-beside-one-with-mappings", plugged_beside_one_with_mappings},
    {"CFG-1/granule-follows-the-host", granule_follows_the_host},
    {"W27/granule-is-frozen-when-the-guest-runs", granule_is_frozen_when_the_guest_runs},
    {"PRB-D1/more-than-can-be-told", more_than_can_be_told},
    {"W25/only-memory-is-told", only_memory_is_told},
    {"W25/full-host", full_host},
    {"MOD-15/left-out-it-is-no-concern-of-the-iommu", left_out_it_is_no_concern_of_the_iommu},
};

VT_MAIN(cases)
