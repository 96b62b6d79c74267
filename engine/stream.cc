// SPDX-License-Identifier: GPL-2.0-or-later
#include "stream.h"

#include "endpoint.h"

#include "base/bytes.h"
#include "base/error.h"

#include <array>
#include <bit>
#include <set>
#include <string>

namespace viommu::stream
{

namespace
{

// More attachments than this are no machine's.
constexpr size_t kMaxEndpoints = 65536;

class Reader
{
public:
    Reader(ViommuGet get, void *ctx) : get_(get), ctx_(ctx) {}

    template <typename T> T number()
    {
        std::array<uint8_t, sizeof(T)> bytes;
        if (!get_(ctx_, bytes.data(), bytes.size())) {
            throw Refusal("the stream ends too early");
        }
        return load_big<T>(bytes);
    }

    bool flag()
    {
        const auto value = number<uint8_t>();
        if (value > 1) {
            throw Refusal("a flag is neither 0 nor 1");
        }
        return value == 1;
    }

private:
    ViommuGet get_;
    void *ctx_;
};

// Reads a list that says its length first and marks its elements, too.
template <typename ReadElement>
void read_counted(Reader &reader, uint64_t limit, const std::string &what, ReadElement element)
{
    const auto count = reader.number<uint32_t>();
    if (count > limit) {
        throw Refusal(what + ": " + std::to_string(count) + " are too many");
    }
    uint32_t seen = 0;
    while (reader.flag()) {
        if (seen++ == count) {
            throw Refusal(what + ": more than announced");
        }
        element();
    }
    if (seen != count) {
        throw Refusal(what + ": fewer than announced");
    }
}

class StateReader
{
public:
    StateReader(ViommuGet get, void *ctx, const Settings &settings)
        : reader_(get, ctx), settings_(settings)
    {
    }

    Staged read()
    {
        Staged staged;
        read_counted(reader_, settings_.max_domains, "domains", [&] {
            const auto key = reader_.number<uint64_t>();
            StagedDomain domain = read_domain();
            if (domain.id != key) {
                throw Refusal(name(domain) + " is filed under another ID");
            }
            if (!staged.domains.empty() && domain.id <= staged.domains.back().id) {
                throw Refusal(name(domain) + " is out of order");
            }
            staged.domains.push_back(std::move(domain));
        });
        staged.bypass = reader_.flag();
        if (staged.bypass && !settings_.can_bypass()) {
            throw Refusal("bypass is set, which this device does not offer");
        }
        return staged;
    }

private:
    static std::string name(const StagedDomain &domain)
    {
        return "domain " + std::to_string(domain.id);
    }

    // What the source has and this side lacks, if it is that.
    std::string too_wide(const Mapping &mapping) const
    {
        return mapping.last <= settings_.input_last
                   ? ""
                   : ", which ends where aw-bits=" + std::to_string(std::bit_width(mapping.last)) +
                         " would be needed";
    }

    StagedDomain read_domain()
    {
        StagedDomain domain;
        domain.id = reader_.number<uint32_t>();
        if (!settings_.domain_in_range(domain.id)) {
            throw Refusal(name(domain) + " is out of range");
        }
        memory_ += Domain::kMemory;
        check_memory(domain);
        read_mappings(domain);
        memory_ += domain.mappings.memory();
        while (reader_.flag()) {
            const auto id = reader_.number<uint32_t>();
            if (endpoints_.size() >= kMaxEndpoints) {
                throw Refusal("there are too many endpoints");
            }
            if (!endpoints_.insert(id).second) {
                throw Refusal("endpoint " + std::to_string(id) + " is listed twice");
            }
            domain.endpoint_ids.push_back(id);
        }
        if (domain.endpoint_ids.empty()) {
            throw Refusal(name(domain) + " has no endpoint"); // DET-D1
        }
        domain.bypass = reader_.flag();
        if (domain.bypass && !settings_.can_bypass()) {
            throw Refusal(name(domain) + " bypasses, which this device does not offer"); // BYP-3
        }
        if (domain.bypass && !domain.mappings.empty()) {
            throw Refusal(name(domain) + " bypasses, yet has mappings"); // MAP-5
        }
        return domain;
    }

    // The same mappings can take a few nodes more than where they came from, where they
    // were inserted in another order: by less than one in 3000.
    void check_memory(const StagedDomain &domain) const
    {
        const uint64_t memory = memory_ + domain.mappings.memory();
        if (memory - memory / 1024 > settings_.max_memory) {
            throw Refusal(name(domain) + " takes more than is left of " +
                          std::to_string(settings_.max_memory) + " bytes of max-memory");
        }
    }

    void read_mappings(StagedDomain &domain)
    {
        const uint32_t known = wire::kMapRead | wire::kMapWrite |
                               ((settings_.offered & VIOMMU_F_MMIO) != 0 ? wire::kMapMmio : 0u);
        bool first = true;
        uint64_t previous_last = 0;

        read_counted(
            reader_, settings_.max_mappings - mappings_, "mappings of " + name(domain), [&] {
                Mapping mapping;
                mapping.iova = reader_.number<uint64_t>();
                mapping.last = reader_.number<uint64_t>();
                mapping.phys = reader_.number<uint64_t>();
                mapping.flags = reader_.number<uint32_t>();

                if (settings_.check_mapping(mapping) != wire::Status::Ok ||
                    (mapping.flags & ~known) != 0) {
                    throw Refusal(name(domain) + " has an impossible mapping" + too_wide(mapping));
                }
                if (!first && mapping.iova <= previous_last) {
                    throw Refusal(name(domain) + " has mappings out of order");
                }
                if (regions_overlap(settings_.regions, mapping.iova, mapping.last)) {
                    throw Refusal(name(domain) + " maps a reserved region"); // RSV-4
                }
                domain.mappings.insert(mapping);
                mappings_++;
                check_memory(domain);
                first = false;
                previous_last = mapping.last;
            });
    }

    Reader reader_;
    const Settings &settings_;
    uint64_t mappings_ = 0;        // in all domains
    uint64_t memory_ = 0;          // bytes, of all domains and their mappings
    std::set<uint32_t> endpoints_; // in all domains
};

} // namespace

template <typename T> void Writer::number(T value)
{
    std::array<uint8_t, sizeof(T)> bytes;
    store_big(bytes.data(), value);
    put(bytes.data(), bytes.size());
}

void Writer::count(size_t elements)
{
    // The reader's side of the format takes the count as a signed number.
    if (elements > INT32_MAX) {
        ok_ = false;
        return;
    }
    number(static_cast<uint32_t>(elements));
}

void Writer::key(uint64_t key)
{
    number(key);
}

void Writer::id(uint32_t id)
{
    number(id);
}

void Writer::mapping(const Mapping &mapping)
{
    number(mapping.iova);
    number(mapping.last);
    number(mapping.phys);
    number(mapping.flags);
}

Staged read(ViommuGet get, void *ctx, const Settings &settings)
{
    return StateReader(get, ctx, settings).read();
}

} // namespace viommu::stream
