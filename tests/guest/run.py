#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots real Linux guests on q35 and verifies DMA through their virtio-iommu."""
import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import fetch
import initramfs
import iso9660
from vm import Guest, GuestError, NetPeer

DISK_BYTES = 64 << 20
WRITE_BYTES = 4 << 20
FRAMES = 1000
IOMMU = "iommu"
IOMMU_SLOT = "02.0"
OVMF = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd")
VFIO_MODULES = ("vfio_pci", "vfio_iommu_type1 allow_unsafe_interrupts=1")
BASE_MODULES = ("virtio_iommu", "virtio_blk", "virtio_net", "nvme")
README = Path(__file__).resolve().parents[2] / "README.md"
# Where a build leaves QEMU's own virtio-iommu, which is not in the QEMU that is tested.
OWN_DEVICE = Path(__file__).resolve().parents[2] / "build/bench/intree"


def check(condition, text):
    if not condition:
        raise GuestError(text)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def requester_id(name):
    _, bus, rest = name.split(":")
    slot, function = rest.split(".")
    return int(bus, 16) << 8 | int(slot, 16) << 3 | int(function)


@dataclass
class Endpoint:
    """A function behind the IOMMU and what was seen of it."""
    path: str
    driver: str
    what: str  # disk or net: how it shows its DMA
    file: Path = None
    netdev: str = ""
    conventional: bool = False
    alias: int = None  # the ID under which bridges hand its DMA on
    device: dict = field(default_factory=dict)
    report: list = field(default_factory=list)
    translations: int = None

    @property
    def counted_as(self):
        """The requester ID that the IOMMU sees; a conventional bus has but one, its bridge's."""
        if self.alias is not None:
            return self.alias
        requester = requester_id(self.device["name"])
        return requester & 0xff00 if self.conventional else requester


def get_kernel(options, arch, flavour):
    """Debian's kernel that --kernel names; the flavour is the scenario's, unless that does, too."""
    suite, _, named = options.kernel.partition(":")
    options.booted = fetch.kernel(arch, named or flavour, log=note, suite=suite)
    return options.booted


def versions(text):
    return [tuple(map(int, v)) for v in re.findall(r"\b(\d+)\.(\d+)\.(\d+)", text)]


def newest_seen():
    """The newest kernel in README's section "Kernels"."""
    text = README.read_text(encoding="utf-8")
    return max(versions(text.split("\n## Kernels\n")[1].split("\n## ")[0]))


def about_kernel(kernel):
    """What a failure says of the guest's kernel."""
    newest = newest_seen()
    words = f"the guest's kernel was {kernel.release} (Debian {kernel.version})"
    if versions(kernel.version)[0] > newest:
        words += (f", newer than {'.'.join(map(str, newest))}, the newest that README.md names: "
                  "that may be the reason")
    return words


def kernel_warnings(console):
    """What a guest's kernel complained of; the faults that a test provokes are none."""
    return [line for line in console.splitlines()
            if re.search(r"WARNING: |BUG: |virtio_iommu|iommu: ", line)
            and " fault from EP " not in line]


