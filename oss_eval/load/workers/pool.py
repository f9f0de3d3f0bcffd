"""The main process's side of a sweep: starts the worker processes and decodes their reads into records.

The main process never touches a measured socket. It may be busy decoding, writing Parquet or drawing a
progress bar: timestamps are taken by the kernel, and the workers continue meanwhile.
"""

from __future__ import annotations

import selectors
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Any

from oss_eval.errors import UsageError
from oss_eval.load.client_stats import ClientStats
from oss_eval.load.mix import MixPart
from oss_eval.load.plan import Point
from oss_eval.load.schedule.closed_loop import ClosedLoop
from oss_eval.load.schedule.open_loop import OpenLoop
from oss_eval.load.workers.in_flight import InFlight
from oss_eval.load.workers.measured import Measured
from oss_eval.load.workers.messages import (
    STOPPED,
    Batch,
    Done,
    Finish,
    Go,
    Learn,
    More,
    NextTurn,
    Prepare,
    Ready,
    Setup,
    Stop,
)
from oss_eval.load.workers.point_state import FollowUp, Listener, PointState
from oss_eval.load.workers.process import Limits, WorkerProcess
from oss_eval.load.workers.request_parts import FEWEST, RequestParts
from oss_eval.probe import file_limits
from oss_eval.probe.decode import ResponseDecoder
from oss_eval.probe.decode_options import DecodeOptions
from oss_eval.probe.known_events import KnownShapes
from oss_eval.probe.target import Target
from oss_eval.records import RequestRecord
from oss_eval.system.environment import usable_cores
from oss_eval.system.signals import Interrupts

RECEIVE_BYTES = 1 << 20
BASE_BITS = 32
"""A request's tag is the number of its point in the run, shifted by so many bits, and its own number."""
PLAN_NS = 20_000_000
"""An open loop starts so long after its workers are told."""
SETTLED_SECONDS = 0.5
"""Workers report starts within this time."""
OVER = "the point was over"
IDLE_SECONDS = 0.25
"""Seconds between calls of `Listener.idle` and checks for overdue requests."""
ABORT_SECONDS = 0.4
"""Workers get so long to report cancelled requests."""


