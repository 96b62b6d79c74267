/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Looking inside over QMP: what a machine's IOMMUs are, and answers to questions about
 * endpoints, domains and mappings.  docs/inspect.md has the fields.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/cutils.h"
#include "hw/pci/pci_device.h"

#include "hw/machine/mmio-bus.h"
#include "hw/machine/names.h"
#include "hw/machine/registry.h"
#include "hw/virtio/device.h"
#include "hw/virtio/visit.h"

/* Endpoint IDs that are listed of one domain. */
#define DOMAIN_MEMBERS 64

/* ---- the model ---- */

static void visit_ranges(Visitor *v, uint32_t iommu)
{
    const ViommuTopology *topology = viommu_registry_topology();
    ViommuMmioEndpointView endpoint;
    ViommuIdRange range;

    if (begin_list(v, "ranges")) {
        for (size_t i = 0; viommu_topology_range(topology, iommu, i, &range) &&
                           begin_struct(v, NULL); i++) {
            visit_u64(v, "first", range.first);
            visit_u64(v, "last", range.last);
            end_struct(v);
        }
        end_list(v);
    }
    if (begin_list(v, "transports")) {
        for (size_t i = 0;
             viommu_topology_mmio_endpoint(topology, iommu, i, &endpoint) &&
             begin_struct(v, NULL); i++) {
            visit_u64(v, "id", endpoint.id);
            visit_text(v, "name", endpoint.name);
            visit_u64(v, "base", endpoint.base);
            end_struct(v);
        }
        end_list(v);
    }
}

static void visit_root_buses(Visitor *v)
{
    ViommuRootBusView bus;

    if (!begin_list(v, "root-buses")) {
        return;
    }
    for (size_t i = 0;
         viommu_topology_root_bus(viommu_registry_topology(), i, &bus) &&
         begin_struct(v, NULL); i++) {
        visit_text(v, "name", bus.name);
        visit_u64(v, "segment", bus.segment);
        visit_u64(v, "first-bus", bus.first_bus);
        visit_u64(v, "last-bus", bus.last_bus);
        visit_flag(v, "bypass", bus.bypass);
        if (bus.iommu != VIOMMU_NO_IOMMU) {
            visit_u64(v, "iommu", bus.iommu);
        }
        end_struct(v);
    }
    end_list(v);
}

static void viommu_get_model(Object *obj, Visitor *v, const char *name,
                             void *opaque, Error **errp)
{
    ViommuIommuView iommu;

    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    visit_root_buses(v);
    if (begin_list(v, "iommus")) {
        for (size_t i = 0;
             viommu_topology_iommu(viommu_registry_topology(), i, &iommu) &&
             begin_struct(v, NULL); i++) {
            visit_text(v, "name", iommu.name);
            visit_text(v, "transport", iommu.on_mmio ? "mmio" : "pci");
            visit_u64(v, iommu.on_mmio ? "base" : "id",
                      iommu.on_mmio ? iommu.base : iommu.requester_id);
            visit_ranges(v, i);
            end_struct(v);
        }
        end_list(v);
    }
    end_struct(v);
}

/* ---- this device ---- */

static bool check_realized(VirtIOIOMMU *s, Error **errp)
{
    if (!s->req_vq) {
        error_setg(errp, "the device is not realized");
        return false;
    }
    return true;
}

static void visit_limits(Visitor *v, VirtIOIOMMU *s)
{
    ViommuSettingsView settings;
    ViommuStats stats;

    viommu_engine_settings(s->unit.engine, &settings);
    viommu_engine_stats(s->unit.engine, &stats);
    visit_u64(v, "features-offered", settings.offered_features);
    visit_u64(v, "features-negotiated", settings.negotiated_features);
    visit_u64(v, "page-size-mask", settings.page_size_mask);
    visit_u64(v, "granule", settings.granule);
    visit_u64(v, "input-start", settings.input_start);
    visit_u64(v, "input-last", settings.input_last);
    visit_u64(v, "domain-first", settings.domain_first);
    visit_u64(v, "domain-last", settings.domain_last);
    visit_flag(v, "boot-bypass", settings.boot_bypass);
    visit_flag(v, "bypass", settings.bypass);
    visit_flag(v, "lingering", stats.lingering);
    visit_u64(v, "mappings", stats.mappings);
    visit_u64(v, "max-mappings", settings.max_mappings);
    visit_u64(v, "domains", stats.domains);
    visit_u64(v, "max-domains", settings.max_domains);
    visit_u64(v, "memory", stats.memory);
    visit_u64(v, "max-memory", settings.max_memory);
}

