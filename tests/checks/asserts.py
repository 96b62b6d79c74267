#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares what can end the process with the table in docs/security.md.

Every place in the sources that ends QEMU on purpose has a row "file | code | why
nobody reaches it" there.  A place without a row, and a row without a place, are
errors.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs" / "security.md"
ROOMS = ("base", "mapping", "engine", "topology", "acpi", "fdt", "hw", "include")
ENDS = re.compile(r"\b(?:assert|abort|_?exit|g_assert\w*|g_error|g_abort|g_return\w*_if_fail|"
                  r"error_abort|error_fatal|hw_error|quick_exit|terminate|"
                  r"__builtin_(?:trap|unreachable)|qemu_build_not_reached\w*)\b\s*[(,;)]")
COMMENT = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
ROW = re.compile(r"^\| `([^`|]+)` \| `([^`]+)` \| (.+) \|$")


def blank(match):
    """A comment becomes nothing, but for its lines."""
    return match[0] if match[0][0] == '"' else "\n" * match[0].count("\n")


def places():
    """Every (file, line of code), in the order of the sources."""
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix not in (".c", ".cc", ".h"):
                continue
            code = COMMENT.sub(blank, path.read_text(encoding="utf-8"))
            found += [(str(path.relative_to(ROOT)), " ".join(line.split()))
                      for line in code.splitlines() if ENDS.search(line)]
    return found


def rows():
    return [(match[1], match[2]) for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
            if (match := ROW.match(line))]


def main():
    found, listed = places(), rows()
    wrong = 0
    for place in sorted(set(found) | set(listed)):
        if found.count(place) > listed.count(place):
            print(f"{place[0]}: not in docs/{DOCUMENT.name}: {place[1]}")
            wrong += 1
        elif found.count(place) < listed.count(place):
            print(f"docs/{DOCUMENT.name}: no longer in {place[0]}: {place[1]}")
            wrong += 1
    if not found:
        sys.exit("no place was found at all: the pattern is wrong")
    print(f"{len(found)} places, {wrong} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
