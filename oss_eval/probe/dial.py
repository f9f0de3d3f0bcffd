"""Opening a connection: TCP with receive timestamps, and TLS on top of it."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from dataclasses import dataclass

from oss_eval.probe import timestamps
from oss_eval.probe.outcome import ConnectionFailed
from oss_eval.probe.target import Target

READ_BYTES = 65536
EXHAUSTED = (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors of this machine, not of the server: no free port, file or memory for another connection."""


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS over bytes that are read and written elsewhere."""

    object: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO


async def dial(
    loop: asyncio.AbstractEventLoop, target: Target, context: ssl.SSLContext | None, timeout: float
) -> tuple[socket.socket, Tls | None]:
    """Connect (and shake hands), trying each address in turn. Raises ConnectionFailed."""
    failure = ConnectionFailed("connect", "the host has no address")
    deadline = loop.time() + timeout
    left = len(target.addresses)
    for family, address in target.addresses:
        share = (deadline - loop.time()) / left  # an address that never answers leaves time for the next
        left -= 1
        sock: socket.socket | None = None
        connected = False
        try:
            async with asyncio.timeout(share):
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.setblocking(False)
                timestamps.enable(sock)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.sock_connect(sock, address)
                tls = None if context is None else await _shake_hands(loop, sock, context, target.host)
            connected = True
            return sock, tls
        except TimeoutError:
            failure = ConnectionFailed("timeout_connect", f"no connection within {timeout:g} s")
        except ssl.SSLError as error:
            failure = ConnectionFailed("tls", getattr(error, "verify_message", "") or str(error))
        except OSError as error:
            kind = "client" if error.errno in EXHAUSTED else "connect"
            failure = ConnectionFailed(kind, error.strerror or str(error))
        finally:
            if sock is not None and not connected:
                sock.close()
    try:
        raise failure
    finally:
        del failure  # a frame that holds its own exception would stay for good: nothing collects cycles here


async def _shake_hands(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, context: ssl.SSLContext, host: str
) -> Tls:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=host)
    while True:
        try:
            tls.do_handshake()
            shaken = True
        except ssl.SSLWantReadError:
            shaken = False
        if outgoing.pending:
            await loop.sock_sendall(sock, outgoing.read())
        if shaken:
            return Tls(tls, incoming, outgoing)
        data = await loop.sock_recv(sock, READ_BYTES)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "closed during the TLS handshake")
        incoming.write(data)
