"""What the tables of a sweep have in common: a row a point."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from oss_eval.analysis.perf_summary import PointReport, RunReport
from oss_eval.report.format import NOTHING
from oss_eval.report.table import empty_table


def point_table(title: str, report: RunReport) -> Table:
    """An empty table with the columns that say which point a row is."""
    table = empty_table(title)
    if any(p.reasoning_effort for p in report.points):
        table.add_column("Effort", no_wrap=True)
    table.add_column("Req/s" if _open(report) else "Conc.", justify="right", no_wrap=True)
    return table


def load_title(report: RunReport) -> str:
    """What the points of a sweep differ in."""
    return "request rate" if _open(report) else "concurrency"


def _open(report: RunReport) -> bool:
    return any(point.rate is not None for point in report.points)


def coordinates(report: RunReport, point: PointReport) -> list[str]:
    """These columns of a point."""
    efforts = any(p.reasoning_effort for p in report.points)
    level = f"{point.level:g}"
    return [escape(point.reasoning_effort or NOTHING), level] if efforts else [level]
