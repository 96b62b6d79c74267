/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fault records and the event queue. */
#include "viommu_test.h"

#define IOVA 0x40000000ull

static void fault_write(Vt *vt, unsigned n, uint64_t iova, unsigned len)
{
    edu_to_ram(&vt->edu[n], iova, 0, len);
}

static void fault_read(Vt *vt, unsigned n, uint64_t iova, unsigned len)
{
    edu_from_ram(&vt->edu[n], iova, 2048, len);
}

/* Checks all that every record has in common. */
static void assert_fault(const Fault *fault, uint32_t endpoint, uint8_t reason, uint32_t direction,
                         uint64_t iova, unsigned len)
{
    g_assert_cmpuint(fault->reason, ==, reason);
    g_assert_cmphex(fault->endpoint, ==, endpoint);
    g_assert_cmphex(fault->flags & (FAULT_F_READ | FAULT_F_WRITE), ==, direction);
    g_assert_cmphex(fault->flags & ~(FAULT_F_READ | FAULT_F_WRITE | FAULT_F_ADDRESS), ==, 0);
    g_assert_cmphex(fault->raw[1] | fault->raw[2] | fault->raw[3], ==, 0);
    g_assert_cmphex((uint32_t)ldl_le_p(fault->raw + 12), ==, 0);
    if (fault->flags & FAULT_F_ADDRESS) {
        g_assert_cmphex(fault->address, >=, iova);
        g_assert_cmphex(fault->address, <, iova + len);
    }
}

static Vt *faulting_machine(void)
{
    Vt *vt = vt_new();

    vt_post_events(vt, 32, FAULT_RECORD_SIZE);
    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    return vt;
}

static void reserved_fields_are_zero(void)
{
    Vt *vt = faulting_machine();
    Fault fault;

    fault_write(vt, 0, IOVA, 8);
    fault = vt_wait_fault(vt);
    g_assert_cmphex(fault.raw[1] | fault.raw[2] | fault.raw[3], ==, 0);
    g_assert_cmphex((uint32_t)ldl_le_p(fault.raw + 12), ==, 0);
    vt_free(vt);
}

static void undefined_flags_are_zero(void)
{
    Vt *vt = faulting_machine();
    Fault fault;

    fault_read(vt, 0, IOVA, 8);
    fault = vt_wait_fault(vt);
    g_assert_cmphex(fault.flags & ~(FAULT_F_READ | FAULT_F_WRITE | FAULT_F_ADDRESS), ==, 0);
    vt_free(vt);
}

static void names_the_endpoint(void)
{
    Vt *vt = vt_new_with("boot-bypass=off", "");
    Fault fault;

    vt_post_events(vt, 8, FAULT_RECORD_SIZE);
    fault_write(vt, 1, IOVA, 8);
    fault = vt_wait_fault(vt);
    g_assert_cmphex(fault.endpoint, ==, EDU1);
    vt_drain_faults(vt);
    fault_write(vt, 0, IOVA, 8);
    fault = vt_wait_fault(vt);
    g_assert_cmphex(fault.endpoint, ==, EDU0);
    vt_free(vt);
}

static void address_is_the_accessed_one(void)
{
    static const uint64_t iovas[] = {0x1000, IOVA + 0x18, 0x12345678f8ull, BIT64(38) + 8,
                                     BIT64(47)};
    Vt *vt = faulting_machine();

    for (unsigned i = 0; i < G_N_ELEMENTS(iovas); i++) {
        Fault fault;

        fault_write(vt, 0, iovas[i], 8);
        fault = vt_wait_fault(vt);
        g_assert_cmphex(fault.flags & FAULT_F_ADDRESS, ==, FAULT_F_ADDRESS);
        g_assert_cmphex(fault.address, >=, iovas[i]);
        g_assert_cmphex(fault.address, <, iovas[i] + 8);
        vt_drain_faults(vt);
    }
    vt_free(vt);
}

