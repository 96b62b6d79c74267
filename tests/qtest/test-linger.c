/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between a driver's reset and the next driver: functions that were attached end
 * what they have in hand, and nobody gets more than he had. */
#include "viommu_test.h"

#include "qobject/qdict.h"

#define IOVA 0x123456000ull
#define RP1 0x0028u /* 00:05.0 */
#define BEHIND rid(1, 0, 0)
#define NATIVE_HOTPLUG "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off "
#define PORT_ARGS                                                                                  \
    NATIVE_HOTPLUG "-device pcie-root-port,id=rp1,chassis=1,addr=5.0 "                             \
                   "-device " EDU_ARGS ",id=a,bus=rp1,addr=0.0 "

#define COMMAND 0x04u
#define COMMAND_MASTER 0x0004u
#define BRIDGE_CONTROL 0x3eu
#define BRIDGE_BUS_RESET 0x0040u

#define lands(edu, iova, n) edu_write_lands(edu, iova, page(n), 64)

static bool lingers(Vt *vt)
{
    QDict *reply = qtest_qmp_assert_success_ref(
        vt->qts, "{'execute': 'qom-get', 'arguments': {"
                 "'path': '/machine/peripheral/iommu0/virtio-backend', 'property': 'stats'}}");
    bool value = qdict_get_bool(reply, "lingering");

    qobject_unref(reply);
    return value;
}

static void attach_and_map(Vt *vt, uint16_t endpoint)
{
    vt_attach_with_mailbox(vt, 1, endpoint);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
}

/* EDU0 with a page, its driver gone; EDU1 in no domain. */
static Vt *reset_with(const char *properties, const char *more)
{
    Vt *vt = vt_new_with(properties, more);

    attach_and_map(vt, EDU0);
    edu_prime(&vt->edu[0]);
    virtio_reset(&vt->iommu);
    return vt;
}

static void assert_lingers(Vt *vt)
{
    g_assert_true(lingers(vt));
    g_assert_true(lands(&vt->edu[0], IOVA, 1));
    g_assert_false(lands(&vt->edu[0], IOVA + PAGE, 2));
    g_assert_false(lands(&vt->edu[0], page(3), 3));
}

/* `bypass` is 1: what the function says is what it gets. */
static void assert_over(Vt *vt)
{
    g_assert_false(lingers(vt));
    g_assert_cmpint(vt_counter(vt, "domains"), ==, 0);
    g_assert_true(lands(&vt->edu[0], page(3), 3));
    g_assert_false(lands(&vt->edu[0], IOVA, 1));
}

static void mappings_stay(void)
{
    Vt *vt = reset_with("", "");

    assert_lingers(vt);
    /* Who was in no domain is where `bypass` puts it. */
    g_assert_true(lands(&vt->edu[1], page(4), 4));
    g_assert_cmpuint(virtio_status(&vt->iommu), ==, 0);
    vt_settle(vt);
    assert_lingers(vt);
    vt_free(vt);
}

static void mappings_stay_where_bypass_is_off(void)
{
    Vt *vt = reset_with("boot-bypass=off", "");

    assert_lingers(vt);
    virtio_reset(&vt->iommu);
    g_assert_false(lingers(vt));
    g_assert_false(lands(&vt->edu[0], IOVA, 1));
    g_assert_false(lands(&vt->edu[0], page(3), 3));
    vt_free(vt);
}

static void bypass_domains_stay(void)
{
    Vt *vt = vt_new_with("boot-bypass=off", "");

    assert_status(vt_attach(vt, 7, EDU0, ATTACH_BYPASS), VS_OK);
    edu_prime(&vt->edu[0]);
    virtio_reset(&vt->iommu);
    g_assert_true(lingers(vt));
    g_assert_true(lands(&vt->edu[0], page(3), 3));
    virtio_reset(&vt->iommu);
    g_assert_false(lands(&vt->edu[0], page(3), 3));
    vt_free(vt);
}

