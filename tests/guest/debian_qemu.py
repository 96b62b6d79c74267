#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Gets the QEMU that Debian has for this machine into the cache, as its packages have it.

Unmodified, and without installing it: each program gets a launcher that lets it find its
libraries and firmware.  One that is installed already is taken as it is.
"""
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fetch

PACKAGES = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm"}
# {release of the machine: suite that has a QEMU which the plugin can be built for}
SUITES = {"bookworm": "bookworm-backports", "trixie": "trixie"}
# Debian's qemu-system-arm depends on it, and no machine needs its 500 MB.
UNNEEDED = ("qemu-user",)
FIRMWARE = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")


class NotHere(fetch.FetchError):
    """Debian has no such QEMU for this machine."""


def machine_release(os_release=Path("/etc/os-release")):
    try:
        text = os_release.read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^VERSION_CODENAME=(\S+)$", text, re.MULTILINE)
    return found[1] if found else "none"


def _launcher(folder, program):
    """A script, because a library path that the environment had would reach other programs; it
    finds everything beside itself, so that the folder can be copied."""
    libraries = ":".join(f"$here/root/{where}" for where in
                         ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"))
    # What the machine has already is not unpacked.
    firmware = [f'"$here/root/{where}"' for where in FIRMWARE if (folder / "root" / where).is_dir()]
    firmware += [f"/{where}" for where in FIRMWARE if (Path("/") / where).is_dir()]
    file = folder / program
    file.write_text("#!/bin/sh\n"
                    "here=${0%/*}\n"
                    f'LD_LIBRARY_PATH="{libraries}"\n'
                    "export LD_LIBRARY_PATH\n"
                    f'exec "$here/root/usr/bin/{program}" '
                    f'{" ".join(f"-L {where}" for where in firmware)} "$@"\n', encoding="utf-8")
    file.chmod(0o755)


def _installed(package):
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], text=True,
                          capture_output=True, check=False)
    return done.stdout


def _unpack(apt, parts, folder, log):
    unpacked = folder.with_name(folder.name + ".unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    incoming = folder.with_name(folder.name + ".download")
    incoming.mkdir(exist_ok=True)
    log(f"downloading Debian's QEMU and what it needs: {len(parts)} packages")
    for package, version in parts:
        if package in UNNEEDED:
            continue
        deb = apt.download(package, version, incoming)
        done = subprocess.run(["dpkg-deb", "-x", deb, unpacked / "root"], text=True,
                              capture_output=True, check=False)
        if done.returncode:
            raise fetch.FetchError(f"{deb.name} could not be unpacked ({done.stderr.strip()}): "
                                   f"make room in {folder.parent} and run this again.")
    shutil.rmtree(incoming)
    unpacked.rename(folder)


def programs(log=lambda text: None, refresh=False):
    """({architecture: path of the program}, version of the package)."""
    release = machine_release()
    if release not in SUITES:
        raise NotHere(f"Debian's own QEMU is only known for {' and '.join(SUITES)}, and this "
                      f"machine runs {release}.")
    suite, root = SUITES[release], fetch.cache_dir()
    record = root / "packages" / f"qemu_{suite}.json"
    with fetch.locked(root):
        known = None
        if record.exists() and not refresh:
            known = json.loads(record.read_text(encoding="utf-8"))
        if known and all(Path(path).exists() for path in known["programs"].values()):
            return known["programs"], known["version"]
        apt = fetch.Apt(root, "amd64", suite, machine=release)
        log(f"looking up QEMU in Debian {suite}")
        apt.update()
        parts = apt.missing(PACKAGES.values())
        version = dict(parts).get(PACKAGES["x86_64"]) or _installed(PACKAGES["x86_64"])
        found = {arch: f"/usr/bin/qemu-system-{arch}" for arch in PACKAGES}
        absent = [arch for arch, package in PACKAGES.items() if package in dict(parts)]
        if absent:
            folder = root / "packages" / f"qemu_{version.replace(':', '%3a')}_{release}"
            (root / "packages").mkdir(exist_ok=True)
            if not folder.is_dir():
                _unpack(apt, parts, folder, log)
            for arch in absent:
                _launcher(folder, f"qemu-system-{arch}")
                found[arch] = str(folder / f"qemu-system-{arch}")
        record.write_text(json.dumps({"version": version, "programs": found}), encoding="utf-8")
        return found, version


def main():
    try:
        found, version = programs(lambda text: print(text, file=sys.stderr),
                                  "--refresh" in sys.argv[1:])
    except (fetch.FetchError, OSError) as err:
        sys.exit(f"debian_qemu: {err}")
    print(version)
    for path in found.values():
        print(path)


if __name__ == "__main__":
    main()
