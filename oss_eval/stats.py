"""Percentiles and intervals. Pure functions of numbers; the source of each formula is in its docstring."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
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
    distribution = Distribution()
    distribution.add(np.asarray(values, dtype=np.float64))
    return distribution.mean()


def percentile(values: ArrayLike, q: float) -> Estimate:
    """The q-th percentile (0-100, numpy's linear method) with a distribution-free interval.

    The interval runs between two order statistics whose ranks are binomial quantiles (Conover, Practical
    Nonparametric Statistics, 3rd ed., section 3.2). An end beyond the sample is None: with few values the
    data can't bound a high percentile from above.
    """
    distribution = Distribution()
    distribution.add(np.asarray(values, dtype=np.float64))
    return distribution.percentile(q)


class Distribution:
    """Values of any number in bounded memory: exact up to EXACT of them, then in bins of 0.01% width.

    Values are counted in logarithmic bins once there are too many to keep; a percentile is then the middle of
    its bin, at most 0.005% off. Mean and maximum stay exact. For values >= 0.
    """

    EXACT = 1 << 20
    _STEP = float(np.log1p(1e-4))
    _SMALLEST = 1e-6
    _BINS = 1 << 19
    """Up to 1e-6 * 1.0001 ** 2**19 = 6e16 of the values' unit: 1.9 million years in ms."""

    def __init__(self) -> None:
        self.n = 0
        self.max = float("-inf")
        self._sum = self._squares = 0.0
        self._shift = 0.0
        self._kept: list[NDArray[np.float64]] = []
        self._sorted: NDArray[np.float64] | None = None
        self._bins: NDArray[np.int64] | None = None

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in more values."""
        if not len(values):
            return
        if not self.n:
            self._shift = float(values[0])  # sums of squares around a typical value lose no digits
        self.n += len(values)
        self.max = max(self.max, float(values.max()))
        around = values - self._shift
        self._sum += float(around.sum())
        self._squares += float(around @ around)
        self._sorted = None
        self._kept.append(values)
        if self._bins is not None or self.n > self.EXACT:
            self._count()

    def _count(self) -> None:
        """Move kept values into the bins; bin 0 holds everything up to _SMALLEST."""
        if self._bins is None:
            self._bins = np.zeros(self._BINS, dtype=np.int64)
        for values in self._kept:
            for start in range(0, len(values), 1 << 16):  # the logarithms need memory of their own
                places = np.maximum(values[start : start + (1 << 16)], self._SMALLEST) / self._SMALLEST
                counts = np.bincount(np.ceil(np.log(places) / self._STEP).astype(np.int64).clip(0, self._BINS - 1))
                self._bins[: len(counts)] += counts
        self._kept = []

    def mean(self) -> Estimate:
        """Mean with Student's t interval; n must be at least 1."""
        offset = self._sum / self.n
        centre = self._shift + offset
        if self.n < 2:
            return Estimate(centre, None, None)
        variance = max(0.0, self._squares - self.n * offset * offset) / (self.n - 1)
        half = float(scipy_stats.t.ppf((1 + CONFIDENCE) / 2, self.n - 1)) * float(np.sqrt(variance / self.n))
        return Estimate(centre, centre - half, centre + half)

    def percentile(self, q: float) -> Estimate:
        """A percentile as `percentile` defines it; n must be at least 1."""
        n, p = self.n, q / 100
        tail = (1 - CONFIDENCE) / 2
        # Largest r with P(B <= r-1) <= tail, smallest s with P(B >= s) <= tail, for B ~ Binomial(n, p).
        r = int(scipy_stats.binom.ppf(tail, n, p))
        if r > 0 and scipy_stats.binom.cdf(r - 1, n, p) > tail:
            r -= 1
        s = int(scipy_stats.binom.ppf(1 - tail, n, p)) + 1
        low = self._ranked(r - 1) if r >= 1 else None
        high = self._ranked(s - 1) if s <= n else None
        if self._bins is None:
            return Estimate(float(np.percentile(self._exact(), q)), low, high)
        return Estimate(self._ranked(round(p * (n - 1))), low, high)

    def _exact(self) -> NDArray[np.float64]:
        if self._sorted is None:
            self._sorted = np.sort(np.concatenate(self._kept))
            self._kept = [self._sorted]
        return self._sorted

    def _ranked(self, rank: int) -> float:
        """The value with so many values below it."""
        if self._bins is None:
            return float(self._exact()[rank])
        place = int(np.searchsorted(np.cumsum(self._bins), rank, side="right"))
        return self._SMALLEST * float(np.exp((place - 0.5) * self._STEP)) if place else 0.0


def proportion(successes: int, total: int) -> Estimate:
    """Share of successes with Wilson's score interval (Wilson 1927), as scipy computes it."""
    interval = scipy_stats.binomtest(successes, total).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(successes / total, float(interval.low), float(interval.high))
