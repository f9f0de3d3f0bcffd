"""Scores with intervals, their cost, and the problems that were solved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from oss_eval.analysis.advice import advise_scores
from oss_eval.analysis.bench_summary import OVERALL, comparisons
from oss_eval.analysis.figures import Metric
from oss_eval.analysis.point_name import effort_rank
from oss_eval.viewer import figures
from oss_eval.viewer.filters import Filter
from oss_eval.viewer.page import Cell, Figure, Page, esc, estimate, link, num, share, table, text
from oss_eval.viewer.pages.common import (
    Words,
    latest,
    nothing,
    problems,
    run_header,
    series_name,
    state_badges,
    unfit,
)
from oss_eval.viewer.pages.effort_sheet import effort_sheets
from oss_eval.viewer.pages.problem_grid import SIGNS, VERDICTS, grids
from oss_eval.viewer.published_scores import PublishedScore, published
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import PointView, RunIndex, StoredRun, mean_score

CONTROLS = (
    Filter("task", "Task", "choice"),
    Filter(
        "cost",
        "Cost on the frontier",
        "radio",
        (("mean tokens", "tokens"), ("mean latency", "latency_ms"), ("price", "cost")),
        "tokens",
    ),
    Filter("order", "Order of problems", "radio", (("as asked", "asked"), ("hardest first", "hardest")), "asked"),
)
MOST_TASKS = 6
MOST_EXPLAINED = 4
"""Maximum number of runs with recommendations: they need every sample."""

COSTS = {
    "tokens": ("tokens of an answer, mean", 1.0),
    "latency_ms": ("latency of an answer (s), mean", 1e-3),
    "cost": ("price of 1,000 answers, in the currency of the prices", 1e3),
}


def draw(run_index: RunIndex, query: Query, t: Words) -> Page:
    """Leaderboard, bars, frontier, grids."""
    page = Page(t("Numbers"))
    if unfit(page, run_index, query, ("bench",), t):
        return page
    shown = latest(run_index, query, ("bench",), most=50)
    if not shown:
        command = "oss-eval bench demo --url sim://gpt-oss-20b-h20 --reasoning-effort low medium high"
        return nothing(page, t("There is no benchmark among these runs. One to begin with:"), command, t)
    tasks = list(dict.fromkeys(view.task for run in shown for view in run.points))
    task = query.get("task") if query.get("task") in tasks else ""
    page.choices["task"] = ([(t("all"), ""), *((name, name) for name in tasks)], task)
    views = [view for run in shown for view in run.points if task in ("", view.task)]
    if query.runs:
        run_header(page, shown, query, t)
    page.heading(
        t("Leaderboard"),
        t(
            "avg@k: mean over problems of k answers each, with its 95% interval on problems like these. On these: "
            "on these problems, for other deployments and published scores. Of all: with failed and ungraded "
            "answers as wrong."
        ),
    )
    _leaderboard(page, views, shown, query, t)
    for run in shown[:MOST_EXPLAINED] if query.runs else shown[:1]:
        _conclusions(page, run, len(shown) > 1, t)
    effort_sheets(page, shown[:MOST_EXPLAINED] if query.runs else shown[:1], [task] if task else tasks, t)
    for name in [task] if task else tasks[:MOST_TASKS]:
        mine = [view for view in views if view.task == name and view.score() is not None]
        if mine:
            page.heading(name)
            frontier = _frontier(mine, shown, query, t)
            page.draw(_bars(mine, shown, t), *([frontier] if frontier.data else []))
            if not frontier.data:
                page.say(frontier.note)
            _sources(page, mine, t)
    if len(tasks) > MOST_TASKS and not task:
        page.say(t("Figures of {n} more tasks: choose one above.").format(n=len(tasks) - MOST_TASKS))
    first = shown[0]
    page.heading(
        t("Problem by problem"),
        t("A sign for each problem (row) and answer to it (column); click one to read it."),
    )
    signs = "  ".join(f"{SIGNS[kind]} {t(word)}" for kind, word in VERDICTS.items())
    page.say(f"{first.name}: {signs}")
    grids(page, first, task, query, t)
    problems(page, shown, t)
    return page


def _conclusions(page: Page, run: StoredRun, several: bool, t: Words) -> None:
    """Failures and recommendations, as on the terminal."""
    name = f"{run.label}: " if several else ""
    groups = [group for group in run.groups if group.subset == OVERALL]
    for group in groups:
        where = " ".join(filter(None, (group.task, group.effort)))
        for kind, (count, example) in group.failures.items():
            page.say(f"{name}{where}: {count} × {kind} {example[:200]}", "bad")
        for reason, count in list(group.unscored_reasons.items())[:3]:
            page.say(f"{name}{where}: {count} × {t('ungraded')}: {reason[:200]}", "warn")
    samples = run.samples(["point_id", "subset", "sample_id", "score"])
    lines = advise_scores(groups, comparisons(samples, groups))
    if lines:
        items = "".join(f"<li>{esc(line)}</li>" for line in lines)
        page.fold(f"advice-{run.key}", name + t("Recommendations"), f"<ul>{items}</ul>", opened=True)


def _leaderboard(page: Page, views: list[PointView], shown: list[StoredRun], query: Query, t: Words) -> None:
    order = sorted(views, key=lambda v: (v.task, -(m.value if (m := v.score()) else -1)))
    columns = [
        (title, [cell(view) for view in order], always) for title, cell, always in _columns(shown, query, t)
    ]
    told = [(title, cells) for title, cells, always in columns if always or any(cell.sort for cell in cells)]
    lines = list(zip(*(cells for _, cells in told), strict=True))
    page.table([title for title, _ in told], lines, name="leaderboard")
    if any(not view.whole for view in views):
        page.say(t("* not all answers yet, the quick ones first: not yet a score to quote"), "warn")
    rows = []
    for run in shown:
        for (point_id, subset), metrics in run.summary.items():
            view = run.point(point_id)
            if subset is not None and view is not None and view in views:
                score = mean_score(metrics)
                rows.append(
                    [
                        text(series_name(run, shown)),
                        text(view.task),
                        text(view.effort or "–"),
                        text(subset),
                        estimate(score, digits=3),
                        num(score.n if score else None, 0),
                    ]
                )
    if rows:
        inner = table([t("Model"), t("Task"), t("Effort"), t("Subset"), t("Score"), t("Scored")], rows)
        page.fold("subsets", t("Subsets"), inner)


def _columns(
    shown: list[StoredRun], query: Query, t: Words
) -> list[tuple[str, Callable[[PointView], Cell], bool]]:
    """(title, a point's cell, whether to show the column if it contains only zeros)."""

    def figure(metric: str, stat: str = "value", digits: int | None = 0, factor: float = 1.0) -> Any:
        return lambda v: num(None if (x := v.metrics.get(metric, stat)) is None else x * factor, digits)

    def of_k(name: str) -> Callable[[PointView], Cell]:
        return lambda v: num(v.metrics.get("score", f"{name}@{_k(v)}"), 3)

    return [
        (
            t("Model"),
            lambda v: Cell(f"{esc(v.run.model)} {state_badges(v.run, t)}", v.run.model),
            True,
        ),
        (t("Task"), lambda v: text(v.task), True),
        (t("Effort"), lambda v: text(v.effort or "–"), True),
        (t("Metric"), lambda v: text(t("estimate") if v.adaptive else m.stat if (m := v.score()) else "–"), True),
        (t("Score"), lambda v: estimate(v.score(), digits=3), True),
        (t("On these"), _on_these, False),
        ("pass@k", of_k("pass"), False),
        ("maj@k", of_k("maj"), False),
        (t("Scored"), lambda v: _scored(v, t), True),
        (t("Failed"), figure("failed"), False),
        (t("Ungraded"), figure("unscored"), False),
        (t("Of all"), figure("score", "of_all", 3), False),
        (t("Truncated"), lambda v: share(v.metrics.get("truncated")), True),
        (t("Tokens"), lambda v: estimate(v.metrics.metric("tokens", "mean"), digits=0), True),
        (t("Reasoning"), figure("reasoning_tokens", "mean"), False),
        (t("Latency (s)"), lambda v: estimate(v.metrics.metric("latency_ms", "mean"), 1e-3), True),
        (t("TTFT (s)"), figure("ttft_ms", "mean", None, 1e-3), False),
        (t("Price of 1,000"), figure("cost", "mean", None, 1e3), False),
        (t("Run"), lambda v: link(v.run.label, query.to("about", (v.run.key,)), v.run.name), True),
    ]


def _on_these(view: PointView) -> Cell:
    """The interval on these problems."""
    found = view.metrics.metric("score", "on_these")
    if found is None or found.low is None or found.high is None:
        return text("–")
    return Cell(f'<small class="ci">{found.low:.3f}–{found.high:.3f}</small>', found.low, True)


def _scored(view: PointView, t: Words) -> Cell:
    """Number of scored answers; with the planned number if the run is not finished."""
    score = view.score()
    if score is None or view.whole:
        return num(score.n if score else None, 0)
    return Cell(f"{score.n:,} {esc(t('of'))} {view.number:,}*", score.n, True)


def _k(view: PointView) -> str:
    score = view.score()
    return score.stat.removeprefix("avg@") if score else ""


def _by_run(views: list[PointView], shown: list[StoredRun]) -> dict[str, list[PointView]]:
    found: dict[str, list[PointView]] = defaultdict(list)
    for view in sorted(views, key=lambda v: (shown.index(v.run), effort_rank(v.effort))):
        found[series_name(view.run, shown)].append(view)
    return found


def _references(views: list[PointView]) -> list[PublishedScore]:
    models = dict.fromkeys(view.run.model for view in views)
    return list(dict.fromkeys(ref for model in models for ref in published(model, views[0].task)))


def _bars(views: list[PointView], shown: list[StoredRun], t: Words) -> Figure:
    """Scores by effort, a bar a run."""
    efforts = sorted({view.effort for view in views}, key=effort_rank)
    names = [effort or t("no effort") for effort in efforts]
    data: list[dict[str, Any]] = []
    rows = []
    for index, (name, mine) in enumerate(_by_run(views, shown).items()):
        at = {view.effort: view for view in mine}
        found: list[Metric | None] = [at[e].score() if e in at else None for e in efforts]
        colour = figures.style(index)[0]
        data.append(
            {
                "type": "bar",
                "name": name,
                "x": names,
                "y": [m.value if m else None for m in found],
                "marker": {
                    "color": colour,
                    "pattern": {
                        "shape": ("", "/", "x", ".", "\\", "-", "|", "+")[index % 8],
                        "fillmode": "overlay",
                        "fgcolor": "rgba(255,255,255,0.55)",
                        "solidity": 0.25,
                    },
                },
                "error_y": figures.errors(found) | {"color": "#7b8494"},
                "hovertemplate": "%{x}: %{y:.3f}<extra>%{fullData.name}</extra>",
            }
        )
        rows += [[text(name), text(e), estimate(m, digits=4)] for e, m in zip(names, found, strict=True) if m]
    known = [ref for ref in _references(views) if ref.effort in efforts]
    for source in dict.fromkeys(ref.source for ref in known):
        marks = [ref for ref in known if ref.source == source]
        if marks:
            data.append(_hollow([ref.effort for ref in marks], [ref.score for ref in marks], marks, len(data)))
            rows += [[text(f"{r.model}: {r.source}"), text(r.effort), num(r.score, 4)] for r in marks]
    layout = figures.layout(t("effort"), t("score"), barmode="group")
    layout["yaxis"] |= {"rangemode": "tozero"}
    return Figure(
        "scores",
        t("Score by effort, 95% intervals"),
        data,
        layout,
        table([t("Series"), t("Effort"), t("Score")], rows),
    )


def _hollow(x: list[Any], y: list[float], marks: list[PublishedScore], index: int) -> dict[str, Any]:
    symbol = figures.SYMBOLS[index % len(figures.SYMBOLS)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": marks[0].source,
        "x": x,
        "y": y,
        "marker": {"symbol": f"{symbol}-open", "size": 11, "color": "#7b8494", "line": {"width": 2}},
        "text": [f"{ref.model} {ref.effort}" for ref in marks],
        "hovertemplate": "%{text}: %{y:.3f}<extra>%{fullData.name}</extra>",
    }


def _frontier(views: list[PointView], shown: list[StoredRun], query: Query, t: Words) -> Figure:
    """Score against the cost of an answer, a line a run through its efforts."""
    chosen = query.get("cost") if query.get("cost") in COSTS else "tokens"
    title, factor = COSTS[chosen]
    data: list[dict[str, Any]] = []
    rows = []
    places: dict[tuple[str, str | None], float] = {}
    for index, (name, points) in enumerate(_by_run(views, shown).items()):
        known = [view for view in points if view.metrics.get(chosen, "mean") is not None]
        if not known:
            continue
        costs = [view.metrics.metric(chosen, "mean") for view in known]
        data.append(_frontier_line(name, index, known, costs, factor, query))
        x = [cost.value * factor for cost in costs if cost]
        places |= {(view.run.model, view.effort): value for view, value in zip(known, x, strict=True)}
        rows += [
            [text(name), text(view.effort or "–"), estimate(cost, factor), estimate(view.score(), digits=4)]
            for view, cost in zip(known, costs, strict=True)
        ]
    published_marks = _published_marks(views, chosen, places)
    for marks in published_marks:
        data.append(_hollow([x for x, _ in marks], [r.score for _, r in marks], [r for _, r in marks], len(data)))
    note = ""
    if published_marks:
        note = t("Hollow marks are published scores, at our cost where theirs was not published.")
    if not data:
        note = (
            t("This cost is not known: prices come from endpoints.yaml.")
            if chosen == "cost"
            else t("no cost is known")
        )
    layout = figures.layout(t(title), t("score"), log_x=True)
    inner = table([t("Series"), t("Effort"), t(title), t("Score")], rows)
    return Figure("frontier", t("Effort frontier: score against cost, 95% intervals"), data, layout, inner, note)


def _frontier_line(
    name: str, index: int, views: list[PointView], costs: list[Metric | None], factor: float, query: Query
) -> dict[str, Any]:
    """A run's efforts as a line."""
    scores = [view.score() for view in views]
    colour = figures.style(index)[0]
    trace = figures.line(
        name,
        index,
        [cost.value * factor for cost in costs if cost],
        [score.value if score else None for score in scores],
        text=[view.effort or "" for view in views],
        textposition="bottom right" if index % 2 else "top left",
        error_y=figures.errors(scores) | {"color": colour},
        error_x=figures.errors(costs, factor) | {"color": colour},
        hovertemplate="%{text}: %{y:.3f}, %{x:,.4g}<extra>%{fullData.name}</extra>",
        customdata=[str(query.to("samples", (view.run.key,), point=view.point_id)) for view in views],
    )
    trace["mode"] = "lines+markers+text"
    return trace


def _published_marks(
    views: list[PointView], chosen: str, places: dict[tuple[str, str | None], float]
) -> list[list[tuple[float, PublishedScore]]]:
    """(cost, published score) of each source, at our own cost where none was published."""
    references = _references(views)
    by_source: dict[str, list[tuple[float, PublishedScore]]] = {ref.source: [] for ref in references}
    for ref in references:
        ours = (
            x
            for (model, effort), x in places.items()
            if effort == ref.effort and ref in published(model, ref.task)
        )
        place = ref.tokens if chosen == "tokens" and ref.tokens is not None else next(ours, None)
        if place is not None:
            by_source[ref.source].append((place, ref))
    return [marks for marks in by_source.values() if marks]


def _sources(page: Page, views: list[PointView], t: Words) -> None:
    found = list(dict.fromkeys((ref.source, ref.url) for ref in _references(views)))
    if found:
        links = "; ".join(
            f'<a href="{esc(url)}" target="_blank" rel="noopener noreferrer">{esc(source)}</a>'
            for source, url in found
        )
        words = t("Published scores, made with settings of their own")
        page.add(f'<p class="note">{esc(words)}: {links}</p>')
