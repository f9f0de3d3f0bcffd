"""Set-up calls: single HTTP requests before anything is measured."""

from __future__ import annotations

import socket
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from oss_eval.endpoint.endpoint import Endpoint, location


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A response to a set-up call."""

    status: int
    body: bytes
    headers: dict[str, str]
    """Names in lower case."""


def get(endpoint: Endpoint, address: str, timeout: float, body: bytes | None = None) -> HttpReply:
    """Send a set-up call (POST with a JSON body), without proxies. Redirects are followed; headers are sent to the
    same host only.

    Raises the errors of urllib and http.client.
    """
    request = urllib.request.Request(address, body)
    if body is not None:
        request.add_header("Content-Type", "application/json")
    for name, value in endpoint.headers:
        request.add_unredirected_header(name, value)
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _SameHost(endpoint)]
    if endpoint.base.scheme == "https":
        handlers.append(urllib.request.HTTPSHandler(context=endpoint.auth.tls_context()))
    with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as response:
        body = response.read(8_000_000)
        return HttpReply(response.status, body, {name.lower(): value for name, value in response.headers.items()})


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Sends a key after a redirect only to the same host."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """urllib: the request after a redirect."""
        again = super().redirect_request(req, fp, code, msg, headers, newurl)
        base, new = self._endpoint.base, urlsplit(newurl)
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
