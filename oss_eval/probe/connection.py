"""One keep-alive HTTP/1.1 connection that passes on every read with the timestamp of its arrival in the kernel.

Between a read and the moment its response is understood lies nothing but a list append: what the bytes mean
is worked out elsewhere (`decode`), so one stream's parsing never waits in front of another stream's stamp.
The only parsing here is HTTP framing (in C, no callbacks for bodies), to know when a response has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable

import httptools

from oss_eval.probe import timestamps
from oss_eval.probe.dial import READ_BYTES, Tls, dial
from oss_eval.probe.outcome import Outcome
from oss_eval.probe.poller import Poller
from oss_eval.probe.reads import COMPLETE, ENDED, EXTRA, FAILED, TOO_LARGE
from oss_eval.probe.target import Target

STALE_SECONDS = 1.0
time_ns = time.time_ns

ReadSink = Callable[[int, int, int, bytes], None]
"""(tag, kernel_ns or 0, seen_ns, bytes): called for every read, on the loop; must return at once."""


class Connection:
    """A client socket used for one exchange at a time, reopened when the server closes it."""

    __slots__ = (
        "_chunked",
        "_complete",
        "_context",
        "_counted",
        "_done",
        "_framed_by_eof",
        "_handed_over",
        "_headers_done",
        "_keep",
        "_last",
        "_loop",
        "_most_bytes",
        "_open",
        "_pending",
        "_poller",
        "_read_count",
        "_received",
        "_recvmsg",
        "_sink",
        "_sock",
        "_streamed",
        "_tag",
        "_target",
        "_tls",
        "_uses",
        "begun",
        "dropped",
        "feed",
        "last_seen_ns",
        "parser",
        "start_ns",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        target: Target,
        context: ssl.SSLContext | None,
        sink: ReadSink,
        most_bytes: int = sys.maxsize,
    ) -> None:
        """A response of more than `most_bytes` is ended as `too_large`."""
        self._loop = loop
        self._poller = poller
        self._target = target
        self._context = context
        self._sink = sink
        self._most_bytes = most_bytes
        self._sock: socket.socket | None = None
        self._tls: Tls | None = None
        self._open = False
        self._done: asyncio.Future[Outcome] | None = None
        self._pending = b""
        self._uses = 0
        self.dropped = False
        self.start_ns = 0
        self.last_seen_ns = 0
        self.begun = 0.0
        """Start of the exchange, on the loop's clock."""
        self._last = (0, 0.0)
        self._handed_over = False

    @property
    def is_open(self) -> bool:
        """Whether the last known state of the connection allows another exchange."""
        return self._open

    @property
    def busy(self) -> bool:
        """Whether an exchange is in progress."""
        return self._done is not None and not self._done.done()

    def silent(self, now: float) -> float:
        """Seconds without a byte in the exchange under way, as far as whoever asks now and then can tell.

        `now` is the loop's clock. The timestamps of reads come from the wall clock, which may be set: they only
        tell that there was one.
        """
        if self._handed_over and self._sock is not None:
            self.last_seen_ns = self._poller.seen(self._sock.fileno())
        if self._last[0] != self.last_seen_ns:
            self._last = self.last_seen_ns, now if self.last_seen_ns != self.start_ns else self.begun
        return now - self._last[1]

    # -- opening and closing ---------------------------------------------------------------------------

    async def open(self, timeout: float) -> None:
        """Connect (and shake hands), trying each address in turn. Raises ConnectionFailed."""
        self.close()
        self._sock, self._tls = await dial(self._loop, self._target, self._context, timeout)
        self._recvmsg = self._sock.recvmsg
        self._open = True
        self._uses = 0
        self.dropped = False
        self._poller.watch(self._sock.fileno(), self._on_plain if self._tls is None else self._on_tls)

    def close(self) -> None:
        """Close at once; an exchange in flight ends as `cancelled`."""
        if self.busy:
            self._finish("cancelled", "cancelled")
        sock, self._sock, self._open, self._tls = self._sock, None, False, None
        self._pending = b""
        if sock is not None:
            self._poller.forget(sock.fileno())
            self._loop.remove_writer(sock.fileno())
            sock.close()

    def give_up(self, kind: str, message: str) -> None:
        """End the exchange in flight with an error, and the connection with it."""
        if self.busy:
            self._finish(kind, message)
        self.close()

    # -- one exchange ----------------------------------------------------------------------------------

    async def exchange(self, tag: int, request: bytes, on_start: Callable[[int], None]) -> Outcome:
        """Send an HTTP request and wait for the end of its response. Every read goes to the sink under `tag`.

        `on_start(start_ns)` is called when the first bytes have been passed to the kernel; `start_ns` was taken
        just before. Never raises for errors of the server.
        """
        sock = self._sock
        if sock is None or not self._open:
            raise RuntimeError("exchange on a closed connection")
        self._tag = tag
        self.parser = httptools.HttpResponseParser(self)
        self.feed = self.parser.feed_data
        self._complete = False
        self._headers_done = False
        self._framed_by_eof = True
        self._chunked = self._counted = self._streamed = self._keep = self._handed_over = False
        self._read_count = self._received = 0
        done = self._done = self._loop.create_future()
        wire = request if self._tls is None else self._encrypt(request)
        self.begun = self._loop.time()
        self.start_ns = self.last_seen_ns = time_ns()
        self._send(wire)
        on_start(self.start_ns)
        outcome: Outcome = await done
        self._done = None
        del self.parser, self.feed  # they hold this object: the hot process collects no cycles
        self._uses += 1
        return outcome

    def _encrypt(self, data: bytes) -> bytes:
        assert self._tls is not None
        self._tls.object.write(data)
        return self._tls.outgoing.read()

    def _send(self, data: bytes) -> None:
        """Pass bytes to the kernel; the rest follows when it can take more."""
        assert self._sock is not None
        if self._pending:
            self._pending += data
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lost(error)
            return
        if sent < len(data):
            self._pending = data[sent:]
            self._loop.add_writer(self._sock.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        assert self._sock is not None
        data, self._pending = self._pending, b""
        self._loop.remove_writer(self._sock.fileno())
        self._send(data)

    # -- reading: the hot path -------------------------------------------------------------------------

    def _receive(self) -> tuple[int, int, bytes] | None:
        """One read as (kernel_ns, seen_ns, bytes); None when there is nothing or the connection has ended."""
        try:
            data, ancillary, _, _ = self._recvmsg(READ_BYTES, timestamps.ANCILLARY_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            self._lost(error)
            return None
        seen_ns = time_ns()
        if not data:
            self._ended_by_server()
            return None
        return timestamps.kernel_ns(ancillary), seen_ns, data

    def _on_plain(self) -> None:
        read = self._receive()
        if read is not None:
            self._take(*read)

    def _on_tls(self) -> None:
        read = self._receive()
        if read is None:
            return
        kernel_ns, seen_ns, data = read
        tls = self._tls
        assert tls is not None
        tls.incoming.write(data)
        pieces: list[bytes] = []
        end: ssl.SSLError | None = None
        while True:
            try:
                piece = tls.object.read(READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                end = error
                break
            if not piece:
                break
            pieces.append(piece)
        if tls.outgoing.pending:
            self._send(tls.outgoing.read())
        if pieces:  # one read of the socket is one read, however many TLS records it held
            self._take(kernel_ns, seen_ns, b"".join(pieces))
        if end is None or not self._open:
            return
        if isinstance(end, ssl.SSLZeroReturnError):
            self._ended_by_server()
        else:
            self.give_up("tls", str(end))

    def _take(self, kernel_ns: int, seen_ns: int, data: bytes) -> None:
        if self._done is None or self._complete:
            # Unexpected bytes: the next response could not be told from them.
            self.close()
            return
        self.last_seen_ns = seen_ns
        self._read_count += 1
        self._received += len(data)
        if self._received > self._most_bytes:
            self._sink(self._tag, kernel_ns, seen_ns, data)
            self.give_up("too_large", f"cut after {self._most_bytes:,} bytes (--max-response-bytes)")
            return
        self._sink(self._tag, kernel_ns, seen_ns, data)
        try:
            self.feed(data)
        except httptools.HttpParserUpgrade:
            self.give_up("decode", "the server switched protocols")
            return
        except httptools.HttpParserError as error:
            if not self._complete:
                self.give_up("decode", f"not HTTP/1.1: {error}")
                return
            self._keep = False  # the response was longer than it said
        if self._complete:
            self._answered()
        elif self._chunked and self._read_count == 1 and self._headers_done and self._tls is None:
            self._hand_over(data)

    def _answered(self) -> None:
        """The response is complete."""
        self._handed_over = False
        self._finish(None, None)
        if self._pending or not self._keep:
            self.close()
            self.dropped = True

    def _hand_over(self, data: bytes) -> None:
        """Leave the rest of the response to the compiled reader, where there is one. `data`: its first read, which
        holds the head."""
        assert self._sock is not None
        head, _, body = data.partition(b"\r\n\r\n")
        left = min(self._most_bytes - self._received, (1 << 63) - 1)
        if not head.startswith(b"HTTP/1.1 2"):
            return
        self._keep = self.parser.should_keep_alive()
        self._handed_over = self._poller.stream(
            self._sock.fileno(), self._tag, left, self.last_seen_ns, body, self._on_stream_end
        )

    def _on_stream_end(self, what: int, error: int) -> None:
        """What the compiled reader found at the end of the stream."""
        if what in (COMPLETE, EXTRA):
            self._complete, self._keep = True, self._keep and what == COMPLETE
            self._answered()
        elif what == ENDED:
            self._ended_by_server()
        elif what == FAILED:
            self._lost(OSError(error, os.strerror(error)))
        elif what == TOO_LARGE:
            self.give_up("too_large", f"cut after {self._most_bytes:,} bytes (--max-response-bytes)")
        else:
            self.give_up("decode", "not HTTP/1.1: a malformed chunk")

    # -- called by the HTTP parser ---------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a response header."""
        key = name.lower()
        if key in (b"content-length", b"transfer-encoding"):
            self._framed_by_eof = False
            self._counted |= key == b"content-length"
            self._chunked |= value.lower() == b"chunked"
        elif key == b"content-type":
            self._streamed = b"event-stream" in value

    def on_headers_complete(self) -> None:
        """httptools: the head of a response has ended."""
        self._headers_done = self.parser.get_status_code() >= 200

    def on_message_complete(self) -> None:
        """httptools: a response has ended; an interim one (1xx) is not the final one."""
        if self.parser.get_status_code() >= 200:
            self._complete = True
            # Nobody knows the length of a stream beforehand: one that says so may go on, into the next response.
            lied = self._counted and self._streamed
            self._keep = self.parser.should_keep_alive() and not lied  # the parser knows it only now

    # -- endings ---------------------------------------------------------------------------------------

    def _ended_by_server(self) -> None:
        """The server closed its side: the end of a body framed that way, else a break."""
        between = not self.busy
        if self.busy:
            if self._headers_done and self._framed_by_eof:
                self._finish(None, None)
                between = True
            elif self._read_count:
                self._finish("stream_broken", "the server closed the connection before the response ended")
            else:
                between = self._is_stale()
                self._finish("stream_broken", "the server closed the connection without an answer", between)
        self.close()
        self.dropped = between

    def _lost(self, error: OSError) -> None:
        between = not self.busy
        if self.busy:
            between = self._is_stale()
            self._finish("stream_broken", error.strerror or str(error), between)
        self.close()
        self.dropped = between

    def _is_stale(self) -> bool:
        """Whether a connection that broke had been closed before this request could reach the server: it had
        been used before, nothing was answered, and the news came at once. Later, this request failed."""
        return self._uses > 0 and not self._read_count and self._loop.time() - self.begun < STALE_SECONDS

    def _finish(self, kind: str | None, message: str | None, stale: bool = False) -> None:
        assert self._done is not None
        with contextlib.suppress(asyncio.InvalidStateError):
            self._done.set_result(Outcome(self.start_ns, kind, message, stale))
