#!/usr/bin/env python3
"""Counts the instructions that heapflare adds to an allocation and its free, with callgrind.

    tests/bench/instructions.py --build build/release

Unlike nanoseconds these do not depend on what else the machine does, so they are checked: a change that makes
a hot path longer fails here, and whoever means it raises the limit below. Counted are the hooks and all that
they call, on the program's own thread: valgrind runs no other of ours. What start-up costs cancels out between
a short and a long run.

Exit code: 0 within the limits, 1 not, 2 usage, 77 valgrind is not installed.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import Bench, QUICK, Variant, environment

# An instruction is not an instruction: what replaced fourteen locked ones, of 5 ns each, are seventy that take 10 ns.
# Without samples means switched off (interval 0): a single sample that falls by chance costs, where it is the first,
# more than all the rest. Case, program, operations, sample interval, most instructions that may be added to one
CASES = [
    ("fast path: a pair of 64 bytes, no sample", "pair_bench", 100_000, "0", 16),
    ("fast path: churn, no sample", "churn_bench", 100_000, "0", 16),
    ("every allocation recorded: a pair of 64 bytes, 7 frames", "pair_bench", 20_000, "1", 1420),
    ("every allocation recorded: churn, 27 frames", "churn_bench", 20_000, "1", 2350),
]


def instructions(bench: Bench, program: str, count: int, variant: Variant) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", bench.programs / program, str(count)]
    done = subprocess.run(command, env=environment(variant), cwd=bench.scratch, capture_output=True, text=True,
                          timeout=300)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not collected:
        sys.exit(f"instructions.py: callgrind failed: {done.stderr[-500:]}")
    return int(collected[1])


def per_operation(bench: Bench, program: str, count: int, variant: Variant) -> float:
    short, long = (instructions(bench, program, n, variant) for n in (count, 2 * count))
    return (long - short) / count


def main() -> int:
    parser = argparse.ArgumentParser(description="Counts the instructions that heapflare adds.")
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build directory, as build/release")
    arguments = parser.parse_args()
    if not shutil.which("valgrind"):
        print("skipped: valgrind is not installed")
        return 77
    failed = False
    print("| instructions per operation | without | added | limit |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(prefix="heapflare-instructions-") as scratch:
        bench = Bench(arguments.build.resolve(), QUICK, Path(scratch))
        for case, program, count, interval, most in CASES:
            plain = per_operation(bench, program, count, Variant())
            ours = per_operation(bench, program, count, bench.ours(HEAPFLARE_SAMPLE_INTERVAL=interval))
            print(f"| {case} | {plain:.1f} | {ours - plain:.1f} | {most} |", flush=True)
            failed = failed or ours - plain > most
    if failed:
        print("instructions.py: a path has grown beyond its limit")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
