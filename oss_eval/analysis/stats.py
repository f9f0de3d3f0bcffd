"""Percentiles and intervals. Pure functions of numbers; the source of each formula is in its docstring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # not scipy.stats: half a second at the end of every command

CONFIDENCE = 0.95
Z = float(special.ndtri((1 + CONFIDENCE) / 2))
"""The normal distribution's quantile of a two-sided interval."""
P99_NEEDS = 100
"""With fewer values, the 99th percentile is hardly different from the largest value."""


class Estimate(NamedTuple):
    """A value with its 95% interval; the ends are None where the sample is too small to have one."""

    value: float
    low: float | None
    high: float | None


def student(freedom: int) -> float:
    """Student's t quantile of a two-sided interval, by degrees of freedom (at least 1)."""
    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))


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
        self._sum = 0.0
        self._shift = 0.0
        self._kept: list[NDArray[np.float64]] = []
        self._sorted: NDArray[np.float64] | None = None
        self._bins: NDArray[np.int64] | None = None

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in more values."""
        if not len(values):
            return
        if not self.n:
            self._shift = float(values[0])  # a sum around a typical value loses no digits
        self.n += len(values)
        self.max = max(self.max, float(values.max()))
        self._sum += float((values - self._shift).sum())
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

    def mean(self) -> float:
        """Mean; n must be at least 1."""
        return self._shift + self._sum / self.n

    def percentile(self, q: float) -> float:
        """The q-th percentile (0-100, numpy's linear method); n must be at least 1."""
        if self._bins is None:
            return float(np.percentile(self._exact(), q))
        return self._ranked(round(q / 100 * (self.n - 1)))

    def _exact(self) -> NDArray[np.float64]:
        if self._sorted is None:
            self._sorted = np.sort(np.concatenate(self._kept))
            self._kept = [self._sorted]
        return self._sorted

    def _ranked(self, rank: int) -> float:
        """The value at this rank."""
        if self._bins is None:
            return float(self._exact()[rank])
        place = int(np.searchsorted(np.cumsum(self._bins), rank, side="right"))
        return self._SMALLEST * float(np.exp((place - 0.5) * self._STEP)) if place else 0.0


def proportion(successes: int, total: int) -> Estimate:
    """Share of successes with Wilson's score interval (Wilson 1927)."""
    low, high = map(float, wilson(successes / total, total))
    return Estimate(successes / total, 0.0 if successes == 0 else low, 1.0 if successes == total else high)


def wilson(p: ArrayLike, n: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's score interval for shares p of n answers, n not necessarily whole; numbers or arrays."""
    share, size = np.asarray(p, dtype=np.float64), np.asarray(n, dtype=np.float64)
    centre = (share + Z * Z / (2 * size)) / (1 + Z * Z / size)
    half = Z / (1 + Z * Z / size) * np.sqrt((share * (1 - share)).clip(0) / size + Z * Z / (4 * size * size))
    return (centre - half).clip(0), (centre + half).clip(max=1)


class Difference(NamedTuple):
    """A difference with its 95% interval and the chance of one as large if there were none."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    pairs: int
    like_low: float | None = None
    like_high: float | None = None
    """Of scores: the interval on problems like these, `low` to `high` being that on these problems."""

    @property
    def error(self) -> float | None:
        """Standard error that the interval implies."""
        return None if self.low is None or self.high is None else (self.high - self.low) / (2 * Z)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values for a family of comparisons, any of which is below 0.05 in at most 5% of families without a
    difference (Holm 1979, Scandinavian Journal of Statistics 6, 65-70). Those that are None are not part of it."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    reached = 0.0
    for rank, (p, index) in enumerate(known):
        reached = max(reached, min(1.0, (len(known) - rank) * p))
        adjusted[index] = reached
    return adjusted


def between(a: Estimate, b: Estimate) -> Difference | None:
    """b - a of two independent estimates, with an interval out of theirs; None where one has none.

    Each end takes from each estimate the distance to the end of its interval that lies on that side (MOVER: Zou
    and Donner 2008, Statistics in Medicine 27, 1693-1702); of two shares with Wilson's intervals that is
    Newcombe's (1998, Statistics in Medicine 17, 873-890, method 10). The p-value (two-sided, normal) is that of
    the standard error which the side towards no difference implies: p < 0.05 where the interval excludes 0.
    """
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    value = b.value - a.value
    below = float(np.hypot(b.value - b.low, a.high - a.value))
    above = float(np.hypot(b.high - b.value, a.value - a.low))
    side = below if value > 0 else above
    p = float(2 * special.ndtr(-abs(value) * Z / side)) if side > 0 else float(value == 0)
    return Difference(value, value - below, value + above, p, 0)


def ratio(a: Estimate, b: Estimate) -> Difference | None:
    """b / a - 1 of two independent positive estimates: `between` of their logarithms; None where one has no
    interval or reaches 0."""
    if min(a.low or 0.0, b.low or 0.0) <= 0 or a.high is None or b.high is None:
        return None
    logs = (Estimate(*(float(np.log(end or 1.0)) for end in estimate)) for estimate in (a, b))
    return from_logs(between(*logs))


def from_logs(found: Difference | None) -> Difference | None:
    """The ratio less 1 that a difference of logarithms means; None without an interval."""
    if found is None or found.low is None or found.high is None:
        return None
    value, low, high = (float(np.expm1(end)) for end in (found.value, found.low, found.high))
    return Difference(value, low, high, found.p, 0)


def welch(a: ArrayLike, b: ArrayLike) -> Difference | None:
    """Mean of b less mean of a with Welch's t interval and p-value (Welch 1947, Biometrika 34, 28-35); None with
    fewer than two values each, or without any spread."""
    one, two = (np.asarray(values, dtype=np.float64) for values in (a, b))
    if min(len(one), len(two)) < 2:
        return None
    parts = [float(values.var(ddof=1)) / len(values) for values in (one, two)]
    error = float(np.sqrt(sum(parts)))
    if error <= 0:
        return None
    freedom = sum(parts) ** 2 / sum(p * p / (len(v) - 1) for p, v in zip(parts, (one, two), strict=True))
    value = float(two.mean() - one.mean())
    half = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    p = float(2 * special.stdtr(freedom, -abs(value) / error))
    return Difference(value, value - half, value + half, p, 0)


def paired(differences: ArrayLike, most: float = float("inf")) -> Difference:
    """Mean of one difference a problem with Student's t interval and p-value, so that p < 0.05 where the interval
    excludes 0. `most` is the largest difference that can be: 1 for shares. Without any spread neither is known.

    Pairing takes the problems' difficulty out of the comparison (Miller 2024, arXiv:2411.00640, section 4.2).
    """
    values = np.asarray(differences, dtype=np.float64)
    n, value = len(values), float(values.mean())
    value = 0.0 if abs(value) < 1e-12 else value
    error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    if error <= 1e-12:
        return Difference(value, None, None, None, n)
    half, p = student(n - 1) * error, float(2 * special.stdtr(n - 1, -abs(value) / error))
    return Difference(value, max(-most, value - half), min(most, value + half), p, n)
