// SPDX-License-Identifier: GPL-2.0-or-later
//
// MAP, UNMAP and what translations make of them.
#include "machine.h"

namespace viommu::test
{

namespace
{

// Domain 1 with endpoint 0x30 attached, nothing mapped.
class Mapping : public ::testing::Test
{
protected:
    Mapping() : Mapping(Config()) {}
    explicit Mapping(const Config &setup) : machine(setup), nic(machine.add(0x30))
    {
        EXPECT_EQ(machine.attach(1, 0x30), OK);
    }

    Machine machine;
    Function &nic;
};

using Map = Mapping;
using Unmap = Mapping;
using Translate = Mapping;

TEST_F(Map, OPS_1_Ok)
{
    EXPECT_EQ(machine.send(Request::map(1, 0x1000, 0x2fff, 0x5000, RW)).out,
              (std::vector<uint8_t>{OK, 0, 0, 0}));
    EXPECT_EQ(machine.read(nic, 0x1000), 0x5000u);
    EXPECT_EQ(machine.write(nic, 0x2fff), 0x6fffu);
    EXPECT_EQ(machine.stats().mappings, 1u);
}

TEST_F(Map, MAP_1_W8_MisalignedIsRange)
{
    EXPECT_EQ(machine.map(1, 0x1001, 0x1fff, 0x5000), RANGE);
    EXPECT_EQ(machine.map(1, 0x1800, 0x1fff, 0x5000), RANGE);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1ffe, 0x5000), RANGE);
    EXPECT_EQ(machine.map(1, 0x1000, 0x2000, 0x5000), RANGE);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1000, 0x5000), RANGE);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5800), RANGE);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5001), RANGE);
    EXPECT_EQ(machine.map(1, 5, 9, 0x1234), RANGE);
    EXPECT_EQ(machine.map(1, MAX, MAX, 0), RANGE);
    EXPECT_EQ(machine.stats().mappings, 0u);
}

TEST_F(Map, MAP_1_TheVeryTopIsAligned)
{
    EXPECT_EQ(machine.map(1, MAX - 0xfff, MAX, 0x5000), OK);
    EXPECT_EQ(machine.read(nic, MAX), 0x5fffu);
}

TEST_F(Map, MAP_2_OverlapIsInval)
{
    EXPECT_EQ(machine.map(1, 0x2000, 0x3fff, 0x5000), OK);
    EXPECT_EQ(machine.map(1, 0x2000, 0x3fff, 0x5000), INVAL);
    EXPECT_EQ(machine.map(1, 0x3000, 0x3fff, 0x9000), INVAL);
    EXPECT_EQ(machine.map(1, 0x1000, 0x2fff, 0x9000), INVAL);
    EXPECT_EQ(machine.map(1, 0x3000, 0x4fff, 0x9000), INVAL);
    EXPECT_EQ(machine.map(1, 0x0000, MAX, 0x0), INVAL);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x9000), OK);
    EXPECT_EQ(machine.map(1, 0x4000, 0x4fff, 0x9000), OK);
    EXPECT_EQ(machine.read(nic, 0x3000), 0x6000u);
}

TEST_F(Map, MAP_3_UnknownFlagIsInval)
{
    for (int bit = 3; bit < 32; bit++) {
        EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, R | 1u << bit), INVAL) << bit;
    }
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, RW | MMIO), OK);
}

TEST_F(Map, MAP_4_NoSuchDomainIsNoent)
{
    EXPECT_EQ(machine.map(2, 0x1000, 0x1fff, 0x5000), NOENT);
}

TEST_F(Map, MAP_5_BypassDomainIsInval)
{
    machine.add(0x38);
    EXPECT_EQ(machine.attach(2, 0x38, BYPASS), OK);
    EXPECT_EQ(machine.map(2, 0x1000, 0x1fff, 0x5000), INVAL);
}

TEST_F(Map, MAP_6_NoWriteWithoutTheRight)
{
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, R), OK);
    EXPECT_EQ(machine.read(nic, 0x1000), 0x5000u);
    EXPECT_EQ(machine.write(nic, 0x1000), FAULT);
    EXPECT_EQ(machine.translate(nic, 0x1000, RW).rights, 0u);
}

