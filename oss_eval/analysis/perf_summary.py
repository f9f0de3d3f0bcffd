"""A stored run with its metrics, for tables, JSON, recommendations and the viewer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis.checks import Finding, check_point
from oss_eval.analysis.figures import STEADY, Metric, PointMetrics
from oss_eval.analysis.metrics import by_kind, point_metrics
from oss_eval.analysis.point_name import level_name, level_text
from oss_eval.analysis.request_groups import group_figures
from oss_eval.analysis.slo import goodput, goodput_figures, objectives
from oss_eval.analysis.steady_metrics import steady_metrics
from oss_eval.analysis.steady_state import SlowStart, slow_start, steady_window
from oss_eval.errors import StoreError
from oss_eval.load.client_stats import ClientStats
from oss_eval.results.manifest import read_begun_manifest
from oss_eval.results.mirror import place_of
from oss_eval.results.part_files import GPU, SERVER, read_readings
from oss_eval.results.reader import iter_requests, read_requests, read_summary, status_of

_SCALARS = [
    "request_id", "warmup", "session", "parallel", "rate", "scheduled_ns", "start_ns",
    "first_token_ns", "first_token_low_ns",
    "first_answer_ns",
    "last_token_ns", "end_ns", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens",
    "first_event_tokens", "tokens_to_answer",
    "token_source", "n_events", "n_shared", "status", "error_kind", "error_message", "finish_reason",
    "clock_source", "client_lag_p50_ns", "client_lag_max_ns", "leaked", "turn", "reasoning_effort", "sample_id",
]  # fmt: skip
"""Columns that metrics are computed from; one point at a time is in memory."""
_EVENTS = ["warmup", "status", "start_ns", "event_ns", "event_tokens", "completion_tokens"]
_BRIEF = ["warmup", "status", "error_kind", "error_message", "token_source", "clock_source"]


@dataclass(frozen=True, slots=True)
class PointReport:
    """One point: its settings, its metrics, and its failures by kind with one message each."""

    point_id: str
    parallel: int | None
    number: int
    """Requests planned; where the time limits them, those measured."""
    reasoning_effort: str | None
    metrics: PointMetrics
    failures: dict[str, tuple[int, str]]
    token_sources: tuple[str, ...]
    clock_sources: tuple[str, ...]
    checks: tuple[dict[str, str], ...] | None
    """Findings of the checks: (kind, level, message) each; empty: clean, None: not checked."""
    slow_start: SlowStart | None = None
    """Whether the first requests were slow; not looked at where the figures are the stored ones."""
    repeat: int = 1
    """Which repeat of the point it is."""
    repeats: int = 1
    """How many repeats are put together here."""
    rate: float | None = None
    """Requests per second of an open loop."""
    turns: tuple[dict[str, Any], ...] = ()
    """Figures by turn, of conversations (see `group_figures`); not where the figures are the stored ones."""
    mix: tuple[dict[str, Any], ...] = ()
    """The same by part of a mix."""
    not_steady: str | None = None
    """Why there is no steady state; None where there is one, or where the figures are the stored ones."""
    ended: bool = True
    """Whether the point has ended, where time limits its requests."""

    @property
    def whole(self) -> bool:
        """Whether all that was planned has been measured."""
        return self.ended and self.metrics.finished >= self.number

    @property
    def level(self) -> float:
        """Its load: requests in flight, or per second."""
        return self.rate if self.rate is not None else self.parallel or 0

    @property
    def level_name(self) -> str:
        """Its load in a table: `c64` or `2.5/s`."""
        return level_name(self.parallel, self.rate) or ""

    @property
    def level_text(self) -> str:
        """Its load in a sentence."""
        return level_text(self.parallel, self.rate)


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run with its points."""

    path: Path
    manifest: dict[str, Any]
    points: list[PointReport]

    @property
    def simulated(self) -> bool:
        """Whether a simulator answered."""
        return bool(self.manifest.get("endpoint", {}).get("simulated"))

    @property
    def reasoned(self) -> bool:
        """Whether any request has reasoning."""
        return any(
            (p.metrics.get("ttfa_ms", "mean") or 0) > (p.metrics.get("ttft_ms", "mean") or 0) for p in self.points
        )


