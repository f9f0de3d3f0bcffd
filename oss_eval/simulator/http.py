"""The server's side of one connection: request framing, and writes with timestamps.

asyncio's transports queue writes until the end of a loop iteration, which would blur the truth; a socket of
our own is written at once, and what the kernel does not take follows when it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import httptools
import orjson

from oss_eval.probe import timestamps

time_ns = time.time_ns


class ClientConnection:
    """One client connection; passes complete requests to `on_request`. `server` is the Server header."""

    __slots__ = (
        "_body", "_loop", "_on_request", "_parser", "_pending", "_recvmsg", "_server", "_sock", "_stamp",
        "headers", "on_close", "on_gone", "open", "url",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_request: Callable[[ClientConnection, bytes, int], None],
        server: bytes,
    ) -> None:
        self._loop, self._sock, self._on_request = loop, sock, on_request
        self._server = server
        self._recvmsg = sock.recvmsg
        self._parser: Any = httptools.HttpRequestParser(self)
        self._pending = bytearray()
        self._body = bytearray()
        self._stamp = 0
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.open = True
        self.on_gone: Callable[[], None] | None = None
        self.on_close: Callable[[ClientConnection], None] | None = None
        loop.add_reader(sock.fileno(), self._on_readable)

    # -- reading ---------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            data, ancillary, _, _ = self._recvmsg(65536, timestamps.ANCILLARY_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            self.close()
            return
        self._stamp = timestamps.kernel_ns(ancillary) or time_ns()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()

    def on_url(self, url: bytes) -> None:
        """httptools: the request line."""
        self.url = url
        self.headers.clear()
        self._body.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a header."""
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """httptools: the head has ended; curl and others wait for leave to send a long body."""
        if self.headers.get(b"expect", b"").lower() == b"100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """httptools: a piece of the body."""
        self._body += data

    def on_message_complete(self) -> None:
        """httptools: the request is complete."""
        self._on_request(self, bytes(self._body), self._stamp)

    @property
    def method(self) -> bytes:
        """Method of the last request."""
        return bytes(self._parser.get_method())

    # -- writing ---------------------------------------------------------------------------------------

    def send(self, data: bytes) -> int:
        """Write now; returns the timestamp just before the bytes were passed to the kernel."""
        now = time_ns()
        if not self.open:
            return now
        if self._pending:
            self._pending += data
            return now
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise
            self._loop.call_soon(self.close)
            return now
        if sent < len(data):
            self._pending += data[sent:]
            self._loop.add_writer(self._sock.fileno(), self._on_writable)
        return now

    def _on_writable(self) -> None:
        try:
            sent = self._sock.send(self._pending)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        del self._pending[:sent]
        if not self._pending:
            self._loop.remove_writer(self._sock.fileno())

    def send_json(self, status: str, payload: Any, sent: int = 0) -> None:
        """Send a JSON response, without the bytes of its head that were already `sent`."""
        body = orjson.dumps(payload)
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.send((head.encode() + self._server + b"\r\n" + body)[sent:])

    def send_text(self, body: bytes) -> None:
        """Send plain text."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %d\r\n" % len(body)
        self.send(head + self._server + b"\r\n" + body)

    def reset(self) -> None:
        """Reset the connection."""
        if self.open:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()

    def close(self) -> None:
        """Close the connection, and notify the stream on it."""
        if not self.open:
            return
        self.open = False
        with contextlib.suppress(OSError, ValueError):
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._parser = None  # it holds this object: without garbage collection both would stay in memory
        if self.on_close is not None:
            self.on_close(self)
        if self.on_gone is not None:
            self.on_gone()
