#!/usr/bin/env python3
"""The virtual machine that other tests run in is what they take it for.

Exit status 77: it cannot be made here; the reason is printed.
"""

import os
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, f"{HERE}/vm")

import vm  # noqa: E402

SCRIPT = """
set -e
cat /sys/fs/cgroup/cgroup.controllers > "$1/controllers"
id -u > "$1/user"
echo gone > "$2"
cat "$2" > "$1/seen"
mkdir /sys/fs/cgroup/box
echo +memory > /sys/fs/cgroup/cgroup.subtree_control
echo 32M > /sys/fs/cgroup/box/memory.max
(echo $BASHPID > /sys/fs/cgroup/box/cgroup.procs; exec head -c 64M /dev/zero | exec tail) || true
grep '^oom_kill ' /sys/fs/cgroup/box/memory.events > "$1/kills"
exit 5
"""


class VirtualMachineTest(unittest.TestCase):
    def test_it_has_cgroup_v2_kills_and_leaves_this_machine_alone(self):
        with tempfile.TemporaryDirectory() as shared, tempfile.TemporaryDirectory() as other:
            status = vm.run(["bash", "-c", SCRIPT, "script", shared, f"{other}/file"], shared)
            self.assertEqual(status, 5)
            self.assertIn("memory", self.read(f"{shared}/controllers").split())
            self.assertEqual(self.read(f"{shared}/user"), "0\n")
            self.assertEqual(self.read(f"{shared}/seen"), "gone\n")
            self.assertEqual(os.listdir(other), [])
            self.assertEqual(self.read(f"{shared}/kills"), "oom_kill 1\n")

    @staticmethod
    def read(path):
        with open(path, encoding="utf-8") as file:
            return file.read()


if __name__ == "__main__":
    try:
        vm.prepare()
    except vm.Unavailable as why:
        print(f"skipped: no virtual machine here: {why}")
        sys.exit(77)
    unittest.main()
