// SPDX-License-Identifier: GPL-2.0-or-later
//
// Faults that are made: what is armed.  Nothing of it is looked at by an access whose answer
// is remembered: who arms something makes all that is remembered void, and what an endpoint
// is answered while something is armed for it is not remembered.
#pragma once

#include "wire.h"

#include "base/atomic.h"

#include <array>
#include <cstdint>
#include <optional>

namespace viommu
{

// Of one endpoint.
class AccessInjection
{
public:
    // One thread at a time; 0: nothing.
    void arm(uint32_t count, wire::Reason reason)
    {
        state_.store(uint64_t{static_cast<uint8_t>(reason)} << 32 | count,
                     std::memory_order_relaxed);
    }

    // Any thread.

    uint32_t left() const { return static_cast<uint32_t>(state_.load(std::memory_order_relaxed)); }

    // The reason for which this access has to fail, if it has to.
    std::optional<wire::Reason> take()
    {
        uint64_t state = state_.load(std::memory_order_relaxed);
        while (static_cast<uint32_t>(state) != 0) {
            if (state_.compare_exchange_strong(state, state - 1, std::memory_order_relaxed)) {
                return static_cast<wire::Reason>(state >> 32);
            }
        }
        return std::nullopt;
    }

private:
    // How many, and above it the reason: they change in one go.
    Atomic<uint64_t> state_{0};
};

// Of the requests of one engine.  Under the big lock.
class RequestInjection
{
public:
    void arm(wire::Type type, wire::Status status, uint32_t count);
    void disarm() { *this = RequestInjection(); }

    bool armed() const { return types_ != 0; }
    // The status that a request of this type has to get, if it has to.
    std::optional<wire::Status> take(uint8_t type);

    struct Armed {
        wire::Status status;
        uint32_t left;
    };
    const Armed &of(wire::Type type) const { return armed_[static_cast<size_t>(type)]; }

private:
    std::array<Armed, wire::kTypes + 1> armed_{}; // by type
    unsigned types_ = 0;                          // how many of them have some left
};

} // namespace viommu
