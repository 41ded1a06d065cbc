#!/usr/bin/env python3
"""What a leak check at exit says and does: exit codes, suppressions, the report, the API, and what it
does where something is missing. What it finds is exit_test.py's. HEAPFLARE_BUILD names the build
directory.
"""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import heap_profile
from profiled import BUILD, LIBRARY, PATIENCE, ProfiledTest, needs

PROGRAM = os.path.join(BUILD, "tests", "leak", "exit_program")


class ExitTest(ProfiledTest):
    def check(self, *arguments, code=23, before=(), **settings):
        """Runs the program under a check, and compares its exit code."""
        environment = dict(self.with_settings(LEAK_CHECK=1, **settings), LD_PRELOAD=LIBRARY,
                           HEAPFLARE_SYMBOL_CACHE="")
        environment.pop("DEBUGINFOD_URLS", None)
        done = subprocess.run([*before, PROGRAM, *arguments], env=environment, capture_output=True,
                              text=True, timeout=PATIENCE, check=False)
        self.assertEqual(done.returncode, code, done)
        return done

    def suppressing(self, text, code):
        path = self.write("suppressions", text)
        return self.check("leak", code=code, LEAK_SUPPRESSIONS=path)

    def leaks(self):
        """Blocks by function, from the profile that was written; one at most."""
        found = {}
        paths = self.files(self.dumps, ".pb.gz")
        self.assertLessEqual(len(paths), 1)
        for path in paths:
            profile = heap_profile.read(path)
            self.assertEqual([kind for kind, _ in profile.sample_types],
                             ["leaked_objects", "leaked_space"])
            for sample in profile.samples:
                name = next(name for name in sample.functions() if "malloc" not in name)
                name = name.rpartition("::")[2].partition("(")[0]
                objects, size = found.get(name, (0, 0))
                found[name] = (objects + sample.values[0], size + sample.values[1])
                self.assertEqual(sample.labels.get("evidence"), "direct")
        return found

    def test_leaks_are_reported_by_stack_and_end_the_program_with_23(self):
        done = self.check("leak", "text")
        self.assertEqual(done.stdout, "kept until the end\n")
        self.assertRegex(done.stderr, r"4 blocks")
        self.assertRegex(done.stderr, r"Cache::Insert\b[^\n]*exit_program\.cc:\d+")
        self.assertEqual(self.leaks(), {"Insert": (3, 3000), "exported_leak": (1, 500)})

    def test_nothing_is_said_and_nothing_changes_where_nothing_leaks(self):
        self.assertEqual(self.check("text", "status", "7", code=7).stderr, "")
        self.assertEqual(self.leaks(), {})

    def test_the_exit_code_is_configurable(self):
        self.check("leak", code=99, LEAK_EXIT_CODE=99)

    def test_without_an_exit_code_of_ours_the_programs_own_stays(self):
        done = self.check("leak", "status", "7", code=7, LEAK_EXIT_CODE=0)
        self.assertIn("Cache::Insert", done.stderr)

    def test_suppressions_match_functions_files_and_modules(self):
        everything = "leak:exit_program\n"
        for text in ("leak:Cache::Insert\nleak:^exported_leak$\n",
                     "# a comment\n\nleak:C*::Ins*t\nleak:exported\n",
                     "leak:exit_program.cc\n", everything):
            with self.subTest(text):
                self.suppressing(text, code=0)

    def test_suppressions_leave_the_rest(self):
        for text in ("leak:Cache::Insert\n", "leak:Cache::*\nleak:^xported\nleak:Insert$$$nothing\n"):
            with self.subTest(text):
                done = self.suppressing(text, code=23)
                self.assertIn("exported_leak", done.stderr)
                self.assertRegex(done.stderr, r"(?i)suppress[^\n]*3|3[^\n]*suppress")

    def test_anchors_hold_at_the_ends_of_names(self):
        self.suppressing("leak:^Insert\nleak:exported$\n", code=23)

    def test_a_missing_suppressions_file_is_named(self):
        done = self.check("leak", LEAK_SUPPRESSIONS=self.path("missing"))
        self.assertIn(self.path("missing"), done.stderr)

    def test_run_with_leak_check_does_the_same(self):
        done = self.heapflare("run", "--leak-check", "--leak-exit-code=5", "--", PROGRAM, "leak")
        self.assertEqual(done.returncode, 5, done)
        self.assertIn("Cache::Insert", done.stderr)

    def test_a_program_can_ask_and_goes_on(self):
        done = self.check("now", code=23)
        self.assertEqual(done.stdout, "0 1\n")

    def test_without_the_command_the_recorder_reports_what_it_can(self):
        done = self.check("leak", COMMAND="/nonexistent/heapflare")
        self.assertIn("exit_program+0x", done.stderr)
        self.assertIn("4 blocks", done.stderr)
        path = self.write("suppressions", "leak:exit_program\n")
        self.check("leak", code=0, COMMAND="/nonexistent/heapflare", LEAK_SUPPRESSIONS=path)

    @needs("strace")
    def test_where_threads_cannot_be_stopped_it_says_so_and_checks_all_the_same(self):
        done = self.check("leak", before=["strace", "-f", "-e", "trace=none", "-o", "/dev/null"])
        self.assertIn("threads could not be stopped", done.stderr)
        self.assertEqual(self.leaks(), {"Insert": (3, 3000), "exported_leak": (1, 500)})

    def test_the_library_alone_does_nothing_for_a_program_that_asks(self):
        done = subprocess.run([PROGRAM, "now"], env=self.clean, capture_output=True, text=True,
                              timeout=PATIENCE, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, "-1 -1\n"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
