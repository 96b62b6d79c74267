/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The device seen from the command line and from QMP. */
#include "viommu_test.h"

#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qstring.h"

static void bad_granules(void)
{
    static const char *const values[] = {"2k", "3k", "banana", "4096", ""};

    for (unsigned i = 0; i < G_N_ELEMENTS(values); i++) {
        assert_one_sentence("-device virtio-iommu-pci,granule=%s", values[i]);
    }
}

static void bad_address_widths(void)
{
    static const char *const values[] = {"0", "31", "65", "255", "-1", "256", "wide"};

    for (unsigned i = 0; i < G_N_ELEMENTS(values); i++) {
        assert_one_sentence("-device virtio-iommu-pci,aw-bits=%s", values[i]);
    }
}

static void good_values_start(void)
{
    static const char *const values[] = {"aw-bits=32", "aw-bits=64", "granule=host",
                                         "granule=64k,aw-bits=48", "boot-bypass=off"};

    for (unsigned i = 0; i < G_N_ELEMENTS(values); i++) {
        Vt *vt = vt_new_with(values[i], "");

        assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
        vt_free(vt);
    }
}

static void whole_address_space(void)
{
    Vt *vt = vt_new_with("aw-bits=64", "");
    uint64_t top = ~(PAGE - 1);

    g_assert_cmphex(vt_config64(vt, CONFIG_INPUT_END), ==, UINT64_MAX);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, top, UINT64_MAX, page(1), MAP_RW), VS_OK);
    assert_status(vt_map(vt, 1, top, UINT64_MAX, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_unmap(vt, 1, 0, UINT64_MAX), VS_OK);
    assert_status(vt_map(vt, 1, top, UINT64_MAX, page(1), MAP_RW), VS_OK);
    vt_free(vt);
}

static void not_on_a_secondary_bus(void)
{
    assert_one_sentence("-device pcie-root-port,id=rp,chassis=1,addr=5.0 "
                        "-device virtio-iommu-pci,bus=rp");
}

static void not_twice_for_one_bus(void)
{
    assert_one_sentence("-device virtio-iommu-pci,addr=2.0 "
                        "-device virtio-iommu-pci,addr=3.0");
}

static void not_without_a_bus(void)
{
    assert_one_sentence("-machine none -device virtio-iommu-pci");
    assert_one_sentence("-device virtio-iommu-device");
}

static void unknown_property(void)
{
    assert_one_sentence("-device virtio-iommu-pci,bot-bypass=on");
}

static void bad_reserved_regions(void)
{
    static const char *const values[] = {
        "\"0x2000:0x1000:0\"", /* inverted */
        "\"0x1000:0x1fff:7\"", /* no such type */
        "\"0x1000:0x1fff\"",   /* no type */
        "\"0x1000-0x1fff:0\"",
        "\"banana\"",
        "\"\"",
        "\"0x1000:0x1fff:0:0\"",
        "\"0x1000:0x1ffff0000000000000000:0\"",
        "\" 0x1000:0x1fff:0\"",
        "\"0x1000: 0x1fff:0\"",
        "\"+0x1000:0x1fff:0\"",
        "\"0x1000:-1:0\"", /* not the end of the address space */
        "\"0x1000:0x1fff:+0\"",
        "\"0x1000:0x1fff:0\\n\"",
        "\"0x1000:0x1fff:1\",\"0x3000:0x3fff:1\"", /* two for MSIs */
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(values); i++) {
        assert_one_sentence("-device '{\"driver\":\"virtio-iommu-pci\","
                            "\"reserved-regions\":[%s]}'",
                            values[i]);
    }
}

/* A machine that has refused one goes on as one that has none. */
static void no_hotplug(void)
{
    Vt *vt = vt_machine("-device pcie-root-port,id=rp,chassis=1,addr=5.0 "
                        "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off");
    Edu edu;

    bridge_open(vt, rid(0, 5, 0), 1, 1);
    for (unsigned i = 0; i < 3; i++) {
        QDict *reply = qtest_qmp(vt->qts, "{'execute': 'device_add', 'arguments': "
                                          "{'driver': 'virtio-iommu-pci', 'addr': '7.0'}}");

        g_assert_true(qdict_haskey(reply, "error"));
        qobject_unref(reply);
        qtest_system_reset(vt->qts);
    }
    bridge_open(vt, rid(0, 5, 0), 1, 1);
    qtest_qmp_device_add(vt->qts, "edu", "edu",
                         "{'bus': 'rp', 'addr': '0.0', 'dma_mask': 281474976710655}");
    pci_write16(vt, rid(0, 5, 0), pci_find_cap(vt, rid(0, 5, 0), 0x10, 0) + 0x18, 0x0100);
    vt_settle(vt);
    edu_init(vt, &edu, rid(1, 0, 0), true);
    g_assert_true(edu_write_lands(&edu, page(1), page(1), 64));
    vt_free(vt);
}

