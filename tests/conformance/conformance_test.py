#!/usr/bin/env python3
"""The malloc contract, held differentially: the same programs give the same results with and
without heapflare, on top of each allocator, with every allocation recorded and at the usual interval.

What a program prints are observations: no addresses, nothing that depends on chance. Not the
standard is the measure but the allocator itself: several of them break the standard here and there,
and services rely on what they have. Where an allocator by itself crashes or has no such function,
the test says so.

Lines of two kinds speak of the profile: "held FUNCTION OBJECTS BYTES" is what that function
allocated and nobody freed, to be seen exactly once; "freed FUNCTION" has nothing left.

HEAPFLARE_BUILD names the build directory.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "support"))
import heap_profile  # noqa: E402

BUILD = os.path.abspath(os.environ.get("HEAPFLARE_BUILD", "build/release"))
LIBRARY = os.path.join(BUILD, "lib", "libheapflare.so")
HEAPFLARE = os.path.join(BUILD, "bin", "heapflare")
PROGRAMS = os.path.join(BUILD, "tests", "conformance")

# As their packages name them; found as the loader finds them.
ALLOCATORS = {
    "glibc": [],
    "jemalloc": ["libjemalloc.so.2"],
    "tcmalloc": ["libtcmalloc.so.4"],
    "mimalloc": ["libmimalloc.so.2", "libmimalloc.so.2.0"],
}
EXACT, USUAL = "1", "512KiB"


def preload_of(allocator):
    """What to preload for the allocator: a list; None if it is not installed."""
    names = ALLOCATORS[allocator]
    for name in names:
        done = subprocess.run(["/bin/true"], env={"LD_PRELOAD": name}, capture_output=True)
        if not done.stderr:
            return [name]
    return None if names else []


def built(name):
    return os.path.join(PROGRAMS, name)


class Conformance(unittest.TestCase):
    maxDiff = 4000

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="heapflare-conformance-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.runs = 0

    def run_program(self, command, preload=(), interval=None, linked=False, **environment):
        """Runs it; (exit status, stdout, stderr). With an interval, heapflare comes first."""
        self.runs += 1
        self.dumps = os.path.join(self.directory, f"dumps{self.runs}")
        inherited = {name: value for name, value in os.environ.items()
                     if not name.startswith("HEAPFLARE_")}
        libraries = list(preload)
        if interval is not None:
            if LIBRARY not in libraries and not linked:
                libraries.insert(0, LIBRARY)
            inherited.update(HEAPFLARE_SAMPLE_INTERVAL=interval, HEAPFLARE_DUMP_AT_EXIT="1",
                             HEAPFLARE_DIR=self.dumps, HEAPFLARE_THRESHOLDS="",
                             HEAPFLARE_BOX_DIR=os.path.join(self.directory, "boxes"))
        inherited.update(environment, LD_PRELOAD=" ".join(libraries))
        done = subprocess.run(command, env=inherited, capture_output=True, text=True, timeout=60,
                              cwd=self.directory)
        return done.returncode, done.stdout, done.stderr

    def profile(self):
        """The exit's profile of the last run, with function names."""
        # A request that cannot be met may have left a dump of its own, if we were watching already.
        files = [name for name in os.listdir(self.dumps) if name.endswith(".exit.pb.gz")]
        self.assertEqual(len(files), 1, os.listdir(self.dumps))
        path = os.path.join(self.dumps, files[0])
        named = path + ".named"
        subprocess.run([HEAPFLARE, "symbolize", path, "-o", named], check=True, capture_output=True)
        return heap_profile.read(named)

    def check_profile(self, output):
        """Holds the profile of the last run to the program's own lines."""
        profile = self.profile()

        def total(function, kind):
            pattern = re.compile(rf"(?:^|::){function}(?:\(|$)")
            return profile.total(kind, lambda sample: any(
                pattern.search(name) for name in sample.functions()))

        lines = 0
        for line in output.splitlines():
            words = line.split()
            if line.startswith("held "):
                lines += 1
                seen = (total(words[1], "inuse_objects"), total(words[1], "inuse_space"))
                self.assertEqual(seen, (int(words[2]), int(words[3])), words[1])
            elif line.startswith("freed "):
                lines += 1
                self.assertEqual(total(words[1], "inuse_space"), 0, words[1])
                self.assertGreater(total(words[1], "alloc_objects"), 0, words[1])
        self.assertGreater(lines, 0, "the program says nothing of the profile")

    def same(self, command, allocators=ALLOCATORS, status=0, after=(), holds=True, **environment):
        """The program behaves the same with and without heapflare; returns {allocator: output}.
        `after`: libraries that are preloaded after heapflare, and without it. `holds`: check the
        profile of the run in which every allocation was recorded."""
        outputs = {}
        for allocator in allocators:
            libraries = preload_of(allocator)
            if libraries is None:
                continue
            with self.subTest(allocator=allocator):
                libraries = [*after, *libraries]
                plain = self.run_program(command, libraries, **environment)
                self.assertEqual(plain[0], status, plain)
                outputs[allocator] = plain[1]
                for interval in (USUAL, EXACT):
                    with_us = self.run_program(command, libraries, interval, **environment)
                    self.assertEqual(with_us, plain, f"interval {interval}")
                if holds:
                    self.check_profile(plain[1])
        return outputs


