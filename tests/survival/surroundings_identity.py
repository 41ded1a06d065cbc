#!/usr/bin/env python3
"""Who the service is: odd names, twins in other PID namespaces, clocks that jump, a box that
somebody else writes to.

Clocks: what the recorder's own system calls return is changed under ptrace, for each clock;
time namespaces shift monotonic time and boot time for everybody. Setting the machine's clock is
not tried.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

from surroundings_harness import (
    BUILD, NOBODY, SurroundingsTest, main, needs_mounts, needs_root)

ACTIONS = ("work:300", "threads:2", "fork", "dump", "work:300")
INJECT = os.path.join(BUILD, "tests/survival/surroundings_inject")


class Names(SurroundingsTest):
    def check_one_box(self):
        """The command finds the one box, and can read it."""
        listed = subprocess.run([self.command, "ls", "--json", self.boxes], capture_output=True,
                                text=True, env=self.environment(), check=True)
        boxes = json.loads(listed.stdout)
        self.assertEqual(len(boxes), 1, listed.stdout)
        self.assertEqual(boxes[0]["state"], "dead")
        self.assertTrue(self.read_box(boxes[0]["box"]).samples)
        os.unlink(boxes[0]["box"])

    def test_of_programs(self):
        plain = self.service
        for name in (b"with space", b"new\nline", b"\xff\xfe\x80", b"-rf", b"a.12.34.box", b"...",
                     b"n" * 255, "grün 🔥".encode(), b"'\"$(x)\\"):
            with self.subTest(name=name):
                self.service = os.path.join(os.fsencode(self.directory), b"bin", name)
                shutil.copy(plain, self.service)
                self.survives(*ACTIONS, "_exit", lines=0)
                self.check_profiles(at_least=1)
                self.check_one_box()
                os.unlink(self.service)

    def test_of_a_program_at_the_end_of_a_long_path(self):
        deep = os.path.join(self.directory, *["d" * 200] * 15)
        os.makedirs(deep)
        path = os.path.join(deep, "service")
        shutil.copy(self.service, path)
        self.service = path
        self.survives(*ACTIONS, "_exit", lines=0)
        self.check_one_box()

    def test_in_argv(self):
        environment = dict(self.environment(), LD_PRELOAD=self.library)
        for first in ("", "-", "/", "a/b/", "x" * 100_000, "\n", "surroundings service"):
            with self.subTest(first=first[:10]):
                done = subprocess.run([first, *ACTIONS, "_exit"], executable=self.service,
                                      capture_output=True, env=environment, timeout=60, check=False)
                self.assertEqual((done.returncode, done.stderr), (0, b""))
                self.check_one_box()

    def test_without_any_argument(self):
        # The kernel puts an empty argv[0] there since 5.18.
        code = ("import ctypes, sys; ctypes.CDLL(None).execve(sys.argv[1].encode(), "
                "(ctypes.c_char_p * 1)(None), (ctypes.c_char_p * 4)("
                "*[a.encode() for a in sys.argv[2:5]], None))")
        done = subprocess.run(
            [sys.executable, "-c", code, self.service, f"LD_PRELOAD={self.library}",
             f"HEAPFLARE_BOX_DIR={self.boxes}", "HEAPFLARE_SAMPLE_INTERVAL=1"],
            capture_output=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (0, b"result 0000000000000000\n", b""))

    def test_of_an_executable_that_is_deleted_while_it_runs(self):
        actions = ("work:300", "wait", *ACTIONS, "wait")
        self.without(*actions)
        process = self.start(*actions)
        self.wait_for(process, "work done")
        os.unlink(self.service)
        self.resume(process)
        self.assertIn("dump 0\n", self.wait_for(process, "dump done"))
        self.wait_for(process, "work done")
        self.kill(process)
        self.check_profiles(at_least=1)
        self.assertIn("surroundings_service.", self.boxes_in()[0])
        self.check_one_box()


class Twins(SurroundingsTest):
    """Two processes with one name, one PID (1), one second of start, and one HEAPFLARE_BOX_DIR."""

    def start_twins(self, prepare):
        # At the beginning of a second, so that both start in it.
        self.poll(lambda: time.time() % 1 < 0.2)
        launcher = ["unshare", "--pid", "--fork", "--mount", "--kill-child",
                    "sh", "-c", f"{prepare}; exec \"$@\"", "sh"]
        twins = [self.start("stacks:6", "wait", "work:300", launcher=launcher) for _ in range(2)]
        for twin in twins:
            self.wait_for(twin, "stacks done")
        return twins

    def check(self, prepare):
        for _ in range(5):
            twins = self.start_twins(prepare)
            boxes = self.poll(lambda: len(self.boxes_in()) == 2 and self.boxes_in())
            seconds = {int(box.split(".")[-2]) for box in boxes}
            self.assertEqual(len(seconds), 2)
            started = {os.stat(box).st_mtime // 1 for box in boxes}
            for box in boxes:
                self.assertTrue(self.read_box(box).samples)
            # The end of one is not the end of the other's box.
            self.resume(twins[0])
            self.check_unharmed(self.finish(twins[0]), "stacks:6", "work:300")
            left = self.boxes_in()
            self.assertEqual(len(left), 1)
            self.assertTrue(self.read_box(left[0]).samples)
            self.resume(twins[1])
            self.check_unharmed(self.finish(twins[1]), "stacks:6", "work:300")
            self.assertEqual(self.boxes_in(), [])
            if len(started) == 1:
                return
        self.fail("never did two start in one second")

    @needs_mounts
    def test_each_keep_their_own_box(self):
        self.check("mount -t proc proc /proc")

    @needs_mounts
    def test_each_keep_their_own_box_where_there_is_no_proc(self):
        self.check("umount -l /proc")

    @needs_mounts
    def test_a_newcomer_that_cannot_tell_the_boot_leaves_the_boxes_of_the_living(self):
        # Of the dead 16 are kept, so there must be more.
        living = [self.start("work:300", "wait") for _ in range(18)]
        for process in living:
            self.wait_for(process, "work done")
        self.poll(lambda: len(self.boxes_in()) == 18)
        self.mount("--bind", "/dev/null", "/proc/sys/kernel/random/boot_id")
        self.survives("work:300", "dump", lines=0)
        self.assertEqual(len(self.boxes_in()), 18)


class Clocks(SurroundingsTest):
    REALTIME, MONOTONIC, BOOTTIME = 0, 1, 7
    YEAR = 365 * 86400

    def test_jump_forward_and_back(self):
        jumps = [(clock, at, seconds) for clock in (self.REALTIME, self.MONOTONIC, self.BOOTTIME)
                 for at in (1, 5, 40) for seconds in (-60 * self.YEAR, -5, 3600, 100 * self.YEAR)]
        report = os.path.join(self.directory, "report")
        jumped = 0
        for clock, at, seconds in jumps:
            with self.subTest(clock=clock, at=at, seconds=seconds):
                launcher = [INJECT, f"--report={report}", f"--jump={clock}:{at}:{seconds}",
                            f"--jump={clock}:{at + 30}:{-seconds}", "--"]
                done = self.survives(*ACTIONS, "dump", "_exit", launcher=launcher, lines=0)
                self.assertEqual(done.out.count("dump 0\n"), 2, done)
                for profile in self.check_profiles(at_least=2):
                    self.assertTrue(profile.samples)
                for box in self.boxes_in():
                    self.assertTrue(self.read_box(box).samples)
                with open(report, encoding="ascii") as file:
                    jumped += int(file.read().split()[-1]) > 0
            shutil.rmtree(self.boxes)
            shutil.rmtree(self.dumps)
        self.assertGreater(jumped, len(jumps) // 2)

    @needs_root
    def test_in_a_time_namespace(self):
        for offset in (10_000_000, -1):
            launcher = ["unshare", "--time", f"--monotonic={offset}", f"--boottime={offset}",
                        "--fork"]
            if subprocess.run([*launcher, "true"], check=False, capture_output=True).returncode:
                self.skipTest("no time namespaces here")
            with self.subTest(offset=offset):
                before = time.time()
                self.survives(*ACTIONS, "_exit", launcher=launcher, lines=0)
                self.check_profiles(at_least=1)
                box = self.boxes_in()[-1]
                self.assertTrue(self.read_box(box).samples)
                self.assertLess(abs(int(box.split(".")[-2]) - before), 5)


class SomebodyElsesHands(SurroundingsTest):
    """What the mode of the box protects from. Its owner and root can do as they like."""

    def setUp(self):
        super().setUp()
        self.settings["HEAPFLARE_SAMPLE_INTERVAL"] = "1"

    def start_recording(self):
        process = self.start("stacks:8", "wait", "stacks:10", "threads:2", "dump")
        self.wait_for(process, "stacks done")
        return process, self.poll(self.boxes_in)[0]

    @needs_root
    def test_other_users_can_neither_read_nor_write_nor_cut_it(self):
        process, box = self.start_recording()
        for path in (box, box[:-4] + ".ctl"):
            for command in (["cat", path], ["truncate", "-s", "0", path], ["rm", "-f", path]):
                done = subprocess.run(
                    ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
                     *command], capture_output=True, check=False)
                self.assertNotEqual(done.returncode, 0, command)
        self.resume(process)
        self.check_unharmed(self.finish(process), "stacks:8", "stacks:10", "threads:2", "dump")

    def test_no_mode_lets_others_write(self):
        self.settings["HEAPFLARE_BOX_MODE"] = "0666"
        done = self.survives("work:300", "_exit", lines=1)
        self.assertRegex(done.err, "HEAPFLARE_BOX_MODE: '0666': .*; using 0600")
        self.assertEqual(os.stat(self.boxes_in()[0]).st_mode & 0o777, 0o600)

    def test_a_box_that_its_owner_cuts_ends_the_service(self):
        """Not survived, and documented: a store to a page that is gone from a file is SIGBUS."""
        process, box = self.start_recording()
        os.truncate(box, 4096)
        self.resume(process)
        self.assertEqual(self.finish(process).status, -signal.SIGBUS)

    def test_a_box_that_is_replaced_or_renamed_is_recorded_into_all_the_same(self):
        actions = ("stacks:8", "wait", "stacks:10", "threads:2", "dump", "wait")
        process = self.start(*actions)
        self.wait_for(process, "stacks done")
        box = self.poll(self.boxes_in)[0]
        os.rename(box, box + ".moved")
        with open(box, "w", encoding="ascii") as file:
            file.write("not a box")
        self.resume(process)
        self.assertIn("dump 0\n", self.wait_for(process, "dump done"))
        self.assertGreater(len(self.read_box(box + ".moved").samples), 1000)
        self.resume(process)
        self.check_unharmed(self.finish(process), *actions)

    def test_a_control_file_full_of_rubbish(self):
        actions = ("stacks:8", "wait", "dump", "wait")
        process = self.start(*actions)
        self.wait_for(process, "stacks done")
        control = self.poll(self.boxes_in)[0][:-4] + ".ctl"
        self.poll(lambda: os.path.exists(control))
        for rubbish in (b"", b"x", os.urandom(100), os.urandom(9000),
                        b"LARCTL1\n" + b"\xff" * 24):
            with open(control, "wb") as file:
                file.write(rubbish)
        self.resume(process)
        self.assertIn("dump 0\n", self.wait_for(process, "dump done"))
        self.resume(process)
        self.check_unharmed(self.finish(process), *actions)


if __name__ == "__main__":
    main()
