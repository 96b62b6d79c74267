#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What documents say of tools, properties and log lines, against a machine and the sources.

    docs_test.py --qemu build/prefix/bin/qemu-system-x86_64
"""
import argparse
import re
import shlex
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import bench
import driver

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "tools"))
from viommu_tools import machine  # noqa: E402
from viommu_tools.qmp import Qmp, Refused  # noqa: E402

OPTIONS = argparse.Namespace(qemu=None)
SOCKET = "/run/qmp.sock"
# As the documents have it.
MACHINE = ["-device", "virtio-iommu-pci,id=iommu0,bus=pcie.0,addr=2,fault-injection=on",
           "-device", "edu,id=nvme0,bus=pcie.0,addr=3", "-device", "edu,bus=pcie.0,addr=5"]
READ_ONLY = ("instance", "model", "stats", "endpoints", "inspected", "injected")


def read(name):
    return (DOCS / name).read_text(encoding="utf-8")


def commands(name):
    """The lines with viommu-inspect that stand alone in a document."""
    text = read(name).replace("\\-", "-")
    return re.findall(r"^(?:    |\t)?(?:\$ )?(?:tools/)?(viommu-inspect .*" + SOCKET + ".*)$", text,
                      re.MULTILINE)


def section(name, title):
    text = re.split(r"^## ", read(name), flags=re.MULTILINE)
    return next(part for part in text if part.startswith(title))


def first_cells(text):
    """The names in the first cells of tables."""
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {cell for row in rows for cell in re.findall(r"`([a-z-]+)`", row)}


class Documents(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.socket = str(Path(cls.folder.name) / "qmp.sock")
        cls.qemu = bench.machine(OPTIONS.qemu, cls.socket, MACHINE)
        cls.qemu.__enter__()
        cls.addClassCleanup(cls.qemu.__exit__, None, None, None)
        iommu = bench.Viommu(cls.qemu, 0x10, 0)
        iommu.bring_up()
        bench.expect(iommu.attach([0x18], 1), driver.OK)
        iommu.map_pages(1, 0xfffff, 256)

    def run_commands(self, name, at_least):
        found = commands(name)
        self.assertGreaterEqual(len(found), at_least, name)
        for line in found:
            words = shlex.split(line.split(">")[0].replace(SOCKET, self.socket))
            words[0] = str(ROOT / "tools" / words[0])
            if "--watch" in words and "--times" not in words:
                words += ["--times", "1"]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""), line)
            self.assertNotEqual(done.stdout, "", line)

    def test_commands_of_operate(self):
        self.run_commands("operate.md", 9)

    def test_commands_of_the_manual(self):
        self.run_commands("viommu-inspect.1", 5)

    def test_the_manual_has_all_options_and_commands(self):
        text = read("viommu-inspect.1").replace("\\-", "-")
        usage = subprocess.run([ROOT / "tools" / "viommu-inspect", "--help"], capture_output=True,
                               text=True, check=True).stdout
        for option in re.findall(r"^  (?:-\w, )?(--[a-z]+)", usage, re.MULTILINE):
            self.assertIn(option, text)
        for command in re.findall(r"^  ([a-z]+)(?: [A-Z ]+)? {2,}\S", usage.split("commands:")[1],
                                  re.MULTILINE):
            self.assertRegex(text, rf"\.BI? {command}\b", command)

    def test_fields_of_inspect(self):
        """Each field that is documented is there, and each that is there is documented."""
        with Qmp(self.socket) as qmp:
            iommu, = machine.find(qmp)
            instance, model, stats = (iommu.get(name) for name in ("instance", "model", "stats"))
            endpoints = iommu.ask("endpoints")["endpoints"]
            domain = iommu.ask("domains")["domains"][0]
            mapping = iommu.ask("mappings domain=1")["mappings"][0]
            look = iommu.ask("translate endpoint=0x18 address=0xfffff000")
        one = next(endpoint for endpoint in endpoints if endpoint["id"] == 0x18)
        self.assertEqual(first_cells(section("inspect.md", "`instance`")) - {"base"}, set(instance))
        self.assertEqual(first_cells(section("inspect.md", "`model`")), set(model))
        self.assertEqual(first_cells(section("inspect.md", "Endpoints")) - {"last-fault"}, set(one))
        text = section("inspect.md", "Domains and mappings")
        self.assertEqual(first_cells(text), set(domain))
        for name in mapping:
            self.assertIn(f"`{name}`", text)
        text = section("inspect.md", "A single address")
        for name in set(look) - {"query"}:
            self.assertIn(f"`{name}`", text)
        self.assertIn(look["found"], first_cells(text))
        text = section("inspect.md", "`stats`") + (ROOT / "README.md").read_text(encoding="utf-8")
        for name in first_cells(section("inspect.md", "`stats`")):
            self.assertIn(name, stats)
        self.assertIn("`requests-by-status`", text)

    def test_properties_exist(self):
        with Qmp(self.socket) as qmp:
            iommu, = machine.find(qmp)
            there = qmp.list(iommu.path)
            for name in first_cells(read("inspect.md").split("## Questions")[0]) | {"inject", "injected"}:
                self.assertIn(name, there)
            for name in READ_ONLY:
                iommu.get(name)
                with self.assertRaises(Refused):
                    qmp.set(iommu.path, name, "x")
            for name in ("max-mappings", "max-domains", "max-memory", "aw-bits", "boot-bypass",
                         "granule", "fault-injection"):
                self.assertIn(name, there)

    def test_commands_of_injection(self):
        text = read("injection.md")
        found = re.findall(r"`((?:record|accesses|requests) [^`\[\]]*=[^`\[\]]*)`", text)
        self.assertGreaterEqual(len(found), 4)
        with Qmp(self.socket) as qmp:
            iommu, = machine.find(qmp)
            for command in [*found, "nothing"]:
                command = " ".join(command.split()).replace("0x28", "0x18")
                if re.search(r"=[A-Z]\b", command): # the table's form, with T, S and ID
                    continue
                qmp.set(iommu.path, "inject", command)
            self.assertEqual(iommu.get("injected"), {"requests": [], "accesses": []})


class LogLines(unittest.TestCase):
    """docs/operate.md explains each line that the plugin logs, and none that there is not."""
    CALLS = re.compile(r"\b(?:warn_report|error_report|qemu_log|qemu_log_mask)\(\s*"
                       r"(?:LOG_\w+,\s*)?((?:\"(?:[^\"\\]|\\.)*\"\s*|PRIx64\s*)+)")

    def logged(self):
        for path in sorted((ROOT / "hw").rglob("*.c")):
            for match in self.CALLS.finditer(path.read_text(encoding="utf-8")):
                yield path.name, "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', match[1]))

    def test_each_line_is_explained(self):
        explained = " ".join(section("operate.md", "What each line means").split())
        lines = list(self.logged())
        self.assertGreaterEqual(len(lines), 11)
        for where, line in lines:
            # One line tells of two requests.
            for text in ([line.replace("%s", name, 1) for name in ("ATTACH", "DETACH")]
                         if line.startswith("virtio-iommu: %s of") else [line]):
                longest = max(re.split(r"%[-\w]*", text.replace("\\n", "")), key=len)
                begin = text.split("%")[0]
                self.assertTrue(begin.strip() and begin in explained or
                                longest.strip() in explained, f"{where}: {text}")

    def test_no_line_is_made_up(self):
        sources = [path.read_text(encoding="utf-8") for path in (ROOT / "hw").rglob("*.c")]
        sources += [re.sub(r"^\+", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
                    for path in (ROOT / "qemu").rglob("*.patch")]
        whole = re.sub(r'"\s*\n\s*"', "", "\n".join(sources))
        for row in re.findall(r"^\| (`.*?) \|", section("operate.md", "What each line means"),
                              re.MULTILINE):
            for line in re.findall(r"`([^`]+)`", row):
                pattern = re.sub(r"(ATTACH|DETACH)", "%s", line)
                self.assertTrue(pattern in whole, f"no source logs '{line}'")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--qemu", required=True)
    _, rest = parser.parse_known_args(namespace=OPTIONS)
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
