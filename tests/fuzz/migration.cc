// SPDX-License-Identifier: GPL-2.0-or-later
//
// Arbitrary bytes as a migration stream.  What is taken must be just what can
// be, and must come out again as it went in.
//
//   settings, regions of the endpoints, flags (1), stream
#include "check.h"
#include "requests.h"
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
    for (size_t i = 0; i < 3; i++) {
        world.add_endpoint(choose_regions(input, world.model().granule(), 1));
    }
    constexpr std::array<uint32_t, 3> kIds{1, 0x30, 0xffff0005};
    const size_t count = world.endpoint_count();
    for (size_t i = 0; i < std::min(count, kIds.size()); i++) {
        world.set_id(kIds[i], ModelIdentity{i, i});
        world.listen(i, World::Listening::Switches);
    }
    if (count != 0) {
        world.set_id(0x31, ModelIdentity{0, 9});
    }
    world.drive();
    const uint8_t flags = input.byte();
    if ((flags & 1) != 0) {
        // There is an older state to be replaced.
        const uint64_t granule = world.model().granule();
        world.request(attach_bytes(3, kIds[1], 0), 4);
        world.request(map_bytes(3, 2 * granule, 3 * granule - 1, 0, kRw), 4);
    }

    const bool driven = (flags & 8) == 0;
    world.load(input.rest());
    if ((flags & 2) != 0) {
        world.reset((flags & 4) != 0); // leaves what is staged alone
    }
    world.commit(driven);
    world.sweep();

    const auto first = world.save();
    FUZZ_CHECK(first);
    world.load(*first);
    world.commit(driven);
    world.sweep();
    const auto second = world.save();
    FUZZ_CHECK(second && *first == *second);
    return 0;
}
