// SPDX-License-Identifier: GPL-2.0-or-later
//
// The migrated state.
#include "machine.h"

namespace viommu::test
{

namespace
{

using Bytes = std::vector<uint8_t>;

// Writes the format as its description says, right or wrong.
class Stream
{
public:
    Stream &u8(uint8_t value) { return number(value, 1); }
    Stream &u32(uint32_t value) { return number(value, 4); }
    Stream &u64(uint64_t value) { return number(value, 8); }
    Stream &more() { return u8(1); }
    Stream &end() { return u8(0); }

    Stream &domain(uint32_t id, uint32_t mappings) { return more().u64(id).u32(id).u32(mappings); }
    Stream &mapping(uint64_t first, uint64_t last, uint64_t phys, uint32_t flags)
    {
        return more().u64(first).u64(last).u64(phys).u32(flags);
    }
    Stream &endpoint(uint32_t id) { return more().u32(id); }

    // A domain with one endpoint, ready for its mappings.
    static Stream one_domain(uint32_t mappings) { return Stream().u32(1).domain(1, mappings); }
    // What follows the mappings of that.
    Stream &rest(uint32_t endpoint_id = 0x30, uint8_t domain_bypass = 0, uint8_t bypass = 0)
    {
        return end().endpoint(endpoint_id).end().u8(domain_bypass).end().u8(bypass);
    }

    Bytes bytes;

private:
    Stream &number(uint64_t value, int size)
    {
        for (int i = size - 1; i >= 0; i--) {
            bytes.push_back(static_cast<uint8_t>(value >> (8 * i)));
        }
        return *this;
    }
};

const Bytes kNothing{0, 0, 0, 0, /* end */ 0, /* bypass */ 0};

// By hand, byte for byte.
const Bytes kSample{
    0,    0,    0,    2,                            // domains
    1,                                              // one more
    0,    0,    0,    0,    0,    0,    0,    1,    // key
    0,    0,    0,    1,                            // id
    0,    0,    0,    2,                            // mappings
    1,                                              // one more
    0,    0,    0,    0,    0,    0,    0x10, 0,    // first
    0,    0,    0,    0,    0,    0,    0x2f, 0xff, // last
    0,    0,    0,    0x12, 0x34, 0x56, 0x70, 0,    // physical
    0,    0,    0,    1,                            // READ
    1,                                              // one more
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0, 0,    // first
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // last
    0,    0,    0,    0,    0,    0,    0x50, 0,    // physical
    0,    0,    0,    7,                            // READ, WRITE, MMIO
    0,                                              // no more mappings
    1,    0,    0,    0,    0x30,                   // endpoint
    0,                                              // no more endpoints
    0,                                              // does not bypass
    1,                                              // one more
    0,    0,    0,    0,    0xfe, 0xdc, 0xba, 0x98, // key
    0xfe, 0xdc, 0xba, 0x98,                         // id
    0,    0,    0,    0,                            // mappings
    0,                                              // no more mappings
    1,    0,    0,    0x12, 0x38,                   // endpoint
    0,                                              // no more endpoints
    1,                                              // bypasses
    0,                                              // no more domains
    1,                                              // bypass
};

void expect_sample(Machine &machine, Function &a, Function &b)
{
    EXPECT_EQ(machine.stats().domains, 2u);
    EXPECT_EQ(machine.stats().mappings, 2u);
    EXPECT_TRUE(viommu_engine_bypass(machine.engine()));
    EXPECT_EQ(machine.read(a, 0x0fff), FAULT);
    EXPECT_EQ(machine.read(a, 0x1000), 0x1234567000u);
    EXPECT_EQ(machine.read(a, 0x2fff), 0x1234568fffu);
    EXPECT_EQ(machine.write(a, 0x1000), FAULT);
    EXPECT_EQ(machine.write(a, MAX), 0x5fffu);
    EXPECT_EQ(machine.read(b, 0x1000), 0x1000u);
    EXPECT_TRUE(a.translating);
    EXPECT_FALSE(b.translating);
}

TEST(Save, NothingIsSixBytes)
{
    Machine machine;
    EXPECT_EQ(machine.save(), kNothing);
}

TEST(Save, WritesTheBytesOfTheFormat)
{
    Machine machine;
    machine.add(0x30);
    machine.add(0x1238);
    EXPECT_EQ(machine.attach(0xfedcba98, 0x1238, BYPASS), OK);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, MAX - 0xfff, MAX, 0x5000, RW | MMIO), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x2fff, 0x1234567000, R), OK);
    EXPECT_TRUE(viommu_engine_write_bypass(machine.engine(), 1));
    EXPECT_EQ(machine.save(), kSample);
}

