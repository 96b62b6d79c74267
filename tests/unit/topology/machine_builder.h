// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <viommu/viommu.h>

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace viommu::test
{

// A machine description that owns its strings and arrays.
class MachineBuilder
{
public:
    MachineBuilder &pci_iommu(const std::string &name, uint16_t segment, uint16_t requester_id,
                              const std::vector<std::string> &claims = {})
    {
        return iommu(
            {keep(name), VIOMMU_IOMMU_PCI, segment, requester_id, 0, nullptr, 0, nullptr, 0},
            claims);
    }

    MachineBuilder &mmio_iommu(const std::string &name, uint64_t base,
                               const std::vector<std::string> &claims = {})
    {
        return iommu({keep(name), VIOMMU_IOMMU_MMIO, 0, 0, base, nullptr, 0, nullptr, 0}, claims);
    }

    MachineBuilder &root_bus(const std::string &name, uint16_t segment, uint8_t first, uint8_t last,
                             bool bypass = false)
    {
        root_buses.push_back({keep(name), segment, first, last, bypass});
        return *this;
    }

    MachineBuilder &mmio_endpoint(const std::string &name, uint16_t index, uint64_t base,
                                  uint32_t iommu = VIOMMU_NO_IOMMU)
    {
        mmio_endpoints.push_back({keep(name), index, base, iommu});
        return *this;
    }

    // A function of the root bus itself, without an id if that is empty.
    MachineBuilder &function(const std::string &id, const std::string &root_bus, uint8_t devfn)
    {
        functions.push_back(
            {id.empty() ? nullptr : keep(id), keep(root_bus), true, devfn, false, false});
        return *this;
    }

    MachineBuilder &bridge(const std::string &id, const std::string &root_bus, uint8_t devfn)
    {
        function(id, root_bus, devfn);
        functions.back().bridge = true;
        return *this;
    }

    MachineBuilder &expander(const std::string &id, const std::string &root_bus, uint8_t devfn)
    {
        function(id, root_bus, devfn);
        functions.back().expander = true;
        return *this;
    }

    MachineBuilder &function_behind(const std::string &id, const std::string &root_bus,
                                    uint8_t devfn)
    {
        function(id, root_bus, devfn);
        functions.back().on_root_bus = false;
        return *this;
    }

    // An IOMMU's value of the property, by default the last one's.
    MachineBuilder &leave_out(const std::string &value)
    {
        return leave_out(value, iommus.size() - 1);
    }

    MachineBuilder &leave_out(const std::string &value, size_t iommu)
    {
        std::string &text = storage_->strings.emplace_back(value);
        std::vector<ViommuLeaveOut> &entries = storage_->left_out.emplace_back();
        char error[256] = "";
        entries.resize(viommu_leave_out_split(text.data(), nullptr, 0, error, sizeof(error)));
        EXPECT_STREQ(error, "");
        viommu_leave_out_split(text.data(), entries.data(), entries.size(), error, sizeof(error));
        iommus[iommu].left_out = entries.data();
        iommus[iommu].left_out_count = entries.size();
        return *this;
    }

    ViommuMachineDesc desc() const
    {
        return {iommus.data(),      iommus.size(),         root_buses.data(),
                root_buses.size(),  mmio_endpoints.data(), mmio_endpoints.size(),
                no_mmio_transports, functions.data(),      functions.size()};
    }

    std::vector<ViommuIommuDesc> iommus;
    std::vector<ViommuRootBusDesc> root_buses;
    std::vector<ViommuMmioEndpointDesc> mmio_endpoints;
    std::vector<ViommuFunctionDesc> functions;
    bool no_mmio_transports = false;

private:
    const char *keep(const std::string &text)
    {
        return storage_->strings.emplace_back(text).c_str();
    }

    MachineBuilder &iommu(ViommuIommuDesc iommu, const std::vector<std::string> &claims)
    {
        std::vector<const char *> &names = storage_->claims.emplace_back();
        for (const std::string &claim : claims) {
            names.push_back(keep(claim));
        }
        iommu.root_buses = names.data();
        iommu.root_bus_count = names.size();
        iommus.push_back(iommu);
        return *this;
    }

    // Deques: what they hold never moves.  Shared: copies of a machine point to it.
    struct Storage {
        std::deque<std::string> strings;
        std::deque<std::vector<const char *>> claims;
        std::deque<std::vector<ViommuLeaveOut>> left_out;
    };
    std::shared_ptr<Storage> storage_ = std::make_shared<Storage>();
};

struct FreeTopology {
    void operator()(ViommuTopology *topology) const { viommu_topology_free(topology); }
};
using TopologyPtr = std::unique_ptr<ViommuTopology, FreeTopology>;

inline TopologyPtr build(const ViommuMachineDesc &desc)
{
    char error[512] = "";
    TopologyPtr topology(viommu_topology_new(&desc, error, sizeof(error)));
    EXPECT_NE(topology, nullptr) << error;
    EXPECT_STREQ(error, "");
    return topology;
}

inline TopologyPtr build(const MachineBuilder &machine)
{
    return build(machine.desc());
}

// One sentence that holds all of `parts`.
inline void expect_sentence(const std::string &sentence, const std::vector<std::string> &parts)
{
    EXPECT_FALSE(sentence.empty());
    EXPECT_EQ(sentence.find('\n'), std::string::npos) << sentence;
    for (const std::string &part : parts) {
        EXPECT_NE(sentence.find(part), std::string::npos)
            << "\"" << part << "\" is not in: " << sentence;
    }
}

inline void expect_refused(const ViommuMachineDesc &desc, const std::vector<std::string> &parts)
{
    char error[512] = "";
    const TopologyPtr topology(viommu_topology_new(&desc, error, sizeof(error)));
    EXPECT_EQ(topology, nullptr);
    expect_sentence(error, parts);
}

inline void expect_refused(const MachineBuilder &machine, const std::vector<std::string> &parts)
{
    expect_refused(machine.desc(), parts);
}

using IdRange = std::pair<uint32_t, uint32_t>;

// Asks for every ID of the segment and gathers the answers.
inline std::vector<IdRange> managed_ids(const TopologyPtr &topology, uint32_t iommu,
                                        uint16_t segment)
{
    std::vector<IdRange> ranges;
    for (uint32_t low = 0; low <= 0xffff; low++) {
        const uint32_t id = uint32_t{segment} << 16 | low;
        if (!viommu_topology_manages(topology.get(), iommu, id)) {
            continue;
        }
        if (!ranges.empty() && ranges.back().second + 1 == id) {
            ranges.back().second = id;
        } else {
            ranges.push_back({id, id});
        }
    }
    return ranges;
}

using Ranges = std::vector<IdRange>;

inline std::vector<uint8_t> viot_body(const ViommuTopology *topology)
{
    char error[512] = "";
    const size_t size = viommu_topology_viot(topology, nullptr, 0, error, sizeof(error));
    EXPECT_NE(size, 0u) << error;
    std::vector<uint8_t> body(size);
    EXPECT_EQ(viommu_topology_viot(topology, body.data(), size, error, sizeof(error)), size);
    return body;
}

// The whole config space; the 36 bytes that the array does not own are 0xaa.
inline std::vector<uint8_t> array_config(const ViommuTopology *topology, uint32_t iommu,
                                         ViommuArrayLayout layout, size_t limit = 1u << 22)
{
    char error[512] = "";
    const size_t size =
        viommu_topology_array(topology, iommu, layout, limit, nullptr, 0, error, sizeof(error));
    EXPECT_GE(size, 36u) << error;
    std::vector<uint8_t> config(size, 0xaa);
    EXPECT_EQ(viommu_topology_array(topology, iommu, layout, limit, config.data() + 36, size - 36,
                                    error, sizeof(error)),
              size);
    return config;
}

// The machine of the hand-written bytes: two PCI IOMMUs on pcie.0, the second
// with a claim, a bypassed root bus between their windows, one MMIO endpoint.
//   iommu0 at 00:01.0 manages 0x0000-0x0007, 0x0009-0x0010, 0x0012-0x1fff and
//   transport 3; iommu1 at 00:02.1 manages 0x3000-0x3fff.
inline MachineBuilder golden_machine()
{
    return MachineBuilder()
        .pci_iommu("iommu0", 0, 0x0008)
        .pci_iommu("iommu1", 0, 0x0011, {"pxb2"})
        .root_bus("pcie.0", 0, 0x00, 0x1f)
        .root_bus("pxb1", 0, 0x20, 0x2f, true)
        .root_bus("pxb2", 0, 0x30, 0x3f)
        .mmio_endpoint("vm3", 3, 0x0a000600);
}

// An MMIO IOMMU for a root bus of segment 1 whose window ends with bus 0xff.
inline MachineBuilder golden_mmio_machine()
{
    return MachineBuilder().mmio_iommu("iommu-m", 0x0a003e00).root_bus("pcie.1", 1, 0x80, 0xff);
}

} // namespace viommu::test
