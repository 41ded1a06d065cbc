#!/usr/bin/env python3
"""The leak check at exit finds exactly what each small program of exit_cases.cc leaks, at -O0 and -O2.

    exit_test.py [CASE...]      under heapflare; the default
    exit_test.py --peers        also under LeakSanitizer (clang) and Valgrind: a table of all three

A case is right if the blocks that were reported have the number and the bytes of those that leak.
Precision: of the blocks reported, those that leak; recall: of those that leak, those reported; a case
contributes the smaller of the two numbers as found.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import heap_profile  # noqa: E402

BUILD = pathlib.Path(os.environ.get("HEAPFLARE_BUILD", HERE.parents[1] / "build/release"))
PROGRAMS = {level: BUILD / "tests/leak" / f"exit_cases_{level}" for level in ("O0", "O2")}
EXIT_CODE = 23
TIMEOUT = 60


def expected_blocks(text):
    """Number and bytes of the blocks that leak."""
    if text == "100x":
        return 100, sum(range(1000, 1100))
    sizes = [int(word) for word in text.split()]
    return len(sizes), sum(sizes)


def cases():
    listing = subprocess.run([PROGRAMS["O2"]], capture_output=True, text=True, check=True).stdout
    return {name: expected_blocks(sizes)
            for name, sizes in (line.split(": ", 1) for line in listing.splitlines())}


def clean_environment():
    return {name: value for name, value in os.environ.items()
            if not name.startswith("HEAPFLARE_") and name != "LD_PRELOAD"}


def leaked(directory):
    objects = bytes_ = 0
    for path in pathlib.Path(directory).glob("*.leaks*.pb.gz"):
        profile = heap_profile.read(path)
        for sample in profile.samples:
            objects += sample.values[0]
            bytes_ += sample.values[1]
    return objects, bytes_


def run_heapflare(program, name):
    with tempfile.TemporaryDirectory() as directory:
        environment = clean_environment() | {
            "HEAPFLARE_LEAK_CHECK": "1", "HEAPFLARE_DIR": directory,
            "LD_PRELOAD": str(BUILD / "lib/libheapflare.so")}
        done = subprocess.run([program, name], env=environment, capture_output=True, text=True,
                              timeout=TIMEOUT, check=False)
        found = leaked(directory)
    problem = ""
    # A child's leaks are the child's exit code.
    forks = "Fork" in name
    if not forks and done.returncode != (EXIT_CODE if found[0] else 0):
        problem = f"exit code {done.returncode}"
    return found, problem, done.stderr


def run_lsan(program, name):
    done = subprocess.run([program, name], env=clean_environment(), capture_output=True, text=True,
                          timeout=TIMEOUT, check=False)
    objects = bytes_ = 0
    for match in re.finditer(r"SUMMARY: LeakSanitizer: (\d+) byte\(s\) leaked in (\d+)", done.stderr):
        bytes_ += int(match[1])
        objects += int(match[2])
    return (objects, bytes_), "", done.stderr


def run_valgrind(program, name):
    done = subprocess.run(["valgrind", "--leak-check=full", program, name], env=clean_environment(),
                          capture_output=True, text=True, timeout=TIMEOUT, check=False)
    # A child's summary is its own.
    totals = {}
    pattern = r"==(\d+)==\s+(?:definitely|indirectly|possibly) lost: ([\d,]+) bytes in ([\d,]+) blocks"
    for pid, size, blocks in re.findall(pattern, done.stderr):
        objects, bytes_ = totals.get(pid, (0, 0))
        totals[pid] = (objects + int(blocks.replace(",", "")), bytes_ + int(size.replace(",", "")))
    return (sum(t[0] for t in totals.values()), sum(t[1] for t in totals.values())), "", done.stderr


class Score:
    def __init__(self):
        self.reported = self.leaking = self.found = self.right = self.cases = 0
        self.seconds = 0.0
        self.wrong = []

    def add(self, name, expected, found):
        self.cases += 1
        self.reported += found[0]
        self.leaking += expected[0]
        self.found += min(expected[0], found[0])
        if found == expected:
            self.right += 1
        else:
            self.wrong.append(name)

    def line(self, tool):
        precision = 100 * self.found / max(self.reported, 1)
        recall = 100 * self.found / max(self.leaking, 1)
        return (f"| {tool} | {self.right} of {self.cases} | {precision:.1f} % | {recall:.1f} % "
                f"| {self.seconds:.1f} s |")


def measure(run, programs, chosen, verbose):
    score = Score()
    for level, program in programs.items():
        for name, expected in chosen.items():
            begun = time.monotonic()
            try:
                found, problem, output = run(program, name)
            except subprocess.TimeoutExpired:
                found, problem, output = (-1, -1), f"did not end within {TIMEOUT} s", ""
            score.seconds += time.monotonic() - begun
            label = f"{name} -{level}"
            if problem:
                found = (-1, found[1])
            score.add(label, expected, found)
            if verbose and found != expected:
                print(f"{label}: leaks {expected[0]} blocks, {expected[1]} bytes; reported "
                      f"{found[0]}, {found[1]} {problem}\n{output}")
    return score


def build_with_lsan(directory):
    programs = {}
    for level in PROGRAMS:
        programs[level] = pathlib.Path(directory) / f"lsan_{level}"
        subprocess.run(["clang++", "-std=c++20", f"-{level}", "-g", "-fsanitize=leak", "-w",
                        f"-I{HERE.parents[1]}/include", HERE / "exit_cases.cc", "-pthread", "-ldl",
                        "-o", programs[level]], check=True)
    return programs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("case", nargs="*")
    arguments = parser.parse_args()
    chosen = {name: blocks for name, blocks in cases().items()
              if not arguments.case or name in arguments.case}
    ours = measure(run_heapflare, PROGRAMS, chosen, True)
    lines = [ours.line("heapflare")]
    if arguments.peers:
        with tempfile.TemporaryDirectory() as directory:
            lsan = measure(run_lsan, build_with_lsan(directory), chosen, False)
        valgrind = measure(run_valgrind, PROGRAMS, chosen, False)
        lines += [lsan.line("LeakSanitizer"), valgrind.line("Valgrind")]
        for tool, score in (("LeakSanitizer", lsan), ("Valgrind", valgrind)):
            print(f"{tool} is wrong about: {', '.join(score.wrong)}")
    print("| tool | cases right | precision | recall | time |\n| --- | --- | --- | --- | --- |")
    print("\n".join(lines))
    return 1 if ours.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
