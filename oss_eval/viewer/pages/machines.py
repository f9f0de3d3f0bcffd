"""Machines: load sweeps of several machines and engines side by side, with figures that others have published."""

from __future__ import annotations

from collections.abc import Sequence

from oss_eval.analysis.published_points import figures as published_figures
from oss_eval.analysis.speed_bound import gpu_label, view_bound
from oss_eval.models.published_speed import Figure as Figured
from oss_eval.models.published_speed import PublishedSpeed, published_speed
from oss_eval.viewer import figures
from oss_eval.viewer.filters import Filter
from oss_eval.viewer.page import Cell, Figure, Page, anchor, esc, estimate, num, share, table, text
from oss_eval.viewer.pages.common import Words, latest, level_title, nothing, problems, run_header, unfit
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import PointView, RunIndex, StoredRun

KINDS = ("perf",)
CONTROLS = (
    Filter("published", "Figures of others", "radio", (("shown", "shown"), ("hidden", "hidden")), "shown"),
)
MOST_RUNS = 8
"""Runs that are shown where none is chosen; as many as there are colours."""
GREY = "#767676"


def draw(run_index: RunIndex, query: Query, t: Words) -> Page:
    """Curves of throughput by machine, and a table of all points."""
    page = Page(t("Numbers"))
    if unfit(page, run_index, query, KINDS, t):
        return page
    shown = latest(run_index, query, KINDS, MOST_RUNS)
    if not shown:
        words = t("There is no load sweep among these runs. One to begin with:")
        return nothing(page, words, "oss-eval perf --url sim://gpt-oss-20b-h20 --parallel 1 10 50", t)
    run_header(page, shown, query, t)
    others = [] if query.get("published") == "hidden" else _published(shown)
    page.heading(
        t("Machines side by side"),
        t("A machine is the one of --gpu, of the label gpu, or the one that telemetry has seen."),
    )
    page.draw(_throughput(shown, others, t))
    _table(page, shown, query, t)
    if others:
        _others_table(page, others, t)
    problems(page, shown, t)
    return page


def machine_name(run: StoredRun, t: Words) -> str:
    """The machine of a run, with its engine: `H100-80GB · vLLM 0.24.0`."""
    if run.simulated:
        return t("simulated")
    labels = run.manifest.get("labels") or {}
    gpu = labels.get("gpu") or gpu_label(run.manifest, [view.metrics for view in run.points])
    gpu = gpu or t("unknown machine")
    engine = " ".join(filter(None, (labels.get("engine"), labels.get("engine_version"))))
    return " · ".join(filter(None, (str(gpu), engine)))


def _published(shown: Sequence[StoredRun]) -> list[PublishedSpeed]:
    """Published figures of the models shown."""
    models = dict.fromkeys(str(run.manifest.get("model") or "") for run in shown)
    return [row for model in models for row in published_speed(model)]


def _throughput(shown: Sequence[StoredRun], others: Sequence[PublishedSpeed], t: Words) -> Figure:
    data, body = [], []
    lines = [(run, effort) for run in shown for effort in (run.efforts or [""])]
    for index, (run, name) in enumerate(lines):
        effort = name or None
        views = sorted((v for v in run.pooled if v.effort == effort), key=lambda v: v.level or 0)
        rates = [view.metrics.shown.metric("output_tps") for view in views]
        name = " · ".join(filter(None, (run.model, machine_name(run, t), run.label, effort)))
        data.append(
            figures.line(
                name,
                index,
                [view.level for view in views],
                [rate.value if rate else None for rate in rates],
                error_y=figures.errors(rates) | {"color": figures.style(index)[0]},
                hovertemplate="%{x}: %{y:,.0f} tok/s<extra>%{fullData.name}</extra>",
            )
        )
        body += [[text(name), num(view.level), estimate(rate)] for view, rate in zip(views, rates, strict=True)]
    rows = [row for row in others if row.value("output_tps") is not None]
    if rows:
        names = [f"{row.machine} · {row.engine} {row.engine_version or ''}".strip() for row in rows]
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": t("published by others"),
                "x": [row.parallel for row in rows], "y": [row.value("output_tps") for row in rows],
                "text": [f"{row.model} · {name}" for row, name in zip(rows, names, strict=True)],
                "marker": {"color": GREY, "symbol": "diamond-open", "size": 9},
                "hovertemplate": "%{text}, %{x}: %{y:,.0f} tok/s<extra></extra>",
            }
        )  # fmt: skip
        body += [
            [text(name), num(row.parallel, 0), num(row.value("output_tps"))]
            for name, row in zip(names, rows, strict=True)
        ]
    views = [view for run in shown for view in run.pooled]
    title = level_title(views, t)
    layout = figures.layout("", t("output tokens/s"), log_y=True, height=420)
    layout["xaxis"] = figures.levels(title, [*(v.level for v in views), *(row.parallel for row in rows)])
    inner = table([t("Series"), t("Load"), t("Gen. tok/s")], body)
    note = t("Other prompts, lengths and settings than these runs: see the notes in the table.") if rows else ""
    return Figure("machines", t("Throughput by machine"), data, layout, inner, note)


