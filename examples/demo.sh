#!/bin/bash
# The main job, for real: a leaking service in a memory cgroup of 256 MiB is killed by the kernel, and its heap profile is
# there all the same. Installs what is missing (Debian, as root), builds, runs, shows.
#   examples/demo.sh [MIB_PER_SECOND]       default 64
set -eu
cd "$(dirname "$0")/.."
rate=${1:-64}

tests/support/install_packages.sh
mkdir -p build
cmake --preset release > build/release.configure.log 2>&1 || { cat build/release.configure.log; exit 1; }
cmake --build --preset release > build/release.build.log 2>&1 || { tail -n 60 build/release.build.log; exit 1; }

. tests/support/memory_cgroup.sh
heapflare=$PWD/build/release/bin/heapflare
service=$PWD/build/release/examples/leaky_service
results=$(mktemp -d /tmp/heapflare-demo-XXXXXX)
boxes=$(mktemp -d /dev/shm/heapflare-demo-XXXXXX 2> /dev/null || mktemp -d "$results/boxes-XXXXXX")
trap 'remove_memory_cgroup; rm -rf "$boxes"' EXIT

run=("$heapflare" run --dir "$results" --box-dir "$boxes" --interval 64KiB)
if make_memory_cgroup heapflare-demo $((256 << 20)); then
  echo "1. leaky_service leaks $rate MiB/s in a memory cgroup of 256 MiB ($CGROUP)."
  kills=$(cgroup_oom_kills)
  status=0
  (enter_memory_cgroup && exec "${run[@]}" -- "$service" --rate="$rate") > "$results/service.log" 2>&1 || status=$?
  echo "   The kernel killed it: exit status $status, oom_kill $kills → $(cgroup_oom_kills)."
else
  echo "1. No memory cgroup: $CGROUP_PROBLEM."
  echo "   So HEAPFLARE_LIMIT=256MiB stands for it, and a SIGKILL, which is what the OOM killer sends, ends the service."
  "${run[@]}" --limit 256MiB --metric rss -- "$service" --rate="$rate" > "$results/service.log" 2>&1 &
  runner=$!
  until pid=$(pgrep -P "$runner" leaky_service); do kill -0 "$runner" && sleep 0.05; done
  while resident=$(awk '/^VmRSS/ {print $2}' "/proc/$pid/status") && [ "${resident:-0}" -lt $((254 << 10)) ]; do sleep 0.02; done
  kill -KILL "$pid"
  status=0
  wait "$runner" || status=$?
  echo "   Killed at $((resident >> 10)) MiB: exit status $status."
fi

echo
echo "2. Dumps that were taken on the way up:"
for dump in "$results"/*.pb.gz; do
  [ -e "$dump" ] || continue
  echo "   $(basename "$dump")   $(go tool pprof -comments "$dump" 2> /dev/null | sed -n 's/^taken: //p')"
done

echo
echo "3. What the box still holds after the kill:"
"$heapflare" ls "$boxes" | sed 's/^/   /'
recovered=$("$heapflare" dump "$boxes" -o "$results/recovered.pb.gz")

echo
echo "4. go tool pprof -top of the profile recovered from the box (names added by heapflare symbolize):"
"$heapflare" symbolize "$recovered" -o "$recovered" > /dev/null
go tool pprof -top -nodecount=8 "$recovered" 2> /dev/null | sed 's/^/   /'

echo
echo "The profiles are in $results; for the callers:  go tool pprof -traces $recovered"
