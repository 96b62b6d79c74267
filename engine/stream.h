// SPDX-License-Identifier: GPL-2.0-or-later
//
// The migrated state, in the byte form of QEMU's own device so that either can
// follow the other.  Numbers are big-endian; a flag is one byte, 0 or 1; "more"
// is a flag before each element of a list, and 0 after the last.
//
//   state:    u32 number of domains
//             { more=1, u64 key, domain } ... more=0      ascending by key
//             u8 bypass (the config field)
//   domain:   u32 id                                      equal to the key
//             u32 number of mappings
//             { more=1, mapping } ... more=0              ascending by IOVA
//             { more=1, u32 endpoint ID } ... more=0
//             flag bypass
//   mapping:  u64 first IOVA, u64 last IOVA, u64 physical address, u32 MAP flags
//
// Whoever wrote the stream is not believed: every value is checked as it would
// be in a request, and nothing is allocated for elements not yet read.  What
// does not depend on who the endpoints are is checked here, the rest when the
// staged state is put in force.
#pragma once

#include "settings.h"

#include "mapping/mapping_set.h"

#include <viommu/engine.h>

#include <cstdint>
#include <vector>

namespace viommu::stream
{

struct StagedDomain {
    uint32_t id = 0;
    bool bypass = false;
    MappingSet mappings;
    std::vector<uint32_t> endpoint_ids;
};

struct Staged {
    std::vector<StagedDomain> domains; // ascending by ID
    bool bypass = false;
};

class Writer
{
public:
    Writer(ViommuPut sink, void *ctx) : put_(sink), ctx_(ctx) {}

    void count(size_t elements);
    void more(bool more) { byte(more ? 1 : 0); }
    void key(uint64_t key);
    void id(uint32_t id);
    void flag(bool value) { byte(value ? 1 : 0); }
    void mapping(const Mapping &mapping);

    // False as soon as something could not be written.
    bool ok() const { return ok_; }

private:
    template <typename T> void number(T value);
    void byte(uint8_t value) { put(&value, 1); }
    void put(const uint8_t *bytes, size_t size) { ok_ = ok_ && put_(ctx_, bytes, size); }

    ViommuPut put_;
    void *ctx_;
    bool ok_ = true;
};

// Throws a Refusal if the stream is short or says something impossible.
Staged read(ViommuGet get, void *ctx, const Settings &settings);

} // namespace viommu::stream
