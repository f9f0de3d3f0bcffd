"""The main process's side of a point's requests: written as request files, ahead of when they are taken."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from oss_eval.errors import StoreError
from oss_eval.load.workers.request_file import RequestCounter, write_request_file

AHEAD_SECONDS = 10.0
"""Planned requests are written so long before they are due."""
SPARE_SECONDS = 2.0
"""Requests of a closed loop are written for so long at the rate at which they were taken so far: nothing is
written while the main process stores a point."""
FEWEST = 64
"""Requests in a further file, at least."""


class RequestParts:
    """Writes the requests of one point."""

    def __init__(self, folder: Path, name: str, requests: Iterator[tuple[bytes, int]], slots: int | None) -> None:
        """`requests`: (body, planned start in ns after the start of the point), those of an open loop in order of
        time; `slots`: of a closed loop, else None."""
        self._folder, self._name, self._slots = folder, name, slots
        self._requests = requests
        self._files: list[Path] = []
        self.counter = folder / f"{name}.counter"
        self._take = RequestCounter(self.counter)
        self._latest = 0
        self._held: tuple[bytes, int] | None = None
        self.written = 0
        self.last = False

    def first(self, count: int) -> Path:
        """The first file, with up to `count` requests."""
        return self._write(count)

    def further(self, seconds: float, reached: int = 0) -> Path | None:
        """Another file when it is time for one, `seconds` after the start of the point; None when it is not.

        `reached`: how far requests are known to have started, where workers have counters of their own.
        """
        if self.last:
            return None
        if self._slots is None:
            if self._latest > (seconds + AHEAD_SECONDS) * 1e9:
                return None
            return self._write(max(FEWEST, self.written // 2))
        taken = max(self._take.taken, reached)
        soon = max(self._slots, round(taken / max(seconds, 1.0) * SPARE_SECONDS))
        if self.written - taken > soon:
            return None
        return self._write(max(FEWEST, 2 * soon))

    def _write(self, count: int) -> Path:
        path = self._folder / f"{self._name}.{len(self._files)}.requests"
        try:
            got = write_request_file(path, self._counted(count))
        except OSError as error:
            raise StoreError(
                f"can't write the requests of a point to {self._folder}: {error.strerror}",
                "set TMPDIR to another folder",
            ) from None
        self._files.append(path)
        self.written += got
        self._held = next(self._requests, None)
        self.last = self._held is None
        return path

    def _counted(self, count: int) -> Iterator[tuple[bytes, int]]:
        if self._held is not None:
            self._latest = self._held[1]
            yield self._held
            count -= 1
        for request in islice(self._requests, count):
            self._latest = request[1]
            yield request

    def close(self) -> None:
        """Delete the files. Workers that still map them may go on."""
        self._take.close()
        for path in [*self._files, self.counter]:
            path.unlink(missing_ok=True)
