"""What the worker processes of a point share: its requests and a counter, as memory-mapped files."""

from __future__ import annotations

import fcntl
import mmap
import struct
from array import array
from collections.abc import Iterable
from pathlib import Path

_COUNT = struct.Struct("=Q")
_ENTRY = struct.Struct("=QQQ")


def write_request_file(path: Path, requests: Iterable[tuple[bytes, int]]) -> int:
    """Write requests, given as (body, planned start in ns after the start of the point), equal bodies once;
    returns how many requests there are.

    Layout: the number of requests, (offset, length, planned start) of each, then the bytes. Mapped by every
    worker, so that the requests of a point cost memory once, whatever their number.
    """
    index = array("Q")
    seen: dict[bytes, int] = {}
    blob = path.with_suffix(".blob")
    offset = 0
    with blob.open("wb") as out:
        for body, due in requests:
            at = seen.get(body)
            if at is None:
                at = offset
                if len(seen) < 1024:  # enough to notice a prompt that is always the same
                    seen[body] = at
                out.write(body)
                offset += len(body)
            index.extend((at, len(body), due))
    with path.open("wb") as out, blob.open("rb") as bodies_file:
        out.write(_COUNT.pack(len(index) // 3))
        index.tofile(out)
        while piece := bodies_file.read(1 << 20):
            out.write(piece)
    blob.unlink()
    return len(index) // 3


class RequestFile:
    """Read side of `write_request_file`."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._count = _COUNT.unpack_from(self._map)[0]
        self._base = _COUNT.size + _ENTRY.size * self._count

    def __len__(self) -> int:
        return int(self._count)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """(body, planned start in ns after the start of the point) of a request."""
        offset, length, due = _ENTRY.unpack_from(self._map, _COUNT.size + _ENTRY.size * index)
        return self._map[self._base + offset : self._base + offset + length], due

    def close(self) -> None:
        """Unmap."""
        self._map.close()


class RequestCounter:
    """A counter in a mapped file: each request number is taken once, by whichever worker is free first."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_COUNT.pack(0))
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), _COUNT.size)

    def take(self, limit: int) -> int | None:
        """The next number below `limit`; None when all are taken."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            number = int(_COUNT.unpack_from(self._map)[0])
            if number >= limit:
                return None
            _COUNT.pack_into(self._map, 0, number + 1)
            return number
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    @property
    def taken(self) -> int:
        """How many numbers are taken."""
        return int(_COUNT.unpack_from(self._map)[0])

    def close(self) -> None:
        """Unmap."""
        self._map.close()
        self._file.close()
