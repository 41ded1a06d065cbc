#!/usr/bin/env python3
"""Measures what heapflare costs, beside its peers, and prints a table.

    tests/bench/run.py --build build/release [--quick] [--check] [--json FILE] [--markdown FILE]

Every row compares programs that took turns within this run: the allocator alone, with heapflare, with the
peer, and again. A cost is the median over the turns of the difference, or quotient, within one turn. So a
machine that is busy with other things makes the rows noisier, but favours none.

Exit code: 0 measured, 1 a goal is missed and --check given, 2 usage, 3 a row of heapflare's could not be
measured. A peer that is not installed is a row that says so.
"""

import argparse
import dataclasses
import gzip
import json
import math
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

INTERVAL = 512 << 10
PAIR_BYTES = 64
CHURN_BYTES = 544  # in the mean
DUMP_STACKS = 20_000
DUMP_LIVE = 100_000
TIMEOUT = 120  # s, for any one program

LIBRARY_DIRECTORIES = ["/usr/lib/{0}-linux-gnu", "/lib/{0}-linux-gnu", "/usr/local/lib", "/usr/lib64", "/usr/lib"]
ALLOCATORS = {
    "glibc": None,
    "jemalloc": "libjemalloc.so.2",
    "tcmalloc": "libtcmalloc.so.4",
    "mimalloc": "libmimalloc.so.2",
}
# What profiles the heap at the same interval with the allocator itself.
SAMPLING_PEERS = {
    "jemalloc": ("jemalloc prof", {"MALLOC_CONF": f"prof:true,lg_prof_sample:{int(math.log2(INTERVAL))}"}),
    "tcmalloc": ("gperftools sampling", {"TCMALLOC_SAMPLE_PARAMETER": str(INTERVAL)}),
}


class Failed(Exception):
    """A program could not be measured; says why."""


@dataclasses.dataclass
class Variant:
    """A way to run a program: variables to add, and what to put in front of it."""

    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    prefix: list[str] = dataclasses.field(default_factory=list)
    ours: bool = False


@dataclasses.dataclass
class Row:
    workload: str
    allocator: str
    plain: str = "–"
    heapflare: str = "–"
    cost: str = "–"
    goal: str = "–"
    verdict: str = "–"
    peer: str = "–"
    numbers: dict = dataclasses.field(default_factory=dict)  # all that was measured, for the JSON


@dataclasses.dataclass
class Scale:
    """How much is done of everything."""

    turns: int
    pair: int
    churn: int
    exact: int
    starts: int
    forks: int
    dumps: int
    blocks: int


FULL = Scale(turns=7, pair=10_000_000, churn=3_000_000, exact=200_000, starts=300, forks=300, dumps=7, blocks=16384)
QUICK = Scale(turns=1, pair=200_000, churn=50_000, exact=5_000, starts=10, forks=10, dumps=2, blocks=1024)


