#!/usr/bin/env python3
"""What each HEAPFLARE_ variable does to a running program. (Those about the limit: see
recorder_limit_test.py.)

HEAPFLARE_BUILD names the build directory.

False failures: test_box_size_... compares an estimate with the truth and allows it more than six
standard errors: below 1 in 10^8 runs.
"""

import os
import re
import shutil
import signal
import stat
import unittest

from acting import ACTOR, ActorTest
from profiled import MIB, OTHER_STACKS, TRUNCATED, under

README = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "README.md")
# For each variable a value that means nothing, and what is to be said of it.
NONSENSE = {
    "DIR": ("dumps", r"'dumps': not an absolute path; using /tmp/heapflare-UID"),
    "BOX_DIR": ("../x", r"'\.\./x': not an absolute path; using /dev/shm/heapflare-UID"),
    "SAMPLE_INTERVAL": ("often", r"'often': not a size \(as 524288, 512KiB, .*\); using 512KiB"),
    "THRESHOLDS": ("80%,90%%", r"'90%%' at item 2: not a percentage or a size; using 80%,90%,95%"),
    "LIMIT": ("-5", r"'-5': not a size \(.*\); using what the cgroup says"),
    "METRIC": ("vsz", r"'vsz': none of working_set, usage, rss; using working_set"),
    "ETA": ("soon", r"'soon': not a number from 0 to 86400; using 0"),
    "SIGNAL": ("9", r"'9': not a signal such as USR2 or RTMIN\+3; using none"),
    "DUMP_AT_EXIT": ("yes", r"'yes': neither 0 nor 1; using 0"),
    "PROGRAMS": ("x" * 2000, r"'x+(\.\.\.)?': longer than 1023 characters; using all"),
    "KEEP": ("0", r"'0': not a number from 1 to 1000; using 10"),
    "BOX_SIZE": ("1", r"'1': not between 1 MiB and 8 GiB; using 16MiB"),
    "BOX_MODE": ("rw", r"'rw': not a file mode such as 0600 or 0640; using 0600"),
    "MAX_STACK": ("1e3", r"'1e3': not a number from 1 to 512; using 64"),
    "LEAK_CHECK": ("on", r"'on': neither 0 nor 1; using 0"),
    "LEAK_EXIT_CODE": ("256", r"'256': not a number from 0 to 255; using 23"),
    "LEAK_SUPPRESSIONS": ("list", r"'list': not an absolute path; using none"),
    "COMMAND": ("x/y", r"'x/y': not an absolute path; using the one beside the library"),
    "VERBOSE": ("very", r"'very': neither 0 nor 1; using 0"),
}


class Nonsense(ActorTest):
    def test_is_there_for_every_variable_that_the_readme_lists(self):
        with open(README, encoding="utf-8") as file:
            documented = re.findall(r"^\| `HEAPFLARE_(\w+)` \| ", file.read(), re.MULTILINE)
        self.assertEqual(sorted(NONSENSE), sorted(documented))

    def check(self, names):
        actor = self.actor(**{name: NONSENSE[name][0] for name in names})
        actor.does("hold 1000000 1000")
        self.assertEqual(actor.end(), 0, "the service runs")
        said = actor.said()
        self.assertEqual(len(said), len(names), said)
        for name in names:
            self.assertTrue(
                any(re.fullmatch(f"heapflare: HEAPFLARE_{name}: {NONSENSE[name][1]}", line)
                    for line in said), (name, said))

    def test_is_told_in_one_line_each_and_the_service_runs(self):
        self.check(list(NONSENSE))
        for name in ("DIR", "BOX_DIR", "SAMPLE_INTERVAL", "PROGRAMS"):
            self.check([name])

    def test_misspelled_variable_is_told(self):
        actor = self.actor(SAMPLE_INTERVALL="1")
        self.assertEqual(actor.end(), 0)
        self.assertEqual(
            actor.said(), ["heapflare: HEAPFLARE_SAMPLE_INTERVALL: no such variable; ignored"])


