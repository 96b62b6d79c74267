#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs all fuzzers for long and prints a table of what they did and found.

Each engine fuzzer runs for so many executions, then the fuzzer of the device
inside QEMU for so many seconds.  What breaks something is kept; it and its
output are named in the table and the exit status is 1.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
MAX_LEN = {"mapping-set": 256, "migration": 1024, "properties": 512, "request": 1024,
           "session": 1024, "topology": 256}
# Where memory was allocated is seldom asked, and what one input frees is seldom more.
SANITIZER = "malloc_context_size=1:quarantine_size_mb=8"
# The longest first.
TARGETS = ("mapping-set", "session", "request", "topology", "migration", "properties")


def duration(seconds):
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def fuzz(build, target, runs, found):
    """One engine fuzzer; returns a row of the table and whether it is good."""
    begin = time.monotonic()
    log = found / f"{target}.log"
    with tempfile.TemporaryDirectory(prefix="viommu-fuzz-") as name:
        work, seeds = pathlib.Path(name) / "work", pathlib.Path(name) / "seeds"
        work.mkdir()
        seeds.mkdir()
        subprocess.run([HERE / "seeds.py", target, seeds], check=True)
        with open(log, "w", encoding="utf-8") as out:
            status = subprocess.run(
                [build / "tests/fuzz" / f"fuzz-{target}", f"-runs={runs}",
                 f"-max_len={MAX_LEN[target]}", "-len_control=0", "-timeout=60",
                 "-use_counters=0", "-reload=0",
                 "-print_final_stats=1", f"-artifact_prefix={found}/{target}-",
                 work, seeds, HERE / "corpus" / target],
                env={"ASAN_OPTIONS": SANITIZER, **os.environ},
                stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    text = log.read_text(encoding="utf-8", errors="replace")
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", text)
    covered = re.findall(r"cov: (\d+)", text)
    result = "nothing" if status == 0 else f"see {log.name}"
    return (f"| `{target}` | {int(executed[1]) if executed else 0:,} inputs | "
            f"{duration(time.monotonic() - begin)} | {covered[-1] if covered else '-'} | {result} |",
            status == 0)


def fuzz_device(build, qemu, seconds, seed, found):
    begin = time.monotonic()
    log = found / "device.log"
    env = dict(os.environ, QTEST_QEMU_BINARY=str(qemu))
    env.setdefault("QEMU_MODULE_DIR", str(build / "hw"))
    with open(log, "w", encoding="utf-8") as out:
        status = subprocess.run([build / "tests/qtest/fuzz-device", "--seed", str(seed),
                                 "--seconds", str(seconds)], env=env, stdout=out,
                                stderr=subprocess.STDOUT, check=False).returncode
    text = log.read_text(encoding="utf-8", errors="replace")
    last = re.search(r"(\d+) seeds of (\d+) steps", text)
    steps = int(last[1]) * int(last[2]) if last else 0
    result = "nothing" if status == 0 else f"see {log.name}"
    return (f"| `device` | {steps:,} steps | {duration(time.monotonic() - begin)} | - | {result} |",
            status == 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path, help="folder of the build")
    parser.add_argument("--target", choices=TARGETS, action="append",
                        help="only this engine fuzzer; may be repeated")
    parser.add_argument("--runs", type=int, default=10_000_000,
                        help="executions of each engine fuzzer (default: 10 million)")
    parser.add_argument("--device-seconds", type=int, default=3600,
                        help="how long the device is fuzzed inside QEMU (default: an hour)")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000_000,
                        help="the first seed for the device (default: by the clock)")
    parser.add_argument("--qemu", type=pathlib.Path,
                        help="QEMU for the device (default: the one in the build's prefix)")
    parser.add_argument("--found", type=pathlib.Path, default=pathlib.Path("fuzz-found"),
                        help="folder for logs and for what breaks (default: fuzz-found)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()

    build = args.build.resolve()
    qemu = args.qemu or build / "prefix/bin/qemu-system-x86_64"
    args.found.mkdir(parents=True, exist_ok=True)
    found = args.found.resolve()
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(lambda target: fuzz(build, target, args.runs, found),
                             args.target or TARGETS))
    if args.device_seconds:
        rows.append(fuzz_device(build, qemu, args.device_seconds, args.seed, found))

    print("| fuzzer | amount | time | edges covered | found |\n|---|---|---|---|---|")
    for row, _ in rows:
        print(row)
    return 0 if all(good for _, good in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
