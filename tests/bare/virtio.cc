// SPDX-License-Identifier: GPL-2.0-or-later
#include "virtio.h"

namespace bare
{

namespace
{

constexpr uint8_t acknowledge = 1;
constexpr uint8_t driver = 2;
constexpr uint8_t driverOkBit = 4;
constexpr uint8_t featuresOk = 8;

constexpr uint16_t descriptorNext = 1;
constexpr uint16_t descriptorWrite = 2;

// Registers of a virtio-mmio transport.
enum Mmio : unsigned {
    mmioMagic = 0x000,
    mmioVersion = 0x004,
    mmioDeviceId = 0x008,
    mmioDeviceFeatures = 0x010,
    mmioDeviceFeaturesSelect = 0x014,
    mmioDriverFeatures = 0x020,
    mmioDriverFeaturesSelect = 0x024,
    mmioQueueSelect = 0x030,
    mmioQueueSizeMax = 0x034,
    mmioQueueSize = 0x038,
    mmioQueueReady = 0x044,
    mmioQueueNotify = 0x050,
    mmioStatus = 0x070,
    mmioQueueDescriptors = 0x080,
    mmioQueueAvailable = 0x090,
    mmioQueueUsed = 0x0a0,
    mmioConfig = 0x100,
};

// Offsets in virtio-pci's common structure.
enum Common : unsigned {
    commonDeviceFeaturesSelect = 0,
    commonDeviceFeatures = 4,
    commonDriverFeaturesSelect = 8,
    commonDriverFeatures = 12,
    commonStatus = 20,
    commonQueueSelect = 22,
    commonQueueSize = 24,
    commonQueueVector = 26,
    commonQueueEnable = 28,
    commonQueueNotifyOffset = 30,
    commonQueueDescriptors = 32,
    commonQueueAvailable = 40,
    commonQueueUsed = 48,
};

constexpr uint8_t capabilityVendor = 9;
constexpr uint8_t structureCommon = 1;
constexpr uint8_t structureNotify = 2;
constexpr uint8_t structureInterruptStatus = 3;
constexpr uint8_t structureDevice = 4;
constexpr uint8_t capabilityMsix = 0x11;
constexpr uint32_t msixEnable = 1u << 31;
constexpr uint32_t msixEntryMasked = 1;

constexpr uint32_t bridgeWindow = 1 << 20;

Addr nextBar;

// Gives a memory BAR an address; 0 if there is none.
Addr placeBar(uint16_t bdf, unsigned n)
{
    const unsigned offset = 0x10 + 4 * n;

    pciWrite32(bdf, offset, 0xffffffff);
    const uint32_t value = pciRead32(bdf, offset);
    if (!value || (value & 1)) {
        return 0;
    }
    const uint32_t size = ~(value & ~15u) + 1;
    if (!nextBar) {
        nextBar = pciWindow;
    }
    nextBar = (nextBar + size - 1) & ~static_cast<Addr>(size - 1);
    const Addr addr = nextBar;
    nextBar += size;
    pciWrite32(bdf, offset, static_cast<uint32_t>(addr));
    if ((value & 6) == 4) {
        pciWrite32(bdf, offset + 4, 0);
    }
    return addr;
}

bool isWide(uint16_t bdf, unsigned n)
{
    return (pciRead32(bdf, 0x10 + 4 * n) & 7) == 4;
}

uint8_t pciRead8(uint16_t bdf, unsigned offset)
{
    return static_cast<uint8_t>(pciRead32(bdf, offset) >> 8 * (offset & 3));
}

void writeHalves(Addr reg, uint64_t value)
{
    store<uint32_t>(reg, static_cast<uint32_t>(value));
    store<uint32_t>(reg + 4, static_cast<uint32_t>(value >> 32));
}

} // namespace

void placeBars(uint16_t bdf, Addr (&bars)[pciBars])
{
    for (unsigned n = 0; n < pciBars; n++) {
        bars[n] = placeBar(bdf, n);
        n += isWide(bdf, n);
    }
    pciWrite32(bdf, 4, 6); // memory space, bus master
}

bool openBridge(uint16_t bdf, uint8_t bus)
{
    if (pciRead32(bdf, 0) == 0xffffffff || (pciRead32(bdf, 0xc) >> 16 & 0x7f) != 1) {
        return false;
    }
    if (!nextBar) {
        nextBar = pciWindow;
    }
    const Addr begin = (nextBar + bridgeWindow - 1) & ~static_cast<Addr>(bridgeWindow - 1);
    const uint32_t window = static_cast<uint32_t>(begin >> 16 & 0xfff0);
    nextBar = begin;
    pciWrite32(bdf, 0x18, static_cast<uint32_t>(bus) << 8 | static_cast<uint32_t>(bus) << 16);
    pciWrite32(bdf, 0x20, window << 16 | window); // one piece of 1 MiB
    pciWrite32(bdf, 4, 6);
    return true;
}

void Queue::allocate()
{
    memory = allocPages(pages);
}

void Queue::add(uint16_t head, const Segment *segments, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const Addr descriptor = memory + 16 * (head + i);
        const bool last = i + 1 == count;

        writeHalves(descriptor, segments[i].addr);
        store<uint32_t>(descriptor + 8, segments[i].size);
        store<uint16_t>(descriptor + 12,
                        static_cast<uint16_t>((last ? 0 : descriptorNext) |
                                              (segments[i].deviceWrites ? descriptorWrite : 0)));
        store<uint16_t>(descriptor + 14, static_cast<uint16_t>(last ? 0 : head + i + 1));
    }
    const Addr ring = memory + pageSize;
    store<uint16_t>(ring + 4 + 2 * (available % size), head);
    barrier();
    available++;
    store<uint16_t>(ring + 2, available);
    barrier();
}

