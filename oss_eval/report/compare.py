"""A comparison as text, Markdown, HTML, JUnit XML and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape as html
from math import ceil
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from rich import box
from rich.console import Console
from rich.table import Table

from oss_eval.analysis.advice import p_text
from oss_eval.analysis.compare import Flip, MetricDifference
from oss_eval.analysis.compared_runs import Comparison
from oss_eval.analysis.conditions import Mismatch
from oss_eval.analysis.gate import SHARES, UNDECIDED, ConditionResult
from oss_eval.analysis.stats import Z
from oss_eval.report.format import NOTHING, number

POWER_90 = 1.2816
"""The normal distribution's quantile of 90%."""
HEAD = ("Figure", "A", "B", "B - A", "95% interval", "p", "Verdict")
NAMES = {
    "completion_tokens": "tokens",
    "plateau_output_tps": "tok/s, full",
    "output_tps": "tok/s",
    "success_rate": "success",
}
VIEWER = "http://127.0.0.1:7860/"
"""Where `oss-eval view` shows results unless told otherwise."""
SHOWN_FLIPS = 10
Unlike = Sequence[tuple[str, list[Mismatch]]]


def title(comparison: Comparison) -> str:
    """What is compared with what."""
    repeats = comparison.repeats
    counted = f", {repeats[0]} and {repeats[1]} repeats" if max(repeats) > 1 and not comparison.benchmark else ""
    return f"{comparison.where}: B = {comparison.b} against A = {comparison.a}{counted}"


def rows(comparison: Comparison) -> list[list[str]]:
    """A line a figure, under HEAD."""
    return [_row(c) for c in comparison.differences]


def _row(c: MetricDifference) -> list[str]:
    d = c.difference
    if c.metric in SHARES:
        shown = [f"{c.a:.4f}", f"{c.b:.4f}", f"{d.value:+.4f}"]
        ends = NOTHING if d.low is None or d.high is None else f"{d.low:+.3f} to {d.high:+.3f}"
    elif c.ratio is not None or (c.a and not c.paired):
        relative = c.ratio or d._replace(value=d.value / abs(c.a), low=None, high=None)
        shown = [number(c.a), number(c.b), f"{relative.value:+.1%}"]
        known = relative.low is not None and relative.high is not None
        ends = f"{relative.low:+.1%} to {relative.high:+.1%}" if known else NOTHING
    else:
        shown = [number(c.a), number(c.b), _signed(d.value)]
        ends = NOTHING if d.low is None or d.high is None else f"{_signed(d.low)} to {_signed(d.high)}"
    p = NOTHING if c.p is None else "< 0.001" if c.p < 0.001 else f"{c.p:.3f}"
    name = NAMES.get(c.metric, c.metric.removesuffix("_ms"))
    name = name.upper() if name in ("ttft", "ttfa", "tpot", "rps") else name
    name = " ".join(
        filter(
            None,
            (name, c.stat if c.stat not in ("value", "mean") else "", f"({c.unit})" if c.unit == "ms" else ""),
        )
    )
    return [name, *shown, ends, p, NOTHING if c.verdict == "no interval" else c.verdict]


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "-") + number(abs(value))


def sentences(comparison: Comparison) -> list[str]:
    """What follows, in words."""
    lines = []
    benchmark = comparison.benchmark
    if benchmark is not None:
        score = next(c for c in comparison.differences if c.metric == "score")
        lines.append(_decision(score))
        lines.append(
            f"B is better on {benchmark.wins} problems, worse on {benchmark.losses}, equal on {benchmark.ties}."
        )
        d = score.difference
        if d.like_low is not None and d.like_high is not None:
            lines.append(
                f"On problems like these, of which they are a sample: {d.value:+.4f}, 95% {d.like_low:+.4f} to "
                f"{d.like_high:+.4f}."
            )
        if benchmark.flips:
            lines.append(f"Solved mostly by one side only: {_flips(benchmark.flips)}.")
        return lines
    if any("published" in point.manifest for point in comparison.points):
        return ["Published figures have no interval: whether a difference is more than chance is not known."]
    told = [c for c in comparison.differences if c.verdict in ("better", "worse")]
    for word in ("better", "worse"):
        some = [" ".join(_row(c)[place] for place in (0, 3)) for c in told if c.verdict == word]
        if some:
            lines.append(f"B is {word}: {', '.join(some)}.")
    if not told:
        lines.append("Can't tell A and B apart at this point.")
    if max(comparison.repeats) < 2:
        lines.append(
            "Intervals are within one run each: they hold for repeats of the run on the same server, not for a "
            "restart of it."
        )
    return lines


