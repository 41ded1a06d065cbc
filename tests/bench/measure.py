"""How the benchmarks measure: programs that take turns, and the rows that come of it."""

import dataclasses
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

INTERVAL = 512 << 10
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


class Skipped(Exception):
    """Something that is measured is not installed; says what."""


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
    share: float  # of the operations that a full run makes

    def of(self, count: int) -> int:
        return max(1, int(count * self.share))


FULL = Scale(turns=7, share=1)
QUICK = Scale(turns=1, share=0.02)


class Bench:
    def __init__(self, build: Path, scale: Scale, scratch: Path, only: list[str] | None = None):
        self.programs = build / "tests" / "bench"
        self.library = build / "lib" / "libheapflare.so"
        self.scale = scale
        self.scratch = scratch
        self.only = only or [""]
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

    def plain(self, allocator: str = "glibc") -> Variant:
        """The allocator alone; Skipped if it is not installed."""
        file = ALLOCATORS[allocator]
        if file and not library(file):
            raise Skipped(f"{file} is not installed")
        return Variant({"LD_PRELOAD": library(file)} if file else {})

    def sampling_peer(self, allocator: str) -> tuple[str, Variant]:
        """The allocator's own profiler and its name, empty if it has none."""
        peer, settings = SAMPLING_PEERS.get(allocator, ("", {}))
        return peer, Variant({**self.plain(allocator).environment, **settings})

    def run(self, program: str, arguments: list, variant: Variant) -> dict:
        """One of our programs, which prints a line of JSON."""
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

    def value_of(self, program: str, arguments: list, field: str = "ns") -> Callable[[Variant], float]:
        return lambda variant: self.run(program, arguments, variant)[field]

    def take_turns(self, value: Callable[[Variant], float], variants: dict[str, Variant]):
        """One value per turn for each variant; instead, for one that cannot be run, why."""
        values: dict[str, list[float]] = {name: [] for name in variants}
        reasons: dict[str, str] = {}
        for _ in range(self.scale.turns):
            for name, variant in variants.items():
                if name in reasons:
                    continue
                try:
                    values[name].append(value(variant))
                except Failed as failure:
                    reasons[name] = str(failure)
        return {name: list_ for name, list_ in values.items() if name not in reasons}, reasons

    def measure(self, workload: str, allocator: str, measure: Callable[[Row], None]) -> None:
        if not any(text in workload for text in self.only):
            return
        row = Row(workload, allocator)
        print(f"{workload}, {allocator} …", file=sys.stderr)
        try:
            measure(row)
        except Skipped as reason:
            row.verdict = f"skipped: {reason}"
        except Failed as failure:
            row.verdict = f"failed: {failure}"
            self.failures += 1
        self.rows.append(row)


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
