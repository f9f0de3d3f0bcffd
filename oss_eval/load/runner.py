"""The calm side of a sweep: starts the worker processes, takes what they saw, decodes it into records.

The main process never touches a measured socket. It may be busy decoding, writing Parquet or drawing a
progress bar: instants were taken by the kernel, and the workers go on meanwhile.
"""

from __future__ import annotations

import selectors
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from oss_eval.config import Point
from oss_eval.errors import OssEvalError, UsageError
from oss_eval.interrupts import Interrupts
from oss_eval.load.messages import Batch, Done, GiveUp, Go, Prepare, Ready, Setup, Stop
from oss_eval.load.process import Limits, WorkerProcess
from oss_eval.load.replies import Reading, Replies
from oss_eval.load.shared import Budget, write_deck
from oss_eval.probe import descriptors
from oss_eval.probe.decode import ResponseDecoder
from oss_eval.probe.target import Target
from oss_eval.records import RequestRecord


class Listener(Protocol):
    """Who wants to know how a point goes; called on the main process's loop."""

    def record(self, record: RequestRecord) -> None:
        """A request is over."""

    def idle(self, in_flight: int, tokens: int) -> None:
        """Called several times a second: requests under way, token events of the point so far."""


@dataclass(slots=True)
class PointEnd:
    """What the workers say of a point beside its records."""

    workers: list[Done] = field(default_factory=list)
    main_cpu_seconds: float = 0.0
    interrupted: bool = False
    server: str | None = None
    """The Server header of the replies."""


def check_descriptors(points: list[Point]) -> None:
    """Raise UsageError if a point needs more connections a process than this system lets it open files."""
    for point in points:
        connections = -(-point.parallel // point.workers)
        hard = descriptors.lacking(connections)
        if hard is not None:
            raise UsageError(
                f"{connections} connections a worker process are needed, and this system lets a process open "
                f"{hard} files",
                f"raise the limit (ulimit -Hn), or spread the load: --workers {2 * point.workers}",
            )


class Fleet:
    """The worker processes of a run, one point at a time."""

    def __init__(
        self,
        run_id: str,
        targets: tuple[Target, ...],
        limits: Limits,
        workers: int = 1,
        reading: Reading | None = None,
    ) -> None:
        self.run_id = run_id
        self._limits = limits
        self._reading = reading or Reading()
        self._workers = [
            WorkerProcess(n, Setup(n, targets, run_id, limits.connect, limits.read, limits.total))
            for n in range(workers)
        ]
        self._selector = selectors.DefaultSelector()
        for worker in self._workers:
            self._selector.register(worker.socket, selectors.EVENT_READ, worker)
        self._scratch = tempfile.TemporaryDirectory(prefix="oss-eval-")

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *exc: object) -> None:
        self._selector.close()
        for worker in self._workers:
            worker.close()
        self._scratch.cleanup()

    def run_point(self, point: Point, model: str, bodies: Iterator[bytes], listener: Listener) -> PointEnd:
        """Carry out one point: `point.number` of the endless `bodies`, `point.parallel` at a time.

        On Ctrl-C or SIGTERM the workers give up what is in flight, all of it is recorded, and the end says that
        it was `interrupted`; a second one raises KeyboardInterrupt at once.
        """
        folder = Path(self._scratch.name)
        deck, budget = folder / f"{point.point_id}.deck", folder / f"{point.point_id}.budget"
        write_deck(deck, (next(bodies) for _ in range(point.number)))
        Budget(budget).close()
        used = self._workers[: min(point.workers, point.parallel)]
        cpu = time.process_time()
        for position, worker in enumerate(used):
            slots = len(range(position, point.parallel, len(used)))
            worker.send(Prepare(point.point_id, slots, point.number, deck, budget))
        end = PointEnd()
        with Interrupts() as interrupts:
            state = _PointState(self.run_id, point, model, listener, self._reading, interrupts)
            for _ in self._collect(used, Ready, state):
                pass
            for worker in used:
                worker.send(Go())
            for _, done in self._collect(used, Done, state):
                end.workers.append(done)
            end.interrupted = interrupts.count > 0
        deck.unlink()
        budget.unlink()
        end.server = state.server
        end.main_cpu_seconds = time.process_time() - cpu
        return end

    def _collect(
        self, used: list[WorkerProcess], kind: type, state: _PointState
    ) -> Iterator[tuple[WorkerProcess, Any]]:
        """One message of `kind` from each worker; batches that come meanwhile are decoded."""
        waiting = set(used)
        next_idle = 0.0
        while waiting:
            if state.interrupts.count and not state.stopped:
                state.stopped = True
                for worker in used:
                    worker.send(Stop(abort=True))
            for key, _ in self._selector.select(0.1):
                worker = key.data
                try:
                    data = worker.socket.recv(1 << 20)
                except ConnectionError:
                    data = b""
                if not data:
                    raise OssEvalError(
                        f"worker process {worker.number} ended unexpectedly (exit code {worker.process.wait()})",
                        "what was finished is stored; run the point again",
                    )
                for message in worker.inbox.feed(data):
                    if isinstance(message, Batch):
                        state.replies.take(worker.number, message)
                    elif isinstance(message, kind):
                        waiting.discard(worker)
                        yield worker, message
            now = time.monotonic()
            if now >= next_idle:
                next_idle = now + 0.1
                state.listener.idle(len(state.replies), state.replies.tokens)
                if self._limits.first_token is not None:
                    text = f"no token within {self._limits.first_token:g} s"
                    for number, tag in state.replies.silent(time.time_ns(), self._limits.first_token):
                        self._workers[number].send(GiveUp(tag, "timeout_first_token", text))


class _PointState:
    """Responses under way, and what becomes of the finished ones."""

    def __init__(
        self,
        run_id: str,
        point: Point,
        model: str,
        listener: Listener,
        reading: Reading,
        interrupts: Interrupts,
    ) -> None:
        self.run_id, self.point, self.model = run_id, point, model
        self.listener = listener
        self.reading = reading
        self.replies = Replies(self._begin, self._end)
        self.interrupts = interrupts
        self.stopped = False
        self.server: str | None = None

    def _begin(self, worker: int, tag: int, attempt: int, start_ns: int | None, server: int) -> ResponseDecoder:
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
            rate=None,
            scheduled_ns=None,
            start_ns=start_ns,
            url=self.reading.url(server),
        )
        return self.reading.decoder(record)

    def _end(self, tag: int, decoder: ResponseDecoder, record: RequestRecord) -> None:
        self.server = decoder.reply.server or self.server
        self.listener.record(record)
