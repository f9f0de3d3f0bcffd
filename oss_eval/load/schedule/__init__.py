"""When the requests of a point start: one module a load pattern, pure iterators of planned timestamps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

Take = Callable[[], int | None]
"""The number of the point's next request that no slot of any worker has taken yet; None when all are taken."""


class Planned(NamedTuple):
    """A request that is to be sent."""

    number: int
    """Its position in the point's request file."""
    scheduled_ns: int | None
    """When it should start, nanoseconds since the epoch; None: at once."""


class Schedule(Protocol):
    """A load pattern. Sent to the workers with a point, so it has to be picklable."""

    def slot(self, take: Take, start_ns: int) -> Iterator[Planned]:
        """The requests of one slot, in order. A slot has at most one request in flight.

        `start_ns` is the start of the point, nanoseconds since the epoch, the same in all slots of a worker.
        """
