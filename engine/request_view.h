// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <viommu/engine.h>

namespace viommu
{

// See viommu_request_view().
ViommuRequestView view_of(const ViommuRequest &request);

} // namespace viommu
