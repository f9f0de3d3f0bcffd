"""Set-up calls: single HTTP requests before anything is measured."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from oss_eval.endpoint.endpoint import Endpoint, location

MAX_BODY = 8_000_000
MAX_ERROR_BODY = 4096


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A response to a set-up call."""

    status: int
    body: bytes
    headers: dict[str, str]
    """Names in lower case."""


def get(endpoint: Endpoint, address: str, timeout: float, body: bytes | None = None) -> HttpReply:
    """Send a set-up call (POST with a JSON body), without proxies. It ends after `timeout` seconds, redirects and
    the body included. Redirects are followed to HTTP addresses; headers are sent to the same host only.

    Raises the errors of urllib and http.client, TimeoutError among them. An HTTPError has the beginning of its
    body.
    """
    request = urllib.request.Request(address, body)
    if body is not None:
        request.add_header("Content-Type", "application/json")
    for name, value in endpoint.headers:
        request.add_unredirected_header(name, value)
    with _Deadline(timeout) as deadline:
        opener = urllib.request.OpenerDirector()
        for handler in (
            _Handler(deadline, endpoint.auth.tls_context if endpoint.base.scheme == "https" else None),
            _SameHost(endpoint),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.UnknownHandler(),
        ):
            opener.add_handler(handler)
        try:
            with opener.open(request, timeout=timeout) as response:
                content = response.read(MAX_BODY)
                deadline.check()
        except urllib.error.HTTPError as error:
            beginning = b""
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                beginning = error.read(MAX_ERROR_BODY)
            deadline.check()
            raise urllib.error.HTTPError(
                error.url, error.code, error.msg, error.headers, io.BytesIO(beginning)
            ) from None
        except Exception:
            deadline.check()
            raise
        return HttpReply(
            response.status, content, {name.lower(): value for name, value in response.headers.items()}
        )


class _Deadline:
    """Ends the connections of a call when its time is over.

    A socket's own timeout is not enough: it begins anew with every byte that a server sends.
    """

    def __init__(self, seconds: float) -> None:
        self._sockets: list[socket.socket] = []
        self._over = False
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            for connected in self._sockets:
                connected.close()
            self._sockets.clear()

    def watch(self, connected: socket.socket) -> None:
        """End this connection too, when the time is over. Raises TimeoutError if it is.

        A duplicate is kept, as TLS takes the socket's descriptor over.
        """
        with self._lock:
            self._sockets.append(connected.dup())
        self.check()

    def check(self) -> None:
        """Raise TimeoutError when the time is over."""
        if self._over:
            raise TimeoutError

    def _end(self) -> None:
        with self._lock:
            self._over = True
            for connected in self._sockets:
                with contextlib.suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)


class _Handler(urllib.request.AbstractHTTPHandler):
    """HTTP and HTTPS over connections that the deadline knows."""

    def __init__(self, deadline: _Deadline, context: Callable[[], ssl.SSLContext] | None) -> None:
        super().__init__()
        self._deadline, self._context = deadline, context

    def http_open(self, request: Any) -> Any:
        """urllib: open an http:// address."""
        return self.do_open(self._connection(http.client.HTTPConnection), request)

    def https_open(self, request: Any) -> Any:
        """urllib: open an https:// address."""
        context = self._context() if self._context else ssl.create_default_context()
        return self.do_open(self._connection(http.client.HTTPSConnection, context=context), request)

    def _connection(self, kind: type[http.client.HTTPConnection], **settings: Any) -> Any:
        deadline = self._deadline

        def connection(host: str, **given: Any) -> http.client.HTTPConnection:
            made = kind(host, **{**given, **settings})
            create = made._create_connection  # type: ignore[attr-defined]

            def watched(*where: Any) -> socket.socket:
                connected: socket.socket = create(*where)
                deadline.watch(connected)
                return connected

            made._create_connection = watched  # type: ignore[attr-defined]
            return made

        return connection

    http_request = urllib.request.AbstractHTTPHandler.do_request_
    https_request = urllib.request.AbstractHTTPHandler.do_request_


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Sends a key after a redirect only to the same host."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """urllib: the request after a redirect."""
        again = super().redirect_request(req, fp, code, msg, headers, newurl)
        base, new = self._endpoint.base, urlsplit(newurl)
        if new.scheme not in ("http", "https"):
            raise urllib.error.URLError(f"it redirects to {new.scheme}://, which is no HTTP address")
        if again is not None and (new.scheme, new.netloc) == (base.scheme, location(base)):
            for name, value in self._endpoint.headers:
                again.add_unredirected_header(name, value)
        return again


def failure_reason(error: BaseException) -> str:
    """Why a connection or a request failed, in a few words."""
    inner = getattr(error, "reason", error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {inner.verify_message}"
    if isinstance(inner, socket.gaierror):
        return f"the host name is unknown ({inner.strerror})"
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    return getattr(inner, "strerror", None) or str(inner)
