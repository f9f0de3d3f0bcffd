"""What each fault does to an answer in progress."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from oss_eval.simulator.completion import Completion
from oss_eval.simulator.engine import Engine, PacedEngine, Sequence
from oss_eval.simulator.formats import Format
from oss_eval.simulator.http import ClientConnection

AT_TOKEN = 3
"""Faults within a stream happen after this token, or after the last one of a shorter answer."""
SLOW_SECONDS = 2.0
TRICKLE_SECONDS = 30.0
HUGE_BYTES = 10_000_000
BURST_TOKENS = 10_000
STUMBLED = "the engine stumbled"
SAID = {
    "429": ("429 Too Many Requests", ""), "429-after": ("429 Too Many Requests", "Retry-After: 1\r\n"),
    "500": ("500 Internal Server Error", ""), "502": ("502 Bad Gateway", ""),
    "503": ("503 Service Unavailable", ""),
}  # fmt: skip


def refuse(client: ClientConnection, fault: str) -> None:
    """Send an HTTP error, as a rate limiter (JSON) or a proxy (HTML) does."""
    status, more = SAID[fault]
    kind, body = "text/html", f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
    if fault.startswith("429"):
        kind, body = "application/json", '{"error": {"message": "too many requests", "code": 429}}'
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    client.send((head + body).encode())


def whole(
    client: ClientConnection, fault: str | None, server: bytes, format: Format, payload: dict[str, Any]
) -> bool:
    """Spoil a response that is not streamed; returns whether it still is an answer."""
    body, length, more = orjson.dumps(payload), None, b""
    if fault in ("reset", "close"):
        client.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body))
        client.reset() if fault == "reset" else client.close()
        return False
    if fault == "error":
        body = orjson.dumps(format.error(500, STUMBLED))
    elif fault == "bad-json":
        body = body[: len(body) // 2]
    elif fault == "bad-utf8":
        body = body.replace(b'"%s":"' % format.text_key, b'"%s":"\xff\xfe' % format.text_key)
    elif fault == "gzip":
        packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
        body, more = packer.compress(body) + packer.flush(), b"Content-Encoding: gzip\r\n"
    elif fault == "length-over":
        length = len(body) + 100
    elif fault == "length-under":
        length = len(body) // 2
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (length or len(body))
    client.send(head + more + server + b"\r\n" + body)
    if length is not None or fault == "close-after":
        client.close()
    return fault in (None, "gzip", "close-after")


# -- in the middle of a stream: True when the answer is over with it ----------------------------------------------


class Host(Protocol):
    """The server's functions that a fault may call."""

    engine: Engine | PacedEngine
    jobs: dict[Sequence, Completion]

    def emit(self, sequence: Sequence, completion: Completion) -> None:
        """A token is due."""

    def finish(self, sequence: Sequence, completion: Completion) -> None:
        """The last token has been written."""

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call a function later."""


def _reset(host: Host, sequence: Sequence, completion: Completion) -> bool:
    completion.client.on_gone = None
    completion.client.reset()
    return True


def _close(host: Host, sequence: Sequence, completion: Completion) -> bool:
    completion.client.on_gone = None
    completion.client.close()
    return True


def _cut(host: Host, sequence: Sequence, completion: Completion) -> bool:
    completion.client.send(completion.end())
    return True


def _error(host: Host, sequence: Sequence, completion: Completion) -> bool:
    written = completion.format
    completion.send(written.event(orjson.dumps(written.error(500, STUMBLED))))
    completion.client.send(completion.end())
    return True


def _bad_json(host: Host, sequence: Sequence, completion: Completion) -> bool:
    completion.send(completion.format.event(b'{"choices":[{"index":0,"delta":{"content":"'))
    return False


def _bad_utf8(host: Host, sequence: Sequence, completion: Completion) -> bool:
    completion.send(completion.format.tokens(b"\xff\xfe"))
    return False


def _huge(host: Host, sequence: Sequence, completion: Completion) -> bool:
    completion.send(completion.format.tokens(b"a" * HUGE_BYTES))
    return False


def _burst(host: Host, sequence: Sequence, completion: Completion) -> bool:
    burst = b"".join(completion.format.tokens(b" more") for _ in range(BURST_TOKENS))
    at = completion.send(burst)
    completion.truth.token_ns += [at] * BURST_TOKENS
    sequence.emitted += BURST_TOKENS
    host.engine.drop(sequence)
    host.finish(sequence, completion)
    return False


def _trickle(host: Host, sequence: Sequence, completion: Completion) -> bool:
    host.engine.drop(sequence)

    def drip() -> None:
        if sequence in host.jobs:
            sequence.emitted += 1
            host.emit(sequence, completion)
            if not sequence.finished:
                host.later(TRICKLE_SECONDS, drip)

    host.later(TRICKLE_SECONDS, drip)
    return False


MIDDLE: dict[str, Callable[[Host, Sequence, Completion], bool]] = {
    "reset": _reset, "close": _close, "cut": _cut, "error": _error, "bad-json": _bad_json, "bad-utf8": _bad_utf8,
    "huge": _huge, "burst": _burst, "trickle": _trickle,
}  # fmt: skip
