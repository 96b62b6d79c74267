// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a thread remembers of its translations: answers, as long as they are
// right, and how many there were.
#include "machine.h"

#include <condition_variable>
#include <thread>

namespace viommu::test
{

namespace
{

constexpr uint64_t kPage = 0x1000;

// Everything is asked twice: the second answer may be a remembered one.
class Lanes : public ::testing::Test
{
protected:
    Lanes()
    {
        machine.add(0x38);
        EXPECT_EQ(machine.attach(1, 0x30), OK);
        EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
        EXPECT_EQ(twice(0x1234), 0x5234u);
    }

    std::optional<uint64_t> twice(uint64_t iova)
    {
        const std::optional<uint64_t> first = machine.read(nic, iova);
        EXPECT_EQ(machine.read(nic, iova), first);
        return first;
    }

    Machine machine{Config().bypass(false).quota(100000, 10)};
    Function &nic = machine.add(0x30);
};

TEST_F(Lanes, UNM_5_NotBeyondTheMapping)
{
    EXPECT_EQ(machine.unmap(1, 0x1000, 0x1fff), OK);
    EXPECT_EQ(twice(0x1234), FAULT);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x9000), OK);
    EXPECT_EQ(twice(0x1234), 0x9234u);
}

TEST_F(Lanes, UNM_5_NotBeyondAMappingAmongMany)
{
    for (uint64_t page = 2; page < 20000; page++) {
        ASSERT_EQ(machine.map(1, page * kPage, page * kPage + 0xfff, page * kPage), OK);
    }
    // In one leaf, in a node that goes, and in the one in which the cut ends.
    EXPECT_EQ(twice(0x1234), 0x5234u);
    EXPECT_EQ(twice(10000 * kPage), 10000 * kPage);
    EXPECT_EQ(twice(15003 * kPage), 15003 * kPage);
    EXPECT_EQ(machine.unmap(1, 0x2000, 15003 * kPage + 0xfff), OK);
    EXPECT_EQ(twice(0x1234), 0x5234u);
    EXPECT_EQ(twice(10000 * kPage), FAULT);
    EXPECT_EQ(twice(15003 * kPage), FAULT);
    EXPECT_EQ(twice(15004 * kPage), 15004 * kPage);
    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    EXPECT_EQ(twice(0x1234), FAULT);
    EXPECT_EQ(twice(15004 * kPage), FAULT);
}

// What is added in the place of a fault is found at once.
TEST_F(Lanes, MAP_6_FaultsAreNotRemembered)
{
    EXPECT_EQ(twice(0x2000), FAULT);
    EXPECT_EQ(machine.map(1, 0x2000, 0x2fff, 0x7000, R), OK);
    EXPECT_EQ(twice(0x2000), 0x7000u);
    EXPECT_EQ(machine.write(nic, 0x2000), FAULT);
    EXPECT_EQ(twice(0x2000), 0x7000u);
}

TEST_F(Lanes, DET_4_NotBeyondTheAttachment)
{
    EXPECT_EQ(machine.attach(2, 0x38), OK);
    EXPECT_EQ(machine.map(2, 0x1000, 0x1fff, 0x8000), OK);
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    EXPECT_EQ(twice(0x1234), 0x8234u);
    EXPECT_EQ(machine.detach(2, 0x30), OK);
    EXPECT_EQ(twice(0x1234), FAULT);
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    EXPECT_EQ(twice(0x1234), 0x8234u);
    EXPECT_EQ(machine.attach(3, 0x30, BYPASS), OK);
    EXPECT_EQ(twice(0x1234), 0x1234u);
}

TEST_F(Lanes, W5_NotBeyondAReset)
{
    viommu_engine_device_reset(machine.engine());
    EXPECT_EQ(twice(0x1234), FAULT);
    machine.drive();
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(twice(0x1234), FAULT);
}

// The block is remembered, no more of the mapping than holds together.
TEST_F(Lanes, W8_BlocksOfALargeMapping)
{
    EXPECT_EQ(machine.map(1, 0x200000, 0x5fffff, 0x80201000), OK);
    for (uint64_t iova = 0x200000; iova < 0x600000; iova += 0x777) {
        ASSERT_EQ(twice(iova), iova - 0x200000 + 0x80201000);
    }
    EXPECT_EQ(machine.map(1, 0x40000000, 0x403fffff, 0x80000000), OK);
    for (uint64_t iova = 0x40000000; iova < 0x40400000; iova += 0x777) {
        ASSERT_EQ(twice(iova), iova + 0x40000000);
    }
    EXPECT_EQ(machine.look(nic, 0x40123456).mask, 0x3fffffu);
    EXPECT_EQ(machine.look(nic, 0x40123456).mask, 0x3fffffu);
    EXPECT_EQ(twice(0x40400000), FAULT);
}

// More threads than have lanes, at the same time, and others in their place.
TEST_F(Lanes, W22_CountsOfAllThreadsAreExact)
{
    const ViommuStats before = machine.stats();
    constexpr int kThreads = 100, kRounds = 3;
    constexpr uint64_t kEach = 200;
    for (int round = 0; round < kRounds; round++) {
        std::mutex lock;
        std::condition_variable changed;
        int waiting = 0;
        std::vector<std::thread> threads;
        for (int i = 0; i < kThreads; i++) {
            threads.emplace_back([&] {
                ViommuTranslation translation;
                for (uint64_t n = 0; n < kEach; n++) {
                    Machine::translate(nic, 0x1000, R, translation);
                    Machine::translate(nic, 0x2000, R, translation);
                    Machine::translate(nic, 0x1000, 0, translation);
                }
                // None ends before all have begun.
                std::unique_lock guard(lock);
                waiting++;
                changed.notify_all();
                changed.wait(guard, [&] { return waiting == kThreads; });
            });
        }
        for (std::thread &thread : threads) {
            thread.join();
        }
    }
    const ViommuStats after = machine.stats();
    EXPECT_EQ(after.translations - before.translations, kRounds * kThreads * kEach);
    EXPECT_EQ(after.faults - before.faults, kRounds * kThreads * kEach);
    ViommuEndpointStats of_nic;
    viommu_endpoint_stats(nic.endpoint, &of_nic);
    EXPECT_EQ(of_nic.translations, after.translations);
    EXPECT_EQ(of_nic.faults, after.faults);
}

} // namespace

} // namespace viommu::test