TEST_F(Map, MAP_6_W7_NorAtTheBorderToAWritableNeighbour)
{
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, R), OK);
    EXPECT_EQ(machine.map(1, 0x2000, 0x2fff, 0x9000, RW), OK);
    EXPECT_EQ(machine.write(nic, 0x1fff), FAULT);
    EXPECT_EQ(machine.write(nic, 0x2000), 0x9000u);
}

TEST_F(Map, MAP_7_WriteOnlyDeniesReads)
{
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, W), OK);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
    EXPECT_EQ(machine.write(nic, 0x1000), 0x5000u);
}

TEST_F(Map, MAP_6_NoRightsAtAll)
{
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, 0), OK);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
    EXPECT_EQ(machine.write(nic, 0x1000), FAULT);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, R), INVAL); // it does occupy
}

TEST_F(Map, MAP_D1_W1_InvertedIsInval)
{
    EXPECT_EQ(machine.map(1, 0x2000, 0x1000, 0x5000), INVAL);
    EXPECT_EQ(machine.map(1, 0x2000, 0x1fff, 0x5000), INVAL);
    EXPECT_EQ(machine.map(1, MAX - 0xfff, 0xfff, 0x5000), INVAL);
    EXPECT_EQ(machine.stats().mappings, 0u);
    EXPECT_EQ(machine.unmap(1, 0x2000, 0x1fff), INVAL);
    EXPECT_EQ(machine.unmap(1, 0, 0xffff), OK);
}

TEST_F(Map, MAP_D2_NeedsTheFeature)
{
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    machine.drive(kAllFeatures & ~VIOMMU_F_MAP_UNMAP);
    EXPECT_EQ(machine.map(1, 0x2000, 0x2fff, 0x5000), UNSUPP);
    EXPECT_EQ(machine.unmap(1, 0x1000, 0x1fff), UNSUPP);
    EXPECT_EQ(machine.stats().mappings, 1u);
}

TEST_F(Map, MAP_D2_MmioFlagNeedsTheFeature)
{
    machine.drive(kAllFeatures & ~VIOMMU_F_MMIO);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, RW | MMIO), INVAL);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, RW), OK);
}

TEST_F(Map, MAP_D3_PhysicalRangeMustNotWrap)
{
    EXPECT_EQ(machine.map(1, 0x1000, 0x2fff, MAX - 0xfff), RANGE);
    EXPECT_EQ(machine.map(1, 0x0000, MAX, 0x1000), RANGE);
    EXPECT_EQ(machine.map(1, 0x1000, 0x2fff, MAX - 0x1fff), OK);
    EXPECT_EQ(machine.read(nic, 0x2fff), MAX);
}

class NarrowInput : public Mapping
{
protected:
    NarrowInput() : Mapping(Config().input(0x10000, 0x7fffffffff)) {}
};

TEST_F(NarrowInput, OPS_D2_OutsideTheInputRangeIsRange)
{
    EXPECT_EQ(machine.map(1, uint64_t{1} << 45, (uint64_t{1} << 45) + 0xfff, 0x5000), RANGE);
    EXPECT_EQ(machine.map(1, 0x7ffffff000, 0x8000000fff, 0x5000), RANGE);
    EXPECT_EQ(machine.map(1, 0xf000, 0x10fff, 0x5000), RANGE);
    EXPECT_EQ(machine.map(1, 0x10000, 0x10fff, 0x5000), OK);
    EXPECT_EQ(machine.map(1, 0x7ffffff000, 0x7fffffffff, 0x5000), OK);
    // Not negotiated, it is enforced all the same.
    machine.drive(VIOMMU_F_MAP_UNMAP);
    EXPECT_EQ(machine.map(1, 0x8000000000, 0x8000000fff, 0x5000), RANGE);
}

class ByteGranule : public Mapping
{
protected:
    ByteGranule() : Mapping(Config().granule(1)) {}
};

