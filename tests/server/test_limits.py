"""What runs out on this machine: ports, files, memory; and clocks that are set."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import uvloop

from oss_eval import api
from oss_eval.probe.connection import Connection
from oss_eval.probe.poller import Poller
from oss_eval.probe.target import Target, resolve
from oss_eval.results import writer
from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import read_requests
from tests.helpers.scripted_server import SSE_HEAD, ScriptedServer, answering, chunk, delta


def test_a_clock_that_is_set_times_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is told by the loop's clock; the wall clock only tells that there was a byte."""
    ahead = 0
    monkeypatch.setattr("oss_eval.probe.connection.time_ns", lambda: time.time_ns() + ahead)

    async def go() -> list[float]:
        nonlocal ahead
        loop = asyncio.get_running_loop()
        poller = Poller(loop, patient=False)
        steps = [chunk(delta("a")), 0.35, chunk(delta("b")), 5.0]
        with ScriptedServer(answering(SSE_HEAD, *steps)) as server:
            target = Target("127.0.0.1", server.port, False, "/", (), resolve("127.0.0.1", server.port))
            connection = Connection(loop, poller, target, None, lambda *read: None)
            await connection.open(5)
            request = target.head() + b"Content-Length: 2\r\n\r\n{}"
            exchange = asyncio.ensure_future(connection.exchange(0, request, lambda start: None))
            waited = []
            for look in range(8):
                await asyncio.sleep(0.1)
                if look == 1:
                    ahead = 3_600_000_000_000  # the second token's instant is an hour later
                waited.append(connection.silent(loop.time()))
            connection.give_up("cancelled", "enough")
            await exchange
            poller.close()
            return waited

    waited = uvloop.run(go())
    assert max(waited) < 1.0, "nobody was silent for an hour"
    assert waited[2] > 0.15, "the first silence was noticed"
    assert min(waited[3:5]) < 0.15, "and its end"
    assert waited[-1] > 0.25, "and the silence after it"


def test_a_clock_step_is_flagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process the wall clock jumps by 50 ms while a sweep goes on: the run says so, and nothing times out."""
    begun = time.monotonic()
    real = time.time

    monkeypatch.setattr(
        "oss_eval.perf.sweep.time.time", lambda: real() + (0.05 if time.monotonic() - begun > 2.5 else 0)
    )
    run = api.run_perf(
        url="sim://paced?rate=20&ttft=20",
        parallel=2,
        number=4,
        max_tokens=30,
        prompt="x",
        out=tmp_path / "results",
    )
    assert run.status == "finished"
    [check] = read_manifest(run.path)["run_checks"]
    assert check["kind"] == "clock_step"
    assert "+50 ms" in check["message"]


@pytest.mark.slow
def test_nobody_is_late_while_parts_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens that lie in a queue of ours have come in time."""
    monkeypatch.setattr(writer, "JOIN", 1)  # at every part
    monkeypatch.setattr(writer, "join", lambda *given: time.sleep(1.5))
    run = api.run_perf(
        url="sim://paced?rate=200&ttft=50", parallel=8, number=16, max_tokens=400, out=tmp_path / "results",
        extra_args={"ignore_eos": True}, first_token_timeout=1, read_timeout=1,
    )  # fmt: skip
    rows = read_requests(run.path, "00-c8").to_pylist()
    assert {row["error_kind"] for row in rows} == {None}
    assert {row["completion_tokens"] for row in rows} == {400}
