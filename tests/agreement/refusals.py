#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Command lines that contradict themselves end the start with one sentence that names who."""
import argparse
import re
import subprocess
import sys

IOMMU = "-device virtio-iommu-pci,bus=pcie.0"
PXB = "-device pxb-pcie,id=pxb,bus=pcie.0,bus_nr=32"
BYPASSED = PXB + ",bypass_iommu=on"
BUS_MACHINE = "-machine default_bus_bypass_iommu=on"

# name, options, what the sentence has to contain
ANYWHERE = [
    ("unknown-root-bus", f"{IOMMU},id=one,root-bus=nowhere", ["one", "nowhere"]),
    ("unknown-among-known", f"{IOMMU},id=one,root-bus=pcie.0:nowhere", ["one", "nowhere"]),
    ("a-bus-that-is-no-root", "-device pcie-root-port,id=port0,bus=pcie.0 "
                              f"{IOMMU},id=one,root-bus=port0", ["one", "port0"]),
    ("empty-name", f"{IOMMU},id=one,root-bus=pcie.0::pcie.0", ["root-bus", "pcie.0::pcie.0"]),
    ("claimed-twice", f"{IOMMU},id=one,root-bus=pxb {PXB} {IOMMU},id=two,root-bus=pxb",
     ["one", "two", "pxb"]),
    ("claimed-twice-by-one", f"{IOMMU},id=one,root-bus=pcie.0:pcie.0", ["one", "pcie.0"]),
    ("claimed-and-bypassed", f"{IOMMU},id=one,root-bus=pxb {BYPASSED}", ["one", "pxb"]),
    ("default-bus-claimed-and-bypassed", f"{BUS_MACHINE} {IOMMU},id=one,root-bus=pcie.0",
     ["one", "pcie.0"]),
    ("two-takers", f"{IOMMU},id=one {IOMMU},id=two", ["one", "two"]),
    ("two-takers-and-a-claim", f"{IOMMU},id=one {PXB} {IOMMU},id=three,root-bus=pxb "
                               f"{IOMMU},id=two", ["one", "two"]),
    ("iommu-behind-a-port", "-device pcie-root-port,id=port0,bus=pcie.0 "
                            "-device virtio-iommu-pci,id=one,bus=port0", ["root bus", "port0"]),
    ("unknown-array", f"{IOMMU},id=one,topology=v1", ["topology", "v1"]),
    ("array-without-a-name", f"{IOMMU},id=one,topology=", ["topology"]),
]
BOTH = ["virtio-iommu", "pcie.0"]
Q35 = [
    ("intel-iommu-before", f"-device intel-iommu,id=other {IOMMU},id=one", BOTH),
    ("intel-iommu-after", f"{IOMMU},id=one -device intel-iommu,id=other", BOTH),
    ("amd-iommu-before", f"-device amd-iommu,id=other {IOMMU},id=one", BOTH),
    ("amd-iommu-after", f"{IOMMU},id=one -device amd-iommu,id=other", BOTH),
]
# With every other window bypassed 14 ranges are left, which do not fit into 256 bytes.
SPLIT = " ".join(f"-device pxb-pcie,bus=pcie.0,bus_nr={8 * n},"
                 f"bypass_iommu={'on' if n % 2 else 'off'}" for n in range(1, 27))
MMIO = "-global virtio-mmio.force-legacy=false -device virtio-iommu-mmio"
VIRT = [
    ("array-v2-too-large", f"{SPLIT} {MMIO},id=one,topology=v2", ["one", "272", "256"]),
    ("array-v3-too-large", f"{MMIO},id=one,topology=v3 {SPLIT}", ["one", "264", "256"]),
    ("smmuv3-of-the-machine", f"-machine iommu=smmuv3 {IOMMU},id=one", BOTH),
]
ARGS = {
    "x86_64": ["-machine", "q35"],
    "aarch64": ["-machine", "virt,gic-version=3", "-cpu", "cortex-a57"],
}


def complaint(program, arch, options, words):
    """What is wrong with how QEMU refuses these options, or None."""
    command = [program, "-accel", "qtest", "-nodefaults", "-no-user-config", "-display", "none",
               "-m", "128", "-qtest-log", "none", *ARGS[arch], *options.split()]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return "QEMU accepts it"
    if done.returncode != 1:
        return f"QEMU ends with status {done.returncode}: {done.stderr}"
    lines = done.stderr.splitlines()
    if len(lines) != 1:
        return f"{len(lines)} lines instead of a sentence: {done.stderr}"
    # The option that QEMU repeats in front of the sentence does not count.
    sentence = re.sub(r"^\S+: (-\S+ \S+: )?", "", lines[0])
    missing = [word for word in words if word not in sentence]
    return f"'{lines[0]}' does not name {', '.join(missing)}" if missing else None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--x86-64", metavar="QEMU", required=True, help="qemu-system-x86_64")
    parser.add_argument("--aarch64", metavar="QEMU", required=True, help="qemu-system-aarch64")
    options = parser.parse_args()
    cases = ([(options.x86_64, "x86_64", *row) for row in ANYWHERE + Q35] +
             [(options.aarch64, "aarch64", *row) for row in ANYWHERE + VIRT])
    print(f"1..{len(cases)}")
    failed = 0
    for n, (program, arch, name, line, words) in enumerate(cases, 1):
        wrong = complaint(program, arch, line, words)
        failed += wrong is not None
        print(f"{'not ok' if wrong else 'ok'} {n} MOD-7/{arch}-{name}", flush=True)
        if wrong:
            print(f"{arch} {name}: {wrong}", file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
