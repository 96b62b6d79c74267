// SPDX-License-Identifier: GPL-2.0-or-later
//
// Creation, config space, features, reset, bypass, and requests as such.
#include "machine.h"

#include <array>
#include <cstring>

namespace viommu::test
{

namespace
{

// Whether an engine comes of it; a refusal must say why.
bool accepted(const Config &config, const ViommuCallbacks &callbacks = some_callbacks())
{
    ViommuEngineConfig plain = config;
    plain.regions = config.reserved.data();
    plain.region_count = config.reserved.size();
    std::array<char, 100> error{};
    ViommuEngine *const engine =
        viommu_engine_new(&plain, &callbacks, nullptr, error.data(), error.size());
    if (engine) {
        EXPECT_EQ(error[0], '\0');
        viommu_engine_free(engine);
        return true;
    }
    EXPECT_NE(error[0], '\0');
    return false;
}

template <typename T> T le(const std::vector<uint8_t> &bytes, size_t offset)
{
    T value = 0;
    for (size_t i = 0; i < sizeof(T); i++) {
        value |= static_cast<T>(static_cast<T>(bytes.at(offset + i)) << (8 * i));
    }
    return value;
}

TEST(Device, MissingCallbackIsRefused)
{
    ViommuCallbacks callbacks = some_callbacks();
    EXPECT_TRUE(accepted(Config(), callbacks));
    callbacks.notify_unmap = nullptr;
    EXPECT_FALSE(accepted(Config(), callbacks));
    callbacks = some_callbacks();
    callbacks.drop_cached = nullptr;
    EXPECT_FALSE(accepted(Config(), callbacks));
}

TEST(Device, ErrorTextIsCutToItsRoom)
{
    ViommuEngineConfig config = Config();
    config.page_size_mask = 0;
    const ViommuCallbacks callbacks = some_callbacks();
    std::array<char, 8> error;
    error.fill('x');
    EXPECT_EQ(viommu_engine_new(&config, &callbacks, nullptr, error.data(), 5), nullptr);
    EXPECT_EQ(std::strlen(error.data()), 4u);
    EXPECT_EQ(error[5], 'x');
    EXPECT_EQ(viommu_engine_new(&config, &callbacks, nullptr, nullptr, 0), nullptr);
}

TEST(Device, FEA_2_FEA_3_OldBypassIsNotOffered)
{
    EXPECT_FALSE(accepted(Config().features(kAllFeatures | VIOMMU_F_BYPASS)));
    EXPECT_FALSE(accepted(Config().features(VIOMMU_F_MAP_UNMAP | VIOMMU_F_BYPASS)));
}

TEST(Device, GEN_3_UndefinedFeatureIsNotOffered)
{
    EXPECT_FALSE(accepted(Config().features(kAllFeatures | uint64_t{1} << 7)));
    EXPECT_FALSE(accepted(Config().features(kAllFeatures | uint64_t{1} << 63)));
}

TEST(Device, CFG_1_EmptyPageSizeMaskIsRefused)
{
    Config config;
    config.page_size_mask = 0;
    EXPECT_FALSE(accepted(config));
}

TEST(Device, CFG_D1_RangesMustNotBeEmpty)
{
    EXPECT_FALSE(accepted(Config().input(2, 1)));
    EXPECT_TRUE(accepted(Config().input(1, 1)));
    EXPECT_FALSE(accepted(Config().domains(2, 1)));
    EXPECT_TRUE(accepted(Config().domains(1, 1)));
}

TEST(Device, PRB_D1_ProbeSizeIsChecked)
{
    Config config;
    for (const uint32_t size : {0u, 504u, 513u, 516u}) {
        config.probe_size = size;
        EXPECT_FALSE(accepted(config)) << size;
    }
    config.probe_size = 520;
    EXPECT_TRUE(accepted(config));
}

TEST(Device, PRB_D1_RegionsThatDoNotFitAreRefused)
{
    Config config;
    for (uint64_t i = 0; i < 21; i++) { // 21 * 24 = 504
        config.reserve(i << 20, (i << 20) + 0xfff, VIOMMU_RESV_RESERVED);
    }
    EXPECT_TRUE(accepted(config));
    config.reserve(uint64_t{21} << 20, (uint64_t{21} << 20) + 0xfff, VIOMMU_RESV_RESERVED);
    EXPECT_FALSE(accepted(config));
    config.probe_size = 1024;
    EXPECT_TRUE(accepted(config));
}

TEST(Device, RSV_2_TwoMsiRegionsAreRefused)
{
    Config config;
    config.reserve(0xfee00000, 0xfee7ffff, VIOMMU_RESV_MSI);
    config.reserve(0xfee80000, 0xfeefffff, VIOMMU_RESV_MSI); // touches: one region
    EXPECT_TRUE(accepted(config));
    config.reserve(0x1000, 0x1fff, VIOMMU_RESV_MSI);
    EXPECT_FALSE(accepted(config));
}

TEST(Device, RSV_3_IllFormedRegionIsRefused)
{
    EXPECT_FALSE(accepted(Config().reserve(0x2000, 0x1fff, VIOMMU_RESV_RESERVED)));
    EXPECT_FALSE(accepted(Config().reserve(0x1000, 0x1fff, 2)));
}

TEST(Device, OPS_5_BootBypassNeedsAWayToTell)
{
    const uint64_t without = kAllFeatures & ~VIOMMU_F_BYPASS_CONFIG;
    EXPECT_FALSE(accepted(Config().features(without).bypass(true)));
    EXPECT_TRUE(accepted(Config().features(without).bypass(false)));
    EXPECT_TRUE(accepted(Config().features(without).bypass(true).array()));
}

TEST(Device, GEN_6_GEN_8_ConfigSpaceIsLittleEndian)
{
    Config config;
    config.page_size_mask = 0xfffffffffffff000;
    config.input(0x0123456789abcd, 0xfedcba9876543210).domains(0x11223344, 0xaabbccdd);
    config.probe_size = 0x10208;
    Machine machine(config);
    const std::vector<uint8_t> bytes = machine.config();
    EXPECT_EQ(le<uint64_t>(bytes, 0), 0xfffffffffffff000u);
    EXPECT_EQ(le<uint64_t>(bytes, 8), 0x0123456789abcdu);
    EXPECT_EQ(le<uint64_t>(bytes, 16), 0xfedcba9876543210u);
    EXPECT_EQ(le<uint32_t>(bytes, 24), 0x11223344u);
    EXPECT_EQ(le<uint32_t>(bytes, 28), 0xaabbccddu);
    EXPECT_EQ(le<uint32_t>(bytes, 32), 0x10208u);
    EXPECT_EQ(le<uint32_t>(bytes, 36), 0u);
    EXPECT_EQ(bytes[16], 0x10);
}

TEST(Device, CFG_2_LowestBitOfTheMaskIsTheGranule)
{
    Config config;
    config.page_size_mask = 0x40210000;
    Machine machine(config);
    EXPECT_EQ(le<uint64_t>(machine.config(), 0), 0x40210000u);
    machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), RANGE);
    EXPECT_EQ(machine.map(1, 0x10000, 0x1ffff, 0x50000), OK);
}

