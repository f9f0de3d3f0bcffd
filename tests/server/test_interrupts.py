"""Ctrl-C and SIGTERM: what is in flight finishes or is given up, what was finished is stored, how to go on is said."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from oss_eval.load.schedule.closed_loop import ClosedLoop
from oss_eval.load.workers.messages import Ask, Batch, Done, Go, Prepare, Ready, Setup, Stop
from oss_eval.load.workers.process import WorkerProcess
from oss_eval.load.workers.request_file import RequestCounter, write_request_file
from oss_eval.probe.target import Target, resolve
from tests.helpers.scripted_server import deaf_server


def test_a_stop_right_behind_what_it_stops(tmp_path: Path) -> None:
    """Ctrl-C while a worker process is still starting: it finds the point and its end in the same moment."""
    write_request_file(tmp_path / "deck", [(b"{}", 0)] * 4)
    RequestCounter(tmp_path / "budget").close()
    with deaf_server() as port:
        target = Target("127.0.0.1", port, False, "/v1", (), resolve("127.0.0.1", port))
        worker = WorkerProcess(0, Setup(0, (target,), "r", 60.0, 60.0, 60.0))
        try:
            worker.send(Prepare("p", 0, 0, 1, ClosedLoop(4), tmp_path / "deck", True, tmp_path / "budget"))
            worker.send(Stop(abort=True))
            worker.socket.settimeout(20)
            said: list[Any] = []
            while not said:
                said += worker.inbox.feed(worker.socket.recv(1 << 20))
            assert [type(message) for message in said] == [Ready], "the main process looks for Done after its Go"
            worker.send(Go(time.time_ns()))
            while not any(isinstance(message, Done) for message in said):
                said += worker.inbox.feed(worker.socket.recv(1 << 20))
            worker.send(Ask(7, "r/s/7", b"{}"))
            worker.send(Stop(abort=True))
            while not any(isinstance(message, Batch) for message in said):
                said += worker.inbox.feed(worker.socket.recv(1 << 20))
        finally:
            worker.close()
    assert [type(message) for message in said] == [Ready, Done, Batch]
    assert said[1].connections == 0
    assert [(ended[0], ended[4]) for ended in said[2].ended] == [(7, "cancelled")]
