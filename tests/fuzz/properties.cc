// SPDX-License-Identifier: GPL-2.0-or-later
//
// Any text as the value of `reserved-regions`, `topology`, `root-bus` and `leave-out`,
// beside a reading that takes it apart into strings and looks at each digit.  A sentence
// is compared up to where the caller's room ends.  What is between commas are
// elements of `reserved-regions`; those that are right are collected with the
// machine's region, and the result is asked for every address where something
// could change.
//
//   room for a sentence, room for names and regions, machine's region (1 each),
//   the text
#include "check.h"
#include "input.h"

#include <viommu/viommu.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

namespace
{

using viommu::fuzz::Input;

constexpr size_t kRegionsMax = 8;
constexpr ViommuRegion kUntouched{7, 7, 7};

/* The rules, once more */

using Fields = std::vector<std::string>;

// There is always at least one field.
Fields split(const std::string &text, char separator)
{
    Fields fields(1);
    for (const char c : text) {
        if (c == separator) {
            fields.emplace_back();
        } else {
            fields.back() += c;
        }
    }
    return fields;
}

std::optional<uint64_t> number(const std::string &digits, unsigned base, uint64_t max)
{
    uint64_t value = 0;
    for (const char c : digits) {
        const auto *const small = "0123456789abcdef";
        const auto *const large = "0123456789ABCDEF";
        unsigned digit = 0;
        while (digit < base && small[digit] != c && large[digit] != c) {
            digit++;
        }
        if (digit == base || value > (max - digit) / base) {
            return std::nullopt;
        }
        value = value * base + digit;
    }
    return digits.empty() ? std::nullopt : std::optional(value);
}

std::optional<uint64_t> address(const std::string &text)
{
    const bool prefixed = text.size() >= 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    return number(prefixed ? text.substr(2) : text, 16, UINT64_MAX);
}

std::string shown(const std::string &text)
{
    std::string result;
    for (const char c : text) {
        if (result.size() == 128) {
            return result + "...";
        }
        result += (c >= 1 && c <= 31) || c == 127 ? '?' : c;
    }
    return result;
}

struct RegionRead {
    std::string refusal; // empty: `region` is right
    ViommuRegion region;
};

RegionRead read_region(const std::string &text)
{
    const std::string quoted = "'" + shown(text) + "'";
    const Fields fields = split(text, ':');
    const auto start = address(fields[0]);
    const auto last = address(fields.size() == 3 ? fields[1] : "");
    const auto type = number(fields.size() == 3 ? fields[2] : "", 10, UINT32_MAX);
    if (!start || !last || !type) {
        return {"reserved-regions: " + quoted +
                    " is not of the form START:LAST:TYPE with hexadecimal addresses and a decimal "
                    "type",
                kUntouched};
    }
    if (*last < *start) {
        return {"reserved-regions: " + quoted + " ends before it starts", kUntouched};
    }
    if (*type > 1) {
        return {"reserved-regions: type " + std::to_string(*type) + " of " + quoted +
                    " is neither 0 (reserved) nor 1 (MSI)",
                kUntouched};
    }
    return {"", {*start, *last, static_cast<uint8_t>(*type)}};
}

/* Beside the parsers */

// Of exactly the size that is told, so that a sanitizer sees its end.
class Room
{
public:
    explicit Room(size_t size) : text_(size, '#') {}

    char *data() { return text_.empty() ? nullptr : text_.data(); }
    size_t size() const { return text_.size(); }