static void help_lists_the_properties(void)
{
    static const char *const names[] = {"boot-bypass", "granule", "aw-bits", "reserved-regions"};
    Run run = qemu_run("-machine none -device virtio-iommu-pci,help");

    g_assert_true(WIFEXITED(run.status));
    g_assert_cmpint(WEXITSTATUS(run.status), ==, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *needle = g_strdup_printf("  %s=", names[i]);

        g_assert_nonnull(strstr(run.out, needle));
    }
    run_free(&run);
}

static bool listing_has(QTestState *qts, const char *type, const char *property)
{
    QDict *reply = qtest_qmp(qts,
                             "{'execute': 'device-list-properties', "
                             "'arguments': {'typename': %s}}",
                             type);
    QListEntry *entry;
    bool found = false;

    g_assert_true(qdict_haskey(reply, "return"));
    QLIST_FOREACH_ENTRY(qdict_get_qlist(reply, "return"), entry)
    {
        QDict *property_info = qobject_to(QDict, qlist_entry_obj(entry));

        found |= g_str_equal(qdict_get_str(property_info, "name"), property);
    }
    qobject_unref(reply);
    return found;
}

/* Management software asks a machine-less QEMU before it writes a command line. */
static void qmp_lists_the_properties_without_a_machine(void)
{
    QTestState *qts = qtest_init("-machine none");

    g_assert_true(listing_has(qts, "virtio-iommu-pci", "boot-bypass"));
    g_assert_true(listing_has(qts, "virtio-iommu-pci", "granule"));
    g_assert_true(listing_has(qts, "virtio-iommu-pci", "aw-bits"));
    qtest_quit(qts);
}

/* The strings in a QMP answer, however deep. */
static bool mentions(QObject *object, const char *text)
{
    if (qobject_type(object) == QTYPE_QSTRING) {
        return strstr(qstring_get_str(qobject_to(QString, object)), text) != NULL;
    }
    if (qobject_type(object) == QTYPE_QLIST) {
        QListEntry *entry;

        QLIST_FOREACH_ENTRY(qobject_to(QList, object), entry)
        {
            if (mentions(qlist_entry_obj(entry), text)) {
                return true;
            }
        }
    }
    if (qobject_type(object) == QTYPE_QDICT) {
        QDict *dict = qobject_to(QDict, object);

        for (const QDictEntry *e = qdict_first(dict); e; e = qdict_next(dict, e)) {
            if (mentions(qdict_entry_value(e), text)) {
                return true;
            }
        }
    }
    return false;
}

static void qmp_names_the_features(void)
{
    Vt *vt = vt_new();
    QDict *list = qtest_qmp(vt->qts, "{'execute': 'x-query-virtio'}");
    QListEntry *entry;
    bool found = false;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(list, "return"), entry)
    {
        QDict *device = qobject_to(QDict, qlist_entry_obj(entry));
        QDict *status;

        if (!g_str_equal(qdict_get_str(device, "name"), "virtio-iommu")) {
            continue;
        }
        found = true;
        status = qtest_qmp(vt->qts,
                           "{'execute': 'x-query-virtio-status', "
                           "'arguments': {'path': %s}}",
                           qdict_get_str(device, "path"));
        g_assert_true(qdict_haskey(status, "return"));
        g_assert_true(mentions(qdict_get(status, "return"), "VIRTIO_IOMMU_F_MAP_UNMAP"));
        g_assert_true(mentions(qdict_get(status, "return"), "VIRTIO_IOMMU_F_BYPASS_CONFIG"));
        qobject_unref(status);
    }
    g_assert_true(found);
    qobject_unref(list);
    vt_free(vt);
}

static void counters_count(void)
{
    Vt *vt = vt_new();
    int64_t before;

    g_assert_cmpint(vt_counter(vt, "domains"), ==, 0);
    vt_attach_with_mailbox(vt, 1, EDU0);
    assert_status(vt_attach(vt, 1, NOBODY, 0), VS_NOENT);
    g_assert_cmpint(vt_counter(vt, "domains"), ==, 1);
    g_assert_cmpint(vt_counter(vt, "mappings"), ==, 1);
    g_assert_cmpint(vt_counter(vt, "requests"), ==, 3);
    g_assert_cmpint(vt_counter(vt, "requests-refused"), ==, 1);
    before = vt_counter(vt, "translations");
    edu_to_ram(&vt->edu[0], MAILBOX, 0, 64);
    g_assert_cmpint(vt_counter(vt, "translations"), >, before);
    /* Faults that nobody could be told about are still counted. */
    before = vt_counter(vt, "faults");
    edu_to_ram(&vt->edu[0], page(1), 0, 8);
    edu_to_ram(&vt->edu[0], page(1), 0, 8);
    g_assert_cmpint(vt_counter(vt, "faults"), >=, before + 2);
    g_assert_cmpint(vt_counter(vt, "faults-coalesced"), >=, 1);
    vt_free(vt);
}

