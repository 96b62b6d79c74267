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
    ("empty-root-bus", f"{IOMMU},id=one,root-bus=", ["root-bus"]),
    ("empty-first-name", f"{IOMMU},id=one,root-bus=:pcie.0", ["root-bus", ":pcie.0"]),
    ("empty-last-name", f"{IOMMU},id=one,root-bus=pcie.0:", ["root-bus", "pcie.0:"]),
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
                            "-device virtio-iommu-pci,id=one,bus=port0",
     ["one", "root bus", "port0"]),
    ("two-takers-without-a-name", f"{IOMMU},addr=3.0 {IOMMU},addr=4.2",
     ["virtio-iommu-pci at 00:03.0", "virtio-iommu-pci at 00:04.2"]),
    ("unknown-array", f"{IOMMU},id=one,topology=v1", ["topology", "v1"]),
    ("array-without-a-name", f"{IOMMU},id=one,topology=", ["topology"]),
]
PORT = "-device pcie-root-port,id=port0,bus=pcie.0,addr=5.0"
FORM = "is neither a name nor ROOT-BUS/SLOT[.FUNCTION] with a hexadecimal slot"
ON_PCIE0 = "on root bus pcie.0 itself, or behind an expander bridge with bypass_iommu=on"


def leaves_out(entries, options=""):
    return f"{IOMMU},id=one,addr=2.0,leave-out={entries} {options}"


# The whole sentence each.
LEAVE_OUT = [
    ("empty", leaves_out(""), "leave-out: the list is empty"),
    ("empty-entry", leaves_out("a::b"), "leave-out: 'a::b' contains an empty entry"),
    ("address-as-lspci-has-it", leaves_out("00:03.0"), f"leave-out: '00' {FORM}"),
    ("address-without-a-bus", leaves_out("3.0"), f"leave-out: '3.0' {FORM}"),
    ("slot-too-large", leaves_out("pcie.0/20"), f"leave-out: 'pcie.0/20' {FORM}"),
    ("function-too-large", leaves_out("pcie.0/3.8"), f"leave-out: 'pcie.0/3.8' {FORM}"),
    ("nobody", leaves_out("disk0"), "IOMMU one leaves out disk0, but no PCI function has that id"),
    ("no-root-bus", leaves_out("port0/0", PORT),
     "IOMMU one leaves out port0/0, but there is no root bus port0"),
    ("behind-a-port", leaves_out("edu0", f"{PORT} -device edu,id=edu0,bus=port0"),
     "IOMMU one leaves out edu0, which is behind a bridge, where the guest chooses the bus number: "
     f"put it {ON_PCIE0}"),
    ("behind-an-expander", leaves_out("edu0", f"{PXB} -device pcie-root-port,id=port0,bus=pxb "
                                              "-device edu,id=edu0,bus=port0"),
     "IOMMU one leaves out edu0, which is behind a bridge, where the guest chooses the bus number: "
     "put it on root bus pcie.0 itself, or leave out pxb with all behind it"),
    ("port", leaves_out("port0", PORT),
     "IOMMU one leaves out port0, a bridge, but the guest chooses the bus numbers behind it: put "
     f"what is to bypass {ON_PCIE0}"),
    ("slot-of-a-port", leaves_out("pcie.0/5", PORT),
     "IOMMU one leaves out pcie.0/5, where bridge port0 is, but the guest chooses the bus numbers "
     f"behind it: put what is to bypass {ON_PCIE0}"),
    ("conventional-bridge", leaves_out("pcie.0/5.0", "-device pci-bridge,bus=pcie.0,addr=5.0,"
                                                     "chassis_nr=1"),
     "IOMMU one leaves out pcie.0/5.0, where bridge pcie.0/5.0 is, but the guest chooses the bus "
     f"numbers behind it: put what is to bypass {ON_PCIE0}"),
    ("itself", leaves_out("one"),
     "IOMMU one leaves out one, but that is an IOMMU, which no IOMMU manages"),
    ("another-iommu", leaves_out("pcie.0/3.0", f"{PXB} {IOMMU},id=two,addr=3.0,root-bus=pxb"),
     "IOMMU one leaves out pcie.0/3.0, but that is an IOMMU, which no IOMMU manages"),
    ("of-another-iommu", leaves_out("pxb", f"{PXB} {IOMMU},id=two,root-bus=pxb"),
     "IOMMU one leaves out pxb, but root bus pxb is managed by IOMMU two"),
    ("of-a-bypassed-bus", leaves_out("pxb/0.0", BYPASSED),
     "IOMMU one leaves out pxb/0.0, but root bus pxb is managed by no IOMMU"),
    ("twice", leaves_out("edu0:pcie.0/3", "-device edu,id=edu0,bus=pcie.0,addr=3.1"),
     "IOMMU one leaves out pcie.0/3 twice: with edu0 before"),
    ("claimed", f"{PXB} {IOMMU},id=one,root-bus=pcie.0:pxb,leave-out=pxb",
     "IOMMU one leaves out pxb, a root bus that it claims"),
    ("two-meanings", leaves_out("pcie.0", "-device edu,id=pcie.0,bus=pcie.0"),
     "IOMMU one leaves out pcie.0, which is the name of a root bus and the id of a device"),
]
ANYWHERE += [(f"leave-out-{name}", options, [sentence]) for name, options, sentence in LEAVE_OUT]
BOTH = ["one", "other", "pcie.0"]
Q35 = [
    ("intel-iommu-before", f"-device intel-iommu,id=other {IOMMU},id=one", BOTH),
    ("intel-iommu-after", f"{IOMMU},id=one -device intel-iommu,id=other", BOTH),
    ("amd-iommu-before", f"-device amd-iommu,id=other {IOMMU},id=one", BOTH),
    ("amd-iommu-after", f"{IOMMU},id=one -device amd-iommu,id=other", BOTH),
    ("amd-iommu-without-a-name", f"-device amd-iommu {IOMMU},addr=3.0",
     ["virtio-iommu-pci at 00:03.0", "amd-iommu", "pcie.0"]),
    ("no-transports-to-claim", f"{IOMMU},id=one,root-bus=main-system-bus",
     ["one", "main-system-bus", "virtio-mmio"]),
]
# With every other window bypassed 14 ranges are left, which do not fit into 256 bytes.
SPLIT = " ".join(f"-device pxb-pcie,bus=pcie.0,bus_nr={8 * n},"
                 f"bypass_iommu={'on' if n % 2 else 'off'}" for n in range(1, 27))