TEST_F(ByteGranule, MAP_1_AnyRangeIsAligned)
{
    EXPECT_EQ(machine.map(1, 5, 9, 0x1234), OK);
    EXPECT_EQ(machine.map(1, 10, 10, 0x777), OK);
    EXPECT_EQ(machine.map(1, MAX, MAX, 0x42), OK);
    EXPECT_EQ(machine.read(nic, 4), FAULT);
    EXPECT_EQ(machine.read(nic, 5), 0x1234u);
    EXPECT_EQ(machine.read(nic, 9), 0x1238u);
    EXPECT_EQ(machine.read(nic, 10), 0x777u);
    EXPECT_EQ(machine.read(nic, 11), FAULT);
    EXPECT_EQ(machine.read(nic, MAX - 1), FAULT);
    EXPECT_EQ(machine.read(nic, MAX), 0x42u);
}

TEST_F(ByteGranule, MAP_2_OverlapInOneByte)
{
    EXPECT_EQ(machine.map(1, 5, 9, 0), OK);
    EXPECT_EQ(machine.map(1, 9, 12, 0), INVAL);
    EXPECT_EQ(machine.map(1, 3, 5, 0), INVAL);
    EXPECT_EQ(machine.map(1, 10, 12, 0), OK);
    EXPECT_EQ(machine.map(1, 3, 4, 0), OK);
    EXPECT_EQ(machine.unmap(1, 4, 4), RANGE);
    EXPECT_EQ(machine.unmap(1, 3, 4), OK);
}

class ReservedMapping : public Mapping
{
protected:
    ReservedMapping()
        : Mapping(Config()
                      .reserve(0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI)
                      .reserve(0x40000000, 0x40000fff, VIOMMU_RESV_RESERVED))
    {
    }
};

TEST_F(ReservedMapping, RSV_4_OverlapIsInval)
{
    EXPECT_EQ(machine.map(1, 0xfee00000, 0xfee00fff, 0x5000), INVAL);
    EXPECT_EQ(machine.map(1, 0xfedff000, 0xfee00fff, 0x5000), INVAL);
    EXPECT_EQ(machine.map(1, 0x40000000, 0x40000fff, 0x5000), INVAL);
    EXPECT_EQ(machine.map(1, 0x0, 0xffffffff, 0x0), INVAL);
    EXPECT_EQ(machine.map(1, 0xfedff000, 0xfedfffff, 0x5000), OK);
    EXPECT_EQ(machine.map(1, 0xfef00000, 0xfef00fff, 0x5000), OK);
}

TEST_F(ReservedMapping, RSV_4_OverlapInOneByte)
{
    machine.add(0x38, {{0x90fff, 0x92000, VIOMMU_RESV_RESERVED}});
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x90000, 0x90fff, 0x5000), INVAL);
    EXPECT_EQ(machine.map(1, 0x92000, 0x92fff, 0x5000), INVAL);
    EXPECT_EQ(machine.map(1, 0x8f000, 0x8ffff, 0x5000), OK);
    EXPECT_EQ(machine.map(1, 0x93000, 0x93fff, 0x5000), OK);
}

TEST_F(ReservedMapping, RSV_4_OfAnyEndpointInTheDomain)
{
    machine.add(0x38, {{0x80000, 0x80fff, VIOMMU_RESV_RESERVED}});
    EXPECT_EQ(machine.attach(1, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x80000, 0x80fff, 0x5000), INVAL);
    EXPECT_EQ(machine.detach(1, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x80000, 0x80fff, 0x5000), OK);
}

TEST_F(ReservedMapping, RSV_5_ReservedFaultsAndMsiPasses)
{
    EXPECT_EQ(machine.read(nic, 0x40000000), FAULT);
    EXPECT_EQ(machine.pop(), (FaultRecord{kReasonMapping, R | kAddressValid, 0x30, 0x40000000}));
    EXPECT_EQ(machine.write(nic, 0xfee00000), 0xfee00000u);
    EXPECT_EQ(machine.write(nic, 0xfeefffff), 0xfeefffffu);
    EXPECT_EQ(machine.write(nic, 0xfedfffff), FAULT);
    EXPECT_EQ(machine.write(nic, 0xfef00000), FAULT);
    EXPECT_EQ(machine.look(nic, 0xfee12345).mask, 0xfffffu);
    EXPECT_EQ(machine.look(nic, 0xfee12345).rights, VIOMMU_WRITE);
}

