"""TTFT, TPOT, inter-token and request latency of requests, from their timestamps."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis.request_rows import (
    NS_PER_MS,
    Floats,
)


def durations(good: pa.Table) -> dict[str, Floats]:
    """Values in ms of the durations a request has one of; requests without one are left out.

    ttft = first token event - start; ttfa = first answer (non-reasoning) event - start.
    latency = last token event - start for a stream, end of the response - start otherwise.
    tpot = (latency - ttft) / (completion_tokens - 1) for streams of at least 2 tokens.
    """
    return {name: values[~np.isnan(values)] for name, values in request_durations(good).items()}


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
