#!/usr/bin/env python3
"""Every system call that the recorder makes fails, and the service does not notice.

surroundings_inject makes the calls fail that are made from inside libheapflare.so, and no
others: each of them, with each errno, the first, second, ... time only, and always. Each time
the service must end in time with the result that it has without heapflare; whatever has a final
name must be complete; nothing may be left over; a box that is there must be readable.

By default each call fails in six ways, 25 s. --long: each errno at each of the first dozen
calls, from the third on and always, about ten minutes.
"""

import collections
import concurrent.futures
import errno
import glob
import os
import subprocess
import sys
import time
import unittest

from surroundings_harness import BUILD, LONG, SurroundingsTest, main, system_calls

INJECT = os.path.join(BUILD, "tests/survival/surroundings_inject")
# Every way to come to the recorder: samples, threads, fork, a dump that is asked for, by a
# signal, by a request larger than the limit, at exit; a change of the interval; frees.
ACTIONS = ("work:300", "threads:2", "fork", "stacks:5", "dump", "signal:12", "big:2000",
           "interval:1", "work:100", "hold:1", "drop")
ERRORS = ("EINTR", "EAGAIN", "EIO", "ENOSPC", "EMFILE", "ENOMEM", "EPERM", "ENOSYS")
NAMES = {number: name for name, number in system_calls().items()}
# What ends the process or comes back from a signal handler cannot fail.
NEVER_FAIL = ("exit", "exit_group", "rt_sigreturn")
# Without files that have no name yet, or without removing, the end of the process in the middle
# of a dump leaves a part of one. A process that cannot remove a file or does not know its number
# leaves the box.
MAY_LEAVE_PART = ("openat", "linkat", "unlinkat")
MAY_LEAVE_BOX = ("unlinkat", "getpid")

Fault = collections.namedtuple("Fault", "call error at always")


class Faults(SurroundingsTest):
    def setUp(self):
        super().setUp()
        self.settings.update(
            HEAPFLARE_DUMP_AT_EXIT="1", HEAPFLARE_SIGNAL="USR2", HEAPFLARE_LIMIT="1GiB",
            HEAPFLARE_METRIC="rss", HEAPFLARE_THRESHOLDS="1MiB,90%")

    def run_injected(self, number, *options, leave_box=False):
        """(status, stdout, stderr, report, directory) with directories of the run's own."""
        own = os.path.join(self.directory, f"run{number}")
        os.mkdir(own)
        report = os.path.join(own, "report")
        actions = [*ACTIONS, "_exit"] if leave_box else ACTIONS
        launcher = [INJECT, f"--report={report}", *options, "--"]
        environment = dict(self.environment(), HEAPFLARE_DIR=os.path.join(own, "dumps"),
                           HEAPFLARE_BOX_DIR=os.path.join(own, "boxes"))
        done = subprocess.run(self.command_line(actions, launcher), env=environment,
                              capture_output=True, text=True, timeout=120, check=False)
        with open(report, encoding="ascii") as file:
            return done, dict(line.split() for line in file), own

    def calls(self):
        """What the recorder calls in a run in which nothing fails, and how often."""
        done, report, own = self.run_injected("all")
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(done.stderr, "")
        self.assertGreaterEqual(len(self.profiles(os.path.join(own, "dumps"))), 4)
        counts = {int(n): int(count) for n, count in report.items() if n != "injected"}
        return {n: count for n, count in counts.items() if NAMES[n] not in NEVER_FAIL}

    def faults(self, counts):
        turn = 0
        for call, count in sorted(counts.items()):
            if LONG:
                for error in ERRORS:
                    for at in range(1, min(count, 12) + 1):
                        yield Fault(call, error, at, False)
                    yield Fault(call, error, 1, True)
                    yield Fault(call, error, 3, True)
                continue
            yield Fault(call, "EINTR", 1, True)
            for at, always in ((1, False), (2, False), (3 + turn % 9, False), (1, True),
                               (1 + turn % 7, True)):
                if at <= count:
                    yield Fault(call, ERRORS[turn % len(ERRORS)], at, always)
                turn += 1
            turn += 1

    def check_fault(self, numbered):
        """How often it was injected, and what went wrong."""
        number, fault = numbered
        when = f"--{'from' if fault.always else 'at'}={fault.at}"
        name = NAMES[fault.call]
        what = f"{name} {when} {fault.error}: "
        leave_box = number % 2 == 0
        try:
            done, report, own = self.run_injected(
                number, f"--call={fault.call}", f"--error={getattr(errno, fault.error)}", when,
                leave_box=leave_box)
        except subprocess.TimeoutExpired:
            return 0, what + "did not end"
        said = done.stderr.splitlines()
        if done.returncode != 0 or f"result {self.result}" not in done.stdout:
            return 0, what + f"status {done.returncode}, {done.stdout}{done.stderr}"
        if len(said) > 6 or not all(line.startswith("heapflare: ") for line in said):
            return 0, what + done.stderr
        try:
            self.check_profiles(os.path.join(own, "dumps"))
            boxes = self.boxes_in(os.path.join(own, "boxes"))
            left = [] if name in MAY_LEAVE_PART else glob.glob(
                os.path.join(own, "dumps", ".*.tmp"))
            if not leave_box and name not in MAY_LEAVE_BOX:
                left += glob.glob(os.path.join(own, "boxes", "*"))
            self.assertEqual(left, [])
            if leave_box:
                for box in boxes:
                    self.check_box(box, own)
        except Exception as problem:  # pylint: disable=broad-except
            return 0, what + str(problem)
        subprocess.run(["rm", "-r", own], check=True)
        return int(report["injected"]), None

    def check_box(self, box, own):
        done = subprocess.run(
            [self.command, "dump", box, "-o", os.path.join(own, "from_box.pb.gz")],
            capture_output=True, text=True, env=self.environment(), timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_wait_that_is_refused_does_not_become_a_loop(self):
        # Otherwise the recorder's thread would call hundreds of thousands of times in this second.
        for error in ("EINTR", "EPERM", "ENOSYS"):
            report = os.path.join(self.directory, error)
            process = self.start("work:100", "wait", launcher=[
                INJECT, f"--report={report}", f"--call={system_calls()['futex']}",
                f"--error={getattr(errno, error)}", "--from=1", "--"])
            self.wait_for(process, "work done")
            time.sleep(1)
            self.resume(process)
            self.check_unharmed(self.finish(process), "work:100")
            with open(report, encoding="ascii") as file:
                calls = int(file.read().split()[-1])
            self.assertGreater(calls, 5)
            self.assertLess(calls, 2000)

    def test_no_failing_system_call_changes_the_service(self):
        self.result = self.without(*ACTIONS)
        counts = self.calls()
        self.assertGreaterEqual(len(counts), 20)
        faults = list(enumerate(self.faults(counts)))
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(self.check_fault, faults))
        problems = [problem for _, problem in results if problem]
        injected = sum(count for count, _ in results)
        hit = sum(count > 0 for count, _ in results)
        print(f"{len(counts)} system calls, {len(faults)} runs, {hit} of them hit by a fault, "
              f"{injected} faults injected, {len(problems)} not survived", file=sys.stderr)
        self.assertEqual(problems, [], "\n".join(problems[:20]))
        # Calls of our thread are not the same number in each run.
        self.assertGreater(hit, len(faults) * 3 // 4)


@unittest.skipUnless(NAMES, "no header with the numbers of system calls")
class Needs(unittest.TestCase):
    def test_the_numbers_of_system_calls_are_known(self):
        self.assertEqual(NAMES[56], "clone")


if __name__ == "__main__":
    main()
