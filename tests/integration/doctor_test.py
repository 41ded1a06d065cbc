#!/usr/bin/env python3
"""Where preloading cannot work, `heapflare doctor` says why and what to do, `heapflare run` runs the
program all the same, and the recorder itself speaks up where it is loaded at all.

HEAPFLARE_BUILD names the build directory.
"""

import json
import os
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from profiled import HEAPFLARE, LIBRARY, ProfiledTest  # noqa: E402

# Allocates a little, says something, ends with a status of its own.
PLAIN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char** argv) {
  void* volatile block = malloc(100000);
  free(block);
  if (argc > 1 && fork() == 0) return 0;
  while (wait(NULL) > 0) {
  }
  puts("works");
  return 9;
}
"""
# As a statically linked allocator: the executable has malloc, and the loader finds that first.
OWN_MALLOC = PLAIN + r"""
#include <stddef.h>
#include <string.h>
static _Alignas(16) char arena[64 << 20];
static size_t used;
void* malloc(size_t bytes) {
  size_t* block = (size_t*)(arena + used);
  used += (bytes + 31) / 16 * 16;
  if (used > sizeof(arena)) return NULL;
  *block = bytes;
  return (char*)block + 16;
}
void free(void* block) { (void)block; }
void* calloc(size_t count, size_t bytes) { return malloc(count * bytes); }
void* realloc(void* block, size_t bytes) {
  void* other = malloc(bytes);
  if (block != NULL) memcpy(other, block, *(size_t*)((char*)block - 16) < bytes ?
                            *(size_t*)((char*)block - 16) : bytes);
  return other;
}
"""


class DoctorTest(ProfiledTest):
    def compile(self, name, source, *options, compiler="gcc"):
        if shutil.which(compiler) is None:
            self.skipTest(f"{compiler} is not installed")
        path = self.write(f"{name}.c", source)
        program = self.path(name)
        result = subprocess.run([compiler, "-O1", "-o", program, path, *options],
                                capture_output=True, text=True, env=self.clean)
        if result.returncode != 0:
            self.skipTest(f"{compiler} {' '.join(options)}: {result.stderr.strip()[:200]}")
        return program

    def findings(self, *arguments, env=None):
        """(exit status, {what: finding}); as text and as JSON it says the same."""
        text = self.heapflare("doctor", *arguments, env=env)
        document = json.loads(self.heapflare("doctor", "--json", *arguments, env=env).stdout)
        self.assertEqual(document["works"], text.returncode == 0)
        for finding in document["findings"]:
            line = next(line for line in text.stdout.splitlines()
                        if line.split()[1] == finding["what"].split()[0])
            self.assertEqual(line.split()[0], finding["level"])
            self.assertIn(finding["remedy"], text.stdout)
        return text.returncode, {f["what"]: f for f in document["findings"]}

    def check_refused(self, program, detail, remedy, arguments=()):
        """doctor says why and what to do; run says it in a line, and changes nothing else."""
        status, findings = self.findings("--", program)
        self.assertEqual(status, 1)
        self.assertEqual(findings["preload"]["level"], "FAIL")
        self.assertRegex(findings["preload"]["detail"], detail)
        self.assertRegex(findings["preload"]["remedy"], remedy)
        result = self.heapflare("run", "--", program, *arguments)
        self.assertEqual((result.returncode, result.stdout), (9, "works\n"), result)
        said = result.stderr.splitlines()
        self.assertRegex(said[0], rf"^heapflare run: .*{detail}.*; .*{remedy}.*; "
                                  r"running it without profiling$")
        self.assertEqual(self.box_files(), [])
        return said[1:]


class Program(DoctorTest):
    def test_that_is_dynamic_works(self):
        program = self.compile("dynamic", PLAIN)
        status, findings = self.findings("--", program)
        self.assertEqual(status, 0, findings)
        self.assertEqual(findings["preload"]["level"], "ok")
        result = self.heapflare("run", "--dump-at-exit", "--", program)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (9, "works\n", ""))
        self.assertEqual(self.reasons(), ["exit"])

    def test_that_is_static_cannot_be_reached(self):
        program = self.compile("static", PLAIN, "-static")
        self.assertEqual(self.check_refused(
            program, "is linked statically", "link it with heapflare::heapflare"), [])

    def test_that_has_a_malloc_of_its_own_hears_it_once_from_the_recorder_too(self):
        program = self.compile("own_malloc", OWN_MALLOC, "-fno-builtin")
        ours = ("heapflare: this program has a malloc of its own, which preloading cannot reach; "
                "link it with heapflare::wrap (see: heapflare doctor)")
        # With a child that it forks, which says nothing again.
        said = self.check_refused(program, "has a malloc of its own",
                                  "link it with heapflare::wrap", ["fork"])
        self.assertEqual(said, [ours])
        result = subprocess.run([program, "fork"], capture_output=True, text=True,
                                env=dict(self.environment, LD_PRELOAD=LIBRARY))
        self.assertEqual((result.returncode, result.stdout, result.stderr),
                         (9, "works\n", ours + "\n"))

    def test_that_hides_its_malloc_is_found_by_its_symbol_table(self):
        # The recorder cannot know: what the loader sees is libc's, which others in the process use.
        program = self.compile("hidden", OWN_MALLOC, "-fno-builtin", "-fvisibility=hidden")
        self.assertEqual(self.check_refused(program, "has a malloc of its own",
                                            "link it with heapflare::wrap"), [])

    @unittest.skipIf(os.geteuid() != 0, "only root can make a program setuid for another user")
    def test_that_is_setuid_cannot_be_reached(self):
        program = self.compile("setuid", PLAIN)
        os.chmod(self.directory, 0o755)
        os.chown(program, 65534, 65534)
        os.chmod(program, 0o4755)
        if os.statvfs(program).f_flag & os.ST_NOSUID:
            self.skipTest("temporary files are on a nosuid file system")
        self.assertEqual(self.check_refused(
            program, "has setuid: the loader ignores LD_PRELOAD", "run it as the user it becomes"),
            [])

    def test_of_musl_cannot_be_reached_and_is_not_broken(self):
        program = self.compile("musl", PLAIN, compiler="musl-gcc")
        self.assertEqual(self.check_refused(
            program, "uses musl, the recorder needs glibc", "build it for glibc"), [])


class Place(DoctorTest):
    def test_whose_directories_are_missing_is_told_that_they_will_be_made(self):
        # With their parents, as the recorder does it.
        settings = {"DIR": self.path("a/b/dumps"), "BOX_DIR": self.path("c/d/boxes")}
        status, findings = self.findings(env=self.with_settings(**settings))
        self.assertEqual(status, 0, findings)
        for what in ("dumps", "boxes"):
            self.assertIn("will be created", findings[what]["detail"])
        program = self.compile("dynamic", PLAIN)
        result = self.heapflare("run", "--dump-at-exit", "--exact", "--", program,
                                env=self.with_settings(**settings))
        self.assertEqual((result.returncode, result.stderr), (9, ""))
        self.assertEqual(len(os.listdir(settings["DIR"])), 1)
        self.assertTrue(os.path.isdir(settings["BOX_DIR"]))

    def test_whose_directories_cannot_be_made_fails_for_dumps_and_warns_for_boxes(self):
        # Below a file nobody can make one, not even root.
        file = self.write("file", "")
        status, findings = self.findings(env=self.with_settings(
            DIR=f"{file}/dumps", BOX_DIR=f"{file}/boxes"))
        self.assertEqual(status, 1)
        self.assertEqual(findings["dumps"]["level"], "FAIL")
        self.assertIn(f"{file}/dumps: Not a directory", findings["dumps"]["detail"])
        self.assertIn("set HEAPFLARE_DIR", findings["dumps"]["remedy"])
        self.assertEqual(findings["boxes"]["level"], "warn")
        self.assertIn("HEAPFLARE_BOX_DIR", findings["boxes"]["remedy"])

    def test_with_good_directories_and_settings_works(self):
        status, findings = self.findings()
        self.assertEqual(status, 0, findings)
        self.assertEqual(findings["settings"]["level"], "ok")
        self.assertIn("will be created", findings["dumps"]["detail"])

    def test_repeats_what_the_recorder_says_of_settings(self):
        status, findings = self.findings(env=self.with_settings(KEEP="many"))
        self.assertEqual(status, 0)
        self.assertEqual(findings["settings"]["level"], "warn")
        self.assertEqual(findings["settings"]["detail"],
                         "HEAPFLARE_KEEP: 'many': not a number from 1 to 1000; using 10")

    def doctor_without_cgroups(self, **settings):
        """With nothing to be seen below /sys/fs/cgroup, as where a container does not mount it."""
        command = ["unshare", "--mount", "sh", "-c",
                   'mount -t tmpfs none /sys/fs/cgroup && exec "$@"', "sh",
                   HEAPFLARE, "doctor", "--json"]
        result = subprocess.run(command, capture_output=True, text=True,
                                env=self.with_settings(**settings))
        if not result.stdout:
            self.skipTest(f"no mount namespace can be made: {result.stderr.strip()}")
        return result, {f["what"]: f for f in json.loads(result.stdout)["findings"]}

    def test_without_a_limit_to_be_read_says_how_to_give_one(self):
        result, findings = self.doctor_without_cgroups()
        self.assertEqual(result.returncode, 0, "the machine's memory is watched instead")
        self.assertEqual(findings["limit"]["level"], "warn")
        self.assertRegex(findings["limit"]["detail"], "the machine's memory; no cgroup limits")
        self.assertIn("set HEAPFLARE_LIMIT", findings["limit"]["remedy"])

    def test_with_a_limit_given_needs_none_to_be_read(self):
        result, findings = self.doctor_without_cgroups(LIMIT="256MiB")
        self.assertEqual(result.returncode, 0)
        self.assertEqual(findings["limit"]["level"], "ok")
        self.assertEqual(findings["limit"]["detail"], "256 MiB (HEAPFLARE_LIMIT)")


if __name__ == "__main__":
    unittest.main()