TEST(Save, FLT_3_IdsAreThoseOfNow)
{
    Machine machine;
    Function &nic = machine.add(0x130);
    EXPECT_EQ(machine.attach(1, 0x130), OK);
    machine.renumber(nic, 0x30);
    EXPECT_EQ(machine.save(), Stream::one_domain(0).rest(0x30).bytes);
}

TEST(Save, W6_AnEndpointWithoutIdIsNotLeftOut)
{
    Machine machine;
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    machine.renumber(nic, std::nullopt);
    const auto put = [](void *, const uint8_t *, size_t) { return true; };
    EXPECT_FALSE(viommu_engine_save(machine.engine(), put, nullptr));
}

TEST(Save, FailureToWriteIsReported)
{
    Machine machine;
    machine.add(0x30);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    const size_t size = machine.save().size();
    for (size_t room = 0; room <= size; room++) {
        size_t left = room;
        const bool saved = viommu_engine_save(
            machine.engine(),
            [](void *ctx, const uint8_t *, size_t n) {
                auto *const space = static_cast<size_t *>(ctx);
                if (*space < n) {
                    *space = 0;
                    return false;
                }
                *space -= n;
                return true;
            },
            &left);
        EXPECT_EQ(saved, room == size) << room;
    }
}

TEST(Load, ReadsTheBytesOfTheFormat)
{
    Machine machine;
    Function &a = machine.add(0x30);
    Function &b = machine.add(0x1238);
    EXPECT_EQ(machine.load(kSample), "");
    // Not in force yet.
    EXPECT_EQ(machine.stats().domains, 0u);
    EXPECT_EQ(machine.read(a, 0x1000), FAULT);
    EXPECT_EQ(machine.told(), Told{});
    EXPECT_EQ(machine.commit(), "");
    expect_sample(machine, a, b);
    EXPECT_EQ(machine.told(), (Told{"begin", "off 1238", "commit"}));
    EXPECT_EQ(machine.save(), kSample);
    // Alive: the IDs are members, the domains take requests.
    EXPECT_EQ(machine.unmap(1, 0x1000, 0x2fff), OK);
    EXPECT_EQ(machine.detach(1, 0x30), OK);
    EXPECT_EQ(machine.detach(0xfedcba98, 0x1238), OK);
    EXPECT_EQ(machine.save(), (Bytes{0, 0, 0, 0, 0, 1}));
}

TEST(Load, ReplacesAllThereWas)
{
    Machine machine(Config().bypass(true));
    Function &a = machine.add(0x30);
    Function &b = machine.add(0x38);
    EXPECT_EQ(machine.attach(1, 0x30), OK);
    EXPECT_EQ(machine.attach(5, 0x38), OK);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);
    EXPECT_EQ(machine.read(a, 0x9000), FAULT);
    machine.listen(a, true, true);
    machine.told();
    EXPECT_EQ(machine.load(Stream::one_domain(1).mapping(0x8000, 0x8fff, 0x9000, R).rest().bytes),
              "");
    EXPECT_EQ(machine.commit(), "");
    EXPECT_EQ(machine.told(),
              (Told{"unmap 30 1000-1fff 5000", "drop 30 1000-1fff", "map 30 8000-8fff 9000 r"}));
    EXPECT_EQ(machine.stats().domains, 1u);
    EXPECT_EQ(machine.stats().mappings, 1u);
    EXPECT_EQ(machine.pop(), std::nullopt);
    EXPECT_EQ(machine.read(a, 0x1000), FAULT);
    EXPECT_EQ(machine.read(a, 0x8000), 0x9000u);
    EXPECT_EQ(machine.read(b, 0x8000), FAULT); // bypass is 0 in the stream
    EXPECT_EQ(machine.detach(5, 0x38), INVAL);
}