void Queue::notify() const
{
    if (wideDoorbell) {
        store<uint32_t>(doorbell, index);
    } else {
        store<uint16_t>(doorbell, index);
    }
}

bool Queue::hasUsed() const
{
    barrier();
    return load<uint16_t>(memory + 2 * pageSize + 2) != used;
}

uint16_t Queue::takeUsed(uint32_t &length)
{
    const Addr element = memory + 2 * pageSize + 4 + 8 * (used % size);

    barrier();
    used++;
    length = load<uint32_t>(element + 4);
    return static_cast<uint16_t>(load<uint32_t>(element));
}

bool Device::openMmio(Addr base)
{
    if (load<uint32_t>(base + mmioMagic) != 0x74726976 || load<uint32_t>(base + mmioVersion) != 2 ||
        !load<uint32_t>(base + mmioDeviceId)) {
        return false;
    }
    pci_ = false;
    base_ = base;
    config_ = base + mmioConfig;
    notify_ = base + mmioQueueNotify;
    id_ = load<uint32_t>(base + mmioDeviceId);
    return true;
}

bool Device::openPci(uint16_t bdf)
{
    const uint32_t ids = pciRead32(bdf, 0);

    if ((ids & 0xffff) != 0x1af4) {
        return false;
    }
    const uint32_t device = ids >> 16;
    if (device >= 0x1040) {
        id_ = device - 0x1040;
    } else {
        id_ = pciRead32(bdf, 0x2c) >> 16; // transitional: the subsystem
    }
    placeBars(bdf, bars_);

    pci_ = true;
    bdf_ = bdf;
    base_ = 0;
    for (unsigned cap = pciRead8(bdf, 0x34); cap; cap = pciRead8(bdf, cap + 1)) {
        const uint8_t bar = pciRead8(bdf, cap + 4);
        if (pciRead8(bdf, cap) != capabilityVendor || bar > 5 || !bars_[bar]) {
            continue;
        }
        const Addr addr = bars_[bar] + pciRead32(bdf, cap + 8);
        switch (pciRead8(bdf, cap + 3)) {
        case structureCommon:
            base_ = addr;
            break;
        case structureNotify:
            notify_ = addr;
            notifyMultiplier_ = pciRead32(bdf, cap + 16);
            break;
        case structureInterruptStatus:
            interruptStatus_ = addr;
            break;
        case structureDevice:
            config_ = addr;
            break;
        }
    }
    return base_ && notify_;
}

unsigned Device::capability(uint8_t id) const
{
    unsigned cap = pciRead8(bdf_, 0x34);
    while (cap && pciRead8(bdf_, cap) != id) {
        cap = pciRead8(bdf_, cap + 1);
    }
    return cap;
}

