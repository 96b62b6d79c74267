// SPDX-License-Identifier: GPL-2.0-or-later
//
// What users ask a running device, and which faults they want to have made.
#include "words.h"

#include <viommu/injection.h>
#include <viommu/inspect.h>

namespace viommu::topology
{

namespace
{

ViommuQuery parse_query(std::string_view text)
{
    Words words("inspect", text);
    ViommuQuery query{};
    uint64_t count_max = VIOMMU_PAGE_MAX;
    uint64_t from_last = UINT32_MAX;
    if (text.empty()) {
        return query;
    }
    if (text.size() >= VIOMMU_QUERY_SIZE) {
        words.refuse(Words::quoted(text) + " is longer than any question");
    }
    if (words.name() == "endpoints") {
        query.view = VIOMMU_VIEW_ENDPOINTS;
        count_max = VIOMMU_ENDPOINT_PAGE_MAX;
        words.read({}, {"from", "count"});
    } else if (words.name() == "domains") {
        query.view = VIOMMU_VIEW_DOMAINS;
        words.read({}, {"from", "count"});
    } else if (words.name() == "mappings") {
        query.view = VIOMMU_VIEW_MAPPINGS;
        from_last = UINT64_MAX;
        words.read({"domain"}, {"from", "count"});
    } else if (words.name() == "translate") {
        query.view = VIOMMU_VIEW_TRANSLATE;
        words.read({"endpoint", "address"}, {});
    } else {
        words.refuse(Words::quoted(words.name()) +
                     " is neither endpoints, domains, mappings nor translate");
    }
    query.domain = static_cast<uint32_t>(words.number("domain", 0, UINT32_MAX));
    query.endpoint = static_cast<uint32_t>(words.number("endpoint", 0, UINT32_MAX));
    query.address = words.number("address", 0, UINT64_MAX);
    query.from = words.number("from", 0, from_last);
    query.count = static_cast<uint32_t>(words.number("count", 1, count_max, count_max));
    return query;
}

ViommuInjection parse_injection(std::string_view text)
{
    Words words("inject", text);
    ViommuInjection wanted{};
    if (text.size() >= VIOMMU_QUERY_SIZE) {
        words.refuse(Words::quoted(text) + " is longer than any command");
    }
    if (words.name() == "nothing") {
        wanted.kind = VIOMMU_INJECT_NOTHING;
        words.read({}, {});
    } else if (words.name() == "requests") {
        wanted.kind = VIOMMU_INJECT_REQUESTS;
        words.read({"type", "status"}, {"count"});
    } else if (words.name() == "accesses") {
        wanted.kind = VIOMMU_INJECT_ACCESSES;
        words.read({"endpoint"}, {"count", "reason"});
    } else if (words.name() == "record") {
        wanted.kind = VIOMMU_INJECT_RECORD;
        words.read({"endpoint", "address"}, {"reason", "access"});
    } else {
        words.refuse(Words::quoted(words.name()) +
                     " is neither requests, accesses, record nor nothing");
    }
    // Types from VIOMMU_T_ATTACH on, statuses behind OK, which would be a lie.
    wanted.type = static_cast<uint8_t>(
        VIOMMU_T_ATTACH + words.one_of("type", {"attach", "detach", "map", "unmap", "probe"}));
    wanted.status =
        static_cast<uint8_t>(1 + words.one_of("status", {"IOERR", "UNSUPP", "DEVERR", "INVAL",
                                                         "RANGE", "NOENT", "FAULT", "NOMEM"}));
    wanted.reason =
        static_cast<uint8_t>(words.one_of("reason", {"unknown", "domain", "mapping"}, 2));
    wanted.access = static_cast<uint32_t>(1 + words.one_of("access", {"r", "w", "rw"}, 1));
    wanted.endpoint = static_cast<uint32_t>(words.number("endpoint", 0, UINT32_MAX));
    wanted.address = words.number("address", 0, UINT64_MAX);
    wanted.count = static_cast<uint32_t>(words.number("count", 1, UINT32_MAX, 1));
    return wanted;
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

bool viommu_injection_parse(const char *text, ViommuInjection *wanted, char *error,
                            size_t error_size) noexcept
{
    return viommu::at_boundary(error, error_size, false, [&] {
        *wanted = viommu::topology::parse_injection(text);
        return true;
    });
}
