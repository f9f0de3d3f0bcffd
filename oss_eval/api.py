"""oss-eval from Python: the commands as functions that return the stored run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oss_eval.endpoint.auth import Auth
from oss_eval.errors import UsageError
from oss_eval.results.mirror import results_folder
from oss_eval.run.lifecycle import RunResult
from oss_eval.run.options import RunOptions

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Run:
    """A stored run."""

    path: Path
    status: str
    """`finished`, `interrupted` or `failed`."""
    kind: str

    def to_pandas(self) -> pd.DataFrame:
        """One row a sample, epoch and effort (bench), or one a request (perf)."""
        return self.samples() if self.kind == "bench" else self.requests()

    def samples(self) -> pd.DataFrame:
        """One row a sample, epoch and effort; see docs/benchmarks.md for the columns."""
        from oss_eval.results.reader import read_samples

        return read_samples(self.path).to_pandas()

    def requests(self) -> pd.DataFrame:
        """One row a request; see docs/measures.md for the columns."""
        from oss_eval.results.reader import read_requests

        return read_requests(self.path).to_pandas()

    def summary(self) -> pd.DataFrame:
        """One row a point, metric and statistic, with 95% intervals."""
        from oss_eval.results.part_files import read_part
        from oss_eval.results.schema import SUMMARY

        return read_part(self.path / "summary.parquet", SUMMARY).to_pandas()

    def manifest(self) -> dict[str, Any]:
        """The manifest: task, settings, server, environment."""
        from oss_eval.results.manifest import read_manifest

        return read_manifest(self.path)


def run_perf(
    task: str = "sweep",
    *,
    out: str | Path = "results",
    name: str | None = None,
    labels: dict[str, str] | None = None,
    api_key: str | None = None,
    **settings: Any,
) -> Run:
    """A load sweep: a task by name or path, and the flags of `oss-eval perf` as keywords. Raises OssEvalError."""
    from oss_eval.config.perf_task import PerfTask
    from oss_eval.config.task import validated
    from oss_eval.config.task_files import overridden
    from oss_eval.perf.sweep import run

    values = overridden(task, settings)
    made = run(validated(PerfTask, values, "oss-eval perf"), _order(out, name, labels, api_key))
    return _run(made, "perf")


def run_bench(
    *tasks: str,
    out: str | Path = "results",
    name: str | None = None,
    labels: dict[str, str] | None = None,
    api_key: str | None = None,
    resume: str | None = None,
    **settings: Any,
) -> Run:
    """Benchmarks by name or path, and the flags of `oss-eval bench` as keywords. Raises OssEvalError."""
    from oss_eval.bench import remaining as resuming
    from oss_eval.bench.run import run
    from oss_eval.bench.select import plans
    from oss_eval.results.manifest import read_manifest
    from oss_eval.results.reader import find_run

    if resume is None:
        return _run(run(plans(list(tasks), settings), _order(out, name, labels, api_key)), "bench")
    stored = find_run(resume, results_folder(out))
    made = run(resuming.plans(read_manifest(stored), settings), _order(out, name, labels, api_key), stored)
    return _run(made, "bench")


def compare(*runs: str | Path, by: str | None = None, out: str | Path = "results") -> pd.DataFrame:
    """Differences between runs, one row a figure, as `oss-eval compare --json` has them; `by` groups all points,
    for example by reasoning_effort. Raises OssEvalError."""
    import pandas as pd

    from oss_eval.analysis import compared_runs
    from oss_eval.report.compare import as_json

    found = compared_runs.sides([str(run) for run in runs], results_folder(out), by)
    return pd.DataFrame(as_json(compared_runs.compare(found, all_pairs=by is not None), [], [])["comparisons"])


def resume(run: str | Path, *, missing: bool = False, out: str | Path = "results", **settings: Any) -> Run:
    """Resume a stored run, as `oss-eval resume` does. Raises OssEvalError."""
    from oss_eval.perf.remaining import sweep
    from oss_eval.perf.sweep import run as run_sweep
    from oss_eval.results.manifest import read_manifest
    from oss_eval.results.reader import find_run

    stored = find_run(str(run), results_folder(out))
    if read_manifest(stored).get("kind") == "bench":
        if missing:
            raise UsageError("missing=True is for load sweeps: a benchmark is asked for its missing samples alone")
        return run_bench(resume=str(stored), out=out, **settings)
    order = _order(out, None, None, settings.pop("api_key", None))
    return _run(run_sweep(sweep(stored, settings), order, resumed=stored, missing=missing), "perf")


def _order(out: str | Path, name: str | None, labels: dict[str, str] | None, api_key: str | None) -> RunOptions:
    return RunOptions(out=results_folder(out), name=name, labels=labels or {}, auth=Auth(key=api_key))


def _run(made: RunResult, kind: str) -> Run:
    return Run(made.path, made.status, kind)
