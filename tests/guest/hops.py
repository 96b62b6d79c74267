#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""W26: moves guests from QEMU to QEMU, many times and under load, while they read their disk.

There are two guests. `linux` hashes its disk in a loop. `bare` is the program of tests/bare: it
maps a page for each read and unmaps it afterwards, so that requests are under way at any time,
and it moves in a second.

A hop holds if the memory that arrives is that of the source, page by page, when the guest has
stopped there and does not run here yet, and if the guest goes on here in reasonable time with
data that is right.  Where it does not, the state of the queues and of the guest is printed, and
another guest is booted for the hops that are left.
"""
import argparse
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import fetch
from run import IOMMU, Trial, note
from vm import Guest, GuestError, die_with_parent

PIECE = 1 << 20
PAGE = 4096
# Where a chain of hops goes; the guest boots in the first.
CHAINS = {
    "ours": ("ours",),
    "stock": ("stock",),
    "mixed": ("stock", "ours"),
    "versions": ("ours", "other"),
    "own-versions": ("own", "other-own"),
    "mixed-versions": ("ours", "other-own"),
}


class Wrong(GuestError):
    """The guest read other bytes than the disk has."""


class Stalled(GuestError):
    """The guest does not go on."""


class Lost(GuestError):
    """Memory arrived that is not the source's."""


class Busy:
    """Keeps so many of the host's CPUs busy."""

    def __init__(self, count):
        self.count, self.loops = count, []

    def __enter__(self):
        self.loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"],
                                       preexec_fn=die_with_parent) for _ in range(self.count)]

    def __exit__(self, *error):
        for loop in self.loops:
            loop.kill()
            loop.wait()


def hash_of_pieces(data):
    """As the agent makes it."""
    pieces = (hashlib.sha256(data[at:at + PIECE]).hexdigest()
              for at in range(0, len(data), PIECE))
    return hashlib.sha256("".join(pieces).encode()).hexdigest()


class Chain:
    """A guest that reads one disk for ever, and where it is."""
    least_patience = 60  # seconds

    def __init__(self):
        self.guest, self.hop, self.rounds = None, 0, 0

    def watch(self, more, patience):
        goal, until = self.passes() + more, time.monotonic() + patience
        while self.passes() < goal:
            if time.monotonic() > until:
                raise Stalled(f"the guest has not gone on for {patience:.0f} s")
            self.wait()

    def compare_memory(self, source, target):
        """Nobody runs: what differs is lost, or was changed by who should not."""
        self.rounds = source.qmp.call("query-migrate")["ram"]["dirty-sync-count"]
        before, after = source.memory(0, self.memory), target.memory(0, self.memory)
        if before == after:
            return
        pages = [at for at in range(0, self.memory, PAGE)
                 if before[at:at + PAGE] != after[at:at + PAGE]]
        first = next(i for i in range(pages[0], pages[0] + PAGE) if before[i] != after[i])
        raise Lost(f"{len(pages)} pages of memory differ: {', '.join(map(hex, pages[:16]))}; "
                   f"from {first:#x} on {before[first:first + 16].hex()} became "
                   f"{after[first:first + 16].hex()}")

    def move(self, name):
        """Returns how long it was under way, and until the guest went on."""
        self.hop += 1
        source, patience = self.guest, self.patience()
        begin = time.monotonic()
        self.guest = self.another(name, incoming=f"unix:{self.options.folder}/hop{self.hop}")
        try:
            self.guest.__enter__()
            source.move_to(self.guest, self.compare_memory)
        finally:
            source.stop()
        moved = time.monotonic()
        self.watch(2, patience)
        return moved - begin, time.monotonic() - moved

    def end(self):
        if self.guest:
            self.guest.stop()
            self.guest = None


