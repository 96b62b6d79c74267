#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots real Linux guests whose virtio-iommu sits on a virtio-mmio transport.

Disks, networks and an entropy source on virtio-mmio transports are behind it,
and, where the machine has PCI, functions too.
"""
import json
import os
import re
import sys
from dataclasses import dataclass

import initramfs
import run
from run import IOMMU, Endpoint, Trial, check
from vm import Guest

IOMMU_TRANSPORT = 1
EDK2 = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"
MODULES = ("virtio_iommu", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "nvme")
MACHINES = {
    "microvm": {"arch": "amd64", "base": 0xfeb00000,
                "args": ("-machine", "microvm,acpi=on,accel=tcg", "-cpu", "qemu64", "-smp", "2",
                         "-m", "512",
                         # The machine itself has one serial port only.
                         "-device", "isa-serial,index=1,chardev=agent"),
                # It has no timer that Linux could measure the TSC's frequency with on a busy host.
                "kernel_args": "tsc_early_khz=2000000"},
    "virt": {"arch": "arm64", "base": 0x0a000000, "kernel_args": "",
             "args": ("-machine", "virt,gic-version=3,accel=tcg", "-cpu", "cortex-a57",
                      "-smp", "2", "-m", "512")},
}


@dataclass
class OnTransport(Endpoint):
    """A device on a virtio-mmio transport; `path` is found out in the guest."""
    transport: int = 0

    @property
    def counted_as(self):
        return 0xffff0000 + self.transport


class MmioGuest(Guest):
    def endpoints(self, iommu):
        found = self.qmp.call("qom-get", path=f"/machine/peripheral/{iommu}", property="endpoints")
        return {e["id"]: e for e in found}


class MmioTrial(Trial):
    """As its base, with the IOMMU and most endpoints on virtio-mmio transports."""

    def __init__(self, options, machine, *more, acpi=True, bypass_at_boot=False):
        self.options, self.folder, self.acpi = options, options.folder, acpi
        self.machine = MACHINES[machine]
        self.kernel = run.get_kernel(options, self.machine["arch"], "cloud")
        self.initramfs = initramfs.build(self.kernel, [*MODULES])
        self.endpoints, self.netdevs, self.notes, self.guest = [], [], [], None
        self.args = [*self.machine["args"], *more,
                     "-global", "virtio-mmio.force-legacy=off",
                     "-device", f"virtio-iommu-mmio,id={IOMMU},"
                                f"boot-bypass={'on' if bypass_at_boot else 'off'},"
                                f"bus=virtio-mmio-bus.{IOMMU_TRANSPORT}"]

    def on_transport(self, n, driver, what, **properties):
        name = f"mmio{n}"
        device = {"driver": driver, "id": name, "bus": f"virtio-mmio-bus.{n}",
                  "iommu_platform": True}
        e = OnTransport(name, driver.removesuffix("-device").replace("-", "_"), what, transport=n)
        self.endpoints.append(e)
        self.add("-device", json.dumps(device | properties))
        return e

    def mmio_disk(self, n, **properties):
        e = self.on_transport(n, "virtio-blk-device", "disk", drive=f"mmio{n}", **properties)
        e.file = self.disk_file(f"mmio{n}")
        self.add("-blockdev", json.dumps({"driver": "file", "filename": str(e.file),
                                          "node-name": f"mmio{n}"}))
        return e

    def mmio_net(self, n):
        e = self.on_transport(n, "virtio-net-device", "net", netdev=f"mmio{n}")
        e.netdev = f"mmio{n}"
        self.netdevs.append(e.netdev)
        return e

    def mmio_entropy(self, n):
        e = self.on_transport(n, "virtio-rng-device", "entropy", rng=f"rng{n}")
        e.driver = "virtio_rng"
        self.add("-object", f"rng-builtin,id=rng{n}")
        return e

    def boot(self, kernel_args=""):
        self.guest = MmioGuest(self.folder, self.options.qemu, self.machine["arch"],
                               self.kernel.image, self.initramfs, self.args,
                               f"{self.machine['kernel_args']} {kernel_args}")
        for name in self.netdevs:
            self.guest.network(name)
        return self.guest

    def platform_name(self, transport):
        """The guest's name of the platform device at a transport's registers."""
        base = self.machine["base"] + 0x200 * transport
        if self.machine["arch"] == "arm64":
            # ACPI names all transports in order; a device tree by address.
            return f"LNRO0005:{transport:02x}" if self.acpi else f"{base:x}.virtio_mmio"
        iomem = self.guest.run("read", "/proc/iomem")[0]["value"]
        found = re.search(rf"(?:^|,){base:08x}-[0-9a-f]+,:,([^,]+)", iomem)
        check(found, f"the guest knows no device at {base:#x}")
        return found[1]

    def verify_groups(self, domain_type, endpoints=None):
        iommu = self.platform_name(IOMMU_TRANSPORT)
        verified = endpoints or self.endpoints
        names = {}
        for e in verified:
            if isinstance(e, OnTransport):
                e.path = self.platform_name(e.transport)
            # All functions are on the first root bus.
            names[id(e)] = e.path if isinstance(e, OnTransport) else f"0000:00:{e.path}"

        def grouped(devices):
            found = {d["name"]: d for d in devices.values()}
            return all(found.get(names[id(e)], {}).get("group", "none") != "none" and
                       e.driver in (found[names[id(e)]]["driver"], found[names[id(e)]]["virtio"])
                       for e in verified) and found
        devices = self.guest.wait_for("the groups and drivers of all endpoints", grouped, 60)
        check(iommu not in devices, "the IOMMU is in a group itself")
        for e in verified:
            d = e.device = devices[names[id(e)]]
            driver = d["driver"] if d["virtio"] == "none" else d["virtio"]
            check(driver == e.driver, f"{e.path}: driver {driver}, expected {e.driver}")
            check(d["virtio"] == "none" or d["platform"] == "1",
                  f"{e.path} ({driver}): without ACCESS_PLATFORM its data is not translated")
            check(d["iommu"] == iommu,
                  f"{e.path} ({driver}): belongs to IOMMU {d['iommu']}, not {iommu}")
            check(d["type"] == domain_type, f"{e.path} ({driver}): domain type {d['type']}, "
                                            f"expected {domain_type}")
        groups = {e.device["group"] for e in verified}
        check(len(groups) == len(verified), "two endpoints share a group")


    def verify_idle(self, path=f"/machine/peripheral/{IOMMU}"):
        """The IOMMU's driver runs, and no endpoint is attached to it."""
        status = self.guest.qmp.call("x-query-virtio-status", path=path)["status"]["statuses"]
        check(any("DRIVER_OK" in s for s in status), f"{path}: no driver is bound to it")
        if self.options.counters:
            attached = [e["id"] for e in self.guest.qmp.call("qom-get", path=path,
                                                             property="endpoints")
                        if e["attached"]]
            check(not attached, f"{path}: {attached} are attached")

    def verify_bypass(self, endpoints):
        """Nobody translates these; what they move is right all the same."""
        for e in endpoints:
            if isinstance(e, OnTransport):
                e.path = self.platform_name(e.transport)
                e.device = {"name": e.path}

        def bound(devices):
            return all(isinstance(e, OnTransport) or
                       e.driver in (devices.get(e.path, {}).get("driver"),
                                    devices.get(e.path, {}).get("virtio"))
                       for e in endpoints)
        self.guest.wait_for("the drivers of all disks", bound, 60)
        devices = self.guest.devices()
        for e in endpoints:
            d = devices.get(e.path, {"group": "none", **e.device})
            check(d["group"] == "none", f"{e.path} ({e.driver}): is in a group, but bypasses")
            e.device = d
        self.verify_dma(endpoints)


