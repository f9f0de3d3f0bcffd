"""The instrument against a truth: how far are reported times from those of a server that logs its own writes?

Both sides read the same clock of the same machine. The server (`sim://paced`) writes each stream's tokens at a
steady pace and logs the time before each write; the client reports its usual metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from oss_eval.analysis.latency import stream_durations
from oss_eval.config.perf_task import PerfTask
from oss_eval.load.plan import Point
from oss_eval.perf.sweep import run
from oss_eval.report.format import number
from oss_eval.report.table import empty_table
from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import read_requests
from oss_eval.results.writer import write_summary
from oss_eval.run.lifecycle import RunResult
from oss_eval.run.options import RunOptions
from oss_eval.simulator.truth_log import TruthRow, read_truth
from oss_eval.system import environment

LEVELS = (1, 64, 256, 1024)
TOKENS = 256
TRUSTED = 0.01
"""A load is trusted when every percentile is within this share of the true value."""
PERCENTILES = (50, 90, 99)
METRICS = ("ttft", "tpot", "itl", "latency")


@dataclass(frozen=True, slots=True)
class CalibrationPoint:
    """One point: true and reported percentiles in ms by metric, and the cost."""

    point: Point
    true: dict[str, NDArray[np.float64]]
    reported: dict[str, NDArray[np.float64]]
    requests: int
    missing: int
    """Requests that failed or are not in the truth log."""
    tokens: int
    tokens_per_second: float
    shared: float
    """Share of token events that share a later one's timestamp."""
    client_lag_p99_ms: float | None
    cpu_us_per_token: float | None
    longest_stall_ms: float | None

    @property
    def worst(self) -> float:
        """The largest relative error of all percentiles compared."""
        if self.missing or not self.tokens:
            return float("inf")
        return max(float(np.abs(self.reported[m] / self.true[m] - 1).max()) for m in METRICS)


def calibrate(levels: tuple[int, ...], token_rate: float, order: RunOptions) -> RunResult:
    """Measure the truth server at each level, with one worker and with one for each core.

    Stored as a run of kind `calibrate`; its summary also holds the true values (`true_ttft_ms`, ...) and
    `cpu_us_per_token`. Raises OssEvalError as `perf.sweep.run` does.
    """
    cores = environment.usable_cores()
    points: list[Point] = []
    for workers in sorted({1, cores}):
        for parallel in levels:
            if workers == 1 or parallel >= workers:
                points.append(
                    Point(
                        point_id=f"{len(points):02d}-w{workers}-c{parallel}",
                        index=len(points),
                        parallel=parallel,
                        number=max(4, 2 * parallel),
                        workers=workers,
                    )
                )
    task = PerfTask(
        name="calibrate",
        description="the instrument against a server whose clock is known",
        url=(f"sim://paced?rate={token_rate:g}",),
        prompt="Count.",
        max_tokens=TOKENS,
        extra_args={"ignore_eos": True},
        parallel=levels,
        number=tuple(max(4, 2 * parallel) for parallel in levels),
        workers=cores,
    )
    made = run(task, order, "calibrate", points)
    if made.aborted:
        return made
    write_summary(made.path, [row for c in compare(made.path) for row in _summary_rows(made.path, c)], add=True)
    return made


def compare(path: Path) -> list[CalibrationPoint]:
    """Reported against true for every point of a calibration run, from its stored files."""
    manifest = read_manifest(path)
    truth = read_truth(path / "truth.jsonl")
    points = [Point(**planned) for planned in manifest["points"]]
    return [_compare(path, manifest, point, truth) for point in points]


def _compare(path: Path, manifest: dict[str, Any], point: Point, truth: dict[str, TruthRow]) -> CalibrationPoint:
    columns = ["request_id", "start_ns", "first_token_ns", "last_token_ns", "event_ns", "n_events", "n_shared"]
    columns += ["completion_tokens", "status", "client_lag_max_ns", "end_ns"]
    rows = read_requests(path, point.point_id, columns).to_pylist()
    true: dict[str, list[Any]] = {metric: [] for metric in METRICS}
    reported: dict[str, list[Any]] = {metric: [] for metric in METRICS}
    known = 0
    for row in rows:
        found = truth.get(f"{manifest['run_id']}/{row['request_id']}")
        if row["status"] != "ok" or found is None or len(found.token_ns) != row["completion_tokens"]:
            continue
        known += 1
        written, events = np.asarray(found.token_ns), np.asarray(row["event_ns"])
        _put(true, written - found.received_ns)
        _put(reported, events)
    tokens = sum(row["n_events"] for row in rows)
    sent = [row for row in rows if row["start_ns"] and row["end_ns"]]
    seconds = (max(r["end_ns"] for r in sent) - min(r["start_ns"] for r in sent)) / 1e9 if known else 0.0
    client = manifest.get("client", {}).get(point.point_id)
    cpu = client["cpu_seconds"] + client["main_cpu_seconds"] if client else None
    lags = [row["client_lag_max_ns"] for row in rows if row["client_lag_max_ns"] is not None]
    return CalibrationPoint(
        point=point,
        true={m: _percentiles(values) for m, values in true.items()},
        reported={m: _percentiles(values) for m, values in reported.items()},
        requests=len(rows),
        missing=(point.number or 0) - known,
        tokens=tokens,
        tokens_per_second=tokens / seconds if seconds else 0.0,
        shared=sum(row["n_shared"] for row in rows) / tokens if tokens else 0.0,
        client_lag_p99_ms=float(np.percentile(lags, 99)) / 1e6 if lags else None,
        cpu_us_per_token=cpu / tokens * 1e6 if cpu is not None and tokens else None,
        longest_stall_ms=client["longest_stall_seconds"] * 1000 if client else None,
    )


