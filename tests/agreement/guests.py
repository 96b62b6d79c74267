# SPDX-License-Identifier: GPL-2.0-or-later
"""The descriptions of a machine as its guests read them.

Each decoder yields claims.  The place of an IOMMU in them is its requester ID or
its transport's address, which is never so low.  Where a guest would go on in
silence with a description that makes no sense, Wrong is raised.
"""
import struct
from typing import NamedTuple

from driver import F_BIT_6, STATUS_ACKNOWLEDGE, STATUS_DRIVER


class Wrong(Exception):
    """A description, or a difference between two."""


class Range(NamedTuple):
    """Requester IDs; `endpoint` is the endpoint ID of the first."""
    iommu: int
    first: int
    last: int
    endpoint: int


class OnTransport(NamedTuple):
    """A device on the virtio-mmio transport at `base`."""
    iommu: int
    base: int
    endpoint: int


def require(condition, text):
    if not condition:
        raise Wrong(text)


# --- ACPI: what firmware does with QEMU's tables, and what the kernel then finds --------

ALLOCATE, ADD_POINTER, ADD_CHECKSUM = 1, 2, 3


def _name(raw):
    return raw.split(b"\0")[0].decode()


class Memory:
    """The files as placed by the loader's script, at addresses of our choice."""

    def __init__(self, qemu):
        self.files, self.bases = {}, {}
        script = qemu.fw_cfg_file("etc/table-loader")
        for at in range(0, len(script), 128):
            command, = struct.unpack_from("<I", script, at)
            body = script[at + 4:at + 128]
            if command == ALLOCATE:
                name = _name(body[:56])
                self.bases[name] = 0x10000000 * (len(self.bases) + 1)
                self.files[name] = bytearray(qemu.fw_cfg_file(name))
            elif command == ADD_POINTER:
                target, source = _name(body[:56]), _name(body[56:112])
                offset, size = struct.unpack_from("<IB", body, 112)
                data = self.files[target]
                value = int.from_bytes(data[offset:offset + size], "little") + self.bases[source]
                data[offset:offset + size] = value.to_bytes(size, "little")
            elif command == ADD_CHECKSUM:
                name = _name(body[:56])
                offset, start, length = struct.unpack_from("<III", body, 56)
                data = self.files[name]
                data[offset] = (data[offset] - sum(data[start:start + length])) & 0xff

    def at(self, address):
        for name, base in self.bases.items():
            if base <= address < base + len(self.files[name]):
                return self.files[name][address - base:]
        raise Wrong(f"an ACPI pointer leads to {address:#x}, where nothing is")

    def table(self, address):
        data = self.at(address)
        length, = struct.unpack_from("<I", data, 4)
        require(len(data) >= length >= 36, "an ACPI table ends behind its file")
        require(sum(data[:length]) & 0xff == 0,
                f"the checksum of ACPI table {bytes(data[:4])} is wrong")
        return bytes(data[:length])


def acpi_tables(qemu, signature):
    """All tables with this signature that the root table leads to."""
    memory = Memory(qemu)
    rsdp = memory.files["etc/acpi/rsdp"]
    if rsdp[15] < 2:
        root, width = memory.table(struct.unpack_from("<I", rsdp, 16)[0]), 4
    else:
        root, width = memory.table(struct.unpack_from("<Q", rsdp, 24)[0]), 8
    entries = [int.from_bytes(root[at:at + width], "little")
               for at in range(36, len(root), width)]
    tables = [memory.table(entry) for entry in entries]
    if signature == b"DSDT":
        facp, = (table for table in tables if table[:4] == b"FACP")
        short, = struct.unpack_from("<I", facp, 40)
        long = struct.unpack_from("<Q", facp, 140)[0] if len(facp) >= 148 else 0
        return [memory.table(long or short)]
    return [table for table in tables if table[:4] == signature]


# No function is ever in it: its endpoint IDs belong to virtio-mmio transports.
EMPTY_SEGMENT = 0xffff


