"""`heapflare leaks --reach`: which blocks of a running process nothing refers to.

reach_subject keeps blocks in all ways there are and loses others, in exact mode, so that every
verdict is certain.
--long: a crowd of 500 threads under load survives 1,000 passes instead of 20 (about 3 minutes).
"""

import json
import os
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import memory_cgroup
import profiled

LEAK = os.path.join(profiled.BUILD, "tests", "leak")
LONG = "--long" in sys.argv

# The sizes of reach_subject.cc.
KEPT = {
    50001: "global", 50002: "thread-local storage",
    50003: "thread-local storage of a dlopen'ed library",
    50004: "pthread_setspecific", 50005: "stack of another thread", 50008: "interior pointer",
    50009: "one past the end", 50010: "misaligned by 4", 50011: "tag in the upper 16 bits",
    50012: "epoll data", 50013: "timer", 50014: "read-only page", 50015: "page that cannot be read",
    50016: "shared memory", 50017: "in a block", 50018: "mapping",
    50019: "argument of a system call",
}
IN_REGISTERS = {50006: "register", 50007: "vector register"}
DIRECT = {60001, 60002, 60006, 60007, 60008}
CHILD = 60003
RING = {60004, 60005}
LOST = DIRECT | {CHILD} | RING
COMPLEMENT = 60007

WITHOUT_STOPPING, WITHOUT_FORK = 1, 2
STOPPED_FORK, FORK, STOPPED_LIVE, LIVE = 1, 2, 3, 4
HEADROOM, DIED = 2, 6  # box::ReachError
X86 = os.uname().machine == "x86_64"
MILLISECOND = 1_000_000


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def children(pid):
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children", encoding="utf-8") as file:
                found += [int(child) for child in file.read().split()]
        except FileNotFoundError:
            pass
    return found


