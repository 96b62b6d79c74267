// SPDX-License-Identifier: GPL-2.0-or-later
//
// The C form of the engine.  Nothing is thrown past here: functions that can
// run out of memory say so in their own way, the others cannot throw.
#include "engine.h"
#include "request_view.h"

#include "base/error.h"

#include <memory>

using viommu::at_boundary;
using viommu::big_lock;
using viommu::Refusal;

namespace
{

bool callbacks_complete(const ViommuCallbacks &callbacks) noexcept
{
    return callbacks.resolve && callbacks.endpoint_id && callbacks.begin_switch &&
           callbacks.commit_switch && callbacks.set_translating && callbacks.notify_map &&
           callbacks.defer && callbacks.notify_unmap && callbacks.drop_cached;
}

} // namespace

size_t viommu_regions_collect(const ViommuRegion *in, size_t user, size_t n, ViommuRegion *out,
                              size_t cap) noexcept
{
    return viommu::collect_regions({in, user}, {in, n}, std::span<ViommuRegion>{out, cap});
}

/* Engine */

ViommuEngine *viommu_engine_new(const ViommuEngineConfig *config, const ViommuCallbacks *callbacks,
                                void *opaque, char *error, size_t error_size) noexcept
{
    return at_boundary<ViommuEngine *>(error, error_size, nullptr, [&] {
        if (!callbacks_complete(*callbacks)) {
            throw Refusal("a callback is missing");
        }
        return std::make_unique<ViommuEngine>(*config, *callbacks, opaque).release();
    });
}

void viommu_engine_free(ViommuEngine *engine) noexcept
{
    delete engine;
}

void viommu_engine_set_topology(ViommuEngine *engine, const ViommuTopology *topology,
                                uint32_t iommu) noexcept
{
    big_lock.assert_held();
    engine->set_topology(topology, iommu);
}

void viommu_engine_raise_granule(ViommuEngine *engine, uint64_t page_sizes) noexcept
{
    big_lock.assert_held();
    engine->raise_granule(page_sizes);
}

void viommu_engine_set_features(ViommuEngine *engine, uint64_t negotiated) noexcept
{
    big_lock.assert_held();
    engine->set_features(negotiated);
}

void viommu_engine_set_live(ViommuEngine *engine, bool live) noexcept
{
    big_lock.assert_held();
    engine->set_live(live);
}

void viommu_engine_driver_reset(ViommuEngine *engine) noexcept
{
    big_lock.assert_held();
    engine->driver_reset();
}

void viommu_engine_driver_returns(ViommuEngine *engine) noexcept
{
    big_lock.assert_held();
    engine->driver_returns();
}

bool viommu_engine_lingering(const ViommuEngine *engine) noexcept
{
    big_lock.assert_held();
    return engine->lingering();
}

void viommu_engine_device_reset(ViommuEngine *engine) noexcept
{
    big_lock.assert_held();
    engine->device_reset();
}

void viommu_engine_system_reset(ViommuEngine *engine) noexcept
{
    big_lock.assert_held();
    engine->system_reset();
}

void viommu_engine_read_config(const ViommuEngine *engine,
                               uint8_t config[VIOMMU_CONFIG_SIZE]) noexcept
{
    big_lock.assert_held();
    engine->read_config(std::span<uint8_t, VIOMMU_CONFIG_SIZE>(config, VIOMMU_CONFIG_SIZE));
}

bool viommu_engine_write_bypass(ViommuEngine *engine, uint8_t value) noexcept
{
    big_lock.assert_held();
    return engine->write_bypass(value);
}

bool viommu_engine_bypass(const ViommuEngine *engine) noexcept
{
    big_lock.assert_held();
    return engine->bypass();
}

size_t viommu_engine_reply_max(const ViommuEngine *engine) noexcept
{
    return engine->reply_max();
}

bool viommu_engine_handle(ViommuEngine *engine, ViommuRequest *request) noexcept
{
    big_lock.assert_held();
    return engine->handle(*request);
}

void viommu_request_view(const ViommuRequest *request, ViommuRequestView *out) noexcept
{
    *out = viommu::view_of(*request);
}

