#!/usr/bin/env python3
"""On 64-bit ARM the recorder builds, its parts pass their tests, and a program is profiled.

Cross-compiled with Debian's g++-aarch64-linux-gnu into BUILD/aarch64 and run by qemu-user, which imitates the
processor and passes system calls on. Some of these it refuses: clone as the recorder's thread is made, so there is no
such thread here and hooks do without; ptrace and signals at single instructions. What needs those is left out below,
by name. Boxes are read by the command of the ordinary build: one format on both processors.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(ROOT, "tests", "support"), os.path.join(ROOT, "tests", "truth")]
import heap_profile  # noqa: E402
from preloaded import Functions  # noqa: E402

BUILD = os.path.abspath(os.environ.get("HEAPFLARE_BUILD", "build/release"))
CROSS = os.path.join(BUILD, "aarch64")
SYSROOT = "/usr/aarch64-linux-gnu"
QEMU = ["qemu-aarch64", "-cpu", "max", "-L", SYSROOT]


def reason_to_skip():
    for program in ("aarch64-linux-gnu-g++", "qemu-aarch64", "cmake", "ninja"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not os.path.exists("/usr/src/googletest/CMakeLists.txt"):
        return "GoogleTest's source (libgtest-dev) is not installed"
    return ""


def run(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


class Aarch64(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cached = ["CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER"]
        with open(os.path.join(BUILD, "CMakeCache.txt"), encoding="utf-8") as file:
            launchers = [line.strip() for line in file if line.startswith(tuple(cached))]
        sources = os.path.join(ROOT, "build", "_sources")
        with open(os.path.join(BUILD, "CMakeCache.txt"), encoding="utf-8") as file:
            for line in file:
                if line.startswith("HEAPFLARE_SOURCE_CACHE:"):
                    sources = line.strip().partition("=")[2] or sources
        run(["cmake", "--preset", "aarch64", "-B", CROSS, f"-DHEAPFLARE_SOURCE_CACHE={sources}",
             *(f"-D{setting}" for setting in launchers)], cwd=ROOT)
        run(["cmake", "--build", CROSS, "-j", str(os.cpu_count())])

    def test_the_recorders_parts_pass_their_tests(self):
        output = run(["ctest", "--test-dir", CROSS, "-j", str(os.cpu_count()), "--output-on-failure"])
        self.assertIn("100% tests passed", output)

    def test_a_program_is_profiled_and_so_is_its_forked_child(self):
        with tempfile.TemporaryDirectory(prefix="heapflare-aarch64-") as directory:
            program = os.path.join(CROSS, "bin", "profiled_program")
            # The recorder reads its settings from /proc/self/environ, which under qemu is qemu's own; -E sets
            # what only the program is to see.
            environment = {**os.environ, "HEAPFLARE_BOX_DIR": directory, "HEAPFLARE_DIR": directory,
                           "HEAPFLARE_SAMPLE_INTERVAL": "1", "HEAPFLARE_THRESHOLDS": ""}
            library = os.path.join(CROSS, "lib", "libheapflare.so")
            output = run([*QEMU, "-E", f"LD_PRELOAD={library}", program], cwd=directory, env=environment)
            child, process = output.split()
            for pid, expected in (process, {"Hold": (150, 150_000), "Free": (0, 0)}), (child, {"HoldInChild": (7, 7000)}):
                with self.subTest(pid):
                    boxes = glob.glob(os.path.join(directory, f"*.{pid}.*.box"))
                    self.assertEqual(len(boxes), 1, os.listdir(directory))
                    profile_file = os.path.join(directory, f"{pid}.pb.gz")
                    run([os.path.join(BUILD, "bin", "heapflare"), "dump", boxes[0], "-o", profile_file])
                    self.check(heap_profile.read(profile_file), program, expected)

    def check(self, profile, program, expected):
        functions = Functions(program)
        live = [profile.index("inuse_objects"), profile.index("inuse_space")]
        for function, values in expected.items():
            with self.subTest(function):
                held = [sample.values for sample in profile.samples
                        if function in (functions.name(profile, location) for location in sample.locations)]
                self.assertTrue(held, "it is in no stack")
                self.assertEqual(tuple(sum(row[column] for row in held) for column in live), values)


if __name__ == "__main__":
    if reason := reason_to_skip():
        print(f"skipped: {reason}")
        sys.exit(77)
    unittest.main()
