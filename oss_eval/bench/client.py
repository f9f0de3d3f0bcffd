"""One sample's voice: asks its requests through the gate, again where that may help, and keeps what it learned."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from oss_eval.bench.concurrency import ConcurrencyLimit
from oss_eval.bench.retry import BACKOFF, FINAL_STATUS, LONGEST_BACKOFF, LONGEST_WAIT, retry_after
from oss_eval.endpoint.capabilities import Capabilities
from oss_eval.load.client import Answer, RequestClient
from oss_eval.probe.apis import DIALECTS, Generation
from oss_eval.records import RequestRecord

OWN_FIELDS = ("max_tokens", "temperature", "top_p", "seed", "reasoning_effort")
"""Settings that a benchmark may have an opinion of, where the run has none."""


class RequestFailed(Exception):
    """A request failed for good; `record` is its last attempt's."""

    def __init__(self, record: RequestRecord) -> None:
        super().__init__(record.error_message or record.error_kind or "failed")
        self.record = record


class SampleStopped(BaseException):
    """The run is being stopped: this sample is not finished and leaves no row.

    No `except Exception` of a benchmark's own code may catch it.
    """


@dataclass(slots=True)
class BenchContext:
    """What all samples of a run share: the way to the server, and what is known of it by now."""

    client: RequestClient
    concurrency: ConcurrencyLimit
    retries: int
    model: str
    run_id: str
    api: str = "chat"
    capabilities: Capabilities = field(default_factory=Capabilities)
    """What this server takes, as far as is known by now."""
    noted: Callable[[str], None] = lambda note: None
    """Called when a field of the requests had to be changed."""
    refused: Callable[[], None] = lambda: None
    """Called when the server asked for fewer requests."""
    redact: Callable[[str], str] = str
    """Takes the key out of a server's words."""
    seen: Callable[[RequestRecord], None] = lambda record: None
    """Called for every request that is over, failed attempts too; from any thread."""
    blocking: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered while a thread waits for something else than an answer."""
    draining: threading.Event = field(default_factory=threading.Event)
    """Set when no sample is to be begun, and none to be waited for between attempts."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when answers under way are given up too; after `draining`."""
    server: str | None = None
    """What the server calls itself, once it has answered."""
    answered: bool = False
    """Whether a request has succeeded."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def give_in(self, sent: Capabilities, record: RequestRecord, generation: Generation) -> bool:
        """Whether a refused request can be sent again in another form, by now or from now on."""
        with self._lock:
            if self.capabilities is not sent:
                return True  # somebody else has learned it meanwhile
            if self.answered:
                return False  # what was taken before is not refused as such: the answers have to stay alike
            changed = sent.after_refusal(record.http_status, record.error_message or "", generation)
            if changed is None:
                return False
            self.capabilities = changed
            self.noted(changed.notes[-1])
            return True


class SampleClient:
    """Asks for one sample, epoch and effort. Used by one thread at a time."""

    def __init__(
        self,
        context: BenchContext,
        point_id: str,
        name: str,
        sample_id: str,
        epoch: int,
        generation: Generation,
    ) -> None:
        """`name` tells the sample from others in a request's id; `generation` holds for every request."""
        self._context, self._generation = context, generation
        self._point_id, self._name = point_id, name
        self._sample_id, self._epoch, self._effort = sample_id, epoch, generation.reasoning_effort
        self.answers: list[Answer] = []
        """The answered requests, in order."""
        self.attempts = 0
        """Most attempts that a request took."""
        self.waited = 0.0
        """Seconds between attempts."""
        self.request_id = ""
        """The latest request's."""
        self.failure: RequestFailed | None = None
        """The request that failed for good, whatever became of the exception that said so."""

    def ask(self, body: dict[str, Any]) -> Answer:
        """An answer to `messages` and further fields of a chat request; the run's settings win. Raises Failed and
        Stopped.

        429 and 503 wait as long as Retry-After says (RFC 9110, section 10.2.3), other failures that may pass an
        exponential time with full jitter (Brooker 2015, Exponential Backoff And Jitter, AWS Architecture Blog).
        """
        context = self._context
        messages, generation = self._request(body)
        turn, attempt, tries = len(self.answers) + 1, 0, 0
        while True:
            attempt += 1
            tries += 1
            capabilities = context.capabilities
            sending = capabilities.apply(generation)
            request = orjson.dumps(DIALECTS[context.api].body(messages, sending))
            self.attempts = max(self.attempts, tries)
            with context.concurrency.passing():
                if context.stopping.is_set() or (context.draining.is_set() and not self.answers):
                    raise SampleStopped
                sent = self._record(turn, attempt)
                self.request_id = sent.request_id
                future: Future[Answer] = context.client.ask(sent, request)
                answer = future.result()
            record = answer.record
            if record.error_message:
                record.error_message = context.redact(record.error_message)
            context.seen(record)
            context.server = answer.reply.server or context.server
            if record.status == "ok":
                context.answered = True
                self.answers.append(answer)
                return answer
            if record.status == "cancelled":
                raise SampleStopped
            if record.http_status in (429, 503):
                context.refused()
            if record.http_status in (400, 422) and context.give_in(capabilities, record, sending):
                tries -= 1  # the same request in the server's own terms is no retry
                continue
            if record.http_status in FINAL_STATUS or tries > context.retries:
                raise self._failed(record)
            with context.blocking():
                self._wait(answer, tries)

    def _request(self, body: dict[str, Any]) -> tuple[list[dict[str, Any]], Generation]:
        """Messages, and the run's settings with what the benchmark itself wants where they say nothing."""
        rest = dict(body)
        messages = rest.pop("messages")
        for name in ("model", "stream", "stream_options"):
            rest.pop(name, None)
        own = {name: rest.pop(name) for name in OWN_FIELDS if name in rest}
        changes = {name: value for name, value in own.items() if getattr(self._generation, name) is None}
        return messages, replace(self._generation, **changes, extra=(*rest.items(), *self._generation.extra))

    def _failed(self, record: RequestRecord) -> RequestFailed:
        self.failure = RequestFailed(record)
        return self.failure

    def _record(self, turn: int, attempt: int) -> RequestRecord:
        request_id = f"{self._point_id}/{self._name}/{self._epoch}"
        request_id += f"/t{turn}" if turn > 1 else ""
        return RequestRecord(
            run_id=self._context.run_id,
            point_id=self._point_id,
            request_id=f"{request_id}/a{attempt}" if attempt > 1 else request_id,
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
        """Between attempts, outside of the gate. Raises Stopped, or Failed when asked for too much patience."""
        pause = None
        if answer.record.http_status in (429, 503):
            pause = retry_after(answer.reply.retry_after)
        if pause is None:
            pause = random.uniform(0, min(LONGEST_BACKOFF, BACKOFF * 2 ** (attempt - 1)))
        elif pause > LONGEST_WAIT:
            raise self._failed(answer.record)
        begun = time.monotonic()
        stopped = self._context.draining.wait(pause)
        self.waited += time.monotonic() - begun
        if stopped:
            raise SampleStopped
