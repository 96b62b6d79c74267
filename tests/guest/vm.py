# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest: QEMU under a hard time limit, its console, its agent and its QMP monitor."""
import ctypes
import hashlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1


class GuestError(Exception):
    """A guest did not do what a scenario asked of it."""


def die_with_parent():
    """Runs in the child: no QEMU outlives its runner, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Lines:
    """Complete lines from a socket, each wait bounded by a deadline."""

    def __init__(self, sock, deadline):
        self.sock, self.deadline, self.rest = sock, deadline, b""

    def wait(self, seconds=None):
        """The next line without its end, or None when `seconds` have passed."""
        until = self.deadline if seconds is None else min(self.deadline,
                                                          time.monotonic() + seconds)
        while b"\n" not in self.rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                if time.monotonic() >= self.deadline:
                    raise GuestError("the time limit has passed")
                return None
            try:
                data = self.sock.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                raise GuestError("QEMU closed the connection")
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode(errors="replace").strip("\r")


class Qmp:
    def __init__(self, sock, deadline):
        self.sock, self.lines, self.events = sock, Lines(sock, deadline), []
        self._receive()  # the greeting
        self.call("qmp_capabilities")

    def _receive(self):
        line = self.lines.wait()
        if line is None:
            raise GuestError("QEMU's monitor does not answer")
        return json.loads(line)

    def call(self, command, **arguments):
        message = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        self.sock.sendall(json.dumps(message).encode() + b"\n")
        while True:
            reply = self._receive()
            if "event" in reply:
                self.events.append(reply)
            elif "error" in reply:
                raise GuestError(f"QMP {command}: {reply['error']['desc']}")
            else:
                return reply["return"]

    def wait_event(self, name, seconds, **wanted):
        until = time.monotonic() + seconds
        while True:
            for event in self.events:
                if event["event"] == name and wanted.items() <= event.get("data", {}).items():
                    self.events.remove(event)
                    return event
            left = until - time.monotonic()
            line = self.lines.wait(left) if left > 0 else None
            if line is None:
                raise GuestError(f"no {name} event after {seconds} s")
            reply = json.loads(line)
            if "event" in reply:
                self.events.append(reply)


class NetPeer(threading.Thread):
    """The other end of a guest's network: answers frame i with a random frame i of its own.

    QEMU's stream network back end puts each frame's length before it.
    """
    ETHERTYPE = b"\x88\xb5"
    MAC = b"\x02\0\0\0\0\x01"
    HEADER, PAYLOAD = 22, 1400

    def __init__(self, sock):
        super().__init__(daemon=True)
        self.sock = sock
        self.forget()
        self.start()

    def forget(self):
        """Frames with the numbers of earlier ones may follow."""
        # By the guest's MAC address: several functions may share one network.
        self.received, self.sent = {}, {}

    def _exactly(self, n):
        data = b""
        while len(data) < n:
            part = self.sock.recv(n - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def run(self):
        try:
            while True:
                frame = self._exactly(int.from_bytes(self._exactly(4), "big"))
                if frame[12:14] == self.ETHERTYPE and len(frame) == self.HEADER + self.PAYLOAD:
                    self._answer(frame)
        except (EOFError, OSError):
            pass

    def _answer(self, frame):
        guest, index = frame[6:12], int.from_bytes(frame[14:18], "big")
        payload = frame[self.HEADER:]
        received = self.received.setdefault(guest.hex(":"), {})
        if received.setdefault(index, payload) != payload:
            received[index] = b"sent twice with different contents"
        mine = self.sent.setdefault(guest.hex(":"), {}).setdefault(index,
                                                                   os.urandom(self.PAYLOAD))
        reply = guest + self.MAC + self.ETHERTYPE + frame[14:22] + mine
        self.sock.sendall(len(reply).to_bytes(4, "big") + reply)

    @staticmethod
    def _hash(frames):
        return hashlib.sha256(b"".join(frames[i] for i in sorted(frames))).hexdigest()

    def hashes(self, mac):
        """SHA-256 of what came from a guest's address and of what went to it."""
        return self._hash(self.received.get(mac, {})), self._hash(self.sent.get(mac, {}))


