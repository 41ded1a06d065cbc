#!/usr/bin/env python3
"""What services do to themselves under the recorder: descriptors, users, locked memory, namespaces, libraries
that come and go, a debugger.

See survival_case.py. --long: more of everything; 10 minutes.
"""

import os
import resource
import shutil
import struct
import subprocess
import unittest

from survival_case import (EVERYWHERE, LONG, PROGRAMS, SurvivalCase, Way, is_in, main)  # fmt: skip

PLUGINS = [os.path.join(PROGRAMS, f"plugin_{name}.so") for name in ("First", "Other", "Third")]
FEW = [Way(), Way(interval=65536), Way("jemalloc")]
NOBODY = 65534


def as_root(test):
    return unittest.skipUnless(os.geteuid() == 0, "changing the user needs root")(test)


class Descriptors(SurvivalCase):
    def test_a_service_may_close_all_and_gets_the_lowest_numbers(self):
        for by_range in (1, 0):
            # A limit makes the recorder keep a descriptor.
            self.same_as_without("service_program", "closes_all", by_range, ways=FEW,
                                 environment={"HEAPFLARE_LIMIT": "1GiB"})  # fmt: skip

    def test_a_service_may_dup_over_all_numbers(self):
        self.same_as_without("service_program", "dups_over_all", ways=FEW,
                             environment={"HEAPFLARE_LIMIT": "1GiB"})  # fmt: skip

    def test_children_inherit_no_descriptor_of_ours(self):
        self.same_as_without("service_program", "lists_descriptors", books=False)


class Users(SurvivalCase):
    @as_root
    def test_our_thread_follows_setuid(self):
        self.same_as_without("service_program", "changes_user", "for_good", ways=FEW)

    @as_root
    def test_our_thread_follows_seteuid_and_back(self):
        self.same_as_without("service_program", "changes_user", "and_back", ways=FEW)

    @as_root
    def test_our_thread_follows_setuid_with_capabilities_kept(self):
        runs = self.same_as_without("service_program", "changes_user", "keep_capabilities", 4500,
                                    ways=[Way()])  # fmt: skip
        for run in runs.values():
            self.assertLess(events_written(run.box_of(run.pid)), 5, "it follows again and again")

    @as_root
    def test_a_process_that_is_not_dumpable_is_profiled(self):
        self.same_as_without("service_program", "not_dumpable", ways=FEW)

    @as_root
    def test_a_user_s_process_that_is_not_dumpable_is_profiled(self):
        self.same_as_without("service_program", "not_dumpable", ways=FEW, user=NOBODY, group=NOBODY,
                             extra_groups=[])  # fmt: skip


def events_written(box):
    """How many events the box has seen: `used` of its ninth region (lib/box/format.h)."""
    with open(box, "rb") as file:
        header = file.read(4096)
    return struct.unpack_from("<5Q", header, 32 + 8 * 40)[3]


class Memory(SurvivalCase):
    @as_root
    def test_mlockall_works(self):
        for flags in (1, 2, 3):
            for way in FEW:
                plain = self.run_program(None, "service_program", "locks_memory", flags,
                                         environment={"ALLOCATOR": way.allocator})  # fmt: skip
                with self.subTest(way=str(way), flags=flags):
                    run = self.run_program(way, "service_program", "locks_memory", flags)
                    self.assertEqual(run.stdout, plain.stdout)
                    self.check_books(self.profile(run.box_of(run.pid)), run.books[run.pid],
                                     way.interval, "service_program")  # fmt: skip
                    self.assertLess(locked(run) - locked(plain), 24 << 20, run.stderr)

    @as_root
    def test_mlockall_of_the_future_within_a_small_limit_works(self):
        # What the service may lock is not ours to take.
        def limit():
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 << 20, 8 << 20))

        plain = self.run_program(None, "service_program", "locks_memory", 2, user=NOBODY,
                                 group=NOBODY, extra_groups=[], preexec_fn=limit)  # fmt: skip
        run = self.run_program(Way(), "service_program", "locks_memory", 2, user=NOBODY,
                               group=NOBODY, extra_groups=[], preexec_fn=limit)  # fmt: skip
        self.assertEqual(run.stdout, plain.stdout)
        self.assertLess(locked(run) - locked(plain), 1 << 20, run.stderr)


