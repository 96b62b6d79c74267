#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How QEMU loads device modules: none, good ones, stale ones, and files that are none.

QEMU is copied into a prefix of the test's own, so that nothing but what a test puts there is
found.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

LIMIT = 60
NOBODY = 65534
TYPES = ("virtio-iommu-pci", "virtio-iommu-device")
OPTIONS = None


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


class Monitor:
    """A QEMU that answers QMP commands on its standard output."""

    def __init__(self, process):
        self.process = process
        self.receive()
        self.call("qmp_capabilities")

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"QEMU ended with {self.process.wait(LIMIT)}")
        return json.loads(line)

    def ask(self, command, **arguments):
        message = json.dumps({"execute": command, "arguments": arguments})
        self.process.stdin.write(message.encode() + b"\n")
        self.process.stdin.flush()
        while True:
            reply = self.receive()
            if "event" not in reply:
                return reply

    def call(self, command, **arguments):
        reply = self.ask(command, **arguments)
        if "error" in reply:
            raise AssertionError(f"{command} {arguments}: {reply['error']['desc']}")
        return reply["return"]

    def hmp(self, line):
        return self.call("human-monitor-command", **{"command-line": line})

    def types(self, **arguments):
        return {entry["name"] for entry in self.call("qom-list-types", **arguments)}

    def mapped(self, name):
        """How many different files of that name the process has mapped."""
        maps = Path(f"/proc/{self.process.pid}/maps").read_text(encoding="utf-8")
        return len({line.split()[-1] for line in maps.splitlines() if line.endswith("/" + name)})


class SeamTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="viommu-seam.")
        self.addCleanup(folder.cleanup)
        self.top = Path(folder.name)
        # One test runs QEMU as another user.
        self.top.chmod(0o755)
        config = (OPTIONS.qemu_build / "config-host.h").read_text(encoding="utf-8")
        prefix, moddir = (re.search(rf'^#define {name} "(.*)"$', config, re.MULTILINE)[1]
                          for name in ("CONFIG_PREFIX", "CONFIG_QEMU_MODDIR"))
        self.prefix_modules = self.top / "prefix" / Path(moddir).relative_to(prefix)
        self.prefix_devices = self.prefix_modules / "devices"
        # The accelerator qtest is a module, too.
        for arch in ("x86_64", "aarch64"):
            copy(OPTIONS.qemu_bin / f"qemu-system-{arch}",
                 self.top / f"prefix/bin/qemu-system-{arch}")
            copy(OPTIONS.qemu_build / f"accel-qtest-{arch}.so",
                 self.prefix_modules / f"accel-qtest-{arch}.so")
        self.modules = self.top / "modules"
        self.devices = self.modules / "devices"
        self.devices.mkdir(parents=True)

    def start(self, args, arch="x86_64", **more):
        env = os.environ | {"QEMU_MODULE_DIR": str(self.modules)}
        program = self.top / f"prefix/bin/qemu-system-{arch}"
        return subprocess.Popen([program, "-nodefaults", "-display", "none", *args], env=env,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, **more)

    def run_to_end(self, *args, **more):
        """Exit status, standard output, lines of standard error."""
        with self.start(args, **more) as process:
            try:
                out, err = process.communicate(timeout=LIMIT)
            finally:
                process.kill()
        return process.returncode, out.decode(), err.decode().splitlines()

    @contextlib.contextmanager
    def monitor(self, *args, warnings=0, **more):
        """A QEMU that has to say exactly so many sentences and ends well."""
        with self.start(["-accel", "qtest", "-qmp", "stdio", *args], **more) as process:
            try:
                monitor = Monitor(process)
                yield monitor
                monitor.call("quit")
                err = process.communicate(timeout=LIMIT)[1].decode().splitlines()
            finally:
                process.kill()
        self.assertEqual(process.returncode, 0)
        self.assertEqual(len(err), warnings, err)

    def assert_ignored(self, name, pattern, **more):
        """One sentence about this file; after it a module still loads and QEMU works."""
        status, _, err = self.run_to_end("-accel", "qtest", "-machine", "none", "-device", "help",
                                         **more)
        self.assertEqual(status, 0, err)
        self.assertEqual(len(err), 1, err)
        self.assertRegex(err[0], r"^qemu-system-x86_64: warning: device module ignored: .*"
                         + re.escape(name))
        self.assertRegex(err[0], pattern)
        with self.monitor("-machine", "none", warnings=1, **more) as qemu:
            self.assertIn("qtest-accel", qemu.types())

    def put_plugin(self, folder, name="virtio-iommu.so"):
        copy(OPTIONS.plugin, folder / name)

    def put_stale_plugin(self, name):
        """The plugin as another build of QEMU would want it."""
        data = OPTIONS.plugin.read_bytes()
        stamp = re.search(rb"qemu_stamp_[0-9a-f]{40}\0", data)[0]
        other = b"qemu_stamp_" + bytes(reversed(stamp[11:-1])) + b"\0"
        self.assertNotEqual(stamp, other)
        (self.devices / name).write_bytes(data.replace(stamp, other))


