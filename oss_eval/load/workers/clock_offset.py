"""How far the clock of another machine is from this one's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

ROUND_TRIPS = 30


class ClockOffset(NamedTuple):
    """The other clock less ours, and the bound of its error, in nanoseconds."""

    offset_ns: int
    error_ns: int

    @property
    def applied_ns(self) -> int:
        """What timestamps are moved by: nothing where the offset may be none at all."""
        return 0 if abs(self.offset_ns) <= self.error_ns else self.offset_ns


def clock_offset(
    remote_ns: Callable[[], int], local_ns: Callable[[], int] = time.time_ns, round_trips: int = ROUND_TRIPS
) -> ClockOffset:
    """Ask the other clock (`remote_ns`) several times and take the quickest round trip: the answer was read within
    it, so half of it bounds the error (Cristian 1989, https://doi.org/10.1007/BF01784024, section 3)."""
    best: ClockOffset | None = None
    for _ in range(round_trips):
        before = local_ns()
        there = remote_ns()
        after = local_ns()
        found = ClockOffset(there - (before + after) // 2, (after - before) // 2 + 1)
        if best is None or found.error_ns < best.error_ns:
            best = found
    assert best is not None
    return best
