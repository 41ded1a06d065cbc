#!/usr/bin/env python3
"""Fuzzes every parser with libFuzzer under ASan and UBSan, starting from the seeds in the tree.

  run.py                       what the tests do: a minute for each target, two at a time
  run.py --seconds 3600        an hour for each
  run.py --targets box,profile --seconds 300

What is found goes to build/fuzz/found/: put it into seeds/TARGET, so that the replay tests look at
it from then on, and mend the code. The corpus that grew is kept in build/fuzz/corpus and used again
by longer runs; the tests start from the seeds alone, so that they do the same everywhere.
Exits 77 where there is no clang with libFuzzer.
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build", "fuzz")
SEEDS = os.path.join(ROOT, "tests", "fuzz", "seeds")
TARGETS = ("box", "profile", "symbols", "settings", "cgroup", "mountinfo", "elf", "control", "maps",
           "credentials", "parse", "reach")
SECONDS = 60  # for each, in the tests


def skip(why):
    print(f"fuzz: {why}; skipped")
    sys.exit(77)


def build():
    if not shutil.which("clang++"):
        skip("clang++ is not installed")
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "a.cc")
        with open(program, "w", encoding="utf-8") as file:
            file.write('extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) '
                       "{ return 0; }\n")
        tried = subprocess.run(["clang++", "-fsanitize=fuzzer,address,undefined", program, "-o",
                                os.path.join(directory, "a")], capture_output=True, check=False)
        if tried.returncode != 0:
            skip("clang++ has no libFuzzer (Debian: libclang-rt-14-dev)")
    for command in (["cmake", "--preset", "fuzz"],
                    ["cmake", "--build", "--preset", "fuzz", "-j", str(os.cpu_count())]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
            sys.exit(f"fuzz: {' '.join(command)}: failed")


def fuzz(target, seconds, keep):
    """Returns what libFuzzer says: inputs, coverage (edges), features, and the problem, if any."""
    found = os.path.join(BUILD, "found")
    os.makedirs(found, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        corpus = os.path.join(BUILD, "corpus", target) if keep else temporary
        os.makedirs(corpus, exist_ok=True)
        command = [os.path.join(BUILD, "tests", "fuzz", f"{target}_fuzz"), corpus,
                   os.path.join(SEEDS, target), f"-max_total_time={seconds}", "-max_len=16384",
                   "-len_control=10", "-timeout=25", "-rss_limit_mb=2560",
                   f"-artifact_prefix={found}/{target}-"]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              check=False, env={**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"})
    log = done.stderr.decode("utf-8", "replace")
    counts = re.findall(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+)", log, re.MULTILINE)
    inputs, edges, features = counts[-1] if counts else (0, 0, 0)
    problem = ""
    if done.returncode != 0:
        lines = [line for line in log.splitlines() if re.search(
            r"does not hold|ERROR|runtime error|SUMMARY|Test unit written|^ +#\d", line)]
        problem = "\n".join(lines[:30]) or log[-2000:]
    return int(inputs), int(edges), int(features), problem


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, help=f"for each target (default {SECONDS})")
    parser.add_argument("--targets", default=",".join(TARGETS), help="comma list; default all")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time (default 2)")
    arguments = parser.parse_args()
    targets = arguments.targets.split(",")
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")

    build()
    seconds = arguments.seconds or SECONDS
    failed = []
    everything = 0
    print(f"{'target':12} {'seconds':>7} {'inputs':>10} {'edges':>6} {'features':>8}", flush=True)
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = {}
        for target in targets:
            runs[pool.submit(fuzz, target, seconds, arguments.seconds is not None)] = target
        for run in concurrent.futures.as_completed(runs):
            target = runs[run]
            inputs, edges, features, problem = run.result()
            everything += inputs
            print(f"{target:12} {seconds:7} {inputs:10} {edges:6} {features:8}", flush=True)
            # Seeds alone are a few dozen: a fuzzer that did not get past them proves nothing.
            if not problem and inputs < 100:
                problem = f"only {inputs} inputs were tried"
            if problem:
                failed.append(target)
                print(f"{target}: {problem}", flush=True)
    print(f"{everything} inputs fuzzed in {len(targets)} targets under ASan and UBSan: "
          + (f"FAILED: {', '.join(failed)}" if failed else "nothing found"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
