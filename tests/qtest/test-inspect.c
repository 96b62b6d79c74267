/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Looking inside over QMP: what the device is, and answers to questions about it. */
#include "viommu_test.h"

#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"

#define IOVA 0x40000000ull
#define BACKEND "/machine/peripheral/iommu0/virtio-backend"
#define NO_NUMBER 0xdeadbeefdeadbeefull

/* ---- over QMP ---- */

static QDict *get_of(Vt *vt, const char *path, const char *property)
{
    return qtest_qmp_assert_success_ref(
        vt->qts, "{'execute': 'qom-get', 'arguments': {'path': %s, 'property': %s}}", path,
        property);
}

static QDict *get(Vt *vt, const char *property)
{
    return get_of(vt, BACKEND, property);
}

static QDict *try_ask(Vt *vt, const char *question)
{
    return qtest_qmp(vt->qts,
                     "{'execute': 'qom-set', 'arguments': {'path': %s, 'property': 'inspect', "
                     "'value': %s}}",
                     BACKEND, question);
}

static QDict *ask(Vt *vt, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

static QDict *ask(Vt *vt, const char *fmt, ...)
{
    g_autofree char *question = NULL;
    QDict *answer;
    va_list ap;

    va_start(ap, fmt);
    question = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    answer = try_ask(vt, question);
    g_assert_true(qdict_haskey(answer, "return"));
    qobject_unref(answer);
    answer = get(vt, "inspected");
    g_assert_cmpstr(qdict_get_str(answer, "query"), ==, question);
    return answer;
}

static void assert_error(QDict *reply, const char *sentence)
{
    g_assert_cmpstr(qdict_get_str(qdict_get_qdict(reply, "error"), "desc"), ==, sentence);
    qobject_unref(reply);
}

static uint64_t number(const QDict *of, const char *name)
{
    const QObject *value = qdict_get(of, name);
    uint64_t number = NO_NUMBER;

    if (value) {
        g_assert_true(qnum_get_try_uint(qobject_to(QNum, value), &number));
    }
    return number;
}

static unsigned length(const QDict *of, const char *list)
{
    return qlist_size(qdict_get_qlist(of, list));
}

static QDict *element(const QDict *of, const char *list, unsigned i)
{
    const QListEntry *entry = qlist_first(qdict_get_qlist(of, list));

    while (i--) {
        entry = qlist_next(entry);
    }
    return qobject_to(QDict, qlist_entry_obj(entry));
}

/* The one of these endpoints with that ID. */
static QDict *endpoint(const QDict *answer, uint32_t id)
{
    for (unsigned i = 0; i < length(answer, "endpoints"); i++) {
        QDict *one = element(answer, "endpoints", i);

        if (number(one, "id") == id) {
            return one;
        }
    }
    return NULL;
}

static const char *text(const QDict *of, const char *name)
{
    return qdict_get_str(of, name);
}

static void map_page(Vt *vt, uint32_t domain, uint64_t iova, uint64_t phys, uint32_t rights)
{
    assert_status(vt_map(vt, domain, iova, iova + PAGE - 1, phys, rights), VS_OK);
}

/* ---- MOD-20 ---- */

static void instance_says_what_it_is(void)
{
    Vt *vt = vt_boot("max-mappings=77,max-domains=5,max-memory=1M,aw-bits=40,boot-bypass=off", "");
    QDict *is = get(vt, "instance");

    g_assert_cmpstr(text(is, "name"), ==, "iommu0");
    g_assert_cmpstr(text(is, "transport"), ==, "pci");
    g_assert_cmpstr(text(is, "device"), ==, "/machine/peripheral/iommu0");
    g_assert_cmphex(number(is, "id"), ==, IOMMU_BDF);
    g_assert_cmphex(number(is, "status"), ==, 0);
    g_assert_false(qdict_get_bool(is, "driver"));
    g_assert_false(qdict_get_bool(is, "broken"));
    g_assert_false(qdict_get_bool(is, "bypass"));
    g_assert_false(qdict_get_bool(is, "boot-bypass"));
    g_assert_cmphex(number(is, "features-negotiated"), ==, 0);
    g_assert_cmphex(number(is, "input-last"), ==, 0xffffffffffull);
    g_assert_cmphex(number(is, "granule"), ==, vt_granule(vt));
    g_assert_cmpuint(number(is, "max-mappings"), ==, 77);
    g_assert_cmpuint(number(is, "max-domains"), ==, 5);
    g_assert_cmpuint(number(is, "max-memory"), ==, MIB);
    g_assert_cmpuint(number(is, "memory"), ==, 0);
    g_assert_cmpuint(length(is, "root-buses"), ==, 1);
    g_assert_cmpuint(length(is, "ranges"), ==, 2);
    g_assert_cmphex(number(element(is, "ranges", 0), "last"), ==, IOMMU_BDF - 1);
    g_assert_cmphex(number(element(is, "ranges", 1), "first"), ==, IOMMU_BDF + 1);
    g_assert_cmpuint(length(is, "transports"), ==, 0);
    qobject_unref(is);

    vt_bring_up(vt, F_USUAL, true);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_page(vt, 1, IOVA, page(0), MAP_RW);
    is = get(vt, "instance");
    g_assert_true(qdict_get_bool(is, "driver"));
    g_assert_cmphex(number(is, "features-negotiated"), ==, F_USUAL & 0x7f);
    g_assert_cmpuint(number(is, "mappings"), ==, 1);
    g_assert_cmpuint(number(is, "domains"), ==, 1);
    g_assert_cmpuint(number(is, "memory"), >, 0);
    qobject_unref(is);
    vt_free(vt);
}

static void model_is_the_machine(void)
{
    Vt *vt = vt_machine("-device pxb-pcie,id=pxb1,bus_nr=0x40,bus=pcie.0,addr=6.0 "
                        "-device pxb-pcie,id=pxb2,bus_nr=0x80,bus=pcie.0,addr=7.0,"
                        "bypass_iommu=on "
                        "-device virtio-iommu-pci,id=iommu0,bus=pcie.0,addr=2.0 "
                        "-device virtio-iommu-pci,id=iommu1,bus=pcie.0,addr=3.0,root-bus=pxb1");
    QDict *model = get(vt, "model");
    QDict *one, *other;

    g_assert_cmpuint(length(model, "root-buses"), ==, 3);
    one = element(model, "root-buses", 0);
    g_assert_cmpstr(text(one, "name"), ==, "pcie.0");
    g_assert_cmpuint(number(one, "first-bus"), ==, 0);
    g_assert_cmpuint(number(one, "last-bus"), ==, 0x3f);
    g_assert_cmpuint(number(one, "iommu"), ==, 0);
    one = element(model, "root-buses", 1);
    g_assert_cmpstr(text(one, "name"), ==, "pxb1");
    g_assert_cmpuint(number(one, "iommu"), ==, 1);
    one = element(model, "root-buses", 2);
    g_assert_true(qdict_get_bool(one, "bypass"));
    g_assert_false(qdict_haskey(one, "iommu"));

    g_assert_cmpuint(length(model, "iommus"), ==, 2);
    one = element(model, "iommus", 1);
    g_assert_cmpstr(text(one, "name"), ==, "iommu1");
    g_assert_cmpstr(text(one, "transport"), ==, "pci");
    g_assert_cmphex(number(one, "id"), ==, 0x18);
    g_assert_cmpuint(length(one, "ranges"), ==, 1);
    g_assert_cmphex(number(element(one, "ranges", 0), "first"), ==, 0x4000);
    g_assert_cmphex(number(element(one, "ranges", 0), "last"), ==, 0x7fff);

    /* Each IOMMU shows the same machine, and of itself its part. */
    other = get_of(vt, "/machine/peripheral/iommu1/virtio-backend", "model");
    g_assert_true(qobject_is_equal(QOBJECT(model), QOBJECT(other)));
    qobject_unref(other);
    other = get_of(vt, "/machine/peripheral/iommu1/virtio-backend", "instance");
    g_assert_cmpuint(number(other, "index"), ==, 1);
    g_assert_cmpuint(length(other, "root-buses"), ==, 1);
    qobject_unref(other);
    qobject_unref(model);
    vt_free(vt);
}

static void on_a_transport(void)
{
    Vt *vt = vt_machine_microvm("-global virtio-mmio.force-legacy=off "
                                "-object rng-builtin,id=rng "
                                "-device virtio-iommu-mmio,id=iommu0,bus=virtio-mmio-bus.1 "
                                "-device virtio-rng-device,id=rng0,rng=rng,"
                                "bus=virtio-mmio-bus.3,iommu_platform=on");
    QDict *is = get_of(vt, "/machine/peripheral/iommu0", "instance");
    QDict *answer;

    g_assert_cmpstr(text(is, "transport"), ==, "mmio");
    g_assert_cmpstr(text(is, "device"), ==, "/machine/peripheral/iommu0");
    g_assert_cmphex(number(is, "base"), ==, 0xfeb00200);
    g_assert_cmpuint(length(is, "transports"), ==, 1);
    g_assert_cmphex(number(element(is, "transports", 0), "id"), ==, 0xffff0003);
    g_assert_cmphex(number(element(is, "transports", 0), "base"), ==, 0xfeb00600);
    g_assert_cmpstr(text(element(is, "transports", 0), "name"), ==, "rng0");
    qobject_unref(is);

    answer = qtest_qmp(vt->qts, "{'execute': 'qom-set', 'arguments': {"
                                "'path': '/machine/peripheral/iommu0', "
                                "'property': 'inspect', 'value': 'endpoints'}}");
    qobject_unref(answer);
    answer = get_of(vt, "/machine/peripheral/iommu0", "inspected");
    g_assert_cmpuint(length(answer, "endpoints"), ==, 1);
    is = element(answer, "endpoints", 0);
    g_assert_cmpstr(text(is, "device"), ==, "/machine/peripheral/rng0");
    g_assert_cmpstr(text(is, "type"), ==, "virtio-rng-device");
    g_assert_cmpstr(text(is, "root-bus"), ==, "main-system-bus");
    g_assert_cmpuint(length(is, "bridges"), ==, 0);
    g_assert_cmpuint(length(is, "members"), ==, 1);
    qobject_unref(answer);
    vt_free(vt);
}

/* ---- MOD-21 ---- */

static void endpoints_have_modes(void)
{
    Vt *vt = vt_new();
    QDict *answer, *one;

    assert_status(vt_attach(vt, 7, EDU0, 0), VS_OK);
    edu_to_ram(&vt->edu[0], IOVA + 0x123, 0, 1);
    answer = ask(vt, "endpoints");
    one = endpoint(answer, EDU0);
    g_assert_cmpstr(text(one, "device"), ==, "/machine/peripheral/edu0");
    g_assert_cmpstr(text(one, "type"), ==, "edu");
    g_assert_cmpstr(text(one, "root-bus"), ==, "pcie.0");
    g_assert_cmpstr(text(one, "mode"), ==, "translating");
    g_assert_false(qdict_get_bool(one, "bypasses"));
    g_assert_cmpuint(number(one, "domain"), ==, 7);
    /* QEMU cuts a transfer into accesses as it likes. */
    g_assert_cmpuint(number(one, "faults"), >, 0);
    g_assert_cmpuint(number(one, "faults-mapping"), ==, number(one, "faults"));
    g_assert_cmpuint(number(one, "faults-domain"), ==, 0);
    g_assert_cmpstr(text(qdict_get_qdict(one, "last-fault"), "reason"), ==, "mapping");
    g_assert_cmpstr(text(qdict_get_qdict(one, "last-fault"), "access"), ==, "w");
    g_assert_cmphex(number(qdict_get_qdict(one, "last-fault"), "address"), ==, IOVA + 0x123);
    one = endpoint(answer, EDU1);
    g_assert_cmpstr(text(one, "mode"), ==, "unattached");
    g_assert_true(qdict_get_bool(one, "bypasses"));
    g_assert_false(qdict_haskey(one, "domain"));
    g_assert_false(qdict_haskey(one, "last-fault"));
    g_assert_false(qdict_get_bool(answer, "more"));
    g_assert_false(qdict_haskey(answer, "next"));
    qobject_unref(answer);

    assert_status(vt_attach(vt, 8, EDU1, ATTACH_BYPASS), VS_OK);
    answer = ask(vt, "endpoints from=0x%x count=1", EDU1);
    one = element(answer, "endpoints", 0);
    g_assert_cmphex(number(one, "id"), ==, EDU1);
    g_assert_cmpstr(text(one, "mode"), ==, "bypass");
    g_assert_true(qdict_get_bool(one, "bypasses"));
    g_assert_true(qdict_get_bool(answer, "more"));
    g_assert_cmphex(number(answer, "next"), ==, 0xf8);
    qobject_unref(answer);

    /* The list that was there before says it as well. */
    vt_set_bypass(vt, 0);
    assert_status(vt_detach(vt, 7, EDU0), VS_OK);
    answer = qtest_qmp(vt->qts,
                       "{'execute': 'qom-get', 'arguments': {'path': %s, "
                       "'property': 'endpoints'}}",
                       BACKEND);
    for (unsigned i = 0; i < length(answer, "return"); i++) {
        one = element(answer, "return", i);
        g_assert_cmpstr(text(one, "mode"), ==, number(one, "id") == EDU1 ? "bypass" : "unattached");
        g_assert_true(qdict_get_bool(one, "bypasses") == (number(one, "id") == EDU1));
    }
    qobject_unref(answer);
    vt_free(vt);
}

/* Two functions behind a conventional bridge share the bridge's ID on q35. */
static void members_share_an_endpoint(void)
{
    Vt *vt = vt_boot("", "-device pcie-pci-bridge,id=br,addr=5.0 "
                         "-device " EDU_ARGS ",id=a,bus=br,addr=1.0 "
                         "-device " EDU_ARGS ",id=b,bus=br,addr=2.0");
    const uint16_t bridge = 0x28;
    QDict *answer, *one, *member;

    bridge_open(vt, bridge, 1, 1);
    vt_bring_up(vt, F_USUAL, true);
    assert_status(vt_attach(vt, 1, rid(1, 1, 0), 0), VS_OK);
    answer = ask(vt, "endpoints from=0x100");
    g_assert_cmpuint(length(answer, "endpoints"), ==, 1);
    one = element(answer, "endpoints", 0);
    g_assert_cmphex(number(one, "id"), ==, rid(1, 0, 0));
    g_assert_cmpstr(text(one, "device"), ==, "/machine/peripheral/br");
    g_assert_cmpuint(length(one, "bridges"), ==, 1);
    g_assert_cmpuint(length(one, "members"), ==, 2);
    for (unsigned i = 0; i < 2; i++) {
        bool first;

        member = element(one, "members", i);
        first = number(member, "id") == rid(1, 1, 0);
        g_assert_cmpstr(text(member, "device"), ==,
                        first ? "/machine/peripheral/a" : "/machine/peripheral/b");
        g_assert_true(qdict_get_bool(member, "attached") == first);
    }
    qobject_unref(answer);
    vt_free(vt);
}

static void endpoints_come_in_pages(void)
{
    GString *args = g_string_new("");
    unsigned seen = 0, pages = 0;
    uint64_t from = 0;
    int64_t last = -1;
    Vt *vt;

    /* 16 slots of 8 functions, more than one answer holds. */
    for (unsigned slot = 5; slot < 21; slot++) {
        for (unsigned fn = 0; fn < 8; fn++) {
            g_string_append_printf(args, "-device pci-testdev,addr=%x.%u%s ", slot, fn,
                                   fn ? "" : ",multifunction=on");
        }
    }
    vt = vt_new_with("", args->str);
    for (bool more = true; more; pages++) {
        QDict *answer = ask(vt, "endpoints from=%" PRIu64, from);

        g_assert_cmpuint(length(answer, "endpoints"), <=, 32);
        for (unsigned i = 0; i < length(answer, "endpoints"); i++, seen++) {
            int64_t id = number(element(answer, "endpoints", i), "id");

            g_assert_cmpint(id, >, last);
            last = id;
        }
        more = qdict_get_bool(answer, "more");
        from = more ? number(answer, "next") : 0;
        qobject_unref(answer);
    }
    g_assert_cmpuint(seen, >=, 128 + 2);
    g_assert_cmpuint(pages, ==, 5);
    g_string_free(args, true);
    vt_free(vt);
}

static void domains_have_types_and_members(void)
{
    Vt *vt = vt_new();
    QDict *answer, *one;

    assert_status(vt_attach(vt, 5, EDU0, 0), VS_OK);
    assert_status(vt_attach(vt, 0xfffffffe, EDU1, ATTACH_BYPASS), VS_OK);
    map_page(vt, 5, IOVA, page(0), MAP_RW);
    answer = ask(vt, "domains");
    g_assert_cmpuint(length(answer, "domains"), ==, 2);
    one = element(answer, "domains", 0);
    g_assert_cmpuint(number(one, "domain"), ==, 5);
    g_assert_cmpstr(text(one, "type"), ==, "paging");
    g_assert_cmpuint(number(one, "mappings"), ==, 1);
    g_assert_cmpuint(number(one, "endpoints"), ==, 1);
    g_assert_cmpuint(length(one, "members"), ==, 1);
    one = element(answer, "domains", 1);
    g_assert_cmpuint(number(one, "domain"), ==, 0xfffffffe);
    g_assert_cmpstr(text(one, "type"), ==, "bypass");
    g_assert_false(qdict_get_bool(answer, "more"));
    qobject_unref(answer);

    answer = ask(vt, "domains count=1");
    g_assert_true(qdict_get_bool(answer, "more"));
    g_assert_cmpuint(number(answer, "next"), ==, 6);
    qobject_unref(answer);
    vt_free(vt);
}

static void mappings_come_in_pages(void)
{
    Vt *vt = vt_new();
    unsigned seen = 0;
    uint64_t from = 0;
    QDict *answer, *one;

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    for (unsigned i = 0; i < 600; i++) {
        map_page(vt, 1, IOVA + i * 2 * PAGE, page(i), i % 2 ? MAP_READ : MAP_WRITE);
    }
    map_page(vt, 1, vt_config64(vt, CONFIG_INPUT_END) - PAGE + 1, page(0), MAP_RW | MAP_MMIO);
    for (bool more = true; more;) {
        answer = ask(vt, "mappings domain=1 from=0x%" PRIx64, from);
        g_assert_cmpuint(length(answer, "mappings"), <=, 128);
        for (unsigned i = 0; i < length(answer, "mappings"); i++, seen++) {
            one = element(answer, "mappings", i);
            if (seen == 600) {
                g_assert_cmphex(number(one, "last"), ==, vt_config64(vt, CONFIG_INPUT_END));
                g_assert_cmpstr(text(one, "rights"), ==, "rw");
                g_assert_cmphex(number(one, "flags"), ==, MAP_RW | MAP_MMIO);
                continue;
            }
            g_assert_cmphex(number(one, "first"), ==, IOVA + seen * 2 * PAGE);
            g_assert_cmphex(number(one, "last"), ==, IOVA + seen * 2 * PAGE + PAGE - 1);
            g_assert_cmphex(number(one, "phys"), ==, page(seen));
            g_assert_cmpstr(text(one, "rights"), ==, seen % 2 ? "r" : "w");
        }
        more = qdict_get_bool(answer, "more");
        from = more ? number(answer, "next") : 0;
        qobject_unref(answer);
    }
    g_assert_cmpuint(seen, ==, 601);
    vt_free(vt);
}

static QDict *try_answer(Vt *vt)
{
    return qtest_qmp(vt->qts,
                     "{'execute': 'qom-get', 'arguments': {'path': %s, "
                     "'property': 'inspected'}}",
                     BACKEND);
}

static void questions_that_make_no_sense(void)
{
    Vt *vt = vt_new();
    QDict *answer = get(vt, "inspected");

    g_assert_cmpstr(text(answer, "query"), ==, "");
    qobject_unref(answer);
    qobject_unref(ask(vt, "domains count=3"));
    assert_error(try_ask(vt, "everything"),
                 "inspect: 'everything' is neither endpoints, domains, mappings nor translate");
    assert_error(try_ask(vt, "mappings domain=1 count=129"),
                 "inspect: 'count=129' is no number from 1 to 128");
    answer = get(vt, "inspected");
    g_assert_cmpstr(text(answer, "query"), ==, "domains count=3");
    qobject_unref(answer);

    /* What there is not is said by the answer, for it may come. */
    qobject_unref(try_ask(vt, "mappings domain=3"));
    assert_error(try_answer(vt), "there is no domain 3");
    qobject_unref(try_ask(vt, "translate endpoint=0x10 address=0"));
    assert_error(try_answer(vt), "nobody behind this IOMMU has endpoint ID 0x10");
    assert_status(vt_attach(vt, 3, EDU0, 0), VS_OK);
    answer = ask(vt, "mappings domain=3");
    g_assert_cmpuint(length(answer, "mappings"), ==, 0);
    qobject_unref(answer);
    vt_assert_alive(vt);
    vt_free(vt);
}

/* Its functions bypass then, and it has nothing to say of them. */
static void a_device_that_was_taken_away(void)
{
    static const char *const refused[] = {"instance", "inspected"};
    Vt *vt = vt_new();
    QDict *answer;

    vt_set_bypass(vt, 0);
    g_assert_false(edu_write_lands(&vt->edu[0], page(0), page(0), 64));
    qobject_unref(ask(vt, "endpoints"));
    answer = qtest_qmp(vt->qts,
                       "{'execute': 'qom-set', 'arguments': {'path': %s, 'property': 'realized', "
                       "'value': false}}",
                       BACKEND);
    g_assert_true(qdict_haskey(answer, "return"));
    qobject_unref(answer);
    g_assert_true(edu_write_lands(&vt->edu[0], page(0), page(0), 64));
    for (unsigned i = 0; i < G_N_ELEMENTS(refused); i++) {
        assert_error(qtest_qmp(vt->qts,
                               "{'execute': 'qom-get', 'arguments': {'path': %s, 'property': %s}}",
                               BACKEND, refused[i]),
                     "the device is not realized");
    }
    answer = qtest_qmp(vt->qts,
                       "{'execute': 'qom-get', 'arguments': {'path': %s, 'property': 'endpoints'}}",
                       BACKEND);
    g_assert_cmpuint(length(answer, "return"), ==, 0);
    qobject_unref(answer);
    qobject_unref(get(vt, "stats"));
    qobject_unref(get(vt, "model"));
    vt_free(vt);
}

/* ---- MOD-22 ---- */

static void translations_that_are_no_accesses(void)
{
    Vt *vt = vt_new();
    QDict *answer;
    int64_t translations, faults, remembered;

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    map_page(vt, 1, IOVA, page(9), MAP_READ);
    vt_post_events(vt, 4, FAULT_RECORD_SIZE);
    translations = vt_counter(vt, "translations");
    faults = vt_counter(vt, "faults");
    remembered = vt_counter(vt, "remembered");

    answer = ask(vt, "translate endpoint=0x%x address=0x%" PRIx64, EDU0, (uint64_t)IOVA + 0x10);
    g_assert_cmpstr(text(answer, "found"), ==, "mapping");
    g_assert_cmpstr(text(answer, "mode"), ==, "translating");
    g_assert_cmpstr(text(answer, "rights"), ==, "r");
    g_assert_cmphex(number(answer, "phys"), ==, page(9) + 0x10);
    g_assert_cmphex(number(answer, "first"), ==, IOVA);
    g_assert_cmphex(number(answer, "last"), ==, IOVA + PAGE - 1);
    g_assert_cmpuint(number(answer, "domain"), ==, 1);
    qobject_unref(answer);
    answer = ask(vt, "translate endpoint=0x%x address=0x%llx", EDU0, IOVA + PAGE);
    g_assert_cmpstr(text(answer, "found"), ==, "unmapped");
    g_assert_cmpstr(text(answer, "rights"), ==, "none");
    g_assert_false(qdict_haskey(answer, "phys"));
    qobject_unref(answer);
    answer = ask(vt, "translate endpoint=0x%x address=0x%x", EDU0, (unsigned)MSI_START);
    g_assert_cmpstr(text(answer, "found"), ==, "msi");
    qobject_unref(answer);
    answer = ask(vt, "translate endpoint=0x%x address=0x1000", EDU1);
    g_assert_cmpstr(text(answer, "found"), ==, "bypass");
    g_assert_cmphex(number(answer, "last"), ==, UINT64_MAX);
    qobject_unref(answer);

    vt_settle(vt);
    g_assert_cmpuint(vt_drain_faults(vt), ==, 0);
    g_assert_cmpint(vt_counter(vt, "translations"), ==, translations);
    g_assert_cmpint(vt_counter(vt, "faults"), ==, faults);
    g_assert_cmpint(vt_counter(vt, "remembered"), ==, remembered);
    vt_free(vt);
}

/* ---- MOD-23 ---- */

static uint64_t counted(const QDict *stats, const char *type, const char *status)
{
    for (unsigned i = 0; i < length(stats, "requests-by-status"); i++) {
        QDict *one = element(stats, "requests-by-status", i);

        if (!strcmp(text(one, "type"), type) && !strcmp(text(one, "status"), status)) {
            return number(one, "count");
        }
    }
    return 0;
}

static void counters_by_type_and_reason(void)
{
    Vt *vt = vt_new_with("boot-bypass=off", "");
    Request unknown = {.bytes = {9}, .len = 8};
    Reply reply;
    QDict *stats;
    uint64_t before;

    edu_to_ram(&vt->edu[0], IOVA, 0, 8);
    stats = get(vt, "stats");
    before = number(stats, "faults-domain");
    g_assert_cmpuint(before, >, 0);
    g_assert_cmpuint(number(stats, "faults"), ==, before);
    qobject_unref(stats);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    edu_to_ram(&vt->edu[0], IOVA, 0, 8);
    assert_status(vt_map(vt, 1, 1, 2, 0, MAP_RW), VS_RANGE);
    assert_status(vt_map(vt, 1, 1, 2, 0, MAP_RW), VS_RANGE);
    reply = vt_send(vt, &unknown, 4);
    g_assert_true(reply_unwritten(&reply));
    reply_free(&reply);

    stats = get(vt, "stats");
    g_assert_cmpuint(counted(stats, "attach", "OK"), ==, 1);
    g_assert_cmpuint(counted(stats, "map", "RANGE"), ==, 2);
    g_assert_cmpuint(counted(stats, "unknown", "unanswered"), ==, 1);
    g_assert_cmpuint(length(stats, "requests-by-status"), ==, 3);
    g_assert_cmpuint(number(stats, "requests"), ==, 4);
    g_assert_cmpuint(number(stats, "faults-domain"), ==, before);
    g_assert_cmpuint(number(stats, "faults-mapping"), >, 0);
    g_assert_cmpuint(number(stats, "faults-mapping") + before, ==, number(stats, "faults"));
    qobject_unref(stats);
    vt_free(vt);
}

static const Case cases[] = {
    {"MOD-20/instance-says-what-it-is", instance_says_what_it_is},
    {"MOD-20/model-is-the-machine", model_is_the_machine},
    {"MOD-20/on-a-transport", on_a_transport},
    {"MOD-21/endpoints-have-modes", endpoints_have_modes},
    {"MOD-21/members-share-an-endpoint", members_share_an_endpoint},
    {"MOD-21/endpoints-come-in-pages", endpoints_come_in_pages},
    {"MOD-21/domains-have-types-and-members", domains_have_types_and_members},
    {"MOD-21/mappings-come-in-pages", mappings_come_in_pages},
    {"MOD-21/questions-that-make-no-sense", questions_that_make_no_sense},
    {"MOD-21/a-device-that-was-taken-away", a_device_that_was_taken_away},
    {"MOD-22/translations-that-are-no-accesses", translations_that_are_no_accesses},
    {"MOD-23/counters-by-type-and-reason", counters_by_type_and_reason},
};

VT_MAIN(cases)
