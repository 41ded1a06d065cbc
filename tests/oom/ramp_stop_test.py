#!/usr/bin/env python3
"""A ramp of eight threads at full speed, in a real memory cgroup, stops while a rung's dump is written.

The recorder's thread is held by ptrace, so that no dump is ever done: then all threads must stand
still together, at each rung until their patience (100 ms in all) is over, and no longer. What they
stood still for is told by the program (ramp_program.cc). Nothing is asserted about speed: a loaded
machine makes threads arrive late at a stop, so the longest of three counts, and a third of its
length is enough. HEAPFLARE_BUILD names the build directory.
"""

import ctypes
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import memory_cgroup  # noqa: E402
from profiled import BUILD, LIBRARY, MIB, ProfiledTest  # noqa: E402

PROGRAM = os.path.join(BUILD, "tests", "oom", "ramp_program")
RUNGS = ("rung-40pct", "rung-60pct", "rung-80pct")
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
WALL = 0x40000000  # of waitpid: threads too


def ptrace(request, thread):
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_long(value) for value in (request, thread, 0, 0)]
    if libc.ptrace(*arguments) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


class Ramp(ProfiledTest):
    def ramp(self):
        try:
            cgroup = memory_cgroup.MemoryCgroup(256 * MIB)
        except memory_cgroup.Unavailable as why:
            self.skipTest(f"no memory cgroup can be made here: {why}")
        self.addCleanup(cgroup.remove)
        settings = self.with_settings(THRESHOLDS="40%,60%,80%", SAMPLE_INTERVAL="64KiB")
        program = self.start([PROGRAM, "8", "224"], dict(settings, LD_PRELOAD=LIBRARY), text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=cgroup.enter)
        self.assertEqual(program.stdout.readline(), "ready\n")
        # Served after the first look at memory, without which the hooks do not look either.
        box = self.wait_until(lambda: self.box_files(), "its box")[0]
        result = self.heapflare("snapshot", str(program.pid), "--set-interval=64KiB")
        self.assertEqual(result.returncode, 0, (result, box))
        return program

    def fill(self, program):
        """The longest times in which all stood still, ms."""
        program.stdin.write("\n")
        program.stdin.flush()
        said = [program.stdout.readline().split() for _ in range(4)]
        self.assertEqual([words[0] for words in said], ["still", "still", "still", "seconds"])
        return [float(words[1]) for words in said[:3]]

    def recorder_of(self, pid):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/comm", encoding="utf-8") as file:
                if file.read() == "heapflare\n":
                    return int(thread)
        return self.fail("it has no thread of the recorder's")

    def test_stands_still_until_patience_is_over_and_goes_on(self):
        program = self.ramp()
        recorder = self.recorder_of(program.pid)
        try:
            ptrace(PTRACE_SEIZE, recorder)
        except OSError as why:
            self.skipTest(f"ptrace is not allowed here: {why}")
        try:
            ptrace(PTRACE_INTERRUPT, recorder)
            os.waitpid(recorder, WALL)
            still = self.fill(program)
            self.assertEqual(self.reasons(), [], "the recorder's thread was not held")
        finally:
            # Else nobody can take the program apart.
            ptrace(PTRACE_DETACH, recorder)
        self.assertGreater(still[0], 33, "threads went on while a dump was under way")
        # What was wanted is written all the same, if late.
        self.wait_until(lambda: self.reasons() == list(RUNGS), "the dumps")

    def test_leaves_every_dump_on_the_way(self):
        program = self.ramp()
        self.fill(program)
        self.assertEqual(self.reasons(), list(RUNGS))


if __name__ == "__main__":
    unittest.main()
