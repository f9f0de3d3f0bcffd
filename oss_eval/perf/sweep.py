"""The load sweep, from a validated task to a stored run."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from oss_eval.analysis.checks import ClockWatch, check_point
from oss_eval.analysis.energy import IDLE
from oss_eval.config.perf_task import PerfTask
from oss_eval.endpoint import gpu_telemetry, server_metrics
from oss_eval.endpoint.capabilities import Capabilities
from oss_eval.endpoint.gpu_telemetry import GpuReader
from oss_eval.endpoint.network import is_remote, network_times
from oss_eval.endpoint.server import Server, describe_server, find_server, recognised, running_server
from oss_eval.endpoint.server_metrics import MetricsReader, metrics_endpoints
from oss_eval.errors import OssEvalError, RunFailed
from oss_eval.load.client_stats import ClientStats, merge
from oss_eval.load.generation import generation
from oss_eval.load.plan import STREAMS_A_WORKER, Point, grid
from oss_eval.load.prompts.lengths import Lengths
from oss_eval.load.prompts.prompts import Source, body, read_prompt, source
from oss_eval.load.redaction import redact_record
from oss_eval.load.workers.pool import PointOutcome, WorkerPool, check_descriptors
from oss_eval.perf.liveness import ServerLiveness
from oss_eval.perf.manifest import described
from oss_eval.perf.preflight import check_server_answers, tokenizer_lengths
from oss_eval.perf.remaining import RemainingWork, everything, remaining
from oss_eval.records import RequestRecord
from oss_eval.results.part_files import GPU, SERVER, write_readings
from oss_eval.run.lifecycle import OpenRun, RunResult, open_run, quarantined_parts, stopping
from oss_eval.run.options import RunOptions, limits
from oss_eval.run.progress import Progress
from oss_eval.run.resume import check_server
from oss_eval.system import environment


def run(
    task: PerfTask,
    options: RunOptions,
    kind: str = "perf",
    points: list[Point] | None = None,
    resumed: Path | None = None,
    missing: bool = False,
) -> RunResult:
    """Carry out a sweep and store it: the points of the task's grid, or those given; or, with `resumed`, what that
    stored sweep still lacks (see `perf.remaining`).

    Raises OssEvalError for a usage error or a server that does not answer, before anything is measured. Ctrl-C
    ends the sweep early: finished requests are stored, or KeyboardInterrupt is raised when there are none.
    """
    if task.prompt is not None:
        read_prompt(task.prompt)  # an error in it should not wait for the server
    planned = points or grid(task, environment.usable_cores())
    check_descriptors(planned, max(1, len(task.url)))
    server = find_server(task, options.auth)
    with open_run(kind, server.model, options, resumed) as run:
        work = everything(planned) if resumed is None else remaining(resumed, missing)
        if work.todo:
            if resumed is not None:
                check_server(run.writer.manifest, task, recognised(server, task.connect_timeout))
            server = run.enter(running_server(server, task.api, run.writer.path / "truth.jsonl"))
        run.work = sweep = _Sweep(task, options, work, server, run)
        sweep.run()
    return run.result


class _Sweep:
    """A sweep in progress: what its steps share."""

    def __init__(
        self, task: PerfTask, options: RunOptions, remaining: RemainingWork, server: Server, run: OpenRun
    ) -> None:
        self.task, self.options, self.server = task, options, server
        self._secrets = server.secrets
        self.writer, self.interrupts = run.writer, run.interrupts
        self.points, self.remaining = remaining.points, remaining
        self.progress = Progress(options.log_every)
        self.seed = self._seed()
        self.lengths, self.capabilities = Lengths(), Capabilities()
        self.aside: list[RequestRecord] = []
        """Records of the latest point that is not part of the plan."""
        self.requests = 0
        """Measured in this session."""
        self.point: Point | None = None
        """The point in progress."""
        self.liveness = ServerLiveness()
        self.clients = {
            name: ClientStats(**stats) for name, stats in self.writer.manifest.get("client", {}).items()
        }
        self.clock = ClockWatch()
        self.gpu = GpuReader(server, task.gpu_telemetry)
        self.metrics = MetricsReader(metrics_endpoints(server.endpoints, task.server_metrics), server.model)

    @property
    def measured(self) -> bool:
        """Whether a request of the plan has ended."""
        return self.requests > 0

    has_new_rows = measured

    # -- called by the worker pool ---------------------------------------------------------------------

    def record(self, record: RequestRecord) -> None:
        """A request has ended."""
        redact_record(record, self._secrets)
        self.writer.add(record)
        self.liveness.ended(record)
        if record.warmup:
            self.aside.append(record)
            return
        self.requests += 1
        self.progress.done(record.status)

    def idle(self, in_flight: int, tokens: int) -> str | None:
        """Several times a second; why the point can't go on, or None."""
        self.clock.look(time.monotonic(), time.time(), time.monotonic())
        self.progress.idle(in_flight, tokens)
        self.liveness.tokens_received(tokens)
        try:
            self.writer.flush_due()
        except OssEvalError as error:
            return error.message
        return self.liveness.failure

    def stopping(self, in_flight: int) -> None:
        """The first Ctrl-C."""
        self.progress.say(stopping(in_flight, self.options.grace))

    # -- the run ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Check the server, warm up, measure each point."""
        self._announce()
        if not self.remaining.todo:
            self.progress.say("nothing is missing")
            return
        task, resumed = self.task, self.writer.session > 1
        stored = self.writer.manifest if resumed else {}
        self.lengths = tokenizer_lengths(task, stored, self.progress.say)
        if not self.gpu.start(self._own(IDLE)) and task.gpu_telemetry not in ("auto", "off"):
            self.progress.say(f"no GPU telemetry: {self.gpu.problem}")
        try:
            self._carry_out(stored)
        finally:
            self.metrics.stop()
            self.gpu.stop()

    def _carry_out(self, stored: dict[str, Any]) -> None:
        task = self.task
        workers = max(point.workers for point in self.points)
        with WorkerPool(
            self.writer.run_id, self.server.targets(), limits(task, self.options.grace), self.interrupts, workers,
            self.server.reading(task, self.lengths.count),
        ) as pool:  # fmt: skip
            self._preflight(pool, stored)
            prompts = source(
                task, self.server.model, self.seed, self.lengths.counter, self.lengths.words_per_token
            )
            self.writer.write_manifest(
                request=self.capabilities.as_manifest(),
                **described(task, self.options, self.server, self.remaining, self.lengths, self.seed, self.writer),
            )
            self.writer.write_manifest(network=self._network())
            if not self.metrics.start() and task.server_metrics not in ("auto", "off"):
                self.progress.say(f"no server metrics: {self.metrics.problem}")
            with self.progress:
                self._warm_up(pool, prompts)
                for point in self.points:
                    if point.point_id in self.remaining.todo:
                        self._measure(pool, point, prompts)

    def _preflight(self, pool: WorkerPool, stored: dict[str, Any]) -> None:
        def send_point(point: Point, bodies: Iterator[bytes]) -> tuple[list[RequestRecord], str | None]:
            outcome = self._run_aside(pool, point, bodies)
            return list(self.aside), outcome.server

        preflight = check_server_answers(
            self.task, self.server, self.lengths, self.seed, self._own("probe"), stored, send_point,
            self.progress.say,
        )  # fmt: skip
        self.server, self.lengths = preflight.server, preflight.lengths
        self.capabilities = preflight.capabilities

    def _warm_up(self, pool: WorkerPool, prompts: Source) -> None:
        if not self.task.warmup:
            return
        point = Point(
            point_id=self._own("warmup"), index=-1, parallel=min(self.task.warmup, max(self.task.parallel)),
            number=self.task.warmup, warmup=True, reasoning_effort=(self.task.reasoning_effort or (None,))[0],
        )  # fmt: skip
        self._run_aside(pool, point, self._bodies(point, prompts(point)))

    def _run_aside(self, pool: WorkerPool, point: Point, bodies: Iterator[bytes]) -> PointOutcome:
        """Run a point that is not part of the plan."""
        self.aside.clear()
        outcome = pool.run_point(point, self.server.model, bodies, self)
        self._check(outcome)
        return outcome

    def _measure(self, pool: WorkerPool, point: Point, prompts: Source) -> None:
        """One point, or what is missing of it."""
        numbers = self.remaining.todo[point.point_id]
        self.point = point
        self.liveness.start()
        started, ended = (self.writer.manifest.get(key, []) for key in ("begun", "ended"))
        ended = [name for name in ended if name != point.point_id]
        self.writer.write_manifest(begun=[*dict.fromkeys([*started, point.point_id])], ended=ended)
        self.metrics.begin(point.point_id)
        self.gpu.begin(point.point_id)
        self.progress.start(self._title(point), len(numbers))
        outcome = pool.run_point(
            point, self.server.model, self._bodies(point, prompts(point)), self,
            numbers if len(numbers) < point.number else None,
        )  # fmt: skip
        with self.interrupts.deferred():
            failure = self._note_end(point, outcome, ended)
        self._check(outcome)
        if failure:
            raise RunFailed(failure)
        self.point = None

    def _note_end(self, point: Point, outcome: PointOutcome, ended: list[str]) -> str | None:
        """Store a point's rows and that it has ended; why the server is gone, or None."""
        self.progress.end()
        stopped = bool(self.interrupts.count or outcome.broken)
        self._store_readings(
            GPU, gpu_telemetry.as_columns(self.gpu.end(), self.writer.run_id, self.writer.session)
        )
        readings = self.metrics.end(point.point_id, 0 if stopped else len(self.remaining.todo[point.point_id]))
        self._store_readings(SERVER, server_metrics.as_columns(readings, self.writer.run_id, self.writer.session))
        stats, before = outcome.client(point.parallel), self.clients.get(point.point_id)
        self.clients[point.point_id] = stats if before is None else merge(before, stats)
        self.writer.flush()
        failure = self.liveness.failure_after_waiting(self.server.endpoint, self.task.connect_timeout)
        complete = not (failure or outcome.broken or self.interrupts.count)
        self.writer.write_manifest(
            client={name: asdict(client) for name, client in self.clients.items()},
            ended=[*ended, point.point_id] if complete else ended,
        )
        return failure

    def _network(self) -> list[dict[str, Any]]:
        """Handshake times of each server on another machine, before the load."""
        remote = [endpoint for endpoint in self.server.endpoints if is_remote(endpoint)]
        return [
            {"url": endpoint.url, **times}
            for endpoint in remote
            if (times := network_times(endpoint, self.task.connect_timeout)) is not None
        ]

    def _store_readings(self, name: str, columns: dict[str, list[Any]]) -> None:
        """Store a point's readings. What is beside the measurement can't end it: a part that can't be written is
        said."""
        if not columns["time_ns"]:
            return
        try:
            write_readings(self.writer.path, name, columns)
        except OSError as error:
            self.progress.say(f"{name} can't be stored: {error.strerror}")

    def _check(self, outcome: PointOutcome) -> None:
        if self.interrupts.count:
            raise KeyboardInterrupt
        if outcome.broken:
            raise RunFailed(outcome.broken)

    def _bodies(self, point: Point, prompts: Iterator[Any]) -> Iterator[bytes]:
        settings = generation(self.task, self.server.model, point.reasoning_effort)
        settings = self.capabilities.apply(settings)
        return (body(self.server.endpoint.api, prompt, settings) for prompt in prompts)

    def _own(self, name: str) -> str:
        """The id of a point outside the plan: each session has its own."""
        return name if self.writer.session == 1 else f"{name}-{self.writer.session}"

    def _title(self, point: Point) -> str:
        effort = f" {point.reasoning_effort}" if point.reasoning_effort else ""
        return f"point {self.points.index(point) + 1}/{len(self.points)}{effort} parallel {point.parallel}"

    def _seed(self) -> int:
        """The task's seed, else that of the resumed run, else a new one."""
        seeds = (self.task.seed, self.writer.manifest.get("seed"))
        return next((seed for seed in seeds if seed is not None), random.SystemRandom().randrange(2**31))

    def _announce(self) -> None:
        task = self.task
        self.progress.say(describe_server(self.server, bool(task.url)))
        if task.number is None:
            pairs = " ".join(str(number) for _, number in task.levels())
            self.progress.say(f"number {pairs} (4 a slot, at least 10; set with --number)")
        if task.workers == "auto" and any(point.workers > 1 for point in self.points):
            counts = " ".join(str(point.workers) for point in self.points)
            cores = environment.usable_cores()
            self.progress.say(f"workers {counts} (auto: {STREAMS_A_WORKER} streams each, {cores} cores)")
        for line in quarantined_parts(self.writer):
            self.progress.say(line)

    # -- the end ---------------------------------------------------------------------------------------

    def store(self, result: RunResult) -> RunResult:
        """Close the run's files and write its summary; how the run ended. Raises StoreError."""
        from oss_eval.analysis.perf_summary import RunReport, load_run, summary_rows
        from oss_eval.results.writer import write_summary

        self.writer.seal()
        report: RunReport = load_run(self.writer.path)
        if result.status == "finished" and not any(point.metrics.get("success_rate") for point in report.points):
            result = replace(result, status="failed")
        broke_off = None
        if result.status == "failed" and result.reason:
            broke_off = {"point_id": self.point and self.point.point_id, "reason": result.reason}
        checks = {
            point.point_id: [
                asdict(finding)
                for finding in check_point(
                    point.metrics,
                    self.clients.get(point.point_id),
                    "user" in point.clock_sources,
                    point.failures,
                    self.task.stream,
                    point.slow_start,
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
            **({"gpu_telemetry": self.gpu.as_manifest()} if self.gpu.gpus else {}),
            run_checks=[*known, *(asdict(finding) for finding in self.clock.findings())],
        )
        return result
