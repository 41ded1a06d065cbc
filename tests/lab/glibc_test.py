#!/usr/bin/env python3
"""One libheapflare.so, built once, in root file systems with other C libraries than its own.

Debian 11 (glibc 2.31, the oldest that can be had) and Debian 13 (2.41), unpacked from their
packages (debian_root.py), and this machine's own libraries. On each, a C++ program that was built against
Debian 11 leaks on 8 threads; on Debian 12 and later also the one that was built here. The dump must
agree with the program's ledger, and the stacks must reach from the leak to where threads begin.

Statistical: each comparison fails for no reason once in 16,000 runs; there are five.

HEAPFLARE_BUILD names the build directory. Exit status 77: cannot run here; the reason is printed.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [f"{TESTS}/support", f"{TESTS}/oom"]

import heap_profile  # noqa: E402
import root_tree  # noqa: E402
from agreement import compare_total  # noqa: E402
from debian_root import Unavailable, make_root  # noqa: E402
from ledger import Ledger  # noqa: E402

BUILD = os.path.abspath(os.environ.get("HEAPFLARE_BUILD", "build/release"))
LIBRARY = f"{BUILD}/lib/libheapflare.so"
NATIVE = f"{BUILD}/tests/oom/oom_scenarios"
RUNTIME = ["libc6", "libstdc++6", "libgcc-s1"]
TO_BUILD = ["libc6-dev", "linux-libc-dev", "libstdc++-10-dev", "libgcc-10-dev"]
INTERVAL = 64 << 10


def build_against(root, output):
    """oom_scenarios for Debian 11: its headers, C library and libstdc++, our compiler."""
    lib, gcc = "lib/x86_64-linux-gnu", "usr/lib/gcc/x86_64-linux-gnu/10"
    subprocess.run(
        [
            "g++", "-std=c++20", "-O2", "-g", f"-I{os.path.dirname(TESTS)}", f"--sysroot={root}",
            "-nostdinc++", "-isystem", f"{root}/usr/include/c++/10",
            "-isystem", f"{root}/usr/include/x86_64-linux-gnu/c++/10",
            f"-B{root}/usr/{lib}/", f"-L{root}/{gcc}", f"-L{root}/{lib}", f"-L{root}/usr/{lib}",
            f"{TESTS}/oom/oom_scenarios.cc", f"{TESTS}/oom/ledger_file.cc",
            "-o", output, "-pthread",
        ],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


class GlibcTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="heapflare-glibc-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.directory)

    def run_in(self, root, program):
        """Runs it in there; our directory has the same path inside: (exit status, its output)."""
        for name, file in (("program", program), ("libheapflare.so", LIBRARY)):
            shutil.copy(file, f"{self.directory}/{name}")
        # By the loader's option, since the shell and chroot are not to have it preloaded.
        script = (
            'mount -t proc proc "$0/proc" && mount -t tmpfs tmp "$0/tmp" && mkdir -p "$0$1" && '
            'mount --bind "$1" "$0$1" && cd / && exec chroot "$0" /lib64/ld-linux-x86-64.so.2 '
            '--preload "$1/libheapflare.so" "$1/program" '
            '--scenario=leak --limit=8 --threads=8 --ledger="$1/ledger"'
        )
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, root, self.directory],
            capture_output=True, text=True, timeout=60,
            env={"PATH": os.environ["PATH"], "HEAPFLARE_DIR": self.directory,
                 "HEAPFLARE_BOX_DIR": self.directory, "HEAPFLARE_DUMP_AT_EXIT": "1",
                 "HEAPFLARE_SAMPLE_INTERVAL": str(INTERVAL)},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def check(self, root, program):
        status, output = self.run_in(root, program)
        self.assertEqual((status, output), (3, SAID))
        (dump,) = glob.glob(f"{self.directory}/*.exit.pb.gz")
        self.assertEqual(glob.glob(f"{self.directory}/*.box"), [])  # a clean exit
        profile = heap_profile.read(dump)
        problems = heap_profile.heap_faults(profile)
        estimate = profile.total("inuse_space")
        compare_total(estimate, Ledger(f"{self.directory}/ledger"), INTERVAL, 1, problems)
        self.assertEqual(problems, [])
        subprocess.run(
            [f"{BUILD}/bin/heapflare", "symbolize", dump, "-o", f"{self.directory}/named.pb.gz"],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        named = heap_profile.read(f"{self.directory}/named.pb.gz")
        files = {mapping.id: os.path.basename(mapping.file) for mapping in named.mappings}
        whole = 0
        for sample in named.samples:
            if not sample.functions()[0].startswith("LeakByMalloc("):
                continue
            path = [files.get(location.mapping_id, "?") for location in sample.locations]
            # The program, libstdc++'s thread, then the C library down to clone.
            self.assertIn("libstdc++", "".join(path))
            self.assertRegex(path[-1], r"^libc[-.]")
            whole += sample.values[named.index("inuse_space")]
        self.assertGreater(whole, 0.95 * estimate)

    def test_debian_11(self):
        self.check(OLD, OLD_PROGRAM)

    def test_debian_12(self):
        root = f"{self.directory}-root"
        self.addCleanup(shutil.rmtree, root)
        root_tree.make_root(root, [NATIVE, LIBRARY])
        self.check(root, NATIVE)

    def test_debian_12_with_a_program_of_debian_11(self):
        root = f"{self.directory}-root"
        self.addCleanup(shutil.rmtree, root)
        root_tree.make_root(root, [OLD_PROGRAM, LIBRARY])
        self.check(root, OLD_PROGRAM)

    def test_debian_13(self):
        self.check(NEW, NATIVE)

    def test_debian_13_with_a_program_of_debian_11(self):
        self.check(NEW, OLD_PROGRAM)


SAID = "oom_scenarios: took what it was to take and was not killed\n"


def main():
    global OLD, NEW, OLD_PROGRAM
    if os.geteuid() != 0:
        print("skipped: chroot needs root")
        return 77
    try:
        OLD = make_root("bullseye", RUNTIME + TO_BUILD)
        NEW = make_root("trixie", RUNTIME)
    except Unavailable as why:
        print(f"skipped: no other C library can be had: {why}")
        return 77
    with tempfile.TemporaryDirectory(prefix="heapflare-glibc-") as directory:
        OLD_PROGRAM = f"{directory}/oom_scenarios"
        build_against(OLD, OLD_PROGRAM)
        return 0 if unittest.main(exit=False).result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
