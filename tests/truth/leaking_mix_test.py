"""`heapflare leaks` of a service that has one leak among things that only look like one.

examples/leaking_mix serves for ten minutes at 20 MB/s with one sample per 512 KiB; it leaks one
percent of what it allocates, has a cache that fills and levels off, a pool that grows slowly towards a
bound, and churn. By default its clock runs 20 times as fast, in SEEDS processes at once: the same
samples in the same order, in half a minute. `--long` takes the ten minutes, 20 processes at once.

A correct build fails by chance:
- the leak is not named, or something else is: simulated in unit/leak_growth_test.cc, below 1 in 1,000
  for each process (the leak has 229 samples, 1,000 of 1,000 were named);
- the bytes lie more than 4 standard errors from the truth: 6e-5 for each process.
"""

import json
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import profiled

SERVICE = os.path.join(profiled.BUILD, "examples", "leaking_mix")
LONG = "--long" in sys.argv
SEEDS, SPEED = (20, 1) if LONG else (4, 20)
LEAK = "leaking_mix::AuditLog::Remember"


class LeakingMixTest(profiled.ProfiledTest):
    def test_names_the_leak_and_nothing_else(self):
        runs = []
        for seed in range(1, SEEDS + 1):
            environment = self.with_settings(BOX_DIR=os.path.join(self.box_parent, str(seed)),
                                             SAMPLE_INTERVAL="512KiB")
            environment["LD_PRELOAD"] = profiled.LIBRARY
            runs.append((seed, self.start([SERVICE, f"--seed={seed}", f"--speed={SPEED}"],
                                          env=environment, stdin=subprocess.PIPE,
                                          stdout=subprocess.PIPE, text=True)))
        print()
        for seed, process in runs:
            books = json.loads(process.stdout.readline())
            with self.subTest(seed=seed):
                self.check(seed, process, books)

    def check(self, seed, process, books):
        # Of the living, and from the box that a kill leaves.
        living = self.suspects(str(process.pid))
        process.kill()
        process.wait()
        suspects = self.suspects(os.path.join(self.box_parent, str(seed)))
        self.assertEqual([suspect["function"] for suspect in living], [LEAK])
        self.assertEqual([suspect["function"] for suspect in suspects], [LEAK])
        leak = suspects[0]
        error = (leak["bytes"] - books["leaked"]) / leak["bytes_error"]
        print(f"seed {seed:2}: leaked {books['leaked'] / 1e6:.1f} MB, estimated "
              f"{leak['bytes'] / 1e6:.1f} ± {leak['bytes_error'] / 1e6:.1f}, off by {error:+.2f} "
              f"standard errors; slope {leak['slope_bytes_per_hour'] / 1e6 / SPEED:.0f} ± "
              f"{leak['slope_error'] / 1e6 / SPEED:.0f} MB/h, true "
              f"{books['leaked'] / 1e6 * 6:.0f}", flush=True)
        self.assertLess(abs(error), 4)
        # The slope's error has the noise of the arrivals in it, too.
        true_slope = books["leaked"] * 6 * SPEED
        self.assertLess(abs(leak["slope_bytes_per_hour"] - true_slope), 5 * leak["slope_error"])
        self.assertAlmostEqual(leak["share"],
                               books["leaked"] / sum(books.values()), delta=0.2)

    def suspects(self, target):
        result = self.heapflare("leaks", "--json", target)
        self.assertEqual(result.returncode, 0, result)
        return json.loads(result.stdout)["growth"]["suspects"]


if __name__ == "__main__":
    unittest.main(argv=[argument for argument in sys.argv if argument != "--long"])
