"""How far away a server is: times of TCP and TLS handshakes, and the kernel's own round-trip times.

They say how much of a latency the network may be; they are subtracted from nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import statistics
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any

from oss_eval.endpoint.endpoint import Endpoint
from oss_eval.errors import OssEvalError

HANDSHAKES = 8
MOST_SECONDS = 2.0
"""No further handshake begins after this time."""
_RTT = struct.Struct("=68xII")
"""tcpi_rtt and tcpi_rttvar in µs, in Linux's struct tcp_info (include/uapi/linux/tcp.h)."""


def is_remote(endpoint: Endpoint) -> bool:
    """Whether the server is on another machine, as far as its address says."""
    try:
        return not all(ipaddress.ip_address(where[0]).is_loopback for _, where in endpoint.target().addresses)
    except (OssEvalError, ValueError):
        return False


def network_times(endpoint: Endpoint, timeout: float) -> dict[str, Any] | None:
    """Times in ms of a few handshakes, one after the other: `tcp_ms`, `tls_ms` and `kernel_rtt_ms`, each with n,
    median, min and max, and `kernel_jitter_ms`, the kernel's mean deviation of the round-trip time.

    `tls_ms` and the kernel's are null where there is no TLS, and no TCP_INFO. None if no handshake succeeded.
    """
    tcp: list[float] = []
    tls: list[float] = []
    rtt: list[float] = []
    jitter: list[float] = []
    begun = time.monotonic()
    with contextlib.suppress(OSError, OssEvalError):  # whatever happens here, the run goes on
        target = endpoint.target()
        context = endpoint.auth.tls_context() if target.tls else None
        family, address = target.addresses[0]
        while len(tcp) < HANDSHAKES and time.monotonic() - begun < MOST_SECONDS:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(timeout)
                before = time.perf_counter_ns()
                sock.connect(address)
                connected = time.perf_counter_ns()
                tcp.append((connected - before) / 1e6)
                if context is not None:
                    with context.wrap_socket(sock, server_hostname=target.host) as secured:
                        tls.append((time.perf_counter_ns() - connected) / 1e6)
                        _note_kernel(secured, rtt, jitter)
                else:
                    _note_kernel(sock, rtt, jitter)
    if not tcp:
        return None
    found = {"tcp_ms": tcp, "tls_ms": tls, "kernel_rtt_ms": rtt, "kernel_jitter_ms": jitter}
    return {name: _spread(values) for name, values in found.items()}


def _note_kernel(sock: socket.socket, rtt: list[float], jitter: list[float]) -> None:
    if sys.platform != "linux":  # elsewhere the structure is another one
        return
    with contextlib.suppress(OSError, struct.error):
        times = _RTT.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT.size))
        rtt.append(times[0] / 1000)
        jitter.append(times[1] / 1000)


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"n": len(values), "median": statistics.median(values), "min": min(values), "max": max(values)}


def handshakes(endpoints: Sequence[Endpoint], timeout: float) -> list[dict[str, Any]]:
    """`network_times` of each server on another machine that answers, with its `url`."""
    remote = [endpoint for endpoint in endpoints if is_remote(endpoint)]
    return [
        {"url": endpoint.url, **times}
        for endpoint in remote
        if (times := network_times(endpoint, timeout)) is not None
    ]