class Bench:
    def __init__(self, build: Path, scale: Scale, scratch: Path):
        self.programs = build / "tests" / "bench"
        self.library = build / "lib" / "libheapflare.so"
        self.scale = scale
        self.scratch = scratch
        self.rows: list[Row] = []
        self.failures = 0

    # --- running programs ---

    def ours(self, allocator: str = "glibc", **settings: str) -> Variant:
        preload = [str(self.library)]
        if ALLOCATORS[allocator]:
            preload.append(library(ALLOCATORS[allocator]))
        directories = {"HEAPFLARE_DIR": str(self.scratch), "HEAPFLARE_BOX_DIR": str(self.scratch)}
        interval = {"HEAPFLARE_SAMPLE_INTERVAL": str(INTERVAL)}
        return Variant({"LD_PRELOAD": ":".join(preload), **directories, **interval, **settings}, ours=True)

    def run(self, program: str, arguments: list, variant: Variant) -> dict:
        command = [*variant.prefix, str(self.programs / program), *map(str, arguments)]
        try:
            done = subprocess.run(
                command, env=environment(variant), cwd=self.scratch, capture_output=True, text=True, timeout=TIMEOUT)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"{program}: {error}") from error
        complaint = done.stderr.strip().splitlines()[-1:] or ["no output"]
        if done.returncode != 0:
            raise Failed(f"{program}: status {done.returncode}: {complaint[0]}")
        if "Invalid conf pair" in done.stderr:
            raise Failed("this jemalloc was built without profiling")
        results = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not results:
            raise Failed(f"{program}: {complaint[0]}")
        result = json.loads(results[0])
        if variant.ours and not result.get("active", 1):
            raise Failed(f"{program}: heapflare was preloaded but does not record")
        return result

    def take_turns(self, program: str, arguments: list, variants: dict[str, Variant], field: str = "ns"):
        """One value per turn for each variant; instead, for one that cannot be run, why."""
        values: dict[str, list[float]] = {name: [] for name in variants}
        reasons: dict[str, str] = {}
        for _ in range(self.scale.turns):
            for name, variant in variants.items():
                if name in reasons:
                    continue
                try:
                    values[name].append(self.run(program, arguments, variant)[field])
                except Failed as failure:
                    reasons[name] = str(failure)
        return {name: list_ for name, list_ in values.items() if name not in reasons}, reasons

    def measure(self, workload: str, allocator: str, measure: Callable[[Row], None]) -> None:
        row = Row(workload, allocator)
        print(f"{workload}, {allocator} …", file=sys.stderr)
        try:
            measure(row)
        except Failed as failure:
            row.verdict = f"failed: {failure}"
            self.failures += 1
        self.rows.append(row)

    # --- rows ---

    def loop(self, workload: str, allocator: str, program: str, arguments: list, goal: Callable, goal_text: str):
        """One operation in a loop: alone, with heapflare, with the allocator's own profiler."""
        file = ALLOCATORS[allocator]
        if file and not library(file):
            self.rows.append(Row(workload, allocator, verdict=f"skipped: {file} not found"))
            return
        base = {"LD_PRELOAD": library(file)} if file else {}
        variants = {"plain": Variant(base), "heapflare": self.ours(allocator)}
        peer, settings = SAMPLING_PEERS.get(allocator, (None, {}))
        if peer:
            variants[peer] = Variant({**base, **settings})

        def fill(row: Row) -> None:
            values, reasons = self.take_turns(program, arguments, variants)
            row.numbers = {"unit": "ns", **values}
            must_have(reasons, "plain", "heapflare")
            plain, heapflare = values["plain"], values["heapflare"]
            row.plain, row.heapflare = nanoseconds(plain), nanoseconds(heapflare)
            row.cost = costs(plain, heapflare)
            if goal_text:
                decide(row, goal_text, goal(plain, heapflare))
            if peer:
                row.peer = f"{peer}: " + (
                    f"skipped: {reasons[peer]}" if peer in reasons
                    else f"{nanoseconds(values[peer])}, {costs(plain, values[peer])}")

        self.measure(workload, allocator, fill)

    def exact(self, workload: str, program: str, arguments: list) -> None:
        """Every allocation recorded. By the wall clock: heaptrack works in a second process."""
        variants = {"plain": Variant(), "heapflare": self.ours(HEAPFLARE_SAMPLE_INTERVAL="1")}
        reasons_before = {}
        if heaptrack := shutil.which("heaptrack"):
            variants["heaptrack"] = Variant(prefix=[heaptrack, "-o", str(self.scratch / "heaptrack")])
        else:
            reasons_before["heaptrack"] = "not installed"
        if tcmalloc := library(ALLOCATORS["tcmalloc"]):
            variants["gperftools HEAPPROFILE"] = Variant(
                {"LD_PRELOAD": tcmalloc, "HEAPPROFILE": str(self.scratch / "gperftools")})
        else:
            reasons_before["gperftools HEAPPROFILE"] = f"{ALLOCATORS['tcmalloc']} not found"

        def fill(row: Row) -> None:
            values, reasons = self.take_turns(program, arguments, variants)
            reasons.update(reasons_before)
            row.numbers = {"unit": "ns", **values}
            must_have(reasons, "plain", "heapflare")
            row.plain, row.heapflare = nanoseconds(values["plain"]), nanoseconds(values["heapflare"])
            row.cost = f"{times(values['plain'], values['heapflare']):.1f} ×"
            row.peer = "; ".join(
                f"{name}: " + (f"skipped: {reasons[name]}" if name in reasons else nanoseconds(values[name]))
                for name in ("heaptrack", "gperftools HEAPPROFILE"))

        self.measure(workload, "glibc", fill)

    def sample_cost(self, workload: str, program: str, arguments: list, bytes_each: int) -> None:
        """What one sample costs, from how much slower the loop is when there are 32 times as many."""
        often = INTERVAL // 32
        variants = {"plain": self.ours(), "heapflare": self.ours(HEAPFLARE_SAMPLE_INTERVAL=str(often))}

        def fill(row: Row) -> None:
            values, reasons = self.take_turns(program, arguments, variants)
            must_have(reasons, "plain", "heapflare")
            row.numbers = {"unit": "ns", f"at {INTERVAL}": values["plain"], f"at {often}": values["heapflare"]}
            more = chance(bytes_each, often) - chance(bytes_each, INTERVAL)
            row.plain = "at 512 KiB " + nanoseconds(values["plain"])
            row.heapflare = "at 16 KiB " + nanoseconds(values["heapflare"])
            row.cost = f"{difference(values['plain'], values['heapflare']) / more:.0f} ns a sample"

        self.measure(workload, "glibc", fill)

    def start_up(self) -> None:
        program = shutil.which("true")
        variants = {"plain": Variant(), "heapflare": self.ours()}
        for allocator, (peer, settings) in SAMPLING_PEERS.items():
            if found := library(ALLOCATORS[allocator]):
                variants[peer] = Variant({"LD_PRELOAD": found, **settings})

        def fill(row: Row) -> None:
            lists = ["\n".join(f"{key}={value}" for key, value in v.environment.items()) for v in variants.values()]
            medians = self.run("startup_bench", [self.scale.starts, program, *lists], Variant())["ns"]
            found = dict(zip(variants, medians))
            row.numbers = {"unit": "ns", "runs": self.scale.starts, **found}
            row.plain, row.heapflare = milliseconds(found["plain"]), milliseconds(found["heapflare"])
            row.cost = "+" + milliseconds(found["heapflare"] - found["plain"])
            decide(row, "≤ +2 ms", found["heapflare"] - found["plain"] <= 2e6)
            row.peer = "; ".join(f"{name}: {milliseconds(found[name])}" for name in list(found)[2:]) or "–"

        self.measure("start-up of `true`", "glibc", fill)

    def fork(self) -> None:
        def fill(row: Row) -> None:
            values, reasons = self.take_turns(
                "fork_bench", [self.scale.forks], {"plain": Variant(), "heapflare": self.ours()})
            must_have(reasons, "plain", "heapflare")
            row.numbers = {"unit": "ns", **values}
            row.plain = milliseconds(statistics.median(values["plain"]))
            row.heapflare = milliseconds(statistics.median(values["heapflare"]))
            row.cost = f"+{milliseconds(difference(values['plain'], values['heapflare']))}"

        self.measure("fork, 100 mallocs, exit", "glibc", fill)

    def dump(self) -> None:
        def fill(row: Row) -> None:
            file = self.scratch / "dump.pb.gz"
            variant = self.ours(HEAPFLARE_SAMPLE_INTERVAL="1", HEAPFLARE_BOX_SIZE="64MiB")
            results = [
                self.run("dump_bench", [file, self.scale.dumps, DUMP_STACKS, DUMP_LIVE], variant)
                for _ in range(self.scale.turns)]
            stacks, live = profile_contents(file)
            file.unlink()
            calls = [ns for result in results for ns in result["ns"]]
            # The first call of a process finds nothing warm, and is the one that matters near the limit.
            first = statistics.median(result["ns"][0] for result in results)
            growth = max(growth for result in results for growth in result["rss_growth"])
            unknown = any(growth < 0 for result in results for growth in result["rss_growth"])
            heap = max(abs(result["heap_growth"]) for result in results)
            row.numbers = {"unit": "ns, bytes", "stacks": stacks, "live": live, "runs": results}
            row.heapflare = f"{milliseconds(statistics.median(calls))}, first {milliseconds(first)}"
            row.cost = (f"RSS +{'unknown' if unknown else f'{growth / 1024:.0f} KiB'}, heap +{heap} B; "
                        f"{stacks:,} stacks, {live:,} live")
            decide(row, "< 50 ms, RSS < +1 MiB, nothing allocated, nothing missing",
                   max(first, statistics.median(calls)) < 50e6 and growth < 1 << 20 and not unknown and heap == 0
                   and stacks >= DUMP_STACKS and live >= DUMP_LIVE)

        self.measure("dump of 20,000 stacks, 100,000 live samples", "glibc", fill)

    def resident(self) -> None:
        def fill(row: Row) -> None:
            values, reasons = self.take_turns(
                "resident_bench", [self.scale.blocks], {"plain": Variant(), "heapflare": self.ours()}, "rss")
            must_have(reasons, "plain", "heapflare")
            row.numbers = {"unit": "bytes", **values}
            row.plain = mebibytes(statistics.median(values["plain"]))
            row.heapflare = mebibytes(statistics.median(values["heapflare"]))
            row.cost = "+" + mebibytes(difference(values["plain"], values["heapflare"]))

        self.measure(f"resident, {self.scale.blocks * 64 // 1024:,} MiB live in 64 KiB blocks", "glibc", fill)

    def all(self) -> None:
        def pair_goal(plain, ours):
            return difference(plain, ours) <= 2

        def churn_goal(plain, ours):
            return times(plain, ours) <= 1.25

        pair, churn, exact = self.scale.pair, self.scale.churn, self.scale.exact
        for allocator in ALLOCATORS:
            self.loop("pair of 64 bytes", allocator, "pair_bench", [pair], pair_goal, "≤ +2 ns")
        for allocator in ALLOCATORS:
            self.loop("churn", allocator, "churn_bench", [churn], churn_goal, "≤ +25 %")
        for allocator in ALLOCATORS:
            self.loop("churn, 2 threads", allocator, "churn_bench", [churn, "wall", 2], churn_goal, "≤ +25 %")
        self.exact("exact: pair", "pair_bench", [exact, "wall"])
        self.exact("exact: churn", "churn_bench", [exact, "wall"])
        self.exact("exact: churn, 2 threads", "churn_bench", [exact, "wall", 2])
        self.sample_cost("one sample: pair", "pair_bench", [pair], PAIR_BYTES)
        self.sample_cost("one sample: churn, 20 deep", "churn_bench", [churn], CHURN_BYTES)
        self.start_up()
        self.fork()
        self.dump()
        self.resident()


