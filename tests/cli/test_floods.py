"""Servers that send without end: what is held in memory is bounded, timeouts hold, and Ctrl-C ends the run."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oss_eval.results.reader import find_run, read_requests
from tests.helpers.commands import launched, worker_of
from tests.helpers.scripted_server import MODELS, SSE_HEAD, chunk, saying

pytestmark = pytest.mark.alone

FLOODS = {"events": b"data: {}\n\n" * 100, "comments": b": x\n\n" * 200, "tokens": b""}
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n' * 50


@contextlib.contextmanager
def flooding(piece: bytes) -> Iterator[str]:
    """The URL of a server that answers the requests before the load, and floods those of the load."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while True:
                request = b""
                while b"\r\n\r\n" not in request:
                    data = connection.recv(65536)
                    if not data:
                        return
                    request += data
                if request.startswith(b"GET"):
                    connection.sendall(MODELS)
                elif b"/00-c" not in request:
                    connection.sendall(saying("Hello"))
                else:
                    connection.sendall(SSE_HEAD)
                    many = chunk(piece) * 50
                    until = time.monotonic() + 60
                    while time.monotonic() < until and not over.is_set():
                        connection.sendall(many)
                    return

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        over.set()
        listener.close()


def resident(pid: int) -> int:
    """MB at the peak."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) // 1024


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    "piece",
    [
        FLOODS["events"],
        pytest.param(FLOODS["comments"], marks=pytest.mark.slow),
        pytest.param(TOKEN, marks=pytest.mark.slow),
    ],
    ids=["events", "comments", "tokens"],
)
def test_a_flood_takes_neither_the_memory_nor_the_command(piece: bytes, tmp_path: Path) -> None:
    with flooding(piece) as url:
        words = ["--parallel", "4", "--number", "8", "--read-timeout", "30", "--max-response-bytes", str(1 << 40)]
        with launched(tmp_path, "perf", "--url", url, *words) as process:
            worker = 0
            until = time.monotonic() + 10
            while not worker and time.monotonic() < until:
                with contextlib.suppress(OSError, ValueError):
                    worker = worker_of(process)
                time.sleep(0.05)
            time.sleep(6)
            assert resident(worker) < 400
            assert resident(process.pid) < 500
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.wait(20)
            assert time.monotonic() - begun < 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["events", pytest.param("comments", marks=pytest.mark.slow)])
def test_events_that_are_no_tokens_time_out(kind: str, tmp_path: Path) -> None:
    with flooding(FLOODS[kind]) as url:
        words = [
            "--parallel",
            "2",
            "--number",
            "2",
            "--first-token-timeout",
            "2",
            "--max-response-bytes",
            str(1 << 40),
        ]
        with launched(tmp_path, "perf", "--url", url, *words) as process:
            begun = time.monotonic()
            process.communicate(timeout=60)
            assert time.monotonic() - begun < 25
    rows = read_requests(find_run("last", tmp_path / "results")).to_pylist()
    kinds = {row["error_kind"] for row in rows if row["point_id"] != "probe"}
    assert kinds <= {"timeout_first_token", "timeout_idle"}, kinds


def test_a_response_is_cut_where_it_is_read(tmp_path: Path) -> None:
    with flooding(FLOODS["events"]) as url:
        words = ["--parallel", "2", "--number", "4", "--max-response-bytes", "1000000"]
        with launched(tmp_path, "perf", "--url", url, *words) as process:
            begun = time.monotonic()
            process.communicate(timeout=60)
            assert time.monotonic() - begun < 15
    rows = read_requests(find_run("last", tmp_path / "results")).to_pylist()
    measured = [row for row in rows if row["point_id"] == "00-c2"]
    assert [row["error_kind"] for row in measured] == ["too_large"] * 4
    assert {row["error_message"] for row in measured} == {"cut after 1,000,000 bytes (--max-response-bytes)"}
