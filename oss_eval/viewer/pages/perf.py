"""Load: throughput and latencies by concurrency and effort, and service levels."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis.advice import best
from oss_eval.analysis.figures import Metric, PointMetrics
from oss_eval.analysis.latency import request_durations
from oss_eval.analysis.repeats import pooled
from oss_eval.analysis.slo import REQUEST_COLUMNS
from oss_eval.analysis.speed_bound import recommendations, view_bound
from oss_eval.analysis.stats import P99_NEEDS
from oss_eval.report.format import LARGEST_VALUE
from oss_eval.viewer import figures
from oss_eval.viewer.filters import Filter
from oss_eval.viewer.page import Cell, Figure, Page, esc, estimate, num, share, table, text
from oss_eval.viewer.pages.common import (
    PERF_KINDS,
    Words,
    by_series,
    latest,
    levels,
    nothing,
    problems,
    requests_of,
    run_header,
    unfit,
)
from oss_eval.viewer.pages.search import searches
from oss_eval.viewer.pages.server_load import server_tables
from oss_eval.viewer.pages.slo import service
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import PointView, RunIndex, StoredRun

STATS = (("mean", "mean"), ("P50", "p50"), ("P90", "p90"), ("P99", "p99"))
SPREAD = (("TTFT", "ttft"), ("TTFA", "ttfa"), ("TPOT", "tpot"), ("latency", "latency"))
CONTROLS = (
    Filter("stat", "Statistic", "radio", STATS, "p50"),
    Filter("spread", "Distribution of", "radio", SPREAD, "ttft"),
    Filter("ttft", "TTFT at most (ms)", "slider", most=10_000, step=50, info="0: no limit"),
    Filter("tpot", "TPOT at most (ms)", "slider", most=200, step=1, info="0: no limit"),
    Filter("latency", "Latency at most (ms)", "slider", most=120_000, step=500, info="0: no limit"),
)
LIMITS = ("ttft", "tpot", "latency")
MOST_CURVES = 12


def draw(run_index: RunIndex, query: Query, t: Words) -> Page:
    """Table, curves, Pareto curve, distributions, service level."""
    page = Page(t("Numbers"))
    if unfit(page, run_index, query, PERF_KINDS, t):
        return page
    shown = latest(run_index, query, PERF_KINDS)
    if not shown:
        words = t("There is no load sweep among these runs. One to begin with:")
        return nothing(page, words, "oss-eval perf --url sim://gpt-oss-20b-h20 --parallel 1 10 50", t)
    run_header(page, shown, query, t)
    views = [view for run in shown for view in run.pooled]
    if not views:
        page.say(t("No request is finished yet."))
        return page
    stat = query.get("stat") if query.get("stat") in dict(map(reversed, STATS)) else "p50"  # type: ignore[arg-type]
    limits = {name: limit for name in LIMITS if (limit := query.number(name)) is not None}
    series = by_series(views, shown)
    page.heading(t("Performance by concurrency"))
    _table(page, series, t)
    _findings(page, shown, t)
    page.heading(
        t("Curves"),
        t("With 95% intervals; a P99 of fewer than {n} values is the largest value.").format(n=P99_NEEDS),
    )
    page.draw(
        _throughput(series, t),
        _against(series, "ttft_ms", stat, t("TTFT"), "ms", 1.0, limits.get("ttft"), t),
        _against(series, "tpot_ms", stat, t("TPOT"), "ms", 1.0, limits.get("tpot"), t),
        _against(series, "latency_ms", stat, t("Latency"), "s", 1e-3, limits.get("latency"), t),
    )
    page.heading(
        t("What one user gets, what all get"), t("Up and to the right is better; each mark is a concurrency.")
    )
    rows = {(view.run.key, view.point_id): table for run in shown for view, table in _by_point(run)}
    page.draw(_pareto(series, t), _distribution(series, rows, query.get("spread") or "ttft", limits, t))
    searches(page, shown, t)
    service(page, series, rows, limits, t)
    server_tables(page, shown, t)
    problems(page, shown, t)
    return page


def _by_point(run: StoredRun) -> list[tuple[PointView, pa.Table]]:
    """The requests of each point; the files are read once."""
    found = run.requests([*REQUEST_COLUMNS, "point_id"])
    of = found["point_id"].cast(pa.string())
    return [
        (view, found.filter(pc.is_in(of, pa.array(view.members or (view.point_id,), pa.string()))))
        for view in run.pooled
    ]


def _table(page: Page, series: dict[str, list[PointView]], t: Words) -> None:
    head = [
        t("Series"),
        t("Load"),
        "RPS",
        t("Gen. tok/s"),
        t("Latency, mean (s)"),
        "P99",
        t("TTFT, mean (s)"),
        "P99",
        t("TTFA, mean (s)"),
        t("TPOT, mean (ms)"),
        "P99",
        t("Success"),
        "n",
        t("Tokens out"),
    ]
    rows = []
    for name, views in series.items():
        for view in views:
            m = view.metrics.shown
            done = view.metrics.get("requests") or 0
            few = "" if view.whole else " *"
            rows.append(
                [
                    text(name),
                    num(view.level),
                    num(m.get("rps")),
                    num(m.get("output_tps")),
                    estimate(m.metric("latency_ms", "mean"), 1e-3),
                    _tail(m, "latency_ms", 1e-3),
                    estimate(m.metric("ttft_ms", "mean"), 1e-3),
                    _tail(m, "ttft_ms", 1e-3),
                    estimate(m.metric("ttfa_ms", "mean"), 1e-3),
                    estimate(m.metric("tpot_ms", "mean")),
                    _tail(m, "tpot_ms", 1.0),
                    share(m.get("success_rate")),
                    Cell(f"{done:,.0f}{few}", done, True),
                    num(m.get("completion_tokens", "mean"), 0),
                ]
            )
    page.table(head, rows, name="perf")
    every = [view for views in series.values() for view in views]
    if any(view.metrics.steady is not None for view in every):
        _whole(page, series, t)
    if any(not view.whole for view in every):
        page.say(t("* fewer requests were finished than planned"))
    if any(view.metrics.tail("latency_ms")[1] for views in series.values() for view in views):
        page.say(t(LARGEST_VALUE).format(n=P99_NEEDS))


def _whole(page: Page, series: dict[str, list[PointView]], t: Words) -> None:
    """Which points are shown by their steady state, and figures of whole points."""
    none = [view.title for views in series.values() for view in views if view.metrics.steady is None]
    words = t("Figures of the steady state; those of whole points, with start and end, are below.")
    page.say(words + (" " + t("Without a steady state: {points}.").format(points=", ".join(none)) if none else ""))
    head = [
        t("Series"),
        t("Load"),
        "RPS",
        t("Gen. tok/s"),
        t("Latency, mean (s)"),
        "P99",
        t("TTFT, mean (s)"),
        "P99",
    ]
    rows = [
        [
            text(name),
            num(view.level),
            num(m.get("rps")),
            num(m.get("output_tps")),
            estimate(m.metric("latency_ms", "mean"), 1e-3),
            _tail(m, "latency_ms", 1e-3),
            estimate(m.metric("ttft_ms", "mean"), 1e-3),
            _tail(m, "ttft_ms", 1e-3),
        ]
        for name, views in series.items()
        for view in views
        for m in (view.metrics,)
    ]
    page.fold("whole-points", t("Whole points"), table(head, rows))


def _figure(view: PointView, metric: str, stat: str) -> Metric | None:
    """A figure; for a 99th percentile of too few values, the largest one, without an interval."""
    found = view.metrics.shown
    return found.tail(metric)[0] if stat == "p99" else found.metric(metric, stat)


def _tail(metrics: PointMetrics, metric: str, factor: float) -> Cell:
    figure, is_largest = metrics.tail(metric)
    cell = num(figure.value * factor if figure else None)
    return Cell(cell.html + "^", cell.sort, True) if is_largest else cell


def _findings(page: Page, shown: Sequence[StoredRun], t: Words) -> None:
    """Failures by kind, the findings of the checks, and recommendations."""
    for run in shown:
        if run.report is None:
            continue
        report = pooled(run.report)
        letter = f"{run.label}: " if len(shown) > 1 else ""
        titles = {point_id: title for title, point_id in run.planned}
        for point in report.points:
            where = titles[point.point_id]
            for kind, (count, example) in point.failures.items():
                page.say(f"{letter}{where}: {count} × {kind} {example[:200]}", "bad")
        found: dict[tuple[str, str], list[str]] = {}
        for point in report.points:
            for check in point.checks or ():
                found.setdefault((check["level"], check["message"]), []).append(titles[point.point_id])
        for (level, message), places in found.items():
            words = f"{letter}{t('Instrument')}, {', '.join(places)}: {message}"
            page.say(words, "warn" if level == "warn" else "note")
        if report.points and not found and all(point.checks is not None for point in report.points):
            page.say(f"{letter}{t('Instrument: clean at every point.')}")
        if len(report.points) > 1 and run.kind == "perf":
            whole = [p for p in report.points if p.whole] or report.points
            items = "".join(f"<li>{esc(name)}: {esc(words)}</li>" for name, words in best(whole))
            items += "".join(f"<li>{esc(line)}</li>" for line in recommendations(run.manifest, whole))
            page.fold(f"advice-{run.key}", letter + t("Recommendations"), f"<ul>{items}</ul>", opened=True)


def _throughput(series: dict[str, list[PointView]], t: Words) -> Figure:
    data, rows = [], []
    for index, (name, views) in enumerate(series.items()):
        shown = [view.metrics.shown for view in views]
        found = [m.metric("plateau_output_tps") or m.metric("output_tps") for m in shown]
        data.append(
            figures.line(
                name,
                index,
                [v.level for v in views],
                [m.value if m else None for m in found],
                error_y=figures.errors(found) | {"color": figures.style(index)[0]},
                customdata=[str(requests_of(view)) for view in views],
                hovertemplate="%{x}: %{y:,.0f} tok/s<extra>%{fullData.name}</extra>",
            )
        )
        known = [view_bound(v.run.manifest, v.point_id, v.metrics, v.parallel) for v in views]
        if any(known):
            curve = figures.line(
                t("{series}: bound").format(series=name),
                index,
                [v.level for v in views],
                [bound and bound.output_tps for bound in known],
                hovertemplate="%{x}: %{y:,.0f} tok/s<extra>%{fullData.name}</extra>",
            )
            data.append(curve | {"mode": "lines", "line": curve["line"] | {"dash": "dot", "width": 1.5}})
        rows += [
            [
                text(name),
                num(v.level),
                estimate(m),
                num(v.metrics.get("output_tps")),
                num(bound.output_tps if bound else None),
                share(bound.share if bound else None),
                text(t(bound.limit) if bound else "–"),
            ]
            for v, m, bound in zip(views, found, known, strict=True)
        ]
    head = [t("Series"), t("Load"), t("tok/s while full"), t("tok/s overall")]
    inner = table([*head, t("Bound (tok/s)"), t("Share of the bound"), t("Limit")], rows)
    layout = figures.layout("", t("output tokens/s"))
    layout["xaxis"] = levels(series, t)
    layout["yaxis"] |= {"rangemode": "tozero"}
    note = t(
        "The rate while the planned number of requests was in flight; ramp-up and tail are left out where "
        "possible."
    )
    if any(trace["mode"] == "lines" for trace in data):
        note += " " + t("Bound: what the GPU's bandwidth and arithmetic allow.")
        layout["yaxis"] |= {"type": "log", "rangemode": "normal"}
    return Figure("throughput", t("Throughput while full"), data, layout, inner, note)


def _against(
    series: dict[str, list[PointView]],
    metric: str,
    stat: str,
    title: str,
    unit: str,
    factor: float,
    limit: float | None,
    t: Words,
) -> Figure:
    data, rows = [], []
    for index, (name, views) in enumerate(series.items()):
        found = [_figure(view, metric, stat) for view in views]
        data.append(
            figures.line(
                name,
                index,
                [v.level for v in views],
                [m.value * factor if m else None for m in found],
                error_y=figures.errors(found, factor) | {"color": figures.style(index)[0]},
                customdata=[str(requests_of(view)) for view in views],
                hovertemplate="%{x}: %{y:.4g} " + unit + "<extra>%{fullData.name}</extra>",
            )
        )
        rows += [
            [text(name), num(v.level), estimate(m, factor), num(m.n if m else None, 0)]
            for v, m in zip(views, found, strict=True)
        ]
    layout = figures.layout("", f"{title} {stat.upper() if stat != 'mean' else t('mean')} ({unit})")
    layout["xaxis"] = levels(series, t)
    layout["yaxis"] |= {"rangemode": "tozero"}
    if limit is not None:
        layout["shapes"] = figures.reference_line(limit * factor, "y")
    inner = table([t("Series"), t("Load"), f"{title} ({unit})", "n"], rows)
    return Figure(
        metric.removesuffix("_ms"),
        f"{title}, {stat.upper() if stat != 'mean' else t('mean')}",
        data,
        layout,
        inner,
    )


def _pareto(series: dict[str, list[PointView]], t: Words) -> Figure:
    """Throughput of all users against the speed of one, 1 / mean TPOT: the deployment's Pareto curve."""
    data, rows = [], []
    for index, (name, views) in enumerate(series.items()):
        having = [(v, 1e3 / tpot) for v in views if (tpot := v.metrics.get("tpot_ms", "mean"))]
        data.append(
            figures.line(
                name,
                index,
                [speed for _, speed in having],
                [v.metrics.get("output_tps") for v, _ in having],
                text=[v.level_name for v, _ in having],
                textposition="top right",
                customdata=[str(requests_of(v)) for v, _ in having],
                hovertemplate="%{text}: %{x:.1f} tok/s a user, %{y:,.0f} tok/s<extra>%{fullData.name}</extra>",
            )
            | {"mode": "lines+markers+text"}
        )
        rows += [[text(name), num(v.level), num(speed), num(v.metrics.get("output_tps"))] for v, speed in having]
    layout = figures.layout(t("speed of one user (tokens/s, 1 / mean TPOT)"), t("throughput of all (tokens/s)"))
    layout["xaxis"] |= {"rangemode": "tozero"}
    layout["yaxis"] |= {"rangemode": "tozero"}
    inner = table([t("Series"), t("Load"), t("tok/s a user"), t("tok/s of all")], rows)
    return Figure("pareto", t("Throughput against speed for one user"), data, layout, inner)