class Trial:
    """Collects a guest's devices, boots it and checks what its endpoints do."""
    disk_bytes, frames = DISK_BYTES, FRAMES

    def __init__(self, options, flavour="cloud", modules=(), bypass_at_boot=False,
                 machine="q35"):
        self.options, self.folder = options, options.folder
        self.kernel = get_kernel(options, "amd64", flavour)
        self.initramfs = initramfs.build(self.kernel, [*BASE_MODULES, *modules])
        self.endpoints, self.netdevs, self.notes, self.guest = [], [], [], None
        # With bypass off, whatever reaches memory was translated or let through by a domain.
        self.args = ["-machine", f"{machine},accel=tcg", "-cpu", "qemu64", "-smp", "2", "-m", "512",
                     "-device", f"virtio-iommu-pci,id={IOMMU},addr={IOMMU_SLOT},"
                                f"boot-bypass={'on' if bypass_at_boot else 'off'}"]
        if not bypass_at_boot:
            # Keeps SeaBIOS from waiting for disks whose DMA is still blocked.
            self.args += ["-boot", "strict=on"]

    def add(self, *args):
        self.args += args

    def disk_file(self, name):
        file = self.folder / f"{name}.img"
        file.write_bytes(os.urandom(self.disk_bytes))
        return file

    def disk_options(self, model, path, bus=None):
        """The -blockdev and -device of a disk as dictionaries, and its endpoint."""
        name = f"disk{len(self.endpoints)}"
        file = self.disk_file(name)
        device = {"virtio-blk": {"driver": "virtio-blk-pci", "disable-legacy": "on",
                                 "iommu_platform": True},
                  "nvme": {"driver": "nvme", "serial": name}}[model]
        device |= {"id": name, "drive": name, "addr": path.split("/")[-1]}
        if bus:
            device["bus"] = bus
        self.endpoints.append(Endpoint(path, model.replace("-", "_"), "disk", file))
        return ({"driver": "file", "filename": str(file), "node-name": name}, device,
                self.endpoints[-1])

    def disk(self, model, path, bus=None, **more):
        blockdev, device, endpoint = self.disk_options(model, path, bus)
        self.add("-blockdev", json.dumps(blockdev), "-device", json.dumps(device | more))
        return endpoint

    def disk_behind(self, controller, model, bus, path, driver):
        """A disk of a controller's own bus; what does DMA is the function at `path`."""
        name = f"disk{len(self.endpoints)}"
        file = self.disk_file(name)
        self.add(*controller, "-blockdev", json.dumps(
            {"driver": "file", "filename": str(file), "node-name": name}),
                 "-device", f"{model},id={name},drive={name},bus={bus}")
        self.endpoints.append(Endpoint(path, driver, "disk", file))
        return self.endpoints[-1]

    def net(self, model, path, bus=None):
        name = f"net{len(self.endpoints)}"
        device = {"driver": model}
        if model == "virtio-net":
            device = {"driver": "virtio-net-pci", "disable-legacy": "on", "iommu_platform": True}
        device |= {"id": name, "netdev": name, "romfile": "", "addr": path.split("/")[-1]}
        if bus:
            device["bus"] = bus
        self.netdevs.append(name)
        self.add("-device", json.dumps(device))
        self.endpoints.append(Endpoint(path, model.replace("-", "_"), "net", netdev=name))
        return self.endpoints[-1]

    def carry_kernel(self):
        """The initramfs has kernel and initramfs once more, in /kexec, for the guest to start."""
        whole = self.folder / "initramfs.img"
        plain = self.initramfs.read_bytes()
        # Linux unpacks archives that follow each other.
        whole.write_bytes(plain + initramfs.cpio([
            ("kexec", 0o040755, b"", (0, 0)),
            ("kexec/kernel", 0o100644, self.kernel.image.read_bytes(), (0, 0)),
            ("kexec/initramfs", 0o100644, plain, (0, 0))]))
        self.initramfs = whole

    def boot(self, kernel_args="", qemu=None, **more):
        self.guest = Guest(self.folder, qemu or self.options.qemu, "amd64", self.kernel.image,
                           self.initramfs, self.args, kernel_args, **more)
        for name in self.netdevs:
            self.guest.network(name)
        return self.guest

    # --- checks ------------------------------------------------------------------

    def verify_groups(self, domain_type, endpoints=None):
        """Each endpoint has its driver, a group of the wanted type, and our IOMMU."""
        wanted = endpoints or self.endpoints
        # They are bound when the IOMMU's driver is there, by and by.
        devices = self.guest.wait_for("the drivers of all endpoints", lambda devices: all(
            e.driver in (devices.get(e.path, {}).get("driver"),
                         devices.get(e.path, {}).get("virtio")) for e in wanted) and devices,
                                      seconds=60)
        # Where there are several, the first is in that slot.
        iommus = [d for path, d in sorted(devices.items(), key=lambda item: item[0] != IOMMU_SLOT)
                  if d["virtio"] == "virtio_iommu"]
        check(iommus, "no driver is bound to the virtio-iommu")
        iommu = iommus[0]
        for e in wanted:
            d = e.device = devices[e.path]
            driver = e.driver
            check(d["virtio"] == "none" or d["platform"] == "1",
                  f"{e.path} ({driver}): without ACCESS_PLATFORM its data is not translated")
            check(d["group"] != "none", f"{e.path} ({driver}): in no IOMMU group, its DMA "
                                        "is not translated")
            check(d["iommu"] == iommu["name"],
                  f"{e.path} ({driver}): belongs to IOMMU {d['iommu']}, not {iommu['name']}")
            check(d["type"] == domain_type, f"{e.path} ({driver}): domain type {d['type']}, "
                                            f"expected {domain_type}")

    def verify_dma(self, endpoints=None):
        """All endpoints carry data at the same time; both sides compare hashes."""
        jobs = []
        for e in endpoints or self.endpoints:
            if e.what == "disk":
                jobs.append((e, self.guest.begin_command("disk-read", e.device["name"])))
            elif e.what == "net":
                jobs.append((e, self.guest.begin_command("net", e.device["name"], self.frames)))
        for e, job in jobs:
            (self._check_disk if e.what == "disk" else self._check_net)(e, job.result())

    def _check_disk(self, e, data):
        before = sha256(e.file.read_bytes())
        check(int(data[0]["bytes"]) == self.disk_bytes, f"{e.path}: {data[0]['bytes']} bytes read")
        check(data[0]["sha256"] == before, f"{e.path} ({e.driver}): the disk read in the guest "
                                           "differs from the file on the host")
        written = self.guest.run("disk-write", e.device["name"], WRITE_BYTES)[0]
        with open(e.file, "rb") as disk:
            check(written["sha256"] == sha256(disk.read(WRITE_BYTES)),
                  f"{e.path} ({e.driver}): what the guest wrote is not what the host finds")
        e.report = [f"read {self.disk_bytes >> 20} MiB, wrote {WRITE_BYTES >> 20} MiB, "
                    f"SHA-256 equal ({before[:12]}..)"]

    def _check_net(self, e, data):
        sent, received = data
        want = self.frames * NetPeer.PAYLOAD
        check(int(sent["sent"]) == want and int(received["received"]) == want,
              f"{e.path} ({e.driver}): the network carried too little")
        from_guest, to_guest = self.guest.peers[e.netdev].hashes(sent["mac"])
        check(sent["sent_sha256"] == from_guest,
              f"{e.path} ({e.driver}): bytes from the guest arrived changed")
        check(received["received_sha256"] == to_guest,
              f"{e.path} ({e.driver}): bytes to the guest arrived changed")
        e.report = [f"{want / 1e6:.1f} MB each way, SHA-256 equal both ways"]

    def verify_counters(self, translated=True, endpoints=None):
        """The device's own counters agree with what the guest did."""
        if not self.options.counters:
            return
        counters = self.guest.endpoints(IOMMU)
        for e in endpoints or self.endpoints:
            c = counters.get(e.counted_as)
            check(c and c["attached"], f"{e.path} ({e.driver}): the device model says that "
                                       f"endpoint {e.counted_as:#x} is not attached")
            e.translations = c["translations"]
            check(c["bypass"] != translated, f"{e.path} ({e.driver}): bypass is {c['bypass']}")
            check((c["translations"] > 0) == translated,
                  f"{e.path} ({e.driver}): {c['translations']} translations")
            check(c["faults"] == 0, f"{e.path} ({e.driver}): {c['faults']} faults")

    def wait_for_translations(self, e, more):
        """The function does DMA at this moment."""
        def count():
            return self.guest.endpoints(IOMMU)[e.counted_as]["translations"]
        goal = count() + more
        while count() < goal:
            check(time.monotonic() < self.guest.deadline, f"{e.path} ({e.driver}): does no DMA")
            time.sleep(0.02)

    def verify_detached(self, e):
        """A function that is gone is in no domain any more."""
        if self.options.counters:
            check(not self.guest.endpoints(IOMMU).get(e.counted_as, {}).get("attached"),
                  f"{e.path} ({e.driver}): gone, but still attached")

    def verify(self, domain_type, endpoints=None):
        self.verify_groups(domain_type, endpoints)
        self.verify_dma(endpoints)
        self.verify_counters(domain_type != "identity", endpoints)

    def table(self):
        rows = [("function", "driver", "group", "domain", "translations", "verified")]
        for e in self.endpoints:
            count = "-" if e.translations is None else str(e.translations)
            rows.append((e.device.get("name", e.path), e.driver, e.device.get("group", "-"),
                         e.device.get("type", "-"), count, "; ".join(e.report) or "-"))
        widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip() for r in rows]
        return "\n".join("  " + line for line in lines + self.notes)