TEST_F(ReservedMapping, RSV_5_TheMsiWindowCannotBeRead)
{
    EXPECT_EQ(machine.read(nic, 0xfee00020), FAULT);
    EXPECT_EQ(machine.pop(), (FaultRecord{kReasonMapping, R | kAddressValid, 0x30, 0xfee00020}));
    EXPECT_EQ(machine.translate(nic, 0xfeeff000, R | W).rights, 0u);
    EXPECT_EQ(machine.pop(), (FaultRecord{kReasonMapping, R | kAddressValid, 0x30, 0xfeeff000}));
    EXPECT_EQ(machine.pop(), std::nullopt);
}

// Nor by a look-up or a write that was answered there before, nor by a page that shares its place
// among the remembered answers.
TEST_F(ReservedMapping, RSV_5_TheMsiWindowCannotBeReadAfterAWrite)
{
    constexpr uint64_t kAt = 0xfee00000;
    constexpr uint64_t kSamePlace = kAt - 0x1000 * 0x1000;
    EXPECT_EQ(machine.map(1, kSamePlace, kSamePlace + 0xfff, 0x5000, R), OK);
    for (int round = 0; round < 3; round++) {
        EXPECT_EQ(machine.read(nic, kSamePlace), 0x5000u);
        EXPECT_EQ(machine.look(nic, kAt).rights, VIOMMU_WRITE);
        EXPECT_EQ(machine.read(nic, kAt), FAULT);
        EXPECT_EQ(machine.write(nic, kAt), kAt);
        EXPECT_EQ(machine.read(nic, kAt), FAULT);
        EXPECT_EQ(machine.write(nic, kSamePlace), FAULT);
    }
    EXPECT_EQ(machine.stats().faults, 9u);
}

TEST_F(ReservedMapping, OPS_5_MsiWindowIsClosedToTheUnattached)
{
    Function &loose = machine.add(0x38);
    EXPECT_EQ(machine.write(loose, 0xfee00000), FAULT);
    EXPECT_EQ(machine.attach(1, 0x38, BYPASS), INVAL); // a failed ATTACH opens nothing
    EXPECT_EQ(machine.write(loose, 0xfee00000), FAULT);
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    EXPECT_EQ(machine.write(nic, 0xfee00000), FAULT);
}

class SmallQuota : public Mapping
{
protected:
    SmallQuota() : Mapping(Config().quota(3, 5)) {}
};

