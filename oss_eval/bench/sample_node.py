"""The actor that asks and scores samples on a node of a Ray cluster: a pool as on this machine, with its own
connections, scorer process and judge."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import traceback
from dataclasses import dataclass
from pathlib import Path

from oss_eval.bench.plan import Plan, SampleJob
from oss_eval.bench.sample_pool import PoolEvent, PoolSetup, SamplePool
from oss_eval.bench.scoring.scorer_process import ScorerProcess
from oss_eval.bench.sources.open import open_benchmark
from oss_eval.bench.types import Benchmark, Sample
from oss_eval.config.bench_task import BenchTask
from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.capabilities import Capabilities
from oss_eval.errors import OssEvalError
from oss_eval.load.workers.node_actor import WAIT_SECONDS, NodeActor


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """A SampleJob on its way: its benchmark is the node's own."""

    point_id: str
    task: str
    sample: Sample
    effort: str | None
    epoch: int
    first_attempt: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a node tells: events, and how it is doing."""

    events: list[PoolEvent]
    tokens: int
    inside: int
    resting: int
    """Samples that wait for a judge, or between two attempts."""
    busy: bool
    server: str | None
    capabilities: Capabilities


class SampleNode(NodeActor):
    """The actor: a pool on its node."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self._scorers = ScorerProcess()
        self._benchmarks: dict[str, tuple[BenchTask, Benchmark]] = {}
        self._events: queue.Queue[PoolEvent] = queue.Queue()
        self._pool: SamplePool | None = None

    def start(self, setup: PoolSetup, tasks: list[BenchTask], auth: Auth, keys: dict[str, str]) -> str | None:
        """Open the benchmarks and the pool; returns why that is not possible."""
        os.environ.update(keys)
        try:
            for task in tasks:
                scratch = Path(self._scratch.name)
                benchmark = open_benchmark(Plan(task), setup.model, self._scorers, auth, scratch)
                benchmark.prepare()
                self._benchmarks[task.name] = task, benchmark
            self._scorers.warm_up()
            self._pool = SamplePool(setup, self._scorers, self._events, tells_starts=True)
        except OssEvalError as error:
            return error.message
        return None

    def ask(self, jobs: list[RemoteJob]) -> None:
        """Take on samples."""
        assert self._pool is not None
        self._pool.start(
            SampleJob(job.point_id, task, benchmark, job.sample, job.effort, job.epoch, job.first_attempt)
            for job in jobs
            for task, benchmark in [self._benchmarks[job.task]]
        )

    def limit(self, limit: int) -> None:
        """Change the number of requests in flight."""
        assert self._pool is not None
        self._pool.concurrency.limit = limit

    def drain(self) -> None:
        """Start no further sample."""
        assert self._pool is not None
        self._pool.drain()

    def cancel(self) -> None:
        """Cancel the requests in flight, too."""
        assert self._pool is not None
        self._pool.cancel()

    def fetch(self) -> Fetched:
        """The events since the last fetch."""
        pool = self._pool
        assert pool is not None
        # Told before the events are taken: a pool that is not busy has put its last one.
        told = pool.tokens, pool.concurrency.inside, pool.resting, pool.busy, pool.server, pool.capabilities
        events: list[PoolEvent] = []
        with contextlib.suppress(queue.Empty):
            events.append(self._events.get(timeout=WAIT_SECONDS))
            while True:
                events.append(self._events.get_nowait())
        return Fetched([_portable(event) for event in events], *told)

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.cancel()
            self._pool.close()
        self._scorers.close()
        for _, benchmark in self._benchmarks.values():
            benchmark.close()
        super().close()


def _portable(event: PoolEvent) -> PoolEvent:
    """An event that can be sent."""
    if isinstance(event, BaseException) and not isinstance(event, OssEvalError):
        with contextlib.suppress(Exception):
            pickle.loads(pickle.dumps(event))
            return event
        return RuntimeError("".join(traceback.format_exception(event)))
    return event