bool Device::interruptBy(unsigned index, const Message &message)
{
    const unsigned cap = pci_ ? capability(capabilityMsix) : 0;
    if (!cap) {
        return false;
    }
    const uint32_t control = pciRead32(bdf_, cap);
    const uint32_t table = pciRead32(bdf_, cap + 4);
    if (index > (control >> 16 & 0x7ff) || (table & 7) > 5 || !bars_[table & 7]) {
        return false;
    }
    const Addr row = bars_[table & 7] + (table & ~7u) + 16 * index;
    store<uint32_t>(row + 12, msixEntryMasked);
    writeHalves(row, message.address);
    store<uint32_t>(row + 8, message.data);
    store<uint32_t>(row + 12, 0);
    pciWrite32(bdf_, cap, control | msixEnable);
    messages_ = true;
    return true;
}

uint8_t Device::status() const
{
    return pci_ ? load<uint8_t>(base_ + commonStatus)
                : static_cast<uint8_t>(load<uint32_t>(base_ + mmioStatus));
}

void Device::setStatus(uint8_t status)
{
    if (pci_) {
        store<uint8_t>(base_ + commonStatus, status);
    } else {
        store<uint32_t>(base_ + mmioStatus, status);
    }
}

void Device::reset()
{
    setStatus(0);
    if (!waitFor(1000, [this] { return status() == 0; })) {
        fail("a device does not finish its reset");
    }
}

uint64_t Device::offered() const
{
    const Addr select = reg(mmioDeviceFeaturesSelect, commonDeviceFeaturesSelect);
    const Addr window = reg(mmioDeviceFeatures, commonDeviceFeatures);

    store<uint32_t>(select, 0);
    const uint64_t low = load<uint32_t>(window);
    store<uint32_t>(select, 1);
    return low | static_cast<uint64_t>(load<uint32_t>(window)) << 32;
}

bool Device::negotiate(uint64_t features)
{
    const Addr select = reg(mmioDriverFeaturesSelect, commonDriverFeaturesSelect);
    const Addr window = reg(mmioDriverFeatures, commonDriverFeatures);

    reset();
    setStatus(acknowledge);
    setStatus(acknowledge | driver);
    store<uint32_t>(select, 0);
    store<uint32_t>(window, static_cast<uint32_t>(features));
    store<uint32_t>(select, 1);
    store<uint32_t>(window, static_cast<uint32_t>(features >> 32));
    setStatus(acknowledge | driver | featuresOk);
    return status() & featuresOk;
}

void Device::setUp(Queue &queue, uint16_t index, uint64_t shift)
{
    for (unsigned i = 0; i < Queue::pages * pageSize; i += 4) {
        store<uint32_t>(queue.memory + i, 0);
    }
    queue.shift = shift;
    queue.index = index;
    queue.available = 0;
    queue.used = 0;
    queue.wideDoorbell = !pci_;

    const Addr seen = queue.memory + shift;
    if (pci_) {
        store<uint16_t>(base_ + commonQueueSelect, index);
        store<uint16_t>(base_ + commonQueueSize, Queue::size);
        if (messages_) {
            store<uint16_t>(base_ + commonQueueVector, index);
            if (load<uint16_t>(base_ + commonQueueVector) != index) {
                fail("a queue does not take its entry of the MSI-X table");
            }
        }
    } else {
        store<uint32_t>(base_ + mmioQueueSelect, index);
        if (load<uint32_t>(base_ + mmioQueueSizeMax) < Queue::size) {
            fail("a queue is too small");
        }
        store<uint32_t>(base_ + mmioQueueSize, Queue::size);
    }
    writeHalves(reg(mmioQueueDescriptors, commonQueueDescriptors), seen);
    writeHalves(reg(mmioQueueAvailable, commonQueueAvailable), seen + pageSize);
    writeHalves(reg(mmioQueueUsed, commonQueueUsed), seen + 2 * pageSize);
    if (pci_) {
        queue.doorbell = notify_ + static_cast<Addr>(notifyMultiplier_) *
                                       load<uint16_t>(base_ + commonQueueNotifyOffset);
        store<uint16_t>(base_ + commonQueueEnable, 1);
    } else {
        queue.doorbell = notify_;
        store<uint32_t>(base_ + mmioQueueReady, 1);
    }
}

void Device::driverOk()
{
    setStatus(acknowledge | driver | featuresOk | driverOkBit);
}

} // namespace bare
