#!/usr/bin/env python3
"""redis and nginx serve under heapflare as they do without it, with every allocator, in the
foreground and as daemons; each of their processes has a box of its own.

HEAPFLARE_BUILD names the build directory that holds bin/heapflare and lib/libheapflare.so.
`--long`: ten times the load.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from profiled import ALLOCATORS, HEAPFLARE, MIB, ProfiledTest, needs, under  # noqa: E402

LOAD = 10 if "--long" in sys.argv else 1


class ServerTest(ProfiledTest):
    def run_to_end(self, command):
        result = subprocess.run(command, capture_output=True, text=True, timeout=120,
                                env=self.clean, cwd=self.directory)
        self.assertEqual(result.returncode, 0, result)
        return result.stdout

    def boxed(self):
        """Boxes by PID: what `ls` says of each."""
        result = self.heapflare("ls", "--json", self.boxes)
        self.assertEqual(result.returncode, 0, result)
        return {box["pid"]: box for box in json.loads(result.stdout)}

    def snapshot(self, pid):
        result = self.heapflare("snapshot", str(pid))
        self.assertEqual(result.returncode, 0, result)
        return result.stdout.strip()


@needs("redis-server", "redis-benchmark", "redis-cli")
class Redis(ServerTest):
    # Its executable is /usr/bin/redis-check-rdb, but nobody started that.
    NAME = "redis-server"
    ARGUMENTS = ["--port", "0", "--unixsocket", "redis.sock", "--appendonly", "no"]
    # The same data and the same answers in every run.
    COMMANDS = "".join(
        f"set key:{i} {'v' * (i % 300)}\nrpush list:{i % 7} {i}\nsadd set {i * i % 97}\n"
        f"hset hash f{i} {i}\nzadd board {i} member{i}\n" for i in range(300)
    ) + "dbsize\nlrange list:3 0 -1\nzrange board 290 -1 withscores\nstrlen key:299\nscard set\n" \
        "eval 'local t={} for i=1,1000 do t[i]=tostring(i) end return #table.concat(t)' 0\n"

    def cli(self, *arguments, **options):
        return subprocess.run(["redis-cli", "-s", self.path("redis.sock"), *arguments], text=True,
                              capture_output=True, timeout=60, env=self.clean, **options)

    def wait_for_redis(self):
        self.wait_until(lambda: self.cli("ping").stdout == "PONG\n", "redis answers")

    def answers(self, command, load):
        """What it answers; `load` is called before it is shut down."""
        with open(self.path("stderr"), "w+", encoding="utf-8") as errors:
            server = self.start(command, cwd=self.directory, stdout=subprocess.DEVNULL,
                                stderr=errors)
            self.wait_for_redis()
            answers = self.cli(input=self.COMMANDS).stdout
            load(server.pid)
            self.cli("shutdown", "nosave")
            self.assertEqual(server.wait(timeout=60), 0)
            errors.seek(0)
            self.assertEqual(errors.read(), "")
        return answers

    def under_benchmark(self, pid):
        output = self.run_to_end(
            ["redis-benchmark", "-s", self.path("redis.sock"), "-n", str(2000 * LOAD), "-q", "-r",
             "2000", "-d", "300", "-t", "set,lpush,sadd,hset,zadd"])
        self.assertEqual(output.count("requests per second"), 5, output)
        path = self.snapshot(pid)
        self.assertTrue(os.path.basename(path).startswith(f"{self.NAME}."), path)
        self.check_profile(
            path, {"__libc_start_main": 0.9, "main": 0.9, "processCommand": 0.3, "createStringObject": 0.05}, MIB // 2,
            "inuse_space")

    def test_answers_the_same_under_benchmark_and_shows_its_functions(self):
        plain = ["redis-server", *self.ARGUMENTS, "--save", ""]
        expected = self.answers(plain, lambda pid: None)
        self.assertIn("member299", expected)
        for allocator in ALLOCATORS:
            with self.subTest(allocator=allocator or "jemalloc, which redis is linked with"):
                run = [HEAPFLARE, "run", *self.run_options(allocator, "--interval=8KiB"), "--"]
                self.assertEqual(self.answers(run + plain, self.under_benchmark), expected)
                self.assertEqual(self.box_files(), [])

    def test_daemonized_has_a_box_of_its_own_and_saves_in_a_child(self):
        log = self.path("redis.log")
        result = self.heapflare(
            "run", "--interval=8KiB", "--", "redis-server", *self.ARGUMENTS, "--daemonize", "yes",
            "--pidfile", self.path("redis.pid"), "--logfile", log, "--dir", self.directory)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))
        self.wait_for_redis()
        pid = int(self.wait_until(lambda: self.text_of("redis.pid"), "redis writes its PID"))
        try:
            self.assertEqual(list(self.wait_until(self.boxed, "its box")), [pid])
            self.cli(input=self.COMMANDS)
            # A forked child writes the data base while the parent serves.
            self.cli("bgsave")
            self.wait_until(lambda: "Background saving terminated" in self.text_of("redis.log"),
                            "the child saved")
            self.assertIn("with success", self.text_of("redis.log"))
            self.under_benchmark(pid)
            # The child ended by _exit, which is not a clean exit.
            self.assertEqual([b["state"] for n, b in self.boxed().items() if n != pid], ["dead"])
        finally:
            self.cli("shutdown", "nosave")
            self.wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "redis ends")
        self.assertEqual([box["state"] for box in self.boxed().values()], ["dead"])

    def text_of(self, name):
        if not os.path.exists(self.path(name)):
            return ""
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()


@needs("nginx", "wrk", "curl")
class Nginx(ServerTest):
    CONFIGURATION = """
