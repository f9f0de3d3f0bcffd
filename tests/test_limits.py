"""What runs out on this machine: ports, files, memory; and clocks that are set."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import uvloop

from oss_eval import api
from oss_eval.config.task import PerfTask
from oss_eval.errors import UsageError
from oss_eval.load.plan import grid
from oss_eval.load.workers.pool import check_descriptors
from oss_eval.probe.connection import Connection
from oss_eval.probe.poller import Poller
from oss_eval.probe.target import Target, resolve
from oss_eval.results import writer
from oss_eval.results.reader import read_manifest, read_requests
from tests.conftest import ROOT, Command, only_run
from tests.scripted import SSE_HEAD, ScriptedServer, answering, chunk, delta, saying


def in_own_network(folder: Path, ports: tuple[int, int], *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a network of its own, which has so few local ports. Skips where that takes rights."""
    few = f"echo '{ports[0]} {ports[1]}' > /proc/sys/net/ipv4/ip_local_port_range"
    setup = f'ip link set lo up && {few} && exec "$@"'
    if subprocess.run(["unshare", "-rn", "sh", "-c", "ip link set lo up"], capture_output=True).returncode:
        pytest.skip("a network of one's own takes rights")
    return subprocess.run(
        ["unshare", "-rn", "sh", "-c", setup, "sh", sys.executable, "-m", "oss_eval", *words],
        cwd=folder, env={**os.environ, "COLUMNS": "160", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=100,
    )  # fmt: skip


def test_ports_that_run_out_are_not_the_servers_failure(tmp_path: Path) -> None:
    """64 streams on 40 ports: those without one wait, and are called what they are."""
    done = in_own_network(
        tmp_path, (40000, 40039), "perf", "--url", "sim://paced?rate=50&ttft=20", "--parallel", "64", "--number", "100",
        "--max-tokens", "20", "--connect-timeout", "1.5",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = read_requests(only_run(tmp_path), "00-c64").to_pylist()
    assert len(rows) == 100
    kinds = {row["error_kind"] for row in rows}
    assert kinds == {None, "client"}
    lacking = [row for row in rows if row["error_kind"] == "client"]
    assert all(row["start_ns"] is None for row in lacking)
    assert all("assign requested address" in row["error_message"].lower() for row in lacking)
    assert "ran out of local ports" in done.stdout


def test_ports_that_come_back_are_waited_for(tmp_path: Path) -> None:
    """48 slots on 34 ports, and a server that closes after every response: whoever waits gets one."""
    done = in_own_network(
        tmp_path, (40000, 40033), "perf", "--url", "sim://paced?rate=100&ttft=10&fault=close-after", "--parallel", "48",
        "--number", "200", "--max-tokens", "10", "--connect-timeout", "20",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = read_requests(only_run(tmp_path), "00-c48").to_pylist()
    assert {row["status"] for row in rows} == {"ok"}


def test_files_that_can_not_be_opened_are_said_before(oss_eval: Command, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "oss_eval", "perf", "--url", "sim://instant", "--parallel", "400", "--number", "400"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)),
    )  # fmt: skip
    assert done.returncode == 2
    assert (
        "400 connections a worker process are needed, and this system lets a process open 256 files" in done.stderr
    )
    assert not (tmp_path / "results").exists()


def test_several_servers_need_several_connections_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 1024))
    points = grid(PerfTask(parallel=(400,)), 1)
    check_descriptors(points)
    check_descriptors(points, 2)
    with pytest.raises(UsageError, match="1200 connections"):
        check_descriptors(points, 3)


# -- clocks -----------------------------------------------------------------------------------------------------


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


# -- files for one's own eyes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["perf", "bench"])
def test_private_files(oss_eval: Command, tmp_path: Path, what: str) -> None:
    words = ["perf", "--parallel", "2", "--number", "4"] if what == "perf" else ["bench", "demo", "--limit", "2"]
    done = oss_eval(*words, "--url", "sim://instant", "--private")
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    for path in [run, *run.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert (run / "truth.jsonl").exists()


def test_files_are_not_private_unless_asked_for(oss_eval: Command, tmp_path: Path) -> None:
    assert oss_eval("perf", "--parallel", "2", "--number", "4", "--url", "sim://instant").returncode == 0
    umask = os.umask(0)
    os.umask(umask)
    mode = stat.S_IMODE((only_run(tmp_path) / "manifest.json").stat().st_mode)
    assert mode == 0o666 & ~umask


def test_what_is_asked_of_a_server_that_answers_wrong_is_bounded(oss_eval: Command) -> None:
    """A list of models without an end."""
    endless = [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n",
        *[b'{"data": [' + b" " * 100_000] * 1000,
    ]
    with ScriptedServer(
        lambda number, request: endless if request.startswith(b"GET") else [saying("x")]
    ) as server:
        begun = time.monotonic()
        done = oss_eval("perf", "--url", server.url, "--parallel", "1")
        assert done.returncode == 2
        assert time.monotonic() - begun < 20
    assert json.dumps("list of models")[1:-1] in done.stderr


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