def locked(run):
    """VmLck as the program reported it, bytes."""
    line = next(line for line in run.stderr.splitlines() if line.startswith("VmLck:"))
    return int(line.split()[1]) << 10


class Libraries(SurvivalCase):
    def test_blocks_belong_to_the_library_that_was_at_the_address_then(self):
        for pause in (0, 10):
            rounds = (2000 if LONG else 60) if pause == 0 else 4
            runs = self.same_as_without("libraries_program", "same_place", rounds, pause, *PLUGINS,
                                        ways=[Way(), Way("jemalloc"), Way("tcmalloc"), Way("mimalloc")])  # fmt: skip
            for way, run in runs.items():
                with self.subTest(way=str(way), pause=pause):
                    profile = self.profile(run.box_of(run.pid))
                    for index, plugin in enumerate(PLUGINS):
                        name = os.path.basename(plugin)[len("plugin_"):-len(".so")]
                        objects = profile.total("inuse_objects", lambda sample: is_in(
                            profile, sample.locations[0], plugin, f"^AllocateIn{name}$"))  # noqa: B023
                        self.assertEqual(objects, rounds * (index + 1), name)

    def test_a_thread_loads_and_unloads_while_others_allocate(self):
        self.same_as_without("libraries_program", "while_others_allocate", 5000 if LONG else 100,
                             *PLUGINS)  # fmt: skip


class Seen(SurvivalCase):
    def test_our_thread_is_the_only_one_that_others_see_more(self):
        plain = self.run_program(None, "service_program", "counts_threads")
        self.assertIn("named heapflare: 0\n", plain.stderr)
        for way in EVERYWHERE:
            run = self.run_program(way, "service_program", "counts_threads")
            self.assertEqual((run.status, run.stdout), (0, plain.stdout), str(way))
            self.assertIn("named heapflare: 1\n", run.stderr)

    def test_unshare_of_the_user_namespace_fails_as_the_readme_says(self):
        newuser = 0x10000000
        plain = self.run_program(None, "service_program", "unshares", newuser)
        if plain.stdout != "unshare works\n":
            self.skipTest("no user namespaces here: " + plain.stdout)
        run = self.run_program(Way(), "service_program", "unshares", newuser)
        self.assertEqual(run.stdout, "unshare Invalid argument\n")
        run = self.run_program(Way(), "service_program", "unshares", newuser,
                               environment={"HEAPFLARE_PROGRAMS": "another"})  # fmt: skip
        self.assertEqual((run.status, run.stdout), (0, "unshare works\n"))

    def test_other_namespaces_can_be_unshared(self):
        for flags in (0x00020000, 0x04000000, 0x08000000, 0x40000000):  # NEWNS, UTS, IPC, NET
            plain = self.run_program(None, "service_program", "unshares", flags)
            run = self.run_program(Way(), "service_program", "unshares", flags)
            self.assertEqual(run.stdout, plain.stdout, hex(flags))

    @unittest.skipUnless(shutil.which("gdb"), "gdb is not installed")
    def test_gdb_attaches_and_detaches(self):
        for way in (None, Way(end="exit")):
            process = subprocess.Popen(
                [os.path.join(PROGRAMS, "service_program"), "idles"], env=self.environment(way),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
            self.addCleanup(process.communicate)
            self.addCleanup(process.kill)
            self.assertEqual(process.stdout.readline(), "ready\n")
            done = subprocess.run(
                ["gdb", "-p", str(process.pid), "-batch", "-ex", "thread apply all bt"],
                capture_output=True, text=True, timeout=60)  # fmt: skip
            if "ptrace: Operation not permitted" in done.stderr:
                self.skipTest("gdb may not attach here")
            self.assertIn("Idles", done.stdout)
            stdout, _ = process.communicate("x", timeout=30)
            self.assertEqual(process.returncode, 0, stdout)


if __name__ == "__main__":
    main()
