"""From stored requests to numbers. One formula a metric; all read the Parquet, so a run can be shown again.

Milliseconds for durations, tokens per second for rates. Warm-up requests are left out of everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from oss_eval import stats

Floats = NDArray[np.float64]
NS_PER_MS = 1e6
SLICES = 10

DURATIONS = ("ttft", "ttfa", "latency", "tpot", "itl")
"""Metrics that are distributions over requests (itl: over gaps), in ms."""


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

    def metric(self, metric: str, stat: str = "value") -> Metric | None:
        """A figure with its interval."""
        return self.figures.get((metric, stat))


def point_metrics(requests: pa.Table) -> PointMetrics:
    """All figures of one point's requests (rows of the stored schema, one point)."""
    measured = requests.filter(pc.invert(requests["warmup"]))
    figures: dict[tuple[str, str], Metric] = {}

    def put(metric: str, stat: str, estimate: stats.Estimate | float | None, n: int, unit: str) -> None:
        if estimate is None:
            return
        found = estimate if isinstance(estimate, stats.Estimate) else stats.Estimate(estimate, None, None)
        figures[metric, stat] = Metric(metric, stat, found.value, found.low, found.high, n, unit)

    total = measured.num_rows
    good = measured.filter(pc.equal(measured["status"].cast(pa.string()), "ok"))
    put("requests", "value", float(total), total, "")
    put("failures", "value", float(total - good.num_rows), total, "")
    if total:
        put("success_rate", "value", stats.proportion(good.num_rows, total), total, "")
    for name, values in durations(good).items():
        if len(values):
            put(name + "_ms", "mean", stats.mean(values), len(values), "ms")
            for q in (50, 90, 95, 99):
                put(name + "_ms", f"p{q}", stats.percentile(values, q), len(values), "ms")
            put(name + "_ms", "max", float(values.max()), len(values), "ms")
    for name in ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens"):
        values = _floats(good[name])
        if len(values):
            put(name, "mean", stats.mean(values), len(values), "tokens")
            put(name, "total", float(values.sum()), len(values), "tokens")
    duration = measured_seconds(measured)
    if duration:
        put("duration", "value", duration, total, "s")
        put("rps", "value", good.num_rows / duration, good.num_rows, "1/s")
        tokens = _floats(good["completion_tokens"])
        if len(tokens):
            put("output_tps", "value", float(tokens.sum()) / duration, len(tokens), "tokens/s")
    put("plateau_output_tps", "value", plateau(good, measured), good.num_rows, "tokens/s")
    events = _floats(good["n_events"])
    if len(events) and events.sum():
        counted = pc.and_(pc.is_valid(good["completion_tokens"]), pc.greater(good["n_events"], 0))
        subset = good.filter(counted)
        if subset.num_rows:
            ratio = pc.sum(subset["completion_tokens"]).as_py() / pc.sum(subset["n_events"]).as_py()
            put("tokens_per_chunk", "value", ratio, subset.num_rows, "tokens")
        put(
            "shared_reads",
            "value",
            float(_floats(good["n_shared"]).sum() / events.sum()),
            int(events.sum()),
            "",
        )
    truncated = pc.sum(pc.equal(good["finish_reason"].cast(pa.string()), "length")).as_py()
    if good.num_rows and truncated is not None:
        put("truncated", "value", stats.proportion(truncated, good.num_rows), good.num_rows, "")
    lag = _floats(measured["client_lag_max_ns"]) / NS_PER_MS
    if len(lag):
        put(
            "client_lag_ms",
            "p50",
            stats.percentile(_floats(measured["client_lag_p50_ns"]) / NS_PER_MS, 50),
            len(lag),
            "ms",
        )
        put("client_lag_ms", "p99", stats.percentile(lag, 99), len(lag), "ms")
        put("client_lag_ms", "max", float(lag.max()), len(lag), "ms")
    return PointMetrics(figures)