class Functions(Conformance):
    def test_every_function_of_malloc_behaves_as_without_us(self):
        for allocator, output in self.same([built("c_contract")], holds=False).items():
            # What no allocator gets wrong; else the program would be at fault.
            for line in ("realloc kept contents 1", "free keeps errno 1", "calloc zeroes 1",
                         "storm intact 1", "usable size of NULL 0"):
                self.assertIn(line + "\n", output, allocator)

    def test_it_does_not_matter_when_functions_are_bound(self):
        lazy = self.same([built("c_contract")], ["glibc"], holds=False)
        now = self.same([built("c_contract_now")], ["glibc"], holds=False)
        forced = self.same([built("c_contract")], ["glibc"], holds=False, LD_BIND_NOW="1")
        self.assertEqual(lazy, now)
        self.assertEqual(lazy, forced)

    def test_pvalloc(self):
        self.same([built("c_contract"), "pvalloc"], ["glibc", "tcmalloc", "mimalloc"], holds=False)

    def test_pvalloc_of_an_allocator_that_has_none_is_not_libcs(self):
        # Debian's jemalloc has no pvalloc: by itself, libc's block reaches jemalloc's
        # malloc_usable_size and free, and the program crashes. With us it is made from memalign.
        libraries = preload_of("jemalloc")
        if libraries is None:
            self.skipTest("jemalloc is not installed")
        command = [built("c_contract"), "pvalloc"]
        self.assertIn(self.run_program(command, libraries)[0],
                      (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS))
        for interval in (USUAL, EXACT):
            status, output, errors = self.run_program(command, libraries, interval)
            self.assertEqual((status, errors), (0, ""), output)
            self.assertIn("a whole page 1\n", output)
            self.assertNotIn("aligned 0", output)


class Operators(Conformance):
    def test_every_form_of_new_is_seen_once_and_of_delete_too(self):
        self.same([built("cxx_contract")])

    def test_allocator_that_lacks_some_forms(self):
        for program in ("cxx_contract", "own_new_every_form", "own_new"):
            self.same([built(program)], ["glibc"], after=[built("libsibling_allocator.so")])

    def test_new_handlers_are_called_and_may_throw_jump_or_make_room(self):
        # Debian's mimalloc is compiled as C, and aborts in a new that fails.
        self.same([built("cxx_contract"), "out-of-memory"], ["glibc", "jemalloc", "tcmalloc"],
                  holds=False)
        self.same([built("cxx_contract"), "out-of-memory"], ["mimalloc"], -signal.SIGABRT,
                  holds=False)

    def test_handler_that_throws_in_nothrow_new(self):
        # libstdc++ catches everything; jemalloc and tcmalloc only bad_alloc: they terminate.
        command = [built("cxx_contract"), "nothrow-handler-throws"]
        self.same(command, ["glibc"], holds=False)
        self.same(command, ["jemalloc", "tcmalloc"], -signal.SIGABRT, holds=False)
        # Nor does mimalloc call it.
        self.same(command, ["mimalloc"], holds=False)

    def test_program_that_replaces_every_operator(self):
        for output in self.same([built("own_new_every_form")]).values():
            self.assertIn("balance 0 foreign 0\n", output)

    def test_program_that_replaces_new_and_delete_may_link_us(self):
        plain = self.run_program([built("own_new")])
        self.assertEqual(self.run_program([built("own_new_linked")], (), EXACT, linked=True), plain)
        self.check_profile(plain[1])

    def test_program_that_replaces_new_and_delete_of_which_the_runtime_makes_the_rest(self):
        outputs = self.same([built("own_new")])
        self.assertIn("balance 0 foreign 0\n", outputs["glibc"])
        # Other allocators make the other forms themselves: so the program's delete meets blocks
        # that are not its own, with us and without.
        outputs.pop("glibc")
        for output in outputs.values():
            self.assertRegex(output, r"balance 0 foreign [1-9]")


