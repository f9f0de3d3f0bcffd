"""The simulator's own account: when each request arrived, and when each token was really written.

One JSON object a line: `request_id` (the client's X-Client-Request-Id), `received_ns` (kernel stamp of the read
that completed the request, UTC nanoseconds), `status`, `fault`, `effort`, `prompt_tokens`, `chunk_tokens` (tokens
in each chunk of a stream), and `token_ns`, the timestamps just before each token's bytes went to the kernel; in a
chunk of several tokens that is its last one's, the others have the time when they were added. Same clock as the
client's on one machine.
Faults of the server as a whole are lines without a `request_id`.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from pathlib import Path

import orjson


@dataclass(slots=True)
class TruthRow:
    """The true times of one request."""

    request_id: str | None
    received_ns: int
    prompt_tokens: int = 0
    effort: str | None = None
    status: str = "open"
    """`ok`, `refused` (an HTTP error was sent), `left` (the client went away) or `broken` (spoiled on command)."""
    fault: str | None = None
    """The fault of the request, or None (see `faults`)."""
    token_ns: list[int] = field(default_factory=list)
    chunk_tokens: list[int] = field(default_factory=list)
    """Tokens in each chunk of a stream."""


class TruthLog:
    """Appends to a file, if there is one. A disk error ends the log, not the server."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("ab", buffering=0) if path else None
        self._lines = bytearray()

    def write(self, truth: TruthRow) -> None:
        """Add a finished request."""
        if self._file is not None:
            self._lines += orjson.dumps(truth) + b"\n"

    def flush(self) -> None:
        """Flush to the operating system."""
        while self._file is not None and self._lines:
            try:
                del self._lines[: self._file.write(self._lines)]
            except OSError as error:
                sys.stderr.write(f"the simulator's log ends here: {error.strerror}\n")
                self._file = None


def read_truth(path: Path) -> dict[str, TruthRow]:
    """request_id -> TruthRow of the last exchange with this id; incomplete lines are skipped."""
    found: dict[str, TruthRow] = {}
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(orjson.JSONDecodeError):
            truth = TruthRow(**orjson.loads(line))
            if truth.request_id:
                found[truth.request_id] = truth
    return found
