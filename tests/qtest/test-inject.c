/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Faults that are made on request. */
#include "viommu_test.h"

#include "qobject/qdict.h"
#include "qobject/qlist.h"

#define IOVA 0x40000000ull
#define BACKEND "/machine/peripheral/iommu0/virtio-backend"

static QDict *try_inject(Vt *vt, const char *what)
{
    return qtest_qmp(vt->qts,
                     "{'execute': 'qom-set', 'arguments': {'path': %s, 'property': 'inject', "
                     "'value': %s}}",
                     BACKEND, what);
}

static void inject(Vt *vt, const char *what)
{
    QDict *reply = try_inject(vt, what);

    g_assert_true(qdict_haskey(reply, "return"));
    qobject_unref(reply);
}

static void assert_not_injected(Vt *vt, const char *what, const char *sentence)
{
    QDict *reply = try_inject(vt, what);

    g_assert_cmpstr(qdict_get_str(qdict_get_qdict(reply, "error"), "desc"), ==, sentence);
    qobject_unref(reply);
}

/* How many requests of the only type that is armed, and accesses of the only endpoint, are left. */
static void assert_left(Vt *vt, int64_t requests, int64_t accesses)
{
    QDict *armed = qtest_qmp_assert_success_ref(
        vt->qts, "{'execute': 'qom-get', 'arguments': {'path': %s, 'property': 'injected'}}",
        BACKEND);
    const struct {
        const char *name;
        int64_t left;
    } rows[] = {{"requests", requests}, {"accesses", accesses}};

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        QList *list = qdict_get_qlist(armed, rows[i].name);

        g_assert_cmpuint(qlist_size(list), ==, rows[i].left ? 1 : 0);
        if (rows[i].left) {
            QDict *one = qobject_to(QDict, qlist_peek(list));

            g_assert_cmpint(qdict_get_int(one, "left"), ==, rows[i].left);
        }
    }
    qobject_unref(armed);
}

static Vt *machine(void)
{
    return vt_new_with("fault-injection=on", "");
}

static void off_unless_asked_for(void)
{
    static const char *const commands[] = {
        "nothing",
        "requests type=map status=NOMEM",
        "accesses endpoint=0x18",
        "record endpoint=0x18 address=0x1000",
    };
    Vt *vt = vt_new();

    vt_post_events(vt, 1, FAULT_RECORD_SIZE);
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        assert_not_injected(vt, commands[i],
                            "inject: the device was not made for it: fault-injection=off");
    }
    assert_left(vt, 0, 0);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(0), MAP_RW), VS_OK);
    g_assert_true(edu_write_lands(&vt->edu[0], IOVA, page(0), 64));
    g_assert_cmpuint(vt_drain_faults(vt), ==, 0);
    vt_free(vt);
}

static void what_makes_no_sense(void)
{
    Vt *vt = machine();

    inject(vt, "requests type=map status=NOMEM count=5");
    assert_not_injected(vt, "everything",
                        "inject: 'everything' is neither requests, accesses, record nor nothing");
    assert_not_injected(vt, "requests type=map status=OK",
                        "inject: 'status=OK' is none of IOERR, UNSUPP, DEVERR, INVAL, RANGE, NOENT, "
                        "FAULT, NOMEM");
    assert_not_injected(vt, "accesses endpoint=0x10",
                        "inject: nobody here has endpoint ID 0x10");
    assert_left(vt, 5, 0);
    vt_free(vt);
}

static void requests_fail(void)
{
    Vt *vt = machine();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    inject(vt, "requests type=map status=NOMEM count=2");
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(0), MAP_RW), VS_NOMEM);
    assert_left(vt, 1, 0);
    g_assert_false(edu_write_lands(&vt->edu[0], IOVA, page(0), 64));
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(0), MAP_RW), VS_NOMEM);
    assert_left(vt, 0, 0);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(0), MAP_RW), VS_OK);
    inject(vt, "requests type=unmap status=DEVERR");
    assert_status(vt_unmap(vt, 1, IOVA, IOVA + PAGE - 1), VS_DEVERR);
    g_assert_true(edu_write_lands(&vt->edu[0], IOVA, page(0), 64));
    vt_free(vt);
}

static void accesses_fail(void)
{
    Vt *vt = machine();
    Fault fault;

    vt_post_events(vt, 4, FAULT_RECORD_SIZE);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(0), MAP_RW), VS_OK);
    g_assert_true(edu_write_lands(&vt->edu[0], IOVA, page(0), 64));
    inject(vt, "accesses endpoint=0x18 count=1000000 reason=domain");
    g_assert_true(edu_write_lands(&vt->edu[1], IOVA, page(0), 64));
    g_assert_false(edu_write_lands(&vt->edu[0], IOVA, page(0), 64));
    fault = vt_wait_fault(vt);
    g_assert_cmphex(fault.endpoint, ==, EDU0);
    g_assert_cmpuint(fault.reason, ==, FAULT_DOMAIN);
    g_assert_cmphex(fault.address, ==, IOVA);
    inject(vt, "nothing");
    assert_left(vt, 0, 0);
    g_assert_true(edu_write_lands(&vt->edu[0], IOVA, page(0), 64));
    vt_free(vt);
}

static void resets_leave_it(void)
{
    Vt *vt = machine();

    inject(vt, "requests type=attach status=NOENT");
    inject(vt, "accesses endpoint=0x20 count=7");
    vt_system_reset(vt);
    assert_left(vt, 1, 7);
    vt_bring_up(vt, F_USUAL, true);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_NOENT);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    vt_free(vt);
}

static void records_are_reported(void)
{
    Vt *vt = machine();
    Fault fault;

    vt_post_events(vt, 4, FAULT_RECORD_SIZE);
    inject(vt, "record endpoint=0x18 address=0x123456789abc reason=mapping access=rw");
    fault = vt_wait_fault(vt);
    g_assert_cmpuint(fault.reason, ==, FAULT_MAPPING);
    g_assert_cmphex(fault.flags, ==, FAULT_F_READ | FAULT_F_WRITE | FAULT_F_ADDRESS);
    g_assert_cmphex(fault.endpoint, ==, EDU0);
    g_assert_cmphex(fault.address, ==, 0x123456789abcull);
    g_assert_cmpint(vt_counter(vt, "faults"), ==, 0);
    virtio_reset(&vt->iommu);
    assert_not_injected(vt, "record endpoint=0x18 address=0",
                        "inject: the record is dropped: no driver is there, one of this page waits "
                        "already, or too many do");
    vt_free(vt);
}

static const Case cases[] = {
    {"MOD-24/off-unless-asked-for", off_unless_asked_for},
    {"MOD-24/what-makes-no-sense", what_makes_no_sense},
    {"MOD-25/requests-fail", requests_fail},
    {"MOD-26/accesses-fail", accesses_fail},
    {"MOD-26/resets-leave-it", resets_leave_it},
    {"MOD-27/records-are-reported", records_are_reported},
};

VT_MAIN(cases)
