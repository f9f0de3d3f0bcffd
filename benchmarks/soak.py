"""Minutes of load on a server with every fault at once: is every request accounted for, and memory flat?

    python benchmarks/soak.py --minutes 20 --streams 256

A simulator paces every stream and has 2% of each fault that a request can meet; besides, it restarts or refuses
connections in 2% of all seconds each. Loopback only; about as many requests as take so many minutes. Afterwards each row is held against the server's own log, and memory against time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
from scipy.stats import linregress
from scipy.stats import t as student

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from oss_eval.analysis.fsck import BAD, examine  # noqa: E402
from oss_eval.results.reader import iter_requests, read_manifest  # noqa: E402
from oss_eval.simulator.process import running  # noqa: E402
from tests.helpers.accounting import judge  # noqa: E402

CHANCE = 0.02
TOKENS = 64
A_MINUTE = 25
"""Requests that a stream gets done in a minute: a good one takes 3.3 s, many fail at once, a few take ten seconds."""
COLUMNS = ["request_id", "status", "error_kind", "error_message", "start_ns", "end_ns", "warmup"]
PATIENCE = ["--first-token-timeout", "10", "--read-timeout", "10", "--total-timeout", "60"]


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def rss_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def sweep(folder: Path, url: str, streams: int, number: int) -> tuple[Path, list[tuple[float, float]], float]:
    """A run of `oss-eval perf`: its folder, (seconds, MB) of all its processes over time, how long it took."""
    command = [sys.executable, "-m", "oss_eval", "perf", "--url", url, "--parallel", str(streams)]
    command += ["--number", str(number), "--max-tokens", str(TOKENS), "--prompt", "Count.", *PATIENCE]
    for _ in range(10):  # the first request may meet a fault too, and then nothing is begun
        before = set(folder.glob("results/*"))
        begun, memory = time.monotonic(), []
        with (folder / "log").open("w") as log:
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
            while process.poll() is None:
                memory.append((time.monotonic() - begun, sum(map(rss_mb, family(process.pid)))))
                time.sleep(1)
        if process.returncode == 0:
            [made] = set(folder.glob("results/*")) - before
            return made, memory, time.monotonic() - begun
        print(f"exit code {process.returncode}: {(folder / 'log').read_text()[-400:]}", flush=True)
        if process.returncode != 2:
            break
    raise SystemExit(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--streams", type=int, default=256)
    arguments = parser.parse_args()
    streams = arguments.streams
    with tempfile.TemporaryDirectory(prefix="oss-eval-soak-") as name:
        folder = Path(name)
        truth = folder / "truth.jsonl"
        with running(f"sim://paced?rate=20&ttft=100&fault=all:{CHANCE}", truth) as url:
            number = int(A_MINUTE * streams * arguments.minutes)
            print(f"{number} requests at {streams} streams", flush=True)
            run, memory, seconds = sweep(folder, url, streams, number)
            time.sleep(1.5)  # the server writes its log twice a second
        print((folder / "log").read_text()[-6000:])
        return report(run, truth, number, memory, seconds)


def flatness(memory: list[tuple[float, float]], seconds: float) -> str:
    """Memory over time, in words: 10 MB events come and go, so growth is looked for in the lowest of each minute.

    The interval is that of least squares with Student's t, on the minutes after start-up and before the end.
    """
    at, mb = np.array([s for s in memory if min(120.0, seconds / 4) < s[0] < seconds - 15]).T
    minute = ((at - at[0]) // 60).astype(int)
    whole = [m for m in np.unique(minute) if np.sum(minute == m) > 30]
    floor = [mb[minute == m].min() for m in whole]
    words = f"memory of the client's processes: median {np.median(mb):.0f} MB, largest {mb.max():.0f} MB"
    if len(whole) < 5:
        return words
    fit = linregress(whole, floor)
    margin = float(student.ppf(0.975, len(whole) - 2)) * fit.stderr
    return (
        f"{words}\nthe lowest of each minute: {' '.join(f'{mb:.0f}' for mb in floor)} MB; {fit.slope * 60:+.0f} ± "
        f"{margin * 60:.0f} MB an hour (95%)"
    )


def report(run: Path, truth: Path, number: int, memory: list[tuple[float, float]], seconds: float) -> int:
    """What came of it; 1 if anything is not as it should be."""
    log: dict[str, str | None] = {}
    outages: dict[str, list[int]] = {"restart": [], "refuse": []}
    with truth.open("rb") as lines:
        for line in lines:
            entry = orjson.loads(line)
            if entry["request_id"] is None:
                outages[entry["fault"]].append(entry["received_ns"])
            elif entry["request_id"].startswith(run.name):
                log[entry["request_id"]] = entry["fault"]
    table: Counter[tuple[str, str]] = Counter()
    wrong: Counter[str] = Counter()
    seen: set[str] = set()
    for rows in iter_requests(run, columns=COLUMNS):
        for row in rows.to_pylist():
            name = f"{run.name}/{row['request_id']}"
            seen.add(name)
            if row["warmup"]:
                continue
            fault = log.get(name)
            where = fault or ("none" if name in log else "not in the server's log")
            table[where, row["error_kind"] or "ok"] += 1
            problem = judge(row, name in log, fault, outages["restart"])
            if problem:
                wrong[problem] += 1
    print("the server's log          the client's rows")
    for (fault, kind), count in sorted(table.items()):
        print(f"  {fault:<24} {kind:<22} {count:>8,}")
    kinds: Counter[str] = Counter()
    for (_, kind), count in table.items():
        kinds[kind] += count
    asked = sum(kinds.values())
    parts = " + ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    print(f"asked {number:,} = {parts}: {'yes' if asked == number else 'NO'}")
    print(f"outages of the server: { {name: len(when) for name, when in outages.items()} }")
    strangers = len(set(log) - seen)
    print(
        f"requests in the server's log without a row: {strangers}; rows that it contradicts: {sum(wrong.values())}"
    )
    for problem, count in wrong.most_common(10):
        print(f"  {count} x {problem}")
    print(flatness(memory, seconds))
    bad = [finding for finding in examine(run) if finding.level == BAD]
    print(f"fsck: {bad if bad else 'clean'}; status {read_manifest(run)['status']}; {seconds:.0f} s in all")
    return int(asked != number or bool(wrong) or bool(strangers) or bool(bad))


if __name__ == "__main__":
    sys.exit(main())
