"""What the surroundings tests share: a private copy of what is tested, a service to break,
checks.

HEAPFLARE_BUILD names the build directory. As root the tests run in a mount namespace of their
own, so that they can mount small volumes and hide /proc; without root such tests are skipped.
"""

import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import heap_profile  # noqa: E402

BUILD = os.path.abspath(os.environ.get("HEAPFLARE_BUILD", "build/release"))
NOBODY = 65534
DEADLINE = 60  # seconds for whatever should take one
LONG = "--long" in sys.argv
IN_NAMESPACE = "SURROUNDINGS_IN_NAMESPACE"


def system_calls():
    """Name -> number, from the kernel's header."""
    for header in ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
                   "/usr/include/asm/unistd_64.h"):
        if os.path.exists(header):
            with open(header, encoding="ascii") as file:
                return {name: int(number) for name, number in
                        re.findall(r"#define __NR_(\w+) (\d+)", file.read())}
    return {}


def main():
    """unittest.main, in a mount namespace of our own if we may have one."""
    if os.uname().machine != "x86_64":
        print("skipped: system calls are known by their x86_64 numbers")
        sys.exit(77)
    if os.geteuid() == 0 and IN_NAMESPACE not in os.environ:
        unshare = ["unshare", "--mount", "--propagation", "private"]
        if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode == 0:
            os.environ[IN_NAMESPACE] = "1"
            os.execvp(unshare[0], [*unshare, sys.executable, *sys.argv])
    unittest.main(argv=[argument for argument in sys.argv if argument != "--long"])


needs_root = unittest.skipUnless(os.geteuid() == 0, "only root can change the user")
needs_mounts = unittest.skipUnless(IN_NAMESPACE in os.environ, "no mount namespace of our own")


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def unmount(path, *options):
    subprocess.run(["umount", *options, path], check=True, capture_output=True)


