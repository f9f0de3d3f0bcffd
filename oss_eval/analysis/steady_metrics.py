"""Metrics of a point's steady state."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis import stats
from oss_eval.analysis.figures import Figures, PointMetrics
from oss_eval.analysis.latency import earliest_ttft, request_durations, token_gaps
from oss_eval.analysis.metrics import ROWS_AT_ONCE
from oss_eval.analysis.request_rows import Floats, floats, is_abandoned, succeeded
from oss_eval.analysis.run_interval import FEWEST, rate_of_run
from oss_eval.analysis.slo import goodput
from oss_eval.analysis.steady_state import SLICES, SteadyWindow, absolute_events, event_weights


def steady_metrics(
    rows: pa.Table,
    window: SteadyWindow,
    events: Iterable[pa.Table],
    limits: dict[str, float] | None = None,
) -> PointMetrics:
    """Figures of the steady state; `rows` and `events` as in `point_metrics`, warm-up included.

    Durations are those of measured requests that start in the window (see `SteadyWindow.until_ns`). Rates count
    what ends, and the tokens that arrive, within it, whichever request they belong to. With `limits` of a
    request (see `goodput`), `attainment` and `goodput` too."""
    per_wave = max(1, round(window.in_flight))
    figures = Figures(per_wave, first=0)
    starts = pc.fill_null(rows["start_ns"], 0).to_numpy()
    own = pc.invert(rows["warmup"]).to_numpy() & (starts >= window.start_ns)
    asked = rows.filter(pa.array(own & (starts < window.until_ns["latency"])))
    ended = asked.filter(pc.not_equal(asked["status"].cast(pa.string()), "cancelled"))
    figures.put("requests", "value", float(len(asked)), len(asked), "")
    figures.put("duration", "value", window.seconds, len(asked), "s")
    if len(ended):
        figures.put("success_rate", "value", stats.proportion(len(succeeded(ended)), len(ended)), len(ended), "")
    started = rows.filter(pa.array(own)).sort_by("start_ns")
    for name, values in request_durations(started).items():
        early = started["start_ns"].to_numpy() < window.until_ns[name]
        good = pc.equal(started["status"].cast(pa.string()), "ok").to_numpy()
        figures.put_requests(f"{name}_ms", values[early & good & ~np.isnan(values)])
        lowest = earliest_ttft(started.filter(pa.array(early & good))) if name == "ttft" else None
        if lowest is not None:
            figures.put_requests("ttft_low_ms", lowest)
    tokens = floats(succeeded(asked)["completion_tokens"])
    if len(tokens):
        figures.put("completion_tokens", "mean", figures.mean(tokens), len(tokens), "tokens")
    _rates(figures, rows, window, events)
    level = goodput(asked, limits) if limits else None
    rate = figures.by_stat.get(("rps", "value"))
    if level is not None and rate is not None:
        figures.put("attainment", "value", level.attainment, level.n, "")
        succeeding = len(succeeded(ended)) / len(ended)  # `rps` counts successes alone, attainment all
        share = level.attainment.value / succeeding if succeeding else 0.0
        figures.put("goodput", "value", rate.value * share, level.n, "1/s")
    return PointMetrics(figures.by_stat)


def _spread(rows: pa.Table, window: SteadyWindow) -> Floats:
    """Requests in SLICES equal parts of the window, each spread evenly from its start to its end: ends come in
    bursts. One that the end of the point cancelled is taken to be as long as the others on average."""
    rows = rows.filter(pc.is_in(rows["status"].cast(pa.string()), pa.array(["ok", "cancelled"])))
    rows = rows.filter(pc.and_(pc.is_valid(rows["start_ns"]), pc.is_valid(rows["end_ns"])))
    rows = rows.filter(pc.invert(is_abandoned(rows)))
    times = (rows[name].to_numpy() - window.start_ns for name in ("start_ns", "end_ns"))
    starts, ends = (values.astype(np.float64) for values in times)
    took, whole = ends - starts, pc.equal(rows["status"].cast(pa.string()), "ok").to_numpy()
    usual = float(took[whole].mean()) if whole.any() else 0.0
    took = np.maximum(np.where(whole, took, np.maximum(took, usual)), 1.0)
    edges = np.linspace(0, window.end_ns - window.start_ns, SLICES + 1)
    return np.diff([np.clip((edge - starts) / took, 0, 1).sum() for edge in edges])


def _rates(figures: Figures, rows: pa.Table, window: SteadyWindow, events: Iterable[pa.Table]) -> None:
    span = window.start_ns, window.end_ns
    ended = _spread(rows, window)
    requests = round(ended.sum())
    enough = requests >= (FEWEST + 1) * figures.parallel
    counts, gaps = np.zeros(SLICES), stats.Distribution()
    for table in events:
        for begin in range(0, table.num_rows, ROWS_AT_ONCE):
            part = table.slice(begin, ROWS_AT_ONCE)
            # Requests that the end of the point cancelled have brought tokens too.
            part = part.filter(pc.is_in(part["status"].cast(pa.string()), pa.array(["ok", "cancelled"])))
            counts += np.histogram(absolute_events(part), bins=SLICES, range=span, weights=event_weights(part))[0]
            some = succeeded(part)
            starts = some["start_ns"].to_numpy()
            inside = (starts >= span[0]) & (starts < window.until_ns["latency"])
            gaps.add(token_gaps(some.filter(pc.and_(pa.array(inside), pc.invert(some["warmup"])))))
    for name, amounts, unit in (("rps", ended, "1/s"), ("output_tps", counts, "tokens/s")):
        if amounts.any():
            estimate = rate_of_run(amounts, window.seconds)
            estimate = estimate if enough else stats.Estimate(estimate.value, None, None)
            figures.put(name, "value", estimate, requests, unit)
    figures.put_events("itl_ms", gaps)
