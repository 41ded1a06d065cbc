"""run_oom.py --matrix issue: every way to a memory limit, on cgroup v1 or v2, and the table of it.

    run_oom.py --matrix issue                    a subset that takes a minute
    run_oom.py --matrix issue --long             all 150 cells: 20 minutes
    run_oom.py --matrix issue --vm [--long]      the same on cgroup v2, in a virtual machine
    … --markdown FILE                            the result as a table; --json FILE: as data
    … --only TEXT                                cells that contain it, such as leak: or :64:50:

The cells and what is required of each are in matrix_cells.py. Each comparison of a profile with the
ledger has a false-failure rate of 1 in 16,000, and there is one to a cell: 1 % in a long run.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import cell_run
import memory_cgroup
from agreement import MIB
from cell_check import check
from matrix_cells import ALL, LIMITS, QUICK, QUICK_VM, RATES, SCENARIOS, THREADS, Cell

SKIP = 77
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lab", "vm"))

import vm  # noqa: E402


def add_options(parser):
    group = parser.add_argument_group("with --matrix issue")
    group.add_argument("--vm", action="store_true", help="on cgroup v2, in a virtual machine")
    group.add_argument("--long", action="store_true", help="all cells, not a subset")
    group.add_argument("--markdown", help="write the table to this file")
    cell_run.add_options(group, patience=False)


def _run_here(cells, arguments, out):
    memory_cgroup.MemoryCgroup(MIB * 64).remove()
    arguments.out = out
    cell_run.run_cells(cells, arguments)


def _run_in_vm(cells, arguments, out):
    """As above; what it got done before it stopped early is there all the same."""
    largest = max(cell.limit for cell in cells)
    # A storm of four times the limit, and what tmpfs and the guest's system need.
    storms = [cell.limit for cell in cells if cell.scenario == "pagecache"]
    vm.run(
        [
            "python3", f"{HERE}/cell_run.py", f"--build={arguments.build}", f"--out={out}",
            "--period=1000", "--patience=400", "--disk=/dev/vda", *map(str, cells),
        ],
        shared=out, memory=1024 + 3 * largest, disk=4 * max(storms, default=0) or 0,
        timeout=400 + sum(60 + 6 * cell.seconds() for cell in cells),
    )  # fmt: skip


def _range(values, form):
    low, high = form(min(values)), form(max(values))
    return low if low == high else f"{low}–{high}"


def _latencies(verdicts):
    """Of all dumps at rungs, median and worst."""
    values = sorted(ms for v in verdicts for ms in v.latency_ms.values())
    return f"{values[len(values) // 2]:.0f} / {values[-1]:.0f}" if values else "–"


def _speed(rate):
    if rate == 0:
        return "unlimited"
    return f"{rate} MB/s" if rate < 1000 else f"{rate // 1000} GB/s"


def _summary_row(scenario, rate, verdicts):
    count = len(verdicts)
    dumps = []
    for reason, short in (("straw", "straw"), *((f"rung-{p}pct", f"{p} %") for p in (80, 90, 95))):
        have = sum(reason in v.dumps for v in verdicts)
        if have:
            dumps.append(f"{short} {have}/{count}")
    coverage = _range([v.coverage for v in verdicts], lambda share: f"{share:.1%}")
    columns = [
        SCENARIOS[scenario].text,
        _speed(rate),
        f"{sum(not v.problems for v in verdicts)}/{count}",
        sum(v.kills > 0 for v in verdicts),
        sum(v.boxes for v in verdicts),
        coverage,
        ", ".join(dumps) or "none",
        _latencies(verdicts),
        sum(len(v.false_alarms) for v in verdicts),
    ]
    return f"| {' | '.join(map(str, columns))} |"


def table(verdicts):
    """Markdown: one row for each scenario and ramp, over all limits and numbers of threads."""
    cells = {v.cell: v for v in verdicts}
    version = ", ".join(sorted({f"v{v.version}" for v in verdicts if v.version}))
    ok = sum(not v.problems for v in verdicts)
    lines = [
        f"cgroup {version}: {ok} of {len(verdicts)} cells passed; limits "
        f"{', '.join(map(str, LIMITS))} MiB × {', '.join(map(str, THREADS))} threads.",
        "",
        "| way to the limit | ramp | passed | killed | boxes read | coverage of live bytes | dumps "
        "| crossing → file, ms: median / worst | false alarms |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for scenario in SCENARIOS:
        for rate in RATES:
            row = [v for key, v in cells.items() if key.startswith(f"{scenario}:")]
            row = [v for v in row if Cell.parse(v.cell).rate == rate]
            if row:
                lines.append(_summary_row(scenario, rate, row))
    for scenario in SCENARIOS:
        reasons = {Cell(scenario, 64, rate, 1).meaningless() for rate in RATES} - {None}
        lines += [f"\nNot run: {SCENARIOS[scenario].text} with a ramp: {why}." for why in reasons]
    return "\n".join(lines) + "\n"


def _print(verdicts):
    for v in verdicts:
        latency = ", ".join(f"{key} {ms:.1f} ms" for key, ms in v.latency_ms.items())
        print(
            f"{v.cell:22} {v.ended:16} box {v.boxes}  live {v.live / MIB:7.1f} MiB  coverage "
            f"{v.coverage:7.2%}  dumps {', '.join(v.dumps) or 'none'}  {latency}  {v.seconds:.1f} s"
        )
    print(f"\n{sum(not v.problems for v in verdicts)} of {len(verdicts)} cells passed.")
    for v in verdicts:
        for problem in v.problems:
            print(f"FAILED: {v.cell}: {problem}")


def run(arguments):
    """Exit status as run_oom.py."""
    arguments.build = os.path.abspath(arguments.build)
    quick = QUICK_VM if arguments.vm else QUICK
    cells = [c for c in (ALL if arguments.long else quick) if arguments.only in str(c)]
    if not cells:
        print(f"run_oom.py: --only={arguments.only!r}: no such cell", file=sys.stderr)
        return 2
    # Evidence is kept if something failed.
    out = tempfile.mkdtemp(prefix="heapflare-matrix-")
    verdicts, failed = [], ""
    try:
        (_run_in_vm if arguments.vm else _run_here)(cells, arguments, out)
    except (memory_cgroup.Unavailable, vm.Unavailable) as why:
        print(f"skipped: {why}")
        shutil.rmtree(out)
        return SKIP
    except (vm.Failed, OSError, subprocess.SubprocessError) as why:
        failed = f"FAILED: {type(why).__name__}: {why}"
    command = arguments.heapflare or f"{arguments.build}/bin/heapflare"
    for cell in cells:
        if os.path.exists(f"{out}/{cell}/run.json"):
            verdicts.append(check(f"{out}/{cell}", command, cell_run.INTERVAL))
    _print(verdicts)
    if arguments.markdown:
        Path(arguments.markdown).write_text(table(verdicts), encoding="utf-8")
    if arguments.json:
        text = json.dumps([asdict(verdict) for verdict in verdicts], indent=1)
        Path(arguments.json).write_text(text, encoding="utf-8")
    if failed:
        print(failed)
    if len(verdicts) < len(cells):
        print(f"FAILED: {len(cells) - len(verdicts)} cells were not run to their end")
    if failed or len(verdicts) < len(cells) or any(v.problems for v in verdicts):
        print(f"The evidence is in {out}.")
        return 1
    shutil.rmtree(out)
    return 0