class Finished:
    """How a run of the service ended."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err
        self.lines = err.splitlines()

    def __repr__(self):
        return f"status {self.status}\nstdout:\n{self.out}stderr:\n{self.err}"

    def result(self):
        found = re.search(r"^result (\w+)$", self.out, re.MULTILINE)
        return found.group(1) if found else None


class SurroundingsTest(unittest.TestCase):
    """Each test has a directory with bin/, readable by all; dumps/ and boxes/ do not exist."""

    expected = {}  # actions -> what the service prints without heapflare

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="heapflare-surroundings-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        os.chmod(self.directory, 0o755)
        self.boxes = os.path.join(self.directory, "boxes")
        self.dumps = os.path.join(self.directory, "dumps")
        binaries = os.path.join(self.directory, "bin")
        os.mkdir(binaries)
        self.library = os.path.join(binaries, "libheapflare.so")
        self.service = os.path.join(binaries, "surroundings_service")
        self.command = os.path.join(binaries, "heapflare")
        self.filter = os.path.join(binaries, "surroundings_seccomp")
        for target, source in ((self.library, "lib/libheapflare.so"),
                               (self.service, "tests/survival/surroundings_service"),
                               (self.filter, "tests/survival/surroundings_seccomp"),
                               (self.command, "bin/heapflare")):
            shutil.copy(os.path.join(BUILD, source), target)
        self.settings = {
            "HEAPFLARE_BOX_DIR": self.boxes, "HEAPFLARE_DIR": self.dumps,
            "HEAPFLARE_SAMPLE_INTERVAL": "4KiB", "HEAPFLARE_THRESHOLDS": "",
        }
        self.started = []
        self.mounted = []

    def tearDown(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for path in reversed(self.mounted):
            subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)

    def mount(self, *arguments):
        """Mounts until the test ends."""
        mount(*arguments)
        self.mounted.append(arguments[-1])

    def volume(self, path, size, options=""):
        """A small tmpfs; `size` as mount takes it."""
        os.makedirs(path, exist_ok=True)
        self.mount("-t", "tmpfs", "-o", f"size={size},mode=1777{options}", "none", path)

    def fill(self, path):
        """Takes the last page of a volume; gives back the file that holds it."""
        filler = os.path.join(path, "filler")
        with open(filler, "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        return filler

    def poll(self, condition):
        """Until the condition holds; its value."""
        end = time.monotonic() + DEADLINE
        while not (value := condition()):
            self.assertLess(time.monotonic(), end, "waited in vain")
            time.sleep(0.01)
        return value

    def command_line(self, actions, launcher=(), preload=True):
        """The service's. `launcher` runs without heapflare."""
        variables = [f"LD_PRELOAD={self.library}"] if preload else []
        return [*launcher, "/usr/bin/env", *variables, self.service, *actions]

    def environment(self):
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith(("HEAPFLARE_", "LD_"))}
        return {**kept, **self.settings}

    def start(self, *actions, launcher=(), **options):
        process = subprocess.Popen(
            self.command_line(actions, launcher), env=self.environment(), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=options.pop("stderr", subprocess.PIPE),
            cwd=self.directory, **options)
        self.started.append(process)
        return process

    def wait_for(self, process, line):
        """Reads stdout up to this line; what came before it."""
        before = ""
        for got in process.stdout:
            got = got.decode()
            if got == line + "\n":
                return before
            before += got
        self.fail(f"the service ended before '{line}', having said: {before}")

    def resume(self, process):
        """Ends the `wait` at which the service stands."""
        process.stdin.write(b"\n")
        process.stdin.flush()

    def finish(self, process):
        out, err = process.communicate(timeout=DEADLINE)
        return Finished(process.returncode, out.decode(), (err or b"").decode(errors="replace"))

    def run_service(self, *actions, launcher=(), **options):
        return self.finish(self.start(*actions, launcher=launcher, **options))

    def without(self, *actions, environment=None):
        """The result of the same actions without heapflare."""
        actions = tuple(action for action in actions if action != "wait")
        if actions not in self.expected:
            done = subprocess.run(
                self.command_line(actions, preload=False),
                env=environment or self.environment(), capture_output=True,
                text=True, timeout=DEADLINE, check=True)
            self.expected[actions] = Finished(0, done.stdout, "").result()
        return self.expected[actions]

    def check_unharmed(self, finished, *actions, status=0):
        """Same status and result as without heapflare, and nothing strange on stderr."""
        self.assertEqual(finished.status, status, finished)
        self.assertIsNotNone(finished.result(), finished)
        self.assertEqual(finished.result(), self.without(*actions), finished)
        for line in finished.lines:
            self.assertTrue(line.startswith("heapflare: "), finished)
        self.assertNotIn("broken", finished.out)

    def survives(self, *actions, launcher=(), lines=None, **options):
        """Runs the actions to their end unharmed, with so many lines on stderr."""
        finished = self.run_service(*actions, launcher=launcher, **options)
        self.check_unharmed(finished, *actions)
        if lines is not None:
            self.assertEqual(len(finished.lines), lines, finished)
        return finished

    def profiles(self, directory=None):
        return sorted(glob.glob(os.path.join(directory or self.dumps, "*.pb.gz")))

    def check_profiles(self, directory=None, at_least=0):
        """Whatever stands under a final name is complete."""
        paths = self.profiles(directory)
        self.assertGreaterEqual(len(paths), at_least, os.listdir(directory or self.dumps)
                                if os.path.isdir(directory or self.dumps) else "no directory")
        return [heap_profile.read(path) for path in paths]

    def boxes_in(self, directory=None):
        return sorted(glob.glob(os.path.join(directory or self.boxes, "*.box")))

    def read_box(self, path):
        """The profile that the command makes of a box."""
        output = os.path.join(self.directory, "from_box.pb.gz")
        done = subprocess.run([self.command, "dump", path, "-o", output], capture_output=True,
                              text=True, env=self.environment(), timeout=DEADLINE, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return heap_profile.read(output)

    def kill(self, process):
        """SIGKILL to the service itself; launchers have become it by exec."""
        process.send_signal(signal.SIGKILL)
        return self.finish(process)
