"""When the kernel received the bytes of a read.

Linux stamps each packet on arrival once a socket asks for it (SO_TIMESTAMPNS, socket(7)), and recvmsg hands
the stamp over with the bytes: nanoseconds of CLOCK_REALTIME, the clock of `time.time_ns`. A read that took
bytes of several packets carries the newest packet's stamp. Where the platform has no such stamp (macOS), a
read is stamped in user space, and says so.
"""

from __future__ import annotations

import socket
import struct
import sys

# asm-generic/socket.h, SO_TIMESTAMPNS_OLD: what 64-bit Linux uses. Python has no name for it before 3.14.
SO_TIMESTAMPNS = 35
ANCILLARY_BYTES = 64

_unpack = struct.Struct("@qq").unpack
_SUPPORTED = sys.platform.startswith("linux") and sys.maxsize > 2**32


def supported() -> bool:
    """Whether this system timestamps received packets; tested, because emulated kernels may not."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return enable(sock)


def enable(sock: socket.socket) -> bool:
    """Request receive timestamps on `sock`; False where the platform has none."""
    if not _SUPPORTED:
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def kernel_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The timestamp in the result of recvmsg, in UTC nanoseconds; 0 without one."""
    if len(ancillary) != 1:  # nothing else was asked for
        return 0
    _, kind, data = ancillary[0]
    if kind != SO_TIMESTAMPNS or len(data) != 16:
        return 0
    seconds, nanoseconds = _unpack(data)
    return seconds * 1_000_000_000 + nanoseconds  # type: ignore[no-any-return]
