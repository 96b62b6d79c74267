// SPDX-License-Identifier: GPL-2.0-or-later
#include "injection.h"

#include "engine.h"
#include "request_view.h"

#include "base/error.h"

#include <viommu/injection.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <string>

namespace viommu
{

void RequestInjection::arm(wire::Type type, wire::Status status, uint32_t count)
{
    Armed &armed = armed_[static_cast<size_t>(type)];
    types_ -= armed.left != 0 ? 1 : 0;
    armed = {status, count};
    types_ += armed.left != 0 ? 1 : 0;
}

std::optional<wire::Status> RequestInjection::take(uint8_t type)
{
    if (type >= armed_.size() || armed_[type].left == 0) {
        return std::nullopt;
    }
    Armed &armed = armed_[type];
    if (--armed.left == 0) {
        types_--;
    }
    return armed.status;
}

// Only what could have been answered is: the others go back as they do.
std::optional<Engine::Answered> Engine::answer_injected(const wire::GuestBytes &in, size_t writable,
                                                        uint8_t *out)
{
    const auto type = in.get<uint8_t>(0);
    if (in.size() < wire::kHeadSize || writable < wire::kTailSize) {
        return std::nullopt;
    }
    const std::optional<wire::Status> status = request_injection_.take(type);
    if (!status) {
        return std::nullopt;
    }
    const size_t area = wire::Type{type} == wire::Type::Probe
                            ? std::min<size_t>(settings_.probe_size, writable - wire::kTailSize)
                            : 0;
    std::fill_n(out, area + wire::kTailSize, uint8_t{0});
    out[area] = static_cast<uint8_t>(*status);
    return Answered{area + wire::kTailSize, *status};
}

void Engine::inject(const ViommuInjection &wanted)
{
    if (!settings_.fault_injection) {
        throw Refusal("inject: the device was not made for it: fault-injection=off");
    }
    const auto reason = wire::Reason{wanted.reason};
    if (wanted.kind == VIOMMU_INJECT_NOTHING) {
        request_injection_.disarm();
        for (Endpoint *endpoint : endpoints_) {
            endpoint->injection.arm(0, reason);
        }
        return;
    }
    if (wanted.kind == VIOMMU_INJECT_REQUESTS) {
        request_injection_.arm(wire::Type{wanted.type}, wire::Status{wanted.status}, wanted.count);
        return;
    }
    ViommuEndpoint *const endpoint = endpoint_of(wanted.endpoint);
    if (!endpoint) {
        char text[64];
        std::snprintf(text, sizeof(text), "inject: nobody here has endpoint ID 0x%" PRIx32,
                      wanted.endpoint);
        throw Refusal(text);
    }
    if (wanted.kind == VIOMMU_INJECT_RECORD) {
        if (!shared_.faults.queue(endpoint->fault_source, wanted.address, reason, wanted.access)) {
            throw Refusal("inject: the record is dropped: no driver is there, one of this page "
                          "waits already, or too many do");
        }
        return;
    }
    {
        // What threads remember is void from here on.
        AttachmentChange change(shared_.attachments);
        endpoint->injection.arm(wanted.count, reason);
    }
    // So is what a listener that only caches has.
    drop_cached(*endpoint, 0, UINT64_MAX);
}

size_t Engine::armed_requests(std::span<ViommuArmedRequests, wire::kTypes> out) const
{
    size_t count = 0;
    for (uint8_t type = VIOMMU_T_ATTACH; type <= VIOMMU_T_PROBE; type++) {
        const RequestInjection::Armed &armed = request_injection_.of(wire::Type{type});
        if (armed.left != 0) {
            out[count++] = {type_name(type), name_of(armed.status), armed.left};
        }
    }
    return count;
}

} // namespace viommu

using viommu::big_lock;

bool viommu_engine_inject(ViommuEngine *engine, const ViommuInjection *wanted, char *error,
                          size_t error_size) noexcept
{
    return viommu::at_boundary(error, error_size, false, [&] {
        big_lock.assert_held();
        engine->inject(*wanted);
        return true;
    });
}

size_t viommu_engine_armed_requests(const ViommuEngine *engine,
                                    ViommuArmedRequests out[VIOMMU_T_PROBE]) noexcept
{
    big_lock.assert_held();
    return engine->armed_requests(
        std::span<ViommuArmedRequests, viommu::wire::kTypes>(out, viommu::wire::kTypes));
}

uint32_t viommu_endpoint_armed_accesses(const ViommuEndpoint *endpoint) noexcept
{
    return endpoint->injection.left();
}
