"""A benchmark run: every sample, epoch and effort asked, scored and stored; or what a stored run still lacks."""

from __future__ import annotations

import queue
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oss_eval.bench import answer_key, remaining
from oss_eval.bench.allocation import Allocation, Budget
from oss_eval.bench.executor import Executor
from oss_eval.bench.goals import allocations, budget
from oss_eval.bench.manifest import described
from oss_eval.bench.plan import BenchPoint, LoadedTask, Plan, SampleJob, jobs, points
from oss_eval.bench.ray_pool import RayPool
from oss_eval.bench.sample_node import SampleNode
from oss_eval.bench.sample_pool import Pool, PoolEvent, PoolSetup, SamplePool
from oss_eval.bench.scoring.scorer_process import ScorerProcess
from oss_eval.bench.sources.open import open_benchmark
from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.server import Server, describe_server, find_server, recognised, running_server
from oss_eval.results.reader import find_run
from oss_eval.run.lifecycle import OpenRun, RunResult, open_run, quarantined_parts
from oss_eval.run.manifest import labels_entry
from oss_eval.run.options import RunOptions
from oss_eval.run.progress import Progress
from oss_eval.run.remote_workers import cluster_findings, cluster_of, describe_cluster, worker_findings
from oss_eval.run.resume import check_server

if TYPE_CHECKING:
    import pyarrow as pa

    from oss_eval.load.workers.ray import RayCluster


def run(
    plans: list[Plan], options: RunOptions, resumed: Path | None = None, effort: dict[str, Any] | None = None
) -> RunResult:
    """Carry out benchmarks and store them as one run; with `resumed`, add what that stored run lacks.

    `effort`: the settings of an effort sheet, kept in the manifest.

    Raises OssEvalError for a usage error or a server that does not answer, before anything is asked. Ctrl-C ends
    the run early: finished samples are stored, or KeyboardInterrupt is raised when there are none.
    """
    plans = [_with_reference(plan, options.out) for plan in plans]
    with cluster_of(plans[0].task, SampleNode) as cluster:
        return _run(plans, options, resumed, effort, cluster)


def _run(
    plans: list[Plan],
    options: RunOptions,
    resumed: Path | None,
    effort: dict[str, Any] | None,
    cluster: RayCluster | None,
) -> RunResult:
    task = plans[0].task
    server = recognised(find_server(task, options.auth), task.connect_timeout)
    with open_run("bench", server.model, options, resumed) as run:
        if resumed is not None:
            check_server(run.writer.manifest, task, server)
        scorers = ScorerProcess()
        run.callback(scorers.close)
        if cluster is None:  # else the nodes score
            scorers.warm_up()
        loaded = _load(plans, server.model, scorers, options.auth, run)
        stored = [] if resumed is None else remaining.stored_points(run.writer.manifest)
        planned = points(loaded, stored)
        todo = jobs(loaded, planned)
        if resumed is not None:
            todo = remaining.missing(run.writer.path, todo)
        answers = run.writer.path / "answers.jsonl"
        if server.started:
            answer_key.write(answers, [sample for task in loaded for sample in task.samples])
        server = run.enter(running_server(server, task.api, run.writer.path / "truth.jsonl", answers))
        asked = allocations(loaded, planned, todo, run.writer.path)
        limit = budget(task, options.prices, loaded, len(planned))
        run.work = bench = _Bench(loaded, planned, server, options, scorers, run, asked, limit, cluster)
        changes = described(loaded, planned, server, options, run.writer.manifest, run.writer.session)
        if not todo:  # no request is sent, so the manifest keeps the server of before
            changes = {key: changes[key] for key in ("tasks", "points")}
        if cluster is not None:
            cluster.look_at(server.targets())
            changes["ray"] = cluster.as_manifest()
        run.writer.write_manifest(status="running", **changes, **({} if effort is None else {"effort": effort}))
        if todo:
            run.result = bench.run(todo)
    return run.result


def _with_reference(plan: Plan, out: Path) -> Plan:
    """The plan with the folder of `--against`: `last` is the last run before this one. Raises StoreError."""
    if plan.task.against is None:
        return plan
    return replace(plan, task=plan.task.model_copy(update={"against": str(find_run(plan.task.against, out))}))


def _load(plans: Sequence[Plan], model: str, scorers: ScorerProcess, auth: Auth, run: OpenRun) -> list[LoadedTask]:
    """The tasks with their samples; benchmarks are closed with the run. Raises OssEvalError."""
    scratch = Path(run.enter(tempfile.TemporaryDirectory(prefix="oss-eval-bench-")))
    loaded = []
    for plan in plans:
        benchmark = open_benchmark(plan, model, scorers, auth, scratch)
        run.callback(benchmark.close)
        loaded.append(LoadedTask(plan, benchmark, benchmark.samples()))
    return loaded


