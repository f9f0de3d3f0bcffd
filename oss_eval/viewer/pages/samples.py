"""All answers: with filters, complete texts, and those of another run beside them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.report.format import NOTHING
from oss_eval.results.reader import KEY
from oss_eval.viewer.filters import Filter
from oss_eval.viewer.markdown import safe
from oss_eval.viewer.page import Cell, Figure, Page, anchor, esc, num, table, text
from oss_eval.viewer.pages.common import Words, latest, nothing, problems, run_header, unfit
from oss_eval.viewer.pages.problem_grid import SIGNS, VERDICTS, sample_name, verdict
from oss_eval.viewer.pages.tokens import find_request, token_figure
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import RunIndex, StoredRun

CONTROLS = (
    Filter("point", "Task and effort", "choice"),
    Filter(
        "verdict",
        "Which answers",
        "choice",
        (
            ("all", ""),
            ("right", "right"),
            ("wrong", "wrong"),
            ("truncated", "cut"),
            ("graders disagree", "disagree"),
            ("ungraded", "unscored"),
            ("failed", "failed"),
            ("changed between A and B", "changed"),
        ),
    ),
    Filter("q", "Search in texts", "text", info="prompt, reasoning, answer, target"),
)
PAGE = 60
"""Rows of the list shown at a time."""
BRIEF = [
    "point_id",
    "task",
    "subset",
    "sample_id",
    "epoch",
    "reasoning_effort",
    "answer",
    "target",
    "score",
    "second_score",
    "truncated",
    "status",
    "completion_tokens",
    "latency_ms",
]
TEXTS = ("prompt", "reasoning", "response", "target", "answer")
Row = dict[str, Any]
Place = tuple[str, str, str | None, str, int]
"""The key of an answer in any run: task, subset, effort, sample, epoch."""


def draw(run_index: RunIndex, query: Query, t: Words) -> Page:
    """The list, and the answer chosen."""
    page = Page(t("Numbers"))
    if unfit(page, run_index, query, ("bench",), t):
        return page
    shown = latest(run_index, query, ("bench",))[:2]
    if not shown:
        words = t("There is no benchmark among these runs. One to begin with:")
        return nothing(page, words, "oss-eval bench demo --url sim://gpt-oss-20b-h20", t)
    first = shown[0]
    points = first.planned
    chosen = query.get("point") if query.get("point") in {value for _, value in points} else ""
    page.choices["point"] = ([(t("all"), ""), *points], chosen)
    run_header(page, shown, query, t)
    rows = _rows(first, chosen, query.get("q"))
    others = {_place(row): row for row in _rows(shown[1], "", "")} if len(shown) > 1 else {}
    found = [row for row in rows if _fits(row, others.get(_place(row)), query.get("verdict"))]
    at = _chosen(found, rows, query)
    if not found:
        page.say(t("No answer fits these filters."))
    _list(page, found, others, at, query, t)
    if at is not None:
        _detail(page, shown, at, t)
    else:
        page.below = Page(page.numbers_word)
    problems(page, shown, t)
    return page


def _rows(run: StoredRun, point_id: str, words: str) -> list[Row]:
    samples = run.samples([*BRIEF, *TEXTS] if words else BRIEF)
    if point_id:
        samples = samples.filter(pc.equal(samples["point_id"].cast(pa.string()), point_id))
    if words:
        hits = [pc.fill_null(pc.match_substring(samples[name], words, ignore_case=True), False) for name in TEXTS]
        samples = samples.filter(np.any([np.asarray(hit.to_numpy(zero_copy_only=False)) for hit in hits], axis=0))
    rows = samples.select(BRIEF).to_pylist()
    order = {point["point_id"]: place for place, point in enumerate(run.manifest.get("points", []))}
    rows.sort(
        key=lambda r: (order.get(r["point_id"], 0), r["subset"], len(r["sample_id"]), r["sample_id"], r["epoch"])
    )
    return list(rows)


def _place(row: Row) -> Place:
    return row["task"], row["subset"], row["reasoning_effort"], row["sample_id"], row["epoch"]


def _fits(row: Row, other: Row | None, wanted: str) -> bool:
    if wanted == "changed":
        return other is not None and verdict(row) != verdict(other)
    if wanted == "disagree":
        second, score = row["second_score"], row["score"]
        return second is not None and score is not None and (second >= 0.5) != (score >= 0.5)
    if wanted == "cut":
        return bool(row["truncated"])
    if wanted == "wrong":
        return row["score"] is not None and row["score"] < 1
    return not wanted or verdict(row) == wanted


def _chosen(found: list[Row], rows: list[Row], query: Query) -> Row | None:
    wanted = query.get("sample")
    return next((row for row in rows if sample_name(row) == wanted), found[0] if found else None)


def _to(row: Row, query: Query) -> Query:
    return query.to(sample=sample_name(row))


def _list(page: Page, found: list[Row], others: dict[Place, Row], at: Row | None, query: Query, t: Words) -> None:
    listed = at in found
    place = found.index(at) if at is not None and listed else 0
    begin = place // PAGE * PAGE
    part = found[begin : begin + PAGE]
    several = any(row["reasoning_effort"] for row in found)
    head = [
        t("Problem"),
        *([t("Effort")] if several else []),
        t("Answer no."),
        "A" if others else t("Verdict"),
        *(["B"] if others else []),
        t("Answer"),
        t("Target"),
        t("Tokens"),
        t("Latency (s)"),
    ]
    lines = []
    for row in part:
        other = others.get(_place(row))
        name = row["sample_id"] if row["subset"] in ("default", "") else f"{row['subset']} {row['sample_id']}"
        here = " ◀" if row is at else ""
        lines.append(
            [
                Cell(anchor(name + here, _to(row, query)), name),
                *([text(row["reasoning_effort"] or "–")] if several else []),
                num(row["epoch"], 0),
                _sign(row, t),
                *([_sign(other, t)] if others else []),
                _short(row["answer"]),
                _short(row["target"]),
                num(row["completion_tokens"], 0),
                num(None if row["latency_ms"] is None else row["latency_ms"] / 1e3),
            ]
        )
    words = t("{first}–{last} of {total} answers").format(
        first=min(begin + 1, len(found)), last=min(begin + PAGE, len(found)), total=len(found)
    )
    steps = []
    if place > 0:
        steps.append(anchor("← " + t("previous answer"), _to(found[place - 1], query), kind="step"))
    if found and at is not None and not listed:  # the filters exclude it: the list starts at the top
        steps.append(anchor(t("next answer") + " →", _to(found[0], query), kind="step"))
    elif found and place + 1 < len(found):
        steps.append(anchor(t("next answer") + " →", _to(found[place + 1], query), kind="step"))
    if begin:
        steps.append(anchor("⇤ " + t("previous page"), _to(found[begin - PAGE], query), kind="step"))
    if begin + PAGE < len(found):
        steps.append(anchor(t("next page") + " ⇥", _to(found[begin + PAGE], query), kind="step"))
    inner = table(head, lines, words, "samples")
    page.add(f'<p>{" ".join(steps)}</p><div class="list">{inner}</div>')


def _sign(row: Row | None, t: Words) -> Cell:
    if row is None:
        return Cell("–", "")
    kind = verdict(row)
    style = {"right": "right", "cut": "cut"}.get(kind, "wrong" if kind in ("wrong", "failed") else "")
    return Cell(f'<span class="{style}">{SIGNS[kind]} {esc(t(VERDICTS[kind]))}</span>', kind)


def _short(words: str | None) -> Cell:
    if words is None:
        return Cell("–", "")
    line = " ".join(words[:200].split())
    return text(line if len(line) <= 24 else line[:23] + "…", line)


# -- one answer -------------------------------------------------------------------------------------------------


def _detail(page: Page, shown: list[StoredRun], at: Row, t: Words) -> None:
    answers = [_whole(run, _place(at)) for run in shown]
    name = at["sample_id"] if at["subset"] in ("default", "") else f"{at['subset']} {at['sample_id']}"
    effort = f" {at['reasoning_effort']}" if at["reasoning_effort"] else ""
    page.heading(f"{at['task']}{effort}: {t('problem')} {name}, {t('answer')} {at['epoch']}")
    page.below = below = Page(page.numbers_word, caption=page.caption)
    below.heading(t("How it went"))
    _facts(below, answers, t)
    drawn = [
        figure
        for place, (run, row) in enumerate(zip(shown, answers, strict=True))
        if row is not None and (figure := _timeline(run, row, chr(65 + place) if len(shown) > 1 else "", t))
    ]
    if drawn:
        below.draw(*drawn)
    for place, row in enumerate(answers):
        if row is not None and row["reasoning"]:
            letter = f" {chr(65 + place)}" if len(shown) > 1 else ""
            words = t("Reasoning{letter}: {n} characters").format(letter=letter, n=f"{len(row['reasoning']):,}")
            shown_text = row["reasoning"][:200_000]
            below.fold(f"reasoning{place}", words, f"<pre>{esc(shown_text)}</pre>")
    first = answers[0]
    page.texts["prompt"] = f"### {t('Prompt')}\n\n" + (_prompt(first["prompt"]) if first else "")
    for place, (letter, row) in enumerate(zip("ab", answers, strict=False)):
        title = t("Answer") + (f" {letter.upper()}" if len(shown) > 1 else "")
        body = safe(row["response"]) if row is not None else ""
        page.texts[f"answer_{letter}"] = f"### {title}\n\n" + (body or f"*{t('nothing')}*")
        if place == 1 and row is None:
            page.texts["answer_b"] = f"### {title}\n\n*{t('B has no such answer')}*"


def _whole(run: StoredRun, place: Place) -> Row | None:
    """All columns of one answer; the texts of the others are not turned into objects."""
    names = [
        *BRIEF,
        *TEXTS,
        "request_id",
        "route",
        "unscored_reason",
        "correct",
        "leaked",
        "metrics",
        "finish_reason",
        "attempts",
        "turns",
        "waited_ms",
        "prompt_tokens",
        "reasoning_tokens",
        "ttft_ms",
        "ttfa_ms",
        "tpot_ms",
        "error_kind",
        "http_status",
        "error_message",
        "token_source",
    ]
    samples = run.samples(list(dict.fromkeys(names)))
    for number, row in enumerate(samples.select(["task", "reasoning_effort", *KEY]).to_pylist()):
        if _place(row) == place:
            return dict(samples.slice(number, 1).to_pylist()[0])
    return None


def _prompt(messages: str | None) -> str:
    try:
        found = json.loads(messages or "[]")
        parts = [(str(m.get("role", "")), m.get("content")) for m in found]
    except (ValueError, AttributeError, TypeError):
        return safe(messages)
    shown = []
    for role, content in parts:
        words = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        shown.append(f"**{safe(role)}**\n\n{safe(words)}")
    return "\n\n---\n\n".join(shown)


def _facts(page: Page, answers: list[Row | None], t: Words) -> None:
    def ms(value: float | None) -> Cell:
        return num(None if value is None else value / 1e3, unit="s")

    lines: list[tuple[str, Any]] = [
        (t("Verdict"), lambda r: _sign(r, t)),
        (t("Target"), lambda r: _long(r["target"])),
        (t("Extracted answer"), lambda r: _long(r["answer"])),
        (t("How it was found"), lambda r: text(r["route"] or r["unscored_reason"] or "–")),
        (t("Score"), lambda r: num(r["score"], 3)),
        (t("Second grader"), lambda r: num(r["second_score"], 3)),
        (t("Why it ended"), lambda r: text(r["finish_reason"] or r["error_kind"] or "–")),
        (t("Prompt tokens"), lambda r: num(r["prompt_tokens"], 0)),
        (t("Answer tokens, reasoning included"), lambda r: num(r["completion_tokens"], 0)),
        (t("Reasoning tokens"), lambda r: num(r["reasoning_tokens"], 0)),
        ("TTFT", lambda r: ms(r["ttft_ms"])),
        ("TTFA", lambda r: ms(r["ttfa_ms"])),
        ("TPOT", lambda r: num(r["tpot_ms"], unit="ms")),
        (t("Latency"), lambda r: ms(r["latency_ms"])),
        (t("Attempts"), lambda r: num(r["attempts"], 0)),
    ]
    if any(row is not None and row["error_message"] for row in answers):
        lines.append((t("Error"), lambda r: _long(r["error_message"])))
    if any(row is not None and row["metrics"] for row in answers):
        lines.append((t("Further figures"), lambda r: _long(r["metrics"])))
    if any(row is not None and row["leaked"] for row in answers):
        lines.append((t("Reasoning leaked into the answer"), lambda r: text(t("yes") if r["leaked"] else t("no"))))
    head = ["", "A", "B"] if len(answers) > 1 else ["", t("Value")]
    missing = Cell("–", "")
    rows = [[text(name), *(missing if row is None else show(row) for row in answers)] for name, show in lines]
    page.table(head, [row for row in rows if any(cell.html != NOTHING for cell in row[1:])], name="facts")


def _long(words: str | None) -> Cell:
    if words is None:
        return Cell("–", "")
    return Cell(esc(words[:500]), words[:500], wraps=True)


def _timeline(run: StoredRun, row: Row, letter: str, t: Words) -> Figure | None:
    """Tokens over the time of the request that gave the answer."""
    if not row["request_id"]:
        return None
    found = find_request(run, row["point_id"], row["request_id"])
    if found is None or not found["event_ns"]:
        return None
    return token_figure(found, letter, t)
