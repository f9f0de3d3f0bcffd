"""A client's rows held against the faulty server's own log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oss_eval.simulator.faults import FAULTS

AROUND_NS = 1_500_000_000
"""A restart and the second in which nobody listens."""


def judge(row: dict[str, Any], known: bool, fault: str | None, restarts: Sequence[int] = ()) -> str | None:
    """What is wrong with a row: whether the server knows the request, which fault it says that it met, and when it
    was restarted, which breaks whatever is in flight."""
    kind = row["error_kind"]
    if (row["status"] == "ok") != (kind is None):
        return f"{row['status']} with {kind}"
    if row["start_ns"] is None:
        return None if kind in ("connect", "timeout_connect", "tls") else f"never sent, and called {kind}"
    if kind == "stream_broken" and any(abs(row["end_ns"] - at) < AROUND_NS for at in restarts):
        return None
    if not known:
        return f"unknown to the server, and called {kind}"
    if kind not in ((None,) if fault is None else FAULTS[fault].seen):
        return f"{fault} was called {kind}: {row['error_message']}"
    return None