def _decision(score: MetricDifference) -> str:
    """The verdict on a score, and what it would take where there is none."""
    d = score.difference
    if score.verdict != "can't tell":
        return f"B's score is {score.verdict}: {d.value:+.4f} on these problems (p {p_text(score.p or 0.0)})."
    error = d.error
    if not error:
        return "Can't tell: no difference was seen, and its error is not known."
    least = (Z + POWER_90) * error
    text = f"Can't tell. A true difference of {least:.3f} would be found 9 times in 10."
    if d.value:
        times = (least / abs(d.value)) ** 2
        some = "more than 1,000" if times > 1000 else f"about {ceil(times * 10) / 10:,.1f}"
        text += f" For the {abs(d.value):.4f} seen, it takes {some} times the answers." if times > 1 else ""
    return text


def _flips(flips: Sequence[Flip]) -> str:
    shown = [f"{f.problem[:40]} ({_share(f)})" for f in flips[:SHOWN_FLIPS]]
    more = len(flips) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _share(flip: Flip) -> str:
    return f"{flip.right_a:g}/{flip.answers_a} → {flip.right_b:g}/{flip.answers_b}"


def link(comparison: Comparison, flip: Flip) -> str:
    """The address of a flipped problem's first answer of B in the viewer."""
    point = comparison.points[1]
    sample = f"{point.point_id}/{flip.subset}/{flip.problem}/1"
    return VIEWER + "?" + urlencode({"show": "samples", "runs": point.path.name, "sample": sample})


def warnings(unlike: Unlike) -> list[str]:
    """Conditions that differ, a line for each side."""
    return [
        f"{name} differs from A in " + "; ".join(f"{m.kind}: {m.name} ({m.a} → {m.b})" for m in found) + "."
        for name, found in unlike
        if found
    ]


def outcome_line(flag: str, outcome: ConditionResult) -> str:
    """A condition and what became of it."""
    scale, unit = (100.0, "%") if outcome.unit == "%" else (1.0, f" {outcome.unit}" if outcome.unit else "")
    ends = (NOTHING if end is None else f"{end * scale:.4g}" for end in (outcome.low, outcome.high))
    known = outcome.low is not None or outcome.high is not None
    figure = f"{outcome.value * scale:.4g}{unit}, " + (
        f"95% {' to '.join(ends)}" if known else "without an interval"
    )
    return f"{outcome.where}: {flag} {outcome.condition.text!r} is {outcome.state}: {figure}"


Outcomes = Sequence[tuple[str, ConditionResult]]
"""(flag, outcome)."""


def print_text(compared: Sequence[Comparison], unlike: Unlike, outcomes: Outcomes, console: Console) -> None:
    """Tables and sentences on a terminal."""
    for line in warnings(unlike):
        console.print(line, style="yellow", highlight=False, markup=False)
    for comparison in compared:
        table = Table(
            title=title(comparison),
            box=box.SIMPLE_HEAD,
            show_edge=False,
            title_justify="left",
            padding=(0, 1, 0, 0),
        )
        for name in HEAD:
            table.add_column(name, justify="left" if name in ("Figure", "Verdict") else "right", no_wrap=True)
        for row, c in zip(rows(comparison), comparison.differences, strict=True):
            table.add_row(*row, style={"better": "green", "worse": "red"}.get(c.verdict, ""))
        console.print(table)
        for line in sentences(comparison):
            console.print(line, highlight=False, markup=False)
        console.print()
    print_outcomes(outcomes, console)


def print_outcomes(outcomes: Outcomes, console: Console) -> None:
    """A line for each condition and point."""
    for flag, outcome in outcomes:
        style = "red" if _fails(flag, outcome) else ""
        console.print(outcome_line(flag, outcome), style=style, highlight=False, markup=False)


def _fails(flag: str, outcome: ConditionResult) -> bool:
    return outcome.state == ("established" if flag == "--fail-if" else "refuted")


def as_markdown(compared: Sequence[Comparison], unlike: Unlike, outcomes: Outcomes) -> str:
    """A summary for a pull request."""
    parts = [f"> {line}" for line in warnings(unlike)]
    for comparison in compared:
        parts += ["", f"### {title(comparison)}", "", f"| {' | '.join(HEAD)} |", "|:--|--:|--:|--:|--:|--:|:--|"]
        parts += [f"| {' | '.join(row)} |" for row in rows(comparison)]
        parts += ["", *(f"{line}  " for line in sentences(comparison))]
        if comparison.benchmark is not None and comparison.benchmark.flips:
            links = (
                f"[{f.problem[:40]}]({link(comparison, f)})" for f in comparison.benchmark.flips[:SHOWN_FLIPS]
            )
            parts += [f"In the viewer: {', '.join(links)}"]
    if outcomes:
        parts += ["", "### Conditions", "", *(f"- {outcome_line(*pair)}" for pair in outcomes)]
    return "\n".join(parts).strip() + "\n"


