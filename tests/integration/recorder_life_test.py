#!/usr/bin/env python3
"""Boxes over the lives of processes: their names, clean and other ends, fork, vfork, exec; and dumps
that are asked for while they live.

HEAPFLARE_BUILD names the build directory.
"""

import os
import re
import shutil
import signal
import unittest

from acting import ACTOR, Actor, ActorTest
from profiled import MIB, started_at, under

HELD = "hold 1048576 1024"


class LifeTest(ActorTest):
    def exact(self, program=ACTOR, **settings):
        """An actor with a box, which knows all that it holds: 1 MiB."""
        actor = self.actor(program, SAMPLE_INTERVAL=1, **settings)
        actor.does(HELD)
        self.assertIsNotNone(self.box_of(actor.pid))
        return actor

    def held(self, target):
        return self.profile_of(target).total("inuse_space", under("HoldBlocks"))

    def files_of_boxes(self):
        return [os.path.basename(path) for path in self.files(self.boxes, "")]


class Names(LifeTest):
    def test_are_program_pid_and_start(self):
        actor = self.exact()
        start = started_at(actor.pid)
        names = self.files_of_boxes()
        self.assertEqual(len(names), 2, names)
        match = re.fullmatch(r"actor\.(\d+)\.(\d+)\.box", names[0])
        self.assertEqual(int(match.group(1)), actor.pid)
        self.assertAlmostEqual(int(match.group(2)), start, delta=1.1)
        self.assertEqual(names[1], names[0].removesuffix(".box") + ".ctl")
        self.assertEqual(actor.tell("dump -"), "0")
        stem = names[0].removesuffix(".box")
        self.assertEqual(os.listdir(self.dumps), [f"{stem}.0001.api.pb.gz"])
        self.assertEqual(os.stat(self.dumps).st_mode & 0o777, 0o700)
        self.assertEqual(actor.end(), 0)

    def test_have_no_characters_that_are_awkward_in_a_file_name(self):
        odd = shutil.copy(ACTOR, self.path("my prog (1)\n.x+y_z-0"))
        actor = self.actor(odd, SAMPLE_INTERVAL=1)
        actor.does(HELD)
        self.assertRegex(self.files_of_boxes()[0], r"^my_prog__1__\.x\+y_z-0\.\d+\.\d+\.box$")
        self.assertEqual(actor.end(), 0)


class End(LifeTest):
    def test_that_is_clean_removes_the_box(self):
        for how in ("exit", "pthread_exit"):
            with self.subTest(how):
                actor = self.exact()
                self.assertEqual(actor.end(how), 0)
                self.assertEqual(self.files_of_boxes(), [])
        actor = self.exact()
        actor.process.stdin.close()
        self.assertEqual(actor.process.wait(timeout=60), 0, "main returned")
        self.assertEqual(self.files_of_boxes(), [])

    def test_of_any_other_kind_leaves_it_with_what_was_held(self):
        ends = {"_exit": 0, "abort": -signal.SIGABRT, "segv": -signal.SIGSEGV,
                "KILL": -signal.SIGKILL, "TERM": -signal.SIGTERM}
        for how, status in ends.items():
            with self.subTest(how):
                actor = self.exact()
                box = self.box_of(actor.pid)
                if how.isupper():
                    actor.process.send_signal(-status)
                    self.assertEqual(actor.process.wait(timeout=60), status)
                else:
                    self.assertEqual(actor.end(how), status)
                self.assertEqual(self.held(box), MIB)
                # A shell pipeline's `ls` says that it is dead.
                result = self.heapflare("ls", self.boxes)
                self.assertRegex(result.stdout, rf"(?m)^actor +{actor.pid} +dead ")
                self.assertEqual(actor.said(), [])

    def test_of_many_leaves_the_youngest_boxes_only(self):
        dead = []
        for _ in range(18):
            actor = self.exact()
            dead.append(self.box_of(actor.pid))
            actor.process.kill()
            actor.process.wait(timeout=60)
        # Who starts next tidies up, a moment after its start.
        actor = self.exact()
        living = self.box_of(actor.pid)
        self.wait_until(lambda: len(self.box_files()) == 17, "16 of the dead stay, and its own")
        self.assertEqual(set(self.box_files()), {*dead[-16:], living})


