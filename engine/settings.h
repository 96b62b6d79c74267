// SPDX-License-Identifier: GPL-2.0-or-later
//
// What an engine was created with, checked, and what follows from it alone.
#pragma once

#include "regions.h"
#include "wire.h"

#include "mapping/mapping.h"

#include <viommu/engine.h>

namespace viommu
{

struct Settings {
    uint64_t offered;
    uint64_t page_size_mask;
    bool sparse_page_sizes;
    uint64_t input_start;
    uint64_t input_last;
    uint32_t domain_first;
    uint32_t domain_last;
    uint32_t probe_size;
    bool boot_bypass;
    bool topology_array;
    bool linger;
    bool fault_injection;
    uint64_t max_mappings;
    uint32_t max_domains;
    uint64_t max_memory;
    Regions regions;

    // Throws a Refusal if `config` cannot be.
    explicit Settings(const ViommuEngineConfig &config);

    uint64_t granule() const { return page_size_mask & -page_size_mask; }

    // No smaller than the smallest of these sizes; see viommu_engine_raise_granule().
    void raise_granule(uint64_t page_sizes);

    bool domain_in_range(uint32_t id) const { return domain_first <= id && id <= domain_last; }

    // Bit 6 is BYPASS_CONFIG: there is a `bypass` field.
    bool has_bypass_field() const
    {
        return !topology_array && (offered & VIOMMU_F_BYPASS_CONFIG) != 0;
    }

    // Whether an endpoint can bypass at all.
    bool can_bypass() const { return has_bypass_field() || topology_array; }

    // Whether a mapping is possible at all, whatever else is mapped.
    wire::Status check_mapping(const Mapping &mapping) const;
};

} // namespace viommu
