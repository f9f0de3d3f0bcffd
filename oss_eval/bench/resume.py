"""Going on with a stored run: what it was asked to do, what has changed, what it still lacks."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from oss_eval.bench.jobs import Job, Plan, Point
from oss_eval.config import BenchTask, validated
from oss_eval.endpoints import Endpoint, models
from oss_eval.errors import EndpointError, StoreError, UsageError
from oss_eval.simulate.process import parse_sim_url

MAY_CHANGE = frozenset(
    "url repeats limit reasoning_effort parallel retries max_failures connect_timeout read_timeout total_timeout "
    "description data hub judge_url folder".split()
)
"""Settings that leave the answers alike: how many there are, who carries them, how long they are waited for."""


def plans(manifest: dict[str, Any], typed: dict[str, Any]) -> list[Plan]:
    """The stored run's tasks with what was typed now.

    Raises UsageError for a change that would mix unlike answers, showing it, and StoreError for a run that is no
    benchmark.
    """
    if manifest.get("kind") != "bench" or "tasks" not in manifest:
        raise StoreError(f"{manifest['run_id']} is no benchmark run", "oss-eval bench --resume goes on with those")
    found: list[Plan] = []
    for name, stored in manifest["tasks"].items():
        values = {key: stored[key] for key in BenchTask.model_fields if key in stored}
        if not values.get("url"):  # it was found; looking again might find another one
            endpoint = manifest["endpoint"]
            started = endpoint["simulator"] if endpoint.get("started") else None
            values["url"] = [started] if started else endpoint.get("urls") or [endpoint["url"]]
        values["model"] = manifest["model"]
        hidden = [key for key, value in {**values, **typed}.items() if "***" in str(value)]
        if hidden:
            flags = ", ".join(f"--{key.replace('_', '-')}" for key in hidden)
            raise UsageError(
                f"{manifest['run_id']} holds {flags} without its secret part", f"give {flags} again with --resume"
            )
        task = validated(BenchTask, {**values, **typed}, "oss-eval bench")
        before = validated(BenchTask, values, "oss-eval bench")
        lines = [
            f"  {name}: --{key.replace('_', '-')} was {getattr(before, key)!r}, now {getattr(task, key)!r}"
            for key in BenchTask.model_fields
            if key not in MAY_CHANGE and getattr(before, key) != getattr(task, key)
        ]
        if task.repeats < before.repeats:
            lines.append(f"  {name}: --repeats was {before.repeats}, now {task.repeats}: it can only grow")
        if task.limit is not None and (before.limit is None or task.limit < before.limit):
            lines.append(f"  {name}: --limit was {before.limit}, now {task.limit}: it can only grow")
        if lines:
            raise UsageError(
                f"{manifest['run_id']} can't go on with other settings, its answers would not be alike:\n"
                + "\n".join(lines),
                "leave the flag out, or begin a run of its own without --resume",
            )
        efforts = tuple(dict.fromkeys([*before.reasoning_effort, *task.reasoning_effort]))
        folder = stored.get("folder")
        found.append(Plan(task.model_copy(update={"reasoning_effort": efforts}), folder and Path(folder)))
    return found


def check_simulated(manifest: dict[str, Any], simulated: bool) -> None:
    """Raise UsageError rather than mix a model's answers with a simulator's."""
    before = bool(manifest["endpoint"].get("simulated"))
    if before != simulated:
        raise UsageError(
            f"the answers of {manifest['run_id']} are {'simulated' if before else 'from a real server'}, and "
            f"{'a real server' if before else 'a simulator'} would be asked now",
            "say who is to be asked with --url, or begin a run of its own without --resume",
        )


def check_model(model: str, simulator: str | None, endpoints: tuple[Endpoint, ...], timeout: float) -> None:
    """Raise UsageError when the server lists its models and the run's is not among them."""
    served: list[str] = []
    if simulator is not None:
        served = [parse_sim_url(simulator)[0].model]
    else:
        with contextlib.suppress(EndpointError):
            served = models(endpoints[0], timeout)
    if served and model not in served:
        raise UsageError(
            f"the run's answers are from {model!r}, and the server has {', '.join(map(repr, served[:5]))}",
            "say where that model is served with --url, or begin a run of its own without --resume",
        )


def stored_points(manifest: dict[str, Any]) -> list[Point]:
    """The points of a stored run."""
    names = Point.__dataclass_fields__
    return [Point(**{key: value for key, value in point.items() if key in names}) for point in manifest["points"]]


def missing(path: Path, jobs: list[Job]) -> list[Job]:
    """The jobs without an answer in the stored run; failed samples are asked again.

    Raises UsageError when a stored sample is not the question that would be asked now.
    """
    from oss_eval.store import read_samples

    columns = ["point_id", "subset", "sample_id", "epoch", "status", "target", "prompt", "turns"]
    stored = {
        (row["point_id"], row["subset"], row["sample_id"], row["epoch"]): row
        for row in read_samples(path).select(columns).to_pylist()
    }
    left: list[Job] = []
    for job in jobs:
        question = job.question
        row = stored.get((job.point_id, question.subset, question.sample_id, job.epoch))
        if row is None or row["status"] != "ok":
            left.append(job)
            continue
        same = row["turns"] > 1 or json.loads(row["prompt"]) == json.loads(json.dumps(question.messages))
        if not same or row["target"] != question.target:
            raise UsageError(
                f"{path.name}: {job.task.name} {question.subset}/{question.sample_id} was another question:\n"
                f"  then: {row['prompt'][:200]} -> {row['target']}\n"
                f"  now:  {json.dumps(question.messages)[:200]} -> {question.target}",
                "the data has changed: begin a run of its own without --resume",
            )
    return left
