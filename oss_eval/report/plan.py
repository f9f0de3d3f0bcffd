"""How many answers it takes, as tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from oss_eval.analysis.bench_summary import Group
from oss_eval.analysis.plan_answers import REPEATS, Alternative, Spread, alternative, needed, observed
from oss_eval.analysis.scores import SCORED, by_point
from oss_eval.errors import UsageError
from oss_eval.report.bench_json import task_groups
from oss_eval.report.format import NOTHING
from oss_eval.report.table import empty_table
from oss_eval.results.reader import read_samples


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """A plan for one effort of a task. Costs are those of one answer in the stored run; None where not known."""

    task: str
    effort: str | None
    problems: int
    spread: Spread
    detect: float
    power: float
    repeats: int | None
    """Answers to each problem, on each side; None if no reasonable number is enough."""
    alternatives: list[Alternative]
    tokens: float | None = None
    seconds: float | None = None
    price: float | None = None


def planned(
    task: str,
    effort: str | None,
    spread: Spread,
    problems: int,
    detect: float,
    power: float,
    group: Group | None = None,
) -> AnswerPlan:
    """The plan for a spread; `group` gives the costs."""
    repeats = needed(spread, problems, detect, power)
    counts = sorted({*REPEATS, *([] if repeats is None else [repeats])})
    found = [alternative(spread, problems, count, power) for count in counts]
    tokens = seconds = price = None
    if group is not None:
        tokens = group.tokens.value if group.tokens else None
        seconds = group.wall_seconds / group.samples if group.wall_seconds else None
        price = group.cost.value if group.cost else None
    return AnswerPlan(task, effort, problems, spread, detect, power, repeats, found, tokens, seconds, price)


def from_run(path: Path, task: str, detect: float, power: float, problems: int | None) -> list[AnswerPlan]:
    """A plan for each effort of the task in a stored run. Raises UsageError and StoreError."""
    whole = task_groups(path)
    found = [group for group in whole if group.task == task]
    if not found:
        names = ", ".join(sorted({group.task for group in whole}))
        raise UsageError(f"{path.name} has no task {task!r}", f"it has: {names}")
    answers = by_point(read_samples(path).select(SCORED).to_pylist())
    plans = []
    for group in found:
        spread = observed(list(answers[group.point_id].values()))
        if spread is None:
            raise UsageError(
                f"{path.name} has one answer to each problem of {task}: how much answers vary is not known",
                "run it with --repeats 2 or more, or give --problems N --score S instead of --from",
            )
        plans.append(planned(task, group.effort, spread, problems or group.problems, detect, power, group))
    return plans


def print_plans(plans: Sequence[AnswerPlan], console: Console) -> None:
    """A sentence and a table for each effort."""
    for plan in plans:
        name = " ".join(filter(None, (plan.task, plan.effort)))
        console.print(f"[bold]{name}[/]: {plan.problems} problems, score {plan.spread.score:.3f}", highlight=False)
        if plan.repeats is None:
            text = f"No reasonable number of answers finds a difference of {plan.detect:g}."
        else:
            text = (
                f"To find a difference of {plan.detect:g} between two runs {plan.power:.0%} of the time: "
                f"--repeats {plan.repeats} on each side, {2 * plan.repeats * plan.problems:,} answers in all."
            )
        console.print(text, highlight=False)
        console.print(_table(plan))
        console.print(
            f"  Detectable: difference between two such runs that is found {plan.power:.0%} of the time, by "
            "simulation. ±: half the interval of one score; on problems like these only more problems make it "
            "much narrower. Costs are of one run.",
            style="bright_black", highlight=False,
        )  # fmt: skip
        console.print()


def _table(plan: AnswerPlan) -> Table:
    table = empty_table()
    names = ["--repeats", "Answers", "Detectable", "± on these", "± like these"]
    costs = [("Tokens", plan.tokens), ("Hours", plan.seconds), ("Price", plan.price)]
    for name in [*names, *(name for name, value in costs if value is not None)]:
        table.add_column(name, justify="right", no_wrap=True)
    for a in plan.alternatives:
        reach = NOTHING if a.detectable is None else f"{a.detectable:.3f}"
        row = [str(a.repeats), f"{a.answers:,}", reach, f"{a.on_these:.3f}", f"{a.like_these:.3f}"]
        if plan.tokens is not None:
            total = plan.tokens * a.answers
            row.append(f"{total / 1e6:,.1f}M" if total >= 1e6 else f"{total / 1e3:,.0f}k")
        if plan.seconds is not None:
            row.append(f"{plan.seconds * a.answers / 3600:.2f}")
        if plan.price is not None:
            row.append(f"{plan.price * a.answers:.2f}")
        table.add_row(*row, style="bold" if a.repeats == plan.repeats else "")
    return table


def as_json(plans: Sequence[AnswerPlan]) -> dict[str, Any]:
    """One document; costs are totals of one run."""
    return {"plans": [_document(plan) for plan in plans]}


def _document(plan: AnswerPlan) -> dict[str, Any]:
    values = asdict(plan)
    for entry in values["alternatives"]:
        for name, each, unit in (
            ("tokens", plan.tokens, 1.0),
            ("hours", plan.seconds, 3600.0),
            ("price", plan.price, 1.0),
        ):
            entry[name] = None if each is None else each * entry["answers"] / unit
    for name in ("tokens", "seconds", "price"):
        values[f"{name}_per_answer"] = values.pop(name)
    return values
