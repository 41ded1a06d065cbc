#!/bin/bash
# Runs all tests: installs what is missing, builds, and runs them with g++ (everything, fuzzing too), under ASan and
# UBSan and under TSan (the unit tests).
# ctest's summary comes last. About half an hour on two cores.
#   tests/run.sh          all
#   tests/run.sh REGEX    the tests whose names match, g++ only
set -eu
cd "$(dirname "$0")/.."

tests/support/install_packages.sh --lab
jobs=$(nproc)

# build PRESET [TARGET…]
build() {
  local preset=$1
  shift
  cmake --preset "$preset" > "build/$preset.configure.log" 2>&1 || { cat "build/$preset.configure.log"; exit 1; }
  cmake --build --preset "$preset" -j "$jobs" ${1+--target "$@"} > "build/$preset.build.log" 2>&1 ||
    { tail -n 60 "build/$preset.build.log"; exit 1; }
}

mkdir -p build
build release
if [ $# -gt 0 ]; then
  exec ctest --preset release -R "$1"
fi

status=0
build asan unit_programs
ctest --preset asan -L unit -j "$jobs" || status=1
build tsan unit_programs
# Left out: what runs in one thread and takes minutes under TSan, or is stepped through, which TSan's signals do not bear.
ctest --preset tsan -L unit -E 'hostile_box_test|leak_growth_test|profile_test|row_walk_test|_replay' -j "$jobs" || status=1
build clang unit_programs heapflare heapflare_command
ctest --test-dir build/clang -L unit -j "$jobs" --output-on-failure || status=1
if command -v clang++ > /dev/null; then build fuzz fuzz_targets; fi
# Tests that measure or fill a memory cgroup must not share the machine: they say so themselves (RUN_SERIAL).
ctest --preset release -j "$jobs" || status=1
exit $status
