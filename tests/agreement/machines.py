# SPDX-License-Identifier: GPL-2.0-or-later
"""Random machines, and what is to be expected of them.

The expectation is spelt out function by function and requester ID by requester
ID from the options alone; nothing here asks QEMU.
"""
import random
from dataclasses import dataclass, field

from qtest import PLATFORMS

ENDPOINTS = ("edu", "pci-testdev", "virtio-rng-pci,disable-legacy=on", "e1000e,romfile=")
CONVENTIONAL = ("edu", "pci-testdev", "e1000,romfile=")
# Functions that the machine itself has on its first bus.
BUILT_IN = {"x86_64": (0x00, 0xf8, 0xfa, 0xfb), "aarch64": (0x00,), "virt-mmio": (0x00,),
            "microvm-pcie": (0x00,), "microvm": ()}
TRANSPORTS = "main-system-bus"  # what root-bus calls all endpoints on transports
BUS_BUDGET = 24


@dataclass
class Bus:
    """A root bus, or the bus behind a bridge.

    kind: root; port (a PCIe link, one device); switch (inside of one); owner (behind a
    PCIe-to-PCI bridge, which takes requests over under its bus's first ID); plain (behind
    another conventional bridge, which takes them over under its own ID).
    """
    name: str
    kind: str
    bridge: "Function" = None
    functions: list = field(default_factory=list)
    number: int = 0
    last: int = 0  # root: of its window; else: of the numbers below it
    bypass: bool = False  # root

    @property
    def root(self):
        return self.bridge.bus.root if self.bridge else self

    @property
    def below(self):
        return [f.secondary for f in self.functions if f.secondary]

    def walk(self):
        yield self
        for bus in self.below:
            yield from bus.walk()


@dataclass
class Function:
    name: str
    driver: str
    bus: Bus
    devfn: int
    secondary: Bus = None
    virtual_functions: int = 0  # how many it can show
    enabled_vfs: int = 0
    claims: list = None  # IOMMU: the root buses that it names
    left_out: list = field(default_factory=list)  # IOMMU: entries
    options: str = ""

    @property
    def rid(self):
        return self.bus.number << 8 | self.devfn

    @property
    def place(self):
        return self.rid

    def alias(self):
        """The requester ID that the function's DMA arrives with."""
        bus, rid = self.bus, self.rid
        while bus.bridge:
            if bus.kind == "owner":
                rid = bus.number << 8
            elif bus.kind == "plain":
                rid = bus.bridge.rid
            bus = bus.bridge.bus
        return rid


@dataclass
class Transported:
    """A device on a virtio-mmio transport."""
    name: str
    driver: str
    number: int
    place: int  # address of the transport
    translated: bool = False  # iommu_platform
    claims: list = None
    left_out: list = field(default_factory=list)
    options: str = ""
    rid = None

    @property
    def endpoint(self):
        return 0xffff0000 + self.number


