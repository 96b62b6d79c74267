// SPDX-License-Identifier: GPL-2.0-or-later
//
// Translations beside requests: one thread sends some, another one translates twice, and may
// remember.  Each answer has to be right at one moment between the last request that the
// thread knew to be answered and the answer.
#include "explore.h"

#include "engine/endpoint.h"
#include "mapping/nodes.h"
#include "tests/interleave/extent.h"
#include "tests/unit/engine/machine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace viommu::model
{

namespace
{

using test::Request;

constexpr uint32_t kId = 0x30, kOther = 0x38;
constexpr uint64_t kAt = 0x1234;

// Where an access leads to, if anywhere.
using Answer = std::optional<uint64_t>;

// What an engine defers, told by who frees it.
void extent(const ViommuDeferred &object, const Rcu::Tell &tell)
{
    static const auto trees = [] {
        struct Catcher : Reclaimer {
            void defer(ViommuDeferred &tree) noexcept override { caught = &tree; }
            ViommuDeferred *caught = nullptr;
        } catcher;
        MappingSet set(&catcher);
        set.insert({0, 0xfff, 0, VIOMMU_READ});
        set.clear();
        const auto reclaim = catcher.caught->reclaim;
        while (reclaim(catcher.caught)) {
        }
        return reclaim;
    }();
    if (object.reclaim == trees) {
        extent_of_trees(object, tell);
    } else {
        // A domain, a list of regions or a cache, of which the smallest is long enough to
        // have what readers look at first.
        tell(&object, sizeof(RegionList));
    }
}

// An engine with two endpoints, driven.
class Guest
{
public:
    explicit Guest(bool bypass)
    {
        const ViommuIommuDesc iommu{"viommu0", VIOMMU_IOMMU_PCI, 0, test::kIommuId, 0, nullptr,
                                    0,         nullptr,          0};
        const ViommuRootBusDesc bus{"pcie.0", 0, 0, 255, false};
        const ViommuMachineDesc machine{&iommu, 1, &bus, 1, nullptr, 0, false, nullptr, 0};
        topology_ = viommu_topology_new(&machine, nullptr, 0);

        ViommuCallbacks callbacks = test::some_callbacks();
        callbacks.defer = [](void *opaque, ViommuDeferred *object) {
            static_cast<Guest *>(opaque)->rcu.defer(*object);
        };
        callbacks.resolve = [](void *opaque, uint32_t id, ViommuIdentity *out) {
            auto *const guest = static_cast<Guest *>(opaque);
            *out = {id == kId ? guest->endpoint : guest->other_, id};
            return true;
        };
        const test::Config config = test::Config().bypass(bypass);
        engine_ = viommu_engine_new(&config, &callbacks, this, nullptr, 0);
        viommu_engine_set_topology(engine_, topology_, 0);
        endpoint = viommu_endpoint_new(engine_, nullptr, nullptr, 0);
        other_ = viommu_endpoint_new(engine_, nullptr, nullptr, 0);
        viommu_engine_driver_returns(engine_);
        viommu_engine_set_features(engine_, test::kAllFeatures);
        viommu_engine_set_live(engine_, true);
    }
    ~Guest()
    {
        for (ViommuEndpoint *const each : {endpoint, other_}) {
            if (each != retired_) {
                viommu_endpoint_retire(each);
            }
            viommu_endpoint_free(each);
        }
        viommu_engine_free(engine_);
        rcu.reclaim();
        viommu_topology_free(topology_);
    }
    Guest(const Guest &) = delete;
    Guest &operator=(const Guest &) = delete;

    void send(const Request &request)
    {
        std::vector<uint8_t> out(viommu_engine_reply_max(engine_));
        ViommuRequest wire{request.in.data(), request.in.size(), out.data(), request.writable, 0};
        viommu_engine_handle(engine_, &wire);
        require(wire.used == 4 && out[0] == test::OK, "a request is refused");
    }
    void retire()
    {
        viommu_endpoint_retire(endpoint);
        retired_ = endpoint;
    }

    // A look-up that is no access: those are counted, and who changes attachments reads that.
    Answer look() const
    {
        const Rcu::Section section(rcu);
        ViommuTranslation out;
        viommu_endpoint_translate(endpoint, kAt, 0, &out);
        return out.rights == 0 ? std::nullopt : Answer(out.phys);
    }

    Rcu rcu{extent};
    ViommuEndpoint *endpoint = nullptr;

private:
    ViommuTopology *topology_ = nullptr;
    ViommuEngine *engine_ = nullptr;
    ViommuEndpoint *other_ = nullptr;
    const ViommuEndpoint *retired_ = nullptr;
};

// A request, or, without one, the end of the endpoint.
using Step = std::optional<Request>;

void take(const Step &step, Guest &guest)
{
    if (step) {
        guest.send(*step);
    } else {
        guest.retire();
    }
}

Request map(uint32_t domain, uint64_t phys)
{
    return Request::map(domain, 0x1000, 0x1fff, phys, VIOMMU_READ);
}

class Translation : public testing::Test
{
protected:
    // `answers`: before the steps, and after each of them.
    void explore_all(const std::vector<Step> &before, const std::vector<Step> &steps,
                     const std::vector<Answer> &answers, bool bypass = false)
    {
        std::set<size_t> seen;
        const Outcome outcome = explore([&](Execution &run) {
            Guest guest(bypass);
            for (const Step &step : before) {
                take(step, guest);
            }
            require(guest.look() == answers[0], "not what is asked"); // and is remembered
            Atomic<size_t> done{0};
            run.one_way({[&] {
                             for (size_t i = 0; i < steps.size(); i++) {
                                 take(steps[i], guest);
                                 done.store(i + 1, std::memory_order_release);
                             }
                         },
                         [&] {
                             size_t when = 0;
                             for (int round = 0; round < 2; round++) {
                                 when = std::max(when, done.load(std::memory_order_acquire));
                                 const Answer found = guest.look();
                                 while (when < answers.size() && found != answers[when]) {
                                     when++;
                                 }
                                 require(when < answers.size(), "the answer was never right");
                                 seen.insert(when);
                             }
                         }});
        });
        ASSERT_TRUE(outcome.fault.empty()) << outcome.fault;
        for (size_t i = 0; i < answers.size(); i++) {
            const bool is_new = i == 0 || answers[i] != answers[i - 1];
            EXPECT_TRUE(!is_new || seen.contains(i)) << i;
        }
        std::printf("%llu executions\n", static_cast<unsigned long long>(outcome.executions));
        RecordProperty("executions", std::to_string(outcome.executions));
    }

    const Request unmap = Request::unmap(1, 0x1000, 0x1fff);
    const std::vector<Step> mapped{Request::attach(1, kId), map(1, 0x5000)};
};

TEST_F(Translation, UNM_5_NotBeyondTheMapping)
{
    explore_all(mapped, {unmap}, {0x5234, std::nullopt});
}

TEST_F(Translation, UNM_5_AnotherMappingInItsPlace)
{
    explore_all(mapped, {unmap, map(1, 0x9000)}, {0x5234, std::nullopt, 0x9234});
}

TEST_F(Translation, DET_4_NotBeyondTheAttachment)
{
    explore_all(mapped, {Request::detach(1, kId)}, {0x5234, std::nullopt});
}

TEST_F(Translation, DET_4_AnotherDomainLater)
{
    explore_all({mapped[0], mapped[1], Request::attach(2, kOther), map(2, 0x9000)},
                {Request::detach(1, kId), Request::attach(2, kId)}, {0x5234, std::nullopt, 0x9234});
}

TEST_F(Translation, W20_OneDomainOrTheOther)
{
    explore_all({mapped[0], mapped[1], Request::attach(2, kOther), map(2, 0x9000)},
                {Request::attach(2, kId)}, {0x5234, 0x9234});
}

TEST_F(Translation, BYP_2_ADomainThatBypasses)
{
    explore_all(mapped, {Request::attach(3, kId, test::BYPASS)}, {0x5234, kAt});
}

TEST_F(Translation, W18_NotOnceItIsRetired)
{
    explore_all(mapped, {std::nullopt}, {0x5234, std::nullopt});
}

// It is unattached then, and those that are bypass.
TEST_F(Translation, W18_RetiredDoesNotBypass)
{
    explore_all(mapped, {std::nullopt}, {0x5234, std::nullopt}, true);
}

} // namespace

} // namespace viommu::model
