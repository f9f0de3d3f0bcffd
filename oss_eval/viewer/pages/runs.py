"""All runs, newest first."""

from __future__ import annotations

from oss_eval.analysis.advice import HEALTHY
from oss_eval.report.format import number
from oss_eval.viewer.filters import Filter
from oss_eval.viewer.page import Cell, Page, anchor, badge, esc, num, share, text
from oss_eval.viewer.pages.common import PERF_KINDS, Words, nothing, state_badges
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import RunIndex, StoredRun

CONTROLS = (
    Filter("q", "Search", "text", info="model, task, endpoint, label or name"),
    Filter(
        "kind",
        "Kind",
        "choice",
        (("all", ""), ("benchmarks", "bench"), ("load sweeps", "perf"), ("calibrations", "calibrate")),
    ),
    Filter(
        "state",
        "State",
        "choice",
        (
            ("all", ""),
            ("real servers", "real"),
            ("simulated", "simulated"),
            ("running", "running"),
            ("with warnings", "warned"),
            ("not finished", "ended early"),
        ),
    ),
)
MOST = 300
"""Maximum number of rows shown; the search finds the others."""


def draw(run_index: RunIndex, query: Query, t: Words) -> Page:
    """The list."""
    page = Page(t("Numbers"))
    every = run_index.runs()
    if not every:
        folders = ", ".join(map(str, run_index.folders))
        words = t("There are no runs in {folders} yet. Make one, it will appear here:").format(folders=folders)
        return nothing(page, words, f"oss-eval perf --url sim://gpt-oss-20b-h20 --out {run_index.folders[0]}", t)
    found = [run for run in every if _matches(run, query)]
    _selection(page, run_index, query, t)
    head = [
        "",
        t("Run"),
        t("Began (UTC)"),
        t("Kind"),
        t("Task"),
        t("Model"),
        t("Effort"),
        t("Headline"),
        t("Success"),
        t("Checks"),
        t("Endpoint"),
    ]
    words = t("{shown} of {total} runs").format(shown=len(found[:MOST]), total=len(every))
    page.table(head, [_row(run, query, t) for run in found[:MOST]], words, "runs")
    for run in found[:MOST]:
        if run.resume:
            page.say(t("{run} can be resumed with: {command}").format(run=run.name, command=run.resume))
    return page


def _matches(run: StoredRun, query: Query) -> bool:
    if query.get("kind") and run.kind != query.get("kind"):
        return False
    wanted = query.get("state")
    fits = {
        "": True,
        "real": bool(run.manifest) and not run.simulated,
        "simulated": run.simulated,
        "running": run.live,
        "warned": bool(run.warnings),
        "ended early": run.status not in ("finished", "running"),
    }
    if not fits.get(wanted, True):
        return False
    endpoint, labels = run.endpoint, run.manifest.get("labels") or {}
    words = [
        run.name,
        run.task,
        run.model,
        run.label,
        str(endpoint.get("url", "")),
        str(endpoint.get("name") or ""),
        *run.efforts,
        *(f"{key}={value}" for key, value in labels.items()),
    ]
    return all(word in " ".join(words).lower() for word in query.get("q").lower().split())


def _selection(page: Page, run_index: RunIndex, query: Query, t: Words) -> None:
    chosen = run_index.chosen(query.runs, ("bench", *PERF_KINDS))
    if not chosen:
        page.say(t("Open a run by its name, or tick several to look at them together."))
        return
    keys = tuple(run.key for run in chosen)
    links = []
    if any(run.kind == "bench" for run in chosen):
        links += [(t("Scores"), "scores"), (t("Samples"), "samples")]
    if any(run.kind in PERF_KINDS for run in chosen):
        links.append((t("Load"), "perf"))
    links.append((t("Requests"), "requests"))
    if len(chosen) > 1:
        links.append((t("Compare"), "compare"))
    names = ", ".join(f"<b>{chr(65 + i)}</b> {esc(run.label)}" for i, run in enumerate(chosen))
    steps = " ".join(anchor(title, query.to(target, keys), kind="step") for title, target in links)
    clear = anchor(t("Clear"), query.to(runs=()), kind="step")
    page.add(f"<p>{esc(t('Selected'))}: {names} &nbsp; {steps} {clear}</p>")


