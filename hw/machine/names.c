/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/osdep.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"
#include "hw/sysbus.h"

#include "hw/machine/names.h"

char *viommu_device_name(DeviceState *dev)
{
    const char *type = object_get_typename(OBJECT(dev));
    PCIDevice *pci = (PCIDevice *)object_dynamic_cast(OBJECT(dev),
                                                      TYPE_PCI_DEVICE);

    if (dev->id) {
        return g_strdup(dev->id);
    }
    if (pci) {
        return g_strdup_printf("%s at %02x:%02x.%x", type, pci_dev_bus_num(pci),
                               PCI_SLOT(pci->devfn), PCI_FUNC(pci->devfn));
    }
    if (dev->parent_bus && dev->parent_bus != sysbus_get_default()) {
        return g_strdup_printf("%s on %s", type, dev->parent_bus->name);
    }
    return g_strdup(type);
}

char *viommu_unit_name(const ViommuUnit *unit)
{
    return viommu_device_name(unit->on_mmio ? DEVICE(unit->device)
                                            : unit->transport);
}
