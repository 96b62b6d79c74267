/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the device has to know of the machine it sits in: its root buses, who
 * has which requester ID, where its MSI doorbell is, and how its tables get to
 * the guest.  All under the big QEMU lock.
 */
#ifndef VIOMMU_PLATFORM_H
#define VIOMMU_PLATFORM_H

#include "hw/acpi/bios-linker-loader.h"
#include "hw/virtio/viommu-device.h"

/*
 * Registers an IOMMU.  Which root buses and transports it manages is decided
 * when the machine is complete.  Fails with one sentence if the machine has an
 * IOMMU of another kind.
 */
bool viommu_platform_add(VirtIOIOMMU *s, Error **errp);
void viommu_platform_remove(VirtIOIOMMU *s);

/*
 * What sentences call @dev: its id, or else its type and where it is.  To be
 * freed by the caller.
 */
char *viommu_platform_device_name(DeviceState *dev);

/*
 * The MSI doorbell that DMA reaches untranslated on this machine; false if the
 * machine has none.
 */
bool viommu_platform_msi_region(ViommuRegion *region);

/* Who has endpoint ID @id now; see ViommuCallbacks.resolve. */
bool viommu_platform_resolve(VirtIOIOMMU *s, uint32_t id, ViommuIdentity *out);

/*
 * Ends the attachments of functions that were switched off since the last
 * call; before the engine looks at requests.
 */
void viommu_platform_settle(void);

/*
 * The same in a bottom half, for callers that must not change the memory topology;
 * while an IOMMU lingers (viommu_engine_lingering), also those of functions that are
 * not bus masters: whoever makes them so again is another owner.
 */
void viommu_platform_look(void);

/* The address space of @place, made if there is none yet. */
AddressSpace *viommu_platform_address_space(ViommuPlace place);

/* True if an IOMMU manages @place. */
bool viommu_platform_managed(ViommuPlace place);

/* The ID under which @space does DMA now. */
uint32_t viommu_platform_endpoint_id(const ViommuSpace *space);

/*
 * That ID, and true if it stands for @space: while buses have no numbers, or
 * share one, it may stand for another or for none.  An IOMMU manages @space.
 */
bool viommu_platform_own_id(const ViommuSpace *space, uint32_t *id);

/*
 * Visits the spaces that @s manages and that have an ID of their own now, in
 * the order of the IDs.
 */
void viommu_platform_for_each_space(VirtIOIOMMU *s,
                                    void (*visit)(ViommuSpace *space,
                                                  void *opaque),
                                    void *opaque);

/* Appends the VIOT table once per machine, whichever IOMMU is asked. */
void viommu_platform_build_acpi(VirtIOIOMMU *s, GArray *table_offsets,
                                GArray *table_data, BIOSLinker *linker,
                                const char *oem_id, const char *oem_table_id);

#endif