/* The rights of a mapping, too. */
static void rights_stay(void)
{
    Vt *vt = vt_new();

    vt_attach_with_mailbox(vt, 1, EDU0);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_READ), VS_OK);
    virtio_reset(&vt->iommu);
    g_assert_true(edu_read_sees(&vt->edu[0], IOVA, page(1), 64));
    g_assert_false(lands(&vt->edu[0], IOVA, 1));
    vt_free(vt);
}

static void ends_with_features_ok(void)
{
    Vt *vt = reset_with("", "");

    virtio_set_status(&vt->iommu, STATUS_ACKNOWLEDGE);
    virtio_set_status(&vt->iommu, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    assert_lingers(vt);
    g_assert_true(virtio_accept(&vt->iommu, F_USUAL));
    assert_over(vt);
    vt_free(vt);
}

static void ends_with_driver_ok(void)
{
    Vt *vt = reset_with("", "");

    virtio_set_status(&vt->iommu, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK);
    assert_over(vt);
    vt_free(vt);
}

/* The next driver finds as little as after any reset. */
static void next_driver_finds_nothing(void)
{
    Vt *vt = reset_with("", "");

    g_assert_true(virtio_accept(&vt->iommu, F_USUAL));
    queue_init(&vt->iommu, &vt->req, 0);
    queue_init(&vt->iommu, &vt->evt, 1);
    virtio_driver_ok(&vt->iommu);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(2), MAP_RW), VS_NOENT);
    assert_status(vt_unmap(vt, 1, 0, UINT64_MAX), VS_NOENT);
    assert_status(vt_detach(vt, 1, EDU0), VS_INVAL);
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    g_assert_false(lands(&vt->edu[1], IOVA, 1));
    g_assert_true(lands(&vt->edu[0], page(3), 3));
    vt_free(vt);
}

static void ends_with_a_second_reset(void)
{
    Vt *vt = reset_with("", "");

    virtio_reset(&vt->iommu);
    assert_over(vt);
    vt_free(vt);
}

static void ends_with_a_system_reset(void)
{
    Vt *vt = reset_with("", "");

    vt_system_reset(vt);
    assert_over(vt);
    vt_free(vt);
}

static void ends_for_who_is_no_bus_master(void)
{
    Vt *vt = vt_new();
    uint16_t command;

    attach_and_map(vt, EDU0);
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    command = pci_read16(vt, EDU0, COMMAND);
    virtio_reset(&vt->iommu);
    pci_write16(vt, EDU0, COMMAND, command & (uint16_t)~COMMAND_MASTER);
    vt_settle(vt);
    pci_write16(vt, EDU0, COMMAND, command);
    g_assert_true(lands(&vt->edu[0], page(3), 3));
    g_assert_false(lands(&vt->edu[0], IOVA, 1));
    /* The other is as it was. */
    g_assert_true(lingers(vt));
    g_assert_true(lands(&vt->edu[1], IOVA, 1));
    vt_free(vt);
}

/* EDU0 attached, and not a bus master; returns what makes it one again. */
static uint16_t attach_and_quieten(Vt *vt)
{
    uint16_t command;

    attach_and_map(vt, EDU0);
    command = pci_read16(vt, EDU0, COMMAND);
    pci_write16(vt, EDU0, COMMAND, command & (uint16_t)~COMMAND_MASTER);
    return command;
}

/* Nor has one a part in it that was none before. */
static void ends_for_who_was_no_bus_master(void)
{
    Vt *vt = vt_new();
    uint16_t command = attach_and_quieten(vt);

    virtio_reset(&vt->iommu);
    vt_settle(vt);
    pci_write16(vt, EDU0, COMMAND, command);
    assert_over(vt);
    vt_free(vt);
}

