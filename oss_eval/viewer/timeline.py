"""The numbers of a timeline: which requests are drawn in which row, requests in flight, tokens per second."""

from __future__ import annotations

import heapq

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from oss_eval.analysis.request_rows import sessions
from oss_eval.analysis.steady_state import absolute_events, event_weights

MOST_BARS = 400
"""Requests drawn: all failures and the slowest first, the others thinned evenly."""
INSTANTS = [
    "start_ns",
    "headers_ns",
    "first_token_ns",
    "first_answer_ns",
    "last_token_ns",
    "end_ns",
    "scheduled_ns",
]
Floats = NDArray[np.float64]


def left_out(rows: pa.Table) -> dict[int, int]:
    """By session, the ns between the first one's start and its own in which nothing was measured."""
    found: dict[int, int] = {}
    so_far, last = 0, None
    for session_rows in sessions(rows):
        first, end = pc.min(session_rows["start_ns"]).as_py(), pc.max(session_rows["end_ns"]).as_py()
        so_far += 0 if last is None else max(0, first - last)
        found[pc.fill_null(session_rows["session"], 1)[0].as_py()] = so_far
        last = max(last or 0, first, end or 0)
    return found


def closed_up(rows: pa.Table, left_out: dict[int, int]) -> pa.Table:
    """Rows with their timestamps shifted, as if all sessions were one."""
    earlier = pa.array([left_out.get(session or 1, 0) for session in rows["session"].to_pylist()], pa.int64())
    for name in set(INSTANTS) & set(rows.column_names):
        rows = rows.set_column(rows.schema.get_field_index(name), name, pc.subtract(rows[name], earlier))
    return rows


def thinned(latency: Floats, failed: NDArray[np.bool_], most: int = MOST_BARS) -> NDArray[np.int64]:
    """Which of many requests to draw: every failure up to half of them, the slowest tenth, the others evenly."""
    n = len(latency)
    if n <= most:
        return np.arange(n)
    bad = np.flatnonzero(failed)
    if len(bad) > most // 2:
        bad = bad[np.linspace(0, len(bad) - 1, most // 2).astype(int)]
    slow = np.argsort(np.nan_to_num(latency, nan=-1.0))[-most // 10 :]
    rest = np.linspace(0, n - 1, most - len(bad) - len(slow)).astype(int)
    return np.unique(np.concatenate([bad, slow, rest]))


def lanes(start: Floats, end: Floats) -> NDArray[np.int64]:
    """A row for each request so that those in one row follow each other: as many rows as were in flight."""
    free: list[tuple[float, int]] = []
    found = np.zeros(len(start), dtype=np.int64)
    used = 0
    for place in np.argsort(start, kind="stable"):
        if free and free[0][0] <= start[place]:
            _, lane = heapq.heappop(free)
        else:
            lane, used = used, used + 1
        found[place] = lane
        heapq.heappush(free, (float(end[place]) if np.isfinite(end[place]) else float(start[place]), lane))
    return found


def token_rate(requests: pa.Table, begin: int, edges: Floats) -> Floats | None:
    """Tokens per second in each slice between `edges` (seconds since `begin`); None without any token event."""
    rows = requests.filter(pc.and_(pc.invert(requests["warmup"]), pc.is_valid(requests["start_ns"])))
    rows = rows.filter(pc.is_valid(rows["event_ns"]))
    times_s = (absolute_events(rows) - begin) / 1e9
    if not len(times_s):
        return None
    counts = np.histogram(times_s, bins=edges, weights=event_weights(rows))[0]
    return np.asarray(counts / np.diff(edges), dtype=np.float64)


def in_flight(start: Floats, end: Floats, edges: Floats) -> Floats:
    """The most requests under way at a time within each slice between `edges`."""
    times = np.concatenate([start, end])
    steps = np.concatenate([np.ones(len(start)), -np.ones(len(end))])
    order = np.lexsort((steps, times))  # at the same time, ends come first
    times, level = times[order], np.cumsum(steps[order])
    first = np.searchsorted(times, edges[:-1], side="right")
    last = np.searchsorted(times, edges[1:], side="right")
    before = np.where(first > 0, level[np.maximum(first - 1, 0)], 0)
    return np.asarray(
        [max([b, *level[i:j]]) for i, j, b in zip(first, last, before, strict=True)], dtype=np.float64
    )
