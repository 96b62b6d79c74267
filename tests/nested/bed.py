# SPDX-License-Identifier: GPL-2.0-or-later
"""A test bed for functions that a host hands on: the host is a guest of its own.

The outer QEMU boots Debian's kernel behind an IOMMU.  Its agent binds functions to
vfio-pci and starts the inner QEMU, this project's build, which is in the initramfs
with its libraries.  The inner guest is the program of tests/bare.
"""
import json
import os
import re
import select
import stat
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "guest"))

import fetch  # noqa: E402
import initramfs  # noqa: E402
from run import requester_id  # noqa: E402
from vm import Guest, GuestError, Lines, Qmp  # noqa: E402

# What QEMU reads when it starts an x86 guest, from Debian's packages.
FIRMWARE = ("/usr/share/qemu/qboot.rom", "/usr/share/qemu/pvh.bin",
            "/usr/share/qemu/kvmvapic.bin", "/usr/share/qemu/linuxboot_dma.bin",
            "/usr/share/seabios/bios-256k.bin")
INNER = "/inner"
MONITOR, CONSOLE = "ttyS2", "ttyS3"  # of the inner guest
PASSED = 33  # QEMU's status when the bare guest says that all went well

OUTER_IOMMUS = {
    # Messages of functions are remapped, so that VFIO takes the machine for safe.
    "intel": (["-device", "intel-iommu,intremap=on,caching-mode=off", "-trace", "vtd_dmar_fault"],
              "intel_iommu=on", ""),
    "ours": (["-device", "virtio-iommu-pci,id=iommu,addr=02.0,boot-bypass=off",
              "-boot", "strict=on"], "", "allow_unsafe_interrupts=1"),
}

def check(condition, text):
    if not condition:
        raise GuestError(text)


# --- what is in the initramfs ------------------------------------------------------------

def libraries(programs):
    """The shared libraries that programs and modules need, as {path in the guest: file}."""
    found = {}
    for program in programs:
        done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
        if done.returncode or "not found" in done.stdout:
            raise GuestError(f"{program} lacks a library: {done.stdout}{done.stderr}")
        for line in done.stdout.splitlines():
            m = re.match(r"\s*(?:\S+ => )?(/\S+) \(", line)
            if m:
                found[m.group(1)] = Path(m.group(1))
    return found


def inner_files(qemu, devices, image):
    """Everything that the inner QEMU opens, as {path in the guest: file}."""
    files = {f"{INNER}/qemu": Path(qemu), f"{INNER}/bare.elf": Path(image)}
    for name, folder in devices.items():
        module = Path(folder) / "devices/virtio-iommu.so"
        if not module.exists():
            raise GuestError(f"{folder} has no module with a virtio-iommu: build it first")
        files[f"{INNER}/{name}/devices/virtio-iommu.so"] = module
    files |= libraries(set(files.values()) - {Path(image)})
    for file in FIRMWARE:
        if not os.path.exists(file):
            raise GuestError(f"{file} is missing: "
                             "install the packages qemu-system-data and seabios.")
        files[f"{INNER}/{Path(file).name}"] = Path(file)
    return files


def archive(files):
    """A cpio archive with these files and the folders that they are in."""
    folders = sorted({str(parent)[1:] for path in files for parent in Path(path).parents} - {""})
    entries = [(folder, 0o040755, b"", (0, 0)) for folder in folders]
    for path, file in files.items():
        mode = 0o100755 if os.stat(file).st_mode & stat.S_IXUSR else 0o100644
        entries.append((path[1:], mode, file.read_bytes(), (0, 0)))
    return initramfs.cpio(entries)


# --- the two machines ------------------------------------------------------------------------