TEST(Device, W12_CFG_D1_AWriteChangesNothingButBypass)
{
    Machine machine;
    std::vector<uint8_t> expected = machine.config();
    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 1));
    expected[VIOMMU_CONFIG_BYPASS] = 1;
    EXPECT_EQ(machine.config(), expected);
}

TEST(Device, CFG_3_MayStartWithBypass)
{
    Machine machine(Config().bypass(true));
    EXPECT_EQ(machine.config()[VIOMMU_CONFIG_BYPASS], 1);
    EXPECT_TRUE(viommu_engine_bypass(machine.engine()));
    Function &nic = machine.add(0x30);
    EXPECT_FALSE(nic.translating);
    EXPECT_EQ(machine.read(nic, 0x1234), 0x1234u);
    EXPECT_EQ(machine.look(nic, 0x1234).mask, MAX);
    EXPECT_EQ(machine.look(nic, 0x1234).rights, RW);
}

TEST(Device, CFG_6_W13_OtherValuesAreIgnored)
{
    Machine machine;
    for (const uint8_t value : std::array<uint8_t, 4>{2, 3, 0x80, 0xff}) {
        EXPECT_FALSE(viommu_engine_write_bypass(machine.engine(), value));
        EXPECT_EQ(machine.config()[VIOMMU_CONFIG_BYPASS], 0);
    }
    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 1));
    EXPECT_EQ(machine.config()[VIOMMU_CONFIG_BYPASS], 1);
    EXPECT_FALSE(viommu_engine_write_bypass(machine.engine(), 1)); // no change
    for (const uint8_t value : std::array<uint8_t, 4>{2, 3, 0x80, 0xff}) {
        EXPECT_FALSE(viommu_engine_write_bypass(machine.engine(), value));
        EXPECT_EQ(machine.config()[VIOMMU_CONFIG_BYPASS], 1);
    }
}

