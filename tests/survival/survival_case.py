"""Runs the programs of the survival tests with and without the recorder, under a watchdog, and compares.

HEAPFLARE_BUILD names the build directory. What a program prints on stdout, and how it ends, must be the same
with the recorder; what it left in its box must be a valid profile that agrees with the program's books
(program.h). At interval 1 that is equality. At another interval the estimate must lie within eight standard
deviations, where at least 30 samples are expected: with that many, less than one comparison in 10^9 fails by
chance.

An option for the scripts that use this: --long runs the long versions of the scenarios that have one.
"""

import functools
import glob
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from dataclasses import dataclass

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import heap_profile  # noqa: E402

BUILD = os.path.abspath(os.environ.get("HEAPFLARE_BUILD", "build/release"))
HEAPFLARE = os.path.join(BUILD, "bin", "heapflare")
LIBRARY = os.path.join(BUILD, "lib", "libheapflare.so")
PROGRAMS = os.path.join(BUILD, "tests", "survival")

LONG = "--long" in sys.argv
BLOCK = 1024  # program.h

ALLOCATORS = {
    "glibc": None,
    "jemalloc": "libjemalloc.so.2",
    "tcmalloc": "libtcmalloc_minimal.so.4",
    "mimalloc": "libmimalloc.so.2.0",
    "reentrant": os.path.join(PROGRAMS, "reentrant_malloc.so"),
}


@dataclass(frozen=True)
class Way:
    """One way to run a program under the recorder."""

    allocator: str = "glibc"
    interval: int = 1
    end: str = "kill"  # or "exit", see program.h

    def __str__(self):
        return f"{self.allocator}, interval {self.interval}, {self.end}"


EVERYWHERE = [Way(), Way(interval=65536), Way(interval=65536, end="exit"), Way("jemalloc"),
              Way("tcmalloc"), Way("mimalloc")]  # fmt: skip


@dataclass
class Books:
    allocated: int
    freed: int
    in_handlers: int


@dataclass
class Run:
    status: int  # as subprocess has it: negative for a signal
    stdout: str  # without the books
    stderr: str
    books: dict  # pid -> Books
    boxes: list
    pid: int

    def box_of(self, pid):
        found = [box for box in self.boxes if f".{pid}." in os.path.basename(box)]
        return found[0] if len(found) == 1 else None


def find_allocator(name):
    """The library's path as the loader finds it; None if it is not installed."""
    library = ALLOCATORS[name]
    if library is None or os.path.isabs(library):
        return library
    for directory in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/lib"):
        if os.path.exists(os.path.join(directory, library)):
            return os.path.join(directory, library)
    raise unittest.SkipTest(f"{library} is not installed")


