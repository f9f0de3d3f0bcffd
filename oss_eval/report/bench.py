"""A benchmark run as tables for the terminal."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from oss_eval.analysis.advice import advise_scores
from oss_eval.analysis.bench_summary import OVERALL, Group, comparisons, groups
from oss_eval.analysis.scores import ScoreEstimate
from oss_eval.analysis.stats import Estimate
from oss_eval.errors import StoreError
from oss_eval.report.format import NOTHING, number, percent
from oss_eval.report.perf import print_run_checks
from oss_eval.report.table import empty_table
from oss_eval.results.manifest import read_begun_manifest, title_mark
from oss_eval.results.model_name import short_model_name
from oss_eval.results.reader import read_samples, status_of


def print_scoreboard(path: Path, console: Console, grid: bool = False) -> None:
    """Print scores with intervals, their cost, and notes."""
    manifest, samples = begun_manifest(path), read_samples(path)
    simulated = manifest.get("endpoint", {}).get("simulated")
    mark = "  SIMULATED: no model was run" if simulated else ""
    title = Text(f"Benchmark of {short_model_name(manifest['model'])}{mark}")
    console.print(Panel.fit(title, border_style="yellow" if simulated else "default"))
    found = groups(samples, manifest)
    _print_basics(manifest, status_of(path, manifest), console)
    if not found:
        console.print("No sample was finished.")
        return
    notes: list[str] = []
    for table in (
        _scores(found, manifest, console.width, notes),
        _costs([group for group in found if group.subset == OVERALL], console.width, notes),
    ):
        console.print()
        console.print(table)
    for note in dict.fromkeys(notes):
        console.print(f"  {note}", style="bright_black", highlight=False, markup=False)
    if grid:
        _print_grids(samples, manifest, console)
    _print_troubles(found, manifest, console)
    print_run_checks(manifest, console)
    lines = advise_scores([group for group in found if group.subset == OVERALL], comparisons(samples, found))
    if lines:
        console.print("\n[bold italic]Recommendations[/]")
        for line in lines:
            console.print(f"• {line}", highlight=False, markup=False)


def begun_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a benchmark run that has begun to ask. Raises StoreError."""
    manifest = read_begun_manifest(path)
    if "tasks" not in manifest or "points" not in manifest:
        raise StoreError(f"{path.name} holds nothing yet: it has not begun to ask", "look again in a moment")
    return manifest


def _print_basics(manifest: dict[str, Any], status: str, console: Console) -> None:
    endpoint = manifest["endpoint"]
    status = "" if status == "finished" else f" ({status})"
    rows = [("Run", manifest["run_id"] + status), ("Model", manifest["model"])]
    rows.append(("Endpoint", endpoint.get("simulator") or endpoint["url"]))
    for name, task in manifest["tasks"].items():
        source = task.get("source") or {}
        where = f"{source.get('dataset') or ''}"
        if source.get("hub") not in (None, "local"):
            where += f" from {source['hub']}"
        if source.get("revision"):
            where += f" at {source['revision']}"
        grader = task.get("scorer") or "EvalScope's scoring"
        parts = [f"{task.get('samples')} samples x {task.get('repeats')}", f"graded by {grader}", where]
        rows.append((name, ", ".join(part for part in parts if part)))
    parallel = manifest.get("parallel")
    if parallel:
        asked = parallel.get("asked")
        most = f", at most {parallel.get('most_in_flight')}" if asked == "auto" else ""
        rows.append(("In flight", f"{asked}{most}"))
    table = Table(title="Basic information", box=None, show_header=False, title_justify="left", padding=(0, 2))
    for name, value in rows:
        table.add_row(name, Text(str(value)))
    console.print(table)


def _share(score: ScoreEstimate | Estimate | None) -> str:
    """A score; shares get four decimals."""
    if score is None:
        return NOTHING
    return f"{score.value:.4f}" if 0 <= score.value <= 1 else f"{score.value:.3f}"


