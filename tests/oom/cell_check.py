"""Judges what cell_run.py left: box, coverage, dumps, false alarms, latencies."""

import json
import math
import os
import re
import signal
import subprocess
from dataclasses import dataclass, field

import heap_profile
from agreement import compare_total
from ledger import Ledger
from matrix_cells import MIB, PERCENT, Cell


STARVED = 20_000_000  # ns


@dataclass
class Verdict:
    cell: str
    version: int = 0  # of the cgroup
    ended: str = ""
    kills: int = 0
    boxes: int = 0  # read without a fault
    live: int = 0  # bytes, by the ledger
    coverage: float = 0  # of it, by the boxes
    dumps: list = field(default_factory=list)  # reasons of the complete ones
    latency_ms: dict = field(default_factory=dict)  # reason -> crossing to complete file
    false_alarms: list = field(default_factory=list)
    seconds: float = 0
    problems: list = field(default_factory=list)


def _stopwatch(path):
    """(bytes -> time of the crossing, [(file, time)], highest working set)

    The last one is infinite where the stopwatch was starved, so that it may have missed the most.
    """
    crossed, files, highest = {}, [], 0
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            what, *values = line.split()
            if what == "crossed":
                crossed[int(values[0])] = int(values[1])
            elif what == "file":
                files.append((values[0], int(values[1])))
            elif what == "highest":
                highest = int(values[0]) if int(values[1]) < STARVED else math.inf
    return crossed, files, highest


def _reason(name):
    """Of a dump's file name, PROGRAM.PID.START.NNNN.REASON.pb.gz; "" of anything else."""
    match = re.fullmatch(r".+\.\d+\.\d+\.\d{4}\.(.+)\.pb\.gz", name)
    return match.group(1) if match else ""


def _check_boxes(directory, command, verdict):
    """The sum of what they say was live, bytes."""
    estimate = 0
    boxes = [name for name in os.listdir(f"{directory}/boxes") if name.endswith(".box")]
    for box in boxes:
        profile = f"{directory}/{box}.pb.gz"
        done = subprocess.run(
            [command, "dump", f"{directory}/boxes/{box}", "-o", profile],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        if done.returncode != 0:
            verdict.problems.append(f"heapflare dump {box}: {done.returncode}: {done.stderr}")
            continue
        try:
            read = heap_profile.read(profile)
        except heap_profile.ProfileError as fault:
            verdict.problems.append(f"{box}: {fault}")
            continue
        faults = heap_profile.heap_faults(read)
        verdict.problems += [f"{box}: {fault}" for fault in faults]
        verdict.boxes += not faults
        estimate += read.total("inuse_space")
    return estimate, len(boxes)


def _check_dumps(directory, cell, verdict):
    crossed, moved, highest = _stopwatch(f"{directory}/stopwatch")
    limit = cell.limit * MIB
    rungs = {f"rung-{percent}pct": limit * percent // 100 for percent in PERCENT}
    for name in sorted(os.listdir(f"{directory}/dumps")):
        reason = _reason(name)
        if not reason:
            continue  # cut off by the kill, under its temporary name
        verdict.dumps.append(reason)
        try:
            faults = heap_profile.heap_faults(heap_profile.read(f"{directory}/dumps/{name}"))
        except heap_profile.ProfileError as fault:
            faults = [str(fault)]
        verdict.problems += [f"{name}: {fault}" for fault in faults]
        # The stopwatch and the recorder do not read at the same instant.
        if cell.what.survives or (reason in rungs and highest < rungs[reason] * 0.98):
            verdict.false_alarms.append(name)
    for name, time in moved:
        reason = _reason(name)
        if reason in rungs and rungs[reason] in crossed and reason not in verdict.latency_ms:
            verdict.latency_ms[reason] = (time - crossed[rungs[reason]]) / 1e6
    required = cell.required_rungs() + (("straw",) if cell.needs_straw() else ())
    for reason in required:
        if reason not in verdict.dumps:
            verdict.problems.append(f"there is no {reason} dump")
    if verdict.false_alarms:
        verdict.problems.append(f"false alarms: {', '.join(verdict.false_alarms)}")


def _check_end(cell, found, verdict):
    status, kills = found["status"], found["kills"]
    if cell.what.survives:
        verdict.ended = "lives" if status is None else f"status {status}"
        right = status is None and kills == 0
    elif cell.scenario == "workers":
        verdict.ended = f"{kills} workers killed"
        right = status == 0 and kills == cell.threads
    else:
        verdict.ended = "killed" if status == -signal.SIGKILL else f"status {status}"
        right = status == -signal.SIGKILL and kills >= 1
    if not right:
        verdict.problems.append(f"ended with status {status}, oom_kill {kills}")


def check(directory, command, interval):
    """The verdict on the cell whose evidence lies there."""
    with open(f"{directory}/run.json", encoding="utf-8") as file:
        found = json.load(file)
    cell = Cell.parse(found["cell"])
    verdict = Verdict(found["cell"], version=found.get("version", 0), kills=found["kills"],
                      seconds=found["seconds"])  # fmt: skip
    if found["problem"]:
        verdict.problems.append(found["problem"])
    _check_end(cell, found, verdict)
    with open(f"{directory}/stderr", encoding="utf-8", errors="replace") as file:
        said = file.read().strip()
    if said:
        verdict.problems.append(f"stderr: {said}")
    try:
        estimate, boxes = _check_boxes(directory, command, verdict)
        ledger = Ledger(f"{directory}/ledger")
        verdict.live = ledger.total().bytes
        verdict.coverage = estimate / max(1, verdict.live)
        # The server of the workers may have had no sample, hence no box.
        if boxes < (cell.threads if cell.scenario == "workers" else 1):
            verdict.problems.append(f"there are {boxes} boxes")
        compare_total(estimate, ledger, interval, max(1, boxes), verdict.problems)
        _check_dumps(directory, cell, verdict)
    except (OSError, ValueError, subprocess.SubprocessError) as problem:
        verdict.problems.append(f"{type(problem).__name__}: {problem}")
    return verdict