class Signal(ActorTest):
    def test_asks_for_a_dump_each_time(self):
        for name, number in (("USR2", signal.SIGUSR2), ("RTMIN+3", signal.SIGRTMIN + 3)):
            with self.subTest(name):
                actor = self.actor(SIGNAL=name, SAMPLE_INTERVAL=1)
                actor.does("hold 1048576 1024")
                before = len(self.dump_files())
                # More often than requests can be under way at once.
                for i in range(1, 7):
                    actor.process.send_signal(number)
                    self.wait_until(lambda: len(self.dump_files("signal")) == before + i, "a dump")
                profile = self.read_profile(self.dump_files("signal")[-1])
                self.assertEqual(profile.total("inuse_space", under("HoldBlocks")), MIB)
                self.assertEqual(actor.end(), 0)
                self.assertEqual(actor.said(), [])

    def test_that_the_service_handles_stays_the_services(self):
        actor = self.actor(SIGNAL="USR2")
        actor.does("handler")
        actor.process.send_signal(signal.SIGUSR2)
        self.wait_until(lambda: actor.tell("signals") == "1", "its own handler runs")
        self.barrier(actor)
        self.assertEqual(self.dump_files(), [])

    def test_that_is_ignored_from_the_start_stays_so(self):
        ignore = {"preexec_fn": lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN)}
        actor = self.actor(SIGNAL="USR2", options=ignore)
        actor.process.send_signal(signal.SIGUSR2)
        self.barrier(actor)
        self.assertEqual(self.dump_files(), [])
        self.assertEqual(actor.said(), ["heapflare: HEAPFLARE_SIGNAL: the program uses signal 12 "
                                        "itself; no dumps on it"])

    def test_is_not_caught_by_default(self):
        actor = self.actor()
        actor.process.send_signal(signal.SIGUSR2)
        self.assertEqual(actor.process.wait(timeout=60), -signal.SIGUSR2)


class Dumps(ActorTest):
    def test_at_exit_if_asked_for_and_only_at_a_clean_one(self):
        for value, how, reasons in ((1, "exit", ["exit"]), (0, "exit", []), (1, "_exit", []),
                                    (1, "pthread_exit", ["exit"])):
            with self.subTest(value=value, how=how):
                shutil.rmtree(self.dumps, ignore_errors=True)
                actor = self.actor(DUMP_AT_EXIT=value, SAMPLE_INTERVAL=1)
                actor.does("hold 100000 1000")
                self.assertEqual(actor.end(how), 0)
                self.assertEqual(self.reasons(), reasons)
                for path in self.dump_files():
                    profile = self.read_profile(path)
                    self.assertEqual(profile.total("inuse_space", under("HoldBlocks")), 100000)

    def test_that_are_kept_are_the_latest_and_the_largest(self):
        actor = self.actor(KEEP=3, SAMPLE_INTERVAL=1)
        for number in range(1, 8):
            if number == 2:
                actor.does("hold 10000000 10000")
            self.assertEqual(actor.tell("dump -"), "0")
            actor.does("drop")
        self.assertEqual([os.path.basename(path).split(".")[-4] for path in self.dump_files("api")],
                         ["0002", "0006", "0007"])

    def test_as_many_as_are_to_be_kept_stay(self):
        actor = self.actor(KEEP=2)
        for _ in range(2):
            self.assertEqual(actor.tell("dump -"), "0")
        self.assertEqual(len(self.dump_files("api")), 2)


class Programs(ActorTest):
    def test_that_are_not_listed_run_untouched(self):
        other = shutil.copy(ACTOR, self.path("other"))
        for program, listed, profiled in (
                (ACTOR, "first,actor", True), (ACTOR, " actor ", True), (ACTOR, "act,actors", False),
                (other, "actor", False), (other, "actor,other", True)):
            with self.subTest(program=program, listed=listed):
                actor = self.actor(program, PROGRAMS=listed, SAMPLE_INTERVAL=1, DUMP_AT_EXIT=1)
                actor.does("hold 100000 1000")
                self.assertEqual(actor.tell("interval"), "1 1" if profiled else "0 0")
                self.assertEqual(self.box_of(actor.pid) is not None, profiled)
                threads = len(os.listdir(f"/proc/{actor.pid}/task"))
                self.assertEqual(threads, 2 if profiled else 1)
                self.assertEqual(actor.end(), 0)
                self.assertEqual(len(self.dump_files()) > 0, profiled)
                self.assertEqual(actor.said(), [])
                shutil.rmtree(self.dumps, ignore_errors=True)

    def test_are_known_by_what_they_were_started_as_and_by_their_file(self):
        link = self.path("service")
        os.symlink(ACTOR, link)
        for listed in ("service", "actor"):
            actor = self.actor(link, PROGRAMS=listed, SAMPLE_INTERVAL=1)
            box = self.wait_until(lambda: self.box_of(actor.pid), "its box")
            self.assertRegex(os.path.basename(box), r"^service\.\d+\.\d+\.box$")
            self.assertEqual(actor.end(), 0)


