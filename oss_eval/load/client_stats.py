"""How the client itself did while it measured a point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ClientStats:
    """How the client's side of a point went: sums over its worker processes, and its worst moments."""

    workers: int
    cores: int
    slots: int
    connections: int
    reconnects: int
    wall_seconds: float
    cpu_seconds: float
    main_cpu_seconds: float
    waited_share: float | None
    """Of the time, the largest share that a worker was ready to run and had no core."""
    longest_stall_seconds: float
    longest_flush_seconds: float
    held_back_seconds: float


def merge(before: ClientStats, after: ClientStats) -> ClientStats:
    """The client's side of a point that was measured in several sessions: what is counted adds up, of what can be
    bad the worst counts."""
    sums = ("connections", "reconnects", "wall_seconds", "cpu_seconds", "main_cpu_seconds", "held_back_seconds")
    found: dict[str, Any] = {}
    for name in ClientStats.__dataclass_fields__:
        pair = [value for value in (getattr(before, name), getattr(after, name)) if value is not None]
        found[name] = sum(pair) if name in sums else max(pair, default=None)
    return ClientStats(**found)
