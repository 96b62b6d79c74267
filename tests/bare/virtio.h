// SPDX-License-Identifier: GPL-2.0-or-later
//
// Virtio devices on virtio-mmio transports and on PCI, with split queues that
// are polled.
#ifndef BARE_VIRTIO_H
#define BARE_VIRTIO_H

#include "support.h"

namespace bare
{

constexpr uint32_t idBlock = 2;
constexpr uint32_t idEntropy = 4;
constexpr uint32_t idIommu = 23;

constexpr unsigned pciBars = 6;
// Gives a function's memory BARs addresses, 0 where it has none, and lets it do DMA.
void placeBars(uint16_t bdf, Addr (&bars)[pciBars]);
// Leads from bus 0 to this bus, where BARs are to be placed now.  False if the function
// is no bridge.
bool openBridge(uint16_t bdf, uint8_t bus);

constexpr uint64_t featureVersion1 = 1ull << 32;
constexpr uint64_t featureAccessPlatform = 1ull << 33;

struct Segment {
    Addr addr; // as the device sees it
    uint32_t size;
    bool deviceWrites;
};

// The device sees the rings `shift` above where they are in memory.
struct Queue {
    static constexpr unsigned size = 16;
    static constexpr unsigned pages = 3; // descriptors, available, used

    Addr memory = 0;
    uint64_t shift = 0;
    uint16_t index = 0;
    uint16_t available = 0;
    uint16_t used = 0;
    Addr doorbell = 0;
    bool wideDoorbell = false;

    void allocate();
    // Publishes one chain that begins at descriptor `head`.
    void add(uint16_t head, const Segment *segments, unsigned count);
    void notify() const;
    bool hasUsed() const;
    // The head of the chain that came back; `length` is what was written.
    uint16_t takeUsed(uint32_t &length);
};

class Device
{
public:
    // False if there is no device of that kind.
    bool openMmio(Addr base);
    bool openPci(uint16_t bdf);

    uint32_t id() const { return id_; }
    Addr base() const { return base_; }
    bool onPci() const { return pci_; }
    uint16_t bdf() const { return bdf_; }

    void reset();
    // Ends with FEATURES_OK; false if the device does not agree.
    bool negotiate(uint64_t features);
    uint64_t offered() const;
    void setUp(Queue &queue, uint16_t index, uint64_t shift);
    void driverOk();
    uint8_t status() const;
    // Where a function on PCI says whether it holds its pin; 0 if it does not say.
    Addr pinStatus() const { return interruptStatus_; }
    // The message of queue `index`, which is to be set up afterwards.  False if the
    // function has no MSI-X table with room for it.
    bool interruptBy(unsigned index, const Message &message);

    uint8_t config8(unsigned offset) const { return load<uint8_t>(config_ + offset); }
    uint32_t config32(unsigned offset) const { return load<uint32_t>(config_ + offset); }
    uint64_t config64(unsigned offset) const
    {
        return config32(offset) | static_cast<uint64_t>(config32(offset + 4)) << 32;
    }

private:
    void setStatus(uint8_t status);
    unsigned capability(uint8_t id) const;
    Addr reg(unsigned mmio, unsigned pci) const { return base_ + (pci_ ? pci : mmio); }

    bool pci_ = false;
    uint16_t bdf_ = 0;
    Addr bars_[pciBars] = {};
    Addr interruptStatus_ = 0;
    bool messages_ = false;
    uint32_t id_ = 0;
    Addr base_ = 0; // the transport's registers, or the common structure
    Addr config_ = 0;
    Addr notify_ = 0;
    uint32_t notifyMultiplier_ = 0;
};

} // namespace bare

#endif
