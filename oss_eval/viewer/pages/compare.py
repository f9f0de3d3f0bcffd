"""Runs B, C, ... against run A: better, worse, or can't tell, and conditions that differ."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis.compare import PAIRED, MetricDifference, adjusted, benchmarks, sweeps
from oss_eval.analysis.conditions import mismatches
from oss_eval.analysis.figures import PointMetrics
from oss_eval.analysis.gate import SHARES
from oss_eval.analysis.perf_summary import load_run
from oss_eval.analysis.stats import Difference
from oss_eval.results.manifest import has_older_intervals
from oss_eval.viewer import figures
from oss_eval.viewer.filters import Filter
from oss_eval.viewer.page import Cell, Figure, Page, anchor, badge, esc, num, table, text
from oss_eval.viewer.pages.common import PERF_KINDS, Words, problems, run_header
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import PointView, RunIndex, StoredRun

CONTROLS = (
    Filter("metric", "Figure shown", "choice"),
    Filter(
        "verdict",
        "Rows",
        "choice",
        (
            ("with an interval", ""),
            ("all", "all"),
            ("better or worse", "told"),
            ("worse", "worse"),
            ("can't tell", "can't tell"),
        ),
    ),
)
NAMES = {
    "plateau_output_tps": "output tokens/s while full",
    "output_tps": "output tokens/s",
    "rps": "requests/s",
    "ttft_ms": "TTFT",
    "ttfa_ms": "TTFA",
    "tpot_ms": "TPOT",
    "latency_ms": "latency",
    "success_rate": "success rate",
    "completion_tokens": "tokens of an answer",
    "score": "score",
    "truncated": "truncated answers",
}
SIGNS = {"better": "▲", "worse": "▼", "different": "◆", "can't tell": "≈", "no interval": "–"}
STYLES = {"better": "good", "worse": "broken"}


def draw(run_index: RunIndex, query: Query, t: Words) -> Page:
    """Warnings, table, and the differences of one figure."""
    page = Page(t("Numbers"))
    chosen = run_index.chosen(query.runs, ("bench", *PERF_KINDS))
    if len(chosen) < 2:
        page.say(
            t("Choose two or more runs of the same kind above; the first is what the others are compared with.")
        )
        _suggest(page, run_index, chosen, t)
        return page
    first, others = chosen[0], chosen[1:]
    run_header(page, chosen, query, t)
    found: list[tuple[StoredRun, MetricDifference]] = []
    for other in others:
        if first.kind != other.kind:
            page.say(t("{run} is of another kind and can't be compared with A.").format(run=other.label), "bad")
            continue
        _unlike(page, first, other, chosen, t)
        found += [(other, contrast) for contrast in contrasts(first, other)]
    if not found:
        page.say(
            t("These runs have no point in common: same task and effort, or same effort and concurrency."), "warn"
        )
        problems(page, chosen, t)
        return page
    found = list(zip((run for run, _ in found), adjusted([c for _, c in found]), strict=True))
    _verdict(page, found, t)
    wanted = query.get("verdict")
    shown = [pair for pair in found if _wanted(pair[1], wanted)]
    head = [
        *([t("Run")] if len(others) > 1 else []),
        t("Point"),
        t("Figure"),
        "A",
        t("B"),
        t("Difference"),
        t("Pairs"),
        "%",
        "p",
        t("Verdict"),
    ]
    page.table(head, [_row(run, c, len(others) > 1, t) for run, c in shown], name="compare")
    page.say(
        t(
            "Difference: B − A with its 95% interval. Scores are compared on the same problems (stratified score "
            "test; p-values corrected for their number, Holm), other figures of benchmarks by Student's t over "
            "problems, load sweeps by the ratio of two figures, from repeats or from their intervals within each "
            "run. p-values of other figures than scores are not corrected: of 20 rows without any difference, one "
            "falls below 0.05."
        )
    )
    metrics = list(dict.fromkeys((c.metric, c.stat) for _, c in found if c.difference.low is not None))
    values = [f"{metric}:{stat}" for metric, stat in metrics]
    metric = query.get("metric") if query.get("metric") in values else (values[0] if values else "")
    page.choices["metric"] = ([(_name(m, s, t), f"{m}:{s}") for m, s in metrics], metric)
    if metric:
        page.draw(
            _forest([pair for pair in found if f"{pair[1].metric}:{pair[1].stat}" == metric], len(others) > 1, t)
        )
    problems(page, chosen, t)
    return page


@lru_cache(maxsize=32)
def contrasts(a: StoredRun, b: StoredRun) -> list[MetricDifference]:
    """All metrics of the points that two runs have in common. Runs don't change, so it is computed once."""
    found: list[MetricDifference] = []
    if a.kind == "bench":
        columns = ["point_id", "subset", "sample_id", "prompt", *(name for name, _ in PAIRED)]
        tables = [run.samples(columns) for run in (a, b)]
        for one in a.points:
            two = next((v for v in b.points if (v.task, v.effort) == (one.task, one.effort)), None)
            if two is not None:
                parts = [_of_point(rows, v) for rows, v in zip(tables, (one, two), strict=True)]
                hashes = [run.manifest["tasks"].get(one.task, {}).get("samples_hash") for run in (a, b)]
                same_order = hashes[0] == hashes[1]
                flags = (one.adaptive, two.adaptive)
                found += benchmarks(one.title, parts[0], parts[1], same_order, flags).differences
        return found
    of_a, of_b = (_metrics(run) for run in (a, b))
    for one in a.pooled:
        two = _counterpart(one, a, b)
        if two is not None:
            repeats = [
                [of[name] for name in view.members or (view.point_id,) if name in of]
                for view, of in ((one, of_a), (two, of_b))
            ]
            found += sweeps(one.title, repeats[0], repeats[1])
    return found


