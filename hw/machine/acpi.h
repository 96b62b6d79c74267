/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIOT's way into the machine's ACPI tables.  It goes through an interface of
 * types that our patches bring (acpi-interface.c), or, in a QEMU without them, with
 * the tables of the user (acpi-append.c).  Under the big QEMU lock.
 */
#ifndef VIOMMU_ACPI_H
#define VIOMMU_ACPI_H

#include "qom/object.h"

/* What the types of IOMMUs implement for it; and what their classes need. */
extern InterfaceInfo viommu_acpi_interfaces[];
void viommu_acpi_class_init(ObjectClass *klass);

/*
 * Once, at machine-done, before the machine makes its tables: what follows the
 * header of the table, @size bytes.  Fails with one sentence in @errp.
 */
void viommu_acpi_set_viot(const uint8_t *body, size_t size, Error **errp);

#endif
