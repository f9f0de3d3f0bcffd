"""The requests of a point as a worker takes them: request files that arrive one after the other."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from pathlib import Path

from oss_eval.load.workers.messages import Prepare
from oss_eval.load.workers.request_file import RequestCounter, RequestFile


class RequestFeed:
    """The requests of one point, numbered from 0."""

    def __init__(self, point: Prepare) -> None:
        self.point = point
        self.start_ns = 0
        """The start of the point; set at Go."""
        self.last = point.last
        """Whether no further request comes."""
        self._files: list[RequestFile] = []
        self._begins: list[int] = []
        self.count = 0
        self._changed = asyncio.Event()
        self._counter = RequestCounter(point.counter)
        self.add(point.request_file, point.last)

    def add(self, path: Path, last: bool) -> None:
        """Further requests."""
        file = RequestFile(path)
        self._files.append(file)
        self._begins.append(self.count)
        self.count += len(file)
        self.last = last
        self.wake()

    def wake(self) -> None:
        """Let all that wait for further requests look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def more(self) -> None:
        """Wait until there may be further requests, or none will come."""
        await self._changed.wait()

    def take(self) -> int | None:
        """The position of the next request that no slot has taken yet; None while there is none."""
        point = self.point
        if not point.own_share:
            return self._counter.take(self.count)
        taken = self._counter.take(max(0, -(-(self.count - point.position) // point.workers)))
        return None if taken is None else point.position + taken * point.workers

    def number(self, position: int) -> int:
        """The number in its point of the request at a position."""
        return position if self.point.numbers is None else self.point.numbers[position]

    def request(self, position: int) -> tuple[bytes, int]:
        """(body, planned start in UTC ns) of a request. Only an open loop's are sent by their planned starts."""
        part = bisect_right(self._begins, position) - 1
        body, due = self._files[part][position - self._begins[part]]
        return body, self.start_ns + due

    def close(self) -> None:
        """Unmap the files."""
        for file in self._files:
            file.close()
        self._counter.close()
