"""What the viewer's server accepts, checked before Gradio sees a request: names, routes, sizes, logins.

A page on the internet can let its own name point to this machine (DNS rebinding) or send forms to it; so the Host
of a request has to be a name of this viewer, and the Origin the same: a page on another port is another site.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from oss_eval.system.address import is_loopback

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_BODY = 1_000_000
"""Bytes of a request's body; the viewer's own requests have a few thousand."""
FORWARDED = (b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-for", b"x-forwarded-server", b"forwarded")
"""Headers that Gradio would make addresses of; anybody can send them."""
_HOST = re.compile(r"(?:[\w.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
FREE_FAILURES = 5
LONGEST_WAIT = 60.0
"""Seconds that an address has to wait after many failed logins."""
REMEMBERED = 1024

_PAGES = r"/(?:en|zh)?/?"
_READ = re.compile(
    rf"{_PAGES}|(?:/(?:en|zh))?/(?:config|theme\.css|favicon\.ico|robots\.txt|login_check|user|token|app_id|logout)/?"
    r"|/(?:assets|static|svelte)/.*"
    r"|/gradio_api/(?:file=.*|info/?|queue/(?:data|status)|heartbeat/[\w-]+|startup-events|app_id/?|user/?|token/?"
    r"|login_check/?|logout|theme\.css)"
)
_WRITE = re.compile(r"(?:/gradio_api)?/login/?|/gradio_api/(?:queue/join|component_server)/?")
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
"""Gradio's page needs inline scripts and `eval`; nothing is loaded from, sent to or shown in another site."""


def allowed_names(host: str, extra: list[str]) -> set[str]:
    """Names under which the viewer may be asked: loopback, `--host`, and those of `--allow-host`.

    A viewer that listens beyond this machine has the machine's names too. Addresses as numbers are always allowed
    there, as no other site can have one.
    """
    names = {"localhost", "127.0.0.1", "::1", host.lower(), *(name.lower() for name in extra)}
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return names


class Guard:
    """ASGI middleware in front of Gradio."""

    def __init__(self, app: App, host: str, extra: list[str], share: bool) -> None:
        self._app, self._share = app, share
        self._names = allowed_names(host, extra)
        self._extra = {name.lower() for name in extra}
        self._numbers = not is_loopback(host)
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._pending: Counter[str] = Counter()
        """Logins under way, by address: many must not be tried before the first one is known to have failed."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with what is wrong."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return None  # Gradio opens no socket
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._is_proxied(headers):
            scope = {**scope, "headers": [(n, v) for n, v in scope["headers"] if n.lower() not in FORWARDED]}
        refused = self._refused(scope, headers)
        if refused is not None:
            return await _answer(send, *refused)
        login = scope["method"] == "POST" and "/login" in scope["path"]
        address = (scope.get("client") or ("",))[0]
        wait = self._wait(address) if login else 0.0
        if wait > 0:
            return await _answer(send, 429, f"too many failed logins; try again in {wait:.0f} s", int(wait) + 1)
        if login:
            self._pending[address] += 1

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                if login:
                    self._note_login(address, message["status"])
                present = {name.lower() for name, _ in message["headers"]}
                added = [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        try:
            await self._app(scope, _Limited(receive), answer)
        finally:
            if login:
                self._pending[address] -= 1
                self._pending += Counter()  # forgets those at zero

    def _refused(self, scope: Message, headers: dict[str, str]) -> tuple[int, str] | None:
        """(status, reason) of a request that is not for this viewer."""
        host = headers.get("host", "").strip().lower()
        hosts = [name for name, _ in scope["headers"] if name.lower() == b"host"]
        if len(hosts) > 1 or not _HOST.fullmatch(host) or not self._named(host):
            return 403, f"this viewer is not called {_name(host)!r}: oss-eval view --allow-host {_name(host)}"
        origin = headers.get("origin", "").strip().lower()
        if origin and not self._is_own(origin.partition("://")[2], host):
            return 403, "the request was sent by a page of another site"
        path, method = scope["path"], scope["method"]
        if method in ("GET", "HEAD"):
            known = _READ.fullmatch(path)
        elif method == "POST":
            known = _WRITE.fullmatch(path)
        else:
            return 405, "the viewer is only read"
        if known is None:
            return 404, "there is no such page"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return 413, f"a request has at most {MAX_BODY:,} bytes"
        return None

    def _is_proxied(self, headers: dict[str, str]) -> bool:
        """Whether the request came through a proxy that the user named, or through Gradio's own."""
        name = _name(headers.get("x-forwarded-host") or headers.get("host", ""))
        return name in self._extra or (self._share and name.endswith(".gradio.live"))

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether a page at this address is the viewer's own: of the same name and port, or, behind a proxy that
        changes the name, one of `--allow-host`."""
        return origin == host or _name(origin) in self._extra

    def _named(self, host: str) -> bool:
        name = _name(host)
        if name in self._names or (self._share and name.endswith(".gradio.live")):
            return True
        try:
            number = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._numbers or number.is_loopback

    def _wait(self, address: str) -> float:
        count, last = self._failures.get(address, (0, 0.0))
        if self._pending[address] and count + self._pending[address] >= FREE_FAILURES:
            return 1.0
        if count < FREE_FAILURES:
            return 0.0
        return last + min(LONGEST_WAIT, 2.0 ** (count - FREE_FAILURES)) - time.monotonic()

    def _note_login(self, address: str, status: int) -> None:
        if status < 400:
            self._failures.pop(address, None)
            return
        count = self._failures.pop(address, (0, 0.0))[0] + 1
        self._failures[address] = (count, time.monotonic())
        while len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)
        logging.getLogger(__name__).warning("failed login no. %d from %s", count, address)


class _Limited:
    """A request's body, ended after MAX_BODY bytes."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._size = receive, 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            if self._size > MAX_BODY:
                return {"type": "http.disconnect"}
        return message


def _name(host: str) -> str:
    """The name in a Host header, without port and brackets, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


async def _answer(send: Send, status: int, text: str, retry: int | None = None) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        *((n.encode(), v.encode()) for n, v in HEADERS.items()),
    ]
    if retry is not None:
        headers.append((b"retry-after", str(retry).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})
