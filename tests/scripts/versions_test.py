#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What scripts/setup and scripts/test say to --qemu, and that all agree on which versions exist."""

import importlib.machinery
import importlib.util
import subprocess
import sys
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
loader = importlib.machinery.SourceFileLoader("prepare", str(REPOSITORY / "qemu/prepare"))
prepare = importlib.util.module_from_spec(importlib.util.spec_from_loader("prepare", loader))
loader.exec_module(prepare)


def call(script, *arguments):
    done = subprocess.run([REPOSITORY / "scripts" / script, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


class VersionsTest(unittest.TestCase):
    def test_each_version_has_patches_and_a_build_folder(self):
        for version in prepare.ARCHIVES:
            self.assertTrue((REPOSITORY / "qemu" / version / "series").is_file())
        self.assertEqual(call("build-folder", "10.0"), (0, f"{REPOSITORY}/build\n"))
        self.assertEqual(call("build-folder", "10.2"), (0, f"{REPOSITORY}/build-10.2\n"))

    def test_patches_keep_their_numbers(self):
        series = [(REPOSITORY / "qemu" / version / "series").read_text().split()
                  for version in prepare.ARCHIVES]
        for name in series[1]:
            self.assertIn(name, series[0])

    def test_a_version_without_patches_is_named_with_those_that_have_some(self):
        for version in "9.9", "../x", "", "10":
            said = f"There are no patches for QEMU {version}, only for: 10.0 10.2\n"
            for script in "setup", "test":
                self.assertEqual(call(script, "--qemu", version), (1, said))

    def test_a_version_that_is_left_out(self):
        for script in "setup", "test":
            status, said = call(script, "--qemu")
            self.assertEqual(status, 2)
            self.assertIn(f"usage: scripts/{script}", said)


if __name__ == "__main__":
    unittest.main()
