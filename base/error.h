// SPDX-License-Identifier: GPL-2.0-or-later
//
// Errors.  Below the boundary there is one form of them, an exception of type Refusal that
// carries a sentence for the user, and std::bad_alloc.  at_boundary() turns both into what
// the C functions return: neither gets past it.
//
// What a guest asks for and does not get is no error: requests end with a status.
#pragma once

#include <cstddef>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace viommu
{

// Why something cannot be done: one sentence.
class Refusal : public std::runtime_error
{
public:
    using std::runtime_error::runtime_error;
};

// Cuts the sentence where the caller's buffer ends; the buffer may be absent.
inline void copy_sentence(std::string_view sentence, char *error, size_t error_size) noexcept
{
    if (!error || error_size == 0) {
        return;
    }
    const size_t length = sentence.size() < error_size ? sentence.size() : error_size - 1;
    std::memcpy(error, sentence.data(), length);
    error[length] = '\0';
}

// Runs `work`.  What it throws becomes the sentence, and `failure` the result.
template <typename Result, typename Work>
Result at_boundary(char *error, size_t error_size, Result failure, Work &&work) noexcept
{
    try {
        return std::forward<Work>(work)();
    } catch (const Refusal &refusal) {
        copy_sentence(refusal.what(), error, error_size);
    } catch (const std::exception &) {
        // Nothing else is thrown but failed allocations.
        copy_sentence("out of memory", error, error_size);
    }
    return failure;
}

} // namespace viommu