static void mappings_are_limited(void)
{
    Vt *vt = vt_new_with("max-mappings=16", "");
    uint64_t iova = 0x40000000;

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(vt, 2, EDU1, 0), VS_OK);
    for (unsigned i = 0; i < 16; i++) {
        uint64_t start = iova + i * PAGE;

        assert_status(vt_map(vt, 1 + i % 2, start, start + PAGE - 1, page(i), MAP_RW), VS_OK);
    }
    assert_status(vt_map(vt, 1, iova + 16 * PAGE, iova + 17 * PAGE - 1, page(1), MAP_RW), VS_NOMEM);
    g_assert_true(edu_write_lands(&vt->edu[0], iova, page(0), 64));
    assert_status(vt_unmap(vt, 2, iova + PAGE, iova + 2 * PAGE - 1), VS_OK);
    assert_status(vt_map(vt, 1, iova + 16 * PAGE, iova + 17 * PAGE - 1, page(1), MAP_RW), VS_OK);
    /* A domain that goes gives its share back. */
    assert_status(vt_detach(vt, 2, EDU1), VS_OK);
    assert_status(vt_map(vt, 1, iova + 17 * PAGE, iova + 18 * PAGE - 1, page(1), MAP_RW), VS_OK);
    vt_free(vt);
}

static void domains_are_limited(void)
{
    Vt *vt = vt_new_with("max-domains=1", "");

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(vt, 2, EDU1, 0), VS_NOMEM);
    g_assert_true(edu_write_lands(&vt->edu[1], page(1), page(1), 64));
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    assert_status(vt_detach(vt, 1, EDU0), VS_OK);
    /* The only domain ends as its last member moves on. */
    assert_status(vt_attach(vt, 2, EDU1, 0), VS_OK);
    vt_free(vt);
}

static void memory_is_limited(void)
{
    const int64_t limit = 32 * KIB;
    Vt *vt = vt_new_with("max-memory=32k", "");
    uint64_t iova = 0x40000000;
    int64_t empty;
    unsigned n = 0;

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    empty = vt_counter(vt, "memory");
    while (vt_map(vt, 1, iova + 2 * n * PAGE, iova + (2 * n + 1) * PAGE - 1, page(1), MAP_RW) ==
           VS_OK) {
        n++;
        g_assert_cmpuint(n, <, 10000);
    }
    assert_status(vt_map(vt, 1, iova + 2 * n * PAGE, iova + (2 * n + 1) * PAGE - 1, page(1), MAP_RW),
                  VS_NOMEM);
    g_assert_cmpuint(n, >, 100);
    g_assert_cmpint(vt_counter(vt, "mappings"), ==, n);
    g_assert_cmpint(vt_counter(vt, "memory"), >, empty);
    g_assert_cmpint(vt_counter(vt, "memory"), <=, limit);
    g_assert_true(edu_write_lands(&vt->edu[0], iova + 2 * (n - 1) * PAGE, page(1), 64));
    assert_status(vt_unmap(vt, 1, 0, UINT64_MAX), VS_OK);
    g_assert_cmpint(vt_counter(vt, "memory"), ==, empty);
    assert_status(vt_map(vt, 1, iova, iova + PAGE - 1, page(1), MAP_RW), VS_OK);
    vt_free(vt);
}

static void limits_of_nothing(void)
{
    assert_one_sentence("-device virtio-iommu-pci,max-memory=many");
    assert_one_sentence("-device virtio-iommu-pci,max-mappings=many");
    assert_one_sentence("-device virtio-iommu-pci,max-domains=many");
}

static void the_old_alias_works(void)
{
    QTestState *qts = qtest_init("-nodefaults -machine q35 -m 128 "
                                 "-device virtio-iommu,addr=2.0");

    qtest_quit(qts);
}

static void many_starts_and_ends(void)
{
    for (unsigned i = 0; i < 3; i++) {
        Vt *vt = vt_new_with(i % 2 ? "boot-bypass=off" : "", "");

        assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
        /* Ends with an attachment in force. */
        vt_free(vt);
    }
}

static const Case cases[] = {
    {"OPS-D2/whole-address-space", whole_address_space},
    {"W11/mappings-are-limited", mappings_are_limited},
    {"W11/domains-are-limited", domains_are_limited},
    {"W11/memory-is-limited", memory_is_limited},
    {"W15/bad-reserved-regions", bad_reserved_regions},
    {"W28/bad-granules", bad_granules},
    {"W28/bad-address-widths", bad_address_widths},
    {"W28/good-values-start", good_values_start},
    {"W28/not-on-a-secondary-bus", not_on_a_secondary_bus},
    {"W28/not-twice-for-one-bus", not_twice_for_one_bus},
    {"W28/not-without-a-bus", not_without_a_bus},
    {"W28/unknown-property", unknown_property},
    {"W28/no-hotplug", no_hotplug},
    {"W28/limits-of-nothing", limits_of_nothing},
    {"MOD-1/help-lists-the-properties", help_lists_the_properties},
    {"MOD-2/qmp-lists-the-properties-without-a-machine",
     qmp_lists_the_properties_without_a_machine},
    {"MOD-3/qmp-names-the-features", qmp_names_the_features},
    {"MOD-4/the-old-alias-works", the_old_alias_works},
    {"MOD-5/many-starts-and-ends", many_starts_and_ends},
    {"MOD-6/counters-count", counters_count},
};

VT_MAIN(cases)
