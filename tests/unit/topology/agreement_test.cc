// SPDX-License-Identifier: GPL-2.0-or-later
//
// Random machines, described in every way, read back by decoders that share no
// code with the encoders, and held against a naive reading of the rules.
#include "machine_builder.h"
#include "owners.h"
#include "tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace viommu::test
{

namespace
{

constexpr uint16_t kSegmentCount = 3;

class RandomMachine
{
public:
    explicit RandomMachine(unsigned seed) : random_(seed)
    {
        add_root_buses();
        add_iommus();
        add_mmio_endpoints();
        add_left_out();
    }

    const MachineBuilder &machine() const { return machine_; }

private:
    unsigned below(size_t limit) { return static_cast<unsigned>(random_() % limit); }

    bool once(unsigned in) { return below(in) == 0; }

    void add_root_buses()
    {
        std::vector<std::set<unsigned>> starts(kSegmentCount);
        const unsigned count = 1 + below(6);
        for (unsigned i = 0; i < count; i++) {
            const size_t segment = once(3) ? 1 + below(kSegmentCount - 1) : 0;
            starts[segment].insert(once(3) ? 0 : below(256));
        }
        for (uint16_t segment = 0; segment < kSegmentCount; segment++) {
            for (auto start = starts[segment].begin(); start != starts[segment].end(); ++start) {
                const auto next = std::next(start);
                const unsigned limit = next == starts[segment].end() ? 255 : *next - 1;
                // Half of the windows touch the next one.
                const unsigned last = once(2) ? limit : *start + below(limit - *start + 1);
                const bool bypass = once(4);
                const std::string name =
                    "bus" + std::to_string(segment) + "." + std::to_string(*start);
                machine_.root_bus(name, segment, static_cast<uint8_t>(*start),
                                  static_cast<uint8_t>(last), bypass);
                if (!bypass) {
                    claimable_.push_back(name);
                }
            }
        }
    }

    uint16_t requester_id(uint16_t segment)
    {
        if (once(4)) {
            return static_cast<uint16_t>(random_());
        }
        // At or around the ends of a window, where splitting goes wrong first.
        const ViommuRootBusDesc &bus = machine_.root_buses[below(machine_.root_buses.size())];
        const unsigned edge = once(2) ? bus.first_bus * 256u : bus.last_bus * 256u + 255u;
        const unsigned id = edge + below(5) - 2;
        return static_cast<uint16_t>(bus.segment == segment ? id : 8 * below(32));
    }

    void add_iommus()
    {
        const unsigned pci_count = below(4);
        const unsigned mmio_count = pci_count == 0 ? 1 : below(2);
        const unsigned total = pci_count + mmio_count;
        const unsigned taker = once(5) ? total : below(total); // `total`: none
        const unsigned mmio_at = below(total);

        std::set<std::pair<uint16_t, uint16_t>> functions;
        for (unsigned i = 0; i < total; i++) {
            std::vector<std::string> claims;
            if (i != taker) {
                if (claimable_.empty()) {
                    continue; // without a claim it would be a second taker
                }
                do {
                    const unsigned at = below(claimable_.size());
                    claims.push_back(claimable_[at]);
                    claimable_.erase(claimable_.begin() + at);
                } while (!claimable_.empty() && once(3));
            }
            const std::string name = "iommu" + std::to_string(i);
            if (mmio_count == 1 && i == mmio_at) {
                machine_.mmio_iommu(name, 0x0a003e00, claims);
                continue;
            }
            const auto segment = static_cast<uint16_t>(once(10) ? below(kSegmentCount) : 0);
            uint16_t function;
            do {
                function = requester_id(segment);
            } while (!functions.emplace(segment, function).second);
            machine_.pci_iommu(name, segment, function, claims);
        }
    }

    void add_mmio_endpoints()
    {
        std::set<uint16_t> indices;
        for (unsigned count = below(5); count > 0; count--) {
            indices.insert(once(6) ? 0xffff : static_cast<uint16_t>(below(32)));
        }
        uint64_t base = once(2) ? 0xfeb00000 : 0x10'0000'0000;
        for (const uint16_t index : indices) {
            const bool explicitly = !machine_.iommus.empty() && once(2);
            machine_.mmio_endpoint("vm" + std::to_string(index), index, base,
                                   explicitly ? below(machine_.iommus.size()) : VIOMMU_NO_IOMMU);
            base += 0x200;
        }
    }

    uint32_t manager(const ViommuRootBusDesc &bus) const
    {
        uint32_t taker = VIOMMU_NO_IOMMU;
        for (uint32_t i = 0; i < machine_.iommus.size(); i++) {
            const ViommuIommuDesc &iommu = machine_.iommus[i];
            if (std::any_of(iommu.root_buses, iommu.root_buses + iommu.root_bus_count,
                            [&bus](const char *name) { return !std::strcmp(name, bus.name); })) {
                return i;
            }
            taker = iommu.root_bus_count == 0 ? i : taker;
        }
        return bus.bypass ? VIOMMU_NO_IOMMU : taker;
    }

    // Functions, slots and, of the taker, root buses.
    void add_left_out()
    {
        std::vector<std::string> values(machine_.iommus.size());
        for (const ViommuRootBusDesc &bus : machine_.root_buses) {
            const uint32_t iommu = manager(bus);
            if (iommu == VIOMMU_NO_IOMMU || once(2)) {
                continue;
            }
            std::string &value = values[iommu];
            if (machine_.iommus[iommu].root_bus_count == 0 && once(5)) {
                value += std::string(value.empty() ? "" : ":") + bus.name;
                continue;
            }
            const unsigned first = below(32);
            for (unsigned slot = first; slot < 32 && !once(4); slot += 1 + below(3)) {
                const unsigned function = below(16);
                const uint16_t rid =
                    static_cast<uint16_t>(bus.first_bus << 8 | slot << 3 | (function & 7));
                if (function < 8 && is_iommu(bus.segment, rid)) {
                    continue;
                }
                std::array<char, 16> address;
                std::snprintf(address.data(), address.size(), function < 8 ? "/%x.%u" : "/%x", slot,
                              function);
                value += std::string(value.empty() ? "" : ":") + bus.name + address.data();
            }
        }
        for (size_t i = 0; i < values.size(); i++) {
            if (!values[i].empty()) {
                machine_.leave_out(values[i], i);
            }
        }
    }

    bool is_iommu(uint16_t segment, uint16_t rid) const
    {
        return iommu_at_function(machine_.desc(), segment, rid) != VIOMMU_NO_IOMMU;
    }

    std::mt19937 random_;
    MachineBuilder machine_;
    std::vector<std::string> claimable_;
};

// The rules, asked anew for every single function.
class Rules
{
public:
    explicit Rules(const ViommuMachineDesc &machine) : machine_(machine) {}

    Owners owners() const
    {
        Owners owners;
        for (uint16_t segment = 0; segment < kSegmentCount; segment++) {
            std::vector<Owner> &functions = owners.segment(segment);
            for (uint32_t rid = 0; rid <= 0xffff; rid++) {
                const uint32_t iommu = of_function(segment, static_cast<uint16_t>(rid));
                if (iommu != VIOMMU_NO_IOMMU) {
                    functions[rid] = {iommu, segment * 0x10000u + rid};
                }
            }
        }
        for (size_t i = 0; i < machine_.mmio_endpoint_count; i++) {
            const ViommuMmioEndpointDesc &endpoint = machine_.mmio_endpoints[i];
            const uint32_t iommu = endpoint.iommu == VIOMMU_NO_IOMMU ? taker() : endpoint.iommu;
            if (iommu != VIOMMU_NO_IOMMU) {
                owners.mmio[endpoint.base] = {iommu, 0xffff0000u + endpoint.index};
            }
        }
        return owners;
    }

private:
    uint32_t taker() const
    {
        for (uint32_t i = 0; i < machine_.iommu_count; i++) {
            if (machine_.iommus[i].root_bus_count == 0) {
                return i;
            }
        }
        return VIOMMU_NO_IOMMU;
    }

    uint32_t of_function(uint16_t segment, uint16_t rid) const
    {
        if (iommu_at_function(machine_, segment, rid) != VIOMMU_NO_IOMMU) {
            return VIOMMU_NO_IOMMU;
        }
        for (size_t i = 0; i < machine_.root_bus_count; i++) {
            const ViommuRootBusDesc &bus = machine_.root_buses[i];
            if (bus.segment == segment && rid / 256 >= bus.first_bus && rid / 256 <= bus.last_bus) {
                if (is_left_out(bus, rid)) {
                    return VIOMMU_NO_IOMMU;
                }
                return bus.bypass ? VIOMMU_NO_IOMMU : of_root_bus(bus.name);
            }
        }
        return VIOMMU_NO_IOMMU;
    }

    bool is_left_out(const ViommuRootBusDesc &bus, uint16_t rid) const
    {
        for (size_t i = 0; i < machine_.iommu_count; i++) {
            const ViommuIommuDesc &iommu = machine_.iommus[i];
            for (size_t k = 0; k < iommu.left_out_count; k++) {
                const ViommuLeaveOut &entry = iommu.left_out[k];
                if (!std::strcmp(entry.name, bus.name) &&
                    (!entry.has_address ||
                     (rid / 256 == bus.first_bus && rid % 256 >= entry.first_devfn &&
                      rid % 256 <= entry.last_devfn))) {
                    return true;
                }
            }
        }
        return false;
    }

    uint32_t of_root_bus(const std::string &name) const
    {
        for (uint32_t i = 0; i < machine_.iommu_count; i++) {
            const ViommuIommuDesc &iommu = machine_.iommus[i];
            for (size_t k = 0; k < iommu.root_bus_count; k++) {
                if (name == iommu.root_buses[k]) {
                    return i;
                }
            }
        }
        return taker();
    }

    const ViommuMachineDesc &machine_;
};

void expect_agreement(const char *what, const Owners &expected, const Owners &found,
                      uint16_t segments)
{
    SCOPED_TRACE(what);
    for (const std::string &complaint : found.complaints) {
        ADD_FAILURE() << complaint;
    }
    EXPECT_EQ(found.mmio, expected.mmio);
    const std::vector<Owner> nobody(0x10000);
    const auto of = [&nobody](const Owners &owners, uint16_t segment) -> const auto &
    {
        const auto functions = owners.segments.find(segment);
        return functions == owners.segments.end() ? nobody : functions->second;
    };
    for (uint16_t segment = 0; segment < segments; segment++) {
        const std::vector<Owner> &want = of(expected, segment);
        const std::vector<Owner> &have = of(found, segment);
        const auto [at, other] = std::mismatch(want.begin(), want.end(), have.begin());
        if (at != want.end()) {
            ADD_FAILURE() << "segment " << segment << " requester " << at - want.begin()
                          << ": IOMMU " << other->iommu << " ID " << other->id
                          << " instead of IOMMU " << at->iommu << " ID " << at->id;
        }
    }
    for (const auto &[segment, functions] : found.segments) {
        EXPECT_LT(segment, segments);
    }
}

// What the engine would be told, in the same terms.
Owners ask_manages(const ViommuMachineDesc &machine, const ViommuTopology *topology)
{
    Owners owners;
    const auto ask = [&](uint32_t id) {
        Owner owner;
        for (uint32_t i = 0; i < machine.iommu_count; i++) {
            if (!viommu_topology_manages(topology, i, id)) {
                continue;
            }
            if (owner.iommu != VIOMMU_NO_IOMMU) {
                owners.complaints.push_back("two IOMMUs manage ID " + std::to_string(id));
            }
            owner = {i, id};
        }
        return owner;
    };
    for (uint16_t segment = 0; segment < kSegmentCount; segment++) {
        std::vector<Owner> &functions = owners.segment(segment);
        for (uint32_t rid = 0; rid <= 0xffff; rid++) {
            functions[rid] = ask(segment * 0x10000u + rid);
        }
    }
    for (uint32_t index = 0; index <= 0xffff; index++) {
        const Owner owner = ask(0xffff0000u + index);
        if (owner.iommu == VIOMMU_NO_IOMMU) {
            continue;
        }
        const auto *end = machine.mmio_endpoints + machine.mmio_endpoint_count;
        const auto *endpoint =
            std::find_if(machine.mmio_endpoints, end,
                         [index](const ViommuMmioEndpointDesc &e) { return e.index == index; });
        if (endpoint == end) {
            owners.complaints.push_back("transport " + std::to_string(index) + " is managed");
        } else {
            owners.mmio[endpoint->base] = owner;
        }
    }
    return owners;
}

// A device tree has no place for a PCI IOMMU of another segment.
bool fits_device_tree(const ViommuMachineDesc &machine, const Owners &owners)
{
    const auto is_outside = [&machine](const Owner &owner) {
        return owner.iommu != VIOMMU_NO_IOMMU &&
               machine.iommus[owner.iommu].kind == VIOMMU_IOMMU_PCI &&
               machine.iommus[owner.iommu].segment != 0;
    };
    return std::ranges::none_of(owners.segments.at(0), is_outside) &&
           std::ranges::none_of(owners.mmio,
                                [&](const auto &entry) { return is_outside(entry.second); });
}

// 00:01.0 and 10:01.0 would both be iommu@1 below the one PCI host.
bool node_names_are_unique(const ViommuMachineDesc &machine)
{
    std::set<unsigned> names;
    for (size_t i = 0; i < machine.iommu_count; i++) {
        const ViommuIommuDesc &iommu = machine.iommus[i];
        if (iommu.kind == VIOMMU_IOMMU_PCI && !names.insert(iommu.requester_id & 0xff).second) {
            return false;
        }
    }
    return true;
}

std::vector<uint8_t> viot_table(const ViommuTopology *topology)
{
    std::vector<uint8_t> table(36, 0xaa);
    const std::vector<uint8_t> body = viot_body(topology);
    table.insert(table.end(), body.begin(), body.end());
    return table;
}

} // namespace

TEST(Agreement, EveryDescriptionOfRandomMachinesSaysTheSame)
{
    unsigned compared = 0;
    unsigned outside_device_tree = 0;
    unsigned functions = 0;
    for (unsigned seed = 0; compared < 320; seed++) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        ASSERT_LT(seed, 1000u);
        const RandomMachine random(seed);
        const ViommuMachineDesc machine = random.machine().desc();
        const auto topology = build(machine);
        ASSERT_NE(topology, nullptr);
        const Owners expected = Rules(machine).owners();

        expect_agreement("manages", expected, ask_manages(machine, topology.get()), kSegmentCount);
        expect_agreement("VIOT", expected, decode_viot(machine, viot_table(topology.get())),
                         kSegmentCount);
        Owners v2;
        Owners v3;
        for (uint32_t i = 0; i < machine.iommu_count; i++) {
            decode_array_v2(i, array_config(topology.get(), i, VIOMMU_ARRAY_V2), v2);
            decode_array_v3(i, array_config(topology.get(), i, VIOMMU_ARRAY_V3), v3);
        }
        expect_agreement("array of layout 2", expected, v2, kSegmentCount);
        expect_agreement("array of layout 3", expected, v3, kSegmentCount);

        Tree tree(machine);
        if (!fits_device_tree(machine, expected)) {
            expect_sentence(tree.write(topology.get()), {"iommu", "segment 0"});
            outside_device_tree++;
        } else if (node_names_are_unique(machine)) {
            ASSERT_EQ(tree.write(topology.get()), "");
            expect_agreement("device tree", expected,
                             decode_fdt(machine, tree.fdt(), Tree::kPciHost), 1);
            compared++;
        }
        functions += static_cast<unsigned>(
            std::ranges::count_if(expected.segments.at(0), [](const Owner &owner) {
                return owner.iommu != VIOMMU_NO_IOMMU;
            }));
        if (HasFailure()) {
            return; // one machine is enough to look at
        }
    }
    // The generator must keep making machines that are worth comparing.
    EXPECT_GT(functions, 320u * 0x1000);
    EXPECT_GT(outside_device_tree, 0u);
}

