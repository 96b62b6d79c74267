// SPDX-License-Identifier: GPL-2.0-or-later
//
// The byte forms of the virtio-iommu device: offsets, values, and checked access.  Names
// follow the specification.
#pragma once

#include "base/bytes.h"

#include <viommu/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace viommu::wire
{

enum class Type : uint8_t {
    Attach = VIOMMU_T_ATTACH,
    Detach = VIOMMU_T_DETACH,
    Map = VIOMMU_T_MAP,
    Unmap = VIOMMU_T_UNMAP,
    Probe = VIOMMU_T_PROBE,
};
inline constexpr size_t kTypes = 5; // from 1 on

enum class Status : uint8_t {
    Ok = 0,
    IoErr = 1,
    Unsupp = 2,
    DevErr = 3,
    Inval = 4,
    Range = 5,
    NoEnt = 6,
    Fault = 7,
    NoMem = 8,
};
inline constexpr size_t kStatuses = 9;

enum class Reason : uint8_t {
    Unknown = 0,
    Domain = 1,
    Mapping = 2,
};
inline constexpr size_t kReasons = 3;

inline constexpr size_t kHeadSize = 4;
inline constexpr size_t kTailSize = 4;

inline constexpr uint32_t kAttachBypass = 1u << 0;

inline constexpr uint32_t kMapRead = 1u << 0;
inline constexpr uint32_t kMapWrite = 1u << 1;
inline constexpr uint32_t kMapMmio = 1u << 2;

inline constexpr uint32_t kFaultRead = 1u << 0;
inline constexpr uint32_t kFaultWrite = 1u << 1;
inline constexpr uint32_t kFaultAddress = 1u << 8;

inline constexpr uint16_t kPropertyResvMem = 1;
inline constexpr size_t kPropertyHeadSize = 4;
inline constexpr size_t kResvMemSize = 24; // with the property's head

// Bytes that the guest controls, already copied out of its memory.
class GuestBytes
{
public:
    explicit GuestBytes(std::span<const uint8_t> bytes) : bytes_(bytes) {}

    size_t size() const { return bytes_.size(); }

    // The little-endian value at `offset`; the part of it beyond the end is 0.
    template <typename T> T get(size_t offset) const
    {
        return load_little<T>(bytes_.subspan(std::min(offset, bytes_.size())));
    }

private:
    std::span<const uint8_t> bytes_;
};

// Requests as the guest sent them: read, not yet believed.  parse() yields
// nothing if the readable part is too short for the type.

struct AttachRequest {
    uint32_t domain;
    uint32_t endpoint;
    uint32_t flags;
    uint32_t reserved;

    static std::optional<AttachRequest> parse(const GuestBytes &in)
    {
        if (in.size() < 20) {
            return std::nullopt;
        }
        return AttachRequest{in.get<uint32_t>(4), in.get<uint32_t>(8), in.get<uint32_t>(12),
                             in.get<uint32_t>(16)};
    }
};

struct DetachRequest {
    uint32_t domain;
    uint32_t endpoint;

    static std::optional<DetachRequest> parse(const GuestBytes &in)
    {
        if (in.size() < 20) {
            return std::nullopt;
        }
        return DetachRequest{in.get<uint32_t>(4), in.get<uint32_t>(8)};
    }
};

struct MapRequest {
    uint32_t domain;
    uint64_t virt_start;
    uint64_t virt_end;
    uint64_t phys_start;
    uint32_t flags;

    static std::optional<MapRequest> parse(const GuestBytes &in)
    {
        if (in.size() < 36) {
            return std::nullopt;
        }
        return MapRequest{in.get<uint32_t>(4), in.get<uint64_t>(8), in.get<uint64_t>(16),
                          in.get<uint64_t>(24), in.get<uint32_t>(32)};
    }
};

struct UnmapRequest {
    uint32_t domain;
    uint64_t virt_start;
    uint64_t virt_end;

    static std::optional<UnmapRequest> parse(const GuestBytes &in)
    {
        if (in.size() < 28) {
            return std::nullopt;
        }
        return UnmapRequest{in.get<uint32_t>(4), in.get<uint64_t>(8), in.get<uint64_t>(16)};
    }
};

struct ProbeRequest {
    uint32_t endpoint;

    static std::optional<ProbeRequest> parse(const GuestBytes &in)
    {
        if (in.size() < 72) {
            return std::nullopt;
        }
        return ProbeRequest{in.get<uint32_t>(4)};
    }
};

} // namespace viommu::wire
