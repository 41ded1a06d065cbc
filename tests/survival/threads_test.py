#!/usr/bin/env python3
"""Threads under the recorder: they come and go, have small stacks, are cancelled, jump, run fibres and signal
handlers; and all the ways in which their process can end.

See survival_case.py. --long: more of everything; 10 minutes.
"""

import os
import signal
import unittest

from survival_case import LONG, PROGRAMS, SurvivalCase, Way, is_in, main

REENTRANT = [Way("reentrant"), Way("reentrant", interval=65536)]


class Threads(SurvivalCase):
    def test_500_threads_are_created_and_joined(self):
        self.same_as_without("threads_program", "create_and_join", 20_000 if LONG else 500)

    def test_destructors_of_thread_locals_and_keys_allocate(self):
        self.same_as_without("threads_program", "destructors", 5000 if LONG else 100)

    def test_threads_with_the_smallest_stack_allocate_and_fork(self):
        self.same_as_without("threads_program", "small_stacks", 2000 if LONG else 50)

    def test_allocating_threads_are_cancelled(self):
        self.same_as_without("threads_program", "cancel_deferred", 5000 if LONG else 100)

    def test_allocating_threads_are_cancelled_at_any_instruction(self):
        # libc's own malloc keeps its lock for ever after that: so only with an allocator that has none.
        self.same_as_without("threads_program", "cancel_asynchronous", 10_000 if LONG else 300,
                             ways=REENTRANT, environment={"ALLOCATOR": "reentrant"})  # fmt: skip

    def test_longjmp_and_exceptions_leave_hooked_frames(self):
        self.same_as_without("threads_program", "jumps", 5000 if LONG else 100)


class Fibres(SurvivalCase):
    def test_fibres_on_16_kib_stacks_take_turns(self):
        self.same_as_without("fibres_program", "take_turns", 16)

    def test_fibres_on_32_kib_stacks_take_turns(self):
        self.same_as_without("fibres_program", "take_turns", 32)

    def test_a_frame_pointer_into_unmapped_memory_is_not_followed(self):
        self.same_as_without("fibres_program", "frame_pointer_astray")

    def test_the_recorder_needs_at_most_8_kib_of_stack(self):
        limit = {"HEAPFLARE_LIMIT": "256MiB"}
        plain = self.stack_use(self.run_program(None, "fibres_program", "stack_use"))
        for way in (Way(end="exit"), Way(interval=65536, end="exit")):
            with self.subTest(way=str(way)):
                run = self.run_program(way, "fibres_program", "stack_use", environment=limit)
                self.assertEqual(run.status, 0, run)
                for what, used in self.stack_use(run).items():
                    self.assertLessEqual(used - plain[what], 8 << 10, f"{what}: {run.stderr}")

    def stack_use(self, run):
        self.assertEqual(run.status, 0, run)
        lines = [line.split() for line in run.stderr.splitlines() if line.startswith("stack ")]
        self.assertEqual(len(lines), 5, run.stderr)
        return {what: int(used) for _, what, used in lines}


class Signals(SurvivalCase):
    PLUGIN = os.path.join(PROGRAMS, "plugin_First.so")

    def test_handlers_allocate_at_10_khz_while_others_allocate_fork_and_load(self):
        self.same_as_without("signals_program", "storm", self.PLUGIN, 20_000 if LONG else 300)

    def test_handlers_allocate_at_any_instruction(self):
        self.same_as_without("signals_program", "storm", self.PLUGIN, 60_000 if LONG else 700,
                             ways=REENTRANT,
                             environment={"ALLOCATOR": "reentrant", "SURVIVAL_REENTRANT": "1"})  # fmt: skip

    def test_handlers_allocate_on_a_stack_of_their_own(self):
        self.same_as_without("signals_program", "alternate_stack", 64)

    def test_nothing_is_written_below_a_handlers_stack(self):
        for kilobytes in (8, 12, 16):
            with self.subTest(kilobytes=kilobytes):
                self.same_as_without("signals_program", "alternate_stack", kilobytes, ways=REENTRANT,
                                     environment={"ALLOCATOR": "reentrant", "SURVIVAL_REENTRANT": "1"})  # fmt: skip

    def test_a_handler_jumps_out_of_the_recorder(self):
        runs = self.same_as_without("signals_program", "jump_out_of_handler", ways=REENTRANT,
                                    environment={"ALLOCATOR": "reentrant"})  # fmt: skip
        run = runs[REENTRANT[0]]
        profile = self.profile(run.box_of(run.pid))
        program = os.path.join(PROGRAMS, "signals_program")
        whole = 0
        for sample in profile.samples:
            if is_in(profile, sample.locations[0], program, r"^survival::Allocate\(\)"):
                whole += sample.values[0] * any(
                    is_in(profile, location, program, "JumpOutOfHandler")
                    for location in sample.locations)
        self.assertEqual(whole, 100, "stacks are no longer walked after the jump")


class Endings(SurvivalCase):
    # Of those that end by exit nothing stays; the others leave their box.
    ENDINGS = {
        "main_leaves": 0,
        "main_leaves_then_exit": 7,
        "exit_from_threads": 5,
        "exit_from_handler": 6,
        "return_while_threads_allocate": 8,
    }
    DEATHS = {
        "raw_exit": 9,
        "abort_in_thread": -signal.SIGABRT,
        "quick_exit": 4,
        "underscore_exit": 3,
        "crash_in_thread": -signal.SIGSEGV,
    }

    def test_a_process_that_exits_ends_as_without_us_and_leaves_nothing(self):
        for scenario, status in self.ENDINGS.items():
            with self.subTest(scenario):
                runs = self.same_as_without("endings_program", scenario, status=status, books=False)
                for run in runs.values():
                    self.assertEqual(run.boxes, [])

    def test_a_process_that_dies_ends_as_without_us_and_leaves_its_box(self):
        for scenario, status in self.DEATHS.items():
            with self.subTest(scenario):
                plain = self.run_program(None, "endings_program", scenario)
                self.assertEqual(plain.status, status, plain)
                for way in (Way(), Way("jemalloc"), Way("tcmalloc"), Way("mimalloc")):
                    run = self.run_program(way, "endings_program", scenario, timeout=30)
                    self.assertEqual((run.status, run.stdout, run.stderr),
                                     (status, plain.stdout, plain.stderr), str(way))  # fmt: skip
                    profile = self.profile(run.box_of(run.pid))
                    self.assertGreater(profile.total("alloc_objects"), 0)


if __name__ == "__main__":
    main()