def _interval(score: ScoreEstimate | None) -> str:
    if score is None or score.low is None or score.high is None:
        return NOTHING
    return f"{score.low:.3f}–{score.high:.3f}"


def _on_these(score: ScoreEstimate | None) -> str:
    """The interval on these problems."""
    if score is None or score.these_low is None or score.these_high is None:
        return NOTHING
    return f"{score.these_low:.3f}–{score.these_high:.3f}"


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of the score table that depend on the run and the terminal."""

    model: bool
    effort: bool
    subset: bool
    these: bool
    repeated: bool
    errors: bool


def _scores(rows: list[Group], manifest: dict[str, Any], width: int, notes: list[str]) -> Table:
    """EvalScope's table - model, dataset, metric, subset, num, score - with effort and interval."""
    wide = width >= 120
    columns = _Columns(
        model=wide,
        effort=any(group.effort for group in rows),
        subset=any(group.subset != OVERALL for group in rows),
        these=(wide or all(group.subset == OVERALL for group in rows))
        and any(_on_these(group.score) != NOTHING for group in rows),
        repeated=any(group.epochs > 1 and not group.adaptive for group in rows),
        errors=wide,
    )
    table = empty_table(f"Scores{title_mark(manifest)}")
    for name, shown in (
        ("Model", columns.model), ("Dataset", True), ("Effort", columns.effort), ("Subset", columns.subset),
        ("Metric", True),
    ):  # fmt: skip
        if shown:
            table.add_column(name, no_wrap=True)
    numbers = ["Num", "Score", "95% interval", *(["On these"] if columns.these else [])]
    numbers += ["pass@k", "maj@k"] if columns.repeated else []
    for name in [*numbers, *(["SE", "of all"] if columns.errors else [])]:
        table.add_column(name, justify="right", no_wrap=True)
    last: tuple[str, str | None] | None = None
    for group in rows:
        section = group.task, group.effort if columns.subset else None
        if last is not None and last != section:
            table.add_section()
        last = section
        style = "bold" if group.subset == OVERALL and columns.subset else ""
        table.add_row(*_score_row(group, short_model_name(manifest["model"]), columns, notes), style=style)
    if columns.these:
        notes.insert(0, "On these: the interval on these problems, to compare deployments and published scores")
    notes.insert(0, "avg@k: mean over problems of k answers each; 95% interval on problems like these")
    return table


def _score_row(group: Group, model: str, columns: _Columns, notes: list[str]) -> list[str]:
    row = [escape(model)] if columns.model else []
    row.append(escape(group.task))
    row += [escape(group.effort or NOTHING)] if columns.effort else []
    row += [escape(group.subset)] if columns.subset else []
    incomplete = "*" if group.failed or group.unscored else ""
    metric = "estimate" if group.adaptive else f"avg@{group.epochs}"
    if group.adaptive:
        notes.append(
            "estimate: answers were asked for where they tell most (--until); a plain mean would be biased"
        )
    row += [metric, str(group.scored) + incomplete, _share(group.score), _interval(group.score)]
    row += [_on_these(group.score)] if columns.these else []
    if columns.repeated:
        row += [_share(group.pass_at.get(group.epochs)), _share(group.majority)]
    if columns.errors:
        se = group.score.se if group.score else None
        row += [NOTHING if se is None else f"{se:.4f}", _share(group.of_all)]
    if incomplete:
        missing = [f"{group.failed} failed"] if group.failed else []
        missing += [f"{group.unscored} could not be graded"] if group.unscored else []
        notes.append(
            f"* {_where(group)}: of {group.samples} samples {' and '.join(missing)}; "
            f"counted as wrong, they make the score {_share(group.of_all)}"
        )
    return row


def _where(group: Group) -> str:
    return " ".join(filter(None, (group.task, group.effort, group.subset if group.subset != OVERALL else "")))


