#!/usr/bin/env python3
"""Directories and volumes that heapflare cannot use, or loses while it runs.

Wherever the box or the dumps cannot be, the service does what it does without heapflare, one
line on stderr says what is missing, and what can still be recorded is.
"""

import os
import re
import shutil
import stat
import subprocess

from surroundings_harness import (
    NOBODY, SurroundingsTest, main, mount, needs_mounts, needs_root, unmount)

ACTIONS = ("work:300", "threads:2", "fork")


class BeforeTheStart(SurroundingsTest):
    def test_missing_directories_are_made_with_their_parents(self):
        self.boxes = os.path.join(self.directory, "a/b/boxes")
        self.dumps = os.path.join(self.directory, "c/d/e/dumps")
        self.settings.update(HEAPFLARE_BOX_DIR=self.boxes, HEAPFLARE_DIR=self.dumps)
        done = self.survives(*ACTIONS, "dump", "_exit", lines=0)
        self.assertIn("dump 0\n", done.out)
        self.check_profiles(at_least=1)
        self.assertEqual(len(self.boxes_in()), 1)
        for path in (self.boxes, self.dumps):
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o700)

    def refused(self, dump_error, box_error):
        """Neither directory can be used: the box has no name, and dumps fail with an errno."""
        self.mount_shm()
        done = self.survives(*ACTIONS, "dump", "dump")
        self.assertIn(f"dump {dump_error}\n", done.out)
        # A line for the box, of the service and of its child; one for the dumps, though two
        # failed.
        why = f"{self.boxes} (errno {box_error}); "
        self.assertEqual(len([line for line in done.lines if why in line]), 2, done)
        self.assertEqual(
            len([line for line in done.lines if "cannot write" in line]), 1, done)
        return done

    def mount_shm(self):
        """A /dev/shm that has no room, so that the default is no way out."""
        if os.geteuid() == 0:
            self.volume("/dev/shm", "4k", ",nr_inodes=1")

    @needs_mounts
    def test_a_symlink_is_refused_with_and_without_a_slash_behind_it(self):
        target = os.path.join(self.directory, "target")
        os.mkdir(target)
        for path in (self.boxes, self.dumps):
            os.symlink(target, path)
        for end in ("", "/", "//"):
            self.settings.update(HEAPFLARE_BOX_DIR=self.boxes + end,
                                 HEAPFLARE_DIR=self.dumps + end)
            self.refused(40, 40)
            self.assertEqual(os.listdir(target), [])

    @needs_mounts
    def test_a_file_in_place_of_a_directory(self):
        for path in (self.boxes, self.dumps):
            with open(path, "w", encoding="ascii") as file:
                file.write("precious")
        self.refused(20, 20)
        for path in (self.boxes, self.dumps):
            with open(path, encoding="ascii") as file:
                self.assertEqual(file.read(), "precious")

    @needs_mounts
    def test_a_directory_of_another_user(self):
        for path in (self.boxes, self.dumps):
            os.mkdir(path, 0o777)
            os.chown(path, NOBODY, NOBODY)
        self.refused(1, 1)

    @needs_mounts
    def test_a_directory_that_must_not_be_written(self):
        for path in (self.boxes, self.dumps):
            os.mkdir(path, 0o755)
        launcher = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        self.mount_shm()
        done = self.survives(*ACTIONS, "dump", launcher=launcher)
        self.assertIn("dump 13\n", done.out)
        self.assertEqual(len([line for line in done.lines if "cannot write" in line]), 1, done)

    @needs_root
    def test_another_user_than_root_has_everything_where_it_may_write(self):
        os.chmod(self.directory, 0o777)
        launcher = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        self.survives(*ACTIONS, "dump", "_exit", launcher=launcher, lines=0)
        self.check_profiles(at_least=1)
        box = self.boxes_in()[0]
        self.assertEqual(os.stat(box).st_uid, NOBODY)
        self.assertEqual(stat.S_IMODE(os.stat(box).st_mode), 0o600)

    @needs_mounts
    def test_a_read_only_volume(self):
        for path in (self.boxes, self.dumps):
            self.volume(path, "32m")
            mount("-o", "remount,ro", path)
        self.refused(30, 30)

    @needs_mounts
    def test_a_full_volume(self):
        for path in (self.boxes, self.dumps):
            self.volume(path, "256k")
            self.fill(path)
        self.mount_shm()
        done = self.survives(*ACTIONS, "dump", "dump")
        self.assertEqual(done.out.count("dump 28\n"), 2, done)
        for path in (self.boxes, self.dumps):
            self.assertEqual(os.listdir(path), ["filler"])

    @needs_mounts
    def test_a_full_dev_shm_leaves_the_box_to_the_directory_of_the_dumps(self):
        self.volume("/dev/shm", "64k")
        self.fill("/dev/shm")
        del self.settings["HEAPFLARE_BOX_DIR"]
        done = self.survives(*ACTIONS, "dump", "_exit", lines=0)
        self.assertIn("dump 0\n", done.out)
        self.assertEqual(len(self.boxes_in(self.dumps)), 1)
        self.assertTrue(self.read_box(self.boxes_in(self.dumps)[0]).samples)


