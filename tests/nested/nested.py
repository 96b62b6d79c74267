#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions that a host hands on with VFIO, behind a virtio-iommu of the guest's own."""
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
import zlib
from pathlib import Path

import bed
from bed import GuestError, Inner, InnerLinux, Outer, check, fetch

BUILD = Path(__file__).resolve().parents[2] / "build"
DISK_BYTES, LINUX_DISK_BYTES = 1 << 20, 4 << 20
FRAMES = 100
HOLDER = 5  # the slot of a function that keeps a domain of the inner guest's
HOST_MAPPINGS = 64  # that VFIO takes in the scenario 'full'
HOST_WIDTH = 39  # bits of addresses that VFIO takes in the scenario 'narrow'
SLOWER = 1.1  # times as long as QEMU's own device; less may be noise
MOST_ROUNDS = 10
SECTOR, READ_SECTOR, WRITE_SECTOR, IO_SIZE = 512, 16, 64, 4096


def note(text):
    print(f"nested: {text}", file=sys.stderr, flush=True)


class Function:
    """A function of the outer machine, and the arguments that add it."""

    def __init__(self, path, *args, netdev=None):
        self.path, self.args, self.netdev = path, args, netdev


def edu_function():
    return Function("04.0", "-device", "edu,addr=04.0,dma_mask=0xffffffffffff")


def behind_port(slot, *args, **more):
    """Behind a root port, which functions on PCI Express need; they are on its bus `rpSLOT`."""
    return Function(f"{slot}.0/00.0", "-device",
                    f"pcie-root-port,id=rp{slot},chassis={int(slot)},addr={slot}.0", *args, **more)


def disk_function(folder, slot, model, size):
    """A virtio-blk or NVMe with random contents in disk-SLOT.img."""
    file, name = folder / f"disk-{slot}.img", f"disk{slot}"
    file.write_bytes(os.urandom(size))
    device = {"virtio-blk": "virtio-blk-pci,disable-legacy=on,iommu_platform=on",
              "nvme": f"nvme,serial={name}"}[model]
    function = behind_port(slot, "-blockdev", json.dumps(
        {"driver": "file", "filename": str(file), "node-name": name}),
                           "-device", f"{device},bus=rp{slot},drive={name}")
    function.file = file
    return function


def small_bed(options):
    """What the bare guest gets: an edu device and a disk."""
    return [edu_function(), disk_function(options.folder, "05", "virtio-blk", DISK_BYTES)]


def open_bed(options, functions, **more):
    """The outer machine; use as a context manager."""
    outer = Outer(options, options.outer_iommu,
                  [arg for function in functions for arg in function.args], **more)
    options.outer = outer
    for function in functions:
        if function.netdev:
            outer.guest.network(function.netdev)
    return outer


def follow(outer, inner, names, act=lambda where: False):
    """To the inner guest's end.  At each pause the outer IOMMU must have refused what the guest
    says and nothing else; `act` does what the pause asks for, and says whether the machine
    starts again."""
    count = {name: len(outer.faults(name)) for name in names.values()}
    while (where := inner.until_pause()) is not None:
        if act(where):
            continue
        what, step, *address = where.split()
        name = names[what]
        # QEMU's intel-iommu reports no fault of rights of which it knows by heart.
        if address and not (step == "read-only" and outer.iommu == "intel"):
            count[name] = len(outer.wait_fault(name, int(address[0], 16), count[name]))
        for other, seen in count.items():
            more = outer.faults(other)[seen:]
            check(not more, f"outer: accesses of {other} were refused at '{where}': {more}")
        inner.go_on()
    inner.finish()


def checks_made(inner):
    return f"{sum(line.startswith('check ok') for line in inner.lines)} checks"


