"""The simulator's own account: when each request arrived, and when each token was really written.

One JSON object a line: `request_id` (the client's X-Client-Request-Id), `received_ns` (kernel stamp of the read
that completed the request, UTC nanoseconds), `status`, `effort`, `prompt_tokens`, and `token_ns`, the instants
just before each token's bytes were handed to the kernel. Same clock as the client's on one machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path

import orjson


@dataclass(slots=True)
class Truth:
    """What truly happened to one request."""

    request_id: str | None
    received_ns: int
    prompt_tokens: int = 0
    effort: str | None = None
    status: str = "open"
    """`ok`, `refused` (an HTTP error was sent) or `left` (the client went away)."""
    token_ns: list[int] = field(default_factory=list)


class TruthLog:
    """Appends to a file; without one it does nothing."""

    def __init__(self, path: Path | None) -> None:
        self._file: BufferedWriter | None = path.open("ab") if path else None

    def write(self, truth: Truth) -> None:
        """One finished request."""
        if self._file is not None:
            self._file.write(orjson.dumps(truth) + b"\n")

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        if self._file is not None:
            self._file.flush()


def read_truth(path: Path) -> dict[str, Truth]:
    """request_id -> Truth of the last exchange under that id; lines without an id are passed over."""
    found: dict[str, Truth] = {}
    for line in path.read_bytes().splitlines():
        truth = Truth(**orjson.loads(line))
        if truth.request_id:
            found[truth.request_id] = truth
    return found
