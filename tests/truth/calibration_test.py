#!/usr/bin/env python3
"""Estimates are unbiased and their errors are what theory says, over 200 runs of each kind.

Every run is a process of its own with the real library: see calibration_workload.cc. An error is
standardized by the standard error that follows from what the program did; where that depends on
when the box was full, by the one that follows from the samples in the box. Standardized errors must
be standard normal: their mean, their mean square and Kolmogorov and Smirnov's distance are tested
(goodness_of_fit.py), for each kind and quantity, and for all kinds together.

False failures: all tests of normality together below 5 in 10^7 (ALPHA, divided by their number).
Estimates from 200 and more samples are a little skewed, which changes the tails that are used here
by less than a factor of two. The tests of the stated error compare two sums over the same samples;
chance has no part in them beyond the rounding of what is stated.

  --long        2000 runs of each kind instead of 200
  --only=TEXT   the kinds whose name, as --report shows it, has this in it
  --report      prints what was measured
"""

import argparse
import math
import os
import re
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import goodness_of_fit
from preloaded import Functions, Surroundings, program, read

WORKLOAD = program("calibration_workload")
RUNS = 200
REPORT = False
ALPHA = 5e-7

KIB = 1024
QUANTITIES = ("allocated objects", "allocated bytes", "live objects", "live bytes")
# Mean size of a block, as the workload draws them.
MEAN_SIZE = {"small": 288, "lognormal": 495, "pareto": 340}


@dataclass(frozen=True)
class Kind:
    shape: str
    distribution: str
    interval: int
    threads: int
    samples: int = 250  # about as many are allocated
    intervals: tuple = ()  # that follow
    box_size: str = "16MiB"
    # The probabilities are known beforehand.
    settled: bool = True

    def __str__(self):
        intervals = "→".join(str(t) for t in (self.interval, *self.intervals))
        box = "" if self.box_size == "16MiB" else f", box {self.box_size}"
        return f"{self.shape}, {self.distribution}, {intervals} B, {self.threads} threads{box}"

    def blocks(self):
        if self.distribution == "near":
            return int(self.samples * 1.6)
        intervals = (self.interval, *self.intervals)
        per_block = sum(min(MEAN_SIZE[self.distribution] / t, 1) for t in intervals)
        return int(self.samples / per_block * len(intervals))


STEADY = [
    Kind("steady", distribution, interval, threads, samples)
    for distribution in ("small", "pareto", "near")
    for interval, samples in ((4 * KIB, 250), (64 * KIB, 250), (512 * KIB, 100))
    for threads in (1, 4)
]
OTHERS = [
    Kind("realloc", "lognormal", 16 * KIB, 1, samples=500),
    Kind("realloc", "near", 64 * KIB, 4),
    Kind("handover", "small", 8 * KIB, 2),
    Kind("handover", "pareto", 16 * KIB, 4),
    Kind("change", "small", 64 * KIB, 2, intervals=(8 * KIB,)),
    Kind("change", "lognormal", 16 * KIB, 4, intervals=(128 * KIB,), samples=2000),
    Kind("change", "small", 16 * KIB, 2, intervals=(1, 64 * KIB), samples=20_000),
]
# Their probabilities are known by the box alone; so many samples that its estimate of the variance
# is as good as the truth.
UNSETTLED = [
    Kind("unsettled", "small", 32 * KIB, 4, intervals=(8 * KIB,), samples=4000, settled=False),
    Kind("steady", "small", 64, 4, samples=32_000, box_size="1MiB", settled=False),
    Kind("steady", "lognormal", 1, 2, samples=30_000, box_size="1MiB", settled=False),
]
KINDS = STEADY + OTHERS + UNSETTLED
# Tests of normality: three for each quantity of each kind, and of all kinds together; for what is
# not settled, live bytes only; two more for the stated error.
TESTS = 3 * (4 * (len(STEADY + OTHERS) + 1) + len(UNSETTLED)) + 2

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def stated_error(profile):
    """The standard error in the comments, in bytes."""
    for comment in profile.comments:
        found = re.match(r"live heap .*, standard error ([\d.]+) (\w+) \([<\d.]+ %\)", comment)
        if found:
            return float(found[1]) * _UNITS[found[2]]
        if re.match(r"live heap .*, no sampling error$", comment):
            return 0.0
    raise AssertionError(f"no standard error in {profile.comments}")


@dataclass
class Run:
    truth: list
    estimates: list
    variances: list
    box_variance: float
    stated: float
    thinned: bool


