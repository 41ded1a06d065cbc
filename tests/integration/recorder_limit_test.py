#!/usr/bin/env python3
"""What the recorder does as memory fills up: rungs, metrics, slopes, the straw, changed limits.

HEAPFLARE_BUILD names the build directory. `--long`: also waits for a cooldown to pass (a minute).
"""

import os
import subprocess
import sys
import time
import unittest

from acting import ActorTest
import memory_cgroup
from profiled import MIB

LONG = "--long" in sys.argv
BLOCK = 64 << 10


def hold(mib):
    return f"hold {mib * MIB} {BLOCK}"


class Rungs(ActorTest):
    """Of the process's own memory, which needs no cgroup; it has some 4 MiB before it holds any."""

    def test_in_percent_fire_one_after_the_other(self):
        actor = self.actor(LIMIT="100MiB", METRIC="rss", THRESHOLDS="50%,72.5%,90%")
        actor.does(hold(40))
        self.barrier(actor)
        self.assertEqual(self.reasons(), [])
        # Each is higher than the last one, so none waits for a cooldown to pass.
        actor.does(hold(12))
        self.expect_reasons("rung-50pct")
        actor.does(hold(22))
        self.expect_reasons("rung-50pct", "rung-72.50pct")
        actor.does(hold(20))
        self.expect_reasons("rung-50pct", "rung-72.50pct", "rung-90pct")
        # What the last one shows is what is held.
        profile = self.read_profile(self.dump_files("rung-90pct")[0])
        self.assertRegex("\n".join(profile.comments), r"taken: rung-90pct, charge 9\d(\.\d)? MiB of 100 MiB")
        self.assertEqual(actor.end(), 0)
        self.assertEqual(actor.said(), [])

    def test_as_sizes_need_no_limit_and_name_themselves(self):
        actor = self.actor(METRIC="rss", THRESHOLDS=f"32MiB,{50 * MIB + 1},1TiB")
        actor.does(hold(33))
        self.expect_reasons("rung-32MiB")
        actor.does(hold(20))
        self.expect_reasons("rung-32MiB", f"rung-{50 * MIB + 1}")

    def test_that_no_allocation_meets_are_seen_by_the_clock_one_after_the_other(self):
        # Without samples hooks look at nothing. More rungs than dumps can be asked for at once.
        sizes = [20 + 10 * i for i in range(6)]
        actor = self.actor(METRIC="rss", SAMPLE_INTERVAL="1GiB",
                           THRESHOLDS=",".join(f"{mib}MiB" for mib in sizes))
        actor.does(hold(12))
        for i in range(len(sizes)):
            actor.does(hold(10))
            self.expect_reasons(*(f"rung-{mib}MiB" for mib in sizes[: i + 1]))

    def test_are_none_if_the_list_is_empty(self):
        actor = self.actor(LIMIT="32MiB", METRIC="rss", THRESHOLDS="")
        actor.does(hold(40))
        self.barrier(actor)
        self.assertEqual(self.reasons(), [])

    def test_that_use_swings_around_fire_once(self):
        actor = self.actor(LIMIT="100MiB", METRIC="rss", THRESHOLDS="50%,90%")
        for _ in range(4):
            actor.does(hold(55))
            self.barrier(actor)
            actor.does("drop")
            self.barrier(actor)
        self.assertEqual(self.reasons(), ["rung-50pct"])
        actor.does(hold(92))
        self.expect_reasons("rung-50pct", "rung-90pct")

    @unittest.skipUnless(LONG, "takes a minute; --long")
    def test_fire_again_after_the_cooldown_if_use_had_fallen(self):
        actor = self.actor(LIMIT="100MiB", METRIC="rss", THRESHOLDS="50%,90%")
        actor.does(hold(60))
        self.expect_reasons("rung-50pct")
        actor.does("drop")
        self.barrier(actor)
        actor.does(hold(60))
        self.barrier(actor)
        self.assertEqual(self.reasons(), ["rung-50pct"])
        self.patience_for(lambda: len(self.reasons()) == 2, 70)
        self.assertEqual(self.reasons(), ["rung-50pct", "rung-50pct"])

    def patience_for(self, condition, seconds):
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.2)


class Slope(ActorTest):
    def grow_until(self, actor, done, steps=100):
        """2 MiB at a time, some ten times a second."""
        for _ in range(steps):
            actor.does(hold(2))
            self.barrier(actor)
            if done():
                return True
        return False

    def test_that_leads_to_the_limit_in_time_makes_a_dump(self):
        actor = self.actor(LIMIT="8GiB", METRIC="rss", THRESHOLDS="", ETA=86400)
        self.assertTrue(self.grow_until(actor, lambda: self.reasons() != []))
        self.expect_reasons("eta")
        # Once, not at every look from now on.
        self.grow_until(actor, lambda: False, 5)
        self.assertEqual(self.reasons(), ["eta"])

    def test_that_leads_there_later_makes_none(self):
        # 8 GiB in a second is more than this machine's memory gives.
        actor = self.actor(LIMIT="64GiB", METRIC="rss", THRESHOLDS="", ETA=1)
        self.assertFalse(self.grow_until(actor, lambda: self.reasons() != [], 15))

    def test_is_not_looked_at_by_default(self):
        actor = self.actor(LIMIT="8GiB", METRIC="rss", THRESHOLDS="")
        self.assertFalse(self.grow_until(actor, lambda: self.reasons() != [], 15))