def as_html(compared: Sequence[Comparison], unlike: Unlike, outcomes: Outcomes) -> str:
    """One page without other files."""
    parts = [f"<p><b>{html(line)}</b></p>" for line in warnings(unlike)]
    for comparison in compared:
        head = "".join(f"<th>{html(name)}</th>" for name in HEAD)
        body = "".join(
            "<tr>" + "".join(f"<td>{html(cell)}</td>" for cell in row) + "</tr>" for row in rows(comparison)
        )
        parts += [f"<h2>{html(title(comparison))}</h2>", f"<table><tr>{head}</tr>{body}</table>"]
        parts += [f"<p>{html(line)}</p>" for line in sentences(comparison)]
        flips = comparison.benchmark.flips if comparison.benchmark is not None else []
        items = (
            f'<li><a href="{html(link(comparison, f))}">{html(f.problem[:80])}</a> {html(_share(f))}</li>'
            for f in flips
        )
        parts += [f"<ul>{''.join(items)}</ul>"] if flips else []
    parts += [f"<p>{html(outcome_line(*pair))}</p>" for pair in outcomes]
    style = "body{font-family:sans-serif;margin:2em} td,th{padding:2px 10px;text-align:right}"
    style += " td:first-child{text-align:left}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>oss-eval compare</title>'
        f"<style>{style}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def as_junit(outcomes: Outcomes) -> str:
    """A test case for each condition and point; undecided ones are errors."""
    failed, undecided = (
        sum(_fails(*pair) for pair in outcomes),
        sum(o.state == UNDECIDED and f != "--fail-if" for f, o in outcomes),
    )
    suite = ElementTree.Element(
        "testsuite", name="oss-eval compare", tests=str(len(outcomes)), failures=str(failed), errors=str(undecided)
    )
    for flag, outcome in outcomes:
        name = f"{flag} {outcome.condition.text}"
        case = ElementTree.SubElement(suite, "testcase", classname=outcome.where, name=name)
        if _fails(flag, outcome):
            ElementTree.SubElement(case, "failure", message=outcome_line(flag, outcome))
        elif outcome.state == UNDECIDED and flag != "--fail-if":
            ElementTree.SubElement(case, "error", message=outcome_line(flag, outcome))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def as_json(compared: Sequence[Comparison], unlike: Unlike, outcomes: Outcomes) -> dict[str, Any]:
    """One document; `comparisons` has an entry for each figure."""
    return {
        "comparisons": [_entry(comparison, c) for comparison in compared for c in comparison.differences],
        "mismatches": [
            {"run": name, "kind": m.kind, "name": m.name, "a": m.a, "b": m.b}
            for name, found in unlike
            for m in found
        ],
        "conditions": [
            {
                "condition": o.condition.text, "flag": flag, "where": o.where, "state": o.state, "value": o.value,
                "low": o.low, "high": o.high, "unit": o.unit,
            }
            for flag, o in outcomes
        ],
    }  # fmt: skip


def _entry(comparison: Comparison, c: MetricDifference) -> dict[str, Any]:
    d, relative, benchmark = c.difference, c.ratio, comparison.benchmark
    entry: dict[str, Any] = {
        "side_a": comparison.a, "side_b": comparison.b, "task": comparison.task, "effort": comparison.effort,
        "parallel": comparison.parallel, "metric": c.metric, "stat": c.stat, "unit": c.unit, "a": c.a, "b": c.b,
        "difference": d.value, "low": d.low, "high": d.high, "p": d.p, "p_holm": c.p_adjusted,
        "verdict": c.verdict, "like_low": d.like_low, "like_high": d.like_high,
        "relative": relative and relative.value, "relative_low": relative and relative.low,
        "relative_high": relative and relative.high, "repeats": list(comparison.repeats),
    }  # fmt: skip
    if c.metric == "score" and benchmark is not None:
        entry |= {"wins": benchmark.wins, "losses": benchmark.losses, "ties": benchmark.ties}
        entry["flips"] = [
            {
                "subset": f.subset, "sample_id": f.problem, "a": f"{f.right_a:g}/{f.answers_a}",
                "b": f"{f.right_b:g}/{f.answers_b}", "link": link(comparison, f),
            }
            for f in benchmark.flips
        ]  # fmt: skip
    return entry


def every(compared: Iterable[Comparison]) -> list[tuple[str, MetricDifference]]:
    """All differences with what they are of, for conditions."""
    return [(title(comparison), c) for comparison in compared for c in comparison.differences]
