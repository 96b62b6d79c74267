# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds a guest's initramfs: our agent as /init and the modules it loads."""
import gzip
import hashlib
import lzma
import os
import re
import shutil
import subprocess
from pathlib import Path

import fetch

AGENT_SOURCE = Path(__file__).with_name("agent.c")
COMPILERS = {"amd64": ("x86_64-linux-gnu-gcc", "gcc"), "arm64": ("aarch64-linux-gnu-gcc", "gcc")}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class NoDriver(fetch.FetchError):
    """This kernel cannot use a virtio-iommu at all."""


def _store(path, data):
    """Readers see the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(data)
    fresh.rename(path)


def build_agent(arch):
    """Compiles agent.c for the guest; returns the path of the static program."""
    names = COMPILERS[arch]
    if os.uname().machine != MACHINES[arch]:
        names = names[:1]
    compiler = next((c for c in names if shutil.which(c)), None)
    if not compiler:
        raise fetch.FetchError(f"No C compiler for {arch} guests: install the package gcc" +
                               ("-aarch64-linux-gnu." if arch == "arm64" else "."))
    command = [compiler, "-std=gnu11", "-O2", "-static"]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    key = hashlib.sha256(AGENT_SOURCE.read_bytes() + version + repr(command).encode())
    out = fetch.cache_dir() / "guests" / f"agent-{arch}-{key.hexdigest()[:16]}"
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = out.with_name(f"{out.name}.{os.getpid()}")
        done = subprocess.run(command + ["-o", fresh, AGENT_SOURCE], capture_output=True,
                              text=True, check=False)
        if done.returncode:
            raise fetch.FetchError(f"{compiler} could not build the guest's agent:\n{done.stderr}")
        fresh.rename(out)
    return out


# --- modules --------------------------------------------------------------------

def _module_name(path):
    return Path(path).name.split(".ko")[0].replace("-", "_")


def _plain_module(path):
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".ko":
        return data
    raise fetch.FetchError(f"{path} is compressed in a way this program does not know.")


def resolve_modules(kernel, wanted):
    """[(name, parameters, contents)], dependencies first.

    A wanted entry is a module's name, with parameters after a space.  The
    dependencies come from the modules themselves: modules.dep exists only
    where a kernel has been installed.
    """
    files = {_module_name(p): p for p in kernel.modules.glob("kernel/**/*.ko*")}
    builtin = {_module_name(p)
               for p in (kernel.modules / "modules.builtin").read_text().split()}
    parameters = {}
    for entry in wanted:
        name, _, params = entry.partition(" ")
        parameters[name.replace("-", "_")] = params
    order, seen = [], set()

    def add(name):
        if name in seen:
            return
        seen.add(name)
        if name not in files:
            if name in builtin:
                return
            if name == "virtio_iommu":
                raise NoDriver(f"Debian's kernel {kernel.release} has no driver for a "
                               "virtio-iommu.")
            raise fetch.FetchError(f"Debian's kernel {kernel.release} has no module {name}: "
                                   "this guest needs the other flavour.")
        data = _plain_module(files[name])
        for need in re.search(rb"\0depends=([^\0]*)\0", data).group(1).decode().split(","):
            if need:
                add(need.replace("-", "_"))
        order.append((name, parameters.get(name, ""), data))

    for name in parameters:
        add(name)
    return order


# --- cpio -------------------------------------------------------------------------

def cpio(entries):
    """A newc archive of [(name, mode, data, (major, minor))] without times or owners."""
    out = bytearray()
    for inode, (name, mode, data, device) in enumerate(
            entries + [("TRAILER!!!", 0, b"", (0, 0))], 1):
        raw = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0)
        out += b"070701" + b"".join(b"%08x" % f for f in fields) + raw
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def build(kernel, wanted):
    """The path of the initramfs for a kernel and a list of modules."""
    agent = build_agent(kernel.arch)
    key = hashlib.sha256(repr((1, agent.name, kernel.package, kernel.version, wanted)).encode())
    out = fetch.cache_dir() / "guests" / f"initramfs-{kernel.release}-{key.hexdigest()[:16]}"
    if out.exists():
        return out
    entries = [(name, 0o040755, b"", (0, 0)) for name in ("dev", "proc", "sys", "modules")]
    # The kernel opens it before anything is mounted.
    entries.append(("dev/console", 0o020600, b"", (5, 1)))
    entries.append(("init", 0o100755, agent.read_bytes(), (0, 0)))
    lines = []
    for name, params, data in resolve_modules(kernel, wanted):
        entries.append((f"modules/{name}.ko", 0o100644, data, (0, 0)))
        lines.append(f"{name}.ko {params}".rstrip() + "\n")
    entries.append(("modules/list", 0o100644, "".join(lines).encode(), (0, 0)))
    _store(out, cpio(entries))
    return out
