#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what prepares the guests: the mirror that is found, module order, the archive."""
import os
import socket
import tempfile
import time
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import fetch
import hops
import initramfs
import run
import vm

DEB822 = """\
# what was installed from: http://old.example/debian
Types: deb deb-src
URIs: http://security.example/debian-security
Suites: trixie-security
Components: main

Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: trixie
Components: main

Types: deb-src
URIs: http://sources.example/debian
Suites: trixie
Components: main

Types: deb
URIs: mirror+file:/etc/apt/mirrors/own.list
 http://second.example/debian
Suites: trixie trixie-updates
Components: main contrib
"""

ONE_LINE = """\
# deb http://comment.example/debian trixie main
deb-src http://sources.example/debian trixie main
deb http://security.example/debian-security bookworm-security main
deb http://vendor.example/apt stable-vendor main
deb [arch=amd64 signed-by=/a.gpg] http://own.example/debian/ bookworm-updates main # x
"""


class Mirror(unittest.TestCase):
    def find(self, files):
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ):
            os.environ.pop("VIOMMU_DEBIAN_MIRROR", None)
            etc = Path(folder)
            (etc / "sources.list.d").mkdir()
            for name, text in files.items():
                (etc / name).write_text(text)
            return fetch.find_mirror(etc)

    def test_stanzas(self):
        self.assertEqual(self.find({"sources.list.d/debian.sources": DEB822}),
                         "mirror+file:/etc/apt/mirrors/own.list")

    def test_lines(self):
        self.assertEqual(self.find({"sources.list": ONE_LINE}), "http://own.example/debian/")

    def test_other_files_do_not_count(self):
        with self.assertRaisesRegex(fetch.FetchError, "VIOMMU_DEBIAN_MIRROR"):
            self.find({"sources.list.d/debian.sources.disabled": DEB822, "sources.list": ""})

    def test_own_choice_comes_first(self):
        with mock.patch.dict(os.environ, VIOMMU_DEBIAN_MIRROR="http://chosen.example/debian"):
            self.assertEqual(fetch.find_mirror(Path("/nowhere")), "http://chosen.example/debian")


class Kernels(unittest.TestCase):
    def test_parts_of_one_release(self):
        info = {"Depends": "dracut | initramfs-tools (>= 1), linux-base-7.2.1+x-amd64 (= 7), "
                           "linux-binary-7.2.1+x-amd64 (= 7), linux-base (>= 4)"}
        self.assertEqual(fetch.kernel_parts("linux-image-7.2.1+x-amd64", info),
                         ["linux-image-7.2.1+x-amd64", "linux-base-7.2.1+x-amd64",
                          "linux-binary-7.2.1+x-amd64"])

    def test_a_kernel_newer_than_those_seen_is_named(self):
        with mock.patch.object(run, "newest_seen", return_value=(6, 12, 117)):
            older, newer = (run.about_kernel(SimpleNamespace(release="r", version=v))
                            for v in ("6.12.117-1", "7.2.13-1"))
        self.assertNotIn("newer", older)
        self.assertIn("newer than 6.12.117", newer)

    def test_readme_names_kernels(self):
        self.assertGreaterEqual(run.newest_seen(), (6, 12, 117))


