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
)  # fmt: skip


def durations(good: pa.Table) -> dict[str, Floats]:
    """The durations of requests in ms; requests without one are left out.

    ttft = first token event - start; ttfa = first answer (non-reasoning) event - start. latency = last token event
    - start for a stream, end of the response - start otherwise. tpot = (latency - ttft) / (completion_tokens - 1)
    for streams of at least 2 tokens.
    """
    return {name: values[~np.isnan(values)] for name, values in request_durations(good).items()}


def request_durations(rows: pa.Table) -> dict[str, Floats]:
    """The durations of `durations` in ms, one value a row, NaN where a request has none."""

    def values(column: pa.ChunkedArray) -> Floats:
        return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)

    def since(name: str, begin: str) -> Floats:
        """Subtract integers: as floats, timestamps of this century have a resolution of 256 ns."""
        return values(pc.subtract(rows[name], rows[begin]))

    last, tokens = since("last_token_ns", "start_ns"), values(rows["completion_tokens"])
    several = (values(rows["n_events"]) > 1) & (tokens >= 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where(several, time_per_token(since("last_token_ns", "first_token_ns"), tokens), np.nan)
    return {
        "ttft": since("first_token_ns", "start_ns") / NS_PER_MS,
        "ttfa": since("first_answer_ns", "start_ns") / NS_PER_MS,
        "latency": np.where(np.isnan(last), since("end_ns", "start_ns"), last) / NS_PER_MS,
        "tpot": tpot / NS_PER_MS,
    }


def earliest_ttft(good: pa.Table) -> Floats | None:
    """TTFT in ms with the earliest time that each first token can have arrived; None where all are exact.

    A first token that was read together with later ones has the timestamp of the newest, which is an upper bound.
    """
    low = good["first_token_low_ns"] if "first_token_low_ns" in good.column_names else None
    if low is None or low.null_count == len(low):
        return None
    earliest = floats(pc.subtract(pc.coalesce(low, good["first_token_ns"]), good["start_ns"]))
    return np.asarray(earliest / NS_PER_MS)


def time_per_token(span_ns: Any, tokens: Any) -> Any:
    """tpot: first to last token event, divided by the tokens after the first. Numbers or arrays."""
    return span_ns / (tokens - 1)


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
