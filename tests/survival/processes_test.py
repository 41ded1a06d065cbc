#!/usr/bin/env python3
"""Processes under the recorder: forked, vforked, spawned, cloned, daemonized, traced; and what their parents
see of them.

See survival_case.py. --long: 10,000 forks and more of everything else; 10 minutes.
"""

import os
import re
import time
import unittest

from survival_case import EVERYWHERE, LONG, PROGRAMS, SurvivalCase, Way, main


class Forks(SurvivalCase):
    def test_a_thread_forks_while_others_allocate(self):
        runs = self.same_as_without("processes_program", "fork_storm", 10_000 if LONG else 150,
                                    timeout=3600 if LONG else 60)  # fmt: skip
        for way, run in runs.items():
            with self.subTest(way=str(way)):
                for box in run.boxes[:20]:
                    self.profile(box)

    def test_children_of_children_fork_and_exit(self):
        self.same_as_without("processes_program", "grandchildren", books=False)

    def test_the_boxes_of_many_dead_children_do_not_pile_up(self):
        # The parent tidies every ten seconds: so one way must do.
        self.same_as_without("processes_program", "children_are_killed", ways=[Way()])

    def test_a_child_that_lives_has_a_box_of_its_own(self):
        plain = self.run_program(None, "processes_program", "child_lives")
        for way in EVERYWHERE:
            with self.subTest(way=str(way)):
                run = self.run_program(way, "processes_program", "child_lives")
                self.assertEqual((run.stdout, run.stderr), (plain.stdout, plain.stderr))
                self.assertEqual(len(run.books), 2, run)
                for pid, books in run.books.items():
                    if pid == run.pid and way.end == "exit":
                        self.assertIsNone(run.box_of(pid))
                        continue
                    self.check_books(self.profile(run.box_of(pid)), books, way.interval,
                                     "processes_program")  # fmt: skip


class Starts(SurvivalCase):
    def test_vfork_spawn_system_and_popen_work(self):
        self.same_as_without("processes_program", "exec_and_spawn", 300 if LONG else 4, books=False)

    def test_a_program_that_replaces_itself_leaves_one_box(self):
        plain = self.run_program(None, "processes_program", "exec_self")
        for way in EVERYWHERE:
            with self.subTest(way=str(way)):
                run = self.run_program(way, "processes_program", "exec_self")
                self.assertEqual((run.stdout, run.stderr), (plain.stdout, plain.stderr))
                if way.end == "exit":
                    self.assertEqual(run.boxes, [])
                elif way.interval == 1:
                    self.assertEqual(len(run.boxes), 1, run)
                    self.check_books(self.profile(run.boxes[0]), run.books[run.pid], 1,
                                     "processes_program")  # fmt: skip

    def test_a_daemon_has_a_box(self):
        for way in EVERYWHERE:
            with self.subTest(way=str(way)):
                done = os.path.join(self.directory, f"books.{self.runs}")
                run = self.run_program(way, "processes_program", "daemon", done)
                self.assertEqual((run.status, run.stderr), (0, ""), run)
                deadline = time.monotonic() + 30
                while not os.path.exists(done):
                    self.assertLess(time.monotonic(), deadline, f"the daemon hangs ({way})")
                    time.sleep(0.01)
                with open(done, encoding="ascii") as file:
                    pid, allocated, _, _ = map(int, file.read().split()[1:])
                self.assertEqual(allocated, 100)
                if way.interval != 1:
                    continue
                boxes = os.path.join(self.directory, str(self.runs - 1), "boxes")
                own = [name for name in os.listdir(boxes)
                       if re.search(rf"\.{pid}\.\d+\.box$", name)]  # fmt: skip
                self.assertEqual(len(own), 1, os.listdir(boxes))
                profile = self.profile(os.path.join(boxes, own[0]))
                self.assertGreaterEqual(profile.total("inuse_objects"), 100)

    def test_clones_that_libc_does_not_know_leave_the_box_alone(self):
        self.same_as_without("processes_program", "raw_clone", 1000 if LONG else 10)


class Parents(SurvivalCase):
    def test_wait_and_sigchld_see_own_children_only(self):
        self.same_as_without("processes_program", "wait_for_any", 1000 if LONG else 10)

    def test_blocked_signals_arrive_at_their_receiver(self):
        self.same_as_without("processes_program", "signals_blocked")

    def test_ignored_signals_are_ignored(self):
        self.same_as_without("processes_program", "signals_ignored")

    def test_a_child_is_traced_through_every_system_call(self):
        run = self.run_program(None, "processes_program", "traced")
        if "ptrace" in run.stderr:
            self.skipTest("ptrace is not allowed here: " + run.stderr)
        self.same_as_without("processes_program", "traced")


if __name__ == "__main__":
    main()