class Outer:
    """The machine that hands functions on.  `functions` are the arguments that add them."""

    def __init__(self, options, iommu, functions, modules=(), type1="", files=None, memory=1024):
        self.options, self.folder, self.iommu, self.inner = options, options.folder, iommu, None
        self.kernel = fetch.kernel("amd64", "cloud", log=options.log)
        options.booted = self.kernel
        devices, kernel_args, needed = OUTER_IOMMUS[iommu]
        wanted = ["vfio_pci", f"vfio_iommu_type1 {needed} {type1}".rstrip(), *modules]
        if iommu == "ours":
            wanted.insert(0, "virtio_iommu")
        whole = self.folder / "initramfs.img"
        # Linux unpacks archives that follow each other.
        whole.write_bytes(
            initramfs.build(self.kernel, wanted).read_bytes() +
            archive(inner_files(options.qemu, options.devices, options.bare) | (files or {})))
        split = ",kernel-irqchip=split" if iommu == "intel" else ""
        args = ["-machine", f"q35,accel=tcg{split}", "-cpu", "qemu64", "-smp", "2", "-m", memory,
                *devices, *functions]
        self.guest = Guest(self.folder, options.qemu, "amd64", self.kernel.image, whole, args,
                           f"{kernel_args} printk.devkmsg=on", limit=options.limit)
        self.monitor, self.console = self.guest.serial_port(), self.guest.serial_port()

    def __enter__(self):
        self.guest.__enter__()
        return self

    def __exit__(self, kind, value, trace):
        self.guest.stop()

    def hand_on(self, path):
        """Gives the function at this path to vfio-pci; returns its name."""
        if self.iommu == "ours":
            self.guest.wait_for("the driver of the outer IOMMU",
                                lambda devices: devices["02.0"]["virtio"] == "virtio_iommu")
        function = self.guest.devices().get(path)
        check(function, f"the outer guest has no function {path}")
        name = function["name"]
        base = f"/sys/bus/pci/devices/{name}"
        self.guest.run("write", f"{base}/driver_override", "vfio-pci")
        if function["driver"] != "none":
            self.guest.run("write", f"{base}/driver/unbind", name)
        self.guest.run("write", "/sys/bus/pci/drivers_probe", name)
        function = self.guest.devices()[path]
        check(function["driver"] == "vfio-pci" and function["group"] != "none",
              f"outer {path}: driver {function['driver']}, IOMMU group {function['group']}")
        return name

    # --- what the outer IOMMU saw -------------------------------------------------------------

    def faults(self, name):
        """The addresses at which the outer IOMMU refused accesses of a function; None is any.

        The outer kernel leaves out lines when there are many, so QEMU is asked.
        """
        requester = requester_id(name)
        if self.iommu == "ours":
            return [None] * self.guest.endpoints("iommu").get(requester, {"faults": 0})["faults"]
        log = (self.folder / "qemu.log").read_text(errors="replace")
        return [int(address, 16) for address in re.findall(
            rf"^vtd_dmar_fault sid {requester:#x} fault \d+ addr (0x[0-9a-f]+) ", log, re.M)]

    def wait_fault(self, name, address, before, seconds=5):
        """All faults, as soon as there is one more than before; it has to be at this address."""
        until = time.monotonic() + seconds
        while len(seen := self.faults(name)) <= before:
            check(time.monotonic() < until, f"outer: no access of {name} was refused, though "
                                            f"nothing of it is mapped at {address:#x}")
            time.sleep(0.05)
        wrong = [a for a in seen[before:] if a is not None and a & ~0xfff != address]
        check(not wrong, f"outer: {name} did not reach {wrong[:1]}, and had to reach {address:#x}")
        return seen


class InnerQmp(Qmp):
    """A monitor whose QEMU may end at any time, which its serial port does not tell."""

    def __init__(self, inner):
        self.inner = inner
        super().__init__(inner.outer.monitor, inner.guest.deadline)

    def _receive(self):
        while True:
            line = self.lines.wait(0.05)
            if line is not None:
                return json.loads(line)
            self.inner.look_after()
            check(not self.inner.running.done, "the inner QEMU ended")


