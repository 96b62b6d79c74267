#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots real Linux guests on q35 and verifies DMA through their virtio-iommu."""
import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import fetch
import initramfs
from vm import Guest, GuestError, NetPeer

DISK_BYTES = 64 << 20
WRITE_BYTES = 4 << 20
FRAMES = 1000
IOMMU = "iommu"
IOMMU_SLOT = "02.0"
BASE_MODULES = ("virtio_iommu", "virtio_blk", "virtio_net", "nvme")


def check(condition, text):
    if not condition:
        raise GuestError(text)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@dataclass
class Endpoint:
    """A function behind the IOMMU and what was seen of it."""
    path: str
    driver: str
    what: str = "none"  # disk, net or none: which DMA it can show
    file: Path = None
    netdev: str = ""
    device: dict = field(default_factory=dict)
    report: list = field(default_factory=list)
    translations: int = None

    @property
    def requester(self):
        _, bus, rest = self.device["name"].split(":")
        slot, function = rest.split(".")
        return int(bus, 16) << 8 | int(slot, 16) << 3 | int(function)


class Trial:
    """Collects a guest's devices, boots it and checks what its endpoints do."""

    def __init__(self, options, flavour="cloud", modules=(), bypass_at_boot=False):
        self.options, self.folder = options, Path(tempfile.mkdtemp(prefix="viommu-guest."))
        self.kernel = fetch.kernel("amd64", flavour, log=note)
        self.initramfs = initramfs.build(self.kernel, [*BASE_MODULES, *modules])
        self.endpoints, self.netdevs, self.guest = [], [], None
        # With bypass off, whatever reaches memory was translated or let through by a domain.
        self.args = ["-machine", "q35,accel=tcg", "-cpu", "qemu64", "-smp", "2", "-m", "512",
                     "-device", f"virtio-iommu-pci,id={IOMMU},addr={IOMMU_SLOT},"
                                f"boot-bypass={'on' if bypass_at_boot else 'off'}"]
        if not bypass_at_boot:
            # Keeps SeaBIOS from waiting for disks whose DMA is still blocked.
            self.args += ["-boot", "strict=on"]

    def add(self, *args):
        self.args += args

    def _place(self, path, bus):
        where = f"addr={path.split('/')[-1]}"
        return f"bus={bus},{where}" if bus else where

    def disk_file(self, name):
        file = self.folder / f"{name}.img"
        file.write_bytes(os.urandom(DISK_BYTES))
        return file

    def disk(self, model, path, bus=None, extra=""):
        name = f"disk{len(self.endpoints)}"
        file = self.disk_file(name)
        self.add("-blockdev", f"driver=file,filename={file},node-name={name}")
        kind = {"virtio-blk": "virtio-blk-pci,disable-legacy=on,iommu_platform=on",
                "nvme": f"nvme,serial={name}"}[model]
        self.add("-device", f"{kind},drive={name},id={name},{self._place(path, bus)}{extra}")
        self.endpoints.append(Endpoint(path, model.replace("-", "_"), "disk", file))
        return self.endpoints[-1]

    def net(self, model, path, bus=None, extra=""):
        name = f"net{len(self.endpoints)}"
        kind = "virtio-net-pci,disable-legacy=on,iommu_platform=on" if model == "virtio-net" \
            else model
        self.netdevs.append(name)
        self.add("-device", f"{kind},netdev={name},id={name},romfile=,"
                            f"{self._place(path, bus)}{extra}")
        self.endpoints.append(Endpoint(path, model.replace("-", "_"), "net", netdev=name))
        return self.endpoints[-1]

    def boot(self, kernel_args="", limit=60):
        self.guest = Guest(self.folder, self.options.qemu, "amd64", self.kernel.image,
                           self.initramfs, self.args, kernel_args, limit)
        for name in self.netdevs:
            self.guest.network(name)
        return self.guest

    # --- checks ------------------------------------------------------------------

    def verify_groups(self, domain_type, endpoints=None):
        """Each endpoint has its driver, a group of the wanted type, and our IOMMU."""
        devices = self.guest.devices()
        iommu = devices[IOMMU_SLOT]
        check(iommu["virtio"] == "virtio_iommu", "no driver is bound to the virtio-iommu")
        for e in endpoints or self.endpoints:
            check(e.path in devices, f"{e.path}: the guest has no such function "
                                     f"(it has {' '.join(sorted(devices))})")
            d = e.device = devices[e.path]
            driver = d["virtio"] if d["driver"] == "virtio-pci" else d["driver"]
            check(driver == e.driver, f"{e.path}: driver {driver}, expected {e.driver}")
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
                jobs.append((e, self.guest.begin_command("net", e.device["name"], FRAMES)))
        for e, job in jobs:
            (self._check_disk if e.what == "disk" else self._check_net)(e, job.result())

    def _check_disk(self, e, data):
        before = sha256(e.file.read_bytes())
        check(int(data[0]["bytes"]) == DISK_BYTES, f"{e.path}: {data[0]['bytes']} bytes read")
        check(data[0]["sha256"] == before, f"{e.path} ({e.driver}): the disk read in the guest "
                                           "differs from the file on the host")
        written = self.guest.run("disk-write", e.device["name"], WRITE_BYTES)[0]
        with open(e.file, "rb") as disk:
            check(written["sha256"] == sha256(disk.read(WRITE_BYTES)),
                  f"{e.path} ({e.driver}): what the guest wrote is not what the host finds")
        e.report = [f"read {DISK_BYTES >> 20} MiB, wrote {WRITE_BYTES >> 20} MiB, "
                    f"SHA-256 equal ({before[:12]}..)"]

    def _check_net(self, e, data):
        peer = self.guest.peers[e.netdev]
        sent, received = data
        want = FRAMES * NetPeer.PAYLOAD
        check(int(sent["sent"]) == want and int(received["received"]) == want,
              f"{e.path} ({e.driver}): the network carried too little")
        check(sent["sent_sha256"] == sha256(peer.joined(peer.received)),
              f"{e.path} ({e.driver}): bytes from the guest arrived changed")
        check(received["received_sha256"] == sha256(peer.joined(peer.sent)),
              f"{e.path} ({e.driver}): bytes to the guest arrived changed")
        e.report = [f"{want / 1e6:.1f} MB each way, SHA-256 equal both ways"]

    def verify_counters(self, translated=True, endpoints=None):
        """The device's own counters agree; a QEMU whose device has none proves it by bypass off."""
        counters = self.guest.endpoints(IOMMU)
        if counters is None:
            return
        for e in endpoints or self.endpoints:
            c = counters.get(e.requester)
            check(c and c["attached"], f"{e.path} ({e.driver}): the device model says that "
                                       f"endpoint {e.requester:#x} is not attached")
            e.translations = c["translations"]
            check(c["bypass"] != translated, f"{e.path} ({e.driver}): bypass is {c['bypass']}")
            check((c["translations"] > 0) == translated,
                  f"{e.path} ({e.driver}): {c['translations']} translations")
            check(c["faults"] == 0, f"{e.path} ({e.driver}): {c['faults']} faults")

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
        return "\n".join("  " + "  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip()
                         for r in rows)


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


SCENARIOS = {f.__name__: f for f in (seabios,)}


def run(name, options):
    """Runs one scenario; returns None or what went wrong."""
    begin, trial = time.monotonic(), None
    try:
        trial = SCENARIOS[name](options)
    except (GuestError, fetch.FetchError, OSError) as err:
        return str(err)
    note(f"{name}: verified in {time.monotonic() - begin:.1f} s")
    print(trial.table(), flush=True)
    if not options.keep:
        shutil.rmtree(trial.folder)
    return None


def main():
    names = "\n".join(f"  {n:10} {f.__doc__.splitlines()[0]}" for n, f in SCENARIOS.items())
    parser = argparse.ArgumentParser(description=f"{__doc__}\n\nscenarios:\n{names}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"], metavar="SCENARIO")
    parser.add_argument("--qemu", required=True, help="the qemu-system-x86_64 to test")
    parser.add_argument("--keep", action="store_true", help="keep disks and logs of each guest")
    options = parser.parse_args()
    failed = 0
    for name in SCENARIOS if options.scenario == "all" else [options.scenario]:
        error = run(name, options)
        if error:
            failed += 1
            note(f"{name}: FAILED: {error}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
