#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Gets Debian packages for the guests into a cache, without installing them.

A private apt configuration (own sources list, lists and caches) reads one of
Debian's releases from the mirror this machine already uses; apt checks the
signatures.  The system's own apt configuration, lists and packages stay as
they are.  What is cached needs no network.
"""
import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SUITE = "trixie"  # what is fetched unless another is named
SUITES = ("bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid")
KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.pgp",
            "/usr/share/keyrings/debian-archive-keyring.gpg")
KERNELS = {
    ("amd64", "cloud"): "linux-image-cloud-amd64",
    ("amd64", "generic"): "linux-image-amd64",
    ("arm64", "cloud"): "linux-image-cloud-arm64",
    ("arm64", "generic"): "linux-image-arm64",
}


LIST_BYTES = 160 << 20  # the list and what apt makes of it
MARGIN_BYTES = 64 << 20


class FetchError(Exception):
    """What is wrong and what to do about it, in one sentence."""


def cache_dir():
    own = os.environ.get("VIOMMU_CACHE")
    if own:
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "viommu"


# --- the mirror this machine uses ---------------------------------------------

def _deb822_sources(text):
    for stanza in re.split(r"\n\s*\n", text):
        fields, key = {}, None
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in " \t" and key:
                fields[key] += " " + line.strip()
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.strip().lower()
                fields[key] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "off", "0"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        for uri in fields.get("uris", "").split():
            yield uri, fields.get("suites", "").split(), fields.get("components", "").split()


def _one_line_sources(text):
    for line in text.splitlines():
        m = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if m:
            yield m.group(1), [m.group(2)], m.group(3).split()


def find_mirror(etc=Path("/etc/apt")):
    """The URI of the first configured Debian archive that is not the security one."""
    own = os.environ.get("VIOMMU_DEBIAN_MIRROR")
    if own:
        return own
    files = [etc / "sources.list"]
    if (etc / "sources.list.d").is_dir():
        files += sorted((etc / "sources.list.d").iterdir())
    debian = re.compile(r"(bookworm|trixie|forky|oldstable|stable|testing|sid|unstable)"
                        r"(-updates|-backports)?$")
    for file in files:
        if file.suffix not in (".list", ".sources") or not file.is_file():
            continue
        parse = _deb822_sources if file.suffix == ".sources" else _one_line_sources
        for uri, suites, components in parse(file.read_text(errors="replace")):
            if "security" in uri or "main" not in components:
                continue
            if any(debian.match(s) for s in suites):
                return uri
    raise FetchError(f"No Debian mirror is configured under {etc}: "
                     "set VIOMMU_DEBIAN_MIRROR to the URL of one.")


# --- apt with a configuration of its own -----------------------------------------

class Apt:
    """Reads `suite`; for what has to fit this machine, knows what is installed and what is in
    the release that the machine runs."""

    def __init__(self, root, arch, suite=SUITE, machine=None):
        self.root = root / "apt" / (f"{suite}-{arch}" if machine is None else f"{suite}-machine")
        self.arch, self.suite = arch, suite
        self.suites = {suite: None, machine or suite: None}
        self.status = self.root / "status" if machine is None else Path("/var/lib/dpkg/status")
        self.fresh = False
        for sub in ("parts", "preferences", "state/lists/partial", "cache/archives/partial",
                    "trusted"):
            (self.root / sub).mkdir(parents=True, exist_ok=True)
        (self.root / "status").touch()
        self.conf = self.root / "apt.conf"

    def _system_acquire(self):
        """How the system's apt reaches its mirror; its hooks and its trust are not ours."""
        dump = subprocess.run(["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"],
                              capture_output=True, text=True, check=False).stdout
        wanted = re.compile(r'Acquire::(https?|ForceIPv[46]|Check-(Valid-Until|Date))\b.* ".+";')
        return [line for line in dump.splitlines() if wanted.match(line)]

    def configure(self):
        for tool in ("apt-get", "apt-cache", "apt-config", "dpkg-deb"):
            if not shutil.which(tool):
                raise FetchError(f"{tool} is missing: guests are fetched with Debian's apt and "
                                 "dpkg, so run this on Debian 12 or 13.")
        keyring = next((k for k in KEYRINGS if Path(k).exists()), None)
        if not keyring:
            raise FetchError("The Debian archive's keys are missing: "
                             "install the package debian-archive-keyring.")
        r = self.root
        (r / "sources.list").write_text("".join(
            f"deb [arch={self.arch} signed-by={keyring}] {find_mirror()} {suite} main\n"
            for suite in self.suites))
        self.conf.write_text("\n".join(self._system_acquire() + [
            f'APT::Architecture "{self.arch}";',
            f'APT::Architectures {{ "{self.arch}"; }};',
            'Acquire::Languages "none";',
            'Acquire::GzipIndexes "true";',
            'Dir::Cache::srcpkgcache "";',
            'Acquire::Retries "2";',
            # An unprivileged apt user could not write into a private cache.
            'APT::Sandbox::User "root";',
            f'Dir::Etc::Parts "{r}/parts";',
            'Dir::Etc::Main "/dev/null";',
            f'Dir::Etc::SourceList "{r}/sources.list";',
            'Dir::Etc::SourceParts "/dev/null";',
            'Dir::Etc::Preferences "/dev/null";',
            f'Dir::Etc::PreferencesParts "{r}/preferences";',
            f'Dir::Etc::TrustedParts "{r}/trusted";',
            f'Dir::State "{r}/state";',
            f'Dir::State::Status "{self.status}";',
            f'Dir::Cache "{r}/cache";',
        ]) + "\n")

    def run(self, *args, cwd=None):
        env = dict(os.environ, APT_CONFIG=str(self.conf), LC_ALL="C")
        return subprocess.run(args, cwd=cwd, env=env, text=True, capture_output=True, check=False)

    def update(self):
        if self.fresh:
            return
        self.configure()
        done = self.run("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")
        if done.returncode:
            raise FetchError(f"The package list of Debian {self.suite} could not be fetched "
                             f"({_apt_reason(done)}): check the network, the proxy and the mirror "
                             f"in {self.root}/sources.list, then run this again.")
        self.fresh = True

    def show(self, package):
        done = self.run("apt-cache", "show", "--no-all-versions", package)
        if done.returncode:
            raise FetchError(f"Debian {self.suite} has no package {package} for {self.arch} "
                             f"({_apt_reason(done)}): is the mirror complete?")
        fields = {}
        for line in done.stdout.splitlines():
            if ": " in line and line[0] not in " \t":
                key, value = line.split(": ", 1)
                fields.setdefault(key, value)
        return fields

    def missing(self, packages):
        """(package, version) of all that installing `packages` would bring."""
        done = self.run("apt-get", "-s", "-q", "-o", "Debug::NoLocking=1",
                        "--no-install-recommends", "-t", self.suite, "install", *packages)
        if done.returncode:
            raise FetchError(f"Debian {self.suite} has no {' and '.join(packages)} that this "
                             f"machine could install ({_apt_reason(done)}).")
        return re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", done.stdout, re.MULTILINE)

    def download(self, package, version, to):
        """Leaves the checked .deb in `to`; apt resumes a file an earlier run left unfinished."""
        done = self.run("apt-get", "download", "-q", f"{package}={version}", cwd=to)
        if done.returncode:
            raise FetchError(f"{package} {version} could not be downloaded "
                             f"({_apt_reason(done)}): check the network, then run this again.")
        debs = list(to.glob(f"{package}_*.deb"))
        if len(debs) != 1:
            raise FetchError(f"apt left {len(debs)} files for {package} in {to}: "
                             "remove that folder and run this again.")
        return debs[0]