bool viommu_engine_pop_fault(ViommuEngine *engine,
                             uint8_t record[VIOMMU_FAULT_RECORD_SIZE]) noexcept
{
    big_lock.assert_held();
    return engine->pop_fault(
        std::span<uint8_t, VIOMMU_FAULT_RECORD_SIZE>(record, VIOMMU_FAULT_RECORD_SIZE));
}

bool viommu_engine_fault_ready(ViommuEngine *engine) noexcept
{
    big_lock.assert_held();
    return engine->oldest_fault().has_value();
}

void viommu_engine_stats(const ViommuEngine *engine, ViommuStats *out) noexcept
{
    big_lock.assert_held();
    *out = engine->stats();
}

/* Endpoints */

ViommuEndpoint *viommu_endpoint_new(ViommuEngine *engine, void *opaque, const ViommuRegion *regions,
                                    size_t region_count) noexcept
{
    return at_boundary<ViommuEndpoint *>(nullptr, 0, nullptr, [&] {
        big_lock.assert_held();
        return engine->add_endpoint(opaque, {regions, region_count});
    });
}

bool viommu_endpoint_set_hosts(ViommuEndpoint *endpoint, const ViommuHostDevice *hosts,
                               size_t count, char *error, size_t error_size) noexcept
{
    return at_boundary(error, error_size, false, [&] {
        big_lock.assert_held();
        endpoint->engine.set_hosts(*endpoint, {hosts, count});
        return true;
    });
}

void viommu_endpoint_retire(ViommuEndpoint *endpoint) noexcept
{
    big_lock.assert_held();
    endpoint->engine.retire(*endpoint);
}

void viommu_endpoint_free(ViommuEndpoint *endpoint) noexcept
{
    big_lock.assert_held();
    endpoint->engine.remove_endpoint(*endpoint);
    delete endpoint;
}

void viommu_engine_forget(ViommuEngine *engine, const ViommuIdentity *gone, size_t count) noexcept
{
    big_lock.assert_held();
    engine->forget({gone, count});
}

bool viommu_endpoint_translating(const ViommuEndpoint *endpoint) noexcept
{
    big_lock.assert_held();
    return endpoint->engine.must_translate(*endpoint);
}

void viommu_endpoint_set_listeners(ViommuEndpoint *endpoint, bool map, bool unmap) noexcept
{
    big_lock.assert_held();
    endpoint->engine.set_listeners(*endpoint, map, unmap);
}

void viommu_endpoint_replay(ViommuEndpoint *endpoint, ViommuMappingVisitor visit,
                            void *ctx) noexcept
{
    big_lock.assert_held();
    endpoint->engine.replay(*endpoint, [=](auto... block) {
        big_lock.assert_held();
        if (!visit(ctx, block...)) {
            endpoint->behind = true;
        }
    });
}

void viommu_endpoint_stats(const ViommuEndpoint *endpoint, ViommuEndpointStats *out) noexcept
{
    big_lock.assert_held();
    const viommu::Domain *const domain = endpoint->stable_domain();
    *out = ViommuEndpointStats{};
    out->attached = domain != nullptr;
    if (domain) {
        out->bypass = domain->bypass;
        out->domain = domain->id;
    }
    const viommu::Counts counts = endpoint->counts();
    out->translations = counts.translations;
    out->faults = counts.faults;
}

/* Migration */

bool viommu_engine_save(ViommuEngine *engine, ViommuPut put, void *ctx) noexcept
{
    big_lock.assert_held();
    return engine->save(put, ctx);
}

bool viommu_engine_load(ViommuEngine *engine, ViommuGet get, void *ctx, char *error,
                        size_t error_size) noexcept
{
    return at_boundary(error, error_size, false, [&] {
        big_lock.assert_held();
        engine->load(get, ctx);
        return true;
    });
}

bool viommu_engine_load_commit(ViommuEngine *engine, bool driven, char *error,
                               size_t error_size) noexcept
{
    return at_boundary(error, error_size, false, [&] {
        big_lock.assert_held();
        engine->load_commit(driven);
        return true;
    });
}
