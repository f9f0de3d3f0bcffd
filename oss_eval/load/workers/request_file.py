"""What the worker processes of a point share: the request bodies and a counter, as two memory-mapped files."""

from __future__ import annotations

import fcntl
import mmap
import struct
from array import array
from collections.abc import Iterable
from pathlib import Path

_COUNT = struct.Struct("=Q")


def write_request_file(path: Path, bodies: Iterable[bytes]) -> int:
    """Write the request bodies of a point, equal ones once; returns how many requests there are.

    Layout: the number of requests, an (offset, length) pair for each, then the bytes. Written before the
    point begins, so that no prompt is made while anything is measured, and mapped by every worker, so that
    the requests of a point cost memory once, whatever their number.
    """
    index = array("Q")
    seen: dict[bytes, int] = {}
    blob = path.with_suffix(".blob")
    offset = 0
    with blob.open("wb") as out:
        for body in bodies:
            at = seen.get(body)
            if at is None:
                at = offset
                if len(seen) < 1024:  # enough to notice a prompt that is always the same
                    seen[body] = at
                out.write(body)
                offset += len(body)
            index.extend((at, len(body)))
    with path.open("wb") as out, blob.open("rb") as bodies_file:
        out.write(_COUNT.pack(len(index) // 2))
        index.tofile(out)
        while piece := bodies_file.read(1 << 20):
            out.write(piece)
    blob.unlink()
    return len(index) // 2


class RequestFile:
    """Read side of `write_request_file`."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._count = _COUNT.unpack_from(self._map)[0]
        self._base = _COUNT.size + 16 * self._count

    def __len__(self) -> int:
        return int(self._count)

    def __getitem__(self, index: int) -> bytes:
        offset, length = struct.unpack_from("=QQ", self._map, _COUNT.size + 16 * index)
        return self._map[self._base + offset : self._base + offset + length]

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

    def close(self) -> None:
        """Unmap."""
        self._map.close()
        self._file.close()