/* With a driver that is a matter between that and the function. */
static void driver_keeps_who_is_no_bus_master(void)
{
    Vt *vt = vt_new();
    uint16_t command = attach_and_quieten(vt);

    vt_settle(vt);
    pci_write16(vt, EDU0, COMMAND, command);
    g_assert_true(lands(&vt->edu[0], IOVA, 1));
    g_assert_false(lands(&vt->edu[0], page(3), 3));
    vt_free(vt);
}

static Vt *behind_a_port(Edu *a)
{
    Vt *vt = vt_boot("", PORT_ARGS);

    bridge_open(vt, RP1, 1, 1);
    edu_init(vt, a, BEHIND, true);
    vt_bring_up(vt, F_USUAL, true);
    attach_and_map(vt, BEHIND);
    virtio_reset(&vt->iommu);
    g_assert_true(lands(a, IOVA, 1));
    g_assert_false(lands(a, page(3), 3));
    return vt;
}

static void ends_for_a_bus_that_is_reset(void)
{
    Edu a;
    Vt *vt = behind_a_port(&a);
    uint16_t control = pci_read16(vt, RP1, BRIDGE_CONTROL);

    pci_write16(vt, RP1, BRIDGE_CONTROL, control | BRIDGE_BUS_RESET);
    pci_write16(vt, RP1, BRIDGE_CONTROL, control);
    vt_settle(vt);
    g_assert_false(lingers(vt));
    vt->next_bar[1] = 0;
    edu_init(vt, &a, BEHIND, true);
    g_assert_true(lands(&a, page(3), 3));
    g_assert_false(lands(&a, IOVA, 1));
    vt_free(vt);
}

static void ends_for_who_is_unplugged(void)
{
    Edu a;
    Vt *vt = behind_a_port(&a);
    unsigned cap = pci_find_cap(vt, RP1, 0x10, 0);

    qtest_qmp_device_del_send(vt->qts, "a");
    pci_write16(vt, RP1, cap + 0x18, 0x0700);
    qtest_qmp_eventwait(vt->qts, "DEVICE_DELETED");
    g_assert_false(lingers(vt));
    g_assert_cmpint(vt_counter(vt, "domains"), ==, 0);
    vt_free(vt);
}

/* Faults have nobody to be told to, also none who comes later. */
static void faults_are_not_kept(void)
{
    Vt *vt = reset_with("", "");

    g_assert_false(lands(&vt->edu[0], page(3), 3));
    g_assert_true(virtio_accept(&vt->iommu, F_USUAL));
    queue_init(&vt->iommu, &vt->req, 0);
    queue_init(&vt->iommu, &vt->evt, 1);
    virtio_driver_ok(&vt->iommu);
    vt_post_events(vt, 4, FAULT_RECORD_SIZE);
    g_assert_cmpuint(vt_drain_faults(vt), ==, 0);
    vt_free(vt);
}

static const Case cases[] = {
    {"W31/mappings-stay", mappings_stay},
    {"W31/mappings-stay-where-bypass-is-off", mappings_stay_where_bypass_is_off},
    {"W31/bypass-domains-stay", bypass_domains_stay},
    {"W31/rights-stay", rights_stay},
    {"W31/ends-with-features-ok", ends_with_features_ok},
    {"W31/ends-with-driver-ok", ends_with_driver_ok},
    {"W31/next-driver-finds-nothing", next_driver_finds_nothing},
    {"W31/ends-with-a-second-reset", ends_with_a_second_reset},
    {"W31/ends-with-a-system-reset", ends_with_a_system_reset},
    {"W31/ends-for-who-is-no-bus-master", ends_for_who_is_no_bus_master},
    {"W31/ends-for-who-was-no-bus-master", ends_for_who_was_no_bus_master},
    {"W31/driver-keeps-who-is-no-bus-master", driver_keeps_who_is_no_bus_master},
    {"W31/ends-for-a-bus-that-is-reset", ends_for_a_bus_that_is_reset},
    {"W31/ends-for-who-is-unplugged", ends_for_who_is_unplugged},
    {"W31/faults-are-not-kept", faults_are_not_kept},
};

VT_MAIN(cases)
