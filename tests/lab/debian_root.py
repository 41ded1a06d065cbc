"""Parts of other Debian releases: packages unpacked into a directory, which takes seconds.

Kept in the lab directory (see vm/vm.py), one root for each release. Packages come from the mirror
that this machine's apt uses and are verified by apt with the release's key; apt's own state is not
touched.
"""

import fcntl
import glob
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, f"{HERE}/vm")

from vm import lab_directory  # noqa: E402

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Unavailable(Exception):
    """The packages cannot be had here; the message says why."""


def _apt(command, **options):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise Unavailable(f"{command[0]}: {problem}") from problem
    if done.returncode != 0:
        raise Unavailable(f"{command[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout


def _mirror():
    form = ["--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages"]
    for line in _apt(["apt-get", "indextargets", *form]).splitlines():
        uri, _, label = line.partition(" ")
        if label == "Debian":
            return uri
    raise Unavailable("apt has no Debian mirror")


def _unpack(suite, packages, root):
    with tempfile.TemporaryDirectory(dir=lab_directory()) as scratch:
        for directory in ("lists/partial", "cache/archives/partial", "packages"):
            os.makedirs(f"{scratch}/{directory}")
        with open(f"{scratch}/sources.list", "w", encoding="utf-8") as file:
            file.write(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n")
        options = {
            "Dir::Etc::SourceList": f"{scratch}/sources.list", "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": f"{scratch}/lists", "Dir::State::Status": "/dev/null",
            "Dir::Cache": f"{scratch}/cache", "APT::Sandbox::User": "root",
            "Acquire::Languages": "none", "Acquire::Retries": "3",
        }  # fmt: skip
        apt = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]
        _apt([*apt, "update"])
        _apt([*apt, "download", *packages], cwd=f"{scratch}/packages")
        for package in glob.glob(f"{scratch}/packages/*.deb"):
            _apt(["dpkg-deb", "-x", package, root])
    # What the base system brings along.
    for directory in ("proc", "dev", "tmp", "etc"):
        os.makedirs(f"{root}/{directory}", exist_ok=True)
    for name in ("lib", "lib64"):
        if not os.path.lexists(f"{root}/{name}"):
            os.symlink(f"usr/{name}", f"{root}/{name}")
    # Links to "/…" lead out of the root for who looks at it from outside, such as the linker.
    for directory, _, names in os.walk(root):
        for name in names:
            path = f"{directory}/{name}"
            if os.path.islink(path) and os.readlink(path).startswith("/"):
                target = os.path.relpath(root + os.readlink(path), directory)
                os.remove(path)
                os.symlink(target, path)


def make_root(suite, packages):
    """The directory with these packages of this release."""
    root = f"{lab_directory()}/root-{suite}"
    if not os.path.exists(KEYRING):
        raise Unavailable(f"{KEYRING} is missing (package debian-archive-keyring)")
    with open(f"{lab_directory()}/lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = " ".join(packages)
        try:
            with open(f"{root}/.packages", encoding="utf-8") as file:
                if file.read() == wanted:
                    return root
        except FileNotFoundError:
            pass
        _unpack(suite, packages, root)
        with open(f"{root}/.packages", "w", encoding="utf-8") as file:
            file.write(wanted)
    return root