def assigned(options):
    """An edu device and a disk: DMA through two IOMMUs, and what is unmapped is out of reach."""
    functions = small_bed(options)
    file, resets = functions[1].file, []
    before = file.read_bytes()
    with open_bed(options, functions) as outer:
        edu, disk = [outer.hand_on(function.path) for function in functions]
        plugged = {"driver": "vfio-pci", "id": "disk", "host": disk, "bus": "rp"}
        args = ["-device", f"vfio-pci,host={edu},addr=3",
                "-device", "pcie-root-port,id=rp,chassis=1,addr=4",
                "-device", ",".join(f"{key}={value}" for key, value in plugged.items())]
        # A driver's reset leaves QEMU's own device as it is.
        scenario = f"assigned:reset={'off' if options.inner_device == 'own' else 'on'}"

        def act(where):
            if where == "edu end" and not resets:
                resets.append(inner.qmp.call("system_reset"))
                return True
            if where == "disk unplug":
                inner.qmp.call("device_del", id="disk")
            elif where == "disk plug":
                inner.qmp.wait_event("DEVICE_DELETED", 10, device="disk")
                inner.qmp.call("device_add", **plugged)
            return False

        with Inner(outer, options.inner_device, args, options.iommu_options, scenario,
                   options.machine) as inner:
            follow(outer, inner, {"edu": edu, "disk": disk}, act)
    check(resets, "the inner guest never came to its end")
    check_disk(inner.lines, before, file.read_bytes())
    return checks_made(inner)


def full(options):
    """The host takes few mappings; what it does not take is out of reach, and the rest works on."""
    edu = edu_function()
    with open_bed(options, [edu], type1=f"dma_entry_limit={HOST_MAPPINGS}") as outer:
        edu = outer.hand_on(edu.path)
        args = ["-device", f"vfio-pci,host={edu},addr=3",
                "-device", f"virtio-rng-pci,addr={HOLDER}"]
        with Inner(outer, options.inner_device, args,
                   scenario=f"assigned-full:most={HOST_MAPPINGS}:holder={HOLDER << 3}") as inner:
            follow(outer, inner, {"edu": edu})
    return checks_made(inner)


def narrow(options):
    """The host's IOMMU knows fewer addresses than the inner one: they are the function's limit."""
    edu = edu_function()
    edu.args += ("-global", f"intel-iommu.aw-bits={HOST_WIDTH}")
    check(options.outer_iommu == "intel", "only intel-iommu can be made narrow")
    with open_bed(options, [edu]) as outer:
        edu = outer.hand_on(edu.path)
        args = ["-device", f"vfio-pci,host={edu},addr=3",
                "-device", f"virtio-rng-pci,addr={HOLDER}"]
        with Inner(outer, options.inner_device, args, "boot-bypass=off,aw-bits=48",
                   f"assigned-narrow:width={HOST_WIDTH}:holder={HOLDER << 3}") as inner:
            follow(outer, inner, {"edu": edu})
    return checks_made(inner)


def command_lines(edu, disk):
    """What people write, by name: options of the IOMMU, arguments before and after it, machine,
    functions that are plugged."""
    def vfio(host, **more):
        return {"driver": "vfio-pci", "host": host, **more}

    def args(*devices):
        return [word for device in devices for word in
                ("-device", ",".join(f"{key}={value}" for key, value in device.items()))]

    def after(*devices, **more):
        return dict(args=args(*devices), **more)

    port = {"driver": "pcie-root-port", "id": "rp", "chassis": 1, "addr": 4}
    bridge = {"driver": "pcie-pci-bridge", "id": "bridge", "addr": 5}
    both = args(vfio(edu, addr=3), vfio(disk, addr=4))
    found = {"after the IOMMU": dict(args=both),
             "before the IOMMU": dict(before=both),
             "behind a root port": after(port, vfio(disk, bus="rp")),
             "behind a bridge": after(bridge, vfio(edu, bus="bridge", addr=1)),
             "two behind a bridge": after(bridge, vfio(edu, bus="bridge", addr=1),
                                          vfio(disk, bus="bridge", addr=2)),
             "one behind a bridge, one not": after(bridge, vfio(edu, bus="bridge", addr=1),
                                                   vfio(disk, addr=4)),
             "plugged": after(port, plug=[vfio(disk, bus="rp", id="new")]),
             "plugged behind a bridge": after(bridge, plug=[vfio(edu, bus="bridge", addr="1",
                                                                id="new")]),
             "the IOMMU after a root port": dict(before=args(port), args=args(
                 vfio(disk, bus="rp")))}
    for machine in "pc", "pc-q35-8.2", "pc-i440fx-10.0":
        found[machine] = dict(args=both, machine=machine)
    for option in ("boot-bypass=on", "granule=host", "granule=4k", "granule=16k", "granule=64k",
                   "aw-bits=32", "aw-bits=39", "aw-bits=48", "aw-bits=64"):
        found[option] = dict(args=both, options=option)
    return found