TEST(Load, W11_W4_MoreMemoryThanTheQuotaIsRefused)
{
    Stream stream = Stream::one_domain(50);
    for (uint64_t i = 0; i < 50; i++) {
        stream.mapping(i * 0x2000, i * 0x2000 + 0xfff, 0x9000, R);
    }
    const Bytes bytes = stream.rest().bytes;
    Machine machine(Config().memory(4096));
    machine.add(0x30);
    EXPECT_EQ(machine.load(bytes), "");
    EXPECT_EQ(machine.commit(), "");
    EXPECT_GT(machine.stats().memory, 2048u);

    Machine small(Config().memory(2048));
    small.add(0x30);
    EXPECT_EQ(small.load(bytes), "domain 1 takes more than is left of 2048 bytes of max-memory");
    EXPECT_NE(small.commit(), "");
    EXPECT_EQ(small.stats().memory, 0u);
}

TEST(Load, W11_W4_DomainsWithoutMappingsTakeMemory)
{
    Stream stream;
    stream.u32(2);
    stream.domain(1, 0).end().endpoint(0x30).end().u8(0);
    stream.domain(2, 0).end().endpoint(0x38).end().u8(0);
    const Bytes bytes = stream.end().u8(0).bytes;
    const auto load_with = [&](uint64_t quota, uint64_t *memory) {
        Machine machine(Config().memory(quota));
        machine.add(0x30);
        machine.add(0x38);
        std::string said = machine.load(bytes);
        if (said.empty()) {
            said = machine.commit();
        }
        *memory = machine.stats().memory;
        return said;
    };
    uint64_t memory = 0;
    EXPECT_EQ(load_with(UINT64_MAX, &memory), "");
    ASSERT_GT(memory, 0u);
    uint64_t none = 0;
    EXPECT_NE(load_with(memory - 1, &none).find("domain 2 takes more"), std::string::npos);
    EXPECT_EQ(none, 0u);
}

// A guest must not be able to fill its quota so that it cannot be migrated.
TEST(Load, W11_W4_NodesMayBeAFewMoreThanAtTheSource)
{
    constexpr uint32_t kCount = 100000;
    Stream stream = Stream::one_domain(kCount);
    for (uint64_t i = 0; i < kCount; i++) {
        stream.mapping(i * 0x2000, i * 0x2000 + 0xfff, 0x9000, R);
    }
    const Bytes bytes = stream.rest().bytes;
    Machine machine(Config().quota(kCount, 1).memory(UINT64_MAX));
    machine.add(0x30);
    ASSERT_EQ(machine.load(bytes), "");
    ASSERT_EQ(machine.commit(), "");
    const uint64_t memory = machine.stats().memory;
    ASSERT_GT(memory, 1u << 20);

    Machine enough(Config().quota(kCount, 1).memory(memory - memory / 3000));
    enough.add(0x30);
    EXPECT_EQ(enough.load(bytes), "");

    Machine small(Config().quota(kCount, 1).memory(memory - memory / 500));
    small.add(0x30);
    EXPECT_NE(small.load(bytes), "");
}

TEST(Load, OfferedFlagsAreKnownBeforeFeaturesAre)
{
    Machine machine;
    machine.add(0x30);
    machine.drive(0);
    EXPECT_EQ(machine.load(Stream::one_domain(1).mapping(0, 0xfff, 0, RW | MMIO).rest().bytes), "");
    EXPECT_EQ(machine.commit(), "");
}