class Modules(unittest.TestCase):
    def kernel(self, folder):
        modules = Path(folder)
        for name, needs in (("a-top", "b_middle,c-base"), ("b_middle", "c-base"), ("c-base", ""),
                            ("other", "")):
            file = modules / "kernel/drivers" / f"{name}.ko"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0name=x\0")
        (modules / "modules.builtin").write_text("kernel/drivers/nvme/host/nvme.ko\n")
        return SimpleNamespace(modules=modules, release="1.2.3")

    def test_dependencies_come_first(self):
        with tempfile.TemporaryDirectory() as folder:
            order = initramfs.resolve_modules(self.kernel(folder), ["a_top x=1", "nvme"])
            self.assertEqual([(name, params) for name, params, _ in order],
                             [("c_base", ""), ("b_middle", ""), ("a_top", "x=1")])

    def test_missing_module_is_an_error(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(fetch.FetchError, "no module igb"):
                initramfs.resolve_modules(self.kernel(folder), ["igb"])

    def test_a_kernel_without_the_driver_is_skipped_where_it_was_asked_for(self):
        with tempfile.TemporaryDirectory() as folder:
            kernel = self.kernel(folder)
            scenario = mock.Mock(side_effect=lambda _: initramfs.resolve_modules(
                kernel, ["virtio_iommu", "nvme"]))
            with mock.patch.dict(run.SCENARIOS, tried=scenario), \
                    mock.patch.object(run, "note") as said:
                for suite, outcome, word in (("bookworm", run.SKIPPED, "SKIPPED"),
                                             ("bookworm:cloud", run.SKIPPED, "SKIPPED"),
                                             (fetch.SUITE, run.FAILED, "FAILED")):
                    options = SimpleNamespace(kernel=suite, keep=False)
                    self.assertEqual(run.run("tried", options), outcome)
                    self.assertEqual(said.call_args_list[0].args[0],
                                     f"tried: {word}: Debian's kernel 1.2.3 has no driver for a "
                                     "virtio-iommu.")
                    said.reset_mock()
        self.assertEqual(run.overall([run.SKIPPED, run.FAILED, run.HELD]), run.FAILED)
        self.assertEqual(run.overall([run.SKIPPED, run.HELD]), run.HELD)
        self.assertEqual(run.overall([run.SKIPPED, run.SKIPPED]), run.SKIPPED)


class Archive(unittest.TestCase):
    def test_newc(self):
        data = initramfs.cpio([("bin", 0o040755, b"", (0, 0)),
                               ("bin/x", 0o100755, b"12345", (0, 0)),
                               ("c", 0o020600, b"", (5, 1))])
        found, at = {}, 0
        while True:
            self.assertEqual(data[at:at + 6], b"070701")
            field = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
            name_at, name_size, size = at + 110, field[11], field[6]
            name = data[name_at:name_at + name_size - 1].decode()
            body = (name_at + name_size + 3) // 4 * 4
            if name == "TRAILER!!!":
                break
            found[name] = (field[1], data[body:body + size], (field[9], field[10]))
            at = (body + size + 3) // 4 * 4
        self.assertEqual(found, {"bin": (0o040755, b"", (0, 0)),
                                 "bin/x": (0o100755, b"12345", (0, 0)),
                                 "c": (0o020600, b"", (5, 1))})


class Waiting(unittest.TestCase):
    def test_no_wait_passes_the_deadline(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            lines = vm.Lines(ours, time.monotonic() + 0.2)
            theirs.sendall(b"whole\r\npart")
            self.assertEqual(lines.wait(), "whole")
            self.assertIsNone(lines.wait(0.05))
            with self.assertRaisesRegex(vm.GuestError, "time limit"):
                lines.wait()

    def test_end_of_connection_is_an_error(self):
        ours, theirs = socket.socketpair()
        theirs.close()
        with ours, self.assertRaisesRegex(vm.GuestError, "closed"):
            vm.Lines(ours, time.monotonic() + 5).wait()


class Hops(unittest.TestCase):
    """What judges a hop has to be able to refuse it."""

    def side(self, memory):
        return SimpleNamespace(memory=lambda address, size: memory[address:address + size],
                               qmp=SimpleNamespace(call=lambda _: {"ram": {
                                   "dirty-sync-count": 2}}))

    def test_one_lost_byte_is_noticed(self):
        chain, memory = hops.Chain(), bytearray(os.urandom(4 * hops.PAGE))
        chain.memory = len(memory)
        before = self.side(bytes(memory))
        chain.compare_memory(before, self.side(bytes(memory)))
        memory[2 * hops.PAGE + 5] ^= 1
        with self.assertRaisesRegex(hops.Lost, "1 pages of memory differ: 0x2000; from 0x2005"):
            chain.compare_memory(before, self.side(bytes(memory)))

    def linux(self, *lines):
        chain = object.__new__(hops.LinuxChain)
        chain.job = SimpleNamespace(done=False, error=None, data=list(lines))
        chain.want, chain.wait = "aa", lambda: time.sleep(0.01)
        return chain

    def test_wrong_data_and_silence_are_noticed(self):
        right = {"pass": "0", "sha256": "aa", "ms": "1"}
        self.assertEqual(self.linux(right, right).passes(), 2)
        with self.assertRaises(hops.Wrong):
            self.linux(right, right | {"sha256": "ab"}).passes()
        with self.assertRaises(hops.Wrong):
            self.linux(right, {"differs": "0x0"}).passes()
        with self.assertRaises(hops.Stalled):
            self.linux(right).watch(1, 0.05)

    def test_the_bare_guest_may_complain(self):
        chain = object.__new__(hops.BareChain)
        for text, passes in (("round 0x0\nround 0x64\n", 2), ("", 0)):
            chain.guest = SimpleNamespace(console=lambda text=text: text)
            self.assertEqual(chain.passes(), passes)
        chain.guest = SimpleNamespace(console=lambda: "round 0x0\nwrong data block=0x1\n")
        with self.assertRaises(hops.Wrong):
            chain.passes()


class NetworkPeer(unittest.TestCase):
    def exchange(self, sock, mac, index, payload):
        frame = vm.NetPeer.MAC + mac + b"\x88\xb5" + index.to_bytes(4, "big") + bytes(4) + payload
        sock.sendall(len(frame).to_bytes(4, "big") + frame)
        size = int.from_bytes(sock.recv(4, socket.MSG_WAITALL), "big")
        return sock.recv(size, socket.MSG_WAITALL)

    def test_peers_are_kept_apart_and_changes_are_noticed(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            peer = vm.NetPeer(theirs)
            a, b = b"\2\0\0\0\0\xaa", b"\2\0\0\0\0\xbb"
            first = self.exchange(ours, a, 0, b"x" * 1400)
            self.assertEqual(first[:6], a)
            self.assertNotEqual(first[22:], self.exchange(ours, b, 0, b"x" * 1400)[22:])
            self.assertEqual(first, self.exchange(ours, a, 0, b"x" * 1400))
            before = peer.hashes("02:00:00:00:00:aa")
            self.assertEqual(before[0], peer.hashes("02:00:00:00:00:bb")[0])
            self.exchange(ours, a, 0, b"y" * 1400)
            self.assertNotEqual(before[0], peer.hashes("02:00:00:00:00:aa")[0])
            self.assertEqual(before[1], peer.hashes("02:00:00:00:00:aa")[1])


if __name__ == "__main__":
    unittest.main()
