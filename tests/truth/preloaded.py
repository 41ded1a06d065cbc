"""Runs a program of this folder with libheapflare.so preloaded, and tells which of its functions
allocated what a profile shows."""

import bisect
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import heap_profile  # noqa: E402

BUILD = os.path.abspath(os.environ.get("HEAPFLARE_BUILD", "build/release"))
LIBRARY = os.path.join(BUILD, "lib", "libheapflare.so")
COMMAND = os.path.join(BUILD, "bin", "heapflare")


def program(name):
    return os.path.join(BUILD, "tests", "truth", name)


class Surroundings:
    """Directories of its own for boxes and dumps; a context manager that removes them."""

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="heapflare-truth-")
        self.dumps = os.path.join(self.directory, "dumps")
        # Boxes belong on tmpfs, where the library would put them by itself.
        shared = "/dev/shm"
        self.boxes = tempfile.mkdtemp(
            prefix="heapflare-truth-", dir=shared if os.access(shared, os.W_OK) else self.directory)
        os.mkdir(self.dumps, 0o700)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.boxes)
        shutil.rmtree(self.directory)

    def path(self, name):
        return os.path.join(self.directory, name)

    def environment(self, allocator=None, **settings):
        """Preloaded, in front of an allocator's library if one is given, with these settings:
        interval=4096 becomes HEAPFLARE_SAMPLE_INTERVAL..."""
        names = {"interval": "HEAPFLARE_SAMPLE_INTERVAL", "box_size": "HEAPFLARE_BOX_SIZE",
                 "max_stack": "HEAPFLARE_MAX_STACK"}
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("HEAPFLARE_")
        }
        environment.update(
            LD_PRELOAD=f"{LIBRARY} {allocator}" if allocator else LIBRARY, HEAPFLARE_DIR=self.dumps, HEAPFLARE_BOX_DIR=self.boxes,
            HEAPFLARE_THRESHOLDS="")
        environment.update({names[name]: str(value) for name, value in settings.items()})
        return environment

    def run(self, *command, timeout=600, **settings):
        """Its standard output; the library must have had nothing to complain about."""
        done = subprocess.run(command, env=self.environment(**settings), capture_output=True,
                              text=True, timeout=timeout)
        if done.returncode != 0 or done.stderr:
            raise AssertionError(
                f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()}")
        return done.stdout


class Functions:
    """The functions of an ELF file, by the addresses that a profile gives to its calls."""

    def __init__(self, binary):
        self.binary = os.path.realpath(binary)
        listed = subprocess.run(["nm", "-S", "--defined-only", binary], check=True,
                                capture_output=True, text=True).stdout
        rows = [line.split() for line in listed.splitlines()]
        self._functions = sorted(
            (int(row[0], 16), int(row[1], 16), row[3])
            for row in rows if len(row) == 4 and row[2] in "tTwW")
        self._starts = [function[0] for function in self._functions]
        headers = subprocess.run(["readelf", "-lW", binary], check=True, capture_output=True,
                                 text=True).stdout
        loads = [line.split() for line in headers.splitlines() if line.split()[:1] == ["LOAD"]]
        # (offset in the file, size there, address - offset)
        self._segments = [
            (int(row[1], 16), int(row[4], 16), int(row[2], 16) - int(row[1], 16)) for row in loads]

    def name(self, profile, location):
        """None if it is not in this binary."""
        address = self.address(profile, location)
        return None if address is None else self._at(address)

    def address(self, profile, location):
        """As in the symbol table; None if it is not in this binary."""
        mapping = profile.mappings[location.mapping_id - 1]
        if os.path.realpath(mapping.file) != self.binary:
            return None
        offset = location.address - mapping.start + mapping.offset
        for start, size, shift in self._segments:
            if start <= offset < start + size:
                return offset + shift
        return None

    def _at(self, address):
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        start, size, name = self._functions[index]
        return name if address < start + size else None

    def sums(self, profile):
        """For each function: the values of the stacks in which it is the innermost one of this
        binary, summed up."""
        names = {location.id: self.name(profile, location) for location in profile.locations}
        result = {}
        for sample in profile.samples:
            inner = (names[location.id] for location in sample.locations)
            name = next((name for name in inner if name is not None), None)
            if name is not None:
                old = result.get(name, [0] * len(sample.values))
                result[name] = [a + b for a, b in zip(old, sample.values)]
        return result


class Growth:
    """A run of growth that has written its two profiles and lives until it is ended."""

    PROGRAM = program("growth")

    def __init__(self, surroundings, name, **settings):
        self._boxes = surroundings.boxes
        self.first, self.second = (surroundings.path(f"{name}.{i}.pb.gz") for i in (1, 2))
        self.process = subprocess.Popen(
            [self.PROGRAM, self.first, self.second], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=surroundings.environment(**settings), text=True)
        if self.process.stdout.readline() != "ready\n":
            self.end()
            raise AssertionError("growth did not write its profiles")

    def end(self):
        """As an OOM kill ends it: the box is left."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def box(self):
        return next(
            os.path.join(self._boxes, name) for name in os.listdir(self._boxes)
            if name.endswith(".box") and f".{self.process.pid}." in name)


read = heap_profile.read
