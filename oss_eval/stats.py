"""Percentiles and intervals. Pure functions of numbers; the source of each formula is in its docstring."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

CONFIDENCE = 0.95
P99_NEEDS = 100
"""Below this many values the 99th percentile says no more than the largest one."""


class Estimate(NamedTuple):
    """A value with its 95% interval; the ends are None where the sample is too small to have one."""

    value: float
    low: float | None
    high: float | None


def mean(values: ArrayLike) -> Estimate:
    """Mean with Student's t interval.

    It treats values as independent. Requests of one burst are not, so for those the interval is the narrowest
    that can be defended.
    """
    x = np.asarray(values, dtype=np.float64)
    centre = float(x.mean())
    if len(x) < 2:
        return Estimate(centre, None, None)
    half = float(scipy_stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Estimate(centre, centre - half, centre + half)


def percentile(values: ArrayLike, q: float) -> Estimate:
    """The q-th percentile (0-100, numpy's linear method) with a distribution-free interval.

    The interval runs between two order statistics whose ranks are binomial quantiles (Conover, Practical
    Nonparametric Statistics, 3rd ed., section 3.2). An end beyond the sample is None: with few values the
    data can't bound a high percentile from above.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    p, n = q / 100, len(x)
    tail = (1 - CONFIDENCE) / 2
    value = float(np.percentile(x, q))
    # Largest r with P(B <= r-1) <= tail, smallest s with P(B >= s) <= tail, for B ~ Binomial(n, p).
    r = int(scipy_stats.binom.ppf(tail, n, p))
    if r > 0 and scipy_stats.binom.cdf(r - 1, n, p) > tail:
        r -= 1
    s = int(scipy_stats.binom.ppf(1 - tail, n, p)) + 1
    low = float(x[r - 1]) if r >= 1 else None
    high = float(x[s - 1]) if s <= n else None
    return Estimate(value, low, high)


def proportion(successes: int, total: int) -> Estimate:
    """Share of successes with Wilson's score interval (Wilson 1927), as scipy computes it."""
    interval = scipy_stats.binomtest(successes, total).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(successes / total, float(interval.low), float(interval.high))
