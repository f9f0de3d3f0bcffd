"""The threads that ask and score samples, with their connections: on this machine, or on one node of a cluster."""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from oss_eval.analysis.checks import Finding
from oss_eval.bench.client import BenchContext, SampleClient, SampleStopped
from oss_eval.bench.concurrency import ConcurrencyLimit, ConcurrencyTuner, Limit
from oss_eval.bench.plan import SampleJob
from oss_eval.bench.scoring.judge import KEY as JUDGE_KEY
from oss_eval.bench.scoring.score_sample import sample_record
from oss_eval.bench.scoring.scorer_process import ScorerProcess
from oss_eval.bench.thread_pool import ThreadPool
from oss_eval.config.bench_task import BenchTask
from oss_eval.endpoint.adaptation import RequestAdapter
from oss_eval.endpoint.capabilities import Capabilities, request_capabilities
from oss_eval.endpoint.server import Server
from oss_eval.errors import OssEvalError
from oss_eval.load.client import RequestClient
from oss_eval.load.generation import generation
from oss_eval.load.workers.process import Limits
from oss_eval.probe.decode_options import DecodeOptions
from oss_eval.probe.error_body import MESSAGE_BYTES
from oss_eval.probe.target import Target
from oss_eval.records import RequestRecord, SampleRecord
from oss_eval.run.options import limits
from oss_eval.system.redact import redacted
from oss_eval.system.text import cut

SPARE_THREADS = 32
"""Threads beyond the requests in flight: for samples that are being scored meanwhile."""
KEYS = (JUDGE_KEY, "OPENAI_API_KEY")
"""Environment variables that hold the key of a judge."""


@dataclass(frozen=True, slots=True)
class PoolSetup:
    """What the samples of a run have in common. It may hold keys: never print or store it."""

    run_id: str
    model: str
    api: str
    targets: tuple[Target, ...]
    limits: Limits
    reading: DecodeOptions
    secrets: tuple[str, ...]
    retries: int
    parallel: int
    """Requests in flight at first."""
    threads: int
    capabilities: Capabilities


def pool_setup(run_id: str, task: BenchTask, server: Server) -> PoolSetup:
    """The setup of a run's samples; the endpoint, concurrency, retries and timeouts of `task` hold for all."""
    auto = task.parallel == "auto"
    parallel = ConcurrencyTuner.START if task.parallel == "auto" else task.parallel
    return PoolSetup(
        run_id, server.model, server.endpoint.api, server.targets(), limits(task), server.reading(task),
        server.secrets, task.retries, parallel, (ConcurrencyTuner.MOST if auto else parallel) + SPARE_THREADS,
        request_capabilities(server, task),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Started:
    """A request is about to be sent."""

    record: RequestRecord
    name: str
    """What the ids of all requests of its sample begin with."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The server asked for fewer requests."""


@dataclass(frozen=True, slots=True)
class Said:
    """A line for the user."""

    line: str


PoolEvent = Started | Refused | Said | RequestRecord | SampleRecord | BaseException
"""What a pool says: requests and samples that have ended among it, and exceptions that end the run."""


class Pool(Protocol):
    """Asks and scores samples. Events are put into a queue, from any thread."""

    @property
    def concurrency(self) -> Limit:
        """Requests in flight, and their limit."""

    @property
    def tokens(self) -> int:
        """Token events received so far."""

    @property
    def busy(self) -> bool:
        """Whether a sample is under way or left."""

    @property
    def server(self) -> str | None:
        """The Server header of the answers, once there is one."""

    @property
    def capabilities(self) -> Capabilities:
        """What is known of the server so far."""

    def start(self, jobs: Iterable[SampleJob]) -> None:
        """Take on samples."""

    def drain(self) -> None:
        """Start no further sample; requests in flight go on."""

    def cancel(self) -> None:
        """Cancel the requests in flight, too."""

    def join(self, seconds: float) -> None:
        """Wait so long for the samples under way."""

    def findings(self) -> list[Finding]:
        """What is to be said of the run."""

    def close(self) -> None:
        """End the connections."""


class SamplePool:
    """A pool in this process."""

    def __init__(
        self, setup: PoolSetup, scorers: ScorerProcess, events: queue.Queue[PoolEvent], tells_starts: bool = False
    ) -> None:
        """`tells_starts`: whether requests that are about to be sent are events, too."""
        self._scorers, self._events, self._secrets = scorers, events, setup.secrets
        self.concurrency = ConcurrencyLimit(setup.parallel)
        self._adapter = RequestAdapter(
            setup.capabilities,
            lambda note: events.put(Said(f"the server refuses a field: {note}")),
            until_first_answer=True,
        )
        self._client = RequestClient(setup.run_id, setup.targets, setup.limits, setup.reading, setup.secrets)
        self._context = BenchContext(
            self._client, self.concurrency, setup.retries, setup.model, setup.run_id, setup.api, self._adapter,
            on_refusal=lambda: events.put(Refused()), on_record=self._ended,
            on_start=(lambda record, name: events.put(Started(replace(record), name))) if tells_starts else None,
        )  # fmt: skip
        self._threads = ThreadPool[SampleJob](setup.threads, self._work)
        self._context.blocking = self._threads.blocking

    @property
    def tokens(self) -> int:
        """Token events received so far."""
        return self._client.tokens

    @property
    def busy(self) -> bool:
        """Whether a sample is under way or left."""
        return self._threads.busy

    @property
    def resting(self) -> int:
        """Samples that wait for a judge, or between two attempts."""
        return self._threads.resting

    @property
    def server(self) -> str | None:
        """The Server header of the answers, once there is one."""
        return self._context.server

    @property
    def capabilities(self) -> Capabilities:
        """What is known of the server so far."""
        return self._adapter.capabilities

    def start(self, jobs: Iterable[SampleJob]) -> None:
        """Take on samples."""
        self._threads.start(jobs)

    def drain(self) -> None:
        """Start no further sample; requests in flight go on."""
        self._context.draining.set()
        self._threads.clear()

    def cancel(self) -> None:
        """Cancel the requests in flight, too."""
        self.drain()
        self._context.stopping.set()
        self._client.stop()

    def join(self, seconds: float) -> None:
        """Wait so long for the samples under way."""
        self._threads.stop(seconds)

    def findings(self) -> list[Finding]:
        """None: what concerns the run is found in the main process."""
        return []

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def _ended(self, record: RequestRecord) -> None:
        record.text = record.reasoning_text = None  # the sample holds them
        self._events.put(record)

    # -- the threads -----------------------------------------------------------------------------------

    def _work(self, job: SampleJob) -> None:
        """Ask and score a sample; its record, or what it raised, is an event."""
        try:
            record = self._sample(job)
        except SampleStopped:
            if not self._context.draining.is_set():
                self._events.put(OssEvalError("a request was cancelled although the run is not being stopped"))
        except BaseException as error:  # noqa: BLE001 (raised in the main thread)
            self._events.put(error)
        else:
            self._events.put(record)

    def _sample(self, job: SampleJob) -> SampleRecord:
        context = self._context
        if context.draining.is_set():
            raise SampleStopped
        sample, seed = job.sample, job.task.seed
        # Each epoch has a seed of its own: with the same one, all epochs would get the same answer.
        settings = generation(
            job.task, context.model, job.effort, seed=None if seed is None else seed + job.epoch - 1
        )
        client = SampleClient(
            context, job.point_id, job.name, sample.sample_id, job.epoch, settings, job.first_attempt
        )
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
        for key in map(os.environ.get, KEYS):
            text = text.replace(key, "***") if key else text
        return cut(redacted(text, self._secrets), MESSAGE_BYTES)