class LinuxChain(Chain, Trial):
    """Hashes its disk."""
    disk_bytes = 16 << 20
    memory = 256 << 20

    def __init__(self, options, machine):
        Chain.__init__(self)
        Trial.__init__(self, options, "generic", machine=machine)
        self.disk("virtio-blk", "03.0")
        self.net("virtio-net", "04.0")
        # Less memory moves faster.
        self.add("-m", f"{self.memory >> 20}")
        self.want = hash_of_pieces(self.endpoints[0].file.read_bytes())
        self.job = None

    def another(self, name, **more):
        return self.boot(**self.options.places[name], limit=self.options.limit, **more)

    def start(self, name):
        """Until the guest has read its disk twice."""
        self.another(name).__enter__()
        self.verify_groups("DMA-FQ")
        self.job = self.guest.begin_command("disk-loop", self.endpoints[0].device["name"])
        self.watch(2, self.options.limit)

    def passes(self):
        """The passes that the guest has told of; each is right."""
        if self.job.done:
            raise GuestError(f"the guest reads no more: {self.job.error}")
        for line in self.job.data:
            if "differs" in line:
                raise Wrong(f"the guest read other bytes: {line}")
            if line["sha256"] != self.want:
                raise Wrong(f"pass {line['pass']} has another hash than the disk")
        return len(self.job.data)

    def wait(self):
        self.guest.agent_line()

    def patience(self):
        """Ten times what two passes took at most."""
        longest = max(int(line["ms"]) for line in self.job.data) / 1000
        return max(self.least_patience, min(self.options.limit / 2, 20 * longest))


class BareGuest(Guest):
    """Nobody answers on its second serial port."""

    def _wait_ready(self):
        pass

    def agent_line(self):
        if self.process.poll() is not None:
            raise GuestError(f"QEMU ended with status {self.process.returncode}")


