# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of QEMU's monitor, QMP, on a UNIX socket."""
import json
import socket

SECONDS = 10  # for one answer


class QmpError(Exception):
    """One sentence about why there is no answer."""


class Refused(QmpError):
    """QEMU's own sentence about a command."""


class Qmp:
    """Use as a context manager."""

    def __init__(self, path, seconds=SECONDS):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(seconds)
        try:
            self.socket.connect(path)
        except FileNotFoundError:
            self._fail(f"there is no socket {path}: start QEMU with -qmp unix:{path},server=on,wait=off")
        except ConnectionRefusedError:
            self._fail(f"nobody listens on {path}: the QEMU that made it has ended")
        except OSError as err:
            self._fail(f"cannot connect to {path}: {err.strerror or err}")
        self.stream = self.socket.makefile("rb")
        try:
            greeting = self._message("QEMU has one client at a time there: another one is connected")
            if "QMP" not in greeting:
                self._fail(f"on {path} is no QMP monitor")
            self.command("qmp_capabilities")
        except QmpError:
            self.close()
            raise

    def _fail(self, sentence):
        self.socket.close()
        raise QmpError(sentence)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.close()

    def close(self):
        self.stream.close()
        self.socket.close()

    def _message(self, why_late="it is stopped, or busy"):
        try:
            line = self.stream.readline()
        except TimeoutError as err:
            raise QmpError(f"QEMU does not answer on {self.path}: {why_late}") from err
        except OSError as err:
            raise QmpError(f"the connection to {self.path} broke: {err.strerror or err}") from err
        if not line:
            raise QmpError(f"QEMU closed the connection on {self.path}")
        try:
            message = json.loads(line)
        except ValueError as err:
            raise QmpError(f"on {self.path} is no QMP monitor: it does not speak JSON") from err
        if not isinstance(message, dict):
            raise QmpError(f"on {self.path} is no QMP monitor")
        return message

    def command(self, name, **arguments):
        message = {"execute": name, "arguments": arguments} if arguments else {"execute": name}
        try:
            self.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as err:
            raise QmpError(f"the connection to {self.path} broke: {err.strerror or err}") from err
        while True:
            reply = self._message()
            if "error" in reply:
                raise Refused(reply["error"].get("desc", "QEMU refuses without a reason"))
            if "return" in reply:
                return reply["return"]
            # An event.

    def get(self, path, name):
        return self.command("qom-get", path=path, property=name)

    def set(self, path, name, value):
        self.command("qom-set", path=path, property=name, value=value)

    def list(self, path):
        """{name: type} of the properties at `path`; empty if there is no such object."""
        try:
            return {entry["name"]: entry["type"] for entry in self.command("qom-list", path=path)}
        except Refused:
            return {}
