#!/usr/bin/env python3
"""The finished libheapflare.so and its archives, held to golden lists: what they export, import and
need, and how they are linked.

The library is loaded into programs that others wrote: a symbol too many takes the place of one of
theirs, a symbol version too new keeps them from starting. The lists are in golden/; the hooks come
from lib/recorder/hook_list.h, of which everything else is made too.

HEAPFLARE_BUILD names the build directory. Reads with binutils' readelf and nm.
"""

import os
import re
import shutil
import subprocess
import sys
import unittest

BUILD = os.path.abspath(os.environ.get("HEAPFLARE_BUILD", "build/release"))
LIBRARY = os.path.join(BUILD, "lib", "libheapflare.so")
HERE = os.path.dirname(os.path.abspath(__file__))
HOOK_LIST = os.path.join(HERE, "..", "..", "lib", "recorder", "hook_list.h")
NEWEST_GLIBC = (2, 28)


def run(*command):
    # In the language that is parsed.
    environment = dict(os.environ, LC_ALL="C")
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment).stdout


def golden(name):
    """(names that must be there, names that may be there)."""
    with open(os.path.join(HERE, "golden", name), encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    may = {line[:-1] for line in lines if line.endswith("?")}
    return {line for line in lines if not line.endswith("?")}, may


def hooked_functions():
    """The symbols of hook_list.h, the second argument of each X()."""
    with open(HOOK_LIST, encoding="utf-8") as file:
        code = re.sub(r"//.*", "", file.read())
    return set(re.findall(r"\bX\(\w+, (\w+),", code))


def hooks_and_api():
    must, may = golden("exports.txt")
    assert not may
    return must | hooked_functions()


class DynamicSymbol:
    def __init__(self, line):
        # 5: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND dlsym@GLIBC_2.2.5 (2)
        fields = line.split()
        self.kind, self.binding, self.visibility, self.section = fields[3:7]
        self.name, _, version = (fields[7] if len(fields) > 7 else "").partition("@")
        self.version = version.lstrip("@")
        self.defined = self.section != "UND"


def dynamic_symbols():
    lines = run("readelf", "-W", "--dyn-syms", LIBRARY).splitlines()
    symbols = [DynamicSymbol(line) for line in lines if re.match(r"\s*\d+: ", line)]
    return [symbol for symbol in symbols if symbol.name]


def dynamic_section():
    """[(tag, value)] of the dynamic section."""
    text = run("readelf", "-W", "-d", LIBRARY)
    return re.findall(r"^ 0x[0-9a-f]+ \((\w+)\)\s+(.*)$", text, re.MULTILINE)


class Library(unittest.TestCase):
    def test_exports_the_hooks_and_the_api_and_nothing_else(self):
        exports = [symbol.name for symbol in dynamic_symbols() if symbol.defined]
        self.assertEqual(sorted(exports), sorted(hooks_and_api()))

    def test_every_form_of_new_and_delete_is_hooked(self):
        # Not from the list itself: counted from the C++ standard. new and new[], plain and nothrow,
        # aligned or not; delete has sized forms too, which have no nothrow.
        hooked = hooked_functions()
        news = {name for name in hooked if re.match(r"_Zn[wa]", name)}
        deletes = {name for name in hooked if re.match(r"_Zd[la]", name)}
        self.assertEqual((len(news), len(deletes)), (8, 12))

    def test_exports_are_functions_that_can_be_interposed_and_have_no_version(self):
        for symbol in dynamic_symbols():
            if symbol.defined:
                self.assertEqual((symbol.kind, symbol.visibility, symbol.version),
                                 ("FUNC", "DEFAULT", ""), symbol.name)

    def test_imports_exactly_the_listed_functions(self):
        must, may = golden("imports.txt")
        imports = {symbol.name for symbol in dynamic_symbols() if not symbol.defined}
        self.assertEqual(imports - may, must)

    def test_no_symbol_version_is_newer_than_glibc_2_28(self):
        text = run("readelf", "-W", "-V", LIBRARY)
        needs = re.findall(r"^\s+0x[0-9a-f]+:\s+Name: (\S+)", text, re.MULTILINE)
        self.assertGreater(len(needs), 0, "no version needs were found")
        for name in needs:
            match = re.fullmatch(r"GLIBC_(\d+)\.(\d+)(\.\d+)?", name)
            self.assertIsNotNone(match, f"{name} is not a version of glibc")
            self.assertLessEqual((int(match[1]), int(match[2])), NEWEST_GLIBC, name)

    def test_needs_libc_and_its_parts_only(self):
        must, may = golden("needed.txt")
        needed = {re.search(r"\[(.*)\]", value)[1] for tag, value in dynamic_section()
                  if tag == "NEEDED"}
        self.assertEqual(needed - may, must)
        # Implied by both, but what breaks a service in the worst way deserves its own line.
        for name in needed:
            self.assertNotRegex(name, r"libstdc\+\+|libgcc_s|libunwind")

    def test_does_not_take_the_unwinders_place(self):
        taken = [symbol.name for symbol in dynamic_symbols() if re.match(
            r"_Unwind_|_?unw_|_U|backtrace|__(de)?register_frame|__cxa_throw", symbol.name)]
        self.assertEqual(taken, [])

    def test_thread_local_storage_is_initial_exec(self):
        kinds = set(re.findall(r"\bR_\w+", run("readelf", "-W", "-r", LIBRARY)))
        # The module number and the offset in it are what __tls_get_addr is called with;
        # a descriptor may allocate as well.
        dynamic = [kind for kind in kinds if re.search(r"DTPMOD|DTPOFF|DTPREL|TLSDESC", kind)]
        self.assertEqual(dynamic, [])
        self.assertTrue(kinds & {"R_X86_64_TPOFF64", "R_AARCH64_TLS_TPREL"}, kinds)
        flags = dict(dynamic_section())
        self.assertIn("STATIC_TLS", flags["FLAGS"])
        self.assertNotIn("__tls_get_addr", {symbol.name for symbol in dynamic_symbols()})

    def test_takes_little_of_each_threads_static_storage(self):
        headers = run("readelf", "-W", "-l", LIBRARY)
        size = re.search(r"^\s+TLS\s+\S+ \S+ \S+ \S+ (0x[0-9a-f]+)", headers, re.MULTILINE)
        self.assertLessEqual(int(size[1], 16), 256)

    def test_all_is_bound_at_the_start_and_nothing_is_patched_later(self):
        tags = dynamic_section()
        names = {tag for tag, _ in tags}
        flags = dict(tags)
        self.assertIn("BIND_NOW", flags["FLAGS"])
        self.assertRegex(flags["FLAGS_1"], r"\bNOW\b.*\bNODELETE\b")
        self.assertNotIn("TEXTREL", names)
        self.assertNotIn("TEXTREL", flags["FLAGS"])
        # Its own look-ups must find what a program's would: see find_dynamic.cc.
        self.assertNotIn("SYMBOLIC", names)
        self.assertNotIn("SYMBOLIC", flags["FLAGS"])
        # Where else would it look for libraries than the service does?
        self.assertFalse(names & {"RPATH", "RUNPATH"})

    def test_neither_stack_nor_any_segment_is_both_writable_and_executable(self):
        headers = run("readelf", "-W", "-l", LIBRARY)
        segments = re.findall(r"^\s+(\w+)\s+(?:0x[0-9a-f]+\s+){5}([RWE ]{3})", headers, re.MULTILINE)
        names = {name for name, _ in segments}
        # Without a GNU_STACK header the stack would be executable.
        self.assertTrue({"LOAD", "GNU_STACK", "GNU_RELRO"} <= names, names)
        for name, flags in segments:
            self.assertFalse("W" in flags and "E" in flags, f"{name} {flags}")

    def test_hooks_are_reached_by_name_only(self):
        # A relocation against one of our own exports would go to whoever interposes it.
        own = hooks_and_api()
        relocations = run("readelf", "-W", "-r", LIBRARY)
        against = set(re.findall(r"(?:GLOB_DAT|JUMP_SLOT?)\s+[0-9a-f]+ (\w+)", relocations))
        self.assertGreater(len(against), 5)
        self.assertEqual(against & own, set())


class Archives(unittest.TestCase):
    def global_symbols(self, name):
        """(defined, undefined) global symbols of an archive."""
        text = run("nm", "-g", "--format=posix", os.path.join(BUILD, "lib", name))
        defined, undefined = set(), set()
        for line in text.splitlines():
            fields = line.split()
            if len(fields) < 2:
                continue
            (undefined if fields[1] in "Uvw" else defined).add(fields[0].split("@")[0])
        return defined, undefined

    def test_libheapflare_a_defines_the_hooks_and_the_api(self):
        defined, _ = self.global_symbols("libheapflare.a")
        self.assertEqual(defined, hooks_and_api())

    def test_libheapflare_wrap_a_defines_the_wrappers_and_the_api(self):
        defined, undefined = self.global_symbols("libheapflare_wrap.a")
        api = {name for name in hooks_and_api() if name.startswith("heapflare_")}
        hooks = hooks_and_api() - api
        self.assertEqual(defined, {f"__wrap_{name}" for name in hooks} | api)
        # valloc and pvalloc are made from memalign: libc's would pull libc's malloc into a program
        # that has another one. reallocarray is passed on as realloc.
        real = {name[len("__real_"):] for name in undefined if name.startswith("__real_")}
        self.assertEqual(real, hooks - {"valloc", "pvalloc", "reallocarray"})

    def test_archives_need_nothing_beyond_libc_and_libgcc(self):
        must, may = golden("imports.txt")
        # What libc_nonshared.a and libgcc.a hold, the latter of it only integer arithmetic.
        beside = {"pthread_atfork", "_GLOBAL_OFFSET_TABLE_", "__udivti3", "_dl_find_object",
                  "_r_debug", "__libc_single_threaded", "__ehdr_start", "_end", "__start_heapflare_calling",
                  "__stop_heapflare_calling"}
        for name in ("libheapflare.a", "libheapflare_wrap.a"):
            _, undefined = self.global_symbols(name)
            undefined = {symbol for symbol in undefined if not symbol.startswith("__real_")}
            self.assertEqual(undefined - must - may - beside, set(), name)


if __name__ == "__main__":
    missing = [tool for tool in ("readelf", "nm") if shutil.which(tool) is None]
    if missing:
        print(f"dynamic_tables_test.py: {missing[0]} is not installed; skipped")
        sys.exit(77)
    unittest.main()
