"""Single requests from any thread, each with its text and record: the probe for benchmarks.

The socket is read in a worker process, as in a load sweep, so grading, storing and the threads that wait for
answers can't delay a timestamp.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from oss_eval.errors import OssEvalError, RunFailed
from oss_eval.load.redaction import RedactedText, redact_record, redact_reply
from oss_eval.load.workers.in_flight import InFlight
from oss_eval.load.workers.messages import Ask, Batch, Setup, Stop
from oss_eval.load.workers.process import Limits, WorkerProcess
from oss_eval.probe.decode import ResponseDecoder
from oss_eval.probe.decode_options import DecodeOptions
from oss_eval.probe.reply import Reply
from oss_eval.probe.target import Target
from oss_eval.records import RequestRecord

LOOK_SECONDS = 0.25
"""Seconds between checks for overdue streams while nothing arrives."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The record and the text of a response."""

    record: RequestRecord
    reply: Reply


@dataclass(slots=True)
class _Pending:
    record: RequestRecord
    answer: Future[Answer]
    on_text: Callable[[str, str], None] | None
    redacting: RedactedText | None = None


class RequestClient:
    """Sends single requests through one worker process. Safe to use from any thread."""

    def __init__(
        self,
        run_id: str,
        targets: tuple[Target, ...],
        limits: Limits,
        reading: DecodeOptions | None = None,
        secrets: tuple[str, ...] = (),
    ) -> None:
        """`secrets` are removed from what servers say: answers, reasoning, tool calls, finish reasons, errors."""
        self._limits, self._reading = limits, reading or DecodeOptions()
        setup = Setup(0, targets, run_id, limits.connect, limits.read, limits.total, self._reading.most_bytes)
        self._worker = WorkerProcess(0, setup)
        self._secrets = secrets
        self._lock = threading.Lock()
        self._pending: dict[int, _Pending] = {}
        self._tag = 0
        self._closed = self._stopped = self._died = False
        self._replies = InFlight(self._begin, self._end)
        self._reader = threading.Thread(target=self._read, name="answers", daemon=True)
        self._reader.start()

    @property
    def tokens(self) -> int:
        """Token events received so far, of all requests."""
        return self._replies.tokens

    def ask(
        self, record: RequestRecord, body: bytes, on_text: Callable[[str, str], None] | None = None
    ) -> Future[Answer]:
        """Send a request at once. `record` says which one it is; timestamps and counts are filled in. `on_text`
        gets (answer, reasoning) pieces as they come, on the reader's thread.

        A failed request is an answer too: its record says why. The future holds OssEvalError if the worker
        process is gone.
        """
        answer: Future[Answer] = Future()
        with self._lock:
            if self._died:
                answer.set_exception(_gone())
                return answer
            if self._closed or self._stopped:
                record.status, record.error_kind, record.error_message = "cancelled", "cancelled", "stopped"
                answer.set_result(Answer(record, Reply()))
                return answer
            self._tag += 1
            self._pending[self._tag] = _Pending(record, answer, on_text)
            with contextlib.suppress(OSError):  # a worker that died: the reader says so
                self._worker.send(Ask(self._tag, f"{record.run_id}/{record.request_id}", body))
        return answer

    def stop(self) -> None:
        """Cancel requests in flight and all later ones."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._worker.send(Stop(abort=True))

    def close(self) -> None:
        """End the worker process."""
        with self._lock:
            self._closed = True
        with contextlib.suppress(OSError):
            self._worker.socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._worker.close()

    def __enter__(self) -> RequestClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- the reader's thread ---------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            self._read_all()
        finally:
            self._resolve_rest()

    def _read_all(self) -> None:
        next_look = 0.0
        with selectors.DefaultSelector() as selector:  # the socket itself blocks: what is sent is sent whole
            selector.register(self._worker.socket, selectors.EVENT_READ)
            while True:
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + LOOK_SECONDS
                    self._end_silent()
                if not selector.select(LOOK_SECONDS):
                    if self._closed:  # a closed socket is never ready again
                        return
                    continue
                try:
                    data = self._worker.socket.recv(1 << 20)
                except OSError:
                    return
                if not data:
                    return
                for message in self._worker.inbox.feed(data):
                    if isinstance(message, Batch):
                        self._replies.take(0, message)

    def _resolve_rest(self) -> None:
        """Nothing more will come: whoever still waits learns why."""
        with self._lock:
            left, self._pending = list(self._pending.values()), {}
            self._died, self._closed = not self._closed, True
        for pending in left:
            if self._died:
                pending.answer.set_exception(_gone())
            else:
                pending.record.status, pending.record.error_kind = "cancelled", "cancelled"
                pending.answer.set_result(Answer(pending.record, Reply()))

    def _end_silent(self) -> None:
        """Give up what is overdue."""
        for _, what in self._replies.overdue(self._limits.first_token, self._limits.read, time.monotonic()):
            with self._lock, contextlib.suppress(OSError):
                self._worker.send(what)

    def _begin(
        self, worker: int, tag: int, attempt: int, start_ns: int | None, server: int, scheduled_ns: int | None
    ) -> ResponseDecoder:
        pending = self._pending[tag]
        record = pending.record
        record.worker, record.scheduled_ns, record.start_ns = worker, scheduled_ns, start_ns
        record.url = self._reading.url(server)
        on_text = pending.on_text
        if on_text is not None and self._secrets:
            on_text = pending.redacting = RedactedText(on_text, self._secrets)
        return self._reading.decoder(record, keep_text=True, on_text=on_text)

    def _end(self, tag: int, decoder: ResponseDecoder, record: RequestRecord) -> None:
        with self._lock:
            pending = self._pending.pop(tag)
        if pending.redacting is not None:
            pending.redacting.end()
        redact_record(record, self._secrets)
        redact_reply(decoder.reply, self._secrets)
        pending.answer.set_result(Answer(record, decoder.reply))


def _gone() -> OssEvalError:
    return RunFailed("the worker process ended unexpectedly")
