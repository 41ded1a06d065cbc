"""The rows of the table that our own benchmark programs make."""

import os
import shutil
import statistics
import sys
from collections.abc import Callable

import measure
from measure import (
    ALLOCATORS, INTERVAL, Bench, Failed, Row, Variant, costs, decide, difference, library, mebibytes, milliseconds,
    must_have, nanoseconds, times)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import heap_profile  # noqa: E402

CHURN_BYTES = 544  # of a block, in the mean
DUMP_STACKS = 20_000
DUMP_LIVE = 100_000


def pair_goal(plain, ours):
    return difference(plain, ours) <= 1


def churn_goal(plain, ours):
    return difference(plain, ours) <= 1.5 or times(plain, ours) <= 1.1


# workload, program, operations, further arguments, goal
LOOPS = [
    ("pair of 64 bytes", "pair_bench", 10_000_000, [], "≤ +1.0 ns", pair_goal),
    ("churn", "churn_bench", 3_000_000, [], "≤ +1.5 ns or 1.10 ×", churn_goal),
    ("churn, 2 threads", "churn_bench", 3_000_000, ["wall", 2], "≤ +1.5 ns or 1.10 ×", churn_goal),
    ("churn, 8 threads", "churn_bench", 1_000_000, ["wall", 8], "≤ +1.5 ns or 1.10 ×", churn_goal),
    ("churn, 200 deep", "churn_bench", 3_000_000, ["cpu", 1, 200], "", None),
    ("freed by another thread", "handoff_bench", 3_000_000, [], "", None),
    ("larson, 2 threads", "larson_bench", 3_000_000, [2], "", None),
    ("growth by realloc", "realloc_bench", 1_000_000, [], "", None),
    ("a thread, 100 blocks", "threads_bench", 3_000, [], "", None),
    ("32,768 stacks, exceptions", "stacks_bench", 500_000, [], "", None),
]


def loop(bench: Bench, workload: str, allocator: str, program: str, arguments: list, goal_text: str,
         goal: Callable | None) -> None:
    """One operation in a loop: alone, with heapflare, with the allocator's own profiler."""

    def fill(row: Row) -> None:
        variants = {"plain": bench.plain(allocator), "heapflare": bench.ours(allocator)}
        peer, variant = bench.sampling_peer(allocator)
        if peer:
            variants[peer] = variant
        values, reasons = bench.take_turns(bench.value_of(program, arguments), variants)
        row.numbers = {"unit": "ns", **values}
        must_have(reasons, "plain", "heapflare")
        plain, heapflare = values["plain"], values["heapflare"]
        row.plain, row.heapflare = nanoseconds(plain), nanoseconds(heapflare)
        row.cost = costs(plain, heapflare)
        if goal:
            decide(row, goal_text, goal(plain, heapflare))
        if peer:
            row.peer = f"{peer}: " + (
                f"skipped: {reasons[peer]}" if peer in reasons
                else f"{nanoseconds(values[peer])}, {costs(plain, values[peer])}")

    bench.measure(workload, allocator, fill)


def exact_peers(bench: Bench) -> tuple[dict[str, Variant], dict[str, str]]:
    """What else records every allocation, and for what is not there, why."""
    variants, reasons = {}, {}
    if heaptrack := shutil.which("heaptrack"):
        variants["heaptrack"] = Variant(prefix=[heaptrack, "-o", str(bench.scratch / "heaptrack")])
    else:
        reasons["heaptrack"] = "not installed"
    for name, allocator, settings in (
        ("gperftools HEAPPROFILE", "tcmalloc", {"HEAPPROFILE": str(bench.scratch / "gperftools")}),
        ("jemalloc lg_prof_sample:0", "jemalloc", {"MALLOC_CONF": "prof:true,lg_prof_sample:0"}),
    ):
        if file := library(ALLOCATORS[allocator]):
            variants[name] = Variant({"LD_PRELOAD": file, **settings})
        else:
            reasons[name] = f"{ALLOCATORS[allocator]} is not installed"
    return variants, reasons


