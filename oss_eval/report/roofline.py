"""Each point's share of the bound of its speed, as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from oss_eval.analysis.perf_summary import RunReport
from oss_eval.analysis.speed_bound import bounds, deployment
from oss_eval.models import roofline
from oss_eval.report.format import NOTHING, number
from oss_eval.report.point_rows import coordinates, point_table


def roofline_table(report: RunReport, notes: list[str]) -> Table | None:
    """A row a point; None and a note where there is no bound."""
    found = deployment(report.manifest, [p.metrics for p in report.points])
    if found is None:
        notes.append(
            "no bound of the speed: the model has no card (see oss-eval models), or the GPU is not known: name it "
            "with --gpu GPU[xN]"
        )
        return None
    known = bounds(found, report.points)
    if not known:
        card_lacks = not roofline.known(found.machine, found.card)
        reason = f"{found.machine.name} has no bandwidth in its card" if card_lacks else "no point has tokens"
        notes.append(f"no bound of the speed: {reason}")
        return None
    table = point_table(f"Share of the bound: {found.card.name} on {found.machine.name}", report)
    busy = any(bound.gpu_busy is not None for bound in known.values())
    for title in (
        "Gen.\ntok/s",
        "Bound\n(tok/s)",
        "Share",
        "Bound\nby",
        *(["GPU\nbusy"] if busy else []),
        "Limit",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    for point in report.points:
        bound = known.get(point.point_id)
        row = [number(point.metrics.shown.get("output_tps"))]
        if bound is None:
            table.add_row(*coordinates(report, point), *row)
            continue
        row += [f"{bound.output_tps:,.0f}", f"{bound.share:.1%}", bound.work]
        row += [NOTHING if bound.gpu_busy is None else f"{bound.gpu_busy:.0%}"] if busy else []
        table.add_row(*coordinates(report, point), *row, bound.limit)
    notes.append("Bound: what memory bandwidth and arithmetic allow, BF16 KV cache; docs/models.md")
    if found.doubt:
        notes.append(found.doubt)
    return table
