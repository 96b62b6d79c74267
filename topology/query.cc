// SPDX-License-Identifier: GPL-2.0-or-later
//
// What users ask a running device: the name of a view, then KEY=NUMBER for its arguments.
#include "shown.h"

#include "base/error.h"

#include <viommu/inspect.h>

#include <cstdio>
#include <string>

namespace viommu::topology
{

namespace
{

constexpr unsigned bit(unsigned key)
{
    return 1u << key;
}

enum Key : unsigned { kDomain, kEndpoint, kAddress, kFrom, kCount, kKeys };

constexpr std::array<std::string_view, kKeys> kKeyNames{"domain", "endpoint", "address", "from",
                                                        "count"};

struct View {
    ViommuViewKind kind;
    std::string_view name;
    unsigned allowed; // bit(Key)
    unsigned needed;
    uint64_t from_last;
    uint32_t count_max;
};

constexpr std::array<View, 4> kViews{{
    {VIOMMU_VIEW_ENDPOINTS, "endpoints", bit(kFrom) | bit(kCount), 0, UINT32_MAX,
     VIOMMU_ENDPOINT_PAGE_MAX},
    {VIOMMU_VIEW_DOMAINS, "domains", bit(kFrom) | bit(kCount), 0, UINT32_MAX, VIOMMU_PAGE_MAX},
    {VIOMMU_VIEW_MAPPINGS, "mappings", bit(kDomain) | bit(kFrom) | bit(kCount), bit(kDomain),
     UINT64_MAX, VIOMMU_PAGE_MAX},
    {VIOMMU_VIEW_TRANSLATE, "translate", bit(kEndpoint) | bit(kAddress),
     bit(kEndpoint) | bit(kAddress), 0, 0},
}};

bool parse_value(std::string_view text, uint64_t &value)
{
    if (text.starts_with("0x") || text.starts_with("0X")) {
        return parse_number(text.substr(2), 16, value);
    }
    return parse_number(text, 10, value);
}

// The part before the next blank; `rest` is what is behind it.
std::string_view next_word(std::string_view &rest)
{
    const size_t blank = rest.find(' ');
    const std::string_view word = rest.substr(0, blank);
    rest = blank == std::string_view::npos ? std::string_view() : rest.substr(blank + 1);
    return word;
}

[[noreturn]] void refuse(const std::string &what)
{
    throw Refusal("inspect: " + what);
}

std::string quoted(std::string_view text)
{
    return std::string("'") + Shown(text).text() + "'";
}

ViommuQuery parse_query(std::string_view text)
{
    ViommuQuery query{};
    if (text.empty()) {
        return query;
    }
    if (text.size() >= VIOMMU_QUERY_SIZE) {
        refuse(quoted(text) + " is longer than any question");
    }
    std::string_view rest = text;
    const std::string_view name = next_word(rest);
    const auto *const view = std::find_if(kViews.begin(), kViews.end(),
                                          [name](const View &v) { return v.name == name; });
    if (view == kViews.end()) {
        refuse(quoted(name) + " is neither endpoints, domains, mappings nor translate");
    }
    query.view = view->kind;
    query.count = view->count_max;

    unsigned given = 0;
    while (rest.data()) {
        const std::string_view word = next_word(rest);
        const size_t equals = word.find('=');
        const auto *const key_name =
            std::find(kKeyNames.begin(), kKeyNames.end(), word.substr(0, equals));
        const auto key = static_cast<unsigned>(key_name - kKeyNames.begin());
        if (key == kKeys || (view->allowed & bit(key)) == 0 || equals == std::string_view::npos) {
            refuse(quoted(word) + " is no argument of " + std::string(view->name));
        }
        if ((given & bit(key)) != 0) {
            refuse(std::string(*key_name) + " is given twice");
        }
        given |= bit(key);
        uint64_t value = 0;
        uint64_t first = 0;
        uint64_t last = UINT64_MAX;
        if (key == kDomain || key == kEndpoint) {
            last = UINT32_MAX;
        } else if (key == kFrom) {
            last = view->from_last;
        } else if (key == kCount) {
            first = 1;
            last = view->count_max;
        }
        if (!parse_value(word.substr(equals + 1), value) || value < first || value > last) {
            refuse(quoted(word) + " is no number from " + std::to_string(first) + " to " +
                   std::to_string(last));
        }
        switch (key) {
        case kDomain:
            query.domain = static_cast<uint32_t>(value);
            break;
        case kEndpoint:
            query.endpoint = static_cast<uint32_t>(value);
            break;
        case kAddress:
            query.address = value;
            break;
        case kFrom:
            query.from = value;
            break;
        default:
            query.count = static_cast<uint32_t>(value);
            break;
        }
    }
    for (unsigned key = 0; key < kKeys; key++) {
        if ((view->needed & ~given & bit(key)) != 0) {
            refuse(std::string(view->name) + " needs " + std::string(kKeyNames[key]) + "=");
        }
    }
    return query;
}

} // namespace

} // namespace viommu::topology

bool viommu_query_parse(const char *text, ViommuQuery *query, char *error,
                        size_t error_size) noexcept
{
    return viommu::at_boundary(error, error_size, false, [&] {
        *query = viommu::topology::parse_query(text);
        return true;
    });
}
