"""What other heap profilers leave of a process that the kernel killed, to compare with."""

import glob
import math
import os
import re
from dataclasses import dataclass
from typing import Callable


class Incomplete(Exception):
    """The dump was cut off by the kill."""


def _gperftools_live(text):
    header = re.match(r"heap profile:\s*\d+:\s*(\d+)\s*\[", text)
    # Rows come first, the list of libraries last: without it, the dump was not finished.
    if header is None or not re.search(r"MAPPED_LIBRARIES:\n.*\[stack\]", text, re.DOTALL):
        raise Incomplete
    return int(header.group(1))


def _jemalloc_live(text):
    header = re.match(r"heap_v2/(\d+)\n", text)
    if header is None or not re.search(r"MAPPED_LIBRARIES:\n.*\[stack\]", text, re.DOTALL):
        raise Incomplete
    interval = int(header.group(1))
    live = 0.0
    # A stack, then lines per thread of which t* is the sum; sampled, so scaled up as jeprof does.
    for count, size in re.findall(r"^@ .*\n\s+t\*: (\d+): (\d+) \[", text, re.MULTILINE):
        if int(count) > 0:
            live += int(size) / -math.expm1(-int(size) / int(count) / interval)
    return live


@dataclass
class Peer:
    name: str
    library: str
    environment: Callable  # directory -> variables
    dumps: str  # pattern of file names
    live: Callable  # text of a dump -> bytes

    def path(self):
        """The installed library, or None."""
        found = glob.glob(f"/usr/lib/*/{self.library}") + glob.glob(f"/usr/lib*/{self.library}")
        return found[0] if found else None

    def last_live(self, directory):
        """(live bytes, complete dumps, dumps cut off), live bytes of the last complete dump."""
        live, complete, cut = 0, 0, 0
        dumps = glob.glob(os.path.join(directory, self.dumps))
        for dump in sorted(dumps, key=lambda path: (os.stat(path).st_mtime_ns, path)):
            with open(dump, encoding="utf-8", errors="replace") as file:
                text = file.read()
            try:
                live, complete = self.live(text), complete + 1
            except Incomplete:
                cut += 1
        return live, complete, cut


PEERS = [
    # A dump every 100 MiB of growth, as it comes.
    Peer(
        "gperftools HEAPPROFILE",
        "libtcmalloc.so.4",
        lambda directory: {"HEAPPROFILE": f"{directory}/heap"},
        "heap.*.heap",
        _gperftools_live,
    ),
    *(
        # A dump every 2^n bytes of allocations, sampled as in our runs.
        Peer(
            f"jemalloc lg_prof_interval:{lg_bytes}",
            "libjemalloc.so.2",
            lambda directory, lg_bytes=lg_bytes: {
                "MALLOC_CONF": f"prof:true,lg_prof_sample:16,lg_prof_interval:{lg_bytes},"
                f"prof_prefix:{directory}/heap"
            },
            "heap.*.heap",
            _jemalloc_live,
        )
        for lg_bytes in (25, 26)
    ),
]
