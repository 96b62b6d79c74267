/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One model of the machine, and everything that a guest is told of it: VIOT, device
 * tree, array in config space.  viommu.h says which thread may call what.
 */
#ifndef VIOMMU_TOPOLOGY_H
#define VIOMMU_TOPOLOGY_H

#include "types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VIOMMU_NO_IOMMU UINT32_MAX

/* The name under which an IOMMU claims the MMIO endpoints: that of the bus
 * which QEMU's virtio-mmio transports sit on. */
#define VIOMMU_PLATFORM_BUS "main-system-bus"

#define VIOMMU_SEGMENT_MMIO 0xffffu /* endpoint ID = 0xffff0000 + index */

typedef enum ViommuIommuKind {
    VIOMMU_IOMMU_PCI = 0,
    VIOMMU_IOMMU_MMIO = 1,
} ViommuIommuKind;

typedef struct ViommuIommuDesc {
    const char *name;      /* for messages: the device's id or path */
    ViommuIommuKind kind;
    uint16_t segment;      /* PCI */
    uint16_t requester_id; /* PCI */
    uint64_t base;         /* MMIO: guest-physical base of the transport */
    const char *const *root_buses; /* root buses, or VIOMMU_PLATFORM_BUS,
                                      claimed by name */
    size_t root_bus_count; /* 0: takes all that nobody claims (one IOMMU may) */
    const ViommuLeaveOut *left_out; /* of what it would manage */
    size_t left_out_count;
} ViommuIommuDesc;

typedef struct ViommuRootBusDesc {
    const char *name;   /* QEMU's bus id, for example "pcie.0" */
    uint16_t segment;
    uint8_t first_bus;  /* the root bus's own number */
    uint8_t last_bus;   /* last number of the window that it owns */
    bool bypass;        /* the machine's or the bridge's bypass flag */
} ViommuRootBusDesc;

typedef struct ViommuMmioEndpointDesc {
    const char *name;
    uint16_t index;     /* of the transport */
    uint64_t base;      /* guest-physical base of its registers */
    uint32_t iommu;     /* index of the IOMMU; VIOMMU_NO_IOMMU for the one that
                           claims the platform bus or takes what nobody claims */
} ViommuMmioEndpointDesc;

typedef struct ViommuMachineDesc {
    const ViommuIommuDesc *iommus;
    size_t iommu_count;
    const ViommuRootBusDesc *root_buses;
    size_t root_bus_count;
    const ViommuMmioEndpointDesc *mmio_endpoints;
    size_t mmio_endpoint_count;
    bool no_mmio_transports; /* VIOMMU_PLATFORM_BUS has nothing to claim */
    const ViommuFunctionDesc *functions; /* what `left_out` may name */
    size_t function_count;
} ViommuMachineDesc;

/* Builds the model; the description is copied.  On conflict (a root bus
 * claimed twice or unknown, overlapping windows, two takers of the rest, an
 * IOMMU twice at one address, an MMIO IOMMU that is its own endpoint, something
 * left out that is not there or that another IOMMU manages, ...)
 * returns NULL and one sentence that names the devices.  Under the big lock;
 * the result is immutable and may be read by any thread. */
ViommuTopology *viommu_topology_new(const ViommuMachineDesc *machine, char *error,
                                    size_t error_size) VIOMMU_NOEXCEPT;
void viommu_topology_free(ViommuTopology *topology) VIOMMU_NOEXCEPT;

/* True if `id` lies in a range that IOMMU `iommu` manages. */
bool viommu_topology_manages(const ViommuTopology *topology, uint32_t iommu,
                             uint32_t id) VIOMMU_NOEXCEPT;

/* The IOMMU that manages the root bus of that name and what is behind its bridges, or
 * VIOMMU_NO_IOMMU.  Neither this nor those beside it can fail: they allocate nothing. */
uint32_t viommu_topology_root_bus_iommu(const ViommuTopology *topology,
                                        const char *name) VIOMMU_NOEXCEPT;

/* True if that IOMMU leaves out DMA of the function `devfn` of the root bus: of one
 * that is no bridge, for what a bridge forwards under its own ID is never left out
 * alone. */
bool viommu_topology_left_out(const ViommuTopology *topology, const char *root_bus,
                              uint8_t devfn) VIOMMU_NOEXCEPT;

/* Everything of a VIOT table that follows the standard 36-byte ACPI header.
 * Returns its size; writes it if `cap` suffices; 0 if the table cannot be
 * expressed, with one sentence in `error`. */
size_t viommu_topology_viot(const ViommuTopology *topology, uint8_t *out,
                            size_t cap, char *error,
                            size_t error_size) VIOMMU_NOEXCEPT;

/* The config space of IOMMU `iommu` from byte 36 on: header fields of the
 * layout, padding, items.  Returns the size of the whole config space (36 +
 * what was written); writes the bytes from 36 on to `out` if `cap` suffices.
 * 0, with one sentence, if it does not fit `config_limit` bytes. */
size_t viommu_topology_array(const ViommuTopology *topology, uint32_t iommu,
                             ViommuArrayLayout layout, size_t config_limit,
                             uint8_t *out, size_t cap, char *error,
                             size_t error_size) VIOMMU_NOEXCEPT;

/* Where the pieces of the model live in a device tree. */
typedef struct ViommuFdtNodes {
    const char *pci_host;          /* path of segment 0's PCI host node, NULL if none */
    const uint32_t *phandles;      /* one per IOMMU, chosen by the caller */
    const char *const *mmio_iommu_nodes;    /* per IOMMU; NULL for PCI ones */
    const char *const *mmio_endpoint_nodes; /* per MMIO endpoint */
} ViommuFdtNodes;

/* Writes the model into the tree at `fdt`, which has room to grow in place
 * (totalsize): the IOMMUs' nodes, #iommu-cells, iommu-map, iommus.  False with
 * one sentence on failure; the tree may then be half written.  Under the big
 * lock. */
bool viommu_topology_fdt(const ViommuTopology *topology, void *fdt,
                         const ViommuFdtNodes *nodes, char *error,
                         size_t error_size) VIOMMU_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif /* VIOMMU_TOPOLOGY_H */