def viot_claims(qemu):
    tables = acpi_tables(qemu, b"VIOT")
    require(len(tables) == 1, f"there are {len(tables)} VIOT tables")
    table = tables[0]
    require(len(table) >= 48, "the VIOT ends inside its header")
    count, start = struct.unpack_from("<HH", table, 36)
    require(not any(table[40:48]), "VIOT: reserved bytes of the header are not 0")
    require(start >= 48, "VIOT: nodes begin inside the header")
    iommus, ranges, endpoints, at = {}, [], [], start
    for i in range(count):
        require(at + 4 <= len(table), f"VIOT: node {i} lies outside the table")
        kind, reserved, length = struct.unpack_from("<BBH", table, at)
        require(at % 8 == 0 and reserved == 0, f"VIOT: node {i} is unaligned")
        require((kind, length) in ((1, 24), (2, 24), (3, 16), (4, 16)) and
                at + length <= len(table),
                f"VIOT: node {i} is of type {kind} and {length} bytes long")
        if kind == 3:
            segment, bdf = struct.unpack_from("<HH", table, at + 4)
            require(segment == 0 and not any(table[at + 8:at + 16]),
                    f"VIOT: node {i} is in segment {segment}")
            iommus[at] = bdf
        elif kind == 4:
            require(not any(table[at + 4:at + 8]), f"VIOT: reserved bytes of node {i}")
            iommus[at], = struct.unpack_from("<Q", table, at + 8)
        else:
            (ranges if kind == 1 else endpoints).append(
                struct.unpack_from("<IHHHHH" if kind == 1 else "<IQH", table, at + 4))
            require(not any(table[at + 18:at + 24]), f"VIOT: reserved bytes of node {i}")
        at += length
    require(at == len(table), "VIOT: bytes follow the last node")
    idle, busy = [], set()
    for endpoint, segment_start, segment_end, first, last, output in ranges:
        require(output in iommus, f"VIOT: no IOMMU is at offset {output}")
        if segment_start == segment_end == EMPTY_SEGMENT:
            require(first == last and endpoint == EMPTY_SEGMENT << 16 | first,
                    "VIOT: a range without functions is not of its own kind")
            idle.append((output, first))
            continue
        require(segment_start == segment_end == 0, "VIOT: a range leaves segment 0")
        busy.add(output)
        yield Range(iommus[output], first, last, endpoint)
    for endpoint, base, output in endpoints:
        require(output in iommus, f"VIOT: no IOMMU is at offset {output}")
        busy.add(output)
        yield OnTransport(iommus[output], base, endpoint)
    # Linux crashes on an IOMMU that no range refers to, if there is no other node for it.
    outputs = [output for output, _ in idle]
    require(len(set(outputs)) == len(outputs) == len({first for _, first in idle}) and
            busy.isdisjoint(outputs) and busy.union(outputs) == iommus.keys(),
            "VIOT: an IOMMU is not referred to in one way")
    # Linux finds a transport by the resources of a device in the DSDT.
    places = [place for place in iommus.values() if place >= 0x10000]
    places += [base for _, base, _ in endpoints]
    if places:
        dsdt = acpi_tables(qemu, b"DSDT")[0]
        for base in places:
            require(struct.pack("<BHBII", 0x86, 9, 1, base, 0x200) in dsdt,
                    f"VIOT: no device of the DSDT has its registers at {base:#x}")


# --- the array in config space ---------------------------------------------------------

def array_v2_claims(device):
    """The February 2020 driver: looks before it takes the device, and does not reset it."""
    if not device.features() & F_BIT_6:
        return
    offset, count, length = struct.unpack("<III", device.config(36, 12))
    if not offset or not count or not length:
        return
    require(length == 16, f"array v2: items are {length} bytes apart")
    require(offset % 8 == 0, f"array v2: the items begin at {offset}")
    for i in range(count):
        # It copies no more than 16 bytes of an item, 4 at a time.
        item = device.config(offset + i * length, min(length, 16))
        kind, segment, first, last, endpoint = struct.unpack_from("<HHHHI", item)
        if kind == 2:
            zero, endpoint, base = struct.unpack_from("<HIQ", item, 2)
            require(zero == 0, f"array v2: reserved bytes of item {i}")
            yield OnTransport(device.place, base, endpoint)
            continue
        require(kind == 1 and segment == 0, f"array v2: item {i} has type {kind}")
        require(not any(item[12:]), f"array v2: item {i} has bytes after its end")
        yield Range(device.place, first, last, endpoint)


