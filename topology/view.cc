// SPDX-License-Identifier: GPL-2.0-or-later
//
// The model entry by entry, for users to see.
#include "model.h"

#include <viommu/inspect.h>

namespace
{

using viommu::topology::Iommu;

const Iommu *iommu_at(const ViommuTopology *topology, size_t i)
{
    return topology && i < topology->model.iommus().size() ? &topology->model.iommus()[i] : nullptr;
}

} // namespace

bool viommu_topology_root_bus(const ViommuTopology *topology, size_t i,
                              ViommuRootBusView *out) noexcept
{
    if (!topology || i >= topology->model.root_buses().size()) {
        return false;
    }
    const viommu::topology::RootBus &bus = topology->model.root_buses()[i];
    *out = {bus.name.c_str(), bus.segment, bus.first_bus, bus.last_bus, bus.bypass, bus.iommu};
    return true;
}

bool viommu_topology_iommu(const ViommuTopology *topology, size_t i, ViommuIommuView *out) noexcept
{
    const Iommu *const iommu = iommu_at(topology, i);
    if (!iommu) {
        return false;
    }
    *out = {iommu->name.c_str(), iommu->kind == VIOMMU_IOMMU_MMIO,
            uint32_t{iommu->segment} << 16 | iommu->requester_id, iommu->base};
    return true;
}

bool viommu_topology_range(const ViommuTopology *topology, uint32_t iommu, size_t i,
                           ViommuIdRange *out) noexcept
{
    const Iommu *const manager = iommu_at(topology, iommu);
    if (!manager || i >= manager->ranges.size()) {
        return false;
    }
    *out = {manager->ranges[i].first_id(), manager->ranges[i].last_id()};
    return true;
}

bool viommu_topology_mmio_endpoint(const ViommuTopology *topology, uint32_t iommu, size_t i,
                                   ViommuMmioEndpointView *out) noexcept
{
    const Iommu *const manager = iommu_at(topology, iommu);
    if (!manager || i >= manager->endpoints.size()) {
        return false;
    }
    const viommu::topology::MmioEndpoint &endpoint = manager->endpoints[i];
    *out = {endpoint.name.c_str(), endpoint.id, endpoint.base};
    return true;
}
