"""Samples asked and scored on the nodes of a Ray cluster. What is lost with a node is asked again elsewhere."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from oss_eval.analysis.checks import Finding
from oss_eval.bench.plan import LoadedTask, SampleJob
from oss_eval.bench.sample_node import Fetched, RemoteJob
from oss_eval.bench.sample_pool import KEYS, SPARE_THREADS, PoolEvent, PoolSetup, Said, Started
from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.capabilities import Capabilities
from oss_eval.endpoint.messages import UNREACHABLE
from oss_eval.errors import RunFailed
from oss_eval.load.workers.ray import reason_of
from oss_eval.records import RequestRecord, SampleRecord

if TYPE_CHECKING:
    from oss_eval.load.workers.ray import RayCluster

TIMES = ("scheduled_ns", "start_ns", "headers_ns", "first_token_ns", "first_token_low_ns", "first_answer_ns",
         "last_token_ns", "end_ns")  # fmt: skip
"""Fields of records that are timestamps of the node's clock."""
CLOSE_SECONDS = 3.0
AWAY_SAMPLES = 3
"""After so many samples in a row that could not reach the server, which others reach, a node is given up."""


@dataclass(slots=True)
class _Node:
    """A node as this process sees it."""

    number: int
    actor: Any
    host: str
    offset_ns: int
    share: int
    """Of the requests in flight."""
    jobs: dict[tuple[str, str, str, int], SampleJob] = field(default_factory=dict)
    """Sent there and not ended."""
    in_flight: dict[str, RequestRecord] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    """The latest attempt of each request that was sent for a sample under way."""
    told: Fetched | None = None
    unreachable: int = 0
    """Samples in a row that could not reach the server."""
    lost: str | None = None
    """Why it is gone."""

    @property
    def limit(self) -> int:
        """Its limit of requests in flight. One that has no share ends what it has, one after the other."""
        return max(self.share, bool(self.jobs))

    @property
    def room(self) -> int:
        """How many more samples it should have: some wait there, so that no slot does; those that wait for a judge
        or between two attempts use none."""
        if self.lost or not self.share:
            return 0
        resting = min(self.told.resting, self.share + SPARE_THREADS) if self.told else 0
        return self.share + self.share // 2 + 1 + resting - len(self.jobs)


class _SharedLimit:
    """The requests in flight on all nodes, and their limit, which the nodes share evenly."""

    def __init__(self, pool: RayPool, limit: int) -> None:
        self._pool, self._limit = pool, limit
        self.most = 0

    @property
    def limit(self) -> int:
        """Maximum number of requests in flight."""
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        self._limit = value
        self._pool.share(value)

    @property
    def inside(self) -> int:
        """Requests in flight."""
        return self._pool.in_flight

    @property
    def full(self) -> bool:
        """Whether the limit is nearly reached: nodes tell a moment later."""
        return self.inside >= 0.9 * self._limit


