"""How an exchange over a connection ended, or why the connection could not be opened."""

from __future__ import annotations

from dataclasses import dataclass


class ConnectionFailed(Exception):
    """A connection could not be opened. `kind` is `connect`, `tls`, `timeout_connect`, or `client` for what this
    machine lacks."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(slots=True)
class Outcome:
    """The result of an exchange. `error_kind` None: a complete response was framed."""

    start_ns: int
    error_kind: str | None = None
    error_message: str | None = None
    stale: bool = False
    """Whether the server had closed the idle connection before the request reached it: there was no answer."""
