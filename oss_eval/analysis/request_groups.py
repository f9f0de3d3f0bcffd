"""Figures of a point's requests by turn of their conversation, or by part of a mix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis.latency import request_durations
from oss_eval.analysis.request_rows import floats, succeeded


def group_figures(requests: pa.Table, column: str) -> tuple[dict[str, Any], ...]:
    """For each value of `turn`, `reasoning_effort` or `sample_id` (the task of a mix) among a point's requests:
    that, `n` of its successful requests, means of `prompt_tokens`, `cached_tokens` and `completion_tokens` (None
    where the server does not count them), `ttft_ms` and `latency_ms` (P50 and largest)."""
    if column not in requests.column_names or requests[column].null_count == requests.num_rows:
        return ()
    good = succeeded(requests.filter(pc.invert(requests["warmup"])))
    values = good[column].cast(pa.string()) if column != "turn" else good[column]
    found = []
    for value in sorted(pc.unique(values).drop_null().to_pylist()):
        rows = good.filter(pc.equal(values, value))
        durations = request_durations(rows)
        figures: dict[str, Any] = {column: value, "n": rows.num_rows}
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
            counts = floats(rows[name])
            figures[name] = float(counts.mean()) if len(counts) else None
        for name in ("ttft", "latency"):
            times = durations[name][~np.isnan(durations[name])]
            some = {"p50": float(np.percentile(times, 50)), "max": float(times.max())} if len(times) else None
            figures[f"{name}_ms"] = some
        found.append(figures)
    return tuple(found)