def load_run(path: Path, stored: bool = False, damaged: list[str] | None = None) -> RunReport:
    """Read a run and compute its figures, one point at a time. Points that have no row yet are left out.

    `stored` takes the figures from the run's summary where it has them, which is much quicker. Unreadable parts
    are named in `damaged` where that is given, and raised else.
    """
    manifest = read_begun_manifest(path)
    summary = metrics_by_point(read_summary(path)) if stored else {}
    if "points" not in manifest:
        raise StoreError(f"{path.name} holds nothing yet: it has not begun to measure", "look again in a moment")
    points: list[PointReport] = []
    mixed = bool((manifest.get("task") or {}).get("mix"))
    limits = objectives((manifest.get("task") or {}).get("slo") or ()).limits
    telemetry = cache(lambda: read_readings(path, GPU))  # not read where the stored figures are taken
    for planned in manifest.get("points", []):
        point_id = planned["point_id"]
        rows = read_requests(path, point_id, _BRIEF if (point_id, None) in summary else _SCALARS, damaged)
        if not rows.num_rows:
            continue
        ended_badly = pc.invert(pc.is_in(rows["status"].cast("string"), pa.array(["ok", "cancelled"])))
        counted = None if planned.get("turns") else planned.get("number")
        metrics, not_steady = summary.get((point_id, None)), None
        known = metrics is not None
        if metrics is None:
            metrics = point_metrics(
                rows,
                iter_requests(path, point_id, _EVENTS, damaged),
                read_readings(path, SERVER, point_id),
                (manifest.get("task") or {}).get("gpu_price"),
                telemetry(),
            )
            events = partial(iter_requests, path, point_id, _EVENTS, damaged)
            steady, not_steady = _steady(rows, limits, events)
            levels = goodput_figures(goodput(rows, limits)) if limits else {}
            metrics = PointMetrics(metrics.figures | levels | steady)
        bad = rows.filter(pc.and_(pc.invert(rows["warmup"]), ended_badly))
        points.append(
            PointReport(
                point_id=point_id,
                parallel=planned.get("parallel"),
                rate=planned.get("rate"),
                number=counted or sum(not warmup for warmup in rows["warmup"].to_pylist()),
                ended=counted is not None or point_id in (manifest.get("ended") or ()),
                reasoning_effort=planned.get("reasoning_effort"),
                metrics=metrics,
                not_steady=not_steady,
                turns=() if known else group_figures(rows, "turn"),
                mix=_mix_figures(rows) if mixed and not known else (),
                failures=by_kind(
                    zip(bad["error_kind"].to_pylist(), bad["error_message"].to_pylist(), strict=True)
                ),
                token_sources=_distinct(
                    rows.filter(pc.equal(rows["status"].cast("string"), "ok"))["token_source"]
                ),
                clock_sources=_distinct(rows["clock_source"]),
                checks=_tuple(manifest.get("checks", {}).get(point_id)),
                slow_start=None if (point_id, None) in summary else slow_start(rows),
                repeat=planned.get("repeat", 1),
            )
        )
    return RunReport(path, manifest, points)


def _mix_figures(rows: pa.Table) -> tuple[dict[str, Any], ...]:
    """By task file where the mix has any, else by effort."""
    return group_figures(rows, "sample_id") or group_figures(rows, "reasoning_effort")


def _steady(
    rows: pa.Table, limits: dict[str, float], events: Callable[[], Iterable[pa.Table]]
) -> tuple[dict[tuple[str, str], Metric], str | None]:
    """The figures of a point's steady state, under names that begin with STEADY; or why there is none."""
    window = steady_window(rows)
    if isinstance(window, str):
        return {}, window
    found = steady_metrics(rows, window, events(), limits).figures.values()
    return {(STEADY + m.metric, m.stat): replace(m, metric=STEADY + m.metric) for m in found}, None


def check_report(point: PointReport, clients: dict[str, ClientStats], streamed: bool) -> list[Finding]:
    """The findings of the checks of a point; `clients`: the client's side of each point."""
    return check_point(
        point.metrics,
        clients.get(point.point_id),
        "user" in point.clock_sources,
        point.failures,
        streamed,
        point.slow_start,
    )


def metrics_by_point(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str | None], PointMetrics]:
    """The figures of summary rows, by point and subset (None: all subsets together, and load sweeps)."""
    found: dict[tuple[str, str | None], dict[tuple[str, str], Metric]] = {}
    for row in rows:
        found.setdefault((row["point_id"], row["subset"]), {})[row["metric"], row["stat"]] = Metric(
            row["metric"], row["stat"], row["value"], row["ci_low"], row["ci_high"], row["n"], row["unit"]
        )
    return {key: PointMetrics(figures) for key, figures in found.items()}


def _tuple(values: list[dict[str, str]] | None) -> tuple[dict[str, str], ...] | None:
    return None if values is None else tuple(values)


def _distinct(column: Any) -> tuple[str, ...]:
    return tuple(sorted(v for v in set(column.to_pylist()) if v))


# -- summary and JSON -------------------------------------------------------------------------------------------


def summary_rows(report: RunReport) -> list[dict[str, Any]]:
    """Rows of summary.parquet."""
    manifest = report.manifest
    return [
        row
        for point in report.points
        for row in point.metrics.summary_rows(
            {
                "run_id": manifest["run_id"], "point_id": point.point_id, "kind": manifest["kind"],
                "task": manifest["task"]["name"], "model": manifest["model"], "subset": None,
                "reasoning_effort": point.reasoning_effort, "parallel": point.parallel, "rate": point.rate,
                "number": point.number,
            }
        )
    ]  # fmt: skip


def as_json(report: RunReport) -> dict[str, Any]:
    """One document for programs: a point's metrics by name, each with its statistics, n and unit."""
    manifest = report.manifest
    return {
        "run_id": manifest["run_id"],
        "path": place_of(report.path),
        "status": status_of(report.path, manifest),
        "simulated": report.simulated,
        "model": manifest["model"],
        "endpoint": manifest["endpoint"]["url"],
        "points": [point_as_json(point) for point in report.points],
        **({"search": manifest["search"]} if manifest.get("search") else {}),
        **({"stopped": manifest["stopped"]} if manifest.get("stopped") else {}),
    }


def point_as_json(point: PointReport) -> dict[str, Any]:
    """A point of the document."""
    steady = point.metrics.steady
    return {
        "point_id": point.point_id, "parallel": point.parallel, "rate": point.rate, "number": point.number,
        "reasoning_effort": point.reasoning_effort, "repeat": point.repeat,
        "metrics": point.metrics.without(STEADY).as_json(),
        **({"steady": {"metrics": steady.as_json()}} if steady is not None else {}),
        **({"turns": list(point.turns)} if point.turns else {}),
        **({"mix": list(point.mix)} if point.mix else {}),
        "checks": None if point.checks is None else list(point.checks),
        "failures": {kind: {"count": n, "example": text} for kind, (n, text) in point.failures.items()},
    }  # fmt: skip