/* The record goes whole into the first buffer that holds it. */
static void small_buffers_are_skipped(void)
{
    static const uint32_t sizes[] = {16, 1, 23, 64};
    Vt *vt = vt_new();
    unsigned records = 0;
    uint32_t head, len;

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        vt_post_events(vt, 1, sizes[i]);
    }
    fault_write(vt, 0, IOVA, 8);
    vt_settle(vt);
    while (queue_pop(&vt->evt, &head, &len)) {
        uint8_t bytes[64];

        g_assert_cmpuint(head, <, G_N_ELEMENTS(sizes));
        qtest_memread(vt->qts, vt->evt.buffer[head], bytes, sizes[head]);
        if (sizes[head] < FAULT_RECORD_SIZE) {
            g_assert_cmpuint(len, ==, 0);
            for (unsigned i = 0; i < sizes[head]; i++) {
                g_assert_cmphex(bytes[i], ==, UNWRITTEN);
            }
        } else {
            g_assert_cmpuint(len, ==, FAULT_RECORD_SIZE);
            g_assert_cmpuint(bytes[0], ==, FAULT_MAPPING);
            g_assert_cmphex((uint32_t)ldl_le_p(bytes + 8), ==, EDU0);
            g_assert_cmphex(bytes[FAULT_RECORD_SIZE], ==, UNWRITTEN);
            records++;
        }
    }
    g_assert_cmpuint(records, ==, 1);
    vt_assert_alive(vt);
    vt_free(vt);
}

/* One buffer of several descriptors is still one buffer. */
static void buffer_in_pieces(void)
{
    Vt *vt = vt_new();
    uint64_t base = vt_alloc(vt, 4096);
    Seg segs[] = {{base, 1, true}, {base + 0x100, 10, true}, {base + 0x200, 13, true}};
    uint8_t raw[FAULT_RECORD_SIZE];
    uint32_t len;

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    queue_add(&vt->evt, segs, 3);
    queue_kick(&vt->evt);
    fault_write(vt, 0, IOVA, 8);
    queue_wait(&vt->evt, &len);
    g_assert_cmpuint(len, ==, FAULT_RECORD_SIZE);
    qtest_memread(vt->qts, base, raw, 1);
    qtest_memread(vt->qts, base + 0x100, raw + 1, 10);
    qtest_memread(vt->qts, base + 0x200, raw + 11, 13);
    g_assert_cmpuint(raw[0], ==, FAULT_MAPPING);
    g_assert_cmphex((uint32_t)ldl_le_p(raw + 8), ==, EDU0);
    g_assert_cmphex(ldq_le_p(raw + 16) & ~7ull, ==, IOVA);
    vt_free(vt);
}

/* A readable buffer in the event queue is nothing to write into. */
static void readable_event_buffer_is_harmless(void)
{
    Vt *vt = vt_new();
    Seg seg = {vt_alloc(vt, 64), 64, false};
    Fault fault;

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    qtest_memset(vt->qts, seg.addr, UNWRITTEN, 64);
    queue_add(&vt->evt, &seg, 1);
    vt_post_events(vt, 4, FAULT_RECORD_SIZE);
    fault_write(vt, 0, IOVA, 8);
    fault = vt_wait_fault(vt);
    g_assert_cmphex(fault.endpoint, ==, EDU0);
    g_assert_cmphex(qtest_readb(vt->qts, seg.addr), ==, UNWRITTEN);
    vt_assert_alive(vt);
    vt_free(vt);
}

static void unattached_is_reason_domain(void)
{
    Vt *vt = vt_new_with("boot-bypass=off", "");
    Fault fault;

    vt_post_events(vt, 16, FAULT_RECORD_SIZE);
    fault_write(vt, 0, IOVA, 8);
    fault = vt_wait_fault(vt);
    assert_fault(&fault, EDU0, FAULT_DOMAIN, FAULT_F_WRITE, IOVA, 8);
    fault_read(vt, 0, IOVA, 8);
    fault = vt_wait_fault(vt);
    assert_fault(&fault, EDU0, FAULT_DOMAIN, FAULT_F_READ, IOVA, 8);

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_detach(vt, 1, EDU0), VS_OK);
    vt_drain_faults(vt);
    fault_write(vt, 0, IOVA + PAGE, 8);
    fault = vt_wait_fault(vt);
    assert_fault(&fault, EDU0, FAULT_DOMAIN, FAULT_F_WRITE, IOVA + PAGE, 8);
    vt_free(vt);
}

