#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a test program with Debian's own QEMU, unmodified, and viommu's plugin in it.

    with_debian_qemu.py WRAPPER PLUGIN SERIES PROGRAM [ARGUMENT]...

In the arguments @qemu@ stands for a folder with the programs qemu-system-ARCHITECTURE, which
start Debian's through WRAPPER (tools/qemu-viommu), and @debian@ for one where they do not.
The status is 77 where Debian has no QEMU of SERIES, which PLUGIN is built for, for this machine.
"""
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
# pylint: disable=wrong-import-position
import debian_qemu  # noqa: E402
import fetch  # noqa: E402

SKIPPED = 77


def script(file, text):
    file.write_text(f"#!/bin/sh\n{text}", encoding="utf-8")
    file.chmod(0o755)


def folders(base, wrapper, plugin, programs):
    """Programs that find everything beside themselves: libvirt passes no environment on, and its
    test copies the parent of their folder to where the daemon's user can read it."""
    for name in ("bin", "debian"):
        (base / name).mkdir()
    shutil.copy(wrapper, base / "bin/wrapper")
    shutil.copy(plugin, base / "viommu.so")
    for arch, path in programs.items():
        path, name = Path(path), f"qemu-system-{arch}"
        if (path.parent / "root").is_dir():
            shutil.copy(path, base / "debian" / name)
            if not (base / "debian/root").exists():
                shutil.copytree(path.parent / "root", base / "debian/root", symlinks=True,
                                copy_function=link)
        else:
            script(base / "debian" / name, f'exec {shlex.quote(str(path))} "$@"\n')
        script(base / "bin" / name,
               'here=${0%/*}\n'
               f'VIOMMU_PLUGIN="$here/../viommu.so" VIOMMU_QEMU="$here/../debian/{name}" '
               'exec "$here/wrapper" "$@"\n')


def link(source, target):
    """As the cache is not changed, a second name does where the file system allows it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    wrapper, plugin, series, program, *arguments = sys.argv[1:]
    try:
        programs, version = debian_qemu.programs(lambda text: print(text, file=sys.stderr))
    except debian_qemu.NotHere as err:
        print(f"skipped: {err}", file=sys.stderr)
        sys.exit(SKIPPED)
    except (fetch.FetchError, OSError) as err:
        sys.exit(f"debian_qemu: {err}")
    if not version.startswith(f"1:{series}."):
        print(f"skipped: Debian's QEMU for this machine is {version}, and the plugin is built for "
              f"{series}", file=sys.stderr)
        sys.exit(SKIPPED)
    print(f"with Debian's QEMU {version}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="viommu-plugin.") as name:
        folders(Path(name), wrapper, plugin, programs)
        arguments = [word.replace("@qemu@", f"{name}/bin").replace("@debian@", f"{name}/debian")
                     for word in arguments]
        environment = {key: value for key, value in os.environ.items()
                       if key not in ("QEMU_MODULE_DIR", "VIOMMU_PLUGIN", "VIOMMU_QEMU")}
        with subprocess.Popen([program, *arguments], env=environment) as test:
            signal.signal(signal.SIGTERM, lambda *_: test.terminate())
            status = test.wait()
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
