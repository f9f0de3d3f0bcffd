"""Rows of requests as they are stored, from the simulator's service model in virtual time."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from oss_eval.simulator.virtual_time import Replayed

BEGIN_NS = 1_700_000_000_000_000_000


def stored(
    requests: Iterable[Replayed], parallel: int | None, rate: float | None = None, warmup: int = 0
) -> pa.Table:
    """Rows of a point; the first `warmup` requests are its warm-up."""
    some = sorted(requests, key=lambda one: one.start)

    def ns(seconds: float) -> int:
        return BEGIN_NS + round(seconds * 1e9)

    starts = [ns(one.start) for one in some]
    n = len(some)
    return pa.table(
        {
            "request_id": [f"p/{one.number}" for one in some],
            "warmup": [one.number < warmup for one in some],
            "session": [1] * n,
            "parallel": pa.array([parallel] * n, pa.int32()),
            "rate": pa.array([rate] * n, pa.float64()),
            "scheduled_ns": pa.array(starts if rate else [None] * n, pa.int64()),
            "start_ns": starts,
            "first_token_ns": [ns(one.first) for one in some],
            "first_answer_ns": [ns(one.first) for one in some],
            "last_token_ns": [ns(one.last) for one in some],
            "end_ns": [ns(one.last) for one in some],
            "completion_tokens": [len(one.tokens) for one in some],
            "reasoning_tokens": pa.array([None] * n, pa.int64()),
            "first_event_tokens": [1] * n,
            "tokens_to_answer": [1] * n,
            "n_events": [len(one.tokens) for one in some],
            "event_ns": [[ns(t) - start for t in one.tokens] for one, start in zip(some, starts, strict=True)],
            "event_tokens": pa.array([None] * n, pa.list_(pa.int32())),
            "status": ["ok"] * n,
        }
    )
