"""Real memory cgroups for tests, v1 or v2: programs run in one until the kernel kills them."""

import itertools
import os
import signal
import time


class Unavailable(Exception):
    """No memory cgroup can be made here; the message says why."""


_numbers = itertools.count(1)


def _hierarchies():
    """The mounted hierarchies that may have a memory controller: (version, mount point, root)."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            root, point = before.split()[3:5]
            kind, _, options = after.split(maxsplit=2)
            if kind == "cgroup" and "memory" in options.strip().split(","):
                yield 1, point, root
            elif kind == "cgroup2":
                yield 2, point, root


def _own_path(version):
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if (version == 1 and "memory" in controllers.split(",")) or (
                version == 2 and not controllers
            ):
                return path
    return "/"


def _read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def _write(path, value):
    with open(path, "w", encoding="utf-8") as file:
        file.write(str(value))


class MemoryCgroup:
    """A new cgroup with this limit; `with` removes it, and kills what is still in it."""

    def __init__(self, limit_bytes):
        self.version = 0
        self.path = None
        self._enabled_in = None
        reasons = []
        for version, point, root in _hierarchies():
            path = _own_path(version)
            # The mount shows the hierarchy from its root downwards.
            inside = path[len(root.rstrip("/")) :] if path.startswith(root.rstrip("/")) else ""
            parent = os.path.normpath(f"{point}/{inside}")
            # On v2 a cgroup with processes in it cannot hand the controller on; an ancestor may.
            while len(parent) >= len(point):
                try:
                    self._make(version, parent, limit_bytes)
                    return
                except OSError as problem:
                    reasons.append(f"{problem.filename or parent}: {problem.strerror or problem}")
                    self.remove()
                parent = os.path.dirname(parent)
        # The last place that was tried is the one with the best chances.
        raise Unavailable("; ".join(reasons[-2:]) or "no memory cgroup hierarchy is mounted")

    def _make(self, version, parent, limit_bytes):
        self.version = version
        if version == 2:
            if "memory" not in _read(f"{parent}/cgroup.controllers").split():
                raise OSError(0, "has no memory controller", parent)
            if "memory" not in _read(f"{parent}/cgroup.subtree_control").split():
                _write(f"{parent}/cgroup.subtree_control", "+memory")
                self._enabled_in = parent
        path = f"{parent}/heapflare-test-{os.getpid()}-{next(_numbers)}"
        os.mkdir(path)
        self.path = path
        self.set_limit(limit_bytes)

    def set_limit(self, limit_bytes):
        """The first one, or a lower one: v1 wants the limit with swap to be the higher one."""
        limit = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        _write(f"{self.path}/{limit}", limit_bytes)
        # Swap would only put the kill off. Not every kernel accounts for it.
        swap, value = ("memory.swap.max", 0) if self.version == 2 else (
            "memory.memsw.limit_in_bytes", limit_bytes)  # fmt: skip
        if os.path.exists(f"{self.path}/{swap}"):
            _write(f"{self.path}/{swap}", value)

    def enter(self):
        """Moves the calling process into the cgroup; meant as a preexec_fn."""
        _write(f"{self.path}/cgroup.procs", os.getpid())

    def oom_kills(self):
        file = "memory.events" if self.version == 2 else "memory.oom_control"
        for line in _read(f"{self.path}/{file}").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
        raise OSError(f"{self.path}/{file} has no oom_kill")

    def processes(self):
        return [int(pid) for pid in _read(f"{self.path}/cgroup.procs").split()]

    def remove(self):
        if self.path is not None:
            # The directory is busy until the last process has been taken apart.
            deadline = time.monotonic() + 30
            while True:
                for pid in self.processes():
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                try:
                    os.rmdir(self.path)
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
            self.path = None
        if self._enabled_in is not None:
            _write(f"{self._enabled_in}/cgroup.subtree_control", "-memory")
            self._enabled_in = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()
