// SPDX-License-Identifier: GPL-2.0-or-later
//
// A host that has no memory left: who manages what is known all the same, since a
// function whose manager is not found bypasses.
#include "machine_builder.h"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace
{

// Allocations that still succeed; negative: all do.
long allocations_left = -1;
long allocations = 0;

void *allocate(size_t size)
{
    allocations++;
    if (allocations_left == 0) {
        throw std::bad_alloc();
    }
    allocations_left -= allocations_left > 0 ? 1 : 0;
    if (void *memory = std::malloc(size ? size : 1)) {
        return memory;
    }
    throw std::bad_alloc();
}

} // namespace

void *operator new(size_t size)
{
    return allocate(size);
}
void *operator new[](size_t size)
{
    return allocate(size);
}
// The library's own would be the sanitizer's, whose memory free() refuses.
void *operator new(size_t size, const std::nothrow_t &) noexcept
{
    try {
        return allocate(size);
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}
void operator delete(void *memory, const std::nothrow_t &) noexcept
{
    std::free(memory);
}
void operator delete(void *memory) noexcept
{
    std::free(memory);
}
void operator delete(void *memory, size_t) noexcept
{
    std::free(memory);
}
void operator delete[](void *memory) noexcept
{
    std::free(memory);
}
void operator delete[](void *memory, size_t) noexcept
{
    std::free(memory);
}

namespace viommu::test
{

namespace
{

// Longer than what a std::string holds without an allocation.
constexpr const char *kManagedBus = "the-expander-of-the-second-numa-node";
constexpr const char *kBypassedBus = "the-expander-of-the-third-numa-node";

MachineBuilder machine_with_long_names()
{
    return MachineBuilder()
        .pci_iommu("iommu0", 0, 0x0010, {"pcie.0"})
        .pci_iommu("iommu1", 0, 0x0018, {kManagedBus, VIOMMU_PLATFORM_BUS})
        .leave_out(std::string(kManagedBus) + "/1f")
        .root_bus("pcie.0", 0, 0x00, 0x0f)
        .root_bus(kManagedBus, 0, 0x10, 0x1f)
        .root_bus(kBypassedBus, 0, 0x20, 0xff, true)
        .mmio_endpoint("disk", 3, 0x0a000000);
}

class Memory : public testing::Test
{
protected:
    Memory() { error[0] = '\0'; }
    ~Memory() override { allocations_left = -1; }

    char error[256];
};

} // namespace

TEST_F(Memory, WhoManagesWhatIsAskedWithoutAnAllocation)
{
    const auto topology = build(machine_with_long_names());
    const long before = allocations;
    allocations_left = 0;
    const uint32_t managed = viommu_topology_root_bus_iommu(topology.get(), kManagedBus);
    const uint32_t first = viommu_topology_root_bus_iommu(topology.get(), "pcie.0");
    const uint32_t bypassed = viommu_topology_root_bus_iommu(topology.get(), kBypassedBus);
    const bool function = viommu_topology_manages(topology.get(), 1, 0x1008);
    const bool transport = viommu_topology_manages(topology.get(), 1, 0xffff0003);
    const bool out = viommu_topology_left_out(topology.get(), kManagedBus, 0xff);
    const bool nobodys = viommu_topology_manages(topology.get(), 1, 0x2008);
    allocations_left = -1;
    EXPECT_EQ(allocations, before);
    EXPECT_EQ(managed, 1u);
    EXPECT_EQ(first, 0u);
    EXPECT_EQ(bypassed, VIOMMU_NO_IOMMU);
    EXPECT_TRUE(function);
    EXPECT_TRUE(transport);
    EXPECT_TRUE(out);
    EXPECT_FALSE(nobodys);
}

// A model or a table is whole or there is none, wherever memory runs out.
TEST_F(Memory, WhatCannotBeWrittenIsASentence)
{
    const MachineBuilder machine = machine_with_long_names();
    const ViommuMachineDesc desc = machine.desc();
    const auto topology = build(machine);
    const size_t viot_size = viommu_topology_viot(topology.get(), nullptr, 0, nullptr, 0);
    const size_t array_size =
        viommu_topology_array(topology.get(), 1, VIOMMU_ARRAY_V2, 4096, nullptr, 0, nullptr, 0);
    ASSERT_GT(viot_size, 12u);
    ASSERT_GT(array_size, 36u);

    int made = 0;
    for (long left = 0; made < 3; left++) {
        ASSERT_LT(left, 1000);
        made = 0;
        const auto expect_outcome = [&](bool done) {
            allocations_left = -1;
            made += done ? 1 : 0;
            EXPECT_EQ(error[0] == '\0', done) << error;
            if (!done) {
                EXPECT_STREQ(error, "out of memory");
            }
            error[0] = '\0';
            allocations_left = left;
        };
        allocations_left = left;
        const TopologyPtr again(viommu_topology_new(&desc, error, sizeof(error)));
        expect_outcome(again != nullptr);
        size_t size = viommu_topology_viot(topology.get(), nullptr, 0, error, sizeof(error));
        expect_outcome(size == viot_size);
        size = viommu_topology_array(topology.get(), 1, VIOMMU_ARRAY_V2, 4096, nullptr, 0, error,
                                     sizeof(error));
        expect_outcome(size == array_size);
        allocations_left = -1;
    }
}

} // namespace viommu::test