def note(text):
    print(f"guest: {text}", file=sys.stderr, flush=True)


# --- scenarios ----------------------------------------------------------------------

def four_kinds(options, **more):
    """virtio-blk, virtio-net, NVMe and e1000e side by side."""
    t = Trial(options, "generic", ["e1000e"], **more)
    t.disk("virtio-blk", "03.0")
    t.net("virtio-net", "04.0")
    t.disk("nvme", "05.0")
    t.net("e1000e", "06.0")
    return t


def seabios(options):
    """SeaBIOS; four kinds of function translated in one guest, bypass off from the start."""
    t = four_kinds(options)
    with t.boot() as guest:
        t.verify("DMA-FQ")
        guest.poweroff()
    return t


def ovmf(options):
    """OVMF; the same four kinds, found through the tables that UEFI hands over."""
    t = four_kinds(options, bypass_at_boot=True)
    code = next((c for c in OVMF if os.path.exists(c)), None)
    check(code, "OVMF is missing: install the package ovmf.")
    variables = t.folder / "vars.img"
    shutil.copyfile(code.replace("_CODE", "_VARS"), variables)
    t.add("-drive", f"if=pflash,format=raw,readonly=on,file={code}",
          "-drive", f"if=pflash,format=raw,file={variables}")
    with t.boot() as guest:
        t.verify("DMA-FQ")
        guest.poweroff()
    return t


def leave_out(options):
    """MOD-15: the boot disk bypasses; the driver of the IOMMU is on it, not in the initramfs."""
    t = Trial(options)
    t.initramfs = initramfs.build(t.kernel, ["isofs", *BASE_MODULES[1:]])
    t.args = [arg.replace(f"id={IOMMU},", f"id={IOMMU},leave-out=disk0,") for arg in t.args]
    boot, *others = [t.disk("virtio-blk", "03.0"), t.disk("virtio-blk", "04.0"),
                     t.net("virtio-net", "05.0"), t.disk("nvme", "06.0")]
    modules = initramfs.resolve_modules(t.kernel, BASE_MODULES[:1])
    root = iso9660.image({f"{name}.ko": data for name, _, data in modules} | {
        "list": "".join(f"{name}.ko\n" for name, _, _ in modules).encode()})
    with open(boot.file, "r+b") as disk:
        disk.write(root)
    with t.boot() as guest:
        devices = guest.wait_for("the boot disk's driver", lambda devices: boot.driver == devices[
            boot.path]["virtio"] and devices)
        boot.device = devices[boot.path]
        check(boot.device["group"] == "none", "the boot disk is in an IOMMU group")
        for e in others:
            check(devices[e.path]["driver"] == "none",
                  f"{e.path} ({e.driver}): does not wait for the IOMMU's driver")
        guest.run("mount", boot.device["name"], "iso9660")
        guest.run("modules", "/mounted")
        guest.run("unmount")
        t.verify_groups("DMA-FQ", others)
        check(guest.devices()[boot.path]["group"] == "none", "the boot disk is in a group now")
        t.verify_dma()
        t.verify_counters(endpoints=others)
        if options.counters:
            check(boot.counted_as not in guest.endpoints(IOMMU), "the boot disk is an endpoint")
        boot.report.insert(0, "mounted, the IOMMU's driver loaded from it")
        guest.poweroff()
    return t


