#!/usr/bin/env python3
"""A program that uses musl cannot be profiled: it is told so, and runs all the same.

musl's loader gives up on a preloaded library that it cannot load, and says which symbols it misses;
nothing of ours gets to run there. So the command must look before: `heapflare run` runs the program
without preloading anything, `heapflare doctor` says no. HEAPFLARE_BUILD names the build directory.
Exit status 77: there is no musl-gcc.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = os.path.abspath(os.environ.get("HEAPFLARE_BUILD", "build/release"))
HEAPFLARE = f"{BUILD}/bin/heapflare"
LIBRARY = f"{BUILD}/lib/libheapflare.so"
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char** argv) {
  char* block = malloc(1 << 20);
  if (block == NULL) return 1;
  block[0] = (char)argc;
  printf("%s %d\n", argv[argc - 1], block[0]);
  free(block);
  return 7;
}
"""
EXPLANATION = "uses musl, the recorder needs glibc"


class MuslTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="heapflare-musl-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.program = f"{self.directory}/program"
        with open(f"{self.program}.c", "w", encoding="utf-8") as file:
            file.write(PROGRAM)
        self.compile()

    def compile(self, *options):
        subprocess.run(
            ["musl-gcc", *options, f"{self.program}.c", "-o", self.program], check=True, timeout=60
        )

    def run_command(self, *command, **variables):
        environment = {"PATH": os.environ["PATH"], "HEAPFLARE_DIR": self.directory,
                       "HEAPFLARE_BOX_DIR": self.directory, **variables}  # fmt: skip
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    def assert_nothing_was_recorded(self):
        names = os.listdir(self.directory)
        self.assertEqual([name for name in names if name.endswith((".box", ".gz", ".ctl"))], [])

    def test_run_says_why_not_and_runs_the_program(self):
        done = self.run_command(HEAPFLARE, "run", "--", self.program, "word")
        self.assertEqual((done.returncode, done.stdout), (7, "word 2\n"))
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertIn(EXPLANATION, done.stderr)
        self.assertIn("without profiling", done.stderr)
        self.assert_nothing_was_recorded()

    def test_doctor_says_why_not(self):
        done = self.run_command(HEAPFLARE, "doctor", "--", self.program)
        self.assertEqual(done.returncode, 1)
        (line,) = [line for line in done.stdout.splitlines() if EXPLANATION in line]
        self.assertTrue(line.startswith("FAIL"), line)
        self.assertIn("build it for glibc", line)

    def test_a_static_program_is_told_so_too(self):
        self.compile("-static")
        done = self.run_command(HEAPFLARE, "run", "--", self.program, "word")
        self.assertEqual((done.returncode, done.stdout), (7, "word 2\n"))
        self.assertIn("is linked statically", done.stderr)
        # Its loader does not exist, so even the variable alone is harmless.
        done = self.run_command(self.program, "word", LD_PRELOAD=LIBRARY)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (7, "word 2\n", ""))
        self.assert_nothing_was_recorded()

    def test_the_bare_variable_ends_in_musls_own_message_before_main(self):
        done = self.run_command(self.program, "word", LD_PRELOAD=LIBRARY)
        self.assertEqual((done.returncode, done.stdout), (127, ""))
        self.assertIn("libheapflare.so", done.stderr)
        self.assert_nothing_was_recorded()


if __name__ == "__main__":
    if shutil.which("musl-gcc") is None:
        print("skipped: there is no musl-gcc (package musl-tools)")
        sys.exit(77)
    unittest.main()
