/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A PCI function that can do nothing but DMA, and that when told to.
 */
#ifndef VIOMMU_BENCH_ENDPOINT_H
#define VIOMMU_BENCH_ENDPOINT_H

#include "hw/pci/pci_device.h"

#define TYPE_BENCH_ENDPOINT "viommu-bench-endpoint"

void bench_endpoint_register_types(void);

#endif