class Fork(LifeTest):
    def test_gives_the_child_a_box_of_its_own(self):
        actor = self.exact()
        child = int(actor.tell("fork"))
        self.assertEqual(actor.tell(f"child {HELD}"), "ok")
        self.assertEqual(actor.tell("child hold 2097152 1024"), "ok")
        box = self.box_of(child)
        self.assertIsNotNone(box)
        # Each knows what it allocated itself.
        self.assertEqual(self.held(child), 3 * MIB)
        self.assertEqual(self.held(actor.pid), MIB)
        # What the child inherited is not its sample any more: freeing it changes nothing.
        self.assertEqual(actor.tell("child drop"), "ok")
        self.assertEqual(self.held(child), 0)
        self.assertEqual(self.held(actor.pid), MIB)
        # It is served like any other.
        result = self.heapflare("snapshot", str(child))
        self.assertEqual(result.returncode, 0, result)
        self.assertIn(f"/actor.{child}.", result.stdout)
        # A grandchild too.
        grandchild = int(actor.tell("child fork"))
        self.assertEqual(actor.tell(f"child child {HELD}"), "ok")
        self.assertEqual(self.held(grandchild), MIB)
        self.assertEqual(actor.tell("child child end exit"), "ok")
        self.assertEqual(actor.tell("child end exit"), "ok")
        self.wait_until(lambda: self.box_of(child) is None and self.box_of(grandchild) is None,
                        "the children's boxes are gone")
        self.assertIsNotNone(self.box_of(actor.pid))
        self.assertEqual(actor.end(), 0)
        self.assertEqual(self.files_of_boxes(), [])
        self.assertEqual(actor.said(), [])

    def test_of_a_child_that_is_killed_leaves_only_its_box(self):
        actor = self.exact()
        child = int(actor.tell("fork"))
        self.assertEqual(actor.tell(f"child {HELD}"), "ok")
        os.kill(child, signal.SIGKILL)
        self.assertEqual(actor.end(), 0)
        self.assertIsNotNone(self.box_of(child))
        self.assertIsNone(self.box_of(actor.pid))

    def test_by_vfork_opens_nothing_and_books_in_the_heap_that_it_shares(self):
        actor = self.exact()
        boxes = self.files_of_boxes()
        before = self.profile_of(actor.pid)
        for _ in range(3):
            actor.tell("vfork")
        self.assertEqual(self.files_of_boxes(), boxes)
        after = self.profile_of(actor.pid)
        self.assertEqual(after.total("alloc_objects", under("AllocateInVforkChild")), 300)
        self.assertEqual(after.total("inuse_space", under("AllocateInVforkChild")), 0)
        self.assertEqual(before.total("inuse_space", under("HoldBlocks")), MIB)
        # The parent goes on recording.
        actor.does(HELD)
        self.assertEqual(self.held(actor.pid), 2 * MIB)
        self.assertEqual(actor.end(), 0)
        self.assertEqual(self.files_of_boxes(), [])


