"""Which requests of a point are measured: those after its warm-up, up to its number or within its time."""

from __future__ import annotations

from oss_eval.load.plan import Point


class Measured:
    """Counts the measured requests of a point as they start and end. Timestamps are UTC ns."""

    def __init__(self, point: Point, start_ns: int) -> None:
        self._point = point
        self._from_ns = start_ns + int(point.warmup_seconds * 1e9)
        self._until_ns = None if point.duration is None else self._from_ns + int(point.duration * 1e9)
        self.started = self.ended = 0
        self._in_flight: set[int] = set()
        self.closed = False
        """Whether no further request is measured."""

    def starts(self, number: int, when_ns: int) -> bool:
        """Whether request `number`, which starts, or should have started, at `when_ns`, is measured."""
        point = self._point
        if number in self._in_flight:
            return True  # sent again over another connection
        if self.closed or number < point.warmup_requests or when_ns < self._from_ns:
            return False
        if self._until_ns is not None and when_ns >= self._until_ns:
            return False
        if point.number is not None and not point.turns and self.started >= point.number:
            return False
        self.started += 1
        self._in_flight.add(number)
        return True

    def ends(self, number: int) -> None:
        """A request has ended."""
        if number in self._in_flight:
            self._in_flight.discard(number)
            self.ended += 1

    def complete(self, known_ns: int) -> bool:
        """Whether all that is to be measured has ended; until `known_ns` all starts are known."""
        if self._in_flight:
            return False
        if self.closed:
            return True
        if self._until_ns is not None:
            return known_ns >= self._until_ns
        return self._point.number is not None and self.ended >= self._point.number