def array_v3_claims(device):
    """The August 2020 driver: resets before and after, and checks each item's bounds."""
    device.set_status(0)
    device.set_status(STATUS_ACKNOWLEDGE | STATUS_DRIVER)
    found = []
    if device.features() & F_BIT_6:
        count, = struct.unpack("<H", device.config(36, 2, 2))
        at, = struct.unpack("<H", device.config(38, 2, 2))
        require(at % 8 == 0, f"array v3: the items begin at {at}")
        for i in range(count):
            kind, = device.config(at, 1, 1)
            length, = struct.unpack("<H", device.config(at + 2, 2, 2))
            require(length >= 16 and at + length <= device.device_size,
                    f"array v3: item {i} leaves the config space")
            require(kind in (1, 2), f"array v3: item {i} has type {kind}")
            rest = device.config(at + 4, 12)
            if kind == 2:
                endpoint, base = struct.unpack("<IQ", rest)
                found.append(OnTransport(device.place, base, endpoint))
            else:
                endpoint, segment, first, last, zero = struct.unpack("<IHHHH", rest)
                require(segment == 0 and zero == 0, f"array v3: item {i} is in segment {segment}")
                found.append(Range(device.place, first, last, endpoint))
            at += length
    device.set_status(0)
    yield from found


def check_config_space(device, layout):
    """Its length is what is used, and every width of access reads the same."""
    bit_6 = bool(device.features() & F_BIT_6)
    require(bit_6, "feature bit 6 is not offered")
    if layout == "off":
        size = 40
    elif layout == "v2":
        size = 48 + 16 * struct.unpack("<I", device.config(40, 4))[0]
    else:
        size = 40 + 16 * struct.unpack("<H", device.config(36, 2, 2))[0]
    whole = device.config(0, size)
    require(device.config(0, size, 1) == whole and device.config(0, size, 2) == whole,
            "accesses of different widths read different config spaces")
    after = min(32, device.device_size - size)
    require(device.config(size, after) == b"\xff" * after,
            f"the config space goes on after {size}")
    if layout == "off":
        require(whole[36:] == b"\1\0\0\0", f"off: byte 36 on reads {whole[36:].hex()}")


# --- device tree -------------------------------------------------------------------------

class Node:
    def __init__(self, name):
        self.name, self.properties, self.children = name, {}, []

    def walk(self):
        yield self
        for child in self.children:
            yield from child.walk()

    def cells(self, name):
        raw = self.properties[name]
        return struct.unpack(f">{len(raw) // 4}I", raw)

    def is_compatible(self, name):
        return name in self.properties.get("compatible", b"").split(b"\0")


def parse_tree(blob):
    magic, total, structure, strings = struct.unpack_from(">IIII", blob)
    require(magic == 0xd00dfeed and total <= len(blob), "there is no device tree in memory")
    root, path, at = None, [], structure
    while True:
        token, = struct.unpack_from(">I", blob, at)
        at += 4
        if token == 1:
            end = blob.index(b"\0", at)
            node = Node(blob[at:end].decode())
            if path:
                path[-1].children.append(node)
            else:
                root = node
            path.append(node)
            at = end + 4 & ~3
        elif token == 2:
            path.pop()
        elif token == 3:
            size, name = struct.unpack_from(">II", blob, at)
            end = blob.index(b"\0", strings + name)
            path[-1].properties[blob[strings + name:end].decode()] = blob[at + 8:at + 8 + size]
            at += 8 + size + 3 & ~3
        elif token == 9:
            return root
        else:
            require(token == 4, f"the device tree has a token {token}")


