"""Points of a sweep that were measured several times, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from oss_eval.analysis import stats
from oss_eval.analysis.figures import Metric, PointMetrics
from oss_eval.analysis.perf_summary import PointReport, RunReport

SUMS = ("requests", "failures", "cancelled", "duration", "gpu_energy_j", "server_requests", "ttft_bounded")
DRIFT = 1.25
SHARES = ("success_rate", "truncated")


def pooled(report: RunReport) -> RunReport:
    """The report with one point for each effort and concurrency: `perf --repeat` has several."""
    groups: dict[tuple[str | None, float], list[PointReport]] = {}
    for point in report.points:
        groups.setdefault((point.reasoning_effort, point.level), []).append(point)
    if not report.manifest.get("task", {}).get("repeat") or len(groups) == len(report.points):
        return report
    efforts = list(dict.fromkeys(point.reasoning_effort for point in report.points))
    order = sorted(groups, key=lambda key: (efforts.index(key[0]), key[1]))
    return replace(report, points=[_together(groups[key]) for key in order])


def _together(points: list[PointReport]) -> PointReport:
    checks = [check for point in points for check in point.checks or ()]
    drift = first_against_others([point.metrics for point in points])
    if drift is not None:
        text = f"the first of {len(points)} repeats had {drift:.1f} times the mean latency of the others"
        hint = "a server that was still warming up, or whose load changed; run it again"
        checks.append({"kind": "drift", "level": "warn", "message": f"{text}: {hint}"})
    failures: dict[str, tuple[int, str]] = {}
    for kind, (count, text) in (item for point in points for item in point.failures.items()):
        before, first = failures.get(kind, (0, text))
        failures[kind] = before + count, first
    return replace(
        points[0],
        number=sum(point.number for point in points),
        metrics=merged([point.metrics for point in points]),
        failures=failures,
        token_sources=tuple(sorted({source for point in points for source in point.token_sources})),
        clock_sources=tuple(sorted({source for point in points for source in point.clock_sources})),
        checks=tuple(checks) if all(point.checks is not None for point in points) else None,
        slow_start=next((point.slow_start for point in points if point.slow_start is not None), None),
        repeats=len(points),
    )


def first_against_others(repeats: Sequence[PointMetrics]) -> float | None:
    """The first repeat's mean latency by the mean of the others', if that is more than DRIFT or less than
    1 / DRIFT: repeats do not protect from a server that changes while it is measured."""
    known = [value for metrics in repeats if (value := metrics.get("latency_ms", "mean")) is not None]
    if len(known) < 2 or not known[0]:
        return None
    ratio = known[0] / float(np.mean(known[1:]))
    return ratio if not 1 / DRIFT <= ratio <= DRIFT else None


def merged(repeats: Sequence[PointMetrics]) -> PointMetrics:
    """Figures over repeats of a point: means with Student's t over the repeats' figures; counts and totals added
    up, shares of all requests with Wilson's interval, the largest maximum. A percentile is the mean of the
    repeats', its `n` the fewest of any."""
    keys = dict.fromkeys(key for metrics in repeats for key in metrics.figures)
    return PointMetrics({key: _merged([m for p in repeats if (m := p.metric(*key)) is not None]) for key in keys})


def _merged(found: list[Metric]) -> Metric:
    first, values = found[0], [metric.value for metric in found]
    total = sum(metric.n for metric in found)
    if first.metric in SUMS or first.stat == "total":
        return replace(first, value=sum(values), low=None, high=None, n=total)
    if first.stat == "max":
        return replace(first, value=max(values), low=None, high=None, n=total)
    if first.metric in SHARES:
        share = stats.proportion(round(sum(metric.value * metric.n for metric in found)), total)
        return replace(first, value=share.value, low=share.low, high=share.high, n=total)
    n = min(metric.n for metric in found) if first.stat.startswith("p") else total
    value, low, high = float(np.mean(values)), None, None
    if len(values) > 1:
        half = stats.student(len(values) - 1) * float(np.std(values, ddof=1) / np.sqrt(len(values)))
        low, high = value - half, value + half
    return replace(first, value=value, low=low, high=high, n=n)
