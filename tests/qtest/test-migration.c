/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a guest set up goes with it: to another QEMU, and back to a snapshot.
 * Streams and images live in memory files, so nothing is left of them. */
#define _GNU_SOURCE /* memfd_create, memmem */
#include "viommu_test.h"

#include <sys/mman.h>

#include "qobject/qdict.h"
#include "qobject/qlist.h"

#define EDU2 0x0028u /* 00:05.0 */
#define PORT 0x0030u /* 00:06.0 */
#define PORT_ARGS                                                                                  \
    "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off "                                   \
    "-device pcie-root-port,id=rp,chassis=1,addr=6.0 "
#define SLTCTL 0x18u
#define SLTCTL_POWER_OFF 0x0700u
#define EDU2_ARGS "-device " EDU_ARGS ",id=edu2,addr=5.0 "

/* Bytes that occur nowhere else in a stream. */
#define DOMAIN 0x1d2c3b4au
#define BYPASS_DOMAIN 0x5e6f7a8bu
#define IOVA 0x123456000ull
#define IOVA_RO 0x223456000ull

typedef struct File {
    int fd;
    char *path;
    char *uri;
} File;

static File file_new(void)
{
    File file = {.fd = memfd_create("viommu-test", 0)};

    g_assert_cmpint(file.fd, >=, 0);
    file.path = g_strdup_printf("/proc/%d/fd/%d", getpid(), file.fd);
    file.uri = g_strconcat("file:", file.path, NULL);
    return file;
}

static GByteArray *file_read(const File *file)
{
    GByteArray *bytes = g_byte_array_new();
    off_t size = lseek(file->fd, 0, SEEK_END);

    g_byte_array_set_size(bytes, (unsigned)size);
    g_assert_cmpint(pread(file->fd, bytes->data, (size_t)size, 0), ==, size);
    return bytes;
}

static void file_write(const File *file, const void *data, size_t size, size_t offset)
{
    g_assert_cmpint(pwrite(file->fd, data, size, (off_t)offset), ==, (gssize)size);
}

static void file_free(File *file)
{
    close(file->fd);
    g_free(file->path);
    g_free(file->uri);
}

/* The place of the one occurrence of `needle` in `hay`. */
static size_t find(const GByteArray *hay, const void *needle, size_t size)
{
    const uint8_t *at = memmem(hay->data, hay->len, needle, size);
    size_t offset;

    g_assert_nonnull(at);
    offset = (size_t)(at - hay->data);
    g_assert_null(memmem(at + 1, hay->len - offset - 1, needle, size));
    return offset;
}

/* ------------------------------------------------------------------ */
/* Two machines and the way between them                               */

static const char *human(Vt *vt, const char *command)
{
    static char *output;

    g_free(output);
    output = qtest_hmp(vt->qts, "%s", command);
    return output;
}

/* Who is in which domain, as one text. */
static char *attachments(Vt *vt)
{
    QDict *reply = qtest_qmp(
        vt->qts, "{'execute': 'qom-get', 'arguments': {"
                 "'path': '/machine/peripheral/iommu0/virtio-backend', 'property': 'endpoints'}}");
    GString *text = g_string_new(NULL);
    QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(reply, "return"), entry)
    {
        QDict *e = qobject_to(QDict, qlist_entry_obj(entry));

        if (qdict_get_bool(e, "attached")) {
            g_string_append_printf(text, "0x%" PRIx64 " in 0x%" PRIx64 "%s; ",
                                   qdict_get_int(e, "id"), qdict_get_int(e, "domain"),
                                   qdict_get_bool(e, "bypass") ? " (bypass)" : "");
        }
    }
    qobject_unref(reply);
    return g_string_free(text, false);
}

static void assert_attachments(Vt *vt, const char *want)
{
    g_autofree char *got = attachments(vt);

    g_assert_cmpstr(got, ==, want);
}