def durations(good: pa.Table) -> dict[str, Floats]:
    """Values in ms of every duration metric over successful requests; requests without one are left out.

    ttft = first token event - start; ttfa = first answer (non-reasoning) event - start.
    latency = last token event - start for a stream, end of the response - start otherwise.
    tpot = (latency - ttft) / (completion_tokens - 1) for streams of at least 2 tokens.
    itl = gaps between successive token events, pooled over requests.
    """
    start = good["start_ns"]
    streamed = good.filter(pc.greater(good["n_events"], 1))
    tokens = streamed.filter(pc.greater_equal(streamed["completion_tokens"], 2))
    span = _floats(pc.subtract(tokens["last_token_ns"], tokens["first_token_ns"]))
    last = pc.coalesce(good["last_token_ns"], good["end_ns"])
    return {
        "ttft": _floats(pc.subtract(good["first_token_ns"], start)) / NS_PER_MS,
        "ttfa": _floats(pc.subtract(good["first_answer_ns"], start)) / NS_PER_MS,
        "latency": _floats(pc.subtract(last, start)) / NS_PER_MS,
        "tpot": span / NS_PER_MS / (_floats(tokens["completion_tokens"]) - 1),
        "itl": gaps(good["event_ns"]),
    }


def gaps(events: pa.ChunkedArray) -> Floats:
    """Gaps in ms between successive events within each list, pooled."""
    pooled: list[Floats] = []
    for chunk in events.chunks:
        values = chunk.flatten().to_numpy()
        lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy()
        ends = np.cumsum(lengths)
        steps = np.diff(values)
        crossing = ends[:-1] - 1  # the step from one request's last event to the next one's first
        keep = np.ones(len(steps), dtype=bool)
        keep[crossing[(crossing >= 0) & (crossing < len(steps))]] = False
        pooled.append(steps[keep] / NS_PER_MS)
    return np.concatenate(pooled) if pooled else np.empty(0)


def measured_seconds(measured: pa.Table) -> float | None:
    """Last end - first start of the measured requests, failed ones included."""
    first = pc.min(measured["start_ns"]).as_py()
    last = pc.max(measured["end_ns"]).as_py()
    return (last - first) / 1e9 if first is not None and last is not None and last > first else None


def plateau(good: pa.Table, measured: pa.Table) -> stats.Estimate | None:
    """Token events per second while as many requests were in flight as asked for, times tokens per event.

    The start-up burst and the tail, when slots run empty, are outside. The interval comes from ten slices of
    that time. None when there was no such time, or nothing was streamed.
    """
    target = pc.max(measured["parallel"]).as_py()
    running = measured.filter(pc.and_(pc.is_valid(measured["start_ns"]), pc.is_valid(measured["end_ns"])))
    events = good.filter(pc.and_(pc.greater(good["n_events"], 0), pc.is_valid(good["completion_tokens"])))
    if not target or not running.num_rows or not events.num_rows:
        return None
    starts, ends = np.sort(running["start_ns"].to_numpy()), np.sort(running["end_ns"].to_numpy())
    if len(starts) <= target:
        return None
    # A slot's next request starts within a moment of its last one's end: full from the target-th start to the
    # first end that no start follows.
    begin, finish = starts[target - 1], ends[len(ends) - target]
    if finish <= begin:
        return None
    instants = absolute_events(events)
    ratio = pc.sum(events["completion_tokens"]).as_py() / pc.sum(events["n_events"]).as_py()
    counts, _ = np.histogram(instants, bins=SLICES, range=(begin, finish))
    rates = counts / ((finish - begin) / 1e9 / SLICES) * ratio
    # Slices are nearly independent where single tokens are not (batch means: Law, Simulation Modeling and
    # Analysis, section 9.5.3).
    return stats.mean(rates)


def absolute_events(requests: pa.Table) -> NDArray[np.int64]:
    """UTC ns of all token events, pooled."""
    pooled: list[Any] = []
    for batch in requests.select(["start_ns", "event_ns"]).to_batches():
        lengths = pc.fill_null(pc.list_value_length(batch["event_ns"]), 0).to_numpy()
        pooled.append(batch["event_ns"].flatten().to_numpy() + np.repeat(batch["start_ns"].to_numpy(), lengths))
    return np.concatenate(pooled) if pooled else np.empty(0, dtype=np.int64)


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.drop_null().to_numpy(), dtype=np.float64)