pid DIR/nginx.pid; error_log DIR/error.log notice; worker_processes 2; daemon DAEMON; USER
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path DIR/1; proxy_temp_path DIR/2; fastcgi_temp_path DIR/3;
  uwsgi_temp_path DIR/4; scgi_temp_path DIR/5;
  server {
    listen unix:DIR/sock; listen 127.0.0.1:PORT; root DIR/html;
    gzip on; gzip_min_length 1; gzip_types *;
  }
}
"""

    def setUp(self):
        super().setUp()
        os.chmod(self.directory, 0o755)
        os.mkdir(self.path("html"))
        self.write("html/index.html", "".join(f"line {i}\n" for i in range(2000)))

    @contextlib.contextmanager
    def nginx(self, run, daemon, user=""):
        """One that serves; sets master, its PID, and port. The Popen of who started it."""
        # A free port; should another process take it in between, nginx says so and ends.
        for _ in range(5):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            text = self.CONFIGURATION.replace("DIR", self.directory).replace("USER", user)
            text = text.replace("PORT", str(self.port)).replace("DAEMON", daemon)
            self.configuration = self.write("nginx.conf", text)
            with open(self.path("stderr"), "w", encoding="utf-8") as errors:
                process = self.start([*run, "nginx", "-c", self.configuration], stderr=errors)
            if self.wait_until(lambda: self.state(process), "nginx starts") == "serving":
                break
        with open(self.path("nginx.pid"), encoding="utf-8") as file:
            self.master = int(file.read())
        try:
            yield process
        finally:
            if not self.has_ended():
                os.kill(self.master, signal.SIGQUIT)
            self.wait_until(self.has_ended, "nginx ends")

    def state(self, process):
        if process.poll() not in (None, 0):
            return "failed"
        path = self.path("nginx.pid")
        started = os.path.exists(path) and os.path.getsize(path) > 0
        return "serving" if started and self.ask().returncode == 0 else None

    def has_ended(self):
        for process in self.started:
            process.poll()
        return not os.path.exists(f"/proc/{self.master}")

    def workers(self):
        with open(f"/proc/{self.master}/task/{self.master}/children", encoding="utf-8") as file:
            return [int(pid) for pid in file.read().split()]

    def ask(self, *options):
        return subprocess.run(
            ["curl", "-s", "--unix-socket", self.path("sock"), *options,
             "http://localhost/"], capture_output=True, timeout=60, env=self.clean)

    def under_wrk(self):
        output = self.run_to_end(["wrk", "-t1", "-c8", f"-d{LOAD}", "-H", "Accept-Encoding: gzip",
                                  f"http://127.0.0.1:{self.port}/"])
        self.assertRegex(output, r"\d+ requests in")
        self.assertNotRegex(output, "Non-2xx|Socket errors")

    def test_serves_the_same_in_the_foreground_with_every_allocator(self):
        with self.nginx([], "off"):
            expected = self.ask("-i", "--compressed").stdout
        self.assertIn(b"line 1999", expected)
        for allocator in ALLOCATORS:
            options = self.run_options(allocator, "--interval=512")
            with self.subTest(allocator=allocator or "glibc"):
                with self.nginx([HEAPFLARE, "run", *options, "--"], "off", "user root;") as process:
                    self.check_foreground(expected)
                self.assertEqual(process.wait(timeout=60), 0)
                self.assertEqual(self.box_files(), [])
                with open(self.path("stderr"), encoding="utf-8") as errors:
                    self.assertEqual(errors.read(), "")

    def check_foreground(self, expected):
        self.under_wrk()
        answer = self.ask("-i", "--compressed").stdout
        date = re.compile(rb"(?m)^Date: .*$")
        self.assertEqual(date.sub(b"", answer), date.sub(b"", expected))
        family = {self.master, *self.workers()}
        self.assertEqual(len(family), 3)
        self.wait_until(lambda: set(self.boxed()) == family, "a box for each of the three")
        served = own = total = 0
        for pid in family:
            profile = self.check_profile(self.snapshot(pid), {"main": 0.5}, 4096)
            served += profile.total("alloc_space", under("ngx_http_create_request"))
            own += profile.total("alloc_space", lambda s: s.functions()[0].startswith("ngx_"))
            total += profile.total("alloc_space")
        self.assertGreater(own, 0.9 * total)
        self.assertGreater(served, 0.005 * total, "a worker's stacks show requests")

    @unittest.skipIf(os.geteuid() != 0, "only root can change to another user")
    def test_workers_of_another_user_keep_their_boxes_and_leave_none(self):
        # As it is installed: the master is root, which makes the directories; the workers are not.
        run = [HEAPFLARE, "run", "--interval=512", "--"]
        with self.nginx(run, "on", "user www-data;") as process:
            self.assertEqual(process.wait(timeout=60), 0, "who started the daemon is done")
            workers = set(self.workers())
            self.assertEqual(len(workers), 2)
            self.under_wrk()
            self.wait_until(lambda: set(self.boxed()) == {self.master, *workers}, "three boxes")
            for pid in workers:
                self.assertGreater(self.profile_of(pid).total("alloc_space"), 0)
                # The recorder, no longer root either, still hears who may ask.
                result = self.heapflare("snapshot", str(pid), "--set-interval=1KiB")
                self.assertEqual(result.returncode, 0, result)
            self.assertEqual({self.boxed()[pid]["sample_interval"] for pid in workers}, {1024})
            # New workers; the old ones exit, and cannot remove what is in root's directory.
            result = self.heapflare("run", "--", "nginx", "-c", self.configuration, "-s", "reload")
            self.assertEqual(result.returncode, 0, result)
            self.wait_until(
                lambda: len(self.workers()) == 2 and not workers & set(self.workers()),
                "new workers")
            self.wait_until(lambda: set(self.boxed()) == {self.master, *self.workers()},
                            "the boxes of the old workers are gone")
            self.assertEqual(self.ask().stdout.count(b"\n"), 2000)


if __name__ == "__main__":
    unittest.main(argv=[arg for arg in sys.argv if arg != "--long"])
