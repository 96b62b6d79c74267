// SPDX-License-Identifier: GPL-2.0-or-later
//
// Text of users: numbers in it, and how sentences show it.  Nothing is allocated.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <string_view>
#include <system_error>

namespace viommu::topology
{

// With the longest value that is shown, every sentence fits into 256 bytes.
inline constexpr size_t kShownMax = 128;

// A value as a sentence shows it: on one line, cut if it is long.
class Shown
{
public:
    explicit Shown(std::string_view value) : text_{}
    {
        constexpr std::string_view kCut = "...";
        const std::string_view start = value.substr(0, kShownMax);
        char *const end = std::transform(start.begin(), start.end(), text_.begin(), [](char c) {
            const auto byte = static_cast<unsigned char>(c);
            return byte < ' ' || byte == 0x7f ? '?' : c;
        });
        if (value.size() > kShownMax) {
            std::copy(kCut.begin(), kCut.end(), end);
        }
    }

    const char *text() const { return text_.data(); }

private:
    std::array<char, kShownMax + sizeof("...")> text_;
};

using Sentence = std::array<char, 256>;

// All of `text` is the number: no blanks, no sign, no overflow.
template <typename Number> bool parse_number(std::string_view text, int base, Number &number)
{
    const char *const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number, base);
    return error == std::errc{} && rest == end;
}

} // namespace viommu::topology
