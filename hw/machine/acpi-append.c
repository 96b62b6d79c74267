/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIOT beside the tables that a user brings with -acpitable.  Of the machines
 * that the device works on, only PCs add those to their own.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "hw/acpi/acpi.h"
#include "hw/boards.h"

#include "hw/machine/acpi.h"

/* Of an ACPI table; what is not written here is 0. */
#define HEADER_SIZE 36
#define HEADER_LENGTH 4
#define HEADER_CHECKSUM 9
#define HEADER_OEM_ID 10
#define HEADER_OEM_TABLE_ID 16
#define HEADER_OEM_REVISION 24
#define HEADER_CREATOR 28
#define HEADER_CREATOR_REVISION 32

InterfaceInfo viommu_acpi_interfaces[] = {
    { }
};

void viommu_acpi_class_init(ObjectClass *klass)
{
}

static void put_property(uint8_t *at, size_t size, Object *obj, const char *name)
{
    g_autofree char *text = object_property_get_str(obj, name, NULL);

    memset(at, ' ', size);
    if (text) {
        memcpy(at, text, MIN(strlen(text), size));
    }
}

static void write_table(uint8_t *table, const uint8_t *body, size_t size)
{
    Object *machine = qdev_get_machine();
    size_t length = HEADER_SIZE + size;
    uint8_t sum = 0;

    memset(table, 0, HEADER_SIZE);
    memcpy(table, "VIOT", 4);
    stl_le_p(table + HEADER_LENGTH, length);
    put_property(table + HEADER_OEM_ID, 6, machine, "x-oem-id");
    put_property(table + HEADER_OEM_TABLE_ID, 8, machine, "x-oem-table-id");
    stl_le_p(table + HEADER_OEM_REVISION, 1);
    memcpy(table + HEADER_CREATOR, "VIOM", 4);
    stl_le_p(table + HEADER_CREATOR_REVISION, 1);
    memcpy(table + HEADER_SIZE, body, size);
    for (size_t i = 0; i < length; i++) {
        sum += table[i];
    }
    table[HEADER_CHECKSUM] = -sum;
}

/*
 * acpi_tables is a count, then each table behind its length, all of 16 bits.  It is
 * never made larger in place: fw_cfg may have shown the old one to the guest.
 */
void viommu_acpi_set_viot(const uint8_t *body, size_t size, Error **errp)
{
    size_t before = acpi_tables ? acpi_tables_len : sizeof(uint16_t);
    size_t length = HEADER_SIZE + size;
    uint8_t *tables;

    if (!object_dynamic_cast(qdev_get_machine(), "generic-pc-machine")) {
        return;
    }
    if (length > UINT16_MAX) {
        error_setg(errp, "the VIOT of this machine has %zu bytes, and a QEMU "
                   "without viommu's patches takes no more than %u", length,
                   UINT16_MAX);
        return;
    }
    tables = g_malloc0(before + sizeof(uint16_t) + length);
    if (acpi_tables) {
        memcpy(tables, acpi_tables, before);
    }
    stw_le_p(tables, lduw_le_p(tables) + 1);
    stw_le_p(tables + before, length);
    write_table(tables + before + sizeof(uint16_t), body, size);
    acpi_tables = tables;
    acpi_tables_len = before + sizeof(uint16_t) + length;
}
