// SPDX-License-Identifier: GPL-2.0-or-later
//
// A driver of the virtio-iommu by its specification, and a reader of the
// topology array that was proposed in 2020.
#ifndef BARE_IOMMU_H
#define BARE_IOMMU_H

#include "virtio.h"

namespace bare
{

enum class Status : uint8_t {
    ok = 0,
    ioError,
    unsupported,
    deviceError,
    invalid,
    range,
    noEntry,
    fault,
    noMemory,
    unanswered = 0xff,
};

const char *name(Status status);

constexpr uint32_t attachBypass = 1;
constexpr uint32_t mapRead = 1;
constexpr uint32_t mapWrite = 2;

constexpr uint8_t faultDomain = 1;
constexpr uint8_t faultMapping = 2;
constexpr uint32_t faultRead = 1;
constexpr uint32_t faultWrite = 2;
constexpr uint32_t faultAddress = 256;

struct Fault {
    uint8_t reason;
    uint32_t flags;
    uint32_t endpoint;
    uint64_t address;
};

// One item of the array.
struct Managed {
    bool pciRange;
    uint32_t endpoint; // the first one, of a range
    Addr base;         // of a transport
    uint16_t segment;  // of a range, like the next two
    uint16_t requesterFirst;
    uint16_t requesterLast;
};

enum class Layout {
    v2,
    v3,
};

// Requests may come from several processors at a time.
class Iommu
{
public:
    static constexpr unsigned maxManaged = 64;
    static constexpr unsigned maxProcessors = 8;

    explicit Iommu(const Device &device) : device_(device) {}

    // As a firmware-less guest has to: before any other use of the device.
    bool readArray(Layout layout);
    unsigned managedCount() const { return managedCount_; }
    const Managed &managed(unsigned i) const { return managed_[i]; }

    // From reset to DRIVER_OK; empties the event queue.
    bool bringUp();
    void reset() { device_.reset(); }

    Status attach(uint32_t domain, uint32_t endpoint, uint32_t flags = 0);
    Status detach(uint32_t domain, uint32_t endpoint);
    Status map(uint32_t domain, uint64_t iova, uint64_t size, Addr phys, uint32_t flags);
    Status unmap(uint32_t domain, uint64_t iova, uint64_t size);
    Status probe(uint32_t endpoint);

    // The next record, within the time given.
    bool takeFault(Fault &fault, unsigned milliseconds = 2000);
    // Forgets records that have come and those still on their way.
    void dropFaults();
    // The record of an access of this endpoint to this page, whichever processor asks;
    // older ones of the endpoint are forgotten.
    bool takeFaultOf(uint32_t endpoint, uint64_t page, Fault &fault, unsigned milliseconds = 2000);

    Device &device() { return device_; }

private:
    static constexpr unsigned maxKept = 64;

    struct Request;
    Status send(const Request &request, unsigned writable);
    void postEvent(uint16_t head);
    bool answered(unsigned processor);
    bool takeRecord(Fault &fault);

    Device device_;
    SpinLock requestLock_;
    Queue requests_;
    volatile bool answered_[maxProcessors] = {};
    volatile uint32_t answerLength_[maxProcessors] = {};
    SpinLock eventLock_;
    Queue events_;
    Fault kept_[maxKept] = {};
    unsigned keptCount_ = 0;
    Addr requestPage_ = 0;
    Addr eventPage_ = 0;
    Managed managed_[maxManaged] = {};
    unsigned managedCount_ = 0;
    uint32_t probeSize_ = 0;
};

} // namespace bare

#endif
