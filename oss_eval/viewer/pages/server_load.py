"""What the server and its GPUs say of their load: tables by point, and curves under the time line of a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis.repeats import pooled
from oss_eval.analysis.server_view import by_time
from oss_eval.report.gpu import gpu_table
from oss_eval.report.server_view import server_table
from oss_eval.viewer import figures
from oss_eval.viewer.page import Cell, Figure, Page, esc, num, table, text
from oss_eval.viewer.pages.common import Words
from oss_eval.viewer.run_index import StoredRun

SHOWN = (
    ("server-load", "In the server", "requests", ("running", "waiting")),
    ("kv-usage", "KV cache in use", "share of the KV cache", ("kv_usage",)),
)
"""Name, title, unit, and the metrics that are drawn."""


def server_tables(page: Page, shown: Sequence[StoredRun], t: Words) -> None:
    """The terminal's tables of the server's metrics and of its GPUs, of each run that has them."""
    for run in shown:
        if run.report is None:
            continue
        report = pooled(run.report)
        for printed in (server_table, gpu_table):
            notes: list[str] = []
            found = printed(report, notes)
            if found is None:
                continue
            letter = f"{run.label}: " if len(shown) > 1 else ""
            head = [str(column.header).replace("\n", " ") for column in found.columns]
            rows = zip(*(column.cells for column in found.columns), strict=True)
            title, _, names = str(found.title).partition(":")
            page.heading(letter + t(title) + (f":{names}" if names else ""))
            page.table(
                head,
                [[Cell(esc(str(cell)), str(cell), index > 0) for index, cell in enumerate(row)] for row in rows],
            )
            for note in dict.fromkeys(notes):
                page.say(note)


def server_load(readings: pa.Table, begin: int, t: Words) -> tuple[Figure, ...]:
    """Requests in the server and its KV cache over time (`readings`: rows of server_metrics of one point and one
    session; `begin`: UTC ns of the time line's 0); nothing without readings."""
    series = by_time(readings.to_pylist())
    found = []
    for name, title, unit, metrics in SHOWN:
        traces: list[Any] = []
        body: list[list[Cell]] = []
        for index, metric in enumerate(metrics):
            at = series.get(metric)
            if not at:
                continue
            times = sorted(at)
            values = [at[when] for when in times]
            seconds = [round((when - begin) / 1e9, 6) for when in times]
            traces.append(figures.line(t(metric.replace("_", " ")), index, seconds, values))
            body.append([text(t(metric.replace("_", " "))), num(sum(values) / len(values)), num(max(values))])
        if traces:
            layout = figures.layout(t("time since the first request (s)"), t(unit), height=240)
            layout["yaxis"] |= {"rangemode": "tozero"}
            found.append(Figure(name, t(title), traces, layout, table(["", t("mean"), t("max")], body)))
    return tuple(found)


def gpu_power(readings: pa.Table, begin: int, t: Words) -> tuple[Figure, ...]:
    """Power of each GPU over time (`readings`: rows of gpu_telemetry of one point and one session)."""
    traces: list[Any] = []
    body: list[list[Cell]] = []
    known = readings.filter(pc.is_valid(readings["power_w"])).sort_by("time_ns")
    for index, gpu in enumerate(sorted(known["gpu"].unique().to_pylist())):
        rows = known.filter(pc.equal(known["gpu"], gpu))
        values = rows["power_w"].to_pylist()
        seconds = [round((when - begin) / 1e9, 6) for when in rows["time_ns"].to_pylist()]
        traces.append(figures.line(f"GPU {gpu}", index, seconds, values))
        body.append([text(f"GPU {gpu}"), num(sum(values) / len(values), unit=" W"), num(max(values), unit=" W")])
    if not traces:
        return ()
    layout = figures.layout(t("time since the first request (s)"), t("power (W)"), height=240)
    layout["yaxis"] |= {"rangemode": "tozero"}
    inner = table(["", t("mean"), t("max")], body)
    return (Figure("gpu-power", t("Power of the GPUs"), traces, layout, inner),)
