"""What runs out on this machine: ports, files, memory; and clocks that are set."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oss_eval.results.reader import read_requests
from tests.helpers.commands import ROOT, Command, only_run
from tests.helpers.own_network import in_own_network
from tests.helpers.scripted_server import ScriptedServer, saying

pytestmark = pytest.mark.alone


def with_few_ports(folder: Path, ports: tuple[int, int], *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a network of its own, which has so few local ports."""
    few = f"echo '{ports[0]} {ports[1]}' > /proc/sys/net/ipv4/ip_local_port_range"
    return in_own_network(folder, f'{few} && exec "$@"', sys.executable, "-m", "oss_eval", *words)


def test_ports_that_run_out_are_not_the_servers_failure(tmp_path: Path) -> None:
    """64 streams on 40 ports: those without one wait, and are called what they are."""
    done = with_few_ports(
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
    done = with_few_ports(
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
