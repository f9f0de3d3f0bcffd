"""A real S3 server on this machine: moto's, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret-1",
    "AWS_REGION": "us-east-1",
}
BUCKET = "bench"


@dataclass
class S3Server:
    """An S3 server behind a connection that can be cut and mended."""

    port: int
    """Of the connection."""
    _own: int
    """Of the server itself."""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _listener: socket.socket | None = field(default=None, repr=False)
    _open: list[socket.socket] = field(default_factory=list, repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def direct(self) -> str:
        """The address of the server, whatever is cut."""
        return f"http://127.0.0.1:{self._own}"

    @property
    def env(self) -> dict[str, str]:
        """For a command that uses it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint}

    def start(self) -> None:
        code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{self._own}'])"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, **CREDENTIALS},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.direct}/moto-api/", timeout=2).close()
                break
            time.sleep(0.1)
        request = urllib.request.Request(f"{self.direct}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=5).close()
        self.mend()

    def cut(self) -> None:
        """Nobody is reached any more."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for sock in self._open:
            sock.close()
        self._open.clear()

    def mend(self) -> None:
        """The server is reached again."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._own))
            self._open += [client, server]
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()

    def stop(self) -> None:
        self.cut()
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
    for sock in (one, other):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def s3() -> Iterator[S3Server]:
    """An S3 server with a bucket."""
    pytest.importorskip("moto")
    server = S3Server(_free_port(), _free_port())
    server.start()
    try:
        yield server
    finally:
        server.stop()
