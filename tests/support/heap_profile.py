"""Reads pprof profiles (profile.proto, gzip or not) without a library, and looks for faults in
them.

Field numbers: https://github.com/google/pprof/blob/main/proto/profile.proto
"""

import gzip
import math
import re
import struct
import subprocess
import zlib
from dataclasses import dataclass, field


class ProfileError(Exception):
    """The bytes are not a profile; the message says why."""


@dataclass
class Mapping:
    id: int = 0
    start: int = 0
    limit: int = 0
    offset: int = 0
    file: str = ""
    build_id: str = ""
    has_functions: bool = False


@dataclass
class Location:
    id: int = 0
    mapping_id: int = 0
    address: int = 0
    functions: list = field(default_factory=list)  # innermost first; empty: not symbolized
    lines: list = field(default_factory=list)  # (system name, file, line) of each of these


@dataclass
class Sample:
    locations: list  # leaf first
    values: list
    labels: dict  # key -> number or string
    label_units: dict = field(default_factory=dict)  # key -> unit, of numbers
    repeated_labels: list = field(default_factory=list)  # keys that came more than once

    def functions(self):
        """Names along the stack, innermost first."""
        return [name for location in self.locations for name in location.functions]


@dataclass
class Profile:
    sample_types: list  # (type, unit)
    samples: list
    mappings: list
    locations: list
    function_ids: list
    comments: list
    strings: list
    period: int
    period_type: tuple
    time_nanos: int
    duration_nanos: int
    default_type: str
    drop_frames: str

    def index(self, name):
        for index, (kind, _) in enumerate(self.sample_types):
            if kind == name:
                return index
        raise ProfileError(f"has no sample type {name}, only {self.sample_types}")

    def total(self, name, wanted=lambda sample: True):
        """The sum of one sample type over the samples that are wanted."""
        index = self.index(name)
        return sum(sample.values[index] for sample in self.samples if wanted(sample))


def _varint(data, at):
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ProfileError("a number is cut off or too long")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value, at


