"""Closed loop: a slot sends its next request when its last one has ended, so load follows the server's pace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from oss_eval.load.schedule import Planned, Take


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """As many requests in flight as there are slots. No request has a planned timestamp."""

    def slot(self, take: Take, start_ns: int) -> Iterator[Planned]:
        """Requests until all of the point are taken."""
        while (number := take()) is not None:
            yield Planned(number, None)