TEST(Load, W4_TruncatedAnywhereIsRefusedAndChangesNothing)
{
    Machine machine;
    Function &nic = machine.add(0x30);
    machine.add(0x1238);
    EXPECT_EQ(machine.attach(3, 0x30), OK);
    EXPECT_EQ(machine.map(3, 0x4000, 0x4fff, 0x7000), OK);
    const Bytes before = machine.save();
    for (size_t size = 0; size < kSample.size(); size++) {
        EXPECT_EQ(
            machine.load(Bytes(kSample.begin(), kSample.begin() + static_cast<ptrdiff_t>(size))),
            "the stream ends too early")
            << size;
        EXPECT_EQ(machine.save(), before);
        EXPECT_EQ(machine.read(nic, 0x4000), 0x7000u);
    }
}

TEST(Load, W4_AnyBitFlippedNeverBreaksTheEngine)
{
    size_t accepted = 0;
    for (size_t at = 0; at < kSample.size(); at++) {
        for (int bit = 0; bit < 8; bit++) {
            Machine machine;
            Function &a = machine.add(0x30);
            machine.add(0x1238);
            Bytes bytes = kSample;
            bytes[at] = static_cast<uint8_t>(bytes[at] ^ (1 << bit));

            struct Source {
                const Bytes &bytes;
                size_t at;
            } source{bytes, 0};
            const auto get = [](void *ctx, uint8_t *data, size_t size) {
                auto *const from = static_cast<Source *>(ctx);
                for (size_t i = 0; i < size; i++) {
                    if (from->at >= from->bytes.size()) {
                        return false;
                    }
                    data[i] = from->bytes[from->at++];
                }
                return true;
            };
            if (viommu_engine_load(machine.engine(), get, &source, nullptr, 0) &&
                viommu_engine_load_commit(machine.engine(), true, nullptr, 0)) {
                accepted++;
                // What came in is what would go out again.
                EXPECT_EQ(machine.save(), bytes);
            } else {
                EXPECT_EQ(machine.stats().domains, 0u);
            }
            machine.read(a, 0x1000);
            machine.unmap(1, 0, MAX);
        }
    }
    EXPECT_GT(accepted, 0u);
}

// Each of these differs in one respect from a stream that loads.
struct Refusal {
    const char *name;
    Bytes bytes;
};

class LoadRefuses : public ::testing::TestWithParam<Refusal>
{
};