def _distribution(
    series: dict[str, list[PointView]],
    rows: dict[tuple[str, str], pa.Table],
    which: str,
    limits: dict[str, float],
    t: Words,
) -> Figure:
    data, lines, index = [], [], 0
    title = next((name for name, value in SPREAD if value == which), "TTFT")
    which = which if which in dict(map(reversed, SPREAD)) else "ttft"  # type: ignore[arg-type]
    every = [(name, view) for name, views in series.items() for view in views]
    for name, view in every[:MOST_CURVES]:
        found = rows[view.run.key, view.point_id]
        good = found.filter(pc.and_(pc.invert(found["warmup"]), pc.equal(found["status"].cast(pa.string()), "ok")))
        values = request_durations(good)[which]
        values = values[values == values]  # NaN: a request without such a duration
        if not len(values):
            continue
        x, y = figures.ecdf(values)
        label = f"{name} {view.level_name}"
        curve = figures.line(
            label, index, x, y, hovertemplate="%{x:.4g} ms: %{y:.1%}<extra>%{fullData.name}</extra>"
        )
        data.append(curve | {"mode": "lines", "line": curve["line"] | {"shape": "hv"}})
        m = view.metrics
        lines.append(
            [
                text(name),
                num(view.level),
                *(num(m.get(f"{which}_ms", s)) for s in ("p50", "p90", "p99", "max")),
                num(len(values), 0),
            ]
        )
        index += 1
    layout = figures.layout(f"{title} (ms)", t("share of requests"), log_x=True)
    layout["yaxis"] |= {"range": [0, 1.01], "tickformat": ".0%"}
    least = min((min(curve["x"]) for curve in data), default=1.0)
    if which in limits:
        layout["shapes"] = figures.reference_line(limits[which], "x", max(least, 1e-3))
    note = (
        t("{n} more points are not drawn").format(n=len(every) - MOST_CURVES) if len(every) > MOST_CURVES else ""
    )
    inner = table([t("Series"), t("Load"), "P50 (ms)", "P90 (ms)", "P99 (ms)", t("max (ms)"), "n"], lines)
    return Figure("distribution", t("Distribution of {name}").format(name=title), data, layout, inner, note)