def _row(run: StoredRun, query: Query, t: Words) -> list[Cell]:
    if not run.manifest:
        blank = Cell("")
        return [blank, text(run.name), text(run.created), *[blank] * 4, _note(run), *[blank] * 3]
    ticked = run.key in query.runs
    others = tuple(key for key in query.runs if key != run.key)
    toggled = query.to(runs=others if ticked else (*query.runs, run.key))
    tick = (
        f'<a data-go role="checkbox" aria-checked="{str(ticked).lower()}" data-run="{esc(run.key)}" '
        f'aria-label="{esc(run.name)}" '
        f'href="{esc(toggled)}">{"☑" if ticked else "☐"}</a>'
    )
    target = "scores" if run.kind == "bench" else "perf"
    kinds = {"bench": t("benchmark"), "perf": t("load sweep"), "calibrate": t("calibration")}
    endpoint = run.endpoint
    where = endpoint.get("simulator") if run.simulated else endpoint.get("name") or endpoint.get("url", "")
    labels = " ".join(f"{key}={value}" for key, value in (run.manifest.get("labels") or {}).items())
    name = anchor(run.manifest.get("name") or run.name, Query(target, (run.key,)), run.name)
    noted = f'<br><small class="ci">{esc(labels)}</small>' if labels else ""
    return [
        Cell(tick, str(ticked)),
        Cell(f"{name} {state_badges(run, t)}{noted}", run.name),
        text(run.created),
        text(kinds.get(run.kind, run.kind)),
        text(run.task),
        text(run.model),
        text(" ".join(run.efforts) or "–"),
        _headline(run, t),
        _success(run),
        _checks(run, t),
        Cell(esc(where), str(where), wraps=True),
    ]


def _note(run: StoredRun) -> Cell:
    return Cell(f'<span class="wrong">{esc(run.problems[0] if run.problems else "")}</span>', "", wraps=True)


def _headline(run: StoredRun, t: Words) -> Cell:
    if run.live:  # nothing is computed for a run in progress: that would use its cores
        done, planned = run.progress
        share_done = done / planned if planned else 0.0
        bar = f'<progress max="1" value="{share_done:.4f}" aria-label="{esc(t("progress"))}"></progress>'
        return Cell(f"{bar} {done:,} {esc(t('of'))} {planned:,}", share_done)
    if run.kind == "bench":
        parts = []
        for view in run.points:
            score = view.score()
            if score is not None:
                name = (
                    view.effort if view.effort and len({other.task for other in run.points}) == 1 else view.title
                )
                parts.append(f"{esc(name)} {score.value:.3f}{_interval(score.low, score.high)}")
        if not all(view.whole for view in run.points):
            parts.append(f'<small class="wrong">{esc(t("not all answers yet"))}</small>')
        return Cell("<br>".join(parts) or "–", parts[-1] if parts else "")
    best = max(run.points, key=lambda view: view.metrics.get("output_tps") or 0.0, default=None)
    rate = best.metrics.get("output_tps") if best else None
    if best is None or rate is None:
        return Cell("–", "")
    return Cell(f"{number(rate)} tok/s {esc(t('at'))} {esc(best.title)}", rate)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f' <small class="ci">{low:.2f}–{high:.2f}</small>'


def _success(run: StoredRun) -> Cell:
    if run.live:
        return num(None)
    name = "failed" if run.kind == "bench" else "failures"
    found = [metric for view in run.points if (metric := view.metrics.metric(name)) is not None]
    asked = sum(metric.n for metric in found)
    rate = 1 - sum(metric.value for metric in found) / asked if asked else None
    cell = share(rate)
    if rate is not None and rate < HEALTHY:
        return Cell(badge(cell.html, "broken"), rate, True)
    return cell


def _checks(run: StoredRun, t: Words) -> Cell:
    warnings = run.warnings
    if warnings is None:
        return Cell("–", -1)
    if not warnings:
        return Cell(badge(t("clean"), "good"), 0)
    return Cell(badge(t("{n} warnings").format(n=warnings), "warned"), warnings)