def passthrough(options):
    """iommu=pt: every domain is a BYPASS domain, and no access is translated."""
    t = Trial(options)
    t.disk("virtio-blk", "03.0")
    t.net("virtio-net", "04.0")
    t.disk("nvme", "05.0")
    with t.boot("iommu=pt") as guest:
        t.verify("identity")
        guest.poweroff()
    return t


def strict(options):
    """iommu.strict=1: mappings are removed at once, domains are of type DMA."""
    t = Trial(options)
    t.disk("virtio-blk", "03.0")
    t.net("virtio-net", "04.0")
    t.disk("nvme", "05.0")
    with t.boot("iommu.strict=1") as guest:
        t.verify("DMA")
        guest.poweroff()
    return t


def bridge(options):
    """W17: functions behind a conventional bridge, in one group; and a multifunction device."""
    t = Trial(options, "generic", ["e1000"])
    t.add("-device", "pcie-pci-bridge,id=bridge,addr=03.0")
    behind = [t.disk("virtio-blk", "03.0/01.0", "bridge"), t.net("e1000", "03.0/02.0", "bridge")]
    for e in behind:
        e.conventional = True
    functions = [t.disk("virtio-blk", "04.0", multifunction=True), t.net("virtio-net", "04.1")]
    with t.boot() as guest:
        t.verify("DMA-FQ")
        check(behind[0].device["group"] == behind[1].device["group"],
              "two functions behind one conventional bridge are in different groups")
        check(functions[0].device["group"] != behind[0].device["group"],
              "a function of its own is in the group of the bridge")
        guest.poweroff()
    return t


def like_proxmox(options, machine, outer, *bridges):
    """Functions behind conventional bridges; the IOMMU comes last, where QEMU puts it."""
    t = Trial(options, "generic", ["e1000"], machine=machine)
    iommu = t.args[-4:]  # with -boot
    del t.args[-4:]
    iommu[1] = iommu[1].replace(f",addr={IOMMU_SLOT}", "")
    t.add(*bridges)
    t.disk("virtio-blk", f"{outer}/0a.0", "conventional")
    t.net("virtio-net", f"{outer}/12.0", "conventional")
    t.net("e1000", f"{outer}/13.0", "conventional")
    for e in t.endpoints:
        e.alias = requester_id("0000:00:1e.0")
    t.add(*iommu)
    with t.boot() as guest:
        t.verify("DMA-FQ")
        check(len({e.device["group"] for e in t.endpoints}) == 1,
              "functions behind one conventional bridge are in different groups")
        guest.poweroff()
    return t


def proxmox(options):
    """W17: as Proxmox lays q35 out: behind i82801b11-bridge and pci-bridge, the IOMMU last."""
    return like_proxmox(options, "q35", "1e.0/01.0", "-device", "i82801b11-bridge,id=dmi,addr=1e.0",
                        "-device", "pci-bridge,id=conventional,bus=dmi,addr=1.0,chassis_nr=1")


def proxmox_pc(options):
    """W17: as Proxmox lays pc (i440FX) out: behind pci-bridge, the IOMMU last."""
    return like_proxmox(options, "pc", "1e.0", "-device",
                        "pci-bridge,id=conventional,addr=1e.0,chassis_nr=1")


def sriov(options):
    """Two virtual functions of an igb are enabled in the guest and carry data of their own."""
    t = Trial(options, "generic", ["igb", "igbvf"])
    t.add("-device", "pcie-root-port,id=rp,chassis=1,addr=03.0")
    pf = t.net("igb", "03.0/00.0", "rp")
    with t.boot() as guest:
        t.verify("DMA-FQ")
        guest.run("write", f"/sys/bus/pci/devices/{pf.device['name']}/sriov_numvfs", 2)
        vfs = guest.wait_for("two virtual functions with a driver", lambda devices: [
            path for path, d in devices.items() if d["driver"] == "igbvf"][1:] and sorted(
            path for path, d in devices.items() if d["driver"] == "igbvf"))
        for path in vfs:
            t.endpoints.append(Endpoint(path, "igbvf", "net", netdev=pf.netdev))
        t.verify("DMA-FQ", t.endpoints[1:])
        check(len({e.device["group"] for e in t.endpoints}) == 3,
              "the functions of one igb share a group")
        guest.run("write", f"/sys/bus/pci/devices/{pf.device['name']}/sriov_numvfs", 0)
        guest.wait_for("the virtual functions to go", lambda devices: vfs[0] not in devices)
        for e in t.endpoints[1:]:
            t.verify_detached(e)
        guest.poweroff()
    return t


FAULT = r"{reason} fault from EP {endpoint} at {address:#x} \[[^]]*{kind}[^]]*\]"

# Of a function that no driver has: Linux 7 keeps it in a domain without mappings.
OUTSIDE = "(?:domain|page)"

EDU = "edu,addr={path},dma_mask=0xffffffffffff"


def bind_edu(guest, path):
    """Gives an edu device to VFIO's driver; returns its name."""
    guest.run("write", "/sys/bus/pci/drivers/vfio-pci/new_id", "1234", "11e8")
    edu = guest.devices()[path]
    check(edu["driver"] == "vfio-pci" and edu["group"] != "none",
          f"edu: driver {edu['driver']}, group {edu['group']}")
    return edu["name"]


