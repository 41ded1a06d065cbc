#!/bin/bash
# Installs the Debian packages that building, testing and the demonstration need. Does nothing if
# they are there.
#
#   install_packages.sh          install what is missing; needs root for that
#   install_packages.sh --lab    and what the tests in tests/lab and tests/oom need: a virtual
#                                machine, containers (30 s more; without them those tests are skipped)
#   install_packages.sh --list   print the names of all
#
# Exit status: 0 everything is there, 1 it is not.
set -euo pipefail

packages=(
  # to build
  g++ cmake ninja-build make pkg-config clang libclang-rt-dev clang-format clang-tidy binutils dpkg-dev patch
  xz-utils ca-certificates zlib1g-dev libabsl-dev libprotobuf-dev protobuf-compiler libelf-dev libdw-dev
  nlohmann-json3-dev libcli11-dev libgtest-dev libbenchmark-dev
  # to read profiles
  golang-go
  # other allocators, and peers to compare with
  libjemalloc2 libjemalloc-dev google-perftools libgoogle-perftools4 libgoogle-perftools-dev
  libmimalloc2.0
  # programs that the tests preload heapflare into, and what drives them
  redis-server redis-tools nginx-light wrk sqlite3 python3 musl-tools
  # to build for another processor and run it
  g++-aarch64-linux-gnu qemu-user
  # what scripts call
  procps curl file jq strace gdb valgrind heaptrack
  # debug information in all its shapes
  dwz debuginfod libdebuginfod1 llvm
)
lab_packages=(qemu-system-x86 busybox-static runc)
# Units that come with packages from the list; the tests start their own instances.
declare -A units=([redis-server]=redis-server.service [nginx-light]=nginx.service)

case ${1-} in
  --list) printf '%s\n' "${packages[@]}" "${lab_packages[@]}" && exit 0 ;;
  --lab) packages+=("${lab_packages[@]}") ;;
esac

if ! command -v dpkg-query >/dev/null; then
  echo "${0##*/}: this is not Debian; please see to the equivalents of: ${packages[*]}" >&2
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

if ((EUID != 0)); then
  echo "${0##*/}: packages are missing; as root: apt-get install ${missing[*]}" >&2
  exit 1
fi

# Packages of services start them when they are installed, unless a policy forbids it (see
# invoke-rc.d(8)). Services that already run are not touched: nothing that is there is asked for.
policy=/usr/sbin/policy-rc.d
saved=
restore_policy() {
  rm -f "$policy"
  [[ -z $saved ]] || mv "$saved" "$policy"
}
trap restore_policy EXIT
if [[ -e $policy || -L $policy ]]; then
  saved=$(mktemp "$policy.XXXXXX")
  mv "$policy" "$saved"
fi
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
log=$(mktemp)
if ! { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "${missing[@]}"; } \
  </dev/null >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "${0##*/}: apt-get failed, its output is in $log; install by hand: ${missing[*]}" >&2
  exit 1
fi
rm -f "$log"

# Nor are they to start with the next boot.
for package in "${missing[@]}"; do
  unit=${units[$package]-}
  if [[ -n $unit ]] && command -v systemctl >/dev/null; then
    systemctl --quiet disable "$unit" </dev/null >/dev/null 2>&1 || true  # no systemd here: no boot
  fi
done
