"""Parts that several pages share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from oss_eval.analysis.point_name import effort_rank
from oss_eval.results.manifest import answered_by
from oss_eval.viewer import figures
from oss_eval.viewer.page import Page, anchor, badge, esc
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import PointView, RunIndex, StoredRun

Words = Callable[[str], str]
"""A text in the page's language."""

PERF_KINDS = ("perf", "calibrate")


def series_name(run: StoredRun, shown: Sequence[StoredRun]) -> str:
    """The name of a run in a legend: its model, its label where the model is the same, else both."""
    models = [other.model for other in shown]
    if models.count(run.model) == 1:
        return run.model
    labels = [other.label for other in shown if other.model == run.model]
    label = run.label if labels.count(run.label) == 1 else f"{run.label} {run.name[-4:]}"
    return label if len(set(models)) == 1 else f"{run.model} · {label}"


def by_series(views: Sequence[PointView], shown: Sequence[StoredRun]) -> dict[str, list[PointView]]:
    """Points of sweeps by run and effort, each in order of concurrency."""
    found: dict[str, list[PointView]] = {}
    for view in sorted(views, key=lambda v: (shown.index(v.run), effort_rank(v.effort), v.level or 0)):
        name = series_name(view.run, shown) if len(shown) > 1 else ""
        workers = f"w{view.workers}" if view.workers else None
        found.setdefault(" · ".join(filter(None, (name, view.effort, workers))) or view.run.model, []).append(view)
    return found


def state_badges(run: StoredRun, t: Words) -> str:
    """The state of a run, as badges."""
    found = []
    if run.simulated:
        found.append(badge(t("simulated"), "sim"))
    elif mark := answered_by(run.manifest):
        found.append(badge(mark))
    if run.live:
        found.append(badge(t("running"), "live"))
    elif run.status not in ("finished", "unreadable"):
        found.append(badge(t(run.status), "broken"))
    return " ".join(found)


def run_header(page: Page, shown: Sequence[StoredRun], query: Query, t: Words) -> None:
    """The runs of the page, with notes on how to read their numbers."""
    page.caption = " · ".join(dict.fromkeys(f"{run.name} {run.model}" for run in shown)) + (
        " · " + t("simulated").upper() if any(run.simulated for run in shown) else ""
    )
    items = []
    for place, run in enumerate(shown):
        letter = f"<b>{chr(65 + place)}</b> " if len(shown) > 1 else ""
        about = anchor(run.name, query.to("about", (run.key,)))
        items.append(f"<li>{letter}{about} {esc(run.model)} {state_badges(run, t)}</li>")
    page.add(f'<ul class="shown">{"".join(items)}</ul>')
    if any(run.simulated for run in shown):
        page.say(
            t("Simulated: no model was run. These numbers show how the tool works, not how a model is."),
            "warn sim",
        )
    for run in shown:
        if run.live:
            done, planned = run.progress
            page.say(
                t("{run} is still going: {done} of {planned}.").format(run=run.label, done=done, planned=planned)
            )
        elif run.status in ("broken off", "interrupted", "failed"):
            words = t("{run} did not finish ({status}).").format(run=run.label, status=t(run.status))
            page.say(
                words + (" " + t("Resume with: {command}").format(command=run.resume) if run.resume else ""), "bad"
            )


def problems(page: Page, shown: Sequence[StoredRun], t: Words) -> None:
    """Files that could not be read."""
    for run in shown:
        for problem in run.problems:
            page.say(t("Not everything could be read: {problem}").format(problem=problem), "bad")


def unfit(page: Page, run_index: RunIndex, query: Query, kinds: tuple[str, ...], t: Words) -> bool:
    """Name the runs that are missing or not of these kinds; True when none is left."""
    for key in query.runs:
        run = run_index.find(key)
        if run is None:
            page.say(t("There is no run {name} in these folders.").format(name=key), "bad")
        elif run.kind not in kinds:
            target = "scores" if run.kind == "bench" else "perf"
            words = t("{run} has nothing for this page.").format(run=run.label)
            page.add(f'<p class="note">{esc(words)} {anchor(t("Open it"), query.to(target, (key,)))}</p>')
    return bool(query.runs) and not run_index.chosen(query.runs, kinds)


def latest(run_index: RunIndex, query: Query, kinds: tuple[str, ...], most: int = 1) -> list[StoredRun]:
    """The chosen runs, else the latest with results."""
    if query.runs:
        return run_index.chosen(query.runs, kinds)
    return [run for run in run_index.runs() if run.kind in kinds and run.manifest.get("points")][:most]


def nothing(page: Page, words: str, command: str, t: Words) -> Page:
    """A page without anything to show says how to get something."""
    page.say(words)
    page.add(command_line(command, t))
    return page


def command_line(command: str, t: Words) -> str:
    """A command with a button that copies it."""
    return (
        f'<div class="copy"><code>{esc(command)}</code>'
        f'<button type="button" data-copy aria-label="{esc(t("Copy"))}">{esc(t("Copy"))}</button></div>'
    )


def levels(series: dict[str, list[PointView]], t: Words) -> dict[str, Any]:
    """The axis of the load of some series."""
    views = [view for some in series.values() for view in some]
    return figures.levels(level_title(views, t), (view.level for view in views))


def level_title(views: Iterable[PointView], t: Words) -> str:
    """What the load of some points is: concurrency, requests per second, or both."""
    kinds = {view.rate is not None for view in views}
    return ", ".join(t(name) for name, there in (("concurrency", False), ("requests/s", True)) if there in kinds)


def requests_of(view: PointView) -> Query:
    """The query of a point's requests."""
    return Query("requests", (view.run.key,), {"point": view.point_id})