def _fields(data):
    """Yields (number, value): value is bytes for length-delimited fields, an int for others."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, at = _varint(data, at)
        elif wire_type == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
            value, at = int.from_bytes(data[at : at + size], "little"), at + size
        else:
            raise ProfileError(f"field {number} has wire type {wire_type}")
        if at > len(data):
            raise ProfileError(f"field {number} is cut off")
        yield number, value


def _numbers(value):
    """A repeated number, packed or not."""
    if isinstance(value, int):
        return [value]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(number)
    return numbers


def _signed(value):
    return value - (1 << 64) if value >= 1 << 63 else value


def _message(data, names):
    """The fields of a message as a dict; names maps numbers to names, repeated ones end in '*'."""
    result = {name.rstrip("*"): [] if name.endswith("*") else 0 for name in names.values()}
    for number, value in _fields(data):
        name = names.get(number)
        if name is None:
            raise ProfileError(f"field {number} is not one of profile.proto's")
        if name.endswith("*"):
            result[name[:-1]].append(value)
        else:
            result[name] = value
    return result


_PROFILE = {
    1: "sample_type*", 2: "sample*", 3: "mapping*", 4: "location*", 5: "function*", 6: "string*",
    7: "drop_frames", 8: "keep_frames", 9: "time_nanos", 10: "duration_nanos", 11: "period_type",
    12: "period", 13: "comment*", 14: "default_type",
}  # fmt: skip
_VALUE_TYPE = {1: "type", 2: "unit"}
_SAMPLE = {1: "location*", 2: "value*", 3: "label*"}
_LABEL = {1: "key", 2: "string", 3: "number", 4: "unit"}
_MAPPING = {
    1: "id", 2: "start", 3: "limit", 4: "offset", 5: "file", 6: "build_id", 7: "has_functions",
    8: "has_filenames", 9: "has_line_numbers", 10: "has_inline_frames",
}  # fmt: skip
_LOCATION = {1: "id", 2: "mapping_id", 3: "address", 4: "line*", 5: "is_folded"}
_LINE = {1: "function_id", 2: "line", 3: "column"}
_FUNCTION = {1: "id", 2: "name", 3: "system_name", 4: "file", 5: "start_line"}


def parse(data):
    """The profile in these bytes, or ProfileError."""
    try:
        return _parse(data)
    except TypeError as problem:  # a number where a message belongs, or the other way round
        raise ProfileError(f"a field has the wrong wire type: {problem}") from problem


def _parse(data):
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, struct.error, zlib.error) as problem:
            raise ProfileError(f"gzip: {problem}") from problem
    raw = _message(data, _PROFILE)
    strings = []
    for value in raw["string"]:
        try:
            strings.append(bytes(value).decode())
        except UnicodeDecodeError as problem:
            raise ProfileError(f"string {len(strings)}: {problem}") from problem

    def text(index):
        if index >= len(strings):
            raise ProfileError(f"string {index} of {len(strings)} is used")
        return strings[index]

    def value_type(encoded):
        kind = _message(encoded or b"", _VALUE_TYPE)
        return text(kind["type"]), text(kind["unit"])

    functions = {}
    for encoded in raw["function"]:
        function = _message(encoded, _FUNCTION)
        functions[function["id"]] = (text(function["name"]), text(function["system_name"]),
                                     text(function["file"]))

    mappings = []
    for encoded in raw["mapping"]:
        m = _message(encoded, _MAPPING)
        mappings.append(
            Mapping(m["id"], m["start"], m["limit"], m["offset"], text(m["file"]),
                    text(m["build_id"]), bool(m["has_functions"]))
        )  # fmt: skip

    locations = []
    for encoded in raw["location"]:
        l = _message(encoded, _LOCATION)
        lines = [_message(line, _LINE) for line in l["line"]]
        missing = [line["function_id"] for line in lines if line["function_id"] not in functions]
        if missing:
            raise ProfileError(f"location {l['id']} uses function {missing[0]}, which is missing")
        names = [functions[line["function_id"]] for line in lines]
        locations.append(
            Location(l["id"], l["mapping_id"], l["address"], [name for name, _, _ in names],
                     [(system_name, file, line["line"])
                      for (_, system_name, file), line in zip(names, lines)])
        )  # fmt: skip
    by_id = {location.id: location for location in locations}

    samples = []
    for encoded in raw["sample"]:
        s = _message(encoded, _SAMPLE)
        ids = [number for value in s["location"] for number in _numbers(value)]
        missing = [number for number in ids if number not in by_id]
        if missing:
            raise ProfileError(f"a sample uses location {missing[0]}, which is missing")
        labels, units, repeated = {}, {}, []
        for encoded_label in s["label"]:
            label = _message(encoded_label, _LABEL)
            key = text(label["key"])
            if key in labels:
                repeated.append(key)
            labels[key] = text(label["string"]) or _signed(label["number"])
            units[key] = text(label["unit"])
        values = [_signed(number) for value in s["value"] for number in _numbers(value)]
        samples.append(Sample([by_id[number] for number in ids], values, labels, units, repeated))

    return Profile(
        sample_types=[value_type(encoded) for encoded in raw["sample_type"]],
        samples=samples,
        mappings=mappings,
        locations=locations,
        function_ids=list(functions),
        comments=[text(i) for value in raw["comment"] for i in _numbers(value)],
        strings=strings,
        period=_signed(raw["period"]),
        period_type=value_type(raw["period_type"]),
        time_nanos=raw["time_nanos"],
        duration_nanos=_signed(raw["duration_nanos"]),
        default_type=text(raw["default_type"]),
        drop_frames=text(raw["drop_frames"]),
    )


def read(path):
    """The profile in a file, or ProfileError."""
    try:
        with open(path, "rb") as file:
            return parse(file.read())
    except (OSError, ProfileError) as problem:
        raise ProfileError(f"{path}: {problem}") from problem


HEAP_TYPES = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
]


_PAGE = 4096


def heap_faults(profile):
    """What the consumers of heap profiles would stumble over, in words; empty if nothing.

    What cannot be in a Profile at all, parse has refused: strings that are no UTF-8, references to
    what is not there, fields that old readers do not know.
    """
    faults = []

    def check(holds, fault):
        if not holds and len(faults) < 10:
            faults.append(fault)

    check(profile.strings[:1] == [""], "the first string is not empty")
    check(profile.sample_types == HEAP_TYPES, f"sample types are {profile.sample_types}")
    check(profile.period_type == ("space", "bytes"), f"period type is {profile.period_type}")
    check(profile.period >= 0, f"the period is {profile.period}")
    check(profile.default_type in ("", "inuse_space"), f"default type is {profile.default_type}")
    year_2020 = 1_577_836_800_000_000_000
    check(profile.time_nanos > year_2020, f"the time is {profile.time_nanos}")
    check(profile.duration_nanos == 0, "a snapshot has no duration")
    check(profile.drop_frames == "", "frames to drop are honoured by few readers")
    for name, ids in (
        ("mapping", [mapping.id for mapping in profile.mappings]),
        ("location", [location.id for location in profile.locations]),
        ("function", profile.function_ids),
    ):
        check(ids == list(range(1, len(ids) + 1)), f"{name} ids are not 1, 2, 3, ...")
    _check_mappings(profile, check)
    _check_locations(profile, check)
    _check_samples(profile, check)
    return faults


def _is_file(mapping):
    """Not [unknown], [anon], [vdso] and the like."""
    return not mapping.file.startswith("[")


def _check_mappings(profile, check):
    check(profile.mappings and "/" in profile.mappings[0].file, "mapping 1 is not a program")
    for mapping in profile.mappings:
        check(mapping.file, f"mapping {mapping.id} has no name")
        check(mapping.start < mapping.limit, f"mapping {mapping.id} is empty")
        check(
            re.fullmatch(r"([0-9a-f]{2})*", mapping.build_id),
            f"build id {mapping.build_id} is not in lower-case hexadecimal digits",
        )
        if not _is_file(mapping):
            continue
        for name, value in (("start", mapping.start), ("limit", mapping.limit),
                            ("offset", mapping.offset)):  # fmt: skip
            check(value % _PAGE == 0, f"the {name} of {mapping.file} is {value:#x}: not a page's")
        check(not mapping.file.endswith(" (deleted)"), f"{mapping.file} is not a file's name")
    ordered = sorted(filter(_is_file, profile.mappings), key=lambda mapping: mapping.start)
    for one, other in zip(ordered, ordered[1:]):
        check(one.limit <= other.start, f"{one.file} and {other.file} overlap")


def _check_locations(profile, check):
    check(
        len({location.address for location in profile.locations}) == len(profile.locations),
        "two locations have one address",
    )
    for location in profile.locations:
        if not 1 <= location.mapping_id <= len(profile.mappings):
            check(False, f"location {location.id} has no mapping")
            continue
        mapping = profile.mappings[location.mapping_id - 1]
        check(
            mapping.start <= location.address < mapping.limit and location.address != 0,
            f"location {location.id} at {location.address:#x} is outside of {mapping.file}",
        )
        check(
            location.functions or not mapping.has_functions,
            f"{mapping.file} claims to have functions, but location {location.id} has none",
        )


def _check_samples(profile, check):
    own = {
        mapping.id for mapping in profile.mappings
        if mapping.file.rsplit("/", 1)[-1].startswith("libheapflare.so")
    }
    seen = set()
    for sample in profile.samples:
        check(len(sample.values) == len(HEAP_TYPES), f"a sample has {len(sample.values)} values")
        check(min(sample.values, default=0) >= 0, f"a value is negative: {sample.values}")
        check(any(sample.values), "a sample is all zero")
        if len(sample.values) == len(HEAP_TYPES):
            allocated, live = sample.values[:2], sample.values[2:]
            check(live[0] <= allocated[0] and live[1] <= allocated[1],
                  f"more is live than was allocated: {sample.values}")
        check(sample.locations, "a sample has no stack")
        check(not any(location.mapping_id in own for location in sample.locations),
              "a stack has frames of the recorder itself")
        key = (tuple(location.id for location in sample.locations),
               tuple(sorted((key, str(value)) for key, value in sample.labels.items()
                            if key != "bytes")))
        check(key not in seen, f"the stack of locations {key[0]} comes twice")
        seen.add(key)
        check(not sample.repeated_labels, f"labels come twice: {sample.repeated_labels}")
        size = sample.labels.get("bytes", 1)
        check(isinstance(size, int) and size > 0 and sample.label_units.get("bytes", "bytes")
              == "bytes", f"the label bytes is {size} {sample.label_units.get('bytes')}")


def symbolized(path, binary, output):
    """The profile with the function names that `go tool pprof` finds in the local binary."""
    command = ["go", "tool", "pprof", "-proto", f"-output={output}", binary, path]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return read(output)


_UNITS = {"B": 1, "kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40, "": 1}


def go_top(path, binary, sample_type="inuse_space"):
    """What `go tool pprof -top` prints: [(function, flat bytes, flat percent)] in its order."""
    command = ["go", "tool", "pprof", "-top", f"-sample_index={sample_type}", binary, path]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    rows = []
    row = r"^\s*(-?[\d.]+)([kMGT]?B|)\s+([\d.e-]+)%\s+\S+\s+\S+\s+\S+\s+(.+?)( \(inline\))?$"
    for flat, unit, percent, function, _ in re.findall(row, done.stdout, re.MULTILINE):
        rows.append((function, float(flat) * _UNITS[unit], float(percent)))
    return rows


def sampling_variance(size, interval):
    """Of the estimated bytes that one block of that size contributes, sampled at this interval.

    A block is recorded with probability p = 1 - exp(-(size + 1)/interval) and then stands for
    size/p.
    """
    # Above this ratio p is 1 as far as a float can tell.
    if interval <= 1 or size > 600 * interval:
        return 0.0
    p = -math.expm1(-(size + 1) / interval)
    return size * size * (1 - p) / p
