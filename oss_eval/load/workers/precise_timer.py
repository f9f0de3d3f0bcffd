"""Waiting for a timestamp with a precision of some 0.1 ms: the event loop's own timers have one of a millisecond.

On Linux by a timer file descriptor (timerfd_create(2)), elsewhere by the event loop's timers.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time

_CLOCK_REALTIME, _ABSOLUTE = 0, 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC if sys.platform == "linux" else 0


class _Spec(ctypes.Structure):
    """struct itimerspec: interval and first expiry, each in seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


class PreciseTimer:
    """One waiter at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: asyncio.Future[None] | None = None
        self._descriptor = -1
        if sys.platform == "linux":
            self._library = ctypes.CDLL(None, use_errno=True)
            self._descriptor = self._library.timerfd_create(_CLOCK_REALTIME, _FLAGS)
        if self._descriptor >= 0:
            loop.add_reader(self._descriptor, self._expired)

    async def wait_until(self, at_ns: int) -> None:
        """Wait until a time in UTC nanoseconds."""
        left = (at_ns - time.time_ns()) / 1e9
        if left <= 0:
            return
        if self._descriptor < 0:
            await asyncio.sleep(left)
            return
        spec = _Spec(0, 0, *divmod(at_ns, 1_000_000_000))
        self._library.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(spec), None)
        self._due = self._loop.create_future()
        try:
            await self._due
        finally:
            self._due = None

    def _expired(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return
        if self._due is not None and not self._due.done():
            self._due.set_result(None)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
