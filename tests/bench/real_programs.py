"""The rows that real programs make: servers under load, an interpreter, a database, a compiler."""

import contextlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import Bench, Failed, Row, Skipped, Variant, decide, difference, environment, milliseconds, must_have, times

PATIENCE = 30  # s, for a server to answer


def needed(*programs: str) -> list[str]:
    found = [shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin") for program in programs]
    for program, path in zip(programs, found):
        if not path:
            raise Skipped(f"{program} is not installed")
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def server(bench: Bench, command: list[str], variant: Variant, port: int):
    """A server that answers on the port, ended afterwards."""
    process = subprocess.Popen(command, env=environment(variant), cwd=bench.scratch, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"{command[0]} does not answer") from error
                time.sleep(0.01)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def output_of(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise Failed(f"{command[0]}: status {done.returncode}: {done.stderr.strip()[-200:]}")
    return done.stdout


# --- servers: requests per second, and how long the slowest in a hundred take ---


def redis(bench: Bench, variant: Variant) -> tuple[float, float]:
    program, client = needed("redis-server", "redis-benchmark")
    port = free_port()
    command = [program, "--port", str(port), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
    with server(bench, command, variant, port):
        text = output_of([client, "-p", str(port), "-n", str(bench.scale.of(300_000)), "-r", "100000", "-d", "200",
                          "-c", "20", "-P", "4", "-t", "set", "--csv"])
    fields = text.strip().splitlines()[-1].replace('"', "").split(",")
    return float(fields[1]), float(fields[6])  # requests a second; p99 in ms


def nginx(bench: Bench, variant: Variant) -> tuple[float, float]:
    program, client = needed("nginx", "wrk")
    port = free_port()
    root = bench.scratch / "nginx"
    root.mkdir(exist_ok=True)
    (root / "index.html").write_text("x" * 4096)
    root.chmod(0o755)
    configuration = root / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {root}/pid; error_log {root}/errors;\n"
        "events { worker_connections 256; }\n"
        f"http {{ access_log off; client_body_temp_path {root}; proxy_temp_path {root}; fastcgi_temp_path {root};\n"
        f"uwsgi_temp_path {root}; scgi_temp_path {root};\n"
        f"server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n")
    with server(bench, [program, "-c", str(configuration), "-p", str(root)], variant, port):
        text = output_of([client, "-t", "1", "-c", "32", "-d", f"{max(1, bench.scale.of(5))}s", "--latency",
                          f"http://127.0.0.1:{port}/"])
    rate = re.search(r"Requests/sec:\s*([\d.]+)", text)
    slow = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    if not rate or not slow:
        raise Failed("wrk printed no figures")
    return float(rate[1]), float(slow[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[slow[2]]


def serve(bench: Bench, workload: str, run) -> None:
    def fill(row: Row) -> None:
        figures: dict[str, list[tuple[float, float]]] = {"plain": [], "heapflare": []}
        variants = {"plain": Variant(), "heapflare": bench.ours()}
        for _ in range(bench.scale.turns):
            for name, variant in variants.items():
                figures[name].append(run(bench, variant))
        rates = {name: [rate for rate, _ in list_] for name, list_ in figures.items()}
        slowest = {name: [slow for _, slow in list_] for name, list_ in figures.items()}
        row.numbers = {"unit": "requests/s; p99 in ms", **figures}
        for name in variants:
            text = f"{statistics.median(rates[name]):,.0f}/s, p99 {statistics.median(slowest[name]):.2f} ms"
            setattr(row, name, text)
        throughput = times(rates["plain"], rates["heapflare"])
        latency = times(slowest["plain"], slowest["heapflare"])
        row.cost = f"{throughput:.3f} × throughput, {latency:.2f} × p99"
        decide(row, "≥ 0.99 ×, p99 ≤ 1.02 ×", throughput >= 0.99 and latency <= 1.02)

    bench.measure(workload, "glibc", fill)


# --- programs that run to their end: how long they take ---


def sqlite(bench: Bench) -> list[str]:
    script = bench.scratch / "inserts.sql"
    rows = bench.scale.of(300_000)
    script.write_text(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, value REAL);\nBEGIN;\n"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
        f"{rows}) INSERT INTO t SELECT i, 'name ' || (i * 7919 % 100003), i / 3.0 FROM n;\nCOMMIT;\n"
        "CREATE INDEX by_name ON t(name);\n"
        "SELECT count(*), sum(value) FROM t WHERE name LIKE 'name 1%';\n"
        "SELECT name, count(*) FROM t GROUP BY name ORDER BY 2 DESC, 1 LIMIT 5;\n")
    return [*needed("sqlite3"), ":memory:", f".read {script}"]


def clang(bench: Bench) -> list[str]:
    source = bench.scratch / "large.cc"
    headers = ["regex"] if bench.scale.share < 1 else ["regex", "map", "random", "thread", "iostream", "algorithm"]
    source.write_text("".join(f"#include <{header}>\n" for header in headers))
    return [*needed("clang++"), "-std=c++20", "-fsyntax-only", str(source)]


def python(bench: Bench) -> list[str]:
    code = (f"words = [str(i * 7919 % 100003) for i in range({bench.scale.of(400_000)})]\n"
            "counts = {}\n"
            "for word in words: counts.setdefault(word[:4], []).append(word * 40)\n"
            "import json; json.loads(json.dumps(counts))\n")
    return [sys.executable, "-c", code]


def seconds(bench: Bench, command: list[str], variant: Variant) -> float:
    start = time.monotonic()
    done = subprocess.run([*variant.prefix, *command], env=environment(variant), cwd=bench.scratch,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=300)
    if done.returncode != 0:
        raise Failed(f"{Path(command[0]).name}: status {done.returncode}: {done.stderr.strip()[-200:]}")
    return time.monotonic() - start


def run_to_the_end(bench: Bench, workload: str, make) -> None:
    def fill(row: Row) -> None:
        command = make(bench)
        variants = {"plain": Variant(), "heapflare": bench.ours()}
        values, reasons = bench.take_turns(lambda variant: seconds(bench, command, variant) * 1e9, variants)
        must_have(reasons, "plain", "heapflare")
        row.numbers = {"unit": "ns", **values}
        row.plain = milliseconds(statistics.median(values["plain"]))
        row.heapflare = milliseconds(statistics.median(values["heapflare"]))
        added = milliseconds(difference(values["plain"], values["heapflare"]))
        row.cost = f"{times(values['plain'], values['heapflare']):.3f} ×, +{added}"

    bench.measure(workload, "glibc", fill)


def all_rows(bench: Bench) -> None:
    serve(bench, "redis-server under redis-benchmark", redis)
    serve(bench, "nginx under wrk", nginx)
    run_to_the_end(bench, "sqlite3: inserts, index, queries", sqlite)
    run_to_the_end(bench, "clang++ -fsyntax-only", clang)
    run_to_the_end(bench, "python3: dictionaries, JSON", python)