TEST_F(SmallQuota, W11_MappingQuotaIsNomem)
{
    machine.add(0x38);
    EXPECT_EQ(machine.attach(2, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.map(1, 0x2000, 0x2fff, 0x5000), OK);
    EXPECT_EQ(machine.map(2, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.map(2, 0x2000, 0x2fff, 0x5000), NOMEM);
    EXPECT_EQ(machine.map(1, 0x3000, 0x3fff, 0x5000), NOMEM);
    EXPECT_EQ(machine.read(nic, 0x3000), FAULT);

    EXPECT_EQ(machine.unmap(1, 0x1000, 0x1fff), OK);
    EXPECT_EQ(machine.map(2, 0x2000, 0x2fff, 0x5000), OK);
    EXPECT_EQ(machine.detach(2, 0x38), OK); // frees two
    EXPECT_EQ(machine.map(1, 0x3000, 0x3fff, 0x5000), OK);
    EXPECT_EQ(machine.map(1, 0x4000, 0x4fff, 0x5000), OK);
    EXPECT_EQ(machine.map(1, 0x5000, 0x5fff, 0x5000), NOMEM);
}

constexpr uint64_t kMemoryQuota = 64 * 1024;

class SmallMemory : public Mapping
{
protected:
    SmallMemory() : Mapping(Config().quota(MAX, UINT32_MAX).memory(kMemoryQuota)) {}

    uint64_t used() const { return machine.stats().memory; }

    // MAPs of one page each, `stride` pages apart, until one is refused.
    uint64_t fill(uint64_t stride)
    {
        for (uint64_t i = 1;; i++) {
            const uint64_t at = i * stride * 0x1000;
            if (const int status = machine.map(1, at, at + 0xfff, 0x5000); status != OK) {
                EXPECT_EQ(status, NOMEM);
                return i - 1;
            }
            EXPECT_LE(used(), kMemoryQuota);
        }
    }
};

TEST_F(SmallMemory, W11_MemoryQuotaIsNomem)
{
    machine.add(0x38);
    const uint64_t empty = used();
    EXPECT_GT(empty, 0u); // a domain
    const uint64_t count = fill(2);
    EXPECT_GT(count, 1000u);
    EXPECT_GT(used(), kMemoryQuota / 2);

    // Nothing of it was done, and what is wrong anyway is said to be wrong.
    EXPECT_EQ(machine.stats().mappings, count);
    EXPECT_EQ(machine.read(nic, (count + 1) * 0x2000), FAULT);
    EXPECT_EQ(machine.map(1, 0x2000, 0x3fff, 0x5000), INVAL);
    EXPECT_EQ(machine.unmap(1, 0x2000, 0x2fff), OK);

    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    EXPECT_EQ(used(), empty);
    EXPECT_EQ(fill(1), count);

    // Another domain's memory is of the same quota, and goes with the domain.
    EXPECT_EQ(machine.attach(2, 0x38), OK);
    EXPECT_EQ(machine.map(2, 0x1000, 0x1fff, 0x5000), NOMEM);
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    EXPECT_EQ(used(), empty);
    EXPECT_EQ(machine.map(2, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_GT(used(), empty);
    viommu_engine_device_reset(machine.engine());
    EXPECT_EQ(used(), 0u);
}

TEST(DomainMemory, W11_DomainsAreOfTheQuota)
{
    Machine machine(Config().quota(MAX, UINT32_MAX).memory(kMemoryQuota));
    constexpr uint32_t kId = 0x100;
    uint32_t attached = 0;
    int status = OK;
    while (status == OK && attached < 1000) {
        machine.add(kId + attached);
        status = machine.attach(attached, kId + attached);
        attached += status == OK ? 1 : 0;
    }
    EXPECT_EQ(status, NOMEM);
    EXPECT_EQ(machine.stats().domains, attached);
    EXPECT_LE(machine.stats().memory, kMemoryQuota);
    // To join one takes none, nor to leave one for one of its own.
    EXPECT_EQ(machine.attach(0, kId + attached), OK);
    EXPECT_EQ(machine.detach(0, kId + attached), OK);
    EXPECT_EQ(machine.attach(attached, kId), OK);
    EXPECT_EQ(machine.stats().domains, attached);
}

TEST_F(Unmap, UNM_1_ReservedIsIgnored)
{
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.send(Request::unmap(1, 0x1000, 0x1fff).byte(24, 1).byte(27, 0x80)).status(),
              OK);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
}

TEST_F(Unmap, UNM_2_NoSuchDomainIsNoent)
{
    EXPECT_EQ(machine.unmap(2, 0, MAX), NOENT);
}

TEST_F(Unmap, UNM_3_BypassDomainIsInval)
{
    machine.add(0x38);
    EXPECT_EQ(machine.attach(2, 0x38, BYPASS), OK);
    EXPECT_EQ(machine.unmap(2, 0, MAX), INVAL);
}

TEST_F(Unmap, UNM_4_SplitIsRangeAndRemovesNothing)
{
    EXPECT_EQ(machine.map(1, 0x0000, 0x0fff, 0x10000), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x20000), OK);
    EXPECT_EQ(machine.map(1, 0x2000, 0x3fff, 0x30000), OK);
    for (const auto &[first, last] : std::vector<std::pair<uint64_t, uint64_t>>{{0, 0x2fff},
                                                                                {0x3000, MAX},
                                                                                {0x2000, 0x2fff},
                                                                                {0x2001, 0x3fff},
                                                                                {0, 0x3ffe},
                                                                                {1, 0x3fff},
                                                                                {0x800, 0x800},
                                                                                {0xfff, 0x1fff}}) {
        EXPECT_EQ(machine.unmap(1, first, last), RANGE) << first << "-" << last;
        EXPECT_EQ(machine.read(nic, 0x0), 0x10000u);
        EXPECT_EQ(machine.read(nic, 0x1000), 0x20000u);
        EXPECT_EQ(machine.read(nic, 0x3fff), 0x31fffu);
        EXPECT_EQ(machine.stats().mappings, 3u);
    }
}

TEST_F(Unmap, UNM_5_HolesAreFine)
{
    EXPECT_EQ(machine.unmap(1, 0x1000, 0x1fff), OK);
    EXPECT_EQ(machine.map(1, 0x2000, 0x2fff, 0x10000), OK);
    EXPECT_EQ(machine.map(1, 0x6000, 0x7fff, 0x20000), OK);
    EXPECT_EQ(machine.map(1, 0xa000, 0xafff, 0x30000), OK);
    EXPECT_EQ(machine.unmap(1, 0x1234, 0x9fff), OK);
    EXPECT_EQ(machine.read(nic, 0x2000), FAULT);
    EXPECT_EQ(machine.read(nic, 0x7fff), FAULT);
    EXPECT_EQ(machine.read(nic, 0xa000), 0x30000u);
    EXPECT_EQ(machine.stats().mappings, 1u);
}

TEST_F(Unmap, UNM_5_NeighboursKeepTheirIdentity)
{
    // Adjacent and congruent, still two mappings.
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.map(1, 0x2000, 0x2fff, 0x6000), OK);
    EXPECT_EQ(machine.unmap(1, 0x2000, 0x2fff), OK);
    EXPECT_EQ(machine.read(nic, 0x1fff), 0x5fffu);
    EXPECT_EQ(machine.read(nic, 0x2000), FAULT);
}

TEST_F(Unmap, UNM_5_Everything)
{
    EXPECT_EQ(machine.map(1, 0, 0xfff, 0x5000), OK);
    EXPECT_EQ(machine.map(1, MAX - 0xfff, MAX, 0x6000), OK);
    for (uint64_t page = 1; page <= 200; page++) { // more than one portion
        EXPECT_EQ(machine.map(1, page * 0x2000, page * 0x2000 + 0xfff, 0x7000), OK);
    }
    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    EXPECT_EQ(machine.stats().mappings, 0u);
    EXPECT_EQ(machine.read(nic, 0), FAULT);
    EXPECT_EQ(machine.read(nic, MAX), FAULT);
}

TEST_F(Translate, W7_NoByteBeyondEitherEnd)
{
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.read(nic, 0x0fff), FAULT);
    EXPECT_EQ(machine.read(nic, 0x1000), 0x5000u);
    EXPECT_EQ(machine.read(nic, 0x1fff), 0x5fffu);
    EXPECT_EQ(machine.read(nic, 0x2000), FAULT);
}

