"""The load sweep, from a validated task to a stored run."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oss_eval.analysis.checks import ClockWatch, check_point
from oss_eval.config.task import PerfTask
from oss_eval.endpoint.capabilities import ADAPTATIONS, Capabilities, request_capabilities
from oss_eval.endpoint.discovery import choose_model, reach
from oss_eval.endpoint.endpoint import parse_url
from oss_eval.endpoint.messages import in_words
from oss_eval.endpoint.server import Server, describe_server, resolve_endpoints, simulator_behind, simulator_named
from oss_eval.errors import OssEvalError, RunFailed
from oss_eval.load.client_stats import ClientStats, merge
from oss_eval.load.plan import STREAMS_A_WORKER, Point, grid
from oss_eval.load.prompts.lengths import UNCOUNTED, Lengths, by_counts, by_tokenizer, probes
from oss_eval.load.prompts.prompts import Source, body, generation, read_prompt, source
from oss_eval.load.workers.pool import PointOutcome, WorkerPool, check_descriptors
from oss_eval.perf.liveness import ServerLiveness
from oss_eval.perf.manifest import described
from oss_eval.perf.remaining import RemainingWork, everything, remaining
from oss_eval.probe.apis import Generation
from oss_eval.records import RequestRecord
from oss_eval.run.lifecycle import RunResult, finish_run, quarantined_parts, stopping
from oss_eval.run.options import RunOptions, limits
from oss_eval.run.progress import Progress
from oss_eval.run.resume import check_server
from oss_eval.simulator.process import parse_sim_url, running
from oss_eval.system import environment
from oss_eval.system.signals import Interrupts

if TYPE_CHECKING:  # a mistake of the user's should not wait for what writes Parquet
    from oss_eval.results.writer import RunWriter

PROBE_TOKENS = 16
PASSING = ("http_429", "http_5xx", "stream_broken")
"""Failures of the first request that may be gone in a moment."""
RETRIES = 2
RETRY_SECONDS = 0.5
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens", "min_tokens")


def run(
    task: PerfTask,
    options: RunOptions,
    kind: str = "perf",
    points: list[Point] | None = None,
    resumed: Path | None = None,
    missing: bool = False,
) -> RunResult:
    """Carry out a sweep and store it: the points of the task's grid, or those given; or, with `resumed`, what that
    stored sweep still lacks (see `resume.rest`).

    Raises OssEvalError for what the user can put right before anything is measured. Ctrl-C ends the sweep early
    with what was finished stored, or is raised on when nothing was; so does whatever it can't go on with.
    """
    from oss_eval.results.writer import RunWriter, new_run_id

    if task.prompt is not None:
        read_prompt(task.prompt)  # a mistake in it should not have to wait for the server
    planned = points or grid(task, environment.usable_cores())
    check_descriptors(planned, max(1, len(task.url)))
    simulator, endpoints = resolve_endpoints(task, options.auth)
    with Interrupts() as interrupts, contextlib.ExitStack() as stack:
        if simulator:
            model = task.model or parse_sim_url(simulator).profile.model
        else:
            model = choose_model(endpoints[0], task.model)
        if resumed is None:
            writer = RunWriter(options.out, new_run_id(kind, options.name or model), {"kind": kind})
        else:
            writer = RunWriter.reopen(resumed)  # locked from here on
        sweep: _Sweep | None = None
        try:
            todo = everything(planned) if resumed is None else remaining(resumed, missing)
            if resumed is not None and todo.todo:
                known = simulator
                if not simulator:
                    reach(endpoints[0], task.connect_timeout)
                    known = simulator_behind(endpoints[0], task.connect_timeout)
                check_server(writer.manifest, task, model, simulator, endpoints, known is not None)
            if simulator and todo.todo:
                url = stack.enter_context(running(simulator, writer.path / "truth.jsonl"))
                endpoints = (parse_url(url, task.api),)
            server = Server(endpoints, model, simulator, started=simulator is not None)
            sweep = _Sweep(task, options, todo, server, writer, interrupts)
            sweep.run()
            result = RunResult(writer.path, "finished")
        except (KeyboardInterrupt, OssEvalError) as error:
            if sweep is None or not sweep.measured:
                with interrupts.counted():
                    writer.undo()
                raise
            interrupted = isinstance(error, KeyboardInterrupt)
            reason = "interrupted" if interrupted else str(error)
            result = RunResult(writer.path, "interrupted" if interrupted else "failed", reason)
        except BaseException:
            with interrupts.counted():
                writer.leave()  # whatever broke, finished requests stay
            raise
        return finish_run(writer, result, interrupts, sweep.store, stack)


class _Sweep:
    """One run under way: what its steps share."""

    def __init__(
        self,
        task: PerfTask,
        options: RunOptions,
        todo: RemainingWork,
        server: Server,
        writer: RunWriter,
        interrupts: Interrupts,
    ) -> None:
        self.task, self.options, self.server, self.writer = task, options, server, writer
        self.interrupts = interrupts
        self.points, self.todo = todo.points, todo
        self.progress = Progress(options.log_every)
        stored = writer.manifest.get("seed")
        self.seed = next(
            (seed for seed in (task.seed, stored) if seed is not None), random.SystemRandom().randrange(2**31)
        )
        self.lengths = Lengths()
        self.last: list[RequestRecord] = []
        self.measured = 0
        self.point: Point | None = None
        """The one under way."""
        self.liveness = ServerLiveness()
        self.clients = {name: ClientStats(**values) for name, values in writer.manifest.get("client", {}).items()}
        self.clock = ClockWatch()
        self.capabilities = Capabilities()

    # -- listening to the fleet ------------------------------------------------------------------------

    def record(self, record: RequestRecord) -> None:
        """A request is over."""
        if record.error_message:
            record.error_message = self.server.redact(record.error_message)
        self.writer.add(record)
        self.liveness.ended(record)
        if record.warmup:
            self.last.append(record)
            return
        self.measured += 1
        self.progress.done(record.status)

    def idle(self, in_flight: int, tokens: int) -> str | None:
        """Several times a second."""
        self.clock.look(time.monotonic(), time.time(), time.monotonic())
        self.progress.idle(in_flight, tokens)
        self.liveness.heard(tokens)
        try:
            self.writer.flush_due()
        except OssEvalError as error:
            return error.message
        return self.liveness.lost

    def stopping(self, in_flight: int) -> None:
        """The first Ctrl-C."""
        self.progress.say(stopping(in_flight, self.options.grace))

    # -- the run ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Announce, probe, warm up, sweep."""
        task, server = self.task, self.server
        self._announce()
        for line in quarantined_parts(self.writer):
            self.progress.say(line)
        if not self.todo.todo:
            self.progress.say("nothing is missing")
            return
        if task.tokenizer_path:
            self._tokenizer(task.tokenizer_path)
        workers = max(point.workers for point in self.points)
        self.capabilities = request_capabilities(server, task)
        with WorkerPool(
            self.writer.run_id, server.targets(), limits(task, self.options.grace), self.interrupts, workers,
            server.reading(task, self.lengths.count),
        ) as pool:  # fmt: skip
            self._probe(pool)
            lengths = self.lengths
            prompts = source(task, server.model, self.seed, lengths.counter, lengths.words_per_token)
            self.writer.write_manifest(
                request=self.capabilities.described(),
                **described(task, self.options, self.server, self.todo, lengths, self.seed, self.writer),
            )
            with self.progress:
                if task.warmup:
                    size = min(task.warmup, max(task.parallel))
                    point = Point(point_id=self._own("warmup"), index=-1, parallel=size, number=task.warmup,
                                  warmup=True, reasoning_effort=(task.reasoning_effort or (None,))[0])  # fmt: skip
                    self._check(pool.run_point(point, server.model, self._bodies(point, prompts(point)), self))
                for point in self.points:
                    if point.point_id in self.todo.todo:
                        self._measure(pool, point, prompts)

    def _measure(self, pool: WorkerPool, point: Point, prompts: Source) -> None:
        """One point, or what is missing of it."""
        tags = self.todo.todo[point.point_id]
        self.point = point
        self.liveness.start()
        begun, ended = (self.writer.manifest.get(key, []) for key in ("begun", "ended"))
        before = [name for name in ended if name != point.point_id]
        self.writer.write_manifest(begun=[*dict.fromkeys([*begun, point.point_id])], ended=before)
        self.progress.start(self._title(point), len(tags))
        end = pool.run_point(
            point,
            self.server.model,
            self._bodies(point, prompts(point)),
            self,
            tags if len(tags) < point.number else None,
        )
        with self.interrupts.counted():
            self.progress.end()
            self._client(point.point_id, end.client(point.parallel))
            self.writer.flush()
            lost = self.liveness.failure_after_waiting(self.server.endpoint, self.task.connect_timeout)
            whole = not (lost or end.broken or self.interrupts.count)
            self.writer.write_manifest(
                client={name: asdict(client) for name, client in self.clients.items()},
                ended=[*before, point.point_id] if whole else before,
            )
        self._check(end)
        if lost:
            raise RunFailed(lost)
        self.point = None

    def _client(self, point_id: str, client: ClientStats) -> None:
        """How the client itself did at a point, in all sessions that measured it."""
        before = self.clients.get(point_id)
        self.clients[point_id] = client if before is None else merge(before, client)

    def _own(self, name: str) -> str:
        """The name of a point beside the plan: each session has its own."""
        return name if self.writer.session == 1 else f"{name}-{self.writer.session}"

    def _generation(self, effort: str | None) -> Generation:
        return self.capabilities.apply(generation(self.task, self.server.model, effort))

    def _title(self, point: Point) -> str:
        effort = f" {point.reasoning_effort}" if point.reasoning_effort else ""
        return f"point {self.points.index(point) + 1}/{len(self.points)}{effort} parallel {point.parallel}"

    def _check(self, end: PointOutcome) -> None:
        if self.interrupts.count:
            raise KeyboardInterrupt
        if end.broken:
            raise RunFailed(end.broken)

    def store(self, result: RunResult) -> RunResult:
        """Close the run's files and write its summary; how the run ended. Raises StoreError."""
        from oss_eval.analysis.perf_summary import load_run, summary_rows
        from oss_eval.results.writer import write_summary

        self.writer.seal()
        report = load_run(self.writer.path)
        if result.status == "finished" and not any(point.metrics.get("success_rate") for point in report.points):
            result = replace(result, status="failed")
        broke_off = None
        if result.status == "failed" and result.reason:
            broke_off = {"point_id": self.point and self.point.point_id, "reason": result.reason}
        checks = {
            point.point_id: [
                asdict(finding)
                for finding in check_point(
                    point.metrics, self.clients.get(point.point_id), "user" in point.clock_sources, point.failures
                )
            ]
            for point in report.points
        }
        write_summary(self.writer.path, summary_rows(report))
        known = self.writer.manifest.get("run_checks", [])
        self.writer.finish(
            result.status,
            broke_off=broke_off,
            finished=datetime.now(UTC).isoformat(),
            clock_source=sorted({source for point in report.points for source in point.clock_sources}),
            checks=checks,
            run_checks=[*known, *(asdict(finding) for finding in self.clock.findings())],
        )
        return result

    def _bodies(self, point: Point, prompts: Iterator[Any]) -> Iterator[bytes]:
        settings = self._generation(point.reasoning_effort)
        return (body(self.server.endpoint.api, prompt, settings) for prompt in prompts)

    # -- before the first point ------------------------------------------------------------------------

    def _announce(self) -> None:
        task, server = self.task, self.server
        self.progress.say(describe_server(server, bool(task.url)))
        if task.number is None:
            pairs = " ".join(str(number) for _, number in task.levels())
            self.progress.say(f"number {pairs} (4 a slot, at least 10; set with --number)")
        if task.workers == "auto" and any(point.workers > 1 for point in self.points):
            counts = " ".join(str(point.workers) for point in self.points)
            cores = environment.usable_cores()
            self.progress.say(f"workers {counts} (auto: {STREAMS_A_WORKER} streams each, {cores} cores)")

    def _tokenizer(self, path: str) -> None:
        found = by_tokenizer(path, None if self.writer.session == 1 else self.writer.manifest)
        if isinstance(found, Lengths):
            self.lengths = found
        else:
            self.progress.say(f"tokenizer {path}: {found}")

    def _probe(self, pool: WorkerPool) -> None:
        """One or two short requests before anything is measured: does the server answer as it should, what does
        it call itself, and how many words make a token? Raises EndpointError."""
        task, manifest = self.task, self.writer.manifest
        counted = task.prompt is None and task.dataset == "random" and self.lengths.counter is None
        prompts = probes(self.seed)[: 2 if counted else 1]
        effort = (task.reasoning_effort or (None,))[0]
        point = Point(
            point_id=self._own("probe"),
            index=-1,
            parallel=1,
            number=len(prompts),
            warmup=True,
            reasoning_effort=effort,
        )
        after_refusal = retried = 0
        while True:
            self.last.clear()
            attempt = 1 + after_refusal + retried
            if attempt > 1:
                point = point.model_copy(update={"point_id": f"{point.point_id.partition('~')[0]}~{attempt}"})
            settings = self._generation(effort)
            extra = tuple((k, v) for k, v in settings.extra if k not in LENGTH_FIELDS)
            shortest = None if task.min_tokens is None else min(task.min_tokens, PROBE_TOKENS)
            settings = replace(settings, max_tokens=PROBE_TOKENS, min_tokens=shortest, extra=extra)
            bodies = (body(self.server.endpoint.api, prompt, settings) for prompt in chain(prompts, repeat("")))
            end = pool.run_point(point, self.server.model, bodies, self)
            self._check(end)
            failed = next((record for record in self.last if record.status != "ok"), None)
            if failed is None:
                break
            changed = self.capabilities.after_refusal(failed.http_status, failed.error_message or "", settings)
            if changed and after_refusal < ADAPTATIONS:
                after_refusal += 1
                self.capabilities = changed
                self.progress.say(f"the server refuses a field: {changed.notes[-1]}")
            elif failed.error_kind in PASSING and retried < RETRIES:
                retried += 1
                self.progress.say(f"the first request failed ({failed.error_kind}), asking again")
                time.sleep(RETRY_SECONDS)
            else:
                raise in_words(self.server.endpoint, failed, task.connect_timeout)
        self._recognise(end.server or "")
        if not counted:
            return
        stored = manifest.get("words_per_token")
        if stored is not None:  # the same prompts as before
            self.lengths = Lengths(None, float(stored), manifest["prompt_lengths_by"])
            return
        self.lengths = by_counts([record.prompt_tokens for record in self.last])
        if self.lengths.by == UNCOUNTED:
            self.progress.say(f"prompt lengths are {self.lengths.by}; --tokenizer-path makes them exact")

    def _recognise(self, header: str) -> None:
        """What the server calls itself; a simulator must not be taken for a model."""
        self.server = replace(self.server, header=header or None)
        simulator = simulator_named(header)
        if simulator and not self.server.simulator:
            self.server = replace(self.server, simulator=simulator)
            self.progress.say(f"SIMULATED: this server is oss-eval's simulator ({simulator}), no model is run")
