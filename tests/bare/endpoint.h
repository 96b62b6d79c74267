// SPDX-License-Identifier: GPL-2.0-or-later
//
// A device behind the IOMMU, and I/O with it whose outcome is known.
#ifndef BARE_ENDPOINT_H
#define BARE_ENDPOINT_H

#include "iommu.h"

namespace bare
{

// No memory is at these addresses: what arrives was translated.
constexpr uint64_t ringShift = 0x700003000;
constexpr uint64_t dataIova = 0x600000000;

constexpr unsigned sectorSize = 512;

class Endpoint
{
public:
    uint32_t id = 0; // as the array says; 0 if it is in no array
    Device device;

    bool isBlock() const { return device.id() == idBlock; }
    const char *kind() const;
    static constexpr unsigned dataPages = 3;
    // Pages that lie apart.
    Addr data(unsigned i) const { return data_ + 2 * i * pageSize; }
    void allocate();
    // Where the device sees its available ring.
    uint64_t ringPage() const { return queue_.memory + pageSize + queue_.shift; }

    // Rings, headers and status with no more rights than they need.
    bool mapRings(Iommu &iommu, uint32_t domain) const;
    // What the device sees its rings at: `shift` above their memory.
    bool start(uint64_t features, uint64_t shift);
    void stop() { device.reset(); }
    // From now on a transfer has succeeded when this interrupt was taken, too; with 0
    // when the used ring says so.
    void awaitInterrupt(uint8_t vector) { vector_ = vector; }

    // One transfer to or from `iova`; false if it does not succeed in time.
    bool read(uint64_t sector, uint64_t iova, uint32_t size, unsigned milliseconds = 3000);
    bool write(uint64_t sector, uint64_t iova, uint32_t size);
    // Entropy sources fill what they like; returns how much that was.
    uint32_t fill(uint64_t iova, uint32_t size, unsigned milliseconds = 3000);
    // Makes either kind of device write up to `size` bytes to `iova`.
    void deviceWrites(uint64_t iova, uint32_t size, unsigned milliseconds);

private:
    // Kicks, and waits for what is to follow.
    bool completes(unsigned milliseconds);
    bool transfer(uint32_t type, uint64_t sector, uint64_t iova, uint32_t size,
                  unsigned milliseconds);

    Queue queue_;
    Addr header_ = 0;
    Addr status_ = 0;
    Addr data_ = 0;
    uint8_t vector_ = 0;
};

} // namespace bare

#endif
