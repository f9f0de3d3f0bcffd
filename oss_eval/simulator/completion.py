"""One completion in progress, and its bytes on the wire."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from oss_eval.simulator.formats import Format
from oss_eval.simulator.http import ClientConnection
from oss_eval.simulator.truth_log import TruthRow

OVER, UNDER = 50_000_000, 600
"""A Content-Length beyond any answer's end, and one before it: the head, a few events and half of one more."""


@dataclass(slots=True, eq=False)
class Chunk:
    """The tokens of a chunk that is not sent yet."""

    size: int = 1
    """Tokens that it has to hold."""
    tokens: int = 0
    answer: str = ""
    reasoning: str = ""

    def add(self, word: str, thinking: bool) -> None:
        """One more token."""
        self.tokens += 1
        if thinking:
            self.reasoning += word
        else:
            self.answer += word


@dataclass(slots=True, eq=False)
class Completion:
    """One completion in progress."""

    client: ClientConnection
    truth: TruthRow
    format: Format
    usage_wanted: bool
    reasoning: int
    """How many of the tokens are reasoning."""
    cut: bool
    words: Iterator[str]
    text: list[str]
    prompt_tokens: int
    usage_in_chunks: bool = False
    cached_tokens: int | None = None
    """Prompt tokens from the prefix cache; None without one."""
    chunk: Chunk = field(default_factory=Chunk)
    """What the next chunk of the stream holds so far."""
    fault: str | None = None
    """The fault of this completion, or None."""
    pack: Any = None
    """The compressor of the body, or None."""

    @property
    def stream(self) -> bool:
        """Whether the answer is streamed."""
        return self.format.reply.stream

    def send(self, events: bytes) -> int:
        """Send events of a stream; returns the timestamp just before they were written."""
        if not events:
            return time.time_ns()
        if self.fault is not None:
            return self.client.send(self.frame(events))
        return self.client.send(b"%x\r\n%s\r\n" % (len(events), events))

    def framing(self) -> bytes:
        """The headers that declare the framing of a stream."""
        if self.fault in ("length-over", "length-under"):
            return b"Content-Length: %d\r\n" % (OVER if self.fault == "length-over" else UNDER)
        if self.fault == "gzip":
            self.pack = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
            return b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"
        return b"Transfer-Encoding: chunked\r\n"

    def frame(self, data: bytes) -> bytes:
        """Bytes of a stream as they go over the wire."""
        if self.pack is not None:
            data = self.pack.compress(data) + self.pack.flush(zlib.Z_SYNC_FLUSH)
        elif self.fault in ("length-over", "length-under"):
            return data
        return b"%x\r\n%s\r\n" % (len(data), data)

    def end(self) -> bytes:
        """The end of a stream."""
        if self.fault in ("length-over", "length-under"):
            return b""
        if self.pack is not None:
            rest = self.pack.flush()
            return b"%x\r\n%s\r\n0\r\n\r\n" % (len(rest), rest)
        return b"0\r\n\r\n"
