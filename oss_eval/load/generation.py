"""The sampling settings of a task's requests."""

from __future__ import annotations

from typing import Any

from oss_eval.config.perf_task import PerfTask
from oss_eval.config.task import Task
from oss_eval.probe.apis import Generation


def generation(task: Task, model: str, effort: str | None, **changes: Any) -> Generation:
    """Settings of a request at one reasoning effort; `changes` replace fields of Generation."""
    settings: dict[str, Any] = {
        "model": model,
        "max_tokens": task.max_tokens,
        "min_tokens": task.min_tokens if isinstance(task, PerfTask) else None,
        "temperature": task.temperature,
        "top_p": task.top_p,
        "seed": task.seed,
        "stream": task.stream,
        "reasoning_effort": effort,
        "extra": tuple(task.extra_args.items()),
    }
    return Generation(**{**settings, **changes})