@dataclass(slots=True)
class PointOutcome:
    """Statistics of the workers for a point, and why it ended early, if it did."""

    workers: list[Done] = field(default_factory=list)
    main_cpu_seconds: float = 0.0
    broken: str | None = None
    """Why the point ended early."""
    server: str | None = None
    """The Server header of the replies."""
    most_in_flight: int = 0
    """Requests in flight at most, as seen from time to time."""
    lost: list[str] = field(default_factory=list)
    """Workers that the point went on without: who, and why."""

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
    """Raise UsageError if a point needs more connections a process than this system lets it open files. An open
    loop opens as many as it needs."""
    for point in points:
        connections = -(-(point.parallel or 1) // point.workers) * servers
        hard = file_limits.lacking(connections)
        if hard is not None:
            raise UsageError(
                f"{connections} connections a worker process are needed, and this system lets a process open "
                f"{hard} files",
                f"raise the limit (ulimit -Hn), or spread the load: --workers {2 * point.workers}",
            )


StartWorker = Callable[[int, Setup], Any]
"""(number, setup) -> a worker with the interface of WorkerProcess."""


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
        keep_text: bool = False,
        start: StartWorker = WorkerProcess,
    ) -> None:
        """`interrupts`: those of the whole run; `keep_text`: whether a point has conversations; `start` starts a
        worker, by default on this machine."""
        self._keep_text = keep_text
        if keep_text:
            import numpy as np  # noqa: F401 (the first answer should not wait for it)
        self.run_id = run_id
        self._interrupts = interrupts
        self._limits = limits
        self._shapes = KnownShapes()
        self._reading = reading or DecodeOptions()
        self._workers = [
            start(
                n, Setup(n, targets, run_id, limits.connect, limits.read, limits.total, self._reading.most_bytes)
            )
            for n in range(workers)
        ]
        self._selector = selectors.DefaultSelector()
        for worker in self._workers:
            self._selector.register(worker.socket, selectors.EVENT_READ, worker)
        self._scratch = tempfile.TemporaryDirectory(prefix="oss-eval-")
        self._replies = InFlight(self._begin, self._end, self._shapes)
        self._states: dict[int, PointState] = {}
        """Of the points whose requests may be in flight."""
        self._latest = 0
        self._kept = False
        """Whether load goes on after the last point."""
        self._gone: set[int] = set()
        """Workers that have ended."""

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self._replies.lose("cancelled", OVER)
        self._selector.close()
        for worker in self._workers:
            worker.close(ABORT_SECONDS / len(self._workers) if self._interrupts.count > 1 else 3.0)
        self._scratch.cleanup()

    def run_point(
        self,
        point: Point,
        model: str,
        requests: Iterator[tuple[bytes, int]],
        listener: Listener,
        numbers: Sequence[int] | None = None,
        schedule: ClosedLoop | OpenLoop | None = None,
        hand_over: Callable[[], bool] = lambda: False,
        enough: Callable[[], bool] | None = None,
        next_turn: FollowUp | None = None,
        part_of: Callable[[int], MixPart] | None = None,
    ) -> PointOutcome:
        """Carry out one point: the measured requests that it plans, of the endless `requests`, given as (body,
        planned start in ns after the start of the point); with `numbers`, only these. `schedule` is by default a
        closed loop of `point.parallel`.

        Where load is kept up, it goes on until the next point begins if `hand_over` says so at the end of this
        one; `enough` ends the point early.

        On Ctrl-C or SIGTERM nothing more is sent, and what is in flight gets the grace of the limits to finish; on
        a second one it is given up. All of it is recorded either way. The same if a worker dies, without the
        grace.
        """
        schedule = schedule or ClosedLoop(point.parallel or 1)
        slots = schedule.slots if isinstance(schedule, ClosedLoop) else None
        chosen = None if numbers is None else tuple(sorted(numbers))
        if chosen is not None:
            wanted = set(chosen)
            requests = (one for number, one in zip(count(), requests) if number in wanted)
        planned = _planned(point, len(chosen) if chosen is not None else point.number, requests)
        parts = RequestParts(Path(self._scratch.name), point.point_id, planned, slots)
        try:
            return self._run(
                point, model, parts, schedule, listener, chosen, hand_over, enough, next_turn, part_of
            )
        finally:
            parts.close()

    def _run(
        self,
        point: Point,
        model: str,
        parts: RequestParts,
        schedule: ClosedLoop | OpenLoop,
        listener: Listener,
        numbers: tuple[int, ...] | None,
        hand_over: Callable[[], bool],
        enough: Callable[[], bool] | None,
        next_turn: FollowUp | None,
        part_of: Callable[[int], MixPart] | None,
    ) -> PointOutcome:
        slots = schedule.slots if isinstance(schedule, ClosedLoop) else None
        file = parts.first((point.number or 4 * (slots or FEWEST)) + point.warmup_requests + (slots or 0))
        kept = self._kept or point.keeps_load
        alive = [worker for worker in self._workers if worker.number not in self._gone]
        used = alive[: point.workers if kept else min(point.workers, slots or point.workers)]
        cpu, self._latest = time.process_time(), self._latest + 1
        base = self._latest << BASE_BITS
        seconds = point.duration if slots is not None and not point.keeps_load else None
        for position, worker in enumerate(used):
            worker.send(
                Prepare(
                    point.point_id, base, position, len(used), schedule, file, parts.last, parts.counter, seconds,
                    numbers,
                )
            )  # fmt: skip
        with self._interrupts.deferred():
            state = PointState(
                self.run_id, point, model, listener, self._reading, self._interrupts, self._shapes,
                self._replies.tokens,
            )  # fmt: skip
            state.enough, state.hands_over, state.parts = enough, hand_over, parts
            state.part_of, state.base = part_of, base
            state.next_turn, state.keep_text, state.send = next_turn, self._keep_text, self._send_turn
            self._states[self._latest] = state
            for _ in self._collect(used, Ready, state):
                pass
            state.start_ns = time.time_ns() + (PLAN_NS if slots is None else 0)
            state.measured = Measured(point, state.start_ns)
            for worker in used:
                worker.send(Go(state.start_ns))
            end = PointOutcome(workers=[done for _, done in self._collect(used, Done, state)])
            self._kept = state.hand_over and not state.aborted
            if state.aborted:
                self._replies.lose("cancelled", state.broken or STOPPED)
        end.server, end.broken = state.server, state.broken
        end.most_in_flight, end.lost = state.most_in_flight, state.lost
        end.main_cpu_seconds = time.process_time() - cpu
        if not self._kept:
            self._states.clear()
        return end

    def _send_turn(self, worker: int, turn: NextTurn) -> None:
        self._workers[worker].send(turn)

    def _begin(
        self, worker: int, tag: int, attempt: int, start_ns: int | None, server: int, scheduled_ns: int | None
    ) -> ResponseDecoder:
        state, number = self._states[tag >> BASE_BITS], tag & (1 << BASE_BITS) - 1
        return state.begin(worker, number, attempt, start_ns, server, scheduled_ns)

    def _end(self, tag: int, decoder: ResponseDecoder, record: RequestRecord) -> None:
        self._states[tag >> BASE_BITS].end(decoder, record)

    def _collect(
        self, used: list[WorkerProcess], kind: type, state: PointState
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
                        self._replies.take(worker.number, message)
                        if message.latest_seen_ns is not None:
                            age = (time.time_ns() - message.latest_seen_ns) / 1e9
                            known[worker] = max(known.get(worker, 0.0), min(looked, time.monotonic() - age))
                    elif isinstance(message, kind):
                        waiting.discard(worker)
                        yield worker, message
            if state.begun:
                self._go_on(used, state)
            for shape in self._shapes.new:
                for worker in self._workers:
                    worker.send(Learn(shape.parts))
            self._shapes.new.clear()
            now = time.monotonic()
            if now >= next_idle:
                state.most_in_flight = max(state.most_in_flight, len(self._replies))
                next_idle = now + IDLE_SECONDS
                reason = state.listener.idle(len(self._replies), self._replies.tokens - state.tokens_before)
                state.broken = state.broken or reason
                # A request is not overdue while its tokens wait in our own queue, behind a slow disk or a merge of
                # parts.
                until = min(known.values(), default=now)
                for number, what in self._replies.overdue(self._limits.first_token, self._limits.read, until):
                    self._workers[number].send(what)

    def _go_on(self, used: list[WorkerProcess], state: PointState) -> None:
        """Send the workers further requests when it is time; end the point when what it measures has ended."""
        assert state.measured is not None
        assert state.parts is not None
        now = time.time_ns()
        # Workers of other machines have counters of their own.
        reached = state.reached if used[0].expendable else 0
        further = None if state.finishing else state.parts.further((now - state.start_ns) / 1e9, reached)
        if further is not None:
            for worker in used:
                worker.send(More(state.point.point_id, further, state.parts.last))
        if state.enough is not None and not state.measured.closed and state.enough():
            state.measured.closed = True
        over = state.point.keeps_load or state.measured.closed
        if over and not state.finishing and state.measured.complete(now - int(SETTLED_SECONDS * 1e9)):
            state.finishing, state.hand_over = True, state.point.keeps_load and state.hands_over()
            for worker in used:
                worker.send(Finish() if state.hand_over else Stop(abort=True, why=OVER))

    def _worker_died(self, worker: WorkerProcess, state: PointState) -> None:
        """A worker has died: what it had in flight is lost. The point goes on without one of another machine."""
        self._selector.unregister(worker.socket)
        state.dead.add(worker.number)
        self._gone.add(worker.number)
        code = worker.process.wait()
        if not worker.expendable or len(self._gone) == len(self._workers):
            state.broken = f"worker process {worker.number} ended unexpectedly (exit code {code})"
            self._replies.lose("cancelled", state.broken, worker.number)
            return
        reason = f"worker {worker.number} was lost: {code}"
        state.lost.append(reason)
        self._replies.lose("client", reason, worker.number)

    def _stop(self, used: list[WorkerProcess], state: PointState) -> bool:
        """Tell the workers when the point has to end; whether to stop waiting for them."""
        now, asked = time.monotonic(), state.interrupts.count
        if asked and state.give_up_at is None:
            state.give_up_at = now + (self._limits.grace if state.begun else 0.0)
            for worker in used:
                worker.send(Stop())
            if asked == 1 and state.begun:
                state.listener.stopping(len(self._replies))
        late = state.give_up_at is not None and now >= state.give_up_at
        if (asked > 1 or late or state.broken) and not state.aborted:
            state.aborted, state.leave_at = True, now + (ABORT_SECONDS if asked > 1 else 10 * ABORT_SECONDS)
            for worker in used:
                worker.send(Stop(abort=True, why=state.broken or STOPPED))
        elif asked > 1 and state.aborted:
            state.leave_at = min(state.leave_at, now + ABORT_SECONDS)
        return state.aborted and now >= state.leave_at


def _planned(
    point: Point, number: int | None, requests: Iterator[tuple[bytes, int]]
) -> Iterator[tuple[bytes, int]]:
    """The requests of a point; those after its measured ones only where load is kept up."""
    if point.keeps_load:
        return requests
    if point.rate is not None and point.duration is not None:
        until = point.duration * 1e9
        return takewhile(lambda request: request[1] < until, requests)
    return requests if number is None else islice(requests, number)
