#!/usr/bin/env python3
"""Each profile says how good it is, and what it says is true: standard error, thinning, lost
samples, folded and truncated stacks; in its comments, and in the one line of `heapflare dump`.

Whether the stated error is the real one: calibration_test.py. False failures: one comparison with
6 standard errors, 2 in 10^9.
"""

import math
import re
import subprocess
import unittest

from preloaded import COMMAND, Functions, Growth, Surroundings, heap_profile, program, read

WORKLOAD = program("many_stacks")
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def size(text):
    number, unit = text.split()
    return float(number) * UNITS[unit]


class Statements(unittest.TestCase):
    def run_workload(self, stacks, size, repeats, **settings):
        """The profile; it must have no faults, whatever was lost."""
        with Surroundings() as surroundings:
            path = surroundings.path("many.pb.gz")
            surroundings.run(WORKLOAD, str(stacks), str(size), str(repeats), path, **settings)
            profile = read(path)
        self.assertEqual(heap_profile.heap_faults(profile), [])
        return profile

    def said(self, profile, pattern):
        """The groups of the one comment that matches."""
        found = [re.fullmatch(pattern, comment) for comment in profile.comments]
        found = [match for match in found if match]
        self.assertEqual(len(found), 1, (pattern, profile.comments))
        return found[0].groups()

    def live_objects_with(self, profile, function):
        index = profile.index("inuse_objects")
        return sum(s.values[index] for s in profile.samples if s.functions()[-1:] == [function])

    def test_says_nothing_of_losses_when_nothing_is_lost(self):
        profile = self.run_workload(10, 100, 10, interval=1)
        self.assertFalse([c for c in profile.comments if c.startswith(("lost", "thinned"))])
        self.said(profile, r"live heap [\d.]+ \w+, no sampling error")
        self.said(profile, r"every allocation recorded: (\d+) samples, (\d+) live")

    def test_says_how_many_samples_lost_their_stack(self):
        profile = self.run_workload(5000, 1000, 1, interval=1, box_size="1MiB")
        folded = int(self.said(
            profile, r"stacks: \d+ samples truncated, \d+ not unwound to the end, "
                     r"(\d+) folded into \[other stacks\]")[0])
        self.assertGreater(folded, 100)
        other = "[other stacks: no room left in the box]"
        self.assertEqual(self.live_objects_with(profile, other), folded)
        # They lost their stack, not their bytes.
        kept = Functions(WORKLOAD).sums(profile)["workload_leaf"][2]
        self.assertEqual(kept + folded, 5000)

    def test_says_how_many_stacks_are_truncated(self):
        profile = self.run_workload(500, 1000, 1, interval=1, max_stack=8)
        truncated = int(self.said(profile, r"stacks: (\d+) samples truncated, .*")[0])
        self.assertGreaterEqual(truncated, 500)
        note = "[truncated: deeper than the limit on frames]"
        allocated = profile.index("alloc_objects")
        self.assertEqual(truncated, sum(
            s.values[allocated] for s in profile.samples if note in s.functions()))
        self.assertLessEqual(max(len(s.locations) for s in profile.samples), 8 + 1)

    def test_says_how_often_it_was_thinned(self):
        profile = self.run_workload(16, 64, 2000, interval=64, box_size="1MiB")
        times = int(self.said(
            profile, r"thinned (\d+) times from one sample per 64 B because the box was filling "
                     r"up; estimates stay unbiased")[0])
        self.assertGreater(times, 0)
        self.assertEqual(profile.period, 64 << times)

    def test_says_how_many_samples_and_bytes_it_lost(self):
        # So large that doubling the interval does not help.
        blocks, block = 25_000, 48 << 10
        profile = self.run_workload(1, block, blocks, interval=2, box_size="1MiB")
        lost, lost_bytes = self.said(profile, r"lost: (\d+) samples \((.+)\), \d+ frees seen late")
        self.assertGreater(int(lost), 1000)
        error = size(self.said(
            profile, r"live heap .*, standard error (\S+ \w+) \([<\d.]+ %\): .*")[0])
        # The lost ones are an estimate as well, with the last interval.
        weight = -1 / math.expm1(-(block + 1) / profile.period)
        error = math.hypot(error, block * math.sqrt(int(lost) * weight * (weight - 1)))
        # What was lost is stated with three digits at least; libraries have a few KiB live too.
        self.assertAlmostEqual(profile.total("inuse_space") + size(lost_bytes), blocks * block,
                               delta=6 * error + 0.005 * size(lost_bytes) + (256 << 10))

    def test_the_line_of_dump_has_the_error_and_the_losses(self):
        with Surroundings() as surroundings:
            growth = Growth(surroundings, "growth", interval=4096)
            growth.end()
            path = surroundings.path("out.pb.gz")
            done = subprocess.run([COMMAND, "dump", growth.box(), "-o", path], check=True,
                                  capture_output=True, text=True, timeout=60)
            profile = read(path)
        live, percent, objects, stacks = re.fullmatch(
            r"heapflare dump: growth \(dead\): live ([\d.]+ \w+) ± (\d\.\d %) in (\d+) objects "
            r"from (\d+) stacks, one sample per 4 KiB; lost nothing\n", done.stderr).groups()
        said, error, in_percent = self.said(
            profile, r"live heap ([\d.]+ \w+), standard error ([\d.]+ \w+) \((.+)\): 19 times in "
                     r"20 the truth is within two of these")
        self.assertEqual((live, percent), (said, in_percent))
        # Rounded to a tenth of a percent, of two numbers that are rounded themselves.
        self.assertAlmostEqual(size(error) / size(live) * 100, float(percent[:-2]), delta=0.1)
        index = profile.index("inuse_objects")
        self.assertEqual(int(stacks), sum(s.values[index] > 0 for s in profile.samples))
        self.assertEqual(int(objects), profile.total("inuse_objects"))

    def test_the_line_of_dump_has_no_error_where_every_allocation_is_recorded(self):
        with Surroundings() as surroundings:
            growth = Growth(surroundings, "growth", interval=1)
            growth.end()
            done = subprocess.run([COMMAND, "dump", growth.box(), "-o", "/dev/null"], check=True,
                                  capture_output=True, text=True, timeout=60)
        self.assertRegex(done.stderr, r"live 8\.\d MiB in \d+ objects .*, every allocation recorded;")


if __name__ == "__main__":
    unittest.main()
