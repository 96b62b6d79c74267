// SPDX-License-Identifier: GPL-2.0-or-later
#include <viommu/properties.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

namespace viommu::test
{

namespace
{

constexpr uint64_t kTop = UINT64_MAX;

// The room that QEMU's side has for a sentence.
using Sentence = char[256];

std::optional<ViommuRegion> region(const std::string &text)
{
    ViommuRegion parsed{};
    Sentence error = "";
    if (viommu_region_parse(text.c_str(), &parsed, error, sizeof(error))) {
        EXPECT_STREQ(error, "") << text;
        return parsed;
    }
    EXPECT_STRNE(error, "") << text;
    return std::nullopt;
}

std::string region_refusal(const std::string &text)
{
    ViommuRegion untouched{1, 2, 3};
    Sentence error = "";
    EXPECT_FALSE(viommu_region_parse(text.c_str(), &untouched, error, sizeof(error))) << text;
    EXPECT_EQ(untouched.start, 1u);
    EXPECT_EQ(untouched.last, 2u);
    EXPECT_EQ(untouched.subtype, 3u);
    return error;
}

std::string layout_refusal(const std::string &text)
{
    ViommuArrayLayout untouched = VIOMMU_ARRAY_V2;
    Sentence error = "";
    EXPECT_FALSE(viommu_array_layout_parse(text.c_str(), &untouched, error, sizeof(error))) << text;
    EXPECT_EQ(untouched, VIOMMU_ARRAY_V2);
    return error;
}

std::string form_refusal(const std::string &text)
{
    return "reserved-regions: '" + text +
           "' is not of the form START:LAST:TYPE with hexadecimal addresses and a decimal type";
}

using Names = std::vector<std::string>;

Names split(std::string text)
{
    Sentence error = "";
    const std::string before = text;
    const size_t count = viommu_root_bus_split(text.data(), nullptr, 0, error, sizeof(error));
    EXPECT_EQ(text, before);
    std::vector<const char *> names(count);
    EXPECT_EQ(viommu_root_bus_split(text.data(), names.data(), count, error, sizeof(error)), count);
    EXPECT_STREQ(error, "");
    return {names.begin(), names.end()};
}

std::string split_refusal(std::string text)
{
    Sentence error = "";
    const std::string before = text;
    std::vector<const char *> names(8);
    EXPECT_EQ(viommu_root_bus_split(text.data(), names.data(), names.size(), error, sizeof(error)),
              0u);
    EXPECT_EQ(text, before);
    EXPECT_EQ(names, std::vector<const char *>(8));
    return error;
}

void expect_region(const std::string &text, uint64_t start, uint64_t last, uint8_t subtype)
{
    const std::optional<ViommuRegion> parsed = region(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_EQ(parsed->start, start) << text;
    EXPECT_EQ(parsed->last, last) << text;
    EXPECT_EQ(parsed->subtype, subtype) << text;
}

TEST(ReservedRegion, W15_WhatIsWrittenForQemusOwnDevice)
{
    expect_region("0xfee00000:0xfeefffff:1", 0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI);
    expect_region("0xFEE00000:0xFEEFFFFF:0", 0xfee00000, 0xfeefffff, VIOMMU_RESV_RESERVED);
    expect_region("0XaBcDe:0XfEdCbA:0", 0xabcde, 0xfedcba, VIOMMU_RESV_RESERVED);
    expect_region("fee00000:feefffff:1", 0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI);
    expect_region("10:1f:0", 0x10, 0x1f, VIOMMU_RESV_RESERVED);
    expect_region("0:0:0", 0, 0, VIOMMU_RESV_RESERVED);
    expect_region("0x0:0xffffffffffffffff:0", 0, kTop, VIOMMU_RESV_RESERVED);
    expect_region("ffffffffffffffff:ffffffffffffffff:1", kTop, kTop, VIOMMU_RESV_MSI);
    expect_region("0x00000000000000000000001000:00000000000000000000001fff:001", 0x1000, 0x1fff,
                  VIOMMU_RESV_MSI);
}

TEST(ReservedRegion, W15_BlanksAndSignsAreRefused)
{
    const std::vector<std::string> texts{
        " 0x1000:0x1fff:0", "0x1000 :0x1fff:0", "0x1000: 0x1fff:0", "0x1000:0x1fff :0",
        "0x1000:0x1fff: 0", "0x1000:0x1fff:0 ", "0x 1000:0x1fff:0", "+0x1000:0x1fff:0",
        "0x1000:+1fff:0",   "0x1000:0x1fff:+0", "-0x1000:0x1fff:0", "0x1000:-1:0",
        "0x1000:-0x1:0",    "0x1000:0x1fff:-0", "0x-1000:0x1fff:0", "-0:0x1fff:0",
        "0:-0:0",           "0x1000:0x1fff:-1", "0x+1000:0x1fff:0",
    };
    for (const std::string &text : texts) {
        EXPECT_EQ(region_refusal(text), form_refusal(text));
    }
    EXPECT_EQ(region_refusal("\t0:1:0"), form_refusal("?0:1:0"));
    EXPECT_EQ(region_refusal("0:1:0\n"), form_refusal("0:1:0?"));
}

TEST(ReservedRegion, W15_NumbersThatAreTooLargeAreRefused)
{
    for (const std::string text :
         {"0x10000000000000000:0xffffffffffffffff:0", "0:0x10000000000000000:0",
          "0:100000000000000000000000000000000:0", "0:1:4294967296", "0:1:18446744073709551616",
          "0:1:18446744073709551617"}) {
        EXPECT_EQ(region_refusal(text), form_refusal(text));
    }
}

TEST(ReservedRegion, W15_OtherFormsAreRefused)
{
    for (const std::string text : {"",
                                   ":",
                                   "::",
                                   ":::",
                                   "banana",
                                   "0x1000",
                                   "0x1000:0x1fff",
                                   "0x1000:0x1fff:",
                                   ":0x1fff:0",
                                   "0x1000::0",
                                   "0x1000:0x1fff:0:0",
                                   "0x1000:0x1fff:0:",
                                   ":0x1000:0x1fff:0",
                                   "0x1000-0x1fff:0",
                                   "0x:0x1fff:0",
                                   "0:0x:0",
                                   "0x0x1000:0x1fff:0",
                                   "x1000:0x1fff:0",
                                   "0xg:0x1fff:0",
                                   "0x1000h:0x1fff:0",
                                   "0x1000:0x1fff:0x0",
                                   "0x1000:0x1fff:a",
                                   "0x1000:0x1fff:1a",
                                   "1.0:0x1fff:0",
                                   "0x1000,0x1fff,0",
                                   "0x1000:0x1fff:msi"}) {
        EXPECT_EQ(region_refusal(text), form_refusal(text));
    }
}

TEST(ReservedRegion, W15_AnEndBeforeTheStartIsRefused)
{
    EXPECT_EQ(region_refusal("0x2000:0x1fff:0"),
              "reserved-regions: '0x2000:0x1fff:0' ends before it starts");
    EXPECT_EQ(region_refusal("0xffffffffffffffff:0:7"),
              "reserved-regions: '0xffffffffffffffff:0:7' ends before it starts");
}

TEST(ReservedRegion, W15_OtherTypesAreRefused)
{
    EXPECT_EQ(region_refusal("0:1:2"),
              "reserved-regions: type 2 of '0:1:2' is neither 0 (reserved) nor 1 (MSI)");
    // Their low bytes are those of a type that there is.
    EXPECT_EQ(region_refusal("0:1:256"),
              "reserved-regions: type 256 of '0:1:256' is neither 0 (reserved) nor 1 (MSI)");
    EXPECT_EQ(region_refusal("0:1:4294967295"), "reserved-regions: type 4294967295 of "
                                                "'0:1:4294967295' is neither 0 (reserved) nor 1 "
                                                "(MSI)");
}

TEST(ArrayLayout, W28_OneOfThree)
{
    for (const auto &[name, layout] :
         {std::pair("off", VIOMMU_ARRAY_OFF), std::pair("v2", VIOMMU_ARRAY_V2),
          std::pair("v3", VIOMMU_ARRAY_V3)}) {
        ViommuArrayLayout parsed = layout == VIOMMU_ARRAY_V2 ? VIOMMU_ARRAY_V3 : VIOMMU_ARRAY_V2;
        Sentence error = "";
        EXPECT_TRUE(viommu_array_layout_parse(name, &parsed, error, sizeof(error)));
        EXPECT_EQ(parsed, layout);
        EXPECT_STREQ(error, "");
        EXPECT_STREQ(viommu_array_layout_name(layout), name);
    }
    EXPECT_EQ(viommu_array_layout_name(static_cast<ViommuArrayLayout>(1)), nullptr);
}

TEST(ArrayLayout, W28_AnythingElseIsRefused)
{
    for (const std::string text :
         {"", "v1", "v", "v22", "V2", "Off", "of", "offf", "2", " v2", "v2 ", "on", "v2:v3"}) {
        EXPECT_EQ(layout_refusal(text), "topology: '" + text + "' is neither off, v2 nor v3");
    }
}

TEST(RootBus, MOD_7_NamesBetweenColons)
{
    EXPECT_EQ(split("pcie.0"), Names{"pcie.0"});
    EXPECT_EQ(split("pcie.0:pxb1:main-system-bus"), (Names{"pcie.0", "pxb1", "main-system-bus"}));
    EXPECT_EQ(split("a:a"), (Names{"a", "a"}));
    // Whether there is such a bus is not asked here.
    EXPECT_EQ(split(" a , b:c"), (Names{" a , b", "c"}));
}

TEST(RootBus, MOD_7_EmptyNamesAreRefused)
{
    EXPECT_EQ(split_refusal(""), "root-bus: the name is empty");
    for (const std::string text : {":", "::", "a:", ":a", "a::b", "a:b:", ":a:b"}) {
        EXPECT_EQ(split_refusal(text), "root-bus: '" + text + "' contains an empty name");
    }
}

TEST(RootBus, MOD_7_TooLittleRoomChangesNothing)
{
    std::string text = "a:b:c";
    std::vector<const char *> names(4);
    EXPECT_EQ(viommu_root_bus_split(text.data(), names.data(), 2, nullptr, 0), 3u);
    EXPECT_EQ(text, "a:b:c");
    EXPECT_EQ(names, std::vector<const char *>(4));
    EXPECT_EQ(viommu_root_bus_split(text.data(), names.data(), 4, nullptr, 0), 3u);
    EXPECT_EQ(names[3], nullptr);
}

struct Entry {
    std::string name;
    bool has_address = false;
    unsigned first = 0, last = 0;

    bool operator==(const Entry &) const = default;
};

using Entries = std::vector<Entry>;

Entries leave_out(const std::string &value)
{
    std::string text = value;
    Sentence error = "";
    const size_t count = viommu_leave_out_split(text.data(), nullptr, 0, error, sizeof(error));
    EXPECT_STREQ(error, "") << value;
    EXPECT_EQ(text, value);
    std::vector<ViommuLeaveOut> found(count);
    EXPECT_EQ(viommu_leave_out_split(text.data(), found.data(), found.size(), error, sizeof(error)),
              count);
    Entries entries;
    for (const ViommuLeaveOut &entry : found) {
        entries.push_back({entry.name, entry.has_address, entry.first_devfn, entry.last_devfn});
    }
    return entries;
}

std::string leave_out_refusal(const std::string &value)
{
    std::string text = value;
    ViommuLeaveOut untouched[4] = {};
    Sentence error = "";
    EXPECT_EQ(viommu_leave_out_split(text.data(), untouched, 4, error, sizeof(error)), 0u) << value;
    EXPECT_EQ(text, value);
    EXPECT_EQ(untouched[0].name, nullptr);
    return error;
}

TEST(LeaveOut, MOD_15_NamesAndAddressesBetweenColons)
{
    EXPECT_EQ(leave_out("disk0"), (Entries{{"disk0"}}));
    EXPECT_EQ(leave_out("pcie.0:Nic_1-a"), (Entries{{"pcie.0"}, {"Nic_1-a"}}));
    EXPECT_EQ(leave_out("pcie.0/3.0"), (Entries{{"pcie.0", true, 0x18, 0x18}}));
    EXPECT_EQ(leave_out("pcie.0/3"), (Entries{{"pcie.0", true, 0x18, 0x1f}}));
    EXPECT_EQ(leave_out("pcie.0/0x03.00:x:y/0:z/1F.7:z/0X1f"),
              (Entries{{"pcie.0", true, 0x18, 0x18},
                       {"x"},
                       {"y", true, 0, 7},
                       {"z", true, 0xff, 0xff},
                       {"z", true, 0xf8, 0xff}}));
    // Whether there is such a thing, or twice, is not asked here.
    EXPECT_EQ(leave_out("a:a"), (Entries{{"a"}, {"a"}}));
}

TEST(LeaveOut, MOD_15_OtherFormsAreRefused)
{
    EXPECT_EQ(leave_out_refusal(""), "leave-out: the list is empty");
    for (const std::string text : {":", "::", "a:", ":a", "a::b", "a/1.0:b:", ":a:b"}) {
        EXPECT_EQ(leave_out_refusal(text), "leave-out: '" + text + "' contains an empty entry");
    }
    for (const std::string text :
         {"0",         "03.0",   "1a",      "_a",     "-a",      ".a",
          " a",        "a ",     "a b",     "a,b",    "a;b",     "a/",
          "/",         "/3",     "/3.0",    "a/3.",   "a/.0",    "a/.",
          "a/3.8",     "a/3.-1", "a/3.+1",  "a/20",   "a/100",   "a/g",
          "a/-1",      "a/+1",   "a/3 ",    "a/ 3",   "a/3.0.0", "a/3/0",
          "a/0x",      "a/x3",   "a/3.0x1", "a/1f.9", "a/3.256", "a/ffffffffffffffff0",
          "a\xc3\xa4", "a\n"}) {
        std::string shown = text;
        std::replace(shown.begin(), shown.end(), '\n', '?');
        EXPECT_EQ(leave_out_refusal(text),
                  "leave-out: '" + shown +
                      "' is neither a name nor ROOT-BUS/SLOT[.FUNCTION] with a hexadecimal slot");
        EXPECT_EQ(leave_out_refusal("good:" + text + ":bad/"),
                  "leave-out: '" + shown +
                      "' is neither a name nor ROOT-BUS/SLOT[.FUNCTION] with a hexadecimal slot");
    }
}

TEST(LeaveOut, MOD_15_TooLittleRoomChangesNothing)
{
    std::string text = "a:b/1:c";
    ViommuLeaveOut entries[4] = {};
    EXPECT_EQ(viommu_leave_out_split(text.data(), entries, 2, nullptr, 0), 3u);
    EXPECT_EQ(text, "a:b/1:c");
    EXPECT_EQ(entries[0].name, nullptr);
    EXPECT_EQ(viommu_leave_out_split(text.data(), entries, 3, nullptr, 0), 3u);
    EXPECT_STREQ(entries[2].name, "c");
    EXPECT_EQ(entries[3].name, nullptr);
}

TEST(Properties, W28_AnyLengthIsTakenAndShownInShort)
{
    const std::string zeros(1 << 20, '0');
    expect_region("0x" + zeros + "1:" + zeros + "2:" + zeros + "1", 1, 2, VIOMMU_RESV_MSI);

    const std::string shown = std::string(128, 'f') + "...";
    const std::string digits(1 << 20, 'f');
    EXPECT_EQ(region_refusal(digits + ":0:0"), form_refusal(shown));
    EXPECT_EQ(layout_refusal(digits), "topology: '" + shown + "' is neither off, v2 nor v3");
    EXPECT_EQ(split_refusal(digits + ":"), "root-bus: '" + shown + "' contains an empty name");
    EXPECT_EQ(leave_out_refusal(digits + ":"),
              "leave-out: '" + shown + "' contains an empty entry");
    EXPECT_EQ(leave_out_refusal(digits + "/"),
              "leave-out: '" + shown +
                  "' is neither a name nor ROOT-BUS/SLOT[.FUNCTION] with a hexadecimal slot");
    EXPECT_EQ(region_refusal(std::string(128, 'f')), form_refusal(std::string(128, 'f')));
    EXPECT_EQ(region_refusal(std::string(129, 'f')), form_refusal(shown));

    std::string names = "a";
    for (int i = 1; i < 100000; i++) {
        names += ":a";
    }
    EXPECT_EQ(split(names), Names(100000, "a"));
}

TEST(Properties, W28_ASentenceIsOnOneLine)
{
    EXPECT_EQ(region_refusal("a\nb\r\x1b\x7f\x01"), form_refusal("a?b????"));
    EXPECT_EQ(layout_refusal("v2\n"), "topology: 'v2?' is neither off, v2 nor v3");
    EXPECT_EQ(split_refusal("\n:"), "root-bus: '?:' contains an empty name");
    EXPECT_EQ(region_refusal("\xc3\xa4"), form_refusal("\xc3\xa4"));
}

// Each refusal of the three parsers, told to a buffer.
struct Refusal {
    std::string sentence;
    void (*tell)(char *error, size_t size);
};

const std::vector<Refusal> &refusals()
{
    static const std::vector<Refusal> all{
        {form_refusal("0"),
         [](char *error, size_t size) {
             ViommuRegion parsed{};
             EXPECT_FALSE(viommu_region_parse("0", &parsed, error, size));
         }},
        {"reserved-regions: '1:0:0' ends before it starts",
         [](char *error, size_t size) {
             ViommuRegion parsed{};
             EXPECT_FALSE(viommu_region_parse("1:0:0", &parsed, error, size));
         }},
        {"reserved-regions: type 2 of '0:0:2' is neither 0 (reserved) nor 1 (MSI)",
         [](char *error, size_t size) {
             ViommuRegion parsed{};
             EXPECT_FALSE(viommu_region_parse("0:0:2", &parsed, error, size));
         }},
        {"topology: 'v1' is neither off, v2 nor v3",
         [](char *error, size_t size) {
             ViommuArrayLayout parsed = VIOMMU_ARRAY_OFF;
             EXPECT_FALSE(viommu_array_layout_parse("v1", &parsed, error, size));
         }},
        {"root-bus: the name is empty",
         [](char *error, size_t size) {
             char text[] = "";
             EXPECT_EQ(viommu_root_bus_split(text, nullptr, 0, error, size), 0u);
         }},
        {"root-bus: 'a:' contains an empty name",
         [](char *error, size_t size) {
             char text[] = "a:";
             EXPECT_EQ(viommu_root_bus_split(text, nullptr, 0, error, size), 0u);
         }},
    };
    return all;
}

TEST(Properties, W28_SentencesEndWhereTheRoomDoes)
{
    for (const Refusal &refusal : refusals()) {
        refusal.tell(nullptr, 0);
        refusal.tell(nullptr, 256);
        for (size_t room = 0; room <= 256; room++) {
            std::string buffer(300, '#');
            refusal.tell(buffer.data(), room);
            std::string expected(300, '#');
            if (room != 0) {
                const std::string told = refusal.sentence.substr(0, room - 1);
                expected.replace(0, told.size() + 1, told + '\0');
            }
            ASSERT_EQ(buffer, expected) << room;
        }
    }
}

} // namespace

} // namespace viommu::test