class Inner:
    """The QEMU inside, with the bare guest; use as a context manager."""

    def __init__(self, outer, device, args, options="boot-bypass=off", scenario="assigned",
                 machine="q35", before=()):
        self._prepare(outer, device, machine, options, args, before, [
            "-m", "64", "-bios", f"{INNER}/qboot.rom",
            "-serial", "chardev:con", "-device", "isa-debug-exit,iobase=0x501",
            "-kernel", f"{INNER}/bare.elf",
            "-fw_cfg", f"name=opt/viommu/bare,string=scenario={scenario}"])

    def _prepare(self, outer, device, machine, options, args, before, payload):
        self.outer, self.guest, self.device = outer, outer.guest, device
        self.lines, self.qmp = [], None
        outer.inner = self
        self.seen = len(self.guest.console())
        self.command = [
            f"QEMU_MODULE_DIR={INNER}/{device}", f"{INNER}/qemu",
            "-machine", machine, "-accel", "tcg,tb-size=64", "-L", INNER,
            "-nodefaults", "-no-user-config", "-display", "none",
            "-chardev", f"serial,id=mon,path=/dev/{MONITOR}", "-mon", "chardev=mon,mode=control",
            "-chardev", f"serial,id=con,path=/dev/{CONSOLE}",
            *before, "-device", f"virtio-iommu-pci,id=viommu,addr=2,{options}",
            *args, *payload,
        ]

    def __enter__(self):
        for port in self.outer.monitor, self.outer.console:
            while select.select([port], [], [], 0)[0]:
                port.recv(65536)
        self.running = self.guest.begin_command("program", *self.command)
        self.output = Lines(self.outer.console, self.guest.deadline)
        try:
            self.qmp = InnerQmp(self)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind, value, trace):
        self.stop()

    def stop(self):
        self.look_after()
        if not self.running.done and self.running.data:
            try:
                self.guest.run("kill", self.running.data[0]["pid"], 9)
            except GuestError:
                pass  # it has just ended by itself
            self.running.result()

    def messages(self):
        """What the inner QEMU and the outer kernel wrote since."""
        return self.guest.console()[self.seen:]

    def line(self, seconds=60):
        """The next line of the inner guest; None when the inner QEMU has ended."""
        until = time.monotonic() + seconds
        while True:
            line = self.output.wait(0.05)
            if line is not None:
                self.lines.append(line)
                return line
            if self.running.done:
                return None
            self.look_after()
            check(time.monotonic() < until, f"the inner guest says nothing for {seconds} s")

    def look_after(self):
        """Takes what the agent said, without waiting for it."""
        lines = self.guest.agent_lines
        while b"\n" in lines.rest or select.select([lines.sock], [], [], 0)[0]:
            self.guest.agent_line()

    def until_pause(self):
        """Goes on to the guest's next pause; returns its name, or None at the end."""
        while True:
            line = self.line()
            if line is None:
                return None
            if "FAIL" in line or line.startswith("failed"):
                raise GuestError(f"inner guest: {line}")
            if line.startswith("pause "):
                return line.removeprefix("pause ")

    def go_on(self):
        self.outer.console.sendall(b"\n")

    def finish(self):
        """The guest's own verdict."""
        check(self.until_pause() is None, "the inner guest waits once more")
        end = self.running.result()[-1]
        check(int(end["status"]) == PASSED,
              f"the inner QEMU ended with status {end['status']}, signal {end['signal']}")


class InnerLinux(Inner):
    """The same with Linux, whose agent takes the same commands as the outer one's."""
    FILES = (f"{INNER}/kernel", f"{INNER}/initramfs")

    @classmethod
    def files(cls, kernel, modules):
        """What the outer guest's initramfs has to have."""
        return dict(zip(cls.FILES, (kernel.image, initramfs.build(kernel, modules))))

    def __init__(self, outer, device, args, kernel_args="", options="boot-bypass=off",
                 machine="q35"):
        # The agent's command line knows no quotes, but only spaces part its words.
        words = f"{outer.guest.basic_args} {kernel_args}".split()
        self._prepare(outer, device, machine, options, args, (), [
            "-m", "256", "-boot", "strict=on", "-no-reboot",
            "-chardev", "file,id=out,path=/dev/console", "-serial", "chardev:out",
            "-serial", "chardev:con",
            "-kernel", self.FILES[0], "-initrd", self.FILES[1], "-append", "\t".join(words)])

    def __enter__(self):
        super().__enter__()
        try:
            self.linux = Commands(self)
        except BaseException:
            self.stop()
            raise
        return self


    def finish(self, seconds=120):
        """Powers off."""
        until = time.monotonic() + seconds
        self.linux.begin_command("poweroff")
        while not self.running.done:
            check(time.monotonic() < until, f"the inner guest is not off after {seconds} s")
            self.look_after()
            time.sleep(0.05)
        end = self.running.result()[-1]
        check(end == {"status": "0", "signal": "0"},
              f"the inner QEMU ended with status {end['status']}, signal {end['signal']}")


class Commands(Guest):
    """The agent of the inner Linux."""

    def __init__(self, inner):
        self.inner, self.process, self.returncode = inner, self, None
        self.deadline, self.agent = inner.guest.deadline, inner.outer.console
        self.agent_lines, self.pending, self.peers, self.count = inner.output, {}, {}, 0
        self._wait_ready()

    def poll(self):
        """The inner QEMU's status when it has ended."""
        self.inner.look_after()
        if self.inner.running.done:
            self.returncode = int(self.inner.running.result()[-1]["status"])
        return self.returncode