TEST(Device, BYP_4_W13_WriteWithoutTheFeatureIsIgnored)
{
    Machine machine(Config().bypass(true));
    machine.drive(kAllFeatures & ~VIOMMU_F_BYPASS_CONFIG);
    EXPECT_FALSE(viommu_engine_write_bypass(machine.engine(), 0));
    EXPECT_TRUE(viommu_engine_bypass(machine.engine()));
}

TEST(Device, BYP_4_FeatureMustHaveBeenOffered)
{
    Machine machine(Config().features(VIOMMU_F_MAP_UNMAP));
    machine.drive(kAllFeatures);
    EXPECT_FALSE(viommu_engine_write_bypass(machine.engine(), 1));
    EXPECT_FALSE(viommu_engine_bypass(machine.engine()));
    machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30, BYPASS), INVAL);
}

TEST(Device, BYP_4_WithTheArrayThereIsNoBypassField)
{
    Machine machine(Config().bypass(true).array());
    EXPECT_EQ(machine.config()[VIOMMU_CONFIG_BYPASS], 0);
    EXPECT_FALSE(viommu_engine_write_bypass(machine.engine(), 0));
    EXPECT_TRUE(viommu_engine_bypass(machine.engine()));
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.read(nic, 0x1000), 0x1000u);
}

TEST(Device, BYP_1_UnattachedFollowsTheField)
{
    Machine machine(Config().bypass(true));
    // Also if the driver never negotiated it.
    machine.drive(VIOMMU_F_MAP_UNMAP);
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.read(nic, 0x1000), 0x1000u);
    machine.drive();
    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 0));
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
    EXPECT_TRUE(nic.translating);
    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 1));
    EXPECT_EQ(machine.read(nic, 0x1000), 0x1000u);
    EXPECT_FALSE(nic.translating);
}

TEST(Device, BYP_2_BypassDomainIsIdentity)
{
    Machine machine(Config().reserve(0x5000, 0x5fff, VIOMMU_RESV_RESERVED));
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30, BYPASS), OK);
    EXPECT_FALSE(nic.translating);
    for (const uint64_t iova : {uint64_t{0}, uint64_t{0x5000}, MAX}) {
        EXPECT_EQ(machine.write(nic, iova), iova);
        EXPECT_EQ(machine.look(nic, iova).mask, MAX);
    }
    ViommuEndpointStats stats;
    viommu_endpoint_stats(nic.endpoint, &stats);
    EXPECT_TRUE(stats.attached);
    EXPECT_TRUE(stats.bypass);
    // The field does not concern the attached.
    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 1));
    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 0));
    EXPECT_EQ(machine.write(nic, 0x1000), 0x1000u);
}

TEST(Device, OPS_5_UnattachedWithoutBypassReachesNothing)
{
    Machine machine(Config().reserve(0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI));
    Function &nic = machine.add(0x30);
    EXPECT_TRUE(nic.translating);
    for (const uint64_t iova : {uint64_t{0}, uint64_t{0xfee00000}, MAX}) {
        EXPECT_EQ(machine.read(nic, iova), FAULT);
        EXPECT_EQ(machine.write(nic, iova), FAULT);
        EXPECT_EQ(machine.look(nic, iova).rights, 0u);
    }
}

void expect_reset_state(Machine &machine)
{
    EXPECT_EQ(machine.stats().domains, 0u);
    EXPECT_EQ(machine.stats().mappings, 0u);
    EXPECT_EQ(machine.pop(), std::nullopt);
    EXPECT_FALSE(viommu_engine_fault_ready(machine.engine()));
}

TEST(Reset, W5_INI_D1_GEN_5_GEN_14_DeviceResetLeavesNothing)
{
    Machine machine;
    Function &nic = machine.add(0x30);
    Function &disk = machine.add(0x38);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(2, 0x38, BYPASS), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.read(nic, 0x9000), FAULT);
    EXPECT_TRUE(viommu_engine_fault_ready(machine.engine()));
    viommu_engine_device_reset(machine.engine());
    expect_reset_state(machine);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
    EXPECT_EQ(machine.read(disk, 0x1000), FAULT);
    EXPECT_EQ(machine.pop(), std::nullopt); // not live

    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), UNSUPP); // nothing negotiated
    machine.drive();
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), NOENT);
    EXPECT_EQ(machine.detach(1, 0x30), INVAL);
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    EXPECT_EQ(machine.map(2, 0x1000, 0x1fff, 0x6000), OK);
    EXPECT_EQ(machine.read(nic, 0x1000), 0x6000u);
}

