#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the domains of docs/examples under Debian's libvirt and verifies DMA in their guests.

The daemon runs in session mode with folders of its own: nothing of the system's libvirt is
read or changed, and no daemon has to be there.
"""
import argparse
import contextlib
import copy
import ctypes
import glob
import json
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/guest"))
# pylint: disable=wrong-import-position
import fetch  # noqa: E402
import run as guests  # noqa: E402
from vm import Guest, GuestError, NetPeer  # noqa: E402

# {example: what the test has to know of its machine}
EXAMPLES = {
    "q35": {"arch": "amd64", "cpu": "x86_64", "console": "ttyS0", "agent": "ttyS1",
            "type": "DMA-FQ"},
    "virt": {"arch": "arm64", "cpu": "aarch64", "console": "ttyAMA0", "agent": "ttyAMA1",
             "type": "DMA"},
}
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
LIMIT = 180  # seconds, for everything after the kernel is fetched
DRIVER = "/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so"
PR_SET_CHILD_SUBREAPER = 36
check = guests.check


def note(text):
    print(f"libvirt: {text}", file=sys.stderr, flush=True)


def descendants():
    """The ids of all processes below this one, children before their own children."""
    children = {}
    for stat in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = Path(stat).read_text(encoding="utf-8", errors="replace")
            parent = int(text.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.split("/")[2]))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def stage(qemu, prefix, plugin):
    """A copy of the installed QEMU, with or without the plugin."""
    left_out = ["qemu-system-*", ".key"] + ([] if plugin else ["devices"])

    def ignore(folder, names):
        return set(shutil.ignore_patterns(*left_out)(folder, names)) - {qemu.name}

    shutil.copytree(qemu.parents[1], prefix, symlinks=True, ignore=ignore)
    return prefix / "bin" / qemu.name


def require_libvirt():
    for what, there, package in (
            ("libvirtd", shutil.which("libvirtd", path=PATH), "libvirt-daemon"),
            ("virsh", shutil.which("virsh", path=PATH), "libvirt-clients"),
            ("libvirt's QEMU driver", glob.glob(DRIVER), "libvirt-daemon-driver-qemu")):
        check(there, f"{what} is missing: install the package {package}.")


# --- the daemon -------------------------------------------------------------------

class Daemon:
    """A libvirtd in session mode.  Use as a context manager: all that it started goes with it.

    libvirt takes uid 0 for its system mode, so root's daemon gets another user.  With namespaces
    that is only a name for root in there, and the end of their first process is the end of all;
    where they are refused it is the real user `daemon`.
    """
    # /dev/kvm: libvirt probes a QEMU again and again if it is there but does not work.
    # A shell as the first process collects the QEMUs that libvirt has put into the background;
    # libvirt waits in vain for the end of one that nobody collects.
    FIRST = """set -e
        if [ -e /dev/kvm ]; then mount --bind "$1" /dev/kvm; fi
        shift
        setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all -- "$@" &
        wait $!"""

    def __init__(self, folder):
        self.folder, self.keeper, self.lifeline = folder, None, None
        self.user = pwd.getpwnam("daemon") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        self.env = {"PATH": PATH, "LC_ALL": "C", "HOME": str(folder),
                    "USER": self.user.pw_name, "LOGNAME": self.user.pw_name}
        for name in ("CONFIG_HOME", "CACHE_HOME", "DATA_HOME", "STATE_HOME", "RUNTIME_DIR"):
            path = folder / "xdg" / name.split("_", maxsplit=1)[0].lower()
            path.mkdir(parents=True, mode=0o700)
            self.env[f"XDG_{name}"] = str(path)
        config = folder / "xdg/config/libvirt"
        config.mkdir()
        (config / "qemu.conf").write_text('stdio_handler = "file"\nsecurity_driver = "none"\n')
        (config / "libvirtd.conf").write_text('log_outputs = "2:stderr"\n')
        self.socket = folder / "xdg/runtime/libvirt/libvirt-sock"
        self.namespaces = self._unshare("true") is not None
        self.as_user = []
        if not self.namespaces and os.getuid() == 0:
            self.as_user = ["setpriv", f"--reuid={self.user.pw_uid}",
                            f"--regid={self.user.pw_gid}", "--clear-groups", "--"]

    def _unshare(self, *command):
        """The command with namespaces around it, or None if the kernel refuses them."""
        around = ["unshare", "--user", f"--map-user={self.user.pw_uid}",
                  f"--map-group={self.user.pw_gid}", "--keep-caps", "--mount", "--pid",
                  "--fork", "--kill-child", "--mount-proc", "--"]
        tried = subprocess.run(around + ["true"], capture_output=True, text=True, check=False)
        if tried.returncode:
            note(f"without namespaces: {tried.stderr.strip()}")
            return None
        return around + list(command)

    def reaches(self, file):
        """Whether the daemon's user can open a file; others' folders may be closed to it."""
        command = [*self.as_user, "test", "-r", str(file)]
        if self.namespaces:
            command = self._unshare("setpriv", "--inh-caps=-all", "--ambient-caps=-all",
                                    "--bounding-set=-all", "--", *command)
        return subprocess.run(command, check=False).returncode == 0

    def give(self, path):
        """Lets the daemon's user own what is in a folder."""
        if self.as_user:
            for each in [path, *path.rglob("*")]:
                os.chown(each, self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)

    def __enter__(self):
        command = ["libvirtd", "--config", str(self.folder / "xdg/config/libvirt/libvirtd.conf")]
        if self.namespaces:
            closed = self.folder / "no-kvm"
            closed.touch(mode=0o000)
            command = self._unshare("sh", "-c", self.FIRST, "sh", str(closed), *command)
        self.give(self.folder)
        end, self.lifeline = os.pipe()
        self.keeper = os.fork()
        if self.keeper == 0:
            try:
                os.close(self.lifeline)
                self._keep(self.as_user + command, end)
            finally:
                os._exit(0)
        os.close(end)
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind, value, trace):
        self.stop()

    def _keep(self, command, lifeline):
        """Runs in a process that outlives the runner, however that ends, just to clean up.

        What is orphaned, as each QEMU, becomes this process's own child.
        """
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, lambda *_: None)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        with open(self.folder / "libvirtd.log", "wb") as log:
            libvirtd = subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=log, cwd="/").pid
        ended = 0
        while ended != libvirtd and not select.select([lifeline], [], [], 0.05)[0]:
            ended = os.waitpid(-1, os.WNOHANG)[0]
        while pids := descendants():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(0.02)
        if ended != libvirtd and not os.read(lifeline, 1):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until_it_listens(self):
        until = time.monotonic() + 20
        while True:
            with socket.socket(socket.AF_UNIX) as attempt, contextlib.suppress(OSError):
                attempt.connect(str(self.socket))
                return
            check(os.waitid(os.P_PID, self.keeper, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None,
                  "libvirtd ended as soon as it was started.")
            check(time.monotonic() < until, "libvirtd does not listen after 20 s.")
            time.sleep(0.05)

    def stop(self):
        """Ends the daemon and whatever it started, and waits until they are gone."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.lifeline, b".")
        os.waitpid(self.keeper, 0)
        os.close(self.lifeline)

    # --- virsh ---------------------------------------------------------------------

    def try_virsh(self, *words):
        uri = f"qemu:///session?socket={self.socket}"
        try:
            return subprocess.run([*self.as_user, "virsh", "--quiet", "--connect", uri, *words],
                                  env=self.env, cwd="/", stdin=subprocess.DEVNULL, check=False,
                                  capture_output=True, text=True, timeout=45)
        except subprocess.TimeoutExpired as err:
            raise GuestError(f"virsh {words[0]}: no answer after 45 s") from err

    def virsh(self, *words):
        done = self.try_virsh(*words)
        check(done.returncode == 0, f"virsh {words[0]}: {done.stderr.strip()}")
        return done.stdout


# --- the guest ----------------------------------------------------------------------

class Domain:
    """What a Guest asks of QEMU's process and of its monitor, answered by libvirt."""
    returncode = None

    def __init__(self, daemon, name):
        self.daemon, self.name = daemon, name

    def poll(self):
        state = self.daemon.try_virsh("domstate", self.name).stdout.strip()
        if state not in ("running", "paused"):
            self.returncode = state or "unknown"
        return self.returncode

    def call(self, command, **arguments):
        message = json.dumps({"execute": command, "arguments": arguments})
        answer = json.loads(self.daemon.virsh("qemu-monitor-command", self.name, message))
        check("return" in answer, f"QMP {command}: {answer.get('error')}")
        return answer["return"]


class LibvirtGuest(Guest):
    """The guest of a domain that libvirt has started."""

    def __init__(self, trial, daemon):
        super().__init__(trial.folder, trial.options.qemu, trial.example["arch"],
                         trial.kernel.image, trial.initramfs, [])
        self.trial = trial
        self.process = self.qmp = Domain(daemon, trial.name)

    def __enter__(self):
        self.agent = self.trial.accept(self.trial.agent_listener, "agent")
        self.agent_lines.sock = self.agent
        self.peers["net0"] = NetPeer(self.trial.accept(self.trial.net_listener, "network"))
        while self.agent_line() != "ready":
            pass
        return self

    def stop(self):
        for each in self.sockets + self.passed + [self.agent]:
            each.close()

    def endpoints(self, iommu):
        return super().endpoints(self.trial.alias if iommu == guests.IOMMU else iommu)


class Trial(guests.Trial):
    """The example domain, filled in, and what is checked of it."""

    TRANSLATED = ("virtio-blk-pci", "virtio-net-pci")

    def __init__(self, options, example):
        # Not its base's: that one makes the command line of a guest without libvirt.
        # pylint: disable=super-init-not-called
        self.options, self.folder = options, options.folder
        self.file, self.example = ROOT / f"docs/examples/{example}.xml", EXAMPLES[example]
        self.kernel = fetch.kernel(self.example["arch"], "cloud", log=note)
        self.initramfs = guests.initramfs.build(self.kernel, [*guests.BASE_MODULES])
        self.endpoints, self.notes, self.guest = [], [], None
        self.disk_image = self.disk_file("disk")
        self.agent_listener = socket.socket(socket.AF_UNIX)
        self.agent_listener.bind(str(self.folder / "agent"))
        self.agent_listener.listen()
        self.net_listener = socket.create_server(("127.0.0.1", 0))
        self.name = self.alias = None

    def copy_kernel_unless(self, reaches):
        for name, file in (("image", self.kernel.image), ("initramfs", self.initramfs)):
            if not reaches(file):
                copy = shutil.copy(file, self.folder / name)
                setattr(self.kernel if name == "image" else self, name, copy)

    @staticmethod
    def accept(listener, what):
        listener.settimeout(20)
        try:
            return listener.accept()[0]
        except TimeoutError as err:
            raise GuestError(f"QEMU did not connect its {what} in 20 s") from err

    def change(self, domain):
        """What a variant of the example has otherwise."""

    def write_xml(self, qemu, file, iommu=True):
        """Fills the example in and adds what lets the test look into the guest."""
        # Not the comment before it, which explains the words.
        text = self.file.read_text(encoding="utf-8").partition("-->\n<domain")[2]
        command_line = (f"console={self.example['console']},115200 "
                        f"agent={self.example['agent']} loglevel=5 panic=-1")
        values = {"PREFIX": qemu.parents[1], "KERNEL": self.kernel.image,
                  "INITRD": self.initramfs, "CMDLINE": command_line, "DISK": self.disk_image}
        domain = ET.fromstring(
            re.sub("@([A-Z]+)@", lambda m: str(values[m.group(1)]), "<domain" + text))
        self.name = domain.findtext("name")
        self.alias = domain.find("devices/iommu/alias").get("name")
        devices = domain.find("devices")
        if not iommu:
            devices.remove(devices.find("iommu"))
        devices.remove(devices.find("serial"))
        for port, (kind, source) in enumerate((
                ("file", {"path": str(self.folder / "console.log")}),
                ("unix", {"mode": "connect", "path": str(self.folder / "agent")}))):
            serial = ET.SubElement(devices, "serial", type=kind)
            ET.SubElement(serial, "source", source)
            ET.SubElement(serial, "target", port=str(port))
        # The same network card on a network whose other end compares the bytes.
        card = devices.find("interface")
        card.set("type", "client")
        ET.SubElement(card, "source", address="127.0.0.1",
                      port=str(self.net_listener.getsockname()[1]))
        self.change(domain)
        file.write_text(ET.tostring(domain, encoding="unicode"), encoding="utf-8")
        return str(file)

    def find_endpoints(self, live):
        """Where libvirt has put the disk and the card, as paths below the root bus."""
        domain = ET.fromstring(live)

        def address(element):
            a = element.find("address")
            return int(a.get("bus"), 16), f"{int(a.get('slot'), 16):02x}." \
                                          f"{int(a.get('function'), 16):x}"

        ports = {int(c.get("index")): c for c in domain.iterfind("devices/controller[@type='pci']")}

        def path(element):
            bus, place = address(element)
            if bus == 0:
                return place
            if ports[bus].get("model") == "pcie-expander-bus":
                return f"0000:{int(ports[bus].find('target').get('busNr')):02x}/{place}"
            return f"{path(ports[bus])}/{place}"

        check(path(domain.find("devices/iommu")) == guests.IOMMU_SLOT,
              "the example's IOMMU is not where its address says")
        self.endpoints = [
            guests.Endpoint(path(domain.find("devices/disk")), "virtio_blk", "disk",
                            self.disk_image),
            guests.Endpoint(path(domain.find("devices/interface")), "virtio_net", "net",
                            netdev="net0"),
        ]
        return path, domain

    def verify_command(self, qemu):
        """libvirt has started the wanted QEMU with a virtio-iommu and translated functions."""
        running = {}
        for pid in descendants():
            # libvirt's own helpers come and go.
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
                if any(word.startswith(f"guest={self.name},") for word in command):
                    running[os.readlink(f"/proc/{pid}/exe")] = command
        own = self.options.own_device
        # With the plugin <emulator> is a script, and what runs is the program that it starts.
        check(len(running) == 1 if own else list(running) == [os.path.realpath(qemu)],
              f"libvirt runs {', '.join(running) or 'no QEMU'} and not {qemu}")
        command = running.popitem()[1]
        devices = {}
        for option, value in zip(command, command[1:]):
            if option == "-device" and value.startswith("{"):
                device = json.loads(value)
                devices.setdefault(device["driver"], []).append(device)
        iommus = devices.get("viommu-pci" if own else "virtio-iommu", [])
        check([d["id"] for d in iommus] == [self.alias],
              f"libvirt's command line has these IOMMUs: {iommus}")
        for driver in self.TRANSLATED:
            translated = [d.get("iommu_platform") for d in devices.get(driver, [])]
            check(translated and all(translated),
                  f"libvirt's command line has no {driver} with iommu_platform")


SPACE = "http://libvirt.org/schemas/domain/qemu/1.0"  # of elements that libvirt hands to QEMU


class LeftOut(Trial):
    """The example with its disk on the first root bus, where the IOMMU leaves it out."""
    TRANSLATED = ("virtio-net-pci",)

    def change(self, domain):
        disk = domain.find("devices/disk")
        # On a root bus it would want a driver that is not of the old kind.
        del disk.find("driver").attrib["iommu"]
        ET.SubElement(disk, "alias", name="ua-boot")
        ET.SubElement(disk, "address", type="pci", domain="0", bus="0", slot="16", function="0")
        ET.register_namespace("qemu", SPACE)
        element = ET.SubElement(domain, f"{{{SPACE}}}override")
        for name, more in (("device", {"alias": self.alias}), ("frontend", {}),
                           ("property", {"name": "leave-out", "type": "string",
                                         "value": "ua-boot"})):
            element = ET.SubElement(element, f"{{{SPACE}}}{name}", more)

    def verify(self, domain_type, endpoints=None):
        disk, card = self.endpoints
        super().verify(domain_type, [card])
        disk.device = self.guest.devices()[disk.path]
        check(disk.device["virtio"] == disk.driver and disk.device["group"] == "none",
              f"{disk.path}: is in group {disk.device['group']}, although it is left out")
        self.verify_dma([disk])
        check(disk.counted_as not in self.guest.endpoints(self.alias),
              f"{disk.path}: is an endpoint")


class TwoIommus(Trial):
    """The example with an expander bridge that has an IOMMU of its own."""
    SECOND, SLOT, BUS = "second", "1e.0", 64
    # libvirt fills in ports for all lower numbers; their I/O windows have to fit.
    EXPANDER, PORT = 4, 5

    def __init__(self, options, example):
        super().__init__(options, example)
        self.second_image = self.disk_file("second")
        self.behind = None

    def change(self, domain):
        devices = domain.find("devices")
        for model, index, bus, slot in (("pcie-expander-bus", self.EXPANDER, 0, 16),
                                        ("pcie-root-port", self.PORT, self.EXPANDER, 0)):
            controller = ET.SubElement(devices, "controller", type="pci", model=model,
                                       index=str(index))
            if bus == 0:
                ET.SubElement(controller, "target", busNr=str(self.BUS))
                ET.SubElement(controller, "alias", name="ua-pxb")
            ET.SubElement(controller, "address", type="pci", domain="0", bus=str(bus),
                          slot=str(slot), function="0")
        disk = copy.deepcopy(devices.find("disk"))
        disk.find("source").set("file", str(self.second_image))
        disk.find("target").set("dev", "vdb")
        ET.SubElement(disk, "address", type="pci", domain="0", bus=str(self.PORT), slot="0",
                      function="0")
        devices.append(disk)
        ET.register_namespace("qemu", SPACE)
        more = ET.SubElement(domain, f"{{{SPACE}}}commandline")
        for word in ("-device", f"virtio-iommu-pci,id={self.SECOND},bus=pcie.0,addr={self.SLOT},"
                                "root-bus=ua-pxb"):
            ET.SubElement(more, f"{{{SPACE}}}arg", value=word)

    def find_endpoints(self, live):
        path, domain = super().find_endpoints(live)
        self.behind = guests.Endpoint(path(domain.findall("devices/disk")[1]), "virtio_blk",
                                      "disk", self.second_image)
        return path, domain

    def verify(self, domain_type, endpoints=None):
        # A driver may have to wait for one IOMMU's after the other's.
        self.guest.wait_for("the drivers of all disks and cards", lambda devices: all(
            devices.get(e.path, {}).get("virtio") == e.driver
            for e in [*self.endpoints, self.behind]), seconds=60)
        super().verify(domain_type, self.endpoints)
        e, devices = self.behind, self.guest.devices()
        second, e.device = devices[self.SLOT], devices[e.path]
        check(e.device["iommu"] == second["name"] and e.device["type"] == domain_type,
              f"{e.path}: belongs to IOMMU {e.device['iommu']}, not {second['name']}")
        self.verify_dma([e])
        own, other = (self.guest.endpoints(name) for name in (self.SECOND, self.alias))
        c = own.get(e.counted_as)
        check(c and c["attached"] and c["translations"] > 0 and not c["faults"],
              f"{e.path}: the second IOMMU counted {c}")
        check(e.counted_as not in other, f"{e.path}: is an endpoint of the first IOMMU, too")
        e.translations = c["translations"]
        self.endpoints.append(e)


def verified_guest(trial, daemon, qemu):
    """The example domain runs, and its disk and network card are translated."""
    xml = trial.write_xml(qemu, trial.folder / "domain.xml")
    daemon.give(trial.folder)
    daemon.virsh("define", "--validate", xml)
    begin = time.monotonic()
    daemon.virsh("start", trial.name)
    trial.find_endpoints(daemon.virsh("dumpxml", trial.name))
    trial.verify_command(qemu)
    with LibvirtGuest(trial, daemon) as guest:
        trial.guest = guest
        trial.verify(trial.example["type"])
    daemon.virsh("destroy", trial.name)
    check(daemon.virsh("domstate", trial.name).strip() == "shut off", "the domain still runs")
    daemon.virsh("undefine", "--nvram", trial.name)
    note(f"{trial.name}: verified in {time.monotonic() - begin:.1f} s")
    print(trial.table(), flush=True)


def refused_without_plugin(trial, daemon, bare):
    """libvirt itself tells the user of a QEMU without the plugin that it has no virtio-iommu."""
    daemon.give(bare.parents[1])
    done = daemon.try_virsh("define", trial.write_xml(bare, trial.folder / "bare.xml"))
    check(done.returncode != 0, "libvirt takes the domain although the plugin is not there")
    check("IOMMU device: 'virtio' is not supported with this QEMU binary" in done.stderr,
          f"without the plugin libvirt says only: {done.stderr.strip()}")
    note(f"without the plugin: {done.stderr.strip().splitlines()[-1]}")
    # So it is the IOMMU that was refused, and not this copy of QEMU.
    daemon.virsh("define", trial.write_xml(bare, trial.folder / "plain.xml", iommu=False))
    daemon.virsh("undefine", "--nvram", trial.name)


def run(options):
    variant = TwoIommus if options.two_iommus else LeftOut if options.left_out else Trial
    trial = variant(options, options.example)
    daemon = Daemon(options.folder)
    qemu = options.qemu
    if not daemon.reaches(qemu):
        qemu = stage(qemu, options.folder / "qemu", plugin=True)
    trial.copy_kernel_unless(daemon.reaches)
    bare = None
    if variant is Trial and not options.own_device:
        bare = stage(options.qemu, options.folder / "bare", plugin=False)
    signal.alarm(LIMIT)
    try:
        with daemon:
            verified_guest(trial, daemon, qemu)
            if bare:
                refused_without_plugin(trial, daemon, bare)
    finally:
        signal.alarm(0)


def on_signal(number, _frame):
    if number == signal.SIGALRM:
        raise GuestError(f"not done after {LIMIT} s")
    sys.exit("libvirt: terminated")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qemu", required=True, type=Path,
                        help="the installed qemu-system-x86_64 that has the plugin; others beside")
    parser.add_argument("--example", choices=EXAMPLES, default="q35")
    parser.add_argument("--two-iommus", action="store_true",
                        help="the example with a second IOMMU for a second root bus")
    parser.add_argument("--own-device", action="store_true",
                        help="this QEMU has a virtio-iommu without ours, too")
    parser.add_argument("--left-out", action="store_true",
                        help="the example with a disk that the IOMMU leaves out")
    parser.add_argument("--keep", action="store_true", help="keep the domain's XML and the logs")
    options = parser.parse_args()
    options.qemu, options.counters = options.qemu.absolute(), True
    options.qemu = options.qemu.with_name("qemu-system-" + EXAMPLES[options.example]["cpu"])
    if not os.access(options.qemu, os.X_OK):
        sys.exit(f"libvirt: {options.qemu} is no program")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, on_signal)
    # Short, because the path of a socket may not be long.
    options.folder = Path(tempfile.mkdtemp(prefix="viommu-libvirt.", dir="/tmp"))
    begin, keep = time.monotonic(), options.keep
    try:
        require_libvirt()
        run(options)
        note(f"passed in {time.monotonic() - begin:.1f} s")
    except (GuestError, fetch.FetchError, OSError, subprocess.SubprocessError) as err:
        note(f"FAILED: {err}")
        for log in [*options.folder.glob("*.log"), *options.folder.glob("xdg/**/*.log")]:
            keep = True
            text = log.read_text(errors="replace").splitlines()[-12:]
            note("\n    ".join([f"end of {log}:", *text]))
        sys.exit(1)
    finally:
        if keep:
            for big in ("qemu", "bare"):
                shutil.rmtree(options.folder / big, ignore_errors=True)
            (options.folder / "disk.img").unlink(missing_ok=True)
        else:
            shutil.rmtree(options.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
