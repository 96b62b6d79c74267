/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Endpoints as users see them: which functions they are, where those are, what became
 * of their accesses.
 */
#include "qemu/osdep.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"

#include "hw/machine/mmio-bus.h"
#include "hw/machine/pci-bus.h"
#include "hw/machine/registry.h"
#include "hw/virtio/device.h"
#include "hw/virtio/visit.h"

/* Functions that are listed in one answer; what is begun is finished. */
#define FUNCTIONS_PER_ANSWER 128

typedef struct Function {
    PCIDevice *dev;
    ViommuPlace place;
} Function;

/* All that are switched on, and where their DMA comes from. */
static GArray *collect_functions(void)
{
    bool settled;
    g_autoptr(GPtrArray) devices =
        viommu_pci_functions(viommu_registry_root_buses(), &settled);
    GArray *functions = g_array_new(false, false, sizeof(Function));

    for (guint i = 0; i < devices->len; i++) {
        Function function = { .dev = g_ptr_array_index(devices, i) };

        if (!viommu_pci_switched_off(function.dev)) {
            function.place = viommu_pci_dma_place(function.dev);
            g_array_append_val(functions, function);
        }
    }
    return functions;
}

static void visit_member(Visitor *v, const ViommuSpace *space, Object *device,
                         uint32_t id, uintptr_t member)
{
    if (begin_struct(v, NULL)) {
        visit_path(v, "device", device);
        visit_u64(v, "id", id);
        visit_flag(v, "attached",
                   viommu_endpoint_has_member(space->endpoint, member));
        end_struct(v);
    }
}

/* What sits at the place; behind a bridge that takes requests over, the bridge. */
static Object *device_of(const ViommuSpace *space)
{
    const ViommuPlace *place = &space->place;

    if (!place->bus) {
        return OBJECT(viommu_mmio_device(place->transport));
    }
    return place->bus->devices[place->devfn]
           ? OBJECT(place->bus->devices[place->devfn]) : space->place_owner;
}

/* Returns how many there are. */
static guint visit_members(Visitor *v, const ViommuSpace *space,
                           const GArray *functions)
{
    uint32_t id = viommu_registry_endpoint_id(space);
    guint n = 0;

    if (!begin_list(v, "members")) {
        return 0;
    }
    for (guint i = 0; i < functions->len; i++) {
        const Function *function = &g_array_index(functions, Function, i);

        if (viommu_place_equal(&function->place, &space->place)) {
            n++;
            visit_member(v, space, OBJECT(function->dev),
                         pci_get_bdf(function->dev), (uintptr_t)function->dev);
        }
    }
    /* A transport; or the ID that functions share was attached as such. */
    if (!space->place.bus ||
        viommu_endpoint_has_member(space->endpoint, (uintptr_t)space)) {
        n++;
        visit_member(v, space, device_of(space), id, (uintptr_t)space);
    }
    end_list(v);
    return n;
}

static void visit_bridges(Visitor *v, PCIBus *bus)
{
    if (!pci_bus_is_root(bus)) {
        visit_bridges(v, pci_get_bus(bus->parent_dev));
        visit_path(v, NULL, OBJECT(bus->parent_dev));
    }
}

/* Where it is: the root bus, and the bridges from there on. */
static void visit_place(Visitor *v, const ViommuPlace *place)
{
    g_autofree char *name =
        place->bus ? viommu_pci_root_bus_name(viommu_pci_root_bus(place->bus))
                   : g_strdup(VIOMMU_PLATFORM_BUS);

    visit_text(v, "root-bus", name);
    if (begin_list(v, "bridges")) {
        if (place->bus) {
            visit_bridges(v, place->bus);
        }
        end_list(v);
    }
}

static void visit_last_fault(Visitor *v, const ViommuEndpointView *view)
{
    if (view->last_fault && begin_struct(v, "last-fault")) {
        visit_text(v, "reason", view->last_fault);
        visit_u64(v, "address", view->last_fault_address);
        visit_text(v, "access", viommu_rights_name(view->last_fault_access));
        end_struct(v);
    }
}

static guint visit_endpoint(Visitor *v, const ViommuSpace *space,
                            const GArray *functions)
{
    Object *device = device_of(space);
    ViommuEndpointView view;
    guint n = 0;

    viommu_endpoint_view(space->endpoint, &view);
    if (!begin_struct(v, NULL)) {
        return 0;
    }
    visit_u64(v, "id", viommu_registry_endpoint_id(space));
    visit_path(v, "device", device);
    visit_text(v, "type", device ? object_get_typename(device) : "");
    visit_place(v, &space->place);
    visit_text(v, "mode", view.mode);
    visit_flag(v, "bypasses", view.bypasses);
    if (view.attached) {
        visit_u64(v, "domain", view.domain);
    }
    visit_u64(v, "translations", view.translations);
    visit_u64(v, "faults", view.faults);
    visit_u64(v, "faults-domain", view.faults_by_reason.domain);
    visit_u64(v, "faults-mapping", view.faults_by_reason.mapping);
    visit_last_fault(v, &view);
    n = visit_members(v, space, functions);
    end_struct(v);
    return n;
}

bool viommu_answer_endpoints(VirtIOIOMMU *s, Visitor *v, Error **errp)
{
    int64_t next;
    g_autoptr(GPtrArray) spaces =
        viommu_registry_spaces_from(&s->unit, s->query.from, s->query.count,
                                    &next);
    g_autoptr(GArray) functions = NULL;
    guint listed = 0;

    if (!begin_list(v, "endpoints")) {
        return true;
    }
    functions = spaces->len ? collect_functions() : NULL;
    for (guint i = 0; i < spaces->len; i++) {
        ViommuSpace *space = g_ptr_array_index(spaces, i);

        if (listed >= FUNCTIONS_PER_ANSWER) {
            next = viommu_registry_endpoint_id(space);
            break;
        }
        listed += visit_endpoint(v, space, functions);
    }
    end_list(v);
    visit_next(v, next >= 0, next);
    return true;
}
