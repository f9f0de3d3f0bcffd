"""Limits of the viewer's connections, before anybody has logged in: how many, how large a head, how slow.

uvicorn's own are none: a head without end takes memory, and requests without end take files.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_CONNECTIONS = 512
"""A browser opens about six."""
MAX_HEAD = 65_536
REQUEST_SECONDS = 30.0
"""A request has to be complete after this time; a browser's is at once."""


class LimitedConnection(HttpToolsProtocol):
    """A connection that is closed when it goes beyond a limit."""

    _clock: asyncio.TimerHandle | None = None
    _head = 0
    _in_head = True

    def connection_made(self, transport: Any) -> None:
        """asyncio: a connection; the clock of its first request starts."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.close()
        else:
            self._clock = self.loop.call_later(REQUEST_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes of requests."""
        if self._clock is None:  # of a next request
            self._clock = self.loop.call_later(REQUEST_SECONDS, self.transport.close)
        if self._in_head:
            self._head += len(data)
            if self._head > MAX_HEAD and len(data) < self._head:  # a body may begin in the same read
                self.transport.close()
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """httptools: the head has ended."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """httptools: the request has ended."""
        super().on_message_complete()
        self._in_head, self._head = True, 0
        self._stop_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection has ended."""
        self._stop_clock()
        super().connection_lost(exc)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
