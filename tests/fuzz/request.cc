// SPDX-License-Identifier: GPL-2.0-or-later
//
// Arbitrary bytes as requests, to a device with a few endpoints.
//
//   settings, features that the driver left out (1), bypass (1),
//   { length of the readable part (1), of the writable part (2), bytes } ...
#include "world.h"

#include <algorithm>
#include <array>

using namespace viommu::fuzz;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input input(data, size);
    World world(choose_settings(input));
    if (!world.exists()) {
        return 0;
    }
    world.add_endpoint({});
    world.add_endpoint({{0x5000, 0x5fff, VIOMMU_RESV_RESERVED}});
    world.add_endpoint({});
    const size_t count = world.endpoint_count();
    constexpr std::array<uint32_t, 3> kIds{0x30, 0x38, 0xffff0005};
    for (size_t i = 0; i < std::min(count, kIds.size()); i++) {
        world.set_id(kIds[i], ModelIdentity{i, i});
        world.listen(i, World::Listening::Mirrors);
    }
    // The alias of one more function.
    world.set_id(0x39, ModelIdentity{0, 9});

    world.drive();
    world.set_features(~uint64_t{input.byte()});
    world.write_bypass(input.byte());
    while (!input.empty()) {
        const size_t readable = input.byte();
        const size_t writable = input.number<uint16_t>();
        world.request(input.bytes(readable), writable);
    }
    world.sweep();
    return 0;
}