class Exec(LifeTest):
    def become(self, actor, program):
        self.assertEqual(actor.tell(f"exec {program}"), "ready")

    def test_replaces_the_box(self):
        other = shutil.copy(ACTOR, self.path("other"))
        for program, name in ((ACTOR, "actor"), (other, "other")):
            with self.subTest(name):
                actor = self.exact()
                self.become(actor, program)
                actor.does(HELD, HELD)
                self.assertEqual(self.held(actor.pid), 2 * MIB)
                names = self.files_of_boxes()
                self.assertEqual(len(names), 2, names)
                self.assertTrue(names[0].startswith(f"{name}.{actor.pid}."), names)
                self.assertEqual(actor.end(), 0)
                self.assertEqual(self.files_of_boxes(), [])

    def test_replaces_it_also_if_the_clock_was_set_in_between(self):
        actor = self.exact()
        box = self.box_of(actor.pid)
        # As if it had been named by a clock that was five seconds ahead.
        for suffix in (".box", ".ctl"):
            path = box.removesuffix(".box") + suffix
            stem, second, _ = path.rsplit(".", 2)
            os.rename(path, f"{stem}.{int(second) + 5}{suffix}")
        self.become(actor, ACTOR)
        actor.does(HELD)
        self.assertEqual(self.files_of_boxes(),
                         [os.path.basename(box), os.path.basename(box).replace(".box", ".ctl")])

    def test_of_a_program_that_is_not_to_be_profiled_leaves_none(self):
        other = shutil.copy(ACTOR, self.path("other"))
        actor = self.exact(PROGRAMS="actor")
        self.become(actor, other)
        actor.does(HELD)
        self.assertEqual(self.files_of_boxes(), [])
        self.assertEqual(actor.tell("interval"), "0 0")
        self.assertEqual(actor.end(), 0)


class Asked(LifeTest):
    def test_for_a_snapshot_it_writes_one_and_lives_on(self):
        actor = self.exact()
        for number in (1, 2):
            result = self.heapflare("snapshot", str(actor.pid))
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            path = result.stdout.strip()
            self.assertRegex(path, rf"^{self.dumps}/actor\.{actor.pid}\.\d+\.000{number}\."
                                   r"request\.pb\.gz$")
            profile = self.read_profile(path)
            self.assertEqual(profile.total("inuse_space", under("HoldBlocks")), number * MIB)
            self.assertIn("taken: request", profile.comments)
            actor.does(HELD)
        self.assertEqual(actor.end(), 0)

    def test_by_the_program_it_writes_where_that_says(self):
        actor = self.exact()
        path = self.path("chosen.pb.gz")
        self.assertEqual(actor.tell(f"dump {path}"), "0")
        self.assertEqual(self.read_profile(path).total("inuse_space", under("HoldBlocks")), MIB)
        # Relative to the program's directory; replaced if it is there.
        self.assertEqual(actor.tell("dump chosen.pb.gz"), "0")
        self.assertEqual(actor.tell("dump -"), "0")
        self.assertEqual(self.reasons(), ["api"])
        self.assertEqual(actor.tell("dump /no/such/directory/x"), "2", "ENOENT")
        self.assertEqual(actor.end(), 0)

    def test_without_heapflare_the_api_does_nothing(self):
        self.clean["LD_PRELOAD"] = ""
        process = self.start([ACTOR], env=self.clean, stdin=-1, stdout=-1, text=True)
        output, _ = process.communicate("interval 1\ndump -\ninterval\n", timeout=60)
        self.assertEqual(output.splitlines(), ["ready", "38 0 0", "38", "0 0"], "ENOSYS")


class Directories(LifeTest):
    def test_that_cannot_be_made_leave_the_program_a_box_elsewhere(self):
        actor = Actor(self, self.with_settings(
            BOX_DIR=self.write("file", "") + "/boxes", SAMPLE_INTERVAL=1))
        actor.does(HELD)
        self.assertEqual(self.held(actor.pid), MIB)
        self.assertEqual(actor.end(), 0)
        self.assertEqual(len(actor.said()), 1, actor.said())
        self.assertRegex(actor.said()[0], r"^heapflare: cannot keep a box in \S+/file/boxes "
                                          r"\(errno 20\); the box is in /")

    def test_that_cannot_be_made_for_dumps_are_told_once(self):
        actor = self.exact(DIR=self.write("file", "") + "/dumps")
        for _ in range(3):
            self.assertEqual(actor.tell("dump -"), "20", "ENOTDIR")
        self.assertEqual(self.held(actor.pid), MIB)
        self.assertEqual(actor.end(), 0)
        self.assertEqual(len(actor.said()), 1, actor.said())
        self.assertRegex(actor.said()[0], r"^heapflare: cannot write \S+/file/dumps/actor\.\S+ "
                                          r"\(errno 20\); the box still has the profile$")


if __name__ == "__main__":
    unittest.main()
