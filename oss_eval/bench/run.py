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
from oss_eval.bench.client import Channel, Stopped, Voice
from oss_eval.bench.concurrency import Gate, Tuner
from oss_eval.bench.liveness import Tally
from oss_eval.bench.manifest import described
from oss_eval.bench.plan import Course, Job, Plan, Point, generation, jobs, points
from oss_eval.bench.scoring.judge import KEY as JUDGE_KEY
from oss_eval.bench.scoring.score_sample import sample_record
from oss_eval.bench.scoring.scorer_process import Grader
from oss_eval.bench.sources.custom import CustomBenchmark
from oss_eval.bench.thread_pool import Crew
from oss_eval.bench.types import Benchmark
from oss_eval.endpoint.auth import Access
from oss_eval.endpoint.capabilities import settle
from oss_eval.endpoint.discovery import choose_model, reach
from oss_eval.endpoint.endpoint import parse_url
from oss_eval.endpoint.server import Server, introduce, simulator_behind, whom_to_ask
from oss_eval.errors import BrokenOff, OssEvalError, StoreError
from oss_eval.load.client import Asker
from oss_eval.records import RequestRecord, SampleRecord
from oss_eval.run.lifecycle import Made, close, go_on, put_aside, stopping
from oss_eval.run.options import Order, limits
from oss_eval.run.progress import Progress
from oss_eval.run.resume import check_server
from oss_eval.simulator.process import parse_sim_url, running
from oss_eval.system.signals import Interrupts

if TYPE_CHECKING:  # a mistake of the user's should not wait for what writes Parquet
    from oss_eval.results.writer import RunWriter

HURRY_SECONDS = 0.3
"""The same after a second Ctrl-C."""
STOP_SECONDS = 3.0
"""What is being graded when the run is stopped may end within this time."""
SPARE_THREADS = 32
"""Samples beyond those in flight: being graded while others are asked."""


def run(plans: list[Plan], order: Order, resumed: Path | None = None) -> Made:
    """Carry out benchmarks and store them as one run; with `resumed`, add what that stored run lacks.

    Raises OssEvalError for what the user can put right before anything is asked. Ctrl-C ends the run early with
    every finished sample stored, or is raised on when nothing was answered.
    """
    from oss_eval.results.writer import RunWriter, new_run_id

    first = plans[0].task
    simulator, endpoints = whom_to_ask(first, order.access)
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
            grader = Grader()
            stack.callback(grader.close)
            grader.warm_up()
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oss-eval-bench-")))
            courses: list[Course] = []
            for plan in plans:
                benchmark = open_benchmark(plan, model, grader, order.access, scratch)
                stack.callback(benchmark.close)
                courses.append(Course(plan, benchmark, benchmark.questions()))
            found = points(courses, [] if writer is None else remaining.stored_points(writer.manifest))
            todo = jobs(courses, found)
            if writer is None:
                writer = RunWriter(order.out, new_run_id("bench", order.name or model), {"kind": "bench"})
            else:
                todo = remaining.missing(writer.path, todo)
            if simulator:
                key = writer.path / "answers.jsonl"
                answer_key.write(key, [question for course in courses for question in course.questions])
                url = stack.enter_context(running(simulator, writer.path / "truth.jsonl", key))
                endpoints = (parse_url(url, first.api),)
            server = Server(endpoints, model, known, started=simulator is not None)
            bench = _Bench(courses, order, server, writer, grader, found, interrupts)
            changes = described(courses, found, server, order, writer.manifest, writer.session)
            if not todo:  # nobody is asked, so nothing is said of who was
                changes = {key: changes[key] for key in ("tasks", "points")}
            writer.write_manifest(status="running", **changes)
            made = Made(writer.path, "finished")
            if todo:
                made = bench.ask(todo)
        except StoreError as error:
            _abandon(writer, bench, interrupts)
            if bench is None or not bench.tally.answered:
                raise
            assert writer is not None
            raise BrokenOff(error.message, go_on(writer.path)) from None
        except KeyboardInterrupt:
            if writer is None or bench is None or not bench.tally.answered:
                _abandon(writer, bench, interrupts)
                raise
            made = Made(writer.path, "interrupted", "interrupted")
        except BaseException:
            _abandon(writer, bench, interrupts)
            raise
        return close(writer, made, interrupts, bench.store, stack)


