#!/usr/bin/env python3
"""Settings that make no sense, and environments that change.

Each value that cannot be understood costs one line on stderr that names the variable, and
nothing else.

--long: each variable by itself with each value, 30 s; by default all variables have the value
at once.
"""

import os
import re
import resource
import subprocess
import sys
import unittest

from surroundings_harness import IN_NAMESPACE, LONG, SurroundingsTest, main, needs_mounts

VARIABLES = ("DIR BOX_DIR SAMPLE_INTERVAL THRESHOLDS LIMIT METRIC ETA SIGNAL DUMP_AT_EXIT "
             "PROGRAMS KEEP BOX_SIZE BOX_MODE MAX_STACK VERBOSE").split()
LONGEST = 128 * 1024 - 1  # of NAME=VALUE, without the zero byte; the kernel takes no longer one
NONSENSE = (
    "x", "-1", "0", "1", "18446744073709551616", "9" * 400, "1e9", "%", "100%%", "0%", "101%", ",",
    ",,,", "80%,", "0x10", "1.5.5", "NaN", "1 2", "\t1\n", "a\nheapflare: b\n", "\x1b[31m",
    "relative/path", "../..", "/dev/null", "/proc/self", "/\x01", "$(reboot)", "%s%n%p",
    os.fsdecode(b"\xff\xfe\x80"),
    "\u0661\u0662", "USR1,USR2", "KILL", "RTMIN+99", "working_set ", "SIGSEGV", "a" * 5000,
)


class Settings(SurroundingsTest):
    def setUp(self):
        super().setUp()
        # Where a directory makes no sense the default is used: not the machine's.
        if IN_NAMESPACE in os.environ:
            for path in (f"/tmp/heapflare-{os.geteuid()}", "/dev/shm"):
                self.volume(path, "32m")

    def check_value(self, name, value):
        variable = f"HEAPFLARE_{name}"
        self.settings[variable] = value
        done = self.survives("work:100", "fork")
        self.assertLessEqual(len(done.lines), 3, done)
        for line in done.lines:
            # Where the value is a directory, it is that that the line names.
            self.assertTrue(variable in line or name in ("DIR", "BOX_DIR", "VERBOSE"), done)
        return done

    @needs_mounts
    def test_each_nonsense_in_all_variables_at_once(self):
        for value in NONSENSE:
            with self.subTest(value=value[:30]):
                for name in VARIABLES:
                    self.settings[f"HEAPFLARE_{name}"] = value
                # Of another program nothing would be recorded.
                self.settings["HEAPFLARE_PROGRAMS"] = f"{value},surroundings_service"[-1000:]
                done = self.survives("work:100", "fork")
                about = [line.split(": ")[1] for line in done.lines if ": HEAPFLARE_" in line]
                self.assertEqual(len(about), len(set(about)), done)
                others = [line for line in done.lines if ": HEAPFLARE_" not in line]
                # What HEAPFLARE_VERBOSE=1 asks for does not count.
                others = [line for line in others if not re.match(
                    "heapflare: (profiling|dump) ", line)]
                self.assertLessEqual(len(others), 4, done)

    @needs_mounts
    @unittest.skipUnless(LONG, "with --long")
    def test_each_variable_with_each_nonsense(self):
        plain = dict(self.settings)
        for name in VARIABLES:
            for value in NONSENSE:
                with self.subTest(name=name, value=value[:30]):
                    self.settings = dict(plain)
                    self.check_value(name, value)

    def test_an_empty_value_is_none(self):
        for name in VARIABLES:
            self.settings[f"HEAPFLARE_{name}"] = ""
        # Not into the default directories.
        self.settings.update(HEAPFLARE_DIR=self.dumps, HEAPFLARE_BOX_DIR=self.boxes)
        self.survives("work:300", "dump", lines=0)
        self.check_profiles(at_least=1)

    @needs_mounts
    def test_the_longest_value_that_the_kernel_takes(self):
        plain = dict(self.settings)
        for name in VARIABLES:
            room = LONGEST - len(f"HEAPFLARE_{name}=")
            for character in ("9", "/", ",", "a") if LONG else ("9", "a"):
                with self.subTest(name=name, character=character):
                    self.settings = dict(plain)
                    done = self.check_value(name, character * room)
                    self.assertTrue(all(len(line) < 1024 for line in done.lines))

    def test_values_behind_three_mebibytes_of_environment_are_found(self):
        # So much fits where the stack may have 16 MiB; the order is that of this dictionary.
        self.settings = {**{f"FILLER_{i}": "x" * 120_000 for i in range(24)}, **self.settings,
                         "HEAPFLARE_KEEP": "bogus"}
        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        if hard not in (resource.RLIM_INFINITY,) and hard < 16 << 20:
            self.skipTest("so large an environment cannot be had here")
        actions = ("work:100",)
        expected = self.without(*actions, environment=os.environ)
        done = self.run_service(*actions, preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_STACK, (16 << 20, hard)))
        self.assertEqual((done.status, done.result(), len(done.lines)), (0, expected, 1), done)
        self.assertIn("HEAPFLARE_KEEP: 'bogus'", done.err)

    def test_a_variable_that_does_not_exist(self):
        for name in ("HEAPFLARE_", "HEAPFLARE_DIRECTORY", "HEAPFLARE_" + "X" * 3000):
            self.settings[name] = "1"
            done = self.survives("work:100", lines=1)
            self.assertIn("no such variable; ignored", done.err)
            del self.settings[name]

    def test_duplicates(self):
        """Only execve itself can make them."""
        code = ("import ctypes, sys; a = [x.encode() for x in sys.argv[1:]]; e = a[1:]; "
                "ctypes.CDLL(None).execve(a[0], (ctypes.c_char_p * 3)(a[0], b'work:100', None), "
                "(ctypes.c_char_p * (len(e) + 1))(*e, None))")
        for keeps in (("3", "bogus"), ("bogus", "3"), ("3", "4"), ("bogus", "bad")):
            done = subprocess.run(
                [sys.executable, "-c", code, self.service, f"LD_PRELOAD={self.library}",
                 f"HEAPFLARE_BOX_DIR={self.boxes}", *(f"HEAPFLARE_KEEP={k}" for k in keeps)],
                capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 0, done)
            self.assertIn("result " + self.without("work:100"), done.stdout)
            wrong = [k for k in keeps if not k.isdigit()]
            self.assertEqual(len(done.stderr.splitlines()), len(wrong), done.stderr)
            for k in wrong:
                self.assertIn(f"HEAPFLARE_KEEP: '{k}'", done.stderr)

    def test_an_environment_that_the_program_clears(self):
        done = self.survives("clearenv", "work:300", "fork", "threads:2", "dump", lines=0)
        self.assertIn("dump 0\n", done.out)
        self.check_profiles(at_least=1)

    def test_an_environment_that_a_thread_changes_all_the_time(self):
        done = self.survives("setenv", "work:300", "threads:4", "fork", "fork", "dump", lines=0)
        self.assertIn("dump 0\n", done.out)
        self.check_profiles(at_least=1)


if __name__ == "__main__":
    main()