# --- numbers ---


def difference(plain: list[float], other: list[float]) -> float:
    return statistics.median(b - a for a, b in zip(plain, other))


def times(plain: list[float], other: list[float]) -> float:
    return statistics.median(b / a for a, b in zip(plain, other))


def costs(plain: list[float], other: list[float]) -> str:
    return f"{difference(plain, other):+.1f} ns, {100 * (times(plain, other) - 1):+.0f} %"


def chance(bytes_: int, interval: int) -> float:
    """That an allocation is sampled; lib/recorder/sampler.h has the reason."""
    return 1 - math.exp(-(bytes_ + 1) / interval)


def nanoseconds(values: list[float]) -> str:
    value = statistics.median(values)
    return f"{value:,.0f} ns" if value >= 100 else f"{value:.1f} ns"


def milliseconds(ns: float) -> str:
    return f"{ns / 1e6:.2f} ms"


def mebibytes(bytes_: float) -> str:
    return f"{bytes_ / (1 << 20):.1f} MiB"


def decide(row: Row, goal: str, met: bool) -> None:
    row.goal = goal
    row.verdict = "met" if met else "**missed**"


def must_have(reasons: dict[str, str], *names: str) -> None:
    for name in names:
        if name in reasons:
            raise Failed(f"{name}: {reasons[name]}")