static void unmapped_is_reason_mapping(void)
{
    Vt *vt = faulting_machine();
    Fault fault;

    fault_write(vt, 0, IOVA, 8);
    fault = vt_wait_fault(vt);
    assert_fault(&fault, EDU0, FAULT_MAPPING, FAULT_F_WRITE, IOVA, 8);
    fault_read(vt, 0, IOVA, 8);
    fault = vt_wait_fault(vt);
    assert_fault(&fault, EDU0, FAULT_MAPPING, FAULT_F_READ, IOVA, 8);
    vt_free(vt);
}

static void wrong_rights_are_reason_mapping(void)
{
    Vt *vt = faulting_machine();
    Fault fault;

    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_READ), VS_OK);
    assert_status(vt_map(vt, 1, IOVA + PAGE, IOVA + 2 * PAGE - 1, page(2), MAP_WRITE), VS_OK);
    fault_read(vt, 0, IOVA, 8);
    fault_write(vt, 0, IOVA + PAGE, 8);
    g_assert_cmpuint(vt_drain_faults(vt), ==, 0);
    fault_write(vt, 0, IOVA, 8);
    fault = vt_wait_fault(vt);
    assert_fault(&fault, EDU0, FAULT_MAPPING, FAULT_F_WRITE, IOVA, 8);
    vt_free(vt);
}

static void good_accesses_make_no_records(void)
{
    Vt *vt = faulting_machine();

    assert_status(vt_map(vt, 1, IOVA, IOVA + PAGE - 1, page(1), MAP_RW), VS_OK);
    for (unsigned i = 0; i < 8; i++) {
        g_assert_true(edu_write_lands(&vt->edu[0], IOVA, page(1), 512));
        g_assert_true(edu_write_lands(&vt->edu[1], page(1), page(1), 512));
    }
    g_assert_cmpuint(vt_drain_faults(vt), ==, 0);
    vt_free(vt);
}

static void no_buffer_is_no_trouble(void)
{
    Vt *vt = vt_new();
    bool found = false;

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    for (unsigned i = 0; i < 100; i++) {
        fault_write(vt, 0, IOVA + i * PAGE, 8);
    }
    vt_assert_alive(vt);
    vt_post_events(vt, 200, FAULT_RECORD_SIZE);
    fault_write(vt, 0, IOVA + 1000 * PAGE, 8);
    for (unsigned i = 0; i < 200 && !found; i++) {
        Fault fault = vt_wait_fault(vt);

        found = fault.address == IOVA + 1000 * PAGE;
    }
    g_assert_true(found);
    vt_free(vt);
}

static void one_access_is_one_record(void)
{
    Vt *vt = faulting_machine();

    fault_write(vt, 0, IOVA, 8);
    g_assert_cmpuint(vt_drain_faults(vt), ==, 1);
    fault_read(vt, 0, IOVA + PAGE, 8);
    g_assert_cmpuint(vt_drain_faults(vt), ==, 1);
    fault_write(vt, 0, IOVA + 2 * PAGE, 2048);
    g_assert_cmpuint(vt_drain_faults(vt), ==, 1);
    vt_free(vt);
}

/* While a record waits for a buffer, the same page and direction add none. */
static void pending_records_are_coalesced(void)
{
    Vt *vt = vt_new();
    unsigned writes = 0, reads = 0;
    Fault fault;

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    for (unsigned i = 0; i < 50; i++) {
        fault_write(vt, 0, IOVA + 8 * i, 8);
        fault_read(vt, 0, IOVA + 8 * i, 8);
    }
    vt_post_events(vt, 128, FAULT_RECORD_SIZE);
    while (vt_pop_fault(vt, &fault)) {
        writes += (fault.flags & FAULT_F_WRITE) != 0;
        reads += (fault.flags & FAULT_F_READ) != 0;
    }
    g_assert_cmpuint(writes, <=, 1);
    g_assert_cmpuint(reads, <=, 1);
    /* Delivered ones are not pending: the next access is reported again. */
    fault_write(vt, 0, IOVA, 8);
    fault = vt_wait_fault(vt);
    assert_fault(&fault, EDU0, FAULT_MAPPING, FAULT_F_WRITE, IOVA, 8);
    vt_free(vt);
}

#define PER_ENDPOINT 16u /* kFaultsPerEndpoint of engine/faults.h */

