#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Holds the includes of the sources against the table of rooms in docs/design.md.

The table says for each room "room | includes from": a room that a file includes
from must be there, and each that is there must be needed.  No header may lead back
to itself, nor a C file and the header of its name, which are one unit.  (A C++
class and its parts may know each other, as long as their headers do not.)

Which QEMU there is, only hw/compat.h asks.
"""

import argparse
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([^">]+)[">]', re.MULTILINE)
ROW = re.compile(r"^\| `([\w/]+)/` \|\s*([^|]*?)\s*\|$")
NAME = re.compile(r"`([\w/]+)/`")
SUFFIXES = (".c", ".cc", ".h")
COMPAT = pathlib.Path("hw/compat.h")


def allowed(document):
    """{room: rooms that it includes from} of the table headed "room | includes from"."""
    table, inside = {}, False
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.replace(" ", "") == "|room|includesfrom|":
            inside = True
        elif inside and (match := ROW.match(line)):
            table[match[1]] = set(NAME.findall(match[2]))
        elif inside and not line.startswith("|-"):
            break
    return table


def included(root, path):
    """The project's own files that `path` includes."""
    for name in INCLUDE.findall(path.read_text(encoding="utf-8")):
        for folder in (path.parent, root, root / "include"):
            if (folder / name).is_file():
                yield (folder / name).resolve()
                break


def circle(arrows):
    """A list of units that leads back to its first, None if there is none."""
    done, way = set(), []

    def visit(unit):
        if unit in way:
            return [*way[way.index(unit):], unit]
        if unit in done:
            return None
        way.append(unit)
        for target in sorted(arrows.get(unit, ())):
            if found := visit(target):
                return found
        done.add(way.pop())
        return None

    return next((found for unit in sorted(arrows) if (found := visit(unit))), None)


def faults(root):
    table = allowed(root / "docs" / "design.md")
    if not table:
        return ["docs/design.md has no table \"room | includes from\""]
    wrong, used, arrows = [], {room: set() for room in table}, {}
    for room in table:
        files = [p for p in sorted((root / room).glob("*")) if p.suffix in SUFFIXES]
        if not files:
            wrong.append(f"docs/design.md: the room {room}/ has no sources")
        for path in files:
            unit = str(path.relative_to(root).with_suffix(""))
            for target in included(root, path):
                other = str(target.relative_to(root).parent)
                to = str(target.relative_to(root).with_suffix(""))
                if to != unit and path.suffix != ".cc":
                    arrows.setdefault(unit, set()).add(to)
                if other == room:
                    continue
                used[room].add(other)
                if other not in table[room]:
                    wrong.append(f"{path.relative_to(root)} includes {target.relative_to(root)}, "
                                 f"but {room}/ does not include from {other}/")
    for room, rooms in table.items():
        wrong += [f"docs/design.md: {room}/ needs nothing of {other}/"
                  for other in sorted(rooms - used[room])]
    wrong += [f"{path.relative_to(root)} asks for QEMU's version, which only {COMPAT} may"
              for path in sorted((root / "hw").rglob("*.[ch]"))
              if "QEMU_VERSION" in path.read_text(encoding="utf-8") and
              path.relative_to(root) != COMPAT]
    if way := circle(arrows):
        wrong.append("a circle of includes: " + " -> ".join(way))
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, default=ROOT)
    wrong = faults(parser.parse_args().root.resolve())
    print("\n".join(wrong) or "all arrows are in the table")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
