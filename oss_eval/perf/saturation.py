"""`perf --stop-when saturated`: whether further points of a sweep would tell nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oss_eval.load.plan import Point

MORE = 1.05
"""Growth of the throughput below which more load gives none."""


def beyond(saturated: Point, other: Point) -> bool:
    """Whether a point has the same effort and repeat as a saturated one, and more load."""
    same = (saturated.reasoning_effort, saturated.repeat) == (other.reasoning_effort, other.repeat)
    more = (other.rate or 0.0) > (saturated.rate or 0.0) or (other.parallel or 0) > (saturated.parallel or 0)
    return same and more


def stop_reason(path: Path, point: Point) -> str | None:
    """Why the sweep stored in `path` ends with `point`, which has just ended; None if it goes on."""
    from oss_eval.analysis.perf_summary import load_run

    own = [
        one
        for one in load_run(path).points
        if (one.reasoning_effort, one.repeat) == (point.reasoning_effort, point.repeat)
    ]
    rates = [(one.level, one.metrics.shown.get("output_tps")) for one in own]
    grows = any(one.metrics.get("queue_growth") for one in own if one.point_id == point.point_id)
    if point.rate is not None:
        return f"at {point.rate:g} requests/s the queue only grows" if grows else None
    return no_more_throughput([(level, rate) for level, rate in rates if rate])


def no_more_throughput(points: Sequence[tuple[float, float]]) -> str | None:
    """Why the last of some points, given as (concurrency, output rate), gives no more throughput than a lower
    concurrency; None if it does."""
    if len(points) < 2:
        return None
    (level, rate), earlier = points[-1], points[:-1]
    best_level, best = max(earlier, key=lambda pair: pair[1])
    if level > best_level and rate < best * MORE:
        return f"concurrency {level:g} gives {rate / best - 1:+.1%} throughput over {best_level:g}"
    return None