class RayPool:
    """Asks and scores samples on the nodes of a cluster; an event for each is put into a queue."""

    def __init__(
        self,
        cluster: RayCluster,
        setup: PoolSetup,
        events: queue.Queue[PoolEvent],
        loaded: list[LoadedTask],
        auth: Auth,
        urls: tuple[str, ...],
    ) -> None:
        """`urls`: of the server. Raises RunFailed where a node can't open the benchmarks, and UsageError."""
        import ray

        self._events, self._lock = events, threading.RLock()
        self._capabilities, self._draining, self._closed = setup.capabilities, False, False
        self._todo: deque[SampleJob] = deque()
        self._again = 0
        self._failed = 0
        self._nodes = [
            _Node(n, actor, node.host, offset.applied_ns, 0)
            for n, (actor, node, offset) in enumerate(cluster.actors)
        ]
        self.concurrency = _SharedLimit(self, setup.parallel)
        # A node looks for no server of its own: a judge without a URL is the server under test.
        tasks = [one.plan.task.model_copy(update={"url": urls}) for one in loaded]
        keys = {name: os.environ[name] for name in KEYS if os.environ.get(name)}
        shares = _shares(setup.parallel, len(self._nodes))
        starting = []
        for node, share in zip(self._nodes, shares, strict=True):
            node.share = share
            starting.append(node.actor.start.remote(replace(setup, parallel=share), tasks, auth, keys))
        try:
            problems = ray.get(starting)
        except ray.exceptions.RayError as error:
            raise RunFailed(f"a node of the cluster can't start: {reason_of(error)}") from None
        for node, problem in zip(self._nodes, problems, strict=True):
            if problem is not None:
                raise RunFailed(f"{node.host} can't open the benchmark: {problem}")
        self._threads = [
            threading.Thread(target=self._pump, args=(node,), name=f"node-{node.number}", daemon=True)
            for node in self._nodes
        ]
        for thread in self._threads:
            thread.start()

    @property
    def tokens(self) -> int:
        """Token events received so far."""
        return sum(node.told.tokens for node in self._nodes if node.told)

    @property
    def in_flight(self) -> int:
        """Requests in flight, as the nodes last told."""
        return sum(node.told.inside for node in self._nodes if node.told and not node.lost)

    @property
    def busy(self) -> bool:
        """Whether a sample is under way or left."""
        with self._lock:
            if self._draining:  # what had not begun never will
                return any(node.told and node.told.busy for node in self._nodes if not node.lost)
            return bool(self._todo) or any(node.jobs for node in self._nodes)

    @property
    def server(self) -> str | None:
        """The Server header of the answers, once there is one."""
        return next((node.told.server for node in self._nodes if node.told and node.told.server), None)

    @property
    def capabilities(self) -> Capabilities:
        """What is known of the server so far, by the node that has learned most."""
        told = [node.told.capabilities for node in self._nodes if node.told]
        return max([self._capabilities, *told], key=lambda one: len(one.notes))

    def start(self, jobs: Iterable[SampleJob]) -> None:
        """Take on samples."""
        with self._lock:
            self._todo.extend(jobs)
            self._hand_out()

    def share(self, limit: int) -> None:
        """Share a new number of requests in flight."""
        with self._lock:
            alive = [node for node in self._nodes if not node.lost]
            for node, part in zip(alive, _shares(limit, len(alive)), strict=True):
                before, node.share = node.limit, part
                if node.limit != before:
                    node.actor.limit.remote(node.limit)
            self._hand_out()

    def drain(self) -> None:
        """Start no further sample; requests in flight go on."""
        with self._lock:
            self._draining = True
            self._todo.clear()
            for node in self._nodes:
                node.told = node.told and replace(node.told, busy=bool(node.jobs))  # until it tells
            for node in self._nodes:
                if not node.lost:
                    node.actor.drain.remote()

    def cancel(self) -> None:
        """Cancel the requests in flight, too."""
        self.drain()
        for node in self._nodes:
            if not node.lost:
                node.actor.cancel.remote()

    def join(self, seconds: float) -> None:
        """Wait so long for the samples under way."""
        deadline = time.monotonic() + seconds
        while self.busy and time.monotonic() < deadline:
            time.sleep(0.02)

    def findings(self) -> list[Finding]:
        """The nodes that were lost."""
        lost = [f"{node.host}: {node.lost}" for node in self._nodes if node.lost]
        if not lost:
            return []
        text = f"{'; '.join(lost)}: {self._failed} requests failed with it, {self._again} samples were asked again"
        return [Finding("lost_worker", "warn", f"{text} on other nodes")]

    def close(self) -> None:
        """End the pools."""
        import ray

        self._closed = True
        closing = [node.actor.close.remote() for node in self._nodes if not node.lost]
        with contextlib.suppress(Exception):
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)

    # -- handing out and taking back -------------------------------------------------------------------

    def _hand_out(self) -> None:
        """Give waiting samples to the nodes that have most room."""
        batches: dict[int, list[SampleJob]] = {}
        while self._todo:
            node = max(self._nodes, key=lambda node: node.room)
            if node.room <= 0:
                break
            job = self._todo.popleft()
            node.jobs[job.key] = job
            batches.setdefault(node.number, []).append(job)
        for number, jobs in batches.items():
            self._nodes[number].actor.ask.remote([
                RemoteJob(job.point_id, job.task.name, job.sample, job.effort, job.epoch, job.first_attempt)
                for job in jobs
            ])  # fmt: skip

    def _pump(self, node: _Node) -> None:
        import ray

        try:
            while True:
                told = ray.get(node.actor.fetch.remote())
                for event in told.events:
                    self._take(node, event)
                with self._lock:  # after its events: a node that is not busy has told everything
                    node.told = told
                    self._hand_out()
                    away = node.unreachable >= AWAY_SAMPLES and any(
                        not (other.lost or other is node or other.unreachable) for other in self._nodes
                    )
                if away:
                    self._is_lost(node, "it can't reach the server any more")
                    return
        except Exception as error:  # noqa: BLE001 (whatever Ray says of a node that is gone)
            self._is_lost(node, reason_of(error))
        except BaseException as error:  # noqa: BLE001 (raised in the main thread)
            self._events.put(error)

    def _take(self, node: _Node, event: PoolEvent) -> None:
        """Pass an event on, with this machine's times."""
        with self._lock:
            if isinstance(event, Started):
                node.in_flight[event.record.request_id] = event.record
                node.attempts[event.name] = max(event.record.attempt, node.attempts.get(event.name, 0))
                return
            if isinstance(event, RequestRecord):
                node.in_flight.pop(event.request_id, None)
                event.worker, event.parallel = node.number, self.concurrency.limit
                _move(event, node.offset_ns)
                self.concurrency.most = max(self.concurrency.most, self.in_flight)
            elif isinstance(event, SampleRecord):
                job = node.jobs.pop((event.point_id, event.subset, event.sample_id, event.epoch), None)
                node.attempts.pop(job.request_name if job else "", None)
                node.unreachable = node.unreachable + 1 if event.error_kind in UNREACHABLE else 0
                _move(event, node.offset_ns)
                self._hand_out()
        if isinstance(event, Said):
            event = Said(f"{node.host}: {event.line}")
        self._events.put(event)

    def _is_lost(self, node: _Node, reason: str) -> None:
        """A node is gone: its requests have failed, and its samples are asked again elsewhere."""
        import ray

        with self._lock:
            if self._closed:
                return
            node.lost = reason
            lost, node.in_flight = list(node.in_flight.values()), {}
            jobs, node.jobs = list(node.jobs.values()), {}
            self._failed += len(lost)
            alive = [other for other in self._nodes if not other.lost]
            again = 0 if self._draining or not alive else len(jobs)
            self._again += again
            if again:
                self._todo.extendleft(
                    replace(job, first_attempt=node.attempts.get(job.request_name, job.first_attempt - 1) + 1)
                    for job in reversed(jobs)
                )
        with contextlib.suppress(Exception):
            ray.kill(node.actor)  # if it is only out of reach, it must not go on
        for record in lost:
            record.worker, record.end_ns, record.parallel = node.number, time.time_ns(), self.concurrency.limit
            record.status, record.error_kind = "error", "client"
            record.error_message = f"the node {node.host} was lost: {reason}"
            self._events.put(record)
        if not alive:
            self._events.put(RunFailed("all nodes of the cluster were lost"))
            return
        more = f"; its {again} samples are asked again elsewhere" if again else ""
        self._events.put(Said(f"{node.host} was lost: {reason}{more}"))
        self.share(self.concurrency.limit)


def _shares(total: int, parts: int) -> list[int]:
    """A number in so many nearly equal parts."""
    return [total // parts + (place < total % parts) for place in range(parts)]


def _move(record: RequestRecord | SampleRecord, offset_ns: int) -> None:
    """Move a record's timestamps, of a clock that is `offset_ns` ahead, to this machine's."""
    for name in TIMES if offset_ns else ():
        value = getattr(record, name, None)
        if value is not None:
            setattr(record, name, value - offset_ns)
