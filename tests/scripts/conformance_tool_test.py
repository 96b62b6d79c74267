#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""tests/qtest/conformance.py on a test program that says what it is told to."""

import contextlib
import importlib.util
import io
import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

SCRIPT = Path(__file__).resolve().parents[1] / "qtest/conformance.py"

REQUIREMENTS = """# Requirements

## Section

| id | requirement |
|---|---|
| W1 | One. |
| W2 | Two. |
"""

# Lists the cases, or answers as GLib's test programs do in the form TAP.
PROGRAM = """#!/usr/bin/env python3
import sys
answers = {answers!r}
if "-l" in sys.argv:
    print("\\n".join({prefix!r} + case for case in answers))
else:
    out, err = answers[sys.argv[-1]]
    print(out.replace("CASE", sys.argv[-1]))
    sys.stderr.write(err)
"""
PASS = ("ok 1 CASE\n1..1", "")
SKIP = ("ok 1 CASE # SKIP this machine is so fast\n1..1", "")
FAIL = ("not ok 1 CASE\n1..1", "ERROR:test.c:1: assertion failed\n")
HANG = ("# verdict: TIMEOUT\nnot ok 1 CASE", "")
CRASH = ("not ok 1 CASE", "QEMU death from signal 6\n")
# Not what GLib writes for a test that was skipped.
LOOKS_SKIPPED = ("not ok 1 CASE # SKIP this machine is so fast\n1..1", "")


class ConformanceTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = Path(folder.name)
        (self.top / "requirements.md").write_text(REQUIREMENTS)
        self.document = self.top / "conformance.md"
        spec = importlib.util.spec_from_file_location("conformance", SCRIPT)
        self.tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.tool)
        self.tool.REQUIREMENTS = self.top / "requirements.md"
        self.tool.DOCUMENT = self.document
        self.tool.NOTES = {}
        self.tool.UNIT_TESTS = self.tool.AGREEMENT_TESTS = self.top

    def run_tool(self, answers, *options, prefix=""):
        """Returns (exit code or sentence, output, lines of errors) for {case: answer}.

        The program lists its cases with this prefix.
        """
        program = self.top / "qtest-fake"
        program.write_text(PROGRAM.format(answers=answers, prefix=prefix))
        program.chmod(0o755)
        out, err = io.StringIO(), io.StringIO()
        with mock.patch.object(sys, "argv", ["conformance.py", *options, str(program)]), \
                mock.patch.dict(os.environ, VIOMMU_TEST_QEMU="qemu"), \
                contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = self.tool.main()
            except SystemExit as end:
                code = end.code
        return code, out.getvalue(), err.getvalue().splitlines()

    def row(self, text, id):
        return next(line for line in text.splitlines() if line.startswith(f"| {id} |"))

    def test_cases_are_listed_as_older_and_newer_glibs_do(self):
        answers = {"/viommu/W1/one": PASS, "/viommu/W2/two": PASS}
        self.assertEqual(self.run_tool(answers, "--summary", prefix="# "),
                         self.run_tool(answers, "--summary"))

    def test_a_program_without_cases_is_an_error(self):
        code, _, _ = self.run_tool({}, "--summary")
        self.assertEqual(code, f"{self.top}/qtest-fake lists no case")

    def test_the_verdict_is_that_of_the_worst_case(self):
        code, out, err = self.run_tool({"/viommu/W1/a": PASS, "/viommu/W1/b": FAIL, "/viommu/W1/c": CRASH,
                                        "/viommu/W2/a": PASS, "/viommu/W2/b": HANG})
        self.assertEqual(code, 1)
        self.assertIn("| CRASH |", self.row(out, "W1"))
        self.assertIn("| HANG |", self.row(out, "W2"))
        self.assertIn("This device: 2 of 5 cases passed.", out)
        self.assertEqual(err[0], "FAIL /viommu/W1/b: ERROR:test.c:1: assertion failed")

    def test_a_skip_is_no_failure(self):
        code, out, err = self.run_tool({"/viommu/W1/a": PASS, "/viommu/W1/b": SKIP, "/viommu/W2/a": PASS})
        self.assertEqual(code, 0)
        self.assertIn("| PASS |", self.row(out, "W1"))
        self.assertIn("This device: 2 of 3 cases passed, 1 skipped.", out)
        self.assertEqual(err, ["SKIP /viommu/W1/b: this machine is so fast"])

    def test_what_was_only_skipped_is_not_shown_as_passed(self):
        code, out, _ = self.run_tool({"/viommu/W1/a": SKIP, "/viommu/W2/a": PASS})
        self.assertEqual(code, 0)
        self.assertIn("| SKIP |", self.row(out, "W1"))

    def test_a_skip_hides_no_failure(self):
        code, out, err = self.run_tool({"/viommu/W1/a": FAIL, "/viommu/W1/b": SKIP, "/viommu/W2/a": LOOKS_SKIPPED})
        self.assertEqual(code, 1)
        self.assertIn("| FAIL |", self.row(out, "W1"))
        self.assertIn("| FAIL |", self.row(out, "W2"))
        self.assertEqual(len(err), 3)

    def test_a_document_stays_current_where_a_case_is_skipped(self):
        cases = {"/viommu/W1/a": PASS, "/viommu/W2/a": PASS}
        self.assertEqual(self.run_tool(cases, "--write")[0], 0)
        self.assertEqual(self.run_tool(cases, "--check")[0], 0)
        code, _, err = self.run_tool(cases | {"/viommu/W1/a": SKIP}, "--check")
        self.assertEqual((code, err), (0, ["SKIP /viommu/W1/a: this machine is so fast"]))
        self.assertIn("stale", self.run_tool(cases | {"/viommu/W1/a": FAIL}, "--check")[0])
        self.assertIn("stale", self.run_tool(cases | {"/viommu/W1/b": SKIP}, "--check")[0])

    def test_no_document_is_written_of_what_did_not_run(self):
        self.document.write_text("as it was")
        code, _, _ = self.run_tool({"/viommu/W1/a": PASS, "/viommu/W2/a": SKIP}, "--write")
        self.assertIn("/viommu/W2/a", code)
        self.assertEqual(self.document.read_text(), "as it was")


if __name__ == "__main__":
    unittest.main()