def _metrics(run: StoredRun) -> dict[str, PointMetrics]:
    """The figures of a sweep's points; computed where those that are stored have intervals of older formulas."""
    if has_older_intervals(run.manifest):
        return {point.point_id: point.metrics for point in load_run(run.path, damaged=[]).points}
    return {view.point_id: view.metrics for view in run.points}


def _counterpart(one: PointView, a: StoredRun, b: StoredRun) -> PointView | None:
    """B's point of the same effort, workers and concurrency; of several, the one at the same position."""
    turn = [view for view in a.pooled if view.title == one.title].index(one)
    return next(iter([view for view in b.pooled if view.title == one.title][turn : turn + 1]), None)


def _of_point(rows: pa.Table, view: PointView) -> pa.Table:
    return rows.filter(pc.equal(rows["point_id"].cast(pa.string()), view.point_id))


def _suggest(page: Page, run_index: RunIndex, chosen: list[StoredRun], t: Words) -> None:
    """Runs that can be compared with the chosen one, or the latest pair."""
    runs = [run for run in run_index.runs() if run.manifest.get("points")]
    base = chosen[0] if chosen else None
    pairs = [
        (one, two)
        for one in ([base] if base else runs[:10])
        for two in runs
        if one is not None and two is not one and two.kind == one.kind and two.task == one.task
    ][:8]
    links = "".join(
        f"<li>{anchor(f'{one.name} ↔ {two.name}', Query('compare', (two.key, one.key)))}</li>"
        for one, two in pairs
    )
    if links:
        page.add(f"<p>{esc(t('For example'))}:</p><ul>{links}</ul>")


def _unlike(page: Page, a: StoredRun, b: StoredRun, chosen: list[StoredRun], t: Words) -> None:
    kinds = {"host": t("host"), "workload": t("workload"), "instrument": t("instrument")}
    found = mismatches(a.manifest, b.manifest)
    if not found:
        page.say(t("{run}: same host, workload and instrument as A.").format(run=b.label))
        return
    which = ", ".join(dict.fromkeys(kinds[m.kind] for m in found))
    page.say(
        t("{run} differs from A in: {which}. A difference may come from that.").format(run=b.label, which=which),
        "warn",
    )
    inner = table(
        ["", "", "A", chr(65 + chosen.index(b))],
        [[text(kinds[m.kind]), text(m.name), text(m.a), text(m.b)] for m in found],
        name="mismatches",
    )
    page.fold(f"unlike-{b.key}", t("{n} conditions differ").format(n=len(found)), inner)


def _verdict(page: Page, found: list[tuple[StoredRun, MetricDifference]], t: Words) -> None:
    kinds = ("better", "worse", "can't tell", "no interval")
    counts = {word: sum(c.verdict == word for _, c in found) for word in kinds}
    words = t("{better} figures better, {worse} worse, {unclear} can't be told apart.").format(
        better=counts["better"], worse=counts["worse"], unclear=counts["can't tell"]
    )
    if counts["no interval"]:
        words += " " + t("{n} more have no interval.").format(n=counts["no interval"])
    page.add(f"<p><b>{esc(words)}</b></p>")