def measure(kind):
    """All runs of one kind."""
    with Surroundings() as surroundings:
        output = surroundings.run(
            WORKLOAD, kind.shape, kind.distribution, str(kind.threads), str(kind.blocks()),
            str(RUNS), str(KINDS.index(kind) * 10_000), surroundings.directory,
            *map(str, kind.intervals), timeout=max(600, 10 * RUNS), interval=kind.interval,
            box_size=kind.box_size)
        functions = Functions(WORKLOAD)
        runs = []
        for number, line in enumerate(output.splitlines()):
            values = list(map(float, line.split()))
            if values[9] != 0:
                raise AssertionError(f"{kind}: the box lost {values[9]} samples")
            profile = read(surroundings.path(f"{number}.pb.gz"))
            sums = [0] * 4
            for function, more in functions.sums(profile).items():
                if function.startswith("workload_"):
                    sums = [a + b for a, b in zip(sums, more)]
            runs.append(Run(values[:4], sums, values[4:8], values[8], stated_error(profile),
                            any(c.startswith("thinned") for c in profile.comments)))
    assert len(runs) == RUNS
    return runs


class Calibration(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # A run mostly waits for its dump; more at once than there are processors.
        with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
            cls.measured = dict(zip(KINDS, pool.map(measure, KINDS)))

    def standardized(self, kind, quantity):
        return [
            (run.estimates[quantity] - run.truth[quantity]) / math.sqrt(run.variances[quantity])
            for run in self.measured[kind]]

    def check(self, errors, *what):
        name = ", ".join(map(str, what))
        if REPORT:
            count = len(errors)
            low, high = goodness_of_fit.variance_limits(count, ALPHA / TESTS)
            print(f"{name}: mean {sum(errors) / count:+.3f} "
                  f"(limit {goodness_of_fit.mean_limit(count, ALPHA / TESTS):.3f}), "
                  f"mean square {goodness_of_fit.mean_square(errors):.3f} ({low:.3f}-{high:.3f}), "
                  f"distance {goodness_of_fit.distance(errors):.3f} "
                  f"({goodness_of_fit.distance_limit(count, ALPHA / TESTS):.3f})")
        with self.subTest(name):
            self.assertEqual(goodness_of_fit.faults(errors, ALPHA / TESTS), [])

    def test_errors_are_standard_normal_for_every_kind_of_run(self):
        for kind in STEADY + OTHERS:
            for quantity, name in enumerate(QUANTITIES):
                self.check(self.standardized(kind, quantity), kind, name)

    def test_errors_are_standard_normal_over_all_runs(self):
        for quantity, name in enumerate(QUANTITIES):
            errors = [e for kind in STEADY + OTHERS for e in self.standardized(kind, quantity)]
            if errors:
                self.check(errors, "all kinds", name)

    def test_errors_are_standard_normal_where_only_the_box_knows_the_probabilities(self):
        for kind in UNSETTLED:
            runs = self.measured[kind]
            if kind.box_size == "1MiB":
                self.assertTrue(all(run.thinned for run in runs), f"{kind}: the box never filled")
            errors = [(r.estimates[3] - r.truth[3]) / math.sqrt(r.box_variance) for r in runs]
            self.check(errors, kind, "live bytes")

    def test_the_stated_error_is_that_of_the_samples(self):
        """Stated from the stacks' counters; mean of its square over that of all live samples'."""
        # What live_error.h promises: exact where all sizes of a stack are small or alike, and
        # where only two intervals were in force; too high rather than too low for mixtures.
        for kind in KINDS:
            runs = self.measured[kind]
            ratio = math.sqrt(sum(r.stated**2 / r.box_variance for r in runs) / len(runs))
            if REPORT:
                print(f"{kind}: the stated error is {ratio:.3f} times that of the samples")
            with self.subTest(str(kind)):
                self.assertGreater(ratio, 0.97)
                exact = kind.distribution == "small" and len(kind.intervals) < 2
                self.assertLess(ratio, 1.03 if exact and kind.box_size == "16MiB" else 2)

    def test_errors_divided_by_the_stated_error_have_the_variance_of_a_standard_normal(self):
        exact = [k for k in STEADY + OTHERS if k.distribution == "small" and len(k.intervals) < 2]
        errors = [(r.estimates[3] - r.truth[3]) / r.stated
                  for kind in exact for r in self.measured[kind]]
        if not errors:
            self.skipTest("--only leaves out all kinds for which the stated error is exact")
        low, high = goodness_of_fit.variance_limits(len(errors), ALPHA / TESTS)
        square = goodness_of_fit.mean_square(errors)
        if REPORT:
            print(f"by the stated error: mean square {square:.3f} of {len(errors)} "
                  f"({low:.3f}-{high:.3f})")
        # An error that is itself estimated from some 100 samples adds 3/100 to the mean square.
        self.assertGreater(square, low)
        self.assertLess(square, high + 0.03)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--report", action="store_true")
    options, rest = parser.parse_known_args()
    RUNS = 2000 if options.long else RUNS
    REPORT = options.report
    for kinds in (STEADY, OTHERS, UNSETTLED, KINDS):
        kinds[:] = [kind for kind in kinds if options.only in str(kind)]
    unittest.main(argv=sys.argv[:1] + rest)
