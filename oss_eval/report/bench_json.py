"""A benchmark run as JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from oss_eval.analysis.bench_summary import OVERALL, Group, groups
from oss_eval.analysis.scores import ScoreEstimate
from oss_eval.analysis.stats import Estimate
from oss_eval.report.bench import begun_manifest
from oss_eval.results.mirror import place_of
from oss_eval.results.reader import read_samples, status_of


def task_groups(path: Path) -> list[Group]:
    """Each task and effort of a run, all subsets together."""
    found = groups(read_samples(path), begun_manifest(path))
    return [group for group in found if group.subset == OVERALL]


def as_json(path: Path) -> dict[str, Any]:
    """The run as one JSON document."""
    manifest = begun_manifest(path)
    rows = groups(read_samples(path), manifest)
    return {
        "run_id": manifest["run_id"],
        "path": place_of(path),
        "kind": "bench",
        "status": status_of(path, manifest),
        "simulated": bool(manifest["endpoint"].get("simulated")),
        "model": manifest["model"],
        "endpoint": manifest["endpoint"]["url"],
        "points": [_point(group) for group in rows],
        "groups": [_document(group) for group in rows],
    }


def _point(group: Group) -> dict[str, Any]:
    """A task and effort in the shape of a load sweep's point."""
    return {
        "point_id": group.point_id, "task": group.task, "subset": group.subset, "number": group.samples,
        "reasoning_effort": group.effort, "metrics": group.metrics().as_json(),
        "failures": {kind: {"count": n, "example": text} for kind, (n, text) in group.failures.items()},
    }  # fmt: skip


def _document(group: Group) -> dict[str, Any]:
    """The same under the keys of 0.2."""
    values = asdict(group)
    for name in list(values):
        original = getattr(group, name)
        if isinstance(original, ScoreEstimate | Estimate):
            values[name] = original._asdict()
    for name in ("pass_at", "pass_hat", "majority_at"):
        values[name] = {str(k): score._asdict() for k, score in getattr(group, name).items()}
    values["failures"] = {k: {"count": n, "example": text} for k, (n, text) in group.failures.items()}
    return values
