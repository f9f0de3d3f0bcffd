"""Requests of one sample: sent within the concurrency limit, retried after failures that may pass."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from oss_eval.bench.concurrency import ConcurrencyLimit
from oss_eval.bench.retry import BACKOFF, FINAL_STATUS, LONGEST_BACKOFF, LONGEST_WAIT, retry_after
from oss_eval.endpoint.adaptation import RequestAdapter
from oss_eval.load.client import Answer, RequestClient
from oss_eval.probe.apis import DIALECTS, Generation
from oss_eval.records import RequestRecord

BENCHMARK_FIELDS = ("max_tokens", "temperature", "top_p", "seed", "reasoning_effort")
"""Settings that a benchmark may choose where the run sets none."""


def request_name(point_id: str, name: str, epoch: int) -> str:
    """What the ids of all requests of a sample begin with; `name` is the sample's."""
    return f"{point_id}/{name}/{epoch}"


class RequestFailed(Exception):
    """A request failed for good; `record` is that of its last attempt."""

    def __init__(self, record: RequestRecord) -> None:
        super().__init__(record.error_message or record.error_kind or "failed")
        self.record = record


class SampleStopped(BaseException):
    """The run is being stopped: this sample is not finished and leaves no row.

    A BaseException, so that no `except Exception` of a benchmark's own code catches it.
    """


@dataclass(slots=True)
class BenchContext:
    """What all samples of a run share: the connection to the server, and what is known of it so far."""

    client: RequestClient
    concurrency: ConcurrencyLimit
    retries: int
    model: str
    run_id: str
    api: str = "chat"
    adapter: RequestAdapter = field(default_factory=RequestAdapter)
    on_refusal: Callable[[], None] = lambda: None
    """Called when the server asks for fewer requests."""
    on_record: Callable[[RequestRecord], None] = lambda record: None
    """Called for every request that has ended, failed attempts too; from any thread."""
    on_start: Callable[[RequestRecord, str], None] | None = None
    """Called for every request that is about to be sent, with what the ids of its sample's requests begin with;
    from any thread."""
    blocking: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered while a thread waits for something other than an answer."""
    draining: threading.Event = field(default_factory=threading.Event)
    """Set when no sample may start and no retry may wait."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when requests in flight are cancelled too; after `draining`."""
    server: str | None = None
    """The Server header of the answers, once there is one."""


class SampleClient:
    """Sends the requests of one sample, epoch and effort. Used by one thread at a time."""

    def __init__(
        self,
        context: BenchContext,
        point_id: str,
        name: str,
        sample_id: str,
        epoch: int,
        generation: Generation,
        first_attempt: int = 1,
    ) -> None:
        """`name` distinguishes the sample in request ids; `generation` holds for every request. `first_attempt` is
        more than 1 where earlier attempts were lost."""
        self._context, self._generation = context, generation
        self._point_id = point_id
        self.request_name = request_name(point_id, name, epoch)
        """What the ids of its requests begin with."""
        self._sample_id, self._epoch, self._effort = sample_id, epoch, generation.reasoning_effort
        self.first_attempt = first_attempt
        self.answers: list[Answer] = []
        """The answered requests, in order."""
        self.attempts = 0
        """Most attempts that a request took."""
        self.waited = 0.0
        """Seconds between attempts."""
        self.request_id = ""
        """The latest request's."""
        self.failure: RequestFailed | None = None
        """The request that failed for good, also when a benchmark has caught the exception."""

    def ask(self, body: dict[str, Any]) -> Answer:
        """The answer to `messages` and further fields of a chat request; the run's settings take precedence.

        After 429 and 503 it waits as long as Retry-After says (RFC 9110, section 10.2.3), after other failures
        that may pass an exponential time with full jitter (Brooker 2015, Exponential Backoff And Jitter, AWS
        Architecture Blog). Raises RequestFailed and SampleStopped.
        """
        context, messages, generation = self._context, *self._request(body)
        turn = _Turn(self, messages, len(self.answers) + 1)
        for attempt in range(1, context.retries + 2):
            self.attempts = max(self.attempts, attempt + self.first_attempt - 1)
            record = context.adapter.send(generation, turn.send)
            if record.status == "ok":
                self.answers.append(turn.answer)
                return turn.answer
            if record.http_status in FINAL_STATUS or attempt > context.retries:
                break
            with context.blocking():
                self._wait(turn.answer, attempt)
        raise self._failed(record)

    def _request(self, body: dict[str, Any]) -> tuple[list[dict[str, Any]], Generation]:
        """Messages, and the run's settings with those that the benchmark chooses where the run sets none."""
        fields = dict(body)
        messages = fields.pop("messages")
        for name in ("model", "stream", "stream_options"):
            fields.pop(name, None)
        chosen = {name: fields.pop(name) for name in BENCHMARK_FIELDS if name in fields}
        changes = {name: value for name, value in chosen.items() if getattr(self._generation, name) is None}
        return messages, replace(self._generation, **changes, extra=(*fields.items(), *self._generation.extra))

    def _failed(self, record: RequestRecord) -> RequestFailed:
        self.failure = RequestFailed(record)
        return self.failure

    def new_record(self, turn: int, attempt: int) -> RequestRecord:
        """The record of a request that is about to be sent."""
        request_id = self.request_name + (f"/t{turn}" if turn > 1 else "")
        self.request_id = f"{request_id}/a{attempt}" if attempt > 1 else request_id
        return RequestRecord(
            run_id=self._context.run_id,
            point_id=self._point_id,
            request_id=self.request_id,
            worker=0,
            warmup=False,
            attempt=attempt,
            model=self._context.model,
            reasoning_effort=self._effort,
            parallel=self._context.concurrency.limit,
            sample_id=self._sample_id,
            epoch=self._epoch,
        )

    def _wait(self, answer: Answer, attempt: int) -> None:
        """Wait between attempts, outside of the concurrency limit.

        Raises SampleStopped, or RequestFailed when the server asks for a longer wait than LONGEST_WAIT.
        """
        pause = None
        if answer.record.http_status in (429, 503):
            pause = retry_after(answer.reply.retry_after)
        if pause is None:
            pause = random.uniform(0, min(LONGEST_BACKOFF, BACKOFF * 2 ** (attempt - 1)))
        elif pause > LONGEST_WAIT:
            raise self._failed(answer.record)
        started = time.monotonic()
        stopped = self._context.draining.wait(pause)
        self.waited += time.monotonic() - started
        if stopped:
            raise SampleStopped


class _Turn:
    """One request of a sample and its attempts."""

    def __init__(self, client: SampleClient, messages: list[dict[str, Any]], number: int) -> None:
        self._client, self._messages, self._number = client, messages, number
        self._attempt = client.first_attempt - 1
        self.answer: Answer
        """Of the latest attempt."""

    def send(self, settings: Generation) -> RequestRecord:
        """Send the request once, within the concurrency limit. Raises SampleStopped."""
        context = self._client._context
        self._attempt += 1
        body = orjson.dumps(DIALECTS[context.api].body(self._messages, settings))
        with context.concurrency.passing():
            if context.stopping.is_set() or (context.draining.is_set() and not self._client.answers):
                raise SampleStopped
            started = self._client.new_record(self._number, self._attempt)
            if context.on_start is not None:
                context.on_start(started, self._client.request_name)
            self.answer = context.client.ask(started, body).result()
        record = self.answer.record
        context.on_record(record)
        context.server = self.answer.reply.server or context.server
        if record.status == "cancelled":
            raise SampleStopped
        if record.http_status in (429, 503):
            context.on_refusal()
        return record