class Machine:
    def __init__(self, seed, arch):
        self.random = random.Random(f"{arch} {seed}")
        self.arch = arch
        self.names = 0
        self.bus_count = 0
        self.pcie0 = Bus("pcie.0", "root")
        self.roots = [self.pcie0]
        self.iommus = []
        self._grow_roots()
        self._add_iommus()
        self.out_functions, self.out_roots = set(), []
        # Of its own, so that machines without it are those that they were.
        self._leave_out(random.Random(f"leave-out {arch} {seed}"))
        self.order = self._option_order()
        self.number_buses()

    # --- growing ---------------------------------------------------------------------

    def chance(self, percent):
        return self.random.randrange(100) < percent

    def name(self, kind):
        self.names += 1
        return f"{kind}{self.names}"

    def add(self, driver, bus, devfn, behind=None, options=""):
        kind = driver.split(",")[0].split("-")[0]
        function = Function(self.name(kind), driver, bus, devfn, options=options)
        bus.functions.append(function)
        if behind:
            self.bus_count += 1
            function.secondary = Bus(function.name, behind, function)
            if driver.startswith(("pcie-root-port", "xio3130-downstream")):
                function.options += f",chassis={self.names}"
        return function

    def free_slots(self, bus, count):
        taken = {f.devfn >> 3 for f in bus.functions}
        if bus is self.pcie0:
            taken |= {devfn >> 3 for devfn in BUILT_IN[self.arch]}
        # Conventional bridges keep slot 0 for their hotplug controller.
        free = [s for s in range(1 if bus.kind in ("owner", "plain") else 0, 32) if s not in taken]
        return self.random.sample(free, min(count, len(free)))

    def _grow_roots(self):
        for _ in range(self.random.choice((0, 0, 1, 1, 2, 3))):
            slot, = self.free_slots(self.pcie0, 1)
            pxb = self.add("pxb-pcie", self.pcie0, slot << 3)
            root = Bus(pxb.name, "root", bypass=self.chance(25))
            pxb.options += ",bypass_iommu=on" if root.bypass else ""
            self.roots.append(root)
        self.pcie0.bypass = self.chance(20)
        for root in self.roots:
            for slot in self.free_slots(root, self.random.randint(1, 4)):
                self._grow_root_slot(root, slot)
        self._place_windows()

    def _grow_root_slot(self, root, slot):
        kinds = ["port"] * 4 + ["ports", "owner", "plain"]
        if root is self.pcie0:
            kinds += ["endpoint", "endpoint", "functions"]
        kind = self.random.choice(kinds)
        if kind == "port":
            self._grow_port(root, slot << 3)
        elif kind == "ports":
            for n in sorted(self.random.sample(range(1, 8), self.random.randint(1, 2))):
                self._grow_port(root, slot << 3 | n)
            self._grow_port(root, slot << 3, ",multifunction=on")
        elif kind in ("owner", "plain"):
            self._grow_conventional(root, slot << 3, kind, 0)
        else:
            self._grow_endpoints(root, slot, ENDPOINTS, kind == "functions")

    def _grow_endpoints(self, bus, slot, drivers, several):
        options = ""
        if several:
            options = ",multifunction=on"
            for n in self.random.sample(range(1, 8), self.random.randint(1, 3)):
                self.add(self.random.choice(drivers), bus, slot << 3 | n)
        self.add(self.random.choice(drivers), bus, slot << 3, options=options)

    def _grow_port(self, bus, devfn, options=""):
        hotplug = self.chance(60)
        options += "" if hotplug else ",hotplug=off"
        port = self.add("pcie-root-port", bus, devfn, "port", options)
        self._grow_link(port.secondary, 0)

    def _grow_link(self, link, depth):
        kinds = ["nothing", "endpoint", "endpoint", "functions", "igb", "owner", "switch"]
        kind = self.random.choice(kinds if self.bus_count < BUS_BUDGET and depth < 2
                                  else kinds[:5])
        if kind in ("endpoint", "functions"):
            self._grow_endpoints(link, 0, ENDPOINTS, kind == "functions")
        elif kind == "igb":
            igb = self.add("igb", link, 0, options=",romfile=")
            igb.virtual_functions = 7
        elif kind == "owner":
            self._grow_conventional(link, 0, "owner", depth)
        elif kind == "switch":
            upstream = self.add("x3130-upstream", link, 0, "switch")
            for slot in self.free_slots(upstream.secondary, self.random.randint(1, 3)):
                port = self.add("xio3130-downstream", upstream.secondary, slot << 3, "port")
                self._grow_link(port.secondary, depth + 1)

    def _grow_conventional(self, bus, devfn, kind, depth):
        if kind == "owner":
            bridge = self.add("pcie-pci-bridge", bus, devfn, kind)
        else:
            bridge = self.add("pci-bridge", bus, devfn, kind)
            bridge.options = f",chassis_nr={self.names}"
        behind = bridge.secondary
        for slot in self.free_slots(behind, self.random.randint(0, 3)):
            if depth < 2 and self.bus_count < BUS_BUDGET and self.chance(20):
                self._grow_conventional(behind, slot << 3, "plain", depth + 1)
            else:
                self._grow_endpoints(behind, slot, CONVENTIONAL, self.chance(20))

    def _place_windows(self):
        """Gives every root bus a number that leaves room for the buses behind it."""
        expanders = self.roots[1:]
        self.random.shuffle(expanders)
        ordered = [self.pcie0, *expanders]
        needs = [len(list(root.walk())) for root in ordered]
        slack = 0x100 - sum(needs)
        cuts = sorted(self.random.randint(0, slack) for _ in expanders)
        at = 0
        for i, root in enumerate(ordered):
            root.number = at + (cuts[i - 1] if i else 0)
            at += needs[i]
        for root, following in zip(ordered, ordered[1:] + [None]):
            root.last = following.number - 1 if following else 0xff
        for pxb in self.pcie0.functions:
            if pxb.driver == "pxb-pcie":
                root = next(r for r in self.roots if r.name == pxb.name)
                pxb.options += f",bus_nr={root.number}"

    def _add_iommus(self):
        claimable = [r for r in self.roots if not r.bypass]
        self.random.shuffle(claimable)
        taker = self.chance(70) or not claimable
        claimants = min(self.random.choice((0, 1, 1, 2, 3)) if taker
                        else self.random.randint(1, 3), len(claimable), 3 - taker)
        claims = [[] for _ in range(claimants)]
        for i, root in enumerate(claimable):
            if i < claimants:
                claims[i].append(root)
            elif claimants and self.chance(40):
                self.random.choice(claims).append(root)
        claims += [None] * taker
        self.random.shuffle(claims)
        together = self.chance(20)  # all of them functions of one device
        slot, = self.free_slots(self.pcie0, 1)
        for n, claim in enumerate(claims):
            if together:
                devfn = slot << 3 | n
            else:
                devfn = self.free_slots(self.pcie0, 1)[0] << 3
            options = ",multifunction=on" if together and n == 0 else ""
            iommu = self.add("virtio-iommu-pci", self.pcie0, devfn, options=options)
            iommu.claims = claim
            if claim is not None:
                iommu.options += ",root-bus=" + ":".join(root.name for root in claim)
            self.iommus.append(iommu)

    def _leave_out(self, rng):
        """What single IOMMUs leave out: (requester IDs, whole root buses)."""
        for i, iommu in enumerate(self.iommus):
            for root in self.roots:
                if self.manager(root) != 1 + i or rng.randrange(100) < 50:
                    continue
                claimed = iommu.claims is not None and root in iommu.claims
                if not claimed and rng.randrange(100) < (5 if root is self.pcie0 else 25):
                    iommu.left_out.append(root.name)
                    self.out_roots.append(root)
                    continue
                self._leave_functions_out(rng, iommu, root)
            if iommu.left_out:
                rng.shuffle(iommu.left_out)
                iommu.options += ",leave-out=" + ":".join(iommu.left_out)

    def _leave_functions_out(self, rng, iommu, root):
        iommus = {f.devfn for f in self.iommus if f.rid is not None and root is self.pcie0}
        bridges = {f.devfn for f in root.functions if f.secondary}
        named = {f.devfn: f.name for f in root.functions
                 if not f.secondary and f.driver != "pxb-pcie" and f.devfn not in iommus}
        out = set()
        # A transport shows no more than 256 bytes of a config space: of an array, 13 items.
        for _ in range(rng.randint(1, 4 if iommu.rid is not None else 1)):
            # What is there, or anywhere; rarely next to what must stay.
            there = [*named, *(BUILT_IN[self.arch] if root is self.pcie0 else ())]
            devfn = rng.choice(there) if there and rng.randrange(3) else rng.randrange(256)
            slot = set(range(devfn & 0xf8, (devfn & 0xf8) + 8))
            if rng.randrange(3) == 0 and not slot & (bridges | out):
                iommu.left_out.append(f"{root.name}/{devfn >> 3:x}")
                out |= slot
            elif devfn not in iommus | bridges | out:
                by_name = devfn in named and rng.randrange(2)
                iommu.left_out.append(named[devfn] if by_name else
                                      f"{root.name}/{devfn >> 3:x}.{devfn & 7}")
                out.add(devfn)
        self.out_functions |= {root.number << 8 | devfn for devfn in out}

    def is_left_out(self, rid, root):
        """Whether what has this ID, on or behind the root bus, bypasses: never what is behind
        a bridge, whatever its number, unless all of the root bus does."""
        return root in self.out_roots or (rid >> 8 == root.number and rid in self.out_functions)

    # --- what QEMU is told ---------------------------------------------------------------

    def _option_order(self):
        """Any order in which the bus of each function exists."""
        waiting = [f for root in self.roots for bus in root.walk() for f in bus.functions]
        ready, order = {"pcie.0"}, []
        while waiting:
            function = self.random.choice([f for f in waiting if f.bus.name in ready])
            waiting.remove(function)
            ready.add(function.name)
            order.append(function)
        return order

    def options(self, layout):
        args = []
        if self.pcie0.bypass:
            args += ["-machine", "default_bus_bypass_iommu=on"]
        for f in self.order:
            if isinstance(f, Transported):
                text = f"{f.driver},id={f.name},bus=virtio-mmio-bus.{f.number}{f.options}"
            else:
                text = (f"{f.driver},id={f.name},bus={f.bus.name},"
                        f"addr={f.devfn >> 3:x}.{f.devfn & 7}{f.options}")
            if f.claims is not None or f in self.iommus:
                text += f",topology={layout}"
            args += ["-device", text]
        return args

    # --- what the guest does -------------------------------------------------------------

    def number_buses(self):
        """Numbers at random, such that each bridge's range holds those below it."""
        for root in self.roots:
            order = []

            def visit(bus):
                below = bus.below
                self.random.shuffle(below)
                for b in below:
                    order.append(b)
                    visit(b)

            visit(root)
            numbers = sorted(self.random.sample(range(root.number + 1, root.last + 1), len(order)))
            for bus, number in zip(order, numbers):
                bus.number = number
            for bus in reversed(order):
                bus.last = max([bus.number, *(b.last for b in bus.below)])

    def buses(self):
        """Each after the bus that its bridge is on."""
        return [bus for root in self.roots for bus in root.walk()]

    def functions(self):
        return [f for bus in self.buses() for f in bus.functions]

    def hotplug_ports(self):
        return [f for f in self.functions()
                if f.driver == "pcie-root-port" and "hotplug=off" not in f.options]

    # --- what is to be expected ------------------------------------------------------------

    def manager(self, root):
        """1 + the index of the IOMMU that has the root bus, or 0."""
        for i, iommu in enumerate(self.iommus):
            if iommu.claims is not None and root in iommu.claims:
                return 1 + i
        for i, iommu in enumerate(self.iommus):
            if iommu.claims is None and not root.bypass:
                return 1 + i
        return 0

    def owners(self):
        """For each requester ID, 1 + the index of its IOMMU, or 0."""
        owners = bytearray(0x10000)
        for root in self.roots:
            manager = self.manager(root)
            for rid in range(root.number << 8, (root.last + 1) << 8):
                owners[rid] = 0 if self.is_left_out(rid, root) else manager
        for iommu in self.iommus:
            if iommu.rid is not None:
                owners[iommu.rid] = 0
        return bytes(owners)

    def visible(self):
        """The requester IDs of all functions that are there, each with its root bus."""
        rids = dict.fromkeys(BUILT_IN[self.arch], self.pcie0)
        for f in self.functions():
            for rid in (f.rid, *(f.rid + 0x80 + 2 * n for n in range(f.enabled_vfs))):
                rids[rid] = f.bus.root
        return rids

    def existing(self):
        """Those, and the ones that DMA arrives with."""
        return self.visible() | {f.alias(): f.bus.root for f in self.functions()}

    def answering(self):
        """{requester ID: 1 + the index of the IOMMU whose endpoint it is}."""
        owners = self.owners()
        return {rid: owners[rid] for rid, root in self.existing().items()
                if owners[rid] and owners[rid] == self.manager(root) and
                root not in self.out_roots}

    def transports(self):
        """{transport's address: (1 + the index of its IOMMU, endpoint ID)}."""
        return {}

    def stray(self):
        """Numbers a bus into another root bus's window; returns its bridge, or None.

        An IOMMU that does not describe the new number must not answer for what is behind
        it; nor must one that does, unless that root bus is its own, too.
        """
        used = {bus.number for bus in self.buses()}
        for bus in self.random.sample(self.buses(), len(self.buses())):
            if not bus.bridge or bus.below:
                continue
            numbers = [n for root in self.roots if root is not bus.root
                       for n in range(root.number + 1, root.last + 1) if n not in used]
            if numbers:
                bus.number = bus.last = self.random.choice(numbers)
                return bus.bridge
        return None


