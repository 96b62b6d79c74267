#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""qemu/prepare's decisions and its failures, on machines, patches and trees made up here."""

import contextlib
import fcntl
import importlib.machinery
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

REPOSITORY = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
loader = importlib.machinery.SourceFileLoader("prepare", str(REPOSITORY / "qemu/prepare"))
prepare = importlib.util.module_from_spec(importlib.util.spec_from_loader("prepare", loader))
loader.exec_module(prepare)

PATCH = """\
Change a line.

--- a/hw/lamp.c
+++ b/hw/lamp.c
@@ -1,3 +1,3 @@
 first
-second
+changed
 third
"""


class FakeHost(prepare.Host):
    """Debian 12 with everything in place, until a test says otherwise."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.repository = self.folder / "checkout"
        self.os_release = self.folder / "os-release"
        self.free = 100000
        self.machine = "x86_64"
        self.commands_missing = set()
        self.packages_missing = []
        self.set_release("debian", "12", "bookworm")
        for series in prepare.ARCHIVES:
            self.patches(series).mkdir(parents=True)
            self.set_patches({}, series)

    def set_release(self, name, version, codename):
        self.os_release.write_text(
            f'PRETTY_NAME="{name.title()} {version} ({codename})"\nID={name}\n'
            f'VERSION_ID="{version}"\nVERSION_CODENAME={codename}\n')

    def set_patches(self, patches, series="10.0"):
        for name, text in patches.items():
            (self.patches(series) / name).write_text(text)
        (self.patches(series) / "series").write_text("".join(name + "\n" for name in patches))

    def cache(self):
        return self.folder / "cache"

    def free_mb(self, folder):
        return self.free

    def architecture(self):
        return self.machine

    def has_command(self, name):
        return name not in self.commands_missing and (name == "ccache" or shutil.which(name))

    def missing_packages(self):
        return self.packages_missing


class PrepareTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.host = FakeHost(self.folder)

    def call(self, *arguments):
        """Returns (exit code, what was said)."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = prepare.main(list(arguments), self.host)
        self.assertNotIn("Traceback", out.getvalue())
        return code, out.getvalue()

    def fails(self, *arguments):
        code, said = self.call(*arguments)
        self.assertEqual(code, 1, said)
        return said

    def own_tree(self, version="10.0.4", text="first\nsecond\nthird\n"):
        tree = self.folder / "qemu"
        (tree / "hw").mkdir(parents=True, exist_ok=True)
        (tree / "VERSION").write_text(version + "\n")
        (tree / "hw/lamp.c").write_text(text)
        return tree

    def source_package(self, text="first\nsecond\nthird\n", version="10.0.4+ds"):
        """A Debian source package in the cache, as if it had been downloaded."""
        folder = self.host.cache() / f"downloads/qemu_{version}"
        tree = folder / f"qemu-{version}"
        (tree / "debian/source").mkdir(parents=True)
        (tree / "debian/source/format").write_text("3.0 (native)\n")
        (tree / "debian/changelog").write_text(
            f"qemu ({version}) trixie; urgency=low\n\n  * Test.\n\n"
            " -- A B <a@example.org>  Thu, 01 Jan 1970 00:00:00 +0000\n")
        (tree / "debian/control").write_text(
            "Source: qemu\nMaintainer: A B <a@example.org>\n\n"
            "Package: qemu\nArchitecture: any\nDescription: test\n")
        (tree / "hw").mkdir()
        (tree / "hw/lamp.c").write_text(text)
        (tree / "configure").write_text("#!/bin/sh\necho 'ERROR: no lamp found' >&2\nexit 1\n")
        (tree / "configure").chmod(0o755)
        subprocess.run(["dpkg-source", "-b", tree.name], cwd=folder, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(tree)
        modern = mock.patch.object(prepare, "system_meson_is_new_enough", return_value=True)
        modern.start()
        self.addCleanup(modern.stop)

    # --- the machine ---

    def test_an_unsupported_distribution_is_named_with_the_way_out(self):
        self.host.set_release("ubuntu", "24.04", "noble")
        said = self.fails()
        self.assertIn("Ubuntu 24.04 (noble) is not supported", said)
        self.assertIn("--source DIR", said)

    def test_a_machine_without_os_release_is_unsupported(self):
        self.host.os_release.unlink()
        self.assertIn("This system is not supported", self.fails())

    def test_another_architecture_is_unsupported(self):
        self.host.machine = "aarch64"
        self.assertIn("aarch64 machine is not supported", self.fails())

    def test_debian_13_passes_the_machine_check(self):
        self.host.set_release("debian", "13", "trixie")
        prepare.check_machine(self.host)

    def test_missing_commands_and_packages_are_listed_once(self):
        self.host.commands_missing = {"ninja", "patch"}
        self.host.packages_missing = ["ninja-build", "libslirp-dev"]
        self.assertIn("apt-get install ninja-build patch libslirp-dev\n", self.fails())

    def test_too_little_disk_space_names_both_figures(self):
        self.host.free = 412
        said = self.fails()
        self.assertIn(f"needs {prepare.NEEDED_MB} MB", said)
        self.assertIn("412 MB are free", said)

    def test_an_unwritable_cache_is_one_sentence(self):
        self.host.cache().write_text("a file where the folder should be")
        self.assertIn(str(self.host.cache()), self.fails())

    # --- the network ---

    def test_without_network_the_mirror_and_the_reason_are_named(self):
        # Nothing listens on the discard port of this machine.
        with mock.patch.object(prepare, "debian_mirrors",
                               return_value=("http://127.0.0.1:9/debian", None)), \
                mock.patch.dict(os.environ, {"http_proxy": "", "no_proxy": "127.0.0.1"}):
            said = self.fails()
        self.assertIn("could not be fetched from http://127.0.0.1:9/debian: ", said)
        self.assertNotIn("apt gave no reason", said)
        self.assertIn("VIOMMU_DEBIAN_MIRROR", said)

    def test_a_stale_keyring_is_told_from_a_dead_network(self):
        apt = mock.Mock(spec=prepare.Apt)
        apt.host, apt.log = self.host, "log"
        apt.archive = prepare.ARCHIVES["10.0"]
        apt.call.return_value = (100, "W: GPG error: NO_PUBKEY 6ED0E7B82643E131\n")
        with mock.patch.object(prepare, "debian_mirrors", return_value=("http://x", None)), \
                self.assertRaises(prepare.Failure) as caught:
            prepare.Apt.update(apt, prepare.Progress(1, io.StringIO()))
        self.assertIn("debian-archive-keyring", caught.exception.hint)

    def mirrors(self, *releases, codename="bookworm"):
        uris = "".join(f"'{uri}/InRelease' some_file 0 \n" for uri in releases)
        return prepare.mirrors_of(uris, codename)

    def test_the_mirror_is_debians_and_not_a_third_partys(self):
        self.assertEqual(
            self.mirrors("https://packages.example/php/dists/bookworm",
                         "http://mirror.example/debian/dists/bookworm",
                         "http://mirror.example/debian/dists/bookworm-updates",
                         "http://mirror.example/debian-security/dists/bookworm-security"),
            ("http://mirror.example/debian", "http://mirror.example/debian-security"))

    def test_only_third_parties_configured_give_no_mirror(self):
        self.assertEqual(self.mirrors("https://packages.example/php/dists/bookworm",
                                      "https://tools.example/dists/stable"), (None, None))

    def test_a_lone_debian_suite_is_enough_for_the_mirror(self):
        self.assertEqual(self.mirrors("http://mirror.example/debian/dists/trixie",
                                      codename="trixie"), ("http://mirror.example/debian", None))

    def test_both_formats_of_the_system_configuration_are_read(self):
        (self.folder / "parts").mkdir()
        formats = {
            "one.list": "deb http://one.example/debian bookworm main\n"
                        "deb http://one.example/debian bookworm-updates main\n",
            "two.sources": "Types: deb\nURIs: http://two.example/debian\n"
                           "Suites: bookworm bookworm-updates\nComponents: main\n",
        }
        for name, text in formats.items():
            with self.subTest(name):
                part = self.folder / "parts" / name
                part.write_text(text)
                configuration = self.folder / "apt.conf"
                configuration.write_text(f'Dir::Etc::SourceList "/dev/null";\n'
                                         f'Dir::Etc::SourceParts "{part.parent}";\n')
                with mock.patch.object(prepare, "clean_environment", return_value={
                        **os.environ, "APT_CONFIG": str(configuration)}):
                    main, _ = prepare.debian_mirrors(self.host)
                self.assertEqual(main, f"http://{name.split('.', maxsplit=1)[0]}.example/debian")
                part.unlink()

    # --- patches ---

    def test_a_fitting_own_tree_is_left_as_it_was(self):
        self.host.set_patches({"0001-lamp.patch": PATCH})
        tree = self.own_tree()
        code, said = self.call("--source", str(tree))
        self.assertEqual(code, 0, said)
        self.assertIn("All 1 patches fit QEMU 10.0.4", said)
        self.assertEqual((tree / "hw/lamp.c").read_text(), "first\nsecond\nthird\n")

    def test_an_own_tree_without_firmware_is_told_where_debian_has_it(self):
        self.host.set_patches({"0001-lamp.patch": PATCH})
        tree = self.own_tree()
        said = self.call("--source", str(tree))[1]
        self.assertIn("--firmwarepath=/usr/share/seabios:", said)
        self.assertIn("ln -s /usr qemu-bundle/usr", said)
        (tree / "pc-bios").mkdir()
        (tree / "pc-bios/bios-256k.bin").touch()
        said = self.call("--source", str(tree))[1]
        self.assertNotIn("firmware", said)
        self.assertNotIn("qemu-bundle", said)

    def test_a_patch_that_builds_on_an_earlier_one_fits(self):
        second = PATCH.replace("-second", "-changed").replace("+changed", "+changed again")
        self.host.set_patches({"0001-lamp.patch": PATCH, "0002-again.patch": second})
        code, said = self.call("--source", str(self.own_tree()))
        self.assertEqual(code, 0, said)

    def test_a_failing_patch_and_its_file_are_named(self):
        self.host.set_patches({"0001-lamp.patch": PATCH})
        said = self.fails("--source", str(self.own_tree(text="something\nelse\nentirely\n")))
        self.assertIn("Patch 0001-lamp.patch does not fit QEMU 10.0.4", said)
        self.assertIn("fails in hw/lamp.c", said)

    def test_a_patch_of_a_missing_file_names_that_file(self):
        self.host.set_patches({"0001-lamp.patch": PATCH})
        tree = self.own_tree()
        (tree / "hw/lamp.c").unlink()
        self.assertIn("fails in hw/lamp.c", self.fails("--source", str(tree)))

    def test_a_tree_that_has_the_patch_already_is_told_so(self):
        self.host.set_patches({"0001-lamp.patch": PATCH})
        said = self.fails("--source", str(self.own_tree(text="first\nchanged\nthird\n")))
        self.assertIn("0001-lamp.patch is applied already", said)

    def test_another_version_is_refused(self):
        for version in "9.2.0", "10.1.91", "11.1.3", "10":
            self.assertIn(f"is QEMU {version}; there are patches for QEMU 10.0 and 10.2.\n",
                          self.fails("--source", str(self.own_tree(version=version))))

    def test_an_own_tree_gets_the_patches_of_its_version(self):
        self.host.set_patches({"0001-lamp.patch": PATCH}, "10.2")
        code, said = self.call("--source", str(self.own_tree(version="10.2.2")))
        self.assertEqual(code, 0, said)
        self.assertIn("All 1 patches fit QEMU 10.2.2", said)
        self.assertIn("/qemu/10.2/0001-lamp.patch\n", said)

    def test_a_version_without_patches_is_named_with_those_that_have_some(self):
        for action in [], ["--print", "key"], ["--update"]:
            self.assertIn("There are no patches for QEMU 9.9, only for 10.0 and 10.2.\n",
                          self.fails("--qemu", "9.9", *action))

    def test_a_folder_that_is_no_source_tree_is_refused(self):
        self.assertIn("is not a QEMU source tree", self.fails("--source", str(self.folder)))

    def test_a_series_that_names_a_missing_patch_is_refused(self):
        (self.host.patches("10.0") / "series").write_text("0001-gone.patch\n")
        self.assertIn("0001-gone.patch, which does not exist",
                      self.fails("--source", str(self.own_tree())))

    def test_a_failing_patch_stops_the_build_and_leaves_no_source_folder(self):
        self.source_package(text="something\nelse\nentirely\n")
        self.host.set_patches({"0001-lamp.patch": PATCH})
        said = self.fails()
        self.assertIn("Patch 0001-lamp.patch does not fit", said)
        self.assertEqual(list(self.host.cache().glob("10.0-*/src")), [])

    def test_a_failing_configure_says_why_and_resumes_after_the_patches(self):
        self.source_package()
        self.host.set_patches({"0001-lamp.patch": PATCH})
        self.assertIn("configure failed: ERROR: no lamp found", self.fails())
        [lamp] = self.host.cache().glob("10.0-*/src/hw/lamp.c")
        self.assertEqual(lamp.read_text(), "first\nchanged\nthird\n")
        self.assertIn("patches (done before)", self.fails())

    def test_a_failing_build_names_the_error(self):
        build = prepare.Build(self.host, self.host.cache(), "1:10.0.4", [])
        build.build.mkdir(parents=True)
        lines = ["[1/2] cc lamp.o", "FAILED: lamp.o", "lamp.c:3:1: error: no bulb",
                 "ninja: stopped"]
        with mock.patch.object(prepare, "run", return_value=(1, lines)), \
                mock.patch.object(prepare.Build, "modules", return_value=[]), \
                self.assertRaises(prepare.Failure) as caught:
            build.compile(prepare.Progress(1, io.StringIO()))
        self.assertIn("lamp.c:3:1: error: no bulb", str(caught.exception))
        self.assertIn("build.log", caught.exception.hint)

    # --- the cache ---

    def key(self, version="1:10.0.4"):
        return prepare.Build(self.host, self.host.cache(), version,
                             prepare.read_series(self.host.patches("10.0"))).key

    def test_the_key_follows_all_that_the_build_contains(self):
        self.host.set_patches({"0001-lamp.patch": PATCH})
        keys = [self.key(), self.key(version="1:10.0.5")]
        self.host.set_patches({"0001-lamp.patch": PATCH + " more\n"})
        keys.append(self.key())
        with mock.patch.object(prepare, "CONFIGURE", ["--enable-lamp"]):
            keys.append(self.key())
        self.host.set_release("debian", "13", "trixie")
        keys.append(self.key())
        self.assertEqual(len(set(keys)), 5)
        self.assertEqual(self.key(), keys[-1])

    def test_clean_keeps_the_two_builds_of_each_version_that_were_used_last(self):
        for age, name in enumerate(["10.0-c", "10.0-a", "10.2-a", "10.0-b", "10.2-c", "10.2-b",
                                    "10.0-d"]):
            (self.host.cache() / name / "src").mkdir(parents=True)
            os.utime(self.host.cache() / name, (1e9 - age, 1e9 - age))
        (self.host.cache() / "downloads").mkdir()
        self.assertEqual(self.call("--clean")[0], 0)
        self.assertEqual(sorted(path.name for path in self.host.cache().iterdir()
                                if path.is_dir()), ["10.0-a", "10.0-c", "10.2-a", "10.2-c",
                                                  "downloads"])

    def ready_build(self, version="10.0.4+ds"):
        self.source_package(version=version)
        build = prepare.current_build(self.host, prepare.series_of(version), self.host.cache())
        for folder in (build.source, build.build, build.prefix):
            folder.mkdir(parents=True)
        return build

    def test_a_ready_build_needs_neither_disk_nor_network_nor_tools(self):
        build = self.ready_build()
        self.host.free = 0
        self.host.commands_missing = {"apt-get", "ninja"}
        code, said = self.call()
        self.assertEqual(code, 0, said)
        self.assertIn(str(build.prefix), said)

    def test_paths_are_printed_for_a_ready_build_only(self):
        self.assertIn("not prepared", self.fails("--print", "build"))
        build = self.ready_build()
        self.assertEqual(self.call("--print", "build"), (0, f"{build.build}\n"))
        self.assertIn(f"VIOMMU_QEMU_PREFIX={build.prefix}\n", self.call("--print-env")[1])

    def test_each_version_has_a_build_of_its_own(self):
        older = self.ready_build()
        self.assertIn("QEMU 10.2 is not prepared", self.fails("--qemu", "10.2", "--print", "build"))
        newer = self.ready_build("10.2.2+ds")
        self.assertEqual(self.call("--print", "build")[1], f"{older.build}\n")
        self.assertEqual(self.call("--qemu", "10.2", "--print", "build")[1], f"{newer.build}\n")
        self.assertIn("QEMU 10.2.2+ds with 0 patches is ready", self.call("--qemu", "10.2")[1])

    def test_the_source_of_each_version_comes_from_its_archive(self):
        for series, suites in {"10.0": ["trixie", "trixie-security"], "10.2": ["sid"]}.items():
            with self.subTest(series), \
                    mock.patch.object(prepare, "debian_mirrors", return_value=("m", "s")), \
                    mock.patch.object(prepare.Apt, "call", return_value=(0, "")):
                folder = self.folder / ("apt-" + series)
                prepare.Apt(self.host, series, folder, "log", False).update(
                    prepare.Progress(1, io.StringIO()))
                lines = (folder / "sources.list").read_text().splitlines()
                self.assertEqual([line.split()[3] for line in lines], suites)

    def test_a_version_that_the_archive_has_no_more_is_named_with_the_way_out(self):
        apt = prepare.Apt(self.host, "10.2", self.folder / "apt", "log", False)
        said = "Version: 1:11.1.3+ds-1\nVersion: 1:10.0.13+ds-0+deb13u1\n"
        with mock.patch.object(prepare.Apt, "call", return_value=(0, said)), \
                self.assertRaises(prepare.Failure) as caught:
            apt.newest_source()
        self.assertIn("Debian unstable offers no QEMU 10.2 source", str(caught.exception))
        self.assertIn("--source DIR", caught.exception.hint)

    def test_a_second_run_waits_for_the_first(self):
        self.host.cache().mkdir()
        with open(self.host.cache() / ".lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            script = (f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
                      "from pathlib import Path\nimport prepare_test\n"
                      f"with prepare_test.prepare.locked(Path({str(self.host.cache())!r})):\n"
                      "    print('got it', flush=True)\n")
            with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True) as second:
                self.assertIn("waiting", second.stderr.readline())
                time.sleep(0.2)
                self.assertIsNone(second.poll())
                fcntl.flock(lock, fcntl.LOCK_UN)
                self.assertEqual(second.stdout.read(), "got it\n")

    def test_progress_in_a_log_file_is_one_line_per_tenth(self):
        stream = io.StringIO()
        progress = prepare.Progress(1, stream)
        for step in range(3001):
            progress.percent(100 * step / 3000, "")
        self.assertEqual(len(stream.getvalue().splitlines()), 11)


if __name__ == "__main__":
    unittest.main()
