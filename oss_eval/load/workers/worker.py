"""The hot process: opens connections, sends requests when they are due, passes on what arrives.

It decodes nothing, prints nothing and imports nothing large. Started by `process` as `python -m
oss_eval.load.workers.worker FD`, FD being its end of a socket pair; it ends when the other end closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import socket
import ssl
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvloop

from oss_eval.load.schedule import Planned
from oss_eval.load.workers.messages import (
    STOPPED,
    Ask,
    Batch,
    CancelRequests,
    Done,
    Ended,
    Go,
    Inbox,
    Learn,
    Outbox,
    Prepare,
    Ready,
    Setup,
    Stop,
)
from oss_eval.load.workers.request_file import RequestCounter, RequestFile
from oss_eval.load.workers.usage import Usage
from oss_eval.probe import file_limits, timestamps
from oss_eval.probe.connection import Connection
from oss_eval.probe.outcome import ConnectionFailed
from oss_eval.probe.poller import Poller
from oss_eval.probe.reads import ReadBuffer, Reads, compiled_reader, is_full

TICK_SECONDS = 0.1
FLUSH_TICKS = 3
"""Reads are passed to the main process after so many ticks, if not before: a stream's are taken together."""
CLIENT_PAUSE = 0.2
"""Seconds between attempts to connect while this machine has no free port or file."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.25, 1.0
"""Seconds that a slot waits after a request without a connection, doubled each time."""
OPENING_AT_ONCE = 64
"""Connections that are opened at the same time: below the listen backlog of usual servers."""
BACKLOG_BYTES = 64 << 20
"""Reads that the main process has not taken; above this no new request is sent and nothing is read, until half of
it is taken: memory is bounded. Kernel timestamps are taken all the same."""


class Worker:
    """The part of a sweep that one process runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, control: socket.socket) -> None:
        self._loop = loop
        self._control = control
        reader = compiled_reader()
        self._reads: Reads = reader or ReadBuffer()
        self._poller = Poller(loop, timestamps.supported(), reader, self._flush_if_full)
        self._inbox = Inbox()
        self._outbox = Outbox(loop, control)
        self._inbound: asyncio.Queue[Any] = asyncio.Queue()
        self._batch = Batch()
        self._connections: list[Connection] = []
        self._opened = self._unopened = self._reconnects = 0
        self._stopping = False
        self._stop_event = asyncio.Event()
        self._connecting: set[asyncio.Task[Any]] = set()
        self._idle: dict[int, list[Connection]] = defaultdict(list)
        self._asked: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[None] | None = None
        self._longest_stall = self._longest_flush = self._held_back = 0.0
        self.setup: Setup
        self._contexts: list[ssl.SSLContext | None] = []
        self._heads: list[bytes] = []
        self._server_of: dict[Connection, int] = {}
        self._asking_with: dict[int, Connection] = {}

    async def run(self) -> None:
        """Run points until the main process closes its end."""
        self._loop.add_reader(self._control.fileno(), self._on_control)
        setup = await self._inbound.get()
        if setup is None:
            return  # the main process was stopped just then
        self.setup = setup
        self._contexts = [target.tls_context() for target in self.setup.targets]
        self._heads = [target.head() for target in self.setup.targets]
        ticker = self._loop.create_task(self._tick())
        # Garbage collections would stop all streams. The hot path makes no cycles; the objects of start-up
        # are excluded from collection.
        gc.collect()
        gc.freeze()
        gc.disable()
        while True:
            message = await self._inbound.get()
            if message is None:
                break
            if isinstance(message, Exception):
                raise message  # the main process sees this process end
            if isinstance(message, Ask):
                self._ask_at_once(message)
            elif isinstance(message, Prepare):
                await self._point(message)
        ticker.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def _on_control(self) -> None:
        try:
            data = self._control.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._control.fileno())
            self._halt(abort=True)
            self._inbound.put_nowait(None)
            return
        for message in self._inbox.feed(data):
            if isinstance(message, Prepare):
                # Here and not where the point begins: a stop may be queued behind it.
                self._stopping = False
                self._stop_event.clear()
            elif isinstance(message, Stop):
                self._halt(message.abort, message.why)
            elif isinstance(message, CancelRequests):
                if message.tag in self._asking_with:
                    self._asking_with[message.tag].give_up(message.kind, message.message)
            elif isinstance(message, Learn):
                self._reads.learn(message.parts)
            if not isinstance(message, CancelRequests | Learn):  # these are done with
                self._inbound.put_nowait(message)

    def _halt(self, abort: bool, why: str = STOPPED) -> None:
        self._stopping = True
        self._stop_event.set()
        if abort:
            for connection in self._connections:
                connection.give_up("cancelled", why)
            for task in self._connecting:
                task.cancel()

    # -- one point -------------------------------------------------------------------------------------

    async def _point(self, point: Prepare) -> None:
        self._opened = self._unopened = self._reconnects = 0
        servers = range(len(self.setup.targets))
        slots = [[self._connection(server) for server in servers] for _ in range(point.slots)]
        self._connections = [connection for slot in slots for connection in slot]
        gate = asyncio.Semaphore(OPENING_AT_ONCE)
        file_limits.allow(len(self._connections))
        await asyncio.gather(*(self._open(c, gate) for c in self._connections))
        self._outbox.put(Ready())
        while not isinstance(message := await self._inbound.get(), Go):
            if message is None:
                self._inbound.put_nowait(None)  # for `run`, which ends on it
                return  # a stop needs no answer here: Go follows, and every slot sees that the point is stopped
        request_file, counter = RequestFile(point.request_file), RequestCounter(point.counter)
        self._longest_stall = self._longest_flush = self._held_back = 0.0
        usage = Usage()
        watch = self._loop.create_task(self._watch())
        start_ns, take = time.time_ns(), partial(counter.take, point.number)
        await asyncio.gather(
            *(self._slot(slot, point, request_file, point.schedule.slot(take, start_ns)) for slot in slots)
        )
        watch.cancel()
        for connection in self._connections:
            connection.close()
        self._connections = []
        self._server_of.clear()
        request_file.close()
        counter.close()
        self._flush()
        wall, cpu, waited = usage.seconds()
        self._outbox.put(
            Done(
                connections=self._opened,
                reconnects=self._reconnects,
                wall_seconds=wall,
                cpu_seconds=cpu,
                waited_seconds=waited,
                longest_stall_seconds=self._longest_stall,
                longest_flush_seconds=self._longest_flush,
                held_back_seconds=self._held_back,
            )
        )

    def _connection(self, server: int) -> Connection:
        """A connection to one of the servers."""
        target, context = self.setup.targets[server], self._contexts[server]
        connection = Connection(self._loop, self._poller, target, context, self._on_read, self.setup.most_bytes)
        self._server_of[connection] = server
        return connection

    async def _open(self, connection: Connection, gate: asyncio.Semaphore) -> None:
        """Open a connection before the point begins; not tried when all of the first ones failed."""
        async with gate:
            if self._opened or self._unopened < OPENING_AT_ONCE:
                self._unopened += await self._try_connect(connection) is not None

    async def _connect(self, connection: Connection) -> tuple[str, str] | None:
        """Open a connection; returns the failure as (kind, message), or None. A stop ends the attempt.

        Waits for free ports and files of this machine for as long as for a server: other connections close, and a
        port is free again after a minute.
        """
        deadline = self._loop.time() + self.setup.connect_timeout
        while True:
            failure = await self._try_connect(connection)
            if failure is None or failure[0] != "client" or self._stopping or self._loop.time() > deadline:
                return failure
            await asyncio.sleep(CLIENT_PAUSE)

    async def _try_connect(self, connection: Connection) -> tuple[str, str] | None:
        if self._stopping:  # a stop before this attempt would not end it
            return "cancelled", STOPPED
        task = asyncio.current_task()
        assert task is not None
        again = connection.dropped
        self._connecting.add(task)
        try:
            await connection.open(self.setup.connect_timeout)
        except ConnectionFailed as error:
            return error.kind, str(error)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            return "cancelled", STOPPED
        finally:
            self._connecting.discard(task)
        self._opened += 1
        self._reconnects += again
        return None

    async def _slot(
        self, connections: list[Connection], point: Prepare, request_file: RequestFile, requests: Iterator[Planned]
    ) -> None:
        """Send the requests of one slot, each when it is planned and the last one has ended.

        A slot has a connection to each server; requests go round them by their number.
        """
        pause = 0.0
        while await self._may_send() and (planned := next(requests, None)) is not None:
            if planned.scheduled_ns is not None and not await self._wait_until(planned.scheduled_ns):
                return
            number = planned.number
            tag = number if point.tags is None else point.tags[number]
            connection = connections[tag % len(connections)]
            request_id = f"{self.setup.run_id}/{point.point_id}/{tag}"
            ended = await self._ask(connection, request_id, tag, request_file[number], planned.scheduled_ns)
            self._batch.ended.append(ended)
            # A server that restarts, and refuses connections meanwhile, would use up all requests at once.
            refused = ended[2] is None
            pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, pause * 2)) if refused else 0.0
            if pause:
                await asyncio.sleep(pause)

    async def _may_send(self) -> bool:
        """Wait while the main process is behind; False when the point is being stopped."""
        while self._outbox.queued > BACKLOG_BYTES and not self._stopping:
            await asyncio.sleep(TICK_SECONDS)
            self._held_back += TICK_SECONDS
        return not self._stopping

    async def _wait_until(self, scheduled_ns: int) -> bool:
        """Wait for a planned timestamp; False when the point is stopped before."""
        seconds = (scheduled_ns - time.time_ns()) / 1e9
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop_event.wait(), seconds)
        return not self._stopping

    async def _ask(
        self, connection: Connection, request_id: str, tag: int, body: bytes, scheduled_ns: int | None
    ) -> Ended:
        server = self._server_of[connection]
        for attempt in (1, 2):
            failure = None if connection.is_open else await self._connect(connection)
            if failure is None and self._stopping:
                failure = "cancelled", STOPPED
            if failure is not None:
                return tag, attempt, None, time.time_ns(), *failure, server, scheduled_ns
            request = b"%sX-Client-Request-Id: %s\r\nContent-Length: %d\r\n\r\n%s" % (
                self._heads[server], request_id.encode(), len(body), body,
            )  # fmt: skip
            begin = partial(self._on_start, tag, attempt, server, scheduled_ns)
            self._asking_with[tag] = connection
            outcome = await connection.exchange(tag, request, begin)
            del self._asking_with[tag]
            if outcome.stale and attempt == 1:
                continue
            break
        kind, message = outcome.error_kind, outcome.error_message
        return tag, attempt, outcome.start_ns, time.time_ns(), kind, message, server, scheduled_ns

    # -- single requests -------------------------------------------------------------------------------

    def _ask_at_once(self, ask: Ask) -> None:
        """A single request. The main process limits how many are in flight."""
        if self._asking is None:
            self._asking = self._loop.create_task(self._watch())
        server = ask.tag % len(self.setup.targets)
        if self._idle[server]:
            connection = self._idle[server].pop()
        else:
            connection = self._connection(server)
            self._connections.append(connection)
            file_limits.allow(len(self._connections))
        task = self._loop.create_task(self._answer(connection, ask))
        self._asked.add(task)
        task.add_done_callback(self._on_answered)

    def _on_answered(self, task: asyncio.Task[None]) -> None:
        self._asked.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._inbound.put_nowait(task.exception())

    async def _answer(self, connection: Connection, ask: Ask) -> None:
        ended = await self._ask(connection, ask.request_id, ask.tag, ask.body, None)
        self._batch.ended.append(ended)
        self._idle[self._server_of[connection]].append(connection)
        self._flush()  # the caller waits for this answer before it sends the next request

    # -- what arrives ----------------------------------------------------------------------------------

    def _on_start(self, tag: int, attempt: int, server: int, scheduled_ns: int | None, start_ns: int) -> None:
        self._batch.started.append((tag, attempt, start_ns, server, scheduled_ns))

    def _on_read(self, tag: int, kernel_ns: int, seen_ns: int, data: bytes) -> None:
        self._reads.append(tag, kernel_ns, seen_ns, data)
        self._flush_if_full()

    def _flush_if_full(self) -> bool:
        full = is_full(self._reads)
        if full:
            self._flush()
        return full

    async def _tick(self) -> None:
        for tick in itertools.count(1):
            due = time.monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self._longest_stall = max(self._longest_stall, time.monotonic() - due)
            if tick % FLUSH_TICKS == 0:
                self._flush()
            if self._poller.paused and self._outbox.queued < BACKLOG_BYTES / 2:
                self._poller.resume()

    def _flush(self) -> None:
        batch = self._batch
        if not (self._reads.held()[0] or batch.started or batch.ended):
            return
        begun = time.thread_time()
        batch.rows, batch.data = self._reads.take()
        self._batch = Batch()
        self._outbox.put(batch)
        if self._outbox.queued > BACKLOG_BYTES:
            self._poller.pause()
        self._longest_flush = max(self._longest_flush, time.thread_time() - begun)

    async def _watch(self) -> None:
        """Cancel exchanges without a byte for `read_timeout`, or longer than `total_timeout`."""
        limits = self.setup
        while True:
            await asyncio.sleep(min(1.0, limits.read_timeout / 4, limits.total_timeout / 4))
            now = self._loop.time()  # not the wall clock, which may be set
            for connection in self._connections:
                if not connection.busy:
                    continue
                if now - connection.begun > limits.total_timeout:
                    message = f"not finished within {limits.total_timeout:g} s"
                    connection.give_up("timeout_total", message)
                elif connection.silent(now) > limits.read_timeout and not self._poller.paused:
                    connection.give_up("timeout_idle", f"no byte within {limits.read_timeout:g} s")


async def _main(descriptor: int) -> None:
    control = socket.socket(fileno=descriptor)
    control.setblocking(False)
    with contextlib.closing(control):
        await Worker(asyncio.get_running_loop(), control).run()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
