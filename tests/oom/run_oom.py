#!/usr/bin/env python3
"""Has the kernel kill a leaking program in a real memory cgroup, and checks what heapflare left.

Every kill must leave a box from which `heapflare dump` makes a valid profile that agrees with the
ledger of the program, and with ramps of up to 1 GB/s the dumps at 80 % and 90 % of the limit too.

The profile is sampled, so agreement is statistical: within 4 standard errors, which are computed
from the sizes that were live. A right profiler fails that once in 16,000 comparisons; there are
about three to a kill, so a run of 100 kills fails for no reason with a probability of 2 %.

--matrix issue goes through all ways to a limit instead of leaks alone; matrix.py says more.

Exit status: 0 all kills passed, 1 some did not, 2 usage, 77 no memory cgroup can be made here.
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
from dataclasses import asdict, dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "support"))

import heap_profile  # noqa: E402
import memory_cgroup  # noqa: E402
import matrix  # noqa: E402
from agreement import MIB, compare, compare_total  # noqa: E402
from ledger import Ledger  # noqa: E402
from peers import PEERS  # noqa: E402

SKIP = 77
RUNGS = ("rung-80pct", "rung-90pct")

LEAKS = {  # block sizes -> who leaks them, the larger share first
    "small": ["LeakSmallByNew", "LeakSmallByMalloc"],
    "medium": ["LeakMediumByCalloc", "LeakMediumByRealloc"],
    "huge": ["LeakHugeByMalloc", "LeakHugeAligned"],
}


@dataclass(frozen=True)
class Case:
    rate: int  # MB/s; 0: as fast as possible
    blocks: str
    threads: int
    straw: bool = False

    def arguments(self):
        if self.straw:
            return ["--straw"]
        return [f"--rate={self.rate}", f"--blocks={self.blocks}", f"--threads={self.threads}"]

    def __str__(self):
        if self.straw:
            return "100 MiB held, then 200 MiB at once"
        speed = f"{self.rate} MB/s" if self.rate else "unlimited"
        return f"{speed}, {self.blocks}, {self.threads} thread{'s' if self.threads > 1 else ''}"


STRAW = Case(0, "huge", 1, straw=True)
# Everything that the project promises for 100 of 100 kills.
MATRIX = [
    Case(rate, blocks, threads)
    for blocks in LEAKS
    for threads in (1, 8)
    for rate in (50, 1000, 0)
] + [STRAW]
# Every rate, block size and number of threads, and the fast ones in most combinations.
QUICK = [
    Case(50, "small", 8),
    Case(50, "huge", 1),
    Case(1000, "small", 1),
    Case(1000, "small", 8),
    Case(1000, "medium", 1),
    Case(1000, "huge", 8),
    Case(0, "small", 1),
    Case(0, "small", 8),
    Case(0, "medium", 8),
    Case(0, "huge", 1),
    Case(0, "huge", 8),
    STRAW,
]


@dataclass
class Result:
    case: str
    problems: list = field(default_factory=list)
    seconds: float = 0
    live: int = 0  # bytes, by the ledger
    estimate: int = 0  # bytes, by the profile from the box
    standard_errors: float = 0  # between the two
    top: list = field(default_factory=list)
    dumps: dict = field(default_factory=dict)  # reason -> share of what was live at the kill
    kept: str = ""  # where the files of a failure are


class Lab:
    """The programs under test, and where the files go."""

    def __init__(self, arguments):
        build = arguments.build
        self.workload = arguments.workload or f"{build}/tests/oom/oom_workload"
        self.library = arguments.library or f"{build}/lib/libheapflare.so"
        self.command = arguments.heapflare or f"{build}/bin/heapflare"
        self.limit = arguments.limit * MIB
        self.interval = arguments.interval
        self.patience = arguments.patience
        self.keep = arguments.keep
        self.directory = tempfile.mkdtemp(prefix="heapflare-oom-")
        # Boxes belong on tmpfs.
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else self.directory
        self.boxes = tempfile.mkdtemp(prefix="heapflare-oom-", dir=shm)
        self.runs = 0

    def close(self):
        shutil.rmtree(self.boxes, ignore_errors=True)
        if not os.listdir(self.directory):
            os.rmdir(self.directory)

    def new_run(self):
        """Directories of one run: (files, boxes)."""
        self.runs += 1
        files, boxes = f"{self.directory}/{self.runs:03}", f"{self.boxes}/{self.runs:03}"
        os.mkdir(files)
        os.mkdir(boxes)
        return files, boxes

    def run_until_killed(self, case, files, environment, problems):
        """Runs the workload in a cgroup of its own. Returns its ledger and the seconds it lived."""
        ledger = f"{files}/ledger"
        command = [self.workload, f"--ledger={ledger}", f"--give-up={3 * self.limit // MIB}"]
        with memory_cgroup.MemoryCgroup(self.limit) as cgroup, open(
            f"{files}/stderr", "wb"
        ) as stderr:
            kills_before = cgroup.oom_kills()
            start = time.monotonic()
            process = subprocess.Popen(
                command + case.arguments(),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                preexec_fn=cgroup.enter,
            )
            try:
                status = process.wait(timeout=self.patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                problems.append(f"was not killed within {self.patience} s")
                status = -signal.SIGKILL
            seconds = time.monotonic() - start
            kills = cgroup.oom_kills() - kills_before
        if status != -signal.SIGKILL:
            with open(f"{files}/stderr", encoding="utf-8", errors="replace") as said:
                problems.append(f"ended with {status} instead of SIGKILL: {said.read().strip()}")
        if kills != 1:
            problems.append(f"oom_kill of its cgroup went up by {kills}, not by 1")
        return Ledger(ledger), seconds

    def run_case(self, case):
        files, boxes = self.new_run()
        result = Result(str(case))
        environment = {
            "LD_PRELOAD": self.library,
            "HEAPFLARE_DIR": files,
            "HEAPFLARE_BOX_DIR": boxes,
            "HEAPFLARE_SAMPLE_INTERVAL": str(self.interval),
        }
        try:
            ledger, result.seconds = self.run_until_killed(
                case, files, environment, result.problems
            )
            result.live = ledger.total().bytes
            self.check_box(case, ledger, files, boxes, result)
            self.check_dumps(case, files, result)
        except (
            heap_profile.ProfileError, OSError, ValueError, subprocess.SubprocessError,
        ) as problem:  # fmt: skip
            result.problems.append(f"{type(problem).__name__}: {problem}")
        if result.problems or self.keep:
            for box in os.listdir(boxes):
                shutil.copy(f"{boxes}/{box}", files)
            result.kept = files
        else:
            shutil.rmtree(files)
        shutil.rmtree(boxes)
        return result

    def check_box(self, case, ledger, files, boxes, result):
        recovered = f"{files}/from-box.pb.gz"
        done = subprocess.run(
            [self.command, "dump", "--no-symbols", boxes, "-o", recovered],
            capture_output=True,
            text=True,
            timeout=self.patience,
        )
        if done.returncode != 0:
            result.problems.append(
                f"heapflare dump ended with {done.returncode}: {done.stderr.strip()}"
            )
            return
        if done.stdout.strip() != recovered:
            result.problems.append(f"heapflare dump printed {done.stdout!r}, not {recovered}")
        profile = heap_profile.read(recovered)
        result.problems += heap_profile.heap_faults(profile)

        result.estimate = profile.total("inuse_space")
        result.standard_errors = compare_total(
            result.estimate, ledger, self.interval, 1, result.problems
        )

        named = heap_profile.symbolized(recovered, self.workload, f"{files}/symbolized.pb.gz")
        for site, account in ledger.by_site.items():
            # Only what is defined outside of namespaces has a name for `go tool pprof`.
            if account.objects == 0 or site == "HandleRequest":
                continue
            estimate = named.total("inuse_space", lambda s, site=site: site in s.functions())
            variance = account.variance(self.interval)
            compare(
                site, estimate, account.bytes, variance, ledger.undecided[site], result.problems
            )

        rows = heap_profile.go_top(recovered, self.workload)
        expected = ["TheLastStraw", "HoldWorkingSet"] if case.straw else LEAKS[case.blocks]
        result.top = [f"{function} {percent:.0f} %" for function, _, percent in rows[:2]]
        if [function for function, _, _ in rows[:2]] != expected:
            result.problems.append(f"top entries are {result.top}, not {expected}")

    def check_dumps(self, case, files, result):
        for name in sorted(os.listdir(files)):
            # PROGRAM.PID.START.NNNN.REASON.pb.gz: what has this name is complete.
            parts = name.split(".")
            if len(parts) != 7 or parts[-2:] != ["pb", "gz"]:
                continue
            reason = parts[4]
            profile = heap_profile.read(f"{files}/{name}")
            result.problems += [f"{name}: {fault}" for fault in heap_profile.heap_faults(profile)]
            if result.live:
                result.dumps[reason] = profile.total("inuse_space") / result.live
            if case.straw and reason == "straw":
                self.check_straw(f"{files}/{name}", profile, result)
        required = ("straw",) if case.straw else RUNGS if case.rate else ()
        for reason in required:
            if reason not in result.dumps:
                result.problems.append(f"there is no {reason} dump")

    def check_straw(self, path, profile, result):
        function, flat, _ = (heap_profile.go_top(path, self.workload) or [("nothing", 0, 0)])[0]
        if function != "TheLastStraw" or flat < 199 * MIB:
            result.problems.append(f"the straw dump begins with {function}, {flat / MIB:.0f} MiB")
        marked = profile.total("inuse_space", lambda s: s.labels.get("request") == "straw")
        if marked != 200 * MIB:
            result.problems.append(f"the straw dump marks {marked} bytes as requested")

    def run_peer(self, peer, case):
        """One run under a peer: a row for the table."""
        files, boxes = self.new_run()
        problems = []
        environment = {"LD_PRELOAD": peer.path(), **peer.environment(files)}
        ledger, _ = self.run_until_killed(case, files, environment, problems)
        live, complete, cut = peer.last_live(files)
        shutil.rmtree(files)
        shutil.rmtree(boxes)
        return {
            "case": str(case),
            "profiler": peer.name,
            "coverage": live / max(1, ledger.total().bytes),
            "live": ledger.total().bytes,
            "complete": complete,
            "cut": cut,
            "problems": problems,
        }


def print_results(results):
    print("| case | live at the kill | profile from the box | off by | top | dumps: share of it |")
    print("| --- | ---: | ---: | ---: | --- | --- |")
    for r in results:
        dumps = ", ".join(f"{reason} {share:.0%}" for reason, share in r.dumps.items())
        print(
            f"| {r.case} | {r.live / MIB:.1f} MiB | {r.estimate / MIB:.1f} MiB "
            f"| {r.standard_errors:+.1f} σ | {', '.join(r.top)} | {dumps or 'none'} |"
        )
    good = sum(not r.problems for r in results)
    print(f"\n{good} of {len(results)} kills left a complete and correct profile.")
    for r in results:
        for problem in r.problems:
            print(f"FAILED: {r.case}: {problem}" + (f" (files: {r.kept})" if r.kept else ""))


def run_peers(lab):
    cases = [Case(rate, blocks, 1) for rate in (50, 1000) for blocks in LEAKS]
    rows = []
    for case in cases:
        ours = lab.run_case(case)
        rows.append(
            {
                "case": str(case),
                "profiler": "heapflare, from the box",
                "coverage": ours.estimate / max(1, ours.live),
                "live": ours.live,
                "complete": len(ours.dumps),
                "cut": 0,
                "problems": ours.problems,
            }
        )
        for peer in PEERS:
            if peer.path():
                rows.append(lab.run_peer(peer, case))
    print("| case | profiler | live at the kill | of which the last profile knows | dumps |")
    print("| --- | --- | ---: | ---: | --- |")
    for row in rows:
        cut = f", {row['cut']} cut off" if row["cut"] else ""
        print(
            f"| {row['case']} | {row['profiler']} | {row['live'] / MIB:.1f} MiB "
            f"| {row['coverage']:.0%} | {row['complete']}{cut} |"
        )
    for peer in PEERS:
        if not peer.path():
            print(f"{peer.name}: not compared: {peer.library} is not installed")
    for row in rows:
        for problem in row["problems"]:
            print(f"FAILED: {row['profiler']}, {row['case']}: {problem}")
    return rows


def parse_arguments():
    root = os.path.dirname(os.path.dirname(HERE))
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", default=f"{root}/build/release", help="build directory")
    parser.add_argument("--workload", help="oom_workload (BUILD/tests/oom/…)")
    parser.add_argument("--library", help="libheapflare.so (BUILD/lib/libheapflare.so)")
    parser.add_argument("--heapflare", help="the command (BUILD/bin/heapflare)")
    parser.add_argument("--limit", type=int, default=256, help="of the cgroup, MiB (256)")
    parser.add_argument("--interval", type=int, default=64 << 10, help="sampling, bytes (65536)")
    parser.add_argument("--patience", type=float, default=60, help="seconds for one kill (60)")
    parser.add_argument("--json", help="write the results to this file")
    parser.add_argument("--keep", action="store_true", help="keep the files of every kill")
    parser.add_argument("--only", default="", help="cases whose description contains this text")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--matrix", choices=["quick", "full", "issue"], default="quick",
                      help="issue: every way to a limit, see matrix.py")
    what.add_argument("--kills", type=int, help="go through the full matrix until so many")
    what.add_argument("--peers", action="store_true", help="compare with other profilers instead")
    matrix.add_options(parser)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.matrix == "issue":
        return matrix.run(arguments)
    try:
        memory_cgroup.MemoryCgroup(arguments.limit * MIB).remove()
    except memory_cgroup.Unavailable as why:
        print(f"skipped: no memory cgroup can be made here: {why}")
        return SKIP
    lab = Lab(arguments)
    for path in (lab.workload, lab.library, lab.command):
        if not os.path.exists(path):
            print(f"run_oom.py: {path}: missing; build it, or say --build=DIR", file=sys.stderr)
            return 2
    try:
        if arguments.peers:
            rows = run_peers(lab)
            failed = any(row["problems"] for row in rows)
        else:
            chosen = QUICK if arguments.matrix == "quick" and not arguments.kills else MATRIX
            cases = [case for case in chosen if arguments.only in str(case)]
            if not cases:
                print(f"run_oom.py: --only={arguments.only!r}: no such case", file=sys.stderr)
                return 2
            if arguments.kills:
                cases = [cases[i % len(cases)] for i in range(arguments.kills)]
            results = []
            for number, case in enumerate(cases, 1):
                result = lab.run_case(case)
                results.append(result)
                verdict = "FAILED" if result.problems else "ok"
                print(f"{number}/{len(cases)} {case}: {verdict}", file=sys.stderr, flush=True)
            print_results(results)
            rows = [asdict(result) for result in results]
            failed = any(result.problems for result in results)
        if arguments.json:
            with open(arguments.json, "w", encoding="utf-8") as file:
                json.dump(rows, file, indent=1)
    finally:
        lab.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