# --- the machine ---


def library(file: str) -> str:
    """Where it is installed, or an empty string."""
    for directory in LIBRARY_DIRECTORIES:
        path = Path(directory.format(platform.machine())) / file
        if path.exists():
            return str(path)
    return ""


def environment(variant: Variant) -> dict[str, str]:
    """This one's without whatever would already profile, and the variant's."""
    ours = {key: value for key, value in os.environ.items()
            if not key.startswith(("HEAPFLARE_", "MALLOC_", "TCMALLOC_", "HEAPPROFILE", "MIMALLOC_"))
            and key != "LD_PRELOAD"}
    return {**ours, **variant.environment}


def processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} threads"


# --- a profile, as far as needed here: profile.proto, fields 1 sample_type, 2 sample, 6 string_table ---


def fields(data: memoryview):
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        elif key & 7 == 2:
            length = varint()
            yield key >> 3, data[at:at + length]
            at += length
        else:
            raise Failed(f"profile: wire type {key & 7}")


def packed(value) -> list[int]:
    if isinstance(value, int):
        return [value]
    numbers, number, shift = [], 0, 0
    for byte in value:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(number)
            number = shift = 0
    return numbers


def profile_contents(path: Path) -> tuple[int, int]:
    """How many different stacks hold live objects, and how many objects."""
    types, samples, strings = [], [], []
    for number, value in fields(memoryview(gzip.decompress(path.read_bytes()))):
        if number == 1:
            types.append(dict(fields(value))[1])
        elif number == 2:
            samples.append(value)
        elif number == 6:
            strings.append(bytes(value).decode())
    column = [strings[type_] for type_ in types].index("inuse_objects")
    stacks, objects = set(), 0
    for sample in samples:
        locations, values = [], []
        for number, value in fields(sample):
            if number == 1:
                locations += packed(value)
            elif number == 2:
                values += packed(value)
        if values[column] > 0:
            stacks.add(tuple(locations))
            objects += values[column]
    return len(stacks), objects


# --- the table ---


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
        bench = Bench(arguments.build.resolve(), QUICK if arguments.quick else FULL, Path(scratch))
        bench.all()
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
