#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Random machines: VIOT, device tree, topology array and the device's answers must agree.

Every machine is made from a seed.  Its descriptions, read as a guest reads them,
must say the same of each requester ID; and what exists must be answered OK by
the IOMMU that they name and by no other, all else NOENT.  Then buses are
renumbered, a slot is unplugged and one is filled, and all holds again.
"""
import argparse
import concurrent.futures
import os
import random
import sys
import traceback

from driver import NOENT, OK, Viommu
from guests import (NOBODY, Wrong, array_v2_claims, array_v3_claims, check_config_space,
                    require, spell_out, tree_claims, viot_claims)
from machines import Function, Machine, MachineWithTransports
from qtest import Qemu, QemuError

ARRAYS = {"v2": array_v2_claims, "v3": array_v3_claims}
LAYOUTS = ("v2", "v3", "off")
# {machine: (which QEMU, how many)}
MACHINES = {
    "x86_64": ("x86_64", 180),
    "aarch64": ("aarch64", 60),
    "microvm": ("x86_64", 24),
    "microvm-pcie": ("x86_64", 28),
    "virt-mmio": ("aarch64", 28),
}
WITH_TREE = ("aarch64", "virt-mmio")
SWEEP_EVERY = 30  # machines between two on which every ID is tried
SRIOV = 0x160  # igb's capability
DOMAIN = 1


def name_of(owner, machine):
    return "nobody" if owner == NOBODY else machine.iommus[owner - 1].name


class Bench:
    """One boot of a machine."""

    def __init__(self, qemu, machine, layout):
        self.qemu, self.machine, self.layout = qemu, machine, layout
        self.rng = random.Random(repr(machine.options("")))
        self.write_bus_numbers()
        self.devices = [Viommu(qemu, f.place, i) for i, f in enumerate(machine.iommus)]

    def write_bus_numbers(self):
        for bus in self.machine.buses():
            bridges = [f for f in bus.functions if f.secondary]
            # An old number of one would be in the way of its neighbour's new one.
            for f in bridges:
                self.qemu.set_bus_numbers(f.rid, 0, 0)
            for f in bridges:
                self.qemu.set_bus_numbers(f.rid, f.secondary.number, f.secondary.last)

    # --- descriptions ------------------------------------------------------------------

    def descriptions(self):
        """(name, claims) of all that this boot's guest can read."""
        yield "VIOT", list(viot_claims(self.qemu))
        if self.machine.arch in WITH_TREE:
            yield "device tree", list(tree_claims(self.qemu))
        if self.layout in ARRAYS:
            decode = ARRAYS[self.layout]
            yield f"array {self.layout}", [c for d in self.devices for c in decode(d)]

    def check_descriptions(self, when):
        want, transports = self.machine.owners(), self.machine.transports()
        places = [f.place for f in self.machine.iommus]
        for name, claims in self.descriptions():
            try:
                got, found = spell_out(claims, places)
            except Wrong as err:
                raise Wrong(f"{when}: {name}: {err}") from err
            if got != want:
                rid = next(i for i in range(0x10000) if got[i] != want[i])
                raise Wrong(f"{when}: {name} gives requester ID {rid:#06x} to "
                            f"{name_of(got[rid], self.machine)}, not to "
                            f"{name_of(want[rid], self.machine)}")
            if found != transports:
                raise Wrong(f"{when}: {name} has {found} on transports, not {transports}")

    # --- answers -----------------------------------------------------------------------

    def interesting_ids(self):
        """What exists, the edges of all that is described, and a random choice."""
        owners, existing = self.machine.owners(), self.machine.existing()
        ids = set(existing) | {f.rid for f in self.machine.iommus if f.rid is not None}
        ids |= {0xffff0000 + n for n in range(self.qemu.platform.transport_count + 2)}
        for rid in range(1, 0x10000):
            if owners[rid] != owners[rid - 1]:
                ids |= {rid - 1, rid}
        for bus in self.machine.buses():
            ids |= {bus.number << 8, bus.number << 8 | 1, bus.number << 8 | 0xff}
        ids |= {rid ^ 1 for rid in existing} | {rid ^ 8 for rid in existing}
        wide = {rid | 0x10000 << self.rng.randrange(16)
                for rid in self.rng.sample(sorted(existing), min(16, len(existing)))}
        ids |= {endpoint ^ 1 << self.rng.randrange(32)
                for _, endpoint in self.machine.transports().values()}
        ids |= wide | {0xffff0000, 0xffffffff, self.rng.randrange(1 << 32)}
        while len(ids) % 256:
            ids.add(self.rng.randrange(0x10000))
        return sorted(ids)

    def check_expectation(self, when):
        """Configuration space shows what the test believes to exist."""
        visible = self.qemu.scan([bus.number for bus in self.machine.buses()])
        if visible != self.machine.visible().keys():
            raise Wrong(f"{when}: the test is wrong about what exists: "
                        f"{sorted(map(hex, visible ^ self.machine.visible().keys()))}")

    def check_answers(self, when, sweep=False):
        machine, answering = self.machine, self.machine.answering()
        ids = [*range(0x10000), *range(0xffff0000, 0xffff0040)] if sweep \
            else self.interesting_ids()
        for i, device in enumerate(self.devices):
            want = bytes(OK if answering.get(rid) == 1 + i else NOENT for rid in ids)
            for what, got in (("PROBE", device.probe(ids)), ("ATTACH", device.attach(ids, DOMAIN))):
                if got != want:
                    n = next(n for n in range(len(want)) if got[n] != want[n])
                    raise Wrong(f"{when}: {machine.iommus[i].name} answers {got[n]} to {what} of "
                                f"{ids[n]:#x}, not {want[n]}")

    def check(self, when, sweep=False, reachable=True):
        if reachable:
            self.check_expectation(when)
        self.check_descriptions(when)
        for device in self.devices:
            device.bring_up()
        self.check_answers(when, sweep)

    # --- what happens to a machine ---------------------------------------------------------

    def enable_virtual_functions(self):
        for f in self.machine.functions():
            if f.virtual_functions:
                f.enabled_vfs = self.rng.randint(0, f.virtual_functions)
                control, number = (self.qemu.config(f.rid, SRIOV + n) for n in (8, 16))
                self.qemu.write(2, number, f.enabled_vfs)
                if f.enabled_vfs:
                    self.qemu.write(2, control, 1)

    def unplug(self):
        """Empties a slot; whatever was behind it is gone."""
        full = [p for p in self.machine.hotplug_ports() if p.secondary.functions
                and p.secondary.functions[0].driver != "x3130-upstream"]
        if not full:
            return
        port = self.rng.choice(full)
        self.qemu.qmp("device_del", id=port.secondary.functions[0].name)
        self.qemu.slot_power(port.rid, False)
        for f in port.secondary.functions:
            self.qemu.wait_deleted(f.name)
        port.secondary.functions.clear()

    def plug(self):
        empty = [p for p in self.machine.hotplug_ports() if not p.secondary.functions]
        if empty:
            port = self.rng.choice(empty)
            name = f"{port.name}plugged"
            self.qemu.qmp("device_add", driver="edu", id=name, bus=port.name, addr="0.0")
            self.qemu.slot_power(port.rid, True)
            port.secondary.functions.append(Function(name, "edu", port.secondary, 0))


