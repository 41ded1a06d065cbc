#!/usr/bin/env python3
"""What a program's malloc and free run through when nothing is sampled, read in the disassembly.

From a hook's first instruction to the jump into the next allocator: a few instructions, no call (so no PLT and no
__tls_get_addr), and no more branches than there are questions, each predicted, so that the usual way falls through.

HEAPFLARE_BUILD names the build directory. Reads with binutils' objdump and readelf.
"""

import os
import platform
import re
import subprocess
import sys
import unittest

BUILD = os.path.abspath(os.environ.get("HEAPFLARE_BUILD", "build/release"))
LIBRARY = os.path.join(BUILD, "lib", "libheapflare.so")

# Hook: questions, most instructions. calloc's product may overflow; a realloc allocates and frees.
FAST_PATHS = {
    "malloc": (1, 8), "free": (1, 8), "calloc": (2, 14), "realloc": (2, 18), "aligned_alloc": (1, 8),
    "_Znwm": (1, 8), "_Znam": (1, 8), "_ZnwmSt11align_val_t": (1, 8), "_ZdlPv": (1, 8), "_ZdlPvm": (1, 8),
    "_ZdaPv": (1, 8),
}


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ, LC_ALL="C")).stdout


def instructions(function):
    """(mnemonic, operands) from its first one on."""
    listed = run("objdump", "-d", "--no-show-raw-insn", f"--disassemble={function}", LIBRARY)
    lines = [line.split("\t", 1)[1] for line in listed.splitlines() if re.match(r" +[0-9a-f]+:\t", line)]
    return [tuple((line.split(None, 1) + [""])[:2]) for line in lines]


def fast_path(function):
    """Up to and with the first jump that is always taken."""
    path = []
    for mnemonic, operands in instructions(function):
        path.append((mnemonic, operands))
        if mnemonic in ("jmp", "ret", "notrack"):
            break
    return path


class FastPath(unittest.TestCase):
    def test_leads_to_the_next_allocator_without_a_call_and_with_one_branch_for_each_question(self):
        for function, (questions, most) in FAST_PATHS.items():
            with self.subTest(function):
                path = fast_path(function)
                text = "\n".join(" ".join(line) for line in path)
                mnemonics = [mnemonic for mnemonic, _ in path]
                self.assertRegex(" ".join(path[-1]), r"^jmp \*.*\(%rip\)", text)
                self.assertNotIn("call", mnemonics, text)
                self.assertNotIn("push", mnemonics, text)
                branches = [m for m in mnemonics if m.startswith("j") and m != "jmp"]
                self.assertEqual(len(branches), questions, text)
                self.assertLessEqual(len(path), most, text)

    def test_there_is_no_lazily_bound_function_and_no_tls_that_is_allocated_on_demand(self):
        self.assertNotIn("__tls_get_addr", run("readelf", "-W", "--dyn-syms", LIBRARY))
        relocations = run("readelf", "-rW", LIBRARY)
        self.assertNotRegex(relocations, r"DTPMOD|TLSDESC")
        self.assertRegex(run("readelf", "-dW", LIBRARY), r"FLAGS.*(NOW|BIND_NOW)")


if __name__ == "__main__":
    if platform.machine() != "x86_64":
        print("skipped: the instructions of x86_64 are looked for")
        sys.exit(77)
    unittest.main()
