"""The load sweep, from a validated task to a stored run."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oss_eval.analysis.checks import ClockWatch, Finding
from oss_eval.analysis.energy import IDLE
from oss_eval.config.perf_task import PerfTask
from oss_eval.endpoint.capabilities import Capabilities
from oss_eval.endpoint.network import handshakes
from oss_eval.endpoint.prefix_cache import reset_prefix_cache
from oss_eval.endpoint.server import Server, describe_server, find_server, recognised, running_server
from oss_eval.errors import OssEvalError, RunFailed
from oss_eval.load.client_stats import ClientStats, merge
from oss_eval.load.plan import Point, grid
from oss_eval.load.prompts.lengths import Lengths
from oss_eval.load.redaction import redact_record
from oss_eval.load.schedule.trace import TraceRequest
from oss_eval.load.workers.node_actor import NodeWorker
from oss_eval.load.workers.pool import PointOutcome, WorkerPool, check_descriptors
from oss_eval.load.workers.process import WorkerProcess
from oss_eval.perf.liveness import ServerLiveness
from oss_eval.perf.manifest import described, ended
from oss_eval.perf.preflight import check_server_answers, check_task, tokenizer_lengths
from oss_eval.perf.readings import Readings
from oss_eval.perf.remaining import RemainingWork, everything, remaining
from oss_eval.perf.saturation import beyond, stop_reason
from oss_eval.perf.slo_search import SloSearch, search_workers
from oss_eval.perf.trace import level_of, task_trace, trace_entry
from oss_eval.perf.workload import Workload, describe_load
from oss_eval.records import RequestRecord
from oss_eval.run.lifecycle import OpenRun, RunResult, open_run, quarantined_parts, stopping
from oss_eval.run.options import RunOptions, limits
from oss_eval.run.progress import Progress
from oss_eval.run.remote_workers import cluster_findings, cluster_of, describe_cluster, worker_findings
from oss_eval.run.resume import check_server
from oss_eval.system import environment

if TYPE_CHECKING:
    from oss_eval.analysis.perf_summary import PointReport
    from oss_eval.load.workers.ray import RayCluster


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
    check_task(task)
    with cluster_of(task, NodeWorker) as cluster:
        if cluster is not None:
            task = task.model_copy(update={"workers": f"ray:{cluster.count}"})
        return _run(task, options, kind, points, resumed, missing, cluster)


def _run(
    task: PerfTask,
    options: RunOptions,
    kind: str,
    points: list[Point] | None,
    resumed: Path | None,
    missing: bool,
    cluster: RayCluster | None,
) -> RunResult:
    trace = task_trace(task)
    if points is not None:
        planned = points
    elif task.find is not None:
        planned = []
    else:
        levels = None if trace is None else [level_of(trace, task.time_scale)]
        planned = grid(task, environment.usable_cores(), levels)
    if cluster is None:
        check_descriptors(planned, max(1, len(task.url)))
    server = find_server(task, options.auth)
    with open_run(kind, server.model, options, resumed) as run:
        work = everything(planned) if resumed is None else remaining(resumed, missing)
        if work.todo or task.find is not None:
            if resumed is not None:
                check_server(run.writer.manifest, task, recognised(server, task.connect_timeout))
            server = run.enter(running_server(server, task.api, run.writer.path / "truth.jsonl"))
        run.work = sweep = _Sweep(task, options, work, server, run, trace)
        sweep.cluster = cluster
        sweep.run()
    return run.result


class _Sweep:
    """A sweep in progress: what its steps share."""

    def __init__(
        self,
        task: PerfTask,
        options: RunOptions,
        remaining: RemainingWork,
        server: Server,
        run: OpenRun,
        trace: list[TraceRequest] | None,
    ) -> None:
        self.task, self.options, self.server, self.trace = task, options, server, trace
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
        self.stopped: list[str] = []
        """Why levels were left out."""
        self.searching: SloSearch | None = None
        self.workload: Workload
        self.liveness = ServerLiveness()
        self.clients = {
            name: ClientStats(**stats) for name, stats in self.writer.manifest.get("client", {}).items()
        }
        self.clock = ClockWatch()
        self.cluster: RayCluster | None = None
        self.lost: dict[str, list[str]] = {}
        """Workers that points went on without."""
        self.readings = Readings(task, server, self.writer, self.progress.say)

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
        if self.searching is not None:
            self.searching.record(record)

    def idle(self, in_flight: int, tokens: int) -> str | None:
        """Several times a second; why the point can't go on, or None."""
        self.clock.look(time.monotonic(), time.time(), time.monotonic())
        self.progress.idle(in_flight, tokens)
        if self.searching is not None:
            self.searching.look(in_flight)
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
        if not self.remaining.todo and self.task.find is None:
            self.progress.say("nothing is missing")
            return
        task, resumed = self.task, self.writer.session > 1
        stored = self.writer.manifest if resumed else {}
        self.lengths = tokenizer_lengths(task, stored, self.progress.say)
        self.readings.start_gpu(self._own(IDLE))
        try:
            self._carry_out(stored)
        finally:
            self.readings.stop()

    def _carry_out(self, stored: dict[str, Any]) -> None:
        task = self.task
        usual = 1 if task.find is None else search_workers(task, environment.usable_cores())
        workers = max([usual, *(point.workers for point in self.points)])
        with WorkerPool(
            self.writer.run_id, self.server.targets(), limits(task, self.options.grace), self.interrupts, workers,
            self.server.reading(task, self.lengths.count), task.turns is not None,
            WorkerProcess if self.cluster is None else self.cluster.start,
        ) as pool:  # fmt: skip
            self._preflight(pool, stored)
            self.workload = Workload(task, self.server, self.capabilities, self.seed, self.lengths, self.trace)
            self.writer.write_manifest(
                request=self.capabilities.as_manifest(),
                **described(task, self.options, self.server, self.remaining, self.lengths, self.seed, self.writer),
            )
            network = handshakes(self.server.endpoints, task.connect_timeout)
            self.writer.write_manifest(network=network)
            if self.cluster is not None:
                self.writer.write_manifest(ray=self.cluster.as_manifest())
            if self.trace is not None:
                self.writer.write_manifest(trace=trace_entry(self.trace, task))
            self.readings.start_metrics()
            with self.progress:
                if task.find is not None:
                    self._search(pool, stored)
                    return
                self._measure_points(pool)

    def _goes_on(self, search: SloSearch) -> bool:
        return search.goes_on() and not self.task.reset_cache

    def _measure_points(self, pool: WorkerPool) -> None:
        """All points of the plan that are not measured yet, but for those that a saturated one makes needless."""
        todo = [point for point in self.points if point.point_id in self.remaining.todo]
        while todo:
            point, todo = todo[0], todo[1:]
            self._measure(pool, point, partial(bool, todo and todo[0].keeps_load and not self.task.reset_cache))
            if self.task.stop_when is None:
                continue
            self.writer.flush()
            reason = stop_reason(self.writer.path, point)
            if reason is not None:
                todo = [other for other in todo if not beyond(point, other)]
                self.points = [one for one in self.points if one in todo or not beyond(point, one)]
                self.stopped.append(reason)
                self.progress.say(f"saturated: {reason}; no higher level is measured")
                self.writer.write_manifest(
                    stopped=f"saturated: {'; '.join(self.stopped)}",
                    points=[one.model_dump(mode="json") for one in self.points],
                )

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

    def _run_aside(self, pool: WorkerPool, point: Point, bodies: Iterator[bytes]) -> PointOutcome:
        """Run a point that is not part of the plan."""
        self.aside.clear()
        outcome = pool.run_point(point, self.server.model, ((body, 0) for body in bodies), self)
        self._check(outcome)
        return outcome

    def _search(self, pool: WorkerPool, stored: dict[str, Any]) -> None:
        """`--find`: levels until the answer is known."""
        self.searching = search = SloSearch(self.task, environment.usable_cores(), stored.get("search"))
        aside = {point["point_id"] for point in self.remaining.quarantined}
        while (point := search.next_point(len(self.points), aside)) is not None:
            self.points.append(point)
            self.remaining.todo[point.point_id] = None
            self.writer.write_manifest(points=[one.model_dump(mode="json") for one in self.points])
            self._measure(pool, point, partial(self._goes_on, search), search.enough)
            search.level_ended()
            self.writer.write_manifest(search=search.as_manifest())

    def _measure(
        self,
        pool: WorkerPool,
        point: Point,
        goes_on: Callable[[], bool],
        enough: Callable[[], bool] | None = None,
    ) -> None:
        """One point, or what is missing of it. `goes_on`: whether load is kept up for the next point; `enough`
        ends it."""
        numbers = self.remaining.todo[point.point_id]
        self.point = point
        self.liveness.start()
        started, ended = (self.writer.manifest.get(key, []) for key in ("begun", "ended"))
        ended = [name for name in ended if name != point.point_id]
        self.writer.write_manifest(begun=[*dict.fromkeys([*started, point.point_id])], ended=ended)
        if self.task.reset_cache:
            for problem in filter(None, map(reset_prefix_cache, self.server.endpoints)):
                raise RunFailed(problem)
        self.readings.begin(point.point_id)
        number = point.number if numbers is None else len(numbers)
        number = None if point.turns else number
        seconds = None if point.duration is None else point.duration + point.warmup_seconds
        self.progress.start(self._title(point), number, seconds)
        if point.turns:
            self.writer.flush()  # and import what writes Parquet: the second turn should not wait for that
        schedule, requests = self.workload.of_point(point)
        outcome = pool.run_point(
            point, self.server.model, requests, self,
            numbers if numbers is not None and point.number is not None and len(numbers) < point.number else None,
            schedule, goes_on, enough, self.workload.next_turn, self.workload.part_of(point),
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
        numbers = self.remaining.todo[point.point_id]
        self.readings.end(point.point_id, 0 if stopped or numbers is None else len(numbers))
        stats, before = outcome.client(point.parallel or outcome.most_in_flight), self.clients.get(point.point_id)
        self.clients[point.point_id] = stats if before is None else merge(before, stats)
        if outcome.lost:
            self.lost[point.point_id] = outcome.lost
        self.writer.flush()
        failure = self.liveness.failure_after_waiting(self.server.endpoint, self.task.connect_timeout)
        complete = not (failure or outcome.broken or self.interrupts.count)
        self.writer.write_manifest(
            client={name: asdict(client) for name, client in self.clients.items()},
            ended=[*ended, point.point_id] if complete else ended,
        )
        return failure

    def _check(self, outcome: PointOutcome) -> None:
        if self.interrupts.count:
            raise KeyboardInterrupt
        if outcome.broken:
            raise RunFailed(outcome.broken)

    def _own(self, name: str) -> str:
        """The id of a point outside the plan: each session has its own."""
        return name if self.writer.session == 1 else f"{name}-{self.writer.session}"

    def _title(self, point: Point) -> str:
        effort = f" {point.reasoning_effort}" if point.reasoning_effort else ""
        load = f"parallel {point.parallel}" if point.parallel is not None else f"rate {point.rate:g}/s"
        of = "" if self.task.find is not None else f"/{len(self.points)}"
        return f"point {self.points.index(point) + 1}{of}{effort} {load}"

    def _seed(self) -> int:
        """The task's seed, else that of the resumed run, else a new one."""
        seeds = (self.task.seed, self.writer.manifest.get("seed"))
        return next((seed for seed in seeds if seed is not None), random.SystemRandom().randrange(2**31))

    def _announce(self) -> None:
        task = self.task
        self.progress.say(describe_server(self.server, bool(task.url)))
        if self.cluster is not None:
            self.progress.say(describe_cluster(self.cluster))
        for line in [*describe_load(task, self.points, self.trace), *quarantined_parts(self.writer)]:
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
            point.point_id: [asdict(finding) for finding in self._findings(point)] for point in report.points
        }
        write_summary(self.writer.path, summary_rows(report))
        known = self.writer.manifest.get("run_checks", [])
        self.writer.finish(
            result.status,
            broke_off=broke_off,
            checks=checks,
            **ended(report, self.server, self.readings.gpu, result.status),
            run_checks=[*known, *map(asdict, self.clock.findings() + cluster_findings(self.writer.manifest))],
        )
        return result

    def _findings(self, point: PointReport) -> list[Finding]:
        from oss_eval.analysis.perf_summary import check_report

        failed, lost = point.failures.get("client", (0, ""))[0], self.lost.get(point.point_id)
        own = worker_findings(self.writer, point.point_id, self.cluster, lost, failed)
        return [*check_report(point, self.clients, self.task.stream), *own]
