"""Asks and scores the samples of a benchmark run in threads, and stores what they return."""

from __future__ import annotations

import contextlib
import os
import queue
import time
from typing import Any

from oss_eval.analysis.checks import ClockWatch
from oss_eval.bench.allocation import Allocation, Budget
from oss_eval.bench.client import BenchContext, SampleClient, SampleStopped
from oss_eval.bench.concurrency import ConcurrencyLimit, ConcurrencyTuner
from oss_eval.bench.liveness import RunMonitor
from oss_eval.bench.plan import BenchPoint, SampleJob
from oss_eval.bench.scoring.judge import KEY as JUDGE_KEY
from oss_eval.bench.scoring.score_sample import sample_record
from oss_eval.bench.scoring.scorer_process import ScorerProcess
from oss_eval.bench.thread_pool import ThreadPool
from oss_eval.config.bench_task import BenchTask
from oss_eval.endpoint.adaptation import RequestAdapter
from oss_eval.endpoint.capabilities import request_capabilities
from oss_eval.endpoint.server import Server
from oss_eval.errors import OssEvalError
from oss_eval.load.client import RequestClient
from oss_eval.load.generation import generation
from oss_eval.records import RequestRecord, SampleRecord
from oss_eval.run.lifecycle import OpenRun, RunResult, stopping
from oss_eval.run.options import RunOptions, limits
from oss_eval.run.progress import Progress

ABORT_SECONDS = 0.3
"""Threads get so long to end after a second Ctrl-C."""
STOP_SECONDS = 3.0
"""Samples that are being scored when the run is stopped may end within this time."""
SPARE_THREADS = 32
"""Threads beyond the requests in flight: for samples that are being scored meanwhile."""


