// SPDX-License-Identifier: GPL-2.0-or-later
#include "network.h"

#include "endpoint.h"
#include "steps.h"

namespace bare
{

namespace
{

constexpr uint32_t idNet = 1;
constexpr uint32_t headerSize = 12;
constexpr uint32_t addressSize = 6;
constexpr uint32_t ethernetSize = 14;
constexpr uint32_t payloadSize = 1000;
constexpr uint32_t frameSize = headerSize + ethernetSize + payloadSize;
constexpr uint64_t receiveIova = dataIova;
constexpr uint64_t sendIova = dataIova + 16 * pageSize;
constexpr unsigned frames = 200;

class Net
{
public:
    Device device;
    uint32_t id = 0;

    void allocate()
    {
        receive_.allocate();
        send_.allocate();
        page_ = allocPages(1);
    }

    bool mapRings(Iommu &iommu, uint32_t domain) const
    {
        const Queue *const queues[] = {&receive_, &send_};
        for (const Queue *queue : queues) {
            for (unsigned i = 0; i < Queue::pages; i++) {
                const Addr page = queue->memory + i * pageSize;
                const uint32_t rights = i + 1 < Queue::pages ? mapRead : mapRead | mapWrite;
                if (iommu.map(domain, page + ringShift, pageSize, page, rights) != Status::ok) {
                    return false;
                }
            }
        }
        return iommu.map(domain, sendIova, pageSize, page_, mapRead) == Status::ok;
    }

    bool start()
    {
        if (!device.negotiate(featureVersion1 | featureAccessPlatform)) {
            return false;
        }
        device.setUp(receive_, 0, ringShift);
        device.setUp(send_, 1, ringShift);
        device.driverOk();
        return true;
    }

    // A frame that differs each time, and its answer to `iova`, which leads to `page`.
    bool echoes(uint64_t iova, Addr page, unsigned milliseconds)
    {
        const uint64_t limit = ticksPerMillisecond() * milliseconds;
        const uint64_t begin = ticks();
        uint32_t length;

        while (send_.used != send_.available) {
            if (!waitFor(milliseconds, [this] { return send_.hasUsed(); })) {
                return false;
            }
            send_.takeUsed(length);
        }
        fill();
        post(iova);
        const Segment segment = {sendIova, frameSize, false};
        send_.add(0, &segment, 1);
        send_.notify();
        while (ticks() - begin < limit) {
            if (receive_.hasUsed()) {
                receive_.takeUsed(length);
                if (length == frameSize && isAnswer(page)) {
                    return true;
                }
                post(iova); // what the other end's kernel says by itself
            }
            idle();
        }
        return false;
    }

private:
    void post(uint64_t iova)
    {
        const Segment segment = {iova, pageSize, true};
        receive_.add(0, &segment, 1);
        receive_.notify();
    }

    uint8_t payloadAt(unsigned i) const { return static_cast<uint8_t>(i * 7 + number_ * 13); }

    void fill()
    {
        number_++;
        Addr at = page_;
        for (unsigned i = 0; i < headerSize; i++) {
            store<uint8_t>(at++, 0);
        }
        for (unsigned i = 0; i < addressSize; i++) {
            store<uint8_t>(at++, 0xff);
        }
        for (unsigned i = 0; i < addressSize; i++) {
            store<uint8_t>(at++, i ? 0x11 : 0x02);
        }
        store<uint8_t>(at++, 0x88);
        store<uint8_t>(at++, 0xb5);
        for (unsigned i = 0; i < payloadSize; i++) {
            store<uint8_t>(at++, payloadAt(i));
        }
    }

    // The other end inverts what follows the addresses and the type.
    bool isAnswer(Addr page) const
    {
        const Addr payload = page + headerSize + ethernetSize;
        for (unsigned i = 0; i < payloadSize; i++) {
            if (load<uint8_t>(payload + i) != static_cast<uint8_t>(~payloadAt(i))) {
                return false;
            }
        }
        return true;
    }

    Queue receive_;
    Queue send_;
    Addr page_ = 0;
    unsigned number_ = 0;
};

bool find(Net &net, uint16_t self)
{
    for (uint16_t bdf = 0; bdf < 0x100; bdf++) {
        if (bdf != self && net.device.openPci(bdf) && net.device.id() == idNet) {
            net.id = bdf;
            return true;
        }
    }
    return false;
}

} // namespace

void useNetwork(Iommu &iommu)
{
    constexpr uint32_t domain = 1;
    Net net;

    if (!check(find(net, iommu.device().bdf()), "machine", "has a network")) {
        return;
    }
    net.allocate();
    const Addr first = allocPages(1);
    const Addr second = allocPages(1);
    const auto map = [&](Addr page) {
        expect(iommu.map(domain, receiveIova, pageSize, page, mapWrite), Status::ok, "net",
               "MAP of a page for what comes");
    };

    expect(iommu.attach(domain, net.id), Status::ok, "net", "ATTACH");
    check(net.mapRings(iommu, domain), "net", "MAP of its rings");
    map(first);
    check(net.start(), "net", "starts");
    // Nothing may be lost, but the other end may not be there yet.
    bool there = false;
    for (unsigned i = 0; i < 60 && !there; i++) {
        there = net.echoes(receiveIova, first, 1000);
    }
    check(there, "net", "gets an answer");
    unsigned answered = 0;
    for (unsigned i = 0; i < frames; i++) {
        clear(first);
        answered += net.echoes(receiveIova, first, 5000);
    }
    printAll("answers ", static_cast<uint64_t>(answered), "\n");
    check(answered == frames, "net", "gets all answers unchanged");

    pause("net answered");

    // The page that answers came to a moment ago is out of reach after its UNMAP.
    for (unsigned round = 0; round < 4; round++) {
        const Addr before = round % 2 ? second : first;
        const Addr after = round % 2 ? first : second;
        Fault fault = {};

        expect(iommu.unmap(domain, receiveIova, pageSize), Status::ok, "net", "UNMAP");
        clear(before);
        check(!net.echoes(receiveIova, before, 300) && untouched(before), "net",
              "does not reach what is unmapped");
        check(iommu.takeFault(fault) && fault.endpoint == net.id &&
                  (fault.address & ~(pageSize - 1)) == receiveIova && fault.reason == faultMapping,
              "net", "faults where nothing is mapped");
        iommu.dropFaults();
        net.device.reset();
        map(after);
        check(net.start(), "net", "starts again");
        clear(before);
        check(net.echoes(receiveIova, after, 5000) && untouched(before), "net",
              "reaches what is mapped there now");
    }
    expect(iommu.detach(domain, net.id), Status::ok, "net", "DETACH");
    clear(first);
    check(!net.echoes(receiveIova, first, 300) && untouched(first), "net",
          "reaches nothing without a domain");
    net.device.reset();
}

} // namespace bare