/* What one endpoint does a hundred times costs another none of its records. */
static void flood_is_counted_and_hides_nobody(void)
{
    Vt *vt = vt_new();
    Fault fault;

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    assert_status(vt_attach(vt, 1, EDU1, 0), VS_OK);
    /* QEMU asks for each four bytes of an access that is refused. */
    for (unsigned i = 0; i < 100; i++) {
        fault_write(vt, 0, IOVA + i * PAGE, 4);
    }
    for (unsigned i = 0; i < PER_ENDPOINT; i++) {
        fault_write(vt, 0, IOVA + i * PAGE + 8, 4);
    }
    fault_write(vt, 1, IOVA, 4);
    vt_post_events(vt, 128, FAULT_RECORD_SIZE);
    for (unsigned i = 0; i < PER_ENDPOINT; i++) {
        fault = vt_wait_fault(vt);
        assert_fault(&fault, EDU0, FAULT_MAPPING, FAULT_F_WRITE, IOVA + i * PAGE, 4);
    }
    fault = vt_wait_fault(vt);
    assert_fault(&fault, EDU1, FAULT_MAPPING, FAULT_F_WRITE, IOVA, 4);
    g_assert_cmpuint(vt_drain_faults(vt), ==, 0);
    g_assert_cmpint(vt_counter(vt, "faults"), ==, 100 + PER_ENDPOINT + 1);
    g_assert_cmpint(vt_counter(vt, "faults-dropped"), ==, 100 - PER_ENDPOINT);
    g_assert_cmpint(vt_counter(vt, "faults-coalesced"), ==, PER_ENDPOINT);
    vt_free(vt);
}

static void pending_records_end_with_a_reset(void)
{
    Vt *vt = vt_new();

    assert_status(vt_attach(vt, 1, EDU0, 0), VS_OK);
    fault_write(vt, 0, IOVA, 8);
    vt_bring_up(vt, F_USUAL, true);
    vt_post_events(vt, 8, FAULT_RECORD_SIZE);
    g_assert_cmpuint(vt_drain_faults(vt), ==, 0);
    vt_free(vt);
}

/* The interrupt status shows that a record came. */
static void delivery_raises_the_interrupt(void)
{
    Vt *vt = faulting_machine();

    qtest_readb(vt->qts, vt->iommu.isr);
    g_assert_cmphex(qtest_readb(vt->qts, vt->iommu.isr) & 1, ==, 0);
    fault_write(vt, 0, IOVA, 8);
    vt_wait_fault(vt);
    g_assert_cmphex(qtest_readb(vt->qts, vt->iommu.isr) & 1, ==, 1);
    vt_free(vt);
}

static const Case cases[] = {
    {"FLT-1/reserved-fields-are-zero", reserved_fields_are_zero},
    {"FLT-2/undefined-flags-are-zero", undefined_flags_are_zero},
    {"FLT-3/names-the-endpoint", names_the_endpoint},
    {"FLT-4/address-is-the-accessed-one", address_is_the_accessed_one},
    {"FLT-5/small-buffers-are-skipped", small_buffers_are_skipped},
    {"FLT-5/buffer-in-pieces", buffer_in_pieces},
    {"FLT-5/readable-event-buffer-is-harmless", readable_event_buffer_is_harmless},
    {"FLT-6/records-are-whole", small_buffers_are_skipped},
    {"FLT-D1/unattached-is-reason-domain", unattached_is_reason_domain},
    {"FLT-D1/unmapped-is-reason-mapping", unmapped_is_reason_mapping},
    {"FLT-D1/wrong-rights-are-reason-mapping", wrong_rights_are_reason_mapping},
    {"FLT-D1/good-accesses-make-no-records", good_accesses_make_no_records},
    {"FLT-D2/no-buffer-is-no-trouble", no_buffer_is_no_trouble},
    {"FLT-D2/delivery-raises-the-interrupt", delivery_raises_the_interrupt},
    {"FLT-D3/one-access-is-one-record", one_access_is_one_record},
    {"FLT-D3/pending-records-are-coalesced", pending_records_are_coalesced},
    {"FLT-D3/pending-records-end-with-a-reset", pending_records_end_with_a_reset},
    {"W19/flood-is-counted-and-hides-nobody", flood_is_counted_and_hides_nobody},
};

VT_MAIN(cases)
