#!/usr/bin/env python3
"""The heapflare command as people and scripts use it: results, messages, exit codes.

HEAPFLARE_BUILD names the build directory that holds bin/heapflare and lib/libheapflare.so.
"""

import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BUILD = os.environ.get("HEAPFLARE_BUILD", "build/release")
HEAPFLARE = os.path.abspath(os.path.join(BUILD, "bin", "heapflare"))

# Holds 32 MiB in blocks of 64 KiB, says so, and waits.
HOLDER = """
import sys, time
kept = [bytearray(64 << 10) for _ in range(512)]
print("ready", flush=True)
time.sleep(float(sys.argv[1]))
"""


class CommandTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="heapflare-cli-")
        self.boxes = os.path.join(self.directory, "boxes")
        self.dumps = os.path.join(self.directory, "dumps")
        self.environment = dict(
            os.environ, HEAPFLARE_BOX_DIR=self.boxes, HEAPFLARE_DIR=self.dumps)
        # The recorder would complain about the one; the other makes the program take heapflare's place.
        for name in ("HEAPFLARE_BUILD", "NOTIFY_SOCKET"):
            self.environment.pop(name, None)
        self.started = []

    def tearDown(self):
        for process in self.started:
            process.kill()
            process.communicate()
        shutil.rmtree(self.directory)

    def heapflare(self, *arguments, **options):
        """Runs the command to its end; its output as text."""
        return subprocess.run(
            [HEAPFLARE, *arguments], capture_output=True, text=True, timeout=60,
            env=options.pop("env", self.environment), cwd=self.directory, **options)

    def fails(self, code, pattern, *arguments):
        """The command fails with this exit code and one line that matches."""
        result = self.heapflare(*arguments)
        self.assertEqual(result.returncode, code, result)
        self.assertRegex(result.stderr, pattern)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertTrue(result.stderr.startswith("heapflare"), result.stderr)
        return result

    def start_holder(self, *options, seconds=60):
        """A profiled process that holds memory: the Popen of heapflare run."""
        process = subprocess.Popen(
            [HEAPFLARE, "run", "--exact", *options, "--", sys.executable, "-c", HOLDER,
             str(seconds)],
            env=self.environment, stdout=subprocess.PIPE, text=True, cwd=self.directory)
        self.started.append(process)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def boxes_now(self):
        names = os.listdir(self.boxes) if os.path.isdir(self.boxes) else []
        return [os.path.join(self.boxes, name) for name in names if name.endswith(".box")]

    def dead_box(self):
        process = self.start_holder()
        process.kill()
        process.wait()
        for _ in range(100):
            listed = json.loads(self.heapflare("ls", "--json").stdout)
            if listed and listed[0]["state"] == "dead":
                return listed[0]["box"]
            time.sleep(0.05)
        self.fail("the killed process left no box, or lives on")