class Reach(profiled.ProfiledTest):
    def subject(self, *restrictions, **settings):
        environment = self.with_settings(SAMPLE_INTERVAL=1, **settings)
        environment["LD_PRELOAD"] = profiled.LIBRARY
        process = self.start([os.path.join(LEAK, "reach_subject"),
                              os.path.join(LEAK, "reach_plugin.so"), *restrictions],
                             env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             text=True)
        line = process.stdout.readline()
        if line != "ready\n" and process.wait() == 77:
            self.skipTest("seccomp filters for all threads are not to be had here")
        self.assertEqual(line, "ready\n")
        return process

    def passes(self, process, passes=3, flags=0, code=0):
        def ask():
            result = subprocess.run(
                [os.path.join(LEAK, "reach_verdicts"), str(process.pid), str(passes), str(flags)],
                env=self.environment, capture_output=True, text=True, timeout=600, check=False)
            # A box is there a moment after the start.
            return None if "no box of it" in result.stderr else result

        result = self.wait_until(ask, "there is a box")
        self.assertIn(result.returncode, (0, 1), result.stderr)
        verdict = json.loads(result.stdout)
        self.assertEqual(result.returncode, code, (verdict["problem"], verdict["passes"][-2:]))
        return verdict

    def may_trace(self, verdict):
        if verdict["passes"][-1]["mode"] not in (STOPPED_FORK, STOPPED_LIVE):
            self.skipTest("ptrace is refused here")

    def stopped(self, process, flags=0):
        """Three passes in a row that stopped every thread, and how many were made.

        On a busy machine a thread may not stop in the time that it has; the pass says so, and is
        made again."""
        for made in range(3, 90, 3):
            verdict = self.passes(process, flags=flags)
            if all(one["mode"] in (STOPPED_FORK, STOPPED_LIVE) and one["threads_unseen"] == 0
                   for one in verdict["passes"]):
                return verdict, made
        self.skipTest("threads cannot be stopped here: ptrace is refused, or other work keeps them")
        return None

    def check(self, verdict, registers_seen, passes=3):
        samples = {sample["size"]: sample for sample in verdict["samples"]}
        kept = {**KEPT, **(IN_REGISTERS if registers_seen else {})}
        if not X86:
            kept = {size: how for size, how in kept.items() if size not in (50006, 50007, 50019)}
        for size, how in kept.items():
            self.assertEqual(samples[size]["passes"], 0, f"is referred to: {how}")
        if X86 and not registers_seen:
            # Or it was not by the register alone that the others were found.
            for size, how in IN_REGISTERS.items():
                self.assertEqual(samples[size]["passes"], passes, how)
        for size in LOST:
            self.assertEqual(samples[size]["passes"], passes, f"block of {size} bytes is lost")
            self.assertTrue(samples[size]["called"])
        self.assertEqual({size for size in DIRECT if samples[size]["indirect"]}, set())
        self.assertTrue(samples[CHILD]["indirect"])
        # A ring has no head: one of it stands for it.
        self.assertEqual(sorted(samples[size]["indirect"] for size in RING), [False, True])

    def test_every_kind_of_reference_is_seen_and_every_lost_block_is_found(self):
        verdict, made = self.stopped(self.subject())
        for one in verdict["passes"]:
            self.assertEqual((one["mode"], one["error"]), (STOPPED_FORK, 0))
            self.assertEqual(one["threads"], 5 if X86 else 2)
            self.assertGreaterEqual(one["pause_ns"], one["fork_ns"])
            self.assertGreater(one["fork_ns"], 0)
            self.assertGreater(one["bytes_scanned"], 100_000)
        self.assertEqual(verdict["passes"][-1]["called"], len(LOST))
        self.check(verdict, registers_seen=True, passes=made)

    def test_the_command_makes_passes_tells_of_each_and_names_what_is_lost(self):
        process = self.subject()
        result = self.heapflare("leaks", "--reach", "--passes=3", "--spacing=0.1s", "--json",
                                str(process.pid))
        self.assertEqual(result.returncode, 0, result)
        for number in (1, 2, 3):
            self.assertRegex(result.stderr,
                             rf"heapflare leaks: pass {number} of 3: .* searched in ")
        self.assertRegex(result.stderr, r"paused \d+\.\d ms \(fork \d+\.\d ms\), \d+ threads; |"
                                        "threads could not be stopped")
        suspects = json.loads(result.stdout)["unreachable"]
        self.assertIn("Lose", json.dumps(suspects))
        self.assertNotIn("KeepInMemory", json.dumps(suspects))

    def test_the_command_says_why_a_dead_process_cannot_be_searched(self):
        process = self.subject()
        process.kill()
        process.wait()
        result = self.heapflare("leaks", "--reach", self.box_files()[0])
        self.assertEqual(result.returncode, 3, result)
        self.assertIn("is dead", result.stderr)
        for arguments in (["--passes=0"], ["--passes=256"], ["--spacing=soon"]):
            result = self.heapflare("leaks", "--reach", *arguments, self.box_files()[0])
            self.assertEqual(result.returncode, 2, result)

    def test_without_ptrace_all_but_registers_is_seen(self):
        verdict = self.passes(self.subject(), flags=WITHOUT_STOPPING)
        self.assertEqual(verdict["passes"][-1]["mode"], FORK)
        self.assertIn("register", verdict["passes"][-1]["blindness"])
        self.check(verdict, registers_seen=False)

    def test_without_a_copy_memory_is_searched_as_it_is(self):
        verdict, made = self.stopped(self.subject(), flags=WITHOUT_FORK)
        self.assertEqual(verdict["passes"][-1]["mode"], STOPPED_LIVE)
        self.assertEqual(verdict["passes"][-1]["fork_ns"], 0)
        self.assertIn("moved meanwhile", verdict["passes"][-1]["blindness"])
        self.check(verdict, registers_seen=True, passes=made)

    def test_with_neither_the_lost_are_found_all_the_same(self):
        verdict = self.passes(self.subject(), flags=WITHOUT_STOPPING | WITHOUT_FORK)
        self.assertEqual(verdict["passes"][-1]["mode"], LIVE)
        self.check(verdict, registers_seen=False)

    def test_a_process_that_may_not_be_traced_is_copied(self):
        if os.geteuid() != 0:
            self.skipTest("only root can give up its rights")
        os.makedirs(self.boxes, exist_ok=True)
        for path in (self.box_parent, self.boxes):
            os.chmod(path, 0o777)
        verdict = self.passes(self.subject("nobody", "not_dumpable"))
        self.assertEqual([one["mode"] for one in verdict["passes"]], [FORK] * 3)
        samples = {sample["size"]: sample for sample in verdict["samples"]}
        for size in LOST:
            self.assertEqual(samples[size]["passes"], 3)

    def test_a_filter_that_refuses_ptrace_costs_the_registers_only(self):
        for how in ("seccomp_errno", "seccomp_kill"):
            process = self.subject(how)
            verdict = self.passes(process)
            self.assertEqual([one["mode"] for one in verdict["passes"]], [FORK] * 3, how)
            self.check(verdict, registers_seen=False)
            self.assertIsNone(process.poll(), "a filter that kills must not kill the service")

    def test_behind_a_filter_that_allows_it_threads_are_stopped_from_the_second_pass_on(self):
        process = self.subject("seccomp_allow")
        self.assertEqual(self.passes(process, passes=1)["passes"][0]["mode"], FORK)
        self.stopped(process)

    def test_a_block_is_called_unreachable_only_after_passes_in_a_row(self):
        process = self.subject()
        first = self.passes(process, passes=2)
        lost = [sample for sample in first["samples"] if sample["size"] in LOST]
        self.assertEqual({sample["passes"] for sample in lost}, {2})
        # A request for more asks for more.
        more = self.passes(process, passes=5)
        self.assertEqual({s["passes"] for s in more["samples"] if s["size"] in LOST}, {7})

    def test_who_frees_what_was_called_unreachable_proves_it_wrong(self):
        process = self.subject()
        verdict = self.passes(process)
        samples = {sample["size"]: sample for sample in verdict["samples"]}
        self.assertTrue(samples[COMPLEMENT]["called"])
        self.assertEqual(verdict["false_leaks"], 0)
        process.stdin.write("free\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "freed\n")
        verdict = self.passes(process, passes=1)
        self.assertEqual(verdict["false_leaks"], 1)
        self.assertNotIn(COMPLEMENT, {sample["size"] for sample in verdict["samples"]})

    def test_a_pass_leaves_no_process_and_no_memory_behind(self):
        process = self.subject()
        self.passes(process, passes=1)

        def mappings():
            with open(f"/proc/{process.pid}/maps", encoding="utf-8") as file:
                return len(file.readlines())

        before = mappings()
        self.passes(process, passes=10)
        self.assertEqual(mappings(), before)
        self.assertEqual(children(process.pid), [])

    def test_short_of_memory_nothing_is_copied_and_shorter_still_the_pass_is_refused(self):
        try:
            with memory_cgroup.MemoryCgroup(256 * profiled.MIB) as cgroup:
                process = self.in_cgroup(cgroup, 0)
                verdict = self.passes(process, passes=1)
                self.assertIn(verdict["passes"][0]["mode"], (STOPPED_FORK, FORK))
                process.kill()
                process.wait()
                # 40 MiB are left.
                process = self.in_cgroup(cgroup, 216)
                verdict = self.passes(process, passes=1)
                self.assertIn(verdict["passes"][0]["mode"], (STOPPED_LIVE, LIVE))
                process.kill()
                process.wait()
                process = self.in_cgroup(cgroup, 244)
                verdict = self.passes(process, passes=1, code=1)
                self.assertEqual(verdict["passes"][0]["error"], HEADROOM)
                self.assertIn("too little memory is left", verdict["problem"])
        except memory_cgroup.Unavailable as reason:
            self.skipTest(str(reason))

    def pass_under_way(self, process):
        """A pass whose copy was stopped at its work: the client, and the copy's number."""
        client = None

        def copy():
            nonlocal client
            if client is None or client.poll() is not None:
                client = self.start(
                    [os.path.join(LEAK, "reach_verdicts"), str(process.pid), "1", "0"],
                    env=self.environment, stdout=subprocess.PIPE, text=True)
            for pid in children(process.pid):
                try:
                    # Once it has made itself the first to be killed it begins to search.
                    if (read(f"/proc/{pid}/comm"), read(f"/proc/{pid}/oom_score_adj")) == (
                            "heapflare-scan\n", "1000\n"):
                        os.kill(pid, signal.SIGSTOP)
                        return pid
                except (FileNotFoundError, ProcessLookupError):
                    pass
            return None

        pid = self.wait_until(copy, "there is a copy")
        self.wait_until(lambda: read(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] in "TZ",
                        "it stands")
        return client, pid

    def big(self, **settings):
        """Takes long enough to search that its copy can be met."""
        environment = self.with_settings(**settings)
        environment["LD_PRELOAD"] = profiled.LIBRARY
        process = self.start([os.path.join(LEAK, "reach_crowd"), "2", "600", "400"],
                             env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             text=True)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def test_dumps_go_on_while_a_copy_is_searched(self):
        process = self.big(SIGNAL="USR2")
        client, copy = self.pass_under_way(process)
        process.send_signal(signal.SIGUSR2)
        self.wait_until(lambda: self.dump_files("signal"), "a dump is written meanwhile")
        self.assertIsNone(client.poll())
        os.kill(copy, signal.SIGCONT)
        verdict = json.loads(client.communicate(timeout=profiled.PATIENCE)[0])
        self.assertEqual(verdict["passes"][0]["error"], 0)

    def test_a_child_that_is_forked_meanwhile_has_no_part_in_the_pass(self):
        process = self.subject("big")
        client, copy = self.pass_under_way(process)
        process.stdin.write("fork\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "forked 0\n")
        os.kill(copy, signal.SIGCONT)
        verdict = json.loads(client.communicate(timeout=profiled.PATIENCE)[0])
        self.assertEqual(verdict["passes"][0]["error"], 0)
        self.assertEqual(self.passes(process, passes=1)["passes"][0]["error"], 0)

    def test_a_copy_that_is_killed_costs_the_pass_only(self):
        process = self.big()
        client, copy = self.pass_under_way(process)
        os.kill(copy, signal.SIGKILL)
        verdict = json.loads(client.communicate(timeout=profiled.PATIENCE)[0])
        self.assertEqual(client.returncode, 1)
        self.assertEqual(verdict["passes"][0]["error"], DIED)
        self.assertEqual(verdict["passes"][0]["system_error"], signal.SIGKILL)
        self.assertIn("killed", verdict["problem"])
        self.assertEqual(self.passes(process, passes=1)["passes"][0]["error"], 0)
        self.assertIsNone(process.poll())

    def test_a_copy_ends_with_its_service(self):
        process = self.big()
        _, copy = self.pass_under_way(process)
        process.kill()
        process.wait()
        self.wait_until(lambda: not os.path.exists(f"/proc/{copy}"), "the copy is gone")

    def test_a_copy_is_the_first_to_be_killed_and_idle(self):
        process = self.big()
        client, copy = self.pass_under_way(process)
        self.assertEqual(read(f"/proc/{copy}/oom_score_adj"), "1000\n")
        self.assertEqual(os.sched_getscheduler(copy), os.SCHED_IDLE)
        # What the service had open is not held open by it.
        self.assertLess(len(os.listdir(f"/proc/{copy}/fd")), 5)
        os.kill(copy, signal.SIGCONT)
        client.communicate(timeout=profiled.PATIENCE)

    def in_cgroup(self, cgroup, megabytes):
        environment = self.with_settings(SAMPLE_INTERVAL=65536, THRESHOLDS="99%")
        environment["LD_PRELOAD"] = profiled.LIBRARY
        process = self.start(
            [os.path.join(LEAK, "reach_crowd"), "1", "600", str(megabytes)], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=cgroup.enter)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def test_a_crowd_of_threads_under_load_survives(self):
        """500 threads that allocate, free, wait and come and go."""
        environment = self.with_settings(SAMPLE_INTERVAL=65536)
        environment["LD_PRELOAD"] = profiled.LIBRARY
        crowd = self.start([os.path.join(LEAK, "reach_crowd"), "500", "3600"], env=environment,
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(crowd.stdout.readline(), "ready\n")
        wanted = 1000 if LONG else 20
        made = []
        while len(made) < wanted:
            verdict = self.passes(crowd, passes=min(wanted - len(made), 250))
            made += verdict["passes"]
            self.may_trace(verdict)
        self.assertGreater(max(one["threads"] for one in made), 400)
        self.assertIsNone(crowd.poll())
        crowd.stdin.close()
        self.assertEqual(crowd.stdout.readline().split()[0], "ok")
        self.assertEqual(crowd.wait(timeout=profiled.PATIENCE), 0)
        pauses = sorted(one["pause_ns"] - one["fork_ns"] for one in made)
        forks = sorted(one["fork_ns"] for one in made)
        unseen = sum(one["threads_unseen"] for one in made) / sum(
            one["threads"] + one["threads_unseen"] for one in made)
        print(f"{len(made)} passes; pause without fork, ms: median "
              f"{pauses[len(pauses) // 2] / MILLISECOND:.2f}, 99 % "
              f"{pauses[len(pauses) * 99 // 100] / MILLISECOND:.2f}, most "
              f"{pauses[-1] / MILLISECOND:.2f}; fork: median "
              f"{forks[len(forks) // 2] / MILLISECOND:.2f}; {unseen:.1%} of threads unseen",
              file=sys.stderr)


if __name__ == "__main__":
    unittest.main(argv=[argument for argument in sys.argv if argument != "--long"])
