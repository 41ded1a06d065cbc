"""Talks to tests/integration/actor.cc, with the recorder preloaded into it."""

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from profiled import BUILD, LIBRARY, PATIENCE, ProfiledTest  # noqa: E402

ACTOR = os.path.join(BUILD, "tests", "integration", "actor")


class Actor:
    def __init__(self, test, environment, program=ACTOR, **options):
        self.test = test
        self.errors = open(test.path(f"stderr.{len(test.started)}"), "w+", encoding="utf-8")
        test.addCleanup(self.errors.close)
        self.process = test.start(
            [program], env=dict(environment, LD_PRELOAD=LIBRARY), cwd=test.directory, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, **options)
        self.pid = self.process.pid
        test.assertEqual(self.process.stdout.readline(), "ready\n")

    def tell(self, command):
        """Its answer."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def does(self, *commands):
        for command in commands:
            self.test.assertEqual(self.tell(command), "ok", command)

    def end(self, how="exit"):
        """Its exit status, as subprocess tells it."""
        self.does(f"end {how}")
        return self.process.wait(timeout=PATIENCE)

    def said(self):
        """The lines on its standard error."""
        self.errors.seek(0)
        return self.errors.read().splitlines()


class ActorTest(ProfiledTest):
    def actor(self, program=ACTOR, options=None, **settings):
        """A new one; settings are variables without their HEAPFLARE_."""
        return Actor(self, self.with_settings(**settings), program, **(options or {}))

    def barrier(self, actor, interval=1):
        """Returns when the recorder has looked at memory after now, and has written what it then
        wanted to: each request is served after a look, the second one's look was wholly after now.
        """
        self.wait_until(lambda: self.box_of(actor.pid), "its box")
        for _ in range(3):
            result = self.heapflare("snapshot", str(actor.pid), f"--set-interval={interval}")
            self.assertEqual(result.returncode, 0, result)

    def expect_reasons(self, *reasons):
        """These dumps, in this order, come to be."""
        self.wait_until(lambda: len(self.reasons()) >= len(reasons), f"dumps: {reasons}")
        self.assertEqual(self.reasons(), list(reasons))

    def box_of(self, pid):
        """The path of the process's box, or None."""
        found = [path for path in self.box_files()
                 if re.search(rf"\.{pid}\.\d+\.box$", os.path.basename(path))]
        self.assertLessEqual(len(found), 1, found)
        return found[0] if found else None