class Usage(CommandTest):
    def test_help_names_every_command(self):
        result = self.heapflare("--help")
        self.assertEqual(result.returncode, 0)
        for command in ("run", "ls", "dump", "snapshot", "doctor"):
            self.assertRegex(result.stdout, rf"(?m)^  {command} ")
            own = self.heapflare(command, "--help")
            self.assertEqual(own.returncode, 0)
            self.assertIn(f"heapflare {command}", own.stdout)

    def test_version(self):
        self.assertRegex(self.heapflare("--version").stdout, r"^heapflare \d+\.\d+\.\d+\n$")

    def test_mistakes_exit_2_with_a_line_that_says_what_would_be_right(self):
        self.fails(2, r"no command given")
        self.fails(2, r"no such command 'dmup'; commands are run, ls, dump", "dmup")
        self.fails(2, r"no such option '--frob'", "--frob")
        self.fails(2, r"heapflare dump: no such option '--frob'; see", "dump", "--frob")
        self.fails(2, r"unexpected argument 'b'", "dump", "a", "b")
        self.fails(2, r"'yaml': not a format; formats are pprof", "dump", "--format=yaml")
        self.fails(2, r"--type: only folded", "dump", "--type=inuse_space")
        self.fails(2, r"no program given", "run")
        self.fails(2, r"no such option '--frob'", "run", "--frob", "--", "true")
        self.fails(2, r"--interval: 'lots': not a size", "run", "--interval=lots", "--", "true")
        self.fails(2, r"--thresholds: 'x' at item 2", "run", "--thresholds=80%,x", "--", "true")
        self.fails(2, r"--allocator 'foo': neither jemalloc", "run", "--allocator=foo", "--",
                   "true")
        self.fails(2, r"PID", "snapshot")
        self.fails(2, r"--timeout", "snapshot", "1", "--timeout=-1")
        self.fails(2, r"--set-interval 'x'", "snapshot", "1", "--set-interval=x")
        self.fails(2, r"a PID or a program", "doctor", "1", "--", "true")

    def test_a_full_disk_on_stdout_is_noticed(self):
        with open("/dev/full", "w") as full:
            result = subprocess.run([HEAPFLARE, "--help"], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(result.returncode, 3)


class Run(CommandTest):
    def test_exit_status_is_the_programs(self):
        for status in (0, 1, 7, 255):
            result = self.heapflare("run", "--", "sh", "-c", f"exit {status}")
            self.assertEqual(result.returncode, status)
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
            result = self.heapflare("run", "--", "sh", "-c", f"kill -{int(number)} $$")
            self.assertEqual(result.returncode, 128 + number)

    def test_program_that_cannot_be_run(self):
        self.fails(127, "no-such-program: command not found", "run", "--", "no-such-program")
        self.fails(127, "/no/such: cannot be run", "run", "--", "/no/such")
        self.fails(126, "Permission denied", "run", "--", self.directory)
        plain = os.path.join(self.directory, "plain")
        with open(plain, "w") as file:
            file.write("echo from plain text\n")
        self.fails(126, "Permission denied", "run", "--", plain)
        # Without a first line that names its interpreter, it is the shell's.
        os.chmod(plain, 0o755)
        self.assertEqual(self.heapflare("run", "--", plain).stdout, "from plain text\n")

    def test_arguments_environment_and_streams_pass_through(self):
        result = self.heapflare("run", "--", "sh", "-c", 'cat; echo "$@" >&2; echo $X', "sh",
                                "--help", "a b", "", input="in", env=dict(self.environment, X="y"))
        self.assertEqual(result.stdout, "iny\n")
        self.assertEqual(result.stderr, "--help a b \n")
        self.assertEqual(self.heapflare("run", "echo", "no", "dashes").stdout, "no dashes\n")

    def test_options_become_variables(self):
        result = self.heapflare("run", "--exact", "--dir=relative", "--keep", "3",
                                "--dump-at-exit", "--", "env")
        values = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
        self.assertEqual(values["HEAPFLARE_SAMPLE_INTERVAL"], "1")
        self.assertEqual(values["HEAPFLARE_DIR"], os.path.join(self.directory, "relative"))
        self.assertEqual(values["HEAPFLARE_KEEP"], "3")
        self.assertEqual(values["HEAPFLARE_DUMP_AT_EXIT"], "1")
        self.assertTrue(values["LD_PRELOAD"].endswith("libheapflare.so"), values["LD_PRELOAD"])

    def test_what_was_preloaded_stays_after_us(self):
        library = os.path.join(self.directory, "other.so")
        environment = dict(self.environment, LD_PRELOAD=library)
        result = self.heapflare("run", "--", "/usr/bin/env", env=environment)
        self.assertRegex(result.stdout, rf"(?m)^LD_PRELOAD=\S+libheapflare.so:{library}$")

    def test_signals_reach_the_program(self):
        script = ("trap 'echo got $1; exit 3' TERM; trap 'echo usr' USR1; echo up;"
                  "while :; do sleep 0.05; done")
        process = subprocess.Popen([HEAPFLARE, "run", "--", "bash", "-c", script],
                                   stdout=subprocess.PIPE, text=True, env=self.environment)
        self.started.append(process)
        self.assertEqual(process.stdout.readline(), "up\n")
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.stdout.readline(), "usr\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=10), 3)

    def test_killing_it_kills_the_program(self):
        process = self.start_holder()
        pid = json.loads(self.heapflare("ls", "--json").stdout)[0]["pid"]
        process.kill()
        process.wait()
        for _ in range(100):
            if not os.path.exists(f"/proc/{pid}"):
                return
            time.sleep(0.05)
        self.fail("the program lives on")

    def test_program_can_take_its_place(self):
        process = subprocess.Popen([HEAPFLARE, "run", "--exec", "--", "sh", "-c", "echo $$"],
                                   stdout=subprocess.PIPE, text=True, env=self.environment)
        self.assertEqual(int(process.communicate()[0]), process.pid)

    def test_signal_settings_are_inherited_unchanged(self):
        script = "import signal; print(sorted(signal.pthread_sigmask(0, [])), " \
                 "signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
        plain = [sys.executable, "-c", script]
        for prefix in ([], ["nohup"]):
            expected = subprocess.run(prefix + plain, capture_output=True, text=True)
            result = subprocess.run(prefix + [HEAPFLARE, "run", "--"] + plain, env=self.environment,
                                    capture_output=True, text=True)
            self.assertEqual(result.stdout, expected.stdout)

    def test_program_that_cannot_be_profiled_runs_all_the_same(self):
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            self.skipTest("no C compiler")
        source = os.path.join(self.directory, "static.c")
        program = os.path.join(self.directory, "static")
        with open(source, "w") as file:
            file.write("int main(void) { return 5; }\n")
        if subprocess.run([compiler, "-static", "-o", program, source]).returncode != 0:
            self.skipTest("no static libc")
        self.fails(5, "linked statically.*link it with heapflare::heapflare", "run", "--", program)
        self.assertEqual(self.heapflare("doctor", "--", program).returncode, 1)

    def test_missing_library_does_not_stop_the_program(self):
        environment = dict(self.environment, HEAPFLARE_LIBRARY="/no/such.so")
        result = self.heapflare("run", "--", "sh", "-c", "exit 4", env=environment)
        self.assertEqual(result.returncode, 4)
        self.assertIn("/no/such.so", result.stderr)


class Boxes(CommandTest):
    def test_ls_lists_living_and_dead(self):
        self.dead_box()
        living = self.start_holder()
        listed = json.loads(self.heapflare("ls", "--json").stdout)
        self.assertEqual([box["state"] for box in listed], ["alive", "dead"], "newest first")
        self.assertGreater(listed[0]["live_bytes"], 16 << 20)
        text = self.heapflare("ls").stdout.splitlines()
        self.assertRegex(text[0], r"^PROGRAM +PID +STATE")
        self.assertRegex(text[1], r" alive .* MiB ")
        living.terminate()
        living.wait()

    def test_ls_of_nothing_is_no_error(self):
        self.assertEqual(self.heapflare("ls").returncode, 0)
        self.assertEqual(json.loads(self.heapflare("ls", "--json").stdout), [])
        self.fails(3, "/no/such: cannot be listed", "ls", "/no/such")

    def test_ls_lists_damaged_boxes_with_the_reason(self):
        self.dead_box()
        with open(os.path.join(self.boxes, "x.box"), "w") as file:
            file.write("garbage that is long enough")
        result = self.heapflare("ls", self.boxes)
        self.assertEqual(result.returncode, 0)
        self.assertIn("x.box: not a heapflare box", result.stdout)
        self.assertIn("error", json.loads(self.heapflare("ls", "--json").stdout)[1])

    def test_dump_of_a_dead_process_has_what_it_held(self):
        box = self.dead_box()
        result = self.heapflare("dump", box)
        self.assertEqual(result.returncode, 0, result)
        path = os.path.join(self.directory, result.stdout.strip())
        self.assertRegex(path, r"\.recovered\.pb\.gz$")
        self.assertRegex(result.stderr, r"^heapflare dump: \S+ \(dead\): live 3[2-4](\.\d)? MiB in ")
        with gzip.open(path) as file:
            self.assertIn(b"inuse_space", file.read())
        again = self.heapflare("dump", box).stdout.strip()
        self.assertRegex(again, r"\.recovered-2\.pb\.gz$", "nothing is overwritten")

    def test_dump_formats(self):
        box = self.dead_box()
        folded = self.heapflare("dump", box, "--format=folded", "-o", "-").stdout
        for line in folded.splitlines():
            self.assertRegex(line, r"^.+ \d+$")
        total = sum(int(line.rsplit(" ", 1)[1]) for line in folded.splitlines())
        self.assertGreater(total, 16 << 20)
        text = self.heapflare("dump", box, "--format=gperftools", "-o", "-").stdout
        self.assertRegex(text, r"^heap profile: .*@ heapprofile\n")
        self.assertIn("MAPPED_LIBRARIES:", text)
        document = json.loads(self.heapflare("dump", box, "--format=json", "-o", "-").stdout)
        index = [t["type"] for t in document["sample_types"]].index("inuse_space")
        self.assertEqual(sum(s["values"][index] for s in document["samples"]), total)
        self.assertEqual(document["process"]["state"], "dead")

    def test_a_profile_file_is_a_target_too(self):
        box = self.dead_box()
        self.heapflare("dump", box, "-o", "a.pb.gz")
        direct = self.heapflare("dump", box, "--format=folded", "-o", "-").stdout
        through = self.heapflare("dump", "a.pb.gz", "--format=folded", "-o", "-").stdout
        self.assertEqual(direct, through)
        self.fails(2, "only a box can", "dump", "a.pb.gz", "--format=gperftools")
        self.fails(2, "no sample type 'x'; it has alloc_objects", "dump", "a.pb.gz",
                   "--format=folded", "--type=x", "-o", "-")

    def test_dump_to_a_named_file_replaces_it_and_a_device_is_kept(self):
        box = self.dead_box()
        target = os.path.join(self.directory, "out")
        for _ in range(2):
            self.assertEqual(self.heapflare("dump", box, "-o", target).stdout, target + "\n")
        self.assertEqual(self.heapflare("dump", box, "-o", "/dev/null").returncode, 0)
        self.assertFalse(os.path.isfile("/dev/null"))
        self.fails(3, "cannot be written", "dump", box, "-o", "/no/such/directory/x")
        self.fails(3, "No space left", "dump", box, "-o", "/dev/full")
        self.assertEqual([n for n in os.listdir(self.directory) if n.startswith(".heapflare")], [])

    def test_dump_and_snapshot_of_a_living_process(self):
        process = self.start_holder()
        for target in (str(process.pid), ""):
            arguments = [target] if target else []
            result = self.heapflare("dump", *arguments)
            self.assertEqual(result.returncode, 0, result)
            self.assertIn(".snapshot-", result.stdout)
        result = self.heapflare("snapshot", str(process.pid))
        self.assertEqual(result.returncode, 0, result)
        self.assertRegex(result.stdout, re.escape(self.dumps) + r"/.*\.0001\.request\.pb\.gz\n")
        self.assertTrue(os.path.exists(result.stdout.strip()))
        result = self.heapflare("snapshot", str(process.pid), "--set-interval=1MiB")
        self.assertEqual(result.returncode, 0, result)
        listed = json.loads(self.heapflare("ls", "--json").stdout)
        self.assertEqual(listed[0]["sample_interval"], 1 << 20)

    def test_snapshot_explains_why_not(self):
        box = self.dead_box()
        self.fails(3, "is dead; what it held is in the box", "snapshot", box)
        self.fails(3, "no box of it to be found; try: heapflare doctor", "snapshot",
                   str(os.getpid()))
        process = self.start_holder()
        pid = json.loads(self.heapflare("ls", "--json").stdout)[0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        self.fails(3, "no answer within 0.3 s", "snapshot", str(pid), "--timeout=0.3")
        os.kill(pid, signal.SIGCONT)
        process.terminate()
        process.wait()

    def test_doctor_of_a_living_process(self):
        process = self.start_holder()
        result = self.heapflare("doctor", str(process.pid), "--json")
        document = json.loads(result.stdout)
        self.assertTrue(document["works"], document)
        self.assertEqual(result.returncode, 0)
        details = {finding["what"]: finding["detail"] for finding in document["findings"]}
        self.assertIn("alive", details["box"])
        self.assertIn("every allocation", details["sampling"])
        own = self.heapflare("doctor", str(os.getpid()))
        self.assertEqual(own.returncode, 1)
        self.assertRegex(own.stdout, r"FAIL  recorder .*heapflare run")

    def test_doctor_of_a_program(self):
        result = self.heapflare("doctor", "--", "true")
        self.assertEqual(result.returncode, 0, result)
        self.assertRegex(result.stdout, r"(?m)^(ok|warn) +limit ")
        self.assertEqual(self.heapflare("doctor", "--", "no-such-program").returncode, 1)


class BadInput(CommandTest):
    """A cut, bit-flipped or foreign file: exit code 0 or 3 and a message, never a crash."""

    def check(self, path):
        for arguments in (["--format=pprof"], ["--format=folded"], ["--format=gperftools"],
                          ["--format=json"]):
            # Output that is thrown away: what matters is how it ends.
            result = self.heapflare("dump", path, *arguments, "-o", "/dev/null")
            self.assertIn(result.returncode, (0, 2, 3), result)
            if result.returncode != 0:
                self.assertTrue(result.stderr.startswith("heapflare dump: "), result)
        self.assertEqual(self.heapflare("ls", self.directory).returncode, 0)

    def test_foreign_files(self):
        for path in ("/bin/true", "/dev/null", "/dev/zero", "/proc/self/maps", "/", "/no/such",
                     "0", "99999999999999999999"):
            result = self.heapflare("dump", path, "-o", "/dev/null")
            self.assertEqual(result.returncode, 3, result)
        self.fails(3, r"not a heapflare box \(starts with 7f454c46", "dump", "/bin/true")

    def test_damaged_boxes(self):
        with open(self.dead_box(), "rb") as file:
            good = file.read()
        generator = random.Random(7)
        path = os.path.join(self.directory, "bad.box")
        used = [i for i in range(4096) if good[i] != 0]
        for round_number in range(30):
            bad = bytearray(good)
            if round_number % 3 == 0:
                del bad[generator.randrange(len(bad) if round_number % 2 else 8192):]
            for _ in range(generator.randrange(1, 20)):
                at = generator.choice(used) if round_number % 2 else generator.randrange(len(good))
                if at < len(bad):
                    bad[at] ^= 1 << generator.randrange(8)
            with open(path, "wb") as file:
                file.write(bad)
            self.check(path)

    def test_damaged_profiles(self):
        self.heapflare("dump", self.dead_box(), "-o", "good.pb.gz")
        with gzip.open(os.path.join(self.directory, "good.pb.gz")) as file:
            good = file.read()
        generator = random.Random(8)
        path = os.path.join(self.directory, "bad.pb.gz")
        for round_number in range(15):
            bad = bytearray(good)
            for _ in range(generator.randrange(0, 5)):
                bad[generator.randrange(len(bad))] ^= 1 << generator.randrange(8)
            packed = bytearray(gzip.compress(bytes(bad)))
            if round_number % 3 == 1:
                del packed[generator.randrange(len(packed)):]
            if round_number % 3 == 2:
                packed[generator.randrange(len(packed))] ^= 16
            with open(path, "wb") as file:
                file.write(packed)
            self.check(path)

    def test_a_gzip_bomb_is_not_unpacked(self):
        path = os.path.join(self.directory, "bomb.pb.gz")
        with gzip.open(path, "wb") as file:
            for _ in range(300):
                file.write(bytes(1 << 20))
        self.fails(3, "decompresses to more than", "dump", path, "--format=json", "-o", "/dev/null")


if __name__ == "__main__":
    unittest.main()
