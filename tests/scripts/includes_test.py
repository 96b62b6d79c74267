#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests tests/checks/includes.py on trees of a few files."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "checks"))
import includes

TABLE = "| room | includes from |\n|---|---|\n| `low/` | |\n| `high/` | `low/` |\n"


class Includes(unittest.TestCase):
    def faults(self, files, table=TABLE):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in {"docs/design.md": table, **files}.items():
                (root / name).parent.mkdir(exist_ok=True)
                (root / name).write_text(text, encoding="utf-8")
            return includes.faults(root.resolve())

    def test_what_the_table_says_is_well(self):
        self.assertEqual(self.faults({"low/a.h": "", "high/b.c": '#include "low/a.h"\n'}), [])

    def test_an_arrow_that_is_not_in_the_table(self):
        found = self.faults({"low/a.h": '#include "high/b.h"\n', "high/b.h": "",
                             "high/c.c": '#include "low/a.h"\n'})
        self.assertEqual(len(found), 1)
        self.assertIn("low/a.h includes high/b.h", found[0])

    def test_an_arrow_that_nobody_needs(self):
        self.assertEqual(len(self.faults({"low/a.h": "", "high/b.h": ""})), 1)

    def test_a_circle_of_headers_and_sources(self):
        found = self.faults({"low/a.h": "", "low/a.c": '#include "b.h"\n', "low/b.h": "",
                             "low/b.c": '#include "a.h"\n', "high/c.c": '#include "low/a.h"\n'})
        self.assertEqual(found, ["a circle of includes: low/a -> low/b -> low/a"])

    def test_a_question_for_the_version_of_qemu(self):
        arrows = {"low/a.h": "", "high/b.c": '#include "low/a.h"\n'}
        ask = "#if QEMU_VERSION_MINOR == 2\n#endif\n"
        self.assertEqual(self.faults({**arrows, "hw/compat.h": ask}), [])
        found = self.faults({**arrows, "hw/device.c": ask})
        self.assertEqual(found, ["hw/device.c asks for QEMU's version, which only hw/compat.h may"])

    def test_a_document_without_the_table(self):
        self.assertEqual(len(self.faults({}, table="")), 1)


if __name__ == "__main__":
    unittest.main()
