# Memory cgroups for scripts: source this. All names are our own; what was there before is left alone.
#
#   make_memory_cgroup NAME LIMIT   creates one below this process's own; sets CGROUP to its directory, or to "" with the
#                                   reason in CGROUP_PROBLEM
#   enter_memory_cgroup             moves the calling subshell into it
#   cgroup_oom_kills                how many processes the kernel killed in it
#   remove_memory_cgroup

make_memory_cgroup() {
  CGROUP=""
  CGROUP_PROBLEM=""
  local own limit_file
  own=$(awk -F: '$2 ~ /(^|,)memory(,|$)/ {print $3}' /proc/self/cgroup)
  if [ -n "$own" ] && [ -d /sys/fs/cgroup/memory ]; then
    CGROUP=/sys/fs/cgroup/memory$own
    [ -d "$CGROUP" ] || CGROUP=/sys/fs/cgroup/memory
    limit_file=memory.limit_in_bytes
  elif [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    CGROUP=/sys/fs/cgroup
    grep -qw memory "$CGROUP/cgroup.subtree_control" 2> /dev/null ||
      echo +memory > "$CGROUP/cgroup.subtree_control" 2> /dev/null || true
    limit_file=memory.max
  else
    CGROUP_PROBLEM="no memory controller is mounted below /sys/fs/cgroup"
    return 1
  fi
  CGROUP="$CGROUP/$1-$$"
  if ! mkdir "$CGROUP" 2> /dev/null || ! echo "$2" > "$CGROUP/$limit_file" 2> /dev/null; then
    CGROUP_PROBLEM="$CGROUP cannot be made (not root, or the hierarchy is read-only)"
    rmdir "$CGROUP" 2> /dev/null || true
    CGROUP=""
    return 1
  fi
}

enter_memory_cgroup() { echo "$BASHPID" > "$CGROUP/cgroup.procs"; }

cgroup_oom_kills() {
  cat "$CGROUP/memory.oom_control" "$CGROUP/memory.events" 2> /dev/null |
    awk '$1 == "oom_kill" {print $2; exit}'
}

remove_memory_cgroup() { [ -z "$CGROUP" ] || rmdir "$CGROUP" 2> /dev/null || true; }