MODERN = "-global virtio-mmio.force-legacy=false"
ON_MMIO = "-device virtio-iommu-mmio"
MMIO = f"{MODERN} {ON_MMIO}"


def entropy(first, count):
    """Endpoints on transports."""
    return " ".join(f"-device virtio-rng-device,id=rng{n},iommu_platform=on,"
                    f"bus=virtio-mmio-bus.{n}" for n in range(first, first + count))


# Where there are virtio-mmio transports.
TRANSPORTS = [
    ("legacy-transport", f"{ON_MMIO},id=one,bus=virtio-mmio-bus.1",
     ["virtio-iommu-mmio", "virtio-mmio-bus.1", "virtio-mmio.force-legacy=off"]),
    ("taken-transport", f"{entropy(1, 1)} {MMIO},id=one,bus=virtio-mmio-bus.1",
     ["virtio-mmio-bus.1"]),
    ("no-such-transport", f"{MMIO},id=one,bus=virtio-mmio-bus.99", ["virtio-mmio-bus.99"]),
    ("transports-claimed-twice", f"{MMIO},id=one,root-bus=main-system-bus "
                                 f"{ON_MMIO},id=two,root-bus=main-system-bus",
     ["one", "two", "main-system-bus"]),
    ("transports-claimed-twice-by-one",
     f"{MMIO},id=one,root-bus=main-system-bus:main-system-bus", ["one", "main-system-bus"]),
    ("two-takers-on-transports", f"{MMIO},bus=virtio-mmio-bus.5 {ON_MMIO},bus=virtio-mmio-bus.2",
     ["virtio-iommu-mmio on virtio-mmio-bus.5", "virtio-iommu-mmio on virtio-mmio-bus.2"]),
]
# 14 endpoints: one more than fits behind the header.
MICROVM = [
    ("array-v2-of-too-many-endpoints", f"{MMIO},id=one,bus=virtio-mmio-bus.1,topology=v2 "
                                       f"{entropy(2, 14)}", ["one", "14", "272", "256"]),
    ("array-v3-of-too-many-endpoints", f"{entropy(2, 14)} {MMIO},id=one,"
                                       "bus=virtio-mmio-bus.1,topology=v3",
     ["one", "14", "264", "256"]),
]
VIRT = [
    ("array-v2-too-large", f"{SPLIT} {MMIO},id=one,topology=v2", ["one", "272", "256"]),
    ("array-v3-too-large", f"{MMIO},id=one,topology=v3 {SPLIT}", ["one", "264", "256"]),
    ("smmuv3-of-the-machine", f"-machine iommu=smmuv3 {IOMMU},id=one",
     ["one", "arm-smmuv3", "pcie.0"]),
    ("kinds-that-both-take", f"{IOMMU},id=one {MMIO},id=two", ["one", "two"]),
    ("root-bus-claimed-twice-by-kinds", f"{IOMMU},id=one,root-bus=pcie.0 "
                                        f"{MMIO},id=two,root-bus=pcie.0",
     ["one", "two", "pcie.0"]),
]
ARGS = {
    "q35": ["-machine", "q35"],
    # With ACPI it has 24 transports.
    "microvm": ["-machine", "microvm,acpi=on"],
    "virt": ["-machine", "virt,gic-version=3", "-cpu", "cortex-a57"],
}


def is_named(word, sentence):
    return re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", sentence)


def complaint(program, machine, options, words):
    """What is wrong with how QEMU refuses these options, or None."""
    command = [program, "-accel", "qtest", "-nodefaults", "-no-user-config", "-display", "none",
               "-m", "128", "-qtest-log", "none", *ARGS[machine], *options.split()]
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
    missing = [word for word in words if not is_named(word, sentence)]
    return f"'{lines[0]}' does not name {', '.join(missing)}" if missing else None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--x86-64", metavar="QEMU", required=True, help="qemu-system-x86_64")
    parser.add_argument("--aarch64", metavar="QEMU", required=True, help="qemu-system-aarch64")
    options = parser.parse_args()
    cases = ([(options.x86_64, "q35", *row) for row in ANYWHERE + Q35] +
             [(options.x86_64, "microvm", *row) for row in TRANSPORTS + MICROVM] +
             [(options.aarch64, "virt", *row) for row in ANYWHERE + TRANSPORTS + VIRT])
    print(f"1..{len(cases)}")
    failed = 0
    for n, (program, machine, name, line, words) in enumerate(cases, 1):
        wrong = complaint(program, machine, line, words)
        failed += wrong is not None
        print(f"{'not ok' if wrong else 'ok'} {n} MOD-7/{machine}-{name}", flush=True)
        if wrong:
            print(f"{machine} {name}: {wrong}", file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
