// SPDX-License-Identifier: GPL-2.0-or-later
//
// Views of a running engine: what they show, where they end, what they leave alone.
#include "machine.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <string>
#include <utility>

namespace viommu::test
{

namespace
{

constexpr uint64_t kPage = 4096;

struct Mappings {
    std::vector<ViommuMappingView> all;
    ViommuMappingPage page{};
    std::string error;
};

Mappings mappings(Machine &machine, uint32_t domain, uint64_t from, size_t cap)
{
    Mappings out;
    out.all.resize(cap);
    std::array<char, 100> error{};
    if (!viommu_engine_mappings(machine.engine(), domain, from, out.all.data(), cap, &out.page,
                                error.data(), error.size())) {
        out.error = error.data();
    }
    out.all.resize(out.page.count);
    return out;
}

std::vector<uint64_t> starts(const Mappings &page)
{
    std::vector<uint64_t> out;
    for (const ViommuMappingView &mapping : page.all) {
        out.push_back(mapping.first);
    }
    return out;
}

std::map<std::string, uint64_t> counts(Machine &machine)
{
    std::array<ViommuRequestCount, VIOMMU_REQUEST_COUNTS> list{};
    const size_t count = viommu_engine_request_counts(machine.engine(), list.data());
    std::map<std::string, uint64_t> out;
    for (size_t i = 0; i < count; i++) {
        EXPECT_NE(list[i].count, 0u);
        const std::string name = list[i].type + std::string(" ") + list[i].status;
        EXPECT_TRUE(out.emplace(name, list[i].count).second) << name;
    }
    return out;
}

ViommuEndpointView view(Function &function)
{
    ViommuEndpointView out{};
    viommu_endpoint_view(function.endpoint, &out);
    return out;
}

ViommuLook look(Function &function, uint64_t iova)
{
    ViommuLook out{};
    viommu_endpoint_look(function.endpoint, iova, &out);
    return out;
}

TEST(Inspect, MOD_20_SettingsAreThoseOfTheDevice)
{
    Machine machine(
        Config().granule(65536).input(0, 0xffffffff).domains(2, 9).quota(77, 5).memory(1 << 20));
    ViommuSettingsView settings{};
    viommu_engine_settings(machine.engine(), &settings);
    EXPECT_EQ(settings.offered_features, kAllFeatures);
    EXPECT_EQ(settings.negotiated_features, kAllFeatures);
    EXPECT_EQ(settings.granule, 65536u);
    EXPECT_EQ(settings.page_size_mask, ~uint64_t{65535});
    EXPECT_EQ(settings.input_start, 0u);
    EXPECT_EQ(settings.input_last, 0xffffffffu);
    EXPECT_EQ(settings.domain_first, 2u);
    EXPECT_EQ(settings.domain_last, 9u);
    EXPECT_EQ(settings.max_mappings, 77u);
    EXPECT_EQ(settings.max_domains, 5u);
    EXPECT_EQ(settings.max_memory, 1u << 20);
    EXPECT_FALSE(settings.boot_bypass);
    EXPECT_FALSE(settings.bypass);

    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 1));
    viommu_engine_driver_reset(machine.engine());
    viommu_engine_settings(machine.engine(), &settings);
    EXPECT_EQ(settings.negotiated_features, 0u);
    EXPECT_FALSE(settings.boot_bypass);
    EXPECT_TRUE(settings.bypass);
}

