#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""tools/viommu-timeline with a trace of the bare guest's scenario `io` on q35, and with others."""
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOL = HERE.parents[1] / "tools" / "viommu-timeline"
TRACE = HERE / "timeline.trace"
SVG = "{http://www.w3.org/2000/svg}"


def timeline(*words):
    """(status, what it says, errors)."""
    done = subprocess.run([sys.executable, TOOL, *map(str, words)], capture_output=True, text=True,
                          timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


class Timeline(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.file = Path(self.folder.name) / "trace"

    def draws(self, *words):
        status, said, errors = timeline(*words)
        self.assertEqual((status, errors), (0, ""))
        return ElementTree.fromstring(said)

    def fails(self, sentence, *words):
        status, said, errors = timeline(*words)
        self.assertEqual((status, said), (1, ""))
        self.assertRegex(errors, f"^viommu-timeline: {sentence}")
        self.assertEqual(errors.count("\n"), 1)

    @staticmethod
    def lanes(root):
        """{name: what the lane counts}."""
        return {texts[0].text: texts[1].text
                for texts in ([*group.iter(f"{SVG}text")] for group in root.iter(f"{SVG}g")
                              if group.get("class") == "lane")}

    @staticmethod
    def titles(root):
        return [title.text for title in root.iter(f"{SVG}title")]

    def test_a_real_trace(self):
        text = TRACE.read_text(encoding="utf-8")
        root = self.draws(TRACE)
        faults = text.count(":viommu_fault pcie.0:03.0 ")
        reached = len(re.findall(r":viommu_translate pcie\.0:03\.0 .* rights=[123]\n", text))
        self.assertGreater(min(faults, reached), 10)
        self.assertEqual(self.lanes(root), {
            "ATTACH": "1 requests", "PROBE": "1 requests", "UNMAP": "1 requests",
            "MAP": f"{text.count(':viommu_map ')} requests",
            "pcie.0:03.0": f"{faults + reached} accesses, {faults} faults"})
        self.assertTrue(any("iova=0x600000000" in title for title in self.titles(root)))
        self.assertTrue(any(title.startswith("status 0x0f at ") for title in self.titles(root)))

    def test_nothing_leaves_the_picture_and_no_labels_overlap(self):
        root = self.draws(TRACE)
        width, height = float(root.get("width")), float(root.get("height"))
        labels = []
        for text in root.iter(f"{SVG}text"):
            x, y = float(text.get("x")), float(text.get("y"))
            size = float(text.get("font-size", "12"))
            if text.get("text-anchor") is None:
                self.assertLessEqual(x + len(text.text) * size * 0.6, width, text.text)
            self.assertTrue(0 <= x and size <= y <= height, text.text)
            if text.get("class") == "label":
                labels.append((y, x, x + len(text.text) * size * 0.6, text.text))
        self.assertGreater(len(labels), 2)
        for i, (y, left, right, text) in enumerate(labels):
            for y2, left2, right2, text2 in labels[i + 1:]:
                self.assertTrue(y != y2 or right <= left2 or right2 <= left, f"{text}, {text2}")
        for rect in root.iter(f"{SVG}rect"):
            if rect.get("x"):
                x, y, w, h = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
                self.assertTrue(x >= 0 and y >= 0 and x + w <= width and y + h <= height)

    def test_refused_requests_say_why(self):
        self.file.write_text(TRACE.read_text(encoding="utf-8") +
                             "1234@1796126943.170000:viommu_map domain=1 iova=0x1-0x2 phys=0x0 "
                             "flags=0x3: RANGE\n"
                             "1234@1796126943.170001:viommu_unknown type=0, 8 bytes: unanswered\n",
                             encoding="utf-8")
        root = self.draws(self.file)
        self.assertRegex(self.lanes(root)["MAP"], r"^\d+ requests, 1 refused$")
        self.assertEqual(self.lanes(root)["UNKNOWN"], "1 requests, 1 refused")
        self.assertTrue(any(title.endswith("1 refused: RANGE") for title in self.titles(root)))

    def test_without_times_and_among_other_lines(self):
        lines = [line.split(":", 1)[1] for line in TRACE.read_text(encoding="utf-8").splitlines()]
        self.file.write_text("qemu-system-x86_64: warning: something else\n" +
                             "\n".join(lines) + "\nkvm_something 1\n", encoding="utf-8")
        root = self.draws(self.file)
        self.assertEqual(self.lanes(root), self.lanes(self.draws(TRACE)))
        self.assertTrue(any("in their order, without times" in text.text
                            for text in root.iter(f"{SVG}text")))

    def test_a_part_of_it(self):
        root = self.draws(TRACE, "--from", "0", "--to", "0.05")
        self.assertEqual(self.lanes(root), {})
        root = self.draws(TRACE, "--from", "0.05")
        self.assertEqual(set(self.lanes(root)), set(self.lanes(self.draws(TRACE))))
        self.fails("between 9 and 10 s nothing happens: the trace is 0.", TRACE, "--from", "9",
                   "--to", "10")
        self.fails("--to 1 lies before --from 2", TRACE, "--from", "2", "--to", "1")

    def test_a_large_trace_makes_no_large_picture(self):
        with open(self.file, "w", encoding="utf-8") as file:
            for i in range(100000):
                file.write(f"1@{i / 1000:.6f}:viommu_translate pcie.0:03.0 iova=0x1000 mask=0xfff "
                           "phys=0x5000 rights=3\n")
                file.write(f"1@{i / 1000:.6f}:viommu_switch pcie.0:03.0 translating={i % 2}\n")
        output = Path(self.folder.name) / "out.svg"
        self.assertEqual(timeline(self.file, "-o", output), (0, "", ""))
        self.assertLess(output.stat().st_size, 400000)
        self.assertEqual(self.lanes(ElementTree.parse(output).getroot()),
                         {"pcie.0:03.0": "100000 accesses"})

    def test_errors(self):
        self.fails("/nowhere/trace: No such file", "/nowhere/trace")
        self.file.write_text("nothing of interest\n", encoding="utf-8")
        self.fails(".* has no events of a virtio-iommu: trace with -trace 'viommu_", self.file)
        self.file.write_bytes(b"\xff\x00\n" * 10)
        self.fails(".* has no events of a virtio-iommu", self.file)
        self.fails("/nowhere/out.svg: No such file", TRACE, "-o", "/nowhere/out.svg")


if __name__ == "__main__":
    unittest.main()