TEST(Agreement, DecodersNoticeWhatIsWrong)
{
    const MachineBuilder golden = golden_machine();
    const ViommuMachineDesc machine = golden.desc();
    const auto topology = build(machine);
    const auto viot_with = [&](size_t at, uint8_t value) {
        std::vector<uint8_t> table = viot_table(topology.get());
        table.at(at) = value;
        return decode_viot(machine, table);
    };
    EXPECT_TRUE(viot_with(36, 7).complaints.empty());
    EXPECT_FALSE(viot_with(36, 8).complaints.empty());       // a node too many
    EXPECT_FALSE(viot_with(36, 6).complaints.empty());       // a node too few
    EXPECT_FALSE(viot_with(38, 40).complaints.empty());      // nodes inside the header
    EXPECT_FALSE(viot_with(80 + 2, 16).complaints.empty());  // a range that is too short
    EXPECT_FALSE(viot_with(80 + 16, 80).complaints.empty()); // behind a range
    EXPECT_FALSE(viot_with(80 + 16, 12).complaints.empty()); // offset from the header's end
    EXPECT_FALSE(viot_with(80 + 14, 9).complaints.empty());  // into the next range
    EXPECT_NE(viot_with(80 + 4, 1).segments.at(0), Rules(machine).owners().segments.at(0));

    const auto complaints_v3 = [&](size_t at, uint8_t value) {
        Owners owners;
        std::vector<uint8_t> config = array_config(topology.get(), 0, VIOMMU_ARRAY_V3);
        config.at(at) = value;
        decode_array_v3(0, config, owners);
        return owners.complaints.size();
    };
    EXPECT_EQ(complaints_v3(36, 4), 0u);
    EXPECT_NE(complaints_v3(36, 5), 0u);
    EXPECT_NE(complaints_v3(38, 44), 0u);

    const auto complaints_v2 = [&](size_t at, uint8_t value) {
        Owners owners;
        std::vector<uint8_t> config = array_config(topology.get(), 0, VIOMMU_ARRAY_V2);
        config.at(at) = value;
        decode_array_v2(0, config, owners);
        return owners.complaints.size();
    };
    EXPECT_EQ(complaints_v2(40, 4), 0u);
    EXPECT_NE(complaints_v2(40, 5), 0u);
    EXPECT_NE(complaints_v2(44, 12), 0u);

    Tree tree(machine);
    ASSERT_EQ(tree.write(topology.get()), "");
    EXPECT_TRUE(decode_fdt(machine, tree.fdt(), Tree::kPciHost).complaints.empty());
    tree.set_cells(std::string(Tree::kPciHost) + "/iommu@1", "phandle", {0x9000});
    EXPECT_FALSE(decode_fdt(machine, tree.fdt(), Tree::kPciHost).complaints.empty());
}

} // namespace viommu::test