def exact(bench: Bench, workload: str, program: str, arguments: list, most_ns: int) -> None:
    """Every allocation recorded. By the wall clock: heaptrack works in a second process."""

    def fill(row: Row) -> None:
        peers, reasons_before = exact_peers(bench)
        variants = {"plain": Variant(), "heapflare": bench.ours(HEAPFLARE_SAMPLE_INTERVAL="1"), **peers}
        values, reasons = bench.take_turns(bench.value_of(program, arguments), variants)
        reasons.update(reasons_before)
        row.numbers = {"unit": "ns", **values}
        must_have(reasons, "plain", "heapflare")
        row.plain, row.heapflare = nanoseconds(values["plain"]), nanoseconds(values["heapflare"])
        row.cost = f"{times(values['plain'], values['heapflare']):.1f} ×"
        decide(row, f"≤ {most_ns} ns", statistics.median(values["heapflare"]) <= most_ns)
        row.peer = "; ".join(
            f"{name}: " + (f"skipped: {reasons[name]}" if name in reasons else nanoseconds(values[name]))
            for name in ("heaptrack", "gperftools HEAPPROFILE", "jemalloc lg_prof_sample:0"))

    bench.measure(workload, "glibc", fill)


def sample_cost(bench: Bench) -> None:
    """What one sample costs, from how much slower churn is when there are 32 times as many."""
    often = INTERVAL // 32

    def fill(row: Row) -> None:
        variants = {"seldom": bench.ours(), "often": bench.ours(HEAPFLARE_SAMPLE_INTERVAL=str(often))}
        values, reasons = bench.take_turns(bench.value_of("churn_bench", [bench.scale.of(3_000_000)]), variants)
        must_have(reasons, "seldom", "often")
        row.numbers = {"unit": "ns", f"at {INTERVAL}": values["seldom"], f"at {often}": values["often"]}
        more = measure.chance(CHURN_BYTES, often) - measure.chance(CHURN_BYTES, INTERVAL)
        cost = difference(values["seldom"], values["often"]) / more
        row.plain = "at 512 KiB " + nanoseconds(values["seldom"])
        row.heapflare = "at 16 KiB " + nanoseconds(values["often"])
        row.cost = f"{cost:.0f} ns a sample"
        decide(row, "≤ 600 ns", cost <= 600)

    bench.measure("one sample: 25 frames, taken and freed", "glibc", fill)


def free_path(bench: Bench, many: int, blocks: str, bytes_: int) -> None:
    """What a free of a block without a sample costs, beside few and beside many samples."""
    few, many = 1_000, bench.scale.of(many)
    arguments = [bench.scale.of(1_000_000), bytes_]

    def fill(row: Row) -> None:
        variant = bench.ours(
            HEAPFLARE_SAMPLE_INTERVAL=str(64 << 10), HEAPFLARE_BOX_SIZE="256MiB", HEAPFLARE_THRESHOLDS="")
        cost, plain = {}, {}
        for live in (few, many):
            values, reasons = bench.take_turns(
                bench.value_of("live_bench", [live, *arguments]), {"plain": Variant(), "heapflare": variant})
            must_have(reasons, "plain", "heapflare")
            cost[live], plain[live] = values["heapflare"], values["plain"]
        row.numbers = {"unit": "ns", "plain": plain, "heapflare": cost}
        row.plain = f"{nanoseconds(plain[few])}; {nanoseconds(plain[many])}"
        row.heapflare = f"{nanoseconds(cost[few])}; {nanoseconds(cost[many])}"
        growth = statistics.median(cost[many]) / statistics.median(cost[few])
        row.cost = f"{growth:.2f} ×"
        decide(row, "flat within 10 %", growth <= 1.1)

    bench.measure(f"free beside {few:,} and {many:,} {blocks}, one sample per 64 KiB", "glibc", fill)


def start_up(bench: Bench) -> None:
    def fill(row: Row) -> None:
        variants = {"plain": Variant(), "heapflare": bench.ours()}
        for allocator in measure.SAMPLING_PEERS:
            if library(ALLOCATORS[allocator]):
                peer, variant = bench.sampling_peer(allocator)
                variants[peer] = variant
        lists = ["\n".join(f"{key}={value}" for key, value in v.environment.items()) for v in variants.values()]
        runs = bench.scale.of(300)
        medians = bench.run("startup_bench", [runs, shutil.which("true"), *lists], Variant())["ns"]
        found = dict(zip(variants, medians))
        row.numbers = {"unit": "ns", "runs": runs, **found}
        row.plain, row.heapflare = milliseconds(found["plain"]), milliseconds(found["heapflare"])
        row.cost = "+" + milliseconds(found["heapflare"] - found["plain"])
        decide(row, "≤ +1 ms", found["heapflare"] - found["plain"] <= 1e6)
        row.peer = "; ".join(f"{name}: {milliseconds(found[name])}" for name in list(found)[2:]) or "–"

    bench.measure("start-up of `true`", "glibc", fill)


