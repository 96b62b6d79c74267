/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults that are made on request, for people who test drivers: docs/injection.md.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"

#include "hw/machine/registry.h"
#include "hw/virtio/device.h"
#include "hw/virtio/visit.h"
#include "trace-viommu.h"

static void viommu_set_inject(Object *obj, const char *value, Error **errp)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(obj);
    char sentence[VIOMMU_SENTENCE];
    ViommuInjection wanted;

    viommu_assert_big_lock();
    if (!s->req_vq) {
        error_setg(errp, "inject: the device is not realized");
        return;
    }
    if (!viommu_injection_parse(value, &wanted, sentence, sizeof(sentence)) ||
        !viommu_engine_inject(s->unit.engine, &wanted, sentence,
                              sizeof(sentence))) {
        error_setg(errp, "%s", sentence);
        return;
    }
    trace_viommu_inject(value);
    if (wanted.kind == VIOMMU_INJECT_RECORD) {
        viommu_queue_kick(s);
    }
}

static void visit_armed(ViommuSpace *space, void *opaque)
{
    Visitor *v = opaque;
    uint32_t left = viommu_endpoint_armed_accesses(space->endpoint);

    if (left && begin_struct(v, NULL)) {
        visit_u64(v, "endpoint", viommu_registry_endpoint_id(space));
        visit_u64(v, "left", left);
        end_struct(v);
    }
}

static void visit_requests(Visitor *v, VirtIOIOMMU *s)
{
    ViommuArmedRequests armed[VIOMMU_T_PROBE];
    size_t n = viommu_engine_armed_requests(s->unit.engine, armed);

    for (size_t i = 0; i < n && begin_struct(v, NULL); i++) {
        visit_text(v, "type", armed[i].type);
        visit_text(v, "status", armed[i].status);
        visit_u64(v, "left", armed[i].left);
        end_struct(v);
    }
}

static void viommu_get_injected(Object *obj, Visitor *v, const char *name,
                                void *opaque, Error **errp)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(obj);
    bool possible = s->req_vq && s->fault_injection;

    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    if (begin_list(v, "requests")) {
        if (possible) {
            visit_requests(v, s);
        }
        end_list(v);
    }
    if (begin_list(v, "accesses")) {
        if (possible) {
            viommu_registry_for_each_space(&s->unit, visit_armed, v);
        }
        end_list(v);
    }
    end_struct(v);
}

void viommu_inject_register(ObjectClass *klass)
{
    object_class_property_add_str(klass, "inject", NULL, viommu_set_inject);
    object_class_property_set_description(klass, "inject",
        "with fault-injection=on, make faults: requests type=T status=S, "
        "accesses endpoint=ID, record endpoint=ID address=IOVA, or nothing");
    object_class_property_add(klass, "injected", "struct", viommu_get_injected,
                              NULL, NULL, NULL);
    object_class_property_set_description(klass, "injected",
        "what 'inject' has armed and how much of it is left (read only)");
}
