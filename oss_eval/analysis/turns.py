"""Turns of conversations: how TTFT grows with the context."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis.latency import request_durations
from oss_eval.analysis.request_rows import floats, succeeded


def turn_figures(requests: pa.Table) -> tuple[dict[str, Any], ...]:
    """For each turn of a point's conversations: `turn`, `n` of its successful requests, means of `prompt_tokens`
    and `cached_tokens` (None where the server does not count them), `ttft_ms` and `latency_ms` (P50 and
    largest)."""
    if "turn" not in requests.column_names or requests["turn"].null_count == requests.num_rows:
        return ()
    good = succeeded(requests.filter(pc.invert(requests["warmup"])))
    found = []
    for turn in sorted(pc.unique(good["turn"]).drop_null().to_pylist()):
        rows = good.filter(pc.equal(good["turn"], turn))
        durations = request_durations(rows)
        figures: dict[str, Any] = {"turn": turn, "n": rows.num_rows}
        for name in ("prompt_tokens", "cached_tokens"):
            values = floats(rows[name])
            figures[name] = float(values.mean()) if len(values) else None
        for name in ("ttft", "latency"):
            values = durations[name][~np.isnan(durations[name])]
            some = {"p50": float(np.percentile(values, 50)), "max": float(values.max())} if len(values) else None
            figures[f"{name}_ms"] = some
        found.append(figures)
    return tuple(found)
