#!/usr/bin/env python3
"""Debian's own programs run under heapflare as they do without it, with every allocator, and their
profiles show where they allocate.

HEAPFLARE_BUILD names the build directory that holds bin/heapflare and lib/libheapflare.so.
`--long`: ten times the load.
"""

import os
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from profiled import ALLOCATORS, MIB, ProfiledTest, needs  # noqa: E402

LOAD = 10 if "--long" in sys.argv else 1

SQL = """
create table t(a integer primary key, b text);
with recursive c(x) as (select 1 union all select x + 1 from c where x < 20000)
  insert into t select x, hex(x * x) || 'a longer text, so that pages fill up' from c;
create index i on t(b);
select count(*), sum(length(b)), max(b) from t where b > '3' group by a % 3 order by 2;
"""

PYTHON = """
import json, subprocess, sys, threading
documents = [{f"key{i}": list(range(50)), "text": "x" * 700} for i in range(4000)]
text = json.dumps(documents)
def work(): results.append(len(json.dumps(json.loads(text), indent=1)))
results = []
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
child = subprocess.run([sys.executable, "-c", "print(sum(range(1000)))"], capture_output=True)
print(len(text), results, child.stdout)
sys.exit(3)
"""

CXX = """
#include <algorithm>
#include <map>
#include <string>
#include <vector>
std::map<std::string, std::vector<int>> Count(const std::vector<std::string>& words) {
  std::map<std::string, std::vector<int>> places;
  for (size_t i = 0; i < words.size(); ++i) places[words[i]].push_back(static_cast<int>(i));
  std::for_each(places.begin(), places.end(), [](auto& p) { std::sort(p.second.begin(), p.second.end()); });
  return undeclared;
}
"""

# Each of these commands is a process, half of them two.
BASH = """
set -e
total=0
for i in $(seq %d); do
  number=$(echo $((i * i)) | cat)
  total=$((total + number))
  (true)
  /bin/true
done
words=$(printf '%%s\\n' a b c a | sort | uniq -c | tr -s ' \\n' ' ')
trap 'echo "trap $total"' EXIT
echo "total $total words $words"
exit 7
"""


class Commands(ProfiledTest):
    def compare(self, command, options, check, allocators=ALLOCATORS, **more):
        """Runs it without heapflare, then with it and every allocator: same status, output, errors.

        check() is called after each run."""
        plain = subprocess.run(command, capture_output=True, text=True, env=self.clean,
                               cwd=self.directory, timeout=120, **more)
        for allocator in allocators:
            with self.subTest(allocator=allocator or "glibc"):
                result = self.heapflare("run", *self.run_options(allocator, *options), "--",
                                        *command, timeout=120, **more)
                self.assertEqual(result.returncode, plain.returncode, result)
                self.assertEqual(result.stdout, plain.stdout)
                self.assertEqual(result.stderr, plain.stderr)
                self.assertEqual(self.files(self.boxes, ""), [])
                check()
                shutil.rmtree(self.dumps, ignore_errors=True)

    def one_dump(self, program):
        dumps = [path for path in self.dump_files("exit")
                 if os.path.basename(path).startswith(f"{program}.")]
        self.assertEqual(len(dumps), 1, self.dump_files())
        return dumps[0]
    @needs("sqlite3")
    def test_sqlite3(self):
        def check():
            self.check_profile(
                self.one_dump("sqlite3"),
                {"__libc_start_main": 0.9, "sqlite3_step": 0.5, "sqlite3Malloc": 0.5})

        self.compare(["sqlite3", ":memory:"], ["--interval=16KiB", "--dump-at-exit"], check,
                     input=SQL)

    @needs("/usr/bin/python3")
    def test_python(self):
        def check():
            # Itself and the child that it starts.
            dumps = sorted(self.dump_files("exit"), key=os.path.getsize)
            self.assertEqual(len(dumps), 2, dumps)
            self.check_profile(dumps[-1], {"PyList_Append": 0.2, "_PyEval_EvalFrameDefault": 0.9,
                                           "start_thread": 0.5})

        self.compare(["/usr/bin/python3", "-c", PYTHON],
                     ["--interval=64KiB", "--dump-at-exit", "--max-stack=200"], check)

    @needs("g++")
    def test_compiler(self):
        def check():
            # The driver starts cc1plus, which has no names, but unwind information.
            self.check_profile(self.one_dump("cc1plus"), {"__libc_start_main": 0.9}, 8 * MIB)

        source = self.write("count.cc", CXX)
        self.compare(["g++", "-fsyntax-only", "-O1", "-Wall", source],
                     ["--interval=64KiB", "--dump-at-exit"], check)

    @needs("clang++")
    def test_clang(self):
        def check():
            self.check_profile(self.one_dump("clang++"), {"__libc_start_main": 0.5}, 4 * MIB)

        # Its libraries have 150 MiB, which take their time to be symbolized.
        source = self.write("count.cc", CXX)
        self.compare(["clang++", "-fsyntax-only", source], ["--interval=64KiB", "--dump-at-exit"],
                     check, allocators=("", "tcmalloc"))

    @needs("bash")
    def test_short_lived_children_of_a_shell(self):
        def check():
            self.assertEqual(self.dump_files(), [])

        script = self.write("script.sh", BASH % (50 * LOAD))
        self.compare(["bash", script], [], check, allocators=("",))
        # Exact, so that each of them does have a box for a moment.
        self.compare(["bash", script], ["--exact"], check)


if __name__ == "__main__":
    unittest.main(argv=[arg for arg in sys.argv if arg != "--long"])
