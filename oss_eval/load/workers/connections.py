"""The connections of a worker: opened, kept, used for one request at a time, watched."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from oss_eval.load.workers.messages import STOPPED, Ended, Setup
from oss_eval.probe import file_limits
from oss_eval.probe.connection import Connection
from oss_eval.probe.outcome import ConnectionFailed
from oss_eval.probe.poller import Poller

CLIENT_PAUSE = 0.2
"""Seconds between attempts to connect while this machine has no free port or file."""
OPENING_AT_ONCE = 64
"""Connections that are opened at the same time: below the listen backlog of usual servers."""

OnRead = Callable[[int, int, int, bytes], None]
OnStart = Callable[[int, int, int, int | None, int], None]
"""(tag, attempt, server, scheduled_ns, start_ns): the first bytes of a request were passed to the kernel."""


class StopSignal:
    """Whether the point is being stopped."""

    def __init__(self) -> None:
        self.requested = False
        self._event = asyncio.Event()

    def set(self) -> None:
        """Stop."""
        self.requested = True
        self._event.set()

    def clear(self) -> None:
        """A new point."""
        self.requested = False
        self._event.clear()

    async def pause(self, seconds: float) -> bool:
        """Wait; False when the point is stopped meanwhile."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        return not self.requested


class Connections:
    """The connections of a worker to its servers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        setup: Setup,
        stop: StopSignal,
        on_read: OnRead,
        on_start: OnStart,
    ) -> None:
        self._loop, self._poller, self._setup, self._stop = loop, poller, setup, stop
        self._on_read, self._on_start = on_read, on_start
        self._contexts: list[ssl.SSLContext | None] = [target.tls_context() for target in setup.targets]
        self._heads = [target.head() for target in setup.targets]
        self.servers = len(setup.targets)
        self._all: set[Connection] = set()
        self._server_of: dict[Connection, int] = {}
        self._idle: dict[int, list[Connection]] = defaultdict(list)
        self._connecting: set[asyncio.Task[Any]] = set()
        self._asking: dict[int, Connection] = {}
        self._watching: asyncio.Task[None] | None = None
        self.opened = self._unopened = self.reconnects = 0

    def new(self, server: int) -> Connection:
        """A connection to one of the servers, not open yet."""
        target, most = self._setup.targets[server], self._setup.most_bytes
        connection = Connection(self._loop, self._poller, target, self._contexts[server], self._on_read, most)
        self._server_of[connection] = server
        self._all.add(connection)
        if self._watching is None:
            self._watching = self._loop.create_task(self._watch())
        return connection

    def free(self, server: int) -> Connection:
        """A connection to one of the servers that no request uses; to be put back with `keep`."""
        if self._idle[server]:
            return self._idle[server].pop()
        connection = self.new(server)
        file_limits.allow(len(self._all))
        return connection

    def keep(self, connection: Connection) -> None:
        """A connection that its request has left."""
        self._idle[self._server_of[connection]].append(connection)

    def drop(self, connection: Connection) -> None:
        """Close a connection that is not needed any more."""
        connection.close()
        self._all.discard(connection)
        self._server_of.pop(connection, None)

    def close(self) -> None:
        """Close all."""
        if self._watching is not None:
            self._watching.cancel()
        self._watching = None
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._server_of.clear()
        self._idle.clear()

    def give_up(self, kind: str, message: str, tag: int | None = None) -> bool:
        """End a request by its tag, or all requests and attempts to connect; whether there was any."""
        if tag is not None:
            if tag in self._asking:
                self._asking[tag].give_up(kind, message)
            return tag in self._asking
        for connection in list(self._all):
            connection.give_up(kind, message)
        for task in self._connecting:
            task.cancel()
        return True

    def start_counting(self) -> None:
        """`opened` and `reconnects` count from here."""
        self.opened = self._unopened = self.reconnects = 0

    async def open_first(self, connections: Iterable[Connection]) -> None:
        """Open connections before a point begins, as far as possible; not tried when all of the first ones
        failed."""
        gate = asyncio.Semaphore(OPENING_AT_ONCE)
        file_limits.allow(len(self._all))

        async def one(connection: Connection) -> None:
            async with gate:
                if self.opened or self._unopened < OPENING_AT_ONCE:
                    self._unopened += await self._try_connect(connection) is not None

        await asyncio.gather(*map(one, connections))

    async def ask(
        self, connection: Connection, request_id: str, tag: int, body: bytes, scheduled_ns: int | None
    ) -> Ended:
        """Send a request and wait for its end."""
        server = self._server_of[connection]
        for attempt in (1, 2):
            failure = None if connection.is_open else await self._connect(connection)
            if failure is None and self._stop.requested:
                failure = "cancelled", STOPPED
            if failure is not None:
                return tag, attempt, None, time.time_ns(), *failure, server, scheduled_ns
            request = b"%sX-Client-Request-Id: %s\r\nContent-Length: %d\r\n\r\n%s" % (
                self._heads[server], request_id.encode(), len(body), body,
            )  # fmt: skip
            begin = partial(self._on_start, tag, attempt, server, scheduled_ns)
            self._asking[tag] = connection
            outcome = await connection.exchange(tag, request, begin)
            del self._asking[tag]
            if outcome.stale and attempt == 1:
                continue
            break
        kind, message = outcome.error_kind, outcome.error_message
        return tag, attempt, outcome.start_ns, time.time_ns(), kind, message, server, scheduled_ns

    async def _connect(self, connection: Connection) -> tuple[str, str] | None:
        """Open a connection; returns the failure as (kind, message), or None. A stop ends the attempt.

        Waits for free ports and files of this machine for as long as for a server: other connections close, and a
        port is free again after a minute.
        """
        deadline = self._loop.time() + self._setup.connect_timeout
        while True:
            failure = await self._try_connect(connection)
            if failure is None or failure[0] != "client" or self._stop.requested or self._loop.time() > deadline:
                return failure
            await asyncio.sleep(CLIENT_PAUSE)

    async def _try_connect(self, connection: Connection) -> tuple[str, str] | None:
        if self._stop.requested:  # a stop before this attempt would not end it
            return "cancelled", STOPPED
        task = asyncio.current_task()
        assert task is not None
        again = connection.dropped
        self._connecting.add(task)
        try:
            await connection.open(self._setup.connect_timeout)
        except ConnectionFailed as error:
            return error.kind, str(error)
        except asyncio.CancelledError:
            if not self._stop.requested:
                raise
            return "cancelled", STOPPED
        finally:
            self._connecting.discard(task)
        self.opened += 1
        self.reconnects += again
        return None

    async def _watch(self) -> None:
        """Cancel exchanges without a byte for `read_timeout`, or longer than `total_timeout`."""
        limits = self._setup
        while True:
            await asyncio.sleep(min(1.0, limits.read_timeout / 4, limits.total_timeout / 4))
            now = self._loop.time()  # not the wall clock, which may be set
            for connection in list(self._all):
                if not connection.busy:
                    continue
                if now - connection.begun > limits.total_timeout:
                    message = f"not finished within {limits.total_timeout:g} s"
                    connection.give_up("timeout_total", message)
                elif connection.silent(now) > limits.read_timeout and not self._poller.paused:
                    connection.give_up("timeout_idle", f"no byte within {limits.read_timeout:g} s")
