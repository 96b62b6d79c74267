# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system that no program has to be installed for: ISO 9660, with one folder."""
import struct

SECTOR = 2048
FIRST = 16  # sectors before it are whoever's boot code
DATE = bytes([126, 1, 1, 0, 0, 0, 0])


def _both(fmt, value):
    """A number in either order of bytes, one after the other."""
    return struct.pack("<" + fmt, value) + struct.pack(">" + fmt, value)


def _record(name, sector, size, is_folder):
    record = (bytes([33 + len(name) + (len(name) + 1) % 2, 0]) + _both("I", sector) +
              _both("I", size) + DATE + bytes([2 if is_folder else 0, 0, 0]) + _both("H", 1) +
              bytes([len(name)]) + name)
    return record + bytes(len(record) % 2)


def image(files):
    """The first bytes of a disk with these {name: contents}, names in lower case."""
    folder_at = FIRST + 2
    at, records, contents = folder_at + 1, b"", b""
    for name, data in sorted(files.items()):
        records += _record(name.encode() + b";1", at, len(data), False)
        contents += data + bytes(-len(data) % SECTOR)
        at += -(-len(data) // SECTOR)
    folder = (_record(b"\0", folder_at, SECTOR, True) + _record(b"\1", folder_at, SECTOR, True) +
              records)
    if len(folder) > SECTOR:
        raise ValueError("the files are too many for one sector")
    primary = (b"\1CD001\1\0" + b"LINUX".ljust(32) + b"VIOMMU".ljust(32) + bytes(8) +
               _both("I", at) + bytes(32) + _both("H", 1) + _both("H", 1) + _both("H", SECTOR) +
               _both("I", 0) + bytes(16) + _record(b"\0", folder_at, SECTOR, True))
    primary += b" " * (813 - len(primary)) + (b"0" * 16 + b"\0") * 4 + b"\1"
    return (bytes(FIRST * SECTOR) + primary.ljust(SECTOR, b"\0") +
            b"\xffCD001\1".ljust(SECTOR, b"\0") + folder.ljust(SECTOR, b"\0") + contents)
