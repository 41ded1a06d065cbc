#!/usr/bin/env python3
"""At interval 1 the profile is the program's own books: every block, every byte, live and total.

Eight threads allocate, reallocate and free in every way there is, most blocks on another thread
than the one that allocated them. Nothing is left to chance in the comparison.
"""

import subprocess
import unittest

from preloaded import Functions, Surroundings, program, read

WORKLOAD = program("exact_workload")
THREADS = 8


ALLOCATORS = ("libjemalloc.so.2", "libtcmalloc.so.4", "libmimalloc.so.2")


def installed(library):
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True).stdout
    return f"{library} " in listed


class Exact(unittest.TestCase):
    def check(self, operations, **settings):
        with Surroundings() as surroundings:
            path = surroundings.path("exact.pb.gz")
            output = surroundings.run(
                WORKLOAD, path, str(operations), str(THREADS), "1", interval=1, **settings)
            profile = read(path)
        sums = Functions(WORKLOAD).sums(profile)
        allocations = 0
        for line in output.splitlines():
            function, *truth = line.split()
            with self.subTest(function):
                self.assertEqual(sums.get(function, [0] * 4), list(map(int, truth)))
                if function == "workload_like_null":
                    continue
                self.assertGreater(int(truth[0]), operations / 200, "it was hardly called")
                self.assertGreater(int(truth[2]), 0, "nothing of it is live")
                allocations += int(truth[0])
        self.assertGreater(allocations, operations / 2)
        for comment in profile.comments:
            self.assertFalse(comment.startswith(("lost", "thinned")), comment)
        self.assertIn("no sampling error", " ".join(profile.comments))

    def test_live_and_total_counts_equal_the_programs_own_books(self):
        self.check(10_000_000)

    def test_so_they_do_with_other_allocators(self):
        for library in ALLOCATORS:
            with self.subTest(library):
                if not installed(library):
                    self.skipTest(f"{library} is not installed")
                self.check(500_000, allocator=library)


if __name__ == "__main__":
    unittest.main()
