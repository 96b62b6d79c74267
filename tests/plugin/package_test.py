#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian package of the plugin: what is in it, that it starts Debian's QEMU, and that a second
build is the same.

    package_test.py DEBIAN

DEBIAN is Debian's qemu-system-x86_64, unmodified.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

DEBIAN = sys.argv[1]
ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "usr/lib/x86_64-linux-gnu/viommu/viommu.so"
LIMIT = 1800  # seconds; a build takes two minutes


def build(folder):
    folder.mkdir()
    done = subprocess.run([ROOT / "packaging/plugin", "--no-packages", "--output", folder],
                          stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True)
    return Path(done.stdout.strip())


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="viommu-package."))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.package = build(cls.folder / "first")
        cls.tree = cls.folder / "tree"
        subprocess.run(["dpkg-deb", "-x", cls.package, cls.tree], check=True)

    def test_has_programs_plugin_and_documents(self):
        for name in ("usr/bin/qemu-viommu-x86_64", "usr/bin/qemu-viommu-aarch64",
                     "usr/bin/viommu-inspect", "usr/bin/viommu-timeline", LIBRARY,
                     "usr/share/man/man1/viommu-inspect.1.gz",
                     "usr/share/doc/qemu-viommu-plugin/copyright"):
            self.assertTrue((self.tree / name).exists(), name)
        self.assertIn(f"/{LIBRARY}", (self.tree / "usr/bin/qemu-viommu-x86_64").read_text())

    def test_depends_on_the_series_of_qemu(self):
        fields = subprocess.run(["dpkg-deb", "-f", self.package, "Depends", "Breaks"],
                                capture_output=True, text=True, check=True).stdout
        self.assertIn("qemu-system-x86 (>= 1:10.0) | qemu-system-arm (>= 1:10.0)", fields)
        self.assertIn("qemu-system-x86 (>= 1:10.1~)", fields)

    def test_starts_qemu(self):
        environment = dict(os.environ, VIOMMU_QEMU=DEBIAN, VIOMMU_PLUGIN=str(self.tree / LIBRARY))
        done = subprocess.run([self.tree / "usr/bin/qemu-viommu-x86_64", "-machine", "q35",
                               "-nodefaults", "-display", "none", "-monitor", "stdio", "-device",
                               "virtio-iommu-pci,id=iommu0"], input="info qtree\nquit\n", text=True,
                              capture_output=True, env=environment, timeout=LIMIT, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('dev: viommu-pci, id "iommu0"', done.stdout)

    def test_the_tools_write_nothing_beside_themselves(self):
        subprocess.run([self.tree / "usr/bin/viommu-inspect", "--help"], capture_output=True,
                       check=True)
        self.assertEqual(list(self.tree.rglob("__pycache__")), [])

    def test_a_second_build_is_the_same(self):
        shutil.rmtree(ROOT / "build-package")
        self.assertEqual(build(self.folder / "second").read_bytes(), self.package.read_bytes())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
