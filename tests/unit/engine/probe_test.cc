// SPDX-License-Identifier: GPL-2.0-or-later
//
// PROBE and the reserved regions it tells about.
#include "machine.h"

#include <algorithm>

namespace viommu::test
{

namespace
{

constexpr uint16_t kResvMem = 1;

bool all_zero(const std::vector<uint8_t> &bytes, size_t first, size_t last)
{
    return std::all_of(bytes.begin() + static_cast<ptrdiff_t>(first),
                       bytes.begin() + static_cast<ptrdiff_t>(last),
                       [](uint8_t byte) { return byte == 0; });
}

Config with_msi()
{
    return Config().reserve(0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI);
}

TEST(Probe, PRB_5_PRB_6_ListsTheRegions)
{
    Machine machine(with_msi());
    machine.add(0x30, {{0x1000, 0x1fff, VIOMMU_RESV_RESERVED}});
    machine.add(0x38);
    EXPECT_EQ(machine.probe(0x30),
              (std::vector<Property>{{kResvMem, 20, VIOMMU_RESV_RESERVED, 0x1000, 0x1fff},
                                     {kResvMem, 20, VIOMMU_RESV_MSI, 0xfee00000, 0xfeefffff}}));
    EXPECT_EQ(machine.probe(0x38),
              (std::vector<Property>{{kResvMem, 20, VIOMMU_RESV_MSI, 0xfee00000, 0xfeefffff}}));
}

TEST(Probe, PRB_4_PRB_8_RSV_1_TheRestIsZero)
{
    Machine machine(with_msi());
    machine.add(0x30);
    const Reply reply = machine.send(Request::probe(0x30));
    ASSERT_EQ(reply.used, kProbeSize + 4);
    EXPECT_EQ(std::vector<uint8_t>(reply.out.begin(), reply.out.begin() + 24),
              (std::vector<uint8_t>{1, 0, 20, 0, 1,    0,    0,    0,    0, 0, 0xe0, 0xfe,
                                    0, 0, 0,  0, 0xff, 0xff, 0xef, 0xfe, 0, 0, 0,    0}));
    EXPECT_TRUE(all_zero(reply.out, 24, kProbeSize + 4));
}

TEST(Probe, PRB_1_ReservedIsIgnored)
{
    Machine machine(with_msi());
    machine.add(0x30);
    Request request = Request::probe(0x30);
    std::fill(request.in.begin() + 8, request.in.end(), uint8_t{0xff});
    EXPECT_EQ(machine.send(request).status(), OK);
}

TEST(Probe, PRB_2_W10_NoSuchEndpointIsNoentAtFullLength)
{
    Machine machine(with_msi());
    machine.add(0x30);
    for (const uint32_t id : {0x31u, 0x10030u, 0xabcd0030u, kIommuId}) {
        const Reply reply = machine.send(Request::probe(id));
        ASSERT_EQ(reply.used, kProbeSize + 4);
        EXPECT_EQ(reply.status(), NOENT);
        EXPECT_TRUE(all_zero(reply.out, 0, kProbeSize));
    }
}

TEST(Probe, PRB_3_NotOfferedComesBackUnwritten)
{
    Machine machine(Config().features(VIOMMU_F_MAP_UNMAP));
    machine.add(0x30);
    EXPECT_EQ(machine.send(Request::probe(0x30)).used, 0u);
}

TEST(Probe, PRB_3_NotNegotiatedIsUnsupp)
{
    Machine machine(with_msi());
    machine.drive(kAllFeatures & ~VIOMMU_F_PROBE);
    machine.add(0x30);
    const Reply reply = machine.send(Request::probe(0x30));
    ASSERT_EQ(reply.used, kProbeSize + 4);
    EXPECT_EQ(reply.status(), UNSUPP);
    EXPECT_TRUE(all_zero(reply.out, 0, kProbeSize));
}

TEST(Probe, PRB_7_SmallAreaIsInvalInItsLastBytes)
{
    Machine machine(with_msi());
    machine.add(0x30);
    for (size_t room = 4; room < kProbeSize + 4; room++) {
        const Reply reply = machine.send(Request::probe(0x30).room(room));
        ASSERT_EQ(reply.used, room);
        EXPECT_EQ(reply.status(), INVAL);
        EXPECT_TRUE(all_zero(reply.out, 0, room - 4)); // no property
    }
}

TEST(Probe, PRB_7_TailFollowsTheAreaOfALargerBuffer)
{
    Machine machine(with_msi());
    machine.add(0x30);
    const Reply reply = machine.send(Request::probe(0x30).room(4096));
    EXPECT_EQ(reply.used, kProbeSize + 4);
    EXPECT_EQ(reply.status(), OK);
}

TEST(Probe, PRB_D1_AsManyAsFit)
{
    Config config;
    for (uint64_t i = 0; i < 20; i++) {
        config.reserve(i << 20, (i << 20) + 0xfff, VIOMMU_RESV_RESERVED);
    }
    Machine machine(config);
    machine.add(0x30, {{0x5000, 0x5fff, VIOMMU_RESV_RESERVED}});
    EXPECT_EQ(machine.probe(0x30).size(), 21u);

    const std::vector<ViommuRegion> two{{0x5000, 0x5fff, VIOMMU_RESV_RESERVED},
                                        {0x7000, 0x7fff, VIOMMU_RESV_RESERVED}};
    EXPECT_EQ(viommu_endpoint_new(machine.engine(), nullptr, two.data(), two.size()), nullptr);
}

TEST(Probe, RSV_2_OneMsiRegionPerEndpoint)
{
    Machine machine(with_msi());
    const ViommuRegion second{0x8000000, 0x80fffff, VIOMMU_RESV_MSI};
    EXPECT_EQ(viommu_endpoint_new(machine.engine(), nullptr, &second, 1), nullptr);
    Function &nic = machine.add(0x30, {{0xfee00000, 0xfef00fff, VIOMMU_RESV_MSI}});
    EXPECT_EQ(machine.probe(nic.id),
              (std::vector<Property>{{kResvMem, 20, VIOMMU_RESV_MSI, 0xfee00000, 0xfef00fff}}));
}

TEST(Probe, RSV_2_AHoleInAnMsiRegionWouldMakeTwo)
{
    Machine machine(Config().reserve(0xfee80000, 0xfee80fff, VIOMMU_RESV_RESERVED));
    const ViommuRegion around{0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI};
    EXPECT_EQ(viommu_endpoint_new(machine.engine(), nullptr, &around, 1), nullptr);
}

TEST(Probe, RSV_3_IllFormedRegionIsRefused)
{
    Machine machine;
    const ViommuRegion inverted{0x2000, 0x1fff, VIOMMU_RESV_RESERVED};
    EXPECT_EQ(viommu_endpoint_new(machine.engine(), nullptr, &inverted, 1), nullptr);
    const ViommuRegion unknown{0x1000, 0x1fff, 7};
    EXPECT_EQ(viommu_endpoint_new(machine.engine(), nullptr, &unknown, 1), nullptr);
}

TEST(Probe, RSV_3_ConflictsGoToTheMachinesRegion)
{
    Machine machine(with_msi());
    machine.add(0x30, {{0xfed00000, 0xfeffffff, VIOMMU_RESV_RESERVED}});
    EXPECT_EQ(
        machine.probe(0x30),
        (std::vector<Property>{{kResvMem, 20, VIOMMU_RESV_RESERVED, 0xfed00000, 0xfedfffff},
                               {kResvMem, 20, VIOMMU_RESV_MSI, 0xfee00000, 0xfeefffff},
                               {kResvMem, 20, VIOMMU_RESV_RESERVED, 0xfef00000, 0xfeffffff}}));
}

TEST(Probe, W17_EveryMemberIsProbed)
{
    Machine machine(with_msi());
    Function &bridge = machine.add(0x200);
    machine.add_behind(bridge, 0x208);
    EXPECT_EQ(machine.probe(0x208).size(), 1u);
}

/* viommu_regions_collect, all of them the user's */

std::vector<ViommuRegion> merge(const std::vector<ViommuRegion> &in)
{
    const size_t n = in.size();
    std::vector<ViommuRegion> out(viommu_regions_collect(in.data(), n, n, nullptr, 0));
    EXPECT_EQ(viommu_regions_collect(in.data(), n, n, out.data(), out.size()), out.size());
    return out;
}

constexpr uint8_t RES = VIOMMU_RESV_RESERVED;
constexpr uint8_t MSI = VIOMMU_RESV_MSI;

void expect_equal(const std::vector<ViommuRegion> &out, const std::vector<ViommuRegion> &expected)
{
    ASSERT_EQ(out.size(), expected.size());
    for (size_t i = 0; i < out.size(); i++) {
        EXPECT_EQ(out[i].start, expected[i].start) << i;
        EXPECT_EQ(out[i].last, expected[i].last) << i;
        EXPECT_EQ(out[i].subtype, expected[i].subtype) << i;
    }
}

void expect_merged(const std::vector<ViommuRegion> &in, const std::vector<ViommuRegion> &expected)
{
    expect_equal(merge(in), expected);
}

TEST(Regions, RSV_3_Nothing)
{
    expect_merged({}, {});
}

TEST(Regions, RSV_3_Sorts)
{
    expect_merged({{50, 60, RES}, {10, 20, MSI}}, {{10, 20, MSI}, {50, 60, RES}});
}

TEST(Regions, RSV_2_RSV_3_MergesEqualOnesThatTouchOrOverlap)
{
    expect_merged({{10, 20, RES}, {21, 30, RES}}, {{10, 30, RES}});
    expect_merged({{15, 40, RES}, {10, 20, RES}}, {{10, 40, RES}});
    expect_merged({{10, 40, RES}, {20, 30, RES}}, {{10, 40, RES}});
    expect_merged({{10, 20, RES}, {22, 30, RES}}, {{10, 20, RES}, {22, 30, RES}});
    expect_merged({{10, 20, RES}, {21, 30, MSI}}, {{10, 20, RES}, {21, 30, MSI}});
}

TEST(Regions, RSV_3_TheLaterEntryYields)
{
    expect_merged({{10, 20, RES}, {15, 30, MSI}}, {{10, 20, RES}, {21, 30, MSI}});
    expect_merged({{15, 30, MSI}, {10, 20, RES}}, {{10, 14, RES}, {15, 30, MSI}});
    expect_merged({{15, 20, MSI}, {10, 30, RES}}, {{10, 14, RES}, {15, 20, MSI}, {21, 30, RES}});
    expect_merged({{10, 30, RES}, {15, 20, MSI}}, {{10, 30, RES}});
}

TEST(Regions, RSV_3_UpToTheEndOfTheAddressSpace)
{
    expect_merged({{0, MAX, RES}}, {{0, MAX, RES}});
    expect_merged({{5, 5, MSI}, {0, MAX, RES}}, {{0, 4, RES}, {5, 5, MSI}, {6, MAX, RES}});
    expect_merged({{MAX, MAX, MSI}, {0, 0, RES}}, {{0, 0, RES}, {MAX, MAX, MSI}});
}

TEST(Regions, RSV_3_InvertedOnesCountForNothing)
{
    expect_merged({{20, 10, RES}, {15, 15, MSI}}, {{15, 15, MSI}});
}

TEST(Regions, RSV_3_WritesNoMoreThanThereIsRoomFor)
{
    const std::vector<ViommuRegion> in{{10, 20, RES}, {30, 40, RES}, {50, 60, RES}};
    std::vector<ViommuRegion> out(3, ViommuRegion{7, 7, 7});
    EXPECT_EQ(viommu_regions_collect(in.data(), in.size(), in.size(), out.data(), 2), 3u);
    EXPECT_EQ(out[1].start, 30u);
    EXPECT_EQ(out[2].start, 7u);
}

/* viommu_regions_collect, with the machine's */

void expect_collected(std::vector<ViommuRegion> users, const std::vector<ViommuRegion> &machines,
                      const std::vector<ViommuRegion> &expected)
{
    const size_t user = users.size();
    users.insert(users.end(), machines.begin(), machines.end());
    std::vector<ViommuRegion> out(
        viommu_regions_collect(users.data(), user, users.size(), nullptr, 0));
    EXPECT_EQ(viommu_regions_collect(users.data(), user, users.size(), out.data(), out.size()),
              out.size());
    expect_equal(out, expected);
}

TEST(Regions, W15_TheUsersJoinTheMachines)
{
    expect_collected({}, {}, {});
    expect_collected({}, {{10, 20, MSI}}, {{10, 20, MSI}});
    expect_collected({{5, 6, RES}}, {}, {{5, 6, RES}});
    expect_collected({{30, 40, RES}, {5, 6, RES}}, {{10, 20, MSI}},
                     {{5, 6, RES}, {10, 20, MSI}, {30, 40, RES}});
    expect_collected({{15, 30, RES}}, {{10, 20, MSI}}, {{10, 14, MSI}, {15, 30, RES}});
}

TEST(Regions, W15_RSV_2_AUsersMsiRegionTakesThePlaceOfTheMachines)
{
    expect_collected({{50, 60, MSI}}, {{10, 20, MSI}}, {{50, 60, MSI}});
    expect_collected({{1, 2, RES}, {15, 30, MSI}}, {{10, 20, MSI}}, {{1, 2, RES}, {15, 30, MSI}});
    // Though nothing of it is left to see.
    expect_collected({{50, 60, RES}, {52, 53, MSI}}, {{10, 20, MSI}}, {{50, 60, RES}});
}

} // namespace

} // namespace viommu::test
