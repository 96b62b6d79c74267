// SPDX-License-Identifier: GPL-2.0-or-later
//
// Commands that users write into a property: a name, then KEY=VALUE, one blank between them.
#pragma once

#include "shown.h"

#include "base/error.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace viommu::topology
{

// What does not fit throws a Refusal that begins with the name of the property.
class Words
{
public:
    Words(const char *property, std::string_view text) : property_(property), rest_(text)
    {
        name_ = next();
    }

    std::string_view name() const { return name_; }

    [[noreturn]] void refuse(const std::string &what) const
    {
        throw Refusal(property_ + (": " + what));
    }

    static std::string quoted(std::string_view text)
    {
        return std::string("'") + Shown(text).text() + "'";
    }

    // Reads the arguments: all of `needed` and perhaps of `others`, each once, nothing else.
    void read(std::initializer_list<std::string_view> needed,
              std::initializer_list<std::string_view> others)
    {
        while (rest_.data()) {
            const std::string_view word = next();
            const size_t equals = word.find('=');
            const std::string_view key = word.substr(0, equals);
            const auto is_key = [key](std::string_view one) { return one == key; };
            if (equals == std::string_view::npos ||
                (std::none_of(needed.begin(), needed.end(), is_key) &&
                 std::none_of(others.begin(), others.end(), is_key))) {
                refuse(quoted(word) + " is no argument of " + std::string(name_));
            }
            if (find(key)) {
                refuse(std::string(key) + " is given twice");
            }
            given_[count_++] = {key, word, word.substr(equals + 1)};
        }
        for (const std::string_view key : needed) {
            if (!find(key)) {
                refuse(std::string(name_) + " needs " + std::string(key) + "=");
            }
        }
    }

    // A number within [first, last], decimal or with 0x hexadecimal; `otherwise` if it is not
    // given.
    uint64_t number(std::string_view key, uint64_t first, uint64_t last,
                    uint64_t otherwise = 0) const
    {
        const Argument *const argument = find(key);
        if (!argument) {
            return otherwise;
        }
        uint64_t value = 0;
        if (!parse(argument->value, value) || value < first || value > last) {
            refuse(quoted(argument->word) + " is no number from " + std::to_string(first) + " to " +
                   std::to_string(last));
        }
        return value;
    }

    // Which of `names` it is; `otherwise` if it is not given.
    size_t one_of(std::string_view key, std::initializer_list<std::string_view> names,
                  size_t otherwise = 0) const
    {
        const Argument *const argument = find(key);
        if (!argument) {
            return otherwise;
        }
        const auto *const found = std::find(names.begin(), names.end(), argument->value);
        if (found == names.end()) {
            std::string all;
            for (const std::string_view name : names) {
                all += (all.empty() ? "" : ", ") + std::string(name);
            }
            refuse(quoted(argument->word) + " is none of " + all);
        }
        return static_cast<size_t>(found - names.begin());
    }

private:
    struct Argument {
        std::string_view key, word, value;
    };
    static constexpr size_t kMost = 8; // that any command takes

    const Argument *find(std::string_view key) const
    {
        const auto *const end = given_.begin() + count_;
        const auto *const found = std::find_if(
            given_.begin(), end, [key](const Argument &argument) { return argument.key == key; });
        return found == end ? nullptr : found;
    }

    std::string_view next()
    {
        const size_t blank = rest_.find(' ');
        const std::string_view word = rest_.substr(0, blank);
        rest_ = blank == std::string_view::npos ? std::string_view() : rest_.substr(blank + 1);
        return word;
    }

    static bool parse(std::string_view text, uint64_t &value)
    {
        if (text.starts_with("0x") || text.starts_with("0X")) {
            return parse_number(text.substr(2), 16, value);
        }
        return parse_number(text, 10, value);
    }

    const char *const property_;
    std::string_view name_;
    std::string_view rest_;
    std::array<Argument, kMost> given_{};
    size_t count_ = 0;
};

} // namespace viommu::topology
