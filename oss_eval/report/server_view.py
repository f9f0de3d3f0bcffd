"""The server's own view of a sweep, as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from oss_eval.analysis.perf_summary import PointReport, RunReport
from oss_eval.report.format import NOTHING, percent, scaled
from oss_eval.report.point_rows import coordinates, point_table

COLUMNS = {
    "server_ttft_ms": "TTFT\n(ms)", "server_ttft_difference_ms": "diff.\n(ms)",
    "server_latency_ms": "Lat.\n(ms)", "server_latency_difference_ms": "diff.\n(ms)",
    "server_queue_ms": "Queue\n(ms)", "server_prefill_ms": "Prefill\n(ms)",
}  # fmt: skip
"""Means in ms."""
LOADS = {"server_running": "Run.\nmax", "server_waiting": "Wait.\nmax"}
SHARES = {
    "server_kv_usage": ("max", "KV\nmax"), "server_prefix_hits": ("value", "Prefix\nhits"),
    "acceptance_rate": ("value", "Accept.\nrate"),
}  # fmt: skip


def server_table(report: RunReport, notes: list[str]) -> Table | None:
    """A row a point, with the columns that the server has; None where no point has any."""
    points = report.points
    means = [name for name in COLUMNS if _has(points, name, "mean")]
    loads = [name for name in LOADS if _has(points, name, "max")]
    shares = [name for name, (stat, _) in SHARES.items() if _has(points, name, stat)]
    if not (means or loads or shares):
        return None
    table = point_table("Server metrics", report)
    titles = [*(COLUMNS[name] for name in means), *(LOADS[name] for name in loads)]
    for title in [*titles, *(SHARES[name][1] for name in shares)]:
        table.add_column(title, justify="right", no_wrap=True)
    for point in points:
        row = [scaled(point.metrics.get(name, "mean"), 1.0) for name in means]
        row += [_count(point.metrics.get(name, "max")) for name in loads]
        row += [percent(point.metrics.get(name, SHARES[name][0])) for name in shares]
        table.add_row(*coordinates(report, point), *row)
        noted = point.metrics.get("server_requests")
        if noted is not None and point.metrics.get("server_ttft_difference_ms", "mean") is None:
            answers = point.metrics.finished - (point.metrics.get("failures") or 0.0)
            notes.append(
                f"{point.level_text}: no difference, as the server noted {noted:.0f} answers and "
                f"oss-eval {answers:.0f}"
            )
    if "server_ttft_difference_ms" in means:
        notes.append(
            "diff.: oss-eval's mean less the server's: network, and the server's work outside its timestamps"
        )
    return table


def _has(points: list[PointReport], name: str, stat: str) -> bool:
    return any(point.metrics.get(name, stat) is not None for point in points)


def _count(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"
