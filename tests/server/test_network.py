"""Handshake times of real sockets."""

from __future__ import annotations

import socket
import sys
import threading
import time

import pytest

from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.endpoint import parse_url
from oss_eval.endpoint.network import HANDSHAKES, is_remote, network_times
from oss_eval.report.network import network_line
from oss_eval.simulator.process import running
from tests.helpers.scripted_server import ScriptedServer, answering


def test_times_of_a_server() -> None:
    with ScriptedServer(answering(b"")) as server:
        times = network_times(parse_url(server.url, "chat"), 5.0)
    assert times is not None
    assert times["tcp_ms"]["n"] == HANDSHAKES
    assert 0 < times["tcp_ms"]["min"] <= times["tcp_ms"]["median"] <= times["tcp_ms"]["max"] < 1000
    assert times["tls_ms"] is None
    if sys.platform == "linux":
        assert 0 < times["kernel_rtt_ms"]["median"] <= times["tcp_ms"]["max"] * 1.5
    line = network_line({"url": server.url, **times})
    assert f"in {HANDSHAKES} handshakes" in line
    assert "TLS" not in line


def test_tls_takes_longer_than_tcp() -> None:
    with running("sim://instant?fault=tls") as url:
        times = network_times(parse_url(url, "chat", Auth(insecure=True)), 5.0)
    assert times is not None
    assert times["tls_ms"]["n"] == HANDSHAKES
    assert times["tls_ms"]["median"] > times["tcp_ms"]["median"]
    assert "TLS" in network_line(times)


def test_a_slow_handshake_is_seen_and_ends() -> None:
    """A server that never finishes a TLS handshake: no time of it, and no waiting beyond the limit."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        try:
            while True:
                held.append(listener.accept()[0])
        except OSError:
            return

    threading.Thread(target=accept, daemon=True).start()
    begun = time.monotonic()
    times = network_times(parse_url(f"https://127.0.0.1:{listener.getsockname()[1]}/v1", "chat"), 0.5)
    listener.close()
    assert time.monotonic() - begun < 4
    assert times is not None
    assert times["tcp_ms"]["n"] >= 1
    assert times["tls_ms"] is None


def test_no_server_gives_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert network_times(parse_url(f"http://127.0.0.1:{port}/v1", "chat"), 1.0) is None


@pytest.mark.parametrize(
    ("url", "remote"),
    [("http://127.0.0.1:8000/v1", False), ("http://[::1]:8000/v1", False), ("http://localhost:1/v1", False),
     ("http://192.0.2.7:8000/v1", True), ("https://[2001:db8::1]/v1", True)],
)  # fmt: skip
def test_remote_servers(url: str, remote: bool) -> None:
    assert is_remote(parse_url(url, "chat")) is remote