def _apt_reason(done):
    lines = [re.sub(r"^[EW]:\s*|^\s+", "", line) for line in done.stderr.splitlines()
             if line.startswith(("E:", "W:"))]
    return lines[0] if lines else f"apt ended with status {done.returncode}"


# --- the cache ------------------------------------------------------------------

@contextlib.contextmanager
def locked(root):
    """One process at a time changes the cache."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = open(root / "lock", "w", encoding="ascii")
    except OSError as err:
        raise FetchError(f"The cache {root} cannot be written ({err.strerror}): "
                         "set VIOMMU_CACHE to a folder of yours.") from err
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _need_space(root, what, need):
    free = shutil.disk_usage(root).free
    if free < need:
        raise FetchError(f"{what} needs {need >> 20} MiB in {root} and {free >> 20} MiB are "
                         "free: free some, or set VIOMMU_CACHE to a folder on a larger disk.")


def _record(root, arch, package, suite):
    of_suite = "" if suite == SUITE else f"_{suite}"
    return root / "packages" / f"{package}{of_suite}_{arch}.json"


def _cached(root, arch, package, suite):
    """(version, folder) of a package resolved earlier, or None."""
    try:
        known = json.loads(_record(root, arch, package, suite).read_text(encoding="utf-8"))
        folder = root / "packages" / known["folder"]
        return (known["package"], known["version"], folder) if folder.is_dir() else None
    except (OSError, ValueError, KeyError):
        return None


def kernel_parts(image, info):
    """The packages that a kernel consists of: since Linux 7 image and modules are apart."""
    release = image.removeprefix("linux-image-")
    depends = (word.split()[0] for word in info.get("Depends", "").split(",") if word.strip())
    return [image, *(name for name in depends
                     if name.startswith("linux-") and name.endswith(f"-{release}"))]


def _unpack(apt, package, info, store, to, log):
    _need_space(store, package, int(info.get("Size", 0)) + MARGIN_BYTES +
                1024 * int(info.get("Installed-Size", 0)))
    version = info["Version"]
    log(f"downloading {package} {version} ({int(info.get('Size', 0)) / (1 << 20):.0f} MiB)")
    incoming = store / f"{package}_{version.replace(':', '%3a')}_{apt.arch}.download"
    incoming.mkdir(exist_ok=True)
    deb = apt.download(package, version, incoming)
    done = subprocess.run(["dpkg-deb", "-x", deb, to], text=True, capture_output=True, check=False)
    if done.returncode:
        shutil.rmtree(to, ignore_errors=True)
        raise FetchError(f"{deb.name} could not be unpacked ({done.stderr.strip()}): "
                         f"make room in {store} and run this again.")
    shutil.rmtree(incoming)


def fetch(package, arch="amd64", refresh=False, log=lambda text: None, suite=SUITE):
    """Unpacks a package (or, for a kernel metapackage, the kernel it depends on).

    Returns (package, version, folder).  An earlier result is reused unless `refresh`.
    """
    root = cache_dir()
    found = None if refresh else _cached(root, arch, package, suite)
    if found:
        return found
    with locked(root):
        found = None if refresh else _cached(root, arch, package, suite)
        if found:
            return found
        store = root / "packages"
        store.mkdir(exist_ok=True)
        apt = Apt(root, arch, suite)
        log(f"looking up {package} ({arch}) in Debian {suite}")
        _need_space(root, f"the package list of Debian {suite}", LIST_BYTES)
        apt.update()
        real, info = package, apt.show(package)
        parts = [package]
        if package in KERNELS.values():
            m = re.search(r"(linux-image-\d\S+)", info.get("Depends", ""))
            if not m:
                raise FetchError(f"{package} names no kernel: is the mirror complete?")
            real = m.group(1)
            info = apt.show(real)
            parts = kernel_parts(real, info)
        version = info["Version"]
        folder = store / f"{real}_{version.replace(':', '%3a')}_{arch}"
        if not folder.is_dir():
            unpacked = store / f"{folder.name}.unpacking"
            shutil.rmtree(unpacked, ignore_errors=True)
            for part in parts:
                _unpack(apt, part, apt.show(part), store, unpacked, log)
            unpacked.rename(folder)
        record = _record(root, arch, package, suite)
        fresh = record.with_suffix(".new")
        fresh.write_text(json.dumps({"package": real, "version": version,
                                     "folder": folder.name}), encoding="utf-8")
        fresh.rename(record)
        return real, version, folder


class Kernel:
    """An unpacked Debian kernel: its image and its modules."""

    def __init__(self, arch, flavour, package, version, folder):
        self.arch, self.flavour = arch, flavour
        self.package, self.version = package, version
        self.release = package.removeprefix("linux-image-")
        lib = folder / "usr/lib/modules" / self.release
        self.modules = lib if lib.is_dir() else folder / "lib/modules" / self.release
        # Since Linux 7 it lies beside the modules.
        boot = folder / "boot" / f"vmlinuz-{self.release}"
        self.image = boot if boot.exists() else self.modules / "vmlinuz"


def kernel(arch="amd64", flavour="cloud", refresh=False, log=lambda text: None, suite=SUITE):
    return Kernel(arch, flavour, *fetch(KERNELS[arch, flavour], arch, refresh, log, suite))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", choices=("amd64", "arm64"), default="amd64")
    parser.add_argument("--flavour", choices=("cloud", "generic"), default="cloud",
                        help="which of Debian's kernels")
    parser.add_argument("--suite", choices=SUITES, default=SUITE,
                        help="of which of Debian's releases (default: %(default)s)")
    parser.add_argument("--package", help="fetch this package instead of a kernel")
    parser.add_argument("--refresh", action="store_true",
                        help="look for a newer version than the cached one")
    args = parser.parse_args()
    name = args.package or KERNELS[args.arch, args.flavour]
    try:
        _, _, folder = fetch(name, args.arch, args.refresh,
                             lambda text: print(text, file=sys.stderr), args.suite)
    except (FetchError, OSError) as err:
        sys.exit(f"fetch: {err}")
    print(folder)


if __name__ == "__main__":
    main()