TEST_P(LoadRefuses, W4_Malformed)
{
    Machine machine(Config()
                        .input(0, 0xffffffffff)
                        .domains(1, 1000)
                        .quota(3, 2)
                        .reserve(0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI));
    machine.add(0x30);
    machine.add(0x38);
    EXPECT_EQ(machine.attach(7, 0x30), OK);
    EXPECT_NE(machine.load(GetParam().bytes), "");
    EXPECT_EQ(machine.stats().domains, 1u);
    // And nothing is staged.
    EXPECT_NE(machine.commit(), "");
    EXPECT_EQ(machine.stats().domains, 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Streams, LoadRefuses,
    ::testing::Values(
        Refusal{"HugeDomainCount", Stream().u32(0xffffffff).end().u8(0).bytes},
        Refusal{"MoreDomainsThanTheQuota", Stream()
                                               .u32(3)
                                               .domain(1, 0)
                                               .end()
                                               .endpoint(1)
                                               .end()
                                               .u8(0)
                                               .domain(2, 0)
                                               .end()
                                               .endpoint(2)
                                               .end()
                                               .u8(0)
                                               .domain(3, 0)
                                               .rest(3)
                                               .bytes},
        Refusal{"FewerDomainsThanAnnounced", Stream().u32(2).domain(1, 0).rest().bytes},
        Refusal{"MoreDomainsThanAnnounced", Stream().u32(0).domain(1, 0).rest().bytes},
        Refusal{"DomainTwice", Stream()
                                   .u32(2)
                                   .domain(1, 0)
                                   .end()
                                   .endpoint(0x30)
                                   .end()
                                   .u8(0)
                                   .domain(1, 0)
                                   .rest(0x38)
                                   .bytes},
        Refusal{"DomainsOutOfOrder", Stream()
                                         .u32(2)
                                         .domain(2, 0)
                                         .end()
                                         .endpoint(0x30)
                                         .end()
                                         .u8(0)
                                         .domain(1, 0)
                                         .rest(0x38)
                                         .bytes},
        Refusal{"KeyIsNotTheId", Stream().u32(1).more().u64(2).u32(1).u32(0).rest().bytes},
        Refusal{"KeyIsWide", Stream().u32(1).more().u64(0x100000001).u32(1).u32(0).rest().bytes},
        Refusal{"DomainOutOfRange", Stream().u32(1).domain(0, 0).rest().bytes},
        Refusal{"DomainWithoutEndpoint", Stream::one_domain(0).end().end().u8(0).end().u8(0).bytes},
        Refusal{"EndpointTwiceInADomain", Stream::one_domain(0)
                                              .end()
                                              .endpoint(0x30)
                                              .endpoint(0x30)
                                              .end()
                                              .u8(0)
                                              .end()
                                              .u8(0)
                                              .bytes},
        Refusal{
            "EndpointInTwoDomains",
            Stream()
                .u32(2)
                .domain(1, 0)
                .end()
                .endpoint(0x30)
                .end()
                .u8(0)
                .domain(2, 0)
                .rest(0x30)
                .bytes},
        Refusal{"DomainBypassIs2", Stream::one_domain(0).rest(0x30, 2).bytes},
        Refusal{"BypassIs2", Stream::one_domain(0).rest(0x30, 0, 2).bytes},
        Refusal{"MarkerIs2", Stream().u32(1).u8(2).u64(1).u32(1).u32(0).rest().bytes},
        Refusal{"BypassDomainWithMapping",
                Stream::one_domain(1).mapping(0, 0xfff, 0, R).rest(0x30, 1).bytes},
        Refusal{"HugeMappingCount", Stream::one_domain(0xffffffff).rest().bytes},
        Refusal{"MoreMappingsThanTheQuota", Stream::one_domain(4)
                                                .mapping(0x0000, 0x0fff, 0, R)
                                                .mapping(0x1000, 0x1fff, 0, R)
                                                .mapping(0x2000, 0x2fff, 0, R)
                                                .mapping(0x3000, 0x3fff, 0, R)
                                                .rest()
                                                .bytes},
        Refusal{
            "MoreMappingsThanTheQuotaInAll", Stream()
                                                 .u32(2)
                                                 .domain(1, 2)
                                                 .mapping(0x0000, 0x0fff, 0, R)
                                                 .mapping(0x1000, 0x1fff, 0, R)
                                                 .end()
                                                 .endpoint(0x30)
                                                 .end()
                                                 .u8(0)
                                                 .domain(2, 2)
                                                 .mapping(0x0000, 0x0fff, 0, R)
                                                 .mapping(0x1000, 0x1fff, 0, R)
                                                 .rest(0x38)
                                                 .bytes},
        Refusal{"FewerMappingsThanAnnounced",
                Stream::one_domain(2).mapping(0, 0xfff, 0, R).rest().bytes},
        Refusal{"MoreMappingsThanAnnounced",
                Stream::one_domain(0).mapping(0, 0xfff, 0, R).rest().bytes},
        Refusal{"InvertedMapping",
                Stream::one_domain(1).mapping(0x2000, 0x1fff, 0, R).rest().bytes},
        Refusal{"MisalignedFirst", Stream::one_domain(1).mapping(0x800, 0xfff, 0, R).rest().bytes},
        Refusal{"MisalignedLast", Stream::one_domain(1).mapping(0, 0xffe, 0, R).rest().bytes},
        Refusal{"MisalignedPhysical",
                Stream::one_domain(1).mapping(0, 0xfff, 0x800, R).rest().bytes},
        Refusal{"PhysicalWraps",
                Stream::one_domain(1).mapping(0, 0x1fff, MAX - 0xfff, R).rest().bytes},
        Refusal{"OutsideTheInputRange",
                Stream::one_domain(1)
                    .mapping(uint64_t{1} << 40, (uint64_t{1} << 40) + 0xfff, 0, R)
                    .rest()
                    .bytes},
        Refusal{"UnknownMapFlag", Stream::one_domain(1).mapping(0, 0xfff, 0, 9).rest().bytes},
        Refusal{"MappingsOverlap", Stream::one_domain(2)
                                       .mapping(0x1000, 0x2fff, 0, R)
                                       .mapping(0x2000, 0x3fff, 0, R)
                                       .rest()
                                       .bytes},
        Refusal{"MappingsOutOfOrder", Stream::one_domain(2)
                                          .mapping(0x2000, 0x2fff, 0, R)
                                          .mapping(0x1000, 0x1fff, 0, R)
                                          .rest()
                                          .bytes},
        Refusal{"MappingTwice", Stream::one_domain(2)
                                    .mapping(0x1000, 0x1fff, 0, R)
                                    .mapping(0x1000, 0x1fff, 0, R)
                                    .rest()
                                    .bytes},
        Refusal{"MapsTheMsiWindow",
                Stream::one_domain(1).mapping(0xfee00000, 0xfee00fff, 0, R).rest().bytes}),
    [](const ::testing::TestParamInfo<Refusal> &refusal) { return refusal.param.name; });

TEST(Load, W4_TheStreamTheRefusalsStartFromLoads)
{
    Machine machine(Config()
                        .input(0, 0xffffffffff)
                        .domains(1, 1000)
                        .quota(3, 2)
                        .reserve(0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI));
    machine.add(0x30);
    machine.add(0x38);
    EXPECT_EQ(machine.load(Stream()
                               .u32(2)
                               .domain(1, 2)
                               .mapping(0x1000, 0x1fff, 0, R)
                               .mapping(0xfffffff000, 0xffffffffff, 0, W)
                               .end()
                               .endpoint(0x30)
                               .end()
                               .u8(0)
                               .domain(1000, 1)
                               .mapping(0x1000, 0x1fff, 0, RW)
                               .rest(0x38)
                               .bytes),
              "");
    EXPECT_EQ(machine.commit(), "");
}

TEST(Load, GranuleThatDiffersFailsCleanly)
{
    Machine machine(Config().granule(0x10000));
    machine.add(0x30);
    EXPECT_NE(machine.load(Stream::one_domain(1).mapping(0x1000, 0x1fff, 0, R).rest().bytes), "");
}

TEST(Load, MAP_2_OverlapInOneByte)
{
    for (const uint64_t first : {9u, 10u}) {
        Machine machine(Config().granule(1));
        machine.add(0x30);
        EXPECT_EQ(
            machine
                .load(
                    Stream::one_domain(2).mapping(5, 9, 0, R).mapping(first, 12, 0, R).rest().bytes)
                .empty(),
            first == 10);
    }
}

TEST(Load, BYP_1_BypassNeedsAWayToTell)
{
    Machine machine(Config().features(VIOMMU_F_MAP_UNMAP));
    EXPECT_NE(machine.load({0, 0, 0, 0, 0, 1}), "");
    EXPECT_EQ(machine.load(kNothing), "");
}

TEST(Load, BYP_3_BypassDomainNeedsTheFlag)
{
    const Bytes bypassing = Stream::one_domain(0).rest(0x30, 1).bytes;
    Machine without(Config().features(VIOMMU_F_MAP_UNMAP));
    EXPECT_NE(without.load(bypassing), "");
    EXPECT_EQ(without.load(Stream::one_domain(0).rest().bytes), "");
    Machine with(Config().features(VIOMMU_F_BYPASS_CONFIG));
    EXPECT_EQ(with.load(bypassing), "");
    Machine array(Config().features(VIOMMU_F_MAP_UNMAP).array());
    EXPECT_EQ(array.load(bypassing), "");
}

// After a failed commit the engine is as after a device reset.
void expect_reset(Machine &machine, Function &nic)
{
    EXPECT_EQ(machine.stats().domains, 0u);
    EXPECT_EQ(machine.stats().mappings, 0u);
    EXPECT_EQ(machine.read(nic, 0x1000), FAULT);
    EXPECT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), UNSUPP);
    EXPECT_FALSE(viommu_engine_bypass(machine.engine()));
}

