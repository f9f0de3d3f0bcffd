"""The goals and the budget of a run's points: `--until`, `--against`, `--budget-tokens`, `--budget-usd`."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from oss_eval.analysis.scores import SCORED, Problem, by_point
from oss_eval.bench.allocation import Allocation, Budget, Goal
from oss_eval.bench.plan import BenchPoint, LoadedTask, SampleJob
from oss_eval.config.bench_task import BenchTask
from oss_eval.errors import UsageError
from oss_eval.records import RequestRecord

COLUMNS = ["task", "reasoning_effort", "subset", "sample_id", "score", "prompt"]


def allocations(
    loaded: list[LoadedTask], points: list[BenchPoint], todo: list[SampleJob], path: Path
) -> dict[str, Allocation]:
    """How the answers of each point are asked for, where they are not simply all asked; `path` is the run's folder
    with the answers of earlier sessions. Raises UsageError and StoreError for a reference that can't be used."""
    from oss_eval.results.reader import read_samples

    tasks = {one.plan.task.name: one for one in loaded}
    asked = [point for point in points if tasks[point.task].plan.task.stops]
    stored: dict[str, dict[Problem, list[float]]] = {}
    if asked and (path / "samples").is_dir():
        stored = by_point(read_samples(path).select(SCORED).to_pylist())
    found = {}
    for point in asked:
        task = tasks[point.task].plan.task
        point.until = {"error": task.error, "against": task.against, "budget_tokens": task.budget_tokens,
                       "budget_usd": task.budget_usd}  # fmt: skip
        against = None if task.against is None else _reference(Path(task.against), point, tasks[point.task])
        jobs = [job for job in todo if job.point_id == point.point_id]
        found[point.point_id] = Allocation(jobs, stored.get(point.point_id, {}), Goal(task.error, against))
    return found


def _reference(path: Path, point: BenchPoint, loaded: LoadedTask) -> dict[Problem, list[float]]:
    """Scores of the reference's answers to the same problems, by this run's names for them."""
    from oss_eval.results.reader import read_samples

    by_prompt = {
        json.dumps(sample.messages, sort_keys=True): (sample.subset, sample.sample_id) for sample in loaded.samples
    }
    found: dict[Problem, list[float]] = defaultdict(list)
    for row in read_samples(path).select(COLUMNS).to_pylist():
        if (row["task"], row["reasoning_effort"]) != (point.task, point.reasoning_effort) or row["score"] is None:
            continue
        problem = by_prompt.get(json.dumps(json.loads(row["prompt"]), sort_keys=True))
        if problem is not None:
            found[problem].append(row["score"])
    if not found:
        effort = f" at effort {point.reasoning_effort}" if point.reasoning_effort else ""
        raise UsageError(
            f"--against: {path.name} has no answer to the problems of {point.task}{effort}",
            "name a run of the same task, prompts and effort",
        )
    return dict(found)


def budget(
    task: BenchTask, prices: dict[str, float] | None, loaded: list[LoadedTask], points: int
) -> Budget | None:
    """The budget of a run of so many points. Raises UsageError without prices, and for one that may not be enough
    for a single answer of each."""
    found = _budget(task, prices, loaded)
    if found is not None and found.whole < points * found.dearest:
        given = (
            f"--budget-tokens {task.budget_tokens}" if task.budget_tokens else f"--budget-usd {task.budget_usd:g}"
        )
        raise UsageError(
            f"{given} is less than an answer to each effort may take: {found.dearest:,.6g}",
            f"--max-tokens is {task.max_tokens:,}: lower it, or raise the budget",
        )
    return found


def _budget(task: BenchTask, prices: dict[str, float] | None, loaded: list[LoadedTask]) -> Budget | None:
    most = task.max_tokens or 0
    if task.budget_tokens is not None:
        return Budget(float(task.budget_tokens), float(most), lambda record: float(_tokens(record)))
    if task.budget_usd is None:
        return None
    if not prices or not prices.get("output"):
        raise UsageError(
            "--budget-usd needs the prices of the endpoint",
            "name an endpoint of endpoints.yaml that has `prices`, or use --budget-tokens",
        )
    asked, said = prices.get("input", 0.0) / 1e6, prices["output"] / 1e6
    # A token is at least a character, mostly more.
    longest = max((len(str(sample.messages)) for one in loaded for sample in one.samples), default=0)

    def cost(record: RequestRecord) -> float:
        return (record.prompt_tokens or 0) * asked + _tokens(record) * said

    return Budget(task.budget_usd, longest * asked + most * said, cost)


def _tokens(record: RequestRecord) -> int:
    return record.completion_tokens or record.n_events or 0
