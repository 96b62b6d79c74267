/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a running device tells of itself over QMP.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"

#include "hw/machine/registry.h"
#include "hw/virtio/device.h"
#include "hw/virtio/visit.h"

static void visit_space(ViommuSpace *space, void *opaque)
{
    Visitor *v = opaque;
    ViommuEndpointStats stats;
    ViommuEndpointView view;

    viommu_endpoint_stats(space->endpoint, &stats);
    if (!begin_struct(v, NULL)) {
        return;
    }
    visit_u64(v, "id", viommu_registry_endpoint_id(space));
    visit_flag(v, "attached", stats.attached);
    visit_flag(v, "bypass", stats.bypass);
    visit_u64(v, "domain", stats.attached ? stats.domain : 0);
    visit_u64(v, "translations", stats.translations);
    visit_u64(v, "faults", stats.faults);
    viommu_endpoint_view(space->endpoint, &view);
    visit_text(v, "mode", view.mode);
    visit_flag(v, "bypasses", view.bypasses);
    end_struct(v);
}

static void visit_request_counts(Visitor *v, const ViommuEngine *engine)
{
    ViommuRequestCount counts[VIOMMU_REQUEST_COUNTS];
    size_t n = engine ? viommu_engine_request_counts(engine, counts) : 0;

    if (!begin_list(v, "requests-by-status")) {
        return;
    }
    for (size_t i = 0; i < n && begin_struct(v, NULL); i++) {
        visit_text(v, "type", counts[i].type);
        visit_text(v, "status", counts[i].status);
        visit_u64(v, "count", counts[i].count);
        end_struct(v);
    }
    end_list(v);
}

static void viommu_get_endpoints(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(obj);

    if (!visit_start_list(v, name, NULL, 0, errp)) {
        return;
    }
    /* Those of a device that was taken away bypass for good, whatever it would say. */
    if (s->req_vq) {
        viommu_registry_for_each_space(&s->unit, visit_space, v);
    }
    end_list(v);
}

static void viommu_get_stats(Object *obj, Visitor *v, const char *name,
                             void *opaque, Error **errp)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(obj);
    ViommuStats stats = { 0 };
    ViommuFaultCounts faults = { 0 };

    if (s->unit.engine) {
        viommu_engine_stats(s->unit.engine, &stats);
        viommu_engine_fault_counts(s->unit.engine, &faults);
    }
    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    visit_u64(v, "translations", stats.translations);
    visit_u64(v, "faults", stats.faults);
    visit_u64(v, "faults-coalesced", stats.faults_coalesced);
    visit_u64(v, "faults-dropped", stats.faults_dropped);
    visit_u64(v, "requests", stats.requests);
    visit_u64(v, "requests-refused", stats.requests_refused);
    visit_u64(v, "mappings", stats.mappings);
    visit_u64(v, "domains", stats.domains);
    visit_u64(v, "memory", stats.memory);
    visit_u64(v, "remembered", stats.remembered);
    visit_flag(v, "lingering", stats.lingering);
    visit_u64(v, "faults-domain", faults.domain);
    visit_u64(v, "faults-mapping", faults.mapping);
    visit_request_counts(v, s->unit.engine);
    end_struct(v);
}

void viommu_stats_register(ObjectClass *klass)
{
    object_class_property_add(klass, "endpoints", "list", viommu_get_endpoints,
                              NULL, NULL, NULL);
    object_class_property_set_description(klass, "endpoints",
        "every endpoint's ID, attachment and counters (read only)");
    object_class_property_add(klass, "stats", "struct", viommu_get_stats,
                              NULL, NULL, NULL);
    object_class_property_set_description(klass, "stats",
        "counters of the whole device (read only)");
}