    // An empty sentence: nothing was written.
    void check(const std::string &sentence) const
    {
        std::string expected(text_.size(), '#');
        if (!sentence.empty() && !text_.empty()) {
            const std::string told = sentence.substr(0, text_.size() - 1);
            std::copy(told.begin(), told.end(), expected.begin());
            expected[told.size()] = '\0';
        }
        FUZZ_CHECK(std::equal(text_.begin(), text_.end(), expected.begin()));
        FUZZ_CHECK(sentence.size() < 256);
    }

private:
    std::vector<char> text_;
};

// A copy that ends where the allocation does.
std::vector<char> c_string(const std::string &text)
{
    std::vector<char> bytes(text.begin(), text.end());
    bytes.push_back('\0');
    bytes.shrink_to_fit();
    return bytes;
}

bool same(const ViommuRegion &a, const ViommuRegion &b)
{
    return a.start == b.start && a.last == b.last && a.subtype == b.subtype;
}

void check_region(const std::string &text, size_t room)
{
    const RegionRead expected = read_region(text);
    ViommuRegion region = kUntouched;
    Room sentence(room);
    FUZZ_CHECK_EQ(
        viommu_region_parse(c_string(text).data(), &region, sentence.data(), sentence.size()),
        expected.refusal.empty());
    FUZZ_CHECK(same(region, expected.region));
    sentence.check(expected.refusal);
}

void check_layout(const std::string &text, size_t room)
{
    const std::array<const char *, 4> names{"off", nullptr, "v2", "v3"};
    size_t number = 0;
    while (number < names.size() && (!names[number] || text != names[number])) {
        number++;
    }
    const bool known = number < names.size();
    ViommuArrayLayout layout = VIOMMU_ARRAY_V2;
    Room sentence(room);
    FUZZ_CHECK_EQ(
        viommu_array_layout_parse(c_string(text).data(), &layout, sentence.data(), sentence.size()),
        known);
    FUZZ_CHECK_EQ(layout, known ? number : size_t{VIOMMU_ARRAY_V2});
    FUZZ_CHECK(!known || text == viommu_array_layout_name(layout));
    sentence.check(known ? "" : "topology: '" + shown(text) + "' is neither off, v2 nor v3");
}

void check_root_bus(const std::string &text, size_t room, size_t cap)
{
    const Fields expected = split(text, ':');
    std::string refusal;
    if (text.empty()) {
        refusal = "root-bus: the name is empty";
    } else if (std::find(expected.begin(), expected.end(), "") != expected.end()) {
        refusal = "root-bus: '" + shown(text) + "' contains an empty name";
    }

    const std::vector<char> before = c_string(text);
    std::vector<char> bytes = before;
    std::vector<const char *> names(cap);
    Room sentence(room);
    const size_t count =
        viommu_root_bus_split(bytes.data(), names.data(), cap, sentence.data(), sentence.size());
    FUZZ_CHECK_EQ(count, refusal.empty() ? expected.size() : 0);
    sentence.check(refusal);
    const size_t written = count <= cap ? count : 0;
    if (written == 0) {
        FUZZ_CHECK(bytes == before);
    }
    const char *at = bytes.data();
    for (size_t i = 0; i < cap; i++) {
        if (i >= written) {
            FUZZ_CHECK(names[i] == nullptr);
            continue;
        }
        FUZZ_CHECK(names[i] == at);
        FUZZ_CHECK(expected[i] == at);
        at += expected[i].size() + 1;
    }
}

struct EntryRead {
    bool right;
    std::string name;
    bool has_address;
    unsigned first, last;
};

EntryRead read_entry(const std::string &text)
{
    const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const std::string others = "0123456789-._";
    const Fields halves = split(text, '/');
    const std::string &name = halves[0];
    EntryRead entry{false, name, halves.size() > 1, 0, 0};
    if (name.empty() || letters.find(name[0]) == std::string::npos ||
        name.find_first_not_of(letters + others) != std::string::npos || halves.size() > 2) {
        return entry;
    }
    if (entry.has_address) {
        const Fields numbers = split(halves[1], '.');
        const auto slot = address(numbers[0]);
        const auto function = number(numbers.size() > 1 ? numbers[1] : "0", 10, UINT8_MAX);
        if (numbers.size() > 2 || !slot || *slot > 31 || !function || *function > 7) {
            return entry;
        }
        entry.first = static_cast<unsigned>(*slot * 8 + *function);
        entry.last = numbers.size() > 1 ? entry.first : entry.first + 7;
    }
    entry.right = true;
    return entry;
}

void check_leave_out(const std::string &text, size_t room, size_t cap)
{
    std::string refusal;
    std::vector<EntryRead> expected;
    const Fields fields = split(text, ':');
    if (text.empty()) {
        refusal = "leave-out: the list is empty";
    } else if (std::find(fields.begin(), fields.end(), "") != fields.end()) {
        refusal = "leave-out: '" + shown(text) + "' contains an empty entry";
    } else {
        for (const std::string &field : fields) {
            expected.push_back(read_entry(field));
            if (!expected.back().right) {
                refusal =
                    "leave-out: '" + shown(field) +
                    "' is neither a name nor ROOT-BUS/SLOT[.FUNCTION] with a hexadecimal slot";
                break;
            }
        }
    }

    const std::vector<char> before = c_string(text);
    std::vector<char> bytes = before;
    std::vector<ViommuLeaveOut> entries(cap);
    Room sentence(room);
    const size_t count =
        viommu_leave_out_split(bytes.data(), entries.data(), cap, sentence.data(), sentence.size());
    FUZZ_CHECK_EQ(count, refusal.empty() ? expected.size() : 0);
    sentence.check(refusal);
    const size_t written = count <= cap ? count : 0;
    if (written == 0) {
        FUZZ_CHECK(bytes == before);
    }
    for (size_t i = 0; i < cap; i++) {
        if (i >= written) {
            FUZZ_CHECK(entries[i].name == nullptr);
            continue;
        }
        FUZZ_CHECK(entries[i].name == expected[i].name);
        FUZZ_CHECK(entries[i].name >= bytes.data() && entries[i].name < &bytes.back());
        FUZZ_CHECK_EQ(entries[i].has_address, expected[i].has_address);
        FUZZ_CHECK_EQ(entries[i].first_devfn, expected[i].first);
        FUZZ_CHECK_EQ(entries[i].last_devfn, expected[i].last);
        const ViommuFunctionDesc function{
            expected[i].name.c_str(), "no such bus", true, 0, false, false};
        FUZZ_CHECK_EQ(viommu_leave_out_names(&entries[i], 1, &function), !entries[i].has_address);
    }
}

// The type of the first region that has the address, or none.
std::optional<unsigned> type_at(const std::vector<ViommuRegion> &regions, uint64_t at)
{
    for (const ViommuRegion &region : regions) {
        if (region.start <= at && at <= region.last) {
            return region.subtype;
        }
    }
    return std::nullopt;
}

void check_collection(const std::string &text, size_t cap, uint8_t machine)
{
    std::vector<ViommuRegion> regions;
    for (const std::string &element : split(text, ',')) {
        const RegionRead read = read_region(element);
        if (read.refusal.empty() && regions.size() < kRegionsMax) {
            regions.push_back(read.region);
        }
    }
    const size_t user = regions.size();
    const bool users_msi = std::any_of(regions.begin(), regions.end(), [](const auto &region) {
        return region.subtype == VIOMMU_RESV_MSI;
    });
    std::vector<ViommuRegion> wanted = regions;
    if (machine % 3 != 0) {
        regions.push_back(machine % 3 == 1 ? ViommuRegion{0xfee00000, 0xfeefffff, VIOMMU_RESV_MSI}
                                           : ViommuRegion{0, UINT64_MAX, VIOMMU_RESV_MSI});
        if (!users_msi) {
            wanted.push_back(regions.back());
        }
    }

    std::vector<ViommuRegion> out(2 * kRegionsMax + 3, kUntouched);
    const size_t count =
        viommu_regions_collect(regions.data(), user, regions.size(), out.data(), out.size());
    FUZZ_CHECK(count <= out.size());
    std::vector<ViommuRegion> few(cap % 8, kUntouched);
    FUZZ_CHECK_EQ(
        viommu_regions_collect(regions.data(), user, regions.size(), few.data(), few.size()),
        count);
    for (size_t i = 0; i < few.size(); i++) {
        FUZZ_CHECK(same(few[i], i < count ? out[i] : kUntouched));
    }

    out.resize(count);
    for (size_t i = 1; i < out.size(); i++) {
        FUZZ_CHECK(out[i - 1].last < out[i].start);
        // Two of a type that touch would be one.
        FUZZ_CHECK(out[i - 1].subtype != out[i].subtype || out[i - 1].last + 1 < out[i].start);
    }
    for (const ViommuRegion &region : regions) {
        for (const uint64_t at : {region.start - 1, region.start, region.last, region.last + 1}) {
            FUZZ_CHECK(type_at(out, at) == type_at(wanted, at));
        }
    }
}

// Of `inspect`.  What is accepted means the same when it is written out in full, and keeps to
// the bounds of its view.
void check_query(const std::string &text)
{
    ViommuQuery query{VIOMMU_VIEW_DOMAINS, 1, 2, 3, 4, 5};
    std::array<char, 256> error{};
    if (!viommu_query_parse(text.c_str(), &query, error.data(), error.size())) {
        FUZZ_CHECK(query.view == VIOMMU_VIEW_DOMAINS && query.domain == 1 && query.count == 5);
        FUZZ_CHECK(std::string(error.data()).starts_with("inspect: "));
        FUZZ_CHECK(!std::strchr(error.data(), '\n'));
        return;
    }
    FUZZ_CHECK(error[0] == '\0');
    FUZZ_CHECK(text.size() < VIOMMU_QUERY_SIZE);
    const std::string from = " from=" + std::to_string(query.from);
    const std::string count = " count=" + std::to_string(query.count);
    std::string whole;
    uint32_t most = VIOMMU_PAGE_MAX;
    switch (query.view) {
    case VIOMMU_VIEW_NONE:
        FUZZ_CHECK(text.empty());
        return;
    case VIOMMU_VIEW_ENDPOINTS:
        most = VIOMMU_ENDPOINT_PAGE_MAX;
        whole = "endpoints" + count + from;
        break;
    case VIOMMU_VIEW_DOMAINS:
        whole = "domains" + from + count;
        break;
    case VIOMMU_VIEW_MAPPINGS:
        whole = "mappings" + from + " domain=" + std::to_string(query.domain) + count;
        break;
    case VIOMMU_VIEW_TRANSLATE:
        whole = "translate address=" + std::to_string(query.address) +
                " endpoint=" + std::to_string(query.endpoint);
        break;
    }
    FUZZ_CHECK(query.count >= 1 && query.count <= most);
    ViommuQuery again{};
    FUZZ_CHECK(viommu_query_parse(whole.c_str(), &again, error.data(), error.size()));
    FUZZ_CHECK(again.view == query.view && again.domain == query.domain &&
               again.endpoint == query.endpoint && again.address == query.address &&
               again.from == query.from && again.count == query.count);
}

// Of `inject`.
void check_injection(const std::string &text)
{
    ViommuInjection wanted{VIOMMU_INJECT_RECORD, 1, 2, 3, 4, 5, 6, 7};
    std::array<char, 256> error{};
    if (!viommu_injection_parse(text.c_str(), &wanted, error.data(), error.size())) {
        FUZZ_CHECK(wanted.kind == VIOMMU_INJECT_RECORD && wanted.type == 1 && wanted.count == 7);
        FUZZ_CHECK(std::string(error.data()).starts_with("inject: "));
        FUZZ_CHECK(!std::strchr(error.data(), '\n'));
        return;
    }
    FUZZ_CHECK(wanted.type >= VIOMMU_T_ATTACH && wanted.type <= VIOMMU_T_PROBE);
    FUZZ_CHECK(wanted.status >= 1 && wanted.status <= 8);
    FUZZ_CHECK(wanted.reason <= 2);
    FUZZ_CHECK(wanted.access >= VIOMMU_READ && wanted.access <= (VIOMMU_READ | VIOMMU_WRITE));
    FUZZ_CHECK(wanted.count >= 1);
}

} // namespace

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input input(data, size);
    const uint8_t room = input.byte();
    const size_t sentence_room = room == UINT8_MAX ? 256 : room;
    const uint8_t cap = input.byte();
    const uint8_t machine = input.byte();
    const std::vector<uint8_t> rest = input.rest();
    const std::string text(rest.begin(), std::find(rest.begin(), rest.end(), '\0'));

    check_region(text, sentence_room);
    for (const std::string &element : split(text, ',')) {
        check_region(element, sentence_room);
    }
    check_layout(text, sentence_room);
    check_root_bus(text, sentence_room, cap);
    check_leave_out(text, sentence_room, cap);
    check_collection(text, cap, machine);
    check_query(text);
    check_injection(text);
    return 0;
}
