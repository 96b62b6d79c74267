#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots the bare guest, once per scenario and array layout, and checks its table.

The guest judges what it can see.  The host judges what only it can: that the
bytes which the devices moved are the right ones, and that the array named the
endpoints of the machine that was asked for.

With --accel kvm the guest runs on the host's processor.  Where the host cannot do
that, the status is 77; from the moment that a probe made a virtual machine, everything
that fails is a failure, but for what QEMU reports as an internal error of KVM: some hosts
emulate guests, and lack instructions.
"""
import argparse
import fcntl
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

# Seconds for one boot that should take a fraction of one; a KVM that emulates is slow.
LIMITS = {"tcg": 20, "kvm": 120}
SKIPPED = 77
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
# Each processor has a disk of its own; two disks do their DMA in a thread of their own.
PROCESSORS = 4
MORE_DISKS = "".join(f" -blockdev driver=file,node-name=d{i},filename={{disk}}{i},locking=off"
                     for i in range(1, PROCESSORS))
MORE_TRANSPORTS = (2, 4, 7)
MORE_ON_MMIO = f"-smp {PROCESSORS}{MORE_DISKS}" + "".join(
    f" -device virtio-blk-device,drive=d{i},bus=virtio-mmio-bus.{bus},iommu_platform=on"
    for i, bus in enumerate(MORE_TRANSPORTS, 1))
MORE_ON_PCI = (f"-smp {PROCESSORS}{MORE_DISKS} -object iothread,id=t2 -object iothread,id=t3" +
               "".join(f" -device virtio-blk-pci,bus=pcie.0,addr={i + 4},drive=d{i},"
                       "iommu_platform=on,disable-legacy=on" + (f",iothread=t{i}" if i > 1 else "")
                       for i in range(1, PROCESSORS)))
X86 = {"qemu": "x86_64", "image": "x86", "exit": "-device isa-debug-exit,iobase=0x501",
       "passed": 33, "failed": 35}
ARM = {"qemu": "aarch64", "image": "arm", "exit": "", "passed": 0, "failed": 0}
EVERYWHERE = ("io", "shared", "move", "bypass", "reset", "array")
MACHINES = {
    "microvm": dict(
        X86, args="-machine microvm,acpi=off", devices=ON_MMIO,
        scenarios=EVERYWHERE + ("outside", "processors"),
        more=MORE_ON_MMIO,
        disks=(0xffff0003, *(0xffff0000 + bus for bus in MORE_TRANSPORTS)),
        lines=("iommu mmio=0xfeb00200",
               "item id=0xffff0003 base=0xfeb00600", "item id=0xffff0005 base=0xfeb00a00",
               "endpoint id=0xffff0003 mmio=0xfeb00600 kind=block",
               "endpoint id=0xffff0005 mmio=0xfeb00a00 kind=entropy",
               "endpoint id=0x0 mmio=0xfeb00c00 kind=entropy"),
        more_lines=tuple(f"item id={0xffff0000 + bus:#x} base={0xfeb00000 + 0x200 * bus:#x}"
                         for bus in MORE_TRANSPORTS) +
        tuple(f"endpoint id={0xffff0000 + bus:#x} mmio={0xfeb00000 + 0x200 * bus:#x} kind=block"
              for bus in MORE_TRANSPORTS)),
    "q35": dict(
        X86, args="-machine q35 -bios qboot.rom", devices=ON_PCI,
        scenarios=EVERYWHERE + ("interrupts", "processors"),
        more=MORE_ON_PCI,
        more_lines=tuple(f"endpoint id={i * 8:#x} pci={i * 8:#x} kind=block" for i in (5, 6, 7)),
        disks=(0x18, 0x28, 0x30, 0x38),
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
FAULTS = {"io": 4, "shared": 1, "reset": 2, "interrupts": 2}
TRANSFERS = {"io": 2, "shared": 1, "move": 2, "bypass": 1, "reset": 2, "outside": 1,
             "interrupts": 1}
# Of each processor; in each fourth its disk is blocked, in each eighth twice.
ROUNDS = {"tcg": 16, "kvm": 8}
# What KVM itself has to have served, by QEMU's trace: the kicks of the devices and the
# messages of the disk.
KVM_TRACES = {
    "interrupts": (r"^kvm_set_ioeventfd_mmio .* assign: 1 ",
                   r"^kvm_irqchip_add_msi_route dev virtio-blk-pci vector 0 virq \d+$"),
}
KVM_GET_API_VERSION, KVM_CREATE_VM = 0xae00, 0xae01
KVM_API_VERSION = 12


KVM_GAVE_UP = "KVM internal error"  # as QEMU says it


class BareError(Exception):
    """One sentence about what is wrong."""


class CannotRun(Exception):
    """One sentence about what the host lacks."""


def why_no_kvm(device="/dev/kvm", processor=platform.machine()):
    """A sentence if no x86 guest can run under KVM here, None if a virtual machine was made."""
    if processor != "x86_64":
        return f"this host is {processor}, whose KVM runs no x86 guest"
    try:
        with open(device, "r+b", buffering=0) as kvm:
            version = fcntl.ioctl(kvm, KVM_GET_API_VERSION, 0)
            if version != KVM_API_VERSION:
                return f"{device} has version {version} of KVM's interface, not {KVM_API_VERSION}"
            os.close(fcntl.ioctl(kvm, KVM_CREATE_VM, 0))
    except OSError as err:
        return f"{device} makes no virtual machine: {err.strerror}"
    return None


def kind_of(accel):
    return "kvm" if accel.startswith("-accel kvm") else "tcg"


def accel_words(accel, irqchip):
    if accel == "tcg":
        return "-accel tcg"
    traces = " ".join(f"-trace {name}" for name in ("kvm_set_ioeventfd_mmio",
                                                    "kvm_irqchip_add_msi_route"))
    return f"-accel kvm,kernel-irqchip={irqchip} {traces}"


def command(machine, scenario, layout, qemu, image, disk, entropy, guest_layout=None,
            accel="-accel tcg"):
    m = MACHINES[machine]
    words = (f"-nodefaults -no-user-config -display none -no-reboot -serial stdio -m 64 {accel} "
             f"{m['args']} {m['exit']} {DISK} {ENTROPY} {m['devices']}")
    if scenario == "processors":
        words += " " + m["more"]
    return [qemu, *words.format(layout=layout, disk=disk, entropy=entropy).split(),
            "-kernel", str(image),
            "-fw_cfg", f"name=opt/viommu/bare,string=scenario={scenario}:"
                       f"layout={guest_layout or layout}:rounds={ROUNDS[kind_of(accel)]}"]


def read_back(file):
    file.seek(0)
    return file.read().decode(errors="replace")


def boot(args, accel):
    until = time.monotonic() + LIMITS[kind_of(accel)]
    gave_up = False
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        with subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=said, stderr=errors) as qemu:
            try:
                while qemu.poll() is None:
                    # QEMU only stops the guest then; but it may be at its end already.
                    if not gave_up and KVM_GAVE_UP in read_back(errors):
                        gave_up, until = True, min(until, time.monotonic() + 2)
                    if time.monotonic() > until:
                        if gave_up:
                            raise CannotRun(f"QEMU reports '{KVM_GAVE_UP}'")
                        raise BareError("the guest did not end by itself:\n"
                                        f"{read_back(said)}\n{read_back(errors)}")
                    time.sleep(0.02)
            finally:
                qemu.kill()
        lines = read_back(said).splitlines()
        return qemu.returncode, [line.rstrip("\r") for line in lines], read_back(errors)


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


def check_traces(scenario, errors):
    for pattern in KVM_TRACES.get(scenario, ()):
        if not re.search(pattern, errors, re.MULTILINE):
            raise BareError(f"KVM itself does not serve what it should: {pattern}")


def written_by(number, rounds):
    """What processor `number` wrote: where and what, and the checksum of all of it."""
    blocks, checksum = {}, 0
    for i in range(rounds):
        block = bytes((j * 13 + j // 256 + i * 31 + (20 + number) * 7) & 0xff
                      for j in range(IO_SIZE))
        blocks[(WRITE_SECTOR + i % 8 * (IO_SIZE // SECTOR)) * SECTOR] = block
        checksum = zlib.crc32(block, checksum)
    return blocks, checksum


def check_processors(machine, lines, disks, before, rounds):
    endpoints = MACHINES[machine]["disks"]
    for number, endpoint in enumerate(sorted(endpoints)): # as the guest finds them
        blocks, checksum = written_by(number, rounds)
        start = READ_SECTOR * SECTOR
        disk = endpoints.index(endpoint)
        first = crc(before[disk][start:start + IO_SIZE])
        line = (f"processor {number:#x} endpoint={endpoint:#x} rounds={rounds:#x} "
                f"blocked={rounds * 3 // 8:#x} read={first:#x} written={checksum:#x}")
        if line not in lines:
            raise BareError(f"the table lacks the line: {line}")
        wanted = bytearray(before[disk])
        for at, block in blocks.items():
            wanted[at:at + IO_SIZE] = block
        if disks[disk] != bytes(wanted):
            raise BareError(f"the disk of processor {number} does not hold what was written")


def run(machine, scenario, layout, qemu, image, folder, accel="-accel tcg"):
    """Boots once and checks everything; returns (checks, seconds)."""
    m = MACHINES[machine]
    several = scenario == "processors"
    expected = m["lines"] + (m["more_lines"] if several else ())
    disk, entropy = folder / "disk", folder / "entropy"
    before, noise = os.urandom(1 << 17), os.urandom(1 << 14)
    disk.write_bytes(before)
    entropy.write_bytes(noise)
    disks = [disk] + [folder / f"disk{i}" for i in range(1, PROCESSORS)] if several else [disk]
    all_before = [before] + [os.urandom(1 << 17) for _ in disks[1:]]
    for path, data in zip(disks, all_before):
        path.write_bytes(data)
    begin = time.monotonic()
    status, lines, errors = boot(command(machine, scenario, layout, qemu, image, disk, entropy,
                                         accel=accel), accel)
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
        for line in expected:
            if line not in lines:
                raise BareError(f"the table lacks the line: {line}")
        extra = [line for line in lines if line.startswith(("endpoint ", "item ", "iommu "))
                 and line not in expected]
        if extra:
            raise BareError(f"the table has a line too many: {extra[0]}")
        if sum(line.startswith("fault ") for line in lines) < FAULTS.get(scenario, 0):
            raise BareError("fault records are missing")
        if several:
            check_processors(machine, lines, [path.read_bytes() for path in disks], all_before,
                             ROUNDS[kind_of(accel)])
        else:
            check_data(scenario, lines, disk.read_bytes(), before, noise)
        if kind_of(accel) == "kvm":
            check_traces(scenario, errors)
    except BareError as err:
        raise BareError(f"{err}\n" + "\n".join(lines) + "\n" + errors) from err
    return made, seconds


def refuses_the_other_layout(machine, qemu, image, folder, accel):
    """The guest's own verdict has to be able to be 'failed'."""
    (folder / "disk").write_bytes(bytes(1 << 17))
    (folder / "entropy").write_bytes(bytes(1 << 14))
    for layout, other in (LAYOUTS, LAYOUTS[::-1]):
        status, lines, _ = boot(command(machine, "io", layout, qemu, image, folder / "disk",
                                        folder / "entropy", guest_layout=other, accel=accel),
                                accel)
        if (status != MACHINES[machine]["failed"] or
                lines[-1:] != ["failed: the IOMMU shows no array of this layout"]):
            raise BareError(f"the guest took an array of layout {layout} for {other}: {lines[-3:]}")