class Box(ActorTest):
    def test_size_bounds_it_and_thins_the_samples(self):
        blocks, size = 40000, 256
        actor = self.actor(BOX_SIZE="1MiB", SAMPLE_INTERVAL=1)
        actor.does(f"hold {blocks * size} {size}")
        box = self.box_of(actor.pid)
        self.assertEqual(os.path.getsize(box), MIB)
        profile = self.profile_of(actor.pid)
        self.assertRegex("\n".join(profile.comments), r"(?m)^thinned \d+ times from one sample per 1 ")
        # n blocks that are sampled with probability p are estimated with a variance of
        # n * (1 - p) / p. Half of the room is taken by the first 8,700 blocks, with p = 1; half of
        # what is left by 11,000 with p = 0.39; then each time half as much, with half the p, by
        # some 10,000: together a standard error of 500 blocks, 1.3 %. The 2 % more are for samples
        # that found no place when the box was nearly full, which it tells.
        estimate = profile.total("inuse_space", under("HoldBlocks"))
        self.assertAlmostEqual(estimate / (blocks * size), 1, delta=6 * 0.013 + 0.02)
        # What was put in is taken out exactly.
        actor.does("drop")
        self.assertEqual(self.profile_of(actor.pid).total("inuse_space", under("HoldBlocks")), 0)

    def test_without_room_for_stacks_has_one_for_all_others(self):
        count = 20000
        actor = self.actor(BOX_SIZE="1MiB", SAMPLE_INTERVAL=1)
        actor.does(f"stacks {count}")
        profile = self.profile_of(actor.pid)
        other = profile.total("alloc_objects", under(OTHER_STACKS))
        own = profile.total("alloc_objects", under("Branch"))
        self.assertGreater(other, 0)
        # A stack has room for 21 frames, in the mean, and these have some more.
        self.assertGreater(own, 900)
        # Nothing is dropped: all are in one or the other, besides a few lines that it was told.
        self.assertLessEqual(count, own + other)
        self.assertLess(own + other, count + 100)
        self.assertRegex("\n".join(profile.comments),
                         rf"(?m)^stacks: .* {other} folded into \[other stacks\]")

    def test_mode_is_that_of_the_box_whatever_the_umask(self):
        for mode in ("0640", "0604", "600"):
            with self.subTest(mode=mode):
                actor = self.actor(BOX_MODE=mode, SAMPLE_INTERVAL=1,
                                   options={"preexec_fn": lambda: os.umask(0o077)})
                box = self.wait_until(lambda: self.box_of(actor.pid), "its box")
                self.assertEqual(stat.S_IMODE(os.stat(box).st_mode), int(mode, 8))
                control = box.removesuffix(".box") + ".ctl"
                self.assertEqual(stat.S_IMODE(os.stat(control).st_mode), 0o600)
                self.assertEqual(stat.S_IMODE(os.stat(self.boxes).st_mode), 0o700)
                self.assertEqual(actor.end(), 0)