class Exceptions(Conformance):
    def test_exception_from_inside_malloc_passes_through(self):
        # On top of glibc alone: the sibling defines malloc only, and its free would be another's.
        self.same([built("throw_through")], ["glibc"], after=[built("libsibling_malloc.so")])


class Lifetimes(Conformance):
    def test_allocation_before_main_in_ending_threads_and_after_main(self):
        for output in self.same([built("lifetimes")]).values():
            self.assertIn("after all destructors\n", output)
            self.assertIn("before main 2, library 1", output)


class Loading(Conformance):
    def test_plugin_that_prefers_its_own_symbols(self):
        command = [built("loader"), "deepbind", built("libplugin.so")]
        self.same(command, holds=False)
        # Blocks that change sides are libc's on both sides only with glibc's malloc.
        command[1] = "deepbind-cross"
        self.same(command, ["glibc"], holds=False)

    def test_plugin_in_a_name_space_of_its_own(self):
        self.same([built("loader"), "dlmopen", built("libplugin.so")], holds=False)

    def copies_of_tls_library(self, count):
        paths = [os.path.join(self.directory, f"libtls{i}.so") for i in range(count)]
        for path in paths:
            shutil.copy(built("libplugin_tls.so"), path)
        return paths

    def test_static_thread_local_storage_is_left_for_others(self):
        outputs = self.same([built("loader"), "tls", *self.copies_of_tls_library(40)], holds=False)
        # It does run out.
        self.assertRegex(outputs["glibc"], r"loaded ([1-9]|[123]\d) of 40\nrefused 1\n")

    def test_program_with_many_such_libraries_from_the_start(self):
        self.same([built("lifetimes")], after=self.copies_of_tls_library(40))

    def test_program_at_a_fixed_address_that_calls_by_address(self):
        self.same([built("loader_fixed"), "fixed-address"])

    def test_sibling_that_allocates_inside_dlsym(self):
        self.same([built("own_new")], after=[built("libsibling_dlsym.so")])
        # In front of us it is who asks for the next malloc, which is ours.
        command = [built("own_new")]
        sibling = built("libsibling_dlsym.so")
        plain = self.run_program(command, [sibling])
        self.assertEqual(self.run_program(command, [sibling, LIBRARY], EXACT), plain)
        self.check_profile(plain[1])


class OtherMallocs(Conformance):
    def untouched(self, command, preload, says):
        plain = self.run_program(command, [name for name in preload if name != LIBRARY])
        for interval in (USUAL, EXACT):
            status, output, errors = self.run_program(command, preload, interval)
            self.assertEqual((status, output), plain[:2])
            self.assertRegex(errors, rf"^heapflare: {says}.*\n$")
            self.assertFalse(os.path.exists(self.dumps))

    def test_program_with_a_malloc_of_its_own_runs_untouched(self):
        self.untouched([built("own_malloc")], [LIBRARY], "this program has a malloc of its own")

    def test_library_whose_malloc_comes_before_ours_is_named(self):
        sibling = built("libsibling_malloc.so")
        self.untouched([built("lifetimes")], [sibling, LIBRARY], rf".*{re.escape(sibling)}.* first")
        jemalloc = preload_of("jemalloc")
        if jemalloc:
            self.untouched([built("lifetimes")], [*jemalloc, LIBRARY], r".*libjemalloc.* first")


if __name__ == "__main__":
    missing = [path for path in (LIBRARY, HEAPFLARE, built("c_contract"))
               if not os.path.exists(path)]
    if missing:
        print(f"conformance_test.py: {missing[0]} was not built; skipped")
        sys.exit(77)
    absent = [name for name in ALLOCATORS if preload_of(name) is None]
    if absent:
        print(f"conformance_test.py: not installed, left out: {', '.join(absent)}")
    unittest.main()
