// SPDX-License-Identifier: GPL-2.0-or-later
//
// How much is done at once: requests that end many mappings free none of them,
// but defer all together, and what was deferred is freed in bounded steps.
#include "machine.h"
#include "mapping/node_pool.h"

namespace viommu::test
{

namespace
{

constexpr uint64_t kPages = 60000;

size_t nodes()
{
    return NodePool::instance().use().nodes;
}

class Work : public ::testing::Test
{
protected:
    Work()
    {
        machine.add(0x38);
        EXPECT_EQ(machine.attach(1, 0x30), OK);
        for (uint64_t page = 0; page < kPages; page++) {
            if (machine.map(1, page << 12, (page << 12) + 0xfff, 0x5000) != OK) {
                ADD_FAILURE();
                break;
            }
        }
        machine.hold();
        deferrals_ = machine.deferrals();
        nodes_ = nodes();
        EXPECT_GT(nodes_ - before, kPages / 50);
    }

    // `deferred`: the nodes, and the domain if it ended, too.
    void expect_put_off(size_t deferred)
    {
        EXPECT_EQ(machine.deferrals() - deferrals_, deferred);
        EXPECT_EQ(nodes(), nodes_);
        EXPECT_EQ(machine.look(nic, 0x1000).rights, 0u);
        EXPECT_EQ(machine.stats().mappings, 0u);
        machine.reclaim();
        EXPECT_EQ(nodes(), before);
    }

    const size_t before = nodes();
    Machine machine{Config().quota(kPages, 2)};
    Function &nic = machine.add(0x30);

private:
    size_t deferrals_;
    size_t nodes_;
};

TEST_F(Work, W22_W24_UnmapOfEverything)
{
    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    expect_put_off(1);
}

TEST_F(Work, W22_W24_UnmapOfNearlyEverything)
{
    EXPECT_EQ(machine.unmap(1, 0x1000, (kPages << 12) - 1), OK);
    EXPECT_EQ(machine.look(nic, 0).rights, RW);
    EXPECT_EQ(machine.stats().mappings, 1u);
    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    expect_put_off(2);
}

TEST_F(Work, W22_W24_DetachOfTheLastEndpoint)
{
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    expect_put_off(2);
}

TEST_F(Work, W22_W24_AttachElsewhere)
{
    EXPECT_EQ(machine.attach(2, 0x30), OK);
    expect_put_off(2);
}

TEST_F(Work, W22_W24_Reset)
{
    viommu_engine_device_reset(machine.engine());
    expect_put_off(2);
}

TEST_F(Work, W22_W24_Retire)
{
    machine.retire(nic);
    expect_put_off(2);
}

// A second endpoint comes and goes without a look at the mappings.
TEST_F(Work, W22_W24_AttachOfASecondEndpoint)
{
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    EXPECT_EQ(machine.detach(1, 0x38), OK);
    EXPECT_EQ(machine.stats().mappings, kPages);
    EXPECT_EQ(machine.look(nic, 0x1000).rights, RW);
    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    expect_put_off(1);
}

// Who only caches is told of all mappings together, and so the nodes are freed.
TEST_F(Work, W22_W24_UnmapWithAListener)
{
    machine.listen(nic, false, true);
    size_t told = 0;
    machine.on_drop = [&](Function &, uint64_t, uint64_t) { told++; };
    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    EXPECT_LE(told, 16u); // the binary digits of kPages
    machine.reclaim();
    EXPECT_EQ(nodes(), before);
}

} // namespace

} // namespace viommu::test
