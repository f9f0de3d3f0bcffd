"""The part of a point in which all its streams are busy, and the throughput there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from oss_eval.analysis.latency import optional, request_durations
from oss_eval.analysis.request_rows import Floats, sessions, succeeded

SLICES = 10
SLOW_START = 1.5
"""The first wave of requests is slow if it takes this many times as long as the second one."""
SECOND_WAVE = 3
"""Minimum number of requests of the second wave."""


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