class _Bench:
    """A benchmark run in progress: announces it, lets the executor ask, and stores the summary."""

    def __init__(
        self,
        loaded: list[LoadedTask],
        planned: list[BenchPoint],
        server: Server,
        options: RunOptions,
        scorers: ScorerProcess,
        run: OpenRun,
        asked: dict[str, Allocation],
        limit: Budget | None,
        cluster: RayCluster | None,
    ) -> None:
        self.allocations, self.budget = asked, limit
        self.loaded, self.points, self.server, self.writer = loaded, planned, server, run.writer
        self.task = loaded[0].plan.task
        self.progress = Progress(options.log_every)
        self.auth, self.scorers, self.cluster = options.auth, scorers, cluster
        self.executor = Executor(self.task, server, options, run, self.progress, self._pool)

    def _pool(self, setup: PoolSetup, events: queue.Queue[PoolEvent]) -> Pool:
        """What asks and scores: threads of this process, or the nodes of the cluster."""
        if self.cluster is None:
            return SamplePool(setup, self.scorers, events)
        urls = tuple(endpoint.url for endpoint in self.server.endpoints)
        return RayPool(self.cluster, setup, events, self.loaded, self.auth, urls)

    @property
    def measured(self) -> bool:
        """Whether any request was answered."""
        return self.executor.monitor.answered

    @property
    def has_new_rows(self) -> bool:
        """Whether rows were stored that are worth keeping: in a new run, only with an answer among them."""
        monitor = self.executor.monitor
        return monitor.request_ended and (self.writer.session > 1 or monitor.answered)

    def run(self, todo: list[SampleJob]) -> RunResult:
        """Get all answers; returns how that ended."""
        self.progress.say(describe_server(self.server, bool(self.task.url)))
        if self.cluster is not None:
            self.progress.say(describe_cluster(self.cluster))
        self._announce(todo)
        for line in quarantined_parts(self.writer):
            self.progress.say(line)
        return self.executor.run(self.points, todo, self.allocations, self.budget)

    def _announce(self, todo: list[SampleJob]) -> None:
        for point in self.points:
            effort = f" {point.reasoning_effort}" if point.reasoning_effort else ""
            epochs = f" x {point.repeats}" if point.repeats > 1 else ""
            missing = sum(job.point_id == point.point_id for job in todo)
            rest = f", {missing} still to ask" if missing != point.number else ""
            if point.point_id in self.allocations:
                epochs, rest = "", f", at most {missing} answers"
            samples = "sample" if point.samples == 1 else "samples"
            self.progress.say(f"{point.task}{effort}: {point.samples} {samples}{epochs}{rest}")

    def _note_answers(self, samples: pa.Table) -> None:
        """Of points that were asked until known: how many answers they have, and the most to a problem."""
        if not self.allocations:
            return
        rows = samples.select(["point_id", "subset", "sample_id"]).to_pylist()
        for point in self.points:
            if point.point_id in self.allocations and (point.until or {}).get("reached"):
                asked = Counter((r["subset"], r["sample_id"]) for r in rows if r["point_id"] == point.point_id)
                point.until = {**(point.until or {}), "answers": asked.total()}
                point.repeats = max(asked.values(), default=0)
        self.writer.write_manifest(points=[{**asdict(point), "number": point.number} for point in self.points])

    def store(self, result: RunResult) -> RunResult:
        """Close the run's files and write its summary; returns how the run ended. Raises StoreError."""
        from oss_eval.analysis.bench_summary import OVERALL, groups, summary_rows
        from oss_eval.results.reader import read_samples
        from oss_eval.results.writer import write_summary

        status, reason = result.status, result.reason
        self.writer.seal()
        samples = read_samples(self.writer.path)
        self._note_answers(samples)
        rows = groups(samples, self.writer.manifest)
        max_failures = {task.plan.task.name: task.plan.task.max_failures for task in self.loaded}
        overall = [group for group in rows if group.subset == OVERALL]
        bad = any(group.failed > group.samples * max_failures.get(group.task, 100) / 100 for group in overall)
        if status == "finished" and (bad or any(group.scored == 0 for group in overall)):
            status, reason = "failed", "too many samples failed"
        write_summary(self.writer.path, summary_rows(self.writer.manifest, rows))
        known = self.writer.manifest.get("run_checks", [])
        found = [*self.executor.clock.findings(), *self.executor.findings]
        if self.cluster is not None:
            found += cluster_findings(self.writer.manifest)
            for point in self.points:
                found += worker_findings(self.writer, point.point_id, self.cluster)
        self.writer.finish(
            status,
            broke_off={"reason": reason} if status == "failed" else None,
            finished=datetime.now(UTC).isoformat(),
            parallel=self.executor.concurrency_reached(),
            **({"labels": labels_entry(self.writer.manifest, self.server)} if status == "finished" else {}),
            run_checks=[*known, *map(asdict, found)],
        )
        return replace(result, status=status, reason=reason)
