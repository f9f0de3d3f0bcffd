"""The part of a point in which all its streams are busy, and the throughput there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from oss_eval.analysis.request_rows import (
    sessions,
)

SLICES = 10


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