def _costs(rows: list[Group], width: int, notes: list[str]) -> Table:
    """Tokens and time of the answers."""
    table = empty_table("Answers: tokens and time")
    table.add_column("Dataset", no_wrap=True)
    efforts = any(group.effort for group in rows)
    if efforts:
        table.add_column("Effort", no_wrap=True)
    wide = width >= 120
    names = ["Trun-\ncated", "Ungr.", "Fail", "Reas.\ntokens", "Answer\ntokens", "TTFT\n(s)", "Lat.\n(s)",
             "tok/s", "Wall\n(s)"]  # fmt: skip
    for name in [*names, *(["Tokens\n(mean)", "TTFA\n(s)", "TPOT\n(ms)"] if wide else [])]:
        table.add_column(name, justify="right", no_wrap=True)
    if wide:
        notes.append("± half the width of the mean's 95% interval")
    for group in rows:
        effort = [escape(group.effort or NOTHING)] if efforts else []
        table.add_row(escape(group.task), *effort, *_cost_row(group, wide, notes))
    notes.append(
        "Truncated: answers that reached --max-tokens; Ungr.: ungraded answers; tok/s: of all requests together"
    )
    return table


def _cost_row(group: Group, wide: bool, notes: list[str]) -> list[str]:
    counted = [source for source in group.token_sources if source != "usage"]
    if counted:
        notes.append(f"~ tokens counted from {' and '.join(counted)}: the server sent no usage for some answers")
    if group.tokens and not group.answer_tokens:
        notes.append("the server does not say which tokens were reasoning: answer tokens are all tokens")
    row = [
        percent(group.truncated.value if group.truncated else None),
        str(group.unscored),
        str(group.failed),
        _mean(group.reasoning_tokens, 1, False),
        _mean(group.answer_tokens or group.tokens, 1, False) + ("~" if counted else ""),
        _mean(group.ttft_ms, 1e-3, wide),
        _mean(group.latency_ms, 1e-3, wide),
        _short(group.output_tps),
        number(group.wall_seconds),
    ]
    if wide:
        row += [_mean(group.tokens, 1, True), _mean(group.ttfa_ms, 1e-3, True), _mean(group.tpot_ms, 1, True)]
    return row


def _short(value: float | None) -> str:
    """A rate in at most five characters."""
    return number(value) if value is None or value < 10_000 else f"{value / 1000:.1f}k"


def _mean(estimate: Estimate | None, factor: float, roomy: bool) -> str:
    if estimate is None:
        return NOTHING
    whole = factor == 1 and estimate.value >= 10
    text = f"{estimate.value:,.0f}" if whole else number(estimate.value * factor)
    if not roomy or estimate.high is None:
        return text
    half = (estimate.high - estimate.value) * factor
    return f"{text} ±{f'{half:,.0f}' if whole else number(half)}"


# -- the grid ---------------------------------------------------------------------------------------------------


