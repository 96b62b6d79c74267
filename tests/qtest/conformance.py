#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs every device-level test case by itself and tabulates the verdicts.

Prints docs/conformance.md: a table "id | requirement | this device | QEMU's own"
in the order of docs/requirements.md, and the cases that did not pass to standard
error.  Ends with 1 if one of them failed.

A case that skips itself on this machine shows nothing: --check takes the document's
word for it, and --write writes no document.

QEMU's own device is measured only with --stock; otherwise its column is taken
over from the document as it is.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import textwrap

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE.parent.parent / "docs" / "requirements.md"
ROW = re.compile(r"^\| ([A-Z]+[0-9]*(?:-D?[0-9]+)?) \|(?:[^|]*\|)? ([^|]+) \|$")
NOT_SHOWN = "-"
DOCUMENT = HERE.parent.parent / "docs" / "conformance.md"
UNIT_TESTS = HERE.parent / "unit"
AGREEMENT_TESTS = HERE.parent / "agreement"
# Decided by QEMU's own code for all its devices; the cases show how.
CORE = {
    "GEN-10": "`virtqueue_split_pop()` looks for an indirect table at the head of a chain only",
    "W29": "`address_space_get_iotlb_entry()` hands every entry out with both rights",
}
# Where a verdict says less than it seems to.  What is in backquotes has to be in the tests' sources.
NOTES = {
    "ATT-9": "all endpoints of a device have the same reserved regions, and MAP keeps them free, so no ATTACH can "
             "meet such a mapping; in the unit test `ATT_9_IncompatibleReservedRegionIsUnsupp` endpoints differ, in "
             "`ATT_9_ReservedRegionOfAnEndpointIsMapped` the mapping comes out of a migration stream",
    "W20": "the case `W20/detached-while-translating` holds one moment open that ends QEMU's own device; all others "
           "are the business of the unit test `W20_EveryTranslationIsOneConsistentAnswer`, which the suite `sanitize` "
           "also runs under ThreadSanitizer",
    "W22": "a lock that is not taken cannot be seen from outside: Clang checks at compile time who holds which, the "
           "unit test `W20_EveryTranslationIsOneConsistentAnswer` translates while requests change everything, and "
           "in `W22_W24_UnmapOfEverything` and those beside it what a request takes away is freed later, bit by bit",
    "W25": "the listeners that can fail are those of assigned host devices, which this device refuses for now, so no "
           "test shows it; vhost back ends, whose listeners report none, are told of every change in "
           "`DET-4/unmap-is-told`, `DET-4/move-is-told`, `DET-4/bypass-switches-are-told` and `INI-D1/reset-is-told`",
    "W27": "every host device is refused before anything is stored of it, and it takes one to see that; the test "
           "seam-modules does with a stand-in that registers for mappings as VFIO does",
    "W28": "what a start that has ended leaves behind cannot be seen; QEMU goes on in `W28/no-hotplug`, "
           "`W28/only-iommu-that-is-unrealized` and `W28/device-that-fails-behind-an-attached-alias`",
}
HEAD = """<!-- SPDX-License-Identifier: GPL-2.0-or-later -->
<!-- Written by tests/qtest/conformance.py; `meson compile conformance` writes it anew. -->
# Conformance

Each row is one requirement of [requirements.md](requirements.md). Its verdict is the worst of its test cases, each of
which runs against a QEMU process of its own, with real virtqueues and, where the rule is about DMA, real DMA. "unit"
means that no device-level case can show it and unit tests of the engine with the id in their names do; "agreement"
that the tests in [tests/agreement](../tests/agreement) do; "-" that it is shown by none. The last column is the same
suite run on an unmodified QEMU 10.0 with the virtio-iommu that is built into it, but for the cases that need
virtio-mmio, several IOMMUs or the topology array, which that one does not have.
"""
# Of something that the QEMU to be measured does not have.
ABSENT = re.compile(r"'(?:virtio-iommu-mmio|viommu-listener)' is not a valid device model name|"
                    r"Property 'virtio-iommu[\w-]*\.(?:root-bus|topology|linger)' not found")
# The bench waits for a QEMU that has not come up.
NOT_STARTED = re.compile(r"^qemu-system-[^\n]*(?:not found|not a valid device model name)$", re.MULTILINE)
# Worse verdicts come first; that nothing was shown counts where nothing else is.
VERDICTS = ("CRASH", "HANG", "FAIL", "PASS", "SKIP")
GOOD = ("PASS", "SKIP")