TEST(Inspect, MOD_23_RequestsAreCountedByTypeAndStatus)
{
    Machine machine;
    machine.add(0x18);
    EXPECT_TRUE(counts(machine).empty());
    EXPECT_EQ(machine.attach(1, 0x18), OK);
    EXPECT_EQ(machine.attach(1, 0x99), NOENT);
    EXPECT_EQ(machine.attach(1, 0x99), NOENT);
    EXPECT_EQ(machine.map(1, 0, kPage - 1, 0), OK);
    EXPECT_EQ(machine.map(1, 0, kPage - 1, 0), INVAL);
    EXPECT_EQ(machine.map(1, 1, 2, 0), RANGE);
    EXPECT_EQ(machine.unmap(7, 0, 1), NOENT);
    EXPECT_EQ(machine.send(Request::probe(0x18)).status(), OK);
    EXPECT_EQ(machine.send(Request::of_type(200, 8, 4)).status(), UNWRITTEN);
    EXPECT_EQ(machine.send(Request::of_type(3, 2, 4)).status(), UNWRITTEN);
    EXPECT_EQ(machine.send(Request::of_type(6, 8, 4)).status(), UNWRITTEN);
    EXPECT_EQ(machine.send(Request::attach(1, 0x18).room(0)).status(), UNWRITTEN);
    EXPECT_EQ(machine.detach(1, 0x18), OK);

    const auto by_name = counts(machine);
    EXPECT_EQ(by_name, (std::map<std::string, uint64_t>{{"attach OK", 1},
                                                        {"attach NOENT", 2},
                                                        {"attach unanswered", 1},
                                                        {"map OK", 1},
                                                        {"map INVAL", 1},
                                                        {"map RANGE", 1},
                                                        {"unmap NOENT", 1},
                                                        {"probe OK", 1},
                                                        {"detach OK", 1},
                                                        {"unknown unanswered", 3}}));
    uint64_t all = 0;
    uint64_t refused = 0;
    for (const auto &[name, count] : by_name) {
        all += count;
        refused += name.ends_with(" OK") ? 0 : count;
    }
    EXPECT_EQ(machine.stats().requests, all);
    EXPECT_EQ(machine.stats().requests_refused, refused);
}

TEST(Inspect, MOD_23_FaultsAreCountedByReasonAndTheLastIsKept)
{
    Machine machine;
    Function &disk = machine.add(0x18);
    Function &other = machine.add(0x20);
    EXPECT_EQ(view(disk).last_fault, nullptr);

    EXPECT_EQ(machine.write(disk, 0x5123), FAULT);
    EXPECT_STREQ(view(disk).last_fault, "domain");
    EXPECT_EQ(view(disk).last_fault_address, 0x5123u);
    EXPECT_EQ(view(disk).last_fault_access, W);

    EXPECT_EQ(machine.attach(1, 0x18), OK);
    EXPECT_EQ(machine.map(1, 0, kPage - 1, 0, R), OK);
    EXPECT_EQ(machine.read(disk, 0x10), 0x10u);
    EXPECT_EQ(machine.translate(disk, 0x10, RW).rights, 0u);
    EXPECT_STREQ(view(disk).last_fault, "mapping");
    EXPECT_EQ(view(disk).last_fault_access, W);
    EXPECT_EQ(machine.read(disk, 0x9000), FAULT);
    EXPECT_EQ(machine.read(disk, 0x9000), FAULT); // of one record with the first

    EXPECT_EQ(view(disk).translations, 1u);
    EXPECT_EQ(view(disk).faults, 4u);
    EXPECT_EQ(view(disk).faults_by_reason.domain, 1u);
    EXPECT_EQ(view(disk).faults_by_reason.mapping, 3u);
    EXPECT_EQ(view(other).faults_by_reason.mapping, 0u);

    // Of the device: those of functions that are gone as well.
    EXPECT_EQ(machine.read(other, 0), FAULT);
    machine.retire(other);
    ViommuFaultCounts all{};
    viommu_engine_fault_counts(machine.engine(), &all);
    EXPECT_EQ(all.domain, 2u);
    EXPECT_EQ(all.mapping, 3u);
    EXPECT_EQ(machine.stats().faults, 5u);
}

TEST(Inspect, MOD_23_FaultsWithoutADriverCount)
{
    Machine machine;
    Function &disk = machine.add(0x18);
    viommu_engine_driver_reset(machine.engine());
    EXPECT_EQ(machine.read(disk, 0x7000), FAULT);
    EXPECT_EQ(view(disk).faults_by_reason.domain, 1u);
    EXPECT_EQ(view(disk).last_fault_address, 0x7000u);
}

TEST(Inspect, MOD_21_EndpointsHaveAMode)
{
    Machine machine;
    Function &disk = machine.add(0x18);
    machine.add_behind(disk, 0x19);
    EXPECT_STREQ(view(disk).mode, "unattached");
    EXPECT_FALSE(view(disk).attached);
    EXPECT_FALSE(view(disk).bypasses);

    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 1));
    EXPECT_STREQ(view(disk).mode, "unattached");
    EXPECT_TRUE(view(disk).bypasses);

    EXPECT_EQ(machine.attach(7, 0x18), OK);
    EXPECT_STREQ(view(disk).mode, "translating");
    EXPECT_TRUE(view(disk).attached);
    EXPECT_FALSE(view(disk).bypasses);
    EXPECT_EQ(view(disk).domain, 7u);

    EXPECT_EQ(machine.attach(8, 0x19, BYPASS), OK);
    EXPECT_STREQ(view(disk).mode, "bypass");
    EXPECT_TRUE(view(disk).bypasses);
    EXPECT_EQ(view(disk).domain, 8u);
}

