#!/usr/bin/env python3
"""Runs cells of the OOM matrix and leaves for each a directory with all evidence.

    cell_run.py --build DIR --out DIR CELL…       a cell: SCENARIO:LIMIT:RATE:THREADS

Works on cgroup v1 and v2, and in a virtual machine without anything else. In OUT/CELL then lie:
run.json (how it ended), ledger, stopwatch, stderr, boxes/, dumps/. Judged by cell_check.py.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "support"))

import memory_cgroup  # noqa: E402
from matrix_cells import MIB, PERCENT, Cell  # noqa: E402

INTERVAL = 64 << 10


class Stopwatch:
    """rung_stopwatch at work; `with` ends it."""

    def __init__(self, program, cgroup, dumps, limit, period_us, output):
        self.output = output
        rungs = [str(limit * percent // 100) for percent in PERCENT]
        with open(output, "wb") as out:
            self.process = subprocess.Popen(
                [program, cgroup, dumps, str(period_us), *rungs], stdin=subprocess.PIPE, stdout=out
            )
        wait_for(lambda: os.path.getsize(output) > 0, 30, "the stopwatch is ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=30)


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.001)


class Run:
    """One cell; what it starts, it ends."""

    def __init__(self, cell, arguments, directory):
        self.cell = cell
        self.bin = f"{arguments.build}/tests/oom"
        self.library = f"{arguments.build}/lib/libheapflare.so"
        self.arguments = arguments
        self.directory = directory
        self.patience = arguments.patience + 3 * cell.seconds()
        self.disk = arguments.disk
        self.workload = None
        self.neighbour = None

    def environment(self):
        # The tests' own variables would be taken for misspelt settings.
        others = {k: v for k, v in os.environ.items() if not k.startswith("HEAPFLARE_")}
        return {
            **others,
            "LD_PRELOAD": self.library,
            "HEAPFLARE_DIR": f"{self.directory}/dumps",
            "HEAPFLARE_BOX_DIR": self.boxes,
            "HEAPFLARE_SAMPLE_INTERVAL": str(INTERVAL),
        }

    def start_workload(self, cgroup, go):
        cell = self.cell

        def enter():
            cgroup.enter()
            if cell.what.neighbour:
                # The kernel kills whom it likes best; we want to be the victim of the other one.
                with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
                    file.write("1000")

        with open(f"{self.directory}/stderr", "wb") as stderr:
            self.workload = subprocess.Popen(
                [
                    f"{self.bin}/oom_scenarios", f"--scenario={cell.what.program}",
                    f"--ledger={self.directory}/ledger", f"--limit={cell.limit}",
                    f"--rate={cell.rate}", f"--threads={cell.threads}", f"--go={go}",
                ],
                env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=stderr, preexec_fn=enter,
            )  # fmt: skip

    def start_neighbour(self, cgroup, scratch):
        cell = self.cell
        kind = cell.what.neighbour
        size = 4 * cell.limit
        disk = self.disk or f"{self.directory}/cache"
        file = {"tmpfs": [f"{scratch}/grown"], "pagecache": [disk]}
        self.neighbour = subprocess.Popen(
            [
                f"{self.bin}/oom_neighbour", kind, str(size), str(cell.rate), str(cell.threads),
                *file.get(kind, []),
            ],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=cgroup.enter,
        )  # fmt: skip

    def drive(self, cgroup, scratch):
        """From start to end: the workload's wait status, or None if it outlived the neighbour."""
        go = f"{scratch}/go"
        self.start_workload(cgroup, go)
        if self.cell.what.program in ("hold", "lowered"):
            if self.workload.stdout.readline() != b"ready\n":
                raise RuntimeError(f"the workload did not start: {self.workload.wait()}")
        if self.cell.scenario == "lowered":
            cgroup.set_limit(self.cell.limit * MIB)
            with open(go, "wb"):
                pass
        if self.cell.what.neighbour:
            self.start_neighbour(cgroup, scratch)
        if self.cell.what.survives:
            status = self.neighbour.wait(timeout=self.patience)
            if status != 0:
                raise RuntimeError(f"oom_neighbour: {self.neighbour.stderr.read().decode()}")
            return self.workload.poll()
        return self.workload.wait(timeout=self.patience)

    def run(self):
        scratch = tempfile.mkdtemp(prefix="heapflare-oom-", dir="/dev/shm")
        self.boxes = f"{scratch}/boxes"
        for path in (self.boxes, f"{self.directory}/dumps"):
            os.mkdir(path, 0o700)
        limit = self.cell.limit * MIB
        found = {"cell": str(self.cell), "problem": "", "status": None, "kills": 0}
        start = time.monotonic()
        first = 2 * limit if self.cell.scenario == "lowered" else limit
        try:
            with memory_cgroup.MemoryCgroup(first) as cgroup, Stopwatch(
                f"{self.bin}/rung_stopwatch", cgroup.path, f"{self.directory}/dumps", limit,
                self.arguments.period, f"{self.directory}/stopwatch",
            ):  # fmt: skip
                found["version"] = cgroup.version
                try:
                    found["status"] = self.drive(cgroup, scratch)
                finally:
                    self.end()
                found["kills"] = cgroup.oom_kills()
        except (OSError, RuntimeError, subprocess.SubprocessError) as problem:
            found["problem"] = f"{type(problem).__name__}: {problem}"
        found["seconds"] = time.monotonic() - start
        shutil.copytree(self.boxes, f"{self.directory}/boxes")
        shutil.rmtree(scratch)
        if os.path.exists(f"{self.directory}/cache"):
            os.remove(f"{self.directory}/cache")
        with open(f"{self.directory}/run.json", "w", encoding="utf-8") as file:
            json.dump(found, file)

    def end(self):
        for process in (self.workload, self.neighbour):
            if process is not None:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                for pipe in (process.stdout, process.stderr):
                    if pipe is not None:
                        pipe.close()


def run_cells(cells, arguments):
    """All of them, one after the other."""
    for number, cell in enumerate(cells, 1):
        print(f"{number}/{len(cells)} {cell}", file=sys.stderr, flush=True)
        # Not in OUT: a virtual machine's shared directory cannot be mapped.
        directory = tempfile.mkdtemp(prefix="heapflare-oom-")
        try:
            Run(cell, arguments, directory).run()
            shutil.copytree(directory, f"{arguments.out}/{cell}")
        finally:
            shutil.rmtree(directory)


def add_options(parser, patience=True):
    parser.add_argument("--period", type=int, default=300, help="of the stopwatch, µs (300)")
    if patience:
        parser.add_argument("--patience", type=float, default=60, help="s, beyond the ramp (60)")
    parser.add_argument("--disk", help="file for the page-cache storm")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", required=True)
    parser.add_argument("--out", required=True)
    add_options(parser)
    parser.add_argument("cells", nargs="+", type=Cell.parse)
    arguments = parser.parse_args()
    run_cells(arguments.cells, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
