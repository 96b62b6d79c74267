// SPDX-License-Identifier: GPL-2.0-or-later
//
// Fault records.
#include "machine.h"

namespace viommu::test
{

namespace
{

class Faults : public ::testing::Test
{
protected:
    Faults() : nic(machine.add(0x30)) {}

    std::vector<FaultRecord> all()
    {
        std::vector<FaultRecord> records;
        while (const std::optional<FaultRecord> record = machine.pop()) {
            records.push_back(*record);
        }
        EXPECT_FALSE(viommu_engine_fault_ready(machine.engine()));
        return records;
    }

    Machine machine;
    Function &nic;
};

TEST_F(Faults, FLT_1_FLT_2_FLT_4_RecordBytes)
{
    EXPECT_EQ(machine.write(nic, 0x123456789abcdef0), FAULT);
    std::vector<uint8_t> bytes(VIOMMU_FAULT_RECORD_SIZE, 0xa5);
    EXPECT_TRUE(viommu_engine_pop_fault(machine.engine(), bytes.data()));
    EXPECT_EQ(bytes,
              (std::vector<uint8_t>{1, 0, 0, 0, 0x02, 0x01, 0,    0,    0x30, 0,    0,    0,
                                    0, 0, 0, 0, 0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12}));
}

TEST_F(Faults, FLT_D1_UnattachedIsDomain)
{
    machine.read(nic, 0x1000);
    EXPECT_EQ(all(), (std::vector<FaultRecord>{{kReasonDomain, R | kAddressValid, 0x30, 0x1000}}));
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    machine.write(nic, 0x1000);
    EXPECT_EQ(all(), (std::vector<FaultRecord>{{kReasonDomain, W | kAddressValid, 0x30, 0x1000}}));
}

TEST_F(Faults, FLT_D1_NoMappingIsMapping)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    machine.read(nic, 0x1234);
    machine.write(nic, 0x5000);
    machine.translate(nic, 0x6000, RW);
    EXPECT_EQ(all(),
              (std::vector<FaultRecord>{{kReasonMapping, R | kAddressValid, 0x30, 0x1234},
                                        {kReasonMapping, W | kAddressValid, 0x30, 0x5000},
                                        {kReasonMapping, RW | kAddressValid, 0x30, 0x6000}}));
}

TEST_F(Faults, FLT_D1_OnlyTheRefusedDirections)
{
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, R), OK);
    EXPECT_EQ(machine.map(1, 0x2000, 0x2fff, 0x5000, W), OK);
    EXPECT_EQ(machine.translate(nic, 0x1000, RW).rights, 0u);
    EXPECT_EQ(machine.translate(nic, 0x2000, RW).rights, 0u);
    EXPECT_EQ(all(), (std::vector<FaultRecord>{{kReasonMapping, W | kAddressValid, 0x30, 0x1000},
                                               {kReasonMapping, R | kAddressValid, 0x30, 0x2000}}));
}

TEST_F(Faults, FLT_3_IdIsTheOneOfNow)
{
    machine.read(nic, 0x1000);
    machine.renumber(nic, 0x138);
    EXPECT_EQ(machine.pop()->endpoint, 0x138u);
}

TEST_F(Faults, FLT_3_WithoutAnIdThereIsNoRecord)
{
    Function &disk = machine.add(0x38);
    machine.read(nic, 0x1000);
    machine.read(disk, 0x2000);
    machine.renumber(nic, std::nullopt);
    EXPECT_EQ(all(), (std::vector<FaultRecord>{{kReasonDomain, R | kAddressValid, 0x38, 0x2000}}));
    EXPECT_EQ(machine.stats().faults_dropped, 1u);
}

TEST_F(Faults, W19_FLT_D3_OneRecordPerPageAndDirection)
{
    EXPECT_TRUE(machine.translate(nic, 0x1000, R).fault_queued);
    EXPECT_FALSE(machine.translate(nic, 0x1004, R).fault_queued);
    EXPECT_FALSE(machine.translate(nic, 0x1fff, R).fault_queued);
    EXPECT_TRUE(machine.translate(nic, 0x1008, W).fault_queued);
    EXPECT_FALSE(machine.translate(nic, 0x1010, RW).fault_queued);
    EXPECT_TRUE(machine.translate(nic, 0x2000, R).fault_queued);
    EXPECT_EQ(machine.stats().faults, 6u);
    EXPECT_EQ(machine.stats().faults_coalesced, 3u);
    EXPECT_EQ(all(), (std::vector<FaultRecord>{{kReasonDomain, R | kAddressValid, 0x30, 0x1000},
                                               {kReasonDomain, W | kAddressValid, 0x30, 0x1008},
                                               {kReasonDomain, R | kAddressValid, 0x30, 0x2000}}));
    // Once delivered, the next one counts again.
    EXPECT_TRUE(machine.translate(nic, 0x1000, R).fault_queued);
}

TEST_F(Faults, W19_FLT_D3_ANewDirectionIsReportedAlone)
{
    machine.read(nic, 0x1000);
    EXPECT_TRUE(machine.translate(nic, 0x1000, RW).fault_queued);
    EXPECT_EQ(all(), (std::vector<FaultRecord>{{kReasonDomain, R | kAddressValid, 0x30, 0x1000},
                                               {kReasonDomain, W | kAddressValid, 0x30, 0x1000}}));
}

