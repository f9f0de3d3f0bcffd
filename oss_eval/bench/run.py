"""A benchmark run: every sample, epoch and effort asked, graded and stored; or what a stored run still lacks."""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from oss_eval.analysis.checks import ClockWatch
from oss_eval.bench import answer_key, remaining
from oss_eval.bench.client import BenchContext, SampleClient, SampleStopped
from oss_eval.bench.concurrency import ConcurrencyLimit, ConcurrencyTuner
from oss_eval.bench.liveness import RunMonitor
from oss_eval.bench.manifest import described
from oss_eval.bench.plan import BenchPoint, LoadedTask, Plan, SampleJob, generation, jobs, points
from oss_eval.bench.scoring.judge import KEY as JUDGE_KEY
from oss_eval.bench.scoring.score_sample import sample_record
from oss_eval.bench.scoring.scorer_process import ScorerProcess
from oss_eval.bench.sources.custom import CustomBenchmark
from oss_eval.bench.thread_pool import ThreadPool
from oss_eval.bench.types import Benchmark
from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.capabilities import request_capabilities
from oss_eval.endpoint.discovery import choose_model, reach
from oss_eval.endpoint.endpoint import parse_url
from oss_eval.endpoint.server import Server, describe_server, resolve_endpoints, simulator_behind
from oss_eval.errors import OssEvalError, RunFailed, StoreError
from oss_eval.load.client import RequestClient
from oss_eval.records import RequestRecord, SampleRecord
from oss_eval.run.lifecycle import RunResult, finish_run, quarantined_parts, resume_hint, stopping
from oss_eval.run.options import RunOptions, limits
from oss_eval.run.progress import Progress
from oss_eval.run.resume import check_server
from oss_eval.simulator.process import parse_sim_url, running
from oss_eval.system.signals import Interrupts

if TYPE_CHECKING:  # a mistake of the user's should not wait for what writes Parquet
    from oss_eval.results.writer import RunWriter

ABORT_SECONDS = 0.3
"""The same after a second Ctrl-C."""
STOP_SECONDS = 3.0
"""What is being graded when the run is stopped may end within this time."""
SPARE_THREADS = 32
"""Samples beyond those in flight: being graded while others are asked."""


def run(plans: list[Plan], options: RunOptions, resumed: Path | None = None) -> RunResult:
    """Carry out benchmarks and store them as one run; with `resumed`, add what that stored run lacks.

    Raises OssEvalError for what the user can put right before anything is asked. Ctrl-C ends the run early with
    every finished sample stored, or is raised on when nothing was answered.
    """
    from oss_eval.results.writer import RunWriter, new_run_id

    first = plans[0].task
    simulator, endpoints = resolve_endpoints(first, options.auth)
    with Interrupts() as interrupts, contextlib.ExitStack() as stack:
        if simulator:
            model = first.model or parse_sim_url(simulator).profile.model
        else:
            for endpoint in endpoints:
                reach(endpoint, first.connect_timeout)
            model = choose_model(endpoints[0], first.model)
        writer = None if resumed is None else RunWriter.reopen(resumed)  # locked from here on
        bench: _Bench | None = None
        try:
            known = simulator
            if endpoints:
                known = simulator_behind(endpoints[0], first.connect_timeout)
            if writer is not None:
                check_server(writer.manifest, first, model, simulator, endpoints, known is not None)
            scorers = ScorerProcess()
            stack.callback(scorers.close)
            scorers.warm_up()
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oss-eval-bench-")))
            loaded_tasks: list[LoadedTask] = []
            for plan in plans:
                benchmark = open_benchmark(plan, model, scorers, options.auth, scratch)
                stack.callback(benchmark.close)
                loaded_tasks.append(LoadedTask(plan, benchmark, benchmark.samples()))
            found = points(loaded_tasks, [] if writer is None else remaining.stored_points(writer.manifest))
            todo = jobs(loaded_tasks, found)
            if writer is None:
                writer = RunWriter(options.out, new_run_id("bench", options.name or model), {"kind": "bench"})
            else:
                todo = remaining.missing(writer.path, todo)
            if simulator:
                key = writer.path / "answers.jsonl"
                answer_key.write(key, [sample for loaded in loaded_tasks for sample in loaded.samples])
                url = stack.enter_context(running(simulator, writer.path / "truth.jsonl", key))
                endpoints = (parse_url(url, first.api),)
            server = Server(endpoints, model, known, started=simulator is not None)
            bench = _Bench(loaded_tasks, options, server, writer, scorers, found, interrupts)
            changes = described(loaded_tasks, found, server, options, writer.manifest, writer.session)
            if not todo:  # nobody is asked, so nothing is said of who was
                changes = {key: changes[key] for key in ("tasks", "points")}
            writer.write_manifest(status="running", **changes)
            result = RunResult(writer.path, "finished")
            if todo:
                result = bench.ask(todo)
        except StoreError as error:
            _abandon(writer, bench, interrupts)
            if bench is None or not bench.monitor.answered:
                raise
            assert writer is not None
            raise RunFailed(error.message, resume_hint(writer.path)) from None
        except KeyboardInterrupt:
            if writer is None or bench is None or not bench.monitor.answered:
                _abandon(writer, bench, interrupts)
                raise
            result = RunResult(writer.path, "interrupted", "interrupted")
        except BaseException:
            _abandon(writer, bench, interrupts)
            raise
        return finish_run(writer, result, interrupts, bench.store, stack)


