#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin in an unmodified QEMU without a guest: what it refuses, and the VIOT it brings.

    plugin_test.py QEMU DEBIAN PLUGIN PATCHED

QEMU starts DEBIAN through tools/qemu-viommu with PLUGIN; PATCHED is a QEMU with the module.
"""
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

QEMU, DEBIAN, PLUGIN, PATCHED = sys.argv[1:5]
INSPECT = str(Path(__file__).resolve().parents[2] / "tools/viommu-inspect")
MACHINE = ["-machine", "q35", "-nodefaults", "-display", "none", "-m", "64"]
DISK = ["-blockdev", "null-co,node-name=d", "-device", "virtio-blk-pci,drive=d,addr=5,"
        "iommu_platform=on,disable-legacy=on"]
LIMIT = 60  # seconds


def fails(*command):
    """What a command that has to end with status 1 says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 1, f"status {done.returncode}: {done.stderr}"
    return done.stderr.strip()


class Machine:
    """A QEMU with its monitor, ended when the block is left."""

    def __init__(self, *command):
        self.folder = tempfile.TemporaryDirectory(prefix="viommu-plugin.")
        path = f"{self.folder.name}/qmp"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        listener.settimeout(LIMIT)
        self.process = subprocess.Popen([*command, "-qmp", f"unix:{path}"],
                                        stdin=subprocess.DEVNULL)
        self.connection = listener.accept()[0]
        listener.close()
        self.connection.settimeout(LIMIT)
        self.lines = self.connection.makefile(encoding="utf-8")
        self.lines.readline()
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        text = json.dumps({"execute": command, "arguments": arguments})
        self.connection.sendall(text.encode())
        while True:
            answer = json.loads(self.lines.readline())
            if "event" not in answer:
                return answer

    def memory(self):
        file = f"{self.folder.name}/memory"
        self.call("pmemsave", val=0, size=64 << 20, filename=file)
        return Path(file).read_bytes()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.lines.close()
        self.connection.close()
        self.folder.cleanup()


def tables(memory, signature):
    """Whole ACPI tables of that name, by their checksum."""
    found, at = [], memory.find(signature)
    while at >= 0:
        length = struct.unpack_from("<I", memory, at + 4)[0]
        table = memory[at:at + length]
        if 36 <= length <= 65535 and sum(table) % 256 == 0:
            found.append(table)
        at = memory.find(signature, at + 1)
    return found


def tables_of_guest(signature, *command):
    """What SeaBIOS has put into memory."""
    with Machine(*command) as machine:
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            if found := tables(machine.memory(), signature):
                return found
            time.sleep(0.2)
    raise AssertionError(f"no table {signature} after {LIMIT} s")


