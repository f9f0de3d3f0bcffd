"""Workers on several machines, compared with each other: a slow one spoils the figures of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
    "worker", "session", "warmup", "status", "client_lag_p50_ns", "start_ns", "first_token_ns", "first_answer_ns",
    "last_token_ns", "end_ns", "completion_tokens", "n_events", "first_event_tokens",
]  # fmt: skip


def slow_workers(
    path: Path, point_id: str, session: int, workers: Sequence[tuple[int, str]], several_servers: bool
) -> list[Finding]:
    """Of `workers` (number, host) on several machines, those that were slower at a point than the rest, in one
    session: they read late, or their tokens came at a lower rate. Rates are not compared where there are several
    servers, as each worker may have its own. TTFT is not looked at: it also depends on the order in which requests
    reach the server's queue."""
    if len(workers) < 2:
        return []
    rows = read_requests(path, point_id, COLUMNS)
    counted = pc.and_(pc.invert(rows["warmup"]), pc.equal(rows["session"], session))
    rows = rows.filter(pc.and_(counted, pc.equal(rows["status"].cast(pa.string()), "ok")))
    numbers = rows["worker"].to_numpy()
    values = {
        "reads": rows["client_lag_p50_ns"].cast(pa.float64()).to_numpy() / 1e6,
    }
    if not several_servers:
        values["tpot"] = request_durations(rows)["tpot"]
    found = []
    for number, host in workers:
        name = f"worker {number} on {host}"
        for what, each in values.items():
            known = ~np.isnan(each)
            own, others = each[known & (numbers == number)], each[known & (numbers != number)]
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
