#!/usr/bin/env python3
"""Runs a command as root in a virtual machine with cgroup v2, on a machine that may have only v1.

    vm.py [--shared DIR] [--memory MIB] [--disk MIB] [--timeout SECONDS] -- COMMAND ARGS…

The machine is Debian's kernel with an initramfs of busybox and five modules. It boots in seconds by
emulation, so it needs no KVM; what runs in it is about five times slower. It sees this machine's
files under their own paths; what it writes is gone with it, except in DIR. --disk adds an empty
/dev/vda. The exit status is the command's.

Kernel and initramfs are made once, in $HEAPFLARE_LAB_DIR (default: build/_lab). Needs the packages
qemu-system-x86 and busybox-static. Exit status 77: it cannot be made here; the reason is printed.
"""

import argparse
import fcntl
import glob
import hashlib
import lzma
import os
import shlex
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SKIP = 77
QEMU = "qemu-system-x86_64"
BUSYBOX = "/bin/busybox"
PACKAGE = "linux-image-amd64"
MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_blk"]


class Unavailable(Exception):
    """No virtual machine can be had here; the message says why."""


class Failed(Exception):
    """The virtual machine did not come to an end; the message says how far it came."""


def lab_directory():
    """Where things are kept that take long to make."""
    project = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
    path = os.environ.get("HEAPFLARE_LAB_DIR") or f"{project}/build/_lab"
    os.makedirs(path, exist_ok=True)
    return os.path.abspath(path)


def _run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Unavailable(f"{command[0]}: {lines[-1] if lines else done.returncode}")
    return done.stdout


def _unpack_kernel(directory):
    """Debian's newest kernel package, without installing it."""
    depends = _run(["apt-cache", "depends", PACKAGE])
    names = [line.split()[-1] for line in depends.splitlines() if "Depends: linux-image-" in line]
    if not names:
        raise Unavailable(f"apt-cache knows no {PACKAGE}; try apt-get update")
    # As root, but apt would like to be somebody else and says so.
    _run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", names[0]], cwd=directory)
    package = glob.glob(f"{directory}/*.deb")[0]
    _run(["dpkg-deb", "-x", package, f"{directory}/unpacked"])
    os.remove(package)


def _decompress_kernel(compressed):
    """The ELF file inside a bzImage: emulation would take seconds for that at each boot."""
    at = compressed.find(b"\xfd7zXZ\0")
    while at >= 0:
        try:
            kernel = lzma.LZMADecompressor().decompress(compressed[at:])
            if kernel.startswith(b"\x7fELF"):
                return kernel
        except lzma.LZMAError:
            pass
        at = compressed.find(b"\xfd7zXZ\0", at + 1)
    return compressed  # packed some other way: boots too, only later


def _make_initramfs(unpacked, root):
    """A directory tree with /init, busybox and the modules that it loads."""
    (version,) = os.listdir(f"{unpacked}/lib/modules")
    _run([BUSYBOX, "depmod", "-b", unpacked, version])
    needed = set()
    with open(f"{unpacked}/lib/modules/{version}/modules.dep", encoding="utf-8") as file:
        for line in file:
            module, _, depends = line.partition(":")
            if os.path.basename(module).removesuffix(".ko") in MODULES:
                needed |= {module, *depends.split()}
    for module in needed:
        target = f"{root}/lib/modules/{version}/{module}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(f"{unpacked}/lib/modules/{version}/{module}", target)
    _run([BUSYBOX, "depmod", "-b", root, version])
    os.mkdir(f"{root}/bin")
    shutil.copy(BUSYBOX, f"{root}/bin/busybox")
    shutil.copy(f"{HERE}/init", f"{root}/init")
    os.chmod(f"{root}/init", 0o755)


def _fingerprint():
    """Of all that an initramfs is made from here."""
    with open(f"{HERE}/init", "rb") as file:
        return hashlib.sha256(file.read() + " ".join(MODULES).encode()).hexdigest()[:16]


def prepare():
    """Kernel and initramfs, made if they are not there: their paths."""
    for program in (QEMU, BUSYBOX):
        if not shutil.which(program):
            raise Unavailable(f"{program} is missing: install_packages.sh --lab installs it")
    lab = lab_directory()
    kept = f"{lab}/vm-{_fingerprint()}"
    kernel, initramfs = f"{kept}/kernel", f"{kept}/initramfs"
    with open(f"{lab}/lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other tests may be making it
        if os.path.exists(initramfs):
            return kernel, initramfs
        os.makedirs(kept, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=lab) as scratch:
            _unpack_kernel(scratch)
            image = glob.glob(f"{scratch}/unpacked/boot/vmlinuz-*")[0]
            with open(image, "rb") as file, open(kernel, "wb") as out:
                out.write(_decompress_kernel(file.read()))
            _make_initramfs(f"{scratch}/unpacked", f"{scratch}/root")
            _run(
                ["sh", "-c", f"find . | {BUSYBOX} cpio -o -H newc > {shlex.quote(scratch)}/cpio"],
                cwd=f"{scratch}/root",
            )
            os.rename(f"{scratch}/cpio", initramfs)  # last: now all is there
    return kernel, initramfs


def run(command, shared, memory=1024, disk=0, timeout=300, output=None):
    """Runs it; `shared` is a directory of the caller's. Returns its exit status."""
    kernel, initramfs = prepare()
    shared = os.path.realpath(shared)
    with open(f"{shared}/command", "w", encoding="utf-8") as file:
        file.write(shlex.join(command) + "\n")
    share = "local,security_model=none,multidevs=remap"
    # q35 with one processor: others were seen to hang or panic in emulation, now and then.
    qemu = [
        QEMU, "-machine", "q35,usb=off", "-accel", "tcg", "-cpu", "max", "-smp", "1",
        "-m", str(memory), "-no-reboot", "-nodefaults", "-no-user-config",
        "-display", "none", "-serial", "stdio", "-kernel", kernel, "-initrd", initramfs,
        "-fsdev", f"{share},id=root,path=/,readonly=on",
        "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
        "-fsdev", f"{share},id=shared,path={shared}",
        "-device", "virtio-9p-pci,fsdev=shared,mount_tag=shared",
        "-append", "console=ttyS0 quiet loglevel=1 panic=-1 cgroup_no_v1=all mitigations=off "
        f"heapflare_shared={shared}",
    ]  # fmt: skip
    if disk:
        with open(f"{shared}/disk", "wb") as file:
            file.truncate(disk << 20)
        qemu += ["-drive", f"file={shared}/disk,format=raw,if=virtio,cache=unsafe"]
    try:
        done = subprocess.run(
            qemu, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=timeout
        )
    except subprocess.TimeoutExpired as problem:
        raise Failed(f"did not end within {timeout} s") from problem
    finally:
        if disk:
            os.remove(f"{shared}/disk")
    try:
        with open(f"{shared}/status", encoding="utf-8") as file:
            return int(file.read())
    except (OSError, ValueError) as problem:
        raise Failed(f"it stopped early (qemu's exit status: {done.returncode})") from problem


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--shared", help="a directory that the command may write to")
    parser.add_argument("--memory", type=int, default=1024, help="MiB (1024)")
    parser.add_argument("--disk", type=int, default=0, help="MiB of /dev/vda (none)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds (300)")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return run(
                arguments.command, arguments.shared or scratch, arguments.memory, arguments.disk,
                arguments.timeout,
            )  # fmt: skip
        except Unavailable as why:
            print(f"skipped: no virtual machine here: {why}")
            return SKIP
        except Failed as why:
            print(f"vm.py: {why}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
