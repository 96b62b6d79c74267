/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The text of properties.
 *
 * These take any text that ends with a NUL.  Numbers have neither blanks nor
 * signs in them; those that are too large are refused.  Where a text is refused,
 * nothing but `error` is written: one sentence on one line, of less than 256
 * bytes, that shows the text, or the start of a long one.  Any thread.
 */
#ifndef VIOMMU_PROPERTIES_H
#define VIOMMU_PROPERTIES_H

#include "types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One element of `reserved-regions`, START:LAST:TYPE: two hexadecimal addresses,
 * with or without 0x, and a decimal VIOMMU_RESV_*.  W15. */
bool viommu_region_parse(const char *text, ViommuRegion *region, char *error,
                         size_t error_size) VIOMMU_NOEXCEPT;

/* `topology`: off, v2 or v3.  The layouts disagree in their first bytes, so one
 * is named, never guessed. */
bool viommu_array_layout_parse(const char *text, ViommuArrayLayout *layout,
                               char *error, size_t error_size) VIOMMU_NOEXCEPT;

/* The reverse; NULL for a layout that there is not. */
const char *viommu_array_layout_name(ViommuArrayLayout layout) VIOMMU_NOEXCEPT;

/* `root-bus`: names separated by ':', none of them empty.  Returns how many there
 * are, 0 if the text is refused.  If `cap` suffices, ends each of them with a NUL
 * in `text` and lets `names` point there; else changes nothing. */
size_t viommu_root_bus_split(char *text, const char **names, size_t cap,
                             char *error, size_t error_size) VIOMMU_NOEXCEPT;

/* `leave-out`: entries separated by ':', each NAME or ROOT-BUS/SLOT[.FUNCTION] with a
 * hexadecimal slot.  Returns how many there are, 0 if the text is refused.  If `cap`
 * suffices, ends each name with a NUL in `text` and lets `entries` point there; else
 * changes nothing. */
size_t viommu_leave_out_split(char *text, ViommuLeaveOut *entries, size_t cap,
                              char *error, size_t error_size) VIOMMU_NOEXCEPT;

/* True if one of the entries leaves the function out, by its address, the id of its
 * device or its root bus.  Whether all of them make sense in the machine is another
 * question, which viommu_topology_new() answers. */
bool viommu_leave_out_names(const ViommuLeaveOut *entries, size_t count,
                            const ViommuFunctionDesc *function) VIOMMU_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif /* VIOMMU_PROPERTIES_H */