class Refusals(unittest.TestCase):
    def test_argument(self):
        for argument in ("mode=fast", "packed-rings=maybe"):
            self.assertIn(f"viommu: '{argument}' is not an argument of this plugin: they are "
                          "trace=PATTERN and packed-rings=on|off",
                          fails(DEBIAN, *MACHINE, "-plugin", f"{PLUGIN},{argument}"))

    def test_patched_qemu(self):
        self.assertIn("viommu: this QEMU has viommu's patches: it loads the device by itself, "
                      "without -plugin", fails(PATCHED, *MACHINE, "-plugin", PLUGIN))

    def test_loaded_twice(self):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "copy.so")
            copy.write_bytes(Path(PLUGIN).read_bytes())
            self.assertIn("viommu: loaded twice",
                          fails(DEBIAN, *MACHINE, "-plugin", PLUGIN, "-plugin", str(copy)))

    def test_both_kinds_on_one_bus(self):
        for first, second in (("viommu-pci", "virtio-iommu-pci"), ("virtio-iommu-pci", "viommu-pci")):
            self.assertIn("root bus pcie.0 has two IOMMUs: viommu-pci at 00:0",
                          fails(DEBIAN, *MACHINE, "-plugin", PLUGIN, "-device", first,
                                "-device", second))

    def test_virtio_mmio(self):
        self.assertIn("'virtio-mmio' is not a transport that it works on: use viommu-pci",
                      fails(DEBIAN, "-machine", "microvm", "-nodefaults", "-display", "none",
                            "-plugin", PLUGIN, "-global", "virtio-mmio.force-legacy=off",
                            "-device", "viommu-device"))

    def test_wrapper_without_plugin(self):
        environment = dict(os.environ, VIOMMU_PLUGIN="/nowhere/viommu.so", VIOMMU_QEMU=DEBIAN)
        wrapper = str(Path(QEMU).parent / "wrapper")
        done = subprocess.run([wrapper, *MACHINE], capture_output=True, text=True, timeout=LIMIT,
                              env=environment, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("the plugin /nowhere/viommu.so cannot be read", done.stderr)

    def test_wrapper_without_qemu(self):
        environment = dict(os.environ, VIOMMU_PLUGIN=PLUGIN, VIOMMU_QEMU="/nowhere/qemu")
        wrapper = str(Path(QEMU).parent / "wrapper")
        done = subprocess.run([wrapper, *MACHINE], capture_output=True, text=True, timeout=LIMIT,
                              env=environment, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("there is no /nowhere/qemu: install it, or name another with VIOMMU_QEMU",
                      done.stderr)


class Wrapper(unittest.TestCase):
    def arguments(self, *given):
        """What the wrapper hands on."""
        with tempfile.TemporaryDirectory() as folder:
            echo = Path(folder, "echo")
            echo.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n", encoding="utf-8")
            echo.chmod(0o755)
            environment = dict(os.environ, VIOMMU_PLUGIN=PLUGIN, VIOMMU_QEMU=str(echo))
            out = subprocess.run([str(Path(QEMU).parent / "wrapper"), *given], env=environment,
                                 capture_output=True, text=True, timeout=LIMIT, check=True).stdout
        words = out.split("\0")[:-1]
        self.assertEqual(words[:2], ["-plugin", PLUGIN])
        return words[2:]

    def test_renames_the_device(self):
        for given, expected in (
                ("virtio-iommu-pci", "viommu-pci"),
                ("virtio-iommu", "viommu-pci"),
                ("virtio-iommu-pci,id=virtio-iommu-pci", "viommu-pci,id=virtio-iommu-pci"),
                ("driver=virtio-iommu-pci,addr=2", "driver=viommu-pci,addr=2"),
                ("addr=2,driver=virtio-iommu-pci", "addr=2,driver=viommu-pci"),
                ('{"driver":"virtio-iommu","id":"i"}', '{"driver":"viommu-pci","id":"i"}'),
                ('{ "id": "i", "driver" : "virtio-iommu-pci" }',
                 '{ "id": "i", "driver" : "viommu-pci" }')):
            self.assertEqual(self.arguments("-device", given), ["-device", expected])
        self.assertEqual(self.arguments("-global", "virtio-iommu-pci.aw-bits=48"),
                         ["-global", "viommu-pci.aw-bits=48"])

    def test_leaves_all_else_alone(self):
        for given in (["-device", "virtio-blk-pci,serial=virtio-iommu-pci"],
                      ["-device", "virtio-iommu-pcie"], ["-name", "virtio-iommu-pci"],
                      ["-append", "a  b\nc 'd' \"e\" $f `g` \\h"], ["", "-S", ""]):
            self.assertEqual(self.arguments(*given), given)


class PackedRings(unittest.TestCase):
    """Used rings of split queues straddle pages, which QEMU does not translate right."""

    def packed(self, *options, device="virtio-rng-pci,id=d,disable-legacy=on", argument=""):
        with Machine(DEBIAN, *MACHINE, "-plugin", PLUGIN + argument, "-device", "viommu-pci,id=i",
                     "-device", device, *options) as machine:
            return [machine.call("qom-get", path=f"/machine/peripheral/{name}/virtio-backend",
                                 property="packed")["return"] for name in ("d", "i")]

    def test_are_the_default_but_for_the_iommu(self):
        self.assertEqual(self.packed(), [True, False])

    def test_the_command_line_goes_before(self):
        self.assertEqual(self.packed(device="virtio-rng-pci,id=d,packed=off"), [False, False])

    def test_can_be_left_alone(self):
        self.assertEqual(self.packed(argument=",packed-rings=off"), [False, False])


class Inspect(unittest.TestCase):
    def test_finds_the_device_under_its_name(self):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/for-it"
            with Machine(QEMU, *MACHINE, *DISK, "-device", "virtio-iommu-pci,id=iommu0,addr=2",
                         "-qmp", f"unix:{path},server=on,wait=off"):
                done = subprocess.run([INSPECT, "--json", path, "instances"], capture_output=True,
                                      text=True, timeout=LIMIT, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("iommu0", done.stdout)


class Tables(unittest.TestCase):
    def test_same_body_as_the_module_brings(self):
        command = [*MACHINE, "-device", "virtio-iommu-pci,addr=2", *DISK]
        plugin, = tables_of_guest(b"VIOT", QEMU, *command)
        module, = tables_of_guest(b"VIOT", PATCHED, *command)
        self.assertEqual(plugin[36:], module[36:])
        self.assertEqual(plugin[:8], module[:8])
        self.assertEqual(plugin[10:28], module[10:28], "OEM fields")

    def test_beside_tables_of_the_user(self):
        with tempfile.NamedTemporaryFile() as data:
            data.write(b"something")
            data.flush()
            command = [QEMU, *MACHINE, "-device", "virtio-iommu-pci,addr=2", *DISK,
                       "-acpitable", f"sig=TSTA,data={data.name}",
                       "-acpitable", f"sig=TSTB,data={data.name}"]
            for signature in (b"TSTA", b"TSTB", b"VIOT"):
                self.assertEqual(len(tables_of_guest(signature, *command)), 1, signature)

    def test_none_without_the_device(self):
        with Machine(QEMU, *MACHINE, *DISK) as machine:
            end = time.monotonic() + LIMIT
            while not tables(memory := machine.memory(), b"FACP"):
                self.assertLess(time.monotonic(), end, "no tables at all")
                time.sleep(0.2)
            time.sleep(0.5)
            self.assertEqual(tables(memory, b"VIOT"), [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
