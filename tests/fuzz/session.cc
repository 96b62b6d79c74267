// SPDX-License-Identifier: GPL-2.0-or-later
//
// Whole sessions: whatever driver, user, firmware and migration may do to one
// device, in any order.
//
//   settings, { step (1), its details } ...
#include "requests.h"
#include "world.h"

#include <array>

namespace
{

using namespace viommu::fuzz;

// Addressable, its alias, the IOMMU itself, beyond the half description, of a
// transport, and some that no description has.
constexpr std::array<uint32_t, 10> kIds{0x30,       0x38,       0x31,   0x10,    0x9000,
                                        0xffff0005, 0xffff0006, 0x1030, 0x10030, 0x80000030};
constexpr std::array<uint32_t, 7> kDomains{1, 2, 3, 4, 0, 5, UINT32_MAX};
constexpr size_t kEndpointsMax = 6;
constexpr size_t kStepsMax = 300;

class Session
{
public:
    Session(Input &input, World &world)
        : input_(input), world_(world), granule_(world.model().granule())
    {
    }

    void run()
    {
        add_endpoint();
        add_endpoint();
        world_.drive();
        for (size_t i = 0; i < kStepsMax && !input_.empty(); i++) {
            step();
        }
        world_.sweep();
    }

private:
    // No call has two arguments from the input: compilers take them in different
    // orders, and an input shall mean the same to all of them.
    void step()
    {
        const uint8_t choice = input_.byte() % 64;
        if (choice < 13) {
            const uint32_t number = domain();
            const uint32_t whose = id();
            send(choice < 10 ? attach_bytes(number, whose, flags()) : detach_bytes(number, whose));
        } else if (choice < 32) {
            const auto [first, last] = range();
            const uint32_t number = domain();
            if (choice < 26) {
                const uint64_t phys = address();
                send(map_bytes(number, first, last, phys, flags()));
            } else {
                send(unmap_bytes(number, first, last));
            }
        } else if (choice < 33) {
            send(probe_bytes(id()), world_.model().config.probe_size + 4);
        } else if (choice < 35) {
            malformed();
        } else if (choice < 43) {
            if (const auto endpoint = any_endpoint()) {
                const uint64_t iova = address();
                world_.translate(*endpoint, iova, input_.byte() % 4);
            }
        } else if (choice < 44) {
            world_.sweep();
        } else {
            rare_step(choice);
        }
    }

    void rare_step(uint8_t choice)
    {
        switch (choice) {
        case 44:
            world_.reset(false);
            break;
        case 45:
            world_.reset(true);
            break;
        case 46:
            world_.drive();
            break;
        case 47:
            world_.driver_reset();
            break;
        case 48:
            world_.set_features(~uint64_t{input_.byte()});
            break;
        case 49:
            world_.set_live(input_.flag());
            break;
        case 50:
        case 51:
            world_.write_bypass(input_.byte() % 3);
            break;
        case 52:
            world_.describe(std::array{Description::Full, Description::Half,
                                       Description::None}[input_.below(3)]);
            break;
        case 53:
            add_endpoint();
            break;
        case 54:
            if (const auto endpoint = any_endpoint()) {
                world_.retire(*endpoint);
            }
            break;
        case 55:
            if (const auto endpoint = any_endpoint()) {
                world_.discard(*endpoint);
            }
            break;
        case 56:
            forget();
            break;
        case 57:
        case 58:
            renumber();
            break;
        case 59:
            if (const auto endpoint = any_endpoint()) {
                world_.listen(*endpoint,
                              std::array{World::Listening::Switches, World::Listening::Mirrors,
                                         World::Listening::Unmaps, World::Listening::No,
                                         World::Listening::Narrow}[input_.below(5)]);
            }
            break;
        case 60:
            world_.pop_fault();
            break;
        case 61:
            if (auto stream = world_.save(input_.flag() ? SIZE_MAX : input_.byte())) {
                saved_ = std::move(*stream);
            }
            break;
        case 62:
            load();
            break;
        default:
            world_.commit(input_.flag());
            break;
        }
    }

    void add_endpoint()
    {
        if (world_.endpoint_count() == kEndpointsMax) {
            return;
        }
        const size_t before = world_.endpoint_count();
        world_.add_endpoint(choose_regions(input_, granule_, 2));
        if (world_.endpoint_count() != before) {
            world_.set_id(kIds[before], ModelIdentity{before, 0});
            world_.listen(before, World::Listening::Switches);
        }
    }

