"""Responses under way: what workers saw, decoded request by request."""

from __future__ import annotations

from collections.abc import Callable

from oss_eval.load.messages import Batch
from oss_eval.probe.decode import ResponseDecoder
from oss_eval.records import RequestRecord

Begin = Callable[[int, int, int, int | None], ResponseDecoder]
"""(worker, tag, attempt, start_ns) -> the decoder of a request; start_ns None when nothing was sent."""

End = Callable[[int, ResponseDecoder, RequestRecord], None]
"""(tag, decoder, record): a request is over."""


class Replies:
    """Feeds the batches of any number of workers to one decoder a request."""

    def __init__(self, begin: Begin, end: End) -> None:
        self._begin, self._end = begin, end
        self._decoders: dict[int, ResponseDecoder] = {}
        self.tokens = 0
        """Token events so far."""

    def __len__(self) -> int:
        """Requests under way."""
        return len(self._decoders)

    def take(self, worker: int, batch: Batch) -> None:
        """Starts before reads before ends: within a batch a request may have all three."""
        decoders = self._decoders
        for tag, attempt, start_ns in batch.started:
            decoders[tag] = self._begin(worker, tag, attempt, start_ns)
        view, offset = memoryview(batch.data), 0
        for tag, kernel_ns, seen_ns, length in zip(
            batch.tags, batch.kernel_ns, batch.seen_ns, batch.lengths, strict=True
        ):
            end = offset + length
            self.tokens += decoders[tag].feed(kernel_ns, seen_ns, view[offset:end])
            offset = end
        for tag, attempt, sent_ns, ended_ns, kind, message in batch.ended:
            if sent_ns is None:  # no connection, so nothing was sent
                decoders[tag] = self._begin(worker, tag, attempt, None)
            decoder = decoders.pop(tag)
            record = decoder.finish(kind, message)
            if kind is not None:
                record.end_ns = ended_ns
            self._end(tag, decoder, record)