class BareChain(Chain):
    """Maps, reads, compares, unmaps."""
    memory = 64 << 20
    blocks = 256

    def __init__(self, options, machine):
        super().__init__()
        self.options, self.machine = options, machine
        words = range(self.blocks * PAGE // 4)
        self.disk = options.folder / "disk.img"
        self.disk.write_bytes(b"".join(word.to_bytes(4, "little") for word in words))

    def another(self, name, **more):
        disk = {"driver": "file", "filename": str(self.disk), "node-name": "disk0"}
        args = ["-machine", f"{self.machine},accel=tcg", "-m", f"{self.memory >> 20}",
                "-bios", "qboot.rom", "-action", "shutdown=pause",
                "-device", f"virtio-iommu-pci,id={IOMMU},addr=2,boot-bypass=off",
                "-blockdev", json.dumps(disk),
                "-device", "virtio-blk-pci,id=disk0,drive=disk0,addr=3,iommu_platform=on,"
                           "disable-legacy=on",
                "-fw_cfg", "name=opt/viommu/bare,string=scenario=loop:rounds=100"]
        return BareGuest(folder=self.options.folder, arch="amd64", image=self.options.bare,
                         initramfs=None, args=args, limit=self.options.limit,
                         **self.options.places[name], **more)

    def start(self, name):
        self.guest = self.another(name).__enter__()
        self.watch(2, self.options.limit)

    def passes(self):
        text = self.guest.console()
        for line in text.splitlines():
            if line.startswith(("wrong", "failed: ")):
                raise Wrong(f"the guest says: {line}")
        return text.count("round ")

    def wait(self):
        self.guest.agent_line()
        time.sleep(0.1)

    def patience(self):
        return self.least_patience


GUESTS = {"linux": LinuxChain, "bare": BareChain}


# --- what a guest that stalls looks like -------------------------------------------

def _ask(qmp, command, **arguments):
    try:
        return qmp.call(command, **arguments)
    except GuestError as err:
        return f"({err})"


def _monitor(qmp, line):
    return _ask(qmp, "human-monitor-command", **{"command-line": line})


def describe(chain, name):
    """Both queues of the IOMMU, the disk's, the CPUs, and what the guest's kernel says."""
    guest, lines = chain.guest, []
    qmp = guest.qmp
    lines.append(f"machine: {_ask(qmp, 'query-status')}")
    for what, path, queues in (("IOMMU", f"/machine/peripheral/{IOMMU}/virtio-backend", 2),
                               ("disk", "/machine/peripheral/disk0/virtio-backend", 1)):
        state = _ask(qmp, "x-query-virtio-status", path=path)
        if isinstance(state, dict):
            state = {key: state[key] for key in ("status", "isr", "started", "broken",
                                                 "disabled", "vm-running", "num-vqs")}
        lines.append(f"{what}: {state}")
        for queue in range(queues):
            lines.append(f"{what}, queue {queue}: " + str(
                _ask(qmp, "x-query-virtio-queue-status", path=path, queue=queue)))
    if name in ("ours", "other"):
        for what in ("stats", "endpoints"):
            lines.append(f"{what}: {guest.property(IOMMU, what)}")
    lines.append(f"disk: {_ask(qmp, 'query-blockstats')}")
    for command in ("info registers -a", "info lapic 0", "info lapic 1", "info irq", "info pic"):
        lines.append(f"{command}: {_monitor(qmp, command)}")
    # Whoever waits for a CPU that sleeps for good shows here.
    for command in () if isinstance(guest, BareGuest) else (("read", "/proc/uptime"), ("read", "/proc/interrupts"),
                    ("write", "/proc/sysrq-trigger", "w"), ("write", "/proc/sysrq-trigger", "l")):
        job, until = guest.begin_command(*command), time.monotonic() + 15
        while not job.done and time.monotonic() < until:
            guest.agent_line()
        lines.append(f"the guest's answer to {' '.join(command)}: "
                     f"{(job.error or job.data) if job.done else 'none within 15 s'}")
    for _ in range(2):
        time.sleep(1)
        lines.append(f"info registers -a: {_monitor(qmp, 'info registers -a')}")
    return lines + ["console:", *guest.console().splitlines()[-60:]]


def explain(chain, name, err):
    note(f"hop {chain.hop}: {err}")
    if not isinstance(err, (Wrong, Stalled)):
        return
    try:
        if isinstance(err, Wrong):
            # The passes after it tell whether the reading or the memory went wrong.
            until = time.monotonic() + 60
            while time.monotonic() < until and isinstance(chain, LinuxChain):
                chain.wait()
            for line in chain.job.data[-20:] if isinstance(chain, LinuxChain) else ():
                print("   ", line)
        for line in describe(chain, name):
            print("   ", line.rstrip().replace("\n", "\n    "))
    except GuestError as more:
        print(f"    {more}")
    sys.stdout.flush()


# --- chains -----------------------------------------------------------------------

def outcome(err):
    return {Lost: "memory lost", Wrong: "wrong data",
            Stalled: "stalled"}.get(type(err), "failed")


def run_chain(options, machine, places, hops, counts):
    """Makes `hops` hops of each kind that a chain over these places has."""
    left = {(a, b): hops for a, b in zip(places, places[1:] + places[:1])}
    while any(left.values()):
        options.folder = Path(tempfile.mkdtemp(prefix="viommu-hops."))
        chain, at = None, places[0]
        try:
            chain = GUESTS[options.guest](options, machine)
            chain.start(at)
            for to in itertools.cycle(places[1:] + places[:1]):
                if not any(left.values()):
                    break
                kind = (at, to)
                left[kind] = max(0, left[kind] - 1)
                try:
                    took, went_on = chain.move(to)
                except GuestError as err:
                    counts[machine, kind, outcome(err)] += 1
                    explain(chain, to, err)
                    raise
                counts[machine, kind, "right"] += 1
                note(f"{machine}: {at}->{to}, hop {chain.hop}: moved in {took:.1f} s and "
                     f"{chain.rounds} rounds, goes on after {went_on:.1f} s")
                at = to
        except GuestError:
            for log in options.folder.glob("*.log"):
                print(f"    end of {log.name}:", log.read_text(errors="replace")[-2000:],
                      flush=True)
            if not chain or not chain.hop:
                raise
        finally:
            if chain:
                chain.end()
            if not options.keep:
                shutil.rmtree(options.folder, ignore_errors=True)


def table(counts):
    kinds = sorted({(machine, kind) for machine, kind, _ in counts})
    columns = ("right", "memory lost", "wrong data", "stalled", "failed")
    rows = [("machine", "hop", *columns)]
    rows += [(machine, "->".join(kind), *(str(counts[machine, kind, c]) for c in columns))
             for machine, kind in kinds]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip()
                     for row in rows)