def verify_vfio(guest, edu):
    """An edu device reaches what VFIO maps for it and no more; the guest logs each fault."""
    iova = 0x40000000  # nothing of the guest's memory is there
    steps = {d["step"]: d for d in guest.run("vfio", edu, iova, 2 << 20)}
    check(int(steps["mapped"]["copied"]) == 3 * 4096, "the device copied too little")
    for step in ("unmapped", "read-only"):
        guest.wait_console(FAULT.format(reason="page", endpoint=requester_id(edu), kind="W",
                                        address=int(steps[step]["iova"], 16)))


def faults(options):
    """DMA outside of what is mapped changes no memory, and the guest's driver logs each fault."""
    t = Trial(options, modules=VFIO_MODULES)
    t.disk("virtio-blk", "03.0")
    t.add("-device", EDU.format(path="04.0"))
    with t.boot() as guest:
        edu = guest.devices()["04.0"]
        endpoint = requester_id(edu["name"])

        # No driver, no domain: not even a right guess of a physical address helps.
        attempt = guest.run("edu", edu["name"])[0]
        check(attempt["changed"] == "0", "an endpoint in no domain wrote to guest memory")
        guest.wait_console(FAULT.format(reason=OUTSIDE, endpoint=endpoint, kind="W",
                                        address=int(attempt["address"], 16)))

        verify_vfio(guest, bind_edu(guest, "04.0"))
        if options.counters:
            c = guest.endpoints(IOMMU)[endpoint]
            check(c["translations"] > 0 and c["faults"] >= 3,
                  f"edu: {c['translations']} translations, {c['faults']} faults")
        t.verify("DMA-FQ")
        t.notes += [f"edu: DMA in no domain blocked, fault from EP {endpoint} logged",
                    "edu through VFIO: 2 MiB mapped, data carried both ways",
                    "edu through VFIO: write after unmap and write to a read-only mapping "
                    "blocked, faults logged"]
        guest.poweroff()
    return t


def hotplug(options):
    """W18: disks come and go under a root port; each newcomer starts without the old mappings."""
    t = Trial(options)
    t.add("-device", "pcie-root-port,id=rp,chassis=1,addr=03.0")
    with t.boot() as guest:
        for model in ("virtio-blk", "nvme"):
            blockdev, device, e = t.disk_options(model, "03.0/00.0", "rp")
            guest.qmp.call("blockdev-add", **blockdev)
            guest.qmp.call("device_add", **device)
            guest.wait_for(f"a hot-plugged {model}", lambda devices, e=e: e.driver in (
                devices.get(e.path, {}).get("driver"), devices.get(e.path, {}).get("virtio")))
            t.verify("DMA-FQ", [e])
            guest.qmp.call("device_del", id=device["id"])
            guest.qmp.wait_event("DEVICE_DELETED", 20, device=device["id"])
            guest.wait_for(f"the {model} to go", lambda devices, e=e: e.path not in devices)
            t.verify_detached(e)
            guest.qmp.call("blockdev-del", **{"node-name": blockdev["node-name"]})
            e.report.append("unplugged")
        guest.poweroff()
    return t


def attachments(guest):
    return {e["id"]: (e["domain"], e["bypass"]) for e in guest.endpoints(IOMMU).values()
            if e["attached"]}


def migrate(options):
    """W26: a guest is saved while its disk is read and goes on in a new QEMU."""
    t = Trial(options, "generic", ["e1000e"])
    disk = t.disk("virtio-blk", "03.0")
    t.net("virtio-net", "04.0")
    t.net("e1000e", "05.0")
    with t.boot() as source:
        t.verify_groups("DMA-FQ")
        jobs = [source.begin_command("disk-read", disk.device["name"]) for _ in range(6)]
        if options.counters:
            before = attachments(source)
            check(requester_id(disk.device["name"]) in before, "the disk is not attached")
            t.wait_for_translations(disk, 1000)
        source.save()
        under_way = sum(not job.done for job in jobs)
        check(under_way > 0, "the guest was saved too late, all reads had ended")
    want = sha256(disk.file.read_bytes())
    with t.boot(saved=source) as guest:
        if options.counters:
            check(attachments(guest) == before, "attachments changed on the way")
        for job in jobs:
            check(job.result()[0]["sha256"] == want,
                  "what the guest read while it moved differs from the file on the host")
        # The counters of the new QEMU began at 0.
        t.verify_counters(endpoints=[disk])
        t.verify("DMA-FQ")
        t.notes.append(f"saved with {under_way} of {len(jobs)} reads under way; all are right")
        guest.poweroff()
    return t


HELD_IOVA = 0x70000000  # nothing of the guest's memory is there


@dataclass
class HeldPage:
    """A page that VFIO keeps mapped for an edu device as long as its kernel runs."""
    edu: str
    address: int  # guest-physical
    contents: bytes = b"\x5a" * 4096

    @property
    def endpoint(self):
        return requester_id(self.edu)

    def is_unchanged(self, guest):
        return guest.memory(self.address, 4096) == self.contents

    def _write(self, t, offset):
        """The device writes eight bytes; by how much its (faults, translations) grew."""
        def counts():
            c = t.guest.endpoints(IOMMU)[self.endpoint]
            return c["faults"], c["translations"]
        before = counts() if t.options.counters else ()
        t.guest.run("edu-write", self.edu, HELD_IOVA + offset)
        return tuple(b - a for a, b in zip(before, counts())) if t.options.counters else None

    def write_in_vain(self, t, offset, kept):
        """What the device writes must fault; `kept`: nobody else has used the page's memory."""
        grown = self._write(t, offset)
        check(not kept or self.is_unchanged(t.guest),
              f"edu: a write to {offset:#x} behind the mapping's begin changed the page")
        check(not grown or grown[0] > 0 and grown[1] == 0,
              f"edu at {offset:#x} behind the mapping's begin: {grown} more faults, translations")

    def write_through(self, t, offset):
        """What the device writes arrives there and nowhere else."""
        grown = self._write(t, offset)
        check(grown[0] == 0 and grown[1] > 0,
              f"edu at what the first kernel mapped: {grown} more faults, translations")
        now = t.guest.memory(self.address, 4096)
        end = offset + 8
        check(now[offset:end] != self.contents[offset:end] and
              now[:offset] + now[end:] == self.contents[:offset] + self.contents[end:],
              "edu: what it wrote did not arrive, or elsewhere")
        self.contents = now


