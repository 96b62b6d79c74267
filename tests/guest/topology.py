#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots real Linux guests on machines with several root buses or several IOMMUs.

Every function of the guest must be behind the IOMMU that manages its root bus, by
sysfs, or behind none; disks on all of them are verified.  q35-* want
qemu-system-x86_64, virt-* qemu-system-aarch64.
"""
import os
import shutil
import sys
from dataclasses import dataclass

import fetch
import initramfs
import run
from run import OVMF, Endpoint, Trial, check

EDK2 = "usr/share/qemu-efi-aarch64/QEMU_EFI.fd"
MODULES = ("virtio_iommu", "virtio_blk", "nvme")
MACHINES = {
    "q35": {"arch": "amd64", "type": "DMA-FQ", "args": ("-machine", "q35,accel=tcg",
                                                        "-cpu", "qemu64")},
    "virt": {"arch": "arm64", "type": "DMA", "args": ("-machine", "virt,gic-version=3,accel=tcg",
                                                      "-cpu", "cortex-a57")},
}
FIRST, SECOND = "first", "second"
PCIE0, PXB1, PXB2 = "pci0000:00", "pci0000:20", "pci0000:40"


@dataclass
class Placed(Endpoint):
    """A function and the IOMMU that it has to be behind, or None."""
    iommu: str = None


class PlacedTrial(Trial):
    def __init__(self, options, machine, firmware):
        self.options, self.folder = options, options.folder
        self.machine = MACHINES[machine]
        self.kernel = run.get_kernel(options, self.machine["arch"], "cloud")
        self.initramfs = initramfs.build(self.kernel, [*MODULES])
        self.endpoints, self.netdevs, self.notes, self.guest = [], [], [], None
        self.managers = {PCIE0: None}  # root bus in the guest -> IOMMU
        self.slots = {}  # IOMMU -> its slot on the first root bus
        self.left_out = set()  # paths of functions of managed root buses
        self.firmware, self.expanders = firmware, 0
        self.args = [*self.machine["args"], "-smp", "2", "-m", "512"]
        if firmware == "ovmf":
            code = next((c for c in OVMF if os.path.exists(c)), None)
            check(code, "OVMF is missing: install the package ovmf.")
            variables = self.folder / "vars.img"
            shutil.copyfile(code.replace("_CODE", "_VARS"), variables)
            self.add("-drive", f"if=pflash,format=raw,readonly=on,file={code}",
                     "-drive", f"if=pflash,format=raw,file={variables}")
        elif firmware == "edk2":
            # Debian 12's calls its flash memory, which belongs to no NUMA node: Linux then
            # gives all of them up.
            _, _, edk2 = fetch.fetch("qemu-efi-aarch64", "arm64", log=run.note)
            self.add("-bios", edk2 / EDK2)
        elif firmware == "seabios":
            # Keeps it from waiting for disks whose DMA is still blocked.
            self.add("-boot", "strict=on")

    # --- the machine -----------------------------------------------------------------

    def iommu(self, name, slot, roots, root_bus="", leave_out=""):
        """The drivers of UEFI do DMA before any IOMMU is set up; nobody else has to."""
        bypass = "on" if self.firmware in ("ovmf", "edk2") else "off"
        self.add("-device", f"virtio-iommu-pci,id={name},bus=pcie.0,addr={slot},"
                            f"boot-bypass={bypass}" + (root_bus and f",root-bus={root_bus}") +
                 (leave_out and f",leave-out={leave_out}"))
        self.slots[name] = slot
        for root in roots:
            self.managers[root] = name

    def expander(self, name, number, more=""):
        """An expander with a root port, on which devices can be plugged."""
        slot = f"{16 + self.expanders:x}.0"
        self.add("-device", f"pxb-pcie,id={name},bus=pcie.0,addr={slot},bus_nr={number}{more}",
                 "-device", f"pcie-root-port,id={name}port,bus={name},addr=0.0,chassis={number}")
        self.managers.setdefault(f"pci0000:{number:02x}", None)
        self.expanders += 1

    def numa(self):
        for node in (0, 1):
            self.add("-object", f"memory-backend-ram,id=memory{node},size=256M",
                     "-numa", f"node,nodeid={node},cpus={node},memdev=memory{node}")

    def disk_options(self, model, path, bus=None):
        blockdev, device, e = super().disk_options(model, path, bus)
        root = path.split("/")[0]
        placed = Placed(e.path, e.driver, e.what, e.file,
                        iommu=self.managers[f"pci{root}" if ":" in root else PCIE0])
        self.endpoints[-1] = placed
        return blockdev, device, placed

    def boot(self, kernel_args="", saved=None):
        self.guest = run.Guest(self.folder, self.options.qemu, self.machine["arch"],
                               self.kernel.image, self.initramfs, self.args, kernel_args)
        return self.guest

    # --- checks ------------------------------------------------------------------------

    def verify_groups(self, domain_type, endpoints=None):
        """No function of the whole guest is behind another IOMMU than the model says."""
        wanted = endpoints or self.endpoints
        devices = self.guest.wait_for("the drivers of all disks", lambda devices: all(
            e.driver in (devices.get(e.path, {}).get("driver"),
                         devices.get(e.path, {}).get("virtio")) for e in wanted) and devices,
                                      seconds=60)
        names = {name: devices[slot]["name"] for name, slot in self.slots.items()}
        for slot in self.slots.values():
            check(devices[slot]["virtio"] == "virtio_iommu", f"{slot}: no driver is bound to it")
        for path, d in devices.items():
            if d["bus"] != "pci":
                continue
            root = d["path"][d["path"].index("pci0000:"):].split("/")[0]
            check(root in self.managers, f"{path} is on root bus {root}, which nobody knows")
            manager = (None if path in (*self.slots.values(), *self.left_out)
                       else self.managers[root])
            want = names[manager] if manager else "none"
            if d["group"] == "none":
                check(not manager or d["driver"] == "none", f"{path} ({d['driver']}): has a "
                                                           f"driver, but is not behind {want}")
            check(d["group"] == "none" or d["iommu"] == want,
                  f"{path} ({d['driver']}): belongs to IOMMU {d['iommu']}, not to {want}")
            check(manager or d["group"] == "none", f"{path} ({d['driver']}): is in group "
                                                   f"{d['group']}, but bypasses")
        for e in wanted:
            d = e.device = devices[e.path]
            check(d["virtio"] == "none" or d["platform"] == "1",
                  f"{e.path} ({e.driver}): without ACCESS_PLATFORM its data is not translated")
            check(not e.iommu or d["type"] == domain_type,
                  f"{e.path} ({e.driver}): domain type {d['type']}, expected {domain_type}")

    def verify_counters(self, translated=True, endpoints=None):
        """Each device counted the accesses of its own endpoints and knows no others."""
        if not self.options.counters:
            return
        counters = {name: self.guest.endpoints(name) for name in self.slots}
        for e in endpoints or self.endpoints:
            for name, of_one in counters.items():
                c = of_one.get(e.counted_as)
                if name != e.iommu:
                    check(not c, f"{e.path} ({e.driver}): is an endpoint of IOMMU {name}, too")
                    continue
                check(c and c["attached"] and not c["bypass"],
                      f"{e.path} ({e.driver}): is not attached to a domain of IOMMU {name}")
                e.translations = c["translations"]
                check(c["translations"] > 0, f"{e.path} ({e.driver}): nothing was translated")
                check(c["faults"] == 0, f"{e.path} ({e.driver}): {c['faults']} faults")

    def verify_detached(self, e):
        if self.options.counters:
            for name in self.slots:
                check(not self.guest.endpoints(name).get(e.counted_as, {}).get("attached"),
                      f"{e.path} ({e.driver}): gone, but still attached to {name}")

    def verify_all(self, endpoints=None):
        self.verify(self.machine["type"], endpoints)

    def verify_node(self, e, node):
        path = f"/sys/bus/pci/devices/{e.device['name']}/numa_node"
        said = self.guest.run("read", path)[0]["value"]
        check(said == str(node), f"{e.path} ({e.driver}): is in NUMA node {said}, not {node}")
        e.report.append(f"NUMA node {node}")

    def plug(self, model, path, bus):
        blockdev, device, e = self.disk_options(model, path, bus)
        self.guest.qmp.call("blockdev-add", **blockdev)
        self.guest.qmp.call("device_add", **device)
        self.verify_all([e])
        e.report.append("hot-plugged")
        return device, e

    def unplug(self, device, e):
        self.guest.qmp.call("device_del", id=device["id"])
        self.guest.qmp.wait_event("DEVICE_DELETED", 30, device=device["id"])
        self.guest.wait_for(f"{e.path} to go", lambda devices: e.path not in devices)
        self.verify_detached(e)
        e.report.append("unplugged")

    def plug_and_unplug(self, path, bus):
        """W18: three disks, one after the other, at one address."""
        for model in ("virtio-blk", "nvme"):
            self.unplug(*self.plug(model, path, bus))
        self.plug("virtio-blk", path, bus)


# --- scenarios ----------------------------------------------------------------------

def bypassed_expander(options, machine, firmware):
    """One IOMMU; an expander in NUMA node 1 behind it, and one that bypasses."""
    t = PlacedTrial(options, machine, firmware)
    t.numa()
    t.iommu(FIRST, "02.0", (PCIE0, PXB1))
    t.expander("pxb1", 0x20, ",numa_node=1")
    t.expander("pxb2", 0x40, ",bypass_iommu=on")
    t.disk("virtio-blk", "03.0", "pcie.0")
    behind = t.disk("nvme", "0000:20/00.0/00.0", "pxb1port")
    t.disk("virtio-blk", "0000:40/00.0/00.0", "pxb2port")
    with t.boot() as guest:
        t.verify_all()
        t.verify_node(behind, 1)
        guest.poweroff()
    return t


def two_iommus(options, machine, firmware):
    """pcie.0 and an expander have an IOMMU each, a third root bus bypasses; hotplug."""
    t = PlacedTrial(options, machine, firmware)
    # Its root bus comes later.
    t.iommu(SECOND, "07.0", (PXB1,), "pxb1")
    t.expander("pxb1", 0x20)
    t.expander("pxb2", 0x40, ",bypass_iommu=on")
    t.iommu(FIRST, "02.0", (PCIE0,))
    t.disk("nvme", "03.0", "pcie.0")
    t.disk("virtio-blk", "0000:40/00.0/00.0", "pxb2port")
    with t.boot() as guest:
        t.verify_all()
        t.plug_and_unplug("0000:20/00.0/00.0", "pxb1port")
        guest.poweroff()
    return t


def one_iommu(options, machine, firmware):
    """One root bus behind one IOMMU; hotplug."""
    t = PlacedTrial(options, machine, firmware)
    t.iommu(FIRST, "02.0", (PCIE0,))
    t.disk("virtio-blk", "03.0", "pcie.0")
    t.disk("nvme", "04.0", "pcie.0")
    t.add("-device", "pcie-root-port,id=port0,bus=pcie.0,chassis=1,addr=05.0")
    with t.boot() as guest:
        t.verify_all()
        t.plug_and_unplug("05.0/00.0", "port0")
        guest.poweroff()
    return t


def left_out(options, machine, firmware):
    """MOD-15: one IOMMU, which leaves out a function and, where firmware knows it, an expander."""
    t = PlacedTrial(options, machine, firmware)
    t.iommu(FIRST, "02.0", (PCIE0,), leave_out="pcie.0/4" if firmware == "dt" else "disk1:pxb1")
    t.disk("nvme", "03.0", "pcie.0")
    t.left_out.add("04.0")
    t.disk("virtio-blk", "04.0", "pcie.0").iommu = None
    t.disk("virtio-blk", "06.0", "pcie.0")
    if firmware != "dt":
        t.expander("pxb1", 0x20)
        t.disk("virtio-blk", "0000:20/00.0/00.0", "pxb1port")
    with t.boot() as guest:
        t.verify_all()
        guest.poweroff()
    return t


def bypassed_default_bus(options, machine, firmware):
    """The default bus bypasses: there is an IOMMU, but nothing is behind it."""
    t = PlacedTrial(options, machine, firmware)
    t.add("-machine", "default_bus_bypass_iommu=on")
    t.iommu(FIRST, "02.0", ())
    t.disk("virtio-blk", "03.0", "pcie.0")
    t.disk("nvme", "04.0", "pcie.0")
    with t.boot() as guest:
        t.verify_all()
        guest.poweroff()
    return t


def scenario(shape, machine, firmware):
    def boot(options):
        return shape(options, machine, firmware)
    boot.__doc__ = f"{machine}, {firmware}: {shape.__doc__}"
    return f"{machine}-{firmware}-{shape.__name__.replace('_', '-')}", boot


run.SCENARIOS = dict([
    scenario(bypassed_expander, "q35", "seabios"),
    scenario(two_iommus, "q35", "seabios"),
    scenario(bypassed_default_bus, "q35", "seabios"),
    scenario(left_out, "q35", "seabios"),
    scenario(bypassed_expander, "q35", "ovmf"),
    scenario(two_iommus, "q35", "ovmf"),
    scenario(one_iommu, "virt", "dt"),
    scenario(bypassed_default_bus, "virt", "dt"),
    scenario(left_out, "virt", "dt"),
    scenario(one_iommu, "virt", "edk2"),
    scenario(bypassed_default_bus, "virt", "edk2"),
    scenario(bypassed_expander, "virt", "edk2"),
    scenario(two_iommus, "virt", "edk2"),
])

if __name__ == "__main__":
    sys.exit(run.main(__doc__))
