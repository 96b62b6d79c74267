// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <viommu/types.h>

namespace viommu
{

// Frees what readers may still look at when they no longer can: inside QEMU, RCU.
class Reclaimer
{
public:
    virtual void defer(ViommuDeferred &object) noexcept = 0;

protected:
    ~Reclaimer() = default;
};

} // namespace viommu
