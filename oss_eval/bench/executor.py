"""Has the samples of a benchmark run asked and scored, and stores what comes of it."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable
from typing import Any

from oss_eval.analysis.checks import ClockWatch, Finding
from oss_eval.bench.allocation import Allocation, Budget
from oss_eval.bench.concurrency import ConcurrencyTuner
from oss_eval.bench.liveness import RunMonitor
from oss_eval.bench.plan import BenchPoint, SampleJob
from oss_eval.bench.sample_pool import Pool, PoolEvent, PoolSetup, Refused, Said, pool_setup
from oss_eval.config.bench_task import BenchTask
from oss_eval.endpoint.server import Server
from oss_eval.errors import OssEvalError
from oss_eval.records import RequestRecord, SampleRecord
from oss_eval.run.lifecycle import OpenRun, RunResult, stopping
from oss_eval.run.options import RunOptions
from oss_eval.run.progress import Progress

ABORT_SECONDS = 0.3
"""Threads get so long to end after a second Ctrl-C."""
STOP_SECONDS = 3.0
"""Samples that are being scored when the run is stopped may end within this time."""
MakePool = Callable[[PoolSetup, "queue.Queue[PoolEvent]"], Pool]


class Executor:
    """Gets the answers of a run. A pool asks and scores; the main thread alone writes."""

    def __init__(
        self,
        task: BenchTask,
        server: Server,
        options: RunOptions,
        run: OpenRun,
        progress: Progress,
        make_pool: MakePool,
    ) -> None:
        """`task` is the run's first one: its endpoint, concurrency, retries and timeouts hold for all."""
        self._task, self._server, self._options, self._make_pool = task, server, options, make_pool
        self._writer, self._interrupts, self._progress = run.writer, run.interrupts, progress
        self.monitor = RunMonitor(server, run.writer)
        self.clock = ClockWatch()
        self.findings: list[Finding] = []
        """Of the pool."""
        self._pool: Pool | None = None
        self._tuner: ConcurrencyTuner | None = None
        self._tokens_before = 0
        self._allocation: Allocation | None = None
        """Of the point in progress."""
        self._events: queue.Queue[PoolEvent] = queue.Queue()

    def concurrency_reached(self) -> dict[str, Any]:
        """The manifest's `parallel`."""
        return {
            "asked": self._task.parallel,
            "most_in_flight": self._pool.concurrency.most if self._pool else 0,
            "levels": self._tuner.levels if self._tuner else None,
        }

    def run(
        self,
        points: list[BenchPoint],
        todo: list[SampleJob],
        allocations: dict[str, Allocation],
        budget: Budget | None,
    ) -> RunResult:
        """Ask and score all samples, or, of the points in `allocations`, as many as these call for; returns how
        that ended. Finished samples are stored when this returns.

        Raises OssEvalError when nothing was answered, and KeyboardInterrupt when no sample has ended.
        """
        self._allocations, self._budget = allocations, budget
        setup = pool_setup(self._writer.run_id, self._task, self._server)
        with contextlib.closing(self._make_pool(setup, self._events)) as pool, self._progress:
            self._pool = pool
            if self._task.parallel == "auto":
                self._tuner = ConcurrencyTuner(pool.concurrency, lambda: pool.tokens)
            with self._interrupts.deferred():
                try:
                    self._run_points(points, todo, pool)
                    if self._interrupts.count == 1:
                        self._drain(pool)
                finally:
                    self._stop(pool)
        self.findings = pool.findings()
        endpoint = {**self._writer.manifest["endpoint"], "server": pool.server}
        self._writer.write_manifest(endpoint=endpoint, request=pool.capabilities.as_manifest())
        return self._result()

    def _result(self) -> RunResult:
        fatal = self.monitor.fatal
        if fatal is not None and not self.monitor.answered:
            raise fatal
        if self._interrupts.count:
            if not self.monitor.done:
                raise KeyboardInterrupt
            return RunResult(self._writer.path, "interrupted", "interrupted")
        if fatal is not None:
            return RunResult(self._writer.path, "failed", fatal.message)
        return RunResult(self._writer.path, "finished")

    def _run_points(self, points: list[BenchPoint], todo: list[SampleJob], pool: Pool) -> None:
        """One point after the other: efforts that shared the server would share each other's latency."""
        for point in points:
            jobs = [job for job in todo if job.point_id == point.point_id]
            if not jobs or self._ends:
                continue
            self._tokens_before = pool.tokens
            self.monitor.begin()
            self._progress.note = ""
            title = " ".join(filter(None, (point.task, point.reasoning_effort)))
            self._progress.start(title, len(jobs))
            self._allocation = self._allocations.get(point.point_id)
            if self._allocation is not None:
                if self._budget is not None:
                    waiting = {job.point_id for job in todo}
                    self._budget.begin(sum(p.point_id in waiting for p in points[points.index(point) :]))
                self._ask_as_needed(point, self._allocation, pool)
            else:
                pool.start(jobs)
                missing = len(jobs)
                while missing and not self._ends:
                    missing -= self._step(pool)
            self._allocation = None
            self._progress.end()

    def _ask_as_needed(self, point: BenchPoint, allocation: Allocation, pool: Pool) -> None:
        """Keep the slots busy with the answers that the allocation calls for, until it calls for no more."""
        budget, in_flight, short = self._budget, 0, False
        while not self._ends:
            limit = pool.concurrency.limit
            ahead = limit + limit // 2 + 1 - in_flight
            # Not after every answer: what is best to ask next hardly changes, and takes time to compute.
            if not short and (in_flight == 0 or ahead > limit // 2 + limit // 4):
                room = ahead if budget is None else min(ahead, budget.room(in_flight))
                short = room == 0 and in_flight == 0
                jobs = allocation.next(room) if room else []
                pool.start(jobs)
                in_flight += len(jobs)
            if not in_flight:
                break
            in_flight -= self._step(pool)
        reached = allocation.reached or ("the budget is spent" if short else None)
        point.until = {**(point.until or {}), "reached": reached, "half": allocation.half}

    @property
    def _ends(self) -> bool:
        return self.monitor.fatal is not None or self._interrupts.count > 0

    def _drain(self, pool: Pool) -> None:
        """The first Ctrl-C: no sample starts any more, and requests in flight may finish."""
        pool.drain()
        self._progress.say(stopping(pool.concurrency.inside, self._options.grace))
        deadline = time.monotonic() + self._options.grace
        while self._interrupts.count == 1 and pool.busy and time.monotonic() < deadline:
            self._step(pool)

    def _stop(self, pool: Pool) -> None:
        """Cancel what is still in flight, wait a moment for it to end, store what came of it."""
        pool.cancel()
        deadline = time.monotonic() + STOP_SECONDS
        while pool.busy and self._interrupts.count < 2 and time.monotonic() < deadline:
            pool.join(ABORT_SECONDS)
        pool.join(ABORT_SECONDS)
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._events.get_nowait())
        self._progress.end()

    def _step(self, pool: Pool) -> bool:
        """Wait a moment for an event, and do what is due; whether a sample has ended."""
        ended = False
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=0.1)
            ended = isinstance(event, (SampleRecord, BaseException))
            self._take(event)
        if self._tuner is not None:
            self._tuner.look()
        self.clock.look(time.monotonic(), time.time(), time.monotonic())
        self._writer.flush_due()
        self._progress.idle(pool.concurrency.inside, pool.tokens - self._tokens_before)
        return ended

    def _take(self, event: PoolEvent) -> None:
        """Store a request or a sample that has ended; nothing else writes rows."""
        if isinstance(event, RequestRecord):
            self._writer.add(event)
            if self._budget is not None:
                self._budget.add(event)
            self.monitor.request(event)
        elif isinstance(event, SampleRecord):
            self._writer.add_sample(event)
            self.monitor.sample(event)
            self._progress.note = self.monitor.note
            if self._allocation is not None:
                self._allocation.add(event)
                if self._allocation.half is not None:
                    self._progress.note = f"score known to ±{self._allocation.half:.3f}"
            self._progress.done(event.status)
        elif isinstance(event, Said):
            self._progress.say(event.line)
        elif isinstance(event, Refused):
            if self._tuner is not None:
                self._tuner.refused()
        elif isinstance(event, OssEvalError):
            self.monitor.fatal = self.monitor.fatal or event
        elif isinstance(event, BaseException):
            raise event
