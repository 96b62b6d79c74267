// SPDX-License-Identifier: GPL-2.0-or-later
#include "endpoint.h"

namespace bare
{

namespace
{

constexpr uint32_t blockIn = 0;
constexpr uint32_t blockOut = 1;
constexpr uint8_t blockOk = 0;

} // namespace

const char *Endpoint::kind() const
{
    return isBlock() ? "block" : "entropy";
}

void Endpoint::allocate()
{
    queue_.allocate();
    header_ = allocPages(1);
    status_ = allocPages(1);
    data_ = allocPages(2 * dataPages - 1);
}

bool Endpoint::mapRings(Iommu &iommu, uint32_t domain) const
{
    const struct {
        Addr page;
        uint32_t rights;
    } rows[] = {
        {queue_.memory, mapRead},
        {queue_.memory + pageSize, mapRead},
        {queue_.memory + 2 * pageSize, mapRead | mapWrite},
        {header_, mapRead},
        {status_, mapWrite},
    };
    for (const auto &row : rows) {
        if (iommu.map(domain, row.page + ringShift, pageSize, row.page, row.rights) != Status::ok) {
            return false;
        }
    }
    return true;
}

bool Endpoint::start(uint64_t features, uint64_t shift)
{
    if (!device.negotiate(features | featureVersion1)) {
        return false;
    }
    device.setUp(queue_, 0, shift);
    device.driverOk();
    return true;
}

bool Endpoint::completes(unsigned milliseconds)
{
    const uint32_t before = vector_ ? interruptsOf(vector_) : 0;

    queue_.notify();
    return waitFor(milliseconds, [this, before] {
        return queue_.hasUsed() && (!vector_ || interruptsOf(vector_) != before);
    });
}

bool Endpoint::transfer(uint32_t type, uint64_t sector, uint64_t iova, uint32_t size,
                        unsigned milliseconds)
{
    const Segment segments[] = {
        {header_ + queue_.shift, 16, false},
        {iova, size, type == blockIn},
        {status_ + queue_.shift, 1, true},
    };
    store<uint32_t>(header_, type);
    store<uint32_t>(header_ + 4, 0);
    store<uint32_t>(header_ + 8, static_cast<uint32_t>(sector));
    store<uint32_t>(header_ + 12, static_cast<uint32_t>(sector >> 32));
    store<uint8_t>(status_, 0xff);
    queue_.add(0, segments, 3);
    if (!completes(milliseconds)) {
        return false;
    }
    uint32_t length;
    queue_.takeUsed(length);
    return load<uint8_t>(status_) == blockOk;
}

bool Endpoint::read(uint64_t sector, uint64_t iova, uint32_t size, unsigned milliseconds)
{
    return transfer(blockIn, sector, iova, size, milliseconds);
}

bool Endpoint::write(uint64_t sector, uint64_t iova, uint32_t size)
{
    return transfer(blockOut, sector, iova, size, 3000);
}

uint32_t Endpoint::fill(uint64_t iova, uint32_t size, unsigned milliseconds)
{
    const Segment segment = {iova, size, true};
    uint32_t length;

    queue_.add(0, &segment, 1);
    if (!completes(milliseconds)) {
        return 0;
    }
    queue_.takeUsed(length);
    return length;
}

void Endpoint::deviceWrites(uint64_t iova, uint32_t size, unsigned milliseconds)
{
    if (isBlock()) {
        read(0, iova, size, milliseconds);
    } else {
        fill(iova, size, milliseconds);
    }
}

} // namespace bare
