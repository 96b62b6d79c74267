# SPDX-License-Identifier: GPL-2.0-or-later
"""Times the disk of the bare guest without an IOMMU and behind either device.

There is no operating system: between two reads the guest does what its few lines of driver do, so
that the way of a request through QEMU, the DMA and the IOMMU make up more of a read than under
Linux.  The disk has no medium (QEMU's null-co).  The guest has no driver for NVMe.
"""

import os
import re
import statistics
import subprocess

DEVICES = ("none", "ours", "intree")
# Who serves the disk's queue.
THREADS = ("main loop", "I/O thread")
# In a full run; a span takes a millisecond or two, so that many of them see no other program.
SPANS, READS = 100, 50
PASSED = 33  # the status of QEMU when all checks of the guest passed, by isa-debug-exit


class BareError(Exception):
    """One sentence about what is wrong."""


def command(build, qemu, device, thread, spans, reads):
    args = [qemu, "-machine", "q35,accel=tcg", "-bios", "qboot.rom", "-m", "64", "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
            "-device", "isa-debug-exit,iobase=0x501"]
    if device != "none":
        args += ["-device", "virtio-iommu-pci,addr=2,boot-bypass=off"]
    more = ""
    if thread == "I/O thread":
        args += ["-object", "iothread,id=thread"]
        more = ",iothread=thread"
    return args + ["-blockdev", f"null-co,node-name=disk,size={1 << 30},read-zeroes=on",
                   "-device", "virtio-blk-pci,addr=3,drive=disk,iommu_platform=on,"
                              f"disable-legacy=on{more}",
                   "-kernel", build / "tests/bare/bare-x86.elf",
                   "-fw_cfg", "name=opt/viommu/bare,"
                              f"string=scenario=time:spans={spans}:reads={reads}"]


def measure(build, qemu, device, thread, share, prepare=None):
    """[{pattern, mapped, ticks}] for one guest, which does @share of the full number of reads.

    "ticks" are those of the host's time stamp counter for a read: the lower quartile of the spans,
    since another program that gets in between only ever adds.  @prepare is called in QEMU's process
    before QEMU is.
    """
    spans, reads = max(4, int(SPANS * share)), max(10, int(READS * share))
    # Without an IOMMU QEMU needs no module, and takes none of another build.
    environment = dict(os.environ, QEMU_MODULE_DIR=str(build / "bench" / device))
    try:
        done = subprocess.run(command(build, qemu, device, thread, spans, reads),
                              env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace", timeout=300, preexec_fn=prepare,
                              check=False)
    except subprocess.TimeoutExpired as err:
        raise BareError(f"the bare guest did not end by itself:\n{err.stdout}") from err
    found = {}
    for pattern, mapped, ticks in re.findall(
            r"^time pattern=(\w+) mapped=(\w+) ticks=0x([0-9a-f]+)\r?$", done.stdout, re.MULTILINE):
        found.setdefault((pattern, mapped), []).append(int(ticks, 16) / reads)
    wanted = [(pattern, mapped) for pattern in ("random", "sequential")
              for mapped in (("never",) if device == "none" else ("once", "each"))]
    if (done.returncode != PASSED or list(found) != wanted or
            any(len(times) != spans for times in found.values())):
        raise BareError(f"the bare guest failed, QEMU's status is {done.returncode}:\n"
                        f"{done.stdout}{done.stderr}")
    return [{"pattern": pattern, "mapped": mapped, "ticks": statistics.quantiles(times)[0]}
            for (pattern, mapped), times in found.items()]