def trial(options, machine, *more, **kinds):
    t = MmioTrial(options, machine, *more, **kinds)
    t.mmio_disk(3)
    t.mmio_net(4)
    t.mmio_entropy(6)
    return t


def microvm(options):
    """microvm with ACPI, no PCI: everything on virtio-mmio, described by VIOT (lazy)."""
    t = trial(options, "microvm")
    with t.boot() as guest:
        t.verify("DMA-FQ")
        guest.poweroff()
    return t


def microvm_pcie(options):
    """microvm with PCI: virtio-mmio devices and PCI functions behind one IOMMU (strict)."""
    t = trial(options, "microvm", "-machine", "pcie=on")
    t.disk("virtio-blk", "01.0")
    t.disk("nvme", "02.0")
    with t.boot("iommu.strict=1") as guest:
        t.verify("DMA")
        guest.poweroff()
    return t


def microvm_passthrough(options):
    """microvm with ACPI and iommu=pt: bypass domains, no access translated."""
    t = trial(options, "microvm")
    with t.boot("iommu=pt") as guest:
        t.verify("identity")
        guest.poweroff()
    return t


def virt_dt(options):
    """Arm virt by device tree: virtio-mmio devices and PCI functions (strict, the default)."""
    t = trial(options, "virt", acpi=False)
    t.disk("virtio-blk", "01.0")
    t.disk("nvme", "02.0")
    with t.boot() as guest:
        t.verify("DMA")
        guest.poweroff()
    return t