def _wanted(contrast: MetricDifference, wanted: str) -> bool:
    if wanted == "told":
        return contrast.verdict in ("better", "worse", "different")
    if not wanted:
        return contrast.verdict != "no interval"
    return wanted == "all" or contrast.verdict == wanted


def _name(metric: str, stat: str, t: Words) -> str:
    shown = {"value": "", "mean": t("mean")}.get(stat, stat.upper())
    return ", ".join(filter(None, (t(NAMES.get(metric, metric)), shown)))


def _row(run: StoredRun, c: MetricDifference, several: bool, t: Words) -> list[Cell]:
    relative = 100 * c.difference.value / abs(c.a) if c.a else None
    p = c.p
    shown = Cell("–", None, True) if p is None else Cell("&lt; 0.001" if p < 0.001 else f"{p:.3f}", p, True)
    word = f"{SIGNS[c.verdict]} {t(c.verdict)}"
    return [
        *([text(run.label)] if several else []),
        text(c.where),
        text(_name(c.metric, c.stat, t)),
        _value(c.a, c),
        _value(c.b, c),
        _difference(c.difference, c),
        num(c.difference.pairs if c.paired else None, 0),
        Cell("–" if relative is None else f"{relative:+.1f}%", relative, True),
        shown,
        Cell(badge(word, STYLES.get(c.verdict, "")), word),
    ]


def _value(value: float, c: MetricDifference) -> Cell:
    if c.metric in SHARES:
        return Cell(f"{100 * value:.1f}%", value, True)
    return num(value, unit=c.unit)


def _difference(d: Difference, c: MetricDifference) -> Cell:
    factor, unit = (100.0, "pp") if c.metric in SHARES else (1.0, c.unit)
    value = d.value * factor
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 100 else 0
    interval = ""
    if d.low is not None and d.high is not None:
        interval = f' <small class="ci">{d.low * factor:+,.{digits}f} – {d.high * factor:+,.{digits}f}</small>'
    return Cell(f"{value:+,.{digits}f}&thinsp;{esc(unit)}{interval}", d.value, True)


def _forest(found: list[tuple[StoredRun, MetricDifference]], several: bool, t: Words) -> Figure:
    """Relative differences with intervals, a line a point; right of 0 is more than A."""
    data, rows = [], []
    names = list(dict.fromkeys(c.where for _, c in found))
    for index, run in enumerate(dict.fromkeys(run for run, _ in found)):
        mine = [c for other, c in found if other is run and c.a and c.difference.low is not None]
        x = [100 * c.difference.value / abs(c.a) for c in mine]
        above = [100 * ((c.difference.high or 0) - c.difference.value) / abs(c.a) for c in mine]
        below = [100 * (c.difference.value - (c.difference.low or 0)) / abs(c.a) for c in mine]
        colour = figures.style(index)[0]
        data.append(
            figures.line(
                run.label,
                index,
                x,
                [c.where for c in mine],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": above,
                    "arrayminus": below,
                    "color": colour,
                    "thickness": 1.5,
                    "width": 4,
                },
                text=[f"{SIGNS[c.verdict]} {t(c.verdict)}" for c in mine],
                hovertemplate="%{y}: %{x:+.2f}%, %{text}<extra>%{fullData.name}</extra>",
            )
            | {"mode": "markers"}
        )
        rows += [
            [text(run.label), text(c.where), num(v, 2), text(t(c.verdict))] for c, v in zip(mine, x, strict=True)
        ]
    metric = found[0][1]
    title = _name(metric.metric, metric.stat, t)
    layout = figures.layout(
        t("difference from A (%)"), "", height=max(220, 90 + 34 * len(names)), showlegend=several
    )
    layout["xaxis"] |= {"zeroline": True, "zerolinewidth": 2}
    layout["yaxis"] |= {"autorange": "reversed", "type": "category"}
    inner = table([t("Run"), t("Point"), t("Difference (%)"), t("Verdict")], rows)
    return Figure("differences", f"{title}: {t('difference from A')}", data, layout, inner)
