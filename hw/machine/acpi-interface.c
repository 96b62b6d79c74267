/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIOT through the interface that patch 4 brings: the machine asks each object
 * for its tables whenever it makes its own.
 */
#include "qemu/osdep.h"
#include "hw/acpi/acpi_table_interface.h"
#include "hw/acpi/aml-build.h"

#include "hw/machine/acpi.h"
#include "hw/machine/registry.h"

/* Of size 0 before machine-done. */
static struct {
    uint8_t *body;
    size_t size;
} viot;

/* One table describes all IOMMUs: the first of them brings it. */
static bool brings_table(Object *obj)
{
    GPtrArray *units = viommu_registry_units();
    ViommuUnit *first;

    if (!units || !units->len) {
        return false;
    }
    first = g_ptr_array_index(units, 0);
    return obj == (first->on_mmio ? first->device : OBJECT(first->transport));
}

static void build_tables(AcpiTableIf *obj, GArray *table_offsets,
                         GArray *table_data, BIOSLinker *linker,
                         const char *oem_id, const char *oem_table_id)
{
    AcpiTable table = {
        .sig = "VIOT", .rev = 0, .oem_id = oem_id, .oem_table_id = oem_table_id,
    };

    if (!viot.size || !brings_table(OBJECT(obj))) {
        return;
    }
    acpi_add_table(table_offsets, table_data);
    acpi_table_begin(&table, table_data);
    g_array_append_vals(table_data, viot.body, viot.size);
    acpi_table_end(linker, &table);
}

InterfaceInfo viommu_acpi_interfaces[] = {
    { TYPE_ACPI_TABLE_IF },
    { }
};

void viommu_acpi_class_init(ObjectClass *klass)
{
    ACPI_TABLE_IF_CLASS(klass)->build_tables = build_tables;
}

void viommu_acpi_set_viot(const uint8_t *body, size_t size, Error **errp)
{
    viot.body = g_memdup2(body, size);
    viot.size = size;
}