def virt_dt_lazy(options):
    """Arm virt by device tree, with lazy unmapping."""
    t = trial(options, "virt", acpi=False)
    with t.boot("iommu.strict=0") as guest:
        t.verify("DMA-FQ")
        guest.poweroff()
    return t


def virt_acpi(options):
    """Arm virt with edk2: virtio-mmio devices and PCI functions, described by VIOT (lazy)."""
    check(os.path.exists(EDK2), "edk2 for Arm is missing: install the package qemu-efi-aarch64.")
    # edk2 waits for ever for a device whose DMA is blocked.
    t = trial(options, "virt", "-bios", EDK2, bypass_at_boot=True)
    t.disk("virtio-blk", "01.0")
    t.disk("nvme", "02.0")
    with t.boot("iommu.strict=0") as guest:
        t.verify("DMA-FQ")
        guest.poweroff()
    return t


def idle(options, machine, *more, **kinds):
    t = MmioTrial(options, machine, *more, **kinds)
    t.mmio_disk(3, iommu_platform=False)
    return t


def microvm_idle(options):
    """microvm with ACPI: the IOMMU manages nothing, because no device wants it."""
    t = idle(options, "microvm")
    with t.boot() as guest:
        t.verify_bypass(t.endpoints)
        t.verify_idle()
        guest.poweroff()
    return t


def microvm_idle_pci(options):
    """microvm with PCI: one IOMMU manages the functions, one on PCI nothing."""
    t = idle(options, "microvm", "-machine", "pcie=on")
    behind = t.disk("nvme", "01.0")
    t.add("-device", "virtio-iommu-pci,id=second,addr=02.0,boot-bypass=off,"
                     "root-bus=main-system-bus")
    with t.boot() as guest:
        t.verify_bypass([e for e in t.endpoints if e is not behind])
        t.verify("DMA-FQ", [behind])
        t.verify_idle("/machine/peripheral/second/virtio-backend")
        guest.poweroff()
    return t


def virt_acpi_idle(options):
    """Arm virt with edk2: the default bus bypasses, and no transport wants the IOMMU."""
    check(os.path.exists(EDK2), "edk2 for Arm is missing: install the package qemu-efi-aarch64.")
    t = idle(options, "virt", "-bios", EDK2, "-machine", "default_bus_bypass_iommu=on")
    t.disk("virtio-blk", "01.0")
    t.disk("nvme", "02.0")
    with t.boot() as guest:
        t.verify_bypass(t.endpoints)
        t.verify_idle()
        guest.poweroff()
    return t


run.SCENARIOS = {f.__name__: f for f in (microvm, microvm_pcie, microvm_passthrough,
                                         microvm_idle, microvm_idle_pci,
                                         virt_dt, virt_dt_lazy, virt_acpi, virt_acpi_idle)}

if __name__ == "__main__":
    sys.exit(run.main(__doc__))