def places_of(options):
    """Where a guest can be: which QEMU, and from where it has its virtio-iommu."""
    places = {"ours": (options.qemu, None), "stock": (options.stock, None),
              "own": (options.qemu, options.own_device)}
    if options.other:
        qemu = options.other / "prefix/bin/qemu-system-x86_64"
        places["other"] = (qemu, options.other / "hw")
        places["other-own"] = (qemu, options.other / "bench/intree")
    return {name: {"qemu": str(qemu), "modules": modules}
            for name, (qemu, modules) in places.items()
            if qemu and (name != "own" or modules)}


def version_of(qemu):
    environment = {k: v for k, v in os.environ.items() if k != "QEMU_MODULE_DIR"}
    said = subprocess.run([qemu, "--version"], stdout=subprocess.PIPE, text=True, check=False,
                          env=environment).stdout
    return said.partition("version ")[2].split("\n")[0].split(" (")[0]


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("guest: terminated"))
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qemu", required=True, help="the QEMU to test")
    parser.add_argument("--stock", default=os.environ.get("VIOMMU_STOCK_QEMU"),
                        help="an unmodified QEMU 10.0 with its own virtio-iommu (default: "
                             "$VIOMMU_STOCK_QEMU)")
    parser.add_argument("--own-device", type=Path, metavar="FOLDER",
                        help="folder of modules with QEMU's own device, made by the bench")
    parser.add_argument("--other", type=Path, metavar="BUILD",
                        help="build folder of the plugin for another QEMU version")
    parser.add_argument("--guest", choices=GUESTS, default="linux")
    parser.add_argument("--bare", type=Path, help="bare-x86.elf of the build, for --guest bare")
    parser.add_argument("--chain", action="append", choices=CHAINS,
                        help="the devices that the guest moves between in turns; may be "
                             "repeated (default: all that there are QEMUs for)")
    parser.add_argument("--machine", action="append",
                        help="may be repeated (default: pc-q35-10.0)")
    parser.add_argument("--hops", type=int, default=3, help="hops of each kind (default: 3)")
    parser.add_argument("--busy", type=int, default=2,
                        help="CPUs of the host that are kept busy (default: 2)")
    parser.add_argument("--limit", type=int, default=900,
                        help="seconds that a guest may stay in one QEMU (default: 900)")
    parser.add_argument("--keep", action="store_true", help="keep disks and logs of each guest")
    parser.set_defaults(kernel=fetch.SUITE, counters=True)
    options = parser.parse_args()
    if options.other and not (options.other / "build.ninja").exists():
        print(f"guest: skipped, there is no build for another QEMU in {options.other}; "
              "scripts/setup --qemu VERSION makes it")
        sys.exit(77)
    options.places = places_of(options)
    if options.guest == "bare" and not options.bare:
        parser.error("--guest bare needs --bare")
    for place in options.places.values():
        if not os.access(place["qemu"], os.X_OK):
            sys.exit(f"guest: {place['qemu']} is no program")
    versions = {name: version_of(place["qemu"]) for name, place in options.places.items()}
    note("QEMU " + ", ".join(f"{version} ({name})" for name, version in versions.items()))
    if versions["ours"] == versions.get("other"):
        sys.exit(f"guest: the QEMU in {options.other} is {versions['ours']}, too")
    chains = [name for name in options.chain or CHAINS if set(CHAINS[name]) <= set(options.places)]
    counts = Counter()
    try:
        with Busy(options.busy):
            for machine, name in itertools.product(options.machine or ["pc-q35-10.0"], chains):
                run_chain(options, machine, CHAINS[name], options.hops, counts)
    except (GuestError, fetch.FetchError, OSError) as err:
        print(table(counts))
        sys.exit(f"guest: {err}")
    print(table(counts), flush=True)
    sys.exit(0 if all(what == "right" for _, _, what in counts) else 1)


if __name__ == "__main__":
    main()
