/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The boundary between QEMU's world (C, hw/) and the decisions (C++: engine/,
 * topology/, acpi/, fdt/).  It carries opaque handles, plain values and one
 * table of callbacks; no QEMU, GLib or C++ type crosses it, and no exception
 * leaves it.
 *
 * Threads and locks
 *   "Under the big lock" means that the caller serialises these calls for one
 *   engine; inside QEMU that is the big QEMU lock (BQL).  A function that says
 *   nothing else is called under the big lock.
 *   viommu_endpoint_translate() may be called by any thread, with or without
 *   the big lock, at the same time as any other call on the engine, from within
 *   a read-side critical section of the scheme behind ViommuCallbacks.defer
 *   (inside QEMU: RCU).
 *   Callbacks are made only from calls that are made under the big lock, in
 *   the calling thread, and never while a lock that translate takes is held.
 *   A callback must not call back into the engine, except where noted.
 *
 * Units: addresses and sizes are bytes; "last" and "end" are inclusive.
 * Requirement ids (ATT-1, MAP-6, ...) are listed in docs/requirements.md.
 */
#ifndef VIOMMU_VIOMMU_H
#define VIOMMU_VIOMMU_H

#include "engine.h"
#include "injection.h"
#include "inspect.h"
#include "properties.h"
#include "topology.h"
#include "types.h"

#endif /* VIOMMU_VIOMMU_H */