def _print_grids(samples: pa.Table, manifest: dict[str, Any], console: Console) -> None:
    """A line for each problem, a sign for each epoch."""
    columns = ["point_id", "subset", "sample_id", "epoch", "score", "truncated", "status", "target"]
    cells: dict[str, dict[tuple[str, str], dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for row in samples.select(columns).to_pylist():
        cells[row["point_id"]][row["subset"], row["sample_id"]][row["epoch"]] = row
    for point in manifest["points"]:
        problems = cells.get(point["point_id"], {})
        heading = " ".join(filter(None, (point["task"], point["reasoning_effort"])))
        console.print(f"\n[bold]{escape(heading)}[/]  problem x epoch")
        ordered = sorted(problems, key=lambda key: (len(key[0]), key[0], len(key[1]), key[1]))
        several = len({subset for subset, _ in ordered}) > 1
        names = {key: " ".join(key) if several else key[1] for key in ordered}
        width = max(map(len, names.values()), default=0)
        for key in ordered:
            answers = problems[key]
            line = Text(f"  {names[key]:<{width}}  ")
            for epoch in range(1, point["repeats"] + 1):
                sign, style = _sign(answers.get(epoch))
                line.append(sign + " ", style)
            scores = [row["score"] for row in answers.values() if row["score"] is not None]
            line.append(f" {sum(scores) / len(scores):.2f}" if scores else f" {NOTHING}", "bright_black")
            console.print(line, soft_wrap=True)
    signs = f"{RIGHT} right  {WRONG} wrong  {PART} in part  {CUT} cut  {UNSCORED} not graded  {FAILED} failed"
    console.print(f"  {signs}", style="bright_black", highlight=False)


def _sign(row: dict[str, Any] | None) -> tuple[str, str]:
    if row is None:
        return PENDING, ""
    if row["status"] != "ok":
        return FAILED, "red"
    if row["score"] is None:
        return UNSCORED, "magenta"
    if row["score"] >= 1:
        return RIGHT, "green"
    if row["score"] > 0:
        return PART, "yellow"
    return (CUT, "yellow") if row["truncated"] else (WRONG, "red")


# -- what has to be known ---------------------------------------------------------------------------------------


def _print_troubles(found: list[Group], manifest: dict[str, Any], console: Console) -> None:
    def say(text: str, style: str) -> None:
        console.print(text, style=style, highlight=False, markup=False)

    for name, task in manifest["tasks"].items():
        if (task.get("source") or {}).get("own_aggregation"):
            say(
                f"{name}: EvalScope sums this benchmark up in a way of its own; shown is the mean of its samples' "
                "main figure (the others are in the column metrics)",
                "yellow",
            )
    planned = {point["point_id"]: point for point in manifest["points"]}
    for group in (group for group in found if group.subset == OVERALL):
        where = _where(group)
        point = planned.get(group.point_id, {"number": 0, "repeats": 0})
        until = point.get("until") or {}
        if until.get("reached"):
            say(f"{where}: stopped after {group.samples:,} answers: {until['reached']}", "bright_black")
        elif until.get("error") or until.get("against"):
            half = f", known to ±{until['half']:.4f}" if until.get("half") else ""
            say(f"{where}: not decided after {group.samples:,} answers{half}", "yellow")
        elif group.samples < point["number"]:
            say(
                f"{where}: {group.samples} of {point['number']} samples so far, the quick ones first: "
                "not yet a score to quote",
                "yellow",
            )
        for kind, (count, example) in sorted(group.failures.items(), key=lambda item: -item[1][0]):
            line = example.splitlines()[0][:200] if example else ""
            say(f"{where}: {count} x {kind} {line}", "red")
        limit = (manifest["tasks"].get(group.task) or {}).get("max_failures")
        if limit is not None and group.failed > group.samples * limit / 100:
            share = group.failed / group.samples
            say(f"{where}: {share:.1%} of the samples failed, more than --max-failures {limit:g}%", "red")
        for reason, count in list(group.unscored_reasons.items())[:3]:
            say(f"{where}: {count} not graded: {reason.splitlines()[0][:200] if reason else ''}", "magenta")
        if group.disagreements:
            say(
                f"{where}: the second grader, math-verify, judged {group.disagreements} of {group.second_looked} "
                "answers otherwise (column second_score)",
                "yellow",
            )
        if group.leaked:
            say(
                f"{where}: in {group.leaked} answers reasoning had leaked into the answer; it was not graded",
                "yellow",
            )
        if group.truncated and group.truncated.value > 0:
            say(
                f"{where}: {percent(group.truncated.value)} of the answers were cut at --max-tokens: "
                "raise it, or the score says as much about the limit as about the model",
                "yellow",
            )
        if group.retried:
            say(f"{where}: {group.retried} samples took more than one attempt", "bright_black")


RIGHT, WRONG, CUT, FAILED, UNSCORED, PART, PENDING = "●", "·", "✂", "✗", "?", "◐", " "
