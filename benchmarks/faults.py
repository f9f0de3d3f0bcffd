"""The fault matrix: each fault of the simulator met by a sweep and by a benchmark, what they call it and how soon.

    python benchmarks/faults.py [FAULT ...]            the table of docs/reliability.md; about four minutes

Half of the requests meet the fault; patience is two seconds (`--first-token-timeout 2 --read-timeout 2.5 --total-timeout
8`), and benchmarks repeat a request up to three times. "after" is the median time from sending a request that failed
to knowing it. Exits with 1 if a request is called something else than the fault is.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import orjson

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from oss_eval import api  # noqa: E402
from oss_eval.errors import OssEvalError  # noqa: E402
from oss_eval.results.reader import read_requests, read_samples  # noqa: E402
from oss_eval.simulator.faults import FAULTS  # noqa: E402
from oss_eval.simulator.truth_log import read_truth  # noqa: E402
from tests.helpers.accounting import judge  # noqa: E402

PATIENCE = {"first_token_timeout": 2.0, "read_timeout": 2.5, "total_timeout": 8.0}
HEAD = (
    "| fault | the server | sweep: the request is | after | sweep | benchmark: the sample is | asked | benchmark |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass
class Met:
    """What a command made of a fault."""

    kinds: Counter[str]
    """Of the requests that met it, `ok` or the error kind."""
    after: float | None
    seconds: float
    wrong: list[str]
    samples: Counter[str]
    attempts: int = 0


def meet(fault: str, bench: bool, folder: Path) -> Met:
    """One command against one fault."""
    chance = 0.6 if FAULTS[fault].server else 0.5
    url = f"sim://paced?rate=100&ttft=20&fault={fault}:{chance}"
    begun = time.monotonic()
    try:
        if bench:
            run = api.run_bench(
                "demo", url=url, parallel=8, limit=24, retries=3, max_tokens=60, out=folder, **PATIENCE
            )
        else:
            number = 200 if FAULTS[fault].server else 40
            run = api.run_perf(
                url=url, parallel=8, number=number, max_tokens=20, prompt="Count.", out=folder, **PATIENCE
            )
    except OssEvalError as error:
        seconds = time.monotonic() - begun
        return Met(
            Counter({f"exit {error.exit_code}: {error.message.partition(': ')[2]}": 1}),
            None,
            seconds,
            [],
            Counter(),
        )
    seconds = time.monotonic() - begun
    rows = [row for row in read_requests(run.path).to_pylist() if not row["warmup"]]
    log = read_truth(run.path / "truth.jsonl")
    lines = [orjson.loads(line) for line in (run.path / "truth.jsonl").read_bytes().splitlines()]
    restarts = [line["received_ns"] for line in lines if line["request_id"] is None and line["fault"] == "restart"]
    kinds, took, wrong = Counter(), [], []
    for row in rows:
        seen = log.get(f"{run.path.name}/{row['request_id']}")
        problem = judge(row, seen is not None, seen.fault if seen else None, restarts)
        wrong += [problem] if problem else []
        if FAULTS[fault].server or (seen is not None and seen.fault == fault):
            kinds[row["error_kind"] or "ok"] += 1
            if row["error_kind"] and row["start_ns"]:
                took.append((row["end_ns"] - row["start_ns"]) / 1e9)
    samples: Counter[str] = Counter()
    attempts = 0
    if bench:
        answers = read_samples(run.path).to_pylist()
        samples = Counter(row["error_kind"] or "ok" for row in answers)
        attempts = max(row["attempts"] for row in answers)
    return Met(kinds, median(took) if took else None, seconds, wrong, samples, attempts)


def outcome(kinds: Counter[str], most: int = 3) -> str:
    """`ok`, `http_429`, `ok, connect, stream_broken`: in the order of the alphabet, success first."""
    return ", ".join(sorted(kinds, key=lambda kind: (kind != "ok", kind))[:most])


def line(fault: str, sweep: Met, bench: Met) -> str:
    after = "–" if sweep.after is None else f"{sweep.after:.2f} s"
    asked = f"up to {bench.attempts} times" if bench.attempts > 1 else "once" if bench.attempts else "–"
    answered = outcome(bench.samples) if bench.samples else outcome(bench.kinds)
    return (
        f"| `{fault}` | {FAULTS[fault].what} | {outcome(sweep.kinds)} | {after} | {sweep.seconds:.1f} s | {answered} | "
        f"{asked} | {bench.seconds:.1f} s |"
    )


def main() -> int:
    names = sys.argv[1:] or list(FAULTS)
    wrong: list[str] = []
    print(HEAD)
    with tempfile.TemporaryDirectory(prefix="oss-eval-faults-") as folder:
        for name in names:
            sweep = meet(name, False, Path(folder))
            bench = meet(name, True, Path(folder))
            wrong += sweep.wrong + bench.wrong
            print(line(name, sweep, bench), flush=True)
    for problem, count in Counter(wrong).most_common(20):
        print(f"WRONG: {count} x {problem}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
