#!/usr/bin/env python3
"""Measures what one pass of `heapflare leaks --reach` costs the service, and prints a table.

    tests/bench/reach.py --build build/release [--mib 1024] [--passes 20]

Pause, fork and extra memory are what the recorder states; "longest stop" is seen from within: a thread that reads
the clock without end, the longest time between two of its looks. Each is the median over the passes. A busy
machine makes the stop longer than the pause, since the thread waits for a processor as well.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile


def median(values, scale):
    return statistics.median(values) / scale


def measure(build, mib, pages, threads, passes):
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="heapflare-bench-", dir=shared) as scratch:
        environment = dict(os.environ, HEAPFLARE_BOX_DIR=scratch, HEAPFLARE_DIR=scratch)
        service = subprocess.Popen(
            [f"{build}/tests/bench/reach_bench", str(mib), pages, str(threads)],
            env=dict(environment, LD_PRELOAD=f"{build}/lib/libheapflare.so"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if service.stdout.readline() != "ready\n":
                sys.exit("reach.py: reach_bench does not start")

            def longest():
                service.stdin.write("\n")
                service.stdin.flush()
                return int(service.stdout.readline())

            results = []
            for _ in range(passes):
                longest()
                output = subprocess.run(
                    [f"{build}/tests/leak/reach_verdicts", str(service.pid), "1", "0"],
                    env=environment, capture_output=True, text=True, check=False).stdout
                verdict = json.loads(output)
                if verdict["problem"]:
                    sys.exit(f"reach.py: {verdict['problem']}: {verdict['passes']}")
                results.append(dict(verdict["passes"][0], longest=longest()))
            return results
        finally:
            service.kill()
            service.wait()


def main():
    parser = argparse.ArgumentParser(description="Measures what a pass of leaks --reach costs.")
    parser.add_argument("--build", required=True, metavar="DIR")
    parser.add_argument("--mib", type=int, default=1024, help="memory that the service holds")
    parser.add_argument("--passes", type=int, default=20)
    arguments = parser.parse_args()
    print("| memory | pages | threads | pause without fork | fork | fork per GiB | longest stop "
          "| search at idle priority | extra memory |")
    print("|" + " --- |" * 9)
    for pages in ("small", "huge"):
        for threads in (1, 100, 500):
            passes = measure(arguments.build, arguments.mib, pages, threads, arguments.passes)
            modes = {one["mode"] for one in passes}
            pause = median([one["pause_ns"] - one["fork_ns"] for one in passes], 1e6)
            fork = median([one["fork_ns"] for one in passes], 1e6)
            per_gib = fork / (arguments.mib / 1024)
            stop = median([one["longest"] for one in passes], 1e6)
            scan = median([one["scan_ns"] for one in passes], 1e9)
            extra = median([one["extra_bytes"] for one in passes], 1 << 20)
            print(f"| {arguments.mib} MiB | {'2 MiB' if pages == 'huge' else '4 KiB'} | {threads + 2} "
                  f"| {f'{pause:.1f} ms' if modes == {1} else 'not stopped'} | {fork:.1f} ms "
                  f"| {per_gib:.1f} ms | {stop:.1f} ms | {scan:.2f} s | {extra:.1f} MiB |", flush=True)


if __name__ == "__main__":
    main()
