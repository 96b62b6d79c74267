// SPDX-License-Identifier: GPL-2.0-or-later
//
// How a request is told to those who look on.
#include "machine.h"

#include <array>
#include <string>

namespace viommu::test
{

namespace
{

struct View : ViommuRequestView {
    // `size`: how much of the request the driver sent.
    View(const Request &request, size_t size, uint8_t answer, size_t used = 4)
    {
        std::array<uint8_t, 8> out{};
        if (used >= 4) {
            out[used - 4] = answer;
        }
        ViommuRequest told{};
        told.in = request.in.data();
        told.in_size = size;
        told.out = out.data();
        told.writable = out.size();
        told.used = used;
        viommu_request_view(&told, this);
    }
    View(const Request &request, uint8_t answer) : View(request, request.in.size(), answer) {}
};

TEST(RequestView, EachTypeHasItsFields)
{
    const View attached(Request::attach(7, 0x18, 1), OK);
    EXPECT_EQ(attached.type, VIOMMU_T_ATTACH);
    EXPECT_EQ(attached.domain, 7u);
    EXPECT_EQ(attached.endpoint, 0x18u);
    EXPECT_EQ(attached.flags, 1u);

    const View detach(Request::detach(7, 0x18), OK);
    EXPECT_EQ(detach.type, VIOMMU_T_DETACH);
    EXPECT_EQ(detach.domain, 7u);
    EXPECT_EQ(detach.endpoint, 0x18u);

    const View map(Request::map(7, 0x1000, 0x1fff, 0x5000, W), OK);
    EXPECT_EQ(map.type, VIOMMU_T_MAP);
    EXPECT_EQ(map.domain, 7u);
    EXPECT_EQ(map.first, 0x1000u);
    EXPECT_EQ(map.last, 0x1fffu);
    EXPECT_EQ(map.phys, 0x5000u);
    EXPECT_EQ(map.flags, W);
    EXPECT_EQ(map.endpoint, 0u);

    const View unmap(Request::unmap(7, 0x1000, 0x2fff), OK);
    EXPECT_EQ(unmap.type, VIOMMU_T_UNMAP);
    EXPECT_EQ(unmap.domain, 7u);
    EXPECT_EQ(unmap.first, 0x1000u);
    EXPECT_EQ(unmap.last, 0x2fffu);

    const View probe(Request::probe(0x18), OK);
    EXPECT_EQ(probe.type, VIOMMU_T_PROBE);
    EXPECT_EQ(probe.endpoint, 0x18u);
}

TEST(RequestView, WhatIsTooShortOrUnknownHasNoType)
{
    for (const Request &request :
         {Request::attach(7, 0x18, 1), Request::detach(7, 0x18), Request::map(7, 0, 0xfff, 0, RW),
          Request::unmap(7, 0, 0xfff), Request::probe(0x18)}) {
        const View view(request, request.in.size() - 1, INVAL);
        EXPECT_EQ(view.type, 0u);
        EXPECT_EQ(view.domain, 0u);
        EXPECT_EQ(view.endpoint, 0u);
        EXPECT_STREQ(view.status, "INVAL");
    }
    Request unknown = Request::attach(7, 0x18, 1);
    unknown.in[0] = 6;
    EXPECT_EQ(View(unknown, OK).type, 0u);
    EXPECT_EQ(View(unknown, 0, OK).type, 0u);
}

TEST(RequestView, OnlyRefusalsForItsOwnDoingAreTheDrivers)
{
    const Request request = Request::detach(7, 0x18);
    const std::array<const char *, 9> names{"OK",    "IOERR", "UNSUPP", "DEVERR", "INVAL",
                                            "RANGE", "NOENT", "FAULT",  "NOMEM"};
    const std::array<bool, 9> fault{false, false, true, false, true, true, true, false, false};
    for (uint8_t status = 0; status < names.size(); status++) {
        const View view(request, status);
        EXPECT_STREQ(view.status, names.at(status));
        EXPECT_EQ(view.drivers_fault, fault.at(status)) << view.status;
    }
    EXPECT_STREQ(View(request, 9).status, "unknown");
    const View unanswered(request, request.in.size(), OK, 0);
    EXPECT_STREQ(unanswered.status, "unanswered");
    EXPECT_TRUE(unanswered.drivers_fault);
}

TEST(RequestView, TheStatusFollowsTheProperties)
{
    EXPECT_STREQ(View(Request::probe(0x18), 72, NOENT, 8).status, "NOENT");
}

} // namespace

} // namespace viommu::test
