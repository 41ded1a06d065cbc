#!/usr/bin/env python3
"""What `cmake --install` lays out serves a project that knows nothing of this tree: by
find_package, by pkg-config, and as the `heapflare` command. And the linked examples record.

HEAPFLARE_BUILD names the build directory.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "support"))
import heap_profile  # noqa: E402

BUILD = os.path.abspath(os.environ.get("HEAPFLARE_BUILD", "build/release"))
CONSUMER = os.path.join(HERE, "consumer")
# What consumer.cc still holds, per function: (objects, bytes).
HELD = {"consumer::HoldNew": (100, 100_000), "consumer::HoldMalloc": (30, 90_000)}


class Scratch(unittest.TestCase):
    """A directory of the class's own, and an environment in which every allocation is recorded."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="heapflare-install-")
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        inherited = {name: value for name, value in os.environ.items()
                     if not name.startswith("HEAPFLARE_") and name != "LD_PRELOAD"}
        cls.environment = dict(
            inherited, HEAPFLARE_SAMPLE_INTERVAL="1",
            HEAPFLARE_BOX_DIR=os.path.join(cls.directory, "boxes"),
            HEAPFLARE_DIR=os.path.join(cls.directory, "dumps"))

    @classmethod
    def call(cls, *command, **environment):
        """Runs a command that must succeed; what it writes to stdout."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=120,
                              cwd=cls.directory, env=dict(cls.environment, **environment))
        if done.returncode != 0:
            raise AssertionError(f"{command} ended with {done.returncode}:\n"
                                 f"{done.stdout}{done.stderr}")
        return done.stdout

    def named(self, path, heapflare, two_recorders=False):
        """The profile with function names."""
        self.call(heapflare, "symbolize", path, "-o", path + ".named")
        profile = heap_profile.read(path + ".named")
        faults = [fault for fault in heap_profile.heap_faults(profile)
                  if not (two_recorders and fault == "a stack has frames of the recorder itself")]
        self.assertEqual(faults, [])
        return profile

    def total(self, profile, function, kind):
        """Of the samples whose stack goes from that function back to main."""
        def wanted(sample):
            names = [name.split("(")[0] for name in sample.functions()]
            return function in names and "main" in names[names.index(function):]
        return profile.total(kind, wanted)

    def assert_holds(self, profile, held):
        for function, (objects, size) in held.items():
            self.assertEqual(self.total(profile, function, "inuse_objects"), objects, function)
            self.assertEqual(self.total(profile, function, "inuse_space"), size, function)


class Installed(Scratch):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.prefix = os.path.join(cls.directory, "prefix")
        cls.call("cmake", "--install", BUILD, "--prefix", cls.prefix)
        cls.heapflare = os.path.join(cls.prefix, "bin", "heapflare")
        cls.library = os.path.join(cls.prefix, "lib", "libheapflare.so")
        shutil.copytree(CONSUMER, os.path.join(cls.directory, "source"))
        cls.call("cmake", "-S", "source", "-B", "build", "-G", "Ninja",
                 f"-DCMAKE_PREFIX_PATH={cls.prefix}")
        cls.call("cmake", "--build", "build")

    def program(self, name):
        path = os.path.join(self.directory, "build", name)
        if not os.path.exists(path):
            self.skipTest(f"{name}: that allocator's archive is not installed")
        return path

    def assert_records(self, *command, two_recorders=False, **environment):
        """The consumer finds heapflare, and its dump holds what it holds."""
        path = os.path.join(self.directory, self.id() + ".pb.gz")
        output = self.call(*command, path, **environment)
        self.assertEqual(output, "active 1 interval 1 set 0\ndump 0\n")
        self.assert_holds(self.named(path, self.heapflare, two_recorders), HELD)

    def test_lays_out_what_the_readme_says(self):
        for path in ("bin/heapflare", "lib/libheapflare.so", "lib/libheapflare.a",
                     "lib/libheapflare_wrap.a", "include/heapflare/heapflare.h",
                     "lib/cmake/heapflare/heapflareConfig.cmake",
                     "lib/cmake/heapflare/heapflareConfigVersion.cmake",
                     "lib/pkgconfig/heapflare.pc"):
            self.assertTrue(os.path.isfile(os.path.join(self.prefix, path)), path)
        self.assertEqual(sorted(os.listdir(self.prefix)), ["bin", "include", "lib"])
        self.assertEqual(os.listdir(os.path.join(self.prefix, "include")), ["heapflare"])
        self.assertEqual(sorted(os.listdir(os.path.join(self.prefix, "lib"))),
                         ["cmake", "libheapflare.a", "libheapflare.so", "libheapflare_wrap.a",
                          "pkgconfig"])

    def test_installed_package_does_not_mention_where_it_was_built(self):
        for directory, _, files in os.walk(self.prefix):
            for name in files:
                if name.endswith((".cmake", ".pc", ".h")):
                    with open(os.path.join(directory, name), encoding="utf-8") as file:
                        text = file.read()
                    self.assertNotIn(BUILD, text, name)
                    self.assertNotIn(self.prefix, text, name)

    def test_heapflare_linked_into_a_dynamic_program(self):
        self.assert_records(self.program("linked"))

    def test_linked_program_may_be_preloaded_as_well(self):
        # Each records. What the preloaded one allocates while it starts goes through the linked one's
        # hooks, which cannot tell its frames from a library's.
        self.assert_records(self.program("linked"), LD_PRELOAD=self.library, two_recorders=True)

    def test_wrap_linked_into_a_dynamic_program(self):
        self.assert_records(self.program("wrapped"))

    def test_wrap_linked_into_a_static_program(self):
        for name in ("wrapped_static", "wrapped_static_pie"):
            program = self.program(name)
            self.assertNotIn("INTERP", self.call("readelf", "-lW", program))
            self.assert_records(program)

    def test_wrap_linked_with_a_static_jemalloc(self):
        program = self.program("wrapped_jemalloc")
        self.assertRegex(self.call("nm", program), r" T mallocx\n")
        self.assert_records(program)

    def test_wrap_linked_with_a_static_tcmalloc(self):
        program = self.program("wrapped_tcmalloc")
        self.assertRegex(self.call("nm", program), r" [TW] tc_malloc\n")
        self.assert_records(program)

    def test_api_does_nothing_without_the_library(self):
        path = os.path.join(self.directory, "absent.pb.gz")
        output = self.call(self.program("with_api"), path)
        self.assertEqual(output, "active 0 interval 0 set 38\ndump 38\n")
        self.assertFalse(os.path.exists(path))

    def test_api_works_when_the_library_is_preloaded(self):
        self.assert_records(self.program("with_api"), LD_PRELOAD=self.library)

    def test_installed_command_finds_its_library(self):
        self.assert_records(self.heapflare, "run", "--", self.program("with_api"))

    def test_pkg_config_builds_a_program_that_records(self):
        if shutil.which("pkg-config") is None:
            self.skipTest("pkg-config is not installed")
        environment = {"PKG_CONFIG_PATH": os.path.join(self.prefix, "lib", "pkgconfig")}
        version = self.call("pkg-config", "--modversion", "heapflare", **environment)
        self.assertIn(f"heapflare {version}", self.call(self.heapflare, "--version"))
        # As a makefile does it: the shell splits the flags.
        self.call("sh", "-ec", "c++ -O2 -g -o by_pkg_config source/consumer.cc "
                  "$(pkg-config --cflags --libs heapflare)", **environment)
        self.assert_records(os.path.join(self.directory, "by_pkg_config"))

    def test_header_compiles_as_c_and_as_every_cxx(self):
        with open(os.path.join(self.directory, "use.c"), "w", encoding="utf-8") as file:
            file.write("#include <heapflare/heapflare.h>\n"
                       "int main(void) { return heapflare_active() || heapflare_dump(0) != 38; }\n")
        for language, standard in (("c", "c99"), ("c", "c11"), ("c++", "c++98"), ("c++", "c++20")):
            self.call("c++", "-x", language, f"-std={standard}", "-Wall", "-Wextra", "-pedantic",
                      "-Werror", "-I", os.path.join(self.prefix, "include"), "use.c", "-o", "use")
            self.call(os.path.join(self.directory, "use"))


class LinkedExamples(Scratch):
    """build/PRESET/examples/linked_*: each records itself."""

    def check(self, name):
        program = os.path.join(BUILD, "examples", name)
        if not os.path.exists(program):
            self.skipTest(f"{name} was not built: that allocator's archive is not installed")
        path = os.path.join(self.directory, name + ".pb.gz")
        dumps = os.path.join(self.directory, name + ".dumps")
        output = self.call(program, path, HEAPFLARE_DUMP_AT_EXIT="1", HEAPFLARE_DIR=dumps)
        self.assertEqual(output, "recording: yes, one sample per 1 bytes\n"
                         f"200000 words, 2000 blocks; profile: {path}\n")
        heapflare = os.path.join(BUILD, "bin", "heapflare")
        profile = self.named(path, heapflare)
        # The blocks, and the buffer of the vector that knows them.
        self.assert_holds(profile, {"linked::Remember": (2001, 2000 * 4096 + 2048 * 8),
                                    "linked::Work": (0, 0)})
        # 100 strings, and the vector that grows to hold them: 1, 2, 4, ... 128.
        self.assertEqual(self.total(profile, "linked::Work", "alloc_objects"), 2000 * 108)
        # At exit the vector is gone, but not the blocks.
        self.assertEqual(len(os.listdir(dumps)), 1)
        last = os.path.join(dumps, os.listdir(dumps)[0])
        self.assertRegex(last, rf"/{name}\.\d+\.\d+\.0002\.exit\.pb\.gz$")
        self.assert_holds(self.named(last, heapflare), {"linked::Remember": (2000, 2000 * 4096)})
        boxes = [box for box in os.listdir(os.path.join(self.directory, "boxes"))
                 if box.startswith(name)]
        self.assertEqual(boxes, [], "a clean exit leaves no box")

    def test_linked_dynamically(self):
        self.check("linked_dynamic")

    def test_linked_statically(self):
        self.check("linked_static")

    def test_linked_with_static_jemalloc(self):
        self.check("linked_jemalloc")

    def test_linked_with_static_tcmalloc(self):
        self.check("linked_tcmalloc")


if __name__ == "__main__":
    missing = [tool for tool in ("cmake", "ninja", "c++", "nm") if shutil.which(tool) is None]
    if missing:
        print(f"install_test.py: {missing[0]} is not installed; skipped")
        sys.exit(77)
    unittest.main()
