"""From stored requests to numbers. One formula a metric; all read the Parquet, so a run can be shown again.

Milliseconds for durations, tokens per second for rates. Warm-up requests are left out of everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis import stats
from oss_eval.analysis.latency import durations, gaps
from oss_eval.analysis.request_rows import (
    NS_PER_MS,
    asked_once,
    floats,
    measured_seconds,
    succeeded,
)
from oss_eval.analysis.steady_state import SLICES, absolute_events, plateau_span

ROWS_AT_ONCE = 128
"""Requests whose events are held in memory together: arrays of this size go back to the system when freed."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a point: `metric` x `stat`, with interval and the number of values behind it."""

    metric: str
    stat: str
    value: float
    low: float | None
    high: float | None
    n: int
    unit: str


@dataclass(frozen=True, slots=True)
class PointMetrics:
    """All figures of a point, by (metric, stat)."""

    figures: dict[tuple[str, str], Metric]

    def get(self, metric: str, stat: str = "value") -> float | None:
        """A figure's value, None where there is none."""
        found = self.figures.get((metric, stat))
        return None if found is None else found.value

    @property
    def finished(self) -> float:
        """Requests that came to an end of their own."""
        return (self.get("requests") or 0.0) - (self.get("cancelled") or 0.0)

    def metric(self, metric: str, stat: str = "value") -> Metric | None:
        """A figure with its interval."""
        return self.figures.get((metric, stat))


def point_metrics(requests: pa.Table, events: Iterable[pa.Table] | None = None) -> PointMetrics:
    """All figures of one point's requests (rows of the stored schema, one point).

    `events` gives the same requests again with their `event_ns`, a bounded number at a time; without it
    `requests` itself holds them.
    """
    measured = asked_once(requests.filter(pc.invert(requests["warmup"])))
    figures: dict[tuple[str, str], Metric] = {}

    def put(metric: str, stat: str, estimate: stats.Estimate | float | None, n: int, unit: str) -> None:
        if estimate is None:
            return
        found = estimate if isinstance(estimate, stats.Estimate) else stats.Estimate(estimate, None, None)
        figures[metric, stat] = Metric(metric, stat, found.value, found.low, found.high, n, unit)

    def put_distribution(metric: str, values: stats.Distribution) -> None:
        if values.n:
            put(metric, "mean", values.mean(), values.n, "ms")
            for q in (50, 90, 95, 99):
                put(metric, f"p{q}", values.percentile(q), values.n, "ms")
            put(metric, "max", values.max, values.n, "ms")

    total = measured.num_rows
    good = succeeded(measured)
    put("requests", "value", float(total), total, "")
    cancelled = pc.sum(pc.equal(measured["status"].cast(pa.string()), "cancelled")).as_py() or 0
    ended = total - cancelled
    put("failures", "value", float(ended - good.num_rows), ended, "")
    if cancelled:
        put("cancelled", "value", float(cancelled), total, "")
    if ended:
        put("success_rate", "value", stats.proportion(good.num_rows, ended), ended, "")
    for name, values in durations(good).items():
        distribution = stats.Distribution()
        distribution.add(values)
        put_distribution(name + "_ms", distribution)
    for name in ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens"):
        values = floats(good[name])
        if len(values):
            put(name, "mean", stats.mean(values), len(values), "tokens")
            put(name, "total", float(values.sum()), len(values), "tokens")
    duration = measured_seconds(measured)
    if duration:
        put("duration", "value", duration, total, "s")
        put("rps", "value", good.num_rows / duration, good.num_rows, "1/s")
        tokens = floats(good["completion_tokens"])
        if len(tokens):
            put("output_tps", "value", float(tokens.sum()) / duration, len(tokens), "tokens/s")
    streamed = good.filter(pc.and_(pc.greater(good["n_events"], 0), pc.is_valid(good["completion_tokens"])))
    per_event = (
        pc.sum(streamed["completion_tokens"]).as_py() / pc.sum(streamed["n_events"]).as_py()
        if len(streamed)
        else 0
    )
    span = plateau_span(measured)
    pooled, counts = stats.Distribution(), np.zeros(SLICES)
    for table in events if events is not None else [requests]:
        for start in range(0, table.num_rows, ROWS_AT_ONCE):
            rows = table.slice(start, ROWS_AT_ONCE)
            rows = succeeded(rows.filter(pc.invert(rows["warmup"])))
            pooled.add(gaps(rows["event_ns"]))
            if span:
                counts += np.histogram(absolute_events(rows), bins=SLICES, range=span)[0]
    put_distribution("itl_ms", pooled)
    if span and per_event:
        # Slices are nearly independent where single tokens are not (batch means: Law, Simulation Modeling and
        # Analysis, section 9.5.3).
        rates = counts / ((span[1] - span[0]) / 1e9 / SLICES) * per_event
        put("plateau_output_tps", "value", stats.mean(rates), good.num_rows, "tokens/s")
    n_events = int(pc.sum(good["n_events"]).as_py() or 0)
    if n_events:
        if per_event:
            put("tokens_per_chunk", "value", per_event, len(streamed), "tokens")
        put("shared_reads", "value", pc.sum(good["n_shared"]).as_py() / n_events, n_events, "")
    if good.num_rows:
        truncated = pc.sum(pc.equal(good["finish_reason"].cast(pa.string()), "length")).as_py() or 0
        put("truncated", "value", stats.proportion(truncated, good.num_rows), good.num_rows, "")
    known = pc.sum(pc.is_valid(good["leaked"])).as_py() or 0
    if known:
        put("leaked", "value", (pc.sum(good["leaked"]).as_py() or 0) / known, known, "")
    lag = floats(measured["client_lag_max_ns"]) / NS_PER_MS
    if len(lag):
        middle = floats(measured["client_lag_p50_ns"]) / NS_PER_MS
        put("client_lag_ms", "p50", stats.percentile(middle, 50), len(lag), "ms")
        put("client_lag_ms", "p99", stats.percentile(lag, 99), len(lag), "ms")
        put("client_lag_ms", "max", float(lag.max()), len(lag), "ms")
    return PointMetrics(figures)


def by_kind(failed: Iterable[tuple[str | None, str | None]]) -> dict[str, tuple[int, str]]:
    """Failures given as (kind, message), by kind: how many, and the first one's message."""
    found: dict[str, tuple[int, str]] = {}
    for kind, message in failed:
        count, first = found.get(kind or "", (0, message or ""))
        found[kind or ""] = count + 1, first
    return found
