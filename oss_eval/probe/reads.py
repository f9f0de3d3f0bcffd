"""What a worker's sockets have received since it was last passed on, and the compiled reader that adds to it.

`_reader.c` receives many streams in one call. It is compiled when the package is installed, on Linux with a C
compiler; without it everything works the same in Python, and takes more CPU time.
"""

from __future__ import annotations

import os
from array import array
from typing import Any, Protocol

from oss_eval.probe import timestamps

COLUMNS, SHAPES = 5, 16
"""Columns of a row, and the number of shapes that a reader knows at most."""
BATCH_READS, BATCH_BYTES = 16_000, 1 << 20
"""Reads are passed on at this number or at this size: seldom enough to be cheap, few enough that a transfer blocks
the loop for well under a millisecond, and that decoding one takes no second."""
READABLE, COMPLETE, EXTRA, ENDED, FAILED, MALFORMED, TOO_LARGE = range(7)
"""What the compiled reader reports of a socket: Python has to read it; the response is complete; it is, and more
came; the server closed the connection; an error; the chunked coding is malformed; more bytes than are taken."""


class Reads(Protocol):
    """A buffer of reads."""

    def append(self, tag: int, kernel_ns: int, seen_ns: int, data: bytes) -> None:
        """Add a read."""

    def learn(self, parts: Any) -> bool:
        """Learn the next shape of token events (`known_events`); whether it can be used."""

    def held(self) -> tuple[int, int]:
        """(reads, bytes) in the buffer."""

    def take(self) -> tuple[bytes, bytes]:
        """(rows, data) of the buffer, which is empty then.

        A row is five int64: tag, kernel_ns, seen_ns, the length of its data, -1; or, for a token event of a known
        shape (`known_events`), which has no data, the last two are -1 - the shape's number, and its count or -1.
        """


class ReadBuffer:
    """The buffer in Python."""

    def __init__(self) -> None:
        self._rows = array("q")
        self._data: list[bytes] = []
        self._bytes = 0

    def append(self, tag: int, kernel_ns: int, seen_ns: int, data: bytes) -> None:
        """Add a read."""
        length = len(data)
        self._rows.extend((tag, kernel_ns, seen_ns, length, -1))
        self._data.append(data)
        self._bytes += length

    def learn(self, parts: Any) -> bool:
        """False: every read is passed on with its data."""
        return False

    def held(self) -> tuple[int, int]:
        """(reads, bytes) in the buffer."""
        return len(self._data), self._bytes

    def take(self) -> tuple[bytes, bytes]:
        """(rows, data) of the buffer."""
        taken = self._rows.tobytes(), b"".join(self._data)
        self._rows, self._data, self._bytes = array("q"), [], 0
        return taken


def is_full(reads: Reads) -> bool:
    """Whether a buffer should be passed on."""
    number, size = reads.held()
    return number >= BATCH_READS or size >= BATCH_BYTES


def compiled_reader() -> Any | None:
    """A new compiled reader; None where it is not installed, the kernel gives no receive timestamps, or
    OSS_EVAL_NO_EXTENSIONS is set."""
    kind = _compiled()
    return None if kind is None else kind()


def reader_kind() -> str:
    """`compiled` or `python`: what reads the streams of a run on this machine."""
    return "python" if _compiled() is None else "compiled"


def _compiled() -> type | None:
    if os.environ.get("OSS_EVAL_NO_EXTENSIONS") or not timestamps.supported():
        return None
    try:
        from oss_eval.probe._reader import Reader
    except ImportError:
        return None
    return Reader  # type: ignore[no-any-return, unused-ignore]
