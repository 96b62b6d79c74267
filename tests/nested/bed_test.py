# SPDX-License-Identifier: GPL-2.0-or-later
"""The tools of the bed itself: what goes into the initramfs, and that a verdict can be 'failed'."""
import tempfile
import types
import unittest
from pathlib import Path

import bed
import nested
from bed import GuestError


def names(archive):
    """(name, mode) of each entry of a newc archive."""
    at, found = 0, []
    while True:
        mode, size, length = (int(archive[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in (1, 6, 11))
        name = archive[at + 110:at + 110 + length - 1].decode()
        if name == "TRAILER!!!":
            return found
        found.append((name, mode))
        at = (at + 110 + length + 3) // 4 * 4
        at = (at + size + 3) // 4 * 4


class Initramfs(unittest.TestCase):
    def test_folders_come_before_what_is_in_them(self):
        found = names(bed.archive({"/a/b/c": Path("/bin/sh"), "/a/d": Path(__file__)}))
        self.assertEqual([name for name, _ in found], ["a", "a/b", "a/b/c", "a/d"])
        self.assertEqual([mode >> 12 for _, mode in found], [4, 4, 8, 8])
        self.assertTrue(found[2][1] & 0o100)

    def test_libraries_of_a_program(self):
        found = bed.libraries(["/bin/sh"])
        self.assertTrue(any("libc.so" in path for path in found), found)
        self.assertTrue(any("ld-linux" in path for path in found), found)

    def test_a_module_that_is_missing_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(GuestError, f"{folder} has no module"):
                bed.inner_files("/bin/sh", {"ours": folder}, __file__)


class FakeInner:
    """Pauses at these places and ends well."""

    def __init__(self, *places):
        self.places = list(places)

    def until_pause(self):
        return self.places.pop(0) if self.places else None

    def go_on(self):
        pass

    def finish(self):
        pass


class Verdict(unittest.TestCase):
    EDU, DISK = "0000:00:04.0", "0000:01:00.0"

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.outer = bed.Outer.__new__(bed.Outer)
        self.outer.iommu, self.outer.folder = "intel", Path(self.folder.name)
        self.outer.guest = types.SimpleNamespace(deadline=0)
        self.log("qemu-system-x86_64: something else")

    def tearDown(self):
        self.folder.cleanup()

    def log(self, *lines):
        with open(self.outer.folder / "qemu.log", "a", encoding="ascii") as log:
            log.writelines(line + "\n" for line in lines)

    def fault(self, requester, address):
        self.log(f"vtd_dmar_fault sid {requester:#x} fault 5 addr {address:#x} write 1")

    def follow(self, *places, at=None):
        """The outer IOMMU refuses `at` when the guest is at its first pause."""
        inner = FakeInner(*places)

        def act(_):
            if at:
                self.fault(*at)
            return False
        nested.follow(self.outer, inner, {"edu": self.EDU, "disk": self.DISK}, act)

    def test_a_fault_that_was_announced(self):
        self.follow("edu unmapped 0x50001000", at=(0x20, 0x50001004))

    def test_no_fault_where_none_was_announced(self):
        self.follow("edu mapped")
        with self.assertRaisesRegex(GuestError, "accesses of 0000:00:04.0 were refused"):
            self.follow("edu mapped", at=(0x20, 0x50001000))

    def test_a_fault_elsewhere(self):
        with self.assertRaisesRegex(GuestError, "did not reach"):
            self.follow("edu unmapped 0x50001000", at=(0x20, 0x50002000))

    def test_a_fault_of_another_function(self):
        bed_wait = self.outer.wait_fault
        self.outer.wait_fault = lambda name, address, before: bed_wait(name, address, before, 0.1)
        with self.assertRaisesRegex(GuestError, "no access of 0000:00:04.0 was refused"):
            self.follow("edu unmapped 0x50001000", at=(0x100, 0x50001000))

    def test_the_disk_holds_what_the_guest_says(self):
        before = bytes(1 << 17)
        start = nested.WRITE_SECTOR * nested.SECTOR
        written = b"x" * nested.IO_SIZE
        after = before[:start] + written + before[start + nested.IO_SIZE:]
        lines = [f"data kind=block read=0x1000 crc={nested.zlib.crc32(bytes(4096)):#x}",
                 f"data kind=block written=0x1000 crc={nested.zlib.crc32(written):#x}"]
        nested.check_disk(lines, before, after)
        for wrong in (lines[:1], lines[1:]):
            with self.assertRaises(GuestError):
                nested.check_disk(wrong, before, after)
        with self.assertRaisesRegex(GuestError, "elsewhere"):
            nested.check_disk(lines, before, b"y" + after[1:])


if __name__ == "__main__":
    unittest.main()