TEST(Reset, CFG_4_DeviceResetKeepsBypass)
{
    for (const bool boot : {false, true}) {
        Machine machine(Config().bypass(boot));
        EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), boot ? 0 : 1));
        viommu_engine_device_reset(machine.engine());
        EXPECT_EQ(viommu_engine_bypass(machine.engine()), !boot);
    }
}

TEST(Reset, CFG_5_SystemResetRestoresBypass)
{
    for (const bool boot : {false, true}) {
        Machine machine(Config().bypass(boot));
        Function &nic = machine.add(0x30);
        Function &disk = machine.add(0x38);
        EXPECT_EQ(machine.attach(1, 0x38), OK);
        EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), boot ? 0 : 1));
        machine.told();
        viommu_engine_system_reset(machine.engine());
        EXPECT_EQ(viommu_engine_bypass(machine.engine()), boot);
        EXPECT_EQ(nic.translating, !boot);
        EXPECT_EQ(disk.translating, !boot);
        expect_reset_state(machine);
        EXPECT_EQ(machine.told(), boot ? (Told{"begin", "off 30", "off 38", "commit"})
                                       : (Told{"begin", "on 30", "commit"}));
    }
}

TEST(Reset, W5_ResetForgetsMembers)
{
    Machine machine;
    Function &bridge = machine.add(0x200);
    machine.add_behind(bridge, 0x208);
    EXPECT_EQ(machine.attach(1, 0x208), OK);
    viommu_engine_device_reset(machine.engine());
    machine.drive();
    EXPECT_EQ(machine.attach(1, 0x200), OK);
    EXPECT_EQ(machine.detach(1, 0x208), INVAL);
    EXPECT_EQ(machine.detach(1, 0x200), OK);
    EXPECT_EQ(machine.stats().domains, 0u);
}

TEST(Requests, OPS_2_UnknownTypeComesBackUnwritten)
{
    Machine machine;
    for (int type = 0; type < 256; type++) {
        if (type < 1 || type > 5) {
            EXPECT_EQ(machine.send(Request::of_type(static_cast<uint8_t>(type), 72, 516)).used, 0u)
                << type;
        }
    }
}

std::vector<Request> one_of_each()
{
    return {Request::attach(1, 0x30), Request::map(1, 0x1000, 0x1fff, 0x5000, RW),
            Request::unmap(1, 0x1000, 0x1fff), Request::detach(1, 0x30), Request::probe(0x30)};
}

TEST(Requests, OPS_D1_W13_NoRoomForTheTailComesBackUnwritten)
{
    Machine machine;
    Function &nic = machine.add(0x30);
    for (size_t room = 0; room < 4; room++) {
        for (Request &request : one_of_each()) {
            EXPECT_EQ(machine.send(request.room(room)).used, 0u);
        }
    }
    EXPECT_EQ(machine.stats().domains, 0u);
    EXPECT_EQ(machine.attach(1, 0x30), OK); // still at work
    EXPECT_EQ(machine.send(Request::map(1, 0x1000, 0x1fff, 0x5000, RW).room(3)).used, 0u);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
    EXPECT_EQ(machine.send(Request::detach(1, 0x30).room(3)).used, 0u);
    EXPECT_EQ(machine.stats().domains, 1u);
}

TEST(Requests, OPS_D1_ShorterThanTheHeadComesBackUnwritten)
{
    Machine machine;
    machine.add(0x30);
    for (size_t size = 0; size < 4; size++) {
        for (Request &request : one_of_each()) {
            EXPECT_EQ(machine.send(request.cut(size)).used, 0u);
        }
    }
}

TEST(Requests, OPS_D1_ShortReadablePartIsInval)
{
    Machine machine;
    machine.add(0x30);
    for (const Request &whole : one_of_each()) {
        for (size_t size = 4; size < whole.in.size(); size++) {
            Request request = whole;
            EXPECT_EQ(machine.send(request.cut(size)).status(), INVAL);
        }
        EXPECT_EQ(machine.stats().domains, 0u);
    }
}