class WhileRunning(SurroundingsTest):
    @needs_mounts
    def test_a_full_disk_during_a_dump_leaves_nothing_and_the_next_one_works(self):
        # 16,384 stacks make a dump of several hundred KiB; the volume has room for a part of it.
        self.volume(self.dumps, "1m")
        self.settings.update(HEAPFLARE_SAMPLE_INTERVAL="1")
        actions = ("stacks:14", "dump", "wait", "dump", "dump", "wait", "dump", "wait", "work:300")
        process = self.start(*actions)
        self.wait_for(process, "dump done")
        whole = self.profiles()
        size = os.stat(whole[0]).st_size
        filler = self.fill(self.dumps)
        os.truncate(filler, os.stat(filler).st_size // 4096 * 4096 - size // 8192 * 4096)
        self.resume(process)
        self.assertIn("dump 28\n", self.wait_for(process, "dump done"))
        self.assertIn("dump 28\n", self.wait_for(process, "dump done"))
        self.assertEqual(sorted(os.listdir(self.dumps)),
                         ["filler", os.path.basename(whole[0])])
        os.unlink(filler)
        self.resume(process)
        self.assertIn("dump 0\n", self.wait_for(process, "dump done"))
        self.assertEqual(len(self.profiles()), 2)
        self.assertEqual(len(self.check_profiles()[1].samples),
                         len(self.read_box(self.boxes_in()[0]).samples))
        self.resume(process)
        done = self.finish(process)
        self.check_unharmed(done, *actions)
        self.assertEqual(len(done.lines), 1, done)
        self.assertRegex(done.lines[0], r"cannot write \S+ \(errno 28\); the box still has the")

    def test_a_kill_in_the_middle_of_a_dump_leaves_no_part_of_a_file(self):
        self.settings.update(HEAPFLARE_SAMPLE_INTERVAL="1")
        for number in range(5):
            process = self.start("stacks:12", *["dump"] * 500)
            for _ in range(number + 1):
                self.wait_for(process, "dump done")
            self.kill(process)
        self.assertEqual([name for name in os.listdir(self.dumps) if name.startswith(".")], [])
        self.check_profiles(at_least=5)

    def check_box_filled_up(self, where):
        """The volume of the box is filled while the service runs: never SIGBUS, and it is said."""
        self.settings.update(HEAPFLARE_SAMPLE_INTERVAL="1", HEAPFLARE_DIR=self.dumps)
        process = self.start("hold:1", "wait", "stacks:13", "hold:64", "threads:4", "fork", "dump",
                             "wait", "stacks:13", "dump", "wait")
        self.wait_for(process, "hold done")
        self.poll(lambda: self.boxes_in(where))
        filler = self.fill(where)
        self.resume(process)
        said = self.wait_for(process, "dump done")
        self.assertIn("dump 0\n", said)
        full = self.check_profiles(at_least=1)[0]
        self.assertTrue(any(re.match(r"stacks: .* [1-9]\d* folded", c) for c in full.comments),
                        full.comments)
        self.assertTrue(any(re.match(r"lost: [1-9]", c) for c in full.comments), full.comments)
        os.unlink(filler)
        self.resume(process)
        self.assertIn("dump 0\n", self.wait_for(process, "dump done"))
        later = self.check_profiles(at_least=2)[1]
        # With space again all of the 2^13 stacks are there.
        self.assertLess(len(full.samples), 1 << 13)
        self.assertGreaterEqual(len(later.samples), 1 << 13)
        self.kill(process)
        self.assertEqual(process.returncode, -9)
        box = self.read_box(self.boxes_in(where)[0])
        self.assertTrue(any(re.match(r"lost: [1-9]", c) for c in box.comments), box.comments)

    @needs_mounts
    def test_a_dev_shm_that_fills_up_never_raises_a_bus_error(self):
        self.volume("/dev/shm", "4m")
        del self.settings["HEAPFLARE_BOX_DIR"]
        self.check_box_filled_up(f"/dev/shm/heapflare-{os.geteuid()}")

    @needs_mounts
    def test_a_disk_that_fills_up_never_raises_a_bus_error(self):
        image = os.path.join(self.directory, "image")
        with open(image, "wb") as file:
            file.truncate(8 << 20)
        made = subprocess.run(["/sbin/mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image],
                              capture_output=True, check=False)
        os.mkdir(self.boxes)
        if made.returncode != 0 or subprocess.run(
                ["mount", "-o", "loop", image, self.boxes], capture_output=True,
                check=False).returncode != 0:
            self.skipTest("no ext4 in a file here: no mkfs.ext4, or no loop devices")
        self.mounted.append(self.boxes)
        self.check_box_filled_up(self.boxes)

    def test_directories_that_are_removed(self):
        actions = ("work:300", "dump", "wait", "work:300", "threads:2", "fork", "dump", "wait")
        process = self.start(*actions)
        self.wait_for(process, "dump done")
        shutil.rmtree(self.boxes)
        shutil.rmtree(self.dumps)
        self.resume(process)
        # The directory of the dumps is made again; the box is gone, and no longer found by
        # anyone.
        self.assertIn("dump 0\n", self.wait_for(process, "dump done"))
        self.check_profiles(at_least=1)
        self.resume(process)
        done = self.finish(process)
        self.check_unharmed(done, *actions)
        self.assertEqual(done.lines, [], done)

    @needs_mounts
    def test_a_volume_that_becomes_read_only(self):
        self.volume(self.dumps, "8m")
        process = self.start("work:300", "dump", "wait", "dump", "dump", "wait", "dump", "work:300")
        self.wait_for(process, "dump done")
        mount("-o", "remount,ro", self.dumps)
        self.resume(process)
        self.assertIn("dump 30\n", self.wait_for(process, "dump done"))
        self.assertIn("dump 30\n", self.wait_for(process, "dump done"))
        mount("-o", "remount,rw", self.dumps)
        self.resume(process)
        done = self.finish(process)
        self.assertIn("dump 0\n", done.out)
        self.assertEqual(len(done.lines), 1, done)
        self.check_profiles(at_least=2)

    @needs_mounts
    def test_volumes_that_are_unmounted_and_replaced(self):
        self.volume(self.dumps, "8m")
        self.volume(self.boxes, "32m")
        actions = ("work:300", "dump", "wait", "work:300", "threads:2", "fork", "dump")
        process = self.start(*actions)
        self.wait_for(process, "dump done")
        for path in (self.dumps, self.boxes):
            unmount(path, "--lazy")
            self.mounted.remove(path)
            self.volume(path, "8m")
        self.resume(process)
        done = self.finish(process)
        self.check_unharmed(done, *actions)
        self.assertIn("dump 0\n", done.out)
        self.check_profiles(at_least=1)


if __name__ == "__main__":
    main()
