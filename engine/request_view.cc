// SPDX-License-Identifier: GPL-2.0-or-later
#include "request_view.h"

#include "wire.h"

#include <algorithm>

namespace viommu
{

namespace
{

using wire::Status;
using wire::Type;

static_assert(uint8_t{VIOMMU_T_ATTACH} == static_cast<uint8_t>(Type::Attach) &&
              uint8_t{VIOMMU_T_DETACH} == static_cast<uint8_t>(Type::Detach) &&
              uint8_t{VIOMMU_T_MAP} == static_cast<uint8_t>(Type::Map) &&
              uint8_t{VIOMMU_T_UNMAP} == static_cast<uint8_t>(Type::Unmap) &&
              uint8_t{VIOMMU_T_PROBE} == static_cast<uint8_t>(Type::Probe));

const char *name_of(Status status)
{
    switch (status) {
    case Status::Ok:
        return "OK";
    case Status::IoErr:
        return "IOERR";
    case Status::Unsupp:
        return "UNSUPP";
    case Status::DevErr:
        return "DEVERR";
    case Status::Inval:
        return "INVAL";
    case Status::Range:
        return "RANGE";
    case Status::NoEnt:
        return "NOENT";
    case Status::Fault:
        return "FAULT";
    case Status::NoMem:
        return "NOMEM";
    }
    return "unknown";
}

// Memory that has run out is no fault of the driver's.
bool is_drivers_fault(Status status)
{
    return status == Status::Unsupp || status == Status::Inval || status == Status::Range ||
           status == Status::NoEnt;
}

void view_fields(const wire::GuestBytes &in, ViommuRequestView &view)
{
    if (in.size() < wire::kHeadSize) {
        return;
    }
    switch (const auto type = wire::Type{in.get<uint8_t>(0)}) {
    case Type::Attach:
        if (const auto request = wire::AttachRequest::parse(in)) {
            view.type = static_cast<uint8_t>(type);
            view.domain = request->domain;
            view.endpoint = request->endpoint;
            view.flags = request->flags;
        }
        break;
    case Type::Detach:
        if (const auto request = wire::DetachRequest::parse(in)) {
            view.type = static_cast<uint8_t>(type);
            view.domain = request->domain;
            view.endpoint = request->endpoint;
        }
        break;
    case Type::Map:
        if (const auto request = wire::MapRequest::parse(in)) {
            view.type = static_cast<uint8_t>(type);
            view.domain = request->domain;
            view.first = request->virt_start;
            view.last = request->virt_end;
            view.phys = request->phys_start;
            view.flags = request->flags;
        }
        break;
    case Type::Unmap:
        if (const auto request = wire::UnmapRequest::parse(in)) {
            view.type = static_cast<uint8_t>(type);
            view.domain = request->domain;
            view.first = request->virt_start;
            view.last = request->virt_end;
        }
        break;
    case Type::Probe:
        if (const auto request = wire::ProbeRequest::parse(in)) {
            view.type = static_cast<uint8_t>(type);
            view.endpoint = request->endpoint;
        }
        break;
    }
}

} // namespace

ViommuRequestView view_of(const ViommuRequest &request)
{
    ViommuRequestView view{};
    const size_t size = std::min<size_t>(request.in_size, VIOMMU_REQUEST_MAX);
    view_fields(wire::GuestBytes({request.in, size}), view);
    if (request.used < wire::kTailSize) {
        view.status = "unanswered";
        view.drivers_fault = true;
    } else {
        const auto status = Status{request.out[request.used - wire::kTailSize]};
        view.status = name_of(status);
        view.drivers_fault = is_drivers_fault(status);
    }
    return view;
}

} // namespace viommu
