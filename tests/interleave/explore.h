// SPDX-License-Identifier: GPL-2.0-or-later
//
// Runs a few threads in every way that the memory model allows.  README.md says which
// model that is, and how a scenario is written.
#pragma once

#ifndef VIOMMU_MODEL
#define VIOMMU_MODEL "tests/interleave/model.h"
#endif

#include "base/atomic.h"
#include "base/reclaimer.h"

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace viommu::model
{

// One run of a scenario.
class Execution
{
public:
    using Threads = std::vector<std::function<void()>>;

    // No thread reads what a later one in the list stores: then each can run to its end before
    // the next begins, and loads alone make the difference.  That they do not is checked.
    void one_way(const Threads &threads);
    // Any.  False if they came to no end, in an order of events that another execution
    // has as well: nothing is to be concluded from this one.
    bool both_ways(const Threads &threads);
};

struct Outcome {
    uint64_t executions; // that came to an end
    uint64_t abandoned;  // that did not
    std::string fault;   // of the last one; empty if all were as they must be
};

// Calls `scenario` until it has run in every way, or something was wrong.  It makes
// its objects, runs the threads once, and says with require() what has to be true.
Outcome explore(const std::function<void(Execution &)> &scenario);

// Ends the exploration if it is not the truth.
void require(bool truth, const char *sentence);

// RCU.  A reader in a section that began after the grace period did may not touch what
// was deferred before: it may be free by then.  A section that began earlier may, and knows
// nothing of what was done since.  Outside of sections nobody may.
class Rcu final : public Reclaimer
{
public:
    // Tells which memory readers reach through what is deferred.
    using Tell = std::function<void(const void *memory, size_t size)>;
    using Extent = std::function<void(const ViommuDeferred &object, const Tell &tell)>;
    explicit Rcu(Extent extent) : extent_(std::move(extent)) {}
    Rcu(const Rcu &) = delete;
    Rcu &operator=(const Rcu &) = delete;
    ~Rcu();

    // After the threads: frees what was deferred.
    void reclaim();

    // In a thread: what `object` is in has been unlinked.
    void defer(ViommuDeferred &object) noexcept override;

    class Section
    {
    public:
        explicit Section(const Rcu &rcu);
        ~Section();
        Section(const Section &) = delete;
        Section &operator=(const Section &) = delete;
    };

private:
    const Extent extent_;
    Atomic<uint64_t> begun_{0}; // grace periods
    std::vector<ViommuDeferred *> deferred_;
};

} // namespace viommu::model
