"""Runs programs with the recorder preloaded, each test with directories of its own.

HEAPFLARE_BUILD names the build directory (build/release).
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
import unittest

import heap_profile

BUILD = os.path.abspath(os.environ.get("HEAPFLARE_BUILD", "build/release"))
HEAPFLARE = os.path.join(BUILD, "bin", "heapflare")
LIBRARY = os.path.join(BUILD, "lib", "libheapflare.so")
MIB = 1 << 20
# For what should happen at once; a loaded machine is slow, and nothing is gained by giving up early.
PATIENCE = 60

# PROGRAM.PID.START.NNNN.REASON.pb.gz; a program's name and a rung's may have dots.
DUMP = re.compile(r"(?P<program>.+)\.(?P<pid>\d+)\.(?P<start>\d+)\.(?P<number>\d{4,})\."
                  r"(?P<reason>rung-(\d+(\.\d\d)?pct|\d+MiB|\d+)|straw|eta|signal|request|api|exit)"
                  r"\.pb\.gz")

# Whether a stack was followed to its very end: where the loader, libc or a thread begins.
ROOTS = re.compile(r"(_start|__libc_start_main(_impl)?|__libc_start_call_main|_dl_start_user|_dl_start|"
                   r"_dl_relocate_object|clone3?|__clone3?|__GI___clone3?|start_thread)(@.*)?$")
# What `heapflare run --allocator=` offers; "" is the one that the program has anyway.
ALLOCATORS = ("", "jemalloc", "tcmalloc", "mimalloc")
# Most stacks that may end early, as a share of a program's stacks.
EARLY = 0.01
NOT_FURTHER = "[not unwound further]"
TRUNCATED = "[truncated: deeper than the limit on frames]"
OTHER_STACKS = "[other stacks: no room left in the box]"


def needs(*programs):
    missing = [program for program in programs if shutil.which(program) is None]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


def started_at(pid):
    """When the process started, in Unix seconds, as ps computes it."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    with open("/proc/stat", encoding="utf-8") as file:
        boot = int(re.search(r"^btime (\d+)", file.read(), re.MULTILINE).group(1))
    return boot + ticks / os.sysconf("SC_CLK_TCK")


class ProfiledTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="heapflare-test-")
        # As by default, where that is possible: on a disk, making and removing a box takes long.
        in_memory = os.access("/dev/shm", os.W_OK)
        self.box_parent = (tempfile.mkdtemp(prefix="heapflare-test-", dir="/dev/shm") if in_memory
                           else self.directory)
        self.boxes = os.path.join(self.box_parent, "boxes")
        self.dumps = os.path.join(self.directory, "dumps")
        # What the surroundings set must not decide; NOTIFY_SOCKET changes what `run` does.
        self.clean = {
            name: value for name, value in os.environ.items()
            if not name.startswith("HEAPFLARE_") and name not in ("LD_PRELOAD", "NOTIFY_SOCKET")}
        self.environment = dict(
            self.clean, HEAPFLARE_BOX_DIR=self.boxes, HEAPFLARE_DIR=self.dumps)
        self.started = []

    def tearDown(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            # What it had to read may be closed already.
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None and not stream.closed:
                    stream.close()
            process.wait()
        shutil.rmtree(self.box_parent, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def with_settings(self, **settings):
        """The environment with HEAPFLARE_NAME=value for each NAME=value."""
        values = {f"HEAPFLARE_{name}": str(value) for name, value in settings.items()}
        return dict(self.environment, **values)

    def heapflare(self, *arguments, env=None, **options):
        """Runs the command to its end; its output as text."""
        options = {"capture_output": True, "text": True, "timeout": PATIENCE, **options}
        return subprocess.run([HEAPFLARE, *arguments], env=env or self.environment,
                              cwd=self.directory, **options)

    def start(self, command, env=None, **options):
        """Starts a program, which is killed at the end of the test if it still runs."""
        process = subprocess.Popen(command, env=env or self.environment, **options)
        self.started.append(process)
        return process

    def wait_until(self, condition, what):
        """Its first true result."""
        deadline = time.monotonic() + PATIENCE
        while True:
            result = condition()
            if result:
                return result
            if time.monotonic() > deadline:
                self.fail(f"not within {PATIENCE} s: {what}")
            time.sleep(0.01)

    def files(self, directory, suffix):
        names = os.listdir(directory) if os.path.isdir(directory) else []
        return sorted(os.path.join(directory, name) for name in names if name.endswith(suffix))

    def box_files(self):
        return self.files(self.boxes, ".box")

    def dump_files(self, reason=None):
        """Complete dumps, in their order, of this reason."""
        found = []
        for path in self.files(self.dumps, ".pb.gz"):
            name = DUMP.fullmatch(os.path.basename(path))
            self.assertIsNotNone(name, path)
            if reason in (None, name["reason"]):
                found.append((int(name["number"]), path))
        return [path for _, path in sorted(found)]

    def reasons(self):
        return [DUMP.fullmatch(os.path.basename(path))["reason"] for path in self.dump_files()]

    def read_profile(self, path):
        """The profile, without faults, with the names that heapflare finds for it."""
        self.assertEqual(heap_profile.heap_faults(heap_profile.read(path)), [], path)
        named = self.path("named.pb.gz")
        result = self.heapflare("symbolize", path, "-o", named)
        self.assertEqual(result.returncode, 0, result)
        return heap_profile.read(named)

    def profile_of(self, target):
        """The profile of what a process or box holds now."""
        path = self.path("dumped.pb.gz")
        result = self.heapflare("dump", str(target), "-o", path)
        self.assertEqual(result.returncode, 0, result)
        return self.read_profile(path)

    @staticmethod
    def run_options(allocator, *options):
        return [*([f"--allocator={allocator}"] if allocator else []), *options]

    def check_profile(self, path, functions, minimum=MIB, sample_type="alloc_space"):
        """Its stacks lead to the program's start, and these functions are in them."""
        profile = self.read_profile(path)
        total = profile.total(sample_type)
        self.assertGreater(total, minimum)
        whole, cut, early = stack_ends(profile)
        self.assertLessEqual(len(early), EARLY * len(profile.samples), early[:3])
        self.assertGreater(whole, cut)
        for function, share in functions.items():
            found = profile.total(sample_type, under(function))
            self.assertGreaterEqual(found, share * total, f"{function} in {path}")
        # The consumer that people use has no objections.
        rows = heap_profile.go_top(path, profile.mappings[0].file, sample_type)
        self.assertGreater(len(rows), 0)
        return profile


def under(function):
    """A filter for Profile.total: samples with this function in their stack.

    libc's debug information calls __libc_start_main, as the symbol table has it, ..._impl.
    """
    names = (function, f"{function}_impl")
    return lambda sample: any(name in names or name.startswith((function + "(", function + "@"))
                              for name in sample.functions())


def stack_ends(profile):
    """How many samples' stacks end (at a root, at the limit on frames, early), and the early ones."""
    whole, cut, early = 0, 0, []
    for sample in profile.samples:
        names = sample.functions()
        if NOT_FURTHER in names:
            early.append(names)
        elif TRUNCATED in names:
            cut += 1
        elif any(ROOTS.match(name) for name in names[-3:]):
            whole += 1
        else:
            early.append(names)
    return whole, cut, early
