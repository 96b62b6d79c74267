// SPDX-License-Identifier: GPL-2.0-or-later
//
// The fuzzer's bytes as a sequence of decisions.  When they are used up every
// further decision is 0.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace viommu::fuzz
{

class Input
{
public:
    Input(const uint8_t *data, size_t size) : rest_(data, size) {}

    bool empty() const { return rest_.empty(); }

    uint8_t byte()
    {
        if (rest_.empty()) {
            return 0;
        }
        const uint8_t value = rest_.front();
        rest_ = rest_.subspan(1);
        return value;
    }

    template <typename T> T number()
    {
        uint64_t value = 0;
        for (size_t i = 0; i < sizeof(T); i++) {
            value |= uint64_t{byte()} << (8 * i);
        }
        return static_cast<T>(value);
    }

    // 0 .. limit-1; `limit` is at most 256.
    size_t below(size_t limit) { return byte() % limit; }

    bool flag() { return (byte() & 1) != 0; }

    template <typename Range> const auto &one_of(const Range &range)
    {
        return range[below(std::size(range))];
    }

    std::vector<uint8_t> bytes(size_t count)
    {
        const auto taken = rest_.first(std::min(count, rest_.size()));
        rest_ = rest_.subspan(taken.size());
        return {taken.begin(), taken.end()};
    }

    std::vector<uint8_t> rest() { return bytes(rest_.size()); }

private:
    std::span<const uint8_t> rest_;
};

} // namespace viommu::fuzz

// What libFuzzer and replay.cc call.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
