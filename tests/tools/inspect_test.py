#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""tools/viommu-inspect against QEMUs: a machine with all there is, a guest that runs, and servers
that are none of the kind.

    inspect_test.py --qemu build/prefix/bin/qemu-system-x86_64 --bare build/tests/bare/bare-x86.elf
"""
import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import bench

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "viommu-inspect"
SECONDS = 60
SVG = "{http://www.w3.org/2000/svg}"
OPTIONS = argparse.Namespace(qemu=None, bare=None)


def inspect(*words):
    """(status, what it says, errors)."""
    done = subprocess.run([sys.executable, TOOL, *map(str, words)], capture_output=True, text=True,
                          timeout=SECONDS, check=False)
    return done.returncode, done.stdout, done.stderr


class FakeMonitor:
    """A server that speaks as much QMP as a test wants: {command: function of its arguments}."""

    def __init__(self, folder, answers, greeting=b'{"QMP": {}}\n'):
        self.path = str(Path(folder) / "fake.sock")
        self.answers, self.greeting = answers, greeting
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.path)
        self.server.listen(1)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        client, _ = self.server.accept()
        with client, client.makefile("rb") as lines:
            client.sendall(self.greeting)
            for line in lines:
                message = json.loads(line)
                answer = self.answers.get(message["execute"], lambda **_: {})
                client.sendall(b'{"event": "SHUTDOWN"}\n')
                try:
                    reply = {"return": answer(**message.get("arguments", {}))}
                except KeyError as err:
                    reply = {"error": {"desc": err.args[0]}}
                client.sendall(json.dumps(reply).encode() + b"\n")

    def close(self):
        self.server.close()


class Errors(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def fails(self, path, sentence, *words):
        status, said, errors = inspect(path, *words)
        self.assertEqual((status, said), (1, ""))
        self.assertEqual(errors.count("\n"), 1, errors)
        self.assertRegex(errors, f"^viommu-inspect: {sentence}")

    def fake(self, answers, **more):
        monitor = FakeMonitor(self.folder.name, answers, **more)
        self.addCleanup(monitor.close)
        return monitor.path

    def test_no_socket(self):
        self.fails("/nowhere/qmp.sock", "there is no socket /nowhere/qmp.sock: start QEMU with -qmp")

    def test_nobody_listens(self):
        path = str(Path(self.folder.name) / "dead.sock")
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(path)
        dead.close()
        self.fails(path, "nobody listens on ")

    def test_no_socket_at_all(self):
        path = Path(self.folder.name) / "file"
        path.write_text("")
        self.fails(path, "(nobody listens on|cannot connect to) ")

    def test_another_protocol(self):
        self.fails(self.fake({}, greeting=b"220 smtp\n"), "on .* is no QMP monitor")
        os.unlink(Path(self.folder.name) / "fake.sock")
        self.fails(self.fake({}, greeting=b'{"hello": 1}\n'), "on .* is no QMP monitor")

    def test_a_machine_without(self):
        self.fails(self.fake({"qom-list": lambda path: []}),
                   "there is no virtio-iommu in this machine")

    def test_qemus_own(self):
        own = {
            "/machine/peripheral": [{"name": "iommu0", "type": "child<virtio-iommu-pci>"}],
            "/machine/peripheral-anon": [],
            "/machine/peripheral/iommu0": [{"name": "virtio-backend", "type": "child<x>"}],
            "/machine/peripheral/iommu0/virtio-backend": [{"name": "granule", "type": "str"}],
        }
        self.fails(self.fake({"qom-list": lambda path: own[path]}),
                   "/machine/peripheral/iommu0 cannot be looked into: it is QEMU's own")

    def test_command_lines(self):
        for words in (("nonsense",), ("mappings",), ("translate", "1"), ("domains", "1"),
                      ("--svg", "domains"), ("--watch", "--json"), ("--interval", "0"),
                      ("--limit", "-1"), ()):
            status, said, errors = inspect(*(("x", *words) if words else ()))
            self.assertEqual((status, said), (2, ""), words)
            self.assertTrue(errors.startswith("usage: viommu-inspect"), words)

    def intruded(self, times):
        """A monitor in which another client replaces the question so often."""
        path = "/machine/peripheral/iommu0"
        asked = []

        def qom_get(path, property):
            if property == "realized":
                return True
            if property == "instance":
                return {"index": 0, "name": "iommu0", "device": path}
            if property == "inspect":
                return asked[-1]
            others = len(asked) <= times
            if others and len(asked) % 2:
                asked[-1] = "mappings domain=9"
                raise KeyError("there is no domain 9")
            return {"query": "domains" if others else asked[-1], "more": False,
                    "endpoints": [], "domains": []}

        names = ("inspect", "inspected")
        lists = {"/machine/peripheral": [{"name": "iommu0", "type": "child<virtio-iommu-mmio>"}],
                 path: [{"name": name, "type": "x"} for name in names]}
        return self.fake({"qom-list": lambda path: lists.get(path, []), "qom-get": qom_get,
                          "qom-set": lambda path, property, value: asked.append(value)})

    def test_another_client_asks_as_well(self):
        status, said, errors = inspect(self.intruded(5), "translate", "1", "1")
        self.assertEqual((status, said), (1, ""))
        self.assertIn("no endpoint is called '1'", errors)

    def test_another_client_asks_all_the_time(self):
        self.fails(self.intruded(1000), "another client keeps asking", "translate", "1", "1")


class Rich(unittest.TestCase):
    """Two IOMMUs, an expander and one that bypasses, bridges, forty functions."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.socket = str(Path(cls.folder.name) / "qmp.sock")
        cls.qemu = bench.machine(OPTIONS.qemu, cls.socket, bench.RICH)
        cls.qemu.__enter__()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.addClassCleanup(cls.qemu.__exit__, None, None, None)
        bench.drive_rich(cls.qemu)

    def says(self, *words):
        status, said, errors = inspect(self.socket, *words)
        self.assertEqual((status, errors), (0, ""), words)
        return said

    def rows(self, *words):
        """The lines of the tables, without the room between columns."""
        return [" ".join(line.split()) for line in self.says(*words).splitlines()]

    def test_instances(self):
        rows = self.rows("instances")
        self.assertIn("iommu0 00:02.0 yes no 512 (<1 %) 14 (<1 %) 15.1 KiB 512 MiB (<1 %) pcie.0",
                      rows)
        self.assertTrue(any(row.startswith("iommu1 00:03.0 yes yes 256 ") and row.endswith(" pxb1")
                            for row in rows), rows)
        self.assertEqual(len(self.rows("instances", "--iommu", "iommu1")), len(rows) - 1)

    def test_endpoints(self):
        rows = self.rows("endpoints")
        self.assertIn("iommu0 0x38 00:07.0 function0 (pci-testdev) translating 1 0 0 -", rows)
        self.assertIn("iommu0 0x3b 00:07.3 function3 (pci-testdev) unattached, blocked - 0 0 -", rows)
        self.assertIn("iommu0 0x100 01:00.0 conventional (pcie-pci-bridge), 2 functions "
                      "translating 200 0 0 -", rows)
        self.assertIn("iommu1 0x4800 48:00.0 a-rather-long-name-of-a-network-card-7 (e1000e) "
                      "unattached, bypasses - 0 0 -", rows)
        self.assertGreaterEqual(len(rows), 40) # more than one answer holds

    def test_domains(self):
        rows = self.rows("domains")
        self.assertTrue(any(re.fullmatch(r"iommu0 100 paging 512 [\d.]+ KiB card0, card1, card2, card3",
                                         row) for row in rows), rows)
        self.assertIn("iommu1 6 paging 0 224 B a-rather-long-name-of-a-network-card-6, far-port6",
                      rows)

    def test_stats(self):
        rows = self.rows("stats", "--iommu", "iommu0")
        for row in ("Counters of iommu0", "mappings 512", "domains 14", "Requests of iommu0",
                    "map OK 512"):
            self.assertIn(row, rows)

    def test_model(self):
        rows = self.rows("model")
        for row in ("pcie.0 0 00-3f iommu0", "pxb1 0 40-7f iommu1", "pxb2 0 80-ff none: bypasses",
                    "iommu1 0x4000 0x7fff 40:00.0 to 7f:1f.7"):
            self.assertIn(row, rows)

    def test_overview(self):
        said = self.says()
        for title in ("IOMMUs\n", "Endpoints\n", "Domains\n"):
            self.assertIn(title, said)

    def test_mappings(self):
        rows = self.rows("mappings", "100")
        self.assertEqual(sum("4.0 KiB" in row for row in rows), 512)
        self.assertIn("0x100000 0x100fff 4.0 KiB 0x100000 rw", rows)
        self.assertIn("0x2ff000 0x2fffff 4.0 KiB 0x2ff000 rw", rows)
        rows = self.rows("mappings", "0x64", "--limit", "3")
        self.assertEqual(sum("4.0 KiB" in row for row in rows), 3)
        self.assertIn("There are more; --limit 0 shows all.", rows)
        whole = json.loads(self.says("--json", "mappings", "100", "--limit", "512"))
        self.assertEqual((len(whole["mappings"]), whole["more"]), (512, False))

    def test_which_domain(self):
        status, _, errors = inspect(self.socket, "mappings", "1")
        self.assertEqual(status, 1)
        self.assertIn("there is a domain 1 in each of iommu0, iommu1: choose with --iommu", errors)
        self.assertIn("Mappings of domain 1 of iommu1", self.says("mappings", "1", "--iommu", "iommu1"))
        self.assertIn("there is no domain 99", inspect(self.socket, "mappings", "99")[2])
        self.assertIn("DOMAIN: 'x' is no number", inspect(self.socket, "mappings", "x")[2])

    def test_translate(self):
        for endpoint in ("0x200", "512", "02:00.0", "0000:02:00.0", "card0"):
            self.assertEqual(self.says("translate", endpoint, "0x100123"),
                             "0x100123 of endpoint 02:00.0 is mapped (domain 100)\n"
                             "  leads to 0x100123, rights rw\n"
                             "  so does all of 0x100000-0x100fff\n")
        self.assertEqual(self.says("translate", "old2", "4096"),
                         "0x1000 of endpoint 01:00.0 faults: nothing is mapped there (domain 200)\n")
        self.assertEqual(self.says("translate", "00:07.3", "0"),
                         "0x0 of endpoint 00:07.3 faults: the endpoint is in no domain\n")
        self.assertIn("reaches memory as it is",
                      self.says("translate", "a-rather-long-name-of-a-network-card-7", "0"))
        self.assertIn("is in the window of interrupts", self.says("translate", "card0", "0xfee00000"))
        self.assertEqual(json.loads(self.says("--json", "translate", "card0", "0x100123"))["phys"],
                         0x100123)
        self.assertIn("no endpoint is called 'nobody'",
                      inspect(self.socket, "translate", "nobody", "1")[2])
        self.assertIn("has more than 64 bits",
                      inspect(self.socket, "translate", "card0", hex(1 << 64))[2])

    def test_json(self):
        whole = json.loads(self.says("--json"))
        self.assertEqual([one["instance"]["name"] for one in whole["iommus"]], ["iommu0", "iommu1"])
        self.assertEqual(len(whole["model"]["root-buses"]), 3)
        self.assertEqual(len(whole["iommus"][1]["endpoints"]), 16)
        for view, part in (("instances", "instance"), ("endpoints", "endpoints"),
                           ("domains", "domains"), ("stats", "stats")):
            one = json.loads(self.says(view, "--json", "--iommu", "iommu1"))["iommus"]
            self.assertEqual([set(entry) for entry in one], [{"path", part}])
        self.assertEqual(json.loads(self.says("model", "--json")), whole["model"])

    def test_an_unknown_iommu(self):
        self.assertIn("there is no virtio-iommu 'x' in this machine, only iommu0, iommu1",
                      inspect(self.socket, "--iommu", "x")[2])

    def test_one_client_at_a_time(self):
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(self.socket)
            first.makefile("rb").readline()
            status, _, errors = inspect(self.socket)
        self.assertEqual(status, 1)
        self.assertIn("one client at a time there", errors)

    def test_svg_has_boxes_that_do_not_overlap_and_hold_their_text(self):
        root = ElementTree.fromstring(self.says("--svg"))
        width, height = float(root.get("width")), float(root.get("height"))
        boxes = {}
        for group in root.iter(f"{SVG}g"):
            rect = group.find(f"{SVG}rect")
            x, y, w, h = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
            name = group.find(f"{SVG}title").text
            self.assertNotIn(name, boxes)
            boxes[name] = x, y, x + w, y + h
            self.assertTrue(0 <= x and x + w <= width and 0 <= y and y + h <= height, name)
            for line in group.iter(f"{SVG}text"):
                left, base = float(line.get("x")), float(line.get("y"))
                # Of a monospaced font of 12 pixels.
                self.assertTrue(x <= left and left + 7.25 * len(line.text) <= x + w, line.text)
                self.assertTrue(y + 9 <= base <= y + h - 3, line.text)
        for one, (left, top, right, bottom) in boxes.items():
            for other, (left2, top2, right2, bottom2) in boxes.items():
                if one < other:
                    self.assertTrue(right <= left2 or right2 <= left or bottom <= top2 or
                                    bottom2 <= top, f"{one} overlaps {other}")
        for name in ("iommu 0", "iommu 1", "none", "bus pcie.0", "bus pxb1", "bus pxb2",
                     "bridge /machine/peripheral/far-port0", "endpoint 0x38", "domain 0 100",
                     "domain 1 6"):
            self.assertIn(name, boxes)
        self.assertGreaterEqual(sum(name.startswith("endpoint ") for name in boxes), 40)
        links = [path for path in root.iter(f"{SVG}path") if path.get("class") == "link"]
        attached = sum("domain" in endpoint for iommu in json.loads(self.says("--json"))["iommus"]
                       for endpoint in iommu["endpoints"])
        self.assertEqual(len(links), attached)

    def test_dot(self):
        said = self.says("--dot")
        self.assertTrue(said.startswith("digraph viommu {\n") and said.endswith("}\n"))
        self.assertEqual(said.count("subgraph"), 3)
        self.assertIn('"endpoint 0x38" -> "domain 0 1";', said)
        self.assertIn('"bus pxb1" -> "bridge /machine/peripheral/far-port0" [arrowhead=none];', said)


