"""The load of a worker: the slots of a closed loop, or the arrivals of an open one, from point to point."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

from oss_eval.load.schedule.closed_loop import ClosedLoop
from oss_eval.load.schedule.open_loop import OpenLoop
from oss_eval.load.workers.connections import Connections, StopSignal
from oss_eval.load.workers.messages import TURNS, Ended, More, NextTurn, Prepare
from oss_eval.load.workers.precise_timer import PreciseTimer
from oss_eval.load.workers.request_feed import RequestFeed
from oss_eval.probe.connection import Connection

SHORTEST_PAUSE, LONGEST_PAUSE = 0.25, 1.0
"""Seconds that a slot waits after a request without a connection, doubled each time."""
FULL_PAUSE = 0.1
"""Seconds between looks whether the main process has caught up."""


class PointLoad:
    """Sends the requests of points. Load may go on from one point to the next."""

    def __init__(
        self,
        run_id: str,
        connections: Connections,
        stop: StopSignal,
        is_full: Callable[[], bool],
        on_end: Callable[[Ended], None],
        flush: Callable[[], None],
    ) -> None:
        """`is_full`: whether the main process is so far behind that slots must wait; `flush` tells it at once."""
        self._run_id, self._connections, self._stop = run_id, connections, stop
        self._is_full, self._on_end, self._flush = is_full, on_end, flush
        self._turns: dict[int, asyncio.Future[bytes | None]] = {}
        """What conversations wait for, by the tag of the request that was answered."""
        self._feeds: dict[str, RequestFeed] = {}
        """Of the point in progress and, while it is prepared, of the next one."""
        self._feed: RequestFeed | None = None
        """What requests are taken from."""
        self._slots: dict[int, list[Connection]] = {}
        """Slots of a closed loop that send requests, by their number over all workers."""
        self._active: set[asyncio.Task[None]] = set()
        """Slots, the arrivals of an open loop, and its requests in flight."""
        self._in_flight = 0
        """Requests of an open loop."""
        self._arrivals: asyncio.Task[None] | None = None
        self._timer = PreciseTimer(asyncio.get_running_loop())
        self._room, self._changed = asyncio.Event(), asyncio.Event()
        self._finishing = False
        self._failure: BaseException | None = None
        self.held_back = 0.0
        """Seconds in which free slots sent nothing, because the main process could not keep up."""

    # -- what the main process says --------------------------------------------------------------------

    def announce(self, point: Prepare) -> None:
        """A point that begins soon."""
        self._finishing = False
        self._feeds[point.point_id] = RequestFeed(point)

    def add(self, more: More) -> None:
        """Further requests of a point."""
        feed = self._feeds.get(more.point_id)
        if feed is not None:
            with contextlib.suppress(FileNotFoundError):  # the point is over
                feed.add(more.request_file, more.last)

    def next_turn(self, turn: NextTurn) -> None:
        """The request that follows another one in its conversation."""
        following = self._turns.get(turn.tag)
        if following is not None and not following.done():
            following.set_result(turn.body)

    def finish(self) -> None:
        """The point is over; load goes on."""
        self._finishing = True
        self._changed.set()

    def wake(self) -> None:
        """The point is stopped: let all that wait see it."""
        if self._arrivals is not None:
            self._arrivals.cancel()
        for feed in self._feeds.values():
            feed.wake()
        for following in self._turns.values():
            if not following.done():
                following.set_result(None)

    # -- one point -------------------------------------------------------------------------------------

    async def prepare(self, point: Prepare) -> dict[int, list[Connection]]:
        """Open connections for the slots of a point that do not exist yet; returns them."""
        servers = range(self._connections.servers)
        new = {slot: [self._connections.new(server) for server in servers] for slot in self._missing(point)}
        await self._connections.open_first(one for connections in new.values() for one in connections)
        return new

    def _missing(self, point: Prepare) -> list[int]:
        if isinstance(point.schedule, OpenLoop):
            return []
        return [n for n in range(point.position, point.schedule.slots, point.workers) if n not in self._slots]

    async def run(self, point: Prepare, start_ns: int, ready: dict[int, list[Connection]]) -> bool:
        """Send the requests of a point until it is over; whether load goes on. Slots that an earlier point has
        kept take this one's requests from now on."""
        feed = self._feeds[point.point_id]
        before, self._feed = self._feed, feed
        feed.start_ns = start_ns
        self.held_back = 0.0
        self._changed.clear()
        if self._arrivals is not None:
            self._arrivals.cancel()
        if isinstance(point.schedule, OpenLoop):
            self._arrivals = self._start(self._arrive(feed, point.schedule))
        for slot in self._missing(point):  # one may have ended since connections were opened
            servers = range(self._connections.servers)
            self._slots[slot] = ready.get(slot) or [self._connections.new(server) for server in servers]
            self._start(self._slot(slot, self._slots[slot]))
        if before is not None:
            before.wake()
            self._feeds.pop(before.point.point_id).close()
        while self._active and not self._finishing and self._failure is None:
            await self._changed.wait()
            self._changed.clear()
        if self._failure is not None:
            raise self._failure
        if not self._active:
            self._end()
        return bool(self._active)

    def _start(self, load: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of the load: the point is over when all have ended."""
        task = asyncio.get_running_loop().create_task(load)
        self._active.add(task)
        task.add_done_callback(self._load_ended)
        return task

    def _load_ended(self, task: asyncio.Task[None]) -> None:
        self._active.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
        if self._failure is not None or not self._active:
            self._changed.set()

    def _end(self) -> None:
        """All load has ended."""
        self._arrivals = None
        self._connections.close()
        self._slots.clear()
        for feed in self._feeds.values():
            feed.close()
        self._feeds.clear()
        self._feed = None

    async def _leave(self, tag: int, seconds: float, why: str) -> None:
        """Cancel a request some time after its start; one that waits for a connection, when it has one."""
        await asyncio.sleep(seconds)
        while not self._connections.give_up("abandoned", why, tag):
            await asyncio.sleep(FULL_PAUSE)

    async def _request(
        self, connection: Connection, point: Prepare, number: int, body: bytes, scheduled_ns: int | None
    ) -> Ended:
        """One request of a point. Its body was read when it was taken: the point's files may be closed
        meanwhile."""
        request_id, tag = f"{self._run_id}/{point.point_id}/{number}", point.base + number
        after = None if point.schedule.cancel is None else point.schedule.cancel.of(number)
        leaving = None
        if after is not None:
            why = f"cancelled by the client after {after:g} s"
            leaving = asyncio.get_running_loop().create_task(self._leave(tag, after, why))
        ended = await self._connections.ask(connection, request_id, tag, body, scheduled_ns)
        if leaving is not None:
            leaving.cancel()
        self._on_end(ended)
        return ended

    # -- closed loop -----------------------------------------------------------------------------------

    async def _slot(self, slot: int, connections: list[Connection]) -> None:
        """Send the requests of one slot, each when the last one has ended.

        A slot has a connection to each server; requests go round them by their number.
        """
        begun = asked = False
        pause = 0.0
        while await self._may_send():
            feed = self._feed
            if feed is None or not isinstance(feed.point.schedule, ClosedLoop):
                break
            loop, seconds = feed.point.schedule, feed.point.seconds
            over = seconds is not None and time.time_ns() > feed.start_ns + seconds * 1e9
            if slot >= loop.slots or over:
                break
            if not begun and loop.ramp and not await self._stop.pause(loop.first_delay(slot)):
                break
            begun = True
            position = feed.take()
            if position is None:
                if feed.last:
                    break
                waited = time.monotonic()
                await feed.more()
                self.held_back += time.monotonic() - waited
                continue
            number, (body, _) = feed.number(position), feed.request(position)
            thinking = loop.think_time(number) if asked else 0.0
            if thinking and not await self._stop.pause(thinking):
                break
            asked = True
            if loop.conversations:
                ended = await self._converse(slot, connections, feed, number, body, loop)
            else:
                ended = await self._request(connections[number % len(connections)], feed.point, number, body, None)
            # A server that restarts, and refuses connections meanwhile, would use up all requests at once.
            refused = ended[2] is None
            pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, pause * 2)) if refused else 0.0
            if pause:
                await asyncio.sleep(pause)
        self._slots.pop(slot, None)
        for connection in connections:
            self._connections.drop(connection)

    async def _converse(
        self,
        slot: int,
        connections: list[Connection],
        feed: RequestFeed,
        conversation: int,
        first: bytes,
        loop: ClosedLoop,
    ) -> Ended:
        """One conversation: each turn is planned for the end of the one before and the time to think. The end of
        its last request."""
        point, body = feed.point, first
        scheduled_ns: int | None = None
        connection = connections[conversation % len(connections)]
        for number in itertools.count(conversation * TURNS):
            tag = point.base + number
            following = self._turns[tag] = asyncio.get_running_loop().create_future()
            request_id = f"{self._run_id}/{point.point_id}/{number}"
            ended = await self._connections.ask(connection, request_id, tag, body, scheduled_ns)
            self._on_end(ended)
            self._flush()  # the next turn is made from this answer
            next_body = await following
            del self._turns[tag]
            seconds = point.seconds
            over = seconds is not None and time.time_ns() > feed.start_ns + seconds * 1e9
            if next_body is None or over or self._stop.requested or feed is not self._feed or slot >= loop.slots:
                break
            body = next_body
            scheduled_ns = ended[3] + round(loop.think_time(number + 1) * 1e9)
            while (left := (scheduled_ns - time.time_ns()) / 1e9) > 0:  # the loop's timers are a millisecond early
                if not await self._stop.pause(left):
                    return ended
        return ended

    async def _may_send(self) -> bool:
        """Wait while the main process is behind; False when the point is being stopped."""
        while self._is_full() and not self._stop.requested:
            await asyncio.sleep(FULL_PAUSE)
            self.held_back += FULL_PAUSE
        return not self._stop.requested

    # -- open loop -------------------------------------------------------------------------------------

    async def _arrive(self, feed: RequestFeed, schedule: OpenLoop) -> None:
        """Send the planned requests that are this worker's, each when it is due."""
        point = feed.point
        most = max(1, len(range(point.position, schedule.max_in_flight, point.workers)))
        position = point.position
        while not self._stop.requested:
            while position >= feed.count and not feed.last:
                await feed.more()
            if position >= feed.count:
                return
            body, due = feed.request(position)
            while time.time_ns() < due:
                await self._timer.wait_until(due)
            while self._in_flight >= most:
                self._room.clear()
                await self._room.wait()
            self._in_flight += 1
            self._start(self._send_scheduled(point, feed.number(position), body, due))
            position += point.workers

    async def _send_scheduled(self, point: Prepare, number: int, body: bytes, due: int) -> None:
        connection = self._connections.free(number % self._connections.servers)
        await self._request(connection, point, number, body, due)
        self._connections.keep(connection)
        self._in_flight -= 1
        self._room.set()
