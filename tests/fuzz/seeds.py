#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Write inputs to start a fuzz target from, where mutation alone takes long to get to.

usage: seeds.py TARGET FOLDER
"""

import random
import struct
import sys
from pathlib import Path

# Everything offered, 4 KiB granule, whole ranges, no bypass, wide quotas, no regions.
SETTINGS = bytes([0, 0, 0, 0, 0, 0, 0, 0])
BOOT_BYPASS = bytes([0, 0, 0, 0, 1, 0, 0, 0])
MSI_REGION = bytes([0, 0, 0, 0, 0, 0, 0, 1, 0])
PAGE = 0x1000


def attach(domain, endpoint, flags=0):
    return struct.pack("<IIIII", 1, domain, endpoint, flags, 0)


def detach(domain, endpoint):
    return struct.pack("<IIIQ", 2, domain, endpoint, 0)


def map_pages(domain, first, count, phys, flags=3):
    return struct.pack("<IIQQQI", 3, domain, first * PAGE, (first + count) * PAGE - 1, phys, flags)


def unmap_pages(domain, first, count):
    return struct.pack("<IIQQI", 4, domain, first * PAGE, (first + count) * PAGE - 1, 0)


def probe(endpoint):
    return struct.pack("<II64x", 5, endpoint)


def requests():
    sessions = [
        [attach(1, 0x30), map_pages(1, 0, 1, 0), map_pages(1, 1, 4, 0x7000, 1),
         unmap_pages(1, 0, 9), detach(1, 0x30)],
        [attach(1, 0x30), attach(1, 0x38), map_pages(1, 5, 1, 0), map_pages(1, 16, 8, 0x100000),
         unmap_pages(1, 17, 1), attach(2, 0x38), detach(1, 0x38), detach(2, 0x38)],
        [attach(1, 0x30, 1), map_pages(1, 0, 1, 0), unmap_pages(1, 0, 1), attach(1, 0x39, 1),
         attach(1, 0x38), detach(1, 0x30), detach(1, 0x39)],
        [attach(7, 0xffff0005), map_pages(7, 5, 1, 0), attach(7, 0x38),
         map_pages(7, 2**52 - 1, 1, 0, 7), probe(0x38), probe(0x10)],
    ]
    for settings in (SETTINGS, BOOT_BYPASS, MSI_REGION):
        for session in sessions:
            data = settings + bytes([0, 0])
            for request in session:
                # PROBE: the whole area, and one byte too few.
                for writable in (516, 515) if request[0] == 5 else (4,):
                    data += bytes([len(request)]) + struct.pack("<H", writable) + request
            yield data


def mapping(first, count, phys, flags):
    return struct.pack(">BQQQI", 1, first * PAGE, (first + count) * PAGE - 1, phys, flags)


def domain(number, mappings, endpoints, bypass):
    data = struct.pack(">BQII", 1, number, number, len(mappings)) + b"".join(mappings) + b"\0"
    for endpoint in endpoints:
        data += struct.pack(">BI", 1, endpoint)
    return data + bytes([0, bypass])


def streams():
    one = mapping(2, 4, 0x9000, 3)
    two = mapping(2**20, 1, 0x100000, 1)
    states = [
        [],
        [domain(1, [one, two], [0x30], 0)],
        [domain(1, [], [0x30, 1], 1)],
        [domain(1, [one], [1, 0x31], 0), domain(2, [two], [0x30, 0xffff0005], 0)],
        [domain(1, [one], [1], 0), domain(2, [], [0x31], 0)],
        [domain(3, [two], [0x99], 0)],
        [domain(1, [one], [0x30, 0x30], 0)],
    ]
    for settings in (SETTINGS, MSI_REGION, bytes([0x40]) + SETTINGS[1:]):
        for regions in (bytes([0, 0, 0]), bytes([1, 1, 1, 4, 0])):
            for flags in (0, 1, 7):
                for state in states:
                    data = struct.pack(">I", len(state)) + b"".join(state) + b"\0\0"
                    yield settings + regions + bytes([flags]) + data


def anything(sizes):
    """For targets that make something of every byte."""
    chance = random.Random(1)
    for i in range(400):
        yield chance.randbytes(chance.choice(sizes))


def step(number, *details):
    return bytes([number, *details])


def attach_step(domain_index, id_index, flags=0):
    return step(0, domain_index, id_index, flags)


def map_step(domain_index, granule, granules):
    # At `granule`, for reading and writing, to the same address.
    return step(13, granule * 8, granules - 1, domain_index, granule * 8, 3)


def unmap_step(domain_index, granule, granules):
    return step(26, granule * 8, granules - 1, domain_index)


def watched_sessions():
    """Two endpoints, the first with `listening`, in a domain that is changed under them."""
    for listening in range(5):
        steps = [
            step(59, 0, listening), attach_step(0, 0), map_step(0, 1, 1), map_step(0, 2, 2),
            step(35, 0, 8, 1), step(35, 0, 16, 2), unmap_step(0, 0, 8), map_step(0, 5, 4),
            attach_step(0, 1), step(35, 0, 40, 3), attach_step(1, 0), step(35, 0, 40, 1),
            step(61, 1), step(62, 0), step(63), step(50, 1), step(54, 0), step(60), step(55, 0),
        ]
        for settings in (SETTINGS, BOOT_BYPASS, MSI_REGION):
            # The second endpoint has a region of its own, of granules 5 to 8.
            yield settings + bytes([0, 1, 4]) + b"".join(steps)


def sessions():
    yield from watched_sessions()
    chance = random.Random(1)
    for settings in (SETTINGS, BOOT_BYPASS, MSI_REGION):
        for _ in range(150):
            yield settings + bytes([0, 0]) + chance.randbytes(chance.choice([100, 400, 1200]))
    yield from anything([300, 900])


def machines():
    # Two windows of 16 buses: apart, neighbours, sharing their last and first bus, inverted.
    for first in (0x20, 0x10, 0x0F, 0xF8):
        for iommus in ([], [bytes([0, 8, 0])]):
            yield (bytes([len(iommus), 2, 0]) + b"".join(iommus) +
                   bytes([0x00, 0x00, 0x20, first]) + bytes([0, 0, 0, 0]))
    # One IOMMU, one window of 32 buses, all with room; then two functions and one entry.
    machine = bytes([1, 1, 0, 0, 8, 0, 0x08, 0, 0x1f]) + bytes(6)
    for function in (bytes([0, 0, 0x18]), bytes([8, 0, 0x18]), bytes([16, 0, 0x18])):
        for entry in ([0, 0x18, 0], [48, 0x18, 0], [56, 0x18, 0], [16, 0, 0], [48, 8, 0]):
            yield machine + bytes([2, 1]) + function + bytes([1, 0, 0x20]) + bytes(entry)
    yield from anything([40, 90, 200])


def texts():
    numbers = ["0", "1", "0x1000", "0X1FfF", "fee00000", "0xffffffffffffffff",
               "0x10000000000000000", "0000000000000000000001", "", "0x", "-1", "+1", " 1", "1 ", "g"]
    types = ["0", "1", "01", "2", "256", "4294967295", "4294967296", "", "-1", "+0", "0x1", "0:0"]
    regions = [f"{start}:{last}:{kind}" for start in numbers for last in numbers
               for kind in (types if start == "0" and last == "0x1000" else types[:2])]
    several = [",".join(regions[first:first + 5]) for first in range(0, len(regions), 5)]
    names = ["", "pcie.0", "pcie.0:pxb1", "a:b:c:d", ":", "::", "a:", ":a", "a::b", "pxb\n:"]
    entries = ["disk0", "pcie.0/3", "pcie.0/3.0:a:b/1f.7", "a/0x1f.07", "a/20", "a/3.8", "a/", "/3",
               "0a", "a/3.", "a/3.0.0", "a:b/:c", "a/x", "a b", "f" * 150 + "/"]
    layouts = ["off", "v2", "v3", "v1", "V2", "v22", "v"]
    long = ["f" * 128, "f" * 129, "0" * 300 + ":0:0", "a:" * 150, "a" * 200 + "::"]
    questions = ["endpoints", "endpoints from=0x18 count=32", "domains from=1 count=128",
                 "mappings domain=1", "mappings domain=0x2 from=0xfffffffffffff000 count=1",
                 "translate endpoint=0xffff0005 address=4096", "mappings", "domains domain=1",
                 "domains from=1 from=2", "translate endpoint=1", "endpoints count=33", "domains "]
    faults = ["nothing", "requests type=map status=NOMEM", "requests type=probe status=IOERR count=7",
              "accesses endpoint=0x18", "accesses endpoint=24 count=4294967295 reason=domain",
              "record endpoint=0x18 address=0x1000 reason=unknown access=rw",
              "requests type=map status=OK", "accesses endpoint=x", "nothing now"]
    for number, text in enumerate(regions + several + names + entries + layouts + long +
                                  questions + faults):
        for room in (0, 1, 40, 255):
            # Room for a sentence, for names and regions, then which region the machine has.
            yield bytes([room, number % 8, number % 3]) + text.encode()


SEEDS = {
    "request": requests,
    "migration": streams,
    "session": sessions,
    "mapping-set": lambda: anything([60, 300, 900]),
    "properties": texts,
    "topology": machines,
}


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in SEEDS:
        sys.exit(__doc__.rpartition("\n\n")[2].strip() + "\ntargets: " + ", ".join(SEEDS))
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(SEEDS[sys.argv[1]]()):
        (folder / f"seed-{number:03}").write_bytes(data)


main()
