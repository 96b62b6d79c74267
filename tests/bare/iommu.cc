// SPDX-License-Identifier: GPL-2.0-or-later
#include "iommu.h"

namespace bare
{

namespace
{

constexpr uint64_t featureInputRange = 1u << 0;
constexpr uint64_t featureDomainRange = 1u << 1;
constexpr uint64_t featureMapUnmap = 1u << 2;
constexpr uint64_t featureProbe = 1u << 4;
constexpr uint64_t featureTopology = 1u << 6; // BYPASS_CONFIG without the array
constexpr uint64_t featuresWanted = featureInputRange | featureDomainRange | featureMapUnmap |
                                    featureProbe | featureTopology | featureVersion1;

constexpr unsigned configProbeSize = 32;
constexpr unsigned configArray = 36;

constexpr unsigned eventBuffers = 8;
constexpr unsigned eventSize = 24;

// Each processor has room of its own for a request and its answer.
constexpr unsigned requestRoom = 2048;
constexpr unsigned answerOffset = 512;

constexpr uint8_t unwritten = 0xa5;

} // namespace

const char *name(Status status)
{
    static const char *const names[] = {"OK",    "IOERR", "UNSUPP", "DEVERR", "INVAL",
                                        "RANGE", "NOENT", "FAULT",  "NOMEM"};
    const unsigned value = static_cast<unsigned>(status);
    return value < sizeof(names) / sizeof(names[0]) ? names[value] : "no answer";
}

bool Iommu::readArray(Layout layout)
{
    uint32_t offset;
    uint32_t count;
    uint32_t stride = 16;

    managedCount_ = 0;
    if (!(device_.offered() & featureTopology)) {
        return false;
    }
    if (layout == Layout::v2) {
        offset = device_.config32(configArray);
        count = device_.config32(configArray + 4);
        stride = device_.config32(configArray + 8);
    } else {
        const uint32_t head = device_.config32(configArray);
        count = head & 0xffff;
        offset = head >> 16;
    }
    if (!offset || count > maxManaged || stride % 4 || stride < 12) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t head = device_.config32(offset);
        Managed item = {};
        uint32_t length = stride;
        uint32_t type;

        if (layout == Layout::v2) {
            type = head & 0xffff;
            item.pciRange = type == 1;
            if (item.pciRange) {
                item.segment = static_cast<uint16_t>(head >> 16);
                const uint32_t requesters = device_.config32(offset + 4);
                item.requesterFirst = static_cast<uint16_t>(requesters);
                item.requesterLast = static_cast<uint16_t>(requesters >> 16);
                item.endpoint = device_.config32(offset + 8);
            }
        } else {
            type = head & 0xff;
            length = head >> 16;
            item.pciRange = type == 1;
            item.endpoint = device_.config32(offset + 4);
            if (item.pciRange) {
                const uint32_t first = device_.config32(offset + 8);
                item.segment = static_cast<uint16_t>(first);
                item.requesterFirst = static_cast<uint16_t>(first >> 16);
                item.requesterLast = static_cast<uint16_t>(device_.config32(offset + 12));
            }
        }
        if (length < 12) {
            return false;
        }
        if (type == 2) {
            item.endpoint = device_.config32(offset + 4);
            item.base = device_.config64(offset + 8);
        }
        if (type == 1 || type == 2) {
            managed_[managedCount_++] = item;
        }
        offset += length;
    }
    return true;
}

bool Iommu::bringUp()
{
    if (!requestPage_) {
        requests_.allocate();
        events_.allocate();
        requestPage_ = allocPages(maxProcessors * requestRoom / pageSize);
        eventPage_ = allocPages(1);
    }
    if (!device_.negotiate(device_.offered() & featuresWanted)) {
        return false;
    }
    probeSize_ = device_.config32(configProbeSize);
    if (probeSize_ + 4 > requestRoom - answerOffset) {
        fail("the answer to a PROBE is too long");
    }
    device_.setUp(requests_, 0, 0);
    device_.setUp(events_, 1, 0);
    device_.driverOk();
    for (uint16_t i = 0; i < eventBuffers; i++) {
        postEvent(i);
    }
    return true;
}

void Iommu::postEvent(uint16_t head)
{
    const Segment segment = {eventPage_ + head * 64u, eventSize, true};
    events_.add(head, &segment, 1);
    events_.notify();
}

