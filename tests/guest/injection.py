#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The recipes of docs/injection.md: faults that are made, and how Linux' drivers take them."""
import subprocess
import sys
from pathlib import Path

import run
from run import FAULT, IOMMU, Trial, check

INSPECT = Path(__file__).resolve().parents[2] / "tools" / "viommu-inspect"
PATH = f"/machine/peripheral/{IOMMU}/virtio-backend"
BLK, NVME = 0x18, 0x28


def boot(options):
    """A virtio-blk and an NVMe disk, whose driver gives up on a command after 3 s."""
    t = Trial(options)
    t.args = [arg.replace("boot-bypass=off", "boot-bypass=off,fault-injection=on") for arg in t.args]
    t.add("-qmp", f"unix:{t.folder}/qmp.sock,server=on,wait=off")
    t.disk("virtio-blk", "03.0")
    t.disk("nvme", "05.0")
    return t, t.boot("nvme_core.io_timeout=3")


def inject(guest, what):
    guest.qmp.call("qom-set", path=PATH, property="inject", value=what)


def left(guest):
    armed = guest.property(IOMMU, "injected")
    return sum(one["left"] for kind in armed.values() for one in kind)


def inspect(t, *words):
    """What viommu-inspect says of the guest."""
    done = subprocess.run([sys.executable, INSPECT, f"{t.folder}/qmp.sock", *words], timeout=60,
                          capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"viommu-inspect {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def records(options):
    """Fault records without an access: Linux' driver logs each, and all goes on."""
    t, guest = boot(options)
    with guest:
        t.verify_groups("DMA-FQ")
        inject(guest, f"record endpoint={BLK:#x} address=0xdead000 reason=mapping access=w")
        guest.wait_console(FAULT.format(reason="page", endpoint=BLK, kind="W", address=0xdead000))
        inject(guest, f"record endpoint={NVME:#x} address=0xbeef000 reason=domain access=r")
        guest.wait_console(FAULT.format(reason="domain", endpoint=NVME, kind="R", address=0xbeef000))
        t.verify_dma()
        t.verify_counters() # without a fault
        check("translating" in inspect(t, "endpoints"), "viommu-inspect shows no endpoint that works")
        guest.poweroff()
    return t


def accesses(options):
    """A lost access of an NVMe disk: Linux waits, resets the controller, and reads the right data."""
    t, guest = boot(options)
    with guest:
        t.verify_groups("DMA-FQ")
        blk, nvme = t.endpoints
        inject(guest, f"accesses endpoint={NVME:#x}")
        t.verify_dma([nvme])
        check(left(guest) == 0, "nothing of what was armed was used")
        guest.wait_console(rf"fault from EP {NVME} at ")
        guest.wait_console("timeout, (aborting|completion polled|reset controller)")
        check(guest.endpoints(IOMMU)[NVME]["faults"] == 1, "not one access faulted")
        check("mapping" in inspect(t, "endpoints"), "viommu-inspect does not show the fault")
        # Of nobody else.
        t.verify_dma([blk])
        check(guest.endpoints(IOMMU)[BLK]["faults"] == 0, "an access of another function faulted")
        guest.poweroff()
    return t


def requests(options):
    """MAPs that are refused: Linux' driver does not look at the answers, and the functions fault."""
    t, guest = boot(options)
    with guest:
        t.verify_groups("DMA-FQ")
        inject(guest, "requests type=map status=NOMEM count=3")
        # QEMU's controller says nothing of DMA that it could not do: the read ends.
        guest.run("disk-read", t.endpoints[1].device["name"])
        check(left(guest) == 0, "nothing of what was armed was used")
        guest.wait_console(rf"page fault from EP {NVME} at ")
        check("map NOMEM 3" in [" ".join(line.split()) for line in inspect(t, "stats").splitlines()],
              "viommu-inspect does not count three MAPs without memory")
        t.verify_dma()
        guest.poweroff()
    return t


run.SCENARIOS = {f"injection_{f.__name__}": f for f in (records, accesses, requests)}

if __name__ == "__main__":
    sys.exit(run.main(__doc__))
