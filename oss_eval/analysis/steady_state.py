"""The part of a point in which its figures do not change, and the one in which all its streams are busy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from oss_eval.analysis.latency import optional, request_durations
from oss_eval.analysis.request_rows import Floats, sessions, succeeded
from oss_eval.analysis.trend import drifts, truncation

SLICES = 10
FEWEST = 20
"""Requests that start in a steady state, at least."""
DRIFT = 0.05
"""Relative change over the window that is no steady state."""
UNLIKE = 0.05
"""Relative difference from the rest that makes the first requests part of the start."""
LONG_CUT = 0.3
MSER_BATCH, MSER_BATCHES = 5, 40
"""Requests in a batch, at least, and batches, at most, in the search for the begin of the steady state."""
NAMES = {"ttft": "TTFT", "tpot": "time per token", "latency": "latency"}
SLOW_START = 1.5
"""The first wave of requests is slow if it takes this many times as long as the second one."""
SECOND_WAVE = 3
"""Minimum number of requests of the second wave."""


class SteadyWindow(NamedTuple):
    """A time in which a point's figures do not change, in UTC ns, and which requests to take each duration
    from."""

    start_ns: int
    end_ns: int
    until_ns: dict[str, int]
    """By duration: of the requests that start from `start_ns` and before this, all have it by `end_ns`, so that
    none is left out for being slow."""
    in_flight: float
    """Mean requests in flight."""

    @property
    def seconds(self) -> float:
        """Length."""
        return (self.end_ns - self.start_ns) / 1e9


def steady_window(rows: pa.Table) -> SteadyWindow | str:
    """The steady state of a point, found from all its rows, warm-up included; or why there is none.

    It begins when the load is what was asked for and, without a warm-up, as many requests have ended as there
    are slots; or later, where MSER cuts the TTFT or the time per token (of whole responses the latency; see
    `trend`). It ends when load falls: in a closed loop as slots run dry, in an open one at the last planned
    start. There is none where one of these series, or the requests in flight of an open loop, has a trend of
    DRIFT or more over the window."""
    measured = rows.filter(pc.invert(rows["warmup"]))
    if len(sessions(measured)) != 1:
        return "several sessions measured the point"
    sent = rows.filter(pc.is_valid(rows["start_ns"])).sort_by("start_ns")
    own = pc.invert(sent["warmup"]).to_numpy()
    if not own.any():
        return "no request was sent"
    starts = sent["start_ns"].to_numpy()
    ends = pc.fill_null(sent["end_ns"], int(starts[-1])).to_numpy()
    warm = bool(pc.any(sent["warmup"]).as_py())
    bounds = _full_load(sent, starts, ends, own, warm)
    if isinstance(bounds, str):
        return bounds
    begin, end = bounds
    until = _until(sent, starts, ends, begin, end)
    good = own & pc.equal(sent["status"].cast(pa.string()), "ok").to_numpy()
    durations = request_durations(sent)

    def series(name: str) -> tuple[Floats, NDArray[np.int64]]:
        """The durations of requests in the window that are not chosen by being short, and the requests' starts."""
        having = good & (starts >= begin) & (starts < until[name]) & ~np.isnan(durations[name])
        return durations[name][having], starts[having]

    cuts = [begin]
    streams = len(series("ttft")[0]) > 0
    for name in ("ttft", "tpot") if streams else ("latency",):
        values, of = series(name)
        cut = truncation(values, max(MSER_BATCH, len(values) // MSER_BATCHES), UNLIKE)
        # A long cut is that of a drift, unless what comes after the first quarter is steady.
        change = drifts(values[len(values) // 4 :], DRIFT) if cut > LONG_CUT * len(values) else None
        if change is not None:
            return f"the {NAMES[name]} changes by {change:+.0%} over most of the time at full load"
        if cut:
            cuts.append(int(of[cut]))
    begin = max(cuts)
    count = len(series("ttft")[0]) or len(series("latency")[0])
    if count < FEWEST:
        return f"only {count} requests were measured at full load: use a larger --number, or --warmup auto"
    for name in ("ttft", "tpot", "latency"):
        change = drifts(series(name)[0], DRIFT)
        if change is not None:
            return f"the {NAMES[name]} changes by {change:+.0%} over the time at full load"
    flight = in_flight_at(starts, ends, np.linspace(begin, end, 10 * FEWEST))
    change = drifts(flight, DRIFT) if pc.is_valid(sent["rate"][0]).as_py() else None
    if change is not None:
        return f"the requests in flight change by {change:+.0%}"
    return SteadyWindow(begin, end, until, float(flight.mean()))


def _until(
    sent: pa.Table, starts: NDArray[np.int64], ends: NDArray[np.int64], begin: int, end: int
) -> dict[str, int]:
    """By duration, the time up to which all requests that have started since `begin` have it by `end`; UTC ns."""
    until = {}
    for name, column in (("ttft", "first_token_ns"), ("ttfa", "first_answer_ns"), ("latency", "end_ns")):
        there = pc.fill_null(sent[column], 0).to_numpy()
        late = (starts >= begin) & ((there > end) | ((there == 0) & (ends > end)))
        until[name] = int(min(starts[late].min(initial=end), end))
    return until | {"tpot": until["latency"], "reasoning": until["ttfa"]}


def _full_load(
    sent: pa.Table,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    own: NDArray[np.bool_],
    warm: bool,
) -> tuple[int, int] | str:
    """From when to when the load is what was asked for, UTC ns."""
    first = int(starts[own][0])
    ordered = np.sort(ends)
    slots = pc.max(sent["parallel"]).as_py()
    if slots is None:
        last = int(starts[own][-1])
        begin = first if warm else first + int(np.median(ends[own] - starts[own]))
        return (begin, last) if last > begin else "the point is shorter than a request"
    if len(starts) <= slots:
        return "there is one request for each slot"
    begin, end = int(starts[slots - 1]), int(ordered[len(ordered) - slots])
    begin = max(begin, first) if warm else max(begin, int(ordered[slots - 1]))
    end = min(end, int(ends[own].max()))
    return (begin, end) if end > begin else "full load does not last longer than the first requests"


def in_flight_at(starts: NDArray[np.int64], ends: NDArray[np.int64], times: NDArray[Any]) -> Floats:
    """Requests in flight at some times; `starts` are sorted."""
    begun = np.searchsorted(starts, times, side="right")
    over = np.searchsorted(np.sort(ends), times, side="right")
    return np.asarray(begun - over, dtype=np.float64)


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


def event_weights(requests: pa.Table) -> Floats:
    """Tokens of all token events, pooled as `absolute_events` does.

    An event whose tokens are not known counts for as many as its request had for each of its events; where those
    are not known either, for as many as the others' events did.
    """
    lengths = pc.fill_null(pc.list_value_length(requests["event_ns"]), 0).to_numpy()
    tokens = optional(requests, "completion_tokens")
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where((lengths > 0) & (tokens > 0), tokens / lengths, np.nan)
    known = np.isfinite(each)
    usual = float(tokens[known].sum() / lengths[known].sum()) if known.any() else 1.0
    weights = np.repeat(np.where(known, each, usual), lengths)
    counted = np.asarray(pc.fill_null(pc.list_value_length(requests["event_tokens"]), -1).to_numpy()) == lengths
    per_event = pc.list_flatten(requests.filter(pa.array(counted))["event_tokens"])
    weights[np.repeat(counted, lengths)] = per_event.to_numpy()
    return weights


@dataclass(frozen=True, slots=True)
class SlowStart:
    """The first requests, one in each slot, against the next ones: how many, and their median latency in ms."""

    first: int
    first_ms: float
    second: int
    second_ms: float


def slow_start(measured: pa.Table) -> SlowStart | None:
    """Whether the first wave was slower than the second by a factor of SLOW_START: a cold server, or the burst in
    which a closed loop starts. Latency is compared, and latency per token, as the lengths of answers differ."""
    good = succeeded(measured.filter(pc.and_(pc.invert(measured["warmup"]), pc.is_valid(measured["start_ns"]))))
    slots = pc.max(good["parallel"]).as_py() or 1
    if good.num_rows < slots + SECOND_WAVE:
        return None
    good = good.sort_by("start_ns").slice(0, slots + max(slots, SECOND_WAVE))
    latency = request_durations(good)["latency"]
    per_token = latency / np.maximum(pc.fill_null(good["completion_tokens"], 1).to_numpy(), 1)
    first, second = float(np.median(latency[:slots])), float(np.median(latency[slots:]))
    slower = min(first / second, float(np.median(per_token[:slots]) / np.median(per_token[slots:])))
    return SlowStart(slots, first, len(latency) - slots, second) if slower >= SLOW_START else None
