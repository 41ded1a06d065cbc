#!/usr/bin/env python3
"""Measures what heapflare costs, beside its peers, and prints a table.

    tests/bench/run.py --build build/release [--quick] [--check] [--only TEXT ...] [--json FILE] [--markdown FILE]

Every row compares programs that took turns within this run: the allocator alone, with heapflare, with the
peer, and again. A cost is the median over the turns of the difference, or quotient, within one turn. So a
machine that is busy with other things makes the rows noisier, but favours none.

Exit code: 0 measured, 1 a goal is missed and --check given, 2 usage, 3 a row of heapflare's could not be
measured. A peer that is not installed is a row that says so.
"""

import argparse
import dataclasses
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

import real_programs
import rows
from measure import FULL, INTERVAL, QUICK, Bench, processor


def markdown(bench: Bench, command: str) -> str:
    titles = ["workload", "allocator", "without", "with heapflare", "cost", "goal", "verdict", "peer, same run"]
    lines = [
        f"`{command}`, {processor()}; medians of {bench.scale.turns} turns; heapflare and peers sample every "
        f"{INTERVAL >> 10} KiB where nothing else is said.",
        "",
        "| " + " | ".join(titles) + " |",
        "|" + " --- |" * len(titles),
    ]
    for row in bench.rows:
        cells = [row.workload, row.allocator, row.plain, row.heapflare, row.cost, row.goal, row.verdict, row.peer]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures what heapflare costs, beside its peers.")
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build directory, as build/release")
    parser.add_argument("--quick", action="store_true", help="only to see that it works; the numbers mean little")
    parser.add_argument("--only", action="append", metavar="TEXT", help="rows whose workload contains this, or the next")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a goal is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all measurements (default: DIR/bench.json)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    arguments = parser.parse_args()
    needed = [arguments.build / "lib" / "libheapflare.so", arguments.build / "tests" / "bench" / "pair_bench"]
    for file in needed:
        if not file.exists():
            print(f"run.py: {file}: not there; build first: cmake --build {arguments.build}", file=sys.stderr)
            return 2
    # Boxes belong on a tmpfs; peers write what they collect there too.
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="heapflare-bench-", dir=shared) as scratch:
        bench = Bench(arguments.build.resolve(), QUICK if arguments.quick else FULL, Path(scratch), arguments.only)
        rows.all_rows(bench)
        real_programs.all_rows(bench)
    # As to be typed, without where the results go.
    command = f"tests/bench/run.py --build {shlex.quote(str(arguments.build))}" + (
        " --quick" if arguments.quick else "")
    table = markdown(bench, command)
    print(table, end="")
    if arguments.markdown:
        arguments.markdown.write_text(table, encoding="utf-8")
    (arguments.json or arguments.build / "bench.json").write_text(
        json.dumps({"command": command, "processor": processor(), "turns": bench.scale.turns,
                    "rows": [dataclasses.asdict(row) for row in bench.rows]}, indent=1, ensure_ascii=False) + "\n",
        encoding="utf-8")
    if bench.failures:
        return 3
    missed = sum(row.verdict == "**missed**" for row in bench.rows)
    return 1 if arguments.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