static void visit_managed(Visitor *v, VirtIOIOMMU *s)
{
    ViommuRootBusView bus;

    if (begin_list(v, "root-buses")) {
        for (size_t i = 0; viommu_topology_root_bus(viommu_registry_topology(),
                                                    i, &bus); i++) {
            if (bus.iommu == s->unit.index) {
                visit_text(v, NULL, bus.name);
            }
        }
        end_list(v);
    }
    visit_ranges(v, s->unit.index);
}

static void viommu_get_instance(Object *obj, Visitor *v, const char *name,
                                void *opaque, Error **errp)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(obj);
    ViommuUnit *unit = &s->unit;
    g_autofree char *unit_name = NULL;
    uint8_t status = VIRTIO_DEVICE(s)->status;

    if (!check_realized(s, errp) ||
        !visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    unit_name = viommu_unit_name(unit);
    visit_text(v, "name", unit_name);
    visit_text(v, "transport", unit->on_mmio ? "mmio" : "pci");
    visit_path(v, "device", unit->on_mmio ? OBJECT(s) : OBJECT(unit->transport));
    if (unit->on_mmio) {
        visit_u64(v, "base", viommu_mmio_base(unit->transport));
    } else {
        visit_u64(v, "id", pci_get_bdf(PCI_DEVICE(unit->transport)));
    }
    visit_u64(v, "index", unit->index);
    visit_u64(v, "status", status);
    visit_flag(v, "driver", status & VIRTIO_CONFIG_S_DRIVER_OK);
    visit_flag(v, "broken", VIRTIO_DEVICE(s)->broken);
    visit_limits(v, s);
    visit_managed(v, s);
    end_struct(v);
}

/* ---- questions ---- */

static void visit_domain(Visitor *v, const ViommuEngine *engine,
                         const ViommuDomainView *domain)
{
    void *members[DOMAIN_MEMBERS];
    size_t n = viommu_engine_domain_endpoints(engine, domain->id, members,
                                              ARRAY_SIZE(members));

    if (!begin_struct(v, NULL)) {
        return;
    }
    visit_u64(v, "domain", domain->id);
    visit_text(v, "type", domain->bypass ? "bypass" : "paging");
    visit_u64(v, "mappings", domain->mappings);
    visit_u64(v, "memory", domain->memory);
    visit_u64(v, "endpoints", domain->endpoints);
    if (begin_list(v, "members")) {
        for (size_t i = 0; i < n; i++) {
            visit_u64(v, NULL, viommu_registry_endpoint_id(members[i]));
        }
        end_list(v);
    }
    end_struct(v);
}

static bool answer_domains(VirtIOIOMMU *s, Visitor *v, Error **errp)
{
    ViommuDomainView domains[VIOMMU_PAGE_MAX];
    bool more;
    size_t n = viommu_engine_domains(s->unit.engine, s->query.from, domains,
                                     s->query.count, &more);

    if (begin_list(v, "domains")) {
        for (size_t i = 0; i < n; i++) {
            visit_domain(v, s->unit.engine, &domains[i]);
        }
        end_list(v);
    }
    visit_next(v, more, more ? domains[n - 1].id + 1ull : 0);
    return true;
}

static bool answer_mappings(VirtIOIOMMU *s, Visitor *v, Error **errp)
{
    ViommuMappingView mappings[VIOMMU_PAGE_MAX];
    ViommuMappingPage page;
    char sentence[VIOMMU_SENTENCE];

    if (!viommu_engine_mappings(s->unit.engine, s->query.domain, s->query.from,
                                mappings, s->query.count, &page, sentence,
                                sizeof(sentence))) {
        error_setg(errp, "%s", sentence);
        return false;
    }
    if (begin_list(v, "mappings")) {
        for (size_t i = 0; i < page.count && begin_struct(v, NULL); i++) {
            visit_u64(v, "first", mappings[i].first);
            visit_u64(v, "last", mappings[i].last);
            visit_u64(v, "phys", mappings[i].phys);
            visit_text(v, "rights", viommu_rights_name(mappings[i].flags));
            visit_u64(v, "flags", mappings[i].flags);
            end_struct(v);
        }
        end_list(v);
    }
    visit_next(v, page.more, page.next);
    return true;
}

