# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines without a guest for the tools to look at: the test is the driver."""
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "agreement"))
import driver  # noqa: E402
import qtest  # noqa: E402

MAP = 3
MAP_TABLES, MAP_REQUESTS, MAP_SIZE = 0x38000, 0x3a000, 36


class Viommu(driver.Viommu):
    """One that also maps."""

    def map_pages(self, domain, first_page, count, rights=3):
        """Maps `count` pages at IOVA and physical address page * 4096."""
        q, base = self.qemu, self.base
        if self.tables != MAP_TABLES:
            q.store(base + MAP_TABLES, b"".join(
                struct.pack("<QIHHQIHH", base + MAP_REQUESTS + MAP_SIZE * i, MAP_SIZE, 1, 1,
                            base + driver.TAILS + 4 * i, 4, 2, 0) for i in range(driver.DEPTH)))
            self._use_tables(MAP_TABLES, 2)
        for at in range(first_page, first_page + count, driver.DEPTH):
            pages = range(at, at + driver.DEPTH)
            q.store(base + MAP_REQUESTS, b"".join(
                struct.pack("<B3xIQQQI", MAP, domain, page << 12, (page << 12) + 0xfff,
                            page << 12, rights) for page in pages))
            expect(self._batch([b"\0"]), driver.OK) # the requests are elsewhere


def machine(program, socket, args):
    """q35 with these options and a monitor at `socket`."""
    return qtest.Qemu(program, "x86_64", ["-qmp", f"unix:{socket},server=on,wait=off", *args])


# Two IOMMUs, an expander, root ports, a conventional bridge, forty functions and more.
RICH = []
PORTS, ON_ROOT, ON_EXPANDER = 8, 16, 8


def _rich():
    args = ["-device", "virtio-iommu-pci,id=iommu0,bus=pcie.0,addr=2,boot-bypass=off",
            "-device", "virtio-iommu-pci,id=iommu1,bus=pcie.0,addr=3,root-bus=pxb1",
            "-device", "pxb-pcie,id=pxb1,bus_nr=0x40,bus=pcie.0,addr=4",
            "-device", "pxb-pcie,id=pxb2,bus_nr=0x80,bus=pcie.0,addr=5,bypass_iommu=on",
            "-device", "pcie-pci-bridge,id=conventional,bus=pcie.0,addr=6",
            "-device", "edu,id=old1,bus=conventional,addr=1",
            "-device", "edu,id=old2,bus=conventional,addr=2"]
    for i in range(ON_ROOT):
        more = ",multifunction=on" if i % 8 == 0 else ""
        args += ["-device", f"pci-testdev,id=function{i},bus=pcie.0,addr={7 + i // 8:x}.{i % 8}{more}"]
    for i in range(PORTS):
        args += ["-device", f"pcie-root-port,id=port{i},bus=pcie.0,chassis={i},addr={0x10 + i:x}",
                 "-device", f"edu,id=card{i},bus=port{i}"]
    for i in range(ON_EXPANDER):
        args += ["-device", f"pcie-root-port,id=far-port{i},bus=pxb1,chassis={100 + i},addr={i:x}",
                 "-device", f"e1000e,id=a-rather-long-name-of-a-network-card-{i},bus=far-port{i},romfile="]
    return args


RICH = _rich()


def drive_rich(qemu):
    """Numbers its buses, attaches and maps; returns the IOMMUs."""
    qemu.set_bus_numbers(0x30, 1, 1)
    for i in range(PORTS):
        qemu.set_bus_numbers((0x10 + i) << 3, 2 + i, 2 + i)
    for i in range(ON_EXPANDER):
        qemu.set_bus_numbers(0x4000 | i << 3, 0x41 + i, 0x41 + i)
    iommus = [Viommu(qemu, rid, i) for i, rid in enumerate((0x10, 0x18))]
    for iommu in iommus:
        iommu.bring_up()
    near, far = iommus
    for i in range(ON_ROOT):
        rid = (7 + i // 8) << 3 | i % 8
        if i % 4 != 3:
            expect(near.attach([rid], 1 + i // 2), driver.OK)
    for i in range(PORTS):
        expect(near.attach([2 + i << 8], 100 if i < 4 else 100 + i), driver.OK)
    expect(near.attach([0x108], 200), driver.OK)
    for i in range(ON_EXPANDER - 1):
        expect(far.attach([0x41 + i << 8, 0x4000 | i << 3], i), driver.OK)
    near.map_pages(100, 0x100, 512)
    far.map_pages(0, 0x100, 256)
    return iommus


def expect(statuses, wanted):
    if set(statuses) != {wanted}:
        raise qtest.QemuError(f"the driver was answered {list(statuses)}, not {wanted}")
