"""Where a request goes: an address, a path, and the part of the HTTP head that never changes."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field

from oss_eval.errors import EndpointError


@dataclass(frozen=True, slots=True)
class Target:
    """An HTTP endpoint with resolved addresses, so that no look-up is part of a measurement."""

    host: str
    port: int
    tls: bool
    path: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Headers of every request. They may hold a key: never print or store them."""
    addresses: tuple[tuple[int, tuple[str, int]], ...] = ()
    """(family, (ip, port)) in the resolver's order of preference, IPv4 and IPv6."""
    ca_bundle: str | None = None
    insecure: bool = False
    """Whether certificates are not checked."""

    def head(self) -> bytes:
        """Request line and constant headers, without the final blank line."""
        default = 443 if self.tls else 80
        name = f"[{self.host}]" if ":" in self.host else self.host
        host = name if self.port == default else f"{name}:{self.port}"
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"Host: {host}",
            "Content-Type: application/json",
            "Accept: text/event-stream, application/json",
            "Accept-Encoding: identity",
            "User-Agent: oss-eval",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n"

    def tls_context(self) -> ssl.SSLContext | None:
        """A verifying TLS context offering HTTP/1.1, or None for plain HTTP."""
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.ca_bundle)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        return context


def resolve(host: str, port: int) -> tuple[tuple[int, tuple[str, int]], ...]:
    """Addresses of a host, for `Target.addresses`. Raises EndpointError when the name is unknown."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise EndpointError(
            f"can't find the host {host!r}: {getattr(error, 'strerror', None) or error}",
            "check the spelling of --url",
        ) from None
    return tuple(dict.fromkeys((int(family), (str(where[0]), port)) for family, _, _, _, where in found))