TEST(Inspect, MOD_21_DomainsInPages)
{
    Machine machine;
    for (uint32_t i = 0; i < 5; i++) {
        machine.add(0x20 + i);
        EXPECT_EQ(machine.attach(10 * i, 0x20 + i, i == 2 ? BYPASS : 0), OK);
    }
    machine.add(0x30);
    EXPECT_EQ(machine.attach(10, 0x30), OK);
    EXPECT_EQ(machine.map(10, 0, kPage - 1, 0), OK);
    EXPECT_EQ(machine.map(10, kPage, 2 * kPage - 1, 0), OK);

    std::array<ViommuDomainView, 4> out{};
    bool more = false;
    ASSERT_EQ(viommu_engine_domains(machine.engine(), 0, out.data(), 4, &more), 4u);
    EXPECT_TRUE(more);
    EXPECT_EQ(out[1].id, 10u);
    EXPECT_FALSE(out[1].bypass);
    EXPECT_EQ(out[1].mappings, 2u);
    EXPECT_EQ(out[1].endpoints, 2u);
    EXPECT_GT(out[1].memory, out[0].memory);
    EXPECT_EQ(out[2].id, 20u);
    EXPECT_TRUE(out[2].bypass);
    EXPECT_EQ(out[3].id, 30u);

    ASSERT_EQ(viommu_engine_domains(machine.engine(), 31, out.data(), 4, &more), 1u);
    EXPECT_FALSE(more);
    EXPECT_EQ(out[0].id, 40u);
    ASSERT_EQ(viommu_engine_domains(machine.engine(), 1, out.data(), 4, &more), 4u);
    EXPECT_FALSE(more); // full, and nothing behind it
    EXPECT_EQ(viommu_engine_domains(machine.engine(), UINT32_MAX, out.data(), 4, &more), 0u);
    EXPECT_FALSE(more);
}

TEST(Inspect, MOD_21_MembersOfADomain)
{
    Machine machine;
    Function &a = machine.add(0x18);
    Function &b = machine.add(0x20);
    EXPECT_EQ(machine.attach(1, 0x18), OK);
    EXPECT_EQ(machine.attach(1, 0x20), OK);
    std::array<void *, 2> members{};
    ASSERT_EQ(viommu_engine_domain_endpoints(machine.engine(), 1, members.data(), 2), 2u);
    EXPECT_EQ(members[0], &a);
    EXPECT_EQ(members[1], &b);
    members = {};
    EXPECT_EQ(viommu_engine_domain_endpoints(machine.engine(), 1, members.data(), 1), 1u);
    EXPECT_EQ(members[1], nullptr);
    EXPECT_EQ(viommu_engine_domain_endpoints(machine.engine(), 2, members.data(), 2), 0u);
}

TEST(Inspect, MOD_21_MappingsInPages)
{
    Machine machine;
    machine.add(0x18);
    EXPECT_EQ(mappings(machine, 1, 0, 4).error, "there is no domain 1");
    EXPECT_EQ(machine.attach(1, 0x18), OK);
    EXPECT_EQ(mappings(machine, 1, 0, 4).page.count, 0u);
    EXPECT_FALSE(mappings(machine, 1, 0, 4).page.more);
    for (uint64_t i = 0; i < 5; i++) {
        EXPECT_EQ(machine.map(1, 2 * i * kPage, 2 * i * kPage + kPage - 1, i * kPage, R), OK);
    }
    EXPECT_EQ(machine.map(1, MAX - kPage + 1, MAX, 0, W | MMIO), OK);

    const Mappings first = mappings(machine, 1, 0, 4);
    EXPECT_EQ(starts(first), (std::vector<uint64_t>{0, 0x2000, 0x4000, 0x6000}));
    EXPECT_TRUE(first.page.more);
    EXPECT_EQ(first.page.next, 0x8000u);
    EXPECT_EQ(first.all[1].last, 0x2fffu);
    EXPECT_EQ(first.all[1].phys, 0x1000u);
    EXPECT_EQ(first.all[1].flags, R);

    const Mappings second = mappings(machine, 1, first.page.next, 4);
    EXPECT_EQ(starts(second), (std::vector<uint64_t>{0x8000, MAX - kPage + 1}));
    EXPECT_FALSE(second.page.more);
    EXPECT_EQ(second.all[1].flags, W | MMIO);

    // From inside a mapping, from a gap, from the very last address; full without more.
    EXPECT_EQ(starts(mappings(machine, 1, 0x2fff, 1)), (std::vector<uint64_t>{0x2000}));
    EXPECT_EQ(starts(mappings(machine, 1, 0x3000, 1)), (std::vector<uint64_t>{0x4000}));
    EXPECT_EQ(starts(mappings(machine, 1, MAX, 4)), (std::vector<uint64_t>{MAX - kPage + 1}));
    EXPECT_FALSE(mappings(machine, 1, MAX, 1).page.more);
}