/* False if it failed. */
static bool migration_ends(QTestState *qts)
{
    for (unsigned i = 0;; i++) {
        QDict *reply = qtest_qmp_assert_success_ref(qts, "{'execute': 'query-migrate'}");
        const char *status = qdict_get_try_str(reply, "status");
        bool done = g_strcmp0(status, "completed") == 0, failed = g_strcmp0(status, "failed") == 0;

        qobject_unref(reply);
        if (done || failed) {
            return done;
        }
        g_assert_cmpuint(i, <, 2000);
        g_usleep(5000);
    }
}

/* Stops the machine and writes its state to a file. */
static File leave(Vt *vt)
{
    File file = file_new();

    qtest_qmp_assert_success(vt->qts, "{'execute': 'stop'}");
    qtest_qmp_assert_success(vt->qts, "{'execute': 'migrate', 'arguments': {'uri': %s}}", file.uri);
    g_assert_true(migration_ends(vt->qts));
    return file;
}

#define IOMMU "virtio-iommu-pci,id=iommu0,addr=2.0"
#define MACHINE "-device %s -device " EDU_ARGS ",id=edu0,addr=3.0 %s"
#define EDU1_ARGS "-device " EDU_ARGS ",id=edu1,addr=4.0 "

/* An edu keeps nothing of its own, not even its place, across a migration. */
static void edus_again(Vt *vt, Edu *edu2)
{
    edu_init(vt, &vt->edu[0], EDU0, false);
    edu_init(vt, &vt->edu[1], EDU1, false);
    edu_init(vt, edu2, EDU2, false);
}

/* The machine that `from` was, in a new QEMU; the driver goes on where it was. */
static Vt *arrive(const Vt *from, const File *file, const char *iommu, const char *more)
{
    Vt *vt = vt_machine(MACHINE "-incoming %s", iommu, more, file->uri);
    QTestState *qts = vt->qts;

    g_assert_true(migration_ends(qts));
    *vt = *from;
    vt->qts = qts;
    vt->iommu.vt = vt;
    vt->req.dev = &vt->iommu;
    vt->evt.dev = &vt->iommu;
    qtest_qmp_assert_success(qts, "{'execute': 'cont'}");
    return vt;
}

/* EDU0 translated, EDU1 in a bypass domain, EDU2 in none; bypass is off. */
static void set_up(Vt *vt)
{
    vt_attach_with_mailbox(vt, DOMAIN, EDU0);
    assert_status(vt_map(vt, DOMAIN, IOVA, IOVA + 2 * PAGE - 1, page(10), MAP_RW), VS_OK);
    assert_status(vt_map(vt, DOMAIN, IOVA_RO, IOVA_RO + PAGE - 1, page(20), MAP_READ), VS_OK);
    assert_status(vt_attach(vt, BYPASS_DOMAIN, EDU1, ATTACH_BYPASS), VS_OK);
    vt_set_bypass(vt, 0);
}

static Vt *source(Edu *edu2)
{
    Vt *vt = vt_new_with("", EDU2_ARGS);

    edu_init(vt, edu2, EDU2, true);
    set_up(vt);
    return vt;
}

#define ATTACHMENTS "0x18 in 0x1d2c3b4a; 0x20 in 0x5e6f7a8b (bypass); "

static void check(Vt *vt, Edu *edu2)
{
    assert_attachments(vt, ATTACHMENTS);
    g_assert_cmpint(vt_counter(vt, "domains"), ==, 2);
    g_assert_cmpint(vt_counter(vt, "mappings"), ==, 3);
    g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, 0);

    edu_prime(&vt->edu[0]);
    edu_prime(&vt->edu[1]);
    g_assert_true(edu_write_lands(&vt->edu[0], IOVA + 0x800, page(10) + 0x800, 2048));
    g_assert_true(edu_write_lands(&vt->edu[0], IOVA + PAGE, page(11), 64));
    g_assert_false(edu_write_lands(&vt->edu[0], IOVA + 2 * PAGE, page(12), 64));
    g_assert_true(edu_read_sees(&vt->edu[0], IOVA_RO, page(20), 64));
    g_assert_false(edu_write_lands(&vt->edu[0], IOVA_RO, page(20), 64));
    g_assert_false(edu_write_lands(&vt->edu[0], page(10), page(10), 64));
    g_assert_true(edu_write_lands(&vt->edu[1], page(10), page(10), 64));
    g_assert_false(edu_write_lands(&vt->edu[1], IOVA, page(10), 64));
    g_assert_false(edu_write_lands(edu2, page(10), page(10), 64));
}