class MachineWithTransports(Machine):
    """One with devices, and mostly an IOMMU, on virtio-mmio transports."""

    def __init__(self, seed, arch):
        self.devices = []
        super().__init__(seed, arch)

    def on_transport(self, driver, options=""):
        platform = PLATFORMS[self.arch]
        taken = {d.number for d in self.devices}
        number = self.random.choice([n for n in range(platform.transport_count)
                                     if n not in taken])
        device = Transported(self.name(driver.split("-")[1]), driver, number,
                             platform.transport(number), options=options)
        self.devices.append(device)
        return device

    def _grow_roots(self):
        if self.arch == "virt-mmio":
            super()._grow_roots()
        elif self.arch == "microvm-pcie":
            # It has no expanders, and no option to let its one root bus bypass.
            for slot in self.free_slots(self.pcie0, self.random.randint(1, 4)):
                self._grow_root_slot(self.pcie0, slot)
            self._place_windows()
        else:
            self.roots = []

    def _add_iommus(self):
        for _ in range(self.random.randint(0, 4)):
            device = self.on_transport(self.random.choice(("virtio-rng-device",
                                                           "virtio-serial-device")))
            said = self.random.choice(("", ",iommu_platform=on", ",iommu_platform=on",
                                       ",iommu_platform=off"))
            device.options += said
            device.translated = said.endswith("on")
        for claim in self._shares():
            if not self.roots or self.chance(60):
                iommu = self.on_transport("virtio-iommu-mmio" if self.chance(80)
                                          else "virtio-iommu-device")
            else:
                slot, = self.free_slots(self.pcie0, 1)
                iommu = self.add("virtio-iommu-pci", self.pcie0, slot << 3)
            iommu.claims = claim
            if claim is not None:
                iommu.options += ",root-bus=" + ":".join(
                    share if share == TRANSPORTS else share.name for share in claim)
            self.iommus.append(iommu)

    def _shares(self):
        """What each IOMMU claims; None is all the rest."""
        claimable = [*(root for root in self.roots if not root.bypass), TRANSPORTS]
        self.random.shuffle(claimable)
        taker = self.chance(60)
        count = min(len(claimable), self.random.randint(0 if taker else 1, 2))
        claims = [[] for _ in range(count)]
        for i, share in enumerate(claimable):
            if i < count:
                claims[i].append(share)
            elif count and self.chance(40):
                self.random.choice(claims).append(share)
        claims += [None] * taker
        self.random.shuffle(claims)
        return claims

    def _option_order(self):
        order = super()._option_order()
        for device in self.devices:
            order.insert(self.random.randint(0, len(order)), device)
        return order

    def visible(self):
        return super().visible() if self.roots else {}

    def transports(self):
        manager = self.manager(TRANSPORTS)
        return {d.place: (manager, d.endpoint) for d in self.devices if d.translated and manager}

    def manager(self, root):
        for i, iommu in enumerate(self.iommus):
            if iommu.claims is not None and root in iommu.claims:
                return 1 + i
        bypasses = root is not TRANSPORTS and root.bypass
        for i, iommu in enumerate(self.iommus):
            if iommu.claims is None and not bypasses:
                return 1 + i
        return 0

    def answering(self):
        return super().answering() | {endpoint: manager
                                      for manager, endpoint in self.transports().values()}
