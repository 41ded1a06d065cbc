"""Containers by runc: read-only root, no capabilities, nobody's user, a memory limit."""

import glob
import json
import os
import shutil
import subprocess

UID = 65532
MIB = 1 << 20
RUNTIME = "runc"
_SHM = {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}  # fmt: skip


class Containers:
    """Where the containers of one test live; `with` ends them and removes every trace."""

    def __init__(self, directory):
        self.directory = directory
        self.name = f"heapflare-test-{os.getpid()}"
        self.state = f"{directory}/runc"
        self.started = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name, process in self.started:
            self._runc("delete", "--force", name)
            process.wait(timeout=30)
            process.stdout.close()
        # runc leaves the directories above the container's own.
        for place in ["/sys/fs/cgroup", *glob.glob("/sys/fs/cgroup/*/")]:
            for path in glob.glob(f"{place}/{self.name}/*/") + [f"{place}/{self.name}"]:
                if os.path.isdir(path):
                    os.rmdir(path)

    def _runc(self, *arguments):
        return subprocess.run(
            [RUNTIME, "--root", self.state, *arguments], capture_output=True, text=True, timeout=30
        )

    def pid(self, name):
        """Of the container's first process, as seen from here; None before it runs."""
        done = self._runc("state", f"{self.name}-{name}")
        if done.returncode != 0:
            return None
        state = json.loads(done.stdout)
        return state["pid"] if state["status"] == "running" else None

    def start(self, name, root, command, environment=(), volumes=(), limit=64 * MIB, pod=None):
        """Starts one and returns its Popen; its output is in there, stderr with it.

        volumes: (outside, inside); one that lies at /dev/shm replaces the private one.
        pod: process whose PID namespace is to be shared.
        """
        bundle = f"{self.directory}/bundle-{name}"
        os.mkdir(bundle)
        with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
            json.dump(self._config(name, root, command, environment, volumes, limit, pod), file)
        whole = f"{self.name}-{name}"
        process = subprocess.Popen(
            [RUNTIME, "--root", self.state, "run", "--bundle", bundle, whole],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.started.append((whole, process))
        return process

    def run(self, name, *arguments, **options):
        """Runs one to its end: (exit status, output)."""
        process = self.start(name, *arguments, **options)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def _config(self, name, root, command, environment, volumes, limit, pod):
        private = ["nosuid", "noexec", "nodev"]
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            _SHM,
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": [*private, "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": [*private, "ro"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
             "options": [*private, "mode=1777", "size=16m"]},
        ]  # fmt: skip
        # A program that was built below /tmp is not to be hidden by it.
        if command[0].startswith("/tmp/"):
            mounts = [mount for mount in mounts if mount["destination"] != "/tmp"]
        for outside, inside in volumes:
            mounts = [mount for mount in mounts if mount["destination"] != inside]
            mounts.append({"destination": inside, "type": "bind", "source": outside,
                           "options": ["rbind", "rprivate", "rw"]})  # fmt: skip
        namespaces = [{"type": kind} for kind in ("network", "ipc", "uts", "mount")]
        namespaces.append({"type": "pid", **({"path": f"/proc/{pod}/ns/pid"} if pod else {})})
        nothing = {kind: [] for kind in
                   ("bounding", "effective", "permitted", "inheritable", "ambient")}  # fmt: skip
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": UID, "gid": UID},
                "args": command,
                "env": [f"{key}={value}" for key, value in dict(environment).items()],
                "cwd": "/",
                "capabilities": nothing,
                "noNewPrivileges": True,
            },
            "root": {"path": root, "readonly": True},
            "hostname": name,
            "mounts": mounts,
            "linux": {
                "cgroupsPath": f"/{self.name}/{name}",
                "namespaces": namespaces,
                "resources": {
                    "memory": {"limit": limit},
                    "devices": [{"allow": False, "access": "rwm"}],
                },
            },
        }


def unavailable(directory, root, command):
    """Why no container can be run here, or None."""
    if shutil.which(RUNTIME) is None:
        return f"{RUNTIME} is missing: install_packages.sh --lab installs it"
    if os.geteuid() != 0:
        return "making containers needs root"
    with Containers(directory) as containers:
        status, output = containers.run("probe", root, command)
    return None if status == 0 else f"{RUNTIME} cannot run a container here: {output.strip()}"
