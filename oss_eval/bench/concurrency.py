"""The number of requests in flight: fixed, or raised while throughput grows."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

SETTLE_SECONDS = 1.0
"""Seconds before a new level is measured: its requests have to start answering."""
WINDOW_SECONDS = 2.0
GAIN = 1.05
"""Throughput has grown if it is higher by this factor."""
PATIENCE_SECONDS = 60.0
"""Seconds without a higher level, after HTTP 429 or a level without gain."""


class Limit(Protocol):
    """The number of requests in flight."""

    limit: int
    """Maximum number of requests in flight."""
    most: int
    """The most that were in flight at a time."""

    @property
    def inside(self) -> int:
        """Requests in flight."""

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""


class ConcurrencyLimit:
    """Lets at most `limit` requests through at a time, first come, first served."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._limit = limit
        self._inside = 0
        self.most = 0
        """The most that were in flight at a time."""

    @property
    def limit(self) -> int:
        """Maximum number of requests in flight."""
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        with self._lock:
            self._limit = value
            self._admit()

    @property
    def inside(self) -> int:
        """Requests in flight."""
        return self._inside

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self._inside >= self._limit

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Wait until a request may be sent; it counts as in flight within the context."""
        ticket = threading.Event()
        with self._lock:
            self._waiting.append(ticket)
            self._admit()
        ticket.wait()
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                self._admit()

    def _admit(self) -> None:
        while self._waiting and self._inside < self._limit:
            self._inside += 1
            self.most = max(self.most, self._inside)
            self._waiting.popleft().set()


class ConcurrencyTuner:
    """`--parallel auto`: doubles the limit while throughput grows, halves it after HTTP 429.

    Additive-increase schemes find the knee slowly where a request takes minutes; token events show the throughput
    within seconds, so levels can be compared directly.
    """

    START = 8
    MOST = 512

    def __init__(
        self, concurrency: Limit, tokens: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._concurrency, self._tokens, self._clock = concurrency, tokens, clock
        self._best: tuple[int, float] | None = None
        self._begun: float | None = None
        self._first: tuple[float, int] | None = None
        self._hold_until = 0.0
        self._shrunk = float("-inf")
        self._refused = False
        self.levels: list[tuple[int, float]] = []
        """(limit, token events per second) of every level that was measured."""

    def refused(self) -> None:
        """The server asked for fewer requests (429, 503)."""
        self._refused = True

    def look(self) -> None:
        """Called several times a second from one thread."""
        now = self._clock()
        if self._refused:
            self._refused = False
            # A burst of refusals counts once: the requests were sent before the last reduction.
            if now >= self._shrunk + SETTLE_SECONDS:
                self._shrunk = now
                self._set(max(1, self._concurrency.limit // 2), now)
                self._best = None
                self._hold_until = now + PATIENCE_SECONDS
            return
        if now < self._hold_until or not self._concurrency.full:
            self._begun = self._first = None
            return
        if self._begun is None:
            self._begun = now
        elif self._first is None:
            if now - self._begun >= SETTLE_SECONDS:
                self._first = now, self._tokens()
        elif now - self._first[0] >= WINDOW_SECONDS:
            self._compare((self._tokens() - self._first[1]) / (now - self._first[0]), now)

    def _compare(self, rate: float, now: float) -> None:
        limit = self._concurrency.limit
        self.levels.append((limit, rate))
        if self._best is None or (limit > self._best[0] and rate > self._best[1] * GAIN):
            self._best = limit, rate
            self._set(min(self.MOST, limit * 2), now)
            if limit >= self.MOST:
                self._hold_until = now + PATIENCE_SECONDS
        else:
            self._set(self._best[0], now)
            self._best = None
            self._hold_until = now + PATIENCE_SECONDS

    def _set(self, limit: int, now: float) -> None:
        self._concurrency.limit = limit
        self._begun = self._first = None
