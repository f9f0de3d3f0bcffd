"""Metrics of load sweeps, computed from the stored requests. One formula for each metric.

Durations are milliseconds, rates are per second. Warm-up requests are excluded.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis import stats
from oss_eval.analysis.arrivals import mean_in_flight, measure_arrivals
from oss_eval.analysis.energy import gpu_figures
from oss_eval.analysis.figures import Figures, PointMetrics
from oss_eval.analysis.latency import durations, earliest_ttft, gaps, optional, reasoning_rate, token_gaps
from oss_eval.analysis.request_rows import (
    NS_PER_MS,
    Floats,
    asked_once,
    floats,
    is_abandoned,
    measured_seconds,
    succeeded,
    windows,
)
from oss_eval.analysis.run_interval import enough_for_rate, rate_of_run
from oss_eval.analysis.server_view import server_figures
from oss_eval.analysis.steady_state import SLICES, absolute_events, event_weights, plateau_span

ROWS_AT_ONCE = 128
"""Requests whose events are in memory at the same time: arrays of this size are returned to the system when
freed."""


def point_metrics(
    requests: pa.Table,
    events: Iterable[pa.Table] | None = None,
    server: pa.Table | None = None,
    hourly_price: float | None = None,
    gpu: pa.Table | None = None,
) -> PointMetrics:
    """All figures of one point's requests (rows of the stored schema, one point).

    `events` gives the same requests again with their `event_ns`, a bounded number at a time; without it
    `requests` itself holds them. `server`: the point's rows of the server's own metrics.
    `hourly_price`: of all GPUs together. `gpu`: the run's `gpu_telemetry`.
    """
    measured = asked_once(requests.filter(pc.invert(requests["warmup"])))
    good = succeeded(measured).sort_by("start_ns")
    slots = pc.max(measured["parallel"]).as_py() or max(1, round(mean_in_flight(measured) or 1))
    figures = Figures(slots)
    _count_requests(figures, measured, good)
    found, earliest = durations(good), earliest_ttft(good)
    if earliest is not None:
        found["ttft_low"] = earliest
        bounded = len(good) - good["first_token_low_ns"].null_count
        figures.put("ttft_bounded", "value", float(bounded), len(earliest), "")
    for name, values in found.items():
        figures.put_requests(name + "_ms", values)
    rates = reasoning_rate(good)
    if len(rates):
        figures.put("reasoning_tps", "mean", figures.mean(rates), len(rates), "tokens/s")
    _count_tokens(figures, measured, good, hourly_price)
    _measure_events(figures, measured, good, events if events is not None else [requests])
    if "scheduled_ns" in measured.column_names:
        measure_arrivals(figures, measured)
    _describe_answers(figures, good)
    _measure_client(figures, measured)
    if server is not None and server.num_rows:
        means = {name: float(values.mean()) for name, values in found.items() if len(values)}
        for (metric, stat), (value, n, unit) in server_figures(server, len(good), means).items():
            figures.put(metric, stat, value, n, unit)
    if gpu is not None and gpu.num_rows:
        tokens = figures.by_stat.get(("completion_tokens", "total"))
        for (metric, stat), (estimate, n, unit) in gpu_figures(
            gpu, windows(measured), tokens.value if tokens else 0.0
        ).items():
            figures.put(metric, stat, estimate, n, unit)
    return PointMetrics(figures.by_stat)


def _count_requests(figures: Figures, measured: pa.Table, good: pa.Table) -> None:
    total = measured.num_rows
    figures.put("requests", "value", float(total), total, "")
    given_up = pc.sum(pc.equal(measured["status"].cast(pa.string()), "cancelled")).as_py() or 0
    abandoned = pc.sum(is_abandoned(measured)).as_py() or 0
    cancelled, ended = given_up - abandoned, total - given_up
    figures.put("failures", "value", float(ended - good.num_rows), ended, "")
    if abandoned:
        figures.put("abandoned", "value", float(abandoned), total, "")
    if cancelled:
        figures.put("cancelled", "value", float(cancelled), total, "")
    if ended:
        figures.put("success_rate", "value", stats.proportion(good.num_rows, ended), ended, "")


def _count_tokens(figures: Figures, measured: pa.Table, good: pa.Table, hourly_price: float | None) -> None:
    """Tokens of requests, the rates over the measured time, and the price of tokens."""
    for name in ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens"):
        values = floats(good[name])
        if len(values):
            figures.put(name, "mean", figures.mean(values), len(values), "tokens")
            figures.put(name, "total", float(values.sum()), len(values), "tokens")
    told = good.filter(pc.and_(pc.is_valid(good["cached_tokens"]), pc.is_valid(good["prompt_tokens"])))
    if told.num_rows and pc.sum(told["prompt_tokens"]).as_py():
        share = pc.sum(told["cached_tokens"]).as_py() / pc.sum(told["prompt_tokens"]).as_py()
        figures.put("cached_share", "value", share, told.num_rows, "")
    duration = measured_seconds(measured)
    if duration:
        figures.put("duration", "value", duration, measured.num_rows, "s")
        rate = good.num_rows / duration
        slices = _spread(measured, good) if enough_for_rate(good.num_rows, figures.parallel) else None
        figures.put("rps", "value", _rate(rate, slices, duration), good.num_rows, "1/s")
        tokens = floats(good["completion_tokens"])
        if len(tokens):
            rate = float(tokens.sum()) / duration
            figures.put("output_tps", "value", rate, len(tokens), "tokens/s")
            if hourly_price and rate:
                price = hourly_price / 3600 / rate * 1e6
                figures.put("price_per_mtok", "value", price, len(tokens), "price of 1M output tokens")


def _measure_events(figures: Figures, measured: pa.Table, good: pa.Table, events: Iterable[pa.Table]) -> None:
    """Gaps between token events, and the throughput while all streams are busy."""
    streamed = good.filter(pc.and_(pc.greater(good["n_events"], 0), pc.is_valid(good["completion_tokens"])))
    per_event = (
        pc.sum(streamed["completion_tokens"]).as_py() / pc.sum(streamed["n_events"]).as_py()
        if len(streamed)
        else 0
    )
    span = plateau_span(measured)
    pooled, between, sizes = stats.Distribution(), stats.Distribution(), stats.Distribution()
    whole = _only_window(measured)
    counts, over_all = np.zeros(SLICES), np.zeros(SLICES)
    several = len(streamed) and per_event > 1
    for table in events:
        for start in range(0, table.num_rows, ROWS_AT_ONCE):
            rows = table.slice(start, ROWS_AT_ONCE)
            rows = succeeded(rows.filter(pc.invert(rows["warmup"])))
            pooled.add(token_gaps(rows))
            if several:
                between.add(gaps(rows["event_ns"]))
                sizes.add(pc.list_flatten(rows["event_tokens"]).to_numpy().astype(np.float64))
            times, tokens = absolute_events(rows), event_weights(rows)
            if span:
                counts += np.histogram(times, bins=SLICES, range=span, weights=tokens)[0]
            if whole:
                over_all += np.histogram(times, bins=SLICES, range=whole, weights=tokens)[0]
    figures.put_events("itl_ms", pooled)
    if sizes.n:
        figures.put_events("chunk_gap_ms", between)
        figures.put_events("tokens_per_chunk", sizes, "tokens")
    rate = figures.by_stat.get(("output_tps", "value"))
    enough = enough_for_rate(good.num_rows, figures.parallel)
    if rate is not None and over_all.any() and enough:
        estimate = _rate(rate.value, over_all, measured_seconds(measured) or 0.0)
        figures.put("output_tps", "value", estimate, rate.n, rate.unit)
    if span and per_event:
        estimate = rate_of_run(counts, (span[1] - span[0]) / 1e9)
        estimate = estimate if enough else stats.Estimate(estimate.value, None, None)
        figures.put("plateau_output_tps", "value", estimate, good.num_rows, "tokens/s")
    n_events = int(pc.sum(good["n_events"]).as_py() or 0)
    if n_events:
        if per_event:
            figures.put("tokens_per_chunk", "value", per_event, len(streamed), "tokens")
            unknown = int(np.isnan(optional(streamed, "first_event_tokens")).sum())
            figures.put("chunks_uncounted", "value", unknown / len(streamed), len(streamed), "")
        figures.put("shared_reads", "value", pc.sum(good["n_shared"]).as_py() / n_events, n_events, "")


def _only_window(measured: pa.Table) -> tuple[int, int] | None:
    """When the point was measured, in UTC ns; None of a point that several sessions measured."""
    spans = windows(measured)
    return (spans[0].start_ns, spans[0].end_ns) if len(spans) == 1 else None


def _spread(measured: pa.Table, good: pa.Table) -> Floats | None:
    """Requests in SLICES equal parts of the measured time, each spread evenly from its start to its end."""
    window = _only_window(measured)
    if window is None:
        return None
    zero, end = window
    starts, ends = ((good[name].to_numpy() - zero).astype(np.float64) for name in ("start_ns", "end_ns"))
    edges = np.linspace(0, end - zero, SLICES + 1)
    done = [np.clip((edge - starts) / np.maximum(ends - starts, 1), 0, 1).sum() for edge in edges]
    return np.diff(done)


def _rate(value: float, slices: Floats | None, seconds: float) -> stats.Estimate:
    """A rate with the relative interval that slices of its amount have: they may count more exactly than it."""
    if slices is None or not slices.any() or not seconds:
        return stats.Estimate(value, None, None)
    found = rate_of_run(slices, seconds)
    low, high = ((end or 0.0) / found.value * value for end in (found.low, found.high))
    return stats.Estimate(value, low, high)


def _describe_answers(figures: Figures, good: pa.Table) -> None:
    """Shares of answers that were truncated, and in which reasoning leaked."""
    if good.num_rows:
        truncated = pc.sum(pc.equal(good["finish_reason"].cast(pa.string()), "length")).as_py() or 0
        figures.put("truncated", "value", stats.proportion(truncated, good.num_rows), good.num_rows, "")
    known = pc.sum(pc.is_valid(good["leaked"])).as_py() or 0
    if known:
        figures.put("leaked", "value", (pc.sum(good["leaked"]).as_py() or 0) / known, known, "")


def _measure_client(figures: Figures, measured: pa.Table) -> None:
    """Delay from the arrival of bytes to their read by this client."""
    lag = floats(measured["client_lag_max_ns"]) / NS_PER_MS
    if len(lag):
        median = floats(measured["client_lag_p50_ns"]) / NS_PER_MS
        figures.put("client_lag_ms", "p50", float(np.percentile(median, 50)), len(lag), "ms")
        figures.put("client_lag_ms", "p99", float(np.percentile(lag, 99)), len(lag), "ms")
        figures.put("client_lag_ms", "max", float(lag.max()), len(lag), "ms")


def by_kind(failed: Iterable[tuple[str | None, str | None]]) -> dict[str, tuple[int, str]]:
    """Failures given as (kind, message), by kind: how many, and the first one's message."""
    found: dict[str, tuple[int, str]] = {}
    for kind, message in failed:
        count, first = found.get(kind or "", (0, message or ""))
        found[kind or ""] = count + 1, first
    return found