def tree_claims(qemu):
    """The tree where the machine leaves it for a guest that starts without firmware."""
    header = qemu.load(qemu.platform.ram, 8)
    root = parse_tree(qemu.load(qemu.platform.ram, struct.unpack(">I", header[4:])[0]))
    hosts = [n for n in root.walk() if n.is_compatible(b"pci-host-ecam-generic")]
    require(len(hosts) == 1, f"the device tree has {len(hosts)} PCI hosts")
    host = hosts[0]
    iommus, endpoints = {}, []
    for node in root.walk():
        if node.is_compatible(b"virtio,mmio"):
            base, = struct.unpack_from(">Q", node.properties["reg"])
            if "#iommu-cells" in node.properties:
                require(node.cells("#iommu-cells") == (1,), f"{node.name}: #iommu-cells")
                require("iommus" not in node.properties, f"{node.name} is behind an IOMMU")
                iommus[node.cells("phandle")[0]] = base
            elif "iommus" in node.properties:
                require(len(node.cells("iommus")) == 2, f"{node.name}: iommus")
                endpoints.append((base, *node.cells("iommus")))
        elif node.is_compatible(b"pci1af4,1057"):
            require(node in host.children, f"{node.name} is not below the PCI host")
            require(node.cells("#iommu-cells") == (1,), f"{node.name}: #iommu-cells")
            require(not {"iommus", "iommu-map"} & node.properties.keys(),
                    f"{node.name} is itself behind an IOMMU")
            reg = node.cells("reg")
            require(len(reg) == 5 and not any(reg[1:]) and not reg[0] & 0xff0000ff,
                    f"{node.name}: reg is {reg}")
            iommus[node.cells("phandle")[0]] = reg[0] >> 8
    for base, phandle, endpoint in endpoints:
        require(phandle in iommus, f"iommus: phandle {phandle} is no virtio-iommu")
        yield OnTransport(iommus[phandle], base, endpoint)
    require("iommu-map-mask" not in host.properties, "the PCI host has an iommu-map-mask")
    if "iommu-map" not in host.properties:
        return
    cells = host.cells("iommu-map")
    require(cells and len(cells) % 4 == 0, "iommu-map is not made of tuples")
    for at in range(0, len(cells), 4):
        first, phandle, endpoint, length = cells[at:at + 4]
        require(phandle in iommus, f"iommu-map: phandle {phandle} is no virtio-iommu")
        require(length and first + length <= 0x10000, "iommu-map: a range leaves the segment")
        yield Range(iommus[phandle], first, first + length - 1, endpoint)


# --- one form for all of them ------------------------------------------------------------

NOBODY = 0


def spell_out(claims, iommus):
    """For each requester ID, 1 + the position in `iommus` (places) of its IOMMU, or NOBODY.

    Endpoint IDs are not in it: they are the requester IDs on every machine with one segment.
    The second result has {transport's address: (1 + position, endpoint ID)}.
    """
    owners, transports = bytearray(0x10000), {}
    for claim in claims:
        require(claim.iommu in iommus, f"{claim.iommu:#06x} is no IOMMU")
        if isinstance(claim, OnTransport):
            require(claim.base not in transports, f"{claim.base:#x} is described twice")
            transports[claim.base] = 1 + iommus.index(claim.iommu), claim.endpoint
            continue
        iommu, first, last, endpoint = claim
        require(0 <= first <= last <= 0xffff, f"there is no range {first:#x}-{last:#x}")
        require(endpoint == first, f"the endpoint IDs of {first:#06x}-{last:#06x} begin with "
                                   f"{endpoint:#x}")
        require(not any(owners[first:last + 1]),
                f"requester IDs in {first:#06x}-{last:#06x} are described twice")
        owners[first:last + 1] = bytes([1 + iommus.index(iommu)]) * (last + 1 - first)
    return bytes(owners), transports
