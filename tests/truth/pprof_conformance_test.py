#!/usr/bin/env python3
"""Profiles are what pprof's readers expect: our lint, `go tool pprof` in its report forms, and the
npm package pprof-format; and differences of profiles come out right.

Reads real profiles of a program that counts exactly. The npm package is installed into the build
directory.
"""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import types
import unittest

from preloaded import BUILD, COMMAND, Functions, Growth, Surroundings, heap_profile, read

GROWTH = Growth.PROGRAM
PPROF_FORMAT = "pprof-format@2.3.2"
HERE = os.path.dirname(os.path.abspath(__file__))


def pprof(*arguments, check=True):
    environment = dict(os.environ, PPROF_TMPDIR="/nonexistent", HOME="/nonexistent")
    done = subprocess.run(["go", "tool", "pprof", *arguments], capture_output=True, text=True,
                          timeout=300, env=environment, errors="replace")
    if check and done.returncode != 0:
        raise AssertionError(f"go tool pprof {' '.join(arguments)}: {done.stderr}")
    return done


def flat(text):
    """{function: first column} of a -top report with -unit=B, which pprof puts behind counts too."""
    rows = re.findall(r"^\s*(-?\d+)B?\s+\S+%\s+\S+%\s+\S+\s+\S+%\s+(\S+)", text, re.MULTILINE)
    return {function: int(value) for value, function in rows}