def read_requirements(path):
    """Returns a list of (section, [(id, requirement)])."""
    sections = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            sections.append((line[3:], []))
        elif match := ROW.match(line):
            sections[-1][1].append((match[1], match[2]))
    return [section for section in sections if section[1]]


def list_cases(program, env):
    out = subprocess.run([program, "-l"], env=env, check=True, text=True,
                         stdout=subprocess.PIPE).stdout
    # Newer GLibs list them as comments of TAP.
    cases = re.findall(r"^(?:# )?(/viommu/\S+)$", out, re.MULTILINE)
    if not cases:
        sys.exit(f"{program} lists no case")
    return cases


def run_case(program, case, env):
    run = subprocess.run([program, "--tap", "-k", "-p", case], env=env, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if skip := re.search(rf"^ok 1 {re.escape(case)} # SKIP\b *(.*)$", run.stdout, re.MULTILINE):
        return "SKIP", skip[1]
    if re.search(rf"^ok 1 {re.escape(case)}$", run.stdout, re.MULTILINE):
        verdict = "PASS"
    elif "verdict: TIMEOUT" in run.stdout and not NOT_STARTED.search(run.stderr):
        verdict = "HANG"
    elif re.search(r"QEMU death from signal|dumped core", run.stderr):
        verdict = "CRASH"
    else:
        verdict = "FAIL"
    return verdict, run.stderr


def reason(verdict, stderr):
    """The line of the case's output that says most about a failure; why it was skipped."""
    if verdict == "SKIP":
        return stderr
    for pattern in (r"QEMU death from signal.*", r"^ERROR:.*", r"FATAL-ERROR: .*",
                    r"^qemu-system.*"):
        if match := re.search(pattern, stderr, re.MULTILINE):
            return match[0]
    return ""


def measure(programs, env, jobs):
    """Returns {case: (verdict, stderr, or why it was skipped)} in the order of the programs.

    Cases that need what this QEMU does not have are left out.
    """
    cases = [(program, case) for program in programs for case in list_cases(program, env)]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = [(case, pool.submit(run_case, program, case, env)) for program, case in cases]
        results = {case: future.result() for case, future in futures}
    return {case: (verdict, stderr) for case, (verdict, stderr) in results.items()
            if verdict in GOOD or not ABSENT.search(stderr)}


def verdicts_by_id(results):
    by_id = {}
    for case, (verdict, _) in results.items():
        by_id.setdefault(case.split("/")[2], set()).add(verdict)
    return {id: next(v for v in VERDICTS if v in seen) for id, seen in by_id.items()}


def unit_ids():
    """The ids in the names of the unit tests, as they are written there."""
    names = set()
    for source in UNIT_TESTS.rglob("*.cc"):
        for match in re.finditer(r"^TEST(?:_F|_P)?\(\w+,\s*(\w+)\)",
                                 source.read_text(encoding="utf-8"), re.MULTILINE):
            names.update(re.findall(r"[A-Z]{1,3}_?D?[0-9]+", match[1]))
    return names


def agreement_ids():
    """The ids in the names of the cases there, as they are written."""
    return {id for source in AGREEMENT_TESTS.rglob("*.py")
            for id in re.findall(r"\b([A-Z]+-D?[0-9]+)/", source.read_text(encoding="utf-8"))}


def shown_elsewhere(id, units, agreement):
    if id.replace("-", "_") in units:
        return "unit"
    return "agreement" if id in agreement else NOT_SHOWN


def check_notes(known):
    """Ends the program if a note is about an id or a test that is gone."""
    tests = HERE.parent
    text = "".join(source.read_text(encoding="utf-8") for pattern in ("qtest/*.c", "unit/*/*.cc")
                   for source in tests.glob(pattern))
    for id, note in NOTES.items():
        named = re.findall(r"`([^`]+)`", note)
        if gone := [name for name in named if name != "sanitize" and not re.search(
                rf'[" (]{re.escape(name)}[")]', text)]:
            sys.exit(f"the note on {id} names what is gone: {', '.join(gone)}")
        if id not in known:
            sys.exit(f"a note is on an id without a requirement: {id}")


def recorded_stock():
    """The last column of the document, and the sentence about it."""
    column, sentence = {}, ""
    if DOCUMENT.exists():
        for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if len(cells) == 4:
                column[cells[0]] = cells[3]
            elif line.startswith("QEMU's own: "):
                sentence = line
    return column, sentence


def summary(who, results):
    verdicts = [verdict for verdict, _ in results.values()]
    skipped = f", {verdicts.count('SKIP')} skipped" if "SKIP" in verdicts else ""
    return f"{who}: {verdicts.count('PASS')} of {len(results)} cases passed{skipped}."


def as_if_passed(results):
    """What the document says of cases that are skipped here: it is written where all of them run."""
    return {case: ("PASS" if verdict == "SKIP" else verdict, stderr)
            for case, (verdict, stderr) in results.items()}


def refuse_skips(results):
    if skipped := [case for case, (verdict, _) in results.items() if verdict == "SKIP"]:
        sys.exit(f"docs/{DOCUMENT.name} is not written, as it would say nothing of what is skipped here: "
                 f"{', '.join(skipped)}")


def render(sections, ours, own_sentence, stock, stock_sentence):
    units, agreement = unit_ids(), agreement_ids()
    lines = [HEAD, own_sentence, "", stock_sentence, "",
             "\"QEMU\" marks what QEMU's own code decides for all its devices; the cases of that name "
             "show that it does:", ""]
    lines += [f"- {id}: {evidence}" for id, evidence in CORE.items()]
    lines += ["", "What else there is to know of single verdicts:", ""]
    lines += [textwrap.fill(f"- {id}: {note}", 118, subsequent_indent="  ", break_on_hyphens=False)
              for id, note in NOTES.items()]
    for title, rows in sections:
        lines += ["", f"## {title}", "", "| id | requirement | this device | QEMU's own |",
                  "|---|---|---|---|"]
        for id, requirement in rows:
            mine = ours.get(id, shown_elsewhere(id, units, agreement))
            theirs = stock.get(id, NOT_SHOWN)
            if id in CORE:
                mine, theirs = ("QEMU" if v == "PASS" else v for v in (mine, theirs))
            lines.append(f"| {id} | {requirement} | {mine} | {theirs} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", nargs="+", metavar="program",
                        help="the test programs (qtest-*)")
    parser.add_argument("--qemu", help="QEMU to test; default: VIOMMU_TEST_QEMU, "
                        "then QTEST_QEMU_BINARY")
    parser.add_argument("--stock", help="an unmodified QEMU to measure as well")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cases", action="store_true", help="list the verdict of every case")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--write", action="store_true", help=f"write {DOCUMENT.name}")
    output.add_argument("--summary", action="store_true", help="print the counts only")
    output.add_argument("--check", action="store_true", help=f"fail if {DOCUMENT.name} is stale")
    args = parser.parse_args()

    env = dict(os.environ)
    if args.qemu:
        env["VIOMMU_TEST_QEMU"] = args.qemu
    if not {"VIOMMU_TEST_QEMU", "QTEST_QEMU_BINARY"} & env.keys():
        parser.error("no QEMU: give --qemu or set VIOMMU_TEST_QEMU")

    sections = read_requirements(REQUIREMENTS)
    known = {id for _, rows in sections for id, _ in rows}
    check_notes(known)
    results = measure(args.programs, env, args.jobs)
    shown = as_if_passed(results) if args.check else results
    ours = verdicts_by_id(shown)
    if unknown := sorted(ours.keys() - known):
        sys.exit(f"ids without a requirement: {', '.join(unknown)}")

    stock, stock_sentence = recorded_stock()
    if args.stock:
        stock_env = {name: value for name, value in env.items() if name != "QEMU_MODULE_DIR"}
        stock_env["VIOMMU_TEST_QEMU"] = args.stock
        stock_results = measure(args.programs, stock_env, args.jobs)
        stock = verdicts_by_id(stock_results)
        stock_sentence = summary("QEMU's own", stock_results)
        if args.write:
            refuse_skips(stock_results)

    text = render(sections, ours, summary("This device", shown), stock, stock_sentence)
    if args.write:
        refuse_skips(results)
        DOCUMENT.write_text(text, encoding="utf-8")
    elif args.summary:
        print(summary("This device", results))
    elif not args.check:
        print(text, end="")
    if args.cases:
        for case, (verdict, _) in results.items():
            print(f"{verdict} {case}")

    bad = [case for case, (verdict, _) in results.items() if verdict not in GOOD]
    for case, (verdict, stderr) in results.items():
        if verdict != "PASS":
            print(f"{verdict} {case}: {reason(verdict, stderr)}", file=sys.stderr)
    if args.check and (not DOCUMENT.exists() or DOCUMENT.read_text(encoding="utf-8") != text):
        sys.exit(f"docs/{DOCUMENT.name} is stale: write it anew with `meson compile -C build conformance`")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