TEST_F(Translate, W7_LastBytesOfAdjacentMappings)
{
    for (uint64_t page = 0; page < 500; page++) {
        ASSERT_EQ(machine.map(1, page << 12, (page << 12) + 0xfff, (1000 - page) << 12), OK);
    }
    for (uint64_t page = 0; page < 500; page++) {
        EXPECT_EQ(machine.read(nic, (page << 12) + 0xfff), ((1000 - page) << 12) + 0xfff);
    }
}

TEST_F(Translate, W7_BothEndsOfTheAddressSpace)
{
    EXPECT_EQ(machine.read(nic, 0), FAULT);
    EXPECT_EQ(machine.read(nic, MAX), FAULT);
    EXPECT_EQ(machine.map(1, 0, 0xfff, MAX - 0xfff), OK);
    EXPECT_EQ(machine.map(1, MAX - 0xfff, MAX, 0), OK);
    EXPECT_EQ(machine.read(nic, 0), MAX - 0xfff);
    EXPECT_EQ(machine.read(nic, 0xfff), MAX);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
    EXPECT_EQ(machine.read(nic, MAX - 0x1000), FAULT);
    EXPECT_EQ(machine.read(nic, MAX - 0xfff), 0u);
    EXPECT_EQ(machine.read(nic, MAX), 0xfffu);
}

TEST_F(Translate, W8_BlockIsCongruentWithThePhysicalAddress)
{
    EXPECT_EQ(machine.map(1, 0x200000, 0x3fffff, 0x10001000), OK);
    const ViommuTranslation incongruent = machine.look(nic, 0x212345);
    EXPECT_EQ(incongruent.phys, 0x10013345u);
    EXPECT_EQ(incongruent.mask, 0xfffu);

    EXPECT_EQ(machine.map(1, 0x400000, 0x5fffff, 0x10000000), OK);
    EXPECT_EQ(machine.look(nic, 0x400000).mask, 0x1fffffu);
    EXPECT_EQ(machine.look(nic, 0x5fffff).mask, 0x1fffffu);
    EXPECT_EQ(machine.map(1, 0x600000, 0x7fffff, 0x10010000), OK);
    EXPECT_EQ(machine.look(nic, 0x600000).mask, 0xffffu);
}

