// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef VIOMMU_TOPOLOGY_SENTENCE_H
#define VIOMMU_TOPOLOGY_SENTENCE_H

#include <cinttypes>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>

namespace viommu::topology
{

// Why something cannot be done: one sentence for the user.
class Refusal : public std::runtime_error
{
public:
    using std::runtime_error::runtime_error;
};

inline std::string hex(std::uint64_t value)
{
    char text[2 + 16 + 1];
    std::snprintf(text, sizeof(text), "0x%" PRIx64, value);
    return text;
}

// segment:bus:device.function as lspci writes it.
inline std::string pciAddress(std::uint16_t segment, std::uint16_t requesterId)
{
    char text[sizeof("ffff:ff:1f.7")];
    std::snprintf(text, sizeof(text), "%04x:%02x:%02x.%x", static_cast<unsigned>(segment),
                  static_cast<unsigned>(requesterId >> 8),
                  static_cast<unsigned>((requesterId >> 3) & 0x1f),
                  static_cast<unsigned>(requesterId & 7));
    return text;
}

// Cuts the sentence where the caller's buffer ends; the buffer may be absent.
inline void copySentence(std::string_view sentence, char *error, std::size_t errorSize) noexcept
{
    if (error == nullptr || errorSize == 0) {
        return;
    }
    const std::size_t length = sentence.size() < errorSize ? sentence.size() : errorSize - 1;
    std::memcpy(error, sentence.data(), length);
    error[length] = '\0';
}

// Runs `work` at the C boundary, which no exception may leave: what it throws
// becomes the sentence, and `failure` the result.
template <typename Result, typename Work>
Result atBoundary(char *error, std::size_t errorSize, Result failure, Work &&work) noexcept
{
    try {
        return work();
    } catch (const Refusal &refusal) {
        copySentence(refusal.what(), error, errorSize);
    } catch (const std::exception &) {
        // Nothing else is thrown but failed allocations.
        copySentence("out of memory while describing the IOMMU topology", error, errorSize);
    }
    return failure;
}

} // namespace viommu::topology

#endif