static bool answer_translate(VirtIOIOMMU *s, Visitor *v, Error **errp)
{
    ViommuEndpoint *endpoint = viommu_engine_endpoint(s->unit.engine,
                                                      s->query.endpoint);
    ViommuEndpointView view;
    ViommuLook look;

    if (!endpoint) {
        error_setg(errp, "nobody behind this IOMMU has endpoint ID 0x%x",
                   s->query.endpoint);
        return false;
    }
    viommu_endpoint_view(endpoint, &view);
    viommu_endpoint_look(endpoint, s->query.address, &look);
    visit_u64(v, "endpoint", s->query.endpoint);
    visit_u64(v, "address", s->query.address);
    visit_text(v, "mode", view.mode);
    if (view.attached) {
        visit_u64(v, "domain", view.domain);
    }
    visit_text(v, "found", look.found);
    visit_text(v, "rights", viommu_rights_name(look.rights));
    if (look.rights) {
        visit_u64(v, "phys", look.phys);
        visit_u64(v, "first", look.first);
        visit_u64(v, "last", look.last);
    }
    return true;
}

static bool answer_nothing(VirtIOIOMMU *s, Visitor *v, Error **errp)
{
    return true;
}

static void viommu_get_inspected(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    static bool (*const answers[])(VirtIOIOMMU *s, Visitor *v, Error **errp) = {
        [VIOMMU_VIEW_NONE] = answer_nothing,
        [VIOMMU_VIEW_ENDPOINTS] = viommu_answer_endpoints,
        [VIOMMU_VIEW_DOMAINS] = answer_domains,
        [VIOMMU_VIEW_MAPPINGS] = answer_mappings,
        [VIOMMU_VIEW_TRANSLATE] = answer_translate,
    };
    VirtIOIOMMU *s = VIRTIO_IOMMU(obj);

    viommu_assert_big_lock();
    if (!check_realized(s, errp) ||
        !visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    visit_text(v, "query", s->query_text);
    answers[s->query.view](s, v, errp);
    end_struct(v);
}

static char *viommu_get_inspect(Object *obj, Error **errp)
{
    return g_strdup(VIRTIO_IOMMU(obj)->query_text);
}

static void viommu_set_inspect(Object *obj, const char *value, Error **errp)
{
    VirtIOIOMMU *s = VIRTIO_IOMMU(obj);
    char sentence[VIOMMU_SENTENCE];

    if (!viommu_query_parse(value, &s->query, sentence, sizeof(sentence))) {
        error_setg(errp, "%s", sentence);
        return;
    }
    pstrcpy(s->query_text, sizeof(s->query_text), value);
}

void viommu_inspect_register(ObjectClass *klass)
{
    object_class_property_add(klass, "instance", "struct", viommu_get_instance,
                              NULL, NULL, NULL);
    object_class_property_set_description(klass, "instance",
        "what this device is, its limits and what it manages (read only)");
    object_class_property_add(klass, "model", "struct", viommu_get_model,
                              NULL, NULL, NULL);
    object_class_property_set_description(klass, "model",
        "the machine as the guest is told of it: root buses, IOMMUs, ranges "
        "(read only)");
    object_class_property_add_str(klass, "inspect", viommu_get_inspect,
                                  viommu_set_inspect);
    object_class_property_set_description(klass, "inspect",
        "what 'inspected' answers: endpoints, domains, mappings domain=N or "
        "translate endpoint=ID address=IOVA");
    object_class_property_add(klass, "inspected", "struct",
                              viommu_get_inspected, NULL, NULL, NULL);
    object_class_property_set_description(klass, "inspected",
        "the answer to 'inspect', of bounded size (read only)");
}