TEST(Inspect, MOD_22_ALookSaysWhatAnAccessWouldGet)
{
    Machine machine(Config()
                        .reserve(0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI)
                        .reserve(0x10000, 0x1ffff, VIOMMU_RESV_RESERVED));
    Function &disk = machine.add(0x18);
    EXPECT_STREQ(look(disk, 0x5000).found, "unattached");
    EXPECT_EQ(look(disk, 0x5000).rights, 0u);

    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 1));
    EXPECT_STREQ(look(disk, 0x5000).found, "bypass");
    EXPECT_EQ(look(disk, 0x5000).rights, RW);
    EXPECT_EQ(look(disk, 0x5000).phys, 0x5000u);
    EXPECT_STREQ(look(disk, 0x10000).found, "bypass");

    EXPECT_EQ(machine.attach(1, 0x18), OK);
    EXPECT_EQ(machine.map(1, 0x4000, 0x7fff, 0x84000, R), OK);
    EXPECT_EQ(machine.map(1, 0x8000, 0x8fff, 0, 0), OK);
    const ViommuLook mapped = look(disk, 0x5123);
    EXPECT_STREQ(mapped.found, "mapping");
    EXPECT_EQ(mapped.rights, R);
    EXPECT_EQ(mapped.phys, 0x85123u);
    EXPECT_EQ(mapped.first, 0x4000u);
    EXPECT_EQ(mapped.last, 0x7fffu);
    EXPECT_STREQ(look(disk, 0x8000).found, "mapping");
    EXPECT_EQ(look(disk, 0x8000).rights, 0u);
    EXPECT_STREQ(look(disk, 0x9000).found, "unmapped");
    EXPECT_STREQ(look(disk, 0x10000).found, "reserved");
    EXPECT_EQ(look(disk, 0x10000).rights, 0u);
    EXPECT_STREQ(look(disk, 0xfee00000).found, "msi");
    EXPECT_EQ(look(disk, 0xfee00000).rights, W);

    EXPECT_EQ(machine.attach(2, 0x18, BYPASS), OK);
    EXPECT_STREQ(look(disk, 0x9000).found, "bypass");
    machine.retire(disk);
    EXPECT_STREQ(look(disk, 0x9000).found, "unattached");
}

// It must not even take a cache, nor replace what one remembers.
TEST(Inspect, MOD_22_ALookIsNoAccess)
{
    Machine machine;
    Function &disk = machine.add(0x18);
    EXPECT_EQ(machine.attach(1, 0x18), OK);
    EXPECT_EQ(machine.map(1, 0, kPage - 1, 0), OK);
    const ViommuStats before = machine.stats();
    EXPECT_EQ(before.remembered, 0u);
    EXPECT_STREQ(look(disk, 0).found, "mapping");
    EXPECT_STREQ(look(disk, 0x5000).found, "unmapped");
    const ViommuStats after = machine.stats();
    EXPECT_EQ(after.translations, before.translations);
    EXPECT_EQ(after.faults, 0u);
    EXPECT_EQ(after.faults_dropped + after.faults_coalesced, 0u);
    EXPECT_EQ(after.remembered, 0u);
    EXPECT_EQ(view(disk).last_fault, nullptr);
    EXPECT_FALSE(machine.pop().has_value());
    EXPECT_EQ(machine.read(disk, 0), 0u);
    EXPECT_GT(machine.stats().remembered, 0u);
}