def machine_of(arch, seed):
    return (Machine if arch in ("x86_64", "aarch64") else MachineWithTransports)(seed, arch)


def whole_life(program, machine, layout, sweep):
    with Qemu(program, machine.arch, machine.options(layout)) as qemu:
        bench = Bench(qemu, machine, layout)
        for device in bench.devices:
            check_config_space(device, layout)
        bench.check("at first", sweep)
        bench.enable_virtual_functions()
        bench.check_expectation("with virtual functions")
        bench.check_answers("with virtual functions")
        machine.number_buses()
        bench.write_bus_numbers()
        bench.check("renumbered")
        bench.unplug()
        bench.check("unplugged")
        bench.plug()
        machine.number_buses()
        bench.write_bus_numbers()
        bench.check("plugged and renumbered")
        bridge = machine.stray()
        if bridge:
            qemu.set_bus_numbers(bridge.rid, bridge.secondary.number, bridge.secondary.number)
            bench.check("with a bus outside of its root bus's window", reachable=False)


def descriptions_only(program, machine, layout):
    with Qemu(program, machine.arch, machine.options(layout)) as qemu:
        bench = Bench(qemu, machine, layout)
        for device in bench.devices:
            check_config_space(device, layout)
        bench.check_descriptions(f"topology={layout}")


def try_machine(program, arch, seed, sweep):
    """The complaint about a machine, or None."""
    try:
        # The others first: the whole life changes the machine.
        main = LAYOUTS[seed % len(LAYOUTS)]
        machine = machine_of(arch, seed)
        for layout in LAYOUTS:
            if layout != main:
                descriptions_only(program, machine, layout)
        whole_life(program, machine, main, sweep)
    except (Wrong, QemuError) as err:
        return str(err)
    except Exception:  # pylint: disable=broad-exception-caught
        return traceback.format_exc()
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--x86-64", metavar="QEMU", help="qemu-system-x86_64")
    parser.add_argument("--aarch64", metavar="QEMU", help="qemu-system-aarch64")
    parser.add_argument("--machine", choices=MACHINES, action="append",
                        help="only machines of this kind; may be repeated")
    parser.add_argument("--seed", type=int, help="only this machine; its command line is shown")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    programs = {"x86_64": options.x86_64, "aarch64": options.aarch64}
    jobs = [(programs[program], arch, seed, seed % SWEEP_EVERY == 0 or options.seed is not None)
            for arch, (program, count) in MACHINES.items() if programs[program]
            for seed in range(count)
            if options.seed in (None, seed) and (not options.machine or arch in options.machine)]
    if not jobs:
        parser.error("name a QEMU, and a seed that exists")
    if options.seed is not None:
        for _, arch, seed, _ in jobs:
            words = machine_of(arch, seed).options(LAYOUTS[seed % len(LAYOUTS)])
            print(f"# {arch}: {' '.join(words)}")
    print(f"1..{len(jobs)}", flush=True)
    failed = 0
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        results = pool.map(try_machine, *zip(*jobs))
        for n, (job, complaint) in enumerate(zip(jobs, results), 1):
            _, arch, seed, _ = job
            print(f"{'not ok' if complaint else 'ok'} {n} MOD-11/machine-{arch}-{seed}", flush=True)
            if complaint:
                failed += 1
                print(f"machine {arch} {seed}: {complaint}", file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
