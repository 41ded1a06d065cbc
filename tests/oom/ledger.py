"""Reads the ledger of oom_workload: what was live when it died. The layout is in ledger.h."""

import struct
from dataclasses import dataclass

from heap_profile import sampling_variance

MAGIC = b"HLEDGER1"


@dataclass
class Account:
    """What a site, or all of them, had live."""

    bytes: int = 0
    objects: int = 0
    counts: dict = None  # size -> objects

    def add(self, size, objects):
        self.bytes += size * objects
        self.objects += objects
        self.counts = self.counts or {}
        self.counts[size] = self.counts.get(size, 0) + objects

    def variance(self, interval):
        """Of an estimate of the bytes that samples one byte in `interval`."""
        counts = self.counts or {}
        return sum(n * sampling_variance(size, interval) for size, n in counts.items())


class Ledger:
    def __init__(self, path):
        with open(path, "rb") as file:
            data = file.read()
        if data[:8] != MAGIC:
            raise ValueError(f"{path}: not a ledger: it starts with {data[:8]!r}")
        lanes, sites, sizes, lane_bytes = struct.unpack_from("<4I", data, 8)
        names_at = 24
        sizes_at = names_at + 32 * sites
        lanes_at = (sizes_at + 8 * sizes + 63) // 64 * 64
        self.sites = [
            data[at : at + 32].rstrip(b"\0").decode()
            for at in range(names_at, sizes_at, 32)
        ]
        self.block_sizes = struct.unpack_from(f"<{sizes}Q", data, sizes_at)
        self.by_site = {name: Account() for name in self.sites}
        # Bytes of blocks of which nobody can say whether they are live and recorded.
        self.undecided = {name: 0 for name in self.sites}
        for lane in range(lanes):
            at = lanes_at + lane * lane_bytes
            announced, *counts = struct.unpack_from(f"<{1 + sites * sizes}Q", data, at)
            if announced:
                site, size = divmod(announced - 1, sizes)
                self.undecided[self.sites[site]] += self.block_sizes[size]
            for index, count in enumerate(counts):
                if count:
                    site, size = divmod(index, sizes)
                    self.by_site[self.sites[site]].add(self.block_sizes[size], count)

    def total(self):
        sum_of_all = Account()
        for account in self.by_site.values():
            for size, objects in (account.counts or {}).items():
                sum_of_all.add(size, objects)
        return sum_of_all
