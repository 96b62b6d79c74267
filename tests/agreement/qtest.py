# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU without a guest: its qtest socket, its monitor, PCI configuration, fw_cfg."""
import base64
import ctypes
import json
import signal
import socket
import struct
import subprocess
import time

PR_SET_PDEATHSIG = 1
SECONDS = 60  # no machine needs more


class QemuError(Exception):
    """QEMU did not do what the test asked of it."""


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Platform:
    """Where a machine has what the bench touches.

    transports: address of the first virtio-mmio transport, and how many there are.
    """

    def __init__(self, machine, ram, ecam, bars, transports=(0, 0)):
        self.machine, self.ram, self.ecam, self.bars = machine, ram, ecam, bars
        self.first_transport, self.transport_count = transports

    @property
    def is_q35(self):
        return "q35" in self.machine

    @property
    def is_x86(self):
        return "virt,gic-version=3" not in self.machine

    def transport(self, n):
        return self.first_transport + 0x200 * n

    @property
    def scratch(self):
        """Memory that no firmware table and no device tree is in."""
        return self.ram + (32 << 20)


MODERN = ["-global", "virtio-mmio.force-legacy=off"]
PLATFORMS = {
    "x86_64": Platform(["-machine", "q35", "-global",
                        "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"],
                       0, 0xb0000000, 0xe0000000),
    "aarch64": Platform(["-machine", "virt,gic-version=3", "-cpu", "cortex-a57"],
                        0x40000000, 0x4010000000, 0x10000000, (0x0a000000, 32)),
    "virt-mmio": Platform(["-machine", "virt,gic-version=3", "-cpu", "cortex-a57", *MODERN],
                          0x40000000, 0x4010000000, 0x10000000, (0x0a000000, 32)),
    "microvm": Platform(["-machine", "microvm,acpi=on", *MODERN], 0, None, None,
                        (0xfeb00000, 24)),
    "microvm-pcie": Platform(["-machine", "microvm,acpi=on,pcie=on", *MODERN],
                             0, 0xe0000000, 0xc0000000, (0xfeb00000, 24)),
}