def fork(bench: Bench) -> None:
    def fill(row: Row) -> None:
        values, reasons = bench.take_turns(
            bench.value_of("fork_bench", [bench.scale.of(300)]), {"plain": Variant(), "heapflare": bench.ours()})
        must_have(reasons, "plain", "heapflare")
        row.numbers = {"unit": "ns", **values}
        row.plain = milliseconds(statistics.median(values["plain"]))
        row.heapflare = milliseconds(statistics.median(values["heapflare"]))
        row.cost = f"+{milliseconds(difference(values['plain'], values['heapflare']))}"

    bench.measure("fork, 100 mallocs, exit", "glibc", fill)


def profile_contents(path) -> tuple[int, int]:
    """How many different stacks hold live objects, and how many objects."""
    profile = heap_profile.read(path)
    column = profile.index("inuse_objects")
    live = [sample for sample in profile.samples if sample.values[column] > 0]
    stacks = {tuple(location.id for location in sample.locations) for sample in live}
    return len(stacks), sum(sample.values[column] for sample in live)


def dump(bench: Bench) -> None:
    def fill(row: Row) -> None:
        file = bench.scratch / "dump.pb.gz"
        variant = bench.ours(HEAPFLARE_SAMPLE_INTERVAL="1", HEAPFLARE_BOX_SIZE="64MiB")
        results = [
            bench.run("dump_bench", [file, bench.scale.turns, DUMP_STACKS, DUMP_LIVE], variant)
            for _ in range(bench.scale.turns)]
        stacks, live = profile_contents(file)
        file.unlink()
        calls = statistics.median(ns for result in results for ns in result["ns"])
        # The first call of a process finds nothing warm, and is the one that matters near the limit.
        first = statistics.median(result["ns"][0] for result in results)
        growths = [growth for result in results for growth in result["rss_growth"]]
        heap = max(abs(result["heap_growth"]) for result in results)
        row.numbers = {"unit": "ns, bytes", "stacks": stacks, "live": live, "runs": results}
        row.heapflare = f"{milliseconds(calls)}, first {milliseconds(first)}"
        if min(growths) < 0:
            raise Failed("the resident size cannot be read")
        row.cost = f"RSS +{max(growths) / 1024:.0f} KiB, heap +{heap} B; {stacks:,} stacks, {live:,} live"
        decide(row, "≤ 15 ms, RSS < +1 MiB, nothing allocated, nothing missing",
               max(first, calls) <= 15e6 and max(growths) < 1 << 20 and heap == 0
               and stacks >= DUMP_STACKS and live >= DUMP_LIVE)

    bench.measure("dump of 20,000 stacks, 100,000 live samples", "glibc", fill)


def resident(bench: Bench) -> None:
    blocks, threads = bench.scale.of(65_536), bench.scale.of(500)

    def fill(row: Row) -> None:
        values, reasons = bench.take_turns(
            bench.value_of("resident_bench", [blocks, threads], "rss"), {"plain": Variant(), "heapflare": bench.ours()})
        must_have(reasons, "plain", "heapflare")
        row.numbers = {"unit": "bytes", **values}
        row.plain = mebibytes(statistics.median(values["plain"]))
        row.heapflare = mebibytes(statistics.median(values["heapflare"]))
        growth = difference(values["plain"], values["heapflare"])
        row.cost = "+" + mebibytes(growth)
        decide(row, "≤ +4 MiB", growth <= 4 << 20)

    bench.measure(f"resident, {blocks * 64 // 1024:,} MiB live in 64 KiB blocks, {threads} threads", "glibc", fill)


def all_rows(bench: Bench) -> None:
    for workload, program, count, arguments, goal_text, goal in LOOPS:
        for allocator in ALLOCATORS:
            loop(bench, workload, allocator, program, [bench.scale.of(count), *arguments], goal_text, goal)
    count = bench.scale.of(200_000)
    exact(bench, "exact: pair", "pair_bench", [count, "wall"], 150)
    exact(bench, "exact: churn", "churn_bench", [count, "wall"], 250)
    exact(bench, "exact: churn, 2 threads", "churn_bench", [count, "wall", 2], 300)
    sample_cost(bench)
    free_path(bench, 400_000, "blocks of 64 KiB", 0)
    free_path(bench, 1_000_000, "recorded blocks of 1 KiB", 1024)
    for row in (start_up, fork, dump, resident):
        row(bench)
