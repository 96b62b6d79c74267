// SPDX-License-Identifier: GPL-2.0-or-later
//
// What translate() writes: a lane for each thread and endpoint, so that threads
// share no cache line that any of them writes.
#pragma once

#include "mapping_set.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace viommu
{

// An answer that a mapping gave, and what it rests on: while the routes have that
// version and the domain's set holds the sighting, it is right for the whole block.
struct Hit {
    static constexpr uint64_t kNoRoute = 0; // nothing here

    uint64_t route;
    uint64_t base;
    uint64_t mask;
    uint64_t phys; // of `base`
    MappingSet::Sighting sighting;
    uint32_t rights;
};

struct Counts {
    uint64_t translations = 0;
    uint64_t faults = 0;

    Counts &operator+=(const Counts &other)
    {
        translations += other.translations;
        faults += other.faults;
        return *this;
    }
};

class alignas(64) Lane
{
public:
    // nullptr: no memory.  Only what is used of a lane takes memory.
    static Lane *make() noexcept;
    static void destroy(Lane *lane) noexcept;

    // For the thread whose lane it is.

    void count_translation() { add_one(translations_); }
    void count_fault() { add_one(faults_); }

    // Where an answer for `iova` is, or belongs.
    Hit &hit(uint64_t iova) { return hits_[iova / kPage % kHits]; }
    const Hit &hit(uint64_t iova) const { return hits_[iova / kPage % kHits]; }

    // Any thread.
    Counts counts() const
    {
        return {translations_.load(std::memory_order_relaxed),
                faults_.load(std::memory_order_relaxed)};
    }

private:
    // The hits stay as the system gave the memory, all zero, and nobody has touched it.
    Lane() noexcept {}

    // Of 4 KiB each they reach as far as what a busy device has under way.
    static constexpr size_t kHits = 1024;
    static constexpr uint64_t kPage = 4096;

    static void add_one(std::atomic<uint64_t> &count)
    {
        count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }

    std::atomic<uint64_t> translations_{0};
    std::atomic<uint64_t> faults_{0};
    std::array<Hit, kHits> hits_;
};

// The lanes of one endpoint.
class Lanes
{
public:
    Lanes() = default;
    Lanes(const Lanes &) = delete;
    Lanes &operator=(const Lanes &) = delete;
    ~Lanes(); // no thread has a lane in hand

    // Any thread: its own lane; nullptr if there are too many threads, or no
    // memory for one.
    Lane *mine()
    {
        const uint8_t number = my_number_;
        Lane *const lane =
            number < kThreads ? lanes_[number].load(std::memory_order_relaxed) : nullptr;
        return lane ? lane : mine_at_first();
    }

    // For threads without one.
    void count_translation() { translations_.fetch_add(1, std::memory_order_relaxed); }
    void count_fault() { faults_.fetch_add(1, std::memory_order_relaxed); }

    // Of all threads, those that have ended included.
    Counts counts() const;

    static constexpr size_t kThreads = 64;

private:
    Lane *mine_at_first();

    // Of the thread, once it has asked for one.
    static constexpr uint8_t kNone = kThreads;
    static constexpr uint8_t kUnknown = kNone + 1;
    static constinit thread_local uint8_t my_number_;
    struct Ticket;
    static uint8_t take_number();

    std::array<std::atomic<Lane *>, kThreads> lanes_{};
    alignas(64) std::atomic<uint64_t> translations_{0};
    std::atomic<uint64_t> faults_{0};
};

} // namespace viommu
