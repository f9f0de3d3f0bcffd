"""The points of a sweep's grid, and how many workers hold a point's connections."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from oss_eval.config.perf_task import PerfTask


class Point(BaseModel):
    """One cell of the grid: an effort, a load and the number of requests."""

    model_config = ConfigDict(frozen=True)

    point_id: str
    index: int
    parallel: int | None = None
    """Requests in flight of a closed loop; None of an open one."""
    rate: float | None = None
    """Requests per second of an open loop."""
    number: int | None = None
    """Measured requests; None where the time limits them."""
    duration: float | None = None
    """Seconds in which requests are measured; None where their number limits them."""
    reasoning_effort: str | None = None
    warmup: bool = False
    workers: int = 1
    repeat: int = 1
    warmup_requests: int = 0
    """Requests sent before those that are measured, and not counted."""
    warmup_seconds: float = 0.0
    """Requests that start within this time are not counted."""
    turns: bool = False
    """Whether requests are turns of conversations; `number` is then that of conversations."""
    search: bool | None = None
    """Whether it ends when a search knows enough of it."""
    keeps_load: bool = False
    """Whether load is kept up until the last measured request has ended, and on to the next point."""

    @property
    def level(self) -> str:
        """Its load in a name: `c64` or `2.5rps`."""
        return f"c{self.parallel}" if self.parallel is not None else f"{self.rate:g}rps"

    @property
    def continuous(self) -> bool:
        """Whether its requests depend on each other's times, so that missing ones can't be made up for."""
        return self.rate is not None or self.number is None or self.keeps_load or self.turns


STREAMS_A_WORKER = 128
"""One process takes 1,024 streams of 66 tokens/s with half of one fast core (benchmarks/). Where there are
more cores, more processes are used long before that: tokens of fewer streams wait for each other."""
RATE_A_WORKER = 50.0
"""Requests per second of an open loop, which says nothing about how many are in flight."""


def auto_workers(parallel: int, cores: int) -> int:
    """Worker processes for a level: as many as its streams call for, one core left to the main process."""
    return max(1, min(cores - 1, -(-parallel // STREAMS_A_WORKER)))


def grid(task: PerfTask, cores: int, levels: Sequence[tuple[float, int | None]] | None = None) -> list[Point]:
    """Points of a sweep in the order they run: all levels of the first effort, then the next. Repeats follow, each
    in a shuffled order that is the same for the same task: what drifts does not look like an effect of the level.

    `cores` is how many this machine has for `workers: auto`; `levels` are by default the task's.
    """
    points: list[Point] = []
    levels = task.levels() if levels is None else levels
    cells = [(effort, *level) for effort in task.reasoning_effort or (None,) for level in levels]
    for repeat in range(1, task.repeat + 1):
        order = list(cells)
        if task.repeat > 1:
            random.Random(f"{task.seed}/{repeat}").shuffle(order)
        for effort, level, number in order:
            points.append(point_at(task, cores, len(points), level, number, effort, repeat))
    # Slots that go on from point to point stay where they are.
    most = max(point.workers for point in points)
    return [point.model_copy(update={"workers": most}) if point.keeps_load else point for point in points]


def point_at(
    task: PerfTask,
    cores: int,
    index: int,
    level: float,
    number: int | None,
    effort: str | None = None,
    repeat: int = 1,
) -> Point:
    """The point of a task at one level: a concurrency, or requests per second where the task is an open loop."""
    open_loop = task.open_loop
    parallel, rate = (None, float(level)) if open_loop else (int(level), None)
    if (count := task.worker_count) is not None:
        workers = count if parallel is None else min(count, parallel)
    elif parallel is None:
        workers = max(1, min(cores - 1, int(-(-level // RATE_A_WORKER))))
    else:
        workers = auto_workers(parallel, cores)
    warmup = task.warmup_amount(parallel)
    values: dict[str, Any] = {
        "index": index, "parallel": parallel, "rate": rate, "number": number, "duration": task.duration,
        "reasoning_effort": effort, "workers": workers, "repeat": repeat,
        "warmup_requests": warmup if isinstance(warmup, int) else 0,
        "warmup_seconds": (warmup if isinstance(warmup, float) else 0.0) + task.ramp,
        "keeps_load": bool(warmup or task.ramp), "turns": task.turns is not None,
    }  # fmt: skip
    name = re.sub(r"[^A-Za-z0-9._]+", "_", effort) + "-" if effort else ""
    again = f"-x{repeat}" if task.repeat > 1 else ""
    return Point(point_id=f"{index:02d}-{name}{Point(point_id='', **values).level}{again}", **values)
