/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who is bound to whom: the IOMMUs of the machine (units), the address spaces of
 * their endpoints, and who has an endpoint ID at this moment.  Under the big QEMU
 * lock.
 */
#ifndef VIOMMU_REGISTRY_H
#define VIOMMU_REGISTRY_H

#include "hw/space/space.h"

/* Room for the sentence in which the model says what is wrong. */
#define VIOMMU_SENTENCE 512

/* ViommuUnit in the order of their index; NULL before the first one came. */
GPtrArray *viommu_registry_units(void);

/* Before machine-done NULL: PCIBus by number, DeviceState by address, the model. */
GPtrArray *viommu_registry_root_buses(void);
GPtrArray *viommu_registry_transports(void);
const ViommuTopology *viommu_registry_topology(void);

/* ViommuPlace -> ViommuSpace; one that is removed is dropped. */
GHashTable *viommu_registry_spaces(void);

void viommu_registry_add(ViommuUnit *unit);

/* Its spaces bypass from now on. */
void viommu_registry_remove(ViommuUnit *unit);

/* The machine is complete: in this order, once. */
void viommu_registry_set_buses(GPtrArray *root_buses, GPtrArray *transports);
void viommu_registry_set_topology(ViommuTopology *topology);
void viommu_registry_bind_spaces(void);

/*
 * False with @errp if a device is behind an IOMMU whose back end knows none.
 * With the model in place.
 */
bool viommu_registry_check_back_ends(Error **errp);

/* True if the function at @place is an IOMMU. */
bool viommu_registry_is_unit(const ViommuPlace *place);

/* Who has endpoint ID @id now; see ViommuCallbacks.resolve. */
bool viommu_registry_resolve(ViommuUnit *unit, uint32_t id,
                             ViommuIdentity *out);

/* The address space of @place, made if there is none yet. */
AddressSpace *viommu_registry_address_space(ViommuPlace place);

/* NULL if there is none. */
ViommuSpace *viommu_registry_space_at(const ViommuPlace *place);

/* The IOMMU that manages @place of PCI, NULL if none.  With the model in place. */
ViommuUnit *viommu_registry_manager_of_place(const ViommuPlace *place);

/*
 * True if an IOMMU is told to leave out what does DMA from @place; for the time before
 * the model is in place.
 */
bool viommu_registry_to_be_left_out(const ViommuPlace *place);

/* True if an IOMMU manages @place. */
bool viommu_registry_managed(ViommuPlace place);

/* The ID under which @space does DMA now. */
uint32_t viommu_registry_endpoint_id(const ViommuSpace *space);

/*
 * That ID, and true if it stands for @space: while buses have no numbers, or
 * share one, it may stand for another or for none.  An IOMMU manages @space.
 */
bool viommu_registry_own_id(const ViommuSpace *space, uint32_t *id);

/*
 * Visits the spaces that @unit manages and that have an ID of their own now, in
 * the order of the IDs.
 */
void viommu_registry_for_each_space(ViommuUnit *unit,
                                    void (*visit)(ViommuSpace *space,
                                                  void *opaque),
                                    void *opaque);

/*
 * Likewise those from ID @from on, at most @cap, to be freed.  @next: the ID of the
 * first that had no room, or -1.
 */
GPtrArray *viommu_registry_spaces_from(ViommuUnit *unit, uint32_t from,
                                       guint cap, int64_t *next);

#endif
