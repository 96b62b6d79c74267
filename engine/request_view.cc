// SPDX-License-Identifier: GPL-2.0-or-later
#include "request_view.h"

#include <algorithm>

namespace viommu
{

using wire::Status;
using wire::Type;

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

const char *type_name(uint8_t type)
{
    switch (type) {
    case VIOMMU_T_ATTACH:
        return "attach";
    case VIOMMU_T_DETACH:
        return "detach";
    case VIOMMU_T_MAP:
        return "map";
    case VIOMMU_T_UNMAP:
        return "unmap";
    case VIOMMU_T_PROBE:
        return "probe";
    default:
        return "unknown";
    }
}

namespace
{

// Memory that has run out is no fault of the driver's.
bool is_drivers_fault(Status status)
{
    return status == Status::Unsupp || status == Status::Inval || status == Status::Range ||
           status == Status::NoEnt;
}

// Whether it is of a type that there is, and long enough for it.
bool view_fields(Type type, const wire::GuestBytes &in, ViommuRequestView &view)
{
    switch (type) {
    case Type::Attach:
        if (const auto request = wire::AttachRequest::parse(in)) {
            view.domain = request->domain;
            view.endpoint = request->endpoint;
            view.flags = request->flags;
            return true;
        }
        break;
    case Type::Detach:
        if (const auto request = wire::DetachRequest::parse(in)) {
            view.domain = request->domain;
            view.endpoint = request->endpoint;
            return true;
        }
        break;
    case Type::Map:
        if (const auto request = wire::MapRequest::parse(in)) {
            view.domain = request->domain;
            view.first = request->virt_start;
            view.last = request->virt_end;
            view.phys = request->phys_start;
            view.flags = request->flags;
            return true;
        }
        break;
    case Type::Unmap:
        if (const auto request = wire::UnmapRequest::parse(in)) {
            view.domain = request->domain;
            view.first = request->virt_start;
            view.last = request->virt_end;
            return true;
        }
        break;
    case Type::Probe:
        if (const auto request = wire::ProbeRequest::parse(in)) {
            view.endpoint = request->endpoint;
            return true;
        }
        break;
    }
    return false;
}

} // namespace

ViommuRequestView view_of(const ViommuRequest &request)
{
    ViommuRequestView view{};
    const size_t size = std::min<size_t>(request.in_size, VIOMMU_REQUEST_MAX);
    const wire::GuestBytes in({request.in, size});
    const auto type = in.get<uint8_t>(0);
    view.type = view_fields(Type{type}, in, view) ? type : 0;
    if (request.used < wire::kTailSize) {
        view.status = kUnanswered;
        view.drivers_fault = true;
    } else {
        const auto status = Status{request.out[request.used - wire::kTailSize]};
        view.status = name_of(status);
        view.drivers_fault = is_drivers_fault(status);
    }
    return view;
}

} // namespace viommu
