#!/usr/bin/env python3
"""Profiles get the names that debug information has, and only from the right files.

The oracle is llvm-symbolizer, which shares nothing with what heapflare uses (elfutils). The program
is compiled in every shape in which debug information is found: see `shapes`. HEAPFLARE_BUILD names
the build directory; HEAPFLARE_SOURCE the source tree.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import heap_profile
from profiled import LIBRARY, PATIENCE, ProfiledTest, needs

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "symbols_program.cc")
INLINED = ["Inner", "Middle"]


def run(*command, **options):
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE, **options)


def plain(name):
    """A function's name without its type, parameters, template arguments and what it is in."""
    name = name.replace("(anonymous namespace)::", "")
    while (shorter := re.sub(r"<[^<>]*>", "", name)) != name:
        name = shorter
    return name.partition("(")[0].rpartition("::")[2].split(" ")[-1]


def demangled(name):
    return subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout


class SymbolsTest(ProfiledTest):
    def setUp(self):
        super().setUp()
        self.cache = self.path("cache")
        for environment in (self.environment, self.clean):
            environment.pop("DEBUGINFOD_URLS", None)
            environment["HEAPFLARE_SYMBOL_CACHE"] = self.cache

    def compile(self, name, *options, compiler="g++"):
        program = self.path(name)
        run(compiler, "-std=c++20", "-O2", "-g", *options, SOURCE, "-o", program,
            cwd=self.directory)
        return program

    def started_program(self, program, *command):
        process = self.start([*command, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             env=dict(self.with_settings(SAMPLE_INTERVAL=1), LD_PRELOAD=LIBRARY))
        self.assertEqual(process.stdout.readline(), b"ready\n")
        return process

    def dump_of(self, target, *options):
        path = self.path("dumped.pb.gz")
        result = self.heapflare("dump", str(target), "-o", path, *options)
        self.assertEqual(result.returncode, 0, result)
        profile = heap_profile.read(path)
        self.assertEqual(heap_profile.heap_faults(profile), [])
        return profile

    def box_of(self, program):
        """What a process that was killed left."""
        process = self.started_program(program)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        return next(path for path in self.box_files() if f".{process.pid}." in path)

    @staticmethod
    def of_program(profile, program):
        ids = {m.id for m in profile.mappings if m.file == program}
        return [l for l in profile.locations if l.mapping_id in ids]

    def check_names(self, profile, program, what=""):
        """The names that a reader looks for are there, inlined ones in their order."""
        stacks = [[plain(name) for name in sample.functions()] for sample in profile.samples]
        for wanted in ([*INLINED, "Fill", "main"], ["Insert", "main"], ["plain_c", "main"]):
            found = any(stack[i:i + len(wanted)] == wanted
                        for stack in stacks for i in range(len(stack)))
            self.assertTrue(found, f"{what}: {wanted} in {stacks[:10]}")
        self.assertTrue(self.of_program(profile, program))

    @needs("llvm-symbolizer", "clang++", "dwz", "objcopy")
    def test_every_shape_of_debug_information_gives_what_llvm_symbolizer_says(self):
        shapes = {
            "gcc": self.compile("gcc"),
            "clang": self.compile("clang", compiler="clang++"),
            "not_optimized": self.compile("not_optimized", "-O0"),
            "dwarf4": self.compile("dwarf4", "-gdwarf-4", "-fdebug-types-section"),
            "compressed": self.compile("compressed", "-gz"),
            "split": self.compile("split", "-gsplit-dwarf"),
            "split_clang": self.compile("split_clang", "-gsplit-dwarf", compiler="clang++"),
            "not_pie": self.compile("not_pie", "-no-pie"),
            "dwz": self.compile("dwz"),
        }
        run("dwz", shapes["dwz"])
        for shape, program in shapes.items():
            with self.subTest(shape):
                profile = self.dump_of(self.box_of(program))
                self.check_names(profile, program, shape)
                self.check_against_llvm(profile, program)

    def check_against_llvm(self, profile, program):
        mapping = next(m for m in profile.mappings if m.file == program)
        # llvm-symbolizer wants the file's addresses, a mapping has its offsets.
        headers = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True,
                                 check=True).stdout
        offset, address = next((int(fields[1], 16), int(fields[2], 16)) for fields in
                               (line.split() for line in headers.splitlines())
                               if fields[:1] == ["LOAD"] and "E" in fields[6:8])
        compared = 0
        for location in self.of_program(profile, program):
            at = location.address - mapping.start + mapping.offset - offset + address
            said = json.loads(subprocess.run(
                ["llvm-symbolizer", "--inlining", "--functions=linkage", "--output-style=JSON",
                 "-e", program, hex(at)], capture_output=True, text=True, check=True).stdout)
            wanted = [(frame["FunctionName"], frame["FileName"], frame["Line"])
                      for frame in said[0]["Symbol"]]
            if not wanted or not wanted[0][1]:
                continue  # start-up code, without debug information
            self.assertEqual([line[1:] for line in location.lines],
                             [line[1:] for line in wanted], hex(at))
            for name, (ours, _, _), (theirs, _, _) in zip(location.functions, location.lines,
                                                          wanted):
                # Where there is no linkage name, ours has the classes and theirs has not, or has the
                # symbol table's; where a declaration lies in a type unit, only ours has one.
                if ours.startswith("_Z") and theirs.startswith("_Z"):
                    self.assertEqual(ours, theirs, hex(at))
                else:
                    self.assertIn(plain(name), demangled(theirs), hex(at))
            compared += 1
        self.assertGreater(compared, 5)

    @needs("objcopy", "strip")
    def test_debug_information_of_its_own_is_found_by_the_link_in_the_binary(self):
        program = self.compile("linked")
        debug = self.path("elsewhere.debug")
        run("objcopy", "--only-keep-debug", program, debug)
        run("strip", program)
        stripped = self.dump_of(self.box_of(program))
        self.assertFalse(any(plain(name) in INLINED for sample in stripped.samples
                             for name in sample.functions()))
        run("objcopy", f"--add-gnu-debuglink={debug}", program)
        self.check_names(self.dump_of(self.box_of(program)), program)

    def test_a_file_with_another_build_id_is_never_used(self):
        program = self.compile("changed")
        box = self.box_of(program)
        run("g++", "-std=c++20", "-O0", "-g", SOURCE, "-o", program)
        for location in self.of_program(self.dump_of(box), program):
            self.assertRegex(location.functions[0], r"^changed!0x[0-9a-f]+$")
            self.assertEqual(len(location.functions), 1)

    def test_a_dump_has_the_same_functions_where_the_binary_is_not(self):
        program = self.compile("gone")
        box = self.box_of(program)
        dumped = self.path("kept.pb.gz")
        self.assertEqual(self.heapflare("dump", box, "-o", dumped).returncode, 0)
        before = subprocess.run(["go", "tool", "pprof", "-top", "-lines", "-nodefraction=0", dumped],
                                capture_output=True, text=True, check=True).stdout
        os.remove(program)
        after = subprocess.run(["go", "tool", "pprof", "-top", "-lines", "-nodefraction=0", dumped],
                               capture_output=True, text=True, check=True).stdout
        self.assertEqual(before, after)
        self.assertIn("plain_c", after)
        # What was found once is kept by build id; without that, every location still has a line.
        self.check_names(self.dump_of(box), program, "from the cache")
        self.environment["HEAPFLARE_SYMBOL_CACHE"] = ""
        for location in self.of_program(self.dump_of(box), program):
            self.assertRegex(location.functions[0], r"^gone!0x[0-9a-f]+$")
        for location in self.of_program(self.dump_of(box, "--no-symbols"), program):
            self.assertEqual(location.functions, [])

    def test_a_damaged_cache_is_ignored_and_written_anew(self):
        program = self.compile("cached")
        box = self.box_of(program)
        self.dump_of(box)
        files = self.files(self.cache, ".symbols")
        self.assertTrue(files)
        for damage in (b"", b"\xff" * 100, os.urandom(5000)):
            for path in files:
                with open(path, "wb") as file:
                    file.write(damage)
            self.check_names(self.dump_of(box), program)
        os.remove(program)
        self.check_names(self.dump_of(box), program, "written anew")

    def test_a_living_process_shows_the_files_it_has_deleted(self):
        program = self.compile("deleted")
        process = self.started_program(program)
        os.remove(program)
        self.check_names(self.dump_of(process.pid), program)

    @unittest.skipIf(os.geteuid() != 0, "needs root, for a mount namespace")
    @needs("unshare", "mount")
    def test_a_living_process_is_read_in_its_own_root(self):
        program = self.compile("inside")
        hidden = self.path("hidden")
        os.mkdir(hidden)
        process = self.started_program(
            f"{hidden}/inside", "unshare", "--mount", "sh", "-c",
            f'mount -t tmpfs none {hidden} && cp {program} {hidden}/ && exec "$0"')
        os.remove(program)
        self.assertEqual(os.listdir(hidden), [])
        box = next(path for path in self.box_files() if "/inside." in path)
        pid = int(os.path.basename(box).split(".")[1])
        self.assertEqual(pid, process.pid)
        self.check_names(self.dump_of(pid), f"{hidden}/inside")

    @unittest.skipUnless(os.uname().machine == "x86_64", "has machine code for x86_64")
    def test_compiled_code_gets_its_name_from_the_map_of_its_process(self):
        program = self.compile("compiles")
        process = self.started_program(program)
        self.addCleanup(os.remove, f"/tmp/perf-{process.pid}.map")
        profile = self.dump_of(process.pid)
        self.assertTrue(any("script:render" in sample.functions() for sample in profile.samples))

    @needs("debuginfod", "strip")
    def test_debuginfod_is_asked_where_it_is_configured(self):
        program = self.compile("served")
        box = self.box_of(program)
        os.mkdir(self.path("store"))
        os.rename(program, self.path("store/served"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = self.start(
            ["debuginfod", "-p", str(port), "-d", ":memory:", "-t", "1", "-F", self.path("store")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.environment.update(DEBUGINFOD_URLS=f"http://127.0.0.1:{port}",
                                DEBUGINFOD_CACHE_PATH=self.path("fetched"),
                                DEBUGINFOD_TIMEOUT="20", HEAPFLARE_SYMBOL_CACHE="")

        def named():
            # What the server had not yet is remembered as missing.
            shutil.rmtree(self.path("fetched"), ignore_errors=True)
            locations = self.of_program(self.dump_of(box), program)
            return any("plain_c" in location.functions for location in locations)

        self.wait_until(named, "names from debuginfod")
        self.assertIsNone(server.poll())
        self.check_names(self.dump_of(box), program)


if __name__ == "__main__":
    unittest.main(verbosity=2)