def hold_page(guest, edu):
    held = guest.run("vfio-hold", edu, HELD_IOVA)[0]
    check(held["reached"] == "1", "edu: does not reach what VFIO mapped for it")
    page = HeldPage(edu, int(held["address"], 16))
    check(page.is_unchanged(guest), "edu: the host finds the page elsewhere")
    return page


def verify_empty(guest):
    """W5, INI-D1: what a driver finds that has reset the device."""
    left, attached = guest.stats(IOMMU), attachments(guest)
    check(not left["domains"] and not left["mappings"] and not attached,
          f"{left['domains']} domains, {left['mappings']} mappings and the attachments "
          f"{attached} of the first kernel are left")


def verify_domains(guest):
    """The device has one domain for each of this kernel's groups, and no other."""
    grouped = {requester_id(d["name"]): d["group"] for d in guest.devices().values()
               if d["group"] != "none"}
    attached, domains = attachments(guest), guest.stats(IOMMU)["domains"]
    check(attached.keys() == grouped.keys(),
          f"the guest has groups for {sorted(grouped)}, attached are {sorted(attached)}")
    pairs = {(grouped[i], domain) for i, (domain, _) in attached.items()}
    check(len(pairs) == len({g for g, _ in pairs}) == len({d for _, d in pairs}) == domains,
          f"{domains} domains; groups and domains are {sorted(pairs)}")


def two_kernels(options, when, first_args, second_args, start, readers):
    """A kernel leaves its work to another.

    What the first one mapped may stay until the second one's driver is there, and has to where
    functions are still at work (W31); then nothing of it is left (W5).
    """
    t = Trial(options, modules=VFIO_MODULES)
    t.carry_kernel()
    disks = [t.disk("virtio-blk", "03.0"), t.disk("nvme", "05.0")]
    t.net("virtio-net", "04.0")
    t.add("-device", EDU.format(path="06.0"))
    with t.boot(first_args) as guest:
        t.verify("DMA-FQ")
        page = hold_page(guest, bind_edu(guest, "06.0"))
        guest.run("kexec-load", when, guest.basic_args, "modules=held", second_args)
        jobs = [guest.begin_command("disk-read", d.device["name"]) for d in disks * readers]
        if options.counters:
            for d in disks if jobs else []:
                t.wait_for_translations(d, 500)
            first = guest.stats(IOMMU)
            check(page.endpoint in attachments(guest) and first["mappings"] > 0,
                  "the first kernel leaves nothing behind")
        guest.next_kernel(*start)
        under_way = sum(not job.done for job in jobs)
        check(under_way or not jobs, "the first kernel ended too late, all reads had ended")

        # virtio_pci, which is built in, has reset the device; its driver is a module.
        before, lingers = {}, False
        if options.counters:
            before = {i: c["translations"] for i, c in guest.endpoints(IOMMU).items()}
            lingers = guest.stats(IOMMU)["lingering"]
            # A kernel that panics resets nothing, so that was the only reset.  One that shuts
            # down resets the device (Linux from 6.12.115 and 6.15 on) or stops its functions.
            check(lingers or when != "crash", "the functions lost what the first kernel mapped, "
                                              "although they are still at work")
            if not lingers:
                verify_empty(guest)
        # Other than a crash kernel, one started in peace uses all of the memory.
        kept = when == "crash"
        if lingers:
            page.write_in_vain(t, 4096, kept)
            if kept:
                page.write_through(t, 8)
        else:
            page.write_in_vain(t, 0, kept)
        guest.run("modules")
        guest.wait_for("the drivers of all endpoints", lambda devices: all(
            e.driver in (devices[e.path]["driver"], devices[e.path]["virtio"])
            for e in t.endpoints))
        page.write_in_vain(t, 64, kept)
        guest.wait_console(FAULT.format(reason=OUTSIDE, endpoint=page.endpoint, kind="W",
                                        address=HELD_IOVA + 64))
        t.verify("DMA")
        for e in t.endpoints if options.counters else []:
            e.translations -= before[e.counted_as]
            check(e.translations > 0, f"{e.path} ({e.driver}): no translation since the reset")
        verify_vfio(guest, bind_edu(guest, "06.0"))
        if options.counters:
            verify_domains(guest)
            t.notes.append(f"the first kernel ended with {first['domains']} domains, "
                           f"{first['mappings']} mappings and {under_way} reads under way, "
                           f"which {'lingered' if lingers else 'ended with the reset'}; "
                           "nothing of it is left")
        guest.poweroff()
    return t


