#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots the bare guest, once per scenario and array layout, and checks its table.

The guest judges what it can see.  The host judges what only it can: that the
bytes which the devices moved are the right ones, and that the array named the
endpoints of the machine that was asked for.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

LIMIT = 20  # seconds for one boot that should take a fraction of one
SECTOR = 512
READ_SECTOR, WRITE_SECTOR, IO_SIZE = 16, 64, 4096
LAYOUTS = ("v2", "v3")

DISK = "-blockdev driver=file,node-name=d0,filename={disk},locking=off"
ENTROPY = "-object rng-random,id=r0,filename={entropy}"
ON_MMIO = ("-global virtio-mmio.force-legacy=off "
           "-device virtio-iommu-mmio,bus=virtio-mmio-bus.1,topology={layout},boot-bypass=off "
           "-device virtio-blk-device,drive=d0,bus=virtio-mmio-bus.3,iommu_platform=on "
           "-device virtio-rng-device,rng=r0,bus=virtio-mmio-bus.5,iommu_platform=on "
           # The array does not name it, and it bypasses.
           "-device virtio-rng-device,rng=r0,bus=virtio-mmio-bus.6")
ON_PCI = ("-device virtio-iommu-pci,bus=pcie.0,addr=2,topology={layout},boot-bypass=off "
          "-device virtio-blk-pci,bus=pcie.0,addr=3,drive=d0,iommu_platform=on,disable-legacy=on "
          "-device virtio-rng-pci,bus=pcie.0,addr=4,rng=r0,iommu_platform=on,disable-legacy=on")
X86 = {"qemu": "x86_64", "image": "x86", "exit": "-device isa-debug-exit,iobase=0x501",
       "passed": 33, "failed": 35}
ARM = {"qemu": "aarch64", "image": "arm", "exit": "", "passed": 0, "failed": 0}
EVERYWHERE = ("io", "shared", "move", "bypass", "reset", "array")
MACHINES = {
    "microvm": dict(
        X86, args="-machine microvm,acpi=off", devices=ON_MMIO,
        scenarios=EVERYWHERE + ("outside",),
        lines=("iommu mmio=0xfeb00200",
               "item id=0xffff0003 base=0xfeb00600", "item id=0xffff0005 base=0xfeb00a00",
               "endpoint id=0xffff0003 mmio=0xfeb00600 kind=block",
               "endpoint id=0xffff0005 mmio=0xfeb00a00 kind=entropy",
               "endpoint id=0x0 mmio=0xfeb00c00 kind=entropy")),
    "q35": dict(
        X86, args="-machine q35 -bios qboot.rom", devices=ON_PCI, scenarios=EVERYWHERE,
        lines=("iommu pci=0x10",
               "endpoint id=0x18 pci=0x18 kind=block", "endpoint id=0x20 pci=0x20 kind=entropy")),
    "virt": dict(
        ARM, args="-machine virt -cpu cortex-a57", devices=ON_MMIO,
        scenarios=EVERYWHERE + ("outside",),
        lines=("iommu mmio=0xa000200",
               "item id=0xffff0003 base=0xa000600", "item id=0xffff0005 base=0xa000a00",
               "range id=0x0 segment=0x0 first=0x0 last=0xffff",
               "endpoint id=0xffff0003 mmio=0xa000600 kind=block",
               "endpoint id=0xffff0005 mmio=0xa000a00 kind=entropy",
               "endpoint id=0x0 mmio=0xa000c00 kind=entropy")),
    "virt-pci": dict(
        ARM, args="-machine virt -cpu cortex-a57", devices=ON_PCI, scenarios=EVERYWHERE,
        lines=("iommu pci=0x10",
               "endpoint id=0x18 pci=0x18 kind=block", "endpoint id=0x20 pci=0x20 kind=entropy")),
}
# What a scenario has to show at least: fault records, transfers of each device.
FAULTS = {"io": 4, "shared": 1, "reset": 2}
TRANSFERS = {"io": 2, "shared": 1, "move": 2, "bypass": 1, "reset": 2, "outside": 1}


class BareError(Exception):
    """One sentence about what is wrong."""


def command(machine, scenario, layout, qemu, image, disk, entropy, guest_layout=None):
    m = MACHINES[machine]
    words = (f"-nodefaults -no-user-config -display none -no-reboot -serial stdio -m 64 "
             f"{m['args']} {m['exit']} {DISK} {ENTROPY} {m['devices']}")
    return [qemu, *words.format(layout=layout, disk=disk, entropy=entropy).split(),
            "-kernel", str(image),
            "-fw_cfg", f"name=opt/viommu/bare,string=scenario={scenario}:"
                       f"layout={guest_layout or layout}"]


def boot(args):
    try:
        done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired as err:
        raise BareError(f"the guest did not end by itself:\n{err.stdout}") from err
    return done.returncode, [line.rstrip("\r") for line in done.stdout.splitlines()], done.stderr


def crc(data):
    return zlib.crc32(data)


