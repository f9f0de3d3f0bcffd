"""Differences between two runs, with intervals and p-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from oss_eval.analysis import stats
from oss_eval.analysis.figures import Metric, PointMetrics
from oss_eval.analysis.scores import by_problem, mean_score
from oss_eval.analysis.stats import Difference, Estimate
from oss_eval.analysis.stratified import score_difference

LOWER, HIGHER = "lower", "higher"
PERF_METRICS = (
    ("plateau_output_tps", "value", HIGHER),
    ("output_tps", "value", HIGHER),
    ("rps", "value", HIGHER),
    ("ttft_ms", "mean", LOWER),
    ("ttft_ms", "p50", LOWER),
    ("ttft_ms", "p99", LOWER),
    ("ttfa_ms", "mean", LOWER),
    ("tpot_ms", "mean", LOWER),
    ("tpot_ms", "p99", LOWER),
    ("latency_ms", "mean", LOWER),
    ("latency_ms", "p50", LOWER),
    ("latency_ms", "p99", LOWER),
    ("success_rate", "value", HIGHER),
    ("attainment", "value", HIGHER),
    ("goodput", "value", HIGHER),
    ("completion_tokens", "mean", ""),
)
"""(metric, statistic, which is better)."""
OF_ALL = ("success_rate", "attainment")
"""Shares of all requests."""
PAIRED = (
    ("score", HIGHER),
    ("truncated", LOWER),
    ("completion_tokens", LOWER),
    ("ttft_ms", LOWER),
    ("latency_ms", LOWER),
)
"""(sample column, which is better)."""


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """The difference of one metric, B minus A."""

    where: str
    metric: str
    stat: str
    a: float
    b: float
    difference: Difference
    better: str
    """`higher`, `lower`, or empty for a metric that is neither good nor bad."""
    paired: bool
    """Whether the same problems were compared."""
    unit: str = ""
    ratio: Difference | None = None
    """B / A - 1, from which `difference` follows, for figures of load."""
    p_adjusted: float | None = None
    """Corrected for the number of scores compared (Holm); None for other figures."""

    @property
    def p(self) -> float | None:
        """The p-value that counts."""
        return self.difference.p if self.p_adjusted is None else self.p_adjusted

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `different` or `can't tell`, for B, at the 5% level; `no interval` without one."""
        if self.p is None:
            return "can't tell" if self.paired else "no interval"
        if self.p >= 1 - stats.CONFIDENCE or self.difference.value == 0:
            return "can't tell"
        if not self.better:
            return "different"
        return "better" if (self.difference.value > 0) == (self.better == HIGHER) else "worse"


def adjusted(found: Sequence[MetricDifference]) -> list[MetricDifference]:
    """The same with Holm's correction over all scores among them."""
    corrected = stats.holm([c.difference.p if c.metric == "score" else None for c in found])
    return [replace(c, p_adjusted=p) for c, p in zip(found, corrected, strict=True)]


def sweeps(where: str, a: Sequence[PointMetrics], b: Sequence[PointMetrics]) -> list[MetricDifference]:
    """Figures of a point of two load sweeps, each given once or, measured several times, by its repeats.

    Of repeats: Welch's t over the logarithms of their figures. Of one run each: from the two intervals within the
    run (`stats.ratio`), which hold as far as docs/statistics.md says. Shares of all requests by Newcombe's
    interval (`stats.between`).
    """
    found = []
    for metric, stat, better in PERF_METRICS:
        ones, twos = ([m for p in side if (m := _told(p, metric, stat)) is not None] for side in (a, b))
        if not ones or not twos:
            continue
        mean_a, mean_b = (sum(m.value for m in side) / len(side) for side in (ones, twos))
        difference, relative = _bare(mean_a, mean_b), None
        if metric in OF_ALL:
            difference = stats.between(_pooled(ones), _pooled(twos)) or difference
        else:
            relative = _relative([m.value for m in ones], [m.value for m in twos])
            if relative is None and len(ones) == len(twos) == 1:
                relative = stats.ratio(_estimate(ones[0]), _estimate(twos[0]))
        if relative is not None and relative.low is not None and relative.high is not None:
            ends = (relative.value * mean_a, relative.low * mean_a, relative.high * mean_a)
            difference = Difference(*ends, relative.p, relative.pairs)
        found.append(
            MetricDifference(
                where, metric, stat, mean_a, mean_b, difference, better, False, ones[0].unit, relative
            )
        )
    return found


