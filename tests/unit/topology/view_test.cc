// SPDX-License-Identifier: GPL-2.0-or-later
//
// What users see of the model, and what they can ask.
#include "machine_builder.h"

#include <viommu/inspect.h>

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace viommu::test
{

namespace
{

using Rows = std::vector<std::string>;

std::string number(uint64_t value)
{
    return std::to_string(value);
}

Rows root_buses(const ViommuTopology *topology)
{
    Rows rows;
    ViommuRootBusView bus{};
    for (size_t i = 0; viommu_topology_root_bus(topology, i, &bus); i++) {
        rows.push_back(bus.name + (" " + number(bus.segment)) + ":" + number(bus.first_bus) + "-" +
                       number(bus.last_bus) + (bus.bypass ? " bypass" : "") +
                       (bus.iommu == VIOMMU_NO_IOMMU ? "" : " of " + number(bus.iommu)));
    }
    return rows;
}

Rows ranges(const ViommuTopology *topology, uint32_t iommu)
{
    Rows rows;
    ViommuIdRange range{};
    for (size_t i = 0; viommu_topology_range(topology, iommu, i, &range); i++) {
        rows.push_back(number(range.first) + "-" + number(range.last));
    }
    return rows;
}

ViommuQuery parsed(const std::string &text)
{
    ViommuQuery query{};
    char error[256] = "";
    EXPECT_TRUE(viommu_query_parse(text.c_str(), &query, error, sizeof(error))) << text << error;
    return query;
}

std::string refused(const std::string &text)
{
    ViommuQuery query{VIOMMU_VIEW_DOMAINS, 1, 2, 3, 4, 5};
    char error[256] = "";
    EXPECT_FALSE(viommu_query_parse(text.c_str(), &query, error, sizeof(error))) << text;
    EXPECT_EQ(query.view, VIOMMU_VIEW_DOMAINS) << text;
    EXPECT_EQ(query.count, 5u) << text;
    return error;
}

} // namespace

TEST(View, MOD_20_TheModelEntryByEntry)
{
    const auto topology = build(MachineBuilder()
                                    .pci_iommu("iommu0", 0, 0x0010)
                                    .mmio_iommu("iommu1", 0xa000000, {"pxb1", "main-system-bus"})
                                    .root_bus("pxb2", 0, 0x80, 0xff, true)
                                    .root_bus("pcie.0", 0, 0x00, 0x3f)
                                    .root_bus("pxb1", 0, 0x40, 0x7f)
                                    .mmio_endpoint("rng0", 5, 0xa000a00));
    EXPECT_EQ(root_buses(topology.get()),
              (Rows{"pcie.0 0:0-63 of 0", "pxb1 0:64-127 of 1", "pxb2 0:128-255 bypass"}));
    EXPECT_EQ(ranges(topology.get(), 0), (Rows{"0-15", "17-16383"}));
    EXPECT_EQ(ranges(topology.get(), 1), (Rows{"16384-32767"}));
    EXPECT_EQ(ranges(topology.get(), 2), Rows{});

    ViommuIommuView iommu{};
    ASSERT_TRUE(viommu_topology_iommu(topology.get(), 0, &iommu));
    EXPECT_STREQ(iommu.name, "iommu0");
    EXPECT_FALSE(iommu.on_mmio);
    EXPECT_EQ(iommu.requester_id, 0x10u);
    ASSERT_TRUE(viommu_topology_iommu(topology.get(), 1, &iommu));
    EXPECT_TRUE(iommu.on_mmio);
    EXPECT_EQ(iommu.base, 0xa000000u);
    EXPECT_FALSE(viommu_topology_iommu(topology.get(), 2, &iommu));

    ViommuMmioEndpointView endpoint{};
    EXPECT_FALSE(viommu_topology_mmio_endpoint(topology.get(), 0, 0, &endpoint));
    ASSERT_TRUE(viommu_topology_mmio_endpoint(topology.get(), 1, 0, &endpoint));
    EXPECT_STREQ(endpoint.name, "rng0");
    EXPECT_EQ(endpoint.id, 0xffff0005u);
    EXPECT_EQ(endpoint.base, 0xa000a00u);
    EXPECT_FALSE(viommu_topology_mmio_endpoint(topology.get(), 1, 1, &endpoint));
}

TEST(View, MOD_20_BeforeThereIsAModelThereIsNothing)
{
    EXPECT_EQ(root_buses(nullptr), Rows{});
    EXPECT_EQ(ranges(nullptr, 0), Rows{});
    ViommuIommuView iommu{};
    EXPECT_FALSE(viommu_topology_iommu(nullptr, 0, &iommu));
    ViommuMmioEndpointView endpoint{};
    EXPECT_FALSE(viommu_topology_mmio_endpoint(nullptr, 0, 0, &endpoint));
}

TEST(Query, MOD_21_ViewsAndTheirArguments)
{
    EXPECT_EQ(parsed("").view, VIOMMU_VIEW_NONE);
    EXPECT_EQ(parsed("endpoints").view, VIOMMU_VIEW_ENDPOINTS);
    EXPECT_EQ(parsed("endpoints").count, VIOMMU_ENDPOINT_PAGE_MAX);
    EXPECT_EQ(parsed("endpoints from=0xffffffff count=1").from, UINT32_MAX);
    EXPECT_EQ(parsed("domains").count, VIOMMU_PAGE_MAX);
    EXPECT_EQ(parsed("domains from=17").from, 17u);

    const ViommuQuery page = parsed("mappings count=0x40 from=0xffffffffffffffff domain=7");
    EXPECT_EQ(page.view, VIOMMU_VIEW_MAPPINGS);
    EXPECT_EQ(page.domain, 7u);
    EXPECT_EQ(page.from, UINT64_MAX);
    EXPECT_EQ(page.count, 64u);

    const ViommuQuery look = parsed("translate endpoint=0xffff0005 address=4096");
    EXPECT_EQ(look.view, VIOMMU_VIEW_TRANSLATE);
    EXPECT_EQ(look.endpoint, 0xffff0005u);
    EXPECT_EQ(look.address, 4096u);
}

TEST(Query, MOD_21_WhatMakesNoSenseIsRefusedWithASentence)
{
    EXPECT_EQ(refused("mapping"),
              "inspect: 'mapping' is neither endpoints, domains, mappings nor translate");
    EXPECT_EQ(refused(" domains"),
              "inspect: '' is neither endpoints, domains, mappings nor translate");
    EXPECT_EQ(refused("domains "), "inspect: '' is no argument of domains");
    EXPECT_EQ(refused("domains  from=1"), "inspect: '' is no argument of domains");
    EXPECT_EQ(refused("domains domain=1"), "inspect: 'domain=1' is no argument of domains");
    EXPECT_EQ(refused("domains from"), "inspect: 'from' is no argument of domains");
    EXPECT_EQ(refused("domains from=1 from=2"), "inspect: from is given twice");
    EXPECT_EQ(refused("domains from=0x100000000"),
              "inspect: 'from=0x100000000' is no number from 0 to 4294967295");
    EXPECT_EQ(refused("domains count=0"), "inspect: 'count=0' is no number from 1 to 128");
    EXPECT_EQ(refused("endpoints count=33"), "inspect: 'count=33' is no number from 1 to 32");
    EXPECT_EQ(refused("mappings"), "inspect: mappings needs domain=");
    EXPECT_EQ(refused("translate endpoint=1"), "inspect: translate needs address=");
    EXPECT_EQ(refused("translate endpoint=1 address="),
              "inspect: 'address=' is no number from 0 to 18446744073709551615");
    EXPECT_EQ(refused("mappings domain=-1"),
              "inspect: 'domain=-1' is no number from 0 to 4294967295");
    EXPECT_EQ(refused("mappings domain=0x"),
              "inspect: 'domain=0x' is no number from 0 to 4294967295");
    EXPECT_EQ(refused("translate endpoint=1 address=0x10000000000000000"),
              "inspect: 'address=0x10000000000000000' is no number from 0 to "
              "18446744073709551615");
    EXPECT_EQ(refused("a\nb"),
              "inspect: 'a?b' is neither endpoints, domains, mappings nor translate");
    EXPECT_NE(refused(std::string(VIOMMU_QUERY_SIZE, 'x')).find("is longer than any question"),
              std::string::npos);
    EXPECT_LT(refused(std::string(100000, 'x')).size(), 256u);
    // The longest that makes sense fits.
    const std::string longest = "mappings domain=0xffffffff from=0xffffffffffffffff count=128";
    EXPECT_LT(longest.size(), VIOMMU_QUERY_SIZE);
    EXPECT_EQ(parsed(longest).count, 128u);
}

} // namespace viommu::test
