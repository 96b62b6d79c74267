// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "wire.h"

#include <viommu/engine.h>

namespace viommu
{

inline constexpr const char *kUnanswered = "unanswered";

// As the specification names it.
const char *name_of(wire::Status status);

// Of VIOMMU_T_*; "unknown" of others.
const char *type_name(uint8_t type);

// See viommu_request_view().
ViommuRequestView view_of(const ViommuRequest &request);

} // namespace viommu
