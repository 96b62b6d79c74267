/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Functions that go, and those that are switched off: QEMU tells of the former
 * only.  Either way what they were attached to ends.
 */
#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"
#include "system/runstate.h"

#include "hw/machine/functions.h"
#include "hw/machine/pci-bus.h"
#include "hw/machine/registry.h"
#include "trace-viommu.h"

typedef struct Function {
    PCIDevice *dev;
    bool enabled;               /* when it was looked at last */
} Function;

static struct {
    GArray *all;                /* Function; NULL: to be collected anew */
    GHashTable *switched_off;   /* PCIDevice; see note_switched_off() */
    QEMUBH *switched_off_bh;
} functions;

static ViommuSpace *managed_space_of(PCIDevice *dev)
{
    ViommuPlace place = viommu_pci_dma_place(dev);
    ViommuSpace *space = viommu_registry_space_at(&place);

    return space && space->unit ? space : NULL;
}

static void add_member(GArray *gone, ViommuSpace *space, void *member)
{
    ViommuIdentity who = {
        .endpoint = space->endpoint, .member = (uintptr_t)member,
    };

    g_array_append_val(gone, who);
}

/*
 * @dev no longer does DMA.  Whoever attached its alias by the alias's own ID
 * attached what is behind it: without any, the attachment ends as well, or the
 * next one to come would inherit it.
 */
static void add_function(GArray *gone, ViommuSpace *space, PCIDevice *dev)
{
    ViommuPlace place = viommu_pci_dma_place(dev);

    add_member(gone, space, dev);
    if (viommu_place_equal(&place, &space->place) &&
        !viommu_pci_place_in_use(viommu_registry_root_buses(), &place)) {
        add_member(gone, space, space);
    }
}

static GArray *members_new(void)
{
    return g_array_new(false, false, sizeof(ViommuIdentity));
}

static void forget_members(const GArray *gone)
{
    GPtrArray *units = viommu_registry_units();

    trace_viommu_forget(gone->len);
    for (guint i = 0; i < units->len; i++) {
        ViommuUnit *unit = g_ptr_array_index(units, i);

        viommu_engine_forget(unit->engine, (const ViommuIdentity *)gone->data,
                             gone->len);
    }
}

void viommu_functions_changed(void)
{
    g_clear_pointer(&functions.all, g_array_unref);
}

void viommu_functions_gone(PCIDevice *dev)
{
    g_autoptr(GArray) gone = members_new();
    GHashTableIter iter;
    gpointer value;

    viommu_functions_changed();
    g_hash_table_remove(functions.switched_off, dev);
    g_hash_table_iter_init(&iter, viommu_registry_spaces());
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        ViommuSpace *space = value;

        if (viommu_pci_place_gone(&space->place, dev)) {
            g_hash_table_iter_remove(&iter);
        } else if (space->unit) {
            add_function(gone, space, dev);
        }
    }
    forget_members(gone);
}

/*
 * A function that is switched off (VFs disabled, slot powered off) loses its
 * attachment, but QEMU tells nobody.  If the function was a bus master, the
 * memory topology changes, and that is the moment to look; if it was not, it
 * is early enough before the next request.  The attachment itself ends in a
 * bottom half, because that changes the memory topology in turn.
 */
static void note_switched_off(PCIDevice *dev)
{
    ViommuSpace *space = managed_space_of(dev);
    ViommuEndpointStats stats;

    if (!space) {
        return;
    }
    viommu_endpoint_stats(space->endpoint, &stats);
    if (stats.attached && g_hash_table_add(functions.switched_off, dev)) {
        qemu_bh_schedule(functions.switched_off_bh);
    }
}

static bool collect_functions(void)
{
    bool settled;
    g_autoptr(GPtrArray) devices = viommu_pci_functions(viommu_registry_root_buses(),
                                                        &settled);

    functions.all = g_array_sized_new(false, false, sizeof(Function),
                                      devices->len);
    for (guint i = 0; i < devices->len; i++) {
        Function function = { .dev = g_ptr_array_index(devices, i) };

        g_array_append_val(functions.all, function);
    }
    return settled;
}

/* W31 */
static bool any_lingers(void)
{
    GPtrArray *units = viommu_registry_units();

    for (guint i = 0; i < units->len; i++) {
        ViommuUnit *unit = g_ptr_array_index(units, i);

        if (viommu_engine_lingering(unit->engine)) {
            return true;
        }
    }
    return false;
}

static bool lingers_without_dma(PCIDevice *dev)
{
    ViommuSpace *space = managed_space_of(dev);

    return space && viommu_engine_lingering(space->unit->engine) &&
           !(pci_get_word(dev->config + PCI_COMMAND) & PCI_COMMAND_MASTER);
}

/* Before every batch of requests, so it had better be quick. */
static bool functions_as_before(void)
{
    const Function *all = (const Function *)functions.all->data;

    for (guint i = 0; i < functions.all->len; i++) {
        if (all[i].dev->enabled != all[i].enabled) {
            return false;
        }
    }
    return true;
}

void viommu_functions_look(void)
{
    bool settled = true, lingers;

    if (!viommu_registry_root_buses()) {
        return;
    }
    /* A state that is being loaded has no bus masters yet. */
    lingers = runstate_is_running() && any_lingers();
    if (!functions.all) {
        settled = collect_functions();
    } else if (!lingers && functions_as_before()) {
        return;
    }
    for (guint i = 0; i < functions.all->len; i++) {
        Function *function = &g_array_index(functions.all, Function, i);
        PCIDevice *dev = function->dev;

        function->enabled = dev->enabled;
        /* One that fails to be realized vanishes without a word. */
        if (DEVICE(dev)->realized &&
            (viommu_pci_switched_off(dev) ||
             (lingers && lingers_without_dma(dev)))) {
            note_switched_off(dev);
        }
    }
    if (!settled) {
        g_clear_pointer(&functions.all, g_array_unref);
    }
}

static void forget_switched_off(void *opaque)
{
    g_autoptr(GHashTable) devices = NULL;
    g_autoptr(GArray) gone = members_new();
    GHashTableIter iter;
    gpointer key;

    if (!g_hash_table_size(functions.switched_off)) {
        return;
    }
    devices = functions.switched_off;
    functions.switched_off = g_hash_table_new(NULL, NULL);
    g_hash_table_iter_init(&iter, devices);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        ViommuSpace *space = managed_space_of(key);

        if (space) {
            add_function(gone, space, key);
        }
    }
    forget_members(gone);
}

void viommu_functions_settle(void)
{
    viommu_functions_look();
    forget_switched_off(NULL);
}

void viommu_functions_init(void)
{
    functions.switched_off = g_hash_table_new(NULL, NULL);
    functions.switched_off_bh = qemu_bh_new(forget_switched_off, NULL);
}