TEST(Commit, W4_EndpointThatDoesNotExistHere)
{
    Machine machine;
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.attach(3, 0x30), OK);
    EXPECT_EQ(machine.load(kSample), "");
    EXPECT_EQ(machine.commit(), "endpoint 4664 in domain 4275878552 does not exist here");
    expect_reset(machine, nic);
    EXPECT_NE(machine.commit(), ""); // it was used up
}

TEST(Commit, W4_WithoutLoad)
{
    Machine machine;
    Function &nic = machine.add(0x30);
    EXPECT_EQ(machine.attach(3, 0x30), OK);
    EXPECT_NE(machine.commit(), "");
    expect_reset(machine, nic);
}

TEST(Commit, ATT_9_ReservedRegionOfAnEndpointIsMapped)
{
    Machine machine;
    Function &nic = machine.add(0x30, {{0x1000, 0x1fff, VIOMMU_RESV_RESERVED}});
    EXPECT_EQ(machine.load(Stream::one_domain(1).mapping(0x0, 0x1fff, 0, R).rest().bytes), "");
    EXPECT_NE(machine.commit(), "");
    expect_reset(machine, nic);
}

TEST(Commit, W17_TwoIdsOfOneRequesterAreTwoMembers)
{
    Machine machine;
    Function &bridge = machine.add(0x200);
    machine.add_behind(bridge, 0x208);
    machine.add_behind(bridge, 0x210);
    EXPECT_EQ(machine.load(Stream::one_domain(1)
                               .mapping(0x1000, 0x1fff, 0x5000, R)
                               .end()
                               .endpoint(0x208)
                               .endpoint(0x210)
                               .end()
                               .u8(0)
                               .end()
                               .u8(0)
                               .bytes),
              "");
    EXPECT_EQ(machine.commit(), "");
    EXPECT_EQ(machine.read(bridge, 0x1000), 0x5000u);
    EXPECT_EQ(machine.detach(1, 0x208), OK);
    EXPECT_EQ(machine.read(bridge, 0x1000), 0x5000u);
    EXPECT_EQ(machine.detach(1, 0x210), OK);
    EXPECT_EQ(machine.read(bridge, 0x1000), FAULT);
}

