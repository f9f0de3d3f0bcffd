"""A server at an address that is not this machine's own loopback, in a network namespace without any other way out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import find_run
from tests.helpers.commands import Command
from tests.helpers.own_network import in_own_network

pytestmark = pytest.mark.alone

ADDRESS = "192.0.2.1"  # TEST-NET-1 (RFC 5737)
SCRIPT = f"""ip addr add {ADDRESS}/32 dev lo
timeout 60 {sys.executable} -m oss_eval simulate --profile instant --host {ADDRESS} --port 8801 2>/dev/null &
server=$!
for try in 1 2 3 4 5 6 7 8 9 10; do
  sleep 0.5
  {sys.executable} -c 'import socket; socket.create_connection(("{ADDRESS}", 8801), 1)' 2>/dev/null && break
done
{sys.executable} -m oss_eval perf --url http://{ADDRESS}:8801/v1 --parallel 2 --number 8 --prompt Hi --max-tokens 20
code=$?
kill $server
exit $code
"""


def test_a_remote_server_has_its_distance(tmp_path: Path) -> None:
    done = in_own_network(tmp_path, SCRIPT)
    assert done.returncode == 0, done.stderr
    [entry] = read_manifest(find_run("last", tmp_path / "results"))["network"]
    assert entry["url"] == f"http://{ADDRESS}:8801/v1"
    assert entry["tcp_ms"]["n"] == 8
    assert 0 < entry["tcp_ms"]["median"] < 100
    text = " ".join(done.stdout.split())
    assert "Network TCP" in text
    assert "in 8 handshakes" in text


def test_a_server_on_this_machine_has_none(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval("perf", "--url", "sim://instant", "--parallel", "1", "--number", "2", "--prompt", "Hi")
    assert done.returncode == 0, done.stderr
    assert read_manifest(find_run("last", tmp_path / "results"))["network"] == []
    assert "Network" not in done.stdout