class WithoutModules(SeamTest):
    def test_the_types_are_unknown_like_any_other(self):
        for arch in ("x86_64", "aarch64"):
            for option, end in (("-device {}", 1), ("-device {},id=a,aw-bits=48", 1),
                                ("-device {},help", 0)):
                made_up = self.run_to_end("-machine", "none",
                                          *option.format("no-such-device").split(), arch=arch)
                self.assertEqual((made_up[0], len(made_up[2])), (end, 1))
                for name in TYPES:
                    status, out, err = self.run_to_end("-machine", "none",
                                                       *option.format(name).split(), arch=arch)
                    self.assertEqual((status, out), made_up[:2])
                    self.assertEqual([line.replace(name, "no-such-device") for line in err],
                                     made_up[2])

    def test_the_types_are_not_listed(self):
        for arch in ("x86_64", "aarch64"):
            with self.monitor("-machine", "none", arch=arch) as qemu:
                self.assertEqual([t for t in qemu.types() if "iommu" in t and "virtio" in t], [])
                for command, argument in (("device-list-properties", "typename"),
                                          ("qom-list-properties", "typename"),
                                          ("device_add", "driver")):
                    made_up = qemu.ask(command, **{argument: "no-such-device"})["error"]
                    for name in TYPES:
                        error = qemu.ask(command, **{argument: name})["error"]
                        self.assertEqual(
                            {**error, "desc": error["desc"].replace(name, "no-such-device")},
                            made_up)

    def test_machines_start_without_a_word(self):
        # Their defaults for versions name the type.
        for arch, machines in (("x86_64", ("q35", "pc-q35-7.0", "pc", "microvm")),
                               ("aarch64", ("virt", "virt-8.0"))):
            for machine in machines:
                with self.subTest(machine=machine):
                    with self.monitor("-machine", machine, "-S", arch=arch) as qemu:
                        self.assertIs(qemu.call("query-status")["running"], False)

    def test_qmp_commands_work(self):
        with self.monitor("-machine", "q35", "-device", "virtio-rng-pci,id=rng") as qemu:
            self.assertIn("x-query-virtio-status",
                          {c["name"] for c in qemu.call("query-commands")})
            self.assertTrue(qemu.call("query-qmp-schema"))
            paths = [d["path"] for d in qemu.call("x-query-virtio")]
            self.assertEqual(len(paths), 1)
            self.assertEqual(qemu.call("x-query-virtio-status", path=paths[0])["name"],
                             "virtio-rng")
            for name in sorted(qemu.types(implements="device", abstract=False)):
                qemu.call("device-list-properties", typename=name)

    def test_info_commands_work(self):
        with self.monitor("-machine", "q35", "-device", "virtio-rng-pci,id=rng") as qemu:
            listing = qemu.hmp("help info")
            names = re.findall(r"^info ([a-z0-9-]+)", listing, re.MULTILINE)
            self.assertGreater(len(names), 40)
            for name in names:
                qemu.hmp(f"info {name}")
            self.assertIn("virtio-rng-pci", qemu.hmp("info qtree"))
            self.assertIn("1af4:1005", qemu.hmp("info pci"))
            self.assertIn("[virtio-rng]", qemu.hmp("info virtio"))


