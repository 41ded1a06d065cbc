#!/usr/bin/env python3
"""What a leak check at exit costs: the same programs plain, under heapflare, LeakSanitizer and Valgrind.

    leak_check.py [--runs 5] [--without-valgrind]

User and system time of whole runs, medians, in turns. The programs: leak_check_bench (allocation-heavy)
and, as a C++ test suite of real size, heapflare's own unit tests. A table for the README on stdout.
HEAPFLARE_BUILD names the build directory.
"""
import argparse
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("HEAPFLARE_BUILD", HERE.parents[1] / "build/release")).resolve()
SUITE = ("base_test", "box_test", "cgroup_find_test", "cgroup_stat_test", "profile_test", "settings_test",
         "target_test", "leak_findings_test")


def seconds(command, environment):
    """Processor time of the command and its children; it must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--without-valgrind", action="store_true")
    arguments = parser.parse_args()
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith("HEAPFLARE_") and name != "LD_PRELOAD"}
    heavy = BUILD / "tests/bench/leak_check_bench"
    suite = [BUILD / "tests/unit" / name for name in SUITE]
    with tempfile.TemporaryDirectory() as directory:
        checked = clean | {"LD_PRELOAD": str(BUILD / "lib/libheapflare.so"),
                           "HEAPFLARE_LEAK_CHECK": "1", "HEAPFLARE_DIR": directory,
                           # What the tests leave on purpose is not what is measured.
                           "HEAPFLARE_LEAK_EXIT_CODE": "0"}
        ways = {"plain": lambda program: ([program], clean),
                "heapflare": lambda program: ([program], checked)}
        if shutil.which("clang++"):
            sanitized = f"{directory}/leak_check_bench"
            subprocess.run(["clang++", "-std=c++20", "-O2", "-g", "-fsanitize=leak",
                            HERE / "leak_check_bench.cc", "-o", sanitized], check=True)
            ways["LeakSanitizer"] = lambda program: (
                ([sanitized], clean) if program == heavy else (None, None))
        if shutil.which("valgrind") and not arguments.without_valgrind:
            ways["Valgrind"] = lambda program: (
                (["valgrind", "--leak-check=full", program], clean) if program == heavy else (None, None))
        print("| program | " + " | ".join(ways) + " |\n| --- |" + " ---: |" * len(ways))
        for title, programs in (("allocation-heavy", [heavy]), ("heapflare's unit tests", suite)):
            times = {way: [] for way in ways}
            for _ in range(arguments.runs):
                for way, make in ways.items():
                    commands = [make(program) for program in programs]
                    if commands[0][0] is None or (way == "Valgrind" and times[way]):
                        continue  # once is enough for what takes so long
                    times[way].append(sum(seconds(*command) for command in commands))
            plain = statistics.median(times["plain"])
            cells = [f"{statistics.median(t):.2f} s, {statistics.median(t) / plain:.1f} ×" if t else "–"
                     for t in times.values()]
            print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