def kexec(options):
    """W5, W31: reboot(2) starts another kernel, which is strict."""
    # Linux' shutdown forbids DMA to the IOMMU too.  Its driver polls for answers with interrupts
    # off: a request after that, as a read makes it, would hang the kernel.
    return two_kernels(options, "reboot", "", "iommu.strict=1", ("kexec",), readers=0)


def crash(options):
    """W5, W31: a kernel panics while disks are read; its crash kernel finds the devices at work."""
    return two_kernels(options, "crash", "crashkernel=192M", "iommu.strict=1 nr_cpus=1",
                       ("write", "/proc/sysrq-trigger", "c"), readers=4)


RESUMES = 20  # seconds within which a guest that resumes has done so


def suspend(options):
    """S3: what the host may rely on, whether the guest's driver can resume or not."""
    t = Trial(options)
    t.disk("virtio-blk", "03.0")
    t.disk("nvme", "04.0")
    with t.boot("iommu.strict=1", reboots=True) as guest:
        t.verify("DMA")
        # Linux' driver answers nobody while its device is suspended.  One after the other, and
        # strict, nobody asks then: the IOMMU was found first and is suspended last.
        guest.run("write", "/sys/power/pm_async", 0)
        job = guest.begin_command("write", "/sys/power/state", "mem")
        guest.qmp.wait_event("SUSPEND", 30)
        guest.qmp.call("system_wakeup")
        guest.qmp.wait_event("WAKEUP", 10)
        until = time.monotonic() + RESUMES
        while not job.done and time.monotonic() < until:
            guest.agent_line()
        if job.done:
            job.result()
            t.verify("DMA")
            t.notes.append("its kernel resumed")
        else:
            # It waits for ever, but the device is as after a reset, and QEMU as ever.
            if options.counters:
                verify_empty(guest)
            t.notes.append(f"its kernel did not resume within {RESUMES} s; all functions were "
                           "detached")
        guest.reset()
        t.verify("DMA")
        t.notes.append("after a reset of the machine all is as after a start")
        guest.poweroff()
    return t


PATIENCE = 3.0  # seconds on top of what the end takes with QEMU's own device
GIVE_UP = 90  # an NVMe controller that cannot fetch its last commands costs a minute


def six_kinds(options, bypass_at_boot):
    """One of each kind of function that has to be quiet before a kernel ends."""
    t = Trial(options, "generic", ["e1000e", "ahci", "sd_mod", "xhci_pci",
                                   "usb_storage delay_use=0"],
              bypass_at_boot=bypass_at_boot)
    t.disk_bytes, t.frames = WRITE_BYTES, 100
    t.carry_kernel()
    t.disk("virtio-blk", "03.0")
    t.disk("nvme", "04.0")
    t.net("e1000e", "05.0")
    t.net("virtio-net", "06.0")
    t.disk_behind(["-device", "qemu-xhci,id=xhci,addr=07.0"], "usb-storage", "xhci.0", "07.0",
                  "xhci_hcd")
    t.disk_behind([], "ide-hd", "ide.0", "1f.2", "ahci")
    return t


def three_ends(options, bypass_at_boot, first, second):
    """Reboots, starts a kernel in another mode, and powers off; [(way, mode, seconds)]."""
    modes = {"lazy": ("", "DMA-FQ"), "strict": ("iommu.strict=1", "DMA")}
    t = six_kinds(options, bypass_at_boot)
    took = []

    def begin_of_the_end(guest, mode):
        t.verify_groups(modes[mode][1])
        t.verify_dma()
        # As with "quiet": drivers that unmap with an IOMMU that was reset warn of each buffer,
        # and what is timed is not the serial port.
        guest.run("write", "/proc/sys/kernel/printk", 4)

    with t.boot(modes[first][0], limit=600, reboots=True, modules=options.modules) as guest:
        begin_of_the_end(guest, first)
        for e in t.endpoints if options.counters else []:
            # The firmware may have tried in vain, so there may be faults.
            c = guest.endpoints(IOMMU)[e.counted_as]
            check(c["attached"] and not c["bypass"] and c["translations"] > 0,
                  f"{e.path} ({e.driver}): nothing was translated")
        took.append(("reboot", first, guest.reboot(GIVE_UP)))
        begin_of_the_end(guest, first)
        guest.run("kexec-load", "reboot", guest.basic_args, guest.EARLY_CONSOLE, modes[second][0])
        took.append(("kexec", first, guest.kexec(GIVE_UP)))
        begin_of_the_end(guest, second)
        took.append(("power-off", second, guest.poweroff(GIVE_UP, busy=True)))
    return t, took


def poweroff(options):
    """Power-off, reboot and kexec with six kinds of function are as fast as with QEMU's device.

    Every way to end is seen in both modes and with both values of boot-bypass.
    """
    check((options.own_device / "devices/virtio-iommu.so").exists(),
          f"{options.own_device} has no module of QEMU's own device: see --own-device.")
    own = argparse.Namespace(**vars(options))
    own.counters, own.modules = False, options.own_device
    try:
        yardstick = {way: seconds for way, _, seconds in three_ends(own, False, "lazy", "strict")[1]}
    except GuestError as err:
        # It is not what is tested.  Each takes 0.3 to 4 s where it works; a hang takes 60.
        note(f"QEMU's own device did not get that far: {err}")
        yardstick = dict.fromkeys(("reboot", "kexec", "power-off"), 5.0)
    for bypass, first, second in ((False, "lazy", "strict"), (True, "strict", "lazy")):
        t, took = three_ends(options, bypass, first, second)
        late = []
        for way, mode, seconds in took:
            line = (f"{way}, {mode}, boot-bypass={'on' if bypass else 'off'}: {seconds:.1f} s, "
                    f"QEMU's own device {yardstick[way]:.1f} s")
            note(line)
            t.notes.append(line)
            if seconds > yardstick[way] + PATIENCE:
                late.append(line)
        check(not late, f"more than {PATIENCE:.0f} s longer than with QEMU's own device: "
                        f"{'; '.join(late)}")
    return t


