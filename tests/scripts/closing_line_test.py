#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/closing-line against logs in the form that meson writes them."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/closing-line"
GTEST = """<testsuite name="viommu.unit / engine.Attach"><testcase name="a" status="run"/>
<testcase name="b" status="run">{}</testcase><testcase name="c" status="notrun"/></testsuite>"""


class ClosingLineTest(unittest.TestCase):
    def closing(self, tests, suites="", status=0, junit=True):
        """Returns (exit code, last line) for tests given as {name: result}."""
        with tempfile.TemporaryDirectory() as folder:
            logs = Path(folder)
            (logs / "testlog.json").write_text("".join(
                json.dumps({"name": name, "result": result}) + "\n"
                for name, result in tests.items()))
            if junit:
                (logs / "testlog.junit.xml").write_text(f"<testsuites>{suites}</testsuites>")
            done = subprocess.run([sys.executable, SCRIPT, "--status", str(status), folder],
                                  stdout=subprocess.PIPE, text=True, check=False)
        return done.returncode, done.stdout.splitlines()[-1]

    def test_programs_without_cases_count_once(self):
        self.assertEqual(self.closing({"unit / a": "OK", "unit / b": "OK"}),
                         (0, "2 passed, 0 failed"))

    def test_cases_of_a_program_are_counted(self):
        self.assertEqual(self.closing({"unit / engine": "OK"}, GTEST.format("")),
                         (0, "2 passed, 0 failed, 1 skipped"))

    def test_a_failed_case_fails_the_run(self):
        self.assertEqual(
            self.closing({"unit / engine": "FAIL"}, GTEST.format("<failure/>"), status=1),
            (1, "1 passed, 1 failed, 1 skipped"))

    def test_a_crash_after_good_cases_is_a_failure(self):
        self.assertEqual(self.closing({"unit / engine": "ERROR"}, GTEST.format(""), status=1),
                         (1, "2 passed, 1 failed, 1 skipped"))

    def test_a_timeout_is_a_failure_though_its_case_says_nothing(self):
        suite = '<testsuite name="viommu"><testcase name="guest / q35"/></testsuite>'
        self.assertEqual(self.closing({"guest / q35": "TIMEOUT"}, suite, status=1),
                         (1, "0 passed, 1 failed"))

    def test_a_skipped_program_is_shown(self):
        self.assertEqual(self.closing({"unit / a": "OK", "libvirt / b": "SKIP"}),
                         (0, "1 passed, 0 failed, 1 skipped"))

    def test_an_interrupted_run_fails_even_when_nothing_else_did(self):
        self.assertEqual(self.closing({"unit / a": "OK"}, status=130, junit=False),
                         (1, "1 passed, 1 failed"))

    def test_a_run_without_tests_fails(self):
        self.assertEqual(self.closing({}), (1, "0 passed, 1 failed"))


if __name__ == "__main__":
    unittest.main()