class BadModules(SeamTest):
    def test_from_another_build(self):
        self.put_stale_plugin("stale.so")
        self.assert_ignored("stale.so", "only modules from the same build can be loaded$")

    def test_several_from_another_build(self):
        for name in ("a.so", "b.so", "c.so"):
            self.put_stale_plugin(name)
        with self.monitor("-machine", "none", warnings=3) as qemu:
            self.assertNotIn("virtio-iommu-device", qemu.types())

    def test_no_module_of_qemu(self):
        copy(OPTIONS.modules["stranger"], self.devices / "stranger.so")
        self.assert_ignored("stranger.so", "it is not a QEMU module$")

    def test_unresolved_symbol(self):
        copy(OPTIONS.modules["unresolved"], self.devices / "unresolved.so")
        self.assert_ignored("unresolved.so", "viommu_no_such_symbol")

    def test_truncated(self):
        whole = OPTIONS.plugin.read_bytes()
        # The dynamic linker maps what the headers promise; the last sizes leave those intact.
        for size in (0, 1, 40, 63, 64, 4096, len(whole) // 2, len(whole) - 1):
            with self.subTest(size=size):
                (self.devices / "short.so").write_bytes(whole[:size])
                self.assert_ignored("short.so", "file too short")

    def test_fifo(self):
        os.mkfifo(self.devices / "fifo.so")
        self.assert_ignored("fifo.so", "not a regular file")

    def test_text(self):
        (self.devices / "text.so").write_text("Not a shared object.\n" * 1000, encoding="utf-8")
        self.assert_ignored("text.so", "invalid ELF header")

    def test_folder(self):
        (self.devices / "folder.so").mkdir()
        self.assert_ignored("folder.so", "not a regular file")

    def test_dangling_link(self):
        (self.devices / "link.so").symlink_to("nowhere.so")
        self.assert_ignored("link.so", "No such file or directory")

    def test_unreadable(self):
        secret = self.devices / "secret.so"
        secret.write_bytes(OPTIONS.plugin.read_bytes())
        secret.chmod(0)
        # To root nothing is unreadable.
        self.assert_ignored("secret.so", "Permission denied",
                            **({"user": NOBODY} if os.geteuid() == 0 else {}))

    def test_other_names_are_nobodys_business(self):
        for name in ("README", "virtio-iommu.so.bak", ".virtio-iommu.so.new"):
            (self.devices / name).write_text("Not a shared object.\n", encoding="utf-8")
        with self.monitor("-machine", "none"):
            pass

    def test_a_folder_that_is_a_file(self):
        self.devices.rmdir()
        self.devices.write_text("Not a folder.\n", encoding="utf-8")
        with self.monitor("-machine", "none"):
            pass


class GoodModules(SeamTest):
    def assert_works(self, qemu):
        self.assertIn("virtio-iommu-pci", qemu.types(implements="device"))
        self.assertIn("boot-bypass", {p["name"] for p in qemu.call(
            "device-list-properties", typename="virtio-iommu-pci")})
        self.assertEqual(qemu.mapped("virtio-iommu.so"), 1)

    def test_one_file_for_all_programs(self):
        self.put_plugin(self.devices)
        for arch, machine in (("x86_64", "q35"), ("aarch64", "virt")):
            with self.monitor("-machine", machine, "-device", "virtio-iommu-pci",
                              arch=arch) as qemu:
                self.assert_works(qemu)
                self.assertIn("virtio-iommu-pci", qemu.hmp("info qtree"))

    def test_among_bad_ones(self):
        self.put_stale_plugin("a-stale.so")
        copy(OPTIONS.modules["stranger"], self.devices / "b-stranger.so")
        self.put_plugin(self.devices)
        (self.devices / "z-text.so").write_text("Not a shared object.\n", encoding="utf-8")
        with self.monitor("-machine", "q35", "-device", "virtio-iommu-pci", warnings=3) as qemu:
            self.assert_works(qemu)

    def test_in_the_prefix(self):
        self.put_plugin(self.prefix_devices)
        with self.monitor("-machine", "q35", "-device", "virtio-iommu-pci") as qemu:
            self.assert_works(qemu)

    def test_a_user_with_fewer_rights_names_no_folder(self):
        """A QEMU with capabilities of its own: what another user's environment says is not run."""
        self.put_plugin(self.devices)
        program = self.top / "prefix/bin/qemu-system-x86_64"
        program.unlink()  # it may be a link to the real one
        shutil.copy(OPTIONS.qemu_bin / program.name, program)
        may_bind_ports = 1 << 10
        try:
            # struct vfs_cap_data of revision 2, effective
            os.setxattr(program, "security.capability",
                        struct.pack("<5I", 0x02000001, may_bind_ports, 0, 0, 0))
        except OSError as error:
            self.skipTest(f"no file with capabilities can be made here: {error}")
        for user, expected in ((0, True), (NOBODY, False)):
            status, out, err = self.run_to_end("-machine", "none", "-device", "help", user=user)
            self.assertEqual((status, err), (0, []))
            self.assertEqual('"virtio-iommu-pci"' in out, expected)

    def test_in_both_folders_it_is_loaded_once(self):
        self.put_plugin(self.devices)
        # Not a link: the same file twice would be loaded once in any case.
        self.prefix_devices.mkdir()
        shutil.copy(OPTIONS.plugin, self.prefix_devices / "virtio-iommu.so")
        with self.monitor("-machine", "q35", "-device", "virtio-iommu-pci") as qemu:
            self.assert_works(qemu)

    def test_one_folder_named_twice(self):
        self.modules.rename(self.top / "unused")
        self.modules = self.prefix_modules
        self.put_plugin(self.prefix_devices)
        with self.monitor("-machine", "q35", "-device", "virtio-iommu-pci") as qemu:
            self.assert_works(qemu)

    def test_under_two_names_the_second_is_ignored(self):
        shutil.copy(OPTIONS.plugin, self.devices / "a.so")
        shutil.copy(OPTIONS.plugin, self.devices / "b.so")
        with self.monitor("-machine", "q35", "-device", "virtio-iommu-pci", warnings=1) as qemu:
            self.assertIn("virtio-iommu-pci", qemu.types())

    def test_the_first_folder_with_a_name_wins(self):
        self.put_stale_plugin("virtio-iommu.so")
        self.put_plugin(self.prefix_devices)
        with self.monitor("-machine", "none", warnings=1) as qemu:
            self.assertNotIn("virtio-iommu-pci", qemu.types())

    def test_exported_symbols(self):
        listing = subprocess.run(["nm", "-D", "--defined-only", "--format=posix", OPTIONS.plugin],
                                 check=True, stdout=subprocess.PIPE, text=True).stdout
        names = {line.split()[0] for line in listing.splitlines()}
        stamps = {name for name in names if re.fullmatch(r"qemu_stamp_[0-9a-f]{40}", name)}
        self.assertEqual(len(stamps), 1)
        self.assertEqual(names - stamps, {"qemu_module_dummy"})


class HostDevices(SeamTest):
    """Those that QEMU does not announce: a mediated one, and one that comes before the IOMMU."""

    REFUSAL = ("host is an assigned device: it has to come after the virtio-iommu on the command "
               "line")
    DEVICE = "test-host-device,id=host"
    HOTPLUG = ("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off")

    def setUp(self):
        super().setUp()
        self.put_plugin(self.devices)
        copy(OPTIONS.modules["host-device"], self.devices / "host-device.so")

    def listens(self, qemu, device="host"):
        """Whether an IOMMU is in front of it, rather than the machine's memory alone."""
        return qemu.call("qom-get", path=f"/machine/peripheral/{device}", property="iommu")

    def test_w27_refused_before_its_iommu(self):
        """It has the machine's memory by then, past the IOMMU."""
        for devices in ((self.DEVICE, "virtio-iommu-pci"),
                        ("pcie-pci-bridge,id=conventional",
                         self.DEVICE + ",bus=conventional,addr=1.0", "virtio-iommu-pci")):
            with self.subTest(devices=devices):
                status, _, err = self.run_to_end(
                    "-accel", "qtest", "-machine", "q35",
                    *(word for device in devices for word in ("-device", device)))
                self.assertEqual((status, err), (1, [f"qemu-system-x86_64: {self.REFUSAL}"]))

    def test_w27_one_before_and_one_after_it_in_one_place(self):
        status, _, err = self.run_to_end(
            "-accel", "qtest", "-machine", "q35", "-device", "pcie-pci-bridge,id=conventional",
            "-device", self.DEVICE + ",bus=conventional,addr=1.0", "-device", "virtio-iommu-pci",
            "-device", "test-host-device,id=after,bus=conventional,addr=2.0")
        self.assertEqual((status, err), (1, [f"qemu-system-x86_64: {self.REFUSAL}"]))

    def test_w27_behind_it_from_the_start(self):
        for place in ("", ",bus=conventional,addr=1.0"):
            with self.subTest(place=place), self.monitor(
                    "-machine", "q35", "-device", "virtio-iommu-pci,boot-bypass=off",
                    "-device", "pcie-pci-bridge,id=conventional",
                    "-device", self.DEVICE + place) as qemu:
                self.assertTrue(self.listens(qemu))

    def test_w27_behind_it_when_it_is_plugged(self):
        with self.monitor(
                "-machine", "q35", *self.HOTPLUG,
                "-device", "virtio-iommu-pci,boot-bypass=off",
                "-device", "pcie-root-port,id=rp1,chassis=1",
                "-device", "pcie-root-port,id=rp2,chassis=2",
                "-device", "pcie-pci-bridge,id=conventional,bus=rp2") as qemu:
            for name, place in (("a", {"bus": "rp1"}), ("b", {"bus": "conventional",
                                                              "addr": "1.0"})):
                with self.subTest(place=place):
                    qemu.call("device_add", driver="test-host-device", id=name, **place)
                    self.assertTrue(self.listens(qemu, name))

    def test_mod_15_left_out_it_has_no_iommu(self):
        """Whatever the order: VFIO asks once, when no model of the machine is there yet."""
        host = ("-device", self.DEVICE + ",bus=pcie.0,addr=5.0")
        for entry in ("host", "pcie.0/5.0", "pcie.0/5"):
            iommu = ("-device", f"virtio-iommu-pci,bus=pcie.0,boot-bypass=off,leave-out={entry}")
            for devices in (host + iommu, iommu + host):
                with self.subTest(devices=devices), self.monitor("-machine", "q35",
                                                                 *devices) as qemu:
                    self.assertFalse(self.listens(qemu))
                    self.assertTrue(qemu.call("qom-get", path="/machine/peripheral/host",
                                              property="plain"))
        # What is beside it is not left out.
        with self.monitor("-machine", "q35", "-device",
                          "virtio-iommu-pci,boot-bypass=off,leave-out=pcie.0/5.1", *host) as qemu:
            self.assertTrue(self.listens(qemu))

    def test_mod_15_left_out_with_its_root_bus(self):
        with self.monitor(
                "-machine", "q35", *self.HOTPLUG,
                "-device", "virtio-iommu-pci,bus=pcie.0,boot-bypass=off,leave-out=pxb",
                "-device", "pxb-pcie,id=pxb,bus_nr=16",
                "-device", "pcie-root-port,id=rp1,bus=pxb,chassis=1",
                "-device", "pcie-root-port,id=rp2,bus=pxb,chassis=2,addr=1.0",
                "-device", self.DEVICE + ",bus=rp1") as qemu:
            qemu.call("device_add", driver="test-host-device", id="plugged", bus="rp2")
            for name in ("host", "plugged"):
                self.assertFalse(self.listens(qemu, name))
                self.assertTrue(qemu.call("qom-get", path=f"/machine/peripheral/{name}",
                                          property="plain"))

    def test_mod_15_plugged_into_a_slot_that_is_left_out(self):
        with self.monitor("-machine", "pc", "-device",
                          "virtio-iommu-pci,boot-bypass=off,leave-out=pci.0/5") as qemu:
            for name, addr, out in (("out", "5.0", True), ("in", "6.0", False)):
                qemu.call("device_add", driver="test-host-device", id=name, addr=addr)
                self.assertEqual(self.listens(qemu, name), not out)
                self.assertEqual(qemu.call("qom-get", path=f"/machine/peripheral/{name}",
                                           property="plain"), out)

    def test_w27_anywhere_where_no_iommu_is(self):
        expander = ("-device", "pxb-pcie,id=pxb,bus_nr=16,bypass_iommu=on",
                    "-device", "pcie-root-port,id=rp1,bus=pxb,chassis=1",
                    "-device", "pcie-root-port,id=rp2,bus=pxb,chassis=2,addr=1.0")
        for devices in ((*expander, "-device", self.DEVICE + ",bus=rp1"),
                        ("-device", "virtio-iommu-pci", *expander,
                         "-device", self.DEVICE + ",bus=rp1"),
                        (*expander, "-device", self.DEVICE + ",bus=rp1",
                         "-device", "virtio-iommu-pci,bus=pcie.0")):
            with self.monitor("-machine", "q35", *self.HOTPLUG, *devices) as qemu:
                self.assertFalse(self.listens(qemu))
                qemu.call("device_add", driver="test-host-device", id="plugged", bus="rp2")
                self.assertFalse(self.listens(qemu, "plugged"))


def main():
    global OPTIONS
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qemu-bin", type=Path, required=True)
    parser.add_argument("--qemu-build", type=Path, required=True)
    parser.add_argument("--plugin", type=Path, required=True)
    parser.add_argument("--modules", type=Path, nargs="+", required=True)
    OPTIONS, rest = parser.parse_known_args()
    OPTIONS.modules = {path.stem: path for path in OPTIONS.modules}
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
