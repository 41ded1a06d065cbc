#!/bin/bash
# Holds our sources to .clang-format and .clang-tidy. Exits 77 (skipped) where the tools are missing.
#   tests/lint.sh BUILD_DIRECTORY      with its compile_commands.json
set -eu
build=$(realpath "$1")
cd "$(dirname "$0")/.."
command -v clang-format > /dev/null && command -v clang-tidy > /dev/null || {
  echo "lint.sh: clang-format or clang-tidy is not installed; skipped"
  exit 77
}
mapfile -t sources < <(git ls-files 'lib/*.cc' 'lib/*.h' 'tools/*.cc' 'tools/*.h' 'include/*.h' \
  'examples/*.cc' 'examples/*.h' 'tests/*.cc' 'tests/*.h')
clang-format --dry-run --Werror "${sources[@]}"

mapfile -t units < <(git ls-files 'lib/*.cc' 'tools/*.cc')
printf '%s\n' "${units[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy --quiet -p "$build" 2> /dev/null
