"""The effort sheet: quality, tokens, time and money of each reasoning effort, and which one to use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from oss_eval.analysis.effort_choice import (
    NOT_WORSE,
    WORSE,
    EffortChoice,
    EffortRow,
    times_more,
)
from oss_eval.analysis.gate import HOLDS, REFUTED, UNDECIDED
from oss_eval.analysis.stats import Estimate
from oss_eval.report.format import NOTHING, number
from oss_eval.report.table import empty_table
from oss_eval.results.manifest import title_mark
from oss_eval.results.model_name import short_model_name

SLO_WORDS = {HOLDS: "met", REFUTED: "missed", UNDECIDED: "can't tell"}


def print_sheets(manifest: dict[str, Any], choices: Sequence[EffortChoice], console: Console) -> None:
    """A table and its sentences for each task."""
    simulated = (manifest.get("endpoint") or {}).get("simulated")
    mark = "  SIMULATED: no model was run" if simulated else ""
    title = Text(f"Which effort of {short_model_name(manifest['model'])}{mark}")
    console.print(Panel.fit(title, border_style="yellow" if simulated else "default"))
    for choice in choices:
        console.print()
        console.print(sheet_table(choice, console.width, title_mark(manifest)))
        for note in notes(choice, console.width):
            console.print(f"  {note}", style="bright_black", highlight=False, markup=False)
        console.print()
        for index, line in enumerate(sentences(choice)):
            console.print(Text(line, "bold" if index == 0 else ""))


def sheet_table(choice: EffortChoice, width: int = 160, mark: str = "") -> Table:
    """A row an effort; intervals beside the figures where there is room. `mark` ends the title."""
    table = empty_table(f"Effort sheet of {escape(choice.task)}, margin {choice.margin:g}{escape(mark)}")
    priced = any(row.cost is not None for row in choice.rows)
    judged = width >= 100 and any(row.slo for row in choice.rows)  # else in the notes alone
    roomy = width >= 120
    heads = [
        "Effort",
        "Score",
        *(["95%"] if width >= 100 else []),
        "Against\nanother",
        "95%",
        "Tokens",
        "Lat.\n(s)",
    ]
    heads += ["TTFA\n(s)"] if roomy else []
    heads += ["Cost of\n1,000"] if priced else []
    for head in [*heads, *(["SLO"] if judged else []), "Verdict"]:
        table.add_column(head, justify="left" if head in ("Effort", "Verdict", "SLO") else "right", no_wrap=True)
    for row in choice.rows:
        cells = _cells(row, width, priced, judged, row.effort == choice.chosen)
        table.add_row(*cells, style="bold" if row.effort == choice.chosen else "")
    return table


def _cells(row: EffortRow, width: int, priced: bool, judged: bool, used: bool) -> list[str]:
    group, difference = row.group, row.difference
    score = group.score
    assert score is not None
    ends = NOTHING
    if score.these_low is not None and score.these_high is not None:
        ends = f"{score.these_low:.3f}–{score.these_high:.3f}"
    apart, apart_ends = (NOTHING, NOTHING) if difference is None else (f"{difference.value:+.4f}", NOTHING)
    if difference is not None and difference.low is not None and difference.high is not None:
        apart_ends = f"{difference.low:+.3f} to {difference.high:+.3f}"
    roomy = width >= 120
    cells = [escape(row.effort), f"{score.value:.4f}", *([ends] if width >= 100 else []), apart, apart_ends]
    cells += [_tokens(group.tokens, roomy), _with_half(group.latency_ms, 1e-3, roomy)]
    cells += [_with_half(group.ttfa_ms, 1e-3, roomy)] if roomy else []
    cells += [_price(row.cost, roomy)] if priced else []
    cells += [", ".join(dict.fromkeys(SLO_WORDS[state] for _, state in row.slo))] if judged else []
    return [*cells, ("use" if used else row.verdict) if row.meets_slo else "misses SLO"]


def _with_half(found: Estimate | None, factor: float, roomy: bool) -> str:
    """A mean, with half the width of its interval where there is room."""
    if found is None:
        return NOTHING
    text = number(found.value * factor)
    if not roomy or found.high is None:
        return text
    return f"{text} ±{number((found.high - found.value) * factor)}"


def _tokens(found: Estimate | None, roomy: bool) -> str:
    if found is None:
        return NOTHING
    half = f" ±{found.high - found.value:,.0f}" if roomy and found.high is not None else ""
    return f"{found.value:,.0f}{half}"


def _price(cost: Estimate | None, roomy: bool) -> str:
    """Of 1,000 answers, three digits of it: prices may be small."""
    if cost is None:
        return NOTHING
    text = f"{cost.value * 1e3:.3g}"
    return text if not roomy or cost.high is None else f"{text} ±{(cost.high - cost.value) * 1e3:.2g}"


def notes(choice: EffortChoice, width: int = 160) -> list[str]:
    """What the columns mean, and each SLO."""
    lines = ["score and difference: on these questions"]
    lines[0] += "; ±: half the 95% interval of a mean, by question" if width >= 120 else ""
    lines.append(f"against another: the largest possible loss, {_rivals(choice)}")
    for place, (text, _) in enumerate(choice.rows[0].slo):
        states = ", ".join(f"{SLO_WORDS[row.slo[place][1]]} at {row.effort}" for row in choice.rows)
        lines.append(f"SLO {text}: {states}")
    cut = [
        f"{row.effort} {row.group.truncated.value:.1%}"
        for row in choice.rows
        if row.group.truncated is not None and row.group.truncated.value
    ]
    if cut:
        lines.append(f"answers truncated at --max-tokens: {', '.join(cut)}")
    return lines


def _rivals(choice: EffortChoice) -> str:
    """Against which effort each one is compared."""
    return ", ".join(f"{row.effort} minus {row.rival}" for row in choice.rows if row.rival) or "none"


def sentences(choice: EffortChoice) -> list[str]:
    """Which effort to use, what the others cost, and what is not known."""
    if choice.best is None:
        return ["No effort can be used: each one misses an SLO.", *_left_out(choice)]
    lines = [
        _decision(choice),
        *_left_out(choice),
        *(_undecided(choice, choice.row(effort)) for effort in choice.undecided),
    ]
    used = choice.row(choice.chosen or choice.best)
    lines += [_against_used(row, used) for row in choice.rows if row is not used]
    d = used.difference
    if used.verdict == NOT_WORSE and used.like_verdict != NOT_WORSE and d is not None:
        known = d.like_low is not None and d.like_high is not None
        ends = f" (against {used.rival}, 95% {d.like_low:+.3f} to {d.like_high:+.3f})" if known else ""
        lines.append(f"On other questions like these it can't be told yet{ends}: that takes more questions.")
    return lines


def _left_out(choice: EffortChoice) -> list[str]:
    """Answers and efforts that are in no score."""
    lines = []
    failed = [row for row in choice.rows if row.group.failed + row.group.unscored]
    if failed:
        each = ", ".join(
            f"{row.effort} {row.group.failed + row.group.unscored} of {row.group.samples}"
            + ("" if row.group.of_all is None else f" (with them as wrong {row.group.of_all.value:.4f})")
            for row in failed
        )
        lines.append(f"Scores leave out answers that failed or could not be graded: {each}.")
    if choice.unscored:
        lines.append(f"No answer was scored at {', '.join(choice.unscored)}: nothing is known of that effort.")
    return lines


def _decision(choice: EffortChoice) -> str:
    margin, best = f"{choice.margin:g}", choice.row(choice.best or "")
    able = [row for row in choice.rows if row.meets_slo]
    if choice.chosen is None:
        return f"Can't tell yet. For now use {best.effort}, which scores highest ({_score(best)})."
    chosen = choice.row(choice.chosen)
    if len(able) == 1:
        return f"Use {chosen.effort}: it is the only effort that meets every SLO."
    if chosen is not best:
        return (
            f"Use {chosen.effort}: it is not worse than {best.effort}, which scores highest, by more than {margin}"
            f"{_seen(chosen)}."
        )
    cheaper = [row.effort for row in able if row.spent < chosen.spent and row.verdict == WORSE]
    if choice.undecided:
        return f"Use {chosen.effort} for now: it scores highest ({_score(chosen)})."
    if not cheaper:
        return f"Use {chosen.effort}: it scores highest, and none is cheaper."
    verb = "is" if len(cheaper) == 1 else "are"
    return (
        f"Use {chosen.effort}: it scores highest, and {' and '.join(cheaper)} {verb} worse by more than {margin}."
    )


def _seen(row: EffortRow) -> str:
    """The difference to its rival, in brackets."""
    d = row.difference
    if d is None or d.low is None or d.high is None:
        return ""
    return f" (against {row.rival} {d.value:+.4f}, 95% {d.low:+.3f} to {d.high:+.3f} on these questions)"


def _score(row: EffortRow) -> str:
    return NOTHING if row.group.score is None else f"{row.group.score.value:.4f}"


def _undecided(choice: EffortChoice, row: EffortRow) -> str:
    times = times_more(row, choice.margin)
    more = f" About {times:,.1f} times the answers would tell." if times is not None and times <= 1000 else ""
    text = f"Can't tell whether {row.effort} is worse than {row.rival} by more than {choice.margin:g}{_seen(row)}."
    return text + more


def _against_used(row: EffortRow, used: EffortRow) -> str:
    """What another effort costs, for which score, and why it is not used."""
    parts = []
    one, two = row.group, used.group
    for name, mine, other in (
        ("the tokens", one.tokens, two.tokens),
        ("the latency", one.latency_ms, two.latency_ms),
        ("the money", row.cost, used.cost),
    ):
        if mine is not None and other is not None and other.value:
            parts.append(f"{mine.value / other.value:.2f} times {name}")
    apart = ""
    if one.score is not None and two.score is not None:
        apart = f"{one.score.value - two.score.value:+.4f} in score"
    text = ", ".join(parts) or "at a cost that is not known"
    missed = " and ".join(text for text, state in row.slo if state == REFUTED)
    return f"{row.effort}: {apart}, for {text}" + (f"; it misses {missed}." if missed else ".")


def as_json(choices: Sequence[EffortChoice]) -> dict[str, Any]:
    """One document."""
    return {"tasks": [_document(choice) for choice in choices]}


def _document(choice: EffortChoice) -> dict[str, Any]:
    return {
        "task": choice.task,
        "margin": choice.margin,
        "best": choice.best,
        "chosen": choice.chosen,
        "undecided": list(choice.undecided),
        "sentences": sentences(choice),
        "efforts": [_row(row) for row in choice.rows],
    }


def _row(row: EffortRow) -> dict[str, Any]:
    group = row.group
    estimates = {
        "score": group.score, "difference": row.difference, "tokens": group.tokens,
        "latency_ms": group.latency_ms, "ttfa_ms": group.ttfa_ms, "cost": row.cost,
    }  # fmt: skip
    return {
        "effort": row.effort,
        **{name: None if found is None else found._asdict() for name, found in estimates.items()},
        "answers": group.samples, "failed": group.failed, "unscored": group.unscored,
        "truncated": None if group.truncated is None else group.truncated.value,
        "slo": [{"condition": text, "state": SLO_WORDS[state]} for text, state in row.slo],
        "rival": row.rival, "verdict": row.verdict, "like_verdict": row.like_verdict,
    }  # fmt: skip