def _abandon(writer: RunWriter | None, bench: _Bench | None, interrupts: Interrupts) -> None:
    """Whatever went wrong, answers stay; a run without any goes, or is again what it was before it was resumed."""
    if writer is None:
        return
    with interrupts.counted():
        if bench is None or not bench.monitor.heard or (writer.session == 1 and not bench.monitor.answered):
            writer.undo()
        else:  # there may be rows that its summary does not know
            with contextlib.suppress(StoreError):  # a full disk: what is stored is stored
                writer.leave()


def open_benchmark(plan: Plan, model: str, scorers: ScorerProcess, auth: Auth, scratch: Path) -> Benchmark:
    """The benchmark of a task. Raises OssEvalError for what it lacks."""
    task = plan.task
    if task.benchmark is None:
        return CustomBenchmark(task, plan.folder, scorers, auth)
    from oss_eval.bench.sources.evalscope import EvalScopeBenchmark

    return EvalScopeBenchmark(task, model, scorers, auth, scratch / task.name)


class _Bench:
    """One run under way."""

    def __init__(
        self,
        loaded_tasks: list[LoadedTask],
        options: RunOptions,
        server: Server,
        writer: RunWriter,
        scorers: ScorerProcess,
        found: list[BenchPoint],
        interrupts: Interrupts,
    ) -> None:
        self.loaded_tasks, self.options, self.server = loaded_tasks, options, server
        self.writer, self.scorers, self.points = writer, scorers, found
        self.interrupts = interrupts
        self.first = loaded_tasks[0].plan.task
        self.progress = Progress(options.log_every)
        self.monitor = RunMonitor(server, writer)
        self.clock = ClockWatch()
        self.concurrency = ConcurrencyLimit(
            ConcurrencyTuner.START if self.first.parallel == "auto" else self.first.parallel
        )
        self.tuner: ConcurrencyTuner | None = None
        self._tokens_before = 0
        self._results: queue.Queue[SampleRecord | RequestRecord | BaseException] = queue.Queue()

    # -- asking ----------------------------------------------------------------------------------------

    def ask(self, todo: list[SampleJob]) -> RunResult:
        """Get all answers; how that ended. Every finished sample is stored when this returns."""
        task, server = self.first, self.server
        self.progress.say(describe_server(server, bool(task.url)))
        self._announce(todo)
        for line in quarantined_parts(self.writer):
            self.progress.say(line)
        most = ConcurrencyTuner.MOST if task.parallel == "auto" else task.parallel
        self.capabilities = request_capabilities(server, task)
        with (
            RequestClient(self.writer.run_id, server.targets(), limits(task), server.reading(task)) as client,
            self.progress,
        ):
            context = BenchContext(
                client,
                self.concurrency,
                task.retries,
                server.model,
                self.writer.run_id,
                server.endpoint.api,
                self.capabilities,
                lambda note: self.progress.say(f"the server refuses a field: {note}"),
                redact=server.redact,
                seen=self._results.put,
            )
            if task.parallel == "auto":
                self.tuner = ConcurrencyTuner(self.concurrency, lambda: client.tokens)
                context.refused = self.tuner.refused
            threads = ThreadPool[SampleJob](most + SPARE_THREADS, lambda job: self._one(job, context))
            context.blocking = threads.blocking
            interrupts = self.interrupts
            with interrupts.counted():
                try:
                    for point in self.points:
                        # One after the other: efforts that shared the server would share each other's latency.
                        stretch = [job for job in todo if job.point_id == point.point_id]
                        if stretch and self.monitor.fatal is None and not interrupts.count:
                            self._begin(point, len(stretch), client.tokens)
                            threads.start(stretch)
                            self._collect(len(stretch), client)
                            self.progress.end()
                    if interrupts.count == 1:
                        self._drain(context, threads, client)
                finally:
                    context.draining.set()
                    context.stopping.set()
                    client.stop()
                    deadline = time.monotonic() + STOP_SECONDS
                    while threads.busy and interrupts.count < 2 and time.monotonic() < deadline:
                        threads.stop(ABORT_SECONDS)
                    threads.stop(ABORT_SECONDS)
                    with contextlib.suppress(queue.Empty):
                        while True:
                            self._take(self._results.get_nowait())
                    self.progress.end()
        self._note_server(context)
        if self.monitor.fatal is not None and not self.monitor.answered:
            raise self.monitor.fatal
        if interrupts.count:
            if not self.monitor.done:
                raise KeyboardInterrupt
            return RunResult(self.writer.path, "interrupted", "interrupted")
        if self.monitor.fatal is not None:
            return RunResult(self.writer.path, "failed", self.monitor.fatal.message)
        return RunResult(self.writer.path, "finished")

    def _drain(self, context: BenchContext, threads: ThreadPool[SampleJob], client: RequestClient) -> None:
        """The first Ctrl-C: nothing more is begun, and what is in flight may finish."""
        context.draining.set()
        threads.clear()
        self.progress.say(stopping(self.concurrency.inside, self.options.grace))
        deadline = time.monotonic() + self.options.grace
        while self.interrupts.count == 1 and threads.busy and time.monotonic() < deadline:
            self._step(client)

    def _begin(self, point: BenchPoint, number: int, tokens: int) -> None:
        self._tokens_before = tokens
        self.monitor.begin()
        self.progress.note = ""
        self.progress.start(" ".join(filter(None, (point.task, point.reasoning_effort))), number)

    def _collect(self, expected: int, client: RequestClient) -> None:
        left = expected
        while left and self.monitor.fatal is None and not self.interrupts.count:
            left -= self._step(client)

    def _step(self, client: RequestClient) -> bool:
        """Wait a moment for what is over, and look after everything else; whether a sample is."""
        ended = False
        with contextlib.suppress(queue.Empty):
            item = self._results.get(timeout=0.1)
            ended = not isinstance(item, RequestRecord)
            self._take(item)
        if self.tuner is not None:
            self.tuner.look()
        self.clock.look(time.monotonic(), time.time(), time.monotonic())
        self.writer.flush_due()
        self.progress.idle(self.concurrency.inside, client.tokens - self._tokens_before)
        return ended

    def _take(self, item: SampleRecord | RequestRecord | BaseException) -> None:
        """A request or a sample is over; the only place that writes."""
        if isinstance(item, RequestRecord):
            item.text = item.reasoning_text = None  # the sample holds them
            self.writer.add(item)
            self.monitor.request(item)
        elif isinstance(item, SampleRecord):
            self.writer.add_sample(item)
            self.monitor.sample(item)
            self.progress.note = self.monitor.note
            self.progress.done(item.status)
        elif isinstance(item, OssEvalError):
            self.monitor.fatal = self.monitor.fatal or item
        else:
            raise item

    def _one(self, job: SampleJob, context: BenchContext) -> None:
        """A sample from question to grade, in its own thread."""
        try:
            record = self._sample(job, context)
        except SampleStopped:
            if not context.draining.is_set():
                self._results.put(OssEvalError("a request was given up, and nobody had asked for it"))
            return
        except BaseException as error:  # noqa: BLE001 (raised on in the main thread)
            self._results.put(error)
            return
        self._results.put(record)

    def _sample(self, job: SampleJob, context: BenchContext) -> SampleRecord:
        if context.draining.is_set():
            raise SampleStopped
        sample = job.sample
        wanted = generation(job.task, context.model, job.effort, job.epoch)
        name = f"{sample.subset}/{sample.sample_id}"
        client = SampleClient(context, job.point_id, name, sample.sample_id, job.epoch, wanted)
        output, failure = None, None
        try:
            output = job.benchmark.answer(sample, client)
        except (SampleStopped, OssEvalError):
            raise
        except Exception as error:  # noqa: BLE001 (the server's or a benchmark's own: the sample failed, not the run)
            failure = error
        judged = contextlib.nullcontext() if job.task.judge_model is None else context.blocking()
        with judged:
            record = sample_record(job, context.run_id, context.model, client, output, failure, self.scorers)
        for name in ("unscored_reason", "error_message"):
            text = getattr(record, name)
            if text:
                setattr(record, name, self._redact(text))
        return record

    def _redact(self, text: str) -> str:
        """Other people's words without our keys."""
        for key in (os.environ.get(JUDGE_KEY), os.environ.get("OPENAI_API_KEY")):
            text = text.replace(key, "***") if key else text
        return self.server.redact(text)

    # -- words -----------------------------------------------------------------------------------------

    def _announce(self, todo: list[SampleJob]) -> None:
        for point in self.points:
            effort = f" {point.reasoning_effort}" if point.reasoning_effort else ""
            times = f" x {point.repeats}" if point.repeats > 1 else ""
            left = sum(job.point_id == point.point_id for job in todo)
            rest = f", {left} still to ask" if left != point.number else ""
            samples = "sample" if point.samples == 1 else "samples"
            self.progress.say(f"{point.task}{effort}: {point.samples} {samples}{times}{rest}")

    def _note_server(self, context: BenchContext) -> None:
        """What the server calls itself, and what it was really sent."""
        endpoint = {**self.writer.manifest["endpoint"], "server": context.server}
        self.writer.write_manifest(endpoint=endpoint, request=context.capabilities.described())

    # -- the end ---------------------------------------------------------------------------------------

    def store(self, result: RunResult) -> RunResult:
        """Close the run's files and write its summary; how the run ended. Raises StoreError."""
        from oss_eval.analysis.bench_summary import OVERALL, groups, summary_rows
        from oss_eval.results.reader import read_samples
        from oss_eval.results.writer import write_summary

        status, reason = result.status, result.reason
        self.writer.seal()
        found = groups(read_samples(self.writer.path), self.writer.manifest["endpoint"].get("prices"))
        limits = {loaded.plan.task.name: loaded.plan.task.max_failures for loaded in self.loaded_tasks}
        whole = [group for group in found if group.subset == OVERALL]
        bad = any(group.failed > group.samples * limits.get(group.task, 100) / 100 for group in whole)
        if status == "finished" and (bad or any(group.scored == 0 for group in whole)):
            status, reason = "failed", "too many samples failed"
        write_summary(self.writer.path, summary_rows(self.writer.manifest, found))
        known = self.writer.manifest.get("run_checks", [])
        self.writer.finish(
            status,
            broke_off={"reason": reason} if status == "failed" else None,
            finished=datetime.now(UTC).isoformat(),
            parallel={
                "asked": self.first.parallel,
                "most_in_flight": self.concurrency.most,
                "levels": self.tuner.levels if self.tuner else None,
            },
            run_checks=[*known, *(asdict(finding) for finding in self.clock.findings())],
        )
        return replace(result, status=status, reason=reason)
