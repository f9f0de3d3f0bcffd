"""Responses under way: what workers saw, decoded request by request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oss_eval.load.messages import Batch
from oss_eval.probe.decode import ResponseDecoder
from oss_eval.records import RequestRecord

Begin = Callable[[int, int, int, int | None, int], ResponseDecoder]
"""(worker, tag, attempt, start_ns, server) -> the decoder of a request; start_ns None when nothing was sent."""

End = Callable[[int, ResponseDecoder, RequestRecord], None]
"""(tag, decoder, record): a request is over."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the answers of a run are read."""

    api: str = "chat"
    split_think: bool = False
    count_tokens: Callable[[str], int] | None = None
    urls: tuple[str, ...] = ()
    """The servers, by number."""

    def url(self, server: int) -> str | None:
        """A server's address, to be stored with its requests."""
        return self.urls[server] if server < len(self.urls) else None

    def decoder(self, record: RequestRecord, **more: Any) -> ResponseDecoder:
        """A decoder for one answer."""
        return ResponseDecoder(
            record, count_tokens=self.count_tokens, api=self.api, split_think=self.split_think, **more
        )


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

    def silent(self, now_ns: int, seconds: float) -> list[tuple[int, int]]:
        """(worker, tag) of requests that have been under way for so long without a token event."""
        before = now_ns - int(seconds * 1e9)
        return [
            (decoder.record.worker, tag)
            for tag, decoder in self._decoders.items()
            if decoder.record.first_token_ns is None and (decoder.record.start_ns or now_ns) < before
        ]

    def take(self, worker: int, batch: Batch) -> None:
        """Starts before reads before ends: within a batch a request may have all three."""
        decoders = self._decoders
        for tag, attempt, start_ns, server in batch.started:
            decoders[tag] = self._begin(worker, tag, attempt, start_ns, server)
        view, offset = memoryview(batch.data), 0
        for tag, kernel_ns, seen_ns, length in zip(
            batch.tags, batch.kernel_ns, batch.seen_ns, batch.lengths, strict=True
        ):
            end = offset + length
            self.tokens += decoders[tag].feed(kernel_ns, seen_ns, view[offset:end])
            offset = end
        for tag, attempt, sent_ns, ended_ns, kind, message, server in batch.ended:
            if sent_ns is None:  # no connection, so nothing was sent
                decoders[tag] = self._begin(worker, tag, attempt, None, server)
            decoder = decoders.pop(tag)
            record = decoder.finish(kind, message)
            if kind is not None:
                record.end_ns = ended_ns
            self._end(tag, decoder, record)