TEST_F(Translate, W8_BlockLiesInsideTheMapping)
{
    EXPECT_EQ(machine.map(1, 0x3000, 0x9fff, 0x3000), OK);
    EXPECT_EQ(machine.look(nic, 0x3000).mask, 0xfffu);
    EXPECT_EQ(machine.look(nic, 0x4fff).mask, 0x3fffu);
    EXPECT_EQ(machine.look(nic, 0x7fff).mask, 0x3fffu);
    EXPECT_EQ(machine.look(nic, 0x8000).mask, 0x1fffu);
    EXPECT_EQ(machine.look(nic, 0x9fff).mask, 0x1fffu);
}

TEST_F(Translate, W8_BlockOfTheWholeSpace)
{
    EXPECT_EQ(machine.map(1, 0, MAX, 0), OK);
    for (const uint64_t iova : {uint64_t{0}, uint64_t{0x1234}, MAX}) {
        EXPECT_EQ(machine.look(nic, iova).phys, iova);
        EXPECT_EQ(machine.look(nic, iova).mask, MAX);
        EXPECT_EQ(machine.look(nic, iova).rights, RW);
    }
    EXPECT_EQ(machine.unmap(1, 0, MAX), OK);
    EXPECT_EQ(machine.map(1, uint64_t{1} << 63, MAX, 0), OK);
    EXPECT_EQ(machine.look(nic, MAX).mask, MAX >> 1);
}

TEST_F(Translate, FLT_D1_LookUpIsNoAccess)
{
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, R), OK);
    EXPECT_EQ(machine.look(nic, 0x1000).rights, R);
    EXPECT_EQ(machine.look(nic, 0x2000).rights, 0u);
    EXPECT_EQ(machine.look(nic, 0x2000).mask, 0u);
    EXPECT_EQ(machine.stats().translations, 0u);
    EXPECT_EQ(machine.stats().faults, 0u);
    EXPECT_EQ(machine.pop(), std::nullopt);
}

TEST_F(Translate, MAP_6_RightsOfTheBlockAreTheMappings)
{
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, RW), OK);
    EXPECT_EQ(machine.translate(nic, 0x1000, R).rights, RW);
    EXPECT_EQ(machine.translate(nic, 0x1000, RW).rights, RW);
}

TEST_F(Translate, W19_EveryAccessIsCounted)
{
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000, R), OK);
    machine.read(nic, 0x1000);
    machine.read(nic, 0x1001);
    machine.write(nic, 0x1000);
    ViommuEndpointStats stats;
    viommu_endpoint_stats(nic.endpoint, &stats);
    EXPECT_EQ(stats.translations, 2u);
    EXPECT_EQ(stats.faults, 1u);
    EXPECT_EQ(machine.stats().translations, 2u);
    EXPECT_EQ(machine.stats().faults, 1u);
}

TEST_F(Mapping, DET_4_W29_ReplayShowsTheDomainInOrder)
{
    const auto visit = [this] {
        Told seen;
        viommu_endpoint_replay(
            nic.endpoint,
            [](void *ctx, uint64_t iova, uint64_t mask, uint64_t phys, uint32_t rights) {
                static_cast<Told *>(ctx)->push_back(
                    std::to_string(iova >> 12) + "-" + std::to_string((iova + mask) >> 12) + "=" +
                    std::to_string(phys >> 12) + " " + std::to_string(rights));
                return true;
            },
            &seen);
        return seen;
    };
    EXPECT_EQ(machine.map(1, 0x5000, 0x6fff, 0x9000, R), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x8000, RW | MMIO), OK);
    EXPECT_EQ(machine.map(1, 0x2000, 0x2fff, 0x8000, 0), OK); // lets nothing through
    EXPECT_EQ(visit(), (Told{"1-1=8 3", "5-5=9 1", "6-6=10 1"}));
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    EXPECT_EQ(visit(), Told{});
    EXPECT_EQ(machine.attach(1, 0x30, BYPASS), OK);
    EXPECT_EQ(visit(), Told{});
}

} // namespace

} // namespace viommu::test
