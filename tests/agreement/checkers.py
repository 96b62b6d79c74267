#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Foreign tools read the tables: ACPI's own iasl the VIOT, dtc the device tree."""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "guest"))
import fetch  # pylint: disable=wrong-import-position
from agreement import machine_of  # noqa: E402
from guests import OnTransport, Wrong, acpi_tables, require, viot_claims  # noqa: E402
from qtest import MODERN, Qemu, QemuError  # noqa: E402

SEEDS = range(6)


def iasl(folder):
    """Debian 13's, which knows the table, with its own C library."""
    tools, library = (fetch.fetch(p)[2] for p in ("acpica-tools", "libc6"))
    libraries = library / "usr/lib/x86_64-linux-gnu"
    return [libraries / "ld-linux-x86-64.so.2", "--library-path", libraries,
            tools / "usr/bin/iasl", "-p", folder / "viot"]


def run(command):
    return subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, timeout=60)


def check_viot(program, arch, seed, folder):
    """What iasl takes apart, it also puts together again, byte for byte."""
    with Qemu(program, arch, machine_of(arch, seed).options("off")) as qemu:
        table, = acpi_tables(qemu, b"VIOT")
        claims = list(viot_claims(qemu))
    binary = folder / "viot.dat"
    binary.write_bytes(table)
    tool = iasl(folder)
    done = run([*tool, "-d", binary])
    require(done.returncode == 0, f"iasl does not take the table: {done.stdout}")
    text = (folder / "viot.dsl").read_text()
    endpoints = sum(isinstance(claim, OnTransport) for claim in claims)
    require(text.count("[MMIO Endpoint]") == endpoints, f"iasl finds other endpoints:\n{text}")
    idle = text.count("PCI Segment start : FFFF")
    require(text.count("[PCI Range]") == len(claims) - endpoints + idle,
            f"iasl finds other ranges:\n{text}")
    require("nvalid" not in text and "nknown" not in text, f"iasl misses something:\n{text}")
    done = run([*tool, folder / "viot.dsl"])
    require(done.returncode == 0 and "0 Warnings, 0 Remarks" in done.stdout.replace(
        "0 Errors, ", ""), f"iasl complains: {done.stdout}")
    # The last 8 bytes of the header name the compiler.
    again = (folder / "viot.aml").read_bytes()
    require(again[36:] == table[36:], "iasl makes another table of it")


def tree_warnings(program, options, folder):
    blob = folder / "tree.dtb"
    done = run([program, "-machine", f"virt,gic-version=3,dumpdtb={blob}", "-cpu", "cortex-a57",
                "-nodefaults", "-display", "none", "-m", "128", *MODERN, *options])
    require(blob.exists(), f"QEMU writes no tree: {done.stdout}")
    done = run(["dtc", "-I", "dtb", "-O", "dts", "-o", folder / "tree.dts", blob])
    require(done.returncode == 0, f"dtc does not take the tree: {done.stdout}")
    # From the source, so that all of its checks run; but it knows phandles as numbers only,
    # so that those are checked in the blob.
    said = [line for form, file in (("dts", folder / "tree.dts"), ("dtb", blob))
            for line in run(["dtc", "-I", form, "-O", "dtb", "-o", "/dev/null",
                             file]).stdout.splitlines()
            if form == "dtb" or "is not a phandle reference" not in line]
    blob.unlink()
    return sorted(line.partition(": Warning ")[2] for line in said)


def check_tree(program, arch, seed, folder):
    options = machine_of(arch, seed).options("off")
    plain = tree_warnings(program, [], folder)
    ours = [w for w in tree_warnings(program, options, folder) if w not in plain]
    require(not ours, f"dtc warns: {ours}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--x86-64", metavar="QEMU", required=True, help="qemu-system-x86_64")
    parser.add_argument("--aarch64", metavar="QEMU", required=True, help="qemu-system-aarch64")
    o = parser.parse_args()
    cases = ([(f"iasl-{arch}-{seed}", check_viot, program, arch, seed)
              for arch, program in (("x86_64", o.x86_64), ("aarch64", o.aarch64),
                                    ("microvm-pcie", o.x86_64), ("virt-mmio", o.aarch64))
              for seed in SEEDS] +
             [(f"dtc-{arch}-{seed}", check_tree, o.aarch64, arch, seed)
              for arch in ("aarch64", "virt-mmio") for seed in SEEDS])
    print(f"1..{len(cases)}")
    failed = 0
    for n, (name, check, *args) in enumerate(cases, 1):
        complaint = None
        try:
            with tempfile.TemporaryDirectory(prefix="viommu-checkers.") as folder:
                check(*args, Path(folder))
        except (Wrong, QemuError, fetch.FetchError, OSError, subprocess.SubprocessError) as err:
            complaint = str(err)
            failed += 1
        print(f"{'not ok' if complaint else 'ok'} {n} MOD-11/{name}", flush=True)
        if complaint:
            print(f"{name}: {complaint}", file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