def _abandon(writer: RunWriter | None, bench: _Bench | None, interrupts: Interrupts) -> None:
    """Whatever went wrong, answers stay; a run without any goes, or is again what it was before it was resumed."""
    if writer is None:
        return
    with interrupts.counted():
        if bench is None or not bench.tally.heard or (writer.session == 1 and not bench.tally.answered):
            writer.undo()
        else:  # there may be rows that its summary does not know
            with contextlib.suppress(StoreError):  # a full disk: what is stored is stored
                writer.leave()


def open_benchmark(plan: Plan, model: str, grader: Grader, access: Access, scratch: Path) -> Benchmark:
    """The benchmark of a task. Raises OssEvalError for what it lacks."""
    task = plan.task
    if task.benchmark is None:
        return CustomBenchmark(task, plan.folder, grader, access)
    from oss_eval.bench.sources.evalscope import SuiteBenchmark

    return SuiteBenchmark(task, model, grader, access, scratch / task.name)


class _Bench:
    """One run under way."""

    def __init__(
        self,
        courses: list[Course],
        order: Order,
        server: Server,
        writer: RunWriter,
        grader: Grader,
        found: list[Point],
        interrupts: Interrupts,
    ) -> None:
        self.courses, self.order, self.server = courses, order, server
        self.writer, self.grader, self.points = writer, grader, found
        self.interrupts = interrupts
        self.first = courses[0].plan.task
        self.progress = Progress(order.log_every)
        self.tally = Tally(server, writer)
        self.clock = ClockWatch()
        self.gate = Gate(Tuner.START if self.first.parallel == "auto" else self.first.parallel)
        self.tuner: Tuner | None = None
        self._tokens_before = 0
        self._results: queue.Queue[SampleRecord | RequestRecord | BaseException] = queue.Queue()

    # -- asking ----------------------------------------------------------------------------------------

    def ask(self, todo: list[Job]) -> Made:
        """Get all answers; how that ended. Every finished sample is stored when this returns."""
        task, server = self.first, self.server
        self.progress.say(introduce(server, bool(task.url)))
        self._announce(todo)
        for line in put_aside(self.writer):
            self.progress.say(line)
        most = Tuner.MOST if task.parallel == "auto" else task.parallel
        self.settled = settle(server, task)
        with (
            Asker(self.writer.run_id, server.targets(), limits(task), server.reading(task)) as asker,
            self.progress,
        ):
            channel = Channel(
                asker,
                self.gate,
                task.retries,
                server.model,
                self.writer.run_id,
                server.endpoint.api,
                self.settled,
                lambda note: self.progress.say(f"the server refuses a field: {note}"),
                hide=server.hide,
                seen=self._results.put,
            )
            if task.parallel == "auto":
                self.tuner = Tuner(self.gate, lambda: asker.tokens)
                channel.refused = self.tuner.refused
            crew = Crew[Job](most + SPARE_THREADS, lambda job: self._one(job, channel))
            channel.resting = crew.resting
            interrupts = self.interrupts
            with interrupts.counted():
                try:
                    for point in self.points:
                        # One after the other: efforts that shared the server would share each other's latency.
                        stretch = [job for job in todo if job.point_id == point.point_id]
                        if stretch and self.tally.fatal is None and not interrupts.count:
                            self._begin(point, len(stretch), asker.tokens)
                            crew.start(stretch)
                            self._collect(len(stretch), asker)
                            self.progress.end()
                    if interrupts.count == 1:
                        self._drain(channel, crew, asker)
                finally:
                    channel.draining.set()
                    channel.stopping.set()
                    asker.stop()
                    deadline = time.monotonic() + STOP_SECONDS
                    while crew.busy and interrupts.count < 2 and time.monotonic() < deadline:
                        crew.stop(HURRY_SECONDS)
                    crew.stop(HURRY_SECONDS)
                    with contextlib.suppress(queue.Empty):
                        while True:
                            self._take(self._results.get_nowait())
                    self.progress.end()
        self._note_server(channel)
        if self.tally.fatal is not None and not self.tally.answered:
            raise self.tally.fatal
        if interrupts.count:
            if not self.tally.done:
                raise KeyboardInterrupt
            return Made(self.writer.path, "interrupted", "interrupted")
        if self.tally.fatal is not None:
            return Made(self.writer.path, "failed", self.tally.fatal.message)
        return Made(self.writer.path, "finished")

    def _drain(self, channel: Channel, crew: Crew[Job], asker: Asker) -> None:
        """The first Ctrl-C: nothing more is begun, and what is in flight may finish."""
        channel.draining.set()
        crew.clear()
        self.progress.say(stopping(self.gate.inside, self.order.grace))
        deadline = time.monotonic() + self.order.grace
        while self.interrupts.count == 1 and crew.busy and time.monotonic() < deadline:
            self._step(asker)

    def _begin(self, point: Point, number: int, tokens: int) -> None:
        self._tokens_before = tokens
        self.tally.begin()
        self.progress.note = ""
        self.progress.start(" ".join(filter(None, (point.task, point.reasoning_effort))), number)

    def _collect(self, expected: int, asker: Asker) -> None:
        left = expected
        while left and self.tally.fatal is None and not self.interrupts.count:
            left -= self._step(asker)

    def _step(self, asker: Asker) -> bool:
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
        self.progress.idle(self.gate.inside, asker.tokens - self._tokens_before)
        return ended

    def _take(self, item: SampleRecord | RequestRecord | BaseException) -> None:
        """A request or a sample is over; the only place that writes."""
        if isinstance(item, RequestRecord):
            item.text = item.reasoning_text = None  # the sample holds them
            self.writer.add(item)
            self.tally.request(item)
        elif isinstance(item, SampleRecord):
            self.writer.add_sample(item)
            self.tally.sample(item)
            self.progress.note = self.tally.note
            self.progress.done(item.status)
        elif isinstance(item, OssEvalError):
            self.tally.fatal = self.tally.fatal or item
        else:
            raise item

    def _one(self, job: Job, channel: Channel) -> None:
        """A sample from question to grade, in its own thread."""
        try:
            record = self._sample(job, channel)
        except Stopped:
            if not channel.draining.is_set():
                self._results.put(OssEvalError("a request was given up, and nobody had asked for it"))
            return
        except BaseException as error:  # noqa: BLE001 (raised on in the main thread)
            self._results.put(error)
            return
        self._results.put(record)

    def _sample(self, job: Job, channel: Channel) -> SampleRecord:
        if channel.draining.is_set():
            raise Stopped
        question = job.question
        wanted = generation(job.task, channel.model, job.effort, job.epoch)
        name = f"{question.subset}/{question.sample_id}"
        voice = Voice(channel, job.point_id, name, question.sample_id, job.epoch, wanted)
        said, failure = None, None
        try:
            said = job.benchmark.answer(question, voice)
        except (Stopped, OssEvalError):
            raise
        except Exception as error:  # noqa: BLE001 (the server's or a benchmark's own: the sample failed, not the run)
            failure = error
        judged = contextlib.nullcontext() if job.task.judge_model is None else channel.resting()
        with judged:
            record = sample_record(job, channel.run_id, channel.model, voice, said, failure, self.grader)
        for name in ("unscored_reason", "error_message"):
            text = getattr(record, name)
            if text:
                setattr(record, name, self._hide(text))
        return record

    def _hide(self, text: str) -> str:
        """Other people's words without our keys."""
        for key in (os.environ.get(JUDGE_KEY), os.environ.get("OPENAI_API_KEY")):
            text = text.replace(key, "***") if key else text
        return self.server.hide(text)

    # -- words -----------------------------------------------------------------------------------------

    def _announce(self, todo: list[Job]) -> None:
        for point in self.points:
            effort = f" {point.reasoning_effort}" if point.reasoning_effort else ""
            times = f" x {point.repeats}" if point.repeats > 1 else ""
            left = sum(job.point_id == point.point_id for job in todo)
            rest = f", {left} still to ask" if left != point.number else ""
            samples = "sample" if point.samples == 1 else "samples"
            self.progress.say(f"{point.task}{effort}: {point.samples} {samples}{times}{rest}")

    def _note_server(self, channel: Channel) -> None:
        """What the server calls itself, and what it was really sent."""
        endpoint = {**self.writer.manifest["endpoint"], "server": channel.server}
        self.writer.write_manifest(endpoint=endpoint, request=channel.settled.described())

    # -- the end ---------------------------------------------------------------------------------------

    def store(self, made: Made) -> Made:
        """Close the run's files and write its summary; how the run ended. Raises StoreError."""
        from oss_eval.analysis.bench_summary import OVERALL, groups, summary_rows
        from oss_eval.results.reader import read_samples
        from oss_eval.results.writer import write_summary

        status, reason = made.status, made.reason
        self.writer.seal()
        found = groups(read_samples(self.writer.path), self.writer.manifest["endpoint"].get("prices"))
        limits = {course.plan.task.name: course.plan.task.max_failures for course in self.courses}
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
                "most_in_flight": self.gate.most,
                "levels": self.tuner.levels if self.tuner else None,
            },
            run_checks=[*known, *(asdict(finding) for finding in self.clock.findings())],
        )
        return replace(made, status=status, reason=reason)