SCENARIOS = {f.__name__: f for f in (seabios, ovmf, leave_out, passthrough, strict, bridge, proxmox,
                                     proxmox_pc, sriov, faults, hotplug, migrate, kexec, crash,
                                     suspend, poweroff)}


def demo(options):
    """The scenario seabios, told for people."""
    begin = time.monotonic()
    trial = seabios(options)
    print(f"""
A Linux guest ({trial.kernel.release}, Debian's) booted on q35 behind the virtio-iommu, with
bypass off: no function could reach memory but through a mapping of the guest's driver.

{trial.table()}

"translations" is the device's own count of the accesses it gave an address.  Each disk and
network held random bytes; their SHA-256 was taken in the guest and on the host.
All {len(trial.endpoints)} functions verified in {time.monotonic() - begin:.0f} s.""", flush=True)


HELD, FAILED, SKIPPED = 0, 1, 77  # as exit status; meson knows the last one


def run(name, options):
    """Runs one scenario in a folder of its own."""
    begin = time.monotonic()
    options.folder = Path(tempfile.mkdtemp(prefix="viommu-guest."))
    options.booted = None
    keep = options.keep
    try:
        if name == "demo":
            demo(options)
        else:
            trial = SCENARIOS[name](options)
            note(f"{name}: verified in {time.monotonic() - begin:.1f} s "
                 f"with Linux {options.booted.release}")
            console = options.folder / "console.log"
            warnings = kernel_warnings(console.read_text(errors="replace"))
            if warnings:
                trial.notes.append(f"its kernel warned in {len(warnings)} lines, first: "
                                   f"{warnings[0].strip()}")
            print(trial.table(), flush=True)
        return HELD
    except initramfs.NoDriver as err:
        # The kernel that is taken unasked has to have one.
        skip = options.kernel.partition(":")[0] != fetch.SUITE
        note(f"{name}: {'SKIPPED' if skip else 'FAILED'}: {err}")
        return SKIPPED if skip else FAILED
    except (GuestError, fetch.FetchError, OSError) as err:
        note(f"{name}: FAILED: {err}")
        if options.booted:
            note(about_kernel(options.booted))
        for image in options.folder.glob("*.img"):
            image.unlink()
        for log in options.folder.glob("*.log"):
            keep = True
            text = log.read_text(errors="replace").splitlines()[-12:]
            note("\n    ".join([f"end of {log}:", *text]))
        return FAILED
    finally:
        if not keep:
            shutil.rmtree(options.folder, ignore_errors=True)


def overall(outcomes):
    """One that failed counts for all; skipped is a run in which nothing was seen."""
    return FAILED if FAILED in outcomes else min(outcomes)


def main(about, demonstrates=False):
    """The command line of one of the programs here; `about` is what it says of itself."""
    # So that the folder goes, too; QEMU goes in any case.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("guest: terminated"))
    names = "\n".join(f"  {n:12} {f.__doc__.splitlines()[0]}" for n, f in SCENARIOS.items())
    more = {"demo": "seabios, told for people"} if demonstrates else {}
    more["all"] = "each of them"
    names += "".join(f"\n  {name:12} {what}" for name, what in more.items())
    parser = argparse.ArgumentParser(
        description=f"{about}\n\nscenarios:\n{names}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=[*SCENARIOS, *more], metavar="SCENARIO")
    parser.add_argument("--qemu", required=True,
                        help="the QEMU to test, qemu-system-aarch64 for names with virt")
    parser.add_argument("--keep", action="store_true", help="keep disks and logs of each guest")
    parser.add_argument("--no-counters", dest="counters", action="store_false",
                        help="for a virtio-iommu that has no property 'endpoints', as QEMU's own")
    parser.add_argument("--own-device", type=Path, default=OWN_DEVICE, metavar="FOLDER",
                        help="the module folder with QEMU's own virtio-iommu, with which "
                             "'poweroff' compares (default: %(default)s)")
    parser.add_argument("--kernel", default=fetch.SUITE, metavar="RELEASE[:FLAVOUR]",
                        help="boot the kernel of this release of Debian "
                             f"({', '.join(fetch.SUITES)}; default: %(default)s), generic or "
                             "cloud instead of the scenario's choice")
    parser.set_defaults(modules=None)  # those of the environment
    options = parser.parse_args()
    suite, _, flavour = options.kernel.partition(":")
    if suite not in fetch.SUITES or flavour not in ("", "generic", "cloud"):
        parser.error(f"no kernel is called {options.kernel}")
    if not os.access(options.qemu, os.X_OK):
        sys.exit(f"guest: {options.qemu} is no program")
    sys.exit(overall([run(name, options) for name in
                      (SCENARIOS if options.scenario == "all" else [options.scenario])]))


if __name__ == "__main__":
    main(__doc__, demonstrates=True)
