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

// Of a list that is not empty.
bool has_empty_element(std::string_view list)
{
    return list.front() == ':' || list.back() == ':' || list.find("::") != std::string_view::npos;
}

bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// What QEMU allows as an id, and calls its root buses.
bool is_name(std::string_view text)
{
    return !text.empty() && is_letter(text.front()) && std::ranges::all_of(text, [](char c) {
        return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
    });
}

// NAME or NAME/SLOT[.FUNCTION]; the entry's name points into `text` and has no end yet.
bool parse_leave_out(std::string_view text, ViommuLeaveOut &entry)
{
    const size_t slash = text.find('/');
    entry = {text.data(), slash != std::string_view::npos, 0, 0};
    if (!is_name(text.substr(0, slash))) {
        return false;
    }
    if (!entry.has_address) {
        return true;
    }
    const std::string_view address = text.substr(slash + 1);
    const size_t dot = address.find('.');
    uint64_t slot = 0;
    if (!parse_address(address.substr(0, dot), slot) || slot > 0x1f) {
        return false;
    }
    entry.first_devfn = static_cast<uint8_t>(slot << 3);
    entry.last_devfn = entry.first_devfn | 7;
    if (dot != std::string_view::npos) {
        uint8_t function = 0;
        if (!parse_number(address.substr(dot + 1), 10, function) || function > 7) {
            return false;
        }
        entry.first_devfn |= function;
        entry.last_devfn = entry.first_devfn;
    }
    return true;
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
    if (has_empty_element(all)) {
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

size_t viommu_leave_out_split(char *text, ViommuLeaveOut *entries, size_t cap, char *error,
                              size_t error_size) noexcept
{
    using namespace viommu::topology;
    using viommu::copy_sentence;
    const std::string_view all = text;
    if (all.empty()) {
        copy_sentence("leave-out: the list is empty", error, error_size);
        return 0;
    }
    Sentence sentence;
    if (has_empty_element(all)) {
        std::snprintf(sentence.data(), sentence.size(), "leave-out: '%s' contains an empty entry",
                      Shown(all).text());
        copy_sentence(sentence.data(), error, error_size);
        return 0;
    }
    size_t count = 0;
    for (size_t at = 0, end; at < all.size(); at = end + 1, count++) {
        end = std::min(all.find(':', at), all.size());
        ViommuLeaveOut entry;
        if (!parse_leave_out(all.substr(at, end - at), entry)) {
            std::snprintf(sentence.data(), sentence.size(),
                          "leave-out: '%s' is neither a name nor ROOT-BUS/SLOT[.FUNCTION] with a "
                          "hexadecimal slot",
                          Shown(all.substr(at, end - at)).text());
            copy_sentence(sentence.data(), error, error_size);
            return 0;
        }
    }
    if (cap < count) {
        return count;
    }
    for (size_t at = 0, end; at < all.size(); at = end + 1) {
        end = std::min(all.find(':', at), all.size());
        parse_leave_out(all.substr(at, end - at), *entries++);
        // What ends the name, and then the entry.
        text[at + std::min(all.substr(at, end - at).find('/'), end - at)] = '\0';
        text[end] = '\0';
    }
    return count;
}

bool viommu_leave_out_names(const ViommuLeaveOut *entries, size_t count,
                            const ViommuFunctionDesc *function) noexcept
{
    const std::string_view bus = function->root_bus;
    return std::any_of(entries, entries + count, [&](const ViommuLeaveOut &entry) {
        const bool of_bus = bus == entry.name;
        if (entry.has_address) {
            return of_bus && function->on_root_bus && entry.first_devfn <= function->devfn &&
                   function->devfn <= entry.last_devfn;
        }
        return of_bus || (function->on_root_bus && function->id != nullptr &&
                          std::string_view(function->id) == entry.name);
    });
}
