"""From names to tasks: the user's files, the shipped ones, EvalScope's benchmarks."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from oss_eval.bench.plan import Plan
from oss_eval.bench.sources import evalscope_names
from oss_eval.config.bench_task import BenchTask
from oss_eval.config.task import validated
from oss_eval.config.task_files import find_task, read_task, task_files
from oss_eval.errors import TaskError, UsageError

ONE_FOR_ALL = ("url", "api", "model", "parallel", "retries", "connect_timeout", "read_timeout", "total_timeout")
"""Settings of the whole run: those of the first task are used."""


def plans(given: list[str], typed: dict[str, Any]) -> list[Plan]:
    """The tasks of the given names, with the flags that override them. Raises TaskError and UsageError."""
    if not given:
        raise UsageError("which benchmark?", "oss-eval bench aime25, for example; oss-eval tasks lists them")
    found: list[Plan] = []
    for name in given:
        values, folder = _values(name)
        task = validated(BenchTask, {**values, **typed}, "oss-eval bench")
        if any(plan.task.name == task.name for plan in found):
            raise UsageError(f"the task {task.name} is named twice", "--repeats asks every sample several times")
        if found:
            first = found[0].task
            task = task.model_copy(update={key: getattr(first, key) for key in ONE_FOR_ALL})
        found.append(Plan(task, folder))
    return found


def _values(name: str) -> tuple[dict[str, Any], Path | None]:
    """Keys of a task, and its file's folder if it has one."""
    local = name.endswith((".yaml", ".yml")) or "/" in name
    if local or name in task_files():
        path = find_task(name)
        return read_task(path, "bench"), path.parent
    known = evalscope_names.names()
    if name in known:
        return {"name": name, "benchmark": name}, None
    if Path(f"{name}.yaml").is_file():
        raise TaskError(f"unknown benchmark {name!r}", f"did you mean the file? oss-eval bench {name}.yaml")
    near = get_close_matches(name, dict.fromkeys([*task_files(), *known]), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise TaskError(f"unknown benchmark {name!r}", f"{hint}oss-eval tasks --all lists them")
