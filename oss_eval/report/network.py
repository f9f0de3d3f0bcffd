"""The distance to a server, in a line."""

from __future__ import annotations

from typing import Any

from oss_eval.report.format import number


def network_line(times: dict[str, Any]) -> str:
    """The round-trip time of an entry of the manifest's `network`, with its spread. It is part of every time."""
    tcp, kernel, tls = (times.get(name) for name in ("tcp_ms", "kernel_rtt_ms", "tls_ms"))
    parts = []
    if tcp:
        spread = f"{number(tcp['min'])} to {number(tcp['max'])} ms in {tcp['n']} handshakes"
        parts.append(f"TCP {number(tcp['median'])} ms ({spread})")
    if kernel:
        jitter = times.get("kernel_jitter_ms")
        around = f" ±{number(jitter['median'])}" if jitter else ""
        parts.append(f"kernel RTT {number(kernel['median'])}{around} ms")
    if tls:
        parts.append(f"TLS {number(tls['median'])} ms")
    return ", ".join(parts) + "; it is part of every time"