TEST(Commit, W17_OneRequesterInTwoDomainsIsRefused)
{
    Machine machine;
    Function &bridge = machine.add(0x200);
    machine.add_behind(bridge, 0x208);
    EXPECT_EQ(machine.load(Stream()
                               .u32(2)
                               .domain(1, 0)
                               .end()
                               .endpoint(0x200)
                               .end()
                               .u8(0)
                               .domain(2, 0)
                               .rest(0x208)
                               .bytes),
              "");
    EXPECT_NE(machine.commit(), "");
    expect_reset(machine, bridge);
}

TEST(Commit, RoundTripOfManyMappings)
{
    Machine source;
    source.add(0x30);
    source.add(0x38);
    EXPECT_EQ(source.attach(9, 0x30), OK);
    EXPECT_EQ(source.attach(9, 0x38), OK);
    for (uint64_t i = 0; i < 500; i++) {
        const uint64_t page = (i * 7919) % 65536;
        ASSERT_EQ(source.map(9, page << 12, (page << 12) + 0xfff, i << 20,
                             static_cast<uint32_t>(1 + i % 7)),
                  OK);
    }
    const Bytes bytes = source.save();

    Machine target;
    Function &nic = target.add(0x30);
    Function &disk = target.add(0x38);
    EXPECT_EQ(target.load(bytes), "");
    EXPECT_EQ(target.commit(), "");
    EXPECT_EQ(target.stats().mappings, 500u);
    for (uint64_t i = 0; i < 500; i++) {
        const uint64_t page = (i * 7919) % 65536;
        EXPECT_EQ(target.look(nic, page << 12).phys, i << 20);
        EXPECT_EQ(target.look(disk, page << 12).rights, (1 + i % 7) & RW);
    }
    EXPECT_EQ(target.save().size(), bytes.size());
}

} // namespace

} // namespace viommu::test