    void renumber()
    {
        const uint32_t which = id();
        const size_t whose = input_.below(kEndpointsMax + 3);
        if (whose < world_.endpoint_count()) {
            world_.set_id(which, ModelIdentity{whose, input_.below(4)});
        } else if (whose == kEndpointsMax) {
            world_.set_id(which, ModelIdentity{kForeigner, 0});
        } else if (whose == kEndpointsMax + 1) {
            world_.set_id(which, ModelIdentity{kNobody, 0});
        } else {
            world_.set_id(which, std::nullopt);
        }
    }

    void forget()
    {
        std::vector<std::pair<size_t, uintptr_t>> members;
        do {
            if (const auto endpoint = any_endpoint()) {
                members.emplace_back(*endpoint, input_.below(4));
            }
        } while (members.size() < 6 && input_.flag());
        world_.forget(members);
    }

    void load()
    {
        std::vector<uint8_t> stream = saved_;
        if (!stream.empty() && input_.flag()) {
            stream[input_.number<uint16_t>() % stream.size()] ^= input_.byte();
        }
        world_.load(stream);
    }

    void send(const std::vector<uint8_t> &bytes, size_t writable = 4)
    {
        world_.request(bytes, writable);
    }

    // A request that is cut, scribbled on, or short of room for the answer.
    void malformed()
    {
        const size_t kind = input_.below(6);
        const uint32_t number = domain();
        const uint32_t whose = id();
        const uint64_t first = address();
        const uint64_t last = address();
        std::vector<uint8_t> bytes;
        switch (kind) {
        case 0:
            bytes = attach_bytes(number, whose, flags());
            break;
        case 1:
            bytes = detach_bytes(number, whose);
            break;
        case 2:
            bytes = map_bytes(number, first, last, first, flags());
            break;
        case 3:
            bytes = unmap_bytes(number, first, last);
            break;
        case 4:
            bytes = probe_bytes(whose);
            break;
        default:
            bytes = input_.bytes(input_.byte());
            break;
        }
        const uint8_t how = input_.byte();
        if ((how & 1) != 0) {
            bytes.resize(input_.byte());
        }
        if ((how & 2) != 0 && !bytes.empty()) {
            bytes[input_.byte() % bytes.size()] = input_.byte();
        }
        send(bytes, (how & 4) != 0 ? input_.number<uint16_t>() : 4);
    }

    uint32_t domain() { return input_.one_of(kDomains); }
    uint32_t id() { return input_.one_of(kIds); }

    std::optional<size_t> any_endpoint()
    {
        const size_t count = world_.endpoint_count();
        return count == 0 ? std::nullopt : std::optional(input_.below(count));
    }

    // Mostly small ones.
    uint32_t flags()
    {
        const uint8_t byte = input_.byte();
        return byte < 0xf0 ? byte % 8 : uint32_t{1} << (byte % 32);
    }

    // A few granules around places where something ends.
    uint64_t address()
    {
        const ViommuEngineConfig &config = world_.model().config;
        const uint8_t byte = input_.byte();
        const std::array<uint64_t, 8> places{0,
                                             0,
                                             0,
                                             0xfee00000,
                                             config.input_start & ~(granule_ - 1),
                                             (config.input_last & ~(granule_ - 1)) - 7 * granule_,
                                             UINT64_MAX - 8 * granule_ + 1,
                                             uint64_t{1} << 40};
        uint64_t at = places[byte % 8] + (byte / 8u % 16u) * granule_;
        if (byte >= 128) {
            at += static_cast<uint64_t>(int64_t{static_cast<int8_t>(input_.byte())});
        }
        return at;
    }

    std::pair<uint64_t, uint64_t> range()
    {
        const uint64_t first = address();
        const uint8_t byte = input_.byte();
        if (byte < 192) {
            return {first, first + (1 + byte % 8u) * granule_ - 1};
        }
        if (byte < 240) {
            return {first, first + (uint64_t{1} << (byte % 32)) * granule_ - 1};
        }
        return {first, address() - (byte & 1)};
    }

    Input &input_;
    World &world_;
    const uint64_t granule_;
    std::vector<uint8_t> saved_;
};

} // namespace

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input input(data, size);
    World world(choose_settings(input));
    if (world.exists()) {
        Session(input, world).run();
    }
    return 0;
}