def _told(metrics: PointMetrics, metric: str, stat: str) -> Metric | None:
    """A figure; None for a 99th percentile of too few values."""
    return None if stat == "p99" and metrics.tail(metric)[1] else metrics.metric(metric, stat)


def _relative(a: list[float], b: list[float]) -> Difference | None:
    """B / A - 1 of geometric means, from repeats; None with fewer than two of each."""
    return stats.from_logs(stats.welch(np.log(a), np.log(b))) if min(*a, *b) > 0 else None


def _pooled(shares: list[Metric]) -> Estimate:
    """The share of all requests of all repeats."""
    if len(shares) == 1:
        return _estimate(shares[0])
    return stats.proportion(round(sum(m.value * m.n for m in shares)), sum(m.n for m in shares))


def _estimate(metric: Metric) -> Estimate:
    return Estimate(metric.value, metric.low, metric.high)


def _bare(a: float, b: float) -> Difference:
    return Difference(b - a, None, None, None, 0)


@dataclass(frozen=True, slots=True)
class Flip:
    """A problem that one side mostly solves and the other does not: right answers and answers of both."""

    subset: str
    problem: str
    """Its place in the benchmark, or its prompt."""
    right_a: float
    answers_a: int
    right_b: float
    answers_b: int


@dataclass(frozen=True, slots=True)
class BenchmarkDifference:
    """Two sides of one task and effort, over the problems that both have."""

    differences: list[MetricDifference]
    wins: int
    """Problems on which B's mean score is higher."""
    losses: int
    ties: int
    flips: list[Flip]


def benchmarks(
    where: str, a: pa.Table, b: pa.Table, same_order: bool = True, adaptive: tuple[bool, bool] = (False, False)
) -> BenchmarkDifference:
    """Figures of one task and effort in two benchmark runs, over the problems that both have.

    Tables of samples of one point each, with the columns of PAIRED. Problems are told by their place in the
    benchmark; where that is not the same in both (not `same_order`), by their prompts. Scores: see
    `score_difference`; other figures: Student's t over the problems' differences.
    """
    columns = ["subset", "sample_id" if same_order else "prompt", *(name for name, _ in PAIRED)]
    sides = [samples.select(columns).to_pylist() for samples in (a, b)]
    found, flips = [], []
    wins = losses = ties = 0
    for column, better in PAIRED:
        one, two = (by_problem(rows, column, "sample_id" if same_order else "prompt") for rows in sides)
        common = [key for key in one if key in two]
        if not common:
            continue
        before, after = [one[key] for key in common], [two[key] for key in common]
        means = [(sum(x) / len(x), sum(y) / len(y)) for x, y in zip(before, after, strict=True)]
        if column == "score":
            difference = score_difference(before, after, adaptive)
            wins, losses = sum(y > x for x, y in means), sum(y < x for x, y in means)
            ties = len(means) - wins - losses
            flips = [
                Flip(*key, sum(one[key]), len(one[key]), sum(two[key]), len(two[key]))
                for key, (x, y) in zip(common, means, strict=True)
                if (x >= 0.5) != (y >= 0.5)
            ]
        else:
            difference = stats.paired([y - x for x, y in means], 1.0 if column == "truncated" else float("inf"))
        unit = "ms" if column.endswith("_ms") else "tokens" if column.endswith("tokens") else ""
        mean_a, mean_b = (sum(side) / len(means) for side in zip(*means, strict=True))
        if column == "score" and any(adaptive):
            mean_a, mean_b = (
                mean_score(side, flag).value for side, flag in zip((before, after), adaptive, strict=True)
            )
        found.append(MetricDifference(where, column, "mean", mean_a, mean_b, difference, better, True, unit))
    return BenchmarkDifference(found, wins, losses, ties, flips)