TEST(Requests, OPS_D1_LongerPartsAreFine)
{
    Machine machine;
    machine.add(0x30);
    EXPECT_EQ(machine.send(Request::attach(1, 0x30).cut(200).room(4000)).used, 4u);
    EXPECT_EQ(machine.stats().domains, 1u);
}

TEST(Requests, OPS_3_HeadReservedIsIgnored)
{
    Machine machine;
    machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    for (Request request : one_of_each()) {
        request.byte(1, 0xff).byte(2, 0xff).byte(3, 0xff);
        EXPECT_EQ(machine.send(request).status(), OK) << int{request.in[0]};
    }
}

TEST(Requests, OPS_4_TailReservedIsZero)
{
    Machine machine;
    machine.add(0x30);
    for (const Request &request : one_of_each()) {
        const Reply reply = machine.send(request);
        ASSERT_GE(reply.used, 4u);
        EXPECT_EQ(reply.out[reply.used - 3], 0);
        EXPECT_EQ(reply.out[reply.used - 2], 0);
        EXPECT_EQ(reply.out[reply.used - 1], 0);
    }
}

TEST(Requests, OPS_1_AreAppliedInOrder)
{
    Machine machine;
    Function &nic = machine.add(0x30);
    std::vector<Request> requests{
        Request::attach(1, 0x30), Request::map(1, 0x1000, 0x1fff, 0x5000, RW),
        Request::unmap(1, 0x1000, 0x1fff), Request::unmap(2, 0x1000, 0x1fff),
        Request::map(1, 0x1000, 0x1fff, 0x6000, RW)};
    std::vector<std::array<uint8_t, kProbeSize + 4>> out(requests.size());
    std::vector<ViommuRequest> batch;
    for (size_t i = 0; i < requests.size(); i++) {
        batch.push_back({requests[i].in.data(), requests[i].in.size(), out[i].data(), 4, 0});
    }
    for (ViommuRequest &request : batch) {
        viommu_engine_handle(machine.engine(), &request);
    }
    const std::vector<int> expected{OK, OK, OK, NOENT, OK};
    for (size_t i = 0; i < batch.size(); i++) {
        EXPECT_EQ(batch[i].used, 4u);
        EXPECT_EQ(out[i][0], expected[i]) << i;
    }
    EXPECT_EQ(machine.read(nic, 0x1000), 0x6000u);
    EXPECT_EQ(machine.stats().requests, 5u);
    EXPECT_EQ(machine.stats().requests_refused, 1u);
}

bool keeps_others_busy(Machine &machine, const Request &request)
{
    std::array<uint8_t, kProbeSize + 4> out;
    ViommuRequest wire{request.in.data(), request.in.size(), out.data(), request.writable, 0};
    return viommu_engine_handle(machine.engine(), &wire);
}

TEST(Requests, W24_TheEngineSaysWhetherItKeptOthersBusy)
{
    Machine machine(Config().bypass(true));
    Function &nic = machine.add(0x30);
    const Request map = Request::map(1, 0x1000, 0x1fff, 0x5000, RW);
    const Request unmap = Request::unmap(1, 0x1000, 0x1fff);
    const Request all = Request::unmap(1, 0, MAX);

    EXPECT_FALSE(keeps_others_busy(machine, Request::attach(1, 0x30, BYPASS))); // as before
    EXPECT_TRUE(keeps_others_busy(machine, Request::attach(2, 0x30)));          // a switch
    EXPECT_FALSE(keeps_others_busy(machine, Request::attach(1, 0x30)));
    EXPECT_FALSE(keeps_others_busy(machine, Request::attach(1, 0x30)));
    EXPECT_FALSE(keeps_others_busy(machine, map));
    EXPECT_FALSE(keeps_others_busy(machine, Request::probe(0x30)));
    EXPECT_FALSE(keeps_others_busy(machine, unmap));
    machine.listen(nic, false, true);
    EXPECT_FALSE(keeps_others_busy(machine, map));
    EXPECT_TRUE(keeps_others_busy(machine, unmap));
    EXPECT_FALSE(keeps_others_busy(machine, all)); // nothing went
    machine.listen(nic, true, true);
    EXPECT_TRUE(keeps_others_busy(machine, map));
    EXPECT_FALSE(keeps_others_busy(machine, map)); // refused
    machine.listen(nic, false, false);
    EXPECT_FALSE(keeps_others_busy(machine, unmap));
    EXPECT_TRUE(keeps_others_busy(machine, Request::detach(1, 0x30)));
}

} // namespace

} // namespace viommu::test
