"""Readiness of many sockets with few wake-ups.

A process that is woken for every token spends more on waking than on the token. With kernel stamps there is no
hurry: a read a millisecond later has the same timestamp. So while tokens of many streams come in a steady
trickle, sockets are looked at every millisecond or two; when little happens, or when streams are so fast that a
millisecond could bring a socket two tokens, readiness is acted on at once. Needs epoll and kernel stamps;
elsewhere every socket is watched by the event loop itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import time
from collections.abc import Callable
from typing import Any

from oss_eval.probe.reads import READABLE

PAUSE_SECONDS = 0.001
TRICKLE, FLOOD = 4, 64
"""Ready sockets after a pause that make the next pause worthwhile: fewer cost little, more arrive together
anyway."""
QUIET = 16
"""Fewer ready sockets after a pause make the next pause twice as long."""
CROWD = 0.25
"""Share of all sockets ready within one pause above which waiting would merge a stream's tokens."""
REGRET_SECONDS = 0.1
"""Seconds without a pause after one that was not worthwhile."""
AT_ONCE = 512
"""Reads of one call of the compiled reader."""
LOOKS = 8
"""Wake-ups over which their rate is measured."""


class Poller:
    """`watch` a descriptor and have a callback called when it is readable, until `forget`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        patient: bool,
        reader: Any | None = None,
        after_look: Callable[[], bool] = lambda: False,
    ) -> None:
        """`reader`: the compiled one (`reads`). `after_look` is called after each of its polls, and says whether
        its buffer was full, so that there is more to read."""
        self._loop = loop
        self._reader, self._after_look = reader, after_look
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._ends: dict[int, Callable[[int, int], None]] = {}
        self._epoll: Any | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looks = 0
        self._since = time.monotonic()
        self._not_before = 0.0
        self._closed = False
        self.paused = False
        """Whether nothing is read at present."""
        if patient and hasattr(select, "epoll"):
            self._epoll = reader or select.epoll()
            loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call back whenever there is something to read."""
        self._callbacks[descriptor] = callback
        if self._epoll is not None:
            self._epoll.register(descriptor, select.EPOLLIN)
        elif not self.paused:
            self._loop.add_reader(descriptor, callback)

    def forget(self, descriptor: int) -> None:
        """Stop; to be called before the descriptor is closed."""
        self._ends.pop(descriptor, None)
        if self._callbacks.pop(descriptor, None) is None:
            return
        if self._epoll is None:
            self._loop.remove_reader(descriptor)
        else:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

    def stream(
        self, descriptor: int, tag: int, left: int, seen_ns: int, body: bytes, on_end: Callable[[int, int], None]
    ) -> bool:
        """Leave the rest of a chunked response, of at most `left` bytes, to the compiled reader.

        `body` is what has been read of it. `on_end(what, errno)` is called when it ends, in one of the ways of
        `reads`. False where that can't be done: the callback goes on to be called.
        """
        if self._reader is None or not self._reader.stream(descriptor, tag, left, seen_ns, body):
            return False
        self._ends[descriptor] = on_end
        return True

    def seen(self, descriptor: int) -> int:
        """Time of the latest read of a stream."""
        assert self._reader is not None
        return int(self._reader.seen(descriptor))

    def pause(self) -> None:
        """Read nothing, until `resume`: the sockets fill up, and the servers have to wait."""
        if self.paused:
            return
        self.paused = True
        if self._epoll is None:
            for descriptor in self._callbacks:
                self._loop.remove_reader(descriptor)
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None
        else:
            self._loop.remove_reader(self._epoll.fileno())

    def resume(self) -> None:
        """Read again."""
        if not self.paused:
            return
        self.paused = False
        if self._epoll is None:
            for descriptor, callback in self._callbacks.items():
                self._loop.add_reader(descriptor, callback)
        elif not self._closed:
            self._looks, self._since = 0, time.monotonic()
            self._loop.add_reader(self._epoll.fileno(), self._ready)

    def close(self) -> None:
        """Stop watching all descriptors."""
        self._closed = True
        if self._epoll is not None:
            if self._timer is not None:
                self._timer.cancel()
            elif not self.paused:
                self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _ready(self) -> None:
        """A socket is readable: serve it at once, and start to pause if this happens too often."""
        self._look()
        self._looks += 1
        if self._looks < LOOKS or self.paused:
            return
        now = time.monotonic()
        often = self._not_before < now < self._since + LOOKS * PAUSE_SECONDS
        self._looks, self._since = 0, now
        if often and CROWD * len(self._callbacks) >= TRICKLE and self._epoll is not None and not self._closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._timer = self._loop.call_later(PAUSE_SECONDS, self._after_pause)

    def _after_pause(self) -> None:
        ready = self._look()
        if self._epoll is None or self._closed or self.paused:
            return
        most = CROWD * len(self._callbacks)
        if TRICKLE <= ready <= (most if self._reader is not None else min(FLOOD, most)):
            pause = 2 * PAUSE_SECONDS if ready < min(QUIET, most / 2) else PAUSE_SECONDS
            self._timer = self._loop.call_later(pause, self._after_pause)
        else:
            self._timer = None
            self._looks, self._since = 0, time.monotonic()
            self._not_before = self._since + REGRET_SECONDS
            self._loop.add_reader(self._epoll.fileno(), self._ready)

    def _look(self) -> int:
        """Serve the readable sockets; returns their number."""
        return self._look_everywhere() if self._reader is None else self._look_with(self._reader)

    def _look_with(self, reader: Any) -> int:
        total, more = 0, True
        while more and not self.paused:
            ready, found = reader.poll(AT_ONCE)
            for descriptor, what, error in found:
                end = self._ends.pop(descriptor, None) if what != READABLE else None
                if end is not None:
                    end(what, error)
                elif what == READABLE and descriptor in self._callbacks and not self.paused:
                    self._callbacks[descriptor]()
            total += ready
            more = self._after_look() or ready >= AT_ONCE
        return total

    def _look_everywhere(self) -> int:
        assert self._epoll is not None
        callbacks = self._callbacks
        ready = self._epoll.poll(0, max(64, len(callbacks)))
        for descriptor, _ in ready:
            callback = callbacks.get(descriptor)
            if callback is not None and not self.paused:
                callback()
        return len(ready)
