"""From raw reads and their timestamps to a RequestRecord. Runs where no other stream waits for it."""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httptools
import orjson

from oss_eval.probe.apis import DIALECTS, Delta, count, merge_tool_calls
from oss_eval.probe.empty_events import with_empty
from oss_eval.probe.error_body import MESSAGE_BYTES, error_of
from oss_eval.probe.known_events import Shape, learn_shape, text_of
from oss_eval.probe.reply import Reply
from oss_eval.probe.sse import LineDecoder, SseDecoder
from oss_eval.probe.think_tags import ThinkSplitter
from oss_eval.probe.token_counts import EventTokens, put_counts, put_event_tokens
from oss_eval.records import RequestRecord
from oss_eval.system.text import cut

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

LEARNED = 8
"""Times that a stream's shape is learned: a stream with ever other events is parsed."""

STOPPED = ("stop", "tool_calls")
"""Stop reasons that come with a stop token."""

LEAKS = ("<think>", "<|channel|>", "<|start|>")
"""Prefixes of an answer that contains leaked reasoning."""


class ResponseDecoder:
    """Decodes one response as its reads come in; `finish` completes the record.

    `record` has its `start_ns`; timestamps of the response are filled in. With `keep_text` the answer and the
    reasoning are collected too. `count_tokens` counts the tokens of a text where the server does not.
    """

    def __init__(
        self,
        record: RequestRecord,
        *,
        keep_text: bool = False,
        count_tokens: Callable[[str], int] | None = None,
        api: str = "chat",
        split_think: bool = False,
        on_text: Callable[[str, str], None] | None = None,
        on_shape: Callable[[Shape], None] | None = None,
        most_bytes: int = sys.maxsize,
    ) -> None:
        """`on_text(answer, reasoning)` is called with every piece of either as it comes, `on_shape` with the shape
        of token events when it is learned.

        A response is read up to `most_bytes`, packed or unpacked; beyond it is `too_large`.
        """
        self.record = record
        self._dialect = DIALECTS[api]
        self._splitter = ThinkSplitter() if split_think else None
        self._events: SseDecoder | LineDecoder | None = None
        self.reply = Reply()
        self._keep = keep_text or count_tokens is not None or on_text is not None
        self._on_text, self._on_shape = on_text, on_shape
        self._framing = (b"", b"\n") if self._dialect.lines else (b"data: ", b"\n\n")
        self._count = count_tokens
        self._parser = httptools.HttpResponseParser(self)
        self._feed_http = self._parser.feed_data
        self._inflate: Any = None
        self._body = bytearray()
        self._headers_done = False
        self._complete = False
        self.too_large = False
        self.moved = 0.0
        """Time of the last progress, on the clock of whoever waits for it."""
        self._most = most_bytes
        self._received = self._unpacked = 0
        self._stamp = 0
        self.events = array("q")  # offsets of the token events so far
        self._event_tokens = EventTokens()
        self._empty = array("q")  # offsets of events with an empty text
        self._empty_end: int | None = None  # the same for the event with the stop reason
        self._shape: Shape | None = None
        self._shapes_left = LEARNED
        self._unread: bytes | None = None  # the last event, if it has usage or timings that were not read
        self._usage: dict[str, Any] | None = None
        self._stream_error: str | None = None
        self._bad: str | None = None
        self._lags = array("q")
        self._shared = 0
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._finished_stream = False
        self._answered = False

    # -- bytes -----------------------------------------------------------------------------------------

    def feed(self, kernel_ns: int, seen_ns: int, data: bytes | memoryview) -> int:
        """One read: the kernel's timestamp (0 without one), the time when the client had it, and its bytes.

        Returns the number of token events that it completed.
        """
        if kernel_ns:
            self._lags.append(seen_ns - kernel_ns)
        else:
            kernel_ns = seen_ns
            self.record.clock_source = "user"
        # A segment sent again has a later timestamp than those that follow it, which could not be read before.
        earlier, self._stamp = self._stamp, max(self._stamp, kernel_ns)
        self._received += len(data)
        if self._received > self._most:
            if self.too_large:
                return 0
            self.too_large = True
            data = data[: len(data) - (self._received - self._most)]
        before = len(self.events)
        try:
            self._feed_http(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                self._bad = self._bad or f"not HTTP/1.1: {error}"
        completed = len(self.events) - before
        self._shared += max(0, completed - 1)
        if completed > 1 and not before:  # the timestamp is that of the newest
            self.record.first_token_low_ns = earlier or self.record.start_ns
        return completed

    def known(self, shape: Shape, kernel_ns: Numbers, seen_ns: Numbers, counts: Numbers) -> int:
        """Token events of a known shape that follow each other: timestamps and counts, one each. Returns their
        number."""
        import numpy as np  # these are numpy's arrays

        record, start = self.record, self.record.start_ns or 0
        stamps = np.maximum.accumulate(np.maximum(kernel_ns, self._stamp))
        first, self._stamp = int(stamps[0]), int(stamps[-1])
        if record.first_token_ns is None:
            record.first_token_ns = first
        if shape.is_answer and record.first_answer_ns is None:
            record.first_answer_ns = first
        record.last_token_ns = self._stamp
        self.events.frombytes((stamps - start).tobytes())
        self._lags.frombytes((seen_ns - kernel_ns).tobytes())
        self._shared += int(np.count_nonzero(seen_ns[1:] == seen_ns[:-1]))  # events of one read
        if shape.counts:
            self._event_tokens.add_many(counts, shape.is_answer)
            self._usage = {**(self._usage or {}), "completion_tokens": int(counts[-1])}
        return len(stamps)

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a response header."""
        key, text = name.lower(), value.decode("latin-1").strip()
        if key == b"content-type":
            self.reply.content_type = text.lower()
        elif key == b"server":
            self.reply.server = text
        elif key == b"retry-after":
            self.reply.retry_after = text
        elif key == b"content-encoding" and text.lower() in ("gzip", "deflate"):
            # Some proxies compress although the request refuses it. 32: detect gzip or zlib.
            self._inflate = zlib.decompressobj(32 + zlib.MAX_WBITS)

    def on_headers_complete(self) -> None:
        """httptools: the head has ended. Interim responses (1xx) are skipped."""
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._headers_done = True
        self.record.headers_ns = self._stamp
        self.record.http_status = status
        if status == 200 and "text/event-stream" in self.reply.content_type:
            self._events = SseDecoder()
        elif status == 200 and self._dialect.lines and "ndjson" in self.reply.content_type:
            self._events = LineDecoder()

    def on_body(self, data: bytes) -> None:
        """httptools: a piece of the body."""
        if self._inflate is not None:
            try:
                data = self._inflate.decompress(data, min(sys.maxsize, self._most - self._unpacked + 1))
            except zlib.error as error:
                self._bad = self._bad or f"a broken compressed body: {error}"
                return
            self._unpacked += len(data)
            if self._unpacked > self._most:
                self.too_large, self._inflate = True, None
                self._received = sys.maxsize  # nothing further is decoded
        if self._events is None:
            self._body += data
            return
        for event in self._events.feed(data):
            self._event(event)

    def on_message_complete(self) -> None:
        """httptools: the response has ended."""
        self._complete = self._headers_done

    # -- events ----------------------------------------------------------------------------------------

    def _event(self, data: bytes) -> None:
        shape = self._shape
        if shape is not None and (known := shape.read(data)) is not None:
            self._token(shape.is_answer)
            if shape.counts:
                self._event_tokens.add(int(known["count"]), shape.is_answer)
            self._unread = data if shape.reports else None
            if self._keep:
                said = text_of(known)
                self._say(*((said, "") if shape.is_answer else ("", said)))
            return
        if data == b"[DONE]":
            self._finished_stream = True
            return
        try:
            payload = orjson.loads(data)
        except orjson.JSONDecodeError:
            self._bad = self._bad or f"an event that is not JSON: {data[:200].decode('utf-8', 'replace')}"
            return
        delta = self._dialect.read(payload)
        if self._splitter is not None:
            self._splitter.split(delta)
        if delta.error and not self._stream_error:
            self._stream_error = delta.error
        if delta.finish_reason:
            self.record.finish_reason = delta.finish_reason
        self._report(delta)
        self._finished_stream |= delta.done
        if self._keep and delta.tool_calls:
            merge_tool_calls(self.reply.tool_calls, delta.tool_calls)
        if not delta.is_token:
            self._without_text(delta)
            return
        if delta.text and self.record.leaked is None:
            self.record.leaked = delta.text.lstrip().startswith(LEAKS)
        self._token(delta.is_answer)
        if self._splitter is None:
            self._learn(data, delta)
        if delta.usage is not None:
            total = count(delta.usage, "completion_tokens")
            if total is not None:
                self._event_tokens.add(total, delta.is_answer)
        if self._keep:
            self._say(delta.text, delta.reasoning)

    def _learn(self, data: bytes, delta: Delta) -> None:
        """Learn the shape of further events from one that was parsed."""
        if self._shapes_left:
            self._shapes_left -= 1
            self._shape = learn_shape(data, delta, self._dialect.read, self._framing)
            if self._shape is not None and self._on_shape is not None:
                self._on_shape(self._shape)

    def _report(self, delta: Delta) -> None:
        """Usage and the server's own timings, the latest of each."""
        if self._unread is not None:
            unread, self._unread = self._unread, None
            self._report(self._dialect.read(orjson.loads(unread)))
        if delta.usage is not None:
            self._usage = delta.usage
        if delta.timings is not None:
            self.record.server_timings = orjson.dumps(delta.timings).decode()

    def _without_text(self, delta: Delta) -> None:
        """An event without text. One with an empty text may stand for a token: `_count_empty` decides."""
        if delta.unknown and not self.reply.unknown_field:
            self.reply.unknown_field = delta.unknown
        offset = self._stamp - (self.record.start_ns or 0)
        if delta.finish_reason in STOPPED or (delta.finish_reason and delta.is_empty):
            self._empty_end = offset
        elif delta.is_empty and not (delta.opens and not self.events and not self._empty):  # the role alone
            self._empty.append(offset)

    def _count_empty(self) -> None:
        """Count events without text as token events, where they are."""
        record, tokens = self.record, count(self._usage, "completion_tokens")
        empty = self._empty
        counted = self._event_tokens
        if counted.tokens:  # the server has counted every event's tokens, but for the stop token
            tokens, empty = (tokens or 0) - counted.so_far + len(self.events), array("q")
        found = with_empty(self.events, empty, self._empty_end, tokens)
        if found is None:
            return
        if counted.tokens:
            counted.tokens.append(1)
        only_answer = record.first_answer_ns is not None and record.first_answer_ns == record.first_token_ns
        self.events, start = found, record.start_ns or 0
        record.first_token_ns, record.last_token_ns = start + found[0], start + found[-1]
        if only_answer:
            record.first_answer_ns = record.first_token_ns

    def _say(self, text: str, reasoning: str) -> None:
        self._text.append(text)
        self._reasoning.append(reasoning)
        if self._on_text is not None:
            self._on_text(text, reasoning)

    def _token(self, is_answer: bool) -> None:
        """A token event has arrived with the current read."""
        record, stamp = self.record, self._stamp
        if record.first_token_ns is None:
            record.first_token_ns = stamp
        if is_answer and record.first_answer_ns is None:
            record.first_answer_ns = stamp
        record.last_token_ns = stamp
        self.events.append(stamp - (record.start_ns or 0))

    # -- the end ---------------------------------------------------------------------------------------

    def finish(self, error_kind: str | None, error_message: str | None) -> RequestRecord:
        """Complete the record; `error_kind` is the connection's failure, or None."""
        self._report(Delta())
        record = self.record
        record.end_ns = self._stamp or None
        if self._events is None and self._headers_done and not error_kind:
            self._whole_body()
        if self.events and (self._empty or self._empty_end is not None):
            self._count_empty()
        if self.events:
            record.event_ns = self.events
            record.n_events = len(self.events)
            record.n_shared = self._shared
        if self._lags:
            lags = sorted(self._lags)
            record.client_lag_p50_ns = lags[len(lags) // 2]
            record.client_lag_max_ns = lags[-1]
        if self._splitter is not None:
            self._text.append(self._splitter.rest())
        self.reply.text, self.reply.reasoning = "".join(self._text), "".join(self._reasoning)
        if self._keep:
            record.text, record.reasoning_text = self.reply.text, self.reply.reasoning
        put_counts(record, self._usage, self.reply, self._count, self._answered, len(self.events))
        pieces = zip(self._text, self._reasoning, strict=True) if self._count is not None else None
        put_event_tokens(record, self._event_tokens, pieces if self._splitter is None else None, self._count)
        self._judge(error_kind, error_message)
        del self._parser, self._feed_http  # they hold this object: gone without the garbage collector's help
        return record

    def _whole_body(self) -> None:
        """A response that is one JSON document: an answer without streaming, or an error."""
        if not self._body:
            return
        try:
            payload = orjson.loads(bytes(self._body))
        except orjson.JSONDecodeError:
            if self.record.http_status == 200:
                self._bad = f"a body that is not JSON: {self._body[:200].decode('utf-8', 'replace')}"
            return
        delta = self._dialect.read(payload)
        if self._splitter is not None:
            self._splitter.split(delta)
        self._stream_error = delta.error
        self._report(delta)
        self.record.finish_reason = delta.finish_reason
        self._text, self._reasoning = [delta.text], [delta.reasoning]
        if delta.tool_calls:
            merge_tool_calls(self.reply.tool_calls, delta.tool_calls)
        self._answered = delta.is_token

    def _judge(self, error_kind: str | None, error_message: str | None) -> None:
        """Success or failure: an HTTP 200 can be either."""
        record = self.record
        status = record.http_status
        if self.too_large:
            error_kind = "too_large"
            error_message = f"cut after {self._most:,} bytes (--max-response-bytes)"
        elif error_kind is None and status is not None and status != 200:
            error_kind = f"http_{status}" if status == 429 else f"http_{status // 100}xx"
            error_message = error_of(bytes(self._body)) or f"HTTP {status}"
        elif self._stream_error:
            error_kind, error_message = "stream_error", self._stream_error
        elif self._bad:
            error_kind, error_message = "decode", self._bad
        elif error_kind is None and not self.events and not self._answered and record.finish_reason is None:
            error_kind, error_message = "empty", "a response with no token and no stop reason"
        elif error_kind is None and self._events and record.finish_reason is None and not self._finished_stream:
            error_kind, error_message = "stream_broken", "the stream ended without a stop reason or [DONE]"
        if error_kind is None:
            return
        if error_kind in ("cancelled", "abandoned"):
            record.status = "cancelled"
        else:
            record.status = "timeout" if error_kind.startswith("timeout") else "error"
        record.error_kind = error_kind
        # Twice the kept length: a key is redacted before the text is truncated.
        record.error_message = cut(error_message or error_kind, 2 * MESSAGE_BYTES)
