"""The main process's side of a sweep: starts the worker processes and decodes their reads into records.

The main process never touches a measured socket. It may be busy decoding, writing Parquet or drawing a
progress bar: timestamps are taken by the kernel, and the workers continue meanwhile.
"""

from __future__ import annotations

import selectors
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, Protocol

from oss_eval.errors import StoreError, UsageError
from oss_eval.load.client_stats import ClientStats
from oss_eval.load.plan import Point
from oss_eval.load.schedule import Schedule
from oss_eval.load.schedule.closed_loop import ClosedLoop
from oss_eval.load.workers.in_flight import InFlight
from oss_eval.load.workers.messages import STOPPED, Batch, Done, Go, Learn, Prepare, Ready, Setup, Stop
from oss_eval.load.workers.process import Limits, WorkerProcess
from oss_eval.load.workers.request_file import RequestCounter, write_request_file
from oss_eval.probe import file_limits
from oss_eval.probe.decode import ResponseDecoder
from oss_eval.probe.decode_options import DecodeOptions
from oss_eval.probe.known_events import KnownShapes, Shape
from oss_eval.probe.target import Target
from oss_eval.records import RequestRecord
from oss_eval.system.environment import usable_cores
from oss_eval.system.signals import Interrupts

RECEIVE_BYTES = 1 << 20
CLOSED_LOOP = ClosedLoop()
IDLE_SECONDS = 0.25
"""Seconds between calls of `Listener.idle` and checks for overdue requests."""
ABORT_SECONDS = 0.4
"""Workers get so long to report cancelled requests."""


class Listener(Protocol):
    """Receives the events of a point, in the main process."""

    def record(self, record: RequestRecord) -> None:
        """A request has ended."""

    def idle(self, in_flight: int, tokens: int) -> str | None:
        """Called several times a second: requests in flight, token events of the point so far. Returns why the
        point has to end, or None."""

    def stopping(self, in_flight: int) -> None:
        """Ctrl-C: no further request is sent, and these in flight may finish."""


@dataclass(slots=True)
class PointOutcome:
    """Statistics of the workers for a point, and why it ended early, if it did."""

    workers: list[Done] = field(default_factory=list)
    main_cpu_seconds: float = 0.0
    broken: str | None = None
    """Why the point ended early."""
    server: str | None = None
    """The Server header of the replies."""

    def client(self, slots: int) -> ClientStats:
        """The statistics of all workers in one."""
        done = self.workers
        waited = [
            w.waited_seconds / w.wall_seconds for w in done if w.waited_seconds is not None and w.wall_seconds
        ]
        return ClientStats(
            workers=len(done),
            cores=usable_cores(),
            slots=slots,
            connections=sum(w.connections for w in done),
            reconnects=sum(w.reconnects for w in done),
            wall_seconds=max((w.wall_seconds for w in done), default=0.0),
            cpu_seconds=sum(w.cpu_seconds for w in done),
            main_cpu_seconds=self.main_cpu_seconds,
            waited_share=max(waited, default=None),
            longest_stall_seconds=max((w.longest_stall_seconds for w in done), default=0.0),
            longest_flush_seconds=max((w.longest_flush_seconds for w in done), default=0.0),
            held_back_seconds=sum(w.held_back_seconds for w in done),
        )


