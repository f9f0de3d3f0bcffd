"""Threads that carry samples from question to grade: as many as are useful, whoever among them has to wait."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

J = TypeVar("J")
MOST = 2048


class ThreadPool(Generic[J]):
    """Works through jobs with `size` threads, and one more for each that rests (backs off, or waits for a judge).

    The threads end with the process: what hangs in somebody else's code can't keep it alive.
    """

    def __init__(self, size: int, work: Callable[[J], None]) -> None:
        self._size, self._work = size, work
        self._jobs: deque[J] = deque()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._resting = 0

    def start(self, jobs: Iterable[J]) -> None:
        """Begin with the first jobs."""
        with self._lock:
            self._jobs.extend(jobs)
            self._fill()

    def stop(self, seconds: float) -> None:
        """Begin no further job, and wait so long for those under way."""
        self.clear()
        with self._lock:
            threads = list(self._threads)
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def clear(self) -> None:
        """Begin no further job."""
        with self._lock:
            self._jobs.clear()

    @property
    def busy(self) -> bool:
        """Whether a job is under way or left."""
        with self._lock:
            return bool(self._threads)

    @property
    def resting(self) -> int:
        """Threads that wait for something; see `blocking`."""
        return self._resting

    @contextmanager
    def blocking(self) -> Iterator[None]:
        """The calling thread will wait for something: another one takes its place meanwhile."""
        with self._lock:
            self._resting += 1
            self._fill()
        try:
            yield
        finally:
            with self._lock:
                self._resting -= 1

    def _fill(self) -> None:
        room = min(MOST, self._size + self._resting) - len(self._threads)
        for _ in range(min(room, len(self._jobs))):
            thread = threading.Thread(target=self._run, name="sample", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._jobs or len(self._threads) > self._size + self._resting:
                    self._threads.discard(threading.current_thread())
                    return
                job = self._jobs.popleft()
            self._work(job)