class Pending:
    """A command the agent is working on."""

    def __init__(self, guest, tag, text):
        self.guest, self.tag, self.text = guest, tag, text
        self.data, self.error, self.done = [], None, False

    def result(self):
        """The data lines as dictionaries, once the agent says that it is done."""
        while not self.done:
            self.guest.agent_line()
        if self.error is not None:
            raise GuestError(f"guest command '{self.text}': {self.error}")
        return self.data


class Guest:
    """Use as a context manager: whatever happens inside, QEMU is gone afterwards.

    `kernel_args` is appended to the kernel's command line.  The console is kept
    in `folder`/console.log.  `limit` is in seconds; an idle machine needs a tenth of
    it.  With `saved`, a guest that was saved, this one goes on where that one was,
    its commands included.  With `incoming`, a URI, it waits there for a guest that
    moves.  Only with `reboots` it can reboot; else QEMU ends then.  `modules` is the
    folder of QEMU's modules, if not that of the environment.
    """
    # A kernel with these on its command line, in this order, says at once that it is there.
    EARLY_CONSOLE = "loglevel=6 earlyprintk=serial,ttyS0,115200"
    MACHINES = {
        "amd64": {"console": "ttyS0", "agent": "ttyS1"},
        "arm64": {"console": "ttyAMA0", "agent": "ttyAMA1"},
    }

    def __init__(self, folder, qemu, arch, image, initramfs, args, kernel_args="", limit=240,
                 saved=None, incoming=None, reboots=False, modules=None):
        self.folder, self.limit = Path(folder), limit
        self.begin = time.monotonic()
        self.deadline = self.begin + limit
        self.process, self.qmp = None, None
        self.sockets, self.passed, self.peers = [], [], {}
        self.pending, self.count = {}, 0
        self.saved, self.state = saved, None
        self.environment = dict(os.environ, **({"QEMU_MODULE_DIR": str(modules)} if modules
                                               else {}))
        self.incoming = f"file:{saved.state}" if saved else incoming
        names = self.MACHINES[arch]
        self.basic_args = (f"console={names['console']},115200 agent={names['agent']} loglevel=5 "
                           "panic=-1")
        if any(re.match(r"pc\b|q35", str(arg)) for arg in args):
            # Linux measures that timer when it starts, and under emulation on a busy
            # machine the result can be so wrong that a CPU never wakes again.  Here it
            # has another one.  On such a machine a timer that is measured can also seem
            # not to tick, which Linux answers with a panic.
            self.basic_args += " nolapic_timer no_timer_check"
        self.console_begin = 0  # where the present kernel's output begins, in characters
        agent, agent_fd = self._pair()
        monitor, monitor_fd = self._pair()
        self.monitor, self.agent = monitor, agent
        self.agent_lines = Lines(agent, self.deadline)
        self.command = [
            qemu, "-nodefaults", "-no-user-config", "-display", "none",
            *([] if reboots else ["-no-reboot"]),
            "-kernel", str(image), *(["-initrd", str(initramfs)] if initramfs else []),
            "-append", f"{self.basic_args} {kernel_args}".rstrip(),
            "-chardev", f"file,id=console,path={self.folder}/console.log,append=on",
            "-serial", "chardev:console",
            "-chardev", f"socket,id=agent,fd={agent_fd}", "-serial", "chardev:agent",
            "-chardev", f"socket,id=monitor,fd={monitor_fd}",
            "-mon", "chardev=monitor,mode=control",
            *map(str, args),
        ]
        if self.incoming:
            self.command += ["-incoming", self.incoming]
        if incoming:
            self.command.append("-S")

    def _pair(self):
        """A connected socket for us and the number of the one QEMU inherits."""
        ours, theirs = socket.socketpair()
        self.sockets.append(ours)
        self.passed.append(theirs)
        return ours, theirs.fileno()

    def serial_port(self):
        """Adds a serial port behind console and agent; returns our end of it."""
        ours, fd = self._pair()
        name = f"port{len(self.sockets)}"
        self.command += ["-chardev", f"socket,id={name},fd={fd}", "-serial", f"chardev:{name}"]
        return ours

    def network(self, name):
        """Adds a network back end called `name`, with a peer on our side."""
        ours, fd = self._pair()
        self.peers[name] = NetPeer(ours)
        self.command += ["-netdev", f"stream,id={name},addr.type=fd,addr.str={fd}"]

    def __enter__(self):
        try:
            with open(self.folder / "qemu.log", "ab") as log:
                self.process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env=self.environment, pass_fds=[s.fileno() for s in self.passed],
                    preexec_fn=die_with_parent)
            for s in self.passed:
                s.close()
            self.qmp = Qmp(self.monitor, self.deadline)
            if self.saved:
                self._go_on(self.saved)
            elif not self.incoming:
                self._wait_ready()
        except BaseException as err:
            self.stop()
            if isinstance(err, GuestError):
                raise GuestError(f"the guest did not start: {err}") from err
            raise
        return self

    def __exit__(self, kind, value, trace):
        self.stop()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for s in self.sockets:
            s.close()

    def _wait_ready(self):
        while self.agent_line() != "ready":
            pass

    # --- saving, moving and going on -------------------------------------------------

    def _wait_for_migration(self):
        while True:
            state = self.qmp.call("query-migrate")
            status = state.get("status")
            if status == "completed":
                return
            if status == "failed" or time.monotonic() > self.deadline:
                raise GuestError(f"migration: {status} {state.get('error-desc', '')}".rstrip())
            time.sleep(0.05)

    def save(self):
        """Writes the guest to a file while it runs; afterwards it runs here no more."""
        self.state = self.folder / "state.img"
        self.qmp.call("migrate", uri=f"file:{self.state}")
        self._wait_for_migration()
        # What the agent said until then is still on its way.
        while self.agent_line():
            pass

    def move_to(self, other, look):
        """Moves while it runs to a guest that waits for it, and runs there from then on.

        Calls `look` when it has stopped here and does not run there yet.
        """
        # On a busy machine a shorter one would be tried for, round by round, for minutes.
        self.qmp.call("migrate-set-parameters", **{"downtime-limit": 3000})
        self.qmp.call("migrate", uri=other.incoming)
        self._wait_for_migration()
        while self.agent_line():
            pass
        other._go_on(self)
        look(self, other)
        other.qmp.call("cont")

    def _go_on(self, before):
        self._wait_for_migration()
        self.pending, self.count = before.pending, before.count
        self.agent_lines.rest = before.agent_lines.rest
        for command in self.pending.values():
            command.guest = self

    # --- console -----------------------------------------------------------------

    def console(self):
        """What the present kernel wrote."""
        try:
            text = (self.folder / "console.log").read_text(errors="replace")
        except OSError:
            return ""
        return text[self.console_begin:]

    def wait_console(self, pattern, seconds=5):
        """The first console line that matches, as soon as it is there."""
        until = min(self.deadline, time.monotonic() + seconds)
        while True:
            found = re.search(pattern, self.console())
            if found:
                return found
            if time.monotonic() > until:
                raise GuestError(f"the guest's console shows no line like {pattern!r}")
            time.sleep(0.05)

    # --- agent -------------------------------------------------------------------

    def agent_line(self):
        """Handles one line from the agent; returns its kind."""
        line = self.agent_lines.wait(1)
        if line is None:
            if self.process.poll() is not None:
                raise GuestError(f"QEMU ended with status {self.process.returncode}")
            return None
        tag, _, rest = line.partition(" ")
        kind, _, text = rest.partition(" ")
        command = self.pending.get(tag)
        if command and kind == "data":
            command.data.append(dict(word.split("=", 1) for word in text.split()))
        elif command and kind in ("ok", "error"):
            command.done, command.error = True, text if kind == "error" else None
            del self.pending[tag]
        return kind

    def begin_command(self, *words):
        """Starts a command in the guest; commands may overlap."""
        self.count += 1
        tag, text = f"c{self.count}", " ".join(map(str, words))
        command = self.pending[tag] = Pending(self, tag, text)
        self.agent.sendall(f"{tag} {text}\n".encode())
        return command

    def run(self, *words):
        return self.begin_command(*words).result()

    def next_kernel(self, *words):
        """Runs a command that starts another kernel; commands under way end without an answer."""
        # What the old one writes until then counts as the new one's.
        self.console_begin += len(self.console())
        command = self.begin_command(*words)
        while self.agent_line() != "ready":
            if command.done:
                command.result()
                raise GuestError(f"guest command '{command.text}': the guest goes on")
        self.forget_kernel()

    def forget_kernel(self):
        """Commands of a kernel that has ended get no answer any more."""
        self.pending.clear()
        for peer in self.peers.values():
            peer.forget()

    # --- the time that a kernel takes to end -------------------------------------------

    def _last_line(self, verb):
        """Tells the agent to leave; returns when it said so, its last line."""
        command = self.begin_command(verb)
        while not command.data:
            if command.done:
                raise GuestError(f"guest command '{verb}': {command.error}")
            self.agent_line()
        return time.monotonic()

    def _wait_ready(self):
        while self.agent_line() != "ready":
            pass
        self.forget_kernel()

    def kexec(self, seconds):
        """Starts the loaded kernel, which has to have EARLY_CONSOLE on its command line.

        Returns the time from the old kernel's last line of user space to the new one's
        first line.
        """
        self.console_begin += len(self.console())
        begin = self._last_line("kexec")
        self.wait_console("Linux version", seconds)
        took = time.monotonic() - begin
        self._wait_ready()
        return took

    def reboot(self, seconds):
        """Returns the time from the last line of user space to the machine's reset."""
        begin = self._last_line("reboot")
        self.qmp.wait_event("RESET", seconds)
        took = time.monotonic() - begin
        self.console_begin += len(self.console())
        self._wait_ready()
        return took

    def reset(self):
        """Resets the machine, whatever the guest is doing."""
        self.console_begin += len(self.console())
        self.qmp.call("system_reset")
        self._wait_ready()

    # --- devices -------------------------------------------------------------------

    def devices(self):
        """The guest's PCI functions and translated platform devices, by path below the root.

        A path names slots, not bus numbers: "04.0/00.0" is the function 00.0 behind
        the bridge 04.0 of the first root bus.
        """
        found = {}
        for device in self.run("devices"):
            if device["bus"] == "pci":
                # On Arm the host bridge is a platform device, whose name comes first.
                root, *functions = device["path"][device["path"].index("pci0000:"):].split("/")
                path = "/".join(f.split(":")[-1] for f in functions)
                if root != "pci0000:00":
                    path = f"{root.removeprefix('pci')}/{path}"
            else:
                path = device["name"]
            found[path] = device
        return found

    def wait_for(self, what, condition, seconds=15):
        """Polls the guest's devices until `condition(devices)` returns something true."""
        until = time.monotonic() + seconds
        while True:
            result = condition(self.devices())
            if result:
                return result
            if time.monotonic() > until:
                raise GuestError(f"after {seconds} s the guest still waits for {what}")
            time.sleep(0.1)

    def property(self, iommu, name):
        """A property of the device model."""
        path = f"/machine/peripheral/{iommu}/virtio-backend"
        return self.qmp.call("qom-get", path=path, property=name)

    def endpoints(self, iommu):
        """What the device model itself says of its endpoints, by ID."""
        return {e["id"]: e for e in self.property(iommu, "endpoints")}

    def stats(self, iommu):
        """The device model's own counts."""
        return self.property(iommu, "stats")

    def memory(self, address, size):
        """What the host finds at a guest-physical address."""
        file = self.folder / "memory.img"
        self.qmp.call("pmemsave", val=address, size=size, filename=str(file))
        return file.read_bytes()

    def poweroff(self, seconds=15, busy=False):
        """Returns the time from the last line of user space to QEMU's end.

        Kernels that reset the IOMMU at shutdown can hang over what is unmapped lazily
        then (README, Kernels), so nothing is, unless the network is to be `busy`.
        """
        if not busy:
            self.run("links-down")
        begin = self._last_line("poweroff")
        try:
            status = self.process.wait(max(1, min(seconds, self.deadline - begin)))
        except subprocess.TimeoutExpired as err:
            raise GuestError("the guest did not power off") from err
        if status:
            raise GuestError(f"QEMU ended with status {status}")
        return time.monotonic() - begin
