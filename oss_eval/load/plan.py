"""The points of a sweep's grid, and how many workers hold a point's connections."""

from __future__ import annotations

import random
import re

from pydantic import BaseModel, ConfigDict

from oss_eval.config.perf_task import PerfTask


class Point(BaseModel):
    """One cell of the grid: an effort, a concurrency and the number of requests."""

    model_config = ConfigDict(frozen=True)

    point_id: str
    index: int
    parallel: int
    number: int
    reasoning_effort: str | None = None
    warmup: bool = False
    workers: int = 1
    repeat: int = 1


STREAMS_A_WORKER = 128
"""One process takes 1,024 streams of 66 tokens/s with half of one fast core (benchmarks/). Where there are
more cores, more processes are used long before that: tokens of fewer streams wait for each other."""


def auto_workers(parallel: int, cores: int) -> int:
    """Worker processes for a level: as many as its streams call for, one core left to the main process."""
    return max(1, min(cores - 1, -(-parallel // STREAMS_A_WORKER)))


def grid(task: PerfTask, cores: int) -> list[Point]:
    """Points of a sweep in the order they run: all levels of the first effort, then the next. Repeats follow, each
    in a shuffled order that is the same for the same task: what drifts does not look like an effect of the level.

    `cores` is how many this machine has for `workers: auto`.
    """
    points: list[Point] = []
    cells = [(effort, *level) for effort in task.reasoning_effort or (None,) for level in task.levels()]
    for repeat in range(1, task.repeat + 1):
        order = list(cells)
        if task.repeat > 1:
            random.Random(f"{task.seed}/{repeat}").shuffle(order)
        for effort, parallel, number in order:
            index = len(points)
            name = re.sub(r"[^A-Za-z0-9._]+", "_", effort) + "-" if effort else ""
            point_id = f"{index:02d}-{name}c{parallel}" + (f"-x{repeat}" if task.repeat > 1 else "")
            workers = auto_workers(parallel, cores) if task.workers == "auto" else min(task.workers, parallel)
            points.append(
                Point(
                    point_id=point_id,
                    index=index,
                    parallel=parallel,
                    number=number,
                    reasoning_effort=effort,
                    workers=workers,
                    repeat=repeat,
                )
            )
    return points
