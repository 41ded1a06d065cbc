"""The OOM matrix: every way to a memory limit, at every size, speed and number of threads.

A cell is one run in a memory cgroup of its own. What is required of it stands here; what happened
is measured by cell_run.py and judged by cell_check.py.
"""

from dataclasses import dataclass

MIB = 1 << 20
LIMITS = (64, 256, 1024)  # MiB
RATES = (50, 1000, 0)  # MB/s; 0: as fast as possible
THREADS = (1, 8)
PERCENT = (80, 90, 95)  # the default rungs


@dataclass(frozen=True)
class Scenario:
    text: str
    program: str  # of oom_scenarios
    neighbour: str = ""  # of oom_neighbour
    heap: bool = True  # the allocation clock sees it coming
    survives: bool = False


SCENARIOS = {
    "leak": Scenario("malloc leak", "leak"),
    "straw": Scenario("one huge request", "straw"),
    "realloc": Scenario("growth by realloc", "realloc"),
    "mmap": Scenario("direct mmap", "mmap", heap=False),
    "tmpfs": Scenario("tmpfs growth by a neighbour", "hold", "tmpfs", heap=False),
    "pagecache": Scenario("page-cache storm", "hold", "pagecache", heap=False, survives=True),
    "sibling": Scenario("sibling process grows", "hold", "anonymous", heap=False),
    "workers": Scenario("forked workers leak", "workers"),
    "lowered": Scenario("limit lowered while running", "lowered", heap=False),
}


@dataclass(frozen=True)
class Cell:
    scenario: str
    limit: int
    rate: int
    threads: int

    @property
    def what(self):
        return SCENARIOS[self.scenario]

    def __str__(self):
        return f"{self.scenario}:{self.limit}:{self.rate}:{self.threads}"

    @staticmethod
    def parse(text):
        scenario, *numbers = text.split(":")
        return Cell(scenario, *map(int, numbers))

    def meaningless(self):
        """Why this combination is none, or None."""
        if self.scenario == "pagecache" and self.rate:
            return "nothing grows towards the limit: cache is read and written as fast as it goes"
        return None

    def needs_straw(self):
        """A request larger than the headroom is noticed before its memory exists, always."""
        return self.scenario == "straw"

    def required_rungs(self):
        """The reasons of which a dump must be on disk.

        Where malloc sees the growth, its ramp is stopped until a dump is written: up to 1 GB/s is
        promised. What malloc does not see is polled, and so is the limit: promised if a tenth of
        the limit takes 100 ms.
        """
        if self.what.survives or self.needs_straw() or not self.rate:
            return ()
        if not self.what.heap and self.limit * MIB / 10 / (self.rate * 1e6) < 0.1:
            return ()
        return ("rung-80pct", "rung-90pct")

    def seconds(self):
        """About how long it takes, the ramp alone."""
        once = self.limit * MIB / (self.rate * 1e6) if self.rate else self.limit / 500
        # Each worker that is killed makes room for those that are left, which are slower together.
        return once * self.threads if self.scenario == "workers" else once


ALL = [
    cell
    for scenario in SCENARIOS
    for limit in LIMITS
    for rate in RATES
    for threads in THREADS
    if not (cell := Cell(scenario, limit, rate, threads)).meaningless()
]

# Every scenario, limit, speed and number of threads, in a minute.
QUICK = [
    Cell("leak", 64, 50, 1), Cell("leak", 1024, 1000, 8), Cell("straw", 64, 0, 1),
    Cell("straw", 1024, 1000, 8), Cell("realloc", 256, 1000, 1), Cell("realloc", 64, 0, 8),
    Cell("mmap", 64, 50, 8), Cell("mmap", 1024, 1000, 1), Cell("tmpfs", 64, 50, 1),
    Cell("tmpfs", 256, 0, 8), Cell("pagecache", 64, 0, 8), Cell("pagecache", 256, 0, 1),
    Cell("sibling", 256, 50, 1), Cell("sibling", 64, 1000, 8), Cell("workers", 64, 50, 8),
    Cell("workers", 256, 1000, 1), Cell("lowered", 64, 50, 1), Cell("lowered", 256, 1000, 8),
]  # fmt: skip
# Emulation is about five times slower: fewer, and small ones.
QUICK_VM = [
    Cell("leak", 64, 50, 1), Cell("straw", 64, 0, 1), Cell("realloc", 64, 50, 8),
    Cell("mmap", 64, 50, 1), Cell("tmpfs", 64, 50, 1), Cell("pagecache", 64, 0, 1),
    Cell("sibling", 64, 50, 1), Cell("workers", 64, 50, 8), Cell("lowered", 64, 50, 1),
]  # fmt: skip
