# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtio-iommu as its guest sees it: config space and batches of requests."""
import struct
import time

from qtest import QemuError

STATUS_ACKNOWLEDGE, STATUS_DRIVER, STATUS_DRIVER_OK, STATUS_FEATURES_OK = 1, 2, 4, 8
F_PROBE, F_BIT_6, F_INDIRECT, F_VERSION_1 = 1 << 4, 1 << 6, 1 << 28, 1 << 32
F_WANTED = 0b10111 | F_INDIRECT | F_VERSION_1
ATTACH, PROBE = 1, 5
OK, NOENT = 0, 6
DEPTH = 256
PATIENCE = 30  # seconds
UNWRITTEN = 0xa5
INDIRECT, NEXT, WRITE = 4, 1, 2

# Where a device's rings and buffers are, from its own base on.
DESC, AVAIL, USED = 0x0000, 0x1000, 0x2000
PROBE_TABLES, ATTACH_TABLES = 0x10000, 0x20000
REQUESTS, TAILS, ZEROS, PROPERTIES = 0x30000, 0x32000, 0x33000, 0x34000
ROOM = 0x40000


class Transport:
    """Registers of a virtio device, from `common` on; its config space is at `device`."""

    # Offsets: STATUS with its width, those of queues in registers of WIDTH bytes.
    WIDTH = STATUS = None
    QUEUE_SELECT = QUEUE_MAX = QUEUE_SIZE = QUEUE_RINGS = QUEUE_READY = None
    qemu = common = None

    def set_status(self, status):
        self.qemu.write(self.STATUS[0], self.common + self.STATUS[1], status)

    def status(self):
        return self.qemu.read(self.STATUS[0], self.common + self.STATUS[1])

    def set_up_queue(self, depth, *rings):
        """Starts queue 0; returns the address that notifies it."""
        q, common, width = self.qemu, self.common, self.WIDTH
        q.write(width, common + self.QUEUE_SELECT, 0)
        if q.read(width, common + self.QUEUE_MAX) < depth:
            raise QemuError("the request queue is too short for the test")
        q.write(width, common + self.QUEUE_SIZE, depth)
        for register, address in zip(self.QUEUE_RINGS, rings):
            q.write(4, common + register, address)
            q.write(4, common + register + 4, 0)
        q.write(width, common + self.QUEUE_READY, 1)
        return self.doorbell()

    def doorbell(self):
        """The address that notifies the queue that is selected."""
        raise NotImplementedError


class PciTransport(Transport):
    """A virtio device at a requester ID of the first root bus."""

    # Offsets in the common structure.
    FEATURES_SELECT, FEATURES, DRIVER_SELECT, DRIVER_FEATURES = 0, 4, 8, 12
    STATUS = 1, 20
    WIDTH, QUEUE_SELECT, QUEUE_MAX, QUEUE_SIZE, QUEUE_READY = 2, 22, 24, 24, 28
    QUEUE_RINGS = 32, 40, 48
    NOTIFY = "writew"

    def __init__(self, qemu, rid):
        self.qemu, bar = qemu, None
        at = 0
        self.regions = {}
        while at := qemu.capability(rid, 9, at):
            kind, number = (qemu.read(1, qemu.config(rid, at + n)) for n in (3, 4))
            offset, length = (qemu.read(4, qemu.config(rid, at + n)) for n in (8, 12))
            if kind in (1, 2, 4):
                if bar is None:
                    bar = number, qemu.place_bar(rid, number)
                if number != bar[0]:
                    raise QemuError("the device's structures are in different BARs")
                self.regions[kind] = bar[1] + offset, length
            if kind == 2:
                self.multiplier = qemu.read(4, qemu.config(rid, at + 16))
        qemu.write(2, qemu.config(rid, 4), 6)  # memory space, bus master
        self.common = self.regions[1][0]
        self.device, self.device_size = self.regions[4]

    def doorbell(self):
        return self.regions[2][0] + self.qemu.read(2, self.common + 30) * self.multiplier


class MmioTransport(Transport):
    """A virtio device on the virtio-mmio transport at `base`."""

    FEATURES_SELECT, FEATURES, DRIVER_SELECT, DRIVER_FEATURES = 0x14, 0x10, 0x24, 0x20
    STATUS = 4, 0x70
    WIDTH, QUEUE_SELECT, QUEUE_MAX, QUEUE_SIZE, QUEUE_READY = 4, 0x30, 0x34, 0x38, 0x44
    QUEUE_RINGS = 0x80, 0x90, 0xa0
    NOTIFY = "writel"
    MAGIC, MODERN, IOMMU = 0x74726976, 2, 23

    def __init__(self, qemu, base):
        self.qemu, self.common = qemu, base
        self.device, self.device_size = base + 0x100, 0x100
        head = qemu.read_many(4, (base, base + 4, base + 8))
        if head != [self.MAGIC, self.MODERN, self.IOMMU]:
            raise QemuError(f"at {base:#x} there is no virtio-iommu: {head}")

    def doorbell(self):
        return self.common + 0x50