bool Iommu::takeRecord(Fault &fault)
{
    if (!events_.hasUsed()) {
        return false;
    }
    uint32_t length;
    const uint16_t head = events_.takeUsed(length);
    const Addr record = eventPage_ + head * 64u;
    if (length != eventSize) {
        fail("a fault record has a wrong length");
    }
    fault.reason = load<uint8_t>(record);
    fault.flags = load<uint32_t>(record + 4);
    fault.endpoint = load<uint32_t>(record + 8);
    fault.address = load<uint32_t>(record + 16) | static_cast<uint64_t>(load<uint32_t>(record + 20))
                                                      << 32;
    postEvent(head);
    return true;
}

bool Iommu::takeFault(Fault &fault, unsigned milliseconds)
{
    return waitFor(milliseconds, [&] { return takeRecord(fault); });
}

bool Iommu::takeFaultOf(uint32_t endpoint, uint64_t page, Fault &fault, unsigned milliseconds)
{
    return waitFor(milliseconds, [&] {
        const Locked locked(eventLock_);
        Fault record;
        while (takeRecord(record)) {
            if (keptCount_ == maxKept) {
                fail("nobody takes the fault records");
            }
            kept_[keptCount_++] = record;
        }
        bool found = false;
        unsigned left = 0;
        for (unsigned i = 0; i < keptCount_; i++) {
            if (kept_[i].endpoint != endpoint) {
                kept_[left++] = kept_[i];
            } else if ((kept_[i].address & ~(pageSize - 1)) == page) {
                fault = kept_[i];
                found = true;
            }
        }
        keptCount_ = left;
        return found;
    });
}

void Iommu::dropFaults()
{
    Fault fault;
    while (takeFault(fault, 5)) {
    }
}

struct Iommu::Request {
    unsigned size = 0;
    uint8_t bytes[72] = {};

    explicit Request(uint8_t type) { bytes[0] = type, size = 4; }
    Request &u32(uint32_t value)
    {
        for (unsigned i = 0; i < 4; i++) {
            bytes[size++] = static_cast<uint8_t>(value >> 8 * i);
        }
        return *this;
    }
    Request &u64(uint64_t value)
    {
        return u32(static_cast<uint32_t>(value)).u32(static_cast<uint32_t>(value >> 32));
    }
    Request &zeros(unsigned count)
    {
        size += count;
        return *this;
    }
};

// Takes what has come back, for whomever.
bool Iommu::answered(unsigned processor)
{
    const Locked locked(requestLock_);
    while (requests_.hasUsed()) {
        uint32_t length;
        const unsigned whose = requests_.takeUsed(length) / 2;
        if (whose >= maxProcessors) {
            fail("the IOMMU answers what was not asked");
        }
        answerLength_[whose] = length;
        answered_[whose] = true;
    }
    return answered_[processor];
}

Status Iommu::send(const Request &request, unsigned writable)
{
    const unsigned self = processor();
    if (self >= maxProcessors) {
        fail("too many processors");
    }
    const Addr in = requestPage_ + requestRoom * self;
    const Addr out = in + answerOffset;
    const Segment segments[] = {{in, request.size, false}, {out, writable, true}};

    for (unsigned i = 0; i < request.size; i++) {
        store<uint8_t>(in + i, request.bytes[i]);
    }
    for (unsigned i = 0; i < writable; i++) {
        store<uint8_t>(out + i, unwritten);
    }
    answered_[self] = false;
    {
        const Locked locked(requestLock_);
        requests_.add(static_cast<uint16_t>(2 * self), segments, 2);
    }
    requests_.notify();
    if (!waitFor(5000, [this, self] { return answered(self); })) {
        fail("the IOMMU does not answer");
    }
    return answerLength_[self] == writable ? static_cast<Status>(load<uint8_t>(out + writable - 4))
                                           : Status::unanswered;
}

Status Iommu::attach(uint32_t domain, uint32_t endpoint, uint32_t flags)
{
    return send(Request(1).u32(domain).u32(endpoint).u32(flags).zeros(4), 4);
}

Status Iommu::detach(uint32_t domain, uint32_t endpoint)
{
    return send(Request(2).u32(domain).u32(endpoint).zeros(8), 4);
}

Status Iommu::map(uint32_t domain, uint64_t iova, uint64_t size, Addr phys, uint32_t flags)
{
    return send(Request(3).u32(domain).u64(iova).u64(iova + size - 1).u64(phys).u32(flags), 4);
}

Status Iommu::unmap(uint32_t domain, uint64_t iova, uint64_t size)
{
    return send(Request(4).u32(domain).u64(iova).u64(iova + size - 1).zeros(4), 4);
}

Status Iommu::probe(uint32_t endpoint)
{
    return send(Request(5).u32(endpoint).zeros(64), probeSize_ + 4);
}

} // namespace bare
