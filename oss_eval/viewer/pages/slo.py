"""Service levels: attainment and goodput by concurrency."""

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
    measured = {
        name: [(view, goodput(rows[view.run.key, view.point_id], limits)) for view in views]
        for name, views in series.items()
    }
    known = [
        (name, view, point) for name, points in measured.items() for view, point in points if point is not None
    ]
    shown = [view for _, view, _ in known]
    lines = [_line(name, view, point, t) for name, view, point in known]
    _summary(page, measured, limits, t)
    if any("≈" in cell.html for line in lines for cell in line):
        page.say(t("≈ fewer than {n} requests, or too close: use a larger --number to tell.").format(n=P99_NEEDS))
    head = [t("Series"), t("Load"), t("Attainment"), t("Goodput"), "RPS", t("Service level"), "n"]
    if any(_price(view) is not None for views in series.values() for view in views):
        head.append(t("Price of 1M out"))
        lines = [[*line, num(_price(view))] for line, view in zip(lines, shown, strict=True)]
    inner = table(head, lines)
    layout = figures.layout("", t("goodput (requests/s)"))
    layout["xaxis"] = levels(series, t)
    layout["yaxis"] |= {"rangemode": "tozero"}
    page.add(inner)
    data = [_trace(name, index, points) for index, (name, points) in enumerate(measured.items())]
    page.draw(Figure("goodput", t("Goodput"), data, layout, inner))


Measured = list[tuple[PointView, Goodput | None]]
"""The points of a series; None where nothing was measured."""


def _trace(name: str, index: int, points: Measured) -> dict[str, Any]:
    return figures.line(
        name,
        index,
        [view.level for view, _ in points],
        [point.rate if point else None for _, point in points],
        text=[f"{point.attainment.value:.1%}" if point else "" for _, point in points],
        hovertemplate="%{x}: %{y:.3f}/s, %{text}<extra>%{fullData.name}</extra>",
    )


def _line(name: str, view: PointView, point: Goodput, t: Words) -> list[Cell]:
    """A point's row of the table."""
    sign, verdict, style = MEETING[point.meets]
    label = f"{sign} {t(verdict)}"
    interval = f' <small class="ci">{point.attainment.low:.1%}–{point.attainment.high:.1%}</small>'
    return [
        text(name),
        Cell(anchor(view.level_name, requests_of(view)), view.level, True),
        Cell(share(point.attainment.value).html + interval, point.attainment.value, True),
        num(point.rate, unit="/s"),
        num(view.metrics.get("rps"), unit="/s"),
        Cell(f'<span class="{style}">{esc(label)}</span>', label),
        num(point.n, 0),
    ]


def _summary(page: Page, measured: dict[str, Measured], limits: dict[str, float], t: Words) -> None:
    """The limits, and the concurrencies that hold them."""
    listed = ", ".join(
        f"{name.upper() if name != 'latency' else t('latency')} ≤ {limit:,.0f} ms"
        for name, limit in limits.items()
    )
    page.say(
        t("Limits: {limits}. A point meets them when {share:.0%} of its requests do.").format(
            limits=listed, share=OBJECTIVE
        )
    )
    for name, points in measured.items():
        held = " ".join(str(view.level) for view, point in points if point is not None and point.meets)
        if held:
            page.say(t("{series}: holds at concurrency {levels}").format(series=name, levels=held))
        priced = [
            (price, view.level)
            for view, point in points
            if point is not None and point.meets and (price := _price(view)) is not None
        ]
        if priced:
            price, level = min(priced)
            page.say(
                t(
                    "{series}: lowest price within the limits {price} for 1M output tokens, at concurrency {level}"
                ).format(series=name, price=f"{price:.4g}", level=level)
            )


def _price(view: PointView) -> float | None:
    """Price of a million output tokens, where the sweep has `--gpu-price`."""
    return view.metrics.get("price_per_mtok")