class Executor:
    """Gets the answers of a run. Threads ask and score; the main thread alone writes."""

    def __init__(
        self,
        task: BenchTask,
        server: Server,
        options: RunOptions,
        scorers: ScorerProcess,
        run: OpenRun,
        progress: Progress,
    ) -> None:
        """`task` is the run's first one: its endpoint, concurrency, retries and timeouts hold for all."""
        self._task, self._server, self._options, self._scorers = task, server, options, scorers
        self._writer, self._interrupts, self._progress = run.writer, run.interrupts, progress
        self.monitor = RunMonitor(server, run.writer)
        self.clock = ClockWatch()
        auto = task.parallel == "auto"
        self._concurrency = ConcurrencyLimit(ConcurrencyTuner.START if task.parallel == "auto" else task.parallel)
        self._threads = (ConcurrencyTuner.MOST if auto else self._concurrency.limit) + SPARE_THREADS
        self._tuner: ConcurrencyTuner | None = None
        self._tokens_before = 0
        self._allocation: Allocation | None = None
        """Of the point in progress."""
        self._results: queue.Queue[SampleRecord | RequestRecord | BaseException] = queue.Queue()

    def concurrency_reached(self) -> dict[str, Any]:
        """The manifest's `parallel`."""
        return {
            "asked": self._task.parallel,
            "most_in_flight": self._concurrency.most,
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
        task, server = self._task, self._server
        self._allocations, self._budget = allocations, budget
        adapter = RequestAdapter(
            request_capabilities(server, task),
            lambda note: self._progress.say(f"the server refuses a field: {note}"),
            until_first_answer=True,
        )
        with (
            RequestClient(
                self._writer.run_id, server.targets(), limits(task), server.reading(task), server.secrets
            ) as client,
            self._progress,
        ):
            context = BenchContext(
                client, self._concurrency, task.retries, server.model, self._writer.run_id, server.endpoint.api,
                adapter, on_record=self._results.put,
            )  # fmt: skip
            if task.parallel == "auto":
                self._tuner = ConcurrencyTuner(self._concurrency, lambda: client.tokens)
                context.on_refusal = self._tuner.refused
            threads = ThreadPool[SampleJob](self._threads, lambda job: self._work(job, context))
            context.blocking = threads.blocking
            with self._interrupts.deferred():
                try:
                    self._run_points(points, todo, threads, client)
                    if self._interrupts.count == 1:
                        self._drain(context, threads, client)
                finally:
                    self._stop(context, threads, client)
        endpoint = {**self._writer.manifest["endpoint"], "server": context.server}
        self._writer.write_manifest(endpoint=endpoint, request=adapter.capabilities.as_manifest())
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

    # -- the main thread -------------------------------------------------------------------------------

    def _run_points(
        self,
        points: list[BenchPoint],
        todo: list[SampleJob],
        threads: ThreadPool[SampleJob],
        client: RequestClient,
    ) -> None:
        """One point after the other: efforts that shared the server would share each other's latency."""
        for point in points:
            jobs = [job for job in todo if job.point_id == point.point_id]
            if not jobs or self._ends:
                continue
            self._tokens_before = client.tokens
            self.monitor.begin()
            self._progress.note = ""
            title = " ".join(filter(None, (point.task, point.reasoning_effort)))
            self._progress.start(title, len(jobs))
            self._allocation = self._allocations.get(point.point_id)
            if self._allocation is not None:
                if self._budget is not None:
                    waiting = {job.point_id for job in todo}
                    self._budget.begin(sum(p.point_id in waiting for p in points[points.index(point) :]))
                self._ask_as_needed(point, self._allocation, threads, client)
            else:
                threads.start(jobs)
                missing = len(jobs)
                while missing and not self._ends:
                    missing -= self._step(client)
            self._allocation = None
            self._progress.end()

    def _ask_as_needed(
        self,
        point: BenchPoint,
        allocation: Allocation,
        threads: ThreadPool[SampleJob],
        client: RequestClient,
    ) -> None:
        """Keep the slots busy with the answers that the allocation calls for, until it calls for no more."""
        budget, in_flight, short = self._budget, 0, False
        while not self._ends:
            limit = self._concurrency.limit
            ahead = limit + limit // 2 + 1 - in_flight
            # Not after every answer: what is best to ask next hardly changes, and takes time to compute.
            if not short and (in_flight == 0 or ahead > limit // 2 + limit // 4):
                room = ahead if budget is None else min(ahead, budget.room(in_flight))
                short = room == 0 and in_flight == 0
                jobs = allocation.next(room) if room else []
                threads.start(jobs)
                in_flight += len(jobs)
            if not in_flight:
                break
            in_flight -= self._step(client)
        reached = allocation.reached or ("the budget is spent" if short else None)
        point.until = {**(point.until or {}), "reached": reached, "half": allocation.half}

    @property
    def _ends(self) -> bool:
        return self.monitor.fatal is not None or self._interrupts.count > 0

    def _drain(self, context: BenchContext, threads: ThreadPool[SampleJob], client: RequestClient) -> None:
        """The first Ctrl-C: no sample starts any more, and requests in flight may finish."""
        context.draining.set()
        threads.clear()
        self._progress.say(stopping(self._concurrency.inside, self._options.grace))
        deadline = time.monotonic() + self._options.grace
        while self._interrupts.count == 1 and threads.busy and time.monotonic() < deadline:
            self._step(client)

    def _stop(self, context: BenchContext, threads: ThreadPool[SampleJob], client: RequestClient) -> None:
        """Cancel what is still in flight, wait a moment for the threads, store what they have returned."""
        context.draining.set()
        context.stopping.set()
        client.stop()
        deadline = time.monotonic() + STOP_SECONDS
        while threads.busy and self._interrupts.count < 2 and time.monotonic() < deadline:
            threads.stop(ABORT_SECONDS)
        threads.stop(ABORT_SECONDS)
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._results.get_nowait())
        self._progress.end()

    def _step(self, client: RequestClient) -> bool:
        """Wait a moment for a result, and do what is due; whether a sample has ended."""
        ended = False
        with contextlib.suppress(queue.Empty):
            item = self._results.get(timeout=0.1)
            ended = not isinstance(item, RequestRecord)
            self._take(item)
        if self._tuner is not None:
            self._tuner.look()
        self.clock.look(time.monotonic(), time.time(), time.monotonic())
        self._writer.flush_due()
        self._progress.idle(self._concurrency.inside, client.tokens - self._tokens_before)
        return ended

    def _take(self, item: SampleRecord | RequestRecord | BaseException) -> None:
        """Store a request or a sample that has ended; nothing else writes rows."""
        if isinstance(item, RequestRecord):
            item.text = item.reasoning_text = None  # the sample holds them
            self._writer.add(item)
            if self._budget is not None:
                self._budget.add(item)
            self.monitor.request(item)
        elif isinstance(item, SampleRecord):
            self._writer.add_sample(item)
            self.monitor.sample(item)
            self._progress.note = self.monitor.note
            if self._allocation is not None:
                self._allocation.add(item)
                if self._allocation.half is not None:
                    self._progress.note = f"score known to ±{self._allocation.half:.3f}"
            self._progress.done(item.status)
        elif isinstance(item, OssEvalError):
            self.monitor.fatal = self.monitor.fatal or item
        else:
            raise item

    # -- the threads -----------------------------------------------------------------------------------

    def _work(self, job: SampleJob, context: BenchContext) -> None:
        """Ask and score a sample; its record, or what it raised, goes to the main thread."""
        try:
            record = self._sample(job, context)
        except SampleStopped:
            if not context.draining.is_set():
                self._results.put(OssEvalError("a request was cancelled although the run is not being stopped"))
        except BaseException as error:  # noqa: BLE001 (raised in the main thread)
            self._results.put(error)
        else:
            self._results.put(record)

    def _sample(self, job: SampleJob, context: BenchContext) -> SampleRecord:
        if context.draining.is_set():
            raise SampleStopped
        sample, seed = job.sample, job.task.seed
        # Each epoch has a seed of its own: with the same one, all epochs would get the same answer.
        settings = generation(
            job.task, context.model, job.effort, seed=None if seed is None else seed + job.epoch - 1
        )
        name = f"{sample.subset}/{sample.sample_id}"
        client = SampleClient(context, job.point_id, name, sample.sample_id, job.epoch, settings)
        output, failure = None, None
        try:
            output = job.benchmark.answer(sample, client)
        except (SampleStopped, OssEvalError):
            raise
        except Exception as error:  # noqa: BLE001 (the server's or a benchmark's own: the sample failed, not the run)
            failure = error
        judged = contextlib.nullcontext() if job.task.judge_model is None else context.blocking()
        with judged:
            record = sample_record(job, context.run_id, context.model, client, output, failure, self._scorers)
        for text_field in ("unscored_reason", "error_message"):
            text = getattr(record, text_field)
            if text:
                setattr(record, text_field, self._redact(text))
        return record

    def _redact(self, text: str) -> str:
        """A server's or a judge's error text without the keys."""
        for key in (os.environ.get(JUDGE_KEY), os.environ.get("OPENAI_API_KEY")):
            text = text.replace(key, "***") if key else text
        return self._server.redact(text)
