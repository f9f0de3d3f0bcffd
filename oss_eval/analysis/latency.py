"""TTFT, TPOT, inter-token and request latency of requests, from their timestamps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from oss_eval.analysis.request_rows import NS_PER_MS, Floats, floats
from oss_eval.records import RequestRecord

_COLUMNS = (
    "start_ns", "first_token_ns", "first_answer_ns", "last_token_ns", "end_ns", "completion_tokens", "n_events",
    "first_event_tokens", "tokens_to_answer", "reasoning_tokens",
)  # fmt: skip


def durations(good: pa.Table) -> dict[str, Floats]:
    """The durations of requests in ms; requests without one are left out.

    ttft = first token event - start; ttfa = first answer (non-reasoning) event - start. latency = last token event
    - start for a stream, end of the response - start otherwise. tpot = (latency - ttft) / (completion_tokens -
    tokens of the first event) for streams of at least 2 events; where these are not known, 1. reasoning = ttfa -
    ttft, where there is any.
    """
    return {name: values[~np.isnan(values)] for name, values in request_durations(good).items()}


def request_durations(rows: pa.Table) -> dict[str, Floats]:
    """The durations of `durations` in ms, one value a row, NaN where a request has none."""

    def since(name: str, begin: str) -> Floats:
        return _since(rows, name, begin)

    last, tokens = since("last_token_ns", "start_ns"), _values(rows["completion_tokens"])
    first = np.nan_to_num(optional(rows, "first_event_tokens"), nan=1.0)
    several = (_values(rows["n_events"]) > 1) & (tokens > first)
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where(several, time_per_token(since("last_token_ns", "first_token_ns"), tokens, first), np.nan)
    reasoning = since("first_answer_ns", "first_token_ns")
    return {
        "ttft": since("first_token_ns", "start_ns") / NS_PER_MS,
        "ttfa": since("first_answer_ns", "start_ns") / NS_PER_MS,
        "reasoning": np.where(reasoning > 0, reasoning, np.nan) / NS_PER_MS,
        "latency": np.where(np.isnan(last), since("end_ns", "start_ns"), last) / NS_PER_MS,
        "tpot": tpot / NS_PER_MS,
    }


def _since(rows: pa.Table, name: str, begin: str) -> Floats:
    """Subtract integers: as floats, timestamps of this century have a resolution of 256 ns."""
    return _values(pc.subtract(rows[name], rows[begin]))


def _values(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def optional(rows: pa.Table, name: str) -> Floats:
    """A column's values, NaN where they are null: all of them where the rows have no such column."""
    return _values(rows[name]) if name in rows.column_names else np.full(rows.num_rows, np.nan)


def reasoning_rate(good: pa.Table) -> Floats:
    """Tokens/s of the reasoning: tokens from the first token event to the first one of the answer, by the time
    between them. Where the tokens of events are not known, one of each is taken to be in these two."""
    tokens = optional(good, "tokens_to_answer") - optional(good, "first_event_tokens")
    tokens = np.where(np.isnan(tokens), optional(good, "reasoning_tokens"), tokens)
    span_ns = _since(good, "first_answer_ns", "first_token_ns")
    there = (tokens > 0) & (span_ns > 0)
    return np.asarray(tokens[there] / (span_ns[there] / 1e9))


def earliest_ttft(good: pa.Table) -> Floats | None:
    """TTFT in ms with the earliest time that each first token can have arrived; None where all are exact.

    A first token that was read together with later ones has the timestamp of the newest, which is an upper bound.
    """
    low = good["first_token_low_ns"] if "first_token_low_ns" in good.column_names else None
    if low is None or low.null_count == len(low):
        return None
    earliest = floats(pc.subtract(pc.coalesce(low, good["first_token_ns"]), good["start_ns"]))
    return np.asarray(earliest / NS_PER_MS)


def time_per_token(span_ns: Any, tokens: Any, first: Any = 1) -> Any:
    """tpot: first to last token event, divided by the tokens after the `first` event's. Numbers or arrays."""
    return span_ns / (tokens - first)


def record_durations(record: RequestRecord) -> dict[str, float | None]:
    """The durations of one request in ms, by the formulas of `request_durations`; None where it has none."""
    columns = {name: pa.array([getattr(record, name)], pa.int64()) for name in _COLUMNS}
    values = request_durations(pa.table(columns))
    return {name: None if np.isnan(value[0]) else float(value[0]) for name, value in values.items()}


def stream_durations(offsets_ns: NDArray[np.int64]) -> dict[str, Floats]:
    """The durations in ms of one stream of single tokens, given each token's offset from the start; `itl` too."""
    span = offsets_ns[-1:] - offsets_ns[:1]
    values = {
        "ttft": offsets_ns[:1],
        "latency": offsets_ns[-1:],
        "tpot": time_per_token(span, len(offsets_ns)),
        "itl": np.diff(offsets_ns),
    }
    return {name: value / NS_PER_MS for name, value in values.items()}


def gaps(events: pa.ChunkedArray) -> Floats:
    """Gaps in ms between successive events within each list, pooled."""
    pooled: list[Floats] = []
    for chunk in events.chunks:
        lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy()
        steps, within = _steps(chunk.flatten().to_numpy(), lengths)
        pooled.append(steps[within] / NS_PER_MS)
    return np.concatenate(pooled) if pooled else np.empty(0)


def token_gaps(rows: pa.Table) -> Floats:
    """itl: the time of each token after those of the first event, in ms, pooled over requests: the gap before its
    event, divided by the tokens in it. Rows without `event_tokens` give the gaps between events.

    The gap before an event that holds no token belongs to the next one.
    """
    known = pc.equal(pc.list_value_length(rows["event_tokens"]), pc.list_value_length(rows["event_ns"]))
    counted = rows.filter(pc.fill_null(known, False))
    pooled = [gaps(rows.filter(pc.invert(pc.fill_null(known, False)))["event_ns"])]
    for batch in counted.select(["event_ns", "event_tokens"]).to_batches():
        times, tokens = (batch[name].flatten().to_numpy() for name in ("event_ns", "event_tokens"))
        owner = np.repeat(np.arange(batch.num_rows), pc.list_value_length(batch["event_ns"]).to_numpy())
        some = tokens > 0
        lengths = np.bincount(owner[some], minlength=batch.num_rows)
        steps, within = _steps(times[some], lengths)
        weights = tokens[some][1:][within]
        pooled.append(np.repeat(steps[within] / NS_PER_MS / weights, weights))
    return np.concatenate(pooled)


def _steps(values: NDArray[np.int64], lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Differences of successive values of lists laid end to end, and which are within one list."""
    steps = np.diff(values)
    crossing = np.cumsum(lengths)[:-1] - 1  # the step from one request's last event to the next one's first
    within = np.ones(len(steps), dtype=bool)
    within[crossing[(crossing >= 0) & (crossing < len(steps))]] = False
    return steps, within
