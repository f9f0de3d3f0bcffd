"""Responses under way: what workers saw, decoded request by request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from oss_eval.load.workers.messages import Batch, CancelRequests
from oss_eval.probe.decode import ResponseDecoder
from oss_eval.records import RequestRecord

Begin = Callable[[int, int, int, int | None, int, int | None], ResponseDecoder]
"""(worker, tag, attempt, start_ns, server, scheduled_ns) -> the decoder of a request; start_ns None when nothing
was sent."""

End = Callable[[int, ResponseDecoder, RequestRecord], None]
"""(tag, decoder, record): a request is over."""


class InFlight:
    """Feeds the batches of any number of workers to one decoder a request."""

    def __init__(self, begin: Begin, end: End) -> None:
        self._begin, self._end = begin, end
        self._decoders: dict[int, ResponseDecoder] = {}
        self.tokens = 0
        """Token events so far."""

    def __len__(self) -> int:
        """Requests under way."""
        return len(self._decoders)

    def overdue(self, first: float | None, idle: float, known: float) -> Iterator[tuple[int, CancelRequests]]:
        """(worker, what to tell it) of requests to be given up.

        No token event within `first` seconds, no further one within `idle`, or more bytes than are taken; by a
        clock that nobody can set. Until `known` all has been taken that the workers saw.
        """
        for tag, decoder in self._decoders.items():
            waited, worker = known - decoder.moved, decoder.record.worker
            if decoder.too_large:
                yield worker, CancelRequests(tag, "too_large", "too large")
            elif decoder.record.first_token_ns is not None:
                if waited > idle:
                    yield worker, CancelRequests(tag, "timeout_idle", f"no further token within {idle:g} s")
            elif first is not None and waited > first:
                yield worker, CancelRequests(tag, "timeout_first_token", f"no token within {first:g} s")

    def lose(self, kind: str, message: str, worker: int | None = None) -> None:
        """End what is under way, of one worker or of all: nothing more will be heard of it."""
        for tag, decoder in list(self._decoders.items()):
            if worker in (None, decoder.record.worker):
                del self._decoders[tag]
                self._end(tag, decoder, decoder.finish(kind, message))

    def take(self, worker: int, batch: Batch) -> None:
        """Starts before reads before ends: within a batch a request may have all three."""
        decoders, now = self._decoders, time.monotonic()
        for tag, attempt, start_ns, server, scheduled_ns in batch.started:
            decoders[tag] = self._begin(worker, tag, attempt, start_ns, server, scheduled_ns)
            decoders[tag].moved = now
        view, offset = memoryview(batch.data), 0
        for tag, kernel_ns, seen_ns, length in zip(
            batch.tags, batch.kernel_ns, batch.seen_ns, batch.lengths, strict=True
        ):
            end = offset + length
            decoder = decoders[tag]
            tokens = decoder.feed(kernel_ns, seen_ns, view[offset:end])
            if tokens:
                self.tokens += tokens
                decoder.moved = now
            offset = end
        for tag, attempt, sent_ns, ended_ns, kind, message, server, scheduled_ns in batch.ended:
            if sent_ns is None:  # no connection, so nothing was sent
                decoders[tag] = self._begin(worker, tag, attempt, None, server, scheduled_ns)
            decoder = decoders.pop(tag)
            record = decoder.finish(kind, message)
            if kind is not None:
                record.end_ns = ended_ns
            self._end(tag, decoder, record)
