"""`heapflare leaks`: its screens, its options, and a leak that ended in a real OOM kill.

One box serves all: examples/leaking_mix, 40 times as fast, runs in a memory cgroup until the kernel
kills it (or, where there is none to be had, until it is killed by hand).
A correct build fails by chance below 1 in 1,000: see truth/leaking_mix_test.py.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import heap_profile
import memory_cgroup
import profiled
from profiled import HEAPFLARE, MIB

SERVICE = os.path.join(profiled.BUILD, "examples", "leaking_mix")
LEAK = "leaking_mix::AuditLog::Remember"
LIMIT = 200 * MIB


class LeaksTest(profiled.ProfiledTest):
    @classmethod
    def setUpClass(cls):
        in_memory = os.access("/dev/shm", os.W_OK)
        cls.place = tempfile.mkdtemp(prefix="heapflare-test-", dir="/dev/shm" if in_memory else None)
        clean = {name: value for name, value in os.environ.items()
                 if not name.startswith("HEAPFLARE_")}
        environment = dict(clean, LD_PRELOAD=profiled.LIBRARY, HEAPFLARE_BOX_DIR=cls.place,
                           HEAPFLARE_DIR=cls.place, HEAPFLARE_SAMPLE_INTERVAL="512KiB")
        command = [SERVICE, "--speed=40", "--seconds=100000"]
        options = {"env": environment, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        cls.no_cgroup = None
        try:
            with memory_cgroup.MemoryCgroup(LIMIT) as group:
                process = subprocess.Popen(command, preexec_fn=group.enter, **options)
                cls.status = process.wait(timeout=profiled.PATIENCE * 4)
                cls.kills = group.oom_kills()
        except memory_cgroup.Unavailable as problem:
            cls.no_cgroup = str(problem)
            process = subprocess.Popen(command, **options)
            time.sleep(15)  # the length of the run, not a wait for anything
            process.kill()
            process.wait()
        boxes = [name for name in os.listdir(cls.place) if name.endswith(".box")]
        assert len(boxes) == 1, boxes
        cls.box = os.path.join(cls.place, boxes[0])

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.place, ignore_errors=True)

    def leaks(self, *arguments, code=0):
        result = self.heapflare("leaks", *arguments)
        self.assertEqual(result.returncode, code, result)
        return result

    def as_json(self, *arguments):
        return json.loads(self.leaks("--json", *arguments).stdout)

    def test_explains_an_oom_kill_from_the_box_alone(self):
        if self.no_cgroup is not None:
            self.skipTest(self.no_cgroup)
        self.assertEqual((self.status, self.kills), (-signal.SIGKILL, 1))
        text = self.leaks(self.box).stdout
        self.assertRegex(text, r"^leaking_mix \(pid \d+, dead\) was watched for .* s, until ")
        self.assertRegex(text, rf"1\. {LEAK} holds [\d.]+ ± [\d.]+ MiB \(\d+ %\) and has grown "
                               r"[\d.]+ ± [\d.]+ GiB/h for .* s, since \d{4}-\d\d-\d\d ")
        self.assertRegex(text, r"free below the limit of 200 MiB\n")
        found = self.as_json(self.box)
        self.assertEqual([suspect["function"] for suspect in found["growth"]["suspects"]], [LEAK])
        self.assertEqual(found["limit"], LIMIT)
        # What is left is not worth speaking of: it died of it.
        leak = found["growth"]["suspects"][0]
        self.assertLess(leak["seconds_to_limit"], 3)
        # The cache, the pool and what is in flight hold 104 MB.
        self.assertGreater(leak["bytes"], LIMIT - 104e6 - 60 * MIB)

    def test_keeps_kinds_of_evidence_apart(self):
        text = self.leaks(self.box).stdout
        places = [text.index(f"\n{kind}: ") for kind in ("Growing", "Unreachable", "Left at exit",
                                                         "Watched")]
        self.assertEqual(places, sorted(places))
        self.assertLess(text.count("\n"), 25)
        self.assertLess(max(map(len, text.splitlines())), 400)
        self.assertIn("a leak below about", text)

    def test_shows_where_the_function_is_and_who_called_it(self):
        text = self.leaks(self.box).stdout
        self.assertRegex(text, r"\n     main\.cc:\d+  ←  leaking_mix::Service::Handle main\.cc:\d+")
        verbose = self.leaks("-v", self.box).stdout
        self.assertRegex(verbose, r"\n     → leaking_mix::AuditLog::Remember\(unsigned long\) ")
        self.assertRegex(verbose, r"\n  judged: 1 grows, \d+ steady")
        frames = self.as_json(self.box)["growth"]["suspects"][0]["frames"]
        self.assertIn("leaking_mix::Service::Handle(double)",
                      [frame["function"] for frame in frames])

    def test_fails_only_if_asked_to(self):
        self.leaks(self.box, code=0)
        self.leaks("--fail", self.box, code=1)
        # The same result, whatever the exit code.
        self.assertEqual(self.leaks("--fail", self.box, code=1).stdout, self.leaks(self.box).stdout)
        self.leaks("--fail", "--min-bytes=1GiB", self.box, code=0)

    def test_leaves_out_what_holds_less(self):
        holds = self.as_json(self.box)["growth"]["suspects"][0]["bytes"]
        self.assertEqual(len(self.as_json(f"--min-bytes={int(holds) - 1}", self.box)
                             ["growth"]["suspects"]), 1)
        text = self.leaks("--min-bytes=1GiB", self.box).stdout
        self.assertIn("No stack is suspected of a leak.\n", text)

    def test_counts_growth_since_a_time_only(self):
        whole = self.as_json(self.box)
        half = whole["watched_seconds"] / 2
        later = self.as_json(f"--since={half:.1f}s", self.box)
        [suspect] = later["growth"]["suspects"]
        self.assertLessEqual(suspect["since_seconds"], half + 0.1)
        self.assertLess(suspect["grown_bytes"], whole["growth"]["suspects"][0]["grown_bytes"])

    def test_writes_a_profile_that_viewers_open(self):
        path = self.path("leaks.pb.gz")
        found = self.as_json("-o", path, self.box)
        profile = heap_profile.read(path)
        self.assertEqual([tuple(kind) for kind in profile.sample_types],
                         [("leaked_objects", "count"), ("leaked_space", "bytes")])
        [sample] = profile.samples
        self.assertEqual(sample.labels["evidence"], "growth")
        [suspect] = found["growth"]["suspects"]
        self.assertAlmostEqual(profile.total("leaked_space"), suspect["bytes"], delta=1)
        self.assertTrue(any(LEAK in name for name in sample.functions()))
        rows = heap_profile.go_top(path, profile.mappings[0].file, "leaked_space")
        self.assertIn("Remember", str(rows))

    def test_takes_a_directory_and_a_pid(self):
        by_box = self.as_json(self.box)
        self.assertEqual(self.as_json(self.place), by_box)
        # A process that has done nothing yet: the answer says how little was seen.
        process = self.start([HEAPFLARE, "run", "--", "sleep", "100"])
        self.wait_until(self.box_files, "a box")
        text = self.leaks(str(process.pid)).stdout
        self.assertRegex(text, r"^sleep \(pid \d+, alive\) was watched for \d+ s; it holds ")
        self.assertIn("No stack is suspected of a leak.\n", text)

    def test_has_a_process_search_itself_for_what_nothing_refers_to(self):
        environment = self.with_settings(SAMPLE_INTERVAL="64KiB")
        environment["LD_PRELOAD"] = profiled.LIBRARY
        process = self.start([SERVICE, "--seconds=3"], env=environment, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
        process.stdout.readline()
        result = self.leaks("--reach", "--passes=2", "--spacing=0.1s", "--json", str(process.pid))
        self.assertEqual(len(re.findall(r"^heapflare leaks: pass [12] of 2: .* samples without a "
                                        "reference", result.stderr, re.MULTILINE)), 2, result)
        found = json.loads(result.stdout)["unreachable"]
        self.assertTrue(found["searched"])
        self.assertEqual((found["passes"], found["passes_needed"]), (2, 2))
        # Everything in it is referred to, the leak too: it is a list that only grows.
        self.assertEqual(found["suspects"], [])
        text = self.leaks(str(process.pid)).stdout
        self.assertRegex(text, r"\nUnreachable: every sampled block was referred to .* 2 passes\.\n"
                               r"  last pass: .*searched in")
        self.assertIn("is dead, its memory is gone",
                      self.leaks("--reach", self.box, code=3).stderr)
        self.leaks("--reach", "--passes=0", str(process.pid), code=2)
        self.leaks("--reach", "--spacing=often", str(process.pid), code=2)

    def test_says_what_it_needs(self):
        dump = self.path("dump.pb.gz")
        self.assertEqual(self.heapflare("dump", self.box, "-o", dump).returncode, 0)
        result = self.leaks(dump, code=2)
        self.assertRegex(result.stderr, r"^heapflare leaks: .*dump.pb.gz: a profile shows one moment"
                                        r".* name the PID or its box .*\n$")
        for option, problem in (("--min-bytes=many", "'many': not a size"),
                                ("--since=yesterday", "'yesterday': not a duration"),
                                ("--since=0", "'0': not a duration")):
            self.assertIn(problem, self.leaks(option, self.box, code=2).stderr)
        self.leaks("/nowhere.box", code=3)
        self.leaks(self.write("no.box", "no box\n"), code=3)
        # Nothing is left of a profile that could not be written.
        self.leaks("-o", "/nowhere/leaks.pb.gz", self.box, code=3)

    def test_reads_a_box_that_is_cut_off_anywhere(self):
        with open(self.box, "rb") as file:
            whole = file.read()
        for share in (0.01, 0.3, 0.6, 0.95):
            path = self.path("cut.box")
            with open(path, "wb") as file:
                file.write(whole[: int(len(whole) * share)])
            text = self.leaks(path).stdout
            self.assertRegex(text, r"^leaking_mix \(pid ")


if __name__ == "__main__":
    unittest.main()