class Conformance(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.surroundings = Surroundings().__enter__()
        cls.addClassCleanup(cls.surroundings.__exit__)
        # The one is alive, the other was killed and its box is left.
        cls.alive = Growth(cls.surroundings, "alive", interval=1)
        cls.addClassCleanup(cls.alive.end)
        cls.dead = Growth(cls.surroundings, "dead", interval=1)
        cls.dead.end()
        cls.box = cls.dead.box()

    def dump(self, name, *options):
        """What `heapflare dump` makes of the dead process's box."""
        path = self.surroundings.path(name)
        subprocess.run([COMMAND, "dump", self.box, "-o", path, *options], check=True,
                       capture_output=True, timeout=60)
        return path

    # --- our lint ---

    def test_dumps_of_the_process_and_of_its_box_have_no_faults(self):
        recovered = self.dump("recovered.pb.gz")
        symbolized = self.surroundings.path("symbolized.pb.gz")
        subprocess.run([COMMAND, "symbolize", recovered, "-o", symbolized], check=True,
                       capture_output=True, timeout=60)
        for path in (self.alive.first, self.alive.second, recovered, symbolized):
            with open(path, "rb") as file:
                self.assertEqual(file.read(2), b"\x1f\x8b", "gzip")
            profile = read(path)
            self.assertEqual(heap_profile.heap_faults(profile), [], path)
            self.assertEqual(os.path.realpath(profile.mappings[0].file), os.path.realpath(GROWTH))
            self.assertRegex(profile.mappings[0].build_id, "^[0-9a-f]{40}$")
            self.assertEqual(profile.period, 1)
        self.assertEqual(Functions(GROWTH).sums(read(recovered)),
                         Functions(GROWTH).sums(read(self.alive.second)))

    def test_profiles_of_a_program_with_many_libraries_have_no_faults(self):
        script = "import json, sqlite3, ssl, unittest; kept = [str(i) * 50 for i in range(20000)]"
        for settings in ({}, {"HEAPFLARE_MAX_STACK": "4"},
                         {"HEAPFLARE_SAMPLE_INTERVAL": "512", "HEAPFLARE_BOX_SIZE": "1MiB"}):
            with Surroundings() as own:
                environment = dict(own.environment(interval=8192), HEAPFLARE_DUMP_AT_EXIT="1",
                                   **settings)
                subprocess.run([sys.executable, "-c", script], env=environment, check=True,
                               capture_output=True, timeout=120)
                names = [name for name in os.listdir(own.dumps) if name.endswith(".pb.gz")]
                self.assertEqual(len(names), 1, names)
                profile = read(os.path.join(own.dumps, names[0]))
                self.assertEqual(heap_profile.heap_faults(profile), [], settings)
                self.assertGreater(len(profile.samples), 20)

    def test_the_lint_sees_each_kind_of_fault(self):
        good = read(self.alive.second)
        self.assertEqual(heap_profile.heap_faults(good), [])
        def unknown_period(p): p.period_type = ("heap", "bytes")
        def swapped_types(p): p.sample_types.reverse()
        def skipped_location(p): p.locations[1].id += 1
        def skipped_mapping(p): p.mappings[-1].id += 1
        def skipped_function(p): p.function_ids[0] = 7
        def outside(p): p.locations[0].address = p.mappings[0].limit
        def same_address(p): p.locations[0].address = p.locations[1].address
        def no_mapping(p): p.locations[0].mapping_id = 0
        def unaligned(p): p.mappings[0].offset += 8
        def deleted(p): p.mappings[0].file += " (deleted)"
        def upper_case(p): p.mappings[0].build_id = "AB"
        def overlapping(p): p.mappings[1].start = p.mappings[0].start
        def foreign_first(p): p.mappings[0].file = "[vdso]"
        def negative(p): p.samples[0].values[2] = -1
        def zero(p): p.samples[0].values[:] = [0] * 4
        def more_live(p): p.samples[0].values[:] = [1, 1, 2, 1]
        def twice(p): p.samples.append(copy.deepcopy(p.samples[0]))
        def no_stack(p): p.samples[0].locations.clear()
        def own_frame(p): p.mappings[0].file = "/usr/lib/libheapflare.so"
        def no_time(p): p.time_nanos = 0
        def duration(p): p.duration_nanos = 1
        def unit(p): p.samples[0].label_units["bytes"] = "count"
        def half_symbolized(p): p.mappings[0].has_functions = True
        def drops(p): p.drop_frames = "malloc"
        def alloc_space(p): p.default_type = "alloc_space"
        for break_it in [f for f in locals().values() if isinstance(f, types.FunctionType)]:
            bad = copy.deepcopy(good)
            break_it(bad)
            self.assertNotEqual(heap_profile.heap_faults(bad), [], break_it.__name__)

    def test_addresses_lie_in_the_calls_not_behind_them(self):
        listed = subprocess.run(["objdump", "-d", "--no-show-raw-insn", GROWTH], check=True,
                                capture_output=True, text=True).stdout
        code = re.findall(r"^\s*([0-9a-f]+):\s+(\S+)", listed, re.MULTILINE)
        returns = {int(after, 16) for (_, call), (after, _) in zip(code, code[1:])
                   if call.startswith("call")}
        functions = Functions(GROWTH)
        profile = read(self.alive.second)
        addresses = [functions.address(profile, location) for location in profile.locations]
        addresses = [address for address in addresses if address is not None]
        self.assertGreater(len(addresses), 6)
        for address in addresses:
            self.assertIn(address + 1, returns, hex(address))

    # --- go tool pprof ---

    def test_go_reads_it_in_every_report_form(self):
        path = self.alive.second
        live = {"workload_steady": 2_000_000, "workload_grows": 5_000_100,
                "workload_shrinks": 1_500_000}
        shown = {  # what the report must have besides the functions' names
            "-top": "flat%", "-text": "flat%", "-tree": "calls%", "-traces": "bytes:",
            "-peek=workload_": "calls%", "-list=workload_grows": "ROUTINE", "-dot": "digraph",
            "-raw": "Mappings", "-callgrind": "events:", "-topproto": None, "-proto": None,
            "-tags": "bytes",
        }
        for form, text in shown.items():
            with self.subTest(form):
                output = self.surroundings.path("report")
                pprof(form, f"-output={output}", GROWTH, path)
                with open(output, "rb") as file:
                    report = file.read()
                if text is None:
                    self.assertTrue(heap_profile.parse(report).samples)
                    continue
                self.assertIn(text, report.decode())
                if form not in ("-tags", "-list=workload_grows"):
                    for function in live:
                        self.assertIn(function, report.decode())
        for number, sample_type in enumerate(
                ("alloc_objects", "alloc_space", "inuse_objects", "inuse_space")):
            sums = Functions(GROWTH).sums(read(path))
            shown = flat(pprof("-text", "-unit=B", f"-sample_index={sample_type}", GROWTH,
                               path).stdout)
            for function in live:
                self.assertEqual(shown[function], sums[function][number],
                                 (sample_type, function))
                if sample_type == "inuse_space":
                    self.assertEqual(sums[function][number], live[function])
        # Nobody named a sample type: the last one.
        self.assertEqual(flat(pprof("-top", "-unit=B", GROWTH, path).stdout),
                         flat(pprof("-top", "-unit=B", "-sample_index=inuse_space", GROWTH,
                                    path).stdout))

    @unittest.skipUnless(shutil.which("dot"), "graphviz, which -svg needs, is not installed")
    def test_go_draws_it(self):
        svg = pprof("-svg", "-output=/dev/stdout", GROWTH, self.alive.second).stdout
        self.assertIn("workload_grows", svg)

    # --- differences ---

    def difference(self, base, path, *options):
        return flat(pprof("-top", "-unit=B", *options, f"-diff_base={base}", GROWTH, path).stdout)

    def test_a_profile_against_itself_has_no_rows(self):
        for sample_type in ("alloc_objects", "alloc_space", "inuse_objects", "inuse_space"):
            self.assertEqual(self.difference(self.alive.first, self.alive.first,
                                             f"-sample_index={sample_type}"), {})

    def check_growth(self, base, path):
        def rows(*options):
            # Without the callers, which have nothing of their own.
            done = pprof("-top", "-unit=B", *options, GROWTH, path)
            return {name: value for name, value in flat(done.stdout).items() if value != 0}

        grown = {"workload_grows": 5_000_000}
        for option in (f"-diff_base={base}", f"-base={base}"):
            self.assertEqual(rows(option), {**grown, "workload_shrinks": -1_500_000})
            self.assertEqual(rows(option, "-sample_index=alloc_space"), grown)
            self.assertEqual(rows(option, "-sample_index=inuse_objects"),
                             {"workload_grows": 1000, "workload_shrinks": -500})

    def test_two_dumps_of_one_process_differ_by_what_happened_between(self):
        self.check_growth(self.alive.first, self.alive.second)

    def test_two_runs_at_different_addresses_compare_stack_by_stack(self):
        starts = [read(holder.first).mappings[0].start for holder in (self.alive, self.dead)]
        if starts[0] == starts[1]:
            self.skipTest("both runs were loaded at the same address (no randomization here)")
        self.assertEqual(self.difference(self.alive.first, self.dead.first), {})
        self.check_growth(self.alive.first, self.dead.second)

    # --- the other format, the other reader ---

    def test_gperftools_text_says_the_same(self):
        path = self.dump("recovered.heap", "--format=gperftools")
        want = {name: values for name, values in
                Functions(GROWTH).sums(read(self.alive.second)).items()
                if name.startswith("workload_")}
        for number, sample_type in enumerate(
                ("alloc_objects", "alloc_space", "inuse_objects", "inuse_space")):
            shown = flat(pprof("-text", "-unit=B", f"-sample_index={sample_type}", GROWTH,
                               path).stdout)
            for function, values in want.items():
                self.assertEqual(shown[function], values[number])
        if shutil.which("google-pprof"):
            done = subprocess.run(["google-pprof", "--text", "--show_bytes", GROWTH, path],
                                  capture_output=True, text=True, timeout=120)
            self.assertRegex(done.stdout, r"(?m)^\s*5000100\s.*workload_grows$", done.stderr)

    def test_pprof_format_reads_the_same(self):
        if not shutil.which("npm"):
            self.skipTest("npm is not installed")
        directory = os.path.join(BUILD, "tests", "truth", "npm")
        os.makedirs(directory, exist_ok=True)
        if not os.path.isdir(os.path.join(directory, "node_modules", "pprof-format")):
            done = subprocess.run(
                ["npm", "install", "--no-audit", "--no-fund", "--prefix", directory, PPROF_FORMAT],
                capture_output=True, text=True, timeout=300)
            if done.returncode != 0:
                self.skipTest(f"npm cannot install {PPROF_FORMAT}: {done.stderr.strip()[-200:]}")
        for path in (self.alive.second, self.dump("recovered.pb.gz")):
            done = subprocess.run(
                ["node", os.path.join(HERE, "pprof_format.mjs"), directory, path],
                check=True, capture_output=True, text=True, timeout=60)
            theirs, ours = json.loads(done.stdout), read(path)
            self.assertEqual([tuple(t) for t in theirs["sampleTypes"]], ours.sample_types)
            self.assertEqual(tuple(theirs["periodType"]), ours.period_type)
            self.assertEqual(theirs["period"], ours.period)
            self.assertEqual(int(theirs["time"]), ours.time_nanos)
            self.assertEqual(theirs["comments"], ours.comments)
            self.assertEqual(theirs["mappings"], [[m.file, m.build_id] for m in ours.mappings])
            self.assertEqual(
                [(s["values"], list(map(int, s["addresses"])), [tuple(l) for l in s["labels"]])
                 for s in theirs["samples"]],
                [(s.values, [l.address for l in s.locations], list(s.labels.items()))
                 for s in ours.samples])


if __name__ == "__main__":
    if not shutil.which("go"):
        print("skipped: go (Debian's golang-go), whose pprof reads the profiles, is not installed")
        sys.exit(77)
    unittest.main()
