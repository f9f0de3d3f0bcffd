"""Resuming a stored benchmark run: its tasks, what has changed, and the samples that it still lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from oss_eval.bench.plan import BenchPoint, Plan, SampleJob
from oss_eval.config.bench_task import BenchTask
from oss_eval.errors import StoreError, UsageError
from oss_eval.run import resume

MAY_CHANGE = resume.FREE_SETTINGS | frozenset(
    "repeats limit until against budget_tokens budget_usd reasoning_effort parallel retries max_failures data hub "
    "judge_url folder workers ray_address".split()
)
"""Settings that do not change the answers: how many there are, the server, the timeouts."""


def plans(manifest: dict[str, Any], typed: dict[str, Any]) -> list[Plan]:
    """The stored run's tasks with the settings that are given now.

    Raises UsageError for a change that would mix unlike answers, showing it, and StoreError for a run that is no
    benchmark.
    """
    if manifest.get("kind") != "bench":
        raise StoreError(f"{manifest['run_id']} is not a benchmark run", "oss-eval resume resumes load sweeps")
    if "tasks" not in manifest:
        raise StoreError(f"{manifest['run_id']} ended before anything was asked", "run oss-eval bench again")
    found: list[Plan] = []
    for name, stored in manifest["tasks"].items():
        before, task = resume.stored_and_current_task(BenchTask, manifest, stored, typed, "oss-eval bench")
        lines = resume.differences(before, task, MAY_CHANGE)
        if task.repeats < before.repeats:
            lines.append(f"  {name}: --repeats was {before.repeats}, now {task.repeats}: it can only grow")
        if task.limit is not None and (before.limit is None or task.limit < before.limit):
            lines.append(f"  {name}: --limit was {before.limit}, now {task.limit}: it can only grow")
        if lines:
            raise resume.settings_differ(manifest, lines)
        efforts = tuple(dict.fromkeys([*before.reasoning_effort, *task.reasoning_effort]))
        folder = stored.get("folder")
        found.append(Plan(task.model_copy(update={"reasoning_effort": efforts}), folder and Path(folder)))
    return found


def stored_points(manifest: dict[str, Any]) -> list[BenchPoint]:
    """The points of a stored run."""
    names = BenchPoint.__dataclass_fields__
    return [
        BenchPoint(**{key: value for key, value in point.items() if key in names}) for point in manifest["points"]
    ]


def missing(path: Path, jobs: list[SampleJob]) -> list[SampleJob]:
    """The jobs without an answer in the stored run; failed samples are asked again.

    Raises UsageError when a stored sample differs from the one that would be asked now.
    """
    from oss_eval.results.reader import read_samples

    columns = ["point_id", "subset", "sample_id", "epoch", "status", "target", "prompt", "turns"]
    stored = {
        (row["point_id"], row["subset"], row["sample_id"], row["epoch"]): row
        for row in read_samples(path).select(columns).to_pylist()
    }
    left: list[SampleJob] = []
    for job in jobs:
        sample = job.sample
        row = stored.get((job.point_id, sample.subset, sample.sample_id, job.epoch))
        if row is None or row["status"] != "ok":
            left.append(job)
            continue
        same = row["turns"] > 1 or json.loads(row["prompt"]) == json.loads(json.dumps(sample.messages))
        if not same or row["target"] != sample.target:
            raise UsageError(
                f"{path.name}: {job.task.name} {sample.subset}/{sample.sample_id} has changed:\n"
                f"  then: {row['prompt'][:200]} -> {row['target']}\n"
                f"  now:  {json.dumps(sample.messages)[:200]} -> {sample.target}",
                "the data has changed: start a new run",
            )
    return left
