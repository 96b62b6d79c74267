// SPDX-License-Identifier: GPL-2.0-or-later
//
// Functions that a host hands on: what an IOMMU of this machine maps has to arrive in
// the host's IOMMU, and what it takes away has to be gone there.
#ifndef BARE_ASSIGNED_H
#define BARE_ASSIGNED_H

#include "iommu.h"

namespace bare
{

void useAssigned(Iommu &iommu);
// A host that takes only some mappings of a function.
void fillHost(Iommu &iommu, uint32_t holder);
// A host whose own IOMMU knows no addresses of more than so many bits.
void meetNarrowHost(Iommu &iommu, uint32_t holder);
// Times MAP and UNMAP of a function that is handed on, and how it joins a domain that
// has many mappings, which the endpoint `holder` keeps.
void timeAssigned(Iommu &iommu, uint32_t holder);

} // namespace bare

#endif
