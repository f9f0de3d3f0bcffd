"""The samples of a run: points (task x effort), and in each every sample and epoch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oss_eval.bench.client import request_name
from oss_eval.bench.types import Benchmark, Sample
from oss_eval.config.bench_task import BenchTask


@dataclass(frozen=True, slots=True)
class Plan:
    """A task, and the folder of its file."""

    task: BenchTask
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class SampleJob:
    """One sample to ask, in one epoch at one effort."""

    point_id: str
    task: BenchTask
    benchmark: Benchmark
    sample: Sample
    effort: str | None
    epoch: int
    first_attempt: int = 1
    """More than 1 where earlier attempts were lost with a node."""

    @property
    def name(self) -> str:
        """The sample in request ids."""
        return f"{self.sample.subset}/{self.sample.sample_id}"

    @property
    def request_name(self) -> str:
        """What the ids of its requests begin with."""
        return request_name(self.point_id, self.name, self.epoch)

    @property
    def key(self) -> tuple[str, str, str, int]:
        """As the rows of samples are told apart."""
        return self.point_id, self.sample.subset, self.sample.sample_id, self.epoch


@dataclass(slots=True)
class BenchPoint:
    """One task at one reasoning effort."""

    point_id: str
    index: int
    task: str
    reasoning_effort: str | None
    samples: int
    repeats: int
    until: dict[str, Any] | None = None
    """What the point was asked for, and how that ended: `error`, `against`, `budget`, `reached`, `answers`."""

    @property
    def number(self) -> int:
        """Number of answers; of a point that was stopped early, those that there are."""
        return (self.until or {}).get("answers") or self.samples * self.repeats


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """A plan with its benchmark open and its samples loaded."""

    plan: Plan
    benchmark: Benchmark
    samples: list[Sample]


def points(loaded_tasks: list[LoadedTask], stored: list[BenchPoint]) -> list[BenchPoint]:
    """A point for each task and effort; those of a stored run keep their ids, new ones come after them."""
    known = {(point.task, point.reasoning_effort): point for point in stored}
    found = list(stored)
    for loaded in loaded_tasks:
        task = loaded.plan.task
        for effort in task.reasoning_effort or (None,):
            point = known.get((task.name, effort))
            if point is None:
                name = f"{len(found):02d}-{task.name}" + (f"-{effort}" if effort else "")
                point = BenchPoint(name, len(found), task.name, effort, 0, 0)
                found.append(point)
            point.samples, point.repeats = len(loaded.samples), task.most_repeats
    return found


def jobs(loaded_tasks: list[LoadedTask], found: list[BenchPoint]) -> list[SampleJob]:
    """All samples to ask, epoch by epoch, so that an interrupted run has asked every sample about equally
    often."""
    by_point = {(point.task, point.reasoning_effort): point.point_id for point in found}
    return [
        SampleJob(by_point[task.name, effort], task, loaded.benchmark, sample, effort, epoch)
        for loaded in loaded_tasks
        for task in [loaded.plan.task]
        for effort in task.reasoning_effort or (None,)
        for epoch in range(1, task.most_repeats + 1)
        for sample in loaded.samples
    ]


def samples_hash(samples: list[Sample]) -> str:
    """SHA-256 over prompts and targets, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        line = [sample.subset, sample.sample_id, sample.messages, sample.target]
        digest.update(
            json.dumps(line, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass") + b"\n"
        )
    return digest.hexdigest()
