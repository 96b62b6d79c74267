// SPDX-License-Identifier: GPL-2.0-or-later
//
// A host that has no memory left: who manages what is known all the same, since a
// function whose manager is not found bypasses.
#include <cstddef>
#include <cstdlib>
#include <new>

#include "machine_builder.h"

namespace
{

// Allocations that still succeed; negative: all do.
long allocationsLeft = -1;
long allocations = 0;

void *allocate(std::size_t size)
{
    allocations++;
    if (allocationsLeft == 0) {
        throw std::bad_alloc();
    }
    allocationsLeft -= allocationsLeft > 0 ? 1 : 0;
    if (void *memory = std::malloc(size ? size : 1)) {
        return memory;
    }
    throw std::bad_alloc();
}

} // namespace

void *operator new(std::size_t size)
{
    return allocate(size);
}
void *operator new[](std::size_t size)
{
    return allocate(size);
}
void operator delete(void *memory) noexcept
{
    std::free(memory);
}
void operator delete(void *memory, std::size_t) noexcept
{
    std::free(memory);
}
void operator delete[](void *memory) noexcept
{
    std::free(memory);
}
void operator delete[](void *memory, std::size_t) noexcept
{
    std::free(memory);
}

namespace viommu::test
{

namespace
{

// Longer than what a std::string holds without an allocation.
constexpr const char *managedBus = "the-expander-of-the-second-numa-node";
constexpr const char *bypassedBus = "the-expander-of-the-third-numa-node";

MachineBuilder machineWithLongNames()
{
    return MachineBuilder()
        .pciIommu("iommu0", 0, 0x0010, {"pcie.0"})
        .pciIommu("iommu1", 0, 0x0018, {managedBus, VIOMMU_PLATFORM_BUS})
        .rootBus("pcie.0", 0, 0x00, 0x0f)
        .rootBus(managedBus, 0, 0x10, 0x1f)
        .rootBus(bypassedBus, 0, 0x20, 0xff, true)
        .mmioEndpoint("disk", 3, 0x0a000000);
}

class Memory : public testing::Test
{
protected:
    Memory() { error[0] = '\0'; }
    ~Memory() override { allocationsLeft = -1; }

    char error[256];
};

} // namespace

TEST_F(Memory, WhoManagesWhatIsAskedWithoutAnAllocation)
{
    const auto topology = build(machineWithLongNames());
    const long before = allocations;
    allocationsLeft = 0;
    const std::uint32_t managed = viommu_topology_root_bus_iommu(topology.get(), managedBus);
    const std::uint32_t first = viommu_topology_root_bus_iommu(topology.get(), "pcie.0");
    const std::uint32_t bypassed = viommu_topology_root_bus_iommu(topology.get(), bypassedBus);
    const bool function = viommu_topology_manages(topology.get(), 1, 0x1008);
    const bool transport = viommu_topology_manages(topology.get(), 1, 0xffff0003);
    const bool nobodys = viommu_topology_manages(topology.get(), 1, 0x2008);
    allocationsLeft = -1;
    EXPECT_EQ(allocations, before);
    EXPECT_EQ(managed, 1u);
    EXPECT_EQ(first, 0u);
    EXPECT_EQ(bypassed, VIOMMU_NO_IOMMU);
    EXPECT_TRUE(function);
    EXPECT_TRUE(transport);
    EXPECT_FALSE(nobodys);
}

// A model or a table is whole or there is none, wherever memory runs out.
TEST_F(Memory, WhatCannotBeWrittenIsASentence)
{
    const MachineBuilder machine = machineWithLongNames();
    const ViommuMachineDesc desc = machine.desc();
    const auto topology = build(machine);
    const std::size_t viotSize = viommu_topology_viot(topology.get(), nullptr, 0, nullptr, 0);
    const std::size_t arraySize =
        viommu_topology_array(topology.get(), 1, VIOMMU_ARRAY_V2, 4096, nullptr, 0, nullptr, 0);
    ASSERT_GT(viotSize, 12u);
    ASSERT_GT(arraySize, 36u);

    int made = 0;
    for (long left = 0; made < 3; left++) {
        ASSERT_LT(left, 1000);
        made = 0;
        const auto expectOutcome = [&](bool done) {
            allocationsLeft = -1;
            made += done ? 1 : 0;
            EXPECT_EQ(error[0] == '\0', done) << error;
            if (!done) {
                EXPECT_STREQ(error, "out of memory");
            }
            error[0] = '\0';
            allocationsLeft = left;
        };
        allocationsLeft = left;
        const TopologyPtr again(viommu_topology_new(&desc, error, sizeof(error)));
        expectOutcome(again != nullptr);
        std::size_t size = viommu_topology_viot(topology.get(), nullptr, 0, error, sizeof(error));
        expectOutcome(size == viotSize);
        size = viommu_topology_array(topology.get(), 1, VIOMMU_ARRAY_V2, 4096, nullptr, 0, error,
                                     sizeof(error));
        expectOutcome(size == arraySize);
        allocationsLeft = -1;
    }
}

} // namespace viommu::test