def answer(outer, device, plug=(), **line):
    """What QEMU says of a command line; nothing is good."""
    said = []
    try:
        with Inner(outer, device, ["-S", *line.pop("args", ())], **line) as inner:
            for function in plug:
                try:
                    inner.qmp.call("device_add", **function)
                except GuestError as err:
                    said.append(str(err))
            check(inner.qmp.call("query-status")["status"] == "prelaunch", "it does not wait")
    except GuestError:
        if not outer.inner.running.done:
            raise
        # The agent's answer is faster than the console.
        time.sleep(0.2)
        said += [line for line in outer.inner.messages().splitlines()
                 if line.startswith("qemu: ") and "Cannot reset device" not in line] or ["it ended"]
    return " / ".join(said)


# QEMU's own device accepts such a function and leaves it outside: its DMA is not translated.
LEFT_OUT, LEFT_ALONE = "before the IOMMU", "has to come after the virtio-iommu"


def accepts(options):
    """What QEMU's own device accepts, this one accepts, but for what it silently leaves out."""
    functions, wrong = small_bed(options), []
    with open_bed(options, functions) as outer:
        edu, disk = [outer.hand_on(function.path) for function in functions]
        for name, line in command_lines(edu, disk).items():
            said = {device: answer(outer, device, **line) for device in ("own", "ours")}
            print(f"{name}: QEMU's own: {said['own'] or 'accepted'}; "
                  f"ours: {said['ours'] or 'accepted'}", flush=True)
            expected = LEFT_ALONE in said["ours"] if name == LEFT_OUT else not said["ours"]
            if not said["own"] and not expected:
                wrong.append(name)
    check(not wrong, f"QEMU's own device accepts what this one refuses: {', '.join(wrong)}")
    return "the command lines that QEMU's own device accepts"