TEST(Inspect, MOD_22_WhoHasAnId)
{
    Machine machine;
    Function &disk = machine.add(0x18);
    EXPECT_EQ(viommu_engine_endpoint(machine.engine(), 0x18), disk.endpoint);
    EXPECT_EQ(viommu_engine_endpoint(machine.engine(), 0x20), nullptr);
    EXPECT_EQ(viommu_engine_endpoint(machine.engine(), kIommuId), nullptr);
    machine.renumber(disk, 0x20);
    EXPECT_EQ(viommu_engine_endpoint(machine.engine(), 0x18), nullptr);
    EXPECT_EQ(viommu_engine_endpoint(machine.engine(), 0x20), disk.endpoint);
}

TEST(Inspect, NamesOfRights)
{
    EXPECT_STREQ(viommu_rights_name(0), "none");
    EXPECT_STREQ(viommu_rights_name(R), "r");
    EXPECT_STREQ(viommu_rights_name(W | MMIO), "w");
    EXPECT_STREQ(viommu_rights_name(RW), "rw");
}

using Nanoseconds = std::chrono::nanoseconds;

template <typename Work> Nanoseconds time_of(Work work)
{
    const auto begin = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration_cast<Nanoseconds>(std::chrono::steady_clock::now() - begin);
}

// What it costs; more than the shortest of several is what else the processor does.
template <typename Work> Nanoseconds shortest_time_of(Work work)
{
    Nanoseconds shortest = Nanoseconds::max();
    for (int i = 0; i < 20; i++) {
        shortest = std::min(shortest, time_of(work));
    }
    return shortest;
}

Nanoseconds time_of_page(Machine &machine, uint32_t domain, uint64_t from)
{
    return shortest_time_of([&] {
        ASSERT_EQ(mappings(machine, domain, from, VIOMMU_PAGE_MAX).all.size(), VIOMMU_PAGE_MAX);
    });
}

TEST(Inspect, MOD_21_APageOfAMillionMappingsTakesAsLongAsOneOfAThousand)
{
    constexpr uint64_t kMany = 1000000;
    constexpr uint64_t kFew = 1000;
    Machine machine(Config().quota(2 * kMany, 1000));
    machine.add(0x18);
    machine.add(0x20);
    EXPECT_EQ(machine.attach(1, 0x18), OK);
    EXPECT_EQ(machine.attach(2, 0x20), OK);
    for (uint64_t i = 0; i < kMany; i++) {
        ASSERT_EQ(machine.map(1, i * kPage, i * kPage + kPage - 1, i * kPage), OK);
    }
    for (uint64_t i = 0; i < kFew; i++) {
        ASSERT_EQ(machine.map(2, i * kPage, i * kPage + kPage - 1, i * kPage), OK);
    }
    const Nanoseconds few = time_of_page(machine, 2, kFew / 2 * kPage);
    const Nanoseconds many = time_of_page(machine, 1, kMany / 2 * kPage);
    EXPECT_LT(many.count(), 10 * few.count());

    // All of them once, and everything else that there is to see; for the records.
    Nanoseconds longest{0};
    uint64_t seen = 0;
    ViommuMappingPage page{};
    std::vector<ViommuMappingView> out(VIOMMU_PAGE_MAX);
    do {
        longest = std::max(longest, time_of([&] {
                               viommu_engine_mappings(machine.engine(), 1, page.next, out.data(),
                                                      out.size(), &page, nullptr, 0);
                           }));
        seen += page.count;
    } while (page.more);
    EXPECT_EQ(seen, kMany);
    RecordProperty("longest page in ns", std::to_string(longest.count()));

    std::array<ViommuDomainView, VIOMMU_PAGE_MAX> domains{};
    bool more = false;
    const Nanoseconds others = shortest_time_of([&] {
        EXPECT_EQ(viommu_engine_domains(machine.engine(), 0, domains.data(), domains.size(), &more),
                  2u);
        counts(machine);
        machine.stats();
    });
    EXPECT_EQ(domains[0].mappings, kMany);
    EXPECT_LT(others.count(), 10 * few.count());
    std::printf("the longest of %zu pages: %lld us, the other views: %lld us\n",
                static_cast<size_t>(seen / VIOMMU_PAGE_MAX + 1),
                static_cast<long long>(longest.count() / 1000),
                static_cast<long long>(others.count() / 1000));
}

} // namespace

} // namespace viommu::test