def stacks_of(group):
    """What the threads of the processes in a group are doing, from gdb."""
    if not shutil.which("gdb"):
        return "(gdb is not installed: no stacks)"
    texts = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(pid)) != group:
                continue
        except ProcessLookupError:
            continue
        command = ["gdb", "-p", pid, "-batch", "-ex", "thread apply all bt 24"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            texts.append(f"--- process {pid}\n" + done.stdout[-6000:])
        except subprocess.TimeoutExpired:
            texts.append(f"--- process {pid}: gdb does not come back")
    return "\n".join(texts)


@functools.lru_cache(maxsize=None)
def symbol_ranges(binary, pattern):
    """File offsets [start, limit) of the functions whose demangled names match."""
    headers = subprocess.run(["readelf", "-lW", binary], capture_output=True, text=True, check=True)
    segments = [[int(number, 16) for number in row] for row in re.findall(
        r"LOAD\s+(0x\w+) (0x\w+) 0x\w+ (0x\w+) 0x\w+ R E", headers.stdout)]  # fmt: skip
    names = subprocess.run(["nm", "-SC", binary], capture_output=True, text=True, check=True)
    ranges = []
    for address, size, name in re.findall(r"^(\w+) (\w+) [tTwW] (.+)$", names.stdout, re.MULTILINE):
        if not re.search(pattern, name):
            continue
        for offset, start, length in segments:
            if start <= int(address, 16) < start + length:
                at = int(address, 16) - start + offset
                ranges.append((at, at + int(size, 16)))
    if not ranges:
        raise AssertionError(f"{binary} has no function like {pattern}")
    return ranges


def is_in(profile, location, binary, pattern):
    """Whether the location is in a function of the binary."""
    mapping = profile.mappings[location.mapping_id - 1]
    if os.path.realpath(mapping.file) != os.path.realpath(binary):
        return False
    offset = location.address - mapping.start + mapping.offset
    return any(start <= offset < limit for start, limit in symbol_ranges(binary, pattern))


class SurvivalCase(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="heapflare-survival-")
        os.chmod(self.directory, 0o755)
        self.runs = 0

    def tearDown(self):
        shutil.rmtree(self.directory, ignore_errors=True)

    def environment(self, way, **more):
        """The environment of one run; way None: without the recorder."""
        own = os.path.join(self.directory, str(self.runs))
        self.runs += 1
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith(("HEAPFLARE", "LD_PRELOAD", "SURVIVAL"))}
        environment.pop("NOTIFY_SOCKET", None)
        os.mkdir(own, 0o755)
        preload = [LIBRARY] if way is not None else []
        if way is not None:
            environment.update(
                HEAPFLARE_BOX_DIR=os.path.join(own, "boxes"), HEAPFLARE_DIR=os.path.join(own, "dumps"),
                HEAPFLARE_SAMPLE_INTERVAL=str(way.interval), SURVIVAL_END=way.end)
        environment.update(more)
        allocator = find_allocator(environment.pop("ALLOCATOR", way.allocator if way else "glibc"))
        if allocator:
            preload.append(allocator)
        if preload:
            environment["LD_PRELOAD"] = " ".join(preload)
        return environment

    def run_program(self, way, program, *arguments, timeout=None, environment=(), **options):
        """Runs it to its end, which must come within `timeout` seconds (60; long versions: 600)."""
        environment = self.environment(way, **dict(environment))
        if isinstance(options.get("user"), int) and way is not None:
            # The directories are the user's.
            for name in ("HEAPFLARE_BOX_DIR", "HEAPFLARE_DIR"):
                os.makedirs(environment[name], mode=0o700)
                os.chown(environment[name], options["user"], options["user"])
        process = subprocess.Popen(
            [os.path.join(PROGRAMS, program), *map(str, arguments)], env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, cwd=self.directory, **options)  # fmt: skip
        try:
            stdout, stderr = process.communicate(timeout=timeout or (600 if LONG else 60))
        except subprocess.TimeoutExpired:
            stacks = stacks_of(process.pid)
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            self.fail(f"{program} {arguments} hangs ({way}):\n{stdout}\n{stderr}\n{stacks}")
        books = {}
        for line in re.findall(r"^books (.+)$", stdout, re.MULTILINE):
            pid, *numbers = map(int, line.split())
            books[pid] = Books(*numbers)
        stdout = re.sub(r"^books .+\n", "", stdout, flags=re.MULTILINE)
        boxes = environment.get("HEAPFLARE_BOX_DIR", "/nonexistent")
        return Run(process.returncode, stdout, stderr, books, glob.glob(boxes + "/*.box"), process.pid)

    def profile(self, box):
        """What `heapflare dump` makes of a box, without faults."""
        self.assertIsNotNone(box, "the process left no box of its own")
        path = box + ".pb.gz"
        done = subprocess.run([HEAPFLARE, "dump", box, "-o", path], capture_output=True, text=True,
                              timeout=60)  # fmt: skip
        self.assertEqual(done.returncode, 0, done)
        profile = heap_profile.read(path)
        self.assertEqual(heap_profile.heap_faults(profile), [])
        return profile

    def check_books(self, profile, books, interval, program, pattern=r"^survival::Allocate\(\)"):
        """The profile's totals of what Allocate allocated agree with the program's own."""
        binary = os.path.join(PROGRAMS, program)

        def wanted(sample):
            return is_in(profile, sample.locations[0], binary, pattern)

        for name, truth in (("alloc", books.allocated), ("inuse", books.allocated - books.freed)):
            objects = profile.total(f"{name}_objects", wanted)
            space = profile.total(f"{name}_space", wanted)
            if interval == 1:
                self.assertEqual((objects, space), (truth, truth * BLOCK), f"{name}: {books}")
            elif truth * BLOCK >= 30 * interval:
                deviation = math.sqrt(truth * heap_profile.sampling_variance(BLOCK, interval))
                self.assertLess(abs(space - truth * BLOCK), 8 * deviation, f"{name}: {books}")

    def same_as_without(self, program, *arguments, ways=None, status=0, books=True, **options):
        """Runs the program without the recorder and then in all ways; returns the latter runs by way.

        `books`: the program prints them last, and its box is compared with them.
        """
        plain = self.run_program(None, program, *arguments, **options)
        self.assertEqual(plain.status, status, plain)
        runs = {}
        for way in EVERYWHERE if ways is None else ways:
            with self.subTest(way=str(way)):
                run = self.run_program(way, program, *arguments, **options)
                killed = books and way.end == "kill"
                self.assertEqual(run.status, -signal.SIGKILL if killed else status, run)
                self.assertEqual(run.stdout, plain.stdout)
                self.assertEqual(run.stderr, plain.stderr)
                runs[way] = run
                if killed:
                    profile = self.profile(run.box_of(run.pid))
                    self.check_books(profile, run.books[run.pid], way.interval, program)
                elif status >= 0:
                    # A process that ended by itself leaves nothing.
                    self.assertIsNone(run.box_of(run.pid), "the box was not removed")
        return runs


def main():
    if LONG:
        sys.argv.remove("--long")
    for path in (HEAPFLARE, LIBRARY):
        if not os.path.exists(path):
            print(f"{path} is missing: build it, or set HEAPFLARE_BUILD")
            sys.exit(77)
    unittest.main(verbosity=2)
