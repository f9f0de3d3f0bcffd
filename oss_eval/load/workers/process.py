"""A worker process as the main process sees it: started, told, and gone when it is no longer needed."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from dataclasses import dataclass
from typing import Any

from oss_eval.load.workers.messages import Inbox, Setup, encode
from oss_eval.system import child_process

MODULE = "oss_eval.load.workers.worker"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long requests are waited for, in seconds."""

    connect: float
    read: float
    """Without a byte of a response, and between two token events of a stream."""
    total: float
    first_token: float | None = None
    """Until the first token event of a stream; None for whole replies, which have none."""
    grace: float = 0.0
    """For what is in flight, after the first Ctrl-C."""


class WorkerProcess:
    """A child process and its end of the socket pair."""

    expendable = False
    """Whether a point goes on without it."""

    def __init__(self, number: int, setup: Setup) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
        self.number = number
        self.socket = ours
        self.inbox = Inbox()
        self.process = child_process.start(
            MODULE, str(theirs.fileno()), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
        )
        theirs.close()
        self.send(setup)

    def send(self, message: Any) -> None:
        """Hand over a message; a process that is gone is noticed when it is read from."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(encode(message))

    def close(self, patience: float = 3.0) -> None:
        """End the process: it leaves when its end of the socket pair closes, or is killed after `patience` s."""
        self.socket.close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
