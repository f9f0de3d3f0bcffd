"""Responses under way: what workers saw, decoded request by request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from oss_eval.load.workers.messages import Batch, CancelRequests
from oss_eval.probe.decode import ResponseDecoder
from oss_eval.probe.known_events import KnownShapes
from oss_eval.probe.reads import COLUMNS
from oss_eval.records import RequestRecord

Begin = Callable[[int, int, int, int | None, int, int | None], ResponseDecoder]
"""(worker, tag, attempt, start_ns, server, scheduled_ns) -> the decoder of a request; start_ns None when nothing
was sent."""

End = Callable[[int, ResponseDecoder, RequestRecord], None]
"""(tag, decoder, record): a request is over."""


class InFlight:
    """Feeds the batches of any number of workers to one decoder a request."""

    def __init__(self, begin: Begin, end: End, shapes: KnownShapes | None = None) -> None:
        self._begin, self._end = begin, end
        self._decoders: dict[int, ResponseDecoder] = {}
        self._shapes = shapes or KnownShapes()
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
        self._read(batch, now)
        for tag, attempt, sent_ns, ended_ns, kind, message, server, scheduled_ns in batch.ended:
            if sent_ns is None:  # no connection, so nothing was sent
                decoders[tag] = self._begin(worker, tag, attempt, None, server, scheduled_ns)
            decoder = decoders.pop(tag)
            record = decoder.finish(kind, message)
            if kind is not None:
                record.end_ns = ended_ns
            self._end(tag, decoder, record)

    def _read(self, batch: Batch, now: float) -> None:
        """The reads of a batch, stream by stream: a stream's events of a known shape are taken together."""
        if not batch.rows:
            return
        import numpy as np  # not needed before there is something to read

        rows = np.frombuffer(batch.rows, dtype=np.int64).reshape(-1, COLUMNS)
        data_ends = np.cumsum(np.maximum(rows[:, 3], 0))
        order = np.argsort(rows[:, 0], kind="stable")
        tags, kernel, seen, lengths, counts = (np.ascontiguousarray(column) for column in rows[order].T)
        # A group is a read with its data, or all events of one stream and one shape that follow each other.
        begins = np.flatnonzero(
            np.concatenate(([True], (np.diff(tags) != 0) | (np.diff(lengths) != 0) | (lengths[1:] >= 0)))
        )
        view = memoryview(batch.data)
        ends = [*begins[1:].tolist(), len(tags)]
        groups = zip(
            begins.tolist(), ends, tags[begins].tolist(), lengths[begins].tolist(),
            data_ends[order][begins].tolist(), strict=True,
        )  # fmt: skip
        for first, last, tag, length, end in groups:
            decoder = self._decoders[tag]
            if length >= 0:
                tokens = decoder.feed(int(kernel[first]), int(seen[first]), view[end - length : end])
            else:
                shape = self._shapes[-1 - length]
                tokens = decoder.known(shape, kernel[first:last], seen[first:last], counts[first:last])
            if tokens:
                self.tokens += tokens
                decoder.moved = now