/* ------------------------------------------------------------------ */
/* To another QEMU                                                     */

static void state_goes_along(void)
{
    Edu edu2;
    Vt *from = source(&edu2), *vt;
    File file = leave(from);

    vt = arrive(from, &file, IOMMU, EDU1_ARGS EDU2_ARGS);
    vt_free(from);
    edus_again(vt, &edu2);
    check(vt, &edu2);
    file_free(&file);
    vt_free(vt);
}

/* What the driver set up before it left works on: queues, event buffers. */
static void driver_goes_on(void)
{
    Edu edu2;
    Vt *from = source(&edu2), *vt;
    Fault fault;
    File file;

    vt_post_events(from, 4, FAULT_RECORD_SIZE);
    file = leave(from);
    vt = arrive(from, &file, IOMMU, EDU1_ARGS EDU2_ARGS);
    vt_free(from);
    edus_again(vt, &edu2);

    edu_to_ram(&vt->edu[0], IOVA_RO + 0x40, 0, 8);
    fault = vt_wait_fault(vt);
    g_assert_cmpuint(fault.reason, ==, FAULT_MAPPING);
    g_assert_cmphex(fault.endpoint, ==, EDU0);
    g_assert_cmphex(fault.address, ==, IOVA_RO + 0x40);

    assert_status(vt_map(vt, DOMAIN, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_unmap(vt, DOMAIN, IOVA, IOVA + 2 * PAGE - 1), VS_OK);
    assert_status(vt_map(vt, DOMAIN, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
    edu_prime(&vt->edu[0]);
    g_assert_true(edu_write_lands(&vt->edu[0], IOVA, page(1), 64));
    assert_status(vt_map(vt, BYPASS_DOMAIN, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_INVAL);
    assert_status(vt_detach(vt, DOMAIN, EDU0), VS_OK);
    assert_status(vt_attach(vt, DOMAIN, EDU0, 0), VS_OK);
    g_assert_false(edu_write_lands(&vt->edu[0], IOVA, page(1), 64));
    file_free(&file);
    vt_free(vt);
}

/* A request that the source was kicked for, but did not take any more. */
static void request_under_way_is_served(void)
{
    Edu edu2;
    Vt *from = source(&edu2), *vt;
    Request req = req_map(DOMAIN, 0x40000000, 0x40000000 + PAGE - 1, page(30), MAP_RW);
    uint64_t in = vt_alloc(from, req.len), out = vt_alloc(from, 4);
    Seg segs[] = {{in, req.len, false}, {out, 4, true}};
    uint32_t len;
    File file;

    qtest_qmp_assert_success(from->qts, "{'execute': 'stop'}");
    qtest_memwrite(from->qts, in, req.bytes, req.len);
    qtest_memset(from->qts, out, UNWRITTEN, 4);
    queue_add(&from->req, segs, 2);
    queue_kick(&from->req);
    vt_settle(from);
    g_assert_cmpuint(queue_device_used_idx(&from->req), ==, from->req.used_idx);
    file = leave(from);
    vt = arrive(from, &file, IOMMU, EDU1_ARGS EDU2_ARGS);
    vt_free(from);
    queue_wait(&vt->req, &len);
    g_assert_cmpuint(len, ==, 4);
    assert_status(qtest_readb(vt->qts, out), VS_OK);
    edus_again(vt, &edu2);
    edu_prime(&vt->edu[0]);
    g_assert_true(edu_write_lands(&vt->edu[0], 0x40000000, page(30), 64));
    file_free(&file);
    vt_free(vt);
}

/* The target's own `boot-bypass` counts again only after a system reset. */
static void bypass_goes_along(void)
{
    for (unsigned bypass = 0; bypass < 2; bypass++) {
        const char *other = bypass ? IOMMU ",boot-bypass=off" : IOMMU;
        Vt *from = vt_new_with("", EDU2_ARGS), *vt;
        Edu edu2;
        File file;

        edu_init(from, &edu2, EDU2, true);
        vt_set_bypass(from, (uint8_t)bypass);
        file = leave(from);
        vt = arrive(from, &file, other, EDU1_ARGS EDU2_ARGS);
        vt_free(from);
        g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, bypass);
        edus_again(vt, &edu2);
        if (bypass) {
            edu_prime(&vt->edu[0]);
        }
        g_assert_cmpint(edu_write_lands(&vt->edu[0], page(1), page(1), 64), ==, bypass);
        vt_system_reset(vt);
        g_assert_cmpuint(vt_config8(vt, CONFIG_BYPASS), ==, !bypass);
        file_free(&file);
        vt_free(vt);
    }
}

/* The copy of the config space in a stream may be older than the state: a write
 * to another byte must not bring its `bypass` back. */
static void stale_config_in_the_stream(void)
{
    Edu edu2;
    Vt *from = source(&edu2), *vt;
    /* Up to the last byte that a search for them needs: it is not 0. */
    uint8_t config[CONFIG_INPUT_END + 1];
    uint8_t stale = 1;
    File file;
    GByteArray *stream;

    for (unsigned i = 0; i < sizeof(config); i++) {
        config[i] = vt_config8(from, i);
    }
    file = leave(from);
    stream = file_read(&file);
    file_write(&file, &stale, 1, find(stream, config, sizeof(config)) + CONFIG_BYPASS);
    vt = arrive(from, &file, IOMMU, EDU1_ARGS EDU2_ARGS);
    vt_free(from);
    /* Before a read: that would refresh the copy. */
    qtest_writeb(vt->qts, vt->iommu.device + CONFIG_PAGE_SIZE_MASK, 0xff);
    edus_again(vt, &edu2);
    check(vt, &edu2);
    g_byte_array_unref(stream);
    file_free(&file);
    vt_free(vt);
}

/* Over and over: nothing is lost and nothing left on the way. */
static void there_and_back(void)
{
    Edu edu2;
    Vt *vt = source(&edu2);

    for (unsigned i = 0; i < 4; i++) {
        Vt *from = vt;
        File file = leave(from);

        vt = arrive(from, &file, IOMMU, EDU1_ARGS EDU2_ARGS);
        vt_free(from);
        file_free(&file);
        assert_attachments(vt, ATTACHMENTS);
    }
    edus_again(vt, &edu2);
    check(vt, &edu2);
    vt_free(vt);
}

/* ------------------------------------------------------------------ */
/* Targets that do not fit                                             */

/* QEMU ends with 1 and says once why. */
static void assert_load_fails(const File *file, const char *iommu, const char *more,
                              const char *why)
{
    Run run = qemu_run("-accel qtest -nodefaults -m 128 -machine q35 " MACHINE "-incoming %s",
                       iommu, more, file->uri);
    unsigned ours = 0;

    g_test_message("stderr: %s", run.err);
    g_assert_true(WIFEXITED(run.status));
    g_assert_cmpint(WEXITSTATUS(run.status), ==, 1);
    for (const char *p = run.err; (p = strstr(p, "virtio-iommu: ")); p++) {
        ours++;
    }
    if (why) {
        g_assert_cmpuint(ours, ==, 1);
        g_assert_nonnull(strstr(run.err, why));
    }
    run_free(&run);
}

static void endpoint_is_missing(void)
{
    Edu edu2;
    Vt *from = source(&edu2);
    File file = leave(from);

    assert_load_fails(&file, IOMMU, EDU2_ARGS, "does not fit this machine");
    file_free(&file);
    vt_free(from);
}

/* Whoever is attached there is nobody here; one that was in no domain may be left out. */
static void endpoint_is_left_out(void)
{
    Edu edu2;
    Vt *from = source(&edu2), *vt;
    File file = leave(from);

    assert_load_fails(&file, IOMMU ",leave-out=edu1", EDU1_ARGS EDU2_ARGS,
                      "does not fit this machine");
    vt = arrive(from, &file, IOMMU ",leave-out=edu2", EDU1_ARGS EDU2_ARGS);
    vt_free(from);
    file_free(&file);
    edus_again(vt, &edu2);
    assert_attachments(vt, ATTACHMENTS);
    edu_prime(&edu2);
    g_assert_true(edu_write_lands(&edu2, page(10), page(10), 64));
    assert_status(vt_attach(vt, DOMAIN, EDU2, 0), VS_NOENT);

    /* It stays so when it goes on to one where it is managed, and the driver may have it then. */
    from = vt;
    file = leave(from);
    vt = arrive(from, &file, IOMMU, EDU1_ARGS EDU2_ARGS);
    vt_free(from);
    file_free(&file);
    edus_again(vt, &edu2);
    check(vt, &edu2);
    assert_status(vt_attach(vt, DOMAIN, EDU2, 0), VS_OK);
    vt_free(vt);
}

static void target_differs(void)
{
    Edu edu2;
    Vt *from = source(&edu2);
    File file = leave(from);
    const char *rest = EDU1_ARGS EDU2_ARGS;

    assert_load_fails(&file, IOMMU ",granule=64k", rest, "impossible mapping");
    assert_load_fails(&file, IOMMU ",aw-bits=32", rest,
                      "impossible mapping, which ends where aw-bits=33 would be needed");
    assert_load_fails(&file, IOMMU ",max-mappings=2", rest, "too many");
    assert_load_fails(&file, IOMMU ",max-domains=1", rest, "too many");
    assert_load_fails(&file, IOMMU ",max-memory=1000", rest, "max-memory");
    assert_load_fails(&file,
                      "'{\"driver\":\"virtio-iommu-pci\",\"addr\":\"2.0\","
                      "\"reserved-regions\":[\"0x123456000:0x123456fff:0\"]}'",
                      rest, "reserved region");
    file_free(&file);
    vt_free(from);
}

/* Its attachment ended with it, so the target need not have it. */
static void endpoint_unplugged_before(void)
{
    Vt *from = vt_new_with("", PORT_ARGS "-device " EDU_ARGS ",id=hot,bus=rp "), *vt;
    unsigned cap = pci_find_cap(from, PORT, 0x10, 0);
    File file;

    bridge_open(from, PORT, 1, 1);
    assert_status(vt_attach(from, DOMAIN, rid(1, 0, 0), 0), VS_OK);
    assert_attachments(from, "0x100 in 0x1d2c3b4a; ");
    qtest_qmp_device_del_send(from->qts, "hot");
    pci_write16(from, PORT, cap + SLTCTL, SLTCTL_POWER_OFF);
    qtest_qmp_eventwait(from->qts, "DEVICE_DELETED");
    file = leave(from);
    vt = arrive(from, &file, IOMMU, EDU1_ARGS PORT_ARGS);
    vt_free(from);
    assert_attachments(vt, "");
    g_assert_cmpint(vt_counter(vt, "domains"), ==, 0);
    vt_assert_alive(vt);
    file_free(&file);
    vt_free(vt);
}

/* ------------------------------------------------------------------ */
/* Streams that are not what a device wrote                            */

typedef struct Span {
    size_t begin;
    size_t end;
} Span;

/* Where the stream has the section of the IOMMU. */
static Span find_section(const GByteArray *stream)
{
    static const char name[] = "\x19"
                               "0000:00:02.0/virtio-iommu";
    size_t at = find(stream, name, sizeof(name) - 1);
    const uint8_t *id = stream->data + at - 4, *end;
    uint8_t footer[5] = {0x7e};

    memcpy(footer + 1, id, 4);
    end = memmem(stream->data + at, stream->len - at, footer, sizeof(footer));
    g_assert_nonnull(end);
    return (Span){at + sizeof(name) - 1 + 8, (size_t)(end - stream->data)};
}

/* Where it has the engine's state: counts, domains, mappings, attachments. */
static Span find_state(const GByteArray *stream)
{
    uint8_t key[8];
    size_t at;

    stq_be_p(key, DOMAIN);
    at = find(stream, key, sizeof(key)) - 5;
    /* Two domains, three mappings, two endpoints, `bypass`. */
    return (Span){at,
                  at + 4 + 2 * (1 + 8 + 4 + 4 + 1 + 1 + 1) + 3 * (1 + 28) + 2 * (1 + 4) + 1 + 1};
}

static void truncated_streams(void)
{
    Edu edu2;
    Vt *from = source(&edu2);
    File file = leave(from);
    GByteArray *stream = file_read(&file);
    Span section = find_section(stream), state = find_state(stream);
    size_t step = (state.end - state.begin) / 5;

    g_assert_true(section.begin < state.begin && state.end <= section.end);
    for (size_t cut = state.end - 1; cut > state.begin - step; cut -= step) {
        g_assert_cmpint(ftruncate(file.fd, (off_t)cut), ==, 0);
        assert_load_fails(&file, IOMMU, EDU1_ARGS EDU2_ARGS, NULL);
    }
    g_byte_array_unref(stream);
    file_free(&file);
    vt_free(from);
}

typedef struct Snapshot {
    Vt *vt;
    Edu edu2;
    File image;
    GByteArray *bytes;
} Snapshot;

static Snapshot snapshot_new(void)
{
    Snapshot s = {.image = file_new()};
    const char *qemu = g_getenv("QTEST_QEMU_BINARY");
    g_autofree char *folder = g_path_get_dirname(qemu);
    g_autofree char *tool = g_build_filename(folder, "qemu-img", NULL);
    const char *argv[] = {tool, "create",          "-q",         "-f", "qcow2",
                          "-o", "cluster_size=2M", s.image.path, "1M", NULL};
    g_autofree char *args = NULL;
    int status;

    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, NULL, NULL,
                               &status, NULL));
    g_assert_cmpint(status, ==, 0);
    /* Little memory makes for short snapshots. */
    args = g_strdup_printf("-m 32 " EDU2_ARGS
                           "-blockdev qcow2,node-name=image,file.driver=file,file.filename=%s ",
                           s.image.path);
    s.vt = vt_new_with("", args);
    edu_init(s.vt, &s.edu2, EDU2, true);
    return s;
}

static void snapshot_take(Snapshot *s)
{
    g_assert_cmpstr(human(s->vt, "savevm one"), ==, "");
    s->bytes = file_read(&s->image);
}

/* What QEMU had to say; empty if it is the machine of the snapshot now. */
static const char *snapshot_load(Snapshot *s)
{
    return human(s->vt, "loadvm one");
}

static void snapshot_free(Snapshot *s)
{
    vt_free(s->vt);
    file_free(&s->image);
    if (s->bytes) {
        g_byte_array_unref(s->bytes);
    }
}

/* All that happened since is undone. */
static void snapshot_comes_back(void)
{
    Snapshot s = snapshot_new();
    Vt then;

    set_up(s.vt);
    snapshot_take(&s);
    then = *s.vt;

    vt_set_bypass(s.vt, 1);
    assert_status(vt_unmap(s.vt, DOMAIN, 0, UINT64_MAX), VS_OK);
    assert_status(vt_map(s.vt, DOMAIN, IOVA, IOVA + PAGE - 1, page(40), MAP_RW), VS_OK);
    assert_status(vt_attach(s.vt, DOMAIN, EDU1, 0), VS_OK);
    assert_status(vt_attach(s.vt, 3, EDU2, 0), VS_OK);
    assert_status(vt_map(s.vt, 3, IOVA, IOVA + PAGE - 1, page(41), MAP_RW), VS_OK);

    g_assert_cmpstr(snapshot_load(&s), ==, "");
    then.qts = s.vt->qts;
    memcpy(then.next_bar, s.vt->next_bar, sizeof(then.next_bar));
    *s.vt = then;
    edus_again(s.vt, &s.edu2);
    check(s.vt, &s.edu2);
    /* The driver's ring is where it was then, too. */
    vt_assert_alive(s.vt);
    snapshot_free(&s);
}

/* A snapshot from before the driver came undoes everything. */
static void snapshot_without_a_driver(void)
{
    Snapshot s = snapshot_new();

    virtio_reset(&s.vt->iommu);
    snapshot_take(&s);
    vt_bring_up(s.vt, F_USUAL, true);
    set_up(s.vt);
    g_assert_cmpstr(snapshot_load(&s), ==, "");
    assert_attachments(s.vt, "");
    g_assert_cmpint(vt_counter(s.vt, "domains"), ==, 0);
    g_assert_cmpint(vt_counter(s.vt, "mappings"), ==, 0);
    g_assert_cmpuint(vt_config8(s.vt, CONFIG_BYPASS), ==, 1);
    edus_again(s.vt, &s.edu2);
    g_assert_true(edu_write_lands(&s.vt->edu[0], page(10), page(10), 64));
    snapshot_free(&s);
}

/* Between two drivers: what was attached reaches less at the destination, never more. */
static void lingering_arrives_without_mappings(void)
{
    Edu edu2;
    Vt *from = source(&edu2), *vt;
    File file;

    virtio_reset(&from->iommu);
    file = leave(from);
    qtest_qmp_assert_success(from->qts, "{'execute': 'cont'}");
    assert_attachments(from, ATTACHMENTS);
    g_assert_true(edu_write_lands(&from->edu[0], IOVA, page(10), 64));

    vt = arrive(from, &file, IOMMU, EDU1_ARGS EDU2_ARGS);
    vt_free(from);
    assert_attachments(vt, "0x18 in 0xffffffff; 0x20 in 0xffffffff; ");
    g_assert_cmpint(vt_counter(vt, "mappings"), ==, 0);
    edus_again(vt, &edu2);
    g_assert_false(edu_write_lands(&vt->edu[0], IOVA, page(10), 64));
    g_assert_false(edu_write_lands(&vt->edu[0], page(10), page(10), 64));
    g_assert_false(edu_write_lands(&vt->edu[1], page(10), page(10), 64));
    g_assert_true(virtio_accept(&vt->iommu, F_USUAL));
    assert_attachments(vt, "");
    file_free(&file);
    vt_free(vt);
}

/* A machine that is very busy gets fewer loads done. */
#define LOADS_USEC (12 * G_USEC_PER_SEC)

/* One to three random changes of the bytes in `span`; returns where the first is. */
static void mutate(GRand *rand, GByteArray *bytes, Span span)
{
    unsigned n = (unsigned)g_rand_int_range(rand, 1, 4);

    for (unsigned i = 0; i < n; i++) {
        size_t at = (size_t)g_rand_int_range(rand, (int)span.begin, (int)span.end);

        switch (g_rand_int_range(rand, 0, 4)) {
        case 0:
            bytes->data[at] ^= (uint8_t)(1 << g_rand_int_range(rand, 0, 8));
            break;
        case 1:
            bytes->data[at] = (uint8_t)g_rand_int_range(rand, 0, 256);
            break;
        case 2:
            bytes->data[at] = g_rand_boolean(rand) ? 0xff : 0;
            break;
        default:
            /* A byte is missing: all that follow move up. */
            memmove(bytes->data + at, bytes->data + at + 1, span.end - at - 1);
            break;
        }
    }
}

/* Each one is refused with a sentence that leaves nothing attached, or the result is a state that
 * can be.  All in one QEMU. */
static void mutated_states(void)
{
    gint64 end = g_get_monotonic_time() + LOADS_USEC;
    Snapshot s = snapshot_new();
    GRand *rand = g_rand_new_with_seed(0x5eed);
    unsigned loads = 0, refused = 0;
    Span span;
    Vt then;

    set_up(s.vt);
    /* QEMU can load nothing more after a load that failed while an interrupt was pending. */
    qtest_readb(s.vt->qts, s.vt->iommu.isr);
    snapshot_take(&s);
    then = *s.vt;
    span = find_state(s.bytes);
    for (; loads < 250 && g_get_monotonic_time() < end; loads++) {
        GByteArray *bytes = g_byte_array_append(g_byte_array_new(), s.bytes->data, s.bytes->len);
        const char *said;

        mutate(rand, bytes, span);
        file_write(&s.image, bytes->data + span.begin, span.end - span.begin, span.begin);
        said = snapshot_load(&s);
        if (*said) {
            refused++;
            g_assert_nonnull(strstr(said, "virtio-iommu: the incoming state "));
            assert_attachments(s.vt, "");
            g_assert_cmpint(vt_counter(s.vt, "mappings"), ==, 0);
        } else {
            g_assert_cmpint(vt_counter(s.vt, "domains"), <=, 2);
            g_assert_cmpint(vt_counter(s.vt, "mappings"), <=, 3);
        }
        g_byte_array_unref(bytes);
    }
    g_test_message("%u of %u refused", refused, loads);
    g_assert_cmpuint(refused, >, loads / 2);

    /* And the right one still does what it should. */
    file_write(&s.image, s.bytes->data + span.begin, span.end - span.begin, span.begin);
    g_assert_cmpstr(snapshot_load(&s), ==, "");
    qtest_qmp_assert_success(s.vt->qts, "{'execute': 'cont'}");
    then.qts = s.vt->qts;
    memcpy(then.next_bar, s.vt->next_bar, sizeof(then.next_bar));
    *s.vt = then;
    edus_again(s.vt, &s.edu2);
    check(s.vt, &s.edu2);
    vt_assert_alive(s.vt);
    g_rand_free(rand);
    snapshot_free(&s);
}

/* The rest of the section, too; in a new QEMU each time. */
static void mutated_sections(void)
{
    gint64 end = g_get_monotonic_time() + LOADS_USEC;
    GRand *rand = g_rand_new_with_seed(0xf11b);
    unsigned loads = 0, refused = 0;
    Edu edu2;
    Vt *from = source(&edu2);
    File file = leave(from);
    GByteArray *stream = file_read(&file);
    Span span = find_section(stream);

    vt_free(from);
    for (; loads < 30 && g_get_monotonic_time() < end; loads++) {
        GByteArray *bytes = g_byte_array_append(g_byte_array_new(), stream->data, stream->len);
        Vt *vt;

        mutate(rand, bytes, span);
        file_write(&file, bytes->data, bytes->len, 0);
        g_byte_array_unref(bytes);
        vt = vt_machine(MACHINE "-incoming defer", IOMMU, EDU1_ARGS EDU2_ARGS);
        qtest_qmp_assert_success(vt->qts,
                                 "{'execute': 'migrate-incoming', 'arguments': {"
                                 "'uri': %s, 'exit-on-error': false}}",
                                 file.uri);
        if (migration_ends(vt->qts)) {
            qtest_qmp_assert_success(vt->qts, "{'execute': 'cont'}");
            vt_settle(vt);
        } else {
            refused++;
        }
        /* Fails the test if QEMU did not end well. */
        vt_free(vt);
    }
    g_test_message("%u of %u refused", refused, loads);
    g_assert_cmpuint(loads, >, 0);
    g_rand_free(rand);
    g_byte_array_unref(stream);
    file_free(&file);
}

static const Case cases[] = {
    {"W4/endpoint-is-missing", endpoint_is_missing},
    {"MOD-15/endpoint-is-left-out", endpoint_is_left_out},
    {"W4/endpoint-unplugged-before", endpoint_unplugged_before},
    {"W4/truncated-streams", truncated_streams},
    {"W4/mutated-states", mutated_states},
    {"W4/mutated-sections", mutated_sections},
    {"W12/stale-config-in-the-stream", stale_config_in_the_stream},
    {"W26/target-differs", target_differs},
    {"W26/state-goes-along", state_goes_along},
    {"W26/driver-goes-on", driver_goes_on},
    {"W26/request-under-way-is-served", request_under_way_is_served},
    {"W26/bypass-goes-along", bypass_goes_along},
    {"W26/there-and-back", there_and_back},
    {"W31/lingering-arrives-without-mappings", lingering_arrives_without_mappings},
    {"W26/snapshot-comes-back", snapshot_comes_back},
    {"W26/snapshot-without-a-driver", snapshot_without_a_driver},
};

VT_MAIN(cases)
