#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""When run.py leaves KVM out, and that it never does so in place of a failure."""

import contextlib
import io
import os
import re
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import run

QEMU = "#!/bin/sh\necho \"$@\" >> {log}\necho 'failed: it does not start'\nexit 1\n"


def kvm(version=run.KVM_API_VERSION, error=None):
    """ioctl() of a /dev/kvm that answers like this."""
    def ioctl(_, request, argument):
        if request == run.KVM_GET_API_VERSION:
            return version
        if request != run.KVM_CREATE_VM or argument != 0:
            raise AssertionError(f"ioctl {request:#x} {argument}")
        if error:
            raise OSError(error, os.strerror(error))
        return os.open("/dev/null", os.O_RDONLY)
    return mock.patch("fcntl.ioctl", ioctl)


class Probe(unittest.TestCase):
    def reason(self, device="/dev/null", processor="x86_64"):
        return run.why_no_kvm(device, processor)

    def test_no_device(self):
        self.assertEqual(self.reason("/dev/null/kvm"),
                         "/dev/null/kvm makes no virtual machine: Not a directory")

    def test_a_device_that_is_not_kvm(self):
        self.assertEqual(self.reason(),
                         "/dev/null makes no virtual machine: Inappropriate ioctl for device")

    def test_another_processor(self):
        with kvm():
            self.assertIn("this host is aarch64", self.reason(processor="aarch64"))

    def test_another_interface(self):
        with kvm(version=11):
            self.assertIn("version 11", self.reason())

    def test_no_virtual_machine(self):
        with kvm(error=19):
            self.assertIn("No such device", self.reason())

    def test_a_virtual_machine(self):
        with kvm():
            self.assertIsNone(self.reason())


class Outcome(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.log = self.folder / "log"
        qemu = self.folder / "qemu-system-x86_64"
        qemu.write_text(QEMU.format(log=self.log))
        qemu.chmod(0o755)

    def outcome(self, reason, *more):
        """Returns (exit status, what was said)."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), self.assertRaises(SystemExit) as ended:
            run.main(["q35", "--accel", "kvm", "--qemu-dir", str(self.folder), "--images",
                      str(self.folder), *more], probe=lambda: reason)
        return ended.exception.code, said.getvalue()

    def test_a_skip_says_why(self):
        self.assertEqual(self.outcome("there is none"), (77, "skipped: there is none\n"))
        self.assertFalse(self.log.exists())

    def test_behind_the_probe_a_failure_is_one(self):
        for irqchip in ("on", "split"):
            status, said = self.outcome(None, "--irqchip", irqchip)
            self.assertEqual(status, 1)
            self.assertEqual(len(re.findall(r"^FAILED q35\b", said, re.MULTILINE)),
                             2 * len(run.MACHINES["q35"]["scenarios"]) + 1)
            self.assertIn(f"-accel kvm,kernel-irqchip={irqchip} ", self.log.read_text())

    def test_what_kvm_gives_up_is_not_run(self):
        (self.folder / "qemu-system-x86_64").write_text(
            "#!/bin/sh\necho KVM internal error. Suberror: 1 >&2\nexec sleep 60\n")
        status, said = self.outcome(None, "--scenario", "io")
        self.assertEqual((status, said), (77, "not run here, q35 io v2: QEMU reports "
                                              "'KVM internal error'\n"))

    def test_kvm_has_to_serve_kicks_and_messages(self):
        kick = "kvm_set_ioeventfd_mmio fd: 20 @0xc0003000 val=0x0 assign: 1 size: 0 match: 0\n"
        route = "kvm_irqchip_add_msi_route dev virtio-blk-pci vector 0 virq 24\n"
        run.check_traces("interrupts", kick + route)
        run.check_traces("io", "")
        for missing in (kick, route, kick.replace("assign: 1", "assign: 0") + route):
            with self.assertRaises(run.BareError):
                run.check_traces("interrupts", missing)


if __name__ == "__main__":
    unittest.main()