def main(arguments=None, probe=why_no_kvm):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("machine", choices=MACHINES)
    parser.add_argument("--qemu-dir", required=True, type=Path,
                        help="folder with qemu-system-x86_64 and qemu-system-aarch64")
    parser.add_argument("--images", required=True, type=Path,
                        help="folder with bare-x86.elf and bare-arm.elf")
    parser.add_argument("--scenario", help="only this one")
    parser.add_argument("--accel", choices=("tcg", "kvm"), default="tcg")
    parser.add_argument("--irqchip", choices=("on", "split"), default="on",
                        help="with KVM: all interrupt controllers in the kernel, or the local ones")
    parser.add_argument("--show", action="store_true",
                        help="print the command line and the guest's table, and check nothing")
    args = parser.parse_args(arguments)
    m = MACHINES[args.machine]
    if args.accel == "kvm":
        if m["qemu"] != "x86_64":
            parser.error(f"{args.machine} does not run under KVM here")
        reason = probe()
        if reason:
            print(f"skipped: {reason}")
            sys.exit(SKIPPED)
    accel = accel_words(args.accel, args.irqchip)
    qemu = args.qemu_dir / f"qemu-system-{m['qemu']}"
    image = args.images / f"bare-{m['image']}.elf"
    if args.scenario and args.scenario not in m["scenarios"]:
        parser.error(f"{args.machine} has the scenarios {', '.join(m['scenarios'])}")
    scenarios = (args.scenario,) if args.scenario else m["scenarios"]
    held = failed = 0
    with tempfile.TemporaryDirectory(prefix="viommu-bare-") as name:
        folder = Path(name)
        if args.show:
            for name in ("disk", "disk1", "disk2", "disk3"):
                (folder / name).write_bytes(os.urandom(1 << 17))
            (folder / "entropy").write_bytes(os.urandom(1 << 14))
            line = command(args.machine, scenarios[0], "v2", qemu, image, folder / "disk",
                           folder / "entropy", accel=accel)
            print(" ".join(map(str, line)), flush=True)
            print("\n".join(boot(line, accel)[1]))
            return
        for scenario in scenarios:
            for layout in LAYOUTS:
                title = f"{args.machine} {scenario} {layout}"
                try:
                    made, seconds = run(args.machine, scenario, layout, qemu, image, folder,
                                        accel)
                    print(f"ok {title}: {made} checks, {seconds:.2f} s")
                    held += 1
                except CannotRun as err:
                    print(f"not run here, {title}: {err}")
                    break
                except BareError as err:
                    failed += 1
                    print(f"FAILED {title}: {err}")
        if not args.scenario:
            try:
                refuses_the_other_layout(args.machine, qemu, image, folder, accel)
                print(f"ok {args.machine} refuses the other layout")
            except BareError as err:
                failed += 1
                print(f"FAILED {args.machine}: {err}")
    sys.exit(1 if failed else 0 if held else SKIPPED)


if __name__ == "__main__":
    main()
