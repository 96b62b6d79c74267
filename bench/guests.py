# SPDX-License-Identifier: GPL-2.0-or-later
"""Times the disks of a Linux guest without an IOMMU and behind either device.

The disks have no medium (QEMU's null-co), so that what is timed is the guest's driver, the way of
the request through QEMU, and the DMA.
"""

import contextlib
import os
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/guest"))

import fetch  # noqa: E402
import initramfs  # noqa: E402
from vm import Guest, GuestError  # noqa: E402

DEVICES = ("none", "ours", "intree")
MODES = {"lazy": "iommu.strict=0", "strict": "iommu.strict=1"}
DISKS = {"virtio-blk": "0000:00:05.0", "nvme": "0000:00:06.0"}
# What is read at a time, and how often in a full run.
PATTERNS = {"4 KiB random": ("random", 4 << 10, 8000),
            "64 KiB sequential": ("sequential", 64 << 10, 3000)}
# Of the reads whose requests are counted: small, odd, even, large.
SIZES = (4, 28, 60, 64, 124)
MODULES = ("virtio_iommu", "virtio_blk", "nvme")


def arguments(device, iommu=""):
    args = ["-machine", "q35,accel=tcg", "-cpu", "qemu64", "-smp", "1", "-m", "512",
            "-boot", "strict=on"]
    if device != "none":
        args += ["-device", f"virtio-iommu-pci,id=iommu,addr=02.0{iommu}"]
    for index, (model, path) in enumerate(DISKS.items()):
        more = {"virtio-blk": "virtio-blk-pci,disable-legacy=on,iommu_platform=on",
                "nvme": "nvme,serial=bench"}[model]
        args += ["-blockdev", f"null-co,node-name=disk{index},size={1 << 30},read-zeroes=on",
                 "-device", f"{more},drive=disk{index},addr={path[-4:]}"]
    return args


def verify(guest, device):
    """Either every disk has an IOMMU group, or there is no IOMMU."""
    for path, found in guest.devices().items():
        if found["name"] in DISKS.values() and (found["group"] == "none") != (device == "none"):
            raise GuestError(f"{path} is in the IOMMU group {found['group']}")


@contextlib.contextmanager
def modules_of(build, device):
    """QEMU takes its device modules from where this says; Guest passes the environment on."""
    before = os.environ.get("QEMU_MODULE_DIR")
    os.environ["QEMU_MODULE_DIR"] = str(build / "bench" / device)
    try:
        yield
    finally:
        del os.environ["QEMU_MODULE_DIR"]
        if before is not None:
            os.environ["QEMU_MODULE_DIR"] = before


@contextlib.contextmanager
def booted(build, qemu, device, mode, iommu=""):
    kernel = fetch.kernel("amd64", "cloud", log=lambda text: print(text, file=sys.stderr))
    image = initramfs.build(kernel, MODULES)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="viommu-bench."))
    try:
        with modules_of(build, device), \
                Guest(folder, qemu, "amd64", kernel.image, image, arguments(device, iommu),
                      MODES[mode], limit=600) as guest:
            verify(guest, device)
            yield guest
            guest.poweroff()
    finally:
        shutil.rmtree(folder)


def measure(build, qemu, device, mode, share):
    """[{disk, pattern, ns}] for one guest; @share of the full number of reads."""
    found = []
    with booted(build, qemu, device, mode) as guest:
        for disk, path in DISKS.items():
            for pattern, (order, size, count) in PATTERNS.items():
                count = max(10, int(count * share))
                guest.run("disk-time", path, order, size, max(10, count // 10))
                [data] = guest.run("disk-time", path, order, size, count)
                found.append({"disk": disk, "pattern": pattern, "ns": int(data["ns"]) / count})
    return found


def requests(build, qemu):
    """Requests to the IOMMU for a read of each size, with all and with sparse page sizes."""
    found = []
    for sparse in ("off", "on"):
        with booted(build, qemu, "ours", "strict", f",sparse-page-sizes={sparse}") as guest:
            def count():
                return guest.qmp.call("qom-get", path="/machine/peripheral/iommu/virtio-backend",
                                      property="stats")["requests"]
            for disk, path in DISKS.items():
                for kib in SIZES:
                    guest.run("disk-time", path, "sequential", kib << 10, 20)
                    before = count()
                    # A buffer in pieces takes a request for each of them.
                    if guest.run("disk-time", path, "sequential", kib << 10,
                                 200)[0]["whole"] != "1":
                        raise GuestError("the guest found no huge page to read into")
                    found.append({"disk": disk, "kib": kib, "sparse": sparse,
                                  "requests": (count() - before) / 200})
    return found
