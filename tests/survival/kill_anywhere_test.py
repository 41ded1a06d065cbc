#!/usr/bin/env python3
"""A process can be killed at any instant, and its box still reads.

    kill_anywhere_test.py [--long] [--kills N] [--seed N]

kill_random kills a program that allocates on several threads at N random instants (300; 2,000 with
--long) and reads each box with the libraries that the command is made of. Every 50th box is then
read once more as a user would: `heapflare dump` must succeed and its profile must be free of faults.

Only where the kills fall is random: there is no false failure. 300 kills take about 8 s.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
import heap_profile


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=os.environ.get("HEAPFLARE_BUILD", "build/release"))
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--long", action="store_true", help="2,000 kills")
    options = parser.parse_args()
    build = pathlib.Path(options.build).resolve()
    programs = build / "tests/survival"
    kills = options.kills or (2000 if options.long else 300)

    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    place = pathlib.Path(tempfile.mkdtemp(prefix="heapflare-kill-", dir=memory))
    random = subprocess.run(
        [
            programs / "kill_random",
            f"--workload={programs / 'kill_workload'}",
            f"--plugin={programs / 'libkill_plugin.so'}",
            f"--library={build / 'lib/libheapflare.so'}",
            f"--directory={place}",
            f"--kills={kills}",
            f"--seed={options.seed}",
        ],
        check=False,
    )
    faults = [] if random.returncode == 0 else [f"kill_random: exit status {random.returncode}"]

    kept = sorted((place / "kept").glob("*.box"))
    for box in kept:
        profile = box.with_suffix(".pb.gz")
        command = [build / "bin/heapflare", "dump", box, "-o", profile]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            faults.append(f"heapflare dump {box}: {done.returncode}: {done.stderr.strip()}")
            continue
        faults += [f"{box}: {fault}" for fault in heap_profile.heap_faults(heap_profile.read(profile))]
    print(f"{'boxes read by the command':52} {len(kept):8}")
    # The kill may fall before there is a box, but hardly each time.
    if len(kept) * 2 < kills // 50:
        faults.append(f"only {len(kept)} boxes were kept")
    for fault in faults:
        print(fault)
    if faults:
        print(f"kept in {place}")
        return 1
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
