"""What runs on the nodes of a Ray cluster: actors, in the processes that Ray starts for them."""

from __future__ import annotations

import contextlib
import os
import platform
import select
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from oss_eval import __version__
from oss_eval.load.workers.messages import Setup
from oss_eval.load.workers.process import WorkerProcess
from oss_eval.system.environment import usable_cores

RECEIVE_BYTES = 1 << 20
WAIT_SECONDS = 0.2
"""A fetch returns after so long, also with nothing."""
HANDSHAKES = 5
CONNECT_SECONDS = 5.0


class NodeActor:
    """What every actor tells. Its methods run one after the other, `fetch` beside them."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._scratch = tempfile.TemporaryDirectory(prefix="oss-eval-")

    def describe(self) -> dict[str, Any]:
        """The node, and what is installed there."""
        return {
            "host": socket.gethostname(), "pid": os.getpid(), "cores": usable_cores(), "version": __version__,
            "python": platform.python_version(), "scratch": self._scratch.name,
        }  # fmt: skip

    def node_id(self) -> str:
        """Ray's name of the node."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def now(self) -> int:
        """The node's clock, UTC ns."""
        return time.time_ns()

    def connect_ms(self, addresses: list[tuple[int, tuple[str, int]]]) -> float | None:
        """The shortest of a few TCP handshakes with the first of (family, address) that answers, ms."""
        for family, address in addresses:
            times = []
            with contextlib.suppress(OSError):
                for _ in range(HANDSHAKES):
                    with socket.socket(family, socket.SOCK_STREAM) as sock:
                        sock.settimeout(CONNECT_SECONDS)
                        before = time.perf_counter_ns()
                        sock.connect(address)
                        times.append((time.perf_counter_ns() - before) / 1e6)
            if times:
                return min(times)
        return None

    def fetch(self) -> Any:
        """What there is to tell; waits for it up to WAIT_SECONDS."""
        raise NotImplementedError

    def close(self) -> None:
        """End what the actor has started."""
        self._scratch.cleanup()


class NodeWorker(NodeActor):
    """The actor of a load sweep: a worker process on its node."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self._worker: WorkerProcess | None = None
        self._said: dict[int, tuple[bytes, str, bytes]] = {}
        self._place = 0

    def start(self, setup: Setup) -> None:
        """Start the worker."""
        self._worker = WorkerProcess(self._number, setup)

    def say(self, place: int, message: bytes, name: str = "", content: bytes = b"") -> None:
        """Keep a request file, if there is one, and pass a message to the worker: in the order of `place`, from 0,
        as Ray may run a call earlier than one whose file is still on its way."""
        self._said[place] = message, name, content
        while (next_one := self._said.pop(self._place, None)) is not None:
            self._place += 1
            message, name, content = next_one
            if name:
                (Path(self._scratch.name) / name).write_bytes(content)
            assert self._worker is not None
            with contextlib.suppress(OSError):
                self._worker.socket.sendall(message)

    def fetch(self) -> bytes | None:
        """Bytes of the worker, empty where it says nothing for a while; None when it has ended."""
        assert self._worker is not None
        worker = self._worker.socket
        try:
            if not select.select([worker], [], [], WAIT_SECONDS)[0]:
                return b""
            return worker.recv(RECEIVE_BYTES) or None
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.close()
        super().close()