def vhost(options):
    """vhost-net in the outer kernel, behind the inner IOMMU, with `ats` off and on."""
    said = []
    with open_bed(options, [], modules=["tun", "vhost_net"]) as outer:
        outer.guest.run("write", "/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
        for ats in "off", "on":
            args = ["-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no,vhost=on",
                    "-device", "virtio-net-pci,id=nic,netdev=net,addr=3,romfile=,disable-legacy=on,"
                               f"iommu_platform=on,ats={ats}"]
            echo = outer.guest.begin_command("echo", "tap0")
            with Inner(outer, options.inner_device, args, scenario="network") as inner:
                check(inner.until_pause() == "net answered", "the inner guest did not come far")
                state = inner.qmp.call("x-query-virtio-status",
                                       path="/machine/peripheral/nic/virtio-backend")
                # If it cannot, QEMU does the work of the kernel.
                check(state.get("vhost-dev") and state["vhost-started"],
                      "the outer kernel's vhost does not serve the inner network")
                inner.go_on()
                inner.finish()
            outer.guest.run("kill", echo.data[0]["pid"], 9)
            said.append(f"ats={ats}: {checks_made(inner)}")
    return "; ".join(said)


def linux(options):
    """Linux as the inner guest: an NVMe, a virtio-blk and an igb carry verified data."""
    kernel = fetch.kernel("amd64", "generic", log=options.log)
    files = InnerLinux.files(kernel, ["virtio_iommu", "virtio_blk", "nvme", "igb"])
    nvme = disk_function(options.folder, "05", "nvme", LINUX_DISK_BYTES)
    disk = disk_function(options.folder, "06", "virtio-blk", LINUX_DISK_BYTES)
    igb = behind_port("07", "-device", "igb,bus=rp07,netdev=net,romfile=", netdev="net")
    functions, drivers = (nvme, disk, igb), ("nvme", "virtio_blk", "igb")
    with open_bed(options, functions, files=files, memory=1536) as outer:
        names = [outer.hand_on(function.path) for function in functions]
        args = [arg for slot, name in enumerate(names, 3)
                for arg in ("-device", f"vfio-pci,host={name},addr={slot},rombar=0")]
        begin = time.monotonic()
        with InnerLinux(outer, options.inner_device, args) as inner:
            note(f"inner Linux is up after {time.monotonic() - begin:.0f} s")
            paths = [f"{slot:02x}.0" for slot in (3, 4, 5)]
            devices = inner.linux.wait_for("the drivers of its functions", lambda devices: all(
                driver in (devices[path]["driver"], devices[path]["virtio"])
                for path, driver in zip(paths, drivers)) and devices, seconds=120)
            for path in paths:
                check(devices[path]["type"] == "DMA-FQ" and
                      devices[path]["iommu"] == devices["02.0"]["name"],
                      f"inner {path}: {devices[path]} is not behind the inner IOMMU")
            for path, function in zip(paths, (nvme, disk)):
                verify_disk(inner.linux, devices[path]["name"], function.file)
            verify_net(inner.linux, devices[paths[2]]["name"], outer.guest.peers["net"])
            seen = {name: outer.faults(name) for name in names}
            check(not any(seen.values()), f"outer: accesses were refused: {seen}")
            inner.finish()
    return f"Linux {kernel.release} as inner guest"


def verify_disk(guest, name, file):
    """Reads all, writes the beginning; both sides compare."""
    data = guest.run("disk-read", name)[0]
    check(data["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest(),
          f"inner {name}: the disk read in the guest differs from the file")
    written = guest.run("disk-write", name, 1 << 20)[0]["sha256"]
    check(written == hashlib.sha256(file.read_bytes()[:1 << 20]).hexdigest(),
          f"inner {name}: what the guest wrote is not what the file holds")


def verify_net(guest, name, peer):
    sent, received = guest.run("net", name, FRAMES)
    check(int(sent["sent"]) == int(received["received"]) == FRAMES * peer.PAYLOAD,
          f"inner {name}: the network carried too little")
    check((sent["sent_sha256"], received["received_sha256"]) == peer.hashes(sent["mac"]),
          f"inner {name}: bytes arrived changed")


def times(outer, device, edu, options):
    """{request: fewest ticks of one} for a device: whatever gets in between only adds."""
    args = ["-device", f"vfio-pci,host={edu},addr=3", "-device", f"virtio-rng-pci,addr={HOLDER}"]
    scenario = (f"assigned-time:spans={options.spans}:maps={options.maps}:many={options.many}:"
                f"holder={HOLDER << 3}")
    with Inner(outer, device, args, scenario=scenario) as inner:
        inner.finish()
    found = {"map": [], "unmap": [], "attach": [], "detach": []}
    for line in inner.lines:
        if m := re.fullmatch(r"time what=(\w+) ticks=0x([0-9a-f]+)", line):
            found[m[1]].append(int(m[2], 16))
    check(all(len(ticks) == options.spans for ticks in found.values()),
          f"the inner guest measured too little: {found}")
    return {what: min(ticks) / (options.maps if what.endswith("map") else 1)
            for what, ticks in found.items()}


def speed(options):
    """What a request costs when the host follows it, beside QEMU's own device."""
    function, best = edu_function(), {"ours": {}, "own": {}}
    with open_bed(options, [function]) as outer:
        edu = outer.hand_on(function.path)
        for done in range(1, MOST_ROUNDS + 1):
            for device, fewest in best.items():
                for what, ticks in times(outer, device, edu, options).items():
                    fewest[what] = min(ticks, fewest.get(what, ticks))
            ratio = {what: best["ours"][what] / own for what, own in best["own"].items()}
            slower = [what for what in ratio if ratio[what] > SLOWER]
            # On a busy machine it takes more to see how fast a device is.
            if done >= options.rounds and not slower:
                break
    print(f"{'':8}{'ours':>14}{'QEMU own':>14}{'ratio':>8}   (thousand ticks; attach and detach "
          f"with {options.many} mappings)")
    for what, own in best["own"].items():
        print(f"{what:8}{best['ours'][what] / 1e3:14.1f}{own / 1e3:14.1f}{ratio[what]:8.2f}",
              flush=True)
    check(not slower, f"slower than QEMU's own device: {', '.join(slower)}")
    return f"{done} rounds"


def check_disk(lines, before, after):
    """What the guest says that it read and wrote is what the disk held and holds."""
    start = READ_SECTOR * SECTOR
    read = zlib.crc32(before[start:start + IO_SIZE])
    check(f"data kind=block read={IO_SIZE:#x} crc={read:#x}" in lines,
          "the inner guest did not read what the disk holds")
    start = WRITE_SECTOR * SECTOR
    written = zlib.crc32(after[start:start + IO_SIZE])
    check(f"data kind=block written={IO_SIZE:#x} crc={written:#x}" in lines,
          "the disk does not hold what the inner guest wrote")
    check(before[:start] == after[:start] and before[start + IO_SIZE:] == after[start + IO_SIZE:],
          "the disk changed elsewhere")


SCENARIOS = {f.__name__: f for f in (accepts, assigned, full, linux, narrow, speed, vhost)}


def report_failure(options, err):
    note(f"FAILED: {err}")
    for image in options.folder.glob("*.img"):
        image.unlink()
    for log in sorted(options.folder.glob("*.log")):
        # Neither the edu device's lack of a reset nor each piece of a refused access says why.
        lines = [line for line in log.read_text(errors="replace").splitlines()
                 if "Cannot reset device" not in line and "vtd_dmar_fault" not in line][-25:]
        note("\n    ".join([f"end of {log} (outer kernel and inner QEMU's messages)", *lines]))


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("nested: terminated"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--outer-iommu", choices=bed.OUTER_IOMMUS, default="intel")
    parser.add_argument("--inner-device", choices=("ours", "own"), default="ours")
    parser.add_argument("--iommu-options", default="boot-bypass=off",
                        help="of the inner IOMMU, for 'assigned' (default: %(default)s)")
    parser.add_argument("--machine", default="q35", help="the inner one, for 'assigned'")
    parser.add_argument("--qemu", type=Path, default=BUILD / "prefix/bin/qemu-system-x86_64")
    parser.add_argument("--bare", type=Path, default=BUILD / "tests/bare/bare-x86.elf")
    parser.add_argument("--ours", type=Path, default=BUILD / "hw",
                        help="module folder with this project's device")
    parser.add_argument("--own", type=Path, default=BUILD / "bench/intree",
                        help="module folder with QEMU's own device")
    parser.add_argument("--limit", type=int, default=170, help="seconds for all")
    parser.add_argument("--rounds", type=int, default=3, help="of 'speed', with each device")
    parser.add_argument("--spans", type=int, default=10, help="that 'speed' times in a round")
    parser.add_argument("--maps", type=int, default=200, help="MAPs and UNMAPs in a span")
    parser.add_argument("--many", type=int, default=5000, help="mappings when a function joins")
    parser.add_argument("--keep", action="store_true", help="keep disks and logs")
    options = parser.parse_args()
    options.devices = {"ours": options.ours, "own": options.own}
    options.log, options.booted = note, None
    options.folder = Path(tempfile.mkdtemp(prefix="viommu-nested."))
    begin, keep, status, options.outer = time.monotonic(), options.keep, 0, None
    try:
        said = SCENARIOS[options.scenario](options)
        note(f"{options.scenario}: {said}, {time.monotonic() - begin:.1f} s with Linux "
             f"{options.booted.release} as host")
    except (GuestError, fetch.FetchError, OSError) as err:
        if options.outer and options.outer.inner:
            note("\n    ".join(["the inner guest's last lines", *options.outer.inner.lines[-12:]]))
        report_failure(options, err)
        keep, status = True, 1
    finally:
        if not keep:
            shutil.rmtree(options.folder, ignore_errors=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
