// SPDX-License-Identifier: GPL-2.0-or-later
//
// What is left between a driver's reset and the next driver.
#include "machine.h"

namespace viommu::test
{

namespace
{

// Two functions in domains of their own, `nic` with a page, `disk` bypassing.
class Linger : public testing::TestWithParam<bool>
{
protected:
    Linger() : Linger(Config().lingering()) {}
    explicit Linger(const Config &config) : machine(Config(config).bypass(GetParam()))
    {
        EXPECT_EQ(machine.attach(1, 0x30), OK);
        EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, R), OK);
        EXPECT_EQ(machine.attach(2, 0x38, BYPASS), OK);
        machine.told();
    }

    void driver_reset() { viommu_engine_driver_reset(machine.engine()); }

    void expect_lingering()
    {
        EXPECT_TRUE(viommu_engine_lingering(machine.engine()));
        EXPECT_TRUE(machine.stats().lingering);
        EXPECT_EQ(machine.read(nic, 0x1000), 0x5000u);
        EXPECT_EQ(machine.write(nic, 0x1000), FAULT);
        EXPECT_EQ(machine.read(nic, 0x2000), FAULT);
        EXPECT_EQ(machine.read(disk, 0x9000), 0x9000u);
    }

    // As after any reset: `bypass` decides.
    void expect_nothing_left()
    {
        EXPECT_FALSE(viommu_engine_lingering(machine.engine()));
        const ViommuStats stats = machine.stats();
        EXPECT_FALSE(stats.lingering);
        EXPECT_EQ(stats.domains, 0u);
        EXPECT_EQ(stats.mappings, 0u);
        EXPECT_EQ(stats.memory, 0u);
        for (Function *function : {&nic, &disk}) {
            EXPECT_EQ(machine.read(*function, 0x1000),
                      GetParam() ? std::optional<uint64_t>(0x1000) : FAULT);
        }
    }

    Machine machine;
    Function &nic = machine.add(0x30);
    Function &disk = machine.add(0x38);
};

class NoLinger : public Linger
{
protected:
    NoLinger() : Linger(Config()) {}
};

INSTANTIATE_TEST_SUITE_P(Bypass, Linger, testing::Bool());
INSTANTIATE_TEST_SUITE_P(Bypass, NoLinger, testing::Bool());

TEST_P(NoLinger, INI_D1_GEN_14_W5_DriverResetLeavesNothing)
{
    driver_reset();
    expect_nothing_left();
}

TEST_P(Linger, W31_WhatWasAttachedStaysAsItWas)
{
    driver_reset();
    expect_lingering();
    EXPECT_EQ(machine.told(), Told{}); // nothing changed for anybody
    EXPECT_EQ(machine.pop(), std::nullopt);
    EXPECT_EQ(viommu_engine_bypass(machine.engine()), GetParam()); // CFG-4
}

TEST_P(Linger, W31_PendingFaultsAreDropped)
{
    EXPECT_EQ(machine.read(nic, 0x9000), FAULT);
    driver_reset();
    EXPECT_EQ(machine.pop(), std::nullopt);
    EXPECT_EQ(machine.read(nic, 0x9000), FAULT); // GEN-1: nobody to tell
    EXPECT_FALSE(viommu_engine_fault_ready(machine.engine()));
}

TEST_P(Linger, W31_NothingToKeepDoesNotLinger)
{
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    EXPECT_EQ(machine.detach(2, 0x38), OK);
    driver_reset();
    expect_nothing_left();
}

TEST_P(Linger, W31_W5_EndsWithTheNextDriver)
{
    driver_reset();
    viommu_engine_driver_returns(machine.engine());
    expect_nothing_left();
    EXPECT_EQ(machine.told(), GetParam() ? (Told{"begin", "off 30", "commit"})
                                         : (Told{"begin", "on 38", "commit"}));
    machine.drive();
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), NOENT);
    EXPECT_EQ(machine.detach(1, 0x30), INVAL);
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
}

// A driver that comes without a negotiation finds as little.
TEST_P(Linger, W31_W5_EndsWithAnyRequest)
{
    for (const bool attach : {false, true}) {
        machine.drive();
        (void)machine.attach(1, 0x30);
        (void)machine.map(1, 0x1000, 0x1fff, 0x5000, R);
        driver_reset();
        if (attach) {
            EXPECT_EQ(machine.attach(1, 0x38), OK);
            EXPECT_EQ(machine.read(disk, 0x1000), FAULT);
        } else {
            EXPECT_EQ(machine.map(1, 0x2000, 0x2fff, 0x6000), UNSUPP);
        }
        EXPECT_EQ(machine.read(nic, 0x1000), GetParam() ? std::optional<uint64_t>(0x1000) : FAULT);
    }
}

