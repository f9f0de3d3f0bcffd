"""Power, energy and load of the server's GPUs, as a table for the terminal."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.table import Table

from oss_eval.analysis.perf_summary import PointReport, RunReport
from oss_eval.report.format import NOTHING, number, percent
from oss_eval.report.point_rows import coordinates, point_table


def gpu_table(report: RunReport, notes: list[str]) -> Table | None:
    """A row a point; None where no point has a GPU."""
    points = [point for point in report.points if point.metrics.get("gpu_count") is not None]
    if not points:
        return None
    idle = any(p.metrics.get("energy_per_token_above_idle_j") is not None for p in points)
    throttled = any(p.metrics.get("gpu_throttled") for p in points)
    table = point_table("GPUs: " + gpu_names(report.manifest), report)
    titles = ["Power\n(W)", "Energy\n(J/token)"] + (["less idle\n(J/token)"] if idle else []) + ["Tokens\n(per J)"]
    titles += ["Util.", "Clock\n(MHz)", "Memory\n(GiB)"] + (["Throttled\n(time)"] if throttled else [])
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for point in points:
        m = point.metrics
        row = [number(m.get("gpu_power_w", "mean")), _with_error(point, "energy_per_token_j")]
        row += [_with_error(point, "energy_per_token_above_idle_j")] if idle else []
        memory = m.get("gpu_memory_mb", "max")
        row += [number(m.get("tokens_per_joule")), percent(m.get("gpu_utilization", "mean"))]
        row += [number(m.get("gpu_clock_mhz", "mean")), number(None if memory is None else memory / 1024)]
        row += [percent(m.get("gpu_throttled"))] if throttled else []
        table.add_row(*coordinates(report, point), *row)
        if m.get("gpu_energy_j") is None:
            notes.append(f"{point.level_text}: no energy, as the GPUs' readings do not cover the point")
    counts = sorted({int(p.metrics.get("gpu_count") or 0) for p in points})
    known = len((report.manifest.get("gpu_telemetry") or {}).get("gpus", []))
    if counts != [known]:
        notes.append(f"{' or '.join(map(str, counts))} of {known} GPUs had work and count")
    power = points[-1].metrics.get("gpu_idle_power_w")
    if power is not None:
        notes.append(f"idle: {power:.0f} W before the load, the model in memory")
    if any(p.metrics.get("gpu_energy_j") is not None for p in points):
        notes.append("± bounds of the error: 5% for the GPUs' own sensors, and the time between readings")
    return table


def gpu_names(manifest: dict[str, Any]) -> str:
    """The GPUs of a run in a few words."""
    gpus = (manifest.get("gpu_telemetry") or {}).get("gpus", [])
    names = Counter(gpu.get("name") or "unknown" for gpu in gpus)
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in names.items())


def _with_error(point: PointReport, metric: str) -> str:
    figure = point.metrics.metric(metric)
    if figure is None:
        return NOTHING
    return number(figure.value) + ("" if figure.high is None else f" ±{number(figure.high - figure.value)}")
