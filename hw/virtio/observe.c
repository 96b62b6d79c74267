/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests and fault records as developers of drivers see them: trace events, and a
 * line of "-d guest_errors" for what a driver got wrong.
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "standard-headers/linux/virtio_iommu.h"

#include "hw/virtio/device.h"
#include "trace-viommu.h"

static bool somebody_looks(void)
{
    return trace_event_get_state_backends(TRACE_VIOMMU_ATTACH) ||
           trace_event_get_state_backends(TRACE_VIOMMU_DETACH) ||
           trace_event_get_state_backends(TRACE_VIOMMU_MAP) ||
           trace_event_get_state_backends(TRACE_VIOMMU_UNMAP) ||
           trace_event_get_state_backends(TRACE_VIOMMU_PROBE) ||
           trace_event_get_state_backends(TRACE_VIOMMU_UNKNOWN) ||
           qemu_loglevel_mask(LOG_GUEST_ERROR);
}

static void trace_request(const ViommuRequest *request, const ViommuRequestView *v)
{
    switch (v->type) {
    case VIOMMU_T_ATTACH:
        trace_viommu_attach(v->domain, v->endpoint, v->flags, v->status);
        break;
    case VIOMMU_T_DETACH:
        trace_viommu_detach(v->domain, v->endpoint, v->status);
        break;
    case VIOMMU_T_MAP:
        trace_viommu_map(v->domain, v->first, v->last, v->phys, v->flags, v->status);
        break;
    case VIOMMU_T_UNMAP:
        trace_viommu_unmap(v->domain, v->first, v->last, v->status);
        break;
    case VIOMMU_T_PROBE:
        trace_viommu_probe(v->endpoint, v->status);
        break;
    default:
        trace_viommu_unknown(request->in_size ? request->in[0] : 0, request->in_size,
                             v->status);
    }
}

static void log_request(const ViommuRequest *request, const ViommuRequestView *v)
{
    switch (v->type) {
    case VIOMMU_T_ATTACH:
    case VIOMMU_T_DETACH:
        qemu_log("virtio-iommu: %s of endpoint 0x%x, domain %u, flags 0x%x: %s\n",
                 v->type == VIOMMU_T_ATTACH ? "ATTACH" : "DETACH", v->endpoint, v->domain,
                 v->flags, v->status);
        break;
    case VIOMMU_T_MAP:
        qemu_log("virtio-iommu: MAP of 0x%" PRIx64 "-0x%" PRIx64 " to 0x%" PRIx64
                 ", domain %u, flags 0x%x: %s\n",
                 v->first, v->last, v->phys, v->domain, v->flags, v->status);
        break;
    case VIOMMU_T_UNMAP:
        qemu_log("virtio-iommu: UNMAP of 0x%" PRIx64 "-0x%" PRIx64 ", domain %u: %s\n",
                 v->first, v->last, v->domain, v->status);
        break;
    case VIOMMU_T_PROBE:
        qemu_log("virtio-iommu: PROBE of endpoint 0x%x: %s\n", v->endpoint, v->status);
        break;
    default:
        qemu_log("virtio-iommu: request of type %u with %zu bytes: %s\n",
                 request->in_size ? request->in[0] : 0, request->in_size, v->status);
    }
}

void viommu_observe_request(const ViommuRequest *request)
{
    ViommuRequestView view;

    if (likely(!somebody_looks())) {
        return;
    }
    viommu_request_view(request, &view);
    trace_request(request, &view);
    if (view.drivers_fault && qemu_loglevel_mask(LOG_GUEST_ERROR)) {
        log_request(request, &view);
    }
}

void viommu_observe_fault(const uint8_t record[VIOMMU_FAULT_RECORD_SIZE])
{
    struct virtio_iommu_fault fault;

    QEMU_BUILD_BUG_ON(sizeof(fault) != VIOMMU_FAULT_RECORD_SIZE);
    memcpy(&fault, record, sizeof(fault));
    trace_viommu_fault_delivered(le32_to_cpu(fault.endpoint), le64_to_cpu(fault.address),
                                 fault.reason, le32_to_cpu(fault.flags));
}