def check_data(scenario, lines, disk, before, entropy):
    seen = {"read": 0, "written": 0, "filled": 0}
    last_written = None
    possible = {}
    for line in lines:
        m = re.fullmatch(r"data kind=(\w+) (\w+)=(0x[0-9a-f]+) crc=(0x[0-9a-f]+)", line)
        if not m:
            continue
        what, size, value = m[2], int(m[3], 16), int(m[4], 16)
        seen[what] += 1
        if what == "read":
            start = READ_SECTOR * SECTOR
            if size != IO_SIZE or value != crc(before[start:start + size]):
                raise BareError(f"the guest read something else than the disk holds: {line}")
        elif what == "written":
            last_written = value
        else:
            if size not in possible:
                possible[size] = {crc(entropy[i:i + size]) for i in range(len(entropy) - size + 1)}
            if not size or value not in possible[size]:
                raise BareError(f"the guest got bytes that the entropy source never had: {line}")
    if last_written is not None:
        start = WRITE_SECTOR * SECTOR
        if crc(disk[start:start + IO_SIZE]) != last_written:
            raise BareError("the disk does not hold what the guest wrote")
        after = before[:start] + disk[start:start + IO_SIZE] + before[start + IO_SIZE:]
        if disk != after:
            raise BareError("the disk changed elsewhere")
    wanted = TRANSFERS.get(scenario, 0)
    disks = scenario != "outside"
    if seen["filled"] < wanted or (disks and min(seen["read"], seen["written"]) < wanted):
        raise BareError(f"transfers are missing: {seen}")


def run(machine, scenario, layout, qemu, image, folder):
    """Boots once and checks everything; returns (checks, seconds)."""
    m = MACHINES[machine]
    disk, entropy = folder / "disk", folder / "entropy"
    before, noise = os.urandom(1 << 17), os.urandom(1 << 14)
    disk.write_bytes(before)
    entropy.write_bytes(noise)
    begin = time.monotonic()
    status, lines, errors = boot(command(machine, scenario, layout, qemu, image, disk, entropy))
    seconds = time.monotonic() - begin
    try:
        if status != m["passed"]:
            raise BareError(f"QEMU ended with status {status}, expected {m['passed']}")
        bad = [line for line in lines if "FAIL" in line or line.startswith("failed")]
        if bad:
            raise BareError(bad[0])
        made = sum(line.startswith("check ok ") for line in lines)
        if not lines or lines[-1] != f"result pass checks={made}" or made < 3:
            raise BareError("the table does not end with a result that fits it")
        for line in m["lines"]:
            if line not in lines:
                raise BareError(f"the table lacks the line: {line}")
        extra = [line for line in lines if line.startswith(("endpoint ", "item ", "iommu "))
                 and line not in m["lines"]]
        if extra:
            raise BareError(f"the table has a line too many: {extra[0]}")
        if sum(line.startswith("fault ") for line in lines) < FAULTS.get(scenario, 0):
            raise BareError("fault records are missing")
        check_data(scenario, lines, disk.read_bytes(), before, noise)
    except BareError as err:
        raise BareError(f"{err}\n" + "\n".join(lines) + "\n" + errors) from err
    return made, seconds


def refuses_the_other_layout(machine, qemu, image, folder):
    """The guest's own verdict has to be able to be 'failed'."""
    (folder / "disk").write_bytes(bytes(1 << 17))
    (folder / "entropy").write_bytes(bytes(1 << 14))
    for layout, other in (LAYOUTS, LAYOUTS[::-1]):
        status, lines, _ = boot(command(machine, "io", layout, qemu, image, folder / "disk",
                                        folder / "entropy", guest_layout=other))
        if (status != MACHINES[machine]["failed"] or
                lines[-1:] != ["failed: the IOMMU shows no array of this layout"]):
            raise BareError(f"the guest took an array of layout {layout} for {other}: {lines[-3:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("machine", choices=MACHINES)
    parser.add_argument("--qemu-dir", required=True, type=Path,
                        help="folder with qemu-system-x86_64 and qemu-system-aarch64")
    parser.add_argument("--images", required=True, type=Path,
                        help="folder with bare-x86.elf and bare-arm.elf")
    parser.add_argument("--scenario", help="only this one")
    parser.add_argument("--show", action="store_true",
                        help="print the command line and the guest's table, and check nothing")
    args = parser.parse_args()
    m = MACHINES[args.machine]
    qemu = args.qemu_dir / f"qemu-system-{m['qemu']}"
    image = args.images / f"bare-{m['image']}.elf"
    if args.scenario and args.scenario not in m["scenarios"]:
        parser.error(f"{args.machine} has the scenarios {', '.join(m['scenarios'])}")
    scenarios = (args.scenario,) if args.scenario else m["scenarios"]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="viommu-bare-") as name:
        folder = Path(name)
        if args.show:
            (folder / "disk").write_bytes(os.urandom(1 << 17))
            (folder / "entropy").write_bytes(os.urandom(1 << 14))
            line = command(args.machine, scenarios[0], "v2", qemu, image, folder / "disk",
                           folder / "entropy")
            print(" ".join(map(str, line)), flush=True)
            print("\n".join(boot(line)[1]))
            return
        for scenario in scenarios:
            for layout in LAYOUTS:
                title = f"{args.machine} {scenario} {layout}"
                try:
                    made, seconds = run(args.machine, scenario, layout, qemu, image, folder)
                    print(f"ok {title}: {made} checks, {seconds:.2f} s")
                except BareError as err:
                    failed += 1
                    print(f"FAILED {title}: {err}")
        if not args.scenario:
            try:
                refuses_the_other_layout(args.machine, qemu, image, folder)
                print(f"ok {args.machine} refuses the other layout")
            except BareError as err:
                failed += 1
                print(f"FAILED {args.machine}: {err}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