def check_descriptors(points: list[Point], servers: int = 1) -> None:
    """Raise UsageError if a point needs more connections a process than this system lets it open files."""
    for point in points:
        connections = -(-point.parallel // point.workers) * servers
        hard = file_limits.lacking(connections)
        if hard is not None:
            raise UsageError(
                f"{connections} connections a worker process are needed, and this system lets a process open "
                f"{hard} files",
                f"raise the limit (ulimit -Hn), or spread the load: --workers {2 * point.workers}",
            )


class WorkerPool:
    """The worker processes of a run, one point at a time."""

    def __init__(
        self,
        run_id: str,
        targets: tuple[Target, ...],
        limits: Limits,
        interrupts: Interrupts,
        workers: int = 1,
        reading: DecodeOptions | None = None,
    ) -> None:
        """`interrupts`: those of the whole run."""
        self.run_id = run_id
        self._interrupts = interrupts
        self._limits = limits
        self._shapes = KnownShapes()
        self._reading = reading or DecodeOptions()
        self._workers = [
            WorkerProcess(
                n, Setup(n, targets, run_id, limits.connect, limits.read, limits.total, self._reading.most_bytes)
            )
            for n in range(workers)
        ]
        self._selector = selectors.DefaultSelector()
        for worker in self._workers:
            self._selector.register(worker.socket, selectors.EVENT_READ, worker)
        self._scratch = tempfile.TemporaryDirectory(prefix="oss-eval-")

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self._selector.close()
        for worker in self._workers:
            worker.close(ABORT_SECONDS / len(self._workers) if self._interrupts.count > 1 else 3.0)
        self._scratch.cleanup()

    def run_point(
        self,
        point: Point,
        model: str,
        bodies: Iterator[bytes],
        listener: Listener,
        tags: Sequence[int] | None = None,
        schedule: Schedule = CLOSED_LOOP,
    ) -> PointOutcome:
        """Carry out one point: `point.number` of the endless `bodies`, `point.parallel` at a time; with `tags`,
        only the requests of these numbers; each when `schedule` plans it.

        On Ctrl-C or SIGTERM nothing more is sent, and what is in flight gets the grace of the limits to finish; on
        a second one it is given up. All of it is recorded either way. The same if a worker dies, without the
        grace.
        """
        folder = Path(self._scratch.name)
        request_file, counter = folder / f"{point.point_id}.deck", folder / f"{point.point_id}.budget"
        chosen = None if tags is None else tuple(sorted(tags))
        wanted = None if chosen is None else set(chosen)
        numbered = islice(zip(count(), bodies), point.number)
        try:
            number = write_request_file(
                request_file, (body for tag, body in numbered if wanted is None or tag in wanted)
            )
            RequestCounter(counter).close()
        except OSError as error:
            raise StoreError(
                f"can't write the requests of a point to {folder}: {error.strerror}",
                "set TMPDIR to another folder",
            ) from None
        used = self._workers[: min(point.workers, point.parallel)]
        cpu = time.process_time()
        for position, worker in enumerate(used):
            slots = len(range(position, point.parallel, len(used)))
            worker.send(Prepare(point.point_id, slots, number, request_file, counter, schedule, chosen))
        with self._interrupts.deferred():
            state = _PointState(self.run_id, point, model, listener, self._reading, self._interrupts, self._shapes)
            for _ in self._collect(used, Ready, state):
                pass
            state.begun = True
            for worker in used:
                worker.send(Go())
            end = PointOutcome(workers=[done for _, done in self._collect(used, Done, state)])
            if state.aborted:
                state.replies.lose("cancelled", state.broken or STOPPED)
        request_file.unlink()
        counter.unlink()
        end.server, end.broken = state.server, state.broken
        end.main_cpu_seconds = time.process_time() - cpu
        return end

    def _collect(
        self, used: list[WorkerProcess], kind: type, state: _PointState
    ) -> Iterator[tuple[WorkerProcess, Any]]:
        """One message of `kind` from each live worker; batches that arrive meanwhile are decoded."""
        waiting = {worker for worker in used if worker.number not in state.dead}
        next_idle = 0.0
        known = dict.fromkeys(waiting, time.monotonic())
        """Until when everything is known that each worker has seen."""
        while waiting and not self._stop(used, state):
            looked = time.monotonic()
            ready = [key.data for key, _ in self._selector.select(0.1)]
            known.update((worker, looked) for worker in known if worker not in ready)
            for worker in ready:
                try:
                    data = worker.socket.recv(RECEIVE_BYTES)
                except ConnectionError:
                    data = b""
                if len(data) < RECEIVE_BYTES:
                    known[worker] = looked
                if not data:
                    waiting.discard(worker)
                    self._worker_died(worker, state)
                for message in worker.inbox.feed(data):
                    if isinstance(message, Batch):
                        state.replies.take(worker.number, message)
                        if message.latest_seen_ns is not None:
                            age = (time.time_ns() - message.latest_seen_ns) / 1e9
                            known[worker] = max(known.get(worker, 0.0), min(looked, time.monotonic() - age))
                    elif isinstance(message, kind):
                        waiting.discard(worker)
                        yield worker, message
            for shape in self._shapes.new:
                for worker in self._workers:
                    worker.send(Learn(shape.parts))
            self._shapes.new.clear()
            now = time.monotonic()
            if now >= next_idle:
                next_idle = now + IDLE_SECONDS
                reason = state.listener.idle(len(state.replies), state.replies.tokens)
                state.broken = state.broken or reason
                # A request is not overdue while its tokens wait in our own queue, behind a slow disk or a merge of
                # parts.
                until = min(known.values(), default=now)
                for number, what in state.replies.overdue(self._limits.first_token, self._limits.read, until):
                    self._workers[number].send(what)

    def _worker_died(self, worker: WorkerProcess, state: _PointState) -> None:
        """A worker has died: what it had in flight is cancelled, and the point can't go on."""
        self._selector.unregister(worker.socket)
        state.dead.add(worker.number)
        code = worker.process.wait()
        state.broken = f"worker process {worker.number} ended unexpectedly (exit code {code})"
        state.replies.lose("cancelled", state.broken, worker.number)

    def _stop(self, used: list[WorkerProcess], state: _PointState) -> bool:
        """Tell the workers when the point has to end; whether to stop waiting for them."""
        now, asked = time.monotonic(), state.interrupts.count
        if asked and state.give_up_at is None:
            state.give_up_at = now + (self._limits.grace if state.begun else 0.0)
            for worker in used:
                worker.send(Stop())
            if asked == 1 and state.begun:
                state.listener.stopping(len(state.replies))
        late = state.give_up_at is not None and now >= state.give_up_at
        if (asked > 1 or late or state.broken) and not state.aborted:
            state.aborted, state.leave_at = True, now + (ABORT_SECONDS if asked > 1 else 10 * ABORT_SECONDS)
            for worker in used:
                worker.send(Stop(abort=True, why=state.broken or STOPPED))
        elif asked > 1 and state.aborted:
            state.leave_at = min(state.leave_at, now + ABORT_SECONDS)
        return state.aborted and now >= state.leave_at


class _PointState:
    """Responses in flight, and where the finished ones go."""

    def __init__(
        self,
        run_id: str,
        point: Point,
        model: str,
        listener: Listener,
        reading: DecodeOptions,
        interrupts: Interrupts,
        shapes: KnownShapes,
    ) -> None:
        self.run_id, self.point, self.model = run_id, point, model
        self.listener = listener
        self.reading = reading
        self.shapes = shapes
        self.replies = InFlight(self._begin, self._end, shapes)
        self.interrupts = interrupts
        self.begun = False
        """Whether connections are open and requests are sent."""
        self.give_up_at: float | None = None
        """When the grace period ends; None before the first Ctrl-C."""
        self.aborted = False
        self.leave_at = 0.0
        self.broken: str | None = None
        self.dead: set[int] = set()
        self.server: str | None = None

    def _begin(
        self, worker: int, tag: int, attempt: int, start_ns: int | None, server: int, scheduled_ns: int | None
    ) -> ResponseDecoder:
        point = self.point
        record = RequestRecord(
            run_id=self.run_id,
            point_id=point.point_id,
            request_id=f"{point.point_id}/{tag}",
            worker=worker,
            warmup=point.warmup,
            attempt=attempt,
            model=self.model,
            reasoning_effort=point.reasoning_effort,
            parallel=point.parallel,
            scheduled_ns=scheduled_ns,
            start_ns=start_ns,
            url=self.reading.url(server),
        )
        return self.reading.decoder(record, on_shape=self._on_shape)

    def _on_shape(self, shape: Shape) -> None:
        """A decoder has learned a shape; not where texts are needed to count tokens."""
        if self.reading.count_tokens is None:
            self.shapes.add(shape)

    def _end(self, tag: int, decoder: ResponseDecoder, record: RequestRecord) -> None:
        self.server = decoder.reply.server or self.server
        self.listener.record(record)
