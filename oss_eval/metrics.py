"""From stored requests to numbers. One formula a metric; all read the Parquet, so a run can be shown again.

Milliseconds for durations, tokens per second for rates. Warm-up requests are left out of everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from oss_eval import stats

Floats = NDArray[np.float64]
NS_PER_MS = 1e6
OBJECTIVE = 0.99
"""The share of requests that has to meet a service level's limits, as is usual for an objective on the P99."""
SLICES = 10
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
    good = _succeeded(measured)
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
            rows = _succeeded(rows.filter(pc.invert(rows["warmup"])))
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
    lag = _floats(measured["client_lag_max_ns"]) / NS_PER_MS
    if len(lag):
        middle = _floats(measured["client_lag_p50_ns"]) / NS_PER_MS
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


def _succeeded(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.equal(rows["status"].cast(pa.string()), "ok"))


def durations(good: pa.Table) -> dict[str, Floats]:
    """Values in ms of the durations a request has one of; requests without one are left out.

    ttft = first token event - start; ttfa = first answer (non-reasoning) event - start.
    latency = last token event - start for a stream, end of the response - start otherwise.
    tpot = (latency - ttft) / (completion_tokens - 1) for streams of at least 2 tokens.
    """
    return {name: values[~np.isnan(values)] for name, values in request_durations(good).items()}


@dataclass(frozen=True, slots=True)
class Goodput:
    """How many requests met every limit."""

    attainment: stats.Estimate
    """Share of all measured requests, failures in the denominator, with Wilson's interval."""
    rate: float | None
    """Requests per second that met every limit; None without a duration."""
    n: int

    @property
    def meets(self) -> bool | None:
        """Whether OBJECTIVE of the requests do; None where there are too few of them to tell."""
        if self.attainment.value >= OBJECTIVE:
            return True if self.n >= stats.P99_NEEDS else None
        return False if self.attainment.high is not None and self.attainment.high < OBJECTIVE else None


def goodput(requests: pa.Table, limits: dict[str, float]) -> Goodput | None:
    """Requests that met every limit (DistServe: Zhong et al. 2024, arXiv:2401.09670, section 2); None without any
    request.

    `limits` maps `ttft`, `ttfa`, `tpot`, `latency` to ms. A request without such a duration misses a limit on it,
    but for tpot, which an answer of one token can't have. Requests that a stop cancelled are left out.
    """
    measured = asked_once(requests.filter(pc.invert(requests["warmup"])))
    seconds = measured_seconds(measured)
    measured = measured.filter(pc.not_equal(measured["status"].cast(pa.string()), "cancelled"))
    if not measured.num_rows:
        return None
    good = _succeeded(measured)
    met = np.ones(good.num_rows, dtype=bool)
    values = request_durations(good)
    short = np.asarray(pc.fill_null(pc.less_equal(good["completion_tokens"], 1), False).to_numpy(), dtype=bool)
    for name, limit in limits.items():
        met &= (values[name] <= limit) | (short & (name == "tpot"))
    count = int(met.sum())
    share = stats.proportion(count, measured.num_rows)
    return Goodput(share, count / seconds if seconds else None, measured.num_rows)


def request_durations(rows: pa.Table) -> dict[str, Floats]:
    """The durations of `durations` in ms, one value a row, NaN where a request has none."""

    def values(column: pa.ChunkedArray) -> Floats:
        return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)

    def since(name: str, begin: str) -> Floats:
        """Whole nanoseconds are subtracted: as floats, instants of this century are 256 ns coarse."""
        return values(pc.subtract(rows[name], rows[begin]))

    last, tokens = since("last_token_ns", "start_ns"), values(rows["completion_tokens"])
    several = (values(rows["n_events"]) > 1) & (tokens >= 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where(several, since("last_token_ns", "first_token_ns") / (tokens - 1), np.nan)
    return {
        "ttft": since("first_token_ns", "start_ns") / NS_PER_MS,
        "ttfa": since("first_answer_ns", "start_ns") / NS_PER_MS,
        "latency": np.where(np.isnan(last), since("end_ns", "start_ns"), last) / NS_PER_MS,
        "tpot": tpot / NS_PER_MS,
    }


def gaps(events: pa.ChunkedArray) -> Floats:
    """itl: gaps in ms between successive events within each list, pooled."""
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


def asked_once(measured: pa.Table) -> pa.Table:
    """Rows without those of which a resumed run has a later one.

    It asks again what a stop had cancelled, and what an outage of the server had kept from being sent.
    """
    if "session" not in measured.column_names or len(measured["session"].unique()) < 2:
        return measured
    open_ = pc.or_(pc.equal(measured["status"].cast(pa.string()), "cancelled"), pc.is_null(measured["start_ns"]))
    latest = measured.group_by("request_id").aggregate([("session", "max")])
    last = dict(zip(latest["request_id"].to_pylist(), latest["session_max"].to_pylist(), strict=True))
    rows = zip(
        *(column.to_pylist() for column in (measured["request_id"], measured["session"], open_)), strict=True
    )
    keep = [not left or (session or 1) >= (last[name] or 1) for name, session, left in rows]
    return measured.filter(pa.array(keep, pa.bool_()))


def sessions(measured: pa.Table) -> list[pa.Table]:
    """Rows of each sitting in which a point was measured: one, unless a resumed run completed it."""
    if "session" not in measured.column_names:
        return [measured]
    session = pc.fill_null(measured["session"], 1)
    return [measured.filter(pc.equal(session, one)) for one in sorted(pc.unique(session).to_pylist())]


def measured_seconds(measured: pa.Table) -> float | None:
    """Last end - first start of the measured requests, failed ones included; of several sessions their sum."""
    total = 0.0
    for rows in sessions(measured):
        first, last = pc.min(rows["start_ns"]).as_py(), pc.max(rows["end_ns"]).as_py()
        total += (last - first) / 1e9 if first is not None and last is not None else 0.0
    return total if total > 0 else None


def plateau_span(measured: pa.Table) -> tuple[int, int] | None:
    """When as many requests were in flight as asked for: from the end of the ramp to the begin of the tail.

    In UTC ns. A slot's next request starts within a moment of its last one's end, so that is from the
    `parallel`-th start to the first end that no start follows; of several sessions, the longest such time. None
    when there was none.
    """
    spans = [span for rows in sessions(measured) if (span := _plateau(rows)) is not None]
    return max(spans, key=lambda span: span[1] - span[0], default=None)


def _plateau(measured: pa.Table) -> tuple[int, int] | None:
    target = pc.max(measured["parallel"]).as_py()
    whole = measured.filter(pc.and_(pc.is_valid(measured["start_ns"]), pc.is_valid(measured["end_ns"])))
    if not target or len(whole) <= target:
        return None
    starts, ends = np.sort(whole["start_ns"].to_numpy()), np.sort(whole["end_ns"].to_numpy())
    begin, finish = int(starts[target - 1]), int(ends[len(ends) - target])
    return (begin, finish) if finish > begin else None


def absolute_events(requests: pa.Table) -> NDArray[np.int64]:
    """UTC ns of all token events, pooled."""
    pooled: list[Any] = []
    for batch in requests.select(["start_ns", "event_ns"]).to_batches():
        lengths = pc.fill_null(pc.list_value_length(batch["event_ns"]), 0).to_numpy()
        pooled.append(batch["event_ns"].flatten().to_numpy() + np.repeat(batch["start_ns"].to_numpy(), lengths))
    return np.concatenate(pooled) if pooled else np.empty(0, dtype=np.int64)


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.drop_null().to_numpy(), dtype=np.float64)
