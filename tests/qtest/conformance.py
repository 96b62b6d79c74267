#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs every device-level test case by itself and tabulates the verdicts.

Writes a Markdown table "id | requirement | verdict" to standard output, in the
order of docs/requirements.md, and the cases that did not pass to standard
error.  Ends with 1 if there were any.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE.parent.parent / "docs" / "requirements.md"
ROW = re.compile(r"^\| ([A-Z]+[0-9]*(?:-D?[0-9]+)?) \|(?:[^|]*\|)? ([^|]+) \|$")
NOT_SHOWN = "no test at this level"
# Worse verdicts come first.
VERDICTS = ("CRASH", "HANG", "FAIL", "PASS")


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
    return [line for line in out.splitlines() if line.startswith("/viommu/")]


def run_case(program, case, env):
    run = subprocess.run([program, "--tap", "-k", "-p", case], env=env, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if re.search(rf"^ok 1 {re.escape(case)}$", run.stdout, re.MULTILINE):
        verdict = "PASS"
    elif "verdict: TIMEOUT" in run.stdout:
        verdict = "HANG"
    elif re.search(r"QEMU death from signal|dumped core", run.stderr):
        verdict = "CRASH"
    else:
        verdict = "FAIL"
    return verdict, run.stderr


def reason(stderr):
    """The line of the case's output that says most about a failure."""
    for pattern in (r"QEMU death from signal.*", r"^ERROR:.*", r"FATAL-ERROR: .*",
                    r"^qemu-system.*"):
        if match := re.search(pattern, stderr, re.MULTILINE):
            return match[0]
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", nargs="+", metavar="program",
                        help="the test programs (qtest-*)")
    parser.add_argument("--qemu", help="QEMU to test; default: VIOMMU_TEST_QEMU, "
                        "then QTEST_QEMU_BINARY")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cases", action="store_true",
                        help="one row per case instead of per id")
    args = parser.parse_args()

    env = dict(os.environ)
    if args.qemu:
        env["VIOMMU_TEST_QEMU"] = args.qemu
    if not {"VIOMMU_TEST_QEMU", "QTEST_QEMU_BINARY"} & env.keys():
        parser.error("no QEMU: give --qemu or set VIOMMU_TEST_QEMU")

    sections = read_requirements(REQUIREMENTS)
    known = {id for _, rows in sections for id, _ in rows}
    cases = [(program, case) for program in args.programs
             for case in list_cases(program, env)]
    results = {}
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        futures = {pool.submit(run_case, program, case, env): case
                   for program, case in cases}
        for future in concurrent.futures.as_completed(futures):
            results[futures[future]] = future.result()

    by_id = {}
    for _, case in cases:
        by_id.setdefault(case.split("/")[2], []).append(case)
    if unknown := sorted(by_id.keys() - known):
        sys.exit(f"ids without a requirement: {', '.join(unknown)}")

    for title, rows in sections:
        print(f"\n## {title}\n\n| id | requirement | verdict |\n|---|---|---|")
        for id, requirement in rows:
            verdicts = {results[case][0] for case in by_id.get(id, [])}
            worst = next((v for v in VERDICTS if v in verdicts), NOT_SHOWN)
            print(f"| {id} | {requirement} | {worst} |")
            if args.cases:
                for case in by_id.get(id, []):
                    print(f"| | {case.split('/')[3]} | {results[case][0]} |")

    bad = [case for _, case in cases if results[case][0] != "PASS"]
    print(f"\n{len(cases) - len(bad)} of {len(cases)} cases passed.")
    for case in bad:
        verdict, stderr = results[case]
        print(f"{verdict} {case}: {reason(stderr)}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
