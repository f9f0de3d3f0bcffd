"""A server that answers byte for byte as told, over real sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

CLOSE, RESET = "close", "reset"
Step = bytes | float | str
Script = Callable[[int, bytes], Sequence[Step]]
"""(number of the request, its bytes) -> pieces to send, seconds to wait, CLOSE or RESET."""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def delta(text: str, key: str = "content") -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"%s":"%s"}}]}\n\n' % (key.encode(), text.encode())


STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def usage(prompt: int, completion: int) -> bytes:
    return b'data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}\n\n' % (prompt, completion)


GOOD = SSE_HEAD + chunk(delta("Hi") + delta("!") + STOP + usage(5, 2) + DONE) + LAST_CHUNK
"""A whole streamed chat completion of two tokens."""


def json_reply(body: bytes, status: str = "200 OK", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s" % (
        status.encode(),
        len(body),
        extra,
        body,
    )


def text_reply(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


IDENTITY = tuple(
    b"GET %s " % path for path in (b"/version", b"/get_server_info", b"/props", b"/api/version", b"/info")
)
"""How oss-eval finds out which server it is: kept apart from the requests that a test is about."""
NOT_FOUND = json_reply(b'{"error":"not found"}', "404 Not Found")
MODELS = json_reply(b'{"object":"list","data":[{"id":"m"}]}')


class ScriptedServer:
    """Runs until closed; keeps every request it got."""

    def __init__(
        self, script: Script, context: ssl.SSLContext | None = None, family: int = socket.AF_INET
    ) -> None:
        self.requests: list[bytes] = []
        self._script, self._context = script, context
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self._listener = socket.create_server((host, 0), family=family, backlog=256)
        self.host, self.port = host, self._listener.getsockname()[1]
        self._closing = False
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self._context else ''}://{host}:{self.port}/v1"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self._context:
                sock = self._context.wrap_socket(sock, server_side=True)
            self._open.append(sock)
            while (request := self._read(sock)) is not None:
                with self._lock:
                    number = len(self.requests)
                    if not request.startswith(IDENTITY):
                        self.requests.append(request)
                for step in self._steps(number, request):
                    if isinstance(step, bytes):
                        sock.sendall(step)
                    elif isinstance(step, float):
                        time.sleep(step)
                    else:
                        if step == RESET:
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        sock.close()
                        return
        except OSError:
            pass
        finally:
            sock.close()

    def _steps(self, number: int, request: bytes) -> Sequence[Step]:
        """The script's answer; to a GET that it was not written for, as that for the kind of a server, a 404."""
        try:
            return self._script(number, request)
        except (ValueError, KeyError, IndexError):
            if not request.startswith(b"GET "):
                raise
            return [NOT_FOUND]

    def _read(self, sock: socket.socket) -> bytes | None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = sock.recv(65536)
            if not piece:
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ),
            0,
        )
        while len(body) < length:
            body += sock.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self._thread.join(5)
        for sock in self._open:
            sock.close()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def answering(*reply: Step) -> Script:
    """Models for GET, the same reply for every POST."""
    return lambda number, request: [MODELS] if request.startswith(b"GET") else list(reply)


def saying(text: str, reasoning: str = "", finish: str = "stop", tokens: tuple[int, int] = (10, 20)) -> bytes:
    """A whole streamed chat completion."""
    pieces = [{"reasoning_content": reasoning}] if reasoning else []
    pieces += [{"content": text}] if text else []
    events = [{"choices": [{"index": 0, "delta": piece}]} for piece in pieces]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    events.append({"choices": [], "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}})
    body = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + DONE
    return SSE_HEAD + chunk(body) + LAST_CHUNK


def body_of(request: bytes) -> dict[str, Any]:
    """The JSON of a request."""
    found: dict[str, Any] = json.loads(request.partition(b"\r\n\r\n")[2])
    return found


def talking(answer: Callable[[dict[str, Any]], Sequence[Step] | bytes]) -> Script:
    """Models for GET; what `answer` makes of a POST's JSON."""

    def script(number: int, request: bytes) -> Sequence[Step]:
        if request.startswith(b"GET"):
            return [MODELS]
        reply = answer(body_of(request))
        return [reply] if isinstance(reply, bytes) else reply

    return script


@contextlib.contextmanager
def deaf_server() -> Iterator[int]:
    """The port of a server that takes no connection: its backlog is full, so connecting takes for ever."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
        for _ in range(8):
            blocker = stack.enter_context(socket.socket())
            blocker.setblocking(False)
            blocker.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])