def _table(page: Page, shown: Sequence[StoredRun], query: Query, t: Words) -> None:
    head = [
        t("Model"), t("Machine"), t("Effort"), t("Load"), t("Gen. tok/s"), t("tok/s a user"), t("TTFT, mean (s)"),
        t("TPOT, mean (ms)"), t("Latency, mean (s)"), t("Share of the bound"), t("From"),
    ]  # fmt: skip
    page.table(head, [_measured(view, query, t) for run in shown for view in run.pooled], name="machines")


def _others_table(page: Page, others: Sequence[PublishedSpeed], t: Words) -> None:
    page.heading(t("Published by others"))
    page.say(t("Figures of others were not measured by oss-eval: their error is not known."), "warn")
    head = [
        t("Model"), t("Machine"), t("Load"), t("Gen. tok/s"), t("TTFT, mean (s)"), t("TPOT, mean (ms)"),
        t("Latency, mean (s)"), t("From"), t("Conditions"),
    ]  # fmt: skip
    page.table(head, [_others(row) for row in others], name="published")


def _measured(view: PointView, query: Query, t: Words) -> list[Cell]:
    m, run = view.metrics.shown, view.run
    tpot = m.metric("tpot_ms", "mean")
    bound = view_bound(run.manifest, view.point_id, view.metrics, view.parallel)
    return [
        text(run.model), text(machine_name(run, t)), text(view.effort or "–"),
        Cell(esc(view.level_name), view.level, True), estimate(m.metric("output_tps")),
        num(1e3 / tpot.value if tpot and tpot.value else None), estimate(m.metric("ttft_ms", "mean"), 1e-3),
        estimate(tpot), estimate(m.metric("latency_ms", "mean"), 1e-3), share(bound.share if bound else None),
        Cell(anchor(run.label, query.to("perf", (run.key,))), run.label),
    ]  # fmt: skip


def _others(row: PublishedSpeed) -> list[Cell]:
    m = published_figures(row)
    tpot = m.metric("tpot_ms", "mean") or m.metric("tpot_ms", "p50")
    rate = row.metrics.get("output_tps")
    ranged = Cell(f"{rate[0]:g}–{rate[1]:g}", rate[1], True) if isinstance(rate, tuple) else num(rate)
    lengths = ", ".join(
        f"{tokens} {side}" for tokens, side in ((row.prompt_tokens, "in"), (row.output_tokens, "out")) if tokens
    )
    engine = " ".join(filter(None, (row.engine, row.engine_version)))
    # Sources are our own data, not a server's.
    source = f'<a href="{esc(row.source)}" rel="noreferrer">{row.date:%Y-%m}</a>'
    return [
        text(row.model), text(f"{row.machine} · {engine}"), Cell(f"c{row.parallel}", row.parallel, True), ranged,
        num(_seconds(row, "ttft_mean_ms")), num(tpot.value if tpot else None),
        num(_seconds(row, "latency_mean_ms")), Cell(source, row.date.isoformat()),
        Cell(esc("; ".join(filter(None, (lengths, row.note)))), lengths, wraps=True),
    ]  # fmt: skip


def _seconds(row: PublishedSpeed, name: Figured) -> float | None:
    value = row.value(name)
    return None if value is None else value / 1e3
