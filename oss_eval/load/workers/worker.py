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
import sys
import time
from typing import Any

import uvloop

from oss_eval.load.workers.connections import Connections, StopSignal
from oss_eval.load.workers.messages import (
    STOPPED,
    Ask,
    Batch,
    CancelRequests,
    Done,
    Ended,
    Finish,
    Go,
    Inbox,
    Learn,
    More,
    NextTurn,
    Outbox,
    Prepare,
    Ready,
    Setup,
    Stop,
)
from oss_eval.load.workers.point_load import PointLoad
from oss_eval.load.workers.usage import Usage
from oss_eval.probe import timestamps
from oss_eval.probe.poller import Poller
from oss_eval.probe.reads import ReadBuffer, Reads, compiled_reader, is_full

TICK_SECONDS = 0.1
FLUSH_TICKS = 3
"""Reads are passed to the main process after so many ticks, if not before: a stream's are taken together."""
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
        self._stop = StopSignal()
        self._asked: set[asyncio.Task[None]] = set()
        self._longest_stall = self._longest_flush = 0.0
        self.setup: Setup
        self._connections: Connections
        self._load: PointLoad

    async def run(self) -> None:
        """Run points until the main process closes its end."""
        self._loop.add_reader(self._control.fileno(), self._on_control)
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
        if hasattr(self, "_connections"):
            self._connections.close()

    def _begin(self, setup: Setup) -> None:
        """The first message."""
        self.setup = setup
        self._connections = Connections(self._loop, self._poller, setup, self._stop, self._on_read, self._on_start)
        self._load = PointLoad(
            setup.run_id, self._connections, self._stop, self._is_full, self._on_end, self._flush
        )

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
            # What has to act at once does so here, the rest in its turn: a stop may be queued behind a Prepare.
            match message:
                case Setup():
                    try:
                        self._begin(message)
                    except (OSError, ValueError) as error:  # certificates that can't be read
                        self._inbound.put_nowait(error)
                case Prepare():
                    self._stop.clear()
                    self._load.announce(message)
                    self._inbound.put_nowait(message)
                case More():
                    self._load.add(message)
                case NextTurn():
                    self._load.next_turn(message)
                case Finish():
                    self._load.finish()
                case Stop():
                    self._halt(message.abort, message.why)
                case CancelRequests():
                    self._connections.give_up(message.kind, message.message, message.tag)
                case Learn():
                    self._reads.learn(message.parts)
                case _:
                    self._inbound.put_nowait(message)

    def _halt(self, abort: bool, why: str = STOPPED) -> None:
        self._stop.set()
        if not hasattr(self, "_load"):
            return  # the main process was stopped before it said anything
        self._load.wake()
        if abort:
            self._connections.give_up("cancelled", why)

    # -- one point -------------------------------------------------------------------------------------

    async def _point(self, point: Prepare) -> None:
        self._connections.start_counting()
        ready = await self._load.prepare(point)
        self._outbox.put(Ready())
        while not isinstance(message := await self._inbound.get(), Go):
            if message is None:
                self._inbound.put_nowait(None)  # for `run`, which ends on it
                return  # a stop needs no answer here: Go follows, and every slot sees that the point is stopped
        self._longest_stall = self._longest_flush = 0.0
        usage = Usage()
        await self._load.run(point, message.start_ns, ready)
        self._flush()
        wall, cpu, waited = usage.seconds()
        self._outbox.put(
            Done(
                connections=self._connections.opened,
                reconnects=self._connections.reconnects,
                wall_seconds=wall,
                cpu_seconds=cpu,
                waited_seconds=waited,
                longest_stall_seconds=self._longest_stall,
                longest_flush_seconds=self._longest_flush,
                held_back_seconds=self._load.held_back,
            )
        )

    # -- single requests -------------------------------------------------------------------------------

    def _ask_at_once(self, ask: Ask) -> None:
        """A single request. The main process limits how many are in flight."""
        task = self._loop.create_task(self._answer(ask))
        self._asked.add(task)
        task.add_done_callback(self._on_answered)

    def _on_answered(self, task: asyncio.Task[None]) -> None:
        self._asked.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._inbound.put_nowait(task.exception())

    async def _answer(self, ask: Ask) -> None:
        connection = self._connections.free(ask.tag % self._connections.servers)
        self._on_end(await self._connections.ask(connection, ask.request_id, ask.tag, ask.body, None))
        self._connections.keep(connection)
        self._flush()  # the caller waits for this answer before it sends the next request

    # -- what happens ----------------------------------------------------------------------------------

    def _on_start(self, tag: int, attempt: int, server: int, scheduled_ns: int | None, start_ns: int) -> None:
        self._batch.started.append((tag, attempt, start_ns, server, scheduled_ns))

    def _on_end(self, ended: Ended) -> None:
        self._batch.ended.append(ended)

    def _on_read(self, tag: int, kernel_ns: int, seen_ns: int, data: bytes) -> None:
        self._reads.append(tag, kernel_ns, seen_ns, data)
        self._flush_if_full()

    def _is_full(self) -> bool:
        return self._outbox.queued > BACKLOG_BYTES

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


async def _main(descriptor: int) -> None:
    control = socket.socket(fileno=descriptor)
    control.setblocking(False)
    with contextlib.closing(control):
        await Worker(asyncio.get_running_loop(), control).run()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
