/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest driver that runs inside QEMU.  It touches the IOMMU only where a guest
 * could: PCI configuration ports, the virtio-pci BAR, and queues in guest RAM.
 */
#ifndef VIOMMU_BENCH_DRIVER_H
#define VIOMMU_BENCH_DRIVER_H

#include "exec/hwaddr.h"

/* Two descriptors a request, and queues of 256. */
#define BENCH_BATCH_MAX 128

/* RAM that the driver keeps for itself; the rest is free for DMA. */
#define BENCH_DRIVER_BASE (16 * MiB)
#define BENCH_DRIVER_SIZE (1 * MiB)

typedef struct BenchDriver BenchDriver;

/* All functions are called with the big lock held. */

BenchDriver *bench_driver_new(Error **errp);
void bench_driver_free(BenchDriver *d);

/* Lets function @devfn of bus 0 do DMA. */
void bench_driver_enable_dma(int devfn);

/* How the requests that follow are laid out in the ring. */
void bench_driver_set_indirect(BenchDriver *d, bool indirect);

/*
 * Put one request behind those that wait for the next kick; at most
 * BENCH_BATCH_MAX of them.
 */
void bench_driver_attach(BenchDriver *d, uint32_t domain, uint32_t endpoint);
void bench_driver_detach(BenchDriver *d, uint32_t domain, uint32_t endpoint);
void bench_driver_map(BenchDriver *d, uint32_t domain, uint64_t iova,
                      uint64_t last, uint64_t phys);
void bench_driver_unmap(BenchDriver *d, uint32_t domain, uint64_t iova,
                        uint64_t last);
void bench_driver_unknown(BenchDriver *d);

/*
 * Publishes what waits, notifies the device once (also if nothing waits) and
 * returns when all is answered.  Ends QEMU if an answer is not @status.
 */
#define BENCH_ANY_STATUS (-1)
void bench_driver_kick(BenchDriver *d, int status);

/* Wall time from the last notification to the last answer, in nanoseconds. */
int64_t bench_driver_kick_ns(const BenchDriver *d);

#endif