TEST_F(Faults, W19_FLT_D3_OneEndpointCannotFillTheQueue)
{
    Function &quiet = machine.add(0x38);
    for (uint64_t page = 0; page < 1000; page++) {
        machine.read(nic, page << 12);
    }
    EXPECT_TRUE(machine.translate(quiet, 0x1000, R).fault_queued);
    const std::vector<FaultRecord> records = all();
    ASSERT_EQ(records.size(), 17u);
    EXPECT_EQ(records.front().address, 0u);
    EXPECT_EQ(records.back().endpoint, 0x38u);
    EXPECT_EQ(machine.stats().faults_dropped, 1000u - 16u);
}

TEST_F(Faults, W19_FLT_D3_TheQueueIsBounded)
{
    for (uint32_t i = 0; i < 100; i++) {
        Function &function = machine.add(0x1000 + 8 * i);
        for (uint64_t page = 0; page < 16; page++) {
            machine.read(function, page << 12);
        }
    }
    EXPECT_EQ(all().size(), 256u);
    EXPECT_EQ(machine.stats().faults_dropped, 1600u - 256u);
    EXPECT_EQ(machine.stats().faults, 1600u);
    // And it goes round.
    for (uint64_t round = 0; round < 50; round++) {
        for (uint64_t page = 0; page < 10; page++) {
            EXPECT_TRUE(machine.translate(nic, page << 12, W).fault_queued);
        }
        EXPECT_EQ(all().size(), 10u);
    }
}

TEST_F(Faults, FLT_D2_PendingIsVisible)
{
    EXPECT_FALSE(viommu_engine_fault_ready(machine.engine()));
    machine.read(nic, 0x1000);
    machine.read(nic, 0x2000);
    EXPECT_TRUE(viommu_engine_fault_ready(machine.engine()));
    EXPECT_TRUE(machine.pop().has_value());
    EXPECT_TRUE(viommu_engine_fault_ready(machine.engine()));
    EXPECT_TRUE(machine.pop().has_value());
    EXPECT_FALSE(viommu_engine_fault_ready(machine.engine()));
}

// Whoever takes a buffer for a record needs to know before.
TEST_F(Faults, FLT_3_ReadyDropsRecordsWithoutAnId)
{
    Function &disk = machine.add(0x38);
    machine.read(nic, 0x1000);
    machine.read(disk, 0x2000);
    machine.renumber(nic, std::nullopt);
    EXPECT_TRUE(viommu_engine_fault_ready(machine.engine()));
    EXPECT_EQ(machine.stats().faults_dropped, 1u);
    EXPECT_TRUE(viommu_engine_fault_ready(machine.engine()));
    const std::vector<FaultRecord> records = all();
    ASSERT_EQ(records.size(), 1u);
    EXPECT_EQ(records[0].endpoint, 0x38u);

    machine.read(nic, 0x3000);
    EXPECT_FALSE(viommu_engine_fault_ready(machine.engine()));
    EXPECT_EQ(machine.stats().faults_dropped, 2u);
}

TEST_F(Faults, GEN_1_W14_NothingIsReportedUnlessLive)
{
    viommu_engine_set_live(machine.engine(), false);
    EXPECT_FALSE(machine.translate(nic, 0x1000, R).fault_queued);
    EXPECT_EQ(machine.stats().faults, 1u);
    EXPECT_EQ(machine.stats().faults_dropped, 1u);
    viommu_engine_set_live(machine.engine(), true);
    EXPECT_EQ(all(), (std::vector<FaultRecord>{}));

    machine.read(nic, 0x1000);
    viommu_engine_set_live(machine.engine(), false);
    EXPECT_EQ(all(), (std::vector<FaultRecord>{}));
    EXPECT_EQ(machine.stats().faults_dropped, 2u);
}

TEST_F(Faults, GEN_5_ResetDropsPending)
{
    machine.read(nic, 0x1000);
    viommu_engine_device_reset(machine.engine());
    machine.drive();
    EXPECT_EQ(all(), (std::vector<FaultRecord>{}));
    EXPECT_EQ(machine.stats().faults_dropped, 1u);
}

TEST_F(Faults, W18_RetiredEndpointsRecordsAreDiscarded)
{
    Function &disk = machine.add(0x38);
    for (uint64_t page = 0; page < 5; page++) {
        machine.read(nic, page << 12);
        machine.read(disk, page << 12);
    }
    machine.retire(nic);
    EXPECT_FALSE(machine.translate(nic, 0x9000, R).fault_queued);
    const std::vector<FaultRecord> records = all();
    ASSERT_EQ(records.size(), 5u);
    for (size_t i = 0; i < 5; i++) {
        EXPECT_EQ(records[i].endpoint, 0x38u);
        EXPECT_EQ(records[i].address, i << 12);
    }
    EXPECT_EQ(machine.stats().faults_dropped, 6u);
    EXPECT_EQ(machine.stats().faults, 11u);
}

TEST_F(Faults, W19_CountsOutliveTheEndpoint)
{
    // Freed here, so not by the machine.
    ViommuEndpoint *const endpoint = viommu_endpoint_new(machine.engine(), nullptr, nullptr, 0);
    ViommuTranslation translation;
    viommu_endpoint_translate(endpoint, 0x1000, R, &translation);
    viommu_engine_device_reset(machine.engine());
    viommu_endpoint_retire(endpoint);
    viommu_endpoint_free(endpoint);
    EXPECT_EQ(machine.stats().faults, 1u);
}

} // namespace

} // namespace viommu::test
