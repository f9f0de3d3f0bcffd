"""The benchmark of a task, wherever its samples come from."""

from __future__ import annotations

from pathlib import Path

from oss_eval.bench.plan import Plan
from oss_eval.bench.scoring.scorer_process import ScorerProcess
from oss_eval.bench.sources.custom import CustomBenchmark
from oss_eval.bench.types import Benchmark
from oss_eval.endpoint.auth import Auth


def open_benchmark(plan: Plan, model: str, scorers: ScorerProcess, auth: Auth, scratch: Path) -> Benchmark:
    """The benchmark of a task. Raises OssEvalError for what it lacks."""
    task = plan.task
    if task.benchmark is None:
        return CustomBenchmark(task, plan.folder, scorers, auth)
    from oss_eval.bench.sources.evalscope import EvalScopeBenchmark

    return EvalScopeBenchmark(task, model, scorers, auth, scratch / task.name)