class Straw(ActorTest):
    def test_is_dumped_with_its_caller_before_it_is_handed_out(self):
        actor = self.actor(LIMIT="64MiB", METRIC="rss", THRESHOLDS="")
        actor.does(hold(10), f"huge {20 * MIB}")
        self.barrier(actor)
        self.assertEqual(self.reasons(), [], "it fitted")
        actor.does(f"huge {200 * MIB}")
        self.expect_reasons("straw")
        profile = self.read_profile(self.dump_files("straw")[0])
        marked = [s for s in profile.samples if s.labels.get("request") == "straw"]
        self.assertEqual(len(marked), 1)
        self.assertEqual(marked[0].values[profile.index("inuse_space")], 200 * MIB)
        self.assertEqual(marked[0].functions()[0], "TheLastStraw(unsigned long)")
        self.assertIn("main", marked[0].functions())
        # Asked for again and again, only more is news.
        actor.does(f"huge {200 * MIB}", f"huge {100 * MIB}")
        self.barrier(actor)
        self.assertEqual(self.reasons(), ["straw"])
        actor.does(f"huge {300 * MIB}")
        self.expect_reasons("straw", "straw")


class InACgroup(ActorTest):
    def cgroup(self, limit):
        try:
            cgroup = memory_cgroup.MemoryCgroup(limit)
        except memory_cgroup.Unavailable as why:
            self.skipTest(f"no memory cgroup can be made here: {why}")
        self.addCleanup(cgroup.remove)
        return cgroup

    def actor_in(self, cgroup, **settings):
        # With the processes' tearDown before the cgroup's cleanup, it is empty by then.
        return self.actor(options={"preexec_fn": cgroup.enter}, **settings)

    def set_limit(self, cgroup, limit):
        names = ["memory.max"]
        if cgroup.version == 1:
            # That of memory with swap has to be the higher one all the time.
            names = ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]
            names = [name for name in names if os.path.exists(f"{cgroup.path}/{name}")]
            with open(f"{cgroup.path}/memory.limit_in_bytes", encoding="utf-8") as file:
                if int(file.read()) > limit:
                    names.reverse()
        for name in names:
            with open(f"{cgroup.path}/{name}", "w", encoding="utf-8") as file:
                file.write(str(limit))

    def file_on_disk(self):
        kind = subprocess.run(["stat", "-f", "-c", "%T", self.directory], capture_output=True,
                              text=True, check=True).stdout.strip()
        if kind in ("tmpfs", "ramfs"):
            self.skipTest(f"{self.directory} is in memory: there is no page cache of it to drop")
        return self.path("file")

    def test_the_limit_that_it_has_is_found_and_watched(self):
        actor = self.actor_in(self.cgroup(64 * MIB), THRESHOLDS="80%", VERBOSE=1)
        actor.does(hold(56))
        self.expect_reasons("rung-80pct")
        self.assertRegex(actor.said()[0], r"limit 64 MiB \(cgroup v[12] \S*heapflare-test-\d+-\d+\)")

    def test_a_limit_that_is_lowered_fires_without_an_allocation(self):
        cgroup = self.cgroup(512 * MIB)
        actor = self.actor_in(cgroup, THRESHOLDS="80%")
        actor.does(hold(100))
        self.barrier(actor)
        self.assertEqual(self.reasons(), [])
        self.set_limit(cgroup, 120 * MIB)
        self.expect_reasons("rung-80pct")

    def test_several_rungs_that_are_passed_at_once_make_one_dump(self):
        cgroup = self.cgroup(1024 * MIB)
        actor = self.actor_in(cgroup, THRESHOLDS="30%,50%,70%,99%")
        actor.does(hold(100))
        self.barrier(actor)
        self.set_limit(cgroup, 130 * MIB)
        self.expect_reasons("rung-70pct")
        self.barrier(actor)
        self.assertEqual(self.reasons(), ["rung-70pct"])

    def test_a_limit_that_is_raised_gives_room(self):
        cgroup = self.cgroup(100 * MIB)
        actor = self.actor_in(cgroup, THRESHOLDS="80%")
        self.barrier(actor)
        self.set_limit(cgroup, 400 * MIB)
        self.barrier(actor)
        actor.does(hold(150))
        self.barrier(actor)
        self.assertEqual(self.reasons(), [])

    def test_page_cache_raises_no_alarm_but_memory_does(self):
        actor = self.actor_in(self.cgroup(512 * MIB), LIMIT="100MiB", THRESHOLDS="80%")
        actor.does(f"file {self.file_on_disk()} {120 * MIB}")
        self.barrier(actor)
        self.assertEqual(self.reasons(), [])
        actor.does(hold(90))
        self.expect_reasons("rung-80pct")

    def test_page_cache_counts_for_those_who_ask_for_usage(self):
        actor = self.actor_in(self.cgroup(512 * MIB), LIMIT="100MiB", THRESHOLDS="80%",
                              METRIC="usage")
        actor.does(f"file {self.file_on_disk()} {120 * MIB}")
        self.expect_reasons("rung-80pct")


if __name__ == "__main__":
    unittest.main(argv=[arg for arg in sys.argv if arg != "--long"])
