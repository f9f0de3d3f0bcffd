"""What the main process and a worker tell each other, as length-prefixed messages over a socket pair.

Control goes as pickled dataclasses, a few a point. Reads go as `Batch`: everything a worker's connections saw
within a fraction of a second as flat rows of numbers and one piece of data, so that a token costs no object.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oss_eval.load.schedule.closed_loop import ClosedLoop
from oss_eval.load.schedule.open_loop import OpenLoop
from oss_eval.probe.known_events import Parts
from oss_eval.probe.target import Target

TURNS = 4096
"""Turn t, from 0, of conversation c is request c * TURNS + t."""
_HEADER = struct.Struct("=cI")
STOPPED = "the run was stopped"


@dataclass(slots=True)
class Setup:
    """Main to worker, once."""

    worker: int
    targets: tuple[Target, ...]
    """Servers that share the load; connections go round them."""
    run_id: str
    connect_timeout: float
    read_timeout: float
    total_timeout: float
    most_bytes: int = sys.maxsize
    """Of a response, as it arrives; a larger one is ended."""


@dataclass(slots=True)
class Prepare:
    """Main to worker: open connections for a point, answer Ready. Load that an earlier point has kept up goes on
    until Go."""

    point_id: str
    base: int
    """A request's tag is this and its number: tags of points that follow each other differ."""
    position: int
    """Of this worker among those of the point: slot n, or planned request n, is its if n % workers is this."""
    workers: int
    schedule: ClosedLoop | OpenLoop
    """When each request starts."""
    request_file: Path
    last: bool
    """Whether no More follows: the point ends when its requests do."""
    counter: Path
    seconds: float | None = None
    """Slots send nothing after so long."""
    numbers: tuple[int, ...] | None = None
    """The numbers of the requests in the request file; None when they are all of the point's, from 0."""
    own_share: bool = False
    """Whether the counter is this worker's alone, as on another machine: it takes every `workers`-th request, from
    `position` on, instead of the next that nobody has taken."""


@dataclass(slots=True)
class More:
    """Main to worker: further requests of a point."""

    point_id: str
    request_file: Path
    last: bool


@dataclass(slots=True)
class NextTurn:
    """Main to worker: the request that follows another one, named by its tag, in its conversation; None: none
    does."""

    tag: int
    body: bytes | None


@dataclass(slots=True)
class Finish:
    """Main to worker: answer Done; load goes on until the next point's Go."""


@dataclass(slots=True)
class CancelRequests:
    """Main to worker: end this request, because of what only the main process can see."""

    tag: int
    kind: str
    message: str


@dataclass(slots=True)
class Learn:
    """Main to worker: a shape of token events, of which the timestamps are enough; shapes are numbered from 0."""

    parts: Parts


@dataclass(slots=True)
class Go:
    """Main to worker: every worker is ready, start."""

    start_ns: int
    """The start of the point, from which planned times count, nanoseconds since the epoch."""


@dataclass(slots=True)
class Ask:
    """Main to worker, outside of points: send this one request now, over whichever connection is free."""

    tag: int
    request_id: str
    body: bytes


@dataclass(slots=True)
class Stop:
    """Main to worker: take no further request; with `abort`, give up those in flight, because of `why`."""

    abort: bool = False
    why: str = STOPPED


@dataclass(slots=True)
class Ready:
    """Worker to main: connections are open, as far as they could be; each slot tries again when it is its turn."""


@dataclass(slots=True)
class Done:
    """Worker to main: its part of the point is over."""

    connections: int
    """Connections opened in all."""
    reconnects: int
    """Of these, the ones that replaced a connection which the server had closed between requests."""
    wall_seconds: float
    cpu_seconds: float
    """CPU time of the worker during the point."""
    waited_seconds: float | None
    """Time it was ready to run and had no core; None where the system does not say."""
    longest_stall_seconds: float
    """The longest that its loop was late for a timer."""
    longest_flush_seconds: float
    """CPU time of the largest hand-over to the main process: the longest that its own work held up the loop."""
    held_back_seconds: float
    """Time in which free slots sent nothing because the main process could not keep up."""


Started = tuple[int, int, int, int, int | None]
"""A request's first bytes were handed to the kernel: its tag, attempt, start_ns, the server's number and
scheduled_ns. Plain, because pickling a thousand objects at once would block the worker's loop for milliseconds."""

Ended = tuple[int, int, int | None, int, str | None, str | None, int, int | None]
"""A request has ended: tag, attempt, start_ns (None: nothing was sent), its end, error kind (None: a complete
response was framed), error message, the server's number and scheduled_ns. Timestamps are nanoseconds since the
epoch."""


@dataclass(slots=True)
class Batch:
    """What happened on a worker's connections within one tick, in order of kind: starts, reads, ends."""

    started: list[Started] = field(default_factory=list)
    rows: bytes = b""
    """Five int64 of each read: see `probe.reads`."""
    data: bytes = b""
    ended: list[Ended] = field(default_factory=list)

    @property
    def latest_seen_ns(self) -> int | None:
        """When the last of the reads was made; None without reads."""
        return memoryview(self.rows).cast("q")[-3] if self.rows else None


def encode(message: Any) -> bytes:
    """Wire form of a message."""
    body = pickle.dumps(message, protocol=5)
    return _HEADER.pack(b"m", len(body)) + body


class Inbox:
    """Messages out of the bytes of a socket, cut anywhere."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The messages that these bytes complete."""
        self._buffer += data
        found: list[Any] = []
        offset = 0
        while len(self._buffer) - offset >= _HEADER.size:
            _, length = _HEADER.unpack_from(self._buffer, offset)
            end = offset + _HEADER.size + length
            if len(self._buffer) < end:
                break
            # Both ends are this package's own processes, joined by a socket pair nobody else can open.
            found.append(pickle.loads(memoryview(self._buffer)[offset + _HEADER.size : end]))
            offset = end
        del self._buffer[:offset]
        return found


class Outbox:
    """Bytes to the main process, written when the socket takes them; never blocks the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop, self._sock = loop, sock
        self._queue: list[bytes] = []
        self._offset = 0
        self.queued = 0

    def put(self, message: Any) -> None:
        """Queue a message."""
        data = encode(message)
        self._queue.append(data)
        self.queued += len(data)
        if len(self._queue) == 1:
            self._loop.add_writer(self._sock.fileno(), self._write)

    def _write(self) -> None:
        try:
            sent = self._sock.send(memoryview(self._queue[0])[self._offset :])
        except BlockingIOError:
            return
        except OSError:  # the main process is gone: there is nobody left to tell
            self._loop.remove_writer(self._sock.fileno())
            self._queue.clear()
            self.queued = 0
            return
        self.queued -= sent
        self._offset += sent
        if self._offset == len(self._queue[0]):
            self._offset = 0
            del self._queue[0]
            if not self._queue:
                self._loop.remove_writer(self._sock.fileno())
