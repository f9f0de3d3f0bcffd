"""What meets a service level: attainment and goodput by concurrency."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from oss_eval.analysis.slo import OBJECTIVE, Goodput, goodput
from oss_eval.analysis.stats import P99_NEEDS
from oss_eval.viewer import figures
from oss_eval.viewer.page import Cell, Figure, Page, anchor, esc, num, share, table, text
from oss_eval.viewer.pages.common import Words, levels, requests_of
from oss_eval.viewer.run_index import PointView

MEETING = {True: ("✓", "meets", "right"), False: ("✗", "misses", "wrong"), None: ("≈", "can't tell", "")}


def service(
    page: Page,
    series: dict[str, list[PointView]],
    rows: dict[tuple[str, str], pa.Table],
    limits: dict[str, float],
    t: Words,
) -> None:
    """Which concurrency holds some limits, by name of a duration in ms; `rows` are the requests of each point."""
    page.heading(
        t("Service level"),
        t(
            "Goodput: requests per second that meet every limit. Attainment: their share of all requests, "
            "failed ones included."
        ),
    )
    if not limits:
        page.say(t("Set a limit on TTFT, TPOT or latency above to see which concurrency holds it."), "note hint")
        return
    data: list[dict[str, Any]] = []
    lines: list[list[Cell]] = []
    held: dict[str, list[str]] = {}
    for index, (name, views) in enumerate(series.items()):
        found: list[Goodput | None] = [goodput(rows[v.run.key, v.point_id], limits) for v in views]
        data.append(
            figures.line(
                name,
                index,
                [v.parallel for v in views],
                [g.rate if g else None for g in found],
                text=[f"{g.attainment.value:.1%}" if g else "" for g in found],
                hovertemplate="c%{x}: %{y:.3f}/s, %{text}<extra>%{fullData.name}</extra>",
            )
        )
        for view, g in zip(views, found, strict=True):
            if g is None:
                continue
            sign, said_of, style = MEETING[g.meets]
            word = f"{sign} {t(said_of)}"
            if g.meets:
                held.setdefault(name, []).append(str(view.parallel))
            interval = f' <small class="ci">{g.attainment.low:.1%}–{g.attainment.high:.1%}</small>'
            lines.append(
                [
                    text(name),
                    Cell(anchor(f"c{view.parallel}", requests_of(view)), view.parallel, True),
                    Cell(share(g.attainment.value).html + interval, g.attainment.value, True),
                    num(g.rate, unit="/s"),
                    num(view.metrics.get("rps"), unit="/s"),
                    Cell(f'<span class="{style}">{esc(word)}</span>', word),
                    num(g.n, 0),
                ]
            )
    said = ", ".join(
        f"{name.upper() if name != 'latency' else t('latency')} ≤ {limit:,.0f} ms"
        for name, limit in limits.items()
    )
    page.say(
        t("Limits: {limits}. A point meets them when {share:.0%} of its requests do.").format(
            limits=said, share=OBJECTIVE
        )
    )
    for name, at in held.items():
        page.say(t("{series}: holds at concurrency {levels}").format(series=name, levels=" ".join(at)))
    if any("≈" in cell.html for line in lines for cell in line):
        page.say(t("≈ fewer than {n} requests, or too close: use a larger --number to tell.").format(n=P99_NEEDS))
    inner = table([t("Series"), t("Conc."), t("Attainment"), t("Goodput"), "RPS", t("Service level"), "n"], lines)
    layout = figures.layout(t("concurrency"), t("goodput (requests/s)"))
    layout["xaxis"] = levels(series, t)
    layout["yaxis"] |= {"rangemode": "tozero"}
    page.add(inner)
    page.draw(Figure("goodput", t("Goodput"), data, layout, inner))