def _put(into: dict[str, list[Any]], tokens: NDArray[np.int64]) -> None:
    """Add the durations of one stream, given its tokens' offsets from its start in ns."""
    for name, values in stream_durations(tokens).items():
        into[name].append(values)


def _percentiles(values: list[Any]) -> NDArray[np.float64]:
    if not values:
        return np.full(len(PERCENTILES), np.nan)
    return np.asarray(np.percentile(np.concatenate(values), PERCENTILES))


def _summary_rows(path: Path, found: CalibrationPoint) -> list[dict[str, Any]]:
    point = found.point
    base: dict[str, Any] = {
        "run_id": path.name, "point_id": point.point_id, "kind": "calibrate", "task": "calibrate",
        "model": "paced", "reasoning_effort": None, "parallel": point.parallel, "rate": None,
        "number": point.number,
        "ci_low": None, "ci_high": None, "n": found.requests,
    }  # fmt: skip
    rows = [
        {**base, "metric": f"true_{metric}_ms", "stat": f"p{q}", "value": float(value), "unit": "ms"}
        for metric, values in found.true.items()
        for q, value in zip(PERCENTILES, values, strict=True)
    ]
    if found.cpu_us_per_token is not None:
        cost = {"metric": "cpu_us_per_token", "stat": "value", "value": found.cpu_us_per_token, "unit": "us"}
        rows.append({**base, **cost})
    return rows


# -- showing it -------------------------------------------------------------------------------------------------


def verdicts(found: list[CalibrationPoint]) -> list[str]:
    """The highest load with trusted metrics, for each number of workers."""
    lines = []
    for workers in sorted({c.point.workers for c in found}):
        group = sorted((c for c in found if c.point.workers == workers), key=lambda c: c.point.parallel or 0)
        name = f"{workers} worker" + ("s" if workers > 1 else "")
        trusted = [c for n, c in enumerate(group) if all(earlier.worst <= TRUSTED for earlier in group[: n + 1])]
        if not trusted:
            lines.append(f"{name}: not to be trusted at any level tried ({_off(group[0])} at the first)")
            continue
        last = trusted[-1]
        line = (
            f"{name}: trust up to {last.point.parallel} streams ({last.tokens_per_second:,.0f} tokens/s): "
            f"every percentile within {max(c.worst for c in trusted):.2%} of the truth"
        )
        beyond = [c for c in group if c not in trusted]
        if beyond:
            line += f"; at {beyond[0].point.parallel} {_off(beyond[0])}"
        lines.append(line)
    return lines


def _off(found: CalibrationPoint) -> str:
    return f"{found.missing} requests are missing" if found.missing else f"off by up to {found.worst:.1%}"


def as_rows(found: list[CalibrationPoint]) -> list[dict[str, Any]]:
    """The comparison as JSON."""
    return [
        {
            "point_id": c.point.point_id, "workers": c.point.workers, "parallel": c.point.parallel,
            "requests": c.requests, "missing": c.missing, "tokens_per_second": c.tokens_per_second,
            "client_lag_p99_ms": c.client_lag_p99_ms, "shared_reads": c.shared,
            "cpu_us_per_token": c.cpu_us_per_token, "longest_stall_ms": c.longest_stall_ms,
            "trusted": c.worst <= TRUSTED,
            "ms": {
                metric: {f"p{q}": {"true": t, "reported": r} for q, t, r in zip(
                    PERCENTILES, c.true[metric].tolist(), c.reported[metric].tolist(), strict=True)}
                for metric in METRICS
            },
        }
        for c in found
    ]  # fmt: skip


def print_calibration(path: Path, console: Console) -> None:
    """The comparison as one table a level, and the verdict."""
    found = compare(path)
    environment = read_manifest(path)["environment"]
    console.print(
        f"Calibration on {environment['cpu']}, {environment['cores']} cores", style="bold", highlight=False
    )
    for c in found:
        workers = f"{c.point.workers} worker" + ("s" if c.point.workers > 1 else "")
        console.print(
            f"\n[bold]{workers}, {c.point.parallel} streams[/]: {c.tokens_per_second:,.0f} tokens/s, "
            f"client lag p99 {_or_dash(c.client_lag_p99_ms)} ms, longest stall {_or_dash(c.longest_stall_ms)} ms, "
            f"CPU {_or_dash(c.cpu_us_per_token)} µs a token, shared reads {c.shared:.2%}",
            highlight=False,
        )
        if c.missing:
            console.print(
                f"  {c.missing} of {c.point.number} requests failed or are not in the truth log", style="red"
            )
        if c.tokens:
            console.print(_table(c))
    console.print("\n[bold italic]Verdict[/]")
    for line in verdicts(found):
        console.print(f"• {line}", highlight=False)


def _or_dash(value: float | None) -> str:
    return "–" if value is None else number(value)


def _table(c: CalibrationPoint) -> Table:
    table = empty_table()
    table.add_column("(ms)", no_wrap=True)
    for group in ("true", "ours", "error"):
        for q in PERCENTILES:
            table.add_column(f"{group}\np{q}", justify="right", no_wrap=True)
    for metric in METRICS:
        true, reported = c.true[metric], c.reported[metric]
        errors = [f"{e:+.2%}" if abs(e) <= TRUSTED else f"[red]{e:+.1%}[/]" for e in reported / true - 1]
        table.add_row(metric, *(number(v) for v in true), *(number(v) for v in reported), *errors)
    return table
