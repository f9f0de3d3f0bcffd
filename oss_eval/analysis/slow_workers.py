"""Workers on several machines, compared with each other: a slow one spoils the figures of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis.checks import Finding
from oss_eval.analysis.latency import request_durations
from oss_eval.results.reader import read_requests

LATE, LATE_MS = 3.0, 1.0
"""A worker is busy if it reads what has arrived so many times later than the others, and so much later."""
SLOW = 1.25
"""A worker is slow if its median TPOT is longer than the others' by this factor."""
FEW = 20
"""With fewer requests a median is compared with nothing."""
COLUMNS = [
    "worker", "warmup", "status", "client_lag_p50_ns", "start_ns", "first_token_ns", "first_answer_ns",
    "last_token_ns", "end_ns", "completion_tokens", "n_events", "first_event_tokens",
]  # fmt: skip


def slow_workers(path: Path, point_id: str, workers: Sequence[dict[str, Any]]) -> list[Finding]:
    """Of `workers` on several machines (`worker`, `host`), those that were slower at a point than the rest: they
    read late, or their tokens came at a lower rate. TTFT is not looked at: it also depends on the order in which
    requests reach the server's queue."""
    if len(workers) < 2:
        return []
    rows = read_requests(path, point_id, COLUMNS)
    rows = rows.filter(pc.and_(pc.invert(rows["warmup"]), pc.equal(rows["status"].cast(pa.string()), "ok")))
    numbers = rows["worker"].to_numpy()
    values = {
        "reads": rows["client_lag_p50_ns"].cast(pa.float64()).to_numpy() / 1e6,
        "tpot": request_durations(rows)["tpot"],
    }
    found = []
    for worker in workers:
        name = f"worker {worker['worker']} on {worker['host']}"
        for what, each in values.items():
            known = ~np.isnan(each)
            own, others = each[known & (numbers == worker["worker"])], each[known & (numbers != worker["worker"])]
            if min(len(own), len(others)) < FEW:
                continue
            its, usual = float(np.median(own)), float(np.median(others))
            if what == "reads" and its > LATE * usual + LATE_MS:
                text = f"{name} reads {its:.1f} ms after the arrival of bytes, the others {usual:.1f} ms"
                found.append(Finding("slow_node", "warn", f"{text}: its cores are busy; free that machine"))
            if what == "tpot" and its > SLOW * usual:
                text = f"{name} has a median TPOT of {its:.1f} ms, the others {usual:.1f} ms"
                found.append(Finding("slow_node", "warn", f"{text}: look at its network"))
    return found