TEST_P(Linger, W31_EndsWithASecondReset)
{
    driver_reset();
    driver_reset();
    expect_nothing_left();
}

TEST_P(Linger, W31_INI_D1_EndsWithAnyOtherReset)
{
    driver_reset();
    viommu_engine_device_reset(machine.engine());
    expect_nothing_left();
}

TEST_P(Linger, W31_CFG_5_EndsWithASystemReset)
{
    driver_reset();
    viommu_engine_system_reset(machine.engine());
    expect_nothing_left();
}

TEST_P(Linger, W31_ADriverThatIsThereLosesNothing)
{
    viommu_engine_driver_returns(machine.engine());
    EXPECT_EQ(machine.read(nic, 0x1000), 0x5000u);
    EXPECT_FALSE(viommu_engine_lingering(machine.engine()));
}

TEST_P(Linger, W31_BypassCannotBeWritten)
{
    driver_reset();
    EXPECT_FALSE(viommu_engine_write_bypass(machine.engine(), GetParam() ? 0 : 1));
    expect_lingering();
}

TEST_P(Linger, W31_W18_AFunctionThatGoesLosesWhatItHad)
{
    driver_reset();
    const ViommuIdentity gone{nic.endpoint, 0x30};
    viommu_engine_forget(machine.engine(), &gone, 1);
    EXPECT_EQ(machine.read(nic, 0x1000), GetParam() ? std::optional<uint64_t>(0x1000) : FAULT);
    EXPECT_TRUE(viommu_engine_lingering(machine.engine())); // the other does
    EXPECT_EQ(machine.read(disk, 0x9000), 0x9000u);
    machine.retire(disk);
    EXPECT_EQ(machine.read(disk, 0x9000), FAULT);
    EXPECT_FALSE(viommu_engine_lingering(machine.engine()));
}

TEST_P(Linger, W31_AFunctionThatComesHasNoPartInIt)
{
    driver_reset();
    Function &late = machine.add(0x40);
    EXPECT_EQ(machine.read(late, 0x1000), GetParam() ? std::optional<uint64_t>(0x1000) : FAULT);
    expect_lingering();
}

/* Migration */

TEST_P(Linger, W31_ArrivesAttachedToNothingThatCanBeReached)
{
    driver_reset();
    const std::vector<uint8_t> stream = machine.save();
    expect_lingering(); // it may go on here

    for (const bool lingers : {false, true}) {
        // Also for one that does not know of this, or has not seen the reset.
        Machine to(lingers ? Config().lingering() : Config());
        Function &there = to.add(0x30);
        Function &bypassed = to.add(0x38);
        EXPECT_EQ(to.load(stream), "");
        EXPECT_EQ(to.commit(!lingers), "");
        for (Function *function : {&there, &bypassed}) {
            EXPECT_EQ(to.read(*function, 0x1000), FAULT);
            EXPECT_EQ(to.read(*function, 0x9000), FAULT);
        }
        EXPECT_EQ(viommu_engine_bypass(to.engine()), GetParam());
        EXPECT_EQ(viommu_engine_lingering(to.engine()), lingers);
        EXPECT_EQ(to.stats().domains, 1u);
        if (lingers) {
            viommu_engine_driver_returns(to.engine());
            EXPECT_EQ(to.stats().domains, 0u);
            EXPECT_EQ(to.read(there, 0x1000), GetParam() ? std::optional<uint64_t>(0x1000) : FAULT);
        }
    }
}

TEST_P(Linger, W31_W4_WithoutAnIdNothingIsSaved)
{
    driver_reset();
    machine.renumber(nic, std::nullopt);
    EXPECT_FALSE(viommu_engine_save(
        machine.engine(), [](void *, const uint8_t *, size_t) { return true; }, nullptr));
    expect_lingering();
}

// QEMU's own device keeps everything over a reset by the driver.
TEST_P(Linger, W31_WhatArrivesWithoutADriverLingers)
{
    const std::vector<uint8_t> stream = machine.save();
    EXPECT_EQ(machine.load(stream), "");
    EXPECT_EQ(machine.commit(false), "");
    expect_lingering();
    driver_reset();
    expect_nothing_left();
}

TEST_P(NoLinger, W31_INI_D1_WhatArrivesWithoutADriverIsDropped)
{
    const std::vector<uint8_t> stream = machine.save();
    EXPECT_EQ(machine.load(stream), "");
    EXPECT_EQ(machine.commit(false), "");
    expect_nothing_left();
}

} // namespace

} // namespace viommu::test
