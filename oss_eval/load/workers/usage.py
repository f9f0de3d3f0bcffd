"""What a worker process uses while it measures a point: wall clock, CPU, and time without a core."""

from __future__ import annotations

import time
from pathlib import Path


class Usage:
    """Seconds since this was made."""

    def __init__(self) -> None:
        self._wall, self._cpu, self._waited = time.monotonic(), time.process_time(), _waited_seconds()

    def seconds(self) -> tuple[float, float, float | None]:
        """(wall clock, CPU, ready to run without a core); the last is None where the system does not say."""
        waited = _waited_seconds()
        without_core = None if waited is None or self._waited is None else waited - self._waited
        return time.monotonic() - self._wall, time.process_time() - self._cpu, without_core


def _waited_seconds() -> float | None:
    """Time this process was ready to run and waited for a core (Linux: /proc/self/schedstat, field 2)."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None
