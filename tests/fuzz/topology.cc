// SPDX-License-Identifier: GPL-2.0-or-later
//
// Descriptions of machines, right and wrong.  Whether one is refused, and who
// manages what, is asked of a naive reading of the rules; VIOT, topology array
// and device tree are read back by the decoders of the unit tests.
//
//   numbers of IOMMUs, root buses, endpoints (1 each), { their fields } ...,
//   rooms for what is written; if there is more, the same machine with
//   functions, of which IOMMUs leave some out (machine_rules.h), and rooms again
#include "check.h"
#include "input.h"
#include "machine_rules.h"
#include "owners.h"

#include <libfdt.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstring>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace
{

using namespace viommu::fuzz;
using namespace viommu::test;

constexpr size_t kErrorSize = 400;
constexpr const char *kPciHost = "/pcie";

// Errors are one sentence, cut where the room ends, and nothing beyond.
class Sentence
{
public:
    explicit Sentence(size_t room) : room_(std::min(room, kErrorSize)) { text_.fill('#'); }

    char *data() { return text_.data(); }
    size_t size() const { return room_; }

    void check(bool expected) const
    {
        FUZZ_CHECK(std::all_of(text_.begin() + static_cast<ptrdiff_t>(room_), text_.end(),
                               [](char c) { return c == '#'; }));
        if (room_ == 0) {
            return;
        }
        if (!expected) {
            FUZZ_CHECK(text_[0] == '#');
            return;
        }
        const auto end = std::find(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(room_), 0);
        FUZZ_CHECK(end != text_.begin() + static_cast<ptrdiff_t>(room_));
        FUZZ_CHECK(end != text_.begin() || room_ == 1);
        FUZZ_CHECK(std::find(text_.begin(), end, '\n') == end);
    }

private:
    std::array<char, kErrorSize + 8> text_;
    size_t room_;
};

/* What was written */

void check_same(const Owners &expected, const Owners &found)
{
    for (const std::string &complaint : found.complaints) {
        std::fprintf(stderr, "%s\n", complaint.c_str());
    }
    FUZZ_CHECK(found.complaints.empty());
    FUZZ_CHECK(found.mmio == expected.mmio);
    static const std::vector<Owner> nobody(0x10000);
    const auto of = [](const Owners &owners, uint16_t segment) -> const auto &
    {
        const auto functions = owners.segments.find(segment);
        return functions == owners.segments.end() ? nobody : functions->second;
    };
    for (const Owners *side : {&expected, &found}) {
        for (const auto &[segment, functions] : side->segments) {
            const auto &wanted = of(expected, segment), &got = of(found, segment);
            static_assert(std::has_unique_object_representations_v<Owner>);
            FUZZ_CHECK(wanted.size() == got.size());
            FUZZ_CHECK(!std::memcmp(wanted.data(), got.data(), got.size() * sizeof(Owner)));
        }
    }
}

// Asked where something begins or ends: in between it is a comparison of numbers.
void check_manages(const ViommuTopology *topology, const MachineBytes &machine,
                   const Owners &expected)
{
    std::set<uint32_t> ids{0, 0xfffeffff, 0xffff0000, UINT32_MAX};
    const auto add_around = [&ids](uint32_t id) { ids.insert({id - 1, id, id + 1}); };
    for (const ViommuRootBusDesc &bus : machine.buses) {
        add_around(bus.segment * 0x10000u + bus.first_bus * 256u);
        add_around(bus.segment * 0x10000u + bus.last_bus * 256u + 255u);
    }
    for (const ViommuIommuDesc &iommu : machine.iommus) {
        add_around(iommu.segment * 0x10000u + iommu.requester_id);
    }
    for (const auto &[bus, devfn] : Rules(machine).left_out()) {
        add_around(machine.buses[bus].segment * 0x10000u + machine.buses[bus].first_bus * 256u +
                   devfn);
    }
    std::map<uint32_t, uint32_t> transports;
    for (const auto &[base, owner] : expected.mmio) {
        transports[owner.id] = owner.iommu;
        add_around(owner.id);
    }
    for (const uint32_t id : ids) {
        uint32_t manager = VIOMMU_NO_IOMMU;
        if (id >= 0xffff0000) {
            const auto transport = transports.find(id);
            manager = transport == transports.end() ? VIOMMU_NO_IOMMU : transport->second;
        } else if (const auto functions = expected.segments.find(static_cast<uint16_t>(id >> 16));
                   functions != expected.segments.end()) {
            manager = functions->second[id & 0xffff].iommu;
        }
        for (uint32_t i = 0; i <= machine.iommus.size(); i++) {
            FUZZ_CHECK_EQ(viommu_topology_manages(topology, i, id),
                          i < machine.iommus.size() && i == manager);
        }
    }
}

void check_viot(const ViommuTopology *topology, const ViommuMachineDesc &machine,
                const Owners &expected, size_t room)
{
    Sentence sentence(kErrorSize);
    const size_t size =
        viommu_topology_viot(topology, nullptr, 0, sentence.data(), sentence.size());
    sentence.check(size == 0);
    FUZZ_CHECK(size != 0);

    std::vector<uint8_t> table(36 + std::max(size, room), 0xaa);
    FUZZ_CHECK_EQ(
        viommu_topology_viot(topology, table.data() + 36, room, sentence.data(), sentence.size()),
        size);
    const size_t written = room < size ? 0 : size;
    FUZZ_CHECK(std::all_of(table.begin() + static_cast<ptrdiff_t>(36 + written), table.end(),
                           [](uint8_t byte) { return byte == 0xaa; }));
    table.resize(36 + size);
    if (written != 0) {
        check_same(expected, decode_viot(machine, table));
    }
}

void check_arrays(const ViommuTopology *topology, const MachineBytes &machine,
                  const Owners &expected, size_t limit)
{
    for (const ViommuArrayLayout layout : {VIOMMU_ARRAY_V2, VIOMMU_ARRAY_V3}) {
        Owners owners;
        bool all_fit = true;
        for (uint32_t i = 0; i < machine.iommus.size(); i++) {
            std::vector<uint8_t> config(limit, 0xaa);
            Sentence sentence(kErrorSize);
            const size_t room = limit < 36 ? 0 : limit - 36;
            const size_t size =
                viommu_topology_array(topology, i, layout, limit, config.data() + limit - room,
                                      room, sentence.data(), sentence.size());
            sentence.check(size == 0);
            FUZZ_CHECK(size <= limit);
            all_fit = all_fit && size != 0;
            if (size == 0) {
                // Refused only if it has no room.
                const size_t needed =
                    viommu_topology_array(topology, i, layout, SIZE_MAX, nullptr, 0, nullptr, 0);
                FUZZ_CHECK(needed > limit);
                continue;
            }
            config.resize(size);
            FUZZ_CHECK(std::all_of(config.begin(), config.begin() + 36,
                                   [](uint8_t byte) { return byte == 0xaa; }));
            if (layout == VIOMMU_ARRAY_V2) {
                decode_array_v2(i, config, owners);
            } else {
                decode_array_v3(i, config, owners);
            }
        }
        if (all_fit) {
            check_same(expected, owners);
        }
    }
}

class Tree
{
public:
    Tree(const MachineBytes &machine, size_t size) : bytes_(size)
    {
        check(fdt_create_empty_tree(fdt(), static_cast<int>(size)));
        cells("/", "#address-cells", {2});
        cells("/", "#size-cells", {2});
        check(fdt_add_subnode(fdt(), 0, kPciHost + 1));
        cells(kPciHost, "#address-cells", {3});
        cells(kPciHost, "#size-cells", {2});
        for (const ViommuIommuDesc &iommu : machine.iommus) {
            iommus_.push_back(iommu.kind == VIOMMU_IOMMU_MMIO ? transport(iommu.base) : "");
            phandles.push_back(static_cast<uint32_t>(0x8000 + phandles.size()));
        }
        for (const ViommuMmioEndpointDesc &endpoint : machine.endpoints) {
            endpoints_.push_back(transport(endpoint.base));
        }
        for (const std::string &path : iommus_) {
            iommu_nodes_.push_back(path.empty() ? nullptr : path.c_str());
        }
        for (const std::string &path : endpoints_) {
            endpoint_nodes_.push_back(path.c_str());
        }
    }

    void *fdt() { return bytes_.data(); }

    // Leaves that much room.
    void shrink(size_t room)
    {
        check(fdt_pack(fdt()));
        const size_t size = fdt_totalsize(fdt()) + room;
        if (size < bytes_.size()) {
            fdt_set_totalsize(fdt(), static_cast<uint32_t>(size));
            bytes_.resize(size);
            bytes_.shrink_to_fit(); // so that a sanitizer sees its end
        }
    }

    ViommuFdtNodes nodes() const
    {
        return {kPciHost, phandles.data(), iommu_nodes_.data(), endpoint_nodes_.data()};
    }

    std::vector<uint32_t> phandles;

private:
    static void check(int result) { FUZZ_CHECK(result >= 0); }

    void cells(const std::string &path, const char *name, std::initializer_list<uint32_t> values)
    {
        for (const uint32_t value : values) {
            check(fdt_appendprop_u32(fdt(), fdt_path_offset(fdt(), path.c_str()), name, value));
        }
    }

    std::string transport(uint64_t base)
    {
        std::array<char, 40> name;
        std::snprintf(name.data(), name.size(), "virtio_mmio@%" PRIx64, base);
        const int node = fdt_add_subnode(fdt(), 0, name.data());
        check(node);
        check(fdt_setprop_string(fdt(), node, "compatible", "virtio,mmio"));
        std::string path = std::string("/") + name.data();
        cells(path, "reg",
              {static_cast<uint32_t>(base >> 32), static_cast<uint32_t>(base), 0, 0x200});
        return path;
    }

    std::vector<uint8_t> bytes_;
    std::vector<std::string> iommus_;
    std::vector<std::string> endpoints_;
    std::vector<const char *> iommu_nodes_;
    std::vector<const char *> endpoint_nodes_;
};

// The tree has one PCI host, of segment 0, whose children are named by device
// and function alone; an IOMMU is among them even if it manages nothing.
bool tree_can_say(const MachineBytes &machine, const Owners &expected)
{
    std::set<uint32_t> described;
    if (const auto functions = expected.segments.find(0); functions != expected.segments.end()) {
        for (const Owner &owner : functions->second) {
            described.insert(owner.iommu);
        }
    }
    for (const auto &[base, owner] : expected.mmio) {
        described.insert(owner.iommu);
    }
    described.erase(VIOMMU_NO_IOMMU);
    for (uint32_t i = 0; i < machine.iommus.size(); i++) {
        if (machine.iommus[i].kind == VIOMMU_IOMMU_PCI && machine.iommus[i].segment == 0) {
            described.insert(i);
        }
    }
    std::set<unsigned> names;
    for (const uint32_t i : described) {
        const ViommuIommuDesc &iommu = machine.iommus[i];
        if (iommu.kind == VIOMMU_IOMMU_PCI &&
            (iommu.segment != 0 || !names.insert(iommu.requester_id & 0xff).second)) {
            return false;
        }
    }
    return true;
}

void check_tree(const ViommuTopology *topology, const MachineBytes &machine, const Owners &expected,
                Input &input)
{
    Tree tree(machine, 1u << 14);
    const uint8_t flags = input.byte();
    const bool cramped = (flags & 1) != 0;
    if (cramped) {
        tree.shrink(input.number<uint16_t>() % 2048);
    }
    const bool wrong_phandle = (flags & 2) != 0 && !tree.phandles.empty();
    if (wrong_phandle) {
        constexpr std::array<uint32_t, 4> kWrong{0, UINT32_MAX, 0x8000, 0x8001};
        tree.phandles[input.below(tree.phandles.size())] = input.one_of(kWrong);
    }
    ViommuFdtNodes nodes = tree.nodes();
    const bool node_missing = (flags & 4) != 0;
    if (node_missing) {
        nodes.pci_host = (flags & 8) != 0 ? nullptr : "/no-such-node";
    }

    Sentence sentence(kErrorSize);
    const bool written =
        viommu_topology_fdt(topology, tree.fdt(), &nodes, sentence.data(), sentence.size());
    sentence.check(!written);
    if (!written) {
        FUZZ_CHECK(cramped || wrong_phandle || node_missing || !tree_can_say(machine, expected));
        return;
    }
    Owners described = expected;
    std::erase_if(described.segments, [](const auto &entry) { return entry.first != 0; });
    check_same(described, decode_fdt(machine.desc(), tree.fdt(), kPciHost));
}

void check_machine(const MachineBytes &machine, Input &input)
{
    const ViommuMachineDesc desc = machine.desc();
    const Rules rules(machine);

    Sentence sentence(input.flag() ? input.byte() : kErrorSize);
    ViommuTopology *const topology = viommu_topology_new(&desc, sentence.data(), sentence.size());
    FUZZ_CHECK_EQ(topology != nullptr, rules.allowed());
    sentence.check(topology == nullptr);
    if (!topology) {
        return;
    }

    const Owners expected = rules.owners();
    const std::set<Function> left_out = rules.left_out();
    for (size_t i = 0; i < machine.buses.size(); i++) {
        const ViommuRootBusDesc &bus = machine.buses[i];
        FUZZ_CHECK_EQ(viommu_topology_root_bus_iommu(topology, bus.name),
                      rules.leaves_all_out(i) ? VIOMMU_NO_IOMMU : rules.owner(bus));
        for (unsigned devfn = 0; devfn < 256; devfn++) {
            FUZZ_CHECK_EQ(viommu_topology_left_out(topology, bus.name, static_cast<uint8_t>(devfn)),
                          left_out.count({i, devfn}) != 0);
        }
    }
    FUZZ_CHECK_EQ(viommu_topology_root_bus_iommu(topology, "no such bus"), VIOMMU_NO_IOMMU);
    FUZZ_CHECK(!viommu_topology_left_out(topology, "no such bus", 0));
    check_manages(topology, machine, expected);
    check_viot(topology, desc, expected, input.flag() ? input.byte() : 0x1000);
    check_arrays(topology, machine, expected, input.flag() ? input.number<uint16_t>() : 4096);
    check_tree(topology, machine, expected, input);
    viommu_topology_free(topology);
}

} // namespace

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input input(data, size);
    MachineBytes machine(input);
    check_machine(machine, input);
    if (!input.empty()) {
        machine.add_left_out(input);
        check_machine(machine, input);
    }
    return 0;
}
