"""Root file systems for containers and chroots, made of files of this machine."""

import os
import re
import shutil
import subprocess


def make_root(root, files):
    """A root file system with these programs and libraries, and what they are linked with.

    Everything lies under its own path, so that what is found out inside makes sense outside.
    """
    for directory in ("proc", "sys", "dev", "tmp", "etc", "volume"):
        os.makedirs(f"{root}/{directory}", exist_ok=True)
    for file in files:
        copy_in(root, file)
        done = subprocess.run(["ldd", file], capture_output=True, text=True, check=True)
        # "libz.so.1 => /lib/…/libz.so.1 (0x…)", and the loader: "/lib64/ld-linux-….so.2 (0x…)".
        for library in re.findall(r"(/\S+) \(0x", done.stdout):
            copy_in(root, library)


def copy_in(root, file, to=None):
    target = root + (to or file)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copy(os.path.realpath(file), target)
