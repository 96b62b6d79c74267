// SPDX-License-Identifier: GPL-2.0-or-later
//
// What base/atomic.h is made of in this test: atomics whose operations the explorer
// (explore.h) decides about.  They take as much room as those of the standard library.
#pragma once

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace viommu
{

namespace model
{

// Of one location, which has the newest value already.  Outside of an execution all of
// them do nothing.
void created(const void *location, uint64_t value);
uint64_t load(const void *location, uint64_t newest, std::memory_order order);
void store(const void *location, uint64_t old, uint64_t value, std::memory_order order);

// Comes before store() and update(): the newest value may be another one then.
void before_change(const void *location, uint64_t newest);
void update(const void *location, uint64_t old, uint64_t value, std::memory_order order);
// What a compare-and-exchange reads.  Stores of `expected` that are not the newest are
// left out: nothing may come between what an update reads and what it writes.
uint64_t compare(const void *location, uint64_t newest, uint64_t expected, std::memory_order order);

// Memory that is given back, and taken into use again.
void poison(const void *memory, size_t size);
void unpoison(const void *memory, size_t size);

} // namespace model

// Sequential consistency is not modelled, so every operation has to name an order.
template <typename T> class Atomic
{
    // T may be a pointer.
    static constexpr size_t kSize = sizeof(T); // NOLINT(bugprone-sizeof-expression)
    static_assert(std::is_trivially_copyable_v<T> && kSize <= sizeof(uint64_t));

public:
    constexpr Atomic() noexcept : Atomic(T{}) {}
    // As with std::atomic.
    // NOLINTNEXTLINE(google-explicit-constructor)
    constexpr Atomic(T value) noexcept : value_(value)
    {
        if (!std::is_constant_evaluated()) {
            model::created(this, bits(value));
        }
    }
    Atomic(const Atomic &) = delete;
    Atomic &operator=(const Atomic &) = delete;

    T load(std::memory_order order) const { return from(model::load(this, bits(value_), order)); }
    void store(T value, std::memory_order order)
    {
        model::before_change(this, bits(value_));
        const T old = std::exchange(value_, value);
        model::store(this, bits(old), bits(value), order);
    }

    T exchange(T value, std::memory_order order)
    {
        return change([value](T) { return value; }, order);
    }
    T fetch_add(T other, std::memory_order order) requires std::integral<T>
    {
        return change([other](T old) { return static_cast<T>(old + other); }, order);
    }
    T fetch_sub(T other, std::memory_order order) requires std::integral<T>
    {
        return change([other](T old) { return static_cast<T>(old - other); }, order);
    }
    T fetch_and(T other, std::memory_order order) requires std::integral<T>
    {
        return change([other](T old) { return static_cast<T>(old & other); }, order);
    }

    bool compare_exchange_strong(T &expected, T desired, std::memory_order success,
                                 std::memory_order failure)
    {
        const uint64_t seen = model::compare(this, bits(value_), bits(expected), failure);
        if (seen != bits(expected)) {
            expected = from(seen);
            return false;
        }
        value_ = desired;
        model::update(this, seen, bits(desired), success);
        return true;
    }
    bool compare_exchange_strong(T &expected, T desired, std::memory_order order)
    {
        return compare_exchange_strong(expected, desired, order,
                                       order == std::memory_order_acq_rel
                                           ? std::memory_order_acquire
                                           : std::memory_order_relaxed);
    }
    // One that fails without a reason would only be tried again.
    bool compare_exchange_weak(T &expected, T desired, std::memory_order success,
                               std::memory_order failure)
    {
        return compare_exchange_strong(expected, desired, success, failure);
    }

private:
    static uint64_t bits(T value)
    {
        uint64_t out = 0;
        std::memcpy(&out, &value, kSize);
        return out;
    }
    static T from(uint64_t bits)
    {
        T out;
        std::memcpy(&out, &bits, kSize);
        return out;
    }
    template <typename Change> T change(Change what, std::memory_order order)
    {
        model::before_change(this, bits(value_));
        const T old = value_;
        value_ = what(old);
        model::update(this, bits(old), bits(value_), order);
        return old;
    }

    T value_; // the newest
};

// The load that comes next has to see something new: whoever waits for a change
// reads the same again until it comes.
void spin_pause();

} // namespace viommu
