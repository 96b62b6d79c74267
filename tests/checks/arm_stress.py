#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiles the stress test of the engine for Arm and runs it in QEMU's user mode.

That shows that the C++ runs there with threads beside each other.  It shows nothing of Arm's
order of memory, for the processor below is what it is: tests/interleave looks at that.
"""
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPILER = "aarch64-linux-gnu-g++"
EMULATORS = ("qemu-aarch64", "qemu-aarch64-static")
GTEST = Path("/usr/src/googletest/googletest")
ROOMS = ("base", "mapping", "engine", "topology")
SKIPPED = 77  # to meson
LIMIT = 600  # seconds for the test itself


def skip(sentence):
    print(sentence)
    sys.exit(SKIPPED)


def run(*words):
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    if done.returncode:
        sys.exit(f"{words[0]} failed:\n{done.stdout[-4000:]}")


def main():
    if not shutil.which(COMPILER):
        skip(f"{COMPILER} is not installed (Debian: g++-aarch64-linux-gnu)")
    emulator = next((path for name in EMULATORS if (path := shutil.which(name))), None)
    if not emulator:
        skip(f"{EMULATORS[0]} is not installed (Debian: qemu-user)")
    if not (GTEST / "src/gtest-all.cc").is_file():
        skip(f"{GTEST} is not there (Debian: googletest)")
    sources = [path for room in ROOMS for path in sorted((ROOT / room).glob("*.cc"))]
    sources += [ROOT / "tests/unit/engine" / name for name in ("machine.cc", "stress_test.cc")]
    sources += [GTEST / "src" / name for name in ("gtest-all.cc", "gtest_main.cc")]
    with tempfile.TemporaryDirectory(prefix="viommu-arm-") as name:
        program = Path(name) / "stress"
        objects = [Path(name) / f"{i}.o" for i in range(len(sources))]

        def build(source, to):
            run(COMPILER, "-std=c++20", "-O2", f"-I{ROOT}", f"-I{ROOT}/include", f"-I{GTEST}",
                f"-I{GTEST}/include", "-c", source, "-o", to)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(build, sources, objects))
        # Without libraries that would have to be found.
        run(COMPILER, "-static", *objects, "-o", program)
        done = subprocess.run([emulator, program], timeout=LIMIT, check=False)
    sys.exit(1 if done.returncode else 0)


if __name__ == "__main__":
    main()
