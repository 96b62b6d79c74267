#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/lint's own decisions, with tools made up here, and whether the real ones see anything."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "scripts/lint"
# What the script itself needs; the tools that it runs are not among them.
COMMANDS = ("bash", "cat", "dirname", "env", "find", "grep", "nproc", "sort", "xargs")

UNLOCKED = """\
#include "base/mutex.h"
struct Count {
    mutable viommu::Mutex lock;
    int value VIOMMU_GUARDED_BY(lock) = 0;
    void add() { viommu::MutexLock held(lock); value++; }
    int get() const { return value; }
};
int get(const Count &count) { return count.get(); }
"""
LOCKED = UNLOCKED.replace("get() const", "get() const VIOMMU_REQUIRES(lock)") \
    .replace("int get(const Count &count)",
             "int get(const Count &count) VIOMMU_REQUIRES(count.lock)")
OUT_OF_BOUNDS = """\
#include "qemu/osdep.h"
int last(VirtIODevice *vdev)
{
    int words[4] = {0};
    return vdev->started ? words[4] : words[3];
}
"""


class LintTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.tools = self.folder / "bin"
        self.tools.mkdir()
        for command in COMMANDS:
            (self.tools / command).symlink_to(shutil.which(command))

    def tool(self, name, text):
        (self.tools / name).write_text("#!/bin/sh\n" + text)
        (self.tools / name).chmod(0o755)

    def lint(self, *arguments, path=None):
        """Returns (exit status, what was said)."""
        done = subprocess.run([SCRIPT, *arguments], env={**os.environ, "PATH": path or
                                                         str(self.tools)},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False)
        return done.returncode, done.stdout

    def read(self, tool, name, text):
        """The exit status for one file, with the tool that is installed."""
        file = self.folder / name
        file.write_text(text)
        return self.lint("--tool", tool, str(file), path=os.environ["PATH"])

    def test_a_tool_that_does_not_exist_is_named(self):
        status, said = self.lint("--tool", "WRONG")
        self.assertEqual(status, 2)
        self.assertIn("there is no tool 'WRONG'\n", said)

    def test_an_option_that_does_not_exist_is_named(self):
        status, said = self.lint("--wrong")
        self.assertEqual(status, 2)
        self.assertIn("there is no option '--wrong'\n", said)

    def test_a_missing_tool_is_left_out_visibly(self):
        self.assertEqual(self.lint("--tool", "cppcheck"),
                         (77, "== cppcheck\nleft out: cppcheck is not installed\n"))

    def test_a_tool_of_another_version_is_left_out_visibly(self):
        self.tool("clang-format", "echo 'Debian clang-format version 19.1.7 (3+b1)'")
        status, said = self.lint("--tool", "format")
        self.assertEqual(status, 77)
        self.assertIn("left out: clang-format is of version 19,", said)

    def test_a_tool_of_the_right_version_is_run(self):
        self.tool("clang-format", "echo 'Debian clang-format version 14.0.6'")
        self.assertEqual(self.lint("--tool", "format")[0], 0)

    def test_what_is_left_out_hides_no_failure(self):
        self.tool("shellcheck", "exit 1")
        for tools in (("cppcheck", "shell"), ("shell", "cppcheck")):
            with self.subTest(tools):
                self.assertEqual(self.lint(*(f"--tool {tools[0]} --tool {tools[1]}".split()))[0],
                                 1)

    def test_a_compiler_that_sees_no_locks_is_a_failure(self):
        self.tool("clang++", "exit 0")
        status, said = self.lint("--tool", "threads")
        self.assertEqual(status, 1)
        self.assertIn("does not see that a lock is not held", said)

    @unittest.skipUnless(shutil.which("clang++"), "clang++ is not installed")
    def test_a_lock_that_is_not_held_is_a_failure(self):
        self.assertEqual(self.read("threads", "locked.cc", LOCKED)[0], 0)
        status, said = self.read("threads", "unlocked.cc", UNLOCKED)
        self.assertEqual(status, 1)
        self.assertIn("-Wthread-safety-analysis", said)

    @unittest.skipUnless(shutil.which("cppcheck"), "cppcheck is not installed")
    def test_c_is_checked_without_qemus_headers(self):
        inside = OUT_OF_BOUNDS.replace("[4] :", "[2] :")
        self.assertEqual(self.read("cppcheck", "good.c", inside)[0], 0)
        status, said = self.read("cppcheck", "bad.c", OUT_OF_BOUNDS)
        self.assertEqual(status, 1)
        self.assertIn("arrayIndexOutOfBounds", said)


if __name__ == "__main__":
    unittest.main()