class TakenAway(unittest.TestCase):
    def test_it_is_said(self):
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "qmp.sock")
            with bench.machine(OPTIONS.qemu, path,
                               ["-device", "virtio-iommu-pci,id=iommu0,bus=pcie.0,addr=2"]) as qemu:
                self.assertEqual(inspect(path)[0], 0)
                qemu.qmp("qom-set", path="/machine/peripheral/iommu0/virtio-backend",
                         property="realized", value=False)
                status, said, errors = inspect(path)
        self.assertEqual((status, said), (1, ""))
        self.assertIn("/machine/peripheral/iommu0 was taken away: what was behind it bypasses",
                      errors)


class RunningGuest(unittest.TestCase):
    """The bare guest maps, reads a disk and unmaps without end."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        folder = Path(cls.folder.name)
        cls.socket = str(folder / "qmp.sock")
        with open(folder / "disk", "wb") as disk:
            disk.write(b"".join(word.to_bytes(4, "little") for word in range(1 << 18)))
        words = (f"{OPTIONS.qemu} -nodefaults -no-user-config -display none -m 64 -machine q35 "
                 "-bios qboot.rom -accel tcg -serial null "
                 f"-qmp unix:{cls.socket},server=on,wait=off "
                 f"-blockdev driver=file,node-name=d0,filename={folder}/disk,locking=off "
                 "-device virtio-iommu-pci,bus=pcie.0,addr=2 "
                 "-device virtio-blk-pci,id=disk0,bus=pcie.0,addr=3,drive=d0,iommu_platform=on,"
                 f"disable-legacy=on -kernel {OPTIONS.bare}")
        cls.qemu = subprocess.Popen([*words.split(), "-fw_cfg",
                                     "name=opt/viommu/bare,string=scenario=loop:rounds=100"],
                                    stdin=subprocess.DEVNULL)
        cls.addClassCleanup(cls.end)
        cls.wait_until_it_reads()

    @classmethod
    def end(cls):
        cls.qemu.kill()
        cls.qemu.wait()

    @classmethod
    def wait_until_it_reads(cls):
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and cls.qemu.poll() is None:
            status, said, _ = inspect(cls.socket, "--json")
            if status == 0 and cls.disk(json.loads(said))["translations"] > 100:
                return
            time.sleep(0.2)
        raise AssertionError("the bare guest does not read its disk")

    @staticmethod
    def disk(whole):
        return next(one for one in whole["iommus"][0]["endpoints"] if one["name"] == "disk0")

    def test_its_disk_is_translated(self):
        status, said, errors = inspect(self.socket, "--json")
        self.assertEqual((status, errors), (0, ""))
        whole = json.loads(said)
        instance, disk = whole["iommus"][0]["instance"], self.disk(whole)
        # It has no id: it is found all the same.
        self.assertTrue(instance["device"].startswith("/machine/peripheral-anon/"))
        self.assertTrue(instance["driver"])
        self.assertEqual((disk["mode"], disk["domain"], disk["address"]), ("translating", 1, "00:03.0"))
        self.assertEqual(disk["type"], "virtio-blk-pci")
        self.assertNotIn("last-fault", disk)
        by_status = whole["iommus"][0]["stats"]["requests-by-status"]
        self.assertTrue(all(one["status"] == "OK" for one in by_status), by_status)

    def test_its_mappings_lead_where_they_say(self):
        looks = []
        for _ in range(2):
            status, said, _ = inspect(self.socket, "--json", "mappings", "1")
            self.assertEqual(status, 0)
            looks.append(json.loads(said)["mappings"])
        # The others come and go.
        rings = next(one for one in looks[0] if one in looks[1])
        status, said, _ = inspect(self.socket, "--json", "translate", "disk0", rings["first"])
        self.assertEqual(status, 0)
        self.assertEqual(json.loads(said)["phys"], rings["phys"])

    def test_watch_shows_rates(self):
        status, said, errors = inspect(self.socket, "--watch", "--interval", "0.5", "--times", "3",
                                       "endpoints")
        self.assertEqual((status, errors), (0, ""))
        looks = said.split("Rates\n")[1:]
        self.assertEqual(len(looks), 3)
        first, *_, last = [look.splitlines() for look in looks]
        heading = first[0].split()
        self.assertEqual(heading[1:5], ["requests/s", "refused/s", "translations/s", "faults/s"])
        # The last three are the mappings, a number of bytes and its unit.
        requests, refused, translations, faults = last[1].split()[-7:-3]
        self.assertGreater(int(requests), 0)
        self.assertGreater(int(translations), 0)
        self.assertEqual((refused, faults), ("0", "0"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--qemu", required=True)
    parser.add_argument("--bare", required=True)
    args, rest = parser.parse_known_args(namespace=OPTIONS)
    del args
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