class Viommu:
    """The device at `place`, a requester ID or a transport's address.

    `index` keeps the memory of several apart.
    """

    def __init__(self, qemu, place, index):
        self.qemu, self.place = qemu, place
        self.base = qemu.platform.scratch + (1 << 20) + index * ROOM
        self.transport = (PciTransport if place < 0x10000 else MmioTransport)(qemu, place)
        self.device, self.device_size = self.transport.device, self.transport.device_size

    # --- what the guests of 2020 read before anything else -----------------------------

    def features(self):
        t = self.transport
        select, offered = t.common + t.FEATURES_SELECT, t.common + t.FEATURES
        low, high = self.qemu.many([f"writel {select:#x} 0", f"readl {offered:#x}",
                                    f"writel {select:#x} 1", f"readl {offered:#x}"])[1::2]
        return int(low, 16) | int(high, 16) << 32

    def set_status(self, status):
        self.transport.set_status(status)

    def status(self):
        return self.transport.status()

    def config(self, offset, size, width=4):
        """Bytes of the config space, read in pieces of `width`."""
        values = self.qemu.read_many(width, range(self.device + offset,
                                                  self.device + offset + size, width))
        return b"".join(v.to_bytes(width, "little") for v in values)

    # --- the driver ----------------------------------------------------------------

    def bring_up(self):
        t = self.transport
        self.set_status(0)
        offered = self.features()
        wanted = F_WANTED & offered
        self.set_status(STATUS_ACKNOWLEDGE | STATUS_DRIVER)
        select, chosen = t.common + t.DRIVER_SELECT, t.common + t.DRIVER_FEATURES
        self.qemu.many([f"writel {select:#x} 0", f"writel {chosen:#x} {wanted & 0xffffffff:#x}",
                        f"writel {select:#x} 1", f"writel {chosen:#x} {wanted >> 32:#x}"])
        self.set_status(STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK)
        if not self.status() & STATUS_FEATURES_OK or wanted != F_WANTED:
            raise QemuError(f"the device does not take features {F_WANTED:#x} of {offered:#x}")
        self.probe_size = struct.unpack("<I", self.config(32, 4))[0]
        self._set_up_queue()
        self.set_status(STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK |
                        STATUS_DRIVER_OK)

    def _set_up_queue(self):
        q, base = self.qemu, self.base
        q.one(f"memset {base:#x} {ROOM:#x} 0")
        # Every chain starts at the descriptor of its place in the ring, once and for all.
        q.store(base + AVAIL + 4, struct.pack(f"<{DEPTH}H", *range(DEPTH)))
        self.done, self.tables = 0, None
        for tables, request, middle in (
                (PROBE_TABLES, 8, [(base + ZEROS, 64, 0),
                                   (base + PROPERTIES, self.probe_size, WRITE)]),
                (ATTACH_TABLES, 20, [])):
            chains = b""
            for i in range(DEPTH):
                chain = [(base + REQUESTS + request * i, request, 0), *middle,
                         (base + TAILS + 4 * i, 4, WRITE)]
                chains += b"".join(struct.pack("<QIHH", address, size,
                                               flags | (NEXT if n + 1 < len(chain) else 0), n + 1)
                                   for n, (address, size, flags) in enumerate(chain))
            q.store(base + tables, chains)
        self.doorbell = self.transport.set_up_queue(DEPTH, base + DESC, base + AVAIL, base + USED)

    def _use_tables(self, tables, chain):
        if self.tables != tables:
            size = 16 * chain
            self.qemu.store(self.base + DESC, b"".join(
                struct.pack("<QIHH", self.base + tables + size * i, size, INDIRECT, 0)
                for i in range(DEPTH)))
            self.tables = tables

    def _batch(self, requests):
        """Answers of exactly DEPTH requests."""
        q, base = self.qemu, self.base
        q.store(base + REQUESTS, b"".join(requests))
        self.done = self.done + DEPTH & 0xffff
        *_, used = q.many([f"memset {base + TAILS:#x} {4 * DEPTH:#x} {UNWRITTEN:#x}",
                           f"writew {base + AVAIL + 2:#x} {self.done:#x}",
                           f"{self.transport.NOTIFY} {self.doorbell:#x} 0",
                           f"readw {base + USED + 2:#x}"])
        # After many switches of the memory topology requests wait for QEMU to free what
        # those left behind, and long batches are answered in turns [W24].
        limit = time.monotonic() + PATIENCE
        while int(used, 16) != self.done:
            if time.monotonic() > limit:
                raise QemuError(f"the device does not answer requests within {PATIENCE} s")
            used, = q.many([f"readw {base + USED + 2:#x}"])
        tails = q.load(base + TAILS, 4 * DEPTH)
        if any(tails[i::4].strip(b"\0") for i in (1, 2, 3)):
            raise QemuError("reserved bytes of an answer are not 0")
        return tails[::4]

    def _ask(self, ids, form):
        ids = list(ids)
        answers = b""
        for at in range(0, len(ids), DEPTH):
            part = ids[at:at + DEPTH]
            full = part + [part[-1]] * (DEPTH - len(part))
            answers += self._batch([form(endpoint) for endpoint in full])[:len(part)]
        return answers

    def probe(self, ids):
        """One status byte for each ID."""
        self._use_tables(PROBE_TABLES, 4)
        return self._ask(ids, lambda endpoint: struct.pack("<B3xI", PROBE, endpoint))

    def attach(self, ids, domain):
        self._use_tables(ATTACH_TABLES, 2)
        return self._ask(ids, lambda endpoint: struct.pack("<B3xIII4x", ATTACH, domain, endpoint,
                                                           0))
