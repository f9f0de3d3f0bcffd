"""Reading something beside a run, in a thread of its own. Whatever fails there changes nothing in the run."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

TIMEOUT_SECONDS = 1.0
"""Of one reading."""
GIVE_UP = 3
"""Failures in a row after which nothing is read any more."""


class BackgroundReader(ABC):
    """Reads at an interval, until it is stopped or has failed GIVE_UP times in a row."""

    name: str
    """Of the thread."""

    def __init__(self) -> None:
        self.problem: str | None = None
        """Why there are no readings, or no more."""
        self._failures = 0
        self._point: str | None = None
        """The point in progress."""
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(2 * TIMEOUT_SECONDS)

    @property
    def _reading(self) -> bool:
        """Whether readings have begun and go on."""
        return self._thread is not None and not self.problem

    @abstractmethod
    def _read_next(self) -> None:
        """Take the next reading."""

    def _start(self, seconds: float) -> None:
        """Begin to read at this interval."""
        self._thread = threading.Thread(target=self._run, args=(seconds,), name=self.name, daemon=True)
        self._thread.start()

    def _run(self, seconds: float) -> None:
        while not self._over.wait(seconds) and not self.problem:
            self._read_next()

    def _note_success(self) -> None:
        self._failures = 0

    def _note_failure(self, problem: str) -> None:
        """A reading failed; the first one may not."""
        self._failures += 1
        if self._thread is None or self._failures >= GIVE_UP:
            self.problem = problem
