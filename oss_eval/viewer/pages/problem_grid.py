"""A sign for every answer of every problem, and the name of an answer in a query."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from oss_eval.report.bench import CUT, FAILED, PART, RIGHT, UNSCORED, WRONG
from oss_eval.viewer.page import Page, anchor, esc
from oss_eval.viewer.pages.common import Words
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import StoredRun

MOST_PROBLEMS = 300

SIGNS = {
    "right": RIGHT,
    "part": PART,
    "wrong": WRONG,
    "cut": CUT,
    "unscored": UNSCORED,
    "failed": FAILED,
}
VERDICTS = {
    "right": "right",
    "part": "in part",
    "wrong": "wrong",
    "cut": "truncated",
    "unscored": "ungraded",
    "failed": "failed",
}


def sample_name(row: dict[str, Any]) -> str:
    """An answer in a query: its point, subset, sample and epoch."""
    return f"{row['point_id']}/{row['subset']}/{row['sample_id']}/{row['epoch']}"


def verdict(row: dict[str, Any]) -> str:
    """A sample row's key of SIGNS; the same rules as the terminal's grid."""
    if row["status"] != "ok":
        return "failed"
    if row["score"] is None:
        return "unscored"
    if row["score"] >= 1:
        return "right"
    if row["score"] > 0:
        return "part"
    return "cut" if row["truncated"] else "wrong"


def grids(page: Page, run: StoredRun, task: str, query: Query, t: Words) -> None:
    """A table for each point of a run: a row for each problem, a column for each answer, with links to its
    text."""
    columns = ["point_id", "subset", "sample_id", "epoch", "score", "truncated", "status", "target"]
    cells: dict[str, dict[tuple[str, str], dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for row in run.samples(columns).select(columns).to_pylist():
        cells[row["point_id"]][row["subset"], row["sample_id"]][row["epoch"]] = row
    page.add('<div class="grids">')
    for point in run.manifest.get("points", []):
        if task and point.get("task") != task:
            continue
        answers = cells.get(point["point_id"], {})
        order = sorted(answers, key=lambda key: (len(key[0]), key[0], len(key[1]), key[1]))
        if query.get("order") == "hardest":
            order.sort(key=lambda key: _mean(answers[key]))
        lines = [_line(run, point, key, answers[key], query, t) for key in order[:MOST_PROBLEMS]]
        title = " ".join(filter(None, (point.get("task"), point.get("reasoning_effort"))))
        more = len(order) - len(lines)
        note = f'<p class="note">{esc(t("{n} more problems").format(n=more))}</p>' if more else ""
        grid = f'<table class="grid"><tbody>{"".join(lines)}</tbody></table>'
        inner = f'<div class="scroll" tabindex="0">{grid}</div>{note}'
        page.fold(f"grid-{point['point_id']}", title, inner, opened=True)
    page.add("</div>")


def _mean(answers: dict[int, dict[str, Any]]) -> float:
    known = [row["score"] for row in answers.values() if row["score"] is not None]
    return sum(known) / len(known) if known else -1.0


def _line(
    run: StoredRun,
    point: dict[str, Any],
    key: tuple[str, str],
    answers: dict[int, dict[str, Any]],
    query: Query,
    t: Words,
) -> str:
    subset, sample = key
    signs = []
    for epoch in range(1, point["repeats"] + 1):
        row = answers.get(epoch)
        if row is None:
            signs.append("<td></td>")
            continue
        kind = verdict(row)
        to = query.to("samples", (run.key,), sample=sample_name(row))
        said = f"{sample}, {t('answer')} {epoch}: {t(VERDICTS[kind])}"
        signs.append(f"<td>{anchor(SIGNS[kind], to, said, f'g-{kind}')}</td>")
    mean = _mean(answers)
    shown = "–" if mean < 0 else f"{mean:.2f}"
    name = sample if subset in ("default", "", None) else f"{subset} {sample}"
    return f'<tr><td>{esc(name)}</td>{"".join(signs)}<td class="n">&nbsp;{shown}</td></tr>'