class Stacks(ActorTest):
    def test_deeper_than_allowed_are_cut_and_marked(self):
        for limit in (1, 8, 200):
            with self.subTest(limit=limit):
                actor = self.actor(MAX_STACK=limit, SAMPLE_INTERVAL=1)
                actor.does("deep 100", "deep 3")
                profile = self.profile_of(actor.pid)
                held = [s for s in profile.samples if under("HoldBlocks")(s)]
                depths = sorted(len([l for l in s.locations]) for s in held)
                cut = [s for s in held if TRUNCATED in s.functions()]
                if limit == 200:
                    self.assertEqual(cut, [])
                    self.assertGreater(depths[-1], 100)
                    self.assertEqual(sum(n.startswith("Descend") for s in held
                                         for n in s.functions()), 103)
                else:
                    # The frames, and the mark.
                    self.assertEqual(max(depths), limit + 1)
                    self.assertGreater(len(cut), 0)
                    for sample in cut:
                        self.assertEqual(sample.functions()[-1], TRUNCATED)
                    self.assertRegex("\n".join(profile.comments),
                                     r"(?m)^stacks: [1-9]\d* samples truncated")
                self.assertEqual(actor.end(), 0)


class Interval(ActorTest):
    def held(self, actor):
        return self.profile_of(actor.pid).total("inuse_space", under("HoldBlocks"))

    def check_switched_off_and_on(self, switch_on):
        actor = self.actor(SAMPLE_INTERVAL=0)
        self.assertEqual(actor.tell("interval"), "0 0")
        actor.does(f"hold {32 * MIB} 65536")
        self.wait_until(lambda: self.box_of(actor.pid), "its box")
        self.assertEqual(self.held(actor), 0)
        switch_on(actor)
        self.assertEqual(actor.tell("interval"), "1 1")
        # A thread hears of it within 8 MiB of allocations.
        actor.does(f"hold {32 * MIB} 65536")
        self.assertGreaterEqual(self.held(actor), 24 * MIB)
        actor.does("drop")
        self.assertEqual(self.held(actor), 0)

    def test_0_is_off_until_it_is_set_from_outside(self):
        self.check_switched_off_and_on(lambda actor: self.barrier(actor, 1))

    def test_0_is_off_until_the_program_sets_it(self):
        self.check_switched_off_and_on(
            lambda actor: self.assertEqual(actor.tell("interval 1"), "0 1 1"))

    def test_can_be_set_to_0_while_running(self):
        actor = self.actor(SAMPLE_INTERVAL=1)
        actor.does(f"hold {MIB} 65536")
        self.barrier(actor, 0)
        self.assertEqual(actor.tell("interval"), "0 0")
        actor.does(f"hold {8 * MIB} 65536")
        # In exact mode the next allocation hears of it; it may be one that is recorded.
        self.assertLessEqual(self.held(actor), MIB + 65536)
        # What was recorded before is still followed.
        actor.does("drop")
        self.assertEqual(self.held(actor), 0)


class Verbose(ActorTest):
    def test_says_a_line_at_the_start_and_one_per_dump(self):
        actor = self.actor(VERBOSE=1, LIMIT="64MiB", METRIC="rss", THRESHOLDS="50%",
                           SAMPLE_INTERVAL="64KiB")
        self.barrier(actor, 1 << 16)
        actor.does(f"hold {40 * MIB} 65536")
        self.expect_reasons("rung-50pct")
        self.assertEqual(actor.tell("dump -"), "0")
        self.assertEqual(actor.end(), 0)
        said = actor.said()
        self.assertEqual(len(said), 3, said)
        self.assertRegex(said[0], rf"^heapflare: profiling actor \(pid {actor.pid}\), interval "
                                  rf"64 KiB, limit 64 MiB \(HEAPFLARE_LIMIT\), box {self.boxes}/")
        self.assertRegex(said[1], rf"^heapflare: dump {self.dumps}/actor\.{actor.pid}\.\d+\.0001\."
                                  r"rung-50pct\.pb\.gz \(rung-50pct, \d+(\.\d)? MiB of 64 MiB\)$")
        self.assertRegex(said[2], r"\.0002\.api\.pb\.gz \(api\)$")

    def test_is_off_by_default(self):
        actor = self.actor(LIMIT="64MiB", METRIC="rss", THRESHOLDS="50%")
        actor.does(f"hold {40 * MIB} 65536")
        self.expect_reasons("rung-50pct")
        self.assertEqual(actor.end(), 0)
        self.assertEqual(actor.said(), [])


if __name__ == "__main__":
    unittest.main()