class Qemu:
    """Use as a context manager: whatever happens inside, QEMU is gone afterwards."""

    def __init__(self, program, arch, args):
        self.platform = PLATFORMS[arch]
        self.next_bar = self.platform.bars
        self.deadline = time.monotonic() + SECONDS
        self.events = []
        qtest, qtest_far = socket.socketpair()
        monitor, monitor_far = socket.socketpair()
        far = (qtest_far, monitor_far)
        self.process = subprocess.Popen(
            [program, *self.platform.machine, "-accel", "qtest", "-nodefaults", "-no-user-config",
             "-display", "none", "-m", "128", "-qtest-log", "none",
             "-chardev", f"socket,id=qtest,fd={qtest_far.fileno()}", "-qtest", "chardev:qtest",
             "-chardev", f"socket,id=monitor,fd={monitor_far.fileno()}",
             "-mon", "chardev=monitor,mode=control", *args],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
            pass_fds=[s.fileno() for s in far], preexec_fn=_die_with_parent)
        for s in far:
            s.close()
        for s in (qtest, monitor):
            s.settimeout(SECONDS)
        self.sockets = qtest, monitor
        self.qtest_out, self.monitor_out = qtest, monitor
        self.qtest_in = qtest.makefile("rb", buffering=1 << 16)
        self.monitor_in = monitor.makefile("rb")

    def __enter__(self):
        self._line(self.monitor_in)  # the greeting
        self.qmp("qmp_capabilities")
        if self.platform.is_q35:
            # Opens the host bridge's window on extended configuration space.
            self.many(["outl 0xcf8 0x80000064", "outl 0xcfc 0", "outl 0xcf8 0x80000060",
                       f"outl 0xcfc {self.platform.ecam | 1:#x}"])
        return self

    def __exit__(self, kind, value, trace):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        self.qtest_in.close()
        self.monitor_in.close()
        for s in self.sockets:
            s.close()

    def _line(self, stream):
        try:
            line = stream.readline()
        except OSError as err:
            raise QemuError(f"QEMU does not answer ({err})") from err
        if not line:
            status = self.process.wait()
            said = self.process.stderr.read().decode(errors="replace").strip()
            raise QemuError(f"QEMU ended with status {status}: {said}")
        return line

    # --- monitor -----------------------------------------------------------------

    def qmp(self, command, **arguments):
        message = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        self.monitor_out.sendall(json.dumps(message).encode() + b"\n")
        while True:
            reply = json.loads(self._line(self.monitor_in))
            if "event" in reply:
                self.events.append(reply)
            elif "error" in reply:
                raise QemuError(f"QMP {command}: {reply['error']['desc']}")
            else:
                return reply["return"]

    def wait_deleted(self, device):
        """Waits for the event that `device` is gone."""
        while True:
            for event in self.events:
                if event["event"] == "DEVICE_DELETED" and event["data"].get("device") == device:
                    self.events.remove(event)
                    return
            reply = json.loads(self._line(self.monitor_in))
            if "event" in reply:
                self.events.append(reply)

    # --- qtest -------------------------------------------------------------------

    def many(self, commands):
        """Sends all commands at once; returns the words after OK."""
        results = []
        # Both sides would block if neither read while the other writes.
        for at in range(0, len(commands), 1000):
            part = commands[at:at + 1000]
            self.qtest_out.sendall("".join(c + "\n" for c in part).encode())
            for command in part:
                line = self._line(self.qtest_in)
                if not line.startswith(b"OK"):
                    raise QemuError(f"qtest '{command}': {line.decode().strip()}")
                results.append(line[3:].strip())
        return results

    def one(self, command):
        return self.many([command])[0]

    def read_many(self, width, addresses):
        verb = {1: "readb", 2: "readw", 4: "readl"}[width]
        return [int(value, 16) for value in self.many([f"{verb} {a:#x}" for a in addresses])]

    def read(self, width, address):
        return self.read_many(width, [address])[0]

    def write(self, width, address, value):
        verb = {1: "writeb", 2: "writew", 4: "writel"}[width]
        self.one(f"{verb} {address:#x} {value:#x}")

    def load(self, address, size):
        return base64.b64decode(self.one(f"b64read {address:#x} {size:#x}"))

    def store(self, address, data):
        self.one(f"b64write {address:#x} {len(data):#x} {base64.b64encode(data).decode()}")

    # --- PCI ---------------------------------------------------------------------

    def config(self, rid, offset):
        return self.platform.ecam + (rid << 12) + offset

    def capability(self, rid, wanted, after=0):
        """Offset of the next capability with this ID, or 0."""
        at = self.read(1, self.config(rid, after + 1 if after else 0x34))
        while at and self.read(1, self.config(rid, at)) != wanted:
            at = self.read(1, self.config(rid, at + 1))
        return at

    def place_bar(self, rid, n):
        """Gives a 64-bit memory BAR of a function on bus 0 an address."""
        bar = self.config(rid, 0x10 + 4 * n)
        self.write(4, bar, 0xffffffff)
        size = ~(self.read(4, bar) & ~15) + 1 & 0xffffffff
        self.next_bar = (self.next_bar + size - 1) & -size
        self.write(4, bar, self.next_bar)
        self.write(4, bar + 4, 0)
        address, self.next_bar = self.next_bar, self.next_bar + size
        return address

    def set_bus_numbers(self, rid, secondary, subordinate):
        self.write(4, self.config(rid, 0x18), subordinate << 16 | secondary << 8 | rid >> 8)

    def scan(self, buses):
        """The requester IDs on these buses at which configuration space answers.

        The class and revision are read, because a virtual function has no vendor ID.
        """
        rids = [bus << 8 | devfn for bus in buses for devfn in range(256)]
        values = self.read_many(4, [self.config(rid, 8) for rid in rids])
        return {rid for rid, value in zip(rids, values) if value != 0xffffffff}

    def slot_power(self, port, on):
        control = self.config(port, self.capability(port, 0x10) + 0x18)
        self.write(2, control, 0x0100 if on else 0x0700)

    # --- fw_cfg --------------------------------------------------------------------

    FW_CFG_MMIO = 0x09020000
    READ, SELECT, ERROR = 2, 8, 1

    def _fw_cfg_dma(self, key, size):
        access, data = self.platform.scratch, self.platform.scratch + 0x1000
        self.store(access, struct.pack(">IIQ", key << 16 | self.SELECT | self.READ, size, data))
        high, low = (int.from_bytes(half.to_bytes(4, "big"), "little")
                     for half in (access >> 32, access & 0xffffffff))
        if self.platform.is_x86:
            self.many([f"outl 0x514 {high:#x}", f"outl 0x518 {low:#x}"])
        else:
            self.write(4, self.FW_CFG_MMIO + 16, high)
            self.write(4, self.FW_CFG_MMIO + 20, low)
        state = struct.unpack(">I", self.load(access, 4))[0]
        if state:
            raise QemuError(f"fw_cfg answers {state:#x} to a read of item {key:#x}")
        return self.load(data, size)

    def fw_cfg_file(self, name):
        count = struct.unpack(">I", self._fw_cfg_dma(0x19, 4))[0]
        directory = self._fw_cfg_dma(0x19, 4 + 64 * count)
        for i in range(count):
            size, key, _, raw = struct.unpack_from(">IHH56s", directory, 4 + 64 * i)
            if raw.split(b"\0")[0].decode() == name:
                return self._fw_cfg_dma(key, size)
        raise QemuError(f"fw_cfg has no file {name}")
