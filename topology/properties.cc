// SPDX-License-Identifier: GPL-2.0-or-later
//
// What users write into the properties that QEMU has no type for.  The work is
// linear in the length of the text, and nothing is allocated.
#include "shown.h"

#include "base/error.h"

#include <viommu/properties.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string_view>

namespace viommu::topology
{

namespace
{

bool parse_address(std::string_view text, uint64_t &address)
{
    if (text.starts_with("0x") || text.starts_with("0X")) {
        text.remove_prefix(2);
    }
    return parse_number(text, 16, address);
}

struct RegionFields {
    uint64_t start;
    uint64_t last;
    uint32_t type;
};

bool parse_fields(std::string_view text, RegionFields &fields)
{
    const size_t first = text.find(':');
    if (first == std::string_view::npos) {
        return false;
    }
    const size_t second = text.find(':', first + 1);
    if (second == std::string_view::npos) {
        return false;
    }
    return parse_address(text.substr(0, first), fields.start) &&
           parse_address(text.substr(first + 1, second - first - 1), fields.last) &&
           parse_number(text.substr(second + 1), 10, fields.type);
}

struct LayoutName {
    ViommuArrayLayout layout;
    const char *name;
};

constexpr std::array<LayoutName, 3> kLayoutNames{{
    {VIOMMU_ARRAY_OFF, "off"},
    {VIOMMU_ARRAY_V2, "v2"},
    {VIOMMU_ARRAY_V3, "v3"},
}};

} // namespace

} // namespace viommu::topology

bool viommu_region_parse(const char *text, ViommuRegion *region, char *error,
                         size_t error_size) noexcept
{
    using namespace viommu::topology;
    using viommu::copy_sentence;
    RegionFields fields{};
    Sentence sentence;
    // Elements of an array have no name, so the sentences give the value.
    if (!parse_fields(text, fields)) {
        std::snprintf(sentence.data(), sentence.size(),
                      "reserved-regions: '%s' is not of the form START:LAST:TYPE with hexadecimal "
                      "addresses and a decimal type",
                      Shown(text).text());
    } else if (fields.start > fields.last) {
        std::snprintf(sentence.data(), sentence.size(),
                      "reserved-regions: '%s' ends before it starts", Shown(text).text());
    } else if (fields.type != VIOMMU_RESV_RESERVED && fields.type != VIOMMU_RESV_MSI) {
        std::snprintf(sentence.data(), sentence.size(),
                      "reserved-regions: type %u of '%s' is neither 0 (reserved) nor 1 (MSI)",
                      static_cast<unsigned>(fields.type), Shown(text).text());
    } else {
        *region = {fields.start, fields.last, static_cast<uint8_t>(fields.type)};
        return true;
    }
    copy_sentence(sentence.data(), error, error_size);
    return false;
}

bool viommu_array_layout_parse(const char *text, ViommuArrayLayout *layout, char *error,
                               size_t error_size) noexcept
{
    using namespace viommu::topology;
    using viommu::copy_sentence;
    const std::string_view wanted = text;
    for (const LayoutName &entry : kLayoutNames) {
        if (wanted == entry.name) {
            *layout = entry.layout;
            return true;
        }
    }
    Sentence sentence;
    std::snprintf(sentence.data(), sentence.size(), "topology: '%s' is neither off, v2 nor v3",
                  Shown(wanted).text());
    copy_sentence(sentence.data(), error, error_size);
    return false;
}

const char *viommu_array_layout_name(ViommuArrayLayout layout) noexcept
{
    for (const viommu::topology::LayoutName &entry : viommu::topology::kLayoutNames) {
        if (layout == entry.layout) {
            return entry.name;
        }
    }
    return nullptr;
}

size_t viommu_root_bus_split(char *text, const char **names, size_t cap, char *error,
                             size_t error_size) noexcept
{
    using namespace viommu::topology;
    using viommu::copy_sentence;
    const std::string_view all = text;
    if (all.empty()) {
        copy_sentence("root-bus: the name is empty", error, error_size);
        return 0;
    }
    if (all.front() == ':' || all.back() == ':' || all.find("::") != std::string_view::npos) {
        Sentence sentence;
        std::snprintf(sentence.data(), sentence.size(), "root-bus: '%s' contains an empty name",
                      Shown(all).text());
        copy_sentence(sentence.data(), error, error_size);
        return 0;
    }
    const auto colons = static_cast<size_t>(std::count(all.begin(), all.end(), ':'));
    if (cap <= colons) {
        return colons + 1;
    }
    *names++ = text;
    for (char *c = text; *c != '\0'; c++) {
        if (*c == ':') {
            *c = '\0';
            *names++ = c + 1;
        }
    }
    return colons + 1;
}
